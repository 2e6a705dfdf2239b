//! The queue's head on the disk. The only SQL.
//!
//! One file in the state directory, with a write-ahead log beside it while it is open. Five tables, a file of code for
//! each: [`messages`]; [`losses`], the ledger; [`dead`], the dead letters; [`marks`], how old the rows are; and `run`,
//! one row: the epoch of the last run, whether it stopped in order, and what it left. `application_id` is weir's, and
//! `user_version` the format's: format 1 had neither dead letters nor marks, and gets them when it is opened.
//!
//! - Nobody else opens the file while weir runs (`locking_mode=EXCLUSIVE`), and only its owner may read it.
//! - A commit is durable when it returns (`synchronous=FULL`), or has not happened.
//! - File and log together stay within `max_bytes`: a sixteenth to a quarter of it is the log's, the rest the file's
//!   (`max_page_count`). Rows are taken while pages are free; what finds none is handed back. Where less than
//!   `min_free` would be free around it once the log has grown to its part, only pages are that the file has already.
//! - A file of a newer format is left as it is. A damaged one is moved aside with its log, to `outbox.db.damaged-` and
//!   the Unix time in milliseconds, and a new one begun with what can be salvaged of it
//!   ([`salvage`]). Damaged is also what is empty, has not weir's id or lacks a table: a new file gets its name only when
//!   it is complete. A row whose checksum is wrong is reported and passed over. An error of the disk becomes words for a
//!   person, and the caller tries again.

mod dead;
mod faults;
mod file;
mod losses;
mod marks;
mod messages;
mod pages;
mod salvage;
mod space;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, OpenFlags, OptionalExtension, TransactionBehavior};

use super::store::{Commit, Committed, Dead, Fault, Found, Known, Met, Position, Run, Store};
use crate::model::Timestamp;
use space::Floor;

/// The file's name in the state directory.
const FILE: &str = "outbox.db";
/// The id that marks a file as weir's, which is its name.
const PROGRAM: i64 = i64::from_be_bytes(*b"\0\0\0\0weir");
/// The format that this file describes.
const VERSION: i64 = 2;
/// Bytes of a page.
const PAGE_SIZE: u32 = 4096;
const PAGE: u64 = PAGE_SIZE as u64;
/// Pages that messages leave free, for the ledger and the note of the run.
const RESERVE: u64 = 64;
/// No row stands as far from zero as this.
const FARTHEST: Position = 1 << 62;
/// How often in a row reading may fail before the file counts as damaged: a bad spot on a card does not heal.
const READS_MAX: u32 = 5;

/// The outbox's file.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    /// Bytes that the log may take; a quarter of it is where the log is folded back into the file.
    log_max: u64,
    /// Pages that the file may have.
    pages_max: u64,
    connection: Option<Connection>,
    /// Which file that is.
    which: Option<(u64, u64)>,
    /// How many messages it has, where that is known without reading them all.
    messages: Option<u64>,
    /// Whether the file is known to be damaged, so that opening must set it aside.
    damaged: bool,
    reads_failed: u32,
    /// Bytes of dead letters that there may be, and that there are.
    dead_max: u64,
    dead_bytes: u64,
    pub(super) floor: Floor,
}

impl Sqlite {
    /// The file in `state_dir`, not opened yet, that may grow to `max_bytes` with its log, while `min_free` bytes are
    /// free on the disk.
    pub(super) fn new(state_dir: &Path, max_bytes: u64, min_free: u64) -> Self {
        let log_max = Self::log_max(max_bytes);
        let pages_max = (max_bytes - log_max) / PAGE;
        let path = state_dir.join(FILE);
        Self {
            path,
            log_max,
            pages_max,
            connection: None,
            which: None,
            messages: None,
            damaged: false,
            reads_failed: 0,
            dead_max: Self::dead_max(max_bytes),
            dead_bytes: 0,
            floor: Floor::new(state_dir, min_free),
        }
    }

    /// About how many bytes of messages a commit may have, so that the log stays within its part of `max_bytes`.
    pub(super) fn commit_max(max_bytes: u64) -> u64 {
        Self::log_max(max_bytes) / 4
    }

    /// The most bytes that a message may have: half of the log's part, for a commit takes one message at least. It
    /// finds room in an empty file.
    pub(super) fn message_max(max_bytes: u64) -> u64 {
        Self::log_max(max_bytes) / 2
    }

    /// The most bytes of dead letters.
    pub(super) fn dead_max(max_bytes: u64) -> u64 {
        (max_bytes / 16).min(16 << 20)
    }

    fn log_max(max_bytes: u64) -> u64 {
        (max_bytes / 4).min(16 << 20)
    }

    /// Opens the file, and nothing more: closing it again leaves it as it is.
    fn connect(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        set(&connection, "locking_mode", "EXCLUSIVE")?;
        set(&connection, "synchronous", "FULL")?;
        set(&connection, "temp_store", "MEMORY")?;
        set(&connection, "cache_size", -256)?;
        Ok(connection)
    }

    /// Makes a file of ours ready.
    fn prepare(&mut self, connection: &Connection, version: i64) -> Result<Found, Error> {
        set(connection, "journal_mode", "WAL")?;
        set(connection, "journal_size_limit", (self.log_max / 4) as i64)?;
        set(connection, "wal_autocheckpoint", (self.log_max / 4 / PAGE) as i64)?;
        set(connection, "max_page_count", self.pages_max as i64)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        if version < VERSION {
            file::upgrade(connection)?;
        }
        let growth = self.growth(connection)?;
        self.floor.look(growth);
        self.found(connection)
    }

    fn found(&mut self, connection: &Connection) -> Result<Found, Error> {
        let ends = "SELECT (SELECT min(position) FROM messages), (SELECT max(position) FROM messages)";
        let ends = connection.query_row(ends, [], |row| {
            let (first, last): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(first.zip(last))
        })?;
        let (first, end) = ends.map_or((0, 0), |(first, last)| (first, last.saturating_add(1)));
        if first < -FARTHEST || end > FARTHEST {
            return Err(faults::corrupt("rows stand where none can"));
        }
        let run = connection
            .query_row("SELECT epoch, clean, saved FROM run", [], |row| {
                let note: i64 = row.get(1)?;
                Ok((Run { epoch: unsigned(row.get(0)?), clean: note != 0, saved: row.get(2)? }, left(note)))
            })
            .optional()?;
        let (run, left) = run.unzip();
        self.messages = if ends.is_none() { Some(0) } else { left.flatten() };
        let dead = dead::all(connection)?;
        self.dead_bytes = dead.iter().map(|kept| kept.bytes as u64).sum();
        let (losses, marks) = (losses::all(connection)?, marks::all(connection)?);
        Ok(Found {
            first,
            end,
            space: self.space(connection)?,
            run,
            fresh: false,
            losses,
            dead,
            marks,
            set_aside: None,
        })
    }

    fn transact(&mut self, connection: &mut Connection, commit: &Commit) -> Result<Committed, Error> {
        if !(commit.rows.is_empty() && commit.dead.is_empty()) {
            let rows = commit.rows.iter().map(|row| row.bytes.len() as u64).sum::<u64>();
            let growth = self.growth(connection)?;
            self.floor.look(growth.saturating_add(rows));
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let deleted = messages::delete(&transaction, commit.delete_below, &commit.keep)?;
        for (key, record) in &commit.losses {
            losses::write(&transaction, *key, record.as_ref())?;
        }
        let refused = self.bury(&transaction, &commit.dead)?;
        let taken = self.insert(&transaction, &commit.rows)?;
        let complete = taken == commit.rows.len();
        if complete {
            dead::delete(&transaction, &commit.dead)?;
        }
        if let Some(marks) = &commit.marks {
            marks::write(&transaction, marks)?;
        }
        // Where every row was taken in order, so many are left.
        let mut messages = self.messages.map(|messages| messages.saturating_sub(deleted) + taken as u64);
        if let (Some(run), true) = (&commit.run, complete) {
            write_run(&transaction, run, messages)?;
        }
        // A file that an outage has blown up, or that a lowered `max_bytes` finds too large, is let shrink.
        let empty = number(&transaction, "SELECT NOT EXISTS (SELECT 1 FROM messages)")? == 1;
        let pages = unsigned(number(&transaction, "PRAGMA page_count")?);
        if (empty && pages > RESERVE) || pages > self.pages_max {
            let mut vacuum = transaction.prepare("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
        }
        if !commit.dead.is_empty() {
            self.dead_bytes = dead::all(&transaction)?.iter().map(|kept| kept.bytes as u64).sum();
        }
        let space = self.space(&transaction)?;
        transaction.commit()?;
        if empty {
            messages = Some(0);
        }
        self.messages = messages;
        if pages > self.pages_max {
            set(connection, "max_page_count", self.pages_max as i64)?;
        }
        Ok(Committed { taken, refused, space })
    }

    fn open_once(&mut self) -> Result<Found, Fault> {
        let fresh = self.provide()?;
        let format = |connection: &Connection| {
            let program = number(connection, "PRAGMA application_id")?;
            Ok((program, number(connection, "PRAGMA user_version")?))
        };
        let opened =
            self.connect().and_then(|connection| format(&connection).map(|format| (connection, format)));
        let (connection, (program, version)) = opened.map_err(|error| self.fault("open", &error))?;
        let file = self.path.display();
        if program == PROGRAM && version > VERSION {
            return Err(Fault::Failed(format!(
                "{file} has format {version}, and this weir knows {VERSION}: install the weir that wrote it, or move \
                 the file away"
            )));
        }
        if program != PROGRAM || version < file::OLDEST {
            return Err(Fault::Corrupt(format!("{file} is not as weir makes it")));
        }
        let found = self.prepare(&connection, version).map_err(|error| self.fault("open", &error))?;
        self.connection = Some(connection);
        self.which = self.which();
        Ok(Found { fresh, ..found })
    }
}

impl Store for Sqlite {
    fn open(&mut self, known: &Known, now: Timestamp) -> Result<Found, Fault> {
        self.connection = None;
        self.reads_failed = 0;
        let before = self.messages.take();
        let first = if self.damaged { Err(Fault::Corrupt(String::new())) } else { self.open_once() };
        let Err(Fault::Corrupt(_)) = first else { return first };
        let path = self.set_aside(now)?;
        let begun = self.open_once()?;
        let Some(mut connection) = self.connection.take() else { return Ok(begun) };
        let result = self
            .salvage(&mut connection, &path, known, before)
            .and_then(|s| Ok((s, self.found(&connection)?)));
        self.connection = Some(connection);
        let (set_aside, found) = result.map_err(|error| self.fault("salvage messages into", &error))?;
        Ok(Found { fresh: true, set_aside: Some(set_aside), ..found })
    }

    fn read(
        &mut self,
        from: Position,
        until: Option<Position>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Met>, Fault> {
        let error = match self.try_read(from, until, rows, bytes) {
            Ok(met) => {
                self.reads_failed = 0;
                return Ok(met);
            }
            Err(error) => error,
        };
        self.reads_failed += 1;
        let fault = self.fault("read", &error);
        if self.reads_failed < READS_MAX {
            return Err(fault);
        }
        self.connection = None;
        self.damaged = true;
        Err(Fault::Corrupt(fault.to_string()))
    }

    fn dead(&mut self, keys: &[i64]) -> Result<Vec<(i64, Dead)>, Fault> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        dead::read(connection, keys).map_err(|error| self.fault("read", &error))
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Fault::Failed(format!("{} is not open", self.path.display())));
        };
        // What is written to a file that nobody can find any more is lost.
        if self.which() != self.which {
            self.damaged = true;
            let gone = format!("{} was deleted or moved away under weir", self.path.display());
            return Err(Fault::Corrupt(gone));
        }
        let result = self.transact(&mut connection, commit);
        self.connection = Some(connection);
        result.map_err(|error| self.fault("write to", &error))
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Closing folds the log into the file and removes it. What fails here, the next start does.
            if let Err((_, error)) = connection.close() {
                tracing::warn!(%error, "the buffer's log stays: the next start will fold it in");
            }
        }
    }
}

/// `clean` is 0, or 1 for an orderly stop, or 2 and as many more as messages were left by it.
fn write_run(connection: &Connection, run: &Run, messages: Option<u64>) -> Result<(), Error> {
    let clean = if run.clean { messages.map_or(1, |messages| signed(messages.saturating_add(2))) } else { 0 };
    let note = (signed(run.epoch), clean, &run.saved);
    connection.execute("INSERT OR REPLACE INTO run VALUES (0, ?1, ?2, ?3)", note).map(drop)
}

/// How many messages were left, by what `clean` says.
fn left(clean: i64) -> Option<u64> {
    u64::try_from(clean).ok()?.checked_sub(2)
}

/// Sets a pragma, whether it answers or not.
fn set(connection: &Connection, pragma: &str, value: impl rusqlite::ToSql) -> Result<(), Error> {
    connection.pragma_update(None, pragma, value)
}

fn number(connection: &Connection, sql: &str) -> Result<i64, Error> {
    connection.query_row(sql, [], |row| row.get(0))
}

/// SQLite's integers are signed; the bits stay the same.
fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

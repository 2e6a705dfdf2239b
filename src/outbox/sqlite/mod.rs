//! The queue's head on the disk. The only SQL.
//!
//! One file in the state directory, with a write-ahead log beside it while it is open. Three tables: `messages`, each
//! with its position as the row's key and a checksum over its id and its bytes; `losses`, the ledger; `run`, one row:
//! the epoch of the last run, whether it stopped in order, and what it left. `application_id` is weir's, and
//! `user_version` the format's.
//!
//! - Nobody else opens the file while weir runs (`locking_mode=EXCLUSIVE`), and only its owner may read it.
//! - A commit is durable when it returns (`synchronous=FULL`), or has not happened.
//! - File and log together stay within `max_bytes`: a sixteenth to a quarter of it is the log's, the rest the file's
//!   (`max_page_count`). Rows are taken while pages are free; what finds none is handed back.
//! - A file of a newer format is left as it is. A damaged one is moved aside with its log, to `outbox.db.damaged-` and
//!   the Unix time in milliseconds, and a new one begun. Damaged is also what is empty, has not weir's id or lacks a
//!   table: a new file gets its name only when it is complete. A row whose checksum is wrong is
//!   reported and passed over. An error of the disk becomes words for a person, and the caller tries again.

mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, OptionalExtension, Statement, TransactionBehavior};

use super::ledger::{Loss, Record};
use super::store::{Commit, Committed, Fault, Found, Met, Position, Row, Run, Store};
use crate::model::{Cause, Id, Timestamp};

/// The file's name in the state directory.
const FILE: &str = "outbox.db";
/// The id that marks a file as weir's, which is its name.
const PROGRAM: i64 = i64::from_be_bytes(*b"\0\0\0\0weir");
/// The format that this file describes.
const VERSION: i64 = 1;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// Pages that messages leave free, for the ledger and the note of the run.
const RESERVE: u64 = 64;
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
    /// Whether the file is known to be damaged, so that opening must set it aside.
    damaged: bool,
    reads_failed: u32,
}

impl Sqlite {
    /// The file in `state_dir`, not opened yet, that may grow to `max_bytes` with its log.
    pub(super) fn new(state_dir: &Path, max_bytes: u64) -> Self {
        let log_max = Self::log_max(max_bytes);
        let pages_max = (max_bytes - log_max) / PAGE;
        let path = state_dir.join(FILE);
        Self { path, log_max, pages_max, connection: None, damaged: false, reads_failed: 0 }
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
    fn prepare(&self, connection: &Connection) -> Result<Found, Error> {
        set(connection, "journal_mode", "WAL")?;
        set(connection, "journal_size_limit", (self.log_max / 4) as i64)?;
        set(connection, "wal_autocheckpoint", (self.log_max / 4 / PAGE) as i64)?;
        set(connection, "max_page_count", self.pages_max as i64)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.found(connection)
    }

    fn found(&self, connection: &Connection) -> Result<Found, Error> {
        let ends = "SELECT (SELECT min(position) FROM messages), (SELECT max(position) FROM messages)";
        let ends = connection.query_row(ends, [], |row| {
            let (first, last): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(first.zip(last))
        })?;
        let (first, end) = ends.map_or((0, 0), |(first, last)| (first, last.saturating_add(1)));
        let run = connection
            .query_row("SELECT epoch, clean, saved FROM run", [], |row| {
                Ok(Run { epoch: unsigned(row.get(0)?), clean: row.get(1)?, saved: row.get(2)? })
            })
            .optional()?;
        let mut statement = connection.prepare(
            "SELECT key, cause, device, messages, readings, first, last, epoch, sequence FROM losses ORDER BY key",
        )?;
        let losses = statement.query_map([], |row| {
            let device: Option<String> = row.get(2)?;
            let count = |column| Ok::<_, Error>(row.get::<_, Option<i64>>(column)?.map(unsigned));
            let time = |column| Ok::<_, Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp));
            let id = count(7)?.zip(count(8)?).map(|(epoch, sequence)| Id { epoch, sequence });
            let record = Record {
                // What a later version may call it: the loss itself must not be lost.
                cause: Cause::from_name(&row.get::<_, String>(1)?).unwrap_or(Cause::Damaged),
                device: device.map(String::into_boxed_str),
                loss: Loss { messages: count(3)?, readings: count(4)?, from: time(5)?, to: time(6)? },
                id,
            };
            Ok((row.get(0)?, record))
        })?;
        let losses = losses.collect::<Result<_, _>>()?;
        let (used, free) = self.pages(connection)?;
        Ok(Found { first, end, room: room(free), used: used * PAGE, run, losses, set_aside: None })
    }

    /// How many pages are used, and how many more messages may use.
    fn pages(&self, connection: &Connection) -> Result<(u64, u64), Error> {
        let pages = unsigned(number(connection, "PRAGMA page_count")?);
        let unused = unsigned(number(connection, "PRAGMA freelist_count")?);
        let used = pages.saturating_sub(unused);
        Ok((used, self.pages_max.saturating_sub(used + RESERVE)))
    }

    fn try_read(&self, from: Position, rows: usize, bytes: usize) -> Result<Vec<Met>, Error> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let mut statement = connection.prepare(
            "SELECT position, epoch, sequence, checksum, bytes FROM messages WHERE position >= ?1 ORDER BY position",
        )?;
        let mut found = statement.query([from])?;
        let (mut met, mut size) = (Vec::new(), 0);
        while met.len() < rows && size < bytes {
            let Some(row) = found.next()? else { break };
            let position = row.get(0)?;
            let columns = (row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?, row.get_ref(4)?);
            met.push(match columns {
                (
                    ValueRef::Integer(epoch),
                    ValueRef::Integer(sequence),
                    ValueRef::Integer(sum),
                    ValueRef::Blob(blob),
                ) if checksum(epoch, sequence, blob) == sum => {
                    size += blob.len();
                    let id = Id { epoch: unsigned(epoch), sequence: unsigned(sequence) };
                    Met::Row(Row { position, id, bytes: Arc::from(blob) })
                }
                _ => Met::Damaged(position),
            });
        }
        Ok(met)
    }

    fn transact(&self, connection: &mut Connection, commit: &Commit) -> Result<Committed, Error> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let sql = "DELETE FROM messages WHERE position >= ?1 AND position < ?2";
            let mut delete = transaction.prepare(sql)?;
            let mut from = Position::MIN;
            for end in commit.keep.iter().copied().chain([commit.delete_below]) {
                delete.execute([from, end])?;
                from = end.saturating_add(1);
            }
        }
        for (key, record) in &commit.losses {
            write_loss(&transaction, *key, record.as_ref())?;
        }
        let taken = self.insert(&transaction, &commit.rows)?;
        if let (Some(run), true) = (&commit.run, taken == commit.rows.len()) {
            transaction.execute(
                "INSERT OR REPLACE INTO run VALUES (0, ?1, ?2, ?3)",
                (signed(run.epoch), run.clean, &run.saved),
            )?;
        }
        // A file that an outage has blown up, or that a lowered `max_bytes` finds too large, is let shrink.
        let empty = number(&transaction, "SELECT NOT EXISTS (SELECT 1 FROM messages)")? == 1;
        let pages = unsigned(number(&transaction, "PRAGMA page_count")?);
        if (empty && pages > RESERVE) || pages > self.pages_max {
            let mut vacuum = transaction.prepare("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
        }
        let (used, free) = self.pages(&transaction)?;
        transaction.commit()?;
        if pages > self.pages_max {
            set(connection, "max_page_count", self.pages_max as i64)?;
        }
        Ok(Committed { taken, room: room(free), used: used * PAGE })
    }

    /// Adds rows while pages are free, and tells how many it has added.
    fn insert(&self, connection: &Connection, rows: &[Row]) -> Result<usize, Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let mut insert = connection.prepare("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let mut budget = 0;
        for (index, row) in rows.iter().enumerate() {
            let cost = row.bytes.len() as u64 + 40;
            if cost > budget {
                // A row may leave nearly half of its page empty.
                budget = self.pages(connection)?.1 * PAGE / 2;
                if cost > budget {
                    return Ok(index);
                }
            }
            budget -= cost;
            let (epoch, sequence) = (signed(row.id.epoch), signed(row.id.sequence));
            let sum = checksum(epoch, sequence, &row.bytes);
            insert.execute((row.position, epoch, sequence, sum, &*row.bytes))?;
        }
        Ok(rows.len())
    }

    /// Makes an error into words, and lets go of a file that is damaged.
    fn fault(&mut self, doing: &str, error: &Error) -> Fault {
        let file = self.path.display();
        let code = error.sqlite_error_code();
        let corrupt = matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            || lacks(error)
            || matches!(error, Error::InvalidColumnType(..) | Error::FromSqlConversionFailure(..));
        if corrupt {
            self.connection = None;
            self.damaged = true;
            return Fault::Corrupt(format!("{file} is damaged ({error})"));
        }
        Fault::Failed(match code {
            Some(ErrorCode::DiskFull) => {
                format!("cannot {doing} {file}: the disk is full: make room on it")
            }
            Some(ErrorCode::ReadOnly) => {
                format!("cannot {doing} {file}: it is read-only: mount its file system writable")
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!(
                    "cannot {doing} {file}: another process has it open: stop the other weir, or give it \
                         a `state_dir` of its own"
                )
            }
            Some(ErrorCode::SystemIoFailure) => {
                format!("cannot {doing} {file}: the disk reports an error ({error}): it may be worn out")
            }
            _ => format!("cannot {doing} {file}: {error}"),
        })
    }

    fn open_once(&mut self) -> Result<Found, Fault> {
        self.provide()?;
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
        if (program, version) != (PROGRAM, VERSION) {
            return Err(Fault::Corrupt(format!("{file} is not as weir makes it")));
        }
        let found = self.prepare(&connection).map_err(|error| self.fault("open", &error))?;
        self.connection = Some(connection);
        Ok(found)
    }
}

impl Store for Sqlite {
    fn open(&mut self, now: Timestamp) -> Result<Found, Fault> {
        self.connection = None;
        self.reads_failed = 0;
        let first = if self.damaged { Err(Fault::Corrupt(String::new())) } else { self.open_once() };
        let Err(Fault::Corrupt(_)) = first else { return first };
        let aside = self.set_aside(now)?;
        Ok(Found { set_aside: Some(aside), ..self.open_once()? })
    }

    fn read(&mut self, from: Position, rows: usize, bytes: usize) -> Result<Vec<Met>, Fault> {
        let error = match self.try_read(from, rows, bytes) {
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

    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Fault::Failed(format!("{} is not open", self.path.display())));
        };
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

fn write_loss(connection: &Connection, key: i64, record: Option<&Record>) -> Result<(), Error> {
    let Some(Record { cause, device, loss, id }) = record else {
        connection.execute("DELETE FROM losses WHERE key = ?1", [key])?;
        return Ok(());
    };
    let mut statement: Statement<'_> =
        connection.prepare("INSERT OR REPLACE INTO losses VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    let count = |number: Option<u64>| Value::from(number.map(signed));
    let time = |time: Option<Timestamp>| Value::from(time.map(|time| time.0));
    statement.execute((
        key,
        cause.name(),
        device.as_deref(),
        count(loss.messages),
        count(loss.readings),
        time(loss.from),
        time(loss.to),
        count(id.map(|id| id.epoch)),
        count(id.map(|id| id.sequence)),
    ))?;
    Ok(())
}

/// Sets a pragma, whether it answers or not.
fn set(connection: &Connection, pragma: &str, value: impl rusqlite::ToSql) -> Result<(), Error> {
    connection.pragma_update(None, pragma, value)
}

/// Whether a table or a column is not there. SQLite has no code of its own for it.
fn lacks(error: &Error) -> bool {
    let (Error::SqliteFailure(_, Some(message)) | Error::SqlInputError { msg: message, .. }) = error else {
        return false;
    };
    let missing = ["no such table: ", "no such column: "].iter().any(|start| message.starts_with(start));
    missing || (message.starts_with("table ") && message.contains(" columns but "))
}

fn number(connection: &Connection, sql: &str) -> Result<i64, Error> {
    connection.query_row(sql, [], |row| row.get(0))
}

/// About how many bytes of messages fit into so many pages.
fn room(pages: u64) -> u64 {
    pages * PAGE / 8 * 7
}

/// SQLite's integers are signed; the bits stay the same.
fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

/// FNV-1a over id and bytes, folded to 32 bits: it finds what a worn card does, not what somebody forges.
fn checksum(epoch: i64, sequence: i64, bytes: &[u8]) -> i64 {
    let id = epoch.to_le_bytes().into_iter().chain(sequence.to_le_bytes());
    let hash = id
        .chain(bytes.iter().copied())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    signed((hash ^ (hash >> 32)) & u64::from(u32::MAX))
}

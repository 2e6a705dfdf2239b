//! What can still be had of a damaged file: its rows, its ledger, its dead letters, and the epoch of its run.
//!
//! Its pages are gone through one by one, and what stands in them is put into the new file: no index and no inner page
//! has to be whole for that, nor the first page. A message counts only with the right checksum. Rows of pages that are
//! free are left, unless the list of free pages is damaged too: then what was acknowledged may be sent again, under its
//! old id. It takes as long as reading the file once, and no more memory than a few pages.
//!
//! Positions begin anew once nothing waits, so a row of a free page may claim the place of one that waits. The later id
//! has it, and the other goes before all: it was acknowledged, or it is a dead letter on its second way, which keeps no
//! order.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error, OptionalExtension};

use super::super::ledger::{Loss, Record};
use super::super::store::{Dead, Known, Position, Row, Run, SetAside};
use super::messages::checksum;
use super::pages::{Field, Pages};
use super::{FARTHEST, Sqlite, left, losses, unsigned, write_run};
use crate::model::{Cause, Id, Timestamp};

/// How many pages' rows are put into the new file in one transaction.
const BATCH: usize = 64;
/// From here on upwards lie rows that have lost their place, until all are known.
const DISPLACED: Position = -FARTHEST / 2;

impl Sqlite {
    /// Puts into the new file what the one that was set aside at `aside` still has, but for messages that memory has or
    /// knows to be settled. It had `before` of them, where that is known. Gives what became of it.
    pub(super) fn salvage(
        &self,
        connection: &mut Connection,
        aside: &Path,
        known: &Known,
        before: Option<u64>,
    ) -> Result<SetAside, Error> {
        let nothing = SetAside { path: aside.to_owned(), salvaged: 0, missing: before, windows: false };
        let Ok(file) = File::open(aside) else { return Ok(nothing) };
        let mut log = aside.as_os_str().to_owned();
        log.push("-wal");
        let Ok(pages) = Pages::new(file, File::open(PathBuf::from(log)).ok()) else { return Ok(nothing) };
        let (free, all_free) = pages.free();
        let (mut left, mut windows) = (None, false);
        let (mut messages, mut told, mut letters) = (0, 0, 0);
        let mut displaced = DISPLACED;
        let mut run: Option<Run> = None;
        // The first page has the schema.
        let mut numbers = (2..=pages.count()).filter(|number| free.get(*number as usize) != Some(&true));
        loop {
            let batch: Vec<u32> = numbers.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let transaction = connection.transaction()?;
            for page in batch.into_iter().filter_map(|number| pages.page(number)) {
                let mut rows: Vec<Row> = Vec::new();
                for (key, fields) in pages.rows(&page) {
                    match read(key, &fields) {
                        Some(Met::Message(row)) => {
                            let epoch = row.id.epoch;
                            let note = run.get_or_insert(Run { epoch, clean: true, saved: None });
                            note.epoch = note.epoch.max(epoch);
                            // A page has each position once.
                            let fresh = rows.iter().all(|other| other.position != row.position);
                            let settled = row.position < known.settled_below;
                            if fresh && !settled && !known.ids.contains(&row.id) {
                                rows.extend(place(&transaction, row, &mut displaced)?);
                            }
                        }
                        Some(Met::Loss(record)) => {
                            losses::write(&transaction, told, Some(&record))?;
                            told += 1;
                        }
                        Some(Met::Run(found, count, saved)) => {
                            (left, windows) = (count, saved);
                            let epoch = run.map_or(found.epoch, |known| known.epoch.max(found.epoch));
                            run = Some(Run { epoch, ..found });
                        }
                        Some(Met::Dead(letter)) => {
                            letters += 1;
                            self.bury(&transaction, &[(letters, Some(letter))])?;
                        }
                        None => {}
                    }
                }
                messages += self.insert(&transaction, &rows)? as u64;
            }
            transaction.commit()?;
        }
        if displaced > DISPLACED {
            let before = "SELECT coalesce(min(position), 0) FROM messages WHERE position >= ?1";
            let first: Position = connection.query_row(before, [displaced], |row| row.get(0))?;
            let shift = "UPDATE messages SET position = position + ?1 WHERE position < ?2";
            connection.execute(shift, [first - displaced, displaced])?;
        }
        if let Some(run) = run {
            write_run(connection, &run, Some(messages))?;
        }
        let missing = before.or(left).filter(|_| all_free).map(|before| before.saturating_sub(messages));
        Ok(SetAside { salvaged: messages, missing, windows, ..nothing })
    }
}

/// `row` with the place that it gets beside what is there; `None` where it is there already. Another that has to make
/// way is moved.
fn place(connection: &Connection, row: Row, displaced: &mut Position) -> Result<Option<Row>, Error> {
    let mut there = connection.prepare("SELECT epoch, sequence FROM messages WHERE position = ?1")?;
    let there = there.query_row([row.position], |row| {
        Ok(Id { epoch: unsigned(row.get(0)?), sequence: unsigned(row.get(1)?) })
    });
    match there.optional()? {
        None => Ok(Some(row)),
        // Another version of its page had it.
        Some(id) if id == row.id => Ok(None),
        Some(id) if id < row.id => {
            let aside = "UPDATE messages SET position = ?1 WHERE position = ?2";
            connection.execute(aside, [*displaced, row.position])?;
            *displaced += 1;
            Ok(Some(row))
        }
        Some(_) => {
            let position = *displaced;
            *displaced += 1;
            Ok(Some(Row { position, ..row }))
        }
    }
}

/// What a row may be.
enum Met {
    Message(Row),
    Loss(Record),
    /// The note of the run, how many messages it says that there were, and whether windows were saved with it.
    Run(Run, Option<u64>, bool),
    Dead(Dead),
}

/// What a row is: the tables differ in how many columns they have.
fn read(key: i64, fields: &[Field]) -> Option<Met> {
    use Field::{Blob, Integer, Null, Text};
    match fields {
        [Null, Integer(epoch), Integer(sequence), Integer(sum), Blob(bytes)] => {
            let id = Id { epoch: unsigned(*epoch), sequence: unsigned(*sequence) };
            let right = checksum(*epoch, *sequence, bytes) == *sum;
            let near = (-FARTHEST..FARTHEST).contains(&key);
            (right && near).then(|| Met::Message(Row { position: key, id, bytes: bytes.as_slice().into() }))
        }
        // What was saved has no checksum, and is not taken for good.
        [Null, Integer(epoch), Integer(note), saved @ (Blob(_) | Null)] if key == 0 => {
            let run = Run { epoch: unsigned(*epoch), clean: *note != 0, saved: None };
            Some(Met::Run(run, left(*note), *saved != Null))
        }
        [
            Null,
            Integer(epoch),
            Integer(sequence),
            Text(cause),
            Text(reason),
            Integer(at),
            Integer(sum),
            Blob(bytes),
        ] => {
            let id = Id { epoch: unsigned(*epoch), sequence: unsigned(*sequence) };
            let right = checksum(*epoch, *sequence, bytes) == *sum;
            let cause = Cause::from_name(cause)?;
            let (bytes, reason, at) = (bytes.as_slice().into(), reason.as_str().into(), Timestamp(*at));
            right.then_some(Met::Dead(Dead { id, bytes, cause, reason, at }))
        }
        [Null, Text(cause), device, messages, readings, first, last, epoch, sequence] => {
            let device = match device {
                Text(device) => Some(device.as_str().into()),
                _ => None,
            };
            let integer = |field: &Field| if let Integer(number) = field { Some(*number) } else { None };
            let count = |field: &Field| integer(field).map(unsigned);
            let id = count(epoch).zip(count(sequence)).map(|(epoch, sequence)| Id { epoch, sequence });
            let loss = Loss {
                messages: count(messages),
                readings: count(readings),
                from: integer(first).map(Timestamp),
                to: integer(last).map(Timestamp),
            };
            Some(Met::Loss(Record { cause: Cause::from_name(cause)?, device, loss, id }))
        }
        _ => None,
    }
}

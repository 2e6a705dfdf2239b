//! The messages' table: each has its position as the row's key, and a checksum over its id and its bytes.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use super::super::store::{Met, Position, Row};
use super::faults::corrupt;
use super::{PAGE, Sqlite, signed, unsigned};
use crate::model::Id;

impl Sqlite {
    pub(super) fn try_read(
        &self,
        from: Position,
        until: Option<Position>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Met>, Error> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let mut statement = connection.prepare(
            "SELECT position, epoch, sequence, checksum, bytes FROM messages WHERE position >= ?1 ORDER BY position",
        )?;
        let mut found = statement.query([from])?;
        let (mut met, mut size) = (Vec::new(), 0);
        let mut next = from;
        while met.len() < rows && size < bytes {
            let Some(row) = found.next()? else {
                let all = until.is_none_or(|until| next >= until);
                return if all { Ok(met) } else { Err(corrupt("rows are missing")) };
            };
            let position: Position = row.get(0)?;
            if position < next || until.is_some_and(|until| position >= until) {
                return Err(corrupt("rows are out of order"));
            }
            next = position + 1;
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

    /// Adds rows while pages are free, and tells how many it has added.
    pub(super) fn insert(&self, connection: &Connection, rows: &[Row]) -> Result<usize, Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let mut insert = connection.prepare("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let mut budget = 0;
        for (index, row) in rows.iter().enumerate() {
            let cost = row.bytes.len() as u64 + 40;
            if cost > budget {
                // A row may leave nearly half of its page empty.
                budget = self.pages(connection)?.2 * PAGE / 2;
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
}

/// Deletes everything below `end`, but for what is in `keep`, and tells how many rows that were.
pub(super) fn delete(connection: &Connection, end: Position, keep: &[Position]) -> Result<u64, Error> {
    let sql = "DELETE FROM messages WHERE position >= ?1 AND position < ?2";
    let mut delete = connection.prepare(sql)?;
    let (mut from, mut deleted) = (Position::MIN, 0);
    for end in keep.iter().copied().chain([end]) {
        deleted += delete.execute([from, end])? as u64;
        from = end.saturating_add(1);
    }
    Ok(deleted)
}

/// FNV-1a over id and bytes, folded to 32 bits: it finds what a worn card does, not what somebody forges.
pub(super) fn checksum(epoch: i64, sequence: i64, bytes: &[u8]) -> i64 {
    let id = epoch.to_le_bytes().into_iter().chain(sequence.to_le_bytes());
    let hash = id
        .chain(bytes.iter().copied())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    signed((hash ^ (hash >> 32)) & u64::from(u32::MAX))
}

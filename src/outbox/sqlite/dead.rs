//! The dead letters' table. A sixteenth of the file is kept free for them, so that no message makes way for one.

use std::sync::Arc;

use rusqlite::{Connection, Error, OptionalExtension};

use super::super::dead;
use super::super::store::{Dead, Kept};
use super::messages::checksum;
use super::{PAGE, RESERVE, Sqlite, signed, unsigned};
use crate::model::{Cause, Id, Timestamp};

pub(super) const SCHEMA: &str = "
    CREATE TABLE dead (key INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
        cause TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL, checksum INTEGER NOT NULL,
        bytes BLOB NOT NULL);";

/// Which there are, by key.
pub(super) fn all(connection: &Connection) -> Result<Vec<Kept>, Error> {
    let mut statement = connection.prepare(
        "SELECT key, epoch, sequence, length(CAST(reason AS BLOB)) + length(bytes) FROM dead ORDER BY key",
    )?;
    let kept = statement.query_map([], |row| {
        let id = Id { epoch: unsigned(row.get(1)?), sequence: unsigned(row.get(2)?) };
        let bytes = usize::try_from(row.get::<_, i64>(3)?).unwrap_or(usize::MAX / 2);
        Ok(Kept { key: row.get(0)?, id, bytes: dead::cost(bytes) })
    })?;
    kept.collect()
}

/// The letters with these keys; one whose checksum is wrong is passed over.
pub(super) fn read(connection: &Connection, keys: &[i64]) -> Result<Vec<(i64, Dead)>, Error> {
    let mut statement = connection
        .prepare("SELECT epoch, sequence, cause, reason, at, checksum, bytes FROM dead WHERE key = ?1")?;
    let mut letters = Vec::new();
    for key in keys {
        let letter = statement.query_row([key], |row| {
            let (epoch, sequence): (i64, i64) = (row.get(0)?, row.get(1)?);
            let bytes: Arc<[u8]> = Arc::from(row.get_ref(6)?.as_blob()?);
            let whole = checksum(epoch, sequence, &bytes) == row.get::<_, i64>(5)?;
            let dead = Dead {
                id: Id { epoch: unsigned(epoch), sequence: unsigned(sequence) },
                bytes,
                // What a later version may call it.
                cause: Cause::from_name(&row.get::<_, String>(2)?).unwrap_or(Cause::Refused),
                reason: row.get::<_, String>(3)?.into(),
                at: Timestamp(row.get(4)?),
            };
            Ok(whole.then_some((*key, dead)))
        });
        letters.extend(letter.optional()?.flatten());
    }
    Ok(letters)
}

impl Sqlite {
    /// Writes letters while there is room, and gives the keys of those for which there was none.
    pub(super) fn bury(
        &self,
        connection: &Connection,
        letters: &[(i64, Option<Dead>)],
    ) -> Result<Vec<i64>, Error> {
        let mut refused = Vec::new();
        let letters = letters.iter().filter_map(|(key, dead)| Some((key, dead.as_ref()?)));
        for (key, dead) in letters {
            let (used, unused, _) = self.pages(connection)?;
            let free = self.pages_max.saturating_sub(used + RESERVE / 2);
            let free = if self.floor.scarce { free.min(unused) } else { free };
            // A letter may leave nearly half of its page empty.
            if dead.cost() as u64 * 2 / PAGE + 1 > free {
                refused.push(*key);
                continue;
            }
            let (epoch, sequence) = (signed(dead.id.epoch), signed(dead.id.sequence));
            let sum = checksum(epoch, sequence, &dead.bytes);
            let (cause, reason, at) = (dead.cause.name(), &*dead.reason, dead.at.0);
            connection
                .prepare("INSERT OR REPLACE INTO dead VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                .execute((key, epoch, sequence, cause, reason, at, sum, &*dead.bytes))?;
        }
        Ok(refused)
    }
}

/// Deletes the letters that are to go.
pub(super) fn delete(connection: &Connection, letters: &[(i64, Option<Dead>)]) -> Result<(), Error> {
    for (key, _) in letters.iter().filter(|(_, dead)| dead.is_none()) {
        connection.execute("DELETE FROM dead WHERE key = ?1", [key])?;
    }
    Ok(())
}

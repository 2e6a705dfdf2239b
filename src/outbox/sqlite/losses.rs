//! The ledger's table.

use rusqlite::types::Value;
use rusqlite::{Connection, Error};

use super::super::ledger::{Loss, Record};
use super::{signed, unsigned};
use crate::model::{Cause, Id, Timestamp};

/// All records, by key.
pub(super) fn all(connection: &Connection) -> Result<Vec<(i64, Record)>, Error> {
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
    losses.collect()
}

/// Writes a record, or deletes it.
pub(super) fn write(connection: &Connection, key: i64, record: Option<&Record>) -> Result<(), Error> {
    let Some(Record { cause, device, loss, id }) = record else {
        connection.execute("DELETE FROM losses WHERE key = ?1", [key])?;
        return Ok(());
    };
    let mut statement =
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

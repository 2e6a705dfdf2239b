//! The least that a queue in SQLite does: rows of bytes under rising keys, so many in a transaction.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::support::pki::Result;

/// A table in a file that nobody else opens, with pages and promises as the agent's.
pub(crate) struct Rows {
    connection: Connection,
    columns: Columns,
}

/// What a row has.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Columns {
    /// The bytes alone.
    Bytes,
    /// Beside them numbers in the place of an id and a checksum, as the agent's rows have.
    All,
}

impl Rows {
    pub(crate) fn create(path: &Path, columns: Columns) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "page_size", 4096)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let beside = match columns {
            Columns::Bytes => "",
            Columns::All => "epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, checksum INTEGER NOT NULL,",
        };
        connection.execute_batch(&format!(
            "CREATE TABLE rows (position INTEGER PRIMARY KEY, {beside} bytes BLOB NOT NULL)"
        ))?;
        Ok(Self { connection, columns })
    }

    /// Adds them, and lets go of the file, which folds the log into it.
    pub(crate) fn append(mut self, rows: &[Vec<u8>], grouping: usize) -> Result<()> {
        const EPOCH: i64 = 1_700_000_000;
        let insert = match self.columns {
            Columns::Bytes => "INSERT INTO rows VALUES (?1, ?2)",
            Columns::All => "INSERT INTO rows VALUES (?1, ?3, ?4, ?5, ?2)",
        };
        let mut position = 0_i64;
        for group in rows.chunks(grouping.max(1)) {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut insert = transaction.prepare(insert)?;
            for bytes in group {
                // Spread over 32 bits, as a checksum is.
                let checksum = (position * 2_654_435_761) & i64::from(u32::MAX);
                match self.columns {
                    Columns::Bytes => insert.execute((position, bytes))?,
                    Columns::All => insert.execute((position, bytes, EPOCH, position, checksum))?,
                };
                position += 1;
            }
            drop(insert);
            transaction.commit()?;
        }
        self.connection.close().map_err(|(_, error)| error.into())
    }
}

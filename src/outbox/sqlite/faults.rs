//! An error of SQLite, in words for a person.

use rusqlite::{Error, ErrorCode, ffi};

use super::super::store::Fault;
use super::Sqlite;
use super::space::is_read_only;

impl Sqlite {
    /// Makes an error into words, and lets go of a file that is damaged.
    pub(super) fn fault(&mut self, doing: &str, error: &Error) -> Fault {
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
        let directory = &self.floor.directory;
        let code = match code {
            // SQLite has a code of its own for it only where it finds out before it tries.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_read_only(directory) => {
                Some(ErrorCode::ReadOnly)
            }
            code => code,
        };
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
}

/// Whether a table or a column is not there. SQLite has no code of its own for it.
fn lacks(error: &Error) -> bool {
    let (Error::SqliteFailure(_, Some(message)) | Error::SqlInputError { msg: message, .. }) = error else {
        return false;
    };
    let missing = ["no such table: ", "no such column: "].iter().any(|start| message.starts_with(start));
    missing || (message.starts_with("table ") && message.contains(" columns but "))
}

/// What SQLite says of damage that it sees, for damage that only weir can see.
pub(super) fn corrupt(what: &str) -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(what.to_owned()))
}

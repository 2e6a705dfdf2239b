//! The file itself: that there is one which may be opened, and what becomes of one that is damaged.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error, OpenFlags};

use super::super::store::Fault;
use super::{PAGE, PROGRAM, Sqlite, VERSION, dead, marks, set};
use crate::model::Timestamp;

const SCHEMA: &str = "
    CREATE TABLE messages (position INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
        checksum INTEGER NOT NULL, bytes BLOB NOT NULL);
    CREATE TABLE losses (key INTEGER PRIMARY KEY, cause TEXT NOT NULL, device TEXT, messages INTEGER,
        readings INTEGER, first INTEGER, last INTEGER, epoch INTEGER, sequence INTEGER);
    CREATE TABLE run (only INTEGER PRIMARY KEY CHECK (only = 0), epoch INTEGER NOT NULL, clean INTEGER NOT NULL,
        saved BLOB);";

/// The oldest format that is taken over.
pub(super) const OLDEST: i64 = 1;

impl Sqlite {
    /// The file's name with something after it.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        PathBuf::from(name)
    }

    /// Sees that a file is there which may be opened, and makes one where there is none.
    /// Whether it had to.
    pub(super) fn provide(&self) -> Result<bool, Fault> {
        let file = self.path.display();
        let failed = |error: io::Error| {
            Fault::Failed(format!(
                "cannot open {file}: {error}: see that `state_dir` exists and that weir may write there"
            ))
        };
        match fs::metadata(&self.path) {
            // Opening a pipe would wait for its other side.
            Ok(found) if !found.is_file() => {
                Err(Fault::Failed(format!("cannot open {file}: it is not a regular file: move it away")))
            }
            Ok(found) if found.len() == 0 => Err(Fault::Corrupt(format!("{file} is empty"))),
            // SQLite fills the last page up with zeroes. While there is a log, that has the page whole.
            Ok(found) if found.len() % PAGE != 0 && fs::metadata(self.beside("-wal")).is_err() => {
                Err(Fault::Corrupt(format!("{file} is cut off in the middle of a page")))
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Err(_) if self.path.is_symlink() => {
                Err(Fault::Failed(format!("cannot open {file}: it is a link to a file that is not there")))
            }
            Err(_) if self.beside("-wal").exists() => {
                Err(Fault::Corrupt(format!("{file} is gone, and its log is not")))
            }
            Err(_) => self.create().map(|()| true).map_err(failed),
        }
    }

    /// Which file has the name now: device and inode.
    pub(super) fn which(&self) -> Option<(u64, u64)> {
        let found = fs::metadata(&self.path).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Makes the file, for its owner only. It has its name only when it is complete: a file that is empty under its
    /// name was not left by a crash in here.
    fn create(&self) -> io::Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        if !parent.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let new = self.beside(".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        fill(&new).map_err(io::Error::other)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(parent)?.sync_all()
    }

    pub(super) fn set_aside(&mut self, now: Timestamp) -> Result<PathBuf, Fault> {
        let aside = self.beside(&format!(".damaged-{now}"));
        // The file goes last: as long as it is there, a next attempt finds it damaged again.
        for suffix in ["-wal", "-shm", ""] {
            let mut to = OsString::from(&aside);
            to.push(suffix);
            match fs::rename(self.beside(suffix), to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let file = self.path.display();
                    return Err(Fault::Failed(format!("cannot set the damaged {file} aside: {error}")));
                }
                _ => {}
            }
        }
        self.damaged = false;
        Ok(aside)
    }
}

/// Makes an empty file one of ours.
fn fill(path: &Path) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // What is not finished is begun anew.
    set(&connection, "journal_mode", "OFF")?;
    set(&connection, "page_size", PAGE as i64)?;
    set(&connection, "auto_vacuum", "INCREMENTAL")?;
    connection.execute_batch(&format!(
        "BEGIN; {SCHEMA} {} {} PRAGMA application_id = {PROGRAM}; PRAGMA user_version = {VERSION}; COMMIT;",
        dead::SCHEMA,
        marks::SCHEMA
    ))?;
    connection.close().map_err(|(_, error)| error)
}

/// Makes a file of an older format one of this.
pub(super) fn upgrade(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {} {} PRAGMA user_version = {VERSION}; COMMIT;",
        dead::SCHEMA,
        marks::SCHEMA
    ))
}

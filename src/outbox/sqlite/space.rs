//! How much room there is: in the file, and on the disk around it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error};

use super::super::store::Space;
use super::{PAGE, RESERVE, Sqlite, number, unsigned};

/// The floor under the disk's free space. Where less would be free, were everything written that may be without the
/// file's growing, it does not grow.
#[derive(Debug)]
pub(in super::super) struct Floor {
    pub(super) directory: PathBuf,
    pub(super) min_free: u64,
    /// How many bytes are free in a directory, where that can be told. A test puts another in its place.
    pub(in super::super) free: fn(&Path) -> Option<u64>,
    pub(in super::super) scarce: bool,
}

impl Floor {
    pub(super) fn new(directory: &Path, min_free: u64) -> Self {
        Self { directory: directory.to_owned(), min_free, free, scarce: false }
    }

    /// Looks at the disk, on which `growth` bytes are to be taken yet in any case.
    pub(in super::super) fn look(&mut self, growth: u64) {
        // Somewhat more must be free before it is enough again: it must not be said at every other commit.
        let enough =
            if self.scarce { self.min_free.saturating_add(self.min_free / 16) } else { self.min_free };
        self.scarce = (self.free)(&self.directory).is_some_and(|free| free.saturating_sub(growth) < enough);
    }
}

/// What a user without privileges may still write there.
fn free(directory: &Path) -> Option<u64> {
    let found = stat(directory)?;
    #[cfg_attr(
        target_pointer_width = "64",
        expect(clippy::useless_conversion, reason = "the fields are narrower on 32 bits")
    )]
    let (blocks, size) = (u64::from(found.f_bavail), u64::from(found.f_frsize));
    Some(blocks.saturating_mul(size))
}

/// Whether the file system there is mounted read-only.
pub(super) fn is_read_only(directory: &Path) -> bool {
    stat(directory).is_some_and(|found| found.f_flag & libc::ST_RDONLY != 0)
}

fn stat(directory: &Path) -> Option<libc::statvfs> {
    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    // SAFETY: `statvfs` is plain data for which all zeroes is valid, and the call only writes into it; the path ends
    // with a zero.
    #[expect(unsafe_code, reason = "no safe wrapper of statvfs is in the tree")]
    let (done, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut found) == 0, found)
    };
    done.then_some(found)
}

impl Sqlite {
    /// How many bytes the log may still take of its part, and what stands in it of new pages will take of the file.
    pub(super) fn growth(&self, connection: &Connection) -> Result<u64, Error> {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        let pages = unsigned(number(connection, "PRAGMA page_count")?) * PAGE;
        let log = self.log_max.saturating_sub(length(&self.beside("-wal")));
        Ok(log + pages.saturating_sub(length(&self.path)))
    }

    /// What the queue is told of it.
    pub(super) fn space(&self, connection: &Connection) -> Result<Space, Error> {
        let (used, _, free) = self.pages(connection)?;
        Ok(Space { room: free * PAGE / 8 * 7, used: used * PAGE, scarce: self.floor.scarce })
    }

    /// How many pages are used, how many of the file are not, and how many messages may still use.
    pub(super) fn pages(&self, connection: &Connection) -> Result<(u64, u64, u64), Error> {
        let pages = unsigned(number(connection, "PRAGMA page_count")?);
        let unused = unsigned(number(connection, "PRAGMA freelist_count")?);
        let used = pages.saturating_sub(unused);
        let dead = self.dead_max.saturating_sub(self.dead_bytes) / PAGE;
        let free = self.pages_max.saturating_sub(used + RESERVE + dead);
        Ok((used, unused, if self.floor.scarce { free.min(unused) } else { free }))
    }
}

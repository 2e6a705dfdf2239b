//! What the kernel tells of a process, by `proc(5)`.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use crate::support::pki::Result;

/// Memory in bytes.
pub(crate) struct Memory {
    /// Resident now (`VmRSS`), shared pages of libraries too.
    pub(crate) resident: u64,
    /// The most that has been resident (`VmHWM`).
    pub(crate) peak: u64,
    /// As `resident`, with shared pages divided by those who share them (`Pss`).
    pub(crate) proportional: u64,
    /// The part of `resident` that belongs to no file: heap and stacks (`RssAnon`).
    pub(crate) anonymous: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let shared = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Ok(Self {
            resident: 1024 * number(&status, "VmRSS:")?,
            peak: 1024 * number(&status, "VmHWM:")?,
            proportional: 1024 * number(&shared, "Pss:")?,
            anonymous: 1024 * number(&status, "RssAnon:")?,
        })
    }
}

/// User and system time of a whole process, `which` of which is its id or `self`, or of the calling thread
/// (`thread-self`).
pub(crate) fn cpu(which: &str) -> Result<Duration> {
    /// The clock ticks of `proc(5)` are hundredths of a second on every Linux.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{which}/stat"))?;
    // The second field, the program's name, ends at the last bracket; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or("no program's name in stat")?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u32>()?;
    }
    Ok(TICK * ticks)
}

/// What a process has written so far, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    /// Sent to the storage, in whole pages (`write_bytes`).
    pub(crate) storage: u64,
    /// Passed to `write` and its kin, to whatever file, terminal or pipe (`wchar`).
    pub(crate) calls: u64,
}

impl Written {
    pub(crate) fn by(pid: u32) -> Result<Self> {
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        Ok(Self { storage: number(&io, "write_bytes:")?, calls: number(&io, "wchar:")? })
    }
}

impl Sub for Written {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { storage: self.storage - before.storage, calls: self.calls - before.calls }
    }
}

/// How often the threads of a process have gone to sleep, and so have been woken.
pub(crate) fn wakeups(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        sum += number(&fs::read_to_string(thread?.path().join("status"))?, "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

/// The number on the line that begins with `key`.
fn number(text: &str, key: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    let value = value.and_then(|value| value.split_whitespace().next());
    Ok(value.ok_or_else(|| format!("no {key} in what the kernel tells"))?.parse()?)
}

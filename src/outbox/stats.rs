use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::tally::Tally;

/// What the outbox counts, for whoever shows it. All relaxed: a look at it is a look, not a transaction.
#[derive(Debug, Default)]
pub struct Stats {
    /// Messages that memory holds: waiting there, or handed out and unanswered.
    pub in_memory: AtomicU64,
    /// Bytes of those that wait in memory only.
    pub memory_bytes: AtomicU64,
    /// Messages that wait on the disk and were not handed out; about.
    pub on_disk: AtomicU64,
    /// Bytes of the file that are in use.
    pub disk_bytes: AtomicU64,
    /// Whether the disk does what is asked of it.
    pub disk_ok: AtomicBool,
    /// Records of losses that were not told yet.
    pub gaps: AtomicU64,
    /// Messages acknowledged in this run.
    pub acknowledged: AtomicU64,
    /// Messages written to the disk in this run.
    pub spilled: AtomicU64,
    /// Messages evicted in this run.
    pub evicted: AtomicU64,
    /// Damaged messages met in this run.
    pub damaged: AtomicU64,
    /// Messages of this run that were too large to be taken in.
    pub too_large: Tally,
    /// Commits in this run.
    pub commits: AtomicU64,
}

impl Stats {
    /// How many messages wait or are on their way; about.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed) + self.on_disk.load(Ordering::Relaxed)
    }
}

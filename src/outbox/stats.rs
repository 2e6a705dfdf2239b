use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Whether the disk does what is asked of it. [`Stats::disk_trouble`] says why not.
    pub disk_ok: AtomicBool,
    /// Whether less than `min_free` is free on the disk, so that the file does not grow.
    pub below_min_free: AtomicBool,
    trouble: Mutex<Option<Arc<str>>>,
    /// Records of losses that were not told yet.
    pub gaps: AtomicU64,
    /// Messages acknowledged in this run.
    pub acknowledged: AtomicU64,
    /// Messages written to the disk in this run.
    pub spilled: AtomicU64,
    /// Messages evicted in this run.
    pub evicted: AtomicU64,
    /// Messages of this run that a full buffer did not take: `when_full = "drop_newest"`.
    pub full: Tally,
    /// Messages that had waited for `max_age`, in this run.
    pub expired: Tally,
    /// Messages purged in this run.
    pub purged: Tally,
    /// Dead letters that were sent again in this run and lost before they went: no new losses.
    pub lost_again: Tally,
    /// Of these, purged.
    pub(super) purged_again: AtomicU64,
    /// Dead letters that are kept.
    pub dead_letters: AtomicU64,
    /// Dead letters that were not kept, or made way for others, in this run.
    pub dead_letters_dropped: Tally,
    /// Messages of a damaged file that could be salvaged in this run.
    pub salvaged: AtomicU64,
    /// Damaged messages met in this run.
    pub damaged: AtomicU64,
    /// Messages of this run that were too large to be taken in.
    pub too_large: Tally,
    /// Commits in this run.
    pub commits: AtomicU64,
}

impl Stats {
    /// Why the disk does not do what is asked of it, in words for a person; `None` while it does.
    #[must_use]
    pub fn disk_trouble(&self) -> Option<Arc<str>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<&str>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble.map(Arc::from);
    }

    /// How many messages wait or are on their way; about.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed) + self.on_disk.load(Ordering::Relaxed)
    }
}

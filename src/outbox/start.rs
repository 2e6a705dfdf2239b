//! The start of a run: what the one before left, and the epoch of this one's ids.

use std::sync::Arc;

use super::queue::{Queue, Settings, Step};
use super::store::{Done, Job, Known, Store};
use crate::model::Stamp;

/// A queue with what `store` holds, if it opens, and what the run before left. Does the small write of the start.
pub(super) fn begin(store: &mut dyn Store, settings: Settings, stamp: Stamp) -> (Queue, Option<Vec<u8>>) {
    let now = stamp.monotonic;
    let mut opened = store.open(&Known::default(), stamp.wall);
    let before = opened.as_mut().ok().and_then(|found| found.run.as_mut());
    let saved = before.and_then(|run| run.saved.take());
    let epoch = match &opened {
        Ok(found) => epoch(found.run.as_ref().map(|run| run.epoch), stamp),
        Err(_) => random_epoch(),
    };
    let mut queue = Queue::new(settings, epoch, Arc::default());
    queue.finish(Done::Open(opened), now);
    if let Step::Work(job @ Job::Commit(_)) = queue.step(stamp) {
        let done = job.run(store, stamp.wall);
        if matches!(done, Done::Commit(Err(_))) {
            // An epoch that is not stored might be given again.
            queue.change_epoch(random_epoch());
        }
        queue.finish(done, now);
    }
    (queue, saved)
}

/// The greater of the stored epoch plus 1 and the Unix time in seconds; without either to rely on a random one.
pub(super) fn epoch(before: Option<u64>, now: Stamp) -> u64 {
    let seconds = u64::try_from(now.wall.0 / 1_000).unwrap_or(0);
    match before {
        Some(before) => before.saturating_add(1).max(seconds),
        None if now.synced => seconds,
        None => random_epoch(),
    }
}

/// 2^52 to 2^53: above every Unix time, and exact where somebody reads it as a floating-point number.
fn random_epoch() -> u64 {
    fastrand::u64(1 << 52..1 << 53)
}

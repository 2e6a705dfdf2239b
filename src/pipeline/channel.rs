//! The channel from the sources to `process`: bounded in pieces of work, and in the bytes that readings take, over all
//! sources together.
//!
//! A batch has its place until what came of it is in the outbox, so that the batch in hand counts too. A place that is
//! given back is progress: the watchdog goes by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::process::Work;
use crate::model::Readings;

/// So much work `process` may have before it.
const PIECES: usize = 64;

/// So many bytes all readings before it may take: some full batches. A batch that is larger goes alone.
const BYTES: u32 = 1 << 20;

/// How many batches have come through to the outbox. Clones are one count.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// The count so far.
    #[must_use]
    pub fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one.
    pub fn mark(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The sources' end of the channel. A source that finds it full is not read meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Inlet {
    work: mpsc::Sender<Work>,
    bytes: Arc<Semaphore>,
    progress: Progress,
}

/// Where a batch has been since it was handed over. Dropped, it is free for another.
#[derive(Debug)]
pub struct Place {
    _bytes: OwnedSemaphorePermit,
    progress: Progress,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.progress.mark();
    }
}

/// An empty channel, which counts what comes through it in `progress`.
pub(super) fn channel(progress: Progress) -> (Inlet, mpsc::Receiver<Work>) {
    channel_of(PIECES, progress)
}

pub(super) fn channel_of(pieces: usize, progress: Progress) -> (Inlet, mpsc::Receiver<Work>) {
    let (work, to_do) = mpsc::channel(pieces);
    (Inlet { work, bytes: Arc::new(Semaphore::new(BYTES as usize)), progress }, to_do)
}

impl Inlet {
    /// Waits for room and hands readings over. Where nobody takes them any more they are dropped.
    pub(super) async fn send(&self, source: &Arc<str>, readings: Readings) {
        if let Ok(bytes) = self.bytes.clone().acquire_many_owned(bytes(&readings)).await {
            let _ = self.work.send(self.work_of(source, readings, bytes)).await;
        }
    }

    /// Hands readings over where there is room now; else they come back.
    pub(super) fn try_send(&self, source: &Arc<str>, readings: Readings) -> Result<(), Readings> {
        let Ok(bytes) = self.bytes.clone().try_acquire_many_owned(bytes(&readings)) else {
            return Err(readings);
        };
        let Ok(room) = self.work.try_reserve() else { return Err(readings) };
        room.send(self.work_of(source, readings, bytes));
        Ok(())
    }

    /// Waits for room and hands over what is no reading. Where nobody takes it any more it is dropped.
    pub(super) async fn tell(&self, work: Work) {
        let _ = self.work.send(work).await;
    }

    fn work_of(&self, source: &Arc<str>, readings: Readings, bytes: OwnedSemaphorePermit) -> Work {
        let place = Place { _bytes: bytes, progress: self.progress.clone() };
        Work::Readings { source: source.clone(), readings, place }
    }
}

fn bytes(readings: &Readings) -> u32 {
    u32::try_from(readings.bytes()).map_or(BYTES, |bytes| bytes.min(BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::model::{Reading, Timestamp, Value};

    fn readings(count: usize) -> Readings {
        let mut readings = Readings::new(Clock::injected(Timestamp(0), true).now());
        for _ in 0..count {
            readings.push(Reading { device: "d", metric: "m", value: Value::Int(1), time: None, unit: None });
        }
        readings
    }

    fn fill(inlet: &Inlet, count: usize) -> usize {
        (0..).take_while(|_| inlet.try_send(&"line".into(), readings(count)).is_ok()).count()
    }

    #[tokio::test]
    async fn large_batches_are_fewer_and_all_together_stay_within_the_bytes() {
        let (inlet, mut to_do) = channel(Progress::default());
        assert_eq!(fill(&inlet, 1), PIECES);
        while to_do.try_recv().is_ok() {}
        let batches = fill(&inlet, 2_000);
        assert!((1..=8).contains(&batches), "{batches}");
        assert!(batches * readings(2_000).bytes() <= BYTES as usize);

        // A place is given back once the work is done, and not when it is taken in hand.
        let in_hand = to_do.recv().await.unwrap();
        assert_eq!(fill(&inlet, 2_000), 0);
        drop(in_hand);
        assert_eq!(fill(&inlet, 2_000), 1);
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_channel_waits_until_it_has_it_alone() {
        let (inlet, mut to_do) = channel(Progress::default());
        let huge = readings(40_000);
        assert!(huge.bytes() > BYTES as usize);
        assert_eq!(inlet.try_send(&"line".into(), readings(1)).map_err(drop), Ok(()));
        let other = inlet.clone();
        let sending = tokio::spawn(async move { other.send(&"line".into(), huge).await });
        tokio::task::yield_now().await;
        assert!(!sending.is_finished());
        drop(to_do.recv().await);
        sending.await.unwrap();
        assert_eq!(fill(&inlet, 1), 0);
    }

    #[tokio::test]
    async fn a_batch_is_progress_once_it_is_done_with() {
        let progress = Progress::default();
        let (inlet, mut to_do) = channel(progress.clone());
        inlet.send(&"line".into(), readings(1)).await;
        let in_hand = to_do.recv().await;
        assert_eq!(progress.so_far(), 0);
        drop(in_hand);
        assert_eq!(progress.so_far(), 1);
    }
}

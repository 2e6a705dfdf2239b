//! Between the handles, the queue and the disk: who waits for whom.
//!
//! The queue's lock is held for short and never over an `await` or I/O. [`run`] is the only one who does jobs. It waits
//! for the answer of one before it asks for the next; so a disk that hangs holds up [`run`], and nobody else.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::queue::{Queue, Step};
use super::store::Store;
use crate::clock::Clock;

/// What all handles and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) clock: Clock,
    /// For [`run`]: the queue may want to work earlier than it said.
    work: Notify,
    /// There may be messages to hand out.
    pub(super) ready: Notify,
    /// There may be room in memory.
    pub(super) room: Notify,
    /// There may be gaps to hand out.
    pub(super) told: Notify,
    /// Closing may be done with.
    pub(super) closed: Notify,
}

impl Shared {
    pub(super) fn new(queue: Queue, clock: Clock) -> Self {
        let [work, ready, room, told, closed] = [const { Notify::const_new() }; 5];
        Self { queue: Mutex::new(queue), clock, work, ready, room, told, closed }
    }

    /// The queue, for a short look.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and wakes the writer where that makes it wanted.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue();
        let result = change(&mut queue);
        if queue.wants_work() {
            self.work.notify_one();
        }
        result
    }

    /// Tries until `attempt` brings something, again whenever `news` comes. Cancel-safe: what it brings is returned
    /// without waiting any more.
    pub(super) async fn wait<T>(&self, news: &Notify, mut attempt: impl FnMut(&mut Queue) -> Option<T>) -> T {
        loop {
            let mut notified = pin!(news.notified());
            // What happens between the attempt and the waiting must not be missed.
            notified.as_mut().enable();
            if let Some(result) = self.change(&mut attempt) {
                return result;
            }
            notified.await;
        }
    }
}

/// Does what the queue asks, until it is closed.
pub(super) async fn run(shared: Arc<Shared>, mut store: Box<dyn Store>) {
    loop {
        let now = shared.clock.now();
        let step = shared.queue().step(now);
        match step {
            Step::Work(job) => {
                let doing = tokio::task::spawn_blocking(move || {
                    let done = job.run(&mut *store, now.wall);
                    (store, done)
                });
                let Ok((returned, done)) = doing.await else {
                    // A panic, which ends a release build anyway, or the runtime going down.
                    tracing::error!("the buffer's writer is gone, and with it what was in memory only");
                    shared.queue().abandon();
                    shared.closed.notify_waiters();
                    return;
                };
                store = returned;
                shared.queue().finish(done, shared.clock.monotonic());
                for news in [&shared.ready, &shared.room, &shared.told, &shared.closed] {
                    news.notify_waiters();
                }
            }
            Step::Wait(until) => {
                // A step may have sealed records in memory.
                shared.told.notify_waiters();
                let wait = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(shared.clock.instant(until)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = wait => {}
                    () = shared.work.notified() => {}
                }
            }
            Step::Closed => return,
        }
    }
}

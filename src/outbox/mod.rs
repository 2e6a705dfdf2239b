//! What waits to be sent. This file is the contract.
//!
//! SQLite holds the head of the queue, memory the tail; spilling moves memory's oldest to SQLite's end, so order
//! holds by construction. Whether a message waits here or there is nobody else's business.
//!
//! What it promises, as guarantees G1 to G8 say:
//!
//! - A message leaves it by [`Outbox::acknowledge`], or by a loss that is entered in the ledger and told as a [`Gap`].
//!   One that is given up is a dead letter from the very commit on that enters its loss: the last thousand are kept,
//!   for a person to look at and to send again.
//! - A loss is told once: when the message is given up. Whatever becomes of a dead letter after that tells nothing more:
//!   that it is forgotten, or sent again and refused, evicted, expired or purged. So of what was told, that one was not
//!   lost after all which arrives; a receiver knows it by its id.
//! - Messages are first handed out in the order of appending, over spills and restarts. After a crash, and when they
//!   are put back, they are handed out again under their old ids.
//! - What is not acknowledged is on the disk `spill_after` + `commit_every` after it was appended, or `commit_every`
//!   under [`Durability::Always`]; while acknowledgements come within `spill_after` and there is no backlog, nothing
//!   is written but one small note at the start.
//! - Memory, file and ledger have caps. A full file makes room by losing its oldest, or loses what comes, as
//!   [`WhenFull`] says. A message that no room would be enough for is lost itself, and no other for it. While less than
//!   `min_free` is free on the disk the file does not grow. A disk that takes no writes never stops it: it goes on in
//!   memory, says so once, and tries again after pauses.
//! - What has waited for `max_age` is lost, up to a sixty-fourth of that later and never earlier. Waiting is counted
//!   by the monotonic clock, over restarts by a trusted wall clock only, and has nothing to do with the times that a
//!   message speaks of.
//! - [`Outbox::close`] keeps everything. An outbox that is dropped without it has crashed: the next run finds what was
//!   committed, and tells a gap of cause `crash` for the rest.
//!
//! How: [`queue`] decides, without I/O and without a clock, and asks for one job at a time. One task, begun by
//! [`Outbox::open`] and ended with the last handle, carries the jobs to a thread that may block, the store with them:
//! nobody else can use it meanwhile, and nothing can queue up. [`sqlite`] is the store, [`store`] the seam between;
//! [`start`] finds out where the run before has left it.

mod config;
mod dead;
mod ledger;
mod look;
mod queue;
mod replay;
mod sqlite;
mod start;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::model::{Cause, Gap, Id, Message};

pub use config::{CommitEvery, Config, Durability, WhenFull};
pub use look::{DeadLetter, Page, Place};
use queue::{Ask, Queue, Settings};
pub use replay::Replay;
use sqlite::Sqlite;
use start::begin;
pub use stats::Stats;
use store::Store;
use writer::Shared;

/// How long [`Outbox::append`] waits for the disk to make room.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A message on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Its id, for ever.
    pub id: Id,
    /// What it says.
    pub message: Message,
}

/// The outbox. A handle: its clones are the same outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
    /// The task that writes, aborted with the last handle.
    _writer: Arc<JoinSet<()>>,
}

/// An outbox as it was found at the start.
#[derive(Debug)]
pub struct Opened {
    /// The outbox.
    pub outbox: Outbox,
    /// What [`Outbox::close`] was given by the run before, once: it is forgotten by being read.
    pub saved: Option<Vec<u8>>,
}

impl Outbox {
    /// Opens the outbox in `state_dir`, which may wait for the disk. To be called within a tokio runtime.
    ///
    /// Never fails: where the file cannot be opened or written, the log says why, and messages are kept in memory
    /// until it can. A damaged file is set aside beside it and begun anew.
    #[must_use]
    pub fn open(config: &Config, state_dir: &Path, clock: Clock) -> Opened {
        let store = Sqlite::new(state_dir, config.max_bytes.0, config.min_free.0);
        Self::over(Box::new(store), config.settings(), clock)
    }

    fn over(mut store: Box<dyn Store>, settings: Settings, clock: Clock) -> Opened {
        let (queue, saved) = begin(&mut *store, settings, clock.now());
        let shared = Arc::new(Shared::new(queue, clock));
        let mut writer = JoinSet::new();
        writer.spawn(writer::run(Arc::clone(&shared), store));
        Opened { outbox: Self { shared, _writer: Arc::new(writer) }, saved }
    }

    /// The epoch of this run: what the ids begin with that it gives.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.queue().epoch()
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.queue().stats()
    }

    /// The most bytes that [`Outbox::close`] saves for the next run: a quarter of `max_bytes`.
    #[must_use]
    pub fn saved_max(&self) -> usize {
        self.shared.queue().saved_max()
    }

    /// Puts messages at the end, and gives them their ids. One that is larger than an eighth of `max_bytes` in its
    /// compact form, or than 4 MiB, is lost, by the ledger.
    ///
    /// Waits only where memory is full and the disk can still make room, for at most [`PATIENCE`] in all; else the
    /// oldest in memory are lost, by the ledger. Not cancel-safe: what was not appended yet is gone.
    pub async fn append(&self, messages: Vec<Message>) {
        let shared = &*self.shared;
        let until = shared.clock.monotonic().saturating_add(PATIENCE);
        for message in messages {
            let bytes = message.to_bytes();
            if !shared.queue().takes(bytes.len()) {
                shared.ready.notify_waiters();
                let room = shared.wait(&shared.room, |queue| queue.takes(bytes.len()).then_some(()));
                // Out of patience: the queue drops what it must.
                let _ = tokio::time::timeout_at(shared.clock.instant(until), room).await;
            }
            let now = shared.clock.monotonic();
            shared.change(|queue| queue.append(bytes, now));
        }
        shared.ready.notify_waiters();
    }

    /// Waits for messages to send and hands out the next, in order: at most `messages`, and at most `bytes` of their
    /// compact form; one is always allowed. Cancel-safe.
    ///
    /// Provisional times of this boot are shifted where the clock is trusted by the time that their message is first
    /// handed out; on the disk they stay as they were. Handed out again in this run, a message is what it was.
    pub async fn next(&self, messages: usize, bytes: usize) -> Vec<Outgoing> {
        let shared = &*self.shared;
        let take = |queue: &mut Queue| {
            let shifts = shared.clock.shift().is_some();
            let taken = queue.take(messages.max(1), bytes, shifts, shared.clock.monotonic());
            (!taken.is_empty()).then_some(taken)
        };
        loop {
            let taken = shared.wait(&shared.ready, take).await;
            let mut outgoing = Vec::with_capacity(taken.len());
            for (id, bytes, shifts) in taken {
                match Message::from_bytes(&bytes) {
                    Ok(mut message) => {
                        // It is measured once in a boot, so this is the same every time.
                        if let Some(shift) = shared.clock.shift().filter(|_| shifts) {
                            message.shift(shift);
                        }
                        outgoing.push(Outgoing { id, message });
                    }
                    Err(error) => {
                        tracing::error!(%id, %error, "a message cannot be read: it is lost, and reported as a gap");
                        let now = shared.clock.now();
                        shared.change(|queue| queue.give_up(id, Cause::Damaged, None, now));
                    }
                }
            }
            if !outgoing.is_empty() {
                return outgoing;
            }
        }
    }

    /// Forgets messages that the other side has taken for good. Ids may come in any order, again, or be unknown.
    pub fn acknowledge(&self, ids: &[Id]) {
        let now = self.shared.clock.monotonic();
        self.shared.change(|queue| queue.acknowledge(ids, now));
    }

    /// Has messages and gaps handed out again that were refused for a time, before any that were not handed out yet.
    pub fn put_back(&self, ids: &[Id]) {
        self.shared.change(|queue| queue.put_back(ids));
        self.shared.ready.notify_waiters();
        self.shared.told.notify_waiters();
    }

    /// Has everything handed out again that is unanswered, gaps too: the session is gone.
    pub fn put_back_all(&self) {
        self.shared.change(Queue::put_back_all);
        self.shared.ready.notify_waiters();
        self.shared.told.notify_waiters();
    }

    /// Enters a message that was handed out as lost, and keeps it among the dead letters, with `reason` for a person.
    /// Of these there are at most a thousand, and a sixteenth of `max_bytes`: the oldest make way. Whether it is a new
    /// loss, and not that of a message that was given up before; `None` where it is not there any more.
    pub fn give_up(&self, id: Id, cause: Cause, reason: &str) -> Option<bool> {
        let now = self.shared.clock.now();
        self.shared.change(|queue| queue.give_up(id, cause, Some(reason), now))
    }

    /// Waits until losses are to be told, and hands out their records, sealed and on the disk: what is lost later is
    /// in later ones. Losses are gathered for up to `commit_every`. Cancel-safe.
    pub async fn gaps(&self) -> Vec<Gap> {
        let gaps = |queue: &mut Queue| {
            let gaps = queue.gaps();
            (!gaps.is_empty()).then_some(gaps)
        };
        self.shared.wait(&self.shared.told, gaps).await
    }

    /// Forgets a gap record that the other side has taken for good.
    pub fn acknowledge_gap(&self, id: Id) {
        self.shared.change(|queue| queue.acknowledge_gap(id));
    }

    /// Looks at what is unacknowledged, in order, without taking it: from `from` on, at most `limit` messages, and not
    /// more than one read from the disk brings. Empty once it is closed. Cancel-safe, as all that only looks.
    pub async fn page(&self, from: Place, limit: usize) -> Page {
        let Place(from) = from;
        let part = self.ask(|answer| Ask::Page { from, limit, answer }).await;
        let (found, next) = part.unwrap_or_default();
        let read = |(id, bytes): (Id, Arc<[u8]>)| {
            Message::from_bytes(&bytes).ok().map(|message| Outgoing { id, message })
        };
        Page { messages: found.into_iter().filter_map(read).collect(), next: next.map(Place) }
    }

    /// Has everything lost that waits and is not on its way, by the ledger, and tells how many messages that were. Comes
    /// back once the disk has deleted them; where it takes no writes, at once, and they are deleted when it does.
    pub async fn purge(&self) -> u64 {
        let shared = &*self.shared;
        let stats = self.stats();
        let purged = || stats.purged.get() + stats.purged_again.load(Ordering::Relaxed);
        let before = purged();
        let now = shared.clock.monotonic();
        shared.change(|queue| queue.purge(now));
        shared.wait(&shared.ready, |queue| queue.is_purged().then_some(())).await;
        let messages = purged() - before;
        tracing::warn!(messages, "the buffer was purged, as somebody asked for it: reported as a gap");
        messages
    }

    /// The dead letters with ids after `after`, in the order of their ids, at most `limit`; none where there are no
    /// more.
    pub async fn dead_letters(&self, after: Option<Id>, limit: usize) -> Vec<DeadLetter> {
        let (mut letters, mut after) = (Vec::new(), after);
        while letters.len() < limit {
            let left = limit - letters.len();
            let found = self.ask(|answer| Ask::DeadLetters { after, limit: left, answer }).await;
            let Some((found, next)) = found else { break };
            letters.extend(found.into_iter().filter_map(DeadLetter::read));
            if next.is_none() {
                break;
            }
            after = next;
        }
        letters
    }

    /// The ids of all dead letters that there are now, in order.
    #[must_use]
    pub fn dead_letter_ids(&self) -> Vec<Id> {
        self.shared.queue().dead_ids()
    }

    /// Puts dead letters back at the end of the queue, under their old ids, each once, and tells how many were there:
    /// those as well that have come back as dead letters meanwhile. Comes back once the disk has them in the queue; where
    /// it takes no writes, at once.
    pub async fn send_again(&self, ids: &[Id]) -> u64 {
        let shared = &*self.shared;
        let mut seen = HashSet::new();
        let ids: Vec<Id> = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
        let (mut moved, mut rest) = (Vec::new(), &ids[..]);
        while !rest.is_empty() {
            let ids = rest.to_vec();
            let Some((count, found)) = self.ask(|answer| Ask::SendAgain { ids, answer }).await else { break };
            rest = rest.get(count..).unwrap_or_default();
            moved.extend(found);
            shared.ready.notify_waiters();
            shared.wait(&shared.ready, |queue| queue.is_revived().then_some(())).await;
        }
        // One that found no room is the dead letter still that it was.
        let queue = shared.queue();
        moved.iter().filter(|letter| !queue.is_kept(**letter)).count() as u64
    }

    /// Forgets dead letters for good, and tells how many were there. Their loss was told when they were given up. Comes
    /// back once the disk has forgotten them; where it takes no writes, at once.
    pub async fn forget_dead_letters(&self, ids: &[Id]) -> u64 {
        let ids = ids.to_vec();
        let Some(count) = self.ask(|answer| Ask::Forget { ids, answer }).await else { return 0 };
        self.shared.wait(&self.shared.ready, |queue| queue.is_forgotten().then_some(())).await;
        count
    }

    /// How long the message has waited, or been on its way, that has done so for longest; of what an earlier run left,
    /// as far as is known.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.shared.queue().oldest(self.shared.clock.monotonic())
    }

    /// The answer to a question; `None` where the outbox closes.
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.change(|queue| queue.ask(ask(answer)));
        answered.await.ok()
    }

    /// Commits everything that is unacknowledged, the ledger and `saved`, marks the stop as orderly, and lets go of the
    /// file. It is one transaction, unless memory holds more than the log's part of `max_bytes`; the mark is in the
    /// last. Where `saved` is larger than [`Outbox::saved_max`] it is lost, by the ledger.
    ///
    /// Takes as long as the disk does; where it refuses, the log says what is lost. From the call on nothing is handed
    /// out, and what is appended after it is lost.
    pub async fn close(&self, saved: Option<Vec<u8>>) {
        let now = self.shared.clock.monotonic();
        self.shared.change(|queue| queue.close(saved, now));
        self.shared.wait(&self.shared.closed, |queue| queue.is_closed().then_some(())).await;
    }
}

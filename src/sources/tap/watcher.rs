//! The way from a source to one who looks on, and its two ends. It never holds the source up: what does not fit is lost,
//! and told where it was.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Event, What};
use crate::clock::Clock;

/// So many events may wait for one who looks.
const EVENTS: usize = 256;

/// So many bytes may wait, over all events: who stops the output of a terminal may leave it so for hours.
pub(super) const BYTES: usize = 64 << 10;

/// So many of the bytes that have come last, and are no frame yet, are shown.
const TAIL: usize = 64;

/// After so long without a word, that is worth one; then after twice as long, and so on.
const QUIET: Duration = Duration::from_secs(10);

/// And at least so often.
const QUIET_MAX: Duration = Duration::from_secs(300);

/// The source's end.
#[derive(Debug)]
pub(super) struct Outlet {
    events: mpsc::Sender<Event>,
    clock: Clock,
    shared: Arc<Between>,
}

/// What one who looks and the source have in common.
#[derive(Debug, Default)]
pub(super) struct Between {
    lost: AtomicU64,
    /// The bytes of the events that wait.
    pub(super) waiting: AtomicUsize,
    unframed: Mutex<Unframed>,
}

/// Bytes since the last word.
#[derive(Debug, Default)]
struct Unframed {
    bytes: u64,
    tail: Vec<u8>,
}

/// The end of who looks on. Dropped, nobody does.
#[derive(Debug)]
pub struct Watcher {
    pub(super) events: mpsc::Receiver<Event>,
    clock: Clock,
    pub(super) shared: Arc<Between>,
    /// After how long the next silence is worth a word.
    quiet: Duration,
    quiet_for: Duration,
}

/// A way to one who looks on from now on.
pub(super) fn way(clock: Clock) -> (Outlet, Watcher) {
    let (events, to_come) = mpsc::channel(EVENTS);
    let shared = Arc::new(Between::default());
    let outlet = Outlet { events, clock: clock.clone(), shared: Arc::clone(&shared) };
    (outlet, Watcher { events: to_come, clock, shared, quiet: QUIET, quiet_for: Duration::ZERO })
}

impl Outlet {
    /// These bytes have come.
    pub(super) fn read(&self, bytes: &[u8]) {
        let mut unframed = self.shared.unframed();
        unframed.bytes += bytes.len() as u64;
        unframed.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let over = unframed.tail.len().saturating_sub(TAIL);
        unframed.tail.drain(..over);
    }

    pub(super) fn is_open(&self) -> bool {
        !self.events.is_closed()
    }

    /// Gives whether somebody is there to hear it.
    pub(super) fn tell(&mut self, mut what: What) -> bool {
        let unframed = std::mem::take(&mut *self.shared.unframed());
        if let What::Refused { tail, .. } = &mut what {
            *tail = unframed.tail;
        }
        let at = self.clock.wall().0;
        // The last place is for how much was lost, so that it comes where it was lost.
        let (lost, room) = (&self.shared.lost, self.events.capacity());
        let before = lost.load(Ordering::Relaxed);
        let event = Event { at, what };
        let fits = self.shared.waiting.load(Ordering::Relaxed) + event.held() + size_of::<Event>() <= BYTES;
        if room >= 2 && fits {
            if before > 0 {
                lost.store(0, Ordering::Relaxed);
                self.send(Event { at, what: What::Lost(before) });
            }
            self.send(event);
        } else {
            lost.store(before + 1, Ordering::Relaxed);
        }
        self.is_open()
    }

    fn send(&self, event: Event) {
        self.shared.waiting.fetch_add(event.held(), Ordering::Relaxed);
        let _ = self.events.try_send(event);
    }
}

impl Between {
    fn unframed(&self) -> MutexGuard<'_, Unframed> {
        self.unframed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// What happens next, or that nothing does; `None` once the source is gone for good. Not cancel-safe: a silence
    /// begins anew.
    pub async fn next(&mut self) -> Option<Event> {
        let event = match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(mpsc::error::TryRecvError::Disconnected) => return None,
            Err(mpsc::error::TryRecvError::Empty) => {
                let lost = self.shared.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    return Some(self.event(What::Lost(lost)));
                }
                timeout(self.quiet.saturating_sub(self.quiet_for), self.events.recv()).await
            }
        };
        match event {
            Ok(event) => {
                (self.quiet, self.quiet_for) = (QUIET, Duration::ZERO);
                let held = event.as_ref().map_or(0, Event::held);
                self.shared.waiting.fetch_sub(held, Ordering::Relaxed);
                event
            }
            Err(_) => {
                self.quiet_for = self.quiet;
                self.quiet = (self.quiet * 2).min(self.quiet + QUIET_MAX);
                let Unframed { bytes, tail } = std::mem::take(&mut *self.shared.unframed());
                Some(self.event(What::Quiet { seconds: self.quiet_for.as_secs(), bytes, tail }))
            }
        }
    }

    fn event(&self, what: What) -> Event {
        Event { at: self.clock.wall().0, what }
    }
}

//! The tap: what a source reads and what becomes of it, for whoever looks on. `weir tap` is who does.
//!
//! Every source has one, in its [`Stats`](super::Stats): it outlives that the source is opened again, or that its table
//! changes. While nobody looks it costs one relaxed load a read. Who looks never holds the source up: what it does not
//! take in time it loses, and is told how much that was.
//!
//! What a source has to do for it: where [`Tap::is_watched`], tell [`Tap::received`] what came in, before it is decoded,
//! and [`Tap::decoded`] what came of it; [`Tap::sent`] what it writes to a device, where it does. What is refused through
//! `Stats::refuse`, and that the source was opened or failed, is told by itself. Byte streams that are read by a
//! `stream::Reader` need nothing at all.

mod event;
mod watcher;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::excerpt;
use crate::clock::Clock;
use crate::model::Readings;

pub use super::frameless::told as no_frame;
pub use event::{Event, Frame, Told, What};
pub use watcher::Watcher;
use watcher::{Outlet, way};

/// So many readings of a frame are shown.
const READINGS: usize = 64;

/// The source's end. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Tap(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_watched: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watchers: Vec<Outlet>,
    /// Whether it is open or why not, once it was tried.
    state: Option<What>,
}

impl Tap {
    /// Whether somebody looks on, so that it is worth while to tell anything.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.0.is_watched.load(Ordering::Relaxed)
    }

    /// These bytes were read, whether they make a frame or not.
    pub fn read(&self, bytes: &[u8]) {
        self.inner().watchers.iter().for_each(|outlet| outlet.read(bytes));
    }

    /// A frame came in; `head` is what goes before it, such as the line of a request.
    pub fn received(&self, head: Option<String>, bytes: &[u8]) {
        self.tell(What::Received(Frame::new(head, bytes)));
    }

    /// A frame was sent to a device.
    pub fn sent(&self, head: Option<String>, bytes: &[u8]) {
        self.tell(What::Sent(Frame::new(head, bytes)));
    }

    /// What came of the frame that was told last: all readings from the one of number `first` on.
    pub fn decoded(&self, readings: &Readings, first: usize, ignored: u64, first_ignored: Option<String>) {
        let count = readings.len().saturating_sub(first);
        let shown = readings.iter().skip(first).take(READINGS);
        let readings = shown.map(|(_, reading)| Told::new(&reading, readings.arrival)).collect();
        let first_ignored = first_ignored.map(|first| excerpt::cut(first, event::WORDS));
        self.tell(What::Decoded { readings, count, ignored, first_ignored });
    }

    /// Something was refused.
    pub(super) fn refused(&self, cause: &str, why: String) {
        let why = excerpt::cut(why, event::WORDS);
        self.tell(What::Refused { cause: cause.to_owned(), why, tail: Vec::new() });
    }

    /// The source is open.
    pub fn opened(&self) {
        self.inner().state = Some(What::Open);
        self.tell(What::Open);
    }

    /// The source is not open any more, or could not be opened.
    pub fn failed(&self, why: &str) {
        let what = What::Failed(excerpt::cut(why, event::WORDS));
        self.inner().state = Some(what.clone());
        self.tell(what);
    }

    /// Looks on from now on. Where the source has been tried already, how that went comes first.
    #[must_use]
    pub fn watch(&self, clock: Clock) -> Watcher {
        let (mut outlet, watcher) = way(clock);
        let mut inner = self.inner();
        inner.watchers.retain(Outlet::is_open);
        if let Some(state) = inner.state.clone() {
            outlet.tell(state);
        }
        inner.watchers.push(outlet);
        self.0.is_watched.store(true, Ordering::Relaxed);
        watcher
    }

    fn tell(&self, what: What) {
        if !self.is_watched() {
            return;
        }
        let mut inner = self.inner();
        inner.watchers.retain_mut(|outlet| outlet.tell(what.clone()));
        if inner.watchers.is_empty() {
            self.0.is_watched.store(false, Ordering::Relaxed);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

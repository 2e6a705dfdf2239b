//! How the link stands, for whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How the link stands. Times are of the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// With whom the last session was, or is.
    pub peer: Option<String>,
    /// Since when it is.
    pub since: Option<Duration>,
    /// What went wrong last in this run, and when.
    pub failure: Option<(String, Duration)>,
    /// The last second, in Unix time, at which the client certificate is valid.
    pub certificate_until: Option<i64>,
    /// Whether one is shown at all.
    pub uses_certificate: bool,
}

/// Keeps it.
#[derive(Debug, Default)]
pub struct Link(Mutex<State>);

impl Link {
    /// How it stands now.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    pub(super) fn certificate(&self, until: Option<i64>, is_used: bool) {
        let mut state = self.lock();
        (state.certificate_until, state.uses_certificate) = (until, is_used);
    }

    pub(super) fn up(&self, peer: String, now: Duration) {
        let mut state = self.lock();
        (state.peer, state.since) = (Some(peer), Some(now));
    }

    pub(super) fn down(&self) {
        self.lock().since = None;
    }

    pub(super) fn failed(&self, what: &str, now: Duration) {
        self.lock().failure = Some((what.to_owned(), now));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

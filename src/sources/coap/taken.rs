use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// `EXCHANGE_LIFETIME` and `NON_LIFETIME` of RFC 7252, 4.8.2: how long a copy of a message may still come.
pub(super) const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);
pub(super) const NON_LIFETIME: Duration = Duration::from_secs(145);

/// Which requests a source has taken, so that each counts once. It outlives the source: one that is closed and opened
/// again under its name, as a reload does, is given the same. Clones are one memory.
///
/// A request is known by a digest of its sender and all its bytes, and not by the message id alone: a copy repeats
/// the bytes (RFC 7252, 4.2), and a device that starts anew with the same id has something new to say.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Requests>>);

#[derive(Debug)]
pub(super) struct Requests {
    hasher: RandomState,
    confirmable: Taken,
    other: Taken,
}

impl Default for Requests {
    fn default() -> Self {
        let hasher = RandomState::new();
        Self { hasher, confirmable: Taken::new(EXCHANGE_LIFETIME), other: Taken::new(NON_LIFETIME) }
    }
}

impl Memory {
    /// Waits for nobody: one source at a time has it.
    pub(super) fn open(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    pub(super) fn digest(&self, peer: SocketAddr, datagram: &[u8]) -> u64 {
        self.hasher.hash_one((peer, datagram))
    }

    /// Those of Confirmable messages, or of others.
    pub(super) fn taken(&mut self, confirmable: bool) -> &mut Taken {
        if confirmable { &mut self.confirmable } else { &mut self.other }
    }
}

/// The requests whose readings were taken, each remembered for as long as a copy of it may still come.
#[derive(Debug)]
pub(super) struct Taken {
    lifetime: Duration,
    digests: HashSet<u64>,
    /// When each is forgotten, the soonest first.
    order: VecDeque<(Instant, u64)>,
}

/// So many requests are remembered at most, in about 1 MB. At 700 requests a second that is still all the time in
/// which a device repeats itself by itself (`MAX_TRANSMIT_SPAN`, 45 s).
pub(super) const TAKEN_MAX: usize = 32_768;

impl Taken {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, digests: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether the request is remembered.
    pub(super) fn contains(&mut self, digest: u64, now: Instant) -> bool {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
        self.digests.contains(&digest)
    }

    /// Remembers a request. True where another had to be forgotten before its time.
    pub(super) fn remember(&mut self, digest: u64, now: Instant) -> bool {
        if !self.digests.insert(digest) {
            return false;
        }
        self.order.push_back((now + self.lifetime, digest));
        let full = self.order.len() > TAKEN_MAX;
        if full {
            self.forget_oldest();
        }
        full
    }

    fn forget_oldest(&mut self) {
        if let Some((_, digest)) = self.order.pop_front() {
            self.digests.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::model::Timestamp;

    const SECOND: Duration = Duration::from_secs(1);

    fn instants() -> impl Fn(Duration) -> Instant {
        let clock = Clock::injected(Timestamp(0), true);
        move |at| clock.instant(at)
    }

    #[test]
    fn a_request_is_remembered_for_its_lifetime_and_no_longer() {
        let at = instants();
        let mut taken = Taken::new(10 * SECOND);
        taken.remember(1, at(SECOND));
        taken.remember(2, at(2 * SECOND));
        assert!(taken.contains(1, at(11 * SECOND - Duration::from_nanos(1))));
        assert!(!taken.contains(1, at(11 * SECOND)));
        assert!(taken.contains(2, at(11 * SECOND)));
        assert!(!taken.contains(3, at(11 * SECOND)));
    }

    #[test]
    fn where_there_are_too_many_the_oldest_is_forgotten_and_said_so() {
        let now = instants()(SECOND);
        let mut taken = Taken::new(SECOND);
        let max = TAKEN_MAX as u64;
        assert!((0..max).all(|digest| !taken.remember(digest, now)));
        assert!(taken.remember(max, now));
        assert!(!taken.contains(0, now));
        assert!((1..=max).all(|digest| taken.contains(digest, now)));
        assert_eq!((taken.order.len(), taken.digests.len()), (TAKEN_MAX, TAKEN_MAX));
    }
}

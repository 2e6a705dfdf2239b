use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// The requests whose readings were taken, each remembered for as long as a copy of it may still come.
///
/// A request is known by a digest of its sender and all its bytes, and not by the message id alone: a copy repeats
/// the bytes (RFC 7252, 4.2), and a device that starts anew with the same id has something new to say.
#[derive(Debug)]
pub(super) struct Taken {
    lifetime: Duration,
    digests: HashSet<u64>,
    /// When each is forgotten, the soonest first.
    order: VecDeque<(Duration, u64)>,
}

/// So many requests are remembered at most, in about 1 MB. At 700 requests a second that is still all the time in
/// which a device repeats itself by itself (`MAX_TRANSMIT_SPAN`, 45 s).
pub(super) const TAKEN_MAX: usize = 32_768;

impl Taken {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, digests: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether the request is remembered.
    pub(super) fn contains(&mut self, digest: u64, now: Duration) -> bool {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
        self.digests.contains(&digest)
    }

    /// Remembers a request. True where another had to be forgotten before its time.
    pub(super) fn remember(&mut self, digest: u64, now: Duration) -> bool {
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

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_is_remembered_for_its_lifetime_and_no_longer() {
        let mut taken = Taken::new(10 * SECOND);
        taken.remember(1, SECOND);
        taken.remember(2, 2 * SECOND);
        assert!(taken.contains(1, 11 * SECOND - Duration::from_nanos(1)));
        assert!(!taken.contains(1, 11 * SECOND));
        assert!(taken.contains(2, 11 * SECOND));
        assert!(!taken.contains(3, 11 * SECOND));
    }

    #[test]
    fn where_there_are_too_many_the_oldest_is_forgotten_and_said_so() {
        let mut taken = Taken::new(SECOND);
        let max = TAKEN_MAX as u64;
        assert!((0..max).all(|digest| !taken.remember(digest, Duration::ZERO)));
        assert!(taken.remember(max, Duration::ZERO));
        assert!(!taken.contains(0, Duration::ZERO));
        assert!((1..=max).all(|digest| taken.contains(digest, Duration::ZERO)));
        assert_eq!((taken.order.len(), taken.digests.len()), (TAKEN_MAX, TAKEN_MAX));
    }
}

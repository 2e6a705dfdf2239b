//! Which windows of a group may have been sent: should time go back, they say `partial` when they are sent again.

use minicbor::{Decode, Encode};

use crate::model::Timestamp;

/// The most spans that are told apart. Beyond, the two that lie closest together become one: then a window between
/// them that was not sent says `partial` too, and none that was keeps silent.
const SPANS_MAX: usize = 4;

/// A window so much later than the last one begins another span, in milliseconds: what a device with a wild clock sent
/// for a far day must not spoil all the days until then.
const FAR: i64 = 86_400_000;

/// From the start of the first window to the end of the last.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
struct Span {
    #[n(0)]
    from: Timestamp,
    #[n(1)]
    until: Timestamp,
}

/// What was sent.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Sent {
    /// Since time went back, if it ever did.
    #[n(0)]
    lately: Option<Span>,
    /// Before, in order.
    #[n(1)]
    before: Vec<Span>,
}

impl Sent {
    /// Notes that a window was sent, in the order of their starts.
    pub(super) fn add(&mut self, start: Timestamp, end: Timestamp) {
        match &mut self.lately {
            Some(lately) if start <= lately.until.moved(FAR) => {
                (lately.from, lately.until) = (lately.from.min(start), lately.until.max(end));
            }
            _ => {
                self.go_back();
                self.lately = Some(Span { from: start, until: end });
            }
        }
    }

    /// Notes that time may go back from here.
    pub(super) fn go_back(&mut self) {
        let Some(lately) = self.lately.take() else { return };
        self.before.push(lately);
        self.before.sort_unstable_by_key(|span| span.from);
        let gap = |pair: &[Span]| pair[1].from.0.saturating_sub(pair[0].until.0);
        let overlap = |spans: &[Span]| spans.windows(2).position(|pair| gap(pair) <= 0);
        while let Some(at) = overlap(&self.before) {
            self.join(at);
        }
        if self.before.len() > SPANS_MAX {
            let closest = (0..self.before.len() - 1).min_by_key(|at| gap(&self.before[*at..]));
            closest.into_iter().for_each(|at| self.join(at));
        }
    }

    /// Adds what another group has sent, as of before time went back.
    pub fn take_in(&mut self, other: &Self) {
        for span in other.before.iter().chain(&other.lately) {
            self.go_back();
            self.lately = Some(*span);
        }
        self.go_back();
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lately.is_none() && self.before.is_empty()
    }

    /// Makes one of a span and the next.
    fn join(&mut self, at: usize) {
        let next = self.before.remove(at + 1);
        self.before[at].until = self.before[at].until.max(next.until);
    }

    /// Whether the window that starts at `start` may have been sent before time went back.
    pub(super) fn again(&self, start: Timestamp) -> bool {
        self.before.iter().any(|span| span.from <= start && start < span.until)
    }

    /// Whether the window that starts at `start` may have been sent at all.
    pub(super) fn has(&self, start: Timestamp) -> bool {
        self.again(start) || self.lately.is_some_and(|lately| lately.from <= start && start < lately.until)
    }

    /// The end of the last window that was sent and over by `now`, about.
    pub(super) fn last_end(&self, now: Timestamp) -> Option<Timestamp> {
        let spans = self.before.iter().chain(&self.lately);
        spans.filter(|span| span.from <= now).map(|span| span.until.min(now)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_was_sent_before_time_went_back_is_known(
            runs in proptest::collection::vec((-5_i64..5, 1_i64..20), 1..12)
        ) {
            let (mut sent, mut starts) = (Sent::default(), Vec::new());
            for (place, windows) in runs {
                for n in 0..windows {
                    let start = Timestamp(place * 100_000_000 + n * 10_000);
                    sent.add(start, start.moved(10_000));
                    starts.push(start);
                }
                sent.go_back();
                prop_assert!(starts.iter().all(|start| sent.again(*start)));
                prop_assert!(sent.before.len() <= SPANS_MAX);
            }
        }
    }

    #[test]
    fn a_far_day_does_not_spoil_the_days_until_then() {
        let mut sent = Sent::default();
        for start in [10_000, 20_000, 9_999_990_000_000] {
            sent.add(Timestamp(start), Timestamp(start + 10_000));
        }
        assert_eq!(sent.last_end(Timestamp(35_000)), Some(Timestamp(30_000)));
        sent.go_back();
        assert!(sent.again(Timestamp(20_000)) && sent.again(Timestamp(9_999_990_000_000)));
        assert!(!sent.again(Timestamp(30_000)) && !sent.again(Timestamp(1_795_422_500_000)));
    }
}

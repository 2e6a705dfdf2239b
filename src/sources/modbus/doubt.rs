//! What may still come on a line whose answers do not say which request they answer: requests without an answer in
//! time. Until theirs has come, or time enough has passed, nothing is asked whose answer could be taken for it. A device
//! answers in the order in which it is asked: where it has answered something else meanwhile, in a frame that can only be
//! that, the answer from before does not come any more. So a device that is asked for several things can be waited for
//! much longer than one that has but one to say.

use tokio::time::Instant;

use super::line::{Heard, Late, Manner, Outcome};
use super::pdu::{Asked, EXCEPTION};

/// All that may still come. By instants, not by a clock's time, as it may outlive the clock.
#[derive(Debug, Default)]
pub(super) struct Doubts(Vec<Doubt>);

#[derive(Clone, Copy, Debug)]
struct Doubt {
    asked: Asked,
    /// Until when nothing of it is clear.
    until: Instant,
    /// Until when its values may be taken for another's.
    longest: Instant,
    /// How many of its answers may still come.
    open: u32,
    why: Why,
}

/// How long a doubt lasts where nothing ends it before.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    until: Instant,
    longest: Instant,
}

/// For so many timeouts more an answer that is late is waited for, before something is asked whose answer looks like it.
const LATEST: u32 = 3;

/// The same where the device is asked for other things as well, whose answers end the doubt sooner.
const LATEST_OF_SEVERAL: u32 = 20;

impl End {
    pub(super) fn of(manner: Manner, from: Instant) -> Self {
        let latest = if manner.has_other { LATEST_OF_SEVERAL } else { LATEST };
        Self { until: from + manner.timeout * LATEST, longest: from + manner.timeout * latest }
    }
}

/// How a request came to be in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It had no answer: it may be asked again, as both answers are the same thing.
    Silent,
    /// Asked for again it had an answer. Whichever it was, the other may still come, and to ask anew would leave it
    /// open for ever which is which.
    Answered,
    /// An exception came which was its own or another's: until all is over, none of that function can be told apart.
    Unclear,
}

/// So many things of one unit may be in doubt, and nothing more is asked of it.
const OF_A_UNIT: usize = 8;

impl Doubts {
    /// Whether anything may still come.
    pub(super) fn are_open(&self, now: Instant) -> bool {
        self.0.iter().any(|doubt| now < doubt.longest)
    }

    /// Whether an answer to `asked` could be an old one.
    pub(super) fn is_doubtful(&self, asked: Asked, now: Instant) -> bool {
        let is_so = |doubt: &Doubt| match doubt.why {
            Why::Unclear => now < doubt.until && doubt.asked.shares_exceptions(&asked),
            Why::Answered => doubt.asked.looks_like(&asked),
            Why::Silent => doubt.asked.looks_like(&asked) && doubt.asked != asked,
        };
        let mut of_unit = self.0.iter().filter(|doubt| now < doubt.longest && doubt.asked.unit == asked.unit);
        let recent = of_unit.clone().filter(|doubt| now < doubt.until).count();
        let is_full = recent >= OF_A_UNIT && !of_unit.clone().any(|one| one.asked == asked);
        is_full || of_unit.any(is_so)
    }

    /// Whether an exception to `asked` could be an old one, to something else: it does not show how much was asked for.
    pub(super) fn is_exception_doubtful(&self, asked: Asked, now: Instant) -> bool {
        let is_so = |doubt: &Doubt| doubt.asked != asked && doubt.asked.shares_exceptions(&asked);
        self.0.iter().any(|doubt| now < doubt.until && is_so(doubt))
    }

    /// The last request to that unit that waits for an answer still.
    pub(super) fn last_of(&self, unit: u8, now: Instant) -> Option<Asked> {
        let last = self.0.iter().rev().find(|doubt| doubt.asked.unit == unit && now < doubt.until);
        last.map(|doubt| doubt.asked)
    }

    /// An answer to `asked` may still come until then.
    pub(super) fn open(&mut self, asked: Asked, why: Why, now: Instant, end: End) {
        self.0.retain(|doubt| now < doubt.longest);
        let mut doubt = Doubt { asked, until: end.until, longest: end.longest, open: 0, why };
        if let Some(at) = self.0.iter().position(|doubt| doubt.asked == asked) {
            let before = self.0.remove(at);
            doubt.open = before.open;
            doubt.until = doubt.until.max(before.until);
            doubt.longest = doubt.longest.max(before.longest);
        }
        doubt.open = doubt.open.saturating_add(1);
        self.0.push(doubt);
    }

    /// What an exchange leaves in doubt until then.
    pub(super) fn heard(&mut self, asked: Asked, heard: &Heard, late: &[Late], now: Instant, end: End) {
        late.iter().for_each(|late| self.settle(late));
        match heard.outcome {
            Outcome::Values | Outcome::Exception(_) => {
                self.0.retain(|doubt| now < doubt.longest);
                if heard.outcome == Outcome::Values && !self.0.iter().any(|one| one.asked.looks_like(&asked))
                {
                    // This answer is its own, and comes after all that was asked before it.
                    self.0.retain(|doubt| doubt.asked.unit != asked.unit);
                }
                for doubt in self.0.iter_mut().filter(|doubt| doubt.asked == asked) {
                    // What is left of it comes close behind, if at all.
                    doubt.until = doubt.until.max(end.until);
                    (doubt.longest, doubt.why) = (doubt.until, Why::Answered);
                }
            }
            Outcome::Unclear => self.open(asked, Why::Unclear, now, end),
            Outcome::Silence | Outcome::Closed | Outcome::Other(_) | Outcome::Damaged if heard.may_come => {
                self.open(asked, Why::Silent, now, end)
            }
            Outcome::Silence | Outcome::Closed | Outcome::Other(_) | Outcome::Damaged => {}
        }
    }

    /// What was waited for has come. Where it could be several, all of them wait on.
    fn settle(&mut self, late: &Late) {
        let fits = |doubt: &Doubt| {
            let function = doubt.asked.table.function();
            doubt.asked.unit == late.unit
                && (late.function == function | EXCEPTION
                    || (late.function == function && late.bytes == doubt.asked.bytes()))
        };
        let mut fitting = self.0.iter().enumerate().filter(|(_, doubt)| fits(doubt)).map(|(at, _)| at);
        let (Some(at), None) = (fitting.next(), fitting.next()) else { return };
        if let Some(doubt) = self.0.get_mut(at) {
            doubt.open = doubt.open.saturating_sub(1);
            if doubt.open == 0 {
                self.0.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::model::Timestamp;
    use crate::sources::modbus::pdu::Table;

    fn holding(address: u16, count: u16) -> Asked {
        Asked { unit: 1, table: Table::Holding, address, count }
    }

    fn manner(has_other: bool) -> Manner {
        Manner { timeout: Duration::from_secs(1), pause: Duration::ZERO, has_other, in_doubt: false }
    }

    fn values() -> Heard {
        Heard { outcome: Outcome::Values, ..Heard::default() }
    }

    #[test]
    fn a_device_with_several_things_to_say_is_waited_for_until_it_has_said_another() {
        let now = Clock::injected(Timestamp(0), true).instant(Duration::ZERO);
        let later = |seconds| now + Duration::from_secs(seconds);
        for (has_other, in_doubt) in [(false, [true, false, false]), (true, [true, true, false])] {
            let mut doubts = Doubts::default();
            doubts.open(holding(10, 1), Why::Silent, now, End::of(manner(has_other), now));
            let found = [2, 10, 20].map(|seconds| doubts.is_doubtful(holding(20, 1), later(seconds)));
            assert_eq!(found, in_doubt);
            assert!(
                !doubts.is_exception_doubtful(holding(50, 3), later(3))
                    && doubts.last_of(1, later(3)).is_none()
            );
            // Another device's answer says nothing of it, nor does one that may be the late one.
            let other = Asked { unit: 2, ..holding(50, 3) };
            for asked in [other, holding(10, 1)] {
                doubts.heard(asked, &values(), &[], later(1), End::of(manner(has_other), later(1)));
                assert!(doubts.is_doubtful(holding(20, 1), later(2)));
            }
            doubts.heard(holding(50, 3), &values(), &[], later(2), End::of(manner(has_other), later(2)));
            assert!(!doubts.are_open(later(2)));
        }
    }

    #[test]
    fn what_has_had_an_answer_is_waited_for_no_longer_than_what_has_no_other_beside_it() {
        let now = Clock::injected(Timestamp(0), true).instant(Duration::ZERO);
        let (end, mut doubts) = (End::of(manner(true), now), Doubts::default());
        doubts.open(holding(10, 1), Why::Silent, now, end);
        doubts.heard(holding(10, 1), &values(), &[], now, end);
        let later = |ms| now + Duration::from_millis(ms);
        let in_doubt = [2_999, 3_000].map(|ms| doubts.is_doubtful(holding(10, 1), later(ms)));
        assert_eq!(in_doubt, [true, false]);
    }

    #[test]
    fn an_answer_that_may_be_an_old_one_itself_ends_no_doubt() {
        let now = Clock::injected(Timestamp(0), true).instant(Duration::ZERO);
        let (end, mut doubts) = (End::of(manner(true), now), Doubts::default());
        doubts.open(holding(50, 3), Why::Silent, now, end);
        doubts.open(holding(10, 1), Why::Silent, now, end);
        doubts.heard(holding(50, 3), &values(), &[], now, end);
        assert!(doubts.is_doubtful(holding(20, 1), now));
    }

    #[test]
    fn a_doubt_of_another_length_leaves_the_one_before_as_it_is() {
        let (now, mut doubts) =
            (Clock::injected(Timestamp(0), true).instant(Duration::ZERO), Doubts::default());
        let until = now + Duration::from_secs(3);
        let end = End::of(manner(false), now);
        doubts.open(holding(10, 1), Why::Silent, now, end);
        doubts.open(holding(30, 2), Why::Silent, now, end);
        assert!(doubts.is_doubtful(holding(20, 1), now) && doubts.is_doubtful(holding(40, 2), now));
        assert!(!doubts.is_doubtful(holding(10, 1), now), "it may be asked again itself");
        assert!(
            !doubts.is_doubtful(holding(50, 3), now) && doubts.is_exception_doubtful(holding(50, 3), now)
        );
        assert!(!doubts.is_doubtful(holding(20, 1), until) && !doubts.are_open(until));
    }

    #[test]
    fn what_was_asked_twice_is_over_with_its_second_late_answer() {
        let (now, mut doubts) =
            (Clock::injected(Timestamp(0), true).instant(Duration::ZERO), Doubts::default());
        let until = now + Duration::from_secs(3);
        let end = End::of(manner(false), now);
        let late = Late { unit: 1, function: 3, bytes: 2 };
        for _ in 0..2 {
            doubts.open(holding(10, 1), Why::Silent, now, end);
        }
        doubts.settle(&late);
        assert!(doubts.is_doubtful(holding(20, 1), now) && !doubts.is_doubtful(holding(20, 1), until));
        doubts.settle(&late);
        assert!(!doubts.is_doubtful(holding(20, 1), now));
    }

    #[test]
    fn a_unit_with_much_in_doubt_is_asked_for_nothing_more() {
        let (now, mut doubts) =
            (Clock::injected(Timestamp(0), true).instant(Duration::ZERO), Doubts::default());
        let until = now + Duration::from_secs(3);
        let end = End::of(manner(false), now);
        for count in 1..=8 {
            assert!(!doubts.is_doubtful(holding(0, count), now) && now < until);
            doubts.open(holding(0, count), Why::Silent, now, end);
        }
        assert!(doubts.is_doubtful(holding(0, 9), now) && !doubts.is_doubtful(holding(0, 8), now));
    }
}

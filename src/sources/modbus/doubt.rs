//! What may still come on a line whose answers do not say which request they answer: requests without an answer in
//! time. Until theirs has come, or time enough has passed, nothing is asked whose answer could be taken for it.

use tokio::time::Instant;

use super::line::{Heard, Late, Outcome};
use super::pdu::{Asked, EXCEPTION};

/// All that may still come. By instants, not by a clock's time, as it may outlive the clock.
#[derive(Debug, Default)]
pub(super) struct Doubts(Vec<Doubt>);

#[derive(Clone, Copy, Debug)]
struct Doubt {
    asked: Asked,
    until: Instant,
    /// How many of its answers may still come.
    open: u32,
    why: Why,
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
        self.0.iter().any(|doubt| now < doubt.until)
    }

    /// Whether an answer to `asked` could be an old one.
    pub(super) fn is_doubtful(&self, asked: Asked, now: Instant) -> bool {
        let is_so = |doubt: &Doubt| match doubt.why {
            Why::Unclear => doubt.asked.shares_exceptions(&asked),
            Why::Answered => doubt.asked.looks_like(&asked),
            Why::Silent => doubt.asked.looks_like(&asked) && doubt.asked != asked,
        };
        let mut of_unit = self.0.iter().filter(|doubt| now < doubt.until && doubt.asked.unit == asked.unit);
        let is_full = of_unit.clone().count() >= OF_A_UNIT && !of_unit.clone().any(|one| one.asked == asked);
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
    pub(super) fn open(&mut self, asked: Asked, why: Why, now: Instant, until: Instant) {
        self.0.retain(|doubt| now < doubt.until);
        let before = self.0.iter().position(|doubt| doubt.asked == asked).map(|at| self.0.remove(at));
        let (open, latest) = before.map_or((0, until), |doubt| (doubt.open, doubt.until.max(until)));
        self.0.push(Doubt { asked, until: latest, open: open.saturating_add(1), why });
    }

    /// What an exchange leaves in doubt until then.
    pub(super) fn heard(&mut self, asked: Asked, heard: &Heard, late: &[Late], now: Instant, until: Instant) {
        late.iter().for_each(|late| self.settle(late));
        match heard.outcome {
            Outcome::Values | Outcome::Exception(_) => {
                self.0.retain(|doubt| now < doubt.until);
                for doubt in self.0.iter_mut().filter(|doubt| doubt.asked == asked) {
                    (doubt.until, doubt.why) = (doubt.until.max(until), Why::Answered);
                }
            }
            Outcome::Unclear => self.open(asked, Why::Unclear, now, until),
            Outcome::Silence | Outcome::Closed | Outcome::Other(_) | Outcome::Damaged if heard.may_come => {
                self.open(asked, Why::Silent, now, until)
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

    #[test]
    fn a_doubt_of_another_length_leaves_the_one_before_as_it_is() {
        let (now, mut doubts) =
            (Clock::injected(Timestamp(0), true).instant(Duration::ZERO), Doubts::default());
        let until = now + Duration::from_secs(3);
        doubts.open(holding(10, 1), Why::Silent, now, until);
        doubts.open(holding(30, 2), Why::Silent, now, until);
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
        let late = Late { unit: 1, function: 3, bytes: 2 };
        for _ in 0..2 {
            doubts.open(holding(10, 1), Why::Silent, now, until);
        }
        doubts.settle(&late);
        assert!(doubts.is_doubtful(holding(20, 1), now));
        doubts.settle(&late);
        assert!(!doubts.is_doubtful(holding(20, 1), now));
    }

    #[test]
    fn a_unit_with_much_in_doubt_is_asked_for_nothing_more() {
        let (now, mut doubts) =
            (Clock::injected(Timestamp(0), true).instant(Duration::ZERO), Doubts::default());
        let until = now + Duration::from_secs(3);
        for count in 1..=8 {
            assert!(!doubts.is_doubtful(holding(0, count), now));
            doubts.open(holding(0, count), Why::Silent, now, until);
        }
        assert!(doubts.is_doubtful(holding(0, 9), now) && !doubts.is_doubtful(holding(0, 8), now));
    }
}

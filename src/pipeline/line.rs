//! The line of arrival times: what a look at the clock says of the time at which readings arrived.
//!
//! The wall clock goes along with the monotonic one, whether something slews it or not: the kernel slews both. Where it
//! does not, it was set, or the machine was suspended. What is cut by the time of arrival then has to know:
//!
//! - trust comes: provisional times end, the real ones begin;
//! - it steps forward, or so little back that no window that was sent would be opened again: stamps follow at once;
//! - it steps back further: stamps keep to the line, as not trusted, until the clock has passed the end of the last
//!   window that was sent, for at most an hour. Then they follow.
//!
//! Nothing here waits or asks for the time: a step shows at the first look after it, when there is something to stamp
//! or a window is due, and costs nothing until then.

use std::time::Duration;

use crate::model::{Stamp, Timestamp};
use crate::units;

/// A difference of more than this is a step. A leap second is one of a second, `ntpd` steps by 128 ms, and two clocks are
/// never read at quite the same time: such differences are followed, and where one goes back the stamps stand still
/// while the clock catches up.
pub(super) const STEP: Duration = Duration::from_millis(1_500);

/// How long stamps keep to the line of a clock that was set back.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(3_600);

/// Where arrival times lie.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The last that was told.
    last: Stamp,
    /// Whether the clock was trusted at the last look.
    trusted: bool,
    /// While the clock was set back and is not followed.
    held: Option<Held>,
    /// Windows that start earlier were begun otherwise.
    since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// What the clock has to pass.
    until: Timestamp,
    /// In monotonic time.
    by: Duration,
}

/// How arrival times go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// As before.
    On,
    /// On the same line, and what was open is to be closed: whether the line can be trusted has changed.
    Broken,
    /// On another line: what was open is to be closed, and time may have gone back.
    Anew,
}

impl Line {
    pub(super) fn new(now: Stamp) -> Self {
        Self { last: now, trusted: now.synced, held: None, since: Timestamp(i64::MIN) }
    }

    /// Windows that start earlier saw only a part of their time.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// Whether its times are provisional: the clock has not been trusted yet.
    pub(super) fn is_provisional(&self) -> bool {
        !self.trusted
    }

    /// What the time would be on it at this look, if nothing breaks it.
    pub(super) fn expected(&self, look: Stamp) -> Timestamp {
        self.last.wall.after(look.monotonic.saturating_sub(self.last.monotonic))
    }

    /// The last time on it that was told.
    pub(super) fn last(&self) -> Stamp {
        self.last
    }

    /// The time of arrival of what arrived at this look, and how it goes on from the look before. `last_end` gives the
    /// end of the last window that was sent and over by a time; it is asked only where the clock was set back.
    pub(super) fn look(
        &mut self,
        look: Stamp,
        last_end: impl FnOnce(Timestamp) -> Option<Timestamp>,
    ) -> (Stamp, Course) {
        // Sources look by themselves, and what they bring may overtake: this is of before the last look, and of a clock
        // that may have been set since.
        if let Some(before) =
            self.last.monotonic.checked_sub(look.monotonic).filter(|before| !before.is_zero())
        {
            return (
                Stamp { wall: self.last.wall.before(before), monotonic: look.monotonic, ..self.last },
                Course::On,
            );
        }
        let expected = self.expected(look);
        let is_near = look.wall.distance(expected) <= STEP;
        let trust_came = look.synced && !self.trusted;
        self.trusted = look.synced;
        let (wall, synced, course) = match self.held {
            _ if trust_came => (look.wall, true, Course::Anew),
            None if is_near => (look.wall.max(self.last.wall), look.synced, Course::On),
            Some(_) if is_near => {
                tracing::info!("the clock is back where it was before it was set back");
                (look.wall.max(self.last.wall), true, Course::Broken)
            }
            Some(held) if look.wall < held.until && look.monotonic < held.by && look.wall < expected => {
                (expected, false, Course::On)
            }
            Some(_) => {
                tracing::warn!(
                    back = %units::show(expected.since(look.wall)),
                    "arrival times follow the clock that was set back: windows that are sent again say \"partial\":true"
                );
                (look.wall, true, Course::Anew)
            }
            None if look.wall > expected => {
                tracing::warn!(
                    ahead = %units::show(look.wall.since(expected)),
                    "the clock was set ahead, or the machine was suspended: windows that were open are sent as partial"
                );
                (look.wall, look.synced, Course::Anew)
            }
            None => {
                let back = units::show(expected.since(look.wall));
                match last_end(expected).filter(|end| look.synced && look.wall < *end) {
                    Some(until) => {
                        tracing::warn!(
                            %back,
                            "the clock was set back: arrival times go on as before, with \"synced\":false, until it has \
                             passed what was sent, for at most {}", units::show(HOLD_MAX)
                        );
                        self.held = Some(Held { until, by: look.monotonic.saturating_add(HOLD_MAX) });
                        (expected, false, Course::Broken)
                    }
                    None => {
                        tracing::warn!(%back, "the clock was set back: windows that were open are sent as partial");
                        (look.wall, look.synced, Course::Anew)
                    }
                }
            }
        };
        if synced || !self.trusted {
            self.held = None;
        }
        if course != Course::On {
            self.since = wall;
        }
        self.last = Stamp { wall, monotonic: look.monotonic, synced };
        (self.last, course)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    /// A clock that is `ahead` of its monotonic time.
    fn at(seconds: i64, ahead: i64) -> Stamp {
        let monotonic = Duration::from_secs(seconds.unsigned_abs());
        Stamp { wall: Timestamp(seconds * 1_000 + ahead), monotonic, synced: true }
    }

    /// Goes on with a look, after windows that were sent up to `end`.
    fn look(line: &mut Line, look: Stamp, end: i64) -> (i64, bool, Course) {
        let (stamp, course) = line.look(look, |_| Some(Timestamp(end)));
        assert_eq!(stamp.monotonic, look.monotonic);
        (stamp.wall.0, stamp.synced, course)
    }

    #[test]
    fn a_clock_that_is_slewed_is_followed_and_one_that_goes_back_a_little_is_waited_for() {
        let mut line = Line::new(at(0, 0));
        for (seconds, ahead, told) in
            [(10, 400, 10_400), (20, 1_800, 21_800), (20, 900, 21_800), (21, 900, 21_900), (22, -100, 21_900)]
        {
            assert_eq!(look(&mut line, at(seconds, ahead), 0), (told, true, Course::On), "{seconds} {ahead}");
        }
    }

    #[test]
    fn a_step_forward_is_followed_at_once() {
        let mut line = Line::new(at(0, 0));
        assert_eq!(look(&mut line, at(10, HOUR), 10_000), (10_000 + HOUR, true, Course::Anew));
        assert_eq!(line.since(), Timestamp(10_000 + HOUR));
        assert_eq!(look(&mut line, at(11, HOUR), 10_000), (11_000 + HOUR, true, Course::On));
    }

    #[test]
    fn a_step_back_is_followed_once_the_clock_has_passed_what_was_sent() {
        let mut line = Line::new(at(0, 0));
        look(&mut line, at(1_000, 0), 0);
        assert_eq!(look(&mut line, at(1_001, -300_000), 1_000_000), (1_001_000, false, Course::Broken));
        assert_eq!(look(&mut line, at(1_299, -300_000), 1_290_000), (1_299_000, false, Course::On));
        assert_eq!(look(&mut line, at(1_300, -300_000), 1_300_000), (1_000_000, true, Course::Anew));
        assert_eq!(look(&mut line, at(1_301, -300_000), 0), (1_001_000, true, Course::On));
    }

    #[test]
    fn a_step_back_is_not_held_out_against_for_more_than_an_hour() {
        let mut line = Line::new(at(20_000, 0));
        assert_eq!(look(&mut line, at(20_001, -2 * HOUR), 20_000_000), (20_001_000, false, Course::Broken));
        assert_eq!(look(&mut line, at(23_600, -2 * HOUR), 0), (23_600_000, false, Course::On));
        assert_eq!(look(&mut line, at(23_601, -2 * HOUR), 0), (23_601_000 - 2 * HOUR, true, Course::Anew));
    }

    #[test]
    fn a_step_back_that_opens_nothing_again_is_followed_at_once() {
        let mut line = Line::new(at(1_000, 0));
        assert_eq!(look(&mut line, at(1_001, -60_000), 941_000), (941_000, true, Course::Anew));
    }

    #[test]
    fn a_clock_that_was_set_back_by_mistake_comes_back_without_a_jump() {
        let mut line = Line::new(at(10_000, 0));
        assert_eq!(look(&mut line, at(10_001, -HOUR), 10_000_000), (10_001_000, false, Course::Broken));
        assert_eq!(look(&mut line, at(10_060, 0), 10_050_000), (10_060_000, true, Course::Broken));
        assert_eq!(look(&mut line, at(10_061, 0), 10_050_000), (10_061_000, true, Course::On));
    }

    #[test]
    fn trust_ends_what_was_provisional_wherever_the_real_time_lies() {
        for wall in [-HOUR, 500, HOUR] {
            let mut line = Line::new(Stamp { synced: false, ..at(10, 0) });
            assert!(line.is_provisional());
            assert_eq!(look(&mut line, at(20, wall), 10_000), (20_000 + wall, true, Course::Anew));
            assert!(!line.is_provisional());
        }
    }

    #[test]
    fn what_arrived_before_the_last_look_is_told_by_the_line_of_that_look() {
        let mut line = Line::new(Stamp { synced: false, ..at(10, 0) });
        look(&mut line, at(20, HOUR), 0);
        let overtaken = Stamp { synced: false, ..at(19, 0) };
        assert_eq!(look(&mut line, overtaken, 0), (19_000 + HOUR, true, Course::On));
        assert_eq!(look(&mut line, at(21, HOUR), 0), (21_000 + HOUR, true, Course::On));
    }
}

//! When a device is read next, and when one that does not answer is asked again. Pure: time comes in.

use std::time::Duration;

use crate::tally::Tally;

/// Something that is due every so often, from a beginning on. What was missed is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    every: Duration,
    next: Duration,
}

impl Due {
    pub(super) fn new(every: Duration, from: Duration) -> Self {
        Self { every: every.max(Duration::from_millis(1)), next: from }
    }

    pub(super) fn at(&self) -> Duration {
        self.next
    }

    /// It is done at `now`: the next is the first that lies ahead. How many were left out.
    pub(super) fn done(&mut self, now: Duration) -> u64 {
        let late = now.saturating_sub(self.next).as_nanos();
        let missed = u64::try_from(late / self.every.as_nanos().max(1)).unwrap_or(u64::MAX);
        let steps = u32::try_from(missed.saturating_add(1)).unwrap_or(u32::MAX);
        self.next = self.next.saturating_add(self.every.saturating_mul(steps));
        missed
    }
}

/// What does not answer is asked ever more rarely, in the end for a twentieth of the time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    failures: u32,
    until: Duration,
}

/// So many times longer than it took in vain is waited at most: then the asking takes a twentieth.
const REST: u32 = 19;

impl Silence {
    /// Whether it has not answered of late.
    pub(super) fn is_silent(&self) -> bool {
        self.failures > 0
    }

    /// From when on it may be asked again.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// It did not answer, which took `cost`. Gives until when it is left alone.
    pub(super) fn again(&mut self, now: Duration, cost: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let rest = 2_u32.saturating_pow(self.failures).saturating_sub(1).min(REST);
        self.until = now.saturating_add(cost.saturating_mul(rest));
        self.until
    }

    /// It has answered.
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }

    /// It may be asked at once, for there is news; where it stays silent it is left alone for as long as before.
    pub(super) fn is_news(&mut self) {
        self.until = Duration::ZERO;
    }
}

/// How often something has fallen silent of late, so that what comes and goes does not fill the log.
#[derive(Debug, Default)]
pub(super) struct Falls {
    tally: Tally,
    last: Duration,
}

/// What has not fallen silent for so long is news again.
const NEWS: Duration = Duration::from_secs(3600);

impl Falls {
    /// It fell silent. Whether that is worth telling.
    pub(super) fn again(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.last) >= NEWS {
            self.tally = Tally::default();
        }
        self.last = now;
        self.tally.count().is_some()
    }

    /// How often it has fallen silent of late.
    pub(super) fn count(&self) -> u64 {
        self.tally.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    proptest! {
        #[test]
        fn what_is_due_stays_on_its_beat_however_late_it_is_done_and_is_never_made_up_for(
            every in 1_u64..5_000, from in 0_u64..1_000, delays in prop::collection::vec(0_u64..20_000, 1..50),
        ) {
            let mut due = Due::new(ms(every), ms(from));
            let mut beats = 0;
            for delay in delays {
                let now = due.at() + ms(delay);
                beats += 1 + due.done(now);
                prop_assert!(due.at() > now && due.at() <= now + ms(every));
                prop_assert_eq!(due.at(), ms(from + every * beats));
            }
        }

        #[test]
        fn what_stays_silent_takes_a_twentieth_of_the_time_in_the_end(cost in 1_u64..10_000) {
            let (mut silence, mut now, mut asking) = (Silence::default(), Duration::ZERO, Duration::ZERO);
            for _ in 0..1_000 {
                now = now.max(silence.until()) + ms(cost);
                asking += ms(cost);
                silence.again(now, ms(cost));
            }
            prop_assert!(asking.as_secs_f64() / now.as_secs_f64() < 0.051);
        }
    }

    #[test]
    fn the_first_rests_are_short_and_an_answer_ends_them() {
        let mut silence = Silence::default();
        let mut now = ms(0);
        let mut rests = Vec::new();
        for _ in 0..7 {
            let until = silence.again(now, ms(10));
            rests.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(rests, [10, 30, 70, 150, 190, 190, 190]);
        silence.over();
        assert!(!silence.is_silent());
        assert_eq!(silence.again(now, ms(10)), now + ms(10));
    }

    #[test]
    fn what_falls_silent_again_and_again_is_told_ever_more_rarely_and_after_an_hour_anew() {
        let (mut falls, mut now) = (Falls::default(), ms(0));
        let mut told = Vec::new();
        for _ in 0..100 {
            now += NEWS - ms(1);
            told.extend(falls.again(now).then(|| falls.count()));
        }
        assert_eq!(told, [1, 10, 100]);
        assert!(falls.again(now + NEWS) && falls.count() == 1);
    }
}

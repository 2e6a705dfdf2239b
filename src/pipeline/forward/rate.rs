//! How fast a backlog is sent: a token bucket. Pure: the time comes as an argument.

use std::num::NonZeroU32;
use std::time::Duration;

/// How much may be saved up while nothing is sent: a tenth of a second's worth, or one message.
const BURST: Duration = Duration::from_millis(100);

/// Lets so many messages a second go, evenly.
#[derive(Debug)]
pub(super) struct Rate {
    /// What one message costs.
    cost: Duration,
    credit: Duration,
    counted: Duration,
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32, now: Duration) -> Self {
        let cost = (Duration::from_secs(1) / per_second.get()).max(Duration::from_nanos(1));
        Self { cost, credit: cost, counted: now }
    }

    /// How many may go now.
    pub(super) fn ready(&mut self, now: Duration) -> usize {
        self.credit = (self.credit + now.saturating_sub(self.counted)).min(self.cost.max(BURST));
        self.counted = self.counted.max(now);
        usize::try_from(self.credit.as_nanos() / self.cost.as_nanos()).unwrap_or(usize::MAX)
    }

    /// So many of them have gone.
    pub(super) fn spend(&mut self, messages: usize) {
        let spent = self.cost.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX));
        self.credit = self.credit.saturating_sub(spent);
    }

    /// When the next may go, if none may at the time last told.
    pub(super) fn next_at(&self) -> Duration {
        self.counted + self.cost.saturating_sub(self.credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_span_of_time_sees_more_than_the_rate_and_one_burst_and_waiting_gives_the_rate(
            per_second in 1_u32..5_000,
            pauses in prop::collection::vec((0_u64..50_000, 1_usize..100), 1..200),
        ) {
            let mut now = Duration::from_secs(1_000);
            let start = now;
            let mut rate = Rate::new(NonZeroU32::new(per_second).unwrap(), now);
            let mut went = 0_usize;
            let burst = (f64::from(per_second) * BURST.as_secs_f64()).max(1.0);
            for (pause, wanted) in pauses {
                now += Duration::from_micros(pause);
                let mut ready = rate.ready(now);
                if ready == 0 {
                    let next = rate.next_at();
                    prop_assert!(next > now && next <= now + Duration::from_secs(1));
                    now = next;
                    ready = rate.ready(now);
                    prop_assert_eq!(ready, 1, "it may go at the time that was told");
                }
                let goes = ready.min(wanted);
                rate.spend(goes);
                went += goes;
                let most = (now - start).as_secs_f64() * f64::from(per_second) + burst;
                prop_assert!(went as f64 <= most + 1e-6 * most + 1e-6, "{} of {}", went, most);
            }
        }
    }

    #[test]
    fn two_hundred_a_second_are_two_hundred_a_second() {
        let mut now = Duration::ZERO;
        let mut rate = Rate::new(NonZeroU32::new(200).unwrap(), now);
        let mut went = 0;
        while now < Duration::from_secs(10) {
            let ready = rate.ready(now);
            rate.spend(ready);
            went += ready;
            now = rate.next_at();
        }
        assert_eq!(went, 2_000);
    }
}

//! How long to wait before the next try: full jitter under a ceiling that doubles.
//!
//! After <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>: ten thousand gateways that
//! lost one broker must not come back in step.

use std::time::Duration;

/// Waits between tries.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// The least wait: no try follows the last at once.
    pub const FLOOR: Duration = Duration::from_millis(100);

    /// Waits of at most `first`, then at most twice that, and so on up to `cap`. Both are at least
    /// [`Backoff::FLOOR`], and the cap is at least `first`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        let first = first.max(Self::FLOOR);
        Self { first, cap: cap.max(first), ceiling: first }
    }

    /// The next wait: evenly spread from the floor to the present ceiling.
    pub fn wait(&mut self) -> Duration {
        let spread = self.ceiling - Self::FLOOR;
        let wait = Self::FLOOR + spread.mul_f64(fastrand::f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        wait
    }

    /// It went well: the next wait is short again.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_lies_between_the_floor_and_a_ceiling_that_doubles_up_to_the_cap(
            first in 0_u64..10_000, cap in 0_u64..100_000, tries in 1_i32..20,
        ) {
            let (first, cap) = (Duration::from_millis(first), Duration::from_millis(cap));
            let mut backoff = Backoff::new(first, cap);
            let (first, cap) = (first.max(Backoff::FLOOR), cap.max(first).max(Backoff::FLOOR));
            for again in 0..tries {
                let ceiling = first.mul_f64(2_f64.powi(again)).min(cap);
                let wait = backoff.wait();
                prop_assert!(wait >= Backoff::FLOOR && wait <= ceiling, "{:?} of {:?}", wait, ceiling);
            }
            backoff.reset();
            prop_assert!(backoff.wait() <= first);
        }
    }
}

//! When to warn that a certificate ends.

use super::Now;

const DAY: i64 = 86_400;

/// Days left at which a warning is due, and the end itself.
const AT: [i64; 4] = [30, 7, 1, 0];

/// What has been warned of, in this run.
#[derive(Debug, Default)]
pub struct Expiry {
    /// Of which certificate: its last second.
    until: i64,
    /// How many of [`AT`] have passed.
    passed: usize,
}

impl Expiry {
    /// Whether a warning is due that a certificate ends at `until`. Once for each of 30, 7 and 1 days and the end, and
    /// only by a trusted clock. Where several have passed at once, they are one.
    pub fn is_due(&mut self, until: i64, now: Now) -> bool {
        if !now.trusted {
            return false;
        }
        if self.until != until {
            *self = Self { until, passed: 0 };
        }
        let left = until.saturating_sub(now.unix);
        let passed = AT.iter().filter(|days| left <= **days * DAY).count();
        let due = passed > self.passed;
        self.passed = self.passed.max(passed);
        due
    }
}

/// Whole days from `now` to `until`; negative where that has passed.
#[must_use]
pub fn days_left(until: i64, now: Now) -> i64 {
    until.saturating_sub(now.unix).div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: i64 = 1_800_000_000;

    fn days_before(days: i64) -> Now {
        Now { unix: UNTIL - days * DAY, trusted: true }
    }

    #[test]
    fn a_warning_comes_once_at_30_7_and_1_days_and_at_the_end() {
        let mut expiry = Expiry::default();
        let due: Vec<_> = (-2..=40).rev().filter(|days| expiry.is_due(UNTIL, days_before(*days))).collect();
        assert_eq!(due, [30, 7, 1, 0]);
    }

    #[test]
    fn whoever_starts_late_is_warned_once_and_again_after_a_restart() {
        let mut expiry = Expiry::default();
        assert!(expiry.is_due(UNTIL, days_before(5)));
        assert!(!expiry.is_due(UNTIL, days_before(5)) && !expiry.is_due(UNTIL, days_before(2)));
        assert!(expiry.is_due(UNTIL, days_before(1)));
        assert!(Expiry::default().is_due(UNTIL, days_before(5)));
    }

    #[test]
    fn a_clock_that_is_not_trusted_warns_of_nothing_and_spoils_nothing() {
        let mut expiry = Expiry::default();
        assert!(!expiry.is_due(UNTIL, Now { unix: UNTIL + 1, trusted: false }));
        assert!(expiry.is_due(UNTIL, days_before(30)));
    }

    #[test]
    fn a_new_certificate_is_warned_of_anew() {
        let mut expiry = Expiry::default();
        assert!(expiry.is_due(UNTIL, days_before(1)));
        assert!(!expiry.is_due(UNTIL + 365 * DAY, days_before(1)));
        assert!(expiry.is_due(UNTIL + 20 * DAY, days_before(1)));
    }

    #[test]
    fn days_left_are_whole_ones() {
        let at = |unix| days_left(UNTIL, Now { unix, trusted: true });
        assert_eq!((at(UNTIL - DAY), at(UNTIL - DAY + 1), at(UNTIL), at(UNTIL + 1)), (1, 0, 0, -1));
    }
}

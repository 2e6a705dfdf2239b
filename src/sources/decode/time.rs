use serde::Deserialize;

use crate::model::Timestamp;

/// `time_unit`: what a device counts since the start of 1970 (UTC). Never guessed by the size of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// The greatest distance from 1970, in milliseconds: what JSON's readers can hold exactly, 285,000 years. It leaves
/// room for every sum of a time and a duration.
const FARTHEST: i64 = 1 << 53;

impl TimeUnit {
    /// The nearest millisecond to `count`; `None` where that is too far from 1970 to be a time.
    #[must_use]
    pub fn whole(self, count: i64) -> Option<Timestamp> {
        let millis = match self {
            Self::S => count.checked_mul(1_000)?,
            Self::Ms => count,
            Self::Us => count.checked_add(500)?.div_euclid(1_000),
            Self::Ns => count.checked_add(500_000)?.div_euclid(1_000_000),
        };
        (-FARTHEST..=FARTHEST).contains(&millis).then_some(Timestamp(millis))
    }

    /// The nearest millisecond to `count`; `None` where that is too far from 1970 to be a time.
    #[must_use]
    pub fn fractional(self, count: f64) -> Option<Timestamp> {
        let millis = match self {
            Self::S => count * 1e3,
            Self::Ms => count,
            Self::Us => count / 1e3,
            Self::Ns => count / 1e6,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "within 2^53 both are exact"
        )]
        (millis.abs() <= FARTHEST as f64).then(|| Timestamp(millis.round() as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_700_000_000_123;

    #[test]
    fn a_time_is_read_in_its_unit_to_the_nearest_millisecond() {
        assert_eq!(TimeUnit::S.whole(1_700_000_000), Some(Timestamp(1_700_000_000_000)));
        assert_eq!(TimeUnit::Ms.whole(AT), Some(Timestamp(AT)));
        assert_eq!(TimeUnit::Us.whole(1_700_000_000_123_499), Some(Timestamp(AT)));
        assert_eq!(TimeUnit::Ns.whole(1_700_000_000_122_500_000), Some(Timestamp(AT)));
        assert_eq!(TimeUnit::Us.whole(-1_501), Some(Timestamp(-2)));

        assert_eq!(TimeUnit::S.fractional(1_700_000_000.123), Some(Timestamp(AT)));
        assert_eq!(TimeUnit::S.fractional(1_700_000_000.123_4), Some(Timestamp(AT)));
        assert_eq!(TimeUnit::Ms.fractional(1_700_000_000_122.75), Some(Timestamp(AT)));
        assert_eq!(TimeUnit::Us.fractional(1_700_000_000_123_499.0), Some(Timestamp(AT)));
        assert_eq!(TimeUnit::Ns.fractional(1.700_000_000_123e18), Some(Timestamp(AT)));
    }

    #[test]
    fn what_lies_too_far_from_1970_is_no_time() {
        assert_eq!(TimeUnit::Ms.whole(FARTHEST), Some(Timestamp(FARTHEST)));
        assert_eq!(TimeUnit::Ms.whole(-FARTHEST - 1), None);
        assert_eq!(TimeUnit::S.whole(i64::MAX), None);
        assert_eq!(TimeUnit::Ns.whole(i64::MAX), None);
        for count in [1e300, -1e300, f64::NAN, f64::INFINITY] {
            assert_eq!(TimeUnit::S.fractional(count), None, "{count}");
        }
    }
}

use serde::Deserialize;

use super::number::number;
use super::rfc3339;
use crate::model::{Timestamp, Value};

/// `time_unit`: how a device tells the time. Never guessed by the size of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds since the start of 1970 (UTC).
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
    /// Text as in RFC 3339, with its distance from UTC.
    Rfc3339,
}

/// The greatest distance from 1970, in milliseconds: what JSON's readers can hold exactly, 285,000 years. It leaves
/// room for every sum of a time and a duration.
const FARTHEST: i64 = 1 << 53;

impl TimeUnit {
    /// What is wrong with `time` and `time_unit`, which need each other.
    pub(super) fn problem<T>(time: Option<&T>, unit: Option<Self>) -> Option<(&'static str, String)> {
        match (time, unit) {
            (Some(_), None) => Some((
                "decode.time",
                "`time` needs `time_unit` beside it: \"s\", \"ms\", \"us\", \"ns\" or \"rfc3339\"; it is never guessed"
                    .to_owned(),
            )),
            (None, Some(_)) => Some((
                "decode.time_unit",
                "`time_unit` needs `time` beside it: the field that holds the device's time".to_owned(),
            )),
            _ => None,
        }
    }

    /// The time that `value` tells, to the nearest millisecond.
    ///
    /// # Errors
    /// What is wrong with the field that holds it.
    pub(super) fn read(self, value: Value<&str>) -> Result<Timestamp, &'static str> {
        const TOO_FAR: &str = "is too far from 1970: check `time_unit`";
        let time = match (self, value) {
            (Self::Rfc3339, Value::Text(text)) => {
                return rfc3339::read(text)
                    .ok_or("does not hold a time as 2026-01-31T12:00:00+01:00, with its distance from UTC");
            }
            (Self::Rfc3339, _) => return Err("does not hold text: check `time_unit`"),
            (_, Value::Int(count)) => self.whole(count),
            (_, Value::Float(count)) => self.fractional(count),
            (_, Value::Uint(_)) => None,
            (_, Value::Text(text)) if rfc3339::read(text).is_some() => {
                return Err("does not hold a number (`time_unit = \"rfc3339\"`?)");
            }
            (_, Value::Bool(_) | Value::Text(_)) => return Err("does not hold a number"),
        };
        time.ok_or(TOO_FAR)
    }

    /// The time that `text` tells; `None` where it is empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read_text(self, written: &str) -> Result<Option<Timestamp>, &'static str> {
        match (self, written) {
            (_, "") => Ok(None),
            (Self::Rfc3339, _) => self.read(Value::Text(written)).map(Some),
            _ => self.read(number(written).unwrap_or(Value::Text(written))).map(Some),
        }
    }

    /// The nearest millisecond to `count`; `None` where that is too far from 1970 to be a time.
    #[must_use]
    pub fn whole(self, count: i64) -> Option<Timestamp> {
        let millis = match self {
            Self::S => count.checked_mul(1_000)?,
            Self::Ms => count,
            Self::Us => count.checked_add(500)?.div_euclid(1_000),
            Self::Ns => count.checked_add(500_000)?.div_euclid(1_000_000),
            Self::Rfc3339 => return None,
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
            Self::Rfc3339 => return None,
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

    #[test]
    fn text_is_read_as_a_count_or_as_rfc_3339_and_nothing_as_no_time() {
        assert_eq!(TimeUnit::S.read_text("1700000000.123"), Ok(Some(Timestamp(AT))));
        assert_eq!(TimeUnit::Rfc3339.read_text("2023-11-14T22:13:20.123Z"), Ok(Some(Timestamp(AT))));
        assert_eq!(TimeUnit::Ms.read_text(""), Ok(None));
        assert_eq!(TimeUnit::Ms.read_text("soon"), Err("does not hold a number"));
        let meant = "does not hold a number (`time_unit = \"rfc3339\"`?)";
        assert_eq!(TimeUnit::S.read_text("2023-11-14T22:13:20.123Z"), Err(meant));
        assert_eq!(TimeUnit::S.read_text("1e300"), Err("is too far from 1970: check `time_unit`"));
        assert_eq!(TimeUnit::Rfc3339.read(Value::Int(5)), Err("does not hold text: check `time_unit`"));
        assert!(TimeUnit::Rfc3339.read_text("2023-11-14").unwrap_err().contains("distance from UTC"));
    }
}

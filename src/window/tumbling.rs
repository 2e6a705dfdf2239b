use std::time::Duration;

use serde::Deserialize;

use super::group::OPEN_MAX;
use super::{Aggregate, PERIOD_MAX, PERIOD_MIN};
use crate::model::Timestamp;
use crate::units;

/// Windows of one length, side by side, aligned to the period: one of 10 s starts at every full ten seconds of Unix
/// time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The length, in whole milliseconds.
    #[serde(deserialize_with = "units::duration")]
    pub every: Duration,
    /// How long after its end a window still takes readings.
    #[serde(default, deserialize_with = "units::duration")]
    pub lateness: Duration,
    /// What to tell of each series.
    pub aggregates: Vec<Aggregate>,
}

impl Config {
    /// The start of the window that `time` lies in.
    pub(super) fn start_of(&self, time: Timestamp) -> Timestamp {
        Timestamp(time.0.saturating_sub(time.0.rem_euclid(self.period())))
    }

    /// The first millisecond after the window that starts at `start`.
    pub(super) fn end_of(&self, start: Timestamp) -> Timestamp {
        Timestamp(start.0.saturating_add(self.period()))
    }

    /// Up to where windows are closed once time has come to `time`.
    pub(super) fn closed_at(&self, time: Timestamp) -> Timestamp {
        Timestamp(time.0.saturating_sub(millis(self.lateness)))
    }

    fn period(&self) -> i64 {
        millis(self.every).max(1)
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.every < PERIOD_MIN {
            problems.push(("every", format!("`every` must be at least {}", units::show(PERIOD_MIN))));
        }
        if self.every > PERIOD_MAX {
            problems.push(("every", format!("`every` must be at most {}", units::show(PERIOD_MAX))));
        }
        if self.lateness > PERIOD_MAX {
            problems.push(("lateness", format!("`lateness` must be at most {}", units::show(PERIOD_MAX))));
        }
        if !self.every.is_zero()
            && self.lateness.as_millis() / self.every.as_millis().max(1) >= OPEN_MAX as u128 - 2
        {
            problems
                .push(("lateness", format!("`lateness` must be less than {} times `every`", OPEN_MAX - 2)));
        }
        if self.aggregates.is_empty() {
            problems.push(("aggregates", "name at least one aggregate, such as \"mean\"".into()));
        }
        if let Some(twice) =
            self.aggregates.iter().enumerate().find(|(i, a)| self.aggregates[..*i].contains(a))
        {
            problems.push(("aggregates", format!("`{}` is named twice", twice.1.name())));
        }
        problems
    }
}

/// Whole milliseconds of a duration that [`Config::problems`] has bounded.
fn millis(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1000).saturating_add(i64::from(duration.subsec_millis()))
}

use std::time::Duration;

use serde::Deserialize;

use super::{Aggregate, PERIOD_MIN};
use crate::units;

/// Windows of one length, side by side, aligned to the period: one of 10 s starts at every full ten seconds of Unix
/// time.
#[derive(Clone, Debug, Deserialize)]
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
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.every < PERIOD_MIN {
            problems.push(("every", format!("`every` must be at least {}", units::show(PERIOD_MIN))));
        }
        if self.every > Duration::from_secs(366 * 86_400) {
            problems.push(("every", "`every` must be at most a year".into()));
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

//! Windows and aggregate functions. Synchronous, no I/O; the time comes as an argument.

mod aggregate;
mod group;
mod sent;
#[cfg(test)]
mod tests;
mod tumbling;

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::model::Timestamp;
use crate::pattern::Pattern;
use crate::units;

pub use aggregate::Aggregate;
pub use group::{Group, Owner, Taken};
pub use sent::Sent;

/// One `[[windows]]` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its name, unique; by default type and length: `tumbling-10s`.
    pub name: Box<str>,
    /// The series that it is for; the first entry that matches takes a series.
    pub pattern: Pattern,
    /// Whether the readings are passed on beside the windows.
    pub keep_readings: bool,
    /// How time is cut.
    pub shape: Shape,
}

/// How a `[[windows]]` entry cuts time, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Side by side, aligned to the period.
    Tumbling(tumbling::Config),
}

impl Shape {
    /// The values that `type` takes.
    pub const TYPES: &[&str] = &["tumbling"];

    /// Reads the rest of the table of a window whose `type` is `kind`; `None` where there is no such type.
    ///
    /// # Errors
    /// As the deserializer says.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, rest: D) -> Option<Result<Self, D::Error>> {
        Some(match kind {
            "tumbling" => tumbling::Config::deserialize(rest).map(Self::Tumbling),
            _ => return None,
        })
    }

    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Tumbling(config) => config.problems(),
        }
    }

    /// What each of its windows tells of a series.
    #[must_use]
    pub fn aggregates(&self) -> &[Aggregate] {
        match self {
            Self::Tumbling(config) => &config.aggregates,
        }
    }

    /// The start of the window that `time` lies in.
    #[must_use]
    pub fn start_of(&self, time: Timestamp) -> Timestamp {
        match self {
            Self::Tumbling(config) => config.start_of(time),
        }
    }

    /// The first millisecond after the window that starts at `start`.
    #[must_use]
    pub fn end_of(&self, start: Timestamp) -> Timestamp {
        match self {
            Self::Tumbling(config) => config.end_of(start),
        }
    }

    /// Up to where windows are closed once time has come to `time`: `lateness` before it.
    #[must_use]
    pub fn closed_at(&self, time: Timestamp) -> Timestamp {
        match self {
            Self::Tumbling(config) => config.closed_at(time),
        }
    }

    /// How long after its end a window still takes readings.
    #[must_use]
    pub fn lateness(&self) -> Duration {
        match self {
            Self::Tumbling(config) => config.lateness,
        }
    }

    /// After how long a silence of its device a window closes.
    #[must_use]
    pub fn silence(&self) -> Duration {
        match self {
            Self::Tumbling(config) => config.every + config.lateness,
        }
    }

    /// The name that an entry has where the file gives none.
    #[must_use]
    pub fn default_name(&self) -> String {
        match self {
            Self::Tumbling(config) => {
                format!("tumbling-{}", units::show(config.every).to_string().replace(' ', ""))
            }
        }
    }
}

/// The least period of a window.
pub const PERIOD_MIN: Duration = Duration::from_millis(10);

/// The greatest period of a window, and the greatest lateness.
pub const PERIOD_MAX: Duration = Duration::from_secs(366 * 86_400);

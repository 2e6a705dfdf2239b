//! What lets a reading on and what holds it back: an ordered chain. This file is the contract; a file is a filter.
//!
//! Synchronous, no I/O, no clock. A chain is put together once for each series, and keeps that series' state.

mod range;
mod threshold;

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer};

use crate::model::Value;
use crate::pattern::Pattern;

/// One `[[filters]]` entry.
#[derive(Clone, Debug)]
pub struct Config {
    /// The series that it is for.
    pub pattern: Pattern,
    /// What it does.
    pub rule: Rule,
}

/// A `[[filters]]` entry's rule, by its `type`.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Passes what lies within bounds.
    Range(range::Config),
    /// Passes what lies beyond bounds.
    Threshold(threshold::Config),
}

impl Rule {
    /// The values that `type` takes.
    pub const TYPES: &[&str] = &["range", "threshold"];

    /// Reads the rest of the table of a filter whose `type` is `kind`; `None` where there is no such type.
    ///
    /// # Errors
    /// As the deserializer says.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, rest: D) -> Option<Result<Self, D::Error>> {
        Some(match kind {
            "range" => range::Config::deserialize(rest).map(Self::Range),
            "threshold" => threshold::Config::deserialize(rest).map(Self::Threshold),
            _ => return None,
        })
    }

    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Range(config) => config.problems(),
            Self::Threshold(config) => config.problems(),
        }
    }

    fn start(&self) -> State {
        match self {
            Self::Range(config) => State::Range(config.clone()),
            Self::Threshold(config) => State::Threshold(config.clone()),
        }
    }
}

/// One filter's state for one series.
#[derive(Clone, Debug)]
enum State {
    Range(range::Config),
    Threshold(threshold::Config),
}

impl State {
    fn passes(&mut self, value: &Value<&str>) -> bool {
        match self {
            Self::Range(config) => config.passes(value),
            Self::Threshold(config) => config.passes(value),
        }
    }
}

/// How many readings each `[[filters]]` entry held back, in the order of the file.
#[derive(Debug, Default)]
pub struct Stats {
    held_back: Box<[AtomicU64]>,
}

impl Stats {
    /// Counters for `filters` entries.
    #[must_use]
    pub fn new(filters: usize) -> Self {
        Self { held_back: (0..filters).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The counts, in the order of the file.
    pub fn held_back(&self) -> impl Iterator<Item = u64> + '_ {
        self.held_back.iter().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The filters that match one series, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    links: Box<[(usize, State)]>,
}

impl Chain {
    /// The chain of the series `device/metric`.
    #[must_use]
    pub fn of(filters: &[Config], device: &str, metric: &str) -> Self {
        let links = filters.iter().enumerate().filter(|(_, filter)| filter.pattern.matches(device, metric));
        Self { links: links.map(|(index, filter)| (index, filter.rule.start())).collect() }
    }

    /// Whether `value` passes every filter of the chain. The first that holds it back counts it.
    pub fn passes(&mut self, value: &Value<&str>, stats: &Stats) -> bool {
        for (index, state) in &mut self.links {
            if !state.passes(value) {
                if let Some(count) = stats.held_back.get(*index) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(pattern: &str, toml: &str, kind: &str) -> Config {
        let rest: toml::Table = toml.parse().unwrap();
        let rule = Rule::read(kind, rest).unwrap().unwrap();
        Config { pattern: Pattern::try_from(pattern.to_owned()).unwrap(), rule }
    }

    #[test]
    fn a_chain_holds_only_the_filters_that_match_and_counts_at_the_first_that_holds_back() {
        let filters = [
            filter("*/temperature", "min = -40.0\nmax = 125.0", "range"),
            filter("pump/*", "above = 10.0", "threshold"),
            filter("boiler/*", "above = 20.0", "threshold"),
        ];
        let stats = Stats::new(filters.len());
        let mut chain = Chain::of(&filters, "boiler", "temperature");
        assert!(chain.passes(&Value::Float(21.0), &stats));
        assert!(!chain.passes(&Value::Float(126.0), &stats));
        assert!(!chain.passes(&Value::Float(19.0), &stats));
        assert_eq!(stats.held_back().collect::<Vec<_>>(), [1, 0, 1]);

        let mut chain = Chain::of(&filters, "boiler", "pressure");
        assert!(chain.passes(&Value::Float(126.0), &stats));
    }
}

//! What lets a reading on and what holds it back: an ordered chain. This file is the contract; a file is a filter.
//!
//! Synchronous, no I/O, no clock. A chain is put together once for each series, and keeps that series' state.

mod range;
mod threshold;

use serde::{Deserialize, Deserializer};

use crate::model::Value;
use crate::pattern::Pattern;

/// One `[[filters]]` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The series that it is for.
    pub pattern: Pattern,
    /// What it does.
    pub rule: Rule,
}

/// A `[[filters]]` entry's rule, by its `type`.
#[derive(Clone, Debug, PartialEq)]
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

/// The filters that match one series, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    links: Box<[State]>,
}

impl Chain {
    /// The chain of the series `device/metric`.
    #[must_use]
    pub fn of(filters: &[Config], device: &str, metric: &str) -> Self {
        let links = filters.iter().filter(|filter| filter.pattern.matches(device, metric));
        Self { links: links.map(|filter| filter.rule.start()).collect() }
    }

    /// Whether `value` passes every filter of the chain. Those after the first that holds it back do not see it.
    pub fn passes(&mut self, value: &Value<&str>) -> bool {
        self.links.iter_mut().all(|link| link.passes(value))
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
    fn a_chain_holds_only_the_filters_that_match() {
        let filters = [
            filter("*/temperature", "min = -40.0\nmax = 125.0", "range"),
            filter("pump/*", "above = 10.0", "threshold"),
            filter("boiler/*", "above = 20.0", "threshold"),
        ];
        let mut chain = Chain::of(&filters, "boiler", "temperature");
        assert!(chain.passes(&Value::Float(21.0)));
        assert!(!chain.passes(&Value::Float(126.0)));
        assert!(!chain.passes(&Value::Float(19.0)));

        let mut chain = Chain::of(&filters, "boiler", "pressure");
        assert!(chain.passes(&Value::Float(126.0)));
    }
}

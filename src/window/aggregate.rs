//! Aggregate functions: what a window tells of a series. A new one is a variant of each enum here and its arms.

use minicbor::{Decode, Encode};
use serde::Deserialize;

use crate::model::{Timestamp, Value};

/// An aggregate by name. `count`, `first` and `last` take any value, the rest numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// How many readings.
    Count,
    /// Their sum, as the nearest `f64`.
    Sum,
    /// Their arithmetic mean.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The earliest by time; of several at one time the one that arrived first.
    First,
    /// The latest by time; of several at one time the one that arrived last.
    Last,
}

impl Aggregate {
    /// Its name in the configuration and on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
        }
    }

    /// The aggregate of no readings.
    pub(super) fn start(self) -> State {
        match self {
            Self::Count => State::Count(0),
            Self::Sum => State::Sum(None),
            Self::Mean => State::Mean { sum: 0.0, count: 0 },
            Self::Min => State::Min(None),
            Self::Max => State::Max(None),
            Self::First => State::First(None),
            Self::Last => State::Last(None),
        }
    }
}

/// An aggregate at work on one series in one window. It can be saved and resumed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum State {
    #[n(0)]
    Count(#[n(0)] u64),
    #[n(1)]
    Sum(#[n(0)] Option<f64>),
    #[n(2)]
    Mean {
        #[n(0)]
        sum: f64,
        #[n(1)]
        count: u64,
    },
    #[n(3)]
    Min(#[n(0)] Option<f64>),
    #[n(4)]
    Max(#[n(0)] Option<f64>),
    #[n(5)]
    First(#[n(0)] Option<Timed>),
    #[n(6)]
    Last(#[n(0)] Option<Timed>),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Timed {
    #[n(0)]
    time: Timestamp,
    #[n(1)]
    value: Value,
}

impl State {
    /// Takes a reading; false where this aggregate cannot take such a value.
    pub(super) fn add(&mut self, time: Timestamp, value: Value<&str>) -> bool {
        match self {
            Self::Count(count) => *count += 1,
            Self::First(Some(first)) if first.time <= time => {}
            Self::Last(Some(last)) if last.time > time => {}
            Self::First(kept) | Self::Last(kept) => keep(kept, time, value),
            Self::Sum(_) | Self::Mean { .. } | Self::Min(_) | Self::Max(_) => {
                let Some(number) = value.number() else { return false };
                self.add_number(number);
            }
        }
        true
    }

    fn add_number(&mut self, number: f64) {
        match self {
            Self::Sum(sum) => *sum = Some(sum.unwrap_or(0.0) + number),
            Self::Mean { sum, count } => {
                *sum += number;
                *count += 1;
            }
            Self::Min(least) => *least = Some(least.map_or(number, |least| least.min(number))),
            Self::Max(greatest) => *greatest = Some(greatest.map_or(number, |greatest| greatest.max(number))),
            Self::Count(_) | Self::First(_) | Self::Last(_) => {}
        }
    }

    /// What it tells; `None` where it took nothing.
    pub(super) fn result(&self) -> Option<Value> {
        match self {
            Self::Count(count) => Some(Value::Uint(*count)),
            #[expect(clippy::cast_precision_loss, reason = "a window of 2^53 readings is beyond any gateway")]
            Self::Mean { sum, count } => (*count > 0).then(|| Value::Float(sum / *count as f64)),
            Self::Sum(number) | Self::Min(number) | Self::Max(number) => number.map(Value::Float),
            Self::First(kept) | Self::Last(kept) => kept.as_ref().map(|kept| kept.value.clone()),
        }
    }
}

/// Keeps `value`; text goes into the buffer of the text that it replaces where that is long enough.
fn keep(kept: &mut Option<Timed>, time: Timestamp, value: Value<&str>) {
    match kept {
        Some(Timed { time: kept_time, value: Value::Text(kept) }) if value == Value::Text(&**kept) => {
            *kept_time = time
        }
        _ => *kept = Some(Timed { time, value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Aggregate; 7] = [
        Aggregate::Count,
        Aggregate::Sum,
        Aggregate::Mean,
        Aggregate::Min,
        Aggregate::Max,
        Aggregate::First,
        Aggregate::Last,
    ];

    fn over(readings: &[(i64, Value<&str>)]) -> Vec<(&'static str, Option<Value>)> {
        let result = |aggregate: Aggregate| {
            let mut state = aggregate.start();
            for (time, value) in readings {
                state.add(Timestamp(*time), *value);
            }
            (aggregate.name(), state.result())
        };
        ALL.into_iter().map(result).collect()
    }

    #[test]
    fn numbers_are_counted_summed_averaged_and_compared() {
        let readings = [(2, Value::Float(4.0)), (1, Value::Int(-1)), (3, Value::Uint(6))];
        assert_eq!(
            over(&readings),
            [
                ("count", Some(Value::Uint(3))),
                ("sum", Some(Value::Float(9.0))),
                ("mean", Some(Value::Float(3.0))),
                ("min", Some(Value::Float(-1.0))),
                ("max", Some(Value::Float(6.0))),
                ("first", Some(Value::Int(-1))),
                ("last", Some(Value::Uint(6))),
            ]
        );
    }

    #[test]
    fn what_is_no_number_is_counted_and_kept_but_not_calculated_with() {
        let results = over(&[(1, Value::Text("on")), (2, Value::Bool(false))]);
        let told: Vec<_> = results.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        assert_eq!(
            told,
            [("count", Value::Uint(2)), ("first", Value::Text("on".into())), ("last", Value::Bool(false))]
        );
        assert!(!Aggregate::Mean.start().add(Timestamp(1), Value::Bool(true)));
    }

    #[test]
    fn at_one_time_the_first_to_arrive_is_first_and_the_last_to_arrive_is_last() {
        let results = over(&[(1, Value::Int(10)), (1, Value::Int(20))]);
        assert_eq!(results[5].1, Some(Value::Int(10)));
        assert_eq!(results[6].1, Some(Value::Int(20)));
    }
}

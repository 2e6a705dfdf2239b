//! Values at fixed places among the bytes of a frame.

mod place;

use std::fmt::Write;

use serde::Deserialize;

use super::super::excerpt;
use super::field::{self, Field, Meaning, Name, Sink};
use super::{LeftOut, TimeUnit, Undecodable};
use crate::model::{NAME_MAX, Readings, Value};
use place::{Endian, Place};

/// A frame that ends before the last of its places is refused; what stands behind it is passed over.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The order of the bytes where a place does not say it.
    #[serde(default)]
    endian: Endian,
    /// Where the device's name is: text, or a whole number, which is taken as its digits.
    device: Option<Place>,
    /// Where the device's time is.
    time: Option<Place>,
    time_unit: Option<TimeUnit>,
    /// Which values are read: `from` is a place.
    fields: Vec<Field<Place, Name>>,
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        problems.extend(TimeUnit::problem(self.time.as_ref(), self.time_unit));
        problems.extend(field::problems(
            &self.fields.iter().map(Field::<Place, Name>::meaning).collect::<Vec<_>>(),
        ));
        problems
    }

    /// What the last of the places needs.
    pub(super) fn least(&self) -> usize {
        let places = self.device.iter().chain(&self.time).chain(self.fields.iter().map(|field| &field.from));
        places.map(Place::end).max().unwrap_or(0)
    }
}

/// The decoder.
#[derive(Debug)]
pub struct Binary {
    endian: Endian,
    device: Option<Place>,
    time: Option<(Place, TimeUnit)>,
    fields: Box<[(Place, Meaning)]>,
    /// What the last of the places needs.
    length: usize,
    /// The device's name, where it is a number.
    digits: String,
}

impl Binary {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            length: config.least(),
            endian: config.endian,
            device: config.device.clone(),
            time: config.time.clone().zip(config.time_unit),
            fields: config.fields.iter().map(|field| (field.from.clone(), field.meaning())).collect(),
            digits: String::new(),
        }
    }

    /// What of `frame`, which was decoded last, was ignored first.
    pub(super) fn first_ignored(&self, frame: &[u8]) -> Option<String> {
        self.fields.iter().find_map(|(place, meaning)| {
            let value = place.read(frame, self.endian);
            if value.is_some_and(|value| meaning.of(value).is_some()) {
                return None;
            }
            let metric = excerpt::cut(&meaning.metric, NAME_MAX);
            Some(match value {
                Some(Value::Text(written)) => format!("`{metric}` ({place}) is {}", excerpt::quoted(written)),
                Some(Value::Float(number)) => format!("`{metric}` ({place}) is {number}"),
                _ => format!("`{metric}` ({place}) holds nothing that can be read"),
            })
        })
    }

    pub(super) fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let malformed = |what: String| Err(Undecodable::Malformed(what));
        let Self { endian, digits, .. } = self;
        if frame.len() < self.length {
            return malformed(format!(
                "it has {} bytes, and the last field ends with byte {}",
                frame.len(),
                self.length
            ));
        }
        let read = |place: &Place| place.read(frame, *endian);
        let mut named = device;
        if let Some(place) = &self.device {
            digits.clear();
            let written = match read(place) {
                Some(Value::Text(name)) => digits.write_str(name),
                Some(Value::Int(number)) => write!(digits, "{number}"),
                Some(Value::Uint(number)) => write!(digits, "{number}"),
                _ => return malformed(format!("`device` ({place}) holds no text and no whole number")),
            };
            if written.is_ok() && !digits.is_empty() {
                named = digits;
            }
        }
        let mut time = None;
        if let Some((place, unit)) = &self.time {
            let Some(value) = read(place) else {
                return malformed(format!("`time` ({place}) holds nothing that can be read"));
            };
            time = match unit.read(value) {
                Ok(read) => Some(read),
                Err(wrong) => {
                    let found = match value {
                        Value::Text(written) => excerpt::quoted(written),
                        other => format!("{other:?}"),
                    };
                    return malformed(format!("`time` ({place}) {wrong}: it is {found}"));
                }
            };
        }
        let mut sink = Sink::new(named, time, out);
        for (place, meaning) in &self.fields {
            match read(place) {
                Some(value) => sink.value(meaning, value),
                None => sink.nothing(),
            }
        }
        sink.end(|| "none of `fields` holds a number".to_owned())
    }
}

#[cfg(test)]
mod tests;

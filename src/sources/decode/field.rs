//! `fields`: which values of a frame are read, and what they mean. One shape for every decoder:
//! `{ from = …, metric = "temperature", unit = "Cel", scale = 0.1, offset = 0, text = false }`, where `from` is where
//! the value stands, as the decoder says it: a JSON pointer, a column, a key, a group, a place among the bytes.

use std::collections::HashSet;

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

use super::super::excerpt;
use super::super::scale::Scale;
use super::number::number;
use super::{LeftOut, Undecodable};
use crate::model::{NAME_MAX, Reading, Readings, Time, Timestamp, Value, is_name};

/// One of `fields`. `M` is `Name` where a metric has to be named, else `Option<Name>`: it is called as its place is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field<P, M = Option<Name>> {
    pub(super) from: P,
    pub(super) metric: M,
    unit: Option<Box<str>>,
    #[serde(default = "one", deserialize_with = "factor")]
    scale: f64,
    #[serde(default, deserialize_with = "finite")]
    offset: f64,
    /// Whether what is no number is text, rather than left out.
    #[serde(default)]
    text: bool,
}

/// A metric's name, of 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Box<str>")]
pub(super) struct Name(pub(super) Box<str>);

impl TryFrom<Box<str>> for Name {
    type Error = String;

    fn try_from(name: Box<str>) -> Result<Self, String> {
        if is_name(&name) {
            Ok(Self(name))
        } else {
            Err(format!("a metric's name must have 1 to {NAME_MAX} bytes"))
        }
    }
}

pub(super) fn one() -> f64 {
    1.0
}

pub(super) fn factor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let scale = f64::deserialize(deserializer)?;
    sound(scale, Scale { scale, ..Scale::NONE }, "a finite number other than 0")
}

pub(super) fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let offset = f64::deserialize(deserializer)?;
    sound(offset, Scale { offset, ..Scale::NONE }, "a finite number")
}

fn sound<E: Error>(number: f64, scale: Scale, wanted: &str) -> Result<f64, E> {
    match scale.problem("") {
        None => Ok(number),
        Some(_) => Err(E::invalid_value(Unexpected::Float(number), &wanted)),
    }
}

/// What a value of a frame means.
#[derive(Clone, Debug)]
pub(super) struct Meaning {
    pub(super) metric: Box<str>,
    unit: Option<Box<str>>,
    scale: Scale,
    pub(super) text: bool,
}

/// What the value at a place with a name means.
pub(super) type Named = (Box<str>, Meaning);

impl Meaning {
    pub(super) fn new(metric: Box<str>, unit: Option<Box<str>>, scale: f64, offset: f64) -> Self {
        Self { metric, unit, scale: Scale { scale, offset }, text: false }
    }
}

impl Meaning {
    /// What `written` is a reading of; `None` where it is none, as what is empty.
    pub(super) fn of_text<'v>(&self, written: &'v str) -> Option<Value<&'v str>> {
        match self.text {
            true => (!written.is_empty()).then_some(Value::Text(written)),
            false => self.scaled(number(written)?),
        }
    }

    /// What `value` is a reading of; `None` where it is none.
    pub(super) fn of<'v>(&self, value: Value<&'v str>) -> Option<Value<&'v str>> {
        match value {
            Value::Text(written) => self.of_text(written),
            value => self.scaled(value),
        }
    }

    fn scaled<'v>(&self, value: Value<&'v str>) -> Option<Value<&'v str>> {
        match self.scale.apply(value) {
            // Such as the NaN by which a device says that its sensor failed.
            Value::Float(value) if !value.is_finite() => None,
            value => Some(value),
        }
    }
}

/// That what stands at the place called `name` is no reading: what is `written` there, if anything.
pub(super) fn ignored(name: &str, written: Option<&str>) -> String {
    let name = excerpt::cut(name, NAME_MAX);
    match written {
        Some(written) => format!("`{name}` is {}", excerpt::quoted(written)),
        None => format!("`{name}` is missing"),
    }
}

impl<P> Field<P, Name> {
    pub(super) fn meaning(&self) -> Meaning {
        let meaning = Meaning::new(self.metric.0.clone(), self.unit.clone(), self.scale, self.offset);
        Meaning { text: self.text, ..meaning }
    }
}

impl<P: AsRef<str>> Field<P> {
    pub(super) fn meaning(&self) -> Meaning {
        let metric = self.metric.as_ref().map_or(self.from.as_ref(), |name| &name.0);
        let meaning = Meaning::new(metric.into(), self.unit.clone(), self.scale, self.offset);
        Meaning { text: self.text, ..meaning }
    }
}

/// What is wrong across `meanings`, all of one decoder.
pub(super) fn problems(meanings: &[Meaning]) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if meanings.is_empty() {
        let text = "`fields` names no field: name one, or leave it away where it may be";
        problems.push(("decode.fields", text.to_owned()));
    }
    let mut metrics = HashSet::new();
    for meaning in meanings {
        let metric = excerpt::cut(&meaning.metric, NAME_MAX);
        if !metrics.insert(&meaning.metric) {
            let text = format!("`fields` gives two values the metric `{metric}`: name each differently");
            problems.push(("decode.fields", text));
        }
        if !is_name(&meaning.metric) {
            let text =
                format!("one of `fields` needs `metric`: its place is no name of 1 to {NAME_MAX} bytes");
            problems.push(("decode.fields", text));
        }
        if meaning.text && meaning.scale != Scale::NONE {
            let text =
                format!("metric `{metric}` of `fields` is text, which has neither `scale` nor `offset`");
            problems.push(("decode.fields", text));
        }
    }
    problems
}

/// What is wrong where `device` and `time` are the same place.
pub(super) fn apart<T: PartialEq>(device: Option<&T>, time: Option<&T>) -> Option<(&'static str, String)> {
    let same = device.is_some() && device == time;
    same.then(|| ("decode.time", "`time` cannot be what `device` is: name each place once".to_owned()))
}

/// The readings of one frame on their way out. Device and time are known: nothing can go wrong any more but that
/// nothing is found.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    device: &'a str,
    time: Option<Timestamp>,
    out: &'a mut Readings,
    before: usize,
    left_out: LeftOut,
}

impl<'a> Sink<'a> {
    pub(super) fn new(device: &'a str, time: Option<Timestamp>, out: &'a mut Readings) -> Self {
        let before = out.len();
        Self { device, time, out, before, left_out: LeftOut::default() }
    }

    /// The frame does not hold a value that it could hold, or not as a number.
    pub(super) fn nothing(&mut self) {
        self.left_out.ignored += 1;
    }

    /// The frame holds `written` for `meaning`; what is empty is absent.
    pub(super) fn text(&mut self, meaning: &Meaning, written: &str) {
        match meaning.of_text(written) {
            Some(value) => self.push(&meaning.metric, meaning.unit.as_deref(), value),
            None => self.nothing(),
        }
    }

    /// The frame holds `value` for `meaning`.
    pub(super) fn value(&mut self, meaning: &Meaning, value: Value<&str>) {
        match meaning.of(value) {
            Some(value) => self.push(&meaning.metric, meaning.unit.as_deref(), value),
            None => self.nothing(),
        }
    }

    /// The frame holds `written` for the metric `metric`, of which nothing else is known.
    pub(super) fn plain(&mut self, metric: &str, written: &str) {
        match number(written) {
            Some(value) => self.push(metric, None, value),
            None => self.nothing(),
        }
    }

    fn push(&mut self, metric: &str, unit: Option<&str>, value: Value<&str>) {
        if is_name(self.device) && is_name(metric) {
            self.out.push(Reading {
                device: self.device,
                metric,
                value,
                time: self.time.map(Time::At),
                unit,
            });
        } else {
            self.left_out.bad_names += 1;
        }
    }

    /// Ends the frame. `none` says why nothing at all was found in it.
    pub(super) fn end(self, none: impl FnOnce() -> String) -> Result<LeftOut, Undecodable> {
        if self.out.len() == self.before && self.left_out.bad_names == 0 {
            return Err(Undecodable::Malformed(none()));
        }
        self.out.end_frame();
        Ok(self.left_out)
    }
}

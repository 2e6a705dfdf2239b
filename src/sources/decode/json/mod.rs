//! JSON (RFC 8259), in three shapes.

mod fields;
mod pointer;
mod walk;

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::excerpt;
use super::field::{Field, Name as MetricName};
use super::span::{Span, keep};
use super::{FRAME_READINGS, LeftOut, TimeUnit, Undecodable, no_json, too_many, utf8};
use crate::model::{Reading, Readings, Time, Timestamp, Value, is_name};
use pointer::Pointer;

/// One JSON text a frame, in one of three shapes, the first two of which are one object.
///
/// *Flat*: every number or boolean field is a metric of the field's name; text, null and what is nested are counted
/// as ignored. *Long*, where `metric` and `value` are given: those fields hold the metric's name and its value, a
/// number, a boolean or text; further fields are counted as ignored. *By pointers*, where `fields` is given: what lies
/// at each JSON pointer (RFC 6901), as deep as it may be; one that is missing, null, or holds no number is counted as
/// ignored, and what no pointer names is passed over. `device` and `time` are pointers then, too.
///
/// Whole numbers stay whole up to 64 bits; greater ones become the nearest float. A metric that comes twice in a
/// frame gives two readings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The field with the device's name: text, or a whole number, which is taken as its digits. Absent or null in a
    /// frame, the source's `device` holds.
    pub device: Option<Box<str>>,
    /// The field with the metric's name, of the long shape.
    pub metric: Option<Box<str>>,
    /// The field with the value, of the long shape.
    pub value: Option<Box<str>>,
    /// The field with the device's time, a number. Absent or null in a frame, its readings have no time of their
    /// own and are stamped at arrival; where it holds anything else, the frame is refused.
    pub time: Option<Box<str>>,
    /// What `time` counts; required with it.
    pub time_unit: Option<TimeUnit>,
    /// Which values are read, of the shape by pointers.
    fields: Option<Vec<Field<Pointer, MetricName>>>,
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match (&self.metric, &self.value) {
            (Some(_), None) => problems.push((
                "decode.metric",
                "`metric` needs `value` beside it: the field that holds the value; leave both away if every field is a metric"
                    .to_owned(),
            )),
            (None, Some(_)) => problems.push((
                "decode.value",
                "`value` needs `metric` beside it: the field that holds the metric's name; leave both away if every field is a metric"
                    .to_owned(),
            )),
            _ => {}
        }
        problems.extend(TimeUnit::problem(self.time.as_ref(), self.time_unit));
        problems.extend(self.fields.iter().flat_map(|fields| fields::problems(self, fields)));
        let named = [
            ("decode.device", &self.device),
            ("decode.metric", &self.metric),
            ("decode.value", &self.value),
            ("decode.time", &self.time),
        ];
        for (index, (key, field)) in named.iter().enumerate() {
            if let Some(field) = field {
                if named[..index].iter().any(|(_, other)| other.as_ref() == Some(field)) {
                    problems.push((
                        key,
                        format!("field `{field}` already has another meaning: name each field once"),
                    ));
                }
            }
        }
        problems
    }

    /// What the field `name` means; `None` where the configuration does not name it.
    fn role<'a>(&'a self, name: &str) -> Option<Role<'a>> {
        let is = |field: &'a Option<Box<str>>| field.as_deref().filter(|field| *field == name);
        is(&self.device)
            .map(Role::Device)
            .or_else(|| is(&self.time).map(Role::Time))
            .or_else(|| is(&self.metric).map(Role::Metric))
            .or_else(|| is(&self.value).map(Role::Value))
    }
}

/// What a field of the object means. Its name is the configuration's, but for the others, whose names are kept.
enum Role<'a> {
    Device(&'a str),
    Time(&'a str),
    Metric(&'a str),
    Value(&'a str),
    Other(Span),
}

/// The decoder.
#[derive(Debug)]
pub struct Json {
    config: Config,
    object: Object,
    /// In place of `object`, where the configuration has `fields`.
    fields: Option<Box<fields::Fields>>,
}

/// What is gathered of one object before it is known to be whole. Its memory serves frame after frame.
#[derive(Debug, Default)]
struct Object {
    text: String,
    device: Option<Span>,
    time: Option<Timestamp>,
    metric: Option<Span>,
    value: Option<Value<Span>>,
    measured: Vec<(Span, Value<Span>)>,
    ignored: u64,
    /// The first of those that are ignored, and why.
    first_ignored: Option<(Span, &'static str)>,
}

/// So much scratch memory is kept for the next frame; one large frame must not hold its memory for ever.
const KEEP_TEXT: usize = 16 << 10;
const KEEP_MEASURED: usize = 256;

impl Json {
    pub(super) fn new(config: &Config) -> Self {
        let fields = config.fields.as_ref().map(|fields| Box::new(fields::Fields::new(config, fields)));
        Self { config: config.clone(), object: Object::default(), fields }
    }

    pub(super) fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let text = utf8(frame)?;
        let Self { config, object, fields } = self;
        if let Some(fields) = fields {
            return fields.decode(text, device, out);
        }
        object.clear();
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_map(Fields { config, object })
            .and_then(|()| json.end())
            .map_err(|error| malformed(&error))?;
        if let (Some(metric), Some(value)) = (&config.metric, &config.value) {
            let missing = |field| Undecodable::Malformed(format!("it has no field `{field}`"));
            let metric = object.metric.ok_or_else(|| missing(metric))?;
            let value = object.value.ok_or_else(|| missing(value))?;
            object.measured.push((metric, value));
        }
        Ok(object.hand_over(device, out))
    }
}

impl Json {
    /// The first field of the last frame that was ignored, and why. With `fields` that is not known.
    pub(super) fn first_ignored(&self) -> Option<String> {
        let (name, why) = self.object.first_ignored?;
        Some(format!("`{}` {why}", excerpt::cut(self.object.text(name).escape_debug(), 256)))
    }
}

impl Object {
    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEEP_TEXT);
        self.measured.clear();
        self.measured.shrink_to(KEEP_MEASURED);
        (self.device, self.time, self.metric, self.value) = (None, None, None, None);
        (self.ignored, self.first_ignored) = (0, None);
    }

    fn text(&self, span: Span) -> &str {
        span.within(&self.text)
    }

    fn hand_over(&self, device: &str, out: &mut Readings) -> LeftOut {
        let device = self.device.map_or(device, |device| self.text(device));
        let mut left_out = LeftOut { bad_names: 0, ignored: self.ignored };
        for (metric, value) in &self.measured {
            let metric = self.text(*metric);
            if !is_name(device) || !is_name(metric) {
                left_out.bad_names += 1;
                continue;
            }
            let value = value.within(&self.text);
            out.push(Reading { device, metric, value, time: self.time.map(Time::At), unit: None });
        }
        out.end_frame();
        left_out
    }
}

/// Reads the fields of the object, in any order.
struct Fields<'a> {
    config: &'a Config,
    object: &'a mut Object,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { config, object } = self;
        while let Some(role) = map.next_key_seed(Name { config, text: &mut object.text })? {
            let found = map.next_value_seed(Any(&mut object.text))?;
            match role {
                Role::Device(name) => {
                    once(object.device.is_some(), name)?;
                    object.device = found.name(name, &mut object.text)?;
                }
                Role::Metric(name) => {
                    once(object.metric.is_some(), name)?;
                    object.metric = found.name(name, &mut object.text)?;
                }
                Role::Value(name) => {
                    once(object.value.is_some(), name)?;
                    let Found::Value(value) = found else {
                        return Err(wrong(name, "a number, a boolean or text"));
                    };
                    object.value = Some(value);
                }
                Role::Time(name) => {
                    once(object.time.is_some(), name)?;
                    object.time = time(config.time_unit, name, found, &object.text)?;
                }
                Role::Other(name) => {
                    let why = match found {
                        _ if config.metric.is_some() => "is neither `metric` nor `value`",
                        Found::Value(Value::Text(_)) => "holds text",
                        Found::Null => "holds null",
                        Found::Nested => "holds an object or an array",
                        Found::Value(_) if object.measured.len() == FRAME_READINGS => {
                            return Err(A::Error::custom(too_many()));
                        }
                        Found::Value(value) => {
                            object.measured.push((name, value));
                            continue;
                        }
                    };
                    object.ignored += 1;
                    object.first_ignored.get_or_insert((name, why));
                }
            }
        }
        Ok(())
    }
}

/// What the library says of a text that it cannot read: it may quote a string of it whole.
fn malformed(error: &serde_json::Error) -> Undecodable {
    Undecodable::Malformed(excerpt::cut(no_json(error), 256))
}

/// What the field `field` says of the time; `None` for null.
fn time<E: Error>(
    unit: Option<TimeUnit>,
    field: &str,
    found: Found,
    text: &str,
) -> Result<Option<Timestamp>, E> {
    let Some(unit) = unit else { return Ok(None) };
    let value = match found {
        Found::Null => return Ok(None),
        Found::Value(value) => value.within(text),
        // No time either way, and told as such.
        Found::Nested => Value::Bool(false),
    };
    unit.read(value).map(Some).map_err(|wrong| E::custom(format_args!("field `{field}` {wrong}")))
}

fn once<E: Error>(twice: bool, name: &str) -> Result<(), E> {
    if twice { Err(E::custom(format_args!("field `{name}` comes twice"))) } else { Ok(()) }
}

fn wrong<E: Error>(name: &str, expected: &str) -> E {
    E::custom(format_args!("field `{name}` does not hold {expected}"))
}

/// Reads a field's name, and keeps it where it is a metric's.
struct Name<'a, 'c> {
    config: &'c Config,
    text: &'a mut String,
}

impl<'de, 'c> DeserializeSeed<'de> for Name<'_, 'c> {
    type Value = Role<'c>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Role<'c>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'c> Visitor<'_> for Name<'_, 'c> {
    type Value = Role<'c>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Role<'c>, E> {
        Ok(self.config.role(name).unwrap_or_else(|| Role::Other(keep(self.text, name))))
    }
}

/// What a field holds.
enum Found {
    Value(Value<Span>),
    Null,
    /// An array or an object.
    Nested,
}

impl Found {
    /// The name that the field `field` holds, kept in `text`; `None` for null.
    fn name<E: Error>(self, field: &str, text: &mut String) -> Result<Option<Span>, E> {
        let digits = match self {
            Self::Null => return Ok(None),
            Self::Value(Value::Text(name)) => return Ok(Some(name)),
            Self::Value(Value::Int(number)) => number.to_string(),
            Self::Value(Value::Uint(number)) => number.to_string(),
            _ => return Err(wrong(field, "text or a whole number")),
        };
        Ok(Some(keep(text, &digits)))
    }
}

/// Reads whatever a field holds.
struct Any<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(Found::Value(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Found, E> {
        Ok(Found::Value(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        Ok(Found::Value(i64::try_from(value).map_or(Value::Uint(value), Value::Int)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Found, E> {
        Ok(Found::Value(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Found, E> {
        Ok(Found::Value(Value::Text(keep(self.0, value))))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Nested)
    }
}

#[cfg(test)]
mod tests;

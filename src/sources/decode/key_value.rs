//! Pairs of a key and a value: `t=21.5 h=40`.

use std::ops::Range;

use serde::{Deserialize, Deserializer};

use super::super::excerpt;
use super::field::{self, Field, Named, Sink};
use super::{LeftOut, TimeUnit, Undecodable, number, utf8};
use crate::model::Readings;

/// A line of pairs a frame. Blanks around keys and values are no part of them. Without `fields` every key whose value
/// is a number is a metric of the key's name, and what is no pair is counted as ignored. A key that comes twice gives
/// two readings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What stands between two pairs; a blank stands for any number of blanks.
    #[serde(default = "blank", deserialize_with = "not_empty")]
    separator: Box<str>,
    /// What stands between a key and its value.
    #[serde(default = "equals", deserialize_with = "not_empty")]
    assign: Box<str>,
    /// The key of the device's name.
    device: Option<Box<str>>,
    /// The key of the device's time.
    time: Option<Box<str>>,
    time_unit: Option<TimeUnit>,
    /// Which values are read: `from` is a key.
    fields: Option<Vec<Field<Box<str>>>>,
}

fn blank() -> Box<str> {
    " ".into()
}

fn equals() -> Box<str> {
    "=".into()
}

fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let text = Box::<str>::deserialize(deserializer)?;
    if text.is_empty() { Err(serde::de::Error::custom("what separates cannot be empty")) } else { Ok(text) }
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.separator == self.assign {
            let text = "`assign` cannot be what `separator` is: pairs could not be told from their parts";
            problems.push(("decode.assign", text.to_owned()));
        }
        problems.extend(TimeUnit::problem(self.time.as_ref(), self.time_unit));
        problems.extend(field::apart(self.device.as_ref(), self.time.as_ref()));
        problems.extend(self.fields.iter().flat_map(|fields| {
            field::problems(&fields.iter().map(Field::<Box<str>>::meaning).collect::<Vec<_>>())
        }));
        problems
    }
}

/// The decoder.
#[derive(Debug)]
pub struct KeyValue {
    config: Config,
    fields: Option<Box<[Named]>>,
    pairs: Pairs,
}

/// Where in a frame its keys and values stand. Its memory serves frame after frame.
#[derive(Debug, Default)]
struct Pairs {
    pairs: Vec<(Range<usize>, Range<usize>)>,
    /// What is no pair.
    others: u64,
    /// The first of these.
    other: Option<Range<usize>>,
}

/// The most pairs of a frame.
const PAIRS_MAX: usize = 1024;

impl KeyValue {
    pub(super) fn new(config: &Config) -> Self {
        let own = |field: &Field<Box<str>>| (field.from.clone(), field.meaning());
        let fields = config.fields.as_ref().map(|fields| fields.iter().map(own).collect());
        Self { config: config.clone(), fields, pairs: Pairs::default() }
    }

    pub(super) fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let text = utf8(frame)?;
        let Self { config, fields, pairs } = self;
        pairs.split(text, &config.separator, &config.assign).map_err(Undecodable::Malformed)?;
        let named = pairs.once(text, config.device.as_deref())?.filter(|named| !named.is_empty());
        let mut time = None;
        if let (Some(written), Some(unit)) = (pairs.once(text, config.time.as_deref())?, config.time_unit) {
            time = unit.read_text(written).map_err(|wrong| {
                let key = config.time.as_deref().unwrap_or_default();
                Undecodable::Malformed(format!("`{key}` {wrong}: it is {}", excerpt::quoted(written)))
            })?;
        }
        let mut sink = Sink::new(named.unwrap_or(device), time, out);
        match fields {
            Some(fields) => {
                for (key, meaning) in &*fields {
                    let mut absent = true;
                    for (_, value) in pairs.of(text).filter(|(found, _)| *found == &**key) {
                        sink.text(meaning, value);
                        absent = false;
                    }
                    if absent {
                        sink.nothing();
                    }
                }
            }
            None => {
                let role =
                    |key| [&config.device, &config.time].iter().any(|role| role.as_deref() == Some(key));
                for (key, value) in pairs.of(text).filter(|(key, _)| !role(key)) {
                    sink.plain(key, value);
                }
                (0..pairs.others).for_each(|_| sink.nothing());
            }
        }
        sink.end(|| {
            let first = fields.as_ref().and_then(|fields| fields.first());
            match first.map(|(key, _)| (key, pairs.of(text).find(|(found, _)| *found == &**key))) {
                Some((key, Some((_, value)))) => {
                    format!("no key of `fields` has a number: `{key}` is {}", excerpt::quoted(value))
                }
                Some((key, None)) => format!("no key of `fields` has a number: the first is `{key}`"),
                None => format!("no key has a number behind {:?}", config.assign),
            }
        })
    }
}

impl KeyValue {
    /// What of the frame `text`, which was decoded last, was ignored first.
    pub(super) fn first_ignored(&self, text: &str) -> Option<String> {
        let Self { config, fields, pairs } = self;
        if let Some(fields) = fields {
            return fields.iter().find_map(|(key, meaning)| {
                let mut values = pairs.of(text).filter(|(found, _)| *found == &**key).peekable();
                if values.peek().is_none() {
                    return Some(field::ignored(key, None));
                }
                let (_, value) = values.find(|(_, value)| meaning.of_text(value).is_none())?;
                Some(field::ignored(key, Some(value)))
            });
        }
        let is_role = |key| [&config.device, &config.time].iter().any(|role| role.as_deref() == Some(key));
        let mut others = pairs.of(text).filter(|(key, value)| !is_role(*key) && number(value).is_none());
        if let Some((key, value)) = others.next() {
            return Some(field::ignored(key, Some(value)));
        }
        let other = text.get(pairs.other.clone()?)?.trim_ascii();
        Some(format!("{} has no {:?}", excerpt::quoted(other), config.assign))
    }
}

impl Pairs {
    fn split(&mut self, text: &str, separator: &str, assign: &str) -> Result<(), String> {
        self.pairs.clear();
        (self.others, self.other) = (0, None);
        let blank = separator.trim_ascii().is_empty();
        let mut start = 0;
        while start < text.len() {
            let rest = text.get(start..).unwrap_or_default();
            let length =
                if blank { rest.find(|c: char| c.is_ascii_whitespace()) } else { rest.find(separator) };
            let length = length.unwrap_or(rest.len());
            let pair = rest.get(..length).unwrap_or_default();
            if let Some(at) = pair.find(assign) {
                if self.pairs.len() == PAIRS_MAX {
                    return Err(format!("it has over {PAIRS_MAX} pairs"));
                }
                let value = start + at + assign.len();
                self.pairs.push((trim(text, start..start + at), trim(text, value..start + length)));
            } else if !pair.trim_ascii().is_empty() {
                self.others += 1;
                self.other.get_or_insert(start..start + length);
            }
            start += length + if blank { 1 } else { separator.len() };
        }
        Ok(())
    }

    /// The pairs of the frame `text`, which was split last.
    fn of<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let piece = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
        self.pairs.iter().map(move |(key, value)| (piece(key), piece(value)))
    }

    /// The value of a key that may come once.
    fn once<'a>(&'a self, text: &'a str, key: Option<&str>) -> Result<Option<&'a str>, Undecodable> {
        let Some(key) = key else { return Ok(None) };
        let mut values = self.of(text).filter(|(found, _)| *found == key).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Undecodable::Malformed(format!("`{key}` comes twice"))),
        }
    }
}

/// `range` of `text` without the blanks at its ends.
fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let piece = text.get(range.clone()).unwrap_or_default().trim_ascii_start();
    let start = range.end - piece.len();
    start..start + piece.trim_ascii_end().len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{found, one, problems};
    use super::*;
    use crate::model::Value;

    #[test]
    fn every_key_whose_value_is_a_number_is_a_metric() {
        let (readings, left_out) =
            one("type = 'key_value'", "t=21.5  h=40\ton=true state=ok v= hello t=22\r\n").unwrap();
        let values = [
            ("t", Value::Float(21.5)),
            ("h", Value::Int(40)),
            ("on", Value::Bool(true)),
            ("t", Value::Int(22)),
        ];
        assert_eq!(readings, values.map(|(metric, value)| found("here", metric, value, None)));
        assert_eq!(left_out, LeftOut { bad_names: 0, ignored: 3 });
    }

    #[test]
    fn separators_may_be_others_and_blanks_are_no_part_of_a_value() {
        let toml = "type = 'key_value'\nseparator = ';'\nassign = ': '";
        let (readings, left_out) = one(toml, "Air temp: 21.5 ; ; Humidity :  40;").unwrap();
        let expected = [
            found("here", "Air temp", Value::Float(21.5), None),
            found("here", "Humidity", Value::Int(40), None),
        ];
        assert_eq!((readings.as_slice(), left_out), (&expected[..], LeftOut::default()));
    }

    const FIELDS: &str = "type = 'key_value'\nseparator = ','\ndevice = 'id'\ntime = 'at'\ntime_unit = 'ms'\nfields = [\
        { from = 't', metric = 'temperature', scale = 0.1 }, { from = 'h' }, { from = 's', text = true }]";

    #[test]
    fn with_fields_only_those_are_read_and_those_missing_are_counted() {
        let (readings, left_out) = one(FIELDS, "x=1,t=215,id=b1,s=open,at=1700000000000").unwrap();
        let at = Some(1_700_000_000_000);
        let expected = [
            found("b1", "temperature", Value::Float(21.5), at),
            found("b1", "s", Value::Text("open".into()), at),
        ];
        assert_eq!(readings, expected);
        assert_eq!(left_out.ignored, 1);
    }

    #[test]
    fn a_frame_that_cannot_be_read_is_refused_with_what_it_held() {
        for (frame, reason) in [
            ("t=ERR,h=", "no key of `fields` has a number: `t` is \"ERR\""),
            ("x=1", "no key of `fields` has a number: the first is `t`"),
            ("", "no key of `fields` has a number: the first is `t`"),
            ("t=1,at=noon", "`at` does not hold a number: it is \"noon\""),
            ("t=1,id=a,id=b", "`id` comes twice"),
        ] {
            assert_eq!(one(FIELDS, frame).unwrap_err(), reason, "{frame}");
        }
        assert_eq!(one("type = 'key_value'", "hello").unwrap_err(), "no key has a number behind \"=\"");
        let many = "a=1 ".repeat(PAIRS_MAX + 1);
        assert_eq!(one("type = 'key_value'", many).unwrap_err(), "it has over 1024 pairs");
    }

    #[test]
    fn separators_that_cannot_work_are_told() {
        assert_eq!(problems("type = 'key_value'\nseparator = '='"), ["decode.assign"]);
        assert_eq!(problems("type = 'key_value'\ntime_unit = 's'"), ["decode.time_unit"]);
        assert!(toml::from_str::<Config>("separator = ''").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pairs in proptest::collection::vec(("[a-zäö]{1,5}", any::<i64>()), 1..9)) {
            let line = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
            let expected: Vec<_> = pairs.iter().map(|(key, value)| found("here", key, Value::Int(*value), None)).collect();
            prop_assert_eq!(one("type = 'key_value'", line).unwrap().0, expected);
        }
    }
}

//! What the named groups of a regular expression find.

use serde::Deserialize;

use super::super::excerpt;
use super::field::{self, Field, Meaning, Sink};
use super::{LeftOut, TimeUnit, Undecodable, utf8};
use crate::model::Readings;

/// The expression is looked for anywhere in a frame, once; `^` and `$` tie it to the ends. Without `fields` every
/// named group that finds a number is a metric of the group's name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pattern: Pattern,
    /// The group of the device's name.
    device: Option<Box<str>>,
    /// The group of the device's time.
    time: Option<Box<str>>,
    time_unit: Option<TimeUnit>,
    /// Which groups are read: `from` is a group's name.
    fields: Option<Vec<Field<Box<str>>>>,
}

/// A regular expression. Its classes (`\d`, `\w`) are ASCII.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Box<str>")]
struct Pattern(regex_lite::Regex);

/// The time for a frame grows with its length times the size of the compiled expression. Both are bounded, so that no
/// frame holds up the others for long.
const PATTERN_MAX: usize = 32 << 10;
const FRAME_MAX: usize = 8 << 10;

impl TryFrom<Box<str>> for Pattern {
    type Error = String;

    fn try_from(pattern: Box<str>) -> Result<Self, String> {
        let regex = regex_lite::RegexBuilder::new(&pattern).size_limit(PATTERN_MAX).build();
        regex.map(Self).map_err(|error| format!("no regular expression that can be used: {error}"))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Pattern {
    /// The named groups, with their numbers.
    fn groups(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.capture_names().enumerate().filter_map(|(number, name)| Some((number, name?)))
    }

    fn group(&self, name: &str) -> Option<usize> {
        self.groups().find(|(_, group)| *group == name).map(|(number, _)| number)
    }
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        problems.extend(TimeUnit::problem(self.time.as_ref(), self.time_unit));
        problems.extend(field::apart(self.device.as_ref(), self.time.as_ref()));
        problems.extend(self.fields.iter().flat_map(|fields| {
            field::problems(&fields.iter().map(Field::<Box<str>>::meaning).collect::<Vec<_>>())
        }));
        let named = [("decode.device", self.device.as_deref()), ("decode.time", self.time.as_deref())];
        let fields = self.fields.iter().flatten().map(|field| ("decode.fields", Some(&*field.from)));
        for (key, name) in named.into_iter().chain(fields) {
            let Some(name) = name.filter(|name| self.pattern.group(name).is_none()) else { continue };
            let text = format!("`pattern` has no group `{name}`: write it as (?<{name}>…)");
            problems.push((key, text));
        }
        let roles = [&self.device, &self.time];
        let is_role = |name: &str| roles.iter().any(|role| role.as_deref() == Some(name));
        if self.fields.is_none() && self.pattern.groups().all(|(_, name)| is_role(name)) {
            let text = "`pattern` has no named group to read a value from: write it as (?<temperature>…)";
            problems.push(("decode.pattern", text.to_owned()));
        }
        problems
    }
}

/// The decoder.
#[derive(Debug)]
pub struct Regex {
    regex: regex_lite::Regex,
    /// Where the groups were found in the frame at hand.
    found: regex_lite::CaptureLocations,
    device: Option<usize>,
    time: Option<(usize, Box<str>, TimeUnit)>,
    /// Each group that is read.
    groups: Box<[(usize, Meaning)]>,
}

impl Regex {
    pub(super) fn new(config: &Config) -> Self {
        let group = |name: &str| config.pattern.group(name);
        let device = config.device.as_deref().and_then(group);
        let time = config.time.as_ref().zip(config.time_unit);
        let time = time.and_then(|(name, unit)| Some((group(name)?, name.clone(), unit)));
        let groups = match &config.fields {
            Some(fields) => {
                fields.iter().filter_map(|field| Some((group(&field.from)?, field.meaning()))).collect()
            }
            None => {
                let roles = [device, time.as_ref().map(|(number, ..)| *number)];
                let others = config.pattern.groups().filter(|(number, _)| !roles.contains(&Some(*number)));
                others.map(|(number, name)| (number, Meaning::new(name.into(), None, 1.0, 0.0))).collect()
            }
        };
        let regex = config.pattern.0.clone();
        Self { found: regex.capture_locations(), regex, device, time, groups }
    }

    /// What of the frame `text`, which was decoded last, was ignored first.
    pub(super) fn first_ignored(&self, text: &str) -> Option<String> {
        let found = |group: usize| {
            let (start, end) = self.found.get(group)?;
            text.get(start..end).map(str::trim_ascii)
        };
        let is_ignored = |meaning: &Meaning, written: Option<&str>| {
            written.is_none_or(|written| meaning.of_text(written).is_none())
        };
        let (group, meaning) =
            self.groups.iter().find(|(group, meaning)| is_ignored(meaning, found(*group)))?;
        Some(field::ignored(&meaning.metric, found(*group)))
    }

    pub(super) fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let malformed = |what: String| Err(Undecodable::Malformed(what));
        let text = utf8(frame)?;
        if text.len() > FRAME_MAX {
            return malformed(format!(
                "it is longer than the {FRAME_MAX} bytes that `pattern` is looked for in"
            ));
        }
        if self.regex.captures_read(&mut self.found, text).is_none() {
            return malformed("`pattern` does not match it".to_owned());
        }
        let found = |group: usize| {
            let (start, end) = self.found.get(group)?;
            text.get(start..end)
        };
        let named = self.device.and_then(found).filter(|named| !named.is_empty());
        let mut time = None;
        if let Some((group, name, unit)) = &self.time {
            let written = found(*group).unwrap_or_default();
            time = match unit.read_text(written) {
                Ok(time) => time,
                Err(wrong) => {
                    return malformed(format!("group `{name}` {wrong}: it is {}", excerpt::quoted(written)));
                }
            };
        }
        let mut sink = Sink::new(named.unwrap_or(device), time, out);
        for (group, meaning) in &self.groups {
            match found(*group) {
                Some(written) => sink.text(meaning, written.trim_ascii()),
                None => sink.nothing(),
            }
        }
        sink.end(|| {
            let first = self.groups.first().and_then(|(group, _)| found(*group)).unwrap_or_default();
            format!("no group of `pattern` finds a number: the first finds {}", excerpt::quoted(first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, one, problems};
    use super::*;
    use crate::model::Value;

    #[test]
    fn named_groups_that_find_numbers_are_metrics() {
        let toml = r"
            type = 'regex'
            pattern = '^(?<id>\w+): T=(?<temperature>\S+) C(?:, RH=(?<humidity>\S+) %)?'
            device = 'id'
        ";
        let (readings, left_out) = one(toml, "b1: T=-21.5 C, RH=40 %").unwrap();
        let expected = [
            found("b1", "temperature", Value::Float(-21.5), None),
            found("b1", "humidity", Value::Int(40), None),
        ];
        assert_eq!((readings.as_slice(), left_out), (&expected[..], LeftOut::default()));
        assert_eq!(one(toml, "b1: T=nan C, RH=40 %").unwrap().1.ignored, 1);
        assert_eq!(one(toml, "b1: T=20 C").unwrap().1.ignored, 1);
        assert_eq!(one(toml, "b1: off").unwrap_err(), "`pattern` does not match it");
        assert_eq!(
            one(toml, "b1: T=nan C").unwrap_err(),
            "no group of `pattern` finds a number: the first finds \"nan\""
        );
    }

    #[test]
    fn fields_say_what_a_group_means() {
        let toml = r"
            type = 'regex'
            pattern = '(?<at>\d+) (?<t>\d+) (?<s>\w+)'
            time = 'at'
            time_unit = 's'
            fields = [{ from = 't', metric = 'temperature', scale = 0.1 }, { from = 's', text = true }]
        ";
        let at = Some(1_700_000_000_000);
        let expected = [
            found("here", "temperature", Value::Float(21.5), at),
            found("here", "s", Value::Text("open".into()), at),
        ];
        assert_eq!(one(toml, ">> 1700000000 215 open").unwrap().0, expected);
        let error = one(toml, "99999999999999999999 215 open").unwrap_err();
        assert!(error.starts_with("group `at` is too far from 1970"), "{error}");
    }

    #[test]
    fn what_would_take_long_is_refused() {
        let long = "1 ".repeat(FRAME_MAX);
        assert!(one("type = 'regex'\npattern = '(?<a>1)$'", long).unwrap_err().contains("longer than"));
        let error = Pattern::try_from(Box::from("(?<a>[a-z]{1000}){1000}")).unwrap_err();
        assert!(error.contains("no regular expression"), "{error}");
    }

    #[test]
    fn a_pattern_that_cannot_work_is_told() {
        for (toml, key) in [
            (r"pattern = '(\d+)'", "decode.pattern"),
            ("pattern = '(?<a>1)'\ndevice = 'a'", "decode.pattern"),
            ("pattern = '(?<a>1)'\ndevice = 'b'", "decode.device"),
            ("pattern = '(?<a>1)'\ntime = 'b'\ntime_unit = 's'", "decode.time"),
            ("pattern = '(?<a>1)'\nfields = [{ from = 'b' }]", "decode.fields"),
        ] {
            assert_eq!(problems(&format!("type = 'regex'\n{toml}")), [key], "{toml}");
        }
        let error = toml::from_str::<Config>("pattern = '(?<a>1'").unwrap_err().to_string();
        assert!(error.contains("no regular expression"), "{error}");
    }
}

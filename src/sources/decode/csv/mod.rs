//! Comma-separated values (RFC 4180), a line a frame.
//!
//! What a column is called says either `columns`, or a header: the first line of each stream. A header is known by the
//! names in it that `fields`, `device` and `time` need; where none of these is given, by holding no number. It is
//! known again when a device starts anew, and one that has changed takes over.

mod cells;
mod header;

use std::collections::HashSet;
use std::sync::Arc;

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

use super::super::excerpt;
use super::field::{self, Field, Named, Sink};
use super::{LeftOut, TimeUnit, Undecodable, number, utf8};
use crate::model::{NAME_MAX, Readings, is_name};
use cells::Cells;
use header::{Header, Names};

/// Blanks around what stands without quotes are no part of it. Without `fields` every column that holds a number is a
/// metric of the column's name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What stands between two columns: one ASCII character.
    #[serde(default = "comma", deserialize_with = "separator")]
    separator: u8,
    /// The columns' names, in order, of devices that send no header; one without a name is passed over.
    columns: Option<Box<[Box<str>]>>,
    /// The column with the device's name.
    device: Option<Box<str>>,
    /// The column with the device's time; where it is empty, the line is stamped at arrival.
    time: Option<Box<str>>,
    time_unit: Option<TimeUnit>,
    /// Which columns are read: `from` is a column's name.
    fields: Option<Vec<Field<Box<str>>>>,
}

fn comma() -> u8 {
    b','
}

fn separator<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let separator = char::deserialize(deserializer)?;
    match u8::try_from(separator) {
        Ok(byte) if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(byte),
        _ => Err(D::Error::invalid_value(
            Unexpected::Char(separator),
            &"an ASCII character other than a quote",
        )),
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
        let Some(columns) = &self.columns else { return problems };
        if columns.len() > cells::COLUMNS_MAX {
            problems.push(("decode.columns", format!("`columns` are over {}", cells::COLUMNS_MAX)));
            return problems;
        }
        if columns.is_empty() {
            let text = "`columns` names no column: name each, or leave it away where devices send a header";
            problems.push(("decode.columns", text.to_owned()));
            return problems;
        }
        let mut names = HashSet::new();
        for name in columns.iter().filter(|name| !name.is_empty()) {
            let shown = excerpt::cut(name, NAME_MAX);
            if !names.insert(name) {
                problems.push(("decode.columns", format!("`columns` has `{shown}` twice")));
            }
            if !is_name(name) {
                problems.push((
                    "decode.columns",
                    format!("one of `columns` is no name of 1 to {NAME_MAX} bytes: `{shown}`"),
                ));
            }
        }
        let missing = |name: &str| format!("`columns` has no column `{}`", excerpt::cut(name, NAME_MAX));
        for (key, name) in [("decode.device", &self.device), ("decode.time", &self.time)] {
            problems.extend(
                name.as_ref().filter(|name| !columns.contains(name)).map(|name| (key, missing(name))),
            );
        }
        let mut fields = self.fields.iter().flatten().filter(|field| !columns.contains(&field.from));
        problems.extend(fields.next().map(|field| ("decode.fields", missing(&field.from))));
        problems
    }
}

/// The decoder.
#[derive(Debug)]
pub struct Csv {
    separator: u8,
    device: Option<Box<str>>,
    time: Option<(Box<str>, TimeUnit)>,
    fields: Option<Box<[Named]>>,
    columns: Option<Shared>,
    /// The latest header: the devices of one listener mostly send the same.
    latest: Option<Shared>,
    cells: Cells,
}

/// A header that streams may have in common.
pub(super) type Shared = Arc<Header>;

/// What to do where a header is waited for in vain: a reader that comes later than the only one never sees it.
const NO_HEADER: &str = "give `columns` if the device sends its header only when it starts";

/// The largest header: how many bytes a stream keeps of it.
const HEADER_MAX: usize = 4096;

impl Csv {
    pub(super) fn new(config: &Config) -> Self {
        let own = |field: &Field<Box<str>>| (field.from.clone(), field.meaning());
        let mut csv = Self {
            separator: config.separator,
            device: config.device.clone(),
            time: config.time.clone().zip(config.time_unit),
            fields: config.fields.as_ref().map(|fields| fields.iter().map(own).collect()),
            columns: None,
            latest: None,
            cells: Cells::default(),
        };
        csv.columns = config
            .columns
            .as_ref()
            .and_then(|names| csv.header(names.iter().map(|name| &**name)).ok())
            .map(Arc::new);
        csv
    }

    pub(super) fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        header: &mut Option<Shared>,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let text = utf8(frame)?;
        self.cells.split(text, self.separator).map_err(Undecodable::Malformed)?;
        let Some(known) = header.as_ref().or(self.columns.as_ref()) else {
            *header = Some(self.learn(text).map_err(Undecodable::Malformed)?);
            return Ok(LeftOut::default());
        };
        if self.is(known, text) {
            return Ok(LeftOut::default());
        }
        let read = self.line(known, text, device, out);
        // A header where a line of values should be: the device has started anew, and sends other columns.
        if read.is_err() && self.names_something() {
            if let Ok(learnt) = self.learn(text) {
                *header = Some(learnt);
                return Ok(LeftOut::default());
            }
        }
        read
    }

    fn line(
        &self,
        header: &Header,
        text: &str,
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let malformed = |what| Err(Undecodable::Malformed(what));
        let (has, needs) = (self.cells.len(), header.columns);
        if has != needs {
            return malformed(format!("it has {has} columns where {needs} are named"));
        }
        let cell = |column: u16| self.cells.get(text, column.into());
        let named = header.device.map(cell).filter(|named| !named.is_empty());
        let mut time = None;
        if let (Some(column), Some((name, unit))) = (header.time, &self.time) {
            time = match unit.read_text(cell(column)) {
                Ok(time) => time,
                Err(wrong) => {
                    return malformed(format!(
                        "column `{name}` {wrong}: it is {}",
                        excerpt::quoted(cell(column))
                    ));
                }
            };
        }
        let mut sink = Sink::new(named.unwrap_or(device), time, out);
        match &header.names {
            Names::Needed { fields: columns, .. } => {
                let fields = self.fields.as_deref().unwrap_or_default();
                for ((_, meaning), column) in fields.iter().zip(columns) {
                    sink.text(meaning, cell(*column));
                }
                sink.end(|| match (fields.first(), columns.first()) {
                    (Some((name, _)), Some(column)) => {
                        format!(
                            "no column of `fields` holds a number: `{name}` is {}",
                            excerpt::quoted(cell(*column))
                        )
                    }
                    _ => "`fields` names no column".to_owned(),
                })
            }
            Names::All(names) => {
                for (column, name) in (0..).zip(names.iter()) {
                    if !name.is_empty() && ![header.device, header.time].contains(&Some(column)) {
                        sink.plain(name, cell(column));
                    }
                }
                sink.end(|| "no column holds a number".to_owned())
            }
        }
    }

    /// What of the line `text`, which was decoded last, was ignored first.
    pub(super) fn first_ignored(&self, text: &str, header: Option<&Shared>) -> Option<String> {
        let header = header.or(self.columns.as_ref())?;
        let cell = |column: u16| self.cells.get(text, column.into());
        let (name, column) = match &header.names {
            Names::Needed { fields: columns, .. } => {
                let mut fields = self.fields.iter().flatten().zip(columns);
                let ((name, _), column) =
                    fields.find(|((_, meaning), column)| meaning.of_text(cell(**column)).is_none())?;
                (&**name, *column)
            }
            Names::All(names) => {
                (0..).zip(names.iter()).map(|(column, name)| (name, column)).find(|(name, column)| {
                    let is_role = [header.device, header.time].contains(&Some(*column));
                    !name.is_empty() && !is_role && number(cell(*column)).is_none()
                })?
            }
        };
        Some(field::ignored(name, Some(cell(column))))
    }

    /// Whether the line at hand is `header` itself.
    fn is(&self, header: &Header, text: &str) -> bool {
        if self.cells.len() != header.columns {
            return false;
        }
        match &header.names {
            Names::All(names) => names.iter().eq(self.cells(text)),
            Names::Needed { fields, mark } => {
                // The first of them tells most lines of values apart.
                let first = self.fields.iter().flatten().zip(fields).next();
                first.is_none_or(|((name, _), column)| self.cells.get(text, (*column).into()) == &**name)
                    && header::mark(self.cells(text)) == *mark
            }
        }
    }

    /// Takes the line at hand for a header, where it is one.
    fn learn(&mut self, text: &str) -> Result<Shared, String> {
        if let Some(latest) = self.latest.as_ref().filter(|latest| self.is(latest, text)) {
            return Ok(latest.clone());
        }
        if !self.names_something() && self.cells(text).any(|name| name.is_empty() || number(name).is_some()) {
            return Err(format!(
                "a header is waited for, and this line has a number or an empty column: {NO_HEADER}"
            ));
        }
        let header = self
            .header(self.cells(text))
            .map_err(|missing| format!("a header is waited for, {missing}: {NO_HEADER}"))?;
        if header.held() > HEADER_MAX {
            return Err(format!(
                "a header that takes over {HEADER_MAX} bytes is not taken, and this is no other line yet"
            ));
        }
        let header = Arc::new(header);
        self.latest = Some(header.clone());
        Ok(header)
    }

    /// Whether a header can be told by the names in it.
    fn names_something(&self) -> bool {
        self.device.is_some() || self.time.is_some() || self.fields.is_some()
    }

    /// The columns of the line at hand.
    fn cells<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> + Clone {
        (0..self.cells.len()).map(move |column| self.cells.get(text, column))
    }

    fn header<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<Header, String> {
        let find = |wanted: &str| {
            let found = (0..).zip(names.clone().take(cells::COLUMNS_MAX)).find(|(_, name)| *name == wanted);
            found
                .map(|(column, _): (u16, _)| column)
                .ok_or_else(|| format!("and in this line no column is called `{wanted}`"))
        };
        let device = self.device.as_deref().map(find).transpose()?;
        let time = self.time.as_ref().map(|(name, _)| find(name)).transpose()?;
        let kept = match &self.fields {
            Some(fields) => Names::Needed {
                fields: fields.iter().map(|(name, _)| find(name)).collect::<Result<_, _>>()?,
                mark: header::mark(names.clone()),
            },
            None => Names::All(header::All::new(names.clone())),
        };
        Ok(Header { columns: names.count(), device, time, names: kept })
    }
}

#[cfg(test)]
mod tests;

use super::super::super::excerpt;
use super::super::span::{Span, keep};
use super::super::{FRAME_READINGS, LeftOut, TimeUnit, too_many};
use crate::model::{NAME_MAX, Reading, Readings, Time, Value, is_name};

/// The greatest version that is understood (RFC 8428, 4.4).
const VERSION: f64 = 10.0;

/// Times from here on are absolute (RFC 8428, 4.5.3), in seconds.
const ABSOLUTE: f64 = (1 << 28) as f64;

/// The field of a record, by its label (RFC 8428, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Version,
    BaseName,
    BaseTime,
    BaseUnit,
    BaseValue,
    BaseSum,
    Name,
    Unit,
    Value,
    TextValue,
    BoolValue,
    DataValue,
    Sum,
    Time,
    UpdateTime,
}

/// All of them, as JSON and CBOR have them (RFC 8428, tables 1 and 4).
const LABELS: [(Label, &str, i64); 15] = [
    (Label::Version, "bver", -1),
    (Label::BaseName, "bn", -2),
    (Label::BaseTime, "bt", -3),
    (Label::BaseUnit, "bu", -4),
    (Label::BaseValue, "bv", -5),
    (Label::BaseSum, "bs", -6),
    (Label::Name, "n", 0),
    (Label::Unit, "u", 1),
    (Label::Value, "v", 2),
    (Label::TextValue, "vs", 3),
    (Label::BoolValue, "vb", 4),
    (Label::Sum, "s", 5),
    (Label::Time, "t", 6),
    (Label::UpdateTime, "ut", 7),
    (Label::DataValue, "vd", 8),
];

impl Label {
    /// The label that JSON has as `text`; `None` for one that may be passed over.
    ///
    /// # Errors
    /// Where it may not be passed over (RFC 8428, 4.4).
    pub(super) fn of_text(text: &str) -> Result<Option<Self>, String> {
        match LABELS.iter().find(|(_, name, _)| *name == text) {
            Some((label, ..)) => Ok(Some(*label)),
            None if text.ends_with('_') => {
                Err(format!("{} has to be understood, and is not", excerpt::frame(text.as_bytes())))
            }
            None => Ok(None),
        }
    }

    pub(super) fn of_number(number: i64) -> Option<Self> {
        LABELS.iter().find(|(.., key)| *key == number).map(|(label, ..)| *label)
    }

    fn name(self) -> &'static str {
        LABELS.iter().find(|(label, ..)| *label == self).map_or("", |(_, name, _)| name)
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    /// A number, true, false or text.
    Value(Value<&'a str>),
    /// What only CBOR has.
    Data(&'a [u8]),
    /// What no field of a record takes.
    Other,
}

/// A pack of which each record is resolved as it is read, and handed over once all are. Its memory serves pack after
/// pack.
#[derive(Debug)]
pub(super) struct Pack {
    /// Whether text and data are readings.
    wants_text: bool,
    text: String,
    /// The whole name of the record at hand.
    name: String,
    base: Base,
    record: Record,
    /// How many records have been read, for who is told which one is wrong.
    count: u64,
    resolved: Vec<Resolved>,
    left_out: LeftOut,
}

/// What holds from a record on.
#[derive(Debug, Default)]
struct Base {
    name: Option<Span>,
    time: f64,
    unit: Option<Span>,
    value: Option<Value<Span>>,
    version: Option<f64>,
}

#[derive(Debug, Default)]
struct Record {
    /// The labels that have come, a bit each.
    seen: u32,
    name: Option<Span>,
    time: f64,
    unit: Option<Span>,
    value: Option<Value<Span>>,
    sum: bool,
}

#[derive(Debug)]
struct Resolved {
    device: Span,
    metric: Span,
    unit: Option<Span>,
    value: Value<Span>,
    time: Option<Time>,
}

/// So much memory is kept for the next pack; one large pack must not hold its memory for ever.
const KEEP_TEXT: usize = 16 << 10;
const KEEP_RECORDS: usize = 256;

impl Pack {
    pub(super) fn new(wants_text: bool) -> Self {
        Self {
            wants_text,
            text: String::new(),
            name: String::new(),
            base: Base::default(),
            record: Record::default(),
            count: 0,
            resolved: Vec::new(),
            left_out: LeftOut::default(),
        }
    }

    /// Forgets what was gathered of another pack.
    pub(super) fn begin(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEEP_TEXT);
        self.resolved.clear();
        self.resolved.shrink_to(KEEP_RECORDS);
        (self.base, self.record) = (Base::default(), Record::default());
        (self.count, self.left_out) = (0, LeftOut::default());
    }

    /// How much memory it keeps.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + self.resolved.capacity() * size_of::<Resolved>()
    }

    /// Takes a field of the record at hand.
    ///
    /// # Errors
    /// Where it holds what it must not.
    pub(super) fn field(&mut self, label: Label, item: Item<'_>) -> Result<(), String> {
        let bit = 1 << label as u32;
        if self.record.seen & bit != 0 {
            return Err(self.wrong(label, "comes twice"));
        }
        self.record.seen |= bit;
        match label {
            Label::BaseName => self.base.name = Some(self.string(label, item)?),
            Label::BaseUnit => self.base.unit = Some(self.unit(label, item)?),
            Label::BaseTime => self.base.time = self.number(label, item)?,
            Label::BaseValue => {
                self.number(label, item)?;
                self.base.value = self.value(item);
            }
            Label::Version => {
                let version = self.number(label, item)?;
                if version > VERSION {
                    return Err(self.wrong(label, "is a version that is not understood"));
                }
                if self.base.version.replace(version).is_some_and(|before| before != version) {
                    return Err(self.wrong(label, "is another than that of the records before"));
                }
            }
            Label::Name => self.record.name = Some(self.string(label, item)?),
            Label::Unit => self.record.unit = Some(self.unit(label, item)?),
            Label::Time => self.record.time = self.number(label, item)?,
            Label::BaseSum | Label::UpdateTime => drop(self.number(label, item)?),
            Label::Sum => {
                self.number(label, item)?;
                self.record.sum = true;
            }
            Label::Value | Label::TextValue | Label::BoolValue | Label::DataValue => {
                if self.record.value.is_some() {
                    return Err(self.wrong(label, "is a second value"));
                }
                let value = match (label, item) {
                    (Label::Value, Item::Value(Value::Float(_) | Value::Int(_) | Value::Uint(_)))
                    | (Label::BoolValue, Item::Value(Value::Bool(_)))
                    | (Label::TextValue | Label::DataValue, Item::Value(Value::Text(_)))
                    | (Label::DataValue, Item::Data(_)) => self.value(item),
                    (Label::Value, _) => return Err(self.wrong(label, "does not hold a number")),
                    (Label::BoolValue, _) => return Err(self.wrong(label, "does not hold true or false")),
                    _ => return Err(self.wrong(label, "does not hold text")),
                };
                self.record.value = value;
            }
        }
        Ok(())
    }

    /// Resolves the record at hand, which is whole.
    ///
    /// # Errors
    /// Where its time cannot be one.
    pub(super) fn end_record(&mut self) -> Result<(), String> {
        let record = std::mem::take(&mut self.record);
        self.count += 1;
        let regular = [Label::Name, Label::Unit, Label::Time, Label::Sum];
        let is_regular =
            record.value.is_some() || regular.iter().any(|label| record.seen & (1 << *label as u32) != 0);
        if !is_regular {
            return Ok(());
        }
        let value = match (record.value, self.base.value) {
            (Some(value), Some(base)) => add(value, base),
            (Some(value), None) => value,
            (None, Some(base)) if !record.sum => base,
            (None, _) => {
                self.left_out.ignored += 1;
                return Ok(());
            }
        };
        // Told beside a value, or instead of one; either way nobody sees it.
        self.left_out.ignored += u64::from(record.sum);
        let unwanted = match value {
            Value::Float(number) => !number.is_finite(),
            Value::Text(_) => !self.wants_text,
            _ => false,
        };
        if unwanted {
            self.left_out.ignored += 1;
            return Ok(());
        }
        let time = self.time(self.base.time + record.time)?;
        let Some((device, metric)) = self.names(&record) else {
            self.left_out.bad_names += 1;
            return Ok(());
        };
        if self.resolved.len() == FRAME_READINGS {
            return Err(too_many());
        }
        let unit = record.unit.or(self.base.unit);
        self.resolved.push(Resolved { device, metric, unit, value, time });
        Ok(())
    }

    /// Adds the readings of the whole pack to `out`.
    pub(super) fn hand_over(&mut self, device: &str, out: &mut Readings) -> LeftOut {
        for Resolved { device: named, metric, unit, value, time } in &self.resolved {
            let named = named.within(&self.text);
            let device = if named.is_empty() { device } else { named };
            let metric = metric.within(&self.text);
            if is_name(device) && is_name(metric) {
                let unit = unit.map(|unit| unit.within(&self.text));
                out.push(Reading { device, metric, value: value.within(&self.text), time: *time, unit });
            } else {
                self.left_out.bad_names += 1;
            }
        }
        out.end_frame();
        self.left_out
    }

    /// Says what is wrong with a field.
    fn wrong(&self, label: Label, what: &str) -> String {
        format!("`{}` of record {} {what}", label.name(), self.count + 1)
    }

    fn number(&self, label: Label, item: Item<'_>) -> Result<f64, String> {
        let number = match item {
            Item::Value(value) => value.number().filter(|number| number.is_finite()),
            Item::Data(_) | Item::Other => None,
        };
        number.ok_or_else(|| self.wrong(label, "does not hold a number"))
    }

    fn string(&mut self, label: Label, item: Item<'_>) -> Result<Span, String> {
        match item {
            Item::Value(Value::Text(text)) => Ok(keep(&mut self.text, text)),
            _ => Err(self.wrong(label, "does not hold text")),
        }
    }

    /// Every reading of a pack may have it, so it cannot be as long as one likes.
    fn unit(&mut self, label: Label, item: Item<'_>) -> Result<Span, String> {
        let unit = self.string(label, item)?;
        if unit.end - unit.start > NAME_MAX {
            return Err(self.wrong(label, &format!("has over {NAME_MAX} bytes")));
        }
        Ok(unit)
    }

    fn value(&mut self, item: Item<'_>) -> Option<Value<Span>> {
        match item {
            Item::Value(value) => Some(value.kept(&mut self.text)),
            Item::Data(data) => {
                let start = self.text.len();
                base64url(data, &mut self.text);
                Some(Value::Text(Span { start, end: self.text.len() }))
            }
            Item::Other => None,
        }
    }

    /// The time of a record, `None` where it has that of the arrival.
    fn time(&self, seconds: f64) -> Result<Option<Time>, String> {
        let time = TimeUnit::S.fractional(seconds);
        let time = time.ok_or_else(|| format!("the time of record {} is too far from 1970", self.count))?;
        Ok(if seconds >= ABSOLUTE {
            Some(Time::At(time))
        } else {
            (seconds != 0.0).then_some(Time::FromArrival(time.0))
        })
    }

    /// The record's device, empty where its name has none, and its metric. `None` where they are too long to be names,
    /// and to be copied for each record.
    fn names(&mut self, record: &Record) -> Option<(Span, Span)> {
        let parts = [self.base.name, record.name];
        let length: usize = parts.iter().flatten().map(|part| part.end - part.start).sum();
        if length > 2 * NAME_MAX + 1 {
            return None;
        }
        self.name.clear();
        for part in parts.into_iter().flatten() {
            self.name.push_str(part.within(&self.text));
        }
        let (device, metric) = split(&self.name);
        let device = keep(&mut self.text, device);
        let metric = match metric {
            "" => record.unit.or(self.base.unit).unwrap_or_else(|| keep(&mut self.text, "value")),
            metric => keep(&mut self.text, metric),
        };
        Some((device, metric))
    }
}

/// The device and the metric in a whole name, either of them empty where there is none.
fn split(name: &str) -> (&str, &str) {
    if let Some(parts) = name.rsplit_once('/') {
        return parts;
    }
    if let Some(urn) = name.strip_prefix("urn:dev:") {
        let (kind, rest) = urn.split_once(':').unwrap_or((urn, ""));
        let id = rest.find([':', '_']).unwrap_or(rest.len());
        let device = "urn:dev:".len() + kind.len() + ":".len() + id;
        return (name.get(..device).unwrap_or(name), rest.get(id + 1..).unwrap_or_default());
    }
    name.rsplit_once(':').unwrap_or(("", name))
}

/// `value` and the base value, whole where both are. What is no number has no base.
fn add(value: Value<Span>, base: Value<Span>) -> Value<Span> {
    if let (Value::Int(value), Value::Int(base)) = (value, base) {
        if let Some(sum) = value.checked_add(base) {
            return Value::Int(sum);
        }
    }
    match (value.number(), base.number()) {
        (Some(value), Some(base)) => Value::Float(value + base),
        _ => value,
    }
}

/// RFC 4648, 5, without padding.
fn base64url(data: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for chunk in data.chunks(3) {
        let bits =
            chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for sextet in 0..=chunk.len() {
            text.push(char::from(ALPHABET[bits >> (18 - 6 * sextet) & 63]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_into_device_and_metric() {
        for (name, device, metric) in [
            ("urn:dev:ow:10e2073a01080063:voltage", "urn:dev:ow:10e2073a01080063", "voltage"),
            ("urn:dev:mac:0024befffe804ff1_air_temp", "urn:dev:mac:0024befffe804ff1", "air_temp"),
            ("urn:dev:ow:10e2073a01080063", "urn:dev:ow:10e2073a01080063", ""),
            ("urn:dev:ow:10e2073a01080063:", "urn:dev:ow:10e2073a01080063", ""),
            ("urn:dev:ow:10e2073a01080063/a/b", "urn:dev:ow:10e2073a01080063/a", "b"),
            ("urn:dev:", "urn:dev:", ""),
            ("urn:dev:ow", "urn:dev:ow", ""),
            ("2001:db8::2/temperature", "2001:db8::2", "temperature"),
            ("hall:temperature", "hall", "temperature"),
            ("temperature", "", "temperature"),
            ("/temperature", "", "temperature"),
            ("", "", ""),
        ] {
            assert_eq!(split(name), (device, metric), "{name}");
        }
    }

    /// RFC 4648, 10, with the alphabet of 5.
    #[test]
    fn data_is_shown_as_base64url() {
        let encoded = |data: &[u8]| {
            let mut text = String::new();
            base64url(data, &mut text);
            text
        };
        for (data, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(encoded(data.as_bytes()), text);
        }
        assert_eq!(encoded(&[0xFB, 0xFF]), "-_8");
    }
}

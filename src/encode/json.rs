//! The JSON of the README: times are Unix milliseconds, `unit` only where known.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Status;
use crate::model::{Body, Gap, Id, Message, Metric, Value};

pub(super) fn message(id: Id, gateway: &str, message: &Message, payload: &mut Vec<u8>) {
    write(&Wire { id, gateway, message }, payload);
}

pub(super) fn gap(gateway: &str, gap: &Gap, payload: &mut Vec<u8>) {
    write(&GapWire { gateway, gap }, payload);
}

pub(super) fn status(gateway: &str, status: &Status, payload: &mut Vec<u8>) {
    write(&StatusWire { gateway, status }, payload);
}

/// Writing to memory cannot fail, and no key or value here is one that JSON cannot hold.
fn write(value: &impl Serialize, payload: &mut Vec<u8>) {
    let written = serde_json::to_writer(&mut *payload, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

struct Wire<'a> {
    id: Id,
    gateway: &'a str,
    message: &'a Message,
}

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.message;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &Show(self.id))?;
        map.serialize_entry("gateway", self.gateway)?;
        map.serialize_entry("source", &*message.source)?;
        map.serialize_entry("device", &*message.device)?;
        match &message.body {
            Body::Window { name, start, end, partial, late } => {
                map.serialize_entry("window", &**name)?;
                map.serialize_entry("start", &start.0)?;
                map.serialize_entry("end", &end.0)?;
                if *partial {
                    map.serialize_entry("partial", &true)?;
                }
                if *late > 0 {
                    map.serialize_entry("late", late)?;
                }
            }
            Body::Values { time } => map.serialize_entry("time", &time.0)?,
        }
        if let Some(stale) = message.stale {
            map.serialize_entry("stale", &stale)?;
        }
        if let Some(ahead) = message.ahead {
            map.serialize_entry("ahead", &ahead)?;
        }
        if !message.synced {
            map.serialize_entry("synced", &false)?;
        }
        map.serialize_entry("metrics", &Metrics(&message.metrics))?;
        map.end()
    }
}

struct Metrics<'a>(&'a [Metric]);

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|metric| (&*metric.name, Fields(metric))))
    }
}

struct Fields<'a>(&'a Metric);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.0.fields {
            match value {
                Value::Float(x) => map.serialize_entry(&**name, x)?,
                Value::Int(x) => map.serialize_entry(&**name, x)?,
                Value::Uint(x) => map.serialize_entry(&**name, x)?,
                Value::Bool(x) => map.serialize_entry(&**name, x)?,
                Value::Text(x) => map.serialize_entry(&**name, &**x)?,
            }
        }
        if let Some(unit) = &self.0.unit {
            map.serialize_entry("unit", &**unit)?;
        }
        map.end()
    }
}

struct GapWire<'a> {
    gateway: &'a str,
    gap: &'a Gap,
}

impl Serialize for GapWire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let gap = self.gap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &Show(gap.id))?;
        map.serialize_entry("gateway", self.gateway)?;
        map.serialize_entry("cause", gap.cause.name())?;
        if let Some(device) = &gap.device {
            map.serialize_entry("device", &**device)?;
        }
        let counts = [("messages", gap.messages), ("readings", gap.readings)];
        for (key, count) in counts.into_iter().filter_map(|(key, count)| Some((key, count?))) {
            map.serialize_entry(key, &count)?;
        }
        for (key, time) in
            [("from", gap.from), ("to", gap.to)].into_iter().filter_map(|(key, t)| Some((key, t?)))
        {
            map.serialize_entry(key, &time.0)?;
        }
        map.end()
    }
}

struct StatusWire<'a> {
    gateway: &'a str,
    status: &'a Status,
}

impl Serialize for StatusWire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = self.status;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("online", &status.online)?;
        map.serialize_entry("gateway", self.gateway)?;
        map.serialize_entry("version", env!("CARGO_PKG_VERSION"))?;
        map.serialize_entry("epoch", &status.epoch)?;
        map.serialize_entry("connection", &status.connection)?;
        map.serialize_entry("since", &status.since.0)?;
        map.end()
    }
}

/// A value that goes into JSON as the text that it is shown by.
struct Show<T>(T);

impl<T: std::fmt::Display> Serialize for Show<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Format;
    use crate::model::{Cause, Timestamp};

    const ID: Id = Id { epoch: 1_795_422_500, sequence: 1042 };

    fn text(payload: Vec<u8>) -> String {
        String::from_utf8(payload).unwrap()
    }

    #[test]
    fn a_window_reads_as_the_readme_says() {
        let message = Message {
            source: "line-1".into(),
            device: "boiler".into(),
            body: Body::Window {
                name: "fine".into(),
                start: Timestamp(1_795_422_520_000),
                end: Timestamp(1_795_422_530_000),
                partial: false,
                late: 0,
            },
            metrics: vec![Metric {
                name: "temperature".into(),
                unit: Some("Cel".into()),
                fields: vec![("count".into(), Value::Uint(10)), ("mean".into(), Value::Float(21.4))],
            }],
            readings: 10,
            synced: true,
            era: None,
            ahead: None,
            told: None,
            stale: None,
        };
        let mut payload = Vec::new();
        Format::Json.message(ID, "gw-042", &message, &mut payload);
        assert_eq!(
            text(payload),
            r#"{"id":"1795422500-1042","gateway":"gw-042","source":"line-1","device":"boiler","window":"fine","start":1795422520000,"end":1795422530000,"metrics":{"temperature":{"count":10,"mean":21.4,"unit":"Cel"}}}"#
        );
    }

    #[test]
    fn what_is_unusual_about_a_message_is_said_and_what_is_usual_is_not() {
        let mut message = Message {
            source: "line-1".into(),
            device: "boi\"ler".into(),
            body: Body::Window {
                name: "w".into(),
                start: Timestamp(0),
                end: Timestamp(1000),
                partial: true,
                late: 4,
            },
            metrics: vec![],
            readings: 0,
            synced: false,
            era: None,
            ahead: None,
            told: None,
            stale: None,
        };
        let mut payload = Vec::new();
        Format::Json.message(ID, "g", &message, &mut payload);
        assert!(text(payload).contains(
            r#""device":"boi\"ler","window":"w","start":0,"end":1000,"partial":true,"late":4,"synced":false"#
        ));

        message.body = Body::Values { time: Timestamp(7) };
        message.ahead = Some(1);
        message.metrics = vec![Metric {
            name: "door".into(),
            unit: None,
            fields: vec![("value".into(), Value::Bool(true))],
        }];
        let mut payload = Vec::new();
        Format::Json.message(ID, "g", &message, &mut payload);
        assert!(
            text(payload)
                .ends_with(r#""time":7,"ahead":1,"synced":false,"metrics":{"door":{"value":true}}}"#)
        );
    }

    #[test]
    fn that_a_series_fell_silent_is_told_with_the_time_of_its_last_reading_and_without_a_value() {
        let message = Message {
            source: "line-1".into(),
            device: "boiler".into(),
            body: Body::Values { time: Timestamp(9) },
            metrics: vec![Metric {
                name: "temperature".into(),
                unit: None,
                fields: vec![(Metric::LAST.into(), Value::Int(9))],
            }],
            readings: 0,
            synced: true,
            era: None,
            ahead: None,
            told: None,
            stale: Some(true),
        };
        let mut payload = Vec::new();
        Format::Json.message(ID, "g", &message, &mut payload);
        assert!(
            text(payload).ends_with(
                r#""device":"boiler","time":9,"stale":true,"metrics":{"temperature":{"last":9}}}"#
            )
        );
    }

    #[test]
    fn a_gap_says_what_it_knows_and_leaves_out_what_nobody_knows() {
        let mut gap = Gap {
            id: ID,
            cause: Cause::Evicted,
            device: Some("boiler".into()),
            messages: Some(120),
            readings: Some(1200),
            from: Some(Timestamp(1)),
            to: Some(Timestamp(2)),
        };
        let mut payload = Vec::new();
        Format::Json.gap("g", &gap, &mut payload);
        assert_eq!(
            text(payload),
            r#"{"id":"1795422500-1042","gateway":"g","cause":"evicted","device":"boiler","messages":120,"readings":1200,"from":1,"to":2}"#
        );
        gap = Gap {
            cause: Cause::Crash,
            device: None,
            messages: None,
            readings: None,
            from: None,
            to: None,
            ..gap
        };
        let mut payload = Vec::new();
        Format::Json.gap("g", &gap, &mut payload);
        assert_eq!(text(payload), r#"{"id":"1795422500-1042","gateway":"g","cause":"crash"}"#);
    }
}

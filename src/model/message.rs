use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

use super::{Era, Shift, Timestamp, Value};

/// What names a message for ever: `epoch-sequence`, never given twice by one gateway. Opaque to receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Id {
    /// Which run of the agent gave it.
    #[n(0)]
    pub epoch: u64,
    /// The how-manieth of that run.
    #[n(1)]
    pub sequence: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('-').and_then(|(epoch, sequence)| epoch.parse().ok().zip(sequence.parse().ok()));
        let (epoch, sequence) =
            parts.ok_or_else(|| format!("`{text}` is no id: one looks like 1795422500-1042"))?;
        Ok(Self { epoch, sequence })
    }
}

/// One message for upstream: the summary of a window, values that no window took, or that series fell silent.
///
/// [`Message::to_bytes`] is the form in which the outbox keeps it. Fields are added with new numbers and only as
/// options, so that a newer weir reads what an older one kept.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Message {
    /// The source whose readings it holds.
    #[n(0)]
    pub source: Box<str>,
    /// The device that they are of.
    #[n(1)]
    pub device: Box<str>,
    /// Whether it sums up a window or passes values on.
    #[n(2)]
    pub body: Body,
    /// What was measured.
    #[n(3)]
    pub metrics: Vec<Metric>,
    /// How many readings went into it, for the loss ledger.
    #[n(4)]
    pub readings: u64,
    /// Whether the clock was trusted when its readings arrived. False says `"synced":false` on the wire: arrival times
    /// are provisional, and device times could not be held against anything.
    #[n(5)]
    pub synced: bool,
    /// Of arrival times that were stamped before the clock was trusted: whose.
    #[n(6)]
    pub era: Option<Era>,
    /// How many readings bore a time too far ahead and were given that of their arrival; `None` for none.
    #[n(7)]
    pub ahead: Option<u64>,
    /// Whether its loss was told upstream already: it was given up, and is sent again. `None` for no.
    #[n(8)]
    pub told: Option<bool>,
    /// Whether it says that its metrics fell silent: each has the time of its last reading as [`Metric::LAST`], and the
    /// body the greatest of them. `None` for no. A weir that knows nothing of it sends on a message without a value.
    #[n(9)]
    pub stale: Option<bool>,
}

/// What a message says of its time.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Body {
    /// The summary of a window.
    #[n(0)]
    Window {
        /// The name of the `[[windows]]` entry.
        #[n(0)]
        name: Box<str>,
        /// Its first millisecond.
        #[n(1)]
        start: Timestamp,
        /// The first millisecond after it.
        #[n(2)]
        end: Timestamp,
        /// Whether the agent ran, or the clock was trusted, for only a part of it.
        #[n(3)]
        partial: bool,
        /// How many late readings of the device were refused since its last message.
        #[n(4)]
        late: u64,
    },
    /// Values of one frame that no window took.
    #[n(1)]
    Values {
        /// When they were read.
        #[n(0)]
        time: Timestamp,
    },
}

/// One metric of a message: its aggregates by name, or its value under the name `value`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Metric {
    /// The metric's name.
    #[n(0)]
    pub name: Box<str>,
    /// Its unit, where known.
    #[n(1)]
    pub unit: Option<Box<str>>,
    /// `mean`, `max`, … or `value`, in the order of the wire.
    #[n(2)]
    pub fields: Vec<(Cow<'static, str>, Value)>,
}

impl Metric {
    /// The field name of a value that is passed through.
    pub const VALUE: &'static str = "value";

    /// The field name of the time of a last reading, in Unix milliseconds.
    pub const LAST: &'static str = "last";
}

impl Message {
    /// The compact form: CBOR with numbered fields.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Enough for a window of a metric or two: growing there from nothing would take longer than writing it.
        let mut bytes = Vec::with_capacity(256);
        let written = minicbor::encode(self, &mut bytes);
        debug_assert!(written.is_ok(), "writing to memory cannot fail: {written:?}");
        bytes
    }

    /// Reads the compact form back.
    ///
    /// # Errors
    /// Where the bytes are damaged or were kept by a weir that knows more than this one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }

    /// Moves its times to where they belong, once: only those of this era, which are provisional no longer.
    pub fn shift(&mut self, shift: Shift) {
        if self.era != Some(shift.era) {
            return;
        }
        match &mut self.body {
            Body::Window { start, end, .. } => {
                (*start, *end) = (start.moved(shift.by), end.moved(shift.by));
            }
            Body::Values { time } => *time = time.moved(shift.by),
        }
        for (name, value) in self.metrics.iter_mut().flat_map(|metric| &mut metric.fields) {
            match value {
                Value::Int(last) if self.stale.is_some() && name == Metric::LAST => {
                    *last = last.saturating_add(shift.by);
                }
                _ => {}
            }
        }
        (self.synced, self.era) = (true, None);
    }

    /// The first and last millisecond that it speaks of.
    #[must_use]
    pub fn range(&self) -> (Timestamp, Timestamp) {
        match self.body {
            Body::Window { start, end, .. } => (start, end),
            Body::Values { time } => (time, time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_message_and_value_survives_its_compact_form() {
        let values = [
            Value::Float(-0.5),
            Value::Int(i64::MIN),
            Value::Uint(u64::MAX),
            Value::Bool(true),
            Value::Text("grün".into()),
        ];
        let metrics = values
            .into_iter()
            .map(|value| Metric {
                name: "metric".into(),
                unit: Some("Cel".into()),
                fields: vec![(Metric::VALUE.into(), value)],
            })
            .collect();
        let mut message = Message {
            source: "line".into(),
            device: "boiler".into(),
            body: Body::Values { time: Timestamp(-1) },
            metrics,
            readings: 5,
            synced: false,
            era: Some(Era(u64::MAX)),
            ahead: Some(2),
            told: Some(true),
            stale: Some(true),
        };
        assert_eq!(Message::from_bytes(&message.to_bytes()).unwrap(), message);
        message.body = Body::Window {
            name: "fine".into(),
            start: Timestamp(10_000),
            end: Timestamp(20_000),
            partial: true,
            late: 3,
        };
        assert_eq!(Message::from_bytes(&message.to_bytes()).unwrap(), message);
    }

    #[test]
    fn an_id_is_read_as_it_is_shown_and_nothing_else_is_one() {
        let id = Id { epoch: 1_795_422_500, sequence: u64::MAX };
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "1", "1-", "-1", "1-2-3", "1-x", "99999999999999999999-1"] {
            assert!(wrong.parse::<Id>().unwrap_err().contains("is no id"), "{wrong}");
        }
    }

    #[test]
    fn a_field_that_a_newer_weir_adds_does_not_make_the_message_unreadable() {
        let message = Message {
            source: "line".into(),
            device: "boiler".into(),
            body: Body::Values { time: Timestamp(1) },
            metrics: vec![],
            readings: 1,
            synced: false,
            era: Some(Era(1)),
            ahead: Some(1),
            told: Some(true),
            stale: Some(true),
        };
        let mut bytes = message.to_bytes();
        assert_eq!(bytes[0], 0x8a, "an array of ten");
        bytes[0] = 0x8b;
        bytes.push(0x18);
        bytes.push(0x2a);
        assert_eq!(Message::from_bytes(&bytes).unwrap(), message);
    }

    /// What a weir before eras knew of a message.
    #[derive(Decode)]
    struct Older {
        #[n(4)]
        readings: u64,
        #[n(5)]
        synced: bool,
    }

    #[test]
    fn an_older_weir_reads_a_message_of_an_era() {
        let mut message = Message {
            source: "line".into(),
            device: "boiler".into(),
            body: Body::Values { time: Timestamp(1) },
            metrics: vec![],
            readings: 3,
            synced: false,
            era: Some(Era(7)),
            ahead: Some(1),
            told: None,
            stale: Some(true),
        };
        let older: Older = minicbor::decode(&message.to_bytes()).unwrap();
        assert_eq!((older.readings, older.synced), (3, false));
        (message.era, message.ahead, message.stale) = (None, None, None);
        assert_eq!(message.to_bytes()[0], 0x86, "what is not said takes no room");
    }

    #[test]
    fn a_shift_moves_the_times_of_its_era_once_and_no_others() {
        let body = Body::Window {
            name: "fine".into(),
            start: Timestamp(10_000),
            end: Timestamp(20_000),
            partial: true,
            late: 0,
        };
        let mut message = Message {
            source: "line".into(),
            device: "boiler".into(),
            body,
            metrics: vec![],
            readings: 1,
            synced: false,
            era: Some(Era(7)),
            ahead: None,
            told: None,
            stale: None,
        };
        let before = message.clone();
        message.shift(Shift { era: Era(8), by: 5 });
        assert_eq!(message, before);
        for _ in 0..2 {
            message.shift(Shift { era: Era(7), by: 1_795_422_500_000 });
            assert_eq!(message.range(), (Timestamp(1_795_422_510_000), Timestamp(1_795_422_520_000)));
            assert!(message.synced);
        }
        (message.era, message.synced) = (Some(Era(7)), false);
        let last =
            |at| Metric { name: "t".into(), unit: None, fields: vec![(Metric::LAST.into(), Value::Int(at))] };
        message.metrics = vec![last(9)];
        message.shift(Shift { era: Era(7), by: 1 });
        assert_eq!(message.metrics, [last(9)], "an aggregate is no time, whatever its name");
        (message.era, message.stale) = (Some(Era(7)), Some(true));
        message.shift(Shift { era: Era(7), by: 1 });
        assert_eq!(message.metrics, [last(10)]);
        message.era = None;
        message.synced = false;
        let device_times = message.clone();
        message.shift(Shift { era: Era(7), by: 1 });
        assert_eq!(message, device_times);
    }
}

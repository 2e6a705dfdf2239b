//! What a tap tells, bounded in its bytes.

use serde::{Deserialize, Serialize};

use super::super::excerpt;
use crate::model::{NAME_MAX, Reading, Stamp, Value};

/// So many bytes of a reason, or of what goes before a frame, are shown.
pub(super) const WORDS: usize = 512;

/// So many bytes of a unit are shown.
const UNIT: usize = 64;

/// So many bytes of a frame are shown.
const SHOWN: usize = 512;

/// Something that happened at a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the wall: Unix milliseconds.
    pub at: i64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is open.
    Open,
    /// It is not, for this reason; it is tried again.
    Failed(String),
    /// A frame came in.
    Received(Frame),
    /// A frame was sent to a device.
    Sent(Frame),
    /// What the frame before says.
    Decoded {
        /// The first of its readings.
        readings: Vec<Told>,
        /// How many there are in all.
        count: usize,
        /// Fields that are no readings.
        ignored: u64,
        /// The first of these, and why it is none, where that is known.
        #[serde(default)]
        first_ignored: Option<String>,
    },
    /// Something was refused.
    Refused {
        /// The refusal's name.
        cause: String,
        /// In plain words.
        why: String,
        /// The last bytes that came, where they have made no frame.
        tail: Vec<u8>,
    },
    /// Nothing of all that, for some time.
    Quiet {
        /// For how many seconds.
        seconds: u64,
        /// How many bytes came meanwhile, that made no frame.
        bytes: u64,
        /// The last of these.
        tail: Vec<u8>,
    },
    /// So much happened that who looks did not take in time.
    Lost(u64),
}

/// A frame, or the beginning of one that is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// What goes before it, such as the line of a request.
    pub head: Option<String>,
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// How many it has in all.
    pub length: usize,
}

/// A reading, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The device.
    pub device: String,
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: String,
    /// Its unit, where it is known.
    pub unit: Option<String>,
    /// The device's own time, where it told one: Unix milliseconds.
    pub time: Option<i64>,
}

impl Event {
    /// How many bytes it takes while it waits.
    pub(super) fn held(&self) -> usize {
        let beside = match &self.what {
            What::Open | What::Lost(_) => 0,
            What::Failed(why) => why.len(),
            What::Received(frame) | What::Sent(frame) => {
                frame.bytes.len() + frame.head.as_ref().map_or(0, String::len)
            }
            What::Decoded { readings, first_ignored, .. } => {
                let words = first_ignored.as_ref().map_or(0, String::len);
                readings.iter().map(Told::held).sum::<usize>() + words
            }
            What::Refused { cause, why, tail } => cause.len() + why.len() + tail.len(),
            What::Quiet { tail, .. } => tail.len(),
        };
        size_of::<Self>() + beside
    }
}

impl Frame {
    pub(super) fn new(head: Option<String>, bytes: &[u8]) -> Self {
        let head = head.map(|head| excerpt::cut(head, WORDS));
        Self { head, bytes: bytes[..bytes.len().min(SHOWN)].to_vec(), length: bytes.len() }
    }
}

impl Told {
    pub(super) fn new(reading: &Reading<'_>, arrival: Stamp) -> Self {
        Self {
            device: excerpt::cut(reading.device, NAME_MAX),
            metric: excerpt::cut(reading.metric, NAME_MAX),
            value: match reading.value {
                Value::Float(x) => float(x),
                Value::Int(x) => x.to_string(),
                Value::Uint(x) => x.to_string(),
                Value::Bool(x) => x.to_string(),
                Value::Text(x) => excerpt::quoted(x),
            },
            unit: reading.unit.map(|unit| excerpt::cut(unit, UNIT)),
            time: reading.time.map(|time| time.of(arrival.wall).0),
        }
    }

    fn held(&self) -> usize {
        let Self { device, metric, value, unit, .. } = self;
        let words = device.len() + metric.len() + value.len() + unit.as_ref().map_or(0, String::len);
        size_of::<Self>() + words
    }
}

/// Without rows of zeros, such as a float has whose words are swapped.
fn float(x: f64) -> String {
    let is_plain = x == 0.0 || (1e-6..1e16).contains(&x.abs()) || !x.is_finite();
    if is_plain { x.to_string() } else { format!("{x:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_that_is_very_small_or_very_large_is_shown_by_its_power_of_ten() {
        let shown = [2.5e-41, -1e-7, 1e-6, 0.0, -230.25, 9e15, 1.5e300, f64::INFINITY].map(float);
        assert_eq!(
            shown,
            ["2.5e-41", "-1e-7", "0.000001", "0", "-230.25", "9000000000000000", "1.5e300", "inf"]
        );
    }
}

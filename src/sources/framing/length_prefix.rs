use std::time::Duration;

use serde::Deserialize;

use super::{Bytes, Checksum, Common, Cut, Endian, Found, Place, Refused, bytes};
use crate::units::Size;

/// Frames that say how long they are.
///
/// With `start` or a checksum, a length that was hurt costs its own frame only: once what it promised has come, or the
/// line has been silent for `idle_gap`, the frames behind it are found. A small `max_frame` makes that soon.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bytes of the length: 1, 2 or 4.
    size: u8,
    /// Their order.
    #[serde(default = "big")]
    endian: Endian,
    /// Where the length stands in the frame; by default behind `start`.
    offset: Option<u16>,
    /// What the length counts.
    #[serde(default)]
    counts: Counts,
    /// What every frame begins with.
    #[serde(default)]
    start: Bytes,
    /// Whether what stands before the end of the length is handed on with the frame.
    #[serde(default)]
    keep: bool,
    /// The most bytes of a frame, all included.
    #[serde(default = "super::default_max_frame")]
    max_frame: Size,
    #[serde(default, deserialize_with = "super::gap")]
    idle_gap: Option<Duration>,
    checksum: Option<Checksum>,
}

fn big() -> Endian {
    Endian::Big
}

/// What a length counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Counts {
    /// What stands behind it, without a checksum that ends the frame.
    #[default]
    Payload,
    /// All that stands behind it.
    Rest,
    /// The whole frame.
    Frame,
}

impl Config {
    pub(super) fn common(&self) -> Common<'_> {
        Common { max_frame: self.max_frame, idle_gap: self.idle_gap, checksum: self.checksum.as_ref() }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if ![1, 2, 4].contains(&self.size) {
            problems.push(("framing.size", format!("`size` {} must be 1, 2 or 4 bytes", self.size)));
        }
        if self.offset() < self.start.len() {
            let text = format!(
                "`offset` {} lies within the {} bytes of `start`: it counts from the frame's beginning",
                self.offset(),
                self.start.len()
            );
            problems.push(("framing.offset", text));
        }
        if self.head() + self.tail() >= super::bytes(self.max_frame) {
            let text = format!("`max_frame` {} has no room for anything but the length", self.max_frame);
            problems.push(("framing.max_frame", text));
        }
        problems
    }

    fn offset(&self) -> usize {
        self.offset.map_or(self.start.len(), usize::from)
    }

    /// How many bytes stand before the end of the length.
    pub(super) fn head(&self) -> usize {
        self.offset() + usize::from(self.size)
    }

    fn tail(&self) -> usize {
        self.checksum.as_ref().map_or(0, Checksum::at_end)
    }

    pub(super) fn has_marks(&self) -> bool {
        !self.start.is_empty()
    }

    /// Whether it shows where no frame begins. Where nothing shows it, what a length says is all that there is.
    fn is_marked(&self) -> bool {
        self.has_marks() || self.checksum.is_some()
    }

    pub(super) fn cut(&self, bytes: &[u8], place: &mut Place) -> Cut {
        let at = bytes::may_start(bytes, &self.start);
        if at > 0 {
            return Cut::Noise(at);
        }
        let head = self.head();
        let Some(told) = bytes.get(self.offset()..head) else { return Cut::Need(head - bytes.len()) };
        let told = match self.endian {
            Endian::Big => told.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            Endian::Little => told.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let total = match self.counts {
            Counts::Payload => (head + self.tail()) as u64 + told,
            Counts::Rest => head as u64 + told,
            Counts::Frame => told,
        };
        let limit = super::bytes(self.max_frame);
        let why = if total < (head + self.tail()) as u64 {
            Refused::Damaged("its length is less than what every frame has")
        } else if total > limit as u64 {
            Refused::TooLong { limit }
        } else {
            let length = usize::try_from(total).unwrap_or(limit);
            if bytes.len() < length {
                return Cut::Need(length - bytes.len());
            }
            let body = if self.keep { 0 } else { head }..length;
            return Cut::Frame(Found { taken: length, whole: 0..length, body, escaped: false });
        };
        if !self.is_marked() {
            return Cut::Refuse(total.max(head as u64), why);
        }
        if std::mem::replace(&mut place.lost, true) { Cut::Noise(1) } else { Cut::Refuse(1, why) }
    }
}

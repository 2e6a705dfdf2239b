use std::time::Duration;

use serde::Deserialize;

use super::{Bytes, Checksum, Common, Cut, Found, Place, Refused, bytes};
use crate::units::Size;

/// Frames of one length, which are handed on whole.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bytes of a frame.
    pub(super) length: u32,
    /// What every frame begins with.
    #[serde(default)]
    start: Bytes,
    /// What every frame ends in.
    #[serde(default)]
    end: Bytes,
    /// The most bytes of a frame.
    #[serde(default = "super::default_max_frame")]
    max_frame: Size,
    #[serde(default, deserialize_with = "super::gap")]
    idle_gap: Option<Duration>,
    checksum: Option<Checksum>,
}

impl Config {
    pub(super) fn common(&self) -> Common<'_> {
        Common { max_frame: self.max_frame, idle_gap: self.idle_gap, checksum: self.checksum.as_ref() }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let (length, marks) = (self.length as usize, self.start.len() + self.end.len());
        if length == 0 {
            return vec![("framing.length", "`length` is 0: write how many bytes a frame has".to_owned())];
        }
        if u64::from(self.length) > self.max_frame.0 {
            let text =
                format!("`length` {length} is above `max_frame` {}: raise `max_frame`", self.max_frame);
            return vec![("framing.length", text)];
        }
        if marks > length {
            let text = format!(
                "`length` {length} has no room for the {marks} bytes of `start` and `end`: it counts the whole frame"
            );
            return vec![("framing.length", text)];
        }
        Vec::new()
    }

    pub(super) fn has_marks(&self) -> bool {
        !self.start.is_empty() || !self.end.is_empty()
    }

    pub(super) fn cut(&self, bytes: &[u8], place: &mut Place) -> Cut {
        let length = self.length as usize;
        let at = bytes::may_start(bytes, &self.start);
        if at > 0 {
            return Cut::Noise(at);
        }
        let Some(frame) = bytes.get(..length) else { return Cut::Need(length - bytes.len()) };
        if frame.ends_with(&self.end) {
            Cut::Frame(Found::plain(length, 0..length))
        } else {
            let was_lost = std::mem::replace(&mut place.lost, true);
            let refused = if was_lost { Refused::Again } else { Refused::Damaged };
            Cut::Refuse(1, refused("its `end` is not where its `length` has it"))
        }
    }
}

use std::time::Duration;

use serde::Deserialize;

use super::{Bytes, Checksum, Common, Cut, Found, Place};
use crate::units::Size;

/// Frames that end in a delimiter. Empty ones are no frames.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What ends a frame.
    delimiter: Bytes,
    /// Whether the delimiter is handed on with its frame.
    #[serde(default)]
    keep: bool,
    /// The most bytes of a frame, without its delimiter.
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
        if !self.delimiter.is_empty() {
            return Vec::new();
        }
        let text = "`delimiter` is empty: write the bytes that end a frame, such as \";\" or [0x0d]";
        vec![("framing.delimiter", text.to_owned())]
    }

    pub(super) fn cut(&self, bytes: &[u8], place: &mut Place) -> Cut {
        match super::delimited(bytes, place, &self.delimiter, super::bytes(self.max_frame)) {
            Ok(end) => {
                let taken = end + self.delimiter.len();
                let body = 0..if self.keep { taken } else { end };
                Cut::Frame(Found { taken, whole: 0..end, body, escaped: false })
            }
            Err(other) => other,
        }
    }
}

use std::time::Duration;

use serde::Deserialize;

use super::{Checksum, Common, Cut, Place, Refused};
use crate::units::{self, Size};

/// What lies between two silences is a frame. It takes a line that hands over bytes as they come: a USB adapter may
/// hold them back for 16 ms, and after a pause of the gateway two frames are one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long nothing comes between two frames.
    #[serde(deserialize_with = "units::duration")]
    idle_gap: Duration,
    /// The most bytes of a frame.
    #[serde(default = "super::default_max_frame")]
    max_frame: Size,
    checksum: Option<Checksum>,
}

impl Config {
    pub(super) fn common(&self) -> Common<'_> {
        Common { max_frame: self.max_frame, idle_gap: Some(self.idle_gap), checksum: self.checksum.as_ref() }
    }

    pub(super) fn cut(&self, bytes: &[u8], place: &mut Place) -> Cut {
        let limit = super::bytes(self.max_frame);
        if place.lost {
            return Cut::Skip(bytes.len());
        }
        if bytes.len() > limit {
            place.lost = true;
            return Cut::Refuse(bytes.len() as u64, Refused::TooLong { limit });
        }
        Cut::Need(1)
    }
}

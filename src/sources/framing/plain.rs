use std::time::Duration;

use serde::Deserialize;

use super::{Checksum, Common};
use crate::units::Size;

/// Of framings that have the keys of all and none of their own.
///
/// The others write these three again: a struct that serde flattens cannot say which keys there are, and then a
/// misspelt one is told without the one that was meant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most bytes of a frame, without its end, escapes and overhead.
    pub(super) max_frame: Size,
    #[serde(deserialize_with = "super::gap")]
    idle_gap: Option<Duration>,
    checksum: Option<Checksum>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_frame: super::default_max_frame(), idle_gap: None, checksum: None }
    }
}

impl Config {
    pub(super) fn common(&self) -> Common<'_> {
        Common { max_frame: self.max_frame, idle_gap: self.idle_gap, checksum: self.checksum.as_ref() }
    }
}

//! How frames become readings. This file is the contract; a file is a decoder.
//!
//! Synchronous, no I/O, no clock. A frame that cannot be read gives no reading at all, never a part of them.

mod json;
mod time;

use serde::Deserialize;

use super::Refusal;
use crate::model::Readings;

pub use time::TimeUnit;

/// `decode`, by its `type`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Config {
    /// One JSON object a frame.
    Json(json::Config),
}

impl Config {
    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Json(config) => config.problems(),
        }
    }
}

/// Why a frame gave no readings.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// Its bytes are no text.
    #[error("it is not valid UTF-8 from byte {0} on")]
    NotText(usize),
    /// It is not what the decoder expects.
    #[error("{0}")]
    Malformed(String),
}

impl Undecodable {
    /// What it counts as.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::NotText(_) => Refusal::NotText,
            Self::Malformed(_) => Refusal::Undecodable,
        }
    }
}

/// What of a readable frame became no reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Readings whose device or metric name is empty or too long.
    pub bad_names: u64,
    /// Fields that the decoder was not told to read.
    pub ignored: u64,
}

/// A decoder at work. It keeps its scratch memory from frame to frame, so that a reading costs no allocation.
#[derive(Debug)]
pub enum Decoder {
    /// One JSON object a frame.
    Json(json::Json),
}

impl Decoder {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        match config {
            Config::Json(config) => Self::Json(json::Json::new(config)),
        }
    }

    /// Adds the readings of `frame` to `out`, as a frame of their own; `device` is who measured where the frame names
    /// nobody.
    ///
    /// # Errors
    /// Where the frame cannot be read. Nothing has been added then.
    pub fn decode(&mut self, frame: &[u8], device: &str, out: &mut Readings) -> Result<LeftOut, Undecodable> {
        match self {
            Self::Json(json) => json.decode(frame, device, out),
        }
    }
}

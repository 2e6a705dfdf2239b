//! How frames become readings. This file is the contract; a file or folder is a decoder.
//!
//! Synchronous, no I/O, no clock. A frame that cannot be read gives no reading at all, never a part of them. What a
//! device says of one of its values alone, such as `nan` or nothing, leaves out that value, counted.

mod binary;
mod csv;
mod field;
mod json;
mod key_value;
mod number;
mod regex;
mod rfc3339;
mod senml;
mod span;
mod text;
mod time;

use serde::Deserialize;

use super::Refusal;
use crate::model::Readings;

pub(in crate::sources) use number::number;
pub use time::TimeUnit;

/// `decode`, by its `type`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Config {
    /// Values at places among the bytes of a frame.
    Binary(binary::Config),
    /// One line of comma-separated values a frame.
    Csv(csv::Config),
    /// One JSON text a frame.
    Json(json::Config),
    /// Pairs of a key and a value.
    KeyValue(key_value::Config),
    /// What the named groups of a regular expression find.
    Regex(regex::Config),
    /// One pack of SenML a frame.
    Senml(senml::Config),
    /// One number a frame.
    Text(text::Config),
}

impl Config {
    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Binary(config) => config.problems(),
            Self::Csv(config) => config.problems(),
            Self::Json(config) => config.problems(),
            Self::KeyValue(config) => config.problems(),
            Self::Regex(config) => config.problems(),
            Self::Senml(_) | Self::Text(_) => Vec::new(),
        }
    }

    /// So many bytes a frame must have to be read, where the configuration tells.
    #[must_use]
    pub fn least(&self) -> Option<usize> {
        match self {
            Self::Binary(config) => Some(config.least()),
            _ => None,
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

/// The most readings of one frame. Each may become a message of its own, a hundred times as long as the bytes that
/// told it: more would take more memory than a gateway has to spare.
const FRAME_READINGS: usize = 4096;

fn too_many() -> String {
    format!("it has more than {FRAME_READINGS} readings: send them in several frames")
}

/// What of a readable frame became no reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Readings whose device or metric name is empty or too long.
    pub bad_names: u64,
    /// Fields that the decoder was not told to read, that are missing, or that hold no number.
    pub ignored: u64,
}

/// What a decoder has learnt of one stream: what later frames of the same stream mean by it. A listener has thousands
/// of streams and one decoder, so this is small, and what many have in common they share.
#[derive(Debug, Default)]
pub struct Learnt {
    header: Option<csv::Shared>,
}

/// A decoder at work. It keeps its scratch memory from frame to frame, so that a reading costs no allocation.
#[derive(Debug)]
pub enum Decoder {
    /// Values at places among the bytes of a frame.
    Binary(binary::Binary),
    /// One line of comma-separated values a frame.
    Csv(csv::Csv),
    /// One JSON text a frame.
    Json(json::Json),
    /// Pairs of a key and a value.
    KeyValue(key_value::KeyValue),
    /// What the named groups of a regular expression find.
    Regex(regex::Regex),
    /// One pack of SenML a frame.
    Senml(senml::Senml),
    /// One number a frame.
    Text(text::Text),
}

impl Decoder {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        match config {
            Config::Binary(config) => Self::Binary(binary::Binary::new(config)),
            Config::Csv(config) => Self::Csv(csv::Csv::new(config)),
            Config::Json(config) => Self::Json(json::Json::new(config)),
            Config::KeyValue(config) => Self::KeyValue(key_value::KeyValue::new(config)),
            Config::Regex(config) => Self::Regex(regex::Regex::new(config)),
            Config::Senml(config) => Self::Senml(senml::Senml::new(config)),
            Config::Text(config) => Self::Text(text::Text::new(config)),
        }
    }

    /// Adds the readings of `frame` to `out`, as a frame of their own; `device` is who measured where the frame names
    /// nobody, `learnt` belongs to the stream that the frame came on.
    ///
    /// # Errors
    /// Where the frame cannot be read. Nothing has been added then.
    pub fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        learnt: &mut Learnt,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        match self {
            Self::Binary(binary) => binary.decode(frame, device, out),
            Self::Csv(csv) => csv.decode(frame, device, &mut learnt.header, out),
            Self::Json(json) => json.decode(frame, device, out),
            Self::KeyValue(key_value) => key_value.decode(frame, device, out),
            Self::Regex(regex) => regex.decode(frame, device, out),
            Self::Senml(senml) => senml.decode(frame, device, out),
            Self::Text(text) => text.decode(frame, device, out),
        }
    }

    /// What of `frame`, which was decoded last, was ignored first, and why, where that is known.
    #[must_use]
    pub fn first_ignored(&self, frame: &[u8], learnt: &Learnt) -> Option<String> {
        let text = || utf8(frame).ok();
        match self {
            Self::Binary(binary) => binary.first_ignored(frame),
            Self::Csv(csv) => csv.first_ignored(text()?, learnt.header.as_ref()),
            Self::Json(json) => json.first_ignored(),
            Self::KeyValue(key_value) => key_value.first_ignored(text()?),
            Self::Regex(regex) => regex.first_ignored(text()?),
            Self::Senml(_) | Self::Text(_) => None,
        }
    }
}

/// What is wrong with a JSON text: that it is none, or what it holds.
fn no_json(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    match error.classify() {
        Category::Syntax | Category::Eof => format!("it is no JSON: {error}"),
        Category::Data | Category::Io => error.to_string(),
    }
}

fn utf8(frame: &[u8]) -> Result<&str, Undecodable> {
    std::str::from_utf8(frame).map_err(|error| Undecodable::NotText(error.valid_up_to()))
}

#[cfg(test)]
mod tests;

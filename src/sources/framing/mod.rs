//! How bytes become frames. This file is the contract; a file is a framing.
//!
//! Pure: bytes in, frames out, no I/O and no clock. However the stream is cut into reads, the frames are the same. A
//! frame that is over its limit is skipped, told once, and the next one is found again.

mod lines;

use serde::Deserialize;

use crate::units::Size;

/// `framing`, by its `type`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Config {
    /// Each line is a frame.
    Lines(lines::Config),
}

impl Default for Config {
    fn default() -> Self {
        Self::Lines(lines::Config::default())
    }
}

/// The greatest `max_frame`: a source holds up to one frame in memory, decodes it whole and hands it on whole.
pub const MAX_FRAME: Size = Size(1 << 20);

impl Config {
    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Lines(config) => config.problems(),
        }
    }
}

/// A frame was longer than `max_frame` and has been skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("longer than {limit} bytes (`max_frame`)")]
pub struct TooLong {
    /// The most bytes that a frame may have.
    pub limit: usize,
}

/// A framing at work on one stream.
///
/// It holds only what it must keep of a frame between two reads: nothing while the stream rests between frames, and
/// never more than twice `max_frame`.
#[derive(Debug)]
pub enum Framer {
    /// Each line is a frame.
    Lines(lines::Lines),
}

impl Framer {
    /// For a new stream.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        match config {
            Config::Lines(config) => Self::Lines(lines::Lines::new(config)),
        }
    }

    /// Takes bytes off the front of `input` up to the end of the next frame, and gives that frame. `None` once all
    /// of `input` is taken: an unfinished frame waits for the next read.
    pub fn next<'a, 'input: 'a>(&'a mut self, input: &mut &'input [u8]) -> Option<Result<&'a [u8], TooLong>> {
        match self {
            Self::Lines(lines) => lines.next(input),
        }
    }

    /// How many bytes of an unfinished frame wait for the next read.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.unfinished(),
        }
    }
}

//! How bytes become frames. This file is the contract; a file is a framing.
//!
//! Pure: bytes in, frames out, no I/O and no clock. However the stream is cut into reads, the frames are the same. A
//! framing only says what the bytes at the front are ([`Cut`]); [`scan`] keeps what is unfinished between reads.
//!
//! What is no frame is told and skipped, and the next frame is found again: a frame over its limit and one whose
//! checksum is wrong once each, noise between frames by its bytes. A part of a frame is never given as one. Where frames
//! have a `start`, an `end` or a checksum at places that are counted, the search goes on one byte after the beginning of
//! what was none, so that a length that was hurt does not take the frames behind it along. What nothing can tell: a
//! byte that was changed in the content of a frame without a checksum, and where frames begin once a byte is missing
//! from those of a fixed length or a length prefix without any mark; give such a line an `idle_gap`.

mod bytes;
mod checksum;
mod cobs;
mod delimiter;
mod fixed;
mod length_prefix;
mod lines;
mod plain;
mod scan;
mod silence;
mod slip;
mod start_end;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::units::{self, Size};

pub use bytes::Bytes;
pub use checksum::{Checksum, Kind, Wrong};
pub use scan::Framer;

/// `framing`, by its `type`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Config {
    /// Each line is a frame: those end in LF or CRLF.
    Lines(plain::Config),
    /// Frames end in a delimiter of any bytes.
    Delimiter(delimiter::Config),
    /// All frames have the same length.
    Fixed(fixed::Config),
    /// A frame says how long it is.
    LengthPrefix(length_prefix::Config),
    /// Frames lie between a start and an end.
    StartEnd(start_end::Config),
    /// SLIP (RFC 1055).
    Slip(plain::Config),
    /// Consistent Overhead Byte Stuffing.
    Cobs(plain::Config),
    /// What lies between two silences is a frame.
    Silence(silence::Config),
}

impl Default for Config {
    fn default() -> Self {
        Self::Lines(plain::Config::default())
    }
}

/// The greatest `max_frame`: a source holds up to one frame in memory, decodes it whole and hands it on whole.
pub const MAX_FRAME: Size = Size(1 << 20);

/// The `max_frame` of whoever does not say.
fn default_max_frame() -> Size {
    Size(64 << 10)
}

/// Below this no timer is exact, nor does a line hand over bytes as they come.
const MIN_GAP: Duration = Duration::from_millis(1);

/// After so long a silence nobody waits for the rest of a frame.
const MAX_GAP: Duration = Duration::from_secs(3600);

fn gap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration(deserializer).map(Some)
}

/// The order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endian {
    /// The most significant byte first.
    Big,
    /// The least significant byte first.
    Little,
}

/// What all framings have beside keys of their own.
struct Common<'c> {
    max_frame: Size,
    idle_gap: Option<Duration>,
    checksum: Option<&'c Checksum>,
}

impl Config {
    fn common(&self) -> Common<'_> {
        match self {
            Self::Lines(config) | Self::Slip(config) | Self::Cobs(config) => config.common(),
            Self::Delimiter(config) => config.common(),
            Self::Fixed(config) => config.common(),
            Self::LengthPrefix(config) => config.common(),
            Self::StartEnd(config) => config.common(),
            Self::Silence(config) => config.common(),
        }
    }

    /// After so long a silence an unfinished frame ends, see [`Framer::silence`].
    #[must_use]
    pub fn idle_gap(&self) -> Option<Duration> {
        self.common().idle_gap
    }

    /// So many bytes of each frame are handed on, where all are of one length.
    #[must_use]
    pub fn length(&self) -> Option<usize> {
        let Self::Fixed(config) = self else { return None };
        Some((config.length as usize).saturating_sub(config.common().checksum.map_or(0, Checksum::at_end)))
    }

    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let Common { max_frame, idle_gap, checksum } = self.common();
        let mut problems = match self {
            Self::Lines(_) | Self::Slip(_) | Self::Cobs(_) | Self::Silence(_) => Vec::new(),
            Self::Delimiter(config) => config.problems(),
            Self::Fixed(config) => config.problems(),
            Self::LengthPrefix(config) => config.problems(),
            Self::StartEnd(config) => config.problems(),
        };
        if !(Size(1)..=MAX_FRAME).contains(&max_frame) {
            let text = format!("`max_frame` {max_frame} must lie within 1B and {MAX_FRAME}");
            problems.push(("framing.max_frame", text));
        }
        if idle_gap.is_some_and(|gap| !(MIN_GAP..=MAX_GAP).contains(&gap)) {
            let text =
                format!("`idle_gap` must lie within {} and {}", units::show(MIN_GAP), units::show(MAX_GAP));
            problems.push(("framing.idle_gap", text));
        }
        let longest = match self {
            Self::Fixed(config) => config.length as usize,
            _ => bytes(max_frame),
        };
        problems.extend(checksum.into_iter().flat_map(|checksum| checksum.problems(longest)));
        problems
    }

    /// What the bytes at the front of the stream are.
    fn cut(&self, bytes: &[u8], place: &mut Place) -> Cut {
        match self {
            Self::Lines(config) => lines::cut(bytes, place, self::bytes(config.max_frame)),
            Self::Delimiter(config) => config.cut(bytes, place),
            Self::Fixed(config) => config.cut(bytes, place),
            Self::LengthPrefix(config) => config.cut(bytes, place),
            Self::StartEnd(config) => config.cut(bytes, place),
            Self::Slip(config) => slip::cut(bytes, place, self::bytes(config.max_frame)),
            Self::Cobs(config) => cobs::cut(bytes, place, self::bytes(config.max_frame)),
            Self::Silence(config) => config.cut(bytes, place),
        }
    }

    /// Takes the escapes out of a frame's bytes, in place; gives how many remain, or what is wrong.
    fn unescape(&self, bytes: &mut [u8]) -> Result<usize, &'static str> {
        match self {
            Self::Slip(_) => slip::unescape(bytes),
            Self::Cobs(_) => cobs::unescape(bytes),
            Self::StartEnd(config) => config.unescape(bytes),
            Self::Lines(_)
            | Self::Delimiter(_)
            | Self::Fixed(_)
            | Self::LengthPrefix(_)
            | Self::Silence(_) => Ok(bytes.len()),
        }
    }

    /// Whether, behind a wrong checksum, the search goes on one byte further: where frames are found by counting. Else
    /// it goes on behind the frame, whose end is known.
    fn slides(&self) -> bool {
        matches!(self, Self::Fixed(_) | Self::LengthPrefix(_))
    }

    /// How many bytes made it plain that this is no frame, as far as a framing by counting knows. It may take but one.
    pub(super) fn looked_at(&self, refused: &Refused) -> usize {
        match (refused, self) {
            (Refused::Checksum { length, .. }, _) => *length,
            (Refused::Damaged(_) | Refused::Again(_) | Refused::TooLong { .. }, Self::Fixed(config)) => {
                config.length as usize
            }
            (Refused::Damaged(_) | Refused::TooLong { .. }, Self::LengthPrefix(config)) => config.head(),
            _ => 0,
        }
    }

    /// Whether what is found by counting has marks as well, so that it hardly is noise.
    fn has_marks(&self) -> bool {
        match self {
            Self::Fixed(config) => config.has_marks(),
            Self::LengthPrefix(config) => config.has_marks(),
            _ => false,
        }
    }
}

fn bytes(size: Size) -> usize {
    usize::try_from(size.0.min(MAX_FRAME.0)).unwrap_or(usize::MAX)
}

/// What the bytes at the front of a stream are. However many come behind them, the answer stays, but for [`Cut::Need`].
enum Cut {
    /// A frame.
    Frame(Found),
    /// So many bytes that mean nothing: an empty frame, or the rest of one that was refused.
    Skip(usize),
    /// So many bytes of noise.
    Noise(usize),
    /// The first so many bytes began like a frame and are none. Not all of them need to have come.
    Refuse(u64, Refused),
    /// That shows once so many more bytes have come, or later.
    Need(usize),
}

/// Where a frame lies in the bytes at the front.
struct Found {
    /// How many bytes it takes on the line.
    taken: usize,
    /// What is counted and checked.
    whole: Range<usize>,
    /// What is handed on.
    body: Range<usize>,
    /// Whether `whole`, which then is all of the body, has escapes that are to be taken out.
    escaped: bool,
}

impl Found {
    fn plain(taken: usize, whole: Range<usize>) -> Self {
        Self { taken, body: whole.clone(), whole, escaped: false }
    }
}

/// What a framing knows of the stream beside the bytes at the front.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// In so many of these bytes it has looked in vain; it saves the work, and the answer is the same without it.
    seen: usize,
    /// Damage was told, and no frame has come since.
    lost: bool,
    /// So many of these bytes belong to a frame whose wrong checksum was told; none, where no frame ended here.
    told: Option<usize>,
}

/// Looks for `delimiter`. Gives how many bytes before it are a frame, of at most `limit` bytes, or what else to do.
fn delimited(bytes: &[u8], place: &mut Place, delimiter: &[u8], limit: usize) -> Result<usize, Cut> {
    let Some(end) = bytes::find(&bytes[place.seen..], delimiter).map(|at| place.seen + at) else {
        let open = bytes.len() - bytes::begun(bytes, delimiter);
        if place.lost && open > 0 {
            return Err(Cut::Skip(open));
        }
        if open > limit {
            place.lost = true;
            return Err(Cut::Refuse(open as u64, Refused::TooLong { limit }));
        }
        place.seen = open;
        return Err(Cut::Need(1));
    };
    let taken = end + delimiter.len();
    if std::mem::take(&mut place.lost) || end == 0 {
        Err(Cut::Skip(taken))
    } else if end > limit {
        Err(Cut::Refuse(taken as u64, Refused::TooLong { limit }))
    } else {
        Ok(end)
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A frame was over its limit and has been skipped.
    #[error("a frame is longer than {limit} bytes (`max_frame`)")]
    TooLong {
        /// The most bytes that a frame may have.
        limit: usize,
    },
    /// A frame's checksum is wrong.
    #[error("the checksum of a frame of {length} bytes is wrong{}", Maybe(.wrong))]
    Checksum {
        /// How many bytes the frame seemed to have.
        length: usize,
        /// How, where there is room for one.
        wrong: Option<Wrong>,
    },
    /// What began like a frame is none.
    #[error("a frame is damaged: {0}")]
    Damaged(&'static str),
    /// So many bytes that belong to no frame.
    #[error("{} {} to no frame", .0, if *.0 == 1 { "byte belongs" } else { "bytes belong" })]
    Noise(usize),
    /// The same of one byte, for the same reason as those behind which no frame has come since.
    #[error("1 byte belongs to no frame: {0}")]
    Again(&'static str),
    /// The line fell silent in the middle of a frame.
    #[error("a frame ended after {} {}: the line fell silent (`idle_gap`)", .0, if *.0 == 1 { "byte" } else { "bytes" })]
    CutOff(usize),
}

/// What is known, or nothing.
struct Maybe<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |known| known.fmt(f))
    }
}

#[cfg(test)]
mod tests;

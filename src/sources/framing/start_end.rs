use std::time::Duration;

use memchr::{memchr, memchr2, memchr3};
use serde::Deserialize;

use super::bytes::{find, looked_at, may_start};
use super::{Bytes, Checksum, Common, Cut, Found, Place, Refused};
use crate::units::Size;

/// Frames between a start and an end, such as STX and ETX. What lies between them is handed on; empty frames are none.
/// Neither stands in a frame but behind the escape: a start there begins a new frame. Where both are the same, one may
/// stand for an end and the next start.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What begins a frame.
    start: Bytes,
    /// What ends it.
    end: Bytes,
    /// The byte before one that would else mean something.
    escape: Option<u8>,
    /// What the byte behind the escape was changed by (exclusive or).
    #[serde(default)]
    xor: u8,
    /// How many bytes behind the end belong to the frame, such as a block check behind ETX. A checksum then counts
    /// from behind the start, over the end, to the last of these.
    #[serde(default)]
    trailer: u8,
    /// The most bytes of a frame, without start, end and escapes.
    #[serde(default = "super::default_max_frame")]
    max_frame: Size,
    #[serde(default, deserialize_with = "super::gap")]
    idle_gap: Option<Duration>,
    checksum: Option<Checksum>,
}

/// Longer than any checksum.
const MAX_TRAILER: u8 = 8;

impl Config {
    pub(super) fn common(&self) -> Common<'_> {
        Common { max_frame: self.max_frame, idle_gap: self.idle_gap, checksum: self.checksum.as_ref() }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, name, bytes) in [("framing.start", "start", &self.start), ("framing.end", "end", &self.end)]
        {
            if bytes.is_empty() {
                let text = format!("`{name}` is empty: write its bytes, such as \"\\u0002\" or [0x02]");
                problems.push((key, text));
            } else if self.escape.is_some() && bytes.len() > 1 {
                let text = format!("`{name}` has {} bytes: with an `escape` it must be one", bytes.len());
                problems.push((key, text));
            }
        }
        if let Some(escape) = self.escape {
            if [&*self.start, &*self.end].contains(&[escape].as_slice()) {
                let text =
                    format!("`escape` {escape:#04x} is `start` or `end` as well: it must be another byte");
                problems.push(("framing.escape", text));
            }
        } else if self.xor != 0 {
            problems.push(("framing.xor", "`xor` means nothing without an `escape`: add that".to_owned()));
        }
        let trailer = match self.trailer {
            0 => None,
            _ if self.start == self.end => {
                Some("`trailer` cannot be told from a frame where `start` is `end`".into())
            }
            _ if self.escape.is_some() => {
                Some("`trailer` cannot stand beside `escape`: leave one out".into())
            }
            MAX_TRAILER.. if self.trailer > MAX_TRAILER => {
                Some(format!("`trailer` {} must be at most {MAX_TRAILER} bytes", self.trailer))
            }
            _ => None,
        };
        problems.extend(trailer.map(|text| ("framing.trailer", text)));
        problems
    }

    pub(super) fn cut(&self, bytes: &[u8], place: &mut Place) -> Cut {
        let limit = super::bytes(self.max_frame);
        // Escaped, each byte may be two.
        let most = if self.escape.is_some() { 2 * limit } else { limit };
        if self.start == self.end {
            return match super::delimited(bytes, place, &self.end, most) {
                Ok(end) => Cut::Frame(Found {
                    escaped: self.is_escaped(&bytes[..end]),
                    ..Found::plain(end + self.end.len(), 0..end)
                }),
                Err(other) => other,
            };
        }
        let noise = self.noise(bytes);
        if noise > 0 {
            return Cut::Noise(noise);
        }
        let begin = self.start.len();
        if bytes.len() < begin || !bytes.starts_with(&self.start) {
            return Cut::Need(begin.saturating_sub(bytes.len()).max(1));
        }
        match self.edge(bytes, place.seen.max(begin), begin + most) {
            Edge::Over(at) => {
                place.lost = true;
                Cut::Refuse(at as u64, Refused::TooLong { limit })
            }
            Edge::Start(again) if again == begin => Cut::Skip(begin),
            Edge::Start(again) => {
                Cut::Refuse(again as u64, Refused::Damaged("it has a second `start` before its `end`"))
            }
            Edge::End(end) => {
                let taken = end + self.end.len() + usize::from(self.trailer);
                if bytes.len() < taken {
                    // It will be looked at from this end again.
                    place.seen = end;
                    return Cut::Need(taken - bytes.len());
                }
                if end == begin {
                    return Cut::Skip(taken);
                }
                let body = begin..end;
                let whole = if self.trailer > 0 { begin..taken } else { body.clone() };
                let escaped = self.is_escaped(&bytes[body.clone()]);
                Cut::Frame(Found { taken, whole, body, escaped })
            }
            Edge::None(open) => {
                place.seen = open;
                Cut::Need(1)
            }
        }
    }

    /// How many bytes at the front stand before what is, or may be, a start.
    fn noise(&self, bytes: &[u8]) -> usize {
        let Some(escape) = self.escape else { return may_start(bytes, &self.start) };
        // What is escaped is no start here either: else one in a frame that was too long would begin another in it.
        let mut at = 0;
        while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(self.start[0], escape, rest)) {
            let hit = at + found;
            looked_at(found + 1);
            if bytes[hit] != escape || hit + 1 == bytes.len() {
                return hit;
            }
            at = hit + 2;
        }
        bytes.len()
    }

    /// What comes first in `bytes` from `from` on, of a frame that may go on up to `last`.
    fn edge(&self, bytes: &[u8], from: usize, last: usize) -> Edge {
        let rest = &bytes[from..];
        let Some(escape) = self.escape else {
            // The start is looked for first: up to it all is taken next, as a frame, noise or what is refused. Looking
            // for the end first would read the whole rest anew for each of many starts.
            let start = find(rest, &self.start);
            // Of two that overlap, the one that is complete first counts, so that it is known as soon as it has come.
            let within = &rest[..start.map_or(rest.len(), |start| start + self.start.len())];
            let edge = match (find(within, &self.end), start) {
                (Some(end), _) => Edge::End(from + end),
                (None, Some(start)) => Edge::Start(from + start),
                (None, None) => Edge::None(bytes.len() - self.begun(rest)),
            };
            return match edge {
                // Its start is taken, so that what is behind it is noise up to the next one.
                Edge::Start(at) | Edge::End(at) | Edge::None(at) if at > last => Edge::Over(self.start.len()),
                edge => edge,
            };
        };
        let mut at = from;
        // What is too long is taken as far as it may go, and never in the middle of an escaped byte.
        while at <= last {
            let Some(found) =
                memchr3(self.start[0], self.end[0], escape, bytes.get(at..).unwrap_or_default())
            else {
                looked_at(bytes.len().saturating_sub(at));
                return if bytes.len() > last {
                    Edge::Over(last + 1)
                } else {
                    Edge::None(at.max(bytes.len()))
                };
            };
            looked_at(found + 1);
            let hit = at + found;
            match bytes[hit] {
                _ if hit > last => return Edge::Over(last + 1),
                byte if byte == self.end[0] => return Edge::End(hit),
                byte if byte == self.start[0] => return Edge::Start(hit),
                _ if hit + 1 == bytes.len() => return Edge::None(hit),
                _ => at = hit + 2,
            }
        }
        Edge::Over(at)
    }

    /// How many bytes at the end of `rest` may be the beginning of a mark.
    fn begun(&self, rest: &[u8]) -> usize {
        super::bytes::begun(rest, &self.start).max(super::bytes::begun(rest, &self.end))
    }

    fn is_escaped(&self, body: &[u8]) -> bool {
        self.escape.is_some_and(|escape| memchr(escape, body).is_some())
    }

    pub(super) fn unescape(&self, bytes: &mut [u8]) -> Result<usize, &'static str> {
        let (mut read, mut written) = (0, 0);
        while let Some(byte) = bytes.get(read).copied() {
            let escaped = self.escape == Some(byte);
            let plain = match (escaped, bytes.get(read + 1)) {
                (false, _) => byte,
                (true, Some(next)) => next ^ self.xor,
                (true, None) => return Err("its `escape` stands before its `end`"),
            };
            bytes[written] = plain;
            written += 1;
            read += 1 + usize::from(escaped);
        }
        Ok(written)
    }
}

/// What comes first behind a start.
enum Edge {
    /// Neither, in more than a frame may have: all before this is refused.
    Over(usize),
    /// A second start, there.
    Start(usize),
    /// The end, there.
    End(usize),
    /// Nothing, up to there.
    None(usize),
}

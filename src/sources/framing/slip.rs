use std::time::Duration;

use memchr::memchr;
use serde::Deserialize;

use super::{Checksum, Common, Cut, Found, Place};
use crate::units::Size;

// RFC 1055, page 3.
const END: u8 = 0xc0;
const ESC: u8 = 0xdb;
const ESC_END: u8 = 0xdc;
const ESC_ESC: u8 = 0xdd;

/// SLIP (RFC 1055): frames end in 0xc0, and may begin with one as well. Empty ones are no frames. What the RFC does not
/// define, an escape before any other byte, makes a frame damaged.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The most bytes of a frame, without its escapes.
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

    pub(super) fn cut(&self, bytes: &[u8], place: &mut Place) -> Cut {
        // Escaped, each byte may be two.
        match super::delimited(bytes, place, &[END], 2 * super::bytes(self.max_frame)) {
            Ok(end) => Cut::Frame(Found {
                escaped: memchr(ESC, &bytes[..end]).is_some(),
                ..Found::plain(end + 1, 0..end)
            }),
            Err(other) => other,
        }
    }
}

pub(super) fn unescape(bytes: &mut [u8]) -> Result<usize, &'static str> {
    let (mut read, mut written) = (0, 0);
    while let Some(byte) = bytes.get(read).copied() {
        let plain = match (byte, bytes.get(read + 1).copied()) {
            (ESC, Some(ESC_END)) => END,
            (ESC, Some(ESC_ESC)) => ESC,
            (ESC, _) => return Err("0xdb stands before a byte that needs no escape"),
            (byte, _) => byte,
        };
        bytes[written] = plain;
        written += 1;
        read += if byte == ESC { 2 } else { 1 };
    }
    Ok(written)
}

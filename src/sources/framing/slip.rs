use memchr::memchr;

use super::{Cut, Found, Place};

// RFC 1055, page 3.
const END: u8 = 0xc0;
const ESC: u8 = 0xdb;
const ESC_END: u8 = 0xdc;
const ESC_ESC: u8 = 0xdd;

/// SLIP (RFC 1055): frames end in 0xc0, and may begin with one as well. Empty ones are no frames. What the RFC does not
/// define, an escape before any other byte, makes a frame damaged. Without its escapes one has at most `limit` bytes.
pub(super) fn cut(bytes: &[u8], place: &mut Place, limit: usize) -> Cut {
    // Escaped, each byte may be two.
    match super::delimited(bytes, place, &[END], 2 * limit) {
        Ok(end) => Cut::Frame(Found {
            escaped: memchr(ESC, &bytes[..end]).is_some(),
            ..Found::plain(end + 1, 0..end)
        }),
        Err(other) => other,
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

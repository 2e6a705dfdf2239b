use super::{Cut, Found, Place};

/// Consistent Overhead Byte Stuffing (S. Cheshire and M. Baker, IEEE/ACM Transactions on Networking 7(2), 1999): frames
/// end in 0x00. Empty ones are no frames. Without its overhead one has at most `limit` bytes.
pub(super) fn cut(bytes: &[u8], place: &mut Place, limit: usize) -> Cut {
    // One code byte before each 254 bytes, and one more where the frame ends in a zero.
    match super::delimited(bytes, place, &[0], limit + limit / 254 + 1) {
        // One code byte that spans all: what is behind it is the frame.
        Ok(end) if usize::from(bytes[0]) == end => Cut::Frame(Found::plain(end + 1, 1..end)),
        Ok(end) => Cut::Frame(Found { escaped: true, ..Found::plain(end + 1, 0..end) }),
        Err(other) => other,
    }
}

pub(super) fn unescape(bytes: &mut [u8]) -> Result<usize, &'static str> {
    let (mut read, mut written) = (0, 0);
    while let Some(code) = bytes.get(read).copied().map(usize::from) {
        let next = read + code;
        if code == 0 || next > bytes.len() {
            return Err("a code byte points beyond the frame's end");
        }
        bytes.copy_within(read + 1..next, written);
        written += code - 1;
        if code < 255 && next < bytes.len() {
            bytes[written] = 0;
            written += 1;
        }
        read = next;
    }
    Ok(written)
}

//! Modbus TCP framing (MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3): a header with a
//! transaction id, then the PDU.

use std::ops::RangeInclusive;

use super::pdu::{Answer, Asked};

/// Transaction id, protocol 0, and the length of what follows; then the unit.
const HEADER: usize = 7;

/// What follows the header's length: a unit, a function and at most 252 bytes more (Application Protocol, section 4.1).
const LENGTHS: RangeInclusive<usize> = 2..=254;

/// The request as a frame.
#[must_use]
pub fn request(asked: &Asked, transaction: u16) -> [u8; 12] {
    let ([t, u], [function, a, b, c, d]) = (transaction.to_be_bytes(), asked.pdu());
    [t, u, 0, 0, 0, 6, asked.unit, function, a, b, c, d]
}

/// What stands at the beginning of the bytes that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Too little to tell.
    Nothing,
    /// The answer, and how many bytes it takes with its header.
    Answer(Answer<'a>, usize),
    /// A frame of that other transaction, of so many bytes: an answer that comes late.
    Late(usize, u16),
    /// A frame of this transaction that is no answer to this request, of so many bytes.
    Unfit(usize),
    /// This is no Modbus TCP: where the next frame begins cannot be known.
    Broken,
}

/// What stands at the beginning of `bytes`.
#[must_use]
pub fn hear<'a>(bytes: &'a [u8], asked: &Asked, transaction: u16) -> Heard<'a> {
    // As soon as it shows: an exception in RTU has fewer bytes than a header, and its third is never 0.
    if bytes.iter().skip(2).take(2).any(|byte| *byte != 0) {
        return Heard::Broken;
    }
    let Some([t, u, _, _, high, low, unit]) = bytes.first_chunk::<HEADER>() else { return Heard::Nothing };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if !LENGTHS.contains(&length) {
        return Heard::Broken;
    }
    let end = HEADER - 1 + length;
    let Some(pdu) = bytes.get(HEADER..end) else { return Heard::Nothing };
    let of = u16::from_be_bytes([*t, *u]);
    if of != transaction {
        return Heard::Late(end, of);
    }
    match asked.read(pdu) {
        Some(answer) if *unit == asked.unit => Heard::Answer(answer, end),
        _ => Heard::Unfit(end),
    }
}

/// Whether `bytes`, which are no frame of RTU, are one of Modbus TCP: protocol 0, and a length that is theirs.
#[must_use]
pub fn is_frame(bytes: &[u8]) -> bool {
    let [_, _, 0, 0, high, low, rest @ ..] = bytes else { return false };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    LENGTHS.contains(&length) && rest.len() == length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sources::modbus::pdu::{Exception, Table};

    const ASKED: Asked = Asked { unit: 17, table: Table::Input, address: 8, count: 1 };

    #[test]
    fn an_answer_is_taken_for_its_own_transaction_unit_and_function_alone() {
        let frame = [0x15, 1, 0, 0, 0, 5, 17, 4, 2, 0, 10];
        assert_eq!(hear(&frame, &ASKED, 0x1501), Heard::Answer(Answer::Values(&[0, 10]), 11));
        for end in 0..frame.len() {
            assert_eq!(hear(&frame[..end], &ASKED, 0x1501), Heard::Nothing);
        }
        assert_eq!(hear(&frame, &ASKED, 0x1502), Heard::Late(11, 0x1501));
        assert_eq!(hear(&frame, &Asked { unit: 18, ..ASKED }, 0x1501), Heard::Unfit(11));
        assert_eq!(hear(&frame, &Asked { count: 2, ..ASKED }, 0x1501), Heard::Unfit(11));
        let exception = [0x15, 1, 0, 0, 0, 3, 17, 0x84, 2, 99];
        assert_eq!(hear(&exception, &ASKED, 0x1501), Heard::Answer(Answer::Exception(Exception(2)), 9));
    }

    #[test]
    fn what_is_no_modbus_is_known_by_its_header() {
        assert_eq!(hear(b"HTTP/1.1 400", &ASKED, 1), Heard::Broken);
        assert_eq!(hear(&[0, 1, 0, 0, 0, 1, 17], &ASKED, 1), Heard::Broken);
        assert_eq!(hear(&[0, 1, 0, 0, 0, 255, 17], &ASKED, 1), Heard::Broken);
        // An exception in RTU, which is shorter than a header.
        assert_eq!(hear(&[17, 0x84, 2, 0xC2, 0xC4], &ASKED, 1), Heard::Broken);
        assert_eq!(hear(&[17, 0x84], &ASKED, 1), Heard::Nothing);
    }

    #[test]
    fn a_frame_is_known_as_one_by_its_protocol_and_its_length() {
        let exception = [1, 3, 0, 0, 0, 3, 0x84, 0x8A, 1];
        assert!(is_frame(&exception) && is_frame(&request(&ASKED, 0x1501)));
        assert!(!is_frame(&exception[..8]) && !is_frame(&[1, 3, 0, 1, 0, 3, 0x84, 0x8A, 1]));
        assert!(!is_frame(&[1, 3, 0, 0, 0, 0]) && !is_frame(&[0; 6]) && !is_frame(&[0, 0]));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_piece_by_piece_to_its_end(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            loop {
                match hear(rest, &ASKED, 1) {
                    Heard::Nothing | Heard::Broken => break,
                    Heard::Answer(_, length) | Heard::Late(length, _) | Heard::Unfit(length) => {
                        prop_assert!(length >= 8 && length <= rest.len());
                        rest = &rest[length..];
                    }
                }
            }
        }
    }
}

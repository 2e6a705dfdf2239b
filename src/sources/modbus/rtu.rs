//! RTU framing (MODBUS over Serial Line V1.02, section 2.5.1): unit, PDU, CRC, and silence around it.
//!
//! Pure: it is asked what the bytes mean that have come since the request, as often as more have come. An answer is
//! known by its unit, function, length and CRC, wherever it begins: adapters echo the request, and turning a line
//! around adds stray bytes.

use super::pdu::{Answer, Asked, EXCEPTION};

/// The longest frame, in bytes.
pub const FRAME_MAX: usize = 256;

/// CRC-16 as the appendix of the specification has it: polynomial 0xA001, from 0xFFFF. On the wire its low byte comes
/// first.
#[must_use]
pub fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

/// The request as a frame.
#[must_use]
pub fn request(asked: &Asked) -> [u8; 8] {
    let [function, a, b, c, d] = asked.pdu();
    let [low, high] = crc(&[asked.unit, function, a, b, c, d]).to_le_bytes();
    [asked.unit, function, a, b, c, d, low, high]
}

/// The answer in `bytes`, with how many bytes stand before it. What is the request byte for byte is its echo, though it
/// may read as an answer: of 17 to 24 bits from 0x0300 to 0x03FF on.
#[must_use]
pub fn find<'a>(bytes: &'a [u8], asked: &Asked) -> Option<(usize, Answer<'a>)> {
    let lengths = [2 + asked.bytes(), 2];
    (0..bytes.len()).filter(|start| bytes[*start] == asked.unit).find_map(|start| {
        lengths.iter().find_map(|length| {
            let frame = bytes.get(start..start + 1 + length + 2)?;
            let answer = asked.read(frame.get(1..1 + length)?)?;
            (is_whole(frame) && *frame != request(asked)).then_some((start, answer))
        })
    })
}

/// What bytes were that held no answer, once the line has fallen silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// The request itself, as adapters echo it.
    Echo,
    /// A whole frame of that unit: an answer that comes late, or to somebody else.
    Frame(u8),
    /// A whole frame of that unit, which would be the answer if it were the unit that was asked.
    Other(u8),
    /// What begins as the answer does, with its length, and is not whole. A damaged echo does not.
    Damaged,
    /// Anything else.
    Noise,
}

/// What stands at the beginning of `bytes`, which held no answer, and what follows it.
#[must_use]
pub fn stray<'a>(bytes: &'a [u8], asked: &Asked) -> (Stray, &'a [u8]) {
    if let Some(rest) = bytes.strip_prefix(&request(asked)) {
        return (Stray::Echo, rest);
    }
    if let Some((frame, rest)) = leading(bytes).and_then(|frame| bytes.split_at_checked(frame.len())) {
        let unit = frame[0];
        let is_fit = unit != asked.unit && find(frame, &Asked { unit, ..*asked }).is_some();
        return (if is_fit { Stray::Other(unit) } else { Stray::Frame(unit) }, rest);
    }
    let function = asked.table.function();
    let begins = match bytes {
        [unit, code, rest @ ..] if *unit == asked.unit => {
            let is_length = |length: &u8| usize::from(*length) == asked.bytes();
            *code == function | EXCEPTION || *code == function && rest.first().is_none_or(is_length)
        }
        _ => false,
    };
    (if begins { Stray::Damaged } else { Stray::Noise }, &[])
}

/// Whether there is as much as the answer takes, and it begins as that does: then no piece of it is missing.
#[must_use]
pub fn is_complete(bytes: &[u8], asked: &Asked) -> bool {
    let mut rest = bytes;
    loop {
        match stray(rest, asked) {
            (Stray::Damaged, _) => return rest.len() >= 5 + asked.bytes(),
            (Stray::Noise, _) => return false,
            (Stray::Echo | Stray::Frame(_) | Stray::Other(_), behind) => rest = behind,
        }
    }
}

/// The whole frame at the beginning of `bytes`.
pub(super) fn leading(bytes: &[u8]) -> Option<&[u8]> {
    let length = match bytes {
        [_, code, ..] if code & EXCEPTION != 0 => 5,
        [_, 1..=4, length, ..] => 5 + usize::from(*length),
        _ => bytes.len(),
    };
    let frame = bytes.get(..length).filter(|frame| (4..=FRAME_MAX).contains(&frame.len()))?;
    is_whole(frame).then_some(frame)
}

fn is_whole(frame: &[u8]) -> bool {
    frame.split_last_chunk::<2>().is_some_and(|(body, sum)| crc(body).to_le_bytes() == *sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sources::modbus::pdu::{Exception, Table};

    fn answer(asked: &Asked, values: &[u8]) -> Vec<u8> {
        let mut frame = vec![asked.unit, asked.table.function(), u8::try_from(values.len()).unwrap()];
        frame.extend_from_slice(values);
        frame.extend_from_slice(&crc(&frame).to_le_bytes());
        frame
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let table =
            prop_oneof![Just(Table::Coil), Just(Table::Discrete), Just(Table::Holding), Just(Table::Input)];
        (1_u8..=247, table, any::<u16>(), 1_u16..=125).prop_map(|(unit, table, address, count)| Asked {
            unit,
            table,
            address,
            count,
        })
    }

    #[test]
    fn the_specifications_crc_is_found() {
        // MODBUS over Serial Line V1.02, appendix B: unit 2, function 7 has the CRC 0x1241.
        assert_eq!(crc(&[2, 7]), 0x1241);
        assert_eq!(crc(b"123456789"), 0x4B37, "the check value of CRC-16/MODBUS");
    }

    proptest! {
        #[test]
        fn an_answer_is_found_behind_an_echo_or_stray_bytes_however_it_comes(
            asked in asked(), echo: bool, stray in prop::collection::vec(0_u8..=0, 0..3), seed: u64,
        ) {
            let mut values = vec![0; asked.bytes()];
            fastrand::Rng::with_seed(seed).fill(&mut values);
            let before = if echo { request(&asked).to_vec() } else { stray };
            let bytes = [before.clone(), answer(&asked, &values)].concat();
            for end in 0..bytes.len() {
                prop_assert_eq!(find(&bytes[..end], &asked), None);
            }
            prop_assert_eq!(find(&bytes, &asked), Some((before.len(), Answer::Values(&values))));
        }

        #[test]
        fn no_single_damaged_byte_makes_another_answer(asked in asked(), at: prop::sample::Index, by in 1_u8..) {
            let values = vec![0x5A; asked.bytes()];
            let mut bytes = answer(&asked, &values);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert_eq!(find(&bytes, &asked), None);
        }

        #[test]
        fn another_units_answer_is_none_and_is_known_for_a_frame(asked in asked(), other in 1_u8..=247) {
            prop_assume!(other != asked.unit);
            let late = Asked { unit: other, ..asked };
            let bytes = answer(&late, &vec![7; late.bytes()]);
            prop_assert_eq!(find(&bytes, &asked), None);
            prop_assert_eq!(stray(&bytes, &asked), (Stray::Other(other), &[][..]));
            let longer = Asked { count: asked.count + 16, ..asked };
            prop_assert_eq!(stray(&bytes, &longer), (Stray::Frame(other), &[][..]));
        }
    }

    #[test]
    fn a_request_that_reads_as_its_own_answer_is_its_echo() {
        // The high byte of the address is the number of bytes that 20 coils take.
        let asked = Asked { unit: 1, table: Table::Coil, address: 0x0313, count: 20 };
        let echo = request(&asked);
        assert_eq!(find(&echo, &asked), None);
        assert_eq!(stray(&echo, &asked), (Stray::Echo, &[][..]));
        let bytes = [&echo[..], &answer(&asked, &[1, 2, 3])].concat();
        assert_eq!(find(&bytes, &asked), Some((8, Answer::Values(&[1, 2, 3]))));
    }

    #[test]
    fn an_exception_has_five_bytes() {
        let asked = Asked { unit: 10, table: Table::Coil, address: 0x4A1, count: 1 };
        let body = [10, 0x81, 2];
        let frame = [&body[..], &crc(&body).to_le_bytes()].concat();
        assert_eq!(find(&frame, &asked), Some((0, Answer::Exception(Exception(2)))));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let asked = Asked { unit: 1, table: Table::Holding, address: 0, count: 2 };
        assert_eq!(stray(&request(&asked), &asked), (Stray::Echo, &[][..]));
        assert_eq!(stray(&[1, 3, 4, 0, 0, 0, 0, 0, 0], &asked), (Stray::Damaged, &[][..]));
        assert_eq!(stray(&[1, 3, 4, 0], &asked), (Stray::Damaged, &[][..]));
        assert_eq!(stray(&[0xFF, 0, 1], &asked), (Stray::Noise, &[][..]));
        let mut echo = request(&asked);
        echo[5] ^= 1;
        assert_eq!(stray(&echo, &asked), (Stray::Noise, &[][..]));
    }

    #[test]
    fn what_stands_behind_an_echo_or_a_late_answer_is_told_as_well() {
        let asked = Asked { unit: 1, table: Table::Holding, address: 0, count: 2 };
        let damaged = [1, 3, 4, 0, 0, 0, 0, 0, 0];
        let late = answer(&Asked { unit: 2, ..asked }, &[0; 4]);
        for (before, what) in [(request(&asked).to_vec(), Stray::Echo), (late, Stray::Other(2))] {
            let bytes = [&before[..], &damaged].concat();
            assert_eq!(find(&bytes, &asked), None);
            let (first, rest) = stray(&bytes, &asked);
            assert_eq!((first, stray(rest, &asked).0), (what, Stray::Damaged));
            assert!(is_complete(&bytes, &asked) && !is_complete(&bytes[..bytes.len() - 1], &asked));
        }
    }
}

use serde::Deserialize;

use super::Endian;

/// A checksum in each frame. A frame in which it is wrong is refused.
///
/// Positions are counted in the frame as the sender counted them: without delimiters and escapes, and with what
/// `start` and `end` of a fixed length or a length prefix say. Where it stands at the very end, it is not handed on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checksum {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Its first byte: from the frame's beginning, or, where negative, from its end; by default it ends the frame.
    pub position: Option<i32>,
    /// The first byte that it covers. It covers all from there to itself, or to the end where it stands before that.
    #[serde(default)]
    pub from: u32,
    /// Its bytes' order; by default little for `crc16_modbus`, as on that bus, else big.
    pub endian: Option<Endian>,
}

/// A checksum's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Exclusive or of all bytes.
    Xor,
    /// The sum of all bytes, modulo 256.
    Sum8,
    /// CRC-8/SMBUS: polynomial 0x07.
    Crc8,
    /// CRC-16/MODBUS: polynomial 0x8005, reflected, from 0xffff.
    Crc16Modbus,
    /// CRC-16/IBM-3740, known as CCITT-FALSE: polynomial 0x1021, from 0xffff.
    Crc16Ccitt,
    /// CRC-32/ISO-HDLC, that of Ethernet and zip: polynomial 0x04c11db7, reflected, from all ones, inverted.
    Crc32,
}

const SMBUS: [u32; 256] = table(0x07 << 24, false);
const MODBUS: [u32; 256] = table(0xa001, true);
const CCITT: [u32; 256] = table(0x1021 << 16, false);
const HDLC: [u32; 256] = table(0xedb8_8320, true);

/// What each byte does to a register of 32 bits: reflected ones lie at its low end, others at its high end.
const fn table(polynomial: u32, reflected: bool) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let mut register = if reflected { byte } else { byte << 24 };
        let mut bit = 0;
        while bit < 8 {
            register = match (reflected, if reflected { register & 1 } else { register >> 31 }) {
                (true, 0) => register >> 1,
                (true, _) => register >> 1 ^ polynomial,
                (false, 0) => register << 1,
                (false, _) => register << 1 ^ polynomial,
            };
            bit += 1;
        }
        table[byte as usize] = register;
        byte += 1;
    }
    table
}

fn reflected(table: &[u32; 256], from: u32, bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(from, |register, byte| register >> 8 ^ table[usize::from(register.to_le_bytes()[0] ^ byte)])
}

fn forward(table: &[u32; 256], from: u32, bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(from, |register, byte| register << 8 ^ table[usize::from(register.to_be_bytes()[0] ^ byte)])
}

impl Kind {
    /// How many bytes it has.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Xor | Self::Sum8 | Self::Crc8 => 1,
            Self::Crc16Modbus | Self::Crc16Ccitt => 2,
            Self::Crc32 => 4,
        }
    }

    fn of(self, bytes: &[u8]) -> u32 {
        match self {
            Self::Xor => bytes.iter().fold(0, |sum, byte| sum ^ byte).into(),
            Self::Sum8 => bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)).into(),
            Self::Crc8 => forward(&SMBUS, 0, bytes) >> 24,
            Self::Crc16Modbus => reflected(&MODBUS, 0xffff, bytes),
            Self::Crc16Ccitt => forward(&CCITT, 0xffff << 16, bytes) >> 16,
            Self::Crc32 => !reflected(&HDLC, !0, bytes),
        }
    }
}

impl Checksum {
    /// Whether `frame` bears the checksum that it should. One over nothing proves nothing.
    pub(super) fn holds(&self, frame: &[u8]) -> bool {
        let Some((at, covered)) = self.places(frame.len()) else { return false };
        let (Some(told), Some(covered)) = (frame.get(at..at + self.kind.size()), frame.get(covered)) else {
            return false;
        };
        let told = match self.endian() {
            Endian::Big => told.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
            Endian::Little => told.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        };
        self.kind.of(covered) == told
    }

    /// Where it stands in a frame of so many bytes, and what it covers there; `None` where it has no place.
    fn places(&self, length: usize) -> Option<(usize, std::ops::Range<usize>)> {
        let size = self.kind.size();
        let at = match self.position {
            None => length.checked_sub(size)?,
            Some(position) if position < 0 => length.checked_sub(position.unsigned_abs() as usize)?,
            Some(position) => position.unsigned_abs() as usize,
        };
        let from = self.from as usize;
        let covered = if from < at { from..at } else { from..length };
        let apart = covered.end <= at || at + size <= covered.start;
        (at + size <= length && !covered.is_empty() && apart).then_some((at, covered))
    }

    /// How many bytes it takes at the very end of each frame.
    pub(super) fn at_end(&self) -> usize {
        let size = self.kind.size();
        let ends =
            self.position.is_none_or(|position| position < 0 && position.unsigned_abs() as usize == size);
        if ends { size } else { 0 }
    }

    fn endian(&self) -> Endian {
        self.endian.unwrap_or(match self.kind {
            Kind::Crc16Modbus => Endian::Little,
            _ => Endian::Big,
        })
    }

    /// What is wrong with it in frames of `length` bytes, or, where they differ, of at most so many.
    pub(super) fn problems(&self, length: usize) -> Vec<(&'static str, String)> {
        let size = self.kind.size();
        let past =
            self.position.filter(|position| *position < 0 && (position.unsigned_abs() as usize) < size);
        if let Some(position) = past {
            let text = format!(
                "`position` {position} leaves no room for the {size} bytes of the checksum: write -{size} or less"
            );
            return vec![("framing.checksum.position", text)];
        }
        if self.places(length).is_some() {
            return Vec::new();
        }
        let text = format!(
            "in a frame of {length} bytes the checksum has no place, or covers nothing: `position` counts from the \
             frame's beginning, or from its end where it is negative, and `from` is the first byte covered"
        );
        let key = if self.position.is_some() { "framing.checksum.position" } else { "framing.checksum.from" };
        vec![(key, text)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(toml: &str) -> Checksum {
        toml::from_str(toml).unwrap()
    }

    /// The check values of Greg Cook's catalogue of parametrised CRC algorithms.
    #[test]
    fn every_crc_gives_its_published_check_value() {
        for (kind, check) in [
            (Kind::Crc8, 0xf4),
            (Kind::Crc16Modbus, 0x4b37),
            (Kind::Crc16Ccitt, 0x29b1),
            (Kind::Crc32, 0xcbf4_3926),
        ] {
            assert_eq!(kind.of(b"123456789"), check, "{kind:?}");
        }
        assert_eq!(Kind::Xor.of(b"123456789"), 0x31);
        assert_eq!(Kind::Sum8.of(b"123456789"), 0xdd);
    }

    #[test]
    fn it_stands_where_it_is_said_in_the_order_that_is_said() {
        assert!(checksum("type = 'crc16_modbus'").holds(b"123456789\x37\x4b"), "low byte first");
        assert!(checksum("type = 'crc16_ccitt'").holds(b"123456789\x29\xb1"));
        assert!(checksum("type = 'crc16_ccitt'\nendian = 'little'").holds(b"123456789\xb1\x29"));
        assert!(checksum("type = 'crc32'\nfrom = 1").holds(b"x123456789\xcb\xf4\x39\x26"));
        assert!(
            checksum("type = 'xor'\nposition = 1\nfrom = 2").holds(b"x\x31123456789"),
            "before what it covers"
        );
        assert!(checksum("type = 'sum8'\nposition = -2\nfrom = 2").holds(&[0xaa, 0xc0, 1, 2, 3, 0xab]));
        assert!(!checksum("type = 'sum8'\nposition = -2\nfrom = 2").holds(&[0xaa, 0xc0, 1, 2, 4, 0xab]));
    }

    #[test]
    fn a_frame_without_room_for_it_or_for_what_it_covers_is_wrong() {
        for frame in [&b""[..], b"\0", b"\0\0\0", b"\0\0\0\0"] {
            assert!(!checksum("type = 'crc32'").holds(frame));
            assert!(!checksum("type = 'xor'\nposition = 9").holds(frame));
            assert!(!checksum("type = 'xor'\nfrom = 9").holds(frame));
            assert!(!checksum("type = 'xor'\nposition = -2147483648").holds(frame));
            assert!(!checksum("type = 'xor'\nposition = 2147483647\nfrom = 4294967295").holds(frame));
        }
    }

    #[test]
    fn one_that_can_never_hold_is_a_problem() {
        let keys = |toml: &str| checksum(toml).problems(10).first().map(|(key, _)| *key);
        assert_eq!(keys("type = 'crc32'"), None);
        assert_eq!(keys("type = 'crc32'\nposition = -4\nfrom = 5"), None);
        assert_eq!(keys("type = 'crc32'\nposition = -3"), Some("framing.checksum.position"));
        assert_eq!(keys("type = 'xor'\nposition = 10"), Some("framing.checksum.position"));
        assert_eq!(
            keys("type = 'xor'\nposition = 0"),
            Some("framing.checksum.position"),
            "in what it covers"
        );
        assert_eq!(keys("type = 'xor'\nfrom = 9"), Some("framing.checksum.from"));
    }
}

use std::fmt;

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

/// How a checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    kind: Kind,
    gives: u32,
    has: u32,
    /// The only other one that would be right there, where that was looked for; with its order where that is not its usual.
    fits: Option<(Kind, Option<Endian>)>,
}

impl Wrong {
    /// The same beside the only other one that would be right.
    pub(super) fn beside(self, fits: Option<(Kind, Option<Endian>)>) -> Self {
        Self { fits, ..self }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, gives, has, fits } = *self;
        let width = 2 * kind.size();
        write!(f, ": {} gives {gives:0width$x}, the frame has {has:0width$x}", kind.name())?;
        match fits {
            None => Ok(()),
            Some((kind, None)) => write!(f, " ({} would fit)", kind.name()),
            Some((kind, Some(Endian::Big))) => {
                write!(f, " ({} with `endian = \"big\"` would fit)", kind.name())
            }
            Some((kind, Some(Endian::Little))) => {
                write!(f, " ({} with `endian = \"little\"` would fit)", kind.name())
            }
        }
    }
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Xor, Self::Sum8, Self::Crc8, Self::Crc16Modbus, Self::Crc16Ccitt, Self::Crc32];

    fn name(self) -> &'static str {
        match self {
            Self::Xor => "xor",
            Self::Sum8 => "sum8",
            Self::Crc8 => "crc8",
            Self::Crc16Modbus => "crc16_modbus",
            Self::Crc16Ccitt => "crc16_ccitt",
            Self::Crc32 => "crc32",
        }
    }

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
    ///
    /// # Errors
    /// What it should bear and what it does, where it has room for one.
    pub(super) fn check(&self, frame: &[u8]) -> Result<(), Option<Wrong>> {
        let (at, covered) = self.places(frame.len()).ok_or(None)?;
        let told = frame.get(at..at + self.kind.size()).ok_or(None)?;
        let gives = self.kind.of(frame.get(covered).ok_or(None)?);
        let has = match self.endian() {
            Endian::Big => told.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
            Endian::Little => told.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        };
        if gives == has { Ok(()) } else { Err(Some(Wrong { kind: self.kind, gives, has, fits: None })) }
    }

    /// The only other one that `frame` bears in the same place.
    pub(super) fn fits(&self, frame: &[u8]) -> Option<(Kind, Option<Endian>)> {
        let others = Kind::ALL.into_iter().flat_map(|kind| {
            let usual = Self { kind, endian: None, ..self.clone() };
            let other = match usual.endian() {
                Endian::Big => Endian::Little,
                Endian::Little => Endian::Big,
            };
            // One byte has no order.
            [None, Some(other).filter(|_| kind.size() > 1)].map(|endian| Self { endian, ..usual.clone() })
        });
        let mut fit =
            others.filter(|other| other.check(frame).is_ok()).map(|other| (other.kind, other.endian));
        let first = fit.next()?;
        fit.all(|other| other == first).then_some(first)
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
        assert!(checksum("type = 'crc16_modbus'").check(b"123456789\x37\x4b").is_ok(), "low byte first");
        assert!(checksum("type = 'crc16_ccitt'").check(b"123456789\x29\xb1").is_ok());
        assert!(checksum("type = 'crc16_ccitt'\nendian = 'little'").check(b"123456789\xb1\x29").is_ok());
        assert!(checksum("type = 'crc32'\nfrom = 1").check(b"x123456789\xcb\xf4\x39\x26").is_ok());
        assert!(
            checksum("type = 'xor'\nposition = 1\nfrom = 2").check(b"x\x31123456789").is_ok(),
            "before what it covers"
        );
        assert!(
            checksum("type = 'sum8'\nposition = -2\nfrom = 2").check(&[0xaa, 0xc0, 1, 2, 3, 0xab]).is_ok()
        );
        assert!(
            checksum("type = 'sum8'\nposition = -2\nfrom = 2").check(&[0xaa, 0xc0, 1, 2, 4, 0xab]).is_err()
        );
    }

    #[test]
    fn a_frame_without_room_for_it_or_for_what_it_covers_is_wrong() {
        for frame in [&b""[..], b"\0", b"\0\0\0", b"\0\0\0\0"] {
            assert!(checksum("type = 'crc32'").check(frame).is_err());
            assert!(checksum("type = 'xor'\nposition = 9").check(frame).is_err());
            assert!(checksum("type = 'xor'\nfrom = 9").check(frame).is_err());
            assert!(checksum("type = 'xor'\nposition = -2147483648").check(frame).is_err());
            assert!(checksum("type = 'xor'\nposition = 2147483647\nfrom = 4294967295").check(frame).is_err());
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

    #[test]
    fn one_that_is_wrong_tells_both_numbers_and_the_only_other_one_that_would_be_right() {
        let told = |toml: &str, frame: &[u8]| {
            let checksum = checksum(toml);
            let wrong = checksum.check(frame).unwrap_err().unwrap();
            wrong.beside(checksum.fits(frame)).to_string()
        };
        let modbus = b"123456789\x37\x4b";
        assert_eq!(
            told("type = 'crc16_ccitt'", modbus),
            ": crc16_ccitt gives 29b1, the frame has 374b (crc16_modbus would fit)"
        );
        assert_eq!(
            told("type = 'crc16_modbus'\nendian = 'big'", modbus),
            ": crc16_modbus gives 4b37, the frame has 374b (crc16_modbus would fit)"
        );
        assert_eq!(
            told("type = 'crc16_modbus'", b"123456789\x4b\x37"),
            ": crc16_modbus gives 4b37, the frame has 374b (crc16_modbus with `endian = \"big\"` would fit)"
        );
        assert_eq!(told("type = 'xor'", b"123456789\x02"), ": xor gives 31, the frame has 02");
        // Of one byte, the exclusive or and the sum are the same.
        assert_eq!(told("type = 'crc8'", b"aa"), ": crc8 gives 20, the frame has 61");
        assert_eq!(checksum("type = 'crc32'").check(b"abc"), Err(None));
    }
}

use std::fmt;

use serde::Deserialize;

use crate::model::Value;

/// Where a value is among the bytes of a frame, and how it is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Keys")]
pub(super) struct Place {
    at: usize,
    kind: Kind,
    length: usize,
    endian: Option<Endian>,
    bits: Option<Bits>,
}

/// A place, as it stands in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// The first byte, from 0.
    at: usize,
    #[serde(rename = "type")]
    kind: Kind,
    endian: Option<Endian>,
    /// The lowest and the highest bit; bit 0 is the least significant.
    bits: Option<Vec<u32>>,
    /// The bytes of what has no length of its own.
    length: Option<usize>,
}

/// The order of the bytes of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Endian {
    /// The most significant byte first.
    #[default]
    Big,
    Little,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U24,
    I24,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    /// UTF-8, filled up with NUL or blanks.
    String,
    /// Two decimal digits a byte.
    Bcd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits {
    lowest: u32,
    count: u32,
}

impl Kind {
    /// How many bytes it takes; `None` where it has to be told.
    fn length(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U24 | Self::I24 => 3,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::String | Self::Bcd => return None,
        })
    }

    fn is_whole(self) -> bool {
        !matches!(self, Self::F32 | Self::F64 | Self::String | Self::Bcd)
    }

    fn is_signed(self) -> bool {
        matches!(self, Self::I8 | Self::I16 | Self::I24 | Self::I32 | Self::I64)
    }
}

/// As long as a frame can be.
const AT_MAX: usize = 1 << 20;

/// As many digits as 64 bits hold whatever they are.
const BCD_MAX: usize = 9;

impl TryFrom<Keys> for Place {
    type Error = String;

    fn try_from(Keys { at, kind, endian, bits, length }: Keys) -> Result<Self, String> {
        if at >= AT_MAX {
            return Err(format!("`at` {at} is behind the end of the longest frame"));
        }
        let length = match (kind.length(), length, kind) {
            (Some(length), None, _) => length,
            (Some(_), Some(_), _) => return Err("`length` is for \"string\" and \"bcd\"".to_owned()),
            (None, None, _) => return Err("`length` has to say how many bytes it is".to_owned()),
            (None, Some(length @ 1..=BCD_MAX), Kind::Bcd) => length,
            (None, Some(_), Kind::Bcd) => return Err(format!("`length` of \"bcd\" is 1 to {BCD_MAX} bytes")),
            (None, Some(length), _) if (1..=AT_MAX).contains(&length) => length,
            (None, Some(length), _) => {
                return Err(format!("`length` {length} is not that of a part of a frame"));
            }
        };
        let last = length * 8 - 1;
        let bits = match bits.as_deref() {
            None => None,
            Some(_) if !kind.is_whole() => return Err("`bits` are for whole numbers and \"bool\"".to_owned()),
            Some(&[lowest, highest]) if lowest <= highest && highest as usize <= last => {
                Some(Bits { lowest, count: highest - lowest + 1 })
            }
            Some(_) => {
                return Err(format!(
                    "`bits` are the lowest and the highest bit, from 0 to {last}, such as [0, {last}]"
                ));
            }
        };
        Ok(Self { at, kind, length, endian, bits })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            1 => write!(f, "byte {}", self.at),
            length => write!(f, "bytes {} to {}", self.at, self.at + length - 1),
        }
    }
}

impl Place {
    /// How long a frame has to be to hold it.
    pub(super) fn end(&self) -> usize {
        self.at + self.length
    }

    /// What `frame` holds here; `None` where that is no value of its type.
    pub(super) fn read<'a>(&self, frame: &'a [u8], default: Endian) -> Option<Value<&'a str>> {
        let bytes = frame.get(self.at..self.end())?;
        let endian = self.endian.unwrap_or(default);
        match self.kind {
            Kind::F32 => {
                let bytes = bytes.try_into().ok()?;
                let value =
                    if endian == Endian::Big { f32::from_be_bytes(bytes) } else { f32::from_le_bytes(bytes) };
                Some(Value::Float(value.into()))
            }
            Kind::F64 => Some(Value::Float(f64::from_bits(whole(bytes, endian)))),
            Kind::String => {
                let text = std::str::from_utf8(bytes).ok()?;
                Some(Value::Text(text.trim_end_matches('\0').trim_ascii()))
            }
            Kind::Bcd => bcd(bytes, endian).map(unsigned),
            _ => Some(self.bits(whole(bytes, endian))),
        }
    }

    /// The whole number, or the part of it, that `raw` holds.
    fn bits(&self, raw: u64) -> Value<&'static str> {
        let (lowest, count) = match (self.bits, u32::try_from(self.length * 8)) {
            (Some(Bits { lowest, count }), _) => (lowest, count),
            (None, whole) => (0, whole.unwrap_or(64)),
        };
        // Shifted to the top and down again, so that what lies above goes, and a sign comes down.
        let (top, down) = (64 - lowest - count, 64 - count);
        let raised = raw << top;
        match self.kind {
            Kind::Bool => Value::Bool(raised >> down != 0),
            kind if kind.is_signed() => Value::Int(raised as i64 >> down),
            _ => unsigned(raised >> down),
        }
    }
}

fn unsigned(number: u64) -> Value<&'static str> {
    i64::try_from(number).map_or(Value::Uint(number), Value::Int)
}

fn whole(bytes: &[u8], endian: Endian) -> u64 {
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    match endian {
        Endian::Big => bytes.iter().fold(0, add),
        Endian::Little => bytes.iter().rev().fold(0, add),
    }
}

fn bcd(bytes: &[u8], endian: Endian) -> Option<u64> {
    let add = |number: u64, byte: &u8| {
        let (high, low) = (byte >> 4, byte & 15);
        (high <= 9 && low <= 9).then(|| number * 100 + u64::from(high) * 10 + u64::from(low))
    };
    match endian {
        Endian::Big => bytes.iter().try_fold(0, add),
        Endian::Little => bytes.iter().rev().try_fold(0, add),
    }
}

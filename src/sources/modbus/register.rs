//! A register of a device's map: where it lies, what its bytes mean, and what that is called.

use std::time::Duration;

use serde::Deserialize;

use super::pdu::Table;
use crate::model::{NAME_MAX, Value, is_name};
use crate::sources::scale::Scale;
use crate::units;

/// One value of a device: a register, several that belong together, or a bit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Register {
    /// The device, in the source's own list.
    pub device: Option<Box<str>>,
    /// The device's unit id, in the source's own list.
    pub unit_id: Option<u8>,
    /// What is measured.
    pub metric: Box<str>,
    /// In which table it lies.
    pub table: Table,
    /// The first register, or the bit, as on the wire: from 0.
    pub address: u16,
    /// The unit of measurement.
    pub unit: Option<Box<str>>,
    /// How often it is read, where not as the source says.
    pub every: Option<Duration>,
    kind: Kind,
    word_order: Order,
    byte_order: Order,
    scale: Scale,
}

/// The keys of one register, as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    device: Option<Box<str>>,
    unit_id: Option<u8>,
    metric: Box<str>,
    #[serde(default = "holding")]
    table: Table,
    address: u16,
    #[serde(rename = "type")]
    kind: Option<Type>,
    #[serde(default)]
    word_order: Order,
    #[serde(default)]
    byte_order: Order,
    #[serde(default = "one")]
    scale: f64,
    #[serde(default)]
    offset: f64,
    unit: Option<Box<str>>,
    bit: Option<u8>,
    length: Option<u16>,
    #[serde(default, deserialize_with = "some_duration")]
    every: Option<Duration>,
}

fn holding() -> Table {
    Table::Holding
}

fn one() -> f64 {
    1.0
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration(deserializer).map(Some)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    Bool,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    String,
}

/// What the bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A bit of a table of bits.
    Coil,
    /// A register that is zero or not.
    NotZero,
    /// A bit of a register, from the lowest, 0, on.
    Bit(u8),
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    /// So many registers, two characters each.
    String(u16),
}

/// Which comes first: the words of a value, or the bytes of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// The most significant, as the specification has it.
    #[default]
    Big,
    /// The least significant.
    Little,
}

/// How often a register may be read.
pub(super) const EVERY_MIN: Duration = Duration::from_millis(10);
pub(super) const EVERY_MAX: Duration = Duration::from_secs(86_400);

impl TryFrom<Keys> for Register {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        // Each begins with the key that it is told at, and names the others that it depends on.
        let wrong = |text: &str| Err(text.to_owned());
        if !is_name(&keys.metric) {
            return Err(format!("`metric` must have 1 to {NAME_MAX} bytes"));
        }
        if keys.device.as_ref().is_some_and(|device| !is_name(device)) {
            return Err(format!("`device` must have 1 to {NAME_MAX} bytes"));
        }
        if keys.every.is_some_and(|every| !(EVERY_MIN..=EVERY_MAX).contains(&every)) {
            return wrong("`every` must lie within 10ms and 1day");
        }
        if keys.scale == 0.0 || !keys.scale.is_finite() {
            return wrong("`scale` must be a finite number other than 0");
        }
        if !keys.offset.is_finite() {
            return wrong("`offset` must be a finite number");
        }
        let kind = match (keys.table.is_bits(), keys.kind, keys.bit) {
            (true, None | Some(Type::Bool), None) => Kind::Coil,
            (true, _, Some(_)) => {
                return wrong(
                    "`bit` is for registers: in this `table`, of coils or discrete inputs, each is one bit",
                );
            }
            (true, Some(_), None) => {
                return wrong(
                    "`type` must be \"bool\" or left away: this `table` holds coils or discrete inputs",
                );
            }
            (false, None | Some(Type::Bool), Some(bit)) if bit < 16 => Kind::Bit(bit),
            (false, None | Some(Type::Bool), Some(_)) => return wrong("`bit` is 0, the lowest, to 15"),
            (false, Some(_), Some(_)) => {
                return wrong("`bit` is of type \"bool\": leave `type` away, or the `bit`");
            }
            (false, None | Some(Type::U16), None) => Kind::U16,
            (false, Some(Type::Bool), None) => Kind::NotZero,
            (false, Some(Type::I16), None) => Kind::I16,
            (false, Some(Type::U32), None) => Kind::U32,
            (false, Some(Type::I32), None) => Kind::I32,
            (false, Some(Type::U64), None) => Kind::U64,
            (false, Some(Type::I64), None) => Kind::I64,
            (false, Some(Type::F32), None) => Kind::F32,
            (false, Some(Type::F64), None) => Kind::F64,
            (false, Some(Type::String), None) => match keys.length {
                Some(length @ 1..=125) => Kind::String(length),
                Some(_) => return wrong("`length` of a string is 1 to 125 registers of two characters"),
                None => {
                    return wrong(
                        "`type` \"string\" needs `length`, in registers of two characters, 1 to 125",
                    );
                }
            },
        };
        if keys.length.is_some() && !matches!(kind, Kind::String(_)) {
            return wrong("`length` is for `type` \"string\"");
        }
        let is_number = !matches!(kind, Kind::Coil | Kind::NotZero | Kind::Bit(_) | Kind::String(_));
        let scale = Scale { scale: keys.scale, offset: keys.offset };
        if !is_number {
            for (key, one) in
                [("scale", Scale { offset: 0.0, ..scale }), ("offset", Scale { scale: 1.0, ..scale })]
            {
                if one != Scale::NONE {
                    return Err(format!("`{key}` is for numbers: look at `type`, `table` and `bit`"));
                }
            }
        }
        if kind == Kind::Coil {
            for (key, order) in [("word_order", keys.word_order), ("byte_order", keys.byte_order)] {
                if order != Order::Big {
                    return Err(format!(
                        "`{key}` is for registers: this `table` holds coils or discrete inputs"
                    ));
                }
            }
        }
        if kind.registers() == 1 && keys.word_order != Order::Big {
            return wrong(
                "`word_order` is for values of several registers: look at `type`, `length` and `bit`",
            );
        }
        if u32::from(keys.address) + u32::from(kind.registers()) > 1 << 16 {
            return wrong("`address`: it ends behind the last one, 65535, by its `type` or `length`");
        }
        Ok(Self {
            device: keys.device,
            unit_id: keys.unit_id,
            metric: keys.metric,
            table: keys.table,
            address: keys.address,
            unit: keys.unit,
            every: keys.every,
            kind,
            word_order: keys.word_order,
            byte_order: keys.byte_order,
            scale,
        })
    }
}

impl Kind {
    fn registers(self) -> u16 {
        match self {
            Self::Coil | Self::NotZero | Self::Bit(_) | Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
            Self::String(length) => length,
        }
    }
}

/// Why an answer's bytes gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// A float that JSON has no word for.
    #[error("it is no finite number")]
    NotFinite,
    /// A string that is no UTF-8.
    #[error("it is no text")]
    NotText,
    /// The bytes are not there; a right answer has them.
    #[error("the answer is too short for it")]
    TooShort,
}

impl Register {
    /// Whether both are the same value of one device, however it is called.
    pub(super) fn is_read_as(&self, other: &Self) -> bool {
        (self.table, self.address, self.kind) == (other.table, other.address, other.kind)
    }

    /// How many registers, or bits, it takes.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.kind.registers()
    }

    /// Its value in an answer's bytes, `at` so many registers, or bits, behind the first. `scratch` holds a text.
    ///
    /// # Errors
    /// Where there is none.
    pub fn value<'s>(
        &self,
        answer: &[u8],
        at: u16,
        scratch: &'s mut String,
    ) -> Result<Value<&'s str>, NoValue> {
        let at = usize::from(at);
        if self.kind == Kind::Coil {
            let byte = answer.get(at / 8).ok_or(NoValue::TooShort)?;
            return Ok(Value::Bool(byte >> (at % 8) & 1 == 1));
        }
        let bytes = 2 * usize::from(self.width());
        let words = answer.get(2 * at..2 * at + bytes).ok_or(NoValue::TooShort)?;
        // The widest is a string of 125 registers.
        let mut buffer = [0; 250];
        let value = buffer.get_mut(..bytes).ok_or(NoValue::TooShort)?;
        for (index, word) in words.chunks_exact(2).enumerate() {
            let place = match self.word_order {
                Order::Big => index,
                Order::Little => usize::from(self.width()) - 1 - index,
            };
            let word = match self.byte_order {
                Order::Big => [word[0], word[1]],
                Order::Little => [word[1], word[0]],
            };
            value[2 * place..2 * place + 2].copy_from_slice(&word);
        }
        self.meaning(value, scratch)
    }

    /// What bytes mean that lie in the order of the specification.
    fn meaning<'s>(&self, bytes: &[u8], scratch: &'s mut String) -> Result<Value<&'s str>, NoValue> {
        fn first<const N: usize>(bytes: &[u8]) -> Result<[u8; N], NoValue> {
            bytes.first_chunk::<N>().copied().ok_or(NoValue::TooShort)
        }
        let number = match self.kind {
            Kind::Coil => return Err(NoValue::TooShort),
            Kind::NotZero => return Ok(Value::Bool(bytes.iter().any(|byte| *byte != 0))),
            Kind::Bit(bit) => return Ok(Value::Bool(u16::from_be_bytes(first(bytes)?) >> bit & 1 == 1)),
            Kind::U16 => Value::Int(u16::from_be_bytes(first(bytes)?).into()),
            Kind::I16 => Value::Int(i16::from_be_bytes(first(bytes)?).into()),
            Kind::U32 => Value::Int(u32::from_be_bytes(first(bytes)?).into()),
            Kind::I32 => Value::Int(i32::from_be_bytes(first(bytes)?).into()),
            Kind::U64 => {
                let number = u64::from_be_bytes(first(bytes)?);
                i64::try_from(number).map_or(Value::Uint(number), Value::Int)
            }
            Kind::I64 => Value::Int(i64::from_be_bytes(first(bytes)?)),
            Kind::F32 => Value::Float(f32::from_be_bytes(first(bytes)?).into()),
            Kind::F64 => Value::Float(f64::from_be_bytes(first(bytes)?)),
            Kind::String(_) => {
                // What was never written in a device's memory is 0xFF, which is in no text.
                let end = bytes.iter().rposition(|byte| *byte != 0xFF).map_or(0, |last| last + 1);
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(end);
                let text = std::str::from_utf8(&bytes[..end]).map_err(|_| NoValue::NotText)?;
                scratch.clear();
                scratch.push_str(text.trim_end());
                return Ok(Value::Text(scratch));
            }
        };
        match self.scale.apply(number) {
            Value::Float(float) if !float.is_finite() => Err(NoValue::NotFinite),
            value => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn register(keys: &str) -> Result<Register, String> {
        toml::from_str(&format!("metric = 'm'\naddress = 0\n{keys}"))
            .map_err(|error| error.message().to_owned())
    }

    fn value(keys: &str, answer: &[u8], at: u16) -> Result<Value, NoValue> {
        let mut scratch = String::new();
        register(keys).unwrap().value(answer, at, &mut scratch).map(|value| value.to_owned())
    }

    #[test]
    fn a_register_is_a_u16_of_the_holding_table_unless_it_says_otherwise() {
        let plain = register("").unwrap();
        assert_eq!((plain.table, plain.kind, plain.width()), (Table::Holding, Kind::U16, 1));
        assert_eq!(register("bit = 3").unwrap().kind, Kind::Bit(3));
        assert_eq!(register("table = 'coil'").unwrap().kind, Kind::Coil);
    }

    #[test]
    fn keys_that_do_not_go_together_are_refused_at_one_of_them() {
        for (keys, words) in [
            ("table = 'coil'\ntype = 'u16'", "`type` must be \"bool\""),
            ("table = 'discrete'\nbit = 1", "`bit` is for registers"),
            ("bit = 16", "0, the lowest, to 15"),
            ("type = 'u16'\nbit = 1", "`bit` is of type \"bool\""),
            ("type = 'string'", "needs `length`"),
            ("type = 'string'\nlength = 126", "`length` of a string is 1 to 125"),
            ("type = 'u16'\nlength = 2", "`length` is for"),
            ("bit = 1\nscale = 0.1", "`scale` is for numbers"),
            ("scale = 0.0", "other than 0"),
            ("word_order = 'little'", "`word_order` is for values of several registers"),
            ("table = 'coil'\nbyte_order = 'little'", "`byte_order` is for registers"),
            ("every = '1ms'", "within 10ms and 1day"),
            ("device = ''", "1 to 128 bytes"),
        ] {
            let error = register(keys).unwrap_err();
            assert!(error.starts_with('`') && error.contains(words), "{keys}: {error}");
        }
        let last: Result<Register, _> = toml::from_str("metric = 'm'\naddress = 65535\ntype = 'u32'");
        assert!(last.unwrap_err().to_string().contains("behind the last one"));
    }

    #[test]
    fn a_value_lies_where_its_address_says_and_nothing_else_is_read() {
        let answer = [0, 1, 0x43, 0x66, 0x33, 0x34, 0xFF, 0xFE];
        assert_eq!(value("type = 'f32'", &answer, 1), Ok(Value::Float(f32::from_bits(0x4366_3334).into())));
        assert_eq!(value("type = 'i16'\nscale = 0.1", &answer, 3), Ok(Value::Float(-0.2)));
        assert_eq!(value("type = 'u32'", &answer, 3), Err(NoValue::TooShort));
        assert_eq!(value("bit = 0", &answer, 0), Ok(Value::Bool(true)));
        assert_eq!(value("bit = 8", &answer, 0), Ok(Value::Bool(false)));
        assert_eq!(value("bit = 8\nbyte_order = 'little'", &answer, 0), Ok(Value::Bool(true)));
        assert_eq!(value("type = 'bool'", &answer, 0), Ok(Value::Bool(true)));
        assert_eq!(value("table = 'coil'", &[0xCD, 0x6B], 8), Ok(Value::Bool(true)));
        assert_eq!(value("table = 'coil'", &[0xCD, 0x6B], 10), Ok(Value::Bool(false)));
        assert_eq!(value("table = 'coil'", &[0xCD, 0x6B], 16), Err(NoValue::TooShort));
    }

    #[test]
    fn what_is_no_number_and_what_is_no_text_is_no_value() {
        for bytes in [f32::NAN.to_be_bytes(), f32::INFINITY.to_be_bytes(), f32::NEG_INFINITY.to_be_bytes()] {
            assert_eq!(value("type = 'f32'", &bytes, 0), Err(NoValue::NotFinite));
        }
        assert_eq!(
            value("type = 'f64'\nscale = 1e300", &1e300_f64.to_be_bytes(), 0),
            Err(NoValue::NotFinite)
        );
        assert_eq!(value("type = 'string'\nlength = 1", &[0xFF, 0xFE], 0), Err(NoValue::NotText));
    }

    #[test]
    fn a_text_ends_at_its_first_nul_and_its_last_character_that_is_no_blank() {
        let keys = "type = 'string'\nlength = 4";
        assert_eq!(value(keys, b"SDM120\0x", 0), Ok(Value::Text("SDM120".into())));
        assert_eq!(value(keys, b"SDM120  ", 0), Ok(Value::Text("SDM120".into())));
        assert_eq!(value(keys, b"SDM \xFF\xFF\xFF\xFF", 0), Ok(Value::Text("SDM".into())));
        let swapped = format!("{keys}\nbyte_order = 'little'");
        assert_eq!(value(&swapped, b"DS1M020 ", 0), Ok(Value::Text("SDM120 0".trim().into())));
    }

    proptest! {
        #[test]
        fn a_number_comes_back_from_each_order_of_words_and_bytes(number: u64) {
            let big = number.to_be_bytes();
            let little_words: Vec<u8> = big.chunks(2).rev().flatten().copied().collect();
            let little_bytes: Vec<u8> = big.chunks(2).flat_map(|word| [word[1], word[0]]).collect();
            for (keys, bytes) in [
                ("type = 'u64'", &big[..]),
                ("type = 'u64'\nword_order = 'little'", &little_words),
                ("type = 'u64'\nbyte_order = 'little'", &little_bytes),
                ("type = 'u64'\nword_order = 'little'\nbyte_order = 'little'", &number.to_le_bytes()),
            ] {
                let found = value(keys, bytes, 0).unwrap();
                prop_assert_eq!(found, i64::try_from(number).map_or(Value::Uint(number), Value::Int));
            }
        }

        #[test]
        fn no_bytes_stop_it(bytes: Vec<u8>, at: u16, length in 1_u16..=125) {
            for kind in ["bool", "u16", "i32", "u64", "f32", "f64"] {
                let _ = value(&format!("type = '{kind}'"), &bytes, at);
            }
            let _ = value(&format!("type = 'string'\nlength = {length}"), &bytes, at);
            let _ = value("table = 'coil'", &bytes, at);
        }
    }
}

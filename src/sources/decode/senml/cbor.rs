use minicbor::Decoder;
use minicbor::data::{Tag, Type};
use minicbor::decode::Error;

use super::pack::{Item, Label, Pack};
use crate::model::Value;

/// Reads the records of a pack in CBOR (RFC 8428, 6).
///
/// # Errors
/// Where it is none.
pub(super) fn read(bytes: &[u8], pack: &mut Pack) -> Result<(), String> {
    let mut cbor = Decoder::new(bytes);
    let malformed = |error: Error| format!("it is no CBOR of an array of records: {error}");
    let mut records = Count(cbor.array().map_err(malformed)?);
    while records.another(&mut cbor).map_err(malformed)? {
        let mut fields = Count(cbor.map().map_err(malformed)?);
        while fields.another(&mut cbor).map_err(malformed)? {
            match label(&mut cbor).map_err(malformed)?? {
                Some(label) => pack.field(label, item(&mut cbor).map_err(malformed)?)?,
                None => cbor.skip().map_err(malformed)?,
            }
        }
        pack.end_record()?;
    }
    match bytes.len() - cbor.position() {
        0 => Ok(()),
        more => Err(format!("{more} bytes stand behind the array of records")),
    }
}

/// How many items of an array or a map are still to come; `None` where a break ends it.
struct Count(Option<u64>);

impl Count {
    fn another(&mut self, cbor: &mut Decoder<'_>) -> Result<bool, Error> {
        match &mut self.0 {
            Some(0) => Ok(false),
            Some(count) => {
                *count -= 1;
                Ok(true)
            }
            None if cbor.datatype()? == Type::Break => {
                cbor.set_position(cbor.position() + 1);
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

/// The label of a field. Those that were added later are text (RFC 8428, 6).
fn label(cbor: &mut Decoder<'_>) -> Result<Result<Option<Label>, String>, Error> {
    Ok(match cbor.datatype()? {
        Type::String => Label::of_text(cbor.str()?),
        _ => Ok(Label::of_number(cbor.i64()?)),
    })
}

fn item<'b>(cbor: &mut Decoder<'b>) -> Result<Item<'b>, Error> {
    let value = match cbor.datatype()? {
        Type::String => Value::Text(cbor.str()?),
        Type::Bool => Value::Bool(cbor.bool()?),
        Type::Bytes => return cbor.bytes().map(Item::Data),
        Type::F16 => Value::Float(half(cbor)?),
        Type::F32 => Value::Float(cbor.f32()?.into()),
        Type::F64 => Value::Float(cbor.f64()?),
        Type::Tag => Value::Float(fraction(cbor)?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            let number = cbor.u64()?;
            i64::try_from(number).map_or(Value::Uint(number), Value::Int)
        }
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => Value::Int(cbor.i64()?),
        _ => {
            cbor.skip()?;
            return Ok(Item::Other);
        }
    };
    Ok(Item::Value(value))
}

/// A number of two bytes (RFC 8949, appendix D), which the library reads with a further crate alone.
fn half(cbor: &mut Decoder<'_>) -> Result<f64, Error> {
    let start = cbor.position() + 1;
    let bytes: &[u8; 2] =
        cbor.input().get(start..).and_then(<[u8]>::first_chunk).ok_or_else(Error::end_of_input)?;
    cbor.set_position(start + bytes.len());
    let bits = u16::from_be_bytes(*bytes);
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    };
    Ok(if bits >> 15 == 0 { size } else { -size })
}

/// A decimal fraction (RFC 8949, 3.4.4): exponent and mantissa.
fn fraction(cbor: &mut Decoder<'_>) -> Result<f64, Error> {
    const DECIMAL_FRACTION: Tag = Tag::new(4);
    if cbor.tag()? != DECIMAL_FRACTION || cbor.array()? != Some(2) {
        return Err(Error::message("a tag that no number has"));
    }
    let (exponent, mantissa) = (cbor.i32()?, cbor.i64()?);
    #[expect(clippy::cast_precision_loss, reason = "the nearest f64 is what is asked for")]
    let mantissa = mantissa as f64;
    // Ten is a whole number and 0.1 is no binary fraction: a division keeps 215 tenths the 21.5 that they are.
    Ok(match exponent {
        0.. => mantissa * 10_f64.powi(exponent),
        _ => mantissa / 10_f64.powi(exponent.saturating_neg()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Option<f64> {
        match item(&mut Decoder::new(bytes)) {
            Ok(Item::Value(value)) => value.number(),
            _ => None,
        }
    }

    /// RFC 8949, appendix A.
    #[test]
    fn numbers_of_every_kind_are_read() {
        for (bytes, expected) in [
            (&[0xF9, 0x00, 0x00][..], 0.0),
            (&[0xF9, 0x3C, 0x00], 1.0),
            (&[0xF9, 0x3E, 0x00], 1.5),
            (&[0xF9, 0x7B, 0xFF], 65504.0),
            (&[0xF9, 0x00, 0x01], 5.960_464_477_539_063e-8),
            (&[0xF9, 0x04, 0x00], 0.000_061_035_156_25),
            (&[0xF9, 0xC4, 0x00], -4.0),
            (&[0xFA, 0x47, 0xC3, 0x50, 0x00], 100_000.0),
            (&[0xFB, 0x3F, 0xF1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9A], 1.1),
            (&[0x38, 0x63], -100.0),
            (&[0x1B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 18_446_744_073_709_551_615.0),
            (&[0xC4, 0x82, 0x21, 0x19, 0x6A, 0xB3], 273.15),
            (&[0xC4, 0x82, 0x02, 0x03], 300.0),
        ] {
            assert_eq!(number(bytes), Some(expected), "{bytes:x?}");
        }
        assert_eq!(number(&[0xF9, 0x7C, 0x00]), Some(f64::INFINITY));
        assert!(number(&[0xF9, 0x7E, 0x00]).is_some_and(f64::is_nan));
        for wrong in
            [&[0xF9, 0x00][..], &[0xC4, 0x82, 0x21], &[0xC2, 0x41, 0x01], &[0xC4, 0x83, 0, 0, 0], &[0xF6]]
        {
            assert_eq!(number(wrong), None, "{wrong:x?}");
        }
    }
}

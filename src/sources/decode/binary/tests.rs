use proptest::prelude::*;

use super::super::tests::{found, one, problems};
use super::*;

/// What one place gives of a frame.
fn at(place: &str, frame: &[u8]) -> Option<Value> {
    let toml = format!("type = 'binary'\nfields = [{{ from = {{ {place} }}, metric = 'm', text = true }}]");
    one(&toml, frame).ok().map(|(mut readings, _)| readings.remove(0).2)
}

#[test]
fn each_type_is_read_in_both_orders() {
    let frame = [0, 0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10, 0xFF];
    let int = |value| Some(Value::Int(value));
    for (kind, big, little) in [
        ("u8", int(0xFE), int(0xFE)),
        ("i8", int(-2), int(-2)),
        ("u16", int(0xFEDC), int(0xDCFE)),
        ("i16", int(-292), int(-8962)),
        ("u24", int(0xFEDCBA), int(0xBADCFE)),
        ("i24", int(0xFEDCBA - (1 << 24)), int(0xBADCFE - (1 << 24))),
        ("u32", int(0xFEDC_BA98), int(0x98BA_DCFE)),
        ("i32", int(0xFEDC_BA98 - (1 << 32)), int(0x98BA_DCFE - (1 << 32))),
        ("u64", Some(Value::Uint(0xFEDC_BA98_7654_3210)), int(0x1032_5476_98BA_DCFE)),
        ("i64", int(-0x0123_4567_89AB_CDF0), int(0x1032_5476_98BA_DCFE)),
    ] {
        assert_eq!(at(&format!("at = 1, type = '{kind}'"), &frame), big, "{kind}");
        assert_eq!(at(&format!("at = 1, type = '{kind}', endian = 'little'"), &frame), little, "{kind}");
    }
    assert_eq!(at("at = 0, type = 'bool'", &frame), Some(Value::Bool(false)));
    assert_eq!(at("at = 9, type = 'bool'", &frame), Some(Value::Bool(true)));
    let float = |value: f64| Some(Value::Float(value));
    assert_eq!(at("at = 0, type = 'f32'", &21.5_f32.to_be_bytes()), float(21.5));
    assert_eq!(at("at = 0, type = 'f32', endian = 'little'", &21.5_f32.to_le_bytes()), float(21.5));
    assert_eq!(at("at = 0, type = 'f64'", &21.4_f64.to_be_bytes()), float(21.4));
    assert_eq!(at("at = 0, type = 'f64', endian = 'little'", &21.4_f64.to_le_bytes()), float(21.4));
    assert_eq!(at("at = 0, type = 'f32'", &f32::NAN.to_be_bytes()), None);
}

#[test]
fn bits_are_counted_from_the_least_significant() {
    let frame = [0b1010_0101, 0b1100_0011];
    for (place, value) in [
        ("at = 0, type = 'u8', bits = [0, 2]", Value::Int(0b101)),
        ("at = 0, type = 'u8', bits = [4, 7]", Value::Int(0b1010)),
        ("at = 0, type = 'i8', bits = [4, 7]", Value::Int(-6)),
        ("at = 0, type = 'i8', bits = [0, 2]", Value::Int(-3)),
        ("at = 0, type = 'u16', bits = [6, 9]", Value::Int(0b0111)),
        ("at = 0, type = 'u16', endian = 'little', bits = [6, 9]", Value::Int(0b1110)),
        ("at = 0, type = 'bool', bits = [1, 1]", Value::Bool(false)),
        ("at = 0, type = 'bool', bits = [2, 2]", Value::Bool(true)),
        ("at = 0, type = 'u16', bits = [0, 15]", Value::Int(0xA5C3)),
    ] {
        assert_eq!(at(place, &frame), Some(value), "{place}");
    }
}

#[test]
fn text_and_decimal_digits_are_read() {
    assert_eq!(at("at = 1, type = 'string', length = 5", b"xab \0\0x"), Some(Value::Text("ab".into())));
    assert_eq!(at("at = 0, type = 'string', length = 2", b"a\xff"), None);
    assert_eq!(at("at = 0, type = 'bcd', length = 3", b"\x12\x34\x56"), Some(Value::Int(123_456)));
    assert_eq!(
        at("at = 0, type = 'bcd', length = 3, endian = 'little'", b"\x12\x34\x56"),
        Some(Value::Int(563_412))
    );
    assert_eq!(at("at = 0, type = 'bcd', length = 9", &[0x99; 9]), Some(Value::Int(999_999_999_999_999_999)));
    assert_eq!(at("at = 0, type = 'bcd', length = 1", b"\x1a"), None);
    let number =
        "type = 'binary'\nfields = [{ from = { at = 0, type = 'string', length = 6 }, metric = 'm' }]";
    assert_eq!(one(number, "  21.5").unwrap().0[0].2, Value::Float(21.5));
}

#[test]
fn device_and_time_stand_in_the_frame_too() {
    let toml = "type = 'binary'\nendian = 'little'\ndevice = { at = 0, type = 'u16' }\n\
        time = { at = 2, type = 'u32', endian = 'big' }\ntime_unit = 's'\n\
        fields = [{ from = { at = 6, type = 'i16' }, metric = 't', scale = 0.01, unit = 'Cel' },\
                  { from = { at = 8, type = 'f32' }, metric = 'h' }]";
    let mut frame = vec![0x39, 0x05, 0x65, 0x53, 0xF1, 0, 0x66, 0x08];
    frame.extend(f32::NAN.to_le_bytes());
    let (readings, left_out) = one(toml, &frame).unwrap();
    assert_eq!(readings, [found("1337", "t", Value::Float(21.5), Some(1_700_000_000_000))]);
    assert_eq!(left_out.ignored, 1);
    let error = one(toml, &frame[..11]).unwrap_err();
    assert_eq!(error, "it has 11 bytes, and the last field ends with byte 12");
    frame[2..6].fill(0xFF);
    assert!(one(toml, &frame).is_ok(), "the year 2106");
}

#[test]
fn places_that_no_frame_has_are_told() {
    for (place, what) in [
        ("type = 'u8', bits = [0, 8]", "from 0 to 7"),
        ("type = 'u8', bits = [3, 2]", "the lowest and the highest"),
        ("type = 'f32', bits = [0, 2]", "whole numbers"),
        ("type = 'u8', length = 2", "for \"string\" and \"bcd\""),
        ("type = 'string'", "how many bytes"),
        ("type = 'string', length = 0", "not that of a part"),
        ("type = 'bcd', length = 10", "1 to 9"),
        ("type = 'u128'", "unknown variant"),
    ] {
        let error = toml::from_str::<Place>(&format!(
            "at = 0\n{}",
            place.replace(", ", "\n").replace("\n8", ", 8").replace("\n2]", ", 2]")
        ));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(what), "{place}: {error}");
    }
    assert!(toml::from_str::<Place>("at = 1048576\ntype = 'u8'").is_err());
    assert_eq!(problems("type = 'binary'\nfields = []"), ["decode.fields"]);
}

proptest! {
    #[test]
    fn bits_of_a_number_are_those_that_shifts_and_masks_give(raw: u32, lowest in 0_u32..32, count in 1_u32..=32) {
        let highest = (lowest + count - 1).min(31);
        let place = format!("at = 0, type = 'u32', bits = [{lowest}, {highest}]");
        let mask = (1_u64 << (highest - lowest + 1)) - 1;
        let expected = i64::try_from((u64::from(raw) >> lowest) & mask).unwrap();
        prop_assert_eq!(at(&place, &raw.to_be_bytes()), Some(Value::Int(expected)));
    }
}

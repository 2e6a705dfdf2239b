#![no_main]

//! The answers of a hostile device, in RTU frames and over Modbus TCP: nothing stops it, what is taken for an answer is
//! one by all that the protocol shows, and what is decoded is a value.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::model::Value;
use weir::sources::modbus::pdu::{Answer, Asked, Table};
use weir::sources::modbus::register::Register;
use weir::sources::modbus::{mbap, rtu};

static REGISTERS: LazyLock<Vec<Register>> = LazyLock::new(|| {
    let kinds = ["bool", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "string"];
    let register = |kind: &str, order: &str| {
        let length = if kind == "string" { "length = 7" } else { "" };
        let scale = if kind.len() == 3 { "scale = 0.1" } else { "" };
        let toml = format!("metric = 'm'\naddress = 0\ntype = '{kind}'\nbyte_order = '{order}'\n{length}\n{scale}");
        toml::from_str(&toml).unwrap_or_else(|error| panic!("{toml}: {error}"))
    };
    let both = |kind: &&str| [register(kind, "big"), register(kind, "little")];
    let mut registers: Vec<Register> = kinds.iter().flat_map(both).collect();
    registers.push(toml::from_str("metric = 'm'\naddress = 0\ntable = 'coil'").unwrap());
    registers
});

fn decode(asked: &Asked, answer: Answer<'_>) {
    let Answer::Values(bytes) = answer else { return };
    assert_eq!(bytes.len(), asked.bytes());
    let mut scratch = String::new();
    for register in REGISTERS.iter().filter(|register| register.table.is_bits() == asked.table.is_bits()) {
        for at in 0..asked.count {
            if let Ok(Value::Float(float)) = register.value(bytes, at, &mut scratch) {
                assert!(float.is_finite());
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [unit, table, high, low, count, seal, stream @ ..] = data else { return };
    let table = [Table::Coil, Table::Discrete, Table::Holding, Table::Input][usize::from(table % 4)];
    let most = table.most();
    let count = (u16::from(*count) * (1 + most / 256)) % most + 1;
    let asked = Asked { unit: *unit, table, address: u16::from_be_bytes([*high, *low]), count };

    // A device that wants to be believed gets the checksum right.
    let mut stream = stream.to_vec();
    if seal & 1 == 1 {
        let sum = rtu::crc(&stream).to_le_bytes();
        stream.extend_from_slice(&sum);
    }
    for end in 0..=stream.len().min(300) {
        if let Some((before, answer)) = rtu::find(&stream[..end], &asked) {
            let length = match answer {
                Answer::Values(bytes) => 5 + bytes.len(),
                Answer::Exception(_) => 5,
            };
            let frame = &stream[before..before + length];
            assert_ne!(frame, rtu::request(&asked), "an echo is no answer");
            assert_eq!(frame[0], asked.unit);
            assert_eq!(frame[1] & 0x7f, asked.table.function());
            assert_eq!(rtu::crc(&frame[..length - 2]).to_le_bytes(), frame[length - 2..]);
            decode(&asked, answer);
            break;
        }
    }
    let _ = (rtu::stray(&stream, &asked), rtu::is_complete(&stream, &asked));

    let transaction = u16::from_be_bytes([*seal, *low]);
    let mut rest = &stream[..];
    loop {
        match mbap::hear(rest, &asked, transaction) {
            mbap::Heard::Nothing | mbap::Heard::Broken => break,
            mbap::Heard::Answer(answer, length) => {
                assert_eq!(rest[..2], transaction.to_be_bytes());
                assert_eq!((rest[6], rest[7] & 0x7f), (asked.unit, asked.table.function()));
                decode(&asked, answer);
                rest = &rest[length..];
            }
            mbap::Heard::Late(length, _) | mbap::Heard::Unfit(length) => {
                assert!(length >= 8);
                rest = &rest[length..];
            }
        }
    }
});

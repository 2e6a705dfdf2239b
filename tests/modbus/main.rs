//! The Modbus source between pymodbus, as a slave on socat's terminals and as a TCP server, and scripted devices that
//! do what pymodbus does not.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use weir::clock::Clock;
use weir::model::{Timestamp, Value};
use weir::sources::modbus::pdu::{Answer, Asked, Table};
use weir::sources::modbus::register::Register;
use weir::sources::modbus::{Config, Modbus, Ports, mbap, rtu};
use weir::sources::tap::What;
use weir::sources::{Context, Refusal, Source, SourceError, Stats};

mod field;
#[path = "../support/mod.rs"]
mod support;

use support::modbus::{Seen, Slave};
use support::pty::Pty;
use support::site::Site;
use support::socat::Socat;

fn config(toml: &str) -> Config {
    toml::from_str(toml).unwrap_or_else(|error| panic!("{error}"))
}

fn context(ports: &Ports) -> Context {
    Context {
        name: "meters".into(),
        clock: Clock::injected(Timestamp(1_700_000_000_000), true),
        stats: Arc::new(Stats::default()),
        memory: Default::default(),
        ports: ports.clone(),
    }
}

fn refused(context: &Context, refusal: Refusal) -> u64 {
    context.stats.refused().find(|(which, _)| *which == refusal).unwrap().1
}

type Frame = Vec<(String, String, Value)>;

/// The next round's readings, or a failed test where none come.
async fn round(source: &mut Modbus) -> Result<Frame, SourceError> {
    let batch =
        tokio::time::timeout(Duration::from_secs(60), source.next()).await.expect("it says nothing")?;
    let mut frames = BTreeSet::new();
    let readings = batch.readings.iter().map(|(frame, reading)| {
        frames.insert(frame);
        (reading.device.to_owned(), reading.metric.to_owned(), reading.value.to_owned())
    });
    let readings: Vec<_> = readings.collect();
    assert_eq!(frames.len(), 1, "a round is a frame: {readings:?}");
    assert!(readings.iter().all(|(device, ..)| *device == readings[0].0), "and of one device: {readings:?}");
    Ok(readings)
}

fn golden(name: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn hex(text: &Json) -> Option<Vec<u8>> {
    let bytes = text.as_str()?.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    Some(bytes.collect())
}

fn number(json: &Json) -> u16 {
    json.as_u64().and_then(|number| u16::try_from(number).ok()).unwrap()
}

fn register(toml: &str) -> Register {
    toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"))
}

/// The value that JSON's number stands for in a register of that type.
fn value(kind: &str, json: &Json) -> Value {
    match kind {
        "f32" | "f64" => Value::Float(json.as_f64().unwrap()),
        _ => json.as_i64().map_or_else(|| Value::Uint(json.as_u64().unwrap()), Value::Int),
    }
}

fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    json[key].as_str().unwrap()
}

#[test]
fn the_frames_of_the_specification_and_of_real_meters_are_made_and_read() {
    for example in golden("modbus_frames.json") {
        let source = text(&example, "source");
        let table: Table = serde_json::from_value(example["table"].clone()).unwrap();
        let unit = example["unit"].as_u64().map_or(17, |unit| u8::try_from(unit).unwrap());
        let asked =
            Asked { unit, table, address: number(&example["address"]), count: number(&example["count"]) };
        // Where only the PDU is printed, each framing is put around it.
        let pdu = hex(&example["answer"]);
        let (frame, answer) = match &pdu {
            Some(pdu) => {
                assert_eq!(asked.pdu()[..], hex(&example["request"]).unwrap(), "{source}");
                let header = [0, 7, 0, 0, 0, u8::try_from(pdu.len() + 1).unwrap(), unit];
                let bytes = [&header[..], pdu].concat();
                let heard = mbap::hear(&bytes, &asked, 7);
                assert_eq!(heard, mbap::Heard::Answer(asked.read(pdu).unwrap(), bytes.len()), "{source}");
                let mut frame = [&[unit], &pdu[..]].concat();
                frame.extend_from_slice(&rtu::crc(&frame).to_le_bytes());
                (None, frame)
            }
            None => (hex(&example["frame"]), hex(&example["answer_frame"]).unwrap()),
        };
        if let Some(frame) = frame {
            assert_eq!(rtu::request(&asked)[..], frame, "{source}");
        }
        let (before, answer) = rtu::find(&answer, &asked).unwrap_or_else(|| panic!("{source}: no answer"));
        assert_eq!(before, 0);
        let bytes = match (answer, example["exception"].as_str()) {
            (Answer::Exception(exception), Some(words)) => {
                assert_eq!(exception.to_string(), words);
                continue;
            }
            (Answer::Values(bytes), None) => bytes,
            (answer, _) => panic!("{source}: {answer:?}"),
        };
        let mut scratch = String::new();
        if let Some(bits) = example["bits"].as_array() {
            for (at, bit) in bits.iter().enumerate() {
                let one = register(&format!("metric = 'm'\naddress = 0\ntable = '{}'", table.name()));
                let found = one.value(bytes, u16::try_from(at).unwrap(), &mut scratch).unwrap();
                assert_eq!(found, Value::Bool(bit == 1), "{source}: {at}");
            }
        }
        for (at, expected) in example["numbers"].as_array().into_iter().flatten().enumerate() {
            let kind = text(&example, "type");
            let one = register(&format!("metric = 'm'\naddress = 0\ntype = '{kind}'"));
            let at = u16::try_from(at).unwrap() * one.width();
            let found = one.value(bytes, at, &mut scratch).unwrap().number().unwrap();
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() < expected.abs() * 1e-5 + 1e-9, "{source}: {found}");
        }
    }
}

/// A map of all cases of the golden file one after the other from address 0 on, what its registers hold, and what each
/// metric is to be.
fn every_type() -> (String, Vec<Json>, BTreeMap<String, Value>) {
    let (mut registers, mut map, mut expected) = (Vec::new(), String::new(), BTreeMap::new());
    for (index, case) in golden("modbus_types.json").into_iter().enumerate() {
        let (kind, address) = (text(&case, "type"), registers.len());
        let words = case["registers"].as_array().unwrap();
        let order = if words.len() > 1 {
            format!("word_order = '{}'\n", text(&case, "word_order"))
        } else {
            String::new()
        };
        map += &format!(
            "[[registers]]\nmetric = 'm{index}'\naddress = {address}\ntype = '{kind}'\nbyte_order = '{}'\n{order}",
            text(&case, "byte_order")
        );
        expected.insert(format!("m{index}"), value(kind, &case["value"]));
        registers.extend(words.iter().cloned());
    }
    (map, registers, expected)
}

#[test]
fn every_type_in_every_order_of_words_and_bytes_is_what_pythons_struct_says() {
    for case in golden("modbus_types.json") {
        let words = case["registers"].as_array().unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|word| number(word).to_be_bytes()).collect();
        let kind = text(&case, "type");
        let order = if words.len() > 1 {
            format!("word_order = '{}'\n", text(&case, "word_order"))
        } else {
            String::new()
        };
        let one = register(&format!(
            "metric = 'm'\naddress = 0\ntype = '{kind}'\nbyte_order = '{}'\n{order}",
            text(&case, "byte_order")
        ));
        let mut scratch = String::new();
        assert_eq!(
            one.value(&bytes, 0, &mut scratch).unwrap().to_owned(),
            value(kind, &case["value"]),
            "{case}"
        );
    }
}

/// A free port of loopback.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// How devices are reached in a test: a line and its configuration, and what keeps it.
struct Way {
    toml: String,
    slave: Json,
    _socat: Option<Socat>,
    _dir: tempfile::TempDir,
}

fn serial() -> Way {
    let dir = tempfile::tempdir().unwrap();
    let socat = Socat::start(dir.path()).unwrap();
    let toml = format!("port = '{}'\nbaud = 115200\nparity = 'none'\n", socat.port().display());
    let slave = json!({"serial": socat.device(), "framer": "rtu"});
    Way { toml, slave, _socat: Some(socat), _dir: dir }
}

fn network(framer: &str) -> Way {
    let port = free();
    let framing = if framer == "rtu" { "framing = 'rtu'\n" } else { "" };
    Way {
        toml: format!("address = '127.0.0.1:{port}'\n{framing}"),
        slave: json!({"tcp": port, "framer": framer}),
        _socat: None,
        _dir: tempfile::tempdir().unwrap(),
    }
}

impl Way {
    fn slave(&self, more: Json) -> Slave {
        let mut told = self.slave.clone();
        told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Slave::start(&told).unwrap()
    }
}

#[tokio::test]
async fn pymodbus_is_read_over_a_serial_line_rtu_over_tcp_and_modbus_tcp_in_all_types_and_tables() {
    let (map, registers, mut expected) = every_type();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("types.toml");
    let more = "[[registers]]\nmetric = 'name'\ntable = 'input'\naddress = 9\ntype = 'string'\nlength = 4\nbyte_order = 'little'\n\
         [[registers]]\nmetric = 'door'\ntable = 'coil'\naddress = 3\n\
         [[registers]]\nmetric = 'light'\ntable = 'discrete'\naddress = 17\n\
         [[registers]]\nmetric = 'alarm'\ntable = 'input'\naddress = 5\nbit = 7\n\
         [[registers]]\nmetric = 'current'\ntable = 'input'\naddress = 6\ntype = 'i16'\nscale = 0.01\noffset = 1\nunit = 'A'\n";
    std::fs::write(&file, map + more).unwrap();
    expected.extend([
        ("name".to_owned(), Value::Text("weir 1".into())),
        ("door".to_owned(), Value::Bool(true)),
        ("light".to_owned(), Value::Bool(true)),
        ("alarm".to_owned(), Value::Bool(true)),
        ("current".to_owned(), Value::Float(-0.5)),
    ]);
    // "weir 1" with its characters swapped in each register, then a NUL.
    let text: Vec<u16> = b"weir 1\0\0".chunks(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    let units = json!({"units": {"7": {
        "holding": [[0, registers]],
        "input": [[5, [0x80]], [6, [0xFF6A]], [9, text]],
        "coil": [[0, [false, false, false, true, false]]],
        "discrete": [[16, [false, true, false]]],
    }}});
    for way in [serial(), network("rtu"), network("socket")] {
        let slave = way.slave(units.clone());
        let toml = format!(
            "{}devices = [{{ device = 'meter', unit_id = 7 }}]\nregisters_file = '{}'",
            way.toml,
            file.display()
        );
        let (config, context) = (config(&toml), context(&Ports::default()));
        let mut source = Modbus::open(&config, &context).await.unwrap();
        let found = round(&mut source).await.unwrap();
        let found: BTreeMap<_, _> = found.into_iter().map(|(_, metric, value)| (metric, value)).collect();
        assert_eq!(found, expected, "{}", way.toml);
        // The types take more than 125 registers, and what lies between tables and gaps is never read.
        let seen = slave.wait("all is asked", |seen| seen.len() >= 8).unwrap();
        let asked: Vec<_> = seen.iter().map(|seen| (seen.function, seen.address, seen.count)).collect();
        let held = u16::try_from(expected.len()).unwrap();
        assert!(held > 125 && asked.iter().filter(|(function, ..)| *function == 3).count() >= 4, "{asked:?}");
        assert!(asked.contains(&(4, 5, 2)) && asked.contains(&(4, 9, 4)), "{asked:?}");
        assert!(asked.contains(&(1, 3, 1)) && asked.contains(&(2, 17, 1)), "{asked:?}");
        assert!(asked.iter().all(|(_, _, count)| *count <= 125));
    }
}

#[tokio::test]
async fn an_sdm120_is_read_by_the_map_that_is_shipped() {
    let way = serial();
    let words = |value: f32| {
        let bits = value.to_bits();
        json!([bits >> 16, bits & 0xFFFF])
    };
    let input = json!([
        [0, words(230.2)],
        [6, words(1.5)],
        [12, words(345.0)],
        [18, words(345.3)],
        [24, words(-12.5)],
        [30, words(0.99)],
        [70, words(50.01)],
        [72, words(1234.5)],
        [74, words(0.25)],
        [76, words(1.0)],
        [78, words(2.0)],
        [342, words(1234.75)],
        [344, words(3.0)],
    ]);
    let slave = way.slave(json!({"units": {"1": {"input": input}}}));
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/registers/sdm120.toml");
    let toml = format!(
        "{}devices = [{{ device = 'm', unit_id = 1 }}]\nregisters_file = '{}'",
        way.toml,
        map.display()
    );
    let (config, context) = (config(&toml), context(&Ports::default()));
    let mut source = Modbus::open(&config, &context).await.unwrap();
    let found: BTreeMap<_, _> =
        round(&mut source).await.unwrap().into_iter().map(|(_, metric, value)| (metric, value)).collect();
    assert_eq!(found["voltage"], Value::Float(f64::from(230.2_f32)));
    assert_eq!(found["frequency"], Value::Float(f64::from(50.01_f32)));
    assert_eq!(found["import_active_energy"], Value::Float(1234.5));
    assert_eq!(found["total_active_energy"], Value::Float(1234.75));
    assert_eq!(refused(&context, Refusal::Exception), 0, "{:?}", slave.seen());
}

/// Three devices with a register each that tells them apart, and whatever else.
fn three(more: Json) -> Json {
    let unit = |value: u16| json!({"holding": [[0, [value]], [10, [value + 1]]]});
    let mut told = json!({"units": {"1": unit(100), "2": unit(200), "3": unit(300)}});
    told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    told
}

fn devices(count: u8, more: &str) -> String {
    let devices: Vec<_> = (1..=count).map(|n| format!("{{ device = 'meter-{n}', unit_id = {n} }}")).collect();
    format!(
        "devices = [{}]\nregisters = [{{ metric = 'a', address = 0 }}, {{ metric = 'b', address = 10 }}]\n{more}",
        devices.join(", ")
    )
}

/// Reads so many rounds and holds each value against its device.
async fn rounds(source: &mut Modbus, count: usize) -> BTreeMap<String, usize> {
    let mut rounds = BTreeMap::new();
    for _ in 0..count {
        let readings = round(source).await.unwrap();
        for (device, metric, value) in &readings {
            let base = 100 * i64::from(device.as_bytes().last().unwrap() - b'0');
            let expected = base + i64::from(metric == "b");
            assert_eq!(*value, Value::Int(expected), "{device}/{metric}");
        }
        *rounds.entry(readings[0].0.clone()).or_default() += 1;
    }
    rounds
}

#[tokio::test]
async fn a_silent_device_and_one_that_answers_late_take_nothing_from_the_third_and_no_answer_is_anothers() {
    for (way, more) in [(serial(), ""), (network("rtu"), ""), (network("socket"), "")] {
        let slave = way.slave(three(json!({"silent": {"2": -1}, "late": {"3": 0.45}})));
        let toml =
            format!("{}{}", way.toml, devices(3, &format!("every = '50ms'\ntimeout = '300ms'\n{more}")));
        let (config, context) = (config(&toml), context(&Ports::default()));
        let mut source = Modbus::open(&config, &context).await.unwrap();
        let found = rounds(&mut source, 60).await;
        // On a serial line the answer to the first asking may be taken for that to the second: it is the same thing.
        assert!(found["meter-1"] > 40 && !found.contains_key("meter-2"), "{}: {found:?}", way.toml);
        assert!(!way.toml.contains("address") || way.toml.contains("rtu") || !found.contains_key("meter-3"));
        assert!(refused(&context, Refusal::NoAnswer) >= 2, "{}", way.toml);
        assert!(refused(&context, Refusal::Late) >= 1, "{}: {:?}", way.toml, slave.seen());
    }
}

#[tokio::test]
async fn a_late_answer_of_a_device_is_not_taken_for_its_own_next_register() {
    let way = serial();
    // It is late by more than the timeout and by less than two: where it is asked again, the first answer comes then.
    let _slave = way.slave(three(json!({"late": {"1": 0.45}})));
    let toml = format!("{}{}", way.toml, devices(1, "every = '30ms'\ntimeout = '300ms'\nretries = 3"));
    let (config, context) = (config(&toml), context(&Ports::default()));
    let mut source = Modbus::open(&config, &context).await.unwrap();
    let found = rounds(&mut source, 6).await;
    assert_eq!(found["meter-1"], 6);
    assert!(refused(&context, Refusal::NoAnswer) > 0);
}

#[tokio::test]
async fn a_damaged_answer_is_counted_and_asked_for_again() {
    let way = serial();
    let _slave = way.slave(three(json!({"damaged": {"1": 3}})));
    let toml = format!("{}{}", way.toml, devices(2, "every = '20ms'"));
    let (config, context) = (config(&toml), context(&Ports::default()));
    let mut source = Modbus::open(&config, &context).await.unwrap();
    let found = rounds(&mut source, 40).await;
    // Where the line is too slow for the beat, they still take turns.
    assert!(found["meter-1"] >= 18 && found["meter-2"] >= 18, "{found:?}");
    assert!(refused(&context, Refusal::Checksum) >= 10, "{}", refused(&context, Refusal::Checksum));
    assert_eq!(refused(&context, Refusal::NoAnswer), 0);
}

#[tokio::test]
async fn what_a_device_does_not_have_is_counted_and_costs_the_rest_nothing() {
    for way in [serial(), network("socket")] {
        let slave = way.slave(json!({"units": {"1": {"holding": [[0, [1, 2]], [6, [7]]]}}}));
        // 2 and 5 lie between, which it does not have; 8 it does not have either.
        let toml = format!(
            "{}every = '20ms'\nmax_gap = 8\nregisters = [\n{}]",
            way.toml,
            [("a", 0), ("b", 1), ("c", 6), ("d", 8)]
                .map(|(metric, address)| format!(
                    "{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address} }},\n"
                ))
                .concat()
        );
        let (config, context) = (config(&toml), context(&Ports::default()));
        let mut source = Modbus::open(&config, &context).await.unwrap();
        for _ in 0..5 {
            let found = round(&mut source).await.unwrap();
            let found: Vec<_> =
                found.iter().map(|(_, metric, value)| (metric.as_str(), value.clone())).collect();
            assert_eq!(found, [("a", Value::Int(1)), ("b", Value::Int(2)), ("c", Value::Int(7))]);
        }
        let asked: Vec<_> = slave.seen().iter().map(|seen| (seen.address, seen.count)).collect();
        assert_eq!(
            asked[..5],
            [(0, 9), (0, 2), (6, 1), (8, 1), (0, 2)],
            "the gaps are given up once and for all"
        );
        assert_eq!(refused(&context, Refusal::Exception), 6);
    }
}

#[tokio::test]
async fn a_device_that_is_silent_about_one_thing_alone_goes_on_to_be_read() {
    for beats in ["", ", every = '25ms'"] {
        let way = serial();
        let slave = way.slave(three(json!({"mute": {"1": 10}})));
        let toml = format!(
            "{}every = '20ms'\ntimeout = '300ms'\nretries = 0\nregisters = [{{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }}, \
             {{ unit_id = 1, device = 'meter-1', metric = 'b', address = 10, type = 'u32'{beats} }}]",
            way.toml
        );
        let (config, context) = (config(&toml), context(&Ports::default()));
        let mut source = Modbus::open(&config, &context).await.unwrap();
        rounds(&mut source, 100).await;
        let seen = slave.seen();
        let vain = seen.iter().filter(|seen| seen.address == 10).count();
        assert!((2..10).contains(&vain), "{vain} of {}", seen.len());
        assert!(refused(&context, Refusal::NoAnswer) >= vain as u64 - 1);
    }
}

#[tokio::test]
async fn two_sources_take_turns_on_one_line() {
    for way in [serial(), network("socket")] {
        let slave = way.slave(three(json!({})));
        let ports = Ports::default();
        let toml = format!("{}every = '10ms'\n", way.toml);
        let one_toml =
            format!("{toml}registers = [{{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }}]");
        let other_toml =
            format!("{toml}registers = [{{ unit_id = 2, device = 'meter-2', metric = 'a', address = 0 }}]");
        let (one_context, other_context) = (context(&ports), context(&ports));
        let mut one = Modbus::open(&config(&one_toml), &one_context).await.unwrap();
        let mut other = Modbus::open(&config(&other_toml), &other_context).await.unwrap();
        let (found, too) = tokio::join!(rounds(&mut one, 50), rounds(&mut other, 50));
        assert_eq!((found["meter-1"], too["meter-2"]), (50, 50));
        let seen = slave.seen();
        let longest = seen.chunk_by(|one, next| one.unit == next.unit).map(<[Seen]>::len).max().unwrap();
        assert!(longest <= 6, "one had {longest} turns in a row");
        // With both gone the line is closed at once, so that somebody else may open it.
        drop((one, other));
        let (again, alone) = (config(&one_toml), context(&Ports::default()));
        Modbus::open(&again, &alone).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_read_before_the_plug_was_pulled_in_the_midst_of_a_round_goes_out_first() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    let (pull, pulled) = std::sync::mpsc::channel();
    script(&pty, move |request| {
        if request[3] == 0 {
            return sealed(&[request[0], 3, 2, 0, 100]);
        }
        pull.send(()).unwrap();
        Vec::new()
    });
    let mut source = Modbus::open(&on(&pty, &devices(1, "every = '10ms'")), &context).await.unwrap();
    thread::spawn(move || {
        pulled.recv().unwrap();
        drop(pty);
    });
    let first = round(&mut source).await.unwrap();
    assert_eq!(first, [("meter-1".into(), "a".into(), Value::Int(100))]);
    let error = round(&mut source).await.unwrap_err();
    assert!(error.to_string().contains("it was unplugged"), "{error}");
}

#[tokio::test]
async fn a_port_that_another_program_has_is_refused() {
    let pty = Pty::open().unwrap();
    let toml = format!(
        "port = '{}'\nparity = 'none'\nregisters = [{{ unit_id = 1, metric = 'a', address = 0 }}]",
        pty.port().display()
    );
    let (config, first, second) = (config(&toml), context(&Ports::default()), context(&Ports::default()));
    let _open = Modbus::open(&config, &first).await.unwrap();
    let error = Modbus::open(&config, &second).await.unwrap_err();
    assert!(error.to_string().contains("another program, or another source, has it open"), "{error}");
}

/// Serves RTU on a terminal: each request of eight bytes goes through `answer`, until that gives none at all, as the
/// plug can only be pulled once nobody has the device's end.
fn script(pty: &Pty, mut answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static) {
    let mut device = pty.device().unwrap();
    thread::spawn(move || {
        let mut request = [0; 8];
        while device.read_exact(&mut request).is_ok() {
            let answer = answer(&request);
            if answer.is_empty() || device.write_all(&answer).is_err() {
                break;
            }
        }
    });
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &rtu::crc(body).to_le_bytes()].concat()
}

fn on(pty: &Pty, rest: &str) -> Config {
    config(&format!("port = '{}'\nbaud = 115200\nparity = 'none'\n{rest}", pty.port().display()))
}

#[tokio::test]
async fn an_echo_stray_bytes_and_answers_of_others_are_told_from_the_answer() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    let mut turn = 0_u8;
    script(&pty, move |request| {
        turn += 1;
        let right = sealed(&[request[0], 3, 2, 0, 100 * request[0]]);
        match turn % 5 {
            0 => [request, &right[..]].concat(),
            1 => [&[0, 0xFF], &right[..]].concat(),
            // Another unit's answer to the same question, another function's, and one of another length.
            2 => [sealed(&[9, 3, 2, 0, 9]), right].concat(),
            3 => [sealed(&[request[0], 4, 2, 0, 9]), right].concat(),
            _ => [sealed(&[request[0], 3, 4, 0, 9, 0, 9]), right].concat(),
        }
    });
    let config = on(
        &pty,
        "every = '10ms'\nregisters = [{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }]",
    );
    let mut source = Modbus::open(&config, &context).await.unwrap();
    assert_eq!(rounds(&mut source, 20).await["meter-1"], 20);
    assert_eq!(refused(&context, Refusal::NoAnswer) + refused(&context, Refusal::Checksum), 0);
    assert_eq!(refused(&context, Refusal::Late), 12);
}

#[tokio::test]
async fn a_unit_that_answers_under_another_number_and_a_damaged_answer_behind_a_late_one_are_no_silence() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    script(&pty, |request| match request[0] {
        1 => sealed(&[1, 3, 2, 0, 100]),
        2 => [&sealed(&[9, 3, 2, 0, 9])[..], &[2, 3, 2, 0, 200, 0, 0]].concat(),
        _ => [request, &sealed(&[6, 3, 2, 0, 100])[..]].concat(),
    });
    let registers = [1, 2, 5]
        .map(|unit| format!("{{ unit_id = {unit}, device = 'meter-{unit}', metric = 'a', address = 0 }}"));
    let toml =
        format!("every = '20ms'\ntimeout = '80ms'\nretries = 1\nregisters = [{}]", registers.join(", "));
    let mut source = Modbus::open(&on(&pty, &toml), &context).await.unwrap();
    let mut watcher = context.stats.tap().watch(context.clock.clone());
    assert_eq!(rounds(&mut source, 40).await["meter-1"], 40);
    assert!(refused(&context, Refusal::OtherUnit) >= 2, "{}", refused(&context, Refusal::OtherUnit));
    assert!(refused(&context, Refusal::Checksum) >= 2, "{}", refused(&context, Refusal::Checksum));
    assert_eq!(refused(&context, Refusal::NoAnswer), 0);
    let mut words = String::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, watcher.next()).await {
        words += &format!("{event:?}\n");
    }
    assert!(words.contains("unit 6 answered instead: check the device's address"), "{words}");
}

#[tokio::test]
async fn an_exception_is_told_from_silence_and_what_is_no_number_gives_no_reading() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    script(&pty, |request| match request[3] {
        0 => sealed(&[&[request[0], 3, 4][..], &f32::NAN.to_be_bytes()].concat()),
        2 => sealed(&[&[request[0], 3, 4][..], &f32::INFINITY.to_be_bytes()].concat()),
        4 => sealed(&[&[request[0], 3, 4][..], &21.5_f32.to_be_bytes()].concat()),
        _ => sealed(&[request[0], 0x83, 6]),
    });
    let registers = [("nan", 0), ("inf", 2), ("t", 4), ("busy", 9)].map(|(metric, address)| {
        // With beats of their own they are not read together.
        let every = 40 + address;
        format!("{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address}, type = 'f32', every = '{every}ms' }}")
    });
    let config = on(&pty, &format!("registers = [{}]", registers.join(", ")));
    let mut source = Modbus::open(&config, &context).await.unwrap();
    for _ in 0..10 {
        assert_eq!(round(&mut source).await.unwrap(), [("m".into(), "t".into(), Value::Float(21.5))]);
    }
    assert!(refused(&context, Refusal::NotFinite) >= 16, "{}", refused(&context, Refusal::NotFinite));
    assert!(refused(&context, Refusal::Exception) >= 8);
    assert_eq!(refused(&context, Refusal::NoAnswer), 0);
}

#[tokio::test]
async fn a_device_that_babbles_without_end_keeps_the_others_waiting_for_a_bounded_time() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    script(&pty, |request| match request[0] {
        1 => sealed(&[1, 3, 2, 0, 100]),
        _ => vec![0x55; 3000],
    });
    let toml = "every = '20ms'\ntimeout = '50ms'\nretries = 0\nregisters = [{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }, \
                { unit_id = 2, device = 'meter-2', metric = 'a', address = 0 }]";
    let mut source = Modbus::open(&on(&pty, toml), &context).await.unwrap();
    let begun = context.clock.monotonic();
    assert_eq!(rounds(&mut source, 50).await["meter-1"], 50);
    let took = context.clock.monotonic() - begun;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(refused(&context, Refusal::Checksum) > 0);
}

#[tokio::test]
async fn a_look_that_is_given_up_goes_on_with_the_next() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    script(&pty, |request| {
        thread::sleep(Duration::from_millis(20));
        sealed(&[request[0], 3, 2, 0, 100])
    });
    let toml = "every = '10ms'\nregisters = [{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }]";
    let mut source = Modbus::open(&on(&pty, toml), &context).await.unwrap();
    let (mut looks, mut found) = (0, 0);
    while found < 10 {
        looks += 1;
        assert!(looks < 10_000, "nothing comes of it");
        if let Ok(batch) = tokio::time::timeout(Duration::from_millis(1), source.next()).await {
            found += batch.unwrap().readings.len();
        }
    }
    assert!(looks > 20, "{looks}");
    assert_eq!(refused(&context, Refusal::NoAnswer) + refused(&context, Refusal::Late), 0);
}

#[tokio::test]
async fn an_unplugged_port_is_gone_and_one_that_is_not_there_is_missing() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    let mut answers = 0;
    script(&pty, move |request| {
        answers += 1;
        if answers > 3 { Vec::new() } else { sealed(&[request[0], 3, 2, 0, 100]) }
    });
    let config = on(
        &pty,
        "every = '10ms'\nregisters = [{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }]",
    );
    let mut source = Modbus::open(&config, &context).await.unwrap();
    rounds(&mut source, 3).await;
    let port = pty.port().display().to_string();
    drop(pty);
    let error = loop {
        match round(&mut source).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), format!("{port} went away: it was unplugged"));
    drop(source);
    let error = Modbus::open(&config, &context).await.unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }), "{error}");
    let nobody = format!(
        "address = '127.0.0.1:{}'\nregisters = [{{ unit_id = 1, metric = 'a', address = 0 }}]",
        free()
    );
    let error = Modbus::open(&toml::from_str(&nobody).unwrap(), &context).await.unwrap_err();
    assert!(error.to_string().contains("connection refused: nothing listens"), "{error}");
}

/// Serves Modbus TCP by hand: each request goes through `answer`, which says whether the connection goes on.
fn serve(answer: impl FnMut(&[u8], &mut TcpStream) -> bool + Send + 'static) -> u16 {
    serve_frames::<12>(answer)
}

/// Serves whatever has requests of so many bytes.
fn serve_frames<const LENGTH: usize>(
    mut answer: impl FnMut(&[u8], &mut TcpStream) -> bool + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; LENGTH];
            while stream.read_exact(&mut request).is_ok() && answer(&request, &mut stream) {}
        }
    });
    port
}

fn reply(request: &[u8], values: &[u8]) -> Vec<u8> {
    let length = u8::try_from(values.len()).unwrap();
    [&request[..4], &[0, 3 + length, request[6], request[7], length], values].concat()
}

fn over(port: u16, rest: &str) -> Config {
    config(&format!("address = '127.0.0.1:{port}'\n{rest}"))
}

#[tokio::test]
async fn a_connection_that_its_other_end_closes_after_each_answer_is_made_anew_without_a_word() {
    let port = serve(|request, stream| {
        stream.write_all(&reply(request, &[0, 100])).unwrap();
        false
    });
    let context = context(&Ports::default());
    let toml = "every = '20ms'\nregisters = [{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }]";
    let mut source = Modbus::open(&over(port, toml), &context).await.unwrap();
    assert_eq!(rounds(&mut source, 10).await["meter-1"], 10);
}

#[tokio::test]
async fn a_connection_on_which_nobody_answers_any_more_is_made_anew() {
    let mut count = 0;
    let port = serve(move |request, stream| {
        count += 1;
        // After three answers it has forgotten the connection.
        if count % 6 < 3 {
            stream.write_all(&reply(request, &[0, 100])).unwrap();
        }
        true
    });
    let context = context(&Ports::default());
    let toml = "every = '20ms'\ntimeout = '30ms'\nregisters = [{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }]";
    let mut source = Modbus::open(&over(port, toml), &context).await.unwrap();
    assert_eq!(rounds(&mut source, 8).await["meter-1"], 8);
}

#[tokio::test]
async fn what_is_no_modbus_tcp_is_told_so() {
    let port = serve(|_, stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_ok());
    let context = context(&Ports::default());
    let toml = "every = '20ms'\nregisters = [{ unit_id = 1, metric = 'a', address = 0 }]";
    let mut source = Modbus::open(&over(port, toml), &context).await.unwrap();
    let error = round(&mut source).await.unwrap_err();
    assert!(error.to_string().contains("no Modbus TCP"), "{error}");
}

/// What a tap says first of what was refused for that cause.
async fn told(source: &mut Modbus, context: &Context, cause: &str) -> String {
    let mut watcher = context.stats.tap().watch(context.clock.clone());
    let refused = async {
        loop {
            match watcher.next().await.unwrap().what {
                What::Refused { cause: one, why, .. } if one == cause => break why,
                _ => {}
            }
        }
    };
    tokio::select! {
        why = refused => why,
        batch = source.next() => panic!("it says {batch:?}"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("nothing is told"),
    }
}

#[tokio::test]
async fn modbus_tcp_where_rtu_is_asked_for_is_told_so_and_rtu_where_modbus_tcp_is() {
    let toml = "every = '20ms'\ntimeout = '200ms'\nretries = 0\n\
         registers = [{ unit_id = 1, device = 'm', metric = 'a', address = 0, type = 'u32' }]";
    let (rtu, context) = (format!("framing = 'rtu'\n{toml}"), context(&Ports::default()));
    // A request in RTU for two registers from 0 on is one of Modbus TCP, for a unit and a function that are the CRC.
    let port = serve_frames::<8>(|request, stream| {
        let exception = [request[0], request[1], 0, 0, 0, 3, request[6], request[7] | 0x80, 1];
        stream.write_all(&exception).is_ok()
    });
    let mut source = Modbus::open(&over(port, &rtu), &context).await.unwrap();
    let why = told(&mut source, &context, "checksum").await;
    let tcp = "the answer of m for holding 0 to 1 is Modbus TCP, and `framing` says \"rtu\": write `framing = \"tcp\"`";
    assert_eq!(why, tcp);
    // What is neither.
    let port = serve_frames::<8>(|_, stream| stream.write_all(b"HTTP/1.1 400").is_ok());
    let mut source = Modbus::open(&over(port, &rtu), &context).await.unwrap();
    let why = told(&mut source, &context, "checksum").await;
    assert!(why.contains("check `framing`") && !why.contains("parity"), "{why}");
    // An exception in RTU has fewer bytes than the header of Modbus TCP.
    let port = serve(|request, stream| stream.write_all(&sealed(&[request[6], 0x83, 1])).is_ok());
    let mut source = Modbus::open(&over(port, toml), &context).await.unwrap();
    let error = round(&mut source).await.unwrap_err();
    assert!(error.to_string().contains("`framing = \"rtu\"`"), "{error}");
}

#[tokio::test]
async fn a_late_answer_over_modbus_tcp_is_known_by_its_transaction_though_it_fits_in_all_else() {
    let mut late: Option<Vec<u8>> = None;
    let port = serve(move |request, stream| {
        // Each second answer is held back until after the next request, and then told first.
        let address = request[9];
        let answer = reply(request, &[0, 100 + u8::from(address == 10)]);
        match late.take() {
            None => late = Some(answer),
            Some(held) => stream.write_all(&[held, answer].concat()).unwrap(),
        }
        true
    });
    let context = context(&Ports::default());
    let config = over(port, &devices(1, "every = '10ms'\ntimeout = '40ms'\nretries = 0"));
    let mut source = Modbus::open(&config, &context).await.unwrap();
    rounds(&mut source, 8).await;
    assert!(refused(&context, Refusal::Late) >= 8);
}

/// The register at that address as a slave tells it: ten times its address.
fn tenfold(request: &[u8]) -> Vec<u8> {
    let count = request[5];
    let values = (0..count).flat_map(|n| [0, 10 * (request[3] + n)]);
    sealed(&[request[0], request[1], 2 * count].into_iter().chain(values).collect::<Vec<_>>())
}

fn asking(metric: &str, address: u8, rest: &str) -> String {
    let one = format!("{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address} }}");
    format!("every = '10ms'\nretries = 0\n{rest}\nregisters = [{one}]")
}

#[tokio::test]
async fn a_late_answer_is_not_taken_for_what_another_source_asks_on_the_same_line() {
    let (pty, ports) = (Pty::open().unwrap(), Ports::default());
    let mut first = true;
    script(&pty, move |request| {
        // The first is late by less than the next one's timeout.
        if std::mem::take(&mut first) {
            thread::sleep(Duration::from_millis(400));
        }
        tenfold(request)
    });
    let (one_context, other_context) = (context(&ports), context(&ports));
    let timeout = "timeout = '300ms'";
    let mut one = Modbus::open(&on(&pty, &asking("a", 10, timeout)), &one_context).await.unwrap();
    let mut other = Modbus::open(&on(&pty, &asking("b", 20, timeout)), &other_context).await.unwrap();
    let (a, b) = tokio::join!(round(&mut one), round(&mut other));
    assert_eq!(a.unwrap(), [("m".into(), "a".into(), Value::Int(100))]);
    assert_eq!(b.unwrap(), [("m".into(), "b".into(), Value::Int(200))]);
    assert_eq!(refused(&one_context, Refusal::NoAnswer) + refused(&other_context, Refusal::NoAnswer), 1);
}

/// Asks for one register, goes away while the request is out, and asks for another, on those lines.
async fn asks_anew(ports: &Ports, more: &Ports, late: Duration, timeout: &str) {
    let pty = Pty::open().unwrap();
    let (asked, is_asked) = std::sync::mpsc::channel();
    let mut first = true;
    script(&pty, move |request| {
        if std::mem::take(&mut first) {
            asked.send(()).unwrap();
            thread::sleep(late);
        }
        tenfold(request)
    });
    let mut one = Modbus::open(&on(&pty, &asking("a", 10, "timeout = '1s'")), &context(ports)).await.unwrap();
    let waits = async {
        while is_asked.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        found = round(&mut one) => panic!("it is late: {found:?}"),
        () = waits => {}
    }
    drop(one);
    let config = on(&pty, &asking("b", 20, &format!("timeout = '{timeout}'")));
    let mut other = Modbus::open(&config, &context(more)).await.unwrap();
    assert_eq!(round(&mut other).await.unwrap(), [("m".into(), "b".into(), Value::Int(200))]);
}

#[tokio::test]
async fn an_answer_to_who_went_away_is_not_taken_for_the_next_ones() {
    let ports = Ports::default();
    // The next waits for its own timeout before it asks: what is in doubt is known beyond that.
    asks_anew(&ports, &ports, Duration::from_millis(225), "150ms").await;
}

#[tokio::test]
async fn an_answer_to_a_program_that_ended_is_not_taken_for_the_next_ones() {
    asks_anew(&Ports::default(), &Ports::default(), Duration::from_millis(300), "500ms").await;
}

#[tokio::test]
async fn a_late_exception_splits_no_request_of_another_length() {
    let (pty, ports) = (Pty::open().unwrap(), Ports::default());
    let (tell, told) = std::sync::mpsc::channel();
    let mut first = true;
    script(&pty, move |request| {
        tell.send((request[3], request[5])).unwrap();
        if request[3] == 10 && std::mem::take(&mut first) {
            thread::sleep(Duration::from_millis(400));
            return sealed(&[request[0], 0x83, 2]);
        }
        tenfold(request)
    });
    let (one_context, other_context) = (context(&ports), context(&ports));
    let timeout = "timeout = '300ms'";
    let mut one = Modbus::open(&on(&pty, &asking("a", 10, timeout)), &one_context).await.unwrap();
    let two = "every = '10ms'\nretries = 0\ntimeout = '300ms'\nregisters = [{ unit_id = 1, device = 'm', metric = 'b', address = 20 }, \
               { unit_id = 1, device = 'm', metric = 'c', address = 21 }]";
    let mut other = Modbus::open(&on(&pty, two), &other_context).await.unwrap();
    let both = [("m".into(), "b".into(), Value::Int(200)), ("m".into(), "c".into(), Value::Int(210))];
    let (a, b) = tokio::join!(round(&mut one), round(&mut other));
    assert_eq!(a.unwrap(), [("m".into(), "a".into(), Value::Int(100))]);
    assert_eq!(b.unwrap(), both);
    assert_eq!(round(&mut other).await.unwrap(), both);
    let asked: Vec<_> = told.try_iter().collect();
    assert!(asked.iter().all(|one| [(10, 1), (20, 2)].contains(one)), "{asked:?}");
    assert_eq!(refused(&other_context, Refusal::Exception), 0);
    assert_eq!(refused(&other_context, Refusal::Late), 1);
}

#[tokio::test]
async fn a_connection_that_brings_bytes_without_end_is_given_up_and_made_anew() {
    // Whole frames of other transactions, and noise.
    for (framing, piece) in [("tcp", [0, 1, 0, 0, 0, 3, 1, 0x83, 2].repeat(500)), ("rtu", vec![0x55; 4096])] {
        let (count, counted) = std::sync::mpsc::channel();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                if count.send(()).is_err() {
                    return;
                }
                let mut request = [0; 1];
                if stream.read_exact(&mut request).is_ok() {
                    while stream.write_all(&piece).is_ok() {}
                }
            }
        });
        let context = context(&Ports::default());
        let rest = asking("a", 10, &format!("timeout = '100ms'\nframing = '{framing}'"));
        let mut source = Modbus::open(&over(port, &rest), &context).await.unwrap();
        let look = tokio::time::timeout(Duration::from_secs(2), source.next()).await;
        assert!(look.is_err(), "{framing}: nothing is read of it");
        assert!(counted.try_iter().count() >= 2, "{framing}: it is given up");
        assert!(refused(&context, Refusal::Checksum) >= 2, "{framing}: and counted");
        let bytes = context.stats.bytes.load(std::sync::atomic::Ordering::Relaxed);
        assert!((16 * 1024..4 * 1024 * 1024).contains(&bytes), "{framing}: {bytes}");
    }
}

#[tokio::test]
async fn two_late_answers_in_one_piece_are_two_and_what_stands_behind_an_answer_is_counted() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    let other = |unit: u8| sealed(&[unit, 3, 2, 0, 9]);
    script(&pty, move |request| [other(8), other(9), tenfold(request), other(7)].concat());
    let mut source = Modbus::open(&on(&pty, &asking("a", 10, "")), &context).await.unwrap();
    assert_eq!(round(&mut source).await.unwrap(), [("m".into(), "a".into(), Value::Int(100))]);
    assert_eq!(refused(&context, Refusal::Late), 3);
}

/// How many rounds of the first two devices a second sees, where there are so many devices.
async fn rate(count: u8, silent: Json) -> f64 {
    let way = serial();
    let slave = way.slave(three(json!({"silent": silent})));
    let toml = format!("{}{}", way.toml, devices(count, "every = '50ms'\ntimeout = '200ms'"));
    let (config, context) = (config(&toml), context(&Ports::default()));
    let mut source = Modbus::open(&config, &context).await.unwrap();
    // The first rests are short: what is measured is how it goes on.
    rounds(&mut source, 150).await;
    let from = slave.seen().last().unwrap().at;
    rounds(&mut source, 300).await;
    let seen = slave.seen();
    let after: Vec<_> = seen.iter().filter(|seen| seen.at > from && seen.unit < 3).collect();
    // Two requests a round.
    f64::from(u32::try_from(after.len()).unwrap()) / 2.0 / (seen.last().unwrap().at - from)
}

#[tokio::test]
async fn a_dead_device_costs_the_others_a_twentieth_at_most() {
    let without = rate(2, json!({})).await;
    let with = rate(3, json!({"3": -1})).await;
    println!("rounds a second of two devices every 50 ms: {without:.1}, with a dead third {with:.1}");
    assert!(with > 0.9 * without, "{with} of {without}");
}

#[test]
fn the_real_binary_reads_two_tables_on_one_port_and_goes_on_when_it_is_plugged_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let socat = Socat::start(dir.path()).unwrap();
    let told = |more| {
        let mut told = three(json!({"serial": socat.device(), "framer": "rtu"}));
        told.as_object_mut().unwrap().insert("silent".to_owned(), more);
        told
    };
    // The third is silent for three tries of its first round and for the first time that it is asked again.
    let slave = Slave::start(&told(json!({"3": 4}))).unwrap();
    let again = told(json!({}));
    let table = |name: &str, unit: u8| {
        format!(
            "[sources.{name}]\ntype = 'modbus'\nport = '{}'\nbaud = 115200\nparity = 'none'\nevery = '100ms'\ntimeout = '1s'\n\
             registers = [{{ unit_id = {unit}, metric = 'a', address = 0, unit = 'V' }}]\n\n",
            socat.port().display()
        )
    };
    let mut site = Site::new(&(table("one", 1) + &table("two", 2) + &table("three", 3)));
    site.agent.start().unwrap();
    let is = |data: &Json, device: &str, value: u64| {
        data["device"] == device
            && data["metrics"]["a"]["value"] == value
            && data["metrics"]["a"]["unit"] == "V"
    };
    let devices = [("one", 100), ("two", 200), ("three", 300)];
    let all = |data: &[Json], from: usize| {
        let read =
            |(device, value): &(&str, u64)| data.iter().skip(from).any(|data| is(data, device, *value));
        devices.iter().all(read)
    };
    let before = site.data("all tables are read", |data| all(data, 0)).len();
    site.agent.wait_for("three (unit 3) answers again after").unwrap();
    let log = site.agent.log();
    let count = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("three (unit 3) does not answer: it is asked again ever more rarely"), 1, "{log:#?}");
    assert_eq!(count("three (unit 3) answers again after"), 1, "{log:#?}");
    drop(slave);
    drop(socat);
    site.agent.wait_for("went away: it was unplugged").unwrap();
    let _socat = Socat::start(dir.path()).unwrap();
    let _slave = Slave::start(&again).unwrap();
    site.agent.wait_for("open again after").unwrap();
    let more = before + 10;
    let data = site.data("all are read again", |data| data.len() > more && all(data, more));
    let right = |data: &Json| devices.iter().any(|(device, value)| is(data, device, *value));
    assert!(data.iter().all(right), "{data:#?}");
    let log = site.agent.log();
    assert!(!log.iter().any(|line| line.contains("has it open")), "{log:#?}");
    assert!(site.agent.terminate().unwrap().success());
}

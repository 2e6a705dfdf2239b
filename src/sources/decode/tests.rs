use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Reading, Stamp, Timestamp, Value};

/// Device, metric, value and time.
pub(super) type Found = (String, String, Value, Option<i64>);

/// Arrived at half past two in the night of 2023-11-14, by a trusted clock.
pub(super) const ARRIVAL: i64 = 1_700_000_000_000;

pub(super) fn readings() -> Readings {
    Readings::new(Stamp { wall: Timestamp(ARRIVAL), monotonic: Duration::ZERO, synced: true })
}

pub(super) fn all(readings: &Readings) -> Vec<Found> {
    let own = |(_, reading): (u32, Reading<'_>)| {
        let time = reading.time.map(|time| time.of(readings.arrival.wall).0);
        (reading.device.to_owned(), reading.metric.to_owned(), reading.value.to_owned(), time)
    };
    readings.iter().map(own).collect()
}

pub(super) fn found(device: &str, metric: &str, value: Value, time: Option<i64>) -> Found {
    (device.to_owned(), metric.to_owned(), value, time)
}

/// What a decoder, as configured by `decode` in TOML, makes of frames that follow one another on one stream, from
/// `here` where they name no device.
pub(super) fn stream(toml: &str, frames: &[&[u8]]) -> Vec<Result<(Vec<Found>, LeftOut), String>> {
    let config: Config = toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"));
    assert_eq!(config.problems(), [], "{toml}");
    let (mut decoder, mut learnt) = (Decoder::new(&config), Learnt::default());
    let mut decode = |frame: &&[u8]| {
        let mut out = readings();
        let decoded = decoder.decode(frame, "here", &mut learnt, &mut out);
        assert!(decoded.is_ok() || out.is_empty(), "a refused frame gave readings");
        decoded.map(|left_out| (all(&out), left_out)).map_err(|error| error.to_string())
    };
    frames.iter().map(&mut decode).collect()
}

/// What a decoder makes of one frame.
pub(super) fn one(toml: &str, frame: impl AsRef<[u8]>) -> Result<(Vec<Found>, LeftOut), String> {
    stream(toml, &[frame.as_ref()]).pop().unwrap()
}

/// The keys at which the configuration has problems.
pub(super) fn problems(toml: &str) -> Vec<&'static str> {
    let config: Config = toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"));
    config.problems().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn a_frame_of_more_readings_than_anybody_sends_gives_none() {
    let json = |count: usize| format!("{{{}}}", vec!["\"a\":1"; count].join(","));
    let senml = |count: usize| format!("[{{\"bn\":\"d/m\",\"v\":1}}{}]", ",{\"v\":1}".repeat(count - 1));
    for (toml, frame) in [("type = 'json'", &json as &dyn Fn(usize) -> String), ("type = 'senml'", &senml)] {
        assert_eq!(one(toml, frame(FRAME_READINGS)).unwrap().0.len(), FRAME_READINGS, "{toml}");
        let error = one(toml, frame(FRAME_READINGS + 1)).unwrap_err();
        assert!(error.contains("more than 4096 readings"), "{toml}: {error}");
    }
}

/// A file of `tests/golden/decode/`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    text: Option<String>,
    hex: Option<String>,
    decode: Config,
    readings: Vec<String>,
}

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn shown((_, reading): (u32, Reading<'_>)) -> String {
    let value = match reading.value {
        Value::Float(x) => x.to_string(),
        Value::Int(x) => x.to_string(),
        Value::Uint(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        Value::Text(x) => format!("{x:?}"),
    };
    let unit = reading.unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    let time = reading.time.map(|time| format!(" @{}", time.of(Timestamp(ARRIVAL)))).unwrap_or_default();
    format!("{} {} {value}{unit}{time}", reading.device, reading.metric)
}

#[test]
fn what_others_have_published_is_read_as_they_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/decode");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read_to_string(&path).unwrap();
        let golden: Golden = toml::from_str(&file).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(golden.decode.problems(), [], "{path:?}");
        let frame = match (golden.text, golden.hex) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(hex)) => bytes(&hex),
            _ => panic!("{path:?} needs `text` or `hex`"),
        };
        let mut out = readings();
        let decoded = Decoder::new(&golden.decode).decode(&frame, "here", &mut Learnt::default(), &mut out);
        assert_eq!(decoded.map_err(|error| error.to_string()), Ok(LeftOut::default()), "{path:?}");
        assert_eq!(out.iter().map(shown).collect::<Vec<_>>(), golden.readings, "{path:?}");
        count += 1;
    }
    assert_eq!(count, 13);
}

#[test]
fn a_value_that_is_not_finite_becomes_no_reading_in_any_decoder() {
    let large = "scale = 1e300";
    for (toml, frame) in [
        (format!("type = 'text'\nmetric = 'm'\n{large}"), &b"1e300"[..]),
        (format!("type = 'key_value'\nfields = [{{ from = 'm', {large} }}]"), b"m=1e300"),
        (format!("type = 'json'\nfields = [{{ from = '/m', metric = 'm', {large} }}]"), br#"{"m": 1e300}"#),
        (format!("type = 'csv'\ncolumns = ['m']\nfields = [{{ from = 'm', {large} }}]"), b"1e300"),
    ] {
        assert!(one(&toml, frame).is_err(), "{toml}");
    }
    for wrong in ["scale = 0", "scale = nan", "scale = inf", "offset = nan", "scale = 'x'"] {
        let toml = format!("type = 'text'\nmetric = 'm'\n{wrong}");
        assert!(toml::from_str::<Config>(&toml).is_err(), "{wrong}");
    }
}

#[test]
fn a_device_name_that_is_too_long_costs_the_frames_readings_and_is_counted() {
    let long = "x".repeat(129);
    for (toml, frame) in [
        ("type = 'key_value'\ndevice = 'id'", format!("id={long} t=1 h=2")),
        ("type = 'csv'\ncolumns = ['id', 't', 'h']\ndevice = 'id'", format!("{long},1,2")),
        ("type = 'regex'\npattern = '(?<id>x+) (?<t>.) (?<h>.)'\ndevice = 'id'", format!("{long} 1 2")),
        (
            "type = 'json'\ndevice = '/id'\nfields = [{ from = '/t', metric = 't' }, { from = '/h', metric = 'h' }]",
            format!(r#"{{"id": "{long}", "t": 1, "h": 2}}"#),
        ),
        ("type = 'senml'", format!(r#"[{{"bn": "{long}/", "n": "t", "v": 1}}, {{"n": "h", "v": 2}}]"#)),
    ] {
        assert_eq!(one(toml, frame), Ok((vec![], LeftOut { bad_names: 2, ignored: 0 })), "{toml}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic_and_a_refused_frame_adds_nothing(
        frames in proptest::collection::vec(frame(), 1..4),
        decoder in 0..CONFIGS.len(),
    ) {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        stream(CONFIGS[decoder], &frames);
    }
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "[a-d=,; \"\n0-9.-]{0,60}".prop_map(String::into_bytes),
        r#"(\[|\{|"(n|bn|v|vs|t|bt|a)":|[0-9]{1,3}|"x/y"|,|\}|\]){0,20}"#.prop_map(String::into_bytes),
    ]
}

const CONFIGS: [&str; 9] = [
    "type = 'csv'",
    "type = 'csv'\ndevice = 'a'\nfields = [{ from = 'b' }]",
    "type = 'csv'\ncolumns = ['a', 'b', 'c']\ntime = 'a'\ntime_unit = 'rfc3339'",
    "type = 'json'\ndevice = '/a'\nfields = [{ from = '/b/0', metric = 'b' }, { from = '', metric = 'c' }]",
    "type = 'key_value'\ntime = 'a'\ntime_unit = 'ns'",
    "type = 'regex'\npattern = '(?<a>[0-9]+)(?<b>.*)'\ndevice = 'b'",
    "type = 'senml'\ntext = true",
    "type = 'text'\nmetric = 'm'",
    "type = 'binary'\ndevice = { at = 0, type = 'string', length = 2 }\ntime = { at = 2, type = 'f32' }\n\
     time_unit = 's'\nfields = [{ from = { at = 6, type = 'bcd', length = 2 }, metric = 'm' }]",
];

#[test]
fn no_decoder_makes_a_long_reason_of_a_long_value() {
    let long = "x".repeat(1 << 20);
    let time = "time = 'a'\ntime_unit = 's'";
    for (toml, frame) in [
        ("type = 'json'".to_owned(), format!("\"{long}\"")),
        ("type = 'json'\nfields = [{ from = '/a', metric = 'm' }]".into(), format!("{{\"a\":\"{long}\"}}")),
        ("type = 'senml'".into(), format!("[{{\"{long}_\":1}}]")),
        ("type = 'senml'".into(), format!("[\"{long}\"]")),
        ("type = 'key_value'\nfields = [{ from = 'a' }]".into(), format!("a={long}")),
        (format!("type = 'key_value'\n{time}"), format!("a={long}")),
        ("type = 'text'\nmetric = 'm'".into(), long.clone()),
    ] {
        let reason = one(&toml, &frame).unwrap_err();
        assert!(reason.len() < 400, "{toml}: {} bytes", reason.len());
    }
}

#[test]
fn what_was_ignored_first_is_named_with_its_value_within_bounds() {
    let long = "x".repeat(1_000);
    let fields = "fields = [{ from = 't', metric = 'temp' }, { from = 'h', scale = 2 }]";
    let csv = "type = 'csv'\ncolumns = ['d', 't', 'h']\ndevice = 'd'\n";
    let regex = "type = 'regex'\npattern = 't=(?<t>\\S+)( h=(?<h>.*))?'";
    let place = "type = 'binary'\nfields = [{ from = { at = 0, type = 'f32' }, metric = 'm' }, \
                 { from = { at = 4, type = 'bcd', length = 1 }, metric = 'n' }]";
    for (toml, frame, first) in [
        ("type = 'key_value'", "t=21,5 h=40", Some("`t` is \"21,5\"")),
        ("type = 'key_value'", "t=21 ERR h=40", Some("\"ERR\" has no \"=\"")),
        ("type = 'key_value'", "t=21 h=40", None),
        (&format!("type = 'key_value'\n{fields}"), "t=21 x=1", Some("`h` is missing")),
        (&format!("type = 'key_value'\n{fields}"), "t=1 h=", Some("`h` is \"\"")),
        (&format!("{csv}{fields}"), "a,1,nan", Some("`h` is \"nan\"")),
        (csv, "a,--,3", Some("`t` is \"--\"")),
        (csv, "a,1,3", None),
        (regex, "t=ERR h=3", Some("`t` is \"ERR\"")),
        (regex, "t=3", Some("`h` is missing")),
        (place, "\0\0\0\0\u{1b}", Some("`n` (byte 4) holds nothing that can be read")),
        (place, "\u{7f}\u{7f}\0\0\u{12}", None),
    ] {
        let config: Config = toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"));
        let (mut decoder, mut learnt) = (Decoder::new(&config), Learnt::default());
        let left_out = decoder.decode(frame.as_bytes(), "here", &mut learnt, &mut readings()).unwrap();
        let named = decoder.first_ignored(frame.as_bytes(), &learnt);
        assert_eq!((named.as_deref(), left_out.ignored > 0), (first, first.is_some()), "{toml}: {frame}");
    }
    let mut decoder = Decoder::new(&toml::from_str("type = 'key_value'").unwrap());
    let (frame, mut learnt) = (format!("h=1 {long}={long}"), Learnt::default());
    decoder.decode(frame.as_bytes(), "here", &mut learnt, &mut readings()).unwrap();
    assert!(decoder.first_ignored(frame.as_bytes(), &learnt).unwrap().len() < 256);
}

//! Frames a second through each decoder, up to readings, beside a bare loop that reads the same values of the same
//! frames with the same library, into numbers that it adds up.

use std::hint::black_box;
use std::time::{Duration, Instant};

use minicbor::data::Type;
use serde::Deserialize;
use weir::model::{Readings, Stamp, Timestamp};
use weir::sources::decode::{Config, Decoder, Learnt};

use crate::support::pki::Result;
use crate::{Extent, print};

/// Each is measured so often, and the fastest run of each counts: what disturbs a run makes it slower.
const RUNS: usize = 5;

/// So many frames come with one read, and so many different ones there are.
const READ: usize = 32;
const DIFFERENT: u32 = 1024;

/// How a bare loop reads a frame: the sum of what it holds, `None` where it cannot be read.
type Bare<'a> = &'a mut dyn FnMut(&[u8]) -> Option<f64>;

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let count = extent.readings;
    println!("decode: {count} frames, fastest of {RUNS} runs       frames/s   bare loop/s   ratio");
    let json =
        |n: u32| format!(r#"{{"dev":"boiler","t":{}.5,"h":{},"on":true}}"#, n % 80, n % 100).into_bytes();
    compare("json, flat", count, "type = 'json'\ndevice = 'dev'", json, &mut |frame| {
        let frame: Flat<'_> = serde_json::from_slice(frame).ok()?;
        Some(frame.t + frame.h + f64::from(u8::from(frame.on)) + frame.dev.len() as f64)
    })?;
    let nested = |n: u32| {
        let text = r#"{"id":"boiler","meta":{"fw":"1.2"},"data":[{"temp":T,"hum":H},{"temp":H,"hum":T}]}"#;
        text.replace('T', &(n % 800).to_string()).replace('H', &(n % 100).to_string()).into_bytes()
    };
    let fields = "type = 'json'\ndevice = '/id'\nfields = [\
        { from = '/data/0/temp', metric = 'inside', scale = 0.1, unit = 'Cel' },\
        { from = '/data/1/temp', metric = 'outside', scale = 0.1, unit = 'Cel' }]";
    compare("json, fields", count, fields, nested, &mut |frame| {
        let frame: Nested<'_> = serde_json::from_slice(frame).ok()?;
        let [inside, outside] = [&frame.data[0], &frame.data[1]];
        Some(inside.temp * 0.1 + outside.temp * 0.1 + frame.id.len() as f64)
    })?;
    let csv = |n: u32| format!("boiler,{}.5,{},1013.2", n % 80, n % 100).into_bytes();
    compare(
        "csv",
        count,
        "type = 'csv'\ncolumns = ['id', 't', 'h', 'p']\ndevice = 'id'",
        csv,
        &mut |frame| {
            let mut columns = std::str::from_utf8(frame).ok()?.split(',');
            let id = columns.next()?.len() as f64;
            columns.try_fold(id, |sum, column| Some(sum + column.parse::<f64>().ok()?))
        },
    )?;
    let pairs = |n: u32| format!("t={}.5 h={} p=1013.2", n % 80, n % 100).into_bytes();
    compare("key_value", count, "type = 'key_value'", pairs, &mut |frame| {
        let mut pairs = std::str::from_utf8(frame).ok()?.split_ascii_whitespace();
        pairs.try_fold(0.0, |sum, pair| Some(sum + pair.split_once('=')?.1.parse::<f64>().ok()?))
    })?;
    let line = |n: u32| format!("T: {}.5 C, RH: {} %", n % 80, n % 100).into_bytes();
    let pattern = r"^T: (?<t>[0-9.]+) C, RH: (?<h>[0-9.]+) %$";
    let regex = regex_lite::Regex::new(pattern)?;
    let mut found = regex.capture_locations();
    compare("regex", count, &format!("type = 'regex'\npattern = '{pattern}'"), line, &mut |frame| {
        let text = std::str::from_utf8(frame).ok()?;
        regex.captures_read(&mut found, text)?;
        let number = |group| found.get(group).and_then(|(from, to)| text[from..to].parse::<f64>().ok());
        Some(number(1)? + number(2)?)
    })?;
    let text = |n: u32| format!("{}.5", n % 80).into_bytes();
    compare("text", count, "type = 'text'\nmetric = 't'", text, &mut |frame| {
        std::str::from_utf8(frame).ok()?.parse().ok()
    })?;
    let binary = |n: u32| {
        let mut frame = vec![0xAA, 0xC0];
        frame.extend((n % 900).to_le_bytes());
        frame.extend([1, 2, 3, 0xAB]);
        frame
    };
    let places = "type = 'binary'\nendian = 'little'\nfields = [\
        { from = { at = 2, type = 'u16' }, metric = 'pm2.5', scale = 0.1, unit = 'ug/m3' },\
        { from = { at = 4, type = 'u16' }, metric = 'pm10', scale = 0.1, unit = 'ug/m3' }]";
    compare("binary", count, places, binary, &mut |frame| {
        let number = |at: usize| Some(f64::from(u16::from_le_bytes(*frame.get(at..)?.first_chunk()?)) * 0.1);
        Some(number(2)? + number(4)?)
    })?;
    let pack = |n: u32| {
        let (t, h) = (n % 80, n % 100);
        format!(r#"[{{"bn":"boiler/","bt":1700000000,"n":"t","u":"Cel","v":{t}.5}},{{"n":"h","u":"%RH","v":{h}}}]"#)
            .into_bytes()
    };
    compare("senml, JSON", count, "type = 'senml'", pack, &mut |frame| {
        let records: Vec<Record<'_>> = serde_json::from_slice(frame).ok()?;
        Some(records.iter().map(|record| record.v + record.n.len() as f64 + record.bt.unwrap_or(0.0)).sum())
    })?;
    compare("senml, CBOR", count, "type = 'senml'", cbor, &mut |frame| {
        let mut cbor = minicbor::Decoder::new(frame);
        let mut sum = 0.0;
        for _ in 0..cbor.array().ok()?? {
            for _ in 0..cbor.map().ok()?? {
                cbor.i64().ok()?;
                sum += match cbor.datatype().ok()? {
                    Type::String => cbor.str().ok()?.len() as f64,
                    Type::F64 => cbor.f64().ok()?,
                    _ => cbor.i64().ok()? as f64,
                };
            }
        }
        Some(sum)
    })
}

#[derive(Deserialize)]
struct Flat<'a> {
    dev: &'a str,
    t: f64,
    h: f64,
    on: bool,
}

#[derive(Deserialize)]
struct Nested<'a> {
    id: &'a str,
    data: [Pair; 2],
}

#[derive(Deserialize)]
struct Pair {
    temp: f64,
}

#[derive(Deserialize)]
struct Record<'a> {
    n: &'a str,
    v: f64,
    bt: Option<f64>,
}

/// The pack of `senml, JSON`.
fn cbor(n: u32) -> Vec<u8> {
    let mut cbor = minicbor::Encoder::new(Vec::new());
    // Writing into memory does not fail.
    let _ = cbor.array(2).and_then(|cbor| {
        cbor.map(5)?.i8(-2)?.str("boiler/")?.i8(-3)?.u32(1_700_000_000)?;
        cbor.u8(0)?.str("t")?.u8(1)?.str("Cel")?.u8(2)?.f64(f64::from(n % 80) + 0.5)?;
        cbor.map(3)?.u8(0)?.str("h")?.u8(1)?.str("%RH")?.u8(2)?.u32(n % 100)
    });
    cbor.into_writer()
}

fn compare(what: &str, count: u64, toml: &str, frame: impl Fn(u32) -> Vec<u8>, bare: Bare<'_>) -> Result<()> {
    let frames: Vec<Vec<u8>> = (0..DIFFERENT).map(frame).collect();
    let (mut decoder, mut learnt) = (Decoder::new(&toml::from_str::<Config>(toml)?), Learnt::default());
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        let start = Instant::now();
        for frame in frames.iter().cycle().take(usize::try_from(count)?) {
            black_box(bare(black_box(frame)).ok_or("the bare loop cannot read a frame")?);
        }
        theirs = theirs.min(start.elapsed());
        let start = Instant::now();
        let mut all = frames.iter().cycle().take(usize::try_from(count)?).peekable();
        while all.peek().is_some() {
            let arrival =
                Stamp { wall: Timestamp(1_700_000_000_000), monotonic: Duration::ZERO, synced: true };
            let mut out = Readings::new(arrival);
            for frame in all.by_ref().take(READ) {
                decoder.decode(black_box(frame), "here", &mut learnt, &mut out)?;
            }
            black_box(&out);
        }
        ours = ours.min(start.elapsed());
    }
    let rate = |time: Duration| count as f64 / time.as_secs_f64();
    let ratio = rate(ours) / rate(theirs);
    print(&format!("  {what:<40} {:>12.0} {:>12.0}", rate(ours), rate(theirs)), &format!("{ratio:.2}"), "");
    Ok(())
}

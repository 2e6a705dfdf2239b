use std::sync::atomic::Ordering;

use super::watcher::BYTES;
use super::*;
use crate::model::{NAME_MAX, Reading, Time, Timestamp, Value};

fn clock() -> Clock {
    Clock::injected(Timestamp(1_000), true)
}

async fn what(watcher: &mut Watcher) -> What {
    watcher.next().await.unwrap().what
}

fn received(bytes: &[u8]) -> What {
    What::Received(Frame::new(None, bytes))
}

#[tokio::test(start_paused = true)]
async fn everybody_who_looks_is_told_everything_from_then_on_and_how_it_stands() {
    let tap = Tap::default();
    assert!(!tap.is_watched());
    tap.failed("unplugged");
    let mut first = tap.watch(clock());
    tap.opened();
    let mut second = tap.watch(clock());
    tap.received(None, b"one");
    assert_eq!(what(&mut first).await, What::Failed("unplugged".into()));
    for watcher in [&mut first, &mut second] {
        assert_eq!(what(watcher).await, What::Open);
        assert_eq!(what(watcher).await, received(b"one"));
    }
    drop(first);
    tap.received(None, b"two");
    assert_eq!(what(&mut second).await, received(b"two"));
    drop(second);
    tap.received(None, b"three");
    assert!(!tap.is_watched());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_keep_up_loses_what_is_over_and_learns_where_and_how_much() {
    let tap = Tap::default();
    let mut watcher = tap.watch(clock());
    for n in 0..1_000_u16 {
        tap.received(None, &n.to_be_bytes());
    }
    for n in 0..255_u16 {
        assert_eq!(what(&mut watcher).await, received(&n.to_be_bytes()));
    }
    assert_eq!(what(&mut watcher).await, What::Lost(745));
    for n in 0..300_u16 {
        tap.received(None, &n.to_be_bytes());
    }
    assert_eq!(what(&mut watcher).await, received(&[0, 0]));
    assert_eq!(what(&mut watcher).await, received(&[0, 1]));
    tap.received(None, b"after");
    for _ in 2..255 {
        what(&mut watcher).await;
    }
    assert_eq!(what(&mut watcher).await, What::Lost(45));
    assert_eq!(what(&mut watcher).await, received(b"after"));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_at_all_makes_a_few_bytes_wait_however_large_the_frames_are() {
    let tap = Tap::default();
    let mut watcher = tap.watch(clock());
    let large = "\u{1}".repeat(1 << 20);
    let mut readings = Readings::new(clock().now());
    let name = "n".repeat(NAME_MAX);
    for _ in 0..READINGS {
        let (value, unit) = (Value::Text(&large[..1000]), Some(&large[..1000]));
        readings.push(Reading { device: &name, metric: &name, value, time: None, unit });
    }
    let flood = || {
        tap.read(large.as_bytes());
        tap.received(Some(large.clone()), large.as_bytes());
        tap.decoded(&readings, 0, 1, Some(large.clone()));
        tap.refused("undecodable", large.clone());
        tap.failed(&large);
    };
    for _ in 0..2 {
        (0..50).for_each(|_| flood());
        let (mut bytes, mut told, mut lost, mut decoded) = (0, 0, 0, 0);
        loop {
            match what(&mut watcher).await {
                What::Lost(count) => lost += count,
                What::Quiet { .. } => break,
                what => {
                    decoded += usize::from(matches!(what, What::Decoded { .. }));
                    bytes += allocated(&what);
                    told += 1;
                }
            }
        }
        assert_eq!(told + lost, 200, "what is not told is counted");
        assert!(bytes <= BYTES && decoded >= 1, "{bytes} bytes, {decoded} times decoded");
        assert_eq!(watcher.shared.waiting.load(Ordering::Relaxed), 0);
    }
}

/// What an event takes in memory.
fn allocated(what: &What) -> usize {
    let beside = match what {
        What::Failed(why) => why.capacity(),
        What::Received(frame) => frame.bytes.capacity() + frame.head.as_ref().map_or(0, String::capacity),
        What::Decoded { readings, first_ignored, .. } => {
            let ignored = first_ignored.as_ref().map_or(0, String::capacity);
            let words = |told: &Told| {
                let unit = told.unit.as_ref().map_or(0, String::capacity);
                told.device.capacity() + told.metric.capacity() + told.value.capacity() + unit
            };
            readings.capacity() * size_of::<Told>() + readings.iter().map(words).sum::<usize>() + ignored
        }
        What::Refused { cause, why, tail } => cause.capacity() + why.capacity() + tail.capacity(),
        _ => 0,
    };
    size_of::<Event>() + beside
}

#[tokio::test(start_paused = true)]
async fn a_silence_is_told_ever_more_rarely_with_what_came_that_made_no_frame() {
    let tap = Tap::default();
    let mut watcher = tap.watch(clock());
    let quiet = |seconds, bytes, tail: &[u8]| What::Quiet { seconds, bytes, tail: tail.to_vec() };
    assert_eq!(what(&mut watcher).await, quiet(10, 0, b""));
    tap.read(&[0x55; 70]);
    tap.read(b"\xff\x00");
    let tail = [&[0x55; 62][..], b"\xff\x00"].concat();
    assert_eq!(what(&mut watcher).await, quiet(20, 72, &tail));
    assert_eq!(what(&mut watcher).await, quiet(40, 0, b""));
    tap.read(b"noise");
    for tail in [&b"noise"[..], b""] {
        tap.refused("checksum", "wrong".into());
        let refused = What::Refused { cause: "checksum".into(), why: "wrong".into(), tail: tail.to_vec() };
        assert_eq!(what(&mut watcher).await, refused);
    }
    tap.read(b"x\n");
    tap.received(None, b"x");
    assert_eq!(what(&mut watcher).await, received(b"x"));
    assert_eq!(what(&mut watcher).await, quiet(10, 0, b""), "what made a frame is no news");
    for _ in 0..20 {
        what(&mut watcher).await;
    }
    let What::Quiet { seconds: before, .. } = what(&mut watcher).await else { panic!() };
    assert_eq!(what(&mut watcher).await, quiet(before + 300, 0, b""));
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_source_is_gone_for_good() {
    let tap = Tap::default();
    let mut watcher = tap.watch(clock());
    tap.received(None, b"last");
    drop(tap);
    assert_eq!(what(&mut watcher).await, received(b"last"));
    assert_eq!(watcher.next().await, None);
}

#[test]
fn of_what_is_long_the_beginning_is_told() {
    let tap = Tap::default();
    let mut watcher = tap.watch(clock());
    tap.sent(Some("head".into()), &[7; 100_000]);
    let mut readings = Readings::new(clock().now());
    for value in [Value::Float(21.0), Value::Text("a\n"), Value::Bool(true), Value::Int(-1), Value::Uint(1)] {
        for _ in 0..20 {
            readings.push(Reading {
                device: "d",
                metric: "m",
                value,
                time: Some(Time::At(Timestamp(5))),
                unit: Some("V"),
            });
        }
    }
    tap.decoded(&readings, 20, 3, Some("`a` holds text".into()));
    tap.decoded(&readings, 100, 0, None);
    let Some(Event { at, what: What::Sent(frame) }) = watcher.events.try_recv().ok() else { panic!() };
    assert!(at >= 1_000);
    assert_eq!((frame.bytes.len(), frame.length, frame.head.as_deref()), (512, 100_000, Some("head")));
    let told = watcher.events.try_recv().unwrap();
    let What::Decoded { readings, count, ignored, first_ignored } = told.what else { panic!() };
    assert_eq!((readings.len(), count, ignored), (64, 80, 3));
    assert_eq!(first_ignored.as_deref(), Some("`a` holds text"));
    assert_eq!((&*readings[0].value, &*readings[20].value, readings[0].time), ("\"a\\n\"", "true", Some(5)));
    let nothing = What::Decoded { readings: vec![], count: 0, ignored: 0, first_ignored: None };
    assert_eq!(watcher.events.try_recv().unwrap().what, nothing);
}

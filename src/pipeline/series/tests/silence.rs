//! Series that fall silent.

use super::*;
use crate::model::{Metric, Shift};

/// A minute for the devices of line-1; what falls silent within 3.75 s is told together.
fn a_minute() -> Rules {
    Rules { stale_after: vec![("line-1".into(), Duration::from_secs(60))], ..ten_seconds() }
}

/// Looks whenever the table wants to, until `end`. Gives how often that was.
fn look_until(table: &mut SeriesTable, end: i64, messages: &mut Vec<Message>) -> usize {
    let mut looks = 0;
    while let Some(at) = table.wake_at().filter(|at| *at <= at_millis(end)) {
        table.close_due(super::at(i64::try_from(at.as_micros().div_ceil(1_000)).unwrap()), messages);
        looks += 1;
        assert!(looks < 10_000, "it wants to look for ever");
    }
    looks
}

fn at_millis(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

fn take(table: &mut SeriesTable, arrival: i64, metric: &str) {
    let readings = one(at(arrival), "boiler", metric, Value::Bool(true), None);
    table.take("line-1", &readings, &mut Vec::new());
}

/// What is told as stale, by device, with the last reading of each metric.
fn stale(messages: &[Message]) -> Vec<(&str, Vec<(&str, i64)>)> {
    let last = |metric: &Metric| match metric.fields[..] {
        [(ref field, Value::Int(last))] if field == "last" => last,
        _ => panic!("no time of a last reading: {metric:?}"),
    };
    let told = messages.iter().filter(|message| message.stale == Some(true));
    told.map(|m| (&*m.device, m.metrics.iter().map(|metric| (&*metric.name, last(metric))).collect()))
        .collect()
}

#[test]
fn a_series_that_falls_silent_is_told_once_and_again_only_once_it_has_spoken() {
    let (mut table, stats) = table(a_minute());
    take(&mut table, 1_000, "door");
    let mut messages = Vec::new();
    look_until(&mut table, 64_749, &mut messages);
    assert_eq!(messages, []);
    look_until(&mut table, 10_000_000, &mut messages);
    assert_eq!(stale(&messages), [("boiler", vec![("door", 1_000)])]);
    assert_eq!((&messages[0].body, messages[0].readings), (&Body::Values { time: Timestamp(1_000) }, 0));
    assert_eq!((&*messages[0].source, messages[0].synced), ("line-1", true));
    assert_eq!(table.wake_at(), None, "nothing to wake up for");

    take(&mut table, 10_000_000, "door");
    messages.clear();
    look_until(&mut table, 20_000_000, &mut messages);
    assert_eq!(stale(&messages), [("boiler", vec![("door", 10_000_000)])]);
    assert_eq!(stats.stale.get(), 2);
}

#[test]
fn those_of_a_device_that_fell_silent_together_are_told_together() {
    let (mut table, _) = table(a_minute());
    for (arrival, metric) in [(1_000, "door"), (2_000, "light"), (9_000, "fan")] {
        take(&mut table, arrival, metric);
    }
    let mut messages = Vec::new();
    look_until(&mut table, 1_000_000, &mut messages);
    let told = [("boiler", vec![("door", 1_000), ("light", 2_000)]), ("boiler", vec![("fan", 9_000)])];
    assert_eq!(stale(&messages), told);
    assert_eq!(messages[0].body, Body::Values { time: Timestamp(2_000) });
}

#[test]
fn it_is_told_after_the_last_window_that_has_readings_of_it() {
    let second = vec![("line-1".into(), Duration::from_secs(1))];
    let (mut table, _) = table(Rules { stale_after: second, ..ten_seconds() });
    let mut messages = Vec::new();
    table.take("line-1", &temperature(12_000, None), &mut messages);
    table.take("line-1", &one(at(12_000), "pump", "temperature", Value::Int(1), Some(7_000)), &mut messages);
    for seconds in 13..60 {
        look_until(&mut table, seconds * 1_000, &mut messages);
        // The device's other series keep their windows open.
        let other = one(at(seconds * 1_000), "boiler", "temperature", Value::Int(1), Some(0));
        table.take("line-1", &other, &mut messages);
    }
    let order: Vec<_> = messages.iter().map(|m| (&*m.device, m.stale.is_some(), m.range().0.0)).collect();
    assert_eq!(
        order,
        [("boiler", false, 10_000), ("pump", false, 0), ("pump", true, 7_000)],
        "what closes by the device's time waits for its silence"
    );
}

#[test]
fn a_device_that_goes_on_talking_costs_a_look_for_each_silence_that_there_might_have_been() {
    let (mut table, stats) = table(a_minute());
    let (mut messages, mut looks) = (Vec::new(), 0);
    for seconds in 0..600 {
        looks += look_until(&mut table, seconds * 1_000, &mut messages);
        for metric in ["door", "light"] {
            take(&mut table, seconds * 1_000, metric);
        }
    }
    assert!((9..=10).contains(&looks), "{looks}");
    assert_eq!((messages, stats.stale.get()), (Vec::new(), 0));
}

#[test]
fn what_filters_hold_back_is_a_sign_of_life_all_the_same() {
    let range = Rule::read("range", "max = 0.5".parse::<toml::Table>().unwrap()).unwrap().unwrap();
    let filters = vec![filter::Config { pattern: pattern("*"), rule: range }];
    let (mut table, stats) = table(Rules { filters, ..a_minute() });
    let mut messages = Vec::new();
    for seconds in 0..200 {
        look_until(&mut table, seconds * 1_000, &mut messages);
        table.take("line-1", &temperature(seconds * 1_000, None), &mut messages);
    }
    assert_eq!((messages, stats.stale.get()), (Vec::new(), 0));
    assert_eq!(stats.held_back.load(Ordering::Relaxed), 200);
}

#[test]
fn no_step_of_the_clock_makes_anything_stale() {
    for wall in [-3_600_000, 86_400_000] {
        let (mut table, _) = table(a_minute());
        take(&mut table, 1_000, "door");
        let mut messages = Vec::new();
        let stepped = |millis: i64| Stamp { wall: Timestamp(wall + millis), ..at(millis) };
        table.close_due(stepped(30_000), &mut messages);
        let door = one(stepped(30_000), "boiler", "door", Value::Bool(true), None);
        table.take("line-1", &door, &mut Vec::new());
        table.close_due(stepped(64_750), &mut messages);
        assert_eq!(stale(&messages), [], "{wall}");
        table.close_due(stepped(93_750), &mut messages);
        assert_eq!(stale(&messages), [("boiler", vec![("door", 30_000 + wall)])]);
    }
}

#[test]
fn who_could_not_be_read_in_time_is_given_a_moment_before_its_silence_is_told() {
    for comes in [true, false] {
        let (mut table, _) = table(a_minute());
        take(&mut table, 1_000, "door");
        let mut messages = Vec::new();
        table.close_due(at(300_000), &mut messages);
        assert_eq!(stale(&messages), []);
        if comes {
            take(&mut table, 300_500, "door");
        }
        look_until(&mut table, 301_000, &mut messages);
        assert_eq!(stale(&messages).len(), usize::from(!comes));
    }
}

#[test]
fn times_of_before_trust_are_put_right_with_the_others() {
    let era = Era(7);
    let stats = Arc::new(Stats::default());
    let unsynced = |millis| Stamp { synced: false, ..at(millis) };
    let mut table = SeriesTable::new(a_minute(), unsynced(0), Some(era), stats);
    let mut messages = Vec::new();
    table.take("line-1", &one(unsynced(1_000), "boiler", "door", Value::Bool(true), None), &mut messages);
    messages.clear();
    table.close_due(Stamp { wall: Timestamp(1_795_422_564_750), ..at(64_750) }, &mut messages);
    assert_eq!(stale(&messages), [("boiler", vec![("door", 1_000)])]);
    assert!(!messages[0].synced);
    messages[0].shift(Shift { era, by: 1_795_422_500_000 });
    assert_eq!(stale(&messages), [("boiler", vec![("door", 1_795_422_501_000)])]);
    assert!(messages[0].synced);
}

#[test]
fn a_reload_takes_along_who_is_waited_for_and_its_silence_so_far() {
    for (seconds, told) in [(60, Some(64_750)), (10, Some(41_000)), (120, Some(128_500))] {
        let (mut table, stats) = table(a_minute());
        take(&mut table, 1_000, "door");
        let mut messages = Vec::new();
        let stale_after = vec![("line-1".into(), Duration::from_secs(seconds))];
        let rules = Rules { stale_after, max_series: 99, ..a_minute() };
        let mut table = table.under(rules, at(40_000), &mut messages);
        assert_eq!(stats.series.load(Ordering::Relaxed), 1);
        let looks: Vec<_> = (40..200_000 / 250)
            .map(|quarter| quarter * 250)
            .find(|millis| {
                if *millis >= 40_000 {
                    table.close_due(at(*millis), &mut messages);
                }
                !stale(&messages).is_empty()
            })
            .into_iter()
            .collect();
        assert_eq!(looks, told.into_iter().collect::<Vec<_>>(), "{seconds}");
        assert_eq!(stale(&messages), [("boiler", vec![("door", 1_000)])]);
        look_until(&mut table, 1_000_000, &mut messages);
        assert_eq!(messages.len(), 1);
    }
}

#[test]
fn nothing_is_told_of_what_was_taken_out_by_hand() {
    let (mut without_key, _) = table(a_minute());
    take(&mut without_key, 1_000, "door");
    let mut messages = Vec::new();
    let mut without_key = without_key.under(ten_seconds(), at(2_000), &mut messages);
    look_until(&mut without_key, 1_000_000, &mut messages);

    let (mut without_source, _) = table(a_minute());
    take(&mut without_source, 1_000, "door");
    without_source.forget("line-1", &mut messages);
    look_until(&mut without_source, 1_000_000, &mut messages);
    assert_eq!(messages, []);
}

#[test]
fn who_dies_while_weir_is_restarted_is_told_once_it_has_been_silent_for_so_long_again() {
    let (mut first, _) = table(a_minute());
    let mut messages = Vec::new();
    take(&mut first, 1_000, "light");
    look_until(&mut first, 900_000, &mut messages);
    take(&mut first, 900_000, "door");
    first.take("line-1", &temperature(901_000, None), &mut messages);
    assert_eq!(stale(&messages), [("boiler", vec![("light", 1_000)])]);
    let saved = first.save(Some("boot")).unwrap();

    messages.clear();
    let again = |millis: i64| Stamp { wall: Timestamp(902_000 + millis), ..at(millis) };
    let mut second = SeriesTable::new(a_minute(), again(0), None, Arc::default());
    second.resume(&saved, Some("boot"), again(0), &mut messages).unwrap();
    for seconds in 0..600 {
        second.close_due(again(seconds * 250), &mut messages);
    }
    let order: Vec<_> = messages.iter().map(|m| (m.stale.is_some(), m.metrics.len())).collect();
    assert_eq!(order, [(false, 1), (true, 2)], "the window that was open, and then who does not come back");
    assert_eq!(stale(&messages), [("boiler", vec![("door", 900_000), ("temperature", 901_000)])]);

    let mut without = SeriesTable::new(ten_seconds(), again(0), None, Arc::default());
    messages.clear();
    without.resume(&saved, Some("boot"), again(0), &mut messages).unwrap();
    look_until(&mut without, 1_000_000, &mut messages);
    assert_eq!(stale(&messages), []);
}

#[test]
fn series_that_were_waited_for_are_taken_along_only_as_far_as_there_is_room() {
    let (mut table, stats) = table(a_minute());
    for metric in ["a", "b", "c"] {
        take(&mut table, 1_000, metric);
    }
    let table = table.under(Rules { max_series: 2, ..a_minute() }, at(2_000), &mut Vec::new());
    assert_eq!((stats.series.load(Ordering::Relaxed), stats.too_many_series.get()), (2, 1));
    assert_eq!(table.sources[0].devices[0].series(), 2);
}

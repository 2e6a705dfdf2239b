mod from_arrival;
mod silence;
mod steps;

use proptest::prelude::*;

use super::*;
use crate::filter::Rule;
use crate::model::{Body, Era, Reading, Time, Value};
use crate::pattern::Pattern;
use crate::window::Shape;

fn pattern(glob: &str) -> Pattern {
    Pattern::try_from(glob.to_owned()).unwrap()
}

fn window(glob: &str, toml: &str) -> window::Config {
    let shape = Shape::read("tumbling", toml.parse::<toml::Table>().unwrap()).unwrap().unwrap();
    window::Config { name: "fine".into(), pattern: pattern(glob), keep_readings: false, shape }
}

fn rules(windows: Vec<window::Config>) -> Rules {
    let (filters, stale_after) = (Vec::new(), Vec::new());
    Rules { filters, windows, max_series: 100, max_ahead: Duration::from_secs(600), stale_after }
}

fn ten_seconds() -> Rules {
    rules(vec![window("*/temperature", "every = '10s'\nlateness = '2s'\naggregates = ['count', 'sum']")])
}

/// A clock whose wall time is its monotonic time.
fn at(millis: i64) -> Stamp {
    let monotonic = Duration::from_millis(millis.unsigned_abs());
    Stamp { wall: Timestamp(millis), monotonic, synced: true }
}

fn table(rules: Rules) -> (SeriesTable, Arc<Stats>) {
    let stats = Arc::new(Stats::default());
    (SeriesTable::new(rules, at(0), None, stats.clone()), stats)
}

/// One frame of one reading.
fn one<'a>(
    arrival: Stamp,
    device: &'a str,
    metric: &'a str,
    value: Value<&'a str>,
    time: Option<i64>,
) -> Readings {
    let mut readings = Readings::new(arrival);
    readings.push(Reading { device, metric, value, time: time.map(Timestamp).map(Time::At), unit: None });
    readings
}

fn temperature(arrival: i64, time: Option<i64>) -> Readings {
    one(at(arrival), "boiler", "temperature", Value::Float(1.0), time)
}

fn starts(messages: &[Message]) -> Vec<(String, i64, u64)> {
    let start = |message: &Message| match message.body {
        Body::Window { start, .. } => (message.source.to_string(), start.0, message.readings),
        Body::Values { .. } => panic!("no window: {message:?}"),
    };
    messages.iter().map(start).collect()
}

#[test]
fn windows_stamped_at_arrival_close_lateness_after_their_end_by_the_clock() {
    let (mut table, _) = table(ten_seconds());
    let mut messages = Vec::new();
    table.take("line-1", &temperature(12_000, None), &mut messages);
    assert_eq!(table.wake_at(), Some(Duration::from_secs(22)));
    table.close_due(at(21_999), &mut messages);
    assert!(messages.is_empty());
    table.close_due(at(22_000), &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 10_000, 1)]);
    assert_eq!(table.wake_at(), None, "nothing to wake up for");
}

#[test]
fn windows_of_device_time_close_when_the_device_has_passed_them_however_slow_the_clock() {
    let (mut table, stats) = table(ten_seconds());
    let mut messages = Vec::new();
    for time in [512_000, 521_999] {
        table.take("line-1", &temperature(1_000, Some(time)), &mut messages);
    }
    assert!(messages.is_empty());
    table.take("line-1", &temperature(1_000, Some(522_000)), &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 510_000, 1)]);
    table.take("line-1", &temperature(1_000, Some(519_000)), &mut messages);
    assert_eq!(stats.late.get(), 1, "its window is closed");
}

#[test]
fn a_silent_devices_windows_close_after_a_period_and_lateness_of_silence() {
    let (mut table, _) = table(ten_seconds());
    let mut messages = Vec::new();
    table.take("line-1", &temperature(1_000, Some(512_000)), &mut messages);
    table.take("line-1", &temperature(5_000, Some(513_000)), &mut messages);
    table.close_due(at(13_000), &mut messages);
    assert!(messages.is_empty(), "it spoke at 5 s");
    assert_eq!(table.wake_at(), Some(Duration::from_secs(17)));
    table.close_due(at(17_000), &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 510_000, 2)]);
}

#[test]
fn two_sources_that_name_one_device_give_two_series_with_a_watermark_each() {
    let (mut table, stats) = table(ten_seconds());
    let mut messages = Vec::new();
    table.take("line-1", &temperature(1_000, Some(512_000)), &mut messages);
    table.take("line-2", &temperature(1_000, Some(552_000)), &mut messages);
    table.take("line-1", &temperature(1_000, Some(513_000)), &mut messages);
    assert_eq!(stats.late.get(), 0);
    table.close_due(at(60_000), &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 510_000, 2), ("line-2".into(), 550_000, 1)]);
}

#[test]
fn values_that_no_window_takes_pass_those_of_a_frame_together() {
    let (mut table, _) = table(ten_seconds());
    let mut readings = Readings::new(at(7_000));
    let reading =
        |device, metric| Reading { device, metric, value: Value::Bool(true), time: None, unit: None };
    for (device, metric) in [("hall", "door"), ("hall", "temperature"), ("hall", "light"), ("yard", "door")] {
        readings.push(reading(device, metric));
    }
    readings.end_frame();
    readings.push(reading("yard", "door"));
    let mut messages = Vec::new();
    table.take("line-1", &readings, &mut messages);
    let told: Vec<_> = messages
        .iter()
        .map(|m| (&*m.device, m.metrics.iter().map(|metric| &*metric.name).collect::<Vec<_>>()))
        .collect();
    assert_eq!(told, [("hall", vec!["door", "light"]), ("yard", vec!["door"]), ("yard", vec!["door"])]);
    assert_eq!(messages[0].body, Body::Values { time: Timestamp(7_000) });
}

#[test]
fn filters_hold_back_before_the_window_and_are_counted() {
    let mut rules = ten_seconds();
    let range = Rule::read("range", "max = 100.0".parse::<toml::Table>().unwrap()).unwrap().unwrap();
    rules.filters = vec![filter::Config { pattern: pattern("boiler/*"), rule: range }];
    let (mut table, stats) = table(rules);
    let mut messages = Vec::new();
    for value in [50.0, 150.0] {
        table.take(
            "line-1",
            &one(at(1_000), "boiler", "temperature", Value::Float(value), None),
            &mut messages,
        );
    }
    table.close_due(at(60_000), &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 0, 1)]);
    assert_eq!(stats.held_back.load(Ordering::Relaxed), 1);
}

#[test]
fn a_series_too_many_is_refused_and_the_others_go_on() {
    let mut rules = ten_seconds();
    rules.max_series = 2;
    let (mut table, stats) = table(rules);
    let mut messages = Vec::new();
    for (device, metric) in [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("a", "y")] {
        table.take("line-1", &one(at(1), device, metric, Value::Int(1), None), &mut messages);
    }
    assert_eq!((messages.len(), stats.too_many_series.get()), (3, 2));
    assert_eq!(table.sources[0].devices.len(), 1, "a refused device leaves nothing behind");
}

#[test]
fn a_device_whose_clock_runs_ahead_does_not_close_the_windows_of_its_future() {
    let (mut table, stats) = table(ten_seconds());
    let mut messages = Vec::new();
    table.take("line-1", &temperature(12_000, Some(9_999_999_999)), &mut messages);
    table.take("line-1", &temperature(12_000, Some(12_000)), &mut messages);
    table.close_due(at(60_000), &mut messages);
    assert_eq!((stats.ahead.get(), stats.late.get()), (1, 0));
    assert_eq!(messages.iter().map(|m| m.readings).sum::<u64>(), 2);
}

#[test]
fn while_the_clock_is_not_trusted_device_times_are_kept_as_they_are() {
    let (mut table, stats) = table(ten_seconds());
    let mut messages = Vec::new();
    let unset = Stamp { synced: false, ..at(12_000) };
    table.take(
        "line-1",
        &one(unset, "boiler", "door", Value::Bool(true), Some(9_999_999_999)),
        &mut messages,
    );
    assert_eq!(messages[0].body, Body::Values { time: Timestamp(9_999_999_999) });
    assert_eq!((messages[0].synced, stats.ahead.get()), (false, 0));
    // Nor are those that no clock tells, such as milliseconds read as seconds; but they are counted, and told.
    assert_eq!(stats.unlikely.get(), 1);
    for (time, unlikely) in [(1_795_422_520_123, 1), (1_795_422_520_123_000, 2)] {
        let reading = one(unset, "boiler", "door", Value::Bool(true), Some(time));
        table.take("line-1", &reading, &mut messages);
        assert_eq!(messages.last().unwrap().body, Body::Values { time: Timestamp(time) });
        assert_eq!(stats.unlikely.get(), unlikely);
    }
}

#[test]
fn readings_that_go_back_in_time_are_late_from_the_first_window_on() {
    let (mut table, stats) = table(ten_seconds());
    let mut messages = Vec::new();
    for second in (0..100_000).rev() {
        table.take("line-1", &temperature(100_000_000, Some(second * 1_000)), &mut messages);
    }
    table.close_due(at(1_000_000_000), &mut messages);
    let told: u64 = messages.iter().map(|message| message.readings).sum();
    assert_eq!((messages.len(), told + stats.late.get()), (1, 100_000), "only the newest window takes them");
}

#[test]
fn a_watermark_from_before_the_clock_was_trusted_comes_back_once_it_lies_too_far_ahead() {
    let (mut table, stats) = table(ten_seconds());
    let mut messages = Vec::new();
    let unset = Stamp { synced: false, ..at(12_000) };
    table.take(
        "line-1",
        &one(unset, "boiler", "temperature", Value::Int(1), Some(9_999_999_999)),
        &mut messages,
    );
    table.take("line-1", &temperature(13_000, Some(13_000)), &mut messages);
    table.take("line-1", &temperature(14_000, Some(14_000)), &mut messages);
    table.close_due(at(60_000), &mut messages);
    assert_eq!(stats.late.get(), 0);
    assert_eq!(starts(&messages), [("line-1".into(), 9_999_990_000, 1), ("line-1".into(), 10_000, 2)]);
}

#[test]
fn a_metric_that_a_frame_names_twice_goes_in_two_messages() {
    let (mut table, _) = table(ten_seconds());
    let mut readings = Readings::new(at(7_000));
    for value in [1, 2] {
        let value = Value::Int(value);
        readings.push(Reading { device: "pump", metric: "rpm", value, time: None, unit: None });
    }
    let mut messages = Vec::new();
    table.take("line-1", &readings, &mut messages);
    assert_eq!(messages.iter().map(|message| message.metrics.len()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn windows_that_are_too_many_to_be_saved_can_all_be_closed() {
    let (mut table, _) = table(ten_seconds());
    let mut messages = Vec::new();
    table.take("line-1", &temperature(12_000, None), &mut messages);
    table.take("line-2", &temperature(12_000, Some(11_000)), &mut messages);
    table.close_all(&mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 10_000, 1), ("line-2".into(), 10_000, 1)]);
    assert!(messages.iter().all(|m| matches!(m.body, Body::Window { partial: true, .. })));
    assert_eq!(table.wake_at(), None);
    messages.clear();
    table.close_all(&mut messages);
    assert_eq!(messages, [], "nothing is left of them");
}

/// Fills a window by arrival and one by the device's time in a first run, saves them, and resumes them in a second that
/// starts `now`, under `rules`.
fn over_a_restart(rules: Rules, boot: &str, now: Stamp) -> (SeriesTable, Vec<Message>) {
    let (mut before, _) = table(ten_seconds());
    let mut messages = Vec::new();
    before.take("line-1", &temperature(12_000, None), &mut messages);
    before.take("line-1", &temperature(12_000, Some(11_000)), &mut messages);
    let saved = before.save(Some("this boot")).unwrap();

    let mut after = SeriesTable::new(rules, now, Some(Era(1)), Arc::default());
    after.resume(&saved, Some(boot), now, &mut messages).unwrap();
    (after, messages)
}

#[test]
fn open_windows_are_resumed_with_a_trusted_clock() {
    for boot in ["this boot", "another boot"] {
        let (mut table, mut messages) = over_a_restart(ten_seconds(), boot, at(15_000));
        assert!(messages.is_empty());
        table.take("line-1", &temperature(15_000, None), &mut messages);
        table.take("line-1", &temperature(15_000, Some(16_000)), &mut messages);
        table.close_due(at(60_000), &mut messages);
        assert_eq!(starts(&messages), [("line-1".into(), 10_000, 2), ("line-1".into(), 10_000, 2)]);
        assert!(messages.iter().all(is_partial), "it ran for a part of them");
    }
}

#[test]
fn open_windows_that_cannot_go_on_are_sent_as_partial() {
    let unset = Stamp { synced: false, ..at(15_000) };
    let other = || rules(vec![window("*", "every = '10s'\naggregates = ['max']")]);
    for (rules, boot, now) in [
        (ten_seconds(), "another boot", unset),
        (other(), "this boot", at(15_000)),
        (
            rules(vec![window("*/temperature", "every = '5s'\naggregates = ['count', 'sum']")]),
            "this boot",
            unset,
        ),
        (rules(vec![]), "this boot", unset),
    ] {
        let (table, messages) = over_a_restart(rules, boot, now);
        assert_eq!(starts(&messages), [("line-1".into(), 10_000, 1), ("line-1".into(), 10_000, 1)]);
        assert!(messages.iter().all(is_partial));
        assert_eq!(table.wake_at(), None);
    }
}

fn is_partial(message: &Message) -> bool {
    matches!(message.body, Body::Window { partial: true, .. })
}

#[test]
fn windows_go_on_under_other_rules_and_only_those_that_the_change_touches_are_partial() {
    let door = || window("*/door", "every = '10s'\naggregates = ['last']");
    let [temperature] = ten_seconds().windows.try_into().unwrap();
    for (windows, touched) in [
        (vec![temperature.clone(), window::Config { name: "door".into(), ..door() }], false),
        (vec![window::Config { name: "door".into(), ..door() }, temperature.clone()], true),
        (vec![window::Config { keep_readings: true, ..temperature }], true),
    ] {
        let (mut table, _) = table(ten_seconds());
        let mut messages = Vec::new();
        table.take("line-1", &self::temperature(22_000, None), &mut messages);
        let mut table = table.under(rules(windows), at(24_000), &mut messages);
        assert!(messages.is_empty());
        assert_eq!(table.wake_at(), Some(Duration::from_secs(32)));
        table.take("line-1", &self::temperature(25_000, None), &mut messages);
        messages.clear();
        table.close_due(at(40_000), &mut messages);
        assert_eq!(starts(&messages), [("line-1".into(), 20_000, 2)]);
        assert_eq!(is_partial(&messages[0]), touched);
    }
}

#[test]
fn filters_that_change_make_every_open_window_partial_and_hold_from_then_on() {
    let (mut table, stats) = table(ten_seconds());
    let mut messages = Vec::new();
    table.take("line-1", &temperature(22_000, None), &mut messages);
    let rule = Rule::read("range", "min = 5".parse::<toml::Table>().unwrap()).unwrap().unwrap();
    let filters = vec![filter::Config { pattern: pattern("*"), rule }];
    let mut table = table.under(Rules { filters, ..ten_seconds() }, at(24_000), &mut messages);
    table.take("line-1", &temperature(25_000, None), &mut messages);
    table.close_due(at(40_000), &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 20_000, 1)]);
    assert!(is_partial(&messages[0]));
    assert_eq!(stats.held_back.load(Ordering::Relaxed), 1);
}

#[test]
fn windows_that_the_rules_no_longer_cut_are_sent_as_partial_at_once() {
    let (mut table, _) = table(ten_seconds());
    let mut messages = Vec::new();
    table.take("line-1", &temperature(22_000, None), &mut messages);
    let table = table.under(rules(vec![]), at(24_000), &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 20_000, 1)]);
    assert!(is_partial(&messages[0]));
    assert_eq!(table.wake_at(), None);
}

#[test]
fn a_source_that_is_forgotten_sends_its_windows_as_partial_and_makes_room_for_other_series() {
    let (mut table, stats) = table(Rules { max_series: 1, ..ten_seconds() });
    let mut messages = Vec::new();
    table.take("line-1", &temperature(22_000, None), &mut messages);
    table.forget("line-1", &mut messages);
    table.forget("unknown", &mut messages);
    assert_eq!(starts(&messages), [("line-1".into(), 20_000, 1)]);
    assert!(is_partial(&messages[0]));
    table.take("line-2", &temperature(23_000, None), &mut messages);
    assert_eq!((stats.too_many_series.get(), stats.series.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn a_source_that_is_forgotten_and_comes_back_in_mid_window_sends_it_again_as_partial_and_the_next_whole() {
    for time in [None, Some(23_000)] {
        let (mut table, _) = table(ten_seconds());
        let mut messages = Vec::new();
        table.take("line-1", &temperature(22_000, time), &mut messages);
        table.forget("line-1", &mut messages);
        messages.clear();
        table.take("line-1", &temperature(24_000, time.map(|time| time + 1_000)), &mut messages);
        table.take("line-1", &temperature(36_000, time.map(|_| 36_000)), &mut messages);
        table.take("line-1", &temperature(48_000, time.map(|_| 48_000)), &mut messages);
        assert_eq!(starts(&messages), [("line-1".into(), 20_000, 1), ("line-1".into(), 30_000, 1)]);
        assert!(is_partial(&messages[0]) && !is_partial(&messages[1]), "{time:?}");
    }
}

#[test]
fn saved_windows_that_are_damaged_are_refused_without_harm() {
    let (mut before, _) = table(ten_seconds());
    before.take("line-1", &temperature(12_000, None), &mut Vec::new());
    let saved = before.save(None).unwrap();
    for cut in 0..saved.len() {
        let (mut after, _) = table(ten_seconds());
        assert!(after.resume(&saved[..cut], None, at(1), &mut Vec::new()).is_err());
    }
}

proptest! {
    /// Whatever the order of times, every reading is in exactly one message or counted as late, and no window is
    /// sent twice.
    #[test]
    fn every_reading_is_in_one_window_or_counted_late(times in proptest::collection::vec(0_i64..100_000, 1..200)) {
        let (mut table, stats) = table(ten_seconds());
        let mut messages = Vec::new();
        for time in &times {
            table.take("line-1", &temperature(1_000, Some(*time)), &mut messages);
        }
        table.close_due(at(1_000_000), &mut messages);
        let starts = starts(&messages);
        let told: u64 = starts.iter().map(|(_, _, readings)| readings).sum();
        prop_assert_eq!(told + stats.late.get(), times.len() as u64);
        let mut once: Vec<_> = starts.iter().map(|(_, start, _)| start).collect();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), starts.len());
    }
}

use super::*;
use crate::model::{Body, Message, Value};

const OWNER: Owner<'static> = Owner { source: "line", device: "boiler", window: "fine", era: None };

fn shape(toml: &str) -> Shape {
    let rest: toml::Table = toml.parse().unwrap();
    Shape::read("tumbling", rest).unwrap().unwrap()
}

fn ten_seconds() -> Shape {
    shape("every = '10s'\nlateness = '2s'\naggregates = ['count', 'mean']")
}

fn closed(group: &mut Group, shape: &Shape, until: i64) -> Vec<Message> {
    let mut messages = Vec::new();
    group.close(shape, OWNER, Timestamp(until), Timestamp(0), true, &mut messages);
    messages
}

fn start_and_late(message: &Message) -> (i64, u64) {
    match message.body {
        Body::Window { start, late, .. } => (start.0, late),
        Body::Values { .. } => panic!("no window"),
    }
}

#[test]
fn windows_are_aligned_to_the_period_before_1970_too() {
    let shape = ten_seconds();
    assert_eq!(shape.start_of(Timestamp(19_999)), Timestamp(10_000));
    assert_eq!(shape.start_of(Timestamp(20_000)), Timestamp(20_000));
    assert_eq!(shape.start_of(Timestamp(-1)), Timestamp(-10_000));
    assert_eq!(shape.default_name(), "tumbling-10s");
}

#[test]
fn a_window_closes_once_and_tells_what_each_series_did_in_it() {
    let shape = ten_seconds();
    let mut group = Group::new();
    let temperature = group.column("temperature", Some("Cel"));
    let pressure = group.column("pressure", None);
    assert_eq!(group.column("temperature", None), temperature);
    for (column, time, value) in
        [(temperature, 10_000, 1.0), (pressure, 15_000, 5.0), (temperature, 19_999, 3.0)]
    {
        assert_eq!(group.add(&shape, column, Timestamp(time), Value::Float(value), true), Taken::Yes);
    }
    group.add(&shape, pressure, Timestamp(20_000), Value::Float(9.0), true);

    assert!(closed(&mut group, &shape, 19_999).is_empty());
    let messages = closed(&mut group, &shape, 20_000);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].readings, 3);
    let told: Vec<_> =
        messages[0].metrics.iter().map(|m| (&*m.name, m.unit.as_deref(), m.fields.clone())).collect();
    let fields =
        |count, mean| vec![("count".into(), Value::Uint(count)), ("mean".into(), Value::Float(mean))];
    assert_eq!(told, [("temperature", Some("Cel"), fields(2, 2.0)), ("pressure", None, fields(1, 5.0))]);
    assert!(closed(&mut group, &shape, 29_999).is_empty(), "it closes once");
    let next = closed(&mut group, &shape, 30_000);
    assert_eq!(next[0].metrics.len(), 1, "a series that was silent is not told of");
}

#[test]
fn a_reading_for_a_closed_window_is_refused_and_the_next_message_says_how_many() {
    let shape = ten_seconds();
    let mut group = Group::new();
    let column = group.column("temperature", None);
    group.add(&shape, column, Timestamp(20_000), Value::Int(1), true);
    group.advance(Timestamp(20_000));
    assert_eq!(group.add(&shape, column, Timestamp(19_999), Value::Int(1), true), Taken::Late);
    assert_eq!(group.add(&shape, column, Timestamp(20_001), Value::Int(1), true), Taken::Yes);
    let messages = closed(&mut group, &shape, 30_000);
    assert_eq!(start_and_late(&messages[0]), (20_000, 1));
}

#[test]
fn readings_out_of_order_open_their_windows_in_order() {
    let shape = ten_seconds();
    let mut group = Group::new();
    let column = group.column("temperature", None);
    for time in [35_000, 15_000, 25_000, 16_000] {
        assert_eq!(group.add(&shape, column, Timestamp(time), Value::Int(1), true), Taken::Yes);
    }
    assert_eq!(group.first_end(&shape), Some(Timestamp(20_000)));
    let starts: Vec<_> = closed(&mut group, &shape, 40_000).iter().map(|m| start_and_late(m).0).collect();
    assert_eq!(starts, [10_000, 20_000, 30_000]);
    assert!(group.is_idle());
}

#[test]
fn a_window_that_saw_only_a_part_of_its_time_says_partial() {
    let shape = ten_seconds();
    let partial = |running_since, first_synced, synced| {
        let mut group = Group::new();
        let column = group.column("temperature", None);
        group.add(&shape, column, Timestamp(12_000), Value::Int(1), first_synced);
        let mut messages = Vec::new();
        group.close_all(&shape, OWNER, Timestamp(running_since), synced, &mut messages);
        match messages[0].body {
            Body::Window { partial, .. } => (partial, messages[0].synced),
            Body::Values { .. } => panic!("no window"),
        }
    };
    assert_eq!(partial(0, true, true), (false, true));
    assert_eq!(partial(10_001, true, true), (true, true), "the agent started in its middle");
    assert_eq!(partial(0, false, false), (false, false), "the clock was never trusted");
    assert_eq!(partial(0, false, true), (true, false), "trust came in its middle");
}

#[test]
fn a_window_that_is_sent_again_says_partial_whether_it_was_broken_off_or_time_went_back() {
    let shape = ten_seconds();
    let mut group = Group::new();
    let column = group.column("temperature", None);
    let told = |group: &mut Group, time: i64, messages: Vec<Message>| {
        let partial = |message: &Message| match message.body {
            Body::Window { start, partial, .. } => (start.0, partial),
            Body::Values { .. } => panic!("no window"),
        };
        assert_eq!(group.add(&shape, column, Timestamp(time), Value::Int(1), true), Taken::Yes);
        messages.iter().map(partial).collect::<Vec<_>>()
    };
    told(&mut group, 5_000, vec![]);
    let whole = closed(&mut group, &shape, 12_000);
    assert_eq!(told(&mut group, 12_000, whole), [(0, false)]);
    assert_eq!(group.last_end(Timestamp(12_000)), Some(Timestamp(10_000)));

    let mut broken = Vec::new();
    group.break_off(&shape, OWNER, &mut broken);
    assert!(group.is_idle());
    assert_eq!(told(&mut group, 13_000, broken), [(10_000, true)]);
    assert_eq!(group.add(&shape, column, Timestamp(9_000), Value::Int(1), true), Taken::Late, "it is over");
    let again = closed(&mut group, &shape, 20_000);
    assert_eq!(told(&mut group, 20_000, again), [(10_000, true)]);
    let next = closed(&mut group, &shape, 30_000);
    assert_eq!(told(&mut group, 30_000, next), [(20_000, false)], "that is sent for the first time");

    let mut broken = Vec::new();
    group.break_off(&shape, OWNER, &mut broken);
    group.rewind();
    assert_eq!(told(&mut group, 5_000, broken), [(30_000, true)]);
    for time in [15_000, 25_000, 35_000, 45_000] {
        told(&mut group, time, vec![]);
    }
    let again = closed(&mut group, &shape, 50_000);
    let marks = [(0, true), (10_000, true), (20_000, true), (30_000, true), (40_000, false)];
    assert_eq!(told(&mut group, 50_000, again), marks);
}

#[test]
fn a_saved_group_goes_on_where_it_was_and_only_under_the_same_aggregates() {
    let shape = ten_seconds();
    let mut group = Group::new();
    let column = group.column("temperature", Some("Cel"));
    group.add(&shape, column, Timestamp(12_000), Value::Float(4.0), true);
    let saved = minicbor::to_vec(&group).unwrap();

    let mut group: Group = minicbor::decode(&saved).unwrap();
    assert!(group.fits(&shape));
    assert!(!group.fits(&super::tests::shape("every = '10s'\naggregates = ['count', 'max']")));
    assert!(!group.fits(&super::tests::shape("every = '7s'\naggregates = ['count', 'mean']")));
    let column = group.column("temperature", None);
    group.add(&shape, column, Timestamp(13_000), Value::Float(8.0), true);
    let messages = closed(&mut group, &shape, 20_000);
    assert_eq!(messages[0].metrics[0].fields[1].1, Value::Float(6.0));
    assert_eq!(messages[0].metrics[0].unit.as_deref(), Some("Cel"));
}

#[test]
fn a_value_that_no_aggregate_takes_is_said_to_be_no_number_and_leaves_no_message() {
    let shape = shape("every = '10s'\naggregates = ['mean']");
    let mut group = Group::new();
    let column = group.column("state", None);
    assert_eq!(group.add(&shape, column, Timestamp(1), Value::Text("on"), true), Taken::NoNumber);
    assert!(closed(&mut group, &shape, 10_000).is_empty());
}

#[test]
fn windows_without_sense_are_a_problem() {
    let keys = |toml| shape(toml).problems().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys("every = '10s'\naggregates = ['mean']"), Vec::<&str>::new());
    assert_eq!(keys("every = '1ms'\naggregates = ['mean']"), ["every"]);
    assert_eq!(keys("every = '10s'\naggregates = []"), ["aggregates"]);
    assert_eq!(keys("every = '10s'\naggregates = ['mean', 'mean']"), ["aggregates"]);
    assert_eq!(keys("every = '1s'\nlateness = '1h'\naggregates = ['mean']"), ["lateness"]);
}

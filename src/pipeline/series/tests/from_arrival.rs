//! Readings whose devices say how long before their arrival they were taken.

use super::steps::{ERA, Gateway, HOUR, Machine, TRUTH};
use super::*;

/// One frame of one metric, a value each so many seconds from its arrival, as a decoder of SenML hands it on.
fn pack(gateway: &mut Gateway, metric: &str, seconds: &[i64]) {
    let mut readings = Readings::new(gateway.machine.look());
    for second in seconds {
        let time = (*second != 0).then_some(Time::FromArrival(second * 1_000));
        readings.push(Reading { device: "logger", metric, value: Value::Int(1), time, unit: None });
    }
    gateway.table.take("line", &readings, &mut gateway.messages);
}

/// Some minutes after the start of a machine whose clock is not set yet.
fn unset() -> Gateway {
    let mut gateway = Gateway::new(Machine::unset());
    gateway.machine.uptime = 300_000;
    gateway
}

/// Trust comes, and what waits in the outbox is put right.
fn trust(gateway: &mut Gateway) {
    let shift = gateway.machine.trust();
    gateway.idle(60_000);
    gateway.messages.iter_mut().for_each(|message| message.shift(shift));
}

#[test]
fn what_arrived_before_trust_lies_so_long_before_its_arrival_in_real_time() {
    let mut gateway = unset();
    pack(&mut gateway, "door", &[-60, 0]);
    let before: Vec<_> = gateway.messages.iter().map(|m| (m.range().0.0, m.synced, m.era)).collect();
    assert_eq!(before, [(240_000, false, Some(ERA)), (300_000, false, Some(ERA))]);
    pack(&mut gateway, "temperature", &[-60, -5]);
    trust(&mut gateway);
    assert_eq!(
        gateway.windows(),
        [
            (TRUTH + 240_000, 1, false, true),
            (TRUTH + 300_000, 1, false, true),
            (TRUTH + 240_000, 1, false, true),
            (TRUTH + 290_000, 1, true, true),
        ],
        "the last window was open when trust came"
    );
}

#[test]
fn a_backlog_in_several_packs_goes_into_its_windows_whole() {
    let mut gateway = unset();
    for from in [-3_600, -3_590, -3_580] {
        let seconds: Vec<_> = (from..from + 10).collect();
        pack(&mut gateway, "temperature", &seconds);
        gateway.idle(1_000);
    }
    gateway.idle(60_000);
    assert_eq!(gateway.stats.late.get(), 0);
    // A second goes by before the next pack, so that each begins a second later.
    let windows: Vec<_> = gateway.windows().iter().map(|(start, readings, ..)| (*start, *readings)).collect();
    assert_eq!(
        windows,
        [(300_000 - HOUR, 10), (310_000 - HOUR, 9), (320_000 - HOUR, 9), (330_000 - HOUR, 2)]
    );
}

#[test]
fn what_the_device_itself_has_passed_is_late() {
    let mut gateway = unset();
    pack(&mut gateway, "temperature", &[-5, -60]);
    gateway.idle(60_000);
    assert_eq!((gateway.windows(), gateway.stats.late.get()), (vec![(290_000, 1, false, false)], 1));
}

#[test]
fn a_time_too_far_after_arrival_is_replaced_by_it_whether_the_clock_is_trusted_or_not() {
    for machine in [Machine::unset(), Machine::trusted()] {
        let mut gateway = Gateway::new(machine);
        pack(&mut gateway, "door", &[601, 600]);
        let arrival = gateway.machine.look().wall;
        let told: Vec<_> = gateway.messages.iter().map(|m| (m.range().0, m.ahead)).collect();
        assert_eq!(told, [(arrival, Some(1)), (arrival.moved(600_000), None)]);
        assert_eq!(gateway.stats.ahead.get(), 1);
    }
}

#[test]
fn once_the_clock_is_trusted_it_is_a_time_of_the_device_that_no_step_moves() {
    let mut gateway = unset();
    pack(&mut gateway, "temperature", &[-5]);
    trust(&mut gateway);
    gateway.windows();
    let arrival = gateway.machine.look().wall.0;
    pack(&mut gateway, "temperature", &[-3_600, -3_588]);
    assert_eq!(gateway.stats.late.get(), 0, "how far it had come on the old line is forgotten");
    let start = (arrival - HOUR).div_euclid(10_000) * 10_000;
    assert_eq!(gateway.windows(), [(start, 1, true, true)]);
    assert!(gateway.messages.iter().all(|message| message.era.is_none()));
}

#[test]
fn what_overtook_the_coming_of_trust_is_told_on_the_new_line() {
    let mut gateway = unset();
    let before = gateway.machine.look();
    gateway.machine.uptime += 1_000;
    gateway.machine.trust();
    pack(&mut gateway, "door", &[-1]);
    let mut readings = Readings::new(before);
    let time = Some(Time::FromArrival(-60_000));
    readings.push(Reading { device: "logger", metric: "door", value: Value::Int(1), time, unit: None });
    gateway.table.take("line", &readings, &mut gateway.messages);
    assert_eq!(gateway.windows(), [(TRUTH + 300_000, 1, false, true), (TRUTH + 240_000, 1, false, true)]);
}

#[test]
fn its_windows_go_on_over_a_restart_in_the_same_era_and_move_where_trust_came_meanwhile() {
    let saved = || {
        let mut first = unset();
        pack(&mut first, "temperature", &[-25, -15, -5]);
        first.windows();
        first.table.save(Some("boot")).unwrap()
    };
    let resumed = |machine: Machine| {
        let mut second = Gateway::new(machine);
        let now = second.machine.look();
        second.table.resume(&saved(), Some("boot"), now, &mut second.messages).unwrap();
        second
    };
    let mut second = resumed(Machine { uptime: 301_000, ..Machine::unset() });
    pack(&mut second, "temperature", &[-20, -4]);
    assert_eq!(second.stats.late.get(), 1, "how far the device had come is known");
    second.idle(60_000);
    assert_eq!(second.windows(), [(290_000, 2, true, false)]);

    let mut machine = Machine { uptime: 301_000, ..Machine::unset() };
    let shift = machine.trust();
    let mut second = resumed(machine);
    second.messages.iter_mut().for_each(|message| message.shift(shift));
    assert_eq!(second.windows(), [(TRUTH + 290_000, 1, true, true)]);
}

#[test]
fn a_series_that_falls_silent_says_when_its_last_reading_was_taken() {
    let mut gateway = unset();
    gateway.table = SeriesTable::new(
        Rules { stale_after: vec![("line".into(), Duration::from_secs(60))], ..ten_seconds() },
        gateway.machine.look(),
        Some(ERA),
        gateway.stats.clone(),
    );
    pack(&mut gateway, "door", &[-60]);
    gateway.messages.clear();
    gateway.idle(64_000);
    let mut message = gateway.messages.pop().unwrap();
    message.shift(gateway.machine.trust());
    assert_eq!(message.stale, Some(true));
    let last = Value::Int(TRUTH + 240_000);
    assert_eq!((message.range().0.0, &message.metrics[0].fields[0].1), (TRUTH + 240_000, &last));
}

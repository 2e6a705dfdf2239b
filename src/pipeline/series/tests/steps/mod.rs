//! Windows and values by arrival while trust comes to the clock and while it is set about, and over restarts meanwhile.

mod random;

use super::*;
use crate::model::Shift;

pub(super) const HOUR: i64 = 3_600_000;
pub(super) const TRUTH: i64 = 1_795_422_500_123;
pub(super) const ERA: Era = Era(7);

/// A machine whose clock is looked at as `clock::Clock` does it: by the era until it is trusted, by the wall then.
pub(super) struct Machine {
    /// In milliseconds since it was started.
    pub(super) uptime: i64,
    /// How far the wall is ahead of that.
    pub(super) ahead: i64,
    pub(super) trusted: bool,
}

impl Machine {
    /// One that starts in 1970.
    pub(super) fn unset() -> Self {
        Self { uptime: 0, ahead: 0, trusted: false }
    }

    pub(super) fn trusted() -> Self {
        Self { uptime: 0, ahead: TRUTH, trusted: true }
    }

    pub(super) fn look(&self) -> Stamp {
        let wall = Timestamp(self.uptime + if self.trusted { self.ahead } else { 0 });
        let monotonic = Duration::from_millis(self.uptime.unsigned_abs());
        Stamp { wall, monotonic, synced: self.trusted }
    }

    pub(super) fn trust(&mut self) -> Shift {
        (self.ahead, self.trusted) = (TRUTH, true);
        Shift { era: ERA, by: TRUTH }
    }
}

/// A table, what came of it, and the machine's clock.
pub(super) struct Gateway {
    pub(super) machine: Machine,
    pub(super) table: SeriesTable,
    pub(super) stats: Arc<Stats>,
    pub(super) messages: Vec<Message>,
}

impl Gateway {
    pub(super) fn new(machine: Machine) -> Self {
        let stats = Arc::<Stats>::default();
        let table = SeriesTable::new(ten_seconds(), machine.look(), Some(ERA), stats.clone());
        Self { machine, table, stats, messages: Vec::new() }
    }

    /// A reading now: a temperature goes into windows, anything else passes.
    fn read(&mut self, device: &str, metric: &str, value: i64, time: Option<i64>) {
        let readings = one(self.machine.look(), device, metric, Value::Int(value), time);
        self.table.take("line", &readings, &mut self.messages);
    }

    /// Lets a while go by, with a temperature every second, and windows that close when they are due.
    fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.machine.uptime += 1_000;
            self.read("boiler", "temperature", 1, None);
        }
    }

    pub(super) fn idle(&mut self, millis: i64) {
        self.machine.uptime += millis;
        self.table.close_due(self.machine.look(), &mut self.messages);
    }

    /// The windows since the last look at them: start, readings, partial, synced.
    pub(super) fn windows(&mut self) -> Vec<(i64, u64, bool, bool)> {
        let told = std::mem::take(&mut self.messages);
        told.iter()
            .map(|message| (message.range().0.0, message.readings, is_partial(message), message.synced))
            .collect()
    }
}

#[test]
fn a_clock_that_starts_in_1970_and_is_set_20_s_later_neither_jumps_nor_repeats_a_window() {
    let mut gateway = Gateway::new(Machine::unset());
    gateway.run(20);
    gateway.read("boiler", "door", 1, None);
    gateway.read("logger", "temperature", 1, Some(TRUTH - HOUR));
    let shift = gateway.machine.trust();
    gateway.run(20);
    gateway.idle(60_000);
    assert_eq!(gateway.stats.late.get(), 0);
    for message in &mut gateway.messages {
        message.shift(shift);
    }
    let (logged, arrived): (Vec<_>, _) =
        gateway.messages.drain(..).partition(|message| &*message.device == "logger");
    gateway.messages = arrived;
    assert_eq!(starts(&logged), [("line".into(), 1_795_418_900_000, 1)], "its own time is not touched");
    let value = gateway.messages.iter().position(|m| matches!(m.body, Body::Values { .. })).unwrap();
    let value = gateway.messages.remove(value);
    assert_eq!((value.range().0, value.synced), (Timestamp(TRUTH + 20_000), true));
    // Those of before lie where they were cut, in real time; those of after are cut by real time.
    assert_eq!(
        gateway.windows(),
        [
            (TRUTH, 9, false, true),
            (TRUTH + 10_000, 10, true, true),
            (TRUTH + 20_000, 1, true, true),
            (1_795_422_520_000, 9, true, true),
            (1_795_422_530_000, 10, false, true),
            (1_795_422_540_000, 1, false, true),
        ]
    );
}

#[test]
fn windows_of_device_time_go_on_through_trust_and_steps() {
    let mut gateway = Gateway::new(Machine::unset());
    let mut time = TRUTH - HOUR;
    for n in 0..40 {
        gateway.machine.uptime += 1_000;
        time += 1_000;
        match n {
            10 => drop(gateway.machine.trust()),
            20 => gateway.machine.ahead += HOUR,
            30 => gateway.machine.ahead -= HOUR,
            _ => {}
        }
        gateway.read("logger", "temperature", 1, Some(time));
    }
    gateway.idle(60_000);
    let readings: Vec<_> =
        gateway.windows().iter().map(|(start, readings, ..)| (*start, *readings)).collect();
    let first = 1_795_418_900_000;
    assert_eq!(
        readings,
        [(first, 9), (first + 10_000, 10), (first + 20_000, 10), (first + 30_000, 10), (first + 40_000, 1)]
    );
}

#[test]
fn a_trusted_clock_that_steps_an_hour_ahead_is_followed_at_once() {
    let mut gateway = Gateway::new(Machine::trusted());
    gateway.run(25);
    gateway.machine.ahead += HOUR;
    gateway.run(20);
    gateway.idle(60_000);
    let (before, after) = (1_795_422_500_000, 1_795_422_520_000 + HOUR);
    assert_eq!(
        gateway.windows(),
        [
            (before, 9, true, true),
            (before + 10_000, 10, false, true),
            (before + 20_000, 6, true, true),
            (after, 4, true, true),
            (after + 10_000, 10, false, true),
            (after + 20_000, 6, false, true),
        ]
    );
    assert_eq!(gateway.stats.late.get(), 0);
}

#[test]
fn a_trusted_clock_that_steps_an_hour_back_is_followed_once_it_has_passed_what_was_sent_or_an_hour_later() {
    let mut gateway = Gateway::new(Machine::trusted());
    gateway.run(25);
    gateway.windows();
    gateway.machine.ahead -= HOUR;
    gateway.run(3_500);
    let held = gateway.windows();
    let start = 1_795_422_520_000;
    assert_eq!(held[..2], [(start, 6, true, true), (start, 4, true, false)], "one window in two parts");
    assert!(
        held[2..]
            .iter()
            .all(|(_, readings, partial, synced)| (*readings, *partial, *synced) == (10, false, false))
    );
    let starts: Vec<_> = held[1..].iter().map(|(start, ..)| *start).collect();
    assert!(starts.windows(2).all(|pair| pair[0] + 10_000 == pair[1]), "{starts:?}");

    gateway.run(130);
    gateway.idle(60_000);
    let followed = gateway.windows();
    assert_eq!(gateway.stats.late.get(), 0);
    let again: Vec<_> = followed.iter().filter(|(.., synced)| *synced).collect();
    assert!(again.len() >= 3, "{followed:?}");
    for (start, _, partial, _) in again {
        assert!(*partial || !starts.contains(start), "{start} is sent twice");
    }
    let total: u64 = held.iter().chain(&followed).map(|(_, readings, ..)| readings).sum();
    assert_eq!(total, 6 + 3_500 + 130, "each reading is in one window");
}

#[test]
fn a_step_while_nothing_is_due_wakes_nobody_and_a_window_is_not_closed_early_by_it() {
    let mut gateway = Gateway::new(Machine::trusted());
    gateway.run(15);
    gateway.windows();
    let due = gateway.table.wake_at().unwrap();
    gateway.machine.ahead += HOUR;
    gateway.idle(1_000);
    assert_eq!((gateway.windows(), gateway.table.wake_at()), (vec![], Some(due)));
    gateway.idle(10_000);
    assert_eq!(
        gateway.windows(),
        [(1_795_422_510_000, 6, true, true)],
        "it says partial when its time has come"
    );
}

#[test]
fn a_window_that_was_saved_before_three_days_off_is_partial_where_the_clock_is_back_at_the_hour_of_the_stop()
{
    let mut first = Gateway::new(Machine::trusted());
    first.run(15);
    first.windows();
    let saved = first.table.save(Some("first boot")).unwrap();

    // No clock ran meanwhile: a file had the time of the stop.
    let mut second = Gateway::new(Machine { uptime: 0, ahead: TRUTH + 15_000, trusted: false });
    second.table.resume(&saved, Some("second boot"), second.machine.look(), &mut second.messages).unwrap();
    assert_eq!(second.windows(), [(1_795_422_510_000, 6, true, true)]);
    second.run(20);
    let shift = Shift { era: ERA, by: TRUTH + 3 * 24 * HOUR };
    (second.machine.ahead, second.machine.trusted) = (shift.by, true);
    second.idle(60_000);
    second.run(1);
    second.messages.iter_mut().for_each(|message| message.shift(shift));
    assert_eq!(second.stats.late.get(), 0);
    let windows = second.windows();
    assert!(windows.iter().all(|(start, .., synced)| *start >= shift.by && *synced), "{windows:?}");
}

#[test]
fn provisional_windows_that_were_saved_are_partial_where_trust_came_meanwhile_and_move_with_it() {
    let mut first = Gateway::new(Machine::unset());
    first.run(15);
    first.windows();
    first.read("logger", "temperature", 1, Some(TRUTH));
    let saved = first.table.save(Some("boot")).unwrap();

    let mut machine = Machine { uptime: 17_000, ..Machine::unset() };
    let shift = machine.trust();
    let mut second = Gateway::new(machine);
    second.table.resume(&saved, Some("boot"), second.machine.look(), &mut second.messages).unwrap();
    second.messages.iter_mut().for_each(|message| message.shift(shift));
    assert_eq!(second.windows(), [(TRUTH + 10_000, 6, true, true)]);
    second.idle(60_000);
    let logged = second.windows();
    assert_eq!(
        logged,
        [(1_795_422_500_000, 1, true, false)],
        "that of the logger goes on, and its device is silent"
    );
}

#[test]
fn provisional_windows_go_on_over_a_restart_in_the_same_era() {
    let mut first = Gateway::new(Machine::unset());
    first.run(15);
    first.windows();
    let saved = first.table.save(Some("boot")).unwrap();
    let mut second = Gateway::new(Machine { uptime: 17_000, ..Machine::unset() });
    second.table.resume(&saved, Some("boot"), second.machine.look(), &mut second.messages).unwrap();
    second.run(8);
    assert_eq!(second.windows(), [(10_000, 8, true, false)]);
    assert_eq!(second.table.terms.era(Told::ByArrival), Some(ERA));
}

#[test]
fn a_trusted_clock_that_went_back_between_two_runs_has_windows_say_partial_that_may_have_been_sent() {
    let mut first = Gateway::new(Machine::trusted());
    first.run(3_600);
    let sent: Vec<_> = first.windows().iter().map(|(start, ..)| *start).collect();
    let saved = first.table.save(Some("boot")).unwrap();
    let mut second = Gateway::new(Machine { uptime: 3_601_000, ahead: TRUTH - HOUR, trusted: true });
    second.table.resume(&saved, Some("boot"), second.machine.look(), &mut second.messages).unwrap();
    second.run(3_700);
    second.idle(60_000);
    let windows = second.windows();
    assert!(windows.iter().all(|(start, _, partial, _)| *partial || !sent.contains(start)));
    assert!(windows.iter().any(|(_, _, partial, _)| !partial), "and only those");
}

#[test]
fn a_run_knows_what_the_run_before_sent_before_its_clock_was_last_set() {
    let mut first = Gateway::new(Machine::trusted());
    first.run(25);
    first.machine.ahead += HOUR;
    first.run(25);
    assert_eq!(first.windows()[1], (1_795_422_510_000, 10, false, true));
    let saved = first.table.save(Some("boot")).unwrap();
    let mut second = Gateway::new(Machine { uptime: 50_000, ahead: TRUTH - 50_000, trusted: true });
    second.table.resume(&saved, Some("boot"), second.machine.look(), &mut second.messages).unwrap();
    second.windows();
    second.run(45);
    let told: Vec<_> =
        second.windows().iter().map(|(start, _, partial, _)| (start % 100_000, *partial)).collect();
    assert_eq!(told, [(0, true), (10_000, true), (20_000, true), (30_000, false)]);
}

#[test]
fn a_time_too_far_ahead_gives_way_to_arrival_and_its_message_says_so() {
    let mut gateway = Gateway::new(Machine::trusted());
    gateway.machine.uptime += 12_000;
    gateway.read("boiler", "temperature", 1, Some(TRUTH + HOUR));
    gateway.read("boiler", "door", 1, Some(TRUTH + HOUR));
    gateway.read("boiler", "door", 1, None);
    gateway.idle(60_000);
    let told: Vec<_> = gateway.messages.iter().map(|m| (m.range().0.0, m.ahead)).collect();
    assert_eq!(told, [(TRUTH + 12_000, Some(1)), (TRUTH + 12_000, None), (1_795_422_510_000, Some(1))]);
    assert_eq!(gateway.stats.ahead.get(), 2);
}

//! Whatever happens to the clock, in any order.

use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Time goes by, in milliseconds; what is due is closed if the channel is empty.
    Wait(i64, bool),
    /// Readings: a temperature and a door by arrival, and a temperature of a logger's own time.
    Read,
    /// A temperature of a device whose clock is out of its mind.
    Wild(i64),
    /// The clock is set so much ahead or back.
    Step(i64),
    Trust,
    /// The agent stops and starts again at once.
    Restart,
    Reload,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_i64..15_000, any::<bool>()).prop_map(|(millis, due)| Event::Wait(millis, due)),
        10 => Just(Event::Read),
        1 => (-2 * HOUR..2 * HOUR).prop_map(Event::Wild),
        2 => prop_oneof![
            -90_000_i64..90_000,
            -2 * HOUR..2 * HOUR,
            Just(HOUR),
            Just(-HOUR),
            -3_000_i64..3_000,
        ].prop_map(Event::Step),
        1 => Just(Event::Trust),
        1 => Just(Event::Restart),
        1 => Just(Event::Reload),
    ]
}

/// What the test knows of it beside what weir says.
struct Watched {
    gateway: Gateway,
    readings: u64,
    late: u64,
    /// Each with the number of its run.
    told: Vec<(usize, Message)>,
    runs: usize,
    /// How the last door was told.
    door: Option<(Timestamp, Stamp)>,
}

impl Watched {
    fn new(trusted: bool) -> Self {
        let machine = if trusted { Machine::trusted() } else { Machine::unset() };
        Self { gateway: Gateway::new(machine), readings: 0, late: 0, told: Vec::new(), runs: 0, door: None }
    }

    fn read(&mut self, device: &str, metric: &str, time: Option<i64>) {
        self.readings += 1;
        self.gateway.read(device, metric, 1, time);
    }

    fn happen(&mut self, event: Event) {
        let uptime = self.gateway.machine.uptime;
        match event {
            Event::Wait(millis, false) => self.gateway.machine.uptime += millis,
            Event::Wait(millis, true) => {
                self.gateway.idle(millis);
                // Time may have gone back at this look.
                self.door = None;
            }
            Event::Read => {
                self.read("boiler", "temperature", None);
                self.read("logger", "temperature", Some(1_000_000_000_000 + uptime));
                self.read("boiler", "door", None);
                self.look_at_the_door();
            }
            Event::Wild(off) => {
                self.read("wild", "temperature", Some(TRUTH + uptime + off));
                self.door = None;
            }
            Event::Step(by) => self.gateway.machine.ahead += by,
            Event::Trust if !self.gateway.machine.trusted => drop(self.gateway.machine.trust()),
            Event::Trust => {}
            Event::Restart => {
                let saved = self.gateway.table.save(Some("boot"));
                let now = self.gateway.machine.look();
                self.end_run();
                self.gateway.table =
                    SeriesTable::new(ten_seconds(), now, Some(ERA), self.gateway.stats.clone());
                if let Some(saved) = saved {
                    self.gateway.table.resume(&saved, Some("boot"), now, &mut self.gateway.messages).unwrap();
                }
                self.door = None;
            }
            Event::Reload => {
                let now = self.gateway.machine.look();
                let other = SeriesTable::new(ten_seconds(), now, None, Arc::default());
                let table = std::mem::replace(&mut self.gateway.table, other);
                let rules = Rules { max_series: 99, ..ten_seconds() };
                self.gateway.table = table.under(rules, now, &mut self.gateway.messages);
                self.door = None;
            }
        }
    }

    /// A time of arrival goes back only where the real time takes its place.
    fn look_at_the_door(&mut self) {
        let look = self.gateway.machine.look();
        let message = self.gateway.messages.last().unwrap();
        let Body::Values { time } = message.body else { panic!("{message:?}") };
        if let Some((before, _)) = self.door.filter(|(before, _)| time < *before) {
            assert!(
                message.synced && time == look.wall,
                "{before} then {time} where the clock says {look:?}"
            );
        }
        assert_eq!(message.era.is_some(), !look.synced);
        if message.synced {
            assert!(time.distance(look.wall) <= crate::pipeline::line::STEP, "{time} where it is {look:?}");
        }
        self.door = Some((time, look));
    }

    fn end_run(&mut self) {
        let run = self.runs;
        self.told.extend(self.gateway.messages.drain(..).map(|message| (run, message)));
        self.runs += 1;
        self.late = self.gateway.stats.late.get();
    }

    /// No window of a series is sent twice without saying so, as they are or shifted.
    fn check(mut self) {
        self.gateway.table.close_all(&mut self.gateway.messages);
        self.end_run();
        let told: u64 = self.told.iter().map(|(_, message)| message.readings).sum();
        assert_eq!(told + self.late, self.readings, "every reading is in one message, or late");
        for shifted in [false, true] {
            let mut whole = std::collections::BTreeSet::new();
            for (run, mut message) in self.told.clone() {
                if shifted {
                    message.shift(Shift { era: ERA, by: TRUTH });
                    assert_eq!(message.era, None);
                }
                let is_window = matches!(message.body, Body::Window { .. });
                if is_window && !is_partial(&message) {
                    // What was sent by a device's own time is forgotten by a restart, and so by what arrival has told
                    // of it in a later run.
                    let run = if &*message.device == "wild" { run } else { 0 };
                    let range = message.range();
                    assert!(
                        whole.insert((message.device.clone(), run, range.0)),
                        "{} of {} is sent twice",
                        range.0,
                        message.device
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_to_the_clock_no_window_is_sent_twice_unmarked_and_no_reading_is_lost_or_counted_twice(
        trusted in any::<bool>(), events in proptest::collection::vec(event(), 1..150)
    ) {
        let mut watched = Watched::new(trusted);
        events.into_iter().for_each(|event| watched.happen(event));
        watched.check();
    }
}

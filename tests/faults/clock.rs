//! The clock: unset, set and stepped about. The agent runs in process, for its clock is the test's; serial line, buffer,
//! TLS and broker are real.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use weir::clock::Clock;
use weir::config::Config;
use weir::model::Timestamp;
use weir::pipeline::{self, Order};
use weir::uplink::AnyUplink;

use crate::support::pty::Pty;
use crate::support::site::{Site, data};

const HOUR: i64 = 3_600_000;
const TRUTH: i64 = 1_795_422_500_123;
/// How far a stamp may lie from the moment in which it was made.
const SECOND: i64 = 1_000;

/// A site whose gateway runs in this process, by a clock of the test's.
struct Plant {
    line: Pty,
    site: Site,
    /// For each door that was written: between which monotonic milliseconds it arrived.
    doors: BTreeMap<i64, (i64, i64)>,
    written: i64,
}

struct Running {
    clock: Clock,
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

impl Plant {
    fn new(every: &str) -> Self {
        let line = Pty::open().unwrap();
        let decode = "{ type = 'json', device = 'dev', time = 'ts', time_unit = 'ms' }";
        let site = Site::new(&format!(
            "[sources.line]\ntype = 'serial'\nport = '{}'\nbaud = 115200\ndecode = {decode}\n\n\
             [[windows]]\nname = 'fine'\nmatch = '*/temperature'\ntype = 'tumbling'\nevery = '{every}'\n\
             aggregates = ['count', 'sum']\n\n[buffer]\nspill_after = '200ms'\ncommit_every = '200ms'\n",
            line.port().display()
        ));
        Self { line, site, doors: BTreeMap::new(), written: 0 }
    }

    /// Starts the gateway, and waits until it reads its line.
    fn start(&self, clock: &Clock) -> Running {
        let Ok(loaded) = weir::config::load(&self.site.dir().join("gateway/weir.toml")) else {
            panic!("the file is right")
        };
        let (orders, mut told) = mpsc::channel(1);
        let (ready, is_ready) = oneshot::channel();
        let (clock, uplinks) = (clock.clone(), clock.clone());
        let thread = thread::spawn({
            let clock = clock.clone();
            move || {
                let uplink = |config: &Config| {
                    AnyUplink::new(config.uplink.clone(), config.gateway.id.clone(), uplinks.clone())
                };
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(pipeline::run_with(loaded.config, uplink, clock, &mut told, ready));
            }
        });
        is_ready.blocking_recv().unwrap();
        Running { clock, orders, thread }
    }

    /// A door and a temperature ten times a second, without times of their own.
    fn read(&mut self, running: &Running, count: usize) {
        for _ in 0..count {
            let n = self.written;
            let before = millis(&running.clock);
            writeln!(self.line, "{{\"dev\":\"boiler\",\"temperature\":1,\"door\":{n}}}").unwrap();
            self.line.wait_until_read().unwrap();
            self.doors.insert(n, (before, millis(&running.clock)));
            self.written += 1;
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until every door has arrived, and gives all data, each message once.
    fn arrived(&self) -> Vec<Value> {
        self.wait("every door has arrived", |data| doors(data).len() == self.doors.len())
    }

    fn wait(&self, what: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut messages = self.site.data(what, |messages| enough(&once(messages.to_vec())));
        messages.extend(data(&self.site.subscriber.messages()));
        once(messages)
    }
}

impl Running {
    fn stop(self) {
        self.orders.blocking_send(Order::Stop).unwrap();
        self.thread.join().unwrap();
    }
}

fn millis(clock: &Clock) -> i64 {
    i64::try_from(clock.monotonic().as_millis()).unwrap()
}

fn once(messages: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::new();
    messages.into_iter().filter(|message| seen.insert(message["id"].to_string())).collect()
}

/// When each door was read, and whether by a clock that could be trusted.
fn doors(data: &[Value]) -> BTreeMap<i64, (i64, bool)> {
    let doors = data.iter().filter(|message| message["device"] == "boiler");
    doors
        .filter_map(|message| {
            let door = message["metrics"]["door"]["value"].as_i64()?;
            Some((door, (message["time"].as_i64()?, message["synced"] != false)))
        })
        .collect()
}

/// A device's windows: start, end, count, partial.
fn windows(data: &[Value], device: &str) -> Vec<(i64, i64, u64, bool)> {
    let windows = data.iter().filter(|message| message["device"] == device && message["window"] == "fine");
    windows
        .map(|message| {
            let count = message["metrics"]["temperature"]["count"].as_u64().unwrap();
            let number = |key: &str| message[key].as_i64().unwrap();
            (number("start"), number("end"), count, message["partial"] == true)
        })
        .collect()
}

/// How many temperatures of a device its windows have counted.
fn temperatures(data: &[Value], device: &str) -> u64 {
    windows(data, device).iter().map(|window| window.2).sum()
}

/// Each window that claims to be whole has just the readings of its time, and none claims that twice.
fn check_windows(data: &[Value]) {
    let (doors, windows) = (doors(data), windows(data, "boiler"));
    let mut whole = HashSet::new();
    for (start, end, count, partial) in &windows {
        if !partial {
            let read = doors.values().filter(|(time, _)| start <= time && time < end).count();
            assert_eq!(*count, read as u64, "the window at {start} of {windows:?}");
            assert!(whole.insert(start), "the window at {start} is sent twice: {windows:?}");
        }
    }
    let (counted, partial) = (temperatures(data, "boiler"), windows.len() - whole.len());
    assert_eq!(counted, doors.len() as u64, "{windows:?}");
    println!(
        "{} readings, lost 0, repeated 0; {} windows, of them partial {partial}",
        doors.len(),
        windows.len()
    );
}

#[test]
fn the_clock_starts_in_1970_and_is_set_in_an_outage_and_what_waits_is_restamped_by_the_truth() {
    let mut plant = Plant::new("1s");
    plant.site.broker.stop().unwrap();
    let clock = Clock::injected(Timestamp(0), false);
    let running = plant.start(&clock);
    let logged = TRUTH - HOUR;
    for n in 0..20 {
        let time = logged + 100 * n;
        writeln!(plant.line, "{{\"dev\":\"logger\",\"ts\":{time},\"temperature\":1,\"door\":{n}}}").unwrap();
    }
    plant.read(&running, 35);
    // Somebody sets the clock by hand, wrongly, and later the network does it right.
    clock.set(Timestamp(1_000 * HOUR));
    plant.read(&running, 5);
    let uptime = millis(&clock);
    clock.set(Timestamp(TRUTH + uptime));
    clock.trust();
    plant.read(&running, 25);
    plant.site.broker.restart().unwrap();
    plant.arrived();
    let counted = |data: &[Value]| ["boiler", "logger"].map(|device| temperatures(data, device));
    let arrived = plant.wait("every temperature has arrived", |data| counted(data) == [65, 20]);
    running.stop();

    for (door, (time, synced)) in doors(&arrived) {
        let (after, before) = plant.doors[&door];
        assert!(synced, "door {door} has come after trust");
        let truth = TRUTH + after - SECOND..TRUTH + before + SECOND;
        assert!(truth.contains(&time), "door {door} at {time}, which was read in {truth:?}");
    }
    let logger: Vec<_> = arrived
        .iter()
        .filter(|message| message["device"] == "logger" && message["time"].is_i64())
        .map(|message| {
            (message["metrics"]["door"]["value"].as_i64().unwrap(), message["time"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(
        logger,
        (0..20).map(|n| (n, logged + 100 * n)).collect::<Vec<_>>(),
        "its own times are not touched"
    );
    check_windows(&arrived);
}

#[test]
fn a_trusted_clock_that_steps_an_hour_ahead_and_back_sends_no_window_twice_unmarked() {
    let mut plant = Plant::new("1s");
    let clock = Clock::injected(Timestamp(TRUTH), true);
    let running = plant.start(&clock);
    plant.read(&running, 25);
    let ahead = plant.written;
    clock.set(Timestamp(clock.wall().0 + HOUR));
    plant.read(&running, 25);
    let back = plant.written;
    clock.set(Timestamp(clock.wall().0 - HOUR));
    plant.read(&running, 25);
    plant.arrived();
    let arrived = plant.wait("every temperature has arrived", |data| temperatures(data, "boiler") == 75);
    running.stop();

    for (door, (time, synced)) in doors(&arrived) {
        let (after, before) = plant.doors[&door];
        // Back, it goes on as before, and says so.
        let off = TRUTH + if door < ahead { 0 } else { HOUR };
        assert!((off + after - SECOND..off + before + SECOND).contains(&time), "door {door} at {time}");
        assert_eq!(synced, door < back, "door {door}");
    }
    check_windows(&arrived);
}

#[test]
fn a_window_saved_before_three_days_off_is_partial_where_the_clock_is_back_at_the_hour_of_the_stop() {
    let mut plant = Plant::new("1h");
    let clock = Clock::injected(Timestamp(TRUTH), true);
    let running = plant.start(&clock);
    plant.read(&running, 10);
    plant.arrived();
    running.stop();

    // Another boot: nothing has kept the time, but for a file that has that of the stop.
    let stopped = clock.wall();
    let clock = Clock::injected(stopped, false);
    let running = plant.start(&clock);
    let saved = plant.wait("the saved window has arrived", |data| !windows(data, "boiler").is_empty());
    let start = TRUTH - TRUTH % HOUR;
    assert_eq!(windows(&saved, "boiler"), [(start, start + HOUR, 10, true)]);

    let days = 3 * 24 * HOUR;
    clock.set(Timestamp(stopped.0 + days));
    clock.trust();
    let first = plant.written;
    plant.read(&running, 10);
    plant.arrived();
    running.stop();
    let clock = Clock::injected(Timestamp(stopped.0 + days + 2 * HOUR), true);
    let running = plant.start(&clock);
    let arrived = plant.wait("the second window has arrived", |data| windows(data, "boiler").len() == 2);
    running.stop();
    let (second, _, count, partial) = windows(&arrived, "boiler")[1];
    assert_eq!((second, count, partial), ((stopped.0 + days) / HOUR * HOUR, 10, true));
    for (door, (time, synced)) in doors(&arrived).into_iter().filter(|(door, _)| *door >= first) {
        assert!(synced && time >= stopped.0 + days, "door {door} at {time}");
    }
}

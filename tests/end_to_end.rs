//! The real binary between a real serial line and a real mosquitto that demands client certificates.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, prints what it counted, and lives in real time"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

mod support;

use support::pty::Pty;
use support::site::{Site, data, gaps};
use support::socat::Socat;

fn serial(port: &Path) -> String {
    let decode = "{ type = 'json', device = 'dev', time = 'ts', time_unit = 'ms' }";
    format!(
        "[sources.line]\ntype = 'serial'\nport = '{}'\nbaud = 115200\ndecode = {decode}\n",
        port.display()
    )
}

#[derive(Debug, Default, PartialEq)]
struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

/// Every reading counted once, and the windows as an independent calculation has them.
#[test]
fn ten_thousand_readings_of_three_devices_arrive_in_the_right_windows() {
    let dir = tempfile::tempdir().unwrap();
    let line = Socat::start(dir.path()).unwrap();
    let window = "[[windows]]\nname = 'fine'\nmatch = '*'\ntype = 'tumbling'\nevery = '1s'\nlateness = '500ms'\n\
                  aggregates = ['count', 'mean', 'min', 'max']\n";
    let mut site = Site::new(&format!("{}\n{window}", serial(line.port())));
    site.agent.start_until("open").unwrap();

    // Device time runs 20 ms a line from long ago, so that windows depend on nothing but what is written.
    const START: i64 = 1_700_000_000_000;
    let mut expected: BTreeMap<(String, String, i64), Summary> = BTreeMap::new();
    let mut device = OpenOptions::new().write(true).open(line.device()).unwrap();
    for n in 0..5_000_i64 {
        let (name, time) = (format!("device-{}", n % 3), START + 20 * n);
        let (temperature, pressure) = (f64::from((n * 7 % 101) as i32) / 4.0, 1000 + n % 13);
        writeln!(
            device,
            "{{\"dev\":\"{name}\",\"ts\":{time},\"temperature\":{temperature},\"pressure\":{pressure}}}"
        )
        .unwrap();
        for (metric, value) in [("temperature", temperature), ("pressure", pressure as f64)] {
            let window =
                expected.entry((name.clone(), metric.to_owned(), time - time.rem_euclid(1_000))).or_default();
            let first = window.count == 0;
            window.min = if first { value } else { window.min.min(value) };
            window.max = if first { value } else { window.max.max(value) };
            window.count += 1;
            window.sum += value;
        }
    }

    let count = |messages: &[Value]| -> u64 {
        let metrics = messages.iter().flat_map(|message| message["metrics"].as_object().unwrap().values());
        metrics.map(|metric| metric["count"].as_u64().unwrap()).sum()
    };
    let arrived = site.data("10,000 readings have arrived", |messages| count(messages) >= 10_000);
    assert_eq!(count(&arrived), 10_000);

    let mut told = BTreeMap::new();
    for message in &arrived {
        assert_eq!(
            (&message["gateway"], &message["source"], &message["window"]),
            (&"gw-042".into(), &"line".into(), &"fine".into())
        );
        let (device, start) = (message["device"].as_str().unwrap(), message["start"].as_i64().unwrap());
        assert_eq!(message["end"], start + 1_000);
        for (metric, values) in message["metrics"].as_object().unwrap() {
            let before = told.insert((device.to_owned(), metric.clone(), start), values.clone());
            assert_eq!(before, None, "a window that was sent twice");
        }
    }
    assert_eq!(told.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, summary) in &expected {
        let told = &told[key];
        assert_eq!(told["count"], summary.count, "{key:?}");
        assert_eq!(told["min"].as_f64(), Some(summary.min), "{key:?}");
        assert_eq!(told["max"].as_f64(), Some(summary.max), "{key:?}");
        let mean = summary.sum / summary.count as f64;
        assert!((told["mean"].as_f64().unwrap() - mean).abs() < 1e-9, "{key:?}");
    }
    assert!(site.agent.terminate().unwrap().success());
}

/// The path that weir opens is a link, as udev makes them, which goes and comes with the adapter.
#[test]
fn an_adapter_that_is_pulled_and_put_back_under_load_costs_no_line_but_those_on_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("by-id");
    let mut site = Site::new(&serial(&link));
    site.agent.start().unwrap();

    let mut written = 0_u64;
    for round in 0..4 {
        let plug = dir.path().join(round.to_string());
        std::fs::create_dir(&plug).unwrap();
        let line = Socat::start(&plug).unwrap();
        std::os::unix::fs::symlink(line.port(), &link).unwrap();
        let mut device = OpenOptions::new().write(true).open(line.device()).unwrap();
        let first = written;
        let numbers = |messages: &[Value]| {
            messages.iter().map(|message| message["metrics"]["n"]["value"].as_u64().unwrap()).max()
        };
        // Half a thousand lines a second, until some of this round have arrived.
        loop {
            for _ in 0..5 {
                writeln!(device, "{{\"dev\":\"counter\",\"n\":{written}}}").unwrap();
                written += 1;
            }
            thread::sleep(Duration::from_millis(10));
            let messages = site.subscriber.messages();
            if numbers(&data(&messages)).is_some_and(|last| last >= first + 50) {
                break;
            }
        }
        std::fs::remove_file(&link).unwrap();
    }
    let messages = site.data("the last round", |_| true);
    let numbers: Vec<_> =
        messages.iter().map(|message| message["metrics"]["n"]["value"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "each once, in order: {numbers:?}");
    let log = site.agent.log().join("\n");
    assert!(log.contains("it was unplugged"), "{log}");
    assert!(site.agent.terminate().unwrap().success());
}

/// A device that counts, ten lines every 10 ms.
struct Counter {
    pty: Pty,
    /// When each number was written.
    written: Vec<Instant>,
}

impl Counter {
    fn new() -> Self {
        Self { pty: Pty::open().unwrap(), written: Vec::new() }
    }

    fn run_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.write(10);
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn write(&mut self, lines: usize) {
        for _ in 0..lines {
            writeln!(self.pty, "{{\"dev\":\"counter\",\"n\":{}}}", self.written.len()).unwrap();
            self.written.push(Instant::now());
        }
    }
}

/// What a subscriber that drops repeated ids makes of it: the numbers in the order of their first arrival.
fn first_deliveries(messages: &[Value]) -> Vec<u64> {
    let mut seen = HashMap::new();
    let mut numbers = Vec::new();
    for message in messages {
        match seen.insert(message["id"].as_str().unwrap(), message) {
            None => numbers.push(message["metrics"]["n"]["value"].as_u64().unwrap()),
            Some(before) => assert_eq!(before, message, "one id for two messages"),
        }
    }
    numbers
}

fn report(name: &str, written: usize, numbers: &[u64], all: usize) {
    let arrived: BTreeSet<_> = numbers.iter().collect();
    let reordered = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    println!(
        "{name}: written {written}, lost {}, repeated {}, reordered {reordered}",
        written - arrived.len(),
        all - numbers.len()
    );
}

const OUTAGE: Duration = Duration::from_secs(30);

#[test]
fn g1_g4_g5_an_outage_of_thirty_seconds_under_load_loses_nothing_and_keeps_the_order() {
    let mut counter = Counter::new();
    let mut site = Site::new(&serial(counter.pty.port()));
    site.agent.start_until("connected").unwrap();
    counter.run_for(Duration::from_secs(2));
    site.broker.stop().unwrap();
    counter.run_for(OUTAGE);
    site.broker.restart().unwrap();
    counter.run_for(Duration::from_secs(2));

    let total = counter.written.len();
    let arrived = site.data("everything has arrived", |messages| first_deliveries(messages).len() >= total);
    let numbers = first_deliveries(&arrived);
    report("outage", total, &numbers, arrived.len());
    assert_eq!(numbers, (0..total as u64).collect::<Vec<_>>());
    assert!(site.agent.terminate().unwrap().success());
}

#[test]
fn g3_sigterm_in_the_middle_of_an_outage_loses_nothing() {
    let mut counter = Counter::new();
    let mut site = Site::new(&serial(counter.pty.port()));
    site.agent.start_until("connected").unwrap();
    counter.run_for(Duration::from_secs(2));
    site.broker.stop().unwrap();
    counter.run_for(OUTAGE / 2);
    // What no source has handed over yet is not the agent's: let it read what was written.
    counter.pty.wait_until_read().unwrap();
    assert!(site.agent.terminate().unwrap().success());
    site.agent.start_until("open").unwrap();
    counter.run_for(OUTAGE / 2);
    site.broker.restart().unwrap();
    counter.run_for(Duration::from_secs(2));

    let total = counter.written.len();
    let arrived = site.data("everything has arrived", |messages| first_deliveries(messages).len() >= total);
    let numbers = first_deliveries(&arrived);
    report("SIGTERM in an outage", total, &numbers, arrived.len());
    assert_eq!(numbers, (0..total as u64).collect::<Vec<_>>());
}

#[test]
fn g3_open_windows_that_are_too_large_to_be_saved_are_sent_as_partial() {
    const DEVICES: usize = 9_000;
    let mut pty = Pty::open().unwrap();
    let window = "[[windows]]\nname = 'long'\nmatch = '*'\ntype = 'tumbling'\nevery = '1h'\naggregates = ['count', 'mean']\n\
                  [buffer]\nmax_bytes = '4MiB'\n";
    let mut site = Site::new(&format!("{}\n{window}", serial(pty.port())));
    site.broker.stop().unwrap();
    site.agent.start_until("open").unwrap();
    for n in 0..DEVICES {
        writeln!(pty, "{{\"dev\":\"device-{n}\",\"n\":{n}}}").unwrap();
    }
    pty.wait_until_read().unwrap();
    assert!(site.agent.terminate().unwrap().success());
    site.broker.restart().unwrap();
    site.agent.start().unwrap();
    let arrived = site.data("a message of each device", |messages| messages.len() >= DEVICES);
    let devices: BTreeSet<_> = arrived.iter().map(|message| message["device"].as_str().unwrap()).collect();
    assert_eq!(devices.len(), DEVICES);
    assert!(
        arrived.iter().all(|message| message["partial"] == true && message["metrics"]["n"]["count"] == 1)
    );
}

/// SIGKILL in the middle of an outage: what was written `younger` before it or earlier has to arrive.
fn kill_in_an_outage(name: &str, buffer: &str, younger: Duration) {
    // What a loaded machine adds: the way from the line into a message, and one commit's duration.
    let younger = younger + Duration::from_millis(1_500);
    let mut counter = Counter::new();
    let mut site = Site::new(&format!("{}\n[buffer]\n{buffer}\n", serial(counter.pty.port())));
    site.agent.start_until("connected").unwrap();
    counter.run_for(Duration::from_secs(2));
    site.broker.stop().unwrap();
    counter.run_for(OUTAGE / 2);
    site.agent.kill().unwrap();
    let killed = Instant::now();
    site.agent.start_until("open").unwrap();
    counter.run_for(OUTAGE / 2);
    site.broker.restart().unwrap();
    counter.run_for(Duration::from_secs(2));

    let total = counter.written.len();
    let covered: BTreeSet<u64> = (0_u64..)
        .zip(&counter.written)
        .filter(|(_, written)| **written + younger < killed || **written > killed + Duration::from_secs(1))
        .map(|(number, _)| number)
        .collect();
    let arrived = site.data("all that is covered has arrived", |messages| {
        let numbers: BTreeSet<u64> = first_deliveries(messages).into_iter().collect();
        covered.is_subset(&numbers)
    });
    let numbers = first_deliveries(&arrived);
    report(name, total, &numbers, arrived.len());
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "first deliveries out of order");
    assert!(covered.len() > 2_000, "a test that covers nothing proves nothing");
    let gaps = site.gaps("the crash is told upstream", |gaps| gaps.iter().any(|gap| gap["cause"] == "crash"));
    assert_eq!(gaps.len(), 1, "{gaps:?}");
}

#[test]
fn g2_always_sigkill_takes_at_most_what_is_younger_than_a_commit() {
    let buffer = "durability = 'always'\ncommit_every = '200ms'";
    kill_in_an_outage("SIGKILL, always", buffer, Duration::from_millis(200));
}

#[test]
fn g2_when_offline_sigkill_takes_at_most_what_waited_for_less_than_spill_after_and_a_commit() {
    let buffer = "spill_after = '1s'\ncommit_every = '500ms'";
    kill_in_an_outage("SIGKILL, when_offline", buffer, Duration::from_millis(1_500));
}

#[test]
fn g2_when_offline_nothing_is_written_while_acknowledgements_arrive() {
    let mut counter = Counter::new();
    let mut site = Site::new(&format!(
        "{}\n[buffer]\nspill_after = '1s'\ncommit_every = '1s'\n",
        serial(counter.pty.port())
    ));
    site.agent.start_until("connected").unwrap();
    counter.run_for(Duration::from_secs(1));
    site.data("the first have arrived", |messages| messages.len() > 100);
    let before = site.agent.state().unwrap();
    counter.run_for(Duration::from_secs(6));
    let total = counter.written.len();
    site.data("everything has arrived", |messages| messages.len() >= total);
    assert_eq!(site.agent.state().unwrap(), before, "name, length and time of change of each file");
    // The same look does see a write.
    site.broker.stop().unwrap();
    counter.run_for(Duration::from_secs(4));
    assert_ne!(site.agent.state().unwrap(), before);
}

#[test]
fn g6_g7_a_full_buffer_makes_room_and_every_message_that_went_is_accounted_for() {
    const MAX_BYTES: u64 = 4 << 20;
    let mut counter = Counter::new();
    let buffer = "[buffer]\nmax_bytes = '4MiB'\nspill_after = '100ms'\ncommit_every = '200ms'\n";
    let mut site = Site::new(&format!("{}\n{buffer}", serial(counter.pty.port())));
    site.broker.stop().unwrap();
    site.agent.start_until("open").unwrap();
    let mut largest = 0;
    for _ in 0..60 {
        counter.write(1_000);
        largest = largest.max(site.agent.state_bytes().unwrap());
    }
    counter.pty.wait_until_read().unwrap();
    site.broker.restart().unwrap();

    let total = counter.written.len();
    // What is lost is told with the next commit, and what is left is sent: both come to an end.
    let messages = |gaps: &[Value]| gaps.iter().map(|gap| gap["messages"].as_u64().unwrap()).sum::<u64>();
    let all = site.subscriber.wait("what is left has arrived and what is gone is told", |all| {
        first_deliveries(&data(all)).len() as u64 + messages(&gaps(all)) >= total as u64
    });
    let all = all.unwrap();
    let (arrived, gaps) = (data(&all), gaps(&all));
    let numbers = first_deliveries(&arrived);
    println!(
        "full buffer: written {total}, arrived {}, told as lost {}, largest {largest} bytes",
        numbers.len(),
        messages(&gaps)
    );
    assert_eq!(numbers.len() as u64 + messages(&gaps), total as u64);
    assert!(
        messages(&gaps) > 0 && gaps.iter().all(|gap| gap["cause"] == "evicted" && gap["device"] == "counter")
    );
    assert_eq!(numbers.last(), Some(&(total as u64 - 1)), "the oldest go, the newest stay");
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "out of order");
    assert!(largest <= MAX_BYTES, "{largest} bytes on the disk");
}

#[test]
fn g8_it_starts_without_its_sensor_its_broker_and_its_database_and_takes_each_as_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let port = dir.path().join("port");
    let mut site = Site::new(&serial(&port));
    site.broker.stop().unwrap();
    site.agent.damage_state().unwrap();
    site.agent.start_until("no connection").unwrap();
    for told in ["port", "damaged"] {
        site.agent.wait_for(told).unwrap();
    }
    let mut counter = Counter::new();
    std::os::unix::fs::symlink(counter.pty.port(), &port).unwrap();
    site.agent.wait_for("open again").unwrap();
    counter.write(10);
    site.broker.restart().unwrap();
    let arrived = site.data("the readings have arrived", |messages| messages.len() >= 10);
    assert_eq!(first_deliveries(&arrived), (0..10).collect::<Vec<_>>());
}

#[test]
fn g9_a_megabyte_of_noise_on_the_line_neither_stops_nor_grows_it() {
    let mut pty = Pty::open().unwrap();
    let mut site = Site::new(&serial(pty.port()));
    site.agent.start_until("connected").unwrap();
    let mut random = fastrand::Rng::with_seed(42);
    let mut noise = |pty: &mut Pty, length: usize| {
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        pty.write_all(&bytes).unwrap();
    };
    let value = |n: usize| {
        move |messages: &[Value]| messages.iter().any(|message| message["metrics"]["n"]["value"] == n)
    };

    // Some noise first, so that what is allocated once is there before the comparison.
    noise(&mut pty, 64 << 10);
    pty.write_all(b"\n{\"dev\":\"sensor\",\"n\":1}\n").unwrap();
    site.data("the first good reading has arrived", value(1));
    let before = site.agent.resident().unwrap();

    noise(&mut pty, 1 << 20);
    pty.write_all(b"\n").unwrap();
    for n in 2..=100 {
        writeln!(pty, "{{\"dev\":\"sensor\",\"n\":{n}}}").unwrap();
    }
    let arrived = site.data("the last good reading has arrived", value(100));
    let good: BTreeSet<_> =
        arrived.iter().filter_map(|message| message["metrics"]["n"]["value"].as_u64()).collect();
    assert_eq!(good.len(), 100);
    let after = site.agent.resident().unwrap();
    println!("resident before {before}, after {after} bytes");
    assert!(after <= before + (1 << 20), "{before} bytes before, {after} after");
}

#[test]
fn the_status_is_retained_and_says_offline_after_a_graceful_stop_and_after_a_kill() {
    let pty = Pty::open().unwrap();
    let mut site = Site::new(&serial(pty.port()));
    let status = |site: &Site, online: bool, epochs: usize| {
        let messages = site.subscriber.wait("the status is told", |messages| {
            let told: Vec<Value> = messages
                .iter()
                .filter(|message| message.topic == "weir/gw-042/status")
                .map(|message| serde_json::from_str(&message.payload).unwrap())
                .collect();
            let known: BTreeSet<_> = told.iter().map(|status| status["epoch"].as_u64().unwrap()).collect();
            known.len() == epochs && told.last().is_some_and(|last| last["online"] == online)
        });
        messages.unwrap_or_else(|error| panic!("{error}\n{}", site.agent.log().join("\n")))
    };
    site.agent.start().unwrap();
    status(&site, true, 1);
    site.agent.terminate().unwrap();
    status(&site, false, 1);
    site.agent.start().unwrap();
    status(&site, true, 2);
    site.agent.kill().unwrap();
    status(&site, false, 2);
}

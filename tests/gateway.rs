//! The real binary between CoAP devices and simulated sensors, and a real mosquitto: as it is built for this machine,
//! and as it is built for armv7.
//!
//! The tests of the armv7 binary are left out of a plain `cargo test`, which does not build it. `tests/all` does, and
//! runs them; by hand: `tests/armv7 && cargo test --test gateway -- --ignored`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

mod support;

use support::agent::Program;
use support::mosquitto::Message;
use support::site::Site;

/// A gateway between CoAP devices, simulated sensors and a broker; it is configured and not started.
struct Field {
    site: Site,
    port: u16,
}

impl Field {
    fn new(program: Program) -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[sources.field]\ntype = 'coap_server'\nlisten = '127.0.0.1:{port}'\n\n\
             [sources.hall]\ntype = 'simulated'\ndevices = 2\nevery = '100ms'\n\n\
             [[windows]]\nname = 'fine'\nmatch = '*/temperature'\ntype = 'tumbling'\nevery = '1s'\n\
             aggregates = ['count', 'mean', 'min', 'max']\nkeep_readings = true\n\n\
             [buffer]\nspill_after = '200ms'\ncommit_every = '200ms'\n"
        );
        let mut site = Site::new(&config);
        site.agent.choose(program);
        Self { site, port }
    }

    /// A CoAP device posts; what it is answered has to say that weir has it.
    fn post(&self, path: &str, format: &str, payload: &str) {
        let output = Command::new("coap-client-notls")
            .args(["-v", "7", "-B", "60", "-m", "post", "-t", format, "-e", payload])
            .arg(format!("coap://127.0.0.1:{}/{path}", self.port))
            .output()
            .unwrap_or_else(|error| panic!("{error}: is it installed? `apt-get install libcoap3-bin`"));
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(said.contains("t:ACK c:2.04"), "{path} {payload}:\n{said}");
    }

    /// Waits until what has arrived is enough; each message once, in the order of its first arrival.
    fn arrived(&self, what: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        match self.site.subscriber.wait(what, |messages| enough(&once(messages))) {
            Ok(messages) => once(&messages),
            Err(error) => panic!("{error}\nthe agent's log:\n{}", self.site.agent.log().join("\n")),
        }
    }
}

fn once(messages: &[Message]) -> Vec<Value> {
    let data = messages.iter().filter(|message| message.topic.starts_with("weir/gw-042/data/"));
    let mut seen = HashSet::new();
    data.map(|message| serde_json::from_str::<Value>(&message.payload).unwrap())
        .filter(|message| seen.insert(message["id"].as_str().unwrap().to_owned()))
        .collect()
}

/// What passed through as it is of a series: time and value, in the order of arrival.
fn values<'a>(messages: &'a [Value], device: &str, metric: &str) -> Vec<(i64, &'a Value)> {
    let of_it = messages.iter().filter(|message| message["device"] == device);
    let values =
        of_it.filter_map(|message| Some((message["time"].as_i64()?, &message["metrics"][metric]["value"])));
    values.filter(|(_, value)| !value.is_null()).collect()
}

/// The windows of a series: start and summary.
fn windows<'a>(messages: &'a [Value], device: &str, metric: &str) -> Vec<(i64, &'a Value)> {
    let of_it = messages.iter().filter(|message| message["device"] == device && message["window"] == "fine");
    let windows = of_it.map(|message| {
        let (start, end) = (message["start"].as_i64().unwrap(), message["end"].as_i64().unwrap());
        assert!(start % 1_000 == 0 && end == start + 1_000, "{message}");
        (start, &message["metrics"][metric])
    });
    windows.collect()
}

fn counted(windows: &[(i64, &Value)]) -> u64 {
    windows.iter().map(|(_, summary)| summary["count"].as_u64().unwrap()).sum()
}

/// Every window held against those readings, passed through beside it, whose times lie in it.
fn readings_arrive_as_they_are_and_in_the_right_windows(program: Program) {
    let mut field = Field::new(program);
    field.site.agent.start_until("connected").unwrap();
    for n in 0..20 {
        field.post("boiler", "application/json", &format!("{{\"temperature\":{n}.25,\"pressure\":{n}}}"));
        field.post("boiler/door", "text/plain", if n % 2 == 0 { "true" } else { "false" });
    }
    let devices = ["boiler", "hall-1", "hall-2"];
    let arrived = field.arrived("the windows of the devices", |messages| {
        devices.iter().all(|device| counted(&windows(messages, device, "temperature")) >= 20)
    });
    assert!(field.site.agent.terminate().unwrap().success());

    let plain = |metric| values(&arrived, "boiler", metric).into_iter().map(|(_, value)| value.clone());
    assert_eq!(
        plain("temperature").collect::<Vec<_>>(),
        (0..20).map(|n| Value::from(f64::from(n) + 0.25)).collect::<Vec<_>>()
    );
    assert_eq!(plain("pressure").collect::<Vec<_>>(), (0..20).map(Value::from).collect::<Vec<_>>());
    assert_eq!(
        plain("door").collect::<Vec<_>>(),
        (0..20).map(|n| Value::from(n % 2 == 0)).collect::<Vec<_>>()
    );
    assert_eq!(counted(&windows(&arrived, "boiler", "temperature")), 20);
    for device in devices {
        let mut expected: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for (time, value) in values(&arrived, device, "temperature") {
            expected.entry(time - time.rem_euclid(1_000)).or_default().push(value.as_f64().unwrap());
        }
        for (start, told) in windows(&arrived, device, "temperature") {
            let values =
                expected.remove(&start).unwrap_or_else(|| panic!("{device}: {start} twice, or empty"));
            assert_eq!(told["count"], values.len(), "{device} {start}");
            assert_eq!(told["min"].as_f64(), values.iter().copied().reduce(f64::min), "{device} {start}");
            assert_eq!(told["max"].as_f64(), values.iter().copied().reduce(f64::max), "{device} {start}");
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            assert!(
                (told["mean"].as_f64().unwrap() - mean).abs() < 1e-9,
                "{device} {start}: {told} for {mean}"
            );
        }
    }
}

#[test]
fn readings_arrive_as_they_are_and_in_the_right_windows_natively() {
    readings_arrive_as_they_are_and_in_the_right_windows(Program::Native);
}

#[test]
#[ignore = "needs the binary that tests/armv7 builds; tests/all runs it"]
fn readings_arrive_as_they_are_and_in_the_right_windows_on_armv7() {
    readings_arrive_as_they_are_and_in_the_right_windows(Program::Armv7);
}

/// What is asked of the gateway is what it has answered with 2.04: that it has it.
fn what_was_taken_in_an_outage_outlives_sigterm(program: Program) {
    let mut field = Field::new(program);
    field.site.agent.start_until("connected").unwrap();
    field.post("pump/starts", "text/plain", "0");
    field.arrived("the first reading", |messages| !values(messages, "pump", "starts").is_empty());
    field.site.broker.stop().unwrap();
    for n in 1..20 {
        field.post("pump/starts", "text/plain", &n.to_string());
    }
    assert!(field.site.agent.terminate().unwrap().success());
    assert!(field.site.agent.state_bytes().unwrap() > 0, "what waits is on the disk");
    field.site.broker.restart().unwrap();
    field.site.agent.start_until("connected").unwrap();
    field.post("pump/starts", "text/plain", "20");
    let arrived =
        field.arrived("all that was taken", |messages| values(messages, "pump", "starts").len() >= 21);
    assert!(field.site.agent.terminate().unwrap().success());
    let starts: Vec<_> =
        values(&arrived, "pump", "starts").into_iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(starts, (0..=20).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn what_was_taken_in_an_outage_outlives_sigterm_natively() {
    what_was_taken_in_an_outage_outlives_sigterm(Program::Native);
}

#[test]
#[ignore = "needs the binary that tests/armv7 builds; tests/all runs it"]
fn what_was_taken_in_an_outage_outlives_sigterm_on_armv7() {
    what_was_taken_in_an_outage_outlives_sigterm(Program::Armv7);
}

#[test]
#[ignore = "needs the binary that tests/armv7 builds; tests/all runs it"]
fn the_armv7_binary_says_its_version_and_checks_files() {
    let run = |arguments: &[&str]| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Program::Armv7.command().unwrap().current_dir(root).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), said)
    };
    assert_eq!(run(&["--version"]), (Some(0), concat!("weir ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
    let mut samples = 0;
    for sample in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config")).unwrap() {
        let sample = sample.unwrap().path();
        // There is a folder of register maps beside them.
        if !sample.is_file() {
            continue;
        }
        let (code, said) = run(&["check", "--config", sample.to_str().unwrap()]);
        assert!(code == Some(0) && said.contains("no errors"), "{said}");
        samples += 1;
    }
    assert!(samples >= 5, "{samples}");
    let (code, said) = run(&["check", "--config", "tests/cli/five-mistakes.toml"]);
    assert!(code == Some(78) && said.matches("error: ").count() == 5, "{code:?} {said}");
}

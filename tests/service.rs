//! The real binary as a service: what it tells systemd, and what it does when it is told to read its file again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

mod support;

use support::agent::Agent;
use support::pty::Pty;
use support::site::Site;

/// What systemd would hear.
struct Systemd(UnixDatagram);

impl Systemd {
    /// Listens at the site, and has the agent know of it when it is started next.
    fn of(site: &mut Site) -> Self {
        let path = site.dir().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        site.agent.set("NOTIFY_SOCKET", path.to_str().unwrap());
        Self(socket)
    }

    fn hears(&self) -> String {
        let mut said = [0; 4096];
        let length = self.0.recv(&mut said).unwrap();
        String::from_utf8(said[..length].to_vec()).unwrap()
    }

    /// The next that is no word to the watchdog.
    fn hears_of_a_change(&self) -> String {
        loop {
            let said = self.hears();
            if !said.contains("WATCHDOG=1") {
                return said;
            }
        }
    }

    /// Has the agent read its file again; gives what it says once that is done.
    fn reload(&self, agent: &Agent) -> String {
        agent.hang_up().unwrap();
        assert!(self.hears_of_a_change().starts_with("RELOADING=1\n"));
        let said = self.hears_of_a_change();
        assert!(said.starts_with("READY=1\n"), "{said}");
        said
    }
}

fn serial(port: &Path) -> String {
    format!(
        "[sources.line]\ntype = 'serial'\nport = '{}'\nbaud = 115200\ndecode = {{ type = 'json' }}\n",
        port.display()
    )
}

#[test]
fn it_is_ready_without_sensor_and_broker_and_keeps_the_watchdog_fed() {
    let mut site = Site::new(&serial(Path::new("/nonexistent/port")));
    site.broker.stop().unwrap();
    let systemd = Systemd::of(&mut site);
    site.agent.set("WATCHDOG_USEC", "400000");
    site.agent.start().unwrap();
    assert!(systemd.hears().starts_with("READY=1\n"));
    for _ in 0..3 {
        assert!(systemd.hears().starts_with("WATCHDOG=1"));
    }
    assert!(site.agent.terminate().unwrap().success());
    assert!(systemd.hears_of_a_change().starts_with("STOPPING=1\n"));
}

#[test]
fn a_wrong_file_is_refused_with_the_reason_and_weir_goes_on_as_before() {
    let line = Pty::open().unwrap();
    let right = serial(line.port());
    let mut site = Site::new(&right);
    let systemd = Systemd::of(&mut site);
    site.agent.start().unwrap();
    assert!(systemd.hears().starts_with("READY=1\n"));

    site.agent.configure(&right.replace("baud", "bauds"), "").unwrap();
    assert!(systemd.reload(&site.agent).contains("refused"));
    site.agent.wait_for("is refused").unwrap();
    assert!(site.agent.log().iter().any(|line| line.contains("bauds")), "the log says what is wrong");

    let mut device = line.device().unwrap();
    writeln!(device, "{{\"n\": 1}}").unwrap();
    site.data("it still reads", |messages| messages.len() == 1);
    site.agent.configure(&right, "").unwrap();
    assert!(systemd.reload(&site.agent).contains("reloaded"));
    assert!(site.agent.terminate().unwrap().success());
}

/// One value of the line's, as often as it arrived.
fn numbers(messages: &[Value]) -> Vec<u64> {
    let of_line = messages.iter().filter(|message| message["source"] == "line");
    of_line.filter_map(|message| message["metrics"]["n"]["value"].as_u64()).collect()
}

/// A line that never stops, through every kind of change.
#[test]
fn a_reload_changes_what_the_file_changes_and_loses_nothing_of_the_rest() {
    let line = Pty::open().unwrap();
    let serial = serial(line.port());
    let mut site = Site::new(&serial);
    let systemd = Systemd::of(&mut site);
    site.agent.start().unwrap();
    assert!(systemd.hears().starts_with("READY=1\n"));

    let mut device = line.device().unwrap();
    let writing = thread::spawn(move || {
        for n in 1..=1_000 {
            writeln!(device, "{{\"n\": {n}}}").unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    });
    let simulated = "[sources.hall]\ntype = 'simulated'\ndevices = 1\nevery = '50ms'\n";
    let window = "[[windows]]\nname = 'w'\nmatch = '*/temperature'\ntype = 'tumbling'\nevery = '100ms'\naggregates = ['count']\n";
    let hall = |messages: &[Value], window: bool| {
        messages.iter().any(|message| message["source"] == "hall" && message["window"].is_string() == window)
    };

    // Another source.
    site.agent.configure(&format!("{serial}{simulated}"), "").unwrap();
    systemd.reload(&site.agent);
    site.data("the other source is read", |messages| hall(messages, false));
    // Other rules.
    site.agent.configure(&format!("{serial}{simulated}{window}"), "").unwrap();
    systemd.reload(&site.agent);
    site.data("its windows are cut", |messages| hall(messages, true));
    // Another way up.
    let more = "topic = 'weir/{gateway}/data/other/{device}'\n";
    site.agent.configure(&format!("{serial}{simulated}{window}"), more).unwrap();
    systemd.reload(&site.agent);
    let moved = |topic: &str| topic.starts_with("weir/gw-042/data/other/");
    site.subscriber
        .wait("it uses the other topic", |messages| messages.iter().any(|message| moved(&message.topic)))
        .unwrap();
    // A source less.
    site.agent.configure(&serial, more).unwrap();
    systemd.reload(&site.agent);
    let log = site.agent.log();
    assert!(log.iter().any(|line| line.contains("read in this run") && line.contains("hall")), "{log:#?}");

    writing.join().unwrap();
    let arrived = site.data("all of the line has arrived", |messages| numbers(messages).contains(&1_000));
    assert_eq!(numbers(&arrived), (1..=1_000).collect::<Vec<_>>(), "each once, and in order");
    let opened = |line: &&String| line.contains(" open source=\"line\"");
    assert_eq!(site.agent.log().iter().filter(opened).count(), 1, "the line was left alone");
    // The whole agent anew.
    site.agent.configure(&format!("[buffer]\ndurability = 'always'\n{serial}"), more).unwrap();
    systemd.reload(&site.agent);
    let mut device = line.device().unwrap();
    writeln!(device, "{{\"n\": 1001}}").unwrap();
    site.data("it reads on", |messages| numbers(messages).contains(&1_001));
    assert!(site.agent.terminate().unwrap().success());
    assert!(fs::exists(site.dir().join("gateway/outbox.db")).unwrap());
}

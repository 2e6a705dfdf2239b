//! The real binary as a service: what it tells systemd, and what it does when it is told to read its file again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
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
        assert!(self.hears_of_a_change().starts_with("RELOADING=1\nMONOTONIC_USEC="));
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

/// A file that is read slowly: weir has begun to, and waits for the rest.
#[test]
fn a_signal_while_it_reads_its_file_for_the_first_time_does_not_kill_it() {
    let mut site = Site::new(&serial(Path::new("/nonexistent/port")));
    let systemd = Systemd::of(&mut site);
    let path = site.dir().join("gateway/weir.toml");
    let aside = site.dir().join("gateway/aside.toml");
    let text = fs::read(&path).unwrap();
    fs::rename(&path, &aside).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    site.agent.start().unwrap();
    // This waits until it is opened at the other end.
    let mut slowly = fs::OpenOptions::new().write(true).open(&path).unwrap();
    site.agent.hang_up().unwrap();
    fs::rename(&aside, &path).unwrap();
    slowly.write_all(&text).unwrap();
    drop(slowly);
    assert!(systemd.hears_of_a_change().starts_with("READY=1\n"));
    assert!(systemd.hears_of_a_change().starts_with("RELOADING=1\n"));
    assert!(systemd.hears_of_a_change().contains("reloaded"));
    assert!(site.agent.terminate().unwrap().success());
    assert!(systemd.hears_of_a_change().starts_with("STOPPING=1\n"));
}

/// How long a device waits before it asks again.
const TRY: Duration = Duration::from_millis(200);

/// A broker that has stopped answering, so that an agent which begins anew has to wait for it.
#[test]
fn while_a_start_anew_waits_for_the_broker_devices_are_served_and_only_the_last_file_counts() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let coap = format!("[sources.field]\ntype = 'coap_server'\nlisten = '127.0.0.1:{port}'\n");
    let mut site = Site::new(&coap);
    let systemd = Systemd::of(&mut site);
    site.agent.start_until("connected").unwrap();
    assert!(systemd.hears_of_a_change().starts_with("READY=1\n"));
    let device = UdpSocket::bind("127.0.0.1:0").unwrap();
    device.connect(("127.0.0.1", port)).unwrap();
    device.set_read_timeout(Some(TRY)).unwrap();
    // As a device does, it repeats what is not answered.
    let post = |id: u8| {
        let request = [&[0x40, 2, 0, id], &b"\xb1b\x01n\xff"[..], id.to_string().as_bytes()].concat();
        (1..).find_map(|times| {
            device.send(&request).unwrap();
            let mut answer = [0; 64];
            match device.recv(&mut answer) {
                Ok(_) => return Some((answer[1], times)),
                // Nobody listens: that is said at once.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => thread::sleep(TRY),
                Err(_) => {}
            }
            None
        })
    };
    assert_eq!(post(1), Some((0x44, 1)));
    site.data("the first has arrived", |messages| messages.len() == 1);
    site.broker.pause().unwrap();
    assert_eq!(post(2), Some((0x44, 1)));

    let anew = |spill: u8| format!("[buffer]\nspill_after = '{spill}s'\n{coap}");
    site.agent.configure(&anew(6), "").unwrap();
    site.agent.hang_up().unwrap();
    assert!(systemd.hears_of_a_change().starts_with("RELOADING=1\n"));
    site.agent.wait_for("starting anew").unwrap();
    // It waits for the broker now.
    let (mut id, mut longest) = (2, 0);
    for spill in 0..40 {
        site.agent.configure(&anew(10 + spill), "").unwrap();
        site.agent.hang_up().unwrap();
        id += 1;
        let (code, times) = post(id).unwrap();
        assert_eq!(code, 0x44);
        longest = longest.max(times);
    }
    assert!(longest <= 15, "the broker is waited for {longest} times {TRY:?}");
    site.agent.configure(&format!("{coap}[sources.last]\ntype = 'simulated'\nevery = '1day'\n"), "").unwrap();
    site.agent.hang_up().unwrap();
    site.broker.resume().unwrap();
    while !systemd.hears_of_a_change().contains("reloaded") {}
    site.agent.wait_for("open source=\"last\"").unwrap();
    // A request from before counts once, whatever began anew since.
    assert_eq!(post(2).map(|(code, _)| code), Some(0x44));
    assert_eq!(post(100).map(|(code, _)| code), Some(0x44));
    let of_b = |messages: &[Value]| {
        let mut by_id: Vec<_> = messages
            .iter()
            .filter(|message| message["device"] == "b")
            .map(|message| (message["id"].to_string(), message["metrics"]["n"]["value"].as_u64().unwrap()))
            .collect();
        by_id.sort();
        by_id.dedup();
        let mut values: Vec<_> = by_id.into_iter().map(|(_, value)| value).collect();
        values.sort_unstable();
        values
    };
    let expected: Vec<u64> = (1..=u64::from(id)).chain([100]).collect();
    let arrived = site.data("the last has arrived", |messages| of_b(messages).len() >= expected.len());
    assert_eq!(of_b(&arrived), expected);
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

#[test]
fn a_backlog_that_another_state_dir_leaves_behind_is_warned_of() {
    let line = Pty::open().unwrap();
    let serial = serial(line.port());
    let mut site = Site::new(&serial);
    site.broker.stop().unwrap();
    let systemd = Systemd::of(&mut site);
    site.agent.start_until(" open").unwrap();
    assert!(systemd.hears().starts_with("READY=1\n"));
    writeln!(line.device().unwrap(), "{{\"n\": 1}}\n{{\"n\": 2}}").unwrap();
    let path = site.dir().join("gateway/weir.toml");
    let old = fs::read_to_string(&path).unwrap();
    let dir = site.dir().join("gateway");
    let new = old.replace(
        &format!("state_dir = '{}'", dir.display()),
        &format!("state_dir = '{}'", site.dir().join("other").display()),
    );
    assert_ne!(old, new);
    fs::write(&path, new).unwrap();
    systemd.reload(&site.agent);
    let left = |line: &String| line.contains("stay behind unsent") && line.contains("messages=2");
    assert!(site.agent.log().iter().any(|line| left(line) && line.contains(&*dir.to_string_lossy())));
    assert!(site.agent.terminate().unwrap().success());
}

#[test]
fn a_reload_to_an_uplink_that_cannot_connect_is_refused_and_the_one_that_works_goes_on() {
    let mut pty = Pty::open().unwrap();
    let mut site = Site::new(&serial(pty.port()));
    let systemd = Systemd::of(&mut site);
    site.agent.start_until("connected").unwrap();
    assert!(systemd.hears_of_a_change().starts_with("READY=1\n"));
    let file = site.dir().join("gateway/weir.toml");
    let right = fs::read_to_string(&file).unwrap();
    fs::write(&file, right.replace("client.key", "nobody.key")).unwrap();
    assert!(systemd.reload(&site.agent).contains("refused"));
    site.agent.wait_for("nobody.key is not there yet").unwrap();
    writeln!(pty, "{{\"n\":1}}").unwrap();
    site.data("a reading arrives all the same", |data| !data.is_empty());
    // The same file, and what it names is gone: that is no reason to refuse a change of something else.
    fs::write(&file, right.replace("baud = 115200", "baud = 9600")).unwrap();
    fs::remove_file(site.dir().join("client.key")).unwrap();
    assert!(systemd.reload(&site.agent).contains("reloaded"));
    assert!(site.agent.terminate().unwrap().success());
}

#[test]
fn a_wrong_map_of_registers_keeps_its_source_alone_waiting_until_it_is_mended() {
    let line = Pty::open().unwrap();
    let meters = |map: &str| {
        format!(
            "{}[sources.meters]\ntype = 'modbus'\naddress = '127.0.0.1:1'\nregisters_file = '{map}'\n\
             devices = [{{ device = 'meter-1', unit_id = 1 }}]\n",
            serial(line.port())
        )
    };
    let mut site = Site::new("");
    let map = site.dir().join("map.csv");
    let wrong = |address: &str| fs::write(&map, format!("metric,address\nv,{address}\n")).unwrap();
    wrong("zero");
    site.agent.configure(&meters(map.to_str().unwrap()), "").unwrap();
    let systemd = Systemd::of(&mut site);
    site.agent.start().unwrap();
    assert!(systemd.hears_of_a_change().starts_with("READY=1\n"));
    site.agent.wait_for(&format!("WARN cannot open {}: ", map.display())).unwrap();
    let mut device = line.device().unwrap();
    writeln!(device, "{{\"n\": 1}}").unwrap();
    site.data("the other source delivers", |messages| messages.len() == 1);

    // What was wrong before is no reason to refuse a change of something else, and what becomes wrong is one.
    let other = meters(map.to_str().unwrap()).replace("baud = 115200", "baud = 9600");
    site.agent.configure(&other, "").unwrap();
    assert!(systemd.reload(&site.agent).contains("reloaded"));
    wrong("one");
    assert!(systemd.reload(&site.agent).contains("refused"));
    site.agent.wait_for("is refused, as source meters could not open: ").unwrap();

    // Nothing listens at that port, which is the next thing that is told.
    wrong("0");
    site.agent.wait_for("connection refused: nothing listens").unwrap();
    assert!(systemd.reload(&site.agent).contains("reloaded"));
    wrong("zero");
    assert!(systemd.reload(&site.agent).contains("refused"));
    assert!(site.agent.terminate().unwrap().success());
}

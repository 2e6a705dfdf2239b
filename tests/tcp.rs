//! The real binary between devices that connect, or are dialled, and a real mosquitto.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

mod support;

use support::files;
use support::mosquitto::Message;
use support::pki::{Authority, Files, Identity, Valid};
use support::site::{Site, data};

const DECODE: &str = "decode = { type = 'json', device = 'dev' }";

/// A port of loopback that nobody has.
fn port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A source that listens at `port`, with the rest of its table.
fn source(port: u16, table: &str) -> String {
    format!("[sources.field]\ntype = 'tcp'\nlisten = '127.0.0.1:{port}'\n{DECODE}\n{table}\n")
}

/// A gateway that listens at a port of its own.
fn field(table: &str) -> (Site, u16) {
    let port = port();
    let mut site = Site::new(&source(port, table));
    site.agent.start_until(" open").unwrap();
    (site, port)
}

fn device(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
}

/// Tries until it is so, for a minute at most.
fn until(what: &str, site: &Site, mut so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if so() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("waited in vain until {what}; the agent's log:\n{}", site.agent.log().join("\n"));
}

/// Each value of metric `n` that has arrived, with how often.
fn numbers(data: &[Value]) -> HashMap<u64, u64> {
    let mut found = HashMap::new();
    for number in data.iter().filter_map(|message| message["metrics"]["n"]["value"].as_u64()) {
        *found.entry(number).or_insert(0) += 1;
    }
    found
}

/// Waits until the numbers below `count` have arrived, and sees that each did so once.
fn each_once(site: &Site, count: u64) {
    let all = |messages: &[Message]| {
        messages.iter().filter(|message| message.payload.contains("\"n\"")).count() as u64 >= count
    };
    let messages = site.subscriber.wait("all numbers have arrived", all);
    let messages = messages.unwrap_or_else(|error| {
        let said: String = error.to_string().chars().take(2_000).collect();
        panic!("{said}\nthe agent's log:\n{}", site.agent.log().join("\n"))
    });
    let found = numbers(&data(&messages));
    let wrong: Vec<_> = (0..count).filter(|number| found.get(number) != Some(&1)).collect();
    assert!(wrong.is_empty(), "{} did not arrive once, such as {:?}", wrong.len(), wrong.first());
}

#[test]
fn ten_thousand_connections_each_bring_their_reading_once() {
    const COUNT: u64 = 10_000;
    files::at_least(COUNT + 1_000).unwrap();
    let (site, port) = field("max_connections = 10000");
    let mut devices: Vec<_> = (0..COUNT).map(|_| device(port)).collect();
    let lines: Vec<_> = (0..COUNT).map(|n| format!("{{\"dev\":\"d{}\",\"n\":{n}}}\n", n % 100)).collect();
    // Each is in the middle of its line while all others begin theirs.
    for half in [0, 1] {
        for (device, line) in devices.iter_mut().zip(&lines) {
            let (begin, end) = line.split_at(9);
            device.write_all([begin, end][half].as_bytes()).unwrap();
        }
    }
    each_once(&site, COUNT);
    let open = || fs::read_dir(format!("/proc/{}/fd", site.agent.id().unwrap())).unwrap().count();
    assert!(open() > 10_000);
    // One more is one too many.
    let _more = device(port);
    site.agent.wait_for("there are 10000 connections already (`max_connections`)").unwrap();
    drop(devices);
    until("the connections are closed", &site, || open() < 100);
    assert!(!site.agent.log().iter().any(|line| line.contains("cut_off")));
}

#[test]
fn a_device_that_sends_without_pause_does_not_keep_what_waits_from_being_sent() {
    const ENOUGH: u64 = 2_000;
    let port = port();
    let arrived = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&arrived);
    let keep = move |line: &str| {
        count.fetch_add(u64::from(line.contains("/data/")), Ordering::Relaxed);
        false
    };
    let table = format!(
        "[sources.field]\ntype = 'tcp'\nlisten = '127.0.0.1:{port}'\ndecode = {{ type = 'text', metric = 'n' }}\n"
    );
    let mut site = Site::sifted(keep, &table);
    site.agent.start_until(" open").unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut device, lines) = (device(port), "1\n".repeat(32 << 10));
            while !ended.load(Ordering::Relaxed) {
                device.write_all(lines.as_bytes()).unwrap();
            }
        });
        // All that arrives does so while it sends.
        let enough = (0..600).any(|_| {
            thread::sleep(Duration::from_millis(100));
            arrived.load(Ordering::Relaxed) >= ENOUGH
        });
        ended.store(true, Ordering::Relaxed);
        assert!(enough, "{} messages in a minute", arrived.load(Ordering::Relaxed));
    });
}

/// A device that speaks TLS: openssl's client sends `text` and ends.
fn s_client(port: u16, trusted: &Path, own: Option<&Files>, more: &[&str], text: &str) -> bool {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error"]);
    command.args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(trusted).args(more);
    if let Some(own) = own {
        command.arg("-cert").arg(&own.cert).arg("-key").arg(&own.key);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = command.spawn().unwrap_or_else(|error| panic!("{error}: is openssl installed?"));
    let mut input = client.stdin.take().unwrap();
    // It may have ended by then.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    client.wait().unwrap().success()
}

#[test]
fn with_tls_only_devices_whose_certificate_the_ca_has_signed_are_read_and_each_reason_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let new = |name: &str| Authority::new(name).unwrap();
    let (own, foreign, namesake) = (new("Devices"), new("Others"), new("Devices"));
    let write = |identity: &Identity, name: &str| identity.write(dir.path(), name, &own).unwrap();
    let server = write(&own.server(&["localhost"], Valid::Now).unwrap(), "tcp");
    let client =
        |authority: &Authority, name: &str, valid| write(&authority.client(name, valid).unwrap(), name);
    let good = client(&own, "logger", Valid::Now);
    let stranger = client(&foreign, "stranger", Valid::Now);
    let version_1 = dir.path().join("version-1.pem");
    fs::write(&version_1, include_str!("support/version-1.pem")).unwrap();
    let version_1 = Files { ca: server.ca.clone(), cert: version_1.clone(), key: version_1 };
    let (site, port) = field(&format!(
        "tls = {{ cert = '{}', key = '{}', ca = '{}' }}",
        server.cert.display(),
        server.key.display(),
        server.ca.display()
    ));

    for (number, version) in ["-tls1_2", "-tls1_3"].into_iter().enumerate() {
        let text = format!("{{\"dev\":\"logger\",\"n\":{number}}}\n");
        until("openssl is through", &site, || s_client(port, &server.ca, Some(&good), &[version], &text));
    }
    each_once(&site, 2);

    let text = "{\"dev\":\"stranger\",\"n\":99}\n";
    let refused = || -> Vec<String> {
        site.agent.log().iter().filter(|line| line.contains("cause=\"tls\"")).cloned().collect()
    };
    device(port).write_all(text.as_bytes()).unwrap();
    until("it is told", &site, || refused().iter().any(|line| line.contains("it does not speak TLS")));
    for (own, words) in [
        (None, "it shows no certificate"),
        (Some(&stranger), "its certificate is not signed by any authority in `tls.ca`"),
        (Some(&stranger), "its certificate is not signed by any authority in `tls.ca`"),
        (
            Some(&client(&namesake, "namesake", Valid::Now)),
            "its certificate names an authority in `tls.ca` that has not signed it",
        ),
        (Some(&client(&own, "expired", Valid::Past)), "its certificate expired on 2001-01-01T00:00:00Z"),
        (Some(&client(&own, "early", Valid::Future)), "its certificate is not valid before 2098-01-01T"),
        (Some(&server), "its certificate is not meant for a client"),
        (
            Some(&write(&own.own(), "authority")),
            "its certificate is that of an authority, or signed by itself",
        ),
        (Some(&version_1), "its certificate is of X.509 version 1"),
    ] {
        s_client(port, &server.ca, own, &[], text);
        until(words, &site, || refused().iter().any(|line| line.contains(words)));
    }
    let told = refused();
    assert!(
        told.len() == 9 && told[8].contains("count=10"),
        "the second stranger is only counted: {told:#?}"
    );

    // Another certificate, in the same files: it is shown from then on, and what stands goes on.
    let other = Authority::new("Renewed").unwrap();
    other.server(&["localhost"], Valid::Now).unwrap().write(dir.path(), "tcp", &own).unwrap();
    let trusted = dir.path().join("renewed.pem");
    fs::write(&trusted, other.pem()).unwrap();
    let text = "{\"dev\":\"logger\",\"n\":2}\n";
    until("the new certificate is shown", &site, || s_client(port, &trusted, Some(&good), &[], text));
    site.agent.wait_for("devices are shown the new certificate in").unwrap();
    each_once(&site, 3);
    assert_eq!(numbers(&data(&site.subscriber.messages())).get(&99), None);
}

#[test]
fn a_reload_leaves_the_connections_of_a_source_that_is_as_it_was() {
    let (site, port) = field("");
    let (mut stays, mut goes) = (device(port), device(port));
    stays.write_all(b"{\"dev\":\"a\",\"n\":0}\n{\"dev\":").unwrap();
    goes.write_all(b"{\"dev\":\"b\",\"n\":1}\n").unwrap();
    each_once(&site, 2);
    let filter = "[[filters]]\nmatch = '*/none'\ntype = 'range'\nmin = 0.0\n";
    site.agent.configure(&format!("{}{filter}", source(port, "")), "").unwrap();
    site.agent.hang_up().unwrap();
    site.agent.wait_for("reloaded").unwrap();
    stays.write_all(b"\"a\",\"n\":2}\n").unwrap();
    each_once(&site, 3);

    site.agent.configure(&source(port, "idle_timeout = '1h'"), "").unwrap();
    site.agent.hang_up().unwrap();
    until("the source is open anew", &site, || {
        // Its connections are closed with it.
        goes.write_all(b"\n").is_err()
    });
    device(port).write_all(b"{\"dev\":\"a\",\"n\":3}\n").unwrap();
    each_once(&site, 4);
}

#[test]
fn hostile_devices_neither_stop_it_nor_grow_it() {
    let (mut site, port) = field("max_connections = 500\nidle_timeout = '1m'");
    let mut good = device(port);
    good.write_all(b"{\"dev\":\"good\",\"n\":0}\n").unwrap();
    each_once(&site, 1);
    let before = site.agent.resident().unwrap();
    let mut chance = fastrand::Rng::with_seed(42);
    let mut held = Vec::new();
    let mut noise = vec![0; 100_000];
    for turn in 0..3_000 {
        let mut socket = device(port);
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        chance.fill(&mut noise);
        let length = chance.usize(..noise.len());
        // It may be refused, or closed, at any time.
        let _ = match turn % 5 {
            // Says nothing, or a little, and stays.
            0 => {
                held.push(socket);
                Ok(())
            }
            1 => socket.write_all(b"{\"dev\":\"x\",").map(|()| held.push(socket)),
            // A frame that never ends.
            2 => socket.write_all(&vec![b'x'; 60_000]).map(|()| held.push(socket)),
            // Noise, and a reset.
            3 => socket
                .write_all(&noise[..length])
                .and_then(|()| socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))),
            _ => Ok(()),
        };
    }
    good.write_all(b"{\"dev\":\"good\",\"n\":1}\n").unwrap();
    each_once(&site, 2);
    let grown = site.agent.resident().unwrap().saturating_sub(before);
    println!("{} KiB more than the {} KiB before", grown >> 10, before >> 10);
    assert!(grown <= 25 << 20, "{grown} bytes more than the {before} before");
    assert!(site.agent.log().iter().any(|line| line.contains("cause=\"too_many\"")));
    drop(held);
    assert!(site.agent.terminate().unwrap().success());
}

#[test]
fn where_there_are_no_files_left_it_says_so_and_goes_on_once_there_are() {
    let (site, port) = field("");
    let mut first = device(port);
    first.write_all(b"{\"dev\":\"a\",\"n\":0}\n").unwrap();
    each_once(&site, 1);
    let id = site.agent.id().unwrap();
    let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() as u64;
    let limit = |files| {
        let pid = Pid::from_raw(id.try_into().unwrap());
        let maximum = prlimit(pid, Resource::Nofile, Rlimit { current: Some(files), maximum: Some(4096) });
        maximum.unwrap();
    };
    limit(open);
    let mut second = device(port);
    second.write_all(b"{\"dev\":\"a\",\"n\":1}\n").unwrap();
    site.agent.wait_for("cannot take a connection: Too many open files").unwrap();
    first.write_all(b"{\"dev\":\"a\",\"n\":2}\n").unwrap();
    site.data("the first is read meanwhile", |data| numbers(data).contains_key(&2));
    limit(4096);
    each_once(&site, 3);
}

#[test]
fn a_device_that_is_dialled_may_go_and_come_back() {
    let port = port();
    let mut site = Site::new(&format!(
        "[sources.logger]\ntype = 'tcp'\nconnect = 'localhost:{port}'\ndevice = 'logger'\n{DECODE}\n"
    ));
    site.agent.start_until("is not there: nothing listens there").unwrap();
    for number in 0..2 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (mut device, _) = listener.accept().unwrap();
        writeln!(device, "{{\"n\":{number}}}").unwrap();
        each_once(&site, number + 1);
    }
    let data = site.data("both have arrived", |data| data.len() >= 2);
    assert!(data.iter().all(|message| message["device"] == "logger"));
    site.agent.wait_for("went away: it closed the connection").unwrap();
}

/// A file system whose writes can be made to hang. It is let go of, and unmounted, with this handle.
struct Card {
    at: PathBuf,
    device: String,
}

impl Card {
    fn mount(at: &Path, image: &Path) -> Self {
        File::create(image).unwrap().set_len(128 << 20).unwrap();
        run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        let device = run("losetup", &["--find", "--show", image.to_str().unwrap()]);
        run("mount", &[&device, at.to_str().unwrap()]);
        Self { at: at.to_owned(), device }
    }

    fn freeze(&self) {
        run("fsfreeze", &["--freeze", self.at.to_str().unwrap()]);
    }

    fn thaw(&self) {
        run("fsfreeze", &["--unfreeze", self.at.to_str().unwrap()]);
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.at).output();
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        let _ = Command::new("losetup").args(["--detach", &self.device]).output();
    }
}

/// Runs a command that must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run `{program}`: {error}: install it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program}` failed: {said} (run the tests as root)");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn while_neither_broker_nor_disk_takes_anything_devices_wait_and_nothing_is_lost() {
    let port = port();
    let mut site = Site::new(&source(port, ""));
    let (gateway, image) = (site.dir().join("gateway"), site.dir().join("card"));
    let config = fs::read_to_string(gateway.join("weir.toml")).unwrap();
    let card = Card::mount(&gateway, &image);
    fs::write(gateway.join("weir.toml"), config).unwrap();
    site.agent.start_until(" connected").unwrap();
    let before = site.agent.resident().unwrap();
    site.broker.pause().unwrap();
    card.freeze();

    // A device that writes as fast as it may. One line has much in it, so that a few thousand fill what there is.
    let (written, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let (mut socket, written, enough) = (device(port), written.clone(), enough.clone());
        thread::spawn(move || {
            let rest: String = (0..100).map(|metric| format!(",\"metric-{metric}\":21.5")).collect();
            while !enough.load(Ordering::Relaxed) {
                let number = written.load(Ordering::Relaxed);
                writeln!(socket, "{{\"dev\":\"loud\",\"n\":{number}{rest}}}").unwrap();
                written.store(number + 1, Ordering::Relaxed);
            }
        })
    };
    let mut last = (u64::MAX, 0);
    until("the device is held back", &site, || {
        let now = written.load(Ordering::Relaxed);
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        last.1 >= 30
    });
    let grown = site.agent.resident().unwrap().saturating_sub(before);
    println!("held back after {} lines; {} KiB more than before", last.0, grown >> 10);
    assert!(grown <= 30 << 20, "{grown} bytes more than the {before} before");

    enough.store(true, Ordering::Relaxed);
    card.thaw();
    site.broker.resume().unwrap();
    writer.join().unwrap();
    each_once(&site, written.load(Ordering::Relaxed));
    assert!(site.agent.terminate().unwrap().success());
    drop(card);
}

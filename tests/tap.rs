//! `weir tap` with the real binary: what it shows of a source, with a weir that runs and without.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "how long a process takes to end is measured")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

mod support;

use support::process::{Output, Process};
use support::pty::Pty;
use support::site::Site;
use support::socat::Socat;

fn command(config: &Path, source: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["tap", source, "--config"]).arg(config).env_remove("RUNTIME_DIRECTORY");
    command
}

fn tap(config: &Path, source: &str) -> Process {
    Process::start(&mut command(config, source), Output::Stdout).unwrap()
}

/// Waits for a line that has all of these words.
#[track_caller]
fn wait(tap: &Process, words: &[&str]) {
    let has = |line: &String| words.iter().all(|word| line.contains(word));
    tap.wait(&format!("a line has {words:?}"), |lines| lines.iter().any(has)).unwrap();
}

#[track_caller]
fn opens(tap: &Process) {
    let is_open = |line: &String| line.ends_with("  open");
    tap.wait("the source is open", |lines| lines.iter().any(is_open)).unwrap();
}

/// Ends a tap as Ctrl-C does.
fn interrupt(tap: Process) {
    assert_eq!(tap.end(Signal::INT).unwrap().code(), Some(0));
}

fn serial(name: &str, port: &Path) -> String {
    format!(
        "[sources.{name}]\ntype = 'serial'\nport = '{}'\ndecode = {{ type = 'json', device = 'dev' }}\n",
        port.display()
    )
}

/// A file for a gateway that nobody runs.
fn at_rest(dir: &Path, sources: &str) -> std::path::PathBuf {
    let file = dir.join("weir.toml");
    let text = format!(
        "[gateway]\nid = 'gw'\nruntime_dir = '{0}/run'\nstate_dir = '{0}/state'\n\
         [uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n{sources}",
        dir.display()
    );
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn two_taps_see_what_a_running_weir_reads_while_it_goes_on_over_a_reload_too() {
    let mut pty = Pty::open().unwrap();
    let mut site = Site::new(&serial("line", pty.port()));
    site.agent.start_until("connected").unwrap();
    let config = site.dir().join("gateway/weir.toml");
    let taps = [tap(&config, "line"), tap(&config, "line")];
    for tap in &taps {
        wait(tap, &["source line: read by the weir that runs"]);
        opens(tap);
    }
    writeln!(pty, "{{\"dev\":\"boiler\",\"t\":21.5}}").unwrap();
    writeln!(pty, "no json\x1b[2J").unwrap();
    for tap in &taps {
        wait(tap, &["<", "7b 22 64 65 76 22 3a", "|{\"dev\":\"boiler\",|"]);
        wait(tap, &["boiler/t = 21.5"]);
        wait(tap, &["6e 6f 20 6a 73 6f 6e 1b", "|no json.[2J|"]);
        wait(tap, &["refused (undecodable)"]);
        assert!(tap.lines().iter().all(|line| !line.contains('\x1b')), "no colours into a pipe");
    }
    site.data("it is forwarded as ever", |data| data.len() == 1);
    let [first, second] = taps;
    interrupt(first);

    // A reader that goes away ends its tap, before that has a word about silence to write.
    let mut unread = command(&config, "line").stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(unread.stdout.take().unwrap()));
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with("  open")));
    let began = Instant::now();
    assert_eq!(unread.wait().unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());

    // The source is closed and opened again under another table, and the tap stays.
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("device = 'dev'", "device = 'name'");
    fs::write(&config, &text).unwrap();
    site.agent.hang_up().unwrap();
    site.agent.wait_for("reloaded").unwrap();
    writeln!(pty, "{{\"name\":\"pump\",\"t\":1}}").unwrap();
    wait(&second, &["pump/t = 1"]);

    // A source that is only in the file.
    fs::write(&config, format!("{text}{}", serial("new", Path::new("/dev/null")))).unwrap();
    let early = command(&config, "new").output().unwrap();
    assert_eq!(early.status.code(), Some(1));
    let said = String::from_utf8(early.stderr).unwrap();
    assert!(said.contains("has no source `new` yet") && said.contains("systemctl reload weir"), "{said}");

    // A source that is taken out ends its tap.
    fs::write(&config, text.replace("[sources.line]", "[sources.other]")).unwrap();
    site.agent.hang_up().unwrap();
    let ended = second.wait("it never comes", |_| false).unwrap_err().to_string();
    assert!(ended.contains("pump/t = 1"), "{ended}");
    let wrong = command(&config, "line").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(said, "there is no source `line`: there is other\n");
}

#[test]
fn a_tap_that_is_not_read_slows_nothing_and_learns_what_it_lost() {
    let mut pty = Pty::open().unwrap();
    let mut site = Site::new(&serial("line", pty.port()));
    site.agent.start_until("connected").unwrap();
    let config = site.dir().join("gateway/weir.toml");
    let mut unread = command(&config, "line").stdout(Stdio::piped()).spawn().unwrap();
    let control = tap(&config, "line");
    opens(&control);
    // Once the other has the first as well, both look on.
    std::thread::sleep(Duration::from_millis(500));
    for n in 0..20_000 {
        writeln!(pty, "{{\"dev\":\"d\",\"n\":{n}}}").unwrap();
    }
    let data = site.data("all of it arrives", |data| data.len() >= 20_000);
    assert_eq!(data.last().unwrap()["metrics"]["n"]["value"], 19_999);
    assert!(unread.try_wait().unwrap().is_none(), "it waits for its reader");
    // Now it is read, and says at the place what is not there.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(unread.stdout.take().unwrap()));
    let lost = lines.find(|line| line.as_ref().unwrap().contains("lines lost here")).unwrap().unwrap();
    assert!(lost.contains("faster than they were read"), "{lost}");
    // Its reader goes away.
    drop(lines);
    writeln!(pty, "{{\"dev\":\"d\",\"n\":20000}}").unwrap();
    assert_eq!(unread.wait().unwrap().code(), Some(0));
    interrupt(control);
}

#[test]
fn a_tap_of_a_weir_that_runs_tells_that_the_port_is_missing_comes_goes_and_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let port = dir.path().join("port");
    let mut site = Site::new(&serial("line", &port));
    site.agent.start_until("connected").unwrap();
    let tap = tap(&site.dir().join("gateway/weir.toml"), "line");
    wait(&tap, &["is not there: check that the adapter is plugged in", "(trying again)"]);
    let socat = Socat::start(dir.path()).unwrap();
    opens(&tap);
    wait(&tap, &["nothing received for 10 s: check the wiring", "`baud`"]);
    let mut device = fs::File::options().write(true).open(socat.device()).unwrap();
    device.write_all(b"\xff\x00\xff").unwrap();
    wait(&tap, &["3 bytes came and no frame ended", "`framing`"]);
    wait(&tap, &["ff 00 ff"]);
    drop(socat);
    wait(&tap, &["went away: it was unplugged"]);
    interrupt(tap);
}

#[test]
fn without_a_weir_the_source_is_opened_and_what_is_wrong_with_it_told_until_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let port = dir.path().join("tty");
    let config = at_rest(dir.path(), &(serial("line", &port) + &serial("other", Path::new("/dev/null"))));
    let tap = tap(&config, "line");
    wait(&tap, &["source line: no weir runs here"]);
    wait(&tap, &["is not there"]);
    let mut pty = Pty::open().unwrap();
    symlink(pty.port(), &port).unwrap();
    opens(&tap);
    writeln!(pty, "{{\"dev\":\"boiler\",\"t\":21.5,\"door\":true}}").unwrap();
    wait(&tap, &["boiler/t    = 21.5"]);
    wait(&tap, &["boiler/door = true"]);
    drop(pty);
    wait(&tap, &["it was unplugged"]);
    interrupt(tap);
    assert!(!dir.path().join("state").exists() && !dir.path().join("run").exists(), "nothing is kept");

    let wrong = command(&config, "boiler").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(said, "there is no source `boiler`: there is line, other\n");
    fs::write(&config, "[gateway\n").unwrap();
    assert_eq!(command(&config, "line").output().unwrap().status.code(), Some(78));
}

#[test]
fn without_a_weir_a_coap_device_is_shown_and_told_to_try_again_since_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config =
        at_rest(dir.path(), &format!("[sources.field]\ntype = 'coap_server'\nlisten = '{address}'\n"));
    let tap = tap(&config, "field");
    wait(&tap, &["another source, listens there"]);
    drop(socket);
    opens(&tap);
    let device = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    device.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Confirmable PUT /boiler/t, payload 21.5.
    device.send_to(b"\x40\x03\x00\x07\xb6boiler\x01t\xff21.5", address).unwrap();
    let mut answer = [0; 64];
    let length = device.recv(&mut answer).unwrap();
    assert_eq!(answer[..length][1], 5 << 5 | 3, "5.03: {:?}", &answer[..length]);
    wait(&tap, &["< PUT /boiler/t from 127.0.0.1"]);
    wait(&tap, &["32 31 2e 35", "|21.5|"]);
    wait(&tap, &["boiler/t = 21.5"]);
    wait(&tap, &["refused (busy): a tap takes nothing: send it again once weir runs"]);
    device.send_to(b"\x40\x01\x00\x08\xb6boiler", address).unwrap();
    wait(&tap, &["< GET /boiler"]);
    wait(&tap, &["refused (not_served)", "POST or PUT"]);
    device.send_to(b"\x80nonsense", address).unwrap();
    wait(&tap, &["refused (undecodable)", "another version than CoAP 1", "the last bytes:"]);
    wait(&tap, &["80 6e 6f", "|.nonsense|"]);
    interrupt(tap);
}

//! `weir buffer` with the real binary: what it says of a running weir, and that it does as it says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

mod support;

use support::pty::Pty;
use support::site::{Site, data};

/// Asks the weir of the site.
fn buffer(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("buffer").args(arguments).arg("--config").arg(site.dir().join("gateway/weir.toml"));
    command.env_remove("RUNTIME_DIRECTORY").output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn serial(port: &Path) -> String {
    format!(
        "[sources.line]\ntype = 'serial'\nport = '{}'\ndecode = {{ type = 'json', device = 'dev' }}\n",
        port.display()
    )
}

fn stat(site: &Site, name: &str) -> String {
    let stats = said(&buffer(site, &["stats"]));
    let line = stats.lines().find_map(|line| line.trim().strip_prefix(&format!("{name} ")));
    line.map_or_else(|| format!("no {name} in {stats}"), |says| says.trim().to_owned())
}

/// Waits until `stats` says so.
fn wait_for(site: &Site, name: &str, value: &str) {
    for _ in 0..600 {
        if stat(site, name) == value {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(stat(site, name), value, "{name}");
}

#[test]
fn what_waits_is_shown_exported_in_order_and_purged_only_when_it_is_meant() {
    let mut pty = Pty::open().unwrap();
    let mut site = Site::new(&serial(pty.port()));
    site.broker.stop().unwrap();
    assert!(refused(&buffer(&site, &["stats"])).contains("no weir answers at"), "nobody runs yet");
    site.agent.start_until("no connection").unwrap();
    for n in 0..300 {
        writeln!(pty, "{{\"dev\":\"d\",\"n\":{n}}}").unwrap();
    }
    wait_for(&site, "waiting", "300");
    assert_eq!((stat(&site, "connected"), stat(&site, "broker")), ("no".into(), "none yet".into()));
    assert!(stat(&site, "last error").contains("ago: nothing listens on"), "{}", stat(&site, "last error"));
    assert!(stat(&site, "certificate ends").ends_with(" days"), "{}", stat(&site, "certificate ends"));
    assert!(stat(&site, "oldest waiting").ends_with("(max_age 7days)"), "{}", stat(&site, "oldest waiting"));
    let mut twin = Command::new(env!("CARGO_BIN_EXE_weir"));
    let twin = twin.arg("run").arg("--config").arg(site.dir().join("gateway/weir.toml")).output().unwrap();
    assert!(refused(&twin).contains("another weir runs"), "{twin:?}");

    let peeked = said(&buffer(&site, &["peek", "3"]));
    let numbers = |text: &str| -> Vec<i64> {
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        text.lines().map(|text| line(text)["metrics"]["n"]["value"].as_i64().unwrap()).collect()
    };
    assert_eq!(numbers(&peeked), [0, 1, 2]);
    assert!(peeked.starts_with(r#"{"id":""#) && peeked.contains(r#""gateway":"gw-042""#), "{peeked}");
    let exported = said(&buffer(&site, &["export"]));
    assert_eq!(numbers(&exported), (0..300).collect::<Vec<_>>());
    assert_eq!(stat(&site, "waiting"), "300", "looking takes nothing");

    // A file that is torn must not have another weir be asked.
    let torn = site.dir().join("torn.toml");
    std::fs::write(&torn, "[gateway\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(["buffer", "purge", "--yes", "--config"]).arg(&torn).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    // What the whole agent stands on changes: the new run answers as the one before.
    let file = site.dir().join("gateway/weir.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    for size in ["200MiB", "201MiB", "202MiB"] {
        std::fs::write(&file, format!("{text}\n[buffer]\nmax_bytes = '{size}'\n")).unwrap();
        let reloads = || site.agent.log().iter().filter(|line| line.contains("reloaded")).count();
        let before = reloads();
        site.agent.hang_up().unwrap();
        while reloads() == before {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(stat(&site, "waiting"), "300", "{size}");
    }

    assert!(refused(&buffer(&site, &["purge"])).contains("--yes"));
    assert_eq!(stat(&site, "waiting"), "300");
    assert_eq!(said(&buffer(&site, &["purge", "--yes"])), "purged: 300\n");
    assert_eq!(stat(&site, "waiting"), "0");
    let none = buffer(&site, &["peek"]);
    assert_eq!((said(&none).as_str(), &*none.stderr), ("", &b"no message waits\n"[..]));
    writeln!(pty, "{{\"dev\":\"d\",\"n\":300}}").unwrap();
    site.broker.restart().unwrap();
    let told = site.gaps("the purge is told", |gaps| gaps.iter().any(|gap| gap["cause"] == "purged"));
    assert_eq!(told.iter().filter_map(|gap| gap["messages"].as_u64()).sum::<u64>(), 300);
    let arrived = site.data("what came after it arrives", |data| !data.is_empty());
    assert_eq!(arrived[0]["metrics"]["n"]["value"], 300);
    assert!(stat(&site, "connected").starts_with("yes, for "), "{}", stat(&site, "connected"));
    assert_eq!(stat(&site, "broker"), format!("mqtts://localhost:{}", site.broker.port()));
}

#[test]
fn a_message_that_is_refused_for_good_lies_among_the_dead_letters_and_can_be_sent_again() {
    let mut pty = Pty::open().unwrap();
    let mut site = Site::new(&serial(pty.port()));
    let limit = |site: &mut Site, there| {
        site.broker.stop().unwrap();
        site.broker.configure("max_packet_size 1100", there).unwrap();
        site.broker.restart().unwrap();
    };
    limit(&mut site, true);
    site.agent.start_until("connected").unwrap();
    let metrics: Vec<String> = (0..100).map(|n| format!("\"metric-{n}\":{n}")).collect();
    writeln!(pty, "{{\"dev\":\"d\",{}}}", metrics.join(",")).unwrap();
    wait_for(&site, "kept", "1");
    let letter: Value = serde_json::from_str(&said(&buffer(&site, &["dead-letters"]))).unwrap();
    assert_eq!((&letter["device"], &letter["cause"]), (&"d".into(), &"too_large".into()));
    assert!(letter["reason"].as_str().unwrap().contains("1100 bytes"), "{letter}");
    assert!(refused(&buffer(&site, &["dead-letters", "--send-again", "nonsense"])).contains("is no id"));
    let none = said(&buffer(&site, &["dead-letters", "--send-again", "1-1"]));
    assert_eq!(none, "put back into the queue: 0\n");

    let payload: Value = serde_json::from_str(&said(&buffer(&site, &["dead-letters", "--show"]))).unwrap();
    assert_eq!((&payload["id"], &payload["metrics"]["metric-7"]["value"]), (&letter["id"], &7.into()));
    let none = buffer(&site, &["dead-letters", "--show", "1-1"]);
    assert_eq!((said(&none).as_str(), &*none.stderr), ("", &b"there is no dead letter with this id\n"[..]));
    assert!(refused(&buffer(&site, &["dead-letters", "--forget"])).contains("--yes"));
    assert_eq!(said(&buffer(&site, &["dead-letters", "--forget", "1-1"])), "forgotten: 0\n");
    writeln!(pty, "{{\"dev\":\"e\",{}}}", metrics.join(",")).unwrap();
    wait_for(&site, "kept", "2");
    let listed = said(&buffer(&site, &["dead-letters"]));
    let other: Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    let forget = ["dead-letters", "--forget", other["id"].as_str().unwrap()];
    assert_eq!(said(&buffer(&site, &forget)), "forgotten: 1\n");
    wait_for(&site, "kept", "1");

    limit(&mut site, false);
    site.agent.wait_for("after").unwrap();
    assert_eq!(said(&buffer(&site, &["dead-letters", "--send-again"])), "put back into the queue: 1\n");
    let messages = site.subscriber.wait("it arrives", |messages| !data(messages).is_empty()).unwrap();
    assert_eq!(data(&messages)[0]["id"], letter["id"], "under its own id");
    wait_for(&site, "kept", "0");
    let told = site.gaps("its loss was told", |gaps| !gaps.is_empty());
    assert_eq!(told[0]["cause"], "too_large");
    assert_eq!(said(&buffer(&site, &["dead-letters", "--forget", "--yes"])), "forgotten: 0\n");
    let none = buffer(&site, &["dead-letters"]);
    assert_eq!((said(&none).as_str(), &*none.stderr), ("", &b"there is no dead letter\n"[..]));
}

//! The whole job on one machine, with nothing installed: `cargo run --release --example demo`.
//!
//! A throw-away CA, an MQTT broker that demands client certificates, three devices on a serial line, two that post by
//! CoAP, and the real agent as a process of its own. The broker goes away for ten seconds and comes back. Then what the
//! devices measured is held against what arrived at the broker.
//!
//! The last line is `lost N, repeated N`. The exit code is 0 only if nothing was lost and everything came in order.

mod account;
mod devices;
mod field;
mod screen;

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use account::{Received, Written};
use devices::Devices;
use field::Field;
use screen::{Screen, Style};
use support::broker::{Answers, Broker, Seen};
use support::mqtt::Publish;
use support::pki::{Authority, Valid};
use support::pty::Pty;

/// The tests' own broker, certificates and pseudo-terminal.
#[path = "../../tests/support"]
#[allow(dead_code, reason = "the tests need more of it than the demo")]
mod support {
    pub(crate) mod broker;
    pub(crate) mod mqtt;
    pub(crate) mod pki;
    pub(crate) mod pty;
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const OUTAGE: Duration = Duration::from_secs(10);

/// The agent tries again after a minute at the latest.
const RECONNECT: Duration = Duration::from_secs(65);

/// How long anything may take that should come at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the whole may take. Half a minute is usual.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    // The demo starts itself once more as the agent. This is all that `weir` itself does.
    if env::args_os().len() > 1 {
        return weir::cli::main();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(demo())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "\nthe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the stage, plays, and settles the account; tells whether all is well.
async fn demo() -> Result<bool> {
    let dir = tempfile::Builder::new().prefix("weir-demo-").tempdir()?;
    let authority = Authority::new("the demo's CA")?;
    let server = authority.server(&["localhost"], Valid::Now)?;
    authority.client("demo", Valid::Now)?.write(dir.path(), "demo", &authority)?;
    let mut broker = Broker::start(Some(server.listen_for(&authority)?)).await?;
    let line = Pty::open()?;
    // Free now, and hardly taken before weir listens there.
    let field = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let config = config(&line, field, broker.port());
    fs::write(dir.path().join("weir.toml"), &config)?;

    let screen = Screen::new(dir.path());
    screen.act(
        "The stage",
        "A CA made for this run, an MQTT broker that demands its certificates, a serial line, a port\n\
         for CoAP, and weir with this file. It takes about half a minute.\n",
    );
    config.lines().for_each(|line| screen.line(Style::Quiet, format!("    {line}").trim_end()));

    let mut agent = Command::new(env::current_exe()?)
        .args(["run", "--config", "weir.toml"])
        .current_dir(&dir)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let log = agent.stderr.take().ok_or("the agent has no standard error")?;
    let showing = tokio::spawn(show_log(log, screen.clone()));
    let arriving = tokio::spawn(show_arrivals(broker.watch(), screen.clone()));

    let played = tokio::select! {
        played = play(&mut broker, line, field, &screen) => played,
        ended = agent.wait() => Err(format!("the agent ended of itself, {}", ended?).into()),
        told = told_to_end() => Err(told.map_or_else(Into::into, |()| "it was told to end".into())),
        () = sleep(LIMIT) => Err(format!("it was not done within {} s", LIMIT.as_secs()).into()),
    };
    let ended = match played {
        Ok((written, _plugged_in)) => {
            screen.act(
                "The end",
                "weir is told to stop (SIGTERM). It says that it goes: its status is offline.",
            );
            stop(&mut agent, &broker).await.map(|()| written)
        }
        Err(error) => Err(error),
    };
    // Whatever happened, the agent and the broker have ended, and all that they said is shown, before the account is
    // settled: its last line is the demo's last.
    agent.kill().await?;
    showing.await?;
    broker.stop().await;
    let seen = broker.seen();
    drop(broker);
    arriving.await?;
    Ok(account::settle(&ended?, &seen, &screen))
}

fn config(line: &Pty, field: u16, port: u16) -> String {
    let serial = line.port().display();
    format!(
        r#"[gateway]                 # its name is that of its certificate: demo
state_dir = "."
runtime_dir = "."

[sources.line]
type = "serial"
port = "{serial}"
baud = 115200
decode = {{ type = "json", device = "dev" }}

[sources.field]           # devices post JSON to /DEVICE, plain text to /DEVICE/METRIC
type = "coap_server"
listen = "127.0.0.1:{field}"

[[windows]]               # what matches no window passes as it is
match = "*/temperature"
type = "tumbling"
every = "2s"
aggregates = ["count", "mean", "max"]

[buffer]                  # sooner than by default, for so short an outage
spill_after = "1s"
commit_every = "1s"

[clock]
trust = "rtc"             # this machine's clock is right

[uplink]
type = "mqtt"
url = "mqtts://localhost:{port}"
tls = {{ ca = "demo-ca.pem", cert = "demo.pem", key = "demo.key" }}
"#
    )
}

/// The acts before the end. Gives what the devices measured, and the line, which stays plugged in.
async fn play(broker: &mut Broker, line: Pty, field: u16, screen: &Screen) -> Result<(Written, Pty)> {
    screen.act(
        "All is well",
        "Three devices write ten lines a second each; two post by CoAP, the garden twice a second,\n\
         the tank every 3 s. Every 2 s weir sends a summary of each temperature; what the door and\n\
         the tank say passes as it is.\n",
    );
    screen.heading();
    let devices = Devices::start(line);
    let field = Field::start(field, &devices.written());
    timeout(PATIENCE, broker.wait(|seen| connections(seen) >= 1))
        .await
        .map_err(|_| "weir does not connect")?;
    sleep(Duration::from_secs(6)).await;
    // Taken and not acknowledged: this is what weir will have to send again.
    broker.behave(|behaviour| behaviour.answers = Answers::Withheld);
    sleep(Duration::from_millis(2_500)).await;

    broker.stop().await;
    screen.act(
        "The broker goes away for ten seconds",
        "Its last acknowledgements go with it. The devices go on, posts by CoAP are\n\
         answered as before, and weir keeps it all: in memory for a second, then in SQLite.\n",
    );
    let telling = tokio::spawn(tell_what_waits(devices.written(), broker.watch(), screen.clone()));
    sleep(OUTAGE).await;

    broker.behave(|behaviour| behaviour.answers = Answers::AtOnce);
    broker.listen().await?;
    screen.act(
        "The broker is back",
        "weir tries again after random pauses, so that a fleet does not come back in step: mostly\n\
         within ten seconds, within a minute at most. Then comes the backlog, the oldest first.\n\
         What was not acknowledged comes again, under its old id.\n",
    );
    timeout(RECONNECT, broker.wait(|seen| connections(seen) >= 2))
        .await
        .map_err(|_| format!("weir did not come back within {} s", RECONNECT.as_secs()))?;
    telling.abort();
    sleep(Duration::from_secs(5)).await;

    let in_the_field = field.stop().await?;
    let (mut written, line) = devices.stop().await?;
    written.extend(in_the_field);
    // What does not come in time is lost; the account will say so.
    let all = written.values().sum();
    let _ = timeout(PATIENCE, broker.wait(|seen| Received::of(seen).readings() >= all)).await;
    Ok((written, line))
}

/// SIGTERM, and what a stop in order looks like to the broker.
async fn stop(agent: &mut Child, broker: &Broker) -> Result<()> {
    let pid = agent.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).ok_or("the agent has gone")?;
    kill_process(pid, Signal::TERM)?;
    let status = timeout(PATIENCE, agent.wait()).await.map_err(|_| "the agent does not stop")??;
    if !status.success() {
        return Err(format!("the agent did not stop in order, {status}").into());
    }
    let left = |seen: &Vec<Seen>| seen.last() == Some(&Seen::Left);
    timeout(PATIENCE, broker.wait(left)).await.map_err(|_| "the agent left without a good-bye")?;
    let last = broker.received().pop().ok_or("nothing arrived")?;
    let offline = last.topic == "weir/demo/status" && last.retain && json(&last)["online"] == false;
    if offline { Ok(()) } else { Err("the agent's status did not go offline".into()) }
}

/// A signal that ends programs.
async fn told_to_end() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

fn connections(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| matches!(seen, Seen::Connected(_))).count()
}

/// What the agent logs, but for its own time.
async fn show_log(log: ChildStderr, screen: Screen) {
    let mut lines = BufReader::new(log).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let said = line.split_once(' ').map_or(&*line, |(_time, said)| said);
        screen.note(&format!("weir logs: {said}"));
    }
}

/// How much has been written and not arrived, every two seconds.
async fn tell_what_waits(written: Arc<AtomicU64>, broker: watch::Receiver<Vec<Seen>>, screen: Screen) {
    loop {
        sleep(Duration::from_secs(2)).await;
        let arrived = Received::of(&broker.borrow()).readings();
        screen.note(&format!("{} readings wait", written.load(Ordering::Relaxed).saturating_sub(arrived)));
    }
}

/// What arrives at the broker.
async fn show_arrivals(mut broker: watch::Receiver<Vec<Seen>>, mut screen: Screen) {
    let mut shown = 0;
    loop {
        let seen = broker.borrow_and_update().clone();
        for seen in &seen[shown..] {
            if let Seen::Received(publish) = seen {
                screen.arrival(&publish.topic, &json(publish));
            }
        }
        shown = seen.len();
        if broker.changed().await.is_err() {
            return;
        }
    }
}

fn json(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap_or_default()
}

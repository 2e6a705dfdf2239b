//! The agent at work between a pseudo-terminal and a mosquitto that demands a client certificate.

use std::fmt::Write as _;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::agent::Agent;
use crate::support::mosquitto::{Mosquitto, Subscriber};
use crate::support::pki::{Authority, Files, Result, Valid};
use crate::support::pty::Pty;

/// Windows of ten seconds over everything.
pub(crate) const WINDOWS: &str = "[[windows]]\nmatch = '*'\ntype = 'tumbling'\nevery = '10s'\n\
                                  aggregates = ['count', 'mean', 'min', 'max']\n";

/// A gateway, its broker, and the device at its serial line. All end with it, in this order.
pub(crate) struct Site {
    pub(crate) agent: Agent,
    pub(crate) device: Pty,
    broker: Mosquitto,
    client: Files,
    _dir: TempDir,
}

/// Where files lie that are to be written to a disk: beside the build.
pub(crate) fn directory() -> Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// A serial source that reads `device`'s lines.
pub(crate) fn source(device: &Pty) -> String {
    let decode = "{ type = 'json', device = 'dev', time = 'ts', time_unit = 'ms' }";
    format!("[sources.line]\ntype = 'serial'\nport = '{}'\ndecode = {decode}\n", device.port().display())
}

impl Site {
    /// The agent is started, its port is open and the broker has accepted it. `rest` is added to the configuration.
    pub(crate) fn start(rest: &str) -> Result<Self> {
        let dir = directory()?;
        let authority = Authority::new("CA")?;
        let server = authority.server(&["localhost"], Valid::Now)?.write(dir.path(), "server", &authority)?;
        let client = authority.client("gw-042", Valid::Now)?.write(dir.path(), "client", &authority)?;
        let broker = Mosquitto::start(dir.path(), &server, "")?;
        let device = Pty::open()?;
        let config = format!("{}\n{rest}", source(&device));
        let mut agent = Agent::new(&dir.path().join("gateway"), broker.port(), &client, &config)?;
        agent.start()?;
        agent.wait_for("open")?;
        agent.wait_for("connected")?;
        Ok(Self { agent, device, broker, client, _dir: dir })
    }

    /// Gets what the agent sends from now on.
    pub(crate) fn subscribe(&self) -> Result<Subscriber> {
        self.broker.subscribe(&self.client, "watcher", "weir/+/data/+")
    }

    /// The device writes `rate` lines a second for `time`, a hundredth of them every 10 ms.
    pub(crate) fn write_for(&mut self, time: Duration, rate: u64) -> Result<()> {
        const EVERY: Duration = Duration::from_millis(10);
        let (start, mut text) = (Instant::now(), String::new());
        for beat in 0.. {
            let due = EVERY * beat;
            if due >= time {
                break;
            }
            thread::sleep((start + due).saturating_duration_since(Instant::now()));
            text.clear();
            let share = rate / 100;
            for number in u64::from(beat) * share..u64::from(beat + 1) * share {
                line(number, rate, &mut text);
            }
            self.device.write_all(text.as_bytes())?;
        }
        self.device.wait_until_read()?;
        Ok(())
    }
}

/// Adds the line with this number: one reading of one of a hundred devices, which have their own clocks and measure
/// `rate` readings a second all together.
pub(crate) fn line(number: u64, rate: u64, text: &mut String) {
    const START: u64 = 1_700_000_000_000;
    let device = number % 100;
    let time = START + number * 1000 / rate;
    let value = 15 + number * 7 % 11;
    let hundredths = number * 31 % 100;
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, r#"{{"dev":"device-{device:02}","ts":{time},"temperature":{value}.{hundredths:02}}}"#);
}

//! The processor's time for a million readings from a serial line through windows to the broker, and for the least
//! that any program has to do with the same bytes.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::site::{Site, WINDOWS, line};
use crate::support::mosquitto::Message;
use crate::support::pki::Result;
use crate::support::pty::Pty;
use crate::{Extent, kernel, print, seconds};

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let mut text = String::new();
    for number in 0..extent.readings {
        line(number, 1_000, &mut text);
    }
    let (mut agents, mut terminals, mut bares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..extent.runs {
        agents.push(agent(&text, extent.readings)?);
        terminals.push(terminal(&text)?);
        bares.push(bare(&text)?);
    }
    // Whatever else the machine does only adds to these.
    let least = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default();
    let (agent, terminal, bare) = (least(agents), least(terminals), least(bares));
    let count = extent.readings;
    print(&format!("{count} readings: agent's processor time"), &seconds(agent), "");
    print("  of these, to read them from the terminal at least", &seconds(terminal), "");
    print("  a bare loop that parses and adds them up", &seconds(bare), "");
    let ratio = |time: Duration| format!("{:.2}", time.as_secs_f64() / bare.as_secs_f64());
    print("  agent to bare loop", &ratio(agent), "");
    print("  agent without the terminal to bare loop", &ratio(agent.saturating_sub(terminal)), "at most 2.5");
    Ok(())
}

/// The agent's time until the windows of all readings have arrived.
fn agent(text: &str, readings: u64) -> Result<Duration> {
    let mut site = Site::start(WINDOWS)?;
    let subscriber = site.subscribe()?;
    let pid = site.agent.id()?.to_string();
    let before = kernel::cpu(&pid)?;
    site.device.write_all(text.as_bytes())?;
    let give_up = Instant::now() + Duration::from_secs(60);
    // The last windows close by the devices' silence.
    while counted(&subscriber.messages())? < readings {
        if Instant::now() > give_up {
            return Err("the readings did not all arrive".into());
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(kernel::cpu(&pid)? - before)
}

/// The readings in what has arrived.
fn counted(messages: &[Message]) -> Result<u64> {
    let mut sum = 0;
    for message in messages {
        let payload: serde_json::Value = serde_json::from_str(&message.payload)?;
        sum += payload["metrics"]["temperature"]["count"].as_u64().ok_or("a message without a count")?;
    }
    Ok(sum)
}

/// What reading alone takes, in the largest pieces that the kernel gives.
fn terminal(text: &str) -> Result<Duration> {
    let mut device = Pty::open()?;
    let mut port = File::open(device.port())?;
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let written = device.write_all(text.as_bytes());
            // Kept until all is read: closing a terminal throws away what is in it.
            (device, written)
        });
        let before = kernel::cpu("thread-self")?;
        let (mut buffer, mut left) = ([0; 4096], text.len());
        while left > 0 {
            left -= port.read(&mut buffer)?;
        }
        let time = kernel::cpu("thread-self")? - before;
        let (_device, written) = writer.join().map_err(|_| "the device panicked")?;
        written?;
        Ok(time)
    })
}

fn bare(text: &str) -> Result<Duration> {
    #[derive(Deserialize)]
    struct Line<'a> {
        dev: &'a str,
        ts: i64,
        temperature: f64,
    }
    let before = kernel::cpu("thread-self")?;
    let mut sum = 0.0;
    for line in text.lines() {
        let line: Line<'_> = serde_json::from_str(line)?;
        black_box((line.dev, line.ts));
        sum += line.temperature;
    }
    black_box(sum);
    Ok(kernel::cpu("thread-self")? - before)
}

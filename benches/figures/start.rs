//! From the start of the program to the broker's acknowledgement of a reading that waits at the serial port.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::site::{self, line};
use crate::support::agent::Agent;
use crate::support::broker::{Broker, Seen};
use crate::support::pki::{Authority, Result, Valid};
use crate::support::pty::Pty;
use crate::{Extent, print};

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut times = Vec::new();
    let dir = site::directory()?;
    let authority = Authority::new("CA")?;
    let server = authority.server(&["localhost"], Valid::Now)?;
    let client = authority.client("gw-042", Valid::Now)?.write(dir.path(), "client", &authority)?;
    for _ in 0..extent.starts {
        let mut device = Pty::open()?;
        let mut text = String::new();
        line(0, 1, &mut text);
        device.write_all(text.as_bytes())?;
        times.push(runtime.block_on(async {
            // mosquitto would not say when. This one answers what it has received at once.
            let broker = Broker::start(Some(server.listen_for(&authority)?)).await?;
            let mut agent = Agent::new(dir.path(), broker.port(), &client, &site::source(&device))?;
            let start = Instant::now();
            agent.start()?;
            let arrived =
                |seen: &Seen| matches!(seen, Seen::Received(publish) if publish.topic.contains("/data/"));
            broker.wait(|seen| seen.iter().any(arrived)).await;
            let time = start.elapsed();
            // Beside the broker, which the agent takes its leave of.
            tokio::task::spawn_blocking(move || agent.terminate()).await??;
            Ok::<Duration, Box<dyn std::error::Error + Send + Sync>>(time)
        })?);
    }
    times.sort();
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    print("start to the first acknowledged reading, median", &ms(times[times.len() / 2]), "at most 60 ms");
    print("  slowest", &ms(times[times.len() - 1]), "");
    Ok(())
}

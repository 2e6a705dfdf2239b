//! Three devices that share a serial line and write on, whatever becomes of the rest.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Result;
use super::account::Written;
use super::support::pty::Pty;

pub(super) struct Devices {
    stop: mpsc::Sender<()>,
    ended: oneshot::Receiver<io::Result<(Written, Pty)>>,
    written: Arc<AtomicU64>,
}

impl Devices {
    /// Starts them, on a thread of their own: a write blocks while nobody reads.
    pub(super) fn start(line: Pty) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (sender, ended) = oneshot::channel();
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        thread::spawn(move || sender.send(write(line, &stopped, &count)));
        Self { stop, ended, written }
    }

    /// How many readings they have written so far.
    pub(super) fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    /// Stops them and waits until all that they wrote has been read. Gives what it was, and the line.
    pub(super) async fn stop(self) -> Result<(Written, Pty)> {
        // An error means that they have stopped before; the other channel tells why.
        let _ = self.stop.send(());
        Ok(self.ended.await??)
    }
}

fn write(mut line: Pty, stopped: &mpsc::Receiver<()>, count: &AtomicU64) -> io::Result<(Written, Pty)> {
    let mut written = Written::new();
    let mut tick = 0_u32;
    let mut write = |device: &str, metric: &str, value: String| {
        writeln!(line, r#"{{"dev":"{device}","{metric}":{value}}}"#)?;
        *written.entry(format!("{device}/{metric}")).or_default() += 1;
        count.fetch_add(1, Ordering::Relaxed);
        io::Result::Ok(())
    };
    while stopped.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
        for (device, base, phase) in [("boiler", 61.0, 0.0), ("hall", 20.5, 1.0), ("roof", -3.0, 2.0)] {
            let temperature = base + 2.0 * (f64::from(tick) / 40.0 + phase).sin();
            write(device, "temperature", format!("{temperature:.2}"))?;
        }
        if tick % 30 == 15 {
            write("hall", "door", (tick % 60 == 15).to_string())?;
        }
        tick += 1;
    }
    line.wait_until_read()?;
    Ok((written, line))
}

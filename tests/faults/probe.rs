//! How long this machine lets a small durable write wait, measured beside what is tested.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Between two writes.
const EVERY: Duration = Duration::from_millis(50);

/// Writes until it is dropped.
pub(crate) struct Probe {
    writes: Arc<Mutex<Vec<Write>>>,
    _stop: mpsc::Sender<()>,
}

/// When a write was begun, and how long it took, where it is done.
type Write = (Instant, Option<Duration>);

impl Probe {
    /// Writes a page to a file in `dir` again and again.
    pub(crate) fn start(dir: &Path) -> Self {
        let file = File::create(dir.join("probe")).unwrap();
        let writes = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = mpsc::channel();
        let probe = Self { writes: Arc::clone(&writes), _stop: stop };
        thread::spawn(move || {
            // What the last write was due at counts: to be woken late is to be late.
            let mut due = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                due += EVERY;
                writes.lock().unwrap().push((due, None));
                file.write_all_at(&[0x5A; 4096], 0).unwrap();
                file.sync_data().unwrap();
                let now = Instant::now();
                writes.lock().unwrap().last_mut().unwrap().1 = Some(now.saturating_duration_since(due));
                due = now;
            }
        });
        probe
    }

    /// How long the slowest write took that was begun after `since`, or takes still.
    pub(crate) fn slowest(&self, since: Instant) -> Duration {
        let writes = self.writes.lock().unwrap();
        let recent = writes.iter().rev().take_while(|(begun, _)| *begun >= since);
        recent.map(|(begun, took)| took.unwrap_or_else(|| begun.elapsed())).max().unwrap_or_default()
    }
}

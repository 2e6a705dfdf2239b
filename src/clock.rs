//! The only caller of `now()`: wall and monotonic time, the boot's id, and whether the wall clock can be trusted.
//!
//! A gateway without a battery-backed clock boots in the past. Until the kernel says that something (NTP, PTP, GPS)
//! has set the clock, its time is provisional. Trust is a latch: once given it holds for the boot, over restarts of
//! the agent too, by a file in the runtime directory, which is memory. A long outage does not take it back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::model::{Stamp, Timestamp};
use crate::units;

/// `[clock]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How far ahead of a trusted clock a device's time may lie before arrival replaces it.
    #[serde(deserialize_with = "units::duration")]
    pub max_ahead: Duration,
    /// Whom to believe.
    pub trust: Trust,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_ahead: Duration::from_secs(600), trust: Trust::Kernel }
    }
}

/// What makes the wall clock trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The kernel, once it reports that the clock has been synchronised in this boot (`adjtimex(2)`).
    Kernel,
    /// A battery-backed clock, from the start; also for containers that cannot see the kernel's state.
    Rtc,
}

/// How often an untrusted clock asks the kernel again, at most.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The clock of one run. Cheap to clone; all clones share the latch.
#[derive(Clone, Debug)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    wall: Wall,
    trusted: AtomicBool,
    /// Monotonic milliseconds of the last question to the kernel.
    asked: AtomicU64,
    latch: Option<PathBuf>,
}

#[derive(Debug)]
enum Wall {
    System,
    /// A wall that started at this time and runs with tokio's clock, which tests pause and advance.
    Injected(Timestamp),
}

impl Clock {
    /// The machine's clock. The latch lies in `runtime_dir`.
    #[must_use]
    pub fn system(config: &Config, runtime_dir: &Path) -> Self {
        let latch = runtime_dir.join("clock");
        let boot = boot_id();
        let latched = boot.is_some() && fs::read_to_string(&latch).ok() == boot;
        let clock = Self::build(Wall::System, config.trust == Trust::Rtc || latched, Some(latch));
        clock.ask_kernel();
        clock
    }

    /// A clock that starts at `wall` and moves with tokio's, so that a test which pauses tokio's time rules both.
    #[must_use]
    pub fn injected(wall: Timestamp, trusted: bool) -> Self {
        Self::build(Wall::Injected(wall), trusted, None)
    }

    fn build(wall: Wall, trusted: bool, latch: Option<PathBuf>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
        let start = Instant::now();
        let (trusted, asked) = (AtomicBool::new(trusted), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { start, wall, trusted, asked, latch }) }
    }

    /// One look at the clock.
    #[must_use]
    pub fn now(&self) -> Stamp {
        let shared = &*self.shared;
        let monotonic = self.monotonic();
        if !shared.trusted.load(Ordering::Relaxed) {
            let elapsed = millis(monotonic);
            if elapsed.saturating_sub(shared.asked.load(Ordering::Relaxed)) >= millis(ASK_EVERY) {
                shared.asked.store(elapsed, Ordering::Relaxed);
                self.ask_kernel();
            }
        }
        let wall = match shared.wall {
            Wall::System => system_wall(),
            Wall::Injected(start) => start.after(monotonic),
        };
        Stamp { wall, monotonic, synced: shared.trusted.load(Ordering::Relaxed) }
    }

    /// Monotonic time since this clock was made.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// The instant, for a timer, at which [`Clock::monotonic`] will be `at`.
    #[must_use]
    pub fn instant(&self, at: Duration) -> Instant {
        self.shared.start + at
    }

    /// Gives trust, as the kernel would. For tests of what happens then.
    pub fn trust(&self) {
        self.shared.trusted.store(true, Ordering::Relaxed);
    }

    fn ask_kernel(&self) {
        let shared = &*self.shared;
        if !matches!(shared.wall, Wall::System)
            || shared.trusted.load(Ordering::Relaxed)
            || !kernel_is_synchronised()
        {
            return;
        }
        self.trust();
        tracing::info!("the clock is synchronised");
        if let (Some(latch), Some(boot)) = (&shared.latch, boot_id()) {
            if let Err(error) = write_latch(latch, &boot) {
                tracing::warn!(
                    file = %latch.display(), %error,
                    "cannot note that the clock is trusted: a restart will have to wait for the kernel's word again"
                );
            }
        }
    }
}

fn write_latch(latch: &Path, boot: &str) -> io::Result<()> {
    if let Some(directory) = latch.parent() {
        fs::create_dir_all(directory)?;
    }
    let fresh = latch.with_extension("new");
    fs::write(&fresh, boot)?;
    fs::rename(&fresh, latch)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn system_wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
    let now = std::time::SystemTime::now();
    let since = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp(match now.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => since(after),
        Err(before) => -since(before.duration()),
    })
}

/// The kernel's id of this boot, where it tells one.
#[must_use]
pub fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim_end().to_owned())
}

/// Whether the kernel reports the clock as synchronised: `adjtimex(2)` without `STA_UNSYNC`.
fn kernel_is_synchronised() -> bool {
    // SAFETY: `timex` is plain data for which all zeroes is valid, and with `modes` 0 the call only writes into it.
    #[expect(unsafe_code, reason = "no safe wrapper of adjtimex is in the tree")]
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (state, timex.status)
    };
    state != -1 && status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_injected_clock_moves_with_tokios() {
        let clock = Clock::injected(Timestamp(1_000), true);
        tokio::time::advance(Duration::from_secs(3600)).await;
        let now = clock.now();
        assert_eq!(now.wall, Timestamp(3_601_000));
        assert_eq!(now.monotonic, Duration::from_secs(3600));
    }

    #[test]
    fn a_battery_backed_clock_is_trusted_from_the_start() {
        let runtime = tempfile::tempdir().unwrap();
        let config = Config { trust: Trust::Rtc, ..Config::default() };
        assert!(Clock::system(&config, runtime.path()).now().synced);
    }

    #[test]
    fn trust_outlives_a_restart_in_the_same_boot_and_not_the_boot() {
        let runtime = tempfile::tempdir().unwrap();
        write_latch(&runtime.path().join("clock"), &boot_id().unwrap()).unwrap();
        assert!(Clock::system(&Config::default(), runtime.path()).now().synced);
        write_latch(&runtime.path().join("clock"), "another boot").unwrap();
        let clock = Clock::system(&Config::default(), runtime.path());
        assert_eq!(clock.now().synced, kernel_is_synchronised());
    }
}

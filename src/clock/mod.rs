//! The only caller of `now()`: wall and monotonic time, the boot's id, and whether the wall clock can be trusted.
//!
//! A gateway without a battery-backed clock boots in the past. Until the kernel says that something (NTP, PTP, GPS)
//! has set the clock, its time is provisional: it is not the wall's, which anybody may step about, but that of the
//! first look in this boot and the machine's uptime since. So all provisional times of a boot lie on one line, an
//! [`Era`], and are off by the same. By how much is measured once, when trust comes.
//!
//! Trust is a latch: once given it holds for the boot. A long outage does not take it back. Era and trust outlive
//! restarts of the agent in a file, see [`latch`]. Steps of a trusted clock are not for here: a [`Stamp`] says what the
//! wall says, and whoever cuts time by it (`pipeline`) sees that it went otherwise than the monotonic time.

mod kernel;
mod latch;

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::model::{Era, Shift, Stamp, Timestamp};
use crate::units;

use latch::{Known, Latch, Reckoning, millis};

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

/// Two clocks are read one after the other. Where more than this lies between, as the agent was held up just then, they
/// are read again: the difference would pass for a step.
const LOOK_MAX: Duration = Duration::from_millis(20);

/// The clock of one run. Cheap to clone; all clones share the latch.
#[derive(Clone, Debug)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    wall: Wall,
    boot: Option<String>,
    latch: Option<Latch>,
    /// How provisional times are reckoned, where this boot has had any.
    reckoning: Option<Reckoning>,
    /// Set once the clock is trusted: by how much the provisional times are off.
    trust: OnceLock<Option<Shift>>,
    /// Monotonic milliseconds of the last question to the kernel.
    asked: AtomicU64,
}

#[derive(Debug)]
enum Wall {
    System,
    /// A wall that runs with tokio's clock, which tests pause and advance, so many milliseconds ahead of it.
    Injected(AtomicI64),
}

impl Clock {
    /// The machine's clock. The latch lies in `runtime_dir`.
    #[must_use]
    pub fn system(config: &Config, runtime_dir: &Path) -> Self {
        let boot = kernel::boot_id();
        let latch = boot.clone().map(|boot| Latch::new(runtime_dir, boot));
        Self::build(Wall::System, config.trust == Trust::Rtc, boot, latch)
    }

    /// The machine's clock for somebody who only shows what time it is: whoever has set it is believed, and nothing is
    /// noted.
    #[must_use]
    pub fn for_show() -> Self {
        Self::build(Wall::System, true, None, None)
    }

    /// A clock of a boot of its own that starts at `wall` and moves with tokio's, so that a test which pauses tokio's
    /// time rules both. See also [`Clock::set`] and [`Clock::trust`].
    #[must_use]
    pub fn injected(wall: Timestamp, trusted: bool) -> Self {
        let boot = format!("injected-{:016x}", fastrand::u64(..));
        Self::build(Wall::Injected(AtomicI64::new(wall.0)), trusted, Some(boot), None)
    }

    /// One that is trusted at once or where the latch says so, and else begins an era or goes on with this boot's.
    fn build(wall: Wall, trusted: bool, boot: Option<String>, latch: Option<Latch>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
        let start = Instant::now();
        let known = latch.as_ref().map(Latch::read).unwrap_or_default();
        let mut shared = Shared {
            start,
            wall,
            boot,
            latch,
            reckoning: known.reckoning,
            trust: OnceLock::new(),
            asked: AtomicU64::new(0),
        };
        if let Some(by) = known.trusted {
            let _ = shared.trust.set(shared.shift(by));
        } else if trusted && known.reckoning.is_none() {
            // Nothing to measure, nothing to note: the next run is told the same.
            let _ = shared.trust.set(None);
        } else if trusted || shared.kernel_says_so() {
            shared.trust();
        } else if known.reckoning.is_none() {
            let (_, (wall, uptime)) = shared.steadily(|shared| (shared.wall(), shared.uptime()));
            let reckoning = Some(Reckoning::begin(wall, uptime));
            shared.reckoning = reckoning;
            shared.note(
                Known { reckoning, trusted: None },
                "after a restart, what was stamped before it stays provisional",
            );
        }
        Self { shared: Arc::new(shared) }
    }

    /// One look at the clock.
    #[must_use]
    pub fn now(&self) -> Stamp {
        let shared = &*self.shared;
        if shared.trust.get().is_none() {
            let elapsed = u64::try_from(millis(self.monotonic())).unwrap_or(0);
            if elapsed.saturating_sub(shared.asked.load(Ordering::Relaxed))
                >= millis(ASK_EVERY).unsigned_abs()
            {
                shared.asked.store(elapsed, Ordering::Relaxed);
                if shared.kernel_says_so() {
                    shared.trust();
                }
            }
        }
        let synced = shared.trust.get().is_some();
        let (monotonic, wall) = shared.steadily(|shared| match &shared.reckoning {
            Some(reckoning) if !synced => reckoning.at(shared.uptime()),
            _ => shared.wall(),
        });
        Stamp { wall, monotonic, synced }
    }

    /// What the wall says, whoever may have set it: for what others judge by it, such as the dates on certificates.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.shared.wall()
    }

    /// Monotonic time since this clock was made.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// The instant, for a timer, at which [`Clock::monotonic`] will be `at`.
    #[must_use]
    pub fn instant(&self, at: Duration) -> Instant {
        // Beyond what an instant can be, nobody waits for it.
        const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        self.shared.start.checked_add(at).unwrap_or(self.shared.start + FAR)
    }

    /// The id of this boot, where the kernel tells one.
    #[must_use]
    pub fn boot(&self) -> Option<&str> {
        self.shared.boot.as_deref()
    }

    /// The era of this boot's provisional times, where it has had any.
    #[must_use]
    pub fn era(&self) -> Option<Era> {
        self.shared.reckoning.map(|reckoning| reckoning.era)
    }

    /// Once the clock is trusted: by how much this boot's provisional times are off, where it has had any.
    #[must_use]
    pub fn shift(&self) -> Option<Shift> {
        self.shared.trust.get().copied().flatten()
    }

    /// Resolves once the clock is trusted. The kernel is asked every second while somebody waits. Cancel-safe.
    pub async fn trusted(&self) {
        while !self.now().synced {
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Gives trust, as the kernel would. For tests of what happens then.
    pub fn trust(&self) {
        self.shared.trust();
    }

    /// Sets the wall of an injected clock, as somebody might the machine's. For tests of what happens then.
    pub fn set(&self, wall: Timestamp) {
        if let Wall::Injected(ahead) = &self.shared.wall {
            ahead.store(wall.0.saturating_sub(millis(self.monotonic())), Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn kernel_says_so(&self) -> bool {
        matches!(self.wall, Wall::System) && kernel::is_synchronised()
    }

    /// Measures by how much the provisional times are off, and trusts the wall from now on.
    fn trust(&self) {
        self.trust.get_or_init(|| {
            let (_, (wall, uptime)) = self.steadily(|shared| (shared.wall(), shared.uptime()));
            let by = self.reckoning.map_or(0, |reckoning| wall.0.saturating_sub(reckoning.at(uptime).0));
            tracing::info!(provisional_times_moved_by_ms = by, "the clock is synchronised");
            let known = Known { reckoning: self.reckoning, trusted: Some(by) };
            self.note(known, "after a restart, the kernel's word has to be waited for again");
            self.shift(by)
        });
    }

    fn shift(&self, by: i64) -> Option<Shift> {
        self.reckoning.map(|reckoning| Shift { era: reckoning.era, by })
    }

    fn note(&self, known: Known, otherwise: &str) {
        if let Some(latch) = &self.latch {
            latch.write(known, otherwise);
        }
    }

    /// Reads clocks at one monotonic time.
    fn steadily<T>(&self, read: impl Fn(&Self) -> T) -> (Duration, T) {
        let mut before = self.start.elapsed();
        let mut tries = 0;
        loop {
            let told = read(self);
            let after = self.start.elapsed();
            tries += 1;
            if after.saturating_sub(before) <= LOOK_MAX || tries == 5 {
                return (before, told);
            }
            before = after;
        }
    }

    fn wall(&self) -> Timestamp {
        match &self.wall {
            Wall::System => kernel::wall(),
            Wall::Injected(ahead) => Timestamp(ahead.load(Ordering::Relaxed)).after(self.start.elapsed()),
        }
    }

    /// How long the machine has been up; an injected clock's machine starts with it.
    fn uptime(&self) -> Duration {
        let known = if matches!(self.wall, Wall::System) { kernel::uptime() } else { None };
        known.unwrap_or_else(|| self.start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Era;

    #[tokio::test(start_paused = true)]
    async fn an_injected_clock_moves_with_tokios() {
        let clock = Clock::injected(Timestamp(1_000), true);
        tokio::time::advance(Duration::from_secs(3600)).await;
        let now = clock.now();
        assert_eq!(now.wall, Timestamp(3_601_000));
        assert_eq!(now.monotonic, Duration::from_secs(3600));
    }

    #[tokio::test(start_paused = true)]
    async fn before_trust_no_step_of_the_wall_touches_the_stamps_and_trust_measures_how_far_they_are_off() {
        let clock = Clock::injected(Timestamp(0), false);
        let truth = 1_795_422_500_000;
        for wall in [500, -7_200_000, truth] {
            tokio::time::advance(Duration::from_secs(10)).await;
            clock.set(Timestamp(wall));
            let now = clock.now();
            assert_eq!((now.wall, now.synced), (Timestamp(0).after(now.monotonic), false));
            assert_eq!(clock.wall(), Timestamp(wall));
        }
        assert_eq!(clock.shift(), None);
        clock.trust();
        let now = clock.now();
        assert_eq!((now.wall, now.synced), (Timestamp(truth), true));
        let by = truth - 30_000;
        assert_eq!(clock.shift(), Some(Shift { era: clock.era().unwrap(), by }));
        clock.set(Timestamp(truth + 3_600_000));
        clock.trust();
        assert_eq!(clock.shift().unwrap().by, by, "it is measured once");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_trust_hears_of_it_within_a_second() {
        let clock = Clock::injected(Timestamp(0), false);
        let waiting = tokio::spawn({
            let clock = clock.clone();
            async move { clock.trusted().await }
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!waiting.is_finished());
        clock.trust();
        tokio::time::timeout(ASK_EVERY, waiting).await.unwrap().unwrap();
    }

    #[test]
    fn a_battery_backed_clock_is_trusted_from_the_start() {
        let runtime = tempfile::tempdir().unwrap();
        let config = Config { trust: Trust::Rtc, ..Config::default() };
        let clock = Clock::system(&config, runtime.path());
        assert!(clock.now().synced);
        assert_eq!(clock.era(), None, "it has had no provisional times");
    }

    /// A clock in a boot of that name.
    fn boot(runtime: &Path, boot: &str, trusted: bool) -> Clock {
        let wall = Wall::Injected(AtomicI64::new(0));
        Clock::build(wall, trusted, Some(boot.into()), Some(Latch::new(runtime, boot.into())))
    }

    #[test]
    fn era_and_trust_outlive_a_restart_in_the_same_boot_and_not_the_boot() {
        let runtime = tempfile::tempdir().unwrap();
        let first = boot(runtime.path(), "one", false);
        let era = first.era().unwrap();
        let second = boot(runtime.path(), "one", false);
        assert_eq!(second.era(), Some(era));
        let (before, after) = (first.shared.reckoning, second.shared.reckoning);
        assert_eq!(before, after, "their times lie on one line");
        second.trust();
        let third = boot(runtime.path(), "one", false);
        assert_eq!((third.shift(), third.now().synced), (second.shift(), true));
        assert_eq!(third.shift().unwrap().era, era);
        let other = boot(runtime.path(), "two", false);
        assert!(!other.now().synced);
        assert_ne!(other.era(), Some(era));
    }

    #[test]
    fn trust_in_a_battery_backed_clock_that_is_configured_later_moves_what_was_stamped_before() {
        let runtime = tempfile::tempdir().unwrap();
        let era = boot(runtime.path(), "one", false).era().unwrap();
        let shift = boot(runtime.path(), "one", true).shift().unwrap();
        assert_eq!(shift.era, era);
        assert!(shift.by.abs() < 1_000, "nobody has set the clock: {shift:?}");
    }

    #[test]
    fn the_kernels_word_is_noted() {
        let runtime = tempfile::tempdir().unwrap();
        let clock = Clock::system(&Config::default(), runtime.path());
        assert_eq!(clock.now().synced, kernel::is_synchronised());
        let noted = clock.shared.latch.as_ref().unwrap().read();
        assert_eq!(noted.trusted.is_some(), kernel::is_synchronised());
        assert_eq!(noted.reckoning.map(|reckoning| reckoning.era), clock.era());
        assert_ne!(clock.era(), Some(Era(0)));
    }

    #[test]
    fn a_time_that_never_comes_is_an_instant_too() {
        let clock = Clock::injected(Timestamp(0), true);
        assert!(clock.instant(Duration::MAX) > clock.instant(Duration::from_secs(1_000_000)));
    }
}

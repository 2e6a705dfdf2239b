//! Who speaks on a line: one at a time, however many sources name it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::config::Target;
use super::doubt::{Doubts, End, Why};
use super::line::{Heard, Line, Manner, Outcome};
use super::pdu::Asked;
use crate::clock::Clock;
use crate::sources::{SourceError, Tap};

/// The lines that sources are on, or were on until just now. Clones are one. Sources that name the same line get the same [`Bus`], which is
/// closed with the last of them.
#[derive(Clone, Debug, Default)]
pub struct Ports(Arc<Mutex<Vec<Known>>>);

/// A line by its name in the configuration, and by what that led to when a source came to it: a name may lead nowhere
/// just then.
#[derive(Debug)]
struct Known {
    named: Target,
    found: Target,
    bus: Weak<Bus>,
    /// Kept until they are over though the line may be closed: the next on it would take an old answer for its own.
    doubts: Arc<Mutex<Doubts>>,
}

impl Ports {
    /// The line that `target` names.
    pub(super) fn of(&self, target: &Target, clock: &Clock) -> Arc<Bus> {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.instant(clock.monotonic());
        ports.retain(|known| known.bus.strong_count() > 0 || lock(&known.doubts).are_open(now));
        let found = known_as(target);
        let is_it = |known: &&Known| known.named == *target || known.found == found;
        if let Some(bus) = ports.iter().find(is_it).and_then(|known| known.bus.upgrade()) {
            return bus;
        }
        let before = ports.iter().find(|known| is_one_line(&known.found, &found));
        let doubts = before.map(|known| known.doubts.clone()).unwrap_or_default();
        ports.retain(|known| known.bus.strong_count() > 0 || !Arc::ptr_eq(&known.doubts, &doubts));
        let bus = Arc::new(Bus::new(Line::new(target.clone(), clock.clone()), doubts.clone()));
        ports.push(Known { named: target.clone(), found, bus: Arc::downgrade(&bus), doubts });
        bus
    }
}

/// Whether what comes on the one may have been asked for on the other, whatever the speed.
pub(super) fn is_one_line(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::Serial(one, _), Target::Serial(other, _)) => one == other,
        _ => one == other,
    }
}

fn lock(doubts: &Mutex<Doubts>) -> MutexGuard<'_, Doubts> {
    doubts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An adapter has several names below /dev, which lead to one.
pub(super) fn known_as(target: &Target) -> Target {
    match target {
        Target::Serial(name, settings) => {
            let path = fs::canonicalize(&**name).unwrap_or_else(|_| PathBuf::from(&**name));
            Target::Serial(path.to_string_lossy().into(), settings.clone())
        }
        Target::Network(..) => target.clone(),
    }
}

/// A line on which sources take turns: whoever has waited longest is next, for one request.
#[derive(Debug)]
pub(super) struct Bus {
    line: tokio::sync::Mutex<Line>,
    /// Until when nobody asks what did not answer before, in milliseconds of monotonic time. So all that is silent
    /// together gets a bounded share of the line.
    patience: AtomicU64,
    /// What may still come. It outlives the line.
    doubts: Arc<Mutex<Doubts>>,
    /// Whether anybody has answered on it.
    answered: AtomicBool,
    /// Whether it was told that nobody has.
    told_mute: AtomicBool,
}

impl Bus {
    fn new(line: Line, doubts: Arc<Mutex<Doubts>>) -> Self {
        Self {
            line: tokio::sync::Mutex::new(line),
            patience: AtomicU64::new(0),
            doubts,
            answered: AtomicBool::new(false),
            told_mute: AtomicBool::new(false),
        }
    }

    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        lock(&self.doubts)
    }

    /// Whether an answer to `asked` could be an old one.
    pub(super) fn is_doubtful(&self, asked: Asked, now: Instant) -> bool {
        self.doubts().is_doubtful(asked, now)
    }

    /// The request to that unit that waits for an answer still.
    pub(super) fn doubted(&self, unit: u8, now: Instant) -> Option<Asked> {
        self.doubts().last_of(unit, now)
    }

    /// Opens the line where it is not open.
    pub(super) async fn open(&self) -> Result<(), SourceError> {
        self.line.lock().await.open().await
    }

    /// Opens the line on a script.
    #[cfg(test)]
    pub(super) async fn open_on(&self, script: tokio::io::DuplexStream) {
        self.line.lock().await.open_on(script);
    }

    /// Takes a turn: one request and its answer, whose bytes are put into `values`. Also how long the turn took.
    /// `None` where its answer could not be told from one that is late, which is known only once it is its turn.
    pub(super) async fn ask(
        &self,
        asked: &Asked,
        manner: Manner,
        clock: &Clock,
        values: &mut Vec<u8>,
        tap: &Tap,
    ) -> Result<Option<(Heard, Duration)>, SourceError> {
        let mut line = self.line.lock().await;
        let begun = clock.monotonic();
        let now = clock.instant(begun);
        if self.is_doubtful(*asked, now) {
            return Ok(None);
        }
        let manner = Manner { in_doubt: self.doubts().is_exception_doubtful(*asked, now), ..manner };
        let mut out = Out { bus: self, asked: *asked, clock, manner, is_out: line.is_by_frame() };
        let heard = line.ask(asked, manner, values, tap).await;
        out.is_out = false;
        let heard = heard?;
        let took = clock.monotonic().saturating_sub(begun);
        let now = clock.instant(begun + took);
        // Before the next has its turn.
        self.doubts().heard(*asked, &heard, line.late(), now, End::of(manner, now));
        if heard.late > 0 || !matches!(heard.outcome, Outcome::Silence | Outcome::Closed | Outcome::Damaged) {
            self.answered.store(true, Ordering::Relaxed);
        }
        Ok(Some((heard, took)))
    }

    /// From when on what is silent may be asked again.
    pub(super) fn patient_until(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    /// Whether anybody has answered since the first source came to it, whoever was asked.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// It is told that nobody has. Whether that is news.
    pub(super) fn is_told_mute(&self) -> bool {
        !self.told_mute.swap(true, Ordering::Relaxed)
    }

    /// Whether it was told that nobody has.
    pub(super) fn was_told_mute(&self) -> bool {
        self.told_mute.load(Ordering::Relaxed)
    }

    /// Leaves what is silent alone until then.
    pub(super) fn be_patient(&self, until: Duration) {
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.patience.fetch_max(until, Ordering::Relaxed);
    }
}

/// A request that is out. Where its asker goes away meanwhile, its answer may still come.
struct Out<'a> {
    bus: &'a Bus,
    asked: Asked,
    clock: &'a Clock,
    manner: Manner,
    is_out: bool,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        if self.is_out {
            let now = self.clock.instant(self.clock.monotonic());
            let end = End::of(self.manner, now + self.manner.timeout);
            self.bus.doubts().open(self.asked, Why::Silent, now, end);
        }
    }
}

//! Who speaks on a line: one at a time, however many sources name it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::config::Target;
use super::line::{Heard, Line, Manner};
use super::pdu::Asked;
use crate::clock::Clock;
use crate::sources::{SourceError, Tap};

/// The lines that sources are on now. Clones are one. Sources that name the same line get the same [`Bus`], which is
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
}

impl Ports {
    /// The line that `target` names.
    pub(super) fn of(&self, target: &Target, clock: &Clock) -> Arc<Bus> {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ports.retain(|known| known.bus.strong_count() > 0);
        let found = known_as(target);
        let is_it = |known: &&Known| known.named == *target || known.found == found;
        if let Some(bus) = ports.iter().find(is_it).and_then(|known| known.bus.upgrade()) {
            return bus;
        }
        let bus = Arc::new(Bus::new(Line::new(target.clone(), clock.clone())));
        ports.push(Known { named: target.clone(), found, bus: Arc::downgrade(&bus) });
        bus
    }
}

/// An adapter has several names below /dev, which lead to one.
fn known_as(target: &Target) -> Target {
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
    /// On a serial line, what may still come of each unit: one doubt a unit at most.
    doubts: Mutex<Vec<Doubt>>,
}

/// A request that had no answer in time, whose answer may still come. It could be taken for the answer to another
/// request that looks like it.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    asked: Asked,
    until: Duration,
    /// Asked for again it had an answer. Whichever it was, the other may still come, and to ask anew would leave it
    /// open for ever which is which.
    answered: bool,
}

impl Bus {
    fn new(line: Line) -> Self {
        Self { line: tokio::sync::Mutex::new(line), patience: AtomicU64::new(0), doubts: Mutex::default() }
    }

    /// There was no answer to `asked`, and one may still come until then.
    pub(super) fn doubt(&self, asked: Asked, until: Duration) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.retain(|doubt| doubt.asked.unit != asked.unit);
        doubts.push(Doubt { asked, until, answered: false });
    }

    /// There was an answer to `asked`, and where that was in doubt there still is another until then.
    pub(super) fn answered(&self, asked: Asked, now: Duration, until: Duration) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.retain(|doubt| now < doubt.until);
        for doubt in doubts.iter_mut().filter(|doubt| doubt.asked == asked) {
            (doubt.until, doubt.answered) = (until, true);
        }
    }

    /// What was waited for of that unit has come.
    pub(super) fn believe(&self, unit: u8) {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).retain(|doubt| doubt.asked.unit != unit);
    }

    /// Whether an answer to `asked` could be an old one.
    pub(super) fn is_doubtful(&self, asked: Asked, now: Duration) -> bool {
        let doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_so = |doubt: &Doubt| {
            now < doubt.until && doubt.asked.looks_like(&asked) && (doubt.answered || doubt.asked != asked)
        };
        doubts.iter().any(is_so)
    }

    /// The request to that unit that waits for an answer still.
    pub(super) fn doubted(&self, unit: u8, now: Duration) -> Option<Asked> {
        let doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.iter().find(|doubt| doubt.asked.unit == unit && now < doubt.until).map(|doubt| doubt.asked)
    }

    /// Opens the line where it is not open.
    pub(super) async fn open(&self) -> Result<(), SourceError> {
        self.line.lock().await.open().await
    }

    /// Takes a turn: one request and its answer, whose bytes are put into `values`. Also how long the turn took.
    pub(super) async fn ask(
        &self,
        asked: &Asked,
        manner: Manner,
        clock: &Clock,
        values: &mut Vec<u8>,
        tap: &Tap,
    ) -> Result<(Heard, Duration), SourceError> {
        let mut line = self.line.lock().await;
        let begun = clock.monotonic();
        let heard = line.ask(asked, manner, values, tap).await?;
        Ok((heard, clock.monotonic().saturating_sub(begun)))
    }

    /// From when on what is silent may be asked again.
    pub(super) fn patient_until(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    /// Leaves what is silent alone until then.
    pub(super) fn be_patient(&self, until: Duration) {
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.patience.fetch_max(until, Ordering::Relaxed);
    }
}

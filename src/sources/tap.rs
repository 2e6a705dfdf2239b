//! The tap: what a source reads and what becomes of it, for whoever looks on. `weir tap` is who does.
//!
//! Every source has one, in its [`Stats`](super::Stats): it outlives that the source is opened again, or that its table
//! changes. While nobody looks it costs one relaxed load a read. Who looks never holds the source up: what it does not
//! take in time it loses, and is told how much that was.
//!
//! What a source has to do for it: where [`Tap::is_watched`], tell [`Tap::received`] what came in, before it is decoded,
//! and [`Tap::decoded`] what came of it; [`Tap::sent`] what it writes to a device, where it does. What is refused through
//! `Stats::refuse`, and that the source was opened or failed, is told by itself. Byte streams that are read by a
//! `stream::Reader` need nothing at all.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::excerpt;
use crate::clock::Clock;
use crate::model::{NAME_MAX, Reading, Readings, Stamp, Value};

/// So many events may wait for one who looks.
const EVENTS: usize = 256;

/// So many bytes may wait, over all events: who stops the output of a terminal may leave it so for hours.
const BYTES: usize = 64 << 10;

/// So many bytes of a reason, or of what goes before a frame, are shown.
const WORDS: usize = 512;

/// So many bytes of a unit are shown.
const UNIT: usize = 64;

/// So many bytes of a frame are shown.
const SHOWN: usize = 512;

/// So many readings of a frame are shown.
const READINGS: usize = 64;

/// So many of the bytes that have come last, and are no frame yet, are shown.
const TAIL: usize = 64;

/// After so long without a word, that is worth one; then after twice as long, and so on.
const QUIET: Duration = Duration::from_secs(10);

/// And at least so often.
const QUIET_MAX: Duration = Duration::from_secs(300);

/// Something that happened at a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the wall: Unix milliseconds.
    pub at: i64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is open.
    Open,
    /// It is not, for this reason; it is tried again.
    Failed(String),
    /// A frame came in.
    Received(Frame),
    /// A frame was sent to a device.
    Sent(Frame),
    /// What the frame before says.
    Decoded {
        /// The first of its readings.
        readings: Vec<Told>,
        /// How many there are in all.
        count: usize,
        /// Fields that are no readings.
        ignored: u64,
        /// The first of these, and why it is none, where that is known.
        #[serde(default)]
        first_ignored: Option<String>,
    },
    /// Something was refused.
    Refused {
        /// The refusal's name.
        cause: String,
        /// In plain words.
        why: String,
        /// The last bytes that came, where they have made no frame.
        tail: Vec<u8>,
    },
    /// Nothing of all that, for some time.
    Quiet {
        /// For how many seconds.
        seconds: u64,
        /// How many bytes came meanwhile, that made no frame.
        bytes: u64,
        /// The last of these.
        tail: Vec<u8>,
    },
    /// So much happened that who looks did not take in time.
    Lost(u64),
}

/// A frame, or the beginning of one that is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// What goes before it, such as the line of a request.
    pub head: Option<String>,
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// How many it has in all.
    pub length: usize,
}

/// A reading, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The device.
    pub device: String,
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: String,
    /// Its unit, where it is known.
    pub unit: Option<String>,
    /// The device's own time, where it told one: Unix milliseconds.
    pub time: Option<i64>,
}

/// The source's end. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Tap(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_watched: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watchers: Vec<Outlet>,
    /// Whether it is open or why not, once it was tried.
    state: Option<What>,
}

/// The way to one who looks.
#[derive(Debug)]
struct Outlet {
    events: mpsc::Sender<Event>,
    clock: Clock,
    shared: Arc<Between>,
}

/// What one who looks and the source have in common.
#[derive(Debug, Default)]
struct Between {
    lost: AtomicU64,
    /// The bytes of the events that wait.
    waiting: AtomicUsize,
    unframed: Mutex<Unframed>,
}

/// Bytes since the last word.
#[derive(Debug, Default)]
struct Unframed {
    bytes: u64,
    tail: Vec<u8>,
}

impl Tap {
    /// Whether somebody looks on, so that it is worth while to tell anything.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.0.is_watched.load(Ordering::Relaxed)
    }

    /// These bytes were read, whether they make a frame or not.
    pub fn read(&self, bytes: &[u8]) {
        for outlet in &self.inner().watchers {
            let mut unframed = outlet.shared.unframed.lock().unwrap_or_else(PoisonError::into_inner);
            unframed.bytes += bytes.len() as u64;
            unframed.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
            let over = unframed.tail.len().saturating_sub(TAIL);
            unframed.tail.drain(..over);
        }
    }

    /// A frame came in; `head` is what goes before it, such as the line of a request.
    pub fn received(&self, head: Option<String>, bytes: &[u8]) {
        self.tell(What::Received(Frame::new(head, bytes)));
    }

    /// A frame was sent to a device.
    pub fn sent(&self, head: Option<String>, bytes: &[u8]) {
        self.tell(What::Sent(Frame::new(head, bytes)));
    }

    /// What came of the frame that was told last: all readings from the one of number `first` on.
    pub fn decoded(&self, readings: &Readings, first: usize, ignored: u64, first_ignored: Option<String>) {
        let count = readings.len().saturating_sub(first);
        if count > 0 || ignored > 0 {
            let shown = readings.iter().skip(first).take(READINGS);
            let readings = shown.map(|(_, reading)| Told::new(&reading, readings.arrival)).collect();
            self.tell(What::Decoded { readings, count, ignored, first_ignored });
        }
    }

    /// Something was refused.
    pub(super) fn refused(&self, cause: &str, why: String) {
        let why = excerpt::cut(why, WORDS);
        self.tell(What::Refused { cause: cause.to_owned(), why, tail: Vec::new() });
    }

    /// The source is open.
    pub fn opened(&self) {
        self.inner().state = Some(What::Open);
        self.tell(What::Open);
    }

    /// The source is not open any more, or could not be opened.
    pub fn failed(&self, why: &str) {
        let what = What::Failed(excerpt::cut(why, WORDS));
        self.inner().state = Some(what.clone());
        self.tell(what);
    }

    /// Looks on from now on. Where the source has been tried already, how that went comes first.
    #[must_use]
    pub fn watch(&self, clock: Clock) -> Watcher {
        let (events, to_come) = mpsc::channel(EVENTS);
        let shared = Arc::new(Between::default());
        let mut inner = self.inner();
        inner.watchers.retain(|outlet| !outlet.events.is_closed());
        let mut outlet = Outlet { events, clock: clock.clone(), shared: Arc::clone(&shared) };
        if let Some(state) = inner.state.clone() {
            outlet.tell(state);
        }
        inner.watchers.push(outlet);
        self.0.is_watched.store(true, Ordering::Relaxed);
        Watcher { events: to_come, clock, shared, quiet: QUIET, quiet_for: Duration::ZERO }
    }

    fn tell(&self, what: What) {
        if !self.is_watched() {
            return;
        }
        let mut inner = self.inner();
        inner.watchers.retain_mut(|outlet| outlet.tell(what.clone()));
        if inner.watchers.is_empty() {
            self.0.is_watched.store(false, Ordering::Relaxed);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    /// Gives whether somebody is there to hear it.
    fn tell(&mut self, mut what: What) -> bool {
        let unframed =
            std::mem::take(&mut *self.shared.unframed.lock().unwrap_or_else(PoisonError::into_inner));
        if let What::Refused { tail, .. } = &mut what {
            *tail = unframed.tail;
        }
        let at = self.clock.wall().0;
        // The last place is for how much was lost, so that it comes where it was lost.
        let (lost, room) = (&self.shared.lost, self.events.capacity());
        let before = lost.load(Ordering::Relaxed);
        let event = Event { at, what };
        let fits = self.shared.waiting.load(Ordering::Relaxed) + event.held() + size_of::<Event>() <= BYTES;
        if room >= 2 && fits {
            if before > 0 {
                lost.store(0, Ordering::Relaxed);
                self.send(Event { at, what: What::Lost(before) });
            }
            self.send(event);
        } else {
            lost.store(before + 1, Ordering::Relaxed);
        }
        !self.events.is_closed()
    }

    fn send(&self, event: Event) {
        self.shared.waiting.fetch_add(event.held(), Ordering::Relaxed);
        let _ = self.events.try_send(event);
    }
}

impl Event {
    /// How many bytes it takes while it waits.
    fn held(&self) -> usize {
        let beside = match &self.what {
            What::Open | What::Lost(_) => 0,
            What::Failed(why) => why.len(),
            What::Received(frame) | What::Sent(frame) => {
                frame.bytes.len() + frame.head.as_ref().map_or(0, String::len)
            }
            What::Decoded { readings, .. } => readings.iter().map(Told::held).sum(),
            What::Refused { cause, why, tail } => cause.len() + why.len() + tail.len(),
            What::Quiet { tail, .. } => tail.len(),
        };
        size_of::<Self>() + beside
    }
}

impl Frame {
    fn new(head: Option<String>, bytes: &[u8]) -> Self {
        let head = head.map(|head| excerpt::cut(head, WORDS));
        Self { head, bytes: bytes[..bytes.len().min(SHOWN)].to_vec(), length: bytes.len() }
    }
}

impl Told {
    fn new(reading: &Reading<'_>, arrival: Stamp) -> Self {
        Self {
            device: excerpt::cut(reading.device, NAME_MAX),
            metric: excerpt::cut(reading.metric, NAME_MAX),
            value: match reading.value {
                Value::Float(x) => x.to_string(),
                Value::Int(x) => x.to_string(),
                Value::Uint(x) => x.to_string(),
                Value::Bool(x) => x.to_string(),
                Value::Text(x) => excerpt::quoted(x),
            },
            unit: reading.unit.map(|unit| excerpt::cut(unit, UNIT)),
            time: reading.time.map(|time| time.of(arrival.wall).0),
        }
    }

    fn held(&self) -> usize {
        let Self { device, metric, value, unit, .. } = self;
        let words = device.len() + metric.len() + value.len() + unit.as_ref().map_or(0, String::len);
        size_of::<Self>() + words
    }
}

/// The end of who looks on. Dropped, nobody does.
#[derive(Debug)]
pub struct Watcher {
    events: mpsc::Receiver<Event>,
    clock: Clock,
    shared: Arc<Between>,
    /// After how long the next silence is worth a word.
    quiet: Duration,
    quiet_for: Duration,
}

impl Watcher {
    /// What happens next, or that nothing does; `None` once the source is gone for good. Not cancel-safe: a silence
    /// begins anew.
    pub async fn next(&mut self) -> Option<Event> {
        let event = match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(mpsc::error::TryRecvError::Disconnected) => return None,
            Err(mpsc::error::TryRecvError::Empty) => {
                let lost = self.shared.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    return Some(self.event(What::Lost(lost)));
                }
                timeout(self.quiet.saturating_sub(self.quiet_for), self.events.recv()).await
            }
        };
        match event {
            Ok(event) => {
                (self.quiet, self.quiet_for) = (QUIET, Duration::ZERO);
                let held = event.as_ref().map_or(0, Event::held);
                self.shared.waiting.fetch_sub(held, Ordering::Relaxed);
                event
            }
            Err(_) => {
                self.quiet_for = self.quiet;
                self.quiet = (self.quiet * 2).min(self.quiet + QUIET_MAX);
                let mut unframed = self.shared.unframed.lock().unwrap_or_else(PoisonError::into_inner);
                let Unframed { bytes, tail } = std::mem::take(&mut *unframed);
                drop(unframed);
                Some(self.event(What::Quiet { seconds: self.quiet_for.as_secs(), bytes, tail }))
            }
        }
    }

    fn event(&self, what: What) -> Event {
        Event { at: self.clock.wall().0, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Time, Timestamp};

    fn clock() -> Clock {
        Clock::injected(Timestamp(1_000), true)
    }

    async fn what(watcher: &mut Watcher) -> What {
        watcher.next().await.unwrap().what
    }

    fn received(bytes: &[u8]) -> What {
        What::Received(Frame::new(None, bytes))
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_looks_is_told_everything_from_then_on_and_how_it_stands() {
        let tap = Tap::default();
        assert!(!tap.is_watched());
        tap.failed("unplugged");
        let mut first = tap.watch(clock());
        tap.opened();
        let mut second = tap.watch(clock());
        tap.received(None, b"one");
        assert_eq!(what(&mut first).await, What::Failed("unplugged".into()));
        for watcher in [&mut first, &mut second] {
            assert_eq!(what(watcher).await, What::Open);
            assert_eq!(what(watcher).await, received(b"one"));
        }
        drop(first);
        tap.received(None, b"two");
        assert_eq!(what(&mut second).await, received(b"two"));
        drop(second);
        tap.received(None, b"three");
        assert!(!tap.is_watched());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_keep_up_loses_what_is_over_and_learns_where_and_how_much() {
        let tap = Tap::default();
        let mut watcher = tap.watch(clock());
        for n in 0..1_000_u16 {
            tap.received(None, &n.to_be_bytes());
        }
        for n in 0..255_u16 {
            assert_eq!(what(&mut watcher).await, received(&n.to_be_bytes()));
        }
        assert_eq!(what(&mut watcher).await, What::Lost(745));
        for n in 0..300_u16 {
            tap.received(None, &n.to_be_bytes());
        }
        assert_eq!(what(&mut watcher).await, received(&[0, 0]));
        assert_eq!(what(&mut watcher).await, received(&[0, 1]));
        tap.received(None, b"after");
        for _ in 2..255 {
            what(&mut watcher).await;
        }
        assert_eq!(what(&mut watcher).await, What::Lost(45));
        assert_eq!(what(&mut watcher).await, received(b"after"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_at_all_makes_a_few_bytes_wait_however_large_the_frames_are() {
        let tap = Tap::default();
        let mut watcher = tap.watch(clock());
        let large = "\u{1}".repeat(1 << 20);
        let mut readings = Readings::new(clock().now());
        let name = "n".repeat(NAME_MAX);
        for _ in 0..READINGS {
            let (value, unit) = (Value::Text(&large[..1000]), Some(&large[..1000]));
            readings.push(Reading { device: &name, metric: &name, value, time: None, unit });
        }
        let flood = || {
            tap.read(large.as_bytes());
            tap.received(Some(large.clone()), large.as_bytes());
            tap.decoded(&readings, 0, 0, None);
            tap.refused("undecodable", large.clone());
            tap.failed(&large);
        };
        for _ in 0..2 {
            (0..50).for_each(|_| flood());
            let (mut bytes, mut told, mut lost, mut decoded) = (0, 0, 0, 0);
            loop {
                match what(&mut watcher).await {
                    What::Lost(count) => lost += count,
                    What::Quiet { .. } => break,
                    what => {
                        decoded += usize::from(matches!(what, What::Decoded { .. }));
                        bytes += allocated(&what);
                        told += 1;
                    }
                }
            }
            assert_eq!(told + lost, 200, "what is not told is counted");
            assert!(bytes <= BYTES && decoded >= 1, "{bytes} bytes, {decoded} times decoded");
            assert_eq!(watcher.shared.waiting.load(Ordering::Relaxed), 0);
        }
    }

    /// What an event takes in memory.
    fn allocated(what: &What) -> usize {
        let beside = match what {
            What::Failed(why) => why.capacity(),
            What::Received(frame) => frame.bytes.capacity() + frame.head.as_ref().map_or(0, String::capacity),
            What::Decoded { readings, .. } => {
                let words = |told: &Told| {
                    let unit = told.unit.as_ref().map_or(0, String::capacity);
                    told.device.capacity() + told.metric.capacity() + told.value.capacity() + unit
                };
                readings.capacity() * size_of::<Told>() + readings.iter().map(words).sum::<usize>()
            }
            What::Refused { cause, why, tail } => cause.capacity() + why.capacity() + tail.capacity(),
            _ => 0,
        };
        size_of::<Event>() + beside
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_told_ever_more_rarely_with_what_came_that_made_no_frame() {
        let tap = Tap::default();
        let mut watcher = tap.watch(clock());
        let quiet = |seconds, bytes, tail: &[u8]| What::Quiet { seconds, bytes, tail: tail.to_vec() };
        assert_eq!(what(&mut watcher).await, quiet(10, 0, b""));
        tap.read(&[0x55; 70]);
        tap.read(b"\xff\x00");
        let tail = [&[0x55; 62][..], b"\xff\x00"].concat();
        assert_eq!(what(&mut watcher).await, quiet(20, 72, &tail));
        assert_eq!(what(&mut watcher).await, quiet(40, 0, b""));
        tap.read(b"noise");
        for tail in [&b"noise"[..], b""] {
            tap.refused("checksum", "wrong".into());
            let refused =
                What::Refused { cause: "checksum".into(), why: "wrong".into(), tail: tail.to_vec() };
            assert_eq!(what(&mut watcher).await, refused);
        }
        tap.read(b"x\n");
        tap.received(None, b"x");
        assert_eq!(what(&mut watcher).await, received(b"x"));
        assert_eq!(what(&mut watcher).await, quiet(10, 0, b""), "what made a frame is no news");
        for _ in 0..20 {
            what(&mut watcher).await;
        }
        let What::Quiet { seconds: before, .. } = what(&mut watcher).await else { panic!() };
        assert_eq!(what(&mut watcher).await, quiet(before + 300, 0, b""));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_source_is_gone_for_good() {
        let tap = Tap::default();
        let mut watcher = tap.watch(clock());
        tap.received(None, b"last");
        drop(tap);
        assert_eq!(what(&mut watcher).await, received(b"last"));
        assert_eq!(watcher.next().await, None);
    }

    #[test]
    fn of_what_is_long_the_beginning_is_told() {
        let tap = Tap::default();
        let mut watcher = tap.watch(clock());
        tap.sent(Some("head".into()), &[7; 100_000]);
        let mut readings = Readings::new(clock().now());
        for value in
            [Value::Float(21.0), Value::Text("a\n"), Value::Bool(true), Value::Int(-1), Value::Uint(1)]
        {
            for _ in 0..20 {
                readings.push(Reading {
                    device: "d",
                    metric: "m",
                    value,
                    time: Some(Time::At(Timestamp(5))),
                    unit: Some("V"),
                });
            }
        }
        tap.decoded(&readings, 20, 3, Some("`a` holds text".into()));
        tap.decoded(&readings, 100, 0, None);
        let Some(Event { at, what: What::Sent(frame) }) = watcher.events.try_recv().ok() else { panic!() };
        assert!(at >= 1_000);
        assert_eq!((frame.bytes.len(), frame.length, frame.head.as_deref()), (512, 100_000, Some("head")));
        let told = watcher.events.try_recv().unwrap();
        let What::Decoded { readings, count, ignored, first_ignored } = told.what else { panic!() };
        assert_eq!((readings.len(), count, ignored), (64, 80, 3));
        assert_eq!(first_ignored.as_deref(), Some("`a` holds text"));
        assert_eq!(
            (&*readings[0].value, &*readings[20].value, readings[0].time),
            ("\"a\\n\"", "true", Some(5))
        );
        assert!(watcher.events.try_recv().is_err(), "nothing came of it, and nothing is told");
    }
}

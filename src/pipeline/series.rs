//! The table of all series, and the pure core of `process`: readings in, messages out, the time as an argument.
//!
//! A series is compiled once. Its first reading finds the filters and the window that match it; every later one is a
//! lookup and a walk down its own chain.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::device::{Device, Told};
use super::line::{Course, Line};
use super::passing::Passing;
use super::staleness::Watch;
use crate::filter;
use crate::model::{Era, Message, Readings, Stamp, Timestamp};
use crate::tally::Tally;
use crate::window::{self, Sent};

/// What `process` counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// Readings that came in.
    pub readings: AtomicU64,
    /// Messages that went out.
    pub messages: AtomicU64,
    /// Series known.
    pub series: AtomicU64,
    /// Readings refused as their window was closed already.
    pub late: Tally,
    /// Readings refused as none of their window's aggregates takes such a value.
    pub no_number: Tally,
    /// Readings refused as they would have made one series too many.
    pub too_many_series: Tally,
    /// Device times replaced by arrival as they lay too far ahead.
    pub ahead: Tally,
    /// Device times that no clock tells, such as milliseconds read as seconds, and that were kept.
    pub unlikely: Tally,
    /// Times that a series fell silent, and was told so.
    pub stale: Tally,
    /// Readings that filters held back.
    pub held_back: AtomicU64,
    /// Times that the clock went otherwise than it should: trust came, or it was set.
    pub clock_steps: AtomicU64,
}

/// What rules the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `[[filters]]`.
    pub filters: Vec<filter::Config>,
    /// `[[windows]]`.
    pub windows: Vec<window::Config>,
    /// `[limits] max_series`.
    pub max_series: usize,
    /// `[clock] max_ahead`.
    pub max_ahead: Duration,
    /// The sources that have `stale_after`.
    pub stale_after: Vec<(Arc<str>, Duration)>,
}

/// All series of all sources.
#[derive(Debug)]
pub struct SeriesTable {
    pub(super) sources: Vec<Source>,
    pub(super) terms: Terms,
}

/// What the series of all devices have in common.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) rules: Rules,
    /// By `[[windows]]` entry: windows that start earlier saw only a part of their time.
    running_since: Box<[Timestamp]>,
    pub(super) line: Line,
    /// The era of this boot's provisional times, where it has had any.
    era: Option<Era>,
    /// What the run before sent by arrival.
    pub(super) sent_before: Sent,
    /// No window is due before this monotonic time.
    wake_at: Option<Duration>,
    /// When to look for series that fell silent.
    pub(super) stale: Watch,
    known: usize,
    /// Sources that were taken out of the file, of which one may come back.
    gone: Vec<Arc<str>>,
    pub(super) stats: Arc<Stats>,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    places: HashMap<Box<str>, usize>,
    pub(super) devices: Vec<Device>,
    /// When it came back, where it was gone: what it sent before is forgotten, and may be sent again.
    back_since: Option<Timestamp>,
    /// How long a series may be silent.
    pub(super) stale_after: Option<Duration>,
}

/// How many sources that are gone are remembered.
const GONE_MAX: usize = 1_000;

impl SeriesTable {
    /// An empty table. `era` is that of this boot's provisional times, where it has had any.
    #[must_use]
    pub fn new(rules: Rules, now: Stamp, era: Option<Era>, stats: Arc<Stats>) -> Self {
        let running_since = rules.windows.iter().map(|_| now.wall).collect();
        let (line, sent_before) = (Line::new(now), Sent::default());
        let terms = Terms {
            rules,
            running_since,
            line,
            era,
            sent_before,
            wake_at: None,
            stale: Watch::default(),
            known: 0,
            gone: Vec::new(),
            stats,
        };
        Self { sources: Vec::new(), terms }
    }

    /// The same open windows under other rules. Windows that the rules cut no longer, or cut otherwise,
    /// are added to `messages` as partial. What has changed for an entry makes its open windows partial as well.
    #[must_use]
    pub fn under(mut self, rules: Rules, now: Stamp, messages: &mut Vec<Message>) -> Self {
        let now = self.come_to(now, messages);
        let mut table = Self::new(rules, now, self.terms.era, self.terms.stats.clone());
        (table.terms.line, table.terms.sent_before) =
            (self.terms.line.clone(), self.terms.sent_before.clone());
        table.terms.gone = std::mem::take(&mut self.terms.gone);
        let (old, new) = (&self.terms.rules, &table.terms.rules);
        // An entry takes what its filters let through and no entry before it has taken.
        let as_before = old.windows.iter().zip(&new.windows).take_while(|(old, new)| old == new).count();
        let as_before = if old.filters == new.filters { as_before } else { 0 };
        table.terms.running_since[..as_before].copy_from_slice(&self.terms.running_since[..as_before]);
        let saved = self.handed_over();
        if let Err(error) = table.go_on(&saved, now, messages) {
            debug_assert!(false, "what was saved a moment ago can be read: {error}");
        }
        table
    }

    /// Forgets a source that is gone for good. Its open windows are added to `messages` as partial.
    pub fn forget(&mut self, source: &str, messages: &mut Vec<Message>) {
        let Self { sources, terms } = self;
        let Some(place) = sources.iter().position(|known| *known.name == *source) else { return };
        let mut source = sources.swap_remove(place);
        source.close_all(terms, messages);
        terms.forget(source.devices.iter().map(Device::series).sum());
        if !terms.gone.contains(&source.name) && terms.gone.len() < GONE_MAX {
            terms.gone.push(source.name);
        }
    }

    /// Takes what a source brought, and adds the messages that come of it to `messages`.
    pub fn take(&mut self, source: &str, readings: &Readings, messages: &mut Vec<Message>) {
        let arrival = self.come_to(readings.arrival, messages);
        self.close_by(arrival, messages);
        let Self { sources, terms } = self;
        let source = Source::of(sources, source, &terms.rules);
        if source.devices.is_empty() && terms.gone.contains(&source.name) {
            source.back_since = Some(arrival.wall);
        }
        terms.stats.readings.fetch_add(readings.len() as u64, Ordering::Relaxed);
        let before = messages.len();
        let mut passing = Passing::default();
        let mut last = None;
        for (frame, reading) in readings.iter() {
            let place = match last {
                Some((name, place)) if name == reading.device => place,
                _ => match source.place(reading.device, terms) {
                    Some(place) => place,
                    None => continue,
                },
            };
            last = Some((reading.device, place));
            let (name, device) = (&*source.name, &mut source.devices[place]);
            if let Some(time) = device.take(name, &reading, arrival, terms, messages) {
                passing.add(frame, name, &reading, time, arrival.synced, messages);
            }
        }
        passing.end(messages);
        terms.stats.messages.fetch_add((messages.len() - before) as u64, Ordering::Relaxed);
    }

    /// When [`SeriesTable::close_due`] has to be called next, in monotonic time; `None` while no window is open and no
    /// silence is waited for.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        [self.terms.wake_at, self.terms.stale.at()].into_iter().flatten().min()
    }

    /// Closes every open window, whether it is over or not.
    pub fn close_all(&mut self, messages: &mut Vec<Message>) {
        let Self { sources, terms } = self;
        terms.wake_at = None;
        sources.iter_mut().for_each(|source| source.close_all(terms, messages));
    }

    /// Closes the windows that `now` ends: those stamped at arrival by the clock, the others by their silence. Then
    /// tells which series have been silent for too long. To be called while nothing waits to be taken.
    pub fn close_due(&mut self, now: Stamp, messages: &mut Vec<Message>) {
        if self.terms.is_due(now) {
            let now = self.come_to(now, messages);
            self.close_by(now, messages);
        }
        self.tell_stale(now, messages);
    }

    /// What the time is on the line of arrival times at this look at the clock. Where the line breaks, what is open by
    /// arrival is closed.
    pub(super) fn come_to(&mut self, look: Stamp, messages: &mut Vec<Message>) -> Stamp {
        let Self { sources, terms } = self;
        let era = terms.era(Told::ByArrival);
        let (was_provisional, expected) = (terms.line.is_provisional(), terms.line.expected(look));
        let last_end = |now| {
            let devices = sources.iter().flat_map(|source| &source.devices);
            devices.filter_map(|device| device.last_end(now)).max()
        };
        let (now, course) = terms.line.look(look, last_end);
        if course == Course::On {
            return now;
        }
        terms.stats.clock_steps.fetch_add(1, Ordering::Relaxed);
        if was_provisional && !terms.line.is_provisional() {
            // When the agent began is known now in real time, which is what devices tell.
            let by = now.wall.0.saturating_sub(expected.0);
            terms.running_since.iter_mut().for_each(|since| *since = since.moved(by));
        }
        let before = messages.len();
        for source in sources {
            for device in &mut source.devices {
                for told in Told::ON_LINE {
                    device.break_off(&source.name, told, era, &terms.rules, messages);
                    if course == Course::Anew {
                        device.rewind(told);
                    }
                }
            }
        }
        terms.stats.messages.fetch_add((messages.len() - before) as u64, Ordering::Relaxed);
        now
    }

    fn close_by(&mut self, now: Stamp, messages: &mut Vec<Message>) {
        let Self { sources, terms } = self;
        if !terms.is_due(now) {
            return;
        }
        terms.wake_at = None;
        let before = messages.len();
        for source in sources {
            for device in &mut source.devices {
                device.close_due(&source.name, now, terms, messages);
            }
        }
        terms.stats.messages.fetch_add((messages.len() - before) as u64, Ordering::Relaxed);
    }
}

impl Terms {
    fn is_due(&self, now: Stamp) -> bool {
        self.wake_at.is_some_and(|wake_at| wake_at <= now.monotonic)
    }

    /// Windows under this entry that start earlier saw only a part of their time.
    pub(super) fn since(&self, entry: usize, told: Told) -> Timestamp {
        let running_since = self.running_since[entry];
        match told {
            Told::ByArrival | Told::FromArrival => running_since.max(self.line.since()),
            Told::ByDevice => running_since,
        }
    }

    /// The era that times told so are of, where they are provisional.
    pub(super) fn era(&self, told: Told) -> Option<Era> {
        if told != Told::ByDevice && self.line.is_provisional() { self.era } else { None }
    }

    /// Whether one more series may be known; otherwise the reading is refused and counted.
    pub(super) fn has_room(&self, source: &str, device: &str) -> bool {
        let limit = self.rules.max_series;
        if self.known >= limit {
            if let Some(count) = self.stats.too_many_series.count() {
                tracing::error!(
                    source,
                    device,
                    limit,
                    count,
                    "reading refused: it would be one series too many"
                );
            }
        }
        self.known < limit
    }

    pub(super) fn admit(&mut self) {
        self.known += 1;
        self.stats.series.store(self.known as u64, Ordering::Relaxed);
    }

    fn forget(&mut self, series: usize) {
        self.known -= series;
        self.stats.series.store(self.known as u64, Ordering::Relaxed);
    }

    pub(super) fn wake_by(&mut self, deadline: Duration) {
        self.wake_at = Some(self.wake_at.map_or(deadline, |wake_at| wake_at.min(deadline)));
    }
}

impl Source {
    /// The one of that name, a new one where there is none yet. The file bounds how many there can be.
    pub(super) fn of<'s>(sources: &'s mut Vec<Self>, name: &str, rules: &Rules) -> &'s mut Self {
        let known = sources.iter().position(|source| *source.name == *name);
        let place = known.unwrap_or(sources.len());
        if known.is_none() {
            let (places, devices) = (HashMap::new(), Vec::new());
            let watched = rules.stale_after.iter().find(|(source, _)| **source == *name);
            let stale_after = watched.map(|(_, after)| *after);
            sources.push(Self { name: name.into(), places, devices, back_since: None, stale_after });
        }
        &mut sources[place]
    }

    fn close_all(&mut self, terms: &Terms, messages: &mut Vec<Message>) {
        for device in &mut self.devices {
            for told in Told::ALL {
                device.break_off(&self.name, told, terms.era(told), &terms.rules, messages);
            }
        }
    }

    /// The place of the device of that name, a new one where there is room for another series.
    pub(super) fn place(&mut self, device: &str, terms: &Terms) -> Option<usize> {
        if let Some(place) = self.places.get(device) {
            return Some(*place);
        }
        if !terms.has_room(&self.name, device) {
            return None;
        }
        let place = self.devices.len();
        self.places.insert(device.into(), place);
        self.devices.push(Device::new(device, self.back_since, self.stale_after));
        Some(place)
    }
}

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

use super::device::Device;
use super::passing::Passing;
use crate::filter;
use crate::model::{Message, Readings, Stamp, Timestamp};
use crate::tally::Tally;
use crate::window;

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
    /// Readings that filters held back.
    pub held_back: AtomicU64,
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
    pub(super) running_since: Box<[Timestamp]>,
    /// No window is due before this monotonic time.
    wake_at: Option<Duration>,
    known: usize,
    pub(super) stats: Arc<Stats>,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    places: HashMap<Box<str>, usize>,
    pub(super) devices: Vec<Device>,
}

impl SeriesTable {
    /// An empty table.
    #[must_use]
    pub fn new(rules: Rules, now: Stamp, stats: Arc<Stats>) -> Self {
        let running_since = rules.windows.iter().map(|_| now.wall).collect();
        let terms = Terms { rules, running_since, wake_at: None, known: 0, stats };
        Self { sources: Vec::new(), terms }
    }

    /// The same open windows under other rules. Windows that the rules cut no longer, or cut otherwise,
    /// are added to `messages` as partial. What has changed for an entry makes its open windows partial as well.
    #[must_use]
    pub fn under(self, rules: Rules, now: Stamp, messages: &mut Vec<Message>) -> Self {
        let mut table = Self::new(rules, now, self.terms.stats.clone());
        let (old, new) = (&self.terms.rules, &table.terms.rules);
        // An entry takes what its filters let through and no entry before it has taken.
        let as_before = old.windows.iter().zip(&new.windows).take_while(|(old, new)| old == new).count();
        let as_before = if old.filters == new.filters { as_before } else { 0 };
        table.terms.running_since[..as_before].copy_from_slice(&self.terms.running_since[..as_before]);
        let saved = self.save(None);
        if let Some(Err(error)) = saved.map(|saved| table.go_on(&saved, |_| true, now, messages)) {
            debug_assert!(false, "what was saved a moment ago can be read: {error}");
        }
        table
    }

    /// Forgets a source that is gone for good. Its open windows are added to `messages` as partial.
    pub fn forget(&mut self, source: &str, messages: &mut Vec<Message>) {
        let Self { sources, terms } = self;
        let Some(place) = sources.iter().position(|known| *known.name == *source) else { return };
        let mut source = sources.swap_remove(place);
        source.close_all(&terms.rules, messages);
        terms.forget(source.devices.iter().map(Device::series).sum());
    }

    /// Takes what a source brought, and adds the messages that come of it to `messages`.
    pub fn take(&mut self, source: &str, readings: &Readings, messages: &mut Vec<Message>) {
        let arrival = readings.arrival;
        self.close_due(arrival, messages);
        let Self { sources, terms } = self;
        let source = Source::of(sources, source);
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

    /// When [`SeriesTable::close_due`] has to be called next, in monotonic time; `None` while no window is open.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.terms.wake_at
    }

    /// Closes every open window, whether it is over or not.
    pub fn close_all(&mut self, messages: &mut Vec<Message>) {
        let Self { sources, terms } = self;
        terms.wake_at = None;
        sources.iter_mut().for_each(|source| source.close_all(&terms.rules, messages));
    }

    /// Closes the windows that `now` ends: those stamped at arrival by the clock, the others by their silence.
    pub fn close_due(&mut self, now: Stamp, messages: &mut Vec<Message>) {
        let Self { sources, terms } = self;
        if terms.wake_at.is_none_or(|wake_at| now.monotonic < wake_at) {
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
    pub(super) fn of<'s>(sources: &'s mut Vec<Self>, name: &str) -> &'s mut Self {
        let known = sources.iter().position(|source| *source.name == *name);
        let place = known.unwrap_or(sources.len());
        if known.is_none() {
            sources.push(Self { name: name.into(), places: HashMap::new(), devices: Vec::new() });
        }
        &mut sources[place]
    }

    fn close_all(&mut self, rules: &Rules, messages: &mut Vec<Message>) {
        self.devices.iter_mut().for_each(|device| device.close_all(&self.name, rules, messages));
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
        self.devices.push(Device::new(device));
        Some(place)
    }
}

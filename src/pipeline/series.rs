//! The table of all series, and the pure core of `process`: readings in, messages out, the time as an argument.
//!
//! A series is compiled once. Its first reading finds the filters and the window that match it; every later one is a
//! lookup and a walk down its own chain.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::passing::Passing;
use crate::filter::{self, Chain};
use crate::model::{Message, Reading, Readings, Stamp, Timestamp};
use crate::tally::Tally;
use crate::window::{self, Group, Owner, Taken};

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
    stats: Arc<Stats>,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    places: HashMap<Box<str>, usize>,
    pub(super) devices: Vec<Device>,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: Box<str>,
    /// A few as a rule, which are found sooner by their order than by a hash.
    series: BTreeMap<Box<str>, Series>,
    pub(super) groups: Vec<Windows>,
    /// The greatest device time seen.
    pub(super) watermark: Option<Timestamp>,
    /// Monotonic time of its last reading.
    pub(super) heard: Duration,
}

/// A device's windows under one entry, in one kind of time.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) entry: usize,
    pub(super) told: Told,
    pub(super) group: Group,
}

/// Who told the time of a reading, and so what closes its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) enum Told {
    /// The device: its own later readings close the window, or its silence.
    #[n(0)]
    ByDevice,
    /// Our clock, at arrival: the clock closes the window.
    #[n(1)]
    ByArrival,
}

#[derive(Debug)]
struct Series {
    chain: Chain,
    /// The `[[windows]]` entry that takes it.
    entry: Option<usize>,
    /// Its group and column in its device, by [`Told`], once it had a reading of that kind.
    places: [Option<(usize, usize)>; 2],
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
        terms.forget(source.devices.iter().map(|device| device.series.len()).sum());
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
    fn has_room(&self, source: &str, device: &str) -> bool {
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

    fn admit(&mut self) {
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
        for Device { name, groups, .. } in &mut self.devices {
            for windows in groups {
                let entry = &rules.windows[windows.entry];
                let owner = Owner { source: &self.name, device: name, window: &entry.name };
                messages.extend(windows.group.summaries(&entry.shape, owner));
                windows.group = Group::new();
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
        self.devices.push(Device {
            name: device.into(),
            series: BTreeMap::new(),
            groups: Vec::new(),
            watermark: None,
            heard: Duration::ZERO,
        });
        Some(place)
    }
}

impl Device {
    /// Takes a reading. Gives its time where it is to be passed through.
    fn take(
        &mut self,
        source: &str,
        reading: &Reading<'_>,
        arrival: Stamp,
        terms: &mut Terms,
        messages: &mut Vec<Message>,
    ) -> Option<Timestamp> {
        self.heard = arrival.monotonic;
        self.come_back(source, arrival, terms, messages);
        let (time, told) = self.time(source, reading, arrival, terms);
        if told == Told::ByDevice && self.watermark.is_none_or(|watermark| watermark < time) {
            self.watermark = Some(time);
            self.close_passed(source, time, arrival.synced, terms, messages);
        }
        let Self { name, series, groups, watermark, .. } = self;
        let known = match series.get_mut(reading.metric) {
            Some(known) => known,
            None => {
                if !terms.has_room(source, reading.device) {
                    return None;
                }
                terms.admit();
                let compiled = Series::compile(&terms.rules, reading);
                series.entry(reading.metric.into()).or_insert(compiled)
            }
        };
        if !known.chain.passes(&reading.value) {
            terms.stats.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let Some(entry) = known.entry else { return Some(time) };
        let window = &terms.rules.windows[entry];
        let (group, column) = *known.places[told as usize].get_or_insert_with(|| {
            let found = groups.iter().position(|windows| windows.entry == entry && windows.told == told);
            let group = found.unwrap_or_else(|| {
                let mut group = Group::new();
                if let (Told::ByDevice, Some(watermark)) = (told, *watermark) {
                    group.advance(window.shape.closed_at(watermark));
                }
                groups.push(Windows { entry, told, group });
                groups.len() - 1
            });
            (group, groups[group].group.column(reading.metric, reading.unit))
        });
        let windows = &mut groups[group];
        let was_idle = windows.group.is_idle();
        match windows.group.add(&window.shape, column, time, reading.value, arrival.synced) {
            Taken::Yes => {}
            Taken::Late => {
                if let Some(count) = terms.stats.late.count() {
                    let (device, window) = (&**name, &*window.name);
                    tracing::error!(
                        source,
                        device,
                        window,
                        count,
                        "reading refused: its window is closed already"
                    );
                }
            }
            Taken::NoNumber => {
                if let Some(count) = terms.stats.no_number.count() {
                    let (device, metric, window) = (&**name, reading.metric, &*window.name);
                    tracing::error!(
                        source,
                        device,
                        metric,
                        window,
                        count,
                        "reading refused: it is no number, and the window's aggregates take nothing else"
                    );
                }
            }
        }
        let keep_readings = window.keep_readings;
        if was_idle {
            if let Some(deadline) = windows.deadline(&window.shape, self.heard, arrival) {
                terms.wake_by(deadline);
            }
        }
        keep_readings.then_some(time)
    }

    /// The reading's time, and who told it.
    fn time(&self, source: &str, reading: &Reading<'_>, arrival: Stamp, terms: &Terms) -> (Timestamp, Told) {
        let Some(time) = reading.time else { return (arrival.wall, Told::ByArrival) };
        if arrival.synced && time > arrival.wall.after(terms.rules.max_ahead) {
            if let Some(count) = terms.stats.ahead.count() {
                let device = &*self.name;
                tracing::warn!(
                    source, device, count, ahead = ?time.since(arrival.wall),
                    "the device's time lies too far ahead; arrival takes its place"
                );
            }
            return (arrival.wall, Told::ByArrival);
        }
        (time, Told::ByDevice)
    }

    /// Forgets a watermark that lies too far ahead of a clock that is trusted: it was set while there was none.
    fn come_back(&mut self, source: &str, arrival: Stamp, terms: &Terms, messages: &mut Vec<Message>) {
        let latest = arrival.wall.after(terms.rules.max_ahead);
        if !arrival.synced || self.watermark.is_none_or(|watermark| watermark <= latest) {
            return;
        }
        self.watermark = None;
        for windows in self.groups.iter_mut().filter(|windows| windows.told == Told::ByDevice) {
            let entry = &terms.rules.windows[windows.entry];
            let owner = Owner { source, device: &self.name, window: &entry.name };
            windows.group.close_all(&entry.shape, owner, terms.running_since[windows.entry], true, messages);
            windows.group.rewind();
        }
    }

    /// Closes what the device's own time has passed.
    fn close_passed(
        &mut self,
        source: &str,
        time: Timestamp,
        synced: bool,
        terms: &Terms,
        messages: &mut Vec<Message>,
    ) {
        for windows in self.groups.iter_mut().filter(|windows| windows.told == Told::ByDevice) {
            let entry = &terms.rules.windows[windows.entry];
            let until = entry.shape.closed_at(time);
            windows.group.advance(until);
            if windows.group.first_end(&entry.shape).is_some_and(|end| end <= until) {
                let owner = Owner { source, device: &self.name, window: &entry.name };
                windows.group.close(
                    &entry.shape,
                    owner,
                    until,
                    terms.running_since[windows.entry],
                    synced,
                    messages,
                );
            }
        }
    }

    fn close_due(&mut self, source: &str, now: Stamp, terms: &mut Terms, messages: &mut Vec<Message>) {
        for windows in self.groups.iter_mut().filter(|windows| !windows.group.is_idle()) {
            let entry = &terms.rules.windows[windows.entry];
            let owner = Owner { source, device: &self.name, window: &entry.name };
            match windows.told {
                Told::ByArrival => {
                    let until = entry.shape.closed_at(now.wall);
                    windows.group.close(
                        &entry.shape,
                        owner,
                        until,
                        terms.running_since[windows.entry],
                        now.synced,
                        messages,
                    );
                }
                Told::ByDevice if now.monotonic >= self.heard + entry.shape.silence() => {
                    windows.group.close_all(
                        &entry.shape,
                        owner,
                        terms.running_since[windows.entry],
                        now.synced,
                        messages,
                    );
                }
                Told::ByDevice => {}
            }
            if let Some(deadline) = windows.deadline(&entry.shape, self.heard, now) {
                terms.wake_by(deadline);
            }
        }
    }
}

impl Windows {
    /// The monotonic time at which its first window is due, as far as one can tell now; `None` while none is open.
    pub(super) fn deadline(&self, shape: &window::Shape, heard: Duration, now: Stamp) -> Option<Duration> {
        let end = self.group.first_end(shape)?;
        Some(match self.told {
            Told::ByArrival => now.monotonic + end.after(shape.lateness()).since(now.wall),
            Told::ByDevice => heard + shape.silence(),
        })
    }
}

impl Series {
    fn compile(rules: &Rules, reading: &Reading<'_>) -> Self {
        let (device, metric) = (reading.device, reading.metric);
        Self {
            chain: Chain::of(&rules.filters, device, metric),
            entry: rules.windows.iter().position(|window| window.pattern.matches(device, metric)),
            places: [None; 2],
        }
    }
}

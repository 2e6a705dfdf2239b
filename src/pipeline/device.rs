//! One device of a source: its series, their filters and windows, and how far its own time has come.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::passing::Passed;
use super::series::{Rules, Terms};
use super::staleness::Heard;
use crate::filter::Chain;
use crate::model::{Body, Era, Message, Reading, Stamp, Time, Timestamp};
use crate::window::{self, Group, Owner, Taken};

/// The times, in milliseconds, that a device's clock may well tell: 2000 to 2200.
const LIKELY: Range<i64> = 946_684_800_000..7_258_118_400_000;

#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: Box<str>,
    /// A few as a rule, which are found sooner by their order than by a hash.
    pub(super) series: BTreeMap<Box<str>, Series>,
    pub(super) groups: Vec<Windows>,
    /// The greatest device time seen.
    pub(super) watermark: Option<Timestamp>,
    /// The greatest time seen that was told from arrival, on the line of arrival times as it lies now.
    pub(super) from_arrival: Option<Timestamp>,
    /// Monotonic time of its last reading.
    pub(super) heard: Duration,
    /// Windows that start earlier may have been sent already; see [`super::series::Source`].
    back_since: Timestamp,
    /// `stale_after` of its source.
    pub(super) stale_after: Option<Duration>,
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
    /// The device, as so long before arrival, while our clock is not trusted: the time lies on the line of arrival times
    /// and is put right with it. Its later readings close the window, or its silence: by the clock a window of an hour
    /// ago would be closed before the rest of its readings has come.
    #[n(2)]
    FromArrival,
}

impl Told {
    pub(super) const ALL: [Self; 3] = [Self::ByDevice, Self::ByArrival, Self::FromArrival];

    /// Those that lie on the line of arrival times, and break where it does.
    pub(super) const ON_LINE: [Self; 2] = [Self::ByArrival, Self::FromArrival];
}

#[derive(Debug)]
pub(super) struct Series {
    chain: Chain,
    /// The `[[windows]]` entry that takes it.
    entry: Option<usize>,
    /// Its group and column in its device, by [`Told`], once it had a reading of that kind.
    places: [Option<(usize, usize)>; Told::ALL.len()],
    /// Its last reading, where its source has `stale_after`.
    pub(super) heard: Option<Box<Heard>>,
}

impl Device {
    /// One without series, of a source that has been back since then, where it was gone.
    pub(super) fn new(name: &str, back_since: Option<Timestamp>, stale_after: Option<Duration>) -> Self {
        Self {
            name: name.into(),
            series: BTreeMap::new(),
            groups: Vec::new(),
            watermark: None,
            from_arrival: None,
            heard: Duration::ZERO,
            back_since: back_since.unwrap_or(Timestamp(i64::MIN)),
            stale_after,
        }
    }

    /// How many series it has.
    pub(super) fn series(&self) -> usize {
        self.series.len()
    }

    /// Takes a reading. Gives its time where it is to be passed through.
    pub(super) fn take(
        &mut self,
        source: &str,
        reading: &Reading<'_>,
        arrival: Stamp,
        terms: &mut Terms,
        messages: &mut Vec<Message>,
    ) -> Option<Passed> {
        self.heard = arrival.monotonic;
        self.come_back(source, arrival, terms, messages);
        let (time, told) = self.time(source, reading, arrival, terms);
        let ahead = told == Told::ByArrival && reading.time.is_some();
        let passed = Passed { time, era: terms.era(told), ahead };
        if told != Told::ByArrival && self.watermark(told).is_none_or(|watermark| watermark < time) {
            *self.watermark(told) = Some(time);
            self.close_passed(source, told, time, arrival.synced, terms, messages);
        }
        let watermark = *self.watermark(told);
        let Self { name, series, groups, stale_after, .. } = self;
        let known = match series.get_mut(reading.metric) {
            Some(known) => known,
            None => {
                if !terms.has_room(source, reading.device) {
                    return None;
                }
                terms.admit();
                let compiled = Series::compile(&terms.rules, reading.device, reading.metric);
                series.entry(reading.metric.into()).or_insert(compiled)
            }
        };
        if let Some(after) = *stale_after {
            // Whatever the filters make of it: the sensor is alive.
            let heard = Heard::now(arrival, passed);
            match &mut known.heard {
                Some(before) => **before = heard,
                None => known.heard = Some(Box::new(heard)),
            }
            terms.stale.look_by(arrival.monotonic, after);
        }
        if !known.chain.passes(&reading.value) {
            terms.stats.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let Some(entry) = known.entry else { return Some(passed) };
        let window = &terms.rules.windows[entry];
        let (group, column) = *known.places[told as usize].get_or_insert_with(|| {
            let found = groups.iter().position(|windows| windows.entry == entry && windows.told == told);
            let group = found.unwrap_or_else(|| {
                let group = match (told, watermark) {
                    (Told::ByArrival, _) => Group::after(terms.sent_before.clone()),
                    (_, None) => Group::new(),
                    (_, Some(watermark)) => {
                        let mut group = Group::new();
                        group.advance(window.shape.closed_at(watermark));
                        group
                    }
                };
                groups.push(Windows { entry, told, group });
                groups.len() - 1
            });
            (group, groups[group].group.column(reading.metric, reading.unit))
        });
        let windows = &mut groups[group];
        let was_idle = windows.group.is_idle();
        match windows.group.add(&window.shape, column, time, reading.value, arrival.synced) {
            Taken::Yes if ahead => windows.group.was_ahead(),
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
        keep_readings.then_some(passed)
    }

    /// The reading's time, and who told it.
    fn time(&self, source: &str, reading: &Reading<'_>, arrival: Stamp, terms: &Terms) -> (Timestamp, Told) {
        let Some(told) = reading.time else { return (arrival.wall, Told::ByArrival) };
        let (time, from_arrival) = (told.of(arrival.wall), matches!(told, Time::FromArrival(_)));
        // How far ahead of its arrival it lies needs no trusted clock where it was told from there.
        if (arrival.synced || from_arrival) && time > arrival.wall.after(terms.rules.max_ahead) {
            if let Some(count) = terms.stats.ahead.count() {
                let device = &*self.name;
                tracing::warn!(
                    source, device, count, ahead = ?time.since(arrival.wall),
                    "the device's time lies too far ahead; arrival takes its place"
                );
            }
            return (arrival.wall, Told::ByArrival);
        }
        if !from_arrival && !LIKELY.contains(&time.0) {
            if let Some(count) = terms.stats.unlikely.count() {
                let (device, time) = (&*self.name, time.0);
                tracing::warn!(
                    source,
                    device,
                    count,
                    time,
                    "the device's time lies before 2000 or after 2200: check `time_unit`; it is kept as it is"
                );
            }
        }
        (time, if from_arrival && terms.line.is_provisional() { Told::FromArrival } else { Told::ByDevice })
    }

    /// The greatest time seen that was told so. None is kept by arrival: what is saved of it is that of the device.
    pub(super) fn watermark(&mut self, told: Told) -> &mut Option<Timestamp> {
        match told {
            Told::FromArrival => &mut self.from_arrival,
            Told::ByDevice | Told::ByArrival => &mut self.watermark,
        }
    }

    /// Forgets a watermark that lies too far ahead of a clock that is trusted: it was set while there was none.
    fn come_back(&mut self, source: &str, arrival: Stamp, terms: &Terms, messages: &mut Vec<Message>) {
        let latest = arrival.wall.after(terms.rules.max_ahead);
        if !arrival.synced || self.watermark.is_none_or(|watermark| watermark <= latest) {
            return;
        }
        self.break_off(source, Told::ByDevice, None, &terms.rules, messages);
        self.rewind(Told::ByDevice);
    }

    /// Closes what the device has passed, in windows by times told so.
    fn close_passed(
        &mut self,
        source: &str,
        told: Told,
        time: Timestamp,
        synced: bool,
        terms: &Terms,
        messages: &mut Vec<Message>,
    ) {
        for at in 0..self.groups.len() {
            let windows = &mut self.groups[at];
            if windows.told != told {
                continue;
            }
            let entry = &terms.rules.windows[windows.entry];
            let until = entry.shape.closed_at(time);
            windows.group.advance(until);
            if windows.group.first_end(&entry.shape).is_some_and(|end| end <= until) {
                let era = terms.era(told);
                let owner = Owner { source, device: &self.name, window: &entry.name, era };
                let since = terms.since(windows.entry, told).max(self.back_since);
                let before = messages.len();
                windows.group.close(&entry.shape, owner, until, since, synced, messages);
                self.mark_shared(at, &mut messages[before..]);
            }
        }
    }

    /// Has windows say partial that have only a part of their readings, as the device told the time of some and not of
    /// others: each kind has a message of its own.
    fn mark_shared(&self, at: usize, messages: &mut [Message]) {
        let Some(Windows { entry, told, .. }) = self.groups.get(at) else { return };
        for other in self.groups.iter().filter(|other| other.entry == *entry && other.told != *told) {
            for message in &mut *messages {
                if let Body::Window { start, partial, .. } = &mut message.body {
                    *partial |= other.group.has(*start);
                }
            }
        }
    }

    /// Closes every window that is open by times told so, as partial.
    pub(super) fn break_off(
        &mut self,
        source: &str,
        told: Told,
        era: Option<Era>,
        rules: &Rules,
        messages: &mut Vec<Message>,
    ) {
        for windows in self.groups.iter_mut().filter(|windows| windows.told == told) {
            let entry = &rules.windows[windows.entry];
            let owner = Owner { source, device: &self.name, window: &entry.name, era };
            windows.group.break_off(&entry.shape, owner, messages);
        }
    }

    /// Lets windows by times told so be opened again.
    pub(super) fn rewind(&mut self, told: Told) {
        if told != Told::ByArrival {
            *self.watermark(told) = None;
        }
        self.groups
            .iter_mut()
            .filter(|windows| windows.told == told)
            .for_each(|windows| windows.group.rewind());
    }

    /// The end of the last window by arrival that was sent and over by `now`, about.
    pub(super) fn last_end(&self, now: Timestamp) -> Option<Timestamp> {
        let by_arrival = self.groups.iter().filter(|windows| windows.told == Told::ByArrival);
        by_arrival.filter_map(|windows| windows.group.last_end(now)).max()
    }

    /// Closes the windows that `now` ends: those stamped at arrival by the clock, the others by their silence.
    pub(super) fn close_due(
        &mut self,
        source: &str,
        now: Stamp,
        terms: &mut Terms,
        messages: &mut Vec<Message>,
    ) {
        for at in 0..self.groups.len() {
            let windows = &mut self.groups[at];
            if windows.group.is_idle() {
                continue;
            }
            let entry = &terms.rules.windows[windows.entry];
            let (told, before) = (windows.told, messages.len());
            let since = terms.since(windows.entry, told).max(self.back_since);
            let owner = Owner { source, device: &self.name, window: &entry.name, era: terms.era(told) };
            match told {
                Told::ByArrival => {
                    let until = entry.shape.closed_at(now.wall);
                    windows.group.close(&entry.shape, owner, until, since, now.synced, messages);
                }
                Told::ByDevice | Told::FromArrival if now.monotonic >= self.heard + entry.shape.silence() => {
                    windows.group.close_all(&entry.shape, owner, since, now.synced, messages);
                }
                Told::ByDevice | Told::FromArrival => {}
            }
            let deadline = windows.deadline(&entry.shape, self.heard, now);
            self.mark_shared(at, &mut messages[before..]);
            if let Some(deadline) = deadline {
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
            Told::ByDevice | Told::FromArrival => heard + shape.silence(),
        })
    }
}

impl Series {
    pub(super) fn compile(rules: &Rules, device: &str, metric: &str) -> Self {
        Self {
            chain: Chain::of(&rules.filters, device, metric),
            entry: rules.windows.iter().position(|window| window.pattern.matches(device, metric)),
            places: [None; Told::ALL.len()],
            heard: None,
        }
    }
}

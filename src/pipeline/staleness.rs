//! Series that fell silent, of sources that have `stale_after`: each is told once, until it speaks again.
//!
//! Silence is measured in monotonic time, so that no step of the clock makes anything stale. It is looked for only while
//! nothing waits to be taken, and not at once where `process` was held up: what a source brought meanwhile comes first.
//! A reading costs a few words written in its place; a look costs a walk over the series, once a silence at most.
//!
//! A series is told after the last window that has readings of it, so that nothing of before the silence comes after it.
//! Nothing is told of a source that is taken out of the file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::device::{Device, Series};
use super::passing::{Passed, TOGETHER_MAX};
use super::series::{SeriesTable, Source, Terms};
use crate::model::{Body, Era, Message, Metric, Stamp, Timestamp, Value};

/// What fell silent within so much of each other is told together: a sixteenth of `stale_after`, at most this. By as
/// much it is told later than after `stale_after`.
const TOGETHER_WITHIN: Duration = Duration::from_secs(10);

/// A look that comes so late was held up. Then sources are given as long to bring what they could not bring.
const HELD_UP: Duration = Duration::from_secs(1);

/// The last reading of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// In monotonic time.
    at: Duration,
    /// What it says of itself.
    time: Timestamp,
    era: Option<Era>,
    synced: bool,
    /// Whether the silence since then has been told.
    told: bool,
}

impl Heard {
    /// A reading that has just arrived.
    pub(super) fn now(arrival: Stamp, Passed { time, era, .. }: Passed) -> Self {
        Self { at: arrival.monotonic, time, era, synced: arrival.synced, told: false }
    }
}

/// When to look for silence.
#[derive(Debug, Default)]
pub(super) struct Watch(Option<Duration>);

impl Watch {
    /// The monotonic time of the next look.
    pub(super) fn at(&self) -> Option<Duration> {
        self.0
    }

    /// Looks no later than what was heard then may have been silent for too long.
    pub(super) fn look_by(&mut self, heard: Duration, stale_after: Duration) {
        self.look_at(heard + stale_after + (stale_after / 16).min(TOGETHER_WITHIN));
    }

    fn look_at(&mut self, at: Duration) {
        self.0 = Some(self.0.map_or(at, |before| before.min(at)));
    }

    /// Whether to look now.
    fn is_due(&mut self, now: Duration) -> bool {
        match self.0 {
            Some(at) if now >= at + HELD_UP => self.0 = Some(now + HELD_UP),
            Some(at) if now >= at => {
                self.0 = None;
                return true;
            }
            _ => {}
        }
        false
    }
}

/// A series that is waited for, over a restart or a reload.
#[derive(Encode, Decode)]
pub(super) struct SavedHeard {
    #[n(0)]
    source: String,
    #[n(1)]
    device: String,
    #[n(2)]
    metric: String,
    #[n(3)]
    time: Timestamp,
    #[n(4)]
    era: Option<Era>,
    #[n(5)]
    synced: bool,
    /// For how long it has been silent, in milliseconds; it does not count on over a restart.
    #[n(6)]
    silent: u64,
}

impl SeriesTable {
    /// Tells which series have been silent for too long.
    pub(super) fn tell_stale(&mut self, now: Stamp, messages: &mut Vec<Message>) {
        let Self { sources, terms } = self;
        if !terms.stale.is_due(now.monotonic) {
            return;
        }
        let before = messages.len();
        for Source { name, devices, stale_after, .. } in sources {
            let Some(after) = *stale_after else { continue };
            for device in devices {
                device.tell_stale(name, after, now, terms, messages);
            }
        }
        terms.stats.messages.fetch_add((messages.len() - before) as u64, Ordering::Relaxed);
    }

    /// The series that are waited for, where there are any.
    pub(super) fn saved_heard(&self) -> Option<Vec<SavedHeard>> {
        let now = self.terms.line.last().monotonic;
        let mut saved = Vec::new();
        for source in &self.sources {
            for device in &source.devices {
                for (metric, series) in &device.series {
                    let Some(heard) = series.heard.as_ref().filter(|heard| !heard.told) else { continue };
                    let silent = now.saturating_sub(heard.at).as_millis();
                    saved.push(SavedHeard {
                        source: source.name.to_string(),
                        device: device.name.to_string(),
                        metric: metric.to_string(),
                        time: heard.time,
                        era: heard.era,
                        synced: heard.synced,
                        silent: u64::try_from(silent).unwrap_or(u64::MAX),
                    });
                }
            }
        }
        (!saved.is_empty()).then_some(saved)
    }

    /// Waits for the series that were waited for, as far as their sources still have `stale_after`.
    pub(super) fn wait_again(&mut self, saved: Option<Vec<SavedHeard>>, now: Stamp) {
        let Self { sources, terms } = self;
        for saved in saved.unwrap_or_default() {
            let source = Source::of(sources, &saved.source, &terms.rules);
            let Some(after) = source.stale_after else { continue };
            let Some(place) = source.place(&saved.device, terms) else { continue };
            let at = now.monotonic.saturating_sub(Duration::from_millis(saved.silent));
            let heard = Heard { at, time: saved.time, era: saved.era, synced: saved.synced, told: false };
            source.devices[place].wait_for(&saved.source, &saved.metric, heard, terms);
            terms.stale.look_by(at, after);
        }
    }
}

impl Device {
    fn tell_stale(
        &mut self,
        source: &str,
        after: Duration,
        now: Stamp,
        terms: &mut Terms,
        messages: &mut Vec<Message>,
    ) {
        let Self { name, series, groups, heard: device_heard, .. } = self;
        let first = messages.len();
        for (metric, series) in series {
            let Some(heard) = series.heard.as_mut().filter(|heard| !heard.told) else { continue };
            if now.monotonic < heard.at + after {
                terms.stale.look_by(heard.at, after);
                continue;
            }
            let open = groups.iter().find(|windows| windows.group.holds(metric));
            if let Some(windows) = open {
                let shape = &terms.rules.windows[windows.entry].shape;
                let closes = windows.deadline(shape, *device_heard, now).unwrap_or_default();
                terms.stale.look_at(closes.max(now.monotonic + HELD_UP));
                continue;
            }
            heard.told = true;
            if let Some(count) = terms.stats.stale.count() {
                tracing::warn!(source, device = &**name, metric = &**metric, count, "fell silent");
            }
            add(&mut *messages, first, source, name, metric, heard);
        }
    }

    fn wait_for(&mut self, source: &str, metric: &str, heard: Heard, terms: &mut Terms) {
        if !self.series.contains_key(metric) {
            if !terms.has_room(source, &self.name) {
                return;
            }
            terms.admit();
            self.series.insert(metric.into(), Series::compile(&terms.rules, &self.name, metric));
        }
        if let Some(series) = self.series.get_mut(metric) {
            series.heard = Some(Box::new(heard));
        }
    }
}

/// Puts a series into the message of those that fell silent with it, whose times are told alike.
fn add(messages: &mut Vec<Message>, first: usize, source: &str, device: &str, metric: &str, heard: &Heard) {
    let metric = Metric {
        name: metric.into(),
        unit: None,
        fields: vec![(Metric::LAST.into(), Value::Int(heard.time.0))],
    };
    let fits = |message: &&mut Message| {
        (message.era, message.synced) == (heard.era, heard.synced) && message.metrics.len() < TOGETHER_MAX
    };
    match messages[first..].iter_mut().find(fits) {
        Some(message) => {
            message.body = Body::Values { time: message.range().1.max(heard.time) };
            message.metrics.push(metric);
        }
        None => messages.push(Message {
            source: source.into(),
            device: device.into(),
            body: Body::Values { time: heard.time },
            metrics: vec![metric],
            readings: 0,
            synced: heard.synced,
            era: heard.era,
            ahead: None,
            told: None,
            stale: Some(true),
        }),
    }
}

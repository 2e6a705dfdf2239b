//! The windows of one device under one `[[windows]]` entry.
//!
//! A group holds the windows that are open, one row of aggregates for each series in each, and the time up to which
//! windows are closed. It is told how far time has come and answers with messages; it never asks.

use std::borrow::Cow;

use minicbor::{Decode, Encode};

use super::Shape;
use super::aggregate::State;
use super::sent::Sent;
use crate::model::{Body, Era, Message, Metric, Timestamp, Value};

/// The most windows of a group that are open at once.
pub(super) const OPEN_MAX: usize = 1_000;

/// Whose windows they are: what each of their messages says.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The device's name.
    pub device: &'a str,
    /// The name of the `[[windows]]` entry.
    pub window: &'a str,
    /// The era whose times they are cut by, where the clock is not trusted.
    pub era: Option<Era>,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in its window.
    Yes,
    /// Its window is closed already.
    Late,
    /// None of the window's aggregates takes such a value.
    NoNumber,
}

/// The windows of one device under one entry.
#[derive(Debug, Encode, Decode)]
pub struct Group {
    #[n(0)]
    columns: Vec<Column>,
    /// In the order of their start; one or two as a rule.
    #[n(1)]
    open: Vec<Open>,
    /// Windows that end here or before take nothing more.
    #[n(2)]
    closed_until: Option<Timestamp>,
    #[n(3)]
    late: u64,
    #[cbor(n(4), default)]
    sent: Sent,
    /// How many readings bore a time too far ahead since the last message.
    #[cbor(n(5), default)]
    ahead: u64,
    /// Windows that were closed, kept for their memory.
    #[cbor(skip)]
    spare: Vec<Open>,
}

/// A series of the group: its place in every open window's row.
#[derive(Debug, Encode, Decode)]
struct Column {
    #[n(0)]
    metric: Box<str>,
    #[n(1)]
    unit: Option<Box<str>>,
}

#[derive(Debug, Default, Encode, Decode)]
struct Open {
    #[n(0)]
    start: Timestamp,
    #[n(1)]
    readings: u64,
    /// Whether the clock was trusted at every reading so far.
    #[n(2)]
    synced: bool,
    /// By column: how many readings, and its aggregates' states.
    #[n(3)]
    cells: Vec<Cell>,
}

#[derive(Debug, Encode, Decode)]
struct Cell {
    #[n(0)]
    readings: u64,
    #[n(1)]
    states: Vec<State>,
}

impl Group {
    /// No window open, none closed.
    #[must_use]
    pub fn new() -> Self {
        let (columns, open, spare) = (Vec::new(), Vec::new(), Vec::new());
        Self { columns, open, closed_until: None, late: 0, sent: Sent::default(), ahead: 0, spare }
    }

    /// No window open, but those may have been sent.
    #[must_use]
    pub fn after(sent: Sent) -> Self {
        Self { sent, ..Self::new() }
    }

    /// What was sent, with what would be if its open windows were closed now.
    #[must_use]
    pub fn sent(&self, shape: &Shape) -> Sent {
        let mut sent = self.sent.clone();
        self.open.iter().for_each(|open| sent.add(open.start, shape.end_of(open.start)));
        sent
    }

    /// The place of a series; a new one is made for a metric that has none.
    pub fn column(&mut self, metric: &str, unit: Option<&str>) -> usize {
        if let Some(known) = self.columns.iter().position(|column| &*column.metric == metric) {
            return known;
        }
        self.columns.push(Column { metric: metric.into(), unit: unit.map(Into::into) });
        self.columns.len() - 1
    }

    /// Puts a reading of the series at `column` into its window, which opens if need be.
    pub fn add(
        &mut self,
        shape: &Shape,
        column: usize,
        time: Timestamp,
        value: Value<&str>,
        synced: bool,
    ) -> Taken {
        let at = match self.open.last() {
            // A reading is of the newest window as a rule.
            Some(newest) if newest.start <= time && time < shape.end_of(newest.start) => self.open.len() - 1,
            _ => {
                let start = shape.start_of(time);
                let is_closed = self.closed_until.is_some_and(|closed| shape.end_of(start) <= closed);
                // With a watermark no more can be open than lateness has room for: this only guards memory.
                let is_full =
                    self.open.len() >= OPEN_MAX && !self.open.iter().any(|open| open.start == start);
                if is_closed || is_full {
                    self.late += 1;
                    return Taken::Late;
                }
                self.window(start)
            }
        };
        let open = &mut self.open[at];
        while open.cells.len() <= column {
            open.cells
                .push(Cell { readings: 0, states: shape.aggregates().iter().map(|a| a.start()).collect() });
        }
        let cell = &mut open.cells[column];
        let mut taken = false;
        for state in &mut cell.states {
            taken |= state.add(time, value);
        }
        if !taken {
            return Taken::NoNumber;
        }
        cell.readings += 1;
        open.readings += 1;
        open.synced &= synced;
        Taken::Yes
    }

    /// The place of the window that starts at `start`, which opens if need be.
    fn window(&mut self, start: Timestamp) -> usize {
        match self.open.binary_search_by_key(&start, |open| open.start) {
            Ok(at) => at,
            Err(at) => {
                let mut fresh = self.spare.pop().unwrap_or_default();
                (fresh.start, fresh.synced) = (start, true);
                self.open.insert(at, fresh);
                at
            }
        }
    }

    /// Notes that time has come so far that windows that end at `until` or before take nothing more. Those that are
    /// open stay so until [`Group::close`].
    pub fn advance(&mut self, until: Timestamp) {
        self.closed_until = self.closed_until.max(Some(until));
    }

    /// Notes that the reading just taken bore a time too far ahead, which that of its arrival took the place of.
    pub fn was_ahead(&mut self) {
        self.ahead += 1;
    }

    /// Forgets how far time had come: it goes on from elsewhere. Windows that are sent again say partial.
    pub fn rewind(&mut self) {
        self.sent.go_back();
        self.closed_until = None;
    }

    /// Whether the window that starts at `start` is open, or may have been sent.
    #[must_use]
    pub fn has(&self, start: Timestamp) -> bool {
        self.sent.has(start) || self.open.iter().any(|open| open.start == start)
    }

    /// Whether a window is open that has readings of `metric`.
    #[must_use]
    pub fn holds(&self, metric: &str) -> bool {
        let column = self.columns.iter().position(|column| &*column.metric == metric);
        let cells = |column| self.open.iter().filter_map(move |open| open.cells.get(column));
        column.is_some_and(|column| cells(column).any(|cell| cell.readings > 0))
    }

    /// The end of the last window that was sent and over by `now`, about.
    #[must_use]
    pub fn last_end(&self, now: Timestamp) -> Option<Timestamp> {
        self.sent.last_end(now)
    }

    /// The end of the window that ends first, where one is open.
    #[must_use]
    pub fn first_end(&self, shape: &Shape) -> Option<Timestamp> {
        self.open.first().map(|open| shape.end_of(open.start))
    }

    /// Closes every window that ends at `until` or before, in order. What `until` lies in the middle of stays open.
    ///
    /// `running_since` and `synced` say since when the agent has run and whether the clock is trusted by now: a
    /// window that saw only a part of either is partial.
    pub fn close(
        &mut self,
        shape: &Shape,
        owner: Owner<'_>,
        until: Timestamp,
        running_since: Timestamp,
        synced: bool,
        messages: &mut Vec<Message>,
    ) {
        let due = self.open.iter().take_while(|open| shape.end_of(open.start) <= until).count();
        self.send(shape, owner, due, messages, |open| open.start < running_since || (synced && !open.synced));
        self.advance(until);
    }

    /// Closes every open window as partial, as time goes on otherwise from here. Those may be opened again.
    pub fn break_off(&mut self, shape: &Shape, owner: Owner<'_>, messages: &mut Vec<Message>) {
        self.send(shape, owner, self.open.len(), messages, |_| true);
        self.sent.go_back();
    }

    /// Sends the first `count` open windows, in order.
    fn send(
        &mut self,
        shape: &Shape,
        owner: Owner<'_>,
        count: usize,
        messages: &mut Vec<Message>,
        is_partial: impl Fn(&Open) -> bool,
    ) {
        for mut open in self.open.drain(..count) {
            let (start, end) = (open.start, shape.end_of(open.start));
            let partial = is_partial(&open) || self.sent.again(start);
            let counts = (self.late, self.ahead);
            if let Some(message) = summary(&self.columns, shape, owner, &open, partial, counts) {
                (self.late, self.ahead) = (0, 0);
                self.sent.add(start, end);
                messages.push(message);
            }
            if self.spare.len() < 2 {
                open.clear(shape);
                self.spare.push(open);
            }
        }
    }

    /// Closes every open window, as the device fell silent or the windows cannot go on.
    pub fn close_all(
        &mut self,
        shape: &Shape,
        owner: Owner<'_>,
        running_since: Timestamp,
        synced: bool,
        messages: &mut Vec<Message>,
    ) {
        if let Some(last) = self.open.last() {
            let until = shape.end_of(last.start);
            self.close(shape, owner, until, running_since, synced, messages);
        }
    }

    /// What its open windows would say if they were closed now, as partial; they stay open.
    #[must_use]
    pub fn summaries(&self, shape: &Shape, owner: Owner<'_>) -> Vec<Message> {
        let counts = std::iter::once((self.late, self.ahead)).chain(std::iter::repeat((0, 0)));
        let told = self.open.iter().zip(counts);
        told.filter_map(|(open, counts)| summary(&self.columns, shape, owner, open, true, counts)).collect()
    }

    /// Whether no window is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether it was filled under the same aggregates, so that it can go on under `shape` after a restart.
    #[must_use]
    pub fn fits(&self, shape: &Shape) -> bool {
        let fresh: Vec<_> = shape.aggregates().iter().map(|aggregate| aggregate.start()).collect();
        let same = |cell: &Cell| {
            cell.states.len() == fresh.len()
                && cell
                    .states
                    .iter()
                    .zip(&fresh)
                    .all(|(a, b)| std::mem::discriminant(a) == std::mem::discriminant(b))
        };
        self.open.iter().all(|open| {
            shape.start_of(open.start) == open.start
                && open.cells.len() <= self.columns.len()
                && open.cells.iter().all(same)
        })
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl Open {
    fn clear(&mut self, shape: &Shape) {
        self.readings = 0;
        for cell in &mut self.cells {
            cell.readings = 0;
            for (state, aggregate) in cell.states.iter_mut().zip(shape.aggregates()) {
                *state = aggregate.start();
            }
        }
    }
}

fn summary(
    columns: &[Column],
    shape: &Shape,
    owner: Owner<'_>,
    open: &Open,
    partial: bool,
    (late, ahead): (u64, u64),
) -> Option<Message> {
    let metric = |(column, cell): (&Column, &Cell)| {
        let named = shape.aggregates().iter().zip(&cell.states);
        let fields =
            named.filter_map(|(aggregate, state)| Some((Cow::Borrowed(aggregate.name()), state.result()?)));
        Metric { name: column.metric.clone(), unit: column.unit.clone(), fields: fields.collect() }
    };
    let seen = columns.iter().zip(&open.cells).filter(|(_, cell)| cell.readings > 0);
    let metrics: Vec<_> = seen.map(metric).collect();
    if metrics.is_empty() {
        return None;
    }
    Some(Message {
        source: owner.source.into(),
        device: owner.device.into(),
        body: Body::Window {
            name: owner.window.into(),
            start: open.start,
            end: shape.end_of(open.start),
            partial,
            late,
        },
        metrics,
        readings: open.readings,
        synced: open.synced,
        era: if open.synced { None } else { owner.era },
        ahead: (ahead > 0).then_some(ahead),
        told: None,
        stale: None,
    })
}

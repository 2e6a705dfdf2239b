//! What was lost, until it is told upstream.
//!
//! Losses merge by cause and device while their record is open. A record is sealed, and gets its id, when it is to be
//! handed out: later losses open a new one, so that none is lost or counted twice. With [`RECORDS_MAX`] records a loss
//! goes into one for all devices, so that there are at most as many more as there are causes. No record is evicted.
//!
//! Every change is noted until a commit has made it durable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{Cause, Gap, Id, Message, Timestamp};

/// How many records are kept before devices are merged.
pub(super) const RECORDS_MAX: usize = if cfg!(test) { 8 } else { 1_000 };

/// How much was lost. `None` where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Messages.
    pub(super) messages: Option<u64>,
    /// The readings in them.
    pub(super) readings: Option<u64>,
    /// The first millisecond that they speak of.
    pub(super) from: Option<Timestamp>,
    /// The last.
    pub(super) to: Option<Timestamp>,
}

impl Loss {
    /// Nobody knows how much.
    pub(super) const UNKNOWN: Self = Self { messages: None, readings: None, from: None, to: None };
    /// One message that nobody can read.
    pub(super) const UNREADABLE: Self = Self { messages: Some(1), readings: None, from: None, to: None };

    /// The loss of `message`. Where its times are provisional it has none: 1970 would pass for the truth.
    pub(super) fn of(message: &Message) -> Self {
        let range = message.era.is_none().then(|| message.range());
        let (from, to) = range.unzip();
        Self { messages: Some(1), readings: Some(message.readings), from, to }
    }

    fn merge(&mut self, other: Self) {
        let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.saturating_add(b));
        self.messages = sum(self.messages, other.messages);
        self.readings = sum(self.readings, other.readings);
        self.from = self.from.into_iter().chain(other.from).min();
        self.to = self.to.into_iter().chain(other.to).max();
    }
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Why.
    pub(super) cause: Cause,
    /// Whose; `None` for several or unknown devices.
    pub(super) device: Option<Box<str>>,
    /// How much.
    pub(super) loss: Loss,
    /// Its id, once it is sealed.
    pub(super) id: Option<Id>,
}

impl Record {
    fn gap(&self) -> Option<Gap> {
        let Loss { messages, readings, from, to } = self.loss;
        let device = self.device.clone();
        self.id.map(|id| Gap { id, cause: self.cause, device, messages, readings, from, to })
    }
}

/// The ledger.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: BTreeMap<i64, Record>,
    next_key: i64,
    /// The records that still take losses.
    open: BTreeMap<(Cause, Option<Box<str>>), i64>,
    /// Keys whose record is not on the disk as it is here, and those of them that a commit is just writing.
    changed: BTreeSet<i64>,
    writing: BTreeSet<i64>,
    /// Keys of records that are handed out and unanswered.
    told: BTreeSet<i64>,
    /// When the first loss was entered that no commit has taken yet.
    unwritten_since: Option<Duration>,
    /// When the first loss was entered into a record that is still open.
    open_since: Option<Duration>,
}

impl Ledger {
    /// Enters a loss.
    pub(super) fn lose(&mut self, cause: Cause, device: Option<&str>, loss: Loss, now: Duration) {
        let mut place = (cause, device.map(Box::from));
        if self.records.len() >= RECORDS_MAX && !self.open.contains_key(&place) {
            place.1 = None;
        }
        let key = if let Some(key) = self.open.get(&place) {
            if let Some(record) = self.records.get_mut(key) {
                record.loss.merge(loss);
            }
            *key
        } else {
            let key = self.insert(Record { cause, device: place.1.clone(), loss, id: None });
            self.open.insert(place, key);
            key
        };
        self.changed.insert(key);
        self.unwritten_since.get_or_insert(now);
        self.open_since.get_or_insert(now);
    }

    /// Enters a loss that nothing will be added to, so that it takes no commit of its own to seal it. Where there is
    /// no room for it, it is merged.
    pub(super) fn lose_sealed(&mut self, cause: Cause, loss: Loss, id: Id, now: Duration) {
        if self.records.len() >= RECORDS_MAX {
            return self.lose(cause, None, loss, now);
        }
        let key = self.insert(Record { cause, device: None, loss, id: Some(id) });
        self.changed.insert(key);
        self.unwritten_since.get_or_insert(now);
    }

    fn insert(&mut self, record: Record) -> i64 {
        let key = self.next_key;
        self.next_key += 1;
        self.records.insert(key, record);
        key
    }

    /// Takes in what a store had, before what was entered here in the meantime; the latter is to be written there.
    pub(super) fn adopt(&mut self, found: Vec<(i64, Record)>, now: Duration) {
        let own = std::mem::take(self);
        for (key, record) in found {
            self.next_key = self.next_key.max(key + 1);
            if record.id.is_none() {
                self.open.insert((record.cause, record.device.clone()), key);
                // Old enough to be told as soon as somebody asks.
                self.open_since = Some(Duration::ZERO);
            }
            self.records.insert(key, record);
        }
        for (old, record) in own.records {
            if record.id.is_some() {
                let key = self.insert(record);
                self.changed.insert(key);
                if own.told.contains(&old) {
                    self.told.insert(key);
                }
                self.unwritten_since.get_or_insert(now);
            } else {
                self.lose(record.cause, record.device.as_deref(), record.loss, now);
            }
        }
    }

    /// Seals every open record with an id from `next_id`.
    pub(super) fn seal(&mut self, mut next_id: impl FnMut() -> Id) {
        for key in std::mem::take(&mut self.open).into_values() {
            if let Some(record) = self.records.get_mut(&key) {
                record.id = Some(next_id());
                self.changed.insert(key);
            }
        }
        self.open_since = None;
    }

    /// Hands out the sealed records that nobody has; with `durable`, only those that are on the disk as sealed.
    pub(super) fn tell(&mut self, durable: bool) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (key, record) in &self.records {
            let pending = self.changed.contains(key) || self.writing.contains(key);
            if self.told.contains(key) || (durable && pending) {
                continue;
            }
            if let Some(gap) = record.gap() {
                gaps.push(gap);
                self.told.insert(*key);
            }
        }
        gaps
    }

    /// Forgets the record with this id, which was answered for.
    pub(super) fn acknowledge(&mut self, id: Id) {
        if let Some(key) = self.key(id) {
            self.records.remove(&key);
            self.told.remove(&key);
            // Deleted with the next commit: until then a restart would only tell it again, under its old id.
            self.changed.insert(key);
        }
    }

    /// Takes back the record with this id, where there is one.
    pub(super) fn put_back(&mut self, id: Id) {
        if let Some(key) = self.key(id) {
            self.told.remove(&key);
        }
    }

    fn key(&self, id: Id) -> Option<i64> {
        self.records.iter().find_map(|(key, record)| (record.id == Some(id)).then_some(*key))
    }

    /// Takes back every record that was handed out.
    pub(super) fn put_back_all(&mut self) {
        self.told.clear();
    }

    /// What a commit has to write to make the ledger durable. [`Ledger::written`] says how it went.
    pub(super) fn changes(&mut self) -> Vec<(i64, Option<Record>)> {
        self.unwritten_since = None;
        self.writing = std::mem::take(&mut self.changed);
        self.writing.iter().map(|key| (*key, self.records.get(key).cloned())).collect()
    }

    /// What became of the changes last taken.
    pub(super) fn written(&mut self, durable: bool) {
        let written = std::mem::take(&mut self.writing);
        if !durable && !written.is_empty() {
            self.changed.extend(written);
            self.unwritten_since = Some(Duration::ZERO);
        }
    }

    /// When the first loss was entered that no commit has taken yet.
    pub(super) fn unwritten_since(&self) -> Option<Duration> {
        self.unwritten_since
    }

    /// When the first loss was entered that is in no sealed record yet.
    pub(super) fn open_since(&self) -> Option<Duration> {
        self.open_since
    }

    /// Gives the ids of epoch `from` the epoch `to`. Only before any was handed out.
    pub(super) fn change_epoch(&mut self, from: u64, to: u64) {
        let ids = self.records.values_mut().filter_map(|record| record.id.as_mut());
        ids.filter(|id| id.epoch == from).for_each(|id| id.epoch = to);
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}

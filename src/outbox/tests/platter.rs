//! A disk in memory, and a store over any other that fails when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::ledger::Record;
use super::super::store::{Commit, Committed, Fault, Found, Met, Position, Row, Run, Store};
use crate::model::Timestamp;

/// What survives: clones are the same platter.
#[derive(Clone, Debug)]
pub(super) struct Platter(Arc<Mutex<Content>>);

#[derive(Debug)]
pub(super) struct Content {
    pub(super) rows: BTreeMap<Position, Row>,
    pub(super) damaged: BTreeSet<Position>,
    pub(super) losses: BTreeMap<i64, Record>,
    pub(super) run: Option<Run>,
    /// Bytes, each row counted with 40 more.
    pub(super) capacity: u64,
    /// Every commit that became true.
    pub(super) commits: Vec<Commit>,
}

impl Platter {
    pub(super) fn new(capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(Content {
            rows: BTreeMap::new(),
            damaged: BTreeSet::new(),
            losses: BTreeMap::new(),
            run: None,
            capacity,
            commits: Vec::new(),
        })))
    }

    pub(super) fn look(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }
}

impl Content {
    fn used(&self) -> u64 {
        self.rows.values().map(|row| row.bytes.len() as u64 + 40).sum()
    }
}

impl Store for Platter {
    fn open(&mut self, _now: Timestamp) -> Result<Found, Fault> {
        let content = self.look();
        Ok(Found {
            first: content.rows.first_key_value().map_or(0, |(position, _)| *position),
            end: content.rows.last_key_value().map_or(0, |(position, _)| position + 1),
            room: content.capacity.saturating_sub(content.used()),
            used: content.used(),
            run: content.run.clone(),
            losses: content.losses.clone().into_iter().collect(),
            set_aside: None,
        })
    }

    fn read(&mut self, from: Position, rows: usize, bytes: usize) -> Result<Vec<Met>, Fault> {
        let content = self.look();
        let mut size = 0;
        let found = content.rows.range(from..).take(rows).take_while(|(_, row)| {
            let fits = size < bytes;
            size += row.bytes.len();
            fits
        });
        let met = found.map(|(position, row)| match content.damaged.contains(position) {
            true => Met::Damaged(*position),
            false => Met::Row(row.clone()),
        });
        Ok(met.collect())
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        let mut content = self.look();
        content.rows.retain(|position, _| *position >= commit.delete_below || commit.keep.contains(position));
        let mut taken = 0;
        for row in &commit.rows {
            if content.used() + row.bytes.len() as u64 + 40 > content.capacity {
                break;
            }
            assert_eq!(content.rows.insert(row.position, row.clone()), None, "a position is given once");
            taken += 1;
        }
        for (key, record) in &commit.losses {
            match record {
                Some(record) => content.losses.insert(*key, record.clone()),
                None => content.losses.remove(key),
            };
        }
        if let (Some(run), true) = (&commit.run, taken == commit.rows.len()) {
            content.run = Some(run.clone());
        }
        content.commits.push(commit.clone());
        let used = content.used();
        Ok(Committed { taken, room: content.capacity.saturating_sub(used), used })
    }

    fn close(&mut self) {}
}

/// What is to fail. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<Mutex<Which>>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Which {
    pub(super) opens: bool,
    pub(super) reads: bool,
    pub(super) commits: bool,
}

impl Faults {
    pub(super) fn now(&self) -> MutexGuard<'_, Which> {
        self.0.lock().unwrap()
    }
}

/// A store that fails when it is told to, before anything has happened.
pub(super) struct Faulty {
    pub(super) store: Box<dyn Store>,
    pub(super) faults: Faults,
}

impl Faulty {
    fn check(&self, fails: impl FnOnce(&Which) -> bool) -> Result<(), Fault> {
        if fails(&self.faults.now()) { Err(Fault::Failed("the test says no".into())) } else { Ok(()) }
    }
}

impl Store for Faulty {
    fn open(&mut self, now: Timestamp) -> Result<Found, Fault> {
        self.check(|which| which.opens)?;
        self.store.open(now)
    }

    fn read(&mut self, from: Position, rows: usize, bytes: usize) -> Result<Vec<Met>, Fault> {
        self.check(|which| which.reads)?;
        self.store.read(from, rows, bytes)
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        self.check(|which| which.commits)?;
        self.store.commit(commit)
    }

    fn close(&mut self) {
        self.store.close();
    }
}

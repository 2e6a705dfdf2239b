//! A disk in memory, and a store over any other that fails when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::ledger::Record;
use super::super::store::{
    Commit, Committed, Dead, Fault, Found, Kept, Known, Mark, Met, Position, Row, Run, Space, Store,
};
use crate::model::Timestamp;

/// What survives: clones are the same platter.
#[derive(Clone, Debug)]
pub(super) struct Platter(Arc<Mutex<Content>>);

#[derive(Debug)]
pub(super) struct Content {
    pub(super) rows: BTreeMap<Position, Row>,
    pub(super) damaged: BTreeSet<Position>,
    pub(super) losses: BTreeMap<i64, Record>,
    pub(super) dead: BTreeMap<i64, Dead>,
    pub(super) marks: Vec<Mark>,
    pub(super) run: Option<Run>,
    /// Bytes, each row counted with 40 more.
    pub(super) capacity: u64,
    /// Whether it must not use more than it has ever used.
    pub(super) scarce: bool,
    pub(super) most: u64,
    /// Every commit that became true.
    pub(super) commits: Vec<Commit>,
}

impl Platter {
    pub(super) fn new(capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(Content {
            rows: BTreeMap::new(),
            damaged: BTreeSet::new(),
            losses: BTreeMap::new(),
            dead: BTreeMap::new(),
            marks: Vec::new(),
            run: None,
            capacity,
            scarce: false,
            most: 0,
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

    fn limit(&self) -> u64 {
        if self.scarce { self.capacity.min(self.most) } else { self.capacity }
    }

    fn space(&self) -> Space {
        let used = self.used();
        Space { room: self.limit().saturating_sub(used), used, scarce: self.scarce }
    }
}

impl Store for Platter {
    fn open(&mut self, _known: &Known, _now: Timestamp) -> Result<Found, Fault> {
        let content = self.look();
        Ok(Found {
            first: content.rows.first_key_value().map_or(0, |(position, _)| *position),
            end: content.rows.last_key_value().map_or(0, |(position, _)| position + 1),
            space: content.space(),
            run: content.run.clone(),
            fresh: content.run.is_none(),
            losses: content.losses.clone().into_iter().collect(),
            dead: content
                .dead
                .iter()
                .map(|(key, dead)| Kept { key: *key, id: dead.id, bytes: dead.cost() })
                .collect(),
            marks: content.marks.clone(),
            set_aside: None,
        })
    }

    fn read(
        &mut self,
        from: Position,
        until: Option<Position>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Met>, Fault> {
        let content = self.look();
        let end = content.rows.last_key_value().map_or(0, |(position, _)| position + 1);
        assert!(until.is_none_or(|until| until == end), "the queue knows where the rows end");
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

    fn dead(&mut self, keys: &[i64]) -> Result<Vec<(i64, Dead)>, Fault> {
        let content = self.look();
        Ok(keys.iter().filter_map(|key| Some((*key, content.dead.get(key)?.clone()))).collect())
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        let mut content = self.look();
        content.rows.retain(|position, _| *position >= commit.delete_below || commit.keep.contains(position));
        let mut taken = 0;
        for row in &commit.rows {
            if content.used() + row.bytes.len() as u64 + 40 > content.limit() {
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
        let complete = taken == commit.rows.len();
        for (key, dead) in &commit.dead {
            match dead {
                Some(dead) => drop(content.dead.insert(*key, dead.clone())),
                None if complete => drop(content.dead.remove(key)),
                None => {}
            }
        }
        if let Some(marks) = &commit.marks {
            content.marks = marks.clone();
        }
        if let (Some(run), true) = (&commit.run, complete) {
            content.run = Some(run.clone());
        }
        content.commits.push(commit.clone());
        content.most = content.most.max(content.used());
        Ok(Committed { taken, refused: Vec::new(), space: content.space() })
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
    fn open(&mut self, known: &Known, now: Timestamp) -> Result<Found, Fault> {
        self.check(|which| which.opens)?;
        self.store.open(known, now)
    }

    fn read(
        &mut self,
        from: Position,
        until: Option<Position>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Met>, Fault> {
        self.check(|which| which.reads)?;
        self.store.read(from, until, rows, bytes)
    }

    fn dead(&mut self, keys: &[i64]) -> Result<Vec<(i64, Dead)>, Fault> {
        self.check(|which| which.reads)?;
        self.store.dead(keys)
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        self.check(|which| which.commits)?;
        self.store.commit(commit)
    }

    fn close(&mut self) {
        self.store.close();
    }
}

//! Which messages were given up and are kept for a person, and those of them that the disk does not have yet.
//!
//! Memory has the id, key and size of each; what it says only until a commit has written it. There are caps on their
//! number, on their bytes and on the bytes in memory: the oldest makes way. It stays in the ledger as lost.

use std::collections::{BTreeMap, BTreeSet};

use super::store::{Dead, Kept};
use crate::model::Id;

/// How many are kept.
pub(super) const LETTERS_MAX: usize = if cfg!(test) { 6 } else { 1_000 };
/// The most bytes of those that wait in memory to be written.
const MEMORY_MAX: usize = if cfg!(test) { 16_000 } else { 512 << 10 };
/// What a letter costs beside its bytes, about.
const OVERHEAD: usize = 100;
/// The most bytes of a reason.
const REASON_MAX: usize = 256;

impl Dead {
    /// What it is counted with.
    pub(super) fn cost(&self) -> usize {
        cost(self.bytes.len() + self.reason.len())
    }
}

/// What a letter with so many bytes of message and reason is counted with.
pub(super) fn cost(bytes: usize) -> usize {
    bytes + OVERHEAD
}

/// `reason` at a length that is kept.
pub(super) fn reason(reason: &str) -> Box<str> {
    let mut end = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].into()
}

/// The dead letters.
#[derive(Debug)]
pub(super) struct DeadLetters {
    kept: BTreeMap<Id, Kept>,
    /// Bytes of those, and how many there may be.
    bytes: usize,
    bytes_max: usize,
    next_key: i64,
    /// Those that the disk does not have.
    fresh: BTreeMap<i64, Dead>,
    /// Keys whose letter is not on the disk as it is here, and those of them that a commit is just writing.
    changed: BTreeSet<i64>,
    writing: BTreeSet<i64>,
}

impl DeadLetters {
    /// None yet, of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            kept: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            next_key: 0,
            fresh: BTreeMap::new(),
            changed: BTreeSet::new(),
            writing: BTreeSet::new(),
        }
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Keeps a letter, and tells how many are not kept for it, itself perhaps.
    pub(super) fn keep(&mut self, dead: Dead) -> u64 {
        let cost = dead.cost();
        if cost > self.bytes_max || cost > MEMORY_MAX {
            return 1;
        }
        if let Some(Kept { key, .. }) = self.kept.get(&dead.id).copied() {
            self.delete(key);
        }
        let key = self.next_key;
        self.next_key += 1;
        self.insert(key, dead);
        self.make_way()
    }

    /// Drops the oldest while there are too many, and tells how many.
    fn make_way(&mut self) -> u64 {
        let mut dropped = 0;
        while self.kept.len() > LETTERS_MAX || self.bytes > self.bytes_max {
            let Some(key) = self.kept.values().map(|kept| kept.key).min() else { break };
            self.delete(key);
            dropped += 1;
        }
        while self.fresh.values().map(Dead::cost).sum::<usize>() > MEMORY_MAX {
            let Some(key) = self.fresh.keys().next().copied() else { break };
            self.delete(key);
            dropped += 1;
        }
        dropped
    }

    fn insert(&mut self, key: i64, dead: Dead) {
        let kept = Kept { key, id: dead.id, bytes: dead.cost() };
        self.bytes += kept.bytes;
        self.kept.insert(dead.id, kept);
        self.fresh.insert(key, dead);
        self.changed.insert(key);
    }

    /// Deletes the letter with this key.
    pub(super) fn delete(&mut self, key: i64) {
        self.hide(key);
        self.fresh.remove(&key);
        self.changed.insert(key);
    }

    /// No longer shows the letter with this key, and leaves it on the disk.
    fn hide(&mut self, key: i64) {
        let id = self.kept.values().find(|kept| kept.key == key).map(|kept| kept.id);
        if let Some(kept) = id.and_then(|id| self.kept.remove(&id)) {
            self.bytes -= kept.bytes;
        }
    }

    /// Takes a letter out that was read under this key. The disk keeps it until [`DeadLetters::delete`].
    pub(super) fn take(&mut self, key: i64) {
        self.hide(key);
        self.fresh.remove(&key);
        self.changed.remove(&key);
    }

    /// Puts a letter back that was taken out.
    pub(super) fn put_back(&mut self, key: i64, dead: Dead) {
        if self.kept.contains_key(&dead.id) {
            return self.delete(key);
        }
        self.insert(key, dead);
    }

    /// Takes in what a store has, as older than those of here.
    pub(super) fn adopt(&mut self, found: Vec<Kept>) -> u64 {
        let own = std::mem::replace(self, Self::new(self.bytes_max));
        for kept in found {
            self.next_key = self.next_key.max(kept.key.saturating_add(1));
            self.bytes += kept.bytes;
            if let Some(older) = self.kept.insert(kept.id, kept) {
                self.bytes -= older.bytes;
                self.changed.insert(older.key);
            }
        }
        // A crash, or a larger bound than this run's, may have left more than there should be.
        self.make_way() + own.fresh.into_values().map(|dead| self.keep(dead)).sum::<u64>()
    }

    /// Forgets those whose file is lost.
    pub(super) fn forget(&mut self) {
        let own = std::mem::replace(self, Self::new(self.bytes_max));
        self.next_key = own.next_key;
        for (key, dead) in own.fresh {
            self.insert(key, dead);
        }
    }

    /// The letters after `after` in the order of ids: those that memory has, and the keys of the others. At most
    /// `letters`, and about `bytes` of them. And the id to go on after, where that was not all.
    pub(super) fn after(&self, after: Option<Id>, letters: usize, bytes: usize) -> (Vec<Kept>, Option<Id>) {
        let mut size = 0;
        let mut found = Vec::new();
        let mut rest = self.kept.values().filter(|kept| after.is_none_or(|after| kept.id > after));
        for kept in rest.by_ref() {
            found.push(*kept);
            size += kept.bytes;
            if found.len() >= letters || size >= bytes {
                break;
            }
        }
        let last = found.last().map(|kept| kept.id);
        (found, rest.next().and(last))
    }

    /// The ids of all, in order.
    pub(super) fn ids(&self) -> impl Iterator<Item = Id> {
        self.kept.keys().copied()
    }

    /// The letter with this id.
    pub(super) fn get(&self, id: Id) -> Option<Kept> {
        self.kept.get(&id).copied()
    }

    /// What the letter with this key says, if it is not on the disk yet.
    pub(super) fn fresh(&self, key: i64) -> Option<&Dead> {
        self.fresh.get(&key)
    }

    /// What a commit has to do to make them durable; deletions only where all rows are in it. [`DeadLetters::written`]
    /// says how it went.
    pub(super) fn changes(&mut self, deletions: bool) -> Vec<(i64, Option<Dead>)> {
        let (fresh, changed) = (&self.fresh, std::mem::take(&mut self.changed));
        (self.writing, self.changed) =
            changed.into_iter().partition(|key| deletions || fresh.contains_key(key));
        self.writing.iter().map(|key| (*key, self.fresh.get(key).cloned())).collect()
    }

    /// The changes last taken did not become true.
    pub(super) fn unwritten(&mut self) {
        self.changed.append(&mut self.writing);
    }

    /// They did, but for those that found no room, and the deletions where not all rows were taken. Tells how many are
    /// not kept for want of room.
    pub(super) fn written(&mut self, refused: &[i64], complete: bool) -> u64 {
        for key in std::mem::take(&mut self.writing) {
            if self.changed.contains(&key) {
                // It has changed again while it was being written.
                continue;
            }
            if !self.fresh.contains_key(&key) {
                if !complete {
                    self.changed.insert(key);
                }
            } else if refused.contains(&key) {
                self.hide(key);
                self.fresh.remove(&key);
            } else {
                self.fresh.remove(&key);
            }
        }
        refused.len() as u64
    }

    /// Whether the disk is not as this is.
    #[cfg(test)]
    pub(super) fn is_unwritten(&self) -> bool {
        !self.changed.is_empty()
    }
}

//! What is handed out, and what becomes of it: it is answered for, handed out again, or given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::dead;
use super::super::store::{AHEAD, Dead, Met};
use super::{Closing, Entry, Queue, ages};
use crate::model::{Cause, Id, Stamp};

impl Queue {
    /// Hands out the next messages, in order, those first that are to be handed out again: at most `messages`, and at
    /// most `bytes` of them, but one always. Each with whether its provisional times are to be shifted: if `shifts`,
    /// unless it was handed out before.
    pub(in super::super) fn take(
        &mut self,
        messages: usize,
        bytes: usize,
        shifts: bool,
        now: Duration,
    ) -> Vec<(Id, Arc<[u8]>, bool)> {
        let mut taken = Vec::new();
        if !matches!(self.closing, Closing::No) {
            return taken;
        }
        let mut left = bytes;
        while taken.len() < messages {
            let mut fits = |size: usize, first: bool| {
                let fits = first || size <= left;
                left = left.saturating_sub(size);
                fits
            };
            if let Some(position) = self.again.first().copied() {
                let Some(entry) = self.out.get(&position) else {
                    self.again.remove(&position);
                    continue;
                };
                if !fits(entry.bytes.len(), taken.is_empty()) {
                    break;
                }
                self.again.remove(&position);
                taken.push((entry.id, Arc::clone(&entry.bytes), entry.shifts));
                continue;
            }
            if self.evicting || self.salvaging {
                break;
            }
            let mut entry = match self.ahead.front() {
                Some(Met::Damaged(_)) => {
                    self.ahead.pop_front();
                    self.lose_damaged(now);
                    continue;
                }
                Some(Met::Row(row)) => {
                    if row.position < self.purge_below || !fits(row.bytes.len(), taken.is_empty()) {
                        break;
                    }
                    let (position, id, bytes) = (row.position, row.id, Arc::clone(&row.bytes));
                    self.ahead.pop_front();
                    let since = self.ages.since(position).min(ages::since(now));
                    Entry { position, id, bytes, since, stored: true, shifts }
                }
                None if self.next_read < self.stored_end => break,
                None => {
                    let Some(first) = self.tail.front() else { break };
                    if first.position < self.purge_below || !fits(first.bytes.len(), taken.is_empty()) {
                        break;
                    }
                    let Some(entry) = self.tail.pop_front() else { break };
                    self.tail_bytes -= entry.cost();
                    self.next_read = entry.position + 1;
                    entry
                }
            };
            if self.positions.contains_key(&entry.id) {
                // It is out already: a crash has left a letter that was sent again in both places.
                if entry.stored {
                    self.settle_row(entry.cost(), now);
                }
                continue;
            }
            entry.shifts = shifts;
            taken.push((entry.id, Arc::clone(&entry.bytes), shifts));
            self.positions.insert(entry.id, entry.position);
            self.out.insert(entry.position, entry);
        }
        self.hungry = self.next_read < self.stored_end && self.ahead.len() < AHEAD.0 / 2;
        self.count();
        taken
    }

    /// Forgets messages that were answered for. Ids that are not out are ignored.
    pub(in super::super) fn acknowledge(&mut self, ids: &[Id], now: Duration) {
        for id in ids {
            if self.settle(*id, now).is_some() {
                self.stats.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count();
    }

    /// Has messages and gaps handed out again. Ids that are not out are ignored.
    pub(in super::super) fn put_back(&mut self, ids: &[Id]) {
        for id in ids {
            match self.positions.get(id) {
                Some(position) => drop(self.again.insert(*position)),
                None => self.ledger.put_back(*id),
            }
        }
    }

    /// Has everything handed out again that is out, gaps too.
    pub(in super::super) fn put_back_all(&mut self) {
        self.again.extend(self.out.keys());
        self.ledger.put_back_all();
        // Nobody is there to be told: what is lost from now on can gather in open records.
        self.gaps_wanted = false;
    }

    /// Enters a message that is out as lost, and with a reason keeps it among the dead letters. An id that is not out is
    /// ignored. Whether it is a new loss; `None` where it is not out.
    pub(in super::super) fn give_up(
        &mut self,
        id: Id,
        cause: Cause,
        reason: Option<&str>,
        stamp: Stamp,
    ) -> Option<bool> {
        let mut is_new = None;
        if let Some(Entry { id, bytes, .. }) = self.settle(id, stamp.monotonic) {
            is_new = Some(self.lose(cause, &bytes, stamp.monotonic));
            if let Some(reason) = reason.map(dead::reason) {
                self.bury(Dead { id, bytes, cause, reason, at: stamp.wall });
            }
        }
        self.count();
        is_new
    }

    /// Takes a message out of `out`.
    pub(super) fn settle(&mut self, id: Id, now: Duration) -> Option<Entry> {
        let position = self.positions.remove(&id)?;
        self.again.remove(&position);
        let entry = self.out.remove(&position)?;
        if entry.stored {
            self.settle_row(entry.cost(), now);
        }
        Some(entry)
    }

    /// Counts a row that the disk no longer needs to have.
    pub(super) fn settle_row(&mut self, cost: usize, now: Duration) {
        self.settled += 1;
        self.settled_bytes += cost as u64;
        self.settled_since.get_or_insert(now);
    }
}

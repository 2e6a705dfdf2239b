//! What a commit is made of, and what becomes of it.

use super::super::WhenFull;
use super::super::ledger::Loss;
use super::super::store::{Commit, Committed, Fault, Job, Row, Run};
use super::{Closing, Disk, OVERHEAD, Ordering, Position, Queue};
use crate::model::{Cause, Id, Stamp};
use std::time::Duration;

impl Queue {
    /// Seals the ledger's open records.
    pub(super) fn seal(&mut self) {
        let (epoch, sequence) = (self.epoch, &mut self.sequence);
        self.ledger.seal(|| {
            *sequence += 1;
            Id { epoch, sequence: *sequence }
        });
    }

    /// The rows for one commit: what is in memory only, from the oldest on. And whether those are all.
    fn unstored(&self) -> (Vec<Row>, u64, bool) {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for entry in self.out.values().filter(|entry| !entry.stored).chain(&self.tail) {
            if !rows.is_empty() && bytes + entry.cost() > self.settings.commit_max {
                return (rows, bytes as u64, false);
            }
            bytes += entry.cost();
            rows.push(entry.row());
        }
        (rows, bytes as u64, true)
    }

    /// The next commit; or, where rows are to be lost that are not in memory, their reading.
    pub(super) fn commit(&mut self, stamp: Stamp) -> Job {
        let now = stamp.monotonic;
        // The note of the run comes first: no id may be given before its epoch is stored.
        if !self.run_due {
            if let Some(read) = self.clear_head(now) {
                return read;
            }
        }
        let (mut rows, need, all) = self.unstored();
        self.writing_all = all;
        self.writing_last = false;
        let mut reserved = 0;
        if let (Closing::Asked { saved, .. }, true) = (&mut self.closing, all) {
            reserved = saved.as_ref().map_or(0, Vec::len) as u64;
            self.writing_last = true;
            let left = self.room + self.settled_bytes;
            let newest = self.settings.when_full == WhenFull::DropNewest;
            if newest && reserved > left && (!self.scarce || self.refused) {
                (*saved, reserved) = (None, 0);
                tracing::error!(
                    "the buffer is full: the open windows are not saved but lost, and reported as a gap"
                );
                // Not merged with losses whose number is known.
                let id = self.next_id();
                self.ledger.lose_sealed(Cause::Full, Loss::UNKNOWN, id, now);
            }
        }
        match self.settings.when_full {
            _ if self.scarce && !self.refused => {}
            WhenFull::DropOldest => {
                if let Some(read) = self.evict(need + reserved, now) {
                    return read;
                }
            }
            WhenFull::DropNewest => self.refuse_newest(&mut rows, reserved, now),
        }
        let run = match &self.closing {
            Closing::Asked { saved, .. } if self.writing_last => {
                Some(Run { epoch: self.epoch, clean: true, saved: saved.clone() })
            }
            _ => self.run_due.then_some(Run { epoch: self.epoch, clean: false, saved: None }),
        };
        if self.gaps_wanted {
            self.seal();
        }
        self.writing = rows.iter().map(|row| row.position).collect();
        self.deleting = (std::mem::take(&mut self.settled), std::mem::take(&mut self.settled_bytes));
        self.settled_since = None;
        if all {
            for (key, _) in self.revived.values() {
                self.dead.delete(*key);
            }
        }
        let delete_below = self.cursor();
        let keep = self.out.values().filter(|entry| entry.stored).map(|entry| entry.position);
        let aged = !rows.is_empty() || delete_below < self.stored_end;
        Job::Commit(Commit {
            delete_below,
            keep: keep.collect(),
            rows,
            losses: self.ledger.changes(),
            dead: self.dead.changes(all),
            marks: if aged { self.ages.changes(stamp) } else { None },
            run,
        })
    }

    /// Takes in what became of the last commit.
    pub(super) fn committed(&mut self, result: Result<Committed, Fault>, now: Duration) {
        let writing = std::mem::take(&mut self.writing);
        // A disk that takes no writes must not stop the stream.
        self.evicting = false;
        self.ledger.written(result.is_ok());
        let Committed { taken, refused, space } = match result {
            Ok(committed) => committed,
            Err(fault) => {
                self.dead.unwritten();
                self.ages.unwritten();
                self.settled += self.deleting.0;
                self.settled_bytes += self.deleting.1;
                if self.settled > 0 {
                    self.settled_since.get_or_insert(now);
                }
                return self.fail(&fault, now);
            }
        };
        let complete = taken == writing.len();
        let dropped = self.dead.written(&refused, complete);
        self.unburied(dropped);
        if complete && matches!(self.disk, Disk::Failing(_)) {
            tracing::info!("the buffer is on the disk again");
            self.is_up();
        }
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.spilled.fetch_add(taken as u64, Ordering::Relaxed);
        for position in writing.iter().take(taken) {
            let first = self.cursor() >= self.stored_end;
            self.stored_end = self.stored_end.max(position + 1);
            if let Some(entry) = self.out.get_mut(position) {
                entry.stored = true;
            } else if self.tail.front().is_some_and(|first| first.position == *position) {
                if first {
                    // What memory lost before it is not there to be read.
                    self.next_read = *position;
                }
                if let Some(entry) = self.tail.pop_front() {
                    self.tail_bytes -= entry.cost();
                }
            } else {
                // It was answered for while it was being written.
                self.settle_row(OVERHEAD, now);
            }
        }
        if self.cursor() >= self.purge_below.min(self.stored_end) {
            self.purge_below = Position::MIN;
        }
        let had_room = self.room > 0;
        let untried = self.scarce && !self.refused;
        self.refused = !complete;
        self.measure(space);
        if !complete {
            // What the store calls room was none for the next row: have the next commit make it for all it adds.
            self.room = 0;
            if taken == 0 && self.deleting.0 == 0 && !had_room && !untried {
                let why = if self.scarce {
                    "less than `min_free` is free on its disk"
                } else {
                    "`max_bytes` is used up"
                };
                let fault = Fault::Failed(format!("{why}, and there is nothing that could be evicted"));
                self.fail(&fault, now);
            }
            return;
        }
        self.run_due = false;
        if self.writing_all {
            self.revived.clear();
            self.forgetting = false;
        }
        let all = self.tail.is_empty() && self.out.values().all(|entry| entry.stored);
        if self.writing_last && all {
            self.closing = Closing::Committed;
        }
    }
}

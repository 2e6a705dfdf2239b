//! What leaves the queue unsent, by the ledger: for want of room, for its age, by order, or because nobody can read it.
//!
//! What the disk has is deleted in the commit that makes the ledger entry durable. Should that not become true before
//! a crash, it is back, and its entry is not.

use std::time::Duration;

use super::super::WhenFull;
use super::super::ledger::Loss;
use super::super::store::{Dead, Job, Met, Position, Row};
use super::{Entry, OVERHEAD, Ordering, Queue, ages};
use crate::model::{Cause, Message};

/// How many rows may be settled before no more are expired or purged, until a commit has deleted those.
const CLEAR_MAX: usize = if cfg!(test) { 10 } else { 4_000 };

impl Queue {
    /// Enters a message in its compact form as lost; not one that was given up before, for that told its loss. Whether
    /// it is a new loss.
    pub(super) fn lose(&mut self, cause: Cause, bytes: &[u8], now: Duration) -> bool {
        match Message::from_bytes(bytes) {
            Ok(Message { told: Some(true), .. }) => {
                self.tell_again(cause);
                return false;
            }
            Ok(message) => self.ledger.lose(cause, Some(&message.device), Loss::of(&message), now),
            Err(_) => self.ledger.lose(Cause::Damaged, None, Loss::UNREADABLE, now),
        }
        self.tell(cause);
        true
    }

    /// Counts that a message was lost whose loss was told before.
    fn tell_again(&self, cause: Cause) {
        let stats = &self.stats;
        match cause {
            // Whoever gave it up again says so.
            Cause::Refused | Cause::Poison | Cause::TooLarge => return,
            Cause::Purged => {
                stats.purged_again.fetch_add(1, Ordering::Relaxed);
            }
            Cause::Evicted | Cause::Full | Cause::Expired | Cause::Damaged | Cause::Crash => {}
        }
        if let Some(count) = stats.lost_again.count() {
            tracing::warn!(
                cause = cause.name(),
                count,
                "a message that was sent again is lost before it went: its loss was told when it was given up"
            );
        }
    }

    /// Counts a loss, and says so where that is worth a line.
    fn tell(&self, cause: Cause) {
        let stats = &self.stats;
        match cause {
            Cause::Evicted => {
                let count = stats.evicted.fetch_add(1, Ordering::Relaxed) + 1;
                if is_worth_a_line(count) {
                    tracing::error!(
                        count,
                        "the buffer is full: its oldest messages are lost, and reported as a gap"
                    );
                }
            }
            Cause::Full => {
                if let Some(count) = stats.full.count() {
                    tracing::error!(
                        count,
                        "the buffer is full: what comes now is lost, and reported as a gap"
                    );
                }
            }
            Cause::Expired => {
                if let Some(count) = stats.expired.count() {
                    tracing::error!(
                        count,
                        "messages have waited for `max_age`: they are lost, and reported as a gap"
                    );
                }
            }
            Cause::Purged => drop(stats.purged.count()),
            Cause::Damaged => {
                let count = stats.damaged.fetch_add(1, Ordering::Relaxed) + 1;
                if is_worth_a_line(count) {
                    tracing::error!(
                        count,
                        "messages on the disk are damaged: they are lost, and reported as a gap"
                    );
                }
            }
            Cause::Refused | Cause::Poison | Cause::TooLarge | Cause::Crash => {}
        }
    }

    /// Enters a row whose checksum is wrong.
    pub(super) fn lose_damaged(&mut self, now: Duration) {
        self.settle_row(OVERHEAD, now);
        self.ledger.lose(Cause::Damaged, None, Loss::UNREADABLE, now);
        self.tell(Cause::Damaged);
    }

    /// Keeps a message that was given up.
    pub(super) fn bury(&mut self, dead: Dead) {
        let dropped = self.dead.keep(dead);
        self.unburied(dropped);
    }

    /// Counts dead letters that are not kept.
    pub(super) fn unburied(&self, dropped: u64) {
        if dropped == 0 {
            return;
        }
        if let Some(count) = self.stats.dead_letters_dropped.add(dropped) {
            tracing::warn!(
                count,
                "there is no room for more dead letters: the oldest made way; their gaps are told"
            );
        }
    }

    /// Loses a message that was in memory only; one that was to be sent again is a dead letter as before.
    fn lose_entry(&mut self, cause: Cause, entry: &Entry, now: Duration) {
        match self.revived.remove(&entry.position) {
            Some((key, dead)) => self.dead.put_back(key, dead),
            None => drop(self.lose(cause, &entry.bytes, now)),
        }
    }

    /// Has memory keep its bound, by the rule for a full buffer.
    pub(super) fn bound_memory(&mut self, now: Duration) {
        // What a commit is just writing must not be dropped: the disk may have it already.
        let written = self.writing.last().copied();
        let first = self.tail.partition_point(|entry| Some(entry.position) <= written);
        while self.tail_bytes > self.settings.memory_hard && self.tail.len() > first + 1 {
            let (dropped, cause) = match self.settings.when_full {
                WhenFull::DropOldest => (self.tail.remove(first), Cause::Evicted),
                WhenFull::DropNewest => (self.tail.pop_back(), Cause::Full),
            };
            let Some(dropped) = dropped else { break };
            if cause == Cause::Full {
                // Nobody has seen it there.
                self.next_position = dropped.position;
            }
            self.tail_bytes -= dropped.cost();
            self.lose_entry(cause, &dropped, now);
        }
    }

    /// When the first message in memory that may be lost for its age is old enough.
    pub(super) fn expire_in_memory_at(&self) -> Option<Duration> {
        let again = self.again.first().and_then(|position| self.out.get(position));
        let oldest = again.into_iter().chain(self.tail.front()).map(|entry| entry.since).min();
        oldest.map(|since| ages::monotonic(self.ages.end(since)))
    }

    /// Loses what has waited in memory for too long. What is on its way is spared.
    pub(super) fn expire_in_memory(&mut self, now: Duration) {
        let old = |entry: &Entry| self.ages.end(entry.since) <= ages::since(now);
        let again = self.again.iter().filter_map(|position| self.out.get(position));
        let again: Vec<_> = again.filter(|entry| old(entry)).map(|entry| entry.id).collect();
        let tail = self.tail.iter().take_while(|entry| old(entry)).count();
        for id in again {
            if let Some(entry) = self.settle(id, now) {
                self.lose_entry(Cause::Expired, &entry, now);
            }
        }
        self.lose_tail(0..tail, Cause::Expired, now);
    }

    /// How long the message has waited that has waited for longest.
    pub(in super::super) fn oldest(&self, now: Duration) -> Option<Duration> {
        let memory = self.out.values().chain(self.tail.front()).map(|entry| entry.since).min();
        let disk = (self.cursor() < self.stored_end).then(|| self.ages.since(self.cursor()));
        let since = memory.into_iter().chain(disk).min()?;
        Some(Duration::from_millis(u64::try_from(ages::since(now).saturating_sub(since)).unwrap_or(0)))
    }

    fn lose_tail(&mut self, range: std::ops::Range<usize>, cause: Cause, now: Duration) {
        let lost: Vec<_> = self.tail.drain(range).collect();
        for entry in lost {
            self.tail_bytes -= entry.cost();
            self.lose_entry(cause, &entry, now);
        }
    }

    /// When rows are to be expired or purged.
    pub(super) fn clear_at(&self) -> Option<Duration> {
        let purge = (self.purge_below > Position::MIN).then_some(Duration::ZERO);
        let backlog = self.cursor() < self.stored_end;
        let expire = backlog.then(|| ages::monotonic(self.ages.end(self.ages.since(self.cursor()))));
        let at = purge.into_iter().chain(expire).min()?;
        match &self.reading {
            Some(trouble) if backlog && self.ahead.is_empty() => Some(at.max(trouble.retry)),
            _ => Some(at),
        }
    }

    /// Loses the rows that are to be expired or purged, as many as one commit should delete; or asks to read them.
    pub(super) fn clear_head(&mut self, now: Duration) -> Option<Job> {
        let expired = self.ages.expired_below(ages::since(now));
        while self.settled < CLEAR_MAX {
            let position = self.cursor();
            let cause = match position {
                _ if position >= self.stored_end => break,
                _ if position < self.purge_below => Cause::Purged,
                _ if position < expired => Cause::Expired,
                _ => break,
            };
            if !self.lose_first_row(cause, now) {
                return self.read_to_lose(now);
            }
        }
        None
    }

    /// Loses the oldest rows until `need` bytes fit into the file with what this frees; or asks to read them.
    pub(super) fn evict(&mut self, need: u64, now: Duration) -> Option<Job> {
        while need > self.room + self.settled_bytes {
            if !self.lose_first_row(Cause::Evicted, now) {
                return self.read_to_lose(now);
            }
        }
        None
    }

    /// Loses the first row that is not handed out, if it was read.
    fn lose_first_row(&mut self, cause: Cause, now: Duration) -> bool {
        match self.ahead.pop_front() {
            Some(Met::Row(row)) => {
                self.evicting = true;
                self.settle_row(row.bytes.len() + OVERHEAD, now);
                self.lose(cause, &row.bytes, now);
            }
            Some(Met::Damaged(_)) => self.lose_damaged(now),
            None => return false,
        }
        true
    }

    fn read_to_lose(&self, now: Duration) -> Option<Job> {
        let may = self.reading.as_ref().is_none_or(|trouble| trouble.retry <= now);
        (may && self.next_read < self.stored_end)
            .then_some(Job::Read { from: self.next_read, until: self.last_row() })
    }

    /// Loses those of `rows` that wait in memory and for which the file has no room beside `reserved` bytes.
    pub(super) fn refuse_newest(&mut self, rows: &mut Vec<Row>, reserved: u64, now: Duration) {
        let mut left = (self.room + self.settled_bytes).saturating_sub(reserved);
        let fitting = rows.iter().take_while(|row| {
            let cost = (row.bytes.len() + OVERHEAD) as u64;
            let fits = cost <= left;
            left = left.saturating_sub(cost);
            fits
        });
        let fitting = fitting.count();
        // What is on its way stays, in memory if need be.
        let tail = self.tail.front().map_or(Position::MAX, |entry| entry.position);
        let from = fitting.max(rows.partition_point(|row| row.position < tail));
        if let Some(first) = rows.get(from) {
            let start = self.tail.partition_point(|entry| entry.position < first.position);
            let count = rows.len() - from;
            rows.truncate(from);
            self.lose_tail(start..start + count, Cause::Full, now);
        }
    }

    /// Loses everything that waits and is not on its way. What the disk has goes with the next commits, and
    /// [`Queue::is_purged`] tells when that is done.
    pub(in super::super) fn purge(&mut self, now: Duration) {
        let again = self.again.iter().filter_map(|position| self.out.get(position));
        for id in again.map(|entry| entry.id).collect::<Vec<_>>() {
            if let Some(entry) = self.settle(id, now) {
                self.lose(Cause::Purged, &entry.bytes, now);
            }
        }
        let written = self.writing.last().copied();
        let first = self.tail.partition_point(|entry| Some(entry.position) <= written);
        let tail = self.tail.get(first).map_or(Position::MAX, |entry| entry.position);
        for (key, _) in self.revived.split_off(&tail).into_values() {
            self.dead.delete(key);
        }
        self.lose_tail(first..self.tail.len(), Cause::Purged, now);
        if !self.disk.is_absent() {
            self.purge_below = self.next_position;
        }
        self.count();
    }

    /// Whether the disk has deleted what was purged, or cannot just now.
    pub(in super::super) fn is_purged(&self) -> bool {
        self.purge_below == Position::MIN || !self.disk.is_up() || !matches!(self.closing, super::Closing::No)
    }
}

/// The first, the tenth, the hundredth and so on.
fn is_worth_a_line(count: u64) -> bool {
    count.checked_ilog10().is_some_and(|digits| count == 10_u64.pow(digits))
}

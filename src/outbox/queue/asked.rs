//! Answers for those who look into the queue, or have a dead letter sent again.
//!
//! They wait in line, and where the disk is needed one question is one job, between two commits if need be. An answer
//! is bounded like a read ahead, so that a look at a million messages takes no more memory than one at a hundred.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::Sender;

use super::super::store::{AHEAD, Dead, Fault, Job, Kept, Met, Position, Row};
use super::{Closing, Queue};
use crate::model::{Id, Message};

/// A part of the queue: messages in their compact form, and where to look on.
pub(in super::super) type Part = (Vec<(Id, Arc<[u8]>)>, Option<Position>);

/// What somebody wants to know, and whom to tell. Who is told nothing asked a queue that closes.
#[derive(Debug)]
pub(in super::super) enum Ask {
    /// What is unacknowledged.
    Page { from: Position, limit: usize, answer: Sender<Part> },
    /// The dead letters after an id, and the id to go on after.
    DeadLetters { after: Option<Id>, limit: usize, answer: Sender<(Vec<Dead>, Option<Id>)> },
    /// Has the first of these sent again. How many those were, and the letters that were there.
    SendAgain { ids: Vec<Id>, answer: Sender<(usize, Vec<Kept>)> },
    /// Forgets these dead letters. How many were there.
    Forget { ids: Vec<Id>, answer: Sender<u64> },
}

impl Queue {
    /// Takes a question.
    pub(in super::super) fn ask(&mut self, ask: Ask) {
        if matches!(self.closing, Closing::No) {
            self.asks.push_back(ask);
        }
    }

    /// Whether this very letter is kept, and not one that the same message has become since: that has another key.
    pub(in super::super) fn is_kept(&self, letter: Kept) -> bool {
        self.dead.get(letter.id) == Some(letter)
    }

    /// The ids of all dead letters, in order.
    pub(in super::super) fn dead_ids(&self) -> Vec<Id> {
        self.dead.ids().collect()
    }

    /// Whether the disk has everything in the queue that was sent again, or cannot have it just now.
    pub(in super::super) fn is_revived(&self) -> bool {
        self.revived.is_empty() || !self.disk.is_up() || !matches!(self.closing, Closing::No)
    }

    /// Answers what needs no disk, and gives the job for the first question that does.
    pub(super) fn next_asked(&mut self, now: Duration) -> Option<Job> {
        while let Some(ask) = self.asks.front() {
            let job = match ask {
                Ask::Page { from, limit, .. } => self.look_for(*from, *limit),
                Ask::DeadLetters { after, limit, .. } => {
                    self.dig_for(&self.dead.after(*after, *limit, AHEAD.1).0)
                }
                Ask::SendAgain { ids, .. } => self.dig_for(&self.first_of(ids).1),
                Ask::Forget { .. } => None,
            };
            if job.is_some() {
                return job;
            }
            self.answer(None, Vec::new(), now);
        }
        None
    }

    /// Whether the disk has forgotten the dead letters that it was to forget, or cannot just now.
    pub(in super::super) fn is_forgotten(&self) -> bool {
        !self.forgetting || !self.disk.is_up() || !matches!(self.closing, Closing::No)
    }

    fn look_for(&self, from: Position, limit: usize) -> Option<Job> {
        let from_disk = from.max(self.next_read);
        let limit = limit.clamp(1, AHEAD.0);
        let ahead = self.ahead.iter().filter(|met| matches!(met, Met::Row(row) if row.position >= from));
        let at_hand = self.out.range(from..).count() + ahead.count();
        let wanted = from_disk < self.stored_end && at_hand < limit && !self.disk.is_absent();
        wanted.then_some(Job::Look { from: from_disk, until: self.last_row(), rows: limit })
    }

    fn dig_for(&self, letters: &[Kept]) -> Option<Job> {
        let keys = letters.iter().map(|kept| kept.key).filter(|key| self.dead.fresh(*key).is_none());
        let keys: Vec<_> = keys.collect();
        (!keys.is_empty() && !self.disk.is_absent()).then_some(Job::Dead { keys })
    }

    /// How many of `ids`, from the first, are looked up at once, and the dead letters among them.
    fn first_of(&self, ids: &[Id]) -> (usize, Vec<Kept>) {
        let mut bytes = 0;
        let mut found: Vec<Kept> = Vec::new();
        let mut count = 0;
        for id in ids.iter().take(AHEAD.0) {
            if bytes >= AHEAD.1 {
                break;
            }
            count += 1;
            if let Some(kept) = self.dead.get(*id).filter(|kept| !found.contains(kept)) {
                bytes += kept.bytes;
                found.push(kept);
            }
        }
        (count, found)
    }

    /// Takes the answer to [`Job::Look`].
    pub(super) fn looked_at(&mut self, rows: Result<Vec<Met>, Fault>, now: Duration) {
        let rows = rows.unwrap_or_else(|fault| {
            self.unanswered(&fault, now);
            Vec::new()
        });
        self.answer(Some(rows), Vec::new(), now);
    }

    /// Takes the answer to [`Job::Dead`].
    pub(super) fn dug_up(&mut self, letters: Result<Vec<(i64, Dead)>, Fault>, now: Duration) {
        let letters = letters.unwrap_or_else(|fault| {
            self.unanswered(&fault, now);
            Vec::new()
        });
        self.answer(None, letters, now);
    }

    fn unanswered(&mut self, fault: &Fault, now: Duration) {
        match fault {
            Fault::Corrupt(_) => self.fail(fault, now),
            Fault::Failed(_) => tracing::warn!("a look into the buffer sees only what is in memory: {fault}"),
        }
    }

    /// Answers the first question, with what was read for it.
    fn answer(&mut self, rows: Option<Vec<Met>>, letters: Vec<(i64, Dead)>, now: Duration) {
        let Some(ask) = self.asks.pop_front() else { return };
        let mut letters: HashMap<_, _> = letters.into_iter().collect();
        // Whoever does not wait any more is not told.
        match ask {
            Ask::Page { from, limit, answer } => drop(answer.send(self.part(from, limit, rows))),
            Ask::DeadLetters { after, limit, answer } => {
                let (found, next) = self.dead.after(after, limit, AHEAD.1);
                let found = found.into_iter().filter_map(|kept| {
                    self.dead.fresh(kept.key).cloned().or_else(|| letters.remove(&kept.key))
                });
                drop(answer.send((found.collect(), next)));
            }
            Ask::SendAgain { ids, answer } => {
                let (count, found) = self.first_of(&ids);
                let mut moved = Vec::new();
                for letter in found {
                    let Kept { key, id, .. } = letter;
                    let dead = self.dead.fresh(key).cloned().or_else(|| letters.remove(&key));
                    let bytes = dead.as_ref().map(|dead| told(&dead.bytes));
                    let bytes = bytes.filter(|bytes| bytes.len() <= self.settings.message_max);
                    if let Some((dead, bytes)) = dead.zip(bytes) {
                        self.dead.take(key);
                        let position = self.push(id, bytes, now);
                        self.revived.insert(position, (key, dead));
                        moved.push(letter);
                    }
                }
                self.bound_memory(now);
                self.count();
                drop(answer.send((count, moved)));
            }
            Ask::Forget { ids, answer } => {
                let mut count = 0;
                for id in ids {
                    if let Some(Kept { key, .. }) = self.dead.get(id) {
                        self.dead.delete(key);
                        count += 1;
                    }
                }
                self.forgetting |= count > 0;
                self.count();
                let _ = answer.send(count);
            }
        }
    }

    /// What stands from `from` on, where `rows` were read after what memory has of the disk, if they were.
    fn part(&self, from: Position, limit: usize, rows: Option<Vec<Met>>) -> Part {
        let row = |met: Met| match met {
            Met::Row(row) => Some(row),
            Met::Damaged(_) => None,
        };
        // Where the disk is to be read on.
        let end = match rows.as_ref().map(|rows| rows.last()) {
            Some(Some(Met::Row(Row { position, .. }) | Met::Damaged(position))) => position.saturating_add(1),
            Some(None) => Position::MAX,
            None => from.max(self.next_read),
        };
        let rows = rows.unwrap_or_default();
        let out = self.out.range(from..).map(|(_, entry)| entry.row());
        let ahead = self.ahead.iter().cloned().filter_map(row).filter(|row| row.position >= from);
        let rows = rows.into_iter().filter_map(row).filter(|row| row.position >= self.next_read);
        // Where more rows follow, memory's come later.
        let whole = end >= self.stored_end;
        let tail = self.tail.partition_point(|entry| entry.position < from);
        let tail = self.tail.range(if whole { tail } else { self.tail.len() }..);
        let mut size = 0;
        let mut part = Vec::new();
        for Row { position, id, bytes } in out.chain(ahead).chain(rows).chain(tail.map(|entry| entry.row())) {
            if part.len() >= limit.clamp(1, AHEAD.0) || size >= AHEAD.1 {
                return (part, Some(position));
            }
            size += bytes.len();
            part.push((id, bytes));
        }
        (part, (!whole).then_some(end))
    }
}

/// A message in its compact form, with the mark that its loss was told.
fn told(bytes: &[u8]) -> Arc<[u8]> {
    match Message::from_bytes(bytes) {
        Ok(message) => Message { told: Some(true), ..message }.to_bytes().into(),
        Err(_) => bytes.into(),
    }
}

//! When the disk is used, and for what.
//!
//! A commit is due when the oldest message that is in memory only is `spill_after` + `commit_every` old, or
//! `commit_every` where a backlog stands before it, so that no answer can come in time. It takes everything that is in
//! memory only. Losses are committed within `commit_every`. Settled rows are deleted with any commit, and on their own
//! once there are many or nothing else is left. So nothing is written while answers come within `spill_after`, but for
//! the note of the run at the start.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::ledger::Loss;
use super::super::store::{Commit, Committed, Done, Fault, Found, Job, Met, Row, Run};
use super::{Entry, OVERHEAD, Ordering, Position, Queue, Settings};
use crate::model::Cause;

/// How many settled rows are worth a commit of their own.
const SETTLED_MANY: usize = if cfg!(test) { 10 } else { 1_000 };
/// How long they are gathered at least.
const SETTLED_PAUSE: Duration = Duration::from_secs(1);
/// How long to leave a disk alone that has failed: doubled from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What whoever drives the queue does next.
#[derive(Debug)]
pub(in super::super) enum Step {
    /// Does the job and brings its answer.
    Work(Job),
    /// Waits until then, or until the queue wants to work, and asks again.
    Wait(Option<Duration>),
    /// Ends: the queue is closed.
    Closed,
}

/// What is known of the disk.
#[derive(Debug)]
pub(super) enum Disk {
    /// It does what is asked.
    Up,
    /// It is open, and refused the last commit or read.
    Failing(Trouble),
    /// It is not open.
    Absent(Trouble),
}

/// When to try again, and what is the matter.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    retry: Duration,
    pause: Duration,
    /// What was last said about it, so that it is not said again.
    said: Option<String>,
}

impl Disk {
    pub(super) fn absent() -> Self {
        Self::Absent(Trouble::default())
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }
}

impl Trouble {
    fn after(previous: Option<&Self>, fault: &Fault, now: Duration) -> Self {
        let pause = previous.map_or(PAUSE.0, |previous| (previous.pause * 2).clamp(PAUSE.0, PAUSE.1));
        let said = fault.to_string();
        if previous.and_then(|previous| previous.said.as_ref()) != Some(&said) {
            tracing::error!("the buffer is in memory only: {said}");
        }
        Self { retry: now + pause, pause, said: Some(said) }
    }
}

/// How far closing has got.
#[derive(Debug)]
pub(super) enum Closing {
    /// Nobody asked for it.
    No,
    /// Everything is to be committed, with this for the next run.
    Asked { saved: Option<Vec<u8>>, tried: bool },
    /// The file is to be let go of.
    Committed,
    /// Done.
    Closed,
}

impl Queue {
    /// Takes in what a store holds that has just been opened, and makes it the head of the queue.
    pub(in super::super) fn attach(&mut self, found: Found, now: Duration) {
        // What is out goes before the store's first row: it was handed out already, and those were not.
        let count = Position::try_from(self.out.len()).unwrap_or(Position::MAX);
        let moved = std::mem::take(&mut self.out);
        let again = std::mem::take(&mut self.again);
        for ((old, mut entry), position) in moved.into_iter().zip(found.first.saturating_sub(count)..) {
            if again.contains(&old) {
                self.again.insert(position);
            }
            (entry.position, entry.stored) = (position, false);
            self.positions.insert(entry.id, position);
            self.out.insert(position, entry);
        }
        self.next_position = found.end;
        for entry in &mut self.tail {
            entry.position = self.next_position;
            self.next_position += 1;
        }
        self.ahead.clear();
        (self.next_read, self.stored_end) = (found.first, found.end);
        self.hungry = found.first < found.end;
        (self.settled, self.settled_bytes, self.settled_since) = (0, 0, None);
        self.room = found.room;
        self.stats.disk_bytes.store(found.used, Ordering::Relaxed);
        self.run_due = true;
        self.ledger.adopt(found.losses, now);
        if let Some(path) = found.set_aside {
            tracing::error!(file = %path.display(), "the buffer's file was damaged: set aside, and begun anew");
            self.ledger.lose(Cause::Damaged, None, Loss::UNKNOWN, now);
        }
        if found.run.is_some_and(|run| !run.clean) {
            tracing::warn!("weir did not stop in order the last time: what was only in memory then is lost");
            let id = self.next_id();
            self.ledger.lose_sealed(Cause::Crash, Loss::UNKNOWN, id, now);
        }
        if matches!(&self.disk, Disk::Absent(trouble) if trouble.said.is_some()) {
            tracing::info!("the buffer has its file again");
        }
        self.disk = Disk::Up;
        self.count();
    }

    /// The next thing to do.
    pub(in super::super) fn step(&mut self, now: Duration) -> Step {
        self.armed = Duration::ZERO;
        match self.closing {
            Closing::Committed => return Step::Work(Job::Close),
            Closing::Closed => return Step::Closed,
            Closing::No | Closing::Asked { .. } => {}
        }
        if self.seal_in_memory_at().is_some_and(|at| at <= now) {
            self.seal();
        }
        if self.open_at().is_some_and(|at| at <= now) {
            if let Closing::Asked { tried, .. } = &mut self.closing {
                *tried = true;
            }
            return Step::Work(Job::Open);
        }
        if self.commit_at().is_some_and(|at| at <= now) {
            return Step::Work(self.commit(now));
        }
        if self.read_at().is_some_and(|at| at <= now) {
            return Step::Work(Job::Read { from: self.next_read });
        }
        let next = self.next_at();
        self.armed = next.unwrap_or(Duration::MAX);
        Step::Wait(next)
    }

    /// Whether whoever drives the queue sleeps longer than it should by now.
    pub(in super::super) fn wants_work(&self) -> bool {
        self.next_at().is_some_and(|at| at < self.armed)
    }

    /// Takes the answer to the last job.
    pub(in super::super) fn finish(&mut self, done: Done, now: Duration) {
        match done {
            Done::Open(Ok(found)) => {
                if found.run.as_ref().is_some_and(|run| run.saved.is_some()) {
                    // The windows are open anew by now: what was saved of the old ones cannot be put into them.
                    tracing::error!(
                        "the saved windows were found too late to be resumed: their readings are lost"
                    );
                    self.ledger.lose(Cause::Damaged, None, Loss::UNKNOWN, now);
                }
                self.attach(found, now);
            }
            Done::Open(Err(fault)) => {
                let Disk::Absent(trouble) = &self.disk else { return };
                self.disk = Disk::Absent(Trouble::after(Some(trouble), &fault, now));
            }
            Done::Read(Ok(rows)) => self.read(rows),
            Done::Read(Err(fault)) => self.unread(&fault, now),
            Done::Commit(result) => self.committed(result, now),
            Done::Close => self.closing = Closing::Closed,
        }
        self.give_in();
        self.count();
    }

    /// Asks for everything to be committed, with `saved` for the next run. Nothing is handed out any more.
    pub(in super::super) fn close(&mut self, saved: Option<Vec<u8>>, now: Duration) {
        if matches!(self.closing, Closing::No) {
            let bytes = saved.as_ref().map_or(0, Vec::len);
            if bytes > self.settings.saved_max {
                tracing::error!(
                    bytes,
                    saved_max = self.settings.saved_max,
                    "the open windows are too large to be saved: they are lost, and reported as a gap"
                );
                self.ledger.lose(Cause::TooLarge, None, Loss::UNKNOWN, now);
            }
            let saved = saved.filter(|saved| saved.len() <= self.settings.saved_max);
            self.closing = Closing::Asked { saved, tried: false };
            self.give_in();
        }
    }

    /// Gives up on a disk that will never answer: whoever drives the queue has lost it.
    pub(in super::super) fn abandon(&mut self) {
        self.closing = Closing::Closed;
    }

    /// Whether closing is done with.
    pub(in super::super) fn is_closed(&self) -> bool {
        matches!(self.closing, Closing::Closed)
    }

    /// Closes where the disk is not to be had, and was tried.
    fn give_in(&mut self) {
        let Closing::Asked { tried: true, .. } = self.closing else { return };
        if !self.disk.is_up() {
            tracing::error!(
                messages = self.tail.len() + self.out.values().filter(|entry| !entry.stored).count(),
                "the buffer could not be saved at the stop: what it had in memory only is lost"
            );
            self.closing = Closing::Committed;
        }
    }

    fn next_at(&self) -> Option<Duration> {
        if !matches!(self.closing, Closing::No) {
            return Some(Duration::ZERO);
        }
        let all = [self.open_at(), self.seal_in_memory_at(), self.commit_at(), self.read_at()];
        all.into_iter().flatten().min()
    }

    fn open_at(&self) -> Option<Duration> {
        let Disk::Absent(trouble) = &self.disk else { return None };
        Some(if matches!(self.closing, Closing::No) { trouble.retry } else { Duration::ZERO })
    }

    fn seal_in_memory_at(&self) -> Option<Duration> {
        if self.disk.is_up() || !self.gaps_wanted {
            return None;
        }
        Some(self.ledger.open_since()? + self.settings.commit_every)
    }

    fn read_at(&self) -> Option<Duration> {
        let wanted = self.hungry && self.next_read < self.stored_end && !matches!(self.disk, Disk::Absent(_));
        wanted.then(|| self.reading.as_ref().map_or(Duration::ZERO, |trouble| trouble.retry))
    }

    fn commit_at(&self) -> Option<Duration> {
        let earliest = match &self.disk {
            Disk::Absent(_) => return None,
            _ if !matches!(self.closing, Closing::No) => return Some(Duration::ZERO),
            Disk::Up => Duration::ZERO,
            Disk::Failing(trouble) => trouble.retry,
        };
        let Settings { spill_after, commit_every, .. } = self.settings;
        let backlog = self.cursor() < self.stored_end;
        let oldest = self.out.values().find(|entry| !entry.stored).or(self.tail.front());
        let spill = oldest.map(|entry| {
            entry.since.saturating_add(commit_every).saturating_add(if backlog {
                Duration::ZERO
            } else {
                spill_after
            })
        });
        let empty = !backlog && self.out.is_empty() && self.tail.is_empty();
        let delete = self.settled_since.and_then(|since| match self.settled {
            _ if empty => Some(since.saturating_add(commit_every)),
            SETTLED_MANY.. => Some(since.saturating_add(commit_every.min(SETTLED_PAUSE))),
            _ => None,
        });
        let losses = self.ledger.unwritten_since().map(|since| since.saturating_add(commit_every));
        let seal = self.ledger.open_since().map(|since| since.saturating_add(commit_every));
        let now = self.run_due || self.tail_bytes >= self.settings.memory_soft;
        let all = [spill, delete, losses, seal.filter(|_| self.gaps_wanted), now.then_some(Duration::ZERO)];
        all.into_iter().flatten().min().map(|at| at.max(earliest))
    }

    fn seal(&mut self) {
        let (epoch, sequence) = (self.epoch, &mut self.sequence);
        self.ledger.seal(|| {
            *sequence += 1;
            crate::model::Id { epoch, sequence: *sequence }
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

    /// The next commit; or, where room must be made for it and the oldest messages are not in memory, their reading.
    fn commit(&mut self, now: Duration) -> Job {
        let (rows, mut need, all) = self.unstored();
        self.writing_last = false;
        let mut run = self.run_due.then_some(Run { epoch: self.epoch, clean: false, saved: None });
        if let (Closing::Asked { saved, .. }, true) = (&self.closing, all) {
            need += saved.as_ref().map_or(0, Vec::len) as u64;
            run = Some(Run { epoch: self.epoch, clean: true, saved: saved.clone() });
            self.writing_last = true;
        }
        while need > self.room + self.settled_bytes {
            match self.ahead.pop_front() {
                Some(Met::Row(row)) => {
                    self.evicting = true;
                    self.settle_row(row.bytes.len() + OVERHEAD, now);
                    self.stats.evicted.fetch_add(1, Ordering::Relaxed);
                    self.lose(Cause::Evicted, &row.bytes, now);
                }
                Some(Met::Damaged(_)) => self.lose_damaged(now),
                None if self.next_read < self.stored_end
                    && self.reading.as_ref().is_none_or(|trouble| trouble.retry <= now) =>
                {
                    return Job::Read { from: self.next_read };
                }
                None => break,
            }
        }
        if self.gaps_wanted {
            self.seal();
        }
        self.writing = rows.iter().map(|row| row.position).collect();
        self.deleting = (std::mem::take(&mut self.settled), std::mem::take(&mut self.settled_bytes));
        self.settled_since = None;
        let delete_below = self.cursor();
        let keep = self.out.values().filter(|entry| entry.stored).map(|entry| entry.position);
        Job::Commit(Commit { delete_below, keep: keep.collect(), rows, losses: self.ledger.changes(), run })
    }

    fn committed(&mut self, result: Result<Committed, Fault>, now: Duration) {
        let writing = std::mem::take(&mut self.writing);
        // A disk that takes no writes must not stop the stream.
        self.evicting = false;
        self.ledger.written(result.is_ok());
        let Committed { taken, room, used } = match result {
            Ok(committed) => committed,
            Err(fault) => {
                self.settled += self.deleting.0;
                self.settled_bytes += self.deleting.1;
                if self.settled > 0 {
                    self.settled_since.get_or_insert(now);
                }
                return self.fail(&fault, now);
            }
        };
        let complete = taken == writing.len();
        if complete && matches!(self.disk, Disk::Failing(_)) {
            tracing::info!("the buffer is on the disk again");
            self.disk = Disk::Up;
        }
        self.stats.disk_bytes.store(used, Ordering::Relaxed);
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.spilled.fetch_add(taken as u64, Ordering::Relaxed);
        for position in writing.iter().take(taken) {
            self.stored_end = self.stored_end.max(position + 1);
            if let Some(entry) = self.out.get_mut(position) {
                entry.stored = true;
            } else if self.tail.front().is_some_and(|first| first.position == *position) {
                if let Some(entry) = self.tail.pop_front() {
                    self.tail_bytes -= entry.cost();
                }
            } else {
                // It was answered for while it was being written.
                self.settle_row(OVERHEAD, now);
            }
        }
        let had_room = std::mem::replace(&mut self.room, room) > 0;
        if !complete {
            // What the store calls room was none for the next row: have the next commit evict for all it adds.
            self.room = 0;
            if taken == 0 && self.deleting.0 == 0 && !had_room {
                let fault = Fault::Failed(
                    "`max_bytes` is used up, and there is nothing that could be evicted".into(),
                );
                self.fail(&fault, now);
            }
            return;
        }
        self.run_due = false;
        let all = self.tail.is_empty() && self.out.values().all(|entry| entry.stored);
        if self.writing_last && all {
            self.closing = Closing::Committed;
        }
    }

    fn read(&mut self, rows: Vec<Met>) {
        self.hungry = false;
        self.reading = None;
        self.next_read = match rows.last() {
            Some(Met::Row(Row { position, .. }) | Met::Damaged(position)) => position + 1,
            None => self.stored_end,
        };
        self.ahead.extend(rows);
    }

    fn unread(&mut self, fault: &Fault, now: Duration) {
        if matches!(fault, Fault::Corrupt(_)) || !matches!(self.closing, Closing::No) {
            return self.fail(fault, now);
        }
        let pause = self.reading.as_ref().map_or(PAUSE.0, |trouble| trouble.pause);
        if self.reading.is_none() {
            tracing::warn!("the buffer's file cannot be read just now: {fault}");
        }
        self.reading = Some(Trouble { retry: now + pause, pause, said: None });
    }

    fn fail(&mut self, fault: &Fault, now: Duration) {
        let previous = match &self.disk {
            Disk::Up => None,
            Disk::Failing(trouble) | Disk::Absent(trouble) => Some(trouble),
        };
        let trouble = Trouble::after(previous, fault, now);
        match fault {
            Fault::Failed(_) => {
                self.disk = Disk::Failing(trouble);
                // Written again even if nothing else is: so that it shows when the disk is back.
                self.run_due = true;
                if let Closing::Asked { tried, .. } = &mut self.closing {
                    *tried = true;
                }
            }
            Fault::Corrupt(_) => {
                self.detach(now);
                self.disk = Disk::Absent(Trouble { retry: now, ..trouble });
            }
        }
    }

    /// Lets go of a file that is lost, and keeps what memory has of it.
    fn detach(&mut self, now: Duration) {
        self.out = std::mem::take(&mut self.out)
            .into_iter()
            .map(|(position, entry)| (position, Entry { stored: false, ..entry }))
            .collect::<BTreeMap<_, _>>();
        while let Some(met) = self.ahead.pop_back() {
            if let Met::Row(Row { position, id, bytes }) = met {
                let entry = Entry { position, id, bytes, since: now, stored: false };
                self.tail_bytes += entry.cost();
                self.tail.push_front(entry);
            }
        }
        (self.reading, self.evicting) = (None, false);
        (self.next_read, self.stored_end) = (Position::MIN, Position::MIN);
        (self.settled, self.settled_bytes, self.settled_since) = (0, 0, None);
    }
}

//! When the disk is used, and for what.
//!
//! A commit is due when the oldest message that is in memory only is `spill_after` + `commit_every` old, or
//! `commit_every` where a backlog stands before it, so that no answer can come in time. It takes everything that is in
//! memory only. Losses are committed within `commit_every`. Settled rows are deleted with any commit, and on their own
//! once there are many or nothing else is left; rows that are to be expired or purged go at once. So nothing is written
//! while answers come within `spill_after`, but for the note of the run at the start.
//!
//! A commit that is due waits for one read or look at most, beside the job that is being done. What it has to read to
//! make room belongs to it: that goes first, before the uplink can have taken it. A read waits for two commits and a
//! look, and a look for two commits and a read. In a stop nothing is read but that.

use std::time::Duration;

use super::super::ledger::Loss;
use super::super::store::{Done, Job, Known};
use super::{Disk, Queue, Settings, Trouble, ages};
use crate::model::{Cause, Stamp};

/// How many settled rows are worth a commit of their own.
const SETTLED_MANY: usize = if cfg!(test) { 10 } else { 1_000 };
/// How long they are gathered at least.
const SETTLED_PAUSE: Duration = Duration::from_secs(1);
/// How often an untrusted clock is looked at again while rows wait whose age only a trusted one can tell.
const LOOK_EVERY: Duration = Duration::from_secs(60);

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
    /// The next thing to do.
    pub(in super::super) fn step(&mut self, stamp: Stamp) -> Step {
        let now = stamp.monotonic;
        (self.armed, self.looked) = (Duration::ZERO, now);
        self.ages.trust(stamp);
        match self.closing {
            Closing::Committed => return Step::Work(Job::Close),
            Closing::Closed => return Step::Closed,
            Closing::No | Closing::Asked { .. } => {}
        }
        if self.seal_in_memory_at().is_some_and(|at| at <= now) {
            self.seal();
        }
        if self.expire_in_memory_at().is_some_and(|at| at <= now) && matches!(self.closing, Closing::No) {
            self.expire_in_memory(now);
            self.count();
        }
        if self.open_at().is_some_and(|at| at <= now) {
            if let Closing::Asked { tried, .. } = &mut self.closing {
                *tried = true;
            }
            let ids = self.out.values().chain(&self.tail).map(|entry| entry.id).collect();
            let known = Known { ids, settled_below: self.settled_below };
            self.committed_last = false;
            return Step::Work(Job::Open { known });
        }
        if let Some(job) = self.turn(stamp) {
            self.committed_last = matches!(job, Job::Commit(_));
            return Step::Work(job);
        }
        let next = self.next_at();
        self.armed = next.unwrap_or(Duration::MAX);
        Step::Wait(next)
    }

    /// Whose turn it is: commits take turns with whoever reads, and among these those who look with the uplink. So none
    /// holds up another, however often it comes.
    fn turn(&mut self, stamp: Stamp) -> Option<Job> {
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= stamp.monotonic);
        if is_due(self.commit_at()) && !self.committed_last {
            return Some(self.commit(stamp));
        }
        let read = is_due(self.read_at());
        if !(read && self.asked_last) {
            if let Some(job) = self.next_asked(stamp.monotonic) {
                self.asked_last = true;
                return Some(job);
            }
        }
        self.asked_last = false;
        if read {
            return Some(Job::Read { from: self.next_read, until: self.last_row() });
        }
        // What was asked may have made it due.
        if is_due(self.commit_at()) {
            return Some(self.commit(stamp));
        }
        let (_, from) = self.check_at().filter(|(at, _)| is_due(Some(*at)))?;
        Some(Job::Check { from, until: self.last_row() })
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
                // The stream does not wait for a disk that does not come.
                self.salvaging = false;
                let Disk::Absent(trouble) = &self.disk else { return };
                self.disk = Disk::Absent(Trouble::after(Some(trouble), &fault, now));
                self.stats.set_trouble(Some(&fault.to_string()));
            }
            Done::Read(Ok(rows)) => self.read(rows),
            Done::Read(Err(fault)) => self.unread(&fault, now),
            Done::Check(Ok(rows)) => self.checked(&rows, now),
            // What cannot be read is read again when its turn comes.
            Done::Check(Err(fault)) => {
                self.check = None;
                self.unread(&fault, now);
            }
            Done::Look(result) => self.looked_at(result, now),
            Done::Dead(result) => self.dug_up(result, now),
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
            self.asks.clear();
            let saved = saved.filter(|saved| saved.len() <= self.settings.saved_max);
            self.closing = Closing::Asked { saved, tried: false };
            self.give_in();
        }
    }

    /// Gives up on a disk that will never answer: whoever drives the queue has lost it.
    pub(in super::super) fn abandon(&mut self) {
        self.closing = Closing::Closed;
        self.asks.clear();
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
        let all = [
            self.open_at(),
            self.seal_in_memory_at(),
            self.expire_in_memory_at(),
            self.commit_at(),
            self.read_at(),
            self.look_at(),
            self.check_at().map(|(at, _)| at),
            (!self.asks.is_empty()).then_some(Duration::ZERO),
        ];
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
        let wanted = self.hungry
            && self.next_read < self.stored_end
            && !self.disk.is_absent()
            && matches!(self.closing, Closing::No);
        wanted.then(|| self.reading.as_ref().map_or(Duration::ZERO, |trouble| trouble.retry))
    }

    fn look_at(&self) -> Option<Duration> {
        let wanted = self.cursor() < self.stored_end && !self.ages.is_certain();
        wanted.then(|| self.looked.saturating_add(LOOK_EVERY))
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
            ages::monotonic(entry.since).saturating_add(commit_every).saturating_add(if backlog {
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
        let seal = seal.filter(|_| self.gaps_wanted);
        let ordered = !self.revived.is_empty() || self.forgetting;
        let now = self.run_due || self.tail_bytes >= self.settings.memory_soft || ordered;
        let all = [spill, delete, losses, seal, self.clear_at(), now.then_some(Duration::ZERO)];
        all.into_iter().flatten().min().map(|at| at.max(earliest))
    }
}

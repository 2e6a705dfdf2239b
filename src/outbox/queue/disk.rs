//! What is known of the disk: whether it does what is asked, what it holds, and when to try again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::ledger::Loss;
use super::super::store::{Fault, Found, Met, Row, SetAside, Space};
use super::{Closing, Entry, Ordering, Position, Queue, ages};
use crate::model::Cause;

/// How long to leave a disk alone that has failed: doubled from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
    pub(super) retry: Duration,
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

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

impl Trouble {
    pub(super) fn after(previous: Option<&Self>, fault: &Fault, now: Duration) -> Self {
        let pause = previous.map_or(PAUSE.0, |previous| (previous.pause * 2).clamp(PAUSE.0, PAUSE.1));
        let said = fault.to_string();
        if previous.and_then(|previous| previous.said.as_ref()) != Some(&said) {
            tracing::error!("the buffer is in memory only: {said}");
        }
        Self { retry: now + pause, pause, said: Some(said) }
    }
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
        self.ages.adopt(found.marks, found.first, found.end, ages::since(now));
        if let Some(since) = self.out.values().map(|entry| entry.since).max() {
            self.ages.precede(found.first.saturating_sub(count), since);
        }
        for entry in &self.tail {
            self.ages.note(entry.position, entry.since, found.first);
        }
        // Those that were sent again were in memory only, and are in no file.
        self.revived.clear();
        self.forgetting = false;
        let dropped = self.dead.adopt(found.dead);
        self.unburied(dropped);
        self.purge_below = Position::MIN;
        self.measure(found.space);
        self.run_due = true;
        self.ledger.adopt(found.losses, now);
        let held = std::mem::take(&mut self.held);
        self.settled_below = Position::MIN;
        if let Some(SetAside { path, salvaged, missing, windows }) = found.set_aside {
            let lost = missing.map(|missing| missing.saturating_sub(held));
            tracing::error!(
                file = %path.display(),
                salvaged,
                lost = lost.map_or_else(|| "unknown".to_owned(), |lost| lost.to_string()),
                "the buffer's file was damaged: set aside, and begun anew with the messages that could be salvaged; that \
                 others are lost is reported as a gap"
            );
            self.stats.salvaged.fetch_add(salvaged, Ordering::Relaxed);
            let lost = lost.filter(|lost| *lost > 0);
            if let Some(lost) = lost {
                self.stats.damaged.fetch_add(lost, Ordering::Relaxed);
                // Not merged with losses whose number nobody knows.
                let (id, loss) = (self.next_id(), Loss { messages: Some(lost), ..Loss::UNKNOWN });
                self.ledger.lose_sealed(Cause::Damaged, loss, id, now);
            }
            if lost.is_none() || windows {
                self.ledger.lose(Cause::Damaged, None, Loss::UNKNOWN, now);
            }
        }
        // A file that was damaged in this run has this run's own note.
        let crashed = match found.run {
            Some(run) => !run.clean && run.epoch != self.epoch,
            // Its first run ended before its note was kept, or the note is lost.
            None => !found.fresh,
        };
        if crashed {
            if found.first < found.end {
                self.check_from(found.first, now);
            }
            tracing::warn!("weir did not stop in order the last time: what was only in memory then is lost");
            let id = self.next_id();
            self.ledger.lose_sealed(Cause::Crash, Loss::UNKNOWN, id, now);
        }
        if matches!(&self.disk, Disk::Absent(trouble) if trouble.said.is_some()) {
            tracing::info!("the buffer has its file again");
        }
        self.is_up();
        self.count();
    }

    /// The disk does what is asked.
    pub(super) fn is_up(&mut self) {
        self.disk = Disk::Up;
        self.salvaging = false;
        self.stats.set_trouble(None);
    }

    /// Takes note of the space there is.
    pub(super) fn measure(&mut self, space: Space) {
        self.room = space.room;
        self.stats.disk_bytes.store(space.used, Ordering::Relaxed);
        self.stats.below_min_free.store(space.scarce, Ordering::Relaxed);
        match (std::mem::replace(&mut self.scarce, space.scarce), space.scarce) {
            (false, true) => tracing::warn!(
                "less than `min_free` is free on the disk of `state_dir`: the buffer's file does not grow until there \
                 is more"
            ),
            (true, false) => {
                tracing::info!("enough is free on the disk of `state_dir` again: the buffer may grow")
            }
            _ => {}
        }
    }

    /// The position after the last row that the disk must have; `None` where it may have none.
    pub(super) fn last_row(&self) -> Option<Position> {
        (self.cursor() < self.stored_end).then_some(self.stored_end)
    }

    /// Takes in rows that were read to be handed out.
    pub(super) fn read(&mut self, rows: Vec<Met>) {
        self.hungry = false;
        self.reading = None;
        self.next_read = match rows.last() {
            Some(Met::Row(Row { position, .. }) | Met::Damaged(position)) => position + 1,
            None => self.stored_end,
        };
        self.ahead.extend(rows);
    }

    pub(super) fn unread(&mut self, fault: &Fault, now: Duration) {
        if matches!(fault, Fault::Corrupt(_)) {
            return self.fail(fault, now);
        }
        let pause = self.reading.as_ref().map_or(PAUSE.0, |trouble| trouble.pause);
        if self.reading.is_none() {
            tracing::warn!("the buffer's file cannot be read just now: {fault}");
        }
        self.reading = Some(Trouble { retry: now + pause, pause, said: None });
    }

    /// Leaves the disk alone for a while, or lets go of a file that is damaged.
    pub(super) fn fail(&mut self, fault: &Fault, now: Duration) {
        let previous = match &self.disk {
            Disk::Up => None,
            Disk::Failing(trouble) | Disk::Absent(trouble) => Some(trouble),
        };
        let trouble = Trouble::after(previous, fault, now);
        self.stats.set_trouble(Some(&fault.to_string()));
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
        let stored = self.out.values().filter(|entry| entry.stored).count();
        let ahead = self.ahead.iter().filter(|met| matches!(met, Met::Row(_))).count();
        self.held = (stored + ahead + self.settled) as u64;
        self.settled_below = self.next_read;
        self.out = std::mem::take(&mut self.out)
            .into_iter()
            .map(|(position, entry)| (position, Entry { stored: false, ..entry }))
            .collect::<BTreeMap<_, _>>();
        // What was read ahead goes before everything that will be salvaged, so it is as if it had been handed out.
        for met in std::mem::take(&mut self.ahead) {
            if let Met::Row(Row { position, id, bytes }) = met {
                let since = self.ages.since(position).min(ages::since(now));
                self.again.insert(position);
                self.positions.insert(id, position);
                let entry = Entry { position, id, bytes, since, stored: false, shifts: false };
                self.out.insert(position, entry);
            }
        }
        // What is in memory only comes after it.
        self.salvaging = true;
        (self.reading, self.check, self.evicting) = (None, None, false);
        self.revived.clear();
        self.forgetting = false;
        self.dead.forget();
        self.purge_below = Position::MIN;
        (self.next_read, self.stored_end) = (Position::MIN, Position::MIN);
        (self.settled, self.settled_bytes, self.settled_since) = (0, 0, None);
    }
}

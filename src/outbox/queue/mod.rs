//! The queue's whole mind, without I/O and without a clock: the time comes as an argument, work goes out as a
//! [`Job`](super::store::Job), and its answer comes back in.
//!
//! A message has a position that rises in order of appending. By it the messages stand in three places, each after
//! the one before:
//!
//! - `out`: handed out and unanswered, whether the disk has them too or not. Their bytes stay in memory; the uplink's
//!   window bounds them.
//! - on the disk and not handed out yet: the first of them in `ahead`, the others from `next_read` to `stored_end`.
//!   They cost no memory each.
//! - `tail`: in memory only.
//!
//! Hence: messages are taken from the tail only when there is no backlog on the disk; a spill writes everything that
//! is only in memory, from the oldest on, and adds to the disk's end; and what may be deleted is everything below the
//! first message not handed out (`cursor`), but for `out`. A message that is evicted, expired, purged or found damaged
//! is handed to the ledger instead of the uplink, and deleted in the very commit that makes its ledger entry durable.
//!
//! This file has what the queue knows, and takes messages in; [`out`] hands them out. [`schedule`] says when the disk is
//! used, [`commit`] what for, [`disk`] what is known of it, and [`check`] looks through it after a crash. [`losing`] has
//! what leaves unsent, [`ages`] how old it is, and [`asked`] answers those who only look.

mod ages;
mod asked;
mod check;
mod commit;
mod disk;
mod losing;
mod out;
mod schedule;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::dead::DeadLetters;
use super::ledger::Ledger;
use super::store::{Dead, Met, Position, Row};
use super::{Stats, WhenFull};
use crate::model::{Cause, Gap, Id};

use ages::{Ages, Since};
pub(super) use asked::Ask;
use check::Check;
use disk::{Disk, Trouble};
use schedule::Closing;
pub(super) use schedule::Step;

/// What a message costs beside its bytes, in memory and in the file, about.
const OVERHEAD: usize = 40;

/// What the queue is told about its world.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long a message may be unacknowledged in memory before it counts as waiting.
    pub(super) spill_after: Duration,
    /// How long commits are gathered.
    pub(super) commit_every: Duration,
    /// Bytes of the tail at which it is spilled without delay.
    pub(super) memory_soft: usize,
    /// Bytes of the tail beyond which its oldest are dropped.
    pub(super) memory_hard: usize,
    /// About the most bytes of messages in one commit.
    pub(super) commit_max: usize,
    /// The most bytes of a message; what is larger is not taken in.
    pub(super) message_max: usize,
    /// The most bytes that are left for the next run.
    pub(super) saved_max: usize,
    /// How long a message may wait.
    pub(super) max_age: Duration,
    /// What is lost where there is no room.
    pub(super) when_full: WhenFull,
    /// The most bytes of dead letters.
    pub(super) dead_max: usize,
}

/// A message in memory.
#[derive(Clone, Debug)]
struct Entry {
    position: Position,
    id: Id,
    bytes: Arc<[u8]>,
    /// When it was appended; of what was read from the disk, that or somewhat later.
    since: Since,
    /// Whether the disk has it.
    stored: bool,
    /// Whether the clock was trusted when it was first handed out in this run: it is told alike every time.
    shifts: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    fn row(&self) -> Row {
        Row { position: self.position, id: self.id, bytes: Arc::clone(&self.bytes) }
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    settings: Settings,
    stats: Arc<Stats>,
    epoch: u64,
    sequence: u64,
    next_position: Position,

    out: BTreeMap<Position, Entry>,
    /// Which of `out` are to be handed out again.
    again: BTreeSet<Position>,
    /// Where the messages of `out` stand.
    positions: HashMap<Id, Position>,

    ahead: VecDeque<Met>,
    next_read: Position,
    stored_end: Position,
    /// Whether somebody would take more if it were read ahead.
    hungry: bool,

    tail: VecDeque<Entry>,
    tail_bytes: usize,

    ledger: Ledger,
    gaps_wanted: bool,

    ages: Ages,
    /// When the clock was last looked at.
    looked: Duration,
    /// Everything below this that waits is to be lost, by order.
    purge_below: Position,

    dead: DeadLetters,
    /// The dead letters that are to be sent again, by where they stand now, until a commit has them there.
    revived: BTreeMap<Position, (i64, Dead)>,
    /// Whether dead letters are to be forgotten that the disk may still have.
    forgetting: bool,
    asks: VecDeque<Ask>,
    /// Whether the last read of the disk was for one of those, and not ahead of the uplink.
    asked_last: bool,
    /// Whether the last job was a commit.
    committed_last: bool,

    disk: Disk,
    /// Why reading has to pause.
    reading: Option<Trouble>,
    /// Whether a file that was found damaged is to be salvaged: until then nothing that comes after its rows is handed
    /// out.
    salvaging: bool,
    /// Of such a file: how many of its rows memory has or knows to be settled, and below which all others are.
    held: u64,
    settled_below: Position,
    /// The look through what a run left that did not stop in order.
    check: Option<Check>,
    /// How many rows the disk has that were settled and not deleted yet, their bytes, and since when.
    settled: usize,
    settled_bytes: u64,
    settled_since: Option<Duration>,
    /// How many bytes of messages the file takes beside those that it has.
    room: u64,
    /// Whether less than `min_free` is free on the disk. There may be more by now: while it is so, rows are lost for
    /// want of room only once the store has not taken them.
    scarce: bool,
    refused: bool,
    /// Whether the note of this run is not in the file yet.
    run_due: bool,
    /// What a commit is just writing: positions in order, and the settled rows that it deletes.
    writing: Vec<Position>,
    deleting: (usize, u64),
    /// Whether messages were evicted that the commit under way deletes. Should it not become true before a crash, they
    /// are back: until then nothing that comes after them is handed out.
    evicting: bool,
    /// Whether it writes all that was in memory only, and the note of an orderly stop.
    writing_all: bool,
    writing_last: bool,
    closing: Closing,
    /// Until when whoever drives the queue sleeps; zero while it is at work.
    armed: Duration,
}

impl Queue {
    /// An empty queue that has no disk yet.
    pub(super) fn new(settings: Settings, epoch: u64, stats: Arc<Stats>) -> Self {
        Self {
            ages: Ages::new(settings.max_age),
            looked: Duration::ZERO,
            purge_below: Position::MIN,
            dead: DeadLetters::new(settings.dead_max),
            revived: BTreeMap::new(),
            forgetting: false,
            asks: VecDeque::new(),
            asked_last: false,
            committed_last: false,
            settings,
            stats,
            epoch,
            sequence: 0,
            next_position: 0,
            out: BTreeMap::new(),
            again: BTreeSet::new(),
            positions: HashMap::new(),
            ahead: VecDeque::new(),
            next_read: 0,
            stored_end: 0,
            hungry: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            ledger: Ledger::default(),
            gaps_wanted: false,
            disk: Disk::absent(),
            reading: None,
            salvaging: false,
            held: 0,
            settled_below: Position::MIN,
            check: None,
            settled: 0,
            settled_bytes: 0,
            settled_since: None,
            room: 0,
            scarce: false,
            refused: false,
            run_due: false,
            writing: Vec::new(),
            deleting: (0, 0),
            evicting: false,
            writing_all: false,
            writing_last: false,
            closing: Closing::No,
            armed: Duration::ZERO,
        }
    }

    /// The epoch of this run's ids.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it counts.
    pub(super) fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// The most bytes that are left for the next run.
    pub(super) fn saved_max(&self) -> usize {
        self.settings.saved_max
    }

    /// Takes another epoch, because this one could not be stored. Only before any id was handed out.
    pub(super) fn change_epoch(&mut self, epoch: u64) {
        self.ledger.change_epoch(self.epoch, epoch);
        self.epoch = epoch;
    }

    /// Whether memory takes a message of so many bytes without dropping another, or waiting would not help.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        let fits = self.tail_bytes + bytes + OVERHEAD <= self.settings.memory_hard;
        fits || self.tail.is_empty() || !self.disk.is_up() || bytes > self.settings.message_max
    }

    /// Puts a message in its compact form at the end. Where memory is full its oldest or newest are dropped, into the
    /// ledger, and so is a message that the disk could never take: no room that is made for it would be enough.
    pub(super) fn append(&mut self, bytes: Vec<u8>, now: Duration) {
        let message_max = self.settings.message_max;
        if bytes.len() > message_max {
            self.lose(Cause::TooLarge, &bytes, now);
            if let Some(count) = self.stats.too_large.count() {
                tracing::error!(
                    count,
                    bytes = bytes.len(),
                    message_max,
                    "messages are too large for the buffer: they are lost, and reported as a gap; a larger `max_bytes` \
                     takes larger ones"
                );
            }
            return self.count();
        }
        let id = self.next_id();
        self.push(id, bytes.into(), now);
        self.bound_memory(now);
        self.count();
    }

    /// Puts a message at the end, and tells where that is.
    fn push(&mut self, id: Id, bytes: Arc<[u8]>, now: Duration) -> Position {
        let position = self.next_position;
        self.next_position += 1;
        let entry = Entry { position, id, bytes, since: ages::since(now), stored: false, shifts: false };
        self.ages.note(position, entry.since, self.cursor());
        self.tail_bytes += entry.cost();
        self.tail.push_back(entry);
        position
    }

    /// Hands out the gap records that can be, and asks for those that cannot yet.
    pub(super) fn gaps(&mut self) -> Vec<Gap> {
        if !matches!(self.closing, Closing::No) {
            return Vec::new();
        }
        self.gaps_wanted = true;
        // While the disk takes no writes, a gap told twice after a crash is better than one that is never told.
        self.ledger.tell(self.disk.is_up())
    }

    /// Forgets a gap record that was answered for.
    pub(super) fn acknowledge_gap(&mut self, id: Id) {
        self.ledger.acknowledge(id);
    }

    /// Whether nothing waits any more, no gap and no write.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty()
            && self.tail.is_empty()
            && self.backlog() == 0
            && self.ledger.len() == 0
            && self.settled == 0
            && !self.dead.is_unwritten()
    }

    fn next_id(&mut self) -> Id {
        self.sequence += 1;
        Id { epoch: self.epoch, sequence: self.sequence }
    }

    /// The first position that was not handed out: everything below it is out or settled.
    fn cursor(&self) -> Position {
        match self.ahead.front() {
            Some(Met::Row(row)) => row.position,
            Some(Met::Damaged(position)) => *position,
            None => self.next_read,
        }
    }

    /// How many messages wait on the disk, and were not handed out; about, for rows may be missing in between.
    fn backlog(&self) -> u64 {
        u64::try_from(self.stored_end.saturating_sub(self.cursor())).unwrap_or(0)
    }

    fn count(&self) {
        let stats = &self.stats;
        stats.in_memory.store((self.tail.len() + self.out.len()) as u64, Ordering::Relaxed);
        stats.memory_bytes.store(self.tail_bytes as u64, Ordering::Relaxed);
        stats.on_disk.store(self.backlog(), Ordering::Relaxed);
        stats.disk_ok.store(self.disk.is_up(), Ordering::Relaxed);
        stats.gaps.store(self.ledger.len() as u64, Ordering::Relaxed);
        stats.dead_letters.store(self.dead.len() as u64, Ordering::Relaxed);
    }
}

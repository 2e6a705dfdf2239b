//! What there is and what the model knows of it: each operation is done to the queue, and noted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::platter::{Faults, Faulty};
use super::super::{message, number, stamp};
use super::Op;
use crate::model::{Cause, Gap, Id, Message, Timestamp};
use crate::outbox::begin;
use crate::outbox::queue::{Queue, Settings, Step};
use crate::outbox::store::{Commit, Done, Job, Met, Position, Store};

/// What survives, and how to get at it.
pub(super) struct Ground<'a> {
    /// Makes a store over it.
    pub(super) maker: &'a dyn Fn() -> Box<dyn Store>,
    /// Says whether little is free around it.
    pub(super) scarce: &'a dyn Fn(bool),
}

pub(super) struct World<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) settings: Settings,
    pub(super) padding: usize,
    pub(super) faults: Faults,
    pub(super) store: Box<dyn Store>,
    pub(super) queue: Queue,
    pub(super) now: Duration,
    pub(super) pending: Option<(Option<Commit>, Done)>,
    /// How many messages there have been.
    pub(super) messages: u64,
    pub(super) acknowledged: BTreeSet<u64>,
    /// Those that a store has had at some time.
    pub(super) committed: BTreeSet<u64>,
    pub(super) out: BTreeMap<Id, u64>,
    pub(super) ids: BTreeMap<Id, u64>,
    pub(super) given: BTreeMap<u64, Id>,
    /// The last message that was handed out for the first time. Order does not hold once an older store came late, or
    /// a crash undid an eviction that a failing disk did not take.
    pub(super) first: Option<u64>,
    pub(super) unordered: bool,
    pub(super) gaps: BTreeMap<Id, Gap>,
    pub(super) gaps_out: Vec<Id>,
    /// How many were in memory only at a crash.
    pub(super) crashed: u64,
    pub(super) crash_gaps: usize,
    pub(super) readings_exact: bool,
    /// When each message was appended.
    pub(super) appended: Vec<Duration>,
    /// Those that were given up, and of these those that were sent again, which may be lost once more; and how often
    /// that was done.
    pub(super) given_up: BTreeSet<u64>,
    pub(super) revived: BTreeSet<u64>,
    pub(super) revivals: u64,
    /// What bore the mark that its loss was told when it was last handed out, and what was acknowledged with it: so many
    /// more are told than lost.
    pub(super) marked: BTreeSet<Id>,
    pub(super) spared: BTreeSet<u64>,
    /// What was given up since the last commit: a crash undoes that.
    pub(super) fresh: BTreeSet<u64>,
    pub(super) crashes: u64,
    /// Whether open windows found no room, of which nobody knows how much they were: the ledger may have to merge that
    /// with what it knows.
    pub(super) unknown: bool,
}

impl<'a> World<'a> {
    pub(super) fn new(ground: &'a Ground<'a>, settings: Settings, padding: usize) -> Self {
        let faults = Faults::default();
        let mut store: Box<dyn Store> = Box::new(Faulty { store: (ground.maker)(), faults: faults.clone() });
        let (queue, saved) = begin(&mut *store, settings.clone(), stamp(Duration::ZERO));
        assert_eq!(saved, None);
        Self {
            ground,
            settings,
            padding,
            faults,
            store,
            queue,
            now: Duration::ZERO,
            pending: None,
            messages: 0,
            acknowledged: BTreeSet::new(),
            committed: BTreeSet::new(),
            out: BTreeMap::new(),
            ids: BTreeMap::new(),
            given: BTreeMap::new(),
            first: None,
            unordered: false,
            gaps: BTreeMap::new(),
            gaps_out: Vec::new(),
            crashed: 0,
            crash_gaps: 0,
            readings_exact: true,
            appended: Vec::new(),
            given_up: BTreeSet::new(),
            revived: BTreeSet::new(),
            revivals: 0,
            marked: BTreeSet::new(),
            spared: BTreeSet::new(),
            fresh: BTreeSet::new(),
            crashes: 0,
            unknown: false,
        }
    }

    pub(super) fn apply(&mut self, op: &Op) {
        let chosen = |out: &BTreeMap<Id, u64>, mask: u16| -> Vec<Id> {
            let ids = out.keys().enumerate();
            ids.filter(|(bit, _)| mask & 1 << (bit % 16) != 0).map(|(_, id)| *id).collect()
        };
        match op {
            Op::Append(count) => {
                for _ in 0..*count {
                    let bytes = message(self.messages, self.padding).to_bytes();
                    self.queue.append(bytes, self.now);
                    self.appended.push(self.now);
                    self.messages += 1;
                }
            }
            Op::Take { messages, bytes } => self.take(*messages, *bytes),
            Op::Acknowledge(mask) => {
                let mut ids = chosen(&self.out, *mask);
                ids.reverse();
                self.acknowledge(&ids);
            }
            Op::AcknowledgeUnknown => {
                let unknown = Id { epoch: 1, sequence: 1 };
                let again: Vec<_> =
                    self.ids.keys().filter(|id| !self.out.contains_key(id)).copied().collect();
                self.queue.acknowledge(&[unknown], self.now);
                self.queue.acknowledge(&again, self.now);
                self.queue.put_back(&again);
                self.queue.give_up(unknown, Cause::Refused, Some("unknown"), stamp(self.now));
            }
            // The model does not forget what was put back: it may be answered for late.
            Op::PutBack(mask) => self.queue.put_back(&chosen(&self.out, *mask)),
            Op::PutBackAll => {
                self.queue.put_back_all();
                self.gaps_out.clear();
            }
            Op::GiveUp(which) => {
                let id = self.out.keys().nth(usize::from(*which) % self.out.len().max(1)).copied();
                if let Some(id) = id {
                    let number = self.out.remove(&id);
                    self.given_up.extend(number);
                    self.fresh.extend(number.filter(|_| !self.marked.contains(&id)));
                    self.queue.give_up(id, Cause::Refused, Some("no"), stamp(self.now));
                }
            }
            Op::Look(limit) => self.look(*limit),
            Op::SendAgain(mask) => self.send_again(*mask),
            Op::Purge => self.purge(),
            Op::Scarce(scarce) => (self.ground.scarce)(*scarce),
            Op::Gaps => self.take_gaps(),
            Op::AcknowledgeGaps(mask) => {
                let mut bit = 0;
                let queue = &mut self.queue;
                self.gaps_out.retain(|id| {
                    bit += 1;
                    let chosen = mask & 1 << (bit % 8) != 0;
                    if chosen {
                        queue.acknowledge_gap(*id);
                    }
                    !chosen
                });
            }
            Op::Pass(time) => {
                self.now += *time;
                self.work();
            }
            Op::Begin => {
                self.answer();
                if let Step::Work(job) = self.queue.step(stamp(self.now)) {
                    self.start(job);
                }
            }
            Op::Fail { opens, reads, commits } => {
                let mut faults = self.faults.now();
                (faults.opens, faults.reads, faults.commits) = (*opens, *reads, *commits);
            }
            Op::Heal => *self.faults.now() = Default::default(),
            Op::Crash(death) => self.crash(*death),
            Op::Close(save) => self.close(save.then(|| vec![7; 100])),
        }
    }

    /// Holds that no more has expired in this run than is old enough.
    pub(super) fn check_ages(&self) {
        let old = self.appended.iter().filter(|appended| **appended + self.settings.max_age <= self.now);
        let (old, expired) = (old.count() as u64 + self.revivals, self.queue.stats().expired.get());
        assert!(expired <= old, "{expired} have expired, and {old} are old enough");
    }

    pub(super) fn take(&mut self, messages: usize, bytes: usize) {
        let taken = self.queue.take(messages, bytes, false, self.now);
        assert!(taken.len() <= messages);
        let size: usize = taken.iter().map(|(_, bytes, _)| bytes.len()).sum();
        assert!(taken.len() <= 1 || size <= bytes, "{size} bytes where {bytes} were asked for");
        for (id, bytes, _) in taken {
            let message = Message::from_bytes(&bytes).unwrap();
            let number = number(&message);
            match message.told {
                Some(true) => self.marked.insert(id),
                _ => self.marked.remove(&id),
            };
            assert!(
                !self.acknowledged.contains(&number) || self.revived.contains(&number),
                "{number} was acknowledged, and comes again"
            );
            assert_eq!(*self.ids.entry(id).or_insert(number), number, "{id} is given twice");
            assert_eq!(
                *self.given.entry(number).or_insert_with(|| {
                    assert!(
                        self.unordered || self.first.is_none_or(|first| first < number),
                        "{number} is late"
                    );
                    self.first = self.first.max(Some(number));
                    id
                }),
                id,
                "{number} has two ids"
            );
            assert!(!self.gaps.contains_key(&id), "{id} is a gap's and a message's");
            self.out.insert(id, number);
        }
    }

    pub(super) fn acknowledge(&mut self, ids: &[Id]) {
        let stats = self.queue.stats();
        for id in ids {
            let before = stats.acknowledged.load(Ordering::Relaxed);
            let purged = self.purged();
            self.queue.acknowledge(&[*id], self.now);
            let taken = stats.acknowledged.load(Ordering::Relaxed) > before;
            let number = self.out.remove(id);
            // What was put back may be lost by the ledger before it is answered for, late.
            assert!(taken || self.settings.max_age <= AGE || purged > 0, "{id} is not known");
            if let Some(number) = number.filter(|_| taken) {
                self.acknowledged.insert(number);
                match self.marked.contains(id) {
                    true => self.spared.insert(number),
                    false => self.spared.remove(&number),
                };
            }
        }
    }

    /// While the disk fails, records may be told that a crash makes be told again: the model does not ask then.
    pub(super) fn take_gaps(&mut self) {
        if !self.disk_ok() {
            return;
        }
        for gap in self.queue.gaps() {
            self.unknown |= gap.cause == Cause::Full && gap.messages.is_none();
            assert!(!self.ids.contains_key(&gap.id), "{} is a message's and a gap's", gap.id);
            let known = self.gaps.entry(gap.id).or_insert_with(|| gap.clone());
            assert_eq!(known, &gap, "a record that was handed out has changed");
            assert!(!self.gaps_out.contains(&gap.id), "a record is handed out twice");
            self.gaps_out.push(gap.id);
        }
    }

    /// How much is lost in this run beside what is given up.
    pub(super) fn lost(&self) -> u64 {
        let stats = self.queue.stats();
        let evicted = stats.evicted.load(Ordering::Relaxed) + stats.dead_letters_dropped.get();
        evicted + stats.full.get() + stats.expired.get() + stats.purged.get() + stats.lost_again.get()
    }

    pub(super) fn purged(&self) -> u64 {
        let stats = self.queue.stats();
        stats.purged.get() + stats.purged_again.load(Ordering::Relaxed)
    }

    /// What the disk has, whatever fails.
    pub(super) fn stored(&mut self) -> BTreeSet<u64> {
        let faults = std::mem::take(&mut *self.faults.now());
        let (mut stored, mut from) = (BTreeSet::new(), Position::MIN);
        loop {
            let rows = self.store.read(from, None, 100, usize::MAX).unwrap();
            let Some(Met::Row(last)) = rows.last() else { break };
            from = last.position + 1;
            for met in &rows {
                let Met::Row(row) = met else { panic!("damaged") };
                stored.insert(number(&Message::from_bytes(&row.bytes).unwrap()));
            }
        }
        *self.faults.now() = faults;
        stored
    }

    pub(super) fn disk_ok(&self) -> bool {
        self.queue.stats().disk_ok.load(Ordering::Relaxed)
    }

    pub(super) fn start(&mut self, job: Job) {
        let done = job.run(&mut *self.store, Timestamp(0));
        let commit = match job {
            Job::Commit(commit) => Some(commit),
            _ => None,
        };
        if let (Some(commit), Done::Commit(Ok(committed))) = (&commit, &done) {
            let rows = commit.rows.iter().take(committed.taken);
            self.fresh.clear();
            self.committed.extend(rows.map(|row| number(&Message::from_bytes(&row.bytes).unwrap())));
        }
        self.pending = Some((commit, done));
    }

    pub(super) fn answer(&mut self) {
        if let Some((_, done)) = self.pending.take() {
            self.queue.finish(done, self.now);
        }
    }

    /// Has everything done that is due.
    pub(super) fn work(&mut self) {
        for _ in 0..10_000 {
            self.answer();
            match self.queue.step(stamp(self.now)) {
                Step::Work(job) => self.start(job),
                Step::Wait(_) => return assert!(!self.queue.wants_work(), "it waits for what it wants"),
                Step::Closed => return,
            }
        }
        panic!("it works for ever: {:?} {:?}", self.queue.step(stamp(self.now)), self.queue);
    }
}

/// The `max_age` of those worlds where messages expire.
pub(super) const AGE: Duration = Duration::from_secs(64);

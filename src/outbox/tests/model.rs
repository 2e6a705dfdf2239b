//! Random use, faults and crashes against a model that knows of every message only what became of it.
//!
//! The model does not know how the queue works. It numbers the messages, and holds after every crash and at the end
//! that each is acknowledged, still there, counted in the ledger, or was never committed before a crash; that first
//! deliveries are in order; and that no id is given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;

use super::super::begin;
use super::super::queue::{Queue, Settings, Step};
use super::super::sqlite::Sqlite;
use super::super::store::{Commit, Done, Job, Met, Store};
use super::platter::{Faults, Faulty, Platter};
use super::{message, number, small};
use crate::model::{Cause, Gap, Id, Message, Stamp, Timestamp};

#[derive(Clone, Debug)]
enum Op {
    Append(u8),
    Take {
        messages: usize,
        bytes: usize,
    },
    /// Bit by bit, which of those that are out.
    Acknowledge(u16),
    AcknowledgeUnknown,
    PutBack(u16),
    PutBackAll,
    GiveUp(u8),
    Gaps,
    AcknowledgeGaps(u8),
    /// Lets time pass, and has all work done that comes due.
    Pass(Duration),
    /// Has one job done, whose answer comes only with the next `Pass` or `Begin`.
    Begin,
    Fail {
        opens: bool,
        reads: bool,
        commits: bool,
    },
    Heal,
    /// Dies between jobs; or in a commit that has not become true yet; or in one that has.
    Crash(Death),
    Close(bool),
}

#[derive(Clone, Copy, Debug)]
enum Death {
    Idle,
    BeforeCommit,
    AfterCommit,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1..6_u8).prop_map(Op::Append),
        6 => (1..8_usize, 0..600_usize).prop_map(|(messages, bytes)| Op::Take { messages, bytes }),
        6 => any::<u16>().prop_map(Op::Acknowledge),
        1 => Just(Op::AcknowledgeUnknown),
        2 => any::<u16>().prop_map(Op::PutBack),
        1 => Just(Op::PutBackAll),
        2 => any::<u8>().prop_map(Op::GiveUp),
        2 => Just(Op::Gaps),
        2 => any::<u8>().prop_map(Op::AcknowledgeGaps),
        6 => (0..20_000_u64).prop_map(|ms| Op::Pass(Duration::from_millis(ms))),
        3 => Just(Op::Begin),
        1 => any::<[bool; 3]>().prop_map(|[opens, reads, commits]| Op::Fail { opens, reads, commits }),
        2 => Just(Op::Heal),
        1 => prop_oneof![Just(Death::Idle), Just(Death::BeforeCommit), Just(Death::AfterCommit)]
            .prop_map(Op::Crash),
        1 => any::<bool>().prop_map(Op::Close),
    ]
}

/// Makes a store over what survives.
type Maker<'a> = &'a dyn Fn() -> Box<dyn Store>;

struct World<'a> {
    maker: Maker<'a>,
    settings: Settings,
    padding: usize,
    faults: Faults,
    store: Box<dyn Store>,
    queue: Queue,
    now: Duration,
    pending: Option<(Option<Commit>, Done)>,
    /// How many messages there have been.
    messages: u64,
    acknowledged: BTreeSet<u64>,
    /// Those that a store has had at some time.
    committed: BTreeSet<u64>,
    out: BTreeMap<Id, u64>,
    ids: BTreeMap<Id, u64>,
    given: BTreeMap<u64, Id>,
    /// The last message that was handed out for the first time. Order does not hold once an older store came late, or
    /// a crash undid an eviction that a failing disk did not take.
    first: Option<u64>,
    unordered: bool,
    gaps: BTreeMap<Id, Gap>,
    gaps_out: Vec<Id>,
    /// How many were in memory only at a crash.
    crashed: u64,
    crash_gaps: usize,
    readings_exact: bool,
}

impl<'a> World<'a> {
    fn new(maker: Maker<'a>, settings: Settings, padding: usize) -> Self {
        let faults = Faults::default();
        let mut store: Box<dyn Store> = Box::new(Faulty { store: maker(), faults: faults.clone() });
        let (queue, saved) = begin(&mut *store, settings.clone(), stamp(Duration::ZERO));
        assert_eq!(saved, None);
        Self {
            maker,
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
        }
    }

    fn apply(&mut self, op: &Op) {
        let chosen = |out: &BTreeMap<Id, u64>, mask: u16| -> Vec<Id> {
            let ids = out.keys().enumerate();
            ids.filter(|(bit, _)| mask & 1 << (bit % 16) != 0).map(|(_, id)| *id).collect()
        };
        match op {
            Op::Append(count) => {
                for _ in 0..*count {
                    let bytes = message(self.messages, self.padding).to_bytes();
                    self.queue.append(bytes, self.now);
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
                    self.out.remove(&id);
                    self.queue.give_up(id, Cause::Refused, Some("no"), stamp(self.now));
                }
            }
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

    fn take(&mut self, messages: usize, bytes: usize) {
        let taken = self.queue.take(messages, bytes, false, self.now);
        assert!(taken.len() <= messages);
        let size: usize = taken.iter().map(|(_, bytes, _)| bytes.len()).sum();
        assert!(taken.len() <= 1 || size <= bytes, "{size} bytes where {bytes} were asked for");
        for (id, bytes, _) in taken {
            let number = number(&Message::from_bytes(&bytes).unwrap());
            assert!(!self.acknowledged.contains(&number), "{number} was acknowledged, and comes again");
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

    fn acknowledge(&mut self, ids: &[Id]) {
        self.queue.acknowledge(ids, self.now);
        for id in ids {
            self.acknowledged.extend(self.out.remove(id));
        }
    }

    /// While the disk fails, records may be told that a crash makes be told again: the model does not ask then.
    fn take_gaps(&mut self) {
        if !self.disk_ok() {
            return;
        }
        for gap in self.queue.gaps() {
            assert!(!self.ids.contains_key(&gap.id), "{} is a message's and a gap's", gap.id);
            let known = self.gaps.entry(gap.id).or_insert_with(|| gap.clone());
            assert_eq!(known, &gap, "a record that was handed out has changed");
            assert!(!self.gaps_out.contains(&gap.id), "a record is handed out twice");
            self.gaps_out.push(gap.id);
        }
    }

    fn disk_ok(&self) -> bool {
        self.queue.stats().disk_ok.load(Ordering::Relaxed)
    }

    fn start(&mut self, job: Job) {
        let done = job.run(&mut *self.store, Timestamp(0));
        let commit = match job {
            Job::Commit(commit) => Some(commit),
            _ => None,
        };
        if let (Some(commit), Done::Commit(Ok(committed))) = (&commit, &done) {
            let rows = commit.rows.iter().take(committed.taken);
            self.committed.extend(rows.map(|row| number(&Message::from_bytes(&row.bytes).unwrap())));
        }
        self.pending = Some((commit, done));
    }

    fn answer(&mut self) {
        if let Some((_, done)) = self.pending.take() {
            self.queue.finish(done, self.now);
        }
    }

    /// Has everything done that is due.
    fn work(&mut self) {
        for _ in 0..10_000 {
            self.answer();
            match self.queue.step(stamp(self.now)) {
                Step::Work(job) => self.start(job),
                Step::Wait(_) => return assert!(!self.queue.wants_work(), "it waits for what it wants"),
                Step::Closed => return,
            }
        }
        panic!("it works for ever");
    }

    fn crash(&mut self, death: Death) {
        let job = match death {
            Death::Idle => None,
            Death::BeforeCommit | Death::AfterCommit => {
                self.answer();
                self.now += Duration::from_secs(60);
                match self.queue.step(stamp(self.now)) {
                    Step::Work(job) => Some(job),
                    _ => None,
                }
            }
        };
        if let (Death::AfterCommit, Some(job)) = (death, job) {
            self.start(job);
        }
        self.reopen();
    }

    fn close(&mut self, saved: Option<Vec<u8>>) {
        self.queue.close(saved.clone(), self.now);
        self.work();
        assert!(self.queue.is_closed());
        // Where the disk refused the last commit, what an earlier run saved may still be there.
        let committed = self.disk_ok();
        let found = self.reopen();
        if committed && self.disk_ok() && found.is_some() {
            assert_eq!(found, saved, "what was saved comes back");
        }
    }

    /// Starts anew over what survives, and holds it against what the model knows. Gives what was saved.
    fn reopen(&mut self) -> Option<Vec<u8>> {
        self.pending = None;
        let disk_ok = self.disk_ok();
        // Let go of the file, then look at it with no faults.
        self.store = Box::new(Platter::new(0));
        let mut store = (self.maker)();
        let found = store.open(Timestamp(0)).unwrap();
        let mut stored = BTreeSet::new();
        let mut from = found.first;
        loop {
            let rows = store.read(from, 100, usize::MAX).unwrap();
            let Some(Met::Row(last)) = rows.last() else { break };
            from = last.position + 1;
            for met in &rows {
                let Met::Row(row) = met else { panic!("damaged") };
                let new = stored.insert(number(&Message::from_bytes(&row.bytes).unwrap()));
                assert!(new, "a message is stored twice");
            }
        }
        drop(store);

        // The note may be of a run before, where the file could not be opened in this one.
        let clean = found.run.as_ref().is_some_and(|run| run.clean && run.epoch == self.queue.epoch());
        if clean {
            assert_eq!(stored.intersection(&self.acknowledged).count(), 0, "acknowledged ones were kept");
        }
        self.acknowledged = self.acknowledged.difference(&stored).copied().collect();
        let unseen =
            found.losses.iter().filter(|(_, record)| record.id.is_none_or(|id| !self.gaps.contains_key(&id)));
        let unseen: u64 = unseen.filter_map(|(_, record)| record.loss.messages).sum();
        let counted = unseen + self.told().0;
        let gone = |number: &u64| !stored.contains(number) && !self.acknowledged.contains(number);
        let lost = (0..self.messages).filter(gone).count() as u64 - self.crashed;
        let certain =
            (0..self.messages).filter(gone).filter(|number| self.committed.contains(number)).count() as u64;
        assert!(certain <= counted, "{certain} were committed and are gone, {counted} are counted");
        assert!(counted <= lost, "{lost} are gone, {counted} are counted");
        if clean {
            assert_eq!(counted, lost, "an orderly stop loses nothing but by the ledger");
        } else {
            self.readings_exact &= counted == lost;
            self.crashed += lost - counted;
            self.crash_gaps += usize::from(found.run.is_some_and(|run| !run.clean));
        }

        self.out.clear();
        self.gaps_out.clear();
        self.store = Box::new(Faulty { store: (self.maker)(), faults: self.faults.clone() });
        self.unordered |= self.faults.now().opens;
        self.unordered |= !disk_ok;
        let (queue, saved) = begin(&mut *self.store, self.settings.clone(), stamp(self.now));
        self.queue = queue;
        saved
    }

    /// The messages and readings that were told as lost.
    fn told(&self) -> (u64, u64) {
        let counts = |gap: &Gap| Some((gap.messages?, gap.readings?));
        self.gaps.values().filter_map(counts).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// Lets everything out, and holds that all are accounted for.
    fn end(mut self) {
        *self.faults.now() = Default::default();
        self.queue.put_back_all();
        self.gaps_out.clear();
        for _ in 0..2_000 {
            self.now += Duration::from_secs(61);
            self.work();
            self.take(7, 1_000);
            self.take_gaps();
            let ids: Vec<Id> = self.out.keys().copied().collect();
            self.acknowledge(&ids);
            for id in std::mem::take(&mut self.gaps_out) {
                self.queue.acknowledge_gap(id);
            }
            if ids.is_empty() && self.queue.is_empty() {
                break;
            }
        }
        assert!(self.queue.is_empty(), "it does not run empty: {:?}", self.queue);
        self.store = Box::new(Platter::new(0));
        let found = (self.maker)().open(Timestamp(0)).unwrap();
        assert_eq!(found.first, found.end, "the disk is empty as well");
        let lost = (0..self.messages).filter(|number| !self.acknowledged.contains(number));
        let (count, readings) =
            lost.fold((0, 0), |(count, readings), number| (count + 1, readings + 1 + number % 5));
        assert_eq!(self.told().0, count - self.crashed, "lost and told: {:?}", self.gaps);
        if self.readings_exact {
            assert_eq!(self.told().1, readings, "lost and told readings");
        }
        let crash_gaps = self.gaps.values().filter(|gap| gap.cause == Cause::Crash).count();
        assert!(crash_gaps <= self.crash_gaps && (crash_gaps > 0) == (self.crash_gaps > 0));
    }
}

fn stamp(now: Duration) -> Stamp {
    Stamp { wall: Timestamp(1_700_000_000_000).after(now), monotonic: now, synced: true }
}

fn play(maker: Maker<'_>, settings: Settings, padding: usize, ops: &[Op]) {
    let mut world = World::new(maker, settings, padding);
    for op in ops {
        world.apply(op);
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_repeated_or_reordered_but_as_promised(
        ops in proptest::collection::vec(op(), 1..120),
        spill_after in 0..6_u64,
    ) {
        let platter = Platter::new(3_000);
        play(&|| Box::new(platter.clone()), small(spill_after, 3), 0, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nor_is_it_over_a_real_file(ops in proptest::collection::vec(op(), 1..80), spill_after in 0..6_u64) {
        let dir = tempfile::tempdir().unwrap();
        let limits = Settings {
            memory_soft: 20_000,
            memory_hard: 60_000,
            commit_max: 10_000,
            ..small(spill_after, 3)
        };
        play(&|| Box::new(Sqlite::new(dir.path(), 440 << 10, 0)), limits, 1_500, &ops);
    }
}

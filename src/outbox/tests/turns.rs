//! Whose turn it is on the disk when commits, the uplink and those who look all want it. Step by step, over a disk in
//! memory, where a job takes as long as the test says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::{self, Receiver};
use tokio::time::sleep;

use super::super::begin;
use super::super::queue::{Ask, Queue, Settings, Step};
use super::super::store::{Job, Position, Store};
use super::platter::{Faults, Faulty, Platter};
use super::{
    ALWAYS, WHEN_OFFLINE, commits, ids, message, messages, number, numbers, open, settings, stamp, stored,
    taken,
};
use crate::model::{Id, Message, Timestamp};

/// What somebody sees, and where to look on.
type Part = (Vec<(Id, Arc<[u8]>)>, Option<Position>);

/// A queue, and whoever wants something of it.
struct Desk {
    platter: Platter,
    faults: Faults,
    store: Box<dyn Store>,
    queue: Queue,
    now: Duration,
    /// When each message was appended.
    appended: Vec<Duration>,
    /// The numbers of what the uplink took.
    sent: Vec<u64>,
    /// Those who look, and wait for what they see.
    looking: Vec<Receiver<Part>>,
}

impl Desk {
    /// With so many messages on the disk, and nothing in memory.
    fn new(capacity: u64, settings: Settings, backlog: u64) -> Self {
        let (platter, faults) = (Platter::new(capacity), Faults::default());
        let mut store: Box<dyn Store> =
            Box::new(Faulty { store: Box::new(platter.clone()), faults: faults.clone() });
        let (queue, _) = begin(&mut *store, settings, stamp(Duration::ZERO));
        let (sent, looking) = (Vec::new(), Vec::new());
        let mut desk =
            Self { platter, faults, store, queue, now: Duration::ZERO, appended: Vec::new(), sent, looking };
        desk.append(backlog);
        desk.now += Duration::from_secs(60);
        desk.work();
        assert_eq!(stored(&desk.platter).len() as u64, backlog);
        desk
    }

    fn append(&mut self, count: u64) {
        for _ in 0..count {
            self.queue.append(message(self.appended.len() as u64, 20).to_bytes(), self.now);
            self.appended.push(self.now);
        }
    }

    /// The uplink takes so many at most, and the other side answers at once.
    fn send(&mut self, most: usize) {
        let taken = self.queue.take(most, usize::MAX, true, self.now);
        let ids: Vec<_> = taken.iter().map(|(id, ..)| *id).collect();
        self.sent.extend(taken.iter().map(|(_, bytes, _)| number(&Message::from_bytes(bytes).unwrap())));
        self.queue.acknowledge(&ids, self.now);
    }

    /// So many look at a time, behind what one read brings, and who was answered looks again.
    fn look(&mut self, count: usize) {
        self.looking.retain_mut(|looking| looking.try_recv().is_err());
        while self.looking.len() < count {
            let (answer, looking) = oneshot::channel();
            self.queue.ask(Ask::Page { from: 8, limit: 8, answer });
            self.looking.push(looking);
        }
    }

    fn step(&mut self) -> Option<Job> {
        match self.queue.step(stamp(self.now)) {
            Step::Work(job) => Some(job),
            Step::Wait(_) | Step::Closed => None,
        }
    }

    fn finish(&mut self, job: &Job) {
        let done = job.run(&mut *self.store, Timestamp(0));
        self.queue.finish(done, self.now);
    }

    /// Has all done that is due.
    fn work(&mut self) {
        while let Some(job) = self.step() {
            self.finish(&job);
        }
    }
}

fn name(job: &Job) -> &'static str {
    match job {
        Job::Commit(_) => "commit",
        Job::Read { .. } => "read",
        Job::Look { .. } => "look",
        Job::Open { .. } | Job::Check { .. } | Job::Dead { .. } | Job::Close => "other",
    }
}

#[test]
fn where_all_want_the_disk_without_pause_each_has_its_turn() {
    let mut desk = Desk::new(1 << 20, Settings { memory_soft: 1, ..settings(ALWAYS) }, 400);
    let mut turns = Vec::new();
    for _ in 0..200 {
        desk.append(2);
        desk.look(3);
        desk.send(usize::MAX);
        let job = desk.step().expect("there is always something to do");
        turns.push(name(&job));
        desk.send(usize::MAX);
        desk.finish(&job);
    }
    for turns in turns[1..].chunks_exact(4) {
        let at = turns.iter().position(|turn| *turn == "read").unwrap_or_default();
        assert_eq!([turns[at], turns[(at + 2) % 4]], ["read", "look"], "{turns:?}");
        assert_eq!([turns[(at + 1) % 4], turns[(at + 3) % 4]], ["commit"; 2], "{turns:?}");
    }
    assert_eq!(desk.sent, (0..desk.sent.len() as u64).collect::<Vec<_>>());
    assert!(desk.sent.len() > 300, "{}", desk.sent.len());
}

#[test]
fn those_who_look_one_after_the_other_do_not_keep_what_waits_from_being_sent() {
    let mut desk = Desk::new(1 << 20, settings(WHEN_OFFLINE), 400);
    let mut turns = Vec::new();
    for _ in 0..20 {
        desk.look(2);
        desk.send(usize::MAX);
        let job = desk.step().expect("somebody always looks");
        turns.push(name(&job));
        desk.finish(&job);
    }
    assert!(turns.chunks_exact(2).all(|turns| turns.contains(&"read")), "{turns:?}");
    assert!(turns.chunks_exact(2).all(|turns| turns.contains(&"look")), "{turns:?}");
}

#[test]
fn g2_a_message_is_on_the_disk_within_its_time_and_that_of_a_commit_and_two_reads_whoever_else_wants_it() {
    const TICK: Duration = Duration::from_millis(10);
    const COMMIT: Duration = Duration::from_millis(200);
    const READ: Duration = Duration::from_millis(20);
    // Behind a backlog it is `commit_every` for both.
    for (durability, within) in [(ALWAYS, 1), (WHEN_OFFLINE, 10)] {
        let within = Duration::from_secs(within) + COMMIT + 2 * READ;
        let mut desk = Desk::new(1 << 24, settings(durability), 2_000);
        let begin = desk.now;
        let (mut committed, mut longest) = (0, Duration::ZERO);
        while desk.now < begin + Duration::from_secs(60) {
            let job = desk.step();
            let takes = match job.as_ref().map(name) {
                Some("commit") => COMMIT,
                Some(_) => READ,
                None => TICK,
            };
            let until = desk.now + takes;
            while desk.now < until {
                desk.now += TICK;
                desk.append(1);
                desk.look(2);
                desk.send(1);
            }
            let Some(job) = job else { continue };
            desk.finish(&job);
            if let Job::Commit(commit) = job {
                for row in commit.rows {
                    let number = number(&Message::from_bytes(&row.bytes).unwrap());
                    let appended = desk.appended[usize::try_from(number).unwrap()];
                    longest = longest.max(desk.now - appended);
                    committed += 1;
                }
            }
        }
        assert!(longest <= within, "{longest:?} with {durability:?}");
        assert!(committed > 4_000 && desk.sent.len() > 4_000, "{committed} and {}", desk.sent.len());
    }
}

#[test]
fn what_a_commit_reads_to_make_room_it_has_before_the_uplink_and_those_who_look() {
    let mut desk = Desk::new(1_400, settings(ALWAYS), 12);
    desk.append(4);
    desk.now += Duration::from_secs(2);
    let read = desk.step().unwrap();
    assert!(matches!(read, Job::Read { .. }), "what is to make way is read: {read:?}");
    desk.look(2);
    desk.send(usize::MAX);
    desk.finish(&read);
    assert!(matches!(desk.step(), Some(Job::Commit(commit)) if commit.rows.len() == 4));
}

#[test]
fn g3_a_stop_needs_no_read_to_keep_what_is_in_memory_and_one_that_fails_costs_nothing() {
    for reads_already in [false, true] {
        let mut desk = Desk::new(1 << 20, settings(WHEN_OFFLINE), 20);
        desk.append(5);
        desk.send(usize::MAX);
        desk.faults.now().reads = true;
        let read = if reads_already { desk.step() } else { None };
        assert_eq!(read.as_ref().map(name), reads_already.then_some("read"));
        desk.queue.close(Some(b"windows".to_vec()), desk.now);
        if let Some(read) = read {
            desk.finish(&read);
        }
        desk.work();
        assert!(desk.queue.is_closed());
        assert_eq!(stored(&desk.platter), (0..25).collect::<Vec<_>>());
        let run = desk.platter.look().run.clone().unwrap();
        assert_eq!((run.clean, run.saved.as_deref()), (true, Some(&b"windows"[..])));
    }
}

#[test]
fn g3_a_stop_that_cannot_read_what_it_would_evict_keeps_what_finds_room_and_ends() {
    let mut desk = Desk::new(1_400, settings(WHEN_OFFLINE), 12);
    desk.append(6);
    desk.faults.now().reads = true;
    desk.queue.close(None, desk.now);
    desk.work();
    assert!(desk.queue.is_closed());
    let stored = stored(&desk.platter);
    assert!(stored.len() > 12 && stored.starts_with(&(0..13).collect::<Vec<_>>()), "{stored:?}");
}

#[tokio::test(start_paused = true)]
async fn g2_once_a_backlog_has_gone_out_nothing_is_written_while_answers_come_in_time() {
    for (durability, answer) in [(WHEN_OFFLINE, 4_900), (ALWAYS, 900)] {
        let platter = Platter::new(1 << 20);
        let outbox = open(platter.clone(), settings(durability)).outbox;
        outbox.append(messages(0..100)).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(stored(&platter).len(), 100);
        let mut next = 0;
        while next < 100 {
            let out = taken(&outbox).await;
            next += out.len();
            outbox.acknowledge(&ids(&out));
        }
        sleep(Duration::from_secs(30)).await;
        assert!(stored(&platter).is_empty());
        let before = commits(&platter);
        for number in 100..1_100 {
            outbox.append(messages([number])).await;
            let out = taken(&outbox).await;
            assert_eq!(numbers(&out), [number]);
            sleep(Duration::from_millis(answer)).await;
            outbox.acknowledge(&ids(&out));
        }
        assert_eq!(commits(&platter), before, "{durability:?}");
    }
}

//! A disk that takes its time: what must wait for it, and what must not.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{advance, sleep};

use super::super::queue::Settings;
use super::super::store::{Commit, Committed, Dead, Fault, Found, Known, Met, Position, Store};
use super::super::{Outbox, PATIENCE};
use super::platter::Platter;
use super::{A_MOMENT, ALWAYS, gaps, messages, numbers, open, settings, stored, taken};
use crate::model::{Cause, Timestamp};

/// A store whose every commit says that it is there, and waits to be let through.
struct Gate(Platter, UnboundedSender<()>, Receiver<()>);

impl Store for Gate {
    fn open(&mut self, known: &Known, now: Timestamp) -> Result<Found, Fault> {
        self.0.open(known, now)
    }
    fn read(
        &mut self,
        from: Position,
        until: Option<Position>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Met>, Fault> {
        self.0.read(from, until, rows, bytes)
    }
    fn dead(&mut self, keys: &[i64]) -> Result<Vec<(i64, Dead)>, Fault> {
        self.0.dead(keys)
    }
    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        let _ = (self.1.send(()), self.2.recv());
        self.0.commit(commit)
    }
    fn close(&mut self) {}
}

/// The other side of a [`Gate`].
struct Keeper {
    platter: Platter,
    arrived: UnboundedReceiver<()>,
    let_through: Sender<()>,
}

/// A gate that lets the note of the start through.
async fn gate(settings: Settings) -> (Outbox, Keeper) {
    let ((let_through, waits), (arrives, mut arrived)) = (channel(), unbounded_channel());
    let platter = Platter::new(1_100);
    let_through.send(()).unwrap();
    let outbox = open(Gate(platter.clone(), arrives, waits), settings).outbox;
    arrived.recv().await.unwrap();
    (outbox, Keeper { platter, arrived, let_through })
}

#[tokio::test(start_paused = true)]
async fn g6_append_waits_for_a_slow_disk_while_memory_is_full_and_goes_on_when_it_has_written() {
    let small = Settings { memory_soft: 500, memory_hard: 2_000, ..settings(ALWAYS) };
    let (outbox, mut keeper) = gate(small).await;
    keeper.platter.look().capacity = 1 << 20;
    let appender = outbox.clone();
    let appending = tokio::spawn(async move { appender.append(messages(0..40)).await });
    keeper.arrived.recv().await.unwrap();
    settle().await;
    assert!(!appending.is_finished(), "memory is full");
    for _ in 0..10 {
        keeper.let_through.send(()).unwrap();
    }
    appending.await.unwrap();
    drop(keeper.let_through);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stored(&keeper.platter), (0..40).collect::<Vec<_>>(), "and nothing is lost");
}

#[tokio::test(start_paused = true)]
async fn g6_append_never_waits_longer_than_its_patience_for_a_disk_that_hangs() {
    let small = Settings { memory_soft: 500, memory_hard: 2_000, ..settings(ALWAYS) };
    let (outbox, mut keeper) = gate(small).await;
    keeper.platter.look().capacity = 1 << 20;
    let appender = outbox.clone();
    let appending = tokio::spawn(async move { appender.append(messages(0..200)).await });
    keeper.arrived.recv().await.unwrap();
    settle().await;
    assert!(!appending.is_finished());
    advance(PATIENCE + A_MOMENT).await;
    appending.await.unwrap();
    drop(keeper.let_through);
    sleep(Duration::from_secs(2)).await;
    let lost: u64 = gaps(&outbox).await.iter().filter_map(|gap| gap.messages).sum();
    let stored = stored(&keeper.platter);
    assert_eq!(lost + stored.len() as u64, 200, "what found no room is counted");
    assert_eq!(stored.last(), Some(&199), "and the newest are kept");
}

/// Lets everybody run who can, without letting time pass.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g5_nothing_is_handed_out_past_an_eviction_that_a_crash_might_still_undo() {
    let (outbox, mut keeper) = gate(settings(ALWAYS)).await;
    keeper.let_through.send(()).unwrap();
    outbox.append(messages(0..10)).await;
    sleep(Duration::from_secs(2)).await;
    keeper.arrived.recv().await.unwrap();
    assert_eq!(stored(&keeper.platter), (0..10).collect::<Vec<_>>());
    outbox.append(messages(10..14)).await;
    keeper.arrived.recv().await.unwrap();
    tokio::select! {
        biased;
        out = outbox.next(100, usize::MAX) => panic!("{:?}", numbers(&out)),
        () = settle() => {}
    }
    keeper.let_through.send(()).unwrap();
    let out = outbox.next(100, usize::MAX).await;
    assert_eq!(numbers(&out)[0], stored(&keeper.platter)[0]);
    assert!(numbers(&out)[0] > 0, "the oldest were evicted");
}

#[tokio::test(start_paused = true)]
async fn g7_a_record_is_not_handed_out_before_it_is_stored_sealed() {
    let (outbox, mut keeper) = gate(settings(ALWAYS)).await;
    outbox.append(messages([0])).await;
    outbox.give_up(taken(&outbox).await[0].id, Cause::Refused, "no");
    tokio::select! {
        told = outbox.gaps() => panic!("{told:?}"),
        _ = keeper.arrived.recv() => {}
    }
    tokio::select! {
        biased;
        told = outbox.gaps() => panic!("{told:?}"),
        () = settle() => {}
    }
    keeper.let_through.send(()).unwrap();
    let told = outbox.gaps().await;
    let stored = keeper.platter.look().losses.values().next().and_then(|record| record.id);
    assert_eq!(stored, Some(told[0].id));
}

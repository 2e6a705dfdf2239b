use std::sync::Mutex;

use tokio::sync::mpsc;

use super::*;
use crate::clock::Clock;
use crate::model::{Reading, Readings, Timestamp, Value};
use crate::pipeline::channel::{Progress, channel_of};
use crate::pipeline::process::Work;
use crate::pipeline::stop::stop;
use crate::sources::Stats;

/// A source that plays what it is told, batch by batch.
struct Played(Script);

type Script = Arc<Mutex<Vec<Act>>>;

enum Act {
    /// Opening fails.
    Missing,
    /// Opening succeeds.
    Open,
    /// A reading, with a receipt where a device waits.
    Reading(Option<oneshot::Sender<Receipt>>),
    /// It goes away.
    Gone,
}

fn next_act(script: &Script) -> Option<Act> {
    let mut acts = script.lock().unwrap();
    if acts.is_empty() { None } else { Some(acts.remove(0)) }
}

fn clock() -> Clock {
    Clock::injected(Timestamp(0), true)
}

impl Source for Played {
    type Config = Script;

    async fn open(script: &Script, _: &Context) -> Result<Self, SourceError> {
        match next_act(script) {
            Some(Act::Open) => Ok(Self(script.clone())),
            _ => Err(SourceError::Missing { what: "port".into(), hint: "plug it in".into() }),
        }
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        match next_act(&self.0) {
            Some(Act::Reading(receipt)) => {
                let mut readings = Readings::new(clock().now());
                readings.push(Reading {
                    device: "d",
                    metric: "m",
                    value: Value::Int(1),
                    time: None,
                    unit: None,
                });
                Ok(Batch { readings, receipt })
            }
            Some(_) => Err(SourceError::Gone { what: "port".into(), cause: "unplugged".into() }),
            None => std::future::pending().await,
        }
    }
}

fn played(acts: Vec<Act>, room: usize) -> (mpsc::Receiver<Work>, super::super::stop::Stopper) {
    let (inlet, receiver) = channel_of(room, Progress::default());
    let (stopper, stop) = stop();
    let (name, stats, memory) = ("line".into(), Arc::new(Stats::default()), Default::default());
    let context = Context { name, clock: clock(), stats, memory, ports: Default::default() };
    tokio::spawn(run::<Played>(Arc::new(Mutex::new(acts)), context, inlet, oneshot::channel().0, stop));
    (receiver, stopper)
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_missing_or_goes_away_is_opened_again_within_the_cap() {
    let acts = vec![
        Act::Missing,
        Act::Missing,
        Act::Open,
        Act::Reading(None),
        Act::Gone,
        Act::Open,
        Act::Reading(None),
    ];
    let (mut collected, _stopper) = played(acts, 8);
    let clock = clock();
    let Some(Work::Readings { source, .. }) = collected.recv().await else { panic!("no readings") };
    assert_eq!(&*source, "line");
    assert!((2 * Backoff::FLOOR..=2 * CAP).contains(&clock.monotonic()));
    assert!(collected.recv().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_device_that_waits_is_told_whether_its_readings_are_in_the_channel() {
    let (first, accepted) = oneshot::channel();
    let (second, busy) = oneshot::channel();
    let acts = vec![Act::Open, Act::Reading(Some(first)), Act::Reading(Some(second))];
    let (mut collected, _stopper) = played(acts, 1);
    assert_eq!(accepted.await, Ok(Receipt::Accepted));
    assert_eq!(busy.await, Ok(Receipt::Busy));
    assert!(collected.recv().await.is_some());
    assert!(collected.try_recv().is_err(), "what was refused is not in the channel");
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_holds_a_source_back_and_loses_nothing() {
    let mut acts = vec![Act::Open];
    acts.extend((0..10).map(|_| Act::Reading(None)));
    let (mut collected, _stopper) = played(acts, 2);
    for _ in 0..10 {
        assert!(collected.recv().await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_it_while_it_reads_and_while_it_waits_to_open() {
    for acts in [vec![Act::Open], vec![Act::Missing]] {
        let (mut collected, stopper) = played(acts, 1);
        tokio::task::yield_now().await;
        stopper.stop();
        assert!(collected.recv().await.is_none(), "the channel is closed");
    }
}

//! The outbox against a model, and each of its promises by name.

mod files;
mod leaving;
mod model;
mod platter;
mod promises;
mod provisional;
mod salvage;
mod slow_disk;
mod turns;

use std::time::Duration;

use tokio::time::timeout;

use super::queue::Settings;
use super::store::Store;
use super::{Opened, Outbox, Outgoing, WhenFull};
use crate::clock::Clock;
use crate::model::{Body, Cause, Gap, Id, Message, Metric, Stamp, Timestamp, Value};
use platter::Platter;

/// The `number`-th message: its time is its number, so that it can be told by it.
fn message(number: u64, padding: usize) -> Message {
    let text = Value::Text("x".repeat(padding).into());
    Message {
        source: "line".into(),
        device: format!("device-{}", number % 12).into(),
        body: Body::Values { time: Timestamp(number as i64) },
        metrics: vec![Metric { name: "note".into(), unit: None, fields: vec![(Metric::VALUE.into(), text)] }],
        readings: 1 + number % 5,
        synced: true,
        era: None,
        ahead: None,
        told: None,
        stale: None,
    }
}

fn number(message: &Message) -> u64 {
    message.range().0.0 as u64
}

/// Limits that a few messages reach.
fn small(spill_after: u64, commit_every: u64) -> Settings {
    Settings {
        spill_after: Duration::from_secs(spill_after),
        commit_every: Duration::from_secs(commit_every),
        memory_soft: 1_500,
        memory_hard: 4_000,
        commit_max: 800,
        message_max: 2_000,
        saved_max: 1_000,
        max_age: Duration::from_secs(7 * 24 * 3_600),
        when_full: WhenFull::DropOldest,
        dead_max: 4_000,
    }
}

/// `spill_after` and `commit_every`, in seconds.
const WHEN_OFFLINE: (u64, u64) = (5, 10);
const ALWAYS: (u64, u64) = (0, 1);
const A_MOMENT: Duration = Duration::from_millis(1);

/// The limits of a real outbox.
fn settings((spill_after, commit_every): (u64, u64)) -> Settings {
    Settings {
        memory_soft: 1 << 20,
        memory_hard: 4 << 20,
        commit_max: 1 << 20,
        message_max: 1 << 20,
        ..small(spill_after, commit_every)
    }
}

/// The wall clock of what begins at monotonic zero.
const WALL: i64 = 1_700_000_000_000;

/// `now` by a trusted clock.
fn stamp(now: Duration) -> Stamp {
    Stamp { wall: Timestamp(WALL).after(now), monotonic: now, synced: true }
}

fn open(store: impl Store + 'static, settings: Settings) -> Opened {
    Outbox::over(Box::new(store), settings, Clock::injected(Timestamp(WALL), true))
}

fn messages(numbers: impl IntoIterator<Item = u64>) -> Vec<Message> {
    numbers.into_iter().map(|number| message(number, 20)).collect()
}

/// What is there to be handed out, without waiting for more.
async fn taken(outbox: &Outbox) -> Vec<Outgoing> {
    timeout(A_MOMENT, outbox.next(usize::MAX, usize::MAX)).await.unwrap_or_default()
}

async fn gaps(outbox: &Outbox) -> Vec<Gap> {
    timeout(Duration::from_secs(11), outbox.gaps()).await.unwrap_or_default()
}

/// How many messages were told as lost by this cause.
fn count(gaps: &[Gap], cause: Cause) -> u64 {
    gaps.iter().filter(|gap| gap.cause == cause).filter_map(|gap| gap.messages).sum()
}

fn numbers(outgoing: &[Outgoing]) -> Vec<u64> {
    outgoing.iter().map(|outgoing| number(&outgoing.message)).collect()
}

fn ids(outgoing: &[Outgoing]) -> Vec<Id> {
    outgoing.iter().map(|outgoing| outgoing.id).collect()
}

/// The numbers of the messages on the platter.
fn stored(platter: &Platter) -> Vec<u64> {
    platter.look().rows.values().map(|row| number(&Message::from_bytes(&row.bytes).unwrap())).collect()
}

fn commits(platter: &Platter) -> usize {
    platter.look().commits.len()
}

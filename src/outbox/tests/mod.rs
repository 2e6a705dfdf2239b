//! The outbox against a model, and each of its promises by name.

mod files;
mod model;
mod platter;
mod promises;

use std::time::Duration;

use super::queue::Settings;
use crate::model::{Body, Message, Metric, Timestamp, Value};

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
    }
}

fn number(message: &Message) -> u64 {
    message.range().0.0 as u64
}

/// Limits that a few messages reach.
fn settings(spill_after: u64, commit_every: u64) -> Settings {
    Settings {
        spill_after: Duration::from_secs(spill_after),
        commit_every: Duration::from_secs(commit_every),
        memory_soft: 1_500,
        memory_hard: 4_000,
        commit_max: 800,
        saved_max: 1_000,
    }
}

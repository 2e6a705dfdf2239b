//! What waits to be sent. This file is the contract.
//!
//! SQLite holds the head of the queue, memory the tail; spilling moves memory's oldest to SQLite's end, so order
//! holds by construction. Whether a message waits here or there is nobody else's business.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::clock::Clock;
use crate::model::{Cause, Gap, Id, Message};
use crate::units::{self, Size};

/// `[buffer]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What a power cut can take.
    pub durability: Durability,
    /// The most that the database and its log take on the disk.
    pub max_bytes: Size,
    /// How long a message may be unacknowledged in memory under [`Durability::WhenOffline`].
    #[serde(deserialize_with = "units::duration")]
    pub spill_after: Duration,
    /// How long commits are gathered; by default 10 s when offline, 1 s always.
    pub commit_every: Option<CommitEvery>,
}

/// A duration, so that `commit_every` can be left out.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub struct CommitEvery(#[serde(deserialize_with = "units::duration")] pub Duration);

/// What a power cut can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// What was unacknowledged for less than `spill_after` and `commit_every`; nothing is written while the link
    /// is up.
    #[default]
    WhenOffline,
    /// What is younger than `commit_every`.
    Always,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            durability: Durability::WhenOffline,
            max_bytes: Size(256 << 20),
            spill_after: Duration::from_secs(5),
            commit_every: None,
        }
    }
}

impl Config {
    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Its id, for ever.
    pub id: Id,
    /// What it says.
    pub message: Message,
}

/// The outbox. A handle: its clones are the same outbox.
#[derive(Clone, Debug)]
pub struct Outbox {}

/// An outbox as it was found at the start.
#[derive(Debug)]
pub struct Opened {
    /// The outbox.
    pub outbox: Outbox,
    /// What [`Outbox::close`] was given by the run before, once: it is forgotten by being read.
    pub saved: Option<Vec<u8>>,
}

#[expect(unused_variables, clippy::unused_async, clippy::todo, missing_docs)]
impl Outbox {
    pub fn open(config: &Config, state_dir: &Path, clock: Clock) -> Opened {
        todo!()
    }
    pub fn epoch(&self) -> u64 {
        todo!()
    }
    pub async fn append(&self, messages: Vec<Message>) {
        todo!()
    }
    pub async fn next(&self, messages: usize, bytes: usize) -> Vec<Outgoing> {
        todo!()
    }
    pub fn acknowledge(&self, ids: &[Id]) {
        todo!()
    }
    pub fn put_back(&self, ids: &[Id]) {
        todo!()
    }
    pub fn put_back_all(&self) {
        todo!()
    }
    pub fn give_up(&self, id: Id, cause: Cause) {
        todo!()
    }
    pub async fn gaps(&self) -> Vec<Gap> {
        todo!()
    }
    pub fn acknowledge_gap(&self, id: Id) {
        todo!()
    }
    pub async fn close(&self, saved: Option<Vec<u8>>) {
        todo!()
    }
}

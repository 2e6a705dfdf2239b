//! `[buffer]`, and what follows from it for the queue.

use std::time::Duration;

use serde::Deserialize;

use super::queue::Settings;
use super::replay::Replay;
use super::sqlite::Sqlite;
use crate::units::{self, Size};

/// Bytes of messages in memory at which they are written without delay.
const MEMORY_SOFT: usize = 1 << 20;
/// Bytes of messages in memory beyond which the oldest are lost, if the disk does not take them.
const MEMORY_HARD: usize = 4 << 20;
/// The least `max_bytes`: the ledger, the log and some messages.
const MAX_BYTES_MIN: Size = Size(4 << 20);
/// The least `max_age`.
const MAX_AGE_MIN: Duration = Duration::from_secs(1);

/// `[buffer]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What a power cut can take.
    pub durability: Durability,
    /// The most that the database and its log take on the disk.
    pub max_bytes: Size,
    /// How long a message may wait.
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
    /// What is lost where there is no room.
    pub when_full: WhenFull,
    /// So much stays free on the disk: the database grows only where it and its log leave that.
    pub min_free: Size,
    /// How long a message may be unacknowledged in memory under [`Durability::WhenOffline`].
    #[serde(deserialize_with = "units::duration")]
    pub spill_after: Duration,
    /// How long commits are gathered; by default 10 s when offline, 1 s always.
    pub commit_every: Option<CommitEvery>,
    /// How a backlog is sent.
    pub replay: Replay,
}

/// A duration, so that `commit_every` can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
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

/// What is lost where there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// What has waited longest.
    #[default]
    DropOldest,
    /// What comes.
    DropNewest,
}

impl WhenFull {
    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            durability: Durability::WhenOffline,
            max_bytes: Size(256 << 20),
            max_age: Duration::from_secs(7 * 24 * 3_600),
            when_full: WhenFull::DropOldest,
            min_free: Size(64 << 20),
            spill_after: Duration::from_secs(5),
            commit_every: None,
            replay: Replay::default(),
        }
    }
}

impl Config {
    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.max_bytes < MAX_BYTES_MIN {
            problems.push(("max_bytes", format!("`max_bytes` must be at least {MAX_BYTES_MIN}")));
        }
        if self.max_age < MAX_AGE_MIN {
            let least = units::show(MAX_AGE_MIN);
            problems.push(("max_age", format!("`max_age` must be at least {least}")));
        }
        problems
    }

    pub(super) fn settings(&self) -> Settings {
        let max_bytes = self.max_bytes.0;
        let (spill_after, commit_every) = match self.durability {
            Durability::WhenOffline => (self.spill_after, Duration::from_secs(10)),
            Durability::Always => (Duration::ZERO, Duration::from_secs(1)),
        };
        let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Settings {
            spill_after,
            commit_every: self.commit_every.map_or(commit_every, |CommitEvery(every)| every),
            memory_soft: MEMORY_SOFT,
            memory_hard: MEMORY_HARD,
            commit_max: size(Sqlite::commit_max(max_bytes)),
            message_max: size(Sqlite::message_max(max_bytes)).min(MEMORY_HARD),
            saved_max: size(max_bytes / 4),
            max_age: self.max_age,
            when_full: self.when_full,
            dead_max: size(Sqlite::dead_max(max_bytes)),
        }
    }
}

//! What the outbox shows to somebody who looks into it.

use super::Outgoing;
use super::store::{Dead, Position};
use crate::model::{Cause, Id, Message, Timestamp};

/// A place in the queue, opaque. The default is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub(super) Position);

impl Default for Place {
    fn default() -> Self {
        Self(Position::MIN)
    }
}

impl Place {
    /// As a number, for whoever has to send it somewhere.
    #[must_use]
    pub fn to_i64(self) -> i64 {
        self.0
    }

    /// The place with this number. Any number is one; a place that is no more stands for what comes after it.
    #[must_use]
    pub fn from_i64(number: i64) -> Self {
        Self(number)
    }
}

/// A look at a part of the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// What stands there, in order.
    pub messages: Vec<Outgoing>,
    /// Where to look on; `None` at the end.
    pub next: Option<Place>,
}

/// A message that was given up, and is kept for a person to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its id, for ever.
    pub id: Id,
    /// What it says.
    pub message: Message,
    /// As what the ledger has it.
    pub cause: Cause,
    /// What the other side said, or what was wrong with it.
    pub reason: Box<str>,
    /// When it was given up, by the wall clock; trusted or not.
    pub at: Timestamp,
}

impl DeadLetter {
    /// One that nobody can read is none.
    pub(super) fn read(dead: Dead) -> Option<Self> {
        let Dead { id, bytes, cause, reason, at } = dead;
        Message::from_bytes(&bytes).ok().map(|message| Self { id, message, cause, reason, at })
    }
}

//! What one session has been given and not answered: the books of `forward`, without any I/O.

use std::collections::{HashSet, VecDeque};

use crate::model::{Id, Publication};
use crate::uplink::Limits;

/// What one session has been given and not answered, held within its limits.
pub(super) struct Flight {
    pub(super) limits: Limits,
    /// Ids and bytes, in the order of sending. Answers come mostly in that order too.
    unanswered: VecDeque<(Id, usize)>,
    bytes: usize,
    /// Taken from the outbox, and waiting for bytes in flight to be answered.
    pub(super) waiting: VecDeque<Publication>,
    pub(super) gaps: HashSet<Id>,
    /// Those unanswered that the hunt goes faster for.
    known: HashSet<Id>,
}

impl Flight {
    pub(super) fn new(limits: Limits) -> Self {
        let (gaps, known) = (HashSet::new(), HashSet::new());
        Self { limits, unanswered: VecDeque::new(), bytes: 0, waiting: VecDeque::new(), gaps, known }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unanswered.is_empty() && self.waiting.is_empty()
    }

    /// How many messages it has been given and are not answered.
    pub(super) fn messages(&self) -> usize {
        (self.unanswered.len() + self.waiting.len()).saturating_sub(self.gaps.len())
    }

    /// The messages that were sent and not answered, the first of them first.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = Id> {
        self.unanswered.iter().map(|(id, _)| *id).filter(|id| !self.gaps.contains(id))
    }

    /// Whether a gap record was sent and not answered.
    pub(super) fn has_gap(&self) -> bool {
        self.unanswered.iter().any(|(id, _)| self.gaps.contains(id))
    }

    /// Whether a message of a guilty device was sent and not answered.
    pub(super) fn has_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// How many more messages may be taken from the outbox.
    pub(super) fn room(&self) -> usize {
        if self.waiting.is_empty() { self.limits.in_flight.saturating_sub(self.unanswered.len()) } else { 0 }
    }

    /// The next that waits, where it fits; one is always allowed.
    pub(super) fn fitting(&mut self) -> Option<Publication> {
        let next = self.waiting.front()?;
        let fits = self.unanswered.len() < self.limits.in_flight
            && self.bytes + next.payload.len() <= self.limits.in_flight_bytes;
        if fits || self.unanswered.is_empty() { self.waiting.pop_front() } else { None }
    }

    /// It is sent; `known` tells whether its device is guilty.
    pub(super) fn sent(&mut self, ids: &[Id], bytes: usize, known: bool) {
        // One publication counts once, by its first id.
        if let Some(id) = ids.first() {
            if known {
                self.known.insert(*id);
            }
            self.unanswered.push_back((*id, bytes));
            self.bytes += bytes;
        }
    }

    /// It is answered, or was not sent at all. Gives its bytes.
    pub(super) fn answered(&mut self, id: Id) -> usize {
        self.known.remove(&id);
        let index = self.unanswered.iter().position(|(other, _)| *other == id);
        let bytes = index.and_then(|index| self.unanswered.remove(index)).map_or(0, |(_, bytes)| bytes);
        self.bytes -= bytes;
        bytes
    }
}

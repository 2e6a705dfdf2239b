//! What becomes of a message or a gap record by the answer to it.

use std::sync::atomic::Ordering;

use super::{GAPS_KEPT, Serving};
use crate::model::{Cause, Id};
use crate::uplink::Session;

impl<S: Session> Serving<'_, S> {
    /// They are taken for good.
    pub(super) fn acknowledge(&mut self, ids: &[Id]) {
        self.retry.reset();
        self.forward.stats.acknowledged.fetch_add(1, Ordering::Relaxed);
        for id in ids {
            self.flight.answered(*id);
            if self.flight.gaps.remove(id) {
                self.gap_retry.reset();
                self.forward.outbox.acknowledge_gap(*id);
                continue;
            }
            self.aside.settle(*id);
            self.answers.taken += 1;
            self.useful = true;
            let finding = self.course.hunt.acknowledged(*id);
            if self.course.hunt.witness() == Some(*id) {
                self.course.witness = self.alone.take();
            }
            self.find(finding);
        }
        self.forward.outbox.acknowledge(ids);
    }

    /// They are refused for now: everything pauses, for it may mean the whole broker.
    pub(super) fn put_off(&mut self, ids: &[Id], reason: &str) {
        if let Some(count) = self.forward.stats.put_off.count() {
            tracing::warn!(count, "the broker refused a message for now: {reason}; it is sent again");
        }
        let now = self.forward.clock.monotonic();
        let mut pauses = false;
        for id in ids {
            let bytes = self.flight.answered(*id);
            if self.flight.gaps.remove(id) {
                self.gaps_from = self.gaps_from.max(now + self.gap_retry.wait());
                self.forward.outbox.put_back(&[*id]);
                continue;
            }
            self.answers.refused += 1;
            // What lies aside pauses for itself: a pause of all could outlast it, and it would be the first again.
            if !self.aside.refuse(*id, bytes, self.answers, now) {
                self.forward.outbox.put_back(&[*id]);
                pauses = true;
            }
            let finding = self.course.hunt.settled(*id);
            self.find(finding);
        }
        if pauses && self.held_until.is_none() {
            self.held_until = Some(now + self.retry.wait());
        }
    }

    /// It will never be taken. The one place where a message is given up.
    pub(super) fn give_up(&mut self, id: Id, cause: Cause, reason: &str) {
        self.flight.answered(id);
        if self.flight.gaps.remove(&id) {
            return self.keep_gap(id, reason);
        }
        self.useful = true;
        self.aside.settle(id);
        match self.forward.outbox.give_up(id, cause, reason) {
            Some(true) => {
                if let Some(count) = self.forward.stats.given_up.count() {
                    tracing::error!(
                        %id,
                        cause = cause.name(),
                        count,
                        "the broker will not take a message: {reason}; it is put with the dead letters, and a gap record \
                         tells of it (`weir buffer dead-letters` lists them, and sends them again once the cause is mended)"
                    );
                }
            }
            Some(false) => {
                if let Some(count) = self.forward.stats.refused_again.count() {
                    tracing::warn!(
                        %id,
                        cause = cause.name(),
                        count,
                        "the broker will not take a dead letter that was sent again: {reason}; it is one as before, and \
                         its loss was told then"
                    );
                }
            }
            // It was lost before the answer came, by the ledger.
            None => {}
        }
        let finding = self.course.hunt.settled(id);
        self.find(finding);
    }

    /// A gap record is never given up: it is told again later, in this session or the next.
    fn keep_gap(&mut self, id: Id, reason: &str) {
        tracing::error!(%id, "the broker will not take a gap record: {reason}; they are kept, and told again later");
        self.gaps_from = self.forward.clock.monotonic() + GAPS_KEPT;
        self.forward.outbox.put_back(&[id]);
    }
}

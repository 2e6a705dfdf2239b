//! What the hunt makes of a session: messages go one at a time, and the accused wait for their turn.

use super::{Ended, GAPS_KEPT, Serving, To};
use crate::model::{Cause, Id, Kind, Publication};
use crate::pipeline::forward::hunt::{Finding, Turn};
use crate::uplink::{Broken, Session};

/// How many bytes of messages the hunt may keep back.
const WITHHELD_MOST: usize = 1 << 20;

impl<S: Session> Serving<'_, S> {
    /// Sends what the hunt asks for, where it may go.
    pub(super) fn fill_one_by_one(&mut self) {
        while self.goes_alone() {
            let next = match self.course.hunt.turn() {
                Turn::Witness(_) => self.course.witness.clone(),
                Turn::Accused(id) => self.accused(id),
                Turn::Next => self.flight.waiting.pop_front(),
            };
            match next {
                Some(publication) if self.is_withheld(&publication) => self.withhold(publication),
                Some(publication) => {
                    if let Some(id) = publication.ids.first() {
                        self.course.hunt.alone(*id, self.is_known(&publication));
                    }
                    self.alone = Some(publication.clone());
                    self.send(publication);
                }
                None => return,
            }
        }
    }

    /// The accused of that id, once the outbox has handed it out: it comes before what is not accused.
    fn accused(&mut self, id: Id) -> Option<Publication> {
        if let Some(index) = self.withheld.iter().position(|publication| publication.ids.contains(&id)) {
            return Some(self.withheld.remove(index));
        }
        let next = self.flight.waiting.pop_front()?;
        if !next.ids.iter().any(|id| self.course.hunt.withholds(*id)) {
            // It is gone from the outbox.
            let finding = self.course.hunt.settled(id);
            self.find(finding);
        }
        Some(next)
    }

    fn withhold(&mut self, publication: Publication) {
        self.withheld.push(publication);
        let bytes: usize = self.withheld.iter().map(|publication| publication.payload.len()).sum();
        if bytes > WITHHELD_MOST {
            let finding = self.course.hunt.everything();
            self.find(finding);
        }
    }

    /// Whether messages go one at a time, and the next may.
    pub(super) fn goes_alone(&self) -> bool {
        self.course.hunt.is_on() && self.greeted && self.flight.unanswered().next().is_none()
    }

    /// Whether it is of a device whose message was found out before.
    pub(super) fn is_known(&self, publication: &Publication) -> bool {
        matches!(&publication.kind, Kind::Data { device } if self.course.guilty.has(device))
    }

    fn is_withheld(&self, publication: &Publication) -> bool {
        let hunt = &self.course.hunt;
        publication.ids.iter().any(|id| hunt.withholds(*id) && hunt.turn() != Turn::Accused(*id))
    }

    /// The session is gone: where the other side has closed it, the hunt is told what was unanswered.
    pub(super) fn broken(mut self, broken: Broken) -> Ended {
        let useful = self.useful || self.course.hunt.has_learned();
        let finding = match &broken {
            Broken::Closed(_) => {
                let mut unanswered = self.flight.unanswered();
                let oldest = unanswered.next();
                let count = unanswered.count() + 1;
                let (gap, known) = (self.flight.has_gap(), self.flight.has_known());
                self.course.hunt.closed(oldest, count, gap, known)
            }
            Broken::Lost(_) => {
                self.course.hunt.ended();
                Finding::Nothing
            }
        };
        self.find(finding);
        if self.leaves_to(To::Renew) {
            return self.left();
        }
        Ended::Failed { error: broken.into(), useful }
    }

    /// Acts on what the hunt has found.
    pub(super) fn find(&mut self, finding: Finding) {
        match finding {
            Finding::Nothing => {}
            Finding::OneByOne(id) => tracing::warn!(
                %id,
                "the broker closes the connection with the same message unanswered, or one of a device that it has closed \
                 on before: messages go one at a time, to find out whether it closes on one of them"
            ),
            Finding::Poison(id) => {
                let found = self.alone.take().filter(|publication| publication.ids.contains(&id));
                if let Some(Publication { kind: Kind::Data { device }, .. }) = found {
                    self.course.guilty.note(&device);
                }
                let reason = "it closes the connection on it each time, and takes others";
                self.give_up(id, Cause::Poison, reason);
            }
            Finding::Acquitted => {
                tracing::info!("the broker takes the messages one at a time: none is to blame")
            }
            Finding::Gaps => {
                tracing::error!(
                    "the broker seems to close the connection on gap records, as it takes the messages alone: they are \
                     kept, and told again in an hour; does it let this gateway publish on weir/+/gaps?"
                );
                self.gaps_from = self.forward.clock.monotonic() + GAPS_KEPT;
                self.course.gaps_from = self.gaps_from;
            }
            Finding::Everything => tracing::warn!(
                "the broker closes the connection on every message that is sent alone: none is given up for that"
            ),
        }
    }
}

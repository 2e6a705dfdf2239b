//! One session, from its first publication to its end.
//!
//! Each turn hears what the other side answers before it takes anything more, so that a burst after a reconnect never
//! starves acknowledgements; gap records come before messages; and what is taken is bounded by the session's window.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::super::backoff::Backoff;
use super::super::stop::Stop;
use super::aside::{Answers, Aside};
use super::flight::Flight;
use super::hunt::{Finding, Guilty, Hunt, Turn};
use super::rate::Rate;
use super::{CAP, Forward, GRACE};
use crate::model::{Cause, Gap, Id, Kind, Publication};
use crate::outbox::Outgoing;
use crate::uplink::{Broken, Event, Lasting, LinkError, Session};

/// How long gap records are kept back that the other side will not take. It is for a person to change that.
const GAPS_KEPT: Duration = Duration::from_secs(3600);

/// How many bytes of messages the hunt may keep back.
const WITHHELD_MOST: usize = 1 << 20;

/// What goes on over sessions.
pub(super) struct Course {
    hunt: Hunt,
    guilty: Guilty,
    /// What the hunt sends again.
    witness: Option<Publication>,
    rate: Option<Rate>,
    /// No gap record is told before.
    gaps_from: Duration,
}

impl Course {
    pub(super) fn new(forward: &Forward) -> Self {
        let now = forward.clock.monotonic();
        let rate = forward.replay.max_rate.map(|per_second| Rate::new(per_second, now));
        Self {
            hunt: Hunt::default(),
            guilty: Guilty::default(),
            witness: None,
            rate,
            gaps_from: Duration::ZERO,
        }
    }
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By an error; `useful` where it had settled messages, or the hunt got on by it.
    Failed { error: LinkError, useful: bool },
    /// In order, to be followed by another at once; `useful` where it had settled messages.
    Renewed { useful: bool },
    /// In order, as `stop` came.
    Stopped,
}

/// A session that takes nothing more and waits for what is on its way.
struct Leaving {
    to: To,
    by: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// A fresh session.
    Renew,
    Stop,
}

/// What may be taken from the outbox now.
struct Room {
    messages: usize,
    gaps: bool,
    /// Whether what is taken is paid for.
    paced: bool,
}

/// A session at work.
pub(super) struct Serving<'a, S> {
    forward: &'a Forward,
    course: &'a mut Course,
    session: S,
    gateway: &'a str,
    flight: Flight,
    aside: Aside,
    /// What the hunt keeps back, and what it has sent alone.
    withheld: Vec<Publication>,
    alone: Option<Publication>,
    /// Whether the other side has answered the status: it is there, and does not close on that.
    greeted: bool,
    answers: Answers,
    /// Whether a message was taken, or given up.
    useful: bool,
    retry: Backoff,
    held_until: Option<Duration>,
    gap_retry: Backoff,
    gaps_from: Duration,
    leaving: Option<Leaving>,
    /// What may still be taken from the outbox. A stop sets a bound: sources may go on, for the next uplink.
    takes: usize,
}

impl<'a, S: Session> Serving<'a, S> {
    pub(super) fn new(forward: &'a Forward, course: &'a mut Course, session: S, gateway: &'a str) -> Self {
        let flight = Flight::new(session.limits());
        let gaps_from = course.gaps_from;
        course.hunt.opened();
        Self {
            forward,
            course,
            session,
            gateway,
            flight,
            aside: Aside::default(),
            withheld: Vec::new(),
            alone: None,
            greeted: false,
            answers: Answers::default(),
            useful: false,
            retry: Backoff::new(Duration::from_secs(1), CAP),
            held_until: None,
            gap_retry: Backoff::new(Duration::from_secs(1), CAP),
            gaps_from,
            leaving: None,
            takes: usize::MAX,
        }
    }

    /// Serves the session to its end.
    pub(super) async fn run(mut self, status: impl Fn(bool) -> Publication, stop: &Stop) -> Ended {
        let outbox = &self.forward.outbox;
        self.send(status(true));
        loop {
            let now = self.forward.clock.monotonic();
            self.resume(now);
            self.fill();
            let Room { messages: room, gaps, paced } = self.room(now);
            let wake = self.wake(now).map(|at| self.forward.clock.instant(at));
            tokio::select! {
                biased;
                event = self.session.next() => match event {
                    Ok(event) => self.hear(event),
                    Err(broken) => return self.broken(broken),
                },
                () = until(self.leaving.as_ref().map(|leaving| leaving.by)) => break,
                () = stop.wait(), if !self.leaves_to(To::Stop) => self.stop(),
                () = until(wake) => {}
                gaps = outbox.gaps(), if gaps => {
                    for gap in gaps {
                        let publication = self.gap(&gap);
                        self.flight.waiting.push_back(publication);
                    }
                }
                messages = outbox.next(room, self.flight.limits.in_flight_bytes), if room > 0 => {
                    self.takes = self.takes.saturating_sub(messages.len());
                    if let Some(rate) = self.course.rate.as_mut().filter(|_| paced) {
                        rate.spend(messages.len());
                    }
                    for message in messages {
                        let publication = self.data(message);
                        self.flight.waiting.push_back(publication);
                    }
                }
                // Reached only where the outbox has nothing at hand: all that could go has gone.
                () = std::future::ready(()), if self.leaving.is_some() && self.flight.is_empty() => break,
                () = std::future::ready(()), if room > 0 && self.course.hunt.is_filing() => {
                    let finding = self.course.hunt.idle();
                    self.find(finding);
                }
            }
        }
        self.course.hunt.ended();
        let ended = self.left();
        // Whoever comes back in a moment does not say that it is gone.
        if matches!(ended, Ended::Stopped) {
            self.send(status(false));
        }
        self.session.close().await;
        ended
    }

    /// Lets go on what has paused for long enough.
    fn resume(&mut self, now: Duration) {
        self.held_until = self.held_until.filter(|until| *until > now);
        let due = self.aside.due(now);
        if !due.is_empty() {
            self.forward.outbox.put_back(&due);
        }
    }

    /// Sends what waits and may go.
    fn fill(&mut self) {
        if !self.course.hunt.is_on() {
            while let Some(publication) = self.withheld.pop() {
                self.flight.waiting.push_front(publication);
            }
        }
        while !self.course.hunt.is_on() {
            let Some(publication) = self.flight.fitting() else { return };
            self.send(publication);
        }
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
    fn goes_alone(&self) -> bool {
        self.course.hunt.is_on() && self.greeted && self.flight.unanswered().next().is_none()
    }

    /// Whether it is of a device whose message was found out before.
    fn is_known(&self, publication: &Publication) -> bool {
        matches!(&publication.kind, Kind::Data { device } if self.course.guilty.has(device))
    }

    fn is_withheld(&self, publication: &Publication) -> bool {
        let hunt = &self.course.hunt;
        publication.ids.iter().any(|id| hunt.withholds(*id) && hunt.turn() != Turn::Accused(*id))
    }

    fn room(&mut self, now: Duration) -> Room {
        let mut room = Room { messages: 0, gaps: false, paced: false };
        if self.held_until.is_some() {
            return room;
        }
        if self.course.hunt.is_on() {
            let next = self.goes_alone() && self.flight.is_empty();
            room.messages = usize::from(next).min(self.takes);
        } else {
            let fits = self.flight.room().min(self.takes);
            room.gaps = fits > 0 && now >= self.gaps_from;
            room.messages = if self.aside.is_full() { 0 } else { fits };
        }
        let given = self.flight.messages() + self.withheld.len() + self.aside.len();
        if let Some(rate) = &mut self.course.rate {
            let waiting = self.forward.outbox.stats().waiting().saturating_sub(given as u64);
            room.paced = waiting > self.flight.limits.in_flight as u64;
            if room.paced {
                room.messages = room.messages.min(rate.ready(now));
            }
        }
        room
    }

    /// When there may be something to do again, if nothing happens meanwhile.
    fn wake(&self, now: Duration) -> Option<Duration> {
        let rate = self.course.rate.as_ref().map(Rate::next_at);
        let times = [self.held_until, self.aside.next_due(), Some(self.gaps_from), rate];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Acknowledged(ids) if ids.is_empty() => self.greeted = true,
            Event::Acknowledged(ids) => self.acknowledge(&ids),
            Event::Refused { ids, reason, .. } if ids.is_empty() => {
                self.greeted = true;
                tracing::warn!(reason, "the broker refuses this gateway's status");
            }
            Event::Refused { ids, lasting: Lasting::Retry, reason } => self.put_off(&ids, &reason),
            Event::Refused { ids, lasting: Lasting::Forever, reason } => {
                for id in ids {
                    self.give_up(id, Cause::Refused, &reason);
                }
            }
            Event::Renew { why } => {
                if self.leaving.is_none() {
                    tracing::info!("connecting anew: {why}");
                    self.leave(To::Renew);
                    self.takes = 0;
                }
            }
        }
    }

    fn stop(&mut self) {
        self.leave(To::Stop);
        let waiting = usize::try_from(self.forward.outbox.stats().waiting()).unwrap_or(usize::MAX);
        self.takes = waiting.saturating_sub(self.flight.messages());
    }

    fn leave(&mut self, to: To) {
        let clock = &self.forward.clock;
        self.leaving = Some(Leaving { to, by: clock.instant(clock.monotonic() + GRACE) });
    }

    fn leaves_to(&self, to: To) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.to == to)
    }

    fn left(&self) -> Ended {
        if self.leaves_to(To::Renew) { Ended::Renewed { useful: self.useful } } else { Ended::Stopped }
    }

    /// The session is gone.
    fn broken(mut self, broken: Broken) -> Ended {
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

    fn send(&mut self, publication: Publication) {
        let ids = publication.ids.clone();
        let (bytes, known) = (publication.payload.len(), self.is_known(&publication));
        match self.session.send(publication) {
            Ok(()) => {
                self.forward.stats.sent.fetch_add(1, Ordering::Relaxed);
                self.flight.sent(&ids, bytes, known);
            }
            Err(error) => {
                for id in ids {
                    self.give_up(id, Cause::TooLarge, &error.to_string());
                }
            }
        }
    }

    fn acknowledge(&mut self, ids: &[Id]) {
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
    fn put_off(&mut self, ids: &[Id], reason: &str) {
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
    fn give_up(&mut self, id: Id, cause: Cause, reason: &str) {
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

    /// Acts on what the hunt has found.
    fn find(&mut self, finding: Finding) {
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

    fn data(&self, outgoing: Outgoing) -> Publication {
        let Outgoing { id, message } = outgoing;
        let mut payload = Vec::new();
        self.forward.format.message(id, self.gateway, &message, &mut payload);
        Publication { ids: vec![id], kind: Kind::Data { device: message.device }, payload }
    }

    fn gap(&mut self, gap: &Gap) -> Publication {
        self.flight.gaps.insert(gap.id);
        let mut payload = Vec::new();
        self.forward.format.gap(self.gateway, gap, &mut payload);
        Publication { ids: vec![gap.id], kind: Kind::Gap, payload }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

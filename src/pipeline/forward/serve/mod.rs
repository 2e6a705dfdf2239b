//! One session, from its first publication to its end.
//!
//! Each turn hears what the other side answers before it takes anything more, so that a burst after a reconnect never
//! starves acknowledgements; gap records come before messages; and what is taken is bounded by the session's window.
//!
//! This file has the turns. [`answered`] says what becomes of a message by the answer to it, and [`one_by_one`] what
//! the hunt for a poisonous one makes of a session.

mod answered;
mod one_by_one;

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::aside::{Answers, Aside};
use super::flight::Flight;
use super::hunt::{Guilty, Hunt};
use super::rate::Rate;
use super::{CAP, Forward, GRACE};
use crate::model::{Cause, Gap, Kind, Publication};
use crate::outbox::Outgoing;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::stop::Stop;
use crate::uplink::{Event, Lasting, LinkError, Session};

/// How long gap records are kept back that the other side will not take. It is for a person to change that.
const GAPS_KEPT: Duration = Duration::from_secs(3600);

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
        self.fill_one_by_one();
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

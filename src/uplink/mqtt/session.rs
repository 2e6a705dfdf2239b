//! One connection: what was given to it, what the broker has answered, and when it is dead.
//!
//! There is no task behind it: a session works while [`next`](uplink::Session::next) or
//! [`close`](uplink::Session::close) is polled, and both are cancel-safe. Nothing here grows: the caller keeps to
//! [`Limits`], and each publication makes one event.
//!
//! It ends at the link's first error; when nothing has been heard for one and a half keep-alives; and when the oldest
//! publication has gone unanswered for `ack_timeout`. What had been answered by then is told before the error.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::{sleep_until, timeout};

use super::config::{Protocol, Qos};
use super::flight::{Flight, Packet};
use super::link::{Failure, Heard, Link, Signal};
use super::renewal::Renewal;
use super::standby::Return;
use super::topics::Topics;
use super::words::Context;
use crate::clock::Clock;
use crate::model::{Kind, Publication};
use crate::units;
use crate::uplink::{self, Broken, Event, Limits, LinkError, TooLarge};

/// How long a good-bye may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// An MQTT connection that the broker has accepted.
#[derive(Debug)]
pub struct Session {
    link: Link,
    flight: Flight,
    clock: Clock,
    terms: Terms,
    /// When the broker was last heard, was last written to and was last pinged, on the monotonic clock.
    heard: Duration,
    wrote: Duration,
    pinged: Duration,
    end: Option<Broken>,
    /// Waits for the first broker, on a standby.
    back: Option<Return>,
    /// Waits for a new certificate, and for the time to log in anew.
    renewal: Renewal,
}

/// What a session is held to.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) topics: Topics,
    pub(super) qos: Qos,
    pub(super) limits: Limits,
    /// How many publications with QoS 1 or 2 the broker lets be unanswered.
    pub(super) receive_max: u16,
    pub(super) packet_max: usize,
    pub(super) keep_alive: Duration,
    pub(super) ack_timeout: Duration,
    pub(super) context: Context,
}

impl Session {
    pub(super) fn start(
        link: Link,
        terms: Terms,
        back: Option<Return>,
        renewal: Renewal,
        clock: Clock,
    ) -> Self {
        let (flight, now) = (Flight::new(terms.receive_max), clock.monotonic());
        Self { link, flight, clock, terms, heard: now, wrote: now, pinged: now, end: None, back, renewal }
    }

    /// Sends what may go.
    fn release(&mut self) {
        while let Some((packet, packet_id)) = self.flight.release() {
            self.link.publish(packet, packet_id);
        }
    }

    /// Works until something has happened, and has it in the books. Cancel-safe. An event is one that the books do not
    /// have.
    async fn work(&mut self) -> Option<Event> {
        let due = self.clock.instant(self.next_due());
        tokio::select! {
            biased;
            signal = poll_fn(|cx| self.link.poll(cx)) => self.note(signal),
            () = sleep_until(due) => self.check(),
            why = Return::answers(&mut self.back) => {
                self.back = None;
                return Some(Event::Renew { why });
            }
            why = self.renewal.due() => return Some(Event::Renew { why }),
        }
        None
    }

    fn note(&mut self, signal: Result<Signal, Failure>) {
        match signal {
            Ok(Signal::Heard(heard)) => {
                self.heard = self.clock.monotonic();
                self.answer(heard);
                self.release();
            }
            Ok(Signal::Written) => {
                self.wrote = self.clock.monotonic();
                self.flight.written();
            }
            Err(failure) => self.end = Some(self.terms.context.ended(failure, super::now(&self.clock))),
        }
    }

    /// What answers nothing that was sent is passed over: it harms nobody.
    fn answer(&mut self, heard: Heard) {
        match heard {
            Heard::Acknowledged(packet_id) => self.flight.acknowledged(packet_id),
            Heard::Received(packet_id) => {
                if self.flight.received(packet_id) {
                    self.link.release(packet_id);
                }
            }
            Heard::Refused { packet_id, lasting, reason } => self.flight.refused(packet_id, lasting, reason),
            Heard::Accepted(_) | Heard::Other => {}
        }
    }

    /// When nothing will have been heard for one and a half keep-alives.
    fn dead_at(&self) -> Duration {
        self.heard + self.terms.keep_alive.saturating_mul(3) / 2
    }

    /// When the broker has heard nothing, or has said nothing, for a keep-alive.
    fn ping_at(&self) -> Duration {
        self.heard.min(self.wrote).max(self.pinged) + self.terms.keep_alive
    }

    /// When the oldest publication will have gone unanswered for too long.
    fn late_at(&self) -> Option<Duration> {
        self.flight.oldest().map(|given| given + self.terms.ack_timeout)
    }

    /// The earliest time at which something is to be done without a word from the link.
    fn next_due(&self) -> Duration {
        let due = self.dead_at().min(self.ping_at());
        self.late_at().map_or(due, |late_at| due.min(late_at))
    }

    /// Does what is due.
    fn check(&mut self) {
        let now = self.clock.monotonic();
        let peer = &self.terms.context.peer;
        if now >= self.dead_at() {
            let silence = units::show(self.terms.keep_alive.saturating_mul(3) / 2);
            let hint = Some("the network is down, or so slow that `keep_alive` should be longer".to_owned());
            self.end =
                Some(LinkError { what: format!("nothing was heard of {peer} for {silence}"), hint }.into());
        } else if self.late_at().is_some_and(|late_at| now >= late_at) {
            let patience = units::show(self.terms.ack_timeout);
            let what = format!("{peer} has not acknowledged a message for {patience}");
            let hint = Some("is the broker overloaded? If it is only slow, raise `ack_timeout`".to_owned());
            self.end = Some(LinkError { what, hint }.into());
        } else if now >= self.ping_at() {
            self.pinged = now;
            self.link.ping();
        }
    }

    /// Says good-bye behind everything else, and waits for the broker to close: closing first would throw away what is
    /// still on its way there, were an answer unread here.
    async fn farewell(&mut self) {
        (self.back, self.renewal) = (None, Renewal::never());
        while self.end.is_none() && self.flight.holds() {
            self.work().await;
        }
        self.link.disconnect();
        while self.end.is_none() {
            self.work().await;
        }
    }
}

/// The packet that `publication` becomes.
pub(super) fn packet(publication: Publication, topics: &Topics, qos: Qos) -> (Packet, Vec<crate::model::Id>) {
    let Publication { ids, kind, payload } = publication;
    let (qos, retain) = match kind {
        Kind::Data { .. } => (qos, false),
        Kind::Gap => (qos.max(Qos::AtLeastOnce), false),
        Kind::Status => (Qos::AtLeastOnce, true),
    };
    (Packet { topic: topics.of(&kind), qos, retain, payload }, ids)
}

/// The whole size of a PUBLISH, in bytes: MQTT 3.1.1 and 5, 3.3; version 5 adds an empty list of properties.
fn size(packet: &Packet, protocol: Protocol) -> usize {
    let packet_id = if packet.qos == Qos::AtMostOnce { 0 } else { 2 };
    let properties = if protocol == Protocol::V5 { 1 } else { 0 };
    let remaining = 2 + packet.topic.len() + packet_id + properties + packet.payload.len();
    let length_bytes = match remaining {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    };
    1 + length_bytes + remaining
}

impl uplink::Session for Session {
    fn peer(&self) -> String {
        let Context { peer, tls, .. } = &self.terms.context;
        let scheme = if tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{peer}")
    }

    fn limits(&self) -> Limits {
        self.terms.limits
    }

    fn send(&mut self, publication: Publication) -> Result<(), TooLarge> {
        let terms = &self.terms;
        let (packet, ids) = packet(publication, &terms.topics, terms.qos);
        let size = size(&packet, terms.context.protocol);
        if size > terms.packet_max {
            return Err(TooLarge { size, limit: terms.packet_max });
        }
        self.flight.give(packet, ids, self.clock.monotonic());
        self.release();
        Ok(())
    }

    async fn next(&mut self) -> Result<Event, Broken> {
        loop {
            if let Some(event) = self.flight.next() {
                return Ok(event);
            }
            if let Some(end) = &self.end {
                return Err(end.clone());
            }
            if let Some(event) = self.work().await {
                return Ok(event);
            }
        }
    }

    async fn close(mut self) {
        if timeout(CLOSE_WITHIN, self.farewell()).await.is_err() {
            tracing::debug!(broker = self.terms.context.peer, "no orderly end of the connection in time");
        }
    }
}

#[cfg(test)]
mod tests;

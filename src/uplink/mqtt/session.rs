//! One connection: a handle, and a task that drives rumqttc.
//!
//! rumqttc's `poll` is not cancel-safe, so the task alone calls it and always to its end; the handle's `next` waits
//! for the books to change, which is. Handle and task share the books ([`Flight`]) and the queue into rumqttc under
//! one lock that is held for a few instructions and never across an await, so that the order of the books is the
//! order of the queue. Nothing here grows: the caller keeps to [`Limits`], and each publication makes one event.
//!
//! The task ends, and with it the connection, at rumqttc's first error; when nothing has been heard for one and a half
//! keep-alives; when the oldest publication has gone unanswered for `ack_timeout`; and with the handle. What had been
//! answered by then is told before the error.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::config::{Protocol, Qos};
use super::flight::{Flight, Packet};
use super::link::{Client, Connected, EventLoop, Signal};
use super::topics::Topics;
use super::words::Context;
use crate::clock::Clock;
use crate::model::{Kind, Publication};
use crate::units;
use crate::uplink::{self, Event, Limits, LinkError, TooLarge};

/// How long a good-bye may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// An MQTT connection that the broker has accepted.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
    clock: Clock,
    terms: Terms,
}

/// What a session is held to.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) topics: Topics,
    pub(super) qos: Qos,
    pub(super) limits: Limits,
    pub(super) packet_max: usize,
    pub(super) keep_alive: Duration,
    pub(super) ack_timeout: Duration,
    pub(super) context: Context,
}

#[derive(Debug)]
struct Shared {
    books: Mutex<Books>,
    changed: Notify,
}

#[derive(Debug)]
struct Books {
    flight: Flight,
    client: Client,
    end: Option<LinkError>,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Queues what may go.
    fn release(&mut self) {
        while let Some(packet) = self.flight.release() {
            self.client.publish(packet);
        }
    }
}

impl Session {
    pub(super) fn start(connected: Connected, terms: Terms, clock: Clock) -> Self {
        let Connected { client, event_loop, ids, .. } = connected;
        let books = Books { flight: Flight::new(ids), client, end: None };
        let shared = Arc::new(Shared { books: Mutex::new(books), changed: Notify::new() });
        let driver = Driver {
            shared: Arc::clone(&shared),
            clock: clock.clone(),
            dead_after: terms.keep_alive.saturating_mul(3) / 2,
            ack_timeout: terms.ack_timeout,
            slots_left: (ids / 2).max(1),
            context: terms.context.clone(),
        };
        let driver = tokio::spawn(driver.run(event_loop));
        Self { shared, driver, clock, terms }
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
        let mut books = self.shared.books();
        books.flight.give(packet, ids, self.clock.monotonic());
        books.release();
        Ok(())
    }

    async fn next(&mut self) -> Result<Event, LinkError> {
        loop {
            {
                let mut books = self.shared.books();
                if let Some(event) = books.flight.next() {
                    return Ok(event);
                }
                if let Some(error) = &books.end {
                    return Err(error.clone());
                }
            }
            self.shared.changed.notified().await;
        }
    }

    async fn close(mut self) {
        let shared = Arc::clone(&self.shared);
        let farewell = async {
            loop {
                {
                    let books = shared.books();
                    if books.end.is_some() {
                        return;
                    }
                    if !books.flight.holds() {
                        books.client.disconnect();
                        break;
                    }
                }
                shared.changed.notified().await;
            }
            // The broker closes once it has read the DISCONNECT. Closing first would throw away what is still on its
            // way there, were an answer unread here.
            let _ = (&mut self.driver).await;
        };
        if tokio::time::timeout(CLOSE_WITHIN, farewell).await.is_err() {
            tracing::debug!(broker = self.terms.context.peer, "no orderly end of the connection in time");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Driver {
    shared: Arc<Shared>,
    clock: Clock,
    dead_after: Duration,
    ack_timeout: Duration,
    /// How many more slots rumqttc may lose before they run short.
    slots_left: u16,
    context: Context,
}

impl Driver {
    async fn run(mut self, mut event_loop: EventLoop) {
        let end = self.drive(&mut event_loop).await;
        while let Some(signal) = event_loop.leftover() {
            self.note(signal);
        }
        self.shared.books().end = Some(end);
        self.shared.changed.notify_one();
    }

    /// Drives the connection until it ends, and says why it did.
    async fn drive(&mut self, event_loop: &mut EventLoop) -> LinkError {
        let mut heard = self.clock.monotonic();
        let mut watchdog = pin!(tokio::time::sleep_until(self.clock.instant(heard)));
        loop {
            let polled = {
                let mut poll = pin!(event_loop.poll());
                loop {
                    tokio::select! {
                        biased;
                        polled = &mut poll => break polled,
                        () = &mut watchdog => match self.next_check(heard) {
                            Ok(at) => watchdog.as_mut().reset(self.clock.instant(at)),
                            Err(end) => return end,
                        },
                    }
                }
            };
            match polled {
                Ok(signal) => {
                    if signal.is_from_peer() {
                        heard = self.clock.monotonic();
                    }
                    self.note(signal);
                    if self.slots_left == 0 {
                        let what = format!("{} refused many publications", self.context.peer);
                        return LinkError { what, hint: Some("weir connects anew to go on".to_owned()) };
                    }
                }
                Err(failure) => return self.context.broken(failure, super::now(&self.clock)),
            }
        }
    }

    /// The earliest time at which something can be overdue; an error where something is.
    fn next_check(&self, heard: Duration) -> Result<Duration, LinkError> {
        let now = self.clock.monotonic();
        let peer = &self.context.peer;
        let dead_at = heard + self.dead_after;
        if now >= dead_at {
            let silence = units::show(self.dead_after);
            return Err(LinkError {
                what: format!("nothing was heard of {peer} for {silence}"),
                hint: Some("the network is down, or so slow that `keep_alive` should be longer".to_owned()),
            });
        }
        // What is given from now on is due later than this.
        let late_at = self.shared.books().flight.oldest().unwrap_or(now) + self.ack_timeout;
        if now >= late_at {
            let patience = units::show(self.ack_timeout);
            return Err(LinkError {
                what: format!("{peer} has not acknowledged a message for {patience}"),
                hint: Some("is the broker overloaded? If it is only slow, raise `ack_timeout`".to_owned()),
            });
        }
        Ok(dead_at.min(late_at))
    }

    fn note(&mut self, signal: Signal) {
        let mut books = self.shared.books();
        match signal {
            Signal::Sent(packet_id) => books.flight.sent(packet_id),
            Signal::Acknowledged(packet_id) => books.flight.acknowledged(packet_id),
            Signal::Refused { packet_id, lasting, reason, slot_lost } => {
                if slot_lost {
                    self.slots_left = self.slots_left.saturating_sub(1);
                }
                if !books.flight.refused(packet_id, lasting, reason.clone()) {
                    tracing::warn!(
                        broker = self.context.peer,
                        reason,
                        "the broker refuses this gateway's status"
                    );
                }
            }
            Signal::Heard | Signal::Wrote => return,
        }
        books.release();
        drop(books);
        self.shared.changed.notify_one();
    }
}

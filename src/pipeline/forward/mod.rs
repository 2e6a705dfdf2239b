//! One task for the uplink: connect, take from the outbox, encode, send, acknowledge, and connect again after a pause.
//!
//! Invariants: a message leaves the outbox only on [`Event::Acknowledged`] for its very id, or by being given up,
//! which the outbox enters in its ledger. Whatever was handed out and not answered when a session ends is put back.

mod flight;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::stop::Stop;
use super::trouble::Trouble;
use crate::clock::Clock;
use crate::encode::{Format, Status};
use crate::model::{Cause, Gap, Id, Kind, Publication, Timestamp};
use crate::outbox::{Outbox, Outgoing};
use crate::tally::Tally;
use crate::units;
use crate::uplink::{Event, Lasting, LinkError, Session, Uplink};

use flight::Flight;

/// How long a stop, or the end of a session that is to be followed by a fresh one, waits for acknowledgements of what
/// is on its way.
const GRACE: Duration = Duration::from_secs(5);

/// The longest wait between two tries to connect.
const CAP: Duration = Duration::from_secs(60);

/// What `forward` counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// Whether a session is there.
    pub connected: AtomicBool,
    /// Tries to connect so far. The number of the last is the connection's in its status.
    pub tries: AtomicU64,
    /// Sessions so far.
    pub connections: AtomicU64,
    /// Publications sent, repeated ones too.
    pub sent: AtomicU64,
    /// Publications acknowledged.
    pub acknowledged: AtomicU64,
    /// Publications refused for a time.
    pub put_off: Tally,
    /// Messages refused for good, or too large to send.
    pub given_up: Tally,
}

/// Forwards what the outbox holds.
#[derive(Debug)]
pub struct Forward {
    /// Where messages wait.
    pub outbox: Outbox,
    /// The payload's format.
    pub format: Format,
    /// For the status's time.
    pub clock: Clock,
    /// Where it counts.
    pub stats: Arc<Stats>,
}

impl Forward {
    /// Forwards until `stop`; then what waits and is on its way is given a few seconds to be acknowledged. What is
    /// appended after it waits for the next.
    pub async fn run<U: Uplink>(self, mut uplink: U, stop: Stop) {
        let mut backoff = Backoff::new(Duration::from_secs(1), CAP);
        let mut link = Trouble::new(self.clock.monotonic());
        loop {
            let connection = self.stats.tries.fetch_add(1, Ordering::Relaxed) + 1;
            let ended = tokio::select! {
                biased;
                () = stop.wait() => return,
                connected = self.connect(&mut uplink, connection) => connected,
            };
            let error = match ended {
                Ok((session, gateway, since)) => {
                    let (told, down) = (link.was_told(), link.over(self.clock.monotonic()));
                    let waiting = self.outbox.stats().waiting();
                    match down.map(units::show) {
                        Some(down) if told => {
                            tracing::info!(gateway = &*gateway, waiting, "connected, after {down} without");
                        }
                        Some(_) => tracing::info!(gateway = &*gateway, waiting, "connected"),
                        None => {}
                    }
                    let status = |online| self.status(&gateway, online, connection, since);
                    let ended = self.serve(session, &gateway, status, &stop).await;
                    self.stats.connected.store(false, Ordering::Relaxed);
                    self.outbox.put_back_all();
                    if link.is_steady(self.clock.monotonic()) {
                        backoff.reset();
                    }
                    match ended {
                        Ended::Failed(error) => error,
                        // One that holds for moments only is a failure in all but name: it must not become a flood.
                        Ended::Renewed if link.is_steady(self.clock.monotonic()) => continue,
                        Ended::Renewed => {
                            sleep_unless_stopped(&stop, backoff.wait()).await;
                            continue;
                        }
                        Ended::Stopped => return,
                    }
                }
                Err(error) => error,
            };
            let text = error.to_string();
            if link.again(&text, self.clock.monotonic()) {
                let cap = units::show(CAP);
                tracing::warn!(
                    "no connection: {text} (messages wait in the buffer; trying again within {cap})"
                );
            }
            tokio::select! {
                () = sleep_unless_stopped(&stop, backoff.wait()) => {}
                // Certificates that were not valid yet are now: the next try is worth it at once.
                () = self.clock.trusted(), if !self.clock.now().synced => backoff.reset(),
            }
        }
    }

    async fn connect<U: Uplink>(
        &self,
        uplink: &mut U,
        connection: u64,
    ) -> Result<(U::Session, Arc<str>, Timestamp), LinkError> {
        let gateway = uplink.gateway()?;
        let since = self.clock.now().wall;
        let session = uplink.connect(self.status(&gateway, false, connection, since)).await?;
        self.stats.connected.store(true, Ordering::Relaxed);
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        Ok((session, gateway, since))
    }

    /// Serves a session to its end.
    async fn serve<S: Session>(
        &self,
        mut session: S,
        gateway: &str,
        status: impl Fn(bool) -> Publication,
        stop: &Stop,
    ) -> Ended {
        let mut flight = Flight::new(session.limits());
        self.send(&mut session, status(true), &mut flight);
        let mut retry = Backoff::new(Duration::from_secs(1), CAP);
        let mut held_until: Option<Instant> = None;
        let mut leaving: Option<Leaving> = None;
        // What may still be taken from the outbox. A stop sets a bound: sources may go on, for the next uplink.
        let mut takes = usize::MAX;
        loop {
            while let Some(publication) = flight.fitting() {
                self.send(&mut session, publication, &mut flight);
            }
            let room = if held_until.is_some() { 0 } else { flight.room().min(takes) };
            tokio::select! {
                biased;
                event = session.next() => match event {
                    Ok(Event::Acknowledged(ids)) => {
                        retry.reset();
                        self.acknowledge(&ids, &mut flight);
                    }
                    Ok(Event::Refused { ids, lasting: Lasting::Retry, reason }) => {
                        self.put_off(&ids, &reason, &mut flight);
                        held_until = Some(self.clock.instant(self.clock.monotonic() + retry.wait()));
                    }
                    Ok(Event::Refused { ids, lasting: Lasting::Forever, reason }) => {
                        for id in ids {
                            self.give_up(id, Cause::Refused, &reason, &mut flight);
                        }
                    }
                    Ok(Event::Renew { why }) => {
                        if leaving.is_none() {
                            tracing::info!("connecting anew: {why}");
                            leaving = Some(self.leave(Ended::Renewed));
                            takes = 0;
                        }
                    }
                    Err(error) => return Ended::Failed(error),
                },
                () = until(leaving.as_ref().map(|leaving| leaving.by)) => break,
                () = stop.wait(), if !matches!(leaving, Some(Leaving { to: Ended::Stopped, .. })) => {
                    leaving = Some(self.leave(Ended::Stopped));
                    let waiting = usize::try_from(self.outbox.stats().waiting()).unwrap_or(usize::MAX);
                    takes = waiting.saturating_sub(flight.messages());
                }
                () = until(held_until), if held_until.is_some() => held_until = None,
                gaps = self.outbox.gaps(), if room > 0 => {
                    for gap in gaps {
                        flight.waiting.push_back(self.gap(gateway, &gap, &mut flight.gaps));
                    }
                }
                messages = self.outbox.next(room, flight.limits.in_flight_bytes), if room > 0 => {
                    takes = takes.saturating_sub(messages.len());
                    flight.waiting.extend(messages.into_iter().map(|message| self.data(gateway, message)));
                }
                // Reached only where the outbox has nothing at hand: all that could go has gone.
                () = std::future::ready(()), if leaving.is_some() && flight.is_empty() => break,
            }
        }
        let ended = leaving.map_or(Ended::Stopped, |leaving| leaving.to);
        // Whoever comes back in a moment does not say that it is gone.
        if matches!(ended, Ended::Stopped) {
            self.send(&mut session, status(false), &mut flight);
        }
        session.close().await;
        ended
    }

    fn leave(&self, to: Ended) -> Leaving {
        Leaving { to, by: self.clock.instant(self.clock.monotonic() + GRACE) }
    }

    fn send<S: Session>(&self, session: &mut S, publication: Publication, flight: &mut Flight) {
        let ids = publication.ids.clone();
        let bytes = publication.payload.len();
        match session.send(publication) {
            Ok(()) => {
                self.stats.sent.fetch_add(1, Ordering::Relaxed);
                flight.sent(&ids, bytes);
            }
            Err(error) => {
                for id in ids {
                    self.give_up(id, Cause::TooLarge, &error.to_string(), flight);
                }
            }
        }
    }

    fn acknowledge(&self, ids: &[Id], flight: &mut Flight) {
        self.stats.acknowledged.fetch_add(1, Ordering::Relaxed);
        flight.answered(ids);
        for id in ids {
            if flight.gaps.remove(id) {
                self.outbox.acknowledge_gap(*id);
            }
        }
        self.outbox.acknowledge(ids);
    }

    fn put_off(&self, ids: &[Id], reason: &str, flight: &mut Flight) {
        if let Some(count) = self.stats.put_off.count() {
            tracing::warn!(count, "the broker refused a message for now: {reason}; it is sent again");
        }
        flight.answered(ids);
        for id in ids {
            flight.gaps.remove(id);
        }
        self.outbox.put_back(ids);
    }

    fn give_up(&self, id: Id, cause: Cause, reason: &str, flight: &mut Flight) {
        if let Some(count) = self.stats.given_up.count() {
            tracing::error!(%id, cause = cause.name(), count, "the broker will not take it: {reason}");
        }
        flight.answered(&[id]);
        // A gap record is never given up: it stays handed out, and the next session is given it again.
        if !flight.gaps.remove(&id) {
            self.outbox.give_up(id, cause, reason);
        }
    }

    fn data(&self, gateway: &str, outgoing: Outgoing) -> Publication {
        let Outgoing { id, message } = outgoing;
        let mut payload = Vec::new();
        self.format.message(id, gateway, &message, &mut payload);
        Publication { ids: vec![id], kind: Kind::Data { device: message.device }, payload }
    }

    fn gap(&self, gateway: &str, gap: &Gap, gaps: &mut HashSet<Id>) -> Publication {
        gaps.insert(gap.id);
        let mut payload = Vec::new();
        self.format.gap(gateway, gap, &mut payload);
        Publication { ids: vec![gap.id], kind: Kind::Gap, payload }
    }

    fn status(&self, gateway: &str, online: bool, connection: u64, since: Timestamp) -> Publication {
        let status = Status { online, epoch: self.outbox.epoch(), connection, since };
        let mut payload = Vec::new();
        self.format.status(gateway, &status, &mut payload);
        Publication { ids: Vec::new(), kind: Kind::Status, payload }
    }
}

/// How a session ended.
#[derive(Debug)]
enum Ended {
    /// By an error.
    Failed(LinkError),
    /// In order, to be followed by another at once.
    Renewed,
    /// In order, as `stop` came.
    Stopped,
}

/// A session that takes nothing more and waits for what is on its way.
struct Leaving {
    to: Ended,
    by: Instant,
}

async fn sleep_unless_stopped(stop: &Stop, pause: Duration) {
    tokio::select! {
        biased;
        () = stop.wait() => {}
        () = sleep(pause) => {}
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

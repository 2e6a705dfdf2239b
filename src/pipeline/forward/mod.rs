//! One task for the uplink: connect, take from the outbox, encode, send, acknowledge, and connect again after a pause.
//!
//! Invariants: a message leaves the outbox only on [`Event::Acknowledged`] for its very id, or by being given up,
//! which the outbox enters in its ledger. Whatever was handed out and not answered when a session ends is put back.
//!
//! [`serve`] is one session; [`hunt`] finds the message that the other side closes the connection on; [`aside`] keeps
//! those that it refuses for now from blocking the rest; [`rate`] paces a backlog.

mod aside;
mod flight;
mod hunt;
mod link;
mod rate;
mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::backoff::Backoff;
use super::stop::Stop;
use super::trouble::Trouble;
use crate::clock::Clock;
use crate::encode::{Format, Status};
use crate::model::{Kind, Publication, Timestamp};
use crate::outbox::{Outbox, Replay};
use crate::tally::Tally;
use crate::units;
use crate::uplink::{LinkError, Session, Uplink};

pub use link::{Link, State};
use serve::{Course, Ended, Serving};

/// How long a stop, or the end of a session that is to be followed by a fresh one, waits for acknowledgements of what
/// is on its way.
const GRACE: Duration = Duration::from_secs(5);

/// The longest wait between two tries to connect.
const CAP: Duration = Duration::from_secs(60);

/// What `forward` counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// How the link stands.
    pub link: Link,
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
    /// Messages refused for good, or too large to send; once each, however often they are sent again.
    pub given_up: Tally,
    /// How often that became of one that was sent again.
    pub refused_again: Tally,
}

/// Forwards what the outbox holds.
#[derive(Debug)]
pub struct Forward {
    /// Where messages wait.
    pub outbox: Outbox,
    /// The payload's format.
    pub format: Format,
    /// How a backlog is sent.
    pub replay: Replay,
    /// For the status's time, and pauses.
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
        let mut course = Course::new(&self);
        let mut synced = self.clock.now().synced;
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
                    let serving = Serving::new(&self, &mut course, session, &gateway);
                    let ended = serving.run(status, &stop).await;
                    self.stats.link.down();
                    self.outbox.put_back_all();
                    if link.is_steady(self.clock.monotonic()) {
                        backoff.reset();
                    }
                    match ended {
                        Ended::Failed { error, useful } => {
                            // Where it gets on, it goes on quickly.
                            if useful {
                                backoff.reset();
                            }
                            error
                        }
                        Ended::Renewed { .. } if link.is_steady(self.clock.monotonic()) => {
                            // That was no trouble.
                            link = Trouble::new(self.clock.monotonic());
                            continue;
                        }
                        // One that holds for moments only is a failure in all but name: it must not become a flood.
                        Ended::Renewed { useful } => {
                            let pause = if useful { Backoff::FLOOR } else { backoff.wait() };
                            sleep_unless_stopped(&stop, pause).await;
                            continue;
                        }
                        Ended::Stopped => return,
                    }
                }
                Err(error) => error,
            };
            let text = error.to_string();
            self.stats.link.failed(&text, self.clock.monotonic());
            if link.again(&text, self.clock.monotonic()) {
                let cap = units::show(CAP);
                tracing::warn!(
                    "no connection: {text} (messages wait in the buffer; trying again within {cap})"
                );
            }
            tokio::select! {
                () = sleep_unless_stopped(&stop, backoff.wait()) => {}
                () = self.clock.trusted(), if !synced => {}
            }
            // Certificates that were not valid yet are now: the next tries are worth it at once.
            if !std::mem::replace(&mut synced, self.clock.now().synced) && synced {
                backoff.reset();
            }
        }
    }

    async fn connect<U: Uplink>(
        &self,
        uplink: &mut U,
        connection: u64,
    ) -> Result<(U::Session, Arc<str>, Timestamp), LinkError> {
        self.stats.link.certificate(uplink.certificate_until(), uplink.uses_certificate());
        let gateway = uplink.gateway()?;
        let since = self.clock.now().wall;
        let session = uplink.connect(self.status(&gateway, false, connection, since)).await?;
        self.stats.link.certificate(uplink.certificate_until(), uplink.uses_certificate());
        self.stats.link.up(session.peer(), self.clock.monotonic());
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        Ok((session, gateway, since))
    }

    fn status(&self, gateway: &str, online: bool, connection: u64, since: Timestamp) -> Publication {
        let status = Status { online, epoch: self.outbox.epoch(), connection, since };
        let mut payload = Vec::new();
        self.format.status(gateway, &status, &mut payload);
        Publication { ids: Vec::new(), kind: Kind::Status, payload }
    }
}

async fn sleep_unless_stopped(stop: &Stop, pause: Duration) {
    tokio::select! {
        biased;
        () = stop.wait() => {}
        () = sleep(pause) => {}
    }
}

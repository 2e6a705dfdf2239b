//! Who this gateway is to the broker: the certificate in use, and a new one on its way in.
//!
//! - What a broker has accepted is kept in memory until a broker has accepted another: files that go bad, or that the
//!   broker does not take, cost no connection.
//! - New files are tried by a handshake beside the running session, which ends only once that has gone well; and at
//!   the connect itself, where the old certificate follows at once should the broker take it and not the new one.
//! - Files that were refused are told of once, and tried again when they change or when somebody asks to look again.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;

use super::config::Url;
use super::link::Failure;
use super::probe;
use super::words::Context;
use crate::clock::Clock;
use crate::tls::{self, Client, Expiry, Looks, Seen};
use crate::uplink::{LinkError, Look};

/// How often the files are looked at: three stats and one wakeup in ten seconds.
const EVERY: Duration = Duration::from_secs(10);

/// What can be shown of the client certificate.
#[derive(Debug, Default)]
pub struct Stats {
    /// The last second at which the one in use is valid, in Unix time; 0 while there is none.
    pub until: AtomicI64,
    /// New ones that were taken into use.
    pub rotations: AtomicU64,
    /// New ones that were not.
    pub refused: AtomicU64,
}

/// What to connect with: first this, then, should the broker not take it, the one that it took before.
pub(super) struct Choice {
    pub(super) first: Client,
    pub(super) before: Option<Client>,
}

#[derive(Debug)]
pub(super) struct Identity {
    files: tls::Config,
    /// Whether the certificate's common name is the gateway's.
    names_gateway: bool,
    clock: Clock,
    look: Look,
    stats: Arc<Stats>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What a broker has accepted last.
    accepted: Option<Client>,
    /// How the files looked with whose content a connection was closed, maybe by chance.
    doubted: Option<Seen>,
    /// How those looked whose content was refused.
    refused: Option<Seen>,
    /// How those looked of which that was told.
    told: Option<Seen>,
    expiry: Expiry,
}

impl Identity {
    pub(super) fn new(files: tls::Config, names_gateway: bool, clock: Clock) -> Self {
        let (look, stats, kept) = Default::default();
        Self { files, names_gateway, clock, look, stats, kept }
    }

    pub(super) fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// The handle by which somebody asks to look again.
    pub(super) fn look(&self) -> Look {
        self.look.clone()
    }

    /// What to connect with.
    pub(super) fn choose(&self, gateway: &str) -> Result<Choice, LinkError> {
        let now = super::now(&self.clock);
        let read = self.load(gateway);
        let kept = self.kept();
        let before = kept.accepted.clone().filter(|before| !before.is_over(now));
        match (read, before) {
            (Ok(first), Some(before)) if kept.refused.as_ref() == Some(&first.seen) => {
                Ok(Choice { first: before, before: None })
            }
            (Ok(first), Some(before)) if first.is_same_as(&before) => Ok(Choice { first, before: None }),
            (Ok(first), before) => Ok(Choice { first, before }),
            // The files may be half written; the session looks at them again in a moment.
            (Err(_), Some(before)) => Ok(Choice { first: before, before: None }),
            (Err(error), None) => Err(error),
        }
    }

    /// A broker has accepted `client`.
    pub(super) fn accepted(&self, client: &Client) {
        let mut kept = self.kept();
        if kept.refused.as_ref() == Some(&client.seen) {
            kept.refused = None;
        }
        let before = kept.accepted.replace(client.clone());
        if before.as_ref().is_some_and(|before| before.is_same_as(client)) {
            return;
        }
        if before.is_some() {
            self.stats.rotations.fetch_add(1, Ordering::Relaxed);
        }
        self.stats.until.store(client.until, Ordering::Relaxed);
        let now = super::now(&self.clock);
        let (file, until) = (self.files.cert.display(), tls::show(client.until));
        if now.trusted {
            let days = tls::days_left(client.until, now);
            tracing::info!(days, "the client certificate in {file} is valid until {until}");
        } else {
            tracing::info!("the client certificate in {file} is valid until {until}");
        }
    }

    /// `client` was refused, and the one before it is not. Where that may have been chance, it may be tried once more:
    /// then this gives false.
    pub(super) fn refused(&self, client: &Client, error: &LinkError, blame: Blame) -> bool {
        if blame == Blame::Maybe
            && self.kept().doubted.replace(client.seen.clone()) != Some(client.seen.clone())
        {
            tracing::debug!(%error, "the new certificate is tried once more");
            return false;
        }
        let doubt = client.doubt().map(|doubt| format!("; {doubt}")).unwrap_or_default();
        self.unfit(&client.seen, &format!("{error}{doubt}"));
        true
    }

    /// What was accepted before is refused now: what was refused before may be what is wanted.
    pub(super) fn doubt(&self) {
        self.kept().refused = None;
    }

    fn unfit(&self, seen: &Seen, error: &str) {
        let mut kept = self.kept();
        kept.refused = Some(seen.clone());
        if kept.told.replace(seen.clone()).as_ref() == Some(seen) {
            return;
        }
        self.stats.refused.fetch_add(1, Ordering::Relaxed);
        let until = kept.accepted.as_ref().map(|client| tls::show(client.until)).unwrap_or_default();
        tracing::error!(
            "the new certificate is not used: {error} (weir goes on with the one that it has, which is valid until \
             {until}, and tries again when a file in `tls` changes and at every reload)"
        );
    }

    /// Waits until the broker would take a new certificate, and says so. Never ends where none comes. Cancel-safe where
    /// it is polled on from where it was.
    pub(super) async fn renewed(self: Arc<Self>, in_use: Client, way: Way) -> String {
        let settled = self.kept().refused.clone().unwrap_or_else(|| in_use.seen.clone());
        let mut looks = Looks::new(settled);
        loop {
            self.warn_of_end(&in_use);
            let seen = self.files.seen();
            let look = looks.look(seen.clone(), self.clock.monotonic());
            let mut pause = look.again_in(EVERY);
            if let tls::Look::Changed { fresh } = look {
                match self.load(&way.gateway) {
                    Ok(new) if new.is_same_as(&in_use) => looks.settle(),
                    Ok(new) => match probe::probe(&way.broker, &new.config).await {
                        Ok(()) => {
                            let until = tls::show(new.until);
                            return format!("the broker takes the new certificate, valid until {until}");
                        }
                        Err(probe::Error::Refused(failure)) => {
                            let blame = blame(&failure);
                            let error = way.context.not_connected(failure, super::now(&self.clock));
                            if self.refused(&new, &error, blame) {
                                looks.settle();
                            } else {
                                pause = EVERY;
                            }
                        }
                        Err(probe::Error::Unreachable(error)) => {
                            tracing::debug!(%error, "the new certificate cannot be tried now");
                            pause = EVERY;
                        }
                    },
                    Err(_) if fresh => {}
                    Err(error) => {
                        self.unfit(&seen, &error.to_string());
                        looks.settle();
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look.asked() => {
                    self.forget();
                    looks.insist(self.files.seen());
                }
            }
        }
    }

    fn forget(&self) {
        let mut kept = self.kept();
        (kept.doubted, kept.refused, kept.told) = (None, None, None);
    }

    fn warn_of_end(&self, in_use: &Client) {
        let now = super::now(&self.clock);
        if !self.kept().expiry.is_due(in_use.until, now) {
            return;
        }
        let (file, until, days) =
            (self.files.cert.display(), tls::show(in_use.until), tls::days_left(in_use.until, now));
        if in_use.is_over(now) {
            tracing::error!("the client certificate in {file} expired on {until}: install a new one");
        } else {
            tracing::warn!(
                days,
                "the client certificate in {file} expires on {until}: install a new one, which weir takes up \
                 without a restart"
            );
        }
    }

    /// Reads the files.
    fn load(&self, gateway: &str) -> Result<Client, LinkError> {
        let client = tls::client(&self.files, super::now(&self.clock))?;
        if self.names_gateway && client.name.as_deref() != Some(gateway) {
            let name = client.name.as_deref().unwrap_or("nobody");
            return Err(LinkError {
                what: format!(
                    "the client certificate now names `{name}`, but this gateway runs as `{gateway}`"
                ),
                hint: Some("restart weir to change the name, or set `id` under [gateway]".to_owned()),
            });
        }
        Ok(client)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To whom a new certificate is shown, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) gateway: Arc<str>,
    pub(super) broker: Url,
    pub(super) context: Context,
}

/// Whether a failure is the certificate's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// It is something else.
    None,
    /// The other side closed without a word, which many brokers do on a certificate that they do not take, and every
    /// broker that is restarted.
    Maybe,
    /// The other side says so, or weir does not trust it by the files' word.
    Sure,
}

/// Whether `failure` is the certificate's fault.
pub(super) fn blame(failure: &Failure) -> Blame {
    use ConnectReturnCode as C;
    use std::io::ErrorKind as K;
    match failure {
        Failure::Refused(
            C::NotAuthorized
            | C::BadUserNamePassword
            | C::BadClientId
            | C::ClientIdentifierNotValid
            | C::BadAuthenticationMethod
            | C::Banned,
        ) => Blame::Sure,
        Failure::Closed => Blame::Maybe,
        Failure::Io(error) if tls::within(error).is_some() => Blame::Sure,
        Failure::Io(error) => match error.kind() {
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof => Blame::Maybe,
            _ => Blame::None,
        },
        _ => Blame::None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_network_or_a_broker_in_trouble_is_not_held_against_a_certificate() {
        let io = |code| Failure::Io(io::Error::from_raw_os_error(code));
        for failure in [
            io(libc::ECONNREFUSED),
            io(libc::ENETUNREACH),
            Failure::Timeout,
            Failure::Refused(ConnectReturnCode::ServerBusy),
            Failure::Refused(ConnectReturnCode::QuotaExceeded),
        ] {
            assert_eq!(blame(&failure), Blame::None, "{failure:?}");
        }
        for failure in [io(libc::ECONNRESET), io(libc::EPIPE), Failure::Closed] {
            assert_eq!(blame(&failure), Blame::Maybe, "{failure:?}");
        }
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        let wrapped = Failure::Io(io::Error::new(io::ErrorKind::InvalidData, alert));
        let refused = Failure::Refused(ConnectReturnCode::NotAuthorized);
        for failure in [wrapped, refused] {
            assert_eq!(blame(&failure), Blame::Sure, "{failure:?}");
        }
    }
}

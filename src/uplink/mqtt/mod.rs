//! MQTT 5 and 3.1.1 over mutual TLS: rumqttc writes and reads the packets, the rest is here.
//!
//! Data go to the configured topic; gap records to `weir/{gateway}/gaps`; the status, retained, to
//! `weir/{gateway}/status`, which is also the will's. Data are sent with the configured QoS, the rest with at least 1.

mod auth;
mod config;
mod dial;
mod flight;
mod identity;
mod link;
mod probe;
mod renewal;
mod session;
mod standby;
mod token;
mod topics;
mod v311;
mod v5;
mod words;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ClientConfig;

use self::auth::Auth;
use self::identity::{Blame, Choice, Identity, Way};
use self::link::{Accepted, Link, Options};
use self::renewal::Renewal;
use self::session::Terms;
use self::standby::{Return, Turns};
use self::topics::Topics;
use self::words::Context;
use super::{Limits, LinkError, Look, Uplink};
use crate::clock::Clock;
use crate::model::{Publication, is_name};
use crate::tls::{self, Client};

pub use config::{Config, Protocol, Qos, Url};
pub use identity::Stats;
pub use session::Session;

/// The smallest packet size, in bytes, that a session is worth having with: the status and a short message fit.
const PACKET_MAX_LEAST: usize = 1024;

/// The way to one MQTT broker, or to the first of several that is to be had.
#[derive(Debug)]
pub struct Mqtt {
    config: Config,
    turns: Turns,
    clock: Clock,
    gateway: Option<Arc<str>>,
    /// Where there is a certificate.
    identity: Option<Arc<Identity>>,
}

impl Mqtt {
    /// A way by `config`, which has no [`Config::problems`]. `gateway` is the configured name; without one the client
    /// certificate tells it.
    #[must_use]
    pub fn new(config: Config, gateway: Option<Arc<str>>, clock: Clock) -> Self {
        let identity =
            |tls: &tls::Config| Identity::new(tls.clone(), gateway.is_none(), clock.clone()).into();
        let identity = config.tls.as_ref().map(identity);
        Self { config, turns: Turns::default(), clock, gateway, identity }
    }

    /// What can be shown of the client certificate, where there is one.
    #[must_use]
    pub fn stats(&self) -> Option<Arc<Stats>> {
        self.identity.as_ref().map(|identity| identity.stats())
    }

    fn named_by_certificate(&self) -> Result<Arc<str>, LinkError> {
        let Some(tls) = &self.config.tls else {
            return Err(LinkError {
                what: "this gateway has no name".to_owned(),
                hint: Some(
                    "set `id` under [gateway]: without TLS there is no certificate to take it from"
                        .to_owned(),
                ),
            });
        };
        let name = tls::common_name(&tls.cert)?;
        if !is_name(&name) || name.contains(char::is_control) {
            return Err(LinkError {
                what: format!("the common name {name:?} in {} cannot name a gateway", tls.cert.display()),
                hint: Some("set `id` under [gateway]: 1 to 128 bytes without control characters".to_owned()),
            });
        }
        Ok(name.into())
    }

    /// Connects with what the choice has first; where the broker may not take that, with what it took before. Gives the
    /// certificate that it took, too.
    async fn link(
        &self,
        broker: &Url,
        choice: Option<&Choice>,
        options: Options,
        context: &Context,
    ) -> Result<(Link, Accepted, Option<Client>), LinkError> {
        let told = |failure| context.not_connected(failure, now(&self.clock));
        let (Some(choice), Some(identity)) = (choice, &self.identity) else {
            let (link, accepted) = Link::connect(broker, None, options).await.map_err(told)?;
            return Ok((link, accepted, None));
        };
        let with = |client: &Client| Link::connect(broker, Some(Arc::clone(&client.config)), options.clone());
        let failure = match with(&choice.first).await {
            Ok((link, accepted)) => {
                identity.accepted(&choice.first);
                return Ok((link, accepted, Some(choice.first.clone())));
            }
            Err(failure) => failure,
        };
        let blame = identity::blame(&failure);
        let error = told(failure);
        match &choice.before {
            Some(before) if blame != Blame::None => {
                // Were this refused as well, it would not be the certificate.
                let Ok((link, accepted)) = with(before).await else { return Err(error) };
                identity.refused(&choice.first, &error, blame);
                Ok((link, accepted, Some(before.clone())))
            }
            _ => {
                if blame != Blame::None {
                    identity.doubt();
                }
                Err(error)
            }
        }
    }

    async fn connect_to(
        &self,
        broker: &Url,
        within: Duration,
        gateway: &Arc<str>,
        will: Publication,
    ) -> Result<Connected, LinkError> {
        let config = &self.config;
        let topics = Topics::new(&config.topic, gateway);
        let context = Context {
            peer: broker.peer(),
            within,
            tls: config.tls.as_ref().filter(|_| broker.tls).map(tls::Config::allows),
            auth: config.auth.as_ref().map(Auth::name),
            protocol: config.protocol,
            client_id: config.client_id.clone().unwrap_or_else(|| gateway.as_ref().to_owned()),
        };
        let identity = self.identity.as_ref().filter(|_| broker.tls);
        let choice = identity.map(|identity| identity.choose(gateway)).transpose()?;
        let login = config.auth.as_ref().map(|auth| auth.login(&self.clock)).transpose()?;
        let in_time = login.as_ref().and_then(|login| login.renew_in);
        let options = Options {
            within,
            protocol: config.protocol,
            client_id: context.client_id.clone(),
            login,
            will: session::packet(will, &topics, config.qos).0,
            keep_alive: config.keep_alive,
        };
        let (link, accepted, in_use) = self.link(broker, choice.as_ref(), options, &context).await?;
        if accepted.qos_max < config.qos as u8 {
            return Err(LinkError {
                what: format!("{} takes QoS {} at most", context.peer, accepted.qos_max),
                hint: Some(format!("set `qos = {}`", accepted.qos_max)),
            });
        }
        // Else every message would be given up as too large.
        if accepted.packet_max < PACKET_MAX_LEAST {
            return Err(LinkError {
                what: format!(
                    "{} takes packets of at most {} bytes, which is too small to work with",
                    context.peer, accepted.packet_max
                ),
                hint: Some(format!("raise the broker's limit to at least {PACKET_MAX_LEAST} bytes")),
            });
        }
        let limits = Limits {
            in_flight: usize::from(config.window().min(accepted.receive_max)),
            in_flight_bytes: usize::try_from(config.max_in_flight_bytes.0).unwrap_or(usize::MAX),
        };
        let tls = in_use.as_ref().map(|client| Arc::clone(&client.config));
        let way = Way { gateway: Arc::clone(gateway), broker: broker.clone(), context: context.clone() };
        let in_use = identity.map(Arc::clone).zip(in_use);
        let renewal = Renewal::new(in_use.map(|(identity, in_use)| identity.renewed(in_use, way)), in_time);
        let terms = Terms {
            topics,
            qos: config.qos,
            limits,
            receive_max: accepted.receive_max,
            packet_max: accepted.packet_max,
            keep_alive: accepted.keep_alive.unwrap_or(config.keep_alive),
            ack_timeout: config.ack_timeout,
            context,
        };
        Ok(Connected { link, terms, renewal, tls })
    }

    /// Notes which broker is used, and says so where it is another than before.
    fn settled_on(&mut self, index: usize, broker: &Url, failures: &[LinkError]) {
        if !self.turns.settle(index) {
            return;
        }
        let broker = broker.peer();
        match failures.first() {
            _ if index == 0 => tracing::info!(broker, "back with the first broker"),
            Some(failure) => tracing::warn!(broker, "connected to a standby: {failure}"),
            None => tracing::warn!(broker, "connected to a standby"),
        }
    }

    /// On a standby: what waits for the first broker.
    fn way_back(&mut self, index: usize, brokers: &[Url], tls: Option<Arc<ClientConfig>>) -> Option<Return> {
        let first = brokers.first().filter(|_| index > 0)?.clone();
        let tls = tls.filter(|_| first.tls);
        let answered = self.turns.answered();
        let dial = move || {
            let (first, tls, answered) = (first.clone(), tls.clone(), Arc::clone(&answered));
            async move {
                let dialled = dial::dial(&first, tls).await.map(drop);
                answered.store(dialled.is_ok(), Ordering::Relaxed);
                dialled
            }
        };
        Some(Return::to(brokers.first()?.peer(), &mut self.turns.pause, dial))
    }
}

impl Uplink for Mqtt {
    type Session = Session;

    fn gateway(&mut self) -> Result<Arc<str>, LinkError> {
        if let Some(gateway) = &self.gateway {
            return Ok(Arc::clone(gateway));
        }
        let gateway = self.named_by_certificate()?;
        self.gateway = Some(Arc::clone(&gateway));
        Ok(gateway)
    }

    fn look(&self) -> Look {
        self.identity.as_ref().map(|identity| identity.look()).unwrap_or_default()
    }

    fn certificate_until(&self) -> Option<i64> {
        let in_use = self.identity.as_ref()?.stats().until.load(Ordering::Relaxed);
        if in_use != 0 {
            return Some(in_use);
        }
        self.config.tls.as_ref().and_then(|tls| tls::valid_until(&tls.cert).ok())
    }

    fn uses_certificate(&self) -> bool {
        self.identity.is_some()
    }

    async fn connect(&mut self, will: Publication) -> Result<Session, LinkError> {
        let gateway = self.gateway()?;
        let brokers = self.config.brokers();
        let mut failures: Vec<LinkError> = Vec::new();
        let order = self.turns.order(brokers.len(), self.clock.monotonic());
        for (place, index) in order.into_iter().enumerate() {
            let Some(broker) = brokers.get(index) else { continue };
            let within = self.turns.within(brokers.len() - 1 - place);
            match self.connect_to(broker, within, &gateway, will.clone()).await {
                Ok(Connected { link, terms, renewal, tls }) => {
                    self.settled_on(index, broker, &failures);
                    let back = self.way_back(index, &brokers, tls);
                    return Ok(Session::start(link, terms, back, renewal, self.clock.clone()));
                }
                Err(failure) => failures.push(failure),
            }
        }
        self.turns.none();
        Err(all(failures))
    }
}

/// A broker that has accepted.
struct Connected {
    link: Link,
    terms: Terms,
    renewal: Renewal,
    /// What TLS is spoken with.
    tls: Option<Arc<ClientConfig>>,
}

/// What is wrong with each broker.
fn all(mut failures: Vec<LinkError>) -> LinkError {
    match failures.len() {
        1 => failures.remove(0),
        count => {
            let told: Vec<_> = failures.iter().map(LinkError::to_string).collect();
            LinkError {
                what: format!("none of {count} brokers is to be had: {}", told.join("; ")),
                hint: None,
            }
        }
    }
}

fn now(clock: &Clock) -> tls::Now {
    tls::Now { unix: clock.wall().0.div_euclid(1000), trusted: clock.now().synced }
}

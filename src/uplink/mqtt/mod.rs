//! MQTT 5 and 3.1.1 over mutual TLS: rumqttc writes and reads the packets, the rest is here.
//!
//! Data go to the configured topic; gap records to `weir/{gateway}/gaps`; the status, retained, to
//! `weir/{gateway}/status`, which is also the will's. Data are sent with the configured QoS, the rest with at least 1.

mod config;
mod dial;
mod flight;
mod link;
mod session;
mod standby;
mod topics;
mod v311;
mod v5;
mod words;

use std::sync::Arc;

use self::config::Url;
use self::link::{Link, Options};
use self::session::Terms;
use self::standby::{Pause, Return};
use self::topics::Topics;
use self::words::Context;
use super::{Limits, LinkError, Uplink};
use crate::clock::Clock;
use crate::model::{Publication, is_name};
use crate::tls;

pub use config::{Config, Protocol, Qos};
pub use session::Session;

/// The smallest packet size, in bytes, that a session is worth having with: the status and a short message fit.
const PACKET_MAX_LEAST: usize = 1024;

/// The way to one MQTT broker, or to the first of several that is to be had.
#[derive(Debug)]
pub struct Mqtt {
    config: Config,
    /// Which broker the last session was with.
    used: usize,
    /// How long the next session on a standby waits before it dials the first broker.
    pause: Pause,
    clock: Clock,
    gateway: Option<Arc<str>>,
    named_by_certificate: bool,
}

impl Mqtt {
    /// A way by `config`, which has no [`Config::problems`]. `gateway` is the configured name; without one the client
    /// certificate tells it.
    #[must_use]
    pub fn new(config: Config, gateway: Option<Arc<str>>, clock: Clock) -> Self {
        let named_by_certificate = gateway.is_none();
        let (used, pause) = (0, Pause::default());
        Self { config, used, pause, clock, gateway, named_by_certificate }
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

    /// What TLS is spoken with; read anew for every connection, so that new certificates are found.
    fn tls(&self, gateway: &str) -> Result<Option<Arc<rustls::ClientConfig>>, LinkError> {
        let Some(tls) = &self.config.tls else { return Ok(None) };
        let client = tls::client(tls, now(&self.clock))?;
        if self.named_by_certificate {
            let name = self.named_by_certificate()?;
            if *name != *gateway {
                return Err(LinkError {
                    what: format!(
                        "the client certificate now names `{name}`, but this gateway runs as `{gateway}`"
                    ),
                    hint: Some("restart weir to change the name, or set `id` under [gateway]".to_owned()),
                });
            }
        }
        Ok(Some(client))
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

    async fn connect(&mut self, will: Publication) -> Result<Session, LinkError> {
        let gateway = self.gateway()?;
        let tls = self.tls(&gateway)?;
        let brokers = self.config.brokers();
        let mut failures: Vec<LinkError> = Vec::new();
        for (index, broker) in brokers.iter().enumerate() {
            match self.connect_to(broker, tls.clone(), &gateway, will.clone()).await {
                Ok((link, terms)) => {
                    self.settled_on(index, broker, &failures);
                    let back = self.way_back(index, &brokers, tls);
                    return Ok(Session::start(link, terms, back, self.clock.clone()));
                }
                Err(failure) => failures.push(failure),
            }
        }
        Err(all(failures))
    }
}

impl Mqtt {
    async fn connect_to(
        &self,
        broker: &Url,
        tls: Option<Arc<rustls::ClientConfig>>,
        gateway: &str,
        will: Publication,
    ) -> Result<(Link, Terms), LinkError> {
        let config = &self.config;
        let topics = Topics::new(&config.topic, gateway);
        let context = Context {
            peer: broker.peer(),
            tls: broker.tls,
            protocol: config.protocol,
            client_id: config.client_id.clone().unwrap_or_else(|| gateway.to_owned()),
        };
        let options = Options {
            protocol: config.protocol,
            client_id: context.client_id.clone(),
            will: session::packet(will, &topics, config.qos).0,
            keep_alive: config.keep_alive,
        };
        let tls = tls.filter(|_| broker.tls);
        let (link, accepted) = Link::connect(broker, tls, options)
            .await
            .map_err(|failure| context.not_connected(failure, now(&self.clock)))?;
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
        Ok((link, terms))
    }

    /// Notes which broker is used, and says so where it is another than before.
    fn settled_on(&mut self, index: usize, broker: &Url, failures: &[LinkError]) {
        if index == 0 {
            self.pause = Pause::default();
        }
        if std::mem::replace(&mut self.used, index) == index {
            return;
        }
        let broker = broker.peer();
        match failures.first() {
            Some(failure) => tracing::warn!(broker, "connected to a standby: {failure}"),
            None => tracing::info!(broker, "back with the first broker"),
        }
    }

    /// On a standby: what waits for the first broker.
    fn way_back(
        &mut self,
        index: usize,
        brokers: &[Url],
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Option<Return> {
        let first = brokers.first().filter(|_| index > 0)?.clone();
        let tls = tls.filter(|_| first.tls);
        let dial = move || {
            let (first, tls) = (first.clone(), tls.clone());
            async move { dial::dial(&first, tls).await.map(|_| ()) }
        };
        Some(Return::to(brokers.first()?.peer(), &mut self.pause, dial))
    }
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

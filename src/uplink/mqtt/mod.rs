//! MQTT 5 and 3.1.1 over mutual TLS, by rumqttc.
//!
//! Data go to the configured topic; gap records to `weir/{gateway}/gaps`; the status, retained, to
//! `weir/{gateway}/status`, which is also the will's. Data are sent with the configured QoS, the rest with at least 1.

mod config;
mod flight;
mod link;
mod session;
mod topics;
mod v311;
mod v5;
mod words;

use std::sync::Arc;

use self::config::Url;
use self::session::Terms;
use self::topics::Topics;
use self::words::Context;
use super::{Limits, LinkError, Uplink};
use crate::clock::Clock;
use crate::model::{Publication, is_name};
use crate::tls;

pub use config::{Config, Protocol, Qos};
pub use session::Session;

/// How many packet ids rumqttc gets for each publication that may be unanswered. The more, the longer a broker may
/// answer out of order before anything has to be held back.
const IDS_PER_PUBLICATION: u16 = 4;

/// The smallest packet size, in bytes, that a session is worth having with: the status and a short message fit.
const PACKET_MAX_LEAST: usize = 1024;

/// The way to one MQTT broker.
#[derive(Debug)]
pub struct Mqtt {
    config: Config,
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
        Self { config, clock, gateway, named_by_certificate }
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
        let config = &self.config;
        let url = Url::parse(&config.url).map_err(|what| LinkError { what, hint: None })?;
        let topics = Topics::new(&config.topic, &gateway);
        let context = Context {
            peer: url.peer(),
            tls: url.tls,
            protocol: config.protocol,
            client_id: config.client_id.clone().unwrap_or_else(|| gateway.as_ref().to_owned()),
        };
        let options = link::Options {
            protocol: config.protocol,
            tls: if url.tls { self.tls(&gateway)? } else { None },
            host: url.host,
            port: url.port,
            client_id: context.client_id.clone(),
            will: session::packet(will, &topics, config.qos).0,
            keep_alive: config.keep_alive,
            ids: config.window().saturating_mul(IDS_PER_PUBLICATION),
        };
        let connected = link::connect(options)
            .await
            .map_err(|failure| context.not_connected(failure, now(&self.clock)))?;
        if connected.qos_max < config.qos as u8 {
            return Err(LinkError {
                what: format!("{} takes QoS {} at most", context.peer, connected.qos_max),
                hint: Some(format!("set `qos = {}`", connected.qos_max)),
            });
        }
        // Else every message would be given up as too large.
        if connected.packet_max < PACKET_MAX_LEAST {
            return Err(LinkError {
                what: format!(
                    "{} takes packets of at most {} bytes, which is too small to work with",
                    context.peer, connected.packet_max
                ),
                hint: Some(format!("raise the broker's limit to at least {PACKET_MAX_LEAST} bytes")),
            });
        }
        let limits = Limits {
            in_flight: usize::from(config.window().min(connected.ids)),
            in_flight_bytes: usize::try_from(config.max_in_flight_bytes.0).unwrap_or(usize::MAX),
        };
        let terms = Terms {
            topics,
            qos: config.qos,
            limits,
            packet_max: connected.packet_max,
            keep_alive: connected.keep_alive,
            ack_timeout: config.ack_timeout,
            context,
        };
        Ok(Session::start(connected, terms, self.clock.clone()))
    }
}

fn now(clock: &Clock) -> tls::Now {
    tls::Now { unix: clock.wall().0.div_euclid(1000), trusted: clock.now().synced }
}

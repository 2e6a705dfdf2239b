//! Where messages go. This file is the contract; a folder is a protocol.
//!
//! An [`Uplink`] connects; a [`Session`] is one connection, dropped on its first error. A session sends what it is
//! given and reports what the other side has answered for. It keeps nothing for later and never reconnects: the
//! outbox alone owns messages, and `pipeline::forward` owns the pacing.

pub mod mqtt;

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::model::{Id, Publication};
use crate::tls;

/// What a session can take, known once it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Publications that may be unanswered at once; at least 1.
    pub in_flight: usize,
    /// Payload bytes that may be unanswered at once. One publication is always allowed.
    pub in_flight_bytes: usize,
}

/// What the other side answered for one publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has taken these for good. A status has no ids: then there are none.
    Acknowledged(Vec<Id>),
    /// It has refused these.
    Refused {
        /// The publication's ids; none where it was a status.
        ids: Vec<Id>,
        /// Whether trying again can help.
        lasting: Lasting,
        /// What it said, in plain words.
        reason: String,
    },
    /// The session works, and is to be followed by a fresh one: what is on its way is waited for, then the session is
    /// closed, and [`Uplink::connect`] is called at once.
    Renew {
        /// Why, to follow "connecting anew:".
        why: String,
    },
}

/// How long a refusal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// For now: the same publication may be taken later.
    Retry,
    /// For good: the same publication will never be taken.
    Forever,
}

/// Why there is no connection, or no longer one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}{}", .hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default())]
pub struct LinkError {
    /// What went wrong, in plain words, with the name that it concerns.
    pub what: String,
    /// What a person can do about it.
    pub hint: Option<String>,
}

impl From<tls::Error> for LinkError {
    fn from(error: tls::Error) -> Self {
        Self { what: error.what, hint: Some(error.hint) }
    }
}

/// How a session ended by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Broken {
    /// The other side closed it and gave no reason that lies elsewhere: what it was sent may be why. One that cannot
    /// refuse a publication, or does not care to, closes the connection instead.
    #[error("{0}")]
    Closed(LinkError),
    /// By the network, by silence, or by the other side for a reason of its own.
    #[error("{0}")]
    Lost(LinkError),
}

impl From<LinkError> for Broken {
    fn from(error: LinkError) -> Self {
        Self::Lost(error)
    }
}

impl From<Broken> for LinkError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Closed(error) | Broken::Lost(error) => error,
        }
    }
}

/// A publication that cannot be sent on this session, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{size} bytes is more than the {limit} bytes that the other side takes")]
pub struct TooLarge {
    /// The whole packet's size in bytes.
    pub size: usize,
    /// The most that is allowed.
    pub limit: usize,
}

/// The word to a session, running or next, to look again at once at what it looks at from time to time: certificates.
#[derive(Clone, Debug, Default)]
pub struct Look(Arc<Notify>);

impl Look {
    /// Gives the word.
    pub fn again(&self) {
        self.0.notify_one();
    }

    /// Waits for the word. Cancel-safe.
    pub async fn asked(&self) {
        self.0.notified().await;
    }
}

/// A way to the cloud.
pub trait Uplink {
    /// One connection.
    type Session: Session;

    /// The gateway's name: configured, or told by the client certificate. Once found it holds for this run.
    ///
    /// # Errors
    /// Where it can not be told yet.
    fn gateway(&mut self) -> Result<Arc<str>, LinkError>;

    /// Where its sessions hear the word to look again. Nobody hears it where there is nothing to look at.
    fn look(&self) -> Look {
        Look::default()
    }

    /// The last second, in Unix time, at which the client certificate is valid that is in use, or is to be; `None` where
    /// there is none, or none that can be read.
    fn certificate_until(&self) -> Option<i64> {
        None
    }

    /// Whether it shows a client certificate at all.
    fn uses_certificate(&self) -> bool {
        false
    }

    /// Connects. `will` is published by the other side should the connection end without [`Session::close`].
    fn connect(&mut self, will: Publication) -> impl Future<Output = Result<Self::Session, LinkError>>;
}

/// One connection.
pub trait Session {
    /// Whom it is with, as a person knows it: by a url.
    fn peer(&self) -> String;

    /// What it can take.
    fn limits(&self) -> Limits;

    /// Sends a publication, at once and without waiting. The caller keeps within [`Session::limits`].
    ///
    /// # Errors
    /// Where it is too large: nothing was sent, and the session goes on.
    fn send(&mut self, publication: Publication) -> Result<(), TooLarge>;

    /// Waits for what the other side answers. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Result<Event, Broken>>;

    /// Sends what was given, says good-bye in order, and ends. The will is then not published.
    fn close(self) -> impl Future<Output = ()>;
}

/// `[uplink]`, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// MQTT.
    Mqtt(mqtt::Config),
}

impl Config {
    /// The values that `type` takes.
    pub const TYPES: &[&str] = &["mqtt"];

    /// Reads the rest of the table of an uplink whose `type` is `kind`; `None` where there is no such type.
    ///
    /// # Errors
    /// As the deserializer says.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, rest: D) -> Option<Result<Self, D::Error>> {
        Some(match kind {
            "mqtt" => mqtt::Config::deserialize(rest).map(Self::Mqtt),
            _ => return None,
        })
    }

    /// What is wrong across keys, as (key, what and what to do). A key may be a path: `tls.key`.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Mqtt(config) => config.problems(),
        }
    }

    /// What it says, in lines for a person: what each is about, and what it says of that.
    #[must_use]
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Mqtt(config) => config.summary(),
        }
    }

    /// Whether it can tell the gateway's name where `[gateway] id` does not: by a client certificate.
    #[must_use]
    pub fn names_gateway(&self) -> bool {
        match self {
            Self::Mqtt(config) => config.tls.is_some(),
        }
    }

    /// What is not there yet, or not for this user, and may come later, as (key, what).
    #[must_use]
    pub fn absent(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Mqtt(config) => config.absent(),
        }
    }

    /// What is there and not fit for use until somebody mends it, as (key, what and what to do).
    #[must_use]
    pub fn unfit(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Mqtt(config) => config.unfit(),
        }
    }
}

/// Any uplink.
#[derive(Debug)]
pub enum AnyUplink {
    /// MQTT.
    Mqtt(mqtt::Mqtt),
}

impl AnyUplink {
    /// The way by `config`, which has no [`Config::problems`]. `gateway` is the configured name, where there is one.
    #[must_use]
    pub fn new(config: Config, gateway: Option<Arc<str>>, clock: Clock) -> Self {
        match config {
            Config::Mqtt(config) => Self::Mqtt(mqtt::Mqtt::new(config, gateway, clock)),
        }
    }
}

impl Uplink for AnyUplink {
    type Session = AnySession;

    fn gateway(&mut self) -> Result<Arc<str>, LinkError> {
        match self {
            Self::Mqtt(uplink) => uplink.gateway(),
        }
    }

    fn look(&self) -> Look {
        match self {
            Self::Mqtt(uplink) => uplink.look(),
        }
    }

    fn certificate_until(&self) -> Option<i64> {
        match self {
            Self::Mqtt(uplink) => uplink.certificate_until(),
        }
    }

    fn uses_certificate(&self) -> bool {
        match self {
            Self::Mqtt(uplink) => uplink.uses_certificate(),
        }
    }

    async fn connect(&mut self, will: Publication) -> Result<AnySession, LinkError> {
        match self {
            Self::Mqtt(uplink) => uplink.connect(will).await.map(AnySession::Mqtt),
        }
    }
}

/// One connection of any uplink.
#[derive(Debug)]
pub enum AnySession {
    /// MQTT.
    Mqtt(mqtt::Session),
}

impl Session for AnySession {
    fn peer(&self) -> String {
        match self {
            Self::Mqtt(session) => session.peer(),
        }
    }

    fn limits(&self) -> Limits {
        match self {
            Self::Mqtt(session) => session.limits(),
        }
    }

    fn send(&mut self, publication: Publication) -> Result<(), TooLarge> {
        match self {
            Self::Mqtt(session) => session.send(publication),
        }
    }

    async fn next(&mut self) -> Result<Event, Broken> {
        match self {
            Self::Mqtt(session) => session.next().await,
        }
    }

    async fn close(self) {
        match self {
            Self::Mqtt(session) => session.close().await,
        }
    }
}

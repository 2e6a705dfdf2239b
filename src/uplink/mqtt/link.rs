//! One MQTT connection by rumqttc, whichever the protocol: what can be asked of it and what it tells.
//!
//! rumqttc keeps and resends for itself, and loses what it keeps. None of that is used here: every connection starts
//! clean, has a client and an event loop of its own, and both are dropped at the first error.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rustls::ClientConfig;

use super::config::Protocol;
use super::flight::Packet;
use super::{v5, v311};
use crate::uplink::Lasting;

/// How long a connect may take, name lookup, TCP, TLS and MQTT together.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Any MQTT packet, in bytes: five of header and the most that four bytes of length can say.
pub(super) const PACKET_MAX: usize = 5 + 268_435_455;

/// What a connection is made with.
pub(super) struct Options {
    pub(super) protocol: Protocol,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) client_id: String,
    pub(super) will: Packet,
    pub(super) keep_alive: Duration,
    /// How many packet ids rumqttc may use at most.
    pub(super) ids: u16,
}

/// A connection that the broker has accepted.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) event_loop: EventLoop,
    /// How many packet ids rumqttc uses: no more than the broker lets be unanswered.
    pub(super) ids: u16,
    /// The largest packet that the broker takes, in bytes.
    pub(super) packet_max: usize,
    /// The highest quality of service that it takes.
    pub(super) qos_max: u8,
    /// The keep-alive that holds, which the broker may have changed.
    pub(super) keep_alive: Duration,
}

/// What a connection tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The oldest queued publication was written, under this packet id; 0 where it has none (QoS 0).
    Sent(u16),
    /// The other side has taken what was sent under this packet id.
    Acknowledged(u16),
    /// It has refused it. `slot_lost` where rumqttc goes on counting it as in flight.
    Refused { packet_id: u16, lasting: Lasting, reason: String, slot_lost: bool },
    /// It has said something else.
    Heard,
    /// Something else was written.
    Wrote,
}

impl Signal {
    /// Whether it proves that the other side is alive.
    pub(super) fn is_from_peer(&self) -> bool {
        matches!(self, Self::Acknowledged(_) | Self::Refused { .. } | Self::Heard)
    }
}

/// Why a connection did not come about, or ended.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Tls(rustls::Error),
    /// The CONNACK says no.
    Refused(ConnectReturnCode),
    /// A DISCONNECT of the broker, with the text that it may have added.
    Dismissed(DisconnectReasonCode, Option<String>),
    /// The other side closed the connection.
    Closed,
    /// The connect took too long.
    Timeout,
    /// The other side no longer answers.
    Silent,
    /// It answered something that it should not.
    Protocol(String),
}

/// Queues what is to be sent.
#[derive(Debug)]
pub(super) enum Client {
    V311(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

impl Client {
    /// Queues a publication. The queue has room for every packet id, and is gone only with the connection, of whose
    /// end the event loop tells.
    pub(super) fn publish(&self, packet: Packet) {
        let Packet { topic, qos, retain, payload } = packet;
        let queued = match self {
            Self::V311(client) => client.try_publish(topic, v311::qos(qos), retain, payload).map_err(|_| ()),
            Self::V5(client) => client.try_publish(topic, v5::qos(qos), retain, payload).map_err(|_| ()),
        };
        if queued.is_err() {
            tracing::debug!("publication given to a connection that has ended");
        }
    }

    /// Queues a DISCONNECT behind everything else.
    pub(super) fn disconnect(&self) {
        let queued = match self {
            Self::V311(client) => client.try_disconnect().map_err(|_| ()),
            Self::V5(client) => client.try_disconnect().map_err(|_| ()),
        };
        if queued.is_err() {
            tracing::debug!("the connection ended before it could be closed");
        }
    }
}

/// Does the work of a connection while it is polled.
pub(super) enum EventLoop {
    V311(Box<rumqttc::EventLoop>),
    V5(Box<rumqttc::v5::EventLoop>),
}

impl EventLoop {
    /// Works until there is something to tell. Not cancel-safe: what was being written may stay unflushed.
    pub(super) async fn poll(&mut self) -> Result<Signal, Failure> {
        match self {
            Self::V311(event_loop) => event_loop.poll().await.map(v311::signal).map_err(v311::failure),
            Self::V5(event_loop) => event_loop.poll().await.map(v5::signal).map_err(v5::failure),
        }
    }

    /// After an error: the next of what was read before it and not yet told.
    pub(super) fn leftover(&mut self) -> Option<Signal> {
        match self {
            Self::V311(event_loop) => event_loop.state.events.pop_front().map(v311::signal),
            Self::V5(event_loop) => event_loop.state.events.pop_front().map(v5::signal),
        }
    }
}

/// Connects, and returns once the broker has accepted.
pub(super) async fn connect(options: Options) -> Result<Connected, Failure> {
    match options.protocol {
        Protocol::V311 => v311::connect(options).await,
        Protocol::V5 => v5::connect(options).await,
    }
}

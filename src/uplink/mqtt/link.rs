//! One MQTT connection, whichever the protocol: what can be said on it and what is heard, over a stream of our own.
//!
//! rumqttc writes and reads the packets, and nothing more of it is used: its event loop takes no stream, keeps and
//! resends for itself, and loses what it keeps.
//!
//! - What is said is gathered, and goes out in one piece once all that had been read by then was told.
//! - Nothing is buffered beyond that but by TLS and the socket: what they do not take stays here. The caller bounds it.
//! - An error of writing is told only when there is nothing left to read. A broker that closes the connection has
//!   mostly said why, by a DISCONNECT or a TLS alert, and was written to in the meantime.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use super::auth::Login;
use super::config::{Protocol, Url};
use super::dial::{Stream, dial};
use super::flight::Packet;
use super::{v5, v311};
use crate::uplink::Lasting;

/// How long a connect may take at most.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Any MQTT packet, in bytes: five of header and the most that four bytes of length can say.
pub(super) const PACKET_MAX: usize = 5 + 268_435_455;

/// The largest packet that is read, in bytes. A broker answers in a few; only its reasons in words are longer.
pub(super) const INCOMING_MAX: u32 = 10 * 1024;

/// Room for reading, in bytes: some hundreds of answers.
const READ: usize = 4096;

/// Room for writing that is kept, in bytes, once it was needed.
const WRITE_KEPT: usize = 64 << 10;

/// MQTT 3.1.1 and 5, 3.12 and 3.14: the same in both. Without a reason a DISCONNECT means a good end.
const PINGREQ: [u8; 2] = [0xC0, 0];
const DISCONNECT: [u8; 2] = [0xE0, 0];

/// What a connection is made with.
#[derive(Clone)]
pub(super) struct Options {
    /// How long it may take, name lookup, TCP, TLS and MQTT together.
    pub(super) within: Duration,
    pub(super) protocol: Protocol,
    pub(super) client_id: String,
    pub(super) login: Option<Login>,
    pub(super) will: Packet,
    pub(super) keep_alive: Duration,
}

impl Options {
    /// In whole seconds, as MQTT counts.
    pub(super) fn keep_alive_seconds(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }
}

/// What a broker lays down when it accepts a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// How many publications with QoS 1 or 2 may be unanswered.
    pub(super) receive_max: u16,
    /// The largest packet that it takes, in bytes.
    pub(super) packet_max: usize,
    /// The highest quality of service that it takes.
    pub(super) qos_max: u8,
    /// The keep-alive that it wants instead of ours.
    pub(super) keep_alive: Option<Duration>,
}

/// What a connection tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The other side has said something.
    Heard(Heard),
    /// All that was to be said is written.
    Written,
}

/// What the other side says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Accepted(Accepted),
    /// It has taken what was sent under this packet id.
    Acknowledged(u16),
    /// It has received it, which is half of the way of QoS 2.
    Received(u16),
    /// It has refused it.
    Refused {
        packet_id: u16,
        lasting: Lasting,
        reason: String,
    },
    /// Anything else: it is alive.
    Other,
}

/// Why a connection did not come about, or ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// Of the network or, wrapped, of TLS.
    Io(io::Error),
    /// The CONNACK says no.
    Refused(ConnectReturnCode),
    /// A DISCONNECT of the broker, with the text that it may have added.
    Dismissed(DisconnectReasonCode, Option<String>),
    /// The other side closed the connection.
    Closed,
    /// The connect took too long.
    Timeout,
    /// It answered something that it should not.
    Protocol(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    protocol: Protocol,
    incoming: BytesMut,
    outgoing: BytesMut,
    unflushed: bool,
    /// Why nothing can be written any more.
    broken: Option<io::Error>,
}

impl Link {
    /// Connects, and returns once the broker has accepted.
    pub(super) async fn connect(
        url: &Url,
        tls: Option<Arc<ClientConfig>>,
        options: Options,
    ) -> Result<(Self, Accepted), Failure> {
        let within = options.within;
        let connect = async { Self::start(dial(url, tls).await?, options).await };
        timeout(within, connect).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Speaks MQTT on `stream`, and returns once the broker has accepted.
    pub(super) async fn start(
        stream: Box<dyn Stream>,
        options: Options,
    ) -> Result<(Self, Accepted), Failure> {
        let protocol = options.protocol;
        let (incoming, outgoing) = (BytesMut::new(), BytesMut::new());
        let mut link = Self { stream, protocol, incoming, outgoing, unflushed: false, broken: None };
        let said = match protocol {
            Protocol::V5 => v5::connect(options, &mut link.outgoing),
            Protocol::V311 => v311::connect(options, &mut link.outgoing),
        };
        link.said(said);
        loop {
            match poll_fn(|cx| link.poll(cx)).await? {
                Signal::Written => {}
                Signal::Heard(Heard::Accepted(accepted)) => return Ok((link, accepted)),
                Signal::Heard(other) => {
                    return Err(Failure::Protocol(format!("{other:?} before a CONNACK")));
                }
            }
        }
    }

    /// Says a publication; `packet_id` is 0 with QoS 0.
    pub(super) fn publish(&mut self, packet: Packet, packet_id: u16) {
        let said = match self.protocol {
            Protocol::V5 => v5::publish(packet, packet_id, &mut self.outgoing),
            Protocol::V311 => v311::publish(packet, packet_id, &mut self.outgoing),
        };
        self.said(said);
    }

    /// Says PUBREL, the second step of QoS 2 (MQTT 3.1.1 and 5, 3.6).
    pub(super) fn release(&mut self, packet_id: u16) {
        self.outgoing.extend_from_slice(&[0x62, 2]);
        self.outgoing.extend_from_slice(&packet_id.to_be_bytes());
    }

    pub(super) fn ping(&mut self) {
        self.outgoing.extend_from_slice(&PINGREQ);
    }

    pub(super) fn disconnect(&mut self) {
        self.outgoing.extend_from_slice(&DISCONNECT);
    }

    /// Half a packet must not be followed by another.
    fn said(&mut self, said: Result<(), String>) {
        if let Err(error) = said {
            self.broken = Some(io::Error::other(error));
        }
    }

    /// Works until there is something to tell. Cancel-safe.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Signal, Failure>> {
        loop {
            let heard = match self.protocol {
                Protocol::V5 => v5::read(&mut self.incoming)?,
                Protocol::V311 => v311::read(&mut self.incoming)?,
            };
            if let Some(heard) = heard {
                return Poll::Ready(Ok(Signal::Heard(heard)));
            }
            let written = self.poll_write(cx);
            if let Poll::Ready(Ok(true)) = written {
                return Poll::Ready(Ok(Signal::Written));
            }
            if let Poll::Ready(Err(error)) = written {
                self.broken = Some(error);
            }
            self.incoming.reserve(READ);
            match pin!(self.stream.read_buf(&mut self.incoming)).poll(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failure::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => match self.broken.take() {
                    Some(error) => return Poll::Ready(Err(error.into())),
                    None => return Poll::Pending,
                },
            }
        }
    }

    /// Writes what is to be said; whether there was anything.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.broken.is_some() || self.outgoing.is_empty() && !self.unflushed {
            return Poll::Ready(Ok(false));
        }
        let mut stream = Pin::new(&mut self.stream);
        while !self.outgoing.is_empty() {
            match ready!(stream.as_mut().poll_write(cx, &self.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outgoing.advance(count),
            }
            self.unflushed = true;
        }
        ready!(stream.poll_flush(cx))?;
        self.unflushed = false;
        if self.outgoing.capacity() > WRITE_KEPT {
            self.outgoing = BytesMut::new();
        }
        Poll::Ready(Ok(true))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! CoAP devices that send: a server for RFC 7252 over UDP, as much of it as taking readings needs.
//!
//! A device sends POST or PUT, Confirmable or not, to `/{device}` with flat JSON or, where the content format says so,
//! SenML in JSON or CBOR, or to `/{device}/{metric}` with a number, true or false in plain text. The rules:
//!
//! - **2.04 Changed means taken**: it is sent once the readings are in the channel. Where that is full, the answer is
//!   5.03 with Max-Age, and nothing was taken.
//! - **A request counts once**, however often it comes: copies of a Confirmable one get its answer again, copies of a
//!   Non-confirmable one none. What is remembered for that is bounded, and outlives a reload of the source.
//! - **What is wrong is said** by the code that RFC 7252 has for it and a diagnostic payload; what is no proper message
//!   is rejected with a Reset. What comes from outside `allow` gets no answer. All of it is counted.
//! - Blocks (RFC 7959) are not taken: a payload comes in one message, of at most 4096 bytes.
//! - **No peer can stop it**: sending never waits (an answer for which the kernel has no room is lost, and the device
//!   asks again), and errors that a peer causes (ICMP) are passed over. What the kernel drops because
//!   more comes than is read is counted.
//!
//! All requests that lie in the socket at one look are one batch, with one receipt.

mod dropped;
mod endpoint;
mod request;
mod socket;
mod taken;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Deserializer};
use tokio::sync::oneshot;

use super::allow::Network;
use super::listen::{self, Protocol};
use super::{Batch, Context, Receipt, Source, SourceError};
use crate::model::Readings;

use endpoint::{Endpoint, MESSAGE_MAX, Reaction};
use socket::{Route, Socket};
pub use taken::Memory;

/// A source of `type = "coap_server"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address and port to listen on, by default 127.0.0.1:5683. `[::]` is IPv4 and IPv6 together, unless the
    /// kernel's `net.ipv6.bindv6only` says otherwise.
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
    /// Who may send; required unless `listen` is an address of loopback. Empty there, all of this machine.
    pub allow: Vec<Network>,
}

/// RFC 7252, 6.1.
const PORT: u16 = 5683;

impl Default for Config {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, PORT).into(), allow: Vec::new() }
    }
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listen::address(deserializer, PORT)
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        listen::problems(self.listen, &self.allow, PORT)
    }

    /// Whether only one of both can listen.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        listen::clashes(self.listen, other.listen)
    }

    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        listen::absent(self.listen)
    }
}

/// An open endpoint.
#[derive(Debug)]
pub struct Server {
    listen: SocketAddr,
    socket: Socket,
    buffer: Box<[u8]>,
    /// What the kernel had dropped when it was asked last.
    dropped: u32,
    context: Context,
    endpoint: Endpoint,
    /// The receipts that are still to come, in order, each with how many requests it settles.
    receipts: VecDeque<(oneshot::Receiver<Receipt>, usize)>,
}

/// So many datagrams make one batch at most.
const BATCH_MAX: usize = 64;

/// While so many requests wait for their receipts nothing is read; the kernel keeps what it can.
const WAITING_MAX: usize = 1024;

impl Source for Server {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        let listen = config.listen;
        Ok(Self {
            listen,
            socket: Socket::bind(listen)
                .await
                .map_err(|error| listen::refused(listen, &error, Protocol::Udp, PORT))?,
            // One byte more than is read shows what is too large.
            buffer: vec![0; MESSAGE_MAX + 1].into(),
            dropped: 0,
            context: context.clone(),
            endpoint: Endpoint::new(&config.allow, context),
            receipts: VecDeque::new(),
        })
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        loop {
            // The only point where this waits, so the only one where it can be cancelled.
            tokio::select! {
                biased;
                receipt = first(&mut self.receipts) => self.settle(receipt),
                ready = self.socket.readable(), if self.endpoint.waiting() < WAITING_MAX => {
                    if let Some(batch) = ready.and_then(|()| self.take()).map_err(|error| self.gone(&error))? {
                        return Ok(batch);
                    }
                }
            }
        }
    }
}

/// Waits for the first receipt. Dropped without a word, the batch went nowhere.
async fn first(receipts: &mut VecDeque<(oneshot::Receiver<Receipt>, usize)>) -> Receipt {
    match receipts.front_mut() {
        Some((receipt, _)) => receipt.await.unwrap_or(Receipt::Busy),
        None => std::future::pending().await,
    }
}

impl Server {
    /// Makes a batch of what lies in the socket; `None` where that brings nothing.
    fn take(&mut self) -> io::Result<Option<Batch>> {
        self.count_dropped();
        let Self { socket, buffer, context, endpoint, receipts, .. } = self;
        let arrival = context.clock.now();
        let now = context.clock.instant(arrival.monotonic);
        let mut readings = Readings::new(arrival);
        let mut waiting = 0;
        // What is not read now is read at the next look: nothing is taken from the socket that is not looked at.
        for _ in 0..BATCH_MAX {
            let (length, route) = match socket.try_receive(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_a_peers(&error) => continue,
                Err(error) if readings.is_empty() && waiting == 0 => return Err(error),
                // One that stays comes again.
                Err(_) => break,
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            match endpoint.receive(now, route, bytes, &mut readings) {
                Reaction::Silence => {}
                Reaction::Answer(answer) => send(socket, &route, &answer),
                Reaction::Wait => waiting += 1,
            }
        }
        if !readings.is_empty() {
            let (receipt, told) = oneshot::channel();
            receipts.push_back((told, waiting));
            return Ok(Some(Batch { readings, receipt: Some(receipt) }));
        }
        // Copies alone, of what a batch before brought: they are settled with that.
        if let Some((_, count)) = receipts.back_mut() {
            *count += waiting;
        }
        Ok(None)
    }

    fn gone(&self, error: &io::Error) -> SourceError {
        SourceError::Gone { what: format!("the socket at {}", self.listen), cause: error.to_string() }
    }

    /// Counts what the kernel dropped. It does so only while others lie in the socket, so this needs no timer.
    fn count_dropped(&mut self) {
        if let Some(dropped) = dropped::dropped(&self.socket) {
            let more = dropped.wrapping_sub(self.dropped);
            self.dropped = dropped;
            self.context.stats.drop_by_kernel(&self.context.name, more);
        }
    }

    /// Answers the requests that the first receipt is for.
    fn settle(&mut self, receipt: Receipt) {
        let Self { socket, context, endpoint, receipts, .. } = self;
        if let Some((_, count)) = receipts.pop_front() {
            let now = context.clock.instant(context.clock.monotonic());
            endpoint.settle(now, count, receipt, |route, answer| send(socket, route, answer));
        }
    }
}

/// Who has a receipt is still told, so that nobody repeats what was taken.
impl Drop for Server {
    fn drop(&mut self) {
        self.count_dropped();
        while let Some(Ok(receipt)) = self.receipts.front_mut().map(|(receipt, _)| receipt.try_recv()) {
            self.settle(receipt);
        }
    }
}

/// Sends without waiting. What cannot be sent is lost, as anything over UDP may be.
fn send(socket: &Socket, route: &Route, answer: &[u8]) {
    if let Err(error) = socket.try_send(answer, route) {
        tracing::debug!(peer = %route.peer, %error, "an answer was not sent");
    }
}

/// Whether it is what a peer, or the way to it, made of something sent before: no fault of the socket.
fn is_a_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests;

//! The endpoint without its socket: a datagram and the time go in, what to do comes out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use coap_lite::option_value::OptionValueU16;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, ResponseType};
use tokio::time::Instant;

use super::super::allow;
use super::super::decode::{self, Decoder, Learnt};
use super::super::excerpt;
use super::super::{Context, Network, Receipt, Refusal};
use super::request::{self, PAYLOAD_MAX, Refused, Request};
use super::socket::Route;
use crate::model::{NAME_MAX, Reading, Readings};

/// The largest message that is read whole, in bytes: the largest payload, with room for a header, token and options.
pub(super) const MESSAGE_MAX: usize = PAYLOAD_MAX as usize + 1024;

/// After so many seconds a device may try again where the pipeline was full (`Max-Age`).
const RETRY_AFTER: u8 = 5;

/// The longest diagnostic payload, in characters.
const DIAGNOSTIC_MAX: usize = 120;

/// What to do about a datagram.
#[derive(Debug, PartialEq)]
pub(super) enum Reaction {
    /// Nothing: it asks for no answer, or must not get one.
    Silence,
    /// Send this back.
    Answer(Vec<u8>),
    /// [`Endpoint::settle`] it, once it is known what became of the readings.
    Wait,
}

/// One CoAP endpoint that takes readings.
#[derive(Debug)]
pub(super) struct Endpoint {
    context: Context,
    allow: Box<[Network]>,
    json: Box<Decoder>,
    senml: Box<Decoder>,
    /// In the order of their arrival.
    waiting: VecDeque<Waiting>,
}

/// A request whose answer depends on what becomes of its readings.
#[derive(Debug)]
struct Waiting {
    envelope: Envelope,
    digest: u64,
    /// 0 for a copy of one that waits already.
    readings: u64,
}

/// Whom to answer, and what an answer repeats of its request.
#[derive(Debug)]
struct Envelope {
    route: Route,
    confirmable: bool,
    id: u16,
    token: Vec<u8>,
}

impl Endpoint {
    /// An endpoint that serves the networks of `allow`, or everybody where that is empty.
    pub(super) fn new(allow: &[Network], context: &Context) -> Self {
        Self {
            context: context.clone(),
            allow: allow.into(),
            json: Box::new(Decoder::new(&decode::Config::Json(Default::default()))),
            senml: Box::new(Decoder::new(&decode::Config::Senml(Default::default()))),
            waiting: VecDeque::new(),
        }
    }

    /// How many requests wait to be settled.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Reads a datagram, adding its readings to `out`. One of over [`MESSAGE_MAX`] bytes may be cut off behind them.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &[u8],
        out: &mut Readings,
    ) -> Reaction {
        let peer = route.peer;
        let is_watched = self.context.tap().is_watched();
        if is_watched {
            self.context.tap().read(datagram);
        }
        if !allow::admits(&self.allow, peer.ip()) {
            // Without an answer: nobody outside learns, or uses for a detour, that something listens here.
            self.refuse(peer, Refusal::NotAllowed, "its address is not in `allow`");
            return Reaction::Silence;
        }
        self.context.stats.bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        let Some(&[first, _, high, low]) = datagram.first_chunk() else {
            self.refuse(peer, Refusal::Undecodable, "a datagram too short for CoAP");
            return Reaction::Silence;
        };
        let (version, kind, id) = (first >> 6, (first >> 4) & 3, u16::from_be_bytes([high, low]));
        if version != 1 {
            self.refuse(peer, Refusal::Undecodable, "a datagram of another version than CoAP 1");
            return Reaction::Silence;
        }
        let confirmable = match kind {
            CONFIRMABLE => true,
            NON_CONFIRMABLE => false,
            // Acknowledgements and resets: nothing was sent that has to be acknowledged, and a reset of an answer that
            // was not Confirmable changes nothing (RFC 7252, 4.3).
            _ => {
                self.context.stats.unasked.fetch_add(1, Ordering::Relaxed);
                return Reaction::Silence;
            }
        };
        // Confirmable and Empty: a ping (RFC 7252, 4.3).
        if matches!(datagram, [0x40, 0, _, _]) {
            return Reaction::Answer(reset(id));
        }
        let packet = match parse(datagram) {
            Ok(packet) => packet,
            Err(what) => {
                self.refuse(peer, Refusal::Undecodable, what);
                return Reaction::Answer(reset(id));
            }
        };
        let digest = self.context.memory.open().digest(peer, datagram);
        let envelope = Envelope { route, confirmable, id, token: packet.get_token().to_vec() };
        self.copy(now, digest, envelope).unwrap_or_else(|envelope| {
            let first = out.len();
            if is_watched {
                self.context.tap().received(Some(request::line(&packet, peer)), &packet.payload);
            }
            let read = self.read(&packet, datagram.len(), out);
            if is_watched {
                self.context.tap().decoded(out, first, 0, None);
            }
            match read {
                Ok(readings) => {
                    self.waiting.push_back(Waiting { envelope, digest, readings });
                    Reaction::Wait
                }
                Err(refused) => {
                    self.refuse(peer, refused.refusal, &refused.text);
                    Reaction::Answer(match refused.code {
                        // RFC 7252, 5.4.1: in a Non-confirmable message it is rejected and not answered.
                        ResponseType::BadOption if !confirmable => reset(id),
                        code => envelope.answer(code, &refused.text),
                    })
                }
            }
        })
    }

    /// Settles the first `count` requests that wait, and gives the answers to `send`.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        count: usize,
        receipt: Receipt,
        mut send: impl FnMut(&Route, &[u8]),
    ) {
        for _ in 0..count {
            let Some(Waiting { envelope, digest, readings }) = self.waiting.pop_front() else { return };
            if readings > 0 {
                match receipt {
                    Receipt::Accepted => {
                        let stats = &self.context.stats;
                        stats.readings.fetch_add(readings, Ordering::Relaxed);
                        let mut memory = self.context.memory.open();
                        if memory.taken(envelope.confirmable).remember(digest, now) {
                            self.context.stats.forget(&self.context.name);
                        }
                    }
                    Receipt::Busy | Receipt::OnlyShown => {
                        self.refuse(envelope.route.peer, Refusal::Busy, not_taken(receipt));
                    }
                }
            }
            // Settled in the order of arrival, a copy finds here what became of the first.
            let taken = self.context.memory.open().taken(envelope.confirmable).contains(digest, now);
            let answer = if taken {
                envelope.answer(ResponseType::Changed, "")
            } else {
                envelope.answer(ResponseType::ServiceUnavailable, not_taken(receipt))
            };
            send(&envelope.route, &answer);
        }
    }

    /// What to do about a copy of a request that was taken or waits. The envelope comes back where it is none.
    ///
    /// A copy of one that was refused is read anew: nothing came of it, so the answer is the same, or a better one.
    fn copy(&mut self, now: Instant, digest: u64, envelope: Envelope) -> Result<Reaction, Envelope> {
        let confirmable = envelope.confirmable;
        let taken = self.context.memory.open().taken(confirmable).contains(digest, now);
        let reaction = if taken {
            if confirmable {
                Reaction::Answer(envelope.answer(ResponseType::Changed, ""))
            } else {
                Reaction::Silence
            }
        } else if self.waiting.iter().any(|waiting| waiting.digest == digest) {
            if confirmable {
                self.waiting.push_back(Waiting { envelope, digest, readings: 0 });
                Reaction::Wait
            } else {
                Reaction::Silence
            }
        } else {
            return Err(envelope);
        };
        self.context.stats.copies.fetch_add(1, Ordering::Relaxed);
        Ok(reaction)
    }

    fn read(&mut self, packet: &Packet, length: usize, out: &mut Readings) -> Result<u64, Refused> {
        let before = out.len();
        match Request::read(packet)? {
            // It may have been cut off.
            _ if length > MESSAGE_MAX => {
                let text = format!("a message of over {MESSAGE_MAX} bytes");
                return Err(Refused::new(ResponseType::RequestEntityTooLarge, Refusal::TooLong, text));
            }
            Request::Text { device, metric, value } => {
                out.push(Reading { device, metric, value, time: None, unit: None });
                out.end_frame();
            }
            Request::Json { device, payload } => {
                read(&mut self.json, &self.context, device, payload, out)?;
            }
            Request::Senml { device, payload } => {
                read(&mut self.senml, &self.context, device, payload, out)?;
            }
        }
        Ok((out.len() - before) as u64)
    }

    fn refuse(&self, peer: SocketAddr, refusal: Refusal, what: &str) {
        let Context { name, stats, .. } = &self.context;
        stats.refuse(name, refusal, || format!("{what}, from {}", peer.ip().to_canonical()));
    }
}

/// Why a device is to try again later.
fn not_taken(receipt: Receipt) -> &'static str {
    match receipt {
        Receipt::Accepted | Receipt::Busy => "the pipeline is full",
        Receipt::OnlyShown => "a tap takes nothing: send it again once weir runs",
    }
}

/// Reads flat JSON or SenML. What has a bad name is left out and counted, as long as another is there.
fn read(
    decoder: &mut Decoder,
    context: &Context,
    device: &str,
    payload: &[u8],
    out: &mut Readings,
) -> Result<(), Refused> {
    let bad = |refusal, text| Refused::new(ResponseType::BadRequest, refusal, text);
    let before = out.len();
    let left_out = decoder
        .decode(payload, device, &mut Learnt::default(), out)
        .map_err(|undecodable| bad(undecodable.refusal(), format!("the payload: {undecodable}")))?;
    let Context { name, stats, .. } = context;
    stats.ignored.fetch_add(left_out.ignored, Ordering::Relaxed);
    for _ in 0..left_out.bad_names {
        stats.refuse(name, Refusal::BadName, || {
            format!(
                "a device or metric name from device {} has not 1 to {NAME_MAX} bytes",
                excerpt::quoted(device)
            )
        });
    }
    if out.len() == before {
        let text = "no field with a name holds a number, true or false".to_owned();
        return Err(bad(Refusal::Undecodable, text));
    }
    Ok(())
}

/// The types of messages, as in the header.
const CONFIRMABLE: u8 = 0;
const NON_CONFIRMABLE: u8 = 1;

/// A request; or what else the datagram is, which is to be rejected (RFC 7252, 4.2 and 4.3).
fn parse(datagram: &[u8]) -> Result<Packet, &'static str> {
    let packet = Packet::from_bytes(datagram).map_err(|_| "a datagram that is not well-formed CoAP")?;
    // The library passes over a marker without a payload behind it. What it has read is shorter by just that byte.
    if packet.payload.is_empty() && datagram.last() == Some(&PAYLOAD_MARKER) {
        let read = packet.to_bytes_unlimited().map_or(0, |bytes| bytes.len());
        if read != datagram.len() {
            return Err("a datagram with a payload marker and no payload");
        }
    }
    match u8::from(packet.header.code) {
        // 0.01 to 0.31, also those that have no name yet.
        1..=31 => Ok(packet),
        _ => Err("a message that is no request"),
    }
}

const PAYLOAD_MARKER: u8 = 0xFF;

/// A Reset: the message of this id is rejected.
fn reset(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![1 << 6 | 3 << 4, 0, high, low]
}

impl Envelope {
    /// A response, as an acknowledgement or else a Non-confirmable message. The latter has its request's id: towards
    /// this peer, to whom nothing else is ever sent, that is as unique as the peer's own ids.
    fn answer(&self, code: ResponseType, diagnostic: &str) -> Vec<u8> {
        let mut packet = Packet::new();
        packet.header.set_version(1);
        packet.header.set_type(match self.confirmable {
            true => MessageType::Acknowledgement,
            false => MessageType::NonConfirmable,
        });
        packet.header.code = MessageClass::Response(code);
        packet.header.message_id = self.id;
        packet.set_token(self.token.clone());
        match code {
            ResponseType::ServiceUnavailable => packet.add_option(CoapOption::MaxAge, vec![RETRY_AFTER]),
            // RFC 7252, 5.9.2.9.
            ResponseType::RequestEntityTooLarge => {
                packet.add_option_as(CoapOption::Size1, OptionValueU16(PAYLOAD_MAX));
            }
            _ => {}
        }
        packet.payload = diagnostic.chars().take(DIAGNOSTIC_MAX).collect::<String>().into_bytes();
        packet.to_bytes().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

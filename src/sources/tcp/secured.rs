//! TLS on a connection that a device has made. It has no buffer at rest: records are read into one that all connections
//! of the listener share, and of these only what has begun and not ended is kept.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::InvalidMessage;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};

use super::connection::{Found, is_for_later};

/// What has begun and not ended may have so many bytes: a record is at most 18 KiB, a message of the handshake with long
/// certificates may lie in several.
const BEGUN_MAX: usize = 64 << 10;

pub(super) struct Tls {
    session: UnbufferedServerConnection,
    /// A record, or a message in several, that has not ended.
    begun: Vec<u8>,
    /// What the kernel had no room for.
    unsent: Vec<u8>,
}

impl Tls {
    pub(super) fn new(session: UnbufferedServerConnection) -> Self {
        Self { session, begun: Vec::new(), unsent: Vec::new() }
    }

    /// Whether it is still about who is who.
    pub(super) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether something waits for the kernel to have room.
    pub(super) fn is_stuck(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// How many bytes have come that say nothing before more has.
    pub(super) fn unfinished(&self) -> usize {
        self.begun.len()
    }

    /// How much memory what has begun takes, in bytes.
    pub(super) fn held(&self) -> usize {
        self.begun.capacity() + self.unsent.capacity()
    }

    /// Reads once, at most `most` bytes, and gives what they say to `take`. `scratch` is as long as it has to be.
    pub(super) fn read(
        &mut self,
        socket: &mut TcpStream,
        take: &mut impl FnMut(&[u8]),
        scratch: &mut Vec<u8>,
        most: usize,
    ) -> Found {
        let begun = self.begun.len();
        if scratch.len() < begun + most {
            scratch.resize(begun + most, 0);
        }
        let found = match scratch.get_mut(begun..begun + most).map(|room| socket.read(room)) {
            Some(Ok(length)) if length > 0 => {
                scratch[..begun].copy_from_slice(&self.begun);
                self.process(&mut scratch[..begun + length], take)
            }
            Some(Err(error)) if is_for_later(&error) => Found::Nothing,
            _ => Found::End,
        };
        match self.write(socket) {
            // What is wrong is told, whether or not the other side hears of it.
            Err(_) if !matches!(found, Found::Misfit(_)) => Found::End,
            _ => found,
        }
    }

    fn process(&mut self, bytes: &mut [u8], take: &mut impl FnMut(&[u8])) -> Found {
        let mut done = 0;
        let found = loop {
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut bytes[done..]);
            let found = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        take(record.payload);
                        discard += record.discard;
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut self.unsent);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => {
                    Some(Found::Bytes)
                }
                // It was closed; or it is what nobody was allowed to send, such as early data.
                Ok(_) => Some(Found::End),
                Err(error) => Some(Found::Misfit(error)),
            };
            done += discard;
            if let Some(found) = found {
                break found;
            }
        };
        let rest = &mut bytes[done..];
        match found {
            Found::Misfit(_) => {
                // The alert that the other side is to be told lies before all else; a look at what is behind it would
                // find the same again.
                if let Ok(ConnectionState::EncodeTlsData(data)) = self.session.process_tls_records(rest).state
                {
                    encode(data, &mut self.unsent);
                }
                found
            }
            _ if rest.len() > BEGUN_MAX => Found::Misfit(InvalidMessage::HandshakePayloadTooLarge.into()),
            _ => {
                self.keep(rest);
                found
            }
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.begun = Vec::new();
        } else {
            self.begun.clear();
            self.begun.reserve_exact(rest.len());
            self.begun.extend_from_slice(rest);
        }
    }

    /// Writes what there is to say, as far as the kernel has room.
    fn write(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = self.unsent.get(written..).filter(|rest| !rest.is_empty()) {
            match socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if is_for_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..written);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        Ok(())
    }
}

/// Adds a piece of the handshake, or an alert, to what is to be sent.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, unsent: &mut Vec<u8>) {
    let start = unsent.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut [])
    {
        unsent.resize(start + required_size, 0);
        // There is room now, and it has not been given yet.
        let _ = data.encode(&mut unsent[start..]);
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

//! One device's connection, in the clear or through TLS.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::time::Duration;

use super::super::stream::{Reader, Stream};
use super::secured::Tls;
use crate::model::Readings;

/// The connections of a listener, by the numbers of their descriptors.
pub(super) type Connections = HashMap<RawFd, Box<Connection>>;

/// One read takes so much at most; then it is another connection's turn.
pub(super) const READ: usize = 8192;

/// What is kept of a connection. Thousands of them are at rest.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) stream: Stream,
    pub(super) tls: Option<Box<Tls>>,
    /// When it was taken, by the monotonic clock.
    pub(super) taken: Duration,
    /// When it last brought something.
    pub(super) heard: Duration,
    /// When it last ended a frame, or was between two, by the clock that runs while the source is asked.
    pub(super) whole: Duration,
    /// Whether the kernel has no room for what TLS has to say.
    pub(super) stuck: bool,
}

/// What one look at a connection found.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing new.
    Nothing,
    /// So much; there may be more.
    Bytes,
    /// The other side has ended it, or it has broken.
    End,
    /// It is no proper TLS.
    Misfit(rustls::Error),
}

impl Connection {
    /// Whether TLS is still about who is who.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether nothing lies there to be read.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.socket.peek(&mut [0]), Err(error) if is_for_later(&error))
    }

    /// How much memory what has begun and not ended takes, in bytes.
    pub(super) fn held(&self) -> usize {
        self.stream.held() + self.tls.as_ref().map_or(0, |tls| tls.held())
    }

    /// Reads once, at most so much that others get their turn. `asked` is the time by the clock that runs while the
    /// source is asked.
    pub(super) fn read(
        &mut self,
        reader: &mut Reader,
        scratch: &mut Vec<u8>,
        out: &mut Readings,
        asked: Duration,
    ) -> Found {
        let Self { socket, stream, tls, .. } = self;
        let mut frames = 0;
        let mut take = |bytes: &[u8]| frames += reader.read(stream, bytes, out);
        let found = match tls {
            None => match socket.read(scratch) {
                Ok(0) => Found::End,
                Ok(length) => {
                    take(scratch.get(..length).unwrap_or_default());
                    Found::Bytes
                }
                Err(error) if is_for_later(&error) => Found::Nothing,
                Err(_) => Found::End,
            },
            Some(tls) => {
                let found = tls.read(socket, &mut take, scratch, READ);
                self.stuck = tls.is_stuck();
                found
            }
        };
        if frames > 0 || self.rests() {
            self.whole = asked;
        }
        found
    }

    /// Whether nothing has begun that has not ended.
    pub(super) fn rests(&self) -> bool {
        self.stream.rests() && self.tls.as_ref().is_none_or(|tls| tls.unfinished() == 0)
    }

    /// Counts what has begun and will not end.
    pub(super) fn cut_off(&self, reader: &Reader) {
        // A handshake is counted for itself.
        let sealed = self.tls.as_ref().filter(|tls| !tls.is_handshaking());
        reader.cut_off(&self.stream, sealed.map_or(0, |tls| tls.unfinished()));
    }
}

pub(super) fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

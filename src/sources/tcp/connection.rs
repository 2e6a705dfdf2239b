//! One device's connection, in the clear or through TLS.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::time::Duration;

use rustls::ServerConnection;

use super::super::stream::{Reader, Stream};
use crate::model::Readings;

/// The connections of a listener, by the numbers of their descriptors.
pub(super) type Connections = HashMap<RawFd, Box<Connection>>;

/// What is kept of a connection. Thousands of them are at rest.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) stream: Stream,
    pub(super) tls: Option<Box<ServerConnection>>,
    /// When it was taken, by the monotonic clock.
    pub(super) taken: Duration,
    /// When it last brought something.
    pub(super) heard: Duration,
    /// When it last ended a frame, or was between two.
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

    /// Reads once, at most what `scratch` holds or one record of TLS, so that others get their turn.
    pub(super) fn read(
        &mut self,
        reader: &mut Reader,
        scratch: &mut [u8],
        out: &mut Readings,
        now: Duration,
    ) -> Found {
        let Self { socket, stream, tls, whole, .. } = self;
        let mut take = |bytes: &[u8]| {
            if reader.read(stream, bytes, out) > 0 || stream.rests() {
                *whole = now;
            }
        };
        match tls {
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
                let found = read_tls(tls, socket, &mut take, scratch);
                match write_tls(tls, socket) {
                    Ok(()) => self.stuck = tls.wants_write(),
                    // What has come is taken, and what is wrong is told, whether or not the other side hears of it.
                    Err(_) if matches!(found, Found::Misfit(_)) => {}
                    Err(_) => return Found::End,
                }
                found
            }
        }
    }
}

fn read_tls(
    tls: &mut ServerConnection,
    socket: &mut TcpStream,
    take: &mut impl FnMut(&[u8]),
    scratch: &mut [u8],
) -> Found {
    let length = match tls.read_tls(socket) {
        Ok(length) => length,
        Err(error) if is_for_later(&error) => return Found::Nothing,
        Err(_) => return Found::End,
    };
    let processed = tls.process_new_packets();
    // What came before something wrong is good.
    let closed = loop {
        match tls.reader().read(scratch) {
            Ok(0) => break true,
            Ok(length) => take(scratch.get(..length).unwrap_or_default()),
            Err(error) => break !is_for_later(&error),
        }
    };
    match processed {
        Err(error) => Found::Misfit(error),
        Ok(_) if length == 0 || closed => Found::End,
        Ok(_) => Found::Bytes,
    }
}

/// Writes what TLS has to say, as far as the kernel has room.
fn write_tls(tls: &mut ServerConnection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if is_for_later(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

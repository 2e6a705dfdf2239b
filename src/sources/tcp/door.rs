//! The door: the listening socket, who may come in, and when nobody is taken.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::super::{Context, Network, allow};
use super::poll::Poll;
use super::{Config, files, keep_alive};

/// So many connections may be waiting for the kernel to be taken. Others are dropped, and try again by themselves.
const BACKLOG: i32 = 1024;

/// After the system had no file or no memory for a connection, none is taken for so long.
const SHUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Door {
    socket: TcpListener,
    allow: Box<[Network]>,
    most: usize,
    /// The first number that a descriptor must not have: those above it are for others.
    spare: u64,
    /// Whether it is watched.
    open: bool,
    /// Until when it is not to be.
    shut: Duration,
}

/// Who was at the door.
#[derive(Debug)]
pub(super) enum Caller {
    Came(TcpStream, SocketAddr),
    Nobody,
    /// Whoever it was stays in the kernel's queue: the system has no file, or no memory, for a connection.
    Waits(io::Error),
    /// The connection had ended before it was taken (accept(2)).
    Left(io::Error),
}

/// Why there is no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("there are {0} connections already (`max_connections`)")]
    Connections(usize),
    #[error("nearly all files that weir may have open are (LimitNOFILE in the service)")]
    Files,
}

impl Door {
    pub(super) fn open(
        listen: SocketAddr,
        config: &Config,
        context: &Context,
        poll: &Poll,
    ) -> io::Result<Self> {
        let socket = bind(listen)?;
        poll.add(&socket)?;
        let (most, files) = (config.max_connections(), files::most());
        let fit = files.saturating_sub(files::SPARE);
        if u64::try_from(most).unwrap_or(u64::MAX) > fit {
            tracing::warn!(
                source = &*context.name,
                "`max_connections` {most} does not fit: weir may have {files} files open, which is enough for some {fit}; \
                 more takes a greater LimitNOFILE in the service (`sudo systemctl edit weir`)"
            );
        }
        let shut = context.clock.monotonic();
        Ok(Self { socket, allow: config.allow.as_slice().into(), most, spare: fit, open: true, shut })
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Whether this is the number of its descriptor.
    pub(super) fn is(&self, fd: RawFd) -> bool {
        fd == self.socket.as_raw_fd()
    }

    /// Takes the next connection. An error is one of the listening socket itself.
    pub(super) fn accept(&mut self, now: Duration) -> io::Result<Caller> {
        match self.socket.accept() {
            Ok((socket, peer)) => Ok(Caller::Came(socket, peer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Caller::Nobody),
            Err(error) if is_of_scarcity(&error) => {
                self.shut = now + SHUT;
                Ok(Caller::Waits(error))
            }
            Err(error) if is_of_the_listener(&error) => Err(error),
            Err(error) => Ok(Caller::Left(error)),
        }
    }

    /// Whether whoever is at `peer` may come in.
    pub(super) fn admits(&self, peer: SocketAddr) -> bool {
        allow::admits(&self.allow, peer.ip())
    }

    /// Why there is no room for `socket` beside so many others, where there is none.
    pub(super) fn full(&self, socket: &TcpStream, others: usize) -> Option<Full> {
        if others >= self.most {
            return Some(Full::Connections(self.most));
        }
        // The lowest free number is given: this one says that nearly all are in use.
        let is_spare = u64::try_from(socket.as_raw_fd()).is_ok_and(|number| number >= self.spare);
        is_spare.then_some(Full::Files)
    }

    /// Until when it is not to be open, where it is not.
    pub(super) fn shut_until(&self) -> Option<Duration> {
        (!self.open).then_some(self.shut)
    }

    /// Looks for new connections, where there is a place for one, or leaves them to wait where they are.
    pub(super) fn open_or_shut(&mut self, is_place: bool, now: Duration, poll: &Poll) -> io::Result<()> {
        let open = is_place && self.shut <= now;
        if open && !self.open {
            poll.add(&self.socket)?;
        } else if !open && self.open {
            poll.remove(&self.socket)?;
        }
        self.open = open;
        Ok(())
    }
}

fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    // Else a restart would have to wait until the kernel has forgotten the connections before.
    socket.set_reuse_address(true)?;
    // Every connection is born with it.
    keep_alive(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the system had no file, or no memory, for a connection.
fn is_of_scarcity(error: &io::Error) -> bool {
    let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| scarce.contains(&code))
}

/// Whether the listening socket itself is no good.
fn is_of_the_listener(error: &io::Error) -> bool {
    let broken = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|code| broken.contains(&code))
}

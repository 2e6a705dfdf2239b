//! Devices that connect.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::super::listen::{self, Protocol};
use super::super::stream::Reader;
use super::super::{Batch, Context, Network, Refusal, SourceError, allow};
use super::connection::{Connection, Found};
use super::identity::{self, Identity};
use super::poll::{Poll, Wanted};
use super::{Config, PORT, files, keep_alive};
use crate::model::Readings;
use crate::tls;

/// One read takes so much at most; then it is another connection's turn.
const READ: usize = 8192;

/// So many turns make one look: all that it brings has one time of arrival.
const TURNS: usize = 256;

/// So long it takes at most, and the turn that it is in: all sources share one thread, and a turn of bytes that were made
/// to be slow to decode takes milliseconds.
const LOOK: Duration = Duration::from_millis(3);

/// So many connections are taken in one turn.
const ACCEPTED: usize = 64;

/// After a look that has left nothing, the next one comes so much later at the earliest. So what ten thousand devices
/// send one by one is taken a hundred at a time, and what one sends after a silence is taken at once.
const REST: Duration = Duration::from_millis(10);

/// So many connections may be waiting for the kernel to be taken. Others are dropped, and try again by themselves.
const BACKLOG: i32 = 1024;

/// So long the handshake of TLS may take, and so many may be under way; others wait to be taken.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 128;

/// Who has said nothing for so long in the middle of a handshake gives its place to the next where all are taken.
const WAVERING: Duration = Duration::from_secs(1);

/// A frame that has not ended after so many times `idle_timeout` does not either: a byte now and then is no life.
const FRAME_IDLES: u32 = 10;

/// After the system had no file or no memory for a connection, none is taken for so long.
const SHUT: Duration = Duration::from_secs(1);

/// What the unfinished frames of all connections may take together, in bytes: some of the largest.
const BEGUN_MAX: usize = 8 << 20;

/// A listening socket and its connections.
#[derive(Debug)]
pub(super) struct Listener {
    listen: SocketAddr,
    socket: TcpListener,
    poll: Poll,
    allow: Box<[Network]>,
    most: usize,
    /// The first number that a descriptor must not have: those above it are for others.
    spare: u64,
    idle: Option<Duration>,
    identity: Option<Identity>,
    context: Context,
    reader: Reader,
    scratch: Box<[u8]>,
    connections: HashMap<RawFd, Box<Connection>>,
    /// What all unfinished frames take, in bytes.
    begun: usize,
    /// Who was said to be ready and has not had a turn. One that has gone meanwhile is passed over.
    ready: VecDeque<RawFd>,
    /// Until when nothing is to be looked for.
    rest: Duration,
    /// How long a look takes at most.
    patience: Duration,
    /// Whether the last look has ended with more lying there: others have their turn before the next.
    more: bool,
    /// Whether new connections are looked for.
    open: bool,
    /// Until when they are not to be.
    shut: Duration,
    /// When the handshakes under way have to be done, in this order. One that is done, or gone, is passed over.
    handshakes: VecDeque<(Duration, RawFd)>,
    handshaking: usize,
    /// When the silence of a connection in the middle of a frame will have lasted for the framing's idle gap.
    gaps: BTreeSet<(Duration, RawFd)>,
    /// When the silent ones were last looked for.
    swept: Duration,
}

impl Listener {
    pub(super) fn open(listen: SocketAddr, config: &Config, context: &Context) -> Result<Self, SourceError> {
        let what = || listen.to_string();
        let refused = |error: &io::Error| listen::refused(listen, error, Protocol::Tcp, PORT);
        let identity = config.tls.as_ref().map(|tls| Identity::read(tls, context)).transpose();
        let identity = identity.map_err(|tls::Error { what: cause, hint }| SourceError::Refused {
            what: what(),
            cause,
            hint,
        })?;
        let socket = bind(listen).map_err(|error| refused(&error))?;
        let poll = Poll::new().map_err(|error| refused(&error))?;
        poll.add(&socket).map_err(|error| refused(&error))?;
        let (most, files) = (config.max_connections(), files::most());
        let fit = files.saturating_sub(files::SPARE);
        if u64::try_from(most).unwrap_or(u64::MAX) > fit {
            tracing::warn!(
                source = &*context.name,
                "`max_connections` {most} does not fit: weir may have {files} files open, which is enough for some {fit}; \
                 more takes a greater LimitNOFILE in the service (`sudo systemctl edit weir`)"
            );
        }
        let now = context.clock.monotonic();
        Ok(Self {
            listen,
            socket,
            poll,
            allow: config.allow.as_slice().into(),
            most,
            spare: fit,
            idle: config.idle_timeout,
            identity,
            context: context.clone(),
            reader: config.reader(context),
            scratch: vec![0; READ].into(),
            connections: HashMap::new(),
            begun: 0,
            ready: VecDeque::new(),
            rest: now,
            patience: LOOK,
            more: false,
            open: true,
            shut: now,
            handshakes: VecDeque::new(),
            handshaking: 0,
            gaps: BTreeSet::new(),
            swept: now,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Batch, SourceError> {
        loop {
            // This waits only here, so it can only be cancelled here: while no reading is held.
            if std::mem::take(&mut self.more) {
                yield_now().await;
            }
            if self.ready.is_empty() {
                let clock = &self.context.clock;
                let due = self.due().map(|due| clock.instant(due));
                let rest = clock.instant(self.rest);
                tokio::select! {
                    biased;
                    ready = self.poll.ready() => {
                        ready.map_err(|error| self.gone(&error))?;
                        sleep_until(rest).await;
                    }
                    () = async { sleep_until(due.unwrap_or(rest)).await }, if due.is_some() => {}
                }
            }
            let readings = self.look().map_err(|error| self.gone(&error))?;
            if !readings.is_empty() {
                return Ok(Batch { readings, receipt: None });
            }
            // What came may have been noise, in any quantity.
            yield_now().await;
        }
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// From now on a look is one turn.
    #[cfg(test)]
    pub(super) fn hurry(&mut self) {
        self.patience = Duration::ZERO;
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What all unfinished frames take, by the books and counted anew.
    #[cfg(test)]
    pub(super) fn begun(&self) -> usize {
        let counted = self.connections.values().map(|connection| connection.stream.held()).sum();
        assert_eq!(self.begun, counted);
        counted
    }

    fn gone(&self, error: &io::Error) -> SourceError {
        SourceError::Gone { what: format!("the socket at {}", self.listen), cause: error.to_string() }
    }

    /// When there is something to see to, whatever comes.
    pub(super) fn due(&self) -> Option<Duration> {
        let sweep = self.idle.filter(|_| !self.connections.is_empty()).map(|idle| self.swept + idle / 4);
        let handshake = self.handshakes.front().map(|(until, _)| *until);
        let reopen = if self.open {
            None
        } else if self.handshaking < HANDSHAKES {
            Some(self.shut)
        } else {
            self.wavers().map(|(at, _)| at).min().map(|at| at.max(self.shut))
        };
        let gap = self.gaps.first().map(|(over, _)| *over);
        [sweep, handshake, reopen, gap].into_iter().flatten().min()
    }

    /// Takes what lies there, as far as one look goes.
    fn look(&mut self) -> io::Result<Readings> {
        let arrival = self.context.clock.now();
        let now = arrival.monotonic;
        let mut readings = Readings::new(arrival);
        self.more = true;
        for turn in 0..TURNS {
            if readings.is_full() {
                break;
            }
            if turn > 0 && self.context.clock.monotonic().saturating_sub(now) >= self.patience {
                break;
            }
            if self.ready.is_empty() && !self.poll.take(&mut self.ready)? {
                // Two frames that only a silence parts are not to be found in one read.
                self.rest = if self.reader.idle_gap().is_some() { now } else { now + REST };
                self.more = false;
                break;
            }
            match self.ready.pop_front() {
                Some(ready) if ready == self.socket.as_raw_fd() => self.accept(now)?,
                Some(ready) => self.serve(ready, now, &mut readings),
                None => {}
            }
        }
        self.end_gaps(now, &mut readings);
        self.end_handshakes(now);
        self.sweep(now);
        self.open_or_shut(now)?;
        Ok(readings)
    }

    fn accept(&mut self, now: Duration) -> io::Result<()> {
        for _ in 0..ACCEPTED {
            let wavering = if self.handshaking >= HANDSHAKES { self.wavering(now) } else { None };
            if self.handshaking >= HANDSHAKES && wavering.is_none() {
                break;
            }
            match self.socket.accept() {
                Ok((socket, peer)) => self.admit(socket, peer, wavering, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_of_scarcity(&error) => {
                    self.refuse(Refusal::TooMany, None, || format!("cannot take a connection: {error}"));
                    self.shut = now + SHUT;
                    break;
                }
                Err(error) if is_of_the_listener(&error) => return Err(error),
                // What had become of the connection before it was taken (accept(2)).
                Err(error) => tracing::debug!(source = &*self.context.name, %error, "not taken"),
            }
        }
        Ok(())
    }

    /// Takes a connection, in the place of the one that is `wavering`.
    fn admit(&mut self, socket: TcpStream, peer: SocketAddr, wavering: Option<RawFd>, now: Duration) {
        if !allow::admits(&self.allow, peer.ip()) {
            self.refuse(Refusal::NotAllowed, Some(peer), || "its address is not in `allow`");
            return;
        }
        if let Some(fd) = wavering {
            self.give_away(fd);
        }
        let most = self.most;
        if self.connections.len() >= most {
            self.refuse(Refusal::TooMany, Some(peer), || {
                format!("there are {most} connections already (`max_connections`)")
            });
            return;
        }
        // The lowest free number is given: this one says that nearly all are in use.
        let fd = socket.as_raw_fd();
        if u64::try_from(fd).is_ok_and(|number| number >= self.spare) {
            self.refuse(
                Refusal::TooMany,
                Some(peer),
                || "nearly all files that weir may have open are (LimitNOFILE in the service)",
            );
            return;
        }
        let tls = match self.identity.as_mut().map(|identity| identity.meet(&self.context)).transpose() {
            Ok(tls) => tls.map(Box::new),
            Err(error) => {
                self.refuse(Refusal::Tls, Some(peer), || format!("TLS cannot begin ({error})"));
                return;
            }
        };
        if let Err(error) = socket.set_nonblocking(true).and_then(|()| self.poll.add(&socket)) {
            self.refuse(Refusal::TooMany, Some(peer), || format!("it cannot be watched ({error})"));
            return;
        }
        if tls.is_some() {
            self.handshaking += 1;
            self.handshakes.push_back((now + HANDSHAKE, fd));
        }
        self.context.stats.connections.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(source = &*self.context.name, %peer, "connected");
        let stream = self.reader.stream(Some(peer));
        let connection =
            Connection { socket, peer, stream, tls, taken: now, heard: now, whole: now, stuck: false };
        self.connections.insert(fd, Box::new(connection));
    }

    fn serve(&mut self, fd: RawFd, now: Duration, readings: &mut Readings) {
        let Some(connection) = self.connections.get_mut(&fd) else { return };
        let (peer, begun, stuck) = (connection.peer, connection.stream.held(), connection.stuck);
        let handshaking = connection.is_handshaking();
        if let Some(gap) = self.reader.idle_gap() {
            self.gaps.remove(&(connection.heard + gap, fd));
        }
        let found = connection.read(&mut self.reader, &mut self.scratch, readings, now);
        let begins = connection.stream.held();
        self.begun = (self.begun + begins).saturating_sub(begun);
        let settled = handshaking && !connection.is_handshaking();
        if settled {
            self.handshaking = self.handshaking.saturating_sub(1);
        }
        match found {
            Found::Nothing => {}
            Found::Bytes => connection.heard = now,
            Found::End => {
                if handshaking && !settled {
                    self.refuse(Refusal::Tls, Some(peer), || "it went away before TLS had begun");
                }
                return self.close(fd, Counted::AsCutOff);
            }
            Found::Misfit(error) => {
                let clock = &self.context.clock;
                let why = || tls::unwelcome(&error, identity::now(clock));
                self.refuse(Refusal::Tls, Some(peer), why);
                return self.close(fd, Counted::AsCutOff);
            }
        }
        if let Some(gap) = self.reader.idle_gap().filter(|_| !connection.stream.rests()) {
            self.gaps.insert((connection.heard + gap, fd));
        }
        if connection.stuck != stuck {
            let wanted = if connection.stuck { Wanted::ReadingOrWriting } else { Wanted::Reading };
            if let Err(error) = self.poll.change(&connection.socket, wanted) {
                tracing::debug!(source = &*self.context.name, %peer, %error, "cannot be watched");
                return self.close(fd, Counted::AsCutOff);
            }
        }
        // Nobody is closed for an unfinished frame of a usual size, however many there are.
        if self.begun > BEGUN_MAX && begins > BEGUN_MAX / self.connections.len().max(1) {
            self.refuse(Refusal::Crowded, Some(peer), || {
                format!(
                    "an unfinished frame that takes {begins} bytes, while those of all connections take {BEGUN_MAX} already"
                )
            });
            self.close(fd, Counted::Already);
        }
    }

    fn close(&mut self, fd: RawFd, unfinished: Counted) {
        let Some(connection) = self.connections.remove(&fd) else { return };
        if connection.is_handshaking() {
            self.handshaking = self.handshaking.saturating_sub(1);
        }
        self.begun = self.begun.saturating_sub(connection.stream.held());
        if let Some(gap) = self.reader.idle_gap() {
            self.gaps.remove(&(connection.heard + gap, fd));
        }
        if unfinished == Counted::AsCutOff {
            self.reader.cut_off(&connection.stream);
        }
        tracing::debug!(source = &*self.context.name, peer = %connection.peer, "closed");
        if self.connections.len() < self.connections.capacity() / 8 {
            self.connections.shrink_to(self.connections.len() * 2);
        }
    }

    /// Ends the frames that a silence ends. What the pipeline has kept us from reading was no silence.
    fn end_gaps(&mut self, now: Duration, readings: &mut Readings) {
        while let Some((over, fd)) = self.gaps.first().copied().filter(|(over, _)| *over <= now) {
            self.gaps.remove(&(over, fd));
            let Some(connection) = self.connections.get_mut(&fd) else { continue };
            if connection.is_silent() {
                let held = connection.stream.held();
                self.reader.silence(&mut connection.stream, readings);
                self.begun = (self.begun + connection.stream.held()).saturating_sub(held);
            }
        }
    }

    fn end_handshakes(&mut self, now: Duration) {
        while let Some((until, fd)) = self.handshakes.front().copied().filter(|(until, _)| *until <= now) {
            self.handshakes.pop_front();
            // Its number may be another's by now, which has more time.
            let late = |connection: &&Connection| is_under_way(connection, until);
            if let Some(peer) =
                self.connections.get(&fd).map(Box::as_ref).filter(late).map(|connection| connection.peer)
            {
                self.refuse(Refusal::Tls, Some(peer), || {
                    format!("the handshake of TLS took longer than {}", crate::units::show(HANDSHAKE))
                });
                self.close(fd, Counted::AsCutOff);
            }
        }
        if self.handshakes.is_empty() {
            self.handshakes.shrink_to(HANDSHAKES);
        }
    }

    /// The handshakes under way: when each will have been silent for too long to keep its place, in the order in which
    /// they have begun.
    fn wavers(&self) -> impl Iterator<Item = (Duration, RawFd)> + '_ {
        self.handshakes.iter().filter_map(|(until, fd)| {
            let connection =
                self.connections.get(fd).filter(|connection| is_under_way(connection, *until))?;
            Some((connection.heard + WAVERING, *fd))
        })
    }

    /// The oldest handshake that has been silent for too long. What we have not read yet was no silence.
    fn wavering(&mut self, now: Duration) -> Option<RawFd> {
        // Those that are done, or gone, may be many more.
        if self.handshakes.len() > HANDSHAKES {
            let connections = &self.connections;
            self.handshakes.retain(|(until, fd)| {
                connections.get(fd).is_some_and(|connection| is_under_way(connection, *until))
            });
        }
        let is_silent =
            |fd: &RawFd| self.connections.get(fd).is_some_and(|connection| connection.is_silent());
        self.wavers().filter(|(at, _)| *at <= now).map(|(_, fd)| fd).find(is_silent)
    }

    fn give_away(&mut self, fd: RawFd) {
        if let Some(peer) = self.connections.get(&fd).map(|connection| connection.peer) {
            self.refuse(Refusal::Tls, Some(peer), || {
                format!(
                    "it was silent in the handshake of TLS for {}, while {HANDSHAKES} were under way and more waited",
                    crate::units::show(WAVERING)
                )
            });
            self.close(fd, Counted::AsCutOff);
        }
    }

    /// Closes those that have been silent for too long, or have not ended a frame for much longer. What the pipeline has kept us from reading was not silent.
    fn sweep(&mut self, now: Duration) {
        let Some(idle) = self.idle.filter(|idle| now.saturating_sub(self.swept) >= *idle / 4) else { return };
        self.swept = now;
        let silent = |connection: &Connection| {
            let past = |since, most| now.saturating_sub(since) >= most;
            let drips =
                || past(connection.whole, idle.saturating_mul(FRAME_IDLES)) && !connection.stream.rests();
            (past(connection.heard, idle) || drips()) && connection.is_silent()
        };
        let silent: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| silent(connection))
            .map(|(fd, connection)| (*fd, connection.peer, now.saturating_sub(connection.heard) < idle))
            .collect();
        for (fd, peer, drips) in silent {
            let (what, most) = if drips {
                ("has not ended a frame", idle.saturating_mul(FRAME_IDLES))
            } else {
                ("has said nothing", idle)
            };
            self.context.stats.fall_silent(&self.context.name, peer, what, most);
            self.close(fd, Counted::AsCutOff);
        }
    }

    /// Looks for new connections, or leaves them to wait where they are.
    fn open_or_shut(&mut self, now: Duration) -> io::Result<()> {
        let full = self.handshaking >= HANDSHAKES && self.wavering(now).is_none();
        let open = !full && self.shut <= now;
        if open && !self.open {
            self.poll.add(&self.socket)?;
        } else if !open && self.open {
            self.poll.remove(&self.socket)?;
        }
        self.open = open;
        Ok(())
    }

    fn refuse<T: std::fmt::Display>(
        &self,
        refusal: Refusal,
        peer: Option<SocketAddr>,
        what: impl FnOnce() -> T,
    ) {
        self.context.stats.refuse(&self.context.name, refusal, || match peer {
            Some(peer) => format!("{peer}: {}", what()),
            None => what().to_string(),
        });
    }
}

/// What had begun is counted.
impl Drop for Listener {
    fn drop(&mut self) {
        for connection in self.connections.values() {
            self.reader.cut_off(&connection.stream);
        }
    }
}

/// Whether this is the handshake that has to be done by `until`, and is not. Its number may be another's by now.
fn is_under_way(connection: &Connection, until: Duration) -> bool {
    connection.is_handshaking() && connection.taken + HANDSHAKE <= until
}

/// How the unfinished frame of a connection that is closed is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    AsCutOff,
    Already,
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

/// Whether the system had no file, or no memory, for a connection. It stays in the kernel's queue then.
fn is_of_scarcity(error: &io::Error) -> bool {
    let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| scarce.contains(&code))
}

/// Whether the listening socket itself is no good.
fn is_of_the_listener(error: &io::Error) -> bool {
    let broken = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|code| broken.contains(&code))
}

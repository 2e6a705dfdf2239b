//! Devices that connect: all their connections, whose turn it is, and who is closed.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::super::listen::{self, Protocol};
use super::super::stream::Reader;
use super::super::{Batch, Context, Refusal, SourceError};
use super::connection::{Connection, Connections, Found, READ};
use super::door::{Caller, Door};
use super::frames::{self, Asked};
use super::handshakes::{self, Handshakes};
use super::identity::{self, Identity};
use super::poll::{Poll, Wanted};
use super::secured::Tls;
use super::{Config, PORT};
use crate::model::Readings;
use crate::{tls, units};

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

/// What the unfinished frames of all connections may take together, in bytes: some of the largest.
const BEGUN_MAX: usize = 8 << 20;

/// A listening socket and its connections.
#[derive(Debug)]
pub(super) struct Listener {
    listen: SocketAddr,
    door: Door,
    poll: Poll,
    idle: Option<Duration>,
    identity: Option<Identity>,
    context: Context,
    reader: Reader,
    /// What is read, of one connection after another.
    scratch: Vec<u8>,
    connections: Connections,
    handshakes: Handshakes,
    /// What all that has begun and not ended takes, in bytes.
    begun: usize,
    /// Who was said to be ready and has not had a turn. One that has gone meanwhile is passed over.
    ready: VecDeque<RawFd>,
    /// Until when nothing is to be looked for.
    rest: Duration,
    /// How long a look takes at most.
    patience: Duration,
    /// Whether the last look has ended with more lying there: others have their turn before the next.
    more: bool,
    /// When the silence of a connection in the middle of a frame will have lasted for the framing's idle gap.
    gaps: BTreeSet<(Duration, RawFd)>,
    /// When the silent ones were last looked for.
    swept: Duration,
    asked: Asked,
}

impl Listener {
    pub(super) fn open(listen: SocketAddr, config: &Config, context: &Context) -> Result<Self, SourceError> {
        let what = || listen.to_string();
        let refused = |error: &io::Error| listen::refused(listen, error, Protocol::Tcp, PORT);
        let identity = config.tls.as_ref().map(|tls| Identity::read(tls, context)).transpose();
        let identity = identity.map_err(|tls::Error { what: cause, hint, .. }| SourceError::Refused {
            what: what(),
            cause,
            hint,
        })?;
        let poll = Poll::new().map_err(|error| refused(&error))?;
        let door = Door::open(listen, config, context, &poll).map_err(|error| refused(&error))?;
        let now = context.clock.monotonic();
        Ok(Self {
            listen,
            door,
            poll,
            idle: config.idle_timeout,
            identity,
            context: context.clone(),
            reader: config.reader(context),
            scratch: vec![0; READ],
            connections: Connections::new(),
            handshakes: Handshakes::default(),
            begun: 0,
            ready: VecDeque::new(),
            rest: now,
            patience: LOOK,
            more: false,
            gaps: BTreeSet::new(),
            swept: now,
            asked: Asked::default(),
        })
    }

    pub(super) async fn next(&mut self) -> Result<Batch, SourceError> {
        self.asked.go(self.context.clock.monotonic());
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
                self.asked.stop(readings.arrival.monotonic);
                return Ok(Batch { readings, receipt: None });
            }
            // What came may have been noise, in any quantity.
            yield_now().await;
        }
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.door.address()
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

    /// What all that has begun and not ended takes, by the books and counted anew.
    #[cfg(test)]
    pub(super) fn begun(&self) -> usize {
        let counted = self.connections.values().map(|connection| connection.held()).sum();
        assert_eq!(self.begun, counted);
        counted
    }

    fn gone(&self, error: &io::Error) -> SourceError {
        SourceError::Gone { what: format!("the socket at {}", self.listen), cause: error.to_string() }
    }

    /// When there is something to see to, whatever comes.
    pub(super) fn due(&self) -> Option<Duration> {
        let sweep = self.idle.filter(|_| !self.connections.is_empty()).map(|idle| self.swept + idle / 4);
        let handshake = self.handshakes.due();
        let reopen = self.door.shut_until().and_then(|shut| {
            let place = self.handshakes.place_at(&self.connections)?;
            Some(place.max(shut))
        });
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
                Some(ready) if self.door.is(ready) => self.accept(now)?,
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
            let is_full = self.handshakes.is_full();
            let wavering = if is_full { self.handshakes.wavering(now, &self.connections) } else { None };
            if is_full && wavering.is_none() {
                break;
            }
            match self.door.accept(now)? {
                Caller::Came(socket, peer) => self.admit(socket, peer, wavering, now),
                Caller::Nobody => break,
                Caller::Waits(error) => {
                    self.refuse(Refusal::TooMany, None, || format!("cannot take a connection: {error}"));
                    break;
                }
                Caller::Left(error) => tracing::debug!(source = &*self.context.name, %error, "not taken"),
            }
        }
        Ok(())
    }

    /// Takes a connection, in the place of the one that is `wavering`.
    fn admit(&mut self, socket: TcpStream, peer: SocketAddr, wavering: Option<RawFd>, now: Duration) {
        if !self.door.admits(peer) {
            self.refuse(Refusal::NotAllowed, Some(peer), || "its address is not in `allow`");
            return;
        }
        if let Some(fd) = wavering {
            self.give_away(fd);
        }
        if let Some(full) = self.door.full(&socket, self.connections.len()) {
            self.refuse(Refusal::TooMany, Some(peer), || full);
            return;
        }
        let tls = match self.identity.as_mut().map(|identity| identity.meet(&self.context)).transpose() {
            Ok(tls) => tls.map(Tls::new).map(Box::new),
            Err(error) => {
                self.refuse_tls(peer, "no beginning", || format!("TLS cannot begin ({error})"));
                return;
            }
        };
        if let Err(error) = socket.set_nonblocking(true).and_then(|()| self.poll.add(&socket)) {
            self.refuse(Refusal::TooMany, Some(peer), || format!("it cannot be watched ({error})"));
            return;
        }
        let fd = socket.as_raw_fd();
        if tls.is_some() {
            self.handshakes.begin(fd, now);
        }
        self.context.stats.connections.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(source = &*self.context.name, %peer, "connected");
        let (stream, whole) = (self.reader.stream(Some(peer)), self.asked.at(now));
        let connection =
            Connection { socket, peer, stream, tls, taken: now, heard: now, whole, stuck: false };
        self.connections.insert(fd, Box::new(connection));
    }

    fn serve(&mut self, fd: RawFd, now: Duration, readings: &mut Readings) {
        let Some(connection) = self.connections.get_mut(&fd) else { return };
        let (peer, begun, stuck) = (connection.peer, connection.held(), connection.stuck);
        let handshaking = connection.is_handshaking();
        if let Some(gap) = self.reader.idle_gap() {
            self.gaps.remove(&(connection.heard + gap, fd));
        }
        let found = connection.read(&mut self.reader, &mut self.scratch, readings, self.asked.at(now));
        let begins = connection.held();
        self.begun = (self.begun + begins).saturating_sub(begun);
        let settled = handshaking && !connection.is_handshaking();
        if settled {
            self.handshakes.end();
        }
        match found {
            Found::Nothing => {}
            Found::Bytes => connection.heard = now,
            Found::End => {
                if handshaking && !settled {
                    self.refuse_tls(peer, "went away", || "it went away before TLS had begun");
                }
                return self.close(fd, Counted::AsCutOff);
            }
            Found::Misfit(error) => {
                let why = tls::unwelcome(&error, identity::now(&self.context.clock));
                self.refuse_tls(peer, why.what, || &why);
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
            self.handshakes.end();
        }
        self.begun = self.begun.saturating_sub(connection.held());
        if let Some(gap) = self.reader.idle_gap() {
            self.gaps.remove(&(connection.heard + gap, fd));
        }
        if unfinished == Counted::AsCutOff {
            connection.cut_off(&self.reader);
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
                let held = connection.held();
                self.reader.silence(&mut connection.stream, readings);
                connection.whole = self.asked.at(now);
                self.begun = (self.begun + connection.held()).saturating_sub(held);
            }
        }
    }

    fn end_handshakes(&mut self, now: Duration) {
        while let Some((fd, peer)) = self.handshakes.late(now, &self.connections) {
            self.refuse_tls(peer, "too long", || {
                format!("the handshake of TLS took longer than {}", units::show(handshakes::MOST))
            });
            self.close(fd, Counted::AsCutOff);
        }
    }

    fn give_away(&mut self, fd: RawFd) {
        if let Some(peer) = self.connections.get(&fd).map(|connection| connection.peer) {
            self.refuse_tls(peer, "silent", || {
                format!(
                    "it was silent in the handshake of TLS for {}, while {} were under way and more waited",
                    units::show(handshakes::WAVERING),
                    handshakes::PLACES
                )
            });
            self.close(fd, Counted::AsCutOff);
        }
    }

    /// Closes those that have been silent for too long, or have not ended a frame for much longer. What the pipeline has
    /// kept us from reading was not silent.
    fn sweep(&mut self, now: Duration) {
        let Some(idle) = self.idle.filter(|idle| now.saturating_sub(self.swept) >= *idle / 4) else { return };
        self.swept = now;
        let (asked, most) = (self.asked.at(now), frames::most(idle));
        let silent = |connection: &Connection| {
            let is_silent = now.saturating_sub(connection.heard) >= idle;
            let drips = asked.saturating_sub(connection.whole) >= most && !connection.rests();
            (is_silent || drips) && connection.is_silent()
        };
        let silent: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| silent(connection))
            .map(|(fd, connection)| (*fd, connection.peer, now.saturating_sub(connection.heard) < idle))
            .collect();
        for (fd, peer, drips) in silent {
            let (what, long) =
                if drips { ("has not ended a frame", most) } else { ("has said nothing", idle) };
            self.context.stats.fall_silent(&self.context.name, peer, what, long);
            self.close(fd, Counted::AsCutOff);
        }
    }

    fn open_or_shut(&mut self, now: Duration) -> io::Result<()> {
        let is_place =
            !self.handshakes.is_full() || self.handshakes.wavering(now, &self.connections).is_some();
        self.door.open_or_shut(is_place, now, &self.poll)
    }

    /// `reason` is the same for all devices of which the same is to be said.
    fn refuse_tls<T: std::fmt::Display>(
        &self,
        peer: SocketAddr,
        reason: &'static str,
        what: impl FnOnce() -> T,
    ) {
        let told = || format!("{peer}: {}", what());
        self.context.stats.refuse_for(&self.context.name, Refusal::Tls, reason, told);
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
            connection.cut_off(&self.reader);
        }
    }
}

/// How the unfinished frame of a connection that is closed is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    AsCutOff,
    Already,
}

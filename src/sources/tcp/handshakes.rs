//! The handshakes of TLS that are under way: how many there may be, how long each may take, and whose place goes to
//! another. Times are monotonic.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

use super::connection::{Connection, Connections};

/// So long one may take.
pub(super) const MOST: Duration = Duration::from_secs(10);

/// So many may be under way; others wait to be taken.
pub(super) const PLACES: usize = 128;

/// Who has said nothing for so long in the middle of one gives its place to the next where all are taken.
pub(super) const WAVERING: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// When each has to be done, in this order. One that is done, or gone, is passed over.
    until: VecDeque<(Duration, RawFd)>,
    under_way: usize,
}

impl Handshakes {
    pub(super) fn begin(&mut self, fd: RawFd, now: Duration) {
        self.under_way += 1;
        self.until.push_back((now + MOST, fd));
    }

    /// One is done, or gone.
    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// When the first has to be done.
    pub(super) fn due(&self) -> Option<Duration> {
        self.until.front().map(|(until, _)| *until)
    }

    /// When there will be a place, where there is none.
    pub(super) fn place_at(&self, connections: &Connections) -> Option<Duration> {
        if self.is_full() { self.wavers(connections).map(|(at, _)| at).min() } else { Some(Duration::ZERO) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.under_way >= PLACES
    }

    /// One that is not done in time, if any is left.
    pub(super) fn late(&mut self, now: Duration, connections: &Connections) -> Option<(RawFd, SocketAddr)> {
        while let Some((until, fd)) = self.until.front().copied().filter(|(until, _)| *until <= now) {
            self.until.pop_front();
            // Its number may be another's by now, which has more time.
            if let Some(connection) = connections.get(&fd).filter(|found| is_under_way(found, until)) {
                return Some((fd, connection.peer));
            }
        }
        if self.until.is_empty() {
            self.until.shrink_to(PLACES);
        }
        None
    }

    /// When each will have been silent for too long to keep its place, in the order in which they have begun.
    fn wavers<'c>(&'c self, connections: &'c Connections) -> impl Iterator<Item = (Duration, RawFd)> + 'c {
        self.until.iter().filter_map(|(until, fd)| {
            let connection = connections.get(fd).filter(|found| is_under_way(found, *until))?;
            Some((connection.heard + WAVERING, *fd))
        })
    }

    /// The oldest that has been silent for too long. What we have not read yet was no silence.
    pub(super) fn wavering(&mut self, now: Duration, connections: &Connections) -> Option<RawFd> {
        // Those that are done, or gone, may be many more.
        if self.until.len() > PLACES {
            self.until
                .retain(|(until, fd)| connections.get(fd).is_some_and(|found| is_under_way(found, *until)));
        }
        let is_silent = |fd: &RawFd| connections.get(fd).is_some_and(|connection| connection.is_silent());
        self.wavers(connections).filter(|(at, _)| *at <= now).map(|(_, fd)| fd).find(is_silent)
    }
}

/// Whether this is the handshake that has to be done by `until`, and is not. Its number may be another's by now.
fn is_under_way(connection: &Connection, until: Duration) -> bool {
    connection.is_handshaking() && connection.taken + MOST <= until
}

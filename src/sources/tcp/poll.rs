//! Thousands of sockets behind one file descriptor: epoll(7), level-triggered.
//!
//! tokio watches that one descriptor, so a socket at rest costs neither a task nor a timer. Level-triggered means that
//! whoever still has bytes is told of again, at the end of the line: nobody is passed over, and not to read is
//! backpressure.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// So many sockets are told of at once.
const TOLD: u8 = 64;

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That there is something to read, or to accept, or that the other side is gone.
    Reading,
    /// That, or that there is room to write.
    ReadingOrWriting,
}

/// The sockets that are watched. One that is closed is no longer.
#[derive(Debug)]
pub(super) struct Poll(AsyncFd<OwnedFd>);

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: `epoll_create1` takes no pointers, and what it gives belongs to nobody yet. An `OwnedFd` keeps its number
        // and stays open until it is dropped, with what watches it.
        #[expect(unsafe_code, reason = "no safe wrapper of a level-triggered epoll is in the tree")]
        unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if epoll < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(AsyncFd::register_with_interest(OwnedFd::from_raw_fd(epoll), Interest::READABLE)?))
        }
    }

    /// Watches a socket from now on.
    pub(super) fn add(&self, socket: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), Wanted::Reading)
    }

    /// Watches for something else of a socket.
    pub(super) fn change(&self, socket: &impl AsRawFd, wanted: Wanted) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), wanted)
    }

    /// Watches a socket no longer.
    pub(super) fn remove(&self, socket: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket.as_raw_fd(), Wanted::Reading)
    }

    fn control(&self, what: libc::c_int, socket: RawFd, wanted: Wanted) -> io::Result<()> {
        let events = match wanted {
            Wanted::Reading => libc::EPOLLIN,
            Wanted::ReadingOrWriting => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: mark(socket) };
        // SAFETY: `event` outlives the call, which only reads it. A number that is no socket is an error.
        #[expect(unsafe_code, reason = "no safe wrapper of a level-triggered epoll is in the tree")]
        let result = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, socket, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until there may be something to take. Cancel-safe.
    pub(super) async fn ready(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }

    /// Adds sockets that are ready to `ready`, without waiting; false where there is none.
    pub(super) fn take(&self, ready: &mut VecDeque<RawFd>) -> io::Result<bool> {
        match self.0.try_io(Interest::READABLE, |epoll| take(epoll.as_raw_fd(), ready)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// As `take`, and an error of its kind where none is ready.
fn take(epoll: RawFd, ready: &mut VecDeque<RawFd>) -> io::Result<()> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; TOLD as usize];
    loop {
        // SAFETY: the kernel writes at most `TOLD` events to where there is room for as many.
        #[expect(unsafe_code, reason = "no safe wrapper of a level-triggered epoll is in the tree")]
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), TOLD.into(), 0) };
        match usize::try_from(count) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(count) => {
                let told = events.iter().take(count).filter_map(|event| RawFd::try_from(event.u64).ok());
                ready.extend(told);
                return Ok(());
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

fn mark(socket: RawFd) -> u64 {
    u64::try_from(socket).unwrap_or(u64::MAX)
}

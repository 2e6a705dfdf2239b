//! A link on loopback that can be cut, or go dead without a word.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as Listening};
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::pki::Result;

/// A TCP proxy. Every connection is cut with this handle.
pub(crate) struct Link {
    port: u16,
    state: Option<watch::Sender<State>>,
    carrying: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    way: Way,
    /// Connections that were made before this age are dead for good.
    age: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Open,
    Cut,
    Dead,
}

impl Link {
    /// Carries what comes to a port of localhost that the kernel chooses to `to`, and back.
    pub(crate) fn to(to: SocketAddr) -> Result<Self> {
        let listener = Listening::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (sender, state) = watch::channel(State::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let carrying = thread::spawn(move || runtime.block_on(accept(listener, to, state)));
        Ok(Self { port, state: Some(sender), carrying: Some(carrying) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection, and each new one as soon as it is made.
    pub(crate) fn cut(&self) {
        self.change(|state| state.way = Way::Cut);
    }

    /// Carries nothing any more, and closes nothing: connections are half open. What is sent meanwhile is held.
    pub(crate) fn die(&self) {
        self.change(|state| state.way = Way::Dead);
    }

    /// Carries again, what was held first.
    pub(crate) fn mend(&self) {
        self.change(|state| state.way = Way::Open);
    }

    /// Carries new connections again. Those of before stay half open for good.
    pub(crate) fn replace(&self) {
        self.change(|state| *state = State { way: Way::Open, age: state.age + 1 });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = &self.state {
            state.send_modify(change);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state = None;
        if let Some(carrying) = self.carrying.take() {
            let _ = carrying.join();
        }
    }
}

/// Nobody changes the link any more, or it was cut, or one side closed: the connection is to be closed.
struct Ended;

async fn accept(listener: Listening, to: SocketAddr, mut state: watch::Receiver<State>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { return };
                connections.spawn(carry(near, to, state.clone()));
            }
            Some(_) = connections.join_next() => {}
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

async fn carry(
    near: TcpStream,
    to: SocketAddr,
    mut state: watch::Receiver<State>,
) -> std::result::Result<(), Ended> {
    let age = state.borrow().age;
    open(&mut state, age).await?;
    let far = TcpStream::connect(to).await.map_err(|_| Ended)?;
    for stream in [&near, &far] {
        stream.set_nodelay(true).map_err(|_| Ended)?;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        ended = one_way(near_in, far_out, state.clone(), age) => ended,
        ended = one_way(far_in, near_out, state.clone(), age) => ended,
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    age: u64,
) -> std::result::Result<(), Ended> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        open(&mut state, age).await?;
        let length = tokio::select! {
            biased;
            changed = state.changed() => {
                changed.map_err(|_| Ended)?;
                continue;
            }
            read = from.read(&mut buffer) => read.map_err(|_| Ended)?,
        };
        if length == 0 {
            return Err(Ended);
        }
        // It may have died while this was read.
        open(&mut state, age).await?;
        tokio::select! {
            biased;
            written = to.write_all(&buffer[..length]) => written.map_err(|_| Ended)?,
            _ = state.wait_for(|state| state.way == Way::Cut) => return Err(Ended),
        }
    }
}

/// Waits until a connection of `age` is carried.
async fn open(state: &mut watch::Receiver<State>, age: u64) -> std::result::Result<(), Ended> {
    let is_settled = |state: &State| state.way == Way::Cut || (state.way == Way::Open && state.age == age);
    match state.wait_for(is_settled).await {
        Ok(state) if state.way == Way::Open => Ok(()),
        _ => Err(Ended),
    }
}

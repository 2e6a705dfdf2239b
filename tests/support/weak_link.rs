//! What may lie between a gateway and its broker: a link that goes dead, of which nobody is told.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) struct WeakLink {
    port: u16,
    alive: watch::Sender<bool>,
    _running: JoinSet<()>,
}

impl WeakLink {
    /// Listens on a free port of loopback, for connections to `port`.
    pub(crate) async fn to(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let own = listener.local_addr()?.port();
        let alive = watch::Sender::new(true);
        let subscription = alive.subscribe();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
                let ((near_out, near_in), (far_out, far_in)) = (near.into_split(), far.into_split());
                ways.spawn(carry(near_out, far_in, subscription.clone()));
                ways.spawn(carry(far_out, near_in, subscription.clone()));
            }
        });
        Ok(Self { port: own, alive, _running: running })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes, on open connections too, and none is closed.
    pub(crate) fn die(&self) {
        self.alive.send_replace(false);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut alive: watch::Receiver<bool>) {
    let mut buffer = [0; 4096];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if alive.wait_for(|alive| *alive).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

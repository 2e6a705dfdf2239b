//! Dials a broker: the addresses of its name, one after another, and TLS on the one that answers.
//!
//! An address that refuses is passed over at once. One that swallows everything, as IPv6 does at many a site, costs a
//! few seconds and keeps nobody from the next.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::Url;

/// How long one address of several may take to answer.
const PER_ADDRESS: Duration = Duration::from_secs(5);

/// What MQTT is spoken over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Dials, without a bound on the whole: that is the caller's. A TLS error is wrapped in the I/O error.
pub(super) async fn dial(url: &Url, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
    let addresses: Vec<_> = lookup_host((&*url.host, url.port)).await?.collect();
    let tcp = reach(&addresses).await?;
    // Else a small packet waits behind another for the other side's delayed acknowledgement: 40 ms each time.
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, tcp).await?))
}

/// The first of `addresses` that answers. Of many failures a refusal tells more than silence, and is the one told.
async fn reach(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect(only).await;
    }
    let mut failure = None;
    for address in addresses {
        match timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "address passed over");
                failure = Some(error);
            }
            Err(_) => tracing::debug!(%address, "address passed over: no answer"),
        }
    }
    Err(failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::{TcpListener, TcpSocket};

    /// A port on which nothing listens: this socket holds it without listening.
    fn refusing() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    /// A port that swallows what knocks: the kernel drops it, as the queue of those that wait to be accepted is full.
    struct BlackHole {
        address: SocketAddr,
        _listener: TcpListener,
        _waiting: Vec<TcpStream>,
    }

    impl BlackHole {
        async fn open() -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = listener.local_addr().unwrap();
            let mut waiting = Vec::new();
            while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await
            {
                waiting.push(stream);
            }
            Self { address, _listener: listener, _waiting: waiting }
        }
    }

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over() {
        let ((_held, refusing), (_listener, listening)) = (refusing(), listening().await);
        let stream = reach(&[refusing, listening]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
    }

    /// Waits with tokio's time, which jumps to the next timer when there is nothing else to do.
    #[tokio::test]
    async fn an_address_that_swallows_everything_costs_five_seconds_and_the_next_is_tried() {
        let (hole, (_listener, listening)) = (BlackHole::open().await, listening().await);
        tokio::time::pause();
        let clock = crate::clock::Clock::injected(crate::model::Timestamp(0), true);
        let stream = reach(&[hole.address, listening]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
        assert_eq!(clock.monotonic().as_secs(), 5);
    }

    #[tokio::test]
    async fn where_no_address_will_do_a_refusal_is_told_rather_than_silence() {
        let (hole, (_held, refusing)) = (BlackHole::open().await, refusing());
        tokio::time::pause();
        for addresses in [[hole.address, refusing], [refusing, hole.address]] {
            let error = reach(&addresses).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        let error = reach(&[hole.address, hole.address]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

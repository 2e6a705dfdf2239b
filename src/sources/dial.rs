//! A connection to a device.

use std::io;

use tokio::net::{TcpStream, ToSocketAddrs};

/// Connects. Within this machine a connection may be given the very port that it dials, where nothing listens, and so
/// meet itself: it would stand for ever, and keep the device from listening there. That is refused.
pub(super) async fn connect(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    unless_itself(TcpStream::connect(address).await?)
}

fn unless_itself(socket: TcpStream) -> io::Result<TcpStream> {
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(own), Ok(peer)) if own == peer => Err(io::ErrorKind::ConnectionRefused.into()),
        _ => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_has_met_itself_is_refused() {
        let own = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        own.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        own.connect(&own.local_addr().unwrap()).unwrap();
        own.set_nonblocking(true).unwrap();
        let met = unless_itself(TcpStream::from_std(own.into()).unwrap());
        assert_eq!(met.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(connect(listener.local_addr().unwrap()).await.is_ok());
    }
}

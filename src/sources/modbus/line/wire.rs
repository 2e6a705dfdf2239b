//! What carries a line's bytes: a serial port, or a connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::sources::modbus::config::Target;
use crate::sources::port::{self, Port};
use crate::sources::{SourceError, dial};

#[derive(Debug)]
pub(super) enum Wire {
    Serial(Port),
    Network(TcpStream),
    /// In memory, so that a test's time is the runtime's own.
    #[cfg(test)]
    Scripted(tokio::io::DuplexStream),
}

impl Wire {
    pub(super) async fn open(target: &Target) -> Result<Self, SourceError> {
        match target {
            Target::Serial(name, settings) => Ok(Self::Serial(port::open(name, settings)?)),
            Target::Network(address, _) => Ok(Self::Network(connect(address).await?)),
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Serial(port) => port.write_all(bytes).await,
            Self::Network(stream) => stream.write_all(bytes).await,
            #[cfg(test)]
            Self::Scripted(stream) => stream.write_all(bytes).await,
        }
    }

    pub(super) async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Serial(port) => port.read(bytes).await,
            Self::Network(stream) => stream.read(bytes).await,
            #[cfg(test)]
            Self::Scripted(stream) => stream.read(bytes).await,
        }
    }
}

/// What it means that the line failed, or, without an error, gave its end.
pub(super) fn gone(target: &Target, error: Option<&io::Error>) -> SourceError {
    match target {
        Target::Serial(name, _) => port::gone(name, error),
        Target::Network(address, _) => {
            let cause = error.map_or("the connection was closed".to_owned(), ToString::to_string);
            SourceError::Gone { what: address.to_string(), cause }
        }
    }
}

/// The longest that a connect takes.
const CONNECT: Duration = Duration::from_secs(3);

/// Connects to `address`, within a bound.
async fn connect(address: &str) -> Result<TcpStream, SourceError> {
    let what = || address.to_owned();
    let hint = "check that the device is on, and that `address` names it".to_owned();
    match timeout(CONNECT, dial::connect(address)).await {
        Ok(Ok(stream)) => {
            // A request is one small packet, and nothing follows it to be sent along.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let hint = "nothing listens at this port of it".to_owned();
            Err(SourceError::Refused { what: what(), cause: "connection refused".to_owned(), hint })
        }
        Ok(Err(error)) => Err(SourceError::Refused { what: what(), cause: error.to_string(), hint }),
        Err(_) => {
            let cause = format!("no answer within {} s", CONNECT.as_secs());
            Err(SourceError::Refused { what: what(), cause, hint })
        }
    }
}

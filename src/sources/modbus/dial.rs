use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::sources::SourceError;

/// The longest that a connect takes.
const CONNECT: Duration = Duration::from_secs(3);

/// Connects to `address`, within a bound.
pub(super) async fn connect(address: &str) -> Result<TcpStream, SourceError> {
    let what = || address.to_owned();
    let hint = "check that the device is on, and that `address` names it".to_owned();
    match timeout(CONNECT, TcpStream::connect(address)).await {
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

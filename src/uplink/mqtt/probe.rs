//! Whether a broker takes a certificate, found out by a TLS handshake beside the session that runs.
//!
//! In TLS 1.3 a client's handshake is done before the server has seen its certificate: the refusal comes as an alert
//! afterwards, if at all. A broker that takes it says nothing, for in MQTT the client speaks first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::config::Url;
use super::dial::dial;
use super::identity::{self, Blame};
use super::link::{CONNECT_WITHIN, Failure};

/// How long an alert is waited for.
const ALERT_WITHIN: Duration = Duration::from_secs(3);

/// Why it is not known that the broker takes the certificate.
#[derive(Debug)]
pub(super) enum Error {
    /// It does not.
    Refused(Failure),
    /// It could not be asked.
    Unreachable(io::Error),
}

pub(super) async fn probe(broker: &Url, config: &Arc<ClientConfig>) -> Result<(), Error> {
    let too_late = |_| Error::Unreachable(io::ErrorKind::TimedOut.into());
    let dialled = timeout(CONNECT_WITHIN, dial(broker, Some(Arc::clone(config))));
    let mut stream = dialled.await.map_err(too_late)?.map_err(judge)?;
    let mut byte = [0];
    match timeout(ALERT_WITHIN, stream.read(&mut byte)).await {
        Ok(Ok(0)) => Err(Error::Refused(Failure::Closed)),
        Ok(Err(error)) => Err(judge(error)),
        // Silence, or a broker that speaks first.
        Err(_) | Ok(Ok(_)) => {
            // It matters to the broker's log alone.
            let _ = timeout(ALERT_WITHIN, stream.shutdown()).await;
            Ok(())
        }
    }
}

fn judge(error: io::Error) -> Error {
    let failure = Failure::Io(error);
    match (identity::blame(&failure), failure) {
        (Blame::None, Failure::Io(error)) => Error::Unreachable(error),
        (_, failure) => Error::Refused(failure),
    }
}

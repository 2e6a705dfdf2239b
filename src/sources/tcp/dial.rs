//! One device that is dialled.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use super::super::dial::connect;
use super::super::stream::{Reader, Stream};
use super::super::{Batch, Context, SourceError};
use super::frames::{self, Asked};
use super::{Config, keep_alive};
use crate::clock::Clock;
use crate::model::Readings;
use crate::units;

/// How long a device, or one address of several, may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the name's addresses may be looked up.
const LOOKUP: Duration = Duration::from_secs(10);

const READ: usize = 4096;

/// A connection to a device.
#[derive(Debug)]
pub(super) struct Dialled {
    what: Box<str>,
    socket: TcpStream,
    buffer: Box<[u8]>,
    reader: Reader,
    stream: Stream,
    idle: Option<Duration>,
    /// When it was dialled or last said something, by the monotonic clock.
    heard: Duration,
    /// When it last ended a frame, or was between two, by `asked`.
    whole: Duration,
    asked: Asked,
    /// Whether the framing knows that nothing has come since.
    quiet: bool,
    clock: Clock,
}

impl Dialled {
    pub(super) async fn open(device: &str, config: &Config, context: &Context) -> Result<Self, SourceError> {
        let socket = dial(device).await.map_err(|why| why.told(device))?;
        if let Err(error) = keep_alive(&socket) {
            tracing::debug!(source = &*context.name, %error, "the connection is not kept alive");
        }
        let (reader, heard) = (config.reader(context), context.clock.monotonic());
        Ok(Self {
            what: device.into(),
            socket,
            buffer: vec![0; READ].into(),
            stream: reader.stream(None),
            reader,
            idle: config.idle_timeout,
            heard,
            whole: heard,
            asked: Asked::default(),
            quiet: false,
            clock: context.clock.clone(),
        })
    }

    pub(super) async fn next(&mut self) -> Result<Batch, SourceError> {
        self.asked.go(self.clock.monotonic());
        loop {
            let gap = self.reader.idle_gap().filter(|_| !self.quiet && !self.stream.rests());
            let quiet = self.clock.instant(self.heard + gap.unwrap_or_default());
            let patience = self.patience();
            let late = self.clock.instant(patience.map_or(self.heard, |(until, ..)| until));
            // The only point where this waits for something.
            let readable = tokio::select! {
                // What has come is not silence, however long ago that was.
                biased;
                readable = self.socket.readable() => readable,
                () = sleep_until(quiet), if gap.is_some() => {
                    self.quiet = true;
                    let mut readings = Readings::new(self.clock.now());
                    self.reader.silence(&mut self.stream, &mut readings);
                    self.whole = self.asked.at(readings.arrival.monotonic);
                    if readings.is_empty() {
                        continue;
                    }
                    return Ok(self.hand(readings));
                }
                () = sleep_until(late), if patience.is_some() => {
                    let (_, what, most) = patience.unwrap_or_default();
                    return Err(self.gone(format!("it {what} for {} (`idle_timeout`)", units::show(most))));
                }
            };
            let read = readable.and_then(|()| self.socket.try_read(&mut self.buffer));
            let bytes = match read {
                Ok(0) => return Err(self.gone("it closed the connection".to_owned())),
                Ok(length) => self.buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(self.gone(error.to_string().to_lowercase())),
            };
            let mut readings = Readings::new(self.clock.now());
            self.heard = readings.arrival.monotonic;
            self.quiet = false;
            if self.reader.read(&mut self.stream, bytes, &mut readings) > 0 || self.stream.rests() {
                self.whole = self.asked.at(self.heard);
            }
            if !readings.is_empty() {
                return Ok(self.hand(readings));
            }
            // What came may have been noise, in any quantity. It can be cancelled here as well: no reading is held.
            yield_now().await;
        }
    }

    /// Until when it may go on as it does, what it has not done then, and for how long.
    fn patience(&self) -> Option<(Duration, &'static str, Duration)> {
        let idle = self.idle?;
        let (silent, most) = (self.heard + idle, frames::most(idle));
        let unfinished = self.asked.when(self.whole + most);
        Some(if self.stream.rests() || silent <= unfinished {
            (silent, "has said nothing", idle)
        } else {
            (unfinished, "has not ended a frame", most)
        })
    }

    fn hand(&mut self, readings: Readings) -> Batch {
        self.asked.stop(readings.arrival.monotonic);
        Batch { readings, receipt: None }
    }

    fn gone(&self, cause: String) -> SourceError {
        SourceError::Gone { what: self.what.to_string(), cause }
    }
}

/// What had begun is counted.
impl Drop for Dialled {
    fn drop(&mut self) {
        self.reader.cut_off(&self.stream, 0);
    }
}

/// Why there is no connection.
enum Failure {
    Name(io::Error),
    Device(io::Error),
}

/// The first of the device's addresses that answers. Of many failures a refusal tells more than silence, and is the one
/// told.
async fn dial(device: &str) -> Result<TcpStream, Failure> {
    let silence = || io::Error::from(io::ErrorKind::TimedOut);
    let found = timeout(LOOKUP, lookup_host(device)).await.unwrap_or_else(|_| Err(silence()));
    let mut failure = silence();
    for address in found.map_err(Failure::Name)? {
        match timeout(ANSWER, connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => failure = error,
            Err(_) => {}
        }
    }
    Err(Failure::Device(failure))
}

impl Failure {
    fn told(self, device: &str) -> SourceError {
        use io::ErrorKind as K;
        let what = device.to_owned();
        let missing = |hint: &str| SourceError::Missing { what: device.to_owned(), hint: hint.to_owned() };
        match self {
            Self::Name(error) => SourceError::Refused {
                what,
                cause: format!("its name cannot be looked up ({})", error.to_string().to_lowercase()),
                hint: "check the name in `connect` and the gateway's DNS, or write the address".to_owned(),
            },
            Self::Device(error) => match error.kind() {
                K::ConnectionRefused => missing(
                    "nothing listens there: check that the device takes connections, and that `connect` names its port",
                ),
                K::TimedOut => missing("it does not answer: check that the device is on, and its address"),
                K::HostUnreachable | K::NetworkUnreachable => {
                    missing("no way leads there: check the device's address, and the gateway's network")
                }
                K::PermissionDenied => SourceError::Refused {
                    what,
                    cause: "permission denied".to_owned(),
                    hint: "check the gateway's firewall, and IPAddressDeny in the service".to_owned(),
                },
                _ => SourceError::Refused {
                    what,
                    cause: error.to_string().to_lowercase(),
                    hint: "check `connect`".to_owned(),
                },
            },
        }
    }
}

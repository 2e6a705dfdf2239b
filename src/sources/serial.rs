//! Serial lines: RS-232, RS-485 and USB adapters, whatever Linux shows as a terminal device.
//!
//! The port is opened raw, for this process alone, and only read. What lies in the kernel's buffer when it is opened
//! is data and is kept. A reader that joins in the middle of a frame cannot know it: the rest of that frame is read
//! as a frame, usually does not decode, and is counted as refused. A frame that had begun when the port went away is
//! counted as cut off.

use std::io;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use tokio::io::AsyncReadExt;
use tokio_serial::{DataBits, ErrorKind, SerialStream, StopBits};

use super::stream::Stream;
use super::{Batch, Context, Source, SourceError, decode, framing};
use crate::clock::Clock;
use crate::model::{NAME_MAX, Readings, is_name};

/// A source of `type = "serial"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The device file; best one below `/dev/serial/by-id/`, which stays when adapters change places.
    pub port: Box<str>,
    /// Bits per second, 50 to 4,000,000.
    #[serde(default = "baud")]
    pub baud: u32,
    /// Bits per character, 5 to 8.
    #[serde(default = "eight", deserialize_with = "data_bits")]
    pub data_bits: DataBits,
    /// The parity bit.
    #[serde(default = "Parity::none", with = "Parity")]
    pub parity: tokio_serial::Parity,
    /// Stop bits, 1 or 2.
    #[serde(default = "one", deserialize_with = "stop_bits")]
    pub stop_bits: StopBits,
    /// How the receiver holds the sender back.
    #[serde(default = "FlowControl::none", with = "FlowControl")]
    pub flow_control: tokio_serial::FlowControl,
    /// How bytes become frames.
    #[serde(default)]
    pub framing: framing::Config,
    /// How frames become readings.
    pub decode: decode::Config,
    /// The device where a frame names none; by default the source's name.
    pub device: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(remote = "tokio_serial::Parity", rename_all = "snake_case")]
enum Parity {
    None,
    Odd,
    Even,
}

impl Parity {
    fn none() -> tokio_serial::Parity {
        tokio_serial::Parity::None
    }
}

#[derive(Deserialize)]
#[serde(remote = "tokio_serial::FlowControl", rename_all = "snake_case")]
enum FlowControl {
    None,
    Software,
    Hardware,
}

impl FlowControl {
    fn none() -> tokio_serial::FlowControl {
        tokio_serial::FlowControl::None
    }
}

fn baud() -> u32 {
    9600
}

fn eight() -> DataBits {
    DataBits::Eight
}

fn one() -> StopBits {
    StopBits::One
}

fn data_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataBits, D::Error> {
    let bits = u8::deserialize(deserializer)?;
    DataBits::try_from(bits)
        .map_err(|()| serde::de::Error::custom(format!("{bits} data bits: write 5, 6, 7 or 8")))
}

fn stop_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StopBits, D::Error> {
    let bits = u8::deserialize(deserializer)?;
    StopBits::try_from(bits).map_err(|()| serde::de::Error::custom(format!("{bits} stop bits: write 1 or 2")))
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = self.framing.problems();
        problems.extend(self.decode.problems());
        if self.port.is_empty() {
            problems.push((
                "port",
                "`port` is empty: write the device file, such as \"/dev/ttyUSB0\"".to_owned(),
            ));
        }
        if !(50..=4_000_000).contains(&self.baud) {
            problems.push(("baud", format!("`baud` {} must lie within 50 and 4000000", self.baud)));
        }
        if self.device.as_ref().is_some_and(|device| !is_name(device)) {
            problems.push(("device", format!("`device` must have 1 to {NAME_MAX} bytes")));
        }
        problems
    }

    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        if Path::new(&*self.port).exists() {
            return Vec::new();
        }
        vec![("port", format!("`{}` is not there: weir waits for it", self.port))]
    }
}

/// An open port.
#[derive(Debug)]
pub struct Serial {
    name: Box<str>,
    port: SerialStream,
    buffer: Box<[u8]>,
    stream: Stream,
    clock: Clock,
}

/// What the kernel hands over at once at most (the line discipline's buffer).
const READ: usize = 4096;

impl Source for Serial {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        let port = tokio_serial::new(&*config.port, config.baud)
            .data_bits(config.data_bits)
            .parity(config.parity)
            .stop_bits(config.stop_bits)
            .flow_control(config.flow_control)
            .exclusive(true);
        Ok(Self {
            name: config.port.clone(),
            port: SerialStream::open(&port).map_err(|error| refused(&config.port, &error))?,
            buffer: vec![0; READ].into(),
            stream: Stream::new(&config.framing, &config.decode, config.device.as_deref(), context),
            clock: context.clock.clone(),
        })
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        loop {
            // The only point where this waits, so the only one where it can be cancelled.
            let bytes = match self.port.read(&mut self.buffer).await {
                Ok(0) => return Err(self.gone(None)),
                Ok(length) => self.buffer.get(..length).unwrap_or_default(),
                Err(error) => return Err(self.gone(Some(&error))),
            };
            let mut readings = Readings::new(self.clock.now());
            self.stream.read(bytes, &mut readings);
            if !readings.is_empty() {
                return Ok(Batch { readings, receipt: None });
            }
        }
    }
}

impl Serial {
    fn gone(&self, error: Option<&io::Error>) -> SourceError {
        self.stream.cut_off();
        let cause = match error.map(|error| (error.raw_os_error(), error)) {
            None | Some((Some(libc::EIO | libc::ENXIO | libc::ENODEV), _)) => "it was unplugged".to_owned(),
            Some((_, error)) => error.to_string(),
        };
        SourceError::Gone { what: self.name.to_string(), cause }
    }
}

/// What the failure to open `port` means to the person who has to see to it.
fn refused(port: &str, error: &tokio_serial::Error) -> SourceError {
    let what = port.to_owned();
    let (cause, hint) = match error.kind {
        ErrorKind::Io(io::ErrorKind::NotFound) => {
            let hint = "check that the adapter is plugged in and that `port` names it".to_owned();
            return SourceError::Missing { what, hint };
        }
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => (
            "permission denied".to_owned(),
            "add the user that weir runs as to the group `dialout`, then start weir again".to_owned(),
        ),
        // What the library says where the port is locked, by ioctl or by flock.
        ErrorKind::NoDevice => (
            "another program, or another source, has it open".to_owned(),
            format!("`fuser -v {port}` shows which"),
        ),
        _ => (
            error.description.to_lowercase(),
            "check that `port` names a serial port and that it can do these settings".to_owned(),
        ),
    };
    SourceError::Refused { what, cause, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(&format!("port = '/dev/ttyUSB0'\ndecode = {{ type = 'json' }}\n{toml}"))
    }

    #[test]
    fn a_port_and_a_decoder_are_enough() {
        let config = config("").unwrap();
        assert_eq!((config.baud, config.data_bits, config.stop_bits), (9600, DataBits::Eight, StopBits::One));
        assert_eq!(config.parity, tokio_serial::Parity::None);
        assert_eq!(config.flow_control, tokio_serial::FlowControl::None);
        assert_eq!(config.problems(), []);
    }

    #[test]
    fn settings_that_no_line_has_are_refused_with_those_that_one_has() {
        for (toml, hint) in [
            ("data_bits = 9", "5, 6, 7 or 8"),
            ("stop_bits = 3", "1 or 2"),
            ("parity = 'mark'", "`odd`"),
            ("flow_control = 'rts'", "`hardware`"),
            ("bauds = 9600", "`baud`"),
        ] {
            let error = config(toml).unwrap_err().to_string();
            assert!(error.contains(hint), "{toml}: {error}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_a_problem_at_its_key() {
        for (toml, key) in [
            ("baud = 49", "baud"),
            ("baud = 4000001", "baud"),
            ("device = ''", "device"),
            ("framing = { type = 'lines', max_frame = '2MiB' }", "framing.max_frame"),
        ] {
            let problems = config(toml).unwrap().problems();
            assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key], "{toml}");
        }
    }
}

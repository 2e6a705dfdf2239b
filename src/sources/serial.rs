//! Serial lines: RS-232, RS-485 and USB adapters, whatever Linux shows as a terminal device.
//!
//! The port is opened raw, for this process alone, and only read. What lies in the kernel's buffer when it is opened
//! is data and is kept. A reader that joins in the middle of a frame cannot know it: the rest of that frame is read
//! as a frame, usually does not decode, and is counted as refused. A frame that had begun when the port went away is
//! counted as cut off.

use std::io;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio_serial::{DataBits, SerialStream, StopBits};

use super::port::{self, FlowControl, Parity, Settings};
use super::stream::{Reader, Stream};
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
    #[serde(default = "port::baud")]
    pub baud: u32,
    /// Bits per character, 5 to 8.
    #[serde(default = "port::eight", deserialize_with = "port::data_bits")]
    pub data_bits: DataBits,
    /// The parity bit.
    #[serde(default = "Parity::none", with = "Parity")]
    pub parity: tokio_serial::Parity,
    /// Stop bits, 1 or 2.
    #[serde(default = "port::one", deserialize_with = "port::stop_bits")]
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

impl Config {
    fn settings(&self) -> Settings {
        Settings {
            baud: self.baud,
            data_bits: self.data_bits,
            parity: self.parity,
            stop_bits: self.stop_bits,
            flow_control: self.flow_control,
        }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = self.framing.problems();
        problems.extend(self.decode.problems());
        if self.port.is_empty() {
            problems.push((
                "port",
                "`port` is empty: write the device file, such as \"/dev/ttyUSB0\"".to_owned(),
            ));
        }
        problems.extend(self.settings().problems());
        if self.device.as_ref().is_some_and(|device| !is_name(device)) {
            problems.push(("device", format!("`device` must have 1 to {NAME_MAX} bytes")));
        }
        problems
    }

    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        port::absent(&self.port)
    }
}

/// An open port.
#[derive(Debug)]
pub struct Serial {
    name: Box<str>,
    port: SerialStream,
    buffer: Box<[u8]>,
    reader: Reader,
    stream: Stream,
    clock: Clock,
}

/// What the kernel hands over at once at most (the line discipline's buffer).
const READ: usize = 4096;

impl Source for Serial {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        let reader = Reader::new(&config.framing, &config.decode, config.device.as_deref(), context);
        Ok(Self {
            name: config.port.clone(),
            port: port::open(&config.port, &config.settings())?,
            buffer: vec![0; READ].into(),
            stream: reader.stream(),
            reader,
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
            self.reader.read(&mut self.stream, bytes, &mut readings);
            if !readings.is_empty() {
                return Ok(Batch { readings, receipt: None });
            }
        }
    }
}

impl Serial {
    fn gone(&self, error: Option<&io::Error>) -> SourceError {
        self.reader.cut_off(&self.stream);
        port::gone(&self.name, error)
    }
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

//! A serial port: its settings, how it is opened, and what it means where it cannot be or goes away.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio_serial::{ErrorKind, SerialStream};

use super::SourceError;
use super::uart::{self, Rs485};

pub(super) use tokio_serial::{DataBits, Parity as LineParity, SerialStream as Port, StopBits};

/// How the characters lie on the line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// Bits per second, 50 to 4,000,000.
    pub(super) baud: u32,
    pub(super) data_bits: DataBits,
    pub(super) parity: tokio_serial::Parity,
    pub(super) stop_bits: StopBits,
    pub(super) flow_control: tokio_serial::FlowControl,
    /// Whether the driver is to hand over bytes as they come.
    pub(super) low_latency: bool,
    /// How the driver switches the direction of an RS-485 line.
    pub(super) rs485: Option<Rs485>,
}

impl Settings {
    /// What is wrong with them, as (key, what and what to do).
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(50..=4_000_000).contains(&self.baud) {
            problems.push(("baud", format!("`baud` {} must lie within 50 and 4000000", self.baud)));
        }
        problems.extend(self.rs485.iter().flat_map(Rs485::problems));
        if self.rs485.is_some() && self.flow_control == tokio_serial::FlowControl::Hardware {
            let text = "`flow_control` \"hardware\" needs the RTS wire, by which `rs485` switches the line: leave one away";
            problems.push(("flow_control", text.to_owned()));
        }
        problems
    }

    /// How long one character is on the line, with its start bit and all that follows.
    pub(super) fn character(&self) -> Duration {
        let parity = u32::from(self.parity != LineParity::None);
        let bits = 1 + u32::from(u8::from(self.data_bits)) + parity + u32::from(u8::from(self.stop_bits));
        Duration::from_secs(1) * bits / self.baud.max(1)
    }
}

#[derive(Deserialize)]
#[serde(remote = "tokio_serial::Parity", rename_all = "snake_case")]
pub(super) enum Parity {
    None,
    Odd,
    Even,
}

impl Parity {
    pub(super) fn none() -> tokio_serial::Parity {
        tokio_serial::Parity::None
    }
}

#[derive(Deserialize)]
#[serde(remote = "tokio_serial::FlowControl", rename_all = "snake_case")]
pub(super) enum FlowControl {
    None,
    Software,
    Hardware,
}

impl FlowControl {
    pub(super) fn none() -> tokio_serial::FlowControl {
        tokio_serial::FlowControl::None
    }
}

pub(super) fn baud() -> u32 {
    9600
}

pub(super) fn eight() -> DataBits {
    DataBits::Eight
}

pub(super) fn one() -> StopBits {
    StopBits::One
}

pub(super) fn data_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataBits, D::Error> {
    let bits = u8::deserialize(deserializer)?;
    DataBits::try_from(bits)
        .map_err(|()| serde::de::Error::custom(format!("{bits} data bits: write 5, 6, 7 or 8")))
}

pub(super) fn stop_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StopBits, D::Error> {
    let bits = u8::deserialize(deserializer)?;
    StopBits::try_from(bits).map_err(|()| serde::de::Error::custom(format!("{bits} stop bits: write 1 or 2")))
}

/// What `check` says where there is no such port now.
pub(super) fn absent(port: &str) -> Vec<(&'static str, String)> {
    if Path::new(port).exists() {
        return Vec::new();
    }
    vec![("port", format!("`{port}` is not there: weir waits for it"))]
}

/// Opens `port` raw, for this process alone.
pub(super) fn open(port: &str, settings: &Settings) -> Result<SerialStream, SourceError> {
    let builder = tokio_serial::new(port, settings.baud)
        .data_bits(settings.data_bits)
        .parity(settings.parity)
        .stop_bits(settings.stop_bits)
        .flow_control(settings.flow_control)
        .exclusive(true);
    let open = SerialStream::open(&builder).map_err(|error| refused(port, &error))?;
    if let Some(rs485) = &settings.rs485 {
        uart::set_rs485(&open, rs485).map_err(|error| SourceError::Refused {
            what: port.to_owned(),
            cause: format!("its driver does not switch the direction of an RS-485 line ({error})"),
            hint: "leave `rs485` out where the adapter switches by itself".to_owned(),
        })?;
    }
    if settings.low_latency {
        if let Err(error) = uart::set_low_latency(&open) {
            tracing::warn!("`low_latency` is not possible on {port}, whose driver says: {error}");
        }
    }
    Ok(open)
}

/// What it means that an open `port` failed, or, without an error, gave its end.
pub(super) fn gone(port: &str, error: Option<&io::Error>) -> SourceError {
    let cause = match error.map(|error| (error.raw_os_error(), error)) {
        None | Some((Some(libc::EIO | libc::ENXIO | libc::ENODEV), _)) => "it was unplugged".to_owned(),
        Some((_, error)) => error.to_string(),
    };
    SourceError::Gone { what: port.to_owned(), cause }
}

/// What the system says of a file that is no terminal device.
const NO_PORT: [&str; 2] = ["not a typewriter", "inappropriate ioctl for device"];

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
        // What the C library calls ENOTTY.
        _ if NO_PORT.iter().any(|words| error.description.eq_ignore_ascii_case(words)) => {
            ("it is no serial port".to_owned(), "check that `port` names one".to_owned())
        }
        _ => (
            error.description.to_lowercase(),
            "check that `port` names a serial port and that it can do these settings".to_owned(),
        ),
    };
    SourceError::Refused { what, cause, hint }
}

//! Where readings come from. This file is the contract; a file or a folder is a protocol.
//!
//! A source opens, is asked for the next batch, and fails fast. It never retries, never sleeps to wait for better
//! times and never logs that it failed: `pipeline::collect` owns the pacing and says so once. What a source refuses
//! (a frame over its limit, text that is no JSON) is no failure: it counts it in its [`Stats`] and goes on.

mod allow;
pub mod coap;
pub mod decode;
mod dial;
mod excerpt;
mod frameless;
pub mod framing;
mod listen;
pub mod modbus;
pub mod poll;
mod port;
mod scale;
pub mod serial;
pub mod simulated;
mod stats;
mod stream;
pub mod tap;
pub mod tcp;
mod uart;

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::model::Readings;

pub use allow::Network;
pub use stats::{Refusal, Stats};
pub use tap::Tap;

/// What a source may need from the house.
#[derive(Clone, Debug)]
pub struct Context {
    /// The source's name: the key of its table.
    pub name: Arc<str>,
    /// For the stamp of arrival.
    pub clock: Clock,
    /// Where it counts.
    pub stats: Arc<Stats>,
    /// What it remembers of the requests that it took before it was opened.
    pub memory: coap::Memory,
    /// The lines on which several sources take turns.
    pub ports: modbus::Ports,
}

impl Context {
    /// Whom a source tells its frames, and what came of them, where somebody looks on.
    #[must_use]
    pub fn tap(&self) -> &Tap {
        self.stats.tap()
    }
}

/// What one look at a source brought.
#[derive(Debug)]
pub struct Batch {
    /// The readings, in order of arrival.
    pub readings: Readings,
    /// Where a device waits for an answer: told once its readings are in the channel, or that they are not.
    pub receipt: Option<oneshot::Sender<Receipt>>,
}

/// The answer to a device that waits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The readings are in the channel.
    Accepted,
    /// The channel is full: try again later.
    Busy,
    /// They are only looked at, by a tap where no weir runs: try again later.
    OnlyShown,
}

/// Why a source has to be opened again.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What it reads from is not there, or not yet.
    #[error("{what} is not there: {hint}")]
    Missing {
        /// A port or an address.
        what: String,
        /// What to look at.
        hint: String,
    },
    /// It was there and went away.
    #[error("{what} went away: {cause}")]
    Gone {
        /// A port or an address.
        what: String,
        /// What the system said.
        cause: String,
    },
    /// The system refuses it.
    #[error("cannot open {what}: {cause}: {hint}")]
    Refused {
        /// A port or an address.
        what: String,
        /// What the system said.
        cause: String,
        /// What to do about it.
        hint: String,
    },
}

/// A place that readings come from.
///
/// `open` and `next` fail fast. `next` is cancel-safe: where its future is dropped, no reading is lost. An error of
/// either means that the source is dropped and opened again, after a pause that the caller chooses.
pub trait Source: Sized {
    /// Its table in the configuration.
    type Config;

    /// Opens it.
    fn open(config: &Self::Config, context: &Context) -> impl Future<Output = Result<Self, SourceError>>;

    /// Waits for readings. A batch may be empty (all its frames were refused).
    fn next(&mut self) -> impl Future<Output = Result<Batch, SourceError>>;
}

/// `[sources.NAME]`, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// CoAP devices that send.
    CoapServer(coap::Config),
    /// Devices that are asked.
    Modbus(modbus::Config),
    /// A serial line.
    Serial(Box<serial::Config>),
    /// Simulated sensors.
    Simulated(simulated::Config),
    /// Devices that connect by TCP, or one that is dialled.
    Tcp(tcp::Config),
}

impl Config {
    /// The values that `type` takes.
    pub const TYPES: &[&str] = &["coap_server", "modbus", "serial", "simulated", "tcp"];

    /// Reads the rest of the table of a source whose `type` is `kind`; `None` where there is no such type.
    ///
    /// # Errors
    /// As the deserializer says.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, rest: D) -> Option<Result<Self, D::Error>> {
        Some(match kind {
            "coap_server" => coap::Config::deserialize(rest).map(Self::CoapServer),
            "modbus" => modbus::Config::deserialize(rest).map(Self::Modbus),
            "serial" => serial::Config::deserialize(rest).map(Box::new).map(Self::Serial),
            "simulated" => simulated::Config::deserialize(rest).map(Self::Simulated),
            "tcp" => tcp::Config::deserialize(rest).map(Self::Tcp),
            _ => return None,
        })
    }

    /// What is wrong across keys, as (key, what and what to do). The key may be a path: `registers.3.unit_id`.
    #[must_use]
    pub fn problems(&self) -> Vec<(Cow<'static, str>, String)> {
        let problems = match self {
            Self::CoapServer(config) => config.problems(),
            Self::Modbus(config) => return config.problems(),
            Self::Serial(config) => config.problems(),
            Self::Simulated(config) => config.problems(),
            Self::Tcp(config) => config.problems(),
        };
        problems.into_iter().map(|(key, text)| (key.into(), text)).collect()
    }

    /// The key by which both ask the machine for something that it has but once.
    #[must_use]
    pub fn clash(&self, other: &Self) -> Option<&'static str> {
        match (self, other) {
            (Self::CoapServer(one), Self::CoapServer(other)) => one.clashes(other).then_some("listen"),
            (Self::Serial(one), Self::Serial(other)) => (one.port == other.port).then_some("port"),
            (Self::Tcp(one), Self::Tcp(other)) => one.clashes(other).then_some("listen"),
            (Self::Serial(one), Self::Modbus(other)) | (Self::Modbus(other), Self::Serial(one)) => {
                (other.port.as_ref() == Some(&one.port)).then_some("port")
            }
            _ => None,
        }
    }

    /// The key in which they differ though they share a line that has it but once.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Option<&'static str> {
        match (self, other) {
            (Self::Modbus(one), Self::Modbus(other)) => one.differs(other),
            _ => None,
        }
    }

    /// What both read of one device, where both are on one line and call it differently: at which key, and what.
    #[must_use]
    pub fn reads_as_well(
        &self,
        name: &str,
        other: &Self,
        other_name: &str,
    ) -> Option<(&'static str, String)> {
        match (self, other) {
            (Self::Modbus(one), Self::Modbus(other)) => one.reads_as_well(name, other, other_name),
            _ => None,
        }
    }

    /// What to look at where nothing comes in.
    #[must_use]
    pub fn where_to_look(&self) -> &'static str {
        match self {
            Self::CoapServer(_) => {
                "check that the devices send to this address and port, that `allow` has them, and the firewall"
            }
            Self::Modbus(_) => {
                "check the wiring (swapped A and B, a missing ground or resistor at the line's ends), `baud`, `parity` and `unit_id`"
            }
            Self::Serial(_) => serial::WHERE_TO_LOOK,
            Self::Simulated(_) => "check `every`",
            Self::Tcp(config) => config.where_to_look(),
        }
    }

    /// What is not there yet and may come later, and what is hardly meant so, as (key, what).
    #[must_use]
    pub fn absent(&self) -> Vec<(Cow<'static, str>, String)> {
        let absent = match self {
            Self::CoapServer(config) => config.absent(),
            Self::Modbus(config) => return config.absent(),
            Self::Serial(config) => config.absent(),
            Self::Simulated(_) => Vec::new(),
            Self::Tcp(config) => config.absent(),
        };
        absent.into_iter().map(|(key, text)| (key.into(), text)).collect()
    }

    /// What of its files is there and not fit for use until somebody mends it, as (key, what and what to do). It opens all
    /// the same, as soon as it can.
    #[must_use]
    pub fn unfit(&self) -> Vec<(Cow<'static, str>, String)> {
        match self {
            Self::Modbus(config) => config.unfit(),
            Self::Tcp(config) => config.unfit().into_iter().map(|(key, text)| (key.into(), text)).collect(),
            Self::CoapServer(_) | Self::Serial(_) | Self::Simulated(_) => Vec::new(),
        }
    }
}

/// Any source, open.
#[derive(Debug)]
pub enum AnySource {
    /// CoAP devices that send.
    CoapServer(Box<coap::Server>),
    /// Devices that are asked.
    Modbus(modbus::Modbus),
    /// A serial line.
    Serial(Box<serial::Serial>),
    /// Simulated sensors.
    Simulated(simulated::Simulated),
    /// Devices that connect by TCP, or one that is dialled.
    Tcp(tcp::Tcp),
}

impl Source for AnySource {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        Ok(match config {
            Config::CoapServer(config) => {
                Self::CoapServer(Box::new(coap::Server::open(config, context).await?))
            }
            Config::Modbus(config) => Self::Modbus(modbus::Modbus::open(config, context).await?),
            Config::Serial(config) => Self::Serial(Box::new(serial::Serial::open(config, context).await?)),
            Config::Simulated(config) => Self::Simulated(simulated::Simulated::open(config, context).await?),
            Config::Tcp(config) => Self::Tcp(tcp::Tcp::open(config, context).await?),
        })
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        match self {
            Self::CoapServer(source) => source.next().await,
            Self::Modbus(source) => source.next().await,
            Self::Serial(source) => source.next().await,
            Self::Simulated(source) => source.next().await,
            Self::Tcp(source) => source.next().await,
        }
    }
}

//! What the table of a Modbus source says. `problems` has what may be wrong with it, `doubtful` what is told and does not
//! keep it from running.

mod doubtful;
mod problems;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::file::Map;
use super::register::Register;
use crate::sources::SourceError;
use crate::sources::port::{self, DataBits, LineParity, Parity, Settings, StopBits};
use crate::sources::uart::Rs485;
use crate::units;

/// A source of `type = "modbus"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The serial line's device file; or else `address`.
    pub port: Option<Box<str>>,
    /// A gateway or a device on the network, `host:port`.
    pub address: Option<Box<str>>,
    /// What goes over the connection to `address`: by default Modbus TCP.
    framing: Option<Framing>,
    baud: Option<u32>,
    #[serde(default, deserialize_with = "data_bits")]
    data_bits: Option<DataBits>,
    #[serde(default, deserialize_with = "parity")]
    parity: Option<LineParity>,
    #[serde(default, deserialize_with = "stop_bits")]
    stop_bits: Option<StopBits>,
    /// As for a serial source.
    #[serde(default)]
    low_latency: bool,
    /// As for a serial source.
    rs485: Option<Rs485>,
    /// How often each register is read: 10 ms to a day.
    #[serde(default = "ten_seconds", deserialize_with = "units::duration")]
    pub every: Duration,
    /// How long a device may take to begin its answer: 10 ms to a minute.
    #[serde(default = "one_second", deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// How often a request is sent again that had no answer, 0 to 10.
    #[serde(default = "two")]
    pub retries: u8,
    /// How long the line rests between an answer and the next request, where it should be longer than the
    /// specification's silence: at most 10 s.
    #[serde(default, deserialize_with = "units::duration")]
    pub pause: Duration,
    /// How many registers, or bits, that nobody asked for may be read to spare a request.
    #[serde(default)]
    pub max_gap: u16,
    /// Who is read by the registers that name no device of their own.
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    registers: Vec<Register>,
    registers_file: Option<Map>,
}

/// An entry of `devices`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    device: Box<str>,
    unit_id: u8,
    #[serde(default, deserialize_with = "some_duration")]
    timeout: Option<Duration>,
}

/// What goes over a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Framing {
    /// Modbus TCP, whose answers name their request.
    #[default]
    Tcp,
    /// The frames of a serial line, as a plain converter passes them on.
    Rtu,
}

fn data_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DataBits>, D::Error> {
    port::data_bits(deserializer).map(Some)
}

fn parity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LineParity>, D::Error> {
    Parity::deserialize(deserializer).map(Some)
}

fn stop_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StopBits>, D::Error> {
    port::stop_bits(deserializer).map(Some)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration(deserializer).map(Some)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn two() -> u8 {
    2
}

/// The most registers of one source, over all its devices.
pub const REGISTERS_MAX: usize = 10_000;

/// What a source speaks over.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// A serial line.
    Serial(Box<str>, Settings),
    /// A connection.
    Network(Box<str>, Framing),
}

/// A device and all that is read of it.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) device: Box<str>,
    pub(super) unit_id: u8,
    pub(super) timeout: Duration,
    pub(super) registers: Vec<Arc<Register>>,
}

impl Config {
    /// What it speaks over; `None` where it does not say so.
    pub(super) fn target(&self) -> Option<Target> {
        match (&self.port, &self.address) {
            (Some(port), _) => Some(Target::Serial(port.clone(), self.settings())),
            (None, Some(address)) => Some(Target::Network(address.clone(), self.framing.unwrap_or_default())),
            (None, None) => None,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            baud: self.baud.unwrap_or_else(port::baud),
            data_bits: self.data_bits.unwrap_or_else(port::eight),
            parity: self.parity.unwrap_or(LineParity::Even),
            stop_bits: self.stop_bits.unwrap_or_else(port::one),
            flow_control: port::FlowControl::none(),
            low_latency: self.low_latency,
            rs485: self.rs485,
        }
    }

    /// The devices in `devices` that have this unit id.
    fn listed(&self, unit_id: u8) -> impl Iterator<Item = &str> {
        self.devices.iter().filter(move |device| device.unit_id == unit_id).map(|device| &*device.device)
    }

    /// Each device with its registers; a unit id without a name is that of the device in `devices` that has it, and
    /// `source` names those that have no other name.
    pub(super) fn units(&self, source: &str) -> Vec<Unit> {
        let unit = |device: &str, unit_id, timeout| Unit {
            device: device.into(),
            unit_id,
            timeout,
            registers: Vec::new(),
        };
        let mut units: Vec<Unit> = self
            .devices
            .iter()
            .map(|device| unit(&device.device, device.unit_id, device.timeout.unwrap_or(self.timeout)))
            .collect();
        let listed = units.len();
        let file = self.registers_file.iter().flat_map(|map| &map.registers);
        for register in file.chain(&self.registers) {
            let shared = Arc::new(register.clone());
            match (&register.device, register.unit_id) {
                (None, None) => {
                    units[..listed].iter_mut().for_each(|unit| unit.registers.push(shared.clone()));
                }
                (device, unit_id) => {
                    let listed = || unit_id.and_then(|unit_id| self.listed(unit_id).next());
                    let name = device.as_deref().or_else(listed).unwrap_or(source);
                    let known = |unit: &&mut Unit| {
                        &*unit.device == name && unit_id.is_none_or(|unit_id| unit_id == unit.unit_id)
                    };
                    match (units.iter_mut().find(known), unit_id) {
                        (Some(unit), _) => unit.registers.push(shared),
                        (None, Some(unit_id)) => {
                            let mut new = unit(name, unit_id, self.timeout);
                            new.registers.push(shared);
                            units.push(new);
                        }
                        // `problems` has said so.
                        (None, None) => {}
                    }
                }
            }
        }
        units.retain(|unit| !unit.registers.is_empty());
        units
    }

    /// The same with a map that was not there or unfit when the configuration was read, if it is right now.
    pub(super) fn with_map(&self) -> Result<Self, SourceError> {
        let waits = |map: &&Map| map.is_absent || !self.unfit().is_empty();
        let Some(map) = self.registers_file.as_ref().filter(waits).map(Map::again) else {
            return Ok(self.clone());
        };
        let what = map.path().to_owned();
        if map.is_absent {
            return Err(SourceError::Missing {
                what,
                hint: "put the map that `registers_file` names there".to_owned(),
            });
        }
        let complete = Self { registers_file: Some(map), ..self.clone() };
        match complete.unfit().into_iter().next() {
            None => Ok(complete),
            Some((_, cause)) => {
                let hint = "`weir check` says all that is wrong".to_owned();
                Err(SourceError::Refused { what, cause, hint })
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! What the table of a Modbus source says.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::file::Map;
use super::register::{EVERY_MAX, EVERY_MIN, Register};
use crate::model::{NAME_MAX, is_name};
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

const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(10);
const RETRIES_MAX: u8 = 10;

/// What a source speaks over.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// A serial line.
    Serial(Box<str>, Settings),
    /// A connection.
    Network(Box<str>, Framing),
}

/// What is wrong across keys: where, as a path such as `registers.3.unit_id`, and what.
type Problem = (Cow<'static, str>, String);

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

    pub(in crate::sources) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.problems_of_line();
        let mut within = |key, sound: bool, text: &str| {
            if !sound {
                problems.push((key, text.to_owned()));
            }
        };
        within(
            "every",
            (EVERY_MIN..=EVERY_MAX).contains(&self.every),
            "`every` must lie within 10ms and 1day",
        );
        let timeouts = TIMEOUT_MIN..=TIMEOUT_MAX;
        within("timeout", timeouts.contains(&self.timeout), "`timeout` must lie within 10ms and 1m");
        within("retries", self.retries <= RETRIES_MAX, "`retries` must be at most 10");
        within("pause", self.pause <= PAUSE_MAX, "`pause` must be at most 10s");
        within("max_gap", self.max_gap <= 2000, "`max_gap` must be at most 2000: no request reads more");
        let file = self.registers_file.iter().flat_map(|map| &map.registers);
        if (126..=2000).contains(&self.max_gap) && file.chain(&self.registers).any(|one| !one.table.is_bits())
        {
            let text =
                "`max_gap` must be at most 125 where registers are read: no request reads more of them";
            problems.push(("max_gap", text.to_owned()));
        }
        let problems = problems.into_iter().map(|(key, text)| (key.into(), text));
        problems.chain(self.problems_of_devices()).collect()
    }

    fn problems_of_line(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match (&self.port, &self.address) {
            (None, None) => problems.push((
                "type",
                "a source of type \"modbus\" needs a `port`, such as \"/dev/ttyUSB0\", or an `address`, such as \"192.168.10.7:502\""
                    .to_owned(),
            )),
            (Some(_), Some(_)) => problems.push(("address", "`port` and `address` exclude one another".to_owned())),
            (Some(port), None) if port.is_empty() => problems
                .push(("port", "`port` is empty: write the device file, such as \"/dev/ttyUSB0\"".to_owned())),
            (Some(_), None) => problems.extend(self.settings().problems()),
            (None, Some(address)) => {
                let parts = address.rsplit_once(':');
                if !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)) {
                    let text = format!("`address` \"{address}\" is no host and port, such as \"192.168.10.7:502\"");
                    problems.push(("address", text));
                }
            }
        }
        if self.data_bits.is_some_and(|bits| bits != port::eight()) {
            problems.push(("data_bits", "`data_bits` must be 8 for Modbus RTU".to_owned()));
        }
        if self.address.is_some() {
            let keys = [
                ("baud", self.baud.is_some()),
                ("data_bits", self.data_bits.is_some()),
                ("parity", self.parity.is_some()),
                ("stop_bits", self.stop_bits.is_some()),
                ("low_latency", self.low_latency),
                ("rs485", self.rs485.is_some()),
            ];
            for (key, _) in keys.into_iter().filter(|(_, written)| *written) {
                problems
                    .push((key, format!("`{key}` is for a serial `port`, and this source has an `address`")));
            }
        } else if self.framing.is_some() {
            problems.push((
                "framing",
                "`framing` is for an `address`: on a serial line it is always RTU".to_owned(),
            ));
        }
        problems
    }

    fn problems_of_devices(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        if let Some(map) = &self.registers_file {
            problems.extend(
                map.problems
                    .iter()
                    .map(|problem| ("registers_file".into(), format!("`registers_file`: {problem}"))),
            );
            if self.devices.is_empty() {
                let text =
                    "`registers_file` needs `devices`, such as [{ device = \"meter-1\", unit_id = 1 }]";
                problems.push(("registers_file".into(), text.to_owned()));
            }
        }
        let mut names = HashSet::new();
        for (index, Device { device, unit_id, timeout }) in self.devices.iter().enumerate() {
            let at = |key: &str| Cow::from(format!("devices.{index}.{key}"));
            if !is_name(device) {
                problems.push((at("device"), format!("`device` must have 1 to {NAME_MAX} bytes")));
            }
            if !names.insert(device) {
                problems.push((at("device"), format!("`device` `{device}` is there twice")));
            }
            if timeout.is_some_and(|timeout| !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout)) {
                problems.push((
                    at("timeout"),
                    format!("`timeout` of device `{device}` must lie within 10ms and 1m"),
                ));
            }
            problems.extend(self.problem_of_unit(*unit_id).map(|text| (at("unit_id"), text)));
        }
        for (index, register) in self.registers.iter().enumerate() {
            let metric = &register.metric;
            let at = |key: &str| Cow::from(format!("registers.{index}.{key}"));
            problems.extend(
                register.unit_id.and_then(|id| self.problem_of_unit(id)).map(|text| (at("unit_id"), text)),
            );
            let problem = match (&register.device, register.unit_id) {
                (None, None) if self.devices.is_empty() => {
                    let text =
                        format!("register `{metric}` needs a `unit_id`, or the source needs `devices`");
                    (format!("registers.{index}").into(), text)
                }
                (None, Some(unit_id)) if self.listed(unit_id).nth(1).is_some() => {
                    let all: Vec<_> = self.listed(unit_id).map(|device| format!("`{device}`")).collect();
                    let all = all.join(" and ");
                    let text =
                        format!("register `{metric}` needs a `device`: {all} have `unit_id` {unit_id}");
                    (at("unit_id"), text)
                }
                (Some(device), None) if !names.contains(device) => (
                    at("device"),
                    format!("register `{metric}` needs a `unit_id`: `device` `{device}` is not in `devices`"),
                ),
                _ => continue,
            };
            problems.push(problem);
        }
        // The source's name is not known here, and no device can have an empty one.
        let units = self.units("");
        let is_absent = self.registers_file.as_ref().is_some_and(|map| map.is_absent);
        let mut series = HashSet::new();
        for (unit, register) in
            units.iter().flat_map(|unit| unit.registers.iter().map(move |register| (unit, register)))
        {
            if !series.insert((&unit.device, &register.metric)) {
                let device = if unit.device.is_empty() { "the source" } else { &unit.device };
                // The last of them, as far as the table has it.
                let written = self.registers.iter().rposition(|written| *written == **register);
                let at = written
                    .map_or("registers_file".into(), |index| format!("registers.{index}.metric").into());
                problems.push((at, format!("`metric` `{}` of {device} is there twice", register.metric)));
            }
        }
        if series.len() > REGISTERS_MAX {
            problems.push((
                "registers".into(),
                format!("{} registers in all: at most {REGISTERS_MAX} are possible", series.len()),
            ));
        }
        if units.is_empty() && problems.is_empty() && !is_absent {
            let text = "a source of type \"modbus\" needs `registers`, or a `registers_file` with `devices`";
            problems.push(("type".into(), text.to_owned()));
        }
        problems
    }

    /// Modbus TCP takes any unit id; on a serial line 0 is everybody's and 248 to 255 are nobody's (Serial Line V1.02,
    /// section 2.2).
    fn problem_of_unit(&self, unit_id: u8) -> Option<String> {
        let serial = self.port.is_some() || self.framing == Some(Framing::Rtu);
        (serial && !(1..=247).contains(&unit_id))
            .then(|| format!("`unit_id` {unit_id} must lie within 1 and 247"))
    }

    pub(in crate::sources) fn absent(&self) -> Vec<(&'static str, String)> {
        let mut absent = self.port.as_deref().map(port::absent).unwrap_or_default();
        if let Some(map) = self.registers_file.as_ref().filter(|map| map.is_absent) {
            absent.push(("registers_file", format!("`{}` is not there: weir waits for it", map.path())));
        }
        if !self.devices.is_empty() {
            absent.extend(self.registers.iter().filter_map(|register| self.nameless(register)));
        }
        absent
    }

    /// What becomes of a register that names a unit and no device, where `devices` does not have that unit.
    fn nameless(&self, register: &Register) -> Option<(&'static str, String)> {
        let unit_id = register
            .unit_id
            .filter(|unit_id| register.device.is_none() && self.listed(*unit_id).next().is_none())?;
        let text = format!(
            "register `{}` names no `device`, and `unit_id` {unit_id} is not in `devices`: its device is called as the source",
            register.metric
        );
        Some(("registers", text))
    }

    /// The same with a map that was not there when the configuration was read, if it is there now.
    pub(super) fn with_map(&self) -> Result<Self, SourceError> {
        let Some(map) = self.registers_file.as_ref().filter(|map| map.is_absent).map(Map::again) else {
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
        match complete.problems_of_devices().into_iter().next() {
            None => Ok(complete),
            Some((_, cause)) => {
                let hint = "`weir check` says all that is wrong".to_owned();
                Err(SourceError::Refused { what, cause, hint })
            }
        }
    }

    /// The key in which two sources differ that are on one line, which cannot be.
    pub(in crate::sources) fn differs(&self, other: &Self) -> Option<&'static str> {
        match (self.target()?, other.target()?) {
            (Target::Serial(one, ours), Target::Serial(other, theirs)) if one == other => {
                let keys = [
                    ("baud", ours.baud != theirs.baud),
                    ("parity", ours.parity != theirs.parity),
                    ("stop_bits", ours.stop_bits != theirs.stop_bits),
                    ("low_latency", ours.low_latency != theirs.low_latency),
                    ("rs485", ours.rs485 != theirs.rs485),
                ];
                keys.into_iter().find(|(_, differ)| *differ).map(|(key, _)| key)
            }
            (Target::Network(one, ours), Target::Network(other, theirs)) if one == other => {
                (ours != theirs).then_some("framing")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

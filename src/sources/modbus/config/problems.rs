//! What is wrong with the table of a Modbus source, key by key and across keys.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use super::{Config, Device, Framing, REGISTERS_MAX, Target};
use crate::model::{NAME_MAX, is_name};
use crate::sources::modbus::bus::known_as;
use crate::sources::modbus::file::Map;
use crate::sources::modbus::register::{EVERY_MAX, EVERY_MIN};
use crate::sources::port;

const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(10);
const RETRIES_MAX: u8 = 10;

/// What is wrong across keys: where, as a path such as `registers.3.unit_id`, and what.
pub(super) type Problem = (Cow<'static, str>, String);

impl Config {
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
        let problems = problems.into_iter().map(|(key, text)| (key.into(), text));
        problems.chain(self.without_map().problems_of_devices()).collect()
    }

    /// What is wrong with the map in `registers_file`, in itself and with what else is written, where there is one.
    pub(in crate::sources) fn unfit(&self) -> Vec<Problem> {
        let Some(map) = self.registers_file.as_ref().filter(|map| !map.is_absent) else { return Vec::new() };
        let told = |text: &String| ("registers_file".into(), format!("`registers_file`: {text}"));
        let mut unfit: Vec<Problem> = map.problems.iter().map(told).collect();
        let known = self.without_map().problems_of_devices();
        unfit.extend(self.problems_of_devices().into_iter().filter(|problem| !known.contains(problem)));
        unfit
    }

    /// The same before its map is there.
    fn without_map(&self) -> Self {
        Self { registers_file: self.registers_file.as_ref().map(Map::absent), ..self.clone() }
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
        if self.registers_file.is_some() && self.devices.is_empty() {
            let text = "`registers_file` needs `devices`, such as [{ device = \"meter-1\", unit_id = 1 }]";
            problems.push(("registers_file".into(), text.to_owned()));
        }
        let file = self.registers_file.iter().flat_map(|map| &map.registers);
        if (126..=2000).contains(&self.max_gap) && file.chain(&self.registers).any(|one| !one.table.is_bits())
        {
            let text =
                "`max_gap` must be at most 125 where registers are read: no request reads more of them";
            problems.push(("max_gap".into(), text.to_owned()));
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
        let waits = self.registers_file.as_ref().is_some_and(|map| map.is_absent || !map.problems.is_empty());
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
        if units.is_empty() && problems.is_empty() && !waits {
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

    /// The key in which two sources differ that are on one line, which cannot be.
    pub(in crate::sources) fn differs(&self, other: &Self) -> Option<&'static str> {
        match (known_as(&self.target()?), known_as(&other.target()?)) {
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

//! What the table of a Modbus source waits for, and what in it is hardly meant so: it runs all the same.

use std::collections::{BTreeMap, HashSet};

use super::problems::Problem;
use super::{Config, Unit};
use crate::sources::modbus::bus::{is_one_line, known_as};
use crate::sources::modbus::pdu::Table;
use crate::sources::modbus::register::Register;
use crate::sources::port;

impl Config {
    pub(in crate::sources) fn absent(&self) -> Vec<Problem> {
        let port = self.port.as_deref().map(port::absent).unwrap_or_default();
        let mut told: Vec<Problem> = port.into_iter().map(|(key, text)| (key.into(), text)).collect();
        if let Some(map) = self.registers_file.as_ref().filter(|map| map.is_absent) {
            told.push(("registers_file".into(), format!("`{}` is not there: weir waits for it", map.path())));
        }
        told.extend(self.nameless());
        told.extend(self.one_as_two());
        told.extend(self.as_in_a_manual());
        told
    }

    /// What becomes of registers that name a unit and no device, where `devices` does not have that unit. One of each
    /// unit is told.
    fn nameless(&self) -> Vec<Problem> {
        let (mut units, mut told) = (HashSet::new(), Vec::new());
        for (index, register) in self.registers.iter().enumerate() {
            let nameless = |unit_id: &u8| register.device.is_none() && self.listed(*unit_id).next().is_none();
            let Some(unit_id) = register.unit_id.filter(nameless).filter(|unit_id| units.insert(*unit_id))
            else {
                continue;
            };
            let metric = &register.metric;
            let list =
                if self.devices.is_empty() { "there are no `devices`" } else { "it is not in `devices`" };
            let text = format!(
                "register `{metric}` of `unit_id` {unit_id} names no `device`, and {list}: its device is called as the source"
            );
            told.push((format!("registers.{index}.unit_id").into(), text));
        }
        told
    }

    /// Two devices that are one.
    fn one_as_two(&self) -> Option<Problem> {
        // The source's name is not known here, and no device can have an empty one.
        let units = self.units("");
        let (one, other) = asked_alike(&units, |one, other| one != other)?;
        let unit_id = other.unit_id;
        let listed = self.devices.iter().position(|device| device.device == other.device);
        let written = || {
            let is_it = |register: &Register| {
                register.unit_id == Some(unit_id)
                    && *register.device.as_deref().unwrap_or_default() == *other.device
            };
            self.registers.iter().position(is_it)
        };
        let at = match (listed, written()) {
            (Some(index), _) => format!("devices.{index}.unit_id").into(),
            (None, Some(index)) => format!("registers.{index}.unit_id").into(),
            (None, None) => "registers".into(),
        };
        let [one, other] = [one, other].map(|unit| match &*unit.device {
            "" => "the source's own".to_owned(),
            device => format!("`{device}`"),
        });
        let text = format!(
            "{one} and {other} are one device, as both have `unit_id` {unit_id} on one line: its values come under two names"
        );
        Some((at, text))
    }

    /// As within one source, where `other` is on the same line: at which key, and what.
    pub(in crate::sources) fn reads_as_well(
        &self,
        name: &str,
        other: &Self,
        other_name: &str,
    ) -> Option<(&'static str, String)> {
        if !is_one_line(&known_as(&self.target()?), &known_as(&other.target()?)) {
            return None;
        }
        let mut units = self.units(name);
        let ours = units.len();
        units.extend(other.units(other_name));
        let (one, two) = asked_alike(&units, |one, other| (one < ours) != (other < ours))?;
        let text = format!(
            "sources {name} and {other_name} read one device, `unit_id` {} on one line, as `{}` and as `{}`: its values come \
             under two names",
            one.unit_id, one.device, two.device
        );
        Some((if self.port.is_some() { "port" } else { "address" }, text))
    }

    /// The first register whose address looks like its number in a manual, which begins with its table.
    fn as_in_a_manual(&self) -> Option<Problem> {
        let written = self.registers.iter().enumerate();
        let written =
            written.map(|(index, register)| (format!("registers.{index}.address").into(), register));
        let file = self.registers_file.iter().flat_map(|map| &map.registers);
        written.chain(file.map(|register| ("registers_file".into(), register))).find_map(|(at, register)| {
            let Register { metric, address, .. } = register;
            let (table, first) = match (register.table, *address) {
                (Table::Discrete, 10_001..=19_999) => (Table::Discrete, 10_001),
                (Table::Holding | Table::Input, 30_001..=39_999) => (Table::Input, 30_001),
                (Table::Holding | Table::Input, 40_001..=49_999) => (Table::Holding, 40_001),
                _ => return None,
            };
            let text = format!(
                "register `{metric}` has `address` {address}: if the manual calls it {address}, write table = \"{}\", address = \
                 {}; if that is its address on the wire, all is well",
                table.name(),
                address - first
            );
            Some((at, text))
        })
    }
}

/// The first two of `units` that ask one device for one value, among those whose places `may_be`.
fn asked_alike(units: &[Unit], may_be: impl Fn(usize, usize) -> bool) -> Option<(&Unit, &Unit)> {
    let mut asked: BTreeMap<_, Vec<(usize, &Register)>> = BTreeMap::new();
    for (place, unit) in units.iter().enumerate() {
        for register in &unit.registers {
            let known = asked.entry((unit.unit_id, register.table, register.address)).or_default();
            let same = known.iter().find(|(other, same)| may_be(*other, place) && same.is_read_as(register));
            if let Some((other, _)) = same {
                return Some((&units[*other], unit));
            }
            known.push((place, register));
        }
    }
    None
}

//! Modbus devices by pymodbus, on a serial line or on a port of loopback.

use serde_json::Value;

use super::pki::Result;
use super::process::{Output, Process};
use super::python;

/// Devices that answer as `tests/support/modbus_slave.py` is told. They are gone with this handle.
pub(crate) struct Slave(Process);

/// A request that reached them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    /// In seconds.
    pub(crate) at: f64,
    pub(crate) unit: u8,
    pub(crate) function: u8,
    pub(crate) address: u16,
    pub(crate) count: u16,
}

impl Slave {
    pub(crate) fn start(told: &Value) -> Result<Self> {
        let mut command = python::script("modbus_slave.py")?;
        let process = Process::start(command.arg(told.to_string()), Output::Stdout)?;
        process.wait("the devices are there", |lines| lines.iter().any(|line| line == "ready"))?;
        Ok(Self(process))
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lines().iter().filter_map(|line| seen(line)).collect()
    }

    /// Waits until the requests are enough.
    pub(crate) fn wait(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) -> Result<Vec<Seen>> {
        self.0.wait(what, |lines| enough(&lines.iter().filter_map(|line| seen(line)).collect::<Vec<_>>()))?;
        Ok(self.seen())
    }
}

fn seen(line: &str) -> Option<Seen> {
    let mut words = line.split(' ');
    let at = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<u16>().ok();
    let (unit, function) = (u8::try_from(number()?).ok()?, u8::try_from(number()?).ok()?);
    Some(Seen { at, unit, function, address: number()?, count: number()? })
}

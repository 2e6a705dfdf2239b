//! aiocoap's client.

use serde_json::Value;

use super::pki::Result;
use super::process::{Output, Process};
use super::python;

/// Requests on their way, as `aiocoap_client.py` takes them. It is killed with this handle.
pub(crate) struct Aiocoap {
    process: Process,
    requests: usize,
}

impl Aiocoap {
    /// Sends all of them at once.
    pub(crate) fn start(requests: &[Value]) -> Result<Self> {
        let mut command = python::script("aiocoap_client.py")?;
        command.arg(serde_json::to_string(requests)?);
        Ok(Self { process: Process::start(&mut command, Output::Stdout)?, requests: requests.len() })
    }

    /// The codes that they were answered with, in the same order.
    pub(crate) fn codes(self) -> Result<Vec<String>> {
        self.process.wait("aiocoap's client has its answers", |lines| lines.len() >= self.requests)?;
        Ok(self.process.lines())
    }
}

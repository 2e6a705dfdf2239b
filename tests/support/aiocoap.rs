//! aiocoap's client, in the Python environment that `tests/all` makes beside the build.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::pki::Result;
use super::process::{Output, Process};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/aiocoap_client.py");

/// Requests on their way, as `aiocoap_client.py` takes them. It is killed with this handle.
pub(crate) struct Aiocoap {
    process: Process,
    requests: usize,
}

impl Aiocoap {
    /// Sends all of them at once.
    pub(crate) fn start(requests: &[Value]) -> Result<Self> {
        if !Path::new(PYTHON).exists() {
            let install = "`python3 -m venv target/python && target/python/bin/pip install -r tests/requirements.txt` \
                           in the project's directory (on Debian after `apt-get install python3-venv`)";
            return Err(format!("aiocoap is not installed: {install}; this test cannot do without").into());
        }
        let mut command = Command::new(PYTHON);
        command.arg(CLIENT).arg(serde_json::to_string(requests)?);
        Ok(Self { process: Process::start(&mut command, Output::Stdout)?, requests: requests.len() })
    }

    /// The codes that they were answered with, in the same order.
    pub(crate) fn codes(self) -> Result<Vec<String>> {
        self.process.wait("aiocoap's client has its answers", |lines| lines.len() >= self.requests)?;
        Ok(self.process.lines())
    }
}

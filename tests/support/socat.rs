//! Two pseudo-terminals that a real socat joins.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::pki::Result;
use super::process::{Output, Process};

/// What is written to `device` is read from `port`. It is killed with this handle.
pub(crate) struct Socat {
    _process: Process,
    device: PathBuf,
    port: PathBuf,
}

impl Socat {
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let (device, port) = (dir.join("device"), dir.join("port"));
        let end = |link: &Path| format!("pty,raw,echo=0,link={}", link.display());
        let mut command = Command::new("socat");
        command.args(["-d", "-d", &end(&device), &end(&port)]);
        let process = Process::start(&mut command, Output::Stderr)
            .map_err(|error| format!("{error}: is socat installed? `apt-get install socat`"))?;
        process.wait("socat joins them", |lines| {
            lines.iter().any(|line| line.contains("starting data transfer"))
        })?;
        Ok(Self { _process: process, device, port })
    }

    pub(crate) fn device(&self) -> &Path {
        &self.device
    }

    pub(crate) fn port(&self) -> &Path {
        &self.port
    }
}

//! A pseudo-terminal: the far end is the device that writes, the path is the port that weir reads.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// One terminal pair. Dropping it is pulling the plug.
#[derive(Debug)]
pub(crate) struct Pty {
    device: File,
    port: PathBuf,
}

impl Pty {
    /// A new pair, raw from the start: what is written before anybody reads is not echoed.
    pub(crate) fn open() -> io::Result<Self> {
        let device = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&device)?;
        unlockpt(&device)?;
        let mut termios = tcgetattr(&device)?;
        termios.make_raw();
        tcsetattr(&device, OptionalActions::Now, &termios)?;
        let port = OsString::from_vec(ptsname(&device, Vec::new())?.into_bytes()).into();
        Ok(Self { device: device.into(), port })
    }

    /// The path to open.
    pub(crate) fn port(&self) -> &Path {
        &self.port
    }
}

/// Blocks while the reader lags behind by more than the kernel's buffer.
impl Write for Pty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.device.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! A pseudo-terminal: the far end is the device that writes, the path is the port that weir reads.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// Opening the port must not make it this process's controlling terminal (`O_NOCTTY`).
const NOCTTY: i32 = rustix::fs::OFlags::NOCTTY.bits() as i32;

/// One terminal pair. Dropping it is pulling the plug.
#[derive(Debug)]
pub(crate) struct Pty {
    device: File,
    port: PathBuf,
    /// Held open, so that what is written while nobody reads waits in the kernel.
    held: File,
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
        let port: PathBuf = OsString::from_vec(ptsname(&device, Vec::new())?.into_bytes()).into();
        let held = File::options().read(true).write(true).custom_flags(NOCTTY).open(&port)?;
        Ok(Self { device: device.into(), port, held })
    }

    /// The path to open.
    pub(crate) fn port(&self) -> &Path {
        &self.port
    }

    /// The device's end once more, for a thread that writes.
    pub(crate) fn device(&self) -> io::Result<File> {
        self.device.try_clone()
    }

    /// Waits until everything that was written has been read. What the kernel is about to hand over it does not tell, so
    /// there must have been nothing for a while.
    pub(crate) fn wait_until_read(&self) -> io::Result<()> {
        let mut empty = 0;
        for _ in 0..6_000 {
            empty = if ioctl_fionread(&self.held)? == 0 { empty + 1 } else { 0 };
            if empty == 20 {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::ErrorKind::TimedOut.into())
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

//! Started, connected, and a sensor that says nothing.

use std::thread;

use crate::kernel::{self, Memory};
use crate::site::{Site, WINDOWS};
use crate::support::pki::Result;
use crate::{Extent, load, print};

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let site = Site::start(WINDOWS)?;
    let pid = site.agent.id()?;
    thread::sleep(extent.settle);
    let (cpu, wakeups) = (kernel::cpu(&pid.to_string())?, kernel::wakeups(pid)?);
    thread::sleep(extent.watch);
    let cpu = kernel::cpu(&pid.to_string())? - cpu;
    let wakeups = kernel::wakeups(pid)? - wakeups;
    load::print_memory("idle", &Memory::of(pid)?, "at most 8 MB");
    print(
        "idle: wake-ups a second",
        &format!("{:.2}", wakeups as f64 / extent.watch.as_secs_f64()),
        "at most 5",
    );
    let share = 100.0 * cpu.as_secs_f64() / extent.watch.as_secs_f64();
    print("idle: share of a processor", &format!("{share:.2} %"), "below 0.1 %");
    Ok(())
}

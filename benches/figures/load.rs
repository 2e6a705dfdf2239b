//! A steady stream of readings.

use crate::kernel::Memory;
use crate::site::{Site, WINDOWS};
use crate::support::pki::Result;
use crate::{Extent, mega, print};

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    for (rate, what, target) in
        [(1_000, "1,000 readings a second", "at most 10 MB"), (10_000, "10,000 readings a second", "")]
    {
        let mut site = Site::start(WINDOWS)?;
        site.write_for(extent.watch, rate)?;
        print_memory(what, &Memory::of(site.agent.id()?)?, target);
    }
    Ok(())
}

pub(crate) fn print_memory(when: &str, memory: &Memory, target: &str) {
    print(&format!("{when}: resident memory"), &mega(memory.resident), target);
    print("  at its peak", &mega(memory.peak), "");
    print("  with shared pages shared out", &mega(memory.proportional), "");
    print("  heap and stacks alone", &mega(memory.anonymous), "");
}

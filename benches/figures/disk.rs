//! Bytes written to the disk while the link is up and 1,000 readings a second come in.

use std::thread;

use crate::kernel::Written;
use crate::site::{Site, WINDOWS};
use crate::support::pki::Result;
use crate::{Extent, print};

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let durabilities = [("when_offline", "0 after the start"), ("always", "")];
    thread::scope(|scope| {
        let measuring = durabilities.map(|(durability, _)| scope.spawn(|| under(durability, extent)));
        for (measuring, (durability, target)) in measuring.into_iter().zip(durabilities) {
            let (start, then) = measuring.join().map_err(|_| "a measurement panicked")??;
            let minutes = extent.disk.as_secs_f64() / 60.0;
            print(&format!("{durability}: bytes written at the start"), &start.storage.to_string(), "");
            print(
                &format!("{durability}: bytes written in {minutes:.1} minutes then"),
                &then.storage.to_string(),
                target,
            );
            print("  bytes in calls of write and writev, the network's too", &then.calls.to_string(), "");
        }
        Ok(())
    })
}

/// What is written until the agent has settled, and then under load.
fn under(durability: &str, extent: &Extent) -> Result<(Written, Written)> {
    let mut site = Site::start(&format!("{WINDOWS}\n[buffer]\ndurability = '{durability}'\n"))?;
    let pid = site.agent.id()?;
    thread::sleep(extent.settle);
    let start = Written::by(pid)?;
    site.write_for(extent.disk, 1_000)?;
    Ok((start, Written::by(pid)? - start))
}

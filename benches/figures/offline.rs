//! What an outage of an hour costs the disk: bytes written, and the file's size, beside bare SQLite with the same bytes
//! and as many to a commit. The hour is that of a clock which runs as fast as the disk allows.

use std::fs;
use std::process;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weir::clock::Clock;
use weir::model::Timestamp;
use weir::outbox::{Config, Opened, Outbox};

use crate::backlog::window;
use crate::kernel::Written;
use crate::rows::{Columns, Rows};
use crate::support::pki::Result;
use crate::{Extent, mega, print, site};

/// What an outage has left.
struct Kept {
    written: u64,
    size: u64,
    commits: usize,
}

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    for devices in [10, 100, 1_000] {
        let count = devices * extent.windows;
        let rows: Vec<_> = (0..count).map(|number| window(number, devices).to_bytes()).collect();
        let stored: usize = rows.iter().map(Vec::len).sum();
        let agent = outage(devices, extent.windows)?;
        let grouping = count.div_ceil(agent.commits);
        let like = bare(&rows, grouping, Columns::All)?;
        let bare = bare(&rows, grouping, Columns::Bytes)?;
        let ratio = |of: u64, to: u64| format!("{:.2}", of as f64 / to as f64);
        let time = format!("{:.1} minutes offline", extent.windows as f64 / 6.0);
        print(&format!("{devices} devices, {time}: bytes written"), &mega(agent.written), "");
        print(&format!("  bare SQLite, {grouping} rows a commit"), &mega(bare.written), "");
        print("  agent to bare SQLite", &ratio(agent.written, bare.written), "at most 1.2");
        print("  agent to bare SQLite with ids and checksums", &ratio(agent.written, like.written), "");
        print(&format!("  bytes of {count} messages"), &mega(stored as u64), "");
        print("  file to what is stored in it", &ratio(agent.size, stored as u64), "at most 1.3");
        print("  bare SQLite's", &ratio(bare.size, stored as u64), "");
    }
    Ok(())
}

/// The buffer as it is by default, while devices close so many windows of ten seconds each and nobody takes them.
fn outage(devices: usize, windows: usize) -> Result<Kept> {
    let dir = site::directory()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let (start, commits) = runtime.block_on(async {
        let clock = Clock::injected(Timestamp(1_700_000_000_000), true);
        let Opened { outbox, .. } = Outbox::open(&Config::default(), dir.path(), clock);
        let stats = outbox.stats();
        let (before, start) = (stats.commits.load(Ordering::Relaxed), Written::by(process::id())?);
        for turn in 0..windows {
            outbox
                .append((0..devices).map(|device| window(turn * devices + device, devices)).collect())
                .await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        // What the last turn brought is due by then.
        tokio::time::sleep(Duration::from_secs(30)).await;
        outbox.close(None).await;
        let kept = stats.spilled.load(Ordering::Relaxed);
        if kept != (devices * windows) as u64 {
            return Err(format!("of {} messages {kept} were kept", devices * windows).into());
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((
            start,
            stats.commits.load(Ordering::Relaxed) - before,
        ))
    })?;
    let written = Written::by(process::id())? - start;
    let size = fs::metadata(dir.path().join("outbox.db"))?.len();
    Ok(Kept { written: written.storage, size, commits: usize::try_from(commits)?.max(1) })
}

fn bare(rows: &[Vec<u8>], grouping: usize, columns: Columns) -> Result<Kept> {
    let dir = site::directory()?;
    let path = dir.path().join("bare.db");
    let table = Rows::create(&path, columns)?;
    let start = Written::by(process::id())?;
    table.append(rows, grouping)?;
    let written = Written::by(process::id())? - start;
    let commits = rows.len().div_ceil(grouping);
    Ok(Kept { written: written.storage, size: fs::metadata(path)?.len(), commits })
}

//! Messages a second that the buffer takes and keeps, beside bare SQLite with the same bytes and as many to a commit.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weir::clock::{self, Clock, Trust};
use weir::model::Message;
use weir::outbox::{Config, Durability, Opened, Outbox};

use crate::backlog::window;
use crate::rows::{Columns, Rows};
use crate::support::pki::Result;
use crate::{Extent, print, site};

/// So many close their windows together.
const DEVICES: usize = 100;

/// The rows of a commit that bare SQLite is given where the buffer makes none.
const GROUPING: usize = 5_000;

/// Each is measured so often, by turns, and the fastest run of each counts: what disturbs a run makes it slower.
const RUNS: usize = 15;

/// Who takes messages from the buffer meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Link {
    /// Nobody: all are on the disk in the end.
    Down,
    /// Somebody who acknowledges what there is at once.
    Up,
}

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let rows: Vec<_> = (0..extent.appends).map(|number| window(number, DEVICES).to_bytes()).collect();
    for (what, durability, link) in [
        ("always", Durability::Always, Link::Down),
        ("when_offline, link down", Durability::WhenOffline, Link::Down),
        ("when_offline, link up", Durability::WhenOffline, Link::Up),
    ] {
        let (mut agents, mut bares, mut likes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut commits, mut grouping) = (0, GROUPING);
        for _ in 0..RUNS {
            let (time, made) = agent(durability, link, rows.len())?;
            agents.push(time);
            commits = made;
            if link == Link::Down {
                grouping = rows.len().div_ceil(commits.max(1));
            }
            bares.push(bare(&rows, grouping, Columns::Bytes)?);
            likes.push(bare(&rows, grouping, Columns::All)?);
        }
        let fastest = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default();
        let (agent, bare, like) = (fastest(agents), fastest(bares), fastest(likes));
        let rate = |time: Duration| format!("{:.0}", rows.len() as f64 / time.as_secs_f64());
        print(&format!("{what}: messages appended a second"), &rate(agent), "");
        print(&format!("  in {commits} commits; bare SQLite, {grouping} rows each"), &rate(bare), "");
        let ratio = |to: Duration| format!("{:.2}", to.as_secs_f64() / agent.as_secs_f64());
        print("  agent to bare SQLite", &ratio(bare), "at least 0.6");
        print("  agent to bare SQLite with ids and checksums", &ratio(like), "");
    }
    Ok(())
}

/// The time until all rows are written and the file is closed.
fn bare(rows: &[Vec<u8>], grouping: usize, columns: Columns) -> Result<Duration> {
    let dir = site::directory()?;
    let table = Rows::create(&dir.path().join("bare.db"), columns)?;
    let start = Instant::now();
    table.append(rows, grouping)?;
    Ok(start.elapsed())
}

/// The time until all messages are kept or acknowledged and the file is closed, and the commits that it took.
fn agent(durability: Durability, link: Link, count: usize) -> Result<(Duration, usize)> {
    let dir = site::directory()?;
    let messages: Vec<_> = (0..count).map(|number| window(number, DEVICES)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let clock = Clock::system(&clock::Config { trust: Trust::Rtc, ..Default::default() }, dir.path());
        let config = Config { durability, ..Config::default() };
        let Opened { outbox, .. } = Outbox::open(&config, dir.path(), clock);
        let stats = outbox.stats();
        let before = stats.commits.load(Ordering::Relaxed);
        let start = Instant::now();
        match link {
            Link::Down => append(&outbox, messages).await,
            Link::Up => drop(tokio::join!(append(&outbox, messages), take(&outbox, count))),
        }
        let commits = stats.commits.load(Ordering::Relaxed) - before;
        outbox.close(None).await;
        let time = start.elapsed();
        let kept = stats.spilled.load(Ordering::Relaxed) + stats.acknowledged.load(Ordering::Relaxed);
        if kept != count as u64 {
            return Err(format!("of {count} messages {kept} were kept").into());
        }
        // The last rows of all, and the note of the stop.
        Ok((time, usize::try_from(commits)? + usize::from(link == Link::Down)))
    })
}

async fn append(outbox: &Outbox, messages: Vec<Message>) {
    let mut messages = messages.into_iter();
    loop {
        let together: Vec<_> = messages.by_ref().take(DEVICES).collect();
        if together.is_empty() {
            return;
        }
        outbox.append(together).await;
        tokio::task::yield_now().await;
    }
}

async fn take(outbox: &Outbox, count: usize) {
    let mut left = count;
    while left > 0 {
        let taken = outbox.next(64, 32 << 10).await;
        let ids: Vec<_> = taken.iter().map(|outgoing| outgoing.id).collect();
        outbox.acknowledge(&ids);
        left -= ids.len();
    }
}

//! Wiring, and the order in which the stages stop.
//!
//! ```text
//! collect (one task a source) ──► channel ──► process (one task) ──► outbox ──► forward (one task)
//! ```
//!
//! They stop in that order, so that nothing is handed to a stage that has gone: the sources, then `process` once the
//! channel is empty, then `forward` once what is on its way is acknowledged or its grace is over; last the outbox
//! commits what is left, the open windows with it.

pub mod backoff;
pub mod collect;
pub mod forward;
pub mod process;
mod saved;
pub mod series;
pub mod stats;
pub mod stop;
pub mod trouble;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::outbox::{Opened, Outbox};
use crate::sources::{self, AnySource};
use crate::uplink::{AnyUplink, Uplink};

use forward::Forward;
use series::{Rules, SeriesTable};
use stats::Stats;

/// Batches of readings that may wait for `process`. A source that finds the channel full is not read meanwhile.
const CHANNEL: usize = 64;

/// Runs the agent until `stop`, and ends once everything is sent or kept.
pub async fn run(config: Config, stop: stop::Stop) {
    let clock = Clock::system(&config.clock, &config.gateway.runtime_dir);
    let uplink = AnyUplink::new(config.uplink.clone(), config.gateway.id.clone(), clock.clone());
    run_with(config, uplink, clock, stop).await;
}

/// As [`run`], with another uplink than the file names, and another clock than the machine's.
pub async fn run_with<U: Uplink>(config: Config, uplink: U, clock: Clock, stop: stop::Stop) {
    if !clock.now().synced {
        tracing::warn!("the clock is not synchronised yet: until it is, messages say \"synced\":false");
    }
    let Opened { outbox, saved } = Outbox::open(&config.buffer, &config.gateway.state_dir, clock.clone());
    let rules = Rules {
        max_series: config.limits.max_series,
        max_ahead: config.clock.max_ahead,
        filters: config.filters,
        windows: config.windows,
    };
    let stats = Stats::new(config.sources.iter().map(|(name, _)| name), rules.filters.len(), outbox.stats());
    let table = resume(rules, &stats, saved, &outbox, &clock).await;

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        epoch = outbox.epoch(),
        sources = stats.sources.len(),
        waiting = stats.outbox.waiting(),
        "weir starts"
    );

    let (sender, receiver) = mpsc::channel(CHANNEL);
    let mut collecting = JoinSet::new();
    for (number, ((name, config), (_, stats))) in config.sources.into_iter().zip(&stats.sources).enumerate() {
        let context = sources::Context { name, clock: clock.clone(), stats: stats.clone() };
        collecting.spawn(collect::run::<AnySource>(number, config, context, sender.clone(), stop.clone()));
    }
    drop(sender);
    let processing = tokio::spawn(process::run(receiver, table, outbox.clone(), clock.clone()));
    let (forward_stopper, forward_stop) = stop::stop();
    let forward = Forward {
        outbox: outbox.clone(),
        format: config.format,
        clock: clock.clone(),
        stats: stats.forward.clone(),
    };
    let stopping = async {
        stop.wait().await;
        tracing::info!("stopping");
        while collecting.join_next().await.is_some() {}
        let table = processing.await;
        forward_stopper.stop();
        table
    };
    let ((), table) = tokio::join!(forward.run(uplink, forward_stop), stopping);
    let saved = match table {
        Ok(table) => save(table, &outbox).await,
        Err(_) => None,
    };
    outbox.close(saved).await;
    stats.log();
}

/// The table of series, with the windows of the run before.
async fn resume(
    rules: Rules,
    stats: &Stats,
    saved: Option<Vec<u8>>,
    outbox: &Outbox,
    clock: &Clock,
) -> SeriesTable {
    let names: Vec<_> = stats.sources.iter().map(|(name, _)| name.clone()).collect();
    let now = clock.now();
    let mut table = SeriesTable::new(rules, &names, now, stats.process.clone());
    if let Some(saved) = saved {
        let mut messages = Vec::new();
        if let Err(error) = table.resume(&saved, clock::boot_id().as_deref(), now, &mut messages) {
            tracing::error!(%error, "the open windows of the last run cannot be read and are lost");
        }
        outbox.append(messages).await;
    }
    table
}

/// The open windows for the next run; where they are too large for that they are closed as partial instead.
async fn save(mut table: SeriesTable, outbox: &Outbox) -> Option<Vec<u8>> {
    let saved = table.save(clock::boot_id())?;
    let (bytes, most) = (saved.len(), outbox.saved_max());
    if bytes <= most {
        return Some(saved);
    }
    tracing::warn!(
        bytes,
        most,
        "the open windows are too large to be resumed by the next run: sent as partial"
    );
    let mut messages = Vec::new();
    table.close_all(&mut messages);
    outbox.append(messages).await;
    None
}

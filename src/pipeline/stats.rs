//! Every stage's counters, and the account of a run that is logged at its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{forward, series};
use crate::{filter, outbox, sources};

/// Every stage's counters.
#[derive(Clone, Debug)]
pub struct Stats {
    /// By source, in the order of the file.
    pub sources: Vec<(Arc<str>, Arc<sources::Stats>)>,
    /// Filters, windows and series.
    pub process: Arc<series::Stats>,
    /// What waits.
    pub outbox: Arc<outbox::Stats>,
    /// The uplink.
    pub forward: Arc<forward::Stats>,
}

impl Stats {
    /// Counters at zero for these sources and so many filters, beside the outbox's own.
    pub(super) fn new<'a>(
        sources: impl Iterator<Item = &'a Arc<str>>,
        filters: usize,
        outbox: Arc<outbox::Stats>,
    ) -> Self {
        let process = series::Stats { held_back: filter::Stats::new(filters), ..Default::default() };
        Self {
            sources: sources.map(|name| (name.clone(), Arc::default())).collect(),
            process: Arc::new(process),
            outbox,
            forward: Arc::default(),
        }
    }

    /// Logs what became of everything in this run.
    pub(super) fn log(&self) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (source, stats) in &self.sources {
            let (bytes, readings, ignored) = (get(&stats.bytes), get(&stats.readings), get(&stats.ignored));
            let refused: Vec<_> = stats.refused().filter(|(_, count)| *count > 0).collect();
            let refused = refused.iter().map(|(cause, count)| format!("{} {count}", cause.name()));
            let refused = refused.collect::<Vec<_>>().join(", ");
            let (copies, forgotten) = (get(&stats.copies), stats.forgotten.get());
            tracing::info!(
                source = &**source,
                bytes,
                readings,
                ignored,
                copies,
                forgotten,
                refused,
                "read in this run"
            );
        }
        let process = &*self.process;
        tracing::info!(
            readings = get(&process.readings),
            held_back = process.held_back.held_back().sum::<u64>(),
            late = process.late.get(),
            no_number = process.no_number.get(),
            too_many_series = process.too_many_series.get(),
            time_ahead = process.ahead.get(),
            series = get(&process.series),
            messages = get(&process.messages),
            "processed in this run"
        );
        let (outbox, forward) = (&*self.outbox, &*self.forward);
        tracing::info!(
            sent_with_repeats = get(&forward.sent),
            acknowledged = get(&outbox.acknowledged),
            still_waiting = outbox.waiting(),
            put_off = forward.put_off.get(),
            given_up = forward.given_up.get(),
            evicted = get(&outbox.evicted),
            damaged = get(&outbox.damaged),
            connections = get(&forward.connections),
            "forwarded in this run"
        );
    }
}

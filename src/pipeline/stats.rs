//! The account of a run, logged at its end from every stage's counters.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{forward, series};
use crate::{outbox, sources};

/// Logs what a source read, at the end of the run or when the file no longer has it.
pub(super) fn log_source(source: &str, stats: &sources::Stats) {
    let refused = stats.refused().filter(|(_, count)| *count > 0);
    let refused: Vec<_> = refused.map(|(cause, count)| format!("{} {count}", cause.name())).collect();
    tracing::info!(
        source,
        bytes = get(&stats.bytes),
        readings = get(&stats.readings),
        ignored = get(&stats.ignored),
        copies = get(&stats.copies),
        unasked = get(&stats.unasked),
        forgotten = stats.forgotten.get(),
        overruns = stats.overruns.get(),
        line_errors = stats.line_errors.get(),
        dropped_by_kernel = stats.dropped_by_kernel.get(),
        connections = get(&stats.connections),
        silent = stats.silent.get(),
        left_out = stats.left_out.get(),
        refused = refused.join(", "),
        "read in this run"
    );
}

/// Logs what became of it.
pub(super) fn log(process: &series::Stats, outbox: &outbox::Stats, forward: &forward::Stats) {
    tracing::info!(
        readings = get(&process.readings),
        held_back = get(&process.held_back),
        late = process.late.get(),
        no_number = process.no_number.get(),
        too_many_series = process.too_many_series.get(),
        time_ahead = process.ahead.get(),
        time_unlikely = process.unlikely.get(),
        clock_steps = get(&process.clock_steps),
        fell_silent = process.stale.get(),
        series = get(&process.series),
        messages = get(&process.messages),
        "processed in this run"
    );
    tracing::info!(
        sent_with_repeats = get(&forward.sent),
        acknowledged = get(&outbox.acknowledged),
        still_waiting = outbox.waiting(),
        put_off = forward.put_off.get(),
        given_up = forward.given_up.get(),
        refused_again = forward.refused_again.get(),
        lost_again = outbox.lost_again.get(),
        evicted = get(&outbox.evicted),
        full = outbox.full.get(),
        expired = outbox.expired.get(),
        purged = outbox.purged.get(),
        dead_letters = get(&outbox.dead_letters),
        damaged = get(&outbox.damaged),
        connections = get(&forward.connections),
        "forwarded in this run"
    );
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

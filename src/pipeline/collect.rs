//! One task for each source: open, read, hand on, and on an error open again after a pause.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::backoff::Backoff;
use super::process::Work;
use super::stop::Stop;
use super::trouble::Trouble;
use crate::sources::{Batch, Context, Receipt, Source, SourceError};
use crate::units;

/// A port that is plugged back in is read again within this, at the latest.
const CAP: Duration = Duration::from_secs(10);

/// Reads a source until `stop`, whatever becomes of it meanwhile. What it has handed over when `stop` comes is in
/// the channel when this returns. `tried` is told once it is open, or waits to be opened again.
pub async fn run<S: Source>(
    config: S::Config,
    context: Context,
    work: mpsc::Sender<Work>,
    tried: oneshot::Sender<()>,
    stop: Stop,
) {
    let mut tried = Some(tried);
    let mut backoff = Backoff::new(Duration::from_millis(500), CAP);
    let mut trouble = Trouble::new(context.clock.monotonic());
    loop {
        let opened = tokio::select! {
            biased;
            () = stop.wait() => return,
            opened = S::open(&config, &context) => opened,
        };
        // Nobody may wait for it.
        let _ = tried.take().map(|tried| tried.send(()));
        let error = match opened {
            Ok(source) => match read(source, &context, &work, &stop, &mut backoff, &mut trouble).await {
                Some(error) => error,
                None => return,
            },
            Err(error) => error,
        };
        let text = error.to_string();
        if trouble.again(&text, context.clock.monotonic()) {
            tracing::warn!(source = &*context.name, "{text} (trying again within {})", units::show(CAP));
        }
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = sleep(backoff.wait()) => {}
        }
    }
}

/// Reads an open source until it fails; `None` where `stop` came first.
async fn read<S: Source>(
    mut source: S,
    context: &Context,
    work: &mpsc::Sender<Work>,
    stop: &Stop,
    backoff: &mut Backoff,
    trouble: &mut Trouble,
) -> Option<SourceError> {
    let (told, down) = (trouble.was_told(), trouble.over(context.clock.monotonic()));
    match down.map(units::show) {
        Some(down) if told => tracing::info!(source = &*context.name, "open again after {down}"),
        Some(_) => tracing::info!(source = &*context.name, "open"),
        None => {}
    }
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.wait() => return None,
            batch = source.next() => batch,
        };
        match batch {
            Ok(batch) => {
                if !batch.readings.is_empty() {
                    backoff.reset();
                }
                hand_on(&context.name, batch, work).await;
            }
            Err(error) => return Some(error),
        }
    }
}

/// Puts a batch into the channel. Where a device waits for an answer it is told at once; else a full channel holds
/// this source back, which for a serial line means that the kernel keeps the bytes.
async fn hand_on(source: &Arc<str>, batch: Batch, work: &mpsc::Sender<Work>) {
    let Batch { readings, receipt } = batch;
    let is_empty = readings.is_empty();
    let item = Work::Readings { source: source.clone(), readings };
    // That the channel is closed, or the device no longer waits, changes nothing here.
    match receipt {
        None if is_empty => {}
        None => drop(work.send(item).await),
        Some(receipt) => {
            let answer = match work.try_send(item) {
                Ok(()) => Receipt::Accepted,
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => Receipt::Busy,
            };
            let _ = receipt.send(answer);
        }
    }
}

//! One task for each source: open, read, hand on, and on an error open again after a pause.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::channel::Inlet;
use super::stop::Stop;
use super::trouble::Trouble;
use crate::sources::{Batch, Context, Receipt, Source, SourceError};
use crate::units;

/// A port that is plugged back in is read again within this, at the latest.
const CAP: Duration = Duration::from_secs(10);

/// Reads a source until `stop`, whatever becomes of it meanwhile. What it has handed over when `stop` comes is in
/// the channel when this returns. `tried` is told once it is open, or waits to be opened again.
pub(super) async fn run<S: Source>(
    config: S::Config,
    context: Context,
    inlet: Inlet,
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
            Ok(source) => match read(source, &context, &inlet, &stop, &mut backoff, &mut trouble).await {
                Some(error) => error,
                None => return,
            },
            Err(error) => error,
        };
        let text = error.to_string();
        context.tap().failed(&text);
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
    inlet: &Inlet,
    stop: &Stop,
    backoff: &mut Backoff,
    trouble: &mut Trouble,
) -> Option<SourceError> {
    context.tap().opened();
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
                hand_on(&context.name, batch, inlet).await;
            }
            Err(error) => return Some(error),
        }
    }
}

/// Puts a batch into the channel. Where a device waits for an answer it is told at once; else a full channel holds
/// this source back, which for a serial line means that the kernel keeps the bytes.
async fn hand_on(source: &Arc<str>, batch: Batch, inlet: &Inlet) {
    let Batch { readings, receipt } = batch;
    // That the channel is closed, or the device no longer waits, changes nothing here.
    match receipt {
        None if readings.is_empty() => {}
        None => inlet.send(source, readings).await,
        Some(receipt) => {
            let sent = match inlet.try_send(source, readings) {
                Ok(()) => Ok(()),
                // It may be full only because nobody else has had a turn on this thread.
                Err(readings) => {
                    yield_now().await;
                    inlet.try_send(source, readings)
                }
            };
            let _ = receipt.send(if sent.is_ok() { Receipt::Accepted } else { Receipt::Busy });
        }
    }
}

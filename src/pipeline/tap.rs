//! A source that is read to be looked at, where no weir runs: nothing is forwarded.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::backoff::Backoff;
use crate::clock::Clock;
use crate::sources::{Context, Receipt, Source, SourceError};

/// What was not there is tried again within this: whoever looks on has just plugged it in.
const CAP: Duration = Duration::from_secs(2);

/// A context for a source of that name, whose tap can be watched.
#[must_use]
pub fn context(source: Arc<str>, clock: Clock) -> Context {
    Context {
        name: source,
        clock,
        stats: Arc::default(),
        memory: Default::default(),
        ports: Default::default(),
    }
}

/// That there is no such source, and which there are.
#[must_use]
pub fn no_source(source: &str, names: &[Arc<str>]) -> String {
    let names = names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
    format!("there is no source `{source}`: there is {names}")
}

/// Reads a source for ever, for those who watch the tap of `context`. A device that waits for an answer is told to try
/// again later, as nothing that it sends is taken.
pub async fn read<S: Source>(config: S::Config, context: Context) {
    let mut backoff = Backoff::new(Duration::from_millis(500), CAP);
    loop {
        let error = match S::open(&config, &context).await {
            Ok(source) => {
                context.tap().opened();
                look(source, &mut backoff).await
            }
            Err(error) => error,
        };
        context.tap().failed(&error.to_string());
        sleep(backoff.wait()).await;
    }
}

async fn look<S: Source>(mut source: S, backoff: &mut Backoff) -> SourceError {
    loop {
        match source.next().await {
            Ok(batch) => {
                backoff.reset();
                if let Some(receipt) = batch.receipt {
                    // Nobody may wait for it.
                    let _ = receipt.send(Receipt::OnlyShown);
                }
            }
            Err(error) => return error,
        }
    }
}

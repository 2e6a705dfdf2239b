//! One task for all sources: filter, window, append to the outbox.

use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::collect::Collected;
use super::series::SeriesTable;
use crate::clock::Clock;
use crate::model::Message;
use crate::outbox::Outbox;

/// Processes what is collected until the channel is closed and empty; gives the table back with its open windows.
///
/// Its clock is the arrival of the batch in hand, so that a backlog in the channel is never late, and the real time
/// only once the channel is empty.
pub async fn run(
    mut collected: mpsc::Receiver<Collected>,
    mut table: SeriesTable,
    outbox: Outbox,
    clock: Clock,
) -> SeriesTable {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let next = match collected.try_recv() {
            Ok(next) => Some(next),
            Err(mpsc::error::TryRecvError::Disconnected) => return table,
            Err(mpsc::error::TryRecvError::Empty) => {
                table.close_due(clock.now(), &mut messages);
                if messages.is_empty() {
                    match wait(&mut collected, table.wake_at().map(|at| clock.instant(at))).await {
                        Woken::Collected(next) => Some(next),
                        Woken::Due => None,
                        Woken::Closed => return table,
                    }
                } else {
                    None
                }
            }
        };
        if let Some(Collected { source, readings }) = next {
            table.take(source, &readings, &mut messages);
        }
        if !messages.is_empty() {
            outbox.append(std::mem::take(&mut messages)).await;
        }
    }
}

enum Woken {
    Collected(Collected),
    Due,
    Closed,
}

async fn wait(collected: &mut mpsc::Receiver<Collected>, due: Option<tokio::time::Instant>) -> Woken {
    let timer = async {
        match due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        next = collected.recv() => next.map_or(Woken::Closed, Woken::Collected),
        () = timer => Woken::Due,
    }
}

//! One task for all sources: filter, window, append to the outbox.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::channel::Place;
use super::series::{Rules, SeriesTable};
use crate::clock::Clock;
use crate::model::{Message, Readings};
use crate::outbox::Outbox;

/// What `process` does, one after the other.
#[derive(Debug)]
pub enum Work {
    /// A source brought readings.
    Readings {
        /// Its name.
        source: Arc<str>,
        /// What it brought.
        readings: Readings,
        /// Its place in the channel, which it keeps until what came of it is in the outbox.
        place: Place,
    },
    /// A source is gone for good, and all that it brought is before this.
    Gone(Arc<str>),
    /// Other rules hold from here on.
    Rules(Rules),
    /// Somebody wants to know whether it still works: answered once all that came before is done.
    Probe(oneshot::Sender<()>),
}

/// Does its work until the channel is closed and empty; gives the table back with its open windows.
///
/// Its clock is the arrival of the batch in hand, so that a backlog in the channel is never late, and the real time
/// only once the channel is empty.
pub async fn run(
    mut work: mpsc::Receiver<Work>,
    mut table: SeriesTable,
    outbox: Outbox,
    clock: Clock,
) -> SeriesTable {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let next = match work.try_recv() {
            Ok(next) => Some(next),
            Err(mpsc::error::TryRecvError::Disconnected) => return table,
            Err(mpsc::error::TryRecvError::Empty) => {
                table.close_due(clock.now(), &mut messages);
                if messages.is_empty() {
                    match wait(&mut work, table.wake_at().map(|at| clock.instant(at))).await {
                        Woken::Work(next) => Some(next),
                        Woken::Due => None,
                        Woken::Closed => return table,
                    }
                } else {
                    None
                }
            }
        };
        let mut in_hand = None;
        match next {
            Some(Work::Readings { source, readings, place }) => {
                table.take(&source, &readings, &mut messages);
                in_hand = Some(place);
            }
            Some(Work::Gone(source)) => table.forget(&source, &mut messages),
            Some(Work::Rules(rules)) => table = table.under(rules, clock.now(), &mut messages),
            // That nobody waits for it any more changes nothing.
            Some(Work::Probe(answer)) => drop(answer.send(())),
            None => {}
        }
        if !messages.is_empty() {
            outbox.append(std::mem::take(&mut messages)).await;
        }
        if in_hand.take().is_some() {
            // Else it would do all that is in the channel in one turn.
            yield_now().await;
        }
    }
}

enum Woken {
    Work(Work),
    Due,
    Closed,
}

async fn wait(work: &mut mpsc::Receiver<Work>, due: Option<tokio::time::Instant>) -> Woken {
    let timer = async {
        match due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        next = work.recv() => next.map_or(Woken::Closed, Woken::Work),
        () = timer => Woken::Due,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Reading, Timestamp, Value};
    use crate::outbox::{self, Opened};
    use crate::pipeline::channel::{Progress, channel};

    #[tokio::test]
    async fn a_probe_is_answered_once_what_came_before_it_is_in_the_outbox() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::injected(Timestamp(0), true);
        let Opened { outbox, .. } = Outbox::open(&outbox::Config::default(), dir.path(), clock.clone());
        let max_ahead = Duration::from_secs(600);
        let (filters, windows, stale_after) = (Vec::new(), Vec::new(), Vec::new());
        let rules = Rules { filters, windows, max_series: 10, max_ahead, stale_after };
        let table = SeriesTable::new(rules, clock.now(), clock.era(), Arc::default());
        let (inlet, to_do) = channel(Progress::default());

        let mut readings = Readings::new(clock.now());
        readings.push(Reading { device: "d", metric: "m", value: Value::Int(1), time: None, unit: None });
        inlet.send(&"line".into(), readings).await;
        let (answer, mut answered) = oneshot::channel();
        inlet.tell(Work::Probe(answer)).await;
        assert!(answered.try_recv().is_err(), "nobody works yet");

        tokio::spawn(run(to_do, table, outbox.clone(), clock));
        answered.await.unwrap();
        assert_eq!(outbox.stats().waiting(), 1);
    }
}

//! What systemd is told, where it runs the agent: sd_notify(3). Elsewhere nobody is told anything.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::pipeline::Order;

/// What there is to tell.
#[derive(Debug)]
pub(super) enum Told {
    /// It has started.
    Ready,
    /// It reads its file again.
    Reloading,
    /// It goes on as the file says now.
    Reloaded,
    /// It goes on as before.
    Refused,
    /// It stops.
    Stopping,
}

/// Tells systemd.
pub(super) fn tell(told: &Told) {
    match told {
        Told::Ready => notify(&[NotifyState::Ready, NotifyState::Status("running")]),
        Told::Reloading => {
            notify(&[NotifyState::Reloading, NotifyState::Status("reading the configuration again")]);
        }
        Told::Reloaded => {
            tracing::info!("reloaded");
            notify(&[NotifyState::Ready, NotifyState::Status("running, with the configuration reloaded")]);
        }
        Told::Refused => {
            let status = "running as before: the last configuration was refused, the log says why";
            notify(&[NotifyState::Ready, NotifyState::Status(status)]);
        }
        Told::Stopping => notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]),
    }
}

/// Tells systemd once it is so.
pub(super) async fn tell_once(is_so: oneshot::Receiver<()>, told: Told) {
    if is_so.await.is_ok() {
        tell(&told);
    }
}

/// Where systemd keeps watch (`WatchdogSec`), tells it four times in that span that the agent works, as long as
/// readings get through to the outbox. A thread that hangs tells it nothing either.
pub(super) async fn keep_watch(orders: mpsc::Sender<Order>) {
    if let Some(span) = sd_notify::watchdog_enabled() {
        feed(span, orders, || notify(&[NotifyState::Watchdog])).await;
    }
}

async fn feed(span: Duration, orders: mpsc::Sender<Order>, mut works: impl FnMut()) {
    loop {
        sleep(span / 4).await;
        let (answer, answered) = oneshot::channel();
        if orders.send(Order::Probe(answer)).await.is_err() {
            return;
        }
        if answered.await.is_ok() {
            works();
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell systemd {state:?}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_while_probes_are_answered() {
        let (orders, mut told) = mpsc::channel(1);
        let (fed, mut meals) = mpsc::unbounded_channel();
        tokio::spawn(feed(Duration::from_secs(60), orders, move || {
            let _ = fed.send(());
        }));
        for _ in 0..3 {
            let Some(Order::Probe(answer)) = told.recv().await else { unreachable!("nothing else is asked") };
            answer.send(()).unwrap();
            assert!(meals.recv().await.is_some());
        }
        // Stuck: the question stays open.
        let _open = told.recv().await;
        sleep(Duration::from_secs(3600)).await;
        assert!(meals.try_recv().is_err());
    }
}

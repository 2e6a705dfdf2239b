//! What systemd is told, where it runs the agent: sd_notify(3). Elsewhere nobody is told anything.

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
    let Some(span) = sd_notify::watchdog_enabled() else { return };
    loop {
        sleep(span / 4).await;
        let (answer, answered) = oneshot::channel();
        if orders.send(Order::Probe(answer)).await.is_err() {
            return;
        }
        if answered.await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell systemd {state:?}: {error}");
    }
}

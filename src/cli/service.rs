//! What systemd is told, where it runs the agent: sd_notify(3). Elsewhere nobody is told anything.
//!
//! Nobody waits for systemd: what it does not take at once is lost, and the log says so.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::pipeline::{Order, Progress};
use crate::tally::Tally;

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Whoever started the agent and wants to be told.
#[derive(Debug)]
pub(super) struct Systemd {
    ear: Option<(UnixDatagram, SocketAddr)>,
    unheard: Tally,
}

impl Systemd {
    /// As `$NOTIFY_SOCKET` says.
    pub(super) fn new() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let ear = name.and_then(|name| {
            ear(&name).inspect_err(|error| tracing::warn!("cannot tell systemd at {name:?}: {error}")).ok()
        });
        Self { ear, unheard: Tally::default() }
    }

    pub(super) fn tell(&self, told: &Told) {
        match told {
            Told::Ready => self.notify(&[NotifyState::Ready, NotifyState::Status("running")]),
            Told::Reloading => {
                // The kernel's time, and nobody's clock: systemd knows by it to which reload the next READY belongs.
                let now = NotifyState::monotonic_usec_now().ok();
                let status = NotifyState::Status("reading the configuration again");
                let said: Vec<_> = [NotifyState::Reloading].into_iter().chain(now).chain([status]).collect();
                self.notify(&said);
            }
            Told::Reloaded => {
                tracing::info!("reloaded");
                let status = "running, with the configuration reloaded";
                self.notify(&[NotifyState::Ready, NotifyState::Status(status)]);
            }
            Told::Refused => {
                let status = "running as before: the last configuration was refused, the log says why";
                self.notify(&[NotifyState::Ready, NotifyState::Status(status)]);
            }
            Told::Stopping => self.notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]),
        }
    }

    fn notify(&self, state: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.ear else { return };
        let said: String = state.iter().map(|line| format!("{line}\n")).collect();
        if let Err(error) = socket.send_to_addr(said.as_bytes(), address) {
            if let Some(count) = self.unheard.count() {
                tracing::warn!(count, "systemd was not told {state:?}: {error}");
            }
        }
    }
}

/// A way to the socket of this name: a path, or behind an `@` a name of the kernel's own (unix(7)).
fn ear(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Where systemd keeps watch (`WatchdogSec`), tells it four times in that span that the agent works, as long as
/// readings get through to the outbox. A thread that hangs tells it nothing either.
pub(super) async fn keep_watch(orders: mpsc::Sender<Order>, progress: Progress, systemd: Arc<Systemd>) {
    if let Some(span) = sd_notify::watchdog_enabled() {
        feed(span, orders, progress, || systemd.notify(&[NotifyState::Watchdog])).await;
    }
}

/// Feeds after a look at which readings had got through since the look before, or a probe where there were none. A probe
/// stands behind all that came before it: behind a slow card that may take longer than the span, and while it moves it
/// is no hang.
async fn feed(span: Duration, orders: mpsc::Sender<Order>, progress: Progress, mut works: impl FnMut()) {
    let mut seen = progress.so_far();
    let mut asked: Option<oneshot::Receiver<()>> = None;
    loop {
        if asked.is_none() {
            let (answer, answered) = oneshot::channel();
            match orders.try_send(Order::Probe(answer)) {
                Ok(()) => asked = Some(answered),
                Err(mpsc::error::TrySendError::Full(_)) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
        sleep(span / 4).await;
        let answer = asked.as_mut().map(oneshot::Receiver::try_recv);
        if !matches!(answer, Some(Err(oneshot::error::TryRecvError::Empty))) {
            // Answered, or lost with a run that has ended.
            asked = None;
        }
        let before = std::mem::replace(&mut seen, progress.so_far());
        if matches!(answer, Some(Ok(()))) || seen != before {
            works();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(60);

    /// Who feeds, and whether the watchdog was fed in each quarter of its span.
    struct Kennel {
        orders: mpsc::Receiver<Order>,
        progress: Progress,
        meals: mpsc::UnboundedReceiver<()>,
    }

    impl Kennel {
        async fn new() -> Self {
            let (orders, told) = mpsc::channel(4);
            let (progress, (fed, meals)) = (Progress::default(), mpsc::unbounded_channel());
            tokio::spawn(feed(SPAN, orders, progress.clone(), move || fed.send(()).unwrap_or_default()));
            // Out of step with the looks, so that each quarter has one.
            sleep(SPAN / 8).await;
            Self { orders: told, progress, meals }
        }

        async fn fed(&mut self) -> bool {
            sleep(SPAN / 4).await;
            let fed = self.meals.try_recv().is_ok();
            assert!(self.meals.try_recv().is_err(), "once is enough");
            fed
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_probes_are_answered() {
        let mut kennel = Kennel::new().await;
        for _ in 0..3 {
            let Ok(Order::Probe(answer)) = kennel.orders.try_recv() else { panic!("no probe") };
            answer.send(()).unwrap();
            assert!(kennel.fed().await);
        }
        // Stuck: the question stays open.
        let _open = kennel.orders.try_recv().unwrap();
        for _ in 0..100 {
            assert!(!kennel.fed().await);
        }
        assert!(kennel.orders.try_recv().is_err(), "nor is it asked again and again");
    }

    #[tokio::test(start_paused = true)]
    async fn behind_a_slow_card_the_watchdog_is_fed_while_something_moves_and_no_longer() {
        let mut kennel = Kennel::new().await;
        let _open = kennel.orders.try_recv().unwrap();
        for _ in 0..100 {
            kennel.progress.mark();
            assert!(kennel.fed().await);
        }
        for _ in 0..100 {
            assert!(!kennel.fed().await, "what moved long ago does not count");
        }
        kennel.progress.mark();
        assert!(kennel.fed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_takes_no_orders_is_not_fed_and_is_asked_again_when_it_does() {
        let mut kennel = Kennel::new().await;
        for _ in 0..3 {
            // A run that ends takes the question with it.
            drop(kennel.orders.try_recv());
            assert!(!kennel.fed().await);
        }
        let Ok(Order::Probe(answer)) = kennel.orders.try_recv() else { panic!("no probe") };
        answer.send(()).unwrap();
        assert!(kennel.fed().await);
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut said = [0; 4096];
        let length = socket.recv(&mut said).unwrap();
        String::from_utf8(said[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_without_a_file_is_told_too_and_a_reload_says_when() {
        let name = format!("weir-test-{}", fastrand::u64(..));
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let systemd =
            Systemd { ear: Some(ear(format!("@{name}").as_ref()).unwrap()), unheard: Tally::default() };
        systemd.tell(&Told::Reloading);
        let said = heard(&socket);
        let when = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().lines().next().unwrap();
        assert!(when.parse::<u64>().unwrap() > 0, "{said}");
        systemd.tell(&Told::Reloaded);
        assert!(heard(&socket).starts_with("READY=1\nSTATUS=running"));
    }

    #[test]
    fn a_socket_that_nobody_reads_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let systemd = Systemd { ear: Some(ear(path.as_os_str()).unwrap()), unheard: Tally::default() };
        for _ in 0..10_000 {
            systemd.notify(&[NotifyState::Watchdog]);
        }
        assert!(systemd.unheard.get() > 0);
    }
}

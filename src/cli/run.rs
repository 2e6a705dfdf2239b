use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Configured;
use super::service::{self, Told};
use crate::config::Config;
use crate::observe::logs::{self, Log};
use crate::pipeline::{self, Order};

pub(super) fn run(arguments: &Configured) -> ExitCode {
    let loaded = match super::load(arguments) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    super::explain(&loaded.warnings);
    match serve(loaded.config, arguments.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Orders that may wait for the agent. It is slow to take them only while it does one.
const ORDERS: usize = 16;

/// Runs the agent on this thread until it is told to stop.
fn serve(config: Config, arguments: Configured) -> io::Result<()> {
    let log = logs::init(config.log)?;
    to_its_end(async {
        let (orders, told) = mpsc::channel(ORDERS);
        let (ready, is_ready) = oneshot::channel();
        let signals = Signals::new()?;
        let mut beside = JoinSet::new();
        beside.spawn(service::tell_once(is_ready, Told::Ready));
        beside.spawn(service::keep_watch(orders.clone()));
        beside.spawn(listen(signals, arguments, log, orders));
        pipeline::run(config, told, ready, pipeline::Progress::default()).await;
        Ok(())
    })
}

/// Runs `work` on this thread, and waits for nothing else: a name lookup that hangs, on a thread of its own, would
/// hold up the end for as long as it hangs.
fn to_its_end<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    // Where files are short, tokio panics for the want of its signals' pair. It has three more open by then.
    drop([UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// What the agent listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// SIGTERM or SIGINT: stop in order. A second one: stop at once, as in a crash. SIGHUP: read the file again.
async fn listen(mut signals: Signals, arguments: Configured, log: Log, orders: mpsc::Sender<Order>) {
    let mut stopping = false;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
            _ = signals.hangup.recv() => {
                if !stopping {
                    reload(&arguments, &log, &orders);
                }
                continue;
            }
        }
        if stopping {
            tracing::error!("told twice to stop: going at once, without keeping what is in memory");
            std::process::exit(1);
        }
        stopping = true;
        service::tell(&Told::Stopping);
        let orders = orders.clone();
        // Where the agent is busy with another order this waits, and a second signal is heard all the same.
        tokio::spawn(async move { orders.send(Order::Stop).await });
    }
}

/// Has the agent go on as the file says now; a file that is wrong changes nothing.
fn reload(arguments: &Configured, log: &Log, orders: &mpsc::Sender<Order>) {
    service::tell(&Told::Reloading);
    let Ok(loaded) = super::load(arguments) else {
        let file = arguments.config.display();
        tracing::error!("{file} is refused for what is wrong with it: weir goes on as before");
        return service::tell(&Told::Refused);
    };
    super::explain(&loaded.warnings);
    if let Err(error) = log.change(loaded.config.log) {
        tracing::warn!("the log goes on as before: {error}");
    }
    let (done, is_done) = oneshot::channel();
    match orders.try_send(Order::Reload(Box::new(loaded.config), done)) {
        Ok(()) => drop(tokio::spawn(service::tell_once(is_done, Told::Reloaded))),
        Err(_) => {
            tracing::error!("not reloaded, as weir is still busy with what it was told before: try again");
            service::tell(&Told::Refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_does_not_wait_for_a_name_lookup_that_hangs() {
        let (answer, lookup) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let result = to_its_end(async {
                let (begun, begins) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _ = begun.send(());
                    lookup.recv()
                });
                begins.await.map_err(io::Error::other)
            });
            ended.send(result.is_ok())
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(true));
        drop(answer);
    }
}

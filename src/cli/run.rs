use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Configured;
use super::service::{self, Systemd, Told};
use crate::config::Config;
use crate::observe::control;
use crate::observe::logs::{self, Log};
use crate::pipeline::{self, Order, Progress};
use crate::{sources, uplink};

/// Runs the agent on this thread until it is told to stop.
pub(super) fn run(arguments: &Configured) -> ExitCode {
    to_its_end(serve(arguments.clone())).unwrap_or_else(|error| {
        super::complain(&error.to_string());
        ExitCode::FAILURE
    })
}

/// Orders that may wait for the agent: a reload, a probe and a stop, and room to spare.
const ORDERS: usize = 4;

async fn serve(arguments: Configured) -> io::Result<ExitCode> {
    // First of all, so that one that comes early does not kill: it is obeyed once there is an agent to obey it.
    let mut signals = Signals::new()?;
    let loaded = match super::load(&arguments) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    super::explain(&loaded.warnings);
    let runtime_dir = &loaded.config.gateway.runtime_dir;
    // Two by one file would throw each other off the broker for ever.
    if control::is_answered(runtime_dir) {
        super::complain(&format!(
            "another weir runs with the runtime_dir {}: stop it, or give this one a `runtime_dir` and a `state_dir` of its \
             own",
            runtime_dir.display()
        ));
        return Ok(ExitCode::FAILURE);
    }
    let log = logs::init(loaded.config.log)?;

    let (orders, told) = mpsc::channel(ORDERS);
    let (ready, is_ready) = oneshot::channel();
    let (hear, heard) = mpsc::channel(1);
    let (systemd, progress) = (Arc::new(Systemd::new()), Progress::default());
    let mut beside = JoinSet::new();
    beside.spawn(service::keep_watch(orders.clone(), progress.clone(), systemd.clone()));
    beside.spawn(async move { while hear.send(signals.next().await).await.is_ok() {} });
    let tell = move |told: &Told| systemd.tell(told);
    let mut before = Before::of(&loaded.config);
    let read = move || read_again(&arguments, &log, &mut before);
    beside.spawn(listen(heard, read, orders, is_ready, tell));
    pipeline::run(loaded.config, told, ready, progress).await;
    Ok(ExitCode::SUCCESS)
}

/// So many tasks have a turn before sockets and `forward` are looked at again. A turn of a source or of `process` that has
/// much to do takes milliseconds: by tokio's own 61, whoever sends without pause would keep answers from being heard.
const EVENT_INTERVAL: u32 = 2;

/// Runs `work` on this thread, and waits for nothing else: a name lookup that hangs, on a thread of its own, would
/// hold up the end for as long as it hangs.
pub(super) fn to_its_end<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    // Where files are short, tokio panics for the want of its signals' pair. It has three more open by then.
    drop([UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?]);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(EVENT_INTERVAL).build()?;
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

/// What a signal asks for.
#[derive(Debug)]
enum Heard {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    ReadAgain,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hangup.recv() => Heard::ReadAgain,
        }
    }
}

/// Stop: in order. A second one: at once, as in a crash. Read again: the agent goes on as the file says then.
///
/// Reloads follow one another. However often the file is to be read again while the agent is still at what it was told
/// before, it is read once, when that is done: so the last that it says holds, and what is told is told of that.
async fn listen(
    mut heard: mpsc::Receiver<Heard>,
    mut read: impl FnMut() -> Option<Config>,
    orders: mpsc::Sender<Order>,
    is_ready: oneshot::Receiver<()>,
    tell: impl Fn(&Told),
) {
    // What the agent is at, and what is told once it is done.
    let mut under_way = Some((is_ready, Told::Ready));
    let mut again = false;
    loop {
        tokio::select! {
            biased;
            heard = heard.recv() => match heard {
                Some(Heard::ReadAgain) => again = true,
                Some(Heard::Stop) | None => break,
            },
            is_so = done(&mut under_way) => {
                if let Some((_, told)) = under_way.take().filter(|_| is_so) {
                    if !again || told == Told::Ready {
                        tell(&told);
                    }
                }
            }
        }
        if again && under_way.is_none() {
            again = false;
            tell(&Told::Reloading);
            match read() {
                Some(config) => {
                    let (done, is_done) = oneshot::channel();
                    // An agent that has ended needs no order.
                    let _ = orders.send(Order::Reload(Box::new(config), done)).await;
                    under_way = Some((is_done, Told::Reloaded));
                }
                None => tell(&Told::Refused),
            }
        }
    }
    // From here on nothing else is told: systemd must not take what stops for ready.
    tell(&Told::Stopping);
    // Where the agent is busy with another order this waits, and a second signal is heard all the same.
    tokio::spawn(async move { orders.send(Order::Stop).await });
    while let Some(heard) = heard.recv().await {
        if matches!(heard, Heard::Stop) {
            tracing::error!("told twice to stop: going at once, without keeping what is in memory");
            std::process::exit(1);
        }
    }
}

/// Waits until the agent is done with what is under way; false where it never will be. Cancel-safe.
async fn done(under_way: &mut Option<(oneshot::Receiver<()>, Told)>) -> bool {
    match under_way {
        Some((is_so, _)) => is_so.await.is_ok(),
        None => std::future::pending().await,
    }
}

/// What weir goes on with while the file does not change it.
struct Before {
    uplink: uplink::Config,
    /// The sources that cannot open, for what is wrong with their files.
    unfit: Vec<(Arc<str>, sources::Config)>,
}

impl Before {
    fn of(config: &Config) -> Self {
        let unfit = config.sources.iter().filter(|(_, source)| !source.unfit().is_empty());
        Self { uplink: config.uplink.clone(), unfit: unfit.cloned().collect() }
    }
}

/// What the file says now; `None` where it is wrong, or where it would have weir leave what it has for an uplink that cannot
/// connect or a source that cannot open. The log follows it at once.
fn read_again(arguments: &Configured, log: &Log, before: &mut Before) -> Option<Config> {
    let file = arguments.config.display();
    let Ok(loaded) = super::load(arguments) else {
        tracing::error!("{file} is refused for what is wrong with it: weir goes on as before");
        return None;
    };
    super::explain(&loaded.warnings);
    let now = Before::of(&loaded.config);
    if let Some((name, source)) = now.unfit.iter().find(|source| !before.unfit.contains(source)) {
        let why = source.unfit().into_iter().next().map(|(_, why)| why).unwrap_or_default();
        tracing::error!("{file} is refused, as source {name} could not open: {why}: weir goes on as before");
        return None;
    }
    if now.uplink != before.uplink {
        if let Some((key, what)) = now.uplink.unfit().into_iter().chain(now.uplink.absent()).next() {
            tracing::error!(
                "{file} is refused, as its [uplink] cannot connect: `{key}`: {what}: weir goes on as before"
            );
            return None;
        }
    }
    *before = now;
    if let Err(error) = log.change(loaded.config.log) {
        tracing::warn!("the log goes on as before: {error}");
    }
    Some(loaded.config)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use tokio::task::yield_now;

    use super::*;

    #[test]
    fn the_end_does_not_wait_for_a_name_lookup_that_hangs() {
        let (answer, lookup) = std::sync::mpsc::channel::<()>();
        let (ended, end) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let result = to_its_end(async {
                let (begun, begins) = oneshot::channel();
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

    /// Somebody who gives signals, and reads what files say and what is told.
    struct Desk {
        signals: mpsc::Sender<Heard>,
        orders: mpsc::Receiver<Order>,
        files: std::sync::mpsc::Sender<Option<Config>>,
        told: mpsc::UnboundedReceiver<Told>,
    }

    fn config(max_series: usize) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.toml");
        std::fs::write(&path, include_str!("../../config/simulated.toml")).unwrap();
        let mut config = crate::config::load(&path).unwrap().config;
        config.limits.max_series = max_series;
        config
    }

    impl Desk {
        /// An agent that is ready.
        async fn new() -> Self {
            let (signals, heard) = mpsc::channel(1);
            let (orders, given) = mpsc::channel(ORDERS);
            let (files, file) = std::sync::mpsc::channel();
            let (told, telling) = mpsc::unbounded_channel();
            let (ready, is_ready) = oneshot::channel();
            let read = move || file.try_recv().unwrap();
            tokio::spawn(listen(heard, read, orders, is_ready, move |now| {
                told.send(*now).unwrap_or_default()
            }));
            ready.send(()).unwrap();
            let mut desk = Self { signals, orders: given, files, told: telling };
            assert_eq!(desk.told.recv().await, Some(Told::Ready));
            desk
        }

        /// Has the file read again; it is read now only if the agent is at nothing else.
        async fn hang_up(&self) {
            self.signals.send(Heard::ReadAgain).await.unwrap();
            while self.signals.capacity() == 0 {
                yield_now().await;
            }
        }

        fn file(&self, says: Option<Config>) {
            self.files.send(says).unwrap();
        }

        /// The reload that the agent is given next, by the number in its file.
        async fn reload(&mut self) -> (usize, oneshot::Sender<()>) {
            match self.orders.recv().await {
                Some(Order::Reload(config, done)) => (config.limits.max_series, done),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn however_often_it_is_asked_the_last_file_holds_and_is_what_is_told_of() {
        let mut desk = Desk::new().await;
        desk.file(Some(config(1)));
        desk.hang_up().await;
        let (number, done) = desk.reload().await;
        assert_eq!((number, desk.told.recv().await), (1, Some(Told::Reloading)));
        for _ in 0..100 {
            desk.hang_up().await;
        }
        desk.file(Some(config(2)));
        done.send(()).unwrap();
        let (number, done) = desk.reload().await;
        assert_eq!((number, desk.told.recv().await), (2, Some(Told::Reloading)), "and no word of the first");
        done.send(()).unwrap();
        assert_eq!(desk.told.recv().await, Some(Told::Reloaded));
        assert!(desk.orders.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_wrong_file_is_refused_only_once_the_reload_before_it_is_done() {
        let mut desk = Desk::new().await;
        desk.file(Some(config(1)));
        desk.hang_up().await;
        let (_, done) = desk.reload().await;
        desk.file(None);
        desk.hang_up().await;
        assert_eq!(desk.told.recv().await, Some(Told::Reloading));
        assert!(desk.told.try_recv().is_err(), "the agent is not ready yet");
        done.send(()).unwrap();
        assert_eq!(desk.told.recv().await, Some(Told::Reloading));
        assert_eq!(desk.told.recv().await, Some(Told::Refused));
    }

    #[tokio::test]
    async fn nothing_is_told_after_stopping_whatever_was_under_way() {
        let mut desk = Desk::new().await;
        desk.file(Some(config(1)));
        desk.hang_up().await;
        let (_, done) = desk.reload().await;
        desk.signals.send(Heard::Stop).await.unwrap();
        assert_eq!(desk.told.recv().await, Some(Told::Reloading));
        assert_eq!(desk.told.recv().await, Some(Told::Stopping));
        let _ = done.send(());
        desk.hang_up().await;
        assert!(matches!(desk.orders.recv().await, Some(Order::Stop)));
        assert!(desk.told.try_recv().is_err());
    }
}

//! Wiring, and the order in which the stages stop.
//!
//! ```text
//! collect (one task a source) ──► channel ──► process (one task) ──► outbox ──► forward (one task)
//! ```
//!
//! They stop in that order, so that nothing is handed to a stage that has gone: the sources, then `process` once the
//! channel is empty, then `forward` once what is on its way is acknowledged or its grace is over; last the outbox
//! commits what is left, the open windows with it. Where another run begins anew at once, `forward` goes first: so
//! nobody's port is closed while a broker is waited for.

mod answers;
pub mod backoff;
mod channel;
mod collect;
mod device;
pub mod forward;
mod intake;
mod line;
mod passing;
pub mod process;
mod saved;
pub mod series;
mod staleness;
mod stats;
pub mod stop;
pub mod tap;
pub mod trouble;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::Clock;
use crate::config::Config;
use crate::encode::Format;
use crate::observe::control::Control;
use crate::outbox::{Opened, Outbox};
use crate::sources::modbus::Ports;
use crate::uplink::{AnyUplink, Look, Uplink};

use answers::Answers;
pub use channel::Progress;
use channel::{Inlet, channel};
use forward::Forward;
use intake::{Intake, Memories, Taps};
use process::Work;
use series::{Rules, SeriesTable};
use stop::{Stop, Stopper};

/// What the agent is told while it runs.
#[derive(Debug)]
pub enum Order {
    /// Stop in order, once everything is sent or kept.
    Stop,
    /// Go on as this file says; what it does not change is not disturbed. Answered once it is so.
    Reload(Box<Config>, oneshot::Sender<()>),
    /// Say whether readings still get from the sources' end of the channel to the outbox: answered once this has.
    Probe(oneshot::Sender<()>),
}

/// Runs the agent until it is told to stop, or nobody is left to tell it. `ready` is told once its sources are open, or
/// wait to be, and the outbox is ready; the cloud need not have answered. `progress` moves with what gets through.
pub async fn run(
    config: Config,
    mut orders: mpsc::Receiver<Order>,
    ready: oneshot::Sender<()>,
    progress: Progress,
) {
    let lasting = Lasting { progress, memories: Memories::default(), ports: Ports::default() };
    let mut next = Some((config, ready));
    while let Some((config, ready)) = next {
        let clock = Clock::system(&config.clock, &config.gateway.runtime_dir);
        let uplink =
            |config: &Config| AnyUplink::new(config.uplink.clone(), config.gateway.id.clone(), clock.clone());
        next = run_once(config, uplink, clock.clone(), &mut orders, ready, &lasting).await;
    }
}

/// As [`run`], with other uplinks than the file names, and another clock than the machine's. A file that changes what
/// the whole agent stands on is given back once this has ended in order, to begin anew with.
pub async fn run_with<U: Uplink>(
    config: Config,
    uplink: impl Fn(&Config) -> U,
    clock: Clock,
    orders: &mut mpsc::Receiver<Order>,
    ready: oneshot::Sender<()>,
) -> Option<(Config, oneshot::Sender<()>)> {
    run_once(config, uplink, clock, orders, ready, &Lasting::default()).await
}

/// What stays when a run ends for another to begin anew.
#[derive(Debug, Default)]
struct Lasting {
    progress: Progress,
    memories: Memories,
    ports: Ports,
}

async fn run_once<U: Uplink>(
    config: Config,
    uplink: impl Fn(&Config) -> U,
    clock: Clock,
    orders: &mut mpsc::Receiver<Order>,
    ready: oneshot::Sender<()>,
    lasting: &Lasting,
) -> Option<(Config, oneshot::Sender<()>)> {
    if !clock.now().synced {
        tracing::warn!("the clock is not synchronised yet: until it is, messages say \"synced\":false");
    }
    let Opened { outbox, saved } = Outbox::open(&config.buffer, &config.gateway.state_dir, clock.clone());
    let process_stats = Arc::default();
    let table = SeriesTable::new(rules(&config), clock.now(), clock.era(), Arc::clone(&process_stats));
    let table = resume(table, saved, &outbox, &clock).await;
    let (forward_stats, replay) = (Arc::<forward::Stats>::default(), config.buffer.replay);

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        epoch = outbox.epoch(),
        sources = config.sources.len(),
        waiting = outbox.stats().waiting(),
        "weir starts"
    );

    let taps = Taps::default();
    let answers = Answers {
        outbox: outbox.clone(),
        format: config.format,
        gateway: uplink(&config).gateway().ok(),
        buffer: config.buffer.clone(),
        taps: taps.clone(),
        clock: clock.clone(),
        forward: Arc::clone(&forward_stats),
    };
    let mut answering = answer(&config.gateway.runtime_dir, answers);

    let (inlet, to_do) = channel(lasting.progress.clone());
    let intake =
        Intake::new(inlet.clone(), clock.clone(), lasting.memories.clone(), lasting.ports.clone(), taps);
    let processing = tokio::spawn(process::run(to_do, table, outbox.clone(), clock.clone()));
    let (ways, mut next_way) = mpsc::channel(1);
    // One uplink after the other. It is no task of its own, as an uplink need not be `Send`.
    let forwarding = async {
        while let Some(Some((uplink, format, stop))) = next_way.recv().await {
            let (outbox, clock, stats) = (outbox.clone(), clock.clone(), Arc::clone(&forward_stats));
            Forward { outbox, format, replay, clock, stats }.run(uplink, stop).await;
        }
        next_way.close();
    };
    let state_dir = config.gateway.state_dir.clone();
    let look = Look::default();
    let agent = Agent { uplink, intake, inlet, processing, ways, way: None, look };
    let ((), (table, next)) = tokio::join!(forwarding, agent.obey(config, orders, ready));
    let saved = match table {
        Some(table) => save(table, &outbox, &clock).await,
        None => None,
    };
    // The next run's socket takes the place of this one's.
    answering.shutdown().await;
    outbox.close(saved).await;
    stats::log(&process_stats, &outbox.stats(), &forward_stats);
    let left = outbox.stats().waiting();
    if next.as_ref().is_some_and(|(config, _)| config.gateway.state_dir != state_dir) && left > 0 {
        tracing::warn!(
            messages = left, dir = %state_dir.display(),
            "with another `state_dir` these stay behind unsent: to send them, run weir on the old one once more"
        );
    }
    next
}

/// Answers on the control socket, where there can be one. weir does its work without it too.
fn answer(runtime_dir: &Path, answers: Answers) -> JoinSet<()> {
    let mut answering = JoinSet::new();
    match Control::open(runtime_dir) {
        Ok(control) => {
            answering.spawn(control.serve(move |question, reply| answers.clone().answer(question, reply)));
        }
        Err(error) => tracing::warn!(
            "no control socket in {}: {error} (commands such as `weir buffer` cannot ask this weir)",
            runtime_dir.display()
        ),
    }
    answering
}

fn rules(config: &Config) -> Rules {
    Rules {
        max_series: config.limits.max_series,
        max_ahead: config.clock.max_ahead,
        filters: config.filters.clone(),
        windows: config.windows.clone(),
        stale_after: config.stale_after.clone(),
    }
}

/// A running agent, as one holds it who gives it orders.
struct Agent<U, F> {
    uplink: F,
    intake: Intake,
    inlet: Inlet,
    processing: JoinHandle<SeriesTable>,
    /// Each is used until it is told to stop, and then the next; `None` ends that.
    ways: mpsc::Sender<Option<(U, Format, Stop)>>,
    /// Stops forwarding over the uplink in use.
    way: Option<Stopper>,
    /// Has it look again at what may have changed beside the file.
    look: Look,
}

impl<U: Uplink, F: Fn(&Config) -> U> Agent<U, F> {
    /// Starts, and does what it is told until that is to stop. Gives the series, and the file to begin anew with if
    /// that is why it stopped.
    async fn obey(
        mut self,
        mut config: Config,
        orders: &mut mpsc::Receiver<Order>,
        ready: oneshot::Sender<()>,
    ) -> (Option<SeriesTable>, Option<(Config, oneshot::Sender<()>)>) {
        self.forward(&config).await;
        self.intake.read(config.sources.clone()).await;
        // Nobody may wait for it, here and below.
        let _ = ready.send(());
        loop {
            match orders.recv().await {
                None | Some(Order::Stop) => {
                    tracing::info!("stopping");
                    return (self.stop().await, None);
                }
                Some(Order::Reload(new, done)) if begins_anew(&config, &new) => {
                    tracing::info!("starting anew, as what the whole agent stands on has changed");
                    self.end_forwarding().await;
                    return (self.stop().await, Some((*new, done)));
                }
                Some(Order::Reload(new, done)) => {
                    self.change(&config, &new).await;
                    config = *new;
                    let _ = done.send(());
                }
                Some(Order::Probe(answer)) => {
                    let inlet = self.inlet.clone();
                    // Where the channel is full this waits, and takes no other order's time.
                    tokio::spawn(async move { inlet.tell(Work::Probe(answer)).await });
                }
            }
        }
    }

    /// Changes what differs, and nothing else.
    async fn change(&mut self, old: &Config, new: &Config) {
        let (old_rules, new_rules) = (rules(old), rules(new));
        if old_rules != new_rules {
            self.inlet.tell(Work::Rules(new_rules)).await;
        }
        if old.sources != new.sources {
            self.intake.read(new.sources.clone()).await;
        }
        if (&old.uplink, old.format) != (&new.uplink, new.format) {
            self.forward(new).await;
        } else {
            self.look.again();
        }
    }

    /// Forwards as `config` says from now on. What is on its way on the old connection is given its grace first.
    async fn forward(&mut self, config: &Config) {
        let (stopper, stop) = stop::stop();
        // The one before is dropped here, and so told to stop.
        self.way = Some(stopper);
        let uplink = (self.uplink)(config);
        self.look = uplink.look();
        let _ = self.ways.send(Some((uplink, config.format, stop))).await;
    }

    /// Gives what is on its way its grace while the sources are still read, so that they are closed only for as long
    /// as it takes to open them again. What they bring meanwhile is kept for the next run.
    async fn end_forwarding(&mut self) {
        self.way = None;
        let _ = self.ways.send(None).await;
        self.ways.closed().await;
    }

    /// Stops the stages one after the other. The series are lost only in a panic, which ends a release build anyway.
    async fn stop(self) -> Option<SeriesTable> {
        drop(self.inlet);
        self.intake.end().await;
        self.processing.await.ok()
        // `way` is dropped last: forwarding ends, with its grace for what is on its way.
    }
}

/// Whether the file changes what cannot be changed under a running agent: where it keeps things and how, its name, and
/// whom it believes the time.
fn begins_anew(old: &Config, new: &Config) -> bool {
    old.gateway != new.gateway || old.buffer != new.buffer || old.clock.trust != new.clock.trust
}

/// The table of series, with the windows of the run before.
async fn resume(
    mut table: SeriesTable,
    saved: Option<Vec<u8>>,
    outbox: &Outbox,
    clock: &Clock,
) -> SeriesTable {
    if let Some(saved) = saved {
        let mut messages = Vec::new();
        if let Err(error) = table.resume(&saved, clock.boot(), clock.now(), &mut messages) {
            tracing::error!(%error, "the open windows of the last run cannot be read and are lost");
        }
        outbox.append(messages).await;
    }
    table
}

/// The open windows for the next run; where they are too large for that they are closed as partial instead.
async fn save(mut table: SeriesTable, outbox: &Outbox, clock: &Clock) -> Option<Vec<u8>> {
    let saved = table.save(clock.boot())?;
    let (bytes, most) = (saved.len(), outbox.saved_max());
    if bytes <= most {
        return Some(saved);
    }
    tracing::warn!(
        bytes,
        most,
        "the open windows are too large to be resumed by the next run: sent as partial"
    );
    let mut messages = Vec::new();
    table.close_all(&mut messages);
    outbox.append(messages).await;
    None
}

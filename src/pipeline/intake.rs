//! The sources that are read now, each by a task of its own, and what becomes of them when the file changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::channel::Inlet;
use super::process::Work;
use super::stop::{self, Stopper};
use super::{collect, stats};
use crate::clock::Clock;
use crate::sources::coap::Memory;
use crate::sources::modbus::Ports;
use crate::sources::tap::Watcher;
use crate::sources::{self, AnySource, Config, Context, Tap};

/// All that is read. Dropped, nothing is.
pub(super) struct Intake {
    inlet: Inlet,
    clock: Clock,
    memories: Memories,
    ports: Ports,
    taps: Taps,
    read: Vec<Read>,
}

/// The taps of the sources that are read, by their names. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Taps(Arc<Mutex<BTreeMap<Arc<str>, Place>>>);

/// Where one looks on, and what to look at where nothing comes in.
type Place = (Tap, &'static str);

impl Taps {
    /// Looks on at the source of that name; with it, what to look at where nothing comes in.
    ///
    /// # Errors
    /// Where there is none, the names of those that there are.
    pub(super) fn watch(
        &self,
        source: &str,
        clock: &Clock,
    ) -> Result<(Watcher, &'static str), Vec<Arc<str>>> {
        let taps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = taps.get(source).map(|(tap, where_to_look)| (tap.watch(clock.clone()), *where_to_look));
        found.ok_or_else(|| taps.keys().cloned().collect())
    }

    fn are_of(&self, read: &[Read]) {
        let of = |read: &Read| (read.name.clone(), (read.stats.tap().clone(), read.config.where_to_look()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = read.iter().map(of).collect();
    }
}

/// What each source remembers, by its name: for as long as the file has it, over runs that begin anew. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Memories(Arc<Mutex<HashMap<Arc<str>, Memory>>>);

impl Memories {
    fn of(&self, source: &Arc<str>) -> Memory {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(source.clone()).or_default().clone()
    }

    fn keep_only(&self, sources: &[(Arc<str>, Config)]) {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memories.retain(|known, _| sources.iter().any(|(name, _)| name == known));
    }
}

/// One source.
struct Read {
    name: Arc<str>,
    config: Config,
    stats: Arc<sources::Stats>,
    stopper: Stopper,
    task: JoinHandle<()>,
}

impl Intake {
    /// Nothing yet. What is read will go into `inlet`.
    pub(super) fn new(inlet: Inlet, clock: Clock, memories: Memories, ports: Ports, taps: Taps) -> Self {
        Self { inlet, clock, memories, ports, taps, read: Vec::new() }
    }

    /// Reads these sources from now on, and no others. One whose table is as it was goes on undisturbed; one whose
    /// table has changed is closed before it is opened again, and counts on. Ends once each new one is open, or waits
    /// to be opened again.
    pub(super) async fn read(&mut self, sources: Vec<(Arc<str>, Config)>) {
        self.memories.keep_only(&sources);
        let mut before = std::mem::take(&mut self.read);
        let mut begin = Vec::new();
        for (name, config) in sources {
            let known = before.iter().position(|read| read.name == name);
            match known.map(|place| before.swap_remove(place)) {
                Some(read) if read.config == config => self.read.push(read),
                Some(read) => begin.push((name, config, read.stop().await)),
                None => begin.push((name, config, Arc::default())),
            }
        }
        // Whoever is gone has let go of its port before a new one asks for it.
        for read in before {
            let name = read.name.clone();
            stats::log_source(&name, &*read.stop().await);
            self.inlet.tell(Work::Gone(name)).await;
        }
        let mut tried = Vec::new();
        for (name, config, stats) in begin {
            let (stopper, stop) = stop::stop();
            let (trying, waits) = oneshot::channel();
            let context = Context {
                name: name.clone(),
                clock: self.clock.clone(),
                stats: stats.clone(),
                memory: self.memories.of(&name),
                ports: self.ports.clone(),
            };
            let collect =
                collect::run::<AnySource>(config.clone(), context, self.inlet.clone(), trying, stop);
            let task = tokio::spawn(collect);
            self.read.push(Read { name, config, stats, stopper, task });
            tried.push(waits);
        }
        self.taps.are_of(&self.read);
        for waits in tried {
            // An error means that it ended before it could try, and so does not wait for anything either.
            let _ = waits.await;
        }
    }

    /// Reads nothing any more; what was read is in the channel, which is closed with this.
    pub(super) async fn end(self) {
        self.read.iter().for_each(|read| read.stopper.stop());
        for read in self.read {
            stats::log_source(&read.name.clone(), &*read.stop().await);
        }
    }
}

impl Read {
    /// Gives its counters once it has handed over what it has read.
    async fn stop(self) -> Arc<sources::Stats> {
        self.stopper.stop();
        // An error is a panic, which ends a release build anyway.
        let _ = self.task.await;
        self.stats
    }
}

//! The log speaks when something changes, and is silent otherwise.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use weir::clock::Clock;
use weir::config::Config;
use weir::model::{Kind, Publication, Timestamp};
use weir::pipeline::{self, Order};
use weir::uplink::{Broken, Event, Limits, LinkError, Session, TooLarge, Uplink};

/// Every line that is logged, with its fields, without its time.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        // Only weir's own lines: the libraries' trace events are not written at any level that people use.
        if event.metadata().target().starts_with("weir") {
            self.0.lock().unwrap().push(line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

/// A cloud that takes everything at once.
struct Cloud(Arc<Mutex<u64>>);

struct Connection {
    answers: VecDeque<Event>,
    given: Notify,
    taken: Arc<Mutex<u64>>,
}

impl Uplink for Cloud {
    type Session = Connection;

    fn gateway(&mut self) -> Result<Arc<str>, LinkError> {
        Ok("gw-042".into())
    }

    async fn connect(&mut self, _: Publication) -> Result<Connection, LinkError> {
        Ok(Connection { answers: VecDeque::new(), given: Notify::new(), taken: self.0.clone() })
    }
}

impl Session for Connection {
    fn peer(&self) -> String {
        "cloud".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits { in_flight: 64, in_flight_bytes: 32 << 10 }
    }

    fn send(&mut self, publication: Publication) -> Result<(), TooLarge> {
        if matches!(publication.kind, Kind::Data { .. }) {
            *self.taken.lock().unwrap() += 1;
        }
        if !publication.ids.is_empty() {
            self.answers.push_back(Event::Acknowledged(publication.ids));
            self.given.notify_one();
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Event, Broken> {
        loop {
            if let Some(event) = self.answers.pop_front() {
                return Ok(event);
            }
            self.given.notified().await;
        }
    }

    async fn close(self) {}
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_quiet_hour_has_no_repeated_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.toml");
    let text = format!(
        "[gateway]\nid = 'gw-042'\nstate_dir = '{dir}'\nruntime_dir = '{dir}'\n\
         [sources.hall]\ntype = 'simulated'\ndevices = 3\nevery = '1s'\n\
         [sources.later]\ntype = 'serial'\nport = '{dir}/no-such-port'\ndecode = {{ type = 'json' }}\n\
         [[windows]]\nmatch = '*/temperature'\ntype = 'tumbling'\nevery = '10s'\naggregates = ['count', 'mean']\n\
         [uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1'\n",
        dir = dir.path().display()
    );
    fs::write(&file, text).unwrap();
    let Ok(loaded) = weir::config::load(&file) else { unreachable!("the file is right") };

    let lines = Lines::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines.clone())).unwrap();
    let taken = Arc::new(Mutex::new(0));
    let clock = Clock::injected(Timestamp(1_795_422_500_000), true);
    let (orders, mut told) = mpsc::channel(1);
    let hour = async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        orders.send(Order::Stop).await.unwrap();
    };
    let (ready, is_ready) = oneshot::channel();
    let cloud = |_: &Config| Cloud(taken.clone());
    tokio::join!(pipeline::run_with(loaded.config, cloud, clock, &mut told, ready), hour);
    assert_eq!(is_ready.await, Ok(()), "it was ready with a sensor missing");

    let lines = lines.0.lock().unwrap().clone();
    let mut seen = HashSet::new();
    let repeated: Vec<_> = lines.iter().filter(|line| !seen.insert(*line)).collect();
    assert!(repeated.is_empty(), "repeated: {repeated:#?}\nall: {lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("no-such-port")),
        "the missing sensor is told once: {lines:#?}"
    );
    // An hour of three devices: 360 windows each, and a pressure each second.
    let taken = *taken.lock().unwrap();
    assert!(taken > 3 * (360 + 3600) - 20, "only {taken} messages: the hour was not lived through");
}

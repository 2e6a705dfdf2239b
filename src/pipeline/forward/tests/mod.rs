mod poison;
mod refusals;
mod replay;
mod sessions;

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::model::{Body, Id, Message, Metric, Value};
use crate::outbox;
use crate::pipeline::stop::{Stopper, stop};
use crate::pipeline::trouble::STEADY;
use crate::uplink::{Broken, Event, Lasting, Limits, Session, TooLarge};

/// The other side, as a test plays it.
struct Cloud {
    sent: mpsc::UnboundedReceiver<Publication>,
    answers: mpsc::UnboundedSender<Result<Event, Broken>>,
    unheard: Arc<AtomicUsize>,
}

/// An uplink whose sessions are given out one by one; without one left it cannot be reached.
struct Scripted {
    sessions: Vec<Scene>,
    wills: Arc<Mutex<Vec<String>>>,
}

struct Scene {
    limits: Limits,
    sent: mpsc::UnboundedSender<Publication>,
    answers: mpsc::UnboundedReceiver<Result<Event, Broken>>,
    /// The most answers that were there and not heard when something was sent.
    unheard: Arc<AtomicUsize>,
}

const WIDE: Limits = Limits { in_flight: 64, in_flight_bytes: 32 << 10 };
/// Above this a publication is too large for the scripted session.
const LARGEST: usize = 400;

fn scene(limits: Limits) -> (Cloud, Scene) {
    let (give, sent) = mpsc::unbounded_channel();
    let (answers, take) = mpsc::unbounded_channel();
    let unheard = Arc::<AtomicUsize>::default();
    let cloud = Cloud { sent, answers, unheard: Arc::clone(&unheard) };
    (cloud, Scene { limits, sent: give, answers: take, unheard })
}

/// As many sessions, one after the other.
fn scenes(count: usize) -> (Vec<Cloud>, Vec<Scene>) {
    (0..count).map(|_| scene(WIDE)).unzip()
}

fn error(what: &str) -> LinkError {
    LinkError { what: what.into(), hint: None }
}

fn lost(what: &str) -> Broken {
    Broken::Lost(error(what))
}

fn closed() -> Broken {
    Broken::Closed(error("the broker closed the connection"))
}

impl Uplink for Scripted {
    type Session = Scene;

    fn gateway(&mut self) -> Result<Arc<str>, LinkError> {
        Ok("gw".into())
    }

    async fn connect(&mut self, will: Publication) -> Result<Scene, LinkError> {
        self.wills.lock().unwrap().push(String::from_utf8(will.payload).unwrap());
        if self.sessions.is_empty() { Err(error("nobody is there")) } else { Ok(self.sessions.remove(0)) }
    }
}

impl Session for Scene {
    fn peer(&self) -> String {
        "cloud".to_owned()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn send(&mut self, publication: Publication) -> Result<(), TooLarge> {
        if publication.payload.len() > LARGEST {
            return Err(TooLarge { size: publication.payload.len(), limit: LARGEST });
        }
        self.unheard.fetch_max(self.answers.len(), Ordering::Relaxed);
        self.sent.send(publication).unwrap();
        Ok(())
    }

    async fn next(&mut self) -> Result<Event, Broken> {
        self.answers.recv().await.unwrap_or_else(|| Err(lost("the test is over")))
    }

    async fn close(self) {}
}

struct Run {
    outbox: Outbox,
    stats: Arc<Stats>,
    stopper: Stopper,
    wills: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn run(sessions: Vec<Scene>) -> Run {
    run_with(sessions, Replay::default())
}

fn run_with(sessions: Vec<Scene>, replay: Replay) -> Run {
    run_by(Clock::injected(Timestamp(1_795_422_500_000), true), sessions, replay)
}

fn run_by(clock: Clock, sessions: Vec<Scene>, replay: Replay) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&outbox::Config::default(), dir.path(), clock.clone()).outbox;
    let (stats, wills) = (Arc::<Stats>::default(), Arc::<Mutex<Vec<String>>>::default());
    let forward =
        Forward { outbox: outbox.clone(), format: Format::Json, replay, clock, stats: stats.clone() };
    let (stopper, stop) = stop();
    let task = tokio::spawn(forward.run(Scripted { sessions, wills: wills.clone() }, stop));
    Run { outbox, stats, stopper, wills, task, _dir: dir }
}

fn message(device: &str) -> Message {
    let body = Body::Values { time: Timestamp(1) };
    let (source, device) = ("line".into(), device.into());
    Message {
        source,
        device,
        body,
        metrics: vec![],
        readings: 1,
        synced: true,
        era: None,
        ahead: None,
        told: None,
        stale: None,
    }
}

fn messages(count: usize) -> Vec<Message> {
    (0..count).map(|n| message(&format!("device-{n}"))).collect()
}

/// What became of a session that [`Cloud::play`] played.
#[derive(Debug, Default)]
struct Played {
    /// The devices whose messages were taken, in order.
    devices: Vec<String>,
    /// The gap records that were taken.
    gaps: Vec<String>,
    closed: bool,
}

fn is_data(publication: &Publication) -> bool {
    matches!(publication.kind, Kind::Data { .. })
}

fn is_of(publication: &Publication, device: &str) -> bool {
    matches!(&publication.kind, Kind::Data { device: of } if **of == *device)
}

/// Longer than `forward` ever pauses.
const SILENCE: Duration = Duration::from_secs(65);

impl Cloud {
    /// Takes everything, until it closes on something or nothing more comes for longer than any pause.
    async fn play(&mut self, closes_on: impl Fn(&Publication) -> bool) -> Played {
        let mut played = Played::default();
        while let Ok(Some(publication)) = tokio::time::timeout(SILENCE, self.sent.recv()).await {
            if closes_on(&publication) {
                self.answers.send(Err(closed())).unwrap();
                played.closed = true;
                break;
            }
            match publication.kind {
                Kind::Data { device } => played.devices.push(device.to_string()),
                Kind::Gap => played.gaps.push(String::from_utf8(publication.payload).unwrap()),
                Kind::Status => {}
            }
            // Where the session has ended, nobody hears it.
            let _ = self.answers.send(Ok(Event::Acknowledged(publication.ids)));
        }
        played
    }

    async fn next(&mut self) -> Publication {
        self.sent.recv().await.unwrap()
    }

    /// The devices of the next publications, and their ids.
    async fn take(&mut self, count: usize) -> (Vec<String>, Vec<Id>) {
        let (mut devices, mut ids) = (Vec::new(), Vec::new());
        while devices.len() < count {
            let publication = self.next().await;
            if let Kind::Data { device } = publication.kind {
                devices.push(device.to_string());
                ids.extend(publication.ids);
            }
        }
        (devices, ids)
    }

    fn say(&self, event: Event) {
        self.answers.send(Ok(event)).unwrap();
    }

    fn refuse(&self, id: Id, lasting: Lasting) {
        self.say(Event::Refused { ids: vec![id], lasting, reason: "no".into() });
    }
}

use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::model::{Body, Message, Metric, Value};
use crate::outbox;
use crate::pipeline::stop::{Stopper, stop};
use crate::pipeline::trouble::STEADY;
use crate::uplink::{Limits, TooLarge};

/// The other side, as a test plays it.
struct Cloud {
    sent: mpsc::UnboundedReceiver<Publication>,
    answers: mpsc::UnboundedSender<Result<Event, LinkError>>,
}

/// An uplink whose sessions are given out one by one; without one left it cannot be reached.
struct Scripted {
    sessions: Vec<Scene>,
    wills: Arc<Mutex<Vec<String>>>,
}

struct Scene {
    limits: Limits,
    sent: mpsc::UnboundedSender<Publication>,
    answers: mpsc::UnboundedReceiver<Result<Event, LinkError>>,
}

const WIDE: Limits = Limits { in_flight: 64, in_flight_bytes: 32 << 10 };
/// Above this a publication is too large for the scripted session.
const LARGEST: usize = 400;

fn scene(limits: Limits) -> (Cloud, Scene) {
    let (give, sent) = mpsc::unbounded_channel();
    let (answers, take) = mpsc::unbounded_channel();
    (Cloud { sent, answers }, Scene { limits, sent: give, answers: take })
}

fn error(what: &str) -> LinkError {
    LinkError { what: what.into(), hint: None }
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
    fn limits(&self) -> Limits {
        self.limits
    }

    fn send(&mut self, publication: Publication) -> Result<(), TooLarge> {
        if publication.payload.len() > LARGEST {
            return Err(TooLarge { size: publication.payload.len(), limit: LARGEST });
        }
        self.sent.send(publication).unwrap();
        Ok(())
    }

    async fn next(&mut self) -> Result<Event, LinkError> {
        self.answers.recv().await.unwrap_or_else(|| Err(error("the test is over")))
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
    run_by(Clock::injected(Timestamp(1_795_422_500_000), true), sessions)
}

fn run_by(clock: Clock, sessions: Vec<Scene>) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&outbox::Config::default(), dir.path(), clock.clone()).outbox;
    let (stats, wills) = (Arc::<Stats>::default(), Arc::<Mutex<Vec<String>>>::default());
    let forward = Forward { outbox: outbox.clone(), format: Format::Json, clock, stats: stats.clone() };
    let (stopper, stop) = stop();
    let task = tokio::spawn(forward.run(Scripted { sessions, wills: wills.clone() }, stop));
    Run { outbox, stats, stopper, wills, task, _dir: dir }
}

fn message(device: &str) -> Message {
    let body = Body::Values { time: Timestamp(1) };
    let (source, device) = ("line".into(), device.into());
    Message { source, device, body, metrics: vec![], readings: 1, synced: true, era: None, ahead: None }
}

fn messages(count: usize) -> Vec<Message> {
    (0..count).map(|n| message(&format!("device-{n}"))).collect()
}

impl Cloud {
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

#[tokio::test(start_paused = true)]
async fn a_session_begins_with_online_and_ends_in_order_with_offline_and_leaves_the_same_as_its_will() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    let online = cloud.next().await;
    assert_eq!(online.kind, Kind::Status);
    assert!(String::from_utf8(online.payload).unwrap().starts_with(r#"{"online":true,"#));
    run.stopper.stop();
    let offline = String::from_utf8(cloud.next().await.payload).unwrap();
    run.task.await.unwrap();
    assert!(offline.starts_with(r#"{"online":false,"#));
    assert_eq!(*run.wills.lock().unwrap(), [offline]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_sends_what_waits_by_then_and_leaves_what_comes_after_it() {
    let (mut cloud, scene) = scene(Limits { in_flight: 2, ..WIDE });
    let run = run(vec![scene]);
    run.outbox.append(messages(3)).await;
    let (_, ids) = cloud.take(2).await;
    run.stopper.stop();
    tokio::task::yield_now().await;
    // A source that goes on, as in a change of the uplink.
    run.outbox.append(messages(4)).await;
    cloud.say(Event::Acknowledged(ids));
    let (_, ids) = cloud.take(1).await;
    cloud.say(Event::Acknowledged(ids));
    run.task.await.unwrap();
    let offline = cloud.next().await;
    assert_eq!(offline.kind, Kind::Status, "nothing that came later went out first");
    assert_eq!(run.outbox.stats().waiting(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_answered_when_a_session_ends_is_sent_again_in_order_under_its_ids() {
    let ((mut first, one), (mut second, two)) = (scene(WIDE), scene(WIDE));
    let run = run(vec![one, two]);
    run.outbox.append(messages(4)).await;
    let (_, ids) = first.take(4).await;
    first.say(Event::Acknowledged(vec![ids[1]]));
    first.answers.send(Err(error("the link is down"))).unwrap();
    let (devices, again) = second.take(3).await;
    assert_eq!(devices, ["device-0", "device-2", "device-3"]);
    assert_eq!(again, [ids[0], ids[2], ids[3]]);
    assert_eq!(run.wills.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_in_flight_than_the_session_takes_in_messages_and_in_bytes() {
    let size = {
        let mut payload = Vec::new();
        let id = Id { epoch: 1_795_422_500, sequence: 1 };
        Format::Json.message(id, "gw", &message("device-0"), &mut payload);
        payload.len()
    };
    for limits in [
        Limits { in_flight: 3, in_flight_bytes: 32 << 10 },
        Limits { in_flight: 64, in_flight_bytes: 3 * size + size / 2 },
    ] {
        let (mut cloud, scene) = scene(limits);
        let run = run(vec![scene]);
        run.outbox.append(messages(8)).await;
        let (_, ids) = cloud.take(3).await;
        // Everything that could be sent has been once a second has passed.
        sleep(Duration::from_secs(1)).await;
        assert!(cloud.sent.try_recv().is_err(), "more than three under {limits:?}");
        cloud.say(Event::Acknowledged(vec![ids[0]]));
        assert_eq!(cloud.take(1).await.0, ["device-3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_publication_is_allowed_whatever_its_size() {
    let (mut cloud, scene) = scene(Limits { in_flight: 64, in_flight_bytes: 1 });
    let run = run(vec![scene]);
    run.outbox.append(messages(2)).await;
    let (_, ids) = cloud.take(1).await;
    cloud.say(Event::Acknowledged(ids));
    assert_eq!(cloud.take(1).await.0, ["device-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_is_sent_again_after_a_pause() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = cloud.take(1).await;
    let clock = Clock::injected(Timestamp(0), true);
    cloud.refuse(ids[0], Lasting::Retry);
    assert_eq!(cloud.take(1).await.1, ids);
    assert!(clock.monotonic() >= Backoff::FLOOR);
    assert_eq!(run.stats.put_off.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_or_too_large_is_told_as_a_gap_and_the_rest_goes_on() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    let mut large = message("large");
    let text = Value::Text("x".repeat(LARGEST).into());
    large.metrics = vec![Metric { name: "text".into(), unit: None, fields: vec![("value".into(), text)] }];
    run.outbox.append(vec![message("poison"), large, message("good")]).await;
    let (devices, ids) = cloud.take(2).await;
    assert_eq!(devices, ["poison", "good"]);
    cloud.refuse(ids[0], Lasting::Forever);
    let mut causes = Vec::new();
    while causes.len() < 2 {
        let publication = cloud.next().await;
        assert_eq!(publication.kind, Kind::Gap);
        let gap: serde_json::Value = serde_json::from_slice(&publication.payload).unwrap();
        assert_eq!((&gap["messages"], &gap["readings"]), (&1.into(), &1.into()));
        causes.push(gap["cause"].as_str().unwrap().to_owned());
        cloud.say(Event::Acknowledged(publication.ids));
    }
    causes.sort();
    assert_eq!(causes, ["refused", "too_large"]);
    assert_eq!(run.stats.given_up.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_gap_record_that_is_refused_is_told_again_in_the_next_session() {
    let ((mut first, one), (mut second, two)) = (scene(WIDE), scene(WIDE));
    let run = run(vec![one, two]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = first.take(1).await;
    first.refuse(ids[0], Lasting::Forever);
    let gap = first.next().await;
    assert_eq!(gap.kind, Kind::Gap);
    first.refuse(gap.ids[0], Lasting::Forever);
    first.answers.send(Err(error("the link is down"))).unwrap();
    assert_eq!(second.next().await.kind, Kind::Status);
    assert_eq!(second.next().await, gap);
}

#[tokio::test(start_paused = true)]
async fn a_gap_record_that_is_refused_for_now_is_told_again_in_the_same_session() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = cloud.take(1).await;
    cloud.refuse(ids[0], Lasting::Forever);
    let gap = cloud.next().await;
    cloud.refuse(gap.ids[0], Lasting::Retry);
    let again = tokio::time::timeout(Duration::from_secs(600), cloud.next()).await;
    assert_eq!(again.as_ref(), Ok(&gap));
    cloud.say(Event::Acknowledged(gap.ids));
    let more = tokio::time::timeout(Duration::from_secs(600), cloud.next()).await;
    assert!(more.is_err(), "it is told once it was taken");
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_on_its_way_and_not_for_ever() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    run.outbox.append(messages(1)).await;
    cloud.take(1).await;
    let clock = Clock::injected(Timestamp(0), true);
    run.stopper.stop();
    run.task.await.unwrap();
    assert_eq!(clock.monotonic().as_secs(), GRACE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_to_be_renewed_is_drained_and_followed_by_the_next_at_once() {
    let ((mut first, one), (mut second, two)) = (scene(WIDE), scene(WIDE));
    let run = run(vec![one, two]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = first.take(1).await;
    let clock = Clock::injected(Timestamp(0), true);
    tokio::time::sleep(STEADY).await;
    first.say(Event::Renew { why: "the test says so".into() });
    run.outbox.append(messages(1)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(first.sent.try_recv().is_err(), "nothing new is begun on the old session");
    first.say(Event::Acknowledged(ids));
    assert_eq!(second.next().await.kind, Kind::Status);
    assert_eq!(clock.monotonic().as_secs(), STEADY.as_secs() + 1, "without a pause");
    assert_eq!(second.take(1).await.0, ["device-0"]);
    assert!(first.sent.try_recv().is_err(), "it does not say that it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_renewed_again_and_again_is_paced_like_one_that_fails() {
    let mut scenes = Vec::new();
    let mut clouds = Vec::new();
    for _ in 0..8 {
        let (cloud, scene) = scene(WIDE);
        cloud.answers.send(Ok(Event::Renew { why: "the test says so".into() })).unwrap();
        clouds.push(cloud);
        scenes.push(scene);
    }
    let _run = run(scenes);
    let clock = Clock::injected(Timestamp(0), true);
    for cloud in &mut clouds {
        cloud.next().await;
    }
    assert!(clock.monotonic() >= Backoff::FLOOR * 7);
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failure_ends_once_the_clock_is_set_that_certificates_are_held_against() {
    let clock = Clock::injected(Timestamp(0), false);
    let run = run_by(clock.clone(), vec![]);
    let tries = || run.wills.lock().unwrap().len();
    let mut without = Vec::new();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(600)).await;
        let before = tries();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        without.push(tries() - before);
    }
    assert!(without.iter().sum::<usize>() <= 3, "it waits up to a minute by then: {without:?}");
    clock.trust();
    let before = tries();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(tries() > before, "within a second it is tried again");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(tries() > before + 1, "and soon again, should that have failed as well");
}

//! Messages that the broker will not take: it refuses them, closes the connection on them, or they are too large for it.
//! The rest arrives in order, and gap records say so.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::agent::Agent;
use crate::support::broker::{Behaviour, Broker, Seen};
use crate::support::mqtt::Publish;
use crate::support::pki::{Authority, Valid};
use crate::support::pty::Pty;

/// How long all may take: a hunt has pauses of up to 1, 2, 4 and 8 s.
const PATIENCE: Duration = Duration::from_secs(150);

/// A device that counts, a gateway, and a broker that does what it is told and is not there at first.
struct Scene {
    // Ended in this order.
    agent: Agent,
    broker: Broker,
    line: Pty,
    written: u64,
    _dir: tempfile::TempDir,
}

/// The three numbers, and what was reported as lost.
#[derive(Debug)]
struct Verdict {
    lost: usize,
    repeated: usize,
    reordered: usize,
    /// By cause and device.
    gaps: BTreeMap<(String, String), u64>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, repeated, reordered, gaps } = self;
        write!(f, "lost {lost}, repeated {repeated}, reordered {reordered}; reported: {gaps:?}")
    }
}

impl Scene {
    async fn new(uplink: &str, behave: impl FnOnce(&mut Behaviour)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("CA").unwrap();
        let server = authority.server(&["localhost"], Valid::Now).unwrap();
        let client = authority.client("gw-042", Valid::Now).unwrap();
        let client = client.write(dir.path(), "client", &authority).unwrap();
        let mut broker = Broker::start(Some(server.listen_for(&authority).unwrap())).await.unwrap();
        broker.stop().await;
        broker.behave(behave);
        let line = Pty::open().unwrap();
        let config = format!(
            "[sources.line]\ntype = 'serial'\nport = '{}'\nbaud = 115200\n\
             decode = {{ type = 'json', device = 'dev' }}\n\n\
             [buffer]\nspill_after = '200ms'\ncommit_every = '200ms'\n",
            line.port().display()
        );
        let agent = Agent::new(&dir.path().join("gateway"), broker.port(), &client, &config).unwrap();
        agent.configure(&config, uplink).unwrap();
        Self { agent, broker, line, written: 0, _dir: dir }
    }

    /// Starts the agent, and waits until it reads.
    fn start(&mut self) {
        self.agent.start_until("INFO open").unwrap();
    }

    /// The device writes the next numbers; `device` says under which name.
    fn count(&mut self, numbers: u64, device: impl Fn(u64) -> &'static str) {
        for number in self.written..self.written + numbers {
            let device = device(number);
            let metrics = if device == "large" { 20 } else { 0 };
            let more: String = (0..metrics).map(|n| format!(",\"{n}-{}\":1", "x".repeat(90))).collect();
            writeln!(self.line, "{{\"dev\":\"{device}\",\"n\":{number}{more}}}").unwrap();
        }
        self.written += numbers;
        self.line.wait_until_read().unwrap();
    }

    /// Waits until everything that was written is taken, or reported as lost.
    async fn settle(&self) -> Verdict {
        let all = |taken: &Vec<Publish>| {
            let numbers: HashSet<u64> = data(taken).iter().map(number).collect();
            numbers.len() as u64 + gaps(taken).values().sum::<u64>() >= self.written
        };
        if !self.broker.has_taken(PATIENCE, all).await {
            let log = self.agent.log().join("\n");
            panic!("it never arrived: {}\nthe agent's log:\n{log}", self.verdict());
        }
        self.verdict()
    }

    fn verdict(&self) -> Verdict {
        let taken = self.broker.taken();
        let (mut ids, mut numbers) = (HashSet::new(), HashSet::new());
        let (mut repeated, mut reordered, mut latest) = (0, 0, 0);
        for message in data(&taken) {
            if !ids.insert(message["id"].to_string()) {
                repeated += 1;
                continue;
            }
            let number = number(&message);
            reordered += usize::from(number < latest);
            latest = latest.max(number);
            numbers.insert(number);
        }
        let gaps = gaps(&taken);
        let told = usize::try_from(gaps.values().sum::<u64>()).unwrap();
        let lost = usize::try_from(self.written).unwrap().saturating_sub(numbers.len() + told);
        Verdict { lost, repeated, reordered, gaps }
    }

    fn connections(&self) -> usize {
        self.broker.seen().iter().filter(|seen| matches!(seen, Seen::Connected(_))).count()
    }
}

fn data(taken: &[Publish]) -> Vec<Value> {
    let data = taken.iter().filter(|publish| publish.topic.starts_with("weir/gw-042/data/"));
    data.map(|publish| serde_json::from_slice(&publish.payload).unwrap()).collect()
}

fn number(message: &Value) -> u64 {
    message["metrics"]["n"]["value"].as_u64().unwrap()
}

/// The messages that gap records report, by cause and device; each record once.
fn gaps(taken: &[Publish]) -> BTreeMap<(String, String), u64> {
    let mut gaps = BTreeMap::new();
    let mut ids = HashSet::new();
    for publish in taken.iter().filter(|publish| publish.topic == "weir/gw-042/gaps") {
        let gap: Value = serde_json::from_slice(&publish.payload).unwrap();
        if ids.insert(gap["id"].to_string()) {
            let text = |key: &str| gap[key].as_str().unwrap_or_default().to_owned();
            *gaps.entry((text("cause"), text("device"))).or_default() += gap["messages"].as_u64().unwrap();
        }
    }
    gaps
}

/// A backlog of a hundred messages with some of `device` in the middle that the broker will not take: the rest arrives in
/// order, and these are reported under `cause`.
async fn in_a_backlog(
    name: String,
    uplink: String,
    behave: impl FnOnce(&mut Behaviour),
    device: &'static str,
    numbers: &[u64],
    cause: &str,
) -> Scene {
    let mut scene = Scene::new(&uplink, behave).await;
    scene.start();
    scene.count(100, |number| if numbers.contains(&number) { device } else { "counter" });
    scene.broker.listen().await.unwrap();
    let verdict = scene.settle().await;
    println!("{name}: {verdict}; {} connections", scene.connections());
    let told = BTreeMap::from([((cause.to_owned(), device.to_owned()), numbers.len() as u64)]);
    let log = scene.agent.log().join("\n");
    assert_eq!((verdict.lost, verdict.reordered), (0, 0), "{name}: {log}");
    assert_eq!(verdict.gaps, told, "{name}: {log}");
    let numbers: HashSet<_> = data(&scene.broker.taken()).iter().map(number).collect();
    assert_eq!(numbers.len(), 100 - usize::try_from(told.values().sum::<u64>()).unwrap());
    scene
}

/// Cases beside one another: most of their time is pauses.
async fn together<F: Future<Output = ()> + Send + 'static>(cases: impl IntoIterator<Item = F>) {
    let mut running: JoinSet<()> = cases.into_iter().collect();
    while let Some(case) = running.join_next().await {
        case.unwrap();
    }
}

#[tokio::test]
async fn a_message_that_is_refused_for_good_by_a_reason_code_is_reported_and_the_rest_arrives() {
    let cases = [1, 2].into_iter().flat_map(|qos| [0x87, 0x90, 0x99].map(|code| (qos, code)));
    together(cases.map(|(qos, code)| async move {
        let refuse = |behaviour: &mut Behaviour| behaviour.refuse = Some(("poison".into(), code));
        let (name, keys) = (format!("QoS {qos}, refused with {code:#x}"), format!("qos = {qos}"));
        let scene = in_a_backlog(name, keys, refuse, "poison", &[50], "refused").await;
        assert_eq!(scene.connections(), 1);
        assert!(scene.agent.log().iter().any(|line| line.contains("weir buffer dead-letters")));
    }))
    .await;
}

#[tokio::test]
async fn a_message_that_the_broker_closes_the_connection_on_is_found_and_the_rest_arrives() {
    let cases = [("5", None), ("5", Some(0x81)), ("5", Some(0x95)), ("3.1.1", None)];
    together(cases.map(|(protocol, dismiss)| async move {
        let close = |behaviour: &mut Behaviour| {
            (behaviour.close_on, behaviour.dismiss) = (Some("poison".into()), dismiss);
        };
        let name = format!("MQTT {protocol}, closed on with {dismiss:x?}");
        let scene = in_a_backlog(name, protocol_of(protocol), close, "poison", &[50], "poison").await;
        // Closed on it five times; eight, where a reset takes acknowledgements with it and another is suspected first.
        assert!((6..=9).contains(&scene.connections()), "{} connections", scene.connections());
    }))
    .await;
}

#[tokio::test]
async fn poison_in_a_row_is_found_one_after_the_other_at_qos_2_too() {
    let close = |behaviour: &mut Behaviour| behaviour.close_on = Some("poison".into());
    let (name, keys) = ("three in a row".to_owned(), "qos = 2".to_owned());
    in_a_backlog(name, keys, close, "poison", &[50, 51, 52], "poison").await;
}

#[tokio::test]
async fn a_message_that_is_too_large_for_the_broker_is_reported_and_the_rest_arrives() {
    let limit = |behaviour: &mut Behaviour| behaviour.limits.maximum_packet_size = Some(1_500);
    let name = "larger than it takes".to_owned();
    let scene = in_a_backlog(name, String::new(), limit, "large", &[50], "too_large").await;
    assert_eq!(scene.connections(), 1, "it was not even sent");
    together(["5", "3.1.1"].map(|protocol| async move {
        let close = |behaviour: &mut Behaviour| behaviour.close_above = Some(1_500);
        let name = format!("MQTT {protocol}, closed on for its size");
        in_a_backlog(name, protocol_of(protocol), close, "large", &[50], "poison").await;
    }))
    .await;
}

/// It restarts, or another client has the same id.
#[tokio::test]
async fn a_broker_that_closes_on_everything_for_a_while_makes_no_dead_letter() {
    let cases = [
        ("5", "", None),
        ("3.1.1", "", None),
        ("5", "/data/", Some(0x83)),
        ("3.1.1", "/data/", None),
        ("5", "/data/", Some(0x8E)),
        ("5", "/data/", Some(0x8B)),
        ("5", "/data/", Some(0x89)),
    ];
    together(cases.map(|(protocol, topics, dismiss)| async move {
        let close = |behaviour: &mut Behaviour| {
            (behaviour.close_on, behaviour.dismiss) = (Some(topics.into()), dismiss);
        };
        let mut scene = Scene::new(&protocol_of(protocol), close).await;
        scene.start();
        scene.count(100, |_| "counter");
        scene.broker.listen().await.unwrap();
        // Three with all, one with the first alone, and one with another alone: it recovers where it matters.
        let closed = |seen: &Vec<Seen>| seen.iter().filter(|seen| matches!(seen, Seen::Lost(_))).count() >= 5;
        tokio::time::timeout(PATIENCE, scene.broker.wait(closed)).await.unwrap();
        scene.broker.behave(|behaviour| behaviour.close_on = None);
        let verdict = scene.settle().await;
        println!("MQTT {protocol}, closed on topics with {topics:?} with {dismiss:x?}: {verdict}");
        assert_eq!((verdict.lost, verdict.gaps.len()), (0, 0));
        // One that closes on data alone may recover just for the witness, which then comes before the accused.
        let is_hunted = !matches!(dismiss, Some(0x8E | 0x8B | 0x89));
        let most = if is_hunted && topics == "/data/" { 2 } else { 0 };
        assert!(verdict.reordered <= most, "{verdict}");
        let hunted = scene.agent.log().iter().any(|line| line.contains("one at a time"));
        assert_eq!(hunted, is_hunted, "a reason of its own is no evidence");
    }))
    .await;
}

/// Hundreds of them, more than rumqttc has slots for.
#[tokio::test]
async fn refusals_at_qos_2_do_not_stall_the_connection() {
    for (code, most) in [(0x87, None), (0x87, Some(4))] {
        let refuse = |behaviour: &mut Behaviour| {
            behaviour.refuse = Some(("poison".into(), code));
            behaviour.limits.receive_maximum = most;
        };
        let mut scene = Scene::new("qos = 2\nmax_in_flight = 8", refuse).await;
        scene.start();
        scene.count(400, |number| if number % 2 == 0 { "poison" } else { "counter" });
        let start = std::time::Instant::now();
        scene.broker.listen().await.unwrap();
        let verdict = scene.settle().await;
        println!(
            "200 of 400 refused with {code:#x} at QoS 2, receive maximum {most:?}: {verdict}; {} connections in {:?}",
            scene.connections(),
            start.elapsed()
        );
        assert_eq!((verdict.lost, verdict.repeated, verdict.reordered), (0, 0, 0));
        assert_eq!(verdict.gaps.values().sum::<u64>(), 200);
    }
}

fn protocol_of(version: &str) -> String {
    format!("protocol = '{version}'")
}

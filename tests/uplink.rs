//! The MQTT session against a broker that does what it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::broker::{Answers, Behaviour, Broker, Seen};
use weir::clock::Clock;
use weir::model::{Id, Kind, Publication, Timestamp};
use weir::uplink::mqtt::{Config, Mqtt, Session};
use weir::uplink::{Event, Lasting, Session as _, TooLarge, Uplink as _};

const PROTOCOLS: [&str; 2] = ["5", "3.1.1"];

fn uplink_to(port: u16, keys: &str) -> Mqtt {
    let config: Config = toml::from_str(&format!("url = 'mqtt://127.0.0.1:{port}'\n{keys}")).unwrap();
    assert!(weir::uplink::Config::Mqtt(config.clone()).problems().is_empty());
    Mqtt::new(config, Some("gw-042".into()), Clock::injected(Timestamp(1_795_422_500_000), true))
}

async fn connected(broker: &Broker, keys: &str) -> Session {
    uplink_to(broker.port(), keys).connect(status("gone")).await.unwrap()
}

async fn broker(behave: impl FnOnce(&mut Behaviour)) -> Broker {
    let broker = Broker::start(None).await.unwrap();
    broker.behave(behave);
    broker
}

fn status(payload: &str) -> Publication {
    Publication { ids: vec![], kind: Kind::Status, payload: payload.into() }
}

fn id(sequence: u64) -> Id {
    Id { epoch: 1, sequence }
}

fn data(sequence: u64) -> Publication {
    let payload = sequence.to_string().into_bytes();
    Publication { ids: vec![id(sequence)], kind: Kind::Data { device: "boiler".into() }, payload }
}

/// The next message that is acknowledged. A status, which has no id, is passed over.
async fn acknowledged(session: &mut Session) -> u64 {
    loop {
        match session.next().await.unwrap() {
            Event::Acknowledged(ids) if ids.is_empty() => {}
            Event::Acknowledged(ids) => {
                assert_eq!(ids.len(), 1);
                return ids[0].sequence;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_acknowledgement_names_the_message_that_it_is_for_in_whatever_order_it_comes() {
    for protocol in PROTOCOLS {
        for qos in [1, 2] {
            let broker = broker(|behaviour| behaviour.answers = Answers::Reversed(8)).await;
            let mut session = connected(&broker, &format!("protocol = '{protocol}'\nqos = {qos}")).await;
            for sequence in 0..16 {
                session.send(data(sequence)).unwrap();
            }
            let mut order = Vec::new();
            for _ in 0..16 {
                order.push(acknowledged(&mut session).await);
            }
            let expected: Vec<u64> = (0..8).rev().chain((8..16).rev()).collect();
            assert_eq!(order, expected, "MQTT {protocol}, QoS {qos}");
            let received = broker.received();
            let payloads: Vec<_> = received.iter().map(|publish| publish.payload.clone()).collect();
            assert_eq!(
                payloads,
                (0..16).map(|sequence: u64| sequence.to_string().into_bytes()).collect::<Vec<_>>()
            );
            assert!(received.iter().all(|publish| publish.qos == qos && !publish.dup && !publish.retain));
        }
    }
}

#[tokio::test]
async fn qos_0_is_acknowledged_once_it_is_written_out() {
    for protocol in PROTOCOLS {
        let broker = broker(|behaviour| behaviour.answers = Answers::Withheld).await;
        let mut session = connected(&broker, &format!("protocol = '{protocol}'\nqos = 0")).await;
        session.send(data(1)).unwrap();
        session.send(data(2)).unwrap();
        assert_eq!(acknowledged(&mut session).await, 1);
        assert_eq!(acknowledged(&mut session).await, 2);
        broker.wait(|seen| seen.iter().filter(|seen| matches!(seen, Seen::Received(_))).count() == 2).await;
        assert!(broker.received().iter().all(|publish| publish.qos == 0));
    }
}

#[tokio::test]
async fn a_gap_record_and_a_status_are_never_sent_with_less_than_qos_1() {
    let broker = broker(|_| {}).await;
    let mut session = connected(&broker, "qos = 0").await;
    session.send(Publication { ids: vec![id(9)], kind: Kind::Gap, payload: b"gap".to_vec() }).unwrap();
    session.send(status("here")).unwrap();
    assert_eq!(acknowledged(&mut session).await, 9);
    assert_eq!(session.next().await.unwrap(), Event::Acknowledged(vec![]), "a status has no ids");
    session.close().await;
    let received = broker.received();
    let told: Vec<_> = received.iter().map(|p| (p.topic.as_str(), p.qos, p.retain)).collect();
    assert_eq!(told, [("weir/gw-042/gaps", 1, false), ("weir/gw-042/status", 1, true)]);
}

#[tokio::test]
async fn the_brokers_receive_maximum_is_kept_in_whatever_order_it_answers() {
    for qos in [1, 2] {
        let broker = broker(|behaviour| {
            behaviour.limits.receive_maximum = Some(3);
            behaviour.answers = Answers::Reversed(3);
        })
        .await;
        let mut session = connected(&broker, &format!("qos = {qos}")).await;
        assert_eq!(session.limits().in_flight, 3);
        let (mut sent, mut settled) = (0, Vec::new());
        while settled.len() < 300 {
            while sent < 300 && sent - settled.len() < 3 {
                session.send(data(sent as u64)).unwrap();
                sent += 1;
            }
            settled.push(acknowledged(&mut session).await);
        }
        settled.sort_unstable();
        assert_eq!(settled, (0..300).collect::<Vec<_>>());
        assert_eq!(broker.received().len(), 300);
    }
}

#[tokio::test]
async fn a_refusal_says_whether_it_is_for_good_and_why() {
    use Lasting::{Forever, Retry};
    let cases = [
        (0x87, Forever, "not authorised"),
        (0x97, Retry, "quota"),
        (0x80, Retry, "does not say why"),
        (0x90, Forever, "topic"),
        (0x99, Forever, "payload"),
    ];
    for qos in [1, 2] {
        for (code, lasting, words) in cases {
            let broker = broker(|behaviour| behaviour.refuse = Some(("boiler".into(), code))).await;
            let mut session = connected(&broker, &format!("qos = {qos}")).await;
            session.send(data(1)).unwrap();
            let Event::Refused { ids, lasting: told, reason } = session.next().await.unwrap() else {
                panic!("{code:#x} was not refused")
            };
            assert_eq!((ids, told), (vec![id(1)], lasting), "{reason}");
            assert!(reason.contains(words), "{reason}");
            broker.behave(|behaviour| behaviour.refuse = None);
            session.send(data(2)).unwrap();
            assert_eq!(acknowledged(&mut session).await, 2, "the session goes on");
        }
    }
}

#[tokio::test]
async fn what_nobody_subscribes_to_counts_as_taken() {
    let broker = broker(|behaviour| behaviour.refuse = Some(("boiler".into(), 0x10))).await;
    let mut session = connected(&broker, "").await;
    session.send(data(1)).unwrap();
    assert_eq!(acknowledged(&mut session).await, 1);
}

/// The broker ends the connection where more is unanswered than it has allowed.
#[tokio::test]
async fn a_status_waits_its_turn_where_the_brokers_receive_maximum_is_reached() {
    let broker = broker(|behaviour| {
        behaviour.limits.receive_maximum = Some(2);
        behaviour.answers = Answers::Withheld;
    })
    .await;
    let mut session = connected(&broker, "").await;
    session.send(status("online")).unwrap();
    session.send(data(1)).unwrap();
    session.send(data(2)).unwrap();
    session.send(status("still online")).unwrap();
    let two = broker.wait(|seen| seen.iter().filter(|seen| matches!(seen, Seen::Received(_))).count() == 2);
    tokio::select! {
        event = session.next() => panic!("{event:?}"),
        () = two => {}
    }
    broker.behave(|behaviour| behaviour.answers = Answers::AtOnce);
    assert_eq!(acknowledged(&mut session).await, 1);
    assert_eq!(acknowledged(&mut session).await, 2);
    session.close().await;
    let payloads: Vec<_> = broker.received().into_iter().map(|publish| publish.payload).collect();
    assert_eq!(payloads, ["online".into(), "1".into(), "2".into(), Vec::from("still online")]);
}

#[tokio::test]
async fn refusals_of_qos_2_do_not_use_the_connection_up() {
    let broker = broker(|behaviour| {
        behaviour.limits.receive_maximum = Some(2);
        behaviour.refuse = Some(("boiler".into(), 0x97));
    })
    .await;
    let mut session = connected(&broker, "qos = 2\nmax_in_flight = 2").await;
    for sequence in 0..500 {
        session.send(data(sequence)).unwrap();
        let Event::Refused { ids, .. } = session.next().await.unwrap() else { panic!("not refused") };
        assert_eq!(ids, [id(sequence)]);
    }
}

#[tokio::test]
async fn what_is_larger_than_the_broker_takes_is_not_sent_and_the_session_goes_on() {
    for (qos, header) in [(0, 3 + 2 + 23 + 1), (1, 3 + 2 + 23 + 2 + 1)] {
        let broker = broker(|behaviour| behaviour.limits.maximum_packet_size = Some(1024)).await;
        let mut session = connected(&broker, &format!("qos = {qos}")).await;
        let sized = |sequence, payload| Publication { payload: vec![b'x'; payload], ..data(sequence) };
        assert_eq!("weir/gw-042/data/boiler".len(), 23);
        let limit = 1024;
        assert_eq!(session.send(sized(1, limit - header + 1)), Err(TooLarge { size: limit + 1, limit }));
        session.send(sized(2, limit - header)).unwrap();
        assert_eq!(acknowledged(&mut session).await, 2);
        broker.wait(|seen| seen.iter().any(|seen| matches!(seen, Seen::Received(_)))).await;
        assert_eq!(broker.received().len(), 1);
    }
}

#[tokio::test]
async fn a_broker_whose_packets_are_too_small_for_any_message_is_not_worked_with() {
    for limit in [20, 1023] {
        let broker = broker(|behaviour| behaviour.limits.maximum_packet_size = Some(limit)).await;
        let error = uplink_to(broker.port(), "").connect(status("gone")).await.unwrap_err();
        let words = format!("takes packets of at most {limit} bytes, which is too small to work with: raise");
        assert!(error.to_string().contains(&words), "{error}");
    }
}

#[tokio::test]
async fn a_quality_of_service_that_the_broker_does_not_take_is_said() {
    let broker = broker(|behaviour| behaviour.limits.maximum_qos = Some(1)).await;
    let error = uplink_to(broker.port(), "qos = 2").connect(status("gone")).await.unwrap_err();
    assert!(error.to_string().contains("takes QoS 1 at most: set `qos = 1`"), "{error}");
}

/// Waits with tokio's time, which jumps to the next timer: what the code waits for is what takes the time.
#[tokio::test]
async fn a_link_on_which_nothing_is_heard_for_one_and_a_half_keep_alives_is_dead() {
    for protocol in PROTOCOLS {
        let broker = broker(|_| {}).await;
        let mut session = connected(&broker, &format!("protocol = '{protocol}'\nkeep_alive = '20s'")).await;
        session.send(data(1)).unwrap();
        acknowledged(&mut session).await;
        broker.behave(|behaviour| behaviour.silent = true);
        tokio::time::pause();
        let clock = Clock::injected(Timestamp(0), true);
        let error = session.next().await.unwrap_err();
        assert!(error.to_string().contains("nothing was heard of 127.0.0.1"), "{error}");
        assert!((29..=30).contains(&clock.monotonic().as_secs()), "{:?}", clock.monotonic());
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_message_that_goes_unanswered_too_long_ends_the_connection() {
    let broker = broker(|behaviour| behaviour.answers = Answers::Withheld).await;
    let mut session = connected(&broker, "ack_timeout = '7s'\nkeep_alive = '1h'").await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    let clock = Clock::injected(Timestamp(0), true);
    session.send(data(1)).unwrap();
    let error = session.next().await.unwrap_err();
    assert!(error.to_string().contains("has not acknowledged a message for 7s"), "{error}");
    assert_eq!(clock.monotonic().as_secs(), 7);
}

#[tokio::test]
async fn the_brokers_keep_alive_holds_and_one_of_0_is_no_keep_alive_at_all() {
    for (server, expected) in [(0, 19..=30), (10, 14..=15)] {
        let broker = broker(|behaviour| behaviour.limits.server_keep_alive = Some(server)).await;
        let mut session = connected(&broker, "keep_alive = '20s'").await;
        session.send(data(1)).unwrap();
        acknowledged(&mut session).await;
        broker.behave(|behaviour| behaviour.silent = true);
        tokio::time::pause();
        let clock = Clock::injected(Timestamp(0), true);
        session.next().await.unwrap_err();
        assert!(expected.contains(&clock.monotonic().as_secs()), "{:?}", clock.monotonic());
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_session_that_is_closed_leaves_nothing_behind_and_its_will_is_not_published() {
    for protocol in PROTOCOLS {
        let broker = broker(|behaviour| behaviour.answers = Answers::Withheld).await;
        let mut session = connected(&broker, &format!("protocol = '{protocol}'\nmax_in_flight = 1000")).await;
        for sequence in 0..500 {
            session.send(data(sequence)).unwrap();
        }
        session.send(status("leaving")).unwrap();
        session.close().await;
        let seen = broker.seen();
        assert_eq!(broker.received().len(), 501);
        assert_eq!(seen.last(), Some(&Seen::Left));
    }
}

#[tokio::test]
async fn a_session_that_is_dropped_ends_its_connection_and_leaves_its_will() {
    for protocol in PROTOCOLS {
        let broker = broker(|_| {}).await;
        let session = connected(&broker, &format!("protocol = '{protocol}'")).await;
        drop(session);
        broker.wait(|seen| matches!(seen.last(), Some(Seen::Lost(_)))).await;
        let Some(Seen::Lost(Some(will))) = broker.seen().pop() else { panic!("no will") };
        assert_eq!((will.topic.as_str(), will.qos, will.retain), ("weir/gw-042/status", 1, true));
        assert_eq!(will.payload, b"gone");
        let Some(Seen::Connected(connect)) = broker.seen().into_iter().next() else { panic!("no connect") };
        assert_eq!((connect.client_id.as_str(), connect.clean, connect.keep_alive), ("gw-042", true, 30));
    }
}

#[tokio::test]
async fn what_was_answered_before_the_connection_broke_is_told_before_the_error() {
    for protocol in PROTOCOLS {
        let broker = broker(|behaviour| behaviour.close_at = Some(5)).await;
        let mut session = connected(&broker, &format!("protocol = '{protocol}'")).await;
        for sequence in 1..=5 {
            session.send(data(sequence)).unwrap();
        }
        assert_eq!(acknowledged(&mut session).await, 1);
        // The rest is still to be read when this fails to be written.
        broker.wait(|seen| matches!(seen.last(), Some(Seen::Lost(_)))).await;
        session.send(data(6)).unwrap();
        for sequence in 2..=4 {
            assert_eq!(acknowledged(&mut session).await, sequence);
        }
        let error = session.next().await.unwrap_err();
        assert!(error.to_string().contains("closed the connection"), "{error}");
        let again = session.next().await.unwrap_err();
        assert_eq!(again.to_string(), error.to_string(), "an end is final");
    }
}

#[tokio::test]
async fn a_broker_that_says_why_it_ends_the_connection_is_quoted() {
    let cases = [
        (0x8E, "client id `gw-042`"),
        (0x87, "not authorised"),
        (0x8B, "shutting down"),
        (0x89, "too busy"),
        (0x95, "packet was too large"),
        (0x97, "limit of its was exceeded"),
    ];
    for (code, words) in cases {
        let broker = broker(|behaviour| {
            behaviour.close_at = Some(1);
            behaviour.dismiss = Some(code);
        })
        .await;
        let mut session = connected(&broker, "").await;
        session.send(data(1)).unwrap();
        let error = session.next().await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_says_why_and_what_to_do() {
    let cases = [
        ("3.1.1", 1, "set `protocol = \"5\"`"),
        ("3.1.1", 2, "client id `gw-042`: set `client_id`"),
        ("3.1.1", 3, "not available now"),
        ("3.1.1", 4, "user name and password"),
        ("3.1.1", 5, "not authorised"),
        ("5", 0x84, "set `protocol = \"3.1.1\"`"),
        ("5", 0x85, "client id `gw-042`: set `client_id`"),
        ("5", 0x86, "user name and password"),
        ("5", 0x87, "not authorised"),
        ("5", 0x88, "not available now"),
        ("5", 0x89, "not available now"),
        ("5", 0x8A, "banned"),
        ("5", 0x9A, "retained"),
        ("5", 0x9B, "QoS 1"),
    ];
    for (protocol, code, words) in cases {
        let broker = broker(|behaviour| behaviour.connect_code = code).await;
        let keys = format!("protocol = '{protocol}'");
        let error = uplink_to(broker.port(), &keys).connect(status("gone")).await.unwrap_err();
        assert!(error.to_string().contains(words), "{protocol} {code:#x}: {error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{} refused", broker.port())), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named() {
    for protocol in PROTOCOLS {
        let mut broker = broker(|_| {}).await;
        broker.stop().await;
        let keys = format!("protocol = '{protocol}'");
        let error = uplink_to(broker.port(), &keys).connect(status("gone")).await.unwrap_err();
        assert!(
            error.to_string().contains(&format!("nothing listens on 127.0.0.1:{}", broker.port())),
            "{error}"
        );
        broker.listen().await.unwrap();
        connected(&broker, &keys).await.close().await;
    }
}

#[tokio::test]
async fn names_stand_in_topics_percent_encoded() {
    let broker = broker(|_| {}).await;
    let mut session = connected(&broker, "topic = 'plant/{gateway}/{device}/up'").await;
    let kind = Kind::Data { device: "hall/2 +#%\u{7}ü".into() };
    session.send(Publication { kind, ..data(1) }).unwrap();
    assert_eq!(acknowledged(&mut session).await, 1);
    assert_eq!(broker.received()[0].topic, "plant/gw-042/hall%2F2 %2B%23%25%07ü/up");
}

#[tokio::test]
async fn no_answer_is_lost_when_waiting_for_one_is_given_up_again_and_again() {
    let broker = broker(|_| {}).await;
    let mut session = connected(&broker, "").await;
    let (mut sent, mut settled) = (0_u64, 0_u64);
    while settled < 2000 {
        if sent < 2000 && sent - settled < 64 {
            session.send(data(sent)).unwrap();
            sent += 1;
        }
        tokio::select! {
            biased;
            event = session.next() => {
                assert_eq!(event.unwrap(), Event::Acknowledged(vec![id(settled)]));
                settled += 1;
            }
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test]
async fn a_gateway_without_a_name_is_told_how_to_get_one() {
    let config: Config = toml::from_str("url = 'mqtt://localhost'").unwrap();
    let mut uplink = Mqtt::new(config, None, Clock::injected(Timestamp(0), true));
    let error = uplink.gateway().unwrap_err();
    assert!(error.to_string().contains("set `id` under [gateway]"), "{error}");
    let named: Arc<str> = "gw-042".into();
    assert_eq!(uplink_to(1, "").gateway().unwrap(), named);
}

//! Several brokers in `urls`: the first that is to be had, and the way back to the first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::broker::{Broker, Seen};
use weir::clock::Clock;
use weir::model::{Kind, Publication, Timestamp};
use weir::uplink::mqtt::{Config, Mqtt, Session};
use weir::uplink::{Event, LinkError, Session as _, Uplink as _};

struct Site {
    first: Broker,
    second: Broker,
    clock: Clock,
    uplink: Mqtt,
}

impl Site {
    async fn new() -> Self {
        let (first, second) = (Broker::start(None).await.unwrap(), Broker::start(None).await.unwrap());
        let (a, b) = (first.port(), second.port());
        // A keep-alive so long that no ping comes between: paused time would not wait for its answer.
        let keys = format!("urls = ['mqtt://127.0.0.1:{a}', 'mqtt://127.0.0.1:{b}']\nkeep_alive = '18h'");
        let config: Config = toml::from_str(&keys).unwrap();
        assert_eq!(weir::uplink::Config::Mqtt(config.clone()).problems(), []);
        let clock = Clock::injected(Timestamp(1_795_422_500_000), true);
        let uplink = Mqtt::new(config, Some("gw-042".into()), clock.clone());
        Self { first, second, clock, uplink }
    }

    async fn connect(&mut self) -> Result<Session, LinkError> {
        self.uplink.connect(Publication { ids: vec![], kind: Kind::Status, payload: b"gone".to_vec() }).await
    }

    /// How many connections each broker has had.
    fn connections(&self) -> (usize, usize) {
        let connected =
            |broker: &Broker| broker.seen().iter().filter(|seen| matches!(seen, Seen::Connected(_))).count();
        (connected(&self.first), connected(&self.second))
    }

    /// Waits, with tokio's time, for the session to want to be renewed; why, and after how many seconds.
    async fn renewal(&self, session: &mut Session) -> (String, u64) {
        tokio::time::pause();
        let start = self.clock.monotonic();
        let event = session.next().await.unwrap();
        let took = (self.clock.monotonic() - start).as_secs();
        tokio::time::resume();
        match event {
            Event::Renew { why } => (why, took),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_first_broker_is_used_where_it_is_to_be_had_and_the_session_stays_with_it() {
    let mut site = Site::new().await;
    let mut session = site.connect().await.unwrap();
    tokio::time::pause();
    let hour = tokio::time::sleep(Duration::from_secs(3600));
    tokio::select! {
        event = session.next() => panic!("{event:?}"),
        () = hour => {}
    }
    assert_eq!(site.connections(), (1, 0));
}

#[tokio::test]
async fn a_standby_serves_while_the_first_broker_is_away_and_the_session_goes_back_to_it() {
    let mut site = Site::new().await;
    site.first.stop().await;
    let mut session = site.connect().await.unwrap();
    assert_eq!(site.connections(), (0, 1));
    site.first.listen().await.unwrap();
    let (why, took) = site.renewal(&mut session).await;
    assert_eq!(why, format!("127.0.0.1:{} answers again", site.first.port()));
    assert!((45..=60).contains(&took), "{took} s");
    session.close().await;
    let _session = site.connect().await.unwrap();
    assert_eq!(site.connections(), (1, 1), "dialling the first broker was no connection");
}

#[tokio::test]
async fn the_session_asks_once_and_works_on_until_it_is_renewed() {
    let mut site = Site::new().await;
    site.first.stop().await;
    let mut session = site.connect().await.unwrap();
    site.first.listen().await.unwrap();
    site.renewal(&mut session).await;
    tokio::time::pause();
    let hour = tokio::time::sleep(Duration::from_secs(3600));
    tokio::select! {
        event = session.next() => panic!("{event:?}"),
        () = hour => {}
    }
}

#[tokio::test]
async fn a_first_broker_that_answers_and_then_refuses_is_asked_less_and_less_often() {
    let mut site = Site::new().await;
    site.first.behave(|behaviour| behaviour.connect_code = 0x88);
    for minutes in [1, 2, 4, 8, 15, 15] {
        let mut session = site.connect().await.unwrap();
        let (_, took) = site.renewal(&mut session).await;
        assert!((minutes * 45..=minutes * 60).contains(&took), "{took} s");
        session.close().await;
    }
    // It is well again, and then ails anew.
    site.first.behave(|behaviour| behaviour.connect_code = 0);
    site.connect().await.unwrap().close().await;
    site.first.behave(|behaviour| behaviour.connect_code = 0x88);
    let mut session = site.connect().await.unwrap();
    let (_, took) = site.renewal(&mut session).await;
    assert!((45..=60).contains(&took), "{took} s");
}

#[tokio::test]
async fn where_no_broker_is_to_be_had_it_is_said_of_each_why() {
    let mut site = Site::new().await;
    site.first.stop().await;
    site.second.behave(|behaviour| behaviour.connect_code = 0x87);
    let error = site.connect().await.unwrap_err().to_string();
    assert!(error.starts_with("none of 2 brokers is to be had: nothing listens on 127.0.0.1:"), "{error}");
    assert!(error.contains("not authorised"), "{error}");
}

#[tokio::test]
async fn a_first_broker_that_takes_connections_and_says_nothing_costs_ten_seconds_once() {
    let mut site = Site::new().await;
    site.first.behave(|behaviour| behaviour.silent = true);
    tokio::time::pause();
    let start = site.clock.monotonic();
    let session = site.connect().await.unwrap();
    assert_eq!((site.clock.monotonic() - start).as_secs(), 10);
    session.close().await;
    let session = site.connect().await.unwrap();
    assert_eq!((site.clock.monotonic() - start).as_secs(), 10, "the standby is remembered");
    session.close().await;
    // It is not forgotten for that.
    tokio::time::advance(Duration::from_secs(60)).await;
    site.first.behave(|behaviour| behaviour.silent = false);
    let before = site.connections().0;
    let _session = site.connect().await.unwrap();
    assert_eq!(site.connections().0, before + 1);
}

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::*;
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::sources::{Config as AnyConfig, Stats};

fn config(toml: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(toml)
}

fn problems(toml: &str) -> Vec<&'static str> {
    config(toml).unwrap().problems().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn without_a_word_only_this_machine_reaches_it() {
    let config = config("").unwrap();
    assert_eq!(config.listen, "127.0.0.1:5683".parse().unwrap());
    assert_eq!((config.problems(), config.absent()), (Vec::new(), Vec::new()));
}

#[test]
fn who_listens_to_others_must_say_to_whom() {
    for listen in ["0.0.0.0:5683", "[::]:5683", "192.168.10.1:5683", "[::ffff:10.0.0.1]:5683"] {
        assert_eq!(problems(&format!("listen = '{listen}'")), ["listen"], "{listen}");
        assert_eq!(problems(&format!("listen = '{listen}'\nallow = ['10.0.0.0/8']")), [""; 0], "{listen}");
    }
    for listen in ["127.0.0.2:5683", "[::1]:5683", "[::ffff:127.0.0.1]:5683"] {
        assert_eq!(problems(&format!("listen = '{listen}'")), [""; 0], "{listen}");
    }
    assert_eq!(problems("listen = '127.0.0.1:0'"), ["listen"]);
}

#[test]
fn what_is_no_address_says_how_one_looks() {
    for wrong in ["listen = '5683'", "listen = 'localhost:5683'", "allow = ['10.0.0.1/8']", "alow = []"] {
        assert!(config(wrong).is_err(), "{wrong}");
    }
    let error = config("listen = '192.168.10.1'").unwrap_err().to_string();
    assert!(error.contains("`192.168.10.1` is no address") && error.contains("\"[::]:5683\""), "{error}");
}

#[test]
fn two_cannot_listen_at_one_place() {
    let clash = |one: &str, other: &str| {
        let config = |listen| config(&format!("listen = '{listen}'")).unwrap();
        config(one).clashes(&config(other))
    };
    for (one, other) in [
        ("127.0.0.1:5683", "127.0.0.1:5683"),
        ("0.0.0.0:5683", "127.0.0.1:5683"),
        ("[::1]:5683", "[::]:5683"),
        ("[::ffff:127.0.0.1]:5683", "127.0.0.1:5683"),
    ] {
        assert!(clash(one, other) && clash(other, one), "{one} {other}");
    }
    for (one, other) in [
        ("127.0.0.1:5683", "127.0.0.1:5684"),
        ("127.0.0.1:5683", "127.0.0.2:5683"),
        ("127.0.0.1:5683", "[::1]:5683"),
        ("0.0.0.0:5683", "[::]:5683"),
    ] {
        assert!(!clash(one, other) && !clash(other, one), "{one} {other}");
    }
}

#[test]
fn an_address_that_this_machine_has_not_is_told_as_absent() {
    // For documentation: no machine has it (RFC 5737).
    let config = config("listen = '192.0.2.1:5683'\nallow = ['192.0.2.0/24']").unwrap();
    let absent = AnyConfig::CoapServer(config).absent();
    assert_eq!(
        absent,
        [("listen".into(), "this machine has no address 192.0.2.1 now: weir waits for it".to_owned())]
    );
}

fn context() -> Context {
    let clock = Clock::injected(Timestamp(1_700_000_000_000), true);
    Context {
        name: "field".into(),
        clock,
        stats: Arc::new(Stats::default()),
        memory: Memory::default(),
        ports: Default::default(),
    }
}

async fn open(listen: &str, allow: &str, context: &Context) -> (Server, u16) {
    let config = config(&format!("listen = '{listen}'\nallow = {allow}")).unwrap();
    let server = Server::open(&config, context).await.unwrap();
    let port = server.socket.port();
    (server, port)
}

async fn device(at: &str, port: u16) -> UdpSocket {
    let device = UdpSocket::bind((at, 0)).await.unwrap();
    device.connect((at, port)).await.unwrap();
    device
}

/// A Confirmable POST of 1 to `/b/t`, with this id.
fn request(id: u8) -> Vec<u8> {
    [&[0x40, 2, 0, id], &b"\xb1b\x01t\xff1"[..]].concat()
}

fn changed(id: u8) -> [u8; 4] {
    [0x60, 0x44, 0, id]
}

async fn heard(device: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 256];
    let length = soon(device.recv(&mut buffer)).await.unwrap();
    buffer[..length].to_vec()
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("waited in vain")
}

/// The next batch, accepted, with how many readings it has.
async fn accept(server: &mut Server) -> usize {
    let batch = soon(server.next()).await.unwrap();
    batch.receipt.unwrap().send(Receipt::Accepted).unwrap();
    batch.readings.len()
}

/// Runs the server where it has nothing to bring.
async fn idle(server: &mut Server, until: impl Future) {
    tokio::select! {
        batch = server.next() => panic!("{batch:?}"),
        _ = soon(until) => {}
    }
}

#[tokio::test]
async fn a_device_is_answered_when_its_readings_are_taken_and_not_before() {
    let context = context();
    let (mut server, port) = open("127.0.0.1:0", "[]", &context).await;
    let device = device("127.0.0.1", port).await;
    device.send(&request(1)).await.unwrap();
    let batch = soon(server.next()).await.unwrap();
    assert_eq!(batch.readings.len(), 1);
    let early = tokio::time::timeout(Duration::from_millis(50), server.next()).await;
    assert!(early.is_err());
    assert!(device.try_recv(&mut [0; 8]).is_err(), "nothing has been taken yet");
    batch.receipt.unwrap().send(Receipt::Accepted).unwrap();
    idle(&mut server, async { assert_eq!(heard(&device).await, changed(1)) }).await;
}

#[tokio::test]
async fn others_are_served_while_a_receipt_is_still_to_come() {
    let context = context();
    let (mut server, port) = open("127.0.0.1:0", "[]", &context).await;
    let (first, second) = (device("127.0.0.1", port).await, device("127.0.0.1", port).await);
    first.send(&request(1)).await.unwrap();
    let held = soon(server.next()).await.unwrap();
    second.send(b"\x40\x00\x00\x07").await.unwrap();
    idle(&mut server, async { assert_eq!(heard(&second).await, [0x70, 0, 0, 7]) }).await;
    // A copy of the one that waits is settled with it.
    first.send(&request(1)).await.unwrap();
    second.send(&request(2)).await.unwrap();
    assert_eq!(accept(&mut server).await, 1);
    held.receipt.unwrap().send(Receipt::Busy).unwrap();
    idle(&mut server, async {
        assert_eq!(heard(&first).await[..4], [0x60, 0xA3, 0, 1]);
        assert_eq!(heard(&first).await[..4], [0x60, 0xA3, 0, 1]);
        assert_eq!(heard(&second).await, changed(2));
    })
    .await;
}

#[tokio::test]
async fn what_lies_in_the_socket_is_one_batch_and_all_of_it_is_answered() {
    let context = context();
    let (mut server, port) = open("127.0.0.1:0", "[]", &context).await;
    let device = device("127.0.0.1", port).await;
    for id in 0..10 {
        device.send(&request(id)).await.unwrap();
    }
    assert_eq!(accept(&mut server).await, 10);
    idle(&mut server, async {
        for id in 0..10 {
            assert_eq!(heard(&device).await, changed(id));
        }
    })
    .await;
}

#[tokio::test]
async fn of_a_backlog_larger_than_a_batch_every_request_is_taken_and_answered() {
    const SENT: u8 = 200;
    let context = context();
    let (mut server, port) = open("127.0.0.1:0", "[]", &context).await;
    let device = device("127.0.0.1", port).await;
    for id in 0..SENT {
        device.send(&request(id)).await.unwrap();
    }
    let mut taken = 0;
    while taken < usize::from(SENT) {
        taken += accept(&mut server).await;
    }
    idle(&mut server, async {
        for id in 0..SENT {
            assert_eq!(heard(&device).await, changed(id));
        }
    })
    .await;
    assert_eq!(context.stats.dropped_by_kernel.get(), 0);
}

/// A request by its first word, its copy, a ping and what is refused: the answers come from where they were asked.
#[tokio::test]
async fn a_socket_for_all_addresses_answers_from_the_one_that_was_asked() {
    let context = context();
    for (listen, asked, others) in [
        ("0.0.0.0:0", "127.0.0.2", "127.0.0.1:0"),
        ("0.0.0.0:0", "127.0.0.1", "127.0.0.3:0"),
        ("[::]:0", "127.0.0.2", "127.0.0.1:0"),
        ("[::]:0", "::1", "[::1]:0"),
        ("127.0.0.2:0", "127.0.0.2", "127.0.0.1:0"),
    ] {
        let (mut server, port) = open(listen, "['127.0.0.0/8', '::1']", &context).await;
        // It is not connected, and so hears answers from anywhere.
        let device = UdpSocket::bind(others).await.unwrap();
        let asked: SocketAddr = (asked.parse::<std::net::IpAddr>().unwrap(), port).into();
        let mut buffer = [0; 256];
        device.send_to(&request(1), asked).await.unwrap();
        assert_eq!(accept(&mut server).await, 1);
        for (datagram, code) in [
            (None, 0x44),
            (Some(&request(1)[..]), 0x44),
            (Some(b"\x40\x00\x00\x07"), 0),
            (Some(b"\x40\x01\x00\x08"), 0x84),
        ] {
            if let Some(datagram) = datagram {
                device.send_to(datagram, asked).await.unwrap();
            }
            idle(&mut server, async {
                let (_, from) = soon(device.recv_from(&mut buffer)).await.unwrap();
                assert_eq!((buffer[1], from), (code, asked), "{listen}");
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_look_that_is_given_up_loses_nothing() {
    let context = context();
    let (mut server, port) = open("127.0.0.1:0", "[]", &context).await;
    let device = device("127.0.0.1", port).await;
    for id in 0..100 {
        assert!(tokio::time::timeout(Duration::from_micros(100), server.next()).await.is_err());
        device.send(&request(id)).await.unwrap();
        assert_eq!(accept(&mut server).await, 1);
    }
    // The last receipt has come and is not yet looked at: the stop of the source answers it.
    drop(server);
    for id in 0..100 {
        assert_eq!(heard(&device).await, changed(id));
    }
    assert_eq!(context.stats.readings.load(Ordering::Relaxed), 100);
}

#[tokio::test]
async fn a_device_that_has_gone_before_its_answer_harms_nobody() {
    let context = context();
    let (mut server, port) = open("127.0.0.1:0", "[]", &context).await;
    for id in 0..20 {
        let gone = device("127.0.0.1", port).await;
        gone.send(&request(id)).await.unwrap();
        drop(gone);
        accept(&mut server).await;
    }
    let device = device("127.0.0.1", port).await;
    device.send(&request(99)).await.unwrap();
    accept(&mut server).await;
    idle(&mut server, async { assert_eq!(heard(&device).await, changed(99)) }).await;
}

#[tokio::test]
async fn one_socket_serves_ipv4_and_ipv6_and_tells_them_apart() {
    let context = context();
    let (mut server, port) = open("[::]:0", "['127.0.0.1', '::1']", &context).await;
    for at in ["127.0.0.1", "::1"] {
        let device = device(at, port).await;
        device.send(&request(1)).await.unwrap();
        assert_eq!(accept(&mut server).await, 1);
        idle(&mut server, async { assert_eq!(heard(&device).await, changed(1)) }).await;
    }
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    stranger.send_to(&request(1), ("127.0.0.1", port)).await.unwrap();
    let friend = device("::1", port).await;
    friend.send(b"\x40\x00\x00\x07").await.unwrap();
    idle(&mut server, heard(&friend)).await;
    assert!(stranger.try_recv(&mut [0; 8]).is_err());
    let refused: Vec<_> = context.stats.refused().filter(|(_, count)| *count > 0).collect();
    assert_eq!(refused, [(crate::sources::Refusal::NotAllowed, 1)]);
}

#[tokio::test]
async fn what_keeps_it_from_listening_is_said_with_what_to_do() {
    let context = context();
    let (_server, port) = open("127.0.0.1:0", "[]", &context).await;
    let taken = config(&format!("listen = '127.0.0.1:{port}'")).unwrap();
    let error = Server::open(&taken, &context).await.unwrap_err();
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("another program, or another source, listens there"), "{error}");
    let absent = config("listen = '192.0.2.1:5683'").unwrap();
    let error = Server::open(&absent, &context).await.unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn what_the_kernel_drops_before_it_is_read_is_counted() {
    // More than sockets usually have room for. They are Acknowledgements, of which nothing comes.
    const SENT: u64 = 20_000;
    let context = context();
    let (mut server, port) = open("127.0.0.1:0", "[]", &context).await;
    let device = device("127.0.0.1", port).await;
    let datagram = [&[0x60; 4], &[0; 4092][..]].concat();
    for _ in 0..SENT {
        device.send(&datagram).await.unwrap();
    }
    let mut pings = 0;
    let pong = async {
        let mut buffer = [0; 16];
        loop {
            pings += 1;
            device.send(b"\x40\x00\x00\x07").await.unwrap();
            // It may be dropped as well.
            if tokio::time::timeout(Duration::from_millis(100), device.recv(&mut buffer)).await.is_ok() {
                return;
            }
        }
    };
    idle(&mut server, pong).await;
    drop(server);
    let read = context.stats.bytes.load(Ordering::Relaxed);
    let length = datagram.len() as u64;
    let taken = read / length + read % length / 4;
    let dropped = context.stats.dropped_by_kernel.get();
    assert!(dropped > 0, "{taken} taken");
    assert_eq!(taken + dropped, SENT + pings);
}

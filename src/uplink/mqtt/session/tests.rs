//! Over a link in memory, with tokio's time, which jumps to the next timer whenever everybody waits.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::JoinSet;
use uplink::Session as _;

use super::*;
use crate::model::{Id, Timestamp};
use crate::uplink::mqtt::link::Options;

const PROTOCOLS: [Protocol; 2] = [Protocol::V5, Protocol::V311];

/// What a socket holds, in bytes.
const SOCKET: usize = 64 << 10;

/// Both ways of a link that lets `rate` bytes a second through, each way.
fn slow(near: DuplexStream, far: DuplexStream, rate: usize, running: &mut JoinSet<()>) {
    let ((near_out, near_in), (far_out, far_in)) = (split(near), split(far));
    for (mut from, mut to) in [(near_out, far_in), (far_out, near_in)] {
        running.spawn(async move {
            let mut buffer = [0; 512];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let takes =
                    Duration::from_secs(1) * u32::try_from(count).unwrap() / u32::try_from(rate).unwrap();
                tokio::time::sleep(takes).await;
                if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A broker that takes everything at once; it answers no more pings than `pings`.
async fn serve(mut stream: DuplexStream, protocol: Protocol, mut pings: usize) {
    while let Ok(first) = stream.read_u8().await {
        let (mut length, mut shift) = (0, 0);
        while let Ok(byte) = stream.read_u8().await {
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let answer = match first >> 4 {
            1 if protocol == Protocol::V5 => vec![0x20, 3, 0, 0, 0],
            1 => vec![0x20, 2, 0, 0],
            3 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                vec![0x40, 2, body[2 + topic], body[3 + topic]]
            }
            12 if pings > 0 => {
                pings -= 1;
                vec![0xD0, 0]
            }
            _ => continue,
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

struct Site {
    session: Session,
    clock: Clock,
    _running: JoinSet<()>,
}

/// A session with a keep-alive of 5 s, over a link of so many bytes a second.
async fn connected(protocol: Protocol, rate: usize, pings: usize) -> Site {
    let clock = Clock::injected(Timestamp(0), true);
    let mut running = JoinSet::new();
    let ((here, near), (far, there)) = (duplex(SOCKET), duplex(SOCKET));
    slow(near, far, rate, &mut running);
    running.spawn(serve(there, protocol, pings));
    let will = Packet { topic: "t".into(), qos: Qos::AtLeastOnce, retain: true, payload: vec![] };
    let keep_alive = Duration::from_secs(5);
    let within = Duration::from_secs(30);
    let options = Options { within, protocol, client_id: "gw-042".into(), login: None, will, keep_alive };
    let (link, accepted) = Link::start(Box::new(here), options).await.unwrap();
    let context = Context {
        peer: "broker:8883".into(),
        within,
        tls: None,
        auth: None,
        protocol,
        client_id: "gw-042".into(),
    };
    let terms = Terms {
        topics: Topics::new("weir/{gateway}/data/{device}", "gw-042"),
        qos: Qos::AtLeastOnce,
        limits: Limits { in_flight: 1000, in_flight_bytes: usize::MAX },
        receive_max: accepted.receive_max,
        packet_max: accepted.packet_max,
        keep_alive,
        ack_timeout: Duration::from_secs(60),
        context,
    };
    let session = Session::start(link, terms, None, Renewal::never(), clock.clone());
    Site { session, clock, _running: running }
}

fn data(sequence: u64, size: usize) -> Publication {
    let ids = vec![Id { epoch: 1, sequence }];
    Publication { ids, kind: Kind::Data { device: "boiler".into() }, payload: vec![b'x'; size] }
}

#[tokio::test(start_paused = true)]
async fn a_merely_slow_link_with_full_windows_stays_connected() {
    const RATE: usize = 32 << 10;
    for protocol in PROTOCOLS {
        // Windows of the default size, filled by a few large messages or by many small ones, and a larger one.
        for (size, window) in [(8 << 10, 32 << 10), (400, 32 << 10), (1 << 10, 128 << 10)] {
            let Site { mut session, clock, _running } = connected(protocol, RATE, 0).await;
            let (start, mut sent, mut settled) = (clock.monotonic(), 0, 0);
            let mut took = Duration::ZERO;
            while took < Duration::from_secs(60) {
                while usize::try_from(sent - settled + 1).unwrap() * size <= window {
                    session.send(data(sent, size)).unwrap();
                    sent += 1;
                }
                // What was sent is with the sockets, the link or the session, and no more than that is held anywhere.
                let event = session.next().await.unwrap();
                assert_eq!(event, Event::Acknowledged(data(settled, 0).ids));
                settled += 1;
                took = clock.monotonic() - start;
            }
            let rate = settled as f64 * size as f64 / took.as_secs_f64();
            assert!(rate > 0.8 * RATE as f64, "{protocol:?}, {size} in {window}: {rate} bytes a second");
            assert!(rate < RATE as f64, "the link was not the limit");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_is_kept_alive_and_found_dead_within_half_a_keep_alive_of_an_unanswered_ping() {
    for protocol in PROTOCOLS {
        let Site { mut session, clock, _running } = connected(protocol, 1 << 20, 100).await;
        let error = session.next().await.unwrap_err();
        assert!(error.to_string().contains("nothing was heard of broker:8883 for 7s 500ms"), "{error}");
        // A hundred pings that were answered, and one that was not.
        let alive = clock.monotonic().as_secs_f64();
        assert!((507.0..508.0).contains(&alive), "{alive} s");
    }
}

/// An hour's standing still, or a debugger: the answers came in the meantime.
#[tokio::test(start_paused = true)]
async fn a_session_that_was_not_looked_at_for_long_reads_before_it_judges() {
    let Site { mut session, _running, .. } = connected(Protocol::V5, 1 << 20, 0).await;
    session.send(data(0, 10)).unwrap();
    assert_eq!(session.next().await.unwrap(), Event::Acknowledged(data(0, 0).ids));
    session.send(data(1, 10)).unwrap();
    let _ = timeout(Duration::from_micros(1), session.next()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(session.next().await.unwrap(), Event::Acknowledged(data(1, 0).ids));
}

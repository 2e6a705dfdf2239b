use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::io::{AsyncRead, ReadBuf};

use super::*;
use crate::uplink::mqtt::config::Qos;

/// What was written, a piece for each call, and what becomes of that.
#[derive(Default)]
struct Out {
    pieces: Vec<Vec<u8>>,
    /// How many bytes are still taken.
    room: usize,
    fails: Option<io::ErrorKind>,
}

/// The other side, as a script: what is read in turn, then nothing more.
struct Scripted {
    reads: VecDeque<io::Result<Vec<u8>>>,
    out: Arc<Mutex<Out>>,
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.reads.pop_front() {
            Some(Ok(bytes)) => {
                into.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut out = self.out.lock().unwrap();
        if let Some(kind) = out.fails {
            return Poll::Ready(Err(kind.into()));
        }
        if out.room == 0 {
            return Poll::Pending;
        }
        let count = bytes.len().min(out.room);
        out.room -= count;
        out.pieces.push(bytes[..count].to_vec());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn link(protocol: Protocol, reads: Vec<io::Result<Vec<u8>>>) -> (Link, Arc<Mutex<Out>>) {
    let out = Arc::new(Mutex::new(Out { room: usize::MAX, ..Out::default() }));
    let stream = Scripted { reads: reads.into(), out: Arc::clone(&out) };
    let (incoming, outgoing) = (BytesMut::new(), BytesMut::new());
    (Link { stream: Box::new(stream), protocol, incoming, outgoing, unflushed: false, broken: None }, out)
}

/// One look, as a task that is woken by whatever happens.
fn poll(link: &mut Link) -> Poll<Result<Signal, Failure>> {
    link.poll(&mut Context::from_waker(std::task::Waker::noop()))
}

fn packet(payload: &[u8]) -> Packet {
    Packet { topic: "t".into(), qos: Qos::AtLeastOnce, retain: false, payload: payload.to_vec() }
}

fn acknowledged(polled: Poll<Result<Signal, Failure>>) -> u16 {
    match polled {
        Poll::Ready(Ok(Signal::Heard(Heard::Acknowledged(packet_id)))) => packet_id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_said_before_the_next_look_goes_out_in_one_piece_and_after_what_was_read() {
    for protocol in [Protocol::V5, Protocol::V311] {
        let answers = vec![0x40, 2, 0, 1, 0x40, 2, 0, 2];
        let (mut link, out) = link(protocol, vec![Ok(answers)]);
        assert_eq!(acknowledged(poll(&mut link)), 1);
        link.publish(packet(b"three"), 3);
        assert_eq!(acknowledged(poll(&mut link)), 2);
        link.publish(packet(b"four"), 4);
        assert_eq!(out.lock().unwrap().pieces.len(), 0);
        assert!(matches!(poll(&mut link), Poll::Ready(Ok(Signal::Written))));
        assert!(poll(&mut link).is_pending());
        let pieces = std::mem::take(&mut out.lock().unwrap().pieces);
        assert_eq!(pieces.len(), 1);
        assert!(pieces[0].windows(5).any(|bytes| bytes == b"three") && pieces[0].ends_with(b"four"));
    }
}

#[test]
fn what_a_slow_stream_does_not_take_waits_and_reading_goes_on() {
    let (mut link, out) = link(Protocol::V5, vec![Ok(vec![0x40, 2, 0, 1])]);
    out.lock().unwrap().room = 10;
    link.publish(packet(&[7; 100]), 1);
    assert_eq!(acknowledged(poll(&mut link)), 1);
    assert!(poll(&mut link).is_pending(), "not all is written");
    assert_eq!(link.outgoing.len(), 1 + 1 + 3 + 2 + 1 + 100 - 10);
    out.lock().unwrap().room = 1000;
    assert!(matches!(poll(&mut link), Poll::Ready(Ok(Signal::Written))));
}

#[test]
fn why_the_broker_closed_is_told_rather_than_that_writing_failed() {
    let reset = || Err(io::ErrorKind::ConnectionReset.into());
    let alert = || Err(io::Error::other(rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA)));
    let cases: [(Vec<io::Result<Vec<u8>>>, &str); 5] = [
        (vec![Ok(vec![0xE0, 1, 0x8E])], "Dismissed(SessionTakenOver, None)"),
        (vec![Ok(vec![0xE0, 2, 0x8B, 0]), reset()], "Dismissed(ServerShuttingDown, None)"),
        (vec![alert()], "UnknownCA"),
        (vec![reset()], "ConnectionReset"),
        (vec![], "BrokenPipe"),
    ];
    for (reads, told) in cases {
        let (mut link, out) = link(Protocol::V5, reads);
        out.lock().unwrap().fails = Some(io::ErrorKind::BrokenPipe);
        link.publish(packet(b"x"), 1);
        match poll(&mut link) {
            Poll::Ready(Err(failure)) => {
                let failure = format!("{failure:?}").replace("Kind(", "").replace("kind: ", "");
                assert!(failure.contains(told), "wanted {told}, got {failure}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn packets_may_come_in_pieces_and_a_reason_in_words_is_told() {
    let mut disconnect = vec![0xE0, 9, 0x97, 7, 31, 0, 4];
    disconnect.extend(b"full");
    let pieces = disconnect.iter().map(|byte| Ok(vec![*byte])).collect();
    let (mut link, _) = link(Protocol::V5, pieces);
    match poll(&mut link) {
        Poll::Ready(Err(Failure::Dismissed(DisconnectReasonCode::QuotaExceeded, Some(text)))) => {
            assert_eq!(text, "full");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_mqtt_ends_the_connection_whatever_it_is() {
    let http = b"HTTP/1.1 400 Bad Request\r\n".repeat(10);
    let cases: [&[u8]; 7] = [
        &http,
        &[0; 64],
        &[0xFF; 64],
        // A CONNACK of 3.1.1 on MQTT 5, an acknowledgement without a packet id, a length without an end, and one that
        // announces 256 MB.
        &[0x20, 2, 0, 1],
        &[0x40, 1, 0],
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
    ];
    for bytes in cases {
        let (mut link, _) = link(Protocol::V5, vec![Ok(bytes.to_vec())]);
        assert!(matches!(poll(&mut link), Poll::Ready(Err(Failure::Protocol(_)))), "{bytes:x?}");
    }
}

proptest::proptest! {
    /// Bytes of a broker that is broken or hostile, cut anywhere.
    #[test]
    fn no_bytes_stop_it_or_grow_it(
        five: bool,
        pieces in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 1..64), 1..40),
    ) {
        let protocol = if five { Protocol::V5 } else { Protocol::V311 };
        let (mut link, _) = link(protocol, pieces.into_iter().map(Ok).collect());
        while let Poll::Ready(Ok(_)) = poll(&mut link) {}
        proptest::prop_assert!(link.incoming.capacity() <= 2 * (INCOMING_MAX as usize + READ));
        proptest::prop_assert!(link.outgoing.is_empty());
    }

    /// The same behind a header that promises a packet, so that its inside is read.
    #[test]
    fn no_packet_stops_it(kind in 0_u8..16, body in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
        for protocol in [Protocol::V5, Protocol::V311] {
            let length = u8::try_from(body.len()).unwrap();
            let packet = [&[kind << 4, length], &body[..]].concat();
            let (mut link, _) = link(protocol, vec![Ok(packet)]);
            while let Poll::Ready(Ok(_)) = poll(&mut link) {}
        }
    }
}

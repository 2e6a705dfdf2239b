use std::sync::Arc;
use std::time::Duration;

use coap_lite::RequestType;
use proptest::prelude::*;

use super::super::taken::{EXCHANGE_LIFETIME, NON_LIFETIME, TAKEN_MAX};
use super::*;
use crate::clock::Clock;
use crate::model::{Stamp, Timestamp, Value};
use crate::sources::Stats;

const NOW: Duration = Duration::from_secs(1_000);

/// An endpoint, what it counts and what it has read.
struct Desk {
    endpoint: Endpoint,
    context: Context,
    stats: Arc<Stats>,
    readings: Readings,
}

fn readings() -> Readings {
    Readings::new(Stamp { wall: Timestamp(0), monotonic: NOW, synced: true })
}

impl Desk {
    fn new(allow: &[&str]) -> Self {
        let stats = Arc::new(Stats::default());
        let context = Context {
            name: "field".into(),
            clock: Clock::injected(Timestamp(0), true),
            stats: stats.clone(),
            memory: Default::default(),
            ports: Default::default(),
        };
        let allow: Vec<Network> = allow.iter().map(|network| network.parse().unwrap()).collect();
        Self { endpoint: Endpoint::new(&allow, &context), context, stats, readings: readings() }
    }

    fn receive(&mut self, now: Duration, datagram: &[u8]) -> Reaction {
        self.receive_of(peer(1), now, datagram)
    }

    fn receive_of(&mut self, peer: SocketAddr, now: Duration, datagram: &[u8]) -> Reaction {
        let now = self.context.clock.instant(now);
        self.endpoint.receive(now, peer.into(), datagram, &mut self.readings)
    }

    /// The answers to all that wait.
    fn settle(&mut self, now: Duration, receipt: Receipt) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let count = self.endpoint.waiting();
        let now = self.context.clock.instant(now);
        self.endpoint.settle(now, count, receipt, |_, answer| answers.push(answer.to_vec()));
        answers
    }

    /// What a request is answered with in the end, where the pipeline has room.
    fn answer(&mut self, datagram: &[u8]) -> Packet {
        let answer = match self.receive(NOW, datagram) {
            Reaction::Answer(answer) => answer,
            Reaction::Wait => self.settle(NOW, Receipt::Accepted).remove(0),
            Reaction::Silence => panic!("no answer"),
        };
        Packet::from_bytes(&answer).unwrap()
    }

    fn refused(&self) -> Vec<(&'static str, u64)> {
        let refused = self.stats.refused().filter(|(_, count)| *count > 0);
        refused.map(|(refusal, count)| (refusal.name(), count)).collect()
    }
}

fn peer(number: u8) -> SocketAddr {
    ([192, 168, 10, number], 40_000).into()
}

/// A Confirmable POST with the token `tok` and the id 0x1234.
fn post(path: &[&str], format: Option<u8>, payload: &str) -> Packet {
    let mut packet = Packet::new();
    packet.header.set_version(1);
    packet.header.set_type(MessageType::Confirmable);
    packet.header.code = MessageClass::Request(RequestType::Post);
    packet.header.message_id = 0x1234;
    packet.set_token(b"tok".to_vec());
    for segment in path {
        packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
    }
    if let Some(format) = format {
        packet.add_option(CoapOption::ContentFormat, vec![format]);
    }
    packet.payload = payload.into();
    packet
}

fn bytes(packet: &Packet) -> Vec<u8> {
    packet.to_bytes_unlimited().unwrap()
}

fn good() -> Packet {
    post(&["boiler", "temperature"], Some(0), "21.5")
}

fn non(mut packet: Packet) -> Packet {
    packet.header.set_type(MessageType::NonConfirmable);
    packet
}

const CHANGED: [u8; 7] = [0x63, 0x44, 0x12, 0x34, b't', b'o', b'k'];
const NON_CHANGED: [u8; 7] = [0x53, 0x44, 0x12, 0x34, b't', b'o', b'k'];
const RESET: [u8; 4] = [0x70, 0x00, 0x12, 0x34];

#[test]
fn a_request_is_answered_once_its_readings_are_taken() {
    let mut desk = Desk::new(&[]);
    let json = bytes(&post(&["boiler"], Some(50), r#"{"temperature":21.5,"door":true,"state":"on"}"#));
    assert_eq!(desk.receive(NOW, &json), Reaction::Wait);
    assert_eq!(desk.stats.readings.load(Ordering::Relaxed), 0, "nothing is taken yet");
    assert_eq!(desk.settle(NOW, Receipt::Accepted), [CHANGED]);
    let read: Vec<_> = desk.readings.iter().map(|(_, r)| (r.device, r.metric, r.value)).collect();
    assert_eq!(read, [("boiler", "temperature", Value::Float(21.5)), ("boiler", "door", Value::Bool(true))]);
    assert_eq!(desk.stats.readings.load(Ordering::Relaxed), 2);
    assert_eq!(desk.stats.ignored.load(Ordering::Relaxed), 1);
    assert_eq!(desk.refused(), []);
}

#[test]
fn a_non_confirmable_request_is_answered_in_kind() {
    let mut desk = Desk::new(&[]);
    assert_eq!(desk.receive(NOW, &bytes(&non(good()))), Reaction::Wait);
    assert_eq!(desk.settle(NOW, Receipt::Accepted), [NON_CHANGED]);
}

#[test]
fn requests_of_one_look_are_frames_of_their_own_and_each_is_answered() {
    let mut desk = Desk::new(&[]);
    desk.receive(NOW, &bytes(&good()));
    let other = post(&["boiler", "pressure"], None, "1");
    desk.receive_of(peer(2), NOW, &bytes(&other));
    assert_eq!(desk.readings.iter().map(|(frame, _)| frame).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(desk.settle(NOW, Receipt::Accepted).len(), 2);
}

#[test]
fn where_the_pipeline_is_full_the_device_is_told_when_to_try_again_and_its_copy_is_read_anew() {
    let mut desk = Desk::new(&[]);
    desk.receive(NOW, &bytes(&good()));
    let answer = Packet::from_bytes(&desk.settle(NOW, Receipt::Busy)[0]).unwrap();
    assert_eq!(answer.header.get_code(), "5.03");
    assert_eq!(answer.get_first_option(CoapOption::MaxAge), Some(&vec![RETRY_AFTER]));
    assert_eq!(desk.refused(), [("busy", 1)]);
    assert_eq!(desk.stats.readings.load(Ordering::Relaxed), 0);
    assert_eq!(desk.receive(NOW, &bytes(&good())), Reaction::Wait);
    assert_eq!(desk.settle(NOW, Receipt::Accepted), [CHANGED]);
}

#[test]
fn a_copy_gets_the_same_answer_and_counts_nothing_for_as_long_as_one_may_come() {
    for (request, lifetime, reaction) in [
        (good(), EXCHANGE_LIFETIME, Reaction::Answer(CHANGED.into())),
        (non(good()), NON_LIFETIME, Reaction::Silence),
    ] {
        let (mut desk, request) = (Desk::new(&[]), bytes(&request));
        desk.receive(NOW, &request);
        desk.settle(NOW, Receipt::Accepted);
        let last = NOW + lifetime - Duration::from_millis(1);
        for now in [NOW, last] {
            assert_eq!(desk.receive(now, &request), reaction);
        }
        assert_eq!(desk.readings.len(), 1);
        assert_eq!(desk.stats.copies.load(Ordering::Relaxed), 2);
        assert_eq!(desk.receive(NOW + lifetime, &request), Reaction::Wait);
        assert_eq!(desk.readings.len(), 2);
    }
}

#[test]
fn copies_that_come_while_the_first_waits_get_its_answer() {
    for (receipt, code) in [(Receipt::Accepted, "2.04"), (Receipt::Busy, "5.03")] {
        let mut desk = Desk::new(&[]);
        for _ in 0..3 {
            assert_eq!(desk.receive(NOW, &bytes(&good())), Reaction::Wait);
        }
        assert_eq!(desk.readings.len(), 1);
        let answers = desk.settle(NOW, receipt);
        assert_eq!(answers.len(), 3);
        for answer in answers {
            assert_eq!(Packet::from_bytes(&answer).unwrap().header.get_code(), code);
        }
    }
    let mut desk = Desk::new(&[]);
    desk.receive(NOW, &bytes(&non(good())));
    assert_eq!(desk.receive(NOW, &bytes(&non(good()))), Reaction::Silence);
    assert_eq!(desk.settle(NOW, Receipt::Accepted), [NON_CHANGED]);
}

#[test]
fn what_differs_in_a_byte_or_its_sender_is_no_copy() {
    let mut desk = Desk::new(&[]);
    desk.answer(&bytes(&good()));
    // A device that has started anew counts its ids from the beginning.
    let fresh = bytes(&post(&["boiler", "temperature"], Some(0), "21.6"));
    assert_eq!(desk.receive(NOW, &fresh), Reaction::Wait);
    let reaction = desk.receive_of(peer(2), NOW, &bytes(&good()));
    assert_eq!(reaction, Reaction::Wait);
    assert_eq!(desk.stats.copies.load(Ordering::Relaxed), 0);
}

#[test]
fn an_endpoint_that_is_opened_again_knows_what_was_taken_before() {
    let mut desk = Desk::new(&[]);
    desk.answer(&bytes(&good()));
    desk.answer(&bytes(&non(good())));
    desk.endpoint = Endpoint::new(&[], &desk.context);
    assert_eq!(desk.receive(NOW, &bytes(&good())), Reaction::Answer(CHANGED.into()));
    assert_eq!(desk.receive(NOW, &bytes(&non(good()))), Reaction::Silence);
    assert_eq!(desk.stats.copies.load(Ordering::Relaxed), 2);
}

#[test]
fn requests_that_are_forgotten_too_early_are_counted() {
    let mut desk = Desk::new(&[]);
    for id in 0..=u16::try_from(TAKEN_MAX).unwrap() {
        let mut request = good();
        request.header.message_id = id;
        desk.answer(&bytes(&request));
    }
    assert_eq!(desk.stats.forgotten.get(), 1);
    let mut first = good();
    first.header.message_id = 0;
    assert_eq!(desk.receive(NOW, &bytes(&first)), Reaction::Wait);
}

#[test]
fn what_cannot_be_served_is_told_by_its_code_with_a_diagnostic() {
    let with = |option: u16, value: &[u8]| {
        let mut packet = good();
        packet.add_option(CoapOption::from(option), value.to_vec());
        packet
    };
    let method = |code: u8, path: &[&str]| {
        let mut packet = post(path, None, "1");
        packet.header.code = code.into();
        packet
    };
    let long = "x".repeat(NAME_MAX + 1);
    let large = "1".repeat(usize::from(PAYLOAD_MAX) + 1);
    let cut_off = "1".repeat(MESSAGE_MAX);
    let not_text = {
        let mut packet = post(&[], None, "1");
        packet.add_option(CoapOption::UriPath, vec![0xFF]);
        packet
    };
    let cases = [
        (post(&["boiler"], Some(50), "{"), "4.00", "undecodable"),
        (post(&["boiler"], Some(50), "[1]"), "4.00", "undecodable"),
        (post(&["boiler"], Some(50), r#"{"state":"on"}"#), "4.00", "undecodable"),
        (post(&["boiler"], Some(50), ""), "4.00", "undecodable"),
        (post(&["boiler", "t"], Some(0), "warm"), "4.00", "undecodable"),
        (post(&["boiler", "t"], Some(0), ""), "4.00", "undecodable"),
        (with(1, b""), "4.02", "not_served"),
        (with(15, b"a=1"), "4.02", "not_served"),
        (with(23, b"\x00"), "4.02", "not_served"),
        (with(27, b"\x08"), "4.02", "not_served"),
        (with(65_001, b""), "4.02", "not_served"),
        (with(7, b"123"), "4.02", "not_served"),
        (with(3, b""), "4.02", "not_served"),
        (with(35, b"coap://other/x"), "5.05", "not_served"),
        (post(&[], None, "1"), "4.04", "not_served"),
        (post(&["a", "b", "c"], None, "1"), "4.04", "not_served"),
        (post(&["boiler", ""], None, "1"), "4.04", "bad_name"),
        (post(&[&long], None, "{\"a\":1}"), "4.04", "bad_name"),
        (not_text, "4.04", "not_text"),
        (method(1, &["boiler"]), "4.05", "not_served"),
        (method(4, &["boiler"]), "4.05", "not_served"),
        (method(31, &["boiler"]), "4.05", "not_served"),
        (method(1, &[".well-known", "core", "x"]), "4.04", "not_served"),
        (post(&["boiler", "t"], Some(0), &large), "4.13", "too_long"),
        (post(&["boiler", "t"], Some(0), &cut_off), "4.13", "too_long"),
        (post(&["boiler"], Some(0), "{\"a\":1}"), "4.15", "not_served"),
        (post(&["boiler"], Some(60), "{\"a\":1}"), "4.15", "not_served"),
        (post(&["boiler", "t"], Some(50), "1"), "4.15", "not_served"),
    ];
    for (request, code, cause) in cases {
        let mut desk = Desk::new(&[]);
        let answer = desk.answer(&bytes(&request));
        assert_eq!(answer.header.get_code(), code, "{request:?}");
        assert_eq!(answer.header.get_type(), MessageType::Acknowledgement);
        assert_eq!((answer.header.message_id, answer.get_token()), (0x1234, &b"tok"[..]));
        assert!(!answer.payload.is_empty() && answer.payload.len() <= DIAGNOSTIC_MAX, "{answer:?}");
        assert_eq!(desk.refused(), [(cause, 1)], "{request:?}");
        assert!(desk.readings.is_empty());
        if code == "4.13" {
            let size = answer.get_first_option_as::<OptionValueU16>(CoapOption::Size1);
            assert_eq!(size, Some(Ok(OptionValueU16(PAYLOAD_MAX))));
        }
    }
}

#[test]
fn what_may_stand_in_a_request_does_not_disturb() {
    let mut request = post(&["boiler", "t"], None, "1");
    for (option, value) in
        [(3, &b"gateway"[..]), (7, b"\x16\x33"), (17, b"\x32"), (60, b"\x01"), (2_048, b"?")]
    {
        request.add_option(CoapOption::from(option), value.to_vec());
    }
    request.header.code = MessageClass::Request(RequestType::Put);
    assert_eq!(Desk::new(&[]).answer(&bytes(&request)).header.get_code(), "2.04");
    // Two bytes of format are as good as one, three are passed over.
    for format in [vec![0, 50], vec![0, 0, 0]] {
        let mut request = post(&["boiler"], None, "{\"a\":1}");
        request.add_option(CoapOption::ContentFormat, format);
        assert_eq!(Desk::new(&[]).answer(&bytes(&request)).header.get_code(), "2.04");
    }
}

#[test]
fn a_slash_in_a_segment_belongs_to_the_name() {
    let mut desk = Desk::new(&[]);
    desk.answer(&bytes(&post(&["hall/1", "Wärme"], Some(0), "1")));
    let (_, reading) = desk.readings.iter().next().unwrap();
    assert_eq!((reading.device, reading.metric), ("hall/1", "Wärme"));
}

#[test]
fn senml_is_taken_in_json_and_in_cbor_and_names_its_devices_itself() {
    let mut desk = Desk::new(&[]);
    let json = post(&["boiler"], Some(110), r#"[{"n":"t","v":1},{"bn":"pump/","n":"rpm","v":2}]"#);
    let mut cbor = post(&["boiler"], Some(112), "");
    // [{0: "t", 2: 3}]
    cbor.payload = vec![0x81, 0xa2, 0x00, 0x61, b't', 0x02, 0x03];
    cbor.header.message_id = 2;
    for request in [json, cbor] {
        assert_eq!(desk.answer(&bytes(&request)).header.code, MessageClass::Response(ResponseType::Changed));
    }
    let found: Vec<_> =
        desk.readings.iter().map(|(_, found)| (found.device, found.metric, found.value)).collect();
    let expected =
        [("boiler", "t", Value::Int(1)), ("pump", "rpm", Value::Int(2)), ("boiler", "t", Value::Int(3))];
    assert_eq!(found, expected);
}

#[test]
fn a_bad_name_among_good_ones_is_left_out_and_counted() {
    let mut desk = Desk::new(&[]);
    let answer = desk.answer(&bytes(&post(&["boiler"], Some(50), r#"{"":1,"t":2}"#)));
    assert_eq!(answer.header.get_code(), "2.04");
    assert_eq!((desk.readings.len(), desk.refused()), (1, vec![("bad_name", 1)]));
}

#[test]
fn a_non_confirmable_request_with_an_option_that_must_be_understood_is_rejected() {
    let mut request = non(good());
    request.add_option(CoapOption::Block1, vec![8]);
    assert_eq!(Desk::new(&[]).receive(NOW, &bytes(&request)), Reaction::Answer(RESET.into()));
}

#[test]
fn a_ping_is_answered_with_a_reset_and_counts_nothing() {
    let mut desk = Desk::new(&[]);
    assert_eq!(desk.receive(NOW, &[0x40, 0, 0x12, 0x34]), Reaction::Answer(RESET.into()));
    assert_eq!(desk.refused(), []);
}

#[test]
fn what_is_no_proper_request_is_rejected_and_counted() {
    let mut marker = bytes(&post(&["boiler"], None, ""));
    marker.push(0xFF);
    for datagram in [
        &marker[..],
        b"\x40\x02\x12\x34\xff",
        b"\x40\x00\x12\x34\x00",
        b"\x41\x00\x12\x34",
        b"\x50\x00\x12\x34",
        b"\x49\x02\x12\x34123456789",
        b"\x44\x02\x12\x34123",
        b"\x40\x02\x12\x34\xb5boi",
        b"\x40\x02\x12\x34\xf0",
        b"\x40\x44\x12\x34",
        b"\x50\x45\x12\x34",
        b"\x40\x20\x12\x34",
        b"\x40\xe1\x12\x34",
    ] {
        let mut desk = Desk::new(&[]);
        assert_eq!(
            desk.receive(NOW, datagram),
            Reaction::Answer(RESET.into()),
            "{}",
            datagram.escape_ascii()
        );
        assert_eq!(desk.refused(), [("undecodable", 1)]);
    }
}

#[test]
fn what_asks_for_no_answer_gets_none() {
    for (datagram, counted) in [
        (&b""[..], 1),
        (b"\x40\x02\x12", 1),
        (b"\x00\x02\x12\x34", 1),
        (b"\x80\x02\x12\x34", 1),
        (b"\xc0\x02\x12\x34", 1),
        (b"\x60\x00\x12\x34", 0),
        (b"\x70\x00\x12\x34", 0),
        (b"\x60\x44\x12\x34", 0),
    ] {
        let mut desk = Desk::new(&[]);
        assert_eq!(desk.receive(NOW, datagram), Reaction::Silence, "{}", datagram.escape_ascii());
        assert_eq!(desk.refused().iter().map(|(_, count)| count).sum::<u64>(), counted);
        assert_eq!(desk.stats.unasked.load(Ordering::Relaxed), 1 - counted, "all is counted somewhere");
    }
}

#[test]
fn a_last_byte_of_255_is_no_marker_where_it_belongs_to_something() {
    let mut desk = Desk::new(&[]);
    let mut request = post(&["boiler"], None, "");
    request.set_token(vec![0xFF]);
    request.clear_all_options();
    assert_eq!(desk.answer(&bytes(&request)).header.get_code(), "4.04");
    request.add_option(CoapOption::from(2_048), vec![0xFF]);
    assert_eq!(desk.answer(&bytes(&request)).header.get_code(), "4.04");
}

#[test]
fn only_those_in_allow_are_served_and_the_others_hear_nothing() {
    let mut desk = Desk::new(&["192.168.10.1", "fd00::/8"]);
    let request = bytes(&good());
    for (address, reaction) in [
        ("192.168.10.1:1", Reaction::Wait),
        ("[::ffff:192.168.10.1]:1", Reaction::Wait),
        ("[fd00::7]:1", Reaction::Wait),
        ("192.168.10.2:1", Reaction::Silence),
        ("[::1]:1", Reaction::Silence),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(desk.receive_of(address, NOW, &request), reaction, "{address}");
    }
    assert_eq!(desk.refused(), [("not_allowed", 2)]);
}

/// A good request with some bytes changed, put in or left out, or anything at all.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let json = post(&["boiler"], Some(50), r#"{"temperature":21.5}"#);
    let good = prop::sample::select(vec![bytes(&good()), bytes(&json), bytes(&non(json))]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..4);
    let mutated = (good, changes).prop_map(|(mut datagram, changes)| {
        for (at, byte, change) in changes {
            let at = at.index(datagram.len());
            match change {
                0 => datagram[at] = byte,
                1 => datagram.insert(at, byte),
                _ => datagram.truncate(at.max(1)),
            }
        }
        datagram
    });
    prop_oneof![mutated, prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #[test]
    fn whatever_comes_the_answer_is_short_and_of_the_right_type(datagram in datagrams()) {
        let mut desk = Desk::new(&[]);
        let answer = match desk.receive(NOW, &datagram) {
            Reaction::Silence => None,
            Reaction::Answer(answer) => Some(answer),
            Reaction::Wait => {
                prop_assert!(!desk.readings.is_empty());
                desk.settle(NOW, Receipt::Accepted).pop()
            }
        };
        if let Some(answer) = answer {
            prop_assert!(answer.len() <= 32 + 4 * DIAGNOSTIC_MAX);
            prop_assert_eq!(&answer[2..4], &datagram[2..4]);
            let kinds = (datagram[0] >> 4 & 3, answer[0] >> 4 & 3);
            prop_assert!(matches!(kinds, (0, 2) | (1, 1) | (0 | 1, 3)), "{:?}", kinds);
        }
        prop_assert_eq!(desk.endpoint.waiting(), 0);
    }
}

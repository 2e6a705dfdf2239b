//! The real binary between the clients of libcoap and aiocoap, or bare datagrams, and a real mosquitto.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

mod support;

use support::aiocoap::Aiocoap;
use support::mosquitto::Message;
use support::site::Site;

/// A gateway that takes CoAP at a port of its own.
struct Field {
    site: Site,
    port: u16,
}

impl Field {
    /// Starts all of it; the source listens on `address`, with the rest of its table and of the file.
    fn start(address: &str, table: &str, rest: &str) -> Self {
        let port = UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[sources.field]\ntype = 'coap_server'\nlisten = '{address}:{port}'\n{table}\n\n{rest}\n"
        );
        let mut site = Site::new(&config);
        site.agent.start_until(" open").unwrap();
        Self { site, port }
    }

    /// The type and code of the last message that libcoap's client gets, of what it asks for by `arguments`.
    fn ask(&self, host: &str, path: &str, arguments: &[&str]) -> String {
        let output = Command::new("coap-client-notls")
            .args(["-v", "7", "-B", "20"])
            .args(arguments)
            .arg(format!("coap://{host}:{}{path}", self.port))
            .output()
            .unwrap_or_else(|error| panic!("{error}: is it installed? `apt-get install libcoap3-bin`"));
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        let messages: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("v:1 t:")).collect();
        let [_, .., answer] = messages[..] else { panic!("{path} {arguments:?} has no answer:\n{said}") };
        answer.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// A device that sends bytes as they are.
    fn device(&self, from: &str) -> Device {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect((from, self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Device(socket)
    }

    /// What of `device` has arrived, once it is so much: each value of metric `t`, in order.
    fn values(&self, device: &str, count: usize) -> Vec<Value> {
        let enough = |messages: &[Message]| values(messages, device).len() >= count;
        let what = format!("{count} readings of {device} have arrived");
        match self.site.subscriber.wait(&what, enough) {
            Ok(messages) => values(&messages, device),
            Err(error) => panic!("{error}\nthe agent's log:\n{}", self.site.agent.log().join("\n")),
        }
    }
}

fn values(messages: &[Message], device: &str) -> Vec<Value> {
    let topic = format!("weir/gw-042/data/{device}");
    let messages = messages.iter().filter(|message| message.topic == topic);
    let messages = messages.map(|message| serde_json::from_str::<Value>(&message.payload).unwrap());
    messages.map(|message| message["metrics"]["t"]["value"].clone()).collect()
}

struct Device(UdpSocket);

impl Device {
    fn send(&self, datagram: &[u8]) {
        self.0.send(datagram).unwrap();
    }

    fn hear(&self) -> Vec<u8> {
        let mut buffer = [0; 1500];
        let length = self.0.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    fn ask(&self, datagram: &[u8]) -> Vec<u8> {
        self.send(datagram);
        self.hear()
    }

    /// Waits until all that was sent has been read, by a ping; what is heard meanwhile is passed over.
    fn wait_until_read(&self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[0x40, 0, high, low]);
        while self.hear() != [0x70, 0, high, low] {}
    }
}

/// A POST to `/{device}/t`, plain text, written byte for byte as RFC 7252 lays it down.
fn post(first: u8, id: u16, device: &str, payload: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let path = 0xB0 | u8::try_from(device.len()).unwrap();
    [&[first, 2, high, low, path], device.as_bytes(), b"\x01t\x10\xff", payload.as_bytes()].concat()
}

const CON: u8 = 0x40;
const NON: u8 = 0x50;

#[test]
fn libcoaps_client_gets_the_code_that_the_rfc_has_for_what_it_asks() {
    let field = Field::start("[::]", "allow = ['127.0.0.0/8', '::1']", "");
    // Another address of this machine than the one it would send from by itself: the client takes no other's answer.
    for host in ["127.0.0.2", "[::1]"] {
        for (kind, non) in [("t:ACK", &[][..]), ("t:NON", &["-N"])] {
            for (path, format, payload) in
                [("/boiler", "application/json", "{\"t\":21.4}"), ("/boiler/t", "text/plain", "21.5")]
            {
                for method in ["post", "put"] {
                    let arguments = [non, &["-m", method, "-t", format, "-e", payload]].concat();
                    assert_eq!(field.ask(host, path, &arguments), format!("{} c:2.04", &kind[2..]));
                }
            }
        }
    }
    let mut taken: Vec<_> = field.values("boiler", 16).iter().map(|value| value.as_f64().unwrap()).collect();
    taken.sort_by(f64::total_cmp);
    assert_eq!(taken, [[21.4; 8], [21.5; 8]].concat());

    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("long");
    std::fs::write(&long, "1".repeat(5_000)).unwrap();
    for (path, arguments, code) in [
        ("/boiler", &["-m", "post", "-t", "application/json", "-e", "{"][..], "4.00"),
        ("/boiler/t", &["-m", "post", "-t", "text/plain", "-e", "warm"], "4.00"),
        ("/boiler/t", &["-m", "post", "-O", "65001,x", "-e", "1"], "4.02"),
        ("/boiler/t?at=noon", &["-m", "post", "-e", "1"], "4.02"),
        // It sends what is long in blocks, by an option that has to be understood.
        ("/boiler/t", &["-m", "post", "-f", long.to_str().unwrap()], "4.02"),
        ("/", &["-m", "post", "-e", "1"], "4.04"),
        ("/a/b/c", &["-m", "post", "-e", "1"], "4.04"),
        ("/boiler/t", &["-m", "get"], "4.05"),
        ("/boiler/t", &["-m", "delete"], "4.05"),
        ("/boiler/t", &["-m", "ipatch", "-e", "1"], "4.05"),
        ("/boiler", &["-m", "post", "-t", "text/plain", "-e", "1"], "4.15"),
        ("/boiler/t", &["-m", "post", "-t", "application/json", "-e", "1"], "4.15"),
    ] {
        assert_eq!(field.ask("127.0.0.1", path, arguments), format!("ACK c:{code}"), "{path} {arguments:?}");
    }
    let device = field.device("127.0.0.1");
    let answer = device.ask(&post(CON, 7, "boiler", &"1".repeat(5_000)));
    assert_eq!(answer[..4], [0x60, 0x8D, 0, 7], "4.13");
    assert_eq!(field.values("boiler", 16).len(), 16);
}

#[test]
fn aiocoap_gets_the_code_that_the_rfc_has_for_what_it_asks() {
    let field = Field::start("[::]", "allow = ['127.0.0.1', '::1']", "");
    let (json, text) = (50, 0);
    let mut taken = Vec::new();
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        for kind in ["CON", "NON"] {
            for method in ["POST", "PUT"] {
                let uri = |path| format!("coap://{host}:{}{path}", field.port);
                taken.push(json!([kind, method, uri("/boiler"), json, "{\"t\":21.4}"]));
                taken.push(json!([kind, method, uri("/boiler/t"), text, "21.5"]));
                taken.push(json!([kind, method, uri("/boiler/t"), null, "21.5"]));
            }
        }
    }
    assert_eq!(Aiocoap::start(&taken).unwrap().codes().unwrap(), vec!["2.04"; taken.len()]);

    let refused = [
        ("POST", "/boiler", json!(json), "{", "4.00"),
        ("POST", "/boiler/t", json!(text), "warm", "4.00"),
        ("POST", "/boiler/t?at=noon", json!(text), "1", "4.02"),
        ("POST", "", json!(text), "1", "4.04"),
        ("PUT", "/a/b/c", json!(text), "1", "4.04"),
        ("GET", "/boiler/t", Value::Null, "", "4.05"),
        ("DELETE", "/boiler", Value::Null, "", "4.05"),
        ("FETCH", "/boiler", json!(json), "{}", "4.05"),
        ("PATCH", "/boiler/t", json!(text), "1", "4.05"),
        ("POST", "/boiler/t", json!(text), &"1".repeat(5_000), "4.13"),
        ("POST", "/boiler/t", json!(json), "1", "4.15"),
        ("PUT", "/boiler", json!(60), "\x01", "4.15"),
    ];
    for kind in ["CON", "NON"] {
        let asked: Vec<_> = refused
            .iter()
            // In a Non-confirmable message an unknown option is rejected, and not answered (RFC 7252, 5.4.1).
            .filter(|(.., code)| kind == "CON" || *code != "4.02")
            .map(|(method, path, format, payload, code)| {
                let uri = format!("coap://127.0.0.1:{}{path}", field.port);
                (json!([kind, method, uri, format, payload]), *code)
            })
            .collect();
        let (asked, codes): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        assert_eq!(Aiocoap::start(&asked).unwrap().codes().unwrap(), codes, "{asked:#?}");
    }

    assert_eq!(field.device("::1").ask(&post(CON, 1, "boiler", "99"))[1], 0x44);
    let mut values = field.values("boiler", taken.len() + 1);
    assert_eq!(values.pop(), Some(99.into()), "the last comes last");
    let mut values: Vec<_> = values.iter().map(|value| value.as_f64().unwrap()).collect();
    values.sort_by(f64::total_cmp);
    assert_eq!(values, [[21.4; 12].as_slice(), &[21.5; 24]].concat());
}

#[test]
fn a_hundred_of_aiocoaps_requests_at_once_count_once_each() {
    let field = Field::start("[::]", "allow = ['127.0.0.1', '::1']", "");
    let request = |n: u64| {
        let host = if n % 2 == 0 { "127.0.0.1" } else { "[::1]" };
        json!(["CON", "POST", format!("coap://{host}:{}/boiler/t", field.port), 0, n.to_string()])
    };
    let requests: Vec<_> = (0..100).map(request).collect();
    assert_eq!(Aiocoap::start(&requests).unwrap().codes().unwrap(), ["2.04"; 100]);
    assert_eq!(Aiocoap::start(&[request(100)]).unwrap().codes().unwrap(), ["2.04"]);
    let mut values: Vec<_> =
        field.values("boiler", 101).iter().map(|value| value.as_u64().unwrap()).collect();
    assert_eq!(values.last(), Some(&100));
    values.sort_unstable();
    assert_eq!(values, (0..=100).collect::<Vec<_>>());
}

#[test]
fn what_aiocoap_repeats_because_the_answer_was_lost_is_answered_again_and_counts_once() {
    let field = Field::start("127.0.0.1", "", "");
    let link = UdpSocket::bind("127.0.0.1:0").unwrap();
    link.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let device = field.device("127.0.0.1");
    let uri = format!("coap://{}/boiler/t", link.local_addr().unwrap());
    let asking = Aiocoap::start(&[json!(["CON", "POST", uri, 0, "7"])]).unwrap();
    let hear = || {
        let mut buffer = [0; 1500];
        let (length, from) = link.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from)
    };
    let (request, _) = hear();
    let lost = device.ask(&request);
    let (again, from) = hear();
    assert_eq!(again, request);
    let answer = device.ask(&again);
    assert_eq!(answer, lost);
    link.send_to(&answer, from).unwrap();
    assert_eq!(asking.codes().unwrap(), ["2.04"]);
    assert_eq!(device.ask(&post(CON, 1, "boiler", "8"))[1], 0x44);
    assert_eq!(field.values("boiler", 2), [7, 8]);
}

#[test]
fn a_peer_that_repeats_each_request_three_times_is_answered_three_times_and_counted_once() {
    let field = Field::start("127.0.0.1", "", "");
    let device = field.device("127.0.0.1");
    for id in 0..100 {
        let request = post(CON, id, "boiler", &id.to_string());
        let [high, low] = id.to_be_bytes();
        if id % 2 == 0 {
            // One after the other, as over a link that loses answers.
            for _ in 0..3 {
                assert_eq!(device.ask(&request), [0x60, 0x44, high, low]);
            }
        } else {
            // All at once.
            (0..3).for_each(|_| device.send(&request));
            (0..3).for_each(|_| assert_eq!(device.hear(), [0x60, 0x44, high, low]));
        }
    }
    for id in 100..110 {
        let request = post(NON, id, "boiler", &id.to_string());
        let [high, low] = id.to_be_bytes();
        (0..3).for_each(|_| device.send(&request));
        assert_eq!(device.hear(), [0x50, 0x44, high, low]);
        device.send(&[0x40, 0, 0xFF, low]);
        assert_eq!(device.hear(), [0x70, 0, 0xFF, low], "a copy of what needs no answer gets none");
    }
    let expected: Vec<Value> = (0..110).map(Value::from).collect();
    assert_eq!(field.values("boiler", 110), expected);
}

#[test]
fn an_address_outside_allow_gets_no_answer_and_is_counted() {
    let field = Field::start("[::]", "allow = ['::1', '127.0.0.2/31']", "");
    let stranger = field.device("127.0.0.1");
    stranger.send(&post(CON, 1, "boiler", "1"));
    stranger.send(&[0x40, 0, 0, 1]);
    field.site.agent.wait_for("cause=\"not_allowed\" count=1").unwrap();
    assert_eq!(field.device("::1").ask(&post(CON, 2, "boiler", "2")), [0x60, 0x44, 0, 2]);
    let friend = UdpSocket::bind("127.0.0.3:0").unwrap();
    friend.connect(("127.0.0.1", field.port)).unwrap();
    friend.send(&post(CON, 3, "boiler", "3")).unwrap();
    friend.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(friend.recv(&mut [0; 16]).unwrap(), 4);
    stranger.0.set_nonblocking(true).unwrap();
    assert!(stranger.0.recv(&mut [0; 16]).is_err(), "strangers hear nothing");
    assert_eq!(field.values("boiler", 2), [2, 3]);
}

#[test]
fn ten_thousand_random_and_mutated_datagrams_neither_stop_it_nor_grow_it() {
    let field = Field::start("[::]", "allow = ['::1']", "[limits]\nmax_series = 100");
    let device = field.device("::1");
    let good = [
        post(CON, 1, "boiler", "21.5"),
        post(NON, 2, "boiler", "true"),
        b"\x43\x03\x00\x03tok\xb6boiler\x11\x32\xff{\"t\":21.5,\"door\":true}".to_vec(),
    ];
    // Its memory as it is at work, not as it is at the start. The series of this device has its place for good.
    for id in 1_000..1_200 {
        assert_eq!(device.ask(&post(CON, id, "warm", "1"))[1], 0x44);
    }
    field.values("warm", 200);
    let before = field.site.agent.resident().unwrap();
    let mut chance = fastrand::Rng::with_seed(42);
    for number in 0..10_000 {
        let datagram = if number % 2 == 0 {
            (0..chance.usize(0..200)).map(|_| chance.u8(..)).collect()
        } else {
            let datagram = good[chance.usize(..good.len())].clone();
            mutated(datagram, &mut chance)
        };
        device.send(&datagram);
        // Not more at a time than the kernel keeps, so that every one is read.
        if number % 50 == 49 {
            device.wait_until_read(number);
        }
    }
    let answer = field.device("::1").ask(&post(CON, 20_000, "warm", "7"));
    assert_eq!(answer, [0x60, 0x44, 0x4E, 0x20]);
    assert_eq!(field.values("warm", 201).last(), Some(&7.into()));
    let grown = field.site.agent.resident().unwrap().saturating_sub(before);
    println!("10,000 datagrams: {} KiB more than the {} KiB before", grown >> 10, before >> 10);
    assert!(grown <= 1 << 20, "{grown} bytes more than the {before} before");
}

/// One to three bytes changed, put in, or left out with all behind them.
fn mutated(mut datagram: Vec<u8>, chance: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..chance.usize(1..=3) {
        let (at, byte) = (chance.usize(..datagram.len()), chance.u8(..));
        match chance.u8(..3) {
            0 => datagram[at] = byte,
            1 => datagram.insert(at, byte),
            _ => datagram.truncate(at.max(1)),
        }
    }
    datagram
}

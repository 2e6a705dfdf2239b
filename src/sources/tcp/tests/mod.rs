use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use socket2::SockRef;
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::model::{Timestamp, Value};
use crate::sources::{Refusal, Stats};

const JSON: &str = "decode = { type = 'json', device = 'dev' }";

fn config(toml: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(&format!("{JSON}\n{toml}"))
}

fn problems(toml: &str) -> Vec<&'static str> {
    config(toml).unwrap().problems().into_iter().map(|(key, _)| key).collect()
}

fn context() -> Context {
    Context {
        name: "field".into(),
        clock: Clock::injected(Timestamp(1_700_000_000_000), true),
        stats: Arc::new(Stats::default()),
        memory: Default::default(),
        ports: Default::default(),
    }
}

/// A source at a port of the kernel's choice.
async fn listen(toml: &str, context: &Context) -> (Tcp, SocketAddr) {
    let config = config(&format!("listen = '127.0.0.1:0'\n{toml}")).unwrap();
    let source = Tcp::open(&config, context).await.unwrap();
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    let address = listener.address();
    (source, address)
}

fn device(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// Closes at once: what it has not sent is thrown away, and the other side gets a reset.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The next batch, or a failed test where none comes.
async fn next(source: &mut Tcp) -> Result<Batch, SourceError> {
    timeout(Duration::from_secs(20), source.next()).await.expect("the source says nothing")
}

/// The next so many readings, as device and value.
async fn take(source: &mut Tcp, count: usize) -> Vec<(String, Value)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let readings = next(source).await.unwrap().readings;
        taken.extend(
            readings.iter().map(|(_, reading)| (reading.device.to_owned(), reading.value.to_owned())),
        );
    }
    taken
}

/// Lets it work until `enough`.
async fn until(source: &mut Tcp, enough: impl Fn() -> bool) {
    let work = async {
        while !enough() {
            let _ = timeout(Duration::from_millis(20), source.next()).await;
        }
    };
    timeout(Duration::from_secs(20), work).await.expect("it never comes to that");
}

fn int(device: &str, value: i64) -> (String, Value) {
    (device.to_owned(), Value::Int(value))
}

fn refused(context: &Context, refusal: Refusal) -> u64 {
    context.stats.refused().find(|(which, _)| *which == refusal).unwrap().1
}

fn open(source: &Tcp) -> usize {
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    listener.connections()
}

#[test]
fn a_source_listens_or_dials_and_each_has_its_own_keys() {
    assert_eq!(problems(""), ["listen"]);
    assert_eq!(problems("listen = '127.0.0.1:9300'\nconnect = 'logger:9300'"), ["connect"]);
    assert_eq!(problems("listen = '0.0.0.0:9300'"), ["listen"], "without allow");
    assert_eq!(problems("listen = '0.0.0.0:9300'\nallow = ['10.0.0.0/8']\nmax_connections = 10000"), [""; 0]);
    assert_eq!(problems("connect = 'logger:9300'\nidle_timeout = '1m'"), [""; 0]);
    let keys = problems(
        "connect = 'logger:9300'\nallow = ['::1']\nmax_connections = 1\ntls = { cert = 'a', key = 'b' }",
    );
    assert_eq!(keys, ["allow", "max_connections", "tls"]);
}

#[test]
fn what_is_out_of_bounds_is_a_problem_at_its_key() {
    for (toml, key) in [
        ("listen = '127.0.0.1:0'", "listen"),
        ("listen = '127.0.0.1:1'\nmax_connections = 0", "max_connections"),
        ("listen = '127.0.0.1:1'\nmax_connections = 65537", "max_connections"),
        ("listen = '127.0.0.1:1'\nidle_timeout = '999ms'", "idle_timeout"),
        ("listen = '127.0.0.1:1'\ndevice = ''", "device"),
        ("listen = '127.0.0.1:1'\nframing = { type = 'lines', max_frame = '2MiB' }", "framing.max_frame"),
        ("connect = 'logger'", "connect"),
        ("connect = ':9300'", "connect"),
        ("connect = 'logger:0'", "connect"),
        ("connect = 'fd00::20'", "connect"),
    ] {
        assert_eq!(problems(toml), [key], "{toml}");
    }
    assert_eq!(problems("connect = '[fd00::20]:9300'"), [""; 0]);
    let error = config("listen = 'here'").unwrap_err().to_string();
    assert!(error.contains("`here` is no address to listen on"), "{error}");
}

#[test]
fn certificates_that_are_not_there_are_waited_for() {
    let tls =
        "listen = '127.0.0.1:9300'\ntls = { cert = '/none.pem', key = '/none.key', ca = '/none-ca.pem' }";
    let absent: Vec<_> = config(tls).unwrap().absent().into_iter().map(|(key, _)| key).collect();
    assert_eq!(absent, ["tls.cert", "tls.key", "tls.ca"]);
}

#[test]
fn two_cannot_listen_at_one_place_and_two_may_dial_one_device() {
    let clash = |one: &str, other: &str| config(one).unwrap().clashes(&config(other).unwrap());
    assert!(clash("listen = '0.0.0.0:9300'", "listen = '127.0.0.1:9300'"));
    assert!(!clash("listen = '127.0.0.1:9301'", "listen = '127.0.0.1:9300'"));
    assert!(!clash("connect = 'logger:9300'", "connect = 'logger:9300'"));
}

#[tokio::test]
async fn what_devices_send_in_pieces_between_one_another_is_put_together_for_each() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut devices = [device(address), device(address)];
    let (mut taken, mut written) = (Vec::new(), 0);
    for (which, piece) in [
        (0, &b"{\"dev\":\"one\",\"t\""[..]),
        (1, b"{\"dev\":\"other\","),
        (0, b":1}\n{\"dev\":\"one\",\"t\":2}\n"),
        (1, b"\"t\":3}\r\n"),
    ] {
        devices[which].write_all(piece).unwrap();
        written += piece.len() as u64;
        // Each piece is read by itself.
        while context.stats.bytes.load(Ordering::Relaxed) < written {
            if let Ok(batch) = timeout(Duration::from_millis(20), source.next()).await {
                let readings = batch.unwrap().readings;
                taken.extend(readings.iter().map(|(_, r)| (r.device.to_owned(), r.value.to_owned())));
            }
        }
    }
    assert_eq!(taken, [int("one", 1), int("one", 2), int("other", 3)]);
    assert_eq!(context.stats.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_device_that_closes_or_resets_is_read_to_its_end_and_what_had_begun_is_counted() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut half = device(address);
    half.write_all(b"{\"dev\":\"half\",\"t\":1}\n{\"dev\":").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(take(&mut source, 1).await, [int("half", 1)]);
    until(&mut source, || refused(&context, Refusal::CutOff) == 1).await;
    assert_eq!(open(&source), 0);

    let mut gone = device(address);
    gone.write_all(b"{\"dev\":").unwrap();
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) == 35).await;
    reset(gone);
    until(&mut source, || refused(&context, Refusal::CutOff) == 2).await;
    assert_eq!(open(&source), 0);

    let mut stopped = device(address);
    stopped.write_all(b"{").unwrap();
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) == 36).await;
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 3, "it was weir that ended it");
}

#[tokio::test]
async fn a_stranger_is_closed_at_once_and_counted() {
    let context = context();
    let (mut source, address) = listen("allow = ['127.0.0.2']", &context).await;
    let _stranger = device(address);
    until(&mut source, || refused(&context, Refusal::NotAllowed) == 1).await;
    assert_eq!(open(&source), 0);
    let friend = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    friend.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    friend.connect(&address.into()).unwrap();
    TcpStream::from(friend).write_all(b"{\"dev\":\"friend\",\"t\":1}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("friend", 1)]);
}

#[tokio::test]
async fn over_max_connections_a_device_is_refused_until_another_has_gone() {
    let context = context();
    let (mut source, address) = listen("max_connections = 2", &context).await;
    let (first, _second) = (device(address), device(address));
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 2).await;
    let _third = device(address);
    until(&mut source, || refused(&context, Refusal::TooMany) == 1).await;
    drop(first);
    let mut fourth = device(address);
    // The order in which the kernel tells of both is its own.
    let work = async {
        while context.stats.connections.load(Ordering::Relaxed) < 3 {
            let _ = timeout(Duration::from_millis(20), source.next()).await;
            fourth = device(address);
        }
    };
    timeout(Duration::from_secs(20), work).await.unwrap();
    assert_eq!(open(&source), 2);
}

/// As much as the kernel takes, of many whole lines.
fn flood(socket: &mut TcpStream, line: &[u8]) -> usize {
    socket.set_nonblocking(true).unwrap();
    let text = line.repeat(1000);
    let mut written = 0;
    while let Ok(length) = socket.write(&text) {
        written += length;
    }
    written
}

#[tokio::test]
async fn whoever_has_little_to_say_is_heard_beside_one_who_never_stops() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut loud = device(address);
    let written = flood(&mut loud, b"{\"dev\":\"loud\",\"t\":1}\n");
    assert!(written > 100_000, "{written}");
    let mut quiet: Vec<_> = (0..100).map(|_| device(address)).collect();
    for (number, socket) in quiet.iter_mut().enumerate() {
        writeln!(socket, "{{\"dev\":\"quiet-{number}\",\"t\":1}}").unwrap();
    }
    let mut heard = 0;
    let mut loud_before = 0;
    while heard < 100 {
        let readings = next(&mut source).await.unwrap().readings;
        for (_, reading) in readings.iter() {
            match reading.device {
                "loud" if heard < 100 => loud_before += 1,
                "loud" => {}
                _ => heard += 1,
            }
        }
        flood(&mut loud, b"{\"dev\":\"loud\",\"t\":1}\n");
    }
    // A line is 21 bytes; the loud one had a few turns while the others were taken and read.
    assert!(loud_before < 8 * 8192 / 21, "{loud_before} of the loud one came before all others were heard");
}

/// Reads of a source whose peer floods it with these lines, while somebody beside it on the same thread wants a turn after
/// so many bytes at most.
async fn others_have_their_turn(
    mut source: Tcp,
    mut peer: TcpStream,
    line: &[u8],
    most: u64,
    context: &Context,
) {
    assert!(flood(&mut peer, line) > 100_000);
    let beside = async {
        let mut before = 0;
        while before < 100_000 {
            let read = context.stats.bytes.load(Ordering::Relaxed);
            assert!(read - before <= most, "{} bytes without a turn", read - before);
            before = read;
            tokio::task::yield_now().await;
        }
    };
    let work = async {
        loop {
            source.next().await.unwrap();
        }
    };
    let both = async {
        tokio::select! { biased; () = work => {}, () = beside => {} }
    };
    timeout(Duration::from_secs(20), both).await.expect("it does not come to that");
}

#[tokio::test]
async fn whatever_one_sends_without_end_other_sources_have_their_turn() {
    for line in [&b"x\n"[..], b"{\"dev\":\"loud\",\"t\":1}\n"] {
        let context = context();
        let (mut source, address) = listen("", &context).await;
        let Side::Listener(listener) = &mut source.0 else { panic!("it dials") };
        listener.hurry();
        others_have_their_turn(source, device(address), line, 8192, &context).await;
    }
    let context = context();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let source = dial(listener.local_addr().unwrap(), "", &context).await.unwrap();
    let (peer, _) = listener.accept().unwrap();
    others_have_their_turn(source, peer, b"x\n", 4096, &context).await;
}

#[tokio::test]
async fn what_is_not_taken_is_not_read_and_nothing_of_it_is_lost() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut loud = device(address);
    let line = b"{\"dev\":\"loud\",\"t\":1}\n";
    let written = flood(&mut loud, line);
    next(&mut source).await.unwrap();
    // The pipeline takes nothing meanwhile.
    let read = context.stats.bytes.load(Ordering::Relaxed);
    assert!(read < 400_000 && usize::try_from(read).unwrap() < written, "{read} of {written}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(context.stats.bytes.load(Ordering::Relaxed), read);
    while context.stats.bytes.load(Ordering::Relaxed) < u64::try_from(written).unwrap() {
        next(&mut source).await.unwrap();
    }
    let expected = u64::try_from(written / line.len()).unwrap();
    assert_eq!(context.stats.readings.load(Ordering::Relaxed), expected);
}

/// Waits with tokio's time, which jumps to the next timer when there is nothing else to do.
#[tokio::test]
async fn a_silent_connection_is_closed_and_one_that_was_not_read_meanwhile_is_not() {
    let context = context();
    let (mut source, address) = listen("idle_timeout = '1m'", &context).await;
    let (_silent, mut held_back) = (device(address), device(address));
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 2).await;
    tokio::time::pause();
    // A stalled pipeline: nothing is asked for.
    tokio::time::sleep(Duration::from_secs(300)).await;
    held_back.write_all(b"{\"dev\":\"held back\",\"t\":1}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("held back", 1)]);
    assert_eq!((open(&source), context.stats.silent.get()), (1, 1), "the silent one is closed");

    assert!(timeout(Duration::from_secs(59), source.next()).await.is_err());
    assert_eq!(open(&source), 1, "not before its time");
    assert!(timeout(Duration::from_secs(17), source.next()).await.is_err());
    assert_eq!((open(&source), context.stats.silent.get()), (0, 2), "a quarter later at most");
}

#[tokio::test]
async fn a_byte_now_and_then_holds_off_the_idle_timeout_ten_times_at_most() {
    let context = context();
    let (mut source, address) = listen("idle_timeout = '1m'", &context).await;
    let (mut dripping, mut steady) = (device(address), device(address));
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 2).await;
    steady.write_all(b"{").unwrap();
    tokio::time::pause();
    let mut minutes = 0.0;
    while open(&source) == 2 && minutes < 30.0 {
        // Whoever ends frames may be in the middle of the next at all times.
        dripping.write_all(b"x").unwrap();
        steady.write_all(b"\"dev\":\"steady\",\"t\":1}\n{").unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        minutes += 0.5;
        let _ = timeout(Duration::from_millis(50), source.next()).await;
    }
    assert!((10.0..11.0).contains(&minutes), "{minutes}");
    assert_eq!((context.stats.silent.get(), refused(&context, Refusal::CutOff)), (1, 1));
    steady.write_all(b"\"dev\":\"steady\",\"t\":7}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("steady", 7)]);
}

#[tokio::test]
async fn who_is_silent_in_the_handshake_gives_its_place_to_one_who_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    let mut private = std::fs::OpenOptions::new();
    private.create(true).write(true).mode(0o600);
    private.open(&key).unwrap().write_all(own.signing_key.serialize_pem().as_bytes()).unwrap();
    let context = context();
    let tls = format!("tls = {{ cert = '{}', key = '{}' }}", cert.display(), key.display());
    let (mut source, address) = listen(&tls, &context).await;
    let connections = || context.stats.connections.load(Ordering::Relaxed);
    let _silent: Vec<_> = (0..128).map(|_| device(address)).collect();
    until(&mut source, || connections() == 128).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let mut client =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut socket = device(address);
    client.write_tls(&mut socket).unwrap();
    tokio::time::pause();
    assert!(timeout(Duration::from_millis(500), source.next()).await.is_err());
    assert_eq!(connections(), 128, "each has a second to speak");
    assert!(timeout(Duration::from_millis(600), source.next()).await.is_err());
    assert_eq!((connections(), open(&source), refused(&context, Refusal::Tls)), (129, 128, 1));
    tokio::time::resume();

    socket.set_nonblocking(true).unwrap();
    while client.is_handshaking() || client.wants_write() {
        let _ = client.complete_io(&mut socket);
        let _ = timeout(Duration::from_millis(5), source.next()).await;
    }
    client.writer().write_all(b"{\"dev\":\"good\",\"t\":1}\n").unwrap();
    client.write_tls(&mut socket).unwrap();
    assert_eq!(take(&mut source, 1).await, [int("good", 1)]);
    assert_eq!(refused(&context, Refusal::Tls), 1, "the others have their ten seconds while nobody waits");
}

#[tokio::test]
async fn without_idle_timeout_a_listener_at_rest_has_no_timer() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let _silent = device(address);
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 1).await;
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    assert_eq!(listener.due(), None);
}

#[tokio::test]
async fn unfinished_frames_have_a_bound_over_all_connections_and_others_are_read_on() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut slow: Vec<_> = (0..200).map(|_| device(address)).collect();
    let mut good = device(address);
    good.write_all(b"{\"dev\":\"good\",").unwrap();
    for socket in &mut slow {
        socket.set_nonblocking(true).unwrap();
        socket.write_all(&[b'x'; 60_000]).unwrap();
    }
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) >= 200 * 60_000 - 10_000_000).await;
    until(&mut source, || refused(&context, Refusal::Crowded) > 50).await;
    good.write_all(b"\"t\":1}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("good", 1)]);
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    assert!(listener.begun() <= 9 << 20, "{}", listener.begun());
    assert_eq!(refused(&context, Refusal::CutOff), 0);
    let crowded = refused(&context, Refusal::Crowded);
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 200 - crowded, "each is counted once");
}

#[tokio::test]
async fn a_look_that_is_given_up_loses_nothing() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut socket = device(address);
    let mut taken = Vec::new();
    for number in 0..200 {
        writeln!(socket, "{{\"dev\":\"one\",\"t\":{number}}}").unwrap();
        // Given up at whatever point it waits at.
        let given_up = timeout(Duration::from_micros(fastrand::u64(..3000)), source.next()).await;
        let readings = given_up.ok().map(|batch| batch.unwrap().readings);
        taken.extend(
            readings.iter().flat_map(|readings| readings.iter()).map(|(_, reading)| reading.value.to_owned()),
        );
    }
    while taken.len() < 200 {
        taken.extend(take(&mut source, 1).await.into_iter().map(|(_, value)| value));
    }
    assert_eq!(taken, (0..200).map(Value::Int).collect::<Vec<_>>());
}

/// Devices that write in pieces of any size, close, reset and come again, against what each has sent whole.
#[tokio::test]
async fn whatever_devices_do_each_whole_line_comes_once_and_in_order() {
    for seed in 0..20 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let context = context();
        let (mut source, address) = listen("", &context).await;
        let mut sent: HashMap<String, i64> = HashMap::new();
        let mut came: HashMap<String, i64> = HashMap::new();
        let mut cut_off = 0;
        let mut devices: Vec<(TcpStream, String, Vec<u8>)> = Vec::new();
        for turn in 0..300 {
            match chance.u8(..10) {
                0..=1 if devices.len() < 20 => {
                    devices.push((device(address), format!("d{turn}"), Vec::new()))
                }
                2 if !devices.is_empty() => {
                    // Closed in order: what it has written arrives.
                    let (socket, _, rest) = devices.swap_remove(chance.usize(..devices.len()));
                    cut_off += u64::from(!rest.is_empty());
                    drop(socket);
                }
                3 => {
                    if let Ok(batch) = timeout(Duration::from_millis(1), source.next()).await {
                        note(&batch.unwrap(), &mut came);
                    }
                }
                _ if !devices.is_empty() => {
                    let at = chance.usize(..devices.len());
                    let (socket, name, rest) = &mut devices[at];
                    let number = sent.entry(name.clone()).or_insert(0);
                    if rest.is_empty() {
                        *rest = format!("{{\"dev\":\"{name}\",\"t\":{}}}\n", *number + 1).into_bytes();
                    }
                    let written = chance.usize(1..=rest.len());
                    socket.write_all(&rest[..written]).unwrap();
                    *rest = rest.split_off(written);
                    *number += i64::from(rest.is_empty());
                }
                _ => {}
            }
        }
        // What has not begun to be written is not cut off; what has, is.
        cut_off += u64::try_from(devices.iter().filter(|(_, _, rest)| !rest.is_empty()).count()).unwrap();
        drop(devices);
        sent.retain(|_, count| *count > 0);
        while came != sent {
            note(&next(&mut source).await.unwrap(), &mut came);
        }
        until(&mut source, || refused(&context, Refusal::CutOff) >= cut_off).await;
        drop(source);
        assert_eq!(refused(&context, Refusal::CutOff), cut_off, "seed {seed}");
        assert_eq!(refused(&context, Refusal::Undecodable), 0, "seed {seed}");
    }
}

/// Notes what has come; the numbers of each device follow one another.
fn note(batch: &Batch, came: &mut HashMap<String, i64>) {
    for (_, reading) in batch.readings.iter() {
        let last = came.entry(reading.device.to_owned()).or_insert(0);
        assert_eq!(reading.value, Value::Int(*last + 1), "{}", reading.device);
        *last += 1;
    }
}

#[tokio::test]
async fn what_keeps_it_from_listening_is_said_with_what_to_do() {
    let context = context();
    let (_source, address) = listen("", &context).await;
    for (toml, words) in [
        (format!("listen = '{address}'"), "another program, or another source, listens there: `ss -tlpn"),
        ("listen = '192.0.2.1:9300'".to_owned(), "the address 192.0.2.1 is not there"),
        (
            "listen = '127.0.0.1:0'\ntls = { cert = '/none.pem', key = '/none.key' }".to_owned(),
            "/none.pem is not there: install it",
        ),
    ] {
        let error = Tcp::open(&config(&toml).unwrap(), &context).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

async fn dial(address: SocketAddr, more: &str, context: &Context) -> Result<Tcp, SourceError> {
    Tcp::open(&config(&format!("connect = '{address}'\n{more}")).unwrap(), context).await
}

#[tokio::test]
async fn a_device_is_dialled_and_read_until_it_closes() {
    let context = context();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut source = dial(address, "", &context).await.unwrap();
    let (mut device, _) = listener.accept().unwrap();
    device.write_all(b"{\"t\":1}\n{\"t\"").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("field", 1)]);
    device.write_all(b":2}\n{").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("field", 2)]);
    drop(device);
    let error = next(&mut source).await.unwrap_err().to_string();
    assert_eq!(error, format!("{address} went away: it closed the connection"));
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 1);

    drop(listener);
    let error = dial(address, "", &context).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{address} is not there: nothing listens there")), "{error}");
}

#[tokio::test]
async fn a_dialled_device_that_says_nothing_is_gone_after_a_while_and_not_for_what_was_not_read() {
    let context = context();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = dial(listener.local_addr().unwrap(), "idle_timeout = '1m'", &context).await.unwrap();
    let (mut device, _) = listener.accept().unwrap();
    device.write_all(b"{\"t\":1}\n").unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(take(&mut source, 1).await, [int("field", 1)]);
    let before = context.clock.monotonic();
    let error = source.next().await.unwrap_err().to_string();
    assert!(error.ends_with("it has said nothing for 1m (`idle_timeout`)"), "{error}");
    assert_eq!((context.clock.monotonic() - before).as_secs(), 60);
}

/// Waits with tokio's time, which jumps to the next timer when there is nothing else to do.
#[tokio::test]
async fn where_a_silence_ends_a_frame_it_is_each_connections_own() {
    let context = context();
    let silence = "framing = { type = 'silence', idle_gap = '1s' }";
    let (mut source, address) = listen(silence, &context).await;
    let (mut one, mut other) = (device(address), device(address));
    one.write_all(b"{\"dev\":\"one\",\"t\":").unwrap();
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) == 17).await;
    tokio::time::pause();
    other.write_all(b"{\"dev\":\"other\",\"t\":2}").unwrap();
    one.write_all(b"1}").unwrap();
    let mut taken = take(&mut source, 2).await;
    taken.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(taken, [int("one", 1), int("other", 2)]);
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    assert_eq!(listener.due(), None);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = dial(listener.local_addr().unwrap(), silence, &context).await.unwrap();
    let (mut device, _) = listener.accept().unwrap();
    device.write_all(b"{\"t\":3}").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("field", 3)]);
}

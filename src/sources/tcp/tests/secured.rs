//! Devices that speak TLS.

use rustls::{ClientConfig, ClientConnection};

use super::*;

/// The files of a listener, and what its devices trust. They go with it.
struct Pki {
    dir: tempfile::TempDir,
    client: Arc<ClientConfig>,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), own.cert.pem()).unwrap();
        let mut private = std::fs::OpenOptions::new();
        private.create(true).write(true).mode(0o600);
        let mut key = private.open(dir.path().join("key.pem")).unwrap();
        key.write_all(own.signing_key.serialize_pem().as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let client = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        Self { dir, client }
    }

    fn table(&self) -> String {
        let dir = self.dir.path().display();
        format!("tls = {{ cert = '{dir}/cert.pem', key = '{dir}/key.pem' }}")
    }

    fn client(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.client), "localhost".try_into().unwrap()).unwrap()
    }
}

/// Brings the handshake to its end.
async fn shake_hands(client: &mut ClientConnection, socket: &mut TcpStream, source: &mut Tcp) {
    socket.set_nonblocking(true).unwrap();
    while client.is_handshaking() || client.wants_write() {
        let _ = client.complete_io(socket);
        let _ = timeout(Duration::from_millis(5), source.next()).await;
    }
}

/// What goes over the wire for `text`.
fn record(client: &mut ClientConnection, text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    client.writer().write_all(text).unwrap();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

fn begun(source: &Tcp) -> usize {
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    listener.begun()
}

#[tokio::test]
async fn who_is_silent_in_the_handshake_gives_its_place_to_one_who_speaks() {
    let (context, pki) = (context(), Pki::new());
    let (mut source, address) = listen(&pki.table(), &context).await;
    let connections = || context.stats.connections.load(Ordering::Relaxed);
    let _silent: Vec<_> = (0..128).map(|_| device(address)).collect();
    until(&mut source, || connections() == 128).await;

    let (mut client, mut socket) = (pki.client(), device(address));
    client.write_tls(&mut socket).unwrap();
    tokio::time::pause();
    assert!(timeout(Duration::from_millis(500), source.next()).await.is_err());
    assert_eq!(connections(), 128, "each has a second to speak");
    assert!(timeout(Duration::from_millis(600), source.next()).await.is_err());
    assert_eq!((connections(), open(&source), refused(&context, Refusal::Tls)), (129, 128, 1));
    tokio::time::resume();

    shake_hands(&mut client, &mut socket, &mut source).await;
    socket.write_all(&record(&mut client, b"{\"dev\":\"good\",\"t\":1}\n")).unwrap();
    assert_eq!(take(&mut source, 1).await, [int("good", 1)]);
    assert_eq!(refused(&context, Refusal::Tls), 1, "the others have their ten seconds while nobody waits");
}

/// A record is decrypted only once it is whole: until then it has to be kept.
#[tokio::test]
async fn of_a_connection_at_rest_nothing_is_kept_and_an_unfinished_record_is_on_the_books() {
    let (context, pki) = (context(), Pki::new());
    let (mut source, address) = listen(&pki.table(), &context).await;
    let (mut client, mut socket) = (pki.client(), device(address));
    shake_hands(&mut client, &mut socket, &mut source).await;
    assert_eq!(begun(&source), 0);
    let text = [&b"{\"dev\":\"one\",\"t\":1}"[..], &[b' '; 16_000], b"\n"].concat();
    let wire = record(&mut client, &text);
    let (begin, end) = wire.split_at(12_000);
    socket.write_all(begin).unwrap();
    for _ in 0..1_000 {
        let nothing = timeout(Duration::from_millis(5), source.next()).await;
        assert!(nothing.is_err());
        if begun(&source) >= begin.len() {
            break;
        }
    }
    assert!((begin.len()..2 * begin.len()).contains(&begun(&source)), "{}", begun(&source));
    assert_eq!(context.stats.bytes.load(Ordering::Relaxed), 0);
    socket.write_all(end).unwrap();
    assert_eq!(take(&mut source, 1).await, [int("one", 1)]);
    assert!(begun(&source) <= 256, "{}", begun(&source));
}

#[tokio::test]
async fn a_record_that_has_begun_when_its_connection_ends_is_counted() {
    let (context, pki) = (context(), Pki::new());
    let (mut source, address) = listen(&pki.table(), &context).await;
    for (count, text) in [&b"{\"dev\":\"one\",\"t\":1}\n"[..], b""].into_iter().enumerate() {
        let (mut client, mut socket) = (pki.client(), device(address));
        shake_hands(&mut client, &mut socket, &mut source).await;
        socket.write_all(&record(&mut client, text)).unwrap();
        socket.write_all(&record(&mut client, b"{\"dev\":\"one\",\"t\":2}\n")[..20]).unwrap();
        drop(socket);
        until(&mut source, || refused(&context, Refusal::CutOff) == count as u64 + 1).await;
    }
    let (mut client, mut socket) = (pki.client(), device(address));
    client.write_tls(&mut socket).unwrap();
    drop(socket);
    until(&mut source, || refused(&context, Refusal::Tls) == 1).await;
    assert_eq!(refused(&context, Refusal::CutOff), 2, "of a handshake no reading was lost");
}

#[tokio::test]
async fn a_byte_of_a_record_now_and_then_is_no_life_either() {
    let (context, pki) = (context(), Pki::new());
    let (mut source, address) = listen(&format!("{}\nidle_timeout = '1m'", pki.table()), &context).await;
    let (mut client, mut socket) = (pki.client(), device(address));
    shake_hands(&mut client, &mut socket, &mut source).await;
    let wire = record(&mut client, &[b'x'; 100]);
    tokio::time::pause();
    let mut minutes = 0.0;
    for byte in wire.iter().take(60) {
        if socket.write_all(&[*byte]).is_err() || open(&source) == 0 {
            break;
        }
        ask_for(&mut source, Duration::from_secs(30)).await.unwrap();
        minutes += 0.5;
    }
    assert!((10.0..11.5).contains(&minutes), "{minutes}");
    assert_eq!((context.stats.silent.get(), begun(&source)), (1, 0));
}

/// However the stream is cut into reads.
#[tokio::test]
async fn records_in_pieces_of_any_size_are_put_together() {
    for seed in 0..20 {
        let (mut chance, context, pki) = (fastrand::Rng::with_seed(seed), context(), Pki::new());
        let (mut source, address) = listen(&pki.table(), &context).await;
        let (mut client, mut socket) = (pki.client(), device(address));
        shake_hands(&mut client, &mut socket, &mut source).await;
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for number in 0..50 {
            let blanks = " ".repeat(chance.usize(..2_000));
            let line = format!("{{\"dev\":\"one\",{blanks}\"t\":{number}}}\n");
            // A line in several records, or several lines in one read.
            let (begin, end) = line.split_at(chance.usize(1..line.len()));
            wire.extend(record(&mut client, begin.as_bytes()));
            wire.extend(record(&mut client, end.as_bytes()));
            sent.push(int("one", number));
        }
        let (mut rest, mut taken) = (&wire[..], Vec::new());
        while taken.len() < sent.len() {
            let (piece, later) = rest.split_at(chance.usize(1..20_000).min(rest.len()));
            let written = if piece.is_empty() { 0 } else { socket.write(piece).unwrap_or(0) };
            rest = if written == piece.len() { later } else { &rest[written..] };
            if let Ok(batch) = timeout(Duration::from_millis(5), source.next()).await {
                let readings = batch.unwrap().readings;
                taken.extend(readings.iter().map(|(_, r)| (r.device.to_owned(), r.value.to_owned())));
            }
        }
        assert_eq!(taken, sent, "seed {seed}");
        assert!(begun(&source) <= 256, "seed {seed}: {}", begun(&source));
    }
}

#[tokio::test]
async fn what_is_no_tls_in_the_middle_of_a_connection_is_refused_and_what_came_before_it_is_good() {
    let (context, pki) = (context(), Pki::new());
    let (mut source, address) = listen(&pki.table(), &context).await;
    let (mut client, mut socket) = (pki.client(), device(address));
    shake_hands(&mut client, &mut socket, &mut source).await;
    let mut wire = record(&mut client, b"{\"dev\":\"one\",\"t\":1}\n");
    let mut hurt = record(&mut client, b"{\"dev\":\"one\",\"t\":2}\n");
    hurt[10] ^= 1;
    wire.extend(hurt);
    socket.write_all(&wire).unwrap();
    assert_eq!(take(&mut source, 1).await, [int("one", 1)]);
    until(&mut source, || refused(&context, Refusal::Tls) == 1).await;
    assert_eq!((open(&source), begun(&source)), (0, 0));
    // It is told: an alert has come before the end.
    socket.set_nonblocking(false).unwrap();
    client.read_tls(&mut socket).unwrap();
    let told = client.process_new_packets().unwrap_err().to_string();
    assert!(told.contains("BadRecordMac"), "{told}");
}

#[tokio::test]
async fn a_message_of_the_handshake_in_ever_so_many_pieces_has_a_bound() {
    let (context, pki) = (context(), Pki::new());
    let (mut source, address) = listen(&pki.table(), &context).await;
    let mut socket = device(address);
    // A ClientHello of 60,000 bytes, each in a record of its own, whose header has five.
    let message = [&[1, 0, 0xea, 0x60][..], &[0; 60_000]].concat();
    let wire: Vec<u8> = message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    let mut most = 0;
    for piece in wire.chunks(4_000) {
        if socket.write_all(piece).is_err() {
            break;
        }
        // Each is taken before the next: what is at its most is to be seen.
        let before = begun(&source);
        while begun(&source) == before && refused(&context, Refusal::Tls) == 0 {
            let _ = timeout(Duration::from_millis(1), source.next()).await;
        }
        most = most.max(begun(&source));
    }
    until(&mut source, || refused(&context, Refusal::Tls) == 1).await;
    assert!((60_000..150_000).contains(&most), "{most}");
    assert_eq!((open(&source), begun(&source)), (0, 0));
}

/// Devices and what they say first, against whatever else may be said: nothing of it is a panic, nor kept.
#[tokio::test]
async fn whatever_a_handshake_is_made_of_it_ends() {
    let pki = Pki::new();
    for seed in 0..200 {
        let (mut chance, context) = (fastrand::Rng::with_seed(seed), context());
        let (mut source, address) = listen(&pki.table(), &context).await;
        let (mut client, mut socket) = (pki.client(), device(address));
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        for _ in 0..chance.usize(..3) {
            let at = chance.usize(..hello.len());
            match chance.u8(..4) {
                0 => hello[at] = chance.u8(..),
                1 => hello.truncate(at + 1),
                2 => hello.splice(at..at, [22, 3, 3, 0, chance.u8(..4)]).for_each(drop),
                _ => hello.extend_from_within(..at),
            }
        }
        let (begin, end) = hello.split_at(chance.usize(..hello.len()));
        for piece in [begin, end] {
            let _ = socket.write_all(piece);
            let _ = timeout(Duration::from_millis(2), source.next()).await;
        }
        drop(socket);
        until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 1).await;
        let all_gone = async {
            while open(&source) > 0 {
                let _ = timeout(Duration::from_millis(2), source.next()).await;
            }
        };
        timeout(Duration::from_secs(20), all_gone).await.unwrap();
        assert_eq!(begun(&source), 0, "seed {seed}");
    }
}

//! Mutual TLS: a real mosquitto that demands client certificates, and every mistake with its own message.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::broker::{Broker, Guard, Seen};
use support::mosquitto::{Message, Mosquitto, Subscriber};
use support::pki::{Authority, Files, Identity, Valid};
use support::weak_link::WeakLink;
use weir::clock::Clock;
use weir::model::{Id, Kind, Publication, Timestamp};
use weir::uplink::mqtt::{Config, Mqtt};
use weir::uplink::{Event, Lasting, LinkError, Session as _, Uplink as _};

const PROTOCOLS: [&str; 2] = ["5", "3.1.1"];

/// 22 November 2026.
const NOW: Timestamp = Timestamp(1_795_305_600_000);

/// A directory with everything that a broker and a gateway need.
struct Site {
    dir: tempfile::TempDir,
    authority: Authority,
    server: Identity,
    server_files: Files,
    client: Files,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("Site CA").unwrap();
        let server = authority.server(&["localhost"], Valid::Now).unwrap();
        let server_files = server.write(dir.path(), "server", &authority).unwrap();
        let client =
            authority.client("gw-042", Valid::Now).unwrap().write(dir.path(), "gateway", &authority).unwrap();
        Self { dir, authority, server, server_files, client }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn mosquitto(&self, extra: &str) -> Mosquitto {
        Mosquitto::start(self.path(), &self.server_files, extra).unwrap()
    }

    fn write(&self, identity: &Identity, stem: &str) -> Files {
        identity.write(self.path(), stem, &self.authority).unwrap()
    }
}

fn uplink(host: &str, port: u16, files: &Files, keys: &str, clock: Clock) -> Mqtt {
    let Files { ca, cert, key } = files;
    let config: Config = toml::from_str(&format!(
        "url = 'mqtts://{host}:{port}'\ntls = {{ ca = '{}', cert = '{}', key = '{}' }}\n{keys}",
        ca.display(),
        cert.display(),
        key.display()
    ))
    .unwrap();
    assert!(weir::uplink::Config::Mqtt(config.clone()).problems().is_empty());
    Mqtt::new(config, None, clock)
}

fn status(payload: &str) -> Publication {
    Publication { ids: vec![], kind: Kind::Status, payload: payload.into() }
}

fn data(sequence: u64) -> Publication {
    let payload = format!("{{\"n\":{sequence}}}").into_bytes();
    Publication {
        ids: vec![Id { epoch: 1, sequence }],
        kind: Kind::Data { device: "boiler".into() },
        payload,
    }
}

fn openssl(args: &[&str]) -> String {
    let output =
        Command::new("openssl").args(args).output().expect("openssl is needed: `apt-get install openssl`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for `count` messages beside the runtime, which has sessions to drive and to drop.
async fn wait(subscriber: Subscriber, what: &'static str, count: usize) -> Vec<Message> {
    let waiting = move || subscriber.wait(what, |got| got.len() >= count).unwrap();
    tokio::task::spawn_blocking(waiting).await.unwrap()
}

#[tokio::test]
async fn messages_reach_a_subscriber_of_mosquitto_in_order_with_every_protocol_and_qos() {
    let site = Site::new();
    let mosquitto = site.mosquitto("");
    let watcher = site.write(&site.authority.client("watcher", Valid::Now).unwrap(), "watcher");
    for (protocol, qos) in PROTOCOLS.into_iter().flat_map(|protocol| [0, 1, 2].map(|qos| (protocol, qos))) {
        let device = format!("boiler-{qos}-{}", protocol.len());
        let subscriber =
            mosquitto.subscribe(&watcher, &device, &format!("weir/gw-042/data/{device}")).unwrap();
        let keys = format!("protocol = '{protocol}'\nqos = {qos}");
        let mut uplink =
            uplink("localhost", mosquitto.port(), &site.client, &keys, Clock::injected(NOW, true));
        let mut session = uplink.connect(status("gone")).await.unwrap();
        let most = session.limits().in_flight as u64;
        let (mut sent, mut settled) = (0_u64, 0_u64);
        while settled < 500 {
            while sent < 500 && sent - settled < most {
                let kind = Kind::Data { device: device.as_str().into() };
                session.send(Publication { kind, ..data(sent) }).unwrap();
                sent += 1;
            }
            let event = session
                .next()
                .await
                .unwrap_or_else(|error| panic!("{keys}: {error}\n{}", mosquitto.log().join("\n")));
            assert_eq!(event, Event::Acknowledged(data(settled).ids), "{keys}");
            settled += 1;
        }
        session.close().await;
        let got = wait(subscriber, "all have come", 500).await;
        let payloads: Vec<_> = got.iter().map(|message| message.payload.clone().into_bytes()).collect();
        assert_eq!(payloads, (0..500).map(|n| data(n).payload).collect::<Vec<_>>(), "{keys}");
    }
}

#[tokio::test]
async fn mosquitto_keeps_the_status_and_publishes_the_will_of_a_gateway_that_is_lost() {
    let site = Site::new();
    let mosquitto = site.mosquitto("");
    let watcher = site.write(&site.authority.client("watcher", Valid::Now).unwrap(), "watcher");
    for protocol in PROTOCOLS {
        let keys = format!("protocol = '{protocol}'");
        let mut uplink =
            uplink("localhost", mosquitto.port(), &site.client, &keys, Clock::injected(NOW, true));

        let mut session = uplink.connect(status("will")).await.unwrap();
        session.send(status("online")).unwrap();
        session.send(data(1)).unwrap();
        session.next().await.unwrap();
        let name = format!("status-{protocol}");
        let subscriber = mosquitto.subscribe(&watcher, &name, "weir/+/status").unwrap();
        drop(session);
        let got = wait(subscriber, "the will has come", 2).await;
        let told: Vec<_> = got.iter().map(|m| (m.topic.as_str(), m.payload.as_str(), m.retain)).collect();
        assert_eq!(told, [("weir/gw-042/status", "online", true), ("weir/gw-042/status", "will", false)]);

        let mut session = uplink.connect(status("will")).await.unwrap();
        session.send(status("offline")).unwrap();
        session.close().await;
        let late = mosquitto.subscribe(&watcher, &format!("late-{protocol}"), "weir/+/status").unwrap();
        let got = wait(late, "the retained status has come", 1).await;
        assert_eq!((got[0].payload.as_str(), got[0].retain), ("offline", true));
    }
}

#[tokio::test]
async fn a_session_outlives_nothing_but_mosquitto_comes_back_on_its_port() {
    let site = Site::new();
    let mut mosquitto = site.mosquitto("");
    let mut uplink = uplink("localhost", mosquitto.port(), &site.client, "", Clock::injected(NOW, true));
    let mut session = uplink.connect(status("gone")).await.unwrap();
    mosquitto.stop().unwrap();
    let error = session.next().await.unwrap_err();
    assert!(error.to_string().contains("closed the connection"), "{error}");
    let error = uplink.connect(status("gone")).await.unwrap_err();
    assert!(error.to_string().contains("nothing listens on localhost"), "{error}");
    mosquitto.restart().unwrap();
    uplink.connect(status("gone")).await.unwrap().close().await;
}

#[tokio::test]
async fn a_gateway_that_mosquitto_does_not_let_publish_is_told_so_and_loses_nothing() {
    let site = Site::new();
    let acl = site.path().join("acl");
    fs::write(&acl, "topic write weir/+/status\n").unwrap();
    let mosquitto = site.mosquitto(&format!("acl_file {}", acl.display()));
    let mut uplink = uplink("localhost", mosquitto.port(), &site.client, "", Clock::injected(NOW, true));
    let mut session = uplink.connect(status("gone")).await.unwrap();
    session.send(data(1)).unwrap();
    let Event::Refused { ids, lasting, reason } = session.next().await.unwrap() else { panic!("taken") };
    assert_eq!((ids, lasting), (data(1).ids, Lasting::Forever));
    assert!(reason.contains("not authorised"), "{reason}");
}

#[tokio::test]
async fn keys_in_pkcs8_sec1_and_pkcs1_are_all_taken() {
    let site = Site::new();
    let mosquitto = site.mosquitto("");
    let path = |name: &str| site.path().join(name).display().to_string();
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &path("sec1-key.pem")]);
    openssl(&["genrsa", "-traditional", "-out", &path("pkcs1-key.pem"), "2048"]);
    for (kind, header) in
        [("sec1", "BEGIN EC PRIVATE KEY"), ("pkcs1", "BEGIN RSA PRIVATE KEY"), ("pkcs8", "BEGIN PRIVATE KEY")]
    {
        let from = if kind == "pkcs8" { "sec1" } else { kind };
        let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", &path(&format!("{from}-key.pem"))]);
        let mut identity = site.authority.client_with("gw-042", Valid::Now, &pkcs8).unwrap();
        if kind != "pkcs8" {
            identity.key = fs::read_to_string(path(&format!("{kind}-key.pem"))).unwrap();
        }
        assert!(identity.key.contains(header), "{kind}");
        let files = site.write(&identity, kind);
        let mut uplink = uplink("localhost", mosquitto.port(), &files, "", Clock::injected(NOW, true));
        uplink.connect(status("gone")).await.unwrap().close().await;
    }
}

/// Connects to `mosquitto` in vain.
async fn refused(
    mosquitto: &Mosquitto,
    host: &str,
    files: &Files,
    protocol: &str,
    clock: Clock,
) -> LinkError {
    let mut uplink = uplink(host, mosquitto.port(), files, &format!("protocol = '{protocol}'"), clock);
    match uplink.connect(status("gone")).await {
        Err(error) => error,
        Ok(_) => panic!("connected"),
    }
}

#[tokio::test]
async fn each_mistake_with_certificates_has_its_own_message() {
    let site = Site::new();
    let mosquitto = site.mosquitto("");
    let other = Authority::new("Another CA").unwrap();
    let now = || Clock::injected(NOW, true);
    // For this clock the certificate is good, so that it is the broker that refuses it.
    let in_2000 = || Clock::injected(Timestamp(960_000_000_000), true);

    let foreign = site.write(&other.client("gw-042", Valid::Now).unwrap(), "foreign");
    let expired = site.write(&site.authority.client("gw-042", Valid::Past).unwrap(), "expired");
    let early = site.write(&site.authority.client("gw-042", Valid::Future).unwrap(), "early");
    let doubtful =
        site.authority.client("gw-042", Valid::Now).unwrap().write(site.path(), "doubtful", &other).unwrap();
    let mixed = Files { key: foreign.key.clone(), ..site.client.clone() };
    let open = site.write(&site.authority.client("gw-042", Valid::Now).unwrap(), "open");
    fs::set_permissions(&open.key, fs::Permissions::from_mode(0o644)).unwrap();
    let absent = Files { cert: site.path().join("nowhere.pem"), ..site.client.clone() };
    let swapped = Files { cert: site.client.key.clone(), ..site.client.clone() };

    for protocol in PROTOCOLS {
        let cases = [
            ("localhost", &foreign, now(), "does not know the authority that signed it"),
            ("localhost", &expired, in_2000(), "refused the client certificate as expired"),
            ("localhost", &expired, now(), "expired.pem expired on 2001-01-01T00:00:00Z"),
            ("localhost", &early, now(), "early.pem is not valid before 2098-01-01T00:00:00Z"),
            (
                "localhost",
                &early,
                Clock::injected(NOW, false),
                "refused the client certificate (BadCertificate)",
            ),
            ("localhost", &doubtful, now(), "is not signed by any authority in `tls.ca`"),
            ("127.0.0.1", &site.client, now(), "is not for the name `127.0.0.1` but for `localhost`"),
            ("localhost", &mixed, now(), "foreign.key is not the key of the certificate in"),
            ("localhost", &open, now(), "open.key is open to everyone on this machine (mode 0644)"),
            ("localhost", &absent, now(), "nowhere.pem is not there"),
            ("localhost", &swapped, now(), "gateway.key holds no certificate"),
        ];
        let mut told = Vec::new();
        for (host, files, clock, words) in cases {
            let error = refused(&mosquitto, host, files, protocol, clock).await;
            assert!(error.to_string().contains(words), "MQTT {protocol}: wanted {words:?}, got: {error}");
            assert!(error.hint.is_some(), "{error}");
            told.push(error.what);
        }
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 11, "each has its own");
    }
}

/// A broker of our own with this certificate, and the words of the refusal to connect to it.
async fn distrusted(site: &Site, server: &Identity, clock: Clock) -> String {
    let broker = Broker::start(Some(server.listen_for(&site.authority).unwrap())).await.unwrap();
    let mut uplink = uplink("localhost", broker.port(), &site.client, "", clock);
    let error = uplink.connect(status("gone")).await.unwrap_err();
    assert_eq!(broker.seen(), [], "nothing was said to a broker that is not trusted");
    error.to_string()
}

#[tokio::test]
async fn a_broker_whose_certificate_is_wrong_is_told_nothing_and_the_words_say_what_is_wrong() {
    let site = Site::new();
    let (sure, unsure) = (Clock::injected(NOW, true), Clock::injected(NOW, false));

    let elsewhere = site.authority.server(&["broker.example.com", "10.0.0.1"], Valid::Now).unwrap();
    let error = distrusted(&site, &elsewhere, sure.clone()).await;
    assert!(
        error.contains("not for the name `localhost` but for `broker.example.com`, `10.0.0.1`"),
        "{error}"
    );

    let old = site.authority.server(&["localhost"], Valid::Past).unwrap();
    let error = distrusted(&site, &old, sure.clone()).await;
    assert!(error.contains("expired on 2001-01-01T00:00:00Z: the broker needs a new one"), "{error}");
    let error = distrusted(&site, &old, unsure.clone()).await;
    assert!(error.contains("the clock says 2026-11-22T00:00:00Z: is the clock set?"), "{error}");

    let new = site.authority.server(&["localhost"], Valid::Future).unwrap();
    let error = distrusted(&site, &new, unsure).await;
    assert!(
        error.contains("is not valid before 2098-01-01T00:00:00Z: the clock says 2026-11-22T"),
        "{error}"
    );

    let client = site.authority.client("localhost", Valid::Now).unwrap();
    let error = distrusted(&site, &client, sure.clone()).await;
    assert!(error.contains("is not meant for a server"), "{error}");

    let error = distrusted(&site, &site.authority.own(), sure.clone()).await;
    assert!(
        error.contains("is that of an authority, or signed by itself: have one issued for the broker"),
        "{error}"
    );

    let namesake = Authority::new("Site CA").unwrap().server(&["localhost"], Valid::Now).unwrap();
    let error = distrusted(&site, &namesake, sure).await;
    assert!(
        error.contains("names an authority in `tls.ca` that has not signed it: where the CA was made anew"),
        "{error}"
    );
}

#[tokio::test]
async fn a_port_that_does_not_speak_tls_is_recognised() {
    let site = Site::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"220 mail.example.com ESMTP\r\n").unwrap();
    });
    let mut uplink = uplink("localhost", port, &site.client, "", Clock::injected(NOW, true));
    let error = uplink.connect(status("gone")).await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    server.join().unwrap();
}

/// Waits with tokio's time, which jumps to the next timer: what the code waits for is what takes the time.
#[tokio::test]
async fn a_half_open_link_is_found_within_one_and_a_half_keep_alives_of_silence() {
    let site = Site::new();
    let broker = Broker::start(Some(site.server.listen_for(&site.authority).unwrap())).await.unwrap();
    for protocol in PROTOCOLS {
        // With nothing to send, with something on its way, and with more than the sockets take.
        for on_its_way in [0, 1, 200] {
            let link = WeakLink::to(broker.port()).await.unwrap();
            let clock = Clock::injected(NOW, true);
            let keys = format!("protocol = '{protocol}'\nkeep_alive = '20s'");
            let mut uplink = uplink("localhost", link.port(), &site.client, &keys, clock.clone());
            let mut session = uplink.connect(status("gone")).await.unwrap();
            session.send(data(0)).unwrap();
            assert_eq!(session.next().await.unwrap(), Event::Acknowledged(data(0).ids));
            link.die();
            let before = broker.received().len();
            for sequence in 1..=on_its_way {
                session.send(Publication { payload: vec![b'x'; 64 << 10], ..data(sequence) }).unwrap();
            }
            tokio::time::pause();
            let start = clock.monotonic();
            let error = session.next().await.unwrap_err();
            assert!(error.to_string().contains("nothing was heard of localhost"), "{error}");
            let silence = clock.monotonic() - start;
            assert!((20..=30).contains(&silence.as_secs()), "found after {silence:?}");
            assert_eq!(broker.received().len(), before);
            tokio::time::resume();
        }
    }
}

#[tokio::test]
async fn the_gateway_is_named_by_its_certificate_and_a_new_one_counts_at_the_next_connection() {
    let site = Site::new();
    let broker = Broker::start(Some(site.server.listen_for(&site.authority).unwrap())).await.unwrap();
    let mut uplink = uplink("localhost", broker.port(), &site.client, "", Clock::injected(NOW, true));
    assert_eq!(&*uplink.gateway().unwrap(), "gw-042");
    uplink.connect(status("gone")).await.unwrap().close().await;

    let before = fs::read(&site.client.cert).unwrap();
    site.write(&site.authority.client("gw-042", Valid::Now).unwrap(), "gateway");
    assert_ne!(fs::read(&site.client.cert).unwrap(), before);
    uplink.connect(status("gone")).await.unwrap().close().await;

    site.write(&site.authority.client("gw-777", Valid::Now).unwrap(), "gateway");
    assert_eq!(&*uplink.gateway().unwrap(), "gw-042");
    // With the certificate of before; the session says why, here when it is asked to look.
    let (look, stats) = (uplink.look(), uplink.stats().unwrap());
    let mut session = uplink.connect(status("gone")).await.unwrap();
    look.again();
    let nothing = tokio::time::timeout(Duration::from_millis(500), session.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_eq!((stats.rotations.load(Ordering::Relaxed), stats.refused.load(Ordering::Relaxed)), (1, 1));
    session.close().await;
    assert_eq!(clients(&broker), ["gw-042"; 3]);
}

/// The client ids that have come, in order.
fn clients(broker: &Broker) -> Vec<String> {
    let connected = |seen| match seen {
        Seen::Connected(connect) => Some(connect.client_id),
        _ => None,
    };
    broker.seen().into_iter().filter_map(connected).collect()
}

#[tokio::test]
async fn a_new_certificate_that_the_broker_refuses_only_at_the_connect_gives_way_to_the_old_one() {
    let site = Site::new();
    let broker = Broker::start(Some(site.server.listen_for(&site.authority).unwrap())).await.unwrap();
    let mut uplink = uplink("localhost", broker.port(), &site.client, "", Clock::injected(NOW, true));
    let stats = uplink.stats().unwrap();
    let counts = || {
        let [rotations, refused] =
            [&stats.rotations, &stats.refused].map(|count| count.load(Ordering::Relaxed));
        (clients(&broker).len(), rotations, refused)
    };
    uplink.connect(status("gone")).await.unwrap().close().await;
    assert_eq!(counts(), (1, 0, 0));
    assert_eq!(stats.until.load(Ordering::Relaxed), 4_070_908_800, "1 January 2099");

    let come = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&come);
    let guard = Guard(Arc::new(move |_| {
        (counted.fetch_add(1, Ordering::Relaxed) > 0).then_some(Duration::from_secs(600))
    }));
    broker.behave(|behaviour| behaviour.guard = Some(guard));
    site.write(&site.authority.client("gw-042", Valid::Now).unwrap(), "gateway");
    uplink.connect(status("gone")).await.unwrap().close().await;
    assert_eq!(counts(), (3, 0, 1));
    uplink.connect(status("gone")).await.unwrap().close().await;
    assert_eq!(counts(), (4, 0, 1), "it is not tried again");

    site.write(&site.authority.client("gw-042", Valid::Now).unwrap(), "gateway");
    uplink.connect(status("gone")).await.unwrap().close().await;
    assert_eq!(counts(), (5, 1, 1), "but another is");

    // Where the old one is refused as well, it is not the certificate that is to blame.
    broker.behave(|behaviour| behaviour.guard = Some(Guard(Arc::new(|_| None))));
    site.write(&site.authority.client("gw-042", Valid::Now).unwrap(), "gateway");
    uplink.connect(status("gone")).await.unwrap_err();
    assert_eq!(counts(), (7, 1, 1));
    broker.behave(|behaviour| behaviour.guard = None);
    uplink.connect(status("gone")).await.unwrap().close().await;
    assert_eq!(counts(), (8, 2, 1));
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_what_to_do() {
    let site = Site::new();
    let path = |name: &str| site.path().join(name);
    let (der, locked, damaged) = (path("der.pem"), path("locked.key"), path("damaged.pem"));
    let key = site.client.key.display().to_string();
    let cert = site.client.cert.display().to_string();
    openssl(&["x509", "-in", &cert, "-outform", "DER", "-out", &der.display().to_string()]);
    openssl(&["pkey", "-in", &key, "-aes256", "-passout", "pass:x", "-out", &locked.display().to_string()]);
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nMIIB!!\n-----END CERTIFICATE-----\n").unwrap();
    // What openssl 3.0 makes without extensions, with its key.
    let version_1 = path("version-1.pem");
    fs::write(&version_1, include_str!("support/version-1.pem")).unwrap();
    fs::write(path("text"), "hello").unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::set_permissions(path("folder"), fs::Permissions::from_mode(0o700)).unwrap();
    mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let files = |change: fn(&mut Files, std::path::PathBuf), file: std::path::PathBuf| {
        let mut files = site.client.clone();
        change(&mut files, file);
        let paths = [("ca", files.ca), ("cert", files.cert), ("key", files.key)];
        let toml: String = paths.map(|(key, path)| format!("{key} = '{}'\n", path.display())).concat();
        toml::from_str::<weir::tls::Config>(&toml).unwrap()
    };
    let cases = [
        (
            files(|files, file| files.cert = file, der.clone()),
            "der.pem is DER, not PEM: convert it: `openssl x509",
        ),
        (files(|files, file| files.key = file, locked), "locked with a passphrase"),
        (files(|files, file| files.cert = file, damaged), "the certificate in"),
        (files(|files, file| files.cert = file, version_1), "is a certificate of version 1"),
        (files(|files, file| files.ca = file, path("text")), "text is not PEM"),
        (files(|files, file| files.key = file, path("folder")), "folder is not a regular file"),
        (files(|files, file| files.ca = file, path("pipe")), "pipe is not a regular file"),
        (files(|files, file| files.cert = file, path("pipe")), "pipe is not a regular file"),
        (files(|files, file| files.key = file, path("pipe")), "pipe is not a regular file"),
        (files(|files, _| files.key = files.ca.clone(), path("")), "is open to"),
        (files(|files, file| files.ca = file, path("no/where")), "no/where is not there"),
    ];
    for (config, words) in cases {
        let now = weir::tls::Now { unix: NOW.0 / 1000, trusted: true };
        let error = weir::tls::client(&config, now).unwrap_err();
        assert!(error.to_string().contains(words), "wanted {words:?}, got: {error}");
    }
}

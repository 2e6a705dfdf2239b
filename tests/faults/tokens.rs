//! Passwords and tokens: changed, wrong, and ended under load.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::signature::{ECDSA_P256_SHA256_FIXED, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::Value;
use weir::clock::Clock;
use weir::model::{Kind, Publication, Timestamp};
use weir::uplink::mqtt::Mqtt;
use weir::uplink::{Session as _, Uplink as _};

use super::serial_counter::{Counter, account};
use super::support::agent::Agent;
use super::support::broker::{Broker, Guard, Seen};
use super::support::mosquitto::Mosquitto;
use super::support::mqtt::Connect;
use super::support::pki::{Authority, Valid};

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// base64url without padding, as openssl would read it with the other alphabet.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for c in text.bytes() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let value = alphabet.iter().position(|known| *known == c)?;
        (bits, count) = ((bits << 6) | u32::try_from(value).ok()?, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

/// How long the token in `connect` holds yet, where it is good.
fn holds(connect: &Connect, public: &[u8]) -> Option<Duration> {
    let (signed, signature) = connect.password.as_ref()?.rsplit_once('.')?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
        .verify(signed.as_bytes(), &decode(signature)?)
        .ok()?;
    let claims: Value = serde_json::from_slice(&decode(signed.split_once('.')?.1)?).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let good = connect.username.as_deref() == Some("gateway") && claims["sub"] == "gw-042";
    let begun = claims["iat"].as_u64()? <= now.as_secs();
    Duration::from_secs(claims["exp"].as_u64()?).checked_sub(now).filter(|_| good && begun)
}

#[tokio::test]
async fn tokens_end_under_load_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("CA").unwrap();
    let server = authority.server(&["localhost"], Valid::Now).unwrap().listen_for(&authority).unwrap();
    let broker = Broker::start(Some(server)).await.unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let private = dir.path().join("token.key");
    write(&private, &key.serialize_pem());
    let signing = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_pkcs8(signing, key.serialized_der(), &ring::rand::SystemRandom::new());
    let public = pair.unwrap().public_key().as_ref().to_vec();
    broker
        .behave(|behaviour| behaviour.guard = Some(Guard(Arc::new(move |connect| holds(connect, &public)))));

    let client = authority.client("gw-042", Valid::Now).unwrap().write(dir.path(), "gw", &authority).unwrap();
    let mut counter = Counter::new();
    let mut agent = Agent::new(&dir.path().join("gateway"), broker.port(), &client, "").unwrap();
    let auth = format!(
        "auth = {{ type = 'jwt', username = 'gateway', key = '{}', algorithm = 'ES256', lifetime = '20s', \
         claims = {{ sub = 'gw-042' }} }}\n",
        private.display()
    );
    agent.configure(&counter.source(), &auth).unwrap();
    agent.start().unwrap();
    let connected = |seen: &Vec<Seen>| seen.iter().filter(|seen| matches!(seen, Seen::Connected(_))).count();
    broker.wait(|seen| connected(seen) == 1).await;
    counter.start();
    broker.wait(|seen| connected(seen) == 3).await;
    let written = tokio::task::spawn_blocking(move || counter.end()).await.unwrap();

    let data = |seen: &[Seen]| -> Vec<Value> {
        let data = seen.iter().filter_map(|seen| match seen {
            Seen::Received(publish) if publish.topic.contains("/data/") => Some(&publish.payload),
            _ => None,
        });
        data.map(|payload| serde_json::from_slice(payload).unwrap()).collect()
    };
    // Looked at from time to time: to look takes long.
    while account(&data(&broker.seen()), written).arrived < written {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let account = account(&data(&broker.seen()), written);
    println!(
        "lost {}, repeated {}, reordered {} of {written}",
        account.lost, account.repeated, account.reordered
    );
    assert_eq!((account.lost, account.reordered), (0, 0), "{account:?}");

    // Every one of them left in time, with a token of its own.
    let seen = broker.seen();
    assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Lost(_))).count(), 0, "{:#?}", agent.log());
    let mut tokens: Vec<_> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Connected(connect) => connect.password.clone(),
            _ => None,
        })
        .collect();
    assert!(agent.log().iter().all(|line| tokens.iter().all(|token| !line.contains(token.as_str()))));
    tokens.sort_unstable();
    tokens.dedup();
    assert!(tokens.len() >= 3);
    assert_eq!(
        agent.log().iter().filter(|line| line.contains("the token is about to end")).count(),
        tokens.len() - 1
    );
    assert!(tokio::task::spawn_blocking(move || agent.terminate().unwrap().success()).await.unwrap());
}

#[tokio::test]
async fn a_token_by_rs256_holds_for_openssl() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let openssl =
        |args: &[&str]| assert!(Command::new("openssl").args(args).output().unwrap().status.success());
    openssl(&["genrsa", "-traditional", "-out", &at("rsa.key"), "2048"]);
    openssl(&["rsa", "-in", &at("rsa.key"), "-pubout", "-out", &at("rsa.pub")]);
    let broker = Broker::start(None).await.unwrap();
    let config = format!(
        "url = 'mqtt://localhost:{}'\n[auth]\ntype = 'jwt'\nusername = 'gateway'\nkey = '{}'\nalgorithm = 'RS256'",
        broker.port(),
        at("rsa.key")
    );
    let clock = Clock::injected(Timestamp(1_795_305_600_000), true);
    let mut uplink = Mqtt::new(toml::from_str(&config).unwrap(), Some("gw-042".into()), clock);
    let will = Publication { ids: vec![], kind: Kind::Status, payload: vec![] };
    uplink.connect(will).await.unwrap().close().await;
    let Some(Seen::Connected(connect)) = broker.seen().into_iter().next() else { panic!("nobody came") };
    let token = connect.password.unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    fs::write(at("signed"), signed).unwrap();
    fs::write(at("signature"), decode(signature).unwrap()).unwrap();
    openssl(&["dgst", "-sha256", "-verify", &at("rsa.pub"), "-signature", &at("signature"), &at("signed")]);
    let (header, claims) = signed.split_once('.').unwrap();
    let text = |part| String::from_utf8(decode(part).unwrap()).unwrap();
    assert_eq!(text(header), r#"{"alg":"RS256","typ":"JWT"}"#);
    assert_eq!(text(claims), r#"{"exp":1795309200,"iat":1795305600}"#);
}

fn passwords(file: &Path, password: &str) {
    let done =
        Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(file).args(["gateway", password]).status();
    assert!(done.unwrap().success());
}

#[test]
fn a_password_is_read_anew_for_every_connection_and_is_in_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("CA").unwrap();
    let server = authority.server(&["localhost"], Valid::Now).unwrap();
    let server = server.write(dir.path(), "server", &authority).unwrap();
    let known = dir.path().join("known");
    passwords(&known, "hunter2");
    let mut broker =
        Mosquitto::start(dir.path(), &server, &format!("password_file {}", known.display())).unwrap();
    let client = authority.client("gw-042", Valid::Now).unwrap().write(dir.path(), "gw", &authority).unwrap();
    let mut agent = Agent::new(&dir.path().join("gateway"), broker.port(), &client, "").unwrap();
    let file = dir.path().join("password");
    write(&file, "hunter1\n");
    let auth =
        format!("auth = {{ type = 'password', username = 'gateway', password_file = '{}' }}", file.display());
    for protocol in ["5", "3.1.1"] {
        agent
            .configure("[sources.s]\ntype = 'simulated'\n", &format!("protocol = '{protocol}'\n{auth}"))
            .unwrap();
        agent
            .start_until("it does not take the user name, or not the password in `auth.password_file`")
            .unwrap();
        write(&file, "hunter2\n");
        agent.wait_for(" connected").unwrap();

        passwords(&known, "hunter3");
        write(&file, "hunter3");
        broker.stop().unwrap();
        broker.restart().unwrap();
        let known = |lines: &[String]| lines.iter().any(|line| line.contains("u'gateway'"));
        for _ in 0..300 {
            if known(&broker.log()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(known(&broker.log()), "{:#?}\n{:#?}", broker.log(), agent.log());
        assert!(agent.log().iter().all(|line| !line.contains("hunter")), "{:#?}", agent.log());
        agent.terminate().unwrap();
        passwords(&dir.path().join("known"), "hunter2");
        write(&file, "hunter1\n");
        broker.stop().unwrap();
        broker.restart().unwrap();
    }
}

//! What is written in a table, and what is wrong with it.

use super::*;

fn problems(toml: &str) -> Vec<&'static str> {
    config(toml).unwrap().problems().into_iter().map(|(key, _)| key).collect()
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
        ("listen = '127.0.0.1:1'\nidle_timeout = '366d'", "idle_timeout"),
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

/// Which key of a listener is doubted, and why, where its certificate is for this.
fn doubted(usages: &[rcgen::ExtendedKeyUsagePurpose]) -> Option<(&'static str, String)> {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut own = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    own.extended_key_usages = usages.to_vec();
    std::fs::write(dir.path().join("cert.pem"), own.self_signed(&key).unwrap().pem()).unwrap();
    let mut private = std::fs::OpenOptions::new();
    let mut private = private.create(true).write(true).mode(0o600).open(dir.path().join("key.pem")).unwrap();
    private.write_all(key.serialize_pem().as_bytes()).unwrap();
    let dir = dir.path().display();
    let table =
        format!("listen = '127.0.0.1:9300'\ntls = {{ cert = '{dir}/cert.pem', key = '{dir}/key.pem' }}");
    config(&table).unwrap().absent().pop()
}

#[test]
fn a_certificate_that_is_not_for_a_server_is_doubted() {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let (key, what) = doubted(&[ClientAuth]).unwrap();
    assert_eq!(key, "tls.cert");
    assert!(what.contains("cert.pem is not meant for a server") && what.contains("serverAuth"), "{what}");
    for sound in [&[][..], &[ServerAuth], &[ClientAuth, ServerAuth]] {
        assert_eq!(doubted(sound), None, "{sound:?}");
    }
}

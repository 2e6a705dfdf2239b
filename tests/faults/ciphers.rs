//! Brokers whose TLS is not what `tls` asks for.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};
use weir::clock::Clock;
use weir::model::{Kind, Publication, Timestamp};
use weir::uplink::mqtt::{Config, Mqtt};
use weir::uplink::{Session as _, Uplink as _};

use super::support::broker::Broker;
use super::support::mosquitto::Mosquitto;
use super::support::pki::{Authority, Files, Identity, Valid};

struct Site {
    dir: tempfile::TempDir,
    authority: Authority,
    server: Identity,
    client: Files,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("CA").unwrap();
        let server = authority.server(&["localhost"], Valid::Now).unwrap();
        let client =
            authority.client("gw-042", Valid::Now).unwrap().write(dir.path(), "gw", &authority).unwrap();
        Self { dir, authority, server, client }
    }

    /// Why there is no connection to the broker at `port` with `keys` in `tls`.
    async fn error(&self, port: u16, keys: &str) -> Option<String> {
        let Files { ca, cert, key } = &self.client;
        let (ca, cert, key) = (ca.display(), cert.display(), key.display());
        let tls = format!("tls = {{ ca = '{ca}', cert = '{cert}', key = '{key}', {keys} }}");
        let config: Config = toml::from_str(&format!("url = 'mqtts://localhost:{port}'\n{tls}")).unwrap();
        let mut uplink = Mqtt::new(config, None, Clock::injected(Timestamp(1_795_305_600_000), true));
        match uplink.connect(Publication { ids: vec![], kind: Kind::Status, payload: vec![] }).await {
            Ok(session) => {
                session.close().await;
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    async fn broker(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> Broker {
        let mut config = self.server.listen_with(&self.authority, provider, versions).unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Broker::start(Some(Arc::new(config))).await.unwrap()
    }
}

fn aes_128_alone() -> CryptoProvider {
    use CipherSuite as C;
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| {
        matches!(suite.suite(), C::TLS13_AES_128_GCM_SHA256 | C::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
    });
    provider
}

#[tokio::test]
async fn a_broker_with_aes_128_alone_is_refused_where_aes_256_is_asked_for() {
    let site = Site::new();
    for version in [&TLS12, &TLS13] {
        let broker = site.broker(aes_128_alone(), &[version], &[]).await;
        assert_eq!(site.error(broker.port(), "").await, None);
        let error = site.error(broker.port(), "ciphers = 'aes-256-gcm'").await.unwrap();
        assert!(error.contains("AES-256-GCM and ECDHE (`tls.ciphers`)"), "{error}");
        assert_eq!(broker.seen().len(), 2, "only the first connected, and left");

        let strong = site.broker(ring::default_provider(), &[version], &[]).await;
        assert_eq!(site.error(strong.port(), "ciphers = 'aes-256-gcm'").await, None);
    }
}

#[tokio::test]
async fn a_mosquitto_with_aes_128_alone_is_refused_where_aes_256_is_asked_for() {
    let site = Site::new();
    let files = site.server.write(site.dir.path(), "server", &site.authority).unwrap();
    // What it takes of TLS 1.3 and of 1.2.
    let ciphers = "ciphers_tls1.3 TLS_AES_128_GCM_SHA256\nciphers ECDHE-ECDSA-AES128-GCM-SHA256";
    let mosquitto = Mosquitto::start(site.dir.path(), &files, ciphers).unwrap();
    assert_eq!(site.error(mosquitto.port(), "").await, None);
    let error = site.error(mosquitto.port(), "ciphers = 'aes-256-gcm'").await.unwrap();
    assert!(error.contains("AES-256-GCM and ECDHE (`tls.ciphers`)"), "{error}");
}

#[tokio::test]
async fn a_broker_of_tls_1_2_is_refused_where_1_3_is_the_least() {
    let site = Site::new();
    let broker = site.broker(ring::default_provider(), &[&TLS12], &[]).await;
    assert_eq!(site.error(broker.port(), "min_version = '1.2'").await, None);
    let error = site.error(broker.port(), "min_version = '1.3'").await.unwrap();
    assert!(error.contains("TLS 1.3 (`tls.min_version`) with its usual ciphers"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_shared_is_told_by_alpn_what_is_wanted() {
    let site = Site::new();
    let broker = site.broker(ring::default_provider(), &[&TLS12, &TLS13], &["x-amzn-mqtt-ca"]).await;
    assert_eq!(site.error(broker.port(), "alpn = ['mqtt', 'x-amzn-mqtt-ca']").await, None);
    let error = site.error(broker.port(), "alpn = ['mqtt']").await.unwrap();
    assert!(error.contains("speaks none of the protocols in `tls.alpn`: correct `tls.alpn`"), "{error}");
    let plain = site.broker(ring::default_provider(), &[&TLS12, &TLS13], &[]).await;
    assert_eq!(site.error(plain.port(), "alpn = ['mqtt']").await, None, "most brokers do not care");
}

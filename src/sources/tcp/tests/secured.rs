//! Devices that speak TLS.

use super::*;

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

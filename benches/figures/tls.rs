//! A thousand devices that are connected through mutual TLS, have each sent a reading, and are at rest since.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::kernel::Memory;
use crate::site::{Site, WINDOWS, directory};
use crate::support::files;
use crate::support::pki::{Authority, Files, Result, Valid};
use crate::{Extent, mega, print};

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    for (version, name) in [(&TLS13, "TLS 1.3"), (&TLS12, "TLS 1.2")] {
        at_rest(extent, version, name)?;
    }
    Ok(())
}

fn at_rest(extent: &Extent, version: &'static SupportedProtocolVersion, name: &str) -> Result<()> {
    let count = extent.secured;
    files::at_least(2 * count as u64 + 100)?;
    let (dir, authority) = (directory()?, Authority::new("Devices")?);
    let server = authority.server(&["localhost"], Valid::Now)?.write(dir.path(), "tcp", &authority)?;
    let client = authority.client("logger", Valid::Now)?.write(dir.path(), "logger", &authority)?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let site = Site::start(&format!(
        "[sources.field]\ntype = 'tcp'\nlisten = '127.0.0.1:{port}'\nmax_connections = {count}\n\
         tls = {{ cert = '{}', key = '{}', ca = '{}' }}\ndecode = {{ type = 'json', device = 'dev' }}\n{WINDOWS}",
        server.cert.display(),
        server.key.display(),
        server.ca.display()
    ))?;
    site.agent.wait_for("open source=\"field\"")?;
    let pid = site.agent.id()?;
    let config = Arc::new(shown(&client, version)?);
    // What a first handshake alone takes belongs to no connection.
    let mut devices = vec![device(&config, port)?];
    thread::sleep(extent.settle);
    let before = Memory::of(pid)?;
    let start = Instant::now();
    for _ in 0..count - 1 {
        devices.push(device(&config, port)?);
    }
    while fs::read_dir(format!("/proc/{pid}/fd"))?.count() < count {
        thread::sleep(Duration::from_millis(10));
    }
    let connected = start.elapsed();
    thread::sleep(extent.settle);
    let idle = Memory::of(pid)?;
    let each = idle.resident.saturating_sub(before.resident) / (count - 1) as u64;
    print(&format!("{count} connections, mutual {name}: one by one within"), &crate::seconds(connected), "");
    print("  resident memory of one at rest", &format!("{each} B"), "");
    print("  resident memory of all", &mega(idle.resident), "");
    Ok(())
}

/// A device that has sent a reading.
fn device(config: &Arc<ClientConfig>, port: u16) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let tls = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    let mut device = StreamOwned::new(tls, socket);
    device.write_all(b"{\"dev\":\"device-00000\",\"temperature\":21.5}\n")?;
    device.flush()?;
    Ok(device)
}

/// What a device shows and trusts.
fn shown(files: &Files, version: &'static SupportedProtocolVersion) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version])?;
    let chain = vec![CertificateDer::from_pem_file(&files.cert)?];
    Ok(config
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?)
}

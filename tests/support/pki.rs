//! Throw-away authorities and certificates. The dates are fixed, so that no clock is asked.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Valid {
    /// From 2020 to 2099.
    Now,
    /// In the year 2000.
    Past,
    /// From 2098.
    Future,
    /// From 2020 to this second, in Unix time.
    Until(u64),
}

/// An authority that signs for servers and clients.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Where the files of a client or server lie.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = params(name, &[], Valid::Now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The authority's own.
    pub(crate) fn own(&self) -> Identity {
        Identity { cert: self.pem(), key: self.issuer.key().serialize_pem() }
    }

    /// A server's, for these names and addresses.
    pub(crate) fn server(&self, names: &[&str], valid: Valid) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = params("broker", names, valid)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(Identity { cert: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }

    /// A client's, with `name` as its common name.
    pub(crate) fn client(&self, name: &str, valid: Valid) -> Result<Identity> {
        let key = KeyPair::generate()?.serialize_pem();
        self.client_with(name, valid, &key)
    }

    /// A client's with a given private key, PKCS#8 in PEM.
    pub(crate) fn client_with(&self, name: &str, valid: Valid, key: &str) -> Result<Identity> {
        let mut params = params(name, &[], valid)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&KeyPair::from_pem(key)?, &self.issuer)?;
        Ok(Identity { cert: cert.pem(), key: key.to_owned() })
    }
}

fn params(name: &str, names: &[&str], valid: Valid) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = match valid {
        Valid::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1)),
        Valid::Past => (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1)),
        Valid::Future => (date_time_ymd(2098, 1, 1), date_time_ymd(2099, 1, 1)),
        Valid::Until(second) => {
            (date_time_ymd(2020, 1, 1), date_time_ymd(1970, 1, 1) + Duration::from_secs(second))
        }
    };
    Ok(params)
}

impl Identity {
    /// Writes `{stem}.pem`, `{stem}.key` for its owner alone, and the certificate of the authority that is trusted.
    pub(crate) fn write(&self, dir: &Path, stem: &str, trusted: &Authority) -> Result<Files> {
        let files = Files {
            ca: dir.join(format!("{stem}-ca.pem")),
            cert: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
        };
        fs::write(&files.ca, trusted.pem())?;
        fs::write(&files.cert, &self.cert)?;
        let mut key =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&files.key)?;
        key.write_all(self.key.as_bytes())?;
        Ok(files)
    }

    /// What a broker listens with that takes only clients whose certificate `clients` has signed.
    pub(crate) fn listen_for(&self, clients: &Authority) -> Result<Arc<ServerConfig>> {
        let provider = rustls::crypto::ring::default_provider();
        Ok(Arc::new(self.listen_with(clients, provider, rustls::DEFAULT_VERSIONS)?))
    }

    /// As `listen_for`, with what TLS is to be made of.
    pub(crate) fn listen_with(
        &self,
        clients: &Authority,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerConfig> {
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        roots.add(clients.issuer.der().clone())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let chain = vec![CertificateDer::from_pem_slice(self.cert.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        Ok(config)
    }
}

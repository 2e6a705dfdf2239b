//! A leaf: certificates, keys and their checks, and what is wrong with them in plain words.
//!
//! What is always so: the other side's certificate is verified against the private CA in `ca` and nothing else, by
//! name and by date; there is no switch. A private key that others can read is not used. Files are read anew at every
//! [`client`], so that a rotation needs no restart, and nothing of one identity is resumed under the next.

mod explain;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::Decode;

pub use explain::{explain, within};

/// The three PEM files of a mutual-TLS client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The certificates of the private authorities that may have signed the other side's.
    pub ca: PathBuf,
    /// Our certificate, then the intermediates between it and what the other side trusts.
    pub cert: PathBuf,
    /// Our private key: PKCS#8, SEC1 or PKCS#1, without a passphrase.
    pub key: PathBuf,
}

impl Config {
    /// The files that are not there, or no regular files, each with its key.
    #[must_use]
    pub fn absent(&self) -> Vec<(&'static str, &Path)> {
        [("ca", &*self.ca), ("cert", &*self.cert), ("key", &*self.key)]
            .into_iter()
            .filter(|(_, file)| !file.is_file())
            .collect()
    }
}

impl Config {
    /// What is wrong with the files that are there, but for their dates; `None` while one of them is not.
    #[must_use]
    pub fn unfit(&self) -> Option<Error> {
        let no_clock = Now { unix: 0, trusted: false };
        if self.absent().is_empty() { client(self, no_clock).err() } else { None }
    }
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {hint}")]
pub struct Error {
    /// What is wrong, with the file or the host that it concerns.
    pub what: String,
    /// What a person can do about it.
    pub hint: String,
}

impl Error {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// What the clock says, for the dates on certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Unix time in seconds.
    pub unix: i64,
    /// Whether the clock is known to be right.
    pub trusted: bool,
}

/// Reads the files, checks them and puts together what a client connects with: TLS 1.3 or 1.2, ring, no resumption.
///
/// A client certificate that has expired is refused here. One that is not yet valid is refused only by a trusted
/// clock: a gateway without a battery-backed clock boots in the past, and the other side knows the time better.
///
/// # Errors
/// Where a file is absent, unreadable, no PEM or holds something else; where others can read the key; where key and
/// certificate are no pair; where the certificate is out of its dates.
pub fn client(config: &Config, now: Now) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in files::certificates(&config.ca)? {
        roots.add(certificate).map_err(|error| {
            Error::new(
                format!(
                    "{} holds a certificate that cannot serve as an authority ({error})",
                    config.ca.display()
                ),
                "ask whoever runs the broker for the CA certificate that signed the broker's",
            )
        })?;
    }
    let chain = files::certificates(&config.cert)?;
    check_dates(&config.cert, &chain, now)?;
    let key = files::private_key(&config.key)?;
    let refuse = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => Error::new(
            format!(
                "{} is not the key of the certificate in {}",
                config.key.display(),
                config.cert.display()
            ),
            "install the two files that were made together",
        ),
        rustls::Error::InvalidCertificate(cause)
            if format!("{cause:?}").contains("UnsupportedCertVersion") =>
        {
            Error::new(
                format!("{} is a certificate of version 1", config.cert.display()),
                "issue it anew with extensions, which makes it version 3: with openssl by `-extfile`",
            )
        }
        other => Error::new(
            format!("cannot use {} with {} ({other})", config.key.display(), config.cert.display()),
            "use an RSA key of at least 2048 bits, an ECDSA key on P-256 or P-384, or an Ed25519 key",
        ),
    };
    let mut client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(refuse)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(refuse)?;
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// The common name in the subject of the first certificate of `cert`: a gateway's default name.
///
/// # Errors
/// Where the file cannot be read, or its certificate has no common name.
pub fn common_name(cert: &Path) -> Result<String, Error> {
    let chain = files::certificates(cert)?;
    let certificate = leaf(cert, &chain)?;
    let name = certificate.tbs_certificate().subject().common_name().ok().flatten().map(String::from);
    name.filter(|name| !name.is_empty()).ok_or_else(|| {
        Error::new(
            format!("the certificate in {} has no common name", cert.display()),
            "set `id` under [gateway], or make the certificate with a subject such as /CN=gw-042",
        )
    })
}

fn leaf(file: &Path, chain: &[CertificateDer<'_>]) -> Result<Certificate, Error> {
    let first = chain.first().map(|der| Certificate::from_der(der));
    first.and_then(Result::ok).ok_or_else(|| {
        Error::new(
            format!("the first certificate in {} is damaged", file.display()),
            "copy the file again, or have it issued anew",
        )
    })
}

fn check_dates(file: &Path, chain: &[CertificateDer<'_>], now: Now) -> Result<(), Error> {
    let certificate = leaf(file, chain)?;
    let validity = certificate.tbs_certificate().validity();
    let seconds =
        |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    let (from, to) = (seconds(validity.not_before), seconds(validity.not_after));
    if now.unix > to {
        return Err(Error::new(
            format!("the certificate in {} expired on {}", file.display(), explain::date(to)),
            explain::or_clock("install a new one", now),
        ));
    }
    if now.unix < from && now.trusted {
        return Err(Error::new(
            format!("the certificate in {} is not valid before {}", file.display(), explain::date(from)),
            format!(
                "the clock says {}: wait, or have a certificate issued from now on",
                explain::date(now.unix)
            ),
        ));
    }
    Ok(())
}

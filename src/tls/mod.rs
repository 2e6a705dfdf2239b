//! A leaf: certificates, keys and their checks, and what is wrong with them in plain words.
//!
//! What is always so: the other side's certificate is verified against the private CA in `ca` and nothing else, a
//! server's by name and by date, a device's by date; there is no switch. (Only a listener may be without `ca`, and then
//! asks for no certificate.) A private key that others can read is not used. Files are read anew at every [`client`] and
//! [`server`], so that a rotation needs no restart, and nothing of one identity is resumed under the next.

mod expiry;
mod explain;
mod files;
mod looks;
mod server;
mod shown;
mod sign;
mod terms;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::Decode;

pub use expiry::{Expiry, days_left};
pub use explain::{explain, show, within};
pub use files::secret;
pub use looks::{Look, Looks, Seen};
pub use server::{Listening, Server, Unwelcome, server, unwelcome};
pub use sign::{Algorithm, Signer};
pub use terms::{Ciphers, Version};

/// The three PEM files of a mutual-TLS client, and what it accepts of the other side.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The certificates of the private authorities that may have signed the other side's.
    pub ca: PathBuf,
    /// Our certificate, then the intermediates between it and what the other side trusts.
    pub cert: PathBuf,
    /// Our private key: PKCS#8, SEC1 or PKCS#1, without a passphrase.
    pub key: PathBuf,
    /// The lowest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: Version,
    /// The only ciphers that are spoken, where not all that are good.
    pub ciphers: Option<Ciphers>,
    /// The protocols that are offered for the time after the handshake, the favourite first (ALPN, RFC 7301).
    #[serde(default)]
    pub alpn: Vec<String>,
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

    /// What is wrong with the files that are there, but for their dates; `None` while one of them is not.
    #[must_use]
    pub fn unfit(&self) -> Option<Error> {
        let no_clock = Now { unix: 0, trusted: false };
        let error = |read: ReadKey| client_by(self, no_clock, read).err();
        if self.absent().is_empty() { whoever_asks(error) } else { None }
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
    /// Another user of this machine may find it right: who checks a file need not be who uses it.
    pub of_user: bool,
}

impl Error {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), of_user: false }
    }

    fn of_user(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { of_user: true, ..Self::new(what, hint) }
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

/// What a client connects with, as its files had it.
#[derive(Clone, Debug)]
pub struct Client {
    /// For the TLS library.
    pub config: Arc<ClientConfig>,
    /// The common name in our certificate, where it has one.
    pub name: Option<String>,
    /// The last second at which our certificate is valid, in Unix time.
    pub until: i64,
    /// How the files looked just before they were read.
    pub seen: Seen,
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
}

impl Client {
    /// Whether `other` comes from files with the same content. (The same certificate has the same key.)
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.authorities, &self.chain) == (&other.authorities, &other.chain)
    }

    /// Whether our certificate has expired.
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        now.unix > self.until
    }

    /// What looks wrong with our chain, though nobody but the other side can tell whether it is.
    #[must_use]
    pub fn doubt(&self) -> Option<&'static str> {
        let (first, rest) = self.chain.split_first()?;
        let first = Certificate::from_der(first).ok()?;
        let signed = |other: &CertificateDer<'_>| {
            let other = Certificate::from_der(other);
            other.is_ok_and(|other| other.tbs_certificate().subject() == first.tbs_certificate().issuer())
        };
        let alone = rest.is_empty() || rest.iter().any(signed);
        (!alone).then_some("none of the other certificates in `tls.cert` has signed the first")
    }
}

/// Reads the files, checks them and puts together what a client connects with, by ring and without resumption.
///
/// A client certificate that has expired is refused here. One that is not yet valid is refused only by a trusted
/// clock: a gateway without a battery-backed clock boots in the past, and the other side knows the time better.
///
/// # Errors
/// Where a file is absent, unreadable, no PEM or holds something else; where others can read the key; where key and
/// certificate are no pair; where the certificate is out of its dates.
pub fn client(config: &Config, now: Now) -> Result<Client, Error> {
    client_by(config, now, files::private_key)
}

/// How a private key is read.
type ReadKey = fn(&Path) -> Result<PrivateKeyDer<'static>, Error>;

/// What is wrong with files, as `error` says by how the key is read: where that is but the user's who asks, such as root's,
/// whether anything else is wrong as well.
fn whoever_asks(error: impl Fn(ReadKey) -> Option<Error>) -> Option<Error> {
    let first = error(files::private_key)?;
    let other = if first.of_user { error(files::private_key_of_any_group) } else { None };
    Some(other.unwrap_or(first))
}

fn client_by(config: &Config, now: Now, read_key: ReadKey) -> Result<Client, Error> {
    let seen = config.seen();
    let hint = "ask whoever runs the broker for the CA certificate that signed the broker's";
    let (roots, authorities) = roots(&config.ca, hint)?;
    let chain = files::certificates(&config.cert)?;
    let certificate = leaf(&config.cert, &chain)?;
    let until = check_dates(&config.cert, &certificate, now)?;
    let key = read_key(&config.key)?;
    let refuse = |error| no_pair(&config.key, &config.cert, error);
    let mut client = ClientConfig::builder_with_provider(Arc::new(terms::provider(config.ciphers)))
        .with_protocol_versions(config.min_version.and_later())
        .map_err(refuse)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.clone(), key)
        .map_err(refuse)?;
    client.resumption = Resumption::disabled();
    client.alpn_protocols = config.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = name_in(&certificate);
    Ok(Client { config: Arc::new(client), name, until, seen, authorities, chain })
}

/// The last second, in Unix time, at which the first certificate of `cert` is valid.
///
/// # Errors
/// Where the file cannot be read.
pub fn valid_until(cert: &Path) -> Result<i64, Error> {
    let chain = files::certificates(cert)?;
    Ok(validity(&leaf(cert, &chain)?).1)
}

/// The authorities in `ca`, for the library and as they are. `hint` says where to get proper ones.
fn roots(ca: &Path, hint: &str) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Error> {
    let mut roots = RootCertStore::empty();
    let authorities = files::certificates(ca)?;
    for certificate in &authorities {
        roots.add(certificate.clone()).map_err(|error| {
            Error::new(
                format!("{} holds a certificate that cannot serve as an authority ({error})", ca.display()),
                hint,
            )
        })?;
    }
    Ok((roots, authorities))
}

/// Why the library does not take `key` and `cert`.
fn no_pair(key: &Path, cert: &Path, error: rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => Error::new(
            format!("{} is not the key of the certificate in {}", key.display(), cert.display()),
            "install the two files that were made together",
        ),
        rustls::Error::InvalidCertificate(cause) if shown::is_version_1(&cause) => Error::new(
            format!("{} is a certificate of version 1", cert.display()),
            format!("have it {}", shown::WITH_EXTENSIONS),
        ),
        other => Error::new(
            format!("cannot use {} with {} ({other})", key.display(), cert.display()),
            "use an RSA key of at least 2048 bits, an ECDSA key on P-256 or P-384, or an Ed25519 key",
        ),
    }
}

/// The common name in the subject of the first certificate of `cert`: a gateway's default name.
///
/// # Errors
/// Where the file cannot be read, or its certificate has no common name.
pub fn common_name(cert: &Path) -> Result<String, Error> {
    let chain = files::certificates(cert)?;
    name_in(&leaf(cert, &chain)?).ok_or_else(|| {
        Error::new(
            format!("the certificate in {} has no common name", cert.display()),
            "set `id` under [gateway], or make the certificate with a subject such as /CN=gw-042",
        )
    })
}

fn name_in(certificate: &Certificate) -> Option<String> {
    let name = certificate.tbs_certificate().subject().common_name().ok().flatten().map(String::from);
    name.filter(|name| !name.is_empty())
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

/// The first and the last second at which `certificate` is valid, in Unix time.
fn validity(certificate: &Certificate) -> (i64, i64) {
    let validity = certificate.tbs_certificate().validity();
    let seconds =
        |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    (seconds(validity.not_before), seconds(validity.not_after))
}

/// The last second at which `certificate` is valid, in Unix time, where `now` is within its dates.
fn check_dates(file: &Path, certificate: &Certificate, now: Now) -> Result<i64, Error> {
    let (from, to) = validity(certificate);
    if now.unix > to {
        return Err(Error::new(
            format!("the certificate in {} expired on {}", file.display(), show(to)),
            explain::or_clock("install a new one", now),
        ));
    }
    if now.unix < from && now.trusted {
        return Err(Error::new(
            format!("the certificate in {} is not valid before {}", file.display(), show(from)),
            format!("the clock says {}: wait, or have a certificate issued from now on", show(now.unix)),
        ));
    }
    Ok(to)
}

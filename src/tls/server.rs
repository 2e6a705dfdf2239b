//! What a listener for devices shows them, and what it demands of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{AlertDescription, CertificateError, ServerConfig};
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::explain::or_clock;
use super::{Error, Now, Seen, Version, files, leaf, no_pair, roots, terms, validity};

/// The PEM files of a listener. With `ca` it takes only devices that show a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listening {
    /// Our certificate, then the intermediates between it and what the devices trust.
    pub cert: PathBuf,
    /// Our private key: PKCS#8, SEC1 or PKCS#1, without a passphrase.
    pub key: PathBuf,
    /// The certificates of the authorities one of which must have signed a device's.
    pub ca: Option<PathBuf>,
}

impl Listening {
    /// The files that are not there, or no regular files, each with its key.
    #[must_use]
    pub fn absent(&self) -> Vec<(&'static str, &Path)> {
        let ca = self.ca.as_deref().map(|ca| ("ca", ca));
        let files = [("cert", &*self.cert), ("key", &*self.key)].into_iter().chain(ca);
        files.filter(|(_, file)| !file.is_file()).collect()
    }

    /// What is wrong with the files that are there, or looks wrong, with its key; `None` while one of them is not.
    #[must_use]
    pub fn unfit(&self) -> Option<(Option<&'static str>, Error)> {
        if !self.absent().is_empty() {
            return None;
        }
        match server(self) {
            Ok(server) => server.doubt.map(|doubt| (Some("cert"), doubt)),
            Err(error) => Some((None, error)),
        }
    }

    /// How the files look now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen::of([self.ca.as_deref(), Some(&self.cert), Some(&self.key)])
    }
}

/// What a listener meets devices with, as its files had it.
#[derive(Clone, Debug)]
pub struct Server {
    /// For the TLS library.
    pub config: Arc<ServerConfig>,
    /// The last second at which our certificate is valid, in Unix time.
    pub until: i64,
    /// What looks wrong with our certificate, though nobody but the devices can tell whether it is.
    pub doubt: Option<Error>,
    /// How the files looked just before they were read.
    pub seen: Seen,
}

/// Reads the files, checks them and puts together what a listener meets devices with, by ring and without resumption:
/// every connection shows its certificate. Whether ours is out of its dates is for the devices to judge.
///
/// # Errors
/// Where a file is absent, unreadable, no PEM or holds something else; where others can read the key; where key and
/// certificate are no pair.
pub fn server(files: &Listening) -> Result<Server, Error> {
    let seen = files.seen();
    let provider = Arc::new(terms::provider(None));
    let verifier = match &files.ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let (roots, _) = roots(ca, "put the CA certificate there that signed the devices'")?;
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| {
                    Error::new(
                        format!("{} cannot serve to check devices ({error})", ca.display()),
                        "put the CA certificate there that signed the devices'",
                    )
                })?
        }
    };
    let chain = files::certificates(&files.cert)?;
    let certificate = leaf(&files.cert, &chain)?;
    let (until, doubt) = (validity(&certificate).1, doubt(&files.cert, &certificate));
    let key = files::private_key(&files.key)?;
    let refuse = |error| no_pair(&files.key, &files.cert, error);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(Version::V12.and_later())
        .map_err(refuse)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(refuse)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Server { config: Arc::new(config), until, doubt, seen })
}

/// id-kp-serverAuth (RFC 5280, 4.2.1.12).
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

fn doubt(file: &Path, certificate: &Certificate) -> Option<Error> {
    let (_, ExtendedKeyUsage(usages)) = certificate.tbs_certificate().get_extension().ok().flatten()?;
    (!usages.contains(&SERVER_AUTH)).then(|| {
        Error::new(
            format!("the certificate in {} is not meant for a server, and most devices will refuse it", file.display()),
            "have one issued with the extended key usage serverAuth, and with what the devices connect to, a name or \
             an address, as a subject alternative name",
        )
    })
}

/// Why the connection to a device failed, and what to do about it.
#[must_use]
pub fn unwelcome(error: &rustls::Error, now: Now) -> Error {
    use AlertDescription as A;
    use CertificateError as C;
    let renew = |what: &str| Error::new(what, or_clock("the device needs a new one", now));
    match error {
        rustls::Error::NoCertificatesPresented => Error::new(
            "it shows no certificate",
            "give the device one that an authority in `tls.ca` has signed",
        ),
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => Error::new(
            "its certificate is not signed by any authority in `tls.ca`",
            "put the CA certificate that signed the device's there; or is this a stranger?",
        ),
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            renew("its certificate has expired")
        }
        rustls::Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            renew("its certificate is not valid yet")
        }
        rustls::Error::InvalidCertificate(C::InvalidPurpose | C::InvalidPurposeContext { .. }) => Error::new(
            "its certificate is not meant for a client",
            "have the device's issued with the extended key usage clientAuth",
        ),
        rustls::Error::InvalidCertificate(error) => Error::new(
            format!("its certificate cannot be accepted ({error})"),
            "have a new one issued for it",
        ),
        rustls::Error::AlertReceived(A::UnknownCA | A::BadCertificate | A::CertificateUnknown) => Error::new(
            "it does not accept the certificate in `tls.cert`",
            "give the device the CA certificate that signed that one, and connect it by a name that is in it",
        ),
        rustls::Error::AlertReceived(A::CertificateExpired) => {
            Error::new("it takes the certificate in `tls.cert` for expired", or_clock("renew it", now))
        }
        rustls::Error::AlertReceived(alert) => Error::new(
            format!("it broke the TLS connection off ({alert:?})"),
            "see what the device says of it",
        ),
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
            Error::new(format!("it does not speak TLS ({error})"), "switch TLS on in the device")
        }
        rustls::Error::PeerIncompatible(_) => Error::new(
            format!("it and weir have no version or cipher of TLS in common ({error})"),
            "the device has to speak TLS 1.2 or 1.3 with the usual ciphers",
        ),
        other => Error::new(format!("TLS failed ({other})"), "see what the device says of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_did_wrong_is_said_with_what_to_do() {
        let now = Now { unix: 1_700_000_000, trusted: false };
        for (error, what, hint) in [
            (rustls::Error::NoCertificatesPresented, "shows no certificate", "`tls.ca`"),
            (CertificateError::UnknownIssuer.into(), "not signed by any authority", "stranger"),
            (CertificateError::Expired.into(), "has expired", "is the clock set?"),
            (CertificateError::InvalidPurpose.into(), "not meant for a client", "clientAuth"),
            (
                rustls::Error::AlertReceived(AlertDescription::UnknownCA),
                "does not accept the certificate in `tls.cert`",
                "that signed that one",
            ),
            (
                rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "does not speak TLS",
                "switch TLS on",
            ),
        ] {
            let told = unwelcome(&error, now);
            assert!(told.what.contains(what) && told.hint.contains(hint), "{told}");
        }
    }
}

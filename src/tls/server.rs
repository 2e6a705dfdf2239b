//! What a listener for devices shows them, and what it demands of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{AlertDescription, ServerConfig};
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::explain::or_clock;
use super::shown::{Flaw, Whose, flaw};
use super::{Error, Now, ReadKey, Seen, Version, files, leaf, no_pair, roots, terms, validity, whoever_asks};

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

    /// What is wrong with the files that are there; `None` while one of them is not.
    #[must_use]
    pub fn unfit(&self) -> Option<Error> {
        if self.absent().is_empty() { whoever_asks(|read| server_by(self, read).err()) } else { None }
    }

    /// What looks wrong with our certificate, though nobody but the devices can tell whether it is.
    #[must_use]
    pub fn doubt(&self) -> Option<Error> {
        if self.absent().is_empty() { server(self).ok()?.doubt } else { None }
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
    server_by(files, files::private_key)
}

fn server_by(files: &Listening, read_key: ReadKey) -> Result<Server, Error> {
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
    let key = read_key(&files.key)?;
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} {what}{detail}: {hint}")]
pub struct Unwelcome {
    subject: &'static str,
    /// What is wrong, in words that are the same for all devices.
    pub what: &'static str,
    detail: String,
    hint: String,
}

/// Why the connection to a device failed, and what to do about it.
#[must_use]
pub fn unwelcome(error: &rustls::Error, now: Now) -> Unwelcome {
    use AlertDescription as A;
    use rustls::Error as E;
    let (what, detail, hint) = match error {
        E::InvalidCertificate(error) => {
            let Flaw { is, detail, hint } = flaw(error, Whose::Device, now);
            return Unwelcome { subject: "its certificate", what: is, detail, hint };
        }
        E::NoCertificatesPresented => (
            "shows no certificate",
            String::new(),
            "give the device one that an authority in `tls.ca` has signed".to_owned(),
        ),
        E::AlertReceived(A::UnknownCA | A::BadCertificate | A::CertificateUnknown) => (
            "does not accept the certificate in `tls.cert`",
            String::new(),
            "give the device the CA certificate that signed that one, and connect it by a name that is in it"
                .to_owned(),
        ),
        E::AlertReceived(A::UnsupportedCertificate) => (
            "does not accept the certificate in `tls.cert` for a server",
            String::new(),
            "have that one issued with the extended key usage serverAuth".to_owned(),
        ),
        E::AlertReceived(A::CertificateExpired) => (
            "takes the certificate in `tls.cert` for expired",
            String::new(),
            or_clock("renew it; is the device's clock right?", now),
        ),
        E::AlertReceived(alert) => (
            "broke the TLS connection off",
            format!(" ({alert:?})"),
            "see what the device says of it".to_owned(),
        ),
        E::InvalidMessage(_) | E::InappropriateMessage { .. } => {
            ("does not speak TLS", format!(" ({error})"), "switch TLS on in the device".to_owned())
        }
        E::PeerIncompatible(_) => (
            "has no version or cipher of TLS in common with weir",
            format!(" ({error})"),
            "the device has to speak TLS 1.2 or 1.3 with the usual ciphers".to_owned(),
        ),
        other => ("failed at TLS", format!(" ({other})"), "see what the device says of it".to_owned()),
    };
    Unwelcome { subject: "it", what, detail, hint }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use rustls::pki_types::UnixTime;
    use rustls::{CertificateError as C, InvalidMessage, OtherError, PeerIncompatible};

    use super::*;

    /// As the library passes up what it has no error of its own for.
    fn other(name: &str) -> C {
        C::Other(OtherError(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(name))))
    }

    #[test]
    fn what_a_device_did_wrong_is_said_with_what_to_do_and_by_a_word_of_its_own() {
        use rustls::Error as E;
        let now = Now { unix: 1_700_000_000, trusted: false };
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let over = C::ExpiredContext { time: at(1_700_000_000), not_after: at(1_600_000_000) };
        let early = C::NotValidYetContext { time: at(0), not_before: at(1_800_000_000) };
        let cases: [(E, _, _); 16] = [
            (E::NoCertificatesPresented, "it shows no certificate", "`tls.ca`"),
            (
                C::UnknownIssuer.into(),
                "its certificate is not signed by any authority in `tls.ca`",
                "stranger",
            ),
            (C::BadSignature.into(), "that has not signed it", "made anew under the same name"),
            (over.into(), "its certificate expired on 2020-09-13T12:26:40Z", "is the clock set?"),
            (early.into(), "its certificate is not valid before 2027-01-15T08:00:00Z", "is the clock set?"),
            (C::InvalidPurpose.into(), "its certificate is not meant for a client", "clientAuth"),
            (C::BadEncoding.into(), "its certificate is damaged", "issued anew"),
            (other("UnsupportedCertVersion").into(), "its certificate is of X.509 version 1", "`-extfile`"),
            (
                other("CaUsedAsEndEntity").into(),
                "is that of an authority, or signed by itself",
                "not by `req -x509`",
            ),
            (other("EndEntityUsedAsCa").into(), "is signed by one that is no authority's", "CA:TRUE"),
            (
                other("PathLenConstraintViolated").into(),
                "accepted (PathLenConstraintViolated)",
                "the device's issued",
            ),
            (
                E::AlertReceived(AlertDescription::UnknownCA),
                "it does not accept the certificate in",
                "that signed that one",
            ),
            (
                E::AlertReceived(AlertDescription::UnsupportedCertificate),
                "in `tls.cert` for a server",
                "serverAuth",
            ),
            (
                E::AlertReceived(AlertDescription::UserCanceled),
                "broke the TLS connection off (UserCanceled)",
                "says",
            ),
            (E::InvalidMessage(InvalidMessage::InvalidContentType), "it does not speak TLS", "switch TLS on"),
            (PeerIncompatible::NoCipherSuitesInCommon.into(), "in common with weir", "1.2 or 1.3"),
        ];
        let mut words = BTreeSet::new();
        for (error, what, hint) in &cases {
            let told = unwelcome(error, now);
            assert!(told.to_string().contains(what) && told.hint.contains(hint), "{told}");
            words.insert(told.what);
        }
        assert_eq!(words.len(), cases.len());
    }
}

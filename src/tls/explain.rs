//! What a TLS error means, in plain words.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::{AlertDescription, CertificateError};

use super::shown::{Flaw, Whose, flaw};
use super::{Error, Now};

/// The TLS error inside an I/O error, where there is one: the libraries pass it up wrapped.
#[must_use]
pub fn within(error: &io::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // `source` of a wrapped I/O error skips the error that it wraps.
        cause = match error.downcast_ref::<io::Error>() {
            Some(wrapped) => wrapped.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    None
}

/// What went wrong with `peer`, which is a `host:port`, and what to do about it. `allows` is what
/// [`super::Config::allows`] says.
#[must_use]
pub fn explain(error: &rustls::Error, peer: &str, now: Now, allows: &str) -> Error {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error, peer, now),
        rustls::Error::AlertReceived(alert) => refused(*alert, peer, now, allows),
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => Error::new(
            format!("{peer} does not speak TLS ({error})"),
            "is that the broker's TLS port (usually 8883)?",
        ),
        rustls::Error::PeerIncompatible(_) => Error::new(
            format!("{peer} and weir have no version or cipher of TLS in common ({error})"),
            format!("let the broker offer {allows}"),
        ),
        other => Error::new(
            format!("the TLS connection to {peer} failed ({other})"),
            "see what the broker's log says of it",
        ),
    }
}

fn certificate(error: &CertificateError, peer: &str, now: Now) -> Error {
    use CertificateError as E;
    match error {
        E::NotValidForNameContext { expected, presented } => Error::new(
            format!(
                "the certificate of {peer} is not for the name `{}` but for {}",
                expected.to_str(),
                names(presented)
            ),
            "use a name in `url` that the certificate has, or have the broker's issued with this one as a subject \
             alternative name",
        ),
        E::NotValidForName => Error::new(
            format!("the certificate of {peer} is for another name"),
            "use a name in `url` that the certificate has",
        ),
        error => {
            let Flaw { is, detail, hint } = flaw(error, Whose::Broker, now);
            Error::new(format!("the certificate of {peer} {is}{detail}"), hint)
        }
    }
}

fn refused(alert: AlertDescription, peer: &str, now: Now, allows: &str) -> Error {
    use AlertDescription as A;
    let (what, hint) = match alert {
        A::UnknownCA => (
            format!("{peer} refused the client certificate: it does not know the authority that signed it"),
            "use a certificate from the CA that the broker trusts for clients, with its intermediates in `tls.cert`"
                .to_owned(),
        ),
        A::CertificateExpired => (
            format!("{peer} refused the client certificate as expired or not yet valid"),
            or_clock("install a new one as `tls.cert`; is the broker's clock right?", now),
        ),
        A::CertificateRevoked => (
            format!("{peer} refused the client certificate: it was revoked"),
            "install a new one as `tls.cert` and `tls.key`".to_owned(),
        ),
        A::CertificateRequired | A::NoCertificate => (
            format!("{peer} demands a client certificate and did not take the one in `tls.cert`"),
            "see that it is signed by the CA that the broker trusts for clients".to_owned(),
        ),
        A::BadCertificate | A::UnsupportedCertificate | A::CertificateUnknown | A::DecryptError => (
            format!("{peer} refused the client certificate ({alert:?})"),
            or_clock(
                "see that it is valid by now and from the CA that the broker trusts for clients; the broker's log \
                 may say more",
                now,
            ),
        ),
        A::AccessDenied => (
            format!("{peer} knows the client certificate and denies it access"),
            "let whoever runs the broker register this gateway".to_owned(),
        ),
        A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => (
            format!("{peer} refused the TLS handshake ({alert:?})"),
            format!("see that it offers {allows}, and takes client certificates of this kind"),
        ),
        A::NoApplicationProtocol => (
            format!("{peer} speaks none of the protocols in `tls.alpn`"),
            "correct `tls.alpn`, or leave it out where the broker has a port of its own".to_owned(),
        ),
        A::UnrecognisedName => (
            format!("{peer} does not serve that name"),
            "correct the host in `url`".to_owned(),
        ),
        other => (
            format!("{peer} broke the TLS connection off ({other:?})"),
            "see what the broker's log says of it".to_owned(),
        ),
    };
    Error::new(what, hint)
}

fn names(presented: &[String]) -> String {
    match presented {
        [] => "no name at all".to_owned(),
        names => {
            let bare: Vec<_> = names.iter().map(|name| bare(name)).collect();
            format!("`{}`", bare.join("`, `"))
        }
    }
}

/// rustls tells names as `DnsName("localhost")` and `IpAddress(10.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// `hint`, or the question whether the clock is set, where it may well not be.
pub(super) fn or_clock(hint: &str, now: Now) -> String {
    if now.trusted {
        format!("{hint} (the clock says {})", show(now.unix))
    } else {
        format!("the clock says {}: is the clock set? If so, {hint}", show(now.unix))
    }
}

/// A time as a person reads it, in UTC. What lies outside 1970 to 9999 is shown as the nearest that does not.
#[must_use]
pub fn show(unix: i64) -> String {
    date_of(u64::try_from(unix).unwrap_or(0))
}

pub(super) fn date_of(unix: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix.min(LAST))).to_string()
}

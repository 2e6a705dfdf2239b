//! What is wrong with a certificate that the other side has shown, in plain words.

use rustls::{CertificateError, OtherError};

use super::Now;
use super::explain::{date_of, or_clock};

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Broker,
    Device,
}

/// What is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// In words that follow "the certificate".
    pub(super) is: &'static str,
    /// What follows them, of this certificate alone.
    pub(super) detail: String,
    pub(super) hint: String,
}

impl Whose {
    fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Device => "device",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Broker => "serverAuth",
            Self::Device => "clientAuth",
        }
    }
}

impl Flaw {
    fn new(is: &'static str, hint: impl Into<String>) -> Self {
        Self { is, detail: String::new(), hint: hint.into() }
    }
}

/// What `error` says of the certificate, but for its names.
pub(super) fn flaw(error: &CertificateError, whose: Whose, now: Now) -> Flaw {
    use CertificateError as E;
    let (who, usage) = (whose.name(), whose.usage());
    let renew = |is, detail| Flaw { is, detail, hint: or_clock(&format!("the {who} needs a new one"), now) };
    let wait = |is, detail| {
        let hint = or_clock(&format!("the {who}'s certificate begins in the future"), now);
        Flaw { is, detail, hint }
    };
    match error {
        E::UnknownIssuer => {
            let or = match whose {
                Whose::Broker => "another broker",
                Whose::Device => "a stranger",
            };
            Flaw::new(
                "is not signed by any authority in `tls.ca`",
                format!("put the CA certificate that signed the {who}'s there; or is this {or}?"),
            )
        }
        E::BadSignature => Flaw::new(
            "names an authority in `tls.ca` that has not signed it",
            format!(
                "where the CA was made anew under the same name, put the certificate there of the one that signed the \
                 {who}'s; an RSA key has to have at least 2048 bits"
            ),
        ),
        E::Expired => renew("has expired", String::new()),
        E::ExpiredContext { not_after, .. } => {
            renew("expired", format!(" on {}", date_of(not_after.as_secs())))
        }
        E::NotValidYet => wait("is not valid yet", String::new()),
        E::NotValidYetContext { not_before, .. } => {
            wait("is not valid", format!(" before {}", date_of(not_before.as_secs())))
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => Flaw::new(
            match whose {
                Whose::Broker => "is not meant for a server",
                Whose::Device => "is not meant for a client",
            },
            format!("have the {who}'s issued with the extended key usage {usage}"),
        ),
        E::Revoked => Flaw::new("was revoked", format!("the {who} needs a new one")),
        E::BadEncoding => Flaw::new("is damaged", format!("copy the {who}'s again, or have it issued anew")),
        E::UnsupportedSignatureAlgorithmContext { .. }
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Flaw::new(
            "has a signature of a kind that is not accepted",
            format!(
                "have the {who}'s issued by a CA that signs with SHA-256 or better, and by RSA, ECDSA on P-256 or P-384, \
                 or Ed25519"
            ),
        ),
        other => other_flaw(other, whose),
    }
}

fn other_flaw(error: &CertificateError, whose: Whose) -> Flaw {
    let (who, usage) = (whose.name(), whose.usage());
    let name = name(error);
    match &*name {
        VERSION_1 => Flaw::new("is of X.509 version 1", format!("have the {who}'s {WITH_EXTENSIONS}")),
        "CaUsedAsEndEntity" => Flaw::new(
            "is that of an authority, or signed by itself",
            format!(
                "have one issued for the {who} by the CA in `tls.ca`: with openssl by `x509 -req -CA … -CAkey … \
                 -extfile …`, not by `req -x509`"
            ),
        ),
        "EndEntityUsedAsCa" => Flaw::new(
            "is signed by one that is no authority's",
            format!(
                "have the {who}'s signed by a CA, or the one between issued with basicConstraints=CA:TRUE"
            ),
        ),
        _ => Flaw {
            is: "cannot be accepted",
            detail: format!(" ({name})"),
            hint: format!(
                "have the {who}'s issued as an X.509 version 3 certificate with the extended key usage {usage}, signed by \
                 the CA in `tls.ca`"
            ),
        },
    }
}

/// The library's name for a certificate of version 1.
const VERSION_1: &str = "UnsupportedCertVersion";

/// What to do about a certificate of version 1, in words that follow "have it".
pub(super) const WITH_EXTENSIONS: &str =
    "issued anew with extensions, which makes it version 3: with openssl by `-extfile`";

/// Whether it is of version 1.
pub(super) fn is_version_1(error: &CertificateError) -> bool {
    name(error) == VERSION_1
}

/// What the library calls it. It wraps what it has no error of its own for, and that one's type is another crate's.
fn name(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(OtherError(error)) => error.to_string(),
        error => error.to_string(),
    }
}

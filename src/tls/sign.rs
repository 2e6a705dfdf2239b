//! Signing with a private key, as tokens want it.

use std::path::Path;

use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use serde::Deserialize;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Reader, SliceReader};

use super::{Error, files};

/// A way to sign, by its name in RFC 7518, 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA (PKCS #1 version 1.5) with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// As RFC 7518 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            Self::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
        }
    }
}

/// A private key that is ready to sign.
#[derive(Debug)]
pub struct Signer {
    signer: Box<dyn rustls::sign::Signer>,
    algorithm: Algorithm,
}

impl Signer {
    /// Reads the key in `path`: PKCS#8, SEC1 or PKCS#1, under the same rules as the key for TLS.
    ///
    /// # Errors
    /// Where the file is absent, unreadable, open to others, no key, or a key that `algorithm` is not for.
    pub fn read(path: &Path, algorithm: Algorithm) -> Result<Self, Error> {
        let key = files::private_key(path)?;
        let key = any_supported_type(&key).ok();
        let signer = key.and_then(|key| key.choose_scheme(&[algorithm.scheme()]));
        let signer = signer.ok_or_else(|| {
            let needed = match algorithm {
                Algorithm::Es256 => "an ECDSA key on P-256",
                Algorithm::Rs256 => "an RSA key of at least 2048 bits",
            };
            Error::new(
                format!("the private key in {} cannot sign by {}", path.display(), algorithm.name()),
                format!("that takes {needed}; correct `algorithm` or the key"),
            )
        })?;
        Ok(Self { signer, algorithm })
    }

    /// The signature of `message`, in the form of RFC 7518.
    ///
    /// # Errors
    /// Where the key cannot do it.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.signer.sign(message).ok();
        let signature = match self.algorithm {
            Algorithm::Es256 => signature.and_then(|der| raw(&der)),
            Algorithm::Rs256 => signature,
        };
        signature.ok_or_else(|| Error::new("the key does not sign", "have a new one made"))
    }
}

/// Both numbers of an ECDSA signature, each in 32 bytes (RFC 7518, 3.4), of the ASN.1 that TLS has them in.
fn raw(der: &[u8]) -> Option<Vec<u8>> {
    type Number<'a> = UintRef<'a>;
    let mut reader = SliceReader::new(der).ok()?;
    let pair = reader
        .sequence(|inner| Ok::<_, x509_cert::der::Error>([Number::decode(inner)?, Number::decode(inner)?]));
    let mut signature = vec![0; 64];
    for (number, place) in pair.ok()?.iter().zip(signature.chunks_exact_mut(32)) {
        let bytes = number.as_bytes();
        place.get_mut(32_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    }
    Some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_signature_are_padded_to_32_bytes_each() {
        let (short, long) = ([0x11; 31], [0xEE; 32]);
        // A number with its first bit set has a zero before it in ASN.1.
        let der = [&[0x30, 68, 0x02, 31][..], &short, &[0x02, 33, 0], &long].concat();
        let expected = [&[0][..], &short, &long].concat();
        assert_eq!(raw(&der), Some(expected));
    }

    #[test]
    fn what_is_no_signature_is_none() {
        let too_long = [&[0x30, 38, 0x02, 33, 1][..], &[0xEE; 32], &[0x02, 1, 1]].concat();
        for der in [&b""[..], b"\x30\x00", b"\x02\x01\x01", &too_long] {
            assert_eq!(raw(der), None, "{der:?}");
        }
    }
}

//! A JSON Web Token (RFC 7519), signed: what a broker takes as the password of whoever has the key.

use serde_json::{Map, Value};

use crate::tls::{self, Signer};

/// The claims of the time, which weir sets itself.
pub(super) const OWN_CLAIMS: [&str; 2] = ["iat", "exp"];

/// A token by `signer` that says `claims` and holds from `from` to `until`, in Unix time.
pub(super) fn token(
    signer: &Signer,
    algorithm: tls::Algorithm,
    claims: &Map<String, Value>,
    from: i64,
    until: i64,
) -> Result<String, tls::Error> {
    let mut claims = claims.clone();
    for (claim, time) in OWN_CLAIMS.into_iter().zip([from, until]) {
        claims.insert(claim.to_owned(), time.into());
    }
    let header = format!("{{\"alg\":\"{}\",\"typ\":\"JWT\"}}", algorithm.name());
    let mut token = base64url(header.as_bytes());
    token.push('.');
    token.push_str(&base64url(Value::Object(claims).to_string().as_bytes()));
    let signature = signer.sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&base64url(&signature));
    Ok(token)
}

/// RFC 4648, 5, without padding, as RFC 7515 wants it.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | usize::from(three.get(n).copied().unwrap_or(0)));
        // One byte makes two characters, two make three.
        for n in 0..=three.len() {
            text.push(char::from(ALPHABET[bits >> (18 - 6 * n) & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ring::signature::{self, KeyPair};

    use super::*;
    use crate::tls::Algorithm;

    #[test]
    fn base64url_is_that_of_rfc_4648_without_padding() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let encoded = ["", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"];
        assert_eq!(texts.map(|text| base64url(text.as_bytes())), encoded);
        assert_eq!(base64url(&[0xFB, 0xFF, 0xBF]), "-_-_");
    }

    /// What `text` stands for, by another way round than [`base64url`].
    fn decode(text: &str) -> Vec<u8> {
        let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
        for c in text.bytes() {
            let value = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                other => panic!("{other} in {text}"),
            };
            (bits, count) = (bits << 6 | u32::from(value), count + 6);
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count & 0xFF) as u8);
            }
        }
        bytes
    }

    /// A key made by openssl, as PEM, with the algorithm's name.
    fn signer(pem: &str, algorithm: Algorithm) -> Result<Signer, tls::Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.key");
        fs::write(&path, pem).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Signer::read(&path, algorithm)
    }

    fn claims() -> Map<String, Value> {
        let claims = serde_json::json!({ "sub": "gw-042", "aud": ["a", "b"], "iat": 1 });
        claims.as_object().cloned().unwrap()
    }

    #[test]
    fn a_token_says_what_it_should_and_its_signature_holds() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = key.serialize_pem();
        let token =
            token(&signer(&pem, Algorithm::Es256).unwrap(), Algorithm::Es256, &claims(), 100, 3700).unwrap();
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts.len(), 3, "{token}");
        let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)).unwrap();
        assert_eq!(json(parts[0]), serde_json::json!({ "alg": "ES256", "typ": "JWT" }));
        let said = serde_json::json!({ "sub": "gw-042", "aud": ["a", "b"], "iat": 100, "exp": 3700 });
        assert_eq!(json(parts[1]), said);
        let signed = token.rsplit_once('.').unwrap().0;
        let random = ring::rand::SystemRandom::new();
        let pair = signature::EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            key.serialized_der(),
            &random,
        );
        let public = pair.unwrap().public_key().as_ref().to_vec();
        let public = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, public);
        public.verify(signed.as_bytes(), &decode(parts[2])).unwrap();
        public.verify(parts[1].as_bytes(), &decode(parts[2])).unwrap_err();
    }

    #[test]
    fn a_key_of_another_kind_is_told_with_what_it_takes() {
        let ecdsa = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let error = signer(&ecdsa, Algorithm::Rs256).unwrap_err().to_string();
        assert!(error.contains("cannot sign by RS256") && error.contains("RSA key"), "{error}");
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        let error = signer(&p384, Algorithm::Es256).unwrap_err().to_string();
        assert!(error.contains("cannot sign by ES256") && error.contains("P-256"), "{error}");
    }
}

//! What is accepted of the other side: versions, ciphers, protocols.

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};
use serde::Deserialize;

use super::Config;

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Version {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// The favourite first.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

impl Version {
    /// This one and the later ones.
    pub(super) fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::V12 => &VERSIONS,
            Self::V13 => &VERSIONS[..1],
        }
    }
}

/// A choice of ciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Ciphers {
    /// AES-256-GCM alone, with keys agreed by ECDHE.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}

/// ring, with these ciphers or with all that are good.
pub(super) fn provider(ciphers: Option<Ciphers>) -> CryptoProvider {
    use CipherSuite as C;
    let mut provider = ring::default_provider();
    if let Some(Ciphers::Aes256Gcm) = ciphers {
        provider.cipher_suites.retain(|suite| {
            matches!(
                suite.suite(),
                C::TLS13_AES_256_GCM_SHA384
                    | C::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                    | C::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            )
        });
    }
    provider
}

impl Config {
    /// What the other side has to offer, in words that follow "let the broker offer".
    #[must_use]
    pub fn allows(&self) -> String {
        let versions = match self.min_version {
            Version::V12 => "TLS 1.2 or 1.3",
            Version::V13 => "TLS 1.3 (`tls.min_version`)",
        };
        match self.ciphers {
            None => format!("{versions} with its usual ciphers"),
            Some(Ciphers::Aes256Gcm) => format!("{versions} with AES-256-GCM and ECDHE (`tls.ciphers`)"),
        }
    }

    /// What is wrong across keys, as (key, what and what to do).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let unfit = |protocol: &String| !(1..=255).contains(&protocol.len());
        let alpn = self.alpn.iter().any(unfit).then(|| {
            ("alpn", "a protocol's name is 1 to 255 bytes, such as \"x-amzn-mqtt-ca\" or \"mqtt\"".to_owned())
        });
        alpn.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        toml::from_str(&format!("ca = 'ca.pem'\ncert = 'gw.pem'\nkey = 'gw.key'\n{more}")).unwrap()
    }

    #[test]
    fn aes_256_gcm_leaves_no_other_cipher_and_no_other_key_exchange_than_ecdhe() {
        let suites: Vec<_> = provider(Some(Ciphers::Aes256Gcm)).cipher_suites;
        assert_eq!(suites.len(), 3);
        for suite in suites {
            let name = format!("{:?}", suite.suite());
            assert!(name.ends_with("AES_256_GCM_SHA384"), "{name}");
            assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
        }
        assert!(provider(None).cipher_suites.len() > 3);
    }

    #[test]
    fn what_is_allowed_is_said_with_the_keys_that_say_so() {
        assert_eq!(config("").allows(), "TLS 1.2 or 1.3 with its usual ciphers");
        let strict = config("min_version = '1.3'\nciphers = 'aes-256-gcm'").allows();
        assert_eq!(strict, "TLS 1.3 (`tls.min_version`) with AES-256-GCM and ECDHE (`tls.ciphers`)");
        assert_eq!(Version::V13.and_later().len(), 1);
    }

    #[test]
    fn a_protocol_of_alpn_has_a_name() {
        assert_eq!(config("alpn = ['x-amzn-mqtt-ca', 'mqtt']").problems(), []);
        for wrong in ["", &"x".repeat(256)] {
            assert_eq!(config(&format!("alpn = ['mqtt', '{wrong}']")).problems()[0].0, "alpn");
        }
    }
}

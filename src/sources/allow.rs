//! Who may send to a listener.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A network in CIDR notation (RFC 4632, RFC 4291 2.3), or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` lies in it. An IPv4 address that a dual-stack socket shows as IPv6 counts as IPv4; no IPv6
    /// network has an IPv4 address in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros() >= self.prefix
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }

    /// The same network with the bits behind the prefix cleared.
    fn cleared(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let host = u32::MAX.checked_shr(self.prefix).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & !host).into()
            }
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(self.prefix).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & !host).into()
            }
        };
        Self { address, ..self }
    }
}

/// Whether whoever is at `address` may send: all may where nobody is named.
pub(super) fn admits(allow: &[Network], address: IpAddr) -> bool {
    allow.is_empty() || allow.iter().any(|network| network.contains(address))
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no network: write an address and a prefix, such as \"192.168.10.0/24\" or \"fd00::/8\""
            )
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        if address != address.to_canonical() {
            return Err(format!(
                "`{text}` is an IPv4 network in the clothes of IPv6: write it as IPv4, such as \"192.168.10.0/24\""
            ));
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if prefix > bits {
            return Err(format!("`{text}` has a prefix over {bits}"));
        }
        let network = Self { address, prefix };
        let cleared = network.cleared();
        if network != cleared {
            return Err(format!(
                "`{text}` has bits set behind its prefix: write \"{cleared}\", or \"{address}\" alone"
            ));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_held_against_the_prefix_alone() {
        for (network, inside, outside) in [
            ("192.168.10.0/24", "192.168.10.255", "192.168.11.0"),
            ("192.168.10.7", "192.168.10.7", "192.168.10.6"),
            ("10.0.0.0/9", "10.127.0.1", "10.128.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::1", "::1", "::2"),
            ("::/0", "fe80::1", "10.0.0.1"),
            ("192.168.10.0/24", "::ffff:192.168.10.1", "::ffff:192.168.11.1"),
            ("::/0", "::", "::ffff:10.0.0.1"),
        ] {
            let (inside, outside): (IpAddr, IpAddr) = (inside.parse().unwrap(), outside.parse().unwrap());
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside), "{network} has {inside}");
            assert!(!network.contains(outside), "{network} has not {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        for (text, hint) in [
            ("192.168.10.0/33", "over 32"),
            ("fd00::/129", "over 128"),
            ("192.168.10.5/24", "write \"192.168.10.0/24\", or \"192.168.10.5\" alone"),
            ("fd00::1/8", "write \"fd00::/8\""),
            ("::ffff:10.0.0.0/104", "write it as IPv4"),
            ("192.168.10/24", "such as"),
            ("localhost", "such as"),
            ("10.0.0.0/", "such as"),
            ("10.0.0.0/-1", "such as"),
            ("", "such as"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(hint) && error.contains(&format!("`{text}`")), "{error}");
        }
    }
}

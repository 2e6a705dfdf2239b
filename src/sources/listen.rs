//! What listeners have in common: the address in their table, and what it means where they cannot listen there.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use serde::{Deserialize, Deserializer};

use super::{Network, SourceError};

/// Reads an address to listen on. `port` is one that the protocol's devices send to, for an example.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D, port: u16) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is no address to listen on: write an address and a port, such as \"[::]:{port}\" or \"192.168.10.1:{port}\""
        ))
    })
}

/// What is wrong with `listen` and `allow`, as (key, what and what to do).
pub(super) fn problems(listen: SocketAddr, allow: &[Network], port: u16) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if listen.port() == 0 {
        problems.push((
            "listen",
            format!("`listen` has port 0: write the one that the devices send to, such as {port}"),
        ));
    }
    if !listen.ip().to_canonical().is_loopback() && allow.is_empty() {
        problems.push((
            "listen",
            format!(
                "`listen` {listen} can be reached from outside: say who may send, such as `allow = [\"192.168.10.0/24\"]`"
            ),
        ));
    }
    problems
}

/// Whether only one of both can listen. Whether IPv6 for all leaves IPv4 to another, the kernel's settings say.
pub(super) fn clashes(one: SocketAddr, other: SocketAddr) -> bool {
    let (address, another) = (one.ip().to_canonical(), other.ip().to_canonical());
    let all = address.is_unspecified() || another.is_unspecified();
    one.port() == other.port() && (address == another || all && address.is_ipv4() == another.is_ipv4())
}

/// That this machine does not have the address, where it does not have it now.
pub(super) fn absent(listen: SocketAddr) -> Vec<(&'static str, String)> {
    match UdpSocket::bind((listen.ip(), 0)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            vec![("listen", format!("this machine has no address {} now: weir waits for it", listen.ip()))]
        }
        _ => Vec::new(),
    }
}

/// What is listened by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

/// What the failure to listen means to the person who has to see to it. `port` is one that would do.
pub(super) fn refused(listen: SocketAddr, error: &io::Error, protocol: Protocol, port: u16) -> SourceError {
    let (cause, hint) = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::AddrNotAvailable, _) => {
            return SourceError::Missing {
                what: format!("the address {}", listen.ip()),
                hint: "check that its interface is up and that `listen` names it".to_owned(),
            };
        }
        (io::ErrorKind::AddrInUse, _) => {
            let which = match protocol {
                Protocol::Udp => "-ulpn",
                Protocol::Tcp => "-tlpn",
            };
            (
                "another program, or another source, listens there".to_owned(),
                format!("`ss {which} 'sport = :{}'` shows which", listen.port()),
            )
        }
        (io::ErrorKind::PermissionDenied, _) => {
            ("permission denied".to_owned(), format!("give `listen` a port of 1024 or above, such as {port}"))
        }
        (_, Some(libc::EAFNOSUPPORT)) => (
            "this machine has no IPv6".to_owned(),
            format!("write an IPv4 address, such as `listen = \"0.0.0.0:{}\"`", listen.port()),
        ),
        _ => (error.to_string().to_lowercase(), "check `listen`".to_owned()),
    };
    SourceError::Refused { what: listen.to_string(), cause, hint }
}

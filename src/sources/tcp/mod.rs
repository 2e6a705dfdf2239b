//! TCP: devices that connect (`listen`), or one device that is dialled (`connect`). Framing and decoding are those of
//! every byte stream. The rules:
//!
//! - **A full pipeline means that nothing is read.** The kernel then keeps what the devices send and holds them back, so
//!   nothing is dropped. A frame that had begun when its connection ended is counted as cut off.
//! - **A connection at rest costs next to nothing**: no task, no timer, no buffer. All of a listener's sockets are behind
//!   one file descriptor, and what they bring is read into one buffer, decoded by one decoder and handed on in one batch.
//! - **All get their turn.** One turn is one read, and whoever has more goes to the end of the line.
//! - **No peer can stop it, or grow it**: connections, handshakes and the memory of unfinished frames have bounds. What is
//!   over them is refused and counted. Where the system itself has no room for a connection none is taken for a second.
//! - A peer that is gone without a word is found out by the kernel ([`keep_alive`]), one that is there and says nothing,
//!   or begins a frame and does not end it, by `idle_timeout`, where that is set.
//! - With `tls` nothing is read in the clear, and with `tls.ca` nothing of whoever has no certificate that it signed.

mod connection;
mod dial;
mod door;
mod files;
mod frames;
mod handshakes;
mod identity;
mod listener;
mod poll;
mod secured;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use socket2::{SockRef, TcpKeepalive};

use super::stream::{self, Reader};
use super::{Batch, Context, Network, Source, SourceError, decode, framing, listen};
use crate::model::{NAME_MAX, is_name};
use crate::tls;
use crate::units;

use dial::Dialled;
use listener::Listener;

/// A source of `type = "tcp"`: it has either `listen` or `connect`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address and port to listen on. `[::]` is IPv4 and IPv6 together, unless the kernel's
    /// `net.ipv6.bindv6only` says otherwise.
    #[serde(default, deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
    /// The device to dial, `host:port`.
    pub connect: Option<Box<str>>,
    /// Who may connect; required unless `listen` is an address of loopback. Empty there, all of this machine.
    #[serde(default)]
    pub allow: Vec<Network>,
    /// The most connections at a time, by default 1000.
    pub max_connections: Option<u32>,
    /// A connection on which nothing has come for so long, or up to a quarter longer, is closed, and one on which a frame has
    /// not ended for ten times as long; by default none is.
    #[serde(default, deserialize_with = "idle_timeout")]
    pub idle_timeout: Option<Duration>,
    /// The certificate to show to devices, and with `ca` what theirs must be signed by; by default there is no TLS.
    pub tls: Option<tls::Listening>,
    /// How bytes become frames.
    #[serde(default)]
    pub framing: framing::Config,
    /// How frames become readings.
    pub decode: decode::Config,
    /// The device where a frame names none; by default the source's name.
    pub device: Option<Box<str>>,
}

/// A port for examples; TCP itself has none for this.
const PORT: u16 = 9300;

const MAX_CONNECTIONS: u32 = 1000;

/// The bounds of `idle_timeout`.
const MIN_IDLE: Duration = Duration::from_secs(1);
const MAX_IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The greatest `max_connections`: a port of a peer's address has no more.
const MOST_CONNECTIONS: u32 = 65_536;

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    listen::address(deserializer, PORT).map(Some)
}

fn idle_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration(deserializer).map(Some)
}

impl Config {
    fn max_connections(&self) -> usize {
        usize::try_from(self.max_connections.unwrap_or(MAX_CONNECTIONS)).unwrap_or(usize::MAX)
    }

    fn reader(&self, context: &Context) -> Reader {
        Reader::new(&self.framing, &self.decode, self.device.as_deref(), context)
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = stream::problems(&self.framing, &self.decode);
        match (self.listen, &self.connect) {
            (Some(listen), None) => problems.extend(listen::problems(listen, &self.allow, PORT)),
            (None, Some(device)) => problems.extend(self.dial_problems(device)),
            (Some(_), Some(_)) => problems.push((
                "connect",
                "a source has `listen` or `connect`, not both: make two of it, each with its table".to_owned(),
            )),
            (None, None) => problems.push((
                "listen",
                format!(
                    "it needs `listen`, such as \"0.0.0.0:{PORT}\", for devices that connect, or `connect`, such as \
                     \"192.168.10.20:{PORT}\", for one that is dialled"
                ),
            )),
        }
        if self.max_connections.is_some_and(|most| !(1..=MOST_CONNECTIONS).contains(&most)) {
            problems.push((
                "max_connections",
                format!("`max_connections` must lie within 1 and {MOST_CONNECTIONS}"),
            ));
        }
        if self.idle_timeout.is_some_and(|idle| !(MIN_IDLE..=MAX_IDLE).contains(&idle)) {
            let (least, most) = (units::show(MIN_IDLE), units::show(MAX_IDLE));
            problems.push(("idle_timeout", format!("`idle_timeout` must lie within {least} and {most}")));
        }
        if self.device.as_ref().is_some_and(|device| !is_name(device)) {
            problems.push(("device", format!("`device` must have 1 to {NAME_MAX} bytes")));
        }
        problems
    }

    fn dial_problems(&self, device: &str) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let parts = device.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        // An IPv6 address without its brackets looks like a host and a port too.
        let bare = |host: &str| host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if !parts.is_some_and(|(host, port)| !host.is_empty() && port > 0 && !bare(host)) {
            problems.push((
                "connect",
                format!(
                    "`{device}` is nothing to connect to: write a host and a port, such as \"192.168.10.20:{PORT}\" or \
                     \"[fd00::20]:{PORT}\""
                ),
            ));
        }
        for (key, there) in [
            ("allow", !self.allow.is_empty()),
            ("max_connections", self.max_connections.is_some()),
            ("tls", self.tls.is_some()),
        ] {
            if there {
                problems.push((key, format!("`{key}` is for devices that connect: it goes with `listen`")));
            }
        }
        problems
    }

    pub(super) fn where_to_look(&self) -> &'static str {
        match self.listen {
            Some(_) => {
                "check that the devices connect to this address and port, that `allow` has them, and the firewall"
            }
            None => "check that the device sends by itself, and to whoever connects",
        }
    }

    /// Whether only one of both can listen.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        self.listen.zip(other.listen).is_some_and(|(one, other)| listen::clashes(one, other))
    }

    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        let path = |key| match key {
            "ca" => "tls.ca",
            "cert" => "tls.cert",
            _ => "tls.key",
        };
        let state = |file: &Path| if file.exists() { "is not a regular file" } else { "is not there yet" };
        let files = self.tls.iter().flat_map(tls::Listening::absent);
        let files = files.map(|(key, file)| (path(key), format!("{} {}", file.display(), state(file))));
        let listen = self.listen.map(listen::absent).unwrap_or_default();
        let of_user =
            self.identity_unfit().filter(|error| error.of_user).map(|error| ("tls", error.to_string()));
        let doubt =
            self.tls.as_ref().and_then(tls::Listening::doubt).map(|doubt| ("tls.cert", doubt.to_string()));
        let doubtful = stream::doubtful(&self.framing, &self.decode);
        listen.into_iter().chain(files).chain(of_user).chain(doubt).chain(doubtful).collect()
    }

    /// What is wrong with the files of `tls` that are there.
    pub(super) fn unfit(&self) -> Option<(&'static str, String)> {
        self.identity_unfit().filter(|error| !error.of_user).map(|error| ("tls", error.to_string()))
    }

    fn identity_unfit(&self) -> Option<tls::Error> {
        self.tls.as_ref().and_then(tls::Listening::unfit)
    }
}

/// An open source.
#[derive(Debug)]
pub struct Tcp(Side);

#[derive(Debug)]
enum Side {
    Listener(Box<Listener>),
    Dialled(Box<Dialled>),
}

impl Source for Tcp {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        Ok(Self(match (config.listen, &config.connect) {
            (Some(listen), _) => Side::Listener(Box::new(Listener::open(listen, config, context)?)),
            (None, device) => {
                let device = device.as_deref().unwrap_or_default();
                Side::Dialled(Box::new(Dialled::open(device, config, context).await?))
            }
        }))
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        match &mut self.0 {
            Side::Listener(listener) => listener.next().await,
            Side::Dialled(dialled) => dialled.next().await,
        }
    }
}

/// Has the kernel ask a silent peer whether it is still there: after two minutes without an answer it is not.
fn keep_alive(socket: &impl AsFd) -> std::io::Result<()> {
    const AFTER: Duration = Duration::from_secs(60);
    const EVERY: Duration = Duration::from_secs(15);
    let how = TcpKeepalive::new().with_time(AFTER).with_interval(EVERY).with_retries(4);
    SockRef::from(socket).set_tcp_keepalive(&how)
}

#[cfg(test)]
mod tests;

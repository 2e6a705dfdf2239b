//! A real aMQTT, an MQTT 3.1.1 broker in Python. It keeps nothing over its end.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use super::mosquitto::{Subscriber, listener, printed};
use super::pki::{Files, Result};
use super::process::{Output, Process};
use super::python;

/// A broker that checks the certificate of whoever shows one. It is killed with this handle.
pub(crate) struct Amqtt {
    address: SocketAddr,
    _process: Process,
}

impl Amqtt {
    /// Starts one at an address of loopback.
    pub(crate) fn start(dir: &Path, host: Ipv4Addr, server: &Files) -> Result<Self> {
        let address = TcpListener::bind((host, 0))?.local_addr()?;
        let config = dir.join("amqtt.yaml");
        let text = format!(
            "listeners:\n  default:\n    type: tcp\n    bind: {address}\n    ssl: true\n    cafile: {}\n    \
             certfile: {}\n    keyfile: {}\nplugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    \
             allow_anonymous: true\n",
            server.ca.display(),
            server.cert.display(),
            server.key.display(),
        );
        fs::write(&config, text)?;
        let process = Process::start(python::program("amqtt")?.arg("-c").arg(&config), Output::Stderr)?;
        process.wait("amqtt listens", |lines| lines.iter().any(|line| line.contains(" bind to ")))?;
        Ok(Self { address, _process: process })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Subscribes with QoS 1. When the subscription stands is for the listener to find out, by a retained message.
    pub(crate) fn subscribe(&self, client: &Files, topic: &str) -> Result<Subscriber> {
        let mut command = listener(self.address, client, "mqttv311", "watcher", topic)?;
        Ok(Subscriber::new(Process::start(&mut command, Output::Stdout)?, printed))
    }
}

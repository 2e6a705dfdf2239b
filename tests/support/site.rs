//! A whole site: a broker that demands client certificates, somebody who listens to it, and a gateway.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use super::agent::Agent;
use super::mosquitto::{Message, Mosquitto, Subscriber};
use super::pki::{Authority, Valid};

/// A broker, somebody who listens to it, and a gateway that is configured and not started.
pub(crate) struct Site {
    // Ended in this order.
    pub(crate) agent: Agent,
    pub(crate) subscriber: Subscriber,
    pub(crate) broker: Mosquitto,
    dir: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(rest: &str) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, |broker| broker.port(), rest)
    }

    /// A site whose broker is at that address of loopback, and whose gateway gets there by the port of localhost that
    /// `way` gives.
    pub(crate) fn at(host: Ipv4Addr, way: impl FnOnce(SocketAddr) -> u16, rest: &str) -> Self {
        Self::build(host, way, |_| true, rest)
    }

    /// A site where of what the subscriber prints only the lines are kept that `keep` says yes to.
    pub(crate) fn sifted(keep: impl FnMut(&str) -> bool + Send + 'static, rest: &str) -> Self {
        Self::build(Ipv4Addr::LOCALHOST, |broker| broker.port(), keep, rest)
    }

    fn build(
        host: Ipv4Addr,
        way: impl FnOnce(SocketAddr) -> u16,
        keep: impl FnMut(&str) -> bool + Send + 'static,
        rest: &str,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("CA").unwrap();
        let server = authority.server(&["localhost", &host.to_string()], Valid::Now).unwrap();
        let server = server.write(dir.path(), "server", &authority).unwrap();
        let client =
            authority.client("gw-042", Valid::Now).unwrap().write(dir.path(), "client", &authority).unwrap();
        let broker = Mosquitto::start_at(host, dir.path(), &server, "").unwrap();
        let subscriber = broker.subscribe_sifted(&client, "watcher", "weir/#", keep).unwrap();
        let agent = Agent::new(&dir.path().join("gateway"), way(broker.address()), &client, rest).unwrap();
        Self { agent, subscriber, broker, dir }
    }

    /// Where everything of it lies.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until the gap records that have arrived are enough, and returns them.
    pub(crate) fn gaps(&self, what: &str, mut enough: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        gaps(&self.subscriber.wait(what, |messages| enough(&gaps(messages))).unwrap())
    }

    /// Waits until the data that has arrived is enough, and returns it.
    pub(crate) fn data(&self, what: &str, mut enough: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        let messages = self.subscriber.wait(what, |messages| enough(&data(messages)));
        data(
            &messages
                .unwrap_or_else(|error| panic!("{error}\nthe agent's log:\n{}", self.agent.log().join("\n"))),
        )
    }
}

/// The gap records among all messages, each once.
pub(crate) fn gaps(messages: &[Message]) -> Vec<Value> {
    let told = messages.iter().filter(|message| message.topic == "weir/gw-042/gaps");
    let told = told.map(|message| serde_json::from_str::<Value>(&message.payload).unwrap());
    told.map(|gap| (gap["id"].to_string(), gap)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// The data messages among all, repeated ones too.
pub(crate) fn data(messages: &[Message]) -> Vec<Value> {
    let data = messages.iter().filter(|message| message.topic.starts_with("weir/gw-042/data/"));
    data.map(|message| serde_json::from_str(&message.payload).unwrap()).collect()
}

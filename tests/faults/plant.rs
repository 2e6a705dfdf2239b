//! A gateway under load before a broker that is not mosquitto, and a link between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::coap_counter::{Answer, Asked, Counter};
use crate::support::agent::Agent;
use crate::support::link::Link;
use crate::support::mosquitto::{Message, Subscriber};
use crate::support::pki::Files;
use crate::support::site;
use crate::verdict::{Verdict, number};

/// The agent is connected, and the counter counts.
pub(crate) struct Plant {
    agent: Agent,
    pub(crate) counter: Counter,
    pub(crate) link: Link,
    cloud: Subscriber,
}

impl Plant {
    /// Starts all of it, but for the broker and who listens there. `uplink` is added to the uplink's keys.
    pub(crate) fn start(
        dir: &Path,
        host: Ipv4Addr,
        broker: SocketAddr,
        cloud: Subscriber,
        client: &Files,
        uplink: &str,
    ) -> Self {
        let link = Link::to(broker).unwrap();
        let listen = Counter::port(host);
        let mut agent = Agent::new(&dir.join("gateway"), link.port(), client, "").unwrap();
        let rest = format!("[sources.field]\ntype = 'coap_server'\nlisten = '{listen}'\n");
        agent.configure(&rest, uplink).unwrap();
        agent.start_until("connected").unwrap();
        // The status is retained: who has it listens.
        let is_status = |message: &Message| message.topic == "weir/gw-042/status";
        cloud.wait("the status has arrived", |messages| messages.iter().any(is_status)).unwrap();
        Self { agent, counter: Counter::start(listen), link, cloud }
    }

    /// Waits until what is taken from now on arrives.
    pub(crate) fn recovers(&self) {
        self.arrival(self.counter.next_taken());
    }

    fn arrival(&self, awaited: usize) -> Vec<Message> {
        let arrived = self.cloud.wait(&format!("{awaited} has arrived"), |messages| {
            site::data(messages).iter().any(|message| number(message) == Some(awaited))
        });
        arrived.unwrap_or_else(|error| panic!("{error}\nthe agent's log:\n{}", self.agent.log().join("\n")))
    }

    /// Stops, once all that was taken has arrived, and holds it against what was sent. Gives all that has arrived.
    pub(crate) fn end(mut self, name: &str) -> Vec<Message> {
        let asked = self.counter.stop();
        let is_taken = |asked: &Asked| matches!(asked.answer, Answer::Taken(_));
        let messages = self.arrival(asked.iter().rposition(is_taken).unwrap());
        assert!(self.agent.terminate().unwrap().success());
        let verdict = Verdict::of(&asked, &[], &site::data(&messages));
        println!("{name}: {verdict}");
        assert!(verdict.faults.is_empty(), "{}", verdict.faults.join("\n"));
        assert!(verdict.taken > 300, "a test under no load proves nothing");
        messages
    }
}

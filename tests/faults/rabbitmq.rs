//! RabbitMQ as the cloud, by its MQTT plugin, and an AMQP queue from which what it got is read.

use crate::host;
use crate::plant::Plant;
use crate::support::pki::{Authority, Valid};
use crate::support::rabbitmq::RabbitMq;

#[test]
fn rabbitmq_gets_everything_in_order_over_a_cut_link_and_a_restart_of_its_own() {
    let host = host(0);
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("CA").unwrap();
    let server = authority.server(&["localhost"], Valid::Now).unwrap();
    let server = server.write(dir.path(), "server", &authority).unwrap();
    let client =
        authority.client("gw-042", Valid::Now).unwrap().write(dir.path(), "client", &authority).unwrap();
    let mut broker = RabbitMq::start(dir.path(), host.into(), &server, &["gw-042"]).unwrap();
    let queue = broker.read().unwrap();
    let plant = Plant::start(dir.path(), host, broker.mqtt(), queue, &client, "protocol = '3.1.1'\n");
    plant.recovers();
    plant.link.cut();
    plant.counter.taken_after(200);
    plant.link.mend();
    plant.recovers();
    broker.stop().unwrap();
    plant.counter.taken_after(200);
    broker.restart().unwrap();
    plant.counter.next_taken();
    let messages = plant.end("RabbitMQ");
    let told = messages.iter().filter(|message| message.topic == "weir/gw-042/status").count();
    assert!(told >= 3, "a status for each connection, not {told}");
}

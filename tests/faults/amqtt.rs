//! aMQTT as the cloud.

use crate::host;
use crate::plant::Plant;
use crate::support::amqtt::Amqtt;
use crate::support::pki::{Authority, Valid};

#[test]
fn amqtt_gets_everything_in_order_over_a_link_that_is_cut_and_one_that_goes_dead() {
    let host = host(1);
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("CA").unwrap();
    let names = ["localhost", &host.to_string()];
    let server =
        authority.server(&names, Valid::Now).unwrap().write(dir.path(), "server", &authority).unwrap();
    let client =
        authority.client("gw-042", Valid::Now).unwrap().write(dir.path(), "client", &authority).unwrap();
    let broker = Amqtt::start(dir.path(), host, &server).unwrap();
    let subscriber = broker.subscribe(&client, "weir/#").unwrap();
    let uplink = "protocol = '3.1.1'\nkeep_alive = '5s'\nack_timeout = '3s'\n";
    let plant = Plant::start(dir.path(), host, broker.address(), subscriber, &client, uplink);
    plant.recovers();
    plant.link.cut();
    plant.counter.taken_after(200);
    plant.link.mend();
    plant.recovers();
    plant.link.die();
    plant.counter.taken_after(200);
    plant.link.replace();
    plant.recovers();
    plant.end("aMQTT");
}

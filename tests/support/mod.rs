//! What the tests and the demo set up around the agent: certificates, a broker of their own, and a real one.
#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod agent;
pub(crate) mod aiocoap;
pub(crate) mod amqtt;
pub(crate) mod broker;
pub(crate) mod files;
pub(crate) mod link;
pub(crate) mod modbus;
pub(crate) mod mosquitto;
pub(crate) mod mqtt;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod pty;
pub(crate) mod python;
pub(crate) mod rabbitmq;
pub(crate) mod site;
pub(crate) mod socat;
pub(crate) mod weak_link;

//! Faults on purpose: the real binary, real brokers and a broker of the tests' own, and what becomes of the messages.
//!
//! One file a family. Every case counts what was lost, repeated and reordered by id and prints the three numbers; a
//! case that is chosen at random prints the seed that it can be repeated with. `tests/nightly` runs the long ones at
//! length.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, prints what it counted, and lives in real time"
)]

#[path = "../support/mod.rs"]
mod support;

// What they count with.
mod coap_counter;
mod plant;
mod probe;
mod serial_counter;
mod verdict;

// The families.
mod amqtt;
mod backlog;
mod ciphers;
mod clock;
mod damage;
mod disk;
mod poison;
mod rabbitmq;
mod rotation;
mod schedules;
mod tokens;

use std::net::Ipv4Addr;

/// A number that the environment gives.
fn setting(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}: write a number")))
}

/// An address of loopback that no other test has. What is bound to a port of it may be away for a while: nobody who is
/// given a free port of localhost meanwhile is in its way when it comes back.
fn host(number: u64) -> Ipv4Addr {
    let process = std::process::id();
    let [.., a] = process.to_be_bytes();
    let [.., b, c] = number.to_be_bytes();
    Ipv4Addr::new(127, a.max(1), b, c.max(1))
}

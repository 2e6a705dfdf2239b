//! Faults on purpose: the real binary, real brokers and a broker of the tests' own, and what becomes of the messages.
//!
//! One file a family. Every case counts what was lost, repeated and reordered by id and prints the three numbers; a
//! case that is chosen at random prints the seed that it can be repeated with.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, prints what it counted, and lives in real time"
)]

#[path = "../support/mod.rs"]
mod support;

mod backlog;

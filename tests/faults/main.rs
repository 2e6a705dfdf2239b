//! Faults on purpose: the real binary, real brokers and a broker of the tests' own, and what becomes of the messages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, prints what it counted, and lives in real time"
)]

#[path = "../support/mod.rs"]
mod support;

mod clock;

//! What the agent needs: memory, processor, disk, and time to start. `cargo bench --bench figures` prints a table.
//!
//! The agent is the release binary, at work between a pseudo-terminal and a real mosquitto over mutual TLS. Seconds of
//! processor time differ from machine to machine, so a bare loop that does the least of the same job is timed beside
//! it: the ratio is what can be compared. Nothing else should run meanwhile.
//!
//! `cargo bench --bench figures -- disk --minutes 10` takes one figure, and more time for it. Under `cargo test` all
//! are taken of next to nothing, which says that this program works and nothing about the agent.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::disallowed_methods, reason = "what is measured here is the machine's own time")]

mod appends;
mod backlog;
mod coap;
mod connections;
mod decode;
mod disk;
mod drain;
mod idle;
mod kernel;
mod load;
mod million;
mod offline;
mod rows;
mod site;
mod start;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tls;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use support::pki::Result;

/// Measures what the agent needs.
#[derive(Parser)]
struct Arguments {
    /// What to measure; by default everything
    figures: Vec<Figure>,
    /// How long the disk is watched under each durability
    #[arg(long, default_value_t = 0.5)]
    minutes: f64,
    /// Given by `cargo bench`, and not by `cargo test`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Figure {
    /// Memory, wake-ups and processor time with nothing to do
    Idle,
    /// Memory under a steady stream of readings
    Load,
    /// Processor time for a million readings
    Million,
    /// Time from the start to the first acknowledged publication
    Start,
    /// Bytes written to the disk while the link is up
    Disk,
    /// CoAP requests a second
    Coap,
    /// Memory and processor time of ten thousand TCP connections
    Connections,
    /// Memory of a thousand TLS connections at rest
    Tls,
    /// Messages a second into the buffer
    Appends,
    /// Messages a second from a backlog to the broker
    Drain,
    /// Bytes written to the disk in an outage, and the file's size
    Offline,
    /// Frames a second through each decoder
    Decode,
}

/// How much is measured.
struct Extent {
    settle: Duration,
    watch: Duration,
    readings: u64,
    runs: usize,
    requests: u64,
    connections: usize,
    secured: usize,
    starts: usize,
    disk: Duration,
    appends: usize,
    drains: usize,
    windows: usize,
}

impl Extent {
    fn of(arguments: &Arguments) -> Self {
        if arguments.bench {
            Self {
                settle: Duration::from_secs(5),
                watch: Duration::from_secs(60),
                readings: 1_000_000,
                runs: 3,
                requests: 300_000,
                connections: 10_000,
                secured: 1_000,
                starts: 15,
                disk: Duration::from_secs(60).mul_f64(arguments.minutes),
                appends: 50_000,
                drains: 100_000,
                windows: 360,
            }
        } else {
            let short = Duration::from_millis(200);
            Self {
                settle: short,
                watch: short,
                readings: 1_000,
                runs: 1,
                requests: 1_000,
                connections: 100,
                secured: 20,
                starts: 1,
                disk: short,
                appends: 1_000,
                drains: 1_000,
                windows: 6,
            }
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let extent = Extent::of(&arguments);
    for figure in Figure::value_variants() {
        if !arguments.figures.is_empty() && !arguments.figures.contains(figure) {
            continue;
        }
        match figure {
            Figure::Idle => idle::measure(&extent),
            Figure::Load => load::measure(&extent),
            Figure::Million => million::measure(&extent),
            Figure::Start => start::measure(&extent),
            Figure::Disk => disk::measure(&extent),
            Figure::Coap => coap::measure(&extent),
            Figure::Connections => connections::measure(&extent),
            Figure::Tls => tls::measure(&extent),
            Figure::Appends => appends::measure(&extent),
            Figure::Drain => drain::measure(&extent),
            Figure::Offline => offline::measure(&extent),
            Figure::Decode => decode::measure(&extent),
        }?;
    }
    Ok(())
}

/// A line of the table. What nothing is asked of has no target.
fn print(what: &str, measured: &str, target: &str) {
    println!("{what:<58} {measured:>12}  {target}");
}

/// Bytes as megabytes.
fn mega(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

//! What the tests of TCP have in common.

mod bounds;
mod config;
mod dialled;
mod listener;
mod secured;
mod turns;

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use socket2::SockRef;
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::model::{Timestamp, Value};
use crate::sources::{Refusal, Stats};

const JSON: &str = "decode = { type = 'json', device = 'dev' }";

fn config(toml: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(&format!("{JSON}\n{toml}"))
}

fn context() -> Context {
    Context {
        name: "field".into(),
        clock: Clock::injected(Timestamp(1_700_000_000_000), true),
        stats: Arc::new(Stats::default()),
        memory: Default::default(),
        ports: Default::default(),
    }
}

/// A source at a port of the kernel's choice.
async fn listen(toml: &str, context: &Context) -> (Tcp, SocketAddr) {
    let config = config(&format!("listen = '127.0.0.1:0'\n{toml}")).unwrap();
    let source = Tcp::open(&config, context).await.unwrap();
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    let address = listener.address();
    (source, address)
}

/// What it writes goes out at once: no timer of the kernel's knows of a paused clock.
fn device(address: SocketAddr) -> TcpStream {
    let device = TcpStream::connect(address).unwrap();
    device.set_nodelay(true).unwrap();
    device
}

/// Closes at once: what it has not sent is thrown away, and the other side gets a reset.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The next batch, or a failed test where none comes.
async fn next(source: &mut Tcp) -> Result<Batch, SourceError> {
    timeout(Duration::from_secs(20), source.next()).await.expect("the source says nothing")
}

/// The next so many readings, as device and value.
async fn take(source: &mut Tcp, count: usize) -> Vec<(String, Value)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let readings = next(source).await.unwrap().readings;
        taken.extend(
            readings.iter().map(|(_, reading)| (reading.device.to_owned(), reading.value.to_owned())),
        );
    }
    taken
}

/// Lets it work until `enough`.
async fn until(source: &mut Tcp, enough: impl Fn() -> bool) {
    let work = async {
        while !enough() {
            let _ = timeout(Duration::from_millis(20), source.next()).await;
        }
    };
    timeout(Duration::from_secs(20), work).await.expect("it never comes to that");
}

/// Takes for so long what comes.
async fn ask_for(source: &mut Tcp, time: Duration) -> Result<(), SourceError> {
    let over = tokio::time::sleep(time);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return Ok(()),
            batch = source.next() => drop(batch?),
        }
    }
}

fn int(device: &str, value: i64) -> (String, Value) {
    (device.to_owned(), Value::Int(value))
}

fn refused(context: &Context, refusal: Refusal) -> u64 {
    context.stats.refused().find(|(which, _)| *which == refusal).unwrap().1
}

fn open(source: &Tcp) -> usize {
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    listener.connections()
}

/// As much as the kernel takes, of many whole lines.
fn flood(socket: &mut TcpStream, line: &[u8]) -> usize {
    socket.set_nonblocking(true).unwrap();
    let text = line.repeat(1000);
    let mut written = 0;
    while let Ok(length) = socket.write(&text) {
        written += length;
    }
    written
}

async fn dial(address: SocketAddr, more: &str, context: &Context) -> Result<Tcp, SourceError> {
    Tcp::open(&config(&format!("connect = '{address}'\n{more}")).unwrap(), context).await
}

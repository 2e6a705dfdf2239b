use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_refusal_makes_a_short_line_however_long_its_reason_is() {
    let log = Log::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || to.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        Stats::default().refuse("line", Refusal::Undecodable, || "x".repeat(1 << 20));
    });
    let line = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(line.len() < 1024 && line.contains("xx… (1048576 bytes)"), "{line}");
}

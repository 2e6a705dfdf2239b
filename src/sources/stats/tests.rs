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

/// What is logged meanwhile.
pub(in crate::sources) fn logged(work: impl FnOnce()) -> String {
    let log = Log::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_refusal_makes_a_short_line_however_long_its_reason_is() {
    let line = logged(|| Stats::default().refuse("line", Refusal::Undecodable, || "x".repeat(1 << 20)));
    assert!(line.len() < 1024 && line.contains("xx… (1048576 bytes)"), "{line}");
}

#[test]
fn the_first_refusal_for_each_reason_is_told_and_of_the_others_the_tenth_and_the_hundredth() {
    let stats = Stats::default();
    let log = logged(|| {
        for device in 0..100 {
            let reason = ["no certificate", "a stranger", "expired"][device % 3];
            stats.refuse_for("field", Refusal::Tls, reason, || format!("{reason}, device {device}."));
        }
    });
    let told: Vec<_> = log.lines().filter_map(|line| line.split_once("refused input: ")).collect();
    assert_eq!(told.len(), 5, "{log}");
    for ((_, told), start) in told.iter().zip([
        "no certificate, device 0.",
        "a stranger, device 1.",
        "expired, device 2.",
        "no certificate, device 9.",
        "no certificate, device 99.",
    ]) {
        assert!(told.starts_with(start), "{told}");
    }
    assert!(told[2].1.contains("count=3") && told[3].1.contains("count=10"), "{log}");
}

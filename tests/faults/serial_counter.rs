//! A device that counts, and the account of what became of its numbers.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::support::pty::Pty;

/// Writes `{"dev":"counter","n":0}`, 1 and so on: about five hundred lines a second, until it is told to end.
pub(crate) struct Counter {
    pty: Pty,
    running: Arc<AtomicBool>,
    writing: Option<JoinHandle<u64>>,
}

impl Counter {
    pub(crate) fn new() -> Self {
        Self { pty: Pty::open().unwrap(), running: Arc::new(AtomicBool::new(true)), writing: None }
    }

    /// The source that reads it, for the configuration.
    pub(crate) fn source(&self) -> String {
        let port: &Path = self.pty.port();
        let decode = "{ type = 'json', device = 'dev' }";
        format!(
            "[sources.line]\ntype = 'serial'\nport = '{}'\nbaud = 115200\ndecode = {decode}\n",
            port.display()
        )
    }

    pub(crate) fn start(&mut self) {
        let (mut device, running) = (self.pty.device().unwrap(), Arc::clone(&self.running));
        self.writing = Some(thread::spawn(move || {
            let mut n = 0;
            while running.load(Ordering::Relaxed) {
                let lines: String =
                    (n..n + 5).map(|n| format!("{{\"dev\":\"counter\",\"n\":{n}}}\n")).collect();
                device.write_all(lines.as_bytes()).unwrap();
                n += 5;
                thread::sleep(Duration::from_millis(10));
            }
            n
        }));
    }

    /// Ends it once everything is read; gives how many numbers it has written.
    pub(crate) fn end(&mut self) -> u64 {
        self.running.store(false, Ordering::Relaxed);
        let written = self.writing.take().unwrap().join().unwrap();
        self.pty.wait_until_read().unwrap();
        written
    }
}

/// What became of numbers from 0 on, to a receiver that drops repeated ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) arrived: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) reordered: u64,
}

/// The account of `written` numbers, of which these messages came.
pub(crate) fn account(messages: &[Value], written: u64) -> Account {
    let (mut ids, mut numbers, mut account) = (HashSet::new(), HashSet::new(), Account::default());
    let mut last = None;
    for message in messages {
        if !ids.insert(message["id"].as_str().unwrap()) {
            account.repeated += 1;
            continue;
        }
        let n = message["metrics"]["n"]["value"].as_u64().unwrap();
        assert!(numbers.insert(n), "{n} came under two ids");
        account.reordered += u64::from(last.is_some_and(|last| n < last));
        last = Some(n);
    }
    account.arrived = numbers.len() as u64;
    account.lost = (0..written).filter(|n| !numbers.contains(n)).count() as u64;
    account
}

#[test]
fn the_account_tells_what_was_lost_repeated_and_reordered() {
    let message = |id: &str, n: u64| serde_json::json!({ "id": id, "metrics": { "n": { "value": n } } });
    let messages = [message("a", 0), message("b", 2), message("b", 2), message("c", 1)];
    let expected = Account { arrived: 3, lost: 2, repeated: 1, reordered: 1 };
    assert_eq!(account(&messages, 5), expected);
}

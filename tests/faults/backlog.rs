//! A long outage is over: what waits on the disk is sent without being taken into memory.
//!
//! `WEIR_ROWS=1000000` is the length of it; by default it is shorter, as the binary here is not optimised. Memory does
//! not know the difference.

use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::setting;
use crate::support::agent::Agent;
use crate::support::pty::Pty;
use crate::support::site::Site;

/// What a backlog may add to an idle agent's memory.
const MOST: u64 = 4 << 20;

/// One in so many lines is kept, for whoever waits.
const KEPT: u64 = 1_000;

/// What has arrived of a device that counts. A million messages are looked at as they come, and not kept.
#[derive(Debug, Default)]
struct Arrived {
    /// Of the last first delivery; weir's ids rise.
    id: (u64, u64),
    /// The number that comes next.
    next: u64,
    lost: u64,
    repeated: u64,
    reordered: u64,
}

impl Arrived {
    /// Takes in a line of a subscriber, in which JSON stands within JSON. Tells whether it is to be kept.
    fn see(&mut self, line: &str) -> bool {
        let after = |key| line.split_once(key).map(|(_, after)| after);
        let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let (epoch, sequence) = after(r#"\"id\":\""#).and_then(|id| id.split_once('-')).unwrap();
        let id = (number(epoch).unwrap(), number(sequence).unwrap());
        let number: u64 = after(r#"\"value\":"#).and_then(number).unwrap();
        if id <= self.id {
            self.repeated += 1;
            return false;
        }
        self.id = id;
        if number < self.next {
            self.reordered += 1;
            return false;
        }
        self.lost += number - self.next;
        self.next = number + 1;
        self.next % KEPT == 0
    }
}

/// In bytes: what is resident, and the most that was since it was reset.
fn memory(agent: &Agent) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id().unwrap())).unwrap();
    let field = |key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        1024 * line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Has the kernel forget the most that was resident: proc(5), `clear_refs`.
fn reset_peak(agent: &Agent) {
    fs::write(format!("/proc/{}/clear_refs", agent.id().unwrap()), "5").unwrap();
}

/// Writes these numbers, and waits until they are read.
fn count(pty: &mut Pty, numbers: std::ops::Range<u64>) {
    let mut text = String::new();
    for number in numbers {
        text += &format!("{{\"dev\":\"counter\",\"n\":{number}}}\n");
        if text.len() > 2_000 {
            pty.write_all(text.as_bytes()).unwrap();
            text.clear();
        }
    }
    pty.write_all(text.as_bytes()).unwrap();
    pty.wait_until_read().unwrap();
}

#[test]
fn a_backlog_is_drained_within_four_mebibytes_of_an_idle_agents_memory() {
    let rows = setting("WEIR_ROWS").unwrap_or(100_000) / KEPT * KEPT;
    let mut pty = Pty::open().unwrap();
    let arrived = Arc::new(Mutex::new(Arrived::default()));
    let keep = {
        let arrived = Arc::clone(&arrived);
        move |line: &str| !line.contains("/data/") || arrived.lock().unwrap().see(line)
    };
    let mut site = Site::sifted(
        keep,
        &format!(
            "[sources.line]\ntype = 'serial'\nport = '{}'\ndecode = {{ type = 'json', device = 'dev' }}\n\
             [buffer]\nmax_bytes = '1GiB'\n",
            pty.port().display()
        ),
    );
    let arrival = |site: &Site, what: &str, count: u64| {
        let enough = site.subscriber.wait(what, |_| arrived.lock().unwrap().next >= count);
        enough.unwrap_or_else(|error| panic!("{error}\n{:?}", arrived.lock().unwrap()));
    };

    // Idle is who has done a little of everything, and has nothing to do.
    site.agent.start_until("connected").unwrap();
    count(&mut pty, 0..KEPT);
    arrival(&site, "the first have arrived", KEPT);
    let (idle, _) = memory(&site.agent);

    site.broker.stop().unwrap();
    site.broker.quieten().unwrap();
    let start = Instant::now();
    count(&mut pty, KEPT..rows);
    assert!(site.agent.terminate().unwrap().success());
    println!("backlog: {} rows waiting after {:.1?}", rows - KEPT, start.elapsed());
    site.agent.start_until("no connection").unwrap();
    let (waiting, _) = memory(&site.agent);

    reset_peak(&site.agent);
    site.broker.restart().unwrap();
    let start = Instant::now();
    arrival(&site, "all have arrived", rows);
    let (_, peak) = memory(&site.agent);
    assert!(site.agent.terminate().unwrap().success());
    let Arrived { lost, repeated, reordered, .. } = *arrived.lock().unwrap();
    println!(
        "backlog: {rows} rows drained in {:.1?}, lost {lost}, repeated {repeated}, reordered {reordered}; KiB of memory: \
         idle {}, with a backlog waiting {}, at the most while it was drained {}",
        start.elapsed(),
        idle >> 10,
        waiting >> 10,
        peak >> 10
    );
    assert_eq!((lost, reordered), (0, 0));
    assert!(peak <= idle + MOST, "{peak} bytes at the most, idle {idle}");
}

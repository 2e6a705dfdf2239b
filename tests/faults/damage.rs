//! Buffers that were cut off or overwritten while weir was stopped: it starts, salvages, reports, and goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use serde_json::Value;

use crate::setting;
use crate::support::pty::Pty;
use crate::support::site::{Site, data, gaps};

/// How many of each kind of damage are tried; `WEIR_DAMAGES` asks for more, `WEIR_SEED` for one.
const CASES: u64 = 100;
const PAGE: usize = 4096;
/// No more messages than this lie in a page.
const IN_A_PAGE: usize = 70;
const MESSAGES: u64 = 600;

fn seeds() -> Vec<u64> {
    match setting("WEIR_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("WEIR_DAMAGES").unwrap_or(CASES)).collect(),
    }
}

fn number(message: &Value) -> u64 {
    message["metrics"]["n"]["value"].as_u64().unwrap()
}

/// Leaves a buffer of numbered messages, and has what `damage` makes of it be opened, again and again.
fn assert_goes_on(damage: impl Fn(&mut fastrand::Rng, &mut Vec<u8>) -> usize) {
    let mut pty = Pty::open().unwrap();
    let config = format!(
        "[sources.line]\ntype = 'serial'\nport = '{}'\ndecode = {{ type = 'json' }}\n\
         [buffer]\nspill_after = '1s'\ncommit_every = '1s'\n",
        pty.port().display()
    );
    let mut site = Site::new(&config);
    let file = site.dir().join("gateway/outbox.db");
    site.broker.stop().unwrap();
    site.agent.start_until("no connection").unwrap();
    for n in 0..MESSAGES {
        writeln!(pty, "{{\"n\":{n}}}").unwrap();
    }
    pty.wait_until_read().unwrap();
    assert!(site.agent.terminate().unwrap().success());
    // A stop folds the log in, or leaves that to the next start.
    let log = site.dir().join("gateway/outbox.db-wal");
    if log.exists() {
        site.agent.start_until("no connection").unwrap();
        assert!(site.agent.terminate().unwrap().success());
    }
    assert!(!log.exists(), "{:?}", site.agent.log());
    let whole = fs::read(&file).unwrap();
    site.broker.restart().unwrap();

    for seed in seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = whole.clone();
        let pages = damage(&mut random, &mut bytes);
        fs::write(&file, &bytes).unwrap();
        let before = site.subscriber.messages().len();
        site.agent.start_until("connected").unwrap();
        // It comes after everything that could be salvaged.
        let last = MESSAGES + seed;
        writeln!(pty, "{{\"n\":{last}}}").unwrap();
        let mut told = Vec::new();
        let arrived = site.subscriber.wait("the new message arrives, and losses are told", |messages| {
            let fresh = &messages[before..];
            told = gaps(fresh);
            let data = data(fresh);
            let complete = data.len() as u64 > MESSAGES || told.iter().any(|gap| gap["cause"] == "damaged");
            complete && data.iter().any(|message| number(message) == last)
        });
        let arrived = arrived.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{:?}", site.agent.log()));
        assert!(site.agent.terminate().unwrap().success(), "seed {seed}");

        let mut seen = BTreeSet::new();
        let all = data(&arrived[before..]);
        let first: Vec<u64> =
            all.iter().filter(|message| seen.insert(message["id"].to_string())).map(number).collect();
        let lost = MESSAGES + 1 - first.len() as u64;
        let reordered = first.windows(2).filter(|pair| pair[0] > pair[1]).count();
        let repeated = all.len() - first.len();
        println!(
            "seed {seed}, {pages} pages damaged: lost {lost}, repeated {repeated}, reordered {reordered}"
        );
        assert_eq!(reordered, 0, "seed {seed}");
        assert!(lost <= (pages * IN_A_PAGE) as u64, "seed {seed}: {lost} lost by {pages} pages");
        for entry in fs::read_dir(site.dir().join("gateway")).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("outbox.db.damaged-") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn a_buffer_that_is_cut_off_anywhere_is_salvaged_up_to_the_cut_and_goes_on() {
    assert_goes_on(|random, bytes| {
        let cut = random.usize(..bytes.len());
        let pages = (bytes.len() - cut).div_ceil(PAGE);
        bytes.truncate(cut);
        pages
    });
}

#[test]
fn a_buffer_with_pages_of_noise_loses_what_they_held_and_goes_on() {
    assert_goes_on(|random, bytes| {
        let pages = random.usize(1..5);
        for _ in 0..pages {
            let at = random.usize(..bytes.len() / PAGE) * PAGE;
            random.fill(&mut bytes[at..at + PAGE]);
        }
        pages
    });
}

/// A first outage is delivered, and its rows leave free pages. In a second one weir is stopped, or killed with rows that
/// only the log has; then something writes over the header of the database.
fn assert_header_costs_nothing(kill: bool) {
    let mut pty = Pty::open().unwrap();
    let config = format!(
        "[sources.line]\ntype = 'serial'\nport = '{}'\ndecode = {{ type = 'json' }}\n\
         [buffer]\ndurability = 'always'\n",
        pty.port().display()
    );
    let mut site = Site::new(&config);
    let file = site.dir().join("gateway/outbox.db");
    let write = |pty: &mut Pty, numbers: std::ops::Range<u64>| {
        numbers.for_each(|n| writeln!(pty, "{{\"n\":{n}}}").unwrap());
        pty.wait_until_read().unwrap();
    };
    site.broker.stop().unwrap();
    site.agent.start_until("no connection").unwrap();
    write(&mut pty, 0..2_000);
    site.broker.restart().unwrap();
    let all = |messages: &[Value]| messages.iter().map(number).collect::<BTreeSet<_>>();
    site.data("the first outage is delivered", |data| all(data).len() == 2_000);
    assert!(site.agent.terminate().unwrap().success());
    site.broker.stop().unwrap();
    site.agent.start_until("no connection").unwrap();
    write(&mut pty, 2_000..2_700);
    // What is older than a second or two is committed.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let ended = if kill { site.agent.kill() } else { site.agent.terminate() };
    assert_eq!(ended.unwrap().success(), !kill);
    let mut bytes = fs::read(&file).unwrap();
    fastrand::Rng::with_seed(7).fill(&mut bytes[..512]);
    fs::write(&file, bytes).unwrap();
    site.broker.restart().unwrap();
    site.agent.start_until("connected").unwrap();
    write(&mut pty, 2_700..2_701);
    let data = site.data("what waited arrives", |data| all(data).contains(&2_700));
    let arrived = all(&data);
    let lost: Vec<u64> = (2_000..2_700).filter(|n| !arrived.contains(n)).collect();
    println!("lost {}", lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    assert!(site.agent.terminate().unwrap().success());
}

#[test]
fn a_header_that_is_written_over_after_a_stop_costs_nothing() {
    assert_header_costs_nothing(false);
}

#[test]
fn a_header_that_is_written_over_after_a_kill_costs_nothing_that_was_committed() {
    assert_header_costs_nothing(true);
}

//! Random use, faults and crashes against a model that knows of every message only what became of it.
//!
//! The model does not know how the queue works. It numbers the messages, and holds after every crash and at the end
//! that each is acknowledged, still there, counted in the ledger, or was never committed before a crash; that first
//! deliveries are in order; that no id is given twice; that nothing is lost for its age early; that a look sees what
//! is there, and takes nothing; and that a letter that is sent again is in the queue or a dead letter still.
//!
//! This file has the operations and the cases; [`world`] does and notes them, [`looking`] those of a person, and
//! [`restart`] holds what survives against what is known.
//!
//! `WEIR_CASES` asks for more cases, `WEIR_SEED` for those of a run that has failed: it prints its seed.

mod looking;
mod restart;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::super::WhenFull;
use super::super::queue::Settings;
use super::super::sqlite::Sqlite;
use super::super::store::Store;
use super::platter::Platter;
use super::small;
use world::{AGE, Ground, World};

#[derive(Clone, Debug)]
enum Op {
    Append(u8),
    Take {
        messages: usize,
        bytes: usize,
    },
    /// Bit by bit, which of those that are out.
    Acknowledge(u16),
    AcknowledgeUnknown,
    PutBack(u16),
    PutBackAll,
    GiveUp(u8),
    /// Looks through all that is unacknowledged, so many at a time.
    Look(usize),
    /// Looks through the dead letters, and has those sent again that are chosen bit by bit.
    SendAgain(u16),
    Purge,
    /// Whether little is free on the disk, so that the file must not grow.
    Scarce(bool),
    Gaps,
    AcknowledgeGaps(u8),
    /// Lets time pass, and has all work done that comes due.
    Pass(Duration),
    /// Has one job done, whose answer comes only with the next `Pass` or `Begin`.
    Begin,
    Fail {
        opens: bool,
        reads: bool,
        commits: bool,
    },
    Heal,
    /// Dies between jobs; or in a commit that has not become true yet; or in one that has.
    Crash(Death),
    Close(bool),
}

#[derive(Clone, Copy, Debug)]
enum Death {
    Idle,
    BeforeCommit,
    AfterCommit,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1..6_u8).prop_map(Op::Append),
        6 => (1..8_usize, 0..600_usize).prop_map(|(messages, bytes)| Op::Take { messages, bytes }),
        6 => any::<u16>().prop_map(Op::Acknowledge),
        1 => Just(Op::AcknowledgeUnknown),
        2 => any::<u16>().prop_map(Op::PutBack),
        1 => Just(Op::PutBackAll),
        3 => any::<u8>().prop_map(Op::GiveUp),
        2 => (1..9_usize).prop_map(Op::Look),
        1 => any::<u16>().prop_map(Op::SendAgain),
        1 => Just(Op::Purge),
        1 => any::<bool>().prop_map(Op::Scarce),
        2 => Just(Op::Gaps),
        2 => any::<u8>().prop_map(Op::AcknowledgeGaps),
        6 => (0..20_000_u64).prop_map(|ms| Op::Pass(Duration::from_millis(ms))),
        3 => Just(Op::Begin),
        1 => any::<[bool; 3]>().prop_map(|[opens, reads, commits]| Op::Fail { opens, reads, commits }),
        2 => Just(Op::Heal),
        1 => prop_oneof![Just(Death::Idle), Just(Death::BeforeCommit), Just(Death::AfterCommit)]
            .prop_map(Op::Crash),
        1 => any::<bool>().prop_map(Op::Close),
    ]
}

fn play(ground: &Ground<'_>, settings: Settings, padding: usize, ops: &[Op]) {
    let mut world = World::new(ground, settings, padding);
    for op in ops {
        world.apply(op);
        world.check_ages();
    }
    world.end();
}

/// Runs `cases`, or as many as `WEIR_CASES` says, from a seed that is printed, or that `WEIR_SEED` gives.
fn run_cases(cases: u32, test: impl Fn(&[Op], u64, bool, bool)) {
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = setting("WEIR_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let cases = setting("WEIR_CASES").map_or(cases, |cases| u32::try_from(cases).unwrap());
    println!("{cases} cases: WEIR_SEED={seed} repeats them");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let ops = proptest::collection::vec(op(), 1..120);
    let settings = (ops, 0..6_u64, any::<bool>(), any::<bool>());
    let result = TestRunner::new_with_rng(config, rng).run(&settings, |(ops, spill_after, short, newest)| {
        test(&ops, spill_after, short, newest);
        Ok(())
    });
    if let Err(error) = result {
        panic!("WEIR_SEED={seed} WEIR_CASES={cases} repeats it: {error}");
    }
}

fn limits(settings: Settings, short: bool, newest: bool) -> Settings {
    Settings {
        max_age: if short { AGE } else { settings.max_age },
        when_full: if newest { WhenFull::DropNewest } else { WhenFull::DropOldest },
        ..settings
    }
}

#[test]
fn nothing_is_lost_repeated_or_reordered_but_as_promised() {
    run_cases(2_000, |ops, spill_after, short, newest| {
        let platter = Platter::new(3_000);
        let scarce = |scarce| platter.look().scarce = scarce;
        let ground = Ground { maker: &|| Box::new(platter.clone()), scarce: &scarce };
        play(&ground, limits(small(spill_after, 3), short, newest), 0, ops);
    });
}

#[test]
fn nor_is_it_over_a_real_file() {
    run_cases(64, |ops, spill_after, short, newest| {
        let dir = tempfile::tempdir().unwrap();
        let free = dir.path().join("free");
        let maker = || -> Box<dyn Store> {
            let mut store = Sqlite::new(dir.path(), 440 << 10, 1_000);
            store.floor.free = |dir| std::fs::read_to_string(dir.join("free")).ok()?.parse().ok();
            Box::new(store)
        };
        let scarce = |scarce| std::fs::write(&free, if scarce { "999" } else { "9000000" }).unwrap();
        let limits = limits(
            Settings {
                memory_soft: 20_000,
                memory_hard: 60_000,
                commit_max: 10_000,
                dead_max: 10_000,
                ..small(spill_after, 3)
            },
            short,
            newest,
        );
        play(&Ground { maker: &maker, scarce: &scarce }, limits, 1_500, ops);
    });
}

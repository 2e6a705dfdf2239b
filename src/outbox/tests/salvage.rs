//! Files that something has damaged: what can be read of them is sent, in order and each once, and the rest is told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::{Config, Durability, Opened, Outbox};
use super::{WALL, message, number};
use crate::clock::Clock;
use crate::model::{Cause, Gap, Id, Timestamp};
use crate::units::Size;

const PAGE: usize = 4096;
/// No more of the messages of [`leave`] than this lie in one page.
const IN_A_PAGE: usize = 50;
const MESSAGES: u32 = 1_000;
/// The number of the first message that comes after those.
const LATER: u64 = MESSAGES as u64;

fn open(dir: &Path) -> Opened {
    let config = Config { durability: Durability::Always, max_bytes: Size(8 << 20), ..Config::default() };
    Outbox::open(&config, dir, Clock::injected(Timestamp(WALL), true))
}

/// Leaves a file with messages, some of which go on in overflow pages; after a crash with a log beside it.
async fn leave(dir: &Path, crash: bool) -> Vec<Id> {
    let outbox = open(dir).outbox;
    for start in (0..u64::from(MESSAGES)).step_by(200) {
        let some = (start..start + 200).map(|n| message(n, if n % 97 == 0 { 9_000 } else { 30 }));
        outbox.append(some.collect()).await;
        sleep(Duration::from_secs(2)).await;
    }
    let mut ids = Vec::new();
    while ids.len() < MESSAGES as usize {
        ids.extend(outbox.next(500, 1 << 20).await.iter().map(|outgoing| outgoing.id));
    }
    if !crash {
        outbox.close(None).await;
    }
    drop(outbox);
    // Its writer lets go of the file.
    sleep(Duration::from_secs(1)).await;
    ids
}

/// Everything that waits, until nothing has come for long.
async fn drain(outbox: &Outbox) -> (Vec<(Id, u64)>, Vec<Gap>) {
    let (mut all, mut gaps) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            biased;
            outgoing = outbox.next(50, 64 << 10) => {
                outbox.acknowledge(&outgoing.iter().map(|outgoing| outgoing.id).collect::<Vec<_>>());
                all.extend(outgoing.iter().map(|outgoing| (outgoing.id, number(&outgoing.message))));
            }
            told = timeout(Duration::from_secs(60), outbox.gaps()) => match told {
                Ok(told) => {
                    told.iter().for_each(|gap| outbox.acknowledge_gap(gap.id));
                    gaps.extend(told);
                }
                Err(_) => return (all, gaps),
            }
        }
    }
}

/// Opens what is left in `dir`, and holds what comes out of it against `ids`. Gives how many messages are lost.
async fn assert_salvaged(dir: &Path, ids: &[Id], what: &str) -> usize {
    let outbox = open(dir).outbox;
    outbox.append((LATER..LATER + 5).map(|n| message(n, 20)).collect()).await;
    let (all, gaps) = drain(&outbox).await;
    let mut seen = BTreeSet::new();
    let first: Vec<_> = all.iter().filter(|(id, _)| seen.insert(*id)).collect();
    assert!(first.is_sorted_by_key(|(_, number)| *number), "{what}: out of order");
    let old = &first[..first.len() - 5];
    assert!(
        old.iter().all(|(id, number)| ids.get(usize::try_from(*number).unwrap()) == Some(id)),
        "{what}: under other ids"
    );
    assert_eq!(first[first.len() - 1].1, LATER + 4, "{what}: what came later follows");
    let lost = ids.len() - old.len();
    let told = gaps.iter().any(|gap| gap.cause == Cause::Damaged);
    assert!(told || lost == 0, "{what}: {lost} lost, and only told: {gaps:?}");
    outbox.append(vec![message(LATER + 5, 20)]).await;
    outbox.close(None).await;
    let (rest, _) = drain(&open(dir).outbox).await;
    assert_eq!(rest.len(), 1, "{what}: the new file serves");
    lost
}

#[tokio::test(start_paused = true)]
async fn g8_without_its_first_page_every_message_is_salvaged_and_counted() {
    for crash in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let ids = leave(dir.path(), crash).await;
        let file = dir.path().join("outbox.db");
        let mut bytes = fs::read(&file).unwrap();
        bytes[..PAGE].fill(0);
        fs::write(&file, bytes).unwrap();
        let outbox = open(dir.path()).outbox;
        assert_eq!(outbox.stats().salvaged.load(Ordering::Relaxed), LATER, "after a crash: {crash}");
        assert!(outbox.epoch() > ids[0].epoch, "no id is given twice");
        let (all, gaps) = drain(&outbox).await;
        assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
        let crashes = gaps.iter().filter(|gap| gap.cause == Cause::Crash).count();
        assert_eq!(crashes, usize::from(crash), "the note of the run is salvaged too");
        assert!(gaps.iter().any(|gap| gap.cause == Cause::Damaged && gap.messages.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn g8_what_only_the_log_has_is_salvaged_too_after_it_was_folded_in_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    const MANY: u64 = 20_000;
    for start in (0..MANY).step_by(500) {
        outbox.append((start..start + 500).map(|n| message(n, 30)).collect()).await;
        sleep(Duration::from_secs(2)).await;
    }
    drop(outbox);
    sleep(Duration::from_secs(1)).await;
    let file = dir.path().join("outbox.db");
    let mut bytes = fs::read(&file).unwrap();
    fastrand::Rng::with_seed(1).fill(&mut bytes[..512]);
    fs::write(&file, bytes).unwrap();
    let outbox = open(dir.path()).outbox;
    let (all, _) = drain(&outbox).await;
    assert_eq!(
        all.len() as u64,
        MANY,
        "of which {} were salvaged",
        outbox.stats().salvaged.load(Ordering::Relaxed)
    );
}

#[tokio::test(start_paused = true)]
async fn g7_losses_that_were_not_told_yet_are_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    outbox.append((0..3).map(|n| message(n, 20)).collect()).await;
    let id = outbox.next(1, 1 << 20).await[0].id;
    outbox.give_up(id, Cause::Refused, "no");
    outbox.close(None).await;
    let file = dir.path().join("outbox.db");
    let mut bytes = fs::read(&file).unwrap();
    bytes[..16].fill(0);
    fs::write(&file, bytes).unwrap();
    let opened = open(dir.path()).outbox;
    let (all, gaps) = drain(&opened).await;
    assert_eq!(all.len(), 2);
    let refused: Vec<_> = gaps.iter().filter(|gap| gap.cause == Cause::Refused).collect();
    assert_eq!(
        (refused.len(), refused[0].messages, refused[0].device.as_deref()),
        (1, Some(1), Some("device-0"))
    );
}

#[tokio::test(start_paused = true)]
async fn g7_what_a_salvage_cannot_save_is_told_by_number_after_a_stop_in_order() {
    let pristine = tempfile::tempdir().unwrap();
    let ids = leave(pristine.path(), false).await;
    let whole = fs::read(pristine.path().join("outbox.db")).unwrap();
    let (mut told, mut lossy) = (0, 0);
    for page in (1..whole.len() / PAGE).step_by(5) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0x5A);
        fs::write(dir.path().join("outbox.db"), bytes).unwrap();
        let outbox = open(dir.path()).outbox;
        let (all, gaps) = drain(&outbox).await;
        let all: BTreeSet<_> = all.iter().map(|(id, _)| *id).collect();
        let lost = ids.iter().filter(|id| !all.contains(id)).count() as u64;
        lossy += u64::from(lost > 0);
        // A page that nothing was read from yet is found out when its turn comes, without a salvage.
        for gap in gaps.iter().filter(|gap| gap.cause == Cause::Damaged) {
            if let Some(messages) = gap.messages {
                assert_eq!(messages, lost, "page {page}");
                told += 1;
            }
        }
    }
    assert!(lossy >= 5 && told >= lossy / 2, "{told} of {lossy} are told by number");
}

/// Seeds to try; `WEIR_SEED` names one.
fn seeds() -> Vec<u64> {
    match std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..100).collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_file_cut_off_anywhere_gives_what_stands_before_the_cut() {
    let pristine = tempfile::tempdir().unwrap();
    let ids = leave(pristine.path(), false).await;
    let whole = fs::read(pristine.path().join("outbox.db")).unwrap();
    for seed in seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let cut = random.usize(..whole.len());
        fs::write(dir.path().join("outbox.db"), &whole[..cut]).unwrap();
        let lost = assert_salvaged(dir.path(), &ids, &format!("seed {seed}, cut at {cut}")).await;
        let pages = (whole.len() - cut).div_ceil(PAGE);
        assert!(lost <= pages * IN_A_PAGE, "seed {seed}: {lost} lost by {pages} pages");
    }
}

#[tokio::test(start_paused = true)]
async fn g8_random_pages_of_noise_cost_what_they_held() {
    let mut pristine = Vec::new();
    for crash in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let ids = leave(dir.path(), crash).await;
        pristine.push((dir, ids));
    }
    for seed in seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        // After an orderly stop and after a crash by turns: then a log lies beside the file.
        let (from, ids) = &pristine[usize::from(seed % 2 == 1)];
        let dir = tempfile::tempdir().unwrap();
        let pages = random.usize(1..6);
        for name in ["outbox.db", "outbox.db-wal"] {
            let Ok(mut bytes) = fs::read(from.path().join(name)) else { continue };
            if name == "outbox.db" {
                for _ in 0..pages {
                    let at = random.usize(..bytes.len() / PAGE) * PAGE;
                    random.fill(&mut bytes[at..at + PAGE]);
                }
            }
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let lost = assert_salvaged(dir.path(), ids, &format!("seed {seed}")).await;
        assert!(lost <= pages * IN_A_PAGE, "seed {seed}: {lost} lost by {pages} pages");
    }
}

/// What the first outage left is delivered, and its pages are free; a second outage then begins at the same positions.
#[tokio::test(start_paused = true)]
async fn g1_rows_of_pages_that_were_free_take_no_place_of_those_that_wait_where_the_first_page_is_damaged() {
    for crash in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).outbox;
        first.append((0..1_500).map(|n| message(n, 30)).collect()).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(drain(&first).await.0.len(), 1_500);
        first.close(None).await;
        drop(first);
        sleep(Duration::from_secs(1)).await;
        let second = open(dir.path()).outbox;
        second.append((5_000..5_700).map(|n| message(n, 30)).collect()).await;
        sleep(Duration::from_secs(5)).await;
        if !crash {
            second.close(None).await;
        }
        drop(second);
        sleep(Duration::from_secs(1)).await;
        let file = dir.path().join("outbox.db");
        let mut bytes = fs::read(&file).unwrap();
        fastrand::Rng::with_seed(1).fill(&mut bytes[..512]);
        fs::write(&file, bytes).unwrap();
        let (all, _) = drain(&open(dir.path()).outbox).await;
        let fresh: Vec<_> = all.iter().map(|(_, number)| *number).filter(|number| *number >= 5_000).collect();
        assert_eq!(fresh, (5_000..5_700).collect::<Vec<_>>(), "after a crash: {crash}");
        let repeated = all.iter().filter(|(_, number)| *number < 1_500).count();
        assert_eq!(repeated + fresh.len(), all.len(), "and else only what was sent before, under its old id");
    }
}

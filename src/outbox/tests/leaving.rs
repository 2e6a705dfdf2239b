//! What leaves unsent: for its age, for want of room, by order, or as a dead letter that may come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::dead::LETTERS_MAX;
use super::super::queue::Settings;
use super::super::{Outbox, Outgoing, Place, WhenFull};
use super::platter::{Faults, Faulty, Platter};
use super::{
    A_MOMENT, ALWAYS, WALL, WHEN_OFFLINE, count, ids, message, messages, numbers, open, settings, stored,
};
use crate::clock::Clock;
use crate::model::{Cause, Gap, Id, Timestamp};

const HOUR: Duration = Duration::from_secs(3_600);

fn hour(durability: (u64, u64)) -> Settings {
    Settings { max_age: HOUR, ..settings(durability) }
}

fn open_at(platter: &Platter, settings: Settings, wall: i64, trusted: bool) -> (Outbox, Clock) {
    let clock = Clock::injected(Timestamp(wall), trusted);
    (Outbox::over(Box::new(platter.clone()), settings, clock.clone()).outbox, clock)
}

/// All that is there to be handed out.
async fn taken(outbox: &Outbox) -> Vec<Outgoing> {
    let mut all = Vec::new();
    while let Ok(taken) = timeout(A_MOMENT, outbox.next(usize::MAX, usize::MAX)).await {
        all.extend(taken);
    }
    all
}

/// All losses that are to be told.
async fn gaps(outbox: &Outbox) -> Vec<Gap> {
    let mut all = Vec::new();
    while let Ok(gaps) = timeout(Duration::from_secs(11), outbox.gaps()).await {
        all.extend(gaps);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn g7_what_has_waited_for_max_age_is_lost_by_the_ledger_and_not_what_is_on_its_way() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), hour(ALWAYS)).outbox;
    // Their own times are of 1970: age is waiting.
    outbox.append(messages(0..40)).await;
    let out = outbox.next(3, usize::MAX).await;
    sleep(HOUR / 2).await;
    outbox.append(messages(40..50)).await;
    sleep(HOUR / 2 - Duration::from_secs(5)).await;
    assert_eq!(stored(&platter).len(), 50, "not early");
    sleep(HOUR / 64 + Duration::from_secs(60)).await;
    assert_eq!(stored(&platter), [0, 1, 2].into_iter().chain(40..50).collect::<Vec<_>>());
    assert_eq!(outbox.stats().expired.get(), 37);
    let told = gaps(&outbox).await;
    assert_eq!(count(&told, Cause::Expired), 37);
    outbox.put_back(&ids(&out[..1]));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(numbers(&taken(&outbox).await)[0], 40, "what is put back waits, and has waited too long");
    assert_eq!(count(&gaps(&outbox).await, Cause::Expired), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_memory_only_expires_without_a_disk() {
    let faults = Faults::default();
    faults.now().opens = true;
    let store = Faulty { store: Box::new(Platter::new(1 << 20)), faults };
    let outbox = open(store, hour(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..4)).await;
    sleep(HOUR / 2).await;
    outbox.append(messages(4..6)).await;
    sleep(HOUR / 2 + Duration::from_secs(1)).await;
    assert_eq!(numbers(&taken(&outbox).await), [4, 5]);
    assert_eq!(count(&gaps(&outbox).await, Cause::Expired), 4);
}

#[tokio::test(start_paused = true)]
async fn age_counts_over_a_restart_by_a_trusted_clock_and_never_by_another() {
    let platter = Platter::new(1 << 20);
    let (outbox, _) = open_at(&platter, hour(ALWAYS), WALL, true);
    outbox.append(messages(0..5)).await;
    sleep(Duration::from_secs(2)).await;
    drop(outbox);
    sleep(Duration::from_secs(1)).await;

    // Off for a day, and the clock begins in 2100 without anybody's word for it.
    let (outbox, clock) = open_at(&platter, hour(ALWAYS), WALL * 2, false);
    sleep(HOUR / 2).await;
    assert_eq!(stored(&platter).len(), 5, "never by a clock that nobody trusts");
    drop(outbox);
    drop(clock);
    sleep(Duration::from_secs(1)).await;

    let (outbox, clock) = open_at(&platter, hour(ALWAYS), WALL + 24 * 3_600_000, false);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(stored(&platter).len(), 5);
    clock.trust();
    sleep(Duration::from_secs(70)).await;
    assert!(stored(&platter).is_empty(), "once it is trusted");
    assert_eq!(count(&gaps(&outbox).await, Cause::Expired), 5);
}

#[tokio::test(start_paused = true)]
async fn g4_the_epoch_is_stored_before_anything_expires_that_is_old_at_the_start() {
    let platter = Platter::new(1 << 20);
    let (outbox, _) = open_at(&platter, hour(ALWAYS), WALL, true);
    outbox.append(messages(0..5)).await;
    sleep(Duration::from_secs(2)).await;
    drop(outbox);
    let (outbox, _) = open_at(&platter, hour(ALWAYS), WALL + 24 * 3_600_000, true);
    let stored = platter.look().run.as_ref().map(|run| run.epoch);
    assert_eq!(stored, Some(outbox.epoch()));
}

#[tokio::test(start_paused = true)]
async fn g6_a_full_buffer_that_drops_the_newest_keeps_what_it_had() {
    let row = message(0, 20).to_bytes().len() as u64 + 40;
    let platter = Platter::new(10 * row + row / 2);
    let settings = Settings { when_full: WhenFull::DropNewest, ..settings(ALWAYS) };
    let outbox = open(platter.clone(), settings).outbox;
    for start in [0, 6, 12] {
        outbox.append(messages(start..start + 6)).await;
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(stored(&platter), (0..10).collect::<Vec<_>>());
    let told = gaps(&outbox).await;
    assert_eq!((count(&told, Cause::Full), outbox.stats().full.get()), (8, 8));
    let out = outbox.next(4, usize::MAX).await;
    outbox.acknowledge(&ids(&out));
    outbox.append(messages(18..20)).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(numbers(&taken(&outbox).await), [4, 5, 6, 7, 8, 9, 18, 19], "it takes on when there is room");
}

#[tokio::test(start_paused = true)]
async fn g6_memory_that_is_full_drops_the_newest_where_it_is_told_to() {
    let faults = Faults::default();
    let store = Faulty { store: Box::new(Platter::new(1 << 20)), faults: faults.clone() };
    let limits = Settings { memory_soft: 1_000, memory_hard: 2_000, ..settings(ALWAYS) };
    let outbox = open(store, Settings { when_full: WhenFull::DropNewest, ..limits }).outbox;
    faults.now().commits = true;
    outbox.append(messages(0..5)).await;
    sleep(Duration::from_secs(3)).await;
    outbox.append(messages(5..100)).await;
    let out = taken(&outbox).await;
    assert_eq!(numbers(&out), (0..out.len() as u64).collect::<Vec<_>>());
    assert_eq!(out.len() as u64 + count(&gaps(&outbox).await, Cause::Full), 100);
}

#[tokio::test(start_paused = true)]
async fn g6_while_little_is_free_on_the_disk_the_file_does_not_grow_and_makes_room_inside() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages(0..10)).await;
    sleep(Duration::from_secs(2)).await;
    let most = platter.look().most;
    platter.look().scarce = true;
    for start in [10, 14, 18] {
        outbox.append(messages(start..start + 4)).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(platter.look().most, most);
    assert!(outbox.stats().below_min_free.load(Ordering::Relaxed));
    assert!(outbox.stats().disk_ok.load(Ordering::Relaxed), "it is in use all the same");
    let left = stored(&platter);
    assert_eq!(left.last(), Some(&21), "the newest are kept");
    assert_eq!(left.len() as u64 + count(&gaps(&outbox).await, Cause::Evicted), 22);
    platter.look().scarce = false;
    outbox.append(messages(22..40)).await;
    sleep(Duration::from_secs(5)).await;
    assert!(!outbox.stats().below_min_free.load(Ordering::Relaxed));
    assert_eq!(stored(&platter).len(), left.len() + 18);
}

#[tokio::test(start_paused = true)]
async fn g8_the_stats_say_why_the_disk_is_not_in_use() {
    let faults = Faults::default();
    let store = Faulty { store: Box::new(Platter::new(1 << 20)), faults: faults.clone() };
    let outbox = open(store, settings(ALWAYS)).outbox;
    assert_eq!(outbox.stats().disk_trouble(), None);
    faults.now().commits = true;
    outbox.append(messages(0..5)).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(outbox.stats().disk_trouble().as_deref(), Some("the test says no"));
    faults.now().commits = false;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(outbox.stats().disk_trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn g9_what_is_given_up_is_a_dead_letter_from_the_commit_on_that_enters_its_loss() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages(0..4)).await;
    sleep(Duration::from_secs(2)).await;
    let out = outbox.next(4, usize::MAX).await;
    outbox.give_up(out[1].id, Cause::Refused, "topic name invalid");
    let waiting = outbox.dead_letters(None, 10).await;
    sleep(Duration::from_secs(2)).await;
    let commits = platter.look().commits.clone();
    let with = commits.iter().find(|commit| !commit.dead.is_empty()).unwrap();
    assert!(!with.losses.is_empty() && !with.keep.contains(&1), "in one commit");
    let kept = outbox.dead_letters(None, 10).await;
    assert_eq!(kept, waiting, "in memory as on the disk");
    assert_eq!((kept.len(), kept[0].id, &kept[0].message), (1, out[1].id, &out[1].message));
    assert_eq!((kept[0].cause, &*kept[0].reason), (Cause::Refused, "topic name invalid"));
    assert_eq!(kept[0].at, Timestamp(WALL + 2_000), "when it was given up");
    drop(outbox);
    let outbox = open(platter, settings(ALWAYS)).outbox;
    assert_eq!(outbox.dead_letters(None, 10).await, kept, "over a crash");
    assert_eq!(numbers(&taken(&outbox).await), [0, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn g6_of_too_many_dead_letters_the_oldest_make_way_and_those_after_an_id_are_listed() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages(0..10)).await;
    let out = taken(&outbox).await;
    // A reason has its bound, too.
    let reason = "é".repeat(1_000);
    for outgoing in &out {
        outbox.give_up(outgoing.id, Cause::Poison, &reason);
        sleep(Duration::from_secs(2)).await;
    }
    let kept = outbox.dead_letters(None, 100).await;
    let left: Vec<Id> = kept.iter().map(|letter| letter.id).collect();
    assert_eq!(left, ids(&out[10 - LETTERS_MAX..]));
    assert_eq!(platter.look().dead.len(), LETTERS_MAX);
    assert!(kept.iter().all(|letter| letter.reason.len() <= 256));
    assert_eq!(outbox.stats().dead_letters.load(Ordering::Relaxed), LETTERS_MAX as u64);
    assert_eq!(outbox.stats().dead_letters_dropped.get(), 10 - LETTERS_MAX as u64);
    assert_eq!(outbox.dead_letters(Some(left[0]), 2).await, kept[1..3]);
    assert_eq!(outbox.dead_letters(left.last().copied(), 2).await, []);
    assert_eq!(count(&gaps(&outbox).await, Cause::Poison), 10, "the ledger has them all");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_sent_again_stands_at_the_end_under_its_old_id_and_lasts() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..4)).await;
    let out = outbox.next(3, usize::MAX).await;
    outbox.give_up(out[0].id, Cause::Refused, "no");
    sleep(Duration::from_secs(20)).await;
    outbox.give_up(out[2].id, Cause::Refused, "no");
    let unknown = Id { epoch: 7, sequence: 7 };
    assert_eq!(outbox.send_again(&[out[0].id, unknown, out[2].id, out[0].id]).await, 2);
    assert_eq!(stored(&platter), [1, 3, 0, 2], "on the disk when it comes back");
    assert!(platter.look().dead.is_empty() && outbox.dead_letters(None, 9).await.is_empty());
    assert_eq!(outbox.send_again(&ids(&out)).await, 0);
    drop(outbox);
    let outbox = open(platter, settings(WHEN_OFFLINE)).outbox;
    let again = taken(&outbox).await;
    assert_eq!(numbers(&again), [1, 3, 0, 2]);
    assert_eq!(again[2].id, out[0].id);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_wait_in_memory_for_a_disk_that_is_not_there_and_can_be_sent_again_meanwhile() {
    let (platter, faults) = (Platter::new(1 << 20), Faults::default());
    faults.now().opens = true;
    let store = Faulty { store: Box::new(platter.clone()), faults: faults.clone() };
    let outbox = open(store, settings(ALWAYS)).outbox;
    outbox.append(messages(0..3)).await;
    let out = taken(&outbox).await;
    outbox.give_up(out[0].id, Cause::Refused, "no");
    outbox.give_up(out[1].id, Cause::Refused, "no");
    assert_eq!(outbox.dead_letters(None, 9).await.len(), 2);
    assert_eq!(outbox.send_again(&[out[0].id]).await, 1);
    assert_eq!(numbers(&taken(&outbox).await), [0]);
    faults.now().opens = false;
    sleep(Duration::from_secs(121)).await;
    assert_eq!(platter.look().dead.len(), 1);
    assert_eq!(outbox.dead_letters(None, 9).await[0].id, out[1].id);
}

#[tokio::test(start_paused = true)]
async fn g7_a_loss_is_told_once_whatever_becomes_of_the_dead_letter() {
    let platter = Platter::new(1 << 20);
    let mut outbox = open(platter.clone(), hour(ALWAYS)).outbox;
    outbox.append(messages(0..3)).await;
    let out = taken(&outbox).await;
    for outgoing in &out {
        assert_eq!(outbox.give_up(outgoing.id, Cause::Refused, "no"), Some(true));
        assert_eq!(outbox.give_up(outgoing.id, Cause::Refused, "no"), None);
    }
    let told = gaps(&outbox).await;
    assert_eq!(count(&told, Cause::Refused), 3);
    told.iter().for_each(|gap| outbox.acknowledge_gap(gap.id));
    for restart in [false, true] {
        // Refused again; waiting for too long; purged.
        assert_eq!(outbox.send_again(&ids(&out)).await, 3);
        if restart {
            drop(outbox);
            sleep(Duration::from_secs(1)).await;
            outbox = open(platter.clone(), hour(ALWAYS)).outbox;
        }
        let again = taken(&outbox).await;
        assert_eq!(numbers(&again), [0, 1, 2]);
        for outgoing in &again {
            assert_eq!(outbox.give_up(outgoing.id, Cause::Poison, "no"), Some(false));
        }
        let losses = gaps(&outbox).await;
        assert!(losses.iter().all(|gap| gap.cause == Cause::Crash), "{losses:?}");
        assert_eq!(outbox.dead_letters(None, 9).await.len(), 3, "and it is a dead letter again");
    }
    assert_eq!(outbox.send_again(&ids(&out[..1])).await, 1);
    assert_eq!(outbox.purge().await, 1);
    assert_eq!(outbox.send_again(&ids(&out[1..2])).await, 1);
    sleep(HOUR + HOUR / 32).await;
    let stats = outbox.stats();
    assert_eq!((stats.expired.get(), stats.purged.get(), stats.lost_again.get()), (0, 0, 2), "no new losses");
    let losses = gaps(&outbox).await;
    assert!(losses.iter().all(|gap| gap.cause == Cause::Crash), "{losses:?}");
}

#[tokio::test(start_paused = true)]
async fn letters_that_come_back_at_once_are_sent_again_once_for_each_question_and_counted() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..3)).await;
    let out = taken(&outbox).await;
    for outgoing in &out {
        outbox.give_up(outgoing.id, Cause::Refused, "no");
    }
    sleep(Duration::from_secs(20)).await;
    let (other, sent) = (outbox.clone(), Arc::<AtomicU64>::default());
    let counted = sent.clone();
    // A broker that refuses what comes, before the disk has it in the queue.
    tokio::spawn(async move {
        loop {
            for outgoing in other.next(1, usize::MAX).await {
                counted.fetch_add(1, Ordering::Relaxed);
                other.give_up(outgoing.id, Cause::Refused, "no");
            }
        }
    });
    for times in 1..=3 {
        let letters = outbox.dead_letter_ids();
        assert_eq!(letters, ids(&out));
        let twice = [&letters[..], &letters[..]].concat();
        assert_eq!(outbox.send_again(&twice).await, 3);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(sent.load(Ordering::Relaxed), 3 * times);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_can_be_forgotten_for_good() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..3)).await;
    let out = taken(&outbox).await;
    for outgoing in &out {
        outbox.give_up(outgoing.id, Cause::Refused, "no");
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(platter.look().dead.len(), 3);
    let unknown = Id { epoch: 7, sequence: 7 };
    assert_eq!(outbox.forget_dead_letters(&[out[0].id, unknown, out[2].id, out[0].id]).await, 2);
    assert_eq!(platter.look().dead.len(), 1, "the disk has forgotten them when it comes back");
    let kept = outbox.dead_letters(None, 9).await;
    assert_eq!((kept.len(), kept[0].id), (1, out[1].id));
    assert_eq!(outbox.send_again(&ids(&out)).await, 1);
    assert_eq!(count(&gaps(&outbox).await, Cause::Refused), 3, "their loss is told as it was");
}

#[tokio::test(start_paused = true)]
async fn how_long_the_oldest_has_waited_is_known_wherever_it_waits_and_over_a_restart() {
    let platter = Platter::new(1 << 20);
    let minutes = |outbox: &Outbox| outbox.oldest().map(|age| age.as_secs() / 60);
    let (outbox, _) = open_at(&platter, hour(WHEN_OFFLINE), WALL, true);
    assert_eq!(minutes(&outbox), None);
    outbox.append(messages(0..2)).await;
    sleep(Duration::from_secs(600)).await;
    outbox.append(messages(2..4)).await;
    sleep(Duration::from_secs(70)).await;
    // A mark on the disk speaks for up to a sixty-fourth of `max_age`.
    assert_eq!(minutes(&outbox), Some(10), "on the disk");
    outbox.acknowledge(&ids(&outbox.next(1, usize::MAX).await));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(minutes(&outbox), Some(11));
    outbox.close(None).await;
    drop(outbox);
    let (outbox, _) = open_at(&platter, hour(WHEN_OFFLINE), WALL + 1_800_000, true);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(minutes(&outbox), Some(29));
    outbox.acknowledge(&ids(&taken(&outbox).await));
    assert_eq!(minutes(&outbox), None);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_a_full_buffer_does_not_take_back_is_a_dead_letter_still() {
    let row = message(0, 20).to_bytes().len() as u64 + 40;
    let platter = Platter::new(3 * row + row / 2);
    let settings = Settings { when_full: WhenFull::DropNewest, ..settings(ALWAYS) };
    let outbox = open(platter.clone(), settings).outbox;
    outbox.append(messages(0..1)).await;
    let out = taken(&outbox).await;
    outbox.give_up(out[0].id, Cause::Refused, "no");
    outbox.append(messages(1..4)).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(outbox.send_again(&ids(&out)).await, 0);
    let kept = outbox.dead_letters(None, 9).await;
    assert_eq!((kept.len(), kept[0].id), (1, out[0].id));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stored(&platter), [1, 2, 3]);
    assert_eq!(platter.look().dead.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_purge_loses_what_waits_by_the_ledger_and_spares_what_is_on_its_way() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages(0..50)).await;
    sleep(Duration::from_secs(2)).await;
    let out = outbox.next(4, usize::MAX).await;
    outbox.put_back(&ids(&out[..1]));
    outbox.append(messages(50..60)).await;
    assert_eq!(outbox.purge().await, 57);
    assert_eq!(stored(&platter), [1, 2, 3], "it comes back when the disk has deleted them");
    let counted: u64 = platter.look().losses.values().filter_map(|record| record.loss.messages).sum();
    assert_eq!(counted, 57, "and the ledger has them");
    assert!(taken(&outbox).await.is_empty());
    assert_eq!(count(&gaps(&outbox).await, Cause::Purged), 57);
    outbox.append(messages(60..62)).await;
    assert_eq!(numbers(&taken(&outbox).await), [60, 61]);
    assert_eq!(outbox.purge().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_disk_that_takes_no_writes_comes_back_and_is_done_when_it_does() {
    let (platter, faults) = (Platter::new(1 << 20), Faults::default());
    let store = Faulty { store: Box::new(platter.clone()), faults: faults.clone() };
    let outbox = open(store, settings(ALWAYS)).outbox;
    outbox.append(messages(0..30)).await;
    sleep(Duration::from_secs(2)).await;
    faults.now().commits = true;
    outbox.append(messages(30..32)).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(outbox.purge().await, 2, "what memory had");
    assert!(taken(&outbox).await.is_empty(), "and nothing else is handed out");
    faults.now().commits = false;
    sleep(Duration::from_secs(120)).await;
    assert!(stored(&platter).is_empty());
    assert_eq!(count(&gaps(&outbox).await, Cause::Purged), 32);
}

#[tokio::test(start_paused = true)]
async fn a_look_sees_everything_in_order_wherever_it_waits_and_takes_nothing() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages(0..40)).await;
    sleep(Duration::from_secs(2)).await;
    let out = outbox.next(3, usize::MAX).await;
    outbox.acknowledge(&ids(&out[1..2]));
    outbox.append(messages(40..45)).await;
    let expected: Vec<u64> = [0, 2].into_iter().chain(3..45).collect();
    for limit in [1, 3, 7, 1_000] {
        let (mut seen, mut place) = (Vec::new(), Place::default());
        loop {
            let page = outbox.page(place, limit).await;
            assert!(page.messages.len() <= limit);
            seen.extend(numbers(&page.messages));
            let Some(next) = page.next else { break };
            place = Place::from_i64(next.to_i64());
        }
        assert_eq!(seen, expected, "{limit} at a time");
    }
    assert_eq!(numbers(&taken(&outbox).await), (3..45).collect::<Vec<_>>());
    outbox.close(None).await;
    assert_eq!(outbox.page(Place::default(), 9).await.messages, [], "a closed one has nothing to show");
    assert_eq!((outbox.purge().await, outbox.send_again(&ids(&out)).await), (0, 0));
}

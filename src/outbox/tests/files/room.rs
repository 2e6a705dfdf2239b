//! How much the file takes: within `max_bytes`, and with `min_free` left on the disk.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::super::{WALL, count, gaps, message, number, numbers};
use super::{bytes_in, drain, messages, open};
use crate::clock::Clock;
use crate::model::{Cause, Timestamp};
use crate::outbox::sqlite::Sqlite;
use crate::outbox::{CommitEvery, Config, Durability, Outbox};
use crate::units::Size;

#[tokio::test(start_paused = true)]
async fn g6_file_and_log_stay_within_max_bytes_and_every_eviction_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    let mut largest = 0;
    // Sizes that fit pages well, badly and not at all.
    for (round, padding) in [50, 150, 2_100, 3_000, 4_200, 20_000].into_iter().cycle().take(120).enumerate() {
        let start = round as u64 * 50;
        outbox.append(messages(start..start + 50, padding)).await;
        sleep(Duration::from_secs(2)).await;
        largest = largest.max(bytes_in(dir.path()));
    }
    assert!(largest <= 4 << 20, "{largest}");
    assert!(largest > 2 << 20, "most of it is used: {largest}");
    let mut lost = 0;
    let gaps = gaps(&outbox).await;
    assert!(!gaps.is_empty());
    lost += gaps.iter().filter_map(|gap| gap.messages).sum::<u64>();
    let left = numbers(&drain(&outbox).await);
    assert_eq!(lost + left.len() as u64, 6_000);
    assert_eq!(left, (6_000 - left.len() as u64..6_000).collect::<Vec<_>>(), "the newest are left");
}

#[tokio::test(start_paused = true)]
async fn g6_a_message_that_can_never_fit_is_lost_alone_and_the_largest_that_can_is_stored_in_the_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    outbox.append(messages(0..2_000, 20)).await;
    sleep(Duration::from_secs(2)).await;
    outbox.append(vec![message(2_000, 2_400_000), message(2_001, (512 << 10) + 1)]).await;
    outbox.append(messages(2_002..2_010, 20)).await;
    sleep(Duration::from_secs(60)).await;
    for number in 2_010..2_030 {
        outbox.append(vec![message(number, (512 << 10) - 200)]).await;
        sleep(Duration::from_secs(2)).await;
        assert!(bytes_in(dir.path()) <= 4 << 20, "{}", bytes_in(dir.path()));
        assert!(outbox.stats().disk_ok.load(Ordering::Relaxed));
        if number == 2_010 {
            assert_eq!(outbox.stats().evicted.load(Ordering::Relaxed), 0, "nothing made room in vain");
            assert_eq!(outbox.stats().on_disk.load(Ordering::Relaxed), 2_009);
        }
    }
    let told = gaps(&outbox).await;
    assert_eq!(count(&told, Cause::TooLarge), 2);
    let left = numbers(&drain(&outbox).await);
    assert_eq!(left.last(), Some(&2_029));
    assert_eq!(left.len() as u64 + count(&told, Cause::Evicted) + 2, 2_030);
}

/// What is free in a directory on a disk of the size that the file `disk` there says.
fn free(dir: &Path) -> Option<u64> {
    let length = |name| fs::metadata(dir.join(name)).map_or(0, |found| found.len());
    let size: u64 = fs::read_to_string(dir.join("disk")).ok()?.parse().ok()?;
    size.checked_sub(length("outbox.db") + length("outbox.db-wal"))
}

#[tokio::test(start_paused = true)]
async fn g6_the_file_and_its_log_leave_min_free_on_the_disk() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { durability: Durability::Always, max_bytes: Size(16 << 20), ..Config::default() };
    let disk = |size: u64| fs::write(dir.path().join("disk"), size.to_string()).unwrap();
    // The log's part is 4 MiB of the 16.
    disk(8 * MIB);
    let mut store = Sqlite::new(dir.path(), 16 * MIB, MIB);
    store.floor.free = free;
    let clock = Clock::injected(Timestamp(WALL), true);
    let outbox = Outbox::over(Box::new(store), config.settings(), clock).outbox;
    let least = std::cell::Cell::new(u64::MAX);
    let append = async |start: u64, count: u64| {
        outbox.append(messages(start..start + count, 200)).await;
        sleep(Duration::from_secs(10)).await;
        least.set(least.get().min(free(dir.path()).unwrap_or(0)));
    };
    append(0, 4_000).await;
    assert!(!outbox.stats().below_min_free.load(Ordering::Relaxed), "there is room yet");
    for round in 0..80 {
        append(4_000 + round * 100, 100).await;
    }
    assert!(outbox.stats().below_min_free.load(Ordering::Relaxed));
    assert!(outbox.stats().disk_ok.load(Ordering::Relaxed), "{:?}", outbox.stats().disk_trouble());
    assert!(least.get() >= MIB, "{} bytes were left", least.get());
    let used = outbox.stats().disk_bytes.load(Ordering::Relaxed);
    assert!(used >= 2 * MIB, "it uses what it may: {used}");
    let evicted: u64 = gaps(&outbox).await.iter().filter_map(|gap| gap.messages).sum();
    disk(20 * MIB);
    append(12_000, 4_000).await;
    assert!(!outbox.stats().below_min_free.load(Ordering::Relaxed));
    assert!(outbox.stats().disk_bytes.load(Ordering::Relaxed) > used * 5 / 4, "it grows again");
    let evicted = evicted + gaps(&outbox).await.iter().filter_map(|gap| gap.messages).sum::<u64>();
    let left = drain(&outbox).await;
    assert_eq!(left.len() as u64 + evicted, 16_000);
}

#[test]
fn somewhat_more_must_be_free_before_it_is_enough_again() {
    let mut floor = Sqlite::new(Path::new("/no"), 16 << 20, 1_000).floor;
    let mut scarce = |free, growth| {
        floor.free = free;
        floor.look(growth);
        floor.scarce
    };
    assert!(!scarce(|_| Some(1_000), 0));
    assert!(scarce(|_| Some(1_000), 1), "what is to come takes its part");
    assert!(scarce(|_| Some(1_061), 0) && scarce(|_| Some(2_061), 1_000));
    assert!(!scarce(|_| Some(1_062), 0));
    assert!(!scarce(|_| None, 0), "where nobody can tell, there is enough");
}

#[tokio::test(start_paused = true)]
async fn g6_a_full_file_has_room_for_dead_letters_and_keeps_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    // Fills the file twice.
    for round in 0..120 {
        outbox.append(messages(round * 10..round * 10 + 10, 5_000)).await;
        sleep(Duration::from_secs(2)).await;
    }
    assert!(outbox.stats().evicted.load(Ordering::Relaxed) > 0);
    outbox.append(messages(2_000..2_010, 3_000)).await;
    let mut given_up = Vec::new();
    while given_up.last() != Some(&2_004) {
        for outgoing in outbox.next(100, 1 << 20).await {
            match number(&outgoing.message) {
                number @ 2_000..2_005 => {
                    outbox.give_up(outgoing.id, Cause::Refused, "no");
                    given_up.push(number);
                }
                1_000.. => {}
                _ => outbox.acknowledge(&[outgoing.id]),
            }
        }
    }
    for round in 300..360 {
        outbox.append(messages(round * 10..round * 10 + 10, 5_000)).await;
        sleep(Duration::from_secs(2)).await;
        assert!(bytes_in(dir.path()) <= 4 << 20);
    }
    assert_eq!(outbox.stats().dead_letters_dropped.get(), 0);
    let kept = outbox.dead_letters(None, 100).await;
    assert_eq!(kept.iter().map(|letter| number(&letter.message)).collect::<Vec<_>>(), given_up);
    outbox.close(None).await;
    assert_eq!(open(dir.path()).outbox.dead_letters(None, 100).await, kept);
}

#[test]
fn a_buffer_that_is_too_small_is_refused_with_the_least_size() {
    let config = Config {
        max_bytes: Size(1 << 20),
        commit_every: Some(CommitEvery(Duration::ZERO)),
        ..Config::default()
    };
    assert_eq!(config.problems(), [("max_bytes", "`max_bytes` must be at least 4MiB".to_owned())]);
    let config = Config { max_age: Duration::ZERO, ..Config::default() };
    assert_eq!(config.problems(), [("max_age", "`max_age` must be at least 1s".to_owned())]);
    assert!(Config::default().problems().is_empty());
}

//! Over real files: what SQLite and the file system add to the promises. [`room`] is how much they take, and [`damaged`]
//! what becomes of those that are not as they were left.

mod damaged;
mod room;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::{sleep, timeout};

use super::super::{Config, Durability, Opened, Outbox, Outgoing};
use super::{WALL, gaps, message, numbers};
use crate::clock::Clock;
use crate::model::{Cause, Id, Message, Timestamp};
use crate::units::Size;

fn open(dir: &Path) -> Opened {
    let config = Config { durability: Durability::Always, max_bytes: Size(4 << 20), ..Config::default() };
    Outbox::open(&config, dir, Clock::injected(Timestamp(WALL), true))
}

fn messages(numbers: std::ops::Range<u64>, padding: usize) -> Vec<Message> {
    numbers.map(|number| message(number, padding)).collect()
}

/// Everything that waits, acknowledged as it comes.
async fn drain(outbox: &Outbox) -> Vec<Outgoing> {
    let mut all = Vec::new();
    while let Ok(outgoing) = timeout(Duration::from_millis(1), outbox.next(100, 1 << 20)).await {
        outbox.acknowledge(&outgoing.iter().map(|outgoing| outgoing.id).collect::<Vec<Id>>());
        all.extend(outgoing);
    }
    all
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bytes_in(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Leaves a file with messages 0 to 9 in it.
async fn leave_ten(dir: &Path) {
    let outbox = open(dir).outbox;
    outbox.append(messages(0..10, 20)).await;
    outbox.close(None).await;
    assert_eq!(names(dir), ["outbox.db"], "a closed outbox is one file");
}

#[test]
fn the_sqlite_that_is_built_in_has_the_fix_of_the_log_that_could_corrupt_the_file() {
    // Fixed in 3.51.3: a log that was begun anew while another connection folded it in.
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[tokio::test(start_paused = true)]
async fn only_the_owner_may_read_the_file_and_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let _outbox = open(dir.path()).outbox;
    assert_eq!(names(dir.path()), ["outbox.db", "outbox.db-wal"], "and the index of the log is in memory");
    for name in names(dir.path()) {
        let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_backlog_of_thousands_comes_out_in_order_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    for start in (0..5_000).step_by(500) {
        outbox.append(messages(start..start + 500, 20)).await;
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(2)).await;
    drop(outbox);
    sleep(Duration::from_millis(1)).await;
    let outbox = open(dir.path()).outbox;
    assert_eq!(numbers(&drain(&outbox).await), (0..5_000).collect::<Vec<_>>());
    assert_eq!(gaps(&outbox).await[0].cause, Cause::Crash);
    outbox.close(None).await;
    assert!(bytes_in(dir.path()) < 1 << 20, "an empty outbox gives its room back: {}", bytes_in(dir.path()));
}

#[tokio::test(start_paused = true)]
async fn g8_a_file_of_a_newer_format_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    leave_ten(dir.path()).await;
    let file = dir.path().join("outbox.db");
    Connection::open(&file).unwrap().execute_batch("PRAGMA user_version = 3").unwrap();
    let before = fs::read(&file).unwrap();
    let outbox = open(dir.path()).outbox;
    outbox.append(messages(10..12, 20)).await;
    assert_eq!(numbers(&drain(&outbox).await), [10, 11], "it runs in memory");
    outbox.append(messages(12..13, 20)).await;
    sleep(Duration::from_secs(300)).await;
    outbox.close(Some(b"windows".to_vec())).await;
    assert!(fs::read(&file).unwrap() == before);
}

#[tokio::test(start_paused = true)]
async fn g8_a_first_start_that_crashed_leaves_nothing_that_counts_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("outbox.db.new"), "SQLite").unwrap();
    let outbox = open(dir.path()).outbox;
    assert_eq!(names(dir.path()), ["outbox.db", "outbox.db-wal"]);
    assert!(gaps(&outbox).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn g8_what_is_no_regular_file_is_left_where_it_is_and_does_not_hold_up_the_start() {
    let make_pipe = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let make_directory = |path: &Path| fs::create_dir(path).unwrap();
    let make_link = |path: &Path| std::os::unix::fs::symlink("not-there", path).unwrap();
    let makers: [&dyn Fn(&Path); 3] = [&make_pipe, &make_directory, &make_link];
    for make in makers {
        let dir = tempfile::tempdir().unwrap();
        make(&dir.path().join("outbox.db"));
        let outbox = open(dir.path()).outbox;
        outbox.append(messages(0..2, 20)).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(numbers(&drain(&outbox).await), [0, 1], "it runs in memory");
        assert!(!outbox.stats().disk_ok.load(Ordering::Relaxed));
        assert_eq!(names(dir.path()), ["outbox.db"]);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_directory_that_comes_late_is_used_and_what_it_holds_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (there, hidden) = (dir.path().join("state"), dir.path().join("hidden"));
    leave_ten(&hidden).await;
    fs::write(&there, "in the way").unwrap();
    let outbox = open(&there).outbox;
    outbox.append(messages(10..13, 20)).await;
    let out = outbox.next(1, 0).await;
    assert_eq!(numbers(&out), [10]);
    fs::remove_file(&there).unwrap();
    fs::rename(&hidden, &there).unwrap();
    sleep(Duration::from_secs(120)).await;
    outbox.put_back_all();
    assert_eq!(numbers(&drain(&outbox).await), [10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]);
    outbox.close(None).await;
    assert!(numbers(&drain(&open(&there).outbox).await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn g8_a_file_that_another_weir_has_open_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).outbox;
    first.append(messages(0..3, 20)).await;
    let second = open(dir.path()).outbox;
    second.append(messages(3..6, 20)).await;
    assert_eq!(numbers(&drain(&second).await), [3, 4, 5]);
    first.close(None).await;
    drop(second);
    assert_eq!(numbers(&drain(&open(dir.path()).outbox).await), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_the_format_before_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    leave_ten(dir.path()).await;
    let old = "DROP TABLE dead; DROP TABLE marks; PRAGMA user_version = 1";
    Connection::open(dir.path().join("outbox.db")).unwrap().execute_batch(old).unwrap();
    let outbox = open(dir.path()).outbox;
    let first = outbox.next(2, 1 << 20).await;
    outbox.give_up(first[0].id, Cause::Refused, "no");
    assert_eq!(gaps(&outbox).await.len(), 1);
    outbox.close(None).await;
    assert_eq!(names(dir.path()), ["outbox.db"]);
    let outbox = open(dir.path()).outbox;
    assert_eq!(numbers(&drain(&outbox).await), (1..10).collect::<Vec<_>>());
    assert_eq!(outbox.dead_letters(None, 9).await[0].id, first[0].id);
}

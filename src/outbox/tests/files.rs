//! Over real files: what SQLite and the file system add to the promises.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::{sleep, timeout};

use super::super::sqlite::Sqlite;
use super::super::{CommitEvery, Config, Durability, Opened, Outbox, Outgoing};
use super::{message, number};
use crate::clock::Clock;
use crate::model::{Cause, Gap, Id, Message, Timestamp};
use crate::units::Size;

const WALL: i64 = 1_700_000_000_000;

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

async fn gaps(outbox: &Outbox) -> Vec<Gap> {
    timeout(Duration::from_secs(11), outbox.gaps()).await.unwrap_or_default()
}

fn numbers(outgoing: &[Outgoing]) -> Vec<u64> {
    outgoing.iter().map(|outgoing| number(&outgoing.message)).collect()
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
    let count =
        |cause| -> u64 { told.iter().filter(|gap| gap.cause == cause).filter_map(|gap| gap.messages).sum() };
    assert_eq!(count(Cause::TooLarge), 2);
    let left = numbers(&drain(&outbox).await);
    assert_eq!(left.last(), Some(&2_029));
    assert_eq!(left.len() as u64 + count(Cause::Evicted) + 2, 2_030);
}

#[tokio::test(start_paused = true)]
async fn g8_a_file_that_is_no_database_is_set_aside_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("outbox.db");
    fs::write(&file, [0x5a; 10_000]).unwrap();
    let outbox = open(dir.path()).outbox;
    let aside = format!("outbox.db.damaged-{WALL}");
    assert_eq!(names(dir.path()), ["outbox.db", "outbox.db-wal", aside.as_str()]);
    assert_eq!(fs::read(dir.path().join(aside)).unwrap(), [0x5a; 10_000]);
    outbox.append(messages(0..3, 20)).await;
    let gaps = gaps(&outbox).await;
    assert_eq!((gaps.len(), gaps[0].cause, gaps[0].messages), (1, Cause::Damaged, None));
    assert_eq!(numbers(&drain(&outbox).await), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn g8_a_file_that_turns_out_damaged_while_it_runs_is_replaced_and_what_memory_has_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    outbox.append(messages(0..400, 900)).await;
    outbox.close(None).await;
    // The pages of the messages, but not the first ones, which opening reads.
    let file = dir.path().join("outbox.db");
    let mut bytes = fs::read(&file).unwrap();
    let len = bytes.len();
    bytes[len / 3..len / 2].fill(0xff);
    fs::write(&file, bytes).unwrap();

    let outbox = open(dir.path()).outbox;
    outbox.append(messages(400..403, 20)).await;
    let mut out = numbers(&drain(&outbox).await);
    assert!(out.starts_with(&[0, 1, 2]) && out.ends_with(&[400, 401, 402]), "{out:?}");
    let mut seen = std::collections::BTreeSet::new();
    out.retain(|number| seen.insert(*number));
    assert!(out.is_sorted(), "{out:?}");
    assert!(out.len() > 300, "what could be salvaged: {out:?}");
    assert!(names(dir.path()).iter().any(|name| name.contains("damaged")), "{:?}", names(dir.path()));
    let told = gaps(&outbox).await;
    let told: Vec<_> = told.iter().map(|gap| (gap.cause, gap.messages)).collect();
    assert_eq!(told, [(Cause::Damaged, Some(403 - out.len() as u64))], "by number");
    outbox.append(messages(403..404, 20)).await;
    outbox.close(None).await;
    assert_eq!(numbers(&drain(&open(dir.path()).outbox).await), [403], "the new file serves");
}

#[tokio::test(start_paused = true)]
async fn g8_a_damaged_message_is_counted_and_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    leave_ten(dir.path()).await;
    let connection = Connection::open(dir.path().join("outbox.db")).unwrap();
    // Still a message, but not the one that was written.
    let mut bytes: Vec<u8> =
        connection.query_row("SELECT bytes FROM messages WHERE position = 3", [], |row| row.get(0)).unwrap();
    let x = bytes.iter().rposition(|byte| *byte == b'x').unwrap();
    bytes[x] = b'y';
    connection.execute("UPDATE messages SET bytes = ?1 WHERE position = 3", [bytes]).unwrap();
    connection.execute("UPDATE messages SET epoch = 'x' WHERE position = 4", []).unwrap();
    drop(connection);
    let outbox = open(dir.path()).outbox;
    assert_eq!(numbers(&drain(&outbox).await), [0, 1, 2, 5, 6, 7, 8, 9]);
    let gaps = gaps(&outbox).await;
    assert_eq!((gaps.len(), gaps[0].cause), (1, Cause::Damaged));
    assert_eq!((gaps[0].messages, gaps[0].readings), (Some(2), None));
    outbox.close(None).await;
    assert!(numbers(&drain(&open(dir.path()).outbox).await).is_empty());
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
async fn g8_a_file_with_a_wrong_mark_or_without_a_table_or_a_column_is_set_aside() {
    for sql in [
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
        "PRAGMA application_id = 0",
        "PRAGMA application_id = 7; PRAGMA user_version = 1000000",
        "DROP TABLE messages",
        "DROP TABLE losses",
        "DROP TABLE run",
        "DROP TABLE dead",
        "DROP TABLE marks",
        "ALTER TABLE messages DROP COLUMN checksum",
        "ALTER TABLE losses DROP COLUMN cause",
        "ALTER TABLE run DROP COLUMN saved",
        "ALTER TABLE run ADD COLUMN more",
        "ALTER TABLE dead DROP COLUMN reason",
        "ALTER TABLE marks DROP COLUMN wall",
    ] {
        let dir = tempfile::tempdir().unwrap();
        leave_ten(dir.path()).await;
        Connection::open(dir.path().join("outbox.db")).unwrap().execute_batch(sql).unwrap();
        // What is not a message any more by its columns, or lies in pages that are free, is no more to be had.
        let lost = sql.starts_with("DROP TABLE messages") || sql.ends_with("DROP COLUMN checksum");
        assert_is_replaced(dir.path(), sql, if lost { 10 } else { 0 }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_file_that_was_emptied_or_is_gone_without_its_log_is_told_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    leave_ten(dir.path()).await;
    fs::write(dir.path().join("outbox.db"), "").unwrap();
    assert_is_replaced(dir.path(), "empty", 10).await;

    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    outbox.append(messages(0..10, 20)).await;
    sleep(Duration::from_secs(2)).await;
    let log = fs::read(dir.path().join("outbox.db-wal")).unwrap();
    outbox.close(None).await;
    fs::remove_file(dir.path().join("outbox.db")).unwrap();
    fs::write(dir.path().join("outbox.db-wal"), log).unwrap();
    assert_is_replaced(dir.path(), "gone", 10).await;
}

/// Holds that what is in `dir` is set aside and told once, and that a new file serves, with the messages of the old one
/// from `first` to the ninth.
async fn assert_is_replaced(dir: &Path, what: &str, first: u64) {
    let outbox = open(dir).outbox;
    outbox.append(messages(10..12, 20)).await;
    sleep(Duration::from_secs(5)).await;
    let told = gaps(&outbox).await;
    assert_eq!(
        told.iter().map(|gap| (gap.cause, gap.messages)).collect::<Vec<_>>(),
        [(Cause::Damaged, told[0].messages.filter(|told| *told == first && first > 0))],
        "{what}"
    );
    assert!(names(dir).iter().any(|name| name.contains(".damaged-")), "{what}");
    outbox.close(None).await;
    assert_eq!(numbers(&drain(&open(dir).outbox).await), (first..12).collect::<Vec<_>>(), "{what}");
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

#[tokio::test(start_paused = true)]
async fn g7_a_file_that_is_deleted_under_it_is_told_as_damaged_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    outbox.append(messages(0..400, 20)).await;
    sleep(Duration::from_secs(5)).await;
    for name in names(dir.path()) {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    outbox.append(messages(400..410, 20)).await;
    sleep(Duration::from_secs(5)).await;
    assert!(names(dir.path()).contains(&"outbox.db".into()), "{:?}", names(dir.path()));
    outbox.close(None).await;
    let outbox = open(dir.path()).outbox;
    let told = gaps(&outbox).await;
    let left = numbers(&drain(&outbox).await);
    assert!(left.ends_with(&(400..410).collect::<Vec<_>>()), "{left:?}");
    let told: Vec<_> = told.iter().map(|gap| (gap.cause, gap.messages)).collect();
    assert_eq!(told, [(Cause::Damaged, Some(410 - left.len() as u64))], "by number");
}

#[tokio::test(start_paused = true)]
async fn g7_a_crash_is_told_where_the_note_of_the_run_is_lost_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path()).outbox;
    outbox.append(messages(0..10, 20)).await;
    sleep(Duration::from_secs(5)).await;
    drop(outbox);
    sleep(Duration::from_secs(1)).await;
    fs::write(dir.path().join("outbox.db-wal"), "").unwrap();
    let told = gaps(&open(dir.path()).outbox).await;
    assert_eq!(told.iter().map(|gap| gap.cause).collect::<Vec<_>>(), [Cause::Crash]);
}

#[tokio::test(start_paused = true)]
async fn g9_a_row_where_none_can_stand_costs_one_file_and_not_one_after_another() {
    let dir = tempfile::tempdir().unwrap();
    leave_ten(dir.path()).await;
    let connection = Connection::open(dir.path().join("outbox.db")).unwrap();
    connection.execute("UPDATE messages SET position = ?1 WHERE position = 9", [i64::MAX]).unwrap();
    drop(connection);
    let outbox = open(dir.path()).outbox;
    outbox.append(messages(10..12, 20)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(numbers(&drain(&outbox).await), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]);
    assert_eq!(names(dir.path()).iter().filter(|name| name.contains("damaged")).count(), 1);
}

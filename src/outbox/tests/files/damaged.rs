//! Files that are damaged, emptied, deleted or none of ours: set aside or passed over, told, and begun anew.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::sleep;

use super::super::{WALL, gaps, numbers};
use super::{drain, leave_ten, messages, names, open};
use crate::model::Cause;

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

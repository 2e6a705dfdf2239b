//! Each promise by its name, over a disk in memory and with paused time.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::Outgoing;
use super::super::queue::{Settings, Step};
use super::super::start::epoch;
use super::platter::{Faults, Faulty, Platter};
use super::{
    A_MOMENT, ALWAYS, WHEN_OFFLINE, commits, gaps, ids, message, messages, number, numbers, open, settings,
    stored, taken,
};
use crate::model::{Cause, Gap, Id, Stamp, Timestamp};

#[tokio::test(start_paused = true)]
async fn g1_a_message_leaves_on_its_own_acknowledgement_only_or_by_the_ledger() {
    let outbox = open(Platter::new(1 << 20), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..4)).await;
    let first = taken(&outbox).await;
    outbox.acknowledge(&[first[2].id, first[2].id, Id { epoch: 9, sequence: 9 }]);
    outbox.give_up(first[1].id, Cause::Refused, "no");
    outbox.put_back_all();
    let again = taken(&outbox).await;
    assert_eq!(numbers(&again), [0, 3]);
    assert_eq!(ids(&again), [first[0].id, first[3].id], "under their old ids");
    let gaps = gaps(&outbox).await;
    assert_eq!((gaps.len(), gaps[0].cause, gaps[0].messages), (1, Cause::Refused, Some(1)));
    assert_eq!((gaps[0].readings, gaps[0].device.as_deref()), (Some(2), Some("device-1")));
    assert_eq!((gaps[0].from, gaps[0].to), (Some(Timestamp(1)), Some(Timestamp(1))));
}

#[tokio::test(start_paused = true)]
async fn g2_always_has_a_message_on_the_disk_within_commit_every() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages([0])).await;
    assert_eq!(numbers(&taken(&outbox).await), [0], "in flight, and counted all the same");
    sleep(Duration::from_millis(500)).await;
    outbox.append(messages([1])).await;
    assert!(stored(&platter).is_empty());
    sleep(Duration::from_millis(501)).await;
    assert_eq!(stored(&platter), [0, 1]);
    outbox.append(messages([2])).await;
    sleep(Duration::from_millis(1_001)).await;
    assert_eq!(stored(&platter), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn g2_when_offline_has_it_there_within_spill_after_and_commit_every_and_behind_a_backlog_sooner() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages([0])).await;
    sleep(Duration::from_millis(14_990)).await;
    outbox.append(messages([1])).await;
    assert!(stored(&platter).is_empty());
    sleep(Duration::from_millis(11)).await;
    assert_eq!(stored(&platter), [0, 1]);
    let before = commits(&platter);
    outbox.append(messages([2])).await;
    sleep(Duration::from_millis(9_999)).await;
    assert_eq!(commits(&platter), before, "gathered for commit_every");
    sleep(Duration::from_millis(2)).await;
    assert_eq!(stored(&platter), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn g2_nothing_is_written_while_acknowledgements_come_in_time_but_one_note_at_the_start() {
    for (durability, answer) in [(WHEN_OFFLINE, 4_900), (ALWAYS, 900)] {
        let platter = Platter::new(1 << 20);
        let opened = open(platter.clone(), settings(durability));
        for number in 0..1_000 {
            opened.outbox.append(messages([number])).await;
            let outgoing = taken(&opened.outbox).await;
            assert_eq!(numbers(&outgoing), [number]);
            sleep(Duration::from_millis(answer)).await;
            opened.outbox.acknowledge(&ids(&outgoing));
        }
        let note = platter.look().commits.clone();
        assert_eq!(note.len(), 1, "{durability:?}");
        assert!(note[0].rows.is_empty() && note[0].losses.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn g2_the_writer_wakes_at_most_once_for_a_message_that_was_answered_for_and_then_sleeps() {
    let outbox = open(Platter::new(1 << 20), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages([0])).await;
    outbox.acknowledge(&ids(&taken(&outbox).await));
    sleep(Duration::from_secs(20)).await;
    let now = outbox.shared.clock.now();
    assert!(matches!(outbox.shared.queue().step(now), Step::Wait(None)));
}

#[tokio::test(start_paused = true)]
async fn g3_an_orderly_stop_keeps_everything_in_one_transaction_and_what_was_saved_comes_back_once() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..6)).await;
    sleep(Duration::from_secs(16)).await;
    outbox.append(messages(6..9)).await;
    let out = taken(&outbox).await;
    assert_eq!(numbers(&out), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    outbox.acknowledge(&[out[1].id, out[4].id]);
    outbox.give_up(out[3].id, Cause::TooLarge, "no");
    let before = commits(&platter);
    outbox.close(Some(b"windows".to_vec())).await;
    assert_eq!(commits(&platter), before + 1);
    assert_eq!(stored(&platter), [0, 2, 5, 6, 7, 8], "what was answered for is gone");

    let opened = open(platter.clone(), settings(WHEN_OFFLINE));
    assert_eq!(opened.saved.as_deref(), Some(&b"windows"[..]));
    let again = taken(&opened.outbox).await;
    assert_eq!(numbers(&again), [0, 2, 5, 6, 7, 8]);
    assert_eq!(again[2].id, out[5].id);
    let gaps = gaps(&opened.outbox).await;
    assert_eq!(gaps.iter().map(|gap| gap.cause).collect::<Vec<_>>(), [Cause::TooLarge], "and no crash");
    opened.outbox.close(None).await;
    assert_eq!(open(platter, settings(WHEN_OFFLINE)).saved, None);
}

#[tokio::test(start_paused = true)]
async fn g4_no_id_is_given_twice_over_restarts_and_crashes() {
    let platter = Platter::new(1 << 20);
    let mut seen = BTreeMap::new();
    for run in 0..5 {
        let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
        assert_eq!(outbox.epoch(), 1_700_000_000 + run, "two starts in one second differ too");
        outbox.append(messages(run * 3..run * 3 + 3)).await;
        let mut numbers = Vec::new();
        while numbers.last() != Some(&(run * 3 + 2)) {
            for Outgoing { id, message } in outbox.next(100, usize::MAX).await {
                numbers.push(number(&message));
                assert_eq!(*seen.entry(id).or_insert(message.clone()), message, "{id} is given twice");
            }
        }
        assert_eq!(numbers, (0..run * 3 + 3).collect::<Vec<_>>());
        sleep(Duration::from_secs(2)).await;
        if run % 2 == 0 {
            outbox.close(None).await;
        }
    }
    assert_eq!(seen.len(), 15, "every message has kept its id");
}

#[test]
fn g4_the_epoch_is_the_time_or_one_more_than_the_last_and_random_where_neither_is_to_be_had() {
    let at =
        |seconds: i64, synced| Stamp { wall: Timestamp(seconds * 1_000), monotonic: Duration::ZERO, synced };
    let random = 1 << 52..1 << 53;
    assert_eq!(epoch(None, at(1_000, true)), 1_000);
    assert_eq!(epoch(Some(10), at(1_000, true)), 1_000);
    assert_eq!(epoch(Some(1_000), at(1_000, true)), 1_001);
    assert_eq!(epoch(Some(1_000), at(5, false)), 1_001);
    assert_eq!(epoch(Some(1_000), at(-5, false)), 1_001);
    assert!(random.contains(&epoch(None, at(1_000, false))));
}

#[tokio::test(start_paused = true)]
async fn g4_an_epoch_that_cannot_be_stored_is_random() {
    let platter = Platter::new(1 << 20);
    let faults = Faults::default();
    faults.now().commits = true;
    let store = Faulty { store: Box::new(platter.clone()), faults: faults.clone() };
    let outbox = open(store, settings(ALWAYS)).outbox;
    assert!((1 << 52..1 << 53).contains(&outbox.epoch()));
    faults.now().commits = false;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        platter.look().run.as_ref().map(|run| run.epoch),
        Some(outbox.epoch()),
        "stored when it can be"
    );
}

#[tokio::test(start_paused = true)]
async fn g5_first_deliveries_keep_the_order_through_spills_refusals_and_a_restart() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    let mut delivered = Vec::new();
    outbox.append(messages(0..30)).await;
    let out = outbox.next(5, usize::MAX).await;
    delivered.extend(numbers(&out));
    sleep(Duration::from_secs(16)).await;
    assert_eq!(stored(&platter).len(), 30, "what is in flight is kept too");
    outbox.append(messages(30..40)).await;
    outbox.put_back(&[out[1].id]);
    let mut more = outbox.next(1, usize::MAX).await;
    more.extend(outbox.next(3, usize::MAX).await);
    assert_eq!(numbers(&more), [1, 5, 6, 7], "what was refused for a time comes first");
    delivered.extend(&numbers(&more)[1..]);
    outbox.acknowledge(&ids(&out));
    outbox.acknowledge(&ids(&more));
    outbox.close(None).await;

    let outbox = open(platter, settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(40..50)).await;
    loop {
        let out = taken(&outbox).await;
        if out.is_empty() {
            break;
        }
        delivered.extend(numbers(&out));
        outbox.acknowledge(&ids(&out));
    }
    assert_eq!(delivered, (0..50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn g5_one_message_is_always_allowed_and_else_the_limits_hold() {
    let outbox = open(Platter::new(1 << 20), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..10)).await;
    let size = message(0, 20).to_bytes().len();
    assert_eq!(numbers(&outbox.next(0, 0).await), [0]);
    assert_eq!(numbers(&outbox.next(9, size * 2 + 1).await), [1, 2]);
    assert_eq!(numbers(&outbox.next(3, usize::MAX).await), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_next_or_gaps_that_is_dropped_takes_nothing() {
    let outbox = open(Platter::new(1 << 20), settings(WHEN_OFFLINE)).outbox;
    for _ in 0..3 {
        assert!(timeout(A_MOMENT, outbox.next(9, 999)).await.is_err());
        assert!(timeout(A_MOMENT, outbox.gaps()).await.is_err());
    }
    outbox.append(messages([0])).await;
    drop(outbox.next(9, 999));
    assert_eq!(numbers(&taken(&outbox).await), [0]);
}

#[tokio::test(start_paused = true)]
async fn g6_a_full_disk_loses_its_oldest_into_the_ledger_but_not_what_is_in_flight() {
    let row = message(0, 20).to_bytes().len() as u64 + 40;
    let platter = Platter::new(10 * row + row / 2);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages(0..10)).await;
    let out = outbox.next(2, usize::MAX).await;
    for start in [10, 14] {
        outbox.append(messages(start..start + 4)).await;
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(stored(&platter), [0, 1, 10, 11, 12, 13, 14, 15, 16, 17]);
    let counted: u64 = platter.look().losses.values().filter_map(|record| record.loss.messages).sum();
    assert_eq!(counted, 8, "in the very commit that deleted them");
    outbox.acknowledge(&ids(&out));
    assert_eq!(numbers(&taken(&outbox).await)[0], 10);
}

#[tokio::test(start_paused = true)]
async fn g6_memory_has_a_cap_and_the_oldest_is_lost_beyond_it_while_the_disk_takes_nothing() {
    let faults = Faults::default();
    let store = Faulty { store: Box::new(Platter::new(1 << 20)), faults: faults.clone() };
    let outbox = open(store, Settings { memory_soft: 1_000, memory_hard: 2_000, ..settings(ALWAYS) }).outbox;
    faults.now().commits = true;
    outbox.append(messages(0..20)).await;
    sleep(Duration::from_secs(3)).await;
    outbox.append(messages(20..500)).await;
    let bytes = outbox.stats().memory_bytes.load(Ordering::Relaxed);
    assert!(bytes <= 2_000, "{bytes}");
    let out = taken(&outbox).await;
    assert_eq!(numbers(&out).last(), Some(&499), "the newest are kept");
    let gaps = gaps(&outbox).await;
    let lost: u64 = gaps.iter().filter_map(|gap| gap.messages).sum();
    assert_eq!(lost + out.len() as u64, 500, "and the others told, disk or no disk");
    assert!(gaps.len() <= 8 + 1, "in a bounded table: {}", gaps.len());
    assert!(gaps.iter().any(|gap| gap.device.is_none()), "that merges devices when it is full");
}

#[tokio::test(start_paused = true)]
async fn g6_a_full_disk_that_takes_no_writes_is_not_made_room_on_again_and_again() {
    let (platter, faults) = (Platter::new(1_100), Faults::default());
    let store = Faulty { store: Box::new(platter.clone()), faults: faults.clone() };
    let outbox = open(store, settings(ALWAYS)).outbox;
    outbox.append(messages(0..10)).await;
    sleep(Duration::from_secs(2)).await;
    faults.now().commits = true;
    outbox.append(messages(10..12)).await;
    sleep(Duration::from_secs(600)).await;
    faults.now().commits = false;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(stored(&platter), (2..12).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn g7_a_record_is_sealed_when_it_is_handed_out_and_later_losses_open_a_new_one() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages([0, 12, 24])).await;
    let out = taken(&outbox).await;
    outbox.give_up(out[0].id, Cause::Refused, "no");
    outbox.give_up(out[1].id, Cause::Refused, "no");
    let first = gaps(&outbox).await;
    assert_eq!((first.len(), first[0].messages, first[0].to), (1, Some(2), Some(Timestamp(12))));
    assert_eq!(
        platter.look().losses.values().next().and_then(|record| record.id),
        Some(first[0].id),
        "stored"
    );
    outbox.give_up(out[2].id, Cause::Refused, "no");
    let second = gaps(&outbox).await;
    assert_eq!((second.len(), second[0].messages), (1, Some(1)));
    assert_ne!(second[0].id, first[0].id);
    outbox.acknowledge_gap(first[0].id);
    outbox.put_back_all();
    assert_eq!(gaps(&outbox).await, second, "told again, the same, under the same id");
    outbox.acknowledge_gap(second[0].id);
    outbox.put_back_all();
    assert_eq!(gaps(&outbox).await, []);
    outbox.close(None).await;
    assert!(platter.look().losses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn g7_after_a_crash_one_gap_of_unknown_size_is_told_and_costs_no_write_of_its_own() {
    let platter = Platter::new(1 << 20);
    drop(open(platter.clone(), settings(WHEN_OFFLINE)));
    let outbox = open(platter.clone(), settings(WHEN_OFFLINE)).outbox;
    let before = commits(&platter);
    let told = timeout(A_MOMENT, outbox.gaps()).await.unwrap();
    let [Gap { cause: Cause::Crash, device: None, messages: None, readings: None, from: None, to: None, id }] =
        told[..]
    else {
        panic!("{told:?}")
    };
    outbox.acknowledge_gap(id);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(commits(&platter), before);
}

#[tokio::test(start_paused = true)]
async fn g8_a_disk_that_takes_no_writes_is_said_once_tried_again_and_loses_nothing() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // With a second dispatcher tracing asks both before it forgets a line; with one alone it asks only that of the
    // thread which comes by first, and other tests have none.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let (platter, faults) = (Platter::new(1 << 20), Faults::default());
    let store = Faulty { store: Box::new(platter.clone()), faults: faults.clone() };
    let outbox = open(store, settings(ALWAYS)).outbox;
    faults.now().commits = true;
    for number in 0..600 {
        outbox.append(messages([number])).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(log.count("the buffer is in memory only: the test says no"), 1);
    faults.now().commits = false;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(log.count("the buffer is on the disk again"), 1);
    assert_eq!(stored(&platter), (0..600).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn g8_a_row_that_finds_no_room_in_an_empty_store_is_said_once_and_not_taken_back() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let platter = Platter::new(50);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages([0])).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(log.count("the buffer is in memory only: `max_bytes` is used up"), 1);
    assert_eq!(log.count("the buffer is on the disk again"), 0);
    platter.look().capacity = 1 << 20;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(log.count("the buffer is on the disk again"), 1);
    assert_eq!(stored(&platter), [0]);
}

#[tokio::test(start_paused = true)]
async fn g3_windows_that_are_too_large_to_be_saved_are_told_as_a_gap() {
    let platter = Platter::new(1 << 20);
    let outbox = open(platter.clone(), settings(ALWAYS)).outbox;
    outbox.append(messages([0])).await;
    outbox.close(Some(vec![0; outbox.saved_max() + 1])).await;
    let opened = open(platter.clone(), settings(ALWAYS));
    assert_eq!(opened.saved, None);
    let told = gaps(&opened.outbox).await;
    assert_eq!((told.len(), told[0].cause, told[0].messages), (1, Cause::TooLarge, None));
    opened.outbox.close(Some(vec![0; opened.outbox.saved_max()])).await;
    assert_eq!(open(platter, settings(ALWAYS)).saved, Some(vec![0; 1_000]));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(text).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_the_disk_refuses_ends_all_the_same() {
    let faults = Faults::default();
    let store = Faulty { store: Box::new(Platter::new(1 << 20)), faults: faults.clone() };
    let outbox = open(store, settings(WHEN_OFFLINE)).outbox;
    outbox.append(messages(0..3)).await;
    faults.now().commits = true;
    timeout(Duration::from_secs(1), outbox.close(None)).await.unwrap();
    timeout(Duration::from_secs(1), outbox.close(None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_writer_ends_with_the_last_handle() {
    let outbox = open(Platter::new(1 << 20), settings(WHEN_OFFLINE)).outbox;
    let shared = Arc::downgrade(&outbox.shared);
    let other = outbox.clone();
    drop(outbox);
    sleep(A_MOMENT).await;
    assert!(shared.upgrade().is_some());
    drop(other);
    sleep(A_MOMENT).await;
    assert!(shared.upgrade().is_none());
}

//! Times that were stamped before the clock was trusted.

use super::*;
use crate::model::{Cause, Era};

const BY: i64 = 1_795_422_500_000;

/// The `number`-th message, its time provisional, of the era of `clock`.
fn provisional(number: u64, era: Option<Era>) -> Message {
    Message { era, synced: false, ..message(number, 20) }
}

/// An outbox over `platter` whose messages go to the disk at once.
fn open_by(platter: &Platter, clock: &Clock) -> Outbox {
    Outbox::over(Box::new(platter.clone()), settings(ALWAYS), clock.clone()).outbox
}

fn times(outgoing: &[Outgoing]) -> Vec<(i64, bool)> {
    outgoing.iter().map(|outgoing| (outgoing.message.range().0.0, outgoing.message.synced)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_not_handed_out_before_trust_is_shifted_and_what_was_stays_as_it_was() {
    let (platter, clock) = (Platter::new(1 << 20), Clock::injected(Timestamp(0), false));
    let outbox = open_by(&platter, &clock);
    outbox.append((1..=3).map(|number| provisional(number, clock.era())).collect()).await;
    let early = outbox.next(1, usize::MAX).await;
    assert_eq!(times(&early), [(1, false)]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stored(&platter), [1, 2, 3], "they wait on the disk");
    clock.set(Timestamp(BY + 5_000));
    clock.trust();
    outbox.append(vec![provisional(4, clock.era()), provisional(5, Some(Era(1))), message(6, 20)]).await;
    let shifted = [(BY + 2, true), (BY + 3, true), (BY + 4, true), (5, false), (6, true)];
    assert_eq!(times(&taken(&outbox).await), shifted);
    outbox.put_back_all();
    let again = taken(&outbox).await;
    assert_eq!(times(&again), [&[(1, false)], &shifted[..]].concat(), "in this run they are told alike");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stored(&platter), [1, 2, 3, 4, 5, 6], "nothing is written anew for it");

    // Another run in the same boot, in which none was handed out yet.
    drop(outbox);
    let outbox = open_by(&platter, &clock);
    assert_eq!(times(&taken(&outbox).await), [&[(BY + 1, true)], &shifted[..]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_gap_of_provisional_times_does_not_pass_them_for_true_ones() {
    let (platter, clock) = (Platter::new(1 << 20), Clock::injected(Timestamp(0), false));
    let outbox = open_by(&platter, &clock);
    outbox.append(vec![provisional(1, clock.era())]).await;
    outbox.give_up(ids(&taken(&outbox).await)[0], Cause::Refused, "no");
    let gaps = gaps(&outbox).await;
    assert_eq!((gaps[0].messages, gaps[0].from, gaps[0].to), (Some(1), None, None));
}

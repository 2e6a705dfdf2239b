use std::num::NonZeroU32;

use super::*;

fn at(rate: u32) -> Replay {
    Replay { max_rate: NonZeroU32::new(rate) }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_sent_at_its_rate_and_in_order_with_what_comes_meanwhile_behind_it() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run_with(vec![scene], at(200));
    run.outbox.append(messages(1_000)).await;
    let clock = Clock::injected(Timestamp(0), true);
    let mut taken = Vec::new();
    while taken.len() < 1_001 {
        let publication = cloud.next().await;
        if let Kind::Data { device } = publication.kind {
            taken.push(device.to_string());
        }
        if taken.len() == 500 {
            run.outbox.append(vec![message("fresh")]).await;
        }
        cloud.say(Event::Acknowledged(publication.ids));
    }
    let mut expected: Vec<_> = (0..1_000).map(|n| format!("device-{n}")).collect();
    expected.push("fresh".to_owned());
    assert_eq!(taken, expected);
    // What is no more than a window goes at once, in the end.
    let seconds = clock.monotonic().as_secs_f64();
    assert!((4.5..4.8).contains(&seconds), "937 messages at 200 a second took {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_at_its_rate_holds_up_neither_the_status_nor_gap_records() {
    let ((mut first, one), (mut second, two)) = (scene(WIDE), scene(WIDE));
    let run = run_with(vec![one, two], at(10));
    run.outbox.append(messages(1_000)).await;
    let (_, ids) = first.take(1).await;
    first.refuse(ids[0], Lasting::Forever);
    sleep(Duration::from_secs(30)).await;
    first.answers.send(Err(lost("the link is down"))).unwrap();
    let clock = Clock::injected(Timestamp(0), true);
    assert_eq!(second.next().await.kind, Kind::Status);
    while second.next().await.kind != Kind::Gap {}
    assert!(clock.monotonic() < Duration::from_secs(3), "{:?}", clock.monotonic());
    assert!(run.outbox.stats().waiting() > 900, "the backlog has hardly begun");
}

#[tokio::test(start_paused = true)]
async fn without_a_backlog_nothing_is_paced() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run_with(vec![scene], at(1));
    let clock = Clock::injected(Timestamp(0), true);
    for _ in 0..20 {
        run.outbox.append(messages(WIDE.in_flight)).await;
        let (_, ids) = cloud.take(WIDE.in_flight).await;
        ids.into_iter().for_each(|id| cloud.say(Event::Acknowledged(vec![id])));
    }
    assert_eq!(clock.monotonic(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn in_a_burst_after_a_reconnect_every_answer_is_heard_before_more_is_sent() {
    let (mut cloud, scene) = scene(Limits { in_flight: 8, ..WIDE });
    let run = run(vec![scene]);
    run.outbox.append(messages(800)).await;
    for _ in 0..100 {
        let (_, ids) = cloud.take(8).await;
        ids.into_iter().for_each(|id| cloud.say(Event::Acknowledged(vec![id])));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!((run.outbox.stats().waiting(), cloud.unheard.load(Ordering::Relaxed)), (0, 0));
}

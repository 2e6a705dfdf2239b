use super::*;

fn devices(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("device-{n}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_broker_closes_on_is_given_up_and_told_as_a_gap_and_the_rest_arrives_in_order() {
    let (mut clouds, scenes) = scenes(6);
    let run = run(scenes);
    let clock = Clock::injected(Timestamp(0), true);
    run.outbox.append(messages(10)).await;
    let mut played = Vec::new();
    for cloud in &mut clouds {
        played.push(cloud.play(|publication| is_of(publication, "device-3")).await);
    }
    let closed: Vec<_> = played.iter().map(|played| played.closed).collect();
    assert_eq!(closed, [true, true, true, true, true, false]);
    // Of that, losses are gathered for 10 s, and nothing came at the end.
    assert!(
        clock.monotonic() < Duration::from_secs(16 + 10) + SILENCE,
        "its pauses: {:?}",
        clock.monotonic()
    );
    let taken: Vec<_> = played.iter().flat_map(|played| played.devices.clone()).collect();
    assert_eq!(taken, devices((0..10).filter(|n| *n != 3)));
    assert_eq!(played[4].devices, ["device-4"], "the witness");
    let [gap] = played[5].gaps.as_slice() else { panic!("{played:?}") };
    assert!(gap.contains(r#""cause":"poison","device":"device-3","messages":1,"#), "{gap}");
    assert_eq!(run.stats.given_up.get(), 1);
    assert_eq!(run.outbox.stats().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_closes_on_everything_for_a_while_gives_up_nothing_and_gets_all_in_order() {
    let (mut clouds, scenes) = scenes(40);
    let run = run(scenes);
    run.outbox.append(messages(10)).await;
    for cloud in &mut clouds[..39] {
        assert!(cloud.play(|_| true).await.closed);
    }
    let played = clouds[39].play(|_| false).await;
    assert_eq!(played.devices, devices(0..10));
    assert_eq!((played.gaps.len(), run.stats.given_up.get()), (0, 0));
}

/// Whenever it recovers. A broker that closes on the status as well sees no message alone, and so none early.
#[tokio::test(start_paused = true)]
async fn a_broker_that_closes_on_every_message_for_a_while_gives_up_nothing() {
    for closes in 0..20 {
        let (mut clouds, scenes) = scenes(closes + 1);
        let run = run(scenes);
        run.outbox.append(messages(10)).await;
        for cloud in &mut clouds[..closes] {
            assert!(cloud.play(is_data).await.closed);
        }
        let mut played = clouds[closes].play(|_| false).await;
        assert_eq!((played.gaps.len(), run.stats.given_up.get()), (0, 0), "after {closes}");
        let early = played.devices.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(early <= 1, "{:?}", played.devices);
        played.devices.sort();
        assert_eq!(played.devices, devices(0..10));
    }
}

#[tokio::test(start_paused = true)]
async fn after_three_closes_messages_go_one_at_a_time_and_the_first_after_the_status_was_answered() {
    let (mut clouds, scenes) = scenes(4);
    let run = run(scenes);
    run.outbox.append(messages(3)).await;
    for cloud in &mut clouds[..3] {
        assert!(cloud.play(|publication| is_of(publication, "device-0")).await.closed);
    }
    let cloud = &mut clouds[3];
    let mut unanswered = cloud.next().await;
    assert_eq!(unanswered.kind, Kind::Status);
    for device in ["device-0", "device-1", "device-2"] {
        sleep(Duration::from_secs(1)).await;
        assert!(cloud.sent.try_recv().is_err(), "{device} waits for the answer to what went before it");
        cloud.say(Event::Acknowledged(unanswered.ids));
        unanswered = cloud.next().await;
        assert!(is_of(&unanswered, device));
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_that_the_broker_did_not_close_are_held_against_no_message() {
    let (mut clouds, scenes) = scenes(12);
    let run = run(scenes);
    run.outbox.append(messages(3)).await;
    for (n, cloud) in clouds[..11].iter_mut().enumerate() {
        cloud.take(3).await;
        let broken = if n % 3 == 2 { lost("the link is down") } else { closed() };
        cloud.answers.send(Err(broken)).unwrap();
    }
    assert_eq!(clouds[11].take(3).await.0, devices(0..3), "all at once, without an answer");
}

#[tokio::test(start_paused = true)]
async fn gap_records_that_the_broker_closes_on_are_kept_back_for_an_hour_and_messages_go_on() {
    let (mut clouds, scenes) = scenes(6);
    let run = run(scenes);
    run.outbox.append(messages(1)).await;
    let (_, ids) = clouds[0].take(1).await;
    clouds[0].refuse(ids[0], Lasting::Forever);
    let closes_on = |publication: &Publication| publication.kind == Kind::Gap;
    // Nothing but gap records is there: three sessions are enough.
    for cloud in &mut clouds[..3] {
        assert!(cloud.play(closes_on).await.closed);
    }
    let clock = Clock::injected(Timestamp(0), true);
    run.outbox.append(messages(3)).await;
    assert_eq!(clouds[3].play(closes_on).await.devices, devices(0..3));
    let gap = clouds[3].next().await;
    assert_eq!(gap.kind, Kind::Gap);
    assert!(clock.monotonic() > Duration::from_secs(3000));
    clouds[3].say(Event::Acknowledged(gap.ids));
    run.outbox.append(messages(3)).await;
    assert_eq!(clouds[3].take(3).await.0, devices(0..3));
}

/// A device that sends one poison after the other among good messages of others.
#[tokio::test(start_paused = true)]
async fn the_next_poison_of_a_device_that_was_found_out_holds_the_others_up_for_moments() {
    let (mut clouds, scenes) = scenes(40);
    let run = run(scenes);
    let clock = Clock::injected(Timestamp(0), true);
    let bad = |publication: &Publication| is_of(publication, "bad");
    let mut taken = Vec::new();
    let mut took = Vec::new();
    let mut clouds = clouds.iter_mut();
    for round in 0..5 {
        let start = clock.monotonic();
        let mut batch = messages(8);
        batch.insert(3, message("bad"));
        run.outbox.append(batch).await;
        while run.outbox.stats().waiting() > 0 {
            let cloud = clouds.next().unwrap_or_else(|| panic!("too many sessions, in round {round}"));
            while let Some(publication) = cloud.sent.recv().await {
                if bad(&publication) {
                    cloud.answers.send(Err(closed())).unwrap();
                    break;
                }
                if let Kind::Data { device } = &publication.kind {
                    taken.push(device.to_string());
                }
                cloud.say(Event::Acknowledged(publication.ids));
                tokio::task::yield_now().await;
                sleep(Duration::from_millis(1)).await;
                if run.outbox.stats().waiting() == 0 {
                    cloud.answers.send(Err(lost("the round is over"))).unwrap();
                    break;
                }
            }
        }
        took.push(clock.monotonic() - start);
    }
    println!("{took:?}");
    assert_eq!(run.stats.given_up.get(), 5);
    assert!(took[1..].iter().all(|took| *took < Duration::from_secs(6)), "{took:?}");
    let first: Vec<_> = taken.iter().filter(|device| **device == "device-7").collect();
    assert!(first.len() >= 5, "{taken:?}");
}

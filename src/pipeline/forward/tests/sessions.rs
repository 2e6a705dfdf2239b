use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_begins_with_online_and_ends_in_order_with_offline_and_leaves_the_same_as_its_will() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    let online = cloud.next().await;
    assert_eq!(online.kind, Kind::Status);
    assert!(String::from_utf8(online.payload).unwrap().starts_with(r#"{"online":true,"#));
    run.stopper.stop();
    let offline = String::from_utf8(cloud.next().await.payload).unwrap();
    run.task.await.unwrap();
    assert!(offline.starts_with(r#"{"online":false,"#));
    assert_eq!(*run.wills.lock().unwrap(), [offline]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_sends_what_waits_by_then_and_leaves_what_comes_after_it() {
    let (mut cloud, scene) = scene(Limits { in_flight: 2, ..WIDE });
    let run = run(vec![scene]);
    run.outbox.append(messages(3)).await;
    let (_, ids) = cloud.take(2).await;
    run.stopper.stop();
    tokio::task::yield_now().await;
    // A source that goes on, as in a change of the uplink.
    run.outbox.append(messages(4)).await;
    cloud.say(Event::Acknowledged(ids));
    let (_, ids) = cloud.take(1).await;
    cloud.say(Event::Acknowledged(ids));
    run.task.await.unwrap();
    let offline = cloud.next().await;
    assert_eq!(offline.kind, Kind::Status, "nothing that came later went out first");
    assert_eq!(run.outbox.stats().waiting(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_answered_when_a_session_ends_is_sent_again_in_order_under_its_ids() {
    let ((mut first, one), (mut second, two)) = (scene(WIDE), scene(WIDE));
    let run = run(vec![one, two]);
    run.outbox.append(messages(4)).await;
    let (_, ids) = first.take(4).await;
    first.say(Event::Acknowledged(vec![ids[1]]));
    first.answers.send(Err(lost("the link is down"))).unwrap();
    let (devices, again) = second.take(3).await;
    assert_eq!(devices, ["device-0", "device-2", "device-3"]);
    assert_eq!(again, [ids[0], ids[2], ids[3]]);
    assert_eq!(run.wills.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_in_flight_than_the_session_takes_in_messages_and_in_bytes() {
    let size = {
        let mut payload = Vec::new();
        let id = Id { epoch: 1_795_422_500, sequence: 1 };
        Format::Json.message(id, "gw", &message("device-0"), &mut payload);
        payload.len()
    };
    for limits in [
        Limits { in_flight: 3, in_flight_bytes: 32 << 10 },
        Limits { in_flight: 64, in_flight_bytes: 3 * size + size / 2 },
    ] {
        let (mut cloud, scene) = scene(limits);
        let run = run(vec![scene]);
        run.outbox.append(messages(8)).await;
        let (_, ids) = cloud.take(3).await;
        // Everything that could be sent has been once a second has passed.
        sleep(Duration::from_secs(1)).await;
        assert!(cloud.sent.try_recv().is_err(), "more than three under {limits:?}");
        cloud.say(Event::Acknowledged(vec![ids[0]]));
        assert_eq!(cloud.take(1).await.0, ["device-3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_publication_is_allowed_whatever_its_size() {
    let (mut cloud, scene) = scene(Limits { in_flight: 64, in_flight_bytes: 1 });
    let run = run(vec![scene]);
    run.outbox.append(messages(2)).await;
    let (_, ids) = cloud.take(1).await;
    cloud.say(Event::Acknowledged(ids));
    assert_eq!(cloud.take(1).await.0, ["device-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_on_its_way_and_not_for_ever() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    run.outbox.append(messages(1)).await;
    cloud.take(1).await;
    let clock = Clock::injected(Timestamp(0), true);
    run.stopper.stop();
    run.task.await.unwrap();
    assert_eq!(clock.monotonic().as_secs(), GRACE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_to_be_renewed_is_drained_and_followed_by_the_next_at_once() {
    let ((mut first, one), (mut second, two)) = (scene(WIDE), scene(WIDE));
    let run = run(vec![one, two]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = first.take(1).await;
    let clock = Clock::injected(Timestamp(0), true);
    tokio::time::sleep(STEADY).await;
    first.say(Event::Renew { why: "the test says so".into() });
    run.outbox.append(messages(1)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(first.sent.try_recv().is_err(), "nothing new is begun on the old session");
    first.say(Event::Acknowledged(ids));
    assert_eq!(second.next().await.kind, Kind::Status);
    assert_eq!(clock.monotonic().as_secs(), STEADY.as_secs() + 1, "without a pause");
    assert_eq!(second.take(1).await.0, ["device-0"]);
    assert!(first.sent.try_recv().is_err(), "it does not say that it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_renewed_again_and_again_is_paced_like_one_that_fails() {
    let mut scenes = Vec::new();
    let mut clouds = Vec::new();
    for _ in 0..8 {
        let (cloud, scene) = scene(WIDE);
        cloud.answers.send(Ok(Event::Renew { why: "the test says so".into() })).unwrap();
        clouds.push(cloud);
        scenes.push(scene);
    }
    let _run = run(scenes);
    let clock = Clock::injected(Timestamp(0), true);
    for cloud in &mut clouds {
        cloud.next().await;
    }
    assert!(clock.monotonic() >= Backoff::FLOOR * 7);
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failure_ends_once_the_clock_is_set_that_certificates_are_held_against() {
    let clock = Clock::injected(Timestamp(0), false);
    let run = run_by(clock.clone(), vec![], Replay::default());
    let tries = || run.wills.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let without = tries();
    assert!(without < 400, "it waits up to a minute by then: {without}");
    clock.trust();
    let before = tries();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(tries() > before, "within a second it is tried again");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(tries() > before + 1, "and soon again, should that have failed as well");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_settle_messages_follow_one_another_quickly_however_short_they_are() {
    const SESSIONS: u32 = 12;
    let (mut clouds, scenes) = scenes(SESSIONS as usize);
    let clock = Clock::injected(Timestamp(1_795_422_500_000), true);
    let run = run_by(clock.clone(), scenes, Replay::default());
    run.outbox.append(messages(SESSIONS as usize)).await;
    for cloud in &mut clouds {
        let (_, ids) = cloud.take(1).await;
        cloud.say(Event::Acknowledged(ids));
        cloud.answers.send(Err(lost("the link is down"))).unwrap();
    }
    let took = clock.monotonic();
    assert!(took <= Duration::from_secs(1) * SESSIONS, "{took:?}");
    assert!(took >= Backoff::FLOOR * (SESSIONS - 1), "and not at once: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn how_the_link_stands_is_known_with_whom_it_was_and_why_it_ended() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    assert_eq!(run.stats.link.state(), State::default());
    cloud.next().await;
    let state = run.stats.link.state();
    assert_eq!((state.peer.as_deref(), state.failure), (Some("cloud"), None));
    assert!(state.since.is_some());
    cloud.answers.send(Err(lost("the link is down"))).unwrap();
    sleep(Duration::from_millis(1)).await;
    let state = run.stats.link.state();
    assert_eq!((state.peer.as_deref(), state.since), (Some("cloud"), None));
    assert_eq!(state.failure.unwrap().0, "the link is down");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(run.stats.link.state().failure.unwrap().0, "nobody is there");
}

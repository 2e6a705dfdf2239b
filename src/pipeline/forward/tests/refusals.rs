use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_is_sent_again_after_a_pause() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = cloud.take(1).await;
    let clock = Clock::injected(Timestamp(0), true);
    cloud.refuse(ids[0], Lasting::Retry);
    assert_eq!(cloud.take(1).await.1, ids);
    assert!(clock.monotonic() >= Backoff::FLOOR);
    assert_eq!(run.stats.put_off.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_or_too_large_is_told_as_a_gap_and_the_rest_goes_on() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    let mut large = message("large");
    let text = Value::Text("x".repeat(LARGEST).into());
    large.metrics = vec![Metric { name: "text".into(), unit: None, fields: vec![("value".into(), text)] }];
    run.outbox.append(vec![message("poison"), large, message("good")]).await;
    let (devices, ids) = cloud.take(2).await;
    assert_eq!(devices, ["poison", "good"]);
    cloud.refuse(ids[0], Lasting::Forever);
    let mut causes = Vec::new();
    while causes.len() < 2 {
        let publication = cloud.next().await;
        assert_eq!(publication.kind, Kind::Gap);
        let gap: serde_json::Value = serde_json::from_slice(&publication.payload).unwrap();
        assert_eq!((&gap["messages"], &gap["readings"]), (&1.into(), &1.into()));
        causes.push(gap["cause"].as_str().unwrap().to_owned());
        cloud.say(Event::Acknowledged(publication.ids));
    }
    causes.sort();
    assert_eq!(causes, ["refused", "too_large"]);
    assert_eq!(run.stats.given_up.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_again_and_again_is_counted_as_one_loss() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    run.outbox.append(messages(1)).await;
    for again in 0..3 {
        let (_, ids) = cloud.take(1).await;
        cloud.refuse(ids[0], Lasting::Forever);
        while run.outbox.dead_letter_ids().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((run.stats.given_up.get(), run.stats.refused_again.get()), (1, again));
        assert_eq!(run.outbox.send_again(&ids).await, 1);
    }
    let (_, ids) = cloud.take(1).await;
    cloud.say(Event::Acknowledged(ids));
}

#[tokio::test(start_paused = true)]
async fn a_gap_record_that_is_refused_is_told_again_in_the_next_session() {
    let ((mut first, one), (mut second, two)) = (scene(WIDE), scene(WIDE));
    let run = run(vec![one, two]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = first.take(1).await;
    first.refuse(ids[0], Lasting::Forever);
    let gap = first.next().await;
    assert_eq!(gap.kind, Kind::Gap);
    first.refuse(gap.ids[0], Lasting::Forever);
    first.answers.send(Err(lost("the link is down"))).unwrap();
    assert_eq!(second.next().await.kind, Kind::Status);
    assert_eq!(second.next().await, gap);
}

#[tokio::test(start_paused = true)]
async fn a_gap_record_that_is_refused_for_now_is_told_again_in_the_same_session() {
    let (mut cloud, scene) = scene(WIDE);
    let run = run(vec![scene]);
    run.outbox.append(messages(1)).await;
    let (_, ids) = cloud.take(1).await;
    cloud.refuse(ids[0], Lasting::Forever);
    let gap = cloud.next().await;
    cloud.refuse(gap.ids[0], Lasting::Retry);
    let again = tokio::time::timeout(Duration::from_secs(600), cloud.next()).await;
    assert_eq!(again.as_ref(), Ok(&gap));
    cloud.say(Event::Acknowledged(gap.ids));
    let more = tokio::time::timeout(Duration::from_secs(600), cloud.next()).await;
    assert!(more.is_err(), "it is told once it was taken");
}

/// With room for one or many: it does not stand in front for ever.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_for_now_again_and_again_does_not_hold_up_the_rest_and_is_not_given_up() {
    for in_flight in [1, 2, 64] {
        let (mut cloud, scene) = scene(Limits { in_flight, ..WIDE });
        let run = run(vec![scene]);
        let clock = Clock::injected(Timestamp(0), true);
        run.outbox.append(messages(200)).await;
        let (mut devices, mut refused) = (Vec::new(), 0);
        while devices.len() < 199 {
            let publication = cloud.next().await;
            if is_of(&publication, "device-3") {
                refused += 1;
                cloud.refuse(publication.ids[0], Lasting::Retry);
                continue;
            }
            if let Kind::Data { device } = publication.kind {
                devices.push(device);
            }
            cloud.say(Event::Acknowledged(publication.ids));
        }
        assert!(clock.monotonic() < Duration::from_secs(60), "{in_flight}: {:?}", clock.monotonic());
        assert!(devices.is_sorted_by_key(|device| device[7..].parse::<u32>().unwrap()));
        // It goes on being tried, ever more rarely, and is taken once the broker takes it.
        let ten_minutes = clock.instant(clock.monotonic() + Duration::from_secs(600));
        while let Ok(Some(publication)) = tokio::time::timeout_at(ten_minutes, cloud.sent.recv()).await {
            refused += 1;
            cloud.refuse(publication.ids[0], Lasting::Retry);
        }
        assert!((10..50).contains(&refused), "{refused} tries");
        let publication = cloud.next().await;
        cloud.say(Event::Acknowledged(publication.ids));
        sleep(Duration::from_secs(1)).await;
        assert_eq!((run.outbox.stats().waiting(), run.stats.given_up.get()), (0, 0));
    }
}

/// Then it is the broker, and not the message: order is kept.
#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_everything_for_now_gets_everything_in_order_later() {
    let (mut cloud, scene) = scene(Limits { in_flight: 4, ..WIDE });
    let run = run(vec![scene]);
    run.outbox.append(messages(20)).await;
    let clock = Clock::injected(Timestamp(0), true);
    while clock.monotonic() < Duration::from_secs(600) {
        let publication = cloud.next().await;
        if is_data(&publication) {
            cloud.refuse(publication.ids[0], Lasting::Retry);
        }
    }
    let tries = run.stats.sent.load(Ordering::Relaxed);
    assert!(tries < 4 * 60, "{tries} tries in ten minutes");
    let mut devices = Vec::new();
    while devices.len() < 20 {
        let publication = cloud.next().await;
        cloud.say(Event::Acknowledged(publication.ids.clone()));
        if let Kind::Data { device } = publication.kind {
            devices.push(device.to_string());
        }
    }
    // Refusals were under way when it began to take.
    let late = devices.windows(2).filter(|pair| pair[1] < pair[0] && pair[0].len() == pair[1].len()).count();
    assert!(late <= 1, "{devices:?}");
}

//! Who is refused or closed, and when.

use super::*;

#[tokio::test]
async fn a_stranger_is_closed_at_once_and_counted() {
    let context = context();
    let (mut source, address) = listen("allow = ['127.0.0.2']", &context).await;
    let _stranger = device(address);
    until(&mut source, || refused(&context, Refusal::NotAllowed) == 1).await;
    assert_eq!(open(&source), 0);
    let friend = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    friend.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    friend.connect(&address.into()).unwrap();
    TcpStream::from(friend).write_all(b"{\"dev\":\"friend\",\"t\":1}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("friend", 1)]);
}

#[tokio::test]
async fn over_max_connections_a_device_is_refused_until_another_has_gone() {
    let context = context();
    let (mut source, address) = listen("max_connections = 2", &context).await;
    let (first, _second) = (device(address), device(address));
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 2).await;
    let _third = device(address);
    until(&mut source, || refused(&context, Refusal::TooMany) == 1).await;
    drop(first);
    let mut fourth = device(address);
    // The order in which the kernel tells of both is its own.
    let work = async {
        while context.stats.connections.load(Ordering::Relaxed) < 3 {
            let _ = timeout(Duration::from_millis(20), source.next()).await;
            fourth = device(address);
        }
    };
    timeout(Duration::from_secs(20), work).await.unwrap();
    assert_eq!(open(&source), 2);
}

/// Waits with tokio's time, which jumps to the next timer when there is nothing else to do.
#[tokio::test]
async fn a_silent_connection_is_closed_and_one_that_was_not_read_meanwhile_is_not() {
    let context = context();
    let (mut source, address) = listen("idle_timeout = '1m'", &context).await;
    let (_silent, mut held_back) = (device(address), device(address));
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 2).await;
    tokio::time::pause();
    // A stalled pipeline: nothing is asked for.
    tokio::time::sleep(Duration::from_secs(300)).await;
    held_back.write_all(b"{\"dev\":\"held back\",\"t\":1}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("held back", 1)]);
    assert_eq!((open(&source), context.stats.silent.get()), (1, 1), "the silent one is closed");

    assert!(timeout(Duration::from_secs(59), source.next()).await.is_err());
    assert_eq!(open(&source), 1, "not before its time");
    assert!(timeout(Duration::from_secs(17), source.next()).await.is_err());
    assert_eq!((open(&source), context.stats.silent.get()), (0, 2), "a quarter later at most");
}

#[tokio::test]
async fn a_byte_now_and_then_holds_off_the_idle_timeout_ten_times_at_most() {
    let context = context();
    let (mut source, address) = listen("idle_timeout = '1m'", &context).await;
    let (mut dripping, mut steady) = (device(address), device(address));
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 2).await;
    steady.write_all(b"{").unwrap();
    tokio::time::pause();
    let mut minutes = 0.0;
    while open(&source) == 2 && minutes < 30.0 {
        // Whoever ends frames may be in the middle of the next at all times.
        dripping.write_all(b"x").unwrap();
        steady.write_all(b"\"dev\":\"steady\",\"t\":1}\n{").unwrap();
        ask_for(&mut source, Duration::from_secs(30)).await.unwrap();
        minutes += 0.5;
    }
    assert!((10.0..11.0).contains(&minutes), "{minutes}");
    assert_eq!((context.stats.silent.get(), refused(&context, Refusal::CutOff)), (1, 1));
    steady.write_all(b"\"dev\":\"steady\",\"t\":7}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("steady", 7)]);
}

#[tokio::test]
async fn without_idle_timeout_a_listener_at_rest_has_no_timer() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let _silent = device(address);
    until(&mut source, || context.stats.connections.load(Ordering::Relaxed) == 1).await;
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    assert_eq!(listener.due(), None);
}

#[tokio::test]
async fn unfinished_frames_have_a_bound_over_all_connections_and_others_are_read_on() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut slow: Vec<_> = (0..200).map(|_| device(address)).collect();
    let mut good = device(address);
    good.write_all(b"{\"dev\":\"good\",").unwrap();
    for socket in &mut slow {
        socket.set_nonblocking(true).unwrap();
        socket.write_all(&[b'x'; 60_000]).unwrap();
    }
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) >= 200 * 60_000 - 10_000_000).await;
    until(&mut source, || refused(&context, Refusal::Crowded) > 50).await;
    good.write_all(b"\"t\":1}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("good", 1)]);
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    assert!(listener.begun() <= 9 << 20, "{}", listener.begun());
    assert_eq!(refused(&context, Refusal::CutOff), 0);
    let crowded = refused(&context, Refusal::Crowded);
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 200 - crowded, "each is counted once");
}

/// A frame that is large, or a device that is slow, is not to suffer for a pipeline that stood still.
#[tokio::test]
async fn time_in_which_nothing_was_read_does_not_count_against_a_frame_that_has_begun() {
    let context = context();
    let (mut source, address) = listen("idle_timeout = '1m'", &context).await;
    let (mut slow, mut other) = (device(address), device(address));
    slow.write_all(b"{\"dev\":\"slow\",").unwrap();
    other.write_all(b"{\"dev\":\"other\",\"t\":1}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("other", 1)]);
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) >= 36).await;
    other.write_all(b"{\"dev\":\"other\",\"t\":2}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("other", 2)]);
    tokio::time::pause();
    // A stalled pipeline: nothing is asked for.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    slow.write_all(b"\"a\":").unwrap();
    other.write_all(b"\n").unwrap();
    assert!(timeout(Duration::from_secs(30), source.next()).await.is_err());
    assert_eq!(open(&source), 2);
    slow.write_all(b"3}\n").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("slow", 3)]);
}

#[tokio::test]
async fn frames_that_a_silence_ends_have_ended() {
    let context = context();
    // It is looked for silent ones every 15 s: most times in the middle of a frame.
    let table = "idle_timeout = '1m'\nframing = { type = 'silence', idle_gap = '16s' }";
    let (mut source, address) = listen(table, &context).await;
    let mut steady = device(address);
    tokio::time::pause();
    for number in 0..60 {
        steady.write_all(format!("{{\"dev\":\"steady\",\"t\":{number}}}").as_bytes()).unwrap();
        assert_eq!(take(&mut source, 1).await, [int("steady", number)]);
        assert!(timeout(Duration::from_secs(14), source.next()).await.is_err());
    }
    assert_eq!((open(&source), context.stats.silent.get()), (1, 0));
}

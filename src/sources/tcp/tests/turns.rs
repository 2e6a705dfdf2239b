//! Whose turn it is, and that nothing is read which is not taken.

use super::*;

#[tokio::test]
async fn whoever_has_little_to_say_is_heard_beside_one_who_never_stops() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut loud = device(address);
    let written = flood(&mut loud, b"{\"dev\":\"loud\",\"t\":1}\n");
    assert!(written > 100_000, "{written}");
    let mut quiet: Vec<_> = (0..100).map(|_| device(address)).collect();
    for (number, socket) in quiet.iter_mut().enumerate() {
        writeln!(socket, "{{\"dev\":\"quiet-{number}\",\"t\":1}}").unwrap();
    }
    let mut heard = 0;
    let mut loud_before = 0;
    while heard < 100 {
        let readings = next(&mut source).await.unwrap().readings;
        for (_, reading) in readings.iter() {
            match reading.device {
                "loud" if heard < 100 => loud_before += 1,
                "loud" => {}
                _ => heard += 1,
            }
        }
        flood(&mut loud, b"{\"dev\":\"loud\",\"t\":1}\n");
    }
    // A line is 21 bytes; the loud one had a few turns while the others were taken and read.
    assert!(loud_before < 8 * 8192 / 21, "{loud_before} of the loud one came before all others were heard");
}

/// Reads of a source whose peer floods it with these lines, while somebody beside it on the same thread wants a turn after
/// so many bytes at most.
async fn others_have_their_turn(
    mut source: Tcp,
    mut peer: TcpStream,
    line: &[u8],
    most: u64,
    context: &Context,
) {
    assert!(flood(&mut peer, line) > 100_000);
    let beside = async {
        let mut before = 0;
        while before < 100_000 {
            let read = context.stats.bytes.load(Ordering::Relaxed);
            assert!(read - before <= most, "{} bytes without a turn", read - before);
            before = read;
            tokio::task::yield_now().await;
        }
    };
    let work = async {
        loop {
            source.next().await.unwrap();
        }
    };
    let both = async {
        tokio::select! { biased; () = work => {}, () = beside => {} }
    };
    timeout(Duration::from_secs(20), both).await.expect("it does not come to that");
}

#[tokio::test]
async fn whatever_one_sends_without_end_other_sources_have_their_turn() {
    for line in [&b"x\n"[..], b"{\"dev\":\"loud\",\"t\":1}\n"] {
        let context = context();
        let (mut source, address) = listen("", &context).await;
        let Side::Listener(listener) = &mut source.0 else { panic!("it dials") };
        listener.hurry();
        others_have_their_turn(source, device(address), line, 8192, &context).await;
    }
    let context = context();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let source = dial(listener.local_addr().unwrap(), "", &context).await.unwrap();
    let (peer, _) = listener.accept().unwrap();
    others_have_their_turn(source, peer, b"x\n", 4096, &context).await;
}

#[tokio::test]
async fn what_is_not_taken_is_not_read_and_nothing_of_it_is_lost() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut loud = device(address);
    let line = b"{\"dev\":\"loud\",\"t\":1}\n";
    let written = flood(&mut loud, line);
    next(&mut source).await.unwrap();
    // The pipeline takes nothing meanwhile.
    let read = context.stats.bytes.load(Ordering::Relaxed);
    assert!(read < 400_000 && usize::try_from(read).unwrap() < written, "{read} of {written}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(context.stats.bytes.load(Ordering::Relaxed), read);
    while context.stats.bytes.load(Ordering::Relaxed) < u64::try_from(written).unwrap() {
        next(&mut source).await.unwrap();
    }
    let expected = u64::try_from(written / line.len()).unwrap();
    assert_eq!(context.stats.readings.load(Ordering::Relaxed), expected);
}

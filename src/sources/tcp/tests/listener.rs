//! Devices that connect: what they send, and however they go.

use super::*;

#[tokio::test]
async fn what_devices_send_in_pieces_between_one_another_is_put_together_for_each() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut devices = [device(address), device(address)];
    let (mut taken, mut written) = (Vec::new(), 0);
    for (which, piece) in [
        (0, &b"{\"dev\":\"one\",\"t\""[..]),
        (1, b"{\"dev\":\"other\","),
        (0, b":1}\n{\"dev\":\"one\",\"t\":2}\n"),
        (1, b"\"t\":3}\r\n"),
    ] {
        devices[which].write_all(piece).unwrap();
        written += piece.len() as u64;
        // Each piece is read by itself.
        while context.stats.bytes.load(Ordering::Relaxed) < written {
            if let Ok(batch) = timeout(Duration::from_millis(20), source.next()).await {
                let readings = batch.unwrap().readings;
                taken.extend(readings.iter().map(|(_, r)| (r.device.to_owned(), r.value.to_owned())));
            }
        }
    }
    assert_eq!(taken, [int("one", 1), int("one", 2), int("other", 3)]);
    assert_eq!(context.stats.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_device_that_closes_or_resets_is_read_to_its_end_and_what_had_begun_is_counted() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut half = device(address);
    half.write_all(b"{\"dev\":\"half\",\"t\":1}\n{\"dev\":").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(take(&mut source, 1).await, [int("half", 1)]);
    until(&mut source, || refused(&context, Refusal::CutOff) == 1).await;
    assert_eq!(open(&source), 0);

    let mut gone = device(address);
    gone.write_all(b"{\"dev\":").unwrap();
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) == 35).await;
    reset(gone);
    until(&mut source, || refused(&context, Refusal::CutOff) == 2).await;
    assert_eq!(open(&source), 0);

    let mut stopped = device(address);
    stopped.write_all(b"{").unwrap();
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) == 36).await;
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 3, "it was weir that ended it");
}

#[tokio::test]
async fn a_look_that_is_given_up_loses_nothing() {
    let context = context();
    let (mut source, address) = listen("", &context).await;
    let mut socket = device(address);
    let mut taken = Vec::new();
    for number in 0..200 {
        writeln!(socket, "{{\"dev\":\"one\",\"t\":{number}}}").unwrap();
        // Given up at whatever point it waits at.
        let given_up = timeout(Duration::from_micros(fastrand::u64(..3000)), source.next()).await;
        let readings = given_up.ok().map(|batch| batch.unwrap().readings);
        taken.extend(
            readings.iter().flat_map(|readings| readings.iter()).map(|(_, reading)| reading.value.to_owned()),
        );
    }
    while taken.len() < 200 {
        taken.extend(take(&mut source, 1).await.into_iter().map(|(_, value)| value));
    }
    assert_eq!(taken, (0..200).map(Value::Int).collect::<Vec<_>>());
}

/// Devices that write in pieces of any size, close, reset and come again, against what each has sent whole.
#[tokio::test]
async fn whatever_devices_do_each_whole_line_comes_once_and_in_order() {
    for seed in 0..20 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let context = context();
        let (mut source, address) = listen("", &context).await;
        let mut sent: HashMap<String, i64> = HashMap::new();
        let mut came: HashMap<String, i64> = HashMap::new();
        let mut cut_off = 0;
        let mut devices: Vec<(TcpStream, String, Vec<u8>)> = Vec::new();
        for turn in 0..300 {
            match chance.u8(..10) {
                0..=1 if devices.len() < 20 => {
                    devices.push((device(address), format!("d{turn}"), Vec::new()))
                }
                2 if !devices.is_empty() => {
                    // Closed in order: what it has written arrives.
                    let (socket, _, rest) = devices.swap_remove(chance.usize(..devices.len()));
                    cut_off += u64::from(!rest.is_empty());
                    drop(socket);
                }
                3 => {
                    if let Ok(batch) = timeout(Duration::from_millis(1), source.next()).await {
                        note(&batch.unwrap(), &mut came);
                    }
                }
                _ if !devices.is_empty() => {
                    let at = chance.usize(..devices.len());
                    let (socket, name, rest) = &mut devices[at];
                    let number = sent.entry(name.clone()).or_insert(0);
                    if rest.is_empty() {
                        *rest = format!("{{\"dev\":\"{name}\",\"t\":{}}}\n", *number + 1).into_bytes();
                    }
                    let written = chance.usize(1..=rest.len());
                    socket.write_all(&rest[..written]).unwrap();
                    *rest = rest.split_off(written);
                    *number += i64::from(rest.is_empty());
                }
                _ => {}
            }
        }
        // What has not begun to be written is not cut off; what has, is.
        cut_off += u64::try_from(devices.iter().filter(|(_, _, rest)| !rest.is_empty()).count()).unwrap();
        drop(devices);
        sent.retain(|_, count| *count > 0);
        while came != sent {
            note(&next(&mut source).await.unwrap(), &mut came);
        }
        until(&mut source, || refused(&context, Refusal::CutOff) >= cut_off).await;
        drop(source);
        assert_eq!(refused(&context, Refusal::CutOff), cut_off, "seed {seed}");
        assert_eq!(refused(&context, Refusal::Undecodable), 0, "seed {seed}");
    }
}

/// Notes what has come; the numbers of each device follow one another.
fn note(batch: &Batch, came: &mut HashMap<String, i64>) {
    for (_, reading) in batch.readings.iter() {
        let last = came.entry(reading.device.to_owned()).or_insert(0);
        assert_eq!(reading.value, Value::Int(*last + 1), "{}", reading.device);
        *last += 1;
    }
}

#[tokio::test]
async fn what_keeps_it_from_listening_is_said_with_what_to_do() {
    let context = context();
    let (_source, address) = listen("", &context).await;
    for (toml, words) in [
        (format!("listen = '{address}'"), "another program, or another source, listens there: `ss -tlpn"),
        ("listen = '192.0.2.1:9300'".to_owned(), "the address 192.0.2.1 is not there"),
        (
            "listen = '127.0.0.1:0'\ntls = { cert = '/none.pem', key = '/none.key' }".to_owned(),
            "/none.pem is not there: install it",
        ),
    ] {
        let error = Tcp::open(&config(&toml).unwrap(), &context).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// Waits with tokio's time, which jumps to the next timer when there is nothing else to do.
#[tokio::test]
async fn where_a_silence_ends_a_frame_it_is_each_connections_own() {
    let context = context();
    let silence = "framing = { type = 'silence', idle_gap = '1s' }";
    let (mut source, address) = listen(silence, &context).await;
    let (mut one, mut other) = (device(address), device(address));
    one.write_all(b"{\"dev\":\"one\",\"t\":").unwrap();
    until(&mut source, || context.stats.bytes.load(Ordering::Relaxed) == 17).await;
    tokio::time::pause();
    other.write_all(b"{\"dev\":\"other\",\"t\":2}").unwrap();
    one.write_all(b"1}").unwrap();
    let mut taken = take(&mut source, 2).await;
    taken.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(taken, [int("one", 1), int("other", 2)]);
    let Side::Listener(listener) = &source.0 else { panic!("it dials") };
    assert_eq!(listener.due(), None);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = dial(listener.local_addr().unwrap(), silence, &context).await.unwrap();
    let (mut device, _) = listener.accept().unwrap();
    device.write_all(b"{\"t\":3}").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("field", 3)]);
}

//! A device that is dialled.

use super::*;

#[tokio::test]
async fn a_device_is_dialled_and_read_until_it_closes() {
    let context = context();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut source = dial(address, "", &context).await.unwrap();
    let (mut device, _) = listener.accept().unwrap();
    device.write_all(b"{\"t\":1}\n{\"t\"").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("field", 1)]);
    device.write_all(b":2}\n{").unwrap();
    assert_eq!(take(&mut source, 1).await, [int("field", 2)]);
    drop(device);
    let error = next(&mut source).await.unwrap_err().to_string();
    assert_eq!(error, format!("{address} went away: it closed the connection"));
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 1);

    drop(listener);
    let error = dial(address, "", &context).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{address} is not there: nothing listens there")), "{error}");
}

#[tokio::test]
async fn a_dialled_device_that_says_nothing_is_gone_after_a_while_and_not_for_what_was_not_read() {
    let context = context();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = dial(listener.local_addr().unwrap(), "idle_timeout = '1m'", &context).await.unwrap();
    let (mut device, _) = listener.accept().unwrap();
    device.write_all(b"{\"t\":1}\n").unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(take(&mut source, 1).await, [int("field", 1)]);
    let before = context.clock.monotonic();
    let error = source.next().await.unwrap_err().to_string();
    assert!(error.ends_with("it has said nothing for 1m (`idle_timeout`)"), "{error}");
    assert_eq!((context.clock.monotonic() - before).as_secs(), 60);
}

/// Reads a dialled source whose device writes `text` every half minute, whatever comes of it, for so long at most; gives
/// for how many minutes it did, and with what it ended.
async fn dripping(text: &[u8], table: &str, context: &Context) -> (f64, Option<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = dial(listener.local_addr().unwrap(), table, context).await.unwrap();
    let (mut device, _) = listener.accept().unwrap();
    device.set_nodelay(true).unwrap();
    device.write_all(b"{").unwrap();
    tokio::time::pause();
    let (mut minutes, mut ended) = (0.0, None);
    while minutes < 30.0 {
        device.write_all(text).unwrap();
        if let Err(error) = ask_for(&mut source, Duration::from_secs(30)).await {
            ended = Some(error.to_string());
            break;
        }
        minutes += 0.5;
    }
    tokio::time::resume();
    (minutes, ended)
}

#[tokio::test]
async fn a_dialled_device_that_begins_a_frame_and_never_ends_it_is_gone_after_ten_idle_timeouts() {
    let context = context();
    let (minutes, error) = dripping(b"x", "idle_timeout = '1m'", &context).await;
    let error = error.unwrap();
    assert!(error.ends_with("it has not ended a frame for 10m (`idle_timeout`)"), "{error}");
    assert!((9.5..10.5).contains(&minutes), "{minutes}");
    assert_eq!(refused(&context, Refusal::CutOff), 1);
}

#[tokio::test]
async fn a_dialled_device_that_ends_frames_may_be_in_the_middle_of_the_next_at_all_times() {
    let silence = "idle_timeout = '1m'\nframing = { type = 'silence', idle_gap = '1s' }";
    for (text, table) in [
        (&b"\"t\":1}\n{"[..], "idle_timeout = '1m'"),
        (b"\"t\":1}\n{", ""),
        (b"x", ""),
        // Each is ended by the silence behind it.
        (b"{\"t\":1}", silence),
    ] {
        let context = context();
        assert_eq!(dripping(text, table, &context).await, (30.0, None), "{table}");
    }
}

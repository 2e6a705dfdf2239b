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

//! The serial source on real pseudo-terminals.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weir::clock::Clock;
use weir::model::{Timestamp, Value};
use weir::sources::serial::{Config, Serial};
use weir::sources::{Batch, Context, Refusal, Source, SourceError, Stats};

#[path = "support/pty.rs"]
#[expect(dead_code, reason = "waiting until it is read is for other tests")]
mod pty;

use pty::Pty;

fn config(port: &Path) -> Config {
    let toml = format!("port = '{}'\nbaud = 115200\ndecode = {{ type = 'json' }}", port.display());
    toml::from_str(&toml).unwrap()
}

/// A port with other settings, which end in those of `framing`.
fn with(port: &Path, settings: &str) -> Config {
    let toml = format!("port = '{}'\ndecode = {{ type = 'json' }}\n{settings}", port.display());
    let config: Config = toml::from_str(&toml).unwrap();
    assert_eq!(weir::sources::Config::Serial(config.clone().into()).problems(), []);
    config
}

fn context() -> Context {
    let clock = Clock::injected(Timestamp(1_700_000_000_000), true);
    Context {
        name: "line".into(),
        clock,
        stats: Arc::new(Stats::default()),
        memory: Default::default(),
        ports: Default::default(),
    }
}

async fn open(pty: &Pty, context: &Context) -> Serial {
    Serial::open(&config(pty.port()), context).await.unwrap()
}

/// The next batch, or a failed test where none comes.
async fn next(source: &mut Serial) -> Result<Batch, SourceError> {
    tokio::time::timeout(Duration::from_secs(20), source.next()).await.expect("the source says nothing")
}

async fn values(source: &mut Serial, count: usize) -> Vec<(String, Value)> {
    let mut values = Vec::new();
    while values.len() < count {
        let batch = next(source).await.unwrap();
        assert_eq!(batch.readings.arrival.wall.0 / 60_000, 1_700_000_000_000 / 60_000);
        values.extend(batch.readings.iter().map(|(_, reading)| {
            assert_eq!(reading.device, "line");
            (reading.metric.to_owned(), reading.value.to_owned())
        }));
    }
    values
}

fn refused(context: &Context, refusal: Refusal) -> u64 {
    context.stats.refused().find(|(which, _)| *which == refusal).unwrap().1
}

#[tokio::test]
async fn lines_become_readings_in_order_and_a_bad_one_between_them_is_counted() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let mut source = open(&pty, &context).await;
    pty.write_all(b"{\"t\":1}\nnonsense\n{\"t\":2,\"p\":1.5}\r\n{\"t\"").unwrap();
    let expected = [("t", Value::Int(1)), ("t", Value::Int(2)), ("p", Value::Float(1.5))]
        .map(|(m, v)| (m.to_owned(), v));
    assert_eq!(values(&mut source, 3).await, expected);
    pty.write_all(b":3}\n").unwrap();
    assert_eq!(values(&mut source, 1).await, [("t".to_owned(), Value::Int(3))]);
    assert_eq!(refused(&context, Refusal::Undecodable), 1);
    assert_eq!(context.stats.readings.load(Ordering::Relaxed), 4);
    assert_eq!(context.stats.bytes.load(Ordering::Relaxed), 8 + 9 + 17 + 8);
}

#[tokio::test]
async fn what_waits_in_the_kernel_when_the_port_is_opened_is_read() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    pty.write_all(b"{\"t\":1}\n").unwrap();
    let mut source = open(&pty, &context).await;
    assert_eq!(values(&mut source, 1).await, [("t".to_owned(), Value::Int(1))]);
}

#[tokio::test]
async fn a_look_that_is_given_up_loses_nothing() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let mut source = open(&pty, &context).await;
    for number in 0..100 {
        pty.write_all(format!("{{\"t\":{number}").as_bytes()).unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(1), source.next()).await;
        assert!(given_up.is_err());
        pty.write_all(b"}\n").unwrap();
        assert_eq!(values(&mut source, 1).await, [("t".to_owned(), Value::Int(number))]);
    }
}

#[tokio::test]
async fn an_unplugged_port_is_gone_and_the_line_that_had_begun_is_counted() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let mut source = open(&pty, &context).await;
    let port = pty.port().display().to_string();
    pty.write_all(b"{\"t\":1}\n{\"t\"").unwrap();
    values(&mut source, 1).await;
    drop(pty);
    let error = next(&mut source).await.unwrap_err();
    assert!(matches!(error, SourceError::Gone { .. }), "{error}");
    assert_eq!(error.to_string(), format!("{port} went away: it was unplugged"));
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 1);
}

#[tokio::test]
async fn a_line_that_had_begun_when_weir_closes_the_port_is_counted() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let mut source = open(&pty, &context).await;
    pty.write_all(b"{\"t\":1}\n{\"t\"").unwrap();
    values(&mut source, 1).await;
    drop(source);
    assert_eq!(refused(&context, Refusal::CutOff), 1);
}

#[tokio::test]
async fn a_line_is_never_put_together_over_an_unplugged_port() {
    let (dir, context) = (tempfile::tempdir().unwrap(), context());
    let port = dir.path().join("port");
    for (text, whole) in [("{\"t\":1}\n{\"t\":5", 1), ("2}\n{\"t\":3}\n", 3)] {
        let mut pty = Pty::open().unwrap();
        let _ = std::fs::remove_file(&port);
        std::os::unix::fs::symlink(pty.port(), &port).unwrap();
        let mut source = Serial::open(&config(&port), &context).await.unwrap();
        pty.write_all(text.as_bytes()).unwrap();
        assert_eq!(values(&mut source, 1).await, [("t".to_owned(), Value::Int(whole))]);
        drop(pty);
        assert!(matches!(next(&mut source).await, Err(SourceError::Gone { .. })));
    }
    assert_eq!((refused(&context, Refusal::CutOff), refused(&context, Refusal::Undecodable)), (1, 1));
}

#[tokio::test]
async fn a_port_that_does_not_exist_is_missing() {
    let error = Serial::open(&config(Path::new("/dev/no-such-port")), &context()).await.unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }), "{error}");
    assert!(
        error.to_string().starts_with("/dev/no-such-port is not there: check that the adapter"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_port_is_refused() {
    let error = Serial::open(&config(Path::new("/dev/null")), &context()).await.unwrap_err();
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("no serial port: check that `port` names one"), "{error}");
}

#[tokio::test]
async fn a_port_that_another_program_reads_is_refused_until_that_lets_go() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let first = open(&pty, &context).await;
    let error = Serial::open(&config(pty.port()), &context).await.unwrap_err();
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("another program, or another source, has it open"), "{error}");
    drop(first);
    let mut second = open(&pty, &context).await;
    pty.write_all(b"{\"t\":1}\n").unwrap();
    assert_eq!(values(&mut second, 1).await.len(), 1);
}

#[tokio::test]
async fn after_a_mebibyte_of_noise_a_good_line_is_read() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let mut source = open(&pty, &context).await;
    let writer = std::thread::spawn(move || {
        let mut noise = vec![0; 1 << 20];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        pty.write_all(&noise).unwrap();
        pty.write_all(b"\n{\"t\":21.5}\n").unwrap();
        pty
    });
    assert_eq!(values(&mut source, 1).await, [("t".to_owned(), Value::Float(21.5))]);
    writer.join().unwrap();
    assert_eq!(context.stats.bytes.load(Ordering::Relaxed), (1 << 20) + 12);
    assert!(refused(&context, Refusal::NotText) > 1_000);
}

#[tokio::test]
async fn slip_frames_with_a_checksum_become_readings_and_a_damaged_one_is_counted() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let settings = "framing = { type = 'slip', checksum = { type = 'crc16_modbus' } }";
    let mut source = Serial::open(&with(pty.port(), settings), &context).await.unwrap();
    // Each is the JSON and its CRC-16/MODBUS, low byte first, as the Modbus specification has it.
    pty.write_all(b"\xc0{\"t\":1}\x99\x4a\xc0\xc0{\"t\":7}\x99\x4a\xc0\xc0{\"t\":1}\x99\x4a\xc0").unwrap();
    let one = ("t".to_owned(), Value::Int(1));
    assert_eq!(values(&mut source, 2).await, [one.clone(), one]);
    assert_eq!(refused(&context, Refusal::Checksum), 1);
}

#[tokio::test]
async fn a_silent_line_ends_the_frame_that_has_begun() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let settings = "framing = { type = 'silence', idle_gap = '20ms' }";
    let mut source = Serial::open(&with(pty.port(), settings), &context).await.unwrap();
    for number in 0..3 {
        pty.write_all(format!("{{\"t\":{number}}}").as_bytes()).unwrap();
        assert_eq!(values(&mut source, 1).await, [("t".to_owned(), Value::Int(number))]);
    }
}

#[tokio::test]
async fn a_frame_whose_rest_does_not_come_is_cut_off_and_the_next_is_whole() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let settings = "framing = { type = 'lines', idle_gap = '20ms' }";
    let mut source = Serial::open(&with(pty.port(), settings), &context).await.unwrap();
    pty.write_all(b"{\"t\"").unwrap();
    while refused(&context, Refusal::CutOff) == 0 {
        let nothing = tokio::time::timeout(Duration::from_millis(50), source.next()).await;
        assert!(nothing.is_err());
    }
    pty.write_all(b"{\"t\":2}\n").unwrap();
    assert_eq!(values(&mut source, 1).await, [("t".to_owned(), Value::Int(2))]);
    assert_eq!(refused(&context, Refusal::Undecodable), 0);
}

/// The device answers, then stays silent, then answers too late, then answers.
#[tokio::test]
async fn a_device_that_is_asked_gives_its_answers_and_a_late_one_is_none() {
    let (pty, context) = (Pty::open().unwrap(), context());
    let settings = "poll = { every = '2s', write = \"r?\\n\", timeout = '1s' }";
    let mut source = Serial::open(&with(pty.port(), settings), &context).await.unwrap();
    let (mut device, stats) = (pty.device().unwrap(), Arc::clone(&context.stats));
    let script = std::thread::spawn(move || {
        let mut asked = |answer: &[u8]| {
            let mut request = [0; 3];
            device.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"r?\n");
            device.write_all(answer).unwrap();
            device.try_clone().unwrap()
        };
        asked(b"{\"t\":1}\n");
        let mut device = asked(b"");
        let no_answer = || stats.refused().any(|refused| refused == (Refusal::NoAnswer, 1));
        while !no_answer() {
            std::thread::yield_now();
        }
        device.write_all(b"{\"t\":2}\n").unwrap();
        asked(b"{\"t\":3}\n");
    });
    assert_eq!(values(&mut source, 2).await, [1, 3].map(|t| ("t".to_owned(), Value::Int(t))));
    script.join().unwrap();
    assert_eq!(refused(&context, Refusal::NoAnswer), 1);
    assert_eq!(refused(&context, Refusal::NoiseBytes), 8, "the late answer");
}

#[tokio::test]
async fn what_a_driver_cannot_do_is_told_where_it_matters() {
    let (mut pty, context) = (Pty::open().unwrap(), context());
    let error = Serial::open(&with(pty.port(), "rs485 = {}"), &context).await.unwrap_err();
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("leave `rs485` out"), "{error}");
    let mut source = Serial::open(&with(pty.port(), "low_latency = true"), &context).await.unwrap();
    pty.write_all(b"{\"t\":1}\n").unwrap();
    assert_eq!(values(&mut source, 1).await.len(), 1);
}

/// The lines that are logged while it is there.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_once_that_nothing_has_come_since_the_port_was_opened() {
    let log = Log::default();
    let to = log.clone();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish(),
    );
    let said = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let mut pty = Pty::open().unwrap();
    let mut source = open(&pty, &context()).await;
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(Duration::from_secs(179), source.next()).await.is_err());
    assert_eq!(said(), "");
    for _ in 0..2 {
        assert!(tokio::time::timeout(hour, source.next()).await.is_err());
        assert_eq!(said().lines().count(), 1, "{}", said());
    }
    assert!(said().contains(" INFO ") && said().contains("nothing has come in the 3m"), "{}", said());
    assert!(said().contains("check the wiring"), "{}", said());

    // Where something has come, it is not told, whatever that was; nor where each request tells.
    drop(source);
    let mut source = open(&pty, &context()).await;
    pty.write_all(b"\xff").unwrap();
    let _ = tokio::time::timeout(hour, source.next()).await;
    drop(source);
    let polled = with(pty.port(), "poll = { every = '1h', write = '?' }");
    let mut source = Serial::open(&polled, &context()).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(600), source.next()).await;
    let told = said().lines().filter(|line| line.contains("nothing has come")).count();
    assert_eq!(told, 1, "{}", said());
}

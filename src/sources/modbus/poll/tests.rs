//! Who is asked when, on a line in memory and in the runtime's own time, which stands while anybody works.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::model::{Timestamp, Value};
use crate::sources::modbus::bus::Ports;
use crate::sources::modbus::rtu;
use crate::sources::tap::What;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// When which unit was asked for the register at which address.
type Asking = (Duration, u8, u8);

/// What came of which device's registers, and when.
type Answer = (Duration, String, Vec<Value>);

/// A line and whoever is asked on it, by one source or several. They tell ten times the address where `answers`, which
/// has the time, the unit and the address, says so.
struct Line {
    clock: Clock,
    context: Context,
    pollers: Vec<Poller>,
    asked: Arc<Mutex<Vec<Asking>>>,
}

impl Line {
    async fn new(tables: &[&str], mut answers: impl FnMut(Asking) -> bool + Send + 'static) -> Self {
        let config = |toml: &&str| -> Config {
            toml::from_str(&format!("port = '/nowhere'\nbaud = 115200\n{toml}")).unwrap()
        };
        let configs: Vec<_> = tables.iter().map(config).collect();
        let clock = Clock::injected(Timestamp(1_700_000_000_000), true);
        let context = Context {
            name: "meters".into(),
            clock: clock.clone(),
            stats: Arc::default(),
            memory: Default::default(),
            ports: Ports::default(),
        };
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let bus = context.ports.of(&configs[0].target().unwrap(), &clock);
        bus.open_on(ours).await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (told, time) = (asked.clone(), clock.clone());
        tokio::spawn(async move {
            let mut request = [0; 8];
            while theirs.read_exact(&mut request).await.is_ok() {
                let asking = (time.monotonic(), request[0], request[3]);
                told.lock().unwrap().push(asking);
                if answers(asking) {
                    let body = [request[0], 3, 2, 0, 10 * request[3]];
                    let answer = [&body[..], &rtu::crc(&body).to_le_bytes()].concat();
                    theirs.write_all(&answer).await.unwrap();
                }
            }
        });
        let mut pollers = Vec::new();
        for config in &configs {
            pollers.push(Poller::open(config, &context).await.unwrap());
        }
        Self { clock, context, pollers, asked }
    }

    /// Reads until then.
    async fn until(&mut self, end: Duration) -> Vec<Answer> {
        let read = |poller: Poller| tokio::spawn(read(poller, self.clock.clone(), end));
        let reading: Vec<_> = self.pollers.drain(..).map(read).collect();
        let mut all = Vec::new();
        for reading in reading {
            let (poller, answers) = reading.await.unwrap();
            self.pollers.push(poller);
            all.extend(answers);
        }
        all
    }

    fn asked(&self) -> Vec<Asking> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(mut poller: Poller, clock: Clock, end: Duration) -> (Poller, Vec<Answer>) {
    let mut answers = Vec::new();
    while clock.monotonic() < end {
        let (again, batch) = poller.round().await;
        poller = again;
        let readings = batch.unwrap().readings;
        let all: Vec<_> = readings.iter().map(|(_, reading)| reading).collect();
        let device = all[0].device.to_owned();
        assert!(all.iter().all(|reading| reading.device == device), "a batch is of one device");
        let values = all.iter().map(|reading| reading.value.to_owned()).collect();
        answers.push((clock.monotonic(), device, values));
    }
    (poller, answers)
}

fn devices(count: u8, every: impl Fn(u8) -> u64) -> String {
    let one = |unit: u8| {
        let every = every(unit);
        format!("{{ device = 'm{unit}', unit_id = {unit}, metric = 'a', address = 1, every = '{every}ms' }}")
    };
    format!("registers = [{}]", (1..=count).map(one).collect::<Vec<_>>().join(", "))
}

/// How long nothing came of `device` at most, up to then.
fn longest(answers: &[Answer], device: &str, end: Duration) -> Duration {
    let times: Vec<_> = answers.iter().filter(|answer| answer.1 == device).map(|answer| answer.0).collect();
    let gaps = times.iter().zip(times[1..].iter().chain([&end])).map(|(one, next)| next.saturating_sub(*one));
    gaps.max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_living_wait_for_one_timeout_at_a_time_when_all_others_die_at_once() {
    // At either end of the table, and anywhere where they are asked more often. That they live is not known before they
    // have answered once: those in the midst of others with the same beat may have to wait that once.
    for (living, beat, others) in
        [([1, 2], 1_000, 1_000), ([13, 14], 1_000, 1_000), ([7, 14], 1_000, 5_000), ([1, 14], 500, 1_000)]
    {
        let (dies, lives) = (ms(5_500), ms(300_000));
        let is_living = move |unit: u8| living.contains(&unit);
        let toml = devices(14, |unit| if is_living(unit) { beat } else { others });
        let mut line = Line::new(&[&format!("{toml}\ntimeout = '1s'\nretries = 2")], move |(at, unit, _)| {
            is_living(unit) || at < dies || at >= lives
        })
        .await;
        let answers = line.until(lives).await;
        for unit in living {
            let waited = longest(&answers, &format!("m{unit}"), lives);
            assert!(waited <= ms(beat + 1_000 + 150), "{living:?} every {beat} ms: {unit} waited {waited:?}");
        }
        // Each of the dead had its tries, one after the other, and then ever fewer.
        let asked = line.asked();
        for unit in (1..=14).filter(|unit| !is_living(*unit)) {
            let vain = asked.iter().filter(|(at, one, _)| *one == unit && *at >= dies).count();
            assert!((3..12).contains(&vain), "{unit} was asked {vain} times in vain");
        }
        let late = asked.iter().filter(|(at, unit, _)| !is_living(*unit) && *at > ms(200_000)).count();
        assert!(late <= 7, "they take a twentieth together: {late} of 100 seconds");
        // With power they are all read again.
        let answers = line.until(lives + ms(60_000)).await;
        let missing = (1..=14).filter(|unit| !answers.iter().any(|one| one.1 == format!("m{unit}")));
        assert_eq!(missing.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_that_gives_way_goes_on_where_it_was_and_what_was_read_does_not_wait_for_it() {
    let one = |unit: u8, metric: &str, address: u8| {
        format!("{{ unit_id = {unit}, device = 'm{unit}', metric = '{metric}', address = {address} }}")
    };
    let (a, b, other) = (one(1, "a", 1), one(1, "b", 9), one(2, "a", 2));
    let int = |value| vec![Value::Int(value)];
    let cases = [
        // With somebody else due the frame comes in two parts.
        (format!("{a}, {b}, {other}"), vec![(1, 1), (1, 9), (2, 2), (1, 9)], vec![int(10), int(20), int(90)]),
        (format!("{a}, {b}"), vec![(1, 1), (1, 9), (1, 9)], vec![[int(10), int(90)].concat()]),
    ];
    for (registers, order, values) in cases {
        let mut is_lost = true;
        let toml = format!("every = '10s'\ntimeout = '1s'\nretries = 1\nregisters = [{registers}]");
        let mut line = Line::new(&[&toml], move |(_, _, address)| {
            address != 9 || !std::mem::replace(&mut is_lost, false)
        })
        .await;
        let mut answers = Vec::new();
        while answers.len() < values.len() {
            answers.extend(line.until(line.clock.monotonic() + ms(1)).await.into_iter().map(|one| one.2));
        }
        assert_eq!(answers, values);
        let asked: Vec<_> = line.asked().into_iter().map(|(_, unit, address)| (unit, address)).collect();
        assert_eq!(asked[..order.len()], order);
        let refused = |which| line.context.stats.refused().find(|(one, _)| *one == which).unwrap().1;
        assert_eq!(refused(Refusal::NoAnswer), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_not_answered_twice_in_a_row_may_still_answer_the_last_time_that_it_is_asked() {
    // Each third request has an answer.
    let mut count = 0;
    let toml = devices(1, |_| 10_000) + "\ntimeout = '1s'\nretries = 2";
    let mut line = Line::new(&[&toml], move |_| {
        count += 1;
        count % 3 == 0
    })
    .await;
    assert_eq!(line.until(ms(92_000)).await.len(), 10);
    assert_eq!(line.asked().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn on_a_line_that_is_busy_throughout_the_dead_are_still_asked_and_nobody_is_passed_over() {
    // All are due whenever their turn comes, and two fail for a while.
    let toml = devices(8, |_| 10) + "\ntimeout = '1s'\nretries = 2\npause = '20ms'";
    let (dies, lives) = (ms(5_500), ms(60_000));
    let mut line = Line::new(&[&toml], move |(at, unit, _)| unit > 2 || at < dies || at >= lives).await;
    let answers = line.until(lives + ms(60_000)).await;
    for unit in 3..=8 {
        // Six rounds take 150 ms: it may be the first before one of the dead and the last after it.
        let waited = longest(&answers, &format!("m{unit}"), lives);
        assert!(waited <= ms(1_300), "{unit} waited {waited:?}");
    }
    for device in ["m1", "m2"] {
        assert!(answers.iter().any(|one| one.0 >= lives && one.1 == device), "{device} is read again");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_read_by_another_table_waits_for_one_timeout_at_a_time_as_well() {
    let rest = "\ntimeout = '1s'\nretries = 2";
    let dying = devices(12, |_| 1_000) + rest;
    let alone = "every = '1s'\nregisters = [{ unit_id = 20, device = 'm20', metric = 'a', address = 1 }]";
    let (dies, lives) = (ms(5_500), ms(100_000));
    let mut line = Line::new(&[&dying, &format!("{alone}{rest}")], move |(at, unit, _)| {
        unit == 20 || at < dies || at >= lives
    })
    .await;
    let answers = line.until(lives).await;
    let waited = longest(&answers, "m20", lives);
    assert!(waited <= ms(2_150), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn that_a_device_fell_silent_again_is_told_only_where_it_is_news() {
    let toml = devices(1, |_| 1_000) + "\ntimeout = '1s'\nretries = 0";
    // Each minute it is silent for the first half.
    let mut line = Line::new(&[&toml], |(at, ..)| at.as_secs() % 60 >= 30).await;
    let mut told = Vec::new();
    for minute in 1..=11 {
        line.until(ms(60_000 * minute - 5_000)).await;
        let device = &line.pollers[0].devices[0];
        told.push((device.falls.count(), device.told_silent));
    }
    let news = told.iter().filter(|(_, is_told)| *is_told).map(|(count, _)| *count);
    assert_eq!(news.collect::<Vec<_>>(), [1, 10], "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_looks_on_learns_each_time_when_a_silent_device_is_asked_again() {
    for (count, others) in [(1, ""), (2, " at the earliest, in turn with the others that are silent")] {
        let toml = devices(count, |_| 1_000) + "\ntimeout = '1s'\nretries = 0";
        let (dies, lives) = (ms(10_500), ms(60_000));
        let mut line = Line::new(&[&toml], move |(at, ..)| at < dies || at >= lives).await;
        let mut watcher = line.context.stats.tap().watch(line.clock.clone());
        line.until(lives).await;
        let (mut again, mut asked) = (Vec::new(), Vec::new());
        while let Ok(Some(event)) = tokio::time::timeout(ms(1), watcher.next()).await {
            match event.what {
                What::Refused { why, .. } if why.contains("again") => again.push(why),
                What::Sent(frame) => asked.push((event.at, frame.bytes[0])),
                _ => {}
            }
        }
        assert_eq!(again[0], "m1 is asked again in 1.0 s");
        // What is told is what comes.
        let died = asked.iter().position(|(at, _)| *at > 1_700_000_010_500).unwrap();
        assert!(again.len() >= 5 && again.iter().skip(1).all(|why| why.ends_with(others)), "{again:#?}");
        if count == 1 {
            let gaps = asked[died..].windows(2).map(|two| (two[1].0 - two[0].0) as f64 / 1_000.0 - 1.0);
            for (why, gap) in again.iter().zip(gaps) {
                let told: f64 = why.split(' ').nth(5).unwrap().parse().unwrap();
                assert!((told - gap).abs() < 0.6, "{why}, and it was {gap}: {again:#?}");
            }
        }
    }
}

/// What is logged in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines since it was last asked that have `words`.
    fn take(&self, words: &str) -> Vec<String> {
        let log = String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap();
        log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_on_which_nobody_has_answered_is_told_in_one_line_and_each_device_once_another_has() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // With a second dispatcher tracing asks both before it forgets a line.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let one = devices(3, |_| 1_000) + "\ntimeout = '1s'\nretries = 1";
    let two = "every = '1s'\ntimeout = '1s'\nregisters = [{ unit_id = 9, device = 'm9', metric = 'a', address = 1 }]";
    let lives = ms(300_000);
    let mut line = Line::new(&[&one, two], move |(at, unit, _)| at >= lives && unit != 9 && unit != 2).await;
    let reading =
        line.pollers.drain(..).map(|poller| tokio::spawn(read(poller, line.clock.clone(), ms(400_000))));
    let reading: Vec<_> = reading.collect();
    tokio::time::sleep(lives).await;
    let told = log.take(" answer");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains(
        "no device on /nowhere has answered yet: check `baud`, `parity`, and whether A and B are swapped"
    ));
    tokio::time::sleep(ms(200_000)).await;
    let told = log.take(" answer");
    let hint = "; check that it is on, its `unit_id` and its wiring";
    for silent in ["m2 (unit 2)", "m9 (unit 9)"] {
        let of: Vec<_> = told.iter().filter(|line| line.contains(silent)).collect();
        assert!(of.len() == 1 && of[0].contains(hint), "{told:#?}");
    }
    for alive in ["m1 (unit 1)", "m3 (unit 3)"] {
        assert_eq!(
            told.iter().filter(|line| line.contains(&format!("{alive} answers again after"))).count(),
            1
        );
    }
    assert_eq!(told.len(), 4, "{told:#?}");
    reading.iter().for_each(|reading| reading.abort());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_of_the_line_where_one_of_several_answers() {
    let toml = devices(2, |_| 1_000) + "\ntimeout = '1s'\nretries = 0";
    let mut line = Line::new(&[&toml], |(_, unit, _)| unit == 2).await;
    line.until(ms(60_000)).await;
    assert!(line.context.ports.of(&line.pollers[0].target, &line.clock).has_answered());
    assert!(!line.pollers[0].bus.was_told_mute() && !line.pollers[0].devices[0].to_tell);
}

#[tokio::test(start_paused = true)]
async fn a_mended_device_is_found_within_twenty_timeouts_or_one_beat_where_that_is_longer() {
    for (every, most) in [(5_000, 20_000), (30_000, 30_000)] {
        let mut longest = Duration::ZERO;
        for mended in 0..60 {
            let lives = ms(200_000 + 700 * mended);
            let toml = devices(1, |_| every) + "\ntimeout = '1s'";
            let mut line = Line::new(&[&toml], move |(at, ..)| at >= lives).await;
            let answers = line.until(lives).await;
            longest = longest.max(answers[0].0 - lives);
        }
        assert!(longest > ms(most - 1_000) && longest <= ms(most + 100), "every {every} ms: {longest:?}");
    }
}

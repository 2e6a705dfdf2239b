use super::*;
use crate::model::{Stamp, Timestamp};

const START: Timestamp = Timestamp(1_700_000_000_000);

fn config(toml: &str) -> Config {
    toml::from_str(toml).unwrap()
}

async fn open(toml: &str) -> (Simulated, Context) {
    let clock = Clock::injected(START, true);
    let context = Context {
        name: "demo".into(),
        clock,
        stats: Arc::default(),
        memory: Default::default(),
        ports: Default::default(),
    };
    (Simulated::open(&config(toml), &context).await.unwrap(), context)
}

async fn look(source: &mut Simulated) -> (Stamp, Vec<(String, String, f64)>) {
    let readings = source.next().await.unwrap().readings;
    let own = |(_, reading): (u32, Reading<'_>)| {
        (reading.device.to_owned(), reading.metric.to_owned(), reading.value.number().unwrap())
    };
    (readings.arrival, readings.iter().map(own).collect())
}

#[tokio::test(start_paused = true)]
async fn without_a_key_it_measures_two_metrics_a_second() {
    let (mut source, context) = open("").await;
    for second in 0..3 {
        let (arrival, readings) = look(&mut source).await;
        assert_eq!(arrival.wall, Timestamp(START.0 + 1000 * second));
        let names: Vec<_> = readings.iter().map(|(device, metric, _)| (&**device, &**metric)).collect();
        assert_eq!(names, [("demo-1", "temperature"), ("demo-1", "pressure")]);
    }
    assert_eq!(context.stats.readings.load(Ordering::Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn who_looks_on_sees_what_it_measures() {
    let (mut source, context) = open("").await;
    let mut watcher = context.tap().watch(context.clock.clone());
    look(&mut source).await;
    let what = watcher.next().await.unwrap().what;
    let crate::sources::tap::What::Decoded { readings, count: 2, ignored: 0, .. } = what else {
        panic!("{what:?}")
    };
    assert_eq!((&*readings[0].device, &*readings[0].metric), ("demo-1", "temperature"));
}

#[tokio::test(start_paused = true)]
async fn a_sine_swings_around_its_base_with_its_period() {
    let (mut source, _) =
        open("metrics = [{ type = 'sine', name = 's', base = 10, amplitude = 2, period = '8s' }]").await;
    let phase = source.devices[0].states[0];
    for second in 0..20 {
        let (_, readings) = look(&mut source).await;
        let expected = 10.0 + 2.0 * (TAU * (f64::from(second) / 8.0 + phase)).sin();
        assert!((readings[0].2 - expected).abs() < 1e-9, "second {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_random_walk_starts_at_its_base_and_takes_no_step_that_is_too_long() {
    let (mut source, _) =
        open("metrics = [{ type = 'random_walk', name = 'w', base = 5, step = 0.5 }]").await;
    let mut before = 5.0;
    let mut moved = 0.0;
    for _ in 0..1000 {
        let value = look(&mut source).await.1[0].2;
        assert!((value - before).abs() <= 0.5 + 1e-9);
        moved += (value - before).abs();
        before = value;
    }
    assert!((200.0..300.0).contains(&moved), "a quarter a step on average, not {moved}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_readings_and_another_seed_others() {
    let mut runs = Vec::new();
    for toml in ["devices = 3\nseed = 7", "devices = 3\nseed = 7", "devices = 3\nseed = 8"] {
        let (mut source, _) = open(toml).await;
        let mut run = Vec::new();
        for _ in 0..10 {
            run.extend(look(&mut source).await.1);
        }
        assert_eq!(run.len(), 60);
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn rounds_that_were_missed_are_left_out() {
    let (mut source, _) = open("every = '10ms'").await;
    look(&mut source).await;
    tokio::time::advance(Duration::from_millis(35)).await;
    let mut arrivals = Vec::new();
    for _ in 0..2 {
        arrivals.push(look(&mut source).await.0.wall.0 - START.0);
    }
    assert_eq!(arrivals, [35, 40]);
}

#[tokio::test(start_paused = true)]
async fn a_round_too_large_for_one_batch_comes_in_several_and_loses_no_device() {
    let prefix = "d".repeat(120);
    let (mut source, _) =
        open(&format!("devices = 10000\ndevice = '{prefix}'\nmetrics = [{{ type = 'sine', name = 's' }}]"))
            .await;
    for _ in 0..2 {
        let (first, mut readings) = look(&mut source).await;
        let mut batches = 1;
        while readings.len() < 10_000 {
            let (arrival, more) = look(&mut source).await;
            assert_eq!(arrival, first, "the same round");
            readings.extend(more);
            batches += 1;
        }
        assert!(batches > 1);
        assert_eq!(readings[9_999].0, format!("{prefix}-10000"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_name_that_is_too_long_is_refused_and_counted() {
    let (mut source, context) = open(&format!("device = '{}'", "d".repeat(128))).await;
    assert_eq!(look(&mut source).await.1, []);
    assert!(context.stats.refused().any(|refused| refused == (Refusal::BadName, 1)));
}

#[test]
fn what_is_out_of_bounds_is_a_problem_at_its_key() {
    assert_eq!(Config::default().problems(), []);
    for (toml, key) in [
        ("devices = 0", "devices"),
        ("devices = 5001", "devices"),
        ("metrics = []", "devices"),
        ("every = '0s'", "every"),
        ("every = '2days'", "every"),
        ("metrics = [{ type = 'sine', name = '' }]", "metrics"),
        ("metrics = [{ type = 'sine', name = 's', base = nan }]", "metrics"),
        ("metrics = [{ type = 'sine', name = 's', period = '0s' }]", "metrics"),
        ("metrics = [{ type = 'random_walk', name = 'w', step = inf }]", "metrics"),
        ("metrics = [{ type = 'sine', name = 's' }, { type = 'sine', name = 's' }]", "metrics"),
    ] {
        let problems = config(toml).problems();
        assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key], "{toml}");
    }
    let long = config(&format!("device = '{}'", "d".repeat(127)));
    assert_eq!(long.problems()[0].0, "device");
}

#[test]
fn a_key_of_another_shape_is_refused() {
    let error = toml::from_str::<Config>("metrics = [{ type = 'sine', name = 's', step = 1 }]").unwrap_err();
    assert!(error.to_string().contains("unknown field `step`"), "{error}");
}

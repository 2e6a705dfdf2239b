//! Simulated sensors, for demonstrations and benchmarks.
//!
//! What they measure follows from the seed alone: the n-th reading of a series is the same in every run.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Interval, MissedTickBehavior};

use super::{Batch, Context, Refusal, Source, SourceError, Stats};
use crate::clock::Clock;
use crate::model::{NAME_MAX, Reading, Readings, Value, is_name};
use crate::units;

/// A source of `type = "simulated"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many devices, each with all the metrics. Devices times metrics is 1 to [`SERIES_MAX`].
    pub devices: u32,
    /// What their names begin with, before `-1`, `-2` and so on; by default the source's name.
    pub device: Option<Box<str>>,
    /// How often each device reads its metrics: 1 ms to a day. What could not be read in time is left out.
    #[serde(deserialize_with = "units::duration")]
    pub every: Duration,
    /// Where chance begins.
    pub seed: u64,
    /// What each device measures; by default a temperature (a sine) and a pressure (a random walk).
    pub metrics: Vec<Metric>,
}

/// The most series that one source simulates.
pub const SERIES_MAX: u64 = 10_000;

/// One metric of each device, by its `type`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// It swings around its base, each device at a phase of its own.
    Sine {
        /// The metric's name.
        name: Box<str>,
        /// Its unit.
        unit: Option<Box<str>>,
        /// The middle.
        #[serde(default)]
        base: f64,
        /// How far it swings to either side.
        #[serde(default = "one")]
        amplitude: f64,
        /// How long one swing takes: 1 ms to a year.
        #[serde(default = "minute", deserialize_with = "units::duration")]
        period: Duration,
    },
    /// It strays by chance, without bounds.
    RandomWalk {
        /// The metric's name.
        name: Box<str>,
        /// Its unit.
        unit: Option<Box<str>>,
        /// Where it starts.
        #[serde(default)]
        base: f64,
        /// How far it goes at most from one reading to the next.
        #[serde(default = "one")]
        step: f64,
    },
}

fn one() -> f64 {
    1.0
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

impl Default for Config {
    fn default() -> Self {
        let (name, unit) = ("temperature".into(), Some("Cel".into()));
        let temperature = Metric::Sine { name, unit, base: 20.0, amplitude: 5.0, period: minute() };
        let (name, unit) = ("pressure".into(), Some("hPa".into()));
        let pressure = Metric::RandomWalk { name, unit, base: 1013.0, step: 0.5 };
        Self {
            devices: 1,
            device: None,
            every: Duration::from_secs(1),
            seed: 0,
            metrics: vec![temperature, pressure],
        }
    }
}

/// The greatest number that a metric's keys take, either way: far from where floats overflow.
const NUMBER_MAX: f64 = 1e9;

impl Metric {
    fn name(&self) -> &str {
        match self {
            Self::Sine { name, .. } | Self::RandomWalk { name, .. } => name,
        }
    }

    fn unit(&self) -> Option<&str> {
        match self {
            Self::Sine { unit, .. } | Self::RandomWalk { unit, .. } => unit.as_deref(),
        }
    }

    fn problem(&self) -> Option<String> {
        let name = self.name();
        if !is_name(name) {
            return Some(format!("a metric's name must have 1 to {NAME_MAX} bytes"));
        }
        let numbers = match self {
            Self::Sine { base, amplitude, .. } => [("base", *base), ("amplitude", *amplitude)],
            Self::RandomWalk { base, step, .. } => [("base", *base), ("step", *step)],
        };
        if let Some((key, number)) =
            numbers.into_iter().find(|(_, x)| !(-NUMBER_MAX..=NUMBER_MAX).contains(x))
        {
            return Some(format!("`{key}` {number} of metric `{name}` must lie within -1e9 and 1e9"));
        }
        match self {
            Self::Sine { period, .. } if !(PERIOD_MIN..=PERIOD_MAX).contains(period) => {
                Some(format!("`period` of metric `{name}` must lie within 1ms and a year"))
            }
            _ => None,
        }
    }
}

const PERIOD_MIN: Duration = Duration::from_millis(1);
const PERIOD_MAX: Duration = Duration::from_secs(365 * 86_400);
const EVERY_MIN: Duration = Duration::from_millis(1);
const EVERY_MAX: Duration = Duration::from_secs(86_400);

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(EVERY_MIN..=EVERY_MAX).contains(&self.every) {
            problems.push(("every", "`every` must lie within 1ms and 1day".to_owned()));
        }
        if self.device.as_ref().is_some_and(|prefix| !is_name(&format!("{prefix}-{}", self.devices))) {
            problems.push((
                "device",
                format!("a device's name, with its number, must have at most {NAME_MAX} bytes"),
            ));
        }
        let series = u64::from(self.devices) * self.metrics.len() as u64;
        if !(1..=SERIES_MAX).contains(&series) {
            let product = format!("{} devices with {} metrics each", self.devices, self.metrics.len());
            problems
                .push(("devices", format!("{product} are {series} series: 1 to {SERIES_MAX} are possible")));
        }
        for (index, metric) in self.metrics.iter().enumerate() {
            problems.extend(metric.problem().map(|problem| ("metrics", problem)));
            if self.metrics[..index].iter().any(|other| other.name() == metric.name()) {
                problems.push(("metrics", format!("metric `{}` is there twice", metric.name())));
            }
        }
        problems
    }
}

/// The sensors.
#[derive(Debug)]
pub struct Simulated {
    source: Arc<str>,
    clock: Clock,
    stats: Arc<Stats>,
    every: Duration,
    interval: Interval,
    metrics: Vec<Metric>,
    devices: Vec<Device>,
    chance: fastrand::Rng,
    /// How often all devices have been read.
    rounds: u64,
    /// The next device of this round; past the last where the next round is waited for.
    next: usize,
}

#[derive(Debug)]
struct Device {
    name: Box<str>,
    /// For each metric: a sine's phase in swings, or how far a random walk has strayed.
    states: Box<[f64]>,
}

impl Source for Simulated {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        let prefix = config.device.as_deref().unwrap_or(&context.name);
        let mut chance = fastrand::Rng::with_seed(config.seed);
        let mut device = |number| {
            let state = |metric: &Metric| match metric {
                Metric::Sine { .. } => chance.f64(),
                Metric::RandomWalk { .. } => 0.0,
            };
            Device {
                name: format!("{prefix}-{number}").into(),
                states: config.metrics.iter().map(state).collect(),
            }
        };
        let devices: Vec<_> = (1..=config.devices).map(&mut device).collect();
        let mut interval = tokio::time::interval(config.every.max(EVERY_MIN));
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Ok(Self {
            source: context.name.clone(),
            clock: context.clock.clone(),
            stats: context.stats.clone(),
            every: config.every,
            interval,
            metrics: config.metrics.clone(),
            next: devices.len(),
            devices,
            chance,
            rounds: 0,
        })
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        if self.next >= self.devices.len() {
            self.interval.tick().await;
            self.next = 0;
        }
        let mut readings = Readings::new(self.clock.now());
        while !readings.is_full() && self.next < self.devices.len() {
            self.measure(&mut readings);
            self.next += 1;
        }
        self.rounds += u64::from(self.next >= self.devices.len());
        self.stats.readings.fetch_add(readings.len() as u64, Ordering::Relaxed);
        if self.stats.tap().is_watched() {
            self.stats.tap().decoded(&readings, 0, 0, None);
        }
        Ok(Batch { readings, receipt: None })
    }
}

impl Simulated {
    /// Reads all metrics of the next device.
    fn measure(&mut self, out: &mut Readings) {
        let Some(device) = self.devices.get_mut(self.next) else { return };
        if !is_name(&device.name) {
            self.stats.refuse(&self.source, Refusal::BadName, || {
                format!(
                    "a device's name must have at most {NAME_MAX} bytes: give the source a shorter `device`"
                )
            });
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "at 1 ms a round it takes 285,000 years")]
        let elapsed = self.every.as_secs_f64() * self.rounds as f64;
        for (metric, state) in self.metrics.iter().zip(&mut device.states) {
            let value = match metric {
                Metric::Sine { base, amplitude, period, .. } => {
                    base + amplitude * (TAU * (elapsed / period.as_secs_f64() + *state)).sin()
                }
                Metric::RandomWalk { base, step, .. } => {
                    *state += step * (2.0 * self.chance.f64() - 1.0);
                    base + *state
                }
            };
            out.push(Reading {
                device: &device.name,
                metric: metric.name(),
                value: Value::Float(value),
                time: None,
                unit: metric.unit(),
            });
        }
        out.end_frame();
    }
}

#[cfg(test)]
mod tests;

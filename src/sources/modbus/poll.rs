//! What is asked in a round, and the readings that the answers give. `turns` says whose turn it is, `books` has what is
//! remembered of who answers, and `words` what to do about it.

mod books;
mod turns;
mod words;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bus::Bus;
use super::config::{Config, Framing, Target, Unit};
use super::line::{Manner, Outcome};
use super::pdu::Asked;
use super::plan::{Request, plan};
use super::register::NoValue;
use super::schedule::{Due, Falls, Silence};
use crate::clock::Clock;
use crate::model::{Reading, Readings};
use crate::sources::{Batch, Context, Refusal, SourceError, Stats};
use books::Told;
use turns::{Held, Stand, Vain};

/// All devices of one source.
pub(super) struct Poller {
    source: Arc<str>,
    clock: Clock,
    stats: Arc<Stats>,
    bus: Arc<Bus>,
    retries: u8,
    pause: Duration,
    max_gap: u16,
    target: Target,
    devices: Vec<Device>,
    rounds: Vec<Round>,
    /// When somebody who had answered before was last waited for in vain.
    vain: Duration,
    /// Whether it was told that more comes than answers.
    told_babble: bool,
    /// Why the line failed in the midst of a round.
    failed: Option<SourceError>,
    /// Scratch: an answer's bytes, and a text in it.
    values: Vec<u8>,
    text: String,
}

struct Device {
    name: Box<str>,
    unit_id: u8,
    timeout: Duration,
    silence: Silence,
    /// When it last answered.
    answered: Duration,
    /// A round of it that gave way.
    held: Option<Held>,
    /// Since when it has not answered.
    silent_since: Option<Duration>,
    falls: Falls,
    /// Whether it is worth telling that it is silent; else it is not told either that it answers again.
    told_silent: bool,
    /// Whether that is still to be told, as it may be the line.
    to_tell: bool,
    /// Whether it was told that its answers come too late.
    told_late: bool,
    /// Who it was last told that answers instead.
    told_other: Option<u8>,
}

/// What is read of one device at one beat.
struct Round {
    device: usize,
    due: Due,
    /// When it last began.
    begun: Duration,
    requests: Vec<Ask>,
    /// When something was last asked for apart that had been asked for together.
    parted: Option<Duration>,
    /// Whether the device has given what it had refused: then it may give together what it did not.
    is_changed: bool,
}

struct Ask {
    request: Request,
    silence: Silence,
    /// It had no answer when the device was found to answer something else: then it is not the device that is silent.
    suspect: bool,
    /// What was last said of it, so that it is said once.
    told: Option<Told>,
}

impl Poller {
    pub(super) async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        let config = &config.with_map()?;
        let Some(target) = config.target() else {
            let hint = "write a `port` or an `address`".to_owned();
            return Err(SourceError::Missing { what: "the line".to_owned(), hint });
        };
        let bus = context.ports.of(&target, &context.clock);
        bus.open().await?;
        let now = context.clock.monotonic();
        let (mut devices, mut rounds) = (Vec::new(), Vec::new());
        for unit in config.units(&context.name) {
            rounds.extend(beats(&unit, devices.len(), config, now));
            devices.push(Device {
                name: unit.device,
                unit_id: unit.unit_id,
                timeout: unit.timeout,
                silence: Silence::default(),
                answered: Duration::ZERO,
                held: None,
                silent_since: None,
                falls: Falls::default(),
                told_silent: false,
                to_tell: false,
                told_late: false,
                told_other: None,
            });
        }
        Ok(Self {
            source: context.name.clone(),
            clock: context.clock.clone(),
            stats: context.stats.clone(),
            bus,
            retries: config.retries,
            pause: config.pause,
            max_gap: config.max_gap,
            target,
            devices,
            rounds,
            vain: Duration::ZERO,
            told_babble: false,
            failed: None,
            values: Vec::new(),
            text: String::new(),
        })
    }

    /// Waits for the next round that brings readings.
    pub(super) async fn round(mut self) -> (Self, Result<Batch, SourceError>) {
        if let Some(error) = self.failed.take() {
            return (self, Err(error));
        }
        loop {
            let round = self.wait().await;
            let batch = match self.ask_all(round).await {
                Ok(readings) if readings.is_empty() => continue,
                Ok(readings) => Ok(Batch { readings, receipt: None }),
                Err(error) => Err(error),
            };
            return (self, batch);
        }
    }

    /// Asks all that a round has, as long as the device answers. Where it does not, the round gives way to those that
    /// are due, and is gone on with later: what has been read by then does not wait for it.
    async fn ask_all(&mut self, index: usize) -> Result<Readings, SourceError> {
        let mut readings = Readings::new(self.clock.now());
        let mut stand = self.take_up(index).unwrap_or_else(|| self.begin(index));
        while let Some(is_asked) = self.is_to_be_asked(index, &stand) {
            let next = if is_asked { self.ask(index, &mut stand).await } else { Ok(Next::Skip) };
            match next {
                Ok(Next::Skip) => {
                    match self.rounds.get_mut(index).and_then(|round| round.requests.get_mut(stand.place..)) {
                        // What is in doubt may be clear once the device has said something else.
                        Some(rest) if stand.put_off < rest.len() => {
                            rest.rotate_left(1);
                            stand.put_off += 1;
                        }
                        _ => stand.place += 1,
                    }
                }
                Ok(Next::Go) => {
                    stand.answered = true;
                    self.decode(index, stand.place, &mut readings);
                    stand.place += 1;
                }
                Ok(Next::Refused) => {
                    stand.answered = true;
                    stand.place += 1;
                }
                Ok(Next::Again) => stand.answered = true,
                Ok(Next::Later) => {
                    self.hold(index, stand);
                    if self.next() != Some(index) {
                        break;
                    }
                    self.take_up(index);
                }
                Ok(Next::Stop) => break,
                Err(error) if readings.is_empty() => return Err(error),
                Err(error) => {
                    // What has been read goes out first.
                    self.failed = Some(error);
                    break;
                }
            }
        }
        readings.end_frame();
        self.stats.readings.fetch_add(readings.len() as u64, Ordering::Relaxed);
        Ok(readings)
    }

    /// Begins a round.
    fn begin(&mut self, index: usize) -> Stand {
        let mut stand = Stand::default();
        let Some(round) = self.rounds.get_mut(index) else { return stand };
        round.begun = self.clock.monotonic();
        let missed = round.due.done(round.begun);
        stand.on_trial = self.devices.get(round.device).is_some_and(|device| device.silence.is_silent());
        if missed > 0 && !stand.on_trial {
            self.stats.leave_out(&self.source, missed);
        }
        self.join(index);
        if stand.on_trial {
            self.turn(index);
        }
        stand
    }

    /// A silent device is asked for something else each time, as it may be silent about one thing alone; but not
    /// while an answer to the last may still come.
    fn turn(&mut self, index: usize) {
        let now = self.clock.monotonic();
        let Some(round) = self.rounds.get_mut(index) else { return };
        let unit = self.devices.get(round.device).map(|device| device.unit_id);
        let by = match unit.and_then(|unit| self.bus.doubted(unit, self.clock.instant(now))) {
            Some(asked) => round.requests.iter().position(|ask| ask.request.asked == asked).unwrap_or(0),
            None => usize::from(round.requests.len() > 1),
        };
        round.requests.rotate_left(by);
    }

    /// Whether the next request is asked now; `None` where there is none.
    fn is_to_be_asked(&self, index: usize, stand: &Stand) -> Option<bool> {
        let round = self.rounds.get(index)?;
        let ask = round.requests.get(stand.place)?;
        if stand.vain.is_some() {
            return Some(true);
        }
        let now = self.clock.monotonic();
        let doubtful = self.bus.is_doubtful(ask.request.asked, self.clock.instant(now));
        let silent = ask.silence.is_silent() && now < ask.silence.until().max(self.bus.patient_until());
        // Where the device itself is on trial, anything may be asked.
        Some(!doubtful && (stand.on_trial && !stand.answered || !silent))
    }

    /// Asks once for one thing, which may be asked for again as often as the device has deserved.
    async fn ask(&mut self, index: usize, stand: &mut Stand) -> Result<Next, SourceError> {
        let place = stand.place;
        let Some((device, ask)) =
            self.rounds.get(index).and_then(|round| Some((round.device, round.requests.get(place)?)))
        else {
            return Ok(Next::Stop);
        };
        let Some(who) = self.devices.get(device) else { return Ok(Next::Stop) };
        let asked = ask.request.asked;
        let manner = Manner {
            timeout: who.timeout,
            pause: self.pause,
            has_other: self.has_other(index, asked),
            in_doubt: false,
        };
        let is_known = ask.silence.is_silent() || who.silence.is_silent();
        let before = stand.vain.take();
        let tap = self.stats.tap();
        let heard = self.bus.ask(&asked, manner, &self.clock, &mut self.values, tap).await?;
        let Some((mut heard, took)) = heard else {
            let Some(Vain { cost, outcome, .. }) = before else { return Ok(Next::Skip) };
            self.is_silent(index, place, stand.answered, cost, outcome);
            return Ok(Next::Stop);
        };
        self.stats.bytes.fetch_add(heard.bytes, Ordering::Relaxed);
        if matches!(heard.outcome, Outcome::Other(unit) if self.is_late(unit)) {
            heard.outcome = Outcome::Silence;
        }
        let outcome = heard.outcome;
        self.note(device, &asked, &heard);
        match outcome {
            Outcome::Values => {
                self.is_well(index, place, device);
                return Ok(Next::Go);
            }
            Outcome::Exception(exception) if !exception.is_silence() => {
                self.answers(device);
                return Ok(self.refused(index, place, exception));
            }
            Outcome::Unclear => {
                self.answers(device);
                return Ok(Next::Refused);
            }
            Outcome::Exception(_)
            | Outcome::Silence
            | Outcome::Closed
            | Outcome::Other(_)
            | Outcome::Damaged => {}
        }
        if !is_known {
            self.vain = self.clock.monotonic();
        }
        // With the connection gone the others wait for the next one.
        let took = if outcome == Outcome::Closed { took.max(manner.timeout) } else { took };
        let (cost, left) = match before {
            Some(before) => (before.cost + took, before.left),
            None => (took, if is_known { 0 } else { self.retries }),
        };
        // A gateway that says that it waited in vain has tried for itself.
        match left.checked_sub(1).filter(|_| !matches!(outcome, Outcome::Exception(_))) {
            Some(left) => {
                stand.vain = Some(Vain { left, cost, outcome });
                Ok(Next::Later)
            }
            None => {
                self.is_silent(index, place, stand.answered, cost, outcome);
                Ok(Next::Stop)
            }
        }
    }

    /// Whether a round asks for something else whose answer could not be taken for that to `asked`. What the device
    /// refuses, or is silent at, counts as well: it may do so for as long as that to `asked` is late.
    fn has_other(&self, index: usize, asked: Asked) -> bool {
        let is_other = |ask: &Ask| !ask.request.asked.looks_like(&asked);
        self.rounds.get(index).is_some_and(|round| round.requests.iter().any(is_other))
    }

    /// Whether answers do not say which request they answer.
    fn is_rtu(&self) -> bool {
        !matches!(self.target, Target::Network(_, Framing::Tcp))
    }

    /// Whether what came of that unit may be an answer to an earlier request: on Modbus TCP that is known.
    fn is_late(&self, unit: u8) -> bool {
        let is_asked = || self.devices.iter().any(|device| device.unit_id == unit);
        self.is_rtu()
            && (is_asked() || self.bus.doubted(unit, self.clock.instant(self.clock.monotonic())).is_some())
    }

    /// Makes readings of an answer.
    fn decode(&mut self, index: usize, place: usize, readings: &mut Readings) {
        readings.arrival = self.clock.now();
        let Some(round) = self.rounds.get(index) else { return };
        let (Some(device), Some(ask)) = (self.devices.get(round.device), round.requests.get(place)) else {
            return;
        };
        let first = readings.len();
        for register in &ask.request.registers {
            let at = register.address.saturating_sub(ask.request.asked.address);
            match register.value(&self.values, at, &mut self.text) {
                Ok(value) => readings.push(Reading {
                    device: &device.name,
                    metric: &register.metric,
                    value,
                    time: None,
                    unit: register.unit.as_deref(),
                }),
                Err(why) => {
                    let refusal = match why {
                        NoValue::NotFinite => Refusal::NotFinite,
                        NoValue::NotText => Refusal::NotText,
                        NoValue::TooShort => Refusal::Undecodable,
                    };
                    self.stats.refuse(&self.source, refusal, || {
                        format!("{} of {} gives no reading: {why}", register.metric, device.name)
                    });
                }
            }
        }
        if self.stats.tap().is_watched() {
            self.stats.tap().decoded(readings, first, 0, None);
        }
    }
}

/// How a round goes on.
enum Next {
    /// This is not asked now.
    Skip,
    /// There are values.
    Go,
    /// There are none, and the device answers.
    Refused,
    /// Something else stands in the request's place.
    Again,
    /// There was no answer, and it is asked for again after the others.
    Later,
    /// The device is left alone.
    Stop,
}

impl Ask {
    fn new(request: Request) -> Self {
        Self { request, silence: Silence::default(), suspect: false, told: None }
    }
}

/// A unit's registers, a round for each beat.
fn beats(unit: &Unit, device: usize, config: &Config, now: Duration) -> Vec<Round> {
    let mut beats: Vec<(Duration, Vec<_>)> = Vec::new();
    for register in &unit.registers {
        let every = register.every.unwrap_or(config.every);
        match beats.iter_mut().find(|(one, _)| *one == every) {
            Some((_, registers)) => registers.push(register.clone()),
            None => beats.push((every, vec![register.clone()])),
        }
    }
    let round = |(every, registers): (Duration, Vec<_>)| {
        let requests = plan(unit.unit_id, &registers, config.max_gap);
        Round {
            device,
            due: Due::new(every, now),
            begun: Duration::ZERO,
            requests: requests.into_iter().map(Ask::new).collect(),
            parted: None,
            is_changed: false,
        }
    };
    beats.into_iter().map(round).collect()
}

#[cfg(test)]
mod tests;

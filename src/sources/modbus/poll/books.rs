//! The books that a poller keeps: who answers and who is silent, what is refused, and what of it was told, so that each
//! thing is told once and again only when it has changed.

use std::time::Duration;

use super::{Ask, Device, Next, Poller, Round, words};
use crate::sources::Refusal;
use crate::sources::modbus::line::{Heard, Outcome};
use crate::sources::modbus::pdu::{Asked, Exception};
use crate::sources::modbus::plan::{Request, plan};
use crate::units;

/// So long is read apart what was refused together, at least: then it is tried together again where there is news.
const APART: Duration = Duration::from_secs(600);

const GAPS: &str = "between those asked for lie some that it may not have: they are read apart from now on, and `max_gap = 0` says so from the start";

const HUNG_UP: &str = "the connection is closed when it is asked";

/// What was last said of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Exception(Exception),
    Silent,
}

impl Poller {
    /// Counts what was heard.
    pub(super) fn note(&mut self, device: usize, asked: &Asked, heard: &Heard) {
        let instead = u32::from(self.is_rtu() && matches!(heard.outcome, Outcome::Other(_)));
        for _ in instead..heard.late {
            self.stats.count(Refusal::Late);
        }
        let late = heard.late_unit.and_then(|unit| self.devices.iter_mut().find(|one| one.unit_id == unit));
        if let Some(late) = late {
            if !late.told_late {
                late.told_late = true;
                tracing::warn!(
                    source = &*self.source,
                    "{} (unit {}) answers later than its `timeout` of {}: such answers are left out, so raise it",
                    late.name,
                    late.unit_id,
                    units::show(late.timeout)
                );
            }
        }
        let Some(device) = self.devices.get(device) else { return };
        if heard.babble && !self.told_babble {
            self.told_babble = true;
            tracing::warn!(
                source = &*self.source,
                "bytes without end came while {} (unit {}) was asked: such an exchange is given up, and a connection is made anew; see what else speaks there",
                device.name,
                device.unit_id
            );
        }
        if self.stats.tap().is_watched() {
            let cause = match heard.outcome {
                Outcome::Silence => Some((Refusal::NoAnswer, "it does not answer".to_owned())),
                Outcome::Closed => Some((Refusal::NoAnswer, HUNG_UP.to_owned())),
                Outcome::Other(unit) => Some((Refusal::OtherUnit, answered_instead(unit))),
                Outcome::Exception(exception) => Some((Refusal::Exception, exception.to_string())),
                Outcome::Unclear => Some((
                    Refusal::Exception,
                    "the exception may be a late answer to something else".to_owned(),
                )),
                Outcome::Values | Outcome::Damaged => None,
            };
            if let Some((refusal, why)) = cause {
                self.stats.tap().refused(refusal.name(), format!("{}, {asked}: {why}", device.name));
            }
        }
        match heard.outcome {
            Outcome::Silence | Outcome::Closed => self.stats.count(Refusal::NoAnswer),
            Outcome::Other(_) => self.stats.count(Refusal::OtherUnit),
            Outcome::Damaged => self.stats.refuse(&self.source, Refusal::Checksum, || {
                let what = words::damaged(&self.target, heard.is_mbap);
                format!("the answer of {} for {asked} {what}", device.name)
            }),
            Outcome::Exception(_) | Outcome::Unclear => self.stats.count(Refusal::Exception),
            Outcome::Values => {}
        }
    }

    /// The device answers, whatever it says.
    pub(super) fn answers(&mut self, device: usize) {
        let now = self.clock.monotonic();
        let Some(who) = self.devices.get_mut(device) else { return };
        who.answered = now;
        if !who.silence.is_silent() {
            return;
        }
        who.silence.over();
        who.told_other = None;
        let is_told = !std::mem::take(&mut who.to_tell) || self.bus.was_told_mute();
        let since = who.silent_since.take();
        if let Some(since) = since.filter(|_| who.told_silent && is_told) {
            let silent = units::show(now.saturating_sub(since));
            tracing::info!(
                source = &*self.source,
                "{} (unit {}) answers again after {silent}",
                who.name,
                who.unit_id
            );
        }
        for ask in self
            .rounds
            .iter_mut()
            .filter(|round| round.device == device)
            .flat_map(|round| &mut round.requests)
        {
            ask.suspect |= ask.silence.is_silent();
            if ask.told == Some(Told::Silent) {
                ask.silence.is_news();
            } else {
                ask.silence.over();
            }
        }
    }

    /// What was asked is answered with values.
    pub(super) fn is_well(&mut self, index: usize, place: usize, device: usize) {
        self.answers(device);
        let (source, devices) = (&self.source, &self.devices);
        let Some(round) = self.rounds.get_mut(index) else { return };
        let Some(ask) = round.requests.get_mut(place) else { return };
        ask.silence.over();
        ask.suspect = false;
        if let Some(told) = ask.told.take() {
            round.is_changed |= matches!(told, Told::Exception(_));
            let name = devices.get(device).map_or("", |device| &device.name);
            tracing::info!(source = &**source, "{name} gives {} again", ask.request.asked);
        }
    }

    /// What was asked has no answer.
    pub(super) fn is_silent(
        &mut self,
        index: usize,
        place: usize,
        answered: bool,
        cost: Duration,
        outcome: Outcome,
    ) {
        let now = self.clock.monotonic();
        let Some(round) = self.rounds.get_mut(index) else { return };
        let (Some(who), Some(ask)) = (self.devices.get_mut(round.device), round.requests.get_mut(place))
        else {
            return;
        };
        let mut until = ask.silence.again(now, cost);
        let why = match outcome {
            Outcome::Exception(exception) => format!("does not answer (its gateway says: {exception})"),
            Outcome::Damaged => "gives no whole answer".to_owned(),
            Outcome::Closed => format!("does not answer ({HUNG_UP})"),
            Outcome::Other(unit) => format!("does not answer ({})", answered_instead(unit)),
            _ => "does not answer".to_owned(),
        };
        if !answered && !ask.suspect {
            until = who.silence.again(now, cost);
            let other = match outcome {
                Outcome::Other(unit) => Some(unit),
                _ => who.told_other,
            };
            if who.silent_since.is_none() || who.told_other != other {
                if who.silent_since.is_none() {
                    who.silent_since = Some(now);
                    who.told_silent = who.falls.again(now);
                }
                who.told_other = other;
                who.to_tell = who.told_silent;
            }
            // As long as nobody has answered it may be the line.
            if who.to_tell && self.bus.has_answered() {
                who.to_tell = false;
                tracing::warn!(
                    source = &*self.source,
                    count = who.falls.count(),
                    "{} (unit {}) {why}: it is asked again ever more rarely, and the others as before{}",
                    who.name,
                    who.unit_id,
                    words::check(outcome)
                );
            }
            // What it was asked is asked again first.
            round.requests.rotate_left(place);
        } else if ask.told == Some(Told::Silent) {
            // Some devices fall silent at an address that they do not have.
            if let Some(parts) = ask.request.without_gaps() {
                tracing::warn!(
                    source = &*self.source,
                    "{} (unit {}) {why} for {}: {GAPS}",
                    who.name,
                    who.unit_id,
                    ask.request.asked
                );
                round.part(place, parts, now);
            }
        } else {
            ask.told = Some(Told::Silent);
            tracing::warn!(
                source = &*self.source,
                "{} (unit {}) {why} for {}, though it does for others: it is asked for it ever more rarely",
                who.name,
                who.unit_id,
                ask.request.asked
            );
        }
        let device = round.device;
        self.bus.be_patient(until);
        self.tell_when(device, now);
        self.tell_mute();
    }

    /// Tells once of a line on which nobody has answered yet, in the place of all who are on it.
    fn tell_mute(&self) {
        let is_silent = |device: &Device| device.silent_since.is_some();
        if !self.bus.has_answered() && self.devices.iter().all(is_silent) && self.bus.is_told_mute() {
            tracing::warn!(source = &*self.source, "{}", words::mute(&self.target));
        }
    }

    /// Tells who looks on when a silent device is asked again.
    fn tell_when(&self, device: usize, now: Duration) {
        let tap = self.stats.tap();
        let Some(who) = self.devices.get(device).filter(|who| who.silence.is_silent() && tap.is_watched())
        else {
            return;
        };
        let rounds = self.rounds.iter().enumerate().filter(|(_, round)| round.device == device);
        let Some(at) = rounds.filter_map(|(index, round)| self.ready(index, round)).min() else { return };
        let has_other = self.devices.iter().filter(|one| one.silence.is_silent()).count() > 1;
        let when = words::when(at.saturating_sub(now), has_other);
        tap.refused(Refusal::NoAnswer.name(), format!("{} is asked again {when}", who.name));
    }

    /// The device does not do what it is asked: then it is asked for less, where that may help.
    pub(super) fn refused(&mut self, index: usize, place: usize, exception: Exception) -> Next {
        let Some(round) = self.rounds.get_mut(index) else { return Next::Stop };
        let Some(name) = self.devices.get(round.device).map(|device| &device.name) else { return Next::Stop };
        let Some(ask) = round.requests.get_mut(place) else { return Next::Stop };
        ask.silence.over();
        ask.suspect = false;
        let asked = ask.request.asked;
        let parts = if exception.is_about_addresses() {
            ask.request.smaller()
        } else if exception.is_failure() && ask.told == Some(Told::Exception(exception)) {
            ask.request.without_gaps()
        } else {
            None
        };
        if let Some(parts) = parts {
            let hint = if ask.request.has_gaps() { GAPS } else { "they are read apart from now on" };
            tracing::warn!(source = &*self.source, "{name} refuses {asked} together: {exception}: {hint}");
            round.part(place, parts, self.clock.monotonic());
            return Next::Again;
        }
        if ask.told != Some(Told::Exception(exception)) {
            ask.told = Some(Told::Exception(exception));
            let metrics: Vec<&str> = ask.request.registers.iter().map(|register| &*register.metric).collect();
            let metrics = metrics.join(", ");
            let hint = words::as_in_manuals(&asked, exception);
            tracing::warn!(source = &*self.source, "{name} refuses {asked} ({metrics}): {exception}{hint}");
        }
        Next::Refused
    }

    /// Asks together again for what a device refused, such as while it started, and has given since.
    pub(super) fn join(&mut self, index: usize) {
        let now = self.clock.monotonic();
        let Some(round) = self.rounds.get_mut(index) else { return };
        if !round.is_changed || round.parted.is_none_or(|parted| now < parted + APART) {
            return;
        }
        (round.parted, round.is_changed) = (None, false);
        let Some(unit) = self.devices.get(round.device).map(|device| device.unit_id) else { return };
        let registers: Vec<_> =
            round.requests.iter().flat_map(|ask| &ask.request.registers).cloned().collect();
        round.requests = plan(unit, &registers, self.max_gap).into_iter().map(Ask::new).collect();
    }
}

impl Round {
    /// Asks for less in the place of a request.
    fn part(&mut self, place: usize, parts: Vec<Request>, now: Duration) {
        self.parted = Some(now);
        self.requests.splice(place..=place, parts.into_iter().map(Ask::new));
    }
}

pub(super) fn answered_instead(unit: u8) -> String {
    format!("unit {unit} answered instead: check the device's address")
}

//! Whose turn it is. Who does not answer takes its timeout from all others: so after each that was waited for in vain, all
//! that answer have a round each if they are due, before the next of whom that is doubtful.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::sleep_until;

use super::{Poller, Round};
use crate::sources::modbus::line::Outcome;

/// How far a round has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stand {
    /// Which request is next.
    pub(super) place: usize,
    /// How many requests were put off to the end.
    pub(super) put_off: usize,
    /// Whether the device has answered in it.
    pub(super) answered: bool,
    /// Whether the device was silent when it began.
    pub(super) on_trial: bool,
    /// How the next request was asked before.
    pub(super) vain: Option<Vain>,
}

/// What had no answer yet and is asked for again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vain {
    /// How often after the next time.
    pub(super) left: u8,
    /// How long it was waited for.
    pub(super) cost: Duration,
    /// What became of it last.
    pub(super) outcome: Outcome,
}

/// A round that gave way in its midst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    round: usize,
    since: Duration,
    stand: Stand,
}

/// A place in the row of those that are due; the smallest is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// It answers and had no turn since somebody was waited for in vain. Whoever answered last goes first: of the others
    /// it is less sure that they still do, as those that die together say nothing before they are asked.
    Sure { answered: Reverse<Duration>, at: Duration, begun: Duration },
    /// By when it could have begun. At the same time, who answers goes first, and then who has waited longest.
    Due { at: Duration, is_doubtful: bool, begun: Duration },
}

impl Poller {
    /// Waits until a round can begin or go on, and gives it.
    pub(super) async fn wait(&self) -> usize {
        loop {
            if let Some(index) = self.next() {
                return index;
            }
            let rounds = self.rounds.iter().enumerate();
            let Some(at) = rounds.filter_map(|(index, round)| self.ready(index, round)).min() else {
                // There is at least one, or nothing is ever due.
                std::future::pending().await
            };
            sleep_until(self.clock.instant(at)).await;
        }
    }

    /// Whose turn it is now, if anybody's.
    pub(super) fn next(&self) -> Option<usize> {
        let now = self.clock.monotonic();
        let turn = |(index, round)| {
            let at = self.ready(index, round).filter(|at| *at <= now)?;
            Some((self.turn_of(round, at), index))
        };
        self.rounds.iter().enumerate().filter_map(turn).min().map(|(_, index)| index)
    }

    /// When a round can begin or go on. While one of a device is held, no other of it can.
    pub(super) fn ready(&self, index: usize, round: &Round) -> Option<Duration> {
        let device = self.devices.get(round.device)?;
        match device.held {
            Some(held) => (held.round == index).then_some(held.since),
            None if device.silence.is_silent() => {
                Some(round.due.at().max(device.silence.until()).max(self.bus.patient_until()))
            }
            None => Some(round.due.at()),
        }
    }

    fn turn_of(&self, round: &Round, at: Duration) -> Turn {
        let begun = round.begun;
        match self.devices.get(round.device) {
            Some(device) if device.held.is_none() && !device.silence.is_silent() => {
                if begun < self.vain {
                    Turn::Sure { answered: Reverse(device.answered), at, begun }
                } else {
                    Turn::Due { at, is_doubtful: false, begun }
                }
            }
            _ => Turn::Due { at, is_doubtful: true, begun },
        }
    }

    /// Lets a round give way.
    pub(super) fn hold(&mut self, index: usize, stand: Stand) {
        let since = self.clock.monotonic();
        let Some(round) = self.rounds.get(index) else { return };
        if let Some(device) = self.devices.get_mut(round.device) {
            device.held = Some(Held { round: index, since, stand });
        }
    }

    /// Where a round stood when it gave way, if it did.
    pub(super) fn take_up(&mut self, index: usize) -> Option<Stand> {
        let device = self.rounds.get(index)?.device;
        let held = self.devices.get_mut(device)?.held.take_if(|held| held.round == index)?;
        Some(held.stand)
    }
}

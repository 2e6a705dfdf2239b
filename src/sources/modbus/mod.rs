//! Modbus: devices that answer when they are asked, on a serial line or behind a network address.
//!
//! A look is one round of one device: all that is due of it is asked, and what it answers is one batch and one frame. Only
//! where it does not answer in the midst of it and others are due, they go first, and the rest is a frame of its own.
//! `poll` decides who is asked next and keeps the books on who answers, by the beats and rests of `schedule`; `plan` says
//! what is read together; `line` holds one exchange, in the frames of `rtu` or `mbap` around the requests and answers of
//! `pdu`, by the silences of `timing`; `bus` lets all sources that name one line take turns on it, and `doubt` knows
//! what may still come there. `config` and `file` are what is written, `register` what a value's bytes mean. A device that
//! does not answer is no failure of the source; a port or a connection that is not there is one.
//!
//! A look that is given up goes on with the next: the round at work lives in the source.

mod bus;
mod config;
mod doubt;
mod file;
mod line;
pub mod mbap;
pub mod pdu;
pub mod plan;
mod poll;
pub mod register;
pub mod rtu;
mod schedule;
mod timing;

use std::fmt;
use std::pin::Pin;

pub use bus::Ports;
pub use config::{Config, REGISTERS_MAX};

use super::{Batch, Context, Source, SourceError};
use poll::Poller;

/// What a round ends with: who goes on, and what it brought.
type Round = (Poller, Result<Batch, SourceError>);

/// A line, and whoever is asked on it.
pub struct Modbus {
    round: Pin<Box<dyn Future<Output = Round> + Send>>,
}

impl fmt::Debug for Modbus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modbus").finish_non_exhaustive()
    }
}

impl Source for Modbus {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        let poller = Poller::open(config, context).await?;
        Ok(Self { round: Box::pin(poller.round()) })
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        let (poller, batch) = self.round.as_mut().await;
        self.round = Box::pin(poller.round());
        batch
    }
}

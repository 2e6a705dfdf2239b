//! One line and one exchange on it: a request goes out, and its answer is told from all else that may come.
//!
//! On a serial line an answer does not say which request it answers. So before each request the line must have been
//! silent (Serial Line V1.02, section 2.5.1.1), what lies in the kernel by then is no answer to it, and what comes
//! must have the unit, the function and the length that were asked for, and a right CRC. On Modbus TCP the transaction
//! id tells. A line that fails is closed; the next exchange opens it again.
//!
//! Here is what both have in common: the line's state, the silence before a request, and the bytes that go and come.
//! `frames` and `transactions` are the two ways to tell the answer, `wire` is what carries the bytes.

mod frames;
mod transactions;
mod wire;

use std::io;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{timeout, timeout_at};

use super::config::{Framing, Target};
use super::pdu::{Answer, Asked, Exception};
use super::timing::Timing;
use crate::clock::Clock;
use crate::sources::{SourceError, Tap};
use wire::Wire;

/// A line, open or not.
#[derive(Debug)]
pub(super) struct Line {
    target: Target,
    clock: Clock,
    open: Option<Wire>,
    /// When bytes were last on it, as far as is known.
    last: Duration,
    /// Until when the answer may come to a request whose asker has gone away.
    abandoned: Duration,
    transaction: u16,
    /// Requests without an answer since the last that had one.
    unanswered: u32,
    /// What has come and is not yet understood.
    buffer: Vec<u8>,
    /// How many bytes have come in this exchange.
    bytes: u64,
    /// What came in this exchange and nobody waited for any more.
    late: Vec<Late>,
    /// Whether the request of this exchange went out.
    is_sent: bool,
    /// Whether nothing was asked since a serial line was opened: an answer to whoever had it before may still come.
    fresh: bool,
    /// Who looks on at this exchange, and what has come in it so far.
    tap: Option<(Tap, Vec<u8>)>,
}

/// How one device is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How long it may take to begin its answer.
    pub(super) timeout: Duration,
    /// How long the line rests before.
    pub(super) pause: Duration,
    /// Whether the device is asked for something else as well, whose answer cannot be taken for this one's.
    pub(super) has_other: bool,
    /// Whether an exception may be the late answer to another request.
    pub(super) in_doubt: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer's bytes are in the caller's hands.
    Values,
    /// The device does not do it.
    Exception(Exception),
    /// An exception came which may as well be the late answer to another request.
    Unclear,
    /// Nothing came that answers it.
    #[default]
    Silence,
    /// The other end closed the connection instead.
    Closed,
    /// Nothing did, but what that other unit sent would have.
    Other(u8),
    /// What came was damaged.
    Damaged,
}

/// What was heard in one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    pub(super) outcome: Outcome,
    /// How many answers came that nobody waited for any more, and the unit of the last where it could be told.
    pub(super) late: u32,
    pub(super) late_unit: Option<u8>,
    /// Whether its answer may still come and could then be taken for another's.
    pub(super) may_come: bool,
    /// Whether more came than any answer and all that may stand around it.
    pub(super) babble: bool,
    /// How many bytes came, whatever they were.
    pub(super) bytes: u64,
    /// Whether frames of RTU were looked for and one of Modbus TCP came.
    pub(super) is_mbap: bool,
}

/// A frame that nobody waited for any more, as far as it shows what it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    pub(super) unit: u8,
    pub(super) function: u8,
    /// How many bytes of values it has.
    pub(super) bytes: usize,
}

/// How long silence is waited for on a line where there is none.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// So many requests in a row without an answer, and a connection is made anew: its other end may have forgotten it.
const UNANSWERED_MAX: u32 = 3;

/// More than any frame: what is beyond is noise.
const BUFFER: usize = 1024;

/// More than comes in one exchange, with all echoes, late answers and noise: beyond, it is given up.
const BABBLE: u64 = 16 * 1024;

impl Line {
    pub(super) fn new(target: Target, clock: Clock) -> Self {
        let (last, abandoned) = (clock.monotonic(), Duration::ZERO);
        Self {
            target,
            clock,
            open: None,
            last,
            abandoned,
            transaction: fastrand::u16(..),
            unanswered: 0,
            buffer: Vec::with_capacity(BUFFER),
            bytes: 0,
            late: Vec::new(),
            is_sent: false,
            fresh: false,
            tap: None,
        }
    }

    /// Opens it where it is not open.
    pub(super) async fn open(&mut self) -> Result<(), SourceError> {
        if self.open.is_some() {
            return Ok(());
        }
        self.buffer.clear();
        self.unanswered = 0;
        self.open = Some(Wire::open(&self.target).await?);
        match self.target {
            Target::Serial(..) => self.fresh = true,
            Target::Network(..) => self.abandoned = Duration::ZERO,
        }
        self.last = self.clock.monotonic();
        Ok(())
    }

    /// Opens it on a script instead of what its target names.
    #[cfg(test)]
    pub(super) fn open_on(&mut self, script: tokio::io::DuplexStream) {
        self.open = Some(Wire::Scripted(script));
    }

    /// Sends a request and waits for its answer, whose bytes are put into `values`.
    pub(super) async fn ask(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
        tap: &Tap,
    ) -> Result<Heard, SourceError> {
        values.clear();
        self.bytes = 0;
        self.late.clear();
        self.tap = tap.is_watched().then(|| (tap.clone(), Vec::new()));
        let mut heard = Heard::default();
        let outcome = self.exchange(asked, manner, values, &mut heard).await;
        if let Some((tap, came)) = self.tap.take().filter(|(_, came)| !came.is_empty()) {
            tap.received(None, &came);
        }
        match outcome {
            Ok(Outcome::Silence) => {
                self.unanswered += 1;
                if self.unanswered >= UNANSWERED_MAX && self.is_network() {
                    self.open = None;
                }
            }
            Ok(_) => self.unanswered = 0,
            Err(_) => self.open = None,
        }
        self.abandoned = Duration::ZERO;
        let babble = self.babbles();
        if babble && self.is_network() {
            self.open = None;
        }
        Ok(Heard { outcome: outcome?, bytes: self.bytes, babble, ..heard })
    }

    /// What came in the last exchange and nobody waited for any more.
    pub(super) fn late(&self) -> &[Late] {
        &self.late
    }

    /// Whether answers on it do not say which request they answer.
    pub(super) fn is_by_frame(&self) -> bool {
        !matches!(self.target, Target::Network(_, Framing::Tcp))
    }

    fn is_network(&self) -> bool {
        matches!(self.target, Target::Network(..))
    }

    fn babbles(&self) -> bool {
        self.bytes > BABBLE
    }

    async fn exchange(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
        heard: &mut Heard,
    ) -> Result<Outcome, SourceError> {
        let was_open = self.open.is_some();
        let mut outcome = self.attempt(asked, manner, values, heard).await;
        // By frames, what was sent may be answered on the next connection as well.
        let is_unanswered = !self.is_sent || !self.is_by_frame();
        if was_open && is_unanswered && self.is_hung_up(&outcome) {
            // Many gateways close a connection that was not used for a while, some only when it is: no failure yet.
            outcome = self.attempt(asked, manner, values, heard).await;
        }
        if self.is_sent && self.is_hung_up(&outcome) {
            // Some do so where the device behind them does not answer: that is not the others' matter.
            heard.may_come = self.is_by_frame();
            return Ok(Outcome::Closed);
        }
        outcome
    }

    /// Whether the connection failed or came to its end.
    fn is_hung_up(&self, outcome: &Result<Outcome, SourceError>) -> bool {
        outcome.is_err() && self.is_network() && self.open.is_none()
    }

    async fn attempt(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
        heard: &mut Heard,
    ) -> Result<Outcome, SourceError> {
        self.is_sent = false;
        self.open().await?;
        if std::mem::take(&mut self.fresh) {
            // Whoever had the port before may have asked something just then.
            self.abandoned = self.abandoned.max(self.last + manner.timeout);
        }
        if !self.silence(manner.pause, asked, heard).await? {
            return Ok(Outcome::Damaged);
        }
        match self.target {
            Target::Network(_, Framing::Tcp) => self.by_transaction(asked, manner, values, heard).await,
            _ => self.by_frame(asked, manner, values, heard).await,
        }
    }

    /// Waits until the line has been silent for long enough. What comes meanwhile nobody has asked for. Whether it
    /// has become silent.
    async fn silence(
        &mut self,
        pause: Duration,
        asked: &Asked,
        heard: &mut Heard,
    ) -> Result<bool, SourceError> {
        let begun = self.clock.monotonic();
        let by_transaction = matches!(self.target, Target::Network(_, Framing::Tcp));
        let rest = pause.max(self.timing().silence);
        // What has come by now is known to the runtime only once it has looked.
        yield_now().await;
        loop {
            let now = self.clock.monotonic();
            let flooded = self.babbles() && self.is_network();
            if flooded || now > begun.max(self.abandoned) + rest + SILENCE_MAX {
                return Ok(false);
            }
            let until = (self.last + rest).max(if by_transaction { Duration::ZERO } else { self.abandoned });
            // Even where no waiting is due, what lies in the kernel is taken out.
            if !self.read(until).await? {
                break;
            }
            // Of noise the end is enough. The frames of Modbus TCP have to be told apart from their beginning on.
            if !by_transaction {
                self.bound();
            }
        }
        if !by_transaction && !self.buffer.is_empty() {
            self.pass_over(asked, heard);
        }
        Ok(true)
    }

    /// Sends a request.
    async fn write(&mut self, asked: &Asked, request: &[u8], deadline: Duration) -> Result<(), SourceError> {
        if let Some((tap, _)) = &self.tap {
            tap.sent(Some(format!("unit {}: {asked}", asked.unit)), request);
        }
        let until = self.clock.instant(deadline);
        let Some(wire) = &mut self.open else { return Err(self.fails(None)) };
        match timeout_at(until, wire.write(request)).await {
            Ok(Ok(())) => {
                (self.last, self.abandoned, self.is_sent) = (self.clock.monotonic(), deadline, true);
                Ok(())
            }
            Ok(Err(error)) => Err(self.fails(Some(&error))),
            Err(_) => Err(self.fails(Some(&io::Error::other("it takes no more bytes")))),
        }
    }

    /// Waits for bytes until then; whether some have come. What lies in the kernel is read in any case.
    async fn read(&mut self, until: Duration) -> Result<bool, SourceError> {
        let mut piece = [0; 512];
        let wait = until.saturating_sub(self.clock.monotonic());
        let Some(wire) = &mut self.open else { return Err(self.fails(None)) };
        match timeout(wait, wire.read(&mut piece)).await {
            Err(_) => Ok(false),
            Ok(Ok(0)) => Err(self.fails(None)),
            Ok(Ok(length)) => {
                let piece = piece.get(..length).unwrap_or_default();
                self.buffer.extend_from_slice(piece);
                if let Some((_, came)) = self.tap.as_mut().filter(|(_, came)| came.len() < BUFFER) {
                    came.extend_from_slice(piece);
                }
                self.bytes += length as u64;
                self.last = self.clock.monotonic();
                Ok(true)
            }
            Ok(Err(error)) => Err(self.fails(Some(&error))),
        }
    }

    /// Keeps the end of what has come, which may be an answer.
    fn bound(&mut self) {
        let over = self.buffer.len().saturating_sub(BUFFER / 2);
        if over > 0 {
            self.buffer.drain(..over);
        }
    }

    fn timing(&self) -> Timing {
        match &self.target {
            Target::Serial(_, settings) => Timing::of(settings),
            Target::Network(..) => Timing::NETWORK,
        }
    }

    /// Closes a line that failed, or, without an error, gave its end.
    fn fails(&mut self, error: Option<&io::Error>) -> SourceError {
        self.open = None;
        wire::gone(&self.target, error)
    }
}

/// What it is called that no answer came.
fn missing(other: Option<u8>, damaged: bool) -> Outcome {
    match other {
        _ if damaged => Outcome::Damaged,
        Some(unit) => Outcome::Other(unit),
        None => Outcome::Silence,
    }
}

fn take(answer: Answer<'_>, values: &mut Vec<u8>) -> Outcome {
    match answer {
        Answer::Values(bytes) => {
            values.extend_from_slice(bytes);
            Outcome::Values
        }
        Answer::Exception(exception) => Outcome::Exception(exception),
    }
}

//! One line and one exchange on it: a request goes out, and its answer is told from all else that may come.
//!
//! On a serial line an answer does not say which request it answers. So before each request the line must have been
//! silent (Serial Line V1.02, section 2.5.1.1), what lies in the kernel by then is no answer to it, and what comes
//! must have the unit, the function and the length that were asked for, and a right CRC. On Modbus TCP the transaction
//! id tells. A line that fails is closed; the next exchange opens it again.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{timeout, timeout_at};

use super::config::{Framing, Target};
use super::pdu::{Answer, Asked, EXCEPTION, Exception};
use super::timing::Timing;
use super::{dial, mbap, rtu};
use crate::clock::Clock;
use crate::sources::port::{self, Port};
use crate::sources::{SourceError, Tap};

/// A line, open or not.
#[derive(Debug)]
pub(super) struct Line {
    target: Target,
    clock: Clock,
    open: Option<Open>,
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
    /// Whether nothing was asked since a serial line was opened: an answer to whoever had it before may still come.
    fresh: bool,
    /// Who looks on at this exchange, and what has come in it so far.
    tap: Option<(Tap, Vec<u8>)>,
}

#[derive(Debug)]
enum Open {
    Serial(Port),
    Network(TcpStream),
}

/// How one device is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How long it may take to begin its answer.
    pub(super) timeout: Duration,
    /// How long the line rests before.
    pub(super) pause: Duration,
    /// Whether an exception may be the late answer to another request.
    pub(super) in_doubt: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer's bytes are in the caller's hands.
    Values,
    /// The device does not do it.
    Exception(Exception),
    /// An exception came which may as well be the late answer to another request.
    Unclear,
    /// Nothing came that answers it.
    Silence,
    /// Nothing did, but what that other unit sent would have.
    Other(u8),
    /// What came was damaged.
    Damaged,
}

/// What was heard in one exchange.
#[derive(Clone, Copy, Debug)]
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
        self.open = Some(match &self.target {
            Target::Serial(name, settings) => {
                let port = port::open(name, settings)?;
                self.fresh = true;
                Open::Serial(port)
            }
            Target::Network(address, _) => {
                let stream = dial::connect(address).await?;
                self.abandoned = Duration::ZERO;
                Open::Network(stream)
            }
        });
        self.last = self.clock.monotonic();
        Ok(())
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
        let heard = self.exchange(asked, manner, values).await;
        if let Some((tap, came)) = self.tap.take().filter(|(_, came)| !came.is_empty()) {
            tap.received(None, &came);
        }
        match &heard {
            Ok(Heard { outcome: Outcome::Silence, .. }) => {
                self.unanswered += 1;
                if self.unanswered >= UNANSWERED_MAX && matches!(self.open, Some(Open::Network(_))) {
                    self.open = None;
                }
            }
            Ok(_) => self.unanswered = 0,
            Err(_) => self.open = None,
        }
        self.abandoned = Duration::ZERO;
        let babble = self.babbles();
        if babble && matches!(self.open, Some(Open::Network(_))) {
            self.open = None;
        }
        Ok(Heard { bytes: self.bytes, babble, ..heard? })
    }

    /// What came in the last exchange and nobody waited for any more.
    pub(super) fn late(&self) -> &[Late] {
        &self.late
    }

    /// Whether answers on it do not say which request they answer.
    pub(super) fn is_by_frame(&self) -> bool {
        !matches!(self.target, Target::Network(_, Framing::Tcp))
    }

    fn babbles(&self) -> bool {
        self.bytes > BABBLE
    }

    async fn exchange(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
    ) -> Result<Heard, SourceError> {
        let was_open = self.open.is_some();
        self.open().await?;
        if std::mem::take(&mut self.fresh) {
            // Whoever had the port before may have asked something just then.
            self.abandoned = self.abandoned.max(self.last + manner.timeout);
        }
        let mut heard = Heard {
            outcome: Outcome::Silence,
            late: 0,
            late_unit: None,
            may_come: false,
            babble: false,
            bytes: 0,
        };
        let mut quiet = self.silence(manner.pause, asked, &mut heard).await;
        if quiet.is_err() && was_open && matches!(self.open, Some(Open::Network(_))) {
            // Many gateways close a connection that was not used for a while: that is no failure yet.
            self.open = None;
            self.open().await?;
            quiet = self.silence(manner.pause, asked, &mut heard).await;
        }
        if !quiet? {
            heard.outcome = Outcome::Damaged;
            return Ok(heard);
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
            let flooded = self.babbles() && matches!(self.target, Target::Network(..));
            if flooded || now > begun.max(self.abandoned) + rest + SILENCE_MAX {
                return Ok(false);
            }
            let until = (self.last + rest).max(if by_transaction { Duration::ZERO } else { self.abandoned });
            // Even where no waiting is due, what lies in the kernel is taken out.
            if !self.read(until).await? {
                break;
            }
            // Its frames are told apart by and by.
            self.bound();
        }
        if !by_transaction && !self.buffer.is_empty() {
            self.pass_over(asked, heard);
        }
        Ok(true)
    }

    /// An exchange in RTU frames.
    async fn by_frame(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
        mut heard: Heard,
    ) -> Result<Heard, SourceError> {
        let Timing { character, pieces, silence } = self.timing();
        let request = rtu::request(asked);
        // Unit, function, length, values and CRC.
        let whole = 5 + asked.bytes();
        let on_the_line = character * (8 + u32::try_from(whole).unwrap_or(u32::MAX));
        let deadline = self.clock.monotonic() + manner.timeout + on_the_line;
        self.write(asked, &request, deadline).await?;
        let (mut damaged, mut unclear, mut other) = (false, false, None);
        loop {
            // Where an answer would be complete, no piece of it is missing.
            let pieces = if self.buffer.len() < whole { pieces } else { pieces / 8 };
            let until =
                if self.buffer.is_empty() { deadline } else { deadline.min(self.last + pieces.max(silence)) };
            // What has come by the deadline is looked at once more, however much follows it.
            let mut over = false;
            if self.read(until).await? {
                while let Some((before, answer)) = rtu::find(&self.buffer, asked) {
                    let behind = before + answer.frame();
                    let outcome = take(answer, values);
                    let rest = self.buffer.split_off(behind);
                    self.buffer.truncate(before);
                    self.pass_over(asked, &mut heard);
                    self.buffer.extend_from_slice(&rest);
                    if manner.in_doubt && matches!(outcome, Outcome::Exception(_)) {
                        unclear = true;
                        continue;
                    }
                    self.pass_over(asked, &mut heard);
                    if unclear {
                        // So that was the other's.
                        self.came_late(exception_to(asked), &mut heard);
                    }
                    heard.outcome = outcome;
                    return Ok(heard);
                }
                self.bound();
                over = self.babbles() || self.clock.monotonic() >= deadline;
                if !over {
                    continue;
                }
            }
            if !self.buffer.is_empty() {
                match self.pass_over(asked, &mut heard) {
                    rtu::Stray::Echo | rtu::Stray::Frame(_) => {}
                    rtu::Stray::Other(unit) => other = Some(unit),
                    rtu::Stray::Noise => damaged = true,
                    rtu::Stray::Damaged => {
                        heard.outcome = Outcome::Damaged;
                        return Ok(heard);
                    }
                }
            }
            if over || self.clock.monotonic() >= deadline {
                heard.may_come = true;
                let damaged = damaged || self.babbles();
                heard.outcome = if unclear { Outcome::Unclear } else { missing(other, damaged) };
                return Ok(heard);
            }
        }
    }

    /// An exchange in Modbus TCP.
    async fn by_transaction(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
        mut heard: Heard,
    ) -> Result<Heard, SourceError> {
        self.transaction = self.transaction.wrapping_add(1);
        let deadline = self.clock.monotonic() + manner.timeout;
        self.write(asked, &mbap::request(asked, self.transaction), deadline).await?;
        let (mut unfit, mut over, mut other) = (false, false, None);
        loop {
            match mbap::hear(&self.buffer, asked, self.transaction) {
                mbap::Heard::Nothing => {
                    if over || !self.read(deadline).await? {
                        heard.outcome = missing(other, unfit || self.babbles());
                        return Ok(heard);
                    }
                    // What has come by the deadline is looked at once more, however much follows it.
                    over = self.babbles() || self.clock.monotonic() >= deadline;
                }
                mbap::Heard::Answer(answer, length) => {
                    heard.outcome = take(answer, values);
                    self.buffer.drain(..length);
                    return Ok(heard);
                }
                mbap::Heard::Late(length) => {
                    heard.late += 1;
                    heard.late_unit = self.buffer.get(6).copied();
                    self.buffer.drain(..length);
                }
                mbap::Heard::Unfit(length) => {
                    match self.buffer.get(6).filter(|unit| **unit != asked.unit) {
                        Some(unit) => other = Some(*unit),
                        None => unfit = true,
                    }
                    self.buffer.drain(..length);
                }
                mbap::Heard::Broken => {
                    let cause =
                        "what it sends is no Modbus TCP: is it a converter that needs `framing = \"rtu\"`?";
                    return Err(SourceError::Gone { what: self.name(), cause: cause.to_owned() });
                }
            }
        }
    }

    /// Sends a request.
    async fn write(&mut self, asked: &Asked, request: &[u8], deadline: Duration) -> Result<(), SourceError> {
        if let Some((tap, _)) = &self.tap {
            tap.sent(Some(format!("unit {}: {asked}", asked.unit)), request);
        }
        let until = self.clock.instant(deadline);
        let sent = match &mut self.open {
            Some(Open::Serial(port)) => timeout_at(until, port.write_all(request)).await,
            Some(Open::Network(stream)) => timeout_at(until, stream.write_all(request)).await,
            None => return Err(self.gone(None)),
        };
        match sent {
            Ok(Ok(())) => {
                (self.last, self.abandoned) = (self.clock.monotonic(), deadline);
                Ok(())
            }
            Ok(Err(error)) => Err(self.gone(Some(&error))),
            Err(_) => Err(self.gone(Some(&io::Error::other("it takes no more bytes")))),
        }
    }

    /// Waits for bytes until then; whether some have come. What lies in the kernel is read in any case.
    async fn read(&mut self, until: Duration) -> Result<bool, SourceError> {
        let mut piece = [0; 512];
        let wait = until.saturating_sub(self.clock.monotonic());
        let read = match &mut self.open {
            Some(Open::Serial(port)) => timeout(wait, port.read(&mut piece)).await,
            Some(Open::Network(stream)) => timeout(wait, stream.read(&mut piece)).await,
            None => return Err(self.gone(None)),
        };
        match read {
            Err(_) => Ok(false),
            Ok(Ok(0)) => Err(self.gone(None)),
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
            Ok(Err(error)) => Err(self.gone(Some(&error))),
        }
    }

    /// Keeps the end of what has come, which may be an answer.
    fn bound(&mut self) {
        let over = self.buffer.len().saturating_sub(BUFFER / 2);
        if over > 0 {
            self.buffer.drain(..over);
        }
    }

    /// Throws away what has come and is no answer. What it was; where there was more than one thing, what says most of
    /// the answer.
    fn pass_over(&mut self, asked: &Asked, heard: &mut Heard) -> rtu::Stray {
        let bytes = std::mem::take(&mut self.buffer);
        let (mut stray, mut rest) = (rtu::Stray::Echo, bytes.as_slice());
        loop {
            let (first, behind) = rtu::stray(rest, asked);
            if let (rtu::Stray::Frame(unit) | rtu::Stray::Other(unit), [_, function, ..]) = (first, rest) {
                let length = rest.len() - behind.len();
                self.came_late(Late { unit, function: *function, bytes: length.saturating_sub(5) }, heard);
            }
            // Stray bytes behind a frame say nothing.
            if matches!(first, rtu::Stray::Damaged | rtu::Stray::Other(_)) || stray == rtu::Stray::Echo {
                stray = first;
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        self.buffer = bytes;
        self.buffer.clear();
        stray
    }

    fn came_late(&mut self, late: Late, heard: &mut Heard) {
        heard.late += 1;
        heard.late_unit = Some(late.unit);
        // As many as one buffer holds are enough: beyond, doubts stay until their time is over.
        if self.late.len() < BUFFER / 5 {
            self.late.push(late);
        }
    }

    fn timing(&self) -> Timing {
        match &self.target {
            Target::Serial(_, settings) => Timing::of(settings),
            Target::Network(..) => Timing::NETWORK,
        }
    }

    fn name(&self) -> String {
        match &self.target {
            Target::Serial(name, _) | Target::Network(name, _) => name.to_string(),
        }
    }

    /// What it means that the line failed, or, without an error, gave its end.
    fn gone(&self, error: Option<&io::Error>) -> SourceError {
        match &self.target {
            Target::Serial(name, _) => port::gone(name, error),
            Target::Network(..) => {
                let cause = error.map_or("the connection was closed".to_owned(), ToString::to_string);
                SourceError::Gone { what: self.name(), cause }
            }
        }
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

/// The exception to a request that looks like this one.
fn exception_to(asked: &Asked) -> Late {
    Late { unit: asked.unit, function: asked.table.function() | EXCEPTION, bytes: 0 }
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

//! Serial lines: RS-232, RS-485 and USB adapters, whatever Linux shows as a terminal device.
//!
//! The port is opened raw, for this process alone, and only read, but for the requests of `poll`. What lies in the
//! kernel's buffer when it is opened is data and is kept (with `poll` it is not asked for, and is not). A reader that joins in the middle of a frame cannot know it: the rest of that frame is read
//! as a frame, usually does not decode, and is counted as refused. A frame that had begun when the port went away, or was
//! closed, is counted as cut off: what comes after a port was opened is never joined with what came before.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll as Polled};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::sleep_until;
use tokio_serial::{DataBits, SerialStream, StopBits};

use super::poll::{self, Due, Poll};
use super::port::{self, FlowControl, Parity, Settings};
use super::stream::{self, Reader, Stream};
use super::uart::{self, Errors, Rs485};
use super::{Batch, Context, Source, SourceError, decode, framing};
use crate::model::{NAME_MAX, Readings, Stamp, is_name};
use crate::units;

/// A source of `type = "serial"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The device file; best one below `/dev/serial/by-id/`, which stays when adapters change places.
    pub port: Box<str>,
    /// Bits per second, 50 to 4,000,000.
    #[serde(default = "port::baud")]
    pub baud: u32,
    /// Bits per character, 5 to 8.
    #[serde(default = "port::eight", deserialize_with = "port::data_bits")]
    pub data_bits: DataBits,
    /// The parity bit.
    #[serde(default = "Parity::none", with = "Parity")]
    pub parity: tokio_serial::Parity,
    /// Stop bits, 1 or 2.
    #[serde(default = "port::one", deserialize_with = "port::stop_bits")]
    pub stop_bits: StopBits,
    /// How the receiver holds the sender back.
    #[serde(default = "FlowControl::none", with = "FlowControl")]
    pub flow_control: tokio_serial::FlowControl,
    /// Whether the driver is to hand over bytes as they come, and not when its timer ends (16 ms on many USB adapters).
    #[serde(default)]
    pub low_latency: bool,
    /// How the driver switches the direction of an RS-485 line, where the adapter does not by itself.
    pub rs485: Option<Rs485>,
    /// What is written so that the device answers.
    pub poll: Option<poll::Config>,
    /// How bytes become frames.
    #[serde(default)]
    pub framing: framing::Config,
    /// How frames become readings.
    pub decode: decode::Config,
    /// The device where a frame names none; by default the source's name.
    pub device: Option<Box<str>>,
}

impl Config {
    fn settings(&self) -> Settings {
        Settings {
            baud: self.baud,
            data_bits: self.data_bits,
            parity: self.parity,
            stop_bits: self.stop_bits,
            flow_control: self.flow_control,
            low_latency: self.low_latency,
            rs485: self.rs485,
        }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = stream::problems(&self.framing, &self.decode);
        if self.port.is_empty() {
            problems.push((
                "port",
                "`port` is empty: write the device file, such as \"/dev/ttyUSB0\"".to_owned(),
            ));
        }
        problems.extend(self.settings().problems());
        problems.extend(self.poll.iter().flat_map(poll::Config::problems));
        if self.device.as_ref().is_some_and(|device| !is_name(device)) {
            problems.push(("device", format!("`device` must have 1 to {NAME_MAX} bytes")));
        }
        problems
    }

    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        let doubtful = stream::doubtful(&self.framing, &self.decode);
        port::absent(&self.port).into_iter().chain(doubtful).collect()
    }
}

/// An open port.
#[derive(Debug)]
pub struct Serial {
    name: Box<str>,
    port: SerialStream,
    buffer: Box<[u8]>,
    reader: Reader,
    stream: Stream,
    poll: Option<Poll>,
    context: Context,
    /// When the last bytes came.
    came: Stamp,
    /// When it will be told that nothing has come at all, until then or until something comes. Where it asks, every request
    /// tells.
    mute: Option<Duration>,
    /// What the driver had counted at the last look, and when that was; `None` where it does not count.
    counted: Option<(Errors, Duration)>,
}

/// What the kernel hands over at once at most (the line discipline's buffer).
const READ: usize = 4096;

/// After so long without any byte since the port was opened, the log tells.
const MUTE: Duration = Duration::from_secs(180);

/// What to look at where nothing comes in.
pub(super) const WHERE_TO_LOOK: &str = "check the wiring (swapped A and B, or RX and TX, a missing ground), `baud` and \
                                        `parity`, and that the device sends by itself";

/// How often the driver is asked what it has counted, at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// So much at most is thrown away before a request: who sends faster than that is read off is not to keep it back.
const STALE: usize = 64 << 10;

/// What the port did.
enum Done {
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
}

impl Source for Serial {
    type Config = Config;

    async fn open(config: &Config, context: &Context) -> Result<Self, SourceError> {
        let reader = Reader::new(&config.framing, &config.decode, config.device.as_deref(), context);
        let port = port::open(&config.port, &config.settings())?;
        let came = context.clock.now();
        Ok(Self {
            name: config.port.clone(),
            counted: uart::errors(&port).map(|errors| (errors, came.monotonic)),
            port,
            buffer: vec![0; READ].into(),
            stream: reader.stream(None),
            reader,
            poll: config.poll.as_ref().map(|poll| Poll::new(poll, came.monotonic)),
            context: context.clone(),
            mute: config.poll.is_none().then(|| came.monotonic + MUTE),
            came,
        })
    }

    async fn next(&mut self) -> Result<Batch, SourceError> {
        loop {
            let now = self.context.clock.monotonic();
            let mut wake = None;
            let readings = match self.poll.as_ref().map(|poll| poll.due(now)) {
                Some(Due::Ask) => {
                    self.ask(now)?;
                    continue;
                }
                Some(Due::Close) => self.close()?,
                Some(Due::Wait(until)) => {
                    wake = Some(until);
                    self.wait(wake).await?
                }
                None => self.wait(wake).await?,
            };
            if !readings.is_empty() {
                return Ok(Batch { readings, receipt: None });
            }
            // What came may have been noise, in any quantity. It can be cancelled here as well: no reading is held.
            yield_now().await;
        }
    }
}

impl Serial {
    /// Waits for bytes, for the end of a frame by silence, or until `wake`.
    async fn wait(&mut self, wake: Option<Duration>) -> Result<Readings, SourceError> {
        let idle =
            self.reader.idle_gap().filter(|_| !self.stream.rests()).map(|gap| self.came.monotonic + gap);
        let first = idle.into_iter().chain(wake).chain(self.mute).min();
        let clock = self.context.clock.clone();
        let timer = async {
            match first {
                Some(at) => sleep_until(clock.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        let (port, buffer, poll) = (&mut self.port, &mut self.buffer, self.poll.as_ref());
        // The only point where this waits for something. What has come is looked at before
        // the time is: a pause of the agent is no silence of the line.
        let done = tokio::select! {
            biased;
            done = poll_fn(|task| io(port, poll.map_or(&[], Poll::unwritten), buffer, task)) => Some(done),
            () = timer => None,
        };
        let mut readings = Readings::new(self.came);
        match done {
            Some(Done::Read(Ok(0))) => return Err(self.gone(None)),
            Some(Done::Read(Err(error)) | Done::Wrote(Err(error))) => return Err(self.gone(Some(&error))),
            Some(Done::Wrote(Ok(bytes))) => self.poll.iter_mut().for_each(|poll| poll.wrote(bytes)),
            Some(Done::Read(Ok(length))) => readings = self.take(length),
            None if idle.is_some() && idle == first => {
                let frames = self.reader.silence(&mut self.stream, &mut readings);
                self.answered(frames);
            }
            None if self.mute.is_some() && self.mute == first => {
                self.mute = None;
                let source = &*self.context.name;
                tracing::info!(
                    source,
                    "nothing has come in the {} since the port was opened: {WHERE_TO_LOOK}",
                    units::show(MUTE)
                );
            }
            None => {}
        }
        Ok(readings)
    }

    /// What becomes of the first bytes in the buffer, which have just come.
    fn take(&mut self, length: usize) -> Readings {
        self.came = self.context.clock.now();
        self.mute = None;
        self.count();
        let mut readings = Readings::new(self.came);
        if self.poll.as_ref().is_some_and(|poll| !poll.is_asked()) {
            self.reader.unasked(self.buffer.get(..length).unwrap_or_default());
        } else {
            let bytes = self.buffer.get(..length).unwrap_or_default();
            let frames = self.reader.read(&mut self.stream, bytes, &mut readings);
            self.answered(frames);
        }
        readings
    }

    fn answered(&mut self, frames: usize) {
        if let Some(poll) = self.poll.as_mut().filter(|_| frames > 0) {
            poll.answered();
        }
    }

    /// Begins a request, on a line that was read empty: what has come before it is no answer to it.
    fn ask(&mut self, now: Duration) -> Result<(), SourceError> {
        let mut stale = 0;
        while stale < STALE {
            let Some(length) = self.now()? else { break };
            stale += length;
            self.reader.unasked(self.buffer.get(..length).unwrap_or_default());
        }
        if let Some(poll) = &mut self.poll {
            poll.ask(now);
            if self.context.tap().is_watched() {
                self.context.tap().sent(None, poll.unwritten());
            }
        }
        Ok(())
    }

    /// Ends a request: what has come by now is its answer, and a frame that has not ended does not end any more.
    fn close(&mut self) -> Result<Readings, SourceError> {
        let mut readings = match self.now()? {
            Some(length) => self.take(length),
            None => Readings::new(self.came),
        };
        let frames = self.reader.silence(&mut self.stream, &mut readings);
        self.answered(frames);
        if let Some(poll) = &mut self.poll {
            if !poll.close() {
                self.reader.no_answer(poll.timeout());
            }
        }
        Ok(readings)
    }

    /// Reads what is there, without waiting.
    fn now(&mut self) -> Result<Option<usize>, SourceError> {
        let mut task = Task::from_waker(std::task::Waker::noop());
        match io(&mut self.port, &[], &mut self.buffer, &mut task) {
            Polled::Ready(Done::Read(Ok(length)) | Done::Wrote(Ok(length))) if length > 0 => Ok(Some(length)),
            Polled::Ready(Done::Read(Err(error)) | Done::Wrote(Err(error))) => Err(self.gone(Some(&error))),
            Polled::Ready(_) => Err(self.gone(None)),
            Polled::Pending => Ok(None),
        }
    }

    /// Asks the driver what it has counted, where the last time is some time ago.
    fn count(&mut self) {
        let Some((before, at)) = self.counted else { return };
        if self.came.monotonic.saturating_sub(at) < COUNT_EVERY {
            return;
        }
        self.counted = uart::errors(&self.port).map(|errors| (errors, self.came.monotonic));
        if let Some((errors, _)) = self.counted {
            let Errors { overruns, damaged } = errors.since(before);
            self.context.stats.count_line(&self.context.name, overruns, damaged);
        }
    }

    fn gone(&self, error: Option<&io::Error>) -> SourceError {
        port::gone(&self.name, error)
    }
}

/// What had begun is counted, whether the port went away or weir closes it.
impl Drop for Serial {
    fn drop(&mut self) {
        self.reader.cut_off(&self.stream, 0);
    }
}

/// Writes some of `request`, where there is one, or reads.
fn io(port: &mut SerialStream, request: &[u8], buffer: &mut [u8], task: &mut Task<'_>) -> Polled<Done> {
    if !request.is_empty() {
        if let Polled::Ready(wrote) = Pin::new(&mut *port).poll_write(task, request) {
            return Polled::Ready(Done::Wrote(wrote));
        }
    }
    let mut buffer = ReadBuf::new(buffer);
    Pin::new(port).poll_read(task, &mut buffer).map(|read| Done::Read(read.map(|()| buffer.filled().len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(&format!("port = '/dev/ttyUSB0'\ndecode = {{ type = 'json' }}\n{toml}"))
    }

    #[test]
    fn a_port_and_a_decoder_are_enough() {
        let config = config("").unwrap();
        assert_eq!((config.baud, config.data_bits, config.stop_bits), (9600, DataBits::Eight, StopBits::One));
        assert_eq!(config.parity, tokio_serial::Parity::None);
        assert_eq!(config.flow_control, tokio_serial::FlowControl::None);
        assert_eq!(config.problems(), []);
    }

    #[test]
    fn settings_that_no_line_has_are_refused_with_those_that_one_has() {
        for (toml, hint) in [
            ("data_bits = 9", "5, 6, 7 or 8"),
            ("stop_bits = 3", "1 or 2"),
            ("parity = 'mark'", "`odd`"),
            ("flow_control = 'rts'", "`hardware`"),
            ("bauds = 9600", "`baud`"),
        ] {
            let error = config(toml).unwrap_err().to_string();
            assert!(error.contains(hint), "{toml}: {error}");
        }
    }

    #[test]
    fn frames_too_short_for_what_is_read_of_them_are_a_problem() {
        let problems = |framing: &str, at: usize| {
            let toml = format!(
                "port = 'p'\nframing = {{ type = 'fixed', length = 10{framing} }}\n\
                 decode = {{ type = 'binary', fields = [{{ from = {{ at = {at}, type = 'u16' }}, metric = 'm' }}] }}"
            );
            toml::from_str::<Config>(&toml).unwrap().problems()
        };
        let sum = ", checksum = { type = 'crc16_modbus' }";
        assert_eq!((problems("", 8), problems(sum, 6)), (Vec::new(), Vec::new()));
        assert_eq!(problems("", 9)[0].0, "decode.fields");
        assert!(problems("", 9)[0].1.contains("needs frames of 11 bytes"), "{:?}", problems("", 9));
        assert!(problems(sum, 7)[0].1.contains("hands on 8 of each"), "{:?}", problems(sum, 7));
    }

    #[test]
    fn what_is_out_of_bounds_is_a_problem_at_its_key() {
        for (toml, key) in [
            ("baud = 49", "baud"),
            ("baud = 4000001", "baud"),
            ("device = ''", "device"),
            ("framing = { type = 'lines', max_frame = '2MiB' }", "framing.max_frame"),
            ("rs485 = { rts_on_send = false }", "rs485.rts_after_send"),
            ("rs485 = {}\nflow_control = 'hardware'", "flow_control"),
            ("rs485 = { delay_before_send = '1s' }", "rs485.delay_before_send"),
            ("rs485 = { delay_after_send = '1s' }", "rs485.delay_after_send"),
            ("poll = { every = '1s', write = '' }", "poll.write"),
        ] {
            let problems = config(toml).unwrap().problems();
            assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key], "{toml}");
        }
    }
}

//! What sources that read a byte stream have in common: framing, then decoding, and counting what neither takes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::decode::{self, Decoder, Learnt};
use super::framing::{self, Framer, Refused};
use super::{Context, Refusal, Tap, excerpt, frameless};
use crate::model::{NAME_MAX, Readings};
use crate::units;

/// What all byte streams of one source have in common. A listener has thousands of streams and one of this.
#[derive(Debug)]
pub(super) struct Reader {
    framing: Arc<framing::Config>,
    decoder: Box<Decoder>,
    device: Arc<str>,
    context: Context,
}

/// One byte stream: what is kept of it between two reads.
#[derive(Debug)]
pub(super) struct Stream {
    framer: Framer,
    learnt: Learnt,
    /// What has come since the last frame.
    since: frameless::Since,
    /// Whose it is, where a source has several.
    peer: Option<SocketAddr>,
}

/// So many bytes of what is told of a field are shown: its name may be as long as a frame.
const FIELD: usize = 256;

/// What is wrong across the keys of `framing` and `decode`, and between both, as (key, what and what to do).
pub(super) fn problems(framing: &framing::Config, decode: &decode::Config) -> Vec<(&'static str, String)> {
    let mut problems = framing.problems();
    problems.extend(decode.problems());
    if let (Some(given), Some(least)) = (framing.length().filter(|given| *given > 0), decode.least()) {
        if least > given {
            let text = format!(
                "`decode` needs frames of {least} bytes, and `framing` hands on {given} of each: look at `at`, which counts \
                 from 0, and at `length`; a checksum at the end is not handed on"
            );
            problems.push(("decode.fields", text));
        }
    }
    problems
}

/// What is hardly meant so, as (key, what and what to do).
pub(super) fn doubtful(framing: &framing::Config, decode: &decode::Config) -> Option<(&'static str, String)> {
    let (framing::Config::Lines(_), decode::Config::Binary(_)) = (framing, decode) else { return None };
    let text = "`decode` is binary and `framing` is \"lines\", as where it is left out: frames would be cut at each byte 0a, a \
                line end: say how frames are found, such as framing = { type = \"fixed\", length = 8 }";
    Some(("decode", text.to_owned()))
}

impl Stream {
    /// Whether it is between two frames, so that a silence means nothing.
    pub(super) fn rests(&self) -> bool {
        self.framer.rests()
    }

    /// How much memory its unfinished frame takes, in bytes.
    pub(super) fn held(&self) -> usize {
        self.framer.held()
    }
}

impl Reader {
    /// `device` is who measured where a frame names nobody, by default the source.
    pub(super) fn new(
        framing: &framing::Config,
        decode: &decode::Config,
        device: Option<&str>,
        context: &Context,
    ) -> Self {
        Self {
            framing: Arc::new(framing.clone()),
            decoder: Box::new(Decoder::new(decode)),
            device: device.map_or_else(|| context.name.clone(), Arc::from),
            context: context.clone(),
        }
    }

    /// A stream at its beginning; `peer` is whose it is, where the source has several.
    pub(super) fn stream(&self, peer: Option<SocketAddr>) -> Stream {
        Stream {
            framer: Framer::new(&self.framing),
            learnt: Learnt::default(),
            since: frameless::Since::default(),
            peer,
        }
    }

    /// Adds the readings of all frames that `bytes` complete on `stream`; gives how many frames these are.
    pub(super) fn read(&mut self, stream: &mut Stream, mut bytes: &[u8], out: &mut Readings) -> usize {
        let Context { name, stats, .. } = &self.context;
        let (tap, is_watched) = (self.context.tap(), self.context.tap().is_watched());
        let before = out.len();
        let (mut frames, mut ignored, mut is_hurt) = (0, 0, false);
        let come = bytes.len();
        let mut shown = Shown { read: bytes, end: 0 };
        stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let from = From(stream.peer);
        stream.framer.explain(is_watched);
        loop {
            let (held, left) = (stream.framer.waiting(), bytes.len());
            let Some(frame) = stream.framer.next(&mut bytes) else { break };
            if is_watched {
                // Of what is refused perhaps but the first byte is taken, and all that was looked at is shown.
                let looked_at = frame.as_ref().err().map_or(0, |refused| self.framing.looked_at(refused));
                let ahead = shown.read.len() - left + looked_at.saturating_sub(held);
                shown.up_to(tap, ahead.max(shown.read.len() - bytes.len()));
            }
            let frame = match frame {
                Ok(frame) => frame,
                Err(refused) => {
                    is_hurt = true;
                    let (cause, count) = match refused {
                        Refused::TooLong { .. } => (Refusal::TooLong, 1),
                        Refused::Checksum { .. } => (Refusal::Checksum, 1),
                        Refused::Damaged(_) => (Refusal::Damaged, 1),
                        Refused::Noise(bytes) => (Refusal::NoiseBytes, bytes as u64),
                        Refused::Again(_) => (Refusal::NoiseBytes, 1),
                        Refused::CutOff(_) => (Refusal::CutOff, 1),
                    };
                    stats.refuse_many(name, cause, count, || format!("{refused}{from}"));
                    continue;
                }
            };
            frames += 1;
            if is_watched {
                tap.received(stream.peer.map(|peer| format!("from {peer}")), frame);
            }
            let first = out.len();
            match self.decoder.decode(frame, &self.device, &mut stream.learnt, out) {
                Ok(left_out) => {
                    if is_watched {
                        let first_ignored = if left_out.ignored > 0 {
                            self.decoder.first_ignored(frame, &stream.learnt)
                        } else {
                            None
                        };
                        tap.decoded(out, first, left_out.ignored, first_ignored);
                    }
                    if ignored == 0 && left_out.ignored > 0 && stats.ignored.load(Ordering::Relaxed) == 0 {
                        let field = self.decoder.first_ignored(frame, &stream.learnt);
                        let frame = excerpt::frame(frame);
                        let field = field
                            .map_or_else(String::new, |first| format!(" ({})", excerpt::cut(first, FIELD)));
                        tracing::info!(
                            source = &**name,
                            "what is missing, or is no number and no boolean, is left out and counted, first in {frame}{field}"
                        );
                    }
                    ignored += left_out.ignored;
                    for _ in 0..left_out.bad_names {
                        stats.refuse(name, Refusal::BadName, || {
                            format!(
                                "a device or metric name has not 1 to {NAME_MAX} bytes, in {}{from}",
                                excerpt::frame(frame)
                            )
                        });
                    }
                }
                Err(undecodable) => stats.refuse(name, undecodable.refusal(), || {
                    format!("{undecodable}, in {}{from}", excerpt::frame(frame))
                }),
            }
        }
        if is_watched {
            shown.up_to(tap, shown.read.len());
        }
        stats.readings.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        stats.ignored.fetch_add(ignored, Ordering::Relaxed);
        self.judge(stream, come, frames > 0 || !is_hurt && stream.rests(), out.arrival.monotonic);
        frames
    }

    /// Tells the log where bytes come and no frame ends, for long. What `is_whole` has ended a frame, be it an empty one.
    fn judge(&self, stream: &mut Stream, come: usize, is_whole: bool, now: Duration) {
        let Context { name, stats, .. } = &self.context;
        if is_whole {
            stream.since = frameless::Since::default();
            if stream.peer.is_none() {
                stats.frameless.ended();
            }
            return;
        }
        let news = if come > 0 { stream.since.more(come, now) } else { None };
        let Some((bytes, seconds)) = news.filter(|_| stats.frameless.is_news(stream.peer.is_some())) else {
            return;
        };
        let (told, open) = (frameless::told(bytes, seconds, stream.framer.open()), stream.framer.open());
        let begun =
            if open.is_empty() { String::new() } else { format!("; it began with {}", excerpt::frame(open)) };
        tracing::warn!(source = &**name, "{told}{begun}{}", From(stream.peer));
    }

    /// After so long a silence on a stream that does not rest, [`Reader::silence`] is to be called.
    pub(super) fn idle_gap(&self) -> Option<Duration> {
        self.framing.idle_gap()
    }

    /// Nothing has come on `stream` for the idle gap. Adds the readings of the frame that this ends, where it does.
    pub(super) fn silence(&mut self, stream: &mut Stream, out: &mut Readings) -> usize {
        stream.framer.silence();
        self.read(stream, &[], out)
    }

    /// Counts bytes that came without a request, where a source asks.
    pub(super) fn unasked(&self, bytes: &[u8]) {
        let Context { name, stats, .. } = &self.context;
        if self.context.tap().is_watched() {
            self.context.tap().read(bytes);
        }
        let count = bytes.len() as u64;
        stats.bytes.fetch_add(count, Ordering::Relaxed);
        stats.refuse_many(name, Refusal::NoiseBytes, count, || {
            let bytes = if count == 1 { "byte" } else { "bytes" };
            format!("{count} {bytes} came at a time when nothing was asked")
        });
    }

    /// Counts a request to which no frame came.
    pub(super) fn no_answer(&self, timeout: Duration) {
        let Context { name, stats, .. } = &self.context;
        stats.refuse(name, Refusal::NoAnswer, || {
            format!("no answer within {} (`timeout` of `poll`)", units::show(timeout))
        });
    }

    /// Counts the frame that will never be finished, where one has begun: the other side went away. So many bytes behind
    /// it were `sealed`, and cannot be read as they are not whole.
    pub(super) fn cut_off(&self, stream: &Stream, sealed: usize) {
        let unfinished = stream.framer.unfinished() + sealed;
        if unfinished > 0 {
            let Context { name, stats, .. } = &self.context;
            let bytes = if unfinished == 1 { "byte" } else { "bytes" };
            stats.refuse(name, Refusal::CutOff, || {
                format!("a frame ended after {unfinished} {bytes}{}", From(stream.peer))
            });
        }
    }
}

/// Whose stream it was, behind what was wrong on it.
#[derive(Clone, Copy)]
struct From(Option<SocketAddr>);

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |peer| write!(f, ", from {peer}"))
    }
}

/// What of a read the tap has been shown: with what is refused, all up to there and nothing behind it.
struct Shown<'a> {
    read: &'a [u8],
    end: usize,
}

impl Shown<'_> {
    fn up_to(&mut self, tap: &Tap, end: usize) {
        if let Some(more) = self.read.get(self.end..end.min(self.read.len())) {
            tap.read(more);
            self.end += more.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::model::{Stamp, Timestamp, Value};
    use crate::sources::Stats;
    use crate::sources::stats::tests::logged;
    use crate::sources::tap::What;

    fn context() -> Context {
        Context {
            name: "line".into(),
            clock: Clock::injected(Timestamp(0), true),
            stats: Arc::new(Stats::default()),
            memory: Default::default(),
            ports: Default::default(),
        }
    }

    #[tokio::test]
    async fn what_becomes_no_reading_is_counted_by_cause() {
        let context = context();
        let framing = toml::from_str("type = 'lines'\nmax_frame = '28B'").unwrap();
        let decode = toml::from_str("type = 'json'").unwrap();
        let mut reader = Reader::new(&framing, &decode, Some("boiler"), &context);
        let mut stream = reader.stream(None);
        let mut readings = Readings::new(context.clock.now());
        let bytes = b"{\"t\":1,\"s\":\"ok\",\"n\":null}\n\xff\nno json\n{\"\":1,\"t\":2}\nlonger than the 28 bytes of it\n{\"t\":";
        reader.read(&mut stream, &bytes[..10], &mut readings);
        reader.read(&mut stream, &bytes[10..], &mut readings);
        reader.cut_off(&stream, 0);

        let found: Vec<_> =
            readings.iter().map(|(frame, reading)| (frame, reading.device, reading.value)).collect();
        assert_eq!(found, [(0, "boiler", Value::Int(1)), (1, "boiler", Value::Int(2))]);
        let stats = &context.stats;
        let refused = stats.refused().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        let causes = ["too_long", "cut_off", "not_text", "undecodable", "bad_name"];
        assert_eq!(
            refused.iter().map(|(cause, count)| (cause.name(), *count)).collect::<Vec<_>>(),
            causes.map(|cause| (cause, 1))
        );
        assert_eq!(stats.bytes.load(Ordering::Relaxed), bytes.len() as u64);
        assert_eq!(stats.ignored.load(Ordering::Relaxed), 2);
        assert_eq!(stats.readings.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tap_shows_whose_frame_it_is_and_with_what_is_refused_only_what_came_until_then() {
        let context = context();
        let framing =
            toml::from_str("type = 'fixed'\nlength = 4\nstart = '<'\nchecksum = { type = 'xor', from = 1 }");
        let decode = toml::from_str("type = 'json'").unwrap();
        let mut reader = Reader::new(&framing.unwrap(), &decode, None, &context);
        let mut watcher = context.tap().watch(context.clock.clone());
        for (reads, hurt) in [(&[&b"<abz<11\0"[..]][..], &b"<abz"[..]), (&[b"<ab", b"z<11\0"], b"<abz")] {
            let mut stream = reader.stream(Some("10.0.0.1:9".parse().unwrap()));
            let mut readings = Readings::new(context.clock.now());
            for bytes in reads {
                reader.read(&mut stream, bytes, &mut readings);
            }
            let What::Refused { cause, why, tail } = watcher.next().await.unwrap().what else { panic!() };
            assert_eq!(
                (&*cause, tail.escape_ascii().to_string()),
                ("checksum", hurt.escape_ascii().to_string())
            );
            let wrong = "of a frame of 4 bytes is wrong: xor gives 03, the frame has 7a, from 10.0.0.1:9";
            assert!(why.ends_with(wrong), "{why}");
            // The rest of it, in one piece or in two.
            let frame = loop {
                match watcher.next().await.unwrap().what {
                    What::Refused { cause, tail, .. } if cause == "noise_bytes" => {
                        assert_eq!(tail, b"", "it was shown");
                    }
                    What::Received(frame) => break frame,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!((frame.head.as_deref(), &*frame.bytes), (Some("from 10.0.0.1:9"), &b"<11"[..]));
            let What::Refused { cause, why, .. } = watcher.next().await.unwrap().what else { panic!() };
            assert_eq!(cause, "undecodable");
            assert!(why.ends_with("from 10.0.0.1:9"), "{why}");
        }
        reader.unasked(b"late");
        let What::Refused { why, tail, .. } = watcher.next().await.unwrap().what else { panic!() };
        assert_eq!((&*why, &*tail), ("4 bytes came at a time when nothing was asked", &b"late"[..]));
    }

    fn lines(what: impl FnOnce()) -> Vec<String> {
        logged(what).lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn the_log_tells_once_of_bytes_that_make_no_frame_and_again_once_some_have() {
        let context = context();
        let decode = toml::from_str("type = 'text'\nmetric = 't'").unwrap();
        let mut reader = Reader::new(&framing::Config::default(), &decode, None, &context);
        let mut second = 0;
        let mut send = |stream: &mut Stream, bytes: &[u8]| {
            second += 10;
            let arrival = Stamp { wall: Timestamp(0), monotonic: Duration::from_secs(second), synced: true };
            reader.read(stream, bytes, &mut Readings::new(arrival));
        };
        let stream = |peer| Stream {
            framer: Framer::new(&Arc::new(framing::Config::default())),
            learnt: Learnt::default(),
            since: frameless::Since::default(),
            peer,
        };
        let mut line = stream(None);
        let told = lines(|| (0..90).for_each(|_| send(&mut line, b"21.5\r")));
        let [told] = &told[..] else { panic!("{told:?}") };
        for words in [
            "WARN",
            "35 bytes came and no frame ended for 60 s: check `framing`",
            r#"`framing = { type = "delimiter", delimiter = "\r" }`"#,
            r"it began with `21.5\r21.5\r",
            "source=\"line\"",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        // It is opened again, and is as it was; then frames come.
        let mut line = stream(None);
        assert_eq!(lines(|| (0..90).for_each(|_| send(&mut line, b"21.5\r"))), [""; 0]);
        let good = lines(|| (0..90).for_each(|_| send(&mut line, b"\n1\n\n")));
        assert_eq!(good.len(), 1, "the one that was too long to be a number: {good:?}");
        assert_eq!(lines(|| (0..90).for_each(|_| send(&mut line, b"\xff"))).len(), 1);

        // Blank lines are frames that are empty.
        let mut blank = stream(None);
        assert_eq!(lines(|| (0..90).for_each(|_| send(&mut blank, b"\r\n"))), [""; 0]);

        // Of many connections the first is told, with its address, and the tenth.
        let told = lines(|| {
            for port in 1..=20 {
                let mut peer = stream(Some(([10, 0, 0, 1], port).into()));
                (0..10).for_each(|_| send(&mut peer, b"\x01"));
            }
        });
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("from 10.0.0.1:1 ") && told[1].contains("from 10.0.0.1:10 "), "{told:?}");
    }
}

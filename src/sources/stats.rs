use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Tap, excerpt, frameless};
use crate::tally::Tally;
use crate::units;

/// So many bytes of why something was refused are told: much of it may come from outside.
const WHY: usize = 480;

/// What a source counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// Bytes read, before framing: a line that is alive and never gives a reading has the wrong settings.
    pub bytes: AtomicU64,
    /// Readings decoded.
    pub readings: AtomicU64,
    /// Fields of readable frames that the decoder was not told to read, such as text in flat JSON.
    pub ignored: AtomicU64,
    /// Copies of requests that had been taken already, and were not taken again.
    pub copies: AtomicU64,
    /// Acknowledgements and resets, which mean nothing to one who only answers.
    pub unasked: AtomicU64,
    /// Requests that were forgotten before the last copy of them could have come: such a copy counts twice.
    pub forgotten: Tally,
    /// Datagrams that the kernel dropped before they were read.
    pub dropped_by_kernel: Tally,
    /// Bytes that a serial line's hardware or driver dropped before they were read.
    pub overruns: Tally,
    /// Characters that came with a wrong parity or stop bit, and breaks.
    pub line_errors: Tally,
    /// Connections that were taken.
    pub connections: AtomicU64,
    /// Connections that were closed because nothing came on them for `idle_timeout`.
    pub silent: Tally,
    /// Rounds of asking that were left out because those before took too long.
    pub left_out: Tally,
    /// What was told of bytes that make no frame.
    pub(super) frameless: frameless::Told,
    refused: [Tally; Refusal::ALL.len()],
    /// The reasons that [`Stats::refuse_for`] has told.
    told: Mutex<Vec<&'static str>>,
    /// For whoever looks on. It is here since it lasts as long as what is counted.
    tap: Tap,
}

/// Why a source refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A frame over `max_frame`.
    TooLong,
    /// A frame that had begun when its stream ended.
    CutOff,
    /// A frame whose checksum is wrong.
    Checksum,
    /// What began like a frame and is none.
    Damaged,
    /// Bytes that belong to no frame.
    NoiseBytes,
    /// A frame that is not valid UTF-8.
    NotText,
    /// A frame that the decoder cannot read.
    Undecodable,
    /// A device or metric name that is empty or longer than 128 bytes.
    BadName,
    /// What came from an address outside `allow`.
    NotAllowed,
    /// A request for what the source does not do: by its path, method, options or content format.
    NotServed,
    /// Readings for which the pipeline had no room; their device was told to try again.
    Busy,
    /// A request to which no frame came in time.
    NoAnswer,
    /// A request that another unit answered than the one that was asked.
    OtherUnit,
    /// A connection over `max_connections`, or for which there was no file descriptor.
    TooMany,
    /// A connection on which TLS failed.
    Tls,
    /// A frame that had begun when those of all connections together took too much memory.
    Crowded,
    /// A request that the device says it does not do.
    Exception,
    /// An answer that came when nobody waited for it any more.
    Late,
    /// A float that is no finite number.
    NotFinite,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::TooLong,
        Self::CutOff,
        Self::Checksum,
        Self::Damaged,
        Self::NoiseBytes,
        Self::NotText,
        Self::Undecodable,
        Self::BadName,
        Self::NotAllowed,
        Self::NotServed,
        Self::Busy,
        Self::NoAnswer,
        Self::OtherUnit,
        Self::TooMany,
        Self::Tls,
        Self::Crowded,
        Self::Exception,
        Self::Late,
        Self::NotFinite,
    ];

    /// Its name in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::CutOff => "cut_off",
            Self::Checksum => "checksum",
            Self::Damaged => "damaged",
            Self::NoiseBytes => "noise_bytes",
            Self::NotText => "not_text",
            Self::Undecodable => "undecodable",
            Self::BadName => "bad_name",
            Self::NotAllowed => "not_allowed",
            Self::NotServed => "not_served",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::OtherUnit => "other_unit",
            Self::TooMany => "too_many",
            Self::Tls => "tls",
            Self::Crowded => "crowded",
            Self::Exception => "exception",
            Self::Late => "late_answer",
            Self::NotFinite => "not_finite",
        }
    }
}

impl Stats {
    /// For whoever looks on.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Counts a refusal and logs it: the first, the tenth, the hundredth and so on, so that noise on a line cannot
    /// flood the log. `what` says what was wrong, in plain words; it is only asked where it is logged, or where somebody
    /// looks on.
    pub fn refuse<T: fmt::Display>(&self, source: &str, refusal: Refusal, what: impl FnOnce() -> T) {
        self.refuse_many(source, refusal, 1, what);
    }

    /// Counts a refusal as [`Stats::refuse`] does, and logs the first for each `reason` besides: of three devices that
    /// are refused for three reasons, each is told. There are as many reasons as the code has words for, at most.
    pub(super) fn refuse_for<T: fmt::Display>(
        &self,
        source: &str,
        refusal: Refusal,
        reason: &'static str,
        what: impl FnOnce() -> T,
    ) {
        let tally = &self.refused[refusal as usize];
        let count = tally.count();
        let is_first = self.is_first(reason);
        self.tell(source, refusal, count.or_else(|| is_first.then(|| tally.get())), what);
    }

    fn is_first(&self, reason: &'static str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !told.contains(&reason);
        if is_first {
            told.push(reason);
        }
        is_first
    }

    /// Counts several at once, as [`Stats::refuse`] does one.
    pub(super) fn refuse_many<T: fmt::Display>(
        &self,
        source: &str,
        refusal: Refusal,
        more: u64,
        what: impl FnOnce() -> T,
    ) {
        self.tell(source, refusal, self.refused[refusal as usize].add(more), what);
    }

    /// Logs a refusal where there is a `count` to log, and shows it to whoever looks on.
    fn tell<T: fmt::Display>(
        &self,
        source: &str,
        refusal: Refusal,
        count: Option<u64>,
        what: impl FnOnce() -> T,
    ) {
        let is_watched = self.tap.is_watched();
        if count.is_none() && !is_watched {
            return;
        }
        let what = excerpt::cut(what(), WHY);
        if let Some(count) = count {
            tracing::warn!(source, cause = refusal.name(), count, "refused input: {what}");
        }
        if is_watched {
            self.tap.refused(refusal.name(), what);
        }
    }

    /// Counts a refusal whose state is told elsewhere, when it changes.
    pub(super) fn count(&self, refusal: Refusal) {
        self.refused[refusal as usize].count();
    }

    /// Counts rounds that were left out, and logs them as rarely as a refusal.
    pub(super) fn leave_out(&self, source: &str, more: u64) {
        if let Some(count) = self.left_out.add(more) {
            tracing::warn!(
                source,
                count,
                "a round was left out, as those before took too long: ask more rarely, for less, or at a higher baud rate"
            );
        }
    }

    /// Counts a request that was forgotten before its time, and logs it as rarely as a refusal.
    pub(super) fn forget(&self, source: &str) {
        if let Some(count) = self.forgotten.count() {
            tracing::warn!(
                source,
                count,
                "more requests than can be remembered: a device that repeats an old one is counted twice"
            );
        }
    }

    /// Counts datagrams that the kernel dropped, and logs them as rarely as a refusal.
    pub(super) fn drop_by_kernel(&self, source: &str, more: u32) {
        if let Some(count) = self.dropped_by_kernel.add(more.into()) {
            tracing::warn!(
                source,
                count,
                "the kernel dropped datagrams that came faster than they could be read: what is Confirmable comes again"
            );
        }
    }

    /// Counts what a serial port's driver says of its line, and logs it as rarely as a refusal.
    pub(super) fn count_line(&self, source: &str, overruns: u32, errors: u32) {
        if let Some(count) = self.overruns.add(overruns.into()) {
            tracing::error!(
                source,
                count,
                "the port dropped bytes that came faster than they could be read: lower `baud`, or set `flow_control`"
            );
        }
        if let Some(count) = self.line_errors.add(errors.into()) {
            tracing::warn!(
                source,
                count,
                "characters with a wrong parity or stop bit, or breaks: check `baud`, `parity` and the wiring"
            );
        }
    }

    /// Counts a connection that is closed for its silence (`what` it has for so long), and logs it as rarely as a refusal.
    pub(super) fn fall_silent(&self, source: &str, peer: SocketAddr, what: &str, most: Duration) {
        if let Some(count) = self.silent.count() {
            let most = units::show(most);
            tracing::info!(source, count, "closed: {peer} {what} for {most} (`idle_timeout`)");
        }
    }

    /// How often each refusal happened.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.refused[refusal as usize].get()))
    }
}

#[cfg(test)]
pub(super) mod tests;

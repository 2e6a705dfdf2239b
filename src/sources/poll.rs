//! Request and response on a serial line: when to ask, and whether an answer has come. Pure: the time is an argument.

use std::time::Duration;

use serde::Deserialize;

use super::framing::Bytes;
use crate::units;

/// `poll`: what is written every so often. What comes within `timeout` behind it is the answer; what comes at another
/// time was not asked for, and is skipped and counted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// From one request to the next.
    #[serde(deserialize_with = "units::duration")]
    every: Duration,
    /// The request.
    pub(super) write: Bytes,
    /// How long its answer may take, all of it.
    #[serde(default = "second", deserialize_with = "units::duration")]
    timeout: Duration,
}

fn second() -> Duration {
    Duration::from_secs(1)
}

/// More often no serial line answers.
const MIN_EVERY: Duration = Duration::from_millis(10);

const MAX_EVERY: Duration = Duration::from_secs(365 * 24 * 3600);

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.write.is_empty() {
            problems.push(("poll.write", "`write` is empty: write the request's bytes".to_owned()));
        }
        if !(MIN_EVERY..=MAX_EVERY).contains(&self.every) {
            let (least, most) = (units::show(MIN_EVERY), units::show(MAX_EVERY));
            problems.push(("poll.every", format!("`every` must lie within {least} and {most}")));
        }
        if self.timeout.is_zero() || self.timeout > self.every {
            let text = format!(
                "`timeout` {} must be above 0s and at most `every` {}",
                units::show(self.timeout),
                units::show(self.every)
            );
            problems.push(("poll.timeout", text));
        }
        problems
    }
}

/// The requests on one line. Monotonic times throughout.
#[derive(Debug)]
pub(super) struct Poll {
    config: Config,
    next: Duration,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    until: Duration,
    /// How many bytes of the request are out.
    written: usize,
    answered: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing, until then.
    Wait(Duration),
    /// The time for the answer is over. Told before the next request.
    Close,
    /// It is time to ask, see [`Poll::ask`].
    Ask,
}

impl Poll {
    /// The first request is due at once.
    pub(super) fn new(config: &Config, now: Duration) -> Self {
        Self { config: config.clone(), next: now, asked: None }
    }

    pub(super) fn due(&self, now: Duration) -> Due {
        match &self.asked {
            Some(asked) if now >= asked.until => Due::Close,
            Some(asked) => Due::Wait(asked.until),
            None if now >= self.next => Due::Ask,
            None => Due::Wait(self.next),
        }
    }

    /// Begins a request. The next is due on the beat of the first; beats that were missed are left out.
    pub(super) fn ask(&mut self, now: Duration) {
        let every = self.config.every;
        let missed = now.saturating_sub(self.next).as_nanos() / every.as_nanos().max(1);
        let beats = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
        self.next = self.next.saturating_add(every.saturating_mul(beats));
        self.asked = Some(Asked { until: now + self.config.timeout, written: 0, answered: false });
    }

    /// What of the request is still to be written.
    pub(super) fn unwritten(&self) -> &[u8] {
        self.asked.as_ref().and_then(|asked| self.config.write.get(asked.written..)).unwrap_or_default()
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        if let Some(asked) = &mut self.asked {
            asked.written += bytes;
        }
    }

    /// Whether what comes now was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// A frame has come.
    pub(super) fn answered(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.answered = true;
        }
    }

    /// Ends the request; whether it was answered.
    pub(super) fn close(&mut self) -> bool {
        self.asked.take().is_some_and(|asked| asked.answered)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Config {
        toml::from_str(&format!("write = 'r?'\n{toml}")).unwrap()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn requests_keep_their_beat_however_late_each_one_is() {
        let mut poll = Poll::new(&config("every = '100ms'\ntimeout = '30ms'"), ms(1000));
        for beat in 0..10 {
            let at = ms(1000 + beat * 100);
            assert_eq!(poll.due(at), Due::Ask);
            poll.ask(at + ms(7));
            assert_eq!(poll.due(at + ms(8)), Due::Wait(at + ms(37)), "its answer has all its time");
            assert_eq!(poll.due(at + ms(37)), Due::Close);
            assert!(!poll.close());
            assert_eq!(poll.due(at + ms(38)), Due::Wait(at + ms(100)));
        }
    }

    #[test]
    fn beats_that_were_missed_are_left_out() {
        let mut poll = Poll::new(&config("every = '100ms'\ntimeout = '30ms'"), ms(0));
        poll.ask(ms(1250));
        assert_eq!(poll.due(ms(99_999)), Due::Close);
        poll.close();
        assert_eq!(poll.due(ms(1281)), Due::Wait(ms(1300)));
    }

    #[test]
    fn a_request_that_goes_out_in_pieces_goes_on_where_it_stopped() {
        let mut poll = Poll::new(&config("every = '1s'"), ms(0));
        assert_eq!(poll.unwritten(), b"");
        poll.ask(ms(0));
        assert_eq!(poll.unwritten(), b"r?");
        poll.wrote(1);
        assert_eq!(poll.unwritten(), b"?");
        poll.wrote(1);
        assert_eq!(poll.unwritten(), b"");
        poll.answered();
        assert!(poll.close() && !poll.is_asked());
    }

    #[test]
    fn what_cannot_work_is_a_problem_at_its_key() {
        let keys = |toml: &str| {
            let problems = config(toml).problems();
            problems.iter().map(|(key, _)| *key).collect::<Vec<_>>()
        };
        assert_eq!(keys("every = '1s'"), Vec::<&str>::new());
        assert_eq!(keys("every = '1ms'\ntimeout = '1ms'"), ["poll.every"]);
        assert_eq!(keys("every = '366d'"), ["poll.every"]);
        assert_eq!(keys("every = '500ms'"), ["poll.timeout"]);
        assert_eq!(keys("every = '1s'\ntimeout = '0s'"), ["poll.timeout"]);
        let empty: Config = toml::from_str("every = '1s'\nwrite = []").unwrap();
        assert_eq!(empty.problems()[0].0, "poll.write");
    }
}

//! How long a frame may take to end where `idle_timeout` is set: a byte now and then is no life. While the pipeline takes
//! nothing, nothing is read and no frame can end, so that time does not count.

use std::time::Duration;

/// A frame that has not ended after so many times `idle_timeout` does not either.
const IDLES: u32 = 10;

/// So long a frame may take.
pub(super) fn most(idle: Duration) -> Duration {
    idle.saturating_mul(IDLES)
}

/// A clock that only runs while the source is asked for what has come.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// So long it stood still, by the monotonic clock.
    missed: Duration,
    /// Since when it stands still, where it does.
    since: Option<Duration>,
}

impl Asked {
    pub(super) fn go(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.missed += now.saturating_sub(since);
        }
    }

    pub(super) fn stop(&mut self, now: Duration) {
        self.since = Some(now);
    }

    /// What it says at a monotonic time, while it runs.
    pub(super) fn at(&self, now: Duration) -> Duration {
        now.saturating_sub(self.missed)
    }

    /// At which monotonic time it will say so, if it goes on.
    pub(super) fn when(&self, asked: Duration) -> Duration {
        asked + self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nothing_is_asked_for_does_not_count() {
        let s = Duration::from_secs;
        let mut asked = Asked::default();
        asked.go(s(1));
        assert_eq!((asked.at(s(10)), asked.when(s(10))), (s(10), s(10)));
        asked.stop(s(10));
        asked.go(s(310));
        // One that was given up and is asked again has been asked all the time.
        asked.go(s(320));
        assert_eq!((asked.at(s(330)), asked.when(s(30))), (s(30), s(330)));
    }
}

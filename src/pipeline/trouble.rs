//! When to speak of something that comes and goes: a port, a connection.
//!
//! A state is told when it changes. What recovers and falls back within moments is told ever more rarely, so that a
//! broker that accepts and closes, or a loose plug, does not fill the log.

use std::time::Duration;

/// What has been well for so long was no mere relapse.
pub const STEADY: Duration = Duration::from_secs(10);

/// The history of one thing, as far as it decides what is told.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Since when it is not well; `None` while it is.
    since: Option<Duration>,
    well_since: Option<Duration>,
    told: Option<String>,
    relapses: u64,
}

impl Trouble {
    /// Something that has not been well since `now`.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    /// It is well. Gives for how long it was not, where that is worth a line.
    pub fn over(&mut self, now: Duration) -> Option<Duration> {
        self.well_since = Some(now);
        let down = now.saturating_sub(self.since.take().unwrap_or(now));
        is_worth_a_line(self.relapses).then_some(down)
    }

    /// Whether it was ill, and told so, before it became well.
    #[must_use]
    pub fn was_told(&self) -> bool {
        self.told.is_some()
    }

    /// Whether it has been well for [`STEADY`].
    #[must_use]
    pub fn is_steady(&self, now: Duration) -> bool {
        self.well_since.is_some_and(|since| now.saturating_sub(since) >= STEADY)
    }

    /// It is not well, for this reason. Gives whether that is worth a line.
    pub fn again(&mut self, text: &str, now: Duration) -> bool {
        let relapse = self.well_since.is_some() && !self.is_steady(now);
        if self.is_steady(now) {
            *self = Self::default();
        }
        self.well_since = None;
        self.since.get_or_insert(now);
        self.relapses += u64::from(relapse);
        let is_news = self.told.as_deref() != Some(text);
        if is_news {
            self.told = Some(text.to_owned());
        }
        is_news || (relapse && is_worth_a_line(self.relapses))
    }
}

/// None yet, the first, the tenth, the hundredth and so on.
fn is_worth_a_line(count: u64) -> bool {
    count.checked_ilog10().is_none_or(|digits| count == 10_u64.pow(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_when_it_changes_and_not_while_it_lasts() {
        let second = Duration::from_secs;
        let mut trouble = Trouble::new(second(0));
        assert!(trouble.again("refused", second(1)));
        assert!(!trouble.again("refused", second(2)));
        assert!(trouble.again("timed out", second(3)));
        assert_eq!(trouble.over(second(60)), Some(second(60)));
        assert!(trouble.is_steady(second(70)));
        assert!(trouble.again("timed out", second(100)), "it is news once it had been well");
        assert_eq!(trouble.over(second(130)), Some(second(30)));
    }

    #[test]
    fn an_outage_begins_when_it_goes_away_even_where_it_was_not_well_for_long() {
        let ms = Duration::from_millis;
        let mut trouble = Trouble::new(ms(0));
        assert!(trouble.again("nothing listens there", ms(10)));
        assert!(trouble.again("timed out", ms(20)));
        assert_eq!(trouble.over(ms(55_890)), Some(ms(55_890)), "tried in vain since the start");
        assert!(trouble.again("went away", ms(57_410)));
        assert!(trouble.again("nothing listens there", ms(58_000)));
        assert_eq!(trouble.over(ms(61_040)), Some(ms(3_630)));
        assert_eq!(trouble.over(ms(62_000)), Some(ms(0)), "it was well until it was made anew");
    }

    #[test]
    fn a_thousand_relapses_are_worth_a_handful_of_lines() {
        let mut trouble = Trouble::new(Duration::ZERO);
        let mut lines = 0;
        for n in 0..1_000 {
            let now = Duration::from_secs(2 * n);
            lines += u64::from(trouble.over(now).is_some());
            lines += u64::from(trouble.again("closed the connection", now + Duration::from_secs(1)));
        }
        assert!(lines <= 8, "{lines}");
    }
}

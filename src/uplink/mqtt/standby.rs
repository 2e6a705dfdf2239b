//! Several brokers: in which order they are tried, and the way back to the first.
//!
//! The one that answered last comes first, so that a broker which takes connections and says nothing is not waited for
//! at each connect; the first of the list comes before it once it has answered a dial, or was not tried for as long as
//! the pause is.
//!
//! On a standby, the first broker is dialled now and then, until it answers.
//! The pauses grow, over sessions too, so that a first broker which answers the dial and then refuses the connection
//! does not throw the session over every minute.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::link::CONNECT_WITHIN;

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How long a broker may take to accept where another may be tried instead.
const HURRY: Duration = Duration::from_secs(10);

/// Which broker's turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// With which the last session was.
    used: usize,
    /// How long the next session on a standby waits before it dials the first.
    pub(super) pause: Pause,
    /// When the first is tried before the one that was used, whatever it did.
    first_at: Duration,
    /// Whether the first has answered a dial.
    answered: Arc<AtomicBool>,
    /// Whether none was to be had the last time. Then each gets its full time: the way to all of them may be slow.
    patient: bool,
}

impl Turns {
    /// The brokers by their index, in the order in which they are to be tried now.
    pub(super) fn order(&mut self, brokers: usize, now: Duration) -> Vec<usize> {
        let back = self.answered.swap(false, Ordering::Relaxed) || now >= self.first_at;
        let lead = if back { 0 } else { self.used };
        if lead == 0 {
            self.first_at = now.saturating_add(self.pause.0);
        }
        std::iter::once(lead).chain((0..brokers).filter(|index| *index != lead)).collect()
    }

    /// How long the next one may take, where so many come after it.
    pub(super) fn within(&self, others: usize) -> Duration {
        if others > 0 && !self.patient { HURRY } else { CONNECT_WITHIN }
    }

    /// This one has accepted. Gives whether it is another than before.
    pub(super) fn settle(&mut self, index: usize) -> bool {
        if index == 0 {
            self.pause = Pause::default();
        }
        self.patient = false;
        std::mem::replace(&mut self.used, index) != index
    }

    /// None was to be had.
    pub(super) fn none(&mut self) {
        self.patient = true;
    }

    /// Where it is noted that the first has answered a dial.
    pub(super) fn answered(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.answered)
    }
}

/// How long to wait before the first broker is dialled: longer each time, until it was used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pause {
    /// This pause, and a longer one from now on. `chance`, from 0 to 1, takes up to a quarter off: a thousand gateways
    /// that left a broker together should not come back to it together.
    fn next(&mut self, chance: f64) -> Duration {
        let pause = self.0.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 4.0);
        self.0 = (self.0 * 2).min(LONGEST);
        pause
    }
}

/// Waits for the first broker to answer.
pub(super) struct Return(Pin<Box<dyn Future<Output = String> + Send>>);

impl Return {
    /// Dials `peer`, by `dial`, until it answers.
    pub(super) fn to<D: Future<Output = io::Result<()>> + Send>(
        peer: String,
        pause: &mut Pause,
        dial: impl Fn() -> D + Send + 'static,
    ) -> Self {
        // The next session on a standby begins with a longer pause.
        let mut own = *pause;
        pause.next(0.0);
        Self(Box::pin(async move {
            loop {
                sleep(own.next(fastrand::f64())).await;
                match timeout(CONNECT_WITHIN, dial()).await {
                    Ok(Ok(())) => return format!("{peer} answers again"),
                    Ok(Err(error)) => tracing::debug!(broker = peer, %error, "still not to be had"),
                    Err(_) => tracing::debug!(broker = peer, "still silent"),
                }
            }
        }))
    }

    /// Why the session is to be renewed, once it is. Cancel-safe; for ever where there is nothing to return to.
    pub(super) async fn answers(back: &mut Option<Self>) -> String {
        match back {
            Some(back) => back.0.as_mut().await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Return")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_answered_last_is_tried_first_until_the_first_answers_or_its_time_has_come() {
        let second = Duration::from_secs;
        let mut turns = Turns::default();
        assert_eq!(turns.order(3, second(0)), [0, 1, 2]);
        assert!(turns.settle(2));
        assert_eq!(turns.order(3, second(59)), [2, 0, 1]);
        assert!(!turns.settle(2));
        turns.answered().store(true, Ordering::Relaxed);
        assert_eq!(turns.order(3, second(59)), [0, 1, 2], "it has answered a dial");
        assert_eq!(turns.order(3, second(118)), [2, 0, 1], "and is asked once for that");
        assert_eq!(turns.order(3, second(119)), [0, 1, 2], "a minute later it is its turn in any case");
        assert!(turns.settle(0));
        assert_eq!(turns.order(3, second(120)), [0, 1, 2]);
    }

    #[test]
    fn a_broker_gets_a_short_time_where_others_follow_unless_none_was_to_be_had() {
        let mut turns = Turns::default();
        assert_eq!((turns.within(1), turns.within(0)), (HURRY, CONNECT_WITHIN));
        turns.none();
        assert_eq!(turns.within(1), CONNECT_WITHIN);
        turns.settle(0);
        assert_eq!(turns.within(1), HURRY);
    }

    #[test]
    fn the_pauses_grow_to_a_quarter_of_an_hour_and_chance_only_shortens_them() {
        let mut pause = Pause::default();
        let minutes: Vec<_> = (0..6).map(|_| pause.next(0.0).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 15, 15]);
        assert_eq!(Pause::default().next(1.0), Duration::from_secs(45));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_broker_is_dialled_until_it_answers_and_the_next_session_waits_longer() {
        let clock = crate::clock::Clock::injected(crate::model::Timestamp(0), true);
        let tries = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let mut pause = Pause::default();
        let mut back = Some(Return::to("a:1".into(), &mut pause, move || {
            let third = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2;
            async move {
                match third {
                    true => Ok(()),
                    false => std::future::pending().await,
                }
            }
        }));
        assert_eq!(Return::answers(&mut back).await, "a:1 answers again");
        // One, two and four minutes, shortened by up to a quarter, and two dials without an answer.
        let seconds = clock.monotonic().as_secs();
        assert!((7 * 45 + 60..=7 * 60 + 60).contains(&seconds), "{seconds}");
        assert_eq!(pause, Pause(2 * FIRST));
    }
}

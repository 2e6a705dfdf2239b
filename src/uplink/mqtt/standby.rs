//! The way back: on a standby, the first broker is dialled now and then, until it answers.
//!
//! The pauses grow, over sessions too, so that a first broker which answers the dial and then refuses the connection
//! does not throw the session over every minute.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::link::CONNECT_WITHIN;

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(15 * 60);

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

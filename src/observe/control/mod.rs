//! The control socket: how the commands ask a running weir. No other process opens its database.
//!
//! A stream socket in the runtime directory, for its owner and group alone. One connection is one question: a line of
//! JSON goes in, lines come out. Each begins with the letter that says what it is: `+` and a line of the answer, `-` and
//! why there is none, `.` for its end, so that an answer that was cut off is not taken for a whole one.
//!
//! [`serve`] is the running weir's end, and has the bounds; [`mod@ask`] is that of the commands. What is asked is answered
//! by `pipeline`; here nothing is known of the stages.

mod ask;
mod serve;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use ask::{Unanswered, ask, is_answered};
pub use serve::Control;

/// The socket's name in the runtime directory.
const NAME: &str = "control.sock";

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How the buffer and the way out of it stand: one [`Standing`](super::buffer::Standing) as JSON.
    BufferStats,
    /// The messages that are not acknowledged, in order, as they would be sent: at most `most`, all without it.
    BufferMessages {
        /// How many.
        most: Option<u64>,
    },
    /// Lose what waits in the buffer, by the ledger: answered with how many messages that were.
    BufferPurge,
    /// The messages that the broker has refused for good.
    DeadLetters,
    /// What dead letters say, as they would be sent.
    DeadLetterPayloads {
        /// Of which; of all without it.
        ids: Option<Vec<String>>,
    },
    /// Put dead letters back to the end of the queue: answered with how many that were.
    SendAgain {
        /// Which; all without it.
        ids: Option<Vec<String>>,
    },
    /// Forget dead letters for good: answered with how many that were.
    ForgetDeadLetters {
        /// Which; all without it.
        ids: Option<Vec<String>>,
    },
    /// What a source reads and what comes of it, an event a line, until the asker goes away or the source does.
    Tap {
        /// Its name.
        source: String,
    },
}

/// Takes the lines of an answer. It is an answer only once [`Reply::end`] was told.
#[derive(Clone, Debug)]
pub struct Reply(mpsc::Sender<String>);

/// Nobody waits for the answer any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody waits for the answer any more")]
pub struct Gone;

impl Reply {
    /// Adds a line, once there is room for it.
    ///
    /// # Errors
    /// Where nobody waits any more.
    pub async fn line(&self, line: &str) -> Result<(), Gone> {
        self.0.send(format!("+{line}\n")).await.map_err(|_| Gone)
    }

    /// Says that there is no answer, or no more of it, and why.
    pub async fn refuse(self, why: &str) {
        // Nobody may wait for it, here and below.
        let _ = self.0.send(format!("-{}\n", why.replace('\n', " "))).await;
    }

    /// Says that the answer is complete.
    pub async fn end(self) {
        let _ = self.0.send(".\n".to_owned()).await;
    }
}

//! The word to stop, given once and heard by many.

use tokio::sync::watch;

/// Gives the word. Dropped without a word, it is given too: nobody waits for one that is gone.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Hears the word.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A word to stop, and the one who gives it.
#[must_use]
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Gives the word.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits for the word; at once where it has been given. Cancel-safe.
    pub async fn wait(&self) {
        // An error means that the stopper is gone, which is a word to stop as well.
        drop(self.0.clone().wait_for(|stopped| *stopped).await);
    }
}

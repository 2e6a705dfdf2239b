//! When a session is to be followed by a fresh one, and why.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// Works only while it is waited for, and goes on from where it was.
pub(super) struct Renewal(Option<Pin<Box<dyn Future<Output = String> + Send>>>);

impl Renewal {
    /// Never.
    pub(super) fn never() -> Self {
        Self(None)
    }

    /// Once `certificate` says so, or `in_time`, when the login is to be renewed.
    pub(super) fn new(
        certificate: Option<impl Future<Output = String> + Send + 'static>,
        in_time: Option<Duration>,
    ) -> Self {
        if certificate.is_none() && in_time.is_none() {
            return Self(None);
        }
        Self(Some(Box::pin(async move {
            let certificate = async {
                match certificate {
                    Some(certificate) => certificate.await,
                    None => std::future::pending().await,
                }
            };
            let login = async {
                match in_time {
                    Some(time) => tokio::time::sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                why = certificate => why,
                () = login => "the token is about to end".to_owned(),
            }
        })))
    }

    /// Waits until it is due, which it is once. Cancel-safe.
    pub(super) async fn due(&mut self) -> String {
        match &mut self.0 {
            Some(waiting) => {
                let why = waiting.await;
                self.0 = None;
                why
            }
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "tokio's time stands still here")]
    async fn a_renewal_that_is_asked_for_again_and_again_comes_when_it_is_due_and_once() {
        let mut renewal = Renewal::new(None::<Ready<String>>, Some(Duration::from_secs(60)));
        let start = Instant::now();
        let mut asked = 0;
        let why = loop {
            asked += 1;
            if let Ok(why) = timeout(Duration::from_secs(7), renewal.due()).await {
                break why;
            }
        };
        assert_eq!((asked, start.elapsed()), (9, Duration::from_secs(60)));
        assert!(why.contains("token"), "{why}");
        timeout(Duration::from_secs(1000), renewal.due()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_certificate_need_not_wait_for_the_token() {
        let mut renewal = Renewal::new(Some(ready("new".to_owned())), Some(Duration::from_secs(60)));
        assert_eq!(renewal.due().await, "new");
        let mut never = Renewal::new(None::<Ready<String>>, None);
        timeout(Duration::from_secs(1000), never.due()).await.unwrap_err();
    }
}

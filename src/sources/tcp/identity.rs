//! The certificate that devices are shown, and a new one on its way in.
//!
//! The files are looked at when a device connects, at most once a second: what nobody asks for needs no timer. What is
//! in them counts from then on for new connections; those that stand go on. While new files are wrong, the old
//! certificate is shown, and they are told of once they have been wrong for a while.

use std::time::Duration;

use rustls::server::UnbufferedServerConnection;

use super::super::Context;
use crate::clock::Clock;
use crate::tls::{self, Expiry, Listening, Look, Looks, Server};

const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Identity {
    files: Listening,
    in_use: Server,
    looks: Looks,
    looked: Duration,
    expiry: Expiry,
}

impl Identity {
    pub(super) fn read(files: &Listening, context: &Context) -> Result<Self, tls::Error> {
        let in_use = tls::server(files)?;
        let mut identity = Self {
            files: files.clone(),
            looks: Looks::new(in_use.seen.clone()),
            in_use,
            looked: context.clock.monotonic(),
            expiry: Expiry::default(),
        };
        identity.warn_of_end(context);
        Ok(identity)
    }

    /// What to meet a device with that connects now.
    pub(super) fn meet(&mut self, context: &Context) -> Result<UnbufferedServerConnection, rustls::Error> {
        let now = context.clock.monotonic();
        if now.saturating_sub(self.looked) >= EVERY {
            self.looked = now;
            self.look(now, context);
            self.warn_of_end(context);
        }
        UnbufferedServerConnection::new(self.in_use.config.clone())
    }

    fn look(&mut self, now: Duration, context: &Context) {
        let look = self.looks.look(self.files.seen(), now);
        if look == Look::Same {
            return;
        }
        let (source, file) = (&*context.name, self.files.cert.display());
        match tls::server(&self.files) {
            Ok(new) => {
                let until = tls::show(new.until);
                tracing::info!(
                    source,
                    "devices are shown the new certificate in {file}, valid until {until}"
                );
                if let Some(doubt) = &new.doubt {
                    tracing::warn!(source, "{doubt}");
                }
                self.looks = Looks::new(new.seen.clone());
                self.in_use = new;
            }
            // Whoever writes them may not have done.
            Err(_) if look != (Look::Changed { fresh: false }) => {}
            Err(error) => {
                tracing::warn!(
                    source,
                    "{error}; devices are still shown the certificate that was there before"
                );
                self.looks.settle();
            }
        }
    }

    fn warn_of_end(&mut self, context: &Context) {
        let now = now(&context.clock);
        if self.expiry.is_due(self.in_use.until, now) {
            let (file, until) = (self.files.cert.display(), tls::show(self.in_use.until));
            match tls::days_left(self.in_use.until, now) {
                days @ 0.. => tracing::warn!(
                    source = &*context.name,
                    "the certificate in {file}, which devices are shown, ends on {until}, in {days} days: install a new one"
                ),
                _ => tracing::error!(
                    source = &*context.name,
                    "the certificate in {file}, which devices are shown, ended on {until}: install a new one"
                ),
            }
        }
    }
}

/// What the clock says, for dates on certificates.
pub(super) fn now(clock: &Clock) -> tls::Now {
    let stamp = clock.now();
    tls::Now { unix: stamp.wall.0.div_euclid(1000), trusted: stamp.synced }
}

//! What the control socket is answered: what is in the buffer, and what the sources read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::forward;
use super::intake::Taps;
use super::tap::no_source;
use crate::clock::Clock;
use crate::encode::Format;
use crate::model::Id;
use crate::observe::buffer::{Buffer, DeadLetters, Settled, Standing, Uplink};
use crate::observe::control::{Gone, Question, Reply};
use crate::outbox::{self, DeadLetter, Outbox, Place};

/// How many messages are looked at in one go.
const PAGE: usize = 256;

/// Who answers.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) outbox: Outbox,
    pub(super) format: Format,
    /// The gateway's name; `None` while neither the file nor a certificate tells it.
    pub(super) gateway: Option<Arc<str>>,
    pub(super) buffer: outbox::Config,
    pub(super) taps: Taps,
    pub(super) clock: Clock,
    pub(super) forward: Arc<forward::Stats>,
}

/// Why nothing can be shown as it would be sent.
const NAMELESS: &str = "the gateway has no name yet: install its certificate, or set `id` in [gateway]";

/// What becomes of dead letters.
#[derive(Clone, Copy)]
enum Fate {
    SentAgain,
    Forgotten,
}

impl Answers {
    pub(super) async fn answer(self, question: Question, reply: Reply) {
        let answered = match question {
            Question::BufferStats => reply.line(&json!(self.standing()).to_string()).await,
            Question::BufferMessages { most } => match self.gateway.clone() {
                Some(gateway) => self.messages(&gateway, most.unwrap_or(u64::MAX), &reply).await,
                None => return reply.refuse(NAMELESS).await,
            },
            Question::BufferPurge => reply.line(&self.outbox.purge().await.to_string()).await,
            Question::DeadLetters => self.each_letter(None, &reply, listed).await,
            Question::DeadLetterPayloads { ids } => match (ids.map(read).transpose(), self.gateway.clone()) {
                (Err(why), _) => return reply.refuse(&why).await,
                (Ok(_), None) => return reply.refuse(NAMELESS).await,
                (Ok(ids), Some(gateway)) => {
                    let payload = |letter: &DeadLetter| self.text(&gateway, letter.id, &letter.message);
                    self.each_letter(ids, &reply, payload).await
                }
            },
            Question::SendAgain { ids } => match ids.map(read).transpose() {
                Ok(ids) => reply.line(&self.letters(ids, Fate::SentAgain).await.to_string()).await,
                Err(why) => return reply.refuse(&why).await,
            },
            Question::ForgetDeadLetters { ids } => match ids.map(read).transpose() {
                Ok(ids) => {
                    let count = self.letters(ids, Fate::Forgotten).await;
                    tracing::warn!(count, "dead letters were forgotten for good, as somebody asked for it");
                    reply.line(&count.to_string()).await
                }
                Err(why) => return reply.refuse(&why).await,
            },
            Question::Tap { source } => return self.tap(&source, reply).await,
        };
        if answered.is_ok() {
            reply.end().await;
        }
    }

    fn standing(&self) -> Standing {
        let (stats, forward) = (self.outbox.stats(), &self.forward);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (now, stamp) = (self.clock.monotonic(), self.clock.now());
        let age = |since: Duration| now.saturating_sub(since).as_secs();
        let link = forward.link.state();
        let lost = [
            ("evicted", get(&stats.evicted)),
            ("buffer full", stats.full.get()),
            ("expired", stats.expired.get()),
            ("purged", stats.purged.get()),
            ("refused", forward.given_up.get()),
            ("too large", stats.too_large.get()),
            ("damaged", get(&stats.damaged)),
        ];
        Standing {
            now: stamp.synced.then_some(stamp.wall.0.div_euclid(1_000)),
            uplink: Uplink {
                connected_for: link.since.map(age),
                broker: link.peer,
                last_error: link.failure.map(|(what, at)| (what, age(at))),
                certificate_until: link.certificate_until,
                uses_certificate: link.uses_certificate,
                connections: get(&forward.connections),
                tries: get(&forward.tries),
            },
            buffer: Buffer {
                waiting: stats.waiting(),
                oldest: self.outbox.oldest().map(|age| age.as_secs()),
                in_memory: get(&stats.in_memory),
                on_disk: get(&stats.on_disk),
                disk_bytes: get(&stats.disk_bytes),
                disk_trouble: stats.disk_trouble().as_deref().map(str::to_owned),
                below_min_free: stats.below_min_free.load(Ordering::Relaxed),
                max_bytes: self.buffer.max_bytes.0,
                max_age: self.buffer.max_age.as_secs(),
                min_free: self.buffer.min_free.0,
                when_full: self.buffer.when_full.name().to_owned(),
            },
            settled: Settled {
                acknowledged: get(&stats.acknowledged),
                lost: lost.into_iter().map(|(cause, count)| (cause.to_owned(), count)).collect(),
                salvaged: get(&stats.salvaged),
                gaps_to_tell: get(&stats.gaps),
            },
            dead_letters: DeadLetters {
                kept: get(&stats.dead_letters),
                dropped: stats.dead_letters_dropped.get(),
                refused_again: forward.refused_again.get(),
                lost_again: stats.lost_again.get(),
            },
        }
    }

    /// The messages as they would be sent.
    async fn messages(&self, gateway: &str, most: u64, reply: &Reply) -> Result<(), Gone> {
        let (mut left, mut from) = (most, Some(Place::default()));
        while let (Some(place), 1..) = (from, left) {
            let page = self.outbox.page(place, PAGE.min(usize::try_from(left).unwrap_or(PAGE))).await;
            for outgoing in page.messages {
                reply.line(&self.text(gateway, outgoing.id, &outgoing.message)).await?;
                left -= 1;
            }
            from = page.next;
        }
        Ok(())
    }

    /// A line for each dead letter, or for each of those in `ids`.
    async fn each_letter(
        &self,
        ids: Option<Vec<Id>>,
        reply: &Reply,
        line: impl Fn(&DeadLetter) -> String,
    ) -> Result<(), Gone> {
        let mut after = None;
        loop {
            let letters = self.outbox.dead_letters(after, PAGE).await;
            let Some(last) = letters.last() else { return Ok(()) };
            after = Some(last.id);
            for letter in
                letters.iter().filter(|letter| ids.as_ref().is_none_or(|ids| ids.contains(&letter.id)))
            {
                reply.line(&line(letter)).await?;
            }
        }
    }

    /// What to look at where nothing comes in, and then all that happens at a source, until one of both is gone.
    async fn tap(&self, source: &str, reply: Reply) {
        let (mut watcher, where_to_look) = match self.taps.watch(source, &self.clock) {
            Ok(watched) => watched,
            Err(names) => return reply.refuse(&no_source(source, &names)).await,
        };
        let mut going_on = reply.line(where_to_look).await;
        while going_on.is_ok() {
            let Some(event) = watcher.next().await else {
                return reply.refuse("the source is in the configuration no longer").await;
            };
            // Nothing in it is what JSON could not hold.
            let line = serde_json::to_string(&event).unwrap_or_default();
            going_on = reply.line(&line).await;
        }
    }

    /// Has these dead letters meet their fate, or all that there are now, and tells how many those were. What becomes a
    /// dead letter meanwhile, again perhaps, is left as it is.
    async fn letters(&self, ids: Option<Vec<Id>>, fate: Fate) -> u64 {
        let ids = ids.unwrap_or_else(|| self.outbox.dead_letter_ids());
        match fate {
            Fate::SentAgain => self.outbox.send_again(&ids).await,
            Fate::Forgotten => self.outbox.forget_dead_letters(&ids).await,
        }
    }

    fn text(&self, gateway: &str, id: Id, message: &crate::model::Message) -> String {
        let mut payload = Vec::new();
        self.format.message(id, gateway, message, &mut payload);
        String::from_utf8_lossy(&payload).into_owned()
    }
}

fn read(ids: Vec<String>) -> Result<Vec<Id>, String> {
    ids.iter().map(|id| id.parse()).collect()
}

/// What a list says of a dead letter.
fn listed(letter: &DeadLetter) -> String {
    let line = json!({
        "id": letter.id.to_string(),
        "device": letter.message.device,
        "cause": letter.cause.name(),
        "reason": letter.reason,
        "at": letter.at.0,
    });
    line.to_string()
}

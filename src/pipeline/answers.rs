//! What the control socket is answered: the buffer's side of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::encode::Format;
use crate::model::Id;
use crate::observe::control::{Gone, Question, Reply};
use crate::outbox::{Outbox, Place};

/// How many messages are looked at in one go.
const PAGE: usize = 256;

/// Who answers.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) outbox: Outbox,
    pub(super) format: Format,
    /// The gateway's name; `None` while neither the file nor a certificate tells it.
    pub(super) gateway: Option<Arc<str>>,
}

impl Answers {
    pub(super) async fn answer(self, question: Question, reply: Reply) {
        let answered = match question {
            Question::BufferStats => reply.line(&self.stats().to_string()).await,
            Question::BufferMessages { most } => match self.gateway.clone() {
                Some(gateway) => self.messages(&gateway, most.unwrap_or(u64::MAX), &reply).await,
                None => {
                    let why =
                        "the gateway has no name yet: install its certificate, or set `id` in [gateway]";
                    return reply.refuse(why).await;
                }
            },
            Question::BufferPurge => reply.line(&self.outbox.purge().await.to_string()).await,
            Question::DeadLetters => self.dead_letters(&reply).await,
            Question::SendAgain { ids } => match ids.map(read).transpose() {
                Ok(ids) => reply.line(&self.send_again(ids).await.to_string()).await,
                Err(why) => return reply.refuse(&why).await,
            },
        };
        if answered.is_ok() {
            reply.end().await;
        }
    }

    fn stats(&self) -> Value {
        let stats = self.outbox.stats();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "waiting": stats.waiting(),
            "in_memory": get(&stats.in_memory),
            "on_disk": get(&stats.on_disk),
            "disk_bytes": get(&stats.disk_bytes),
            "disk": stats.disk_trouble().as_deref().unwrap_or("ok"),
            "below_min_free": stats.below_min_free.load(Ordering::Relaxed),
            "acknowledged": get(&stats.acknowledged),
            "gaps_to_tell": get(&stats.gaps),
            "dead_letters": get(&stats.dead_letters),
            "dead_letters_dropped": stats.dead_letters_dropped.get(),
            "evicted": get(&stats.evicted),
            "full": stats.full.get(),
            "expired": stats.expired.get(),
            "purged": stats.purged.get(),
            "damaged": get(&stats.damaged),
            "salvaged": get(&stats.salvaged),
            "too_large": stats.too_large.get(),
        })
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

    async fn dead_letters(&self, reply: &Reply) -> Result<(), Gone> {
        let mut after = None;
        loop {
            let letters = self.outbox.dead_letters(after, PAGE).await;
            let Some(last) = letters.last() else { return Ok(()) };
            after = Some(last.id);
            for letter in letters {
                let line = json!({
                    "id": letter.id.to_string(),
                    "device": letter.message.device,
                    "cause": letter.cause.name(),
                    "reason": letter.reason,
                    "at": letter.at.0,
                });
                reply.line(&line.to_string()).await?;
            }
        }
    }

    async fn send_again(&self, ids: Option<Vec<Id>>) -> u64 {
        if let Some(ids) = ids {
            return self.outbox.send_again(&ids).await;
        }
        let mut sent = 0;
        loop {
            let letters = self.outbox.dead_letters(None, PAGE).await;
            let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
            match self.outbox.send_again(&ids).await {
                0 => return sent,
                some => sent += some,
            }
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

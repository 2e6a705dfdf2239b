//! Messages that the other side refuses for now again and again while it takes others. Pure: the time comes as an
//! argument.
//!
//! A refusal for now mostly means the whole broker: then everything pauses, the message first in line, and order is kept.
//! Where others were taken since it was refused last, it means the message: that one is set aside for a pause of its
//! own, which grows, and the rest goes on; and so where no other had its turn since, so that another has. It is never
//! given up: what a quota of a month holds back is not lost.

use std::collections::HashMap;
use std::time::Duration;

use super::super::backoff::Backoff;
use super::CAP;
use crate::model::Id;

/// How many messages lie aside at most, and how many bytes of them; one always may. With more, the rest waits too.
const MOST: (usize, usize) = (256, 1 << 20);

/// What was refused for now and is not settled.
#[derive(Debug, Default)]
pub(super) struct Aside {
    refused: HashMap<Id, Refused>,
    lying: usize,
    bytes: usize,
}

/// How many messages a session has answered for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    pub(super) taken: u64,
    pub(super) refused: u64,
}

#[derive(Debug)]
struct Refused {
    /// What the session had answered when this was refused last, and by that.
    answers: Answers,
    pause: Backoff,
    bytes: usize,
    /// Until when it lies aside.
    until: Option<Duration>,
}

impl Aside {
    /// This message of so many bytes is refused, on a session that has answered so much, this included. Whether it lies
    /// aside now; else it is to go again, as the first.
    pub(super) fn refuse(&mut self, id: Id, bytes: usize, answers: Answers, now: Duration) -> bool {
        let Some(refused) = self.refused.get_mut(&id) else {
            let pause = Backoff::new(Duration::from_secs(1), CAP);
            self.refused.insert(id, Refused { answers, pause, bytes, until: None });
            return false;
        };
        let before = std::mem::replace(&mut refused.answers, answers);
        let others_were_taken = answers.taken > before.taken;
        let was_the_only_one = answers.refused == before.refused + 1;
        let lies = others_were_taken || was_the_only_one;
        if lies {
            refused.until = Some(now + refused.pause.wait());
            self.lying += 1;
            self.bytes += bytes;
        }
        lies
    }

    /// What has lain aside for long enough, and is to go again.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Id> {
        if self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (id, refused) in &mut self.refused {
            if refused.until.is_some_and(|until| until <= now) {
                refused.until = None;
                self.lying -= 1;
                self.bytes -= refused.bytes;
                due.push(*id);
            }
        }
        due
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Duration> {
        if self.lying == 0 {
            return None;
        }
        self.refused.values().filter_map(|refused| refused.until).min()
    }

    /// It is taken, or given up.
    pub(super) fn settle(&mut self, id: Id) {
        if let Some(Refused { bytes, until: Some(_), .. }) = self.refused.remove(&id) {
            self.lying -= 1;
            self.bytes -= bytes;
        }
    }

    /// How many lie aside.
    pub(super) fn len(&self) -> usize {
        self.lying
    }

    /// Whether so much lies aside that nothing more may be taken.
    pub(super) fn is_full(&self) -> bool {
        self.lying >= MOST.0 || self.bytes >= MOST.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u64) -> Id {
        Id { epoch: 1, sequence }
    }

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_lies_aside_only_where_others_were_taken_or_none_had_its_turn_since_it_was_refused_last() {
        let mut aside = Aside::default();
        let refuse = |aside: &mut Aside, taken, refused, now| {
            aside.refuse(id(1), 10, Answers { taken, refused }, second(now))
        };
        assert!(!refuse(&mut aside, 5, 1, 0), "the first time");
        assert!(!refuse(&mut aside, 5, 3, 1), "another was refused as well, and none taken");
        assert!(refuse(&mut aside, 6, 6, 2), "another was taken");
        assert_eq!((aside.len(), aside.due(second(2))), (1, vec![]));
        let due = aside.next_due().unwrap();
        assert!(due > second(2) && due <= second(3));
        assert_eq!((aside.due(due), aside.len(), aside.next_due()), (vec![id(1)], 0, None));
        assert!(refuse(&mut aside, 6, 7, 3), "no other had its turn");
        aside.settle(id(1));
        assert_eq!((aside.len(), aside.bytes), (0, 0));
        assert!(!refuse(&mut aside, 9, 9, 4), "it is forgotten once it is settled");
    }

    #[test]
    fn its_pause_grows_up_to_a_minute() {
        let mut aside = Aside::default();
        aside.refuse(id(1), 10, Answers::default(), Duration::ZERO);
        let mut now = Duration::ZERO;
        for taken in 1..30 {
            assert!(aside.refuse(id(1), 10, Answers { taken, refused: 100 * taken }, now));
            let due = aside.next_due().unwrap();
            assert!(due - now <= CAP);
            now = due;
            assert_eq!(aside.due(now), [id(1)]);
        }
        assert!(now > 3 * CAP, "thirty pauses under a ceiling that doubles: {now:?}");
    }

    #[test]
    fn there_is_a_bound_on_what_lies_aside_in_messages_and_in_bytes() {
        for (count, bytes) in [(MOST.0 as u64, 1), (2, MOST.1 / 2)] {
            let mut aside = Aside::default();
            for sequence in 0..count {
                assert!(!aside.is_full());
                aside.refuse(id(sequence), bytes, Answers::default(), Duration::ZERO);
                aside.refuse(id(sequence), bytes, Answers { taken: 1, refused: 2 }, Duration::ZERO);
            }
            assert!(aside.is_full());
            aside.settle(id(0));
            assert!(!aside.is_full());
        }
    }
}

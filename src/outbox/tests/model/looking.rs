//! Those who look, and what only a person asks for: dead letters that are sent again, and a purge.

use std::collections::BTreeSet;

use tokio::sync::oneshot::{self, Sender};

use super::super::{number, stamp};
use super::world::{AGE, World};
use crate::model::{Cause, Id, Message};
use crate::outbox::dead::LETTERS_MAX;
use crate::outbox::queue::{Ask, Step};
use crate::outbox::store::{Dead, Position};

impl World<'_> {
    /// The answer to a question, for which what is due is done.
    fn ask<T>(&mut self, ask: impl FnOnce(Sender<T>) -> Ask) -> T {
        self.answer();
        let (sender, mut answer) = oneshot::channel();
        self.queue.ask(ask(sender));
        for _ in 0..1_000 {
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
            match self.queue.step(stamp(self.now)) {
                Step::Work(job) => self.start(job),
                Step::Wait(_) | Step::Closed => {}
            }
            self.answer();
        }
        panic!("no answer");
    }

    /// Looks through the queue, and holds that everything that is out is seen, nothing twice, and nothing that is not
    /// there.
    pub(super) fn look(&mut self, limit: usize) {
        let lost = self.lost();
        let (mut from, mut seen) = (Position::MIN, Vec::new());
        loop {
            let (part, next) = self.ask(|answer| Ask::Page { from, limit, answer });
            assert!(part.len() <= limit);
            seen.extend(part.iter().map(|(id, bytes)| (*id, number(&Message::from_bytes(bytes).unwrap()))));
            let Some(next) = next else { break };
            assert!(next > from, "it looks on where it was");
            from = next;
        }
        let ids: BTreeSet<Id> = seen.iter().map(|(id, _)| *id).collect();
        assert!(ids.len() == seen.len() || !self.revived.is_empty(), "seen twice: {seen:?}");
        for (id, number) in &seen {
            assert_eq!(self.given.get(number).unwrap_or(id), id, "{number} has two ids");
            let gone = self.acknowledged.contains(number) || self.given_up.contains(number);
            assert!(!gone || self.revived.contains(number), "{number} is gone, and is seen");
        }
        // What is out may have been put back, and lost since by order or for its age.
        if self.settings.max_age > AGE && self.purged() == 0 {
            for (id, number) in &self.out {
                assert!(ids.contains(id), "{number} is out, and is not seen");
            }
        }
        if self.lost() == lost {
            let waiting = self.queue.stats().waiting();
            assert!(seen.len() as u64 <= waiting, "{} seen of {waiting}", seen.len());
        }
    }

    fn letters(&mut self, limit: usize) -> Vec<Dead> {
        let (mut after, mut letters) = (None, Vec::new());
        loop {
            let (part, next) = self.ask(|answer| Ask::DeadLetters { after, limit, answer });
            letters.extend(part);
            after = next;
            if after.is_none() {
                return letters;
            }
        }
    }

    pub(super) fn send_again(&mut self, mask: u16) {
        let letters = self.letters(usize::from(mask % 5) + 1);
        assert!(letters.len() <= LETTERS_MAX);
        assert!(letters.is_sorted_by(|a, b| a.id < b.id), "in the order of ids, each once");
        for dead in &letters {
            let number = number(&Message::from_bytes(&dead.bytes).unwrap());
            let known = self.given_up.contains(&number) || self.revived.contains(&number);
            assert!(known, "{number} was not given up");
            assert_eq!(self.given[&number], dead.id);
            assert_eq!((dead.cause, &*dead.reason), (Cause::Refused, "no"));
        }
        let chosen = letters.iter().enumerate().filter(|(bit, _)| mask & 1 << (bit % 16) != 0);
        let mut ids: Vec<Id> = chosen.map(|(_, dead)| dead.id).collect();
        ids.push(Id { epoch: 1, sequence: 1 });
        while !ids.is_empty() {
            let chosen = ids.clone();
            let (count, moved) = self.ask(|answer| Ask::SendAgain { ids: chosen, answer });
            for letter in moved {
                self.revived.insert(self.ids[&letter.id]);
                self.revivals += 1;
            }
            ids.drain(..count);
        }
        self.work();
        if self.queue.is_revived() && self.disk_ok() {
            let stored = self.stored();
            for (number, id) in
                self.revived.iter().filter_map(|number| Some((number, self.given.get(number)?)))
            {
                // It may have been answered for, or lost once more, since an earlier time.
                let settled = self.acknowledged.contains(number) || self.out.contains_key(id);
                let kept = stored.contains(number) || self.queue.dead_ids().contains(id);
                assert!(
                    kept || settled || self.may_be_lost(),
                    "{number} is neither in the queue nor a dead letter"
                );
            }
        }
    }

    /// Whether more can be lost than what is given up.
    fn may_be_lost(&self) -> bool {
        self.lost() > 0 || self.crashes > 0
    }

    pub(super) fn purge(&mut self) {
        self.queue.purge(self.now);
        self.work();
        if self.queue.is_purged() && self.disk_ok() {
            let out: BTreeSet<u64> = self.out.values().copied().collect();
            let left: Vec<u64> = self.stored().difference(&out).copied().collect();
            // A row that was handed out and answered for goes with a later commit.
            let left: Vec<_> = left.iter().filter(|number| !self.given.contains_key(number)).collect();
            assert!(left.is_empty(), "purged, and still on the disk: {left:?}");
        }
    }
}

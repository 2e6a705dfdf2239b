//! Crashes, stops and the end: what survives is held against what the model knows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::platter::{Faulty, Platter};
use super::super::{number, stamp};
use super::Death;
use super::world::World;
use crate::model::{Cause, Gap, Id, Message, Timestamp};
use crate::outbox::begin;
use crate::outbox::queue::Step;
use crate::outbox::store::{Known, Met};

impl World<'_> {
    pub(super) fn crash(&mut self, death: Death) {
        let job = match death {
            Death::Idle => None,
            Death::BeforeCommit | Death::AfterCommit => {
                self.answer();
                self.now += Duration::from_secs(60);
                match self.queue.step(stamp(self.now)) {
                    Step::Work(job) => Some(job),
                    _ => None,
                }
            }
        };
        if let (Death::AfterCommit, Some(job)) = (death, job) {
            self.start(job);
        }
        self.reopen();
    }

    pub(super) fn close(&mut self, saved: Option<Vec<u8>>) {
        self.queue.close(saved.clone(), self.now);
        self.work();
        assert!(self.queue.is_closed());
        // Where the disk refused the last commit, what an earlier run saved may still be there.
        let committed = self.disk_ok();
        let found = self.reopen();
        if committed && self.disk_ok() && found.is_some() {
            assert_eq!(found, saved, "what was saved comes back");
        }
    }

    /// Starts anew over what survives, and holds it against what the model knows. Gives what was saved.
    fn reopen(&mut self) -> Option<Vec<u8>> {
        self.pending = None;
        let disk_ok = self.disk_ok();
        // Let go of the file, then look at it with no faults.
        self.store = Box::new(Platter::new(0));
        let mut store = (self.ground.maker)();
        let found = store.open(&Known::default(), Timestamp(0)).unwrap();
        let mut stored = BTreeSet::new();
        self.spared.retain(|number| !self.fresh.contains(number));
        self.fresh.clear();
        let mut spared = self.spared.clone();
        let mut from = found.first;
        loop {
            let rows = store.read(from, Some(found.end), 100, usize::MAX).unwrap();
            let Some(Met::Row(last)) = rows.last() else { break };
            from = last.position + 1;
            for met in &rows {
                let Met::Row(row) = met else { panic!("damaged") };
                let message = Message::from_bytes(&row.bytes).unwrap();
                let number = number(&message);
                match message.told {
                    Some(true) => spared.insert(number),
                    _ => spared.remove(&number),
                };
                assert!(stored.insert(number) || self.revived.contains(&number), "a message is stored twice");
            }
        }
        drop(store);

        // The note may be of a run before, where the file could not be opened in this one.
        self.crashes += 1;
        self.given_up.retain(|number| !stored.contains(number) || self.revived.contains(number));
        let clean = found.run.as_ref().is_some_and(|run| run.clean && run.epoch == self.queue.epoch());
        if clean {
            let kept =
                stored.intersection(&self.acknowledged).filter(|number| !self.revived.contains(number));
            assert_eq!(kept.count(), 0, "acknowledged ones were kept");
        }
        self.acknowledged = self.acknowledged.difference(&stored).copied().collect();
        let unseen =
            found.losses.iter().filter(|(_, record)| record.id.is_none_or(|id| !self.gaps.contains_key(&id)));
        let unseen: u64 = unseen.filter_map(|(_, record)| record.loss.messages).sum();
        // What is sent again was counted, and is not gone.
        let counted = (unseen + self.told().0).saturating_sub(spared.len() as u64);
        self.spared.retain(|number| !stored.contains(number));
        let gone = |number: &u64| !stored.contains(number) && !self.acknowledged.contains(number);
        let lost = ((0..self.messages).filter(gone).count() as u64).saturating_sub(self.crashed);
        let certain =
            (0..self.messages).filter(gone).filter(|number| self.committed.contains(number)).count() as u64;
        let windows = |cause, messages: Option<u64>| cause == Cause::Full && messages.is_none();
        self.unknown |= found.losses.iter().any(|(_, record)| windows(record.cause, record.loss.messages));
        assert!(
            certain <= counted || self.unknown,
            "{certain} were committed and are gone, {counted} are counted"
        );
        assert!(counted <= lost, "{lost} are gone, {counted} are counted");
        if clean {
            assert!(
                counted >= lost || self.unknown,
                "{lost} are gone, {counted} counted: an orderly stop loses by the ledger only"
            );
        } else {
            self.readings_exact &= counted == lost;
            self.crashed += lost.saturating_sub(counted);
            self.crash_gaps += usize::from(found.run.is_some_and(|run| !run.clean));
        }

        self.out.clear();
        self.gaps_out.clear();
        self.store = Box::new(Faulty { store: (self.ground.maker)(), faults: self.faults.clone() });
        self.unordered |= self.faults.now().opens;
        self.unordered |= !disk_ok;
        let (queue, saved) = begin(&mut *self.store, self.settings.clone(), stamp(self.now));
        self.queue = queue;
        saved
    }

    /// The messages and readings that were told as lost.
    fn told(&self) -> (u64, u64) {
        let counts = |gap: &Gap| Some((gap.messages?, gap.readings?));
        self.gaps.values().filter_map(counts).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// Lets everything out, and holds that all are accounted for.
    pub(super) fn end(mut self) {
        *self.faults.now() = Default::default();
        self.queue.put_back_all();
        self.gaps_out.clear();
        for _ in 0..2_000 {
            self.now += Duration::from_secs(61);
            self.work();
            self.check_ages();
            self.take(7, 1_000);
            self.take_gaps();
            let ids: Vec<Id> = self.out.keys().copied().collect();
            self.acknowledge(&ids);
            for id in std::mem::take(&mut self.gaps_out) {
                self.queue.acknowledge_gap(id);
            }
            if ids.is_empty() && self.queue.is_empty() {
                break;
            }
        }
        assert!(self.queue.is_empty(), "it does not run empty: {:?}", self.queue);
        self.store = Box::new(Platter::new(0));
        let found = (self.ground.maker)().open(&Known::default(), Timestamp(0)).unwrap();
        assert_eq!(found.first, found.end, "the disk is empty as well");
        let lost = (0..self.messages).filter(|number| !self.acknowledged.contains(number));
        let (count, readings) =
            lost.fold((0, 0), |(count, readings), number| (count + 1, readings + 1 + number % 5));
        let (told, lost) = (self.told().0.saturating_sub(self.spared.len() as u64), count - self.crashed);
        assert!(told == lost || self.unknown, "{lost} lost and {told} told: {:?}", self.gaps);
        if self.readings_exact && self.revivals == 0 && !self.unknown {
            assert_eq!(self.told().1, readings, "lost and told readings");
        }
        let crash_gaps = self.gaps.values().filter(|gap| gap.cause == Cause::Crash).count();
        assert!(crash_gaps <= self.crash_gaps && (crash_gaps > 0) == (self.crash_gaps > 0));
    }
}

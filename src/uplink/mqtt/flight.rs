//! What was given to a session and has not been answered: the books of one connection, without any I/O.
//!
//! - A publication is held, then queued in rumqttc, then sent under a packet id, then answered: never skipped, and in
//!   the order of giving up to the answer. rumqttc tells a packet id only once it has sent, in the order of queueing.
//! - rumqttc hands out packet ids round and round from 1 to its limit, and loses a publication whose id is still
//!   taken. So nothing is queued that lies `ids` or more behind the oldest unanswered one; it is held until then.
//! - Each publication with ids makes one [`Event`], so that events are bounded by what the caller lets be unanswered.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::Qos;
use crate::model::Id;
use crate::uplink::{Event, Lasting};

/// A publication as it goes to rumqttc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) topic: String,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    /// 0 until it is known.
    packet_id: u16,
    /// When it was given, on the monotonic clock.
    given: Duration,
    ids: Vec<Id>,
}

#[derive(Debug)]
pub(super) struct Flight {
    ids: u64,
    next_sequence: u64,
    held: VecDeque<(Entry, Packet)>,
    queued: VecDeque<Entry>,
    sent: VecDeque<Entry>,
    events: VecDeque<Event>,
}

impl Flight {
    /// The books of a connection on which rumqttc has `ids` packet ids.
    pub(super) fn new(ids: u16) -> Self {
        Self {
            ids: u64::from(ids),
            next_sequence: 0,
            held: VecDeque::new(),
            queued: VecDeque::new(),
            sent: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a publication, given at `now`; [`Flight::release`] says when it may go.
    pub(super) fn give(&mut self, packet: Packet, ids: Vec<Id>, now: Duration) {
        let entry = Entry { sequence: self.next_sequence, packet_id: 0, given: now, ids };
        self.next_sequence += 1;
        self.held.push_back((entry, packet));
    }

    /// The next publication that rumqttc may have, which the caller queues there at once.
    pub(super) fn release(&mut self) -> Option<Packet> {
        let next = self.held.front().map(|(entry, _)| entry.sequence)?;
        let oldest = self.sent.front().or_else(|| self.queued.front()).map_or(next, |entry| entry.sequence);
        if next - oldest >= self.ids {
            return None;
        }
        let (entry, packet) = self.held.pop_front()?;
        self.queued.push_back(entry);
        Some(packet)
    }

    /// Whether something is still held back.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// rumqttc has written the oldest queued publication, under `packet_id`; 0 stands for QoS 0, which nobody answers.
    pub(super) fn sent(&mut self, packet_id: u16) {
        let Some(entry) = self.queued.pop_front() else { return };
        if packet_id == 0 {
            self.report(entry.ids, Event::Acknowledged);
        } else {
            self.sent.push_back(Entry { packet_id, ..entry });
        }
    }

    /// The other side has taken `packet_id`.
    pub(super) fn acknowledged(&mut self, packet_id: u16) {
        if let Some(entry) = self.settle(packet_id) {
            self.report(entry.ids, Event::Acknowledged);
        }
    }

    /// The other side has refused `packet_id`. False says that it was one without ids, of which no event tells.
    pub(super) fn refused(&mut self, packet_id: u16, lasting: Lasting, reason: String) -> bool {
        let Some(entry) = self.settle(packet_id) else { return true };
        let reported = !entry.ids.is_empty();
        self.report(entry.ids, |ids| Event::Refused { ids, lasting, reason });
        reported
    }

    /// When the oldest publication that is with rumqttc or the other side was given.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.sent.front().or_else(|| self.queued.front()).map(|entry| entry.given)
    }

    /// The next answer to tell.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Answers come mostly in order: then this finds the first.
    fn settle(&mut self, packet_id: u16) -> Option<Entry> {
        let index = self.sent.iter().position(|entry| entry.packet_id == packet_id)?;
        self.sent.remove(index)
    }

    fn report(&mut self, ids: Vec<Id>, event: impl FnOnce(Vec<Id>) -> Event) {
        if !ids.is_empty() {
            self.events.push_back(event(ids));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet() -> Packet {
        Packet { topic: "t".into(), qos: Qos::AtLeastOnce, retain: false, payload: Vec::new() }
    }

    fn id(sequence: u64) -> Id {
        Id { epoch: 1, sequence }
    }

    #[test]
    fn an_answer_settles_the_publication_that_was_sent_under_its_packet_id() {
        let mut flight = Flight::new(10);
        for sequence in 0..3 {
            flight.give(packet(), vec![id(sequence)], Duration::from_secs(sequence));
            assert!(flight.release().is_some());
        }
        for packet_id in 1..=3 {
            flight.sent(packet_id);
        }
        flight.acknowledged(2);
        assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(1)])));
        assert_eq!(flight.oldest(), Some(Duration::ZERO));
        assert!(flight.refused(1, Lasting::Forever, "no".into()));
        let refused = Event::Refused { ids: vec![id(0)], lasting: Lasting::Forever, reason: "no".into() };
        assert_eq!(flight.next(), Some(refused));
        assert_eq!(flight.oldest(), Some(Duration::from_secs(2)));
        flight.acknowledged(2);
        assert_eq!(flight.next(), None, "a packet id is answered once");
    }

    #[test]
    fn what_has_no_ids_is_not_reported_and_qos_0_is_done_once_it_is_written() {
        let mut flight = Flight::new(10);
        flight.give(packet(), vec![], Duration::ZERO);
        flight.give(packet(), vec![id(7)], Duration::ZERO);
        while flight.release().is_some() {}
        flight.sent(1);
        assert!(!flight.refused(1, Lasting::Retry, "not authorised".into()));
        assert_eq!(flight.next(), None);
        flight.sent(0);
        assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(7)])));
        assert_eq!(flight.oldest(), None);
    }

    proptest! {
        /// rumqttc's own rule of handing out ids, against answers in any order.
        #[test]
        fn no_packet_id_is_used_again_before_it_was_answered(
            ids in 1_u16..8,
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut flight = Flight::new(ids);
            let (mut given, mut last_id, mut told) = (0, 0, 0);
            let mut taken: Vec<(u16, u64)> = Vec::new();
            let mut order = 0;
            for (give, which) in steps {
                if give || taken.is_empty() {
                    flight.give(packet(), vec![id(given)], Duration::ZERO);
                    given += 1;
                } else {
                    let (packet_id, sequence) = taken.remove(which.index(taken.len()));
                    flight.acknowledged(packet_id);
                    prop_assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(sequence)])));
                    told += 1;
                }
                while flight.release().is_some() {
                    last_id = last_id % ids + 1;
                    prop_assert!(taken.iter().all(|(packet_id, _)| *packet_id != last_id));
                    flight.sent(last_id);
                    taken.push((last_id, order));
                    order += 1;
                }
            }
            prop_assert_eq!(given - told, taken.len() as u64 + flight.held.len() as u64);
            prop_assert!(!taken.is_empty() || !flight.holds(), "what is held always has something to wait for");
        }
    }
}

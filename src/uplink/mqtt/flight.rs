//! What was given to a session and has not been answered: the books of one connection, without any I/O.
//!
//! - A publication is held, then sent, then answered: never skipped, and in the order of giving up to the sending.
//!   What QoS 0 sends is answered by having been written.
//! - No more than `most` with QoS 1 or 2 are sent and unanswered, each under a packet id of its own.
//! - Each publication makes one [`Event`], so that events are bounded by what the caller lets be unanswered.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::Qos;
use crate::model::Id;
use crate::uplink::{Event, Lasting};

/// A publication as it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) topic: String,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    /// 0 with QoS 0, and until it is sent.
    packet_id: u16,
    /// When it was given, on the monotonic clock.
    given: Duration,
    ids: Vec<Id>,
    /// Whether its PUBREC is still to come: with QoS 2, once.
    received_due: bool,
}

#[derive(Debug)]
pub(super) struct Flight {
    most: usize,
    last_packet_id: u16,
    held: VecDeque<(Entry, Packet)>,
    /// Sent with QoS 0.
    unwritten: VecDeque<Entry>,
    /// Sent with QoS 1 or 2.
    sent: VecDeque<Entry>,
    events: VecDeque<Event>,
}

impl Flight {
    /// The books of a connection on which `most` publications with QoS 1 or 2 may be unanswered: at least 1.
    pub(super) fn new(most: u16) -> Self {
        Self {
            most: usize::from(most),
            last_packet_id: 0,
            held: VecDeque::new(),
            unwritten: VecDeque::new(),
            sent: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a publication, given at `now`; [`Flight::release`] says when it may go.
    pub(super) fn give(&mut self, packet: Packet, ids: Vec<Id>, now: Duration) {
        let received_due = packet.qos == Qos::ExactlyOnce;
        self.held.push_back((Entry { packet_id: 0, given: now, ids, received_due }, packet));
    }

    /// The next publication that may go, and its packet id: 0 with QoS 0. The caller sends it at once.
    pub(super) fn release(&mut self) -> Option<(Packet, u16)> {
        let with_qos_0 = self.held.front()?.1.qos == Qos::AtMostOnce;
        if !with_qos_0 && self.sent.len() >= self.most {
            return None;
        }
        let (entry, packet) = self.held.pop_front()?;
        if with_qos_0 {
            self.unwritten.push_back(entry);
            return Some((packet, 0));
        }
        let packet_id = self.free_packet_id();
        self.sent.push_back(Entry { packet_id, ..entry });
        Some((packet, packet_id))
    }

    /// Round and round from 1, so that a late answer meets no other publication. One is free: there are 65,535.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id % u16::MAX + 1;
            if self.sent.iter().all(|entry| entry.packet_id != self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }

    /// Whether something is still held back.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// All that was released is written.
    pub(super) fn written(&mut self) {
        while let Some(entry) = self.unwritten.pop_front() {
            self.events.push_back(Event::Acknowledged(entry.ids));
        }
    }

    /// The other side has received `packet_id`. Whether that was due, and is to be answered: a flood of it is not.
    pub(super) fn received(&mut self, packet_id: u16) -> bool {
        let entry = self.sent.iter_mut().find(|entry| entry.packet_id == packet_id);
        entry.is_some_and(|entry| std::mem::take(&mut entry.received_due))
    }

    /// The other side has taken `packet_id`.
    pub(super) fn acknowledged(&mut self, packet_id: u16) {
        if let Some(entry) = self.settle(packet_id) {
            self.events.push_back(Event::Acknowledged(entry.ids));
        }
    }

    /// The other side has refused `packet_id`.
    pub(super) fn refused(&mut self, packet_id: u16, lasting: Lasting, reason: String) {
        if let Some(entry) = self.settle(packet_id) {
            self.events.push_back(Event::Refused { ids: entry.ids, lasting, reason });
        }
    }

    /// When the oldest publication was given that is sent and unanswered.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let given = |entries: &VecDeque<Entry>| entries.front().map(|entry| entry.given);
        given(&self.sent).into_iter().chain(given(&self.unwritten)).min()
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(qos: Qos) -> Packet {
        Packet { topic: "t".into(), qos, retain: false, payload: Vec::new() }
    }

    fn id(sequence: u64) -> Id {
        Id { epoch: 1, sequence }
    }

    #[test]
    fn an_answer_settles_the_publication_that_was_sent_under_its_packet_id() {
        let mut flight = Flight::new(10);
        for sequence in 0..3 {
            flight.give(packet(Qos::AtLeastOnce), vec![id(sequence)], Duration::from_secs(sequence));
            assert!(flight.release().is_some());
        }
        flight.acknowledged(2);
        assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(1)])));
        assert_eq!(flight.oldest(), Some(Duration::ZERO));
        flight.refused(1, Lasting::Forever, "no".into());
        let refused = Event::Refused { ids: vec![id(0)], lasting: Lasting::Forever, reason: "no".into() };
        assert_eq!(flight.next(), Some(refused));
        assert_eq!(flight.oldest(), Some(Duration::from_secs(2)));
        flight.acknowledged(2);
        assert_eq!(flight.next(), None, "a packet id is answered once");
    }

    #[test]
    fn what_has_no_ids_is_reported_without_and_qos_0_is_done_once_it_is_written() {
        let mut flight = Flight::new(1);
        flight.give(packet(Qos::AtLeastOnce), vec![], Duration::ZERO);
        flight.give(packet(Qos::AtMostOnce), vec![id(7)], Duration::ZERO);
        assert!(matches!(flight.release(), Some((_, 1))));
        assert!(matches!(flight.release(), Some((_, 0))), "QoS 0 waits for no answer");
        flight.refused(1, Lasting::Retry, "no".into());
        let refused = Event::Refused { ids: vec![], lasting: Lasting::Retry, reason: "no".into() };
        assert_eq!(flight.next(), Some(refused));
        flight.written();
        assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(7)])));
        assert_eq!(flight.oldest(), None);
    }

    /// A broker may leave one unanswered for as long as `ack_timeout` while it answers all others.
    #[test]
    fn a_packet_id_that_is_still_unanswered_when_the_ids_come_round_is_passed_over() {
        let mut flight = Flight::new(2);
        flight.give(packet(Qos::AtLeastOnce), vec![id(0)], Duration::ZERO);
        assert!(matches!(flight.release(), Some((_, 1))));
        let mut last = 1;
        for sequence in 1..=70_000 {
            flight.give(packet(Qos::AtLeastOnce), vec![id(sequence)], Duration::ZERO);
            let (_, packet_id) = flight.release().unwrap();
            assert_eq!(packet_id, if last == u16::MAX { 2 } else { last + 1 });
            last = packet_id;
            flight.acknowledged(packet_id);
            assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(sequence)])));
        }
    }

    #[test]
    fn that_it_was_received_is_answered_once_and_with_qos_2_only() {
        let mut flight = Flight::new(10);
        flight.give(packet(Qos::ExactlyOnce), vec![id(1)], Duration::ZERO);
        flight.give(packet(Qos::AtLeastOnce), vec![id(2)], Duration::ZERO);
        while flight.release().is_some() {}
        assert!(flight.received(1));
        assert!(!flight.received(1) && !flight.received(2) && !flight.received(3));
        flight.acknowledged(1);
        assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(1)])));
    }

    proptest! {
        /// Against answers in any order.
        #[test]
        fn no_more_are_unanswered_than_may_be_and_each_is_settled_by_its_own_answer(
            most in 1_u16..8,
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut flight = Flight::new(most);
            let (mut given, mut sent, mut told) = (0, 0, 0);
            let mut out: Vec<(u16, u64)> = Vec::new();
            for (give, which) in steps {
                if give || out.is_empty() {
                    flight.give(packet(Qos::ExactlyOnce), vec![id(given)], Duration::ZERO);
                    given += 1;
                } else {
                    let (packet_id, sequence) = out.remove(which.index(out.len()));
                    flight.acknowledged(packet_id);
                    prop_assert_eq!(flight.next(), Some(Event::Acknowledged(vec![id(sequence)])));
                    told += 1;
                }
                while let Some((_, packet_id)) = flight.release() {
                    prop_assert!(packet_id > 0 && out.iter().all(|(other, _)| *other != packet_id));
                    out.push((packet_id, sent));
                    sent += 1;
                }
                prop_assert!(out.len() <= usize::from(most));
                prop_assert!(!flight.holds() || out.len() == usize::from(most));
            }
            prop_assert_eq!(given - told, out.len() as u64 + flight.held.len() as u64);
        }
    }
}

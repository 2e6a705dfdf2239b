use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What a broker does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Takes,
    Closes,
}

/// A queue, and a gateway that sends it in sessions, as `forward` does.
#[derive(Default)]
struct World {
    hunt: Hunt,
    queue: Vec<u64>,
    /// What was acknowledged, in order of the first time, and how often again.
    taken: Vec<u64>,
    repeated: usize,
    given_up: Vec<u64>,
    findings: Vec<Finding>,
    sessions: usize,
    /// How many devices there are, which send in turn, and which of them are guilty. Without any none ever is.
    devices: u64,
    guilty: Vec<u64>,
}

const WINDOW: usize = 8;

fn id(sequence: u64) -> Id {
    Id { epoch: 1, sequence }
}

impl World {
    fn new(messages: u64) -> Self {
        Self { queue: (0..messages).collect(), ..Self::default() }
    }

    fn knows(&self, message: u64) -> bool {
        message.checked_rem(self.devices).is_some_and(|device| self.guilty.contains(&device))
    }

    /// One session. True where the broker closed it; else nothing is left that may be sent. `flushes` tells whether
    /// acknowledgements come through that were given just before.
    fn session(&mut self, flushes: bool, mut broker: impl FnMut(u64) -> Answer) -> bool {
        self.sessions += 1;
        self.hunt.opened();
        let mut waiting: VecDeque<u64> = self.queue.iter().copied().collect();
        let mut withheld = Vec::new();
        loop {
            if !self.hunt.is_on() {
                assert!(withheld.is_empty(), "what was withheld has been sent when the hunt is over");
                let window: Vec<u64> = waiting.drain(..waiting.len().min(WINDOW)).collect();
                let Some(oldest) = window.first() else { return false };
                let until = window.iter().position(|message| broker(*message) == Answer::Closes);
                let told = if flushes || until.is_none() { until.unwrap_or(window.len()) } else { 0 };
                window[..told].iter().for_each(|message| self.take(*message));
                if until.is_some() {
                    let oldest = window.get(told).unwrap_or(oldest);
                    let known = window[told..].iter().any(|message| self.knows(*message));
                    self.close(Some(*oldest), window.len() - told, known);
                    return true;
                }
                continue;
            }
            let turn = self.hunt.turn();
            let next = match turn {
                Turn::Witness(witness) => witness.sequence,
                Turn::Accused(accused) if withheld.contains(&accused.sequence) => accused.sequence,
                _ => {
                    let Some(next) = waiting.pop_front() else {
                        let finding = self.hunt.idle();
                        self.found(finding);
                        return false;
                    };
                    if self.hunt.withholds(id(next)) {
                        withheld.push(next);
                        continue;
                    }
                    assert_eq!(turn, Turn::Next, "the accused come first in the queue");
                    next
                }
            };
            withheld.retain(|message| *message != next);
            self.hunt.alone(id(next), self.knows(next));
            if broker(next) == Answer::Closes {
                self.close(Some(next), 1, self.knows(next));
                return true;
            }
            self.take(next);
        }
    }

    fn take(&mut self, message: u64) {
        if self.queue.contains(&message) {
            self.taken.push(message);
        } else {
            self.repeated += 1;
        }
        self.queue.retain(|other| *other != message);
        let finding = self.hunt.acknowledged(id(message));
        self.found(finding);
    }

    fn close(&mut self, oldest: Option<u64>, unanswered: usize, known: bool) {
        let finding = self.hunt.closed(oldest.map(id), unanswered, false, known);
        self.found(finding);
    }

    fn found(&mut self, finding: Finding) {
        if let Finding::Poison(Id { sequence, .. }) = finding {
            self.given_up.push(sequence);
            self.guilty.extend(sequence.checked_rem(self.devices));
            self.queue.retain(|other| *other != sequence);
        }
        if finding != Finding::Nothing {
            self.findings.push(finding);
        }
    }
}

fn closes_on(poison: &[u64]) -> impl Fn(u64) -> Answer {
    move |message| if poison.contains(&message) { Answer::Closes } else { Answer::Takes }
}

/// Sessions until the queue is empty. Where only accused are left, another message comes, which may be a witness.
fn deliver(world: &mut World, flushes: bool, most: usize, broker: impl Fn(u64) -> Answer) {
    let mut next = world.queue.iter().max().map_or(0, |last| last + 1);
    while !world.queue.is_empty() && world.sessions < most {
        if !world.session(flushes, &broker) && !world.queue.is_empty() {
            world.queue.push(next);
            next += 1;
        }
    }
}

#[test]
fn a_poison_in_the_middle_is_found_in_five_sessions_and_the_rest_arrives_in_order() {
    let mut world = World::new(20);
    deliver(&mut world, true, 100, closes_on(&[5]));
    assert_eq!(world.given_up, [5]);
    assert_eq!(world.taken, (0..20).filter(|n| *n != 5).collect::<Vec<_>>());
    assert_eq!(world.findings[..2], [Finding::OneByOne(id(5)), Finding::Poison(id(5))]);
    assert_eq!(world.sessions, 5 + 1, "closed on it in five, and one for the rest");
}

#[test]
fn a_poison_behind_others_whose_acknowledgements_are_lost_is_found_by_sending_one_at_a_time() {
    let mut world = World::new(20);
    deliver(&mut world, false, 100, closes_on(&[5]));
    assert_eq!((world.given_up.as_slice(), world.taken.len()), ([5].as_slice(), 19));
    assert_eq!(world.findings[0], Finding::OneByOne(id(0)));
    assert!(world.taken.is_sorted());
}

#[test]
fn the_next_poison_of_a_device_that_was_found_out_takes_three_closes_and_a_witness() {
    for flushes in [true, false] {
        let poison = [5, 13, 21, 25];
        let mut world = World { devices: 4, ..World::new(40) };
        deliver(&mut world, flushes, 100, closes_on(&poison));
        assert_eq!(world.given_up, poison);
        assert!(world.taken.is_sorted());
        assert_eq!(world.taken.len(), 36);
        let mut slow = World::new(40);
        deliver(&mut slow, flushes, 100, closes_on(&poison));
        println!("{} sessions instead of {}", world.sessions, slow.sessions);
        // The first takes what it took; of the others each a close among others, one alone, and one or two after a
        // witness.
        assert!(world.sessions <= 6 + 4 * 3 + 2, "{} sessions", world.sessions);
        assert!(world.sessions < slow.sessions, "{} and {}", world.sessions, slow.sessions);
    }
}

#[test]
fn a_guilty_device_costs_nothing_where_the_broker_closes_on_everything_or_takes_it_after_the_witness() {
    for closes in 0..30 {
        let mut world = World { devices: 1, guilty: vec![0], ..World::new(12) };
        for _ in 0..closes {
            world.session(true, |_| Answer::Closes);
        }
        deliver(&mut world, true, 100, |_| Answer::Takes);
        assert_eq!(world.given_up, [0_u64; 0], "after {closes}");
    }
}

#[test]
fn the_guilty_are_few_and_the_last() {
    let mut guilty = Guilty::default();
    (0..100).for_each(|n| guilty.note(&format!("device-{}", n / 2)));
    assert_eq!(guilty.0.len(), GUILTY_MAX);
    assert!(guilty.has("device-49") && guilty.has("device-34") && !guilty.has("device-33"));
}

#[test]
fn a_poison_with_nothing_behind_it_waits_for_a_witness() {
    let mut world = World::new(1);
    for _ in 0..4 {
        assert!(world.session(true, closes_on(&[0])));
    }
    for _ in 0..9 {
        assert!(!world.session(true, closes_on(&[0])), "it is withheld, and nothing is closed on");
    }
    world.queue.push(1);
    assert!(world.session(true, closes_on(&[0])));
    assert_eq!((world.given_up, world.taken), (vec![0], vec![1]));
}

#[test]
fn a_long_row_of_poison_is_found_in_the_end_and_takes_one_witness() {
    let poison: Vec<u64> = (3..10).collect();
    let mut world = World::new(12);
    deliver(&mut world, true, 1_000, closes_on(&poison));
    assert_eq!(world.given_up, poison);
    assert_eq!(world.taken, [0, 1, 2, 10, 11]);
    assert!(world.findings.contains(&Finding::Everything), "at first it looked like that");
    assert!(world.sessions < 10 * poison.len(), "{}", world.sessions);
}

#[test]
fn a_session_that_is_closed_on_a_witness_lets_all_accused_go() {
    let mut world = World::new(4);
    for _ in 0..5 {
        world.session(true, closes_on(&[0, 1]));
    }
    assert!(world.session(true, closes_on(&[0, 1])), "closed on the first, for the fifth time");
    assert_eq!((world.given_up.as_slice(), world.taken.as_slice()), ([0].as_slice(), [2].as_slice()));
    assert!(world.hunt.withholds(id(1)));
    assert!(world.session(true, closes_on(&[1, 2])), "and now on one that it took before");
    assert!(!world.hunt.is_on());
    deliver(&mut world, true, 100, |_| Answer::Takes);
    assert_eq!((world.given_up, world.taken), (vec![0], vec![2, 1, 3]));
}

#[test]
fn a_broker_that_recovers_just_for_the_witness_costs_nothing() {
    let mut world = World::new(3);
    for _ in 0..4 {
        world.session(true, |_| Answer::Closes);
    }
    assert!(!world.session(true, |_| Answer::Takes));
    assert_eq!(world.given_up, [0_u64; 0]);
    assert_eq!(world.taken, [1, 0, 2], "the witness came first");
}

#[test]
fn sessions_that_end_otherwise_break_the_row_and_are_no_evidence() {
    let mut world = World::new(3);
    for _ in 0..50 {
        world.session(true, |_| Answer::Closes);
        world.session(true, |_| Answer::Closes);
        world.hunt.opened();
        world.hunt.ended();
    }
    assert!(!world.hunt.is_on());
    world.close(Some(0), 3, false);
    world.close(Some(1), 2, false);
    world.close(Some(0), 3, false);
    assert!(!world.hunt.is_on(), "another message each time");
    world.close(None, 0, false);
    world.close(Some(0), 3, false);
    world.close(Some(0), 3, false);
    assert!(!world.hunt.is_on(), "closed on nothing in between");
}

#[test]
fn a_session_that_is_closed_on_nothing_lets_all_accused_go() {
    let mut world = World::new(3);
    for _ in 0..4 {
        world.session(true, |_| Answer::Closes);
    }
    assert!(world.hunt.withholds(id(0)));
    world.hunt.opened();
    world.close(None, 0, false);
    assert!(!world.hunt.is_on() && !world.hunt.withholds(id(0)));
}

#[test]
fn gap_records_are_suspected_where_messages_alone_are_taken() {
    let mut hunt = Hunt::default();
    assert_eq!(hunt.closed(Some(id(1)), 2, true, false), Finding::Nothing);
    assert_eq!(hunt.closed(Some(id(1)), 2, true, false), Finding::Nothing);
    assert_eq!(hunt.closed(Some(id(1)), 2, true, false), Finding::OneByOne(id(1)));
    hunt.opened();
    hunt.alone(id(1), false);
    assert_eq!(hunt.acknowledged(id(1)), Finding::Nothing);
    hunt.alone(id(2), false);
    assert_eq!(hunt.acknowledged(id(2)), Finding::Gaps);

    let mut hunt = Hunt::default();
    let found: Vec<_> = (0..3).map(|_| hunt.closed(None, 0, true, false)).collect();
    assert_eq!(found, [Finding::Nothing, Finding::Nothing, Finding::Gaps], "no message was there at all");
}

/// Messages that are poison, with never so many in a row that the broker seems to close on everything.
fn some_poison() -> impl Strategy<Value = (u64, Vec<u64>)> {
    (1_u64..60, prop::collection::vec(any::<bool>(), 60)).prop_map(|(messages, picks)| {
        let mut poison: Vec<u64> = Vec::new();
        for message in (0..messages).zip(picks).filter_map(|(message, pick)| pick.then_some(message)) {
            let run =
                poison.iter().rev().zip(1..).take_while(|(other, back)| **other + back == message).count();
            if run < ACCUSED.0 - 1 {
                poison.push(message);
            }
        }
        (messages, poison)
    })
}

proptest! {
    #[test]
    fn a_broker_that_closes_on_certain_messages_gets_all_others_in_order_in_a_bounded_number_of_sessions(
        (messages, poison) in some_poison(), flushes in any::<bool>(), devices in 0_u64..5,
    ) {
        let mut world = World { devices, ..World::new(messages) };
        let most = 20 * (poison.len() + 1);
        deliver(&mut world, flushes, most, closes_on(&poison));
        prop_assert!(world.queue.is_empty(), "{:?} after {} sessions", world.queue, world.sessions);
        prop_assert!(world.taken.is_sorted(), "{:?}", world.taken);
        let mut found = world.given_up.clone();
        found.sort_unstable();
        prop_assert_eq!(found, poison);
    }

    /// Whenever it recovers, and whatever else ends sessions meanwhile.
    #[test]
    fn a_broker_that_closes_on_everything_for_a_while_costs_nothing(
        messages in 1_u64..30,
        flushes in any::<bool>(),
        ends in prop::collection::vec(0_u8..10, 0..60),
        guilty in prop::collection::vec(0_u64..3, 0..3),
    ) {
        let mut world = World { devices: 3, guilty, ..World::new(messages) };
        for end in ends {
            match end {
                0 => {
                    world.hunt.opened();
                    world.hunt.ended();
                }
                1 => {
                    world.hunt.opened();
                    world.close(None, 0, false);
                }
                _ => drop(world.session(flushes, |_| Answer::Closes)),
            }
        }
        deliver(&mut world, flushes, 100, |_| Answer::Takes);
        prop_assert_eq!(world.given_up, Vec::<u64>::new());
        let mut taken = world.taken.clone();
        taken.sort_unstable();
        // With what came later, to be a witness.
        prop_assert!(world.queue.is_empty() && taken.len() as u64 >= messages);
        prop_assert_eq!(&taken, &(0..taken.len() as u64).collect::<Vec<_>>());
        let late = world.taken.windows(2).filter(|pair| pair[1] < pair[0]).count();
        prop_assert!(late <= 1, "only a witness can come early: {:?}", world.taken);
    }
}

//! What is said of a run from outside: what was sent, what arrived, and what may be missing. It knows nothing of how weir
//! works.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::coap_counter::{Answer, Asked};

/// A SIGKILL, and what was on the disk then.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    /// Before the signal was sent.
    pub(crate) at: Instant,
    /// What is younger then may be lost.
    pub(crate) younger: Duration,
    /// The ids in the file that it left.
    pub(crate) stored: HashSet<String>,
}

/// What became of the numbers.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) taken: usize,
    /// Taken and not arrived, and of these such as a SIGKILL may take.
    pub(crate) lost: usize,
    pub(crate) excused: usize,
    /// Messages with an id that had arrived before.
    pub(crate) repeated: usize,
    /// First deliveries before which a later number arrived.
    pub(crate) reordered: usize,
    pub(crate) kills: usize,
    /// Ids that a SIGKILL left on the disk.
    pub(crate) stored: usize,
    /// What must not be.
    pub(crate) faults: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken, lost, excused, repeated, reordered, kills, stored, .. } = self;
        write!(
            f,
            "taken {taken}, lost {lost}, repeated {repeated}, reordered {reordered}; {kills} times SIGKILL, which \
             may take {excused} and left {stored} on the disk"
        )
    }
}

impl Verdict {
    /// `arrived` is data as a subscriber got it, in order, with every number that could still come.
    pub(crate) fn of(asked: &[Asked], kills: &[Kill], arrived: &[Value]) -> Self {
        let mut verdict = Self { kills: kills.len(), ..Self::default() };
        let mut by_id: HashMap<&str, &Value> = HashMap::new();
        let mut by_number: HashMap<usize, &str> = HashMap::new();
        let mut latest = None;
        for message in arrived {
            let id = message["id"].as_str().unwrap();
            let number = number(message).unwrap_or_else(|| panic!("no number in {message}"));
            match by_id.insert(id, message) {
                Some(before) => {
                    verdict.repeated += 1;
                    verdict.fault(before != message, || format!("one id for {before} and {message}"));
                    continue;
                }
                None => verdict.reordered += usize::from(latest > Some(number)),
            }
            latest = latest.max(Some(number));
            let before = by_number.insert(number, id);
            verdict.fault(before.is_some(), || format!("{number} has the ids {before:?} and {id}"));
            let answer = asked.get(number).map(|asked| asked.answer);
            let was_sent = matches!(answer, Some(Answer::Taken(_) | Answer::None | Answer::Waiting));
            verdict.fault(!was_sent, || format!("{number} arrived, and was answered {answer:?}"));
        }
        let reordered = verdict.reordered;
        verdict.fault(reordered > 0, || format!("{reordered} first deliveries out of order"));

        for (number, asked) in asked.iter().enumerate() {
            let Answer::Taken(at) = asked.answer else { continue };
            verdict.taken += 1;
            if by_number.contains_key(&number) {
                continue;
            }
            verdict.lost += 1;
            // It was killed in the first kill after it was taken: it lived through that only on the disk.
            let kill = kills.iter().find(|kill| kill.at >= asked.at);
            if kill.is_some_and(|kill| at + kill.younger >= kill.at) {
                verdict.excused += 1;
                continue;
            }
            let age = kill.map(|kill| kill.at.saturating_duration_since(at));
            verdict.fault(true, || match (age, kill) {
                (Some(age), Some(kill)) => format!(
                    "{number} is lost, which was {age:?} old when SIGKILL came: it may take what is younger than {:?}",
                    kill.younger
                ),
                _ => format!("{number} is lost, and no SIGKILL came after it"),
            });
        }
        let stored: BTreeSet<&str> = kills.iter().flat_map(|kill| &kill.stored).map(String::as_str).collect();
        verdict.stored = stored.len();
        for id in stored.iter().filter(|id| !by_id.contains_key(*id)) {
            verdict.fault(true, || format!("{id} was on the disk when SIGKILL came, and is lost"));
        }
        verdict
    }

    fn fault(&mut self, is_one: bool, what: impl FnOnce() -> String) {
        if is_one {
            self.faults.push(what());
        }
    }
}

/// The number in a message.
pub(crate) fn number(message: &Value) -> Option<usize> {
    message["metrics"]["n"]["value"].as_u64().map(|number| number as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Four numbers, a second apart; the third was not answered.
    fn asked(start: Instant) -> Vec<Asked> {
        let asked = (0..4).map(|number| start + SECOND * number);
        let answer = |at| Answer::Taken(at + SECOND / 10);
        let mut asked: Vec<_> = asked.map(|at| Asked { at, answer: answer(at) }).collect();
        asked[2].answer = Answer::None;
        asked
    }

    fn messages(ids_and_numbers: &[(&str, u64)]) -> Vec<Value> {
        let message = |(id, number): &(&str, u64)| json!({"id": id, "metrics": {"n": {"value": number}}});
        ids_and_numbers.iter().map(message).collect()
    }

    fn kill(at: Instant, younger: Duration, stored: &[&str]) -> Kill {
        Kill { at, younger, stored: stored.iter().map(|id| (*id).to_owned()).collect() }
    }

    #[test]
    fn all_in_order_is_well_with_repeats_and_whether_what_was_not_answered_is_there_or_not() {
        let asked = asked(Instant::now());
        for arrived in [
            messages(&[("1-1", 0), ("1-2", 1), ("1-3", 2), ("1-4", 3)]),
            messages(&[("1-1", 0), ("1-2", 1), ("1-1", 0), ("1-2", 1), ("2-1", 3)]),
        ] {
            let verdict = Verdict::of(&asked, &[], &arrived);
            assert_eq!(verdict.faults, Vec::<String>::new());
            assert_eq!((verdict.taken, verdict.lost, verdict.reordered), (3, 0, 0));
            assert_eq!(verdict.repeated, arrived.len() - if arrived.len() == 4 { 4 } else { 3 });
        }
    }

    #[test]
    fn what_is_lost_reordered_renamed_or_not_what_was_sent_is_found() {
        let asked = asked(Instant::now());
        for (arrived, fault) in [
            (messages(&[("1-1", 0), ("1-4", 3)]), "1 is lost, and no SIGKILL"),
            (messages(&[("1-2", 1), ("1-1", 0), ("1-4", 3)]), "1 first deliveries out of order"),
            (messages(&[("1-1", 0), ("1-1", 1), ("1-4", 3)]), "one id for"),
            (messages(&[("1-1", 0), ("1-2", 1), ("2-2", 1), ("1-4", 3)]), "1 has the ids"),
            (messages(&[("1-1", 0), ("1-2", 1), ("1-4", 3), ("1-5", 4)]), "4 arrived, and was answered None"),
        ] {
            let faults = Verdict::of(&asked, &[], &arrived).faults;
            assert!(faults.iter().any(|told| told.contains(fault)), "{fault}: {faults:?}");
        }
    }

    #[test]
    fn a_sigkill_takes_what_is_young_and_not_on_the_disk() {
        let start = Instant::now();
        let asked = asked(start);
        let arrived = messages(&[("1-1", 0), ("1-4", 3)]);
        // Number 1 was taken 1.1 s after the start, and is 0.9 s old.
        let at = start + 2 * SECOND;
        let verdict = |younger, stored: &[&str]| Verdict::of(&asked, &[kill(at, younger, stored)], &arrived);
        assert_eq!(verdict(SECOND, &[]).faults, Vec::<String>::new());
        assert_eq!((verdict(SECOND, &[]).lost, verdict(SECOND, &[]).excused), (1, 1));
        assert!(verdict(SECOND / 2, &[]).faults[0].contains("1 is lost, which was 900ms old"));
        assert!(verdict(SECOND, &["1-1", "1-2"]).faults[0].contains("1-2 was on the disk"));
        // A kill before it was sent excuses nothing.
        let early = [kill(start + SECOND / 2, 60 * SECOND, &[])];
        assert!(Verdict::of(&asked, &early, &arrived).faults[0].contains("no SIGKILL came after it"));
    }
}

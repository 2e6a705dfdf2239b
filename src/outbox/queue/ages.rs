//! How long the rows on the disk have waited, at the cost of a mark for many of them.
//!
//! A mark says that the rows from its position on were appended at its time or up to a step later; `max_age` has
//! [`STEPS`] steps, so a row expires at most a step late, and never early. Age is waiting, and has nothing to do with
//! the times that a message speaks of.
//!
//! Within a run age is counted by the monotonic clock, which no step of the wall clock moves. The file has wall times,
//! of a trusted clock only. They are translated once in a run, as soon as its clock is trusted; until then, and where
//! a mark has none, all that is certain is that its rows were there when this run began.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::store::{Mark, Position};
use crate::model::{Stamp, Timestamp};

/// How many steps `max_age` has.
const STEPS: u32 = 64;
/// The most marks: the rest is for runs that were short.
const MARKS_MAX: usize = 128;

/// Milliseconds by the monotonic clock of this run. Below zero: before it began.
pub(super) type Since = i64;

pub(super) fn since(monotonic: Duration) -> Since {
    Since::try_from(monotonic.as_millis()).unwrap_or(Since::MAX)
}

/// The monotonic time of it; zero for what is older than the run.
pub(super) fn monotonic(since: Since) -> Duration {
    Duration::from_millis(u64::try_from(since).unwrap_or(0))
}

#[derive(Debug)]
struct Noted {
    position: Position,
    since: Since,
    /// What the file says of an earlier run, until it is translated.
    wall: Option<Timestamp>,
}

/// The marks.
#[derive(Debug)]
pub(super) struct Ages {
    max: Since,
    step: Since,
    marks: VecDeque<Noted>,
    /// Whether the next row must not go under the mark of an earlier run.
    apart: bool,
    changed: bool,
}

impl Ages {
    pub(super) fn new(max_age: Duration) -> Self {
        let (max, step) = (since(max_age), since(max_age / STEPS).max(1));
        Self { max, step, marks: VecDeque::new(), apart: false, changed: false }
    }

    /// When what was appended at `since` has waited for too long.
    pub(super) fn end(&self, since: Since) -> Since {
        since.saturating_add(self.max)
    }

    /// Notes that a message is appended; nothing below `head` is needed any more.
    pub(super) fn note(&mut self, position: Position, now: Since, head: Position) {
        // A place may be given again that nobody has seen a message at.
        while self.marks.back().is_some_and(|last| last.position > position) {
            self.marks.pop_back();
        }
        let count = self.marks.len();
        match self.marks.back_mut() {
            Some(last) if !self.apart && now - last.since < self.step => return,
            // Those under the last mark are taken for younger than they are.
            Some(last) if count >= MARKS_MAX => (last.since, last.wall) = (now, None),
            _ => self.marks.push_back(Noted { position, since: now, wall: None }),
        }
        (self.apart, self.changed) = (false, true);
        // What stands before was there before.
        self.marks.iter_mut().for_each(|mark| mark.since = mark.since.min(now));
        while self.marks.get(1).is_some_and(|next| next.position <= head) {
            self.marks.pop_front();
        }
    }

    /// Takes in what a store says of its rows, if there are any between `first` and `end`.
    pub(super) fn adopt(&mut self, found: Vec<Mark>, first: Position, end: Position, now: Since) {
        let found = found.into_iter().filter(|(position, _)| first < end && *position < end);
        let marks = found.map(|(position, wall)| Noted { position, since: now, wall });
        self.marks = marks.collect();
        if first < end && self.marks.front().is_none_or(|mark| mark.position > first) {
            self.marks.push_front(Noted { position: first, since: now, wall: None });
        }
        (self.apart, self.changed) = (true, true);
    }

    /// Notes that from `first` on, before all that was adopted, rows may come to stand that were appended as late as
    /// `since`. What is adopted counts as no older: age rises from row to row.
    pub(super) fn precede(&mut self, first: Position, since: Since) {
        for mark in &mut self.marks {
            (mark.since, mark.wall) = (mark.since.max(since), None);
        }
        self.marks.push_front(Noted { position: first, since, wall: None });
    }

    /// Translates wall times, once the clock is trusted.
    pub(super) fn trust(&mut self, stamp: Stamp) {
        if !stamp.synced || self.is_certain() {
            return;
        }
        let now = since(stamp.monotonic);
        let mut next = now;
        for mark in self.marks.iter_mut().rev() {
            if let Some(wall) = mark.wall.take() {
                let waited = since(stamp.wall.since(wall));
                mark.since = mark.since.min(now.saturating_sub(waited));
            }
            // What stands before is older, whatever its clock said.
            mark.since = mark.since.min(next);
            next = mark.since;
        }
        self.changed = true;
    }

    /// Whether nothing is left to translate.
    pub(super) fn is_certain(&self) -> bool {
        self.marks.iter().all(|mark| mark.wall.is_none())
    }

    /// When the row at `position` was appended, or somewhat later.
    pub(super) fn since(&self, position: Position) -> Since {
        let mark = self.marks.partition_point(|mark| mark.position <= position).saturating_sub(1);
        self.marks.get(mark).map_or(Since::MAX, |mark| mark.since.saturating_add(self.step))
    }

    /// Below which position everything has waited for too long.
    pub(super) fn expired_below(&self, now: Since) -> Position {
        let young = self.marks.partition_point(|mark| self.end(mark.since.saturating_add(self.step)) <= now);
        match self.marks.get(young) {
            Some(_) if young == 0 => Position::MIN,
            Some(mark) => mark.position,
            None if self.marks.is_empty() => Position::MIN,
            None => Position::MAX,
        }
    }

    /// All marks for the file, where they are news. [`Ages::unwritten`] says that they were not taken.
    pub(super) fn changes(&mut self, stamp: Stamp) -> Option<Vec<Mark>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let now = since(stamp.monotonic);
        let wall = |mark: &Noted| match stamp.synced {
            true => Some(Timestamp(stamp.wall.0.saturating_sub(now.saturating_sub(mark.since)))),
            false => mark.wall,
        };
        Some(self.marks.iter().map(|mark| (mark.position, wall(mark))).collect())
    }

    pub(super) fn unwritten(&mut self) {
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 1_000;
    const MAX: u64 = STEP * STEPS as u64;
    const WALL: i64 = 1_700_000_000_000;

    fn ages() -> Ages {
        Ages::new(Duration::from_millis(MAX))
    }

    fn stamp(ms: u64, wall: i64, synced: bool) -> Stamp {
        Stamp { wall: Timestamp(wall), monotonic: Duration::from_millis(ms), synced }
    }

    #[test]
    fn a_row_expires_at_its_age_or_up_to_a_step_later_and_never_before() {
        let mut ages = ages();
        for position in 0..10 {
            ages.note(position, position * 300, 0);
        }
        let mut expired = 0;
        for now in (0..2 * MAX as i64).step_by(50) {
            let below = ages.expired_below(now).clamp(expired, 10);
            for position in expired..below {
                let age = now - position * 300;
                assert!((MAX as i64..=(MAX + STEP + 50) as i64).contains(&age), "{position}: {age}");
            }
            expired = below;
        }
        assert_eq!(expired, 10);
    }

    #[test]
    fn an_earlier_run_counts_by_the_wall_clock_once_that_is_trusted_and_by_this_run_until_then() {
        let found = vec![(5, Some(Timestamp(WALL))), (9, None), (12, Some(Timestamp(WALL + 2 * MAX as i64)))];
        let mut ages = ages();
        ages.adopt(found, 5, 15, 0);
        ages.note(15, 10, 5);
        // 1970, and then a clock that was just set to three times the age after the first mark.
        ages.trust(stamp(20, 0, false));
        assert_eq!(ages.expired_below(20), Position::MIN);
        assert!(!ages.is_certain());
        ages.trust(stamp(30, WALL + 3 * MAX as i64 + 5_000, true));
        assert!(ages.is_certain());
        assert_eq!(ages.expired_below(30), 15, "what has no time is older than what comes after it");
        ages.trust(stamp(40, WALL + 1_000 * MAX as i64, true));
        assert_eq!(ages.expired_below(40), 15, "a step of the clock does not make anything older");
        assert_eq!(ages.expired_below((10 + STEP + MAX) as i64 - 1), 15);
        assert_eq!(ages.expired_below((10 + STEP + MAX) as i64), Position::MAX);
    }

    #[test]
    fn a_clock_that_is_behind_the_file_makes_nothing_older_than_this_run() {
        let mut ages = ages();
        ages.adopt(vec![(0, Some(Timestamp(WALL)))], 0, 1, 7);
        ages.trust(stamp(7, WALL - 1_000_000_000, true));
        assert_eq!(ages.expired_below((7 + STEP + MAX) as i64 - 1), Position::MIN);
        assert_eq!(ages.expired_below((7 + STEP + MAX) as i64), Position::MAX);
    }

    #[test]
    fn rows_of_a_file_without_marks_count_from_this_run_and_not_with_its_own() {
        let mut ages = ages();
        ages.adopt(Vec::new(), 3, 8, 0);
        ages.note(8, 10, 3);
        assert_eq!(ages.expired_below((STEP + MAX) as i64), 8);
    }

    #[test]
    fn what_is_written_is_what_another_run_reads() {
        let mut ages = ages();
        ages.note(0, 100, 0);
        ages.note(1, 5_100, 0);
        assert_eq!(ages.changes(stamp(6_000, 50, false)), Some(vec![(0, None), (1, None)]));
        assert_eq!(ages.changes(stamp(6_000, 50, false)), None);
        ages.unwritten();
        let marks = ages.changes(stamp(6_100, WALL, true)).unwrap();
        assert_eq!(marks, [(0, Some(Timestamp(WALL - 6_000))), (1, Some(Timestamp(WALL - 1_000)))]);
        let mut later = super::Ages::new(Duration::from_millis(MAX));
        later.adopt(marks, 0, 2, 0);
        later.trust(stamp(0, WALL + MAX as i64 - 5_000, true));
        assert_eq!(later.expired_below(0), 1);
        assert_eq!(later.expired_below(3_999 + STEP as i64), 1);
        assert_eq!(later.expired_below(4_000 + STEP as i64), Position::MAX);
    }

    #[test]
    fn what_comes_to_stand_before_an_older_file_is_not_taken_for_as_old() {
        let mut ages = ages();
        ages.adopt(vec![(0, Some(Timestamp(WALL)))], 0, 3, 5_000);
        ages.precede(-2, 4_000);
        ages.trust(stamp(6_000, WALL + 10 * MAX as i64, true));
        assert_eq!(ages.expired_below((4_000 + STEP + MAX) as i64 - 1), Position::MIN);
        assert_eq!(ages.expired_below((5_000 + STEP + MAX) as i64), Position::MAX);
    }

    #[test]
    fn marks_of_rows_that_are_gone_say_nothing_of_those_that_come_to_stand_there() {
        let mut ages = ages();
        ages.adopt(vec![(0, None), (5, None)], 0, 0, 0);
        ages.note(0, 100, 0);
        ages.note(1, 100 + STEP as i64, 0);
        // The message at 1 was dropped, and another comes to stand at 0.
        ages.note(0, 100 + 3 * STEP as i64, 0);
        assert_eq!(ages.since(0), 100 + 4 * STEP as i64);
    }

    #[test]
    fn marks_are_few_however_long_and_often_it_runs() {
        let mut ages = ages();
        for n in 0..10_000 {
            ages.note(n, n * STEP as i64, 0);
        }
        assert_eq!(ages.marks.len(), MARKS_MAX);
        ages.note(10_000, 10_000 * STEP as i64, 9_999);
        assert!(ages.marks.len() <= 2);
    }
}

//! A leaf: a counter that says when its count is worth a line in the log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts things that may come in floods: noise on a line, readings too late, refusals.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Counts one. Gives the count where it should be logged: at the first, the tenth, the hundredth and so on.
    pub fn count(&self) -> Option<u64> {
        self.add(1)
    }

    /// Counts `more` at once. Gives the count where it has reached, or passed, the next of these.
    pub fn add(&self, more: u64) -> Option<u64> {
        let before = self.0.fetch_add(more, Ordering::Relaxed);
        let count = before + more;
        (count.checked_ilog10() > before.checked_ilog10()).then_some(count)
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_a_million_is_worth_seven_lines() {
        let tally = Tally::default();
        let logged: Vec<_> = (0..1_000_000).filter_map(|_| tally.count()).collect();
        assert_eq!(logged, [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]);
        assert_eq!(tally.get(), 1_000_000);
    }

    #[test]
    fn many_at_once_are_worth_a_line_where_there_are_ten_times_as_many_as_before() {
        let tally = Tally::default();
        let logged = [0, 3, 6, 1, 89, 1, 5_000].map(|more| tally.add(more));
        assert_eq!(logged, [None, Some(3), None, Some(10), None, Some(100), Some(5_100)]);
    }
}

//! The look through the rows of a run that did not stop in order: a power cut may have damaged any of them.
//!
//! It goes by slices, with a pause after each, and behind every other job; so it delays neither the start nor a commit.
//! A row whose checksum is wrong is lost when its turn comes, as always; a file that cannot be read is found out now,
//! and not in the middle of a backlog.

use std::time::Duration;

use super::super::store::{Met, Position, Row};
use super::Queue;

/// The pause after a slice: a card is left to others for most of the time.
const PAUSE: Duration = Duration::from_millis(50);

/// How far it has got.
#[derive(Debug)]
pub(super) struct Check {
    next: Position,
    at: Duration,
    rows: u64,
    damaged: u64,
}

impl Queue {
    /// Begins with the first row.
    pub(super) fn check_from(&mut self, first: Position, now: Duration) {
        self.check = Some(Check { next: first, at: now, rows: 0, damaged: 0 });
    }

    /// When the next slice is due, and where it begins.
    pub(super) fn check_at(&self) -> Option<(Duration, Position)> {
        self.check.as_ref().filter(|_| self.disk.is_up()).map(|check| (check.at, check.next))
    }

    /// Takes a slice that was read.
    pub(super) fn checked(&mut self, slice: &[Met], now: Duration) {
        let end = self.last_row().unwrap_or(Position::MIN);
        let Some(check) = &mut self.check else { return };
        check.rows += slice.len() as u64;
        check.damaged += slice.iter().filter(|met| matches!(met, Met::Damaged(_))).count() as u64;
        let last = slice.last().map(|met| match met {
            Met::Row(Row { position, .. }) | Met::Damaged(position) => *position,
        });
        check.at = now + PAUSE;
        match last {
            Some(last) if last + 1 < end => check.next = last + 1,
            _ => {
                let (rows, damaged) = (check.rows, check.damaged);
                self.check = None;
                if damaged == 0 {
                    tracing::info!(
                        rows,
                        "the buffer was looked through after the last stop: all can be read"
                    );
                } else {
                    tracing::error!(
                        rows,
                        damaged,
                        "the buffer was looked through after the last stop: some are damaged"
                    );
                }
            }
        }
    }
}

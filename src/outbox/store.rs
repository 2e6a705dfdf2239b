//! The seam between the queue, which decides, and the disk, which obeys.
//!
//! A [`Store`] keeps rows, loss records, dead letters and the note of the run. It is one object that travels: whoever has it is the
//! only one who uses it, for one [`Job`] at a time. A test puts one in its place that fails or dies when it is told
//! to.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::ledger::Record;
use crate::model::{Cause, Id, Timestamp};

/// Where a message stands in the queue. Rises from message to message and over restarts. Messages that were handed
/// out before an older store was found get positions before its first, below zero if need be.
pub(super) type Position = i64;

/// A message as the disk has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where it stands.
    pub(super) position: Position,
    /// Its id.
    pub(super) id: Id,
    /// Its compact form.
    pub(super) bytes: Arc<[u8]>,
}

/// What reading meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// A message.
    Row(Row),
    /// One whose checksum is wrong.
    Damaged(Position),
}

/// A message that was given up, as the disk has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    /// Its id.
    pub(super) id: Id,
    /// Its compact form.
    pub(super) bytes: Arc<[u8]>,
    /// As what the ledger has it.
    pub(super) cause: Cause,
    /// Why, in words for a person.
    pub(super) reason: Box<str>,
    /// When, by the wall clock.
    pub(super) at: Timestamp,
}

/// That there is a dead letter, without what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Rises from letter to letter.
    pub(super) key: i64,
    /// The message's id.
    pub(super) id: Id,
    /// Bytes of the message and the reason.
    pub(super) bytes: usize,
}

/// That the rows from `position` on were appended at `wall` or later; `None` where the clock was not trusted.
pub(super) type Mark = (Position, Option<Timestamp>);

/// What a store holds when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The first row's position, and the one after the last; equal where there is none.
    pub(super) first: Position,
    /// The position after the last row's.
    pub(super) end: Position,
    /// The space there is.
    pub(super) space: Space,
    /// The note of the run before; `None` where there was none.
    pub(super) run: Option<Run>,
    /// Whether the file was made just now, so that there was no run before.
    pub(super) fresh: bool,
    /// The losses that were not told yet, by key.
    pub(super) losses: Vec<(i64, Record)>,
    /// The dead letters, by key.
    pub(super) dead: Vec<Kept>,
    /// How old the rows are, in rising order.
    pub(super) marks: Vec<Mark>,
    /// What became of a damaged file, if one was in the way.
    pub(super) set_aside: Option<SetAside>,
}

/// What memory has of a file, or knows of it.
#[derive(Debug)]
pub(super) struct Known {
    /// The messages that it has.
    pub(super) ids: HashSet<Id>,
    /// Rows below this that are not among those were answered for.
    pub(super) settled_below: Position,
}

impl Default for Known {
    /// Nothing.
    fn default() -> Self {
        Self { ids: HashSet::new(), settled_below: Position::MIN }
    }
}

/// A damaged file that was moved away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetAside {
    /// Where to.
    pub(super) path: PathBuf,
    /// How many of its messages are in the new file.
    pub(super) salvaged: u64,
    /// How many are not, where that is known; those are among them that memory has.
    pub(super) missing: Option<u64>,
    /// Whether it had windows that were saved: they are lost as well.
    pub(super) windows: bool,
}

/// The space that a store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    /// How many bytes of messages still fit in, about.
    pub(super) room: u64,
    /// Bytes of the file that are in use.
    pub(super) used: u64,
    /// Whether less than `min_free` is free on the disk, so that the file does not grow.
    pub(super) scarce: bool,
}

/// The note of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Its epoch.
    pub(super) epoch: u64,
    /// Whether it stopped in order.
    pub(super) clean: bool,
    /// What it left for the next.
    pub(super) saved: Option<Vec<u8>>,
}

/// What is to become true at once, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commit {
    /// Rows below this are deleted, but for those in `keep`.
    pub(super) delete_below: Position,
    /// In rising order, all below `delete_below`.
    pub(super) keep: Vec<Position>,
    /// Rows to add, in rising order; added after the deletion.
    pub(super) rows: Vec<Row>,
    /// Loss records to write, or to delete, by key.
    pub(super) losses: Vec<(i64, Option<Record>)>,
    /// Dead letters to write where there is room for them, or to delete, by key. Deleted only where all `rows` were
    /// taken: the message may be among these.
    pub(super) dead: Vec<(i64, Option<Dead>)>,
    /// How old the rows are, where that is news: all marks.
    pub(super) marks: Option<Vec<Mark>>,
    /// The note of the run. Written only where all `rows` were taken.
    pub(super) run: Option<Run>,
}

/// What became of a [`Commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    /// How many of its rows, from the first, were taken; the others found no room.
    pub(super) taken: usize,
    /// The keys of the dead letters that found none.
    pub(super) refused: Vec<i64>,
    /// The space there is now.
    pub(super) space: Space,
}

/// Why the disk did not do it, in words for a person. Nothing of what was asked became true.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It may do it later.
    #[error("{0}")]
    Failed(String),
    /// The file is damaged. The store has let go of it; opening sets it aside and starts a new one.
    #[error("{0}")]
    Corrupt(String),
}

/// What keeps rows over a restart.
pub(super) trait Store: Send {
    /// Opens what there is or makes it new. A damaged file is set aside under a name with the time `now`, and what can
    /// be read of it is put into the new one, but for what memory has or knows to be settled.
    fn open(&mut self, known: &Known, now: Timestamp) -> Result<Found, Fault>;

    /// Reads rows from `from` on, in order, at most `rows` and about `bytes`, at least one where there is one. Where
    /// `until` is given the last row of all is the one before it; a file that does not have it is damaged.
    fn read(
        &mut self,
        from: Position,
        until: Option<Position>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Met>, Fault>;

    /// Reads the dead letters with these keys, as far as they are there and can be read.
    fn dead(&mut self, keys: &[i64]) -> Result<Vec<(i64, Dead)>, Fault>;

    /// Makes `commit` true, durably.
    fn commit(&mut self, commit: &Commit) -> Result<Committed, Fault>;

    /// Lets go of the file, and leaves it tidy.
    fn close(&mut self);
}

/// What the queue asks of the disk.
#[derive(Debug)]
pub(super) enum Job {
    /// [`Store::open`].
    Open {
        /// What memory knows.
        known: Known,
    },
    /// [`Store::read`].
    Read {
        /// From this position on.
        from: Position,
        /// Up to this one.
        until: Option<Position>,
    },
    /// [`Store::read`], to see whether what is there can be read.
    Check {
        /// From this position on.
        from: Position,
        /// Up to this one.
        until: Option<Position>,
    },
    /// [`Store::read`], for somebody who only looks.
    Look {
        /// From this position on.
        from: Position,
        /// Up to this one.
        until: Option<Position>,
        /// At most so many.
        rows: usize,
    },
    /// [`Store::dead`].
    Dead {
        /// Of these.
        keys: Vec<i64>,
    },
    /// [`Store::commit`].
    Commit(Commit),
    /// [`Store::close`].
    Close,
}

/// What the disk answers.
#[derive(Debug)]
pub(super) enum Done {
    /// To [`Job::Open`].
    Open(Result<Found, Fault>),
    /// To [`Job::Read`].
    Read(Result<Vec<Met>, Fault>),
    /// To [`Job::Look`].
    Look(Result<Vec<Met>, Fault>),
    /// To [`Job::Dead`].
    Dead(Result<Vec<(i64, Dead)>, Fault>),
    /// To [`Job::Check`].
    Check(Result<Vec<Met>, Fault>),
    /// To [`Job::Commit`].
    Commit(Result<Committed, Fault>),
    /// To [`Job::Close`].
    Close,
}

/// The most rows that are read ahead, and about the most bytes.
pub(super) const AHEAD: (usize, usize) = if cfg!(test) { (8, 4 << 10) } else { (256, 64 << 10) };

impl Job {
    /// Does it. May block for as long as the disk does.
    pub(super) fn run(&self, store: &mut dyn Store, now: Timestamp) -> Done {
        match self {
            Self::Open { known } => Done::Open(store.open(known, now)),
            Self::Read { from, until } => Done::Read(store.read(*from, *until, AHEAD.0, AHEAD.1)),
            Self::Check { from, until } => Done::Check(store.read(*from, *until, AHEAD.0, AHEAD.1)),
            Self::Look { from, until, rows } => {
                Done::Look(store.read(*from, *until, (*rows).min(AHEAD.0), AHEAD.1))
            }
            Self::Dead { keys } => Done::Dead(store.dead(keys)),
            Self::Commit(commit) => Done::Commit(store.commit(commit)),
            Self::Close => {
                store.close();
                Done::Close
            }
        }
    }
}

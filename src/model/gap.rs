use std::fmt;

use super::{Id, Timestamp};

/// Why messages were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The buffer was full and made room.
    Evicted,
    /// The buffer was full and kept what it had: `when_full = "drop_newest"`.
    Full,
    /// It was older than `max_age`.
    Expired,
    /// Somebody emptied the buffer: `weir buffer purge`.
    Purged,
    /// The broker refused it for good.
    Refused,
    /// The broker closed the connection on it again and again, and not on what came after it.
    Poison,
    /// It is larger than the broker or the configuration allows.
    TooLarge,
    /// It could not be read back from the disk.
    Damaged,
    /// The agent did not stop in order; what was only in memory is gone, and nobody knows how much that was.
    Crash,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 9] = [
        Self::Evicted,
        Self::Full,
        Self::Expired,
        Self::Purged,
        Self::Refused,
        Self::Poison,
        Self::TooLarge,
        Self::Damaged,
        Self::Crash,
    ];

    /// The name on the wire and in the ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Full => "full",
            Self::Expired => "expired",
            Self::Purged => "purged",
            Self::Refused => "refused",
            Self::Poison => "poison",
            Self::TooLarge => "too_large",
            Self::Damaged => "damaged",
            Self::Crash => "crash",
        }
    }

    /// The cause of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A gap record: what was lost, told upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its id, from the same sequence as the messages'.
    pub id: Id,
    /// Why it was lost.
    pub cause: Cause,
    /// Whose it was; `None` where it concerns several devices, or nobody knows.
    pub device: Option<Box<str>>,
    /// How many messages; `None` where nobody knows.
    pub messages: Option<u64>,
    /// How many readings were in them; `None` where nobody knows.
    pub readings: Option<u64>,
    /// The first millisecond that is missing, where known.
    pub from: Option<Timestamp>,
    /// The last millisecond that is missing, where known.
    pub to: Option<Timestamp>,
}

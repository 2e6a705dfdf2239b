use std::fmt;
use std::time::Duration;

/// Unix time in milliseconds. Negative before 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub i64);

impl Timestamp {
    /// This time moved on by `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This time moved by so many milliseconds, either way, saturating.
    #[must_use]
    pub fn moved(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// This time less `duration`, saturating.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How far this and `other` are apart.
    #[must_use]
    pub fn distance(self, other: Self) -> Duration {
        self.since(other).max(other.since(self))
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a device says of the time of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// When it was, by the device's own clock.
    At(Timestamp),
    /// So many milliseconds after its arrival; before it where negative.
    FromArrival(i64),
}

impl Time {
    /// The time of what arrived at `arrival`.
    #[must_use]
    pub fn of(self, arrival: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::FromArrival(by) => arrival.moved(by),
        }
    }
}

/// One look at the clock: what the wall says, how long the machine has run, and whether the wall can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Wall time. Provisional while `synced` is false.
    pub wall: Timestamp,
    /// Monotonic time since an arbitrary point of this run; never goes back.
    pub monotonic: Duration,
    /// Whether the wall clock has been trusted by now.
    pub synced: bool,
}

/// One reckoning of provisional time: the times that a gateway stamps while nothing has set its clock lie on one line,
/// over restarts of the agent too, as long as the machine runs. What lies on the same line is off by the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Era(#[n(0)] pub u64);

/// By how much an era's times are off, known once the clock is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// Whose times.
    pub era: Era,
    /// What to add to them, in milliseconds.
    pub by: i64,
}

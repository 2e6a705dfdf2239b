//! How the buffer and the way out of it stand: what `weir buffer stats` is answered.

use serde::{Deserialize, Serialize};

/// How they stand. Ages are in seconds, sizes in bytes; what is counted is counted since this run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The time of the answer, in Unix seconds, where the clock is trusted.
    pub now: Option<i64>,
    /// The way out.
    pub uplink: Uplink,
    /// What waits.
    pub buffer: Buffer,
    /// What does not wait any more.
    pub settled: Settled,
    /// What the broker has refused for good.
    pub dead_letters: DeadLetters,
}

/// The way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// For how long there has been a connection; `None` while there is none.
    pub connected_for: Option<u64>,
    /// With whom it is, or was last.
    pub broker: Option<String>,
    /// What went wrong last, and how long ago.
    pub last_error: Option<(String, u64)>,
    /// The last second at which the client certificate is valid, in Unix time.
    pub certificate_until: Option<i64>,
    /// Whether one is shown at all.
    pub uses_certificate: bool,
    /// Connections, and tries to connect.
    pub connections: u64,
    /// As said.
    pub tries: u64,
}

/// What waits, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Messages that wait or are on their way.
    pub waiting: u64,
    /// How long the oldest of them has.
    pub oldest: Option<u64>,
    /// Of these, in memory.
    pub in_memory: u64,
    /// Of these, on the disk only.
    pub on_disk: u64,
    /// Bytes of the file that are in use.
    pub disk_bytes: u64,
    /// Why the disk does not do what is asked of it.
    pub disk_trouble: Option<String>,
    /// Whether the file may not grow, because less than `min_free` would be free.
    pub below_min_free: bool,
    /// `[buffer]`, as configured.
    pub max_bytes: u64,
    /// As configured, in seconds.
    pub max_age: u64,
    /// As configured.
    pub min_free: u64,
    /// As configured.
    pub when_full: String,
}

/// What does not wait any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Messages that the broker has acknowledged.
    pub acknowledged: u64,
    /// Messages lost, by their cause.
    pub lost: Vec<(String, u64)>,
    /// Messages of a damaged file that could be salvaged.
    pub salvaged: u64,
    /// Records of losses that the broker was not told yet.
    pub gaps_to_tell: u64,
}

/// What the broker has refused for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// Those that are kept.
    pub kept: u64,
    /// Those that made way for others.
    pub dropped: u64,
    /// How often one that was sent again was refused again: its loss was counted the first time.
    pub refused_again: u64,
    /// Those that were sent again and lost otherwise, which is no new loss either.
    pub lost_again: u64,
}

use std::num::NonZeroU32;

use serde::Deserialize;

/// `[buffer] replay`: how a backlog is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// The most messages per second while there is a backlog, that is while more waits than may be unanswered at once.
    /// Without it they go as fast as the other side takes them.
    pub max_rate: Option<NonZeroU32>,
}

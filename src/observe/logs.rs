//! The log.

use serde::Deserialize;

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The least important lines that are still written.
    pub level: Level,
    /// How and where to.
    pub format: Format,
}

/// How important a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A loss, or what needs a person.
    Error,
    /// What was recovered without loss.
    Warn,
    /// What changed.
    #[default]
    Info,
    /// What it does, for one who looks for a fault.
    Debug,
    /// Every step.
    Trace,
}

/// How and where lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// To the journal where systemd has connected standard error to it, else as text.
    #[default]
    Auto,
    /// Lines for a person, to standard error.
    Text,
    /// A JSON object a line, to standard error.
    Json,
    /// Fields to systemd's journal.
    Journal,
}

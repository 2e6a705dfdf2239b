//! The log.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

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

/// The log, once it has started.
pub struct Log(Handle<Lines, Registry>);

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

impl Log {
    /// Goes on by another configuration.
    ///
    /// # Errors
    /// Where the journal is asked for and does not answer.
    pub fn change(&self, config: Config) -> io::Result<()> {
        self.0.reload(lines(config)?).map_err(io::Error::other)
    }
}

/// Starts the log. What is logged before is lost.
///
/// # Errors
/// Where the journal is asked for and does not answer.
pub fn init(config: Config) -> io::Result<Log> {
    let (layer, handle) = reload::Layer::new(lines(config)?);
    // A second start in one process, as in tests, keeps the first log.
    drop(tracing_subscriber::registry().with(layer).try_init());
    Ok(Log(handle))
}

/// What writes lines as `config` says.
fn lines(config: Config) -> io::Result<Lines> {
    let level = match config.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let format = match config.format {
        Format::Auto if stderr_is_the_journal() => Format::Journal,
        Format::Auto => Format::Text,
        chosen => chosen,
    };
    Ok(match format {
        Format::Journal => tracing_journald::layer()?.and_then(level).boxed(),
        Format::Json => lines.json().flatten_event(true).and_then(level).boxed(),
        Format::Auto | Format::Text => lines.with_ansi(io::stderr().is_terminal()).and_then(level).boxed(),
    })
}

/// Whether systemd has connected standard error to the journal: `$JOURNAL_STREAM` names its device and inode
/// (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Some(stream) = env::var_os("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let Ok(metadata) = stderr.and_then(|stderr| stderr.metadata()) else { return false };
    stream == *format!("{}:{}", metadata.dev(), metadata.ino())
}

//! The configuration: one TOML file, put together from the stages' own types.
//!
//! Every error is reported at once, with its place and what to do. The stages say what their tables hold, by serde
//! and by `problems()`; this room finds the tables, explains what is wrong with them and knows what goes across them.
//! What is absent (a port, a certificate) is a warning: it may come later. A file that is there and unfit (a map, a private
//! key) keeps none but its own source or uplink from working: for `check` it is an error, for `run` a warning.

mod directories;
mod expand;
mod explain;
mod findings;
mod parse;
mod problem;
mod reader;
mod recover;
mod table;
mod tree;
mod words;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::observe::logs;
use crate::{clock, encode, filter, outbox, sources, uplink, window};

pub use problem::{Problem, Problems, Severity};

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[sources.NAME]`, each with its name; at least one.
    pub sources: Vec<(Arc<str>, sources::Config)>,
    /// `stale_after` of the sources that have it: after so long a silence a series is told as stale.
    pub stale_after: Vec<(Arc<str>, Duration)>,
    /// `[[filters]]`, in the order of the file.
    pub filters: Vec<filter::Config>,
    /// `[[windows]]`, in the order of the file, with different names.
    pub windows: Vec<window::Config>,
    /// `[buffer]`.
    pub buffer: outbox::Config,
    /// `[uplink]`, but for its format.
    pub uplink: uplink::Config,
    /// `format` of `[uplink]`.
    pub format: encode::Format,
    /// `[limits]`.
    pub limits: Limits,
    /// `[clock]`.
    pub clock: clock::Config,
    /// `[log]`.
    pub log: logs::Config,
}

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Its name: 1 to 128 bytes without control characters. `None`: the client certificate's common name.
    pub id: Option<Arc<str>>,
    /// Where the outbox is kept; by default `$STATE_DIRECTORY`, else `/var/lib/weir`.
    pub state_dir: PathBuf,
    /// Where what need not outlive the boot is kept; by default `$RUNTIME_DIRECTORY`, else `/run/weir`.
    pub runtime_dir: PathBuf,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most series at once; at least 1.
    pub max_series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_series: 10_000 }
    }
}

/// A file that weir can run with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What is absent or unfit and may be mended later, and what is hardly meant so.
    pub warnings: Problems,
}

/// Reads the file at `path`.
///
/// # Errors
/// Everything that is wrong with it at once, the warnings among it.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let source = text(path)?;
    reader::read(path, source, &|name| std::env::var(name).ok())
}

/// Where the weir that runs by the file at `path` has its control socket. What is wrong with other tables is no matter:
/// weir may run on by what the file said before.
///
/// # Errors
/// Where the file cannot be read, or its `[gateway]`.
pub fn runtime_dir(path: &Path) -> Result<PathBuf, Problems> {
    reader::runtime_dir(path, text(path)?, &|name| std::env::var(name).ok())
}

fn text(path: &Path) -> Result<String, Problems> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let (text, help) = match error.kind() {
            io::ErrorKind::NotFound => (
                format!("there is no file {shown}"),
                format!("write one with `weir init > {shown}`, or name another with `--config FILE`"),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("{shown} may not be read by this user"),
                "let the service's group read it, or run as a user who may".to_owned(),
            ),
            _ => (
                format!("{shown} cannot be read: {error}"),
                "name a TOML file with `--config FILE`".to_owned(),
            ),
        };
        Problems::of_file(path, text, help)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    decode(path, bytes)
}

/// `bytes` as text, where they can be a configuration.
fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, Problems> {
    let shown = path.display();
    if bytes.len() as u64 > FILE_MAX {
        let text = format!("{shown} is longer than 1 MiB, so it is no configuration");
        return Err(Problems::of_file(path, text, "name a TOML file with `--config FILE`".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        let text = format!("{shown} is no UTF-8 text: line {line} has a byte that stands for no character");
        Problems::of_file(path, text, "save the file as UTF-8".into())
    })
}

#[cfg(test)]
mod tests;

//! How many files a test may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::pki::Result;

/// Takes as many as the system lets this process have, and what it starts from now on; fails where that is less than
/// `needed`.
pub(crate) fn at_least(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    match limit.maximum {
        Some(most) if most < needed => {
            Err(format!("this needs {needed} open files and may have {most}: see `ulimit -Hn`").into())
        }
        _ => Ok(()),
    }
}

//! Programs in Python, in the environment that `tests/all` makes beside the build.

use std::path::Path;
use std::process::Command;

use super::pki::Result;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin");

/// A command that runs a file of `tests/support`.
pub(crate) fn script(name: &str) -> Result<Command> {
    let mut command = program("python")?;
    command.arg(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support")).join(name));
    Ok(command)
}

/// A program that came with a package.
pub(crate) fn program(name: &str) -> Result<Command> {
    let program = Path::new(PROGRAMS).join(name);
    if !program.exists() {
        let install = "`python3 -m venv target/python && target/python/bin/pip install -r tests/requirements.txt` \
                       in the project's directory (on Debian after `apt-get install python3-venv`)";
        return Err(
            format!("{} is not there: {install}; this test cannot do without", program.display()).into()
        );
    }
    Ok(Command::new(program))
}

use std::process::ExitCode;

use super::Configured;

pub(super) fn run(arguments: &Configured) -> ExitCode {
    let loaded = match super::load(arguments) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    super::explain(&loaded.warnings);
    super::complain("running is not built yet");
    ExitCode::FAILURE
}

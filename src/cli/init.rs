use std::process::ExitCode;

pub(super) fn init() -> ExitCode {
    super::print(include_str!("../../config/weir.toml"))
}

//! The command line: one file a command.
//!
//! Exit codes: 0 done; 1 it failed at run time; 2 the command line is wrong (clap's); 78 the configuration is wrong
//! (`EX_CONFIG` of `sysexits.h`), which systemd's `RestartPreventExitStatus` can tell from a failure that passes.

mod check;
mod init;
mod run;
mod service;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Loaded, Problems};

const EX_CONFIG: u8 = 78;

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   it failed at run time
  2   the command line is wrong
  78  the configuration is wrong (EX_CONFIG)";

/// Forwards what sensors say to an MQTT broker over mutual TLS, and keeps it while the broker is away.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground; it logs to standard error
    #[command(after_help = EXIT_CODES)]
    Run(Configured),
    /// Say what the configuration is, or everything that is wrong with it
    #[command(after_help = EXIT_CODES)]
    Check(Configured),
    /// Print a configuration to start with
    #[command(after_help = EXIT_CODES)]
    Init,
}

/// What every command takes that needs the configuration.
#[derive(Args, Clone, Debug)]
struct Configured {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/weir/weir.toml")]
    config: PathBuf,
}

/// Does what the command line asks.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Init => init::init(),
    }
}

/// Loads the configuration, or explains on standard error why it cannot be.
fn load(arguments: &Configured) -> Result<Loaded, ExitCode> {
    config::load(&arguments.config).map_err(|problems| {
        let (errors, _) = problems.count();
        let errors = if errors == 1 { "1 error".into() } else { format!("{errors} errors") };
        explain(&problems);
        complain(&format!("{errors} in {}", problems.file().display()));
        ExitCode::from(EX_CONFIG)
    })
}

/// Shows problems on standard error, in colour where a person looks on.
fn explain(problems: &Problems) {
    let shown = problems.show(io::stderr().is_terminal());
    if !shown.is_empty() {
        complain(&format!("{shown}\n"));
    }
}

/// A line on standard error. Where nobody takes it, there is nobody to tell.
fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints to standard output. A reader that has gone away has read enough.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

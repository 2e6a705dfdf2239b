//! The command line: one file a command.
//!
//! Exit codes: 0 done; 1 it failed at run time; 2 the command line is wrong (clap's); 78 the configuration is wrong
//! (`EX_CONFIG` of `sysexits.h`), which systemd's `RestartPreventExitStatus` can tell from a failure that passes.

mod buffer;
mod check;
mod init;
mod run;
mod service;
mod tap;

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
    /// Look into the buffer of the weir that runs, or empty it
    #[command(after_help = EXIT_CODES)]
    Buffer {
        #[command(flatten)]
        arguments: Configured,
        #[command(subcommand)]
        what: buffer::Buffer,
    },
    /// Show what a source reads and what becomes of it, until Ctrl-C: by the weir that runs, or else by opening the source
    #[command(after_help = EXIT_CODES)]
    Tap {
        #[command(flatten)]
        arguments: Configured,
        /// The source's name: `boiler` for [sources.boiler]
        #[arg(value_name = "NAME")]
        source: String,
    },
    /// Print a configuration to start with
    #[command(after_help = EXIT_CODES)]
    Init,
}

/// What every command takes that needs the configuration.
#[derive(Args, Clone, Debug)]
struct Configured {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/weir/weir.toml")]
    config: PathBuf,
}

/// Does what the command line asks.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Buffer { arguments, what } => buffer::buffer(&arguments, what),
        Command::Tap { arguments, source } => tap::tap(&arguments, source),
        Command::Init => init::init(),
    }
}

/// Loads the configuration, or explains on standard error why it cannot be.
fn load(arguments: &Configured) -> Result<Loaded, ExitCode> {
    config::load(&arguments.config).map_err(|problems| refuse(&problems))
}

/// Explains on standard error why the configuration cannot be used.
fn refuse(problems: &Problems) -> ExitCode {
    let (errors, _) = problems.count();
    let errors = if errors == 1 { "1 error".into() } else { format!("{errors} errors") };
    explain(problems);
    complain(&format!("{errors} in {}", problems.file().display()));
    ExitCode::from(EX_CONFIG)
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
    print_more(text).err().unwrap_or(ExitCode::SUCCESS)
}

/// Prints a part of something. An error is the code to exit with, for nobody takes more.
fn print_more(text: &str) -> Result<(), ExitCode> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            return ExitCode::SUCCESS;
        }
        complain(&format!("cannot write to standard output: {error}"));
        ExitCode::FAILURE
    })
}

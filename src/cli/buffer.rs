mod stats;

use std::process::ExitCode;

use clap::Subcommand;

use super::Configured;
use crate::config;
use crate::observe::control::{self, Question, Unanswered};

/// What is done with the buffer.
#[derive(Subcommand, Debug)]
pub(super) enum Buffer {
    /// Say whether the uplink is connected, how much waits, where, and what was lost in this run
    Stats,
    /// Print the first messages that wait, as they will be sent
    Peek {
        /// How many
        #[arg(value_name = "COUNT", default_value_t = 10)]
        count: u64,
    },
    /// Print all messages that wait, as JSON lines; they stay where they are
    Export,
    /// Lose all messages that wait; the loss is told upstream
    Purge {
        /// Do it: without this nothing is lost
        #[arg(long)]
        yes: bool,
    },
    /// List what the broker refused for good, show what it says, send it again or forget it
    DeadLetters {
        /// Print what these say, as they would be sent, or all of them where no id is given
        #[arg(long, value_name = "ID", num_args = 0.., group = "what")]
        show: Option<Vec<String>>,
        /// Send these again, or all of them where no id is given
        #[arg(long, value_name = "ID", num_args = 0.., group = "what")]
        send_again: Option<Vec<String>>,
        /// Forget these for good, or with --yes all of them where no id is given; their loss was told already
        #[arg(long, value_name = "ID", num_args = 0.., group = "what")]
        forget: Option<Vec<String>>,
        /// Forget all: without this none is forgotten that is not named
        #[arg(long, requires = "forget")]
        yes: bool,
    },
}

pub(super) fn buffer(arguments: &Configured, what: Buffer) -> ExitCode {
    let question = match what {
        Buffer::Stats => Question::BufferStats,
        Buffer::Peek { count } => Question::BufferMessages { most: Some(count) },
        Buffer::Export => Question::BufferMessages { most: None },
        Buffer::Purge { yes: false } => {
            super::complain(
                "purge loses every message that waits, and tells the loss upstream: `weir buffer export > FILE` keeps \
                 them, `weir buffer purge --yes` does it",
            );
            return ExitCode::FAILURE;
        }
        Buffer::Purge { yes: true } => Question::BufferPurge,
        Buffer::DeadLetters { show: Some(ids), .. } => Question::DeadLetterPayloads { ids: named(ids) },
        Buffer::DeadLetters { send_again: Some(ids), .. } => Question::SendAgain { ids: named(ids) },
        Buffer::DeadLetters { forget: Some(ids), yes: false, .. } if ids.is_empty() => {
            super::complain(
                "this forgets every dead letter for good: `weir buffer dead-letters --show > FILE` keeps what they say, \
                 `weir buffer dead-letters --forget --yes` does it",
            );
            return ExitCode::FAILURE;
        }
        Buffer::DeadLetters { forget: Some(ids), .. } => Question::ForgetDeadLetters { ids: named(ids) },
        Buffer::DeadLetters { .. } => Question::DeadLetters,
    };
    let shown = |line: &str| match &question {
        Question::BufferStats => stats::show(line),
        Question::BufferPurge => format!("purged: {line}\n"),
        Question::SendAgain { .. } => format!("put back into the queue: {line}\n"),
        Question::ForgetDeadLetters { .. } => format!("forgotten: {line}\n"),
        Question::BufferMessages { .. }
        | Question::DeadLetters
        | Question::DeadLetterPayloads { .. }
        | Question::Tap { .. } => format!("{line}\n"),
    };
    let runtime_dir = match config::runtime_dir(&arguments.config) {
        Ok(runtime_dir) => runtime_dir,
        Err(problems) => return super::refuse(&problems),
    };
    let (mut printed, mut is_empty) = (Ok(()), true);
    let asked = super::run::to_its_end(async {
        let print = |line: &str| {
            is_empty = false;
            printed = super::print_more(&shown(line));
            printed.is_ok()
        };
        Ok(control::ask(&runtime_dir, &question, print).await)
    });
    let error = match asked {
        Ok(Ok(())) => {
            if let Some(nothing) = nothing(&question).filter(|_| is_empty) {
                super::complain(nothing);
            }
            return printed.err().unwrap_or(ExitCode::SUCCESS);
        }
        Ok(Err(error)) => advise(&error),
        Err(error) => error.to_string(),
    };
    super::complain(&error);
    ExitCode::FAILURE
}

/// What is said where the answer has no line; `None` where it always has one.
fn nothing(question: &Question) -> Option<&'static str> {
    match question {
        Question::BufferMessages { .. } => Some("no message waits"),
        Question::DeadLetters | Question::DeadLetterPayloads { ids: None } => Some("there is no dead letter"),
        Question::DeadLetterPayloads { ids: Some(_) } => Some("there is no dead letter with this id"),
        Question::BufferStats
        | Question::BufferPurge
        | Question::SendAgain { .. }
        | Question::ForgetDeadLetters { .. }
        | Question::Tap { .. } => None,
    }
}

/// What went wrong, and what can be done.
pub(super) fn advise(error: &Unanswered) -> String {
    let help = match error {
        Unanswered::Nobody { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
            ": ask as root, as the user weir, or as a member of its group"
        }
        Unanswered::Nobody { .. } => {
            ": is it running (`systemctl status weir`), and with this file (`--config FILE`)?"
        }
        Unanswered::Refused(_) | Unanswered::CutOff => "",
    };
    format!("{error}{help}")
}

/// None are all.
fn named(ids: Vec<String>) -> Option<Vec<String>> {
    (!ids.is_empty()).then_some(ids)
}

mod show;

use std::io::{self, ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::Configured;
use crate::clock::Clock;
use crate::config;
use crate::observe::control::{self, Question, Unanswered};
use crate::pipeline::tap;
use crate::sources::{AnySource, tap::Event};

use show::Show;

pub(super) fn tap(arguments: &Configured, source: String) -> ExitCode {
    let runtime_dir = match config::runtime_dir(&arguments.config) {
        Ok(runtime_dir) => runtime_dir,
        Err(problems) => return super::refuse(&problems),
    };
    if let Err(error) = end_at_a_word() {
        super::complain(&error.to_string());
        return ExitCode::FAILURE;
    }
    let mut show = Show::new(io::stdout().is_terminal());
    let mut printed = Ok(());
    let question = Question::Tap { source: source.clone() };
    let asked = super::run::to_its_end(async {
        let mut first = true;
        let print = |line: &str| {
            let text = if std::mem::take(&mut first) {
                show.begin(&source, line, true)
            } else {
                // A line of another version's: the others can be read all the same.
                serde_json::from_str(line)
                    .map_or_else(|_| format!("{line}\n"), |event: Event| show.event(&event))
            };
            printed = super::print_more(&text);
            printed.is_ok()
        };
        Ok(control::ask(&runtime_dir, &question, print).await)
    });
    let error = match asked {
        Ok(Ok(())) => return printed.err().unwrap_or(ExitCode::SUCCESS),
        Ok(Err(Unanswered::Nobody { error, .. }))
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return alone(arguments, &source, show);
        }
        Ok(Err(error)) => super::buffer::advise(&error),
        Err(error) => error.to_string(),
    };
    super::complain(&error);
    ExitCode::FAILURE
}

/// Opens the source itself, as no weir runs.
fn alone(arguments: &Configured, source: &str, mut show: Show) -> ExitCode {
    let loaded = match super::load(arguments) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let sources = loaded.config.sources;
    let Some((name, config)) = sources.iter().find(|(name, _)| **name == *source).cloned() else {
        let names: Vec<Arc<str>> = sources.into_iter().map(|(name, _)| name).collect();
        super::complain(&tap::no_source(source, &names));
        return ExitCode::FAILURE;
    };
    let shown = super::run::to_its_end(async {
        let context = tap::context(name, Clock::for_show());
        let mut watcher = context.tap().watch(context.clock.clone());
        if let Err(code) = super::print_more(&show.begin(source, config.where_to_look(), false)) {
            return Ok(code);
        }
        let reading = tap::read::<AnySource>(config, context);
        let showing = async {
            while let Some(event) = watcher.next().await {
                if let Err(code) = super::print_more(&show.event(&event)) {
                    return code;
                }
            }
            ExitCode::SUCCESS
        };
        Ok(tokio::select! {
            code = showing => code,
            () = reading => ExitCode::FAILURE,
        })
    });
    shown.unwrap_or_else(|error| {
        super::complain(&error.to_string());
        ExitCode::FAILURE
    })
}

/// Has Ctrl-C and SIGTERM end this as what they are here, the end of looking on. On a thread of its own, as whoever
/// reads the output may have stopped reading.
fn end_at_a_word() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _here = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        std::process::exit(0);
    })?;
    Ok(())
}

mod show;

use std::io::{self, ErrorKind, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
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
                    .map_or_else(|_| show::clean(line) + "\n", |event: Event| show.event(&event))
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
        Ok(Err(Unanswered::Refused(why)))
            if why.starts_with(&tap::no_source(&source, &[])) && is_in_file(arguments, &source) =>
        {
            not_read_yet(&source)
        }
        Ok(Err(error)) => super::buffer::advise(&error),
        Err(error) => error.to_string(),
    };
    super::complain(&error);
    ExitCode::FAILURE
}

/// That the weir that runs does not know the file as it is now.
fn not_read_yet(source: &str) -> String {
    format!(
        "the weir that runs has no source `{source}` yet, though the file has: have the file read again (`systemctl reload weir`)"
    )
}

/// Whether the file, as it is now, has such a source.
fn is_in_file(arguments: &Configured, source: &str) -> bool {
    config::load(&arguments.config)
        .is_ok_and(|loaded| loaded.config.sources.iter().any(|(name, _)| **name == *source))
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

/// Has Ctrl-C, SIGTERM and a reader that goes away end this as what they are here, the end of looking on. On a thread of
/// its own, as whoever reads the output may have stopped reading.
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
                () = nobody_reads() => {}
            }
        });
        std::process::exit(0);
    })?;
    Ok(())
}

/// Waits until the pipe that standard output is has no reader any more, though nothing is to be written. A file is none,
/// and always there.
async fn nobody_reads() {
    // Nothing is written through it, so that it may block as it does.
    let pipe = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(pipe) = pipe {
        if pipe.ready(Interest::ERROR).await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

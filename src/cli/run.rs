use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Configured;
use crate::config::Config;
use crate::observe::logs;
use crate::pipeline;
use crate::pipeline::stop::{Stopper, stop};

pub(super) fn run(arguments: &Configured) -> ExitCode {
    let loaded = match super::load(arguments) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    super::explain(&loaded.warnings);
    match serve(loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Runs the agent on this thread until it is told to stop.
fn serve(config: Config) -> io::Result<()> {
    logs::init(config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (stopper, stop) = stop();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listening = tokio::spawn(listen(terminate, interrupt, stopper));
        pipeline::run(config, stop).await;
        listening.abort();
        Ok(())
    })
}

/// SIGTERM or SIGINT: stop in order. A second one: stop at once, as in a crash.
async fn listen(mut terminate: Signal, mut interrupt: Signal, stopper: Stopper) {
    for again in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if again {
            tracing::error!("told twice to stop: going at once, without keeping what is in memory");
            std::process::exit(1);
        }
        stopper.stop();
    }
}

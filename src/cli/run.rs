use std::io;
use std::os::unix::net::UnixStream;
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
    to_its_end(async {
        let (stopper, stop) = stop();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listening = tokio::spawn(listen(terminate, interrupt, stopper));
        pipeline::run(config, stop).await;
        listening.abort();
        Ok(())
    })
}

/// Runs `work` on this thread, and waits for nothing else: a name lookup that hangs, on a thread of its own, would
/// hold up the end for as long as it hangs.
fn to_its_end<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    // Where files are short, tokio panics for the want of its signals' pair. It has three more open by then.
    drop([UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_does_not_wait_for_a_name_lookup_that_hangs() {
        let (answer, lookup) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let result = to_its_end(async {
                let (begun, begins) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _ = begun.send(());
                    lookup.recv()
                });
                begins.await.map_err(io::Error::other)
            });
            ended.send(result.is_ok())
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(true));
        drop(answer);
    }
}

//! Programs that the tests run beside themselves.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::pki::Result;

/// How long anything may take that is not a test's own matter.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// A child whose output is gathered line by line. It is killed with this handle.
pub(crate) struct Process {
    child: Child,
    output: Arc<(Mutex<Gathered>, Condvar)>,
}

#[derive(Default)]
struct Gathered {
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    pub(crate) fn start(command: &mut Command, from: Output) -> Result<Self> {
        Self::start_sifted(command, from, |_| true)
    }

    /// As `start`, and keeps only the lines that `keep` says yes to. It sees each, in order.
    pub(crate) fn start_sifted(
        command: &mut Command,
        from: Output,
        mut keep: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Result<Self> {
        command.stdin(Stdio::null());
        match from {
            Output::Stdout => command.stdout(Stdio::piped()),
            Output::Stderr => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn()?;
        let source: Option<Box<dyn Read + Send>> = match from {
            Output::Stdout => child.stdout.take().map(|pipe| Box::new(pipe) as _),
            Output::Stderr => child.stderr.take().map(|pipe| Box::new(pipe) as _),
        };
        let output = Arc::new((Mutex::new(Gathered::default()), Condvar::new()));
        let process = Self { child, output: Arc::clone(&output) };
        let source = BufReader::new(source.ok_or("no pipe")?);
        // Ends with the child, whose end of the pipe it reads.
        thread::spawn(move || {
            let (gathered, changed) = &*output;
            for line in source.lines().map_while(std::io::Result::ok) {
                if !keep(&line) {
                    continue;
                }
                if let Ok(mut gathered) = gathered.lock() {
                    gathered.lines.push(line);
                }
                changed.notify_all();
            }
            if let Ok(mut gathered) = gathered.lock() {
                gathered.ended = true;
            }
            changed.notify_all();
        });
        Ok(process)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.0.lock().map(|gathered| gathered.lines.clone()).unwrap_or_default()
    }

    /// Waits until its output is enough. To look at much output takes long: it is looked at ever more rarely, so that
    /// the looking does not hold up what it waits for.
    pub(crate) fn wait(&self, what: &str, mut enough: impl FnMut(&[String]) -> bool) -> Result<()> {
        let (gathered, changed) = &*self.output;
        let mut waited = Duration::ZERO;
        let mut pause = Duration::from_millis(20);
        let mut seen = usize::MAX;
        loop {
            let mut now = gathered.lock().map_err(|_| "the reader of a child's output panicked")?;
            if now.lines.len() == seen && !now.ended {
                now = changed
                    .wait_timeout(now, pause)
                    .map_err(|_| "the reader of a child's output panicked")?
                    .0;
            }
            let (lines, ended) = (now.lines.clone(), now.ended);
            drop(now);
            if lines.len() != seen && enough(&lines) {
                return Ok(());
            }
            seen = lines.len();
            if ended || waited >= PATIENCE {
                return Err(
                    format!("waited in vain until {what}; the output was:\n{}", lines.join("\n")).into()
                );
            }
            pause = (pause * 2).min(Duration::from_millis(500));
            thread::sleep(pause);
            waited += pause;
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.child.id())?) {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Sends it a signal and waits for its end.
    pub(crate) fn end(mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

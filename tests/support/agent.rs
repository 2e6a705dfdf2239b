//! The real binary at work on a configuration of the test's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::SystemTime;

use rustix::process::Signal;

use super::pki::{Files, Result};
use super::process::{Output, Process};

/// Which weir is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// The one that is built with the tests, for this machine.
    Native,
    /// The release binary that `tests/armv7` builds, on an emulated processor where this machine has another.
    Armv7,
}

impl Program {
    /// A command without arguments yet. Its environment cannot change what it says.
    pub(crate) fn command(self) -> Result<Command> {
        let mut command = match self {
            Self::Native => Command::new(env!("CARGO_BIN_EXE_weir")),
            Self::Armv7 => armv7()?,
        };
        for variable in ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(variable);
        }
        Ok(command)
    }
}

fn armv7() -> Result<Command> {
    const BINARY: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/armv7/armv7-unknown-linux-gnueabihf/release/weir");
    if !Path::new(BINARY).is_file() {
        return Err(format!("{BINARY} is not there: `tests/armv7` builds it").into());
    }
    if cfg!(target_arch = "arm") {
        return Ok(Command::new(BINARY));
    }
    let mut emulated = Command::new("qemu-arm-static");
    emulated.args(["-L", "/usr/arm-linux-gnueabihf", BINARY]);
    Ok(emulated)
}

/// A gateway: a directory with a configuration and state, and the agent that runs on them, if any does.
pub(crate) struct Agent {
    dir: PathBuf,
    uplink: String,
    program: Program,
    environment: Vec<(String, String)>,
    running: Option<Process>,
}

impl Agent {
    /// Writes the configuration: `rest`, and an uplink to the broker at `port` of localhost. Nothing runs yet.
    pub(crate) fn new(dir: &Path, port: u16, client: &Files, rest: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let uplink = format!(
            "[uplink]\ntype = 'mqtt'\nurl = 'mqtts://localhost:{port}'\n\
             tls = {{ ca = '{}', cert = '{}', key = '{}' }}\n",
            client.ca.display(),
            client.cert.display(),
            client.key.display(),
        );
        let (program, environment) = (Program::Native, Vec::new());
        let agent = Self { dir: dir.to_owned(), uplink, program, environment, running: None };
        agent.configure(rest, "")?;
        Ok(agent)
    }

    /// Writes another configuration: `rest`, and `more` of the uplink. Whether it is taken is the test's matter.
    pub(crate) fn configure(&self, rest: &str, more: &str) -> Result<()> {
        let Self { dir, uplink, .. } = self;
        let config = format!(
            "[gateway]\nstate_dir = '{dir}'\nruntime_dir = '{dir}'\n\n[clock]\ntrust = 'rtc'\n\n{rest}\n\n{uplink}{more}\n",
            dir = dir.display(),
        );
        Ok(fs::write(dir.join("weir.toml"), config)?)
    }

    /// Which program runs when it is started next.
    pub(crate) fn choose(&mut self, program: Program) {
        self.program = program;
    }

    /// A variable of its environment, when it is started next.
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.environment.push((variable.to_owned(), value.to_owned()));
    }

    /// Starts it. What a run before had logged is forgotten.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = self.program.command()?;
        command.arg("run").arg("--config").arg(self.dir.join("weir.toml"));
        command.envs(self.environment.iter().map(|(variable, value)| (variable, value)));
        let program = Process::start(&mut command, Output::Stderr)
            .map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        self.running = Some(program);
        Ok(())
    }

    /// Starts it and waits for a line in its log.
    pub(crate) fn start_until(&mut self, line: &str) -> Result<()> {
        self.start()?;
        self.wait_for(line)
    }

    /// Waits for a line in the log that has `text`.
    pub(crate) fn wait_for(&self, text: &str) -> Result<()> {
        let what = format!("the agent says {text:?}");
        self.process()?.wait(&what, |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> Vec<String> {
        self.running.as_ref().map(Process::lines).unwrap_or_default()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(self.process()?.id())
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process()?.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib * 1024)
    }

    /// Its files of state: name, length and time of last change.
    pub(crate) fn state(&self) -> Result<Vec<(String, u64, SystemTime)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let metadata = fs::metadata(entry)?;
            files.push((name.to_string_lossy().into_owned(), metadata.len(), metadata.modified()?));
        }
        files.sort();
        Ok(files)
    }

    /// How many bytes of messages it has on the disk: the database and its log.
    pub(crate) fn state_bytes(&self) -> Result<u64> {
        let files = self.state()?.into_iter().filter(|(name, ..)| name.starts_with("outbox.db"));
        Ok(files.map(|(_, length, _)| length).sum())
    }

    /// Puts a file that is no database in its database's place.
    pub(crate) fn damage_state(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("outbox.db"), vec![0x5A; 40_000])?)
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) -> Result<()> {
        self.process()?.signal(Signal::HUP)
    }

    /// SIGTERM; waits for its end.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(Signal::TERM)
    }

    /// SIGKILL; waits for its end.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.running.take().ok_or("the agent does not run")?.end(signal)
    }

    fn process(&self) -> Result<&Process> {
        self.running.as_ref().ok_or_else(|| "the agent does not run".into())
    }
}

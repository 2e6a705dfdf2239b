//! A real mosquitto on a port of its own, and real subscribers to it.
//!
//! Nothing here sleeps: mosquitto's own log says when it listens and when a subscription stands.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::pki::{Files, Result};
use super::process::{Output, Process};

/// A broker that demands a client certificate of everybody. It is killed with this handle.
pub(crate) struct Mosquitto {
    address: SocketAddr,
    config: PathBuf,
    running: Option<Process>,
}

/// A message as a subscriber got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) retain: bool,
    pub(crate) qos: u64,
}

/// A `mosquitto_sub`, which outlives the broker's restarts and misses nothing in them. It is killed with this handle.
///
/// It ends by itself where the broker goes away just while it connects; then it is started again, under the name that
/// the broker has kept its messages for.
pub(crate) struct Subscriber {
    process: Process,
    /// The messages in what it prints.
    read: fn(&[String]) -> Vec<Message>,
}

impl Mosquitto {
    /// Starts one on a free port, with its state in `dir`. `extra` goes into its configuration as it is.
    pub(crate) fn start(dir: &Path, server: &Files, extra: &str) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, dir, server, extra)
    }

    /// As `start`, at an address of loopback. One that nobody else has keeps others from its port while it is stopped.
    pub(crate) fn start_at(host: Ipv4Addr, dir: &Path, server: &Files, extra: &str) -> Result<Self> {
        let address = TcpListener::bind((host, 0))?.local_addr()?;
        let config = dir.join("mosquitto.conf");
        let text = format!(
            "listener {} {host}\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
             allow_anonymous true\nuser root\npersistence true\npersistence_location {}/\nlog_dest stderr\n\
             log_type all\nmax_queued_messages 0\n{extra}\n",
            address.port(),
            server.ca.display(),
            server.cert.display(),
            server.key.display(),
            dir.display(),
        );
        fs::write(&config, text)?;
        let mut broker = Self { address, config, running: None };
        broker.restart()?;
        Ok(broker)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it in order, which saves its sessions.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(process) = self.running.take() {
            process.end(Signal::TERM)?;
        }
        Ok(())
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let program = program("mosquitto", "/usr/sbin/mosquitto")?;
        let process = Process::start(Command::new(program).arg("-c").arg(&self.config), Output::Stderr)?;
        process.wait("mosquitto listens", |lines| lines.iter().any(|line| line.ends_with(" running")))?;
        self.running = Some(process);
        Ok(())
    }

    /// Has it hang: connections stand, and nothing is answered.
    pub(crate) fn pause(&self) -> Result<()> {
        self.running.as_ref().ok_or("mosquitto is stopped")?.signal(Signal::STOP)
    }

    /// Has it go on after a pause.
    pub(crate) fn resume(&self) -> Result<()> {
        self.running.as_ref().ok_or("mosquitto is stopped")?.signal(Signal::CONT)
    }

    /// What it has logged since it was started.
    pub(crate) fn log(&self) -> Vec<String> {
        self.running.as_ref().map(Process::lines).unwrap_or_default()
    }

    /// From its next start on this line is in its configuration, or no longer.
    pub(crate) fn configure(&self, line: &str, there: bool) -> Result<()> {
        let text = fs::read_to_string(&self.config)?.replace(&format!("{line}\n"), "");
        let text = if there { format!("{text}{line}\n") } else { text };
        Ok(fs::write(&self.config, text)?)
    }

    /// From its next start on it logs no packets.
    pub(crate) fn quieten(&self) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        Ok(fs::write(&self.config, text.replace("log_type all", "log_type information"))?)
    }

    /// Subscribes with QoS 1, under a `name` that no other subscriber has; retained messages come first.
    pub(crate) fn subscribe(&self, client: &Files, name: &str, topic: &str) -> Result<Subscriber> {
        self.subscribe_sifted(client, name, topic, |_| true)
    }

    /// As `subscribe`, and keeps only what `keep` says yes to. It sees every line that mosquitto_sub prints, in order.
    pub(crate) fn subscribe_sifted(
        &self,
        client: &Files,
        name: &str,
        topic: &str,
        keep: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Result<Subscriber> {
        let mut command = listener(self.address, client, "5", name, topic)?;
        command.args(["-x", "4294967295"]);
        let process = Process::start_sifted(&mut command, Output::Stdout, keep)?;
        let broker = self.running.as_ref().ok_or("mosquitto is stopped")?;
        let told = format!(" Sending SUBACK to {name}");
        broker.wait("the subscription stands", |lines| lines.iter().any(|line| line.ends_with(&told)))?;
        Ok(Subscriber::new(process, printed))
    }
}

impl Subscriber {
    /// A program that prints what it gets, and how that is read.
    pub(crate) fn new(process: Process, read: fn(&[String]) -> Vec<Message>) -> Self {
        Self { process, read }
    }

    /// What it has got so far.
    pub(crate) fn messages(&self) -> Vec<Message> {
        (self.read)(&self.process.lines())
    }

    /// Blocks until what it has got is enough, and returns it.
    pub(crate) fn wait(
        &self,
        what: &str,
        mut enough: impl FnMut(&[Message]) -> bool,
    ) -> Result<Vec<Message>> {
        self.process.wait(what, |lines| enough(&(self.read)(lines)))?;
        Ok(self.messages())
    }
}

/// A `mosquitto_sub` for whatever broker is at `address`, started again where it ends by itself.
pub(crate) fn listener(
    address: SocketAddr,
    client: &Files,
    protocol: &str,
    name: &str,
    topic: &str,
) -> Result<Command> {
    let host = match address.ip() {
        ip if ip == Ipv4Addr::LOCALHOST => "localhost".to_owned(),
        ip => ip.to_string(),
    };
    let mut command = Command::new("sh");
    command
        .args(["-c", "while :; do setpriv --pdeathsig KILL \"$@\"; sleep 0.1; done", "sh"])
        .arg(program("mosquitto_sub", "/usr/bin/mosquitto_sub")?)
        .args(["-h", &host, "-p", &address.port().to_string(), "-V", protocol, "-q", "1", "-F", "%j"])
        .args(["-i", name, "-c", "-t", topic])
        .arg("--cafile")
        .arg(&client.ca)
        .arg("--cert")
        .arg(&client.cert)
        .arg("--key")
        .arg(&client.key);
    Ok(command)
}

/// The messages in what `mosquitto_sub` prints.
pub(crate) fn printed(lines: &[String]) -> Vec<Message> {
    let message = |line: &String| {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(Message {
            topic: json["topic"].as_str()?.to_owned(),
            payload: match &json["payload"] {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            },
            retain: json["retain"].as_u64()? == 1,
            qos: json["qos"].as_u64()?,
        })
    };
    lines.iter().filter_map(message).collect()
}

fn program(name: &str, usual: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(name)).chain([PathBuf::from(usual)]);
    places.find(|place| place.is_file()).ok_or_else(|| {
        format!("{name} is not installed: `apt-get install mosquitto mosquitto-clients`; this test cannot do without")
            .into()
    })
}

//! A real RabbitMQ with its MQTT plugin: a node of its own, with its own directories, ports, cookie and port mapper, so
//! that nothing of the system's is touched.
//!
//! It takes MQTT 3.1.1 over TLS from clients with a certificate, whose common name is their user. What is published below
//! `weir/` goes into the AMQP queue `cloud`, which is bound to `amq.topic`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::mosquitto::{Message, Subscriber};
use super::pki::{Files, Result};
use super::process::{Output, Process};
use super::python;

/// Debian's own start script; the one in /usr/sbin changes to the system's user and directories.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The one who reads the queue, and the hash of his password, which is his name: four bytes of salt, and SHA-256 of them
/// and the password.
const READER: &str = "reader";
const HASH: &str = "d2VpcmXHUznlA+Zw208klC6s8zxGztba4c0MFKVH83PT+zE4";

/// A broker. It is killed with this handle, and its port mapper with it.
pub(crate) struct RabbitMq {
    dir: PathBuf,
    host: IpAddr,
    mqtt: u16,
    amqp: u16,
    distribution: u16,
    mapper_port: u16,
    running: Option<Process>,
    _mapper: Process,
}

impl RabbitMq {
    /// Starts one at an address of loopback that nobody else has, with its state in `dir`, for clients of these names.
    pub(crate) fn start(dir: &Path, host: IpAddr, server: &Files, clients: &[&str]) -> Result<Self> {
        let dir = dir.join("rabbitmq");
        fs::create_dir(&dir)?;
        let free = |host| Ok::<_, std::io::Error>(TcpListener::bind((host, 0))?.local_addr()?.port());
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let (mqtt, amqp, distribution, mapper_port) = (free(host)?, free(host)?, free(host)?, free(local)?);
        let config = format!(
            "listeners.tcp.1 = {host}:{amqp}\nload_definitions = {dir}/definitions.json\n\
             mqtt.listeners.tcp = none\nmqtt.listeners.ssl.1 = {host}:{mqtt}\nmqtt.allow_anonymous = false\n\
             mqtt.ssl_cert_login = true\nssl_cert_login_from = common_name\n\
             ssl_options.cacertfile = {ca}\nssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n\
             ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
            dir = dir.display(),
            ca = server.ca.display(),
            cert = server.cert.display(),
            key = server.key.display(),
        );
        fs::write(dir.join("rabbitmq.conf"), config)?;
        fs::write(dir.join("enabled_plugins"), "[rabbitmq_mqtt].\n")?;
        fs::write(dir.join("definitions.json"), definitions(clients).to_string())?;

        let mut mapper = Command::new("epmd");
        mapper.args(["-address", "127.0.0.1", "-port", &mapper_port.to_string(), "-d"]);
        let mapper = Process::start(&mut mapper, Output::Stderr).map_err(|error| missing(&error))?;
        mapper.wait("epmd listens", |lines| lines.iter().any(|line| line.contains("epmd running")))?;
        let mut broker =
            Self { dir, host, mqtt, amqp, distribution, mapper_port, running: None, _mapper: mapper };
        broker.restart()?;
        Ok(broker)
    }

    /// Where it takes MQTT.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        (self.host, self.mqtt).into()
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(process) = self.running.take() {
            process.end(Signal::TERM)?;
        }
        Ok(())
    }

    /// Starts it again on the same ports.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let dir = &self.dir;
        let mut command = Command::new(SERVER);
        command.env_clear();
        command.envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")]);
        // Has the script become the server, so that signals get there.
        command.env("detached", "yes");
        command.env("ERL_EPMD_PORT", self.mapper_port.to_string());
        command.env("RABBITMQ_DIST_PORT", self.distribution.to_string());
        let interface = self.host.to_string().replace('.', ",");
        command.env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            format!("-kernel inet_dist_use_interface {{{interface}}}"),
        );
        command.envs([("RABBITMQ_NODENAME", "weir@localhost"), ("RABBITMQ_LOGS", "-")]);
        for (variable, file) in [
            ("HOME", ""),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_CONFIG_FILES", "none"),
            ("RABBITMQ_CONF_ENV_FILE", "none"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "none.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "pid"),
        ] {
            command.env(variable, dir.join(file));
        }
        let process = Process::start(&mut command, Output::Stdout).map_err(|error| missing(&error))?;
        process.wait("RabbitMQ is up", |lines| lines.iter().any(|line| line.contains("startup complete")))?;
        self.running = Some(process);
        Ok(())
    }

    /// Reads the queue, and goes on after restarts.
    pub(crate) fn read(&self) -> Result<Subscriber> {
        let mut command = python::script("amqp_reader.py")?;
        command.args([&self.host.to_string(), &self.amqp.to_string(), READER, "cloud"]);
        Ok(Subscriber::new(Process::start(&mut command, Output::Stdout)?, printed))
    }
}

/// The messages in what `amqp_reader.py` prints. AMQP has dots for a topic's slashes.
fn printed(lines: &[String]) -> Vec<Message> {
    let message = |line: &String| {
        let (key, payload) = line.split_once(' ')?;
        Some(Message { topic: key.replace('.', "/"), payload: payload.to_owned(), retain: false, qos: 1 })
    };
    lines.iter().filter_map(message).collect()
}

fn definitions(clients: &[&str]) -> serde_json::Value {
    let user = |name: &str, hash: &str| {
        let algorithm = "rabbit_password_hashing_sha256";
        serde_json::json!({"name": name, "password_hash": hash, "hashing_algorithm": algorithm, "tags": ""})
    };
    let all = |name: &str| serde_json::json!({"user": name, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"});
    let users = clients.iter().map(|name| user(name, "")).chain([user(READER, HASH)]);
    let permissions = clients.iter().copied().chain([READER]).map(all);
    serde_json::json!({
        "vhosts": [{"name": "/"}],
        "users": users.collect::<Vec<_>>(),
        "permissions": permissions.collect::<Vec<_>>(),
        "queues": [{"name": "cloud", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}],
        "bindings": [{"source": "amq.topic", "vhost": "/", "destination": "cloud", "destination_type": "queue",
            "routing_key": "weir.#", "arguments": {}}],
    })
}

fn missing(error: &dyn std::fmt::Display) -> String {
    format!("{error}: is RabbitMQ installed? `apt-get install rabbitmq-server`; this test cannot do without")
}

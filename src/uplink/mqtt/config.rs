//! `[uplink]` with `type = "mqtt"`.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::Deserialize;

use super::auth::Auth;
use super::topics;
use crate::tls;
use crate::units::{self, Size};

/// `[uplink]` with `type = "mqtt"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `mqtts://host:port`, or `mqtt://host:port` to loopback only. Ports default to 8883 and 1883.
    pub url: Option<Url>,
    /// Instead of `url`: the broker, and those that stand by for it, in the order of trying.
    #[serde(default)]
    pub urls: Vec<Url>,
    /// Which MQTT.
    #[serde(default)]
    pub protocol: Protocol,
    /// The client identifier; by default the gateway's id.
    pub client_id: Option<String>,
    /// The topic of data, with `{gateway}` and `{device}`.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// What data is sent with. Status and gap records are sent with at least QoS 1 always.
    #[serde(default)]
    pub qos: Qos,
    /// How often the broker hears of us at least; 5 s to 18 h.
    #[serde(default = "default_keep_alive", deserialize_with = "units::duration")]
    pub keep_alive: Duration,
    /// Publications that may be unanswered at once; 1 to 1000. The broker may lower it, and QoS 2 over
    /// 3.1.1 does, to 16.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: u16,
    /// Payload bytes that may be unanswered at once. One publication is always allowed.
    #[serde(default = "default_max_in_flight_bytes")]
    pub max_in_flight_bytes: Size,
    /// How long a publication may go unanswered before the connection is given up; at least 1 s.
    #[serde(default = "default_ack_timeout", deserialize_with = "units::duration")]
    pub ack_timeout: Duration,
    /// Certificates; needed for `mqtts://`.
    pub tls: Option<tls::Config>,
    /// A user name and password beside the certificate.
    pub auth: Option<Auth>,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// MQTT 5: the broker says why it refuses something.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1: a broker acknowledges what it then drops.
    #[serde(rename = "3.1.1")]
    V311,
}

/// A quality of service, written 0, 1 or 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u8")]
pub enum Qos {
    /// Written to the connection and then forgotten: what a broken connection swallows is lost unseen.
    AtMostOnce,
    /// Acknowledged; may arrive twice.
    #[default]
    AtLeastOnce,
    /// Acknowledged in two steps; the broker itself does not pass it on twice.
    ExactlyOnce,
}

impl TryFrom<u8> for Qos {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(format!("{other} is no quality of service: write 0, 1 or 2")),
        }
    }
}

fn default_topic() -> String {
    "weir/{gateway}/data/{device}".to_owned()
}

fn default_keep_alive() -> Duration {
    Duration::from_secs(30)
}

fn default_max_in_flight() -> u16 {
    64
}

fn default_max_in_flight_bytes() -> Size {
    Size(32 << 10)
}

fn default_ack_timeout() -> Duration {
    Duration::from_secs(60)
}

/// A 3.1.1 broker cannot say how many QoS 2 publications it takes at once. mosquitto takes 20 and then closes the
/// connection; some room is left for what else is on its way.
const QOS_2_WINDOW_311: u16 = 16;

impl Config {
    /// How many publications may be unanswered at once, before the broker has had its say.
    pub(super) fn window(&self) -> u16 {
        match (self.protocol, self.qos) {
            (Protocol::V311, Qos::ExactlyOnce) => self.max_in_flight.min(QOS_2_WINDOW_311),
            _ => self.max_in_flight,
        }
    }

    pub(in crate::uplink) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match (&self.url, &self.urls[..]) {
            (Some(_), [_, ..]) => problems.push((
                "urls",
                "`url` and `urls` exclude each other: write all brokers into `urls`, in the order of trying"
                    .to_owned(),
            )),
            (None, []) => problems.push((
                "url",
                "it is nowhere said where the broker is: write `url = \"mqtts://broker.example.com:8883\"`, or \
                 several as `urls`"
                    .to_owned(),
            )),
            (Some(_), []) | (None, _) => {}
        }
        let key = if self.url.is_some() { "url" } else { "urls" };
        let brokers = self.brokers();
        if self.tls.is_none() && brokers.iter().any(|url| url.tls) {
            let help = "mqtts:// needs certificates: add `tls = { ca = \"…\", cert = \"…\", key = \"…\" }`";
            problems.push((key, help.to_owned()));
        }
        if self.tls.is_some() && !brokers.is_empty() && brokers.iter().all(|url| !url.tls) {
            problems.push((
                "tls",
                "mqtt:// does not use certificates: use mqtts://, or leave `tls` out".to_owned(),
            ));
        }
        if let Err(problem) = topics::check(&self.topic) {
            problems.push(("topic", problem));
        }
        if let Some(id) = &self.client_id {
            if id.is_empty() || id.len() > usize::from(u16::MAX) || id.contains(char::is_control) {
                problems.push((
                    "client_id",
                    "a client id is 1 to 65535 bytes without control characters".to_owned(),
                ));
            }
        }
        // MQTT counts whole seconds in 16 bits; below 5 s a slow link would be taken for a dead one.
        if !(Duration::from_secs(5)..=Duration::from_secs(u64::from(u16::MAX))).contains(&self.keep_alive) {
            problems.push(("keep_alive", "must be between \"5s\" and \"18h\"".to_owned()));
        }
        if !(1..=1000).contains(&self.max_in_flight) {
            problems.push(("max_in_flight", "must be between 1 and 1000".to_owned()));
        }
        if self.ack_timeout < Duration::from_secs(1) {
            problems.push(("ack_timeout", "must be at least \"1s\"".to_owned()));
        }
        let tls = self.tls.iter().flat_map(tls::Config::problems);
        problems.extend(tls.map(|(key, problem)| (if key == "alpn" { "tls.alpn" } else { "tls" }, problem)));
        problems.extend(self.auth.iter().flat_map(Auth::problems));
        problems
    }

    /// The brokers, in the order of trying: at least one where there are no [`Config::problems`].
    pub(super) fn brokers(&self) -> Vec<Url> {
        self.url.iter().chain(&self.urls).cloned().collect()
    }

    /// What it says, in lines for a person: what each is about, and what it says of that.
    pub(in crate::uplink) fn summary(&self) -> Vec<(&'static str, String)> {
        let brokers: Vec<_> = self.brokers().iter().map(Url::to_string).collect();
        let protocol = match self.protocol {
            Protocol::V5 => "5",
            Protocol::V311 => "3.1.1",
        };
        let uplink = format!("{}, MQTT {protocol}, QoS {}", brokers.join(", then "), self.qos as u8);
        let certificate = self.tls.as_ref().map(|tls| format!("the certificate in {}", tls.cert.display()));
        let auth: Vec<_> = certificate.into_iter().chain(self.auth.as_ref().map(Auth::summary)).collect();
        let auth = if auth.is_empty() { "none".to_owned() } else { auth.join(", and ") };
        vec![("uplink", uplink), ("auth", auth)]
    }

    pub(in crate::uplink) fn absent(&self) -> Vec<(&'static str, String)> {
        let path = |key| match key {
            "ca" => "tls.ca",
            "cert" => "tls.cert",
            _ => "tls.key",
        };
        let files = self.tls.iter().flat_map(tls::Config::absent);
        let state = |file: &Path| if file.exists() { "is not a regular file" } else { "is not there yet" };
        let absent = files.map(|(key, file)| (path(key), format!("{} {}", file.display(), state(file))));
        let auth = self.auth.as_ref().and_then(Auth::absent);
        absent.chain(auth).chain(self.errors().filter(|(_, error)| error.of_user).map(told)).collect()
    }

    /// What is wrong with the files that are there.
    pub(in crate::uplink) fn unfit(&self) -> Vec<(&'static str, String)> {
        self.errors().filter(|(_, error)| !error.of_user).map(told).collect()
    }

    fn errors(&self) -> impl Iterator<Item = (&'static str, tls::Error)> {
        let tls = self.tls.as_ref().and_then(tls::Config::unfit).map(|error| ("tls", error));
        tls.into_iter().chain(self.auth.as_ref().and_then(Auth::unfit))
    }
}

fn told((key, error): (&'static str, tls::Error)) -> (&'static str, String) {
    (key, error.to_string())
}

/// Where the broker is, written `mqtts://host:port`, or `mqtt://host:port` to loopback.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    pub(super) tls: bool,
    /// A name or an address, the latter without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = Self::parse(&text)?;
        if url.tls || url.is_loopback() {
            return Ok(url);
        }
        let host = &url.host;
        Err(format!("mqtt:// sends in the clear and is for this machine only: use mqtts:// for {host}"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "mqtts" } else { "mqtt" }, self.peer())
    }
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what}: write it as mqtts://broker.example.com:8883");
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtts", rest)) => (true, rest),
            Some(("mqtt", rest)) => (false, rest),
            Some((other, _)) => return Err(wrong(&format!("`{other}` is no scheme of an MQTT url"))),
            None => return Err(wrong(&format!("`{text}` is no url"))),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '@', '#']) {
            return Err(wrong("an MQTT url has a host and a port only"));
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, None),
            Some((address, after)) => (address, Some(after.strip_prefix(':').unwrap_or(after))),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if ServerName::try_from(host).is_err() {
            return Err(wrong(&format!("`{host}` is no host name or address")));
        }
        let port = match port.map(str::parse) {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err(wrong("a port is a number from 1 to 65535")),
        };
        Ok(Self { tls, host: host.to_owned(), port })
    }

    /// Whether only this machine can be meant.
    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// `host:port`, as a person reads it.
    pub(super) fn peer(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Config {
        toml::from_str(toml).unwrap()
    }

    fn problems(toml: &str) -> Vec<(&'static str, String)> {
        config(toml).problems()
    }

    const TLS: &str = "tls = { ca = '/no/ca.pem', cert = '/no/gw.pem', key = '/no/gw.key' }";

    #[test]
    fn only_the_url_and_the_certificates_have_to_be_given() {
        let config = config(&format!("url = 'mqtts://broker.example.com'\n{TLS}"));
        assert_eq!(config.problems(), []);
        assert_eq!((config.protocol, config.qos), (Protocol::V5, Qos::AtLeastOnce));
        assert_eq!(
            config.absent().into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            ["tls.ca", "tls.cert", "tls.key"]
        );
    }

    #[test]
    fn a_broker_and_those_that_stand_by_for_it_are_tried_in_the_order_that_is_written() {
        let hosts = |toml: &str| -> Vec<String> {
            let config = config(toml);
            assert_eq!(config.problems(), [], "{toml}");
            config.brokers().into_iter().map(|url| url.peer()).collect()
        };
        assert_eq!(hosts(&format!("url = 'mqtts://a'\n{TLS}")), ["a:8883"]);
        assert_eq!(hosts(&format!("urls = ['mqtts://b:1', 'mqtts://a']\n{TLS}")), ["b:1", "a:8883"]);
        // A bridge on this machine before the broker itself.
        assert_eq!(hosts(&format!("urls = ['mqtt://[::1]', 'mqtts://a']\n{TLS}")), ["[::1]:1883", "a:8883"]);
    }

    #[test]
    fn either_url_or_urls_says_where_the_broker_is_and_each_is_checked() {
        let keys = |toml: &str| problems(toml).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys("url = 'mqtt://localhost'\nurls = ['mqtt://localhost']"), ["urls"]);
        assert_eq!(keys(""), ["url"]);
        assert_eq!(keys("urls = []"), ["url"]);
        assert_eq!(keys("urls = ['mqtt://localhost', 'mqtts://a']"), ["urls"]);
        assert_eq!(keys(&format!("urls = ['mqtt://localhost', 'mqtt://[::1]']\n{TLS}")), ["tls"]);
    }

    #[test]
    fn a_summary_names_the_brokers_in_their_order_and_how_the_gateway_shows_who_it_is() {
        let summary =
            |toml: &str| config(toml).summary().into_iter().map(|(_, says)| says).collect::<Vec<_>>();
        assert_eq!(
            summary(&format!("urls = ['mqtts://a', 'mqtts://[::1]:1']\nprotocol = '3.1.1'\nqos = 2\n{TLS}")),
            ["mqtts://a:8883, then mqtts://[::1]:1, MQTT 3.1.1, QoS 2", "the certificate in /no/gw.pem"]
        );
        let auth = "auth = { type = 'jwt', username = 'u', key = '/no/jwt.key', algorithm = 'ES256' }";
        assert_eq!(
            summary(&format!("url = 'mqtt://localhost'\n{auth}")),
            ["mqtt://localhost:1883, MQTT 5, QoS 1", "a token signed with /no/jwt.key (ES256, for 1h)"]
        );
        assert_eq!(summary("url = 'mqtt://localhost'")[1], "none");
    }

    #[test]
    fn what_is_no_regular_file_is_told_before_it_is_used() {
        let tls = "tls = { ca = '/dev/zero', cert = '/', key = '/no/gw.key' }";
        let absent = config(&format!("url = 'mqtts://broker.example.com'\n{tls}")).absent();
        let told: Vec<_> = absent.iter().map(|(_, what)| &**what).collect();
        assert_eq!(
            told,
            ["/dev/zero is not a regular file", "/ is not a regular file", "/no/gw.key is not there yet"]
        );
    }

    #[test]
    fn a_url_has_a_scheme_a_host_and_maybe_a_port() {
        let url = |text| Url::parse(text).map(|url| (url.tls, url.host, url.port));
        assert_eq!(url("mqtts://b.example:1"), Ok((true, "b.example".into(), 1)));
        assert_eq!(url("mqtts://10.0.0.1/"), Ok((true, "10.0.0.1".into(), 8883)));
        assert_eq!(url("mqtt://[::1]:99"), Ok((false, "::1".into(), 99)));
        assert_eq!(url("mqtt://[::1]"), Ok((false, "::1".into(), 1883)));
        for wrong in [
            "",
            "broker:8883",
            "http://b:1",
            "mqtts://",
            "mqtts://b:0",
            "mqtts://b:x",
            "mqtts://b:70000",
            "mqtts://me:secret@b:1",
            "mqtts://b:1/topic",
            "mqtts://::1:1",
            "mqtts://b c:1",
            "mqtts://[::1]1x",
        ] {
            assert!(Url::parse(wrong).unwrap_err().contains("mqtts://broker.example.com:8883"), "{wrong}");
        }
    }

    #[test]
    fn what_is_sent_in_the_clear_stays_on_this_machine() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert_eq!(problems(&format!("url = 'mqtt://{host}:1883'")), []);
        }
        for host in ["192.168.1.2", "broker.local", "localhost.example.com", "[fd00::1]", "0.0.0.0"] {
            let read: Result<Config, _> = toml::from_str(&format!("url = 'mqtt://{host}:1883'"));
            assert!(read.unwrap_err().to_string().contains("in the clear"), "{host}");
        }
        assert_eq!(problems("url = 'mqtts://broker'")[0].0, "url");
        assert_eq!(problems(&format!("url = 'mqtt://localhost'\n{TLS}"))[0].0, "tls");
    }

    #[test]
    fn every_value_out_of_its_range_is_told_at_once() {
        let found = problems(
            "url = 'mqtt://localhost'\nclient_id = ''\ntopic = 'weir'\nkeep_alive = '4s'\nmax_in_flight = 0\n\
             ack_timeout = '0s'",
        );
        let keys: Vec<_> = found.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["topic", "client_id", "keep_alive", "max_in_flight", "ack_timeout"]);
        let wrong: Result<Config, _> = toml::from_str("url = 'mqtt://localhost'\nqos = 3");
        assert!(wrong.unwrap_err().to_string().contains("write 0, 1 or 2"));
    }
}

//! What a refusal or a broken connection means, in plain words, and what to do about it.

use std::io;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason};

use super::config::Protocol;
use super::link::Failure;
use crate::tls;
use crate::uplink::{Broken, Lasting, LinkError};

/// What the words are about.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// The broker's `host:port`.
    pub(super) peer: String,
    /// How long it may take to accept.
    pub(super) within: Duration,
    /// Where TLS is spoken, what it has to be, as [`tls::Config::allows`] says.
    pub(super) tls: Option<String>,
    /// Where there is a user name, what comes with it.
    pub(super) auth: Option<&'static str>,
    pub(super) protocol: Protocol,
    pub(super) client_id: String,
}

impl Context {
    /// Why no connection came about.
    pub(super) fn not_connected(&self, failure: Failure, now: tls::Now) -> LinkError {
        let peer = &self.peer;
        match failure {
            Failure::Refused(code) => self.refused(code),
            Failure::Timeout => error(
                format!("{peer} did not answer within {} s", self.within.as_secs()),
                "is the network up, and does a firewall let this port through?",
            ),
            // The alert that says why may be lost with the connection.
            Failure::Io(cause) if is_end(&cause) => self.not_connected(Failure::Closed, now),
            Failure::Closed if self.tls.is_some() => error(
                format!("{peer} closed the connection before it accepted it"),
                "the broker's log may say why: often it does not accept the client certificate",
            ),
            Failure::Closed => error(
                format!("{peer} closed the connection before it accepted it"),
                "is that a broker's port without TLS? The broker's log may say more",
            ),
            Failure::Protocol(what) => {
                let (spoken, other) = match self.protocol {
                    Protocol::V5 => ("5", "3.1.1"),
                    Protocol::V311 => ("3.1.1", "5"),
                };
                let port = if peer.ends_with(":443") {
                    "; behind port 443 brokers often want `tls.alpn`"
                } else {
                    ""
                };
                error(
                    format!("{peer} does not answer as an MQTT {spoken} broker ({what})"),
                    format!("try `protocol = \"{other}\"`, and see that the port is the broker's{port}"),
                )
            }
            failure => self.broken(failure, now),
        }
    }

    /// How a session ended.
    pub(super) fn ended(&self, failure: Failure, now: tls::Now) -> Broken {
        let closed = closes_on_a_message(&failure);
        let error = self.broken(failure, now);
        if closed { Broken::Closed(error) } else { Broken::Lost(error) }
    }

    /// Why a connection ended.
    fn broken(&self, failure: Failure, now: tls::Now) -> LinkError {
        let peer = &self.peer;
        match failure {
            Failure::Io(cause) => match tls::within(&cause) {
                Some(cause) => tls::explain(cause, peer, now, self.allows()).into(),
                None => self.io(&cause),
            },
            Failure::Dismissed(code, text) => self.dismissed(code, text),
            Failure::Closed => error(
                format!("{peer} closed the connection"),
                format!(
                    "the broker's log may say why; has another client the client id `{}`?",
                    self.client_id
                ),
            ),
            Failure::Timeout => LinkError { what: format!("{peer} no longer answers"), hint: None },
            Failure::Protocol(what) => error(
                format!("{peer} broke the rules of MQTT ({what})"),
                "see what the broker's log says of it",
            ),
            Failure::Refused(code) => self.refused(code),
        }
    }

    fn allows(&self) -> &str {
        self.tls.as_deref().unwrap_or_default()
    }

    fn io(&self, cause: &io::Error) -> LinkError {
        use io::ErrorKind as K;
        let peer = &self.peer;
        match cause.kind() {
            K::ConnectionRefused => error(
                format!("nothing listens on {peer}"),
                "is the broker running, and is the port in `url` right?",
            ),
            K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown | K::AddrNotAvailable => error(
                format!("there is no way to {peer} ({cause})"),
                "is the network up, and is the host in `url` right?",
            ),
            K::TimedOut => error(
                format!("{peer} did not answer"),
                "is the network up, and does a firewall let this port through?",
            ),
            _ if is_end(cause) => {
                let hint = "it may be restarting; its log may say why";
                error(format!("{peer} closed the connection"), hint)
            }
            _ if is_lookup(cause) => error(
                format!("the name in {peer} cannot be found ({cause})"),
                "is the network up, does name resolution work, and is the host in `url` right?",
            ),
            _ => error(format!("the connection to {peer} failed ({cause})"), "is the network up?"),
        }
    }

    fn refused(&self, code: ConnectReturnCode) -> LinkError {
        use ConnectReturnCode as C;
        let Self { peer, client_id, .. } = self;
        // Brokers differ in which of the two they say of a wrong password.
        if let (C::NotAuthorized | C::BadUserNamePassword, Some(auth)) = (code, self.auth) {
            return error(
                format!("{peer} refused the connection: it does not take the user name, or not {auth}"),
                "see that both are as whoever runs the broker has them, and that this gateway is registered there",
            );
        }
        let (why, hint) = match code {
            C::NotAuthorized => (
                "this gateway is not authorised".to_owned(),
                "let whoever runs the broker register it; some brokers want the certificate's common name as client id",
            ),
            C::BadUserNamePassword => (
                "it wants a user name and password".to_owned(),
                "set `auth`, or let it identify clients by their certificate (mosquitto: \
                 `use_identity_as_username true`)",
            ),
            C::BadClientId | C::ClientIdentifierNotValid => (
                format!("it does not accept the client id `{client_id}`"),
                "set `client_id` to one that it accepts",
            ),
            C::ServiceUnavailable | C::ServerUnavailable | C::ServerBusy => {
                ("it is not available now".to_owned(), "weir tries again; nothing is to be done here")
            }
            C::Banned => {
                ("this gateway is banned".to_owned(), "ask whoever runs the broker why, and to lift the ban")
            }
            C::RefusedProtocolVersion | C::UnsupportedProtocolVersion => match self.protocol {
                Protocol::V5 => ("it does not speak MQTT 5".to_owned(), "set `protocol = \"3.1.1\"`"),
                Protocol::V311 => ("it does not speak MQTT 3.1.1".to_owned(), "set `protocol = \"5\"`"),
            },
            C::QuotaExceeded | C::ConnectionRateExceeded => {
                ("a limit on connections is reached".to_owned(), "raise the broker's limit, or wait")
            }
            C::QoSNotSupported => (
                "it does not take QoS 1, with which weir reports its status".to_owned(),
                "use a broker that does: without acknowledgements nothing can be promised",
            ),
            C::RetainNotSupported => (
                "it does not take retained messages, with which weir reports its status".to_owned(),
                "allow retained messages in the broker",
            ),
            C::TopicNameInvalid => (
                "it does not allow this gateway's status topic".to_owned(),
                "allow weir/+/status in the broker's access rules",
            ),
            C::UseAnotherServer | C::ServerMoved => {
                ("it has moved".to_owned(), "ask where to, and correct `url`")
            }
            other => (format!("{other:?}"), "see what the broker's log says of it"),
        };
        error(format!("{peer} refused the connection: {why}"), hint)
    }

    fn dismissed(&self, code: DisconnectReasonCode, text: Option<String>) -> LinkError {
        use DisconnectReasonCode as D;
        let Self { peer, client_id, .. } = self;
        let (why, hint) = match code {
            D::SessionTakenOver => (
                format!("another client has connected with the client id `{client_id}`"),
                Some("give every gateway its own: two with the same id throw each other out for ever"),
            ),
            D::ServerShuttingDown => ("it is shutting down".to_owned(), None),
            D::NotAuthorized => (
                "this gateway is not authorised for something that it sent".to_owned(),
                Some("allow it to publish on its topics in the broker's access rules"),
            ),
            D::KeepAliveTimeout => (
                "it has not heard of this gateway in time".to_owned(),
                Some("is the network slow? Raise `keep_alive`"),
            ),
            D::PacketTooLarge => {
                ("a packet was too large for it".to_owned(), Some("raise the broker's limit"))
            }
            D::QuotaExceeded | D::MessageRateTooHigh | D::ConnectionRateExceeded => {
                ("a limit of its was exceeded".to_owned(), Some("raise the broker's limit, or send less"))
            }
            D::ServerBusy => ("it is too busy".to_owned(), None),
            D::AdministrativeAction => ("somebody there ended the connection".to_owned(), None),
            other => (format!("{other:?}"), Some("see what the broker's log says of it")),
        };
        let text = text.map(|text| format!(" ({})", quoted(&text))).unwrap_or_default();
        LinkError { what: format!("{peer} ended the connection: {why}{text}"), hint: hint.map(str::to_owned) }
    }
}

/// Whether the broker closed the connection, and what it was sent may be why. Version 3.1.1 cannot say; where version 5
/// says it, only what a publication can be to blame for counts.
fn closes_on_a_message(failure: &Failure) -> bool {
    use DisconnectReasonCode as D;
    use io::ErrorKind as K;
    match failure {
        Failure::Closed => true,
        // A broker that closes with something unread left resets the connection.
        Failure::Io(cause) => {
            let closed = [K::ConnectionReset, K::ConnectionAborted, K::BrokenPipe, K::UnexpectedEof];
            closed.contains(&cause.kind()) && tls::within(cause).is_none()
        }
        // It has its own reasons, whatever it was sent.
        Failure::Dismissed(code, _) => !matches!(
            code,
            D::ServerBusy
                | D::ServerShuttingDown
                | D::KeepAliveTimeout
                | D::SessionTakenOver
                | D::MessageRateTooHigh
                | D::QuotaExceeded
                | D::AdministrativeAction
                | D::UseAnotherServer
                | D::ServerMoved
                | D::ConnectionRateExceeded
                | D::MaximumConnectTime
        ),
        // An answer that MQTT does not know may be its answer to that message.
        Failure::Protocol(_) => true,
        _ => false,
    }
}

/// What a broker means that answers a publication with `reason`, and the text that it may have added.
///
/// For good is what the same publication will be answered with again until a person changes something: it lies among
/// the dead letters until then, so that it does not hold up the rest. What time mends holds for now.
pub(super) fn refusal(reason: PubAckReason, text: Option<String>) -> (Lasting, String) {
    use PubAckReason as R;
    let (lasting, words) = match reason {
        R::NotAuthorized => (Lasting::Forever, "not authorised to publish on this topic".to_owned()),
        R::QuotaExceeded => (Lasting::Retry, "a quota of the broker is exceeded".to_owned()),
        R::PacketIdentifierInUse => {
            (Lasting::Retry, "the broker holds the packet id to be in use".to_owned())
        }
        R::TopicNameInvalid => (Lasting::Forever, "the broker does not accept the topic".to_owned()),
        R::PayloadFormatInvalid => (Lasting::Forever, "the broker does not accept the payload".to_owned()),
        R::UnspecifiedError | R::ImplementationSpecificError | R::Success | R::NoMatchingSubscribers => {
            (Lasting::Retry, "the broker does not take it and does not say why".to_owned())
        }
    };
    match text {
        Some(text) => (lasting, format!("{words} ({})", quoted(&text))),
        None => (lasting, words),
    }
}

/// What it means that a broker has forgotten a publication in the middle of QoS 2.
pub(super) fn forgotten() -> (Lasting, String) {
    (Lasting::Retry, "the broker forgot it before it was complete".to_owned())
}

/// A broker's own text, kept from breaking a line of the log or filling it.
fn quoted(text: &str) -> String {
    format!("it says {:?}", text.chars().take(200).collect::<String>())
}

fn error(what: impl Into<String>, hint: impl Into<String>) -> LinkError {
    LinkError { what: what.into(), hint: Some(hint.into()) }
}

/// Whether the other side has ended the connection.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof)
}

/// Whether a name lookup failed: the standard library has no kind for that, only this text.
fn is_lookup(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.to_string().contains("lookup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::ToSocketAddrs;

    fn context() -> Context {
        let (peer, client_id) = ("broker.example:8883".to_owned(), "gw-042".to_owned());
        let allows = "TLS 1.2 or 1.3 with its usual ciphers".to_owned();
        let within = Duration::from_secs(30);
        Context { peer, within, tls: Some(allows), auth: None, protocol: Protocol::V5, client_id }
    }

    fn told(failure: Failure) -> String {
        context().not_connected(failure, tls::Now { unix: 0, trusted: true }).to_string()
    }

    #[test]
    fn a_failed_name_lookup_is_known_by_the_standard_librarys_own_error() {
        // An empty label: refused without asking anybody.
        let error = "a..b:1".to_socket_addrs().unwrap_err();
        assert!(told(Failure::Io(error)).starts_with("the name in broker.example:8883 cannot be found"));
    }

    #[test]
    fn what_the_network_says_is_told_with_the_brokers_name_and_what_to_look_at() {
        for (code, words) in [
            (libc::ECONNREFUSED, "nothing listens on broker.example:8883"),
            (libc::EHOSTUNREACH, "there is no way to broker.example:8883"),
            (libc::ENETUNREACH, "there is no way to broker.example:8883"),
            (libc::ETIMEDOUT, "broker.example:8883 did not answer"),
            (libc::ECONNRESET, "broker.example:8883 closed the connection"),
            (libc::EIO, "the connection to broker.example:8883 failed"),
        ] {
            let told = told(Failure::Io(io::Error::from_raw_os_error(code)));
            assert!(told.starts_with(words) && told.contains(": "), "{told}");
        }
        assert!(told(Failure::Timeout).starts_with("broker.example:8883 did not answer within 30 s"));
        for failure in [Failure::Closed, Failure::Io(io::ErrorKind::UnexpectedEof.into())] {
            assert!(told(failure).contains("client certificate"));
        }
        assert!(told(Failure::Protocol("x".into())).contains("try `protocol = \"3.1.1\"`"));
    }

    #[test]
    fn only_an_end_that_a_publication_can_be_to_blame_for_counts_as_closed_on_one() {
        use DisconnectReasonCode as D;
        let closed = |failure| {
            matches!(context().ended(failure, tls::Now { unix: 0, trusted: true }), Broken::Closed(_))
        };
        let broken = |code| Failure::Io(io::Error::from_raw_os_error(code));
        assert!(closed(Failure::Closed));
        assert!(closed(broken(libc::ECONNRESET)) && closed(broken(libc::EPIPE)));
        assert!(closed(Failure::Io(io::ErrorKind::UnexpectedEof.into())));
        assert!(closed(Failure::Protocol("an answer that MQTT does not know".into())));
        for code in [
            D::PacketTooLarge,
            D::MalformedPacket,
            D::ProtocolError,
            D::NotAuthorized,
            D::ReceiveMaximumExceeded,
            D::NormalDisconnection,
        ] {
            assert!(closed(Failure::Dismissed(code, None)), "{code:?}");
        }
        for code in [
            D::ServerBusy,
            D::ServerShuttingDown,
            D::KeepAliveTimeout,
            D::SessionTakenOver,
            D::MessageRateTooHigh,
            D::QuotaExceeded,
            D::AdministrativeAction,
            D::UseAnotherServer,
            D::MaximumConnectTime,
        ] {
            assert!(!closed(Failure::Dismissed(code, None)), "{code:?}");
        }
        for code in [libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETDOWN] {
            assert!(!closed(broken(code)), "{code}");
        }
        let refused = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        assert!(!closed(Failure::Io(io::Error::new(io::ErrorKind::InvalidData, refused))));
        assert!(!closed(Failure::Timeout));
    }

    #[test]
    fn a_brokers_own_text_cannot_break_a_line_of_the_log_or_fill_it() {
        let (_, reason) = refusal(PubAckReason::QuotaExceeded, Some(format!("a\nb{}", "x".repeat(1000))));
        assert!(reason.contains("it says \"a\\nbxxx") && reason.len() < 300, "{reason}");
    }
}

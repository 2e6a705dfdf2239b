//! MQTT 3.1.1 by rumqttc.

use rumqttc::v5::mqttbytes::v5::ConnectReturnCode as Code;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, Incoming, LastWill, MqttOptions, Outgoing, QoS,
    StateError, TlsConfiguration, TlsError, Transport, mqttbytes,
};

use super::config::Qos;
use super::link::{CONNECT_WITHIN, Client, Connected, EventLoop, Failure, Options, PACKET_MAX, Signal};

pub(super) async fn connect(options: Options) -> Result<Connected, Failure> {
    let will = options.will;
    let mut mqtt = MqttOptions::new(options.client_id, options.host, options.port);
    mqtt.set_clean_session(true)
        .set_keep_alive(options.keep_alive)
        .set_inflight(options.ids)
        .set_last_will(LastWill::new(will.topic, will.payload, qos(will.qos), will.retain));
    let incoming_max = mqtt.max_packet_size();
    mqtt.set_max_packet_size(incoming_max, PACKET_MAX);
    if let Some(tls) = options.tls {
        mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    // A DISCONNECT goes behind as many publications as there are ids.
    let (client, mut event_loop) = AsyncClient::new(mqtt, usize::from(options.ids) + 1);
    event_loop.network_options.set_connection_timeout(CONNECT_WITHIN.as_secs());
    event_loop.network_options.set_tcp_nodelay(true); // as in `v5`
    match event_loop.poll().await.map_err(failure)? {
        Event::Incoming(Incoming::ConnAck(_)) => Ok(Connected {
            client: Client::V311(client),
            event_loop: EventLoop::V311(Box::new(event_loop)),
            ids: options.ids,
            packet_max: PACKET_MAX,
            qos_max: 2,
            keep_alive: options.keep_alive,
        }),
        other => Err(Failure::Protocol(format!("{other:?} before a CONNACK"))),
    }
}

pub(super) fn signal(event: Event) -> Signal {
    match event {
        Event::Outgoing(Outgoing::Publish(packet_id)) => Signal::Sent(packet_id),
        Event::Outgoing(_) => Signal::Wrote,
        Event::Incoming(Incoming::PubAck(ack)) => Signal::Acknowledged(ack.pkid),
        Event::Incoming(Incoming::PubComp(complete)) => Signal::Acknowledged(complete.pkid),
        Event::Incoming(_) => Signal::Heard,
    }
}

pub(super) fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::Io(error)
        | ConnectionError::Tls(TlsError::Io(error))
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) => Failure::Io(error),
        ConnectionError::Tls(TlsError::TLS(error)) => Failure::Tls(error),
        ConnectionError::MqttState(StateError::ConnectionAborted) => Failure::Closed,
        ConnectionError::MqttState(StateError::AwaitPingResp) | ConnectionError::FlushTimeout => {
            Failure::Silent
        }
        ConnectionError::NetworkTimeout => Failure::Timeout,
        ConnectionError::ConnectionRefused(code) => Failure::Refused(match code {
            ConnectReturnCode::Success => Code::Success,
            ConnectReturnCode::RefusedProtocolVersion => Code::RefusedProtocolVersion,
            ConnectReturnCode::BadClientId => Code::BadClientId,
            ConnectReturnCode::ServiceUnavailable => Code::ServiceUnavailable,
            ConnectReturnCode::BadUserNamePassword => Code::BadUserNamePassword,
            ConnectReturnCode::NotAuthorized => Code::NotAuthorized,
        }),
        other => Failure::Protocol(other.to_string()),
    }
}

pub(super) fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

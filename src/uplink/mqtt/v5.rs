//! MQTT 5 by rumqttc.

use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason, PubCompReason, PubRecReason};
use rumqttc::v5::mqttbytes::{self, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, Incoming, MqttOptions, StateError, TlsError};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};

use super::config::Qos;
use super::link::{CONNECT_WITHIN, Client, Connected, EventLoop, Failure, Options, PACKET_MAX, Signal};
use super::words;

pub(super) async fn connect(options: Options) -> Result<Connected, Failure> {
    let will = options.will;
    let mut mqtt = MqttOptions::new(options.client_id, options.host, options.port);
    mqtt.set_clean_start(true)
        .set_keep_alive(options.keep_alive)
        .set_connection_timeout(CONNECT_WITHIN.as_secs())
        // Unset, it reserves 65,535 slots.
        .set_outgoing_inflight_upper_limit(options.ids)
        .set_last_will(LastWill::new(will.topic, will.payload, qos(will.qos), will.retain, None));
    if let Some(tls) = options.tls {
        mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    // Else a small packet waits behind another for the other side's delayed acknowledgement: 40 ms each time.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    mqtt.set_network_options(network);
    // A DISCONNECT goes behind as many publications as there are ids.
    let (client, mut event_loop) = AsyncClient::new(mqtt, usize::from(options.ids) + 1);
    let accepted = match event_loop.poll().await.map_err(failure)? {
        Event::Incoming(Packet::ConnAck(accepted)) => accepted,
        other => return Err(Failure::Protocol(format!("{other:?} before a CONNACK"))),
    };
    let (mut ids, mut packet_max, mut qos_max) = (options.ids, PACKET_MAX, 2);
    if let Some(properties) = accepted.properties {
        // rumqttc goes round as many ids as the broker takes at once.
        ids = properties.receive_max.map_or(ids, |most| most.min(ids));
        packet_max =
            properties.max_packet_size.and_then(|most| usize::try_from(most).ok()).unwrap_or(packet_max);
        qos_max = properties.max_qos.unwrap_or(qos_max);
    }
    if ids == 0 {
        return Err(Failure::Protocol("a receive maximum of 0".to_owned()));
    }
    // MQTT 5, 3.2.2.3.14: 0 turns keep-alive off, of which rumqttc would make a flood of pings.
    if event_loop.options.keep_alive().is_zero() {
        event_loop.options.set_keep_alive(options.keep_alive);
    }
    let keep_alive = event_loop.options.keep_alive();
    let event_loop = EventLoop::V5(Box::new(event_loop));
    Ok(Connected { client: Client::V5(client), event_loop, ids, packet_max, qos_max, keep_alive })
}

pub(super) fn signal(event: Event) -> Signal {
    let packet = match event {
        Event::Outgoing(Outgoing::Publish(packet_id)) => return Signal::Sent(packet_id),
        Event::Outgoing(_) => return Signal::Wrote,
        Event::Incoming(packet) => packet,
    };
    match packet {
        Incoming::PubAck(ack) => match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Signal::Acknowledged(ack.pkid),
            reason => {
                let text = ack.properties.and_then(|properties| properties.reason_string);
                let (lasting, reason) = words::refusal(reason, text);
                Signal::Refused { packet_id: ack.pkid, lasting, reason, slot_lost: false }
            }
        },
        // A PUBREC that refuses ends the publication; one that does not is half of the way.
        Incoming::PubRec(received) => match publication_reason(received.reason) {
            None => Signal::Heard,
            Some(reason) => {
                let text = received.properties.and_then(|properties| properties.reason_string);
                let (lasting, reason) = words::refusal(reason, text);
                Signal::Refused { packet_id: received.pkid, lasting, reason, slot_lost: true }
            }
        },
        Incoming::PubComp(complete) => match complete.reason {
            PubCompReason::Success => Signal::Acknowledged(complete.pkid),
            PubCompReason::PacketIdentifierNotFound => {
                let (lasting, reason) = words::forgotten();
                Signal::Refused { packet_id: complete.pkid, lasting, reason, slot_lost: true }
            }
        },
        _ => Signal::Heard,
    }
}

fn publication_reason(reason: PubRecReason) -> Option<PubAckReason> {
    Some(match reason {
        PubRecReason::Success | PubRecReason::NoMatchingSubscribers => return None,
        PubRecReason::UnspecifiedError => PubAckReason::UnspecifiedError,
        PubRecReason::ImplementationSpecificError => PubAckReason::ImplementationSpecificError,
        PubRecReason::NotAuthorized => PubAckReason::NotAuthorized,
        PubRecReason::TopicNameInvalid => PubAckReason::TopicNameInvalid,
        PubRecReason::PacketIdentifierInUse => PubAckReason::PacketIdentifierInUse,
        PubRecReason::QuotaExceeded => PubAckReason::QuotaExceeded,
        PubRecReason::PayloadFormatInvalid => PubAckReason::PayloadFormatInvalid,
    })
}

pub(super) fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::Io(error)
        | ConnectionError::Tls(TlsError::Io(error))
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) => Failure::Io(error),
        ConnectionError::Tls(TlsError::TLS(error)) => Failure::Tls(error),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            Failure::Dismissed(reason_code, reason_string)
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => Failure::Closed,
        ConnectionError::MqttState(StateError::AwaitPingResp) => Failure::Silent,
        ConnectionError::Timeout(_) => Failure::Timeout,
        ConnectionError::ConnectionRefused(code) => Failure::Refused(code),
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

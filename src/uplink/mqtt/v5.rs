//! The packets of MQTT 5, by rumqttc.

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectReturnCode, DisconnectReasonCode, LastWill, Login, Packet as Wire, PubAckReason,
    PubCompReason, PubRecReason, Publish,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use std::time::Duration;

use super::config::Qos;
use super::flight::Packet;
use super::link::{Accepted, Failure, Heard, INCOMING_MAX, Options, PACKET_MAX};
use super::words;

pub(super) fn connect(options: Options, out: &mut BytesMut) -> Result<(), String> {
    let keep_alive = options.keep_alive_seconds();
    let Options { client_id, will, login, .. } = options;
    let will = LastWill::new(will.topic, will.payload, qos(will.qos), will.retain, None);
    let login = login.map(|login| Login { username: login.username, password: login.password });
    // Without properties the session expires with the connection.
    let connect = Connect { keep_alive, client_id, clean_start: true, properties: None };
    write(&Wire::Connect(connect, Some(will), login), out)
}

pub(super) fn publish(packet: Packet, packet_id: u16, out: &mut BytesMut) -> Result<(), String> {
    let Packet { topic, retain, payload, .. } = packet;
    let publish = Publish::new(topic, qos(packet.qos), payload, None);
    write(&Wire::Publish(Publish { retain, pkid: packet_id, ..publish }), out)
}

fn write(packet: &Wire, out: &mut BytesMut) -> Result<(), String> {
    packet.write(out, None).map(|_| ()).map_err(|error| error.to_string())
}

/// Takes the next packet off `incoming`, once it is there as a whole.
pub(super) fn read(incoming: &mut BytesMut) -> Result<Option<Heard>, Failure> {
    // A DISCONNECT may leave out its properties, and its reason too (3.14.2): rumqttc takes neither.
    match incoming[..] {
        [0xE0, 0, ..] => return Err(Failure::Closed),
        [0xE0, 1, reason, ..] => {
            incoming.advance(3);
            let reason = DisconnectReasonCode::try_from(reason).map_err(protocol)?;
            return Err(Failure::Dismissed(reason, None));
        }
        _ => {}
    }
    let length = incoming.len();
    match Wire::read(incoming, Some(INCOMING_MAX)) {
        Ok(packet) => heard(packet).map(Some),
        Err(Error::InsufficientBytes(_)) if incoming.len() == length => Ok(None),
        Err(error) => Err(protocol(error)),
    }
}

fn protocol(error: Error) -> Failure {
    Failure::Protocol(error.to_string())
}

fn heard(packet: Wire) -> Result<Heard, Failure> {
    Ok(match packet {
        Wire::ConnAck(answer) => Heard::Accepted(accepted(answer)?),
        Wire::PubAck(ack) => match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Heard::Acknowledged(ack.pkid),
            reason => {
                let text = ack.properties.and_then(|properties| properties.reason_string);
                refused(ack.pkid, words::refusal(reason, text))
            }
        },
        // A PUBREC that refuses ends the publication; one that does not is half of the way.
        Wire::PubRec(received) => match publication_reason(received.reason) {
            None => Heard::Received(received.pkid),
            Some(reason) => {
                let text = received.properties.and_then(|properties| properties.reason_string);
                refused(received.pkid, words::refusal(reason, text))
            }
        },
        Wire::PubComp(complete) => match complete.reason {
            PubCompReason::Success => Heard::Acknowledged(complete.pkid),
            PubCompReason::PacketIdentifierNotFound => refused(complete.pkid, words::forgotten()),
        },
        Wire::Disconnect(end) => {
            let text = end.properties.and_then(|properties| properties.reason_string);
            return Err(Failure::Dismissed(end.reason_code, text));
        }
        _ => Heard::Other,
    })
}

fn accepted(answer: ConnAck) -> Result<Accepted, Failure> {
    if answer.code != ConnectReturnCode::Success {
        return Err(Failure::Refused(answer.code));
    }
    let mut accepted =
        Accepted { receive_max: u16::MAX, packet_max: PACKET_MAX, qos_max: 2, keep_alive: None };
    if let Some(properties) = answer.properties {
        accepted.receive_max = properties.receive_max.unwrap_or(accepted.receive_max);
        accepted.packet_max = properties
            .max_packet_size
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(accepted.packet_max);
        accepted.qos_max = properties.max_qos.unwrap_or(accepted.qos_max);
        // 3.2.2.3.14: 0 turns keep-alive off at the broker; a dead link is to be found all the same.
        let seconds = properties.server_keep_alive.filter(|seconds| *seconds > 0);
        accepted.keep_alive = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    }
    if accepted.receive_max == 0 {
        return Err(Failure::Protocol("a receive maximum of 0".to_owned()));
    }
    Ok(accepted)
}

fn refused(packet_id: u16, (lasting, reason): (crate::uplink::Lasting, String)) -> Heard {
    Heard::Refused { packet_id, lasting, reason }
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

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

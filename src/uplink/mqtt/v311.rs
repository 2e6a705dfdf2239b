//! The packets of MQTT 3.1.1, by rumqttc.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, LastWill, Login, Packet as Wire, Publish};
use rumqttc::mqttbytes::{Error, QoS};
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode as Code;

use super::config::Qos;
use super::flight::Packet;
use super::link::{Accepted, Failure, Heard, INCOMING_MAX, Options, PACKET_MAX};

pub(super) fn connect(options: Options, out: &mut BytesMut) -> Result<(), String> {
    let keep_alive = options.keep_alive_seconds();
    let Options { client_id, will, login, .. } = options;
    let last_will = Some(LastWill::new(will.topic, will.payload, qos(will.qos), will.retain));
    let login = login.map(|login| Login { username: login.username, password: login.password });
    let connect = Connect { keep_alive, clean_session: true, last_will, login, ..Connect::new(client_id) };
    write(&Wire::Connect(connect), out)
}

pub(super) fn publish(packet: Packet, packet_id: u16, out: &mut BytesMut) -> Result<(), String> {
    let Packet { topic, retain, payload, .. } = packet;
    let publish = Publish::new(topic, qos(packet.qos), payload);
    write(&Wire::Publish(Publish { retain, pkid: packet_id, ..publish }), out)
}

fn write(packet: &Wire, out: &mut BytesMut) -> Result<(), String> {
    packet.write(out, PACKET_MAX).map(|_| ()).map_err(|error| error.to_string())
}

/// Takes the next packet off `incoming`, once it is there as a whole.
pub(super) fn read(incoming: &mut BytesMut) -> Result<Option<Heard>, Failure> {
    let length = incoming.len();
    match Wire::read(incoming, INCOMING_MAX as usize) {
        Ok(packet) => heard(packet).map(Some),
        Err(Error::InsufficientBytes(_)) if incoming.len() == length => Ok(None),
        Err(error) => Err(Failure::Protocol(error.to_string())),
    }
}

fn heard(packet: Wire) -> Result<Heard, Failure> {
    Ok(match packet {
        Wire::ConnAck(answer) => match answer.code {
            ConnectReturnCode::Success => {
                let (receive_max, packet_max) = (u16::MAX, PACKET_MAX);
                Heard::Accepted(Accepted { receive_max, packet_max, qos_max: 2, keep_alive: None })
            }
            refusal => return Err(Failure::Refused(code(refusal))),
        },
        Wire::PubAck(ack) => Heard::Acknowledged(ack.pkid),
        Wire::PubRec(received) => Heard::Received(received.pkid),
        Wire::PubComp(complete) => Heard::Acknowledged(complete.pkid),
        _ => Heard::Other,
    })
}

fn code(code: ConnectReturnCode) -> Code {
    match code {
        ConnectReturnCode::Success => Code::Success,
        ConnectReturnCode::RefusedProtocolVersion => Code::RefusedProtocolVersion,
        ConnectReturnCode::BadClientId => Code::BadClientId,
        ConnectReturnCode::ServiceUnavailable => Code::ServiceUnavailable,
        ConnectReturnCode::BadUserNamePassword => Code::BadUserNamePassword,
        ConnectReturnCode::NotAuthorized => Code::NotAuthorized,
    }
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

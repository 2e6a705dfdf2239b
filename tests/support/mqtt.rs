//! The server's side of MQTT 3.1.1 and 5, as far as one gateway needs it: written from the specifications and not
//! from the agent's library, so that the two check each other.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The level that a CONNECT names.
pub(crate) const LEVEL_311: u8 = 4;
pub(crate) const LEVEL_5: u8 = 5;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    Publish(Publish),
    Pubrel(u16),
    Pingreq,
    /// True where the will is to be published all the same.
    Disconnect(bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) level: u8,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) client_id: String,
    pub(crate) will: Option<Publish>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// 0 where QoS is 0.
    pub(crate) packet_id: u16,
}

/// Reads one packet; `None` where the client has closed. `level` is what its CONNECT named. Cancel it only to end.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin), level: u8) -> io::Result<Option<Packet>> {
    let Ok(first) = stream.read_u8().await else { return Ok(None) };
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21] {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    parse(first, &body, level).map(Some).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("not a packet: {first:#04x} {body:02x?}"))
    })
}

fn parse(first: u8, body: &[u8], level: u8) -> Option<Packet> {
    let mut body = Body(body);
    Some(match first >> 4 {
        1 => Packet::Connect(connect(&mut body)?),
        3 => {
            let qos = (first >> 1) & 3;
            let topic = body.text()?;
            let packet_id = if qos > 0 { body.u16()? } else { 0 };
            if level == LEVEL_5 {
                body.skip_properties()?;
            }
            let (retain, dup) = (first & 1 != 0, first & 8 != 0);
            Packet::Publish(Publish { topic, payload: body.0.to_vec(), qos, retain, dup, packet_id })
        }
        6 => Packet::Pubrel(body.u16()?),
        12 => Packet::Pingreq,
        14 => Packet::Disconnect(body.0.first() == Some(&0x04)),
        _ => return None,
    })
}

fn connect(body: &mut Body<'_>) -> Option<Connect> {
    if body.text()? != "MQTT" {
        return None;
    }
    let (level, flags, keep_alive) = (body.u8()?, body.u8()?, body.u16()?);
    if level == LEVEL_5 {
        body.skip_properties()?;
    }
    let client_id = body.text()?;
    let will = if flags & 0x04 == 0 {
        None
    } else {
        if level == LEVEL_5 {
            body.skip_properties()?;
        }
        let (topic, payload) = (body.text()?, body.bytes()?.to_vec());
        let (qos, retain) = ((flags >> 3) & 3, flags & 0x20 != 0);
        Some(Publish { topic, payload, qos, retain, dup: false, packet_id: 0 })
    };
    let username = if flags & 0x80 == 0 { None } else { Some(body.text()?) };
    let password = if flags & 0x40 == 0 { None } else { Some(body.text()?) };
    Some(Connect { level, clean: flags & 0x02 != 0, keep_alive, client_id, will, username, password })
}

/// What is left of a packet.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn skip_properties(&mut self) -> Option<()> {
        // Nothing that the agent sends needs a second byte of length.
        let count = self.u8().filter(|count| count & 0x80 == 0)?;
        self.take(usize::from(count)).map(|_| ())
    }
}

/// What a CONNACK of version 5 may lay down. Version 3.1.1 has none of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) maximum_packet_size: Option<u32>,
    pub(crate) maximum_qos: Option<u8>,
    pub(crate) server_keep_alive: Option<u16>,
}

pub(crate) fn connack(level: u8, code: u8, limits: &Limits) -> Vec<u8> {
    if level != LEVEL_5 {
        return vec![0x20, 2, 0, code];
    }
    let mut properties = Vec::new();
    if let Some(seconds) = limits.server_keep_alive {
        properties.push(19);
        properties.extend(seconds.to_be_bytes());
    }
    if let Some(count) = limits.receive_maximum {
        properties.push(33);
        properties.extend(count.to_be_bytes());
    }
    if let Some(qos) = limits.maximum_qos {
        properties.extend([36, qos]);
    }
    if let Some(bytes) = limits.maximum_packet_size {
        properties.push(39);
        properties.extend(bytes.to_be_bytes());
    }
    let length = u8::try_from(properties.len()).unwrap_or(u8::MAX);
    let mut packet = vec![0x20, 3 + length, 0, code, length];
    packet.extend(properties);
    packet
}

/// PUBACK (4), PUBREC (5) or PUBCOMP (7). Version 3.1.1 cannot say more than yes.
pub(crate) fn answer(kind: u8, level: u8, packet_id: u16, reason: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    if level == LEVEL_5 && reason != 0 {
        vec![kind << 4, 3, high, low, reason]
    } else {
        vec![kind << 4, 2, high, low]
    }
}

pub(crate) const PINGRESP: [u8; 2] = [0xD0, 0];

/// Without properties, which may be left out, as mosquitto does.
pub(crate) fn disconnect(reason: u8) -> Vec<u8> {
    vec![0xE0, 1, reason]
}

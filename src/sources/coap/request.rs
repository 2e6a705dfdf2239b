use std::collections::LinkedList;
use std::net::SocketAddr;

use coap_lite::{CoapOption, MessageClass, Packet, RequestType, ResponseType};

use super::super::Refusal;
use super::super::decode::number;
use crate::model::{NAME_MAX, Value, is_name};

/// The largest payload that is taken, in bytes: four times what RFC 7252, 4.6, advises senders to keep to.
pub(super) const PAYLOAD_MAX: u16 = 4096;

/// What a request brings.
#[derive(Debug, PartialEq)]
pub(super) enum Request<'a> {
    /// Any number of metrics of a device: `/{device}`, JSON.
    Json { device: &'a str, payload: &'a [u8] },
    /// The same in SenML, whose names may name other devices.
    Senml { device: &'a str, payload: &'a [u8] },
    /// One metric of a device: `/{device}/{metric}`, plain text.
    Text { device: &'a str, metric: &'a str, value: Value<&'a str> },
}

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Refused {
    /// What the device is told.
    pub(super) code: ResponseType,
    /// What it counts as.
    pub(super) refusal: Refusal,
    /// What is wrong, for the device and for the log.
    pub(super) text: String,
}

impl Refused {
    pub(super) fn new(code: ResponseType, refusal: Refusal, text: impl Into<String>) -> Self {
        Self { code, refusal, text: text.into() }
    }

    fn not_served(code: ResponseType, text: impl Into<String>) -> Self {
        Self::new(code, Refusal::NotServed, text)
    }
}

/// The content formats that are read (RFC 7252, 12.3; RFC 8428, 12.3).
const TEXT_PLAIN: u32 = 0;
const JSON: u32 = 50;
const SENML_JSON: u32 = 110;
const SENML_CBOR: u32 = 112;

impl<'a> Request<'a> {
    /// Reads a request, in the order in which RFC 7252 lets its codes take precedence: options, path, method, payload.
    ///
    /// A payload without a Content-Format is taken for what its path takes.
    ///
    /// # Errors
    /// Where it cannot be served.
    pub(super) fn read(packet: &'a Packet) -> Result<Self, Refused> {
        options(packet)?;
        let (device, metric) = path(packet)?;
        match packet.header.code {
            MessageClass::Request(RequestType::Post | RequestType::Put) => {}
            _ => {
                let text = "readings come by POST or PUT";
                return Err(Refused::not_served(ResponseType::MethodNotAllowed, text));
            }
        }
        let payload = &*packet.payload;
        if payload.len() > usize::from(PAYLOAD_MAX) {
            let text = format!("a payload of over {PAYLOAD_MAX} bytes");
            return Err(Refused::new(ResponseType::RequestEntityTooLarge, Refusal::TooLong, text));
        }
        match (metric, content_format(packet)) {
            (None, None | Some(JSON)) => Ok(Self::Json { device, payload }),
            (None, Some(SENML_JSON | SENML_CBOR)) => Ok(Self::Senml { device, payload }),
            (Some(metric), None | Some(TEXT_PLAIN)) => {
                Ok(Self::Text { device, metric, value: value(payload)? })
            }
            (None, Some(other)) => Err(unsupported(other, "application/json (50) or SenML (110, 112)")),
            (Some(_), Some(other)) => Err(unsupported(other, "text/plain (0)")),
        }
    }
}

/// A request as a person reads it: method, path and sender.
pub(super) fn line(packet: &Packet, peer: SocketAddr) -> String {
    let method = match packet.header.code {
        MessageClass::Request(RequestType::Get) => "GET".to_owned(),
        MessageClass::Request(RequestType::Post) => "POST".to_owned(),
        MessageClass::Request(RequestType::Put) => "PUT".to_owned(),
        MessageClass::Request(RequestType::Delete) => "DELETE".to_owned(),
        _ => packet.header.get_code(),
    };
    let segments = packet.get_option(CoapOption::UriPath).into_iter().flatten();
    let path: String = segments.map(|segment| format!("/{}", String::from_utf8_lossy(segment))).collect();
    format!("{method} {path} from {}", peer.ip().to_canonical())
}

fn unsupported(format: u32, right: &str) -> Refused {
    let text = format!("content format {format}: this path takes {right}");
    Refused::not_served(ResponseType::UnsupportedContentFormat, text)
}

/// Refuses what must not be passed over: critical options that mean nothing here (RFC 7252, 5.4.1).
fn options(packet: &Packet) -> Result<(), Refused> {
    let critical = packet.options().filter(|(number, _)| *number % 2 == 1);
    for (number, values) in critical {
        let option = CoapOption::from(*number);
        if matches!(option, CoapOption::ProxyUri | CoapOption::ProxyScheme) {
            return Err(Refused::not_served(ResponseType::ProxyingNotSupported, "this is no proxy"));
        }
        if !understood(option, values) {
            let text = match option {
                CoapOption::Block1 | CoapOption::Block2 => {
                    "blocks are not taken: send it in one message".into()
                }
                _ => format!("option {number} is not understood"),
            };
            return Err(Refused::not_served(ResponseType::BadOption, text));
        }
    }
    Ok(())
}

/// Whether a critical option may stand in a request. One whose length is out of its range, or that comes again where
/// it must not, counts as one that nobody knows (RFC 7252, 5.4.3 and 5.4.5).
fn understood(option: CoapOption, values: &LinkedList<Vec<u8>>) -> bool {
    let (lengths, again) = match option {
        CoapOption::UriHost => (1..=255, false),
        CoapOption::UriPort | CoapOption::Accept => (0..=2, false),
        CoapOption::UriPath => (0..=255, true),
        _ => return false,
    };
    (again || values.len() == 1) && values.iter().all(|value| lengths.contains(&value.len()))
}

/// The device and the metric that the path names. A `/` inside a segment belongs to the name.
fn path(packet: &Packet) -> Result<(&str, Option<&str>), Refused> {
    let mut segments = packet.get_option(CoapOption::UriPath).into_iter().flatten();
    match (segments.next(), segments.next(), segments.next()) {
        (Some(device), None, _) => Ok((name(device)?, None)),
        (Some(device), Some(metric), None) => Ok((name(device)?, Some(name(metric)?))),
        _ => {
            let text = "the path is neither /{device} nor /{device}/{metric}";
            Err(Refused::not_served(ResponseType::NotFound, text))
        }
    }
}

fn name(segment: &[u8]) -> Result<&str, Refused> {
    match std::str::from_utf8(segment) {
        Ok(name) if is_name(name) => Ok(name),
        Ok(_) => {
            let text = format!("a device or metric name has not 1 to {NAME_MAX} bytes");
            Err(Refused::new(ResponseType::NotFound, Refusal::BadName, text))
        }
        Err(_) => {
            let text = "the path is not valid UTF-8";
            Err(Refused::new(ResponseType::NotFound, Refusal::NotText, text))
        }
    }
}

/// The number of the content format, where one is given. One of a wrong length counts as not given: the option may be
/// passed over (RFC 7252, 5.4.3).
fn content_format(packet: &Packet) -> Option<u32> {
    let value = packet.get_first_option(CoapOption::ContentFormat).filter(|value| value.len() <= 2)?;
    Some(value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// A number, or true or false, with blanks around it. Whole numbers stay whole up to 64 bits.
fn value(payload: &[u8]) -> Result<Value<&str>, Refused> {
    let bad = |refusal: Refusal, text: &str| Refused::new(ResponseType::BadRequest, refusal, text);
    let text = std::str::from_utf8(payload)
        .map_err(|_| bad(Refusal::NotText, "the payload is not valid UTF-8"))?
        .trim_ascii();
    number(text)
        .ok_or_else(|| bad(Refusal::Undecodable, "the payload is no number and neither true nor false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &[u8]) -> Option<Value<&str>> {
        value(payload).ok()
    }

    #[test]
    fn a_plain_text_is_a_number_or_true_or_false() {
        assert_eq!(read(b"21.5"), Some(Value::Float(21.5)));
        assert_eq!(read(b" -3\r\n"), Some(Value::Int(-3)));
        assert_eq!(read(b"18446744073709551615"), Some(Value::Uint(u64::MAX)));
        assert_eq!(read(b"18446744073709551616"), Some(Value::Float(18_446_744_073_709_551_616.0)));
        assert_eq!(read(b"1e3"), Some(Value::Float(1000.0)));
        assert_eq!(read(b"true"), Some(Value::Bool(true)));
        assert_eq!(read(b"false\n"), Some(Value::Bool(false)));
        for wrong in [&b""[..], b" ", b"on", b"True", b"NaN", b"inf", b"1e999", b"1,5", b"21.5 C", b"\xff"] {
            assert_eq!(read(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}

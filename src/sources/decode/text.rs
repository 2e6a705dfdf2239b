//! Numbers in text, and frames that are nothing but one number.

use serde::Deserialize;

use super::field::{self, Meaning, Name, Sink};
use super::{LeftOut, Undecodable, utf8};
use crate::model::{Readings, Value};

/// One number a frame, or `true` or `false`, with blanks around it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    metric: Name,
    unit: Option<Box<str>>,
    #[serde(default = "field::one", deserialize_with = "field::factor")]
    scale: f64,
    #[serde(default, deserialize_with = "field::finite")]
    offset: f64,
}

/// The decoder.
#[derive(Debug)]
pub struct Text(Meaning);

impl Text {
    pub(super) fn new(config: &Config) -> Self {
        let Config { metric, unit, scale, offset } = config.clone();
        Self(Meaning::new(metric.0, unit, scale, offset))
    }

    pub(super) fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let text = utf8(frame)?.trim_ascii();
        let mut sink = Sink::new(device, None, out);
        sink.text(&self.0, text);
        sink.end(|| "it is no number and neither true nor false".to_owned())
    }
}

/// The number that `text` is, or whether it is `true` or `false`. Whole numbers stay whole up to 64 bits, greater ones
/// become the nearest float; what is not finite is no number.
pub(in crate::sources) fn number(text: &str) -> Option<Value<&'static str>> {
    match text.as_bytes().first()? {
        b't' | b'f' => return text.parse().ok().map(Value::Bool),
        b'0'..=b'9' | b'-' | b'+' | b'.' => {}
        _ => return None,
    }
    if let Ok(value) = text.parse() {
        return Some(Value::Int(value));
    }
    if let Ok(value) = text.parse() {
        return Some(Value::Uint(value));
    }
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, found, readings};
    use super::*;

    #[test]
    fn a_number_is_read_as_it_is_written() {
        assert_eq!(number("21.5"), Some(Value::Float(21.5)));
        assert_eq!(number("-3"), Some(Value::Int(-3)));
        assert_eq!(number("+007"), Some(Value::Int(7)));
        assert_eq!(number(".5"), Some(Value::Float(0.5)));
        assert_eq!(number("1e3"), Some(Value::Float(1000.0)));
        assert_eq!(number("18446744073709551615"), Some(Value::Uint(u64::MAX)));
        assert_eq!(number("18446744073709551616"), Some(Value::Float(18_446_744_073_709_551_616.0)));
        assert_eq!(number("true"), Some(Value::Bool(true)));
        assert_eq!(number("false"), Some(Value::Bool(false)));
        for wrong in [
            "",
            " 1",
            "on",
            "True",
            "NaN",
            "-nan",
            "inf",
            "-inf",
            "+infinity",
            "1e999",
            "1,5",
            "0x10",
            "21.5 C",
            "-",
        ] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_frame_that_is_one_number_is_one_reading() {
        let mut decoder =
            Text::new(&toml::from_str("metric = 'level'\nunit = 'm'\nscale = 0.001\noffset = 1").unwrap());
        let mut out = readings();
        decoder.decode(b" 1500\r\n", "tank", &mut out).unwrap();
        assert_eq!(all(&out), [found("tank", "level", Value::Float(2.5), None)]);
        assert_eq!(out.iter().next().unwrap().1.unit, Some("m"));
        for wrong in [&b""[..], b"  ", b"1 2", b"nan", b"ERR"] {
            let mut out = readings();
            let error = decoder.decode(wrong, "tank", &mut out).unwrap_err();
            assert!(error.to_string().contains("no number"), "{error}");
            assert!(out.is_empty());
        }
        assert!(decoder.decode(b"\xff", "tank", &mut readings()).is_err());
    }
}

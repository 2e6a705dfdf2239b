//! Frames that are nothing but one number.

use serde::Deserialize;

use super::field::{self, Meaning, Name, Sink};
use super::{LeftOut, Undecodable, utf8};
use crate::model::Readings;

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

#[cfg(test)]
mod tests {
    use super::super::tests::{all, found, readings};
    use super::*;
    use crate::model::Value;

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

//! SenML (RFC 8428), in JSON or CBOR, told apart by the first byte; a pack a frame.
//!
//! A record's whole name, `bn` and `n`, becomes device and metric: the metric is what stands behind the last `/`; in a
//! name without one, behind the identifier of a device URN (`urn:dev:mac:0024befffe804ff1_temperature`, also with `:`),
//! or else behind the last `:`. Where nothing stands there, the metric is the record's unit, or `value` where it has
//! none; where no device stands before it, the source's `device` holds.
//!
//! A time below 2^28 is relative to the arrival, and handed on as that: by how much the gateway's own clock was off may be
//! known only later.

mod cbor;
mod json;
mod pack;

use serde::Deserialize;

use super::{LeftOut, Undecodable, utf8};
use crate::model::Readings;
use pack::Pack;

/// Sums (`s`) are counted as ignored, and so are text (`vs`) and data (`vd`) unless `text` asks for them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether text and data become readings; data as base64url.
    text: bool,
}

/// The decoder.
#[derive(Debug)]
pub struct Senml(Pack);

impl Senml {
    pub(super) fn new(config: &Config) -> Self {
        Self(Pack::new(config.text))
    }

    pub(super) fn decode(
        &mut self,
        frame: &[u8],
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        let Self(pack) = self;
        pack.begin();
        // No array of CBOR begins as an array of JSON may.
        match frame.trim_ascii_start().first() {
            Some(b'[') => json::read(utf8(frame)?, pack),
            Some(0x80..=0x9F) => cbor::read(frame, pack),
            _ => Err("it is no array of records, neither in JSON nor in CBOR".to_owned()),
        }
        .map_err(Undecodable::Malformed)?;
        Ok(pack.hand_over(device, out))
    }
}

#[cfg(test)]
mod tests;

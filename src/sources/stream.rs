//! What sources that read a byte stream have in common: framing, then decoding, and counting what neither takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::decode::{self, Decoder};
use super::framing::{self, Framer};
use super::{Context, Refusal};
use crate::model::{NAME_MAX, Readings};

/// One byte stream on its way to readings. What it holds of an unfinished frame goes with it when it is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    framer: Framer,
    decoder: Decoder,
    device: Arc<str>,
    context: Context,
}

impl Stream {
    /// A stream at its beginning; `device` is who measured where a frame names nobody, by default the source.
    pub(super) fn new(
        framing: &framing::Config,
        decode: &decode::Config,
        device: Option<&str>,
        context: &Context,
    ) -> Self {
        Self {
            framer: Framer::new(framing),
            decoder: Decoder::new(decode),
            device: device.map_or_else(|| context.name.clone(), Arc::from),
            context: context.clone(),
        }
    }

    /// Adds the readings of all frames that `bytes` complete.
    pub(super) fn read(&mut self, mut bytes: &[u8], out: &mut Readings) {
        let Context { name, stats, .. } = &self.context;
        let before = out.len();
        let mut ignored = 0;
        stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        while let Some(frame) = self.framer.next(&mut bytes) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(too_long) => {
                    stats.refuse(name, Refusal::TooLong, || format!("a frame is {too_long}"));
                    continue;
                }
            };
            match self.decoder.decode(frame, &self.device, out) {
                Ok(left_out) => {
                    ignored += left_out.ignored;
                    for _ in 0..left_out.bad_names {
                        stats.refuse(name, Refusal::BadName, || {
                            format!(
                                "a device or metric name has not 1 to {NAME_MAX} bytes, in {}",
                                excerpt(frame)
                            )
                        });
                    }
                }
                Err(undecodable) => stats
                    .refuse(name, undecodable.refusal(), || format!("{undecodable}, in {}", excerpt(frame))),
            }
        }
        stats.readings.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        stats.ignored.fetch_add(ignored, Ordering::Relaxed);
    }
}

/// The beginning of a frame, fit for a log.
fn excerpt(frame: &[u8]) -> String {
    const SHOWN: usize = 64;
    match frame.get(..SHOWN) {
        Some(start) if frame.len() > SHOWN => format!("`{}…` ({} bytes)", start.escape_ascii(), frame.len()),
        _ => format!("`{}`", frame.escape_ascii()),
    }
}

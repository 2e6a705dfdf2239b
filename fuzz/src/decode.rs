//! The oracle of a decoder: it does not panic, a frame that is refused leaves no reading behind, what it gives is sound,
//! and what it has read before makes no difference but for what it has learnt of the stream.

use std::time::Duration;

use weir::model::{Readings, Stamp, Timestamp, Value, is_name};
use weir::sources::decode::{Config, Decoder, Learnt};

/// The decoders that a target tries, from their tables in the configuration.
///
/// # Panics
/// Where a table is wrong: the target is.
pub fn configs(tables: &[&str]) -> Vec<Config> {
    let read = |table: &&str| {
        let config: Config = toml::from_str(table).unwrap_or_else(|error| panic!("{table}: {error}"));
        assert_eq!(config.problems(), [], "{table}");
        config
    };
    tables.iter().map(read).collect()
}

/// The first byte of `data` chooses the decoder, the rest is a frame.
///
/// # Panics
/// Where the oracle is not held, here and below.
pub fn frame(configs: &[Config], data: &[u8]) {
    let Some((choice, frame)) = data.split_first() else { return };
    stream(&configs[usize::from(*choice) % configs.len()], [frame].into_iter());
}

/// The first byte of `data` chooses the decoder, the rest are frames of one line each.
pub fn lines(configs: &[Config], data: &[u8]) {
    let Some((choice, lines)) = data.split_first() else { return };
    stream(&configs[usize::from(*choice) % configs.len()], lines.split(|byte| *byte == b'\n'));
}

fn stream<'a>(config: &Config, frames: impl Iterator<Item = &'a [u8]>) {
    let (mut old, mut of_old, mut of_new) = (Decoder::new(config), Learnt::default(), Learnt::default());
    for frame in frames {
        let expected = decode(&mut Decoder::new(config), frame, &mut of_new);
        assert_eq!(decode(&mut old, frame, &mut of_old), expected);
    }
}

/// What a frame gives, for comparison.
fn decode(decoder: &mut Decoder, frame: &[u8], learnt: &mut Learnt) -> Result<String, String> {
    let arrival = Stamp { wall: Timestamp(1_700_000_000_000), monotonic: Duration::ZERO, synced: true };
    let mut out = Readings::new(arrival);
    let decoded = decoder.decode(frame, "here", learnt, &mut out);
    for (number, reading) in out.iter() {
        assert_eq!(number, 0, "one frame");
        assert!(is_name(reading.device) && is_name(reading.metric));
        assert!(!matches!(reading.value, Value::Float(value) if !value.is_finite()));
    }
    match decoded {
        Ok(left_out) => Ok(format!("{left_out:?} {:?}", out.iter().collect::<Vec<_>>())),
        Err(undecodable) => {
            assert!(out.is_empty());
            Err(undecodable.to_string())
        }
    }
}

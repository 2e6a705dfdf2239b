//! What the targets have in common. A target gives a part of the daemon what libFuzzer makes up, and an oracle says
//! whether what came out is right.

pub mod decode;

use std::sync::Arc;

use weir::sources::framing::{Config, Framer, Refused};

/// What a framing made of a stream. Noise is told as it comes, so that of several reads is added up.
#[derive(Debug, PartialEq)]
enum Out {
    Frame(Vec<u8>),
    Refused(Refused),
}

/// The framings that a target tries, from their tables in the configuration.
///
/// # Panics
/// Where a table is wrong: the target is.
pub fn configs(tables: &[&str]) -> Vec<Arc<Config>> {
    let read = |table: &&str| {
        let config: Config = toml::from_str(table).unwrap_or_else(|error| panic!("{table}: {error}"));
        assert_eq!(config.problems(), [], "{table}");
        Arc::new(config)
    };
    tables.iter().map(read).collect()
}

/// The oracle of a framing: a stream gives the same frames, however it is cut into reads.
///
/// The first byte of `data` chooses the framing, the second how many bytes behind it say how long each read is (the
/// highest bit: that a silence follows it). The rest is the stream, and what no read is left for is the last one.
///
/// # Panics
/// Where the frames differ, or one is over its limit.
pub fn split(configs: &[Arc<Config>], data: &[u8]) {
    let [choice, reads, rest @ ..] = data else { return };
    let config = &configs[usize::from(*choice) % configs.len()];
    let (lengths, mut stream) = rest.split_at(usize::from(*reads).min(rest.len()));
    let (mut whole, mut cut) = (Framer::new(config), Framer::new(config));
    let (mut expected, mut out) = (Vec::new(), Vec::new());
    let (mut begun, mut taken) = (stream, 0);
    for length in lengths {
        let (piece, left) = stream.split_at(usize::from(length & 0x7f).min(stream.len()));
        read(&mut cut, piece, &mut out);
        (stream, taken) = (left, taken + piece.len());
        if length & 0x80 != 0 {
            let (piece, left) = begun.split_at(taken);
            read(&mut whole, piece, &mut expected);
            (begun, taken) = (left, 0);
            for (framer, out) in [(&mut whole, &mut expected), (&mut cut, &mut out)] {
                framer.silence();
                read(framer, &[], out);
                assert!(framer.rests());
            }
        }
    }
    read(&mut cut, stream, &mut out);
    read(&mut whole, begun, &mut expected);
    assert_eq!(out, expected);
    assert_eq!(cut.rests(), whole.rests());
    assert_eq!(cut.unfinished(), whole.unfinished());
}

fn read(framer: &mut Framer, mut input: &[u8], out: &mut Vec<Out>) {
    while let Some(found) = framer.next(&mut input) {
        match (found, out.last_mut()) {
            (Err(Refused::Noise(more)), Some(Out::Refused(Refused::Noise(bytes)))) => *bytes += more,
            (found, _) => out.push(found.map_or_else(Out::Refused, |frame| Out::Frame(frame.to_vec()))),
        }
    }
    assert!(input.is_empty(), "all of a read is taken");
}

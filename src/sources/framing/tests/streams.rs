//! What holds of every framing and any stream.

use proptest::prelude::*;

use super::packing::{cobs, slip, stuffed, with_crc};
use super::*;

/// The bytes that mean something to one of them.
fn telling() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => prop::sample::select(&b"ab\n\r\0\x01\x02\x03\x05\xc0\xdb\xdc\xdd"[..]),
        1 => any::<u8>(),
    ]
}

/// A framing, how a sender packs a payload for it, and what is handed on.
type Sender = (&'static str, fn(&[u8]) -> Vec<u8>);

const SENDERS: [Sender; 7] = [
    ("type = 'lines'\nmax_frame = '64B'", |payload| {
        payload.iter().map(|byte| b'0' + byte % 64).chain([b'\n']).collect()
    }),
    ("type = 'slip'\nmax_frame = '64B'\nchecksum = { type = 'crc32' }", |payload| {
        slip(&with_crc(&[payload]))
    }),
    ("type = 'cobs'\nmax_frame = '64B'\nchecksum = { type = 'crc32' }", |payload| {
        cobs(&with_crc(&[payload]))
    }),
    (
        "type = 'start_end'\nstart = [2]\nend = [3]\nescape = 0x10\nxor = 0x40\nmax_frame = '64B'\n\
         checksum = { type = 'crc32' }",
        |payload| stuffed(&with_crc(&[payload])),
    ),
    ("type = 'length_prefix'\nsize = 1\nmax_frame = '64B'\nchecksum = { type = 'crc32' }", |payload| {
        with_crc(&[&[u8::try_from(payload.len()).unwrap()], payload])
    }),
    (
        "type = 'length_prefix'\nsize = 2\nstart = 'BM'\nmax_frame = '64B'\nchecksum = { type = 'crc32' }",
        |payload| with_crc(&[b"BM\0", &[u8::try_from(payload.len()).unwrap()], payload]),
    ),
    (
        "type = 'fixed'\nlength = 11\nstart = [0xaa, 0xc0]\nend = [0xab]\n\
         checksum = { type = 'crc32', position = -5 }",
        |payload| {
            let content: Vec<u8> = payload.iter().copied().cycle().take(4).collect();
            [&with_crc(&[&[0xaa, 0xc0], &content]), &[0xab][..]].concat()
        },
    ),
];

proptest! {
    #[test]
    fn however_the_stream_is_cut_into_reads_the_frames_are_the_same(
        stream in prop::collection::vec(telling(), 0..120),
        cuts in prop::collection::vec((0_usize..120, prop::bool::weighted(0.1)), 0..30),
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|(cut, silent)| (cut.min(stream.len()), silent)).collect();
        cuts.extend([(0, false), (stream.len(), true)]);
        cuts.sort_unstable();
        for toml in VARIANTS {
            let (mut whole, mut split) = (framer(toml), framer(toml));
            let (mut expected, mut out, mut from) = (Vec::new(), Vec::new(), 0);
            for cut in cuts.windows(2) {
                let ((begin, _), (end, silent)) = (cut[0], cut[1]);
                read(&mut split, &stream[begin..end], &mut out);
                if silent {
                    read(&mut whole, &stream[from..end], &mut expected);
                    silence(&mut whole, &mut expected);
                    silence(&mut split, &mut out);
                    from = end;
                }
            }
            prop_assert_eq!(&out, &expected, "{}", toml);
            let mut bytewise = (framer(toml), Vec::new());
            let mut at_once = (framer(toml), Vec::new());
            read(&mut at_once.0, &stream, &mut at_once.1);
            stream.chunks(1).for_each(|byte| read(&mut bytewise.0, byte, &mut bytewise.1));
            prop_assert_eq!(bytewise.1, at_once.1, "{}", toml);
        }
    }

    #[test]
    fn one_changed_byte_costs_two_frames_at_most(
        payloads in prop::collection::vec(prop::collection::vec(telling(), 1..12), 3..12),
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
        size in 1_usize..40,
    ) {
        for (toml, pack) in SENDERS {
            let packed: Vec<_> = payloads.iter().map(|payload| pack(payload)).collect();
            let sent = {
                let (mut framer, mut out) = (framer(toml), Vec::new());
                read(&mut framer, &packed.concat(), &mut out);
                prop_assert_eq!(out.len(), payloads.len(), "{}", toml);
                out
            };
            let mut stream = packed.concat();
            let at = at.index(stream.len());
            stream[at] ^= change;
            let (mut framer, mut out) = (framer(toml), Vec::new());
            stream.chunks(size).for_each(|piece| read(&mut framer, piece, &mut out));
            silence(&mut framer, &mut out);
            out.retain(|out| matches!(out, Out::Frame(_)));
            let mut found = out.iter().peekable();
            let mut lost = 0;
            for frame in &sent {
                // A line has no checksum: what the change made of it is a frame as well.
                while !toml.contains("crc32") && found.peek().is_some_and(|out| !sent.contains(out)) {
                    found.next();
                }
                if found.peek() == Some(&frame) { found.next(); } else { lost += 1 }
            }
            prop_assert!(lost <= 2, "{} lost of {} in {}", lost, sent.len(), toml);
            if toml.contains("crc32") {
                prop_assert_eq!(found.next(), None, "a frame that nobody sent: {}", toml);
            }
        }
    }

    #[test]
    fn noise_of_any_kind_does_no_harm(
        reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..40),
    ) {
        for toml in VARIANTS {
            let (mut framer, mut out) = (framer(toml), Vec::new());
            for bytes in &reads {
                read(&mut framer, bytes, &mut out);
                prop_assert!(framer.capacity() <= 2 * bytes_of(&framer) + 2 * 256, "{}", framer.capacity());
            }
            silence(&mut framer, &mut out);
        }
    }
}

fn bytes_of(framer: &Framer) -> usize {
    bytes(framer.config().common().max_frame)
}

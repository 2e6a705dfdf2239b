mod cost;
mod packing;
mod streams;

use std::sync::Arc;

use super::*;
use packing::{cobs, with_crc};

fn config(toml: &str) -> Config {
    toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"))
}

fn framer(toml: &str) -> Framer {
    let config = config(toml);
    assert_eq!(config.problems(), []);
    Framer::new(&Arc::new(config))
}

#[derive(Clone, Debug, PartialEq)]
enum Out {
    Frame(Vec<u8>),
    Refused(Refused),
}

fn frame(bytes: &[u8]) -> Out {
    Out::Frame(bytes.to_vec())
}

fn noise(bytes: usize) -> Out {
    Out::Refused(Refused::Noise(bytes))
}

/// What becomes of one read. Noise is told as it comes, so that of several reads is added up.
fn read(framer: &mut Framer, mut input: &[u8], out: &mut Vec<Out>) {
    while let Some(found) = framer.next(&mut input) {
        // Why is another test's.
        let found = found.map_err(|refused| match refused {
            Refused::Checksum { length, .. } => Refused::Checksum { length, wrong: None },
            Refused::Again(_) => Refused::Noise(1),
            refused => refused,
        });
        match (found, out.last_mut()) {
            (Err(Refused::Noise(more)), Some(Out::Refused(Refused::Noise(bytes)))) => *bytes += more,
            (found, _) => out.push(found.map_or_else(Out::Refused, |frame| Out::Frame(frame.to_vec()))),
        }
    }
    assert!(input.is_empty(), "all of a read is taken");
}

fn silence(framer: &mut Framer, out: &mut Vec<Out>) {
    framer.silence();
    read(framer, &[], out);
    assert!(framer.rests() && framer.unfinished() == 0, "behind a silence a frame begins anew");
}

/// What comes out of these reads.
fn all<const N: usize>(toml: &str, reads: [&[u8]; N]) -> Vec<Out> {
    let (mut framer, mut out) = (framer(toml), Vec::new());
    for bytes in reads {
        read(&mut framer, bytes, &mut out);
    }
    out
}

/// A published frame, whose file names its source.
fn golden(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

const SDS011: &str = "type = 'fixed'\nlength = 10\nstart = [0xaa, 0xc0]\nend = [0xab]\n\
                      checksum = { type = 'sum8', position = -2, from = 2 }";

#[test]
fn a_dust_sensors_frames_are_found_again_behind_damage() {
    let good = golden(include_str!("../../../tests/golden/sds011.txt"));
    assert_eq!(all(SDS011, [&good]), [frame(&good)]);
    assert_eq!(
        all(SDS011, [&good[4..], &good, b"x", &good]),
        [noise(6), frame(&good), noise(1), frame(&good)]
    );
    let (mut hurt, mut open) = (good.clone(), good.clone());
    hurt[4] = 0xaa;
    open[9] = 0;
    let wrong = Out::Refused(Refused::Checksum { length: 10, wrong: None });
    assert_eq!(all(SDS011, [&hurt, &good]), [wrong, noise(9), frame(&good)]);
    let Out::Refused(Refused::Damaged(_)) = all(SDS011, [&open, &good])[0] else {
        panic!("its end is missing")
    };
    assert_eq!(all(SDS011, [&open, &good])[1..], [noise(9), frame(&good)]);
    assert_eq!(all(SDS011, [&good[..8], &good, &good])[2..], [frame(&good), frame(&good)], "two bytes lost");
}

#[test]
fn a_checksum_that_is_always_wrong_is_told_for_each_frame() {
    let good = golden(include_str!("../../../tests/golden/sds011.txt"));
    let wrong = |length| Out::Refused(Refused::Checksum { length, wrong: None });
    let other = SDS011.replace("sum8", "xor");
    let told = [wrong(10), noise(9)];
    let each: Vec<_> = (0..5).flat_map(|_| told.clone()).collect();
    assert_eq!(all(&other, [&good[..]; 5]), each);
    assert_eq!(
        all(&other, [&good[..4], &good[4..], b"x", &good]),
        [&told[..1], &[noise(10)], &told].concat()
    );
    let unmarked = "type = 'fixed'\nlength = 4\nchecksum = { type = 'crc16_modbus' }";
    assert_eq!(all(unmarked, [&b"abcd"[..]; 3]), [wrong(4), noise(3), wrong(4), noise(3), wrong(4)]);
    let prefix = "type = 'length_prefix'\nsize = 1\nmax_frame = '16B'\nchecksum = { type = 'xor' }";
    let found = all(prefix, [&b"\x03abcx"[..]; 3]);
    assert_eq!(found.iter().filter(|out| **out == wrong(5)).count(), 3, "{found:?}");
    assert_eq!(found.iter().filter(|out| matches!(out, Out::Refused(Refused::Checksum { .. }))).count(), 3);
}

#[test]
fn noise_is_no_wrong_checksum_at_each_of_its_bytes() {
    let mut chance = fastrand::Rng::with_seed(7);
    let mut bytes = vec![0; 10_000];
    chance.fill(&mut bytes);
    for (toml, most) in [
        ("type = 'fixed'\nlength = 20\nchecksum = { type = 'crc32' }", 500),
        ("type = 'fixed'\nlength = 20\nstart = 'a'\nchecksum = { type = 'crc32' }", 40),
        ("type = 'length_prefix'\nsize = 2\nmax_frame = '64B'\nchecksum = { type = 'crc32' }", 10),
        (
            "type = 'length_prefix'\nsize = 1\nstart = 'a'\nmax_frame = '64B'\nchecksum = { type = 'crc32' }",
            20,
        ),
    ] {
        let found = all(toml, [&bytes]);
        let told = found.iter().filter(|out| matches!(out, Out::Refused(Refused::Checksum { .. }))).count();
        assert!(told <= most, "{told} of {most}: {toml}");
    }
}

#[test]
fn a_delimiter_of_any_bytes_is_stripped_or_kept() {
    assert_eq!(all("type = 'delimiter'\ndelimiter = ';'", [b"a;;b;c"]), [frame(b"a"), frame(b"b")]);
    let kept = "type = 'delimiter'\ndelimiter = [0xff, 0]\nkeep = true";
    assert_eq!(all(kept, [b"a\xff", b"\0b\xff\xff\0"]), [frame(b"a\xff\0"), frame(b"b\xff\xff\0")]);
    let short = "type = 'delimiter'\ndelimiter = \"\\r\\n\"\nmax_frame = '3B'";
    let too_long = Out::Refused(Refused::TooLong { limit: 3 });
    assert_eq!(all(short, [b"abc\r", b"\nabcd\r\nab\r\n"]), [frame(b"abc"), too_long.clone(), frame(b"ab")]);
    assert_eq!(all(short, [b"abcd"]), [too_long], "told as soon as it cannot fit");
}

#[test]
fn a_length_counts_what_it_is_said_to_count() {
    let payload = "type = 'length_prefix'\nsize = 1";
    assert_eq!(all(payload, [b"\x02ab\0\x01c"]), [frame(b"ab"), frame(b"c")], "an empty one is no frame");
    let rest = "type = 'length_prefix'\nsize = 2\nendian = 'little'\ncounts = 'rest'\nchecksum = { type = 'xor', from = 2 }";
    assert_eq!(all(rest, [b"\x03\0ab\x03", b"\x03\0ab\x04"])[0], frame(b"ab"));
    let whole = "type = 'length_prefix'\nsize = 4\noffset = 3\ncounts = 'frame'\nstart = '>'\nkeep = true";
    assert_eq!(all(whole, [b"x>12\0\0", b"\0\x08y>"]), [noise(1), frame(b">12\0\0\0\x08y")]);
    let checked = "type = 'length_prefix'\nsize = 1\nchecksum = { type = 'xor', from = 1 }";
    assert_eq!(all(checked, [b"\x02ab\x03"]), [frame(b"ab")], "the payload is without its checksum");
}

#[test]
fn a_length_that_was_hurt_costs_its_own_frame_only() {
    let toml = "type = 'length_prefix'\nsize = 2\nstart = 'BM'\ncounts = 'rest'\nmax_frame = '64B'\n\
                checksum = { type = 'crc32' }";
    let good = with_crc(&[b"BM\0\x06ab"]);
    let mut hurt = good.clone();
    hurt[3] = 40;
    let found = all(toml, [&hurt, &good, &good, &good, &good, &good]);
    assert_eq!(found[0], Out::Refused(Refused::Checksum { length: 44, wrong: None }));
    assert_eq!(found[2..], vec![frame(b"ab"); 5]);
    let (mut framer, mut out) = (framer(toml), Vec::new());
    read(&mut framer, &hurt, &mut out);
    read(&mut framer, &good, &mut out);
    assert_eq!(out, [], "it may still be one long frame");
    silence(&mut framer, &mut out);
    assert_eq!(out, [Out::Refused(Refused::CutOff(20)), noise(9), frame(b"ab")]);
}

#[test]
fn a_length_over_the_limit_is_passed_over_where_nothing_else_shows_where_frames_begin() {
    let toml = "type = 'length_prefix'\nsize = 1\nmax_frame = '4B'";
    let too_long = Out::Refused(Refused::TooLong { limit: 4 });
    assert_eq!(all(toml, [b"\x05ab", b"cde\x01x"]), [too_long, frame(b"x")]);
}

#[test]
fn an_escaped_start_in_a_frame_that_is_too_long_begins_no_other() {
    let toml = "type = 'start_end'\nstart = [2]\nend = [3]\nescape = 0x10\nmax_frame = '4B'";
    let long = [&b"\x02"[..], &b"\x10\x02".repeat(8), b"ab\x03\x02ok\x03"].concat();
    let expected = [Out::Refused(Refused::TooLong { limit: 4 }), noise(9), frame(b"ok")];
    for split in 0..long.len() {
        assert_eq!(all(toml, [&long[..split], &long[split..]]), expected, "split at {split}");
    }
}

#[test]
fn a_start_and_an_end_hold_a_frame_with_or_without_escapes() {
    let plain = "type = 'start_end'\nstart = \"\\u0002\"\nend = \"\\u0003\"";
    assert_eq!(
        all(plain, [b"x\x02ab\x03\r\n\x02\x03\x02c\x03"]),
        [noise(1), frame(b"ab"), noise(2), frame(b"c")]
    );
    let found = all(plain, [b"\x02ab\x02c\x03"]);
    assert!(matches!(found[..], [Out::Refused(Refused::Damaged(_)), Out::Frame(_)]), "{found:?}");
    let escaped = "type = 'start_end'\nstart = [0x7e]\nend = [0x7e]\nescape = 0x7d\nxor = 0x20";
    assert_eq!(all(escaped, [b"\x7ea\x7d\x5eb\x7ec\x7d\x5d\x7e\x7e"]), [frame(b"a\x7eb"), frame(b"c\x7d")]);
    let checked = "type = 'start_end'\nstart = [2]\nend = [3]\ntrailer = 1\nchecksum = { type = 'xor' }";
    let wrong = Out::Refused(Refused::Checksum { length: 4, wrong: None });
    assert_eq!(
        all(checked, [b"\x02ab\x03", b"\0\x02ab\x03\x01"]),
        [frame(b"ab"), wrong],
        "the end is covered"
    );
}

#[test]
fn slip_and_cobs_are_unpacked_as_published() {
    assert_eq!(
        all("type = 'slip'", [b"\xc0a\xdb", b"\xdcb\xdb\xddc\xc0\xc0d\xc0"]),
        [frame(b"a\xc0b\xdbc"), frame(b"d")]
    );
    let found = all("type = 'slip'", [b"a\xdbb\xc0c\xc0"]);
    assert!(matches!(found[..], [Out::Refused(Refused::Damaged(_)), Out::Frame(_)]), "{found:?}");
    for (plain, packed) in [
        (&[0][..], &[1, 1][..]),
        (&[0, 0], &[1, 1, 1]),
        (&[0x11, 0x22, 0, 0x33], &[3, 0x11, 0x22, 2, 0x33]),
        (&[0x11, 0x22, 0x33, 0x44], &[5, 0x11, 0x22, 0x33, 0x44]),
        (&[0x11, 0, 0, 0], &[2, 0x11, 1, 1, 1]),
    ] {
        assert_eq!(all("type = 'cobs'", [packed, &[0]]), [frame(plain)]);
        assert_eq!(cobs(plain), [packed, &[0]].concat());
    }
    let (long, full): (Vec<u8>, Vec<u8>) = ((0..=255).collect(), (1..=254).collect());
    for plain in [&long, &full] {
        assert_eq!(all("type = 'cobs'", [&cobs(plain)]), [frame(plain)]);
    }
    let found = all("type = 'cobs'", [b"\x05ab\0\x02c\0"]);
    assert!(matches!(found[..], [Out::Refused(Refused::Damaged(_)), Out::Frame(_)]), "{found:?}");
}

#[test]
fn what_lies_between_two_silences_is_a_frame() {
    let (mut framer, mut out) = (framer("type = 'silence'\nidle_gap = '5ms'\nmax_frame = '4B'"), Vec::new());
    for reads in [&[&b"ab"[..], b"c"][..], &[], &[b"abc", b"de", b"f"], &[b"abcd"]] {
        reads.iter().for_each(|bytes| read(&mut framer, bytes, &mut out));
        assert_eq!(framer.rests(), reads.is_empty());
        silence(&mut framer, &mut out);
    }
    assert_eq!(out, [frame(b"abc"), Out::Refused(Refused::TooLong { limit: 4 }), frame(b"abcd")]);
}

#[test]
fn a_silence_in_the_middle_of_a_frame_cuts_it_off() {
    let (mut framer, mut out) = (framer("type = 'fixed'\nlength = 3"), Vec::new());
    read(&mut framer, b"abcd", &mut out);
    silence(&mut framer, &mut out);
    read(&mut framer, b"efg", &mut out);
    assert_eq!(out, [frame(b"abc"), Out::Refused(Refused::CutOff(1)), frame(b"efg")]);
}

#[test]
fn what_cannot_work_is_a_problem_at_its_key() {
    for (toml, keys) in [
        ("type = 'lines'\nmax_frame = '0B'", &["framing.max_frame"][..]),
        ("type = 'lines'\nmax_frame = '2MiB'", &["framing.max_frame"]),
        ("type = 'lines'\nidle_gap = '1us'", &["framing.idle_gap"]),
        ("type = 'silence'\nidle_gap = '2h'", &["framing.idle_gap"]),
        ("type = 'delimiter'\ndelimiter = ''", &["framing.delimiter"]),
        ("type = 'fixed'\nlength = 0", &["framing.length"]),
        ("type = 'fixed'\nlength = 100000", &["framing.length"]),
        ("type = 'fixed'\nlength = 2\nstart = 'ab'\nend = 'c'", &["framing.length"]),
        ("type = 'fixed'\nlength = 2\nchecksum = { type = 'crc32' }", &["framing.checksum.from"]),
        ("type = 'length_prefix'\nsize = 3", &["framing.size"]),
        ("type = 'length_prefix'\nsize = 1\nstart = 'ab'\noffset = 1", &["framing.offset"]),
        ("type = 'length_prefix'\nsize = 4\nmax_frame = '4B'", &["framing.max_frame"]),
        ("type = 'start_end'\nstart = ''\nend = 'b'", &["framing.start"]),
        ("type = 'start_end'\nstart = 'a'\nend = ''", &["framing.end"]),
        ("type = 'start_end'\nstart = 'a'\nend = 'bc'\nescape = 1", &["framing.end"]),
        ("type = 'start_end'\nstart = 'a'\nend = 'b'\nescape = 0x62", &["framing.escape"]),
        ("type = 'start_end'\nstart = 'a'\nend = 'b'\nxor = 1", &["framing.xor"]),
        ("type = 'start_end'\nstart = 'a'\nend = 'b'\ntrailer = 9", &["framing.trailer"]),
        ("type = 'start_end'\nstart = 'a'\nend = 'a'\ntrailer = 1", &["framing.trailer"]),
        ("type = 'slip'\nchecksum = { type = 'crc32', position = -3 }", &["framing.checksum.position"]),
    ] {
        let problems = config(toml).problems();
        assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys, "{toml}");
    }
}

#[test]
fn a_text_of_hex_digits_is_refused_with_the_list_that_was_meant() {
    let error = |written: &str| {
        let toml = format!("type = 'delimiter'\ndelimiter = '{written}'");
        toml::from_str::<Config>(&toml).map(|_| ()).map_err(|error| error.message().to_owned())
    };
    let wrong = error("0x0d").unwrap_err();
    assert!(wrong.contains("a text of 4 characters") && wrong.ends_with(", [0x0d]"), "{wrong}");
    assert!(error("0XD0A").unwrap_err().ends_with(", [0x0d, 0x0a]"));
    for text in ["0x", "0xyz", "x0d", "0"] {
        assert_eq!(error(text), Ok(()), "{text}");
    }
}

/// Each framing, with marks of letters so that few bytes make many frames.
const VARIANTS: [&str; 15] = [
    "type = 'lines'\nmax_frame = '16B'",
    "type = 'lines'\nmax_frame = '4B'\nchecksum = { type = 'xor' }",
    "type = 'delimiter'\ndelimiter = 'aab'\nmax_frame = '4B'",
    "type = 'delimiter'\ndelimiter = 'ab'\nkeep = true\nmax_frame = '16B'\nchecksum = { type = 'xor' }",
    "type = 'fixed'\nlength = 3",
    "type = 'fixed'\nlength = 5\nstart = 'aa'\nend = 'b'\nchecksum = { type = 'xor', position = -2, from = 2 }",
    "type = 'length_prefix'\nsize = 1\nmax_frame = '16B'",
    "type = 'length_prefix'\nsize = 1\nmax_frame = '16B'\ncounts = 'rest'\nchecksum = { type = 'xor' }",
    "type = 'length_prefix'\nsize = 2\nstart = 'aba'\ncounts = 'frame'\nmax_frame = '16B'\nendian = 'little'\nkeep = true",
    "type = 'start_end'\nstart = 'a'\nend = 'b'\nescape = 0\nxor = 1\nmax_frame = '4B'",
    "type = 'start_end'\nstart = 'aba'\nend = 'a'\ntrailer = 2\nmax_frame = '16B'\nchecksum = { type = 'xor' }",
    "type = 'start_end'\nstart = 'b'\nend = 'b'\nescape = 0x61\nmax_frame = '4B'",
    "type = 'slip'\nmax_frame = '16B'",
    "type = 'cobs'\nmax_frame = '16B'\nchecksum = { type = 'xor' }",
    "type = 'silence'\nidle_gap = '5ms'\nmax_frame = '16B'",
];

#[test]
fn a_length_that_is_never_right_is_told_for_each_frame() {
    let mut framer = framer("type = 'fixed'\nlength = 5\nstart = '<'\nend = '>'");
    let (mut input, mut told) = (&b"<ab>\r\n<ab>\r\n<ab>\r\n"[..], Vec::new());
    while let Some(found) = framer.next(&mut input) {
        told.push(found.unwrap_err().to_string());
    }
    let noise = "5 bytes belong to no frame";
    let again = "1 byte belongs to no frame: its `end` is not where its `length` has it";
    let first = "a frame is damaged: its `end` is not where its `length` has it";
    assert_eq!(told, [first, noise, again, noise, again, noise]);
}

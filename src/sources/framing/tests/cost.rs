//! What framing may cost, whatever comes.

use super::*;

#[test]
fn a_frame_that_lies_whole_in_one_read_is_not_copied() {
    for (toml, input) in [
        ("type = 'lines'", &b"ab\nab\n"[..]),
        ("type = 'slip'", b"ab\xc0ab\xc0"),
        ("type = 'cobs'", b"\x03ab\0\x03ab\0"),
        ("type = 'fixed'\nlength = 2", b"abab"),
        ("type = 'length_prefix'\nsize = 1", b"\x02ab\x02ab"),
    ] {
        let (mut framer, mut left) = (framer(toml), input);
        for _ in 0..2 {
            let given = framer.next(&mut left).unwrap().unwrap();
            assert!(input.as_ptr_range().contains(&given.as_ptr()), "{toml}");
        }
    }
}

#[test]
fn a_stream_at_rest_costs_little_and_a_long_frame_twice_its_limit_at_most() {
    assert!(size_of::<Framer>() <= 128, "{}", size_of::<Framer>());
    for toml in VARIANTS {
        let mut framer = framer(toml);
        framer.read_forever();
        let toml = toml.replace("max_frame = '16B'", "max_frame = '64KiB'");
        let mut framer = self::framer(&toml);
        framer.read_forever();
    }
}

/// What only a test asks.
impl Framer {
    /// Reads what never ends a frame, and more than one of those that do, in small pieces.
    fn read_forever(&mut self) {
        let limit = bytes(self.config().common().max_frame);
        let mut noise = fastrand::Rng::with_seed(1);
        for round in 0..3000_usize {
            let mut piece = [b'x'; 100];
            if round % 2 == 1 {
                noise.fill(&mut piece);
            }
            let mut input = &piece[..1 + round % 100];
            while self.next(&mut input).is_some() {}
            assert!(self.capacity() <= 2 * limit + 2 * 256, "{} of {limit}", self.capacity());
        }
        self.silence();
        while self.next(&mut &[][..]).is_some() {}
        assert!(self.capacity() <= 256, "what is kept between frames");
    }
}

#[test]
fn who_sends_wrong_checksums_on_purpose_does_not_make_each_byte_cost_a_frame() {
    let mut framer =
        framer("type = 'length_prefix'\nsize = 2\nmax_frame = '64KiB'\nchecksum = { type = 'crc32' }");
    let (mut out, mut input) = (Vec::new(), &vec![0x80; 1 << 20][..]);
    let mut looks = 0;
    while let Some(found) = framer.next(&mut input) {
        out.push(found.is_err());
        looks += 1;
    }
    // 32 KiB are checked at each; the first 32 are free.
    assert!(looks < 32 + (8 << 20) / (32 << 10) + 8, "{looks}");
    assert!(out.iter().all(|refused| *refused));
}

#[test]
fn who_sends_starts_without_an_end_does_not_have_all_the_rest_looked_at_for_each() {
    for (toml, piece) in [
        ("type = 'start_end'\nstart = [2]\nend = [3]", &b"\x02"[..]),
        ("type = 'start_end'\nstart = [2]\nend = [3]", b"\x02a"),
        ("type = 'start_end'\nstart = [2]\nend = [3]", b"\x02a\x03"),
        ("type = 'start_end'\nstart = [2]\nend = [3]\nmax_frame = '1B'", b"\x02aa\x03\x03"),
        ("type = 'start_end'\nstart = 'aa'\nend = 'ab'", b"a"),
        (
            "type = 'start_end'\nstart = [2]\nend = [3]\nescape = 16\nxor = 32\nmax_frame = '8KiB'",
            b"\x02\x10",
        ),
        ("type = 'start_end'\nstart = [2]\nend = [3]\nescape = 16\nmax_frame = '8KiB'", b"\x02\x10\x10"),
        ("type = 'start_end'\nstart = [2]\nend = [3]\nescape = 16\nmax_frame = '8KiB'", b"\x10"),
        ("type = 'start_end'\nstart = [2]\nend = [3]\nescape = 16\nmax_frame = '8KiB'", b"\x02aaa\x10\x03"),
        ("type = 'start_end'\nstart = 'aba'\nend = 'a'\ntrailer = 2", b"ab"),
    ] {
        let input = piece.repeat(20_000);
        for size in [1, 100, 8192, input.len()] {
            let (mut framer, mut out) = (framer(toml), Vec::new());
            let before = bytes::LOOKED_AT.get();
            input.chunks(size).for_each(|bytes| read(&mut framer, bytes, &mut out));
            let looked_at = bytes::LOOKED_AT.get() - before;
            assert!(
                looked_at <= 16 * input.len(),
                "{looked_at} of {} in reads of {size}: {toml}",
                input.len()
            );
        }
    }
}

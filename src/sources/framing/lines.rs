use memchr::memchr;

use super::{Cut, Found, Place, Refused};

/// Lines of at most `limit` bytes that end in LF or CRLF, which do not count. Empty ones are no frames.
pub(super) fn cut(bytes: &[u8], place: &mut Place, limit: usize) -> Cut {
    let Some(end) = memchr(b'\n', &bytes[place.seen..]).map(|at| place.seen + at) else {
        if place.lost {
            return Cut::Skip(bytes.len());
        }
        // A CR at its end may turn out to be half of the line's end, which does not count.
        if without_cr(bytes).len() > limit {
            place.lost = true;
            return Cut::Refuse(bytes.len() as u64, Refused::TooLong { limit });
        }
        place.seen = bytes.len();
        return Cut::Need(1);
    };
    let (taken, length) = (end + 1, without_cr(&bytes[..end]).len());
    if std::mem::take(&mut place.lost) || length == 0 {
        Cut::Skip(taken)
    } else if length > limit {
        Cut::Refuse(taken as u64, Refused::TooLong { limit })
    } else {
        Cut::Frame(Found::plain(taken, 0..length))
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::sources::framing::{Config, Framer};

    #[derive(Debug, PartialEq)]
    enum Out {
        Frame(Vec<u8>),
        TooLong,
    }

    fn lines(limit: usize) -> Framer {
        let config: Config = toml::from_str(&format!("type = 'lines'\nmax_frame = '{limit}B'")).unwrap();
        Framer::new(&config.into())
    }

    fn take(lines: &mut Framer, mut input: &[u8]) -> Vec<Out> {
        let mut out = Vec::new();
        while let Some(frame) = lines.next(&mut input) {
            out.push(match frame {
                Ok(frame) => Out::Frame(frame.to_vec()),
                Err(Refused::TooLong { .. }) => Out::TooLong,
                Err(other) => panic!("{other}"),
            });
        }
        assert!(input.is_empty());
        out
    }

    fn frame(text: &str) -> Out {
        Out::Frame(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_ends_in_lf_or_crlf_and_an_empty_one_is_no_frame() {
        let mut lines = lines(10);
        assert_eq!(
            take(&mut lines, b"one\ntwo\r\n\r\n\nthr\ree\n"),
            [frame("one"), frame("two"), frame("thr\ree")]
        );
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_frame() {
        let mut lines = lines(10);
        assert_eq!(take(&mut lines, b"te"), []);
        assert_eq!(take(&mut lines, b"mp"), []);
        assert_eq!(lines.unfinished(), 4);
        assert_eq!(take(&mut lines, b"\r"), []);
        assert_eq!(take(&mut lines, b"\nnext\n"), [frame("temp"), frame("next")]);
        assert_eq!(take(&mut lines, b"\r"), []);
        assert_eq!(take(&mut lines, b"\nlast\n"), [frame("last")]);
        assert_eq!(lines.unfinished(), 0);
    }

    #[test]
    fn an_over_long_line_is_told_once_and_the_next_line_is_found() {
        let mut lines = lines(4);
        assert_eq!(
            take(&mut lines, b"1234\n12345\n1234\r\nab\n"),
            [frame("1234"), Out::TooLong, frame("1234"), frame("ab")]
        );
        assert_eq!(take(&mut lines, b"12345"), [Out::TooLong], "told as soon as it cannot fit");
        assert_eq!(take(&mut lines, b"6789012"), []);
        assert_eq!(take(&mut lines, b"3\nab\n"), [frame("ab")]);
    }

    /// The definition, written down over the whole stream at once.
    fn plain(limit: usize, stream: &[u8]) -> Vec<Out> {
        let mut lines: Vec<_> = stream.split(|byte| *byte == b'\n').collect();
        let unfinished = without_cr(lines.pop().unwrap());
        let mut out: Vec<_> = lines
            .into_iter()
            .map(without_cr)
            .filter(|line| !line.is_empty())
            .map(|line| if line.len() > limit { Out::TooLong } else { Out::Frame(line.to_vec()) })
            .collect();
        if unfinished.len() > limit {
            out.push(Out::TooLong);
        }
        out
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_into_reads_the_frames_are_the_same(
            stream in "[ab\r\n]{0,60}",
            cuts in proptest::collection::vec(0_usize..60, 0..12),
            limit in 1_usize..6,
        ) {
            let stream = stream.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut lines = lines(limit);
            let out: Vec<_> =
                cuts.windows(2).flat_map(|cut| take(&mut lines, &stream[cut[0]..cut[1]])).collect();
            prop_assert_eq!(out, plain(limit, stream));
        }
    }
}

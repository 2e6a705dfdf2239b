use memchr::memchr;
use serde::Deserialize;

use super::{MAX_FRAME, TooLong};
use crate::units::Size;

/// Lines that end in LF or CRLF. Empty ones are no frames.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most bytes of a line, without its end: 1B to [`MAX_FRAME`].
    pub max_frame: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_frame: Size(64 << 10) }
    }
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        if (Size(1)..=MAX_FRAME).contains(&self.max_frame) {
            return Vec::new();
        }
        vec![(
            "framing.max_frame",
            format!("`max_frame` {} must lie within 1B and {MAX_FRAME}", self.max_frame),
        )]
    }
}

/// So much of the buffer is kept for the next line; one long line must not hold its memory for ever.
const KEEP: usize = 4096;

/// The state between two reads.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    /// The beginning of a line whose end has not come. Where the line lies whole in one read, it is not copied here.
    begun: Vec<u8>,
    /// Whether `begun` holds a line that was given out and is to be forgotten.
    given: bool,
    /// Whether the rest of an over-long line is being skipped.
    skipping: bool,
}

impl Lines {
    pub(super) fn new(config: &Config) -> Self {
        let limit = usize::try_from(config.max_frame.0.min(MAX_FRAME.0)).unwrap_or(usize::MAX);
        Self { limit, begun: Vec::new(), given: false, skipping: false }
    }

    pub(super) fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
    ) -> Option<Result<&'a [u8], TooLong>> {
        if self.given {
            self.forget();
        }
        while !input.is_empty() {
            let end = memchr(b'\n', input);
            let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
            *input = rest.get(1..).unwrap_or_default();

            if self.skipping {
                self.skipping = end.is_none();
            } else if !self.fits(piece) {
                self.forget();
                self.skipping = end.is_none();
                return Some(Err(TooLong { limit: self.limit }));
            } else if end.is_some() && self.begun.is_empty() {
                let line = without_cr(piece);
                if !line.is_empty() {
                    return Some(Ok(line));
                }
            } else {
                self.begun.extend_from_slice(piece);
                if end.is_some() && without_cr(&self.begun).is_empty() {
                    self.forget();
                } else if end.is_some() {
                    self.given = true;
                    return Some(Ok(without_cr(&self.begun)));
                }
            }
        }
        None
    }

    pub(super) fn unfinished(&self) -> usize {
        if self.given { 0 } else { without_cr(&self.begun).len() }
    }

    /// Whether the line as far as it has come, with `piece`, is within the limit. A CR at its end may turn out to be
    /// half of the line's end, which does not count.
    fn fits(&self, piece: &[u8]) -> bool {
        let cr = piece.last().or(self.begun.last()) == Some(&b'\r');
        self.begun.len() + piece.len() - usize::from(cr) <= self.limit
    }

    fn forget(&mut self) {
        self.begun.clear();
        self.begun.shrink_to(KEEP);
        self.given = false;
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    enum Out {
        Frame(Vec<u8>),
        TooLong,
    }

    fn lines(limit: usize) -> Lines {
        Lines::new(&Config { max_frame: Size(limit as u64) })
    }

    fn take(lines: &mut Lines, mut input: &[u8]) -> Vec<Out> {
        let mut out = Vec::new();
        while let Some(frame) = lines.next(&mut input) {
            out.push(frame.map_or(Out::TooLong, |frame| Out::Frame(frame.to_vec())));
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

    #[test]
    fn memory_stays_within_twice_the_limit_and_is_given_back_after_a_long_line() {
        let mut lines = lines(1 << 16);
        for _ in 0..1 << 10 {
            take(&mut lines, &[b'x'; 1 << 10]);
            assert!(lines.begun.capacity() <= 2 << 16);
        }
        assert_eq!(take(&mut lines, b"\nab"), []);
        assert!(lines.begun.capacity() <= KEEP);
    }

    #[test]
    fn a_limit_of_nothing_or_of_too_much_is_a_problem() {
        for (size, problems) in [(0, 1), (1, 0), (1 << 20, 0), ((1 << 20) + 1, 1)] {
            assert_eq!(Config { max_frame: Size(size) }.problems().len(), problems, "{size}");
        }
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

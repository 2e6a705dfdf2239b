//! Streams on which bytes come and no frame ends: another framing than the device's, or a line that is set wrong. It is
//! judged when bytes come, so that it takes no timer.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::tally::Tally;

/// After so long, in seconds, it is worth a line in the log.
const LONG: u32 = 60;

/// And after bytes in so many seconds apart: some noise, and later a frame in pieces, is none of it.
const OFTEN: u8 = 4;

/// What has come on a stream since its last frame. There may be ten thousand streams.
#[derive(Debug, Default)]
pub(super) struct Since {
    /// In which second of the monotonic clock the first bytes came, and the last.
    first: u32,
    last: u32,
    bytes: u32,
    /// In how many seconds bytes came.
    often: u8,
    told: bool,
}

impl Since {
    /// Bytes have come, and none of them has ended a frame. Gives how many came in all, and in how many seconds, where
    /// that has become worth a line.
    pub(super) fn more(&mut self, bytes: usize, now: Duration) -> Option<(u64, u64)> {
        let now = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        if self.often == 0 {
            self.first = now;
        }
        if self.often == 0 || self.last != now {
            self.often = self.often.saturating_add(1);
        }
        self.last = now;
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let long = now.saturating_sub(self.first);
        let is_news = !self.told && self.often >= OFTEN && long >= LONG;
        self.told |= is_news;
        is_news.then_some((self.bytes.into(), long.into()))
    }
}

/// What a source has told of that.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Whether its one stream, over all that it was opened again, has been told and has ended no frame since.
    once: AtomicBool,
    /// How many of its connections, where it has several.
    connections: Tally,
}

impl Told {
    /// Whether to tell it now.
    pub(super) fn is_news(&self, is_one_of_many: bool) -> bool {
        if is_one_of_many {
            self.connections.count().is_some()
        } else {
            !self.once.swap(true, Ordering::Relaxed)
        }
    }

    /// A frame has ended.
    pub(super) fn ended(&self) {
        if self.once.load(Ordering::Relaxed) {
            self.once.store(false, Ordering::Relaxed);
        }
    }
}

/// That so many bytes came in so many seconds, the last of which are `tail`, and what to look at.
#[must_use]
pub fn told(bytes: u64, seconds: u64, tail: &[u8]) -> String {
    let noun = if bytes == 1 { "byte" } else { "bytes" };
    let mut told = format!(
        "{bytes} {noun} came and no frame ended for {seconds} s: check `framing`, and that `baud` and `parity` of a serial \
         line are the device's"
    );
    if is_ended_by_cr(tail) {
        let _ = write!(
            told,
            "; its lines end in CR, without LF: `framing = {{ type = \"delimiter\", delimiter = \"\\r\" }}`"
        );
    }
    told
}

/// Whether it looks like text whose lines end in CR alone.
fn is_ended_by_cr(bytes: &[u8]) -> bool {
    bytes.contains(&b'\r') && bytes.iter().all(|byte| *byte >= b' ' || matches!(byte, b'\r' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn bytes_without_a_frame_are_worth_one_line_after_a_minute_of_them() {
        let mut since = Since::default();
        let told: Vec<_> = (100..300).filter_map(|second| since.more(2, at(second))).collect();
        assert_eq!(told, [(122, 60)]);
    }

    #[test]
    fn noise_and_much_later_a_frame_in_pieces_are_worth_none() {
        let mut since = Since::default();
        assert_eq!(since.more(1, at(0)), None);
        assert!((0..20).all(|_| since.more(5, at(3_600)).is_none()));
        assert_eq!(since.more(5, at(3_601)), None);
        assert_eq!(since.more(5, at(7_200)), Some((111, 7_200)));
    }

    #[test]
    fn one_stream_is_told_again_once_frames_have_come_and_of_many_ever_fewer() {
        let told = Told::default();
        assert!(told.is_news(false) && !told.is_news(false));
        told.ended();
        assert!(told.is_news(false));
        assert_eq!((0..100).filter(|_| told.is_news(true)).count(), 3);
    }

    #[test]
    fn text_with_cr_alone_is_named_and_garbage_that_has_one_is_not() {
        assert!(told(9, 10, b"1\r t=21.5 \xb0C\r").ends_with(r#"delimiter = "\r" }`"#));
        for other in [&b"21.5"[..], b"1\r\n2", b"\x00\r\xff", b""] {
            assert!(told(1, 10, other).starts_with("1 byte came"));
            assert!(told(1, 10, other).ends_with("are the device's"), "{other:?}");
        }
    }
}

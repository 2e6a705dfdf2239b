//! What comes from outside, or is as long as somebody likes, cut so that it is fit for a log and for whoever looks on.

use std::fmt::{self, Display, Write};

/// So many bytes of what is quoted are shown.
const SHOWN: usize = 64;

/// The beginning of a frame, without its control characters: as it came, where there is nothing else in it.
pub(super) fn frame(frame: &[u8]) -> String {
    let start = frame.get(..SHOWN).unwrap_or(frame);
    let is_plain = start.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let mut shown = String::from("`");
    for byte in start {
        match byte {
            b'"' | b'\'' => shown.push(char::from(*byte)),
            b'\\' if is_plain => shown.push('\\'),
            byte => shown.extend(byte.escape_ascii().map(char::from)),
        }
    }
    if frame.len() > SHOWN {
        let _ = write!(shown, "…` ({} bytes)", frame.len());
        return shown;
    }
    shown + "`"
}

/// The beginning of a text in quotes, as `{:?}` writes it: bounded with its escapes, of which one may have ten bytes.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    for letter in text.chars() {
        let before = shown.len();
        match letter {
            '\'' => shown.push('\''),
            letter => shown.extend(letter.escape_debug()),
        }
        if shown.len() > SHOWN + 1 {
            shown.truncate(before);
            let _ = write!(shown, "…\" ({} bytes)", text.len());
            return shown;
        }
    }
    shown + "\""
}

/// The first `most` bytes of what `what` says, and how long it is where that is not all. No more is ever held.
pub(super) fn cut(what: impl Display, most: usize) -> String {
    let mut start = Start { text: String::new(), most, length: 0, over: false };
    let _ = write!(start, "{what}");
    let Start { mut text, length, over, .. } = start;
    if over {
        let _ = write!(text, "… ({length} bytes)");
    }
    text
}

struct Start {
    text: String,
    most: usize,
    length: usize,
    over: bool,
}

impl Write for Start {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.length += piece.len();
        if self.over {
            return Ok(());
        }
        let mut end = piece.len().min(self.most - self.text.len());
        while !piece.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(piece.get(..end).unwrap_or_default());
        self.over = end < piece.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_shows_the_beginning_of_a_frame_without_its_control_characters() {
        assert_eq!(frame(b"a\x1b[2J\n"), r"`a\x1b[2J\n`");
        assert_eq!(frame(br#"{"t":'a\b'}"#), r#"`{"t":'a\b'}`"#, "as it came");
        assert_eq!(frame(b"\"a\\b\"\0"), r#"`"a\\b"\x00`"#);
        assert_eq!(frame(&[b'x'; 65]), format!("`{}…` (65 bytes)", "x".repeat(64)));
    }

    #[test]
    fn what_is_quoted_is_bounded_whatever_it_is_made_of() {
        for text in ["", "nan", "a\"b\\", "it's\n", "ü\u{202e}"] {
            assert_eq!(quoted(text), format!("{text:?}"));
        }
        assert_eq!(quoted(&"x".repeat(64)), format!("{:?}", "x".repeat(64)));
        assert_eq!(quoted(&"x".repeat(65)), format!("\"{}…\" (65 bytes)", "x".repeat(64)));
        for letter in ["x", "\u{1}", "ü", "\u{e0001}", "\""] {
            let quoted = quoted(&letter.repeat(1 << 20));
            assert!(quoted.len() < 100 && quoted.contains("…\" ("), "{quoted}");
        }
    }

    #[test]
    fn what_is_cut_says_how_long_it_was_and_is_cut_between_letters() {
        assert_eq!(cut("12345", 5), "12345");
        assert_eq!(cut("123456", 5), "12345… (6 bytes)");
        assert_eq!(cut("üüü", 5), "üü… (6 bytes)");
        assert_eq!(cut(format_args!("{}{}{}", "üü", "ü", "a"), 5), "üü… (7 bytes)");
    }
}

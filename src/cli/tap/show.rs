//! Events of a source for a person at a cabinet.

use std::fmt::Write;
use std::ops::Range;

use crate::sources::tap::{Event, Frame, Told, What, no_frame};

/// Bytes of a frame in one line.
const ACROSS: usize = 16;

/// What the lines below a time begin with.
const INDENT: &str = "              ";

/// The times that a device's clock may well tell, 2000 to 2200: others more likely count in another unit.
const LIKELY: Range<i64> = 946_684_800_000..7_258_118_400_000;

const RED: &str = "31";
const GREEN: &str = "32";
const DIM: &str = "2";

/// Turns events into lines.
pub(super) struct Show {
    /// Whether a terminal shows them.
    in_colour: bool,
    where_to_look: String,
    /// Whether the last event was a frame that came in, with its time.
    is_behind_frame: bool,
}

impl Show {
    pub(super) fn new(in_colour: bool) -> Self {
        Self { in_colour, where_to_look: String::new(), is_behind_frame: false }
    }

    /// The first lines. `where_to_look` is what to do where nothing comes in.
    pub(super) fn begin(&mut self, source: &str, where_to_look: &str, by_daemon: bool) -> String {
        self.where_to_look = clean(where_to_look);
        let how = if by_daemon {
            "read by the weir that runs, which goes on as ever"
        } else {
            "no weir runs here: opened by this command, which holds its port or address as long as it runs; nothing is kept or \
             forwarded"
        };
        let source = clean(source);
        format!("source {source}: {how}\n`<` came in, `>` went out; times are UTC; Ctrl-C ends it\n")
    }

    pub(super) fn event(&mut self, event: &Event) -> String {
        let time = time(event.at);
        let is_received = matches!(event.what, What::Received(_));
        let is_behind_frame = std::mem::replace(&mut self.is_behind_frame, is_received);
        let line = |colour, text: &str| format!("{}  {}\n", self.paint(DIM, &time), self.paint(colour, text));
        match &event.what {
            What::Open => line(GREEN, "open"),
            What::Failed(why) => line(RED, &format!("{} (trying again)", clean(why))),
            What::Received(frame) => self.frame(&time, '<', frame),
            What::Sent(frame) => self.frame(&time, '>', frame),
            What::Decoded { readings, count, ignored, first_ignored } => {
                let decoded = self.decoded(readings, *count, *ignored, first_ignored.as_deref());
                match decoded.strip_prefix(INDENT) {
                    // Behind the frame that says so, whose time is its own.
                    Some(decoded) if !is_behind_frame => format!("{}  {decoded}", self.paint(DIM, &time)),
                    _ => decoded,
                }
            }
            What::Refused { cause, why, tail } if tail.is_empty() => {
                line(RED, &format!("refused ({}): {}", clean(cause), clean(why)))
            }
            What::Refused { cause, why, tail } => {
                line(RED, &format!("refused ({}): {}; the last bytes:", clean(cause), clean(why)))
                    + &self.lines(' ', tail)
            }
            What::Quiet { seconds, bytes: 0, .. } => {
                line(RED, &format!("nothing received for {seconds} s: {}", self.where_to_look))
            }
            What::Quiet { seconds, bytes, tail } => {
                let said = no_frame(*bytes, *seconds, tail);
                line(RED, &format!("{said}; the last bytes:")) + &self.lines(' ', tail)
            }
            What::Lost(count) => {
                line(RED, &format!("{count} lines lost here: they came faster than they were read"))
            }
        }
    }

    fn frame(&self, time: &str, way: char, frame: &Frame) -> String {
        let mut text = String::new();
        let head = frame.head.as_deref().map(clean).unwrap_or_default();
        let empty = if frame.length == 0 && head.is_empty() { "(empty)" } else { "" };
        if !head.is_empty() || frame.bytes.is_empty() {
            let _ = writeln!(text, "{}  {way} {head}{empty}", self.paint(DIM, time));
            text += &self.lines(' ', &frame.bytes);
        } else {
            let lines = self.lines(way, &frame.bytes);
            let _ = write!(text, "{}{}", self.paint(DIM, time), lines.get(time.len()..).unwrap_or_default());
        }
        if let Some(more) = frame.length.checked_sub(frame.bytes.len()).filter(|more| *more > 0) {
            let _ = writeln!(text, "{INDENT}  … and {more} bytes more");
        }
        text
    }

    /// Bytes as hex, and as text where they are such.
    fn lines(&self, way: char, bytes: &[u8]) -> String {
        let mut text = String::new();
        for (row, bytes) in bytes.chunks(ACROSS).enumerate() {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let shown =
                |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
            let letters: String = bytes.iter().map(shown).collect();
            let way = if row == 0 { way } else { ' ' };
            let width = 3 * ACROSS - 1;
            let _ = writeln!(text, "{INDENT}{way} {:width$}  |{letters}|", hex.join(" "));
        }
        text
    }

    fn decoded(&self, readings: &[Told], count: usize, ignored: u64, first: Option<&str>) -> String {
        let names: Vec<String> =
            readings.iter().map(|told| clean(&format!("{}/{}", told.device, told.metric))).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (told, name) in readings.iter().zip(names) {
            let unit = told.unit.as_ref().map(|unit| format!(" {}", clean(unit))).unwrap_or_default();
            let doubt = |at| if LIKELY.contains(&at) { "" } else { " (is `time_unit` right?)" };
            let at = told.time.map(|at| format!("  at {}{}", date(at), doubt(at))).unwrap_or_default();
            let reading = format!("{name:width$} = {}{unit}", clean(&told.value));
            let _ = writeln!(text, "{INDENT}  {}{at}", self.paint(GREEN, &reading));
        }
        if count > readings.len() {
            let _ = writeln!(text, "{INDENT}  … and {} readings more", count - readings.len());
        }
        if count == 0 && ignored == 0 {
            let _ = writeln!(text, "{INDENT}  no reading in it");
        }
        if ignored > 0 {
            let fields = if ignored == 1 { "field is no reading" } else { "fields are no readings" };
            let first = match first {
                Some(first) if ignored == 1 => format!(": {}", clean(first)),
                Some(first) => format!(", first: {}", clean(first)),
                None => String::new(),
            };
            let _ = writeln!(text, "{INDENT}  {ignored} {fields}, left out{first}");
        }
        text
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.in_colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Without what would move a terminal's cursor, or do worse, such as turn the direction of writing round.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            clean.push('.');
        } else if letter.escape_debug().nth(1) == Some('u') {
            clean.extend(letter.escape_debug());
        } else {
            clean.push(letter);
        }
    }
    clean
}

const DAY: i64 = 86_400_000;

/// The time of day.
fn time(millis: i64) -> String {
    let of_day = millis.rem_euclid(DAY);
    let (seconds, millis) = (of_day / 1_000, of_day % 1_000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Date and time of day.
fn date(millis: i64) -> String {
    // Days since 0000-03-01, by eras of 400 years: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = millis.div_euclid(DAY) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let date = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02} {}", time(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_795_422_520_123;

    fn frame(head: Option<&str>, bytes: &[u8], length: usize) -> Frame {
        Frame { head: head.map(str::to_owned), bytes: bytes.to_vec(), length }
    }

    fn shown(what: What) -> String {
        Show::new(false).event(&Event { at: AT, what })
    }

    fn told(metric: &str, value: &str) -> Told {
        Told {
            device: "boiler".into(),
            metric: metric.into(),
            value: value.into(),
            unit: Some("Cel".into()),
            time: None,
        }
    }

    #[test]
    fn a_frame_is_shown_as_hex_and_text_side_by_side() {
        let long = frame(None, b"{\"t\":21.5}\r\x1b[2J!!!", 100);
        assert_eq!(
            shown(What::Received(long)),
            "08:28:40.123  < 7b 22 74 22 3a 32 31 2e 35 7d 0d 1b 5b 32 4a 21  |{\"t\":21.5}..[2J!|\n\
             \u{20}               21 21                                            |!!|\n\
             \u{20}               … and 82 bytes more\n"
        );
        assert_eq!(
            shown(What::Sent(frame(Some("GET /x"), &[1], 1))),
            "08:28:40.123  > GET /x\n                01                                               |.|\n"
        );
        assert_eq!(shown(What::Received(frame(None, b"", 0))), "08:28:40.123  < (empty)\n");
    }

    #[test]
    fn readings_are_aligned_and_what_would_play_with_the_terminal_is_taken_out() {
        let mut late = told("p", "\"a\x1b[2Jb\"");
        (late.time, late.unit) = (Some(AT), None);
        let readings = vec![told("temperature", "21.5"), late];
        assert_eq!(
            shown(What::Decoded {
                readings,
                count: 70,
                ignored: 2,
                first_ignored: Some("`s` holds text".into())
            }),
            "08:28:40.123    boiler/temperature = 21.5 Cel\n\
             \u{20}               boiler/p           = \"a.[2Jb\"  at 2026-11-23 08:28:40.123\n\
             \u{20}               … and 68 readings more\n\
             \u{20}               2 fields are no readings, left out, first: `s` holds text\n"
        );
        let mut year = told("t", "1");
        year.time = Some(1_795_422_520_123_000);
        let decoded = What::Decoded { readings: vec![year], count: 1, ignored: 0, first_ignored: None };
        assert!(shown(decoded).ends_with(" (is `time_unit` right?)\n"));
        let decoded = What::Decoded { readings: vec![], count: 0, ignored: 0, first_ignored: None };
        assert_eq!(shown(decoded), "08:28:40.123    no reading in it\n");
        let mut show = Show::new(false);
        let decoded = |ignored| Event {
            at: AT,
            what: What::Decoded {
                readings: vec![],
                count: 0,
                ignored,
                first_ignored: Some("`s` holds text".into()),
            },
        };
        show.event(&Event { at: AT, what: What::Received(frame(None, b"x", 1)) });
        assert_eq!(
            show.event(&decoded(1)),
            format!("{INDENT}  1 field is no reading, left out: `s` holds text\n")
        );
        assert_eq!(
            show.event(&decoded(1)),
            "08:28:40.123    1 field is no reading, left out: `s` holds text\n"
        );
        let refused = |tail: &[u8]| {
            shown(What::Refused { cause: "damaged".into(), why: "no\nJSON".into(), tail: tail.to_vec() })
        };
        assert_eq!(refused(b""), "08:28:40.123  refused (damaged): no.JSON\n");
        let turned = shown(What::Failed("a\u{202e}b\u{2028}c\u{200b}é\"'\\".into()));
        assert_eq!(turned, "08:28:40.123  a\\u{202e}b\\u{2028}c\\u{200b}é\"'\\ (trying again)\n");
        let text = refused(b"\x02");
        assert!(text.starts_with("08:28:40.123  refused (damaged): no.JSON; the last bytes:\n"), "{text}");
        assert!(text.ends_with(" 02                                               |.|\n"), "{text}");
    }

    #[test]
    fn a_silence_says_what_to_look_at() {
        let mut show = Show::new(false);
        assert!(
            show.begin("line", "check the wiring\u{202e}\x1b", false)
                .starts_with("source line: no weir runs here")
        );
        let quiet = |bytes, tail: &[u8]| Event {
            at: AT,
            what: What::Quiet { seconds: 10, bytes, tail: tail.to_vec() },
        };
        assert_eq!(
            show.event(&quiet(0, b"")),
            "08:28:40.123  nothing received for 10 s: check the wiring\\u{202e}.\n"
        );
        let garbled = show.event(&quiet(2, b"\xff\x00"));
        assert!(garbled.contains("2 bytes came and no frame ended for 10 s: check `framing`"), "{garbled}");
        assert!(garbled.ends_with(" ff 00                                            |..|\n"), "{garbled}");
    }

    #[test]
    fn only_a_terminal_is_given_colours() {
        let event = Event { at: AT, what: What::Open };
        assert_eq!(Show::new(true).event(&event), "\x1b[2m08:28:40.123\x1b[0m  \x1b[32mopen\x1b[0m\n");
        assert!(!Show::new(false).event(&event).contains('\x1b'));
    }

    #[test]
    fn dates_are_right_at_the_ends_of_months_and_years() {
        for (millis, shown) in [
            (0, "1970-01-01 00:00:00.000"),
            (-1, "1969-12-31 23:59:59.999"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (951_868_800_000, "2000-03-01 00:00:00.000"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
            (1_798_761_599_999, "2026-12-31 23:59:59.999"),
        ] {
            assert_eq!(date(millis), shown);
        }
    }
}

//! What a person sees: plain lines, with colour where a terminal shows them.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde_json::{Map, Value};
use weir::clock::{self, Clock, Trust};

/// Lines of text end here.
const WIDTH: usize = 96;

/// What stands before the text of an event.
const INDENT: usize = 10;

#[derive(Clone, Copy)]
pub(super) enum Style {
    Plain,
    Title,
    Quiet,
    Notable,
    Good,
    Bad,
}

#[derive(Clone)]
pub(super) struct Screen {
    colour: bool,
    clock: Clock,
    ids: HashSet<String>,
}

impl Screen {
    /// `dir` is where the clock would note that it is trusted; this one is from the start.
    pub(super) fn new(dir: &Path) -> Self {
        let clock = Clock::system(&clock::Config { trust: Trust::Rtc, ..Default::default() }, dir);
        Self { colour: io::stdout().is_terminal(), clock, ids: HashSet::new() }
    }

    /// Prints. Where nobody reads on, the demo goes on to its end all the same.
    pub(super) fn line(&self, style: Style, text: &str) {
        let code = match style {
            Style::Plain => "",
            Style::Title => "1",
            Style::Quiet => "2",
            Style::Notable => "33",
            Style::Good => "32",
            Style::Bad => "31",
        };
        let mut stdout = io::stdout().lock();
        let _ = if self.colour && !code.is_empty() {
            writeln!(stdout, "\x1b[{code}m{text}\x1b[0m")
        } else {
            writeln!(stdout, "{text}")
        };
    }

    /// An act begins: what happens, and what to look at.
    pub(super) fn act(&self, title: &str, text: &str) {
        self.line(Style::Title, &format!("\n== {title}"));
        self.line(Style::Plain, text);
    }

    /// Something aside, broken into lines.
    pub(super) fn note(&self, text: &str) {
        let mut broken = String::new();
        let mut width = INDENT;
        for word in text.split_whitespace() {
            width += 1 + word.len();
            if width > WIDTH {
                broken += "\n          ";
                width = INDENT + 1 + word.len();
            }
            broken += " ";
            broken += word;
        }
        self.event(Style::Quiet, broken.trim_start());
    }

    /// What the columns of [`Screen::arrival`] are.
    pub(super) fn heading(&self) {
        self.line(Style::Quiet, " arrived    id  device  measured  what");
    }

    /// A message that has arrived.
    pub(super) fn arrival(&mut self, topic: &str, message: &Value) {
        let Some(metrics) = message["metrics"].as_object() else {
            let said = match message["online"].as_bool() {
                Some(online) => format!(
                    "{} (connection {})",
                    if online { "online" } else { "offline" },
                    message["connection"]
                ),
                None => message.to_string(),
            };
            return self.note(&format!("{topic} says: {said}"));
        };
        let id = message["id"].as_str().unwrap_or_default();
        let sequence = format!("#{}", id.rsplit('-').next().unwrap_or_default());
        let device = message["device"].as_str().unwrap_or_default();
        let time = |key| message.get(key).unwrap_or(&message["time"]).as_i64().unwrap_or(0);
        let measured = time_of_day(time("start"));
        let mut line = format!("{sequence:>4}  {device:<8}{measured}  {:<41}", show(metrics));
        // A live message is here at once.
        let waited = (self.clock.now().wall.0 - time("end")) / 1_000;
        if waited > 0 {
            line += &format!("  waited {waited} s");
        }
        if !self.ids.insert(id.to_owned()) {
            line += ", again";
        }
        self.event(if waited > 0 { Style::Notable } else { Style::Plain }, line.trim_end());
    }

    fn event(&self, style: Style, text: &str) {
        self.line(style, &format!("{:>6.1} s  {text}", self.clock.monotonic().as_secs_f64()));
    }
}

/// `temperature count 20 mean 61.35 max 61.81`
fn show(metrics: &Map<String, Value>) -> String {
    let mut shown = String::new();
    for (metric, fields) in metrics {
        shown += metric;
        for field in ["count", "mean", "max", "value"] {
            shown += &match &fields[field] {
                Value::Null => String::new(),
                Value::Number(number) if number.is_f64() => {
                    format!(" {field} {:>5.2}", number.as_f64().unwrap_or(f64::NAN))
                }
                other => format!(" {field} {:>2}", other.to_string()),
            };
        }
    }
    shown
}

/// Hours, minutes and seconds of Unix milliseconds, in UTC.
fn time_of_day(time: i64) -> String {
    let seconds = time.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

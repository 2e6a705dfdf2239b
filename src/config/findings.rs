use std::collections::BTreeSet;
use std::ops::Range;

use super::problem::{Problem, Severity};

/// So that a file that is no configuration at all does not fill the screen.
pub(super) const MOST: usize = 100;

/// Shorter values are no secrets, and replacing them would garble words.
const SHORTEST_SECRET: usize = 4;

/// What has been found wrong so far, and what must not be told.
pub(super) struct Findings<'f> {
    pub(super) source: &'f str,
    problems: Vec<Problem>,
    /// Lines that are no TOML: what else they seem to say is guesswork.
    torn: BTreeSet<usize>,
    /// What was put in for `${NAME}`, and the `${NAME}` itself.
    secrets: Vec<(String, String)>,
}

impl<'f> Findings<'f> {
    pub(super) fn new(source: &'f str) -> Self {
        Self { source, problems: Vec::new(), torn: BTreeSet::new(), secrets: Vec::new() }
    }

    /// The file is no TOML here.
    pub(super) fn syntax(&mut self, span: Range<usize>, text: String, help: Option<String>) {
        // Finding the line takes a walk through the file.
        if self.full() {
            return;
        }
        let line = self.line(span.start);
        // What follows on the same line mostly follows from the first.
        if self.torn.insert(line) {
            self.push(Severity::Error, span, text, help);
        }
    }

    pub(super) fn error(&mut self, span: Range<usize>, text: impl Into<String>, help: Option<String>) {
        self.wrong(Severity::Error, span, text.into(), help);
    }

    /// Something is wrong here, so severely.
    pub(super) fn wrong(
        &mut self,
        severity: Severity,
        span: Range<usize>,
        text: String,
        help: Option<String>,
    ) {
        if self.torn.is_empty() || !self.torn.contains(&self.line(span.start)) {
            self.push(severity, span, text, help);
        }
    }

    /// Something that should be there is not; where the file is torn it may be, unread.
    pub(super) fn absence(&mut self, span: Range<usize>, text: impl Into<String>, help: Option<String>) {
        if self.torn.is_empty() {
            self.push(Severity::Error, span, text.into(), help);
        }
    }

    pub(super) fn warning(&mut self, span: Range<usize>, text: impl Into<String>) {
        self.push(Severity::Warning, span, text.into(), None);
    }

    pub(super) fn secret(&mut self, name: &str, value: &str) {
        if value.len() >= SHORTEST_SECRET {
            self.secrets.push((value.to_owned(), format!("${{{name}}}")));
        }
    }

    /// Whether nothing more is taken.
    pub(super) fn full(&self) -> bool {
        self.problems.len() >= MOST
    }

    /// What was found, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        self.problems
    }

    /// A place for what should be in the file and is nowhere: its end.
    pub(super) fn end(&self) -> Range<usize> {
        let end = self.source.trim_end().len();
        end..end
    }

    fn push(&mut self, severity: Severity, span: Range<usize>, text: String, help: Option<String>) {
        // What stands in for something is in no file.
        if self.full() || span.end > self.source.len() {
            return;
        }
        let (text, help) = (self.told(text), help.map(|help| self.told(help)));
        self.problems.push(Problem { severity, text, help, span: Some(span) });
    }

    /// `text` with `${NAME}` in place of what it stands for.
    fn told(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, (value, name)| text.replace(value, name))
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.source.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }
}

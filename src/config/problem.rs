use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Everything that is wrong with one file, or may become so, in the order of the file.
#[derive(Clone, Debug)]
pub struct Problems {
    pub(super) file: PathBuf,
    pub(super) source: String,
    pub(super) list: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether weir can run all the same.
    pub severity: Severity,
    /// What is wrong, with the key or value that it concerns.
    pub text: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Bytes of the file; `None` where the file itself cannot be read.
    pub(super) span: Option<Range<usize>>,
}

/// Whether weir can run all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but what this is about cannot until somebody mends a file: for `check` an error, for `run` a warning.
    Unfit,
    /// It can: what is not there may come later.
    Warning,
}

impl Problems {
    pub(super) fn of_file(file: &Path, text: String, help: String) -> Self {
        let problem = Problem { severity: Severity::Error, text, help: Some(help), span: None };
        Self { file: file.into(), source: String::new(), list: vec![problem] }
    }

    /// The file that they are in.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Each of them, with its line and column (in characters), both from 1.
    pub fn iter(&self) -> impl Iterator<Item = (&Problem, Option<(usize, usize)>)> {
        self.list.iter().map(|problem| (problem, problem.span.as_ref().map(|span| self.position(span.start))))
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.source.get(..at).unwrap_or(&self.source);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// How many errors and how many warnings there are.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let errors = self.list.iter().filter(|problem| problem.severity == Severity::Error).count();
        (errors, self.list.len() - errors)
    }

    /// Whether something can do nothing until it is mended, though weir can run.
    #[must_use]
    pub fn has_unfit(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Unfit)
    }

    /// The same for whoever asks whether all is right: what is unfit is an error.
    #[must_use]
    pub fn strictly(mut self) -> Self {
        for problem in self.list.iter_mut().filter(|problem| problem.severity == Severity::Unfit) {
            problem.severity = Severity::Error;
        }
        self
    }

    /// All of them for a person: what, where, the line of the file and what to do.
    #[must_use]
    pub fn show(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let file = self.file.display().to_string();
        let shown: Vec<String> =
            self.list.iter().map(|problem| renderer.render(&[self.group(problem, &file)])).collect();
        shown.join("\n\n")
    }

    fn group<'a>(&'a self, problem: &'a Problem, file: &'a str) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Unfit | Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(problem.text.as_str()));
        if let Some(span) = &problem.span {
            let mark = AnnotationKind::Primary.span(span.clone());
            let snippet = Snippet::source(Cow::Borrowed(self.source.as_str())).path(file).annotation(mark);
            group = group.element(snippet);
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show(false))
    }
}

impl std::error::Error for Problems {}

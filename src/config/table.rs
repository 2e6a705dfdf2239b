use std::ops::Range;

use toml::de::DeValue;

use super::expand::expand;
use super::explain::shown;
use super::findings::Findings;
use super::problem::Severity;
use super::recover::{Check, Read};
use super::tree::{self, Node, Path, Step};
use super::words;

/// A table, its texts expanded.
pub(super) struct Table<'f> {
    /// Its name, as it stands in the file: `[sources.boiler]`.
    pub(super) title: String,
    pub(super) node: Node<'f>,
    /// Keys that are no business of the stage.
    pub(super) own: &'static [&'static str],
    /// Places of values that were taken out: that they are missing is no news.
    pub(super) removed: Vec<Path>,
}

impl<'f> Table<'f> {
    /// `node` as a table; where it is none, that is found wrong. `title` is how it should stand in the file, `own` are
    /// the keys that [`Table::read`] leaves to [`Table::kind`] and [`Table::read_own`].
    pub(super) fn new(
        title: String,
        mut node: Node<'f>,
        own: &'static [&'static str],
        variable: &dyn Fn(&str) -> Option<String>,
        findings: &mut Findings<'f>,
    ) -> Option<Self> {
        if !node.get_ref().is_table() {
            let help = format!("write {title} on a line of its own and the keys below it");
            findings.error(node.span(), format!("{title} must be a table"), Some(help));
            return None;
        }
        let mut removed = Vec::new();
        expand_texts(&mut node, &[], variable, findings, &mut removed);
        for path in removed.iter().rev() {
            tree::remove(&mut node, path);
        }
        Some(Self { title, node, own, removed })
    }

    /// The `type`, where it is one of `types`.
    pub(super) fn kind(&self, types: &[&str], findings: &mut Findings<'f>) -> Option<String> {
        let path = vec![Step::Key("type".into())];
        let help = |word| words::instead(word, types, "\"");
        match tree::get(&self.node, &path) {
            Some((_, value)) => match value.get_ref().as_str() {
                Some(kind) if types.contains(&kind) => return Some(kind.to_owned()),
                Some(kind) => {
                    let text = format!("`type` cannot be {}", shown(value, findings));
                    findings.error(value.span(), text, help(kind));
                }
                None => findings.error(value.span(), "`type` must be a text in quotes", help("")),
            },
            None if self.removed.contains(&path) => {}
            None => {
                let text = format!("`type` is missing in {}", self.title);
                findings.absence(self.node.span(), text, help(""));
            }
        }
        None
    }

    /// Reads what is the stage's, and finds everything that is wrong with it. `None` where something is.
    pub(super) fn read<T, K: AsRef<str>>(
        &mut self,
        findings: &mut Findings<'f>,
        read: Read<'_, 'f, T>,
        problems: Check<'_, T, K>,
    ) -> Option<T> {
        let rest = self.part(|key| !self.own.contains(&key));
        self.recover(rest, findings, read, &[(Severity::Error, problems)])
    }

    /// As [`Table::read`], where the table names files: `unfit` tells what is wrong with those.
    pub(super) fn read_with_files<T, K: AsRef<str>>(
        &mut self,
        findings: &mut Findings<'f>,
        read: Read<'_, 'f, T>,
        problems: Check<'_, T, K>,
        unfit: Check<'_, T, K>,
    ) -> Option<T> {
        let rest = self.part(|key| !self.own.contains(&key));
        self.recover(rest, findings, read, &[(Severity::Error, problems), (Severity::Unfit, unfit)])
    }

    /// Reads the other keys, but for the `type`. After [`Table::read`], so that one which that found misspelt is not
    /// missing here.
    pub(super) fn read_own<T, K: AsRef<str>>(
        &mut self,
        findings: &mut Findings<'f>,
        read: Read<'_, 'f, T>,
        problems: Check<'_, T, K>,
    ) -> Option<T> {
        let own = self.part(|key| self.own.contains(&key) && key != "type");
        self.recover(own, findings, read, &[(Severity::Error, problems)])
    }

    /// Finds that something is not there yet, or is hardly meant so, as a stage tells it.
    pub(super) fn warn<K: AsRef<str>>(&self, told: Vec<(K, String)>, findings: &mut Findings<'f>) {
        for (key, text) in told {
            let key = key.as_ref();
            findings.warning(self.span(key), words::about(key, text));
        }
    }

    fn part(&self, wanted: impl Fn(&str) -> bool) -> Node<'f> {
        let mut part = self.node.clone();
        for step in tree::steps(self.node.get_ref()) {
            if !matches!(&step, Step::Key(key) if wanted(key)) {
                tree::remove(&mut part, &[step]);
            }
        }
        part
    }

    /// Where the value of `key` stands, which may be a path (`tls.cert`), or else the innermost part of it.
    pub(super) fn span(&self, key: &str) -> Range<usize> {
        self.span_of(&tree::path(key))
    }

    /// Where the value at `path` stands, or else the innermost part of it.
    pub(super) fn span_of(&self, path: &[Step]) -> Range<usize> {
        let found = (1..=path.len()).rev().find_map(|known| tree::get(&self.node, &path[..known]));
        found.map_or_else(|| self.node.span(), |(_, value)| value.span())
    }
}

fn expand_texts<'f>(
    node: &mut Node<'f>,
    path: &[Step],
    variable: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings<'f>,
    removed: &mut Vec<Path>,
) {
    let span = node.span();
    match node.get_mut() {
        DeValue::String(text) if text.contains("${") => {
            match expand(text, variable, |name, value| findings.secret(name, value)) {
                Ok(expanded) => *text = expanded.into(),
                Err(wrong) => {
                    // The text may be written with escapes; then the whole of it is marked.
                    let blamed = text.get(wrong.blame.clone()).unwrap_or(text);
                    let within = findings.source.get(span.clone()).and_then(|written| written.find(blamed));
                    let blame = within.map_or(span.clone(), |offset| {
                        span.start + offset..span.start + offset + blamed.len()
                    });
                    findings.error(blame, wrong.text, Some(wrong.help));
                    removed.push(path.to_vec());
                }
            }
        }
        DeValue::Array(array) => {
            for (index, item) in array.iter_mut().enumerate() {
                expand_texts(item, &tree::join(path, Step::Item(index)), variable, findings, removed);
            }
        }
        DeValue::Table(table) => {
            for (key, value) in table.iter_mut() {
                let path = tree::join(path, Step::Key(key.get_ref().to_string()));
                expand_texts(value, &path, variable, findings, removed);
            }
        }
        _ => {}
    }
}

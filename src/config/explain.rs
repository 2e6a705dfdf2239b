//! What is wrong with a table, told to a person.

use toml::de::DeValue;

use super::findings::Findings;
use super::recover::{Read, place};
use super::table::Table;
use super::tree::{self, Node, Step};
use super::words::{self, Complaint};

impl<'f> Table<'f> {
    /// Reports that the table at `path` lacks `key`.
    pub(super) fn report_missing(
        &self,
        path: &[Step],
        rest: &Node<'f>,
        key: &str,
        findings: &mut Findings<'f>,
    ) {
        let span = tree::get(rest, path).map_or_else(|| self.node.span(), |(_, table)| table.span());
        let within =
            name(path).map_or_else(|| self.title.clone(), |name| format!("{name} of {}", self.title));
        findings.absence(span, format!("`{key}` is missing in {within}"), words::example(key));
    }

    /// Reports what is wrong at `path`.
    pub(super) fn report<T>(
        &self,
        path: &[Step],
        rest: &Node<'f>,
        complaint: &Complaint<'_>,
        read: Read<'_, 'f, T>,
        findings: &mut Findings<'f>,
    ) {
        let Some((key_span, value)) = tree::get(rest, path) else { return };
        let name = name(path).unwrap_or_else(|| self.title.clone());
        let (text, help) = match complaint {
            Complaint::UnknownKey(known) => {
                let (Some(Step::Key(key)), Some(span)) = (path.last(), key_span) else { return };
                let help = words::instead(key, &self.all_keys(path, known), "`");
                findings.error(span, format!("unknown key `{key}` in {}", self.within(path)), help);
                return;
            }
            Complaint::UnknownValue(known) => {
                let help = words::instead(value.get_ref().as_str().unwrap_or(""), known, "\"");
                (format!("{name} cannot be {}", shown(value, findings)), help)
            }
            Complaint::Unfit(wanted) => {
                let text = format!("{name} must be {wanted}, not {}", shown(value, findings));
                (text, self.as_text(path, rest, read, findings))
            }
            // What a stage says may quote the value, or parts of it.
            _ if is_expanded(value, findings) => {
                (format!("{name} cannot be {}", shown(value, findings)), None)
            }
            Complaint::Other(text) if text.contains(&name) => ((*text).to_owned(), None),
            Complaint::Other(text) => (format!("{name}: {text}"), None),
            Complaint::Missing(_) => return,
        };
        findings.error(value.span(), text, help);
    }

    /// The name that was meant by the unknown key or value at `path`.
    pub(super) fn meant(&self, rest: &Node<'f>, path: &[Step], complaint: &Complaint<'_>) -> Option<String> {
        // An item of a list is taken out instead.
        let Some(Step::Key(key)) = path.last() else { return None };
        let near = match complaint {
            Complaint::UnknownKey(known) => words::nearest(key, &self.all_keys(path, known)),
            Complaint::UnknownValue(known) => {
                words::nearest(tree::get(rest, path)?.1.get_ref().as_str()?, known)
            }
            _ => None,
        };
        near.map(str::to_owned)
    }

    /// What may stand at `path`, of which the stage knows `known`.
    fn all_keys<'m>(&self, path: &[Step], known: &[&'m str]) -> Vec<&'m str> {
        let own = if path.len() == 1 { self.own } else { &[] };
        known.iter().chain(own).copied().collect()
    }

    /// For a bare number where a text should be: what would be wrong with it in quotes, which tells how it should look.
    fn as_text<T>(
        &self,
        path: &[Step],
        rest: &Node<'f>,
        read: Read<'_, 'f, T>,
        findings: &Findings<'f>,
    ) -> Option<String> {
        let (_, value) = tree::get(rest, path)?;
        let bare = findings.source.get(value.span()).filter(|_| !value.get_ref().is_str())?;
        let (mut quoted, path) = tree::alone(rest, path);
        tree::insert(&mut quoted, &path, DeValue::String(bare.into()));
        let error = read(quoted.clone().into()).err()?;
        if place(&quoted, &error, read) != path {
            return None;
        }
        match Complaint::read(error.message()) {
            Complaint::UnknownValue(known) => words::instead("", &known, "\""),
            Complaint::Other(text) => Some(text.to_owned()),
            _ => None,
        }
    }

    /// The table that the last step of `path` is in.
    fn within(&self, path: &[Step]) -> String {
        let inner = path.split_last().and_then(|(_, before)| name(before));
        inner.map_or_else(|| self.title.clone(), |inner| format!("{inner} of {}", self.title))
    }
}

/// A value as it is written in the file, so that nothing of an expanded one shows.
pub(super) fn shown(value: &Node<'_>, findings: &Findings<'_>) -> String {
    let written = findings.source.get(value.span()).unwrap_or_default();
    let brief = written.len() <= 60 && !written.contains('\n');
    match value.get_ref() {
        DeValue::Table(_) => "a table".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::String(_) if is_expanded(value, findings) => format!("what {written} stands for"),
        DeValue::String(_) if brief => format!("the text {written}"),
        DeValue::String(_) => "this text".into(),
        _ => written.to_owned(),
    }
}

fn is_expanded(value: &Node<'_>, findings: &Findings<'_>) -> bool {
    value.get_ref().is_str() && findings.source.get(value.span()).is_some_and(|text| text.contains("${"))
}

/// The name of the innermost key on the way to `path`.
fn name(path: &[Step]) -> Option<String> {
    let keys = path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(format!("`{key}`")),
        Step::Item(_) => None,
    })?;
    Some(match path.last() {
        Some(Step::Item(_)) => format!("an item of {keys}"),
        _ => keys,
    })
}

use std::borrow::Cow;
use std::mem;

use toml::de::{DeTable, Error};

use super::findings::{Findings, MOST};
use super::tree;

/// How deep tables may lie in tables. The parser allows 80 brackets with 80 dots each, which takes more stack than
/// there is.
const DEPTH_MAX: usize = 64;

/// The file's text, with blanks in place of lines that hold a key and no value: at such a line the parser gives up,
/// and nothing that stands below it would be read.
pub(super) fn without_bare_keys<'f>(findings: &mut Findings<'f>) -> Cow<'f, str> {
    let mut text = Cow::Borrowed(findings.source);
    for _ in 0..MOST {
        let (_, errors) = DeTable::parse_recoverable(&text);
        let Some(error) = errors.into_iter().find(|error| error.message().starts_with("key with no value"))
        else {
            break;
        };
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
        text.to_mut().replace_range(start..end, &" ".repeat(end - start));
        report(&error, findings);
    }
    text
}

/// The tables of `text`, as much of them as can be read.
pub(super) fn parse<'f>(text: &'f str, findings: &mut Findings<'_>) -> DeTable<'f> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report(error, findings);
    }
    let mut tables = DeTable::new();
    for (key, node) in root.into_inner() {
        if tree::is_deeper(node.get_ref(), DEPTH_MAX) {
            findings.syntax(key.span(), format!("`{key}` holds tables in tables in tables, too deep"), None);
            // Dropping it would go as deep. There is one such file, and then the program ends.
            mem::forget(node);
        } else {
            tables.insert(key, node);
        }
    }
    tables
}

fn report(error: &Error, findings: &mut Findings<'_>) {
    let span = error.span().unwrap_or_else(|| findings.end());
    match error.message() {
        "duplicate key" => {
            let key = findings.source.get(span.clone()).unwrap_or_default();
            let text = format!("`{key}` stands here a second time");
            findings.syntax(span, text, Some("keep one of them".into()));
        }
        message => findings.syntax(span, format!("this is no TOML: {message}"), None),
    }
}

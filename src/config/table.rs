//! One table of the file on its way to the type that a stage made for it.
//!
//! serde stops at the first error. To hear of all, the table is read again and again: what was complained of is taken
//! out, and what is missing gets a stand-in, until nothing is left to complain of. What was read with a stand-in, or
//! without a value that was there, is thrown away. serde also loses the place of an error inside a tagged enum; it is
//! found again by growing the table, key by key, until the error shows.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeValue, Error, ValueDeserializer};

use super::expand::expand;
use super::findings::Findings;
use super::tree::{self, Node, Path, Step};
use super::words::{self, Complaint};

/// How a stage reads its table.
type Read<'r, 'f, T> = &'r dyn Fn(ValueDeserializer<'f>) -> Result<T, Error>;

/// What some type or other takes, in TOML, for a key that is not there.
/// The last is tried first.
const STAND_INS: [&str; 8] = ["\"1s\"", "\"1B\"", "\"1\"", "1", "1.0", "true", "[]", "{}"];

/// How often a table is read at most.
const ROUNDS: usize = 1000;

/// A table, its texts expanded.
pub(super) struct Table<'f> {
    /// Its name, as it stands in the file: `[sources.boiler]`.
    pub(super) title: String,
    node: Node<'f>,
    /// Keys that were read apart from the rest.
    apart: Vec<&'static str>,
    /// Places of values that were taken out: that they are missing is no news.
    removed: Vec<Path>,
}

impl<'f> Table<'f> {
    /// `node` as a table; where it is none, that is found wrong. `title` is how it should stand in the file.
    pub(super) fn new(
        title: String,
        mut node: Node<'f>,
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
        Some(Self { title, node, apart: Vec::new(), removed })
    }

    /// The `type`, where it is one of `types`.
    pub(super) fn kind(&mut self, types: &[&str], findings: &mut Findings<'f>) -> Option<String> {
        self.apart.push("type");
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

    /// A table of those keys alone; [`Table::read`] of the rest goes without them.
    pub(super) fn part(&mut self, keys: &[&'static str]) -> Self {
        self.apart.extend(keys);
        let mut node = self.node.clone();
        for step in tree::steps(self.node.get_ref()) {
            if !matches!(&step, Step::Key(key) if keys.contains(&key.as_str())) {
                tree::remove(&mut node, &[step]);
            }
        }
        Self { title: self.title.clone(), node, apart: Vec::new(), removed: self.removed.clone() }
    }

    /// Reads it, and finds everything that is wrong with it. `None` where something is.
    pub(super) fn read<T>(&mut self, findings: &mut Findings<'f>, read: Read<'_, 'f, T>) -> Option<T> {
        let mut rest = self.node.clone();
        for key in &self.apart {
            tree::remove(&mut rest, &[Step::Key((*key).into())]);
        }
        let mut stand_ins: Vec<StandIn<'f>> = Vec::new();
        // A key that nobody knows changes nothing; any other change makes a value that the file does not say.
        let mut true_to_file = self.removed.is_empty();
        for _ in 0..ROUNDS {
            let error = match read(rest.clone().into()) {
                Ok(value) => return true_to_file.then_some(value),
                Err(error) => error,
            };
            let path = place(&rest, &error, read);
            let complaint = Complaint::read(error.message());
            let blamed = stand_ins.iter_mut().rfind(|stand_in| path.starts_with(&stand_in.path));
            match (&complaint, blamed) {
                (Complaint::Missing(key), blamed) => {
                    true_to_file = false;
                    let missing = tree::join(&path, Step::Key((*key).into()));
                    if blamed.is_none() && !self.removed.contains(&missing) {
                        self.report_missing(&path, key, findings);
                    }
                    let mut stand_in = StandIn::new(missing);
                    stand_in.change(&mut rest)?;
                    stand_ins.push(stand_in);
                }
                (_, Some(stand_in)) => {
                    if let Complaint::UnknownValue(known) = &complaint {
                        stand_in.takes(known);
                    }
                    stand_in.change(&mut rest)?;
                }
                (_, None) => {
                    let meant = self.report(&path, &rest, &complaint, read, findings);
                    if path.is_empty() {
                        return None;
                    }
                    true_to_file &= matches!(complaint, Complaint::UnknownKey(_)) && meant.is_none();
                    self.removed.extend(meant);
                    tree::remove(&mut rest, &path);
                    self.removed.push(path);
                }
            }
        }
        None
    }

    /// Where `key` stands, which may be a path (`tls.cert`): its value, or the innermost part of the path that is there.
    pub(super) fn span(&self, key: &str) -> Range<usize> {
        let mut path = Path::new();
        for part in key.split('.') {
            let step = part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Item);
            path.push(step);
            if tree::get(&self.node, &path).is_none() {
                path.pop();
                break;
            }
        }
        tree::get(&self.node, &path).map_or_else(|| self.node.span(), |(_, value)| value.span())
    }

    fn report_missing(&self, path: &[Step], key: &str, findings: &mut Findings<'f>) {
        let span = tree::get(&self.node, path).map_or_else(|| self.node.span(), |(_, table)| table.span());
        let within =
            name(path).map_or_else(|| self.title.clone(), |name| format!("{name} of {}", self.title));
        findings.absence(span, format!("`{key}` is missing in {within}"), None);
    }

    /// Reports what is wrong at `path`. Where it is a key that nobody knows, returns the one that was meant.
    fn report<T>(
        &self,
        path: &[Step],
        rest: &Node<'f>,
        complaint: &Complaint<'_>,
        read: Read<'_, 'f, T>,
        findings: &mut Findings<'f>,
    ) -> Option<Path> {
        let (key_span, value) = tree::get(rest, path)?;
        let name = name(path).unwrap_or_else(|| self.title.clone());
        let (text, help) = match complaint {
            Complaint::UnknownKey(known) => {
                let (Some(Step::Key(key)), Some(span)) = (path.last(), key_span) else { return None };
                let mut known = known.clone();
                if path.len() == 1 {
                    known.extend(&self.apart);
                }
                let help = words::instead(key, &known, "`");
                findings.error(span, format!("unknown key `{key}` in {}", self.within(path)), help);
                let (_, before) = path.split_last()?;
                return words::nearest(key, &known).map(|meant| tree::join(before, Step::Key(meant.into())));
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
            Complaint::Other(text) => (format!("{name}: {text}"), None),
            Complaint::Missing(_) => return None,
        };
        findings.error(value.span(), text, help);
        None
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
        let mut quoted = rest.clone();
        tree::insert(&mut quoted, path, DeValue::String(bare.into()));
        let error = read(quoted.into()).err()?;
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

/// The value that `error` is about; for a missing key, the table that lacks it.
fn place<'f, T>(rest: &Node<'f>, error: &Error, read: Read<'_, 'f, T>) -> Path {
    let mut path = error.span().and_then(|span| tree::locate(rest, &span)).unwrap_or_default();
    if !matches!(Complaint::read(error.message()), Complaint::Missing(_)) {
        while let Some(step) = culprit(rest, &path, error.message(), read) {
            path.push(step);
        }
    }
    path
}

/// The step from `path` to what makes `message` show, where it is not the value at `path` as a whole.
fn culprit<'f, T>(rest: &Node<'f>, path: &[Step], message: &str, read: Read<'_, 'f, T>) -> Option<Step> {
    // The others mean nothing without the `type`, so it comes first.
    let mut steps = tree::steps(tree::get(rest, path)?.1.get_ref());
    steps.sort_by_key(|step| *step != Step::Key("type".into()));
    let shows = |kept: usize| {
        let mut grown = rest.clone();
        for step in steps[kept..].iter().rev() {
            tree::remove(&mut grown, &tree::join(path, step.clone()));
        }
        read(grown.into()).is_err_and(|error| error.message() == message)
    };
    if steps.is_empty() || shows(0) {
        return None;
    }
    (1..=steps.len()).find(|kept| shows(*kept)).map(|kept| steps[kept - 1].clone())
}

/// Something in place of a key that is missing, so that reading goes on behind it.
struct StandIn<'f> {
    path: Path,
    /// What has not been tried.
    candidates: Vec<DeValue<'f>>,
}

impl<'f> StandIn<'f> {
    fn new(path: Path) -> Self {
        let candidates = STAND_INS.iter().filter_map(|toml| DeValue::parse(toml).ok());
        Self { path, candidates: candidates.map(Spanned::into_inner).collect() }
    }

    /// Tries the first of `known` next.
    fn takes(&mut self, known: &[&str]) {
        let first = known.first().map(|name| DeValue::String((*name).to_owned().into()));
        self.candidates.extend(first);
    }

    /// Puts the next candidate in. `None` where all have been tried.
    fn change(&mut self, rest: &mut Node<'f>) -> Option<()> {
        tree::insert(rest, &self.path, self.candidates.pop()?);
        Some(())
    }
}

/// A value as it is written in the file, so that nothing of an expanded one shows.
fn shown(value: &Node<'_>, findings: &Findings<'_>) -> String {
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

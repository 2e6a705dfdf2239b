//! Reading on behind an error.
//!
//! serde stops at the first error. To hear of all, a table is read again and again: what was complained of is taken
//! out, and what is missing gets a stand-in, until nothing is left to complain of. What was read with a stand-in, or
//! without a value that was there, is thrown away. serde also loses the place of an error inside a tagged enum; it is
//! found again by growing the table, key by key, until the error shows.

use toml::Spanned;
use toml::de::{DeValue, Error, ValueDeserializer};

use super::findings::Findings;
use super::problem::Severity;
use super::table::Table;
use super::tree::{self, Node, Path, Step};
use super::words::{self, Complaint};

/// How a stage reads its table.
pub(super) type Read<'r, 'f, T> = &'r dyn Fn(ValueDeserializer<'f>) -> Result<T, Error>;

/// What a stage finds wrong across the keys of its table, as (key, what). The key may be a path: `registers.3.bit`.
pub(super) type Check<'r, T, K> = &'r dyn Fn(&T) -> Vec<(K, String)>;

/// What some type or other takes, in TOML, for a key that is not there. The last is tried first.
const STAND_INS: [&str; 9] = ["\"/1\"", "\"1s\"", "\"1B\"", "\"1\"", "1", "1.0", "true", "[]", "{}"];

/// How often a table is read at most.
const ROUNDS: usize = 1000;

impl<'f> Table<'f> {
    /// Reads `rest`, which is a part of this table, and finds everything that is wrong with it. `None` where
    /// something is. `checks` tell what is wrong across its keys, and how severe that is.
    pub(super) fn recover<T, K: AsRef<str>>(
        &mut self,
        mut rest: Node<'f>,
        findings: &mut Findings<'f>,
        read: Read<'_, 'f, T>,
        checks: &[(Severity, Check<'_, T, K>)],
    ) -> Option<T> {
        let mut stand_ins: Vec<StandIn<'f>> = Vec::new();
        // A key that nobody knows changes nothing; any other change makes a value that the file does not say.
        let mut true_to_file = self.removed.is_empty();
        for _ in 0..ROUNDS {
            if findings.full() {
                return None;
            }
            let error = match read(rest.clone().into()) {
                Ok(value) => {
                    for (severity, check) in checks {
                        self.check(*severity, check(&value), &stand_ins, findings);
                    }
                    return true_to_file.then_some(value);
                }
                Err(error) => error,
            };
            let path = place(&rest, &error, read);
            let complaint = Complaint::read(error.message());
            let blamed = stand_ins.iter().rposition(|stand_in| path.starts_with(&stand_in.path));
            let guesswork = stand_ins.iter().any(|stand_in| stand_in.rules(&path))
                || matches!(complaint, Complaint::Other(text) if self.is_guess(&path, text, &stand_ins));
            match (&complaint, blamed) {
                (Complaint::Missing(key), _) => {
                    true_to_file = false;
                    let missing = tree::join(&path, Step::Key((*key).into()));
                    if stand_ins.iter().any(|stand_in| stand_in.path == missing) {
                        return None;
                    }
                    if blamed.is_none() && !guesswork && !self.removed.contains(&missing) {
                        self.report_missing(&path, &rest, key, findings);
                    }
                    let mut stand_in = StandIn::new(missing);
                    // What one item of a list takes, the others take too.
                    let alike = stand_ins.iter().rfind(|known| known.path.last() == stand_in.path.last());
                    let fits = alike.and_then(|known| tree::get(&rest, &known.path));
                    stand_in.candidates.extend(fits.map(|(_, value)| value.get_ref().clone()));
                    stand_in.change(&mut rest)?;
                    stand_ins.push(stand_in);
                }
                (_, Some(index)) => {
                    let mut stand_in = stand_ins.remove(index);
                    if let Complaint::UnknownValue(known) = &complaint {
                        stand_in.takes(known);
                    }
                    stand_ins.retain(|inner| !inner.path.starts_with(&stand_in.path));
                    if stand_in.change(&mut rest).is_some() {
                        stand_ins.push(stand_in);
                        continue;
                    }
                    // Nothing fits, so reading goes on without the table that lacks it.
                    let around = &stand_in.path[..stand_in.path.len() - 1];
                    if around.is_empty() {
                        return None;
                    }
                    self.take_out(&mut rest, around, &mut stand_ins);
                }
                (_, None) => {
                    if !guesswork {
                        self.report(&path, &rest, &complaint, read, findings);
                    }
                    if path.is_empty() {
                        return None;
                    }
                    let meant = self.meant(&rest, &path, &complaint);
                    true_to_file &= matches!(complaint, Complaint::UnknownKey(_)) && meant.is_none();
                    match (&complaint, meant) {
                        (Complaint::UnknownValue(_), Some(name)) => {
                            tree::insert(&mut rest, &path, DeValue::String(name.into()));
                            self.removed.push(path);
                        }
                        (_, meant) => {
                            self.take_out(&mut rest, &path, &mut stand_ins);
                            let before = &path[..path.len() - 1];
                            self.removed.extend(meant.map(|name| tree::join(before, Step::Key(name))));
                        }
                    }
                }
            }
        }
        None
    }

    /// Takes out what is at `path`. The items behind one that is taken out move up, and what is known of them too.
    fn take_out(&mut self, rest: &mut Node<'f>, path: &[Step], stand_ins: &mut Vec<StandIn<'f>>) {
        tree::remove(rest, path);
        stand_ins.retain(|stand_in| !stand_in.path.starts_with(path));
        if let [list @ .., Step::Item(taken)] = path {
            self.removed.retain(|removed| !removed.starts_with(path));
            let stood_in = stand_ins.iter_mut().map(|stand_in| &mut stand_in.path);
            for known in self.removed.iter_mut().chain(stood_in).filter(|known| known.starts_with(list)) {
                if let Some(Step::Item(index)) = known.get_mut(list.len()) {
                    *index -= usize::from(*index > *taken);
                }
            }
        }
        self.removed.push(path.to_vec());
    }

    /// Whether `text`, said of what is at `path`, speaks of a key beside it or further out whose value is not, or not
    /// wholly, the file's.
    fn is_guess(&self, path: &[Step], text: &str, stand_ins: &[StandIn<'f>]) -> bool {
        let stood_in = stand_ins.iter().map(|stand_in| &stand_in.path);
        self.removed.iter().chain(stood_in).any(|changed| {
            changed.iter().enumerate().take(path.len()).any(|(depth, step)| {
                let named = matches!(step, Step::Key(key) if text.contains(&format!("`{key}`")));
                named && path.starts_with(&changed[..depth])
            })
        })
    }

    /// Reports what a stage finds wrong across keys, where what it has seen of them is the file's.
    fn check<K: AsRef<str>>(
        &self,
        severity: Severity,
        problems: Vec<(K, String)>,
        stand_ins: &[StandIn<'f>],
        findings: &mut Findings<'f>,
    ) {
        for (key, text) in problems {
            if findings.full() {
                return;
            }
            let key = key.as_ref();
            let path = tree::path(key);
            let changed = self.removed.iter().any(|removed| match removed.as_slice() {
                [list @ .., Step::Item(_)] => path == list,
                removed => path.starts_with(removed),
            });
            let invented = stand_ins.iter().any(|stand_in| {
                stand_in.rules(&path) || stand_in.path.starts_with(&path) || path.starts_with(&stand_in.path)
            });
            if changed || invented || self.is_guess(&path, &text, stand_ins) {
                continue;
            }
            // Behind an item that was taken out, the others are not where they stand in the file.
            let moved = self.removed.iter().find_map(|removed| match removed.as_slice() {
                [list @ .., Step::Item(_)] if path.len() > list.len() && path.starts_with(list) => Some(list),
                _ => None,
            });
            findings.wrong(severity, self.span_of(moved.unwrap_or(&path)), words::about(key, text), None);
        }
    }
}

/// The value that `error` is about; for a missing key, the table that lacks it.
pub(super) fn place<'f, T>(rest: &Node<'f>, error: &Error, read: Read<'_, 'f, T>) -> Path {
    let path = error.span().and_then(|span| tree::locate(rest, &span)).unwrap_or_default();
    place_from(rest, path, error.message(), read)
}

/// The value that `message` is about, which shows at `path`. Others in a list may have the same mistake: where `path` goes
/// through an item, it is looked for in that alone.
fn place_from<'f, T>(rest: &Node<'f>, path: Path, message: &str, read: Read<'_, 'f, T>) -> Path {
    if path.iter().any(|step| matches!(step, Step::Item(_))) {
        let (alone, way) = tree::alone(rest, &path);
        if read(alone.clone().into()).is_err_and(|error| error.message() == message) {
            let mut place = place_within(&alone, way, message, read);
            for (step, told) in place.iter_mut().zip(path) {
                if matches!((&step, &told), (Step::Item(_), Step::Item(_))) {
                    *step = told;
                }
            }
            return place;
        }
    }
    place_within(rest, path, message, read)
}

fn place_within<'f, T>(rest: &Node<'f>, mut path: Path, message: &str, read: Read<'_, 'f, T>) -> Path {
    let complaint = Complaint::read(message);
    if let Complaint::Other(text) = complaint {
        if let Some(named) = named(rest, &path, text, read) {
            return named;
        }
    }
    let lacks = |path: &Path| match complaint {
        Complaint::Missing(key) => lacks(rest, path, key, message, read),
        _ => false,
    };
    // Serde tells the table that lacks a key, but for one inside what is tagged.
    while !lacks(&path) {
        let Some(step) = culprit(rest, &path, message, read) else { break };
        path.push(step);
        if let Some(Step::Item(_)) = path.last() {
            return place_from(rest, path, message, read);
        }
    }
    match complaint {
        Complaint::Other(text) => named(rest, &path, text, read).unwrap_or(path),
        _ => path,
    }
}

/// The key that `text` begins with, where it is one of a table around `path`: what is wrong with a table as a whole is
/// told of one of its keys, without which it is not wrong so.
fn named<'f, T>(rest: &Node<'f>, path: &[Step], text: &str, read: Read<'_, 'f, T>) -> Option<Path> {
    let (key, _) = text.strip_prefix('`')?.split_once('`')?;
    let named = (0..=path.len())
        .rev()
        .map(|around| tree::join(&path[..around], Step::Key(key.into())))
        .find(|named| tree::get(rest, named).is_some())?;
    let mut without = rest.clone();
    tree::remove(&mut without, &named);
    let error = read(without.into()).err();
    let message = error.as_ref().map_or("", Error::message);
    // That a key has to be there does not tell whether `text` names it or quotes a value that reads alike.
    let value = tree::get(rest, path)?.1.get_ref();
    let quoted = matches!(Complaint::read(message), Complaint::Missing(_))
        && (value.is_table() || value.as_str() == Some(key));
    (message != text && !quoted).then_some(named)
}

/// Whether it is the table at `path` that lacks `key`: with something there that nothing takes, reading complains of
/// that.
fn lacks<'f, T>(rest: &Node<'f>, path: &[Step], key: &str, message: &str, read: Read<'_, 'f, T>) -> bool {
    let (Some((_, value)), Ok(filler)) = (tree::get(rest, path), DeValue::parse("[[[]]]")) else {
        return false;
    };
    let missing = tree::join(path, Step::Key(key.into()));
    if tree::get(rest, &missing).is_some() {
        return false;
    }
    let mut filled = rest.clone();
    tree::insert(&mut filled, &missing, filler.into_inner());
    let unknown = format!("unknown field `{key}`");
    value.get_ref().is_table()
        && read(filled.into())
            .err()
            .is_none_or(|error| error.message() != message && !error.message().starts_with(&unknown))
}

/// The step from `path` to what makes `message` show, where it is not the value at `path` as a whole.
fn culprit<'f, T>(rest: &Node<'f>, path: &[Step], message: &str, read: Read<'_, 'f, T>) -> Option<Step> {
    // The others mean nothing without the `type`, so it comes first.
    let mut steps = tree::steps(tree::get(rest, path)?.1.get_ref());
    steps.sort_by_key(|step| *step != Step::Key("type".into()));
    let shows = |kept: usize| {
        let mut grown = rest.clone();
        tree::truncate(&mut grown, path, kept);
        for step in steps[kept..].iter().filter(|step| matches!(step, Step::Key(_))) {
            tree::remove(&mut grown, &tree::join(path, step.clone()));
        }
        read(grown.into()).is_err_and(|error| error.message() == message)
    };
    // Without its own `type` the table lacks one as well as the one inside it that is looked for.
    let lacks_inside = Complaint::read(message) == Complaint::Missing("type")
        && steps.first() == Some(&Step::Key("type".into()));
    let least = usize::from(lacks_inside);
    if steps.len() == least || shows(least) {
        return None;
    }
    // serde takes one after the other, so once the error shows, more steps do not change it.
    let (mut without, mut with) = (least, steps.len());
    while with - without > 1 {
        let between = without.midpoint(with);
        if shows(between) { with = between } else { without = between }
    }
    steps.into_iter().nth(without)
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

    /// Whether it is the `type` of a table around `path`: then what that table should hold is a guess.
    fn rules(&self, path: &[Step]) -> bool {
        let tag = Step::Key("type".into());
        self.path.split_last().is_some_and(|(last, around)| *last == tag && path.starts_with(around))
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

#[cfg(test)]
mod tests;

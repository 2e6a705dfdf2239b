//! Reading on behind an error.
//!
//! serde stops at the first error. To hear of all, a table is read again and again: what was complained of is taken
//! out, and what is missing gets a stand-in, until nothing is left to complain of. What was read with a stand-in, or
//! without a value that was there, is thrown away. serde also loses the place of an error inside a tagged enum; it is
//! found again by growing the table, key by key, until the error shows.

use toml::Spanned;
use toml::de::{DeValue, Error, ValueDeserializer};

use super::findings::Findings;
use super::table::Table;
use super::tree::{self, Node, Path, Step};
use super::words::{self, Complaint};

/// How a stage reads its table.
pub(super) type Read<'r, 'f, T> = &'r dyn Fn(ValueDeserializer<'f>) -> Result<T, Error>;

/// What a stage finds wrong across the keys of its table, as (key, what).
pub(super) type Check<'r, T> = &'r dyn Fn(&T) -> Vec<(&'static str, String)>;

/// What some type or other takes, in TOML, for a key that is not there. The last is tried first.
const STAND_INS: [&str; 8] = ["\"1s\"", "\"1B\"", "\"1\"", "1", "1.0", "true", "[]", "{}"];

/// How often a table is read at most.
const ROUNDS: usize = 1000;

impl<'f> Table<'f> {
    /// Reads `rest`, which is a part of this table, and finds everything that is wrong with it. `None` where
    /// something is. `problems` tells what is wrong across its keys.
    pub(super) fn recover<T>(
        &mut self,
        mut rest: Node<'f>,
        findings: &mut Findings<'f>,
        read: Read<'_, 'f, T>,
        problems: Check<'_, T>,
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
                    self.check(problems(&value), &stand_ins, findings);
                    return true_to_file.then_some(value);
                }
                Err(error) => error,
            };
            let path = place(&rest, &error, read);
            let complaint = Complaint::read(error.message());
            let blamed = stand_ins.iter().rposition(|stand_in| path.starts_with(&stand_in.path));
            let guesswork = stand_ins.iter().any(|stand_in| stand_in.rules(&path));
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
                    stand_in.change(&mut rest)?;
                    stand_ins.push(stand_in);
                }
                (_, Some(index)) => {
                    let stand_in = &mut stand_ins[index];
                    if let Complaint::UnknownValue(known) = &complaint {
                        stand_in.takes(known);
                    }
                    stand_in.change(&mut rest)?;
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
                            tree::remove(&mut rest, &path);
                            let before = &path[..path.len() - 1];
                            self.removed.extend(meant.map(|name| tree::join(before, Step::Key(name))));
                            self.removed.push(path);
                        }
                    }
                }
            }
        }
        None
    }

    /// Reports what a stage finds wrong across keys, where what it has seen of them is the file's.
    fn check(
        &self,
        problems: Vec<(&'static str, String)>,
        stand_ins: &[StandIn<'f>],
        findings: &mut Findings<'f>,
    ) {
        let stood_in = stand_ins.iter().map(|stand_in| &stand_in.path);
        let guesses: Vec<&str> =
            self.removed.iter().chain(stood_in).filter_map(|path| last_key(path)).collect();
        for (key, text) in problems {
            let guessed = |guess: &&str| {
                key.split('.').any(|part| part == *guess) || text.contains(&format!("`{guess}"))
            };
            if !guesses.iter().any(guessed) {
                findings.error(self.span(key), words::about(key, text), None);
            }
        }
    }
}

fn last_key(path: &[Step]) -> Option<&str> {
    path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Item(_) => None,
    })
}

/// The value that `error` is about; for a missing key, the table that lacks it.
pub(super) fn place<'f, T>(rest: &Node<'f>, error: &Error, read: Read<'_, 'f, T>) -> Path {
    let mut path = error.span().and_then(|span| tree::locate(rest, &span)).unwrap_or_default();
    let complaint = Complaint::read(error.message());
    let lacks = |path: &Path| match complaint {
        Complaint::Missing(key) => lacks(rest, path, key, error.message(), read),
        _ => false,
    };
    // Serde tells the table that lacks a key, but for one inside what is tagged.
    while !lacks(&path) {
        let Some(step) = culprit(rest, &path, error.message(), read) else { break };
        path.push(step);
    }
    path
}

/// Whether it is the table at `path` that lacks `key`: with something there that nothing takes, reading complains of
/// that.
fn lacks<'f, T>(rest: &Node<'f>, path: &[Step], key: &str, message: &str, read: Read<'_, 'f, T>) -> bool {
    let (Some((_, value)), Ok(filler)) = (tree::get(rest, path), DeValue::parse("[[[]]]")) else {
        return false;
    };
    let mut filled = rest.clone();
    tree::insert(&mut filled, &tree::join(path, Step::Key(key.into())), filler.into_inner());
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
        for step in steps[kept..].iter().rev() {
            tree::remove(&mut grown, &tree::join(path, step.clone()));
        }
        read(grown.into()).is_err_and(|error| error.message() == message)
    };
    if steps.is_empty() || shows(0) {
        return None;
    }
    // serde takes one after the other, so once the error shows, more steps do not change it.
    let (mut without, mut with) = (0, steps.len());
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

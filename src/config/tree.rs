//! Places in a tree of TOML values.

use std::borrow::Cow;
use std::mem;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeValue};

/// A value and where it stands in the file.
pub(super) type Node<'f> = Spanned<DeValue<'f>>;

/// One step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

/// The way from a table to a value inside it.
pub(super) type Path = Vec<Step>;

/// A path as a stage writes it: `tls.cert`, `registers.3.bit`.
pub(super) fn path(written: &str) -> Path {
    let step = |part: &str| part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Item);
    written.split('.').map(step).collect()
}

/// `path` and one step more.
pub(super) fn join(path: &[Step], step: Step) -> Path {
    path.iter().cloned().chain([step]).collect()
}

/// The steps into `value`, in the order in which serde takes them.
pub(super) fn steps(value: &DeValue<'_>) -> Vec<Step> {
    match value {
        DeValue::Table(table) => table.keys().map(|key| Step::Key(key.get_ref().to_string())).collect(),
        DeValue::Array(array) => (0..array.len()).map(Step::Item).collect(),
        _ => Vec::new(),
    }
}

/// Whether something in `value` takes more than `depth` steps.
pub(super) fn is_deeper(value: &DeValue<'_>, depth: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Node<'_>>> = match value {
        DeValue::Table(table) => Box::new(table.values()),
        DeValue::Array(array) => Box::new(array.iter()),
        _ => return false,
    };
    inner.any(|node| depth == 0 || is_deeper(node.get_ref(), depth - 1))
}

/// The value at `path`, and its key's place where it has one.
pub(super) fn get<'a, 'f>(node: &'a Node<'f>, path: &[Step]) -> Option<(Option<Range<usize>>, &'a Node<'f>)> {
    let mut found = (None, node);
    for step in path {
        found = match (found.1.get_ref(), step) {
            (DeValue::Table(table), Step::Key(key)) => {
                let (key, value) = table.get_key_value(key.as_str())?;
                (Some(key.span()), value)
            }
            (DeValue::Array(array), Step::Item(index)) => (None, array.get(*index)?),
            _ => return None,
        };
    }
    Some(found)
}

fn get_mut<'a, 'f>(node: &'a mut Node<'f>, path: &[Step]) -> Option<&'a mut Node<'f>> {
    path.iter().try_fold(node, |node, step| match (node.get_mut(), step) {
        (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str()),
        (DeValue::Array(array), Step::Item(index)) => array.get_mut(*index),
        _ => None,
    })
}

/// Takes out what is at `path`; items behind it move up.
pub(super) fn remove(node: &mut Node<'_>, path: &[Step]) {
    let Some((last, before)) = path.split_last() else { return };
    match (get_mut(node, before).map(Spanned::get_mut), last) {
        (Some(DeValue::Table(table)), Step::Key(key)) => {
            table.remove(key.as_str());
        }
        (Some(DeValue::Array(array)), Step::Item(index)) => {
            let mut kept = DeArray::new();
            for (_, item) in
                mem::replace(array, DeArray::new()).into_iter().enumerate().filter(|(i, _)| i != index)
            {
                kept.push(item);
            }
            *array = kept;
        }
        _ => {}
    }
}

/// Leaves the first `kept` items of the list at `path`, where it is one.
pub(super) fn truncate(node: &mut Node<'_>, path: &[Step], kept: usize) {
    if let Some(DeValue::Array(array)) = get_mut(node, path).map(Spanned::get_mut) {
        let mut first = DeArray::new();
        for item in mem::replace(array, DeArray::new()).into_iter().take(kept) {
            first.push(item);
        }
        *array = first;
    }
}

/// Puts `value` at `path`, whose last step is a key, with a place that nothing else in the tree has and no file.
pub(super) fn insert<'f>(node: &mut Node<'f>, path: &[Step], value: DeValue<'f>) {
    let Some((Step::Key(key), before)) = path.split_last() else { return };
    let mut at = usize::MAX;
    while locate(node, &(at..at)).is_some() {
        at -= 1;
    }
    if let Some(DeValue::Table(table)) = get_mut(node, before).map(Spanned::get_mut) {
        let key = Spanned::new(at..at, Cow::Owned(key.clone()));
        table.insert(key, Spanned::new(at..at, value));
    }
}

/// The innermost value that stands at `span`, itself or by its key.
pub(super) fn locate(node: &Node<'_>, span: &Range<usize>) -> Option<Path> {
    let holds = |place: &Range<usize>| place.start <= span.start && span.end <= place.end;
    steps(node.get_ref())
        .into_iter()
        .find_map(|step| {
            let (key, value) = get(node, std::slice::from_ref(&step))?;
            let inner = locate(value, span).or_else(|| key.is_some_and(|key| holds(&key)).then(Path::new))?;
            Some([step].into_iter().chain(inner).collect())
        })
        .or_else(|| holds(&node.span()).then(Path::new))
}

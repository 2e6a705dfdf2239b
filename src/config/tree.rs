//! Places in a tree of TOML values.

use std::borrow::Cow;
use std::mem;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

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

/// The tree with nothing in the lists along `path` but what it goes through, and `path` in it. A list may have thousands
/// of items, and others of them the same mistake.
pub(super) fn alone<'f>(node: &Node<'f>, path: &[Step]) -> (Node<'f>, Path) {
    let Some((step, inner)) = path.split_first() else { return (node.clone(), Path::new()) };
    let (value, step, way) = match (node.get_ref(), step) {
        (DeValue::Table(table), Step::Key(on)) => {
            let (mut kept, mut way) = (DeTable::new(), Path::new());
            for (key, value) in table {
                let (value, further) =
                    if key.get_ref() == on { alone(value, inner) } else { (value.clone(), Path::new()) };
                way.extend(further);
                kept.insert(key.clone(), value);
            }
            (DeValue::Table(kept), step.clone(), way)
        }
        (DeValue::Array(array), Step::Item(index)) => {
            let (mut kept, mut way) = (DeArray::new(), Path::new());
            if let Some((item, further)) = array.get(*index).map(|item| alone(item, inner)) {
                kept.push(item);
                way = further;
            }
            (DeValue::Array(kept), Step::Item(0), way)
        }
        _ => return (node.clone(), path.to_vec()),
    };
    (Spanned::new(node.span(), value), [step].into_iter().chain(way).collect())
}

/// Puts `value` at `path`, whose last step is a key, with a place that nothing else in the tree has and no file.
pub(super) fn insert<'f>(node: &mut Node<'f>, path: &[Step], value: DeValue<'f>) {
    let Some((Step::Key(key), before)) = path.split_last() else { return };
    let at = first_inserted(node) - 1;
    if let Some(DeValue::Table(table)) = get_mut(node, before).map(Spanned::get_mut) {
        let key = Spanned::new(at..at, Cow::Owned(key.clone()));
        table.insert(key, Spanned::new(at..at, value));
    }
}

/// The least place that something was inserted at, or else the greatest that there is.
fn first_inserted(node: &Node<'_>) -> usize {
    let inner = match node.get_ref() {
        DeValue::Table(table) => table.values().map(first_inserted).min(),
        DeValue::Array(array) => array.iter().map(first_inserted).min(),
        _ => None,
    };
    // No file is half as long as an address.
    let own = Some(node.span().start).filter(|start| *start > usize::MAX / 2);
    own.into_iter().chain(inner).min().unwrap_or(usize::MAX)
}

/// The innermost value that stands at `span`, itself or by its key.
pub(super) fn locate(node: &Node<'_>, span: &Range<usize>) -> Option<Path> {
    let holds = |place: &Range<usize>| place.start <= span.start && span.end <= place.end;
    let found = match node.get_ref() {
        DeValue::Table(table) => table.iter().find_map(|(key, value)| {
            let inner = locate(value, span).or_else(|| holds(&key.span()).then(Path::new))?;
            Some((Step::Key(key.get_ref().to_string()), inner))
        }),
        DeValue::Array(array) => {
            let mut items = array.iter().enumerate();
            items.find_map(|(index, item)| Some((Step::Item(index), locate(item, span)?)))
        }
        _ => None,
    };
    let found = found.map(|(step, inner)| [step].into_iter().chain(inner).collect());
    found.or_else(|| holds(&node.span()).then(Path::new))
}

use std::hash::{DefaultHasher, Hash, Hasher};

/// Which column is what. Each stream may keep one of its own, so it takes little memory.
#[derive(Debug)]
pub(in super::super) struct Header {
    pub(super) columns: usize,
    pub(super) device: Option<u16>,
    pub(super) time: Option<u16>,
    pub(super) names: Names,
}

/// What is kept of the columns' names.
#[derive(Debug)]
pub(super) enum Names {
    /// All, where each names a metric.
    All(All),
    /// The column of each of `fields`, and what the header is known again by.
    Needed { fields: Box<[u16]>, mark: u64 },
}

/// Names one behind the other.
#[derive(Debug)]
pub(super) struct All {
    text: Box<str>,
    /// Of each name, in bytes.
    lengths: Box<[u16]>,
}

impl Header {
    /// How many bytes it takes.
    pub(super) fn held(&self) -> usize {
        let names = match &self.names {
            Names::All(All { text, lengths }) => size_of_val(&**text) + size_of_val(&**lengths),
            Names::Needed { fields, .. } => size_of_val(&**fields),
        };
        size_of::<Self>() + names
    }
}

impl All {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        // A name that is longer makes a header that is not kept.
        let length = |name: &str| u16::try_from(name.len()).unwrap_or(u16::MAX);
        Self { text: names.clone().collect::<String>().into(), lengths: names.map(length).collect() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.lengths.iter().scan(0, |start, length| {
            let end = *start + usize::from(*length);
            let name = self.text.get(*start..end);
            *start = end;
            name
        })
    }
}

/// What two headers have in common only where they are the same.
pub(super) fn mark<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    names.for_each(|name| name.hash(&mut hasher));
    hasher.finish()
}

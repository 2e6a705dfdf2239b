//! The pointers as a tree, and the one walk through a text that follows all of them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::span::Span;
use super::super::{TimeUnit, Undecodable};
use super::{Found, KEEP_TEXT, malformed, once, time};
use crate::model::{Timestamp, Value};

/// Where device and time lie, for who is told that they cannot be read, and how the time is told.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) device: Box<str>,
    pub(super) time: Box<str>,
    pub(super) time_unit: Option<TimeUnit>,
}

/// A place that one pointer at least goes to or through.
#[derive(Debug, Default)]
pub(super) struct Node {
    token: Box<str>,
    /// The token as an array's index.
    index: Option<usize>,
    targets: Vec<Target>,
    children: Vec<Node>,
}

/// What the value at a place is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Device,
    Time,
    /// By its number.
    Field(usize),
}

/// What is gathered of one text before it is known to be whole.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) text: String,
    pub(super) device: Option<Span>,
    pub(super) time: Option<Timestamp>,
    /// By field; the last holds where a key comes twice.
    pub(super) values: Box<[Option<Value<Span>>]>,
}

impl Gathered {
    pub(super) fn new(fields: usize) -> Self {
        Self { text: String::new(), device: None, time: None, values: vec![None; fields].into() }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEEP_TEXT);
        self.values.fill(None);
        (self.device, self.time) = (None, None);
    }
}

impl Node {
    /// Gathers what the pointers find in `text`.
    pub(super) fn follow(
        &self,
        names: &Names,
        text: &str,
        gathered: &mut Gathered,
    ) -> Result<(), Undecodable> {
        gathered.clear();
        let mut json = serde_json::Deserializer::from_str(text);
        let walked = Walk { node: self, names, gathered }.deserialize(&mut json);
        walked.and_then(|()| json.end()).map_err(|error| malformed(&error))
    }

    /// Puts a pointer in, by its tokens.
    pub(super) fn add(&mut self, tokens: &[Box<str>], target: Target) {
        let Some((token, rest)) = tokens.split_first() else {
            self.targets.push(target);
            return;
        };
        if let Some(child) = self.children.iter_mut().find(|child| child.token == *token) {
            return child.add(rest, target);
        }
        // An index has no sign and no leading zero (RFC 6901, 4).
        let is_index = &**token == "0" || token.starts_with(|first: char| ('1'..='9').contains(&first));
        let index = is_index.then(|| token.parse().ok()).flatten();
        let mut child = Self { token: token.clone(), index, ..Self::default() };
        child.add(rest, target);
        self.children.push(child);
    }
}

/// Reads the value at `node`, and what lies in it.
struct Walk<'a, 'g> {
    node: &'a Node,
    names: &'a Names,
    gathered: &'g mut Gathered,
}

impl Walk<'_, '_> {
    fn take<E: Error>(self, value: Value<&str>) -> Result<(), E> {
        let Self { node, names, gathered } = self;
        if node.targets.is_empty() {
            return Ok(());
        }
        let value = value.kept(&mut gathered.text);
        for target in &node.targets {
            match *target {
                Target::Device => {
                    once(gathered.device.is_some(), &names.device)?;
                    gathered.device = Found::Value(value).name(&names.device, &mut gathered.text)?;
                }
                Target::Time => {
                    once(gathered.time.is_some(), &names.time)?;
                    gathered.time = time(names.time_unit, &names.time, Found::Value(value), &gathered.text)?;
                }
                Target::Field(index) => {
                    if let Some(slot) = gathered.values.get_mut(index) {
                        *slot = Some(value);
                    }
                }
            }
        }
        Ok(())
    }

    /// An array or an object cannot be a name or a time.
    fn nested<E: Error>(&self) -> Result<(), E> {
        let wrong = |field: &str| E::custom(format_args!("field `{field}` holds an array or an object"));
        self.node.targets.iter().try_for_each(|target| match target {
            Target::Device => Err(wrong(&self.names.device)),
            Target::Time => Err(wrong(&self.names.time)),
            Target::Field(_) => Ok(()),
        })
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.take(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.take(Value::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.take(i64::try_from(value).map_or(Value::Uint(value), Value::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.take(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.take(Value::Text(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.nested()?;
        let Self { node, names, gathered } = self;
        for index in 0.. {
            let found = match node.children.iter().find(|child| child.index == Some(index)) {
                Some(node) => seq.next_element_seed(Walk { node, names, gathered: &mut *gathered })?,
                None => seq.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if found.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.nested()?;
        let Self { node, names, gathered } = self;
        while let Some(child) = map.next_key_seed(Key(node))? {
            match child {
                Some(node) => map.next_value_seed(Walk { node, names, gathered: &mut *gathered })?,
                None => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(())
    }
}

/// Reads a key: the place below the node that it leads to, where there is one.
struct Key<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<&'a Node>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<&'a Node>, E> {
        Ok(self.0.children.iter().find(|child| *child.token == *key))
    }
}

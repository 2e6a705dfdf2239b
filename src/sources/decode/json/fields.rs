//! JSON by pointers (RFC 6901): the pointers make a tree, and one walk through the text follows all of them.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::super::excerpt;
use super::super::field::{self, Field, Meaning, Name, Sink};
use super::super::span::Span;
use super::super::{LeftOut, TimeUnit, Undecodable};
use super::{Config, Found, KEEP_TEXT, malformed, once, time};
use crate::model::{Readings, Timestamp, Value};

/// A JSON pointer: the keys and indexes on the way to a value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Box<str>")]
pub(super) struct Pointer {
    written: Box<str>,
    tokens: Box<[Box<str>]>,
}

/// How deep a pointer may go: less than serde_json, which counts the walk as recursion.
const DEPTH_MAX: usize = 100;

/// So many bytes of what is no pointer are shown.
const SHOWN: usize = 64;

impl TryFrom<Box<str>> for Pointer {
    type Error = String;

    fn try_from(written: Box<str>) -> Result<Self, String> {
        let shown = excerpt::cut(&written, SHOWN);
        let wrong = |what| format!("`{shown}` is no JSON pointer, such as \"/data/0/temp\": {what}");
        let mut parts = written.split('/');
        if parts.next() != Some("") {
            return Err(wrong("it does not begin with /"));
        }
        let sound = |part: &str| part.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !written.split('/').all(sound) {
            return Err(wrong("behind ~ there must be 0 (for ~) or 1 (for /)"));
        }
        // In this order, so that `~01` becomes `~1` (RFC 6901, 4).
        let tokens: Box<[_]> =
            parts.map(|part| part.replace("~1", "/").replace("~0", "~").into_boxed_str()).collect();
        if tokens.len() > DEPTH_MAX {
            return Err(wrong("it is too deep"));
        }
        Ok(Self { tokens, written })
    }
}

pub(super) fn problems(config: &Config, fields: &[Field<Pointer, Name>]) -> Vec<(&'static str, String)> {
    let mut problems =
        field::problems(&fields.iter().map(Field::<Pointer, Name>::meaning).collect::<Vec<_>>());
    for (key, place) in [("decode.device", &config.device), ("decode.time", &config.time)] {
        let pointer = place.clone().map(Pointer::try_from);
        problems.extend(
            pointer
                .and_then(Result::err)
                .map(|wrong| (key, format!("beside `fields` it is a JSON pointer: {wrong}"))),
        );
    }
    for (key, other) in [("decode.metric", &config.metric), ("decode.value", &config.value)] {
        if other.is_some() {
            let text = "each of `fields` has its own metric and value: leave this away, or `fields`";
            problems.push((key, text.to_owned()));
        }
    }
    problems
}

/// What is read, and what is gathered of one text before it is known to be whole.
#[derive(Debug)]
pub(super) struct Fields {
    meanings: Box<[Meaning]>,
    first: Box<str>,
    names: Names,
    root: Node,
    gathered: Gathered,
}

/// Where device and time lie, for who is told that they cannot be read, and how the time is told.
#[derive(Debug)]
struct Names {
    device: Box<str>,
    time: Box<str>,
    time_unit: Option<TimeUnit>,
}

/// A place that one pointer at least goes to or through.
#[derive(Debug, Default)]
struct Node {
    token: Box<str>,
    /// The token as an array's index.
    index: Option<usize>,
    targets: Vec<Target>,
    children: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Device,
    Time,
    Field(usize),
}

#[derive(Debug)]
struct Gathered {
    text: String,
    device: Option<Span>,
    time: Option<Timestamp>,
    /// By field; the last holds where a key comes twice.
    values: Box<[Option<Value<Span>>]>,
}

impl Fields {
    pub(super) fn new(config: &Config, fields: &[Field<Pointer, Name>]) -> Self {
        let mut root = Node::default();
        for (place, target) in [(&config.device, Target::Device), (&config.time, Target::Time)] {
            // One that is no pointer has been found wrong before.
            if let Some(Ok(pointer)) = place.clone().map(Pointer::try_from) {
                root.add(&pointer.tokens, target);
            }
        }
        for (index, field) in fields.iter().enumerate() {
            root.add(&field.from.tokens, Target::Field(index));
        }
        let values = vec![None; fields.len()].into();
        Self {
            meanings: fields.iter().map(Field::<Pointer, Name>::meaning).collect(),
            names: Names {
                device: config.device.clone().unwrap_or_default(),
                time: config.time.clone().unwrap_or_default(),
                time_unit: config.time_unit,
            },
            first: fields.first().map(|field| field.from.written.clone()).unwrap_or_default(),
            root,
            gathered: Gathered { text: String::new(), device: None, time: None, values },
        }
    }

    pub(super) fn decode(
        &mut self,
        text: &str,
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        self.gathered.clear();
        let mut json = serde_json::Deserializer::from_str(text);
        Walk { node: &self.root, names: &self.names, gathered: &mut self.gathered }
            .deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|error| malformed(&error))?;

        let Gathered { text, device: named, time, values } = &self.gathered;
        let mut sink = Sink::new(named.map_or(device, |named| named.within(text)), *time, out);
        for (meaning, value) in self.meanings.iter().zip(values) {
            match value {
                Some(value) => sink.value(meaning, value.within(text)),
                None => sink.nothing(),
            }
        }
        sink.end(|| match values.first() {
            Some(Some(Value::Text(held))) => {
                format!(
                    "no pointer of `fields` finds a number: {} holds {}",
                    self.first,
                    excerpt::quoted(held.within(text))
                )
            }
            _ => format!("no pointer of `fields` finds a number: the first is {}", self.first),
        })
    }
}

impl Gathered {
    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEEP_TEXT);
        self.values.fill(None);
        (self.device, self.time) = (None, None);
    }
}

impl Node {
    fn add(&mut self, tokens: &[Box<str>], target: Target) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::tests::{all, found, readings};
    use super::super::Json;
    use super::*;

    type Decoded = Result<(Vec<(String, String, Value, Option<i64>)>, LeftOut), Undecodable>;

    fn decode(toml: &str, frame: &str) -> Decoded {
        let mut out = readings();
        let config: Config = toml::from_str(toml).unwrap();
        assert_eq!(config.problems(), [], "{toml}");
        let left_out = Json::new(&config).decode(frame.as_bytes(), "here", &mut out)?;
        Ok((all(&out), left_out))
    }

    const NESTED: &str = "device = '/end device/id'\ntime = '/at'\ntime_unit = 'rfc3339'\nfields = [\
        { from = '/data/0/temp', metric = 'temperature', unit = 'Cel', scale = 0.1 },\
        { from = '/data/1/temp', metric = 'outside', scale = 0.1, offset = -40 },\
        { from = '/state', metric = 'state', text = true },\
    ]";

    #[test]
    fn what_lies_at_a_pointer_is_read_as_deep_as_it_may_be() {
        let frame = r#"{"data": [{"temp": 215, "x": [1]}, {"x": {}, "temp": 615}, {"temp": 1}], "state": "on",
            "end device": {"id": 7, "more": 1}, "at": "2026-01-31T12:00:00+02:00"}"#;
        let (readings, left_out) = decode(NESTED, frame).unwrap();
        let at = Some(1_769_853_600_000);
        assert_eq!(
            readings,
            [
                found("7", "temperature", Value::Float(21.5), at),
                found("7", "outside", Value::Float(21.5), at),
                found("7", "state", Value::Text("on".into()), at),
            ]
        );
        assert_eq!(left_out, LeftOut::default());
    }

    #[test]
    fn what_a_pointer_does_not_find_is_absent_and_where_all_are_the_frame_is_refused() {
        let (readings, left_out) = decode(NESTED, r#"{"data": [{"temp": 215}], "state": null}"#).unwrap();
        assert_eq!(readings, [found("here", "temperature", Value::Float(21.5), None)]);
        assert_eq!(left_out, LeftOut { bad_names: 0, ignored: 2 });
        for frame in ["{}", "[]", "21.5", r#"{"data": {"temp": 1}}"#, r#"{"data": [{"temp": [1]}]}"#] {
            let error = decode(NESTED, frame).unwrap_err().to_string();
            assert!(error.contains("the first is /data/0/temp"), "{error}");
        }
        let error = decode(NESTED, r#"{"data": [{"temp": "ERR"}]}"#).unwrap_err().to_string();
        assert!(error.ends_with("/data/0/temp holds \"ERR\""), "{error}");
    }

    #[test]
    fn text_that_is_a_number_is_taken_for_one_unless_text_is_asked_for() {
        let toml = "fields = [{ from = '/a', metric = 'a' }, { from = '/b', metric = 'b', text = true }]";
        let (readings, _) = decode(toml, r#"{"a": "21.5", "b": "21.5"}"#).unwrap();
        let expected = [
            found("here", "a", Value::Float(21.5), None),
            found("here", "b", Value::Text("21.5".into()), None),
        ];
        assert_eq!(readings, expected);
    }

    /// Of the document of RFC 6901, 5.
    #[test]
    fn the_examples_of_rfc_6901_find_what_they_should() {
        let document = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
            "k\"l": 6, " ": 7, "m~n": 8}"#;
        for (pointer, value) in [
            ("/", 0),
            ("/a~1b", 1),
            ("/c%d", 2),
            ("/e^f", 3),
            ("/g|h", 4),
            ("/i\\j", 5),
            ("/k\"l", 6),
            ("/ ", 7),
            ("/m~0n", 8),
        ] {
            let toml = format!("fields = [{{ from = '{pointer}', metric = 'm' }}]");
            let (readings, _) = decode(&toml, document).unwrap();
            assert_eq!(readings, [found("here", "m", Value::Int(value), None)], "{pointer}");
        }
        let text = decode("fields = [{ from = '/foo/0', metric = 'm', text = true }]", document).unwrap().0;
        assert_eq!(text, [found("here", "m", Value::Text("bar".into()), None)]);
        let whole = decode("fields = [{ from = '', metric = 'm' }]", " 21.5 ").unwrap().0;
        assert_eq!(whole, [found("here", "m", Value::Float(21.5), None)]);
        assert_eq!(Pointer::try_from(Box::from("/~01")).unwrap().tokens[..], [Box::from("~1")]);
        for (absent, frame) in
            [("/a/01", r#"{"a": [1, 2]}"#), ("/a/-", r#"{"a": [1]}"#), ("/a/+1", r#"{"a": [1, 2]}"#)]
        {
            decode(&format!("fields = [{{ from = '{absent}', metric = 'm' }}]"), frame).unwrap_err();
        }
    }

    #[test]
    fn a_device_or_a_time_that_cannot_be_read_refuses_the_frame() {
        let data = r#""data": [{"temp": 1}]"#;
        for (frame, reason) in [
            (format!(r#"{{{data}, "at": "noon"}}"#), "field `/at` does not hold a time"),
            (format!(r#"{{{data}, "at": {{}}}}"#), "field `/at` holds an array or an object"),
            (
                format!(r#"{{{data}, "end device": {{"id": 1.5}}}}"#),
                "field `/end device/id` does not hold text",
            ),
            (
                format!(r#"{{{data}, "end device": {{"id": 1, "id": 2}}}}"#),
                "field `/end device/id` comes twice",
            ),
            (format!(r#"{{{data}"#), "EOF"),
        ] {
            let error = decode(NESTED, &frame).unwrap_err().to_string();
            assert!(error.contains(reason), "{frame}: {error}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_told_at_its_key() {
        for (pointer, what) in [("data/0", "begin with /"), ("/a~2", "behind ~"), ("/a~", "behind ~")] {
            let error = Pointer::try_from(Box::from(pointer)).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let deep = Pointer::try_from("/a".repeat(100_000).into_boxed_str()).unwrap_err();
        assert!(deep.len() < 200 && deep.ends_with("too deep"), "{deep}");
        let keys = |toml: &str| {
            let config: Config = toml::from_str(toml).unwrap();
            config.problems().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let field = "fields = [{ from = '/a', metric = 'm' }]";
        assert_eq!(keys(&format!("device = 'dev'\n{field}")), ["decode.device"]);
        assert_eq!(keys(&format!("metric = 'a'\nvalue = 'b'\n{field}")), ["decode.metric", "decode.value"]);
        assert_eq!(keys("fields = []"), ["decode.fields"]);
        let twice = "fields = [{ from = '/a', metric = 'm' }, { from = '/b', metric = 'm' }]";
        assert_eq!(keys(twice), ["decode.fields"]);
        assert_eq!(
            keys("fields = [{ from = '/a', metric = 'm', text = true, scale = 2 }]"),
            ["decode.fields"]
        );
    }

    /// Documents of few keys, so that pointers find something.
    fn document() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![Just(serde_json::Value::Null), any::<i64>().prop_map(Into::into)];
        leaf.prop_recursive(3, 24, 3, |inner| {
            let key = prop_oneof!["[a-b]", "[0-2]", Just("a/b".to_owned()), Just("~".to_owned())];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn pointers_find_what_a_tree_finds_at_them(
            document in document(),
            pointers in proptest::collection::btree_set("(/(a|b|0|1|2|01|a~1b|~0)){0,3}", 1..5),
        ) {
            let field = |(number, pointer)| format!("{{ from = '{pointer}', metric = '{number}' }}");
            let fields: Vec<_> = pointers.iter().enumerate().map(field).collect();
            let found = decode(&format!("fields = [{}]", fields.join(", ")), &document.to_string());
            let at = |(number, pointer): (usize, &String)| {
                let value = document.pointer(pointer)?.as_i64()?;
                Some((number.to_string(), Value::Int(value)))
            };
            let expected: Vec<_> = pointers.iter().enumerate().filter_map(at).collect();
            match found {
                Ok((found, left_out)) => {
                    prop_assert_eq!(left_out.ignored, (pointers.len() - expected.len()) as u64);
                    let found: Vec<_> = found.into_iter().map(|found| (found.1, found.2)).collect();
                    prop_assert_eq!(found, expected);
                }
                Err(_) => prop_assert_eq!(expected, []),
            }
        }
    }
}

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::super::excerpt;
use super::super::no_json;
use super::pack::{Item, Label, Pack};
use crate::model::Value;

/// Reads the records of a pack in JSON (RFC 8428, 5).
///
/// # Errors
/// Where it is none.
pub(super) fn read(text: &str, pack: &mut Pack) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_seq(Records(pack)).and_then(|()| json.end());
    // It may quote a string of the text whole.
    read.map_err(|error| excerpt::cut(no_json(&error), 256))
}

struct Records<'p>(&'p mut Pack);

impl<'de> Visitor<'de> for Records<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Record(&mut *self.0))?.is_some() {
            self.0.end_record().map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

struct Record<'p>(&'p mut Pack);

impl<'de> DeserializeSeed<'de> for Record<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(label) = map.next_key_seed(Key)? {
            match label {
                Some(label) => map.next_value_seed(Field { label, pack: &mut *self.0 })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<Label>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Label>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<Label>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label")
    }

    fn visit_str<E: Error>(self, label: &str) -> Result<Option<Label>, E> {
        Label::of_text(label).map_err(E::custom)
    }
}

struct Field<'p> {
    label: Label,
    pack: &'p mut Pack,
}

impl Field<'_> {
    fn take<E: Error>(self, item: Item<'_>) -> Result<(), E> {
        self.pack.field(self.label, item).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what a field holds")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.take(Item::Value(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.take(Item::Value(Value::Int(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.take(Item::Value(i64::try_from(value).map_or(Value::Uint(value), Value::Int)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.take(Item::Value(Value::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.take(Item::Value(Value::Text(value)))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.take(Item::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.take(Item::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.take(Item::Other)
    }
}

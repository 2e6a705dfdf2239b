//! JSON by pointers (RFC 6901).

use super::super::super::excerpt;
use super::super::field::{self, Field, Meaning, Name, Sink};
use super::super::{LeftOut, Undecodable};
use super::Config;
use super::pointer::Pointer;
use super::walk::{Gathered, Names, Node, Target};
use crate::model::{Readings, Value};

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

/// The decoder.
#[derive(Debug)]
pub(super) struct Fields {
    meanings: Box<[Meaning]>,
    first: Box<str>,
    names: Names,
    root: Node,
    gathered: Gathered,
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
        Self {
            meanings: fields.iter().map(Field::<Pointer, Name>::meaning).collect(),
            names: Names {
                device: config.device.clone().unwrap_or_default(),
                time: config.time.clone().unwrap_or_default(),
                time_unit: config.time_unit,
            },
            first: fields.first().map(|field| field.from.written.clone()).unwrap_or_default(),
            root,
            gathered: Gathered::new(fields.len()),
        }
    }

    pub(super) fn decode(
        &mut self,
        text: &str,
        device: &str,
        out: &mut Readings,
    ) -> Result<LeftOut, Undecodable> {
        self.root.follow(&self.names, text, &mut self.gathered)?;
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

#[cfg(test)]
mod tests;

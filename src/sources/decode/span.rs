use crate::model::Value;

/// A piece of a text that is kept apart. Unlike a range, it can be copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    /// The piece of `text`.
    pub(super) fn within(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// Adds `piece` to `text`.
pub(super) fn keep(text: &mut String, piece: &str) -> Span {
    let start = text.len();
    text.push_str(piece);
    Span { start, end: text.len() }
}

impl Value<Span> {
    /// The same value, its text as it stands in `text`.
    pub(super) fn within(self, text: &str) -> Value<&str> {
        match self {
            Self::Float(x) => Value::Float(x),
            Self::Int(x) => Value::Int(x),
            Self::Uint(x) => Value::Uint(x),
            Self::Bool(x) => Value::Bool(x),
            Self::Text(span) => Value::Text(span.within(text)),
        }
    }
}

impl Value<&str> {
    /// The same value, its text added to `text`.
    pub(super) fn kept(self, text: &mut String) -> Value<Span> {
        match self {
            Self::Float(x) => Value::Float(x),
            Self::Int(x) => Value::Int(x),
            Self::Uint(x) => Value::Uint(x),
            Self::Bool(x) => Value::Bool(x),
            Self::Text(piece) => Value::Text(keep(text, piece)),
        }
    }
}

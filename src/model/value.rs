/// The value of a reading or of an aggregate.
///
/// `T` is how text is held: `Value<&str>` borrows and is `Copy` (the hot path), `Value` owns.
#[derive(Clone, Copy, Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
pub enum Value<T = Box<str>> {
    /// A finite floating-point number.
    #[n(0)]
    Float(#[n(0)] f64),
    /// A signed whole number.
    #[n(1)]
    Int(#[n(0)] i64),
    /// An unsigned whole number, used for what an `i64` cannot hold.
    #[n(2)]
    Uint(#[n(0)] u64),
    /// True or false.
    #[n(3)]
    Bool(#[n(0)] bool),
    /// Text.
    #[n(4)]
    Text(#[n(0)] T),
}

impl<T> Value<T> {
    /// The number, as the nearest `f64`; `None` for bool and text, which are no numbers.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Float(x) => Some(*x),
            #[expect(clippy::cast_precision_loss, reason = "the nearest f64 is what is asked for")]
            Self::Int(x) => Some(*x as f64),
            #[expect(clippy::cast_precision_loss, reason = "the nearest f64 is what is asked for")]
            Self::Uint(x) => Some(*x as f64),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

impl<T: AsRef<str>> Value<T> {
    /// The same value, borrowing its text.
    pub fn borrow(&self) -> Value<&str> {
        match self {
            Self::Float(x) => Value::Float(*x),
            Self::Int(x) => Value::Int(*x),
            Self::Uint(x) => Value::Uint(*x),
            Self::Bool(x) => Value::Bool(*x),
            Self::Text(x) => Value::Text(x.as_ref()),
        }
    }

    /// The same value, owning its text.
    pub fn to_owned(&self) -> Value {
        match self.borrow() {
            Value::Float(x) => Value::Float(x),
            Value::Int(x) => Value::Int(x),
            Value::Uint(x) => Value::Uint(x),
            Value::Bool(x) => Value::Bool(x),
            Value::Text(x) => Value::Text(x.into()),
        }
    }
}

//! Numbers in text.

use crate::model::Value;

/// The number that `text` is, or whether it is `true` or `false`. Whole numbers stay whole up to 64 bits, greater ones
/// become the nearest float; what is not finite is no number.
pub(in crate::sources) fn number(text: &str) -> Option<Value<&'static str>> {
    match text.as_bytes().first()? {
        b't' | b'f' => return text.parse().ok().map(Value::Bool),
        b'0'..=b'9' | b'-' | b'+' | b'.' => {}
        _ => return None,
    }
    if let Ok(value) = text.parse() {
        return Some(Value::Int(value));
    }
    if let Ok(value) = text.parse() {
        return Some(Value::Uint(value));
    }
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_is_written() {
        assert_eq!(number("21.5"), Some(Value::Float(21.5)));
        assert_eq!(number("-3"), Some(Value::Int(-3)));
        assert_eq!(number("+007"), Some(Value::Int(7)));
        assert_eq!(number(".5"), Some(Value::Float(0.5)));
        assert_eq!(number("1e3"), Some(Value::Float(1000.0)));
        assert_eq!(number("18446744073709551615"), Some(Value::Uint(u64::MAX)));
        assert_eq!(number("18446744073709551616"), Some(Value::Float(18_446_744_073_709_551_616.0)));
        assert_eq!(number("true"), Some(Value::Bool(true)));
        assert_eq!(number("false"), Some(Value::Bool(false)));
        for wrong in [
            "",
            " 1",
            "on",
            "True",
            "NaN",
            "-nan",
            "inf",
            "-inf",
            "+infinity",
            "1e999",
            "1,5",
            "0x10",
            "21.5 C",
            "-",
        ] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}

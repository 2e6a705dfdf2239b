use std::fmt;

use memchr::memmem;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Bytes as they stand in the configuration: a text of ASCII characters (`"\r\n"`, `"\u0002"`), or, where one of them is
/// above 0x7f or for whoever prefers it, a list of numbers (`[0xaa, 0xc0]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Box<[u8]>);

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of numbers, such as \"\\r\\n\" or [0xaa, 0xc0]")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        if let Some(bytes) = hex.and_then(hexadecimal) {
            return Err(E::custom(format!(
                "\"{text}\" is a text of {} characters, not these bytes: write them as a list of numbers, {bytes}",
                text.len()
            )));
        }
        match text.chars().find(|character| !character.is_ascii()) {
            None => Ok(Bytes(text.as_bytes().into())),
            // "\u00aa" is two bytes in UTF-8, and hardly the two that were meant.
            Some(other) => Err(E::custom(format!(
                "`{}` is no ASCII character: write these bytes as a list of numbers, such as [0xaa, 0xc0]",
                other.escape_default()
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(Bytes(bytes.into()))
    }
}

/// The bytes that `digits` are in base 16, as a list of TOML.
fn hexadecimal(digits: &str) -> Option<String> {
    let is_hex = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let whole = if digits.len() % 2 == 0 { digits.to_owned() } else { format!("0{digits}") };
    let pairs: Vec<String> = whole
        .as_bytes()
        .chunks(2)
        .map(|pair| format!("0x{}", String::from_utf8_lossy(pair).to_lowercase()))
        .collect();
    is_hex.then(|| format!("[{}]", pairs.join(", ")))
}

/// Where `needle`, which is not empty, first stands in `bytes`.
pub(super) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let found = match needle {
        [one] => memchr::memchr(*one, bytes),
        _ => memmem::find(bytes, needle),
    };
    looked_at(found.map_or(bytes.len(), |at| at + needle.len()));
    found
}

/// For the tests, which hold what a search may cost.
pub(super) fn looked_at(bytes: usize) {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + bytes);
    let _ = bytes;
}

#[cfg(test)]
thread_local! {
    /// How many bytes were looked at, on this thread.
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many bytes at the end of `bytes` may be the beginning of `needle`, the rest of which has not come.
pub(super) fn begun(bytes: &[u8], needle: &[u8]) -> usize {
    let most = needle.len().saturating_sub(1).min(bytes.len());
    (1..=most).rev().find(|length| bytes.ends_with(&needle[..*length])).unwrap_or(0)
}

/// Where `start` first stands in `bytes`, or may stand once more has come. An empty one stands everywhere.
pub(super) fn may_start(bytes: &[u8], start: &[u8]) -> usize {
    if start.is_empty() {
        return 0;
    }
    find(bytes, start).unwrap_or_else(|| bytes.len() - begun(bytes, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Key {
        key: Bytes,
    }

    fn read(value: &str) -> Result<Vec<u8>, String> {
        toml::from_str(&format!("key = {value}"))
            .map(|Key { key }| key.to_vec())
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn bytes_are_written_as_an_ascii_text_or_as_numbers() {
        assert_eq!(read(r#""\r\n""#), Ok(b"\r\n".to_vec()));
        assert_eq!(read(r#""\u0002""#), Ok(vec![2]));
        assert_eq!(read("[0xaa, 0xc0, 10]"), Ok(vec![0xaa, 0xc0, 10]));
        assert_eq!(read("''"), Ok(vec![]));
        assert!(read(r#""\u00aa""#).unwrap_err().contains("a list of numbers, such as [0xaa, 0xc0]"));
        assert!(read("[256]").unwrap_err().contains("expected u8"));
        assert!(read("7").unwrap_err().contains("expected a text or a list of numbers"));
    }

    #[test]
    fn a_mark_is_found_where_it_stands_or_may_stand() {
        assert_eq!(may_start(b"xxab", b"ab"), 2);
        assert_eq!(may_start(b"xxxa", b"ab"), 3);
        assert_eq!(may_start(b"xxxx", b"ab"), 4);
        assert_eq!(may_start(b"xx", b""), 0);
        assert_eq!(begun(b"aab", b"abac"), 2);
        assert_eq!(begun(b"aaba", b"abac"), 3);
        assert_eq!(begun(b"abac", b"abac"), 0, "it is there already");
    }
}

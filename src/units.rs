//! A leaf: durations and sizes as they stand in the configuration, and how to show them to a person.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A number of bytes, written `"64MiB"`, `"32KiB"`, `"10MB"` or `"512B"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Size {
    /// Reads a size.
    ///
    /// # Errors
    /// Says what is wrong with the text and how a size looks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no size: write a whole number and a unit, such as \"64MiB\" or \"32KiB\"")
        };
        let trimmed = text.trim();
        let (digits, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| Some((trimmed.strip_suffix(unit)?.trim_end(), *factor)))
            .ok_or_else(wrong)?;
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0 % factor == 0)
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A size to about a tenth: `1.2MiB`.
#[must_use]
pub fn about(bytes: u64) -> String {
    let unit = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match unit.into_iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => format!("{}.{}{unit}", bytes / factor, bytes % factor * 10 / factor),
        None => format!("{bytes}B"),
    }
}

/// Reads a duration written `"10s"`, `"500ms"`, `"7d"` or `"1h 30m"`. For `#[serde(deserialize_with)]`.
///
/// # Errors
/// Says what is wrong with the text and how a duration looks.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!(
            "`{text}` is no duration ({error}): write a number and a unit, such as \"10s\", \"500ms\" or \"7d\""
        ))
    })
}

/// A duration as a person writes it: `1h 30m`.
#[must_use]
pub fn show(duration: Duration) -> impl fmt::Display {
    // Below a millisecond nothing here is worth showing.
    humantime::format_duration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_shown_to_a_tenth() {
        let shown = [0, 1_023, 1_024, 1_300_000, (2 << 30) - 1].map(about);
        assert_eq!(shown, ["0B", "1023B", "1.0KiB", "1.2MiB", "1.9GiB"]);
    }

    #[test]
    fn sizes_are_read_with_their_unit_and_refused_without() {
        assert_eq!(Size::parse("64MiB"), Ok(Size(64 << 20)));
        assert_eq!(Size::parse("10 MB"), Ok(Size(10_000_000)));
        assert_eq!(Size::parse("0B"), Ok(Size(0)));
        for wrong in ["", "64", "MiB", "-1B", "1.5MiB", "64 mib", "99999999999GiB"] {
            assert!(Size::parse(wrong).unwrap_err().contains("64MiB"), "{wrong}");
        }
    }

    #[test]
    fn a_size_is_shown_as_it_would_be_written() {
        for text in ["64MiB", "1GiB", "1000B", "3KiB", "0B"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
    }
}

//! A leaf: the glob that `match` keys hold against `device/metric`.

use std::fmt;

use serde::Deserialize;

/// A glob over `device/metric`: `*` stands for any run of characters, a slash among them, `?` for exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Whether the series `device/metric` matches.
    #[must_use]
    pub fn matches(&self, device: &str, metric: &str) -> bool {
        let mut text = device.chars().chain(['/']).chain(metric.chars());
        let mut glob = self.0.chars();
        // Where to go on if what follows the last star turns out not to match.
        let mut retry = None;
        loop {
            let text_before = text.clone();
            match (glob.next(), text.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    text = text_before;
                    retry = Some((glob.clone(), text.clone()));
                    continue;
                }
                (Some('?'), Some(_)) => continue,
                (Some(wanted), Some(found)) if wanted == found => continue,
                _ => {}
            }
            let Some((star, rest)) = &mut retry else { return false };
            if rest.next().is_none() {
                return false;
            }
            glob = star.clone();
            text = rest.clone();
        }
    }
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern needs at least one character; `*` matches every series")]
pub struct EmptyPattern;

impl TryFrom<String> for Pattern {
    type Error = EmptyPattern;

    fn try_from(text: String) -> Result<Self, EmptyPattern> {
        if text.is_empty() { Err(EmptyPattern) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(glob: &str, device: &str, metric: &str) -> bool {
        Pattern::try_from(glob.to_owned()).unwrap().matches(device, metric)
    }

    #[test]
    fn a_star_stands_for_any_run_and_a_question_mark_for_one_character() {
        assert!(matches("*", "boiler", "temperature"));
        assert!(matches("*/temperature", "boiler", "temperature"));
        assert!(matches("*/temperature", "hall/2", "temperature"));
        assert!(matches("boiler/*", "boiler", "temperature"));
        assert!(matches("meter-?/volt*", "meter-1", "voltage"));
        assert!(matches("*er/*e", "boiler", "temperature"));
        assert!(matches("größe-?/*", "größe-ß", "x"));
        assert!(!matches("*/temperature", "boiler", "temperatures"));
        assert!(!matches("boiler", "boiler", "temperature"));
        assert!(!matches("meter-?/voltage", "meter-12", "voltage"));
        assert!(!matches("meter-?/voltage", "meter-", "voltage"));
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        assert_eq!(Pattern::try_from(String::new()), Err(EmptyPattern));
    }

    /// The definition, written down: slow, and plainly right.
    fn plain(glob: &[char], text: &[char]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), None) => plain(rest, text),
            (Some(('*', rest)), Some((_, shorter))) => plain(rest, text) || plain(glob, shorter),
            (Some(('?', rest)), Some((_, shorter))) => plain(rest, shorter),
            (Some((wanted, rest)), Some((found, shorter))) => wanted == found && plain(rest, shorter),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_plain_definition(glob in "[ab*?/]{1,8}", device in "[ab]{0,4}", metric in "[ab]{0,4}") {
            let text: Vec<char> = format!("{device}/{metric}").chars().collect();
            let globs: Vec<char> = glob.chars().collect();
            prop_assert_eq!(matches(&glob, &device, &metric), plain(&globs, &text));
        }
    }
}

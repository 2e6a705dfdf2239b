//! serde's complaints, and how a person at a cabinet would put them.
//!
//! serde speaks in text alone. Its phrases are fixed by its `de::Error` trait; one that is not known here is passed
//! on as it is, so a new phrase can only cost clarity.

/// What serde complains of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Complaint<'m> {
    /// A key that the table does not have, and those that it has.
    UnknownKey(Vec<&'m str>),
    /// A text that the key does not take, and those that it takes.
    UnknownValue(Vec<&'m str>),
    /// A key that has to be there.
    Missing(&'m str),
    /// A value of the wrong type or out of range, and what it should be.
    Unfit(String),
    /// What a stage's own type says.
    Other(&'m str),
}

impl<'m> Complaint<'m> {
    pub(super) fn read(message: &'m str) -> Self {
        // The names are the program's own, so the last ", expected " begins them, whatever stands before.
        let (found, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
        if message.starts_with("unknown field ") {
            Self::UnknownKey(names(expected))
        } else if found.starts_with("unknown variant ") {
            Self::UnknownValue(names(expected))
        } else if let Some(key) = message.strip_prefix("missing field `") {
            Self::Missing(key.trim_end_matches('`'))
        } else if found.starts_with("invalid type: ") || found.starts_with("invalid value: ") {
            Self::Unfit(wanted(expected))
        } else if message == "wanted string or table" {
            Self::Unfit(wanted("a string"))
        } else {
            Self::Other(message)
        }
    }
}

/// What stands between backticks.
fn names(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

fn wanted(expected: &str) -> String {
    let words = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or greater",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "path string" | "string or table" => "a text in quotes",
        "a character" => "one character in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in square brackets",
        "a map" => "a table",
        "a nonzero u8" => "a whole number from 1 to 255",
        "a nonzero u16" => "a whole number from 1 to 65535",
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        _ if expected.starts_with("a nonzero ") => "a whole number, 1 or greater",
        _ if expected.starts_with("struct ") => "a table",
        _ if expected.contains("tagged enum ") => "a table with a `type`",
        _ => expected,
    };
    words.to_owned()
}

/// What `key`, which is missing, may look like, where its name does not tell.
pub(super) fn example(key: &str) -> Option<String> {
    (key == "decode").then(|| {
        "write for instance decode = { type = \"json\" }, or decode = { type = \"text\", metric = \"temperature\" } for a number \
         a line"
            .to_owned()
    })
}

/// What a stage says of a key, with the key's name where it does not say it itself.
pub(super) fn about(key: &str, text: String) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    // What is wrong with a whole table is told at its `type`, and is not about the `type`.
    // Nor does the number of an item in a list tell anybody anything.
    let numbered = name.parse::<usize>().is_ok();
    let named = numbered || name == "type" || text.contains(&format!("`{name}`"));
    if named { text } else { format!("`{name}`: {text}") }
}

/// What to write instead of `word`: the nearest of `names`, or all of them. `quote` stands around each.
pub(super) fn instead(word: &str, names: &[&str], quote: &str) -> Option<String> {
    let shown = |name: &&str| format!("{quote}{name}{quote}");
    if let Some(near) = nearest(word, names) {
        return Some(format!("did you mean {}?", shown(&near)));
    }
    let begun: Vec<String> = begun(word, names).map(shown).collect();
    if !begun.is_empty() {
        return Some(format!("did you mean {}?", begun.join(" or ")));
    }
    let all: Vec<String> = names.iter().map(shown).collect();
    match all.as_slice() {
        [] => None,
        [one] => Some(format!("the only one is {one}")),
        [most @ .., last] => Some(format!("there are {} and {last}", most.join(", "))),
    }
}

/// The names that `word` is the beginning of, where it is a word at all.
fn begun<'n, 'm>(word: &'n str, names: &'n [&'m str]) -> impl Iterator<Item = &'n &'m str> {
    names.iter().filter(move |name| word.len() >= 3 && name.starts_with(&word.to_lowercase()))
}

/// The nearest of `names`, where one is near enough to be what was meant, and no other as near. A slip of the finger
/// keeps the length.
pub(super) fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    if begun(word, names).nth(1).is_some() {
        return None;
    }
    let word = word.to_lowercase();
    let length = word.chars().count();
    let rank = |name: &&'n str| {
        let (likeness, slips) = (strsim::jaro_winkler(&word, name), strsim::damerau_levenshtein(&word, name));
        (likeness > 0.8 || slips == 1).then_some((slips == 1 && name.chars().count() == length, likeness))
    };
    let mut ranked: Vec<_> = names.iter().filter_map(|name| Some((rank(name)?, *name))).collect();
    ranked.sort_by(|(one, _), (other, _)| other.0.cmp(&one.0).then(other.1.total_cmp(&one.1)));
    match ranked.as_slice() {
        [(first, _), (second, _), ..] if first == second => None,
        [(_, name), ..] => Some(name),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serdes_phrases_are_told_apart() {
        assert_eq!(
            Complaint::read("unknown field `bad`, expected one of `baud`, `port`"),
            Complaint::UnknownKey(vec!["baud", "port"])
        );
        assert_eq!(Complaint::read("unknown field `a`, there are no fields"), Complaint::UnknownKey(vec![]));
        assert_eq!(
            Complaint::read("unknown variant `x, expected y`, expected `even` or `odd`"),
            Complaint::UnknownValue(vec!["even", "odd"])
        );
        assert_eq!(Complaint::read("missing field `port`"), Complaint::Missing("port"));
        assert_eq!(
            Complaint::read("invalid type: string \"x, expected f64\", expected u8"),
            Complaint::Unfit("a whole number from 0 to 255".into())
        );
        assert_eq!(
            Complaint::read("invalid value: integer `5000000000`, expected a nonzero u32"),
            Complaint::Unfit("a whole number from 1 to 4294967295".into())
        );
        assert_eq!(Complaint::read("a pattern needs"), Complaint::Other("a pattern needs"));
    }

    #[test]
    fn a_key_is_named_once_and_the_number_of_an_item_never() {
        assert_eq!(about("tls.key", "is open".into()), "`key`: is open");
        assert_eq!(about("tls.key", "`key` is open".into()), "`key` is open");
        assert_eq!(about("registers.5", "register `z` is wrong".into()), "register `z` is wrong");
    }

    #[test]
    fn a_slip_finds_the_name_that_was_meant_and_another_word_finds_none() {
        let names = ["baud", "data_bits", "port", "max_frame"];
        assert_eq!(nearest("baudrate", &names), Some("baud"));
        assert_eq!(nearest("Max-Frame", &names), Some("max_frame"));
        assert_eq!(nearest("prot", &names), Some("port"));
        assert_eq!(nearest("lgo", &["log", "clock"]), Some("log"));
        assert_eq!(nearest("urlz", &["url", "urls"]), Some("urls"));
        assert_eq!(nearest("1.1", &["1.2", "1.3"]), None, "either may be meant");
        assert_eq!(nearest("colour", &names), None);
        let sums = ["crc8", "crc16_modbus", "crc16_ccitt"];
        assert_eq!(nearest("crc16", &sums), None, "either may be meant");
        assert_eq!(
            instead("crc16", &sums, "\"").unwrap(),
            "did you mean \"crc16_modbus\" or \"crc16_ccitt\"?"
        );
        assert_eq!(nearest("", &names), None);
    }
}

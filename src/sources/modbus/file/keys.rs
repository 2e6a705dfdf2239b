//! The keys of a register in a file, and what is wrong with them in words for whoever wrote them.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::sources::modbus::register::Register;

/// What a register of a file may say, and what each takes.
pub(super) const KEYS: [(&str, &str); 12] = [
    ("metric", "a text"),
    ("table", "\"holding\", \"input\", \"coil\" or \"discrete\""),
    ("address", "a whole number from 0 to 65535"),
    (
        "type",
        "\"bool\", \"u16\", \"i16\", \"u32\", \"i32\", \"u64\", \"i64\", \"f32\", \"f64\" or \"string\"",
    ),
    ("word_order", "\"big\" or \"little\""),
    ("byte_order", "\"big\" or \"little\""),
    ("scale", "a number"),
    ("offset", "a number"),
    ("unit", "a text"),
    ("bit", "a whole number from 0 to 15"),
    ("length", "a whole number from 1 to 125"),
    ("every", "a text such as \"10s\""),
];

/// Those that have to be there.
pub(super) const NEEDED: [&str; 2] = ["metric", "address"];

/// What is wrong with a key that no register of a file has.
pub(super) fn unknown(key: &str) -> String {
    if ["device", "unit_id"].contains(&key) {
        return format!("`{key}` belongs into the `devices` of the source's table");
    }
    match meant(key) {
        Some(near) => format!("unknown key `{key}`: did you mean `{near}`?"),
        None => {
            let all: Vec<_> = KEYS.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("unknown key `{key}`: there are {}", all.join(", "))
        }
    }
}

/// The key that was meant by one that is not known.
pub(super) fn meant(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase();
    let slips = |name: &str| strsim::damerau_levenshtein(&key, name);
    KEYS.iter().map(|(name, _)| *name).min_by_key(|name| slips(name)).filter(|name| slips(name) <= 2)
}

/// Reads a register, and finds everything that is wrong with it, each with its place. What was complained of is taken
/// out and the rest read again.
pub(super) fn register(mut node: Spanned<DeValue<'_>>) -> Result<Register, Vec<(usize, String)>> {
    let start = node.span().start;
    let mut wrong: Vec<(usize, String)> = Vec::new();
    let Some(table) = table_in(&mut node) else {
        return Err(vec![(start, "a register must be a table: begin it with [[registers]]".to_owned())]);
    };
    let keys: Vec<_> = table.keys().map(|key| (key.span().start, key.get_ref().to_string())).collect();
    let is_known = |key: &str| KEYS.iter().any(|(name, _)| *name == key);
    let strange = keys.iter().filter(|(_, key)| !is_known(key));
    // Keys whose values the file does not say, or not rightly.
    let mut taken: Vec<String> = Vec::new();
    for (at, key) in strange {
        wrong.push((*at, unknown(key)));
        table.remove(key.as_str());
        taken.extend(meant(key).map(str::to_owned));
    }
    for key in NEEDED {
        if table.contains_key(key) {
            continue;
        }
        if !taken.iter().any(|taken| taken == key) {
            wrong.push((start, format!("`{key}` is missing")));
        }
        stand_in(table, key);
        taken.push(key.to_owned());
    }
    // Each round takes out one key, or puts one in.
    for _ in 0..=2 * KEYS.len() {
        let error = match Register::deserialize(ValueDeserializer::from(node.clone())) {
            Ok(register) if wrong.is_empty() => return Ok(register),
            Ok(_) => break,
            Err(error) => error,
        };
        let message = error.message();
        let Some(table) = table_in(&mut node) else { break };
        let place = error.span().unwrap_or_default();
        let named = || message.strip_prefix('`')?.split_once('`').map(|(key, _)| key.to_owned());
        let key = table
            .iter()
            .find(|(_, value)| value.span() == place)
            .map(|(key, _)| key.get_ref().to_string())
            .or_else(|| named().filter(|key| table.contains_key(key.as_str())));
        let Some((key, value)) = key.and_then(|key| table.remove(key.as_str()).map(|value| (key, value)))
        else {
            wrong.push((start, message.to_owned()));
            break;
        };
        // What speaks of a key that was taken out is a guess.
        if !taken.iter().any(|taken| message.contains(&format!("`{taken}`"))) {
            wrong.push((value.span().start, told(&key, value.get_ref(), message)));
        }
        if NEEDED.contains(&key.as_str()) {
            stand_in(table, &key);
        }
        taken.push(key);
    }
    Err(wrong)
}

fn table_in<'n, 'f>(node: &'n mut Spanned<DeValue<'f>>) -> Option<&'n mut DeTable<'f>> {
    match node.get_mut() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// Puts something in for a key that has to be there, so that the others are read.
pub(super) fn stand_in(table: &mut DeTable<'_>, key: &str) {
    let nowhere = usize::MAX..usize::MAX;
    let value = if key == "metric" { "'m'" } else { "0" };
    if let Ok(value) = DeValue::parse(value) {
        let key = Spanned::new(nowhere.clone(), key.to_owned().into());
        table.insert(key, Spanned::new(nowhere, value.into_inner()));
    }
}

/// serde's words for what is wrong with the value of a key, in those of a person.
fn told(key: &str, value: &DeValue<'_>, message: &str) -> String {
    let takes = KEYS.iter().find(|(name, _)| *name == key).map(|(_, takes)| *takes);
    match takes {
        Some(takes)
            if ["invalid ", "unknown variant", "wanted "].iter().any(|words| message.starts_with(words)) =>
        {
            let written = match value {
                DeValue::String(text) => format!("the text \"{text}\""),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(truth) => truth.to_string(),
                DeValue::Datetime(time) => time.to_string(),
                DeValue::Array(_) => "a list".to_owned(),
                DeValue::Table(_) => "a table".to_owned(),
            };
            format!("`{key}` must be {takes}, not {written}")
        }
        _ if message.contains(&format!("`{key}`")) => message.to_owned(),
        _ => format!("`{key}`: {message}"),
    }
}

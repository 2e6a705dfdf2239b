//! A map in CSV: its cells become the values that TOML would have, and are read as those are.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, NEEDED, meant, register, stand_in, unknown};
use super::{Found, Wrong};
use crate::sources::modbus::register::Register;

/// The columns that hold numbers, with and without a fraction.
const WHOLE: [&str; 3] = ["address", "bit", "length"];
const NUMBERS: [&str; 2] = ["scale", "offset"];

/// A header that names the keys, then a line for each register. An empty cell is a key left out; `#` begins a comment.
pub(super) fn csv(text: &str) -> Found {
    let (mut registers, mut wrong) = (Vec::new(), Vec::new());
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let Some((first, header)) = lines.next() else { return (registers, wrong) };
    // Spreadsheets of many countries write semicolons.
    let separator = if header.contains(';') { ';' } else { ',' };
    let names = cells(header, separator);
    let mut columns: Vec<Option<&str>> = Vec::new();
    for (column, name) in &names {
        let known = KEYS.iter().map(|(key, _)| *key).find(|key| key == name);
        let fault = match known {
            Some(key) if columns.contains(&Some(key)) => Some(format!("the column `{key}` is there twice")),
            None if !name.is_empty() => Some(unknown(name)),
            _ => None,
        };
        wrong.extend(fault.map(|text| Wrong { line: first + 1, column: *column, text }));
        // What the cells of a misspelt column hold is looked at all the same.
        let key = known.or_else(|| meant(name));
        columns.push(key.filter(|key| !columns.contains(&Some(key))));
    }
    let absent: Vec<&str> = NEEDED.into_iter().filter(|key| !columns.contains(&Some(key))).collect();
    for key in &absent {
        let text = format!("the header has no column `{key}`");
        wrong.push(Wrong { line: first + 1, column: 1, text });
    }
    for (index, line) in lines {
        let cells = cells(line, separator);
        let fault = |(column, text): (usize, String)| Wrong { line: index + 1, column, text };
        if let Some((column, _)) = cells.get(columns.len()) {
            wrong.push(fault((*column, format!("the header has but {} columns", columns.len()))));
            continue;
        }
        match row(&columns, &absent, &cells) {
            Ok(register) if absent.is_empty() => registers.push(register),
            Ok(_) => {}
            Err(all) => wrong.extend(all.into_iter().map(fault)),
        }
    }
    (registers, wrong)
}

/// A line's cells, each with its column.
fn cells(line: &str, separator: char) -> Vec<(usize, String)> {
    let mut cells = vec![(1, String::new())];
    let mut quoted = false;
    let mut characters = line.chars().enumerate().peekable();
    while let Some((place, character)) = characters.next() {
        let Some((_, cell)) = cells.last_mut() else { break };
        match character {
            '"' if quoted && characters.next_if(|(_, next)| *next == '"').is_some() => cell.push('"'),
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => cells.push((place + 2, String::new())),
            _ => cell.push(character),
        }
    }
    for (_, cell) in &mut cells {
        *cell = cell.trim().to_owned();
    }
    cells
}

/// The register of a line, whose places are columns; `absent` are the columns that it lacks.
fn row(
    columns: &[Option<&str>],
    absent: &[&str],
    cells: &[(usize, String)],
) -> Result<Register, Vec<(usize, String)>> {
    let named = columns.iter().zip(cells).filter_map(|(key, (column, cell))| Some(((*key)?, *column, cell)));
    // A number as TOML has it; anything else is a text, and told as one where a number should be.
    let written: Vec<_> = named
        .filter(|(_, _, cell)| !cell.is_empty())
        .map(|(key, column, cell)| {
            let number = if WHOLE.contains(&key) {
                let hex = cell.strip_prefix("0x").map(|digits| i64::from_str_radix(digits, 16));
                hex.unwrap_or_else(|| cell.parse()).ok().map(|number| number.to_string())
            } else if NUMBERS.contains(&key) {
                cell.parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite())
                    .map(|number| format!("{number:?}"))
            } else {
                None
            };
            (key, column, cell, number)
        })
        .collect();
    let mut table = DeTable::new();
    for (key, column, cell, number) in &written {
        let place = *column..*column + 1;
        let number =
            number.as_deref().and_then(|number| DeValue::parse(number).ok()).map(Spanned::into_inner);
        let value = number.unwrap_or_else(|| DeValue::String(cell.as_str().into()));
        table.insert(Spanned::new(place.clone(), (*key).into()), Spanned::new(place, value));
    }
    for key in absent {
        stand_in(&mut table, key);
    }
    register(Spanned::new(1..usize::MAX, DeValue::Table(table)))
}

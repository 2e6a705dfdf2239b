//! `registers_file`: a map that stands in a file of its own, TOML or CSV, and may serve many devices.
//!
//! It is read with the configuration and is a part of it: what is wrong in it is told with its line and column, and a
//! reload sees that it has changed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::register::Register;

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// So that a file that is no map at all does not fill the screen.
const MOST: usize = 20;

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Map {
    path: Box<str>,
    pub(super) registers: Vec<Register>,
    /// What is wrong with it, each with its place.
    pub(super) problems: Vec<String>,
    /// There is no such file now. It may come later, and the source waits for it as for its port.
    pub(super) is_absent: bool,
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(&String::deserialize(deserializer)?))
    }
}

impl Map {
    fn read(path: &str) -> Self {
        let mut map =
            Self { path: path.into(), registers: Vec::new(), problems: Vec::new(), is_absent: false };
        let text = match text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self { is_absent: true, ..map },
            Err(error) => {
                map.problems.push(format!("{path} cannot be read: {error}"));
                return map;
            }
        };
        let is_csv = path.rsplit('.').next().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
        let (registers, wrong) = if is_csv { csv(&text) } else { toml(&text) };
        let told = |Wrong { line, column, text }| format!("{path}, line {line}, column {column}: {text}");
        map.problems.extend(wrong.into_iter().take(MOST).map(told));
        if registers.is_empty() && map.problems.is_empty() {
            map.problems.push(format!("{path} has no register: begin each with [[registers]]"));
        }
        Self { registers, ..map }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The same file, read again.
    pub(super) fn again(&self) -> Self {
        Self::read(&self.path)
    }
}

fn text(path: &str) -> io::Result<String> {
    // Without O_NONBLOCK a pipe would hold up whoever opens it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is no UTF-8 text"))
}

/// What is wrong, and where; both numbers from 1, the column in characters.
#[derive(Debug, PartialEq)]
struct Wrong {
    line: usize,
    column: usize,
    text: String,
}

type Found = (Vec<Register>, Vec<Wrong>);

/// A register, unless it names the device that the source's table is to name.
fn of_any_device(register: Register) -> Result<Register, String> {
    if register.device.is_some() || register.unit_id.is_some() {
        return Err("`device` and `unit_id` belong into the `devices` of the source's table".into());
    }
    Ok(register)
}

fn toml(text: &str) -> Found {
    let at = |byte: usize, message: String| {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().count() + 1;
        Wrong { line: before.matches('\n').count() + 1, column, text: message }
    };
    let (mut registers, mut wrong) = (Vec::new(), Vec::new());
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let start = error.span().map_or(text.len(), |span| span.start);
        wrong.push(at(start, format!("this is no TOML: {}", error.message())));
    }
    for (key, node) in root.into_inner() {
        match node.into_inner() {
            DeValue::Array(nodes) if key.get_ref() == "registers" => {
                for node in nodes {
                    let start = node.span().start;
                    let read = Register::deserialize(ValueDeserializer::from(node)).map_err(|error| {
                        at(error.span().map_or(start, |span| span.start), error.message().to_owned())
                    });
                    match read.and_then(|register| of_any_device(register).map_err(|text| at(start, text))) {
                        Ok(register) => registers.push(register),
                        Err(error) => wrong.push(error),
                    }
                }
            }
            _ => {
                let (start, key) = (Spanned::span(&key).start, key.get_ref());
                wrong.push(at(
                    start,
                    format!("`{key}` is not known here: a file of registers has [[registers]] alone"),
                ));
            }
        }
    }
    wrong.sort_by_key(|wrong| (wrong.line, wrong.column));
    (registers, wrong)
}

/// The columns that hold numbers, with and without a fraction.
const WHOLE: [&str; 3] = ["address", "bit", "length"];
const NUMBERS: [&str; 2] = ["scale", "offset"];

/// A header that names the keys, then a line for each register. An empty cell is a key left out; `#` begins a comment.
fn csv(text: &str) -> Found {
    let (mut registers, mut wrong) = (Vec::new(), Vec::new());
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let Some((_, header)) = lines.next() else { return (registers, wrong) };
    // Spreadsheets of many countries write semicolons.
    let separator = if header.contains(';') { ';' } else { ',' };
    let keys = cells(header, separator);
    for (index, line) in lines {
        let cells = cells(line, separator);
        let fault = |column: usize, text: String| Wrong { line: index + 1, column, text };
        if let Some((column, _)) = cells.get(keys.len()) {
            wrong.push(fault(*column, format!("the header has but {} columns", keys.len())));
            continue;
        }
        match row(&keys, &cells).and_then(|register| of_any_device(register).map_err(|text| (1, text))) {
            Ok(register) => registers.push(register),
            Err((column, text)) => wrong.push(fault(column, text)),
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

fn row(keys: &[(usize, String)], cells: &[(usize, String)]) -> Result<Register, (usize, String)> {
    let mut table = toml::Table::new();
    for ((_, key), (column, cell)) in keys.iter().zip(cells).filter(|(_, (_, cell))| !cell.is_empty()) {
        let value = if WHOLE.contains(&&**key) {
            let hex = cell.strip_prefix("0x").map(|digits| i64::from_str_radix(digits, 16));
            let number = hex.unwrap_or_else(|| cell.parse());
            let number =
                number.map_err(|_| (*column, format!("`{key}` must be a whole number, not `{cell}`")))?;
            toml::Value::Integer(number)
        } else if NUMBERS.contains(&&**key) {
            let number =
                cell.parse().map_err(|_| (*column, format!("`{key}` must be a number, not `{cell}`")))?;
            toml::Value::Float(number)
        } else {
            toml::Value::String(cell.clone())
        };
        table.insert(key.clone(), value);
    }
    Register::deserialize(toml::Value::Table(table)).map_err(|error| {
        let text = error.message().to_owned();
        let named = |name: &str| text.contains(&format!("`{name}`"));
        // What it complains of, as far as it can be told: the cell that it quotes, or the one whose key it names.
        let blamed = cells
            .iter()
            .position(|(_, cell)| !cell.is_empty() && named(cell))
            .or_else(|| keys.iter().position(|(_, key)| named(key)));
        (blamed.and_then(|place| cells.get(place)).map_or(1, |(column, _)| *column), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(found: &Found) -> Vec<(usize, usize, &str)> {
        found.1.iter().map(|wrong| (wrong.line, wrong.column, wrong.text.as_str())).collect()
    }

    #[test]
    fn toml_and_csv_say_the_same() {
        let one = toml(
            "[[registers]]\nmetric = 'voltage'\ntable = 'input'\naddress = 0\ntype = 'f32'\nunit = 'V'\n\
             [[registers]]\nmetric = 'energy'\ntable = 'input'\naddress = 0x156\ntype = 'f32'\nscale = 0.5\nevery = '1m'\n",
        );
        let other = csv("metric,table,address,type,unit,scale,every\n\
             voltage,input,0,f32,V,,\n# a comment\n\n\"energy\",input, 0x156 ,f32,,0.5,1m\n");
        assert_eq!(places(&one), []);
        assert_eq!(one, other);
        assert_eq!(one.0.len(), 2);
        let semicolons = csv(
            "metric;table;address;type;unit;scale;every\nvoltage;input;0;f32;V;;\nenergy;input;342;f32;;0.5;1m",
        );
        assert_eq!(one, semicolons);
    }

    #[test]
    fn every_mistake_of_a_toml_file_is_found_with_its_place() {
        let found = toml(
            "[[registers]]\nmetric = 'a'\naddress = 70000\n\n[[registers]]\nmetric = 'b'\nadress = 0\n\n\
             [[registers]]\nmetric = 'c'\naddress = 1\ntype = 'f16'\n\n[[registers]]\nmetric = 'd'\naddress = 1\nunit_id = 2\n\n[more]\n",
        );
        let places = places(&found);
        let found: Vec<_> = places.iter().map(|(line, column, _)| (*line, *column)).collect();
        assert_eq!(found, [(3, 11), (7, 1), (12, 8), (14, 1), (19, 2)], "{places:?}");
        assert!(places[1].2.contains("`adress`"), "{places:?}");
        assert!(places[3].2.contains("`devices`"), "{places:?}");
    }

    #[test]
    fn every_mistake_of_a_csv_file_is_found_with_its_place() {
        let found = csv("metric,address,type\na,x,u16\nb,1,f16\nc,70000,\nd,1,u16,7\n,1,u16\ne,1,u16\n");
        let places = places(&found);
        let found_at: Vec<_> = places.iter().map(|(line, column, _)| (*line, *column)).collect();
        assert_eq!(found_at[..2], [(2, 3), (3, 5)], "{places:?}");
        assert_eq!(found_at[2].0, 4);
        assert_eq!(found_at[3], (5, 9));
        assert_eq!(found_at[4].0, 6);
        assert_eq!(found.0.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_name() {
        let absent = Map::read("/no/such/map.toml");
        assert!(absent.is_absent && absent.problems.is_empty());
        assert_eq!(Map::read("/dev/null").problems, ["/dev/null cannot be read: it is not a regular file"]);
    }
}

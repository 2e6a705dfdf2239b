//! `registers_file`: a map that stands in a file of its own, TOML or CSV, and may serve many devices.
//!
//! It is read with the configuration and is a part of it: what is wrong in it is told with its line and column, and a
//! reload sees that it has changed. `keys` reads one register of either, `csv` makes them of cells.

mod csv;
mod keys;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::register::Register;
use csv::csv;
use keys::{NEEDED, register};

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
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                map.problems.push(format!(
                    "this user may not read {path}: make it readable by the user weir, as `sudo install -m 640 -g weir FILE {path}` \
                     does"
                ));
                return map;
            }
            Err(error) => {
                map.problems.push(format!("{path} cannot be read: {error}"));
                return map;
            }
        };
        let is_csv = path.rsplit('.').next().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
        if !is_csv && is_like_csv(&text) {
            map.problems.push(format!(
                "{path} looks like CSV and is read as TOML: what is CSV needs a name that ends in `.csv`"
            ));
            return map;
        }
        let (registers, wrong) = if is_csv { csv(&text) } else { toml(&text) };
        let told = |Wrong { line, column, text }| format!("{path}, line {line}, column {column}: {text}");
        let more = wrong.len().saturating_sub(MOST);
        map.problems.extend(wrong.into_iter().take(MOST).map(told));
        if more > 0 {
            map.problems.push(format!("{path} has {more} more mistakes"));
        }
        if registers.is_empty() && map.problems.is_empty() {
            let help = match is_csv {
                true => {
                    "write a line with the names of the columns, such as `metric,address,type`, then one for each"
                }
                false => "begin each with [[registers]]",
            };
            map.problems.push(format!("{path} has no register: {help}"));
        }
        Self { registers, ..map }
    }

    /// The same file before it is there.
    pub(super) fn absent(&self) -> Self {
        Self { path: self.path.clone(), registers: Vec::new(), problems: Vec::new(), is_absent: true }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The same file, read again.
    pub(super) fn again(&self) -> Self {
        Self::read(&self.path)
    }
}

/// Whether a text that should be TOML begins as a map in CSV does.
fn is_like_csv(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let is_header = |line: &str| {
        line.contains([',', ';']) && !line.contains(['=', '[']) && NEEDED.iter().any(|key| line.contains(key))
    };
    lines.next().is_some_and(is_header)
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
                    match register(node) {
                        Ok(register) => registers.push(register),
                        Err(all) => wrong.extend(all.into_iter().map(|(place, text)| at(place, text))),
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

#[cfg(test)]
mod tests {
    use super::keys::KEYS;
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
            "[[registers]]\nmetric = 'a'\naddress = 70000\nbit = 16\n\n[[registers]]\nmetric = 'b'\nadress = 0\n\n\
             [[registers]]\nmetric = 'c'\naddress = 1\ntype = 'f16'\nword_order = 'little'\nevery = 'soon'\n\n\
             [[registers]]\nmetric = 'd'\naddress = 1\nunit_id = 2\ndevice = 'x'\n\n[[registers]]\nmetric = 'e'\n\n[more]\n",
        );
        let places = places(&found);
        let found: Vec<_> = places.iter().map(|(line, column, _)| (*line, *column)).collect();
        assert_eq!(
            found,
            [(3, 11), (4, 7), (8, 1), (13, 8), (15, 9), (20, 1), (21, 1), (23, 1), (26, 2)],
            "{places:?}"
        );
        assert_eq!(places[0].2, "`address` must be a whole number from 0 to 65535, not 70000");
        assert_eq!(places[2].2, "unknown key `adress`: did you mean `address`?");
        assert!(places[3].2.contains("\"f32\", \"f64\" or \"string\", not the text \"f16\""), "{places:?}");
        assert!(places[5].2.contains("`devices`"), "{places:?}");
        assert_eq!(places[7].2, "`address` is missing");
    }

    #[test]
    fn every_mistake_of_a_csv_file_is_found_with_its_place() {
        let found = csv("metric,address,type\na,x,u16\nb,1,f16\nc,70000,f17\nd,1,u16,7\n,1,u16\ne,1,u16\n");
        let places = places(&found);
        let found_at: Vec<_> = places.iter().map(|(line, column, _)| (*line, *column)).collect();
        assert_eq!(found_at, [(2, 3), (3, 5), (4, 3), (4, 9), (5, 9), (6, 1)], "{places:?}");
        assert_eq!(places[0].2, "`address` must be a whole number from 0 to 65535, not the text \"x\"");
        assert_eq!(found.0.len(), 1);
    }

    #[test]
    fn a_mistake_of_a_csv_header_is_told_once_and_there() {
        let found = csv("# map\nmetric,adress,colour,unit_id,metric\na,1,red,1\nb,70000,red,1\n");
        assert_eq!(
            places(&found),
            [
                (2, 8, "unknown key `adress`: did you mean `address`?"),
                (
                    2,
                    15,
                    "unknown key `colour`: there are `metric`, `table`, `address`, `type`, `word_order`, \
                     `byte_order`, `scale`, `offset`, `unit`, `bit`, `length`, `every`"
                ),
                (2, 22, "`unit_id` belongs into the `devices` of the source's table"),
                (2, 30, "the column `metric` is there twice"),
                (4, 3, "`address` must be a whole number from 0 to 65535, not 70000"),
            ]
        );
        let absent = csv("metric,type\na,u16\nb,f16\n");
        assert_eq!(places(&absent)[0], (1, 1, "the header has no column `address`"));
        assert_eq!((absent.0.len(), absent.1.len(), absent.1[1].line), (0, 2, 3));
    }

    #[test]
    fn the_keys_of_a_file_are_those_of_a_register() {
        for (key, _) in KEYS {
            let error = toml(&format!("[[registers]]\nmetric = 'm'\naddress = 0\n{key} = [[[]]]\n")).1;
            assert!(error.iter().all(|wrong| !wrong.text.starts_with("unknown key")), "{key}: {error:?}");
        }
        let unknown = Register::deserialize(toml::toml! { no_key = 1 }).unwrap_err().to_string();
        for key in unknown.split('`').skip(3).step_by(2).filter(|key| !["device", "unit_id"].contains(key)) {
            assert!(KEYS.iter().any(|(known, _)| *known == key), "{key}");
        }
    }

    #[test]
    fn csv_under_another_name_is_told_once_with_what_the_name_must_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.txt");
        for map in ["metric,address\nv,0\nw,1\n", "# a map\n\n\"metric\";\"adress\"\nv;0\n"] {
            std::fs::write(&path, map).unwrap();
            let problems = Map::read(path.to_str().unwrap()).problems;
            assert!(problems.len() == 1 && problems[0].contains("ends in `.csv`"), "{problems:?}");
        }
        std::fs::write(&path, "[[registers]]\nmetric = 'a,b'\naddress = 0\n").unwrap();
        assert_eq!(Map::read(path.to_str().unwrap()).problems, Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_name() {
        let absent = Map::read("/no/such/map.toml");
        assert!(absent.is_absent && absent.problems.is_empty());
        assert_eq!(Map::read("/dev/null").problems, ["/dev/null cannot be read: it is not a regular file"]);
    }
}

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::findings::Findings;
use super::table::Table;
use super::{Loaded, Problems, Severity, decode, reader};
use crate::units::{self, Size};

/// A stage's table with everything that one may hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what matters is how it is read")]
struct Line {
    port: String,
    #[serde(default)]
    baud: u32,
    #[serde(deserialize_with = "units::duration")]
    every: Duration,
    names: Vec<Parity>,
    parity: Option<Parity>,
    tls: Option<Files>,
    decode: Option<Decode>,
    max_frame: Option<Size>,
    registers: Option<Vec<Files>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Parity {
    Even,
    Odd,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what matters is how it is read")]
struct Files {
    ca: String,
    cert: String,
    size: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "what matters is how it is read")]
enum Decode {
    Json(Json),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Json {
    device: Option<String>,
    limit: Option<u8>,
    time_unit: Option<Parity>,
}

const GOOD: &str = "[line]\nport = \"/dev/ttyUSB0\"\nevery = \"10s\"\nnames = []\n";

/// What is wrong with `source`, read as a [`Line`]: the marked text of each, what is said and what is advised.
fn wrong(source: &str, variable: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String, String)> {
    wrong_as::<Line>(source, variable)
}

fn wrong_as<T: DeserializeOwned>(
    source: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<(String, String, String)> {
    let mut findings = Findings::new(source);
    let line = DeTable::parse(source).unwrap().get_mut().remove("line").unwrap();
    let read = Table::new("[line]".into(), line, variable, &mut findings)
        .and_then(|mut table| table.read(&mut findings, &|rest| T::deserialize(rest)));
    let problems = findings.finish();
    assert!(read.is_some() || !problems.is_empty(), "what cannot be read says why");
    problems
        .into_iter()
        .map(|problem| {
            let span = problem.span.unwrap();
            (source[span].to_owned(), problem.text, problem.help.unwrap_or_default())
        })
        .collect()
}

fn nothing(_: &str) -> Option<String> {
    None
}

/// The one thing that is wrong with a good table to which `line` is added.
fn only(line: &str) -> (String, String, String) {
    let source = format!("{GOOD}{line}\n");
    let mut all = wrong(&source, &nothing);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn strings(marked: &str, text: &str, help: &str) -> (String, String, String) {
    (marked.into(), text.into(), help.into())
}

#[test]
fn a_good_table_has_nothing_wrong_with_it() {
    assert_eq!(wrong(GOOD, &nothing), []);
    let full = "baud = 1\nparity = \"odd\"\ntls = { ca = \"a\", cert = \"b\" }\ndecode = { type = \"json\", limit = 3 }";
    assert_eq!(wrong(&format!("{GOOD}{full}"), &nothing), []);
}

#[test]
fn a_value_of_the_wrong_kind_is_told_in_plain_words() {
    assert_eq!(
        only("baud = \"x\""),
        strings("\"x\"", "`baud` must be a whole number from 0 to 4294967295, not the text \"x\"", "")
    );
    assert_eq!(only("baud = -1").1, "`baud` must be a whole number from 0 to 4294967295, not -1");
    assert_eq!(only("baud = [1]").1, "`baud` must be a whole number from 0 to 4294967295, not a list");
    assert_eq!(only("tls = 1"), strings("1", "`tls` must be a table, not 1", ""));
    assert_eq!(only("decode = \"json\"").1, "`decode` must be a table with a `type`, not the text \"json\"");
}

#[test]
fn a_slip_of_the_pen_names_what_was_meant() {
    assert_eq!(
        only("baudrate = 1"),
        strings("baudrate", "unknown key `baudrate` in [line]", "did you mean `baud`?")
    );
    assert_eq!(
        only("parity = \"evn\""),
        strings("\"evn\"", "`parity` cannot be the text \"evn\"", "did you mean \"even\"?")
    );
    assert_eq!(only("parity = 1").2, "there are \"even\" and \"odd\"");
}

#[test]
fn an_error_in_a_nested_table_is_marked_there() {
    assert_eq!(
        only("tls = { ca = \"a\", cert = \"b\", crt = \"c\" }"),
        strings("crt", "unknown key `crt` in `tls` of [line]", "did you mean `cert`?")
    );
    assert_eq!(
        only("tls = { ca = \"a\" }"),
        strings("{ ca = \"a\" }", "`cert` is missing in `tls` of [line]", "")
    );
    assert_eq!(only("tls.ca = 5\ntls.cert = \"b\"").0, "5");
    assert_eq!(only("[line.tls]\nca = 5\ncert = \"b\"").0, "5");
    assert_eq!(only("[line.tls]\nca = \"a\"").0, "[line.tls]");
    assert_eq!(only("registers = [1]"), strings("1", "an item of `registers` must be a table, not 1", ""));
}

#[test]
fn an_error_in_a_tagged_table_is_marked_there_although_serde_forgets_where() {
    assert_eq!(
        only("decode = { type = \"json\", devce = \"dev\" }"),
        strings("devce", "unknown key `devce` in `decode` of [line]", "did you mean `device`?")
    );
    assert_eq!(
        only("decode = { type = \"json\", device = \"x\", limit = 300 }"),
        strings("300", "`limit` must be a whole number from 0 to 255, not 300", "")
    );
    assert_eq!(
        only("decode = { type = \"jsn\", device = \"x\" }"),
        strings("\"jsn\"", "`type` cannot be the text \"jsn\"", "did you mean \"json\"?")
    );
    assert_eq!(
        only("decode = { device = \"x\" }"),
        strings("{ device = \"x\" }", "`type` is missing in `decode` of [line]", "")
    );
    let twice = wrong(
        &format!("{GOOD}decode = {{ type = \"json\", device = 5, time_unit = 5, limit = \"x\" }}"),
        &nothing,
    );
    let marked: Vec<_> = twice.iter().map(|(marked, ..)| &**marked).collect();
    assert_eq!(marked, ["5", "5", "\"x\""]);
}

#[test]
fn a_table_of_a_list_is_told_from_the_others() {
    let all = wrong(
        &format!(
            "{GOOD}[[line.registers]]\nca = \"a\"\n[[line.registers]]\nca = \"a\"\ncert = \"b\"\n[[line.registers]]\nca = \"a\"\nsize = 256"
        ),
        &nothing,
    );
    let texts: Vec<_> = all.iter().map(|(_, text, _)| &**text).collect();
    assert_eq!(
        texts,
        [
            "`cert` is missing in an item of `registers` of [line]",
            "`cert` is missing in an item of `registers` of [line]",
            "`size` must be a whole number from 0 to 255, not 256",
        ]
    );
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let texts: Vec<_> =
        wrong("[line]\nbaud = 1\n[line.tls]", &nothing).into_iter().map(|(_, text, _)| text).collect();
    assert_eq!(
        texts,
        [
            "`port` is missing in [line]",
            "`every` is missing in [line]",
            "`names` is missing in [line]",
            "`ca` is missing in `tls` of [line]",
            "`cert` is missing in `tls` of [line]",
        ]
    );
}

#[test]
fn what_is_missing_behind_a_missing_table_is_told_too() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "what matters is how it is read")]
    struct Needy {
        decode: Decode,
        files: Vec<Files>,
        tls: Files,
        zone: char,
        count: std::num::NonZeroU16,
    }
    let texts: Vec<_> = wrong_as::<Needy>("[line]", &nothing).into_iter().map(|(_, text, _)| text).collect();
    let missing = |key| format!("`{key}` is missing in [line]");
    assert_eq!(texts, ["decode", "files", "tls", "zone", "count"].map(missing));
}

#[test]
fn a_misspelt_key_is_not_told_as_missing_as_well() {
    let all =
        wrong("[line]\nprt = \"x\"\nevery = \"10 parsecs\"\nnames = [\"even\", \"od\", \"evn\"]", &nothing);
    let marked: Vec<_> = all.iter().map(|(marked, ..)| &**marked).collect();
    assert_eq!(marked, ["prt", "\"10 parsecs\"", "\"od\"", "\"evn\""]);
}

#[test]
fn a_bare_number_where_a_duration_or_a_size_should_be_tells_how_one_looks() {
    let source = GOOD.replace("\"10s\"", "10");
    let all = wrong(&source, &nothing);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1, "`every` must be a text in quotes, not 10");
    assert!(all[0].2.contains("\"10s\""), "{all:?}");
    assert!(only("max_frame = 64").2.contains("\"64MiB\""));
}

#[test]
fn nothing_that_a_variable_holds_is_told() {
    let variable = |name: &str| (name == "PASSWORD").then(|| "hunter2 parsecs".to_owned());
    let source = "[line]\nport = 1\nbaud = \"${PASSWORD}\"\nevery = \"${PASSWORD}\"\nnames = [\"${PASSWORD}\"]\nparity = \"x${PASSWORD}\"";
    let all = wrong(source, &variable);
    assert_eq!(all.len(), 5);
    for (_, text, help) in &all {
        assert!(!format!("{text}{help}").contains("hunter"), "{text} {help}");
    }
    assert_eq!(all[2].1, "`every` cannot be what \"${PASSWORD}\" stands for");
    assert_eq!(all[4].1, "`parity` cannot be what \"x${PASSWORD}\" stands for");
}

#[test]
fn a_name_that_stands_for_nothing_is_marked_and_its_key_is_not_missing() {
    let source = "[line]\nport = \"/dev/${PORT}\"\nevery = \"10s\"\nnames = [\"${A}\", \"odd\", \"${B}\"]";
    let all = wrong(source, &nothing);
    let marked: Vec<_> = all.iter().map(|(marked, ..)| &**marked).collect();
    assert_eq!(marked, ["${PORT}", "${A}", "${B}"]);
}

/// What is wrong with a whole file, as `line:column text`.
fn file(source: &str) -> Result<Loaded, Vec<String>> {
    reader::read(Path::new("weir.toml"), source.to_owned(), &nothing).map_err(|problems| {
        let place = |place: Option<(usize, usize)>| place.map_or("-".into(), |(l, c)| format!("{l}:{c}"));
        problems.iter().map(|(problem, at)| format!("{} {}", place(at), problem.text)).collect()
    })
}

/// All but `[sources.NAME]` and `[uplink]`, whose keys are their stages' own business.
const STAGES: &str = r#"
[gateway]
id = "gw-042"

[[filters]]
match = "*/temperature"
type = "range"
min = -40.0

[[windows]]
match = "*"
type = "tumbling"
every = "10s"
aggregates = ["mean"]

[limits]
max_series = 100
"#;

/// What is wrong with [`STAGES`] where `from` is written `to`, but for what is absent there.
fn stages(from: &str, to: &str) -> Vec<String> {
    assert!(STAGES.contains(from));
    let mut problems = file(&STAGES.replacen(from, to, 1)).unwrap_err();
    problems.retain(|problem| {
        !problem.ends_with("there is no source") && !problem.ends_with("there is no [uplink]")
    });
    problems
}

#[test]
fn a_file_without_sources_and_uplink_says_so() {
    assert_eq!(file(STAGES).unwrap_err(), ["17:17 there is no source", "17:17 there is no [uplink]"]);
    assert_eq!(file("").unwrap_err(), ["1:1 there is no source", "1:1 there is no [uplink]"]);
}

#[test]
fn names_are_held_to_their_bounds() {
    let long = "x".repeat(129);
    for id in ["", "a\\nb", &long] {
        let problems = stages("\"gw-042\"", &format!("\"{id}\""));
        assert_eq!(problems, ["3:6 `id` must be 1 to 128 bytes, without control characters"]);
    }
    assert_eq!(stages("gw-042", &long[1..]), Vec::<String>::new());
    let source = file("[sources.\"\"]\n").unwrap_err();
    assert_eq!(source[1], "1:10 a source's name must be 1 to 128 bytes, without control characters");
}

#[test]
fn what_goes_across_keys_is_marked_at_its_key() {
    assert_eq!(
        stages("min = -40.0", "min = 2.0\nmax = 1.0"),
        ["8:7 `min` 2 is above `max` 1: nothing would pass"]
    );
    assert_eq!(stages("\"10s\"", "\"1ms\""), ["13:9 `every` must be at least 10ms"]);
    assert_eq!(
        stages("max_series = 100", "max_series = 0"),
        ["17:14 `max_series` must be at least 1: without a series nothing is sent"]
    );
}

#[test]
fn windows_need_different_names() {
    let twice = "[[windows]]\nmatch = \"a/*\"\ntype = \"tumbling\"\nevery = \"10s\"\naggregates = [\"max\"]\n\n[limits]";
    assert_eq!(stages("[limits]", twice), ["16:1 another window is called \"tumbling-10s\" as well"]);
}

#[test]
fn tables_in_the_wrong_shape_say_how_to_write_them() {
    assert_eq!(stages("[[filters]]", "[filters]"), ["5:1 `filters` must be a list of tables"]);
    assert_eq!(stages("[limits]\nmax_series = 100", "[[limits]]"), ["16:1 [limits] must be a table"]);
    assert_eq!(file("sources = 1").unwrap_err()[0], "1:11 `sources` must be tables, each with a name");
    assert_eq!(file("[sources]\ntype = \"serial\"").unwrap_err()[0], "2:8 [sources.type] must be a table");
    assert_eq!(stages("[limits]", "[limit]"), ["16:2 unknown key `limit`"]);
}

#[test]
fn an_unknown_type_and_a_missing_one_are_told() {
    assert_eq!(stages("\"range\"", "\"rang\""), ["7:8 `type` cannot be the text \"rang\""]);
    assert_eq!(stages("type = \"range\"\n", ""), ["5:1 `type` is missing in [[filters]]"]);
    assert_eq!(stages("\"range\"", "5"), ["7:8 `type` must be a text in quotes"]);
}

#[test]
fn what_is_no_toml_is_told_with_what_else_is_wrong_elsewhere() {
    let source = STAGES.replace("every = \"10s\"", "every = 10s").replace("min = -40.0", "min = \"low\"");
    let problems = file(&source).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("8:7 `min` must be a number"), "{problems:?}");
    assert!(problems[1].starts_with("13:"), "{problems:?}");
    let problems = file(&STAGES.replace("min = -40.0", "min = 1\nmin = 2")).unwrap_err();
    assert_eq!(problems, ["9:1 `min` stands here a second time"]);
}

#[test]
fn a_file_that_is_no_configuration_at_all_is_bounded_and_does_no_harm() {
    let keys: String = (0..10_000).map(|i| format!("k{i} = 1\n")).collect();
    assert_eq!(file(&keys).unwrap_err().len(), 100);
    let nested = |open: &str, times| format!("x = {}1", open.repeat(times));
    let closed = nested(&format!("{{{}a = ", "a.".repeat(78)), 79) + &"}".repeat(79);
    for deep in ["a.".repeat(400_000), nested("[", 400_000), nested("{a.a = ", 60_000), closed] {
        assert!(file(&deep).is_err());
    }
    assert!(decode(Path::new("x"), vec![b'#'; (1 << 20) + 1]).is_err());
    let problems: Problems = decode(Path::new("x"), b"a\n\xff".to_vec()).unwrap_err();
    assert!(problems.to_string().contains("line 2"), "{problems}");
    assert!(problems.iter().all(|(problem, _)| problem.severity == Severity::Error));
}

/// A file that names every table, to be damaged.
fn whole() -> Vec<u8> {
    format!(
        "{STAGES}\n[sources.\"line 1\"]\ntype = \"serial\"\nport = \"/dev/${{A}}\"\nframing = {{ type = \"lines\" }}\n\
         [buffer]\nmax_bytes = \"1MiB\"\n[uplink]\ntype = \"mqtt\"\nurl = 'mqtts://h'\ntls.ca = \"ä\"\n[log]\n"
    )
    .into_bytes()
}

proptest! {
    #[test]
    fn no_damage_to_a_file_makes_reading_or_showing_it_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4, any::<prop::sample::Index>()), 1..20)
    ) {
        let mut bytes = whole();
        for (at, kind, other) in edits {
            let at = at.index(bytes.len());
            let piece = b"[]{}\"'=.,#$\n\\ \0\xc3\xa4{}-1etru"[other.index(25)];
            match kind {
                0 => bytes[at] = piece,
                1 => bytes.insert(at, piece),
                2 => drop(bytes.remove(at)),
                _ => {
                    let end = other.index(bytes.len());
                    let copy = bytes[at.min(end)..at.max(end)].to_vec();
                    bytes.splice(at..at, copy.into_iter().take(40));
                }
            }
        }
        let path = Path::new("weir.toml");
        if let Err(problems) = decode(path, bytes).and_then(|source| reader::read(path, source, &nothing)) {
            prop_assert!(problems.count().0 > 0);
            prop_assert!(!problems.show(true).is_empty());
        }
    }

    #[test]
    fn no_text_makes_reading_it_panic(source in "\\PC{0,200}") {
        let _ = file(&source);
    }
}

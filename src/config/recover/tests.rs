use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use crate::config::findings::Findings;
use crate::config::table::Table;
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
    metrics: Option<Vec<Metric>>,
    protocol: Option<Parity>,
    qos: Option<Qos>,
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
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "what matters is how it is read")]
enum Metric {
    Sine { name: String, period: u8 },
    Walk { name: String },
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "u8")]
struct Qos;

impl TryFrom<u8> for Qos {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        if number <= 2 { Ok(Self) } else { Err("write 0, 1 or 2".into()) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Json {
    device: Option<String>,
    limit: Option<u8>,
    time_unit: Option<Parity>,
}

const GOOD: &str = "[line]\nport = \"/dev/ttyUSB0\"\nevery = \"10s\"\nnames = []\n";

/// A place whose keys are read first and judged then, and which is the only way to write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what matters is how it is read")]
struct Places {
    decode: Option<Placed>,
    places: Vec<Place>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "what matters is how it is read")]
enum Placed {
    Json { zone: Zone, from: Option<Place> },
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "Keys")]
struct Place;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[expect(dead_code, reason = "what matters is that it must be there")]
    at: u16,
    #[serde(rename = "type")]
    kind: Parity,
    bit: Option<u8>,
    length: Option<u8>,
}

impl TryFrom<Keys> for Place {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        match (keys.kind, keys.bit, keys.length) {
            (_, Some(8..), _) => Err("`bit` is 0 to 7".into()),
            (Parity::Odd, _, Some(_)) => Err("`length` is for `type` \"even\"".into()),
            _ => Ok(Self),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Zone;

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(zone: String) -> Result<Self, String> {
        if zone == "the one word" { Ok(Self) } else { Err(format!("`{zone}` is no zone")) }
    }
}

/// What is wrong with `source`, read as [`Places`]: the marked text and what is said.
fn misplaced(source: &str) -> Vec<(String, String)> {
    wrong_as::<Places>(source, &nothing).into_iter().map(|(marked, text, _)| (marked, text)).collect()
}

fn pairs<const N: usize>(all: [(&str, &str); N]) -> Vec<(String, String)> {
    all.map(|(marked, text)| (marked.to_owned(), text.to_owned())).into()
}

#[test]
fn what_is_wrong_across_the_keys_of_a_table_is_told_at_the_key_and_hides_nothing() {
    let all = misplaced(
        "[line]\nplaces = [{ at = 1, type = \"odd\", bit = 9, length = 300 }, { at = 2, type = \"odd\", length = 3 },\n\
         { at = 70000, type = \"odd\", bit = 8 }, { at = 4, type = \"none\", length = 5 }]",
    );
    let expected = [
        ("9", "`bit` is 0 to 7"),
        ("300", "`length` must be a whole number from 0 to 255, not 300"),
        ("3", "`length` is for `type` \"even\""),
        ("70000", "`at` must be a whole number from 0 to 65535, not 70000"),
        ("8", "`bit` is 0 to 7"),
        ("\"none\"", "`type` cannot be the text \"none\""),
    ];
    assert_eq!(all, pairs(expected));
}

#[test]
fn what_is_missing_in_a_table_inside_a_tagged_one_is_told_there_and_once() {
    let missing = "`type` is missing in `from` of [line]";
    let all = |from| {
        misplaced(&format!(
            "[line]\nplaces = []\ndecode = {{ type = \"json\", zone = \"the one word\", from = {from} }}"
        ))
    };
    assert_eq!(all("{ at = 0 }"), pairs([("{ at = 0 }", missing)]));
    assert_eq!(
        all("{ at = 0, type = \"none\" }"),
        pairs([("\"none\"", "`type` cannot be the text \"none\"")])
    );
    assert_eq!(all("\"x\""), pairs([("\"x\"", "`from` must be a table, not the text \"x\"")]));
}

#[test]
fn a_value_that_nothing_can_stand_in_for_does_not_hide_what_is_behind_it() {
    let all = misplaced(
        "[line]\ndecode = { type = \"json\", zone = \"type\" }\nplaces = [{ at = 1, type = \"odd\", length = 3 }]",
    );
    assert_eq!(
        all,
        pairs([("\"type\"", "`zone`: `type` is no zone"), ("3", "`length` is for `type` \"even\"")])
    );
}

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
    let read = Table::new("[line]".into(), line, &[], variable, &mut findings).and_then(|mut table| {
        table.read(&mut findings, &|rest| T::deserialize(rest), &|_| Vec::<(&str, String)>::new())
    });
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
fn an_error_in_a_list_of_tagged_tables_is_marked_there() {
    let metrics = "metrics = [{ type = \"sine\", name = \"a\" }, { type = \"wlak\" }, { name = \"b\" }, { type = \"cosine\", perod = 1 }, { type = \"square\", perod = 1 }, { type = \"sine\", nam = 1, period = 256 }, 5]";
    let all = wrong(&format!("{GOOD}{metrics}"), &nothing);
    let all: Vec<_> = all.iter().map(|(marked, text, _)| format!("{marked}: {text}")).collect();
    assert_eq!(
        all,
        [
            "{ type = \"sine\", name = \"a\" }: `period` is missing in an item of `metrics` of [line]",
            "{ type = \"wlak\" }: `name` is missing in an item of `metrics` of [line]",
            "\"wlak\": `type` cannot be the text \"wlak\"",
            "{ name = \"b\" }: `type` is missing in an item of `metrics` of [line]",
            "{ type = \"cosine\", perod = 1 }: `name` is missing in an item of `metrics` of [line]",
            "\"cosine\": `type` cannot be the text \"cosine\"",
            "perod: unknown key `perod` in an item of `metrics` of [line]",
            "\"square\": `type` cannot be the text \"square\"",
            "nam: unknown key `nam` in an item of `metrics` of [line]",
            "256: `period` must be a whole number from 0 to 255, not 256",
            "5: an item of `metrics` must be a table with a `type`, not 5",
        ]
    );
}

#[test]
fn what_is_wrong_with_one_value_is_not_told_of_another() {
    let all = wrong(&format!("{GOOD}protocol = 5\nqos = 4\n"), &nothing);
    assert_eq!(
        all,
        [
            strings("5", "`protocol` must be a text in quotes, not 5", "there are \"even\" and \"odd\""),
            strings("4", "`qos`: write 0, 1 or 2", "")
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

#[test]
fn the_same_mistake_in_several_tables_of_a_list_is_told_at_each() {
    let table = "{ at = 1, type = \"odd\", bit = 9 }, ";
    let good = "{ at = 1, type = \"odd\", bit = 1 }, ";
    let all = misplaced(&format!("[line]\nplaces = [{table}{good}{table}{table}{{ type = \"odd\" }}]"));
    let bit = ("9", "`bit` is 0 to 7");
    let missing = ("{ type = \"odd\" }", "`at` is missing in an item of `places` of [line]");
    assert_eq!(all, pairs([bit, bit, bit, missing]));
}

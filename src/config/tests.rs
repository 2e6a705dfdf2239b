use std::path::Path;

use proptest::prelude::*;

use super::{Loaded, Problems, Severity, decode, reader};

fn nothing(_: &str) -> Option<String> {
    None
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
fn what_goes_across_keys_is_told_beside_what_is_wrong_with_others() {
    assert_eq!(
        stages("every = \"10s\"\naggregates = [\"mean\"]", "every = \"1ms\"\naggregates = [\"median\"]"),
        ["13:9 `every` must be at least 10ms", "14:15 an item of `aggregates` cannot be the text \"median\""]
    );
}

#[test]
fn what_goes_across_a_key_that_is_wrong_itself_is_not_told() {
    assert_eq!(
        stages("min = -40.0", "min = \"low\"\nmx = 5.0"),
        ["8:7 `min` must be a number, not the text \"low\"", "9:1 unknown key `mx` in [[filters]]"]
    );
    assert_eq!(stages("\"10s\"", "10"), ["13:9 `every` must be a text in quotes, not 10"]);
}

#[test]
fn a_gateway_without_a_certificate_needs_a_name() {
    let source =
        "[sources.hall]\ntype = 'simulated'\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n";
    let Err(told) = file(source) else { panic!("accepted") };
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("the gateway has no name"), "{told:?}");
    assert!(file(&format!("[gateway]\nid = 'gw'\n{source}")).is_ok());
}

#[test]
fn any_source_may_say_after_how_long_a_silence_its_series_are_stale() {
    let with = |key: &str| {
        let text = format!(
            "[sources.hall]\ntype = 'simulated'\n{key}\n[gateway]\nid = 'gw'\n\
                            [uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n"
        );
        reader::read(Path::new("weir.toml"), text, &nothing).map(|loaded| loaded.config.stale_after)
    };
    assert_eq!(with("").unwrap(), []);
    assert_eq!(with("stale_after = '5m'").unwrap(), [("hall".into(), std::time::Duration::from_secs(300))]);
    for (wrong, told) in [
        ("stale_after = '5'", "`5` is no duration"),
        ("stale_after = '10ms'", "`stale_after` must lie within 1s and 366 days"),
        ("stale_after = 5", "`stale_after` must be a text in quotes"),
        ("stale_aftr = '5m'", "unknown key `stale_aftr`"),
    ] {
        let shown = with(wrong).unwrap_err().show(false);
        assert!(shown.contains(told), "{wrong}: {shown}");
    }
    let shown = with("stale_aftr = '5m'").unwrap_err().show(false);
    assert!(shown.contains("`stale_after`"), "{shown}");
}

#[test]
fn two_sources_cannot_have_the_same_port() {
    let sources = "[sources.b]\ntype = 'coap_server'\nlisten = '127.0.0.1:5683'\n[sources.a]\ntype = 'coap_server'\n\
                   [sources.d]\ntype = 'serial'\nport = '/dev/null'\ndecode = { type = 'json' }\n\
                   [sources.c]\ntype = 'serial'\nport = '/dev/null'\ndecode = { type = 'json' }\n\
                   [gateway]\nid = 'gw'\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n";
    let Err(told) = file(sources) else { panic!("accepted") };
    let told: Vec<_> = told.iter().filter(|problem| problem.contains("taken")).collect();
    assert_eq!(
        told,
        ["4:1 `listen` of source a is taken by source b", "12:8 `port` of source c is taken by source d"]
    );
}

#[test]
fn what_is_wrong_with_frames_is_marked_at_its_key() {
    let wrong = |framing: &str| {
        let source = format!(
            "[gateway]\nid = 'gw'\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n[sources.line]\ntype = 'serial'\n\
             port = '/dev/null'\ndecode = {{ type = 'json' }}\nframing = {framing}\n"
        );
        file(&source).err().unwrap_or_default()
    };
    assert_eq!(wrong("{ type = 'fixed', length = 10, start = [0xaa, 0xc0], end = [0xab] }"), [""; 0]);
    assert_eq!(
        wrong("{ type = 'delimiter', delimiter = '' }"),
        ["10:45 `delimiter` is empty: write the bytes that end a frame, such as \";\" or [0x0d]"]
    );
    assert_eq!(
        wrong("{ type = 'delimiter', delimiter = [300] }"),
        ["10:46 an item of `delimiter` must be a whole number from 0 to 255, not 300"]
    );
    assert_eq!(
        wrong("{ type = 'delimiter', delimiter = 5 }"),
        ["10:45 `delimiter` must be a text or a list of numbers, such as \"\\r\\n\" or [0xaa, 0xc0], not 5"]
    );
    assert_eq!(wrong("{ type = 'silence' }"), ["10:11 `idle_gap` is missing in `framing` of [sources.line]"]);
    assert_eq!(
        wrong("{ type = 'slip', checksum = { type = 'crc32', position = -3 } }"),
        ["10:68 `position` -3 leaves no room for the 4 bytes of the checksum: write -4 or less"]
    );
    assert_eq!(
        wrong("{ type = 'slip', checksum = { type = 'crc31' } }"),
        ["10:48 `type` cannot be the text 'crc31'"]
    );
    assert_eq!(wrong("{ type = 'cobs', idle_gap = '0s' }"), ["10:39 `idle_gap` must lie within 1ms and 1h"]);
    assert_eq!(
        wrong("{ type = 'cobs', lenght = 3 }"),
        ["10:28 unknown key `lenght` in `framing` of [sources.line]"]
    );
}

#[test]
fn what_is_wrong_with_a_decoder_is_told_at_its_place() {
    let decoder = |decode: &str| {
        let source =
            format!("[sources.line]\ntype = 'serial'\nport = '/dev/null'\n[sources.line.decode]\n{decode}\n");
        let mut problems = file(&source).unwrap_err();
        problems.retain(|problem| !problem.contains("there is no [uplink]"));
        problems
    };
    let pointer = decoder(
        "type = 'json'\nfields = [\n  { from = '/a', metric = 'a' },\n  { from = 'b', metric = 'b' },\n]",
    );
    assert_eq!(pointer.len(), 1, "{pointer:?}");
    assert!(pointer[0].starts_with("8:12 `from`: `b` is no JSON pointer"), "{pointer:?}");
    assert_eq!(
        decoder("type = 'json'\nfields = [{ from = '/a', metric = 'a', scle = 2 }]"),
        ["6:40 unknown key `scle` in an item of `fields` of [sources.line]"]
    );
    assert_eq!(
        decoder("type = 'json'\nfields = [{ from = '/a', metric = 'a', scale = 0 }]"),
        ["6:48 `scale` must be a finite number other than 0, not 0"]
    );
    assert_eq!(
        decoder("type = 'csv'\nseparator = ', '\ncolumns = ['a']\ndevice = 'b'"),
        [
            "6:13 `separator` must be one character in quotes, not the text ', '",
            "8:10 `device`: `columns` has no column `b`"
        ]
    );
    let pattern = decoder("type = 'regex'\npattern = '(?<a>1'");
    assert!(pattern[0].starts_with("6:11 `pattern`: no regular expression"), "{pattern:?}");
    assert_eq!(
        decoder(
            "type = 'binary'\nfields = [{ from = { at = 1, type = 'u8', bits = [0, 8] }, metric = 'm' }]"
        ),
        ["6:50 `bits` are the lowest and the highest bit, from 0 to 7, such as [0, 7]"]
    );
    assert_eq!(
        decoder("type = 'key_value'\ntime = 'ts'"),
        [
            "6:8 `time` needs `time_unit` beside it: \"s\", \"ms\", \"us\", \"ns\" or \"rfc3339\"; it is never guessed"
        ]
    );
    assert_eq!(
        decoder(
            "type = 'binary'\nfields = [{ from = { at = 1, type = 'u8' }, metric = 'm' }, { from = { type = 'u8' } }]"
        ),
        [
            "6:61 `metric` is missing in an item of `fields` of [sources.line]",
            "6:70 `at` is missing in `from` of [sources.line]"
        ]
    );
    assert_eq!(decoder("type = 'text'"), ["4:1 `metric` is missing in `decode` of [sources.line]"]);
    assert_eq!(decoder("type = 'senml'\ntext = 1"), ["6:8 `text` must be true or false, not 1"]);
}

#[test]
fn two_modbus_sources_may_share_a_line_whose_settings_they_agree_on() {
    let source = |name: &str, more: &str| {
        format!(
            "[sources.{name}]\ntype = 'modbus'\nport = '/dev/null'\n{more}\n\
             registers = [{{ device = '{name}', unit_id = {}, metric = 'v', address = 0 }}]\n",
            name.as_bytes()[0]
        )
    };
    let rest = "[gateway]\nid = 'gw'\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n";
    let agreed = file(&(source("a", "baud = 19200") + &source("b", "baud = 19200") + rest));
    assert!(agreed.is_ok(), "{agreed:?}");
    let Err(told) = file(&(source("a", "baud = 19200") + &source("b", "baud = 9600") + rest)) else {
        panic!("accepted")
    };
    assert_eq!(told, ["9:8 `baud` of source b is not that of source a, on the same line"]);
    let serial = "[sources.c]\ntype = 'serial'\nport = '/dev/null'\ndecode = { type = 'json' }\n";
    let Err(told) = file(&(source("a", "") + serial + rest)) else { panic!("accepted") };
    assert_eq!(told, ["8:8 `port` of source c is taken by source a"]);
}

#[test]
fn what_is_hardly_meant_so_is_told_where_it_stands_and_read_all_the_same() {
    let told = |source: &str| -> Vec<String> {
        let rest = "[gateway]\nid = 'gw'\nstate_dir = '/tmp'\nruntime_dir = '/tmp'\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n";
        let warnings = file(&format!("{source}{rest}")).unwrap().warnings;
        let told = warnings.iter().map(|(problem, at)| format!("{:?} {}", at.unwrap(), problem.text));
        told.collect()
    };
    let meters = |name: &str, device: &str| {
        format!(
            "[sources.{name}]\ntype = 'modbus'\nport = '/dev/null'\ndevices = [{{ device = '{device}', unit_id = 1 }}]\n\
             registers = [{{ metric = 'v', address = 0 }}]\n"
        )
    };
    let said = told(&(meters("a", "m") + &meters("b", "n")));
    assert!(
        said.len() == 1 && said[0].starts_with("(8, 8) sources a and b read one device, `unit_id` 1"),
        "{said:?}"
    );
    let said = told(&meters("a", "m").replace("= 0", "= 40007"));
    assert!(said.len() == 1 && said[0].starts_with("(5, 40) register `v` has `address` 40007"), "{said:?}");

    let binary = "decode = { type = 'binary', fields = [{ metric = 'v', from = { at = 0, type = 'u16', endian = 'big' } }] }\n";
    for source in ["type = 'serial'\nport = '/dev/null'\n", "type = 'tcp'\nconnect = 'h:1'\n"] {
        for framing in ["", "framing = { type = 'lines' }\n"] {
            let said = told(&format!("[sources.a]\n{source}{binary}{framing}"));
            assert!(
                said.len() == 1 && said[0].starts_with("(4, 10) `decode` is binary and `framing`"),
                "{said:?}"
            );
        }
        let framing = "framing = { type = 'fixed', length = 2 }\n";
        assert_eq!(told(&format!("[sources.a]\n{source}{binary}{framing}")), Vec::<String>::new());
    }
}

#[test]
fn a_decoder_that_is_missing_comes_with_an_example() {
    let source = "[sources.a]\ntype = 'serial'\nport = '/dev/null'\n";
    let problems = reader::read(Path::new("weir.toml"), source.to_owned(), &nothing).unwrap_err();
    let (missing, _) =
        problems.iter().find(|(problem, _)| problem.text.starts_with("`decode` is missing")).unwrap();
    assert!(missing.help.as_ref().unwrap().contains("decode = { type = \"json\" }"), "{missing:?}");
}

#[test]
fn what_is_wrong_with_a_register_is_told_where_it_stands() {
    let source = "[sources.a]\ntype = 'modbus'\nport = '/dev/null'\nregisters = [\n\
                  { unit_id = 1, metric = 'v', address = 0, type = 'f33' },\n\
                  { unit_id = 1, metric = 'w', adress = 0 },\n\
                  { unit_id = 1, metric = 'x', address = 70000 },\n\
                  { unit_id = 1, metric = 'y', address = 0, table = 'coil', type = 'u16' },\n]\n\
                  [gateway]\nid = 'gw'\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1883'\n";
    let Err(told) = file(source) else { panic!("accepted") };
    assert_eq!(
        told,
        [
            "5:50 `type` cannot be the text 'f33'",
            "6:30 unknown key `adress` in an item of `registers` of [sources.a]",
            "7:40 `address` must be a whole number from 0 to 65535, not 70000",
            "8:66 `type` must be \"bool\" or left away: this `table` holds coils or discrete inputs",
        ]
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
fn a_misspelt_key_of_the_rooms_own_is_not_told_as_missing_as_well() {
    assert_eq!(
        stages("match = \"*/temperature\"", "mach = \"*\""),
        ["6:1 unknown key `mach` in [[filters]]"]
    );
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
    let torn =
        STAGES.replace("gw-042", "gw\n042").replace("[limits]", "[limits]\nmax\nsize = 1\n[lgo]\n\"a\"");
    assert_eq!(
        file(&torn).unwrap_err(),
        [
            "3:9 this is no TOML: invalid basic string, expected `\"`",
            "4:5 this is no TOML: key with no value, expected `=`",
            "18:4 this is no TOML: key with no value, expected `=`",
            "19:1 unknown key `size` in [limits]",
            "20:2 unknown key `lgo`",
            "21:4 this is no TOML: key with no value, expected `=`",
        ]
    );
    let problems = file(&STAGES.replace("min = -40.0", "min = 1\nmin = 2")).unwrap_err();
    assert_eq!(problems, ["9:1 `min` stands here a second time"]);
}

#[test]
fn a_file_that_is_no_configuration_at_all_is_bounded_and_does_no_harm() {
    let keys: String = (0..10_000).map(|i| format!("k{i} = 1\n")).collect();
    assert_eq!(file(&keys).unwrap_err().len(), 100);
    assert_eq!(file(&keys.replace(" = 1", "")).unwrap_err().len(), 100);
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

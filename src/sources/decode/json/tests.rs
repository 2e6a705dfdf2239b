use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::tests::{Found, all, found, readings};
use super::*;

fn config(toml: &str) -> Config {
    toml::from_str(toml).unwrap()
}

fn decode(toml: &str, frame: &str) -> Result<(Vec<Found>, LeftOut), Undecodable> {
    let mut out = readings();
    let left_out = Json::new(&config(toml)).decode(frame.as_bytes(), "here", &mut out)?;
    Ok((all(&out), left_out))
}

const NOTHING: LeftOut = LeftOut { bad_names: 0, ignored: 0 };
const LONG: &str = "metric = 'name'\nvalue = 'val'\ndevice = 'dev'";

#[test]
fn in_the_flat_shape_every_number_or_boolean_is_a_metric_and_the_rest_is_counted() {
    let frame =
        r#"{"t": 21.5, "n": -3, "on": true, "state": "ok", "bad": null, "a": [1, {"x": 2}], "o": {"t": 1}}"#;
    let (readings, left_out) = decode("", frame).unwrap();
    assert_eq!(
        readings,
        [
            found("here", "t", Value::Float(21.5), None),
            found("here", "n", Value::Int(-3), None),
            found("here", "on", Value::Bool(true), None),
        ]
    );
    assert_eq!(left_out, LeftOut { bad_names: 0, ignored: 4 });
    assert_eq!(decode("", "{}").unwrap(), (vec![], NOTHING));
    for (frame, first) in [
        (frame, Some("`state` holds text")),
        (r#"{"bad":null,"s":"x"}"#, Some("`bad` holds null")),
        (r#"{"a":[1]}"#, Some("`a` holds an object or an array")),
        (r#"{"t":1}"#, None),
    ] {
        let mut json = Json::new(&config(""));
        json.decode(frame.as_bytes(), "here", &mut super::super::tests::readings()).unwrap();
        assert_eq!(json.first_ignored().as_deref(), first);
    }
}

#[test]
fn in_the_long_shape_two_fields_hold_name_and_value() {
    let one = |device, metric, value| Ok((vec![found(device, metric, value, None)], NOTHING));
    let same = |frame, expected: Result<(Vec<Found>, LeftOut), Undecodable>| {
        assert_eq!(decode(LONG, frame).unwrap(), expected.unwrap(), "{frame}");
    };
    same(r#"{"val": 2, "dev": "pump", "name": "rpm"}"#, one("pump", "rpm", Value::Int(2)));
    same(r#"{"name": "door", "val": false}"#, one("here", "door", Value::Bool(false)));
    same(r#"{"name": "state", "val": "auf", "dev": null}"#, one("here", "state", Value::Text("auf".into())));
    same(r#"{"name": 7, "val": 1.0, "dev": -12}"#, one("-12", "7", Value::Float(1.0)));
    assert_eq!(decode(LONG, r#"{"name": "t", "val": 1, "battery": 3.1}"#).unwrap().1.ignored, 1);
}

#[test]
fn device_and_time_hold_for_the_whole_frame_wherever_they_stand_in_it() {
    let toml = "device = 'dev'\ntime = 'ts'\ntime_unit = 's'";
    let at = Some(1_700_000_000_250);
    let expected = [
        found("boiler", "t", Value::Int(1), at),
        found("boiler", "p", Value::Int(2), at),
        found("boiler", "h", Value::Int(3), at),
    ];
    let frame = r#"{"t": 1, "dev": "boiler", "p": 2, "ts": 1700000000.25, "h": 3}"#;
    assert_eq!(decode(toml, frame).unwrap().0, expected);
    for untimed in [r#"{"t": 1}"#, r#"{"t": 1, "ts": null}"#] {
        assert_eq!(decode(toml, untimed).unwrap().0, [found("here", "t", Value::Int(1), None)]);
    }
}

#[test]
fn whole_numbers_stay_whole_up_to_64_bits() {
    let frame = r#"{"a": -9223372036854775808, "b": 9223372036854775807, "c": 18446744073709551615, "d": 18446744073709551616}"#;
    let values: Vec<_> = decode("", frame).unwrap().0.into_iter().map(|found| found.2).collect();
    assert_eq!(
        values,
        [
            Value::Int(i64::MIN),
            Value::Int(i64::MAX),
            Value::Uint(u64::MAX),
            Value::Float(18_446_744_073_709_551_616.0),
        ]
    );
}

#[test]
fn a_float_with_every_digit_is_read_to_the_last_bit() {
    for x in [21.400_000_000_000_002, 0.1 + 0.2, 1.0 / 3.0, f64::MAX, 5e-324] {
        assert_eq!(decode("", &format!(r#"{{"x": {x:e}}}"#)).unwrap().0[0].2, Value::Float(x));
    }
}

#[test]
fn a_metric_that_comes_twice_gives_two_readings() {
    let (readings, _) = decode("", r#"{"t": 1, "t": 2}"#).unwrap();
    assert_eq!(readings, [found("here", "t", Value::Int(1), None), found("here", "t", Value::Int(2), None)]);
}

#[test]
fn a_name_that_is_empty_or_too_long_costs_its_own_readings_only() {
    let long = "x".repeat(129);
    let (readings, left_out) = decode("", &format!(r#"{{"": 1, "t": 2, "{long}": 3}}"#)).unwrap();
    assert_eq!(readings, [found("here", "t", Value::Int(2), None)]);
    assert_eq!(left_out.bad_names, 2);
    let (readings, left_out) =
        decode("device = 'dev'", &format!(r#"{{"dev": "{long}", "t": 2, "p": 3}}"#)).unwrap();
    assert_eq!((readings.len(), left_out.bad_names), (0, 2));
}

#[test]
fn escapes_are_undone_in_names_and_text() {
    let (readings, _) =
        decode(LONG, r#"{"n\u0061me": "gr\u00fcn\n", "val": "\ud83c\udf0a", "dev": "a\/b"}"#).unwrap();
    assert_eq!(readings, [found("a/b", "grün\n", Value::Text("🌊".into()), None)]);
}

#[test]
fn what_cannot_be_read_is_refused_whole_and_the_reason_names_the_field() {
    let times = "time = 'ts'\ntime_unit = 'ms'\ndevice = 'dev'";
    for (toml, frame, reason) in [
        ("", r#"{"t": 1"#, "EOF"),
        ("", r#"{"t": 1} {"t": 2}"#, "trailing characters"),
        ("", "\u{feff}{\"t\": 1}", "expected value"),
        ("", r#"{"t": 1, "u": 1e999}"#, "out of range"),
        ("", r#"{"t": 1, "u": NaN}"#, "expected value"),
        ("", r#"[{"t": 1}]"#, "expected one JSON object"),
        ("", "notjson", "it is no JSON: expected ident at line 1 column 2"),
        ("", "21.5", "expected one JSON object"),
        ("", r#"{"t": 1, "s": "\ud800"}"#, "hex escape"),
        (times, r#"{"t": 1, "ts": "2024-01-01"}"#, "field `ts` does not hold a number"),
        (times, r#"{"t": 1, "ts": 18446744073709551615}"#, "field `ts` is too far from 1970"),
        (times, r#"{"t": 1, "ts": 1e30}"#, "field `ts` is too far from 1970"),
        (times, r#"{"t": 1, "ts": 1, "ts": 2}"#, "field `ts` comes twice"),
        (times, r#"{"t": 1, "dev": "a", "dev": "b"}"#, "field `dev` comes twice"),
        (times, r#"{"t": 1, "dev": 1.5}"#, "field `dev` does not hold text or a whole number"),
        (times, r#"{"t": 1, "dev": true}"#, "field `dev` does not hold text or a whole number"),
        (LONG, r#"{"name": "t"}"#, "no field `val`"),
        (LONG, r#"{"val": 1}"#, "no field `name`"),
        (LONG, r#"{"name": null, "val": 1}"#, "no field `name`"),
        (LONG, r#"{"name": "t", "val": null}"#, "field `val` does not hold a number, a boolean or text"),
        (LONG, r#"{"name": "t", "val": [1]}"#, "field `val` does not hold a number, a boolean or text"),
    ] {
        let mut out = readings();
        let error = Json::new(&config(toml)).decode(frame.as_bytes(), "here", &mut out).unwrap_err();
        assert!(error.to_string().contains(reason), "{frame}: {error}");
        assert_eq!(error.refusal(), crate::sources::Refusal::Undecodable);
        assert!(out.is_empty(), "{frame}");
    }
}

#[test]
fn what_is_no_text_is_refused_as_such() {
    let mut out = readings();
    let error = Json::new(&config("")).decode(b"{\"t\": 1, \"s\": \"\xff\"}", "here", &mut out).unwrap_err();
    assert_eq!(error.refusal(), crate::sources::Refusal::NotText);
    assert!(out.is_empty());
}

#[test]
fn nesting_without_end_costs_no_stack() {
    for frame in
        ["[".repeat(1 << 20), r#"{"a":"#.repeat(1 << 18), format!(r#"{{"a":{}"#, "[".repeat(1 << 20))]
    {
        decode("", &frame).unwrap_err();
    }
}

#[test]
fn one_large_frame_does_not_hold_its_memory() {
    let mut json = Json::new(&config(""));
    let fields: Vec<_> = (0..4_000).map(|n| format!(r#""field-{n}": {n}"#)).collect();
    json.decode(format!("{{{}}}", fields.join(",")).as_bytes(), "here", &mut super::super::tests::readings())
        .unwrap();
    json.decode(br#"{"t": 1}"#, "here", &mut super::super::tests::readings()).unwrap();
    assert!(json.object.text.capacity() <= KEEP_TEXT);
    assert!(json.object.measured.capacity() <= KEEP_MEASURED);
}

#[test]
fn keys_that_need_each_other_are_a_problem_where_one_is_missing() {
    for (toml, key) in [
        ("metric = 'm'", "decode.metric"),
        ("value = 'v'", "decode.value"),
        ("time = 't'", "decode.time"),
        ("time_unit = 'ms'", "decode.time_unit"),
        ("device = 'x'\ntime = 'x'\ntime_unit = 's'", "decode.time"),
    ] {
        let problems = config(toml).problems();
        assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key], "{toml}");
    }
    assert_eq!(config(LONG).problems(), []);
}

/// The same by way of a tree, which is plain and slow.
fn plain(frame: &[u8]) -> Option<(Vec<Found>, u64)> {
    let object = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(frame).ok()?;
    let mut readings = Vec::new();
    let mut ignored = 0;
    for (name, value) in object {
        let value = match value {
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Int(value),
                (None, Some(value)) => Value::Uint(value),
                (None, None) => Value::Float(number.as_f64()?),
            },
            _ => {
                ignored += 1;
                continue;
            }
        };
        if is_name(&name) {
            readings.push(("here".to_owned(), name, value, None));
        }
    }
    Some((readings, ignored))
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn a_flat_frame_gives_what_a_tree_of_it_holds(object in proptest::collection::btree_map(any::<String>(), value(), 0..6)) {
        let frame = serde_json::to_vec(&object).unwrap();
        let mut out = readings();
        let left_out = Json::new(&config("")).decode(&frame, "here", &mut out).unwrap();
        prop_assert_eq!(Some((all(&out), left_out.ignored)), plain(&frame));
    }

    #[test]
    fn no_bytes_make_it_panic_and_a_refused_frame_adds_nothing(
        frame in proptest::collection::vec(any::<u8>(), 0..80),
        toml in prop_oneof![Just(""), Just(LONG)],
    ) {
        let mut out = readings();
        let decoded = Json::new(&config(toml)).decode(&frame, "here", &mut out);
        prop_assert!(decoded.is_ok() || out.is_empty());
    }

    #[test]
    fn a_damaged_frame_is_refused_or_gives_what_a_tree_of_it_holds(
        at in 0_usize..60,
        byte in any::<u8>(),
        remove in any::<bool>(),
    ) {
        let mut frame = br#"{"temp":21.5,"door":true,"n":-12,"state":"\u0061k","list":[1,{}]}"#.to_vec();
        if remove { frame.remove(at); } else { frame[at] = byte; }
        let mut out = readings();
        let decoded = Json::new(&config("")).decode(&frame, "here", &mut out);
        let mut found = all(&out);
        found.sort_by(|a, b| a.1.cmp(&b.1));
        // A tree keeps the last of two equal names and refuses the same frames otherwise.
        found.dedup_by(|later, earlier| later.1 == earlier.1 && { *earlier = later.clone(); true });
        prop_assert_eq!(decoded.is_ok().then_some(found), plain(&frame).map(|plain| plain.0));
    }
}

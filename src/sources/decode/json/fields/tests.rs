use proptest::prelude::*;

use super::super::super::tests::{all, found, readings};
use super::super::Json;
use super::*;

type Decoded = Result<(Vec<(String, String, Value, Option<i64>)>, LeftOut), Undecodable>;

fn decode(toml: &str, frame: &str) -> Decoded {
    let mut out = readings();
    let config: Config = toml::from_str(toml).unwrap();
    assert_eq!(config.problems(), [], "{toml}");
    let left_out = Json::new(&config).decode(frame.as_bytes(), "here", &mut out)?;
    Ok((all(&out), left_out))
}

const NESTED: &str = "device = '/end device/id'\ntime = '/at'\ntime_unit = 'rfc3339'\nfields = [\
    { from = '/data/0/temp', metric = 'temperature', unit = 'Cel', scale = 0.1 },\
    { from = '/data/1/temp', metric = 'outside', scale = 0.1, offset = -40 },\
    { from = '/state', metric = 'state', text = true },\
]";

#[test]
fn what_lies_at_a_pointer_is_read_as_deep_as_it_may_be() {
    let frame = r#"{"data": [{"temp": 215, "x": [1]}, {"x": {}, "temp": 615}, {"temp": 1}], "state": "on",
        "end device": {"id": 7, "more": 1}, "at": "2026-01-31T12:00:00+02:00"}"#;
    let (readings, left_out) = decode(NESTED, frame).unwrap();
    let at = Some(1_769_853_600_000);
    assert_eq!(
        readings,
        [
            found("7", "temperature", Value::Float(21.5), at),
            found("7", "outside", Value::Float(21.5), at),
            found("7", "state", Value::Text("on".into()), at),
        ]
    );
    assert_eq!(left_out, LeftOut::default());
}

#[test]
fn what_a_pointer_does_not_find_is_absent_and_where_all_are_the_frame_is_refused() {
    let (readings, left_out) = decode(NESTED, r#"{"data": [{"temp": 215}], "state": null}"#).unwrap();
    assert_eq!(readings, [found("here", "temperature", Value::Float(21.5), None)]);
    assert_eq!(left_out, LeftOut { bad_names: 0, ignored: 2 });
    for frame in ["{}", "[]", "21.5", r#"{"data": {"temp": 1}}"#, r#"{"data": [{"temp": [1]}]}"#] {
        let error = decode(NESTED, frame).unwrap_err().to_string();
        assert!(error.contains("the first is /data/0/temp"), "{error}");
    }
    let error = decode(NESTED, r#"{"data": [{"temp": "ERR"}]}"#).unwrap_err().to_string();
    assert!(error.ends_with("/data/0/temp holds \"ERR\""), "{error}");
}

#[test]
fn text_that_is_a_number_is_taken_for_one_unless_text_is_asked_for() {
    let toml = "fields = [{ from = '/a', metric = 'a' }, { from = '/b', metric = 'b', text = true }]";
    let (readings, _) = decode(toml, r#"{"a": "21.5", "b": "21.5"}"#).unwrap();
    let expected =
        [found("here", "a", Value::Float(21.5), None), found("here", "b", Value::Text("21.5".into()), None)];
    assert_eq!(readings, expected);
}

/// Of the document of RFC 6901, 5.
#[test]
fn the_examples_of_rfc_6901_find_what_they_should() {
    let document = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
        "k\"l": 6, " ": 7, "m~n": 8}"#;
    for (pointer, value) in [
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ("/k\"l", 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ] {
        let toml = format!("fields = [{{ from = '{pointer}', metric = 'm' }}]");
        let (readings, _) = decode(&toml, document).unwrap();
        assert_eq!(readings, [found("here", "m", Value::Int(value), None)], "{pointer}");
    }
    let text = decode("fields = [{ from = '/foo/0', metric = 'm', text = true }]", document).unwrap().0;
    assert_eq!(text, [found("here", "m", Value::Text("bar".into()), None)]);
    let whole = decode("fields = [{ from = '', metric = 'm' }]", " 21.5 ").unwrap().0;
    assert_eq!(whole, [found("here", "m", Value::Float(21.5), None)]);
    assert_eq!(Pointer::try_from(Box::from("/~01")).unwrap().tokens[..], [Box::from("~1")]);
    for (absent, frame) in
        [("/a/01", r#"{"a": [1, 2]}"#), ("/a/-", r#"{"a": [1]}"#), ("/a/+1", r#"{"a": [1, 2]}"#)]
    {
        decode(&format!("fields = [{{ from = '{absent}', metric = 'm' }}]"), frame).unwrap_err();
    }
}

#[test]
fn a_device_or_a_time_that_cannot_be_read_refuses_the_frame() {
    let data = r#""data": [{"temp": 1}]"#;
    for (frame, reason) in [
        (format!(r#"{{{data}, "at": "noon"}}"#), "field `/at` does not hold a time"),
        (format!(r#"{{{data}, "at": {{}}}}"#), "field `/at` holds an array or an object"),
        (format!(r#"{{{data}, "end device": {{"id": 1.5}}}}"#), "field `/end device/id` does not hold text"),
        (format!(r#"{{{data}, "end device": {{"id": 1, "id": 2}}}}"#), "field `/end device/id` comes twice"),
        (format!(r#"{{{data}"#), "EOF"),
    ] {
        let error = decode(NESTED, &frame).unwrap_err().to_string();
        assert!(error.contains(reason), "{frame}: {error}");
    }
}

#[test]
fn what_is_no_pointer_is_told_at_its_key() {
    for (pointer, what) in [("data/0", "begin with /"), ("/a~2", "behind ~"), ("/a~", "behind ~")] {
        let error = Pointer::try_from(Box::from(pointer)).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    let deep = Pointer::try_from("/a".repeat(100_000).into_boxed_str()).unwrap_err();
    assert!(deep.len() < 200 && deep.ends_with("too deep"), "{deep}");
    let keys = |toml: &str| {
        let config: Config = toml::from_str(toml).unwrap();
        config.problems().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let field = "fields = [{ from = '/a', metric = 'm' }]";
    assert_eq!(keys(&format!("device = 'dev'\n{field}")), ["decode.device"]);
    assert_eq!(keys(&format!("metric = 'a'\nvalue = 'b'\n{field}")), ["decode.metric", "decode.value"]);
    assert_eq!(keys("fields = []"), ["decode.fields"]);
    let twice = "fields = [{ from = '/a', metric = 'm' }, { from = '/b', metric = 'm' }]";
    assert_eq!(keys(twice), ["decode.fields"]);
    assert_eq!(keys("fields = [{ from = '/a', metric = 'm', text = true, scale = 2 }]"), ["decode.fields"]);
}

/// Documents of few keys, so that pointers find something.
fn document() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![Just(serde_json::Value::Null), any::<i64>().prop_map(Into::into)];
    leaf.prop_recursive(3, 24, 3, |inner| {
        let key = prop_oneof!["[a-b]", "[0-2]", Just("a/b".to_owned()), Just("~".to_owned())];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn pointers_find_what_a_tree_finds_at_them(
        document in document(),
        pointers in proptest::collection::btree_set("(/(a|b|0|1|2|01|a~1b|~0)){0,3}", 1..5),
    ) {
        let field = |(number, pointer)| format!("{{ from = '{pointer}', metric = '{number}' }}");
        let fields: Vec<_> = pointers.iter().enumerate().map(field).collect();
        let found = decode(&format!("fields = [{}]", fields.join(", ")), &document.to_string());
        let at = |(number, pointer): (usize, &String)| {
            let value = document.pointer(pointer)?.as_i64()?;
            Some((number.to_string(), Value::Int(value)))
        };
        let expected: Vec<_> = pointers.iter().enumerate().filter_map(at).collect();
        match found {
            Ok((found, left_out)) => {
                prop_assert_eq!(left_out.ignored, (pointers.len() - expected.len()) as u64);
                let found: Vec<_> = found.into_iter().map(|found| (found.1, found.2)).collect();
                prop_assert_eq!(found, expected);
            }
            Err(_) => prop_assert_eq!(expected, []),
        }
    }
}

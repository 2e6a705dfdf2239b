use super::super::tests::{ARRIVAL, bytes, found, one, readings};
use super::*;
use crate::model::{Time, Timestamp, Value};

fn decode(json: &str) -> Result<(Vec<super::super::tests::Found>, LeftOut), String> {
    one("type = 'senml'", json)
}

const NOTHING: LeftOut = LeftOut { bad_names: 0, ignored: 0 };

#[test]
fn base_fields_hold_from_their_own_record_on_wherever_they_stand_in_it() {
    let (readings, left_out) = decode(
        r#"[{"n":"a","v":1,"bv":10,"bn":"d/","bt":1700000000}, {"n":"b","v":0.5},
            {"bn":"e/","n":"a","v":2,"bv":0}, {"n":"on","vb":true}]"#,
    )
    .unwrap();
    let at = Some(1_700_000_000_000);
    let expected = [
        found("d", "a", Value::Int(11), at),
        found("d", "b", Value::Float(10.5), at),
        found("e", "a", Value::Int(2), at),
        found("e", "on", Value::Bool(true), at),
    ];
    assert_eq!((readings.as_slice(), left_out), (&expected[..], NOTHING));
}

#[test]
fn a_record_without_a_value_has_the_base_value() {
    let (readings, left_out) = decode(r#"[{"bv":3,"bn":"d/"}, {"n":"a"}, {"n":"b","v":1}]"#).unwrap();
    assert_eq!(readings, [found("d", "a", Value::Int(3), None), found("d", "b", Value::Int(4), None)]);
    assert_eq!(left_out, NOTHING);
    assert_eq!(decode(r#"[{"n":"a"}]"#).unwrap(), (vec![], LeftOut { ignored: 1, ..NOTHING }));
}

#[test]
fn times_below_2_to_the_28_are_relative_to_the_arrival() {
    let (readings, _) = decode(
        r#"[{"n":"d/a","v":1}, {"n":"d/a","t":0,"v":1}, {"n":"d/a","t":-1.5,"v":1}, {"n":"d/a","t":268435455,"v":1},
            {"n":"d/a","t":268435456,"v":1}, {"bt":-10,"n":"d/a","t":4,"v":1}]"#,
    )
    .unwrap();
    let times: Vec<_> = readings.into_iter().map(|reading| reading.3).collect();
    let expected = [
        None,
        None,
        Some(ARRIVAL - 1_500),
        Some(ARRIVAL + 268_435_455_000),
        Some(268_435_456_000),
        Some(ARRIVAL - 6_000),
    ];
    assert_eq!(times, expected);
}

#[test]
fn a_relative_time_is_handed_on_as_that_and_an_absolute_one_as_it_is() {
    let mut out = readings();
    let pack = br#"[{"bt":-60,"n":"d/a","v":1}, {"n":"d/b","t":60,"v":1}, {"n":"d/c","t":1700000060,"v":1}]"#;
    Senml::new(&Config::default()).decode(pack, "here", &mut out).unwrap();
    let times: Vec<_> = out.iter().map(|(_, reading)| reading.time).collect();
    assert_eq!(times, [Some(Time::FromArrival(-60_000)), None, Some(Time::At(Timestamp(1_700_000_000_000)))]);
    // [{6: -60, 2: 1}]
    let mut out = readings();
    Senml::new(&Config::default()).decode(&bytes("81 a2 06 38 3b 02 01"), "here", &mut out).unwrap();
    assert!(out.iter().all(|(_, reading)| reading.time == Some(Time::FromArrival(-60_000))));
}

#[test]
fn text_data_and_sums_are_counted_unless_they_are_asked_for() {
    let pack =
        r#"[{"n":"d/a","vs":"x"}, {"n":"d/b","vd":"aGkgCg"}, {"n":"d/c","v":1,"s":5}, {"n":"d/d","s":5}]"#;
    let c = found("d", "c", Value::Int(1), None);
    assert_eq!(decode(pack).unwrap(), (vec![c.clone()], LeftOut { ignored: 4, ..NOTHING }));
    let (with, left_out) = one("type = 'senml'\ntext = true", pack).unwrap();
    let text = |metric, text: &str| found("d", metric, Value::Text(text.into()), None);
    assert_eq!(with, [text("a", "x"), text("b", "aGkgCg"), c]);
    assert_eq!(left_out.ignored, 2);
    // [{0: "d/b", 8: h'6869200a'}]
    let (cbor, _) = one("type = 'senml'\ntext = true", bytes("81 a2 00 63 642f62 08 44 6869200a")).unwrap();
    assert_eq!(cbor, [text("b", "aGkgCg")]);
}

#[test]
fn where_a_name_has_no_device_the_sources_own_holds() {
    let pack = r#"[{"n":"temperature","v":1}, {"u":"Cel","v":2}, {"v":3}]"#;
    let expected = [("temperature", 1), ("Cel", 2), ("value", 3)];
    let expected = expected.map(|(metric, value)| found("here", metric, Value::Int(value), None));
    assert_eq!(decode(pack).unwrap().0, expected);
}

#[test]
fn what_is_no_pack_is_refused_whole_with_its_record_and_field() {
    for (pack, reason) in [
        ("{}", "no array of records"),
        ("", "no array of records"),
        ("[1]", "expected a record"),
        (r#"[{"n":"d/a","v":1}"#, "EOF"),
        (r#"[{"n":"d/a","v":1}] x"#, "trailing characters"),
        (r#"[{"n":"d/a","v":1}, {"n":"d/a","v":"x"}]"#, "`v` of record 2 does not hold a number"),
        (r#"[{"n":"d/a","v":1}, {"n":1,"v":1}]"#, "`n` of record 2 does not hold text"),
        (r#"[{"n":"d/a","v":1,"t":"now"}]"#, "`t` of record 1 does not hold a number"),
        (r#"[{"n":"d/a","v":1,"t":1e300}]"#, "the time of record 1 is too far"),
        (r#"[{"n":"d/a","v":1,"vb":true}]"#, "`vb` of record 1 is a second value"),
        (r#"[{"n":"d/a","n":"d/a","v":1}]"#, "`n` of record 1 comes twice"),
        (r#"[{"n":"d/a","v":[1]}]"#, "`v` of record 1 does not hold a number"),
        (r#"[{"n":"d/a","v":null}]"#, "`v` of record 1 does not hold a number"),
        (r#"[{"n":"d/a","vb":1}]"#, "`vb` of record 1 does not hold true or false"),
        (r#"[{"bver":11,"n":"d/a","v":1}]"#, "`bver` of record 1 is a version that is not understood"),
        (r#"[{"bver":10,"n":"d/a","v":1},{"bver":9}]"#, "`bver` of record 2 is another"),
        (r#"[{"n":"d/a","v":1,"x_":1}]"#, "`x_` has to be understood"),
    ] {
        let error = decode(pack).unwrap_err();
        assert!(error.contains(reason), "{pack}: {error}");
    }
    assert!(decode(r#"[{"n":"d/a","v":1,"x":{"y":[1]}}]"#).is_ok(), "what is not known may be passed over");
    let unit = format!(r#"[{{"bu":"{}","n":"d/a","v":1}}]"#, "x".repeat(129));
    assert!(decode(&unit).unwrap_err().contains("`bu` of record 1 has over 128 bytes"));
}

#[test]
fn cbor_that_is_no_pack_is_refused_whole() {
    let cbor = |hex| one("type = 'senml'", bytes(hex));
    let read = found("here", "a", Value::Int(1), None);
    assert_eq!(cbor("81 a2 00 61 61 02 01").unwrap().0, std::slice::from_ref(&read));
    assert_eq!(
        cbor("9f bf 00 61 61 02 01 ff ff").unwrap().0,
        std::slice::from_ref(&read),
        "of indefinite length"
    );
    assert_eq!(
        cbor("81 a3 00 61 61 02 01 61 78 82 01 a0").unwrap().0,
        std::slice::from_ref(&read),
        "an unknown label"
    );
    assert_eq!(cbor("81 a3 00 61 61 02 01 18 63 01").unwrap().0, [read], "an unknown number");
    for (hex, reason) in [
        ("81 a2 00 61 61 02", "no CBOR of an array"),
        ("82 a2 00 61 61 02 01", "no CBOR of an array"),
        ("81 a2 00 61 61 02 01 00", "1 bytes stand behind"),
        ("81 a2 00 61 61 02 61 31", "`v` of record 1 does not hold a number"),
        ("81 a2 00 61 61 02 f6", "`v` of record 1 does not hold a number"),
        ("81 a3 00 61 61 02 01 62 78 5f 01", "`x_` has to be understood"),
        ("81 01", "no CBOR of an array"),
        ("81 a2 00 61 ff 02 01", "no CBOR of an array"),
        ("9b ffffffffffffffff", "no CBOR of an array"),
    ] {
        let error = cbor(hex).unwrap_err();
        assert!(error.contains(reason), "{hex}: {error}");
    }
    assert_eq!(cbor("81 a2 00 61 61 02 f9 7e 00").unwrap().1.ignored, 1, "NaN is no reading");
}

#[test]
fn a_long_base_name_is_not_copied_for_each_record() {
    let records = r#",{"n":"a","v":1}"#.repeat(1000);
    let pack = format!(r#"[{{"bn":"{}/"}}{records}]"#, "x".repeat(100_000));
    let mut decoder = Senml::new(&Config::default());
    let mut out = readings();
    let left_out = decoder.decode(pack.as_bytes(), "here", &mut out).unwrap();
    assert_eq!((out.len(), left_out.bad_names), (0, 1000));
    assert!(decoder.0.bytes() < 300_000, "{}", decoder.0.bytes());
    decoder.decode(br#"[{"n":"a","v":1}]"#, "here", &mut out).unwrap();
    assert!(decoder.0.bytes() < 64_000, "{}", decoder.0.bytes());
}

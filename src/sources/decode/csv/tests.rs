use super::super::tests::{found, one, problems, stream};
use super::*;
use crate::model::Value;

const FIELDS: &str = "type = 'csv'\ndevice = 'id'\ntime = 'ts'\ntime_unit = 's'\nfields = [\
    { from = 'temp', metric = 'temperature', unit = 'Cel', scale = 0.1 }, { from = 'note', text = true }]";

const NOTHING: LeftOut = LeftOut { bad_names: 0, ignored: 0 };

#[test]
fn the_first_line_of_a_stream_says_what_its_columns_are() {
    let lines: [&[u8]; 4] =
        [b"ts,id,note,temp", b"1700000000,b1,\"open, wide\",215", b",,,216", b"1,b1,,nan"];
    let decoded = stream(FIELDS, &lines);
    assert_eq!(decoded[0], Ok((vec![], NOTHING)));
    let at = Some(1_700_000_000_000);
    let first = [
        found("b1", "temperature", Value::Float(21.5), at),
        found("b1", "note", Value::Text("open, wide".into()), at),
    ];
    assert_eq!(decoded[1].as_ref().unwrap().0, first);
    let second =
        (vec![found("here", "temperature", Value::Float(21.6), None)], LeftOut { ignored: 1, ..NOTHING });
    assert_eq!(decoded[2], Ok(second));
    assert_eq!(decoded[3], Err("no column of `fields` holds a number: `temp` is \"nan\"".into()));
}

#[test]
fn a_header_belongs_to_its_own_stream_and_equal_ones_are_kept_once() {
    let config: Config = toml::from_str(FIELDS.split_once('\n').unwrap().1).unwrap();
    let mut csv = Csv::new(&config);
    let mut out = super::super::tests::readings();
    let (mut one, mut other, mut same) = (None, None, None);
    csv.decode(b"ts,id,temp,note", "here", &mut one, &mut out).unwrap();
    csv.decode(b"note,temp,ts,id", "here", &mut other, &mut out).unwrap();
    csv.decode(b"note,temp,ts,id", "here", &mut same, &mut out).unwrap();
    assert!(Arc::ptr_eq(other.as_ref().unwrap(), same.as_ref().unwrap()));
    csv.decode(b"1,a,10,x", "here", &mut one, &mut out).unwrap();
    csv.decode(b"x,10,1,a", "here", &mut other, &mut out).unwrap();
    let readings = super::super::tests::all(&out);
    assert_eq!(readings[..2], readings[2..]);
    assert_eq!(readings[0], found("a", "temperature", Value::Float(1.0), Some(1000)));
}

#[test]
fn a_header_that_comes_again_is_no_data_and_one_that_has_changed_takes_over() {
    let lines: [&[u8]; 5] =
        [b"ts,id,temp,note", b"ts,id,temp,note", b"1,a,10,x", b"temp,note,ts,id,more", b"10,x,1,a,5"];
    let decoded = stream(FIELDS, &lines);
    for header in [0, 1, 3] {
        assert_eq!(decoded[header], Ok((vec![], NOTHING)));
    }
    assert_eq!(decoded[2], decoded[4]);
    assert_eq!(decoded[2].as_ref().unwrap().0.len(), 2);

    let decoded = stream("type = 'csv'\ncolumns = ['t', 'h']", &[b"t,h", b"1,2", b"t,h", b"3,4"]);
    assert_eq!(decoded.iter().map(|line| line.as_ref().unwrap().0.len()).collect::<Vec<_>>(), [0, 2, 0, 2]);
}

#[test]
fn a_reader_that_comes_in_the_middle_waits_for_a_header_and_says_so() {
    let decoded = stream(FIELDS, &[b"1,a,10,x", b"ts,id,temp,note", b"1,a,10,x"]);
    let why = "a header is waited for, and in this line no column is called `id`: give `columns` if the device sends its \
               header only when it starts";
    assert_eq!(decoded[0], Err(why.into()));
    assert_eq!(decoded[2].as_ref().unwrap().0.len(), 2);
    let decoded = stream("type = 'csv'", &[b"1,2", b"t,", b"t,h", b"1,2"]);
    assert!(decoded[0].as_ref().unwrap_err().contains("a number"), "{decoded:?}");
    assert!(decoded[0].as_ref().unwrap_err().contains("give `columns`"), "{decoded:?}");
    assert!(decoded[1].is_err());
    assert_eq!(decoded[3].as_ref().unwrap().0.len(), 2);
}

#[test]
fn without_fields_every_column_that_holds_a_number_is_a_metric() {
    let toml = "type = 'csv'\nseparator = ';'\ncolumns = ['id', 't', '', 'on', 'state']\ndevice = 'id'";
    let (readings, left_out) = one(toml, "b1; 21.5 ;9;true;ok\r\n").unwrap();
    let expected = [found("b1", "t", Value::Float(21.5), None), found("b1", "on", Value::Bool(true), None)];
    assert_eq!(readings, expected);
    assert_eq!(left_out, LeftOut { ignored: 1, ..NOTHING });
    assert_eq!(one(toml, "b1;x;9;y;ok"), Err("no column holds a number".into()));
}

#[test]
fn a_line_that_is_cut_off_or_whose_time_cannot_be_read_is_refused_whole() {
    let toml = "type = 'csv'\ncolumns = ['ts', 't', 'h']\ntime = 'ts'\ntime_unit = 'rfc3339'";
    assert_eq!(one(toml, "2026-01-31T12:00:00Z,1,2").unwrap().0[0].3, Some(1_769_860_800_000));
    assert_eq!(one(toml, "2026-01-31T12:00:00Z,1"), Err("it has 2 columns where 3 are named".into()));
    let error = one(toml, "2026-01-31 12:00,1,2").unwrap_err();
    assert!(error.starts_with("column `ts` does not hold a time") && error.contains("12:00\""), "{error}");
}

#[test]
fn a_header_without_end_is_not_kept() {
    let long = format!("ts,id,temp,note,{}", "x".repeat(HEADER_MAX));
    let decoded = stream("type = 'csv'\ndevice = 'id'", &[long.as_bytes()]);
    assert!(decoded[0].as_ref().unwrap_err().contains("over 4096 bytes"));
}

#[test]
fn what_a_stream_keeps_of_a_header_is_bounded_however_many_columns_it_has() {
    let learn = |toml: &str, line: &str| {
        let mut csv = Csv::new(&toml::from_str(toml).unwrap());
        let mut header = None;
        csv.decode(line.as_bytes(), "here", &mut header, &mut super::super::tests::readings()).unwrap();
        header
    };
    let wide = format!("id{}", ",a".repeat(cells::COLUMNS_MAX - 1));
    let kept = learn("", &wide).unwrap();
    let Names::All(names) = &kept.names else { panic!() };
    assert_eq!((names.iter().count(), names.iter().nth(1_000)), (cells::COLUMNS_MAX, Some("a")));
    let text = cells::COLUMNS_MAX + 1;
    assert_eq!(kept.held(), size_of::<Header>() + text + 2 * cells::COLUMNS_MAX);
    assert!(kept.held() <= HEADER_MAX);

    let long = format!("id{}", ",wide".repeat(1_000));
    let mut csv = Csv::new(&toml::from_str("").unwrap());
    let mut header = None;
    csv.decode(long.as_bytes(), "here", &mut header, &mut super::super::tests::readings()).unwrap_err();
    assert!(header.is_none() && csv.latest.is_none());

    let needed = FIELDS.split_once('\n').unwrap().1;
    let kept =
        learn(needed, &format!("ts,id,temp,note,{}{}", "x".repeat(100_000), ",a".repeat(1_000))).unwrap();
    assert!(kept.held() <= 100, "{}", kept.held());
}

#[test]
fn a_line_that_holds_the_name_of_its_column_is_no_header() {
    let toml = "type = 'csv'\nfields = [{ from = 'v', text = true }]";
    let decoded = stream(toml, &[b"v,id", b"v,b1", b"v,id"]);
    let found = |line: usize| decoded[line].as_ref().unwrap().0.len();
    assert_eq!([found(0), found(1), found(2)], [0, 1, 0]);
}

#[test]
fn columns_without_end_or_without_any_are_one_problem() {
    let names = vec!["a"; 60_000].join("','");
    assert_eq!(problems(&format!("type = 'csv'\ncolumns = ['{names}']")), ["decode.columns"]);
    assert_eq!(problems("type = 'csv'\ncolumns = []"), ["decode.columns"]);
}

#[test]
fn what_an_error_quotes_is_short() {
    let long = "\u{1}".repeat(1 << 20);
    let error = one("type = 'csv'\ncolumns = ['v']\nfields = [{ from = 'v' }]", &long).unwrap_err();
    assert!(error.len() < 200 && error.ends_with("(1048576 bytes)"), "{error}");
    let toml = "type = 'csv'\ncolumns = ['t', 'v']\ntime = 't'\ntime_unit = 's'";
    let error = one(toml, format!("{long},1")).unwrap_err();
    assert!(error.len() < 200 && error.ends_with("(1048576 bytes)"), "{error}");
}

#[test]
fn columns_that_are_not_there_or_twice_are_a_problem_at_their_key() {
    for (toml, key) in [
        ("columns = ['a', 'a']", "decode.columns"),
        ("columns = ['a']\ndevice = 'b'", "decode.device"),
        ("columns = ['a']\ntime = 'b'\ntime_unit = 's'", "decode.time"),
        ("columns = ['a']\nfields = [{ from = 'b' }]", "decode.fields"),
        ("device = 'a'\ntime = 'a'\ntime_unit = 's'", "decode.time"),
        ("time = 'a'", "decode.time"),
        ("fields = [{ from = '' }]", "decode.fields"),
    ] {
        assert_eq!(problems(&format!("type = 'csv'\n{toml}")), [key], "{toml}");
    }
    for wrong in ["'ä'", "'\"'", "''", "', '"] {
        assert!(toml::from_str::<Config>(&format!("separator = {wrong}")).is_err(), "{wrong}");
    }
}

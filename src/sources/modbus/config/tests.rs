use super::problems::Problem;
use super::*;

fn config(toml: &str) -> Config {
    toml::from_str(toml).unwrap()
}

fn problems(toml: &str) -> Vec<Problem> {
    config(toml).problems()
}

const ONE: &str = "registers = [{ unit_id = 1, metric = 'voltage', address = 0 }]\n";

#[test]
fn a_line_and_a_register_are_enough_and_the_parity_is_even() {
    let serial = config(&format!("port = '/dev/ttyUSB0'\n{ONE}"));
    assert_eq!(serial.problems(), []);
    let Some(Target::Serial(_, settings)) = serial.target() else { panic!("no serial line") };
    assert_eq!((settings.baud, settings.parity), (9600, LineParity::Even));
    let units = serial.units("meters");
    assert_eq!((&*units[0].device, units[0].unit_id, units[0].registers.len()), ("meters", 1, 1));
    let network = config(&format!("address = 'gateway:502'\n{ONE}"));
    assert_eq!(network.problems(), []);
    assert_eq!(network.target(), Some(Target::Network("gateway:502".into(), Framing::Tcp)));
}

#[test]
fn registers_without_a_device_are_read_of_all_and_others_of_their_own() {
    let config = config(
        "port = '/dev/ttyUSB0'\ntimeout = '300ms'\n\
         devices = [{ device = 'a', unit_id = 1 }, { device = 'b', unit_id = 2, timeout = '2s' }]\n\
         registers = [{ metric = 'v', address = 0 }, { device = 'b', metric = 'w', address = 9 },\n\
         { device = 'c', unit_id = 3, metric = 'x', address = 0 }, { unit_id = 4, metric = 'y', address = 0 },\n\
         { unit_id = 2, metric = 'z', address = 1 }]",
    );
    assert_eq!(config.problems(), []);
    let said = config.absent();
    let words = "register `y` of `unit_id` 4 names no `device`, and it is not in `devices`";
    assert!(said.iter().any(|(key, text)| *key == "registers.3.unit_id" && text.contains(words)), "{said:?}");
    assert!(!said.iter().any(|(_, text)| text.contains("`z`")), "{said:?}");
    let units: Vec<_> = config
        .units("s")
        .into_iter()
        .map(|unit| {
            let metrics: Vec<_> = unit.registers.iter().map(|register| register.metric.to_string()).collect();
            (unit.device.to_string(), unit.unit_id, unit.timeout.as_millis(), metrics.join(" "))
        })
        .collect();
    let expected = [("a", 1, 300, "v"), ("b", 2, 2000, "v w z"), ("c", 3, 300, "x"), ("s", 4, 300, "y")];
    assert_eq!(
        units,
        expected.map(|(name, id, timeout, all)| (name.to_owned(), id, timeout, all.to_owned()))
    );
}

#[test]
fn what_does_not_go_together_is_a_problem_at_its_key() {
    let device = "devices = [{ device = 'a', unit_id = 1 }]\n";
    for (toml, key, words) in [
        (ONE.to_owned(), "type", "needs a `port`"),
        (format!("port = 'p'\naddress = 'h:1'\n{ONE}"), "address", "exclude"),
        (format!("port = ''\n{ONE}"), "port", "is empty"),
        (format!("address = 'host'\n{ONE}"), "address", "no host and port"),
        (format!("address = 'h:0'\n{ONE}"), "address", "no host and port"),
        (format!("address = 'h:1'\nbaud = 9600\n{ONE}"), "baud", "for a serial `port`"),
        (format!("address = 'h:1'\nparity = 'none'\n{ONE}"), "parity", "for a serial `port`"),
        (format!("port = 'p'\nframing = 'rtu'\n{ONE}"), "framing", "always RTU"),
        (format!("port = 'p'\nbaud = 1\n{ONE}"), "baud", "50 and 4000000"),
        (format!("port = 'p'\ndata_bits = 7\n{ONE}"), "data_bits", "must be 8"),
        (format!("port = 'p'\nevery = '1ms'\n{ONE}"), "every", "10ms and 1day"),
        (format!("port = 'p'\ntimeout = '2m'\n{ONE}"), "timeout", "10ms and 1m"),
        (format!("port = 'p'\nretries = 11\n{ONE}"), "retries", "at most 10"),
        (format!("port = 'p'\npause = '11s'\n{ONE}"), "pause", "at most 10s"),
        (format!("port = 'p'\nmax_gap = 2001\n{ONE}"), "max_gap", "at most 2000"),
        (format!("port = 'p'\nmax_gap = 126\n{ONE}"), "max_gap", "at most 125"),
        ("port = 'p'\n".to_owned(), "type", "needs `registers`"),
        (format!("port = 'p'\n{device}"), "type", "needs `registers`"),
        (
            "port = 'p'\nregisters = [{ metric = 'v', address = 0 }]".to_owned(),
            "registers.0",
            "needs a `unit_id`",
        ),
        (
            format!("port = 'p'\n{device}registers = [{{ device = 'b', metric = 'v', address = 0 }}]"),
            "registers.0.device",
            "`b` is not in `devices`",
        ),
        (
            "port = 'p'\ndevices = [{ device = 'a', unit_id = 1 }, { device = 'b', unit_id = 1 }]\n\
             registers = [{ unit_id = 1, metric = 'v', address = 0 }]"
                .to_owned(),
            "registers.0.unit_id",
            "`v` needs a `device`: `a` and `b` have `unit_id` 1",
        ),
        (
            format!(
                "port = 'p'\n{device}registers = [{{ metric = 'v', address = 0 }}, {{ metric = 'v', address = 1 }}]"
            ),
            "registers.1.metric",
            "`metric` `v` of a is there twice",
        ),
        (
            format!("port = 'p'\n{}", ONE.replace("unit_id = 1", "unit_id = 0")),
            "registers.0.unit_id",
            "within 1 and 247",
        ),
    ] {
        let problems = problems(&toml);
        assert!(
            problems.len() == 1 && problems[0].0 == key && problems[0].1.contains(words),
            "{toml}: {problems:?}"
        );
    }
    for unit in ["0", "255"] {
        let one = ONE.replace("unit_id = 1", &format!("unit_id = {unit}"));
        assert_eq!(problems(&format!("address = 'h:1'\n{one}")), []);
        let rtu = problems(&format!("address = 'h:1'\nframing = 'rtu'\n{one}"));
        assert!(rtu.len() == 1 && rtu[0].1.contains("within 1 and 247"), "{rtu:?}");
    }
}

#[test]
fn a_map_that_is_not_there_may_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.csv");
    let devices = "devices = [{ device = 'a', unit_id = 1 }]";
    let config = config(&format!("port = '/dev/null'\nregisters_file = '{}'\n{devices}", path.display()));
    assert_eq!(config.problems(), []);
    assert_eq!(config.absent().iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["registers_file"]);
    let missing = config.with_map().unwrap_err().to_string();
    assert!(missing.contains("map.csv is not there"), "{missing}");
    std::fs::write(&path, "metric,address\nv,zero\n").unwrap();
    let refused = config.with_map().unwrap_err().to_string();
    assert!(
        refused.contains("line 2, column 3: `address` must be a whole number from 0 to 65535, not the text"),
        "{refused}"
    );
    std::fs::write(&path, "metric,address\nv,0\n").unwrap();
    assert_eq!(config.with_map().unwrap().units("s")[0].registers.len(), 1);
}

#[test]
fn a_wrong_map_is_unfit_keeps_nobody_else_waiting_and_is_read_again_until_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.csv");
    let with = |map: &str, rest: &str| {
        std::fs::write(&path, map).unwrap();
        let devices = "devices = [{ device = 'a', unit_id = 1 }]";
        config(&format!("port = 'p'\nregisters_file = '{}'\n{devices}\n{rest}", path.display()))
    };
    for (map, rest, words) in [
        ("metric,address\nv,zero\nw,0\n", "", "line 2, column 3: `address` must be a whole number"),
        ("metric,address\nv,0\nv,1\n", "", "`metric` `v` of a is there twice"),
        ("metric,address\nv,0\n", "registers = [{ metric = 'v', address = 1 }]", "`v` of a is there twice"),
        ("metric,address\nv,0\n", "max_gap = 126", "at most 125 where registers are read"),
        ("metric,address\n", "", "has no register"),
    ] {
        let config = with(map, rest);
        assert_eq!(config.problems(), [], "{map}");
        let unfit = config.unfit();
        assert!(unfit.len() == 1 && unfit[0].1.contains(words), "{map}: {unfit:?}");
        let refused = config.with_map().unwrap_err();
        assert!(matches!(&refused, SourceError::Refused { cause, .. } if cause.contains(words)), "{refused}");
    }
    let config = with("metric,address\nv,zero\n", "");
    std::fs::write(&path, "metric,address\nv,0\n").unwrap();
    let right = config.with_map().unwrap();
    assert_eq!((right.units("s")[0].registers.len(), right.unfit()), (1, Vec::new()));
    let pipe = "registers_file = '/dev/null'\ndevices = [{ device = 'a', unit_id = 1 }]\nport = 'p'";
    let unfit = toml::from_str::<Config>(pipe).unwrap().unfit();
    assert!(unfit.len() == 1 && unfit[0].1.contains("not a regular file"), "{unfit:?}");
    // What the table itself says wrongly stays an error, with whatever map.
    let both = with("metric,address\nv,zero\n", "registers = [{ device = 'b', metric = 'x', address = 0 }]");
    let (problems, unfit) = (both.problems(), both.unfit());
    assert!(problems.len() == 1 && problems[0].0 == "registers.0.device", "{problems:?}");
    assert!(unfit.len() == 1 && unfit[0].1.contains("map.csv"), "{unfit:?}");
}

/// What is told and keeps nothing from running, but for what is not there.
fn doubtful(toml: &str) -> Vec<Problem> {
    let config = config(&format!("address = 'h:1'\n{toml}"));
    assert_eq!((config.problems(), config.unfit()), (Vec::new(), Vec::new()), "{toml}");
    config.absent()
}

#[test]
fn a_device_that_is_called_as_the_source_is_told_once_for_each_unit() {
    let said = doubtful(
        "registers = [{ unit_id = 7, metric = 'p', address = 0 }, { unit_id = 7, metric = 'q', address = 1 },\n\
         { unit_id = 8, device = 'd', metric = 'p', address = 0 }]",
    );
    assert!(said.len() == 1 && said[0].0 == "registers.0.unit_id", "{said:?}");
    assert!(said[0].1.contains("its device is called as the source"), "{said:?}");
}

#[test]
fn one_device_under_two_names_is_told() {
    let devices = "devices = [{ device = 'm', unit_id = 1 }, { device = 'n', unit_id = 1 }]\n";
    let said = doubtful(&format!("{devices}registers = [{{ metric = 'v', address = 0 }}]"));
    assert!(said.len() == 1 && said[0].0 == "devices.1.unit_id", "{said:?}");
    assert!(said[0].1.starts_with("`m` and `n` are one device, as both have `unit_id` 1"), "{said:?}");
    let own = |one: &str, other: &str| {
        doubtful(&format!(
            "registers = [{{ device = 'm', unit_id = 1, metric = 'v', {one} }}, {{ device = 'n', unit_id = 1, metric = 'v', {other} }}]"
        ))
    };
    let said = own("address = 4", "address = 4, scale = 0.1");
    assert!(said.len() == 1 && said[0].0 == "registers.1.unit_id", "{said:?}");
    // The parts of one device may well have names of their own.
    assert_eq!(own("address = 4", "address = 5"), []);
    assert_eq!(own("address = 4, bit = 0", "address = 4, bit = 1"), []);
    assert_eq!(own("address = 4", "address = 4, table = 'input'"), []);
}

#[test]
fn one_device_under_two_names_is_told_of_two_sources_as_well() {
    let source = |line: &str, device: &str, address: u16| {
        config(&format!(
            "{line}\nregisters = [{{ device = '{device}', unit_id = 1, metric = 'v', address = {address} }}]"
        ))
    };
    let one = source("address = 'h:1'", "m", 0);
    let (key, text) = one.reads_as_well("a", &source("address = 'h:1'", "n", 0), "b").unwrap();
    assert_eq!(key, "address");
    assert!(
        text.starts_with("sources a and b read one device, `unit_id` 1 on one line, as `m` and as `n`"),
        "{text}"
    );
    assert_eq!(one.reads_as_well("a", &source("address = 'h:1'", "n", 1), "b"), None);
    assert_eq!(one.reads_as_well("a", &source("address = 'h:2'", "n", 0), "b"), None);
    assert_eq!(one.reads_as_well("a", &source("port = 'p'", "n", 0), "b"), None);
}

#[test]
fn an_address_as_manuals_count_them_is_told_once_with_what_to_write() {
    let told = |registers: &str| {
        let registers = registers.replace("{ ", "{ device = 'd', unit_id = 1, ");
        doubtful(&format!("registers = [{registers}]"))
    };
    let said = told(
        "{ metric = 'u', address = 1 }, { metric = 'v', address = 40001 }, { metric = 'w', address = 40002 }",
    );
    assert!(said.len() == 1 && said[0].0 == "registers.1.address", "{said:?}");
    let words = "register `v` has `address` 40001: if the manual calls it 40001, write table = \"holding\", address = 0";
    assert!(said[0].1.starts_with(words), "{said:?}");
    for (register, words) in [
        ("{ metric = 'v', address = 30010 }", "table = \"input\", address = 9;"),
        ("{ metric = 'v', table = 'input', address = 39999 }", "table = \"input\", address = 9998;"),
        ("{ metric = 'v', table = 'discrete', address = 10001 }", "table = \"discrete\", address = 0;"),
    ] {
        let said = told(register);
        assert!(said.len() == 1 && said[0].1.contains(words), "{said:?}");
    }
    for register in
        ["address = 10001", "address = 40000", "address = 50000", "table = 'coil', address = 10001"]
    {
        assert_eq!(told(&format!("{{ metric = 'v', {register} }}")), [], "{register}");
    }
}

#[test]
fn two_sources_on_one_line_must_agree_on_its_settings() {
    let one = config(&format!("port = 'p'\nbaud = 19200\n{ONE}"));
    assert_eq!(one.differs(&one), None);
    assert_eq!(one.differs(&config(&format!("port = 'p'\n{ONE}"))), Some("baud"));
    assert_eq!(
        one.differs(&config(&format!("port = 'p'\nbaud = 19200\nparity = 'none'\n{ONE}"))),
        Some("parity")
    );
    assert_eq!(one.differs(&config(&format!("port = 'q'\n{ONE}"))), None);
    let tcp = config(&format!("address = 'h:1'\n{ONE}"));
    assert_eq!(tcp.differs(&config(&format!("address = 'h:1'\nframing = 'rtu'\n{ONE}"))), Some("framing"));
}

#[test]
fn two_names_that_lead_to_one_port_are_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (port, link) = (dir.path().join("ttyUSB0"), dir.path().join("by-id"));
    std::fs::write(&port, "").unwrap();
    std::os::unix::fs::symlink(&port, &link).unwrap();
    let one = config(&format!("port = '{}'\nbaud = 19200\n{ONE}", port.display()));
    let other = config(&format!("port = '{}'\n{ONE}", link.display()));
    assert_eq!(one.differs(&other), Some("baud"));
}

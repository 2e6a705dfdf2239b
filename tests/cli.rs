//! The real binary: what it prints and how it exits.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use assert_cmd::Command;

mod support;

use support::pki::{Authority, Valid};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A run of weir in `directory`, without an environment that could change what it says.
fn weir(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("weir").unwrap();
    for variable in ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"] {
        command.env_remove(variable);
    }
    command.current_dir(directory).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// `weir check` of a file that holds `toml`; the file is called weir.toml.
fn check(toml: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("weir.toml"), toml).unwrap();
    weir(directory.path(), &["check", "--config", "weir.toml"])
}

#[track_caller]
fn assert_sound(what: &str, output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{what}:\n{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("error"), "{what}:\n{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("no errors"), "{what}:\n{}", text(&output.stdout));
}

#[test]
fn five_mistakes_are_reported_at_once_each_with_its_line() {
    let output = weir(&Path::new(ROOT).join("tests/cli"), &["check", "--config", "five-mistakes.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(text(&output.stdout), "");
    insta::assert_snapshot!("five_mistakes", text(&output.stderr));
}

#[test]
fn every_sample_passes_check() {
    let mut samples: Vec<PathBuf> =
        fs::read_dir(Path::new(ROOT).join("config")).unwrap().map(|entry| entry.unwrap().path()).collect();
    samples.retain(|sample| sample.is_file());
    samples.sort();
    assert!(samples.len() >= 5, "{samples:?}");
    for sample in samples {
        let output = weir(Path::new(ROOT), &["check", "--config", sample.to_str().unwrap()]);
        assert_sound(&sample.display().to_string(), &output);
    }
}

#[test]
fn every_configuration_in_the_documents_passes_check() {
    for document in ["README.md", "docs/sources.md"] {
        let text = fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
        let blocks: Vec<&str> =
            text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!blocks.is_empty(), "{document} shows a configuration");
        for block in blocks {
            assert_sound(block, &check(block));
        }
    }
}

#[test]
fn a_run_that_may_open_too_few_files_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let output = weir(Path::new(ROOT), &["init"]);
    fs::write(directory.path().join("weir.toml"), output.stdout).unwrap();
    for files in 4..=8 {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {files}; exec \"$0\" run --config weir.toml");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_weir")]).current_dir(directory.path());
        let output = command.timeout(Duration::from_secs(20)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{files}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("Too many open files"), "{files}: {}", text(&output.stderr));
    }
}

#[test]
fn what_init_prints_passes_check() {
    let output = weir(Path::new(ROOT), &["init"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    assert_sound("init", &check(text(&output.stdout)));
}

#[test]
fn a_sound_file_is_summed_up_and_what_is_absent_is_a_warning() {
    let toml = "\
[gateway]
id = \"gw-042\"
state_dir = \"/var/lib/elsewhere\"
[sources.boiler]
type = \"serial\"
port = \"/dev/no-such-port\"
decode = { type = \"json\" }
[uplink]
type = \"mqtt\"
url = \"mqtt://localhost:1883\"
";
    let output = check(toml);
    assert_sound(toml, &output);
    let (said, warned) = (text(&output.stdout), text(&output.stderr));
    let uplink = "uplink   mqtt://localhost:1883, MQTT 5, QoS 1, json\n  auth     none\n";
    for part in ["weir.toml", "1 warning", "gw-042", "boiler", "/var/lib/elsewhere", uplink] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    for part in ["warning: ", "weir.toml:6:8", "/dev/no-such-port"] {
        assert!(warned.contains(part), "{part} in:\n{warned}");
    }
}

#[test]
fn a_mistake_in_one_of_several_brokers_is_marked_where_it_stands() {
    let uplink = |keys: &str| {
        let output = check(&format!(
            "[gateway]\nid = 'gw'\n[sources.hall]\ntype = 'simulated'\n[uplink]\ntype = 'mqtt'\n{keys}\n"
        ));
        assert_eq!(output.status.code(), Some(78));
        text(&output.stderr).to_owned()
    };
    let said = uplink("urls = ['mqtt://localhost', 'b', 'mqtt://c']");
    for part in ["weir.toml:7:29", "`b` is no url", "weir.toml:7:34", "use mqtts:// for c", "2 errors"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let said = uplink("urls = ['b']");
    assert!(said.contains("1 error in"), "{said}");
    assert!(uplink("urlz = ['mqtts://b']").contains("did you mean `urls`?"));
    let said = uplink("url = 'mqtts://b'\ntls = { ca = 'a', cert = 'b', key = 'c', min_version = '1.1' }");
    assert!(said.contains("there are \"1.2\" and \"1.3\""), "{said}");
    let said = uplink("url = 'mqtt://localhost'\n[buffer]\nreplay = { max_rate = 5000000000 }");
    assert!(said.contains("a whole number from 1 to 4294967295, not 5000000000"), "{said}");
}

/// `weir check` of weir.toml in `directory`, by a user who may not do everything.
fn check_by_nobody(directory: &Path) -> Output {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.join("weir");
    // Another process copies it: a thread that starts a program meanwhile would leave this one's file open for writing.
    let copied = std::process::Command::new("cp")
        .args([env!("CARGO_BIN_EXE_weir").as_ref(), binary.as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    let mut command = std::process::Command::new(&binary);
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command.current_dir(directory).args(["check", "--config", "weir.toml"]).output().unwrap()
}

#[test]
fn a_map_that_may_not_be_read_says_how_it_is_made_readable() {
    let directory = tempfile::tempdir().unwrap();
    let map = directory.path().join("map.csv");
    fs::write(&map, "metric,address\nv,0\n").unwrap();
    fs::set_permissions(&map, fs::Permissions::from_mode(0o000)).unwrap();
    let toml = "[gateway]\nid = 'gw'\n[sources.meters]\ntype = 'modbus'\naddress = '127.0.0.1:502'\nregisters_file = 'map.csv'\n\
                devices = [{ device = 'a', unit_id = 1 }]\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://localhost'\n";
    fs::write(directory.path().join("weir.toml"), toml).unwrap();
    let output = check_by_nobody(directory.path());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in
        ["weir.toml:6:18", "this user may not read map.csv", "sudo install -m 640 -g weir FILE map.csv"]
    {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
}

#[test]
fn a_directory_that_this_user_cannot_use_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let mine = directory.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o500)).unwrap();
    let toml = "[gateway]\nid = 'gw'\nstate_dir = 'mine'\nruntime_dir = 'mine/run'\n[sources.hall]\n\
                type = 'simulated'\n[uplink]\ntype = 'mqtt'\nurl = 'mqtt://localhost'\n";
    fs::write(directory.path().join("weir.toml"), toml).unwrap();
    let output = check_by_nobody(directory.path());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in ["weir.toml:3:13", "this user may not write to mine", "weir.toml:4:15", "may not make it"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
}

#[test]
fn an_absent_file_and_one_that_cannot_be_read_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["check", "run"] {
        let output = weir(directory.path(), &[command, "--config", "weir.toml"]);
        assert_eq!(output.status.code(), Some(78));
        let said = text(&output.stderr);
        assert!(said.contains("there is no file weir.toml") && said.contains("weir init"), "{said}");

        let output = weir(directory.path(), &[command, "--config", "."]);
        assert_eq!(output.status.code(), Some(78));
        let said = text(&output.stderr);
        assert!(said.contains("cannot be read") && said.contains("--config"), "{said}");
    }
}

#[test]
fn run_refuses_a_wrong_file_as_check_does() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("weir.toml"), "[lgo]\n").unwrap();
    let [run, check] =
        ["run", "check"].map(|command| weir(directory.path(), &[command, "--config", "weir.toml"]));
    assert_eq!(run.status.code(), Some(78));
    assert!(text(&run.stderr).contains("weir.toml:1:2"), "{}", text(&run.stderr));
    assert_eq!(text(&run.stderr), text(&check.stderr));
}

#[test]
fn a_variable_is_put_in_and_a_missing_one_is_marked_without_telling_others() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("weir.toml"), "[gateway]\nid = \"${WEIR_TEST_ID} ${WEIR_TEST_NONE}\"\n")
        .unwrap();
    let output = Command::cargo_bin("weir")
        .unwrap()
        .current_dir(directory.path())
        .env("WEIR_TEST_ID", "hunter2")
        .args(["check", "--config", "weir.toml"])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(
        said.contains("weir.toml:2:23") && said.contains("`${WEIR_TEST_NONE}` stands for nothing"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&[][..], &["chekc"], &["check", "--confg", "x"], &["init", "x"], &["check", "--config"]]
    {
        let output = weir(Path::new(ROOT), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("--help"), "{arguments:?}");
    }
}

#[test]
fn the_version_and_the_exit_codes_are_told() {
    let output = weir(Path::new(ROOT), &["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), concat!("weir ", env!("CARGO_PKG_VERSION"), "\n"));
    for arguments in [&["--help"][..], &["check", "--help"]] {
        let output = weir(Path::new(ROOT), arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("78"), "{}", text(&output.stdout));
    }
}

#[test]
fn a_reader_that_has_gone_away_is_no_failure() {
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let status = std::process::Command::new(assert_cmd::cargo::cargo_bin("weir"))
        .arg("init")
        .stdout(OwnedFd::from(writer))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn certificates_that_are_there_and_not_fit_are_an_error_of_check() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let authority = Authority::new("CA").unwrap();
    let [gateway, other] = ["gw", "other"]
        .map(|name| authority.client(name, Valid::Now).unwrap().write(directory.path(), name, &authority));
    let (gateway, other) = (gateway.unwrap(), other.unwrap());
    let hall = authority.server(&["localhost"], Valid::Now).unwrap();
    let hall = hall.write(directory.path(), "hall", &authority).unwrap();
    fs::write(file("no.pem"), "not PEM\n").unwrap();
    fs::copy(&gateway.key, file("open.key")).unwrap();
    fs::set_permissions(file("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let check = |uplink: &[&Path; 3], listener: &[&Path; 3]| {
        let tls = |[ca, cert, key]: &[&Path; 3]| {
            let [ca, cert, key] = [ca, cert, key].map(|path| path.display());
            format!("tls = {{ ca = '{ca}', cert = '{cert}', key = '{key}' }}\n")
        };
        let toml = format!(
            "[gateway]\nid = 'gw'\n[sources.hall]\ntype = 'tcp'\nlisten = '127.0.0.1:5000'\ndecode = {{ type = 'json' }}\n{}\
             [uplink]\ntype = 'mqtt'\nurl = 'mqtts://localhost:8883'\n{}",
            tls(listener),
            tls(uplink)
        );
        fs::write(file("weir.toml"), toml).unwrap();
        let output = weir(directory.path(), &["check", "--config", "weir.toml"]);
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let right = [&*gateway.ca, &*gateway.cert, &*gateway.key];
    let hall = [&*hall.ca, &*hall.cert, &*hall.key];
    assert_eq!(check(&right, &hall), (Some(0), String::new()));
    let (open, no_pem) = (file("open.key"), file("no.pem"));
    for (wrong, words) in [
        ([&*gateway.ca, &*gateway.cert, &*open], "open.key is open to everyone on this machine"),
        ([&*gateway.ca, &*gateway.cert, &*other.key], "is not the key of the certificate in"),
        ([&*no_pem, &*gateway.cert, &*gateway.key], "no.pem is not PEM"),
    ] {
        for ((code, said), place) in
            [(check(&wrong, &hall), "weir.toml:11:7"), (check(&right, &wrong), "weir.toml:7:7")]
        {
            assert_eq!(code, Some(78), "{said}");
            for part in ["error: ", words, place, "1 error in"] {
                assert!(said.contains(part), "{part} in:\n{said}");
            }
        }
    }
    // A group that is not this user's may be the service's: what else is wrong is told all the same.
    if rustix::process::geteuid().is_root() {
        for key in [&gateway.key, &other.key] {
            fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
            std::os::unix::fs::chown(key, None, Some(54_321)).unwrap();
        }
        let (code, said) = check(&right, &right);
        assert!(
            code == Some(0) && said.contains("warning: ") && said.contains("a group that weir"),
            "{said}"
        );
        let (code, said) = check(&[&*gateway.ca, &*gateway.cert, &*other.key], &right);
        assert!(code == Some(78) && said.contains("is not the key of the certificate in"), "{said}");
    }
}

#[test]
fn a_wrong_map_is_an_error_of_check_with_everything_else_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("map.csv"), "metric,address\nv,zero\n").unwrap();
    let check = |more: &str| {
        let toml = format!(
            "[gateway]\nid = 'gw'\n[sources.meters]\ntype = 'modbus'\naddress = '127.0.0.1:502'\nregisters_file = 'map.csv'\n\
             devices = [{{ device = 'a', unit_id = 1 }}]\n{more}[uplink]\ntype = 'mqtt'\nurl = 'mqtt://localhost'\n"
        );
        fs::write(directory.path().join("weir.toml"), toml).unwrap();
        let output = weir(directory.path(), &["check", "--config", "weir.toml"]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), ""), "{}", text(&output.stderr));
        text(&output.stderr).to_owned()
    };
    let said = check("");
    for part in ["error: `registers_file`: map.csv, line 2, column 3", "weir.toml:6:18", "1 error in"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let said = check("evry = '1s'\n");
    assert!(said.contains("did you mean `every`?") && said.contains("map.csv, line 2"), "{said}");
    assert!(said.contains("2 errors in") && !said.contains("warning: "), "{said}");
}

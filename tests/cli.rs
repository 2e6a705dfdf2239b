//! The real binary: what it prints and how it exits.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use assert_cmd::Command;

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
    samples.sort();
    assert!(samples.len() >= 5, "{samples:?}");
    for sample in samples {
        let output = weir(Path::new(ROOT), &["check", "--config", sample.to_str().unwrap()]);
        assert_sound(&sample.display().to_string(), &output);
    }
}

#[test]
fn every_configuration_in_the_readme_passes_check() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let blocks: Vec<&str> =
        readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty(), "the README shows a configuration");
    for block in blocks {
        assert_sound(block, &check(block));
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
    for part in ["weir.toml", "1 warning", "gw-042", "boiler", "/var/lib/elsewhere"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    for part in ["warning: ", "weir.toml:6:8", "/dev/no-such-port"] {
        assert!(warned.contains(part), "{part} in:\n{warned}");
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
fn certificates_that_are_there_and_not_fit_are_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        fs::write(directory.path().join(file), "not PEM\n").unwrap();
    }
    let toml = "[gateway]\nid = 'gw'\n[sources.hall]\ntype = 'simulated'\n[uplink]\ntype = 'mqtt'\n\
                url = 'mqtts://localhost:8883'\ntls = { ca = 'ca.pem', cert = 'cert.pem', key = 'key.pem' }\n";
    fs::write(directory.path().join("weir.toml"), toml).unwrap();
    let output = weir(directory.path(), &["check", "--config", "weir.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("ca.pem is not PEM"), "{}", text(&output.stderr));
}

//! `${NAME}` in a text: an environment variable, else a systemd credential.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The longest credential, in bytes.
const CREDENTIAL_MAX: u64 = 64 * 1024;

/// Why a text cannot be expanded, and which bytes of it are to blame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unexpanded {
    pub(super) blame: Range<usize>,
    pub(super) text: String,
    pub(super) help: String,
}

/// `text` with every `${NAME}` replaced by what `variable` gives for it, else by the file NAME in the directory that
/// `$CREDENTIALS_DIRECTORY` names. `$${` stands for `${` itself. `found` is told each name and what it stands for.
pub(super) fn expand(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    mut found: impl FnMut(&str, &str),
) -> Result<String, Unexpanded> {
    let mut expanded = String::new();
    let mut at = 0;
    while let Some(dollar) = text[at..].find("${").map(|offset| at + offset) {
        if text[at..dollar].ends_with('$') {
            expanded.push_str(&text[at..dollar - 1]);
            expanded.push_str("${");
            at = dollar + 2;
            continue;
        }
        expanded.push_str(&text[at..dollar]);
        let Some(end) = text[dollar..].find('}').map(|offset| dollar + offset) else {
            return Err(Unexpanded {
                blame: dollar..dollar + 2,
                text: "`${` without its `}`".into(),
                help:
                    "write `${NAME}` for a variable or a credential, or `$${` for the characters themselves"
                        .into(),
            });
        };
        let name = &text[dollar + 2..end];
        at = end + 1;
        let value = value(name, variable).map_err(|help| Unexpanded {
            blame: dollar..at,
            text: format!("`${{{name}}}` stands for nothing"),
            help,
        })?;
        found(name, &value);
        expanded.push_str(&value);
    }
    expanded.push_str(&text[at..]);
    Ok(expanded)
}

fn value(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    // Of these characters no path can be made that leaves the directory.
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    if !is_name(name) {
        return Err("a name is made of letters, digits, `_`, `.` and `-`".into());
    }
    if let Some(value) = variable(name) {
        return Ok(value);
    }
    let Some(directory) = variable("CREDENTIALS_DIRECTORY") else {
        return Err(format!(
            "set the environment variable {name}, or give the service a credential of that name"
        ));
    };
    let file = Path::new(&directory).join(name);
    match read(&file) {
        Ok(text) => {
            let line = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n'));
            Ok(line.unwrap_or(&text).to_owned())
        }
        Err(error) => Err(format!(
            "there is no environment variable {name}, and the credential {} cannot be read: {error}",
            file.display()
        )),
    }
}

fn read(file: &Path) -> io::Result<String> {
    // Without O_NONBLOCK a pipe would hold up whoever opens it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(CREDENTIAL_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CREDENTIAL_MAX {
        return Err(io::Error::other(format!("it is longer than {CREDENTIAL_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn with(variables: &[(&str, &str)], text: &str) -> Result<String, Unexpanded> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        expand(text, &variable, |_, _| ())
    }

    #[test]
    fn a_variable_is_put_in_wherever_it_is_named() {
        let variables = [("HOST", "broker.example.com"), ("PORT", "8883")];
        assert_eq!(with(&variables, "mqtts://${HOST}:${PORT}/").unwrap(), "mqtts://broker.example.com:8883/");
        assert_eq!(with(&variables, "costs $5 {PORT}").unwrap(), "costs $5 {PORT}");
    }

    #[test]
    fn what_a_variable_holds_is_not_expanded_again() {
        assert_eq!(with(&[("A", "${B}"), ("B", "b")], "${A}").unwrap(), "${B}");
    }

    #[test]
    fn a_doubled_dollar_stands_for_the_characters_themselves() {
        assert_eq!(with(&[("A", "a")], "$${A} ${A}").unwrap(), "${A} a");
    }

    #[test]
    fn a_credential_is_taken_where_there_is_no_variable_and_loses_its_last_line_end() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("mqtt.password"), "secret\n\r\n").unwrap();
        let path = directory.path().to_str().unwrap();
        let variables = [("CREDENTIALS_DIRECTORY", path), ("USER", "weir")];
        assert_eq!(with(&variables, "${USER}:${mqtt.password}").unwrap(), "weir:secret\n");
        let absent = with(&variables, "${other}").unwrap_err();
        assert!(absent.help.contains("credential") && absent.help.contains("other"), "{absent:?}");
    }

    #[test]
    fn a_credential_that_has_no_end_or_is_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::write(at("long"), "x".repeat(64 * 1024 + 1)).unwrap();
        fs::write(at("longest"), "x".repeat(64 * 1024)).unwrap();
        let variables = [("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())];
        let cases = [
            ("${pipe}", "not a regular file"),
            ("${zero}", "not a regular file"),
            ("${long}", "longer than 65536 bytes"),
        ];
        for (text, words) in cases {
            let refused = with(&variables, text).unwrap_err();
            assert!(refused.help.contains(words), "{refused:?}");
            assert_eq!(refused.blame, 0..text.len());
        }
        assert_eq!(with(&variables, "${longest}").unwrap().len(), 64 * 1024);
    }

    #[test]
    fn no_name_leads_out_of_the_credentials_directory() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("credentials");
        fs::create_dir(&inner).unwrap();
        fs::write(directory.path().join("outside"), "secret").unwrap();
        let variables = [("CREDENTIALS_DIRECTORY", inner.to_str().unwrap())];
        for text in ["${../outside}", "${..}", "${.}", "${}", "${a b}", "${a\0}"] {
            assert!(with(&variables, text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_very_bytes_that_stand_for_nothing_are_blamed() {
        assert_eq!(with(&[], "ab${NO}").unwrap_err().blame, 2..7);
        assert_eq!(with(&[], "ü ${NO").unwrap_err().blame, 3..5);
    }
}

//! Reading certificates and keys, and saying what is wrong with a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Error;

/// The most that is read of one file, in bytes: a hundred certificates.
const FILE_MAX: u64 = 256 * 1024;

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(path, open(path)?)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(unreadable(path, &pem, "certificate", "BEGIN CERTIFICATE", "x509")),
    }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    key_in(path, &kept_from_others(path, "private key")?)
}

/// To see whether it is fit for use by whoever is in its group. Never to use it.
pub(super) fn private_key_of_any_group(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    key_in(path, &read(path, open(path)?)?)
}

fn key_in(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| unreadable(path, pem, "private key", "PRIVATE KEY", "pkey"))
}

/// The text in a file that, as a private key, others must not be able to read; `what` it is, for messages, which never
/// have any of it. A line end at its end is no part of it.
///
/// # Errors
/// Where the file is absent, unreadable, open to others, empty, longer than `longest` bytes or no UTF-8.
pub fn secret(path: &Path, what: &str, longest: usize) -> Result<String, Error> {
    let wrong = |how: &str| {
        let file = path.display();
        Error::new(format!("the {what} in {file} {how}"), "the file has to hold the text itself, in one line")
    };
    let bytes = kept_from_others(path, what)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is no UTF-8 text"))?;
    let line = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(&text);
    match line.len() {
        0 => Err(wrong("is empty")),
        bytes if bytes > longest => Err(wrong(&format!("is longer than {longest} bytes"))),
        _ => Ok(line.to_owned()),
    }
}

/// What is in a file that others cannot reach.
fn kept_from_others(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    let file = open(path)?;
    // The open file is asked, not the path, so that what is checked is what is read.
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    refuse_shared(path, what, metadata.mode(), metadata.gid())?;
    read(path, file)
}

/// Others must not reach the file at all; a group may where it is one of this process's own.
fn refuse_shared(path: &Path, what: &str, mode: u32, group: u32) -> Result<(), Error> {
    let (others, foreign_group) = (mode & 0o007 != 0, mode & 0o070 != 0 && !own_groups().contains(&group));
    if !others && !foreign_group {
        return Ok(());
    }
    let who = if others { "everyone on this machine" } else { "a group that weir does not run under" };
    let file = path.display();
    let error = if others { Error::new } else { Error::of_user };
    Err(error(
        format!("the {what} {file} is open to {who} (mode {:04o})", mode & 0o7777),
        format!(
            "`chmod 600 {file}` where its owner runs weir, else `chgrp weir {file}` and `chmod 640 {file}`; \
             have a new one made if somebody may have read this one"
        ),
    ))
}

#[expect(unsafe_code, reason = "no safe wrapper of getegid and getgroups is in the tree")]
fn own_groups() -> Vec<libc::gid_t> {
    // SAFETY: getegid has no arguments and cannot fail; getgroups with size 0 only returns the count, and then writes
    // at most as many ids as the buffer has room for.
    unsafe {
        let count = libc::getgroups(0, std::ptr::null_mut());
        let mut groups: Vec<libc::gid_t> = vec![0; usize::try_from(count).unwrap_or(0)];
        let written = libc::getgroups(count.max(0), groups.as_mut_ptr());
        groups.truncate(usize::try_from(written).unwrap_or(0));
        groups.push(libc::getegid());
        groups
    }
}

/// Opens a regular file. Anything else could hold up the agent's one thread without end; a pipe already does so when
/// it is opened, but for `O_NONBLOCK`.
fn open(path: &Path) -> Result<File, Error> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| failed(path, &error))?;
    if !file.metadata().map_err(|error| failed(path, &error))?.is_file() {
        return Err(Error::new(
            format!("{} is not a regular file", path.display()),
            "put the PEM file itself at that path, no directory, pipe or device",
        ));
    }
    Ok(file)
}

fn read(path: &Path, file: File) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(|error| failed(path, &error))?;
    Ok(bytes)
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let file = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(format!("{file} is not there"), "install it, or correct its path in the configuration")
        }
        io::ErrorKind::PermissionDenied => Error::of_user(
            format!("weir may not read {file}"),
            format!("give it to the group that weir runs under: `chgrp weir {file}` and `chmod 640 {file}`"),
        ),
        _ => Error::new(format!("cannot read {file} ({error})"), "see what is at that path"),
    }
}

/// Says why a file that was read holds no `wanted`, and which openssl command helps.
fn unreadable(path: &Path, bytes: &[u8], wanted: &str, header: &str, command: &str) -> Error {
    let file = path.display();
    let text = String::from_utf8_lossy(bytes);
    if text.contains("ENCRYPTED") {
        return Error::new(
            format!("the private key {file} is locked with a passphrase, which nobody can type at a gateway"),
            format!("unlock it once: `openssl pkey -in {file} -out {file}.open`"),
        );
    }
    // Every DER certificate and key is an ASN.1 sequence.
    if bytes.first() == Some(&0x30) {
        return Error::new(
            format!("{file} is DER, not PEM"),
            format!("convert it: `openssl {command} -inform DER -in {file} -out {file}.pem`"),
        );
    }
    if !text.contains("-----BEGIN ") {
        return Error::new(
            format!("{file} is not PEM"),
            format!("it must be text with a line `-----{}-----`", example(header)),
        );
    }
    let what = if text.contains(header) {
        format!("the {wanted} in {file} is damaged")
    } else {
        format!("{file} holds no {wanted}")
    };
    Error::new(what, format!("it must have a whole block that begins with `-----{}-----`", example(header)))
}

fn example(header: &str) -> String {
    if header.starts_with("BEGIN") { header.to_owned() } else { format!("BEGIN {header}") }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_one_line_that_others_cannot_read_and_is_in_no_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let put = |content: &[u8], mode| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            secret(&path, "password", 10)
        };
        assert_eq!(put(b"hunter2\n", 0o600), Ok("hunter2".to_owned()));
        assert_eq!(put(b" hunter2\r\n", 0o400), Ok(" hunter2".to_owned()));
        assert_eq!(put(b"hunter2\n\n", 0o600), Ok("hunter2\n".to_owned()));
        for (content, mode, words) in [
            (&b"hunter2"[..], 0o644, "is open to everyone on this machine (mode 0644)"),
            (b"\n", 0o600, "is empty"),
            (b"hunter\xFF", 0o600, "is no UTF-8 text"),
            (b"hunter2hunter2", 0o600, "is longer than 10 bytes"),
        ] {
            let error = put(content, mode).unwrap_err().to_string();
            assert!(error.contains(words) && error.starts_with("the password "), "{error}");
            assert!(!error.contains("hunter"), "{error}");
        }
        assert!(secret(&dir.path().join("none"), "password", 10).is_err());
    }

    #[test]
    fn a_key_is_for_its_owner_and_the_groups_of_this_process_alone() {
        let own = own_groups()[0];
        let foreign = (1..).find(|group| !own_groups().contains(group)).unwrap();
        let path = Path::new("/etc/weir/tls/gateway.key");
        for (mode, group) in [(0o600, foreign), (0o400, foreign), (0o640, own), (0o660, own)] {
            assert_eq!(refuse_shared(path, "private key", 0o100_000 | mode, group), Ok(()), "{mode:o}");
        }
        for (mode, group) in [(0o644, own), (0o602, own), (0o601, own), (0o640, foreign), (0o620, foreign)] {
            let error = refuse_shared(path, "private key", 0o100_000 | mode, group).unwrap_err();
            assert!(error.what.contains(&format!("(mode 0{mode:o})")), "{error}");
            assert!(error.hint.contains("chmod 600 /etc/weir/tls/gateway.key"), "{error}");
        }
    }
}

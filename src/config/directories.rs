//! Whether a directory can be used by whoever asks.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Why weir could not keep anything in `directory`, were it run by this user. One that is not there is made; where it
/// is not `written` in the file, systemd makes it.
pub(super) fn unusable(directory: &Path, written: bool) -> Option<String> {
    let shown = directory.display();
    if directory.exists() {
        if !directory.is_dir() {
            return Some(format!("{shown} is not a directory"));
        }
        let help = "as the service does it, the check is `sudo -u weir weir check`";
        return (!may_write(directory)).then(|| format!("this user may not write to {shown}: {help}"));
    }
    // That of a relative path is here.
    let there = |ancestor: &&Path| ancestor.as_os_str().is_empty() || ancestor.exists();
    let nearest = directory.ancestors().skip(1).find(there)?;
    let nearest = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
    let made = nearest.is_dir() && may_write(nearest);
    (written && !made).then(|| format!("{shown} is not there, and this user may not make it"))
}

/// Whether this user may make files there. A read-only file system is found out by this as well.
fn may_write(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    // SAFETY: the path ends with a zero, and the call writes nowhere.
    #[expect(unsafe_code, reason = "no safe wrapper of access is in the tree")]
    let code = unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) };
    code == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_there_or_can_be_made_will_do_and_a_file_will_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unusable(dir.path(), true), None);
        assert_eq!(unusable(&dir.path().join("a/b"), true), None);
        assert_eq!(unusable(Path::new("no-such-directory"), true), None);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(unusable(&file, true).unwrap().ends_with("is not a directory"));
        assert!(unusable(&file.join("below"), true).unwrap().ends_with("may not make it"));
        assert_eq!(unusable(&file.join("below"), false), None, "what systemd makes");
    }
}

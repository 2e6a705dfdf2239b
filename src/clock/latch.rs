//! What is known of a boot's time, over restarts of the agent: the file `clock` in the runtime directory, which is
//! memory.
//!
//! Lines of a key and what it says, in this order, the last one ended too:
//!
//! ```text
//! boot 0f1e2d3c-…            the kernel's id of the boot that all this is about
//! era 5a17c0ffee5a17c0 -7    the era, and what to add to the machine's uptime to get its times, in milliseconds
//! trusted 1795422500000      since the clock is trusted: what to add to the era's times, in milliseconds
//! ```
//!
//! A file of another boot, or one that is not as a whole like this, is as none: what was stamped before it then stays
//! provisional, which is safe. It is written beside and renamed, so that nobody reads a half of it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{Era, Timestamp};

/// An era, and where its times lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reckoning {
    pub(super) era: Era,
    /// Its time at the machine's start.
    pub(super) base: i64,
}

impl Reckoning {
    /// A new era, in which it is `wall` now.
    pub(super) fn begin(wall: Timestamp, uptime: Duration) -> Self {
        Self { era: Era(fastrand::u64(..)), base: wall.0.saturating_sub(millis(uptime)) }
    }

    /// The era's time when the machine has been up for so long.
    pub(super) fn at(&self, uptime: Duration) -> Timestamp {
        Timestamp(self.base.saturating_add(millis(uptime)))
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What is known of a boot's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// How its provisional times are reckoned, where it has had any.
    pub(super) reckoning: Option<Reckoning>,
    /// Once the clock is trusted: what to add to them.
    pub(super) trusted: Option<i64>,
}

impl Known {
    fn to_text(self, boot: &str) -> String {
        let mut text = format!("boot {boot}\n");
        // Writing to a `String` cannot fail.
        if let Some(Reckoning { era: Era(era), base }) = self.reckoning {
            let _ = writeln!(text, "era {era:016x} {base}");
        }
        if let Some(by) = self.trusted {
            let _ = writeln!(text, "trusted {by}");
        }
        text
    }

    /// What `text` says, if it is a whole file and of that boot.
    fn from_text(text: &str, boot: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n').peekable();
        if lines.next()?.strip_prefix("boot ")? != boot {
            return None;
        }
        let mut known = Self::default();
        if let Some(rest) = lines.peek().and_then(|line| line.strip_prefix("era ")) {
            let (era, base) = rest.split_once(' ')?;
            let era = Era(u64::from_str_radix(era, 16).ok()?);
            known.reckoning = Some(Reckoning { era, base: base.parse().ok()? });
            lines.next();
        }
        if let Some(by) = lines.peek().and_then(|line| line.strip_prefix("trusted ")) {
            known.trusted = Some(by.parse().ok()?);
            lines.next();
        }
        lines.next().is_none().then_some(known)
    }
}

/// The file, and the boot that it is about.
#[derive(Debug)]
pub(super) struct Latch {
    file: PathBuf,
    boot: String,
}

impl Latch {
    pub(super) fn new(runtime_dir: &Path, boot: String) -> Self {
        Self { file: runtime_dir.join("clock"), boot }
    }

    /// What is noted; nothing where there is no file, or none of this boot that can be read.
    pub(super) fn read(&self) -> Known {
        let text = fs::read_to_string(&self.file).ok();
        text.and_then(|text| Known::from_text(&text, &self.boot)).unwrap_or_default()
    }

    /// Notes what is known. Where that fails it is said, with what follows from it.
    pub(super) fn write(&self, known: Known, so: &str) {
        let write = || -> io::Result<()> {
            if let Some(directory) = self.file.parent() {
                fs::create_dir_all(directory)?;
            }
            let fresh = self.file.with_extension("new");
            fs::write(&fresh, known.to_text(&self.boot))?;
            fs::rename(&fresh, &self.file)
        };
        if let Err(error) = write() {
            tracing::warn!(file = %self.file.display(), %error, "cannot note what is known of the clock: {so}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known() -> impl Strategy<Value = Known> {
        let reckoning = any::<(u64, i64)>().prop_map(|(era, base)| Reckoning { era: Era(era), base });
        (proptest::option::of(reckoning), any::<Option<i64>>())
            .prop_map(|(reckoning, trusted)| Known { reckoning, trusted })
    }

    proptest! {
        #[test]
        fn what_is_noted_is_read_back_whole_or_not_at_all(known in known(), cut in 0_usize..100, other in ".{1,20}") {
            let text = known.to_text("this-boot");
            prop_assert_eq!(Known::from_text(&text, "this-boot"), Some(known));
            prop_assert_eq!(Known::from_text(&text, "that-boot"), None);
            let half = text.get(..cut.min(text.len() - 1)).unwrap_or_default();
            // Cut at the end of a line it says less, and nothing wrong.
            if let Some(less) = Known::from_text(half, "this-boot") {
                prop_assert!(less.reckoning.is_none() || less.reckoning == known.reckoning);
                prop_assert!(less.trusted.is_none());
            }
            prop_assert_eq!(Known::from_text(&format!("{text}{other}"), "this-boot"), None);
        }

        #[test]
        fn garbage_is_as_no_file(text in "(boot this-boot\n)?(era )?.{0,40}\n?", bytes in any::<Vec<u8>>()) {
            let known = Known::from_text(&text, "this-boot").unwrap_or_default();
            prop_assert!(known == Known::default() || text.starts_with(&known.to_text("this-boot")[..15]));
            let runtime = tempfile::tempdir().unwrap();
            let latch = Latch::new(runtime.path(), "this-boot".into());
            fs::write(&latch.file, bytes).unwrap();
            prop_assert_eq!(latch.read(), Known::default());
        }
    }

    #[test]
    fn a_runtime_directory_that_cannot_be_written_is_no_obstacle() {
        let runtime = tempfile::tempdir().unwrap();
        let file = runtime.path().join("file");
        fs::write(&file, "").unwrap();
        let latch = Latch::new(&file, "this-boot".into());
        latch.write(Known { trusted: Some(0), ..Known::default() }, "the test says so");
        assert_eq!(latch.read(), Known::default());
    }
}

//! Looking for new certificates, without I/O but for the look itself.
//!
//! Looked at is what the paths lead to, through whatever links: so files that are written in place, renamed into place
//! or swapped behind a link all show, on any file system. A watch by the kernel (inotify) would have to follow every
//! link and folder on the way, and hears nothing of a network's file system; three stats every few seconds cost less
//! than that is worth.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::Config;

/// How long the files must have looked the same before they are read: whoever writes them may not have done.
pub(super) const MOMENT: Duration = Duration::from_secs(1);

/// How long what is wrong with new files may come of their being half written: the certificate is there already and
/// the key is not.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the three files looked: which they were, how long, and when they were last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen([Option<[i128; 5]>; 3]);

impl Seen {
    /// How these files look now.
    pub(super) fn of(files: [Option<&Path>; 3]) -> Self {
        let one = |path: &Path| {
            let it = fs::metadata(path).ok()?;
            let nanoseconds =
                |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
            Some([
                it.dev().into(),
                it.ino().into(),
                it.size().into(),
                nanoseconds(it.mtime(), it.mtime_nsec()),
                // Of a file that may be read now, or was put back with its old date.
                nanoseconds(it.ctime(), it.ctime_nsec()),
            ])
        };
        Self(files.map(|file| file.and_then(one)))
    }
}

impl Config {
    /// How the files look now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen::of([Some(&self.ca), Some(&self.cert), Some(&self.key)])
    }
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// They are changing: look again in a moment.
    Changing,
    /// They have changed and have been still for a moment. `fresh` where what is wrong with them may right itself.
    Changed {
        /// Whether the change is so recent.
        fresh: bool,
    },
}

impl Look {
    /// When to look again. `every` is how often one looks where nothing happens.
    #[must_use]
    pub fn again_in(self, every: Duration) -> Duration {
        if self == Self::Same { every } else { MOMENT }
    }
}

/// The looks so far, as far as they matter.
#[derive(Debug)]
pub struct Looks {
    /// How they looked when they were last dealt with.
    settled: Option<Seen>,
    /// How they look now, and since when, on the monotonic clock; `None` where somebody says that they are done.
    changing: Option<(Seen, Option<Duration>)>,
}

impl Looks {
    /// Looks for a change from `settled`.
    #[must_use]
    pub fn new(settled: Seen) -> Self {
        Self { settled: Some(settled), changing: None }
    }

    /// The files look like this, at `now` on the monotonic clock.
    pub fn look(&mut self, seen: Seen, now: Duration) -> Look {
        if self.settled.as_ref() == Some(&seen) {
            self.changing = None;
            return Look::Same;
        }
        match &self.changing {
            Some((before, since)) if *before == seen => {
                let still = since.map_or(Duration::MAX, |since| now.saturating_sub(since));
                if still < MOMENT { Look::Changing } else { Look::Changed { fresh: still < PATIENCE } }
            }
            _ => {
                self.changing = Some((seen, Some(now)));
                Look::Changing
            }
        }
    }

    /// What had changed has been dealt with.
    pub fn settle(&mut self) {
        if let Some((seen, _)) = self.changing.take() {
            self.settled = Some(seen);
        }
    }

    /// Somebody says that the files are as they should be: the next look finds them changed, however they look.
    pub fn insist(&mut self, seen: Seen) {
        self.settled = None;
        self.changing = Some((seen, None));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn seen(number: i128) -> Seen {
        Seen([Some([number; 5]), None, None])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(100 + seconds)
    }

    #[test]
    fn files_are_read_once_they_have_been_still_for_a_moment() {
        let mut looks = Looks::new(seen(0));
        assert_eq!(looks.look(seen(0), at(0)), Look::Same);
        assert_eq!(looks.look(seen(1), at(1)), Look::Changing);
        assert_eq!(looks.look(seen(2), at(2)), Look::Changing, "the key has followed");
        assert_eq!(looks.look(seen(2), at(3)), Look::Changed { fresh: true });
        looks.settle();
        assert_eq!(looks.look(seen(2), at(4)), Look::Same);
        assert_eq!(looks.look(seen(0), at(5)), Look::Changing, "back again");
    }

    #[test]
    fn what_is_wrong_with_new_files_is_waited_out_for_a_while_and_then_is_wrong() {
        let mut looks = Looks::new(seen(0));
        looks.look(seen(1), at(0));
        assert_eq!(looks.look(seen(1), at(9)), Look::Changed { fresh: true });
        assert_eq!(looks.look(seen(1), at(10)), Look::Changed { fresh: false });
        assert_eq!(looks.look(seen(2), at(11)), Look::Changing);
        assert_eq!(looks.look(seen(2), at(12)), Look::Changed { fresh: true });
    }

    #[test]
    fn a_change_that_is_taken_back_was_none() {
        let mut looks = Looks::new(seen(0));
        looks.look(seen(1), at(0));
        assert_eq!(looks.look(seen(0), at(1)), Look::Same);
        assert_eq!(looks.look(seen(1), at(2)), Look::Changing);
    }

    #[test]
    fn whoever_insists_has_the_same_files_dealt_with_again_at_once() {
        let mut looks = Looks::new(seen(0));
        looks.insist(seen(0));
        assert_eq!(looks.look(seen(0), Duration::ZERO), Look::Changed { fresh: false });
        looks.settle();
        assert_eq!(looks.look(seen(0), at(1)), Look::Same);
    }

    #[test]
    fn every_way_of_changing_a_file_shows() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["one", "two"] {
            fs::create_dir(at(folder)).unwrap();
            for name in ["ca.pem", "gw.pem", "gw.key"] {
                fs::write(at(folder).join(name), "old").unwrap();
            }
        }
        symlink("one", at("live")).unwrap();
        let path = |name: &str| at("live").join(name).display().to_string();
        let toml =
            format!("ca = '{}'\ncert = '{}'\nkey = '{}'", path("ca.pem"), path("gw.pem"), path("gw.key"));
        let config: Config = toml::from_str(&toml).unwrap();
        let mut before = config.seen();
        assert_eq!(config.seen(), before);
        let mut shows = |how: &str| {
            let now = config.seen();
            assert_ne!(now, before, "{how}");
            before = now;
        };
        fs::write(at("one/gw.pem"), "newer").unwrap();
        shows("written in place");
        fs::write(at("one/fresh"), "renewed").unwrap();
        fs::rename(at("one/fresh"), at("one/gw.key")).unwrap();
        shows("renamed into place");
        symlink("two", at("fresh")).unwrap();
        fs::rename(at("fresh"), at("live")).unwrap();
        shows("swapped behind a link");
        fs::remove_file(at("two/ca.pem")).unwrap();
        shows("removed");
    }
}

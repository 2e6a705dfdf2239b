//! Disks that fill up, run short or turn read-only under the real binary, and are well again later.
//!
//! They are file systems of the tests' own, so these tests need root, and say so where they have not got it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::pty::Pty;
use crate::support::site::{Site, data, gaps};

/// How long a fault lasts.
const LASTING: Duration = Duration::from_secs(20);

/// Runs a command that must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run `{program}`: {error}: install it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`{program} {}` failed: {said}(file systems of their own are for root: run the tests as root)",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A file system of the test's own, unmounted with this handle.
struct Card {
    at: PathBuf,
    /// Its loop device, where it has one.
    device: Option<String>,
}

impl Card {
    /// In memory, of so many MiB, over the gateway's directory.
    fn memory(at: &Path, mib: u32) -> Self {
        let size = format!("size={mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "weir-test", at.to_str().unwrap()]);
        Self { at: at.to_owned(), device: None }
    }

    /// An ext4 in a file, which turns read-only at an error, as a card's does.
    fn ext4(at: &Path, image: &Path) -> Self {
        File::create(image).unwrap().set_len(32 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-O", "^has_journal", image.to_str().unwrap()]);
        let device = run("losetup", &["--find", "--show", image.to_str().unwrap()]);
        let card = Self { at: at.to_owned(), device: Some(device) };
        card.mount();
        card
    }

    fn mount(&self) {
        let device = self.device.as_ref().unwrap();
        run("mount", &["-o", "errors=remount-ro", device, self.at.to_str().unwrap()]);
    }

    /// Has the kernel meet an error in it.
    fn fail(&self) {
        let name = Path::new(self.device.as_ref().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    }

    /// Looks it over and mounts it anew; nobody may have a file of it open.
    fn repair(&self) {
        run("umount", &[self.at.to_str().unwrap()]);
        // Its code says that it has repaired something.
        let _ = Command::new("e2fsck").args(["-p", "-f"]).arg(self.device.as_ref().unwrap()).output();
        self.mount();
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0x5A; 4096]).is_ok() {}
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn remount(&self, mode: &str) {
        run("mount", &["-o", &format!("remount,{mode}"), self.at.to_str().unwrap()]);
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["--detach", device]).output();
        }
    }
}

/// A gateway whose state lies on a card, and a device that counts.
struct Field {
    // Ended in this order: the agent lets go of the card before it is unmounted.
    site: Site,
    card: Card,
    pty: Pty,
    next: u64,
}

impl Field {
    fn new(card: impl FnOnce(&Path) -> Card, buffer: &str) -> Self {
        let pty = Pty::open().unwrap();
        let rest = format!(
            "[sources.line]\ntype = 'serial'\nport = '{}'\ndecode = {{ type = 'json' }}\n\n[buffer]\n\
             durability = 'always'\n{buffer}\n",
            pty.port().display()
        );
        let site = Site::new(&rest);
        let card = card(&site.dir().join("gateway"));
        site.agent.configure(&rest, "").unwrap();
        // What the kernel still has in memory is gone with a file system that fails.
        run("sync", &["-f", site.dir().join("gateway/weir.toml").to_str().unwrap()]);
        Self { site, card, pty, next: 0 }
    }

    /// Counts for a while, a hundred in a second.
    fn count_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            writeln!(self.pty, "{{\"n\":{}}}", self.next).unwrap();
            self.next += 1;
            thread::sleep(Duration::from_millis(10));
        }
        self.pty.wait_until_read().unwrap();
    }

    /// Waits until the last number has arrived, and says what became of all.
    fn verdict(&self, what: &str) -> Verdict {
        let last = self.next - 1;
        let arrived = self.site.data("the last number has arrived", |messages| {
            messages.iter().any(|message| n(message) == last)
        });
        let verdict = Verdict::of(self.next, &arrived);
        let Verdict { lost, repeated, reordered } = &verdict;
        println!(
            "{what}: {} sent, lost {}, repeated {repeated}, reordered {reordered}",
            self.next,
            lost.len()
        );
        verdict
    }

    /// Kills the agent with all it has on the disk, ends the outage, and holds that everything arrives in order.
    fn loses_nothing_by_a_kill(&mut self, what: &str) {
        // What came last is on the disk within a second and one commit.
        thread::sleep(Duration::from_secs(4));
        self.site.agent.kill().unwrap();
        self.site.broker.restart().unwrap();
        self.site.agent.start_until("open").unwrap();
        self.count_for(Duration::from_secs(1));
        let verdict = self.verdict(what);
        assert!(verdict.lost.is_empty() && verdict.reordered == 0, "{:?}", verdict.lost);
        assert!(self.site.agent.terminate().unwrap().success());
    }
}

fn n(message: &Value) -> u64 {
    message["metrics"]["n"]["value"].as_u64().unwrap()
}

/// What became of the numbers.
struct Verdict {
    lost: BTreeSet<u64>,
    /// Messages whose id had arrived before.
    repeated: usize,
    /// First deliveries before which a later number had arrived.
    reordered: usize,
}

impl Verdict {
    fn of(sent: u64, arrived: &[Value]) -> Self {
        let (mut by_id, mut repeated, mut reordered, mut latest) = (BTreeMap::new(), 0, 0, None);
        for message in arrived {
            let number = n(message);
            if let Some(before) = by_id.insert(message["id"].to_string(), number) {
                assert_eq!(before, number, "one id for two messages");
                repeated += 1;
                continue;
            }
            reordered += usize::from(latest > Some(number));
            latest = latest.max(Some(number));
        }
        let numbers: BTreeSet<u64> = by_id.values().copied().collect();
        assert_eq!(numbers.len(), by_id.len(), "two ids for one message");
        Self { lost: (0..sent).filter(|number| !numbers.contains(number)).collect(), repeated, reordered }
    }
}

/// The offline agent goes on in memory while the disk is full, returns to it, and a SIGKILL then takes nothing.
#[test]
fn g8_a_disk_that_is_full_for_a_while_costs_nothing() {
    let buffer = "max_bytes = '64MiB'\nmin_free = '0B'";
    let mut field = Field::new(|at| Card::memory(at, 6), buffer);
    field.site.agent.start_until("open").unwrap();
    field.count_for(Duration::from_secs(1));
    field.site.broker.stop().unwrap();
    field.count_for(Duration::from_secs(3));
    field.card.fill();
    field.count_for(LASTING);
    field.site.agent.wait_for("the buffer is in memory only").unwrap();
    let full = field.site.agent.log().iter().filter(|line| line.contains("the disk is full")).count();
    assert_eq!(full, 1, "said, and said once");
    field.card.free();
    field.count_for(Duration::from_secs(2));
    field.site.agent.wait_for("the buffer is on the disk again").unwrap();
    field.loses_nothing_by_a_kill("full disk");
}

/// What has to go while the card is short is told by number.
#[test]
fn g6_while_less_than_min_free_is_free_the_buffer_does_not_grow_and_tells_what_it_loses() {
    // The log's part of `max_bytes` is kept free as well: 4 MiB.
    let buffer = "max_bytes = '16MiB'\nmin_free = '8MiB'";
    let mut field = Field::new(|at| Card::memory(at, 16), buffer);
    field.site.broker.stop().unwrap();
    field.site.agent.start_until("open").unwrap();
    field.count_for(Duration::from_secs(4));
    thread::sleep(Duration::from_secs(2));
    fs::write(field.card.ballast(), vec![0x5A; 5 << 20]).unwrap();
    field.count_for(Duration::from_secs(2));
    field.site.agent.wait_for("less than `min_free` is free").unwrap();
    let database = field.site.dir().join("gateway/outbox.db");
    let before = fs::metadata(&database).unwrap().len();
    field.count_for(LASTING);
    let grown = fs::metadata(&database).unwrap().len().saturating_sub(before);
    // The ledger and what stood in the log already.
    assert!(grown <= 256 << 10, "it has grown by {grown}");
    field.card.free();
    field.count_for(Duration::from_secs(3));
    field.site.agent.wait_for("the buffer may grow").unwrap();
    field.site.broker.restart().unwrap();
    field.count_for(Duration::from_secs(1));
    let verdict = field.verdict("little free");
    let lost = verdict.lost.len() as u64;
    let told = |gaps: &[Value]| -> u64 { gaps.iter().filter_map(|gap| gap["messages"].as_u64()).sum() };
    let gaps = field.site.gaps("all losses are told", |gaps| told(gaps) >= lost);
    assert_eq!(told(&gaps), lost, "{gaps:?}");
    assert_eq!((verdict.repeated, verdict.reordered), (0, 0));
    assert!(field.site.agent.terminate().unwrap().success());
}

/// A card that is read-only at the start is waited for. The backlog on it comes first when it can be written again.
#[test]
fn g8_a_card_that_is_read_only_at_the_start_is_used_once_it_can_be_written() {
    let mut field = Field::new(|at| Card::memory(at, 16), "max_bytes = '4MiB'\nmin_free = '0B'");
    field.site.broker.stop().unwrap();
    field.site.agent.start_until("open").unwrap();
    field.count_for(Duration::from_secs(2));
    assert!(field.site.agent.terminate().unwrap().success());
    field.card.remount("ro");
    field.site.agent.start_until("the buffer is in memory only").unwrap();
    field.count_for(LASTING);
    let said = |text: &str| field.site.agent.log().iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("it is read-only: mount its file system writable"), 1, "{:?}", field.site.agent.log());
    field.card.remount("rw");
    field.site.agent.wait_for("the buffer has its file again").unwrap();
    field.loses_nothing_by_a_kill("read-only at the start");
}

/// A card whose file system turns read-only at an error, as the kernel has it, does not stop the stream. (Linux lets
/// nobody turn it back while a file of it is open for writing: that takes a stop and a repair.)
#[test]
fn g8_a_card_that_turns_read_only_under_the_agent_does_not_stop_the_stream() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let buffer = "max_bytes = '4MiB'\nmin_free = '0B'";
    let mut field = Field::new(|at| Card::ext4(at, image.path()), buffer);
    field.site.agent.start_until("open").unwrap();
    field.count_for(Duration::from_secs(1));
    field.site.broker.stop().unwrap();
    field.count_for(Duration::from_secs(3));
    field.card.fail();
    field.count_for(LASTING);
    field.site.agent.wait_for("the buffer is in memory only").unwrap();
    field.site.broker.restart().unwrap();
    field.count_for(Duration::from_secs(2));
    let verdict = field.verdict("read-only under way");
    assert!(verdict.lost.is_empty() && verdict.reordered == 0, "{:?}", verdict.lost);
    // What is acknowledged is still on the card: it comes again, under its old ids.
    let _ = field.site.agent.terminate().unwrap();
    field.card.repair();
    let dir = field.site.dir().join("gateway");
    assert!(dir.join("weir.toml").exists());
    field.site.agent.start_until("open").unwrap();
    field.count_for(Duration::from_secs(1));
    let verdict = field.verdict("and repaired");
    assert!(verdict.lost.is_empty() && verdict.reordered == 0, "{:?}", verdict.lost);
    let damaged =
        gaps(&field.site.subscriber.messages()).iter().filter(|gap| gap["cause"] == "damaged").count();
    assert_eq!(damaged, 0, "the file was whole");
    assert!(!data(&field.site.subscriber.messages()).is_empty());
    assert!(field.site.agent.terminate().unwrap().success());
}

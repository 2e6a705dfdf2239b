//! New certificates while the agent runs, good and bad, under load.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::serial_counter::{Account, Counter, account};
use super::support::agent::Agent;
use super::support::mosquitto::{Mosquitto, Subscriber};
use super::support::pki::{Authority, Files, Identity, Valid};
use super::support::site::data;

/// A gateway with a name of its own, so that the broker's log shows by the common name which certificate it came with.
struct Rotating {
    // Ended in this order.
    agent: Agent,
    subscriber: Subscriber,
    broker: Mosquitto,
    counter: Counter,
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Rotating {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("CA").unwrap();
        let server = authority.server(&["localhost"], Valid::Now).unwrap();
        let server = server.write(dir.path(), "server", &authority).unwrap();
        let broker = Mosquitto::start(dir.path(), &server, "use_identity_as_username true").unwrap();
        let watcher =
            authority.client("watcher", Valid::Now).unwrap().write(dir.path(), "watcher", &authority);
        let subscriber = broker.subscribe(&watcher.unwrap(), "watcher", "weir/#").unwrap();
        let mut counter = Counter::new();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir(at("first")).unwrap();
        authority.client("first", Valid::Now).unwrap().write(&at("first"), "gw", &authority).unwrap();
        symlink("first", at("live")).unwrap();
        let live = Files { ca: at("live/gw-ca.pem"), cert: at("live/gw.pem"), key: at("live/gw.key") };
        let mut agent = Agent::new(&at("gateway"), broker.port(), &live, &counter.source()).unwrap();
        let config = at("gateway/weir.toml");
        let text = fs::read_to_string(&config).unwrap().replace("[gateway]\n", "[gateway]\nid = 'gw-042'\n");
        fs::write(config, text).unwrap();
        agent.start_until("the client certificate in").unwrap();
        counter.start();
        let rotating = Self { agent, subscriber, broker, counter, authority, dir };
        rotating.connected_as("first", 1);
        rotating
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn client(&self, name: &str) -> Identity {
        self.authority.client(name, Valid::Now).unwrap()
    }

    /// Puts a certificate and a key in place at once, each by a rename.
    fn install(&self, identity: &Identity, trusted: &Authority) {
        let fresh = identity.write(self.dir.path(), "fresh", trusted).unwrap();
        fs::rename(fresh.cert, self.at("live/gw.pem")).unwrap();
        fs::rename(fresh.key, self.at("live/gw.key")).unwrap();
        fs::rename(fresh.ca, self.at("live/gw-ca.pem")).unwrap();
    }

    /// Waits until mosquitto has seen the gateway come under this common name so many times.
    fn connected_as(&self, name: &str, times: usize) {
        let told = format!("u'{name}')");
        for _ in 0..600 {
            if self
                .broker
                .log()
                .iter()
                .filter(|line| line.contains(" as gw-042 (") && line.contains(&told))
                .count()
                >= times
            {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("no connection as {name}; the agent's log:\n{}", self.agent.log().join("\n"));
    }

    fn said(&self, text: &str) -> usize {
        self.agent.log().iter().filter(|line| line.contains(text)).count()
    }

    /// Ends the device, waits for what it has written, and gives the account.
    fn account(&mut self) -> Account {
        let written = self.counter.end();
        let enough = |messages: &[_]| account(&data(messages), written).arrived >= written;
        let arrived = self.subscriber.wait("everything has arrived", enough).unwrap();
        let account = account(&data(&arrived), written);
        println!(
            "lost {}, repeated {}, reordered {} of {written}",
            account.lost, account.repeated, account.reordered
        );
        account
    }
}

#[test]
fn new_certificates_are_taken_up_under_load_however_they_are_installed_and_nothing_is_lost() {
    let mut site = Rotating::start();

    site.install(&site.client("renamed"), &site.authority);
    site.agent.hang_up().unwrap();
    site.connected_as("renamed", 1);

    // In place, the key long after the certificate, and nobody says so: the look at the connect falls before the two, and
    // that of ten seconds later between them.
    thread::sleep(Duration::from_secs(2));
    let written = site.client("written");
    fs::write(site.at("live/gw.pem"), &written.cert).unwrap();
    thread::sleep(Duration::from_secs(12));
    fs::write(site.at("live/gw.key"), &written.key).unwrap();
    site.connected_as("written", 1);

    fs::create_dir(site.at("second")).unwrap();
    site.client("linked").write(&site.at("second"), "gw", &site.authority).unwrap();
    symlink("second", site.at("fresh-link")).unwrap();
    fs::rename(site.at("fresh-link"), site.at("live")).unwrap();
    site.connected_as("linked", 1);

    // The same again in other files is no news.
    for name in ["gw.pem", "gw.key"] {
        let same = fs::read(site.at("live").join(name)).unwrap();
        fs::write(site.at("live").join(name), same).unwrap();
    }
    site.agent.hang_up().unwrap();
    thread::sleep(Duration::from_secs(5));

    let account = site.account();
    assert_eq!((account.lost, account.reordered), (0, 0), "{account:?}");
    assert_eq!(site.said("connecting anew: the broker takes the new certificate"), 3);
    assert_eq!(site.said("no connection") + site.said("ERROR"), 0, "{:#?}", site.agent.log());
    assert!(site.agent.terminate().unwrap().success());
}

#[test]
fn a_bad_certificate_is_told_of_once_with_what_to_do_and_the_old_one_goes_on() {
    let mut site = Rotating::start();
    let other = Authority::new("Another CA").unwrap();
    let bad = |count: usize, words: &str| {
        let told = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| line.contains("the new certificate is not used: ")).cloned().collect()
        };
        for _ in 0..600 {
            if told(&site.agent.log()).len() >= count {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let told = told(&site.agent.log());
        assert_eq!(told.len(), count, "{:#?}", site.agent.log());
        let last = told.last().unwrap();
        assert!(last.contains(words) && last.contains("weir goes on with the one that it has"), "{last}");
    };
    let reload = || site.agent.hang_up().unwrap();

    // Not waited for any longer where somebody says that it is to be read.
    fs::write(site.at("live/gw.pem"), &site.client("mismatched").cert).unwrap();
    reload();
    bad(1, "is not the key of the certificate in");

    site.install(&site.authority.client("expired", Valid::Past).unwrap(), &site.authority);
    reload();
    bad(2, "gw.pem expired on 2001-01-01T00:00:00Z: install a new one");

    site.install(&other.client("foreign", Valid::Now).unwrap(), &site.authority);
    reload();
    bad(3, "refused the client certificate");

    // Another CA for the broker is as bad.
    site.install(&site.client("distrustful"), &other);
    reload();
    bad(4, "is not signed by any authority in `tls.ca`");

    let open = site.client("open");
    site.install(&open, &site.authority);
    fs::set_permissions(site.at("live/gw.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    reload();
    bad(5, "gw.key is open to everyone on this machine (mode 0644)");

    // Told by nobody, found all the same, after a while for the other half to come.
    fs::write(site.at("live/gw.key"), "no key").unwrap();
    fs::set_permissions(site.at("live/gw.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    bad(6, "gw.key is not PEM");

    // A broker that comes back meanwhile gets the one that it knows.
    assert_eq!(site.said("connecting anew"), 0);
    site.broker.stop().unwrap();
    site.broker.restart().unwrap();
    site.connected_as("first", 1);

    site.install(&site.client("good"), &site.authority);
    site.connected_as("good", 1);
    assert_eq!(site.said("the new certificate is not used: "), 6, "{:#?}", site.agent.log());

    let account = site.account();
    assert_eq!((account.lost, account.reordered), (0, 0), "{account:?}");
    assert!(site.agent.terminate().unwrap().success());
}

#[test]
fn a_certificate_that_ends_soon_is_warned_of_once_in_each_run() {
    let mut site = Rotating::start();
    assert_eq!(site.said("install a new one"), 0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ending = site.authority.client("ending", Valid::Until(now + 5 * 86_400 + 3_600)).unwrap();
    site.install(&ending, &site.authority);
    site.agent.hang_up().unwrap();
    site.connected_as("ending", 1);
    let warned = |site: &Rotating| {
        let warning = "gw.pem expires on ";
        site.agent.wait_for(warning).unwrap();
        let log = site.agent.log();
        let warnings: Vec<_> = log.iter().filter(|line| line.contains(warning)).collect();
        assert_eq!(warnings.len(), 1, "{log:#?}");
        assert!(warnings[0].contains(" WARN ") && warnings[0].contains("days=5"), "{warnings:?}");
    };
    warned(&site);
    site.broker.stop().unwrap();
    site.broker.restart().unwrap();
    site.connected_as("ending", 1);
    warned(&site);
    site.agent.terminate().unwrap();
    site.agent.start().unwrap();
    site.connected_as("ending", 2);
    warned(&site);
}

//! How the buffer stands, for a person at the cabinet: what they ask first comes first.

use std::fmt::Write;
use std::time::Duration;

use crate::observe::buffer::{Buffer, DeadLetters, Settled, Standing, Uplink};
use crate::tls;
use crate::units::{self, Size};

/// A group of rows: its title, and what each says.
type Group = (&'static str, Vec<(String, String)>);

/// The answer as a person reads it. One of another version is shown as it came.
pub(super) fn show(line: &str) -> String {
    let Ok(standing) = serde_json::from_str::<Standing>(line) else { return format!("{line}\n") };
    let groups = [
        ("uplink", uplink(&standing.uplink, standing.now)),
        ("buffer", buffer(&standing.buffer)),
        ("since the start", settled(&standing.settled)),
        ("dead letters", dead_letters(&standing.dead_letters)),
    ];
    let mut shown = String::new();
    for (title, rows) in &groups as &[Group] {
        let gap = if shown.is_empty() { "" } else { "\n" };
        let _ = writeln!(shown, "{gap}{title}");
        for (name, says) in rows {
            let _ = writeln!(shown, "  {name:<18} {says}");
        }
    }
    shown
}

fn uplink(uplink: &Uplink, now: Option<i64>) -> Vec<(String, String)> {
    let Uplink { connected_for, broker, last_error, certificate_until, uses_certificate, connections, tries } =
        uplink;
    let connected = connected_for.map_or_else(|| "no".to_owned(), |age| format!("yes, for {}", seconds(age)));
    let error = match last_error {
        Some((text, age)) => format!("{} ago: {text}", seconds(*age)),
        None => "none".to_owned(),
    };
    let certificate = match (*certificate_until, now) {
        (Some(until), Some(now)) if until < now => format!("ended {}", tls::show(until)),
        (Some(until), Some(now)) => {
            let days = tls::days_left(until, tls::Now { unix: now, trusted: true });
            format!("{}, in {days} days", tls::show(until))
        }
        (Some(until), None) => format!("{} (the clock is not set)", tls::show(until)),
        (None, _) if !uses_certificate => "none is used".to_owned(),
        (None, _) => "there is none that can be read".to_owned(),
    };
    rows([
        ("connected", connected),
        ("broker", broker.clone().unwrap_or_else(|| "none yet".to_owned())),
        ("last error", error),
        ("certificate ends", certificate),
        ("connections", format!("{connections}, in {tries} tries")),
    ])
}

fn buffer(buffer: &Buffer) -> Vec<(String, String)> {
    let Buffer { waiting, oldest, in_memory, on_disk, disk_bytes, disk_trouble, below_min_free, .. } = buffer;
    let max_age = seconds(buffer.max_age);
    let oldest = oldest.map_or_else(|| "none".to_owned(), |age| format!("for {}", seconds(age)));
    let free = if *below_min_free { "too little: the file does not grow" } else { "enough" };
    rows([
        ("waiting", waiting.to_string()),
        ("oldest waiting", format!("{oldest} (max_age {max_age})")),
        ("in memory", in_memory.to_string()),
        ("on disk", on_disk.to_string()),
        ("disk", disk_trouble.clone().unwrap_or_else(|| "ok".to_owned())),
        ("disk used", format!("{} (max_bytes {})", units::about(*disk_bytes), Size(buffer.max_bytes))),
        ("disk free", format!("{free} (min_free {})", Size(buffer.min_free))),
        ("when full", buffer.when_full.clone()),
    ])
}

fn settled(settled: &Settled) -> Vec<(String, String)> {
    let Settled { acknowledged, lost, salvaged, gaps_to_tell } = settled;
    let mut all = rows([("acknowledged", acknowledged.to_string())]);
    all.extend(lost.iter().map(|(cause, count)| (format!("lost, {cause}"), count.to_string())));
    all.extend(rows([("salvaged", salvaged.to_string()), ("gaps to tell", gaps_to_tell.to_string())]));
    all
}

fn dead_letters(letters: &DeadLetters) -> Vec<(String, String)> {
    let DeadLetters { kept, dropped, refused_again, lost_again } = letters;
    rows([
        ("kept", kept.to_string()),
        ("dropped", dropped.to_string()),
        ("refused again", format!("{refused_again} (no new losses)")),
        ("otherwise lost", format!("{lost_again} once sent again (no new losses)")),
    ])
}

fn rows<const N: usize>(rows: [(&str, String); N]) -> Vec<(String, String)> {
    rows.into_iter().map(|(name, says)| (name.to_owned(), says)).collect()
}

fn seconds(seconds: impl std::borrow::Borrow<u64>) -> String {
    units::show(Duration::from_secs(*seconds.borrow())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            now: Some(1_795_422_500),
            uplink: Uplink {
                connected_for: Some(723),
                broker: Some("mqtts://broker.example.com:8883".into()),
                last_error: Some(("nothing listens there".into(), 800)),
                certificate_until: Some(1_795_422_500 + 86_400 * 36),
                uses_certificate: true,
                connections: 2,
                tries: 5,
            },
            buffer: Buffer {
                waiting: 300,
                oldest: Some(3_900),
                in_memory: 12,
                on_disk: 288,
                disk_bytes: 1_300_000,
                disk_trouble: None,
                below_min_free: false,
                max_bytes: 256 << 20,
                max_age: 7 * 86_400,
                min_free: 64 << 20,
                when_full: "drop_oldest".into(),
            },
            settled: Settled {
                acknowledged: 5,
                lost: vec![("evicted".into(), 0), ("too large".into(), 1)],
                salvaged: 0,
                gaps_to_tell: 1,
            },
            dead_letters: DeadLetters { kept: 1, dropped: 0, refused_again: 6, lost_again: 2 },
        }
    }

    const SHOWN: &str = "\
uplink
  connected          yes, for 12m 3s
  broker             mqtts://broker.example.com:8883
  last error         13m 20s ago: nothing listens there
  certificate ends   2026-12-29T08:28:20Z, in 36 days
  connections        2, in 5 tries

buffer
  waiting            300
  oldest waiting     for 1h 5m (max_age 7days)
  in memory          12
  on disk            288
  disk               ok
  disk used          1.2MiB (max_bytes 256MiB)
  disk free          enough (min_free 64MiB)
  when full          drop_oldest

since the start
  acknowledged       5
  lost, evicted      0
  lost, too large    1
  salvaged           0
  gaps to tell       1

dead letters
  kept               1
  dropped            0
  refused again      6 (no new losses)
  otherwise lost     2 once sent again (no new losses)
";

    fn shown(standing: &Standing) -> String {
        show(&serde_json::to_string(standing).unwrap())
    }

    #[test]
    fn the_limits_stand_beside_the_values_and_the_uplink_comes_first() {
        assert_eq!(shown(&standing()), SHOWN);
    }

    #[test]
    fn what_is_not_known_or_not_well_is_said_in_words() {
        let mut standing = standing();
        standing.uplink.certificate_until = Some(1_795_422_499);
        (standing.uplink.connected_for, standing.uplink.broker) = (None, None);
        standing.buffer.below_min_free = true;
        let text = shown(&standing);
        assert!(
            text.contains("connected          no\n") && text.contains("broker             none yet\n"),
            "{text}"
        );
        assert!(text.contains("certificate ends   ended 2026-11-23T"), "{text}");
        assert!(text.contains("too little"), "{text}");
        standing.now = None;
        assert!(shown(&standing).contains("(the clock is not set)"));
        standing.uplink.certificate_until = None;
        assert!(shown(&standing).contains("certificate ends   there is none that can be read\n"));
        standing.uplink.uses_certificate = false;
        assert!(shown(&standing).contains("certificate ends   none is used\n"));
    }

    #[test]
    fn the_answer_of_another_version_is_shown_as_it_came() {
        assert_eq!(show(r#"{"waiting":3}"#), "{\"waiting\":3}\n");
    }
}

//! What was measured, held against what arrived.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::screen::{Screen, Style};
use super::support::broker::Seen;

/// Readings by series, `device/metric`.
pub(super) type Written = BTreeMap<String, u64>;

/// What arrived at the broker, as one takes it who drops repeated ids.
#[derive(Default)]
pub(super) struct Received {
    readings: BTreeMap<String, u64>,
    ids: HashSet<String>,
    repeated: usize,
    /// Messages that came after a later one.
    overtaken: usize,
    /// The greatest sequence of an id so far, and the latest time of each series.
    latest: BTreeMap<String, u64>,
}

impl Received {
    pub(super) fn of(seen: &[Seen]) -> Self {
        let mut received = Self::default();
        for seen in seen {
            match seen {
                Seen::Received(publish) if publish.topic.starts_with("weir/demo/data/") => {
                    received.take(&super::json(publish));
                }
                _ => {}
            }
        }
        received
    }

    fn take(&mut self, message: &Value) {
        let id = message["id"].as_str().unwrap_or_default();
        if !self.ids.insert(id.to_owned()) {
            self.repeated += 1;
            return;
        }
        let sequence = id.rsplit('-').next().and_then(|sequence| sequence.parse().ok()).unwrap_or(0);
        let mut in_order = self.comes_next("all", sequence);
        let device = message["device"].as_str().unwrap_or_default();
        let time = message.get("start").unwrap_or(&message["time"]).as_u64().unwrap_or(0);
        for (metric, fields) in message["metrics"].as_object().into_iter().flatten() {
            let series = format!("{device}/{metric}");
            in_order &= self.comes_next(&series, time);
            // A window says how many it has seen; what passed as it is, is one.
            *self.readings.entry(series).or_default() += fields["count"].as_u64().unwrap_or(1);
        }
        self.overtaken += usize::from(!in_order);
    }

    fn comes_next(&mut self, what: &str, place: u64) -> bool {
        let latest = self.latest.entry(what.to_owned()).or_default();
        let in_order = *latest < place;
        *latest = place.max(*latest);
        in_order
    }

    pub(super) fn readings(&self) -> u64 {
        self.readings.values().sum()
    }
}

/// Shows the account; tells whether all is well.
pub(super) fn settle(written: &Written, seen: &[Seen], screen: &Screen) -> bool {
    let Received { readings, ids, repeated, overtaken, .. } = Received::of(seen);
    screen.act("The account", "What the devices measured, and what the broker got, without repeated ids:\n");
    screen.line(Style::Quiet, &format!("    {:<20}{:>9}{:>9}", "readings of", "measured", "arrived"));
    let (mut lost, mut surplus) = (0, readings.values().sum::<u64>());
    for (series, &written) in written {
        let arrived = readings.get(series).copied().unwrap_or(0);
        lost += written.saturating_sub(arrived);
        surplus -= written.min(arrived);
        screen.line(Style::Plain, &format!("    {series:<20}{written:>9}{arrived:>9}"));
    }
    let all_is_well = lost == 0 && surplus == 0 && overtaken == 0;
    let summary = match (surplus, overtaken) {
        (0, 0) => format!("{} messages, each after the one before it", ids.len()),
        (0, _) => format!("of {} messages {overtaken} came after a later one", ids.len()),
        (_, _) => format!("{surplus} readings more than were measured, {overtaken} messages out of order"),
    };
    screen.line(if all_is_well { Style::Good } else { Style::Bad }, &format!("\n{summary}"));
    screen.line(Style::Plain, &format!("lost {lost}, repeated {repeated}"));
    all_is_well
}

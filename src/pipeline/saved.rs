//! Open windows over a restart: saved on a graceful stop, and at the next start resumed or sent as partial.
//!
//! Each group is saved twice: as it is, to go on with, and as the messages to send should it not be able to go on. What
//! a device has told the time of goes on in the same boot or with a trusted clock. What was cut by arrival goes on where
//! the times of arrival do: by a trusted clock that has not gone back, or in the same era. And a window goes on only if
//! the file still has it, and cuts it alike.
//!
//! With them is saved which series are waited for, as their sources have `stale_after`: a sensor that dies while weir is
//! updated is told as well.

use minicbor::{Decode, Encode};

use super::device::{Told, Windows};
use super::series::{SeriesTable, Source};
use super::staleness::SavedHeard;
use crate::model::{Body, Era, Message, Stamp, Timestamp};
use crate::window::{Group, Owner, Sent};

#[derive(Encode, Decode)]
struct Saved<G> {
    /// The kernel's id of the boot in which it was saved.
    #[n(0)]
    boot: Option<String>,
    #[n(1)]
    groups: Vec<SavedGroup<G>>,
    /// The era of the times of arrival, where they are provisional.
    #[n(2)]
    era: Option<Era>,
    /// The last time of arrival.
    #[n(3)]
    at: Option<Timestamp>,
    /// What was sent by arrival, should time go back.
    #[n(4)]
    sent: Option<Sent>,
    /// The series that are waited for.
    #[n(5)]
    heard: Option<Vec<SavedHeard>>,
}

#[derive(Encode, Decode)]
struct SavedGroup<G> {
    #[n(0)]
    source: String,
    #[n(1)]
    device: String,
    /// The name of the `[[windows]]` entry.
    #[n(2)]
    window: String,
    #[n(3)]
    told: Told,
    #[n(4)]
    watermark: Option<Timestamp>,
    #[n(5)]
    group: G,
    #[n(6)]
    otherwise: Vec<Message>,
}

impl SeriesTable {
    /// The open windows, as bytes for [`SeriesTable::resume`], and what was sent by arrival; `None` where there is neither.
    #[must_use]
    pub fn save(&self, boot: Option<&str>) -> Option<Vec<u8>> {
        let groups = self.saved_groups(|group| !group.is_idle());
        let sent = self.sent();
        let is_empty = groups.is_empty() && sent.is_empty() && self.saved_heard().is_none();
        (!is_empty).then(|| self.saved(boot, groups, Some(sent)))
    }

    /// What was sent by arrival, of all series.
    fn sent(&self) -> Sent {
        let mut sent = self.terms.sent_before.clone();
        let devices = self.sources.iter().flat_map(|source| &source.devices);
        for windows in devices.flat_map(|device| &device.groups).filter(|w| w.told == Told::ByArrival) {
            sent.take_in(&windows.group.sent(&self.terms.rules.windows[windows.entry].shape));
        }
        sent
    }

    /// The windows, as bytes for [`SeriesTable::go_on`], and what was sent of those that are closed already: of as many
    /// groups as there may be series, so that it does not grow from one reload to the next.
    pub(super) fn handed_over(&self) -> Vec<u8> {
        let mut groups = self.saved_groups(|group| !group.is_idle());
        let open = groups.len();
        groups.extend(self.saved_groups(Group::is_idle));
        groups.truncate(self.terms.rules.max_series.max(open));
        self.saved(None, groups, None)
    }

    fn saved(&self, boot: Option<&str>, groups: Vec<SavedGroup<&Group>>, sent: Option<Sent>) -> Vec<u8> {
        let (boot, era) = (boot.map(str::to_owned), self.terms.era(Told::ByArrival));
        let (at, heard) = (Some(self.terms.line.last().wall), self.saved_heard());
        let saved = Saved { boot, groups, era, at, sent, heard };
        let mut bytes = Vec::new();
        let written = minicbor::encode(saved, &mut bytes);
        debug_assert!(written.is_ok(), "writing to memory cannot fail: {written:?}");
        bytes
    }

    fn saved_groups(&self, which: impl Fn(&Group) -> bool) -> Vec<SavedGroup<&Group>> {
        let mut groups = Vec::new();
        for source in &self.sources {
            for device in &source.devices {
                for Windows { entry, told, group } in device.groups.iter().filter(|w| which(&w.group)) {
                    let (entry, era) = (&self.terms.rules.windows[*entry], self.terms.era(*told));
                    let owner =
                        Owner { source: &source.name, device: &device.name, window: &entry.name, era };
                    groups.push(SavedGroup {
                        source: source.name.to_string(),
                        device: device.name.to_string(),
                        window: entry.name.to_string(),
                        told: *told,
                        watermark: match told {
                            Told::FromArrival => device.from_arrival,
                            Told::ByDevice | Told::ByArrival => device.watermark,
                        },
                        otherwise: group.summaries(&entry.shape, owner),
                        group,
                    });
                }
            }
        }
        groups
    }

    /// Goes on with the windows that [`SeriesTable::save`] gave, as far as they can; the others are added to `messages`
    /// as partial windows.
    ///
    /// # Errors
    /// Where the bytes are not what `save` gave.
    pub fn resume(
        &mut self,
        saved: &[u8],
        boot: Option<&str>,
        now: Stamp,
        messages: &mut Vec<Message>,
    ) -> Result<(), minicbor::decode::Error> {
        let saved: Saved<Group> = minicbor::decode(saved)?;
        let by_device = (boot.is_some() && saved.boot.as_deref() == boot) || now.synced;
        let goes_on = saved.at.is_none_or(|at| at <= now.wall);
        let by_arrival = by_device && saved.era == self.terms.era(Told::ByArrival) && goes_on;
        self.terms.sent_before = saved.sent.unwrap_or_default();
        for group in saved.groups {
            let in_time = if group.told == Told::ByDevice { by_device } else { by_arrival };
            if let Some(group) = self.resume_group(group, in_time, now) {
                messages.extend(group.otherwise);
            }
        }
        self.wait_again(saved.heard, now);
        Ok(())
    }

    /// Goes on with what [`SeriesTable::handed_over`] gave a moment ago.
    pub(super) fn go_on(
        &mut self,
        saved: &[u8],
        now: Stamp,
        messages: &mut Vec<Message>,
    ) -> Result<(), minicbor::decode::Error> {
        let saved: Saved<Group> = minicbor::decode(saved)?;
        for group in saved.groups {
            if let Some(group) = self.resume_group(group, true, now) {
                messages.extend(group.otherwise);
            }
        }
        self.wait_again(saved.heard, now);
        Ok(())
    }

    /// Puts a saved group in its place; gives it back where it cannot go on.
    fn resume_group(
        &mut self,
        saved: SavedGroup<Group>,
        in_time: bool,
        now: Stamp,
    ) -> Option<SavedGroup<Group>> {
        let Self { sources, terms } = self;
        let entry = terms.rules.windows.iter().position(|window| *window.name == saved.window);
        let (Some(entry), true) = (entry, in_time) else { return Some(saved) };
        let shape = &terms.rules.windows[entry].shape;
        let cut_alike = |message: &Message| match message.body {
            Body::Window { start, end, .. } => shape.end_of(start) == end,
            Body::Values { .. } => false,
        };
        if !saved.group.fits(shape) || !saved.otherwise.iter().all(cut_alike) {
            return Some(saved);
        }
        let source = Source::of(sources, &saved.source, &terms.rules);
        let windows = Windows { entry, told: saved.told, group: saved.group };
        let (told, deadline) = (windows.told, windows.deadline(shape, now.monotonic, now));
        let Some(place) = source.place(&saved.device, terms) else {
            return Some(SavedGroup { group: windows.group, ..saved });
        };
        let device = &mut source.devices[place];
        let watermark = device.watermark(told);
        *watermark = (*watermark).max(saved.watermark);
        device.heard = now.monotonic;
        device.groups.push(windows);
        if let Some(deadline) = deadline {
            terms.wake_by(deadline);
        }
        None
    }
}

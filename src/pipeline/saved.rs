//! Open windows over a restart: saved on a graceful stop, and at the next start resumed or sent as partial.
//!
//! Each group is saved twice: as it is, to go on with, and as the messages to send should it not be able to go on
//! (another boot without a trusted clock, a window that the file no longer has or cuts otherwise).

use minicbor::{Decode, Encode};

use super::device::{Told, Windows};
use super::series::{SeriesTable, Source};
use crate::model::{Body, Message, Stamp, Timestamp};
use crate::window::{Group, Owner};

#[derive(Encode, Decode)]
struct Saved<G> {
    /// The kernel's id of the boot in which it was saved.
    #[n(0)]
    boot: Option<String>,
    #[n(1)]
    groups: Vec<SavedGroup<G>>,
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
    /// The open windows, as bytes for [`SeriesTable::resume`]; `None` where none is open.
    #[must_use]
    pub fn save(&self, boot: Option<String>) -> Option<Vec<u8>> {
        let mut groups = Vec::new();
        for source in &self.sources {
            for device in &source.devices {
                for Windows { entry, told, group } in device.groups.iter().filter(|w| !w.group.is_idle()) {
                    let entry = &self.terms.rules.windows[*entry];
                    let owner = Owner { source: &source.name, device: &device.name, window: &entry.name };
                    groups.push(SavedGroup {
                        source: source.name.to_string(),
                        device: device.name.to_string(),
                        window: entry.name.to_string(),
                        told: *told,
                        watermark: device.watermark,
                        otherwise: group.summaries(&entry.shape, owner),
                        group,
                    });
                }
            }
        }
        if groups.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        let written = minicbor::encode(Saved { boot, groups }, &mut bytes);
        debug_assert!(written.is_ok(), "writing to memory cannot fail: {written:?}");
        Some(bytes)
    }

    /// Goes on with the windows that [`SeriesTable::save`] gave, in the same boot or with a trusted clock; what
    /// cannot go on is added to `messages` as partial windows.
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
        let in_time = |saved: Option<&str>| (boot.is_some() && saved == boot) || now.synced;
        self.go_on(saved, in_time, now, messages)
    }

    /// As [`SeriesTable::resume`], where the boot in which it was saved makes it `in_time`.
    pub(super) fn go_on(
        &mut self,
        saved: &[u8],
        in_time: impl FnOnce(Option<&str>) -> bool,
        now: Stamp,
        messages: &mut Vec<Message>,
    ) -> Result<(), minicbor::decode::Error> {
        let saved: Saved<Group> = minicbor::decode(saved)?;
        let in_time = in_time(saved.boot.as_deref());
        for group in saved.groups {
            if let Some(group) = self.resume_group(group, in_time, now) {
                messages.extend(group.otherwise);
            }
        }
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
        let source = Source::of(sources, &saved.source);
        let windows = Windows { entry, told: saved.told, group: saved.group };
        let deadline = windows.deadline(shape, now.monotonic, now);
        let Some(place) = source.place(&saved.device, terms) else {
            return Some(SavedGroup { group: windows.group, ..saved });
        };
        let device = &mut source.devices[place];
        device.watermark = device.watermark.max(saved.watermark);
        device.heard = now.monotonic;
        device.groups.push(windows);
        if let Some(deadline) = deadline {
            terms.wake_by(deadline);
        }
        None
    }
}

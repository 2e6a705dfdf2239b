//! Values that no window takes: those of one frame, device and time go together in one message.

use crate::model::{Body, Era, Message, Metric, Reading, Timestamp};

/// The most metrics in one message of values: a frame that has more goes as several.
pub(super) const TOGETHER_MAX: usize = 256;

/// The time of a reading that passes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) time: Timestamp,
    /// The era that it is of, where it is provisional.
    pub(super) era: Option<Era>,
    /// Whether it took the place of one too far ahead.
    pub(super) ahead: bool,
}

/// Puts the values of one frame, device and time that pass through into one message. A metric that the frame names
/// twice begins another, for a JSON object has one place for it.
#[derive(Default)]
pub(super) struct Passing {
    frame: u32,
    message: Option<Message>,
}

impl Passing {
    pub(super) fn add(
        &mut self,
        frame: u32,
        source: &str,
        reading: &Reading<'_>,
        Passed { time, era, ahead }: Passed,
        synced: bool,
        messages: &mut Vec<Message>,
    ) {
        let together = self.message.as_ref().is_some_and(|message| {
            self.frame == frame
                && *message.device == *reading.device
                && message.body == Body::Values { time }
                && message.era == era
                && message.metrics.len() < TOGETHER_MAX
                && message.metrics.iter().all(|metric| *metric.name != *reading.metric)
        });
        if !together {
            self.end(messages);
        }
        self.frame = frame;
        let message = self.message.get_or_insert_with(|| Message {
            source: source.into(),
            device: reading.device.into(),
            body: Body::Values { time },
            metrics: Vec::new(),
            readings: 0,
            synced,
            era,
            ahead: None,
            told: None,
            stale: None,
        });
        message.readings += 1;
        if ahead {
            message.ahead = Some(message.ahead.unwrap_or(0) + 1);
        }
        message.metrics.push(Metric {
            name: reading.metric.into(),
            unit: reading.unit.map(Into::into),
            fields: vec![(Metric::VALUE.into(), reading.value.to_owned())],
        });
    }

    pub(super) fn end(&mut self, messages: &mut Vec<Message>) {
        messages.extend(self.message.take());
    }
}

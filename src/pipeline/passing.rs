//! Values that no window takes: those of one frame, device and time go together in one message.

use crate::model::{Body, Message, Metric, Reading, Timestamp};

/// The most metrics in one message of values: a frame that has more goes as several.
const TOGETHER_MAX: usize = 256;

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
        time: Timestamp,
        synced: bool,
        messages: &mut Vec<Message>,
    ) {
        let together = self.message.as_ref().is_some_and(|message| {
            self.frame == frame
                && *message.device == *reading.device
                && message.body == Body::Values { time }
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
        });
        message.readings += 1;
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

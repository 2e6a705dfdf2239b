use super::{Stamp, Time, Value};

/// One value of one series at one time, as a source decoded it. Borrows from its [`Readings`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading<'a> {
    /// The device that measured it.
    pub device: &'a str,
    /// What was measured.
    pub metric: &'a str,
    /// What was read.
    pub value: Value<&'a str>,
    /// What the device told of the time, where it did; else it is that of the arrival.
    pub time: Option<Time>,
    /// The unit, where it is known.
    pub unit: Option<&'a str>,
}

/// The readings that one look at a source brought, in the order of their arrival, grouped by frame.
///
/// They lie in two buffers, however many there are, so that a reading costs no allocation of its own.
#[derive(Clone, Debug)]
pub struct Readings {
    /// When they arrived.
    pub arrival: Stamp,
    text: String,
    entries: Vec<Entry>,
    frame: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    device: Span,
    metric: Span,
    unit: Option<Span>,
    value: Value<Span>,
    time: Option<Time>,
    frame: u32,
}

/// A piece of `Readings::text`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    start: u32,
    end: u32,
}

impl Readings {
    /// At so many bytes one `Readings` [is full](Readings::is_full): enough to spread the cost of handing it on over a
    /// thousand readings and more, and little enough that several may wait.
    pub const FULL: usize = 128 << 10;

    /// An empty set of readings that arrived at `arrival`.
    #[must_use]
    pub fn new(arrival: Stamp) -> Self {
        Self { arrival, text: String::new(), entries: Vec::new(), frame: 0 }
    }

    /// Adds a reading to the current frame.
    pub fn push(&mut self, reading: Reading<'_>) {
        // One frame names its device again and again: keep it once.
        let device = match self.entries.last() {
            Some(last) if self.text(last.device) == reading.device => last.device,
            _ => self.keep(reading.device),
        };
        let unit = reading.unit.map(|unit| self.keep(unit));
        let metric = self.keep(reading.metric);
        let value = match reading.value {
            Value::Float(x) => Value::Float(x),
            Value::Int(x) => Value::Int(x),
            Value::Uint(x) => Value::Uint(x),
            Value::Bool(x) => Value::Bool(x),
            Value::Text(text) => Value::Text(self.keep(text)),
        };
        self.entries.push(Entry { device, metric, unit, value, time: reading.time, frame: self.frame });
    }

    /// Ends the current frame: what is pushed from now on belongs to the next.
    pub fn end_frame(&mut self) {
        if self.entries.last().is_some_and(|last| last.frame == self.frame) {
            self.frame += 1;
        }
    }

    /// The readings with the number of the frame that each came in, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Reading<'_>)> {
        self.entries.iter().map(|entry| {
            let value = match entry.value {
                Value::Float(x) => Value::Float(x),
                Value::Int(x) => Value::Int(x),
                Value::Uint(x) => Value::Uint(x),
                Value::Bool(x) => Value::Bool(x),
                Value::Text(span) => Value::Text(self.text(span)),
            };
            let reading = Reading {
                device: self.text(entry.device),
                metric: self.text(entry.metric),
                value,
                time: entry.time,
                unit: entry.unit.map(|unit| self.text(unit)),
            };
            (entry.frame, reading)
        })
    }

    /// How many readings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no reading.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether so much has gathered that the source should hand these on before it decodes more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.text.len() + self.entries.len() * size_of::<Entry>() >= Self::FULL
    }

    /// How much memory these take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn text(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a frame is far below 4 GiB, and is_full() bounds the rest"
    )]
    fn keep(&mut self, text: &str) -> Span {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        Span { start, end: self.text.len() as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Timestamp;
    use super::*;
    use std::time::Duration;

    fn reading<'a>(device: &'a str, metric: &'a str, value: Value<&'a str>) -> Reading<'a> {
        Reading { device, metric, value, time: None, unit: None }
    }

    #[test]
    fn what_is_pushed_comes_back_in_order_with_its_frame() {
        let arrival = Stamp { wall: Timestamp(5), monotonic: Duration::ZERO, synced: true };
        let mut readings = Readings::new(arrival);
        let first = Reading { unit: Some("Cel"), ..reading("boiler", "temperature", Value::Float(21.5)) };
        readings.push(first);
        readings.push(reading("boiler", "state", Value::Text("on")));
        readings.end_frame();
        readings.end_frame();
        readings.push(reading("pump", "rpm", Value::Int(1200)));

        let all: Vec<_> = readings.iter().collect();
        assert_eq!(all.len(), readings.len());
        assert_eq!(all[0], (0, first));
        assert_eq!(all[1], (0, reading("boiler", "state", Value::Text("on"))));
        assert_eq!(all[2], (1, reading("pump", "rpm", Value::Int(1200))));
    }

    #[test]
    fn they_are_full_before_they_take_much_memory_be_it_text_or_numbers() {
        let arrival = Stamp { wall: Timestamp(5), monotonic: Duration::ZERO, synced: true };
        let text = "x".repeat(4_000);
        for value in [Value::Int(1), Value::Text(&*text)] {
            let mut readings = Readings::new(arrival);
            while !readings.is_full() {
                readings.push(reading("d", "m", value));
            }
            assert!(readings.len() > 30, "{}", readings.len());
            assert!(readings.bytes() <= 3 * Readings::FULL, "{}", readings.bytes());
        }
    }
}

//! What waits in a buffer: the windows of many devices, as the agent makes them of what `site` writes.

use weir::model::{Body, Message, Metric, Timestamp, Value};

/// The window with this number, of one of so many devices, which close theirs together every ten seconds.
pub(crate) fn window(number: usize, devices: usize) -> Message {
    const START: i64 = 1_700_000_000_000;
    let (device, turn) = (number % devices, (number / devices) as i64);
    let lowest = 15.0 + (number * 31 % 100) as f64 / 100.0;
    let start = START + 10_000 * turn;
    let fields = [
        ("count", Value::Uint(100)),
        ("mean", Value::Float(lowest + (number * 7 % 997) as f64 / 199.0)),
        ("min", Value::Float(lowest)),
        ("max", Value::Float(lowest + 10.25)),
    ];
    Message {
        source: "line".into(),
        device: format!("device-{device:02}").into(),
        body: Body::Window {
            name: "windows-1".into(),
            start: Timestamp(start),
            end: Timestamp(start + 10_000),
            partial: false,
            late: 0,
        },
        metrics: vec![Metric {
            name: "temperature".into(),
            unit: None,
            fields: fields.map(|(name, value)| (name.into(), value)).into(),
        }],
        readings: 100,
        synced: true,
        era: None,
        ahead: None,
        told: None,
        stale: None,
    }
}

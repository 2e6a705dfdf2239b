//! What flows through weir: readings go in, messages and gap records come out.
//!
//! A leaf: it imports nothing of ours, does no I/O and never asks for the time.

mod gap;
mod message;
mod publication;
mod readings;
mod time;
mod value;

pub use gap::{Cause, Gap};
pub use message::{Body, Id, Message, Metric};
pub use publication::{Kind, Publication};
pub use readings::{Reading, Readings};
pub use time::{Era, Shift, Stamp, Time, Timestamp};
pub use value::Value;

/// The longest device or metric name, in bytes. Longer ones, and empty ones, are refused and counted.
pub const NAME_MAX: usize = 128;

/// Whether `name` may name a device or a metric: 1 to [`NAME_MAX`] bytes.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
}

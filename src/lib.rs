//! weir: a small gateway daemon. Sensors in, windows out, over mutual-TLS MQTT, with nothing lost silently.
//!
//! This page is the map; `ARCHITECTURE.md` tells the why. It holds no logic.

pub mod cli;
pub mod clock;
pub mod config;
pub mod encode;
pub mod filter;
pub mod model;
pub mod observe;
pub mod outbox;
pub mod pattern;
pub mod pipeline;
pub mod sources;
pub mod tally;
pub mod tls;
pub mod units;
pub mod uplink;
pub mod window;

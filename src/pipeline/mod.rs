//! Wiring.
mod saved;
pub mod series;

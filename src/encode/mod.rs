//! Payloads. This file is the contract; a file is a format. Synchronous, no I/O, no clock.

mod json;

use serde::Deserialize;

use crate::model::{Gap, Id, Message, Timestamp};

/// `format` of the uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The JSON that the README documents.
    #[default]
    Json,
}

/// Whether the gateway is there, as it is published and left as the will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it is there.
    pub online: bool,
    /// The epoch of this run.
    pub epoch: u64,
    /// The how-manieth connection of this run, from 1: an older status or will can be told by it.
    pub connection: u64,
    /// When this connection was begun.
    pub since: Timestamp,
}

impl Format {
    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
        }
    }

    /// Appends `message` to `payload`.
    pub fn message(self, id: Id, gateway: &str, message: &Message, payload: &mut Vec<u8>) {
        match self {
            Self::Json => json::message(id, gateway, message, payload),
        }
    }

    /// Appends `gap` to `payload`.
    pub fn gap(self, gateway: &str, gap: &Gap, payload: &mut Vec<u8>) {
        match self {
            Self::Json => json::gap(gateway, gap, payload),
        }
    }

    /// Appends `status` to `payload`.
    pub fn status(self, gateway: &str, status: &Status, payload: &mut Vec<u8>) {
        match self {
            Self::Json => json::status(gateway, status, payload),
        }
    }
}

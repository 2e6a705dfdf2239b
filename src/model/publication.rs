use super::Id;

/// What a [`Publication`] is: an uplink makes the topic, the path or the key of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data of one device.
    Data {
        /// The device's name as it is; escaping is the uplink's business.
        device: Box<str>,
    },
    /// A gap record.
    Gap,
    /// Whether the gateway is there. Retained, where the uplink knows such a thing.
    Status,
}

/// What `forward` hands to a session: encoded, and with the ids that its acknowledgement settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The messages or the gap in it; none for a status.
    pub ids: Vec<Id>,
    /// What it is.
    pub kind: Kind,
    /// The bytes to send.
    pub payload: Vec<u8>,
}

use std::time::Duration;

use crate::sources::port::Settings;

/// The silence that ends what has begun to come: long against what adapters and networks add, and no part of the
/// specification, so that a frame in two pieces is still one.
const PIECES_SERIAL: Duration = Duration::from_millis(50);
const PIECES_NETWORK: Duration = Duration::from_millis(200);

/// The times of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timing {
    /// How long one character takes.
    pub(super) character: Duration,
    /// The silence between frames.
    pub(super) silence: Duration,
    /// The silence after which what has come is complete.
    pub(super) pieces: Duration,
}

impl Timing {
    /// Where the network knows nothing of characters.
    pub(super) const NETWORK: Self =
        Self { character: Duration::ZERO, silence: Duration::ZERO, pieces: PIECES_NETWORK };

    pub(super) fn of(settings: &Settings) -> Self {
        let character = settings.character();
        // Serial Line V1.02, section 2.5.1.1: 3.5 characters, and above 19200 baud 1.75 ms.
        let silence = if settings.baud > 19_200 { Duration::from_micros(1_750) } else { character * 7 / 2 };
        Self { character, silence, pieces: PIECES_SERIAL.max(2 * silence) }
    }
}

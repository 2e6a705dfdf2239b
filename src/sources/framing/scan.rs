use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::{Config, Cut, Found, Place, Refused, Wrong};

/// A framing at work on one stream.
///
/// A frame that lies whole in one read, and needs no escape taken out, is given where it lies. Else it is put together
/// in a buffer that holds nothing while the stream rests between frames, and never more than twice `max_frame`.
#[derive(Debug)]
pub struct Framer {
    config: Arc<Config>,
    /// The beginning of a frame whose end has not come, from `start` on. What is before has been taken.
    held: Vec<u8>,
    start: usize,
    /// Whether all that is held was given out and is to be forgotten.
    given: bool,
    /// Whether what is held ends here: the line has been silent.
    ended: bool,
    place: Place,
    /// So many bytes to come belong to what was refused.
    refused: u64,
    /// How many bytes may be looked at again behind a wrong checksum.
    credit: u32,
    /// Whether somebody looks on, so that it is worth while to look for the checksum that would be right.
    explains: bool,
}

/// So much of the buffer is kept between frames: there may be ten thousand streams.
const KEEP: usize = 256;

/// At least so much is put behind an unfinished frame at once, where there is so much.
const PIECE: usize = 256;

/// What a stream may have looked at again for each byte, and saved up at most. Where a checksum is wrong, the search
/// goes on one byte further, and whoever sends lengths and wrong checksums on purpose could else make each byte cost a
/// whole `max_frame`. A line that was hurt lives on what it saved up, which is a frame of 255 bytes looked at from each
/// of its bytes dozens of times over; the rate only has to fill that up again between two hurts, and to be above what a
/// good frame costs, which is one look. So it is what a hostile line may cost: some few looks at all that it sends.
const CREDIT_PER_BYTE: u32 = 8;
const MAX_CREDIT: u32 = 1 << 20;

/// A frame, and where it is.
enum Given<'input> {
    Input(&'input [u8]),
    Held(Range<usize>),
}

impl Framer {
    /// For a new stream.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Self {
        Self {
            config: Arc::clone(config),
            held: Vec::new(),
            start: 0,
            given: false,
            ended: false,
            place: Place::default(),
            refused: 0,
            credit: MAX_CREDIT,
            explains: false,
        }
    }

    /// Whether a wrong checksum is to tell which other one would be right.
    pub fn explain(&mut self, explains: bool) {
        self.explains = explains;
    }

    /// Takes bytes off the front of `input` up to the end of the next frame, and gives that frame, or why what was
    /// taken is none. `None` once all of `input` is taken: an unfinished frame waits for the next read.
    pub fn next<'a, 'input: 'a>(&'a mut self, input: &mut &'input [u8]) -> Option<Result<&'a [u8], Refused>> {
        if mem::take(&mut self.given) {
            self.forget();
        }
        let mut lent = 0;
        let found = self.find(input, &mut lent);
        if !self.given {
            // What is input's is looked at where it lies.
            self.held.truncate(self.held.len() - lent);
        }
        Some(match found? {
            Ok(Given::Input(frame)) => Ok(frame),
            Ok(Given::Held(range)) => Ok(&self.held[range]),
            Err(refused) => Err(refused),
        })
    }

    /// Nothing has come for [`Config::idle_gap`]: a frame that has begun ends here, which for `silence` makes it one,
    /// and for the others means that it is cut off. [`Framer::next`] tells, also with nothing to read.
    pub fn silence(&mut self) {
        if mem::take(&mut self.given) {
            self.forget();
        }
        self.refused = 0;
        self.ended = !self.held.is_empty();
        if !self.ended {
            self.place = Place::default();
        }
    }

    /// How many bytes of an unfinished frame wait for the next read.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        if self.place.lost { 0 } else { self.waiting() }
    }

    /// How many bytes wait for the next read, whether they are an unfinished frame or what is looked at again.
    #[must_use]
    pub fn waiting(&self) -> usize {
        if self.given { 0 } else { self.held.len() - self.start }
    }

    /// The bytes that wait for the next read.
    #[must_use]
    pub fn open(&self) -> &[u8] {
        if self.given { &[] } else { self.held.get(self.start..).unwrap_or_default() }
    }

    /// How much memory the unfinished frame takes, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Whether the stream is between two frames, so that a silence means nothing.
    #[must_use]
    pub fn rests(&self) -> bool {
        (self.given || self.held.is_empty()) && !self.place.lost && self.refused == 0
    }

    /// `lent` is how many bytes at the end of what is held are still at the front of `input` as well.
    fn find<'input>(
        &mut self,
        input: &mut &'input [u8],
        lent: &mut usize,
    ) -> Option<Result<Given<'input>, Refused>> {
        loop {
            if self.refused > 0 {
                let come = usize::try_from(self.refused).unwrap_or(usize::MAX).min(input.len());
                *input = &input[come..];
                self.refused -= come as u64;
            }
            let direct = self.held.is_empty();
            let bytes = if direct { *input } else { &self.held[self.start..] };
            if bytes.is_empty() {
                return None;
            }
            match self.config.cut(bytes, &mut self.place) {
                Cut::Need(_) if direct => {
                    self.hold(input.len());
                    self.held.extend_from_slice(input);
                    *input = &[];
                    return None;
                }
                Cut::Need(_) if self.ended => {
                    if let Some(told) = self.end(input, lent) {
                        return Some(told);
                    }
                }
                Cut::Need(more) => {
                    let coming = input.get(*lent..).unwrap_or_default();
                    if coming.is_empty() {
                        *input = &[];
                        *lent = 0;
                        return None;
                    }
                    let piece = more.max(PIECE).min(coming.len());
                    self.hold(piece);
                    self.held.extend_from_slice(&coming[..piece]);
                    *lent += piece;
                }
                Cut::Skip(taken) => self.take(taken, input, lent),
                Cut::Noise(taken) => {
                    self.take(taken, input, lent);
                    return Some(Err(Refused::Noise(taken)));
                }
                Cut::Refuse(taken, why) => {
                    let come = usize::try_from(taken).unwrap_or(usize::MAX).min(bytes.len());
                    self.refused = taken - come as u64;
                    self.take(come, input, lent);
                    return Some(Err(why));
                }
                Cut::Frame(found) => {
                    if let Some(told) = self.found(found, input, lent) {
                        return Some(told);
                    }
                }
            }
        }
    }

    /// Judges a frame at the front, and takes it.
    fn found<'input>(
        &mut self,
        found: Found,
        input: &mut &'input [u8],
        lent: &mut usize,
    ) -> Option<Result<Given<'input>, Refused>> {
        let Found { taken, mut whole, mut body, escaped } = found;
        let mut direct = self.held.is_empty().then_some(*input);
        if escaped {
            if let Some(bytes) = direct.take() {
                // It is put to rights here, and input's own bytes are taken with those below.
                self.hold(taken);
                self.held.extend_from_slice(&bytes[..taken]);
                *lent = taken;
            }
            let escaped = whole.start + self.start..whole.end + self.start;
            match self.config.unescape(&mut self.held[escaped]) {
                Ok(length) => whole.end = whole.start + length,
                Err(why) => {
                    self.take(taken, input, lent);
                    return Some(Err(Refused::Damaged(why)));
                }
            }
            body = whole.clone();
        }
        let bytes = direct.unwrap_or(&self.held[self.start..]);
        let limit = super::bytes(self.config.common().max_frame);
        if body.len() > limit && whole.len() > limit {
            self.take(taken, input, lent);
            return Some(Err(Refused::TooLong { limit }));
        }
        if let Some(checksum) = self.config.common().checksum {
            let checked = &bytes[whole.clone()];
            if let Err(wrong) = checksum.check(checked) {
                let fits = if self.explains { checksum.fits(checked) } else { None };
                let wrong = wrong.map(|wrong| wrong.beside(fits));
                return Some(Err(self.mistrust(taken, whole.len(), wrong, input, lent)));
            }
            if body.end == whole.end {
                body.end = body.start.max(body.end - checksum.at_end());
            }
        }
        (self.place.lost, self.place.told) = (false, None);
        if body.is_empty() {
            self.take(taken, input, lent);
            return None;
        }
        Some(Ok(match direct {
            Some(bytes) => {
                self.take(taken, input, lent);
                Given::Input(&bytes[body])
            }
            None => {
                let at = body.start + self.start..body.end + self.start;
                self.give(taken, input, lent);
                Given::Held(at)
            }
        }))
    }

    /// A wrong checksum: the frame is passed over, or, where it was found by counting, its first byte.
    fn mistrust(
        &mut self,
        taken: usize,
        length: usize,
        wrong: Option<Wrong>,
        input: &mut &[u8],
        lent: &mut usize,
    ) -> Refused {
        if !self.config.slides() {
            self.take(taken, input, lent);
            return Refused::Checksum { length, wrong };
        }
        let cost = u32::try_from(length).unwrap_or(u32::MAX);
        let missing = cost.saturating_sub(self.credit).div_ceil(CREDIT_PER_BYTE) as usize;
        let passed = (1 + missing).min(taken);
        // What lies within a frame that was told already, or has no marks and is not where the next one would begin, is
        // more likely a part of that one than another.
        let is_another = match self.place.told {
            Some(left) => left == 0,
            None => self.config.has_marks(),
        };
        let is_told = !self.place.lost || is_another;
        self.place.lost = true;
        if is_told {
            self.place.told = Some(taken);
        }
        self.take(passed, input, lent);
        self.credit = self.credit.saturating_sub(cost);
        if is_told { Refused::Checksum { length, wrong } } else { Refused::Noise(passed) }
    }

    /// What becomes of an unfinished frame behind which the line fell silent.
    fn end<'input>(
        &mut self,
        input: &mut &'input [u8],
        lent: &mut usize,
    ) -> Option<Result<Given<'input>, Refused>> {
        let length = self.held.len() - self.start;
        if matches!(*self.config, Config::Silence(_)) {
            return self.found(Found::plain(length, 0..length), input, lent);
        }
        let told = self.place.lost;
        // A length that was hurt may have taken whole frames along; only a checksum tells those from others.
        let within =
            matches!(*self.config, Config::LengthPrefix(_)) && self.config.common().checksum.is_some();
        let passed = if within { 1 } else { length };
        self.place.lost = within;
        self.take(passed, input, lent);
        Some(Err(if told { Refused::Noise(passed) } else { Refused::CutOff(length) }))
    }

    /// Takes bytes off the front, and forgets them.
    fn take(&mut self, taken: usize, input: &mut &[u8], lent: &mut usize) {
        self.count(taken);
        if self.held.is_empty() {
            *input = &input[taken..];
            return;
        }
        self.start += taken;
        if self.hand_back(input, *lent) {
            *lent = 0;
            self.forget();
        }
    }

    /// Takes bytes off the front of what is held, but keeps them for whoever they are given to.
    fn give(&mut self, taken: usize, input: &mut &[u8], lent: &mut usize) {
        self.count(taken);
        self.start += taken;
        self.given = self.hand_back(input, *lent);
    }

    /// Whether all that is left is input's own, from where it then goes on.
    fn hand_back(&mut self, input: &mut &[u8], lent: usize) -> bool {
        let left = self.held.len() - self.start;
        if left > lent {
            return false;
        }
        *input = &input[lent - left..];
        true
    }

    fn count(&mut self, taken: usize) {
        self.place.seen = 0;
        self.place.told = self.place.told.and_then(|told| told.checked_sub(taken));
        let more = u32::try_from(taken).unwrap_or(u32::MAX).saturating_mul(CREDIT_PER_BYTE);
        self.credit = self.credit.saturating_add(more).min(MAX_CREDIT);
    }

    /// Makes room for so many bytes behind what is held.
    fn hold(&mut self, coming: usize) {
        let left = self.held.len() - self.start;
        // What has been taken goes once it is the greater part, so that each byte moves but once or twice.
        if self.start > 0 && self.start >= left {
            self.held.drain(..self.start);
            self.start = 0;
        }
        let wanted = self.held.len() + coming;
        if wanted > self.held.capacity() {
            let most = 2 * super::bytes(self.config.common().max_frame);
            let spare = self.held.len().min(most.saturating_sub(wanted));
            self.held.reserve_exact(coming + spare);
        }
    }

    fn forget(&mut self) {
        self.held.clear();
        self.held.shrink_to(KEEP);
        self.start = 0;
        if mem::take(&mut self.ended) {
            self.place = Place::default();
        }
    }
}

#[cfg(test)]
impl Framer {
    pub(super) fn capacity(&self) -> usize {
        self.held.capacity()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

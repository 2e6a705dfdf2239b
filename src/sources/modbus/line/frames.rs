//! An exchange in RTU frames: the answer is told by its unit, function, length and CRC from all that comes beside it.

use super::{BUFFER, Heard, Late, Line, Manner, Outcome, missing, take};
use crate::sources::SourceError;
use crate::sources::modbus::pdu::{Asked, EXCEPTION};
use crate::sources::modbus::timing::Timing;
use crate::sources::modbus::{mbap, rtu};

impl Line {
    /// An exchange in RTU frames.
    pub(super) async fn by_frame(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
        heard: &mut Heard,
    ) -> Result<Outcome, SourceError> {
        let Timing { character, pieces, silence } = self.timing();
        let request = rtu::request(asked);
        // Unit, function, length, values and CRC.
        let whole = 5 + asked.bytes();
        let on_the_line = character * (8 + u32::try_from(whole).unwrap_or(u32::MAX));
        let deadline = self.clock.monotonic() + manner.timeout + on_the_line;
        self.write(asked, &request, deadline).await?;
        let (mut damaged, mut unclear, mut other) = (false, false, None);
        loop {
            let pieces = if rtu::is_complete(&self.buffer, asked) { pieces / 8 } else { pieces };
            let until =
                if self.buffer.is_empty() { deadline } else { deadline.min(self.last + pieces.max(silence)) };
            // What has come by the deadline is looked at once more, however much follows it.
            let mut over = false;
            if self.read(until).await? {
                while let Some((before, answer)) = rtu::find(&self.buffer, asked) {
                    let behind = before + answer.frame();
                    let outcome = take(answer, values);
                    let rest = self.buffer.split_off(behind);
                    self.buffer.truncate(before);
                    self.pass_over(asked, heard);
                    self.buffer.extend_from_slice(&rest);
                    if manner.in_doubt && matches!(outcome, Outcome::Exception(_)) {
                        unclear = true;
                        continue;
                    }
                    self.pass_over(asked, heard);
                    if unclear {
                        // So that was the other's.
                        self.came_late(exception_to(asked), heard);
                    }
                    return Ok(outcome);
                }
                self.bound();
                over = self.babbles() || self.clock.monotonic() >= deadline;
                if !over {
                    continue;
                }
            }
            if !self.buffer.is_empty() {
                match self.pass_over(asked, heard) {
                    rtu::Stray::Echo | rtu::Stray::Frame(_) => {}
                    rtu::Stray::Other(unit) => other = Some(unit),
                    rtu::Stray::Noise => damaged = true,
                    rtu::Stray::Damaged => return Ok(Outcome::Damaged),
                }
            }
            if over || self.clock.monotonic() >= deadline {
                heard.may_come = true;
                let damaged = damaged || self.babbles();
                return Ok(if unclear { Outcome::Unclear } else { missing(other, damaged) });
            }
        }
    }

    /// Throws away what has come and is no answer. What it was; where there was more than one thing, what says most of
    /// the answer.
    pub(super) fn pass_over(&mut self, asked: &Asked, heard: &mut Heard) -> rtu::Stray {
        let bytes = std::mem::take(&mut self.buffer);
        let (mut stray, mut rest) = (rtu::Stray::Echo, bytes.as_slice());
        loop {
            let (first, behind) = rtu::stray(rest, asked);
            heard.is_mbap |= first == rtu::Stray::Noise && mbap::is_frame(rest);
            if let (rtu::Stray::Frame(unit) | rtu::Stray::Other(unit), [_, function, ..]) = (first, rest) {
                let length = rest.len() - behind.len();
                self.came_late(Late { unit, function: *function, bytes: length.saturating_sub(5) }, heard);
            }
            // Stray bytes behind a frame say nothing.
            if matches!(first, rtu::Stray::Damaged | rtu::Stray::Other(_)) || stray == rtu::Stray::Echo {
                stray = first;
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        self.buffer = bytes;
        self.buffer.clear();
        stray
    }

    fn came_late(&mut self, late: Late, heard: &mut Heard) {
        heard.late += 1;
        heard.late_unit = Some(late.unit);
        // As many as one buffer holds are enough: beyond, doubts stay until their time is over.
        if self.late.len() < BUFFER / 5 {
            self.late.push(late);
        }
    }
}

/// The exception to a request that looks like this one.
fn exception_to(asked: &Asked) -> Late {
    Late { unit: asked.unit, function: asked.table.function() | EXCEPTION, bytes: 0 }
}

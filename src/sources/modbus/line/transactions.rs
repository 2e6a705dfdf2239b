//! An exchange in Modbus TCP: the answer is told by its transaction.

use std::io;

use super::{Heard, Line, Manner, Outcome, missing, take, wire};
use crate::sources::SourceError;
use crate::sources::modbus::mbap;
use crate::sources::modbus::pdu::Asked;

/// What is so many transactions older nobody has asked for: there are devices that have but one id for all.
const LATEST: u16 = 1024;

impl Line {
    /// An exchange in Modbus TCP.
    pub(super) async fn by_transaction(
        &mut self,
        asked: &Asked,
        manner: Manner,
        values: &mut Vec<u8>,
        heard: &mut Heard,
    ) -> Result<Outcome, SourceError> {
        self.transaction = self.transaction.wrapping_add(1);
        let deadline = self.clock.monotonic() + manner.timeout;
        self.write(asked, &mbap::request(asked, self.transaction), deadline).await?;
        let (mut unfit, mut over, mut other) = (false, false, None);
        loop {
            match mbap::hear(&self.buffer, asked, self.transaction) {
                mbap::Heard::Nothing => {
                    if over || !self.read(deadline).await? {
                        return Ok(missing(other, unfit || self.babbles()));
                    }
                    // What has come by the deadline is looked at once more, however much follows it.
                    over = self.babbles() || self.clock.monotonic() >= deadline;
                }
                mbap::Heard::Answer(answer, length) => {
                    let outcome = take(answer, values);
                    self.buffer.drain(..length);
                    return Ok(outcome);
                }
                mbap::Heard::Late(length, transaction) => {
                    if self.transaction.wrapping_sub(transaction) <= LATEST {
                        heard.late += 1;
                        heard.late_unit = self.buffer.get(6).copied();
                    } else {
                        unfit = true;
                    }
                    self.buffer.drain(..length);
                }
                mbap::Heard::Unfit(length) => {
                    match self.buffer.get(6).filter(|unit| **unit != asked.unit) {
                        Some(unit) => other = Some(*unit),
                        None => unfit = true,
                    }
                    self.buffer.drain(..length);
                }
                mbap::Heard::Broken => {
                    let cause =
                        "what it sends is no Modbus TCP: is it a converter that needs `framing = \"rtu\"`?";
                    return Err(wire::gone(&self.target, Some(&io::Error::other(cause))));
                }
            }
        }
    }
}

//! What a person is told to do about what a line or a device says, or does not say.

use std::time::Duration;

use crate::sources::modbus::config::{Framing, Target};
use crate::sources::modbus::line::Outcome;
use crate::sources::modbus::pdu::{Asked, Exception};

/// What is wrong with an answer that is none.
pub(super) fn damaged(target: &Target, is_mbap: bool) -> &'static str {
    match target {
        Target::Serial(..) => {
            "is damaged: where that is often so, check baud rate, parity and the line's ends"
        }
        Target::Network(_, Framing::Rtu) if is_mbap => {
            "is Modbus TCP, and `framing` says \"rtu\": write `framing = \"tcp\"`"
        }
        Target::Network(_, Framing::Rtu) => {
            "is no whole frame of RTU: where that is often so, check `framing`, \"rtu\" or \"tcp\", and the line behind the converter"
        }
        Target::Network(_, Framing::Tcp) => {
            "has another transaction id, function or length than it should: where that is often so, look at it with `weir tap`"
        }
    }
}

/// What to write instead of a manual's number, where a device refuses that; else nothing.
pub(super) fn as_in_manuals(asked: &Asked, exception: Exception) -> String {
    let Some((table, address)) = asked.as_in_manuals().filter(|_| exception.is_no_address()) else {
        return String::new();
    };
    let (number, table) = (asked.address, table.name());
    format!(": if the manual calls it {number}, write `table = \"{table}\"`, `address = {address}`")
}

/// What to look at where a device does not answer and others do.
pub(super) fn check(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Damaged => "; check its baud rate, its parity and its wiring",
        // That says it already.
        Outcome::Other(_) => "",
        _ => "; check that it is on, its `unit_id` and its wiring",
    }
}

/// That nobody has answered on a line, and what to look at.
pub(super) fn mute(target: &Target) -> String {
    let (line, hint) = match target {
        Target::Serial(port, _) => (port, "`baud`, `parity`, and whether A and B are swapped"),
        Target::Network(address, Framing::Tcp) => {
            (address, "`framing`, which is \"tcp\" here and may have to be \"rtu\"")
        }
        Target::Network(address, Framing::Rtu) => {
            (address, "`framing`, which is \"rtu\" here and may have to be \"tcp\"")
        }
    };
    format!(
        "no device on {line} has answered yet: check {hint}, then that they are on, and each `unit_id`; they are asked again ever more rarely"
    )
}

/// When a silent device is asked again. It takes turns with others that are silent, who may come first.
pub(super) fn when(wait: Duration, has_other: bool) -> String {
    let wait = match wait.as_secs_f64() {
        seconds if seconds < 10.0 => format!("{seconds:.1}"),
        seconds => format!("{seconds:.0}"),
    };
    let others = if has_other { " at the earliest, in turn with the others that are silent" } else { "" };
    format!("in {wait} s{others}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::modbus::pdu::Table;

    #[test]
    fn who_wrote_a_manuals_number_is_told_what_to_write_instead() {
        let asked = Asked { unit: 1, table: Table::Holding, address: 30_009, count: 2 };
        let told = as_in_manuals(&asked, Exception(2));
        assert_eq!(told, ": if the manual calls it 30009, write `table = \"input\"`, `address = 8`");
        assert_eq!(as_in_manuals(&asked, Exception(1)), "");
        assert_eq!(as_in_manuals(&Asked { address: 8, ..asked }, Exception(2)), "");
    }
}

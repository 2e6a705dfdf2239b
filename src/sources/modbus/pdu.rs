//! Requests and answers, whatever carries them (MODBUS Application Protocol Specification V1.1b3, section 6).

use std::fmt;

/// What a request asks for: so many registers or bits from an address on. Only reading: function codes 1 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The unit that is asked.
    pub unit: u8,
    /// Where it is to read.
    pub table: Table,
    /// The first register or bit, as on the wire: from 0.
    pub address: u16,
    /// How many, 1 to [`Table::most`].
    pub count: u16,
}

/// A device's four tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// Bits that can be written: function code 1.
    Coil,
    /// Bits that can only be read: function code 2.
    Discrete,
    /// Registers that can be written: function code 3.
    Holding,
    /// Registers that can only be read: function code 4.
    Input,
}

impl Table {
    /// The function code that reads it.
    #[must_use]
    pub fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// Whether it holds bits, not registers.
    #[must_use]
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// The most that one request reads (sections 6.1 to 6.4).
    #[must_use]
    pub fn most(self) -> u16 {
        if self.is_bits() { 2000 } else { 125 }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Holding => "holding",
            Self::Input => "input",
        }
    }
}

/// An exception's answer has this bit set in its function code (section 7).
pub(super) const EXCEPTION: u8 = 0x80;

impl Asked {
    /// The request without what carries it.
    #[must_use]
    pub fn pdu(&self) -> [u8; 5] {
        let ([a, b], [c, d]) = (self.address.to_be_bytes(), self.count.to_be_bytes());
        [self.table.function(), a, b, c, d]
    }

    /// How many bytes of values a right answer has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let count = usize::from(self.count);
        if self.table.is_bits() { count.div_ceil(8) } else { 2 * count }
    }

    /// Reads an answer's PDU; `None` where it does not answer this request.
    #[must_use]
    pub fn read<'a>(&self, pdu: &'a [u8]) -> Option<Answer<'a>> {
        match pdu {
            [function, code] if *function == self.table.function() | EXCEPTION => {
                Some(Answer::Exception(Exception(*code)))
            }
            [function, length, values @ ..]
                if *function == self.table.function()
                    && usize::from(*length) == self.bytes()
                    && values.len() == self.bytes() =>
            {
                Some(Answer::Values(values))
            }
            _ => None,
        }
    }

    /// What a manual that numbers all tables in one row means by this address: it counts holding registers from 40001
    /// on and input registers from 30001 on. `None` where no manual does so.
    pub(super) fn as_in_manuals(&self) -> Option<(Table, u16)> {
        match self.address {
            30_001..=39_999 => Some((Table::Input, self.address - 30_001)),
            40_001..=49_999 => Some((Table::Holding, self.address - 40_001)),
            _ => None,
        }
    }

    /// Whether an answer to the one could be taken for an answer to the other, by all that an RTU frame shows.
    #[must_use]
    pub fn looks_like(&self, other: &Self) -> bool {
        self.shares_exceptions(other) && self.bytes() == other.bytes()
    }

    /// Whether an exception to the one could be taken for an exception to the other.
    #[must_use]
    pub fn shares_exceptions(&self, other: &Self) -> bool {
        self.unit == other.unit && self.table == other.table
    }
}

/// `holding 40 to 44`.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = u32::from(self.address) + u32::from(self.count) - u32::from(self.count > 0);
        write!(f, "{} {}", self.table.name(), self.address)?;
        if self.count > 1 { write!(f, " to {last}") } else { Ok(()) }
    }
}

/// What a device says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The registers, or the bits packed from the lowest on.
    Values(&'a [u8]),
    /// It does not do it.
    Exception(Exception),
}

impl Answer<'_> {
    /// How many bytes its RTU frame has.
    pub(super) fn frame(&self) -> usize {
        match self {
            Self::Values(bytes) => 5 + bytes.len(),
            Self::Exception(_) => 5,
        }
    }
}

/// Why a device does not do what it is asked (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception(pub u8);

impl Exception {
    /// The address, or how much was asked for, is not what the device has.
    pub(super) fn is_about_addresses(self) -> bool {
        matches!(self.0, 2 | 3)
    }

    /// The device does not have that address.
    pub(super) fn is_no_address(self) -> bool {
        self.0 == 2
    }

    /// The device fails: some do where they are asked for an address that they do not have.
    pub(super) fn is_failure(self) -> bool {
        self.0 == 4
    }

    /// A gateway tells that the device behind it does not answer.
    pub(super) fn is_silence(self) -> bool {
        matches!(self.0, 10 | 11)
    }
}

/// `illegal data address (2)`.
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "server device failure",
            5 => "acknowledge",
            6 => "server device busy",
            8 => "memory parity error",
            10 => "gateway path unavailable",
            11 => "gateway target device failed to respond",
            _ => "an exception that the specification does not name",
        };
        write!(f, "{words} ({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_function_or_length_is_none() {
        let asked = Asked { unit: 1, table: Table::Holding, address: 7, count: 2 };
        assert_eq!(asked.read(&[3, 4, 1, 2, 3, 4]), Some(Answer::Values(&[1, 2, 3, 4])));
        assert_eq!(asked.read(&[0x83, 2]), Some(Answer::Exception(Exception(2))));
        for pdu in [
            &[4, 4, 1, 2, 3, 4][..],
            &[3, 2, 1, 2],
            &[3, 4, 1, 2, 3],
            &[3, 4, 1, 2, 3, 4, 5],
            &[0x84, 2],
            &[0x83, 2, 0],
            &[3],
            &[],
        ] {
            assert_eq!(asked.read(pdu), None, "{pdu:?}");
        }
    }

    #[test]
    fn the_numbers_of_manuals_have_their_table_in_the_first_digit_and_count_from_one() {
        let found = [30_000, 30_001, 39_999, 40_000, 40_001, 40_108, 49_999, 50_000]
            .map(|address| Asked { unit: 1, table: Table::Holding, address, count: 1 }.as_in_manuals());
        let (input, holding) = (|at| Some((Table::Input, at)), |at| Some((Table::Holding, at)));
        let meant = [None, input(0), input(9_998), None, holding(0), holding(107), holding(9_998), None];
        assert_eq!(found, meant);
    }

    #[test]
    fn bits_are_packed_eight_to_a_byte() {
        for (count, bytes) in [(1, 1), (8, 1), (9, 2), (2000, 250)] {
            assert_eq!(Asked { unit: 1, table: Table::Coil, address: 0, count }.bytes(), bytes);
        }
    }

    #[test]
    fn an_exception_has_its_name_and_its_code() {
        assert_eq!(Exception(2).to_string(), "illegal data address (2)");
        assert_eq!(Exception(77).to_string(), "an exception that the specification does not name (77)");
    }
}

//! Which registers are read together: neighbours, as many as one request takes, and never a part of a value.

use std::sync::Arc;

use super::pdu::Asked;
use super::register::Register;

/// One request and what is in its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it asks for.
    pub asked: Asked,
    /// The values in the answer, in the order of their addresses, at least one.
    pub registers: Vec<Arc<Register>>,
}

/// The fewest requests that read all of `registers` of one unit, where at most `max_gap` registers, or bits, that
/// nobody asked for may lie between two of them.
#[must_use]
pub fn plan(unit: u8, registers: &[Arc<Register>], max_gap: u16) -> Vec<Request> {
    let mut sorted: Vec<_> = registers.to_vec();
    sorted.sort_by_key(|register| (register.table, register.address, register.width()));
    let mut requests: Vec<Request> = Vec::new();
    for register in sorted {
        match requests.last_mut() {
            Some(last) if last.takes(&register, max_gap) => last.take(register),
            _ => requests.push(Request::of(unit, register)),
        }
    }
    requests
}

/// The address behind the last one that `register` takes; at most 65536.
fn end(register: &Register) -> u32 {
    u32::from(register.address) + u32::from(register.width())
}

impl Request {
    fn of(unit: u8, register: Arc<Register>) -> Self {
        let (table, address, count) = (register.table, register.address, register.width());
        Self { asked: Asked { unit, table, address, count }, registers: vec![register] }
    }

    fn end(&self) -> u32 {
        u32::from(self.asked.address) + u32::from(self.asked.count)
    }

    /// Whether `register`, which begins no earlier than those that are here, may be read with them.
    fn takes(&self, register: &Register, max_gap: u16) -> bool {
        let whole = self.end().max(end(register)) - u32::from(self.asked.address);
        self.asked.table == register.table
            && u32::from(register.address) <= self.end() + u32::from(max_gap)
            && whole <= u32::from(self.asked.table.most())
    }

    fn take(&mut self, register: Arc<Register>) {
        let whole = self.end().max(end(&register)) - u32::from(self.asked.address);
        self.asked.count = u16::try_from(whole).unwrap_or(u16::MAX);
        self.registers.push(register);
    }

    /// Whether something is read that nobody asked for.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.without_gaps().is_some()
    }

    /// The same without gaps. `None` where there is none.
    #[must_use]
    pub fn without_gaps(&self) -> Option<Vec<Self>> {
        Some(plan(self.asked.unit, &self.registers, 0)).filter(|parts| parts.len() > 1)
    }

    /// What to ask for instead where a device refuses this: first without gaps, then in halves. `None` where there is
    /// but one value.
    #[must_use]
    pub fn smaller(&self) -> Option<Vec<Self>> {
        if self.registers.len() < 2 {
            return None;
        }
        if let Some(parts) = self.without_gaps() {
            return Some(parts);
        }
        let (one, other) = self.registers.split_at(self.registers.len() / 2);
        let part = |registers| plan(self.asked.unit, registers, 0);
        Some([part(one), part(other)].concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn register(table: &str, address: u32, kind: &str) -> Arc<Register> {
        let length = if kind == "string" { "length = 9" } else { "" };
        let toml = format!("metric = 'm'\ntable = '{table}'\naddress = {address}\ntype = '{kind}'\n{length}");
        Arc::new(toml::from_str(&toml).unwrap())
    }

    fn shape(requests: &[Request]) -> Vec<(u16, u16)> {
        requests.iter().map(|request| (request.asked.address, request.asked.count)).collect()
    }

    #[test]
    fn neighbours_are_read_together_and_what_lies_between_only_where_it_is_allowed() {
        let meter = [0, 2, 6, 8, 70].map(|address| register("input", address, "f32"));
        assert_eq!(shape(&plan(1, &meter, 0)), [(0, 4), (6, 4), (70, 2)]);
        assert_eq!(shape(&plan(1, &meter, 1)), [(0, 4), (6, 4), (70, 2)]);
        assert_eq!(shape(&plan(1, &meter, 2)), [(0, 10), (70, 2)]);
        assert_eq!(shape(&plan(1, &meter, 60)), [(0, 72)]);
    }

    #[test]
    fn a_request_has_at_most_125_registers_and_no_part_of_a_value() {
        let row: Vec<_> = (0..100).map(|n| register("holding", 2 * n, "u32")).collect();
        assert_eq!(shape(&plan(1, &row, 0)), [(0, 124), (124, 76)]);
        let coils: Vec<_> = (0..2001).map(|n| register("coil", n, "bool")).collect();
        assert_eq!(shape(&plan(1, &coils, 0)), [(0, 2000), (2000, 1)]);
    }

    #[test]
    fn two_values_of_one_register_are_read_at_once() {
        let both =
            [register("holding", 3, "u16"), register("holding", 3, "u32"), register("holding", 4, "i16")];
        assert_eq!(shape(&plan(1, &both, 0)), [(3, 2)]);
    }

    #[test]
    fn what_a_device_refuses_is_asked_without_gaps_and_then_in_halves() {
        let meter = [0, 1, 5, 6].map(|address| register("input", address, "u16"));
        let whole = &plan(1, &meter, 9)[0];
        assert!(whole.has_gaps());
        let parts = whole.smaller().unwrap();
        assert_eq!(shape(&parts), [(0, 2), (5, 2)]);
        assert!(!parts[0].has_gaps());
        let halves = parts[0].smaller().unwrap();
        assert_eq!(shape(&halves), [(0, 1), (1, 1)]);
        assert_eq!(halves[0].smaller(), None);
    }

    proptest! {
        #[test]
        fn each_value_is_read_once_and_whole_and_no_gap_is_larger_than_allowed(
            registers in prop::collection::vec((0_usize..4, 0_u32..600, 0_usize..5), 1..60), max_gap in 0_u16..20,
        ) {
            let registers: Vec<_> = registers
                .into_iter()
                .map(|(table, address, kind)| {
                    let table = ["holding", "input", "coil", "discrete"][table];
                    let kind = if table.contains('o') && !table.starts_with('h') || table == "discrete" {
                        "bool"
                    } else {
                        ["u16", "u32", "f64", "bool", "string"][kind]
                    };
                    register(table, address, kind)
                })
                .collect();
            let requests = plan(9, &registers, max_gap);
            let read: usize = requests.iter().map(|request| request.registers.len()).sum();
            prop_assert_eq!(read, registers.len());
            for request in &requests {
                let Asked { unit, table, address, count } = request.asked;
                prop_assert!(unit == 9 && count >= 1 && count <= table.most());
                let last = u32::from(address) + u32::from(count);
                let mut covered = u32::from(address);
                for register in &request.registers {
                    prop_assert_eq!(register.table, table);
                    prop_assert!(u32::from(register.address) <= covered + u32::from(max_gap));
                    prop_assert!(register.address >= address && end(register) <= last);
                    covered = covered.max(end(register));
                }
                prop_assert_eq!(covered, last, "it ends with a value");
                for part in request.smaller().unwrap_or_default() {
                    prop_assert!(part.registers.len() < request.registers.len());
                }
            }
        }
    }
}

//! `scale` and `offset`: how what a device sends becomes what it measured.

use crate::model::Value;

/// What was read, times `scale`, plus `offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) scale: f64,
    pub(super) offset: f64,
}

impl Scale {
    /// Changes nothing.
    pub(super) const NONE: Self = Self { scale: 1.0, offset: 0.0 };

    /// `value` scaled. Whole numbers stay whole where nothing changes them; bool and text have no scale.
    pub(super) fn apply<T>(self, value: Value<T>) -> Value<T> {
        match value.number() {
            Some(number) if self != Self::NONE => Value::Float(self.of(number)),
            _ => value,
        }
    }

    /// 0.1 is no binary fraction, but ten is: a division keeps 3 at a scale of 0.1 the 0.3 that was meant. So it does
    /// with 1.6 beside a scale of 0.001, where it is as much as a whole number before the division.
    fn of(self, number: f64) -> f64 {
        let divisor = 1.0 / self.scale;
        if divisor.fract() != 0.0 || divisor.abs() <= 1.0 {
            return number * self.scale + self.offset;
        }
        let before = self.offset * divisor;
        if before.fract() == 0.0 { (number + before) / divisor } else { number / divisor + self.offset }
    }

    /// What is wrong with it at `key`; a scale of nothing would turn every reading into `offset`.
    pub(super) fn problem(self, key: &'static str) -> Option<(&'static str, String)> {
        let sound = self.scale != 0.0 && self.scale.is_finite() && self.offset.is_finite();
        (!sound)
            .then(|| (key, "`scale` must be a finite number other than 0, `offset` a finite one".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(scale: f64, offset: f64, value: Value<&str>) -> Value<&str> {
        Scale { scale, offset }.apply(value)
    }

    #[test]
    fn a_decimal_scale_gives_the_decimal_that_was_meant() {
        assert_eq!(scaled(0.1, 0.0, Value::Int(3)), Value::Float(0.3));
        assert_eq!(scaled(0.01, -40.0, Value::Uint(6150)), Value::Float(21.5));
        assert_eq!(scaled(0.001, 1.6, Value::Int(1377)), Value::Float(2.977));
        assert_eq!(scaled(0.1, 0.25, Value::Int(3)), Value::Float(0.55));
        assert_eq!(scaled(-0.001, 0.0, Value::Int(7)), Value::Float(-0.007));
        assert_eq!(scaled(1000.0, 0.0, Value::Float(1.5)), Value::Float(1500.0));
        assert_eq!(scaled(0.3, 0.0, Value::Int(10)), Value::Float(3.0));
    }

    #[test]
    fn what_is_not_scaled_stays_as_it_is_and_a_bool_has_no_scale() {
        let large = i64::MAX - 1;
        assert_eq!(scaled(1.0, 0.0, Value::Int(large)), Value::Int(large));
        assert_eq!(scaled(0.1, 0.0, Value::Bool(true)), Value::Bool(true));
        assert_eq!(scaled(0.1, 0.0, Value::Text("on")), Value::Text("on"));
    }

    #[test]
    fn a_scale_of_nothing_is_a_problem() {
        for (scale, offset) in [(0.0, 0.0), (f64::NAN, 0.0), (1.0, f64::INFINITY)] {
            assert!(Scale { scale, offset }.problem("scale").is_some());
        }
        assert_eq!(Scale::NONE.problem("scale"), None);
    }
}

use serde::Deserialize;

use crate::model::Value;

/// Passes numbers from `min` to `max`, both included; either may be left out. NaN does not pass. What is no number
/// passes as it is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The least that passes.
    pub min: Option<f64>,
    /// The greatest that passes.
    pub max: Option<f64>,
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        match (self.min, self.max) {
            (None, None) => {
                vec![(
                    "type",
                    "a range filter needs `min`, `max` or both: without them it holds nothing back".into(),
                )]
            }
            (Some(min), Some(max)) if min > max => {
                vec![("min", format!("`min` {min} is above `max` {max}: nothing would pass"))]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn passes(&self, value: &Value<&str>) -> bool {
        value.number().is_none_or(|x| {
            let (min, max) = (self.min.unwrap_or(f64::NEG_INFINITY), self.max.unwrap_or(f64::INFINITY));
            (min..=max).contains(&x)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_pass_and_what_is_beyond_them_does_not() {
        let range = Config { min: Some(-40.0), max: Some(125.0) };
        for (x, passes) in [(-40.0, true), (125.0, true), (-40.1, false), (125.1, false), (f64::NAN, false)] {
            assert_eq!(range.passes(&Value::Float(x)), passes, "{x}");
        }
        assert!(!range.passes(&Value::Int(126)));
        assert!(range.passes(&Value::Text("off")), "what is no number passes");
    }

    #[test]
    fn bounds_that_let_nothing_through_are_a_problem() {
        assert_eq!(Config { min: Some(2.0), max: Some(1.0) }.problems().len(), 1);
        assert_eq!(Config { min: None, max: None }.problems().len(), 1);
        assert_eq!(Config { min: Some(1.0), max: Some(1.0) }.problems(), []);
    }
}

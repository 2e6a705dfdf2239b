use serde::Deserialize;

use crate::model::Value;

/// Passes numbers greater than `above` or less than `below`: with one of them what lies beyond it, with both what
/// lies outside (or, where they overlap, anything). NaN does not pass. What is no number passes as it is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Greater than this passes.
    pub above: Option<f64>,
    /// Less than this passes.
    pub below: Option<f64>,
}

impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        match (self.above, self.below) {
            (None, None) => {
                vec![(
                    "type",
                    "a threshold filter needs `above`, `below` or both: without them nothing passes".into(),
                )]
            }
            (Some(above), Some(below)) if above < below => vec![(
                "above",
                format!(
                    "`above` {above} lies under `below` {below}, so every number passes: swap them, or use a range filter"
                ),
            )],
            _ => Vec::new(),
        }
    }

    pub(super) fn passes(&self, value: &Value<&str>) -> bool {
        value.number().is_none_or(|x| {
            self.above.is_some_and(|above| x > above) || self.below.is_some_and(|below| x < below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beyond_a_threshold_passes() {
        let outside = Config { above: Some(30.0), below: Some(10.0) };
        for (x, passes) in
            [(30.0, false), (30.1, true), (10.0, false), (9.9, true), (20.0, false), (f64::NAN, false)]
        {
            assert_eq!(outside.passes(&Value::Float(x)), passes, "{x}");
        }
        assert!(!Config { above: Some(30.0), below: None }.passes(&Value::Int(30)));
        assert!(outside.passes(&Value::Bool(true)), "what is no number passes");
    }

    #[test]
    fn thresholds_that_let_everything_or_nothing_through_are_a_problem() {
        assert_eq!(Config { above: Some(1.0), below: Some(2.0) }.problems().len(), 1);
        assert_eq!(Config { above: None, below: None }.problems().len(), 1);
        assert_eq!(Config { above: Some(2.0), below: Some(1.0) }.problems(), []);
    }
}

//! Stub.
#![allow(missing_docs)]
use serde::Deserialize;
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}
impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

//! Stub.
#![allow(clippy::todo, missing_docs)]
use super::{Batch, Context, Source, SourceError};
use serde::Deserialize;
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}
impl Config {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    #[allow(dead_code)]
    pub(super) fn absent(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
#[derive(Debug)]
pub struct Simulated {}
impl Source for Simulated {
    type Config = Config;
    async fn open(_: &Config, _: &Context) -> Result<Self, SourceError> {
        todo!()
    }
    async fn next(&mut self) -> Result<Batch, SourceError> {
        todo!()
    }
}

use serde::Deserialize;

use super::super::super::excerpt;

/// A JSON pointer: the keys and indexes on the way to a value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Box<str>")]
pub(super) struct Pointer {
    pub(super) written: Box<str>,
    pub(super) tokens: Box<[Box<str>]>,
}

/// How deep a pointer may go: less than serde_json, which counts the walk as recursion.
const DEPTH_MAX: usize = 100;

/// So many bytes of what is no pointer are shown.
const SHOWN: usize = 64;

impl TryFrom<Box<str>> for Pointer {
    type Error = String;

    fn try_from(written: Box<str>) -> Result<Self, String> {
        let shown = excerpt::cut(&written, SHOWN);
        let wrong = |what| format!("`{shown}` is no JSON pointer, such as \"/data/0/temp\": {what}");
        let mut parts = written.split('/');
        if parts.next() != Some("") {
            return Err(wrong("it does not begin with /"));
        }
        let sound = |part: &str| part.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !written.split('/').all(sound) {
            return Err(wrong("behind ~ there must be 0 (for ~) or 1 (for /)"));
        }
        // In this order, so that `~01` becomes `~1` (RFC 6901, 4).
        let tokens: Box<[_]> =
            parts.map(|part| part.replace("~1", "/").replace("~0", "~").into_boxed_str()).collect();
        if tokens.len() > DEPTH_MAX {
            return Err(wrong("it is too deep"));
        }
        Ok(Self { tokens, written })
    }
}

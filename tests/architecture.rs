//! Holds the import rules of `ARCHITECTURE.md`: who may name whom.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that import nothing of ours, or only other leaves.
const LEAVES: [&str; 5] = ["model", "pattern", "units", "tls", "tally"];

/// What each room may import beside the leaves. `pipeline`, `config`, `cli` and `observe` are below.
const STAGES: [&str; 6] = ["sources", "filter", "window", "outbox", "encode", "uplink"];

/// Crates that only one place may name.
const ONLY_IN: [(&str, &[&str]); 5] = [
    ("coap_lite", &["src/sources/coap/"]),
    ("rusqlite", &["src/outbox/sqlite/"]),
    ("rumqttc", &["src/uplink/mqtt/"]),
    ("tokio_serial", &["src/sources/port.rs", "src/sources/serial.rs"]),
    ("tracing_subscriber", &["src/observe/"]),
];

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Each source file's path with what it says outside comments.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        (name, lines.collect::<Vec<_>>().join("\n"))
    };
    files(&root.join("src")).into_iter().map(code).collect()
}

fn room(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap();
    inside.split(['/', '.']).next().unwrap()
}

/// The rooms that `code` names as `crate::ROOM`, also in braces: `crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let name = |text: &str| {
            text.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()
        };
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        rooms.insert(name(&item));
                        item.clear();
                        continue;
                    }
                    _ => {}
                }
                item.push(c);
            }
            rooms.insert(name(&item));
        } else {
            rooms.insert(name(rest));
        }
    }
    rooms.remove("");
    rooms
}

fn may_import(room: &str, other: &str) -> bool {
    if room == other || LEAVES.contains(&other) {
        return room == other || !LEAVES.contains(&room) || room == "clock";
    }
    match room {
        _ if LEAVES.contains(&room) => false,
        _ if STAGES.contains(&room) => other == "clock",
        "clock" => false,
        "config" => STAGES.contains(&other) || ["clock", "observe"].contains(&other),
        "observe" => false,
        "pipeline" => STAGES.contains(&other) || ["clock", "config", "observe"].contains(&other),
        "cli" => true,
        "main" | "lib" => true,
        unknown => panic!("src/{unknown} is a new room: say in tests/architecture.rs whom it may import"),
    }
}

#[test]
fn every_room_imports_only_whom_it_may() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        for other in imports(&code) {
            if !may_import(room(&path), &other) {
                wrong.push(format!("{path} imports crate::{other}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_crate_behind_a_seam_is_named_only_there() {
    let mut wrong = Vec::new();
    // A room's own tests may look behind its seam.
    for (path, code) in sources().into_iter().filter(|(path, _)| !path.contains("/tests")) {
        for (krate, places) in ONLY_IN {
            let named = code.contains(&format!("{krate}::")) || code.contains(&format!("use {krate}"));
            if named && !places.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path} names {krate}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_rules_see_an_import_where_there_is_one() {
    let code = "use crate::outbox::Outbox;\nlet x = crate::{tls::Config, window};";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["outbox", "tls", "window"]);
    assert!(
        !may_import("window", "outbox") && !may_import("model", "units") && !may_import("observe", "outbox")
    );
    assert!(
        may_import("window", "model") && may_import("outbox", "clock") && may_import("pipeline", "outbox")
    );
}

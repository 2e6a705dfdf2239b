use std::fmt::Write;
use std::process::ExitCode;

use super::Configured;
use crate::config::Config;
use crate::outbox::Durability;

pub(super) fn check(arguments: &Configured) -> ExitCode {
    let loaded = match super::load(arguments) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if loaded.warnings.has_unfit() {
        return super::refuse(&loaded.warnings.strictly());
    }
    super::explain(&loaded.warnings);
    let warnings = match loaded.warnings.count().1 {
        0 => String::new(),
        1 => ", 1 warning".into(),
        some => format!(", {some} warnings"),
    };
    super::print(&format!("{}: no errors{warnings}\n{}", arguments.config.display(), summary(&loaded.config)))
}

/// What the file says, a line for each stage.
fn summary(config: &Config) -> String {
    let sources: Vec<&str> = config.sources.iter().map(|(name, _)| &**name).collect();
    let filters: Vec<String> = config.filters.iter().map(|filter| filter.pattern.to_string()).collect();
    let windows: Vec<String> =
        config.windows.iter().map(|window| format!("{} ({})", window.name, window.pattern)).collect();
    let durability = match config.buffer.durability {
        Durability::WhenOffline => "to disk when offline",
        Durability::Always => "to disk always",
    };
    let mut lines = vec![
        ("gateway", config.gateway.id.as_deref().unwrap_or("named by its client certificate").to_owned()),
        ("sources", sources.join(", ")),
        ("filters", if filters.is_empty() { "none: all readings pass".into() } else { filters.join(", ") }),
        (
            "windows",
            if windows.is_empty() {
                "none: readings are sent as they are".into()
            } else {
                windows.join(", ")
            },
        ),
        (
            "buffer",
            format!(
                "{durability}, at most {}, in {}",
                config.buffer.max_bytes,
                config.gateway.state_dir.display()
            ),
        ),
    ];
    for (stage, mut says) in config.uplink.summary() {
        if stage == "uplink" {
            says = format!("{says}, {}", config.format.name());
        }
        lines.push((stage, says));
    }
    let mut summary = String::new();
    for (stage, says) in lines {
        let _ = writeln!(summary, "  {stage:8} {says}");
    }
    summary
}

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::findings::Findings;
use super::problem::{Problems, Severity};
use super::table::Table;
use super::tree::{self, Node};
use super::{Config, Gateway, Limits, Loaded, words};
use crate::pattern::Pattern;
use crate::{encode, filter, model, sources, uplink, window};

/// The tables of a file.
const TABLES: [&str; 9] =
    ["gateway", "sources", "filters", "windows", "buffer", "uplink", "limits", "clock", "log"];

/// How deep tables may lie in tables. The parser allows 80 brackets with 80 dots each, which takes more stack than
/// there is.
const DEPTH_MAX: usize = 64;

/// Reads `source`, the text of `file`. `variable` gives the environment's variables.
pub(super) fn read(
    file: &Path,
    source: String,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let mut findings = Findings::new(&source);
    let root = parse(&mut findings);
    let mut reader = Reader { root, variable, findings };
    let config = reader.config();
    let list = reader.findings.finish();
    let problems = Problems { file: file.into(), source, list };
    match config {
        Some(config) if problems.count().0 == 0 => Ok(Loaded { config, warnings: problems }),
        _ => Err(problems),
    }
}

fn parse<'f>(findings: &mut Findings<'f>) -> DeTable<'f> {
    let source = findings.source;
    let (root, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        let span = error.span().unwrap_or_else(|| findings.end());
        match error.message() {
            "duplicate key" => {
                let key = source.get(span.clone()).unwrap_or_default();
                findings.syntax(
                    span,
                    format!("`{key}` stands here a second time"),
                    Some("keep one of them".into()),
                );
            }
            message => findings.syntax(span, format!("this is no TOML: {message}"), None),
        }
    }
    let mut tables = DeTable::new();
    for (key, node) in root.into_inner() {
        if tree::is_deeper(node.get_ref(), DEPTH_MAX) {
            findings.syntax(key.span(), format!("`{key}` holds tables in tables in tables, too deep"), None);
            // Dropping it would go as deep. There is one such file, and then the program ends.
            mem::forget(node);
        } else {
            tables.insert(key, node);
        }
    }
    tables
}

struct Reader<'f, 'v> {
    /// What is not yet read.
    root: DeTable<'f>,
    variable: &'v dyn Fn(&str) -> Option<String>,
    findings: Findings<'f>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayKeys {
    id: Option<String>,
    state_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
struct FilterKeys {
    #[serde(rename = "match")]
    pattern: Pattern,
}

#[derive(Deserialize)]
struct WindowKeys {
    name: Option<Box<str>>,
    #[serde(rename = "match")]
    pattern: Pattern,
    #[serde(default)]
    keep_readings: bool,
}

#[derive(Deserialize)]
struct UplinkKeys {
    #[serde(default)]
    format: encode::Format,
}

impl<'f> Reader<'f, '_> {
    /// Everything is read, whatever is wrong with what came before.
    fn config(&mut self) -> Option<Config> {
        let gateway = self.gateway();
        let sources = self.sources();
        let filters = self.entries("filters", Self::filter);
        let windows = self.windows();
        let buffer = self.plain("buffer", |config: &crate::outbox::Config| config.problems());
        let uplink = self.uplink();
        let limits = self.plain("limits", |limits: &Limits| {
            let none = limits.max_series == 0;
            let problem =
                ("max_series", "`max_series` must be at least 1: without a series nothing is sent".into());
            none.then_some(problem).into_iter().collect()
        });
        let clock = self.plain("clock", |_| Vec::new());
        let log = self.plain("log", |_| Vec::new());
        for key in mem::take(&mut self.root).into_iter().map(|(key, _)| key) {
            let (span, key) = (key.span(), key.into_inner());
            self.findings.error(span, format!("unknown key `{key}`"), words::instead(&key, &TABLES, "`"));
        }
        let (uplink, format) = uplink?;
        Some(Config {
            gateway: gateway?,
            sources: sources?,
            filters: filters?,
            windows: windows?,
            buffer: buffer?,
            uplink,
            format,
            limits: limits?,
            clock: clock?,
            log: log?,
        })
    }

    fn gateway(&mut self) -> Option<Gateway> {
        let mut table = self.table("gateway")?;
        let keys = table.read(&mut self.findings, &|rest| GatewayKeys::deserialize(rest))?;
        if let Some(problem) = keys.id.as_deref().and_then(|id| misnamed("`id`", id)) {
            self.findings.error(table.span("id"), problem, None);
        }
        // Under systemd it may name several, of which the first is the one that weir's unit asks for.
        let given = |variable: &str| {
            let directories = (self.variable)(variable)?;
            directories.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
        };
        Some(Gateway {
            id: keys.id.map(Arc::from),
            state_dir: keys
                .state_dir
                .or_else(|| given("STATE_DIRECTORY"))
                .unwrap_or_else(|| "/var/lib/weir".into()),
            runtime_dir: keys
                .runtime_dir
                .or_else(|| given("RUNTIME_DIRECTORY"))
                .unwrap_or_else(|| "/run/weir".into()),
        })
    }

    fn sources(&mut self) -> Option<Vec<(Arc<str>, sources::Config)>> {
        let help =
            || Some("write [sources.NAME], with a name of your choice, and the keys below it".to_owned());
        let Some(node) = self.root.remove("sources") else {
            let end = self.findings.end();
            self.findings.absence(end, "there is no source", help());
            return None;
        };
        let span = node.span();
        let DeValue::Table(tables) = node.into_inner() else {
            self.findings.error(span, "`sources` must be tables, each with a name", help());
            return None;
        };
        if tables.is_empty() {
            self.findings.absence(span, "there is no source", help());
        }
        let mut sources = Vec::new();
        let mut sound = true;
        for (name, node) in tables {
            if let Some(problem) = misnamed("a source's name", name.get_ref()) {
                self.findings.error(name.span(), problem, None);
            }
            let source = self.source(name.get_ref(), node);
            sound &= source.is_some();
            sources.extend(source.map(|source| (Arc::from(name.into_inner()), source)));
        }
        sound.then_some(sources)
    }

    fn source(&mut self, name: &str, node: Node<'f>) -> Option<sources::Config> {
        let findings = &mut self.findings;
        let mut table = Table::new(format!("[sources.{name}]"), node, self.variable, findings)?;
        let kind = table.kind(sources::Config::TYPES, findings)?;
        let config = table.read(findings, &|rest| sources::Config::read(&kind, rest).transpose())??;
        across(&table, config.problems(), Severity::Error, findings);
        across(&table, config.absent(), Severity::Warning, findings);
        Some(config)
    }

    fn filter(&mut self, mut table: Table<'f>) -> Option<filter::Config> {
        let findings = &mut self.findings;
        let kind = table.kind(filter::Rule::TYPES, findings);
        let keys = table.part(&["match"]).read(findings, &|part| FilterKeys::deserialize(part));
        let kind = kind?;
        let rule = table.read(findings, &|rest| filter::Rule::read(&kind, rest).transpose())??;
        across(&table, rule.problems(), Severity::Error, findings);
        Some(filter::Config { pattern: keys?.pattern, rule })
    }

    fn windows(&mut self) -> Option<Vec<window::Config>> {
        let windows = self.entries("windows", Self::window)?;
        let mut lines = BTreeMap::new();
        for (window, span) in &windows {
            if let Some(first) = lines.insert(&*window.name, span) {
                let text = format!("another window is called \"{}\" as well", window.name);
                let line = self.findings.source[..first.start].matches('\n').count() + 1;
                let help = format!("give this one or the one on line {line} a `name` of its own");
                self.findings.error(span.clone(), text, Some(help));
            }
        }
        Some(windows.into_iter().map(|(window, _)| window).collect())
    }

    fn window(&mut self, mut table: Table<'f>) -> Option<(window::Config, Range<usize>)> {
        let findings = &mut self.findings;
        let kind = table.kind(window::Shape::TYPES, findings);
        let keys = table
            .part(&["name", "match", "keep_readings"])
            .read(findings, &|part| WindowKeys::deserialize(part));
        if let Some(problem) = keys.as_ref().and_then(|keys| misnamed("`name`", keys.name.as_deref()?)) {
            findings.error(table.span("name"), problem, None);
        }
        let kind = kind?;
        let shape = table.read(findings, &|rest| window::Shape::read(&kind, rest).transpose())??;
        across(&table, shape.problems(), Severity::Error, findings);
        let WindowKeys { name, pattern, keep_readings } = keys?;
        let name = name.unwrap_or_else(|| shape.default_name().into());
        Some((window::Config { name, pattern, keep_readings, shape }, table.span("name")))
    }

    fn uplink(&mut self) -> Option<(uplink::Config, encode::Format)> {
        let Some(node) = self.root.remove("uplink") else {
            let end = self.findings.end();
            let help = "write [uplink] on a line of its own and the keys below it";
            self.findings.absence(end, "there is no [uplink]", Some(help.into()));
            return None;
        };
        let findings = &mut self.findings;
        let mut table = Table::new("[uplink]".into(), node, self.variable, findings)?;
        let kind = table.kind(uplink::Config::TYPES, findings);
        let keys = table.part(&["format"]).read(findings, &|part| UplinkKeys::deserialize(part));
        let kind = kind?;
        let config = table.read(findings, &|rest| uplink::Config::read(&kind, rest).transpose())??;
        across(&table, config.problems(), Severity::Error, findings);
        across(&table, config.absent(), Severity::Warning, findings);
        Some((config, keys?.format))
    }

    /// `[name]`, which may be left out and is then empty.
    fn table(&mut self, name: &str) -> Option<Table<'f>> {
        let empty = || Spanned::new(self.findings.end(), DeValue::Table(DeTable::new()));
        let node = self.root.remove(name).unwrap_or_else(empty);
        Table::new(format!("[{name}]"), node, self.variable, &mut self.findings)
    }

    /// A table that a stage reads whole.
    fn plain<T: DeserializeOwned>(
        &mut self,
        name: &str,
        problems: impl Fn(&T) -> Vec<(&'static str, String)>,
    ) -> Option<T> {
        let mut table = self.table(name)?;
        let config = table.read(&mut self.findings, &|rest| T::deserialize(rest))?;
        across(&table, problems(&config), Severity::Error, &mut self.findings);
        Some(config)
    }

    /// `[[name]]`, in the order of the file.
    fn entries<T>(&mut self, name: &str, read: impl Fn(&mut Self, Table<'f>) -> Option<T>) -> Option<Vec<T>> {
        let Some(node) = self.root.remove(name) else { return Some(Vec::new()) };
        let (span, title) = (node.span(), format!("[[{name}]]"));
        let DeValue::Array(nodes) = node.into_inner() else {
            let help = format!("write {title}, with two brackets: there may be several");
            self.findings.error(span, format!("`{name}` must be a list of tables"), Some(help));
            return None;
        };
        let entries: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                let table = Table::new(title.clone(), node, self.variable, &mut self.findings)?;
                read(self, table)
            })
            .collect();
        entries.into_iter().collect()
    }
}

/// What a stage finds wrong across the keys of its table.
fn across(
    table: &Table<'_>,
    problems: Vec<(&'static str, String)>,
    severity: Severity,
    findings: &mut Findings<'_>,
) {
    for (key, text) in problems {
        let text = words::about(key.rsplit('.').next().unwrap_or(key), text);
        match severity {
            Severity::Error => findings.error(table.span(key), text, None),
            Severity::Warning => findings.warning(table.span(key), text),
        }
    }
}

/// What is wrong with a name that goes into topics and logs.
fn misnamed(what: &str, name: &str) -> Option<String> {
    let fits = model::is_name(name) && !name.chars().any(char::is_control);
    (!fits).then(|| format!("{what} must be 1 to {} bytes, without control characters", model::NAME_MAX))
}

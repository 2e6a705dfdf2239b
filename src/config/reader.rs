use std::collections::BTreeMap;
use std::mem;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::findings::Findings;
use super::problem::Problems;
use super::recover::Check;
use super::table::Table;
use super::tree::Node;
use super::{Config, Gateway, Limits, Loaded, directories, parse, words};
use crate::pattern::Pattern;
use crate::{encode, filter, model, outbox, sources, units, uplink, window};

/// The tables of a file.
const TABLES: [&str; 9] =
    ["gateway", "sources", "filters", "windows", "buffer", "uplink", "limits", "clock", "log"];

/// Reads `source`, the text of `file`. `variable` gives the environment's variables.
pub(super) fn read(
    file: &Path,
    source: String,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let (config, warnings) = read_part(file, source, variable, |reader| reader.config())?;
    Ok(Loaded { config, warnings })
}

/// The runtime directory that `source` names, if that can be told: whatever its other tables say.
pub(super) fn runtime_dir(
    file: &Path,
    source: String,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<PathBuf, Problems> {
    read_part(file, source, variable, |reader| reader.gateway()).map(|(gateway, _)| gateway.runtime_dir)
}

/// What `part` reads of `source`, and what it warns of; where there is an error, nothing but what is wrong.
fn read_part<T>(
    file: &Path,
    source: String,
    variable: &dyn Fn(&str) -> Option<String>,
    part: impl FnOnce(&mut Reader<'_, '_>) -> Option<T>,
) -> Result<(T, Problems), Problems> {
    let mut findings = Findings::new(&source);
    let text = parse::without_bare_keys(&mut findings);
    let root = parse::parse(&text, &mut findings);
    let mut reader = Reader { root, variable, findings };
    let part = part(&mut reader);
    let list = reader.findings.finish();
    let problems = Problems { file: file.into(), source, list };
    match part {
        Some(part) if problems.count().0 == 0 => Ok((part, problems)),
        _ => Err(problems.strictly()),
    }
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

/// What the house itself wants to know of a source, whatever its type.
#[derive(Deserialize)]
struct SourceKeys {
    #[serde(default, deserialize_with = "some_duration")]
    stale_after: Option<Duration>,
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration(deserializer).map(Some)
}

/// Nothing is wrong across keys.
const NONE: Vec<(&str, String)> = Vec::new();

/// The shortest and the longest `stale_after`.
const STALE_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);

impl SourceKeys {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let is_wrong = self.stale_after.is_some_and(|after| !STALE_AFTER.contains(&after));
        let problem = ("stale_after", "`stale_after` must lie within 1s and 366 days".to_owned());
        is_wrong.then_some(problem).into_iter().collect()
    }
}

/// A source as it was read, with its table for what goes across sources.
struct ReadSource<'f> {
    name: Arc<str>,
    config: sources::Config,
    stale_after: Option<Duration>,
    table: Table<'f>,
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
        let filters =
            self.entries("filters", &["type", "match"], Self::filter).into_iter().collect::<Option<_>>();
        let windows = self.windows();
        let buffer = self.plain("buffer", &|config: &outbox::Config| config.problems());
        let uplink = self.uplink();
        let limits = self.plain("limits", &|limits: &Limits| {
            let none = limits.max_series == 0;
            let problem =
                ("max_series", "`max_series` must be at least 1: without a series nothing is sent".into());
            none.then_some(problem).into_iter().collect()
        });
        let clock = self.plain("clock", &|_| Vec::new());
        let log = self.plain("log", &|_| Vec::new());
        for key in mem::take(&mut self.root).into_iter().map(|(key, _)| key) {
            let (span, key) = (key.span(), key.into_inner());
            self.findings.error(span, format!("unknown key `{key}`"), words::instead(&key, &TABLES, "`"));
        }
        let (gateway, (uplink, format)) = (gateway?, uplink?);
        if gateway.id.is_none() && !uplink.names_gateway() {
            let help = "write `id` in [gateway]; with `tls` it is the client certificate's common name";
            self.findings.absence(self.findings.end(), "the gateway has no name", Some(help.into()));
        }
        let sources = sources?;
        let stale = |source: &ReadSource<'f>| Some((source.name.clone(), source.stale_after?));
        Some(Config {
            gateway,
            stale_after: sources.iter().filter_map(stale).collect(),
            sources: sources.into_iter().map(|source| (source.name, source.config)).collect(),
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
        let keys = table.read(&mut self.findings, &|rest| GatewayKeys::deserialize(rest), &|keys| {
            keys.id
                .as_deref()
                .and_then(|id| misnamed("`id`", id))
                .map(|text| ("id", text))
                .into_iter()
                .collect()
        })?;
        // Under systemd it may name several, of which the first is the one that weir's unit asks for.
        let given = |variable: &str| {
            let directories = (self.variable)(variable)?;
            directories.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
        };
        let state_dir = keys.state_dir.clone().or_else(|| given("STATE_DIRECTORY"));
        let runtime_dir = keys.runtime_dir.clone().or_else(|| given("RUNTIME_DIRECTORY"));
        let gateway = Gateway {
            id: keys.id.map(Arc::from),
            state_dir: state_dir.unwrap_or_else(|| "/var/lib/weir".into()),
            runtime_dir: runtime_dir.unwrap_or_else(|| "/run/weir".into()),
        };
        let directories = [
            ("state_dir", &gateway.state_dir, keys.state_dir.is_some()),
            ("runtime_dir", &gateway.runtime_dir, keys.runtime_dir.is_some()),
        ];
        let unusable = directories.into_iter().filter_map(|(key, directory, written)| {
            directories::unusable(directory, written).map(|why| (key, why))
        });
        table.warn(unusable.collect(), &mut self.findings);
        Some(gateway)
    }

    fn sources(&mut self) -> Option<Vec<ReadSource<'f>>> {
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
            sources.extend(source);
        }
        self.clashes(&sources);
        sound.then_some(sources)
    }

    /// Finds what two sources cannot both have.
    fn clashes(&mut self, sources: &[ReadSource<'f>]) {
        let findings = &mut self.findings;
        for (index, one) in sources.iter().enumerate() {
            for other in &sources[index + 1..] {
                let (first, second) = in_file_order(one, other);
                let alike = first.config.reads_as_well(&first.name, &second.config, &second.name);
                if let Some((key, text)) = alike {
                    findings.warning(second.table.span(key), text);
                }
                let (clash, differs) = (one.config.clash(&other.config), one.config.differs(&other.config));
                let Some(key) = clash.or(differs) else { continue };
                let mut places = [(&one.name, one.table.span(key)), (&other.name, other.table.span(key))];
                places.sort_by_key(|(_, span)| span.start);
                let [(first, before), (second, span)] = places;
                let line = findings.line(before.start);
                let (text, help) = if clash.is_some() {
                    let text = format!("`{key}` of source {second} is taken by source {first}");
                    (text, format!("give this one or the one on line {line} another"))
                } else {
                    let text =
                        format!("`{key}` of source {second} is not that of source {first}, on the same line");
                    (text, format!("write the same here as on line {line}"))
                };
                findings.error(span, text, Some(help));
            }
        }
    }

    fn source(&mut self, name: &str, node: Node<'f>) -> Option<ReadSource<'f>> {
        let findings = &mut self.findings;
        let title = format!("[sources.{name}]");
        let mut table = Table::new(title, node, &["type", "stale_after"], self.variable, findings)?;
        let kind = table.kind(sources::Config::TYPES, findings);
        let config = kind.and_then(|kind| {
            let read = |rest| known(sources::Config::read(&kind, rest));
            let (problems, unfit) = (sources::Config::problems, sources::Config::unfit);
            let config = table.read_with_files(findings, &read, &problems, &unfit)?;
            table.warn(config.absent(), findings);
            Some(config)
        });
        let own = table
            .read_own(findings, &|own| SourceKeys::deserialize(own), &|keys: &SourceKeys| keys.problems());
        let (config, SourceKeys { stale_after }) = (config?, own?);
        Some(ReadSource { name: name.into(), config, stale_after, table })
    }

    fn filter(&mut self, mut table: Table<'f>) -> Option<filter::Config> {
        let findings = &mut self.findings;
        let kind = table.kind(filter::Rule::TYPES, findings);
        let rule = kind.and_then(|kind| {
            let read = |rest| known(filter::Rule::read(&kind, rest));
            table.read(findings, &read, &filter::Rule::problems)
        });
        let keys = table.read_own(findings, &|own| FilterKeys::deserialize(own), &|_| NONE)?;
        Some(filter::Config { pattern: keys.pattern, rule: rule? })
    }

    fn windows(&mut self) -> Option<Vec<window::Config>> {
        let windows = self.entries("windows", &["type", "name", "match", "keep_readings"], Self::window);
        let mut lines = BTreeMap::new();
        for (window, span) in windows.iter().flatten() {
            let line = self.findings.line(span.start);
            if let Some(other) = lines.insert(&*window.name, line) {
                let text = format!("another window is called \"{}\" as well", window.name);
                let help = format!("give this one or the one on line {other} a `name` of its own");
                self.findings.error(span.clone(), text, Some(help));
            }
        }
        windows.into_iter().map(|window| window.map(|(window, _)| window)).collect()
    }

    fn window(&mut self, mut table: Table<'f>) -> Option<(window::Config, Range<usize>)> {
        let findings = &mut self.findings;
        let kind = table.kind(window::Shape::TYPES, findings);
        let shape = kind.and_then(|kind| {
            let read = |rest| known(window::Shape::read(&kind, rest));
            table.read(findings, &read, &window::Shape::problems)
        });
        let own = table.read_own(findings, &|own| WindowKeys::deserialize(own), &|keys: &WindowKeys| {
            let problem = keys.name.as_deref().and_then(|name| misnamed("`name`", name));
            problem.map(|text| ("name", text)).into_iter().collect()
        });
        let (shape, WindowKeys { name, pattern, keep_readings }) = (shape?, own?);
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
        let mut table = Table::new("[uplink]".into(), node, &["type", "format"], self.variable, findings)?;
        let kind = table.kind(uplink::Config::TYPES, findings);
        let config = kind.and_then(|kind| {
            let read = |rest| known(uplink::Config::read(&kind, rest));
            let (problems, unfit) = (uplink::Config::problems, uplink::Config::unfit);
            let config = table.read_with_files(findings, &read, &problems, &unfit)?;
            table.warn(config.absent(), findings);
            Some(config)
        });
        let keys = table.read_own(findings, &|own| UplinkKeys::deserialize(own), &|_| NONE)?;
        Some((config?, keys.format))
    }

    /// `[name]`, which its stage reads whole; left out, it is empty.
    fn plain<T: DeserializeOwned>(&mut self, name: &str, problems: Check<'_, T, &'static str>) -> Option<T> {
        let mut table = self.table(name)?;
        table.read(&mut self.findings, &|rest| T::deserialize(rest), problems)
    }

    fn table(&mut self, name: &str) -> Option<Table<'f>> {
        let empty = || Spanned::new(self.findings.end(), DeValue::Table(DeTable::new()));
        let node = self.root.remove(name).unwrap_or_else(empty);
        Table::new(format!("[{name}]"), node, &[], self.variable, &mut self.findings)
    }

    /// `[[name]]`, in the order of the file; `None` for one that something is wrong with.
    fn entries<T>(
        &mut self,
        name: &str,
        own: &'static [&'static str],
        read: impl Fn(&mut Self, Table<'f>) -> Option<T>,
    ) -> Vec<Option<T>> {
        let Some(node) = self.root.remove(name) else { return Vec::new() };
        let (span, title) = (node.span(), format!("[[{name}]]"));
        let DeValue::Array(nodes) = node.into_inner() else {
            let help = format!("write {title}, with two brackets: there may be several");
            self.findings.error(span, format!("`{name}` must be a list of tables"), Some(help));
            return vec![None];
        };
        nodes
            .into_iter()
            .map(|node| {
                let table = Table::new(title.clone(), node, own, self.variable, &mut self.findings)?;
                read(self, table)
            })
            .collect()
    }
}

fn in_file_order<'s, 'f>(
    one: &'s ReadSource<'f>,
    other: &'s ReadSource<'f>,
) -> (&'s ReadSource<'f>, &'s ReadSource<'f>) {
    if one.table.node.span().start <= other.table.node.span().start { (one, other) } else { (other, one) }
}

/// What a stage read, whose `type` has been found among those that it knows.
fn known<T>(read: Option<Result<T, Error>>) -> Result<T, Error> {
    read.unwrap_or_else(|| Err(Error::custom("this `type` is listed and cannot be read")))
}

/// What is wrong with a name that goes into topics and logs.
fn misnamed(what: &str, name: &str) -> Option<String> {
    let fits = model::is_name(name) && !name.chars().any(char::is_control);
    (!fits).then(|| format!("{what} must be 1 to {} bytes, without control characters", model::NAME_MAX))
}

//! What is in force for every route, and where each value was written: what a file means, once everything that is
//! inherited, chosen by name or left out has been filled in.
//!
//! It is made from the document and read by people; requests never see it.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Document, Source};
use crate::cors::{Danger, Patterns, PreflightSettings, Settings};
use crate::notation::List;
use crate::problem::{KeyPath, PathStep};
use crate::snapshot::{Route, Snapshot};
use crate::terminal::Paint;

/// A route with all that was inherited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EffectiveRoute {
    /// `service/route`
    pub(crate) name: String,
    /// The line where it begins.
    pub(crate) line: usize,
    /// Its hosts as written; empty: any.
    pub(crate) hosts: Vec<String>,
    /// Its paths as written; empty: any.
    pub(crate) paths: Vec<String>,
    /// Its methods; empty: any.
    pub(crate) methods: Vec<String>,
    /// The upstream's name.
    pub(crate) upstream: String,
    /// What is cut off the front of the path.
    pub(crate) strip_prefix: Option<String>,
    /// Its policy.
    pub(crate) cors: EffectiveCors,
}

/// What counts for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EffectiveCors {
    /// There is no `cors` at any level: all passes untouched.
    Absent,
    /// `cors: false`, in this line: all passes untouched.
    Off {
        /// The line of `cors`.
        line: usize,
    },
    /// A policy.
    Policy {
        /// Its name, if it has one.
        name: Option<String>,
        /// The line of the `cors` that chooses it.
        chosen: usize,
        /// The line where it is written; the same, if it is written in place.
        written: usize,
        /// Every attribute, in the order of the documentation.
        attributes: Vec<Attribute>,
    },
}

/// One attribute of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// Its key; `preflight.status` for one of `preflight`.
    pub(crate) key: &'static str,
    /// Its value; None: there is none, which is the default where it is possible.
    pub(crate) value: Option<String>,
    /// The line where it is written; None: it is the default.
    pub(crate) line: Option<usize>,
}

/// Longer values do not push the others' places aside.
const WIDEST: usize = 48;

/// Every route, in the order of the file. Each is looked up when it is asked for.
pub(crate) fn routes<'a>(
    document: &'a Document,
    snapshot: &'a Snapshot,
    source: &'a Source<'_>,
) -> impl Iterator<Item = EffectiveRoute> + 'a {
    snapshot.routes().iter().filter_map(|route| effective(route, document, snapshot, source))
}

/// For people.
pub fn text(routes: &[EffectiveRoute], source: &Source<'_>, paint: Paint) -> String {
    let mut out = String::new();
    let file = source.name();
    for route in routes {
        let _ = writeln!(out, "{}  {file}:{}", paint.bold(&route.name), route.line);
        let _ = writeln!(out, "  serves    {}", route.serves());
        let prefix = route.strip_prefix.as_ref().map(|prefix| format!(", without {prefix}")).unwrap_or_default();
        let _ = writeln!(out, "  upstream  {}{prefix}", route.upstream);
        match &route.cors {
            EffectiveCors::Absent => out += "  policy    none; all passes untouched\n",
            EffectiveCors::Off { line } => {
                let _ =
                    writeln!(out, "  policy    switched off by `cors: false` at {file}:{line}; all passes untouched");
            }
            EffectiveCors::Policy { name, chosen, written, attributes } => {
                let _ = match name {
                    Some(name) => writeln!(out, "  policy    `{name}` at {file}:{written}, chosen at {file}:{chosen}"),
                    None => writeln!(out, "  policy    {file}:{written}"),
                };
                let set = || {
                    attributes.iter().filter_map(|Attribute { key, value, line }| Some((key, value.as_ref()?, line)))
                };
                let key_width = set().map(|(key, ..)| key.len()).max().unwrap_or_default();
                let width = set().map(|(_, value, _)| value.chars().count()).max().unwrap_or_default().min(WIDEST);
                for (key, value, line) in set() {
                    let _ = match line {
                        Some(line) => writeln!(out, "    {key:<key_width$}  {value:<width$}  line {line}"),
                        None => {
                            let line = format!("{key:<key_width$}  {value:<width$}  default");
                            writeln!(out, "    {}", paint.dim(&line))
                        }
                    };
                }
            }
        }
        out.push('\n');
    }
    out
}

/// For programs: an array with an object for each route.
pub fn json(routes: &[EffectiveRoute]) -> Value {
    routes
        .iter()
        .map(|route| {
            json!({
                "name": route.name,
                "line": route.line,
                "hosts": route.hosts,
                "paths": route.paths,
                "methods": route.methods,
                "upstream": route.upstream,
                "strip_prefix": route.strip_prefix,
                "cors": route.cors.json(),
            })
        })
        .collect()
}

// === impl EffectiveRoute, EffectiveCors ===

impl EffectiveRoute {
    /// Hosts, paths and methods in one line.
    pub(crate) fn serves(&self) -> String {
        let any = |list: &[String], any: &str| if list.is_empty() { any.to_owned() } else { list.join(", ") };
        let hosts = any(&self.hosts, "any host");
        format!("{hosts}  {}  {}", any(&self.paths, "any path"), any(&self.methods, "any method"))
    }
}

impl EffectiveCors {
    /// A word or two: the origins, or that there is no policy.
    pub(crate) fn origins(&self) -> String {
        match self {
            EffectiveCors::Absent => "no policy".into(),
            EffectiveCors::Off { .. } => "cors: false".into(),
            EffectiveCors::Policy { attributes, .. } => {
                let origins = attributes.iter().filter(|attribute| attribute.key.starts_with("allow_origin"));
                origins.filter_map(|attribute| attribute.value.clone()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            EffectiveCors::Absent => Value::Null,
            EffectiveCors::Off { line } => json!({ "off": true, "line": line }),
            EffectiveCors::Policy { name, chosen, written, attributes } => {
                let attributes = attributes.iter().map(|Attribute { key, value, line }| {
                    ((*key).to_owned(), json!({ "value": value, "line": line, "default": line.is_none() }))
                });
                json!({
                    "policy": name,
                    "line": written,
                    "chosen_at_line": chosen,
                    "attributes": attributes.collect::<serde_json::Map<_, _>>(),
                })
            }
        }
    }
}

fn effective(route: &Route, document: &Document, snapshot: &Snapshot, source: &Source<'_>) -> Option<EffectiveRoute> {
    let services = document.services.as_deref().unwrap_or_default();
    let service = services.get(route.place.service as usize)?;
    let own = match route.place.route {
        None => None,
        Some(position) => Some(service.routes.as_deref()?.get(position as usize)?),
    };
    let list = |list: Option<&List>| list.map(|list| list.entries().to_vec()).unwrap_or_default();
    let line = |at: &KeyPath| source.line(at);
    let nearest = route.cors.as_ref().and_then(|cors| route.place.cors(document, cors.level));
    let cors = match (route.cors_at(), nearest.and_then(|cors| document.settings(cors))) {
        (None, _) => EffectiveCors::Absent,
        (Some(at), None) => EffectiveCors::Off { line: line(&at) },
        (Some(at), Some(settings)) => {
            let written = route.policy_at().unwrap_or_else(|| at.clone());
            EffectiveCors::Policy {
                name: route.cors.as_ref().and_then(|cors| cors.name.as_deref()).map(str::to_owned),
                chosen: line(&at),
                attributes: attributes(settings, &written, source),
                written: line(&written),
            }
        }
    };
    Some(EffectiveRoute {
        name: route.name.to_string(),
        line: line(&route.at()),
        hosts: list(service.hosts.as_ref()),
        paths: list(own.and_then(|own| own.paths.as_ref())),
        methods: list(own.and_then(|own| own.methods.as_ref())),
        upstream: snapshot.upstreams()[route.upstream.0].name.to_string(),
        strip_prefix: route.strip_prefix.as_deref().map(str::to_owned),
        cors,
    })
}

/// Every attribute of a policy that is written at a place.
fn attributes(settings: &Settings, at: &KeyPath, source: &Source<'_>) -> Vec<Attribute> {
    let defaults = values(&Settings::default());
    let attribute = |((key, value), (_, default)): ((&'static str, Option<String>), (_, Option<String>))| {
        let alias = (key == "allow_credentials").then_some("allow_credential");
        let mut places = std::iter::once(key).chain(alias).map(|key| {
            let mut at = at.clone();
            at.0.extend(key.split('.').map(|step| PathStep::Key(step.to_owned())));
            at
        });
        let line = places.find_map(|at| source.line_of_key(&at));
        // Behind an alias (`cors: *shared`) there is no line to be found but that of the alias.
        let line = line.or_else(|| (value != default).then(|| source.line(at)));
        Attribute { key, value, line }
    };
    values(settings).into_iter().zip(defaults).map(attribute).collect()
}

/// The attributes by their keys, in the order of the documentation.
fn values(settings: &Settings) -> [(&'static str, Option<String>); 17] {
    // Taken apart, so that none can be forgotten.
    let Settings {
        allow_origins,
        allow_origins_by_regex,
        allow_origin_sets,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        timing_allow_origins,
        timing_allow_origins_by_regex,
        allow_private_network,
        preflight: PreflightSettings { matches, status, refused_status },
        upstream_headers,
        disallowed_origins,
        dangerously_allow,
    } = settings;
    let any = || Some("*".to_owned());
    let dangers = dangerously_allow.as_deref().map(|all| joined(all.iter().copied().map(Danger::word)));
    [
        ("allow_origins", entries(allow_origins.as_ref())),
        ("allow_origins_by_regex", patterns(allow_origins_by_regex.as_ref())),
        ("allow_origin_sets", entries(allow_origin_sets.as_ref())),
        ("allow_methods", entries(allow_methods.as_ref()).or_else(any)),
        ("allow_headers", entries(allow_headers.as_ref()).or_else(any)),
        ("expose_headers", entries(expose_headers.as_ref())),
        ("max_age", Some(max_age.unwrap_or(Settings::DEFAULT_MAX_AGE).to_string())),
        ("allow_credentials", Some(allow_credentials.to_string())),
        ("timing_allow_origins", entries(timing_allow_origins.as_ref())),
        ("timing_allow_origins_by_regex", patterns(timing_allow_origins_by_regex.as_ref())),
        ("allow_private_network", Some(allow_private_network.to_string())),
        ("preflight.match", word(matches)),
        ("preflight.status", Some(status.to_string())),
        ("preflight.refused_status", Some(refused_status.to_string())),
        ("upstream_headers", word(upstream_headers)),
        ("disallowed_origins", word(disallowed_origins)),
        ("dangerously_allow", dangers),
    ]
}

fn entries(list: Option<&List>) -> Option<String> {
    list.map(|list| joined(list.entries().iter().map(String::as_str)))
}

fn patterns(patterns: Option<&Patterns>) -> Option<String> {
    patterns.map(|patterns| joined(patterns.sources().iter().map(String::as_str)))
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// A word as the configuration writes it.
fn word(value: impl Serialize) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

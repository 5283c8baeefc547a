//! The effective configuration of each route: every value, including inherited values, named policies and defaults,
//! with the line of the file that sets it. `check --effective` and the admin listener print it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{self, BehaviorKeys, Document, Source};
use crate::cors::{Danger, Patterns, PreflightSettings, Settings};
use crate::notation::{List, Use};
use crate::problem::{KeyPath, PathStep};
use crate::snapshot::{End, Level, Route, Snapshot};
use crate::terminal::Paint;

/// A route with its inherited and default values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EffectiveRoute {
    /// Name in the form `service/route`, as in logs.
    pub(crate) name: String,
    /// The line where the route begins.
    pub(crate) line: usize,
    /// Hosts as in the file. Empty for any host.
    pub(crate) hosts: Vec<String>,
    /// Paths as in the file. Empty for any path.
    pub(crate) paths: Vec<String>,
    /// Methods, with the HEAD that GET implies. Empty for any method.
    pub(crate) methods: Vec<String>,
    pub(crate) end: EffectiveEnd,
    /// The behaviors that apply, without defaults. The behaviors of the service come first.
    pub(crate) behaviors: Vec<Attribute>,
    pub(crate) cors: EffectiveCors,
}

/// The end of a route: an upstream, a split, or an answer of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EffectiveEnd {
    /// The name of the upstream.
    Upstream(String),
    /// The names of several upstreams with their weights, and the key of sticky requests.
    Split { shares: Vec<(String, u32)>, sticky: Option<String> },
    /// The status of a fixed response.
    Respond(u16),
    /// The status of a redirect.
    Redirect(u16),
}

/// The CORS policy of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EffectiveCors {
    /// There is no `cors` at any level: corsgate does not change requests and responses.
    Absent,
    /// `cors: false` on this line: corsgate does not change requests and responses.
    Off { line: usize },
    Policy {
        /// None for a policy without a name.
        name: Option<String>,
        /// The line of the `cors` that uses the policy.
        chosen: usize,
        /// The line of the policy. It equals `chosen` for a policy without a name.
        written: usize,
        /// All attributes, in the order of the documentation.
        attributes: Vec<Attribute>,
    },
}

/// One attribute of a policy, or of a behavior.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// The key, such as `preflight.status`.
    pub(crate) key: Cow<'static, str>,
    /// The value. None if the attribute has no value, which is its default.
    pub(crate) value: Option<String>,
    /// The line of the value. None for a default.
    pub(crate) line: Option<usize>,
}

/// Maximum width of the column of values, in characters. A longer value moves only its own line number to the right.
const WIDEST: usize = 48;

/// Returns all routes, in the order of the file. The iterator is lazy, because a file can have very many routes.
pub(crate) fn routes<'a>(
    document: &'a Document,
    snapshot: &'a Snapshot,
    source: &'a Source<'_>,
) -> impl Iterator<Item = EffectiveRoute> + 'a {
    snapshot.routes().iter().filter_map(|route| effective(route, document, snapshot, source))
}

/// Returns the routes as text.
pub fn text(routes: &[EffectiveRoute], source: &Source<'_>, paint: Paint) -> String {
    let mut out = String::new();
    let file = source.name();
    for route in routes {
        let _ = writeln!(out, "{}  {file}:{}", paint.bold(&route.name), route.line);
        let _ = writeln!(out, "  serves    {}", route.serves());
        let _ = match &route.end {
            EffectiveEnd::Upstream(name) => writeln!(out, "  upstream  {name}"),
            EffectiveEnd::Split { .. } => writeln!(out, "  {}", route.ends_at().replacen(' ', "     ", 1)),
            EffectiveEnd::Respond(status) => writeln!(out, "  respond   {status}"),
            EffectiveEnd::Redirect(status) => writeln!(out, "  redirect  {status}"),
        };
        if !route.behaviors.is_empty() {
            out += "  behavior\n";
            write_attributes(&mut out, &route.behaviors, paint);
        }
        match &route.cors {
            EffectiveCors::Absent => out += "  policy    none; requests and responses are not changed\n",
            EffectiveCors::Off { line } => {
                let off = format!("off by `cors: false` at {file}:{line}");
                let _ = writeln!(out, "  policy    {off}; requests and responses are not changed");
            }
            EffectiveCors::Policy { name, chosen, written, attributes } => {
                let _ = match name {
                    Some(name) => writeln!(out, "  policy    `{name}` at {file}:{written}, used at {file}:{chosen}"),
                    None => writeln!(out, "  policy    {file}:{written}"),
                };
                write_attributes(&mut out, attributes, paint);
            }
        }
        out.push('\n');
    }
    out
}

/// Writes the attributes that have a value, in columns.
fn write_attributes(out: &mut String, attributes: &[Attribute], paint: Paint) {
    let set = || attributes.iter().filter_map(|Attribute { key, value, line }| Some((key, value.as_ref()?, line)));
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

/// Returns the routes as JSON: an array with one object for each route.
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
                "upstream": match &route.end {
                    EffectiveEnd::Upstream(name) => Some(name),
                    EffectiveEnd::Split { .. } | EffectiveEnd::Respond(_) | EffectiveEnd::Redirect(_) => None,
                },
                "split": match &route.end {
                    EffectiveEnd::Split { shares, sticky } => json!({
                        "upstreams": shares.iter().map(|(name, weight)| json!({ "upstream": name, "weight": weight }))
                            .collect::<Vec<_>>(),
                        "sticky": sticky,
                    }),
                    EffectiveEnd::Upstream(_) | EffectiveEnd::Respond(_) | EffectiveEnd::Redirect(_) => Value::Null,
                },
                "answer": match route.end {
                    EffectiveEnd::Upstream(_) | EffectiveEnd::Split { .. } => None,
                    EffectiveEnd::Respond(status) | EffectiveEnd::Redirect(status) => Some(status),
                },
                "behaviors": route.behaviors.iter().map(|Attribute { key, value, line }| {
                    json!({ "key": key, "value": value, "line": line })
                }).collect::<Vec<_>>(),
                "cors": route.cors.json(),
            })
        })
        .collect()
}

// === impl EffectiveRoute, EffectiveCors ===

impl EffectiveRoute {
    /// Returns the name of the upstream, or the answer of the gateway.
    pub(crate) fn ends_at(&self) -> String {
        match &self.end {
            EffectiveEnd::Upstream(name) => name.clone(),
            EffectiveEnd::Split { shares, sticky } => {
                let shares: Vec<String> = shares.iter().map(|(name, weight)| format!("{name} {weight}")).collect();
                let sticky = sticky.as_ref().map(|sticky| format!(", sticky by {sticky}")).unwrap_or_default();
                format!("split {}{sticky}", shares.join(", "))
            }
            EffectiveEnd::Respond(status) => format!("respond {status}"),
            EffectiveEnd::Redirect(status) => format!("redirect {status}"),
        }
    }

    /// Returns the keys of the behaviors, without duplicates.
    pub(crate) fn behavior_keys(&self) -> String {
        let mut keys: Vec<&str> =
            self.behaviors.iter().map(|attribute| attribute.key.split('.').next().unwrap_or_default()).collect();
        keys.dedup();
        keys.join(", ")
    }

    /// Returns hosts, paths and methods in one line.
    pub(crate) fn serves(&self) -> String {
        let any = |list: &[String], any: &str| if list.is_empty() { any.to_owned() } else { list.join(", ") };
        let hosts = any(&self.hosts, "any host");
        format!("{hosts}  {}  {}", any(&self.paths, "any path"), any(&self.methods, "any method"))
    }
}

impl EffectiveCors {
    /// Returns the allowed origins in one line, or the fact that there is no policy.
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
                    (key.to_string(), json!({ "value": value, "line": line, "default": line.is_none() }))
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
    let effective_cors = route.cors.as_ref().and_then(|cors| route.place.cors(document, cors.level));
    let cors = match (route.cors_at(), effective_cors.and_then(|cors| document.settings(cors))) {
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
        methods: methods(route, list(own.and_then(|own| own.methods.as_ref()))),
        end: end(route, snapshot),
        behaviors: behaviors(route, &service.behaviors(), own.map(config::Route::behaviors), source),
        cors,
    })
}

/// Returns the methods of a route, with the HEAD that GET implies.
fn methods(route: &Route, mut listed: Vec<String>) -> Vec<String> {
    if let (true, false, Some(get)) = (
        route.takes_head,
        listed.iter().any(|method| method == "HEAD"),
        listed.iter().position(|method| method == "GET"),
    ) {
        listed.insert(get + 1, "HEAD".to_owned());
    }
    listed
}

fn end(route: &Route, snapshot: &Snapshot) -> EffectiveEnd {
    match &route.end {
        End::Upstream(id) => EffectiveEnd::Upstream(snapshot.upstreams()[id.0].name.to_string()),
        End::Split(end) => EffectiveEnd::Split {
            shares: (end.split.shares())
                .map(|(id, weight)| (snapshot.upstreams()[id.0].name.to_string(), weight))
                .collect(),
            sticky: end.sticky.as_ref().map(ToString::to_string),
        },
        End::Answer(answer) if answer.is_redirect() => EffectiveEnd::Redirect(answer.status.as_u16()),
        End::Answer(answer) => EffectiveEnd::Respond(answer.status.as_u16()),
    }
}

/// Returns the behaviors that apply to a route: its own, or else those of its service. Edits of headers apply from
/// both.
fn behaviors(
    route: &Route,
    service: &BehaviorKeys<'_>,
    own: Option<BehaviorKeys<'_>>,
    source: &Source<'_>,
) -> Vec<Attribute> {
    let (service, own) = (written(service), own.as_ref().map(written).unwrap_or_default());
    let adds_up = |key: &str| key == "request_headers" || key == "response_headers";
    let is_own = |key: &str| own.iter().any(|(own, _)| *own == key);
    let mut all = Vec::new();
    let mut add = |level, keys: &[(&'static str, Value)]| {
        for (key, value) in keys {
            let mut at = route.place.at(level);
            at.0.push(PathStep::Key((*key).to_owned()));
            flatten((*key).to_owned(), value, &at, source, &mut all);
        }
    };
    let inherited: Vec<_> = service.into_iter().filter(|(key, _)| adds_up(key) || !is_own(key)).collect();
    add(Level::Service, &inherited);
    add(Level::Route, &own);
    all
}

/// Adds one attribute for each value that is not a mapping.
fn flatten(key: String, value: &Value, at: &KeyPath, source: &Source<'_>, all: &mut Vec<Attribute>) {
    if let Some(keys) = value.as_object() {
        for (inner, value) in keys {
            let mut at = at.clone();
            at.0.push(PathStep::Key(inner.clone()));
            flatten(format!("{key}.{inner}"), value, &at, source, all);
        }
        return;
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = match value.as_array() {
        Some(entries) => joined(entries.iter().map(text).collect::<Vec<_>>().iter().map(String::as_str)),
        None => text(value),
    };
    let line = source.line_of_key(at).or_else(|| Some(source.line(at)));
    all.push(Attribute { key: key.into(), value: Some(text), line });
}

/// Returns the keys that have a value in the file, without defaults.
fn written(keys: &BehaviorKeys<'_>) -> Vec<(&'static str, Value)> {
    // The pattern has no `..`, so that a new key does not compile until it is listed here.
    let BehaviorKeys {
        clients,
        rate_limit,
        forward_auth,
        strip_prefix,
        path,
        upstream_host,
        request_headers,
        response_headers,
        compression,
    } = keys;
    let keys = [
        ("clients", clients.map(json_of)),
        ("rate_limit", rate_limit.map(json_of)),
        ("forward_auth", forward_auth.map(json_of)),
        ("strip_prefix", strip_prefix.map(json_of)),
        ("path", path.map(json_of)),
        ("upstream_host", upstream_host.map(json_of)),
        ("request_headers", request_headers.map(json_of)),
        ("response_headers", response_headers.map(json_of)),
        ("compression", compression.map(json_of)),
    ];
    keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn json_of(settings: impl Serialize) -> Value {
    let mut value = serde_json::to_value(settings).unwrap_or_default();
    if let Some(keys) = value.as_object_mut() {
        keys.retain(|_, value| !value.is_null() && *value != json!({}) && *value != json!(false));
    }
    value
}

/// Returns all attributes of the policy at `at`.
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
        // The keys of a YAML alias (`cors: *shared`) have no line of their own, so they get the line of the alias.
        let line = line.or_else(|| (value != default).then(|| source.line(at)));
        Attribute { key: key.into(), value, line }
    };
    values(settings).into_iter().zip(defaults).map(attribute).collect()
}

/// Returns keys and values of all attributes, in the order of the documentation.
fn values(settings: &Settings) -> [(&'static str, Option<String>); 23] {
    // The pattern has no `..`, so that a new attribute does not compile until it is listed here.
    let Settings {
        allow_origins,
        allow_origins_by_regex,
        allow_origin_sets,
        allow_methods,
        allow_headers,
        allow_header_sets,
        expose_headers,
        expose_header_sets,
        max_age,
        allow_credentials,
        timing_allow_origins,
        timing_allow_origins_by_regex,
        cross_origin_resource_policy,
        allow_private_network,
        preflight: PreflightSettings { matches, status, refused_status, cache_control },
        upstream_headers,
        disallowed_origins,
        cross_site,
        dangerously_allow,
        report_only,
    } = settings;
    let any = || Some("*".to_owned());
    let reported = report_only.as_ref().map(|reported| match reported {
        Use::Named(name) => name.clone(),
        Use::Inline(_) => "(inline policy)".to_owned(),
    });
    let dangers = dangerously_allow.as_deref().map(|all| joined(all.iter().copied().map(Danger::word)));
    [
        ("allow_origins", entries(allow_origins.as_ref())),
        ("allow_origins_by_regex", patterns(allow_origins_by_regex.as_ref())),
        ("allow_origin_sets", entries(allow_origin_sets.as_ref())),
        ("allow_methods", entries(allow_methods.as_ref()).or_else(any)),
        ("allow_headers", entries(allow_headers.as_ref()).or_else(|| any().filter(|_| allow_header_sets.is_none()))),
        ("allow_header_sets", entries(allow_header_sets.as_ref())),
        ("expose_headers", entries(expose_headers.as_ref())),
        ("expose_header_sets", entries(expose_header_sets.as_ref())),
        ("max_age", Some(max_age.unwrap_or(Settings::DEFAULT_MAX_AGE).to_string())),
        ("allow_credentials", Some(allow_credentials.to_string())),
        ("timing_allow_origins", entries(timing_allow_origins.as_ref())),
        ("timing_allow_origins_by_regex", patterns(timing_allow_origins_by_regex.as_ref())),
        ("cross_origin_resource_policy", cross_origin_resource_policy.map(|policy| policy.word().to_owned())),
        ("allow_private_network", Some(allow_private_network.to_string())),
        ("preflight.match", word(matches)),
        ("preflight.status", Some(status.to_string())),
        ("preflight.refused_status", Some(refused_status.to_string())),
        ("preflight.cache_control", cache_control.clone()),
        ("upstream_headers", word(upstream_headers)),
        ("disallowed_origins", word(disallowed_origins)),
        ("cross_site", word(cross_site)),
        ("dangerously_allow", dangers),
        ("report_only", reported),
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

/// Returns the value of an enum, in the notation of the configuration.
fn word(value: impl Serialize) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

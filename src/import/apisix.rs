//! APISIX: the standalone file `apisix.yaml`, JSON objects of the Admin API, and ADC files.
//!
//! The behavior of APISIX is taken from its source at f519a0f0:
//! <https://github.com/apache/apisix/blob/f519a0f0/apisix/plugins/cors.lua>. `allow_origins` is compared letter by
//! letter. Regular expressions are joined with `|`, match anywhere in the origin, and switch the list off. The function
//! `rewrite` answers every OPTIONS request. The folder `apisix` has the other plugins.

pub(super) mod keys;
pub(super) mod object;
pub(super) mod plugins;

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use self::plugins::{abort, is_disabled, plugin, plugins, redirect};
use super::Parsed;
use super::closed;
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::limits;
use super::model::{
    Condition, Cors, FOREIGN, Key, Model, NO_ORIGIN, PLACEHOLDER, Policy, Route, Service, Timeouts, Upstream,
};
use super::value::Value;
use super::witness::{Answer, Witness};
use super::{origins, paths};
use crate::cors::{PreflightMatch, only_in};
use crate::problem::Known;

/// The expression `origins_pattern` of cors.lua.
static ORIGINS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(\*|\*\*|null|\w+://[^,]+(,\w+://[^,]+)*)$").expect("the expressions of this file are valid")
});

/// The keys of the plugin `cors`.
const KEYS: [&str; 11] = [
    "allow_origins",
    "allow_methods",
    "allow_headers",
    "expose_headers",
    "max_age",
    "allow_credential",
    "allow_origins_by_regex",
    "allow_origins_by_metadata",
    "timing_allow_origins",
    "timing_allow_origins_by_regex",
    "_meta",
];

/// The methods that `**` in `allow_methods` stands for.
const EVERY_METHOD: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";

/// The objects of all files, by kind.
#[derive(Default)]
struct Objects<'v> {
    routes: Vec<Object<'v>>,
    services: Vec<Object<'v>>,
    upstreams: HashMap<String, Object<'v>>,
    plugin_configs: HashMap<String, Object<'v>>,
    global_plugins: Vec<(usize, &'v Value)>,
    /// The metadata of the plugin `cors`.
    metadata: Option<&'v Value>,
    /// See [`Model::is_live`].
    is_live: bool,
}

/// The id of a service, and the hosts of its routes.
type ServiceKey = (Option<String>, Vec<String>);

/// A value with its file. In ADC files, `inside` is the service that contains the route.
#[derive(Clone, Copy)]
struct Object<'v> {
    file: usize,
    value: &'v Value,
    inside: Option<&'v Value>,
}

impl Object<'_> {
    fn at(&self, value: &Value) -> Place {
        Place { file: self.file, line: value.line }
    }

    fn id(&self) -> String {
        let named = self.value.text_of("name").or(self.value.text_of("id"));
        named.map_or_else(|| "route".to_owned(), str::to_owned)
    }
}

pub(super) fn shows_in(document: &Value) -> bool {
    let lists = ["routes", "services", "upstreams", "global_rules", "plugin_metadata"];
    let is_route = |value: &Value| value.get("uri").is_some() || value.get("uris").is_some();
    is_route(document)
        || document.list("routes").iter().any(is_route)
        || document.list("services").iter().any(|service| service.list("routes").iter().any(is_route))
        || (document.get("_format_version").is_none()
            && lists.iter().any(|list| document.list(list).iter().any(|one| one.at(&["plugins", "cors"]).is_some())))
}

pub(super) fn read(files: &[Parsed<'_>], model: &mut Model) {
    let mut objects = Objects { is_live: model.is_live, ..Objects::default() };
    for parsed in files {
        parsed.documents.iter().for_each(|document| objects.collect(parsed.file, document));
    }
    for (file, plugins) in &objects.global_plugins {
        for (name, conf) in plugins.map() {
            let at = Place { file: *file, line: conf.line };
            match &**name {
                "cors" if !is_disabled(conf) => match policy("global rule".to_owned(), conf, at, &objects) {
                    Ok(policy) => model.cors = Some(policy),
                    Err(findings) => model.findings.extend(findings),
                },
                _ => model.findings.push(plugin(name, at)),
            }
        }
    }
    // Routes with a higher priority are tried first. Routes with the same priority keep the order of the file.
    let priority = |route: &Object<'_>| route.value.get("priority").and_then(Value::number).unwrap_or(0);
    objects.routes.sort_by_key(|route| std::cmp::Reverse(priority(route)));
    // Routes of one service with the same hosts form one corsgate service.
    let mut services: Vec<(ServiceKey, Service)> = Vec::new();
    for route in &objects.routes {
        let service = objects.service_of(route);
        let hosts = hosts(route.value).or_else(|| hosts(service.as_ref()?.value)).unwrap_or_default();
        let key = (service.as_ref().map(Object::id), hosts.clone());
        let known = services.iter().position(|(known, _)| *known == key);
        let index = known.unwrap_or_else(|| {
            services.push((key, self::service(route, service.as_ref(), hosts, &objects)));
            services.len() - 1
        });
        let into = &mut services[index].1;
        if priority(route) != 0 {
            into.findings.push(Finding::new(route.at(route.value), Kind::Priority));
        }
        if let Some(route) = self::route(route, service.as_ref(), &objects, &mut into.findings) {
            into.routes.push(route);
        }
    }
    model.services.extend(services.into_iter().map(|(_, service)| service));
}

impl<'v> Objects<'v> {
    fn collect(&mut self, file: usize, document: &'v Value) {
        let object = |value: &'v Value| Object { file, value, inside: None };
        if document.get("uri").is_some() || document.get("uris").is_some() {
            self.routes.push(object(document));
        }
        self.routes.extend(document.list("routes").iter().map(object));
        for service in document.list("services") {
            self.services.push(object(service));
            let inside = service.list("routes").iter();
            self.routes.extend(inside.map(|route| Object { inside: Some(service), ..object(route) }));
        }
        let by_id = |list: &str| {
            let entries = document.list(list).iter();
            entries
                .filter_map(|one| Some((one.text_of("id").or(one.text_of("name"))?.to_owned(), object(one))))
                .collect::<Vec<_>>()
        };
        self.upstreams.extend(by_id("upstreams"));
        self.plugin_configs.extend(by_id("plugin_configs"));
        if let Some(rules) = document.get("global_rules") {
            self.global_plugins.extend(rules.entries().iter().filter_map(|rule| Some((file, rule.get("plugins")?))));
            // In ADC files, `global_rules` contains the plugins directly.
            if rules.is_map() {
                self.global_plugins.push((file, rules));
            }
        }
        if let Some(metadata) = document.get("plugin_metadata") {
            let listed = metadata.entries().iter().find(|one| one.text_of("id") == Some("cors"));
            self.metadata = self.metadata.or(listed).or(metadata.get("cors"));
        }
    }

    /// Returns the first plugin that is not imported and may refuse requests. `levels` are the route, its plugin config and
    /// its service. The plugins of global rules count for every route.
    fn missing_guard(&self, levels: &[Object<'v>]) -> Option<String> {
        if levels.iter().any(|level| level.value.get("script").is_some()) {
            return Some("script".to_owned());
        }
        let of_all = self.global_plugins.iter().flat_map(|(_, plugins)| plugins.map());
        let of_all = of_all.filter(|(name, conf)| &**name != "cors" && !is_disabled(conf)).map(|(name, _)| &**name);
        let own = plugins::of(levels);
        let own = own.iter().filter(|one| plugins::is_lost(one, self)).map(|(_, name, _)| *name);
        of_all.chain(own).find(|name| !plugins::is_harmless(name)).map(str::to_owned)
    }

    fn service_of(&self, route: &Object<'v>) -> Option<Object<'v>> {
        if let Some(value) = route.inside {
            return Some(Object { file: route.file, value, inside: None });
        }
        let id = route.value.text_of("service_id")?;
        self.services.iter().find(|service| service.value.text_of("id") == Some(id)).copied()
    }

    /// Returns the upstream of a route or service. The boolean is true if a node gets its own host in the Host header
    /// field.
    fn upstream(&self, object: &Object<'v>, findings: &mut Vec<Finding>) -> Option<(Upstream, bool)> {
        let id = object.value.text_of("upstream_id");
        let named = id.and_then(|id| Some((self.upstreams.get(id)?.value, id.to_owned())));
        let Some((value, name)) = object.value.get("upstream").map(|inline| (inline, object.id())).or(named) else {
            let name = id?.to_owned();
            findings.push(Finding::new(object.at(object.value), Kind::UnknownCluster { name: name.clone() }));
            let nodes = vec![(PLACEHOLDER.to_owned(), 1)];
            return Some((Upstream { name, nodes, tls: None, timeouts: Timeouts::default() }, false));
        };
        let at = object.at(value);
        let scheme = value.text_of("scheme").unwrap_or("http");
        let tls = matches!(scheme, "https" | "grpcs");
        let port = if tls { 443 } else { 80 };
        let mut nodes = Vec::new();
        let mut add = |address: String, weight: u64| {
            let address = if has_port(&address) { address } else { format!("{address}:{port}") };
            nodes.push((node(address, at, findings), weight));
        };
        let number =
            |value: Option<&Value>| value.and_then(Value::number).and_then(|number| u64::try_from(number).ok());
        match value.get("nodes") {
            Some(nodes) if nodes.is_map() => {
                nodes
                    .map()
                    .iter()
                    .for_each(|(address, weight)| add(address.to_string(), number(Some(weight)).unwrap_or(1)));
            }
            Some(nodes) => {
                for one in nodes.entries() {
                    let host = one.text_of("host").unwrap_or_default();
                    let address = match one.text_of("port") {
                        Some(port) => format!("{host}:{port}"),
                        None => host.to_owned(),
                    };
                    add(address, number(one.get("weight")).unwrap_or(1));
                }
            }
            None => {}
        }
        if nodes.is_empty() {
            return None;
        }
        let host_of_node = value.text_of("pass_host") == Some("node");
        // The timeouts of a route count before those of its upstream.
        let timeouts = object.value.get("timeout").or(value.get("timeout"));
        let timeouts =
            timeouts.map(|times| limits::of_map(times, ["connect", "read", "send"], 1_000)).unwrap_or_default();
        Some((Upstream { name, nodes, tls: tls.then_some(None), timeouts }, host_of_node))
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && !port.ends_with(']'))
}

/// Returns the address of a node, or a placeholder if the text is not an address.
pub(super) fn node(address: String, at: Place, findings: &mut Vec<Finding>) -> String {
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port != 0);
    if port.is_some() && address.chars().all(is_host) {
        return address;
    }
    findings.push(Finding::new(at, Kind::PlaceholderNode { text: address }));
    PLACEHOLDER.to_owned()
}

fn hosts(value: &Value) -> Option<Vec<String>> {
    let listed = value.get("hosts").or(value.get("host"))?;
    Some(listed.texts().into_iter().map(|(_, host)| host).collect())
}

fn service<'v>(route: &Object<'v>, service: Option<&Object<'v>>, hosts: Vec<String>, objects: &Objects<'v>) -> Service {
    let of = service.unwrap_or(route);
    let mut findings = Vec::new();
    let mut cors = Cors::Inherited;
    let mut upstream = None;
    let mut host_of_node = false;
    if let Some(service) = service {
        cors = plugins(&plugins::of(&[*service]), objects, &mut findings).0;
        if let Some((found, node)) = objects.upstream(service, &mut findings) {
            (upstream, host_of_node) = (Some(found), node);
        }
    } else {
        host_of_node = objects.upstream(route, &mut Vec::new()).is_some_and(|(_, node)| node);
    }
    if host_of_node {
        findings.push(Finding::new(of.at(of.value), Kind::HostHeaderOfNode));
    }
    Service {
        name: of.id(),
        at: of.at(of.value),
        hosts,
        upstream,
        cors,
        host_of_node,
        listener: None,
        routes: Vec::new(),
        findings,
    }
}

fn route<'v>(
    route: &Object<'v>,
    service: Option<&Object<'v>>,
    objects: &Objects<'v>,
    of_service: &mut Vec<Finding>,
) -> Option<Route> {
    let at = route.at(route.value);
    let mut leave_out = |kind: Kind| {
        of_service.push(Finding::new(at, kind));
        None
    };
    if route.value.text_of("status") == Some("0") {
        return leave_out(Kind::Feature { name: "routes with `status: 0`, which are switched off".to_owned() });
    }
    let conditions = ["vars", "filter_func", "remote_addr", "remote_addrs"];
    let condition = conditions.into_iter().find(|what| route.value.get(what).is_some());
    let condition = condition.map(|what| Condition::new(format!("`{what}`")));
    let (mut patterns, mut findings) = (Vec::new(), Vec::new());
    let uris = route.value.get("uris").or(route.value.get("uri"));
    for (line, uri) in uris.map(Value::texts).unwrap_or_default() {
        let (pattern, said) = uri_pattern(&uri, Place { line, ..at });
        patterns.extend(pattern);
        findings.extend(said);
    }
    let upstream = objects.upstream(route, &mut findings).map(|(upstream, _)| upstream);
    let of_the_service = service.is_some_and(|service| objects.upstream(service, &mut Vec::new()).is_some());
    let config = route.value.text_of("plugin_config_id").and_then(|id| objects.plugin_configs.get(id));
    let mut has_missing_part = false;
    for (key, what, is_known) in
        [("service_id", "service", service.is_some()), ("plugin_config_id", "plugin config", config.is_some())]
    {
        if let Some(name) = route.value.text_of(key).filter(|_| !is_known) {
            findings.push(Finding::new(at, Kind::NotInFiles { what, name: name.to_owned() }));
            has_missing_part = true;
        }
    }
    let levels: Vec<Object<'v>> = [Some(route), config, service].into_iter().flatten().copied().collect();
    let answer = levels.iter().find_map(redirect).or_else(|| levels.iter().find_map(abort));
    if patterns.is_empty() {
        left_out(of_service, &mut findings);
        return None;
    }
    let has_no_upstream = upstream.is_none() && !of_the_service && answer.is_none();
    if has_no_upstream && !has_missing_part {
        findings.push(Finding::new(at, Kind::WithoutUpstream));
    }
    let guard = objects.is_live.then(|| objects.missing_guard(&levels)).flatten();
    let has_missing_guard = guard.is_some();
    findings.extend(guard.map(|plugin| Finding::new(at, Kind::GuardMissing { plugin })));
    // APISIX also refuses the requests of a route with a missing part, which may have its policy.
    let is_closed = has_no_upstream || has_missing_part || has_missing_guard;
    // The timeouts of a route count for the upstream of its service too.
    let of_service_with_timeouts = || {
        let times = route.value.get("timeout")?;
        let (mut upstream, _) = objects.upstream(service?, &mut Vec::new())?;
        upstream.timeouts = limits::of_map(times, ["connect", "read", "send"], 1_000);
        Some(upstream)
    };
    let upstream = upstream.or_else(of_service_with_timeouts).filter(|_| answer.is_none());
    let own: Vec<Object<'v>> = [Some(route), config].into_iter().flatten().copied().collect();
    let own = plugins::of(&own);
    let (cors, mut behaviors) = plugins(&own, objects, &mut findings);
    // The policy of the service is inherited. The findings about its plugins are those of the service.
    let mut of_both = plugins::of(&levels);
    of_both.retain(|(_, name, _)| *name != "cors");
    if of_both.len() > own.iter().filter(|(_, name, _)| *name != "cors").count() {
        behaviors = plugins(&of_both, objects, &mut Vec::new()).1;
    }
    let methods: Vec<String> =
        route.value.get("methods").map(Value::texts).unwrap_or_default().into_iter().map(|(_, m)| m).collect();
    let has_policy = !matches!(cors, Cors::Off);
    let preflights = methods.iter().find(|method| !["GET", "HEAD", "POST", "OPTIONS"].contains(&method.as_str()));
    if !methods.is_empty() && !methods.iter().any(|method| method == "OPTIONS") && has_policy {
        let asked = preflights.or(methods.first()).cloned().unwrap_or_default();
        let witness = Witness::preflight(&asked, &sample_origin(&cors, service, objects), Answer::NotRouted);
        findings.push(Finding::new(at, Kind::OptionsNotRouted { methods: methods.clone() }).with(witness));
    }
    let body_limit = of_both.iter().find_map(plugins::body_limit);
    let mut made = Route {
        name: route.id(),
        at,
        paths: patterns,
        methods,
        condition,
        upstream,
        cors,
        behaviors,
        answer,
        body_limit,
        findings,
        ..Route::default()
    };
    if is_closed {
        closed::close(&mut made);
    }
    Some(made)
}

/// Returns an origin that the policy of a route allows.
fn sample_origin<'v>(cors: &Cors, service: Option<&Object<'v>>, objects: &Objects<'v>) -> String {
    if let Cors::Policy(policy) = cors {
        return policy.sample_origin();
    }
    let of_service = service.map(|service| plugins(&plugins::of(&[*service]), objects, &mut Vec::new()).0);
    match of_service {
        Some(Cors::Policy(policy)) => policy.sample_origin(),
        _ => "https://app.example".to_owned(),
    }
}

/// Converts a `uri` of the router `radixtree_uri`. It is a whole path, or a text prefix with `*` at its end.
fn uri_pattern(uri: &str, at: Place) -> paths::Converted {
    match uri.strip_suffix('*') {
        Some(prefix) => paths::text_prefix(prefix, at),
        None => paths::exact(uri, at),
    }
}

// --- CORS

/// Reads the plugin `cors`. Err: the findings with the reasons why the policy is not imported.
fn policy(name: String, conf: &Value, at: Place, objects: &Objects<'_>) -> Result<Policy, Vec<Finding>> {
    let mut policy = Policy::new(name, at);
    let place = |key: &str| Place { line: conf.get(key).map_or(at.line, |value| value.line), ..at };
    for (key, value) in conf.map() {
        if !KEYS.contains(&&**key) {
            let known = Known::instead_of(key, KEYS.map(str::to_owned).to_vec());
            let meant = KEYS.into_iter().find(|word| known.nearest() == Some(*word));
            let kind = Kind::KeyIgnored { key: key.to_string(), meant };
            policy.note(Key::Policy, Finding::new(Place { line: value.line, ..at }, kind));
        }
    }
    let refuse = |key: &str, why: &str| {
        let mut findings = vec![Finding::new(place(key), Kind::RefusedByEngine { why: why.to_owned() })];
        findings.extend(policy.findings.iter().map(|(_, finding)| finding.clone()));
        Err(findings)
    };
    let text = |key: &str, default: &'static str| conf.text_of(key).unwrap_or(default).to_owned();
    let allow_origins = text("allow_origins", "*");
    let (methods, headers) = (text("allow_methods", "*"), text("allow_headers", "*"));
    let (expose, timing) = (text("expose_headers", ""), text("timing_allow_origins", ""));
    policy.credentials = conf.get("allow_credential").and_then(Value::truth) == Some(true);
    if !ORIGINS.is_match(&allow_origins) {
        return refuse("allow_origins", "`allow_origins` is neither `*` nor a list of origins without blanks");
    }
    if policy.credentials && [&allow_origins, &methods, &headers, &expose, &timing].iter().any(|value| *value == "*") {
        return refuse(
            "allow_credential",
            "`allow_credential` cannot be combined with `*`, which is also the default of origins, methods and headers",
        );
    }
    if conf.get("max_age").is_some_and(|age| age.number().is_none()) {
        return refuse("max_age", "`max_age` is not a number");
    }
    policy.methods = names(if methods == "**" { EVERY_METHOD } else { &methods });
    match &*headers {
        "**" => policy.allow_every_header(place("allow_headers")),
        headers => policy.headers = names(headers),
    }
    for (key, name, list) in [(Key::Methods, "allow_methods", &methods), (Key::Headers, "allow_headers", &headers)] {
        if list.contains([' ', '\t']) || list.contains(",,") {
            policy.note(key, Finding::new(place(name), Kind::BlankEntries { list: list.clone() }));
        }
    }
    if expose == "**" {
        let kind = Kind::EntryIgnored { entry: expose, why: "it is not the name of a header" };
        policy.note(Key::Expose, Finding::new(place("expose_headers"), kind));
    } else {
        policy.expose = names(&expose);
    }
    let defaults = [("allow_methods", Key::Methods), ("allow_headers", Key::Headers), ("allow_origins", Key::Origins)];
    let has_other_origins = conf.get("allow_origins_by_regex").or(conf.get("allow_origins_by_metadata")).is_some();
    for (name, key) in defaults.into_iter().filter(|(name, _)| conf.get(name).is_none()) {
        if name != "allow_origins" || !has_other_origins {
            policy.note(key, Finding::new(at, Kind::Default { key: name }));
        }
    }
    policy.preflight = PreflightMatch::Any;
    policy.note(Key::Preflight, Finding::new(at, Kind::EveryOptionsAnswered));
    origins_of(conf, &allow_origins, &mut policy, &place, objects);
    timing_of(conf, &timing, &mut policy, &place);
    policy.set_max_age(conf.get("max_age").and_then(Value::number).unwrap_or(5), place("max_age"));
    Ok(policy)
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

fn origins_of(
    conf: &Value,
    allow_origins: &str,
    policy: &mut Policy,
    place: &dyn Fn(&str) -> Place,
    objects: &Objects<'_>,
) {
    let list_at = place("allow_origins");
    let by_regex = conf.get("allow_origins_by_regex").map(Value::texts);
    let keys = conf.get("allow_origins_by_metadata").map(Value::texts);
    // In the function `header_filter`, `*` in `allow_origins` does not count if there are metadata keys.
    let counts = keys.is_none() || allow_origins != "*";
    if let Some(keys) = &keys {
        let of_key = |key: &str| objects.metadata?.get("allow_origins")?.text_of(key);
        let mut known = Vec::new();
        for (line, key) in keys {
            let at = Place { line: *line, ..list_at };
            match of_key(key) {
                Some(list) => {
                    known.push(key.clone());
                    add_list(list, policy, at);
                }
                None => {
                    let kind = Kind::EntryIgnored { entry: key.clone(), why: "the plugin metadata has no such key" };
                    policy.note(Key::Origins, Finding::new(at, kind));
                }
            }
        }
        if !known.is_empty() {
            policy.note(
                Key::Origins,
                Finding::new(place("allow_origins_by_metadata"), Kind::MetadataKeys { keys: known }),
            );
        }
    }
    match by_regex {
        Some(expressions) if counts => {
            if conf.get("allow_origins").is_some() && allow_origins != "*" {
                let kind = Kind::ListSwitchedOff { list: allow_origins.to_owned() };
                policy.note(Key::Origins, Finding::new(list_at, kind));
            }
            for (line, source) in expressions {
                let theirs = format!(".*(?:{source}).*");
                origins::expression(policy, &source, &theirs, &source, Place { line, ..list_at });
            }
        }
        _ if counts => add_list(allow_origins, policy, list_at),
        _ => {}
    }
    if policy.is_any_origin() {
        if policy.credentials {
            let witness = Witness::request("GET", "null", Answer::WithCredentials);
            policy.note(Key::Origins, Finding::new(list_at, Kind::NullReflected).with(witness));
        }
        return;
    }
    policy.note(Key::Policy, Finding::new(policy.at, Kind::VaryAdded));
    // APISIX sends a single origin to every page, and browsers refuse it for other pages. In all other cases, APISIX
    // sets no header for an origin that is not listed.
    let is_single = keys.is_none() && conf.get("allow_origins_by_regex").is_none() && !allow_origins.contains(',');
    if !is_single {
        let witness = Witness::request("GET", FOREIGN, Answer::ServiceDecides);
        policy.note(Key::Policy, Finding::new(policy.at, Kind::ServiceHeadersRemain).with(witness));
    }
}

fn add_list(list: &str, policy: &mut Policy, at: Place) {
    if matches!(list, "*" | "**") {
        return policy.origins.push("*".to_owned());
    }
    for entry in list.split(',').filter(|entry| !entry.is_empty()) {
        if entry.contains('*') {
            let why = "APISIX compares origins letter by letter, and no browser sends `*`";
            policy.note(Key::Origins, Finding::new(at, Kind::EntryIgnored { entry: entry.to_owned(), why }));
        } else {
            origins::exact(policy, entry);
        }
    }
}

fn timing_of(conf: &Value, timing: &str, policy: &mut Policy, place: &dyn Fn(&str) -> Place) {
    match conf.get("timing_allow_origins_by_regex").map(Value::texts) {
        Some(expressions) => {
            if !timing.is_empty() {
                let kind = Kind::ListSwitchedOff { list: timing.to_owned() };
                policy.note(Key::Policy, Finding::new(place("timing_allow_origins"), kind));
            }
            for (line, source) in expressions {
                let theirs = format!(".*(?:{source}).*");
                // An expression for a part of the origin matches no whole origin.
                let is_part = only_in(&source, NO_ORIGIN).is_none() && only_in(&theirs, NO_ORIGIN).is_some();
                let own = if is_part { theirs.clone() } else { source.clone() };
                if only_in(&theirs, &own).is_some() {
                    let at = Place { line, ..place("timing_allow_origins_by_regex") };
                    let kind = Kind::ExpressionNotAnchored { expression: source };
                    policy.note(Key::Policy, Finding::new(at, kind));
                }
                policy.timing_expressions.push(own);
            }
        }
        None if matches!(timing, "*" | "**") => policy.timing_origins = vec!["*".to_owned()],
        None => policy.timing_origins = names(timing),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Row, asks, get, only, options, same, table};
    use super::super::witness::Answer::*;

    /// Returns a standalone file with one route.
    fn route(cors: &str) -> String {
        format!(
            "routes:\n  - uri: /hello\n    id: \"1\"\n    plugins:\n      cors: {{ {cors} }}\n    upstream: {{ nodes: {{ \
             \"127.0.0.1:1980\": 1 }} }}\n#END\n"
        )
    }

    fn at_hello(rows: Vec<Row>) -> Vec<Row> {
        rows.into_iter().map(|row| row.at("/hello")).collect()
    }

    fn check(what: &str, cors: &str, rows: Vec<Row>) -> (String, Vec<&'static str>) {
        table("a.example", what, &route(cors), &at_hello(rows))
    }

    /// The cases about answers in <https://github.com/apache/apisix/blob/f519a0f0/t/plugin/cors.t>, with their numbers.
    #[test]
    fn the_cases_of_cors_t() {
        let refused = |what: &str, cors: &str| {
            let (text, codes) = check(what, cors, vec![same("https://a.example", ServiceDecides)]);
            assert!(codes.contains(&"refused-by-engine") && text.contains("cors: false"), "{what}: {codes:?}\n{text}");
        };
        let default = check(
            "7: cors default",
            "",
            vec![
                same("https://a.example", Readable),
                asks("PUT", "https://a.example", Readable, Readable, ""),
                options("https://a.example", Readable, Readable, ""),
            ],
        );
        assert!(default.0.contains("max_age: 5") && default.0.contains("preflight: { match: any }"), "{}", default.0);
        let specified = "allow_origins: 'http://sub.domain.com,http://sub2.domain.com', allow_methods: 'GET,POST', allow_headers: \
                         'headr1,headr2', expose_headers: 'ex-headr1,ex-headr2', max_age: 50, allow_credential: true";
        let listed = check(
            "9, 10: cors specified",
            specified,
            vec![
                same("http://sub2.domain.com", WithCredentials),
                get("http://sub3.domain.com", ServiceDecides, Unreadable, "service-headers-remain"),
                asks("POST", "http://sub3.domain.com", Unreadable, Unreadable, ""),
            ],
        );
        for part in
            ["[headr1, headr2]", "[ex-headr1, ex-headr2]", "max_age: 50", "dangerously_allow: [insecure_origins]"]
        {
            assert!(listed.0.contains(part), "no {part}:\n{}", listed.0);
        }
        let forced = check(
            "12, 13: force wildcard",
            "allow_origins: '**', allow_methods: '**', allow_headers: '**', expose_headers: '*'",
            vec![
                same("https://sub.domain.com", Readable),
                asks("PATCH", "https://sub.domain.com", Readable, Readable, ""),
            ],
        );
        assert!(forced.0.contains("allow_headers: [\"*\", Authorization]"), "{}", forced.0);
        let reflecting = "allow_origins: '**', allow_methods: '**', allow_headers: request-h, expose_headers: expose-h, allow_credential: true";
        let reflected = check(
            "4, 18: every origin with credentials",
            reflecting,
            vec![
                same("https://sub.domain.com", WithCredentials),
                same("https://evil.test", WithCredentials),
                get("null", WithCredentials, Unreadable, "null-reflected"),
            ],
        );
        assert!(reflected.1.contains(&"reflects-any-origin"));
        assert!(reflected.0.contains("dangerously_allow: [any_origin_with_credentials]"));
        refused("24: * with credentials", "allow_origins: '*', allow_credential: true");
        refused("25: methods", "allow_origins: 'http://a.b', allow_methods: '*', allow_credential: true");
        refused(
            "26: headers",
            "allow_origins: 'http://a.b', allow_methods: GET, allow_headers: '*', allow_credential: true",
        );
        refused("the defaults count", "allow_origins: 'http://a.b', allow_methods: GET, allow_credential: true");
        refused(
            "27: exposed headers",
            "allow_origins: 'http://a.b', allow_methods: GET, allow_headers: h, expose_headers: '*', allow_credential: true",
        );
        refused("2: a wrong type", "max_age: '5x'");
        let with_regex = |regex: &str| format!("{specified}, allow_origins_by_regex: [{regex}]");
        let regex = check(
            "29, 30: regex specified",
            &with_regex(r#"".*\\.test.com$""#),
            vec![
                same("http://a.test.com", WithCredentials),
                get("http://a.test2.com", ServiceDecides, Unreadable, "service-headers-remain"),
                get("http://sub.domain.com", ServiceDecides, Unreadable, "list-switched-off"),
                // The dot before `com` is not escaped and matches any character.
                same("http://a.testxcom", WithCredentials),
            ],
        );
        assert!(regex.1.contains(&"check-says"), "{:?}", regex.1);
        check(
            "32, 33: multiple regex",
            &with_regex(r#"".*\\.test.com$", ".*\\.example.org$""#),
            vec![
                same("http://foo.example.org", WithCredentials),
                get("http://foo.example.com", ServiceDecides, Unreadable, "service-headers-remain"),
            ],
        );
    }

    /// Cases 34 and 35 of cors.t. The plugin `proxy-rewrite` changes the Origin for the service. The page's own counts.
    #[test]
    fn an_origin_that_is_rewritten_for_the_service_does_not_count() {
        let cors = "allow_origins: 'http://sub.domain.com', allow_methods: 'GET,POST', allow_headers: h, allow_credential: true";
        let source = route(cors).replace(
            "    upstream:",
            "      proxy-rewrite: { headers: { Origin: 'http://example.com' } }\n    upstream:",
        );
        let rows = vec![same("http://sub.domain.com", WithCredentials), same("http://example.com", Unreadable)];
        let rewritten = table("a.example", "34, 35: a rewritten origin", &source, &at_hello(rows));
        only(&rewritten, &["Origin: \"http://example.com\""]);
    }

    /// The cases of `t/plugin/cors2.t` to `cors4.t` at f519a0f0, with file and number.
    #[test]
    fn the_cases_of_cors2_t_to_cors4_t() {
        check(
            "2-3, 2-5: a regex beside the default of allow_origins",
            r#"allow_origins: "*", allow_origins_by_regex: [".*\\.domain.com$"]"#,
            vec![
                same("http://sub.domain.com", Readable),
                get("http://sub.test.com", ServiceDecides, Unreadable, "service-headers-remain"),
            ],
        );
        let metadata = |cors: &str| {
            let route = route(cors);
            format!(
                "plugin_metadata:\n  - id: cors\n    allow_origins:\n      key_1: \"https://domain.com\"\n      key_2: \
                 \"https://sub.domain.com,https://sub2.domain.com\"\n      key_3: \"*\"\n{route}"
            )
        };
        let check = |what: &str, cors: &str, rows: Vec<Row>| table("a.example", what, &metadata(cors), &at_hello(rows));
        check(
            "3-4 to 3-6",
            r#"allow_origins: "https://test.com", allow_origins_by_metadata: [key_1]"#,
            vec![
                same("https://test.com", Readable),
                same("https://domain.com", Readable),
                get("http://foo.example.org", ServiceDecides, Unreadable, "service-headers-remain"),
            ],
        );
        check(
            "3-10",
            r#"allow_origins: "https://test.com", allow_origins_by_metadata: [key_1, key_2]"#,
            vec![same("https://sub.domain.com", Readable), same("https://sub2.domain.com", Readable)],
        );
        check("3-12", "allow_origins_by_metadata: [key_3]", vec![same("http://foo.example.org", Readable)]);
        check(
            "3-14",
            r#"allow_origins: "*", allow_origins_by_metadata: [key_1]"#,
            vec![
                get("http://foo.example.org", ServiceDecides, Unreadable, "service-headers-remain"),
                same("https://domain.com", Readable),
            ],
        );
        let (text, _) = check("4-3", r#"timing_allow_origins: "http://sub.domain.com""#, vec![]);
        assert!(text.contains("timing_allow_origins: [http://sub.domain.com]"), "{text}");
        let regex = r#"allow_origins_by_regex: ["http://.*?\\.domain\\.com"], timing_allow_origins_by_regex: ["http://test.*?\\.domain\\.com"], timing_allow_origins: "http://nonexistent.newdomain.com""#;
        let (text, codes) = check(
            "4-22, 4-23, 4-25: expressions",
            regex,
            vec![
                same("http://testurl.domain.com", Readable),
                get("http://other.newdomain.com", ServiceDecides, Unreadable, "service-headers-remain"),
            ],
        );
        assert!(
            text.contains(r"timing_allow_origins_by_regex: ['http://test.*?\.domain\.com']")
                && !text.contains("[http://nonexistent"),
            "{text}"
        );
        assert!(codes.contains(&"list-switched-off"), "{codes:?}");
        let every =
            "allow_origins: '**', allow_methods: '**', allow_headers: '**', allow_credential: true, max_age: 3500";
        for (case, expose, part) in
            [("4-27", "", None), ("4-29", "ex-headr1,ex-headr2", Some("[ex-headr1, ex-headr2]"))]
        {
            let (text, _) = check(
                case,
                &format!("{every}, expose_headers: '{expose}'"),
                vec![same("http://sub.domain.com", WithCredentials)],
            );
            assert_eq!(text.contains("expose_headers:"), part.is_some(), "{text}");
            assert!(part.is_none_or(|part| text.contains(part)) && text.contains("max_age: 3500"), "{text}");
        }
    }

    /// Behavior of cors.lua and the router that those cases do not cover.
    #[test]
    fn values_that_apisix_misreads() {
        let misspelt = check(
            "a key with an s",
            "allow_origins: 'https://a.example,https://b.example', allow_credentials: true",
            vec![same("https://a.example", Readable)],
        );
        assert!(misspelt.1.contains(&"key-ignored"));
        // `re_find` searches without anchors.
        check(
            "an expression without its end",
            r#"allow_origins_by_regex: ["^https://app\\.example"]"#,
            vec![
                same("https://app.example", Readable),
                get("https://app.example.evil.test", Readable, Unreadable, "expression-not-anchored"),
            ],
        );
        check(
            "an expression for a part",
            r#"allow_origins_by_regex: ["\\.app\\.example$"]"#,
            vec![same("https://a.app.example", Readable)],
        );
        // APISIX looks the origin up in a table, so `*` is an ordinary character.
        let wildcard = check(
            "a wildcard in a list",
            "allow_origins: 'https://*.a.example,https://b.example'",
            vec![get("https://x.a.example", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        assert!(wildcard.1.contains(&"entry-ignored"));
        // `origins_pattern` allows no blanks.
        let blanks = check("blanks", "allow_origins: 'https://a.example, https://b.example'", vec![]);
        assert!(blanks.1.contains(&"refused-by-engine"));
        // APISIX sends the origin to every page, and browsers refuse it for other pages.
        let one =
            check("one origin", "allow_origins: 'https://a.example'", vec![same("https://evil.test", Unreadable)]);
        assert!(!one.1.contains(&"service-headers-remain"));
    }

    #[test]
    fn routes_services_and_admin_objects() {
        let source = "upstreams: [{ id: u, nodes: { \"n:80\": 1 } }]\nservices:\n  - id: s\n    upstream_id: u\n    plugins: { cors: { \
                      allow_origins: 'https://a.example' } }\nroutes:\n  - { id: read, uri: /x/*, methods: [GET], service_id: s }\n  - { \
                      id: write, uri: /x/*, methods: [POST, PUT], service_id: s, plugins: { jwt-auth: {} } }\n";
        let rows = [
            asks("PUT", "https://a.example", NotRouted, Readable, "options-not-routed").at("/x/1"),
            get("https://a.example", Readable, Readable, "").at("/x/1"),
        ];
        let (text, codes) = table("any.example", "services", source, &rows);
        assert!(codes.contains(&"feature") && codes.contains(&"path-without-slash"), "{codes:?}\n{text}");
        let admin = r#"{"list": 1, "routes": [{"id": "r", "uri": "/v1*", "hosts": ["a.example", "*.b.example"], "priority": 3,
            "plugins": {"proxy-rewrite": {"regex_uri": ["^/v1(.*)", "$1"]}, "cors": {"_meta": {"disable": true}}},
            "upstream": {"scheme": "https", "pass_host": "node", "nodes": [{"host": "n.example", "weight": 2}]}},
            {"id": "v", "uri": "/vars", "vars": [["arg_x", "==", "1"]], "upstream": {"nodes": {"${{X}}:1": 1}}}]}"#;
        let (text, codes) = table(
            "a.example",
            "admin",
            admin,
            &[get("https://a.example", ServiceDecides, ServiceDecides, "").at("/v1/x")],
        );
        for part in [
            "hosts: [a.example, \"*.b.example\"]",
            "strip_prefix: /v1",
            "tls: {}",
            "n.example:443",
            "upstream_host: node",
        ] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        for code in ["match-not-imported", "priority", "host-header", "path-prefix"] {
            assert!(codes.contains(&code), "no {code}: {codes:?}");
        }
    }

    /// Tests `redirect.lua`, `proxy-rewrite.lua` and `response-rewrite.lua` at f519a0f0, and `vars` of a route.
    #[test]
    fn other_plugins_and_conditions() {
        let source = "routes:\n- { id: old, uri: /old, plugins: { redirect: { uri: 'https://b.example/new', ret_code: 301 } } }\n- { id: https, uri: /s, plugins: { \
                      redirect: { http_to_https: true } } }\n- id: x\n  uri: /x\n  plugins:\n    proxy-rewrite: { host: b.internal, headers: { set: { X-A: '1', \
                      X-B: $remote_addr }, remove: [X-C] } }\n    response-rewrite: { headers: { add: ['X-D: d'] } }\n  upstream: { nodes: { 'n:1': 1 } }\n- { \
                      id: v, uri: /v, vars: [[http_x, ==, y]], plugins: { cors: { allow_origins: 'https://a.example' } }, upstream: { nodes: { 'n:1': 1 } } \
                      }\n- { id: w, uri: /v, upstream: { nodes: { 'n:1': 1 } } }\n";
        let imported = table("any.example", "plugins", source, &[]);
        only(
            &imported,
            &[
                "redirect: { to: \"https://b.example/new\", status: 301 }",
                "redirect: { to: \"https://{host}{uri}\", status: 308 }",
                "upstream_host: b.internal",
                "X-A: \"1\"",
                "remove: [X-C]",
                "X-D: \"d\"",
            ],
        );
        for code in ["header-not-imported", "redirect-status", "condition-lost"] {
            assert!(imported.1.contains(&code), "no {code}: {:?}\n{}", imported.1, imported.0);
        }
    }
}

//! Envoy: a static bootstrap file, or only its part with virtual hosts.
//!
//! The behavior of Envoy is taken from its source at 001cbf14:
//! <https://github.com/envoyproxy/envoy/blob/001cbf14/source/extensions/filters/http/cors/cors_filter.cc>. Each
//! attribute comes from the nearest level that has it. An origin matcher is also compared with the text `*`. A
//! preflight from an origin that is not allowed is forwarded, unless `forward_not_matching_preflights` is false.

use super::Parsed;
use super::apisix::node;
use super::closed;
use super::edits::{self, Edit, Target};
use super::finding::{Finding, Kind, Place};
use super::finish::{first_wins, left_out};
use super::limits;
use super::model::{
    Behaviors, Condition, Cors, EdgeAnswer, Edits, Key, Model, PLACEHOLDER, Policy, Route, Service, Timeouts, Upstream,
};
use super::origins::{self, Matcher};
use super::value::Value;
use super::witness::{Answer, Witness};
use super::{paths, weights};
use crate::cors::PreflightMatch;

const FILTER: &str = "envoy.filters.http.cors";
/// The reason why a policy of a redirect or of a direct response has no effect.
pub(super) const ANSWERS: &str = "Envoy has no CORS headers on redirects and direct responses";

pub(super) fn shows_in(document: &Value) -> bool {
    document.get("static_resources").is_some()
        || document.get("virtual_hosts").is_some()
        || document.at(&["route_config", "virtual_hosts"]).is_some()
}

/// The policies that apply to a route, the nearest first.
type Levels<'v> = Vec<&'v Value>;

/// A file, and whether its connection manager has the CORS filter.
struct Config<'v> {
    file: usize,
    document: &'v Value,
    /// `None` if the file does not show the HTTP filters.
    has_filter: Option<bool>,
}

impl Config<'_> {
    fn at(&self, value: &Value) -> Place {
        Place { file: self.file, line: value.line }
    }
}

pub(super) fn read(files: &[Parsed<'_>], model: &mut Model) {
    for parsed in files {
        for document in parsed.documents {
            let mut managers = Vec::new();
            let is_manager =
                |filter: &Value| filter.get("typed_config").is_some_and(|config| config.get("route_config").is_some());
            for listener in document.at(&["static_resources", "listeners"]).map(Value::entries).unwrap_or_default() {
                let socket = listener.at(&["address", "socket_address"]);
                let text = |key: &str| socket.and_then(|socket| socket.text_of(key)).unwrap_or_default();
                let address = format!("the listener `{}:{}`", text("address"), text("port_value"));
                for filter in listener.list("filter_chains").iter().flat_map(|chain| chain.list("filters")) {
                    if !is_manager(filter) {
                        let name = format!("network filter `{}`", filter.text_of("name").unwrap_or("without a name"));
                        let at = Place { file: parsed.file, line: filter.line };
                        model.findings.push(Finding::new(at, Kind::Feature { name }));
                        continue;
                    }
                    managers.extend(filter.get("typed_config").map(|config| (config, Some(address.clone()))));
                }
                for chain in listener.list("filter_chains") {
                    if let Some(matched) = chain.get("filter_chain_match") {
                        let name = "`filter_chain_match` of a listener".to_owned();
                        let at = Place { file: parsed.file, line: matched.line };
                        model.findings.push(Finding::new(at, Kind::Feature { name }));
                    }
                    if let Some(tls) = chain.get("transport_socket") {
                        let name = "TLS of a listener: name the certificates in `listeners`".to_owned();
                        let at = Place { file: parsed.file, line: tls.line };
                        model.findings.push(Finding::new(at, Kind::Feature { name }));
                    }
                }
            }
            if managers.is_empty() {
                managers.push((document, None));
            }
            for (manager, listener) in managers {
                let filters = manager.get("http_filters").map(Value::entries);
                let names = |filters: &[Value]| {
                    filters
                        .iter()
                        .any(|filter| filter.text_of("name").is_some_and(|name| name == FILTER || name == "envoy.cors"))
                };
                let config = Config { file: parsed.file, document, has_filter: filters.map(names) };
                for filter in filters.unwrap_or_default() {
                    let name = filter.text_of("name").unwrap_or("without a name");
                    if ![FILTER, "envoy.cors", "envoy.filters.http.router", "envoy.router"].contains(&name) {
                        let kind = Kind::Feature { name: format!("HTTP filter `{name}`") };
                        model.findings.push(Finding::new(config.at(filter), kind));
                    }
                }
                let hosts = manager.at(&["route_config", "virtual_hosts"]).or(manager.get("virtual_hosts"));
                for host in hosts.map(Value::entries).unwrap_or_default() {
                    model.services.push(Service { listener: listener.clone(), ..virtual_host(host, &config) });
                }
            }
        }
    }
}

fn virtual_host(host: &Value, config: &Config<'_>) -> Service {
    let name = host.text_of("name").unwrap_or("host");
    let mut findings = Vec::new();
    let mut hosts = Vec::new();
    let mut is_any = false;
    for (_, domain) in host.get("domains").map(Value::texts).unwrap_or_default() {
        match domain.as_str() {
            "*" => is_any = true,
            // In Envoy, a domain with a port matches only requests that name the port. corsgate ignores ports.
            domain => hosts.push(domain.rsplit_once(':').map_or(domain, |(host, _)| host).to_owned()),
        }
    }
    if is_any {
        hosts.clear();
    }
    let of_host = level(host, host.get("cors"));
    let mut routes: Vec<Route> = Vec::new();
    for (index, route) in host.list("routes").iter().enumerate() {
        let of_route = level(route, route.at(&["route", "cors"]));
        let typed = [of_route.0, of_host.0];
        let levels: Levels<'_> = match typed.iter().any(Option::is_some) {
            true => typed.into_iter().flatten().collect(),
            false => [of_route.1, of_host.1].into_iter().flatten().collect(),
        };
        let name = route.text_of("name").map_or_else(|| format!("{name}-{}", index + 1), str::to_owned);
        routes.extend(self::route(route, host, name, &levels, config, &mut findings));
    }
    findings.extend(first_wins(&mut routes));
    Service {
        name: name.to_owned(),
        at: config.at(host),
        hosts,
        upstream: None,
        cors: Cors::Off,
        host_of_node: false,
        listener: None,
        routes,
        findings,
    }
}

/// Returns the policy of a level in `typed_per_filter_config`, and the policy in the field of earlier versions.
fn level<'v>(value: &'v Value, field: Option<&'v Value>) -> (Option<&'v Value>, Option<&'v Value>) {
    let typed = value.at(&["typed_per_filter_config", FILTER]);
    (typed, field)
}

fn route(
    route: &Value,
    host: &Value,
    name: String,
    levels: &Levels<'_>,
    config: &Config<'_>,
    of_host: &mut Vec<Finding>,
) -> Option<Route> {
    let at = config.at(route);
    let condition = route.get("match")?;
    let condition_of = |(key, what): (&str, &str)| {
        let value = condition.get(key)?;
        let exact = |one: &Value| {
            let text = one.at(&["string_match", "exact"]).or(one.get("exact_match")).and_then(Value::text)?;
            Some((one.text_of("name")?.to_owned(), text.to_owned()))
        };
        Some(match key {
            "headers" => Condition::headers(value.entries().iter().filter_map(exact).collect()),
            _ => Condition::new(what),
        })
    };
    let conditions = [
        ("headers", "headers"),
        ("query_parameters", "the query"),
        ("runtime_fraction", "a part of the requests"),
        ("grpc", "gRPC"),
        ("dynamic_metadata", "metadata"),
        ("tls_context", "the certificate of the client"),
    ];
    let unknown = conditions.into_iter().find_map(condition_of);
    let texts = [("prefix", 0), ("path", 1), ("path_separated_prefix", 2)];
    let simple = texts.iter().find_map(|(key, kind)| Some((condition.text_of(key)?, *kind)));
    let (pattern, mut findings) = match simple {
        Some((prefix, 0)) => paths::text_prefix(prefix, at),
        Some((path, 1)) => paths::exact(path, at),
        // Without a slash at its end, as Envoy requires it.
        Some((prefix, _)) => paths::segments(prefix, at),
        // In Envoy, a regular expression must match the whole path.
        None => {
            let regex = condition.at(&["safe_regex", "regex"]).and_then(Value::text).unwrap_or("");
            paths::expression(&format!("{}$", regex.trim_end_matches('$')), at)
        }
    };
    let Some(pattern) = pattern else {
        left_out(of_host, &mut findings);
        return None;
    };
    if condition.get("case_sensitive").and_then(Value::truth) == Some(false) {
        findings.extend(paths::without_case(&pattern, at));
    }
    let mut behaviors = Behaviors::default();
    headers(&[route, host], &mut behaviors, config, &mut findings);
    let (mut upstream, mut answer) = (None, None);
    if let Some(action) = route.get("route") {
        upstream = self::upstream(action, config, &mut findings);
        if let (Some(upstream), Some(timeout)) = (&mut upstream, action.get("timeout")) {
            let connect = upstream.timeouts.connect;
            let total = timeout.text().and_then(limits::time);
            upstream.timeouts = Timeouts { connect, ..total.map(limits::whole).unwrap_or_default() };
            findings.extend(upstream.timeouts.total.map(|_| Finding::new(config.at(timeout), Kind::TotalTimeout)));
        }
        if let Some(prefix) = action.text_of("prefix_rewrite") {
            let from = condition.text_of("prefix").or(condition.text_of("path_separated_prefix")).unwrap_or_default();
            (behaviors.strip_prefix, behaviors.add_prefix) =
                paths::replaced_prefix(from, prefix, config.at(action), &mut findings);
        }
        behaviors.host = action.text_of("host_rewrite_literal").map(str::to_owned);
        for key in ["regex_rewrite", "rate_limits", "retry_policy", "hash_policy", "request_mirror_policies"] {
            if let Some(value) = action.get(key) {
                findings.push(Finding::new(config.at(value), Kind::Feature { name: format!("`{key}` of a route") }));
            }
        }
    } else if let Some(direct) = route.get("direct_response") {
        let status = direct.get("status").and_then(Value::number).and_then(|status| u16::try_from(status).ok());
        answer = status.map(EdgeAnswer::Respond);
        if let Some(body) = direct.get("body") {
            findings
                .push(Finding::new(config.at(body), Kind::Feature { name: "the body of a `direct_response`".into() }));
        }
    } else if let Some(settings) = route.get("redirect") {
        match redirect(settings) {
            Ok(found) => {
                if matches!(&found, EdgeAnswer::Redirect { to, .. } if !to.contains("{uri}")) && !strips_query(settings)
                {
                    findings.push(Finding::new(config.at(settings), Kind::RedirectWithoutQuery));
                }
                answer = Some(found);
            }
            Err(what) => findings.push(Finding::new(config.at(settings), Kind::Feature { name: what.to_owned() })),
        }
    }
    let cors = match &answer {
        None => {
            let (cors, said) = cors(levels, &name, config);
            findings.extend(said);
            cors
        }
        // The filter needs a route to a cluster.
        Some(_) => {
            behaviors.request_headers = Edits::default();
            if let Some(own) = level(route, None).0 {
                findings.push(Finding::new(config.at(own), Kind::PolicyWithoutEffect { why: ANSWERS.into() }));
            }
            Cors::Off
        }
    };
    if upstream.is_none() && answer.is_none() {
        findings.push(Finding::new(at, Kind::WithoutUpstream));
        let route = closed::route(&name, at, vec![pattern], &mut findings);
        return Some(Route { condition: unknown, ..route });
    }
    Some(Route {
        name,
        at,
        paths: vec![pattern],
        condition: unknown,
        upstream,
        cors,
        behaviors,
        answer,
        findings,
        ..Route::default()
    })
}

/// Reads the edits of header fields of a route and of its virtual host. In Envoy those of the route come first.
fn headers(levels: &[&Value], behaviors: &mut Behaviors, config: &Config<'_>, findings: &mut Vec<Finding>) {
    let lists = [("request", &mut behaviors.request_headers), ("response", &mut behaviors.response_headers)];
    for (side, edits) in lists {
        for level in levels {
            let removed = level.get(&format!("{side}_headers_to_remove")).map(Value::texts).unwrap_or_default();
            for (line, name) in removed {
                edits::add(edits, &name, Edit::Remove, Place { line, ..config.at(level) }, findings);
            }
            for one in level.list(&format!("{side}_headers_to_add")) {
                let header = |key: &str| one.at(&["header", key]).and_then(Value::text).unwrap_or_default();
                let (name, value, at) = (header("key"), header("value"), config.at(one));
                let action = one.text_of("append_action").unwrap_or("APPEND_IF_EXISTS_OR_ADD");
                let edit = match action {
                    _ if value.contains('%') => None,
                    _ if one.get("append").and_then(Value::truth) == Some(false) => Some(Edit::Set(value)),
                    "APPEND_IF_EXISTS_OR_ADD" => Some(Edit::Add(value)),
                    "OVERWRITE_IF_EXISTS_OR_ADD" => Some(Edit::Set(value)),
                    _ => None,
                };
                match edit {
                    Some(edit) => edits::add(edits, name, edit, at, findings),
                    None => {
                        let why = match value.contains('%') {
                            true => "its value has a variable".to_owned(),
                            false => format!("corsgate has no `{action}`"),
                        };
                        findings.push(Finding::new(at, Kind::HeaderNotImported { name: name.to_owned(), why }));
                    }
                }
            }
        }
    }
}

fn strips_query(redirect: &Value) -> bool {
    redirect.get("strip_query").and_then(Value::truth) == Some(true)
}

/// Reads `redirect`. The error is the reason why corsgate cannot express it.
fn redirect(settings: &Value) -> Result<EdgeAnswer, &'static str> {
    if settings.get("prefix_rewrite").or(settings.get("regex_rewrite")).is_some() {
        return Err("a redirect with a rewritten path");
    }
    let path = settings.text_of("path_redirect");
    if path.is_none() && strips_query(settings) {
        return Err("a redirect with `strip_query`");
    }
    let is_https = settings.get("https_redirect").and_then(Value::truth) == Some(true);
    let scheme = if is_https { Some("https") } else { settings.text_of("scheme_redirect") };
    let (host, port) = (settings.text_of("host_redirect"), settings.text_of("port_redirect"));
    let to = Target { scheme, host, port, path }.text()?;
    let status = match settings.text_of("response_code") {
        None | Some("MOVED_PERMANENTLY") => 301,
        Some("FOUND") => 302,
        Some("SEE_OTHER") => 303,
        Some("TEMPORARY_REDIRECT") => 307,
        Some("PERMANENT_REDIRECT") => 308,
        Some(_) => return Err("a redirect with this `response_code`"),
    };
    Ok(EdgeAnswer::Redirect { to, status })
}

/// Returns the cluster of a route as an upstream, with the nodes that the file has for the cluster.
fn upstream(action: &Value, config: &Config<'_>, findings: &mut Vec<Finding>) -> Option<Upstream> {
    let weighted = action.at(&["weighted_clusters", "clusters"]).map(Value::entries).unwrap_or_default();
    let named: Vec<(&str, u64)> = match action.text_of("cluster") {
        Some(name) => vec![(name, 1)],
        None => weighted
            .iter()
            .filter_map(|one| {
                let weight = one.get("weight").and_then(Value::number).and_then(|weight| u64::try_from(weight).ok());
                Some((one.text_of("name")?, weight.unwrap_or(1)))
            })
            .collect(),
    };
    let clusters = config.document.at(&["static_resources", "clusters"]).or(config.document.get("clusters"));
    let clusters = clusters.map(Value::entries).unwrap_or_default();
    let (mut groups, mut tls, mut connect) = (Vec::new(), None, None);
    for (name, weight) in &named {
        let cluster = clusters.iter().find(|cluster| cluster.text_of("name") == Some(name));
        let endpoints = cluster.and_then(|cluster| cluster.at(&["load_assignment", "endpoints"])).map(Value::entries);
        let mut nodes = Vec::new();
        for endpoint in endpoints.unwrap_or_default().iter().flat_map(|locality| locality.list("lb_endpoints")) {
            let Some(socket) = endpoint.at(&["endpoint", "address", "socket_address"]) else { continue };
            let host = socket.text_of("address").unwrap_or_default();
            let address = format!("{host}:{}", socket.text_of("port_value").unwrap_or("80"));
            let share = endpoint.get("load_balancing_weight").and_then(Value::number);
            let share = share.and_then(|share| u64::try_from(share).ok()).unwrap_or(1);
            nodes.push((node(address, config.at(socket), findings), share));
        }
        if nodes.is_empty() {
            let kind = Kind::UnknownCluster { name: (*name).to_owned() };
            findings.push(Finding::new(config.at(cluster.unwrap_or(action)), kind));
            nodes.push((PLACEHOLDER.to_owned(), 1));
        }
        groups.push((*weight, nodes));
        let time = cluster.and_then(|cluster| limits::time(cluster.text_of("connect_timeout")?));
        connect = connect.max(time.filter(|time| *time > 0));
        match cluster.and_then(|cluster| cluster.get("transport_socket")) {
            Some(socket) if tls.is_none() && groups.len() > 1 => {
                let name = "TLS to some of the weighted clusters: the import has it for all".to_owned();
                findings.push(Finding::new(config.at(socket), Kind::Feature { name }));
                tls = Some(None);
            }
            Some(_) => tls = Some(None),
            None => {}
        }
    }
    let name = named.first()?.0.to_owned();
    Some(Upstream { name, nodes: weights::flatten(groups), tls, timeouts: Timeouts { connect, ..Timeouts::default() } })
}

// --- CORS

fn cors(levels: &Levels<'_>, name: &str, config: &Config<'_>) -> (Cors, Vec<Finding>) {
    let Some(nearest) = levels.first() else { return (Cors::Off, Vec::new()) };
    let at = config.at(nearest);
    let none = |why: &'static str| (Cors::Off, vec![Finding::new(at, Kind::PolicyWithoutEffect { why: why.into() })]);
    if config.has_filter == Some(false) {
        return none("`http_filters` has no filter `envoy.filters.http.cors`");
    }
    match enabled(nearest) {
        Enabled::Never => return none("`filter_enabled` is 0 %"),
        Enabled::Always => {}
        Enabled::Partly => {
            let name = "`filter_enabled` below 100 %: the import has the policy for every request".to_owned();
            let (cors, mut findings) = policy(levels, name.clone(), config);
            findings.push(Finding::new(at, Kind::Feature { name }));
            return (cors, findings);
        }
    }
    policy(levels, format!("CORS of route `{name}`"), config)
}

enum Enabled {
    Never,
    Always,
    Partly,
}

/// Reads `filter_enabled` of the nearest policy. Without this key the policy is on.
fn enabled(policy: &Value) -> Enabled {
    // Version 2 of the Envoy API had a boolean.
    if policy.get("enabled").and_then(Value::truth) == Some(false) {
        return Enabled::Never;
    }
    let Some(share) = policy.at(&["filter_enabled", "default_value"]) else { return Enabled::Always };
    let numerator = share.get("numerator").and_then(Value::number).unwrap_or(0);
    let denominator = match share.text_of("denominator") {
        Some("TEN_THOUSAND") => 10_000,
        Some("MILLION") => 1_000_000,
        _ => 100,
    };
    match numerator {
        0 => Enabled::Never,
        numerator if numerator >= denominator => Enabled::Always,
        _ => Enabled::Partly,
    }
}

fn policy(levels: &Levels<'_>, name: String, config: &Config<'_>) -> (Cors, Vec<Finding>) {
    let Some(nearest) = levels.first() else { return (Cors::Off, Vec::new()) };
    let at = config.at(nearest);
    let mut policy = Policy::new(name, at);
    // Each attribute comes from the first level that has it.
    let find = |key: &str| levels.iter().find_map(|level| level.get(key).filter(|value| !is_empty(value)));
    let text = |key: &str| find(key).and_then(Value::text).unwrap_or_default();
    let truth = |key: &str| levels.iter().find_map(|level| level.get(key)).and_then(Value::truth);
    policy.credentials = truth("allow_credentials") == Some(true);
    policy.private_network = truth("allow_private_network_access") == Some(true);
    policy.preflight = PreflightMatch::Standard;
    policy.methods = list(text("allow_methods"));
    policy.headers = list(text("allow_headers"));
    policy.expose = list(text("expose_headers"));
    echoed_headers(&mut policy, find("allow_headers").map_or(at, |value| config.at(value)));
    let origins = ["allow_origin_string_match", "allow_origin", "allow_origin_regex"];
    // The origins come from the nearest level that has any origin.
    let of = levels.iter().find(|level| origins.iter().any(|key| level.get(key).is_some_and(|value| !is_empty(value))));
    for entry in of.map(|level| level.list("allow_origin_string_match")).unwrap_or_default() {
        let ignores_case = entry.get("ignore_case").and_then(Value::truth) == Some(true);
        let regex = entry.at(&["safe_regex", "regex"]).or(entry.get("regex"));
        let found = [
            (entry.get("exact"), Matcher::Exact),
            (entry.get("prefix"), Matcher::Prefix),
            (entry.get("suffix"), Matcher::Suffix),
            (entry.get("contains"), Matcher::Contains),
            (regex, Matcher::Expression),
        ];
        let Some((value, matcher)) = found.into_iter().find_map(|(value, matcher)| Some((value?, matcher))) else {
            continue;
        };
        let text = value.text().unwrap_or_default();
        let text = if ignores_case { text.to_ascii_lowercase() } else { text.to_owned() };
        origins::matched(&mut policy, matcher, &text, config.at(value));
    }
    let old = of.and_then(|level| level.get("allow_origin")).map(Value::texts).unwrap_or_default();
    for (line, text) in old {
        origins::matched(&mut policy, Matcher::Exact, &text, Place { line, ..at });
    }
    let old = of.and_then(|level| level.get("allow_origin_regex")).map(Value::texts).unwrap_or_default();
    for (line, text) in old {
        origins::matched(&mut policy, Matcher::Expression, &text, Place { line, ..at });
    }
    let age = find("max_age").and_then(|age| Some((age.number()?, config.at(age))));
    let forwards = truth("forward_not_matching_preflights") != Some(false);
    complete(&mut policy, forwards, age);
    if config.has_filter.is_none() {
        policy.note(Key::Policy, Finding::new(at, Kind::FilterNotSeen));
    }
    if levels.len() > 1 {
        policy.note(Key::Policy, Finding::new(at, Kind::MergedPolicies));
    }
    Cors::of(policy)
}

fn is_empty(value: &Value) -> bool {
    value.text().is_some_and(str::is_empty)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// Reads `*` in the list of headers: Envoy sends back the names that the preflight asks for, including Authorization.
pub(super) fn echoed_headers(policy: &mut Policy, at: Place) {
    if policy.headers == ["*"] {
        policy.allow_every_header(at);
    }
}

/// Adds the settings and the findings that all policies of Envoy have, including those that Istio generates.
pub(super) fn complete(policy: &mut Policy, forwards_preflights: bool, age: Option<(i64, Place)>) {
    let at = policy.at;
    if policy.is_any_origin() {
        if policy.credentials {
            let witness = Witness::request("GET", "null", Answer::WithCredentials);
            policy.note(Key::Origins, Finding::new(at, Kind::NullReflected).with(witness));
        }
    } else {
        policy.note(Key::Policy, Finding::new(at, Kind::VaryAdded));
        origins::leaves_refused_to_the_service(policy, forwards_preflights);
    }
    let (seconds, at_age) = age.unwrap_or((crate::cors::Settings::DEFAULT_MAX_AGE, at));
    policy.set_max_age(seconds, at_age);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Row, asks, get, only, same, table};
    use super::super::witness::Answer::*;

    fn host(policy: &str, filters: &str) -> String {
        format!(
            "{filters}route_config:\n  virtual_hosts:\n  - name: h\n    domains: ['*']\n    typed_per_filter_config:\n      \
             envoy.filters.http.cors: {{ {policy} }}\n    routes: [{{ match: {{ prefix: / }}, route: {{ cluster: c }} }}]\nclusters:\n- name: c\n  \
             load_assignment: {{ endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 8080 }} }} }} }}] }}] }}\n"
        )
    }

    const WITH_FILTER: &str =
        "http_filters: [{ name: envoy.filters.http.cors }, { name: envoy.filters.http.router }]\n";

    fn check(what: &str, policy: &str, rows: &[Row]) -> (String, Vec<&'static str>) {
        table("any.example", what, &host(policy, WITH_FILTER), rows)
    }

    /// Tests `isOriginAllowed`, `decodeHeaders` and `encodeHeaders` of cors_filter.cc at 001cbf14.
    #[test]
    fn matchers_and_preflights() {
        check(
            "exact",
            "allow_origin_string_match: [{ exact: 'https://a.example' }], allow_methods: 'GET,PUT', max_age: '600'",
            &[
                same("https://a.example", Readable),
                get("https://evil.test", ServiceDecides, Unreadable, "service-headers-remain"),
                asks("PUT", "https://evil.test", ServiceDecides, Unreadable, "refused-preflight-forwarded"),
                asks("PUT", "https://a.example", Readable, Readable, ""),
            ],
        );
        let kept = check(
            "forward_not_matching_preflights",
            "allow_origin_string_match: [{ exact: 'https://a.example' }], forward_not_matching_preflights: false",
            &[asks("PUT", "https://evil.test", Unreadable, Unreadable, "")],
        );
        assert!(!kept.1.contains(&"refused-preflight-forwarded"));
        check(
            "prefix",
            "allow_origin_string_match: [{ prefix: 'https://a.example' }, { prefix: 'http://localhost' }]",
            &[
                same("https://a.example", Readable),
                get("https://a.example.evil.test", Readable, Unreadable, "origin-prefix"),
                same("http://localhost:3000", Readable),
            ],
        );
        check(
            "suffix",
            "allow_origin_string_match: [{ suffix: '.a.example' }, { suffix: b.example }]",
            &[
                same("https://x.a.example", Readable),
                same("https://b.example", Readable),
                get("https://evilb.example", Readable, Unreadable, "origin-suffix"),
            ],
        );
        check(
            "an expression is for the whole origin",
            r"allow_origin_string_match: [{ safe_regex: { regex: 'https://.*\.a\.example' } }]",
            &[
                same("https://x.a.example", Readable),
                get("https://x.a.example.evil.test", ServiceDecides, Unreadable, "service-headers-remain"),
            ],
        );
        for all in [
            "{ safe_regex: { regex: '\\*' } }",
            "{ prefix: '' }",
            "{ exact: '*' }",
            "{ safe_regex: { regex: '.*' } }",
            "{ contains: '*' }",
        ] {
            check(all, &format!("allow_origin_string_match: [{all}]"), &[same("https://evil.test", Readable)]);
        }
        let open = check(
            "any origin with credentials",
            "allow_origin_string_match: [{ prefix: '*' }], allow_credentials: true, allow_headers: '*'",
            &[same("https://evil.test", WithCredentials), get("null", WithCredentials, Unreadable, "null-reflected")],
        );
        assert!(open.1.contains(&"reflects-any-origin") && open.1.contains(&"matches-star"));
    }

    /// The share of a cluster does not depend on its number of endpoints.
    #[test]
    fn weighted_clusters_keep_their_shares() {
        let endpoint = |port: u16| {
            format!("{{ endpoint: {{ address: {{ socket_address: {{ address: 10.0.0.1, port_value: {port} }} }} }} }}")
        };
        let source = format!(
            "static_resources:\n  clusters:\n  - name: stable\n    load_assignment: {{ endpoints: [{{ lb_endpoints: [{}, {}, {}] }}] }}\n  - name: canary\n    \
             load_assignment: {{ endpoints: [{{ lb_endpoints: [{}] }}] }}\nvirtual_hosts:\n- name: h\n  domains: [a.example]\n  routes:\n  - match: {{ prefix: / \
             }}\n    route: {{ weighted_clusters: {{ clusters: [{{ name: stable, weight: 9000 }}, {{ name: canary, weight: 1000 }}] }} }}\n",
            endpoint(1),
            endpoint(2),
            endpoint(3),
            endpoint(4)
        );
        let (text, _) = table("a.example", "weighted clusters", &source, &[]);
        // Three nodes with 3, and one with 1, which is 9 : 1.
        for part in ["10.0.0.1:1, weight: 3", "10.0.0.1:2, weight: 3", "10.0.0.1:3, weight: 3", "10.0.0.1:4 }"] {
            assert!(text.replace('"', "").contains(part), "no {part}:\n{text}");
        }
    }

    /// Tests `HeaderParser::evaluateHeaders` and `RouteEntryImplBase::newUri` of source/common/router at 001cbf14. The
    /// test with a running Envoy has conditions and redirects too.
    #[test]
    fn headers_and_redirects() {
        let source = "virtual_hosts:\n- name: h\n  domains: [a.example]\n  response_headers_to_remove: [server, x-powered-by]\n  request_headers_to_add: [{ header: { \
                      key: x-a, value: host } }]\n  routes:\n  - { match: { path: /old }, redirect: { https_redirect: true, host_redirect: b.example } }\n  - { \
                      match: { path: /new }, redirect: { path_redirect: /newer, response_code: FOUND } }\n  - { match: { path: /other }, redirect: { \
                      host_redirect: b.example } }\n  - match: { prefix: /v1/ }\n    route: { cluster: c, prefix_rewrite: /v2, host_rewrite_literal: b.internal \
                      }\n    request_headers_to_add:\n    - { header: { key: x-a, value: route } }\n    - { header: { key: x-b, value: '%START_TIME%' } }\n    - { \
                      header: { key: x-c, value: c }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }\n    - { header: { key: x-d, value: d }, append_action: \
                      ADD_IF_ABSENT }\n";
        let imported = table("a.example", "headers", source, &[]);
        only(
            &imported,
            &[
                "redirect: { to: \"https://b.example{uri}\", status: 301 }",
                "redirect: { to: \"/newer\", status: 302 }",
                "upstream_host: b.internal",
                "remove: [server, x-powered-by]",
                "x-a: \"route\"",
                "x-c: \"c\"",
                "add_prefix: /v2",
            ],
        );
        for code in ["header-not-imported", "redirect-without-query", "prefix-replaced", "feature", "without-upstream"]
        {
            assert!(imported.1.contains(&code), "no {code}: {:?}\n{}", imported.1, imported.0);
        }
        for absent in ["x-b:", "x-d:", "x-a: \"host\""] {
            assert!(!imported.0.contains(absent), "{absent}\n{}", imported.0);
        }
    }

    #[test]
    fn levels_and_the_filter() {
        let policy = "allow_origin_string_match: [{ exact: 'https://a.example' }], allow_methods: GET";
        let (text, codes) = table(
            "any.example",
            "no filter",
            &host(policy, "http_filters: [{ name: envoy.filters.http.router }]\n"),
            &[same("https://a.example", ServiceDecides)],
        );
        assert!(codes.contains(&"policy-without-effect") && text.contains("cors: false"), "{text}");
        let (_, codes) =
            table("any.example", "filters not shown", &host(policy, ""), &[same("https://a.example", Readable)]);
        assert!(codes.contains(&"filter-not-seen"));
        let off = format!("{policy}, filter_enabled: {{ default_value: {{ numerator: 0 }} }}");
        table("any.example", "0 %", &host(&off, WITH_FILTER), &[same("https://a.example", ServiceDecides)]);
        let (_, codes) = table(
            "any.example",
            "no origins",
            &host("allow_methods: 'OPTION, GET'", ""),
            &[same("https://a.example", ServiceDecides)],
        );
        assert!(codes.contains(&"policy-without-origins"));
        // `allowOrigins()` and the other getters take the first level that has a value.
        let merged = "virtual_hosts:\n- name: h\n  domains: [a.example, 'b.example:8080']\n  typed_per_filter_config: { envoy.filters.http.cors: { \
                      allow_origin_string_match: [{ exact: 'https://a.example' }], allow_credentials: true } }\n  routes:\n  - match: { path: /x }\n    \
                      route: { cluster: c }\n    typed_per_filter_config: { envoy.filters.http.cors: { allow_methods: PUT } }\n  - { match: { prefix: / }, \
                      route: { cluster: c } }\n  - { match: { prefix: /y }, direct_response: { status: 403 } }\n";
        let rows = [
            asks("PUT", "https://a.example", WithCredentials, WithCredentials, "").at("/x"),
            same("https://a.example", WithCredentials),
        ];
        let (text, codes) = table("b.example", "merged", merged, &rows);
        for code in ["merged-policies", "unknown-cluster", "route-never-reached"] {
            assert!(codes.contains(&code), "no {code}: {codes:?}\n{text}");
        }
    }
}

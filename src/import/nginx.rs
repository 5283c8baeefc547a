//! nginx: servers and locations with `add_header Access-Control-…`, in the forms that common recipes use.
//!
//! The behavior of nginx is taken from its documentation:
//! - <https://nginx.org/en/docs/http/ngx_http_headers_module.html>: a level inherits `add_header` only if it has none
//!   of its own. Without `always`, `add_header` applies only to some statuses.
//! - <https://nginx.org/en/docs/http/ngx_http_map_module.html>: `map`.
//! - <https://nginx.org/en/docs/http/ngx_http_rewrite_module.html>: `if` finds an expression anywhere in the value.

mod directives;

use std::collections::HashMap;

use self::directives::Directive;
use super::apisix::node;
use super::clients::{self, Access};
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::model::{Behaviors, Cors, FOREIGN, Key, Model, Policy, Route, Service, Upstream};
use super::value::SyntaxError;
use super::witness::{Answer, Witness};
use super::{origins, paths};
use crate::cors::PreflightMatch;

/// Whether a text looks like an nginx configuration.
pub(super) fn shows_in(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_start);
    lines.any(|line| {
        ["location ", "server {", "server{", "http {", "map $", "upstream "].iter().any(|begin| line.starts_with(begin))
    }) && text.contains('{')
}

/// The maps and upstreams of a file, which are outside of its locations.
struct Scope<'d> {
    file: usize,
    maps: HashMap<&'d str, &'d Directive>,
    upstreams: HashMap<&'d str, &'d Directive>,
}

impl Scope<'_> {
    fn at(&self, directive: &Directive) -> Place {
        Place { file: self.file, line: directive.line }
    }
}

pub(super) fn read(file: usize, text: &str, model: &mut Model) -> Result<(), SyntaxError> {
    let all = directives::parse(text)?;
    let mut scope = Scope { file, maps: HashMap::new(), upstreams: HashMap::new() };
    let http: Vec<&Directive> =
        all.iter().flat_map(|one| if one.name == "http" { one.inner() } else { std::slice::from_ref(one) }).collect();
    for one in &http {
        match one.name.as_str() {
            "map" => drop(scope.maps.insert(one.argument(1), one)),
            "upstream" => drop(scope.upstreams.insert(one.argument(0), one)),
            _ => {}
        }
    }
    let outer: Vec<&Directive> = http.iter().copied().filter(|one| one.name == "add_header").collect();
    for server in http.iter().filter(|one| one.name == "server") {
        let levels = inherited(server.inner(), &outer);
        let mut service = empty_service(server.inner(), scope.at(server));
        locations(server.inner(), server.inner(), &levels, &scope, &mut service);
        model.services.push(service);
    }
    // The file is only a part: it has locations without a server.
    if http.iter().any(|one| one.name == "location") {
        let parts: Vec<Directive> = http.iter().map(|one| (*one).clone()).collect();
        let mut service = empty_service(&[], Place { file, line: 1 });
        locations(&parts, &[], &outer, &scope, &mut service);
        model.services.push(service);
    }
    Ok(())
}

fn empty_service(server: &[Directive], at: Place) -> Service {
    let names = server.iter().filter(|one| one.name == "server_name").flat_map(|one| &one.arguments);
    let mut findings = Vec::new();
    let mut hosts = Vec::new();
    for name in names.filter(|name| !["_", ""].contains(&name.as_str())) {
        match name.strip_prefix('.') {
            // `.a.example` means `a.example` and every name below it.
            Some(base) => hosts.extend([base.to_owned(), format!("*.{base}")]),
            None => hosts.push(name.clone()),
        }
    }
    for tls in server.iter().filter(|one| one.name == "ssl_certificate") {
        let name = "TLS of a server: name the certificates in `listeners`".to_owned();
        findings.push(Finding::new(Place { line: tls.line, ..at }, Kind::Feature { name }));
    }
    let name = hosts.first().cloned().unwrap_or_else(|| "server".to_owned());
    Service { name, at, hosts, upstream: None, cors: Cors::Off, host_of_node: false, routes: Vec::new(), findings }
}

/// Returns the `add_header` directives of a level. If the level has none, returns those of the level above.
fn inherited<'d>(level: &'d [Directive], above: &[&'d Directive]) -> Vec<&'d Directive> {
    let own: Vec<&Directive> = level.iter().filter(|one| one.name == "add_header").collect();
    if own.is_empty() { above.to_vec() } else { own }
}

fn locations<'d>(
    level: &'d [Directive],
    server: &[Directive],
    headers: &[&'d Directive],
    scope: &Scope<'d>,
    service: &mut Service,
) {
    for location in level.iter().filter(|one| one.name == "location") {
        let at = scope.at(location);
        let inner = location.inner();
        let headers = inherited(inner, headers);
        locations(inner, server, &headers, scope, service);
        let (modifier, path) = match &*location.arguments {
            [path] => ("", path.as_str()),
            [modifier, path, ..] => (modifier.as_str(), path.as_str()),
            [] => continue,
        };
        // Named locations have no path.
        if path.starts_with('@') {
            continue;
        }
        let (pattern, mut findings) = match modifier {
            "=" => paths::exact(path, at),
            // Without `^`, nginx finds the expression anywhere in the path.
            "~" | "~*" if !path.starts_with('^') => paths::expression(&format!(".*{path}"), at),
            "~" | "~*" => paths::expression(path, at),
            _ => paths::text_prefix(path, at),
        };
        let Some(pattern) = pattern else {
            left_out(&mut service.findings, &mut findings);
            continue;
        };
        let Some((upstream, mut behaviors)) = upstream(inner, path, scope, &mut findings) else {
            let is_only_nested = inner.iter().any(|one| one.name == "location");
            if !is_only_nested {
                left_out(&mut service.findings, &mut findings);
                service.findings.push(Finding::new(at, Kind::WithoutUpstream));
            }
            continue;
        };
        findings.extend(clients(inner, server, scope, &mut behaviors));
        let sends_host =
            inner.iter().any(|one| one.name == "proxy_set_header" && one.argument(0).eq_ignore_ascii_case("host"));
        service.host_of_node |= !sends_host;
        for one in inner.iter().filter(|one| FEATURES.contains(&one.name.as_str())) {
            findings.push(Finding::new(scope.at(one), Kind::Feature { name: format!("directive `{}`", one.name) }));
        }
        let (cors, said) = cors(&format!("location `{path}`"), at, inner, &headers, scope);
        findings.extend(said);
        let name = match path.trim_matches(|c: char| !c.is_ascii_alphanumeric()) {
            "" => "root".to_owned(),
            name => name.replace('/', "-"),
        };
        if service.host_of_node && service.routes.is_empty() {
            service.findings.push(Finding::new(at, Kind::HostHeaderOfNode));
        }
        service.routes.push(Route {
            name,
            at,
            paths: vec![pattern],
            upstream: Some(upstream),
            cors,
            behaviors,
            findings,
            ..Route::default()
        });
    }
}

/// Directives that are reported as left out.
const FEATURES: [&str; 7] = ["auth_basic", "auth_request", "limit_req", "limit_conn", "rewrite", "proxy_cache", "gzip"];

/// Reads `allow` and `deny` of the location, or of the server if the location has none. In nginx, the first rule that
/// matches counts.
fn clients(location: &[Directive], server: &[Directive], scope: &Scope<'_>, behaviors: &mut Behaviors) -> Vec<Finding> {
    let of = |level: &[Directive]| -> Vec<Directive> {
        level.iter().filter(|one| ["allow", "deny"].contains(&one.name.as_str())).cloned().collect()
    };
    let own = of(location);
    let rules = if own.is_empty() { of(server) } else { own };
    let Some(first) = rules.first() else { return Vec::new() };
    // Rules after `all` have no effect.
    let (rules, others) = match rules.iter().position(|rule| rule.argument(0) == "all") {
        Some(all) => (&rules[..all], rules[all].name.as_str()),
        None => (&rules[..], "allow"),
    };
    let are_all = |name: &str| rules.iter().all(|rule| rule.name == name);
    let entries = || rules.iter().map(|rule| (rule.line, rule.argument(0).to_owned())).collect();
    match others {
        "allow" if are_all("allow") => Vec::new(),
        "allow" if are_all("deny") => clients::add(behaviors, Access::Deny, entries(), scope.file),
        "deny" if are_all("deny") => {
            let every = clients::EVERY_CLIENT.map(|text| (first.line, text.to_owned())).to_vec();
            clients::add(behaviors, Access::Deny, every, scope.file)
        }
        "deny" if are_all("allow") => clients::add(behaviors, Access::Allow, entries(), scope.file),
        _ => {
            let why = "nginx reads `allow` and `deny` in their order, and corsgate does not".to_owned();
            vec![clients::deny_all(behaviors, scope.at(first), why)]
        }
    }
}

fn upstream(
    location: &[Directive],
    path: &str,
    scope: &Scope<'_>,
    findings: &mut Vec<Finding>,
) -> Option<(Upstream, Behaviors)> {
    let pass = location.iter().find(|one| one.name == "proxy_pass")?;
    let at = scope.at(pass);
    let (scheme, rest) = pass.argument(0).split_once("://").unwrap_or(("http", pass.argument(0)));
    let (authority, uri) = rest.split_once('/').map_or((rest, None), |(authority, uri)| (authority, Some(uri)));
    let tls = scheme == "https";
    let port = if tls { 443 } else { 80 };
    let with_port = |address: &str| match address.contains(':') {
        true => address.to_owned(),
        false => format!("{address}:{port}"),
    };
    let servers = scope.upstreams.get(authority).map(|upstream| upstream.inner()).unwrap_or_default();
    let mut nodes = Vec::new();
    for server in servers.iter().filter(|one| one.name == "server" && !one.arguments.iter().any(|word| word == "down"))
    {
        let weight = server.arguments.iter().find_map(|word| word.strip_prefix("weight=")?.parse::<u64>().ok());
        nodes.push((node(with_port(server.argument(0)), scope.at(server), findings), weight.unwrap_or(1)));
    }
    if nodes.is_empty() {
        // The file has no `upstream` with this name, so the name is used as a host.
        nodes.push((node(with_port(authority), at, findings), 1));
    }
    let (strip_prefix, add_prefix) = match uri {
        // A path in `proxy_pass` replaces the path of the location.
        Some(uri) => paths::replaced_prefix(path, &format!("/{uri}"), at, findings),
        None => (None, None),
    };
    let behaviors = Behaviors { strip_prefix, add_prefix, ..Behaviors::default() };
    let name = authority.split(':').next().unwrap_or("upstream").to_owned();
    Some((Upstream { name, nodes, tls: tls.then_some(None), read_timeout: None }, behaviors))
}

// --- CORS

/// The headers that nginx adds for one kind of request.
#[derive(Default)]
struct Sent<'d> {
    /// An empty list means every method.
    methods: Vec<&'d str>,
    /// The condition on the origin.
    origin: Option<Condition<'d>>,
    headers: Vec<&'d Directive>,
    /// The status of `return`, and its line.
    status: Option<(u16, usize)>,
}

/// The condition of an `if` block, if it is about the origin.
#[derive(Clone, Copy)]
enum Condition<'d> {
    /// An expression that matches anywhere in `$http_origin`, and its line.
    Expression(&'d str, usize),
    /// The entries of a map from `$http_origin` that have this value. `None` means any value.
    Map(&'d Directive, Option<&'d str>),
    /// A condition that the import cannot read, and its line.
    Other(usize),
}

impl<'d> Sent<'d> {
    fn header(&self, name: &str) -> Option<(&'d str, &'d Directive)> {
        let found = self.headers.iter().rev().find(|one| one.argument(0).eq_ignore_ascii_case(name))?;
        Some((found.argument(1), found))
    }
}

fn cors(
    name: &str,
    at: Place,
    location: &[Directive],
    headers: &[&Directive],
    scope: &Scope<'_>,
) -> (Cors, Vec<Finding>) {
    let sent = sent(location, headers, scope);
    let options = sent.iter().find(|one| one.methods == ["OPTIONS"]);
    let others: Vec<&Sent<'_>> = sent.iter().filter(|one| one.methods != ["OPTIONS"]).collect();
    let allows = |one: &&Sent<'_>| one.header("Access-Control-Allow-Origin").is_some();
    let Some(main) = others.iter().copied().find(allows).or(options.filter(allows)) else {
        return (Cors::Off, Vec::new());
    };
    let Some((origin, directive)) = main.header("Access-Control-Allow-Origin") else { return (Cors::Off, Vec::new()) };
    let origin_at = scope.at(directive);
    let mut policy = Policy::new(name.to_owned(), at);
    let of = |name: &str| {
        let first = options.into_iter().chain(others.iter().copied()).chain([main]);
        first.into_iter().find_map(|one| one.header(name))
    };
    policy.credentials = main.header("Access-Control-Allow-Credentials").is_some_and(|(value, _)| value == "true");
    policy.methods = list(of("Access-Control-Allow-Methods").map_or("", |(value, _)| value));
    policy.headers = list(of("Access-Control-Allow-Headers").map_or("", |(value, _)| value));
    policy.expose = list(main.header("Access-Control-Expose-Headers").map_or("", |(value, _)| value));
    if let Err(why) = allow_origin(&mut policy, origin, main.origin, origin_at, scope) {
        let kind = Kind::PolicyWithoutEffect { why: why.into() };
        return (Cors::Off, vec![Finding::new(origin_at, kind)]);
    }
    if policy.is_any_origin() && policy.credentials {
        if origin == "*" {
            policy.credentials = false;
            let witness = Witness::request("GET", FOREIGN, Answer::StarWithCredentials);
            policy.note(Key::Credentials, Finding::new(origin_at, Kind::StarWithCredentials).with(witness));
        } else {
            let witness = Witness::request("GET", "null", Answer::WithCredentials);
            policy.note(Key::Origins, Finding::new(origin_at, Kind::NullReflected).with(witness));
        }
    }
    // Requests that are not preflights.
    let limited: Vec<&str> =
        others.iter().filter(|one| allows(one)).flat_map(|one| one.methods.iter().copied()).collect();
    let is_limited = others.iter().filter(|one| allows(one)).all(|one| !one.methods.is_empty());
    if is_limited {
        let methods: Vec<String> = limited.iter().map(|method| (*method).to_owned()).collect();
        let witness = Witness::request("DELETE", &policy.sample_origin(), Answer::ServiceDecides);
        policy.note(Key::Policy, Finding::new(origin_at, Kind::MethodsWithoutHeaders { methods }).with(witness));
    }
    if directive.argument(2) != "always" {
        policy.note(Key::Policy, Finding::new(origin_at, Kind::ErrorsWithoutHeaders));
    }
    let hides = location.iter().any(|one| {
        one.name == "proxy_hide_header" && one.argument(0).eq_ignore_ascii_case("access-control-allow-origin")
    });
    if !hides {
        policy.note(Key::Policy, Finding::new(origin_at, Kind::TwoHeaders));
    }
    if !policy.is_any_origin() {
        if main.header("Vary").is_none() {
            policy.note(Key::Policy, Finding::new(origin_at, Kind::VaryAdded));
        }
        // For other origins the variable is empty, and nginx does not send an empty header.
        if !hides && origin.starts_with('$') {
            let witness = Witness::request("GET", FOREIGN, Answer::ServiceDecides);
            policy.note(Key::Policy, Finding::new(origin_at, Kind::ServiceHeadersRemain).with(witness));
        }
    }
    // Preflights.
    match options.and_then(|options| Some((options, options.status?))) {
        Some((options, (status, line))) => {
            let at = Place { line, ..at };
            policy.status = if status == 204 { 204 } else { 200 };
            if options.origin.is_some() {
                policy.preflight = PreflightMatch::Origin;
                let witness = Witness::preflight("POST", FOREIGN, Answer::ServiceDecides);
                policy.note(Key::Preflight, Finding::new(at, Kind::RefusedPreflightForwarded).with(witness));
            } else {
                policy.preflight = PreflightMatch::Any;
                policy.note(Key::Preflight, Finding::new(at, Kind::EveryOptionsAnswered));
            }
            if options.header("Access-Control-Allow-Origin").is_none() {
                let witness = Witness::preflight("POST", &policy.sample_origin(), Answer::Unreadable);
                policy.note(Key::Preflight, Finding::new(at, Kind::PreflightsFail).with(witness));
            }
        }
        None => {
            policy.preflight = PreflightMatch::Standard;
            let witness = Witness::preflight("POST", &policy.sample_origin(), Answer::ServiceDecides);
            policy.note(Key::Preflight, Finding::new(origin_at, Kind::PreflightContinues).with(witness));
        }
    }
    let age = of("Access-Control-Max-Age").and_then(|(value, one)| Some((value.parse().ok()?, scope.at(one))));
    let (seconds, at_age) = age.unwrap_or((crate::cors::Settings::DEFAULT_MAX_AGE, at));
    policy.set_max_age(seconds, at_age);
    Cors::of(policy)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// Returns the headers for each kind of request that the `if` blocks of a location distinguish. The first entry is for
/// requests that match no block.
fn sent<'d>(location: &'d [Directive], headers: &[&'d Directive], scope: &Scope<'d>) -> Vec<Sent<'d>> {
    let mut all = vec![Sent { headers: headers.to_vec(), ..Sent::default() }];
    // Variables that `if ($http_origin ~ …) { set $cors true; }` sets. `None` means that a variable is set without a
    // condition.
    let mut flags: HashMap<&str, Option<Condition<'_>>> = HashMap::new();
    for block in location {
        if block.name == "set" && !["", "0"].contains(&block.argument(1)) {
            flags.insert(block.argument(0), None);
        }
        if block.name != "if" {
            continue;
        }
        let mut one = Sent { headers: inherited(block.inner(), headers), ..Sent::default() };
        let of_flag = |flag: &str, value: Option<&'d str>| match (flags.get(flag), scope.maps.get(flag)) {
            (Some(known), _) => *known,
            (None, Some(map)) if map.argument(0) == ORIGIN => Some(Condition::Map(map, value)),
            _ => Some(Condition::Other(block.line)),
        };
        match condition(block)[..] {
            ["$request_method", "=", method] => one.methods.extend(METHODS.iter().find(|known| **known == method)),
            ["$request_method", "~" | "~*", methods] => {
                let named: Vec<&str> = methods.trim_matches(['^', '$', '(', ')']).split('|').collect();
                one.methods.extend(METHODS.iter().filter(|known| named.contains(known)));
            }
            [ORIGIN, "~" | "~*", expression] => one.origin = Some(Condition::Expression(expression, block.line)),
            [flag, "=", value] => {
                one.origin = of_flag(flag, Some(value));
                // The value comes from `set $cors "${cors}options";`.
                one.methods.extend(value.to_ascii_lowercase().contains("option").then_some("OPTIONS"));
            }
            [flag] => one.origin = of_flag(flag, None),
            _ => one.origin = Some(Condition::Other(block.line)),
        }
        if one.methods.is_empty() {
            for flag in block.inner().iter().filter(|inner| inner.name == "set") {
                flags.insert(flag.argument(0), one.origin);
            }
        }
        let returns = block.inner().iter().find(|inner| inner.name == "return");
        one.status = returns.and_then(|one| Some((one.argument(0).parse().ok()?, one.line)));
        let has_headers = block.inner().iter().any(|inner| inner.name == "add_header");
        if has_headers || one.status.is_some() {
            all.push(one);
        }
    }
    all
}

/// The nginx variable for the Origin of the request.
const ORIGIN: &str = "$http_origin";
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Returns the words of `if (…)`, without the parentheses.
fn condition(block: &Directive) -> Vec<&str> {
    let mut words: Vec<&str> = block.arguments.iter().map(String::as_str).collect();
    if let Some(first) = words.first_mut() {
        *first = first.strip_prefix('(').unwrap_or(first);
    }
    if let Some(last) = words.last_mut() {
        *last = last.strip_suffix(')').unwrap_or(last);
    }
    words.retain(|word| !word.is_empty());
    words.into_iter().map(|word| word.trim_matches(['\'', '"'])).collect()
}

/// Adds the origins that `Access-Control-Allow-Origin: VALUE` allows. The error says why the policy has no effect.
fn allow_origin(
    policy: &mut Policy,
    value: &str,
    condition: Option<Condition<'_>>,
    at: Place,
    scope: &Scope<'_>,
) -> Result<(), String> {
    match (value, condition) {
        (_, Some(Condition::Other(line))) => {
            return Err(format!("its condition in line {line} is not about the origin"));
        }
        ("*" | ORIGIN | "${http_origin}", None) => policy.origins.push("*".to_owned()),
        ("*" | ORIGIN | "${http_origin}", Some(Condition::Expression(expression, line))) => {
            searched(policy, expression, Place { line, ..at });
        }
        ("*" | ORIGIN | "${http_origin}", Some(Condition::Map(map, wanted))) => {
            let is_wanted = |value: &str| match wanted {
                Some(wanted) => value == wanted,
                None => !["", "0"].contains(&value),
            };
            mapped(policy, map, scope, &|_, value| is_wanted(value));
        }
        (variable, _) if variable.starts_with('$') => {
            let Some(map) = scope.maps.get(variable).filter(|map| map.argument(0) == ORIGIN) else {
                return Err(format!("`{variable}` is never the origin of a page"));
            };
            mapped(policy, map, scope, &|key, value| [ORIGIN, "${http_origin}", key].contains(&value));
        }
        (origin, _) => origins::exact(policy, origin),
    }
    Ok(())
}

/// Adds an expression that matches anywhere in the origin.
fn searched(policy: &mut Policy, expression: &str, at: Place) {
    origins::expression(policy, expression, &format!(".*(?:{expression}).*"), expression, at);
}

/// Adds the entries of `map $http_origin $variable { … }` whose key and value allow the origin.
fn mapped(policy: &mut Policy, map: &Directive, scope: &Scope<'_>, allows: &dyn Fn(&str, &str) -> bool) {
    for entry in map.inner() {
        let (at, key, value) = (scope.at(entry), entry.name.as_str(), entry.argument(0));
        match key {
            "hostnames" | "volatile" | "include" => {}
            _ if value.is_empty() => {}
            // `default` is for every other origin. Its value is the origin of the request, or one fixed origin.
            "default" if allows(ORIGIN, value) => policy.origins.push("*".to_owned()),
            "default" if value.contains("://") => origins::exact(policy, value),
            "default" => {}
            _ if !allows(key, value) => {
                let kind = Kind::EntryIgnored { entry: key.to_owned(), why: "its value is not the origin" };
                policy.note(Key::Origins, Finding::new(at, kind));
            }
            key => match key.strip_prefix("~*").or(key.strip_prefix('~')) {
                Some(expression) => searched(policy, expression, at),
                // nginx ignores case. Browsers send origins in lower case.
                None => origins::exact(policy, &key.to_ascii_lowercase()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Row, asks, get, options, same, table};
    use super::super::witness::Answer::*;

    fn check(what: &str, location: &str, rows: &[Row]) -> (String, Vec<&'static str>) {
        let source = format!(
            "map $http_origin $allowed {{ default \"\"; \"https://a.example\" $http_origin; ~^https://b\\.example $http_origin; https://n.example 1; }}\nmap $http_origin $flag {{ https://f.example 1; }}\n\
            upstream backend {{ server 127.0.0.1:8000 weight=2; }}\nserver {{\n server_name h.example;\n location /v1/ {{\n {location}\n proxy_pass \
            http://backend;\n }}\n}}\n"
        );
        let rows: Vec<Row> = rows.iter().map(|row| row.again().at("/v1/x")).collect();
        table("h.example", what, &source, &rows)
    }

    /// Common recipes. The documentation at the top of this file says what nginx does with each recipe.
    #[test]
    fn recipes() {
        let (text, codes) = check(
            "four lines",
            "add_header 'Access-Control-Allow-Origin' '*'; add_header Access-Control-Allow-Methods 'GET, POST, OPTIONS'; add_header \
             Access-Control-Max-Age 1728000; if ($request_method = 'OPTIONS') { return 204; }",
            &[
                same("https://any.example", Readable),
                asks("GET", "https://any.example", Readable, Readable, ""),
                options("https://any.example", Readable, Readable, ""),
            ],
        );
        for code in
            ["errors-without-headers", "max-age-capped", "every-options-answered", "path-without-slash", "host-header"]
        {
            assert!(codes.contains(&code), "no {code}: {codes:?}\n{text}");
        }
        for part in ["weight: 2", "match: any, status: 204", "hosts: [h.example]"] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        let open = check(
            "wide open, for some methods",
            "if ($request_method = OPTIONS) { add_header Access-Control-Allow-Origin $http_origin always; add_header \
             Access-Control-Allow-Credentials true; return 204; } if ($request_method = GET) { add_header Access-Control-Allow-Origin $http_origin \
             always; add_header Access-Control-Allow-Credentials 'true' always; }",
            &[same("https://evil.test", WithCredentials), get("null", WithCredentials, Unreadable, "null-reflected")],
        );
        assert!(open.1.contains(&"reflects-any-origin") && open.1.contains(&"methods-without-headers"), "{:?}", open.1);
        check(
            "a map",
            "add_header Access-Control-Allow-Origin $allowed always; if ($request_method = OPTIONS) { return 204; }",
            &[
                same("https://a.example", Readable),
                get("https://b.example.evil.test", Readable, Unreadable, "expression-not-anchored"),
                get("https://evil.test", ServiceDecides, Unreadable, "service-headers-remain"),
                same("https://n.example", Unreadable),
            ],
        );
        check(
            "a map as a flag",
            "if ($flag) { add_header Access-Control-Allow-Origin $http_origin always; }",
            &[
                same("https://f.example", Readable),
                get("https://evil.test", ServiceDecides, Unreadable, "service-headers-remain"),
            ],
        );
        let (_, codes) = check(
            "a flag with the method",
            r"if ($http_origin ~ ^https://c\.example$) { set $c 1; } if ($request_method = OPTIONS) { set $c '${c}options'; } if ($c = 1) { add_header Access-Control-Allow-Origin $http_origin; } if ($c = '1options') { add_header Access-Control-Allow-Origin $http_origin; return 204; }",
            &[
                same("https://c.example", Readable),
                asks("POST", "https://evil.test", ServiceDecides, Unreadable, "refused-preflight-forwarded"),
                asks("POST", "https://c.example", Readable, Readable, ""),
            ],
        );
        assert!(!codes.contains(&"every-options-answered"), "{codes:?}");
        let flag = check(
            "a flag",
            r"if ($http_origin ~* ^https://(.+\.)?c\.example$) { set $cors 1; } if ($cors = 1) { add_header Access-Control-Allow-Origin $http_origin always; }",
            &[
                same("https://x.c.example", Readable),
                asks("POST", "https://x.c.example", ServiceDecides, Readable, "preflight-continues"),
            ],
        );
        assert!(flag.1.contains(&"vary-added"));
        let (_, codes) = check(
            "preflights without the header",
            "add_header Access-Control-Allow-Origin https://a.example always; if ($request_method = OPTIONS) { add_header X-A 1; return 204; }",
            &[
                same("https://a.example", Readable),
                asks("POST", "https://a.example", Unreadable, Readable, "preflights-fail"),
            ],
        );
        assert!(!codes.contains(&"service-headers-remain"));
        let (_, codes) = check(
            "* with credentials",
            "add_header Access-Control-Allow-Origin * always; add_header Access-Control-Allow-Credentials true always;",
            &[get("https://a.example", StarWithCredentials, Readable, "star-with-credentials")],
        );
        assert!(codes.contains(&"preflight-continues"));
    }

    #[test]
    fn lists_of_clients_are_kept_or_the_route_is_closed() {
        let allow = "add_header Access-Control-Allow-Origin *; allow 10.0.0.0/8; allow 127.0.0.1; deny all;";
        let (text, _) = check("an allow list", allow, &[]);
        assert!(text.contains("allow: [\"10.0.0.0/8\", \"127.0.0.1\"]"), "{text}");
        let closed = "deny: [\"0.0.0.0/0\", \"::/0\"]";
        for (rules, part, code) in [
            ("deny 10.0.0.1;", "deny: [\"10.0.0.1\"]", "client-addresses"),
            ("deny 10.0.0.1; allow all;", "deny: [\"10.0.0.1\"]", "client-addresses"),
            ("allow 10.0.0.1; deny all; allow 10.0.0.2;", "allow: [\"10.0.0.1\"]", "client-addresses"),
            ("deny all;", closed, "client-addresses"),
            ("deny all; allow 10.0.0.1;", closed, "client-addresses"),
            ("deny 10.1.0.1; allow 10.0.0.0/8; deny all;", closed, "clients-denied"),
            ("allow 10.1.0.1; deny 10.0.0.0/8;", closed, "clients-denied"),
            ("allow unix:; deny all;", closed, "clients-denied"),
            ("deny unix:;", closed, "clients-denied"),
        ] {
            // Without the route, the wider one would take its requests.
            let source = format!(
                "location / {{ proxy_pass http://127.0.0.1:1; }}\nlocation /y/ {{ {rules} proxy_pass http://127.0.0.1:1; }}\n"
            );
            let (text, codes) = table("any.example", rules, &source, &[]);
            assert!(codes.contains(&code) && text.contains("/y/") && text.contains(part), "{rules}: {codes:?}\n{text}");
            assert_eq!(text.matches("clients:").count(), 1, "{text}");
        }
        for rules in ["allow all;", "allow 10.0.0.1;", "allow all; deny 10.0.0.1;"] {
            let source = format!("location /y/ {{ {rules} proxy_pass http://127.0.0.1:1; }}\n");
            let (text, _) = table("any.example", rules, &source, &[]);
            assert!(!text.contains("clients:"), "{rules}\n{text}");
        }
    }

    #[test]
    fn what_is_not_the_origin_has_no_effect() {
        for (what, location) in [
            ("an unknown flag", "if ($unknown) { add_header Access-Control-Allow-Origin $http_origin; }"),
            ("a negation", "if ($http_origin !~ evil) { add_header Access-Control-Allow-Origin $http_origin; }"),
            ("another variable", "add_header Access-Control-Allow-Origin $request_uri;"),
            (
                "another condition",
                "if ($request_uri ~ '^https?://(x)|(.*)(\\.y)') { set $c 'true'; } if ($c = 'true') { add_header \
              Access-Control-Allow-Origin $http_origin; }",
            ),
        ] {
            let (text, codes) = check(what, location, &[same("https://a.example", ServiceDecides)]);
            assert!(
                codes.contains(&"policy-without-effect") && text.contains("cors: false"),
                "{what}: {codes:?}\n{text}"
            );
        }
    }
}

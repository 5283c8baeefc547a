//! nginx: servers and locations with `add_header Access-Control-…`, in the forms that common recipes use.
//!
//! The behavior of nginx is taken from its documentation:
//! - <https://nginx.org/en/docs/http/ngx_http_headers_module.html>: a level inherits `add_header` only if it has none
//!   of its own. Without `always`, `add_header` applies only to some statuses.
//! - <https://nginx.org/en/docs/http/ngx_http_map_module.html>: `map`.
//! - <https://nginx.org/en/docs/http/ngx_http_rewrite_module.html>: `if` finds an expression anywhere in the value.

mod cors;
mod directives;

use std::collections::HashMap;

use self::cors::{condition, cors};
use self::directives::Directive;
use super::apisix::node;
use super::clients::{self, Access};
use super::closed;
use super::edits::{self, Edit};
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::limits;
use super::model::{Behaviors, Cors, EdgeAnswer, Model, Route, Service, Timeouts, Upstream};
use super::paths;
use super::value::SyntaxError;

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

/// The directives of a location and of the levels above it, the outermost level first.
type Levels<'d> = Vec<Vec<&'d Directive>>;

/// Returns the directives with one of these names of the nearest level that has any.
fn nearest<'d>(levels: &Levels<'d>, names: &[&str]) -> Vec<&'d Directive> {
    let of = |level: &Vec<&'d Directive>| -> Vec<&'d Directive> {
        level.iter().copied().filter(|one| names.contains(&one.name.as_str())).collect()
    };
    levels.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
}

/// How nginx chooses among the locations that match a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// `=`, and `^~`: no expression is tried.
    BeforeExpressions,
    /// `~` and `~*`: the first one in the file.
    Expression,
    /// The longest prefix, if no expression matches.
    Prefix,
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
    features(&http, &scope, &mut model.findings);
    for server in http.iter().filter(|one| one.name == "server") {
        let levels: Levels<'_> = vec![http.clone(), server.inner().iter().collect()];
        let mut service = empty_service(server.inner(), scope.at(server));
        features(&levels[1], &scope, &mut service.findings);
        let mut routes = Vec::new();
        match nearest(&levels[1..].to_vec(), &["return"]).first() {
            Some(returned) => routes.extend(returned_by_server(returned, &levels, &scope, &mut service)),
            None => locations(server.inner(), &levels, &scope, &mut service, &mut routes),
        }
        service.findings.extend(by_rank(&mut routes));
        service.routes = routes.into_iter().map(|(_, route)| route).collect();
        model.services.push(service);
    }
    // The file is only a part: it has locations without a server.
    if http.iter().any(|one| one.name == "location") {
        let parts: Vec<Directive> = http.iter().map(|one| (*one).clone()).collect();
        let mut service = empty_service(&[], Place { file, line: 1 });
        let mut routes = Vec::new();
        let levels: Levels<'_> = vec![parts.iter().collect()];
        locations(&parts, &levels, &scope, &mut service, &mut routes);
        service.findings.extend(by_rank(&mut routes));
        service.routes = routes.into_iter().map(|(_, route)| route).collect();
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
    let listens: Vec<&str> = server.iter().filter(|one| one.name == "listen").map(|one| one.argument(0)).collect();
    // The usual ports are those of all addresses for http and https.
    let is_usual = |listen: &&str| {
        let (address, port) = listen.rsplit_once(':').unwrap_or(("*", listen));
        ["*", "0.0.0.0", "[::]"].contains(&address) && ["80", "443"].contains(&port)
    };
    let listener = listens.first().filter(|_| !listens.iter().any(is_usual)).map(|listen| format!("`listen {listen}`"));
    let name = hosts.first().cloned().unwrap_or_else(|| "server".to_owned());
    Service {
        name,
        at,
        hosts,
        upstream: None,
        cors: Cors::Off,
        host_of_node: false,
        listener,
        routes: Vec::new(),
        findings,
    }
}

/// Returns the `add_header` directives of a level. If the level has none, returns those of the level above.
fn inherited<'d>(level: &'d [Directive], above: &[&'d Directive]) -> Vec<&'d Directive> {
    let own: Vec<&Directive> = level.iter().filter(|one| one.name == "add_header").collect();
    if own.is_empty() { above.to_vec() } else { own }
}

/// `return` of a server answers every request. A redirect of all requests to https is a setting of the listener.
fn returned_by_server(
    returned: &Directive,
    levels: &Levels<'_>,
    scope: &Scope<'_>,
    service: &mut Service,
) -> Option<(Rank, Route)> {
    let at = scope.at(returned);
    let (answer, mut findings) = answer(returned, at);
    let paths = vec!["/*".to_owned()];
    match answer {
        Some(EdgeAnswer::Redirect { to, .. }) if to == "https://{host}{uri}" => {
            let name = "the redirect to https of a server: `redirect_to_https` of a listener".to_owned();
            service.findings.push(Finding::new(at, Kind::Feature { name }));
            None
        }
        Some(answer) => {
            let headers = nearest(levels, &["add_header"]);
            let (cors, said) = cors("server", at, &[], &headers, scope);
            findings.extend(said);
            let name = "return".to_owned();
            let route = Route { name, at, paths, cors, answer: Some(answer), findings, ..Route::default() };
            Some((Rank::Prefix, route))
        }
        None => Some((Rank::Prefix, closed::route("return", at, paths, &mut findings))),
    }
}

fn locations<'d>(
    level: &'d [Directive],
    levels: &Levels<'d>,
    scope: &Scope<'d>,
    service: &mut Service,
    routes: &mut Vec<(Rank, Route)>,
) {
    for location in level.iter().filter(|one| one.name == "location") {
        let at = scope.at(location);
        let inner = location.inner();
        let levels: Levels<'_> = levels.iter().cloned().chain([inner.iter().collect()]).collect();
        locations(inner, &levels, scope, service, routes);
        let (modifier, path) = match &*location.arguments {
            [path] => ("", path.as_str()),
            [modifier, path, ..] => (modifier.as_str(), path.as_str()),
            [] => continue,
        };
        // Named locations have no path.
        if path.starts_with('@') {
            continue;
        }
        let (rank, (pattern, mut findings)) = match modifier {
            "=" => (Rank::BeforeExpressions, paths::exact(path, at)),
            // Without `^`, nginx finds the expression anywhere in the path.
            "~" | "~*" if !path.starts_with('^') => (Rank::Expression, paths::expression(&format!(".*{path}"), at)),
            "~" | "~*" => (Rank::Expression, paths::expression(path, at)),
            "^~" => (Rank::BeforeExpressions, paths::text_prefix(path, at)),
            _ => (Rank::Prefix, paths::text_prefix(path, at)),
        };
        let Some(pattern) = pattern else {
            left_out(&mut service.findings, &mut findings);
            continue;
        };
        if modifier == "~*" {
            findings.extend(paths::without_case(&pattern, at));
        }
        features(&levels[levels.len() - 1], scope, &mut findings);
        let name = match path.trim_matches(|c: char| !c.is_ascii_alphanumeric()) {
            "" => "root".to_owned(),
            name => name.replace('/', "-"),
        };
        let mut behaviors = Behaviors::default();
        let about_clients = clients(&levels, scope, &mut behaviors);
        let returned = inner.iter().find(|one| one.name == "return");
        let has_pass = inner.iter().any(|one| one.name == "proxy_pass");
        let (upstream, answer) = if inner.iter().any(|one| one.name == "internal") {
            // Only nginx itself uses such a location. A client gets 404.
            (None, Some(EdgeAnswer::Respond(404)))
        } else if let Some(returned) = returned {
            let (answer, said) = self::answer(returned, scope.at(returned));
            findings.extend(said);
            (None, answer)
        } else if has_pass {
            (upstream(inner, &levels, path, scope, &mut behaviors, &mut findings), None)
        } else if behaviors.deny == clients::EVERY_CLIENT {
            (None, Some(EdgeAnswer::Respond(403)))
        } else {
            findings.push(Finding::new(at, Kind::WithoutUpstream));
            (None, None)
        };
        let (cors, said) = cors(&format!("location `{path}`"), at, inner, &nearest(&levels, &["add_header"]), scope);
        let paths = vec![pattern];
        let route = match (&upstream, &answer) {
            (None, None) => closed::route(&name, at, paths, &mut findings),
            (None, Some(_)) => {
                // nginx answers before it reads `allow` and `deny`.
                findings.extend(said);
                Route { name, at, paths, cors, answer, findings, ..Route::default() }
            }
            (Some(_), _) => {
                findings.extend(about_clients);
                findings.extend(said);
                fields(&levels, scope, &mut behaviors, &mut findings);
                let sends_host = host(&levels, &mut behaviors);
                service.host_of_node |= !sends_host;
                let is_first = !routes.iter().any(|(_, route)| route.upstream.is_some());
                if service.host_of_node && is_first {
                    service.findings.push(Finding::new(at, Kind::HostHeaderOfNode));
                }
                let body_limit = match nearest(&levels, &["client_max_body_size"]).first() {
                    Some(size) => limits::size(size.argument(0)).filter(|size| *size > 0),
                    None => Some(limits::BODY_OF_NGINX),
                };
                Route { name, at, paths, upstream, cors, behaviors, body_limit, findings, ..Route::default() }
            }
        };
        routes.push((rank, route));
    }
}

/// Removes the routes that no request reaches, because nginx tries another location first. corsgate would take the more
/// specific path.
fn by_rank(routes: &mut Vec<(Rank, Route)>) -> Vec<Finding> {
    let all: Vec<(usize, Rank, String, Place)> = routes
        .iter()
        .enumerate()
        .flat_map(|(index, (rank, route))| route.paths.iter().map(move |path| (index, *rank, path.clone(), route.at)))
        .collect();
    let hiding = |index: usize, rank: Rank, path: &str| {
        let hides = |(other, other_rank, wide, _): &&(usize, Rank, String, Place)| {
            let is_tried_first = match (other_rank, rank) {
                (Rank::Expression, Rank::Expression) => *other < index,
                (Rank::Expression, Rank::Prefix) => true,
                // The longest prefix decides whether expressions are tried.
                (Rank::BeforeExpressions, Rank::Expression) => {
                    wide.ends_with("/*")
                        && !all.iter().any(|(_, between, prefix, _)| {
                            *between == Rank::Prefix && paths::covers(wide, prefix) && paths::covers(prefix, path)
                        })
                }
                (Rank::BeforeExpressions | Rank::Prefix, _) | (Rank::Expression, Rank::BeforeExpressions) => false,
            };
            is_tried_first && paths::covers(wide, path)
        };
        all.iter().find(hides).map(|(.., at)| at.line)
    };
    let (mut findings, mut index) = (Vec::new(), 0..);
    routes.retain(|(rank, route)| {
        let Some(index) = index.next() else { return true };
        let first = route.paths.iter().find_map(|path| hiding(index, *rank, path));
        findings.extend(first.map(|first| Finding::new(route.at, Kind::RouteNeverReached { first })));
        first.is_none()
    });
    findings
}

/// Reads `return`. Returns `None` if corsgate cannot express it, with the reason.
fn answer(returned: &Directive, at: Place) -> (Option<EdgeAnswer>, Vec<Finding>) {
    let feature = |name: &str| vec![Finding::new(at, Kind::Feature { name: name.to_owned() })];
    let (status, text) = match &*returned.arguments {
        [url] if url.parse::<u16>().is_err() => (302, url.as_str()),
        [status, rest @ ..] => {
            (status.parse().unwrap_or_default(), rest.first().map(String::as_str).unwrap_or_default())
        }
        [] => (0, ""),
    };
    match status {
        301 | 302 | 303 | 307 | 308 if !text.is_empty() => {
            let to = text.replace("$host", "{host}").replace("$http_host", "{host}").replace("$request_uri", "{uri}");
            match to.contains('$') || !(to.contains("://") || to.starts_with('/')) {
                true => (None, feature("a redirect with a variable")),
                false => (Some(EdgeAnswer::Redirect { to, status }), Vec::new()),
            }
        }
        // nginx closes the connection.
        444 => (Some(EdgeAnswer::Respond(403)), Vec::new()),
        200..=599 if !(300..400).contains(&status) => {
            let said = if text.is_empty() { Vec::new() } else { feature("the text of `return`") };
            (Some(EdgeAnswer::Respond(status)), said)
        }
        _ => (None, feature("`return` in this form")),
    }
}

/// Reads the header `Host` for the service. Returns whether it is that of the client.
fn host(levels: &Levels<'_>, behaviors: &mut Behaviors) -> bool {
    let set = nearest(levels, &["proxy_set_header"]);
    let Some(host) = set.iter().find(|one| one.argument(0).eq_ignore_ascii_case("host")) else { return false };
    match host.argument(1) {
        "$proxy_host" => return false,
        value if !value.contains('$') => behaviors.host = Some(value.to_owned()),
        _ => {}
    }
    true
}

/// Request header fields that corsgate sends itself, or that belong to the connection.
const OWN_FIELDS: [&str; 8] = [
    "connection",
    "host",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Reads the edits of header fields that are not about CORS.
fn fields(levels: &Levels<'_>, scope: &Scope<'_>, behaviors: &mut Behaviors, findings: &mut Vec<Finding>) {
    let refuse = |one: &Directive, why: &str| {
        let kind = Kind::HeaderNotImported { name: one.argument(0).to_owned(), why: why.to_owned() };
        Finding::new(scope.at(one), kind)
    };
    for one in nearest(levels, &["proxy_set_header"]) {
        let (name, value) = (one.argument(0), one.argument(1));
        match value {
            _ if OWN_FIELDS.contains(&name.to_ascii_lowercase().as_str()) => {}
            _ if value.contains('$') => findings.push(refuse(one, "its value has a variable")),
            "" => edits::add(&mut behaviors.request_headers, name, Edit::Remove, scope.at(one), findings),
            value => edits::add(&mut behaviors.request_headers, name, Edit::Set(value), scope.at(one), findings),
        }
    }
    for one in nearest(levels, &["add_header"]) {
        let (name, value) = (one.argument(0).to_ascii_lowercase(), one.argument(1));
        if name.starts_with("access-control-") || name == "vary" || value.is_empty() {
            continue;
        }
        if value.contains('$') {
            findings.push(refuse(one, "its value has a variable"));
        } else if one.argument(2) == "always" {
            edits::add(&mut behaviors.response_headers, one.argument(0), Edit::Add(value), scope.at(one), findings);
        } else {
            findings.push(refuse(one, "without `always`, nginx adds it to successful responses only"));
        }
    }
}

/// Directives that the import reads, or that do not change which requests are answered. All others are reported.
const KNOWN: [&str; 64] = [
    "access_log",
    "add_header",
    "alias",
    "allow",
    "break",
    "charset",
    "chunked_transfer_encoding",
    "client_body_buffer_size",
    "client_header_buffer_size",
    "client_max_body_size",
    "default_type",
    "deny",
    "error_log",
    "events",
    "fastcgi_pass",
    "http",
    "http2",
    "if",
    "index",
    "internal",
    "keepalive_requests",
    "keepalive_timeout",
    "large_client_header_buffers",
    "listen",
    "location",
    "log_format",
    "log_not_found",
    "map",
    "map_hash_bucket_size",
    "map_hash_max_size",
    "more_set_headers",
    "pid",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_cache_bypass",
    "proxy_connect_timeout",
    "proxy_headers_hash_bucket_size",
    "proxy_headers_hash_max_size",
    "proxy_hide_header",
    "proxy_http_version",
    "proxy_pass",
    "proxy_read_timeout",
    "proxy_redirect",
    "proxy_request_buffering",
    "proxy_send_timeout",
    "proxy_set_header",
    "resolver",
    "return",
    "root",
    "sendfile",
    "server",
    "server_name",
    "server_names_hash_bucket_size",
    "server_tokens",
    "set",
    "tcp_nodelay",
    "tcp_nopush",
    "try_files",
    "types_hash_max_size",
    "upstream",
    "user",
    "worker_processes",
];

/// Adds a finding for each directive of a level that is left out.
fn features(level: &[&Directive], scope: &Scope<'_>, findings: &mut Vec<Finding>) {
    for one in level {
        let name = match one.name.as_str() {
            "if" => match condition(one).iter().any(|word| word.to_ascii_lowercase().contains("option")) {
                // The answer to a preflight.
                true => continue,
                false => match one.inner().iter().find(|inner| !["add_header", "set"].contains(&&*inner.name)) {
                    Some(inner) => format!("`{}` in `if ({})`", inner.name, condition(one).join(" ")),
                    None => continue,
                },
            },
            // The certificates have a finding of their own.
            name if KNOWN.contains(&name) || name.starts_with("ssl_") && name != "ssl_verify_client" => continue,
            name => format!("directive `{name}`"),
        };
        findings.push(Finding::new(scope.at(one), Kind::Feature { name }));
    }
}

/// Reads `allow` and `deny` of the nearest level that has any. In nginx, the first rule that matches counts.
fn clients(levels: &Levels<'_>, scope: &Scope<'_>, behaviors: &mut Behaviors) -> Vec<Finding> {
    let rules = nearest(levels, &["allow", "deny"]);
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
    levels: &Levels<'_>,
    path: &str,
    scope: &Scope<'_>,
    behaviors: &mut Behaviors,
    findings: &mut Vec<Finding>,
) -> Option<Upstream> {
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
    if let Some(uri) = uri {
        // A path in `proxy_pass` replaces the path of the location.
        (behaviors.strip_prefix, behaviors.add_prefix) = paths::replaced_prefix(path, &format!("/{uri}"), at, findings);
    }
    let time =
        |name: &str| limits::time(&nearest(levels, &[name]).first()?.arguments.join(" ")).filter(|time| *time > 0);
    let timeouts = Timeouts {
        connect: time("proxy_connect_timeout"),
        read: time("proxy_read_timeout"),
        write: time("proxy_send_timeout"),
        total: None,
    };
    let name = authority.split(':').next().unwrap_or("upstream").to_owned();
    Some(Upstream { name, nodes, tls: tls.then_some(None), timeouts })
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

    /// Common recipes. The documentation at the top of this file describes the behavior of nginx for each recipe.
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

    /// Expressions come before prefixes, and corsgate takes the most specific path.
    #[test]
    fn the_order_of_locations_is_kept_or_reported() {
        let pass = "proxy_pass http://127.0.0.1:1;";
        for (locations, lost) in [
            (format!("location ~ ^/a {{ deny all; }} location /a/b/ {{ {pass} }}"), Some("/a/b/")),
            (format!("location ~ ^/a/b/ {{ {pass} }} location ~ ^/a/ {{ {pass} }}"), None),
            (format!("location ~ ^/a/ {{ {pass} }} location ~ ^/a/b/ {{ {pass} }}"), Some("/a/b/")),
            (format!("location ~ ^/a/ {{ {pass} }} location = /a/b {{ {pass} }}"), None),
            (format!("location ~ ^/a/ {{ {pass} }} location ^~ /a/b/ {{ {pass} }}"), None),
            (format!("location ^~ /a/ {{ {pass} }} location ~ ^/a/b/ {{ {pass} }}"), Some("/a/b/")),
            (format!("location /a/ {{ {pass} }} location /a/b/ {{ {pass} }}"), None),
        ] {
            let (text, codes) = table("any.example", &locations, &format!("server {{ {locations} }}\n"), &[]);
            assert_eq!(codes.contains(&"route-never-reached"), lost.is_some(), "{locations}: {codes:?}\n{text}");
            assert!(lost.is_none_or(|lost| !text.contains(&format!("[{lost}"))), "{locations}\n{text}");
        }
    }

    /// Directives of the server and of an outer location apply to a location. Those without a counterpart are reported.
    #[test]
    fn directives_of_outer_levels_count() {
        let pass = "proxy_pass http://127.0.0.1:1;";
        for (source, part, code) in [
            (format!("http {{ deny 10.0.0.1; server {{ location / {{ {pass} }} }} }}"), "deny: [\"10.0.0.1\"]", ""),
            (
                format!("server {{ location /a/ {{ deny 10.0.0.1; location /a/b {{ {pass} }} }} }}"),
                "deny: [\"10.0.0.1\"]",
                "",
            ),
            (format!("server {{ auth_basic x; location / {{ {pass} }} }}"), "`auth_basic`", "feature"),
            (format!("http {{ auth_request /x; server {{ location / {{ {pass} }} }} }}"), "`auth_request`", "feature"),
            (
                format!("server {{ location / {{ limit_except GET {{ deny all; }} {pass} }} }}"),
                "`limit_except`",
                "feature",
            ),
            (
                format!("server {{ if ($bad) {{ return 403; }} location / {{ {pass} }} }}"),
                "`return` in `if ($bad)`",
                "feature",
            ),
            (
                format!("http {{ add_header X-Frame-Options DENY always; server {{ location / {{ {pass} }} }} }}"),
                "X-Frame-Options: \"DENY\"",
                "",
            ),
            (
                format!("server {{ add_header X-Frame-Options DENY; location / {{ {pass} }} }}"),
                "without `always`",
                "header-not-imported",
            ),
            (
                format!(
                    "server {{ proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-A b; location / {{ {pass} }} }}"
                ),
                "X-A: \"b\"",
                "",
            ),
            (
                format!("server {{ proxy_set_header X-A $arg_a; location / {{ {pass} }} }}"),
                "its value has a variable",
                "header-not-imported",
            ),
            (
                format!("server {{ proxy_set_header Host b.internal; location / {{ {pass} }} }}"),
                "upstream_host: b.internal",
                "",
            ),
            (
                format!(
                    "server {{ server_name a.example; return 301 https://$host$request_uri; }} server {{ server_name a.example; location / {{ {pass} }} }}"
                ),
                "redirect_to_https",
                "feature",
            ),
            (
                format!("server {{ server_name a.example; return 444; }} server {{ location / {{ {pass} }} }}"),
                "respond: { status: 403 }",
                "",
            ),
            (
                format!(
                    "server {{ listen 127.0.0.1:8080; server_name a.example; location / {{ {pass} }} }} server {{ listen 80; location / {{ {pass} }} }}"
                ),
                "listen 127.0.0.1:8080",
                "one-listener",
            ),
        ] {
            let (text, codes) = table("a.example", &source, &format!("{source}\n"), &[]);
            assert!(text.contains(part), "no `{part}`: {codes:?}\n{source}\n{text}");
            assert!(code.is_empty() || codes.contains(&code), "no `{code}`: {codes:?}\n{source}\n{text}");
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

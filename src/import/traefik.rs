//! Traefik: dynamic configuration files with routers, services and the middleware `headers`.
//!
//! The behavior of Traefik is taken from its source at fd5a576d:
//! <https://github.com/traefik/traefik/blob/fd5a576d/pkg/middlewares/headers/header.go>. `matchOrigin` compares letter
//! by letter, reflects the origin for `*` with credentials, and finds an expression anywhere in the origin.
//! `processCorsHeaders` answers every preflight.

use super::Parsed;
use super::apisix::node;
use super::clients::{self, Access};
use super::edits::{self, Edit, Target};
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::model::{
    Behaviors, Condition, Cors, EdgeAnswer, FOREIGN, Key, Model, Policy, Route, Service, Timeouts, Upstream,
};
use super::value::Value;
use super::witness::{Answer, Witness};
use super::{closed, rerouted, weights};
use super::{origins, paths};
use crate::cors::PreflightMatch;

pub(super) fn shows_in(document: &Value) -> bool {
    ["routers", "middlewares"].iter().any(|key| document.at(&["http", key]).is_some())
}

/// The documents of all files, each with the index of its file.
struct Files<'v>(Vec<(usize, &'v Value)>);

impl<'v> Files<'v> {
    /// Returns all entries of a section, with their names.
    fn all(&self, section: &str) -> Vec<(usize, &'v str, &'v Value)> {
        let entries = |(file, document): &(usize, &'v Value)| {
            let (file, section) = (*file, document.at(&["http", section]));
            section
                .map(Value::map)
                .unwrap_or_default()
                .iter()
                .map(move |(name, value)| (file, &**name, value))
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(entries).collect()
    }

    /// Returns the names of middlewares. A chain stands for its own list.
    fn middlewares(&self, list: Option<&Value>) -> Vec<(usize, String)> {
        /// Limit of chains, because a chain may name itself.
        const MOST: usize = 100;
        let mut rest = list.map(Value::texts).unwrap_or_default();
        rest.reverse();
        let (mut names, mut chains) = (Vec::new(), 0);
        while let Some((line, name)) = rest.pop() {
            let chain = self.named("middlewares", &name).and_then(|(_, value)| value.get("chain"));
            match chain.and_then(|chain| chain.get("middlewares")).filter(|_| chains < MOST) {
                Some(inner) => {
                    chains += 1;
                    rest.extend(inner.texts().into_iter().rev().map(|(_, inner)| (line, inner)));
                }
                None => names.push((line, name)),
            }
        }
        names
    }

    /// Returns the entry with a name. A provider can follow the name after `@`.
    fn named(&self, section: &str, name: &str) -> Option<(usize, &'v Value)> {
        let name = name.split('@').next().unwrap_or(name);
        self.all(section).into_iter().find(|(_, known, _)| *known == name).map(|(file, _, value)| (file, value))
    }
}

pub(super) fn read(files: &[Parsed<'_>], model: &mut Model) {
    let files = Files(files.iter().flat_map(|file| file.documents.iter().map(|one| (file.file, one))).collect());
    let priority = |value: &Value| value.get("priority").and_then(Value::number).unwrap_or(0);
    let mut routers = files.all("routers");
    // Without a priority, the length of the rule counts.
    routers.sort_by_key(|(_, _, router)| {
        let length = router.text_of("rule").map_or(0, |rule| i64::try_from(rule.len()).unwrap_or(i64::MAX));
        std::cmp::Reverse(if priority(router) == 0 { length } else { priority(router) })
    });
    let mut used = Vec::new();
    for (file, name, router) in routers {
        let at = Place { file, line: router.line };
        let mut findings = Vec::new();
        if priority(router) != 0 {
            findings.push(Finding::new(at, Kind::Priority));
        }
        if let Some(tls) = router.get("tls") {
            let name = "TLS of a router: name the certificates in `listeners`".to_owned();
            findings.push(Finding::new(Place { file, line: tls.line }, Kind::Feature { name }));
        }
        let text = router.text_of("rule").unwrap_or_default();
        let Some(rule) = Rule::parse(text) else {
            let why = "corsgate has no such condition".to_owned();
            let finding = Finding::new(at, Kind::RuleNotImported { rule: text.to_owned(), why });
            model.findings.push(match sample(text) {
                Some((host, path)) => finding.with(rerouted::witness(&host, &path)),
                None => finding,
            });
            continue;
        };
        let mut patterns = Vec::new();
        for (is_prefix, path) in &rule.paths {
            let (pattern, said) = if *is_prefix { paths::text_prefix(path, at) } else { paths::exact(path, at) };
            patterns.extend(pattern);
            findings.extend(said);
        }
        if rule.paths.is_empty() {
            patterns.push("/*".to_owned());
        }
        let (mut cors, mut behaviors, mut answer) = (Cors::Off, Behaviors::default(), None);
        let mut body_limit = None;
        for (line, middleware) in files.middlewares(router.get("middlewares")) {
            let place = Place { file, line };
            let Some((of, value)) = files.named("middlewares", &middleware) else {
                findings.push(Finding::new(
                    place,
                    Kind::Feature { name: format!("middleware `{middleware}`, which the files do not have") },
                ));
                continue;
            };
            let limit = value.at(&["buffering", "maxRequestBodyBytes"]).and_then(Value::number);
            body_limit = body_limit.or(limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0));
            used.push(middleware.split('@').next().unwrap_or_default().to_owned());
            let (found, said) = apply(&middleware, of, value, &mut behaviors, &mut answer);
            findings.extend(said);
            // The first middleware is the outer one. It answers preflights, and it writes its headers last.
            if let (Cors::Off, Some(found)) = (&cors, found) {
                cors = found;
            }
        }
        let service = router.text_of("service").and_then(|service| files.named("services", service));
        let upstream = service.and_then(|(of, value)| {
            upstream(router.text_of("service").unwrap_or(name), of, value, &files, &mut findings)
        });
        if patterns.is_empty() {
            let host = rule.hosts.first().cloned().unwrap_or_default();
            findings.iter_mut().filter_map(|one| one.witness.as_mut()).for_each(|one| one.host.clone_from(&host));
            left_out(&mut model.findings, &mut findings);
            continue;
        }
        let is_closed = upstream.is_none() && answer.is_none();
        if is_closed {
            findings.push(Finding::new(at, Kind::WithoutUpstream));
        }
        let (upstream, host_of_node) = upstream.map_or((None, false), |(upstream, host)| (Some(upstream), host));
        // A preflight is an OPTIONS request. A rule that lists only other methods does not match it.
        if let (Cors::Policy(policy), Some(method)) = (&cors, rule.methods.first())
            && !rule.methods.iter().any(|method| method == "OPTIONS")
        {
            let witness = Witness::preflight(method, &policy.sample_origin(), Answer::NotRouted);
            findings.push(Finding::new(at, Kind::OptionsNotRouted { methods: rule.methods.clone() }).with(witness));
        }
        let mut route = Route {
            name: name.to_owned(),
            at,
            paths: patterns,
            methods: rule.methods,
            condition: rule.condition,
            upstream: upstream.filter(|_| answer.is_none()),
            cors,
            behaviors,
            answer,
            body_limit,
            findings,
            ..Route::default()
        };
        if is_closed {
            closed::close(&mut route);
        }
        // The usual names of the entry points for http and https.
        let points: Vec<String> =
            router.get("entryPoints").map(Value::texts).unwrap_or_default().into_iter().map(|(_, name)| name).collect();
        let is_usual = points.is_empty() || points.iter().any(|name| ["web", "websecure"].contains(&name.as_str()));
        let listener = (!is_usual).then(|| format!("the entry points {}", points.join(", ")));
        model.services.push(Service {
            name: name.to_owned(),
            at,
            hosts: rule.hosts,
            upstream: None,
            cors: Cors::Off,
            host_of_node,
            listener,
            routes: vec![route],
            findings: Vec::new(),
        });
    }
    // The files have middlewares but no routers: each middleware is a policy without routes.
    if model.services.is_empty() {
        for (file, name, value) in files.all("middlewares") {
            if let (Some(cors @ Cors::Policy(_)), said) = apply(name, file, value, &mut Behaviors::default(), &mut None)
            {
                model.findings.extend(said);
                model.services.push(Service::placeholder(name, Place { file, line: value.line }, cors, None));
            }
        }
    }
}

/// A rule of a router: hosts, paths and methods.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rule {
    hosts: Vec<String>,
    /// Each path, and whether it is a prefix.
    paths: Vec<(bool, String)>,
    methods: Vec<String>,
    /// Further conditions of the rule.
    condition: Option<Condition>,
}

impl Rule {
    /// Parses `Host(…) && PathPrefix(…)`. Each part may have alternatives of its kind. Returns `None` for other rules.
    fn parse(text: &str) -> Option<Self> {
        let mut rule = Rule::default();
        for part in text.split("&&") {
            let part = part.trim();
            let part = part.strip_prefix('(').and_then(|part| part.strip_suffix(')')).unwrap_or(part);
            let function = part.trim_start_matches('!').split('(').next().unwrap_or_default().trim();
            let other = match function {
                "Header" | "HeaderRegexp" | "Headers" | "HeadersRegexp" => Some("headers"),
                "Query" | "QueryRegexp" => Some("the query"),
                "ClientIP" => Some("the address of the client"),
                _ => None,
            };
            if let Some(other) = other.filter(|_| !part.contains("||")) {
                let arguments = part.split(['`', '"']).collect::<Vec<_>>();
                let condition = match (function, &*arguments) {
                    ("Header" | "Headers", [head, name, _, value, _]) if !head.starts_with('!') => {
                        Condition::headers(vec![((*name).to_owned(), (*value).to_owned())])
                    }
                    _ => Condition::new(other),
                };
                rule.condition.get_or_insert(condition);
                continue;
            }
            let mut kinds = Vec::new();
            for one in part.split("||") {
                let (kind, arguments) = one.trim().strip_suffix(')')?.split_once('(')?;
                let arguments: Option<Vec<String>> = arguments
                    .split(',')
                    .map(|argument| {
                        let argument = argument.trim();
                        let inner = argument.strip_prefix(['`', '"', '\''])?.strip_suffix(['`', '"', '\''])?;
                        (!inner.contains(['`', '"', '{'])).then(|| inner.to_owned())
                    })
                    .collect();
                let arguments = arguments?;
                match kind.trim() {
                    "Host" => rule.hosts.extend(arguments),
                    "PathPrefix" => rule.paths.extend(arguments.into_iter().map(|path| (true, path))),
                    "Path" => rule.paths.extend(arguments.into_iter().map(|path| (false, path))),
                    "Method" => rule.methods.extend(arguments),
                    _ => return None,
                }
                kinds.push(if kind.trim() == "Path" { "PathPrefix" } else { kind.trim() });
            }
            // `Host(a) || PathPrefix(b)` would need two routes.
            kinds.dedup();
            if kinds.len() != 1 {
                return None;
            }
        }
        // Two conditions of the same kind must both hold. A list cannot express that.
        let count = |kind: &str| text.split("&&").filter(|part| part.contains(kind)).count();
        ["Host(", "Path", "Method("].iter().all(|kind| count(kind) <= 1).then_some(rule)
    }
}

/// Reads a middleware. Returns its policy, and adds the rest to `behaviors` and `answer`.
fn apply(
    name: &str,
    file: usize,
    value: &Value,
    behaviors: &mut Behaviors,
    answer: &mut Option<EdgeAnswer>,
) -> (Option<Cors>, Vec<Finding>) {
    let (mut cors, mut findings) = (None, Vec::new());
    for (kind, settings) in value.map() {
        let at = Place { file, line: settings.line };
        match &**kind {
            "headers" => {
                if settings.map().iter().any(|(key, _)| key.starts_with("accessControl")) {
                    let (found, said) = Cors::of(policy(format!("middleware `{name}`"), settings, file));
                    findings.extend(said);
                    cors = Some(found);
                }
                let fields = [
                    ("customRequestHeaders", &mut behaviors.request_headers),
                    ("customResponseHeaders", &mut behaviors.response_headers),
                ];
                for (key, edits) in fields {
                    for (name, value) in settings.get(key).map(Value::map).unwrap_or_default() {
                        // An empty value removes the field.
                        let edit = value.text().filter(|text| !text.is_empty()).map_or(Edit::Remove, Edit::Set);
                        edits::add(edits, name, edit, Place { file, line: value.line }, &mut findings);
                    }
                }
                let is_read = |key: &str| {
                    key.starts_with("accessControl")
                        || ["addVaryHeader", "customRequestHeaders", "customResponseHeaders"].contains(&key)
                };
                if settings.map().iter().any(|(key, _)| !is_read(key)) {
                    findings.push(Finding::new(
                        at,
                        Kind::Feature { name: "other headers of the middleware `headers`".to_owned() },
                    ));
                }
            }
            "stripPrefix" => match &*settings.get("prefixes").map(Value::texts).unwrap_or_default() {
                [(_, prefix)] => {
                    let prefix = prefix.trim_end_matches('/');
                    behaviors.strip_prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
                }
                _ => findings.push(Finding::new(
                    at,
                    Kind::Feature { name: "middleware `stripPrefix` with several prefixes".to_owned() },
                )),
            },
            "addPrefix" => {
                let prefix = settings.text_of("prefix").map(|prefix| prefix.trim_end_matches('/').to_owned());
                behaviors.add_prefix = prefix;
            }
            "replacePath" => match settings.text_of("path").filter(|path| !path.contains('$')) {
                Some(path) => behaviors.replace = Some(("^.*$".to_owned(), path.to_owned())),
                None => {
                    findings.push(Finding::new(at, Kind::Feature { name: format!("middleware of the kind `{kind}`") }));
                }
            },
            "redirectScheme" => {
                let (scheme, port) = (settings.text_of("scheme"), settings.text_of("port"));
                match (Target { scheme, port, ..Target::default() }).text() {
                    Ok(to) => {
                        let is_permanent = settings.get("permanent").and_then(Value::truth) == Some(true);
                        let status = if is_permanent { 308 } else { 307 };
                        findings.push(Finding::new(at, Kind::RedirectStatus { status }));
                        *answer = Some(EdgeAnswer::Redirect { to, status });
                    }
                    Err(name) => findings.push(Finding::new(at, Kind::Feature { name: name.to_owned() })),
                }
            }
            // The router reads the limit.
            "buffering" if settings.map().iter().all(|(key, _)| &**key == "maxRequestBodyBytes") => {}
            "ipAllowList" | "ipWhiteList" => {
                let entries = settings.get("sourceRange").map(Value::texts).unwrap_or_default();
                findings.extend(clients::add(behaviors, Access::Allow, entries, file));
            }
            kind => findings.push(Finding::new(at, Kind::Feature { name: format!("middleware of the kind `{kind}`") })),
        }
    }
    (cors, findings)
}

/// Returns a host and a path that a rule matches, for rules that the import cannot read.
fn sample(rule: &str) -> Option<(String, String)> {
    if rule.contains('!') {
        return None;
    }
    let argument = |function: &str| {
        let rest = rule.split_once(&format!("{function}("))?.1;
        Some(rest.trim_start().strip_prefix(['`', '"'])?.split(['`', '"']).next()?.to_owned())
    };
    let host = argument("Host").or_else(|| rerouted::sample_host(&argument("HostRegexp")?));
    let path = argument("PathPrefix").or(argument("Path")).or_else(|| {
        let expression = argument("PathRegexp")?;
        let own = expression.strip_prefix('^').map_or_else(|| format!(".*{expression}"), str::to_owned);
        rerouted::sample_path(&own)
    });
    match (&host, &path) {
        (None, None) => None,
        _ => Some((host.unwrap_or_default(), path.unwrap_or_else(|| "/".to_owned()))),
    }
}

/// Returns the nodes of a service. The boolean is true if a node gets its own host in the Host header field.
fn upstream(
    name: &str,
    file: usize,
    service: &Value,
    files: &Files<'_>,
    findings: &mut Vec<Finding>,
) -> Option<(Upstream, bool)> {
    if let Some(weighted) = service.get("weighted") {
        return weighted_upstream(name, file, weighted, files, findings);
    }
    let balancer = service.get("loadBalancer")?;
    let (mut nodes, mut tls) = (Vec::new(), None);
    for server in balancer.list("servers") {
        let url = server.text_of("url").unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let authority = rest.split('/').next().unwrap_or_default();
        if scheme == "https" {
            tls = Some(None);
        }
        let address = match authority.contains(':') {
            true => authority.to_owned(),
            false => format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }),
        };
        let weight = server.get("weight").and_then(Value::number).and_then(|weight| u64::try_from(weight).ok());
        nodes.push((node(address, Place { file, line: server.line }, findings), weight.unwrap_or(1)));
    }
    let host_of_node = balancer.get("passHostHeader").and_then(Value::truth) == Some(false);
    (!nodes.is_empty())
        .then(|| (Upstream { name: name.to_owned(), nodes, tls, timeouts: Timeouts::default() }, host_of_node))
}

/// Returns the nodes of all services of `weighted`. Each service keeps its share.
fn weighted_upstream(
    name: &str,
    file: usize,
    weighted: &Value,
    files: &Files<'_>,
    findings: &mut Vec<Finding>,
) -> Option<(Upstream, bool)> {
    if let Some(sticky) = weighted.get("sticky") {
        let name = "`sticky` of a weighted service".to_owned();
        findings.push(Finding::new(Place { file, line: sticky.line }, Kind::Feature { name }));
    }
    let (mut groups, mut all) = (Vec::new(), Vec::new());
    for one in weighted.list("services") {
        let weight = one.get("weight").and_then(Value::number).and_then(|weight| u64::try_from(weight).ok());
        let of = one.text_of("name").and_then(|name| Some((name, files.named("services", name)?)));
        // A weighted service of weighted services is not read.
        let found = of.filter(|(_, (_, value))| value.get("weighted").is_none());
        let (upstream, host_of_node) =
            found.and_then(|(name, (of, value))| upstream(name, of, value, files, findings))?;
        groups.push((weight.unwrap_or(1), upstream.nodes));
        all.push((upstream.tls, host_of_node));
    }
    let (tls, host_of_node) = all.first()?.clone();
    if all.iter().any(|(one, _)| *one != tls) {
        let name = "TLS to some of the weighted services".to_owned();
        findings.push(Finding::new(Place { file, line: weighted.line }, Kind::Feature { name }));
        return None;
    }
    let nodes = weights::flatten(groups);
    Some((Upstream { name: name.to_owned(), nodes, tls, timeouts: Timeouts::default() }, host_of_node))
}

// --- CORS

fn policy(name: String, settings: &Value, file: usize) -> Policy {
    let at = Place { file, line: settings.line };
    let place = |key: &str| Place { file, line: settings.get(key).map_or(settings.line, |value| value.line) };
    let texts = |key: &str| -> Vec<String> {
        settings.get(key).map(Value::texts).unwrap_or_default().into_iter().map(|(_, text)| text).collect()
    };
    let mut policy = Policy::new(name, at);
    policy.credentials = settings.get("accessControlAllowCredentials").and_then(Value::truth) == Some(true);
    policy.preflight = PreflightMatch::Standard;
    policy.methods = texts("accessControlAllowMethods");
    policy.headers = texts("accessControlAllowHeaders");
    policy.expose = texts("accessControlExposeHeaders");
    if policy.credentials && policy.headers.iter().any(|name| name == "*") {
        policy.allow_every_header(place("accessControlAllowHeaders"));
    }
    let list_at = place("accessControlAllowOriginList");
    for origin in texts("accessControlAllowOriginList") {
        if origin != "*" && origin.contains('*') {
            let why = "Traefik compares origins letter by letter, and no browser sends `*`";
            policy.note(Key::Origins, Finding::new(list_at, Kind::EntryIgnored { entry: origin, why }));
        } else {
            origins::exact(&mut policy, &origin);
        }
    }
    let regexes = settings.get("accessControlAllowOriginListRegex").map(Value::texts).unwrap_or_default();
    if policy.is_any_origin() {
        let others: Vec<String> = policy
            .origins
            .iter()
            .filter(|origin| *origin != "*")
            .cloned()
            .chain(regexes.into_iter().map(|(_, text)| text))
            .collect();
        if !others.is_empty() {
            policy.note(Key::Origins, Finding::new(list_at, Kind::StarTakesAll { others }));
        }
        if policy.credentials {
            let witness = Witness::request("GET", "null", Answer::WithCredentials);
            policy.note(Key::Origins, Finding::new(list_at, Kind::NullReflected).with(witness));
        }
    } else {
        for (line, source) in regexes {
            origins::expression(&mut policy, &source, &format!(".*(?:{source}).*"), &source, Place { file, line });
        }
        if settings.get("addVaryHeader").and_then(Value::truth) != Some(true) {
            policy.note(Key::Policy, Finding::new(at, Kind::VaryAdded));
        }
        let witness = Witness::request("GET", FOREIGN, Answer::ServiceDecides);
        policy.note(Key::Policy, Finding::new(at, Kind::ServiceHeadersRemain).with(witness));
    }
    let age = settings.get("accessControlMaxAge").and_then(Value::number);
    policy.set_max_age(age.unwrap_or(crate::cors::Settings::DEFAULT_MAX_AGE), place("accessControlMaxAge"));
    policy
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Row, asks, get, same, table};
    use super::super::witness::Answer::*;
    use super::Rule;

    fn file(headers: &str) -> String {
        format!(
            "http:\n  routers:\n    r: {{ rule: 'Host(`a.example`) && PathPrefix(`/v1`)', service: s, middlewares: [cors, auth@file] }}\n  middlewares:\n    \
             cors: {{ headers: {{ {headers} }} }}\n    auth: {{ basicAuth: {{}} }}\n  services:\n    s: {{ loadBalancer: {{ servers: [{{ url: \
             'http://127.0.0.1:8000' }}] }} }}\n"
        )
    }

    fn check(what: &str, headers: &str, rows: &[Row]) -> (String, Vec<&'static str>) {
        let rows: Vec<Row> = rows.iter().map(|row| row.again().at("/v1/x")).collect();
        table("a.example", what, &file(headers), &rows)
    }

    /// Tests `matchOrigin`, `processCorsHeaders` and `PostRequestModifyResponseHeaders` of header.go at fd5a576d.
    #[test]
    fn the_middleware_headers() {
        let (text, codes) = check(
            "a list",
            "accessControlAllowOriginList: ['https://a.example', 'https://*.b.example'], accessControlAllowMethods: [GET, PUT], accessControlMaxAge: 600",
            &[
                same("https://a.example", Readable),
                get("https://x.b.example", ServiceDecides, Unreadable, "service-headers-remain"),
                asks("PUT", "https://a.example", Readable, Readable, ""),
                asks("PUT", "https://evil.test", Unreadable, Unreadable, ""),
            ],
        );
        for code in ["entry-ignored", "feature", "path-prefix", "vary-added"] {
            assert!(codes.contains(&code), "no {code}: {codes:?}\n{text}");
        }
        check(
            "an expression",
            r"accessControlAllowOriginListRegex: ['^https://a\.example'], addVaryHeader: true",
            &[
                same("https://a.example", Readable),
                get("https://a.example.evil.test", Readable, Unreadable, "expression-not-anchored"),
            ],
        );
        let open = check(
            "* with credentials",
            "accessControlAllowOriginList: ['*'], accessControlAllowCredentials: true, accessControlAllowHeaders: ['*']",
            &[same("https://evil.test", WithCredentials), get("null", WithCredentials, Unreadable, "null-reflected")],
        );
        assert!(open.1.contains(&"reflects-any-origin") && open.0.contains("allow_headers: [\"*\"]"), "{}", open.0);
        let alone =
            "http: { middlewares: { c: { headers: { accessControlAllowOriginList: ['https://a.example'] } } } }\n";
        let (_, codes) = table("any.example", "alone", alone, &[same("https://a.example", Readable)]);
        assert!(codes.contains(&"without-routes"));
    }

    /// The cases about origins of `TestNewHeader_CORSPreflights` and `TestNewHeader_CORSResponses` in
    /// <https://github.com/traefik/traefik/blob/01393d50/pkg/middlewares/headers/header_test.go>, by their names.
    #[test]
    fn the_cases_of_traefik() {
        let foo = "https://foo.bar.org";
        let methods = "accessControlAllowMethods: [GET, OPTIONS, PUT], accessControlMaxAge: 600";
        let list = format!("accessControlAllowOriginList: ['{foo}'], {methods}");
        check("Test Simple Preflight", &list, &[asks("PUT", foo, Readable, Readable, ""), same(foo, Readable)]);
        let any = format!("accessControlAllowOriginList: ['*'], {methods}");
        check("Wildcard origin Preflight", &any, &[asks("PUT", foo, Readable, Readable, ""), same(foo, Readable)]);
        let by = |expression: &str| format!("accessControlAllowOriginListRegex: ['{expression}']");
        check("Regexp Origin Request", &by(r"^https?://([a-z]+)\.bar\.org$"), &[same(foo, Readable)]);
        check("Partial Regexp Origin Request", &by(r"([a-z]+)\.bar"), &[same(foo, Readable)]);
        check(
            "Regexp Origin Request without matching",
            &by(r"([a-z]+)\.bar\.org"),
            &[get("https://bar.org", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        let (text, codes) = check("Regexp Malformed Origin Request", &by("a(b"), &[same(foo, ServiceDecides)]);
        assert!(codes.contains(&"entry-not-imported") && text.contains("cors: false"), "{codes:?}\n{text}");
    }

    #[test]
    fn rules() {
        let parsed = Rule::parse(
            "(Host(`a.example`) || Host(`b.example`)) && (Path(`/x`) || PathPrefix(`/y`)) && Method(`GET`, `PUT`)",
        )
        .unwrap();
        assert_eq!(parsed.hosts, ["a.example", "b.example"]);
        assert_eq!(parsed.paths, [(false, "/x".to_owned()), (true, "/y".to_owned())]);
        assert_eq!(parsed.methods, ["GET", "PUT"]);
        for other in [
            "HostRegexp(`.*`)",
            "Host(`a`) || PathPrefix(`/x`)",
            "!Host(`a`)",
            "Host(`a`) && Host(`b`)",
            "Host(a)",
            "",
            "PathPrefix(`/{x}`)",
        ] {
            assert_eq!(Rule::parse(other), None, "{other}");
        }
    }

    /// Tests `headers`, `redirectScheme` and `replacePath` of pkg/middlewares at fd5a576d, and rules with conditions.
    #[test]
    fn other_middlewares_and_conditions() {
        let source = "http:\n  routers:\n    a: { rule: 'Host(`a.example`) && Path(`/x`)', service: s, middlewares: [h, p] }\n    b: { rule: 'Host(`a.example`) && \
                      Path(`/y`)', service: s, middlewares: [r] }\n    c: { rule: 'Host(`a.example`) && Path(`/x`) && Header(`X-V`, `2`)', priority: 100, service: \
                      s, middlewares: [cors] }\n  middlewares:\n    h: { headers: { customRequestHeaders: { X-A: '1', X-B: '' }, customResponseHeaders: { X-C: c \
                      } } }\n    p: { replacePath: { path: /z } }\n    r: { redirectScheme: { scheme: https, permanent: true } }\n    cors: { headers: { \
                      accessControlAllowOriginList: ['https://a.example'] } }\n  services: { s: { loadBalancer: { servers: [{ url: 'http://127.0.0.1:8000' }] } } }\n";
        let (text, codes) =
            table("a.example", "middlewares", source, &[same("https://a.example", ServiceDecides).at("/x")]);
        for part in [
            "X-A: \"1\"",
            "remove: [X-B]",
            "X-C: \"c\"",
            "with: \"/z\"",
            "redirect: { to: \"https://{host}{uri}\", status: 308 }",
        ] {
            assert!(text.contains(part), "no {part}\n{text}");
        }
        for code in ["redirect-status", "condition-lost"] {
            assert!(codes.contains(&code), "no {code}: {codes:?}\n{text}");
        }
    }
}

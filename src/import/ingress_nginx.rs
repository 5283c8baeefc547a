//! Kubernetes Ingress with the annotations of ingress-nginx.
//!
//! The behavior of ingress-nginx is taken from its source, release 1.15.1:
//! - <https://github.com/kubernetes/ingress-nginx/blob/main/internal/ingress/annotations/cors/main.go> reads the
//!   annotations.
//! - `buildCorsOriginRegex` in `internal/ingress/controller/template/template.go` writes the expression for origins.
//! - The template `CORS` in `rootfs/etc/nginx/template/nginx.tmpl` writes the headers.

use std::sync::LazyLock;

use regex::Regex;

use super::Parsed;
use super::clients::{self, Access};
use super::closed;
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::kubernetes::{self, Backend};
use super::limits;
use super::model::{Cors, EdgeAnswer, FOREIGN, Key, Model, Policy, Route, Service, Timeouts, Upstream};
use super::value::Value;
use super::witness::{Answer, Witness};
use super::{origins, paths};
use crate::cors::PreflightMatch;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";
const DEFAULT_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const DEFAULT_HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
const DEFAULT_MAX_AGE: i64 = 1_728_000;

/// Annotations that the import reads.
const READ: [&str; 22] = [
    "enable-cors",
    "cors-allow-origin",
    "cors-allow-methods",
    "cors-allow-headers",
    "cors-expose-headers",
    "cors-allow-credentials",
    "cors-max-age",
    "use-regex",
    "rewrite-target",
    "proxy-read-timeout",
    "proxy-connect-timeout",
    "proxy-send-timeout",
    "proxy-body-size",
    "backend-protocol",
    "canary",
    "whitelist-source-range",
    "allowlist-source-range",
    "denylist-source-range",
    "permanent-redirect",
    "permanent-redirect-code",
    "temporal-redirect",
    "upstream-vhost",
];

/// The rules by which ingress-nginx validates the values of annotations.
struct Rules {
    list: Regex,
    origin: Regex,
    methods: Regex,
    headers: Regex,
    expose: Regex,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let rule = |text: &str| Regex::new(text).expect("the expressions of this file are valid");
    Rules {
        list: rule(r"^((((([a-z]+://)?(\*\.)?[A-Za-z0-9\-.]*(:[0-9]+)?,?)|null)+)|\*)?$"),
        origin: rule(r"^([a-z]+://(\*\.)?[A-Za-z0-9\-.]*(:[0-9]+)?|\*|null)?$"),
        methods: rule(r"^([A-Za-z]+,?\s?)+$"),
        headers: rule(r"^[A-Za-z0-9\-_, ]*$"),
        expose: rule(r"^(([A-Za-z0-9\-_]+|\*),?\s?)+$"),
    }
});

pub(super) fn read(files: &[Parsed<'_>], model: &mut Model) {
    for parsed in files {
        for object in parsed.documents.iter().flat_map(kubernetes::objects) {
            match object.text_of("kind") {
                Some("Ingress") => ingress(&Ingress { object, file: parsed.file }, model),
                kind => {
                    let kind = Kind::OtherObject { kind: kind.unwrap_or("an object without a kind").to_owned() };
                    model.findings.push(Finding::new(Place { file: parsed.file, line: object.line }, kind));
                }
            }
        }
    }
}

struct Ingress<'v> {
    object: &'v Value,
    file: usize,
}

/// The value of an annotation, with its place.
struct Annotation<'v> {
    text: &'v str,
    at: Place,
}

impl<'v> Ingress<'v> {
    fn at(&self, value: &Value) -> Place {
        Place { file: self.file, line: value.line }
    }

    fn name(&self) -> &'v str {
        kubernetes::name(self.object)
    }

    /// Returns the value of an annotation if it is not empty. ingress-nginx treats an empty annotation as absent.
    fn annotation(&self, name: &str) -> Option<Annotation<'v>> {
        let value = self.object.at(&["metadata", "annotations"])?.get(&format!("{PREFIX}{name}"))?;
        let text = value.text()?.trim();
        (!text.is_empty()).then_some(Annotation { text, at: self.at(value) })
    }

    /// Parses a boolean as Go's `strconv.ParseBool` does.
    fn truth(&self, name: &str) -> Option<bool> {
        match self.annotation(name)?.text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        }
    }

    fn annotations(&self) -> impl Iterator<Item = (&'v str, &'v Value)> {
        let all = self.object.at(&["metadata", "annotations"]).map(Value::map).unwrap_or_default();
        all.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)))
    }
}

fn ingress(ingress: &Ingress<'_>, model: &mut Model) {
    let at = ingress.at(ingress.object);
    let mut findings = features(ingress);
    if ingress.truth("canary") == Some(true) {
        findings.push(Finding::new(at, Kind::Feature { name: "canary Ingress, with all its routes".to_owned() }));
        left_out(&mut model.findings, &mut findings);
        return;
    }
    let (cors, about_cors) = policy(ingress);
    findings.extend(about_cors);
    let rules = ingress.object.at(&["spec", "rules"]).map(Value::entries).unwrap_or_default();
    // The default backend takes the other paths of the hosts of the rules. Without rules it takes every host.
    let default = |is_catch_all: bool| {
        let spec = ingress.object.get("spec")?;
        let backend = spec.get("defaultBackend").or(spec.get("backend"))?;
        let mut findings = Vec::new();
        let upstream = upstream(ingress, backend, &mut findings);
        let is_closed = upstream.is_none();
        let mut route = route(ingress, "default", ingress.at(backend), "/*".to_owned(), upstream, findings);
        clients(ingress, &mut route);
        if !is_catch_all {
            redirect(ingress, &mut route);
        }
        if is_closed && route.answer.is_none() {
            route.findings.push(Finding::new(route.at, Kind::WithoutUpstream));
            closed::close(&mut route);
        }
        Some(route)
    };
    let service = |at: Place, hosts: Vec<String>, routes: Vec<Route>| Service {
        name: ingress.name().to_owned(),
        at,
        hosts,
        upstream: None,
        cors: cors.again(),
        host_of_node: false,
        listener: None,
        routes,
        findings: Vec::new(),
    };
    // Each rule becomes one service, because each rule has its own host and paths.
    let mut services: Vec<Service> = Vec::new();
    for rule in rules {
        let hosts: Vec<String> = rule.text_of("host").map(str::to_owned).into_iter().collect();
        let mut routes = routes(ingress, rule, &mut findings);
        if !routes.iter().any(|route| route.paths.iter().any(|path| path == "/*")) {
            routes.extend(default(false));
        }
        services.push(service(ingress.at(rule), hosts, routes));
    }
    if rules.is_empty()
        && let Some(route) = default(true)
    {
        services.push(service(route.at, Vec::new(), vec![route]));
    }
    match services.first_mut() {
        Some(first) => first.findings.splice(0..0, findings).for_each(drop),
        None => left_out(&mut model.findings, &mut findings),
    }
    model.services.append(&mut services);
}

/// Returns the findings about features without a counterpart, and about CORS headers in snippets.
fn features(ingress: &Ingress<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, value) in ingress.annotations() {
        let at = ingress.at(value);
        let text = value.text().unwrap_or_default();
        if name.ends_with("-snippet") {
            let mut cors =
                text.lines().enumerate().filter(|(_, line)| line.to_ascii_lowercase().contains("access-control-"));
            if let Some((below, line)) = cors.next() {
                // The text of a block scalar (`key: |`) starts on the line after the key.
                let at = Place { line: at.line + 1 + below, ..at };
                findings.push(Finding::new(at, Kind::Snippet { text: shortened(line.trim()) }));
                continue;
            }
        }
        if !READ.contains(&name) {
            findings.push(Finding::new(at, Kind::Feature { name: format!("annotation `{name}`") }));
        }
    }
    if let Some(tls) = ingress.object.at(&["spec", "tls"]) {
        let name = "TLS of the Ingress (`spec.tls`): name the certificates in `listeners`".to_owned();
        findings.push(Finding::new(ingress.at(tls), Kind::Feature { name }));
    }
    findings
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn routes(ingress: &Ingress<'_>, rule: &Value, of_ingress: &mut Vec<Finding>) -> Vec<Route> {
    let mut routes = Vec::new();
    for path in rule.at(&["http", "paths"]).map(Value::entries).unwrap_or_default() {
        let at = ingress.at(path);
        let text = path.text_of("path").unwrap_or("/");
        let is_regex = ingress.truth("use-regex") == Some(true)
            || ingress.annotation("rewrite-target").is_some_and(|target| target.text.contains('$'));
        let (pattern, mut findings) = match path.text_of("pathType") {
            _ if is_regex => paths::expression(text, at),
            Some("Exact") => paths::exact(text, at),
            Some("Prefix") => paths::segments(text, at),
            _ => paths::text_prefix(text, at),
        };
        let Some(pattern) = pattern else {
            left_out(of_ingress, &mut findings);
            continue;
        };
        let upstream = path.get("backend").and_then(|backend| upstream(ingress, backend, &mut findings));
        // All locations of an Ingress with an expression ignore case.
        if is_regex {
            findings.extend(paths::without_case(&pattern, at));
        }
        let is_closed = upstream.is_none();
        if is_closed {
            findings.push(Finding::new(at, Kind::WithoutUpstream));
        }
        let mut route = route(ingress, text, at, pattern, upstream, findings);
        rewrite(ingress, text, &mut route);
        clients(ingress, &mut route);
        redirect(ingress, &mut route);
        if is_closed && route.answer.is_none() {
            closed::close(&mut route);
        }
        routes.push(route);
    }
    routes
}

fn route(
    ingress: &Ingress<'_>,
    path: &str,
    at: Place,
    pattern: String,
    upstream: Option<Upstream>,
    findings: Vec<Finding>,
) -> Route {
    let name = match path.trim_matches('/') {
        "" => ingress.name().to_owned(),
        path => format!("{}-{}", ingress.name(), path.replace('/', "-")),
    };
    let body_limit = match ingress.annotation("proxy-body-size") {
        Some(size) => limits::size(size.text).filter(|size| *size > 0),
        None => Some(limits::BODY_OF_NGINX),
    };
    Route { name, at, paths: vec![pattern], upstream, body_limit, findings, ..Route::default() }
}

/// Reads the annotations for client addresses, by their old and new names.
fn clients(ingress: &Ingress<'_>, route: &mut Route) {
    let lists = [
        ("whitelist-source-range", Access::Allow),
        ("allowlist-source-range", Access::Allow),
        ("denylist-source-range", Access::Deny),
    ];
    for (name, access) in lists {
        let Some(annotation) = ingress.annotation(name) else { continue };
        let entries = annotation.text.split(',').map(|entry| (annotation.at.line, entry.trim().to_owned())).collect();
        route.findings.extend(clients::add(&mut route.behaviors, access, entries, ingress.file));
    }
}

/// Reads the annotations for redirects and for the host of the service. The whole Ingress is redirected to one URL.
fn redirect(ingress: &Ingress<'_>, route: &mut Route) {
    route.behaviors.host = ingress.annotation("upstream-vhost").map(|host| host.text.to_owned());
    let code = ingress.annotation("permanent-redirect-code").and_then(|code| code.text.parse().ok()).unwrap_or(301);
    let found = [("temporal-redirect", 302), ("permanent-redirect", code)];
    let found = found.into_iter().find_map(|(name, status)| Some((ingress.annotation(name)?, status)));
    let Some((url, status)) = found else { return };
    if url.text.contains(['$', '{']) {
        let name = "a redirect with a variable".to_owned();
        route.findings.push(Finding::new(url.at, Kind::Feature { name }));
        return closed::close(route);
    }
    route.upstream = None;
    route.answer = Some(EdgeAnswer::Redirect { to: url.text.to_owned(), status });
}

/// Reads `rewrite-target` in the two forms of its documentation.
fn rewrite(ingress: &Ingress<'_>, path: &str, route: &mut Route) {
    let Some(target) = ingress.annotation("rewrite-target") else { return };
    let strips = [("/$2", "(/|$)(.*)"), ("/$1", "/(.*)"), ("/$1", "/?(.*)")];
    let stripped = strips.iter().find_map(|(to, end)| path.strip_suffix(end).filter(|_| target.text == *to));
    match stripped {
        Some("") => {}
        Some(prefix) => route.behaviors.strip_prefix = Some(prefix.to_owned()),
        None if !target.text.contains('$') && target.text.starts_with('/') => {
            route.behaviors.replace = Some(("^.*$".to_owned(), target.text.to_owned()));
        }
        None => {
            let name = "annotation `rewrite-target` in this form".to_owned();
            route.findings.push(Finding::new(target.at, Kind::Feature { name }));
        }
    }
}

/// Returns the service of a `backend` as an upstream. The `backend` has the form of v1 or v1beta1.
fn upstream(ingress: &Ingress<'_>, backend: &Value, findings: &mut Vec<Finding>) -> Option<Upstream> {
    let at = ingress.at(backend);
    let service = backend.get("service");
    let name = service.and_then(|service| service.text_of("name")).or(backend.text_of("serviceName"))?;
    let port = service.and_then(|service| service.get("port"));
    let number =
        port.and_then(|port| port.text_of("number").or(port.text_of("name"))).or(backend.text_of("servicePort"));
    let one = Backend { service: name, namespace: kubernetes::namespace(ingress.object), port: number, weight: 1 };
    let (mut upstream, assumed) = kubernetes::upstream(&[one], at);
    findings.extend(assumed);
    let time = |name: &str| limits::time(ingress.annotation(name)?.text).filter(|time| *time > 0);
    upstream.timeouts = Timeouts {
        connect: time("proxy-connect-timeout"),
        read: time("proxy-read-timeout"),
        write: time("proxy-send-timeout"),
        total: None,
    };
    match ingress.annotation("backend-protocol") {
        Some(protocol) if protocol.text.eq_ignore_ascii_case("https") => upstream.tls = Some(None),
        Some(protocol) if !protocol.text.eq_ignore_ascii_case("http") => {
            let name = format!("annotation `backend-protocol: {}`", protocol.text);
            findings.push(Finding::new(protocol.at, Kind::Feature { name }));
        }
        _ => {}
    }
    Some(upstream)
}

// --- CORS

fn policy(ingress: &Ingress<'_>) -> (Cors, Vec<Finding>) {
    let enabled = ingress.truth("enable-cors") == Some(true);
    let first = ingress.annotations().find(|(name, _)| name.starts_with("cors-"));
    if !enabled {
        let why = "`enable-cors` is not `\"true\"`, and without it the other annotations do nothing";
        let finding =
            first.map(|(_, value)| Finding::new(ingress.at(value), Kind::PolicyWithoutEffect { why: why.into() }));
        return (Cors::Off, finding.into_iter().collect());
    }
    let at = ingress.annotation("enable-cors").map_or(ingress.at(ingress.object), |enabled| enabled.at);
    let mut policy = Policy::new(format!("Ingress `{}`", ingress.name()), at);
    let credentials = ingress.truth("cors-allow-credentials").unwrap_or(true);
    policy.credentials = credentials;
    policy.status = 204;
    names(ingress, &mut policy);
    allow_origin(ingress, &mut policy);
    let age = ingress.annotation("cors-max-age").and_then(|age| Some((age.text.parse().ok()?, age.at)));
    let (seconds, at_age) = age.unwrap_or((DEFAULT_MAX_AGE, at));
    if policy.is_any_origin() {
        // nginx.tmpl sets `$http_origin` to `*` and `$cors` to `true`, also for requests without Origin.
        policy.preflight = PreflightMatch::Any;
        policy.note(Key::Preflight, Finding::new(at, Kind::EveryOptionsAnswered));
        if credentials {
            policy.credentials = false;
            let witness = Witness::request("GET", FOREIGN, Answer::StarWithCredentials);
            policy.note(Key::Credentials, Finding::new(at, Kind::StarWithCredentials).with(witness));
        }
    } else {
        policy.note(Key::Policy, Finding::new(at, Kind::VaryAdded));
        origins::leaves_refused_to_the_service(&mut policy, true);
    }
    policy.set_max_age(seconds, at_age);
    Cors::of(policy)
}

fn names(ingress: &Ingress<'_>, policy: &mut Policy) {
    let at = policy.at;
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    };
    let read = |policy: &mut Policy, name: &str, key: Key, rule: &Regex, default: &str| {
        let Some(annotation) = ingress.annotation(name) else {
            if !default.is_empty() {
                policy.note(key, Finding::new(at, Kind::Default { key: key.word() }));
            }
            return split(default);
        };
        if rule.is_match(annotation.text) {
            return split(annotation.text);
        }
        let kind = Kind::NamesMisread { key: name.to_owned(), text: annotation.text.to_owned() };
        policy.note(key, Finding::new(annotation.at, kind));
        split(default)
    };
    policy.methods = read(policy, "cors-allow-methods", Key::Methods, &RULES.methods, DEFAULT_METHODS);
    policy.headers = read(policy, "cors-allow-headers", Key::Headers, &RULES.headers, DEFAULT_HEADERS);
    policy.expose = read(policy, "cors-expose-headers", Key::Expose, &RULES.expose, "");
}

fn allow_origin(ingress: &Ingress<'_>, policy: &mut Policy) {
    let Some(list) = ingress.annotation("cors-allow-origin") else {
        policy.origins.push("*".to_owned());
        policy.note(Key::Origins, Finding::new(policy.at, Kind::Default { key: "allow_origins" }));
        return;
    };
    let entries: Vec<&str> = list.text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if list.text.split(',').any(|entry| entry.trim().is_empty()) {
        policy.note(Key::Origins, Finding::new(list.at, Kind::BlankEntries { list: list.text.to_owned() }));
    }
    if entries.contains(&"*") {
        let others: Vec<String> =
            entries.iter().filter(|entry| **entry != "*").map(|entry| (*entry).to_owned()).collect();
        policy.origins.push("*".to_owned());
        if !others.is_empty() {
            policy.note(Key::Origins, Finding::new(list.at, Kind::StarTakesAll { others }));
        }
        return;
    }
    // If one entry has an invalid character, ingress-nginx reads the whole list as `*`.
    if !RULES.list.is_match(&list.text.replace(' ', "")) {
        let before = if policy.credentials { Answer::StarWithCredentials } else { Answer::Readable };
        let witness = Witness::request("GET", FOREIGN, before);
        let finding = Finding::new(list.at, Kind::ListMisread { list: list.text.to_owned() });
        policy.note(Key::Origins, finding.with(witness));
    }
    for entry in entries {
        if !RULES.origin.is_match(entry) {
            let kind = match entry.contains("://") {
                true => {
                    Kind::EntryIgnored { entry: entry.to_owned(), why: "ingress-nginx cannot read it and skips it" }
                }
                false => Kind::EntryIgnored { entry: entry.to_owned(), why: "it has no scheme" },
            };
            policy.note(Key::Origins, Finding::new(list.at, kind));
        } else if entry.contains("://*.") {
            origins::one_label(policy, entry, list.at);
        } else {
            // nginx ignores case. Browsers send origins in lower case.
            origins::exact(policy, &entry.to_ascii_lowercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Row, asks, get, only, options, same, table};

    fn ingress(annotations: &[(&str, &str)]) -> String {
        let annotations =
            annotations.iter().map(|(name, value)| format!("    nginx.ingress.kubernetes.io/{name}: \"{value}\"\n"));
        let annotations = annotations.collect::<String>();
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: test\n  annotations:\n    other: x\n{annotations}spec:\n  \
             rules: [{{ host: cors.foo.com, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: \
             echo, port: {{ number: 80 }} }} }} }}] }} }}]\n"
        )
    }

    fn enabled(annotations: &[(&str, &str)]) -> String {
        ingress(&[&[("enable-cors", "true")], annotations].concat())
    }

    fn origins(list: &str) -> String {
        enabled(&[("cors-allow-origin", list)])
    }

    /// The cases of <https://github.com/kubernetes/ingress-nginx/blob/dbb11b92/test/e2e/annotations/cors.go>, in the
    /// same order. Each case has the text of its `It`. Where the original test checks nginx.conf, this test checks the
    /// imported file.
    #[test]
    fn the_end_to_end_cases_of_ingress_nginx() {
        use super::super::witness::Answer::*;
        let check = |what: &str, source: &str, rows: &[Row]| table("cors.foo.com", what, source, rows);
        let default = check(
            "should enable cors",
            &enabled(&[]),
            &[
                get("https://any.example", StarWithCredentials, Readable, "star-with-credentials"),
                asks("PATCH", "https://any.example", StarWithCredentials, Readable, "star-with-credentials"),
                options("https://any.example", StarWithCredentials, Readable, "star-with-credentials"),
            ],
        );
        only(
            &default,
            &["allow_methods: [GET, PUT, POST, DELETE, PATCH, OPTIONS]", "max_age: 86400", "match: any, status: 204"],
        );
        let methods = check(
            "should set cors methods to only allow POST, GET",
            &enabled(&[("cors-allow-methods", "POST, GET")]),
            &[],
        );
        only(&methods, &["allow_methods: [POST, GET]"]);
        let age = check("should set cors max-age", &enabled(&[("cors-max-age", "200")]), &[]);
        only(&age, &["max_age: 200"]);
        let no_credentials = check(
            "should disable cors allow credentials",
            &enabled(&[("cors-allow-credentials", "false")]),
            &[same("https://any.example", Readable)],
        );
        assert!(
            !no_credentials.0.contains("allow_credentials") && !no_credentials.1.contains(&"star-with-credentials")
        );
        check(
            "should allow origin for cors",
            &origins("https://origin.cors.com:8080"),
            &[same("https://origin.cors.com:8080", WithCredentials)],
        );
        let headers =
            check("should allow headers for cors", &enabled(&[("cors-allow-headers", "DNT, User-Agent")]), &[]);
        only(&headers, &["allow_headers: [User-Agent]"]);
        assert!(headers.1.contains(&"never-sent"), "DNT");
        let expose = check(
            "should expose headers for cors",
            &enabled(&[("cors-expose-headers", "X-CustomResponseHeader, X-CustomSecondHeader")]),
            &[],
        );
        only(&expose, &["expose_headers: [X-CustomResponseHeader, X-CustomSecondHeader]"]);
        check(
            "should allow - single origin for multiple cors values",
            &origins("https://origin.cors.com:8080, https://origin2.cors.com"),
            &[same("https://origin.cors.com:8080", WithCredentials)],
        );
        check(
            "should not allow - single origin for multiple cors values",
            &origins("http://origin2.cors.com, https://origin.com"),
            &[get("http://no.origin.com", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        let skipped = check(
            "should allow correct origins - single origin for multiple cors values",
            &origins("origin.cors.com:8080, https://origin2.cors.com, https://origin.com"),
            &[
                get("https://origin.cors.com:8080", ServiceDecides, Unreadable, "service-headers-remain"),
                same("https://origin2.cors.com", WithCredentials),
                same("https://origin.com", WithCredentials),
            ],
        );
        assert!(skipped.1.contains(&"entry-ignored"));
        for (what, source) in [
            ("should not break functionality", origins("*")),
            ("should not break functionality - without `*`", enabled(&[])),
            ("should not break functionality with extra domain", origins("*, foo.bar.com")),
        ] {
            check(what, &source, &[get("https://a.example", StarWithCredentials, Readable, "star-with-credentials")]);
        }
        check(
            "should not match",
            &origins("https://foo.bar.com"),
            &[get("https://fooxbar.com", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        let ports = origins("http://origin.cors.com:8080, http://origin.com:8080");
        check(
            "should allow - single origin with required port",
            &ports,
            &[same("http://origin.com:8080", WithCredentials)],
        );
        check(
            "should not allow - single origin with port and origin without port",
            &origins("https://origin2.cors.com, http://origin.com"),
            &[get("http://origin.com:8080", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        check(
            "should not allow - single origin without port and origin with required port",
            &ports,
            &[get("http://origin.com", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        let wildcards = origins("http://*.origin.cors.com, http://*.origin.com:8080");
        let one_label = check(
            "should allow - matching origin with wildcard origin (2 subdomains)",
            &wildcards,
            &[
                same("http://foo.origin.cors.com", WithCredentials),
                same("http://bar-foo.origin.cors.com", WithCredentials),
            ],
        );
        assert!(one_label.1.contains(&"one-label"));
        check(
            "should not allow - unmatching origin with wildcard origin (2 subdomains)",
            &wildcards,
            &[get("http://bar.foo.origin.cors.com", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        let with_port = origins("http://origin.cors.com:8080, http://*.origin.com:8080");
        check(
            "should allow - matching origin+port with wildcard origin",
            &with_port,
            &[same("http://abc.origin.com:8080", WithCredentials)],
        );
        check(
            "should not allow - portless origin with wildcard origin",
            &with_port,
            &[get("http://abc.origin.com", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        check(
            "should allow correct origins - missing subdomain + origin with wildcard origin and correct origin",
            &with_port,
            &[
                get("http://origin.com:8080", ServiceDecides, Unreadable, "service-headers-remain"),
                same("http://bar.origin.com:8080", WithCredentials),
            ],
        );
        check(
            "should allow - missing origins (should allow all origins)",
            &origins("      "),
            &[get("http://book.origin.com", StarWithCredentials, Readable, "star-with-credentials")],
        );
        check(
            "should allow correct origin but not others - cors allow origin annotations contain trailing comma",
            &origins("https://origin-123.cors.com:8080,   ,https://origin-321.cors.com:8080,"),
            &[
                same("https://origin-123.cors.com:8080", WithCredentials),
                same("https://origin-321.cors.com:8080", WithCredentials),
                get("https://unknown.cors.com:8080", ServiceDecides, Unreadable, "service-headers-remain"),
            ],
        );
        check(
            "should allow - origins with non-http[s] protocols",
            &origins("test://localhost, tauri://localhost:3000"),
            &[same("test://localhost", WithCredentials), same("tauri://localhost:3000", WithCredentials)],
        );
    }

    /// Behavior of main.go, template.go and nginx.tmpl of release 1.15.1 that the cases above do not cover.
    #[test]
    fn values_that_ingress_nginx_misreads() {
        use super::super::witness::Answer::*;
        let check = |what: &str, source: &str, rows: &[Row]| table("cors.foo.com", what, source, rows);
        // In main.go, the other annotations have no effect without `enable-cors`. `ParseBool` returns an error for
        // "yes".
        for (what, source) in [
            ("no enable-cors", ingress(&[("cors-allow-origin", "*")])),
            ("yes is not true", ingress(&[("enable-cors", "yes"), ("cors-allow-origin", "https://a.example")])),
        ] {
            let (text, codes) = check(what, &source, &[same("https://a.example", ServiceDecides)]);
            assert!(codes.contains(&"policy-without-effect") && text.contains("cors: false"), "{what}: {text}");
        }
        // If an entry has an invalid character, `corsOriginRegexValidator` fails, and the log says "defaulting to '*'".
        for list in ["https://a.example/, https://b.example", "https://b.example, https://a_b.example"] {
            let rows = [
                get("https://evil.test", StarWithCredentials, Unreadable, "list-misread"),
                get("https://b.example", StarWithCredentials, WithCredentials, "list-misread"),
            ];
            check("a misread list", &origins(list), &rows);
        }
        // The validator's expression can repeat an entry without a comma, so it accepts this list. `corsOriginRegex`
        // then skips the entry.
        let skipped = check(
            "a wildcard in the middle",
            &origins("https://b.example, https://foo.*.example"),
            &[get("https://foo.a.example", ServiceDecides, Unreadable, "service-headers-remain")],
        );
        assert!(skipped.1.contains(&"entry-ignored"));
        // `buildCorsOriginRegex` is called only if there is an origin. Without an origin, `$cors` is never set.
        let none = check(
            "only skipped entries",
            &origins("a.example, b.example"),
            &[same("https://a.example", ServiceDecides)],
        );
        assert!(none.1.contains(&"policy-without-origins"));
        // The expression `HeadersVariable` does not allow `*`.
        let star = check("headers *", &enabled(&[("cors-allow-headers", "*")]), &[]);
        assert!(star.1.contains(&"names-misread") && star.0.contains("If-Modified-Since"), "{}", star.0);
        // In nginx.tmpl, `if ($cors = "trueoptions")` needs an allowed origin. nginx forwards every other OPTIONS
        // request.
        check(
            "preflights",
            &origins("https://a.example"),
            &[
                asks("PUT", "https://evil.test", ServiceDecides, Unreadable, "refused-preflight-forwarded"),
                asks("PUT", "https://a.example", WithCredentials, WithCredentials, ""),
                options("https://a.example", WithCredentials, WithCredentials, ""),
            ],
        );
        // The operator `~*` of nginx ignores case.
        check("upper case", &origins("https://A.Example"), &[same("https://a.example", WithCredentials)]);
        let null = check("null", &origins("null, https://a.example"), &[same("null", WithCredentials)]);
        assert!(null.0.contains("dangerously_allow: [null_origin]"), "{}", null.0);
    }

    #[test]
    fn paths_and_features_of_an_ingress() {
        let source = "kind: Ingress\nmetadata:\n  name: shop\n  namespace: web\n  annotations:\n    \
            nginx.ingress.kubernetes.io/rewrite-target: /$2\n    nginx.ingress.kubernetes.io/whitelist-source-range: \"10.0.0.0/8, x\"\n    nginx.ingress.kubernetes.io/auth-url: http://auth\n    \
            nginx.ingress.kubernetes.io/configuration-snippet: |\n      # cors\n      add_header Access-Control-Allow-Origin *;\n\
            spec:\n  tls: [{ hosts: [a.example] }]\n  rules:\n  - host: a.example\n    http:\n      paths:\n      \
            - { path: /api(/|$)(.*), pathType: ImplementationSpecific, backend: { service: { name: api, port: { name: http } } } }\n      \
            - { path: /img/.*\\.png, backend: { service: { name: img, port: { number: 80 } } } }\n";
        let (text, codes) = table("a.example", "features", source, &[]);
        for expected in [
            "paths: [/api/*]",
            "strip_prefix: /api",
            "address: \"api.web.svc.cluster.local:80\"",
            "allow: [\"10.0.0.0/8\"]",
            "dropped (line 11)",
        ] {
            assert!(text.contains(expected), "no {expected}:\n{text}");
        }
        for code in ["feature", "snippet", "named-port", "path-not-imported", "cluster-address", "entry-not-imported"] {
            assert!(codes.contains(&code), "no {code}: {codes:?}");
        }
    }

    /// `getBackendServers` and `createServers` in internal/ingress/controller/controller.go.
    #[test]
    fn the_default_backend_takes_the_hosts_of_the_rules_and_has_their_lists() {
        let source = |rules: &str| {
            format!(
                "kind: Ingress\nmetadata: {{ name: i, annotations: {{ {}denylist-source-range: 10.0.0.1 }} }}\nspec:\n  defaultBackend: {{ service: \
                 {{ name: d, port: {{ number: 80 }} }} }}\n{rules}",
                super::PREFIX
            )
        };
        let one = "{ path: /x, pathType: Prefix, backend: { service: { name: s, port: { number: 80 } } } }";
        let (text, _) = table(
            "a.example",
            "rules",
            &source(&format!("  rules: [{{ host: a.example, http: {{ paths: [{one}] }} }}]\n")),
            &[],
        );
        assert_eq!((text.matches("hosts: [a.example]").count(), text.matches("- name: i\n").count()), (1, 1), "{text}");
        assert_eq!(
            (text.matches("paths: [/*]").count(), text.matches("deny: [\"10.0.0.1\"]").count()),
            (1, 2),
            "{text}"
        );
        let (text, _) = table("any.example", "no rules", &source(""), &[]);
        assert!(!text.contains("hosts:") && text.contains("deny: [\"10.0.0.1\"]"), "{text}");
    }

    #[test]
    fn redirects_and_the_host() {
        let source = |annotation: &str| {
            format!(
                "kind: Ingress\nmetadata: {{ name: i, annotations: {{ {annotation} }} }}\nspec: {{ rules: [{{ host: a.example, http: {{ paths: [{{ path: /, \
                 pathType: Prefix, backend: {{ service: {{ name: s, port: {{ number: 80 }} }} }} }}] }} }}] }}\n"
            )
        };
        for (annotation, part) in [
            ("permanent-redirect: 'https://b.example/x'", "redirect: { to: \"https://b.example/x\", status: 301 }"),
            ("temporal-redirect: 'https://b.example'", "redirect: { to: \"https://b.example\", status: 302 }"),
            ("upstream-vhost: b.internal", "upstream_host: b.internal"),
        ] {
            let annotation = format!("{}{annotation}", super::PREFIX);
            only(&table("a.example", &annotation, &source(&annotation), &[]), &[part]);
        }
    }
}

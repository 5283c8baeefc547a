//! Istio: VirtualService with `corsPolicy`.
//!
//! Istio turns `corsPolicy` into an Envoy policy:
//! <https://istio.io/latest/docs/reference/config/networking/virtual-service/#CorsPolicy>, and `TranslateCORSPolicy` in
//! `pilot/pkg/networking/core/route/route.go`. The file `envoy.rs` describes the behavior of Envoy.

use super::Parsed;
use super::envoy::{complete, echoed_headers};
use super::finding::{Finding, Kind, Place};
use super::finish::{first_wins, left_out};
use super::kubernetes::{self, Backend};
use super::model::{Behaviors, Cors, Model, Policy, Route, Service, Upstream};
use super::origins::{self, Matcher};
use super::paths;
use super::value::Value;
use crate::cors::PreflightMatch;

pub(super) fn shows_in(document: &Value) -> bool {
    kubernetes::objects(document).any(|object| object.text_of("kind") == Some("VirtualService"))
}

pub(super) fn read(files: &[Parsed<'_>], model: &mut Model) {
    for parsed in files {
        for object in parsed.documents.iter().flat_map(kubernetes::objects) {
            match object.text_of("kind") {
                Some("VirtualService") => model.services.push(virtual_service(object, parsed.file)),
                kind => {
                    let kind = kind.unwrap_or("an object without a kind").to_owned();
                    let at = Place { file: parsed.file, line: object.line };
                    model.findings.push(Finding::new(at, Kind::OtherObject { kind }));
                }
            }
        }
    }
}

fn virtual_service(object: &Value, file: usize) -> Service {
    let name = kubernetes::name(object);
    let mut findings = Vec::new();
    let http = object.at(&["spec", "http"]).map(Value::entries).unwrap_or_default();
    let mut routes = Vec::new();
    for (index, rule) in http.iter().enumerate() {
        let name = match (http.len(), rule.text_of("name")) {
            (_, Some(name)) => name.to_owned(),
            (1, None) => name.to_owned(),
            (_, None) => format!("{name}-{}", index + 1),
        };
        routes.extend(self::routes(object, rule, &name, file, &mut findings));
    }
    findings.extend(first_wins(&mut routes));
    let mut hosts: Vec<String> =
        object.at(&["spec", "hosts"]).map(Value::texts).unwrap_or_default().into_iter().map(|(_, host)| host).collect();
    if hosts.iter().any(|host| host == "*") {
        hosts.clear();
    }
    Service {
        name: name.to_owned(),
        at: Place { file, line: object.line },
        hosts,
        upstream: None,
        cors: Cors::Off,
        host_of_node: false,
        routes,
        findings,
    }
}

fn routes(object: &Value, rule: &Value, name: &str, file: usize, of_service: &mut Vec<Finding>) -> Vec<Route> {
    let at = |value: &Value| Place { file, line: value.line };
    let mut findings = Vec::new();
    let (cors, said) = match rule.get("corsPolicy") {
        Some(settings) => Cors::of(policy(format!("corsPolicy of VirtualService `{name}`"), settings, file)),
        None => (Cors::Off, Vec::new()),
    };
    findings.extend(said);
    for key in ["fault", "retries", "timeout", "mirror", "headers", "rewrite", "redirect"] {
        if let Some(value) = rule.get(key) {
            findings.push(Finding::new(at(value), Kind::Feature { name: format!("`{key}` of a route") }));
        }
    }
    let Some(upstream) = upstream(object, rule, file, &mut findings) else {
        left_out(of_service, &mut findings);
        of_service.push(Finding::new(at(rule), Kind::WithoutUpstream));
        return Vec::new();
    };
    let everything = [Value { line: rule.line, node: super::value::Node::Map([].into()) }];
    let matches = if rule.list("match").is_empty() { &everything[..] } else { rule.list("match") };
    let mut paths_of_rule = Vec::new();
    for one in matches {
        let conditions = [
            ("headers", "headers"),
            ("withoutHeaders", "headers"),
            ("queryParams", "the query"),
            ("sourceLabels", "the client"),
            ("method", "the method in this form"),
            ("scheme", "the scheme"),
            ("port", "the port"),
        ];
        if let Some((_, what)) = conditions.into_iter().find(|(key, _)| one.get(key).is_some()) {
            of_service.push(Finding::new(at(one), Kind::MatchNotImported { what: what.to_owned() }));
            continue;
        }
        let uri = |key: &str| one.at(&["uri", key]).and_then(Value::text);
        let (pattern, mut said) = match (uri("exact"), uri("prefix"), uri("regex")) {
            (Some(path), _, _) => paths::exact(path, at(one)),
            (_, Some(prefix), _) => paths::text_prefix(prefix, at(one)),
            // In Istio, the expression must match the whole path.
            (_, _, Some(regex)) => paths::expression(&format!("{}$", regex.trim_end_matches('$')), at(one)),
            (None, None, None) => (Some("/*".to_owned()), Vec::new()),
        };
        match pattern {
            Some(pattern) => {
                paths_of_rule.push(pattern);
                findings.append(&mut said);
            }
            None => left_out(of_service, &mut said),
        }
    }
    if paths_of_rule.is_empty() {
        left_out(of_service, &mut findings);
        return Vec::new();
    }
    vec![Route {
        name: name.to_owned(),
        at: at(rule),
        paths: paths_of_rule,
        methods: Vec::new(),
        upstream: Some(upstream),
        cors,
        behaviors: Behaviors::default(),
        status: None,
        findings,
    }]
}

fn upstream(object: &Value, rule: &Value, file: usize, findings: &mut Vec<Finding>) -> Option<Upstream> {
    let backends: Vec<Backend<'_>> = rule
        .list("route")
        .iter()
        .filter_map(|route| {
            let destination = route.get("destination")?;
            let weight = route.get("weight").and_then(Value::number).and_then(|weight| u32::try_from(weight).ok());
            Some(Backend {
                service: destination.text_of("host")?,
                namespace: kubernetes::namespace(object),
                port: destination.at(&["port", "number"]).and_then(Value::text),
                weight: weight.unwrap_or(1),
            })
        })
        .collect();
    backends.iter().any(|backend| backend.weight > 0).then(|| {
        let at = Place { file, line: rule.get("route").map_or(rule.line, |route| route.line) };
        let (upstream, assumed) = kubernetes::upstream(&backends, at);
        findings.extend(assumed);
        upstream
    })
}

// --- CORS

fn policy(name: String, settings: &Value, file: usize) -> Policy {
    let place = |key: &str| Place { file, line: settings.get(key).map_or(settings.line, |value| value.line) };
    let texts = |key: &str| -> Vec<String> {
        settings.get(key).map(Value::texts).unwrap_or_default().into_iter().map(|(_, text)| text).collect()
    };
    let mut policy = Policy::new(name, Place { file, line: settings.line });
    policy.credentials = settings.get("allowCredentials").and_then(Value::truth) == Some(true);
    policy.preflight = PreflightMatch::Standard;
    policy.methods = texts("allowMethods");
    policy.headers = texts("allowHeaders");
    policy.expose = texts("exposeHeaders");
    echoed_headers(&mut policy, place("allowHeaders"));
    for entry in settings.list("allowOrigins") {
        let found = [("exact", Matcher::Exact), ("prefix", Matcher::Prefix), ("regex", Matcher::Expression)];
        let found = found.into_iter().find_map(|(key, matcher)| Some((entry.get(key)?, matcher)));
        if let Some((value, matcher)) = found {
            origins::matched(&mut policy, matcher, value.text().unwrap_or_default(), Place { file, line: value.line });
        }
    }
    // `allowOrigin` is the key of earlier versions, for exact origins. It has no effect if `allowOrigins` is set.
    if settings.list("allowOrigins").is_empty() {
        for origin in texts("allowOrigin") {
            origins::matched(&mut policy, Matcher::Exact, &origin, place("allowOrigin"));
        }
    }
    let age = settings.text_of("maxAge").and_then(seconds).map(|seconds| (seconds, place("maxAge")));
    let forwards = settings.text_of("unmatchedPreflights") != Some("IGNORE");
    complete(&mut policy, forwards, age);
    policy
}

/// Parses a Kubernetes duration, such as `24h` or `1h30m`. Returns seconds.
fn seconds(text: &str) -> Option<i64> {
    let parts = text.trim().split_inclusive(|c: char| c.is_ascii_alphabetic());
    let one = |part: &str| {
        let (number, unit) = part.split_at(part.len().checked_sub(1)?);
        let seconds = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        number.parse::<i64>().ok()?.checked_mul(seconds)
    };
    parts.map(one).try_fold(0_i64, |sum, part| sum.checked_add(part?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{get, same, table};
    use super::super::witness::Answer::*;

    fn service(cors: &str, conditions: &str) -> String {
        format!(
            "kind: VirtualService\nmetadata: {{ name: v, namespace: web }}\nspec:\n  hosts: [a.example]\n  http:\n  - match: [{conditions}]\n    route: [{{ \
             destination: {{ host: s, port: {{ number: 8080 }} }} }}]\n    corsPolicy: {{ {cors} }}\n"
        )
    }

    /// Tests <https://istio.io/latest/docs/reference/config/networking/virtual-service/#CorsPolicy>. `envoy.rs` has
    /// more rows.
    #[test]
    fn cors_policies() {
        let (text, _) = table(
            "a.example",
            "exact",
            &service(
                "allowOrigins: [{ exact: 'http://foo.example' }], allowMethods: [POST], maxAge: 24h, allowCredentials: true",
                "",
            ),
            &[same("http://foo.example", WithCredentials)],
        );
        for part in ["max_age: 86400", "dangerously_allow: [insecure_origins]", "s.web.svc.cluster.local:8080"] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        table(
            "a.example",
            "prefix",
            &service("allowOrigins: [{ prefix: 'https://p.example' }]", "{ uri: { prefix: /v1 } }"),
            &[
                same("https://p.example", Readable).at("/v1/x"),
                get("https://p.example.evil.test", Readable, Unreadable, "origin-prefix").at("/v1/x"),
            ],
        );
        let (_, codes) = table(
            "a.example",
            "prefix *",
            &service("allowOrigins: [{ prefix: '*' }]", ""),
            &[same("https://evil.test", Readable)],
        );
        assert!(codes.contains(&"matches-star"));
        let old = service("allowOrigin: ['*'], allowCredentials: true, maxAge: 1h30m", "");
        let (text, codes) = table("a.example", "old key", &old, &[same("https://evil.test", WithCredentials)]);
        assert!(codes.contains(&"reflects-any-origin") && text.contains("max_age: 5400"), "{text}");
        let (_, codes) = table(
            "a.example",
            "headers",
            &format!("{}---\n{}", old, service("", "{ headers: { x: { exact: y } } }")),
            &[],
        );
        assert!(codes.contains(&"match-not-imported"));
    }
}

//! Istio: VirtualService with `corsPolicy`.
//!
//! Istio turns `corsPolicy` into an Envoy policy:
//! <https://istio.io/latest/docs/reference/config/networking/virtual-service/#CorsPolicy>, and `TranslateCORSPolicy` in
//! `pilot/pkg/networking/core/route/route.go`. The file `envoy.rs` describes the behavior of Envoy.

use super::Parsed;
use super::closed;
use super::edits::Target;
use super::envoy::{ANSWERS, complete, echoed_headers};
use super::finding::{Finding, Kind, Place};
use super::finish::{first_wins, left_out};
use super::kubernetes::{self, Backend};
use super::limits;
use super::model::{Behaviors, Condition, Cors, EdgeAnswer, Model, Policy, Route, Service, Upstream};
use super::origins::{self, Matcher};
use super::value::Value;
use super::{edits, paths};
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
    let gateways = object.at(&["spec", "gateways"]).map(Value::texts).unwrap_or_default();
    let gateways: Vec<String> = gateways.into_iter().map(|(_, gateway)| gateway).collect();
    let listener = (!gateways.is_empty()).then(|| format!("the gateways {}", gateways.join(", ")));
    Service {
        name: name.to_owned(),
        at: Place { file, line: object.line },
        hosts,
        upstream: None,
        cors: Cors::Off,
        host_of_node: false,
        listener,
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
    for key in ["fault", "retries", "mirror"] {
        if let Some(value) = rule.get(key) {
            findings.push(Finding::new(at(value), Kind::Feature { name: format!("`{key}` of a route") }));
        }
    }
    let mut behaviors = Behaviors::default();
    if let Some(headers) = rule.get("headers") {
        for (key, edits) in [("request", &mut behaviors.request_headers), ("response", &mut behaviors.response_headers)]
        {
            if let Some(settings) = headers.get(key) {
                edits::of_maps(edits, settings, file, &mut findings);
            }
        }
    }
    let answer = match rule.get("redirect").map(|settings| (redirect(settings), at(settings))) {
        Some((Ok(answer), at)) => {
            if matches!(&answer, EdgeAnswer::Redirect { to, .. } if !to.contains("{uri}")) {
                findings.push(Finding::new(at, Kind::RedirectWithoutQuery));
            }
            Some(answer)
        }
        Some((Err(what), at)) => {
            findings.push(Finding::new(at, Kind::Feature { name: what.to_owned() }));
            None
        }
        None => direct_response(rule, file, &mut findings),
    };
    let cors = match (&answer, cors) {
        (Some(_), Cors::Policy(policy)) => {
            findings.push(Finding::new(policy.at, Kind::PolicyWithoutEffect { why: ANSWERS.into() }));
            Cors::Off
        }
        (_, cors) => cors,
    };
    let upstream = match &answer {
        Some(_) => None,
        None if rule.get("redirect").is_some() => None,
        None => upstream(object, rule, file, &mut findings),
    };
    let mut upstream = upstream;
    if let (Some(upstream), Some(timeout)) = (&mut upstream, rule.get("timeout")) {
        upstream.timeouts = timeout.text().and_then(limits::time).map(limits::whole).unwrap_or_default();
        findings.extend(upstream.timeouts.total.map(|_| Finding::new(at(timeout), Kind::TotalTimeout)));
    }
    let is_closed = upstream.is_none() && answer.is_none();
    if is_closed {
        findings.push(Finding::new(at(rule), Kind::WithoutUpstream));
    }
    if let Some(rewrite) = rule.get("rewrite") {
        match rewriting(rule, rewrite, at(rewrite), &mut findings) {
            Some(Behaviors { strip_prefix, replace, add_prefix, host, .. }) => {
                behaviors = Behaviors { strip_prefix, replace, add_prefix, host, ..behaviors };
            }
            None => {
                let name = "`rewrite` of a route in this form".to_owned();
                findings.push(Finding::new(at(rewrite), Kind::Feature { name }));
            }
        }
    }
    let everything = [Value { line: rule.line, node: super::value::Node::Map([].into()) }];
    let matches = if rule.list("match").is_empty() { &everything[..] } else { rule.list("match") };
    let mut made: Vec<Route> = Vec::new();
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
        let condition = conditions.into_iter().find(|(key, _)| one.get(key).is_some());
        let condition = condition.map(|(key, what)| match one.get(key).filter(|_| key == "headers") {
            Some(headers) => {
                let exact = headers
                    .map()
                    .iter()
                    .filter_map(|(name, one)| Some((name.to_string(), one.text_of("exact")?.to_owned())));
                Condition::headers(exact.collect())
            }
            None => Condition::new(what),
        });
        let uri = |key: &str| one.at(&["uri", key]).and_then(Value::text);
        let (pattern, mut said) = match (uri("exact"), uri("prefix"), uri("regex")) {
            (Some(path), _, _) => paths::exact(path, at(one)),
            (_, Some(prefix), _) => paths::text_prefix(prefix, at(one)),
            // In Istio, the expression must match the whole path.
            (_, _, Some(regex)) => paths::expression(&format!("{}$", regex.trim_end_matches('$')), at(one)),
            (None, None, None) => (Some("/*".to_owned()), Vec::new()),
        };
        if one.get("ignoreUriCase").and_then(Value::truth) == Some(true) {
            said.extend(pattern.as_deref().and_then(|pattern| paths::without_case(pattern, at(one))));
        }
        match pattern {
            Some(pattern) => match made.iter_mut().find(|known| known.condition == condition) {
                Some(known) => {
                    known.paths.push(pattern);
                    known.findings.append(&mut said);
                }
                None => made.push(Route {
                    name: name.to_owned(),
                    at: if condition.is_some() { at(one) } else { at(rule) },
                    paths: vec![pattern],
                    condition,
                    upstream: upstream.clone(),
                    cors: cors.again(),
                    behaviors: behaviors.clone(),
                    answer: answer.clone(),
                    findings: said,
                    ..Route::default()
                }),
            },
            None => left_out(of_service, &mut said),
        }
    }
    match made.first_mut() {
        Some(first) => first.findings.splice(0..0, findings).for_each(drop),
        None => left_out(of_service, &mut findings),
    }
    if is_closed {
        made.iter_mut().for_each(closed::close);
    }
    made
}

/// The answer that a rule's `directResponse` sends, without an upstream.
fn direct_response(rule: &Value, file: usize, findings: &mut Vec<Finding>) -> Option<EdgeAnswer> {
    let settings = rule.get("directResponse")?;
    if let Some(body) = settings.get("body") {
        let name = "the body of a `directResponse`".to_owned();
        findings.push(Finding::new(Place { file, line: body.line }, Kind::Feature { name }));
    }
    let status = settings.get("status").and_then(Value::number).and_then(|status| u16::try_from(status).ok());
    status.map(EdgeAnswer::Respond)
}

/// Reads `redirect`. The error is the reason why corsgate cannot express it.
fn redirect(settings: &Value) -> Result<EdgeAnswer, &'static str> {
    if settings.get("derivePort").is_some() {
        return Err("a redirect with `derivePort`");
    }
    let (scheme, host, port) = (settings.text_of("scheme"), settings.text_of("authority"), settings.text_of("port"));
    let to = Target { scheme, host, port, path: settings.text_of("uri") }.text()?;
    let status = settings.get("redirectCode").and_then(Value::number).and_then(|status| u16::try_from(status).ok());
    Ok(EdgeAnswer::Redirect { to, status: status.unwrap_or(301) })
}

/// Reads `rewrite`: `uri` replaces the matched prefix, or the whole path of an exact match.
fn rewriting(rule: &Value, settings: &Value, at: Place, findings: &mut Vec<Finding>) -> Option<Behaviors> {
    let host = settings.text_of("authority").map(str::to_owned);
    if settings.get("uriRegexRewrite").is_some() {
        return None;
    }
    let Some(to) = settings.text_of("uri") else { return Some(Behaviors { host, ..Behaviors::default() }) };
    let prefix = match rule.list("match") {
        [] => "/",
        [one] => match one.at(&["uri", "exact"]) {
            Some(_) => {
                let replaced = super::apisix::plugins::replacement("^.*$", Some(to).filter(|to| !to.contains('$'))?)?;
                return Some(Behaviors { host, ..replaced });
            }
            None => one.at(&["uri", "prefix"]).and_then(Value::text)?,
        },
        _ => return None,
    };
    let (strip_prefix, add_prefix) = paths::replaced_prefix(prefix, to, at, findings);
    Some(Behaviors { strip_prefix, add_prefix, host, ..Behaviors::default() })
}

fn upstream(object: &Value, rule: &Value, file: usize, findings: &mut Vec<Finding>) -> Option<Upstream> {
    let routes = rule.list("route");
    for subset in routes.iter().filter_map(|route| route.at(&["destination", "subset"])) {
        let name = "`subset` of a destination: the import has all its nodes".to_owned();
        findings.push(Finding::new(Place { file, line: subset.line }, Kind::Feature { name }));
    }
    // Without a weight, only a single destination gets requests.
    let default = u64::from(routes.len() == 1);
    let backends: Vec<Backend<'_>> = routes
        .iter()
        .filter_map(|route| {
            let destination = route.get("destination")?;
            let weight = route.get("weight").and_then(Value::number).and_then(|weight| u64::try_from(weight).ok());
            Some(Backend {
                service: destination.text_of("host")?,
                namespace: kubernetes::namespace(object),
                port: destination.at(&["port", "number"]).and_then(Value::text),
                weight: if routes.len() == 1 { 1 } else { weight.unwrap_or(default) },
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
    use super::super::tests::{asks, get, only, same, table};
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
        // `TestTranslateCORSPolicyForwardNotMatchingPreflights` of pilot/pkg/networking/core/route/route_internal_test.go.
        table(
            "a.example",
            "unmatchedPreflights",
            &service("allowOrigins: [{ exact: 'https://a.example' }], unmatchedPreflights: IGNORE", ""),
            &[asks("PUT", "https://evil.test", Unreadable, Unreadable, "")],
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
        let rules = "kind: VirtualService\nmetadata: { name: v, namespace: web }\nspec:\n  hosts: [a.example]\n  http:\n  - match: [{ uri: { prefix: /v1 }, headers: { \
                     x-v: { exact: '2' } } }]\n    route: [{ destination: { host: s } }]\n    corsPolicy: { allowOrigins: [{ exact: 'https://a.example' }] \
                     }\n  - match: [{ uri: { prefix: /old } }]\n    redirect: { uri: /new, authority: b.example, scheme: https }\n  - match: [{ uri: { prefix: \
                     /v1 } }]\n    rewrite: { uri: /, authority: b.internal }\n    headers: { request: { set: { x-a: '1' } }, response: { remove: [server] } \
                     }\n    route: [{ destination: { host: s } }]\n";
        let imported = table("a.example", "rules", rules, &[same("https://a.example", ServiceDecides).at("/v1/x")]);
        let redirect = "redirect: { to: \"https://b.example/new\", status: 301 }";
        only(
            &imported,
            &[redirect, "x-a: \"1\"", "remove: [server]", "upstream_host: b.internal", "strip_prefix: /v1"],
        );
        for code in ["condition-lost", "prefix-replaced", "redirect-without-query"] {
            assert!(imported.1.contains(&code), "no {code}: {:?}", imported.1);
        }
        let (_, codes) = table(
            "a.example",
            "headers",
            &format!("{}---\n{}", old, service("", "{ headers: { x: { exact: y } } }")),
            &[],
        );
        assert!(codes.contains(&"condition-lost"));
    }
}

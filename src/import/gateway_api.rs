//! Gateway API: HTTPRoute with the filter `CORS`.
//!
//! The documentation at 4564255a defines the filter, type `HTTPCORSFilter`:
//! <https://github.com/kubernetes-sigs/gateway-api/blob/4564255a/apis/v1/httproute_types.go>. In an origin, `*` stands
//! for any number of labels. With credentials, an origin list of `*` must reflect the origin.

use super::Parsed;
use super::closed;
use super::edits::Target;
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::kubernetes::{self, Backend};
use super::limits;
use super::model::{Behaviors, Condition, Cors, EdgeAnswer, Key, Model, Policy, Route, Service, Upstream};
use super::value::Value;
use super::witness::{Answer, Witness};
use super::{edits, origins, paths};
use crate::cors::PreflightMatch;

/// The status of a rule without backends.
const NO_BACKEND: u16 = 500;

pub(super) fn shows_in(document: &Value) -> bool {
    kubernetes::objects(document).any(|object| object.text_of("kind") == Some("HTTPRoute"))
}

pub(super) fn read(files: &[Parsed<'_>], model: &mut Model) {
    for parsed in files {
        for object in parsed.documents.iter().flat_map(kubernetes::objects) {
            let at = Place { file: parsed.file, line: object.line };
            match object.text_of("kind") {
                Some("HTTPRoute") => model.services.push(http_route(object, parsed.file)),
                kind => {
                    let kind = kind.unwrap_or("an object without a kind").to_owned();
                    model.findings.push(Finding::new(at, Kind::OtherObject { kind }));
                }
            }
        }
    }
}

fn http_route(object: &Value, file: usize) -> Service {
    let name = kubernetes::name(object);
    let mut findings = Vec::new();
    let rules = object.at(&["spec", "rules"]).map(Value::entries).unwrap_or_default();
    let routes = rules.iter().enumerate().flat_map(|(index, rule)| {
        let name = match (rules.len(), rule.text_of("name")) {
            (_, Some(name)) => name.to_owned(),
            (1, None) => name.to_owned(),
            (_, None) => format!("{name}-{}", index + 1),
        };
        routes(object, rule, &name, file, &mut findings)
    });
    let routes = routes.collect();
    let parents: Vec<String> = object
        .at(&["spec", "parentRefs"])
        .map(Value::entries)
        .unwrap_or_default()
        .iter()
        .map(|parent| {
            let name = parent.text_of("name").unwrap_or_default();
            parent.text_of("sectionName").map_or_else(|| name.to_owned(), |section| format!("{name}/{section}"))
        })
        .collect();
    let listener = (!parents.is_empty()).then(|| format!("the Gateway {}", parents.join(", ")));
    Service {
        name: name.to_owned(),
        at: Place { file, line: object.line },
        hosts: object
            .at(&["spec", "hostnames"])
            .map(Value::texts)
            .unwrap_or_default()
            .into_iter()
            .map(|(_, host)| host)
            .collect(),
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
    let (mut cors, mut behaviors, mut redirect) = (Cors::Off, Behaviors::default(), None);
    for filter in rule.list("filters") {
        let kind = filter.text_of("type").unwrap_or("without a type");
        // The settings of a filter have the name of its type, in camel case.
        let key = match kind {
            "CORS" => "cors",
            "URLRewrite" => "urlRewrite",
            "RequestHeaderModifier" => "requestHeaderModifier",
            "ResponseHeaderModifier" => "responseHeaderModifier",
            "RequestRedirect" => "requestRedirect",
            _ => "",
        };
        match (key, filter.get(key)) {
            ("cors", Some(settings)) => {
                let (found, said) =
                    Cors::of(policy(format!("CORS filter of HTTPRoute rule `{name}`"), settings, at(settings)));
                findings.extend(said);
                cors = found;
            }
            ("urlRewrite", Some(settings)) => match rewriting(rule, settings) {
                Some(Behaviors { strip_prefix, replace, add_prefix, host, .. }) => {
                    behaviors = Behaviors { strip_prefix, replace, add_prefix, host, ..behaviors };
                }
                None => findings.push(Finding::new(at(filter), feature("filter `URLRewrite` in this form"))),
            },
            ("requestHeaderModifier", Some(settings)) => {
                edits::of_lists(&mut behaviors.request_headers, settings, file, &mut findings);
            }
            ("responseHeaderModifier", Some(settings)) => {
                edits::of_lists(&mut behaviors.response_headers, settings, file, &mut findings);
            }
            ("requestRedirect", Some(settings)) => redirect = Some((self::redirect(settings), at(settings))),
            _ => findings.push(Finding::new(at(filter), feature(&format!("filter `{kind}`")))),
        }
    }
    for key in ["retry", "sessionPersistence"] {
        if let Some(value) = rule.get(key) {
            findings.push(Finding::new(at(value), feature(&format!("`{key}` of a rule"))));
        }
    }
    let (upstream, answer) = match redirect {
        Some((Ok(answer), at)) => {
            if matches!(&answer, EdgeAnswer::Redirect { to, .. } if !to.contains("{uri}")) {
                findings.push(Finding::new(at, Kind::RedirectWithoutQuery));
            }
            (None, Some(answer))
        }
        Some((Err(what), at)) => {
            findings.push(Finding::new(at, feature(what)));
            (None, None)
        }
        None => {
            let upstream = upstream(object, rule, file, &mut findings);
            let answer = upstream.is_none().then_some(EdgeAnswer::Respond(NO_BACKEND));
            (upstream, answer)
        }
    };
    let mut upstream = upstream;
    if let (Some(upstream), Some(timeouts)) = (&mut upstream, rule.get("timeouts")) {
        if let Some(request) = timeouts.text_of("request").and_then(limits::time) {
            upstream.timeouts = limits::whole(request);
        }
        if let Some(backend) = timeouts.get("backendRequest") {
            findings.push(Finding::new(at(backend), feature("`timeouts.backendRequest` of a rule")));
        }
    }
    let is_closed = upstream.is_none() && answer.is_none();
    let matches = rule.list("matches");
    // A rule without `matches` takes every path.
    let everything = [Value { line: rule.line, node: super::value::Node::Map([].into()) }];
    let matches = if matches.is_empty() { &everything[..] } else { matches };
    let mut made: Vec<Route> = Vec::new();
    for one in matches {
        let condition = match (one.get("headers"), one.get("queryParams")) {
            (_, Some(_)) => Some(Condition::new("the query")),
            (Some(headers), None) => {
                let exact =
                    headers.entries().iter().filter(|one| one.text_of("type").is_none_or(|kind| kind == "Exact"));
                let fields =
                    exact.filter_map(|one| Some((one.text_of("name")?.to_owned(), one.text_of("value")?.to_owned())));
                Some(Condition::headers(fields.collect()))
            }
            (None, None) => None,
        };
        let value = one.at(&["path", "value"]).and_then(Value::text).unwrap_or("/");
        let (pattern, mut said) = match one.at(&["path", "type"]).and_then(Value::text) {
            Some("Exact") => paths::exact(value, at(one)),
            Some("RegularExpression") => paths::expression(value, at(one)),
            _ => paths::segments(value, at(one)),
        };
        let Some(pattern) = pattern else {
            left_out(of_service, &mut said);
            continue;
        };
        let methods: Vec<String> = one.text_of("method").map(str::to_owned).into_iter().collect();
        if let (Cors::Policy(policy), false) = (&cors, methods.is_empty() || methods[0] == "OPTIONS") {
            let witness = Witness::preflight(&methods[0], &policy.sample_origin(), Answer::NotRouted);
            said.push(Finding::new(at(one), Kind::OptionsNotRouted { methods: methods.clone() }).with(witness));
        }
        let known = made.iter_mut().find(|known| known.methods == methods && known.condition == condition);
        match known {
            Some(known) => {
                known.paths.push(pattern);
                known.findings.append(&mut said);
            }
            None => made.push(Route {
                name: name.to_owned(),
                at: if condition.is_some() { at(one) } else { at(rule) },
                paths: vec![pattern],
                methods,
                condition,
                upstream: upstream.clone(),
                cors: cors.again(),
                behaviors: behaviors.clone(),
                answer: answer.clone(),
                findings: said,
                ..Route::default()
            }),
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

fn feature(name: &str) -> Kind {
    Kind::Feature { name: name.to_owned() }
}

/// Reads `RequestRedirect`. Without a port, the URL has the usual port of its scheme. The error is the reason why
/// corsgate cannot express the redirect.
fn redirect(settings: &Value) -> Result<EdgeAnswer, &'static str> {
    let path = settings.get("path");
    let full = path.and_then(|path| path.text_of("replaceFullPath"));
    if path.is_some() && full.is_none() {
        return Err("filter `RequestRedirect` with `replacePrefixMatch`");
    }
    let (scheme, host, port) = (settings.text_of("scheme"), settings.text_of("hostname"), settings.text_of("port"));
    let to = Target { scheme, host, port, path: full }.text()?;
    let status = settings.get("statusCode").and_then(Value::number).and_then(|status| u16::try_from(status).ok());
    Ok(EdgeAnswer::Redirect { to, status: status.unwrap_or(302) })
}

/// Reads `URLRewrite`.
fn rewriting(rule: &Value, settings: &Value) -> Option<Behaviors> {
    let host = settings.text_of("hostname").map(str::to_owned);
    let Some(path) = settings.get("path") else { return Some(Behaviors { host, ..Behaviors::default() }) };
    if let Some(prefix) = path.text_of("replacePrefixMatch") {
        let [one] = rule.list("matches") else { return None };
        let matched = one.at(&["path", "value"]).and_then(Value::text).unwrap_or("/").trim_end_matches('/');
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (strip_prefix, add_prefix) = (some(matched), some(prefix.trim_end_matches('/')));
        return Some(Behaviors { strip_prefix, add_prefix, host, ..Behaviors::default() });
    }
    let full = path.text_of("replaceFullPath").filter(|path| !path.contains('$'))?;
    Some(Behaviors { host, ..super::apisix::plugins::replacement("^.*$", full)? })
}

fn upstream(object: &Value, rule: &Value, file: usize, findings: &mut Vec<Finding>) -> Option<Upstream> {
    let is_service = |backend: &&Value| backend.text_of("kind").is_none_or(|kind| kind == "Service");
    for backend in rule.list("backendRefs") {
        if !is_service(&backend) {
            let name = "a backend that is not a Service: its share goes to the others".to_owned();
            findings.push(Finding::new(Place { file, line: backend.line }, Kind::Feature { name }));
        }
        if let Some(filters) = backend.get("filters") {
            let name = "filters of a backend".to_owned();
            findings.push(Finding::new(Place { file, line: filters.line }, Kind::Feature { name }));
        }
    }
    let backends: Vec<Backend<'_>> = rule
        .list("backendRefs")
        .iter()
        .filter(is_service)
        .filter_map(|backend| {
            let weight = backend.get("weight").and_then(Value::number).and_then(|weight| u64::try_from(weight).ok());
            Some(Backend {
                service: backend.text_of("name")?,
                namespace: backend.text_of("namespace").unwrap_or_else(|| kubernetes::namespace(object)),
                port: backend.text_of("port"),
                weight: weight.unwrap_or(1),
            })
        })
        .collect();
    if backends.iter().all(|backend| backend.weight == 0) {
        return None;
    }
    let (upstream, assumed) = kubernetes::upstream(&backends, Place { file, line: rule.get("backendRefs")?.line });
    findings.extend(assumed);
    Some(upstream)
}

// --- CORS

fn policy(name: String, settings: &Value, at: Place) -> Policy {
    let place = |key: &str| Place { line: settings.get(key).map_or(at.line, |value| value.line), ..at };
    let texts = |key: &str| -> Vec<String> {
        settings.get(key).map(Value::texts).unwrap_or_default().into_iter().map(|(_, text)| text).collect()
    };
    let mut policy = Policy::new(name, at);
    policy.credentials = settings.get("allowCredentials").and_then(Value::truth) == Some(true);
    policy.preflight = PreflightMatch::Standard;
    policy.methods = texts("allowMethods");
    policy.headers = texts("allowHeaders");
    policy.expose = texts("exposeHeaders");
    if policy.credentials && policy.headers.iter().any(|name| name == "*") {
        policy.allow_every_header(place("allowHeaders"));
    }
    for origin in texts("allowOrigins") {
        if let Some(below) = origin.split_once("://*.").map(|(scheme, base)| format!("{scheme}://a.b.{base}")) {
            let kind = Kind::AnyDepth { pattern: origin.clone() };
            let witness = Witness::request("GET", &below, origins::allowed(&policy));
            policy.note(Key::Origins, Finding::new(place("allowOrigins"), kind).with(witness));
        }
        origins::exact(&mut policy, &origin.to_ascii_lowercase());
    }
    let seconds = settings.get("maxAge").and_then(Value::number).unwrap_or(5);
    policy.set_max_age(seconds, place("maxAge"));
    policy
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Row, asks, only, same, table};
    use super::super::witness::Answer::*;

    fn route(cors: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r }}\nspec:\n  hostnames: [a.example]\n  rules:\n  - \
             filters: [{{ type: CORS, cors: {{ {cors} }} }}]\n    backendRefs: [{{ name: b, port: 8080 }}]\n"
        )
    }

    fn check(what: &str, cors: &str, rows: &[Row]) -> (String, Vec<&'static str>) {
        table("a.example", what, &route(cors), rows)
    }

    /// Tests the documentation of `HTTPCORSFilter`, and the cases of
    /// <https://github.com/kubernetes-sigs/gateway-api/blob/4564255a/conformance/tests/httproute-cors.go>.
    #[test]
    fn the_filter() {
        let (text, codes) = check(
            "origins, also below",
            "allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2], \
             exposeHeaders: [x-header-3], allowCredentials: true, maxAge: 3600",
            &[
                same("https://www.foo.com", WithCredentials),
                same("https://www.bar.com", WithCredentials),
                same("https://xpto.www.bar.com", WithCredentials),
                same("https://foobar.com", Unreadable),
                asks("GET", "https://xpto.www.bar.com", WithCredentials, WithCredentials, ""),
                asks("GET", "https://foobar.com", Unreadable, Unreadable, ""),
            ],
        );
        assert!(codes.contains(&"any-depth") && text.contains("allow_methods: [GET, OPTIONS]"), "{text}");
        check(
            "methods *",
            "allowOrigins: ['https://www.foo.com'], allowMethods: ['*']",
            &[asks("POST", "https://www.foo.com", Readable, Readable, "")],
        );
        check("any origin", "allowOrigins: ['*'], allowMethods: [PUT]", &[same("https://foobar.com:12345", Readable)]);
        let any = check(
            "any origin with credentials",
            "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], allowCredentials: true",
            &[
                same("https://other.foo.com", WithCredentials),
                asks("PUT", "https://other.foo.com", WithCredentials, WithCredentials, ""),
            ],
        );
        assert!(any.1.contains(&"reflects-any-origin"));
        let (text, _) = check(
            "defaults",
            "allowOrigins: ['https://a.example']",
            &[asks("PUT", "https://a.example", Unreadable, Unreadable, "")],
        );
        assert!(text.contains("max_age: 5") && text.contains("allow_methods: []"), "{text}");
    }

    /// A route with a condition is left out. If another route then answers with another policy, the report has a
    /// finding.
    #[test]
    fn a_condition_never_opens_a_path() {
        let source = |cors: &str, others: &str| {
            format!(
                "kind: HTTPRoute\nmetadata: {{ name: r }}\nspec:\n  rules:\n  - matches: [{{ path: {{ value: /v1 }}, headers: [{{ name: x-v, value: \
                 '2' }}] }}]\n    filters: [{{ type: CORS, cors: {{ {cors} }} }}]\n    backendRefs: [{{ name: b, port: 80 }}]\n  - matches: [{{ path: {{ \
                 value: /v2 }} }}]\n    backendRefs: [{{ name: b, port: 80 }}]\n{others}"
            )
        };
        let other = |cors: &str| {
            format!(
                "  - matches: [{{ path: {{ value: / }} }}]\n    filters: [{{ type: CORS, cors: {{ {cors} }} }}]\n    backendRefs: [{{ name: b, port: 80 }}]\n"
            )
        };
        let one = "allowOrigins: ['https://a.example']";
        for (what, cors, others, ours, lost) in [
            ("nothing else", one, String::new(), NotRouted, false),
            ("the same policy", one, other(one), Readable, false),
            ("a wider policy", one, other("allowOrigins: ['*']"), Readable, true),
            ("a narrower policy", "allowOrigins: ['*']", other(one), Readable, true),
            ("no policy", one, "  - backendRefs: [{ name: b, port: 80 }]\n".to_owned(), ServiceDecides, true),
        ] {
            let row = asks(
                "GET",
                "https://a.example",
                Readable,
                ours,
                match (ours, lost) {
                    (Readable, _) => "",
                    (_, true) => "condition-lost",
                    (_, false) => "match-not-imported",
                },
            );
            let (text, codes) = table("any.example", what, &source(cors, &others), &[row.at("/v1")]);
            assert_eq!(codes.contains(&"match-not-imported"), !lost, "{what}: {codes:?}");
            assert_eq!(codes.contains(&"condition-lost"), lost, "{what}: {codes:?}\n{text}");
        }
    }

    #[test]
    fn headers_and_redirects() {
        let source = "kind: HTTPRoute\nmetadata: { name: r }\nspec:\n  rules:\n  - matches: [{ path: { type: Exact, value: /x } }]\n    filters:\n    - { type: \
                      RequestRedirect, requestRedirect: { scheme: https, hostname: b.example, port: 8443, statusCode: 301 } }\n  - matches: [{ path: { value: \
                      /y } }]\n    filters:\n    - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-A, value: '1' }], remove: [X-B] } \
                      }\n    - { type: ResponseHeaderModifier, responseHeaderModifier: { add: [{ name: X-C, value: '{host}' }, { name: X-D, value: d }, { \
                      name: Vary, value: Origin }] } }\n    - { type: URLRewrite, urlRewrite: { hostname: b.internal } }\n    backendRefs: [{ name: b, port: 80 \
                      }]\n  - matches: [{ path: { value: /z } }]\n    filters: [{ type: RequestRedirect, requestRedirect: { hostname: b.example } }]\n";
        let imported = table("any.example", "headers", source, &[]);
        let redirect = "redirect: { to: \"https://b.example:8443{uri}\", status: 301 }";
        only(&imported, &[redirect, "remove: [X-B]", "X-A: \"1\"", "X-D: \"d\"", "upstream_host: b.internal"]);
        assert!(!imported.0.contains("X-C:") && !imported.0.contains("Vary:"), "{}", imported.0);
        for code in ["header-not-imported", "feature"] {
            assert!(imported.1.contains(&code), "no {code}: {:?}", imported.1);
        }
    }

    #[test]
    fn rules_and_matches() {
        let source = "kind: HTTPRoute\nmetadata: { name: r, namespace: web }\nspec:\n  rules:\n  - matches: [{ path: { type: PathPrefix, value: / } }]\n    \
                      backendRefs: [{ name: b, port: 80 }]\n  - filters: [{ type: CORS, cors: { allowOrigins: ['*'] } }]\n  - matches: [{ path: { type: \
                      Exact, value: /e }, method: PUT }, { headers: [{ name: x, value: y }] }]\n    filters: [{ type: CORS, cors: { allowOrigins: \
                      ['https://a.example'] } }, { type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /f } } }]\n    \
                      backendRefs: [{ name: b, port: 80, weight: 3 }, { name: c, port: 80 }]\n---\nkind: Gateway\nmetadata: { name: g }\n";
        let rows = [
            same("https://a.example", ServiceDecides),
            asks("PUT", "https://a.example", NotRouted, Unreadable, "options-not-routed").at("/e"),
        ];
        let (text, codes) = table("any.example", "rules", source, &rows);
        for code in ["route-never-reached", "condition-lost", "other-object", "cluster-address"] {
            assert!(codes.contains(&code), "no {code}: {codes:?}");
        }
        for part in ["weight: 3", "replace: { pattern: \"^.*$\", with: \"/f\" }", "b.web.svc.cluster.local:80"] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        // A rule without backends answers 500.
        let (text, _) = table(
            "any.example",
            "no backend",
            "kind: HTTPRoute\nspec: { rules: [{ matches: [{ path: { value: /x } }] }] }\n",
            &[],
        );
        assert!(text.contains("respond: { status: 500 }"), "{text}");
    }
}

//! Gateway API: HTTPRoute with the filter `CORS`.
//!
//! The documentation at 4564255a defines the filter, type `HTTPCORSFilter`:
//! <https://github.com/kubernetes-sigs/gateway-api/blob/4564255a/apis/v1/httproute_types.go>. In an origin, `*` stands
//! for any number of labels. With credentials, an origin list of `*` must reflect the origin.

use super::Parsed;
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::kubernetes::{self, Backend};
use super::model::{Behaviors, Cors, Key, Model, Policy, Route, Service, Upstream};
use super::value::Value;
use super::witness::{Answer, Witness};
use super::{origins, paths};
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
        routes,
        findings,
    }
}

fn routes(object: &Value, rule: &Value, name: &str, file: usize, of_service: &mut Vec<Finding>) -> Vec<Route> {
    let at = |value: &Value| Place { file, line: value.line };
    let mut findings = Vec::new();
    let (mut cors, mut behaviors) = (Cors::Off, Behaviors::default());
    for filter in rule.list("filters") {
        match (filter.text_of("type"), filter.get("cors"), filter.get("urlRewrite")) {
            (Some("CORS"), Some(settings), _) => {
                let (found, said) =
                    Cors::of(policy(format!("CORS filter of HTTPRoute rule `{name}`"), settings, at(settings)));
                findings.extend(said);
                cors = found;
            }
            (Some("URLRewrite"), _, Some(settings)) => match rewriting(rule, settings) {
                Some(found) => behaviors = found,
                None => findings.push(Finding::new(at(filter), feature("filter `URLRewrite` in this form"))),
            },
            (kind, _, _) => {
                findings
                    .push(Finding::new(at(filter), feature(&format!("filter `{}`", kind.unwrap_or("without a type")))));
            }
        }
    }
    for key in ["timeouts", "retry", "sessionPersistence"] {
        if let Some(value) = rule.get(key) {
            findings.push(Finding::new(at(value), feature(&format!("`{key}` of a rule"))));
        }
    }
    let upstream = upstream(object, rule, file, &mut findings);
    let status = upstream.is_none().then_some(NO_BACKEND);
    let matches = rule.list("matches");
    // A rule without `matches` takes every path.
    let everything = [Value { line: rule.line, node: super::value::Node::Map([].into()) }];
    let matches = if matches.is_empty() { &everything[..] } else { matches };
    let mut made: Vec<Route> = Vec::new();
    for one in matches {
        let what =
            [("headers", "headers"), ("queryParams", "the query")].into_iter().find(|(key, _)| one.get(key).is_some());
        if let Some((_, what)) = what {
            of_service.push(Finding::new(at(one), Kind::MatchNotImported { what: what.to_owned() }));
            continue;
        }
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
        match made.iter_mut().find(|known| known.methods == methods) {
            Some(known) => {
                known.paths.push(pattern);
                known.findings.append(&mut said);
            }
            None => made.push(Route {
                name: name.to_owned(),
                at: at(rule),
                paths: vec![pattern],
                methods,
                upstream: upstream.clone(),
                cors: cors.again(),
                behaviors: behaviors.clone(),
                status,
                findings: said,
            }),
        }
    }
    match made.first_mut() {
        Some(first) => first.findings.splice(0..0, findings).for_each(drop),
        None => left_out(of_service, &mut findings),
    }
    made
}

fn feature(name: &str) -> Kind {
    Kind::Feature { name: name.to_owned() }
}

/// Reads `URLRewrite` if it changes only the path.
fn rewriting(rule: &Value, settings: &Value) -> Option<Behaviors> {
    let path = settings.get("path")?;
    if settings.get("hostname").is_some() {
        return None;
    }
    if let Some(prefix) = path.text_of("replacePrefixMatch") {
        let [one] = rule.list("matches") else { return None };
        let matched = one.at(&["path", "value"]).and_then(Value::text).unwrap_or("/").trim_end_matches('/');
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (strip_prefix, add_prefix) = (some(matched), some(prefix.trim_end_matches('/')));
        return Some(Behaviors { strip_prefix, add_prefix, ..Behaviors::default() });
    }
    super::apisix::replacement("^.*$", path.text_of("replaceFullPath").filter(|path| !path.contains('$'))?)
}

fn upstream(object: &Value, rule: &Value, file: usize, findings: &mut Vec<Finding>) -> Option<Upstream> {
    let backends: Vec<Backend<'_>> = rule
        .list("backendRefs")
        .iter()
        .filter(|backend| backend.text_of("kind").is_none_or(|kind| kind == "Service"))
        .filter_map(|backend| {
            let weight = backend.get("weight").and_then(Value::number).and_then(|weight| u32::try_from(weight).ok());
            Some(Backend {
                service: backend.text_of("name")?,
                namespace: backend.text_of("namespace").unwrap_or_else(|| kubernetes::namespace(object)),
                port: backend.text_of("port"),
                // Gateway API allows weights up to 1,000,000. corsgate allows weights up to 1000.
                weight: weight.unwrap_or(1).min(1000),
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
    use super::super::tests::{Row, asks, same, table};
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
        for code in ["route-never-reached", "match-not-imported", "other-object", "cluster-address"] {
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

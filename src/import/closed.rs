//! Routes that are not imported although their paths are known, such as one without an upstream. Such a route refuses
//! its requests if another route would take them. Otherwise it is left out, and its requests get 404.

use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::model::{Behaviors, Cors, EdgeAnswer, Model, Route, Service};
use super::paths;

/// The status of a closed route.
const STATUS: u16 = 503;

/// Returns a closed route. `findings` are those about the route. Only the findings about dropped parts are kept.
pub(super) fn route(name: &str, at: Place, paths: Vec<String>, findings: &mut Vec<Finding>) -> Route {
    let mut route = Route { name: name.to_owned(), at, paths, ..Route::default() };
    route.findings.append(findings);
    close(&mut route);
    route
}

/// Replaces what a route does by a refusal.
pub(super) fn close(route: &mut Route) {
    let mut findings = std::mem::take(&mut route.findings);
    left_out(&mut route.findings, &mut findings);
    // A method that is not a token never arrives.
    let had_methods = !route.methods.is_empty();
    route.methods.retain(|method| !method.contains('*') && http::Method::from_bytes(method.as_bytes()).is_ok());
    if had_methods && route.methods.is_empty() {
        route.paths.clear();
    }
    (route.upstream, route.cors, route.behaviors) = (None, Cors::Off, Behaviors::default());
    (route.answer, route.is_closed) = (Some(EdgeAnswer::Respond(STATUS)), true);
}

/// Leaves out the closed routes whose requests no other route would take. The other closed routes stay.
pub(super) fn settle(model: &mut Model) {
    let is_open = |service: &Service| service.routes.iter().any(|route| !route.is_closed);
    // The hosts and paths of the open routes.
    let open: Vec<(Vec<String>, Vec<String>)> = model
        .services
        .iter()
        .filter(|service| is_open(service))
        .map(|service| {
            let routes = service.routes.iter().filter(|route| !route.is_closed);
            (service.hosts.clone(), routes.flat_map(|route| route.paths.iter().cloned()).collect())
        })
        .collect();
    for service in &mut model.services {
        // The services that take requests for a host if this service has no closed routes.
        let taking = |host: Option<&String>| -> Vec<&Vec<String>> {
            let own = open.iter().filter(|(hosts, _)| host.map_or(hosts.is_empty(), |host| hosts.contains(host)));
            let own: Vec<_> = own.map(|(_, paths)| paths).collect();
            match host {
                Some(host) if own.is_empty() => {
                    open.iter().filter(|(hosts, _)| is_below(hosts, host)).map(|(_, paths)| paths).collect()
                }
                _ => own,
            }
        };
        let taking: Vec<&Vec<String>> = match service.hosts.is_empty() {
            true => taking(None),
            false => service.hosts.iter().flat_map(|host| taking(Some(host))).collect(),
        };
        let is_taken = |path: &String| taking.iter().any(|paths| paths.iter().any(|wide| paths::covers(wide, path)));
        let findings = &mut service.findings;
        service.routes.retain_mut(|route| {
            if !route.is_closed {
                return true;
            }
            if !route.paths.iter().any(is_taken) {
                findings.append(&mut route.findings);
                return false;
            }
            if !route.findings.iter().any(|finding| finding.kind == Kind::RouteClosed) {
                route.findings.push(Finding::new(route.at, Kind::RouteClosed));
            }
            true
        });
    }
}

/// Whether patterns of hosts cover a host.
fn is_below(hosts: &[String], host: &str) -> bool {
    let covers = |pattern: &String| pattern.strip_prefix('*').is_some_and(|base| host.ends_with(base));
    hosts.is_empty() || hosts.iter().any(covers)
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;

    /// Sources with a wide route and a route that cannot be imported as it is: the part that the import must have, and
    /// the code of the finding. Without them, the wide route would take the requests without a word.
    #[test]
    fn no_route_is_lost_to_a_wider_one() {
        let nginx = |more: &str| {
            format!("server {{ server_name a.example; location / {{ proxy_pass http://127.0.0.1:1; }} {more} }}\n")
        };
        let envoy = |route: &str| {
            format!(
                "virtual_hosts:\n- name: h\n  domains: [a.example]\n  routes:\n  - {route}\n  - {{ match: {{ prefix: / }}, route: {{ cluster: c }} }}\n"
            )
        };
        let istio = |rule: &str| {
            format!(
                "kind: VirtualService\nmetadata: {{ name: v }}\nspec:\n  hosts: [a.example]\n  http:\n  - {rule}\n  - route: [{{ destination: {{ host: s }} }}]\n"
            )
        };
        let gateway = |rule: &str| {
            format!(
                "kind: HTTPRoute\nmetadata: {{ name: r }}\nspec:\n  hostnames: [a.example]\n  rules:\n  - {rule}\n  - backendRefs: [{{ name: b, port: 80 }}]\n"
            )
        };
        let traefik = |router: &str| {
            format!(
                "http:\n  routers:\n    all: {{ rule: 'Host(`a.example`)', service: s }}\n    one: {{ {router} }}\n  services: {{ s: {{ loadBalancer: {{ servers: [{{ url: 'http://n:1' }}] }} }} }}\n"
            )
        };
        let kong = |more: &str| {
            format!(
                "_format_version: '3.0'\nservices:\n- {{ name: s, url: 'http://n:1', routes: [{{ name: all, hosts: [a.example], paths: [/] }}] }}\n{more}"
            )
        };
        let apisix = |route: &str| {
            format!(
                "routes:\n- {{ uri: '/*', host: a.example, upstream: {{ nodes: {{ 'n:1': 1 }} }} }}\n- {{ host: a.example, {route} }}\n"
            )
        };
        let ingress = |path: &str| {
            format!(
                "kind: Ingress\nmetadata: {{ name: i }}\nspec: {{ rules: [{{ host: a.example, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: s, port: {{ number: 80 }} }} }} }}, {path}] }} }}] }}\n"
            )
        };
        let closed = "respond: { status: 503 }";
        for (source, part, code) in [
            (nginx("location /x { root /srv; }"), closed, "route-closed"),
            (nginx("location /x { deny all; }"), "respond: { status: 403 }", ""),
            (nginx("location /x { return 404; }"), "respond: { status: 404 }", ""),
            (nginx("location /x { internal; proxy_pass http://127.0.0.1:2; }"), "respond: { status: 404 }", ""),
            (nginx("location /x { return 301 https://$server_name$uri; }"), closed, "route-closed"),
            (
                nginx("location /x { return 301 https://$host$request_uri; }"),
                "redirect: { to: \"https://{host}{uri}\", status: 301 }",
                "",
            ),
            (nginx(r"location ~ /\.ht { deny all; }"), "rerouted", "rerouted"),
            (nginx(r"location ~* ^/x { proxy_pass http://127.0.0.1:2; }"), "path-case", "path-case"),
            (envoy("{ match: { prefix: /x }, redirect: { prefix_rewrite: /y } }"), closed, "route-closed"),
            (envoy("{ match: { prefix: /x }, direct_response: { status: 403 } }"), "respond: { status: 403 }", ""),
            (
                envoy("{ match: { safe_regex: { regex: '/x.*y' } }, direct_response: { status: 403 } }"),
                "rerouted",
                "rerouted",
            ),
            (
                envoy("{ match: { prefix: /x, case_sensitive: false }, direct_response: { status: 403 } }"),
                "path-case",
                "path-case",
            ),
            (
                istio("{ match: [{ uri: { prefix: /x } }], redirect: { derivePort: FROM_REQUEST_PORT } }"),
                closed,
                "route-closed",
            ),
            (
                istio("{ match: [{ uri: { prefix: /x } }], directResponse: { status: 403 } }"),
                "respond: { status: 403 }",
                "",
            ),
            (istio("{ match: [{ uri: { prefix: /x } }], delegate: { name: d } }"), closed, "route-closed"),
            (
                gateway(
                    "{ matches: [{ path: { value: /x } }], filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /y } } }] }",
                ),
                closed,
                "route-closed",
            ),
            (
                gateway(
                    "{ matches: [{ path: { type: RegularExpression, value: '/x.*y' } }], backendRefs: [{ name: b, port: 80 }] }",
                ),
                "rerouted",
                "rerouted",
            ),
            (traefik("rule: 'Host(`a.example`) && PathPrefix(`/x`)', service: unknown"), closed, "route-closed"),
            (traefik("rule: 'Host(`a.example`) && PathRegexp(`^/x.*y`)', service: s"), "rerouted", "rerouted"),
            (kong("routes: [{ name: x, hosts: [a.example], paths: [/x] }]\n"), closed, "route-closed"),
            (
                kong(
                    "routes: [{ name: x, hosts: [a.example], paths: [/x], plugins: [{ name: request-termination, config: { status_code: 403 } }] }]\n",
                ),
                "respond: { status: 403 }",
                "",
            ),
            (
                kong("routes: [{ name: x, hosts: [a.example], paths: ['~/x.*y'], service: { name: s } }]\n"),
                "rerouted",
                "rerouted",
            ),
            (apisix("uri: /x"), closed, "route-closed"),
            (
                apisix(
                    "uri: /x, vars: [[a, '==', b]], plugins: { ip-restriction: { blacklist: [10.0.0.1] } }, upstream: { nodes: { 'n:1': 1 } }",
                ),
                "does not refuse what this one refuses",
                "condition-lost",
            ),
            (
                apisix("uri: /x, plugins: { fault-injection: { abort: { http_status: 403 } } }"),
                "respond: { status: 403 }",
                "",
            ),
            (apisix("uri: /x, upstream_id: 7"), "placeholder.invalid:80", "unknown-cluster"),
            (apisix("uri: /x, service_id: 7, upstream: { nodes: { 'n:1': 1 } }"), "paths: [/x]", "not-in-files"),
            (apisix("uri: '/x{y}', upstream: { nodes: { 'n:1': 1 } }"), "is not imported", "rerouted"),
            (
                ingress("{ path: /x, pathType: Prefix, backend: { resource: { kind: Bucket, name: b } } }"),
                closed,
                "route-closed",
            ),
        ] {
            let (text, codes) = table("a.example", &source, &source, &[]);
            let part = if part == code { "changed" } else { part };
            assert!(text.contains(part), "no `{part}`: {codes:?}\n{source}\n{text}");
            assert!(code.is_empty() || codes.contains(&code), "no `{code}`: {codes:?}\n{source}\n{text}");
        }
    }

    /// A closed route is left out if no other route would take its requests.
    #[test]
    fn a_closed_route_that_is_not_needed_is_left_out() {
        let source = "server { server_name a.example; location / { root /srv; } location /v1/ { proxy_pass http://127.0.0.1:1; } }\n\
            server { server_name b.example; location /x { root /srv; } }\n";
        let (text, codes) = table("a.example", "no wider route", source, &[]);
        assert!(codes.contains(&"without-upstream") && !codes.contains(&"route-closed"), "{codes:?}\n{text}");
        assert!(!text.contains("respond") && !text.contains("b.example"), "{text}");
        // A server for every host would take its requests.
        let wide = format!("{source}server {{ location / {{ proxy_pass http://127.0.0.1:2; }} }}\n");
        let (text, _) = table("a.example", "a server for every host", &wide, &[]);
        assert!(text.contains("hosts: [b.example]") && text.contains("respond: { status: 503 }"), "{text}");
    }

    /// Hosts that are not imported.
    #[test]
    fn a_host_that_is_not_imported_is_not_lost_to_a_wider_one() {
        let source = "server { server_name ~^admin[0-9]+\\.example$; location / { proxy_pass http://127.0.0.1:1; deny all; } }\n\
            server { location / { proxy_pass http://127.0.0.1:2; } }\n";
        let (text, codes) = table("a.example", "an expression", source, &[]);
        assert!(codes.contains(&"rerouted"), "{codes:?}\n{text}");
        let alone = source.lines().next().unwrap().to_owned()
            + "\nserver { server_name b.example; location / { proxy_pass http://127.0.0.1:2; } }\n";
        let (text, codes) = table("b.example", "no wider host", &alone, &[]);
        assert!(codes.contains(&"host-not-imported") && !codes.contains(&"rerouted"), "{codes:?}\n{text}");
    }
}

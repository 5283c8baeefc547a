//! The conformance cases of Gateway API, over HTTP, against the import of the manifest of these cases.

use std::fs;

use super::probe::{CREDENTIALS, HEADERS, METHODS, ORIGIN};
use super::{import, root};
use crate::support::client::{Response, fetch};
use crate::support::gateway::Gateway;
use crate::support::upstream::{Reply, Upstream};

/// A case of httproute-cors.go: the request, and the values that each response header may have. `&[]` means that the
/// header must be absent.
struct Case {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    statuses: &'static [u16],
    expected: &'static [(&'static str, &'static [&'static str])],
}

const ANSWERED: &[u16] = &[200, 204];

const LISTED: &[(&str, &[&str])] = &[
    (METHODS, &["GET,OPTIONS", "OPTIONS,GET"]),
    (HEADERS, &["x-header-1,x-header-2", "x-header-2,x-header-1"]),
    ("access-control-expose-headers", &["x-header-3,x-header-4", "x-header-4,x-header-3"]),
    ("access-control-max-age", &["3600"]),
    (CREDENTIALS, &["true"]),
];

macro_rules! asks {
    ($origin:literal, $method:literal) => {
        &[("Origin", $origin), ("access-control-request-method", $method)]
    };
    ($origin:literal, $method:literal, $headers:literal) => {
        &[("Origin", $origin), ("access-control-request-method", $method), ("access-control-request-headers", $headers)]
    };
}

const CASES: [Case; 17] = [
    Case {
        name: "preflight, exact origin",
        method: "OPTIONS",
        path: "/cors-1",
        headers: asks!("https://www.foo.com", "GET", "x-header-1, x-header-2"),
        statuses: ANSWERED,
        expected: &[(ORIGIN, &["https://www.foo.com"]), LISTED[0], LISTED[1], LISTED[2], LISTED[3], LISTED[4]],
    },
    Case {
        name: "preflight, wildcard origin",
        method: "OPTIONS",
        path: "/cors-1",
        headers: asks!("https://www.bar.com", "GET", "x-header-1, x-header-2"),
        statuses: ANSWERED,
        expected: &[(ORIGIN, &["https://www.bar.com"]), LISTED[0], LISTED[1], LISTED[2], LISTED[3], LISTED[4]],
    },
    Case {
        name: "preflight, any number of labels",
        method: "OPTIONS",
        path: "/cors-1",
        headers: asks!("https://xpto.www.bar.com", "GET", "x-header-1, x-header-2"),
        statuses: ANSWERED,
        expected: &[(ORIGIN, &["https://xpto.www.bar.com"]), LISTED[0], LISTED[1], LISTED[2], LISTED[3], LISTED[4]],
    },
    Case {
        name: "preflight, other origin",
        method: "OPTIONS",
        path: "/cors-1",
        headers: asks!("https://foobar.com", "GET"),
        statuses: &[200, 204, 403],
        expected: &[(ORIGIN, &[])],
    },
    Case {
        name: "request, exact origin",
        method: "GET",
        path: "/cors-1",
        headers: asks!("https://www.foo.com", "GET", "x-header-1, x-header-2"),
        statuses: &[200],
        expected: &[(ORIGIN, &["https://www.foo.com"])],
    },
    Case {
        name: "request, wildcard origin",
        method: "GET",
        path: "/cors-1",
        headers: asks!("https://www.bar.com", "GET", "x-header-1, x-header-2"),
        statuses: &[200],
        expected: &[(ORIGIN, &["https://www.bar.com"])],
    },
    Case {
        name: "request, other origin",
        method: "GET",
        path: "/cors-1",
        headers: asks!("https://foobar.com", "GET"),
        statuses: &[200],
        expected: &[(ORIGIN, &[])],
    },
    Case {
        name: "preflight, any method",
        method: "OPTIONS",
        path: "/cors-2",
        headers: asks!("https://www.foo.com", "POST"),
        statuses: ANSWERED,
        expected: &[(ORIGIN, &["https://www.foo.com"]), (METHODS, &["POST", "*"]), (CREDENTIALS, &[])],
    },
    Case {
        name: "preflight, no credentials",
        method: "OPTIONS",
        path: "/cors-2",
        headers: asks!("https://www.foo.com", "POST"),
        statuses: ANSWERED,
        expected: &[(CREDENTIALS, &[])],
    },
    Case {
        name: "preflight, any origin",
        method: "OPTIONS",
        path: "/cors-wildcard-origin",
        headers: asks!("https://foobar.com", "PUT"),
        statuses: ANSWERED,
        expected: &[(ORIGIN, &["https://foobar.com", "*"]), (METHODS, &["PUT"]), (CREDENTIALS, &[])],
    },
    Case {
        name: "preflight, any origin with a port",
        method: "OPTIONS",
        path: "/cors-wildcard-origin",
        headers: asks!("https://foobar.com:12345", "PUT"),
        statuses: ANSWERED,
        expected: &[(ORIGIN, &["https://foobar.com:12345", "*"]), (METHODS, &["PUT"]), (CREDENTIALS, &[])],
    },
    Case {
        name: "request, any origin with a port",
        method: "PUT",
        path: "/cors-wildcard-origin",
        headers: &[("Origin", "https://foobar.com:12345")],
        statuses: &[200],
        expected: &[(ORIGIN, &["https://foobar.com:12345", "*"])],
    },
    Case {
        name: "request, any origin",
        method: "PUT",
        path: "/cors-wildcard-origin",
        headers: &[("Origin", "https://foobar.com")],
        statuses: &[200],
        expected: &[(ORIGIN, &["https://foobar.com", "*"]), (CREDENTIALS, &[])],
    },
    Case {
        name: "preflight, any origin with credentials",
        method: "OPTIONS",
        path: "/cors-wildcard-methods-headers",
        headers: asks!("https://other.foo.com", "PUT", "x-header-1, x-header-2"),
        statuses: ANSWERED,
        expected: &[(ORIGIN, &["https://other.foo.com"]), (METHODS, &["PUT"]), LISTED[1], (CREDENTIALS, &["true"])],
    },
    Case {
        name: "preflight, any origin without credentials",
        method: "OPTIONS",
        path: "/cors-wildcard-methods-headers-unauth",
        headers: asks!("https://other.foo.com", "PUT", "x-header-1, x-header-2"),
        statuses: ANSWERED,
        expected: &[
            (ORIGIN, &["https://other.foo.com", "*"]),
            (METHODS, &["PUT", "*"]),
            (HEADERS, &["x-header-1,x-header-2", "x-header-2,x-header-1", "*"]),
            (CREDENTIALS, &[]),
        ],
    },
    Case {
        name: "request with credentials",
        method: "GET",
        path: "/cors-wildcard-methods-headers",
        headers: &[("Origin", "https://other.foo.com")],
        statuses: &[200],
        expected: &[(ORIGIN, &["https://other.foo.com"]), (CREDENTIALS, &["true"])],
    },
    Case {
        name: "request without credentials",
        method: "GET",
        path: "/cors-wildcard-methods-headers-unauth",
        headers: &[("Origin", "https://other.foo.com")],
        statuses: &[200],
        expected: &[(ORIGIN, &["https://other.foo.com", "*"]), (CREDENTIALS, &[])],
    },
];

/// Runs the 17 cases of
/// <https://github.com/kubernetes-sigs/gateway-api/blob/4564255a/conformance/tests/httproute-cors.go>, in their order,
/// against a running gateway with the imported manifest.
#[test]
fn an_imported_http_route_passes_the_conformance_cases_of_gateway_api() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let folder = tempfile::tempdir().unwrap();
    let manifest = fs::read_to_string(root().join("tests/import/gateway-api-conformance.yaml")).unwrap();
    let imported = import(folder.path(), &manifest, &[]);
    assert_eq!(imported.code, 4, "{}", imported.stderr);
    assert!(imported.stderr.contains("1 unsafe"), "{}", imported.stderr);
    assert!(imported.stdout.contains("dangerously_allow: [any_origin_with_credentials]"), "{}", imported.stdout);
    let config = imported.stdout.replace("0.0.0.0:9080", "{listen}");
    let config = config.replace("backend.default.svc.cluster.local:8080", &upstream.address().to_string());
    let gateway = Gateway::start(&config);
    let mut failed = Vec::new();
    for Case { name, method, path, headers, statuses, expected } in CASES {
        let headers = [&[("Host", "any.example")], headers].concat();
        let response: Response = fetch(gateway.address(), method, path, &headers);
        let is_expected = expected.iter().all(|(header, values)| match response.header(header) {
            Some(value) => values.contains(&value.replace(' ', "").as_str()),
            None => values.is_empty(),
        });
        if !is_expected || !statuses.contains(&response.status) {
            failed.push(format!("{name}: {response:?}"));
        }
    }
    assert!(failed.is_empty(), "{}\n{config}", failed.join("\n"));
}

//! Tests of the command `corsgate import`, of its documentation page, and of the Gateway API conformance cases over
//! HTTP.
//!
//! The tests of each engine's behavior are in the module of its format, in `src/import`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::client::{Response, fetch};
use crate::support::gateway::{Gateway, Output, free_port, run_in};
use crate::support::nginx;
use crate::support::upstream::{Reply, Upstream};

const INGRESS: &str = "kind: Ingress\nmetadata:\n  name: shop\n  annotations:\n    nginx.ingress.kubernetes.io/enable-cors: \"true\"\n    \
    nginx.ingress.kubernetes.io/cors-allow-origin: \"*\"\n    nginx.ingress.kubernetes.io/cors-allow-credentials: \"false\"\n    \
    nginx.ingress.kubernetes.io/cors-max-age: \"600\"\nspec: { rules: [{ host: a.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { \
    name: s, port: { number: 80 } } } }] } }] }\n";

fn import(folder: &Path, text: &str, more: &[&str]) -> Output {
    fs::write(folder.join("source"), text).unwrap();
    run_in(folder, &[&["import", "source"], more].concat())
}

#[test]
fn the_exit_code_says_whether_something_changes() {
    let folder = tempfile::tempdir().unwrap();
    let kept = import(folder.path(), INGRESS, &[]);
    assert_eq!(kept.code, 0, "{}{}", kept.stdout, kept.stderr);
    assert!(
        kept.stderr.ends_with("source: ingress-nginx, 1 policy, 0 unsafe, 0 changed, 0 dropped\n"),
        "{}",
        kept.stderr
    );
    let changed = import(folder.path(), &INGRESS.replace("\"false\"", "\"true\""), &[]);
    assert_eq!(changed.code, 4, "{}", changed.stderr);
    for (text, message) in [
        ("a: [1\n", "corsgate: source:2: "),
        ("kind: Pod\n", "the format is not known"),
        ("kind: Ingress\nspec: {}\n", "there is no route to import"),
        ("server {\n  add_header 'X '*'\n}\n", "corsgate: source:2: unexpected `*` after the quoted text `X `"),
    ] {
        let refused = import(folder.path(), text, &[]);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{text}");
        assert!(refused.stderr.contains(message), "{}", refused.stderr);
    }
    assert_eq!(import(folder.path(), INGRESS, &["--from", "caddy"]).code, 2);
    assert_eq!(run_in(folder.path(), &["import", "absent"]).code, 1);
    let two = [folder.path().join("two"), folder.path().join("source")];
    fs::write(&two[0], "_format_version: '3.0'\n").unwrap();
    let mixed = run_in(folder.path(), &["import", "source", "two"]);
    assert!(mixed.code == 1 && mixed.stderr.contains("import them one after the other"), "{}", mixed.stderr);
}

#[test]
fn the_configuration_goes_to_a_new_file_and_the_report_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), INGRESS, &["--output", "corsgate.yaml", "--format", "json"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, ""), "{}", output.stderr);
    let report: serde_json::Value = serde_json::from_str(&output.stderr).unwrap();
    assert_eq!((report["format"].as_str(), report["changes"].as_bool()), (Some("ingress-nginx"), Some(false)));
    assert_eq!(report["policies"][0]["place"], "source:5");
    let checked = run_in(folder.path(), &["check", "--deny-warnings", "--config", "corsgate.yaml"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    let again = import(folder.path(), INGRESS, &["--output", "corsgate.yaml"]);
    assert!(
        again.code == 1 && again.stderr.contains("corsgate.yaml: "),
        "an existing file is not overwritten: {}",
        again.stderr
    );
}

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

const ORIGIN: &str = "access-control-allow-origin";
const METHODS: &str = "access-control-allow-methods";
const HEADERS: &str = "access-control-allow-headers";
const CREDENTIALS: &str = "access-control-allow-credentials";
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

/// Recipes of nginx: the content of a `location` without its `proxy_pass`, and the codes of the differences that the
/// report must name.
const RECIPES: [(&str, &[&str]); 6] = [
    (
        "add_header Access-Control-Allow-Origin *; add_header Access-Control-Allow-Methods 'GET, PUT, OPTIONS'; add_header \
         Access-Control-Max-Age 600; if ($request_method = OPTIONS) { return 204; }",
        &["errors-without-headers", "two-headers"],
    ),
    (
        "if ($request_method = OPTIONS) { add_header Access-Control-Allow-Origin $http_origin always; add_header \
         Access-Control-Allow-Credentials true always; add_header Access-Control-Allow-Methods 'GET, PUT'; add_header \
         Access-Control-Allow-Headers X-Custom; return 204; } if ($request_method = GET) { add_header Access-Control-Allow-Origin $http_origin \
         always; add_header Access-Control-Allow-Credentials true always; }",
        &["methods-without-headers", "null-reflected", "two-headers"],
    ),
    (
        "if ($http_origin ~* ^https://(.+\\.)?c\\.example$) { set $cors 1; } if ($cors = 1) { add_header \
         Access-Control-Allow-Origin $http_origin always; add_header Access-Control-Allow-Credentials true always; }",
        &["preflight-continues", "service-headers-remain", "two-headers"],
    ),
    (
        "proxy_hide_header Access-Control-Allow-Origin; if ($http_origin ~ ^https://c\\.example) { add_header \
         Access-Control-Allow-Origin $http_origin always; }",
        &["expression-not-anchored", "preflight-continues"],
    ),
    (
        "add_header Access-Control-Allow-Origin https://a.example always; if ($request_method = OPTIONS) { add_header X-A 1; return 204; }",
        &["preflights-fail", "two-headers"],
    ),
    (
        "add_header Access-Control-Allow-Origin * always; add_header Access-Control-Allow-Credentials true always;",
        &["star-with-credentials", "preflight-continues", "two-headers"],
    ),
];

/// A request from a page: the method, the origin, and for a preflight the requested method and header.
struct Probe {
    method: &'static str,
    origin: &'static str,
    asks_for: Option<(&'static str, &'static str)>,
    /// What the service sends: `plain` (no CORS headers), `cors` (its own CORS headers) or `error`.
    service: &'static str,
}

/// What the page may do with the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Nothing,
    Reads,
    ReadsWithCredentials,
    StarWithCredentials,
}

impl Probe {
    fn send(&self, address: std::net::SocketAddr) -> Page {
        let mut headers = vec![("Host", "h.example"), ("Origin", self.origin), ("X-Service", self.service)];
        if let Some((method, header)) = self.asks_for {
            headers.push(("Access-Control-Request-Method", method));
            if !header.is_empty() {
                headers.push(("Access-Control-Request-Headers", header));
            }
        }
        let response = fetch(address, self.method, "/v1/x", &headers);
        let names = |name: &str| -> Vec<String> {
            response
                .all(name)
                .iter()
                .flat_map(|value| value.split(','))
                .map(|one| one.trim().to_ascii_lowercase())
                .collect()
        };
        let [origin] = response.all(ORIGIN)[..] else { return Page::Nothing };
        let with_credentials = response.all(CREDENTIALS) == ["true"];
        let lists = |header: &str, wanted: &str| {
            let listed = names(header);
            listed.contains(&wanted.to_ascii_lowercase()) || (listed.contains(&"*".to_owned()) && !with_credentials)
        };
        let is_allowed = match self.asks_for {
            None => true,
            Some((method, header)) => {
                (200..300).contains(&response.status)
                    && (["GET", "POST"].contains(&method) || lists(METHODS, method))
                    && (header.is_empty() || lists(HEADERS, header))
            }
        };
        match (origin, with_credentials) {
            (origin, _) if !is_allowed || (origin != "*" && origin != self.origin) => Page::Nothing,
            ("*", true) => Page::StarWithCredentials,
            (_, true) => Page::ReadsWithCredentials,
            (_, false) => Page::Reads,
        }
    }

    /// Whether a finding with this code explains why the two answers differ.
    fn is_explained_by(&self, code: &str, nginx: Page, ours: Page) -> bool {
        let has_own = self.service == "cors";
        match code {
            "errors-without-headers" => self.service == "error",
            "two-headers" => has_own && nginx == Page::Nothing,
            "service-headers-remain" => has_own && ours == Page::Nothing,
            "methods-without-headers" => !["GET", "OPTIONS"].contains(&self.method),
            "null-reflected" => self.origin == "null" && ours == Page::Nothing,
            "expression-not-anchored" => self.origin == "https://c.example.evil.test" && ours == Page::Nothing,
            "preflight-continues" | "preflights-fail" => self.asks_for.is_some(),
            "star-with-credentials" => nginx == Page::StarWithCredentials && ours == Page::Reads,
            _ => false,
        }
    }
}

fn probes() -> Vec<Probe> {
    let origins = [
        "https://a.example",
        "https://c.example",
        "https://x.c.example",
        "https://c.example.evil.test",
        "https://evil.test",
        "null",
    ];
    let kinds = [
        ("GET", None),
        ("POST", None),
        ("DELETE", None),
        ("OPTIONS", Some(("GET", ""))),
        ("OPTIONS", Some(("PUT", ""))),
        ("OPTIONS", Some(("PUT", "x-custom"))),
        ("OPTIONS", Some(("DELETE", ""))),
    ];
    let all = origins.iter().flat_map(|origin| kinds.iter().map(move |kind| (origin, kind)));
    all.flat_map(|(origin, (method, asks_for))| {
        ["plain", "cors", "error"].map(|service| Probe { method, origin, asks_for: *asks_for, service })
    })
    .collect()
}

/// Sends the same requests to nginx with the source and to corsgate with the import. Pages get the same answers, except
/// where the report names a difference. `make test` installs nginx.
#[test]
fn the_report_of_an_import_is_true_of_nginx() {
    let upstream = Upstream::start(|request| match request.header("X-Service") {
        Some("error") => Reply::new(500),
        Some("cors") => Reply::new(200)
            .header("Access-Control-Allow-Origin", "*")
            .header("Access-Control-Allow-Methods", "PUT, DELETE"),
        _ => Reply::new(200),
    });
    let mut faults = Vec::new();
    let mut sent = 0;
    for (recipe, codes) in RECIPES {
        let folder = tempfile::tempdir().unwrap();
        let location = format!("location /v1/ {{ {recipe} proxy_pass http://{}; }}", upstream.address());
        let imported =
            import(folder.path(), &format!("server {{ server_name h.example; {location} }}\n"), &["--format", "json"]);
        assert_eq!(imported.code, 4, "{}", imported.stderr);
        for code in codes {
            assert!(imported.stderr.contains(&format!("\"{code}\"")), "no {code}: {}", imported.stderr);
        }
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let _nginx = nginx::start(folder.path(), address, &format!("listen {address}; {location}"));
        let gateway = Gateway::start(&imported.stdout.replace("0.0.0.0:9080", "{listen}"));
        let mut shown: Vec<&str> = Vec::new();
        for probe in probes() {
            sent += 1;
            let (theirs, ours) = (probe.send(address), probe.send(gateway.address()));
            if theirs == ours {
                continue;
            }
            let by: Vec<&str> =
                codes.iter().copied().filter(|code| probe.is_explained_by(code, theirs, ours)).collect();
            if by.is_empty() {
                let Probe { method, origin, asks_for, service } = probe;
                faults.push(format!(
                    "{recipe}\n  {method} {origin} {asks_for:?} {service}: nginx {theirs:?}, corsgate {ours:?}"
                ));
            }
            shown.extend(by);
        }
        let unseen = codes.iter().filter(|code| !shown.contains(code));
        faults.extend(unseen.map(|code| format!("{recipe}\n  no request shows `{code}`")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(sent >= 300, "only {sent} requests");
}

/// Checks that docs/migrate.md shows the current import and report of each source. To rewrite the page:
/// `BLESS=1 cargo test --test it -- import`.
#[test]
fn the_page_about_migration_shows_what_import_prints() {
    let page = root().join("docs/migrate.md");
    let text = fs::read_to_string(&page).unwrap();
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let folder = tempfile::tempdir().unwrap();
    let (mut written, mut last, mut samples) = (String::new(), None, 0);
    let mut parts = text.split("```");
    written += parts.next().unwrap();
    while let (Some(block), after) = (parts.next(), parts.next().unwrap_or_default()) {
        let (language, body) = block.split_once('\n').unwrap();
        let body = match language.split_once(' ') {
            Some(("yaml" | "nginx" | "json", name)) if name != "imported" => {
                fs::write(folder.path().join(name), body).unwrap();
                last = Some(run_in(folder.path(), &["import", name]));
                samples += 1;
                body.to_owned()
            }
            Some(("text", "report")) => last.as_ref().expect("a source before its report").stderr.clone(),
            Some(("yaml", "imported")) => last.as_ref().expect("a source before its import").stdout.clone(),
            _ => body.to_owned(),
        };
        written.extend(["```", language, "\n", &body, "```", after]);
    }
    assert!(samples >= 7, "only {samples} samples were found");
    match bless {
        true => fs::write(&page, &written).unwrap(),
        false => assert_eq!(written, text, "docs/migrate.md"),
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

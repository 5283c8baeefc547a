//! The report of an import of nginx, compared with the answers of nginx.

use super::import;
use super::probe::{Page, Probe, probes, service};
use crate::support::gateway::{Gateway, free_port};
use crate::support::nginx;

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

/// Returns whether a finding with this code explains the difference of the two answers.
fn is_explained_by(probe: &Probe, code: &str, nginx: Page, ours: Page) -> bool {
    let has_own = probe.service == "cors";
    let origin = probe.origin.as_deref().unwrap_or_default();
    match code {
        "errors-without-headers" => probe.service == "error",
        "two-headers" => has_own && nginx == Page::Nothing,
        "service-headers-remain" => has_own && ours == Page::Nothing,
        "methods-without-headers" => !["GET", "OPTIONS"].contains(&&*probe.method),
        "null-reflected" => origin == "null" && ours == Page::Nothing,
        "expression-not-anchored" => origin == "https://c.example.evil.test" && ours == Page::Nothing,
        "preflight-continues" | "preflights-fail" => probe.asks_for.is_some(),
        "star-with-credentials" => nginx == Page::StarWithCredentials && ours == Page::Reads,
        _ => false,
    }
}

/// Sends the same requests to nginx with the source and to corsgate with the import. Pages get the same answers, except
/// where the report names a difference. `make test` installs nginx.
#[test]
fn the_report_of_an_import_is_true_of_nginx() {
    let upstream = service();
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
        for probe in probes("h.example", "/v1/x") {
            sent += 1;
            let (theirs, ours) = (probe.send(address).page, probe.send(gateway.address()).page);
            if theirs == ours {
                continue;
            }
            let by: Vec<&str> =
                codes.iter().copied().filter(|code| is_explained_by(&probe, code, theirs, ours)).collect();
            if by.is_empty() {
                let Probe { method, origin, asks_for, service, .. } = probe;
                faults.push(format!(
                    "{recipe}\n  {method} {origin:?} {asks_for:?} {service}: nginx {theirs:?}, corsgate {ours:?}"
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

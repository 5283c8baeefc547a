//! `corsgate probe --audit`: ten good and bad targets, and the findings of the audit for each target.
//!
//! `compare/scanners.py` runs the public scanners CORScanner, overreacher and corsair-scan on the same targets.
//! docs/probe.md has their findings beside the findings that this test checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::gateway::{Output, run};
use crate::support::upstream::{Received, Reply, Upstream};

/// The host of the targets, and the origin that the targets trust.
const HOST: &str = "api.target.example";
const TRUSTED: &str = "https://app.target.example";

/// A target: its answer to an Origin, and the expected findings, as `code severity`. Any other finding fails the test.
struct Target {
    name: &'static str,
    rule: fn(&str) -> Cors,
    found: &'static [&'static str],
}

/// The CORS headers for an origin.
struct Cors {
    allow_origin: Option<String>,
    credentials: Option<&'static str>,
    vary: bool,
}

/// Allows the origin with credentials if it is trusted, and always has `Vary`.
fn allowed_if(origin: &str, is_trusted: bool) -> Cors {
    let allow_origin = is_trusted.then(|| origin.to_owned());
    Cors { credentials: allow_origin.is_some().then_some("true"), allow_origin, vary: true }
}

const TARGETS: [Target; 10] = [
    Target { name: "exact", rule: |origin| allowed_if(origin, origin == TRUSTED), found: &[] },
    Target {
        name: "any",
        rule: |_| Cors { allow_origin: Some("*".into()), credentials: None, vary: false },
        found: &["any_origin info"],
    },
    Target {
        name: "reflect",
        rule: |origin| allowed_if(origin, !origin.is_empty()),
        found: &["reflected_origin high", "null_origin high"],
    },
    Target {
        name: "null",
        rule: |origin| allowed_if(origin, origin == TRUSTED || origin == "null"),
        found: &["null_origin high"],
    },
    Target {
        name: "prefix",
        rule: |origin| {
            allowed_if(origin, origin.starts_with(TRUSTED) || origin.starts_with("http://api.target.example"))
        },
        found: &["prefix_match high", "special_character high", "any_port low"],
    },
    Target {
        name: "suffix",
        rule: |origin| allowed_if(origin, origin.ends_with("target.example")),
        found: &["suffix_match high", "any_subdomain medium", "unescaped_dot high", "http_origin medium"],
    },
    Target {
        // `^https?://(app|api).target.example$`
        name: "dot",
        rule: |origin| {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            let end = host.strip_prefix("app").or(host.strip_prefix("api")).unwrap_or_default();
            let mut characters = end.chars();
            characters.next();
            allowed_if(origin, characters.as_str() == "target.example")
        },
        found: &["unescaped_dot high", "http_origin medium"],
    },
    Target {
        name: "third-party",
        rule: |origin| {
            allowed_if(origin, origin == TRUSTED || ["https://codepen.io", "http://localhost:3000"].contains(&origin))
        },
        found: &["shared_host high", "localhost_origin medium"],
    },
    Target {
        name: "wildcard-credentials",
        rule: |_| Cors { allow_origin: Some("*".into()), credentials: Some("true"), vary: false },
        found: &["wildcard_with_credentials low"],
    },
    Target {
        name: "sloppy",
        rule: |origin| Cors {
            allow_origin: (origin == TRUSTED).then(|| origin.to_owned()),
            credentials: Some("True"),
            vary: false,
        },
        found: &["missing_vary medium", "headers_on_refusal low", "malformed_allow_credentials low"],
    },
];

/// The response of a target. The path names it.
fn answer(request: &Received) -> Reply {
    let name = request.target.trim_start_matches('/');
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else { return Reply::new(404) };
    let cors = (target.rule)(request.header("Origin").unwrap_or_default());
    let mut reply = Reply::new(200);
    if let Some(origin) = &cors.allow_origin {
        reply = reply.header("Access-Control-Allow-Origin", origin);
    }
    if let Some(credentials) = cors.credentials {
        reply = reply.header("Access-Control-Allow-Credentials", credentials);
    }
    if cors.vary {
        reply = reply.header("Vary", "Origin");
    }
    let is_preflight = request.method == "OPTIONS" && request.header("Access-Control-Request-Method").is_some();
    if is_preflight && cors.allow_origin.is_some() {
        let any = cors.allow_origin.as_deref() == Some("*");
        reply = reply
            .header("Access-Control-Allow-Methods", if any { "*" } else { "PUT" })
            .header("Access-Control-Allow-Headers", "authorization, content-type");
    }
    reply
}

fn audit(server: &Upstream, name: &str, arguments: &[&str]) -> Output {
    let port = server.address().port();
    let (resolve, url) = (format!("{HOST}:{port}:127.0.0.1"), format!("http://{HOST}:{port}/{name}"));
    run(&[&["probe", "--audit", "--origin", TRUSTED, "--resolve", &resolve], arguments, &[url.as_str()]].concat())
}

fn parsed(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{}{}", output.stdout, output.stderr))
}

/// Checks that the findings are complete and correct, and that the audit sends at most 40 requests, which cannot change
/// anything.
#[test]
fn the_audit_finds_what_is_wrong_with_each_target() {
    for target in &TARGETS {
        let server = Upstream::start(answer);
        let output = audit(&server, target.name, &["--format", "json"]);
        let report = parsed(&output);
        let findings = report["findings"].as_array().unwrap();
        let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let found: BTreeSet<String> =
            findings.iter().map(|finding| format!("{} {}", word(finding, "code"), word(finding, "severity"))).collect();
        let expected: BTreeSet<String> = target.found.iter().map(|&finding| finding.to_owned()).collect();
        assert_eq!(found, expected, "{}\n{report:#}", target.name);
        let fails = target.found.iter().any(|finding| !finding.ends_with(" info"));
        assert_eq!(output.code, i32::from(fails), "{}", target.name);
        let received = server.received();
        assert_eq!(report["requests"], received.len(), "{}", target.name);
        assert!(received.len() <= 40, "{}: {} requests", target.name, received.len());
        for request in &received {
            assert!(["GET", "OPTIONS"].contains(&request.method.as_str()), "{}", request.method);
            assert_eq!(request.header("Cookie"), None);
            assert!(request.body.is_empty());
        }
        // The evidence of a finding is a request that was sent, and the response to it.
        for finding in findings {
            assert!(finding["remedy"].as_str().is_some_and(|remedy| remedy.ends_with('.')), "{finding:#}");
            assert_eq!(finding["request"].as_str().unwrap().split_once(' ').unwrap().1, format!("/{}", target.name));
        }
        let text = audit(&server, target.name, &[]);
        for finding in target.found {
            let (code, severity) = finding.split_once(' ').unwrap();
            assert!(text.stdout.contains(&format!("  {severity:<8} {code}\n")), "{}", text.stdout);
        }
    }
}

/// Each other fault is found, without further findings. The first column has the fields for GET, the second column has
/// the fields for preflights.
#[test]
fn the_audit_finds_each_other_fault() {
    const OWN: &str = "Access-Control-Allow-Origin: https://app.target.example";
    const ANY: &str = "Access-Control-Allow-Origin: *";
    #[rustfmt::skip]
    let rows: [(&str, u16, String, &str); 12] = [
        (OWN, 204, OWN.to_owned(),                                                                                  ""),
        (OWN, 204, format!("{OWN}; Access-Control-Allow-Methods: PUT, patch"),                                      "method_case low"),
        (OWN, 204, format!("{OWN}; Access-Control-Allow-Credentials: true; Access-Control-Allow-Methods: *"),       "literal_wildcard low"),
        (OWN, 204, format!("{OWN}; Access-Control-Max-Age: 1h"),                                                    "malformed_max_age low"),
        (OWN, 204, format!("{OWN}; Access-Control-Max-Age: 86400"),                                                 ""),
        (OWN, 204, format!("{OWN}; Access-Control-Max-Age: 604800"),                                                "long_max_age info"),
        (OWN, 204, format!("{OWN}; Access-Control-Allow-Headers: x a"),                                             "malformed_list low"),
        (OWN, 405, OWN.to_owned(),                                                                                  "preflight_refused low"),
        (OWN, 204, String::new(),                                                                                   "preflight_refused low"),
        ("",  204, OWN.to_owned(),                                                                                  "trusted_refused low"),
        ("Access-Control-Allow-Origin: https://app.target.example/", 204, OWN.to_owned(),                           "malformed_allow_origin low, trusted_refused low"),
        (ANY, 204, format!("{ANY}; Access-Control-Allow-Headers: X-Corsgate-Probe; Access-Control-Allow-Methods: *"), "any_origin info, options_swallowed info, reflected_headers info"),
    ];
    for (get, status, options, expected) in rows {
        let row = format!("{get} {status} {options}");
        let is_swallowed = expected.contains("options_swallowed");
        let server = Upstream::start(move |request| {
            let is_allowed = get == ANY || request.header("Origin") == Some(TRUSTED);
            let is_preflight = request.header("Access-Control-Request-Method").is_some() || is_swallowed;
            let (status, fields) = match request.method.as_str() {
                "GET" => (200, get),
                _ if is_preflight => (status, options.as_str()),
                _ => (200, ""),
            };
            let fields = fields.split("; ").filter_map(|field| field.split_once(": ")).filter(|_| is_allowed);
            fields.fold(Reply::new(status).header("Vary", "Origin"), |reply, (name, value)| reply.header(name, value))
        });
        let report = parsed(&audit(&server, "x", &["--format", "json"]));
        let findings = report["findings"].as_array().unwrap().iter();
        let mut found: Vec<String> = findings
            .map(|finding| format!("{} {}", finding["code"].as_str().unwrap(), finding["severity"].as_str().unwrap()))
            .collect();
        found.sort();
        assert_eq!(found.join(", "), expected, "{row}\n{report:#}");
    }
}

#[test]
fn the_severity_that_fails_can_be_chosen() {
    let server = Upstream::start(answer);
    for (name, fail_on, code) in [
        ("exact", "info", 0),
        ("any", "info", 1),
        ("any", "low", 0),
        ("wildcard-credentials", "low", 1),
        ("wildcard-credentials", "medium", 0),
        ("sloppy", "medium", 1),
        ("sloppy", "high", 0),
        ("reflect", "high", 1),
        ("reflect", "never", 0),
    ] {
        assert_eq!(audit(&server, name, &["--fail-on", fail_on]).code, code, "{name} {fail_on}");
    }
}

/// Without a server, there is no result. If a server drops some requests, there is a result.
#[test]
fn an_audit_without_responses_is_trouble() {
    let silent = Upstream::start(|_| Reply::abort());
    let output = audit(&silent, "x", &["--format", "json"]);
    assert_eq!((output.code, &parsed(&output)["verdict"]), (2, &Value::from("trouble")), "{}", output.stdout);
    assert_eq!(silent.hits(), 1, "one failure of the first request is enough");
    let picky = Upstream::start(|request| match request.header("Origin") {
        Some("null") => Reply::abort(),
        _ => answer(request),
    });
    let output = audit(&picky, "exact", &["--format", "json"]);
    assert_eq!((output.code, &parsed(&output)["verdict"]), (0, &Value::from("clean")), "{}", output.stdout);
}

/// docs/probe.md has a table of the targets with the findings of each scanner. This test has checked the column of
/// `probe`.
#[test]
fn the_table_of_scanners_has_the_findings_of_the_audit() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/probe.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for target in &TARGETS {
        let row = rows.iter().find(|row| row[0] == format!("`{}`", target.name));
        let row = row.unwrap_or_else(|| panic!("no row for {}", target.name));
        let expected: Vec<&str> = target.found.iter().map(|found| found.split(' ').next().unwrap()).collect();
        let expected = if expected.is_empty() { "nothing".to_owned() } else { expected.join(", ") };
        assert_eq!(row.last(), Some(&expected.as_str()), "{}", target.name);
    }
}

/// Serves the targets for `compare/scanners.py` until the end of stdin. It is also an HTTP proxy, because scanners do
/// not resolve names.
#[test]
#[ignore = "a server for compare/scanners.py"]
fn serve_the_targets() {
    let server = Upstream::start(|request| {
        // A proxy gets absolute targets.
        let mut request = request.clone();
        if let Some((_, rest)) = request.target.clone().split_once("://") {
            request.target = rest.find('/').map_or("/".into(), |slash| rest[slash..].to_owned());
        }
        answer(&request)
    });
    println!("serving {} {}", server.address(), TARGETS.map(|target| target.name).join(" "));
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

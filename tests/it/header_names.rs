//! The problems that `check` reports for header names in `allow_headers` and `expose_headers`. A name belongs to
//! requests, to responses, or to both (Fetch, and the IANA registry of field names).

use corsgate::cors::{OriginSets, Policy, Settings};
use corsgate::problem::{At, Problems};

const SENT: &str = "header-never-sent";
const READ: &str = "header-never-read";
const OTHER: &str = "header-other-direction";
const USELESS: &str = "exposed-without-use";
const ANYWAY: &str = "exposed-anyway";

/// A name, and the code that it gets in `allow_headers` and in `expose_headers`.
const TABLE: &[(&str, Option<&str>, Option<&str>)] = &[
    // Names of both directions, and names of applications.
    ("Content-Disposition", None, None),
    ("Content-Range", None, None),
    ("Content-Encoding", None, None),
    ("Digest", None, None),
    ("Link", None, None),
    ("X-Request-Id", None, None),
    ("X-CSRF-Token", None, None),
    ("X-Total-Count", None, None),
    ("Idempotency-Key", None, None),
    ("traceparent", None, None),
    // Pages cannot set them, and can read them only if they are exposed.
    ("Date", Some(SENT), None),
    ("Via", Some(SENT), None),
    ("Trailer", Some(SENT), None),
    // Request headers that a page can set.
    ("Accept", None, Some(OTHER)),
    ("Accept-Language", None, Some(OTHER)),
    ("Authorization", None, Some(OTHER)),
    ("If-None-Match", None, Some(OTHER)),
    ("If-Modified-Since", None, Some(OTHER)),
    ("Prefer", None, Some(OTHER)),
    ("Range", None, Some(OTHER)),
    ("User-Agent", None, Some(OTHER)),
    ("X-Requested-With", None, Some(OTHER)),
    ("X-Forwarded-For", None, Some(OTHER)),
    ("Last-Event-ID", None, Some(OTHER)),
    // Request headers that a page cannot set.
    ("Cookie", Some(SENT), Some(OTHER)),
    ("Host", Some(SENT), Some(OTHER)),
    ("Origin", Some(SENT), Some(OTHER)),
    ("Referer", Some(SENT), Some(OTHER)),
    ("Sec-Fetch-Site", Some(SENT), Some(OTHER)),
    ("Access-Control-Request-Method", Some(SENT), Some(OTHER)),
    // Response headers.
    ("ETag", Some(OTHER), None),
    ("Location", Some(OTHER), None),
    ("Retry-After", Some(OTHER), None),
    ("WWW-Authenticate", Some(OTHER), None),
    ("Server-Timing", Some(OTHER), None),
    ("Allow", Some(OTHER), None),
    ("Age", Some(OTHER), None),
    ("Accept-Ranges", Some(OTHER), None),
    ("Strict-Transport-Security", Some(OTHER), None),
    // Response headers that pages can read anyway.
    ("Cache-Control", None, Some(ANYWAY)),
    ("Content-Language", None, Some(ANYWAY)),
    ("Content-Length", Some(SENT), Some(ANYWAY)),
    ("Content-Type", None, Some(ANYWAY)),
    ("Expires", Some(OTHER), Some(ANYWAY)),
    ("Last-Modified", Some(OTHER), Some(ANYWAY)),
    ("Pragma", None, Some(ANYWAY)),
    // Response headers for the browser.
    ("Access-Control-Allow-Origin", Some(OTHER), Some(USELESS)),
    ("access-control-allow-methods", Some(OTHER), Some(USELESS)),
    ("Access-Control-Expose-Headers", Some(OTHER), Some(USELESS)),
    ("Access-Control-Max-Age", Some(OTHER), Some(USELESS)),
    ("Timing-Allow-Origin", Some(OTHER), Some(USELESS)),
    // Response headers that no page can read.
    ("Set-Cookie", Some(SENT), Some(READ)),
    ("Set-Cookie2", Some(OTHER), Some(READ)),
];

#[test]
fn each_name_is_right_or_wrong_in_each_list() {
    let mut failures = Vec::new();
    for (name, in_allow, in_expose) in TABLE {
        for (key, expected) in [("allow_headers", in_allow), ("expose_headers", in_expose)] {
            let problems = compile(key, name);
            let codes: Vec<&str> = problems.iter().map(|problem| problem.kind.code()).collect();
            if codes != expected.iter().copied().collect::<Vec<_>>() {
                failures.push(format!("{key}: {name}: {codes:?} instead of {expected:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A message must not suggest a list in which `check` would refuse the name again.
#[test]
fn the_list_that_a_message_names_accepts_the_name() {
    let mut moved = 0;
    for (name, ..) in TABLE {
        for (key, other) in [("allow_headers", "expose_headers"), ("expose_headers", "allow_headers")] {
            for problem in &compile(key, name) {
                if problem.kind.remedy().contains(other) {
                    moved += 1;
                    assert!(compile(other, name).is_empty(), "{name} from {key} to {other}");
                }
            }
        }
    }
    assert!(moved > 10, "only {moved} names are to be moved");
}

fn compile(key: &str, name: &str) -> Problems {
    let mut settings = serde_json::json!({
        "allow_origins": "https://app.example",
        "allow_methods": [],
        "allow_headers": [],
        "max_age": 600,
    });
    settings[key] = name.into();
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let mut problems = Problems::default();
    Policy::compile(&settings, &OriginSets::default(), &At::root(), &mut problems);
    problems
}

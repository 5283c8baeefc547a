//! The case tables in `tests/cases`: requests, each with its response. A CORS header that a row does not list must be
//! absent.
//!
//! One runner runs the same rows against the engine without a process, and against the running proxy with a recording
//! upstream, over every combination of client and upstream protocol. A header that the proxy adds or loses, or that one
//! protocol handles differently, shows as a difference.
//!
//! A row is the same over `http` and `https`, except for an Origin that equals the origin of the request, or would with
//! the other scheme: such a row has `{scheme}` and `{other_scheme}`.

mod proxy;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use corsgate::decide::{Action, ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::explain::fetch::Credentials;
use corsgate::explain::{Exchange, Head, Question};
use corsgate::snapshot::{CompileEnv, Loaded, Snapshot, load};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use serde::Deserialize;

use crate::support::fields::{self, Fields};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(skip)]
    file: String,
    config: String,
    pub cases: Vec<Row>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    request: String,
    headers: Vec<String>,
    #[serde(default)]
    upstream: Vec<String>,
    #[serde(default = "ok")]
    upstream_status: u16,
    expect: Expected,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Expected {
    forwarded: bool,
    status: u16,
    reason: Option<String>,
    headers: Vec<String>,
}

/// The outcome of a subject.
#[derive(Default)]
struct Outcome {
    /// The error, if there is no response.
    broken: Option<String>,
    forwarded: bool,
    status: u16,
    /// None if the subject does not show it.
    reason: Option<Option<String>>,
    headers: Vec<(String, String)>,
}

#[test]
fn the_engine_gives_every_row_its_response() {
    for scheme in [Scheme::Http, Scheme::Https] {
        check(scheme, |table| {
            let snapshot = table.snapshot();
            move |row: &Row| judge(&snapshot, row, scheme)
        });
    }
}

/// CORS fields without the prefix `Access-Control-`, and fields that the rows list.
const OTHERS: [&str; 5] = ["vary", "timing-allow-origin", "cross-origin-resource-policy", "cache-control", "allow"];

/// The listener without TLS.
const PLAIN: &str = "{ address: \"{listen}\" }";
/// The part of the configuration that the tables leave out.
fn env(listener: &str, upstream: &str, more: &str) -> String {
    format!("listeners: [{listener}]\nupstreams: {{ origin: {{ nodes: [{{ address: \"{upstream}\" }}]{more} }} }}\n")
}

/// All tables, in the order of their names.
pub fn tables() -> Vec<Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        let table: Table = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Table { file: file.file_name().unwrap().to_string_lossy().into_owned(), ..table }
    };
    files.iter().map(read).collect()
}

impl Table {
    /// The table's configuration, as a whole file.
    pub fn text(&self) -> String {
        let listener = PLAIN.replace("{listen}", "127.0.0.1:9080");
        env(&listener, "127.0.0.1:8000", "") + &self.config
    }

    /// The table's configuration, compiled.
    pub fn snapshot(&self) -> Snapshot {
        let Loaded { snapshot, problems } = load(&self.text(), CompileEnv::NONE);
        snapshot.unwrap_or_else(|| panic!("{} is refused:\n{problems}", self.file))
    }

    /// The table's configuration with this listener and an upstream at this address, which has the settings `more`.
    fn config(&self, listener: &str, upstream: SocketAddr, more: &str) -> String {
        env(listener, &upstream.to_string(), more) + &self.config
    }
}

impl Row {
    /// Method, path without query, and header fields, over plain HTTP.
    pub fn request(&self) -> (Method, String, HeaderMap) {
        self.request_over(Scheme::Http)
    }

    fn request_over(&self, scheme: Scheme) -> (Method, String, HeaderMap) {
        let (method, target) = self.method_and_target();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        (Method::from_bytes(method.as_bytes()).unwrap(), path, header_map(&self.fields(scheme)))
    }

    /// The exchange with the engine, on plain values.
    pub fn exchange<'s>(&self, snapshot: &'s Snapshot, scheme: Scheme) -> Exchange<'s> {
        let (method, path, headers) = self.request_over(scheme);
        let host = headers.get("host").map(|host| host.to_str().unwrap());
        let request = Request {
            method: &method,
            path: path.as_bytes(),
            target_length: path.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(scheme, host.unwrap_or_default()),
            authority: host,
            headers: &headers,
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        };
        Exchange::of(snapshot, &request, self.method_and_target().1, || {
            let mut head = Head::new(StatusCode::from_u16(self.upstream_status).unwrap());
            for (name, value) in self.upstream_fields() {
                head.append(&name, HeaderValue::from_str(&value).unwrap());
            }
            head
        })
    }

    /// The `fetch()` that sends this request as its preflight or as itself. None if no page can send it.
    pub fn question(&self) -> Option<Question> {
        let (own_method, target) = self.method_and_target();
        let fields = self.fields(Scheme::Http);
        let ([host], [origin]) = (&fields::all(&fields, "Host")[..], &fields::all(&fields, "Origin")[..]) else {
            return None;
        };
        let mut question = Question::new(origin, &format!("http://{host}{target}")).ok()?;
        let asked = fields::all(&fields, "Access-Control-Request-Method");
        if let ("OPTIONS", [method]) = (own_method, &asked[..]) {
            question = question.method(method).ok()?;
            for names in fields::all(&fields, "Access-Control-Request-Headers") {
                for name in names.split(',') {
                    question = question.header(name).ok()?;
                }
            }
        } else {
            question = question.method(own_method).ok()?;
            for (name, value) in fields.iter().filter(|(name, _)| !["Host", "Origin"].contains(&name.as_str())) {
                question = match name.as_str() {
                    "Cookie" => question.credentials(Credentials::Include).ok()?,
                    _ => question.header(&format!("{name}: {value}")).ok()?,
                };
            }
        }
        for line in &self.upstream {
            let (name, value) = field(line);
            question = question.upstream_header(&format!("{name}: {value}")).ok()?;
        }
        question.upstream_status(self.upstream_status).ok()
    }

    fn method_and_target(&self) -> (&str, &str) {
        self.request.split_once(' ').expect("`METHOD target`")
    }

    fn fields(&self, scheme: Scheme) -> Fields {
        self.headers.iter().map(|line| field(&in_scheme(line, scheme))).collect()
    }

    fn upstream_fields(&self) -> Fields {
        self.upstream.iter().map(|line| field(line)).collect()
    }
}

/// Runs every row of every table, and fails with all differences.
fn check<S: FnMut(&Row) -> Outcome>(scheme: Scheme, start: impl Fn(&Table) -> S) {
    let (mut rows, mut failures) = (0, String::new());
    for table in tables() {
        let mut subject = start(&table);
        for row in &table.cases {
            rows += 1;
            let outcome = subject(row);
            if let Some(difference) = difference(&row.expect, &outcome) {
                let _ = writeln!(failures, "{}: {} ({scheme:?})\n{difference}", table.file, row.name);
            }
        }
    }
    assert!(rows > 400, "only {rows} rows were found");
    assert!(failures.is_empty(), "\n{failures}");
}

fn difference(expected: &Expected, outcome: &Outcome) -> Option<String> {
    if let Some(error) = &outcome.broken {
        return Some(format!("  no response: {error}\n"));
    }
    let mut lines = String::new();
    if expected.forwarded != outcome.forwarded {
        let _ = writeln!(lines, "  forwarded: expected {}, got {}", expected.forwarded, outcome.forwarded);
    }
    if expected.status != outcome.status {
        let _ = writeln!(lines, "  status: expected {}, got {}", expected.status, outcome.status);
    }
    if let Some(reason) = &outcome.reason
        && expected.reason.is_some()
        && *reason != expected.reason
    {
        let _ = writeln!(lines, "  reason: expected {:?}, got {reason:?}", expected.reason);
    }
    let wanted = comparable(expected.headers.iter().map(|line| field(line)));
    let got = comparable(outcome.headers.iter().cloned());
    for line in minus(&wanted, &got) {
        let _ = writeln!(lines, "  missing: {line}");
    }
    for line in minus(&got, &wanted) {
        let _ = writeln!(lines, "  unexpected: {line}");
    }
    (!lines.is_empty()).then_some(lines)
}

/// The CORS fields in a form that can be compared: names in lower case, `Vary` as a sorted list.
fn comparable(fields: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let fields: Vec<(String, String)> = fields.collect();
    // The texts of the gateway's errors always have `no-store`, so the rows do not list it.
    let is_text = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let mut lines: Vec<String> = fields
        .into_iter()
        .filter(|(name, _)| !(is_text && name.eq_ignore_ascii_case("cache-control")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| name.starts_with("access-control-") || OTHERS.contains(&name.as_str()))
        .map(|(name, value)| match name.as_str() {
            "vary" => {
                // This is a list and not a set, so that a repeated name is detected.
                let mut names: Vec<String> = value.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
                names.sort();
                format!("{name}: {}", names.join(", "))
            }
            _ => format!("{name}: {value}"),
        })
        .collect();
    lines.sort();
    lines
}

/// The entries of `a` that are not in `b`; both are multisets.
fn minus(a: &[String], b: &[String]) -> Vec<String> {
    let mut rest = b.to_vec();
    let mut missing = Vec::new();
    for line in a {
        match rest.iter().position(|other| other == line) {
            Some(found) => drop(rest.swap_remove(found)),
            None => missing.push(line.clone()),
        }
    }
    missing
}

/// Fields for a client that uses this scheme.
fn in_scheme(line: &str, scheme: Scheme) -> String {
    let (own, other) = match scheme {
        Scheme::Http => ("http", "https"),
        Scheme::Https => ("https", "http"),
    };
    line.replace("{scheme}", own).replace("{other_scheme}", other)
}

/// `Name: value` with `{300*a}` expanded.
fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').expect("`Name: value`");
    let mut out = String::new();
    let mut rest = value.trim();
    while let Some((before, after)) = rest.split_once('{') {
        let (repeat, after) = after.split_once('}').expect("`{times*text}`");
        let (times, text) = repeat.split_once('*').expect("`{times*text}`");
        out += before;
        out += &text.repeat(times.parse().expect("a number of times"));
        rest = after;
    }
    (name.to_owned(), out + rest)
}

/// The engine as a subject: the steps of the proxy on plain values.
fn judge(snapshot: &Snapshot, row: &Row, scheme: Scheme) -> Outcome {
    let exchange = row.exchange(snapshot, scheme);
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    Outcome {
        broken: None,
        forwarded: matches!(exchange.verdict.action, Action::Forward(_)),
        status: exchange.response.status.as_u16(),
        reason: Some(exchange.verdict.outcome.reason().map(|reason| reason.to_string())),
        headers: exchange.response.fields().map(|(name, value)| (name, text(value))).collect(),
    }
}

fn header_map(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

#[test]
fn every_reason_code_has_a_row() {
    let mut seen = BTreeSet::new();
    for table in tables() {
        seen.extend(table.cases.into_iter().filter_map(|row| row.expect.reason));
    }
    let all = [
        "allowed_any",
        "allowed_exact",
        "allowed_pattern",
        "allowed_regex",
        "cross_site",
        "header_list_too_long",
        "header_not_allowed",
        "method_not_allowed",
        "no_origin",
        "no_policy",
        "origin_invalid",
        "origin_not_allowed",
        "origin_null",
        "same_origin",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

fn ok() -> u16 {
    200
}

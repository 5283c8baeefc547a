//! The case tables in `tests/cases`: what each request gets, row by row, in a closed world. A CORS header that a row
//! does not name is a failure.
//!
//! The same rows run twice, by one runner: against the engine, without a process, and against the running proxy with
//! a recording upstream. So whatever the adapter adds, loses or forgets shows as a difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use corsgate::cors::Scheme;
use corsgate::snapshot::{Action, Connection, Framing, Refusal, Request, Snapshot, Surroundings};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use serde::Deserialize;

use crate::client;
use crate::gateway::Gateway;
use crate::upstream::{Reply, Upstream};

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

/// What a subject did.
struct Outcome {
    forwarded: bool,
    status: u16,
    /// None where the subject does not show it.
    reason: Option<Option<String>>,
    headers: Vec<(String, String)>,
}

#[test]
fn the_engine_gives_every_row_what_it_expects() {
    check(|table| {
        let snapshot = table.snapshot();
        move |row: &Row| judge(&snapshot, row)
    });
}

#[test]
fn the_proxy_gives_every_row_what_it_expects() {
    check(|table| {
        let current: Arc<Mutex<Option<Row>>> = Arc::default();
        let shown = current.clone();
        let upstream = Upstream::start(move |_| {
            let row = shown.lock().unwrap().clone().expect("a row is running");
            let reply = Reply::new(row.upstream_status).body("from the upstream");
            row.upstream.iter().map(|line| field(line)).fold(reply, |reply, (name, value)| reply.header(&name, &value))
        });
        let origin = upstream.address().to_string();
        let gateway = Gateway::start(&format!("{}{}", surroundings("{listen}", &origin), table.config));
        move |row: &Row| {
            *current.lock().unwrap() = Some(row.clone());
            upstream.clear();
            let (method, target) = row.request.split_once(' ').expect("`METHOD target`");
            let fields: Vec<(String, String)> = row.headers.iter().map(|line| field(line)).collect();
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let response = client::fetch(gateway.address(), method, target, &fields);
            Outcome { forwarded: upstream.hits() > 0, status: response.status, reason: None, headers: response.headers }
        }
    });
}

/// What the tables leave out of their configurations.
fn surroundings(listen: &str, upstream: &str) -> String {
    format!(
        "listeners: [{{ address: \"{listen}\" }}]\nupstreams: {{ origin: {{ nodes: [{{ address: \"{upstream}\" }}] }} }}\n"
    )
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
    /// The table's configuration, compiled.
    pub fn snapshot(&self) -> Snapshot {
        let config = format!("{}{}", surroundings("127.0.0.1:9080", "127.0.0.1:8000"), self.config);
        let (snapshot, problems) = Snapshot::read(&config, Surroundings::NONE);
        snapshot.unwrap_or_else(|| panic!("{} is refused:\n{problems}", self.file))
    }
}

impl Row {
    /// Method, path without query, and header fields.
    pub fn request(&self) -> (Method, String, HeaderMap) {
        let (method, target) = self.request.split_once(' ').expect("`METHOD target`");
        let path = target.split('?').next().unwrap_or_default().to_owned();
        (Method::from_bytes(method.as_bytes()).unwrap(), path, header_map(&self.headers))
    }
}

/// Runs every row of every table, and shows all that differ.
fn check<S: FnMut(&Row) -> Outcome>(start: impl Fn(&Table) -> S) {
    let (mut rows, mut failures) = (0, String::new());
    for table in tables() {
        let mut subject = start(&table);
        for row in &table.cases {
            rows += 1;
            let outcome = subject(row);
            if let Some(difference) = difference(&row.expect, &outcome) {
                let _ = writeln!(failures, "{}: {}\n{difference}", table.file, row.name);
            }
        }
    }
    assert!(rows > 400, "only {rows} rows were found");
    assert!(failures.is_empty(), "\n{failures}");
}

fn difference(expected: &Expected, outcome: &Outcome) -> Option<String> {
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

/// The CORS-related fields, in a form that can be compared: names in lower case, `Vary` as a sorted list.
fn comparable(fields: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut lines: Vec<String> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| {
            name.starts_with("access-control-") || ["vary", "timing-allow-origin", "allow"].contains(&name.as_str())
        })
        .map(|(name, value)| match name.as_str() {
            "vary" => {
                // A list, not a set: a name that stands twice must not go unnoticed.
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

/// What of `a` is not in `b`, both seen as multisets.
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

/// `Name: value` with `{300*a}` written out.
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

/// The engine as a subject: what the proxy does, on plain values.
fn judge(snapshot: &Snapshot, row: &Row) -> Outcome {
    let (method, path, headers) = row.request();
    let request = Request {
        method: &method,
        path: path.as_bytes(),
        target_length: path.len(),
        version: Version::HTTP_11,
        scheme: Scheme::Http,
        authority: headers.get("host").map(|host| host.to_str().unwrap()),
        headers: &headers,
        framing: Framing::Clear,
        connection: Connection::default(),
    };
    let verdict = snapshot.judge(&request);
    let (forwarded, status, mut response) = match verdict.action {
        Action::Forward(_) => (true, row.upstream_status, header_map(&row.upstream)),
        Action::Answer(status) => (false, status.as_u16(), HeaderMap::new()),
        Action::Redirect(_) => (false, 308, HeaderMap::new()),
        Action::Refuse(refusal) => {
            let mut response = HeaderMap::new();
            if let Refusal::MethodNotAllowed(allow) = refusal {
                response.insert("allow", allow.clone());
            }
            (false, refusal.status().as_u16(), response)
        }
    };
    verdict.edits.apply(&mut response);
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    Outcome {
        forwarded,
        status,
        reason: Some(verdict.reason.map(|reason| reason.to_string())),
        headers: response.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
    }
}

fn header_map(lines: &[String]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = field(line);
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(&value).unwrap());
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

//! The case tables in `tests/cases`: requests, each with its response. A CORS header that a row does not list must be
//! absent.
//!
//! One runner runs the same rows against the engine without a process, and against the running proxy with a recording
//! upstream, over every combination of client and upstream protocol. A header that the proxy adds or loses, or that one
//! protocol handles differently, shows as a difference.
//!
//! A row is the same over `http` and `https`, except for an Origin that equals the origin of the request, or would with
//! the other scheme: such a row has `{scheme}` and `{other_scheme}`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use corsgate::decide::{Action, ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::explain::fetch::Credentials;
use corsgate::explain::{Configuration, Exchange, Explanation, Head, Question, WireExchange, explain};
use corsgate::snapshot::{CompileEnv, Loaded, Snapshot, load};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::support::certificates::{Authority, Certificate};
use crate::support::client::{self, Fields, Response};
use crate::support::gateway::Gateway;
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

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

#[test]
fn the_proxy_gives_every_row_its_response() {
    check(Scheme::Http, |table| {
        let current = Current::default();
        let upstream = http_1_upstream(&current);
        let gateway = Gateway::start(&table.config(PLAIN, upstream.address(), ""));
        move |row: &Row| {
            current.begin(row);
            upstream.clear();
            let response = row
                .fetch(Scheme::Http, |method, target, fields| client::fetch(gateway.address(), method, target, fields));
            Outcome::of(upstream.hits(), response)
        }
    });
}

#[test]
fn the_proxy_gives_every_row_its_response_over_tls() {
    check(Scheme::Https, |table| {
        let current = Current::default();
        let upstream = http_1_upstream(&current);
        let (authority, certificate) = table.certificate();
        let gateway =
            Gateway::start_with_files(&table.config(TLS, upstream.address(), ""), &certificate.files("table"));
        move |row: &Row| {
            current.begin(row);
            upstream.clear();
            let tls = row.tls(&authority);
            let response = row.fetch(Scheme::Https, |method, target, fields| {
                client::fetch_tls(gateway.address(), &tls, method, target, fields)
            });
            Outcome::of(upstream.hits(), response)
        }
    });
}

#[test]
fn the_proxy_gives_every_row_its_response_over_http_2() {
    // Every row has a form in HTTP/2, so that none is left out.
    assert_eq!(tables().iter().flat_map(|table| &table.cases).filter(|row| row.as_http_2().is_none()).count(), 0);
    check(Scheme::Https, |table| {
        let current = Current::default();
        let upstream = http_1_upstream(&current);
        let (authority, certificate) = table.certificate();
        let gateway =
            Gateway::start_with_files(&table.config(TLS, upstream.address(), ""), &certificate.files("table"));
        move |row: &Row| {
            current.begin(row);
            upstream.clear();
            let tls = row.tls(&authority);
            let request = row.as_http_2().expect("a row for HTTP/2");
            match H2Client::open(gateway.address(), &tls).and_then(|client| client.request(&request)) {
                Ok(response) => Outcome::of(upstream.hits(), response),
                Err(error) => Outcome { broken: Some(error.to_string()), ..Outcome::default() },
            }
        }
    });
}

#[test]
fn the_proxy_gives_every_row_its_response_with_an_http_2_upstream() {
    check(Scheme::Http, |table| {
        let current = Current::default();
        let upstream = H2Upstream::start({
            let current = current.clone();
            move |_| {
                let row = current.row();
                let reply = H2Reply::new(row.upstream_status).body("from the upstream");
                row.upstream_fields().iter().fold(reply, |reply, (name, value)| reply.header(name, value))
            }
        });
        let gateway = Gateway::start(&table.config(PLAIN, upstream.address(), ", http2: true"));
        move |row: &Row| {
            current.begin(row);
            upstream.clear();
            let response = row
                .fetch(Scheme::Http, |method, target, fields| client::fetch(gateway.address(), method, target, fields));
            Outcome::of(upstream.hits(), response)
        }
    });
}

/// `explain` shows exchanges without a process. They must be identical to the responses of the running proxy, byte for
/// byte: the order and spelling of the CORS fields, and `Vary` as written. If a page's `fetch()` can send the row, the
/// test asks `explain`. Other rows (several Origins, hosts that no URL can have, and so on) use only the exchange.
#[test]
fn explain_shows_the_responses_of_the_proxy() {
    let (mut explained, mut exchanged, mut failures) = (0, 0, String::new());
    for table in tables() {
        let current = Current::default();
        let upstream = http_1_upstream(&current);
        let gateway = Gateway::start(&table.config(PLAIN, upstream.address(), ""));
        let (text, snapshot) = (table.text(), table.snapshot());
        let read = |text: &str| load(text, CompileEnv::NONE);
        let configuration = Configuration::new("table.yaml", &text, &snapshot, &read);
        for row in &table.cases {
            current.begin(row);
            upstream.clear();
            let response = row
                .fetch(Scheme::Http, |method, target, fields| client::fetch(gateway.address(), method, target, fields));
            let answered = (response.status, cors_lines(response.headers.into_iter()));
            let shown = row.question().and_then(|question| row.shown(&explain(&question, &configuration)));
            let head = match shown {
                Some(head) => {
                    explained += 1;
                    head
                }
                None => {
                    exchanged += 1;
                    row.exchange(&snapshot, Scheme::Http).response
                }
            };
            let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
            let fields = head.fields().map(|(name, value)| (name, text(value)));
            let expected = (head.status.as_u16(), cors_lines(fields));
            if answered != expected {
                let _ = writeln!(failures, "{}: {}\n  {answered:?}\n  {expected:?}", table.file, row.name);
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    // Detects rows that are skipped by mistake. The numbers were 323 and 146.
    assert!(explained > 300 && exchanged > 100, "{explained} rows were explained, {exchanged} only exchanged");
}

/// CORS fields without the prefix `Access-Control-`, and fields that the rows list.
const OTHERS: [&str; 5] = ["vary", "timing-allow-origin", "cross-origin-resource-policy", "cache-control", "allow"];

/// The CORS fields in their order.
fn cors_lines(fields: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let is_cors = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("access-control-") || OTHERS.contains(&name.as_str())
    };
    fields
        .filter(|(name, _)| is_cors(name))
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect()
}

/// The listeners of the subjects.
const PLAIN: &str = "{ address: \"{listen}\" }";
const TLS: &str = "{ address: \"{listen}\", tls: { certificates: [{ cert: table.crt, key: table.key }] } }";

/// The name in the certificate for clients that send no SNI.
const NAMELESS: &str = "nameless.test";

/// The current row, for the upstream.
#[derive(Clone, Default)]
struct Current(Arc<Mutex<Option<Row>>>);

impl Current {
    fn begin(&self, row: &Row) {
        *self.0.lock().unwrap() = Some(row.clone());
    }

    fn row(&self) -> Row {
        self.0.lock().unwrap().clone().expect("a row is running")
    }
}

/// An upstream that answers as the current row says.
fn http_1_upstream(current: &Current) -> Upstream {
    let current = current.clone();
    Upstream::start(move |_| {
        let row = current.row();
        let reply = Reply::new(row.upstream_status).body("from the upstream");
        row.upstream_fields().iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    })
}

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

    /// A certificate for all hosts of its rows, and its CA.
    fn certificate(&self) -> (Authority, Certificate) {
        let authority = Authority::new("authority");
        let mut hosts: BTreeSet<String> = self.cases.iter().filter_map(Row::host).collect();
        hosts.insert(NAMELESS.to_owned());
        let certificate = authority.issue(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
        (authority, certificate)
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
        let ([host], [origin]) = (&client::all(&fields, "Host")[..], &client::all(&fields, "Origin")[..]) else {
            return None;
        };
        let mut question = Question::new(origin, &format!("http://{host}{target}")).ok()?;
        let asked = client::all(&fields, "Access-Control-Request-Method");
        if let ("OPTIONS", [method]) = (own_method, &asked[..]) {
            question = question.method(method).ok()?;
            for names in client::all(&fields, "Access-Control-Request-Headers") {
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

    /// The response that an explanation shows to exactly this request. None if a browser writes the request
    /// differently, or does not send it.
    fn shown(&self, explanation: &Explanation) -> Option<Head> {
        let sorted = |fields: &[(String, String)]| {
            let fields = fields.iter().filter(|(name, _)| name != "Cookie");
            let mut lines: Vec<String> =
                fields.map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase())).collect();
            lines.sort();
            lines
        };
        let own = sorted(&self.fields(Scheme::Http));
        let same = |shown: &&WireExchange| shown.request == self.request && sorted(&shown.fields) == own;
        explanation.exchanges.iter().find(same).map(|shown| shown.response.clone())
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

    /// The requested host as a name in a certificate. None if no certificate can have the name.
    fn host(&self) -> Option<String> {
        let fields = self.fields(Scheme::Http);
        let host = client::only(&fields, "Host").expect("a Host");
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        ServerName::try_from(name.as_str()).is_ok().then_some(name)
    }

    /// A client with this host as its SNI, if possible.
    fn tls(&self, authority: &Authority) -> TlsClient {
        match self.host() {
            Some(host) => TlsClient::new(authority, &host),
            None => TlsClient::new(authority, NAMELESS).without_sni(),
        }
    }

    /// Calls an HTTP/1.1 client with its method, target and fields.
    fn fetch(&self, scheme: Scheme, fetch: impl FnOnce(&str, &str, &[(&str, &str)]) -> Response) -> Response {
        let (method, target) = self.method_and_target();
        let fields = self.fields(scheme);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        fetch(method, target, &fields)
    }

    /// The request in HTTP/2, where `:authority` replaces Host. None if HTTP/2 cannot express it: no Host or several, a
    /// target that is neither a path nor `*`, and fields about an HTTP/1.1 connection.
    fn as_http_2(&self) -> Option<H2Request> {
        const CONNECTION: [&str; 7] =
            ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings"];
        let (method, target) = self.method_and_target();
        let fields = self.fields(Scheme::Https);
        let of_connection = |name: &str| CONNECTION.iter().any(|known| name.eq_ignore_ascii_case(known));
        let [host] = client::all(&fields, "Host")[..] else { return None };
        let is_target = target == "*" || (target.starts_with('/') && target.parse::<PathAndQuery>().is_ok());
        if !is_target || fields.iter().any(|(name, _)| of_connection(name)) {
            return None;
        }
        let request = H2Request::new(method, host, target);
        let rest = fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Host"));
        Some(rest.fold(request, |request, (name, value)| request.header(name, value)))
    }
}

impl Outcome {
    /// The observations of the client and of the upstream.
    fn of(hits: usize, response: Response) -> Self {
        Self { forwarded: hits > 0, status: response.status, headers: response.headers, ..Self::default() }
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

//! The rows of the tables against the running proxy, with a recording upstream.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use corsgate::domain::Scheme;
use corsgate::explain::{Configuration, Explanation, Head, WireExchange, explain};
use corsgate::snapshot::{CompileEnv, load};
use http::HeaderValue;
use http::uri::PathAndQuery;
use rustls::pki_types::ServerName;

use super::{OTHERS, Outcome, PLAIN, Row, Table, check, tables};
use crate::support::certificates::{Authority, Certificate};
use crate::support::client::{self, Response};
use crate::support::gateway::Gateway;
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

/// The listener with TLS.
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

impl Table {
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

    /// Sends the row with an HTTP/1.1 client: `fetch` gets the method, the target and the fields of the row.
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

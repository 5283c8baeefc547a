//! Errors of the gateway. Each error has the CORS headers of the policy, so a page can read it. The connection is in
//! the state that the response announces.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use crate::support::client::{Connection, Response};
use crate::support::gateway::{Gateway, free_port};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ALLOWED: (&str, &str) = ("Origin", "https://app.test");
const HOSTILE: (&str, &str) = ("Origin", "https://evil.test");
const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

struct Edge {
    gateway: Gateway,
    upstream: Upstream,
}

impl Edge {
    fn start() -> Self {
        // The CORS fields of the upstream must not appear in an error of the gateway.
        let upstream = Upstream::start(|request| match request.target.as_str() {
            "/reset" => Reply::reset(),
            "/garbage" => Reply::raw("220 mail.test ESMTP\r\n\r\n"),
            "/bad-status" => Reply::raw("HTTP/1.1 abc OK\r\nAccess-Control-Allow-Origin: *\r\n\r\n"),
            "/half-a-header" => Reply::raw("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nX-A: "),
            "/hang" => Reply::hang(),
            "/early" => Reply::raw(concat!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nAccess-Control-Allow-Origin: *\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\r\nok",
            )),
            "/unasked" => {
                Reply::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nmore")
            }
            "/short" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
            "/short-chunks" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n"),
            "/204" => Reply::new(204).header("Access-Control-Allow-Origin", "*"),
            "/304" => Reply::new(304).header("ETag", "\"1\"").header("Access-Control-Allow-Origin", "*"),
            _ => Reply::new(200).header("Access-Control-Allow-Origin", "*").body("ok"),
        });
        let refused = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let gateway = Gateway::start(&format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
limits: {{ body: 1KiB, uri: 1KiB, headers: 4KiB, header_count: 20 }}
services:
  - name: api
    hosts: [api.test]
    upstream: {{ nodes: [{{ address: \"{origin}\" }}], timeouts: {{ read: 200ms }} }}
    cors:
      allow_origins: https://app.test
      allow_methods: [GET, PUT]
      allow_headers: [X-Asked]
      allow_credentials: true
      expose_headers: [X-Request-Id]
    routes:
      - {{ name: refused, paths: [/refused], upstream: {{ nodes: [{{ address: \"{refused}\" }}] }} }}
      - {{ name: unknown, paths: [/unknown], upstream: {{ nodes: [{{ address: \"nowhere.invalid:80\" }}] }} }}
      - {{ name: get, paths: [/only-get], methods: [GET] }}
      - name: rest
        paths: [/ok, /unasked, /reset, /garbage, /bad-status, /half-a-header, /hang, /early, /short, /short-chunks, /204, /304]
      - {{ name: below, paths: [/below/*] }}
",
            origin = upstream.address()
        ));
        Self { gateway, upstream }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.gateway.address()).unwrap()
    }
}

/// A request that fails, and the expected status.
struct Wrong {
    status: u16,
    method: &'static str,
    target: String,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn wrong(status: u16, method: &'static str, target: &str) -> Wrong {
    Wrong { status, method, target: target.into(), fields: Vec::new(), body: Vec::new() }
}

impl Wrong {
    fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    #[track_caller]
    fn send(&self, connection: &mut Connection, origin: Option<(&str, &str)>) -> Response {
        let own = self.fields.iter().map(|(name, value)| (*name, value.as_str()));
        let fields: Vec<_> = [HOST].into_iter().chain(origin).chain(own).collect();
        let response = connection.request(self.method, &self.target, &fields, &self.body);
        response.unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }
}

/// All CORS fields of a response, names in lower case, sorted.
fn cors(response: &Response) -> Vec<(String, String)> {
    let fields = response.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut fields: Vec<_> = fields.filter(|(n, _)| n.starts_with("access-control-") || n == "vary").collect();
    fields.sort();
    fields
}

fn own(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    crate::support::client::own(fields)
}

/// Checks that the next request works, unless the response has announced the end of the connection.
#[track_caller]
fn assert_honest(mut connection: Connection, response: &Response, what: &str) {
    match response.header("Connection") {
        Some("close") => assert!(connection.closed(), "{what}: said close, and stayed open"),
        Some("keep-alive") => {
            let next = connection.request("GET", "/ok", &[HOST], b"");
            let next = next.unwrap_or_else(|error| panic!("{what}: said keep-alive, and then: {error}"));
            assert_eq!((next.status, next.text()), (200, "ok"), "{what}");
        }
        other => panic!("{what}: Connection: {other:?}"),
    }
}

#[test]
fn every_error_of_the_gateway_has_cors_headers_for_allowed_origins_only() {
    let edge = Edge::start();
    let cases = [
        wrong(502, "GET", "/refused"),
        wrong(502, "POST", "/refused").body("body"),
        wrong(502, "GET", "/reset"),
        wrong(502, "POST", "/reset").body("body"),
        wrong(502, "GET", "/garbage"),
        wrong(502, "GET", "/bad-status"),
        wrong(502, "GET", "/half-a-header"),
        wrong(504, "GET", "/hang"),
        wrong(502, "GET", "/unasked"),
        wrong(503, "GET", "/unknown"),
        wrong(404, "GET", "/nothing-here"),
        wrong(404, "POST", "/nothing-here").body("body"),
        wrong(405, "DELETE", "/only-get"),
        wrong(405, "POST", "/only-get").body("body"),
        wrong(400, "GET", "/below/%2e%2e/x"),
        wrong(400, "GET", "/below/%2f"),
        wrong(413, "POST", "/ok").body(vec![b'a'; 1025]),
        wrong(413, "POST", "/ok").field(CHUNKED.0, CHUNKED.1).body(format!("401\r\n{}\r\n0\r\n\r\n", "a".repeat(1025))),
        wrong(400, "POST", "/ok").field(CHUNKED.0, CHUNKED.1).body("this is no chunk\r\n"),
        wrong(400, "POST", "/ok").field(CHUNKED.0, CHUNKED.1).field("Content-Length", "5").body("0\r\n\r\n"),
        wrong(400, "GET", "/ok").field("Connection", "a, b, c, d, e, f, g, h, i, j, k"),
        wrong(414, "GET", &format!("/below/{}", "a".repeat(1024))),
        wrong(414, "GET", &format!("/nothing-here/{}", "a".repeat(1024))),
        wrong(431, "GET", "/ok").field("X-Long", "a".repeat(4096)),
        (0..20).fold(wrong(431, "GET", "/ok"), |wrong, _| wrong.field("X-Many", "a")),
    ];
    for case in &cases {
        let what = format!("{} {} {}", case.status, case.method, &case.target[..case.target.len().min(30)]);
        for origin in [Some(ALLOWED), Some(HOSTILE), None] {
            let mut connection = edge.connect();
            let response = case.send(&mut connection, origin);
            assert_eq!(response.status, case.status, "{what}");
            let expected = match origin {
                Some(ALLOWED) => own(&[
                    ("access-control-allow-credentials", "true"),
                    ("access-control-allow-origin", "https://app.test"),
                    ("access-control-expose-headers", "X-Request-Id"),
                    ("vary", "Origin"),
                ]),
                _ => own(&[("vary", "Origin")]),
            };
            assert_eq!(cors(&response), expected, "{what} {origin:?}");
            // The body is one line of text. It has no input of the client, and no cache may store it.
            assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"), "{what}");
            assert_eq!(response.header("Cache-Control"), Some("no-store"), "{what}");
            assert_eq!((response.text().lines().count(), response.text().ends_with('\n')), (1, true), "{what}");
            assert_honest(connection, &response, &what);
        }
    }
    assert!(edge.upstream.received().iter().all(|request| request.method == "GET" || request.target == "/reset"));
}

#[test]
fn an_error_that_answers_a_head_has_no_body_and_the_headers_of_the_get() {
    let edge = Edge::start();
    for (status, target) in [(502, "/refused"), (502, "/reset"), (504, "/hang"), (503, "/unknown"), (404, "/nothing")] {
        let mut connection = edge.connect();
        let get = connection.request("GET", target, &[HOST, ALLOWED], b"").unwrap();
        let mut connection = edge.connect();
        let head = connection.request("HEAD", target, &[HOST, ALLOWED], b"").unwrap();
        assert_eq!((head.status, cors(&head)), (status, cors(&get)));
        assert_eq!(head.header("Content-Length"), get.header("Content-Length"));
        assert_honest(connection, &head, target);
    }
}

#[test]
fn every_status_without_a_body_has_cors_headers_and_keeps_the_connection() {
    let edge = Edge::start();
    let mut connection = edge.connect();
    for _ in 0..2 {
        for (method, target, status) in
            [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/ok", 200), ("GET", "/ok", 200)]
        {
            let response = connection.request(method, target, &[HOST, ALLOWED], b"").unwrap();
            assert_eq!(response.status, status);
            assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{target}");
            assert_eq!(response.header("Vary"), Some("Origin"), "{target}");
            assert_eq!(response.header("Connection"), Some("keep-alive"), "{target}");
        }
    }
}

#[test]
fn early_hints_have_no_cors_headers_and_the_final_response_has_them() {
    let edge = Edge::start();
    let mut connection = edge.connect();
    connection.send(b"GET /early HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\n\r\n").unwrap();
    let hints = connection.read_any("GET").unwrap();
    assert_eq!((hints.status, hints.header("Link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!(cors(&hints), own(&[]));
    let response = connection.read_any("GET").unwrap();
    assert_eq!((response.status, response.text()), (200, "ok"));
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    assert_honest(connection, &response, "after early hints");
}

#[test]
fn a_truncated_body_never_looks_complete() {
    let edge = Edge::start();
    for target in ["/short", "/short-chunks"] {
        let mut connection = edge.connect();
        let error = connection.request("GET", target, &[HOST, ALLOWED], b"").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{target}: {error}");
        assert!(connection.closed(), "{target}");
    }
    let after = edge.connect().request("GET", "/ok", &[HOST], b"").unwrap();
    assert_eq!(after.text(), "ok");
}

#[test]
fn an_error_response_reveals_nothing_about_the_upstream() {
    let edge = Edge::start();
    for target in ["/refused", "/reset", "/garbage", "/hang", "/unknown"] {
        let response = edge.connect().request("GET", target, &[HOST, ALLOWED], b"").unwrap();
        let all = format!("{:?} {}", response.headers, response.text());
        for secret in ["127.0.0.1", "invalid", "Pingora", "pingora", "mail.test"] {
            assert!(!all.contains(secret), "{target}: {secret} in {all}");
        }
    }
}

#[test]
fn the_log_names_the_failed_upstream_and_the_error() {
    let edge = Edge::start();
    for target in ["/refused", "/reset", "/hang", "/unknown"] {
        edge.connect().request("GET", target, &[HOST], b"").unwrap();
    }
    edge.gateway.wait_for_log("connect failed upstream=api/refused");
    edge.gateway.wait_for_log("request failed status=502 route=api/refused upstream=api/refused");
    edge.gateway.wait_for_log("request failed status=502 route=api/rest upstream=api");
    edge.gateway.wait_for_log("request failed status=504 route=api/rest upstream=api");
    edge.gateway.wait_for_log("request failed status=503 route=api/unknown upstream=api/unknown");
}

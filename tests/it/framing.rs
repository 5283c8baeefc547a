//! HTTP/1.1 framing: the gateway and the upstream find the same end and the same target of a request, or the gateway
//! refuses the request.
//!
//! Requests are written as bytes, because ordinary clients cannot send most of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, Response};
use crate::support::gateway::Gateway;
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::upstream::{Received, Reply, Upstream};

const HOST: &str = "Host: api.test\r\n";
const ORIGIN: &str = "Origin: https://app.test\r\n";
/// 50 bytes of a body that look like a request.
const HIDDEN: &str = "GET /secret HTTP/1.1\r\nHost: api.test\r\nX-Pad: 1\r\n\r\n";

struct Edge {
    gateway: Gateway,
    upstream: Upstream,
}

/// The outcome of the bytes on one connection.
struct Exchange {
    response: Response,
    received: Vec<Received>,
    connection: Connection,
}

impl Edge {
    fn start() -> Self {
        let upstream = Upstream::start(|request| Reply::new(200).body(request.target.as_str()));
        let gateway = Gateway::start(&format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
limits: {{ body: 1KiB, keepalive: 30s }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT] }}
    routes:
      - {{ name: get, paths: [/only-get], methods: [GET] }}
      - {{ name: two-hundred, paths: [/200/*] }}
      - name: no-content
        paths: [/204/*]
        cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT], preflight: {{ status: 204 }} }}
      - {{ name: rest, paths: [/*] }}
  - name: closed
    hosts: [closed.test]
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    routes: [{{ name: only, paths: [/only] }}]
",
            upstream.address(),
            upstream.address()
        ));
        Self { gateway, upstream }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.gateway.address()).unwrap()
    }

    /// Sends bytes of one or more requests, and reads the first response.
    #[track_caller]
    fn send(&self, bytes: impl AsRef<[u8]>) -> Exchange {
        let bytes = bytes.as_ref();
        self.upstream.clear();
        let mut connection = self.connect();
        connection.send(bytes).unwrap();
        let method = if bytes.starts_with(b"HEAD") { "HEAD" } else { "GET" };
        let response = connection.read(method).unwrap_or_else(|e| panic!("{}: {e}", bytes.escape_ascii()));
        Exchange { response, received: self.upstream.received(), connection }
    }

    /// Asserts that the gateway answers with the status, forwards nothing, and closes the connection.
    #[track_caller]
    fn refuses(&self, status: u16, bytes: impl AsRef<[u8]>) {
        let shown = bytes.as_ref().escape_ascii().to_string();
        let mut exchange = self.send(bytes);
        assert_eq!(exchange.response.status, status, "{shown}");
        assert!(exchange.received.is_empty(), "{shown}: the upstream got {:?}", exchange.received);
        assert_eq!(exchange.response.header("Connection"), Some("close"), "{shown}");
        assert!(exchange.connection.closed(), "{shown}");
    }

    /// Asserts that the bytes are one request, which the upstream receives with this method, target and body.
    #[track_caller]
    fn forwards(&self, bytes: impl AsRef<[u8]>, expected: (&str, &str, &str)) -> Received {
        let shown = bytes.as_ref().escape_ascii().to_string();
        let exchange = self.send(bytes);
        assert_eq!(exchange.response.status, 200, "{shown}");
        let [received] = &exchange.received[..] else { panic!("{shown}: {:?}", exchange.received) };
        let body = String::from_utf8_lossy(&received.body);
        assert_eq!((received.method.as_str(), received.target.as_str(), &*body), expected, "{shown}");
        received.clone()
    }
}

fn one_service(upstream: SocketAddr) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
services: [{{ name: a, upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }} }}]
"
    )
}

/// A POST with these header lines and this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\n{HOST}{lines}\r\n{body}")
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{HOST}\r\n")
}

#[test]
fn a_connection_is_kept_after_each_local_reply() {
    let edge = Edge::start();
    let preflight =
        |path| format!("OPTIONS {path} HTTP/1.1\r\n{HOST}{ORIGIN}Access-Control-Request-Method: PUT\r\n\r\n");
    let cases = [
        (preflight("/200/x"), 200),
        (preflight("/204/x"), 204),
        (preflight("/only-get"), 405),
        (format!("DELETE /only-get HTTP/1.1\r\n{HOST}{ORIGIN}\r\n"), 405),
        ("GET /unknown HTTP/1.1\r\nHost: closed.test\r\n\r\n".to_owned(), 404),
        (get("/a/../b"), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(9000)), 414),
        (format!("GET / HTTP/1.1\r\n{HOST}X-A: {}\r\n\r\n", "a".repeat(70_000)), 431),
    ];
    let mut connection = edge.connect();
    for round in 1..=2 {
        for (bytes, status) in &cases {
            connection.send(bytes.as_bytes()).unwrap();
            let response = connection.read("GET").unwrap_or_else(|e| panic!("round {round}, {status}: {e}"));
            assert_eq!(
                (response.status, response.header("Connection")),
                (*status, Some("keep-alive")),
                "round {round}"
            );
        }
    }
    assert_eq!(edge.upstream.hits(), 0);
    let last = connection.request("GET", "/after", &[("Host", "api.test")], b"").unwrap();
    assert_eq!(last.text(), "/after");
}

#[test]
fn a_head_request_is_refused_without_a_body_and_the_connection_goes_on() {
    let edge = Edge::start();
    let mut connection = edge.connect();
    for _ in 0..2 {
        connection.send(b"HEAD /unknown HTTP/1.1\r\nHost: closed.test\r\n\r\n").unwrap();
        let response = connection.read("HEAD").unwrap();
        assert_eq!((response.status, response.header("Content-Length")), (404, Some("24")));
    }
    assert_eq!(connection.request("GET", "/a", &[("Host", "api.test")], b"").unwrap().text(), "/a");
}

#[test]
fn the_body_of_a_locally_answered_request_is_never_read_as_a_request() {
    assert_eq!(HIDDEN.len(), 50);
    let edge = Edge::start();
    let preflight = format!("OPTIONS / HTTP/1.1\r\n{HOST}{ORIGIN}Access-Control-Request-Method: PUT\r\n");
    let refused = format!("POST /only-get HTTP/1.1\r\n{HOST}{ORIGIN}");
    for (head, status) in [(preflight, 200), (refused, 405)] {
        let framings = [
            (status, format!("Content-Length: 50\r\n\r\n{HIDDEN}")),
            // The body is incomplete. The next bytes may be its rest or another request, so the gateway must close the
            // connection.
            (status, format!("Content-Length: 100\r\n\r\n{HIDDEN}")),
            (status, format!("Transfer-Encoding: chunked\r\n\r\n32\r\n{HIDDEN}\r\n0\r\n\r\n")),
            (400, format!("Transfer-Encoding: chunked\r\n\r\n{HIDDEN}")),
        ];
        for (status, framing) in framings {
            edge.refuses(status, format!("{head}{framing}"));
        }
    }
}

#[test]
fn a_request_that_follows_a_body_is_not_part_of_it() {
    let edge = Edge::start();
    for framing in ["Content-Length: 2\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"] {
        let bytes = format!("POST / HTTP/1.1\r\n{HOST}{framing}{HIDDEN}");
        let mut exchange = edge.send(&bytes);
        assert_eq!(exchange.response.text(), "/");
        assert_eq!((exchange.received[0].method.as_str(), exchange.received[0].body.as_slice()), ("POST", &b"ab"[..]));
        assert_eq!(exchange.connection.read("GET").unwrap().text(), "/secret");
    }
}

#[test]
fn a_repeated_content_length_is_refused_and_not_forwarded() {
    let edge = Edge::start();
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5, 6\r\n",
    ] {
        edge.refuses(400, post(lines, "0\r\n\r\n"));
        let with_bare_lf = format!("POST / HTTP/1.1\n{}{}\n0\r\n\r\n", HOST.replace('\r', ""), lines.replace('\r', ""));
        edge.refuses(400, with_bare_lf);
    }
}

#[test]
fn an_ambiguous_body_gets_400_with_cors_headers() {
    let edge = Edge::start();
    let lines = format!("{ORIGIN}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    let response = edge.send(post(&lines, "0\r\n\r\n")).response;
    assert_eq!(response.status, 400);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    assert_eq!(response.header("Vary"), Some("Origin"));
}

#[test]
fn a_content_length_that_is_no_number_is_refused() {
    let edge = Edge::start();
    for length in ["+2", "-2", "0x2", "2a", "2;", "2 2", "", "99999999999999999999999", "٢"] {
        edge.refuses(400, post(&format!("Content-Length: {length}\r\n"), "ab"));
    }
}

#[test]
fn a_content_length_may_have_spaces_around_it() {
    let edge = Edge::start();
    for line in ["Content-Length:2\r\n", "Content-Length: \t2 \r\n", "cOnTeNt-lEnGtH: 2\r\n"] {
        edge.forwards(post(line, "ab"), ("POST", "/", "ab"));
    }
}

#[test]
fn a_transfer_encoding_other_than_chunked_is_refused() {
    let edge = Edge::start();
    let body = "2\r\nab\r\n0\r\n\r\n";
    for line in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: chunked\x0b\r\n",
        "Transfer-Encoding: \0chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
    ] {
        edge.refuses(400, post(line, body));
    }
    for line in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "transfer-encoding: \tchunked \r\n",
    ] {
        edge.forwards(post(line, body), ("POST", "/", "ab"));
    }
}

#[test]
fn a_transfer_encoding_on_http_1_0_is_refused() {
    let edge = Edge::start();
    edge.refuses(400, format!("POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"));
}

#[test]
fn chunks_are_parsed_strictly() {
    const TE: &str = "Transfer-Encoding: chunked\r\n";
    let edge = Edge::start();
    edge.forwards(post(TE, "2;ext=\"1\"\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), ("POST", "/", "abc"));
    let get_with_body = post(TE, "2\r\nab\r\n0\r\n\r\n").replacen("POST", "GET", 1);
    edge.forwards(get_with_body, ("GET", "/", "ab"));
    edge.forwards(post(TE, "0a\r\n0123456789\r\n0\r\n\r\n"), ("POST", "/", "0123456789"));
    let received = edge.forwards(post(TE, "2\r\nab\r\n0\r\nHost: evil.test\r\nX-T: 1\r\n\r\n"), ("POST", "/", "ab"));
    assert_eq!((received.header("Host"), received.header("X-T")), (Some("api.test"), None));
    for body in [
        "zz\r\nab\r\n0\r\n\r\n",
        "2\nab\n0\n\n",
        "-2\r\nab\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nab",
        "2\r\nabc\r\n0\r\n\r\n",
        // An empty size does not mean the last chunk.
        "5\r\nhello\r\n\r\nmore\r\n\r\n",
        // A line feed alone does not end a line, and an extension cannot contain it.
        "2;\nxx\r\n4c\r\n0\r\n\r\n",
        "2\r\nab\r\n0\r\nX: y\n\r\n",
        "2\r\nab\r\n0\r\nno field\r\n\r\n",
    ] {
        edge.refuses(400, post(TE, body));
        // The same in pieces, so that the gateway has already begun to forward the request.
        for cut in 0..body.len() {
            edge.upstream.clear();
            let mut connection = edge.connect();
            let method = if cut % 2 == 0 { "GET" } else { "POST" };
            connection.send(post(TE, &body[..cut]).replacen("POST", method, 1).as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            connection.send(&body.as_bytes()[cut..]).unwrap();
            let response = connection.read("POST").unwrap_or_else(|e| panic!("{body:?} at {cut}: {e}"));
            assert_eq!((response.status, response.header("Connection")), (400, Some("close")), "{body:?} at {cut}");
            assert!(connection.closed(), "{body:?} at {cut}");
            assert!(edge.upstream.received().is_empty(), "{body:?} at {cut}: the upstream took it for whole");
        }
    }
    let refused = edge.send(post(&format!("{ORIGIN}{TE}"), "\r\n")).response;
    assert_eq!(refused.header("Access-Control-Allow-Origin"), Some("https://app.test"));
}

#[test]
fn folded_lines_and_control_characters_are_refused() {
    let edge = Edge::start();
    for lines in [
        "X-A: b\r\n c\r\n",
        "X-A: b\r\n\tc\r\n",
        "X-A: b\0c\r\n",
        "X-A: b\rX-B: c\r\n",
        "X A: b\r\n",
        ": b\r\n",
        "X-A\r\n",
    ] {
        edge.refuses(400, format!("GET / HTTP/1.1\r\n{HOST}{lines}\r\n"));
    }
    edge.refuses(400, format!("GET / HTTP/1.1\r\n {HOST}\r\n"));
}

#[test]
fn lines_that_end_in_lf_alone_reach_the_upstream_with_crlf() {
    let edge = Edge::start();
    // The upstream of this test accepts CRLF only.
    edge.forwards("GET /lf HTTP/1.1\nHost: api.test\nX-A: b\n\n", ("GET", "/lf", ""));
    let received = edge.forwards("GET /lf HTTP/1.1\r\nHost: api.test\nX-A: b\r\n\r\n", ("GET", "/lf", ""));
    assert_eq!((received.header("Host"), received.header("X-A")), (Some("api.test"), Some("b")));
}

#[test]
fn an_http_1_1_request_needs_exactly_one_host() {
    let edge = Edge::start();
    for bytes in ["GET / HTTP/1.1\r\n\r\n", "GET http://api.test/ HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n"]
    {
        let exchange = edge.send(bytes);
        assert_eq!((exchange.response.status, exchange.received.len()), (400, 0), "{bytes:?}");
    }
    edge.refuses(400, format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n"));
    edge.refuses(400, format!("GET / HTTP/1.1\r\n{HOST}Host: closed.test\r\n\r\n"));
}

#[test]
fn an_http_1_0_request_needs_no_host_and_is_forwarded_with_one() {
    let edge = Edge::start();
    let address = edge.gateway.address().to_string();
    for (target, host) in [("/ten", address.as_str()), ("http://named.test/ten", "named.test")] {
        let received = edge.forwards(format!("GET {target} HTTP/1.0\r\n\r\n"), ("GET", "/ten", ""));
        assert_eq!(received.header("Host"), Some(host));
        assert_eq!(received.header("X-Forwarded-Host"), Some(host));
    }
    let mut exchange = edge.send("GET /ten HTTP/1.0\r\n\r\n");
    assert_eq!(exchange.response.header("Connection"), Some("close"));
    assert!(exchange.connection.closed());
}

#[test]
fn an_invalid_host_is_refused() {
    let edge = Edge::start();
    for host in [
        "a b", "a/b", "a?b", "a#b", "a@b", "a,b", "a\\b", "a%00b", "a:b", "a:b:c", "a:80:80", "a:+80", "a:99999",
        ":80", ":", "[::1", "[::1]x", "[x]", "[]", "::1", "é", "\u{1}",
    ] {
        let exchange = edge.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!((exchange.response.status, exchange.received.len()), (400, 0), "{host:?}");
    }
    let exchange = edge.send(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n");
    assert_eq!((exchange.response.status, exchange.received.len()), (400, 0));
    for host in ["api.test:80", "api.test:", "API.test.", "[::1]", "[::1]:8080", "127.0.0.1:1", "a_b-c"] {
        let received = edge.forwards(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), ("GET", "/", ""));
        assert_eq!(received.header("Host"), Some(host));
    }
}

#[test]
fn an_absolute_target_must_name_the_same_host() {
    let edge = Edge::start();
    for (target, path) in [
        ("http://api.test/x?y=/z", "/x?y=/z"),
        ("https://api.test/x", "/x"),
        ("http://api.test", "/"),
        ("http://api.test?y=1", "/?y=1"),
        ("http://api.test/x#fragment", "/x"),
    ] {
        edge.forwards(get(target), ("GET", path, ""));
    }
    for target in ["http://closed.test/", "http://user@api.test/", "http://api.test:81/", "http:///x"] {
        let exchange = edge.send(get(target));
        assert_eq!((exchange.response.status, exchange.received.len()), (400, 0), "{target}");
    }
    // A URL of another scheme does not belong to this server, even with its host.
    for target in ["ftp://api.test/", "FTP://api.test/x", "ws://api.test/", "gopher://api.test", "x:y"] {
        let exchange = edge.send(format!("GET {target} HTTP/1.1\r\n{HOST}{ORIGIN}\r\n"));
        assert_eq!((exchange.response.status, exchange.received.len()), (400, 0), "{target}");
        assert_eq!(exchange.response.text(), "The request target is neither a path nor an http URL.\n", "{target}");
        assert_eq!(exchange.response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{target}");
    }
    // Routing uses the path of an absolute target.
    for target in ["http://api.test/only-get", "http://api.test/only-get#x", "/only-get#x", "/only-get?x"] {
        let exchange = edge.send(format!("POST {target} HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n"));
        assert_eq!((exchange.response.status, exchange.received.len()), (405, 0), "{target}");
    }
}

#[test]
fn an_asterisk_target_is_for_options_only() {
    let edge = Edge::start();
    edge.forwards(format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n"), ("OPTIONS", "*", ""));
    for bytes in [get("*"), get("foo"), get("api.test:80"), get("?x"), format!("POST * HTTP/1.1\r\n{HOST}\r\n")] {
        let exchange = edge.send(&bytes);
        assert_eq!((exchange.response.status, exchange.received.len()), (400, 0), "{bytes:?}");
    }
}

#[test]
fn connect_is_refused() {
    Edge::start().refuses(405, format!("CONNECT api.test:443 HTTP/1.1\r\n{HOST}\r\n"));
}

#[test]
fn pipelined_requests_are_served_in_their_order() {
    let edge = Edge::start();
    let chunked = "Transfer-Encoding: chunked\r\n";
    // The path is longer than one read.
    let long = format!("/{}", "l".repeat(6000));
    let requests = [
        ("/1", get("/1")),
        ("/2", get("/2")),
        ("/", post("Content-Length: 2\r\n", "ab")),
        ("/", post(chunked, "2\r\nab\r\n0\r\n\r\n")),
        ("/3", "GET /3 HTTP/1.1\nHost: api.test\n\n".to_owned()),
        (&long, get(&long)),
        ("/", post(chunked, "2;x\r\nab\r\n0\r\nX-T: y\r\n\r\n")),
        ("/4", format!("GET /4 HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")),
    ];
    let bytes: String = requests.iter().map(|(_, bytes)| bytes.as_str()).collect();
    for pieces in [bytes.len(), 1400, 97] {
        edge.upstream.clear();
        let mut connection = edge.connect();
        for piece in bytes.as_bytes().chunks(pieces) {
            connection.send(piece).unwrap();
        }
        for (at, (target, _)) in requests.iter().enumerate() {
            let response = connection.read("GET").unwrap_or_else(|e| panic!("{at} by {pieces}: {e}"));
            assert_eq!(response.text(), *target, "{at} by {pieces}");
            let last = at + 1 == requests.len();
            assert_eq!(response.header("Connection"), Some(if last { "close" } else { "keep-alive" }));
        }
        assert!(connection.closed());
        let received = edge.upstream.received();
        assert_eq!(received.len(), requests.len());
        assert!(received.iter().all(|request| [&b""[..], b"ab"].contains(&request.body.as_slice())));
    }
}

/// The bytes of the second request arrive while the first one is served.
#[test]
fn a_request_that_arrives_during_another_one_is_served_after_it() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/slow" => Reply::new(200).body("slow").after(Duration::from_millis(300)),
        _ => Reply::new(200).body("quick"),
    });
    let gateway = Gateway::start(&one_service(upstream.address()));
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(get("/slow").as_bytes()).unwrap();
    upstream.wait_for_hits(1);
    connection.send(get("/quick").as_bytes()).unwrap();
    assert_eq!(connection.read("GET").unwrap().text(), "slow");
    assert_eq!(connection.read("GET").unwrap().text(), "quick");
}

#[test]
fn a_client_that_closes_its_sending_side_gets_its_response() {
    let upstream = Upstream::start(|_| Reply::new(200).body("slow").after(Duration::from_millis(300)));
    let gateway = Gateway::start(&one_service(upstream.address()));
    for request in [get("/"), post("Content-Length: 2\r\n", "ab"), format!("{}{}", get("/"), get("/"))] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(request.as_bytes()).unwrap();
        connection.close_sending().unwrap();
        for _ in 0..request.matches("HTTP/1.1").count() {
            assert_eq!(connection.read("GET").unwrap().text(), "slow", "{request:?}");
        }
        assert!(connection.closed());
    }
    // The response takes longer than the gateway waits for a client that has closed its connection.
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = Gateway::start(&one_service(node.local_addr().unwrap()));
    let drip = thread::spawn(move || {
        let mut stream = node.accept().unwrap().0;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").unwrap();
        for byte in b"slow" {
            stream.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_secs(2));
        }
    });
    let mut connection = Connection::open(slow.address()).unwrap();
    connection.send(get("/").as_bytes()).unwrap();
    connection.close_sending().unwrap();
    assert_eq!(connection.read("GET").unwrap().text(), "slow");
    drip.join().unwrap();
    // An incomplete request has no response to wait for.
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(post("Content-Length: 3\r\n", "ab").as_bytes()).unwrap();
    connection.close_sending().unwrap();
    let begin = Instant::now();
    assert!(connection.closed());
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

/// Pingora has separate code for HTTP/2 nodes.
#[test]
fn early_bytes_and_a_closed_sending_side_are_the_same_with_an_http_2_node() {
    let upstream = H2Upstream::start(|_| H2Reply::new(200).body("slow").after(Duration::from_millis(300)));
    let node = upstream.address();
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{node}\" }}], http2: true }} }}]
"
    ));
    for request in [get("/"), post("Content-Length: 0\r\n", ""), post("Content-Length: 2\r\n", "ab")] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(format!("{request}{}", get("/")).as_bytes()).unwrap();
        connection.close_sending().unwrap();
        for _ in 0..2 {
            assert_eq!(connection.read("GET").unwrap().text(), "slow", "{request:?}");
        }
        assert!(connection.closed());
    }
}

/// For the gateway, a client that has gone is the same as a client that has closed only its sending side.
#[test]
fn the_request_of_a_client_that_has_gone_ends_some_seconds_later() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&one_service(upstream.local_addr().unwrap()));
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(get("/").as_bytes()).unwrap();
    let mut forwarded = upstream.accept().unwrap().0;
    assert!(forwarded.read(&mut [0; 4096]).unwrap() > 0);
    let begin = Instant::now();
    drop(connection);
    forwarded.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(forwarded.read(&mut [0]).unwrap(), 0, "the gateway closes its connection");
    assert!(begin.elapsed() >= Duration::from_secs(4), "{:?}", begin.elapsed());
}

/// If Pingora's parser cannot read a header, the gateway itself responds, so that a page gets the reason.
#[test]
fn a_header_beyond_the_limits_of_the_parser_gets_a_response_with_cors_headers() {
    let edge = Edge::start();
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    let mut cases = Vec::new();
    for length in [8193, 65_534, 65_535, 65_536, 90_000] {
        for target in
            [target(length), format!("/200/?{}", target(length)), format!("http://api.test{}", target(length))]
        {
            cases.push((414, format!("GET {target} HTTP/1.1\r\n{HOST}{ORIGIN}\r\n")));
        }
    }
    for count in [100, 253, 254, 255, 256, 1000, 10_000] {
        cases.push((431, format!("GET / HTTP/1.1\r\n{}{HOST}{ORIGIN}\r\n", fields(count))));
        let line = "OPTIONS / HTTP/1.1\r\nAccess-Control-Request-Method: PUT\r\n";
        cases.push((431, format!("{line}{}{HOST}{ORIGIN}\r\n", fields(count))));
    }
    for lines in ["Content-Length: +5\r\n", "Transfer-Encoding: xchunked\r\n"] {
        cases.push((400, post(&format!("{ORIGIN}{lines}"), "hello")));
    }
    for target in ["/a b", "/a\tb", "/a\x7f", "/a b HTTP/1.1"] {
        cases.push((400, format!("GET {target} HTTP/1.1\r\n{HOST}{ORIGIN}\r\n")));
    }
    for (status, bytes) in cases {
        let shown = format!("{} of {} bytes", &bytes[..40.min(bytes.len())], bytes.len());
        let exchange = edge.send(&bytes);
        let response = exchange.response;
        assert_eq!((response.status, exchange.received.len()), (status, 0), "{shown}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{shown}");
        assert_eq!(response.header("Server"), None, "{shown}");
    }
    // The fields that the response depends on are kept.
    let call = post(&format!("{ORIGIN}Content-Type: application/grpc\r\nContent-Length: +5\r\n"), "hello");
    let response = edge.send(&call).response;
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("13")));
    // The end of the header is not within the maximum size, so the host is unknown.
    let response = edge.send(format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(200_000))).response;
    assert_eq!((response.status, response.header("Connection")), (414, Some("close")));
}

#[test]
fn path_bytes_are_forwarded_unchanged_or_refused() {
    let edge = Edge::start();
    for target in ["/é?ü=ß", "/%41%e9%zz/;v=1,2", "/a//b", "/a+b", "//api.test/x", "/[]{}|~!$&'()*+,;=:@"] {
        edge.forwards(get(target), ("GET", target, ""));
    }
    edge.refuses(400, b"GET /\xff HTTP/1.1\r\nHost: api.test\r\n\r\n");
    let exchange = edge.send(get("/a\0b"));
    assert_eq!((exchange.response.status, exchange.received.len()), (400, 0));
    // A target with a space is not repaired (RFC 9112 section 3).
    for target in ["/a b", "/a b HTTP/1.1", "/a\tb", " /a", "/a ", "/a\x1f", "/a\x7f"] {
        edge.refuses(400, get(target));
    }
}

#[test]
fn bytes_that_are_not_http_1_are_refused() {
    let edge = Edge::start();
    for (status, bytes) in [
        (400, format!("GET / HTTP/1.2\r\n{HOST}\r\n")),
        (505, format!("GET / HTTP/2.0\r\n{HOST}\r\n")),
        (505, format!("GET / HTTP/3.0\r\n{HOST}\r\n")),
        (400, format!("GET / http/1.1\r\n{HOST}\r\n")),
        (400, "GET /\r\n\r\n".to_owned()),
        (400, format!("G@T / HTTP/1.1\r\n{HOST}\r\n")),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (400, "\x16\x03\x01\x00\x05hello\r\n\r\n".to_owned()),
        (405, format!("CONNECT api.test:443 HTTP/1.1\r\n{HOST}\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n")),
        (400, format!("GET http://other.test/ HTTP/1.1\r\n{HOST}\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{HOST}X A: b\r\n\r\n")),
    ] {
        edge.refuses(status, &bytes);
        let response = edge.send(&bytes).response;
        assert_eq!(response.header("Server"), None, "{bytes:?}");
        assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"), "{bytes:?}");
        assert!(response.text().ends_with(".\n"), "{bytes:?}");
    }
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let upstream = Upstream::start(|_| {
        Reply::new(200).header("Transfer-Encoding", "chunked").body("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    });
    let gateway = Gateway::start(&one_service(upstream.address()));
    for connection_field in ["", "Connection: keep-alive\r\n"] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(format!("GET / HTTP/1.0\r\n{HOST}{connection_field}\r\n").as_bytes()).unwrap();
        let response = connection.read("GET").unwrap();
        assert_eq!(response.header("Transfer-Encoding"), None);
        assert_eq!((response.header("Connection"), response.text()), (Some("close"), "abcde"));
        assert!(connection.closed());
    }
}

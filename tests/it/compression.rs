//! Tests the compression of responses over each version of HTTP. Clients decode the original body, and some responses
//! must stay unchanged.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Fields, Response, fetch};
use crate::support::gateway::Gateway;
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Received, Reply, Upstream};

/// The hosts of the services with an HTTP/1.1 and an HTTP/2 upstream.
const HOSTS: [&str; 2] = ["api.test", "http2.test"];
const ORIGIN: &str = "https://app.test";

/// A gateway with one HTTP/1.1 upstream and one HTTP/2 upstream. `/off` has no compression, and `/gzip` has only gzip.
/// `/kept` and `/typed` edit the header of the response.
struct Edge {
    gateway: Gateway,
    http_1: Upstream,
    _http_2: H2Upstream,
    tls: TlsClient,
}

/// A version of HTTP between client and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Http1,
    Http2,
}

impl Edge {
    /// Starts the gateway and both upstreams. Both upstreams send the status, the fields and the body that `answer`
    /// returns for a path.
    fn start(answer: impl Fn(&str) -> (u16, Fields, Vec<u8>) + Clone + Send + Sync + 'static) -> Self {
        let of_http_2 = answer.clone();
        let http_1 = Upstream::start(move |request: &Received| {
            let (status, fields, body) = answer(&request.target);
            fields.iter().fold(Reply::new(status), |reply, (name, value)| reply.header(name, value)).body(body)
        });
        let http_2 = H2Upstream::start(move |request| {
            let (status, mut fields, mut body) = of_http_2(&request.path);
            fields.push(("content-length".to_owned(), body.len().to_string()));
            if request.method == "HEAD" {
                body.clear();
            }
            fields.iter().fold(H2Reply::new(status), |reply, (name, value)| reply.header(name, value)).body(body)
        });
        Self::in_front_of(http_1, http_2)
    }

    fn in_front_of(http_1: Upstream, http_2: H2Upstream) -> Self {
        let authority = Authority::new("authority");
        let [api, http2] = HOSTS;
        let routes = "[
      { name: off, paths: [/off/*], compression: false },
      { name: gzip, paths: [/gzip/*], compression: { encodings: [gzip], min_size: 0B, types: text/* } },
      { name: kept, paths: [/kept/*], response_headers: { set: { Cache-Control: no-transform } } },
      { name: typed, paths: [/typed/*], response_headers: { set: { Content-Type: text/css, ETag: '\"own\"' } } },
      { name: all, paths: [/*] } ]";
        let config = format!(
            "
listeners:
  - address: \"{{listen}}\"
  - {{ address: \"{{listen2}}\", tls: {{ certificates: [{{ cert: tls/edge.crt, key: tls/edge.key }}] }} }}
cors: {{ allow_origins: {ORIGIN}, allow_credentials: true, expose_headers: [ETag] }}
services:
  - name: api
    hosts: [{api}]
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    compression: true
    routes: {routes}
  - name: http2
    hosts: [{http2}]
    upstream: {{ nodes: [{{ address: \"{}\" }}], http2: true }}
    compression: true
    routes: {routes}
",
            http_1.address(),
            http_2.address(),
            routes = routes.replace("name: ", "name: r-"),
        );
        let gateway = Gateway::start_with_files(&config, &authority.issue(&HOSTS).files("tls/edge"));
        Self { gateway, http_1, _http_2: http_2, tls: TlsClient::new(&authority, api) }
    }

    /// Sends a request from a page of [`ORIGIN`].
    #[track_caller]
    fn fetch(&self, client: Client, method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> Response {
        match client {
            Client::Http1 => {
                let all = [&[("Host", host), ("Origin", ORIGIN)], fields].concat();
                fetch(self.gateway.address(), method, path, &all)
            }
            Client::Http2 => {
                let request = H2Request::new(method, host, path).header("origin", ORIGIN);
                let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
                H2Client::open(self.gateway.address2(), &self.tls).unwrap().request(&request).unwrap()
            }
        }
    }
}

/// Returns each HTTP version of the client with each HTTP version of the upstream.
fn versions() -> impl Iterator<Item = (Client, &'static str)> {
    [Client::Http1, Client::Http2].into_iter().flat_map(|client| HOSTS.map(|host| (client, host)))
}

/// Decodes a body. Returns None if the body cannot be decoded completely.
fn decoded(encoding: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let read = match encoding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut body),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut body),
        "zstd" => zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut body)),
        _ => panic!("{encoding}"),
    };
    read.ok().map(|_| body)
}

/// Returns the beginning of a large JSON text, with `size` bytes.
fn json(size: usize) -> Vec<u8> {
    let entry =
        |i: usize| format!("{{\"id\":{i},\"name\":\"user {}\",\"mail\":\"u{i}@example.test\"}},", i * 7919 % 1000);
    (0..).flat_map(|i| entry(i).into_bytes()).take(size).collect()
}

fn fields(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Returns the fields that do not depend on the time and the connection, except the fields in `without`.
fn stable(response: &Response, without: &[&str]) -> Fields {
    let skipped = [&["date", "connection", "transfer-encoding"], without].concat();
    let name = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    let mut fields: Fields =
        response.headers.iter().map(name).filter(|(name, _)| !skipped.contains(&name.as_str())).collect();
    fields.sort();
    fields
}

#[test]
fn each_client_gets_what_it_accepts_and_the_same_cors_headers() {
    let edge = Edge::start(|path| {
        let size = path.rsplit('/').next().unwrap().parse().unwrap();
        let header = [("content-type", "application/json"), ("etag", "\"v1\""), ("accept-ranges", "bytes")];
        (200, fields(&[&header[..], &[("digest", "sha-256=x"), ("vary", "Cookie")]].concat()), json(size))
    });
    for (client, host) in versions() {
        for size in [1024, 40_000, 2_000_000] {
            for (accept, encoding) in [
                ("gzip, deflate, br, zstd", Some("zstd")),
                ("gzip, deflate, br", Some("br")),
                ("gzip", Some("gzip")),
                ("br;q=0.1, gzip;q=0.2", Some("gzip")),
                ("identity", None),
            ] {
                let shown = format!("{client:?} {host} {size} {accept}");
                let accept = [("Accept-Encoding", accept)];
                let plain = edge.fetch(client, "GET", host, &format!("/off/{size}"), &accept);
                assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Cookie, Origin")));
                let response = edge.fetch(client, "GET", host, &format!("/{size}"), &accept);
                assert_eq!(response.header("vary"), Some("Cookie, Origin, Accept-Encoding"), "{shown}");
                assert_eq!(response.header("content-encoding"), encoding, "{shown}");
                let Some(encoding) = encoding else {
                    assert!(response.body == plain.body, "{shown}");
                    assert_eq!(stable(&response, &["vary"]), stable(&plain, &["vary"]), "{shown}");
                    continue;
                };
                assert!(response.body.len() < size, "{shown}: {}", response.body.len());
                assert!(decoded(encoding, &response.body).as_deref() == Some(&plain.body[..]), "{shown}");
                assert_eq!(response.header("etag"), Some("W/\"v1\""), "{shown}");
                // All other fields are the same as on the route without compression.
                let changed = ["vary", "content-encoding", "content-length", "etag", "accept-ranges", "digest"];
                assert_eq!(stable(&response, &changed), stable(&plain, &changed), "{shown}");
                let gone = ["content-length", "accept-ranges", "digest"];
                assert_eq!(gone.map(|name| response.header(name)), [None; 3], "{shown}");
                // A response to HEAD has the same header.
                let head = edge.fetch(client, "HEAD", host, &format!("/{size}"), &accept);
                assert_eq!((stable(&head, &[]), head.body.len()), (stable(&response, &[]), 0), "{shown}");
            }
        }
    }
}

#[test]
fn what_must_not_change_does_not_change() {
    let edge = Edge::start(|path| {
        let html = ("content-type", "text/html");
        let (status, header, size) = match path {
            "/encoded" => (200, vec![html, ("content-encoding", "gzip")], 5000),
            "/part" => (206, vec![html, ("content-range", "bytes 0-4999/9000")], 5000),
            "/no-transform" => (200, vec![html, ("cache-control", "public, no-transform")], 5000),
            "/small" => (200, vec![html], 1023),
            "/empty" | "/gzip/empty" => (200, vec![html], 0),
            "/image" => (200, vec![("content-type", "image/png")], 5000),
            "/events" => (200, vec![("content-type", "text/event-stream")], 5000),
            "/grpc" => (200, vec![("content-type", "application/grpc+json")], 5000),
            "/untyped" => (200, vec![], 5000),
            "/no-content" => (204, vec![html], 0),
            _ => panic!("{path}"),
        };
        (status, fields(&[&header[..], &[("etag", "\"v1\"")]].concat()), json(size))
    });
    for (client, host) in versions() {
        for (path, status, size) in [
            ("/encoded", 200, 5000),
            ("/part", 206, 5000),
            ("/no-transform", 200, 5000),
            ("/small", 200, 1023),
            ("/empty", 200, 0),
            ("/gzip/empty", 200, 0),
            ("/image", 200, 5000),
            ("/events", 200, 5000),
            ("/grpc", 200, 5000),
            ("/untyped", 200, 5000),
            ("/no-content", 204, 0),
        ] {
            let shown = format!("{client:?} {host} {path}");
            let response =
                edge.fetch(client, "GET", host, path, &[("Accept-Encoding", "gzip, br, zstd, identity;q=0")]);
            assert_eq!((response.status, response.body), (status, json(size)), "{shown}");
            let headers = response.headers.clone();
            let response = Response { body: Vec::new(), headers, ..response };
            assert_eq!((response.header("vary"), response.header("etag")), (Some("Origin"), Some("\"v1\"")), "{shown}");
            assert_eq!(response.header("content-encoding"), (path == "/encoded").then_some("gzip"), "{shown}");
            assert_eq!(response.header("access-control-allow-origin"), Some(ORIGIN), "{shown}");
        }
    }
}

#[test]
fn compression_comes_after_the_edits_of_the_response() {
    let edge = Edge::start(|_| (200, fields(&[("content-type", "application/octet-stream")]), json(5000)));
    for (client, host) in versions() {
        for (path, encoding, tag) in
            [("/", None, None), ("/typed/", Some("gzip"), Some("W/\"own\"")), ("/kept/typed/", None, None)]
        {
            let response = edge.fetch(client, "GET", host, path, &[("Accept-Encoding", "gzip")]);
            assert_eq!(response.header("content-encoding"), encoding, "{client:?} {host} {path}");
            assert_eq!(response.header("etag"), tag, "{client:?} {host} {path}");
        }
    }
    let edge = Edge::start(|_| (200, fields(&[("content-type", "text/css")]), json(5000)));
    for (path, encoding) in [("/", Some("gzip")), ("/kept/", None)] {
        let response = edge.fetch(Client::Http2, "GET", HOSTS[0], path, &[("Accept-Encoding", "gzip")]);
        assert_eq!(response.header("content-encoding"), encoding, "{path}");
    }
}

#[test]
fn a_client_can_revalidate_what_it_has() {
    let upstream = Upstream::start(|request| {
        let known = request.header("if-none-match").is_some_and(|tags| tags.contains("\"v1\""));
        let reply = Reply::new(if known { 304 } else { 200 }).header("ETag", "\"v1\"");
        let text = reply.header("Content-Type", "text/css");
        if known { text } else { text.body(json(5000)) }
    });
    let edge = Edge::in_front_of(upstream, H2Upstream::start(|_| H2Reply::new(200)));
    for client in [Client::Http1, Client::Http2] {
        for (accept, tag) in [("gzip", "W/\"v1\""), ("identity", "\"v1\"")] {
            let accept = ("Accept-Encoding", accept);
            let first = edge.fetch(client, "GET", HOSTS[0], "/", &[accept]);
            assert_eq!((first.status, first.header("etag")), (200, Some(tag)));
            let again = edge.fetch(client, "GET", HOSTS[0], "/", &[accept, ("If-None-Match", tag)]);
            assert_eq!((again.status, again.header("etag"), again.body.len()), (304, Some(tag), 0));
            assert_eq!(again.header("vary"), Some("Origin, Accept-Encoding"));
        }
    }
}

#[test]
fn an_http_1_0_client_gets_the_body_with_its_length() {
    let edge = Edge::start(|_| (200, fields(&[("content-type", "text/html")]), json(5000)));
    for host in HOSTS {
        let mut stream = TcpStream::connect(edge.gateway.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
            .write_all(format!("GET / HTTP/1.0\r\nHost: {host}\r\nAccept-Encoding: gzip\r\n\r\n").as_bytes())
            .unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        let header = String::from_utf8_lossy(&response).to_ascii_lowercase();
        assert!(response.ends_with(&json(5000)) && header.contains("content-length: 5000\r\n"), "{host}");
        assert!(header.contains("vary: origin, accept-encoding\r\n"), "{host}");
    }
}

#[test]
fn a_connection_is_kept_after_a_compressed_response() {
    let edge = Edge::start(|path| {
        let size = if path == "/empty" { 0 } else { 5000 };
        (200, fields(&[("content-type", "text/html")]), json(size))
    });
    let mut connection = Connection::open(edge.gateway.address()).unwrap();
    for (method, host, path) in [
        ("GET", HOSTS[0], "/"),
        ("HEAD", HOSTS[0], "/"),
        ("GET", HOSTS[1], "/gzip/"),
        ("HEAD", HOSTS[1], "/"),
        ("GET", HOSTS[0], "/empty"),
        ("GET", HOSTS[1], "/"),
    ] {
        let response = connection.request(method, path, &[("Host", host), ("Accept-Encoding", "gzip")], b"").unwrap();
        let expected = if path == "/empty" { None } else { Some("gzip") };
        assert_eq!((response.status, response.header("content-encoding")), (200, expected), "{method} {host} {path}");
        if method == "GET" && path != "/empty" {
            assert!(decoded("gzip", &response.body) == Some(json(5000)), "{method} {host} {path}");
        }
    }
}

/// The framing header field, a function that frames one line, and the bytes after the last line.
type Framing = (String, fn(&str) -> Vec<u8>, &'static [u8]);

/// Starts an upstream for one connection. It sends the next part after each message from the test. After the last part,
/// it closes the connection.
fn step_by_step(parts: Vec<Vec<u8>>) -> (SocketAddr, mpsc::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (next, go_on) = mpsc::channel();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        for part in parts {
            stream.write_all(&part).unwrap();
            go_on.recv_timeout(Duration::from_secs(10)).expect("the client has received the part");
        }
    });
    (address, next, server)
}

fn in_front_of_one(address: SocketAddr) -> Gateway {
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{address}\" }}] }}, compression: {{ types: text/* }} }}]
"
    ))
}

#[test]
fn each_part_of_a_slow_response_arrives_before_the_next_is_sent() {
    let lines: Vec<String> = (0..6).map(|i| format!("line {i} of a slow page\n")).collect();
    let length = lines.iter().map(String::len).sum::<usize>();
    let long = format!("{:>2000}", "padding\n");
    let framings: [Framing; 2] = [
        (
            "Transfer-Encoding: chunked".to_owned(),
            |line| format!("{:x}\r\n{line}\r\n", line.len()).into(),
            b"0\r\n\r\n",
        ),
        (format!("Content-Length: {}", length + long.len()), |line| line.as_bytes().to_vec(), b""),
    ];
    for encoding in ["gzip", "br", "zstd"] {
        for (framing, frame, end) in &framings {
            let header = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n");
            let mut parts: Vec<Vec<u8>> = lines.iter().map(|line| frame(line)).collect();
            parts[0] = [header.as_bytes(), &parts[0]].concat();
            parts.push([&frame(&long)[..], end].concat());
            let (address, next, server) = step_by_step(parts);
            let gateway = in_front_of_one(address);
            let mut client = TcpStream::connect(gateway.address()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let request =
                format!("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).unwrap();
            let (mut received, mut expected) = (Vec::new(), String::new());
            for line in lines.iter().chain([&long]) {
                expected.push_str(line);
                let mut buffer = [0; 4096];
                while so_far(encoding, &received) != expected.as_bytes() {
                    let read = client.read(&mut buffer).unwrap_or_else(|e| panic!("{encoding} {framing} {line}: {e}"));
                    assert!(read > 0, "{encoding} {framing} {line}");
                    received.extend_from_slice(&buffer[..read]);
                }
                next.send(()).unwrap();
            }
            server.join().unwrap();
            client.read_to_end(&mut received).unwrap();
            assert!(received.ends_with(b"\r\n0\r\n\r\n"), "{encoding} {framing}");
            assert_eq!(decoded(encoding, &chunks(&received).0).unwrap(), expected.as_bytes(), "{encoding} {framing}");
        }
    }
}

/// Returns the content of the received chunks, and whether the last chunk was received.
fn chunks(received: &[u8]) -> (Vec<u8>, bool) {
    let Some(header) = received.windows(4).position(|end| end == b"\r\n\r\n") else { return (Vec::new(), false) };
    let (mut rest, mut content) = (&received[header + 4..], Vec::new());
    loop {
        let Some(line) = rest.windows(2).position(|end| end == b"\r\n") else { return (content, false) };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        let data = &rest[line + 2..];
        if size == 0 {
            return (content, true);
        }
        if data.len() < size + 2 {
            content.extend_from_slice(&data[..size.min(data.len())]);
            return (content, false);
        }
        content.extend_from_slice(&data[..size]);
        rest = &data[size + 2..];
    }
}

/// Decodes the part of a response that was received so far.
fn so_far(encoding: &str, received: &[u8]) -> Vec<u8> {
    let content = chunks(received).0;
    let mut reader: Box<dyn Read> = match encoding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(&content[..])),
        "br" => Box::new(brotli::Decompressor::new(&content[..], 4096)),
        _ => Box::new(zstd::stream::read::Decoder::new(&content[..]).unwrap()),
    };
    let (mut body, mut byte) = (Vec::new(), [0]);
    while let Ok(1) = reader.read(&mut byte) {
        body.push(byte[0]);
    }
    body
}

#[test]
fn a_response_that_the_upstream_cuts_is_cut_for_the_client() {
    let upstream = Upstream::start(|request| {
        let framing = match request.target.as_str() {
            "/length" => "Content-Length: 500000\r\n\r\n",
            _ => "Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
        };
        let header = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}");
        Reply::raw([header.into_bytes(), json(200_000)].concat())
    });
    // In HTTP/2, a stream with fewer bytes than its content-length is an error.
    let http_2 = H2Upstream::start(|_| {
        H2Reply::new(200)
            .header("content-type", "application/json")
            .header("content-length", "500000")
            .body(json(200_000))
    });
    let edge = Edge::in_front_of(upstream, http_2);
    for (host, path) in [(HOSTS[0], "/length"), (HOSTS[0], "/chunked"), (HOSTS[1], "/")] {
        for encoding in ["zstd", "br", "gzip", "identity"] {
            let shown = format!("{host} {path} {encoding}");
            let mut connection = Connection::open(edge.gateway.address()).unwrap();
            let error = connection.request("GET", path, &[("Host", host), ("Accept-Encoding", encoding)], b"");
            assert!(error.is_err(), "{shown}: {error:?}");
            let client = H2Client::open(edge.gateway.address2(), &edge.tls).unwrap();
            let error = client.request(&H2Request::new("GET", host, path).header("accept-encoding", encoding));
            assert!(error.is_err(), "{shown}: {error:?}");
        }
    }
}

#[test]
fn the_end_of_the_body_is_sent_in_place_of_trailers() {
    let http_2 = H2Upstream::start(|request| {
        let reply = H2Reply::new(200).header("content-type", "text/plain").trailer("x-sum", "1");
        if request.path == "/announced" {
            reply.header("trailer", "x-sum").body(json(5000))
        } else {
            reply.body(json(5000))
        }
    });
    let edge = Edge::in_front_of(Upstream::start(|_| Reply::new(200)), http_2);
    for client in [Client::Http1, Client::Http2] {
        for encoding in ["zstd", "br", "gzip"] {
            let response = edge.fetch(client, "GET", HOSTS[1], "/", &[("Accept-Encoding", encoding)]);
            assert_eq!(response.header("content-encoding"), Some(encoding), "{client:?}");
            assert!(decoded(encoding, &response.body) == Some(json(5000)), "{client:?} {encoding}");
            assert!(response.trailers.is_empty(), "{client:?} {encoding}");
        }
        // If the upstream announces trailers, the trailers are kept and the body is not compressed.
        let response = edge.fetch(client, "GET", HOSTS[1], "/announced", &[("Accept-Encoding", "gzip")]);
        assert_eq!((response.header("content-encoding"), response.body.len()), (None, 5000), "{client:?}");
        let trailers = if client == Client::Http2 { fields(&[("x-sum", "1")]) } else { vec![] };
        assert_eq!(response.trailers, trailers, "{client:?}");
    }
}

#[test]
fn a_body_without_length_may_be_empty() {
    let upstream = Upstream::start(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    });
    let http_2 = H2Upstream::start(|_| H2Reply::new(200).header("content-type", "text/plain"));
    let edge = Edge::in_front_of(upstream, http_2);
    for client in [Client::Http1, Client::Http2] {
        for encoding in ["zstd", "br", "gzip"] {
            let response = edge.fetch(client, "GET", HOSTS[0], "/", &[("Accept-Encoding", encoding)]);
            assert_eq!(response.header("content-encoding"), Some(encoding), "{client:?}");
            assert_eq!(decoded(encoding, &response.body), Some(vec![]), "{client:?} {encoding}");
            // This upstream ends the stream with the header of its response. Pingora does not report this, see
            // docs/pingora.md.
            let response = edge.fetch(client, "GET", HOSTS[1], "/", &[("Accept-Encoding", encoding)]);
            assert_eq!((response.status, response.body.len()), (200, 0), "{client:?} {encoding}");
        }
    }
}

#[test]
fn a_websocket_and_the_replies_of_the_gateway_are_not_compressed() {
    let edge = Edge::in_front_of(Upstream::start(|_| Reply::echo()), H2Upstream::start(|_| H2Reply::new(200)));
    let mut socket = Connection::open(edge.gateway.address()).unwrap();
    let upgrade = [
        ("Host", HOSTS[0]),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Accept-Encoding", "gzip"),
    ];
    assert_eq!(socket.request("GET", "/", &upgrade, b"").unwrap().status, 101);
    socket.send(&json(5000)).unwrap();
    assert!(socket.receive(5000).unwrap() == json(5000));
    let refused = edge.fetch(Client::Http1, "GET", HOSTS[0], "/a/../b", &[("Accept-Encoding", "gzip")]);
    assert_eq!((refused.status, refused.header("content-encoding")), (400, None));
    edge.http_1.wait_for_hits(1);
}

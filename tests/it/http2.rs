//! HTTP/2 with clients and upstreams: forwarding, the translation to HTTP/1.1, and attacks on the protocol.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use h2::Reason;

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch, fetch_tls, own};
use crate::support::gateway::Gateway;
use crate::support::h2_client::{Frame, H2Client, H2Request, HPACK_LATEST, RawH2, hpack, hpack_indexed, reason};
use crate::support::h2_upstream::{H2Received, H2Reply, H2Upstream};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Received, Reply, Upstream};

/// The hosts of the service with an HTTP/1.1 upstream, and of the service with an HTTP/2 upstream.
const API: &str = "api.test";
const GRPC: &str = "grpc.test";
const ORIGIN: (&str, &str) = ("origin", "https://app.test");

/// A gateway with HTTP/2 clients, in front of an upstream of each version.
struct Edge {
    gateway: Gateway,
    http_1: Upstream,
    http_2: H2Upstream,
    tls: TlsClient,
}

impl Edge {
    /// A gateway with these `limits`; the closures are the upstreams.
    fn start(
        limits: &str,
        http_1: impl Fn(&Received) -> Reply + Send + Sync + 'static,
        http_2: impl Fn(&H2Received) -> H2Reply + Send + Sync + 'static,
    ) -> Self {
        let (http_1, http_2) = (Upstream::start(http_1), H2Upstream::start(http_2));
        let authority = Authority::new("authority");
        let config = format!(
            "
listeners:
  - address: \"{{listen}}\"
    tls: {{ certificates: [{{ cert: tls/edge.crt, key: tls/edge.key }}] }}
limits: {{ {limits} }}
cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT], expose_headers: [grpc-status] }}
services:
  - name: api
    hosts: [{API}]
    upstream: {{ nodes: [{{ address: \"{}\" }}], timeouts: {{ connect: 1s, write: 1s }} }}
  - {{ name: grpc, hosts: [{GRPC}], upstream: {{ nodes: [{{ address: \"{}\" }}], http2: true }} }}
",
            http_1.address(),
            http_2.address(),
        );
        let gateway = Gateway::start_with_files(&config, &authority.issue(&[API, GRPC]).files("tls/edge"));
        Self { gateway, http_1, http_2, tls: TlsClient::new(&authority, API) }
    }

    /// A gateway whose upstreams answer with the target of the request.
    fn plain(limits: &str) -> Self {
        Self::start(
            limits,
            |request| Reply::new(200).body(request.target.as_str()),
            |request| H2Reply::new(200).body(request.path.as_str()),
        )
    }

    fn client(&self) -> H2Client {
        H2Client::open(self.gateway.address(), &self.tls).unwrap()
    }

    fn raw(&self, settings: &[(u16, u32)]) -> RawH2 {
        RawH2::open(self.gateway.address(), &self.tls, settings).unwrap()
    }
}

fn get(authority: &str, path: &str) -> H2Request {
    H2Request::new("GET", authority, path).header(ORIGIN.0, ORIGIN.1)
}

fn post(authority: &str, path: &str) -> H2Request {
    H2Request::new("POST", authority, path).header(ORIGIN.0, ORIGIN.1)
}

#[track_caller]
fn assert_readable(response: &Response) {
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(response.header("vary"), Some("Origin"));
}

/// A body in which every part shows its position.
fn large() -> Vec<u8> {
    (0u32..).flat_map(u32::to_be_bytes).take(1 << 20).collect()
}

// --- forwarding

#[test]
fn an_http_2_request_is_translated_for_an_http_1_upstream() {
    let edge = Edge::plain("");
    let request = get(API, "/a?b").header("cookie", "a=1").header("cookie", "b=2").header("cookie", "c=3; d=4");
    let response = edge.client().request(&request.header("x-own", "1").header("te", "trailers")).unwrap();
    assert_eq!((response.status, response.text()), (200, "/a?b"));
    assert_readable(&response);
    let request = edge.http_1.received().pop().unwrap();
    assert_eq!((request.method.as_str(), request.header("Host")), ("GET", Some(API)));
    // HTTP/1.1 allows one Cookie field only (RFC 9113 section 8.2.3).
    assert_eq!(request.header("Cookie"), Some("a=1; b=2; c=3; d=4"));
    assert_eq!(request.header("X-Own"), Some("1"));
    // TE is about one connection, and the gateway's connection does not announce trailers.
    assert_eq!(request.header("TE"), None);
    assert!(request.headers.iter().all(|(name, _)| !name.starts_with(':')), "{:?}", request.headers);
}

#[test]
fn an_http_2_request_is_forwarded_unchanged_to_an_http_2_upstream() {
    let edge = Edge::plain("");
    let request = post(GRPC, "/a?b").header("cookie", "a=1").header("cookie", "b=2").data("body");
    let response = edge.client().request(&request).unwrap();
    assert_eq!((response.status, response.text()), (200, "/a?b"));
    assert_readable(&response);
    let request = edge.http_2.received().pop().unwrap();
    assert_eq!((request.method.as_str(), request.authority.as_deref()), ("POST", Some(GRPC)));
    assert_eq!((request.path.as_str(), &request.body[..]), ("/a?b", &b"body"[..]));
    assert_eq!(request.all("cookie").join("; "), "a=1; b=2");
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    // `:authority` is the host. A Host field could only contradict it.
    assert!(request.all("host").iter().all(|host| *host == GRPC), "{:?}", request.headers);
}

#[test]
fn large_bodies_pass_whole_in_both_directions() {
    let edge = Edge::start(
        "",
        |request| Reply::new(200).body(request.body.clone()),
        |request| H2Reply::new(200).body(request.body.clone()),
    );
    let client = edge.client();
    for authority in [API, GRPC] {
        let response = client.request(&post(authority, "/").data(large())).unwrap();
        assert!(response.body == large(), "{authority}: {} bytes", response.body.len());
        let length = large().len().to_string();
        let response = client.request(&post(authority, "/").header("content-length", &length).data(large())).unwrap();
        assert!(response.body == large(), "{authority}, with its length: {} bytes", response.body.len());
    }
}

/// A body may end with its last bytes, with an empty frame, or with trailers. Trailers are not sent to HTTP/1.1
/// upstreams.
#[test]
fn an_http_2_body_is_complete_for_an_http_1_upstream() {
    let edge = Edge::plain("");
    let client = edge.client();
    for (request, body) in [
        (post(API, "/none"), ""),
        (post(API, "/only-empty").data(""), ""),
        (post(API, "/several-empty").data("").data("").data(""), ""),
        (post(API, "/whole").data("abc"), "abc"),
        (post(API, "/empty-end").data("abc").data(""), "abc"),
        (post(API, "/empty-between").data("").data("a").data("").data("bc").data(""), "abc"),
        (post(API, "/length").header("content-length", "3").data("abc"), "abc"),
        (post(API, "/length-empty-end").header("content-length", "3").data("abc").data(""), "abc"),
        (post(API, "/zero").header("content-length", "0"), ""),
        (post(API, "/zero-empty-end").header("content-length", "0").data(""), ""),
        (post(API, "/trailers").data("abc").trailer("x-end", "1"), "abc"),
        (post(API, "/trailers-empty").data("").trailer("x-end", "1"), ""),
    ] {
        edge.http_1.clear();
        let response = client.request(&request).unwrap_or_else(|error| panic!("{}: {error}", request.path));
        assert_eq!((response.status, response.text()), (200, request.path.as_str()));
        let [received] = &edge.http_1.received()[..] else { panic!("one request for {}", request.path) };
        assert_eq!(String::from_utf8_lossy(&received.body), body, "{}", request.path);
        assert!(received.all("Content-Length").len() <= 1, "{:?}", received.headers);
    }
}

#[test]
fn a_body_that_differs_from_its_content_length_is_not_forwarded_as_complete() {
    let edge = Edge::plain("");
    let client = edge.client();
    for (length, data) in [("5", "abc"), ("2", "abc"), ("x", "abc"), ("+3", "abc")] {
        let answer = client.request(&post(API, "/").header("content-length", length).data(data));
        assert!(answer.as_ref().is_err() || answer.is_ok_and(|response| response.status == 400), "{length}");
    }
    assert_eq!(edge.http_1.hits(), 0);
    assert_eq!(client.request(&get(API, "/after")).unwrap().status, 200);
}

#[test]
fn trailers_of_an_http_2_upstream_reach_an_http_2_client() {
    let edge = Edge::start(
        "",
        |_| Reply::new(200),
        |request| match request.path.as_str() {
            "/bare" => H2Reply::new(200).trailer("x-end", "1"),
            _ => H2Reply::new(200).body(request.body.clone()).trailer("x-end", "1").trailer("x-sum", "abc"),
        },
    );
    let client = edge.client();
    let response = client.request(&post(GRPC, "/").data("one").data("two")).unwrap();
    assert_eq!((response.status, response.text()), (200, "onetwo"));
    assert_eq!(response.trailers, own(&[("x-end", "1"), ("x-sum", "abc")]));
    assert_readable(&response);
    // Trailers without a body pass too.
    let response = client.request(&get(GRPC, "/bare")).unwrap();
    assert_eq!((response.text(), &response.trailers[..]), ("", &own(&[("x-end", "1")])[..]));
}

/// Pingora 0.9.1 does not read the trailers of a request. A gateway may drop them (RFC 9110 section 6.5.1), and gRPC
/// requests have none. But the body and its end must not be lost.
#[test]
fn trailers_of_a_request_end_its_body() {
    let edge = Edge::start("", |_| Reply::new(200), |request| H2Reply::new(200).body(request.body.clone()));
    let request = post(GRPC, "/").data("one").data("two").trailer("x-end", "1");
    let response = edge.client().request(&request).unwrap();
    assert_eq!((response.status, response.text()), (200, "onetwo"));
    let trailers = &edge.http_2.received()[0].trailers;
    assert!(trailers.is_empty() || *trailers == own(&[("x-end", "1")]), "{trailers:?}");
}

#[test]
fn a_url_of_another_scheme_is_refused() {
    let edge = Edge::plain("");
    for (scheme, status) in [("https", 200), ("http", 200), ("ftp", 400), ("ws", 400)] {
        let request = H2Request { scheme: Some(scheme), ..get(API, "/") };
        let response = edge.client().request(&request).unwrap();
        assert_eq!((response.status, scheme), (status, scheme));
        assert_eq!(response.header("access-control-allow-origin"), Some(ORIGIN.1), "{scheme}");
    }
}

#[test]
fn grpc_status_and_trailers_are_forwarded() {
    let edge = Edge::start(
        "",
        |_| Reply::new(200),
        |request| {
            let reply = H2Reply::new(200).header("content-type", "application/grpc");
            match request.path.as_str() {
                "/test.Echo/Say" => {
                    reply.body(request.body.clone()).trailer("grpc-status", "0").trailer("grpc-message", "")
                }
                // Trailers-Only: the response has nothing but its headers.
                _ => reply.header("grpc-status", "12").header("grpc-message", "no such method"),
            }
        },
    );
    let client = edge.client();
    let call = |method: &str| {
        let request = post(GRPC, method).header("content-type", "application/grpc").header("te", "trailers");
        client.request(&request.header("grpc-timeout", "5S").data(&b"\0\0\0\0\x05hello"[..])).unwrap()
    };
    let echo = call("/test.Echo/Say");
    assert_eq!((echo.status, &echo.body[..]), (200, &b"\0\0\0\0\x05hello"[..]));
    assert_eq!(echo.trailers, own(&[("grpc-status", "0"), ("grpc-message", "")]));
    assert_readable(&echo);
    let failed = call("/test.Echo/Shout");
    assert_eq!((failed.status, failed.header("grpc-status")), (200, Some("12")));
    assert_eq!((failed.header("grpc-message"), failed.text(), failed.trailers.len()), (Some("no such method"), "", 0));
    assert_eq!(failed.header("access-control-expose-headers"), Some("grpc-status"));
    assert_readable(&failed);
    for request in edge.http_2.received() {
        // Servers refuse calls without TE.
        assert_eq!(request.header("te"), Some("trailers"));
        assert_eq!(request.header("content-type"), Some("application/grpc"));
        assert_eq!(request.header("grpc-timeout"), Some("5S"));
    }
}

/// gRPC clients ignore `grpc-status` in a header that does not end the stream, and cannot read other forms of errors.
#[test]
fn an_error_of_the_gateway_is_a_grpc_status_for_grpc_calls() {
    let edge = Edge::start("body: 1KiB", |_| Reply::new(200), |_| H2Reply::reset(Reason::INTERNAL_ERROR));
    let client = edge.client();
    let cases = [
        (GRPC, "/test.Echo/Say", 10, "14", "No valid response from the upstream."),
        (GRPC, "/test.Echo/Say", 1025, "2", "The request body is too large."),
        (
            GRPC,
            "/a%2fb",
            10,
            "13",
            "The path is ambiguous: dot segments, encoded slashes, backslashes and NULs are not allowed.",
        ),
    ];
    for (host, path, size, status, message) in cases {
        for content_type in ["application/grpc", "application/grpc-web+proto"] {
            let request = post(host, path).header("content-type", content_type).data(vec![0; size]);
            let (response, body) = client.begin(&request).unwrap().head().unwrap();
            assert_eq!((response.status, response.header("content-type")), (200, Some(content_type)), "{message}");
            assert_eq!(response.header("grpc-status"), Some(status), "{message}");
            assert_eq!(response.header("grpc-message"), Some(message));
            assert!(body.is_end_stream(), "{message}: the header does not end the stream");
            assert_readable(&response);
        }
        // Other clients get the usual error.
        let response =
            client.request(&post(host, path).header("content-type", "text/plain").data(vec![0; size])).unwrap();
        assert!(response.status >= 400, "{response:?}");
        assert_eq!(response.header("grpc-status"), None);
    }
}

/// Servers like IIS and lighttpd answer 411 to a POST without a length (RFC 9110 section 8.6).
#[test]
fn a_request_without_a_body_has_length_0_if_its_method_has_bodies() {
    let edge = Edge::plain("");
    let client = edge.client();
    for (method, length) in
        [("POST", Some("0")), ("PUT", Some("0")), ("PATCH", Some("0")), ("GET", None), ("DELETE", None)]
    {
        assert_eq!(client.request(&H2Request::new(method, API, "/")).unwrap().status, 200, "{method}");
        assert_eq!(fetch_tls(edge.gateway.address(), &edge.tls, method, "/", &[("Host", API)]).status, 200, "{method}");
        for request in edge.http_1.received() {
            assert_eq!(request.all("Content-Length"), Vec::from_iter(length), "{method}");
            assert_eq!(request.header("Transfer-Encoding"), None, "{method}");
        }
        edge.http_1.clear();
    }
    // A body without a length and a given length do not change.
    client.request(&post(API, "/").data("body")).unwrap();
    client.request(&post(API, "/").header("content-length", "0")).unwrap();
    let received = edge.http_1.received();
    assert_eq!((received[0].header("Content-Length"), &received[0].body[..]), (None, &b"body"[..]));
    assert_eq!(received[1].all("Content-Length"), ["0"]);
}

#[test]
fn a_stream_reset_by_the_upstream_gives_502_with_cors_headers() {
    let edge = Edge::start("", |_| Reply::new(200), |_| H2Reply::reset(Reason::INTERNAL_ERROR));
    let response = edge.client().request(&post(GRPC, "/").data("body")).unwrap();
    assert_eq!(response.status, 502);
    assert_readable(&response);
}

#[test]
fn the_response_to_head_has_a_length_and_no_body() {
    let edge = Edge::start("", |_| Reply::new(200).header("content-length", "8"), |_| H2Reply::new(200));
    let response = edge.client().request(&H2Request::new("HEAD", API, "/")).unwrap();
    assert_eq!((response.status, response.header("content-length"), response.text()), (200, Some("8"), ""));
}

#[test]
fn a_local_reply_to_head_has_no_body() {
    let edge = Edge::start("", |_| Reply::reset(), |_| H2Reply::new(200));
    // A client without SNI may ask for any host.
    let client = H2Client::open(edge.gateway.address(), &edge.tls.clone().without_sni()).unwrap();
    for (status, authority, path) in [(400, API, "/a/../b"), (404, "unknown.test", "/"), (502, API, "/")] {
        let response = client.request(&H2Request::new("HEAD", authority, path)).unwrap();
        assert_eq!((response.status, response.text()), (status, ""), "{authority}{path}");
    }
}

#[test]
fn hop_by_hop_fields_do_not_reach_an_http_2_client() {
    let edge = Edge::start(
        "",
        |_| {
            let reply = Reply::new(200).header("Connection", "X-Hop").header("X-Hop", "1");
            reply.header("Keep-Alive", "timeout=5").header("X-Kept", "1").body("body")
        },
        |_| H2Reply::new(200),
    );
    // The client refuses a response with one of these fields (RFC 9113 section 8.2.2).
    let response = edge.client().request(&get(API, "/")).unwrap();
    assert_eq!((response.header("x-hop"), response.header("x-kept"), response.text()), (None, Some("1"), "body"));
}

// --- concurrent streams

/// The responses of a connection to a node share its flow-control window.
#[test]
fn a_client_that_reads_nothing_stops_no_other_response_of_the_connection_to_a_node() {
    let upstream = H2Upstream::start(|request| match request.path.as_str() {
        "/large" => H2Reply::new(200).body(vec![b'x'; 40_000_000]),
        _ => H2Reply::new(200).body("small"),
    });
    let gateway = Gateway::start(&format!(
        "listeners: [{{ address: '{{listen}}' }}]\nserver: {{ threads: 1 }}\nservices: [{{ name: a, upstream: {{ http2: true, \
         nodes: [{{ address: '{}' }}] }} }}]\n",
        upstream.address()
    ));
    let mut slow: Vec<Connection> = (0..5).map(|_| Connection::open(gateway.address()).unwrap()).collect();
    for connection in &mut slow {
        connection.send(b"GET /large HTTP/1.1\r\nHost: h.test\r\n\r\n").unwrap();
        connection.receive(12).unwrap();
    }
    // The first may arrive before the windows are full.
    for _ in 0..20 {
        let response = fetch(gateway.address(), "GET", "/small", &[("Host", "h.test")]);
        assert_eq!((response.status, response.text()), (200, "small"));
        thread::sleep(Duration::from_millis(50));
    }
    let connections: BTreeSet<_> = upstream.received().iter().map(|received| received.connection).collect();
    assert_eq!(connections.len(), 1, "they share a connection");
}

#[test]
fn the_requests_of_one_connection_run_concurrently() {
    let edge = Edge::start(
        "",
        |request| Reply::new(200).body(request.target.as_str()).after(Duration::from_millis(100)),
        |request| H2Reply::new(200).body(request.path.as_str()).after(Duration::from_millis(100)),
    );
    let client = edge.client();
    let started = Instant::now();
    for authority in [API, GRPC] {
        let pending: Vec<_> = (0..80).map(|n| client.begin(&get(authority, &format!("/{n}"))).unwrap()).collect();
        for (n, pending) in pending.into_iter().enumerate() {
            let response = pending.finish().unwrap();
            assert_eq!((response.status, response.text()), (200, format!("/{n}").as_str()));
            assert_readable(&response);
        }
    }
    // Sequential requests would take 16 s.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn settings_announce_the_limit_of_streams() {
    for (limits, expected) in [("", 100), ("streams: 5", 5)] {
        let edge = Edge::plain(limits);
        let settings = edge.raw(&[]).read_until(Frame::SETTINGS).unwrap();
        let of_streams = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).map(|setting| &setting[2..]);
        assert_eq!(of_streams, Some(&u32::to_be_bytes(expected)[..]), "{limits}");
        // After the client has received SETTINGS, streams over the limit wait in the client and are then served.
        let client = edge.client();
        assert_eq!(client.request(&get(API, "/")).unwrap().status, 200);
        let pending: Vec<_> = (0..20).map(|_| client.begin(&get(API, "/")).unwrap()).collect();
        assert!(pending.into_iter().all(|pending| pending.finish().unwrap().status == 200));
    }
}

// --- refusals and limits

#[test]
fn a_request_over_a_size_limit_gets_413_414_or_431_with_cors_headers() {
    let edge = Edge::plain("body: 1KiB, uri: 1KiB, headers: 8KiB, header_count: 20");
    let client = edge.client();
    let many = (0..30).fold(get(API, "/"), |request, n| request.header(&format!("x-{n}"), "1"));
    for (status, request) in [
        (413, post(API, "/").header("content-length", "2000").data(vec![b'a'; 2000])),
        (413, post(API, "/").data(vec![b'a'; 2000])),
        (413, post(API, "/").data(vec![b'a'; 1000]).data(vec![b'a'; 1000]).trailer("x-end", "1")),
        (413, post(GRPC, "/").data(vec![b'a'; 2000])),
        (414, get(API, &format!("/{}", "a".repeat(2000)))),
        (431, get(API, "/").header("x-large", &"a".repeat(9000))),
        (431, many),
    ] {
        let response = client.request(&request).unwrap();
        assert_eq!(response.status, status, "{request:?}");
        assert_readable(&response);
    }
    // Other streams of the connection are not affected.
    assert_eq!(client.request(&post(API, "/").data(vec![b'a'; 1024])).unwrap().status, 200);
    assert_eq!((edge.http_1.hits(), edge.http_2.hits()), (1, 0));
}

#[test]
fn a_host_that_differs_from_the_authority_is_refused() {
    let edge = Edge::plain("");
    let client = edge.client();
    let answer = client.request(&get(API, "/").header("host", "evil.test"));
    assert!(answer.as_ref().is_err() || answer.is_ok_and(|response| response.status == 400));
    assert_eq!(edge.http_1.hits(), 0);
    // A Host that equals the authority is allowed.
    assert_eq!(client.request(&get(API, "/").header("host", API)).unwrap().status, 200);
}

#[test]
fn an_idle_connection_is_closed_after_limits_keepalive() {
    let edge = Edge::plain("keepalive: 1s");
    let mut client = edge.client();
    let begin = Instant::now();
    client.request(&get(API, "/")).unwrap();
    assert!(client.closed());
    assert!(begin.elapsed() >= Duration::from_millis(800), "closed after {:?}", begin.elapsed());
}

#[test]
fn stream_idle_resets_only_the_idle_stream() {
    let edge = Edge::start(
        "stream_idle: 1s",
        |request| match request.target.as_str() {
            "/hang" => Reply::hang(),
            _ => Reply::new(200),
        },
        |_| H2Reply::new(200),
    );
    let client = edge.client();
    let started = Instant::now();
    let error = client.request(&get(API, "/hang")).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(reason(&error).is_some(), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(800), "reset after {:?}", started.elapsed());
    assert_eq!(client.request(&get(API, "/")).unwrap().status, 200);
}

#[test]
fn a_stalled_request_body_is_reset_after_body_timeout() {
    let edge = Edge::plain("body_timeout: 1s");
    let client = edge.client();
    let started = Instant::now();
    let (pending, _never_sent) = client.begin_headers(&post(API, "/"), false).unwrap();
    // Pingora cannot write a response here. The reset shows the client that the request was not processed.
    let error = pending.finish().unwrap_err();
    assert!(reason(&error).is_some(), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(800), "given up after {:?}", started.elapsed());
    assert_eq!(client.request(&get(API, "/")).unwrap().status, 200);
}

// --- attacks

/// The header of a GET for a path of the API, in the simplest form of HPACK.
fn head(path: &str) -> Vec<u8> {
    hpack(&[(":method", "GET"), (":scheme", "https"), (":authority", API), (":path", path)])
}

impl Edge {
    /// Runs an attack and a usual client at the same time. Each request of the client must be answered, on kept
    /// connections and on new ones, and the process must not grow by more than `most` MiB.
    #[track_caller]
    fn withstands(&self, attack: &str, most: u64, run: impl FnOnce() + Send) {
        let (client, path) = (self.client(), "/behaved");
        let behave = || {
            assert_eq!(client.request(&get(API, path)).unwrap().text(), path, "during {attack}");
            assert_eq!(self.client().request(&get(API, path)).unwrap().text(), path, "during {attack}");
            let fields = [("Host", API)];
            let response = fetch_tls(self.gateway.address(), &self.tls, "GET", path, &fields);
            assert_eq!(response.text(), path, "during {attack}");
        };
        // Memory for usual requests is not growth of the attack.
        (0..20).for_each(|_| behave());
        let before = self.gateway.memory();
        let (mut most_seen, mut rounds) = (before, 0);
        thread::scope(|scope| {
            let attacker = scope.spawn(run);
            loop {
                let over = attacker.is_finished();
                behave();
                rounds += 1;
                most_seen = most_seen.max(self.gateway.memory());
                if over {
                    break;
                }
            }
        });
        let grown = most_seen.saturating_sub(before) >> 10;
        println!("{attack}: {before} KiB before, {grown} MiB more at most, {rounds} rounds of other requests");
        assert!(grown < most, "{attack}: {grown} MiB more than the {} MiB before", before >> 10);
    }
}

/// Sends the parts until the server stops reading. Returns whether the server has read all of them.
fn pour(raw: &mut RawH2, parts: impl IntoIterator<Item = Vec<u8>>) -> bool {
    raw.patience(Duration::from_secs(2));
    parts.into_iter().all(|part| raw.send(&part).is_ok())
}

/// CVE-2023-44487.
#[test]
fn a_rapid_reset_attack_does_not_affect_other_clients() {
    let edge = Edge::plain("");
    edge.withstands("rapid reset", 96, || {
        for _ in 0..3 {
            let stream = |id: u32| {
                let open = Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, id, head("/reset"));
                let cancel = Frame::new(Frame::RST_STREAM, 0, id, 8u32.to_be_bytes());
                [open.bytes(), cancel.bytes()].concat()
            };
            let batches = (0..200).map(|batch| (0..100).flat_map(|n| stream(2 * (100 * batch + n) + 1)).collect());
            let mut raw = edge.raw(&[]);
            if pour(&mut raw, batches) {
                raw.settle();
            }
        }
    });
}

/// CVE-2024-27316 and similar: a header that never ends, in large frames and in empty frames.
#[test]
fn endless_continuation_frames_are_cut_off() {
    let edge = Edge::plain("");
    edge.withstands("CONTINUATION flood", 64, || {
        let full = hpack(&[("x-flood", &"a".repeat(16_000))]);
        for (payload, each, batches) in [(full, 1, 4_000), (Vec::new(), 1_000, 1_000)] {
            let mut raw = edge.raw(&[]);
            let begin = Frame::new(Frame::HEADERS, Frame::END_STREAM, 1, head("/flood")).bytes();
            let more = Frame::new(Frame::CONTINUATION, 0, 1, payload).bytes().repeat(each);
            let all = pour(&mut raw, std::iter::once(begin).chain(std::iter::repeat_n(more, batches)));
            assert!(!all, "the server took {each} x {batches} frames");
        }
    });
    assert!(edge.http_1.received().iter().all(|request| request.target != "/flood"));
}

/// An HPACK bomb: one field of 4 KB in the dynamic table, and one byte for each repetition. A frame of 16 KB expands to
/// 64 MB.
#[test]
fn an_hpack_bomb_is_refused() {
    let edge = Edge::plain("");
    for (attack, name) in [("HPACK bomb", "x-bomb"), ("cookie bomb", "cookie")] {
        edge.withstands(attack, 64, || {
            let mut raw = edge.raw(&[]);
            let value = "a".repeat(3_900);
            let first = [head("/bomb"), hpack_indexed(name, &value), vec![HPACK_LATEST; 12_000]].concat();
            let again = [head("/bomb"), vec![HPACK_LATEST; 16_000]].concat();
            let blocks = std::iter::once(first).chain(std::iter::repeat_n(again, 99));
            let frames = (0..).zip(blocks).map(|(n, block)| {
                Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, 2 * n + 1, block).bytes()
            });
            if pour(&mut raw, frames) {
                raw.settle();
            }
        });
    }
    assert!(edge.http_1.received().iter().all(|request| request.target != "/bomb"));
}

/// CVE-2019-9517 and slow readers: the client requests many large responses and reads none of them.
#[test]
fn a_client_with_a_closed_window_is_cut_off_and_holds_little_memory() {
    const STREAMS: u32 = 40;
    let edge = Edge::start(
        "send_timeout: 1s",
        |request| match request.target.as_str() {
            "/large" => Reply::new(200).body(vec![b'a'; 2 << 20]),
            target => Reply::new(200).body(target),
        },
        |_| H2Reply::new(200),
    );
    edge.withstands("stalled window", 48, || {
        // SETTINGS_INITIAL_WINDOW_SIZE = 0: the server may not send a byte of a body.
        let mut raw = edge.raw(&[(4, 0)]);
        raw.patience(Duration::from_secs(10));
        for n in 0..STREAMS {
            let flags = Frame::END_HEADERS | Frame::END_STREAM;
            raw.send(&Frame::new(Frame::HEADERS, flags, 2 * n + 1, head("/large")).bytes()).unwrap();
        }
        let mut open: BTreeSet<u32> = (0..STREAMS).map(|n| 2 * n + 1).collect();
        while !open.is_empty() {
            match raw.read() {
                Ok(frame) if frame.kind == Frame::RST_STREAM => drop(open.remove(&frame.stream)),
                Ok(frame) => assert!(frame.kind != Frame::DATA || frame.payload.is_empty(), "data without a window"),
                // A timeout does not end the connection.
                Err(error) => {
                    let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    assert!(!waits, "{} streams are still open", open.len());
                    break;
                }
            }
        }
    });
    // The upstream connections of the responses are closed too.
    edge.http_1.wait_for_closed(STREAMS as usize);
}

/// CVE-2019-9512 and CVE-2019-9515: every frame requires an answer, and the client reads none of them.
#[test]
fn floods_of_pings_and_settings_do_not_affect_other_clients() {
    let edge = Edge::plain("");
    edge.withstands("pings and settings", 64, || {
        for frame in [Frame::new(Frame::PING, 0, 0, [7; 8]), Frame::new(Frame::SETTINGS, 0, 0, [])] {
            pour(&mut edge.raw(&[]), std::iter::repeat_n(frame.bytes().repeat(1_000), 500));
        }
    });
}

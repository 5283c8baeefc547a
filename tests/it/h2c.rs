//! Tests HTTP/2 without TLS. A plain listener with `http2` detects the protocol from the first bytes of a connection.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, fetch};
use crate::support::gateway::{Gateway, Signal};
use crate::support::h2_client::{Frame, H2Client, H2Request, PREFACE, RawH2, hpack};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::process::{PROCESS_TIMEOUT, poll};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n";

/// Returns a configuration with these listener keys and these limits. `more` has other top-level keys.
fn config(listener: &str, limits: &str, more: &str, upstream: SocketAddr) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\"{listener} }}]
limits: {{ {limits} }}
{more}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT] }}
"
    )
}

/// Starts a gateway that accepts HTTP/2 without TLS, and an upstream. The upstream answers with the method, the
/// client's address and the scheme.
fn start(listener: &str, limits: &str, more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(|request| {
        let [client, scheme] = ["X-Forwarded-For", "X-Forwarded-Proto"].map(|name| request.header(name).unwrap());
        Reply::new(200).body(format!("{} {client} {scheme}", request.method))
    });
    let gateway = Gateway::start(&config(&format!(", http2: true{listener}"), limits, more, upstream.address()));
    (upstream, gateway)
}

fn get(path: &str) -> H2Request {
    H2Request::new("GET", "api.test", path)
}

#[test]
fn both_versions_are_served_on_one_port_with_the_same_policy() {
    let (_upstream, gateway) = start("", "", "access_log: { to: access.log }");
    let client = H2Client::open_plain(gateway.address()).unwrap();
    for _ in 0..2 {
        let http_1 = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN]);
        let http_2 = client.request(&get("/").header("origin", ORIGIN.1)).unwrap();
        assert_eq!([&http_1, &http_2].map(|response| response.text()), ["GET 127.0.0.1 http"; 2]);
        for response in [http_1, http_2] {
            assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1), "{response:?}");
        }
        let preflight = H2Request::new("OPTIONS", "api.test", "/")
            .header("origin", ORIGIN.1)
            .header("access-control-request-method", "PUT");
        let response = client.request(&preflight).unwrap();
        assert_eq!((response.status, response.header("Access-Control-Allow-Methods")), (200, Some("GET, PUT")));
    }
    let log = gateway.wait_for_access_log(6);
    assert_eq!(log.iter().filter(|line| line.contains("\"protocol\":\"HTTP/2\"")).count(), 4, "{log:#?}");
}

/// The preface has 24 bytes, but a complete request can be shorter.
#[test]
fn a_request_that_is_shorter_than_the_preface_is_answered_at_once() {
    let (_upstream, gateway) = start("", "header_timeout: 30s", "");
    for (request, method) in [
        (&b"GET / HTTP/1.0\r\n\r\n"[..], "GET"),
        (b"P / HTTP/1.0\r\n\r\n", "P"),
        (b"PRI / HTTP/1.0\r\n\r\n", "PRI"),
        // This request begins like the preface, but is HTTP/1.0.
        (b"PRI * HTTP/1.0\r\n\r\n", ""),
    ] {
        let begin = Instant::now();
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(request).unwrap();
        let response = connection.read("GET").unwrap();
        match method {
            "" => assert_eq!(response.status, 400),
            method => assert_eq!(response.text(), format!("{method} 127.0.0.1 http")),
        }
        assert!(begin.elapsed() < Duration::from_secs(15), "{}", request.escape_ascii());
    }
}

#[test]
fn the_first_bytes_may_come_in_pieces() {
    let (_upstream, gateway) = start("", "header_timeout: 20s", "");
    let settings = Frame::new(Frame::SETTINGS, 0, 0, []).bytes();
    for cut in [1, 3, 16, 23, 24, 27] {
        let bytes = [PREFACE, &settings].concat();
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(&bytes[..cut]).unwrap();
        thread::sleep(Duration::from_millis(20));
        connection.send(&bytes[cut..]).unwrap();
        let received = connection.receive(9).unwrap();
        assert_eq!(received[3], Frame::SETTINGS, "cut at {cut}");
    }
    let mut single = Connection::open(gateway.address()).unwrap();
    for byte in GET.chunks(1) {
        single.send(byte).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(single.read("GET").unwrap().text(), "GET 127.0.0.1 http");
    // A later request on the connection may begin like the preface.
    let response = single.request("PRI", "/", &[HOST], b"").unwrap();
    assert_eq!(response.text(), "PRI 127.0.0.1 http");
}

#[test]
fn bytes_that_differ_from_the_preface_are_no_http_2() {
    let (upstream, gateway) = start("", "", "");
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\n\r\n\r\n\r\n\r\n",
        b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: api.test\r\n\r\n",
    ] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(bytes).unwrap();
        assert_eq!(connection.read("GET").unwrap().status, 505, "{}", bytes.escape_ascii());
        assert!(connection.closed());
    }
    // A second preface is a protocol error.
    let mut raw = RawH2::open_plain(gateway.address(), &[]).unwrap();
    let _ = raw.send(PREFACE);
    assert!(raw.read_until(Frame::DATA).is_err());
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn an_incomplete_preface_gets_408_and_a_silent_connection_is_closed() {
    let (upstream, gateway) = start("", "header_timeout: 1s", "");
    let begin = Instant::now();
    let connections: Vec<_> = (0..PREFACE.len())
        .map(|cut| {
            let mut connection = Connection::open(gateway.address()).unwrap();
            connection.send(&PREFACE[..cut]).unwrap();
            (cut, connection)
        })
        .collect();
    for (cut, mut connection) in connections {
        let status = match cut {
            0 => None,
            1..18 => Some(408),
            // The first 18 bytes are a complete HTTP/1 header.
            _ => Some(505),
        };
        assert_eq!(connection.read("GET").ok().map(|response| response.status), status, "{cut} bytes");
        assert!(connection.closed(), "{cut} bytes");
        let took = begin.elapsed();
        assert!((Duration::from_millis(800)..Duration::from_secs(6)).contains(&took), "{cut} bytes: {took:?}");
    }
    let mut silent = H2Client::open_plain(gateway.address()).unwrap();
    assert!(silent.closed(), "no request in header_timeout");
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_client_that_closes_within_the_preface_is_not_waited_for() {
    let (upstream, gateway) = start("", "header_timeout: 60s", "");
    for cut in [0, 5, 20] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(&PREFACE[..cut]).unwrap();
        connection.close_sending().unwrap();
        match connection.read("GET") {
            // The first 18 bytes are a complete HTTP/1 header.
            Ok(response) => assert_eq!((cut, response.status), (20, 505)),
            Err(error) => assert_ne!(error.kind(), ErrorKind::TimedOut, "{cut} bytes"),
        }
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn without_the_key_the_preface_gets_505_and_a_reload_changes_that() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let text = |http2| config(&format!(", http2: {http2}"), "", "", upstream.address());
    let gateway = Gateway::start(&text(false));
    let answer = || {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(PREFACE).unwrap();
        connection.read("GET").map(|response| response.status).ok()
    };
    assert_eq!(answer(), Some(505));
    gateway.reload_with(&text(true));
    gateway.wait_for_log("reloaded generation=2");
    let client = H2Client::open_plain(gateway.address()).unwrap();
    assert_eq!(client.request(&get("/")).unwrap().status, 200);
    gateway.reload_with(&text(false));
    gateway.wait_for_log("reloaded generation=3");
    // The protocol of an open connection does not change.
    assert_eq!(client.request(&get("/")).unwrap().status, 200);
    assert_eq!(answer(), Some(505));
}

#[test]
fn a_proxy_header_comes_before_the_preface() {
    let more = "trusted_proxies: [127.0.0.1]";
    let (_upstream, gateway) = start(", proxy_protocol: true", "header_timeout: 2s", more);
    let pair = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
    let binary = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &pair].concat();
    for header in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n"[..], &binary] {
        let client = H2Client::open_plain_after(gateway.address(), header).unwrap();
        assert_eq!(client.request(&get("/")).unwrap().text(), "GET 192.0.2.7 http");
        // PROXY header, preface and request in one packet.
        let head = hpack(&[(":method", "GET"), (":scheme", "http"), (":authority", "api.test"), (":path", "/")]);
        let request = Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, 1, head).bytes();
        let settings = Frame::new(Frame::SETTINGS, 0, 0, []).bytes();
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(&[header, PREFACE, &settings, &request].concat()).unwrap();
        assert_eq!(connection.receive(9).unwrap()[3], Frame::SETTINGS);
        // HTTP/1 after the same PROXY header.
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(&[header, GET].concat()).unwrap();
        assert_eq!(connection.read("GET").unwrap().text(), "GET 192.0.2.7 http");
    }
    assert!(H2Client::open_plain(gateway.address()).and_then(|client| client.request(&get("/"))).is_err());
}

#[test]
fn limits_of_http_2_hold_as_over_tls() {
    let limits = "streams: 5, headers: 8KiB, uri: 1KiB, body: 1KiB, keepalive: 1s, stream_idle: 1s";
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/hang" => Reply::hang(),
        _ => Reply::new(200),
    });
    let gateway = Gateway::start(&config(", http2: true", limits, "", upstream.address()));
    let settings = RawH2::open_plain(gateway.address(), &[]).unwrap().read_until(Frame::SETTINGS).unwrap();
    assert!(settings.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 5]), "{settings:?}");
    let mut client = H2Client::open_plain(gateway.address()).unwrap();
    for (status, request) in [
        (413, H2Request::new("PUT", "api.test", "/").data(vec![b'a'; 2000])),
        (414, get(&format!("/{}", "a".repeat(2000)))),
        (431, get("/").header("x-large", &"a".repeat(9000))),
        (400, get("/a%2fb")),
        (400, H2Request { scheme: Some("ftp"), ..get("/") }),
    ] {
        let response = client.request(&request.header("origin", ORIGIN.1)).unwrap();
        assert_eq!(response.status, status);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1));
    }
    assert!(client.request(&get("/hang")).is_err(), "stream_idle");
    assert_eq!(client.request(&get("/")).unwrap().status, 200);
    assert!(client.closed(), "keepalive");
}

#[test]
fn connections_end_gracefully_at_their_age_and_at_the_shutdown() {
    let (_upstream, mut gateway) = start("", "connection_age: 2s", "");
    let [mut old, mut other] = [(); 2].map(|()| H2Client::open_plain(gateway.address()).unwrap());
    assert_eq!(old.request(&get("/")).unwrap().status, 200);
    assert!(old.closed());
    assert_eq!(H2Client::open_plain(gateway.address()).unwrap().request(&get("/")).unwrap().status, 200);
    // A connection with an incomplete preface does not delay the exit.
    let mut half = Connection::open(gateway.address()).unwrap();
    half.send(&PREFACE[..5]).unwrap();
    let begin = Instant::now();
    gateway.signal(Signal::Term);
    assert!(gateway.exit().success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(other.closed() && half.closed());
}

#[test]
fn a_connection_over_the_limit_gets_503_over_http_2_too() {
    let (_upstream, gateway) = start("", "connections: 1", "");
    // The test connects to the gateway to wait for its start. This connection may still be open.
    let open = || {
        let client = H2Client::open_plain(gateway.address()).unwrap();
        (client.request(&get("/")).unwrap().status == 200).then_some(client)
    };
    let _first = poll(PROCESS_TIMEOUT, open).expect("a connection within the limit");
    let second = H2Client::open_plain(gateway.address()).unwrap();
    let response = second.request(&get("/").header("origin", ORIGIN.1)).unwrap();
    assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (503, Some(ORIGIN.1)));
}

#[test]
fn a_grpc_call_passes_with_its_trailers() {
    let upstream = H2Upstream::start(|_| {
        H2Reply::new(200).header("content-type", "application/grpc").body("answer").trailer("grpc-status", "0")
    });
    let text = config(", http2: true", "", "", upstream.address()).replace(" }] }", " }], http2: true }");
    let gateway = Gateway::start(&text);
    let client = H2Client::open_plain(gateway.address()).unwrap();
    let call = H2Request::new("POST", "api.test", "/test.Echo/Say").header("content-type", "application/grpc");
    let response = client.request(&call.header("te", "trailers").data("question")).unwrap();
    assert_eq!((response.status, response.text()), (200, "answer"));
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
}

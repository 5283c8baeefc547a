//! Limits of a client's time, bytes and connections, and the client's address behind a load balancer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::Gateway;
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
/// A complete request.
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\n\r\n";
/// Extra time for a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// A configuration with these keys of the listener, these limits, and a policy.
fn config(listener: &str, limits: &str, more: &str, upstream: SocketAddr) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\"{listener} }}]
limits: {{ {limits} }}
{more}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, POST] }}
"
    )
}

/// An upstream that answers with the X-Forwarded-For of the request, and a gateway with these limits in front of it.
fn start(limits: &str) -> (Upstream, Gateway) {
    start_with("", limits, "")
}

fn start_with(listener: &str, limits: &str, more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/large" => Reply::new(200).body(vec![b'x'; 32 << 20]),
        "/hang" => Reply::hang(),
        _ => Reply::new(200).body(request.header("X-Forwarded-For").unwrap_or("nobody")),
    });
    let gateway = Gateway::start(&config(listener, limits, more, upstream.address()));
    (upstream, gateway)
}

#[track_caller]
fn assert_readable(response: &Response) {
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1), "{response:?}");
    assert_eq!(response.header("Vary"), Some("Origin"), "{response:?}");
}

/// Checks that the time since `begin` is `expected`, or a little longer.
#[track_caller]
fn assert_took(begin: Instant, expected: Duration) {
    let took = begin.elapsed();
    assert!((expected.mul_f32(0.8)..expected + SLACK).contains(&took), "{took:?} instead of {expected:?}");
}

/// Sends the pieces with a pause after each, until the server answers or closes the connection.
fn drip<'p>(connection: &mut Connection, pieces: impl IntoIterator<Item = &'p [u8]>, pause: Duration) {
    for piece in pieces {
        // A piece that is sent after the server has closed the connection causes a reset, which would discard the
        // answer.
        if connection.is_readable() || connection.send(piece).is_err() {
            return;
        }
        thread::sleep(pause);
    }
}

// --- headers

#[test]
fn an_incomplete_header_gets_408_after_header_timeout() {
    let (upstream, gateway) = start("header_timeout: 1s");
    let begin = Instant::now();
    let mut stops = Connection::open(gateway.address()).unwrap();
    stops.send(&GET[..20]).unwrap();
    let response = stops.read("GET").unwrap();
    assert_eq!((response.status, response.header("Connection")), (408, Some("close")));
    assert_took(begin, Duration::from_secs(1));
    assert!(stops.closed());
    // Single bytes do not extend the timeout.
    let begin = Instant::now();
    let mut drips = Connection::open(gateway.address()).unwrap();
    drip(&mut drips, GET.chunks(1), Duration::from_millis(100));
    assert_eq!(drips.read("GET").unwrap().status, 408);
    assert_took(begin, Duration::from_secs(1));
    assert!(drips.closed());
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_connection_without_a_request_is_closed_without_a_response() {
    let (_upstream, gateway) = start("header_timeout: 1s");
    let begin = Instant::now();
    let mut silent = Connection::open(gateway.address()).unwrap();
    assert!(silent.closed());
    assert_took(begin, Duration::from_secs(1));
}

#[test]
fn header_timeout_of_a_later_request_starts_with_its_first_byte() {
    let (_upstream, gateway) = start("header_timeout: 1500ms, keepalive: 60s");
    let mut kept = Connection::open(gateway.address()).unwrap();
    assert_eq!(kept.request("GET", "/", &[HOST], b"").unwrap().status, 200);
    // This pause is longer than header_timeout, which does not run between requests.
    thread::sleep(Duration::from_secs(2));
    kept.send(&GET[..20]).unwrap();
    thread::sleep(Duration::from_millis(100));
    kept.send(&GET[20..]).unwrap();
    assert_eq!(kept.read("GET").unwrap().status, 200, "a header in two pieces");
    let begin = Instant::now();
    kept.send(&GET[..20]).unwrap();
    assert_eq!(kept.read("GET").unwrap().status, 408);
    assert_took(begin, Duration::from_millis(1500));
    assert!(kept.closed());
}

/// The gateway answers a preflight without reading from the connection again. The timer of its header must not end the
/// next one.
#[test]
fn header_timeout_starts_anew_for_each_request() {
    let (_upstream, gateway) = start("header_timeout: 1500ms, keepalive: 60s");
    let mut kept = Connection::open(gateway.address()).unwrap();
    let preflight = b"OPTIONS / HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\n\
                      Access-Control-Request-Method: GET\r\n\r\n";
    // All requests together take longer than header_timeout, but each one takes far less.
    for _ in 0..9 {
        kept.send(&preflight[..20]).unwrap();
        thread::sleep(Duration::from_millis(200));
        kept.send(&preflight[20..]).unwrap();
        assert_eq!(kept.read("OPTIONS").unwrap().status, 200);
    }
}

#[test]
fn a_huge_header_gets_431_and_is_not_buffered() {
    let (upstream, gateway) = start("");
    let before = std::cell::Cell::new(0);
    let connections: Vec<_> = (0..41)
        .map(|i| {
            if i == 1 {
                // The first request is not measured, because the process needs its memory for any request.
                before.set(gateway.memory());
            }
            let mut connection = Connection::open(gateway.address()).unwrap();
            connection.send(b"GET / HTTP/1.1\r\nHost: api.test\r\n").unwrap();
            // The gateway may stop reading, and then sends its response.
            let filler = [b"X-Fill: ", &[b'a'; 1000][..], b"\r\n"].concat();
            for _ in 0..1024 {
                if connection.send(&filler).is_err() {
                    break;
                }
            }
            let response = connection.read("GET").unwrap();
            assert_eq!((response.status, response.header("Connection")), (431, Some("close")));
            assert!(connection.closed());
            connection
        })
        .collect();
    assert_eq!(upstream.hits(), 0);
    let grown = gateway.memory().saturating_sub(before.get());
    println!("40 headers of 1 MiB: the gateway has grown by {grown} KiB");
    assert!(grown < 16 * 1024, "{grown} KiB");
    drop(connections);
}

#[test]
fn a_header_over_the_limit_gets_431_with_cors_headers() {
    let (upstream, gateway) = start("headers: 4KiB");
    let long = "a".repeat(8 * 1024);
    for fields in [vec![HOST, ORIGIN, ("X-Long", &long)], [&[HOST, ORIGIN][..], &[("X-Many", "1"); 100]].concat()] {
        let response = fetch(gateway.address(), "GET", "/", &fields);
        assert_eq!(response.status, 431);
        assert_readable(&response);
    }
    assert_eq!(upstream.hits(), 0);
}

/// 2,000 connections that send single bytes, and one usual client.
#[test]
fn a_slowloris_attack_does_not_delay_other_clients() {
    let crowd = 2000.min(open_files() / 2 - 100);
    let (_upstream, gateway) = start("header_timeout: 4s, keepalive: 60s");
    let mut client = Connection::open(gateway.address()).unwrap();
    let mut get = || {
        let begin = Instant::now();
        assert_eq!(client.request("GET", "/", &[HOST, ORIGIN], b"").unwrap().status, 200);
        begin.elapsed()
    };
    get();
    let before = gateway.memory();
    let begin = Instant::now();
    let mut attackers: Vec<_> = (0..crowd)
        .map(|_| {
            let mut attacker = TcpStream::connect(gateway.address()).unwrap();
            attacker.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n").unwrap();
            attacker
        })
        .collect();
    let connected = begin.elapsed();
    let (mut memory, mut slowest, mut requests) = (0, Duration::ZERO, 0);
    while begin.elapsed() < connected + Duration::from_secs(3) {
        for (i, attacker) in attackers.iter_mut().enumerate() {
            // Fails on connections that are closed already.
            let _ = attacker.write_all(b"X");
            if i % 50 == 0 {
                slowest = slowest.max(get());
                requests += 1;
            }
        }
        memory = memory.max(gateway.memory());
        thread::sleep(Duration::from_millis(200));
    }
    let each = memory.saturating_sub(before) * 1024 / crowd as u64;
    println!(
        "{crowd} slow connections: {requests} requests beside them, the slowest in {slowest:?}; {each} B for each"
    );
    assert!(requests >= 40 && slowest < SLACK, "{requests} requests, the slowest in {slowest:?}");
    assert!(each < 32 * 1024, "{each} B for each slow connection");
    // Each connection gets 408 and is closed.
    for attacker in &mut attackers {
        attacker.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        match attacker.read_to_end(&mut answer) {
            Ok(_) => assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    get();
}

/// A client that does not read uses memory, so without a configured limit there is a default that depends on the
/// memory.
#[test]
fn the_limit_of_connections_has_a_default() {
    const ADMIN: &str = "admin: { address: \"{admin}\" }";
    let (_upstream, gateway) = start_with("", "", ADMIN);
    let limit = |gateway: &Gateway| gateway.metric("corsgate_connections_limit");
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((64..=total / 1024).contains(&limit(&gateway)), "{}", limit(&gateway));
    let (_upstream, gateway) = start_with("", "connections: 7", ADMIN);
    assert_eq!(limit(&gateway), 7);
}

/// The limit of open files of a process.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}

// --- bodies

#[test]
fn a_stalled_body_gets_408_with_cors_headers() {
    let (_upstream, gateway) = start("body_timeout: 1s");
    for sent in [&b""[..], b"half of it"] {
        let begin = Instant::now();
        let mut connection = Connection::open(gateway.address()).unwrap();
        let header = b"POST / HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\nContent-Length: 20\r\n\r\n";
        connection.send(&[header, sent].concat()).unwrap();
        let response = connection.read("POST").unwrap();
        assert_eq!((response.status, response.header("Connection")), (408, Some("close")));
        assert_readable(&response);
        assert_took(begin, Duration::from_secs(1));
        assert!(connection.closed());
    }
}

#[test]
fn a_dripping_body_gets_408_with_cors_headers() {
    let (_upstream, gateway) = start("body_timeout: 1s");
    let length = "POST / HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\nContent-Length: 100\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (header, begin_of_body, piece) in [
        (length, "", &b"x"[..]),
        (chunked, "", b"1\r\nx\r\n"),
        // The bytes between the chunks are not progress.
        (chunked, "1;", b"x"),
        (chunked, "1\r\nx\r\n0\r\nX-T: ", b"x"),
    ] {
        let begin = Instant::now();
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(format!("{header}{begin_of_body}").as_bytes()).unwrap();
        // Each pause is shorter than body_timeout, but the whole body takes longer than the limit for a small body.
        drip(&mut connection, [piece; 90], Duration::from_millis(100));
        let response = connection.read("POST").unwrap();
        assert_eq!(response.status, 408);
        assert_readable(&response);
        assert_took(begin, Duration::from_secs(1));
    }
}

#[test]
fn a_long_body_may_take_longer_than_body_timeout() {
    let (upstream, gateway) = start("body_timeout: 1500ms");
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 40960\r\n\r\n").unwrap();
    for _ in 0..10 {
        connection.send(&[b'x'; 4096]).unwrap();
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(connection.read("POST").unwrap().status, 200);
    assert_eq!(upstream.received()[0].body.len(), 40960);
}

// --- responses

#[test]
fn a_client_that_reads_nothing_is_closed_after_send_timeout() {
    let (upstream, gateway) = start("send_timeout: 1s");
    let begin = Instant::now();
    let mut deaf = Connection::open(gateway.address()).unwrap();
    deaf.send(b"GET /large HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    upstream.wait_for_closed(1);
    assert_took(begin, Duration::from_secs(1));
    // Bytes that are already sent may arrive, but not the whole response.
    assert!(deaf.read("GET").is_err());
}

/// The default of `limits.connections` depends on this bound.
#[test]
fn a_client_that_reads_nothing_costs_less_than_a_mebibyte() {
    const CLIENTS: u64 = 24;
    // The size is larger than the buffers of the kernel.
    let upstream = Upstream::start(|_| Reply::new(200).body(vec![b'x'; 8 << 20]));
    let gateway = Gateway::start(&config("", "", "", upstream.address()));
    // The first uses of the code need some memory.
    for _ in 0..4 {
        fetch(gateway.address(), "GET", "/", &[HOST]);
    }
    let before = gateway.memory();
    let deaf: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            // With a small receive buffer, the response fills buffers of the gateway and not of the kernel.
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&gateway.address().into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let grown = || gateway.memory().saturating_sub(before) / CLIENTS;
    let begin = Instant::now();
    while grown() < 512 && begin.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(500));
    assert!(grown() < 1024, "{} KiB for each client", grown());
    drop(deaf);
}

#[test]
fn a_slow_reader_gets_the_whole_response() {
    let (_upstream, gateway) = start("send_timeout: 1500ms");
    let mut slow = TcpStream::connect(gateway.address()).unwrap();
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
    let (mut total, mut buffer) = (0, vec![0; 2 << 20]);
    loop {
        thread::sleep(Duration::from_millis(100));
        let read = slow.read(&mut buffer).unwrap();
        total += read;
        if read == 0 {
            break;
        }
    }
    assert!(total > 32 << 20, "{total}");
}

#[test]
fn an_idle_connection_is_closed_after_limits_keepalive() {
    let (_upstream, gateway) = start("keepalive: 1s");
    let mut idle = Connection::open(gateway.address()).unwrap();
    let begin = Instant::now();
    idle.request("GET", "/", &[HOST], b"").unwrap();
    assert!(idle.closed());
    assert_took(begin, Duration::from_secs(1));
}

#[test]
fn a_response_is_cut_after_timeouts_total() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/hang" => Reply::hang(),
        _ => Reply::new(200).body(vec![b'x'; 32 << 20]),
    });
    let config = config("", "", "", upstream.address()).replace("\" }] }", "\" }], timeouts: { total: 1s } }");
    let gateway = Gateway::start(&config);
    let begin = Instant::now();
    let response = fetch(gateway.address(), "GET", "/hang", &[HOST, ORIGIN]);
    assert_eq!(response.status, 504);
    assert_readable(&response);
    assert_took(begin, Duration::from_secs(1));
    // The response has begun, and the client reads only a part of it.
    let mut slow = TcpStream::connect(gateway.address()).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    let begin = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    let ended = loop {
        thread::sleep(Duration::from_millis(10));
        match slow.read(&mut buffer) {
            Ok(0) | Err(_) => break begin.elapsed(),
            Ok(read) => total += read,
        }
    };
    assert!(total < 32 << 20, "{total} in {ended:?}");
}

// --- connections

#[test]
fn a_connection_over_the_limit_gets_503_until_another_one_closes() {
    let (upstream, gateway) = start("connections: 2");
    let kept = [open(&gateway), open(&gateway)];
    let mut third = Connection::open(gateway.address()).unwrap();
    let response = third.request("GET", "/", &[HOST, ORIGIN], b"").unwrap();
    assert_eq!((response.status, response.header("Connection")), (503, Some("close")));
    assert_readable(&response);
    assert!(third.closed());
    // Preflights get 503 too: the request after a successful preflight would have no connection.
    let preflight = [HOST, ORIGIN, ("Access-Control-Request-Method", "GET")];
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/", &preflight).status, 503);
    assert_eq!(upstream.hits(), 2);
    drop(kept);
    open(&gateway);
}

/// Opens a connection within the limit. A connection may be free only a moment after another one was closed.
#[track_caller]
fn open(gateway: &Gateway) -> Connection {
    let begin = Instant::now();
    loop {
        let mut connection = Connection::open(gateway.address()).unwrap();
        match connection.request("GET", "/", &[HOST], b"").unwrap().status {
            200 => return connection,
            _ => assert!(begin.elapsed() < SLACK, "there is no room"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn connections_far_over_the_limit_are_closed_at_once() {
    let (_upstream, gateway) = start("connections: 1");
    let mut first = open(&gateway);
    let begin = Instant::now();
    let crowd: Vec<_> = (0..30).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    let closed = || {
        let is_closed = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            !stream.read(&mut [0; 64]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        crowd.iter().filter(|stream| is_closed(stream)).count()
    };
    // Connections beyond limit + 10 % + 16 are closed at once, the others after the second that they have for a
    // request.
    while closed() < 14 {
        assert!(begin.elapsed() < SLACK, "{} of 30", closed());
        thread::sleep(Duration::from_millis(10));
    }
    while closed() < 30 {
        assert!(begin.elapsed() < Duration::from_secs(1) + SLACK, "{} of 30", closed());
        thread::sleep(Duration::from_millis(10));
    }
    assert_took(begin, Duration::from_secs(1));
    assert_eq!(first.request("GET", "/", &[HOST], b"").unwrap().status, 200);
}

#[test]
fn a_reload_changes_the_connection_limit() {
    let (upstream, gateway) = start("connections: 1");
    let mut first = open(&gateway);
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 503);
    gateway.reload_with(&config("", "connections: 2", "", upstream.address()));
    gateway.wait_for_log("reloaded generation=2");
    open(&gateway);
    assert_eq!(first.request("GET", "/", &[HOST], b"").unwrap().status, 200);
}

#[test]
fn each_client_has_its_own_connection_limit() {
    let (_upstream, gateway) =
        start_with(", proxy_protocol: true", "connections_per_client: 1", "trusted_proxies: [127.0.0.1]");
    let get = |client: &str| {
        let mut connection = Connection::open(gateway.address()).unwrap();
        let family = if client.contains(':') { "TCP6" } else { "TCP4" };
        connection.send(format!("PROXY {family} {client} {client} 4711 80\r\n").as_bytes()).unwrap();
        let response = connection.request("GET", "/", &[HOST, ORIGIN], b"").unwrap();
        assert_readable(&response);
        (response.status, connection)
    };
    let (status, first) = get("192.0.2.1");
    assert_eq!(status, 200);
    let (status, mut second) = get("192.0.2.1");
    assert_eq!(status, 429);
    assert!(second.closed());
    assert_eq!(get("192.0.2.2").0, 200);
    // An IPv6 client usually has 2^64 addresses, so the limit counts a /64.
    let (status, _network) = get("2001:db8:0:1::1");
    assert_eq!(status, 200);
    assert_eq!(get("2001:db8:0:1::2").0, 429);
    assert_eq!(get("2001:db8:0:2::1").0, 200);
    drop(first);
    let begin = Instant::now();
    while get("192.0.2.1").0 != 200 {
        assert!(begin.elapsed() < SLACK, "there is no room again");
    }
}

#[test]
fn the_limit_per_client_does_not_apply_to_trusted_proxies() {
    let (upstream, gateway) = start_with("", "connections_per_client: 1", "trusted_proxies: [127.0.0.1]");
    let many: Vec<_> = (0..5)
        .map(|_| {
            let mut connection = Connection::open(gateway.address()).unwrap();
            assert_eq!(connection.request("GET", "/", &[HOST], b"").unwrap().status, 200);
            connection
        })
        .collect();
    drop(many);
    gateway.reload_with(&config("", "connections_per_client: 1", "", upstream.address()));
    gateway.wait_for_log("reloaded generation=2");
    let _first = open(&gateway);
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 429);
}

#[test]
fn requests_per_connection_closes_after_the_last_response() {
    let (_upstream, gateway) = start("requests_per_connection: 3");
    let mut connection = Connection::open(gateway.address()).unwrap();
    for expected in ["keep-alive", "keep-alive", "close"] {
        let response = connection.request("GET", "/", &[HOST], b"").unwrap();
        assert_eq!((response.status, response.header("Connection")), (200, Some(expected)));
    }
    assert!(connection.closed());
}

#[test]
fn requests_per_connection_sends_goaway_after_the_last_stream() {
    let (upstream, authority) = (Upstream::start(|_| Reply::new(200)), Authority::new("authority"));
    let tls = ", tls: { certificates: [{ cert: tls/api.crt, key: tls/api.key }] }";
    let files = authority.issue(&["api.test"]).files("tls/api");
    let config = config(tls, "requests_per_connection: 3", "", upstream.address());
    let gateway = Gateway::start_with_files(&config, &files);
    let mut client = H2Client::open(gateway.address(), &TlsClient::new(&authority, "api.test")).unwrap();
    for _ in 0..3 {
        assert_eq!(client.request(&H2Request::new("GET", "api.test", "/")).unwrap().status, 200);
    }
    assert!(client.closed(), "there is a GOAWAY after the last one");
    assert!(client.request(&H2Request::new("GET", "api.test", "/")).is_err());
    assert_eq!(upstream.hits(), 3);
}

// --- the PROXY protocol

/// A PROXY header of version 2 with this command, family and payload.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, rest].concat()
}

/// The addresses 192.0.2.7:4711 and 10.0.0.1:80.
const PAIR: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];

fn behind_a_balancer() -> (Upstream, Gateway) {
    start_with(", proxy_protocol: true", "header_timeout: 1500ms", "trusted_proxies: [127.0.0.1]")
}

#[test]
fn a_proxy_header_sets_the_client_address() {
    let (_upstream, gateway) = behind_a_balancer();
    let mut pair = [0; 36];
    pair[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let extended = [&PAIR[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let rows: [(Vec<u8>, &str); 8] = [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), "2001:db8::7"),
        (binary(1, 0x11, &PAIR), "192.0.2.7"),
        (binary(1, 0x21, &pair), "2001:db8::7"),
        (binary(1, 0x11, &extended), "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0, 0x11, &PAIR), "127.0.0.1"),
        (binary(0, 0, b""), "127.0.0.1"),
    ];
    for (header, client) in rows {
        let name = header.escape_ascii();
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(&[&header, GET].concat()).unwrap();
        assert_eq!(connection.read("GET").unwrap().text(), client, "{name}");
        // The header holds for the whole connection.
        assert_eq!(connection.request("GET", "/", &[HOST], b"").unwrap().text(), client, "{name}");
    }
}

#[test]
fn a_proxy_header_may_come_in_pieces_within_header_timeout() {
    let (_upstream, gateway) = behind_a_balancer();
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(), binary(1, 0x11, &PAIR)] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        drip(&mut connection, [&header, &GET[..2]].concat().chunks(1), Duration::from_millis(2));
        connection.send(&GET[2..]).unwrap();
        assert_eq!(connection.read("GET").unwrap().text(), "192.0.2.7");

        let begin = Instant::now();
        let mut truncated = Connection::open(gateway.address()).unwrap();
        truncated.send(&header[..header.len() - 1]).unwrap();
        assert!(truncated.closed());
        assert_took(begin, Duration::from_millis(1500));
    }
}

#[test]
fn a_connection_without_a_valid_proxy_header_is_closed() {
    let (upstream, gateway) = behind_a_balancer();
    let mut much = binary(1, 0x11, &PAIR);
    much[14] = 0xff;
    let rows: [&[u8]; 9] = [
        b"",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
        b"PROXY TCP4 192.0.2.256 10.0.0.1 4711 80\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 4711 80\r\n",
        b"proxy TCP4 192.0.2.7 10.0.0.1 4711 80\r\n",
        b"\x16\x03\x01\x02\x00",
        &binary(2, 0x11, &PAIR),
        &binary(1, 0x11, &PAIR[..4]),
        &much,
    ];
    for header in rows {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(&[header, GET].concat()).unwrap();
        assert!(connection.closed(), "{}", header.escape_ascii());
    }
    assert_eq!(upstream.hits(), 0);
    // One log line for all of them.
    let log = gateway.stderr();
    assert!(!log.contains("ERROR") && log.matches("WARN").count() == 1, "{log}");
}

#[test]
fn a_proxy_header_from_an_untrusted_peer_is_refused() {
    let (upstream, gateway) = start_with(", proxy_protocol: true", "", "trusted_proxies: [10.0.0.0/8]");
    for header in [&b"PROXY TCP4 10.0.0.1 10.0.0.1 4711 80\r\n"[..], b""] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(&[header, GET].concat()).unwrap();
        assert!(connection.closed());
    }
    assert_eq!(upstream.hits(), 0);
    // A listener without `proxy_protocol` refuses the header as a request.
    let (upstream, gateway) = start_with("", "", "trusted_proxies: [127.0.0.1]");
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(&[b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n", GET].concat()).unwrap();
    assert_eq!(connection.read("GET").unwrap().status, 400);
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_proxy_header_comes_before_tls() {
    let upstream = Upstream::start(|request| Reply::new(200).body(request.header("X-Forwarded-For").unwrap()));
    let authority = Authority::new("authority");
    let listener = ", proxy_protocol: true, tls: { certificates: [{ cert: tls/api.crt, key: tls/api.key }] }";
    let config = config(listener, "", "trusted_proxies: [127.0.0.1]", upstream.address());
    let gateway = Gateway::start_with_files(&config, &authority.issue(&["api.test"]).files("tls/api"));
    let tls = TlsClient::new(&authority, "api.test");
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(), binary(1, 0x11, &PAIR)] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(&header).unwrap();
        let session = ClientConnection::new(tls.config(), tls.name()).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        if let Err(error) = stream.read_to_string(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
        }
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("192.0.2.7"), "{answer}");
    }
    // Without a PROXY header there is no handshake.
    let refused: io::Result<Connection> = Connection::open_tls(gateway.address(), &tls);
    assert!(refused.is_err());
    assert_eq!(upstream.hits(), 2);
}

// --- concurrent misuse

/// Every kind of misuse at the same time, and one usual client.
#[test]
fn concurrent_misuse_delays_no_client_and_does_not_flood_the_log() {
    let (_upstream, gateway) = start("header_timeout: 1s, body_timeout: 1s, send_timeout: 1s, keepalive: 1s");
    let address = gateway.address();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let misuses: [&[u8]; 6] = [
            b"",
            b"GET / HT",
            b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nx",
            b"GET /large HTTP/1.1\r\nHost: api.test\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET /hang HTTP/1.1\r\nHost: api.test\r\n\r\n",
        ];
        for misuse in misuses {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut crowd: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
                    crowd.iter_mut().for_each(|stream| drop(stream.write_all(misuse)));
                    thread::sleep(Duration::from_millis(700));
                }
            });
        }
        let begin = Instant::now();
        let mut slowest = Duration::ZERO;
        while begin.elapsed() < Duration::from_secs(3) {
            let request = Instant::now();
            assert_eq!(fetch(address, "GET", "/", &[HOST, ORIGIN]).status, 200);
            slowest = slowest.max(request.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(slowest < SLACK, "{slowest:?}");
    });
    let log = gateway.stderr();
    assert!(log.lines().count() < 10, "{log}");
}

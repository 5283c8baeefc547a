//! Faults of upstreams and of clients, one after the other in one process.
//!
//! After each fault the next request gets its right response. Every response has the CORS headers of its policy, and the
//! log says why. All rounds together leave no descriptor and no memory behind.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::client::Connection;
use crate::support::gateway::{Gateway, free_port};

const ORIGIN: &str = "https://app.test";

/// What the client gets.
#[derive(Debug, PartialEq, Eq)]
enum Gets {
    /// A complete response with this status.
    Status(u16),
    /// The header of a response with this status, and not all of its body.
    Cut(u16),
    /// No response.
    Nothing,
}
use Gets::*;

/// A fault of the upstream, in its response to `GET` of its path.
struct UpstreamFault {
    path: &'static str,
    respond: fn(&mut TcpStream),
    gets: Gets,
    /// A part of the lines in the log. None: the log says nothing.
    logs: Option<&'static str>,
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    // The gateway may have ended the connection.
    let _ = stream.write_all(bytes);
}

fn send_slowly(stream: &mut TcpStream, bytes: impl IntoIterator<Item = u8>) {
    for byte in bytes {
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Keeps the connection open for longer than every timeout of the gateway.
fn hang(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.read(&mut [0]);
}

fn reset(stream: &mut TcpStream) {
    SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[rustfmt::skip]
const UPSTREAM_FAULTS: &[UpstreamFault] = &[
    UpstreamFault { path: "/closes", respond: |_| {}, gets: Status(502), logs: Some("closed the connection before its response") },
    UpstreamFault { path: "/resets", respond: reset, gets: Status(502), logs: Some("Connection reset by peer") },
    UpstreamFault { path: "/silent", respond: hang, gets: Status(504), logs: Some("no response within `timeouts.read`") },
    UpstreamFault { path: "/half-a-status", respond: |s| { send(s, b"HTTP/1.1 2"); hang(s) }, gets: Status(504), logs: Some("no response within `timeouts.read`") },
    UpstreamFault { path: "/half-a-header", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nX-A: "), gets: Status(502), logs: Some("closed the connection before its response") },
    UpstreamFault { path: "/slow-header", respond: |s| send_slowly(s, b"HTTP/1.1 200 OK\r\nX-A: ".iter().copied().chain([b'a'; 1000])), gets: Status(504), logs: Some("timeouts.total") },
    UpstreamFault { path: "/mail", respond: |s| send(s, b"220 mail.test ESMTP\r\n\r\n"), gets: Status(502), logs: Some("the response is not HTTP/1; check the port") },
    UpstreamFault { path: "/tls", respond: |s| send(s, b"\x15\x03\x01\x00\x02\x02\x46"), gets: Status(502), logs: Some("add `tls` to the upstream") },
    UpstreamFault { path: "/no-status", respond: |s| send(s, b"HTTP/1.1 abc OK\r\n\r\n"), gets: Status(502), logs: Some("invalid response status") },
    UpstreamFault { path: "/status-99", respond: |s| send(s, b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n"), gets: Status(502), logs: Some("the response is not HTTP/1") },
    UpstreamFault { path: "/two-lengths", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokx"), gets: Status(502), logs: Some("`Content-Length` of the response is not one number") },
    UpstreamFault { path: "/length-and-chunks", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), gets: Status(200), logs: None },
    UpstreamFault { path: "/negative-length", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"), gets: Status(502), logs: Some("`Content-Length` of the response is not one number") },
    UpstreamFault { path: "/short-body", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"), gets: Cut(200), logs: Some("before the end of its response") },
    UpstreamFault { path: "/stalled-body", respond: |s| { send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"); hang(s) }, gets: Cut(200), logs: Some("sent no more of its response for `timeouts.read`") },
    UpstreamFault { path: "/bad-chunk", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n"), gets: Cut(200), logs: Some("invalid chunks") },
    UpstreamFault { path: "/huge-chunk", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nok\r\n"), gets: Cut(200), logs: Some("invalid chunks") },
    UpstreamFault { path: "/no-last-chunk", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"), gets: Cut(200), logs: Some("before the end of its response") },
    UpstreamFault { path: "/reset-in-the-body", respond: |s| { send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"); thread::sleep(Duration::from_millis(50)); reset(s) }, gets: Cut(200), logs: Some("before the end of its response") },
    UpstreamFault { path: "/two-responses", respond: |s| send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), gets: Status(200), logs: None },
    UpstreamFault { path: "/body-of-204", respond: |s| send(s, b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), gets: Status(204), logs: None },
    UpstreamFault { path: "/unasked-101", respond: |s| send(s, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nmore"), gets: Status(502), logs: Some("without an Upgrade request") },
    UpstreamFault { path: "/many-100", respond: |s| send(s, &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(500)), gets: Status(502), logs: Some("more than 32 interim responses") },
    UpstreamFault { path: "/many-fields", respond: |s| { send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"); send(s, &b"X-A: 1\r\n".repeat(1000)); send(s, b"\r\n") }, gets: Status(502), logs: Some("more than 256 header fields") },
    UpstreamFault { path: "/huge-field", respond: |s| { send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: "); send(s, &b"a".repeat(2 << 20)); send(s, b"\r\n\r\n") }, gets: Status(502), logs: Some("header is larger than 1 MiB") },
    // These two have no node.
    UpstreamFault { path: "/refused", respond: |_| {}, gets: Status(502), logs: Some("nothing listens there") },
    UpstreamFault { path: "/unknown", respond: |_| {}, gets: Status(503), logs: Some("no address of a node is known") },
    UpstreamFault { path: "/stays-open", respond: |s| { send(s, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); hang(s) }, gets: Status(200), logs: None },
];

/// An upstream with all faults. Other paths get `ok`.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // These threads end with the test process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(|| serve(stream.unwrap()));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            received.drain(..end + 4);
            let path = head.split(' ').nth(1).unwrap();
            if let Some(fault) = UPSTREAM_FAULTS.iter().find(|fault| fault.path == path) {
                return (fault.respond)(&mut stream);
            }
            if path == "/large" {
                send(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
                return send(&mut stream, &vec![b'a'; 50_000_000]);
            }
            if path == "/upload" {
                // There is no response, whether the body comes or not.
                continue;
            }
            send(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => received.extend_from_slice(&buffer[..length]),
        }
    }
}

/// A client that ends its connection in the middle of a request, or that does not speak HTTP/1.
struct ClientFault {
    name: &'static str,
    act: fn(&mut TcpStream),
}

#[rustfmt::skip]
const CLIENT_FAULTS: &[ClientFault] = &[
    ClientFault { name: "connects and leaves", act: |_| {} },
    ClientFault { name: "leaves in the request line", act: |s| send(s, b"GET /o") },
    ClientFault { name: "leaves in the header", act: |s| send(s, b"GET /ok HTTP/1.1\r\nHost: api.te") },
    ClientFault { name: "resets in the header", act: |s| { send(s, b"GET /ok HTTP/1.1\r\nHost: api.te"); reset(s) } },
    ClientFault { name: "leaves before the response", act: |s| send(s, b"GET /silent HTTP/1.1\r\nHost: api.test\r\n\r\n") },
    ClientFault { name: "resets before the response", act: |s| { send(s, b"GET /silent HTTP/1.1\r\nHost: api.test\r\n\r\n"); thread::sleep(Duration::from_millis(20)); reset(s) } },
    ClientFault { name: "leaves in an upload", act: |s| send(s, b"POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1000\r\n\r\nsome") },
    ClientFault { name: "resets in an upload", act: |s| { send(s, b"POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1000\r\n\r\nsome"); thread::sleep(Duration::from_millis(20)); reset(s) } },
    ClientFault { name: "leaves in a chunk", act: |s| send(s, b"POST /upload HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nsome") },
    ClientFault { name: "sends no chunk", act: |s| send(s, b"POST /upload HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n") },
    ClientFault { name: "leaves in a download", act: |s| { send(s, b"GET /large HTTP/1.1\r\nHost: api.test\r\n\r\n"); let _ = s.read(&mut [0; 1000]); } },
    ClientFault { name: "resets in a download", act: |s| { send(s, b"GET /large HTTP/1.1\r\nHost: api.test\r\n\r\n"); let _ = s.read(&mut [0; 1000]); reset(s) } },
    ClientFault { name: "sends twenty requests and leaves", act: |s| send(s, &b"GET /ok HTTP/1.1\r\nHost: api.test\r\n\r\n".repeat(20)) },
    ClientFault { name: "closes its sending side", act: |s| { send(s, b"GET /ok HTTP/1.1\r\nHost: api.test\r\n\r\n"); let _ = s.shutdown(std::net::Shutdown::Write); let _ = s.read(&mut [0; 1000]); } },
    ClientFault { name: "speaks TLS", act: |s| send(s, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") },
    ClientFault { name: "speaks HTTP/2", act: |s| send(s, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0") },
    ClientFault { name: "sends zeros", act: |s| send(s, &[0; 10_000]) },
];

/// Returns the kind of the response, and its bytes. The client of the other tests refuses a response that is cut.
fn get(gateway: &Gateway, path: &str) -> (Gets, String) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: api.test\r\nOrigin: {ORIGIN}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let final_response = text.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    let Some((head, body)) = final_response.split_once("\r\n\r\n") else { return (Nothing, text) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let complete = match (field("content-length"), field("transfer-encoding")) {
        (Some(length), _) => body.len() == length.parse::<usize>().unwrap(),
        (None, Some(_)) => body.ends_with("0\r\n\r\n"),
        (None, None) => status == 204,
    };
    (if complete { Status(status) } else { Cut(status) }, text)
}

fn open_descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

#[test]
fn after_each_fault_the_next_request_is_right_and_nothing_leaks() {
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
limits: {{ header_timeout: 2s, body_timeout: 2s }}
services:
  - name: api
    hosts: [api.test]
    cors: {{ allow_origins: \"{ORIGIN}\" }}
    upstream:
      nodes: [{{ address: \"{upstream}\" }}]
      timeouts: {{ connect: 1s, read: 300ms, write: 300ms, total: 1s }}
      ejection: false
    routes:
      - {{ name: refused, paths: [/refused], upstream: {{ nodes: [{{ address: \"127.0.0.1:{closed}\" }}] }} }}
      - {{ name: unknown, paths: [/unknown], upstream: {{ nodes: [{{ address: \"nowhere.invalid:80\" }}] }} }}
      - {{ name: rest, paths: [\"/*\"] }}
",
        upstream = upstream(),
        closed = free_port(),
    ));
    // Client faults come last, because their log lines can be late. Some upstream faults must have no log line.
    leaks_nothing(&gateway, upstream_faults);
    leaks_nothing(&gateway, client_faults);
}

fn leaks_nothing(gateway: &Gateway, faults: fn(&Gateway)) {
    // Buffers and pools have their size after two rounds.
    faults(gateway);
    faults(gateway);
    let (descriptors, memory) = (open_descriptors(gateway), gateway.memory());
    faults(gateway);
    faults(gateway);
    let deadline = Instant::now() + Duration::from_secs(20);
    while open_descriptors(gateway) > descriptors + 2 {
        assert!(Instant::now() < deadline, "{descriptors} descriptors became {}", open_descriptors(gateway));
        thread::sleep(Duration::from_millis(50));
    }
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < 8 << 10, "{memory} KiB of memory grew by {grown} KiB in two rounds");
}

fn next_is_right(gateway: &Gateway, after: &str) {
    let mut connection = Connection::open(gateway.address()).unwrap();
    let next = connection.request("GET", "/ok", &[("Host", "api.test"), ("Origin", ORIGIN)], b"");
    let next = next.unwrap_or_else(|error| panic!("after {after}: {error}"));
    assert_eq!((next.status, next.text()), (200, "ok"), "after {after}");
    assert_eq!(next.header("Access-Control-Allow-Origin"), Some(ORIGIN), "after {after}");
}

fn upstream_faults(gateway: &Gateway) {
    for fault in UPSTREAM_FAULTS {
        let logged = gateway.stderr().len();
        let (gets, response) = get(gateway, fault.path);
        assert_eq!(gets, fault.gets, "{}: {response}", fault.path);
        let allows = format!("access-control-allow-origin: {ORIGIN}\r\n");
        assert!(response.to_ascii_lowercase().contains(&allows), "{}: {response}", fault.path);
        assert!(!response.contains("evil"), "{}: {response}", fault.path);
        next_is_right(gateway, fault.path);
        match fault.logs {
            Some(part) => {
                let earlier = gateway.stderr()[..logged].matches(part).count();
                gateway.wait_for_log_count(part, earlier + 1);
            }
            None => assert_eq!(&gateway.stderr()[logged..], "", "{}", fault.path),
        }
    }
}

fn client_faults(gateway: &Gateway) {
    for fault in CLIENT_FAULTS {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (fault.act)(&mut stream);
        drop(stream);
        next_is_right(gateway, fault.name);
    }
}

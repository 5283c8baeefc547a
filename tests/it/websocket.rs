//! WebSockets and other upgrades: they survive reloads, with and without TLS, and have their own timeout.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::process::poll;
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const UPGRADE: [(&str, &str); 5] = [
    ("Host", "api.test"),
    ORIGIN,
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// An echo upstream with these timeouts, and a policy for this origin.
fn config(upstream: SocketAddr, timeouts: &str, origin: &str) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
limits: {{ keepalive: 1s, header_timeout: 1s, body_timeout: 1s, send_timeout: 1s }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}], timeouts: {{ {timeouts} }} }}
    cors: {{ allow_origins: \"{origin}\" }}
"
    )
}

/// Opens a WebSocket.
#[track_caller]
fn open(gateway: &Gateway) -> Connection {
    upgrade(Connection::open(gateway.address()).unwrap())
}

#[track_caller]
fn upgrade(mut connection: Connection) -> Connection {
    let response = connection.request("GET", "/socket", &UPGRADE, b"").unwrap();
    assert_eq!((response.status, response.header("Upgrade")), (101, Some("websocket")));
    connection
}

#[track_caller]
fn echo(socket: &mut Connection, message: &str) {
    socket.send(message.as_bytes()).unwrap();
    assert_eq!(socket.receive(message.len()).unwrap(), message.as_bytes());
}

#[test]
fn a_websocket_survives_fifty_reloads() {
    let upstream = Upstream::start(|_| Reply::echo());
    let gateway = Gateway::start(&config(upstream.address(), "", "https://app.test"));
    let mut socket = open(&gateway);
    for generation in 2..=51 {
        let origin = if generation % 2 == 0 { "https://other.test" } else { "https://app.test" };
        gateway.reload_with(&config(upstream.address(), "", origin));
        gateway.wait_for_log(&format!("reloaded generation={generation}\n"));
        echo(&mut socket, &format!("after {generation}"));
    }
    // The upstream may even leave the configuration.
    let other = Upstream::start(|_| Reply::new(200));
    gateway.reload_with(&config(other.address(), "", "*"));
    gateway.wait_for_log("reloaded generation=52\n");
    echo(&mut socket, "still there");
    assert_eq!(upstream.hits(), 1);
}

/// With a new configuration every minute and WebSockets that last for days, the memory would have no bound.
#[test]
fn long_responses_keep_no_configuration_in_memory() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/socket" => Reply::echo(),
        _ => Reply::new(200).header("Content-Length", "100").body("begin"),
    });
    let config = |n: u32| {
        let text = config(upstream.address(), "", &format!("https://app{n}.test"));
        text.replacen("\nlimits:", "\nadmin: { address: \"{admin}\" }\naccess_log: { to: access.log }\nlimits:", 1)
    };
    let gateway = Gateway::start(&config(1));
    let mut socket = open(&gateway);
    let mut stream = Connection::open(gateway.address()).unwrap();
    stream.send(b"GET /stream HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    stream.receive("HTTP/1.1 200".len()).unwrap();
    for generation in 2..=6 {
        gateway.reload_with(&config(generation));
        gateway.wait_for_log(&format!("reloaded generation={generation}\n"));
    }
    let is_freed = || (gateway.metric("corsgate_config_generations_retained") == 0).then_some(());
    assert!(poll(Duration::from_secs(20), is_freed).is_some(), "{}", gateway.metrics());
    assert_eq!(gateway.metric("corsgate_requests_in_flight"), 2);

    // The records of both requests are complete.
    echo(&mut socket, "still there");
    drop((socket, stream));
    let log = gateway.wait_for_access_log(2);
    for (path, status) in [("/socket", 101), ("/stream", 200)] {
        let line = log.iter().find(|line| line.contains(path)).unwrap();
        for field in [format!("\"status\":{status},"), "\"route\":\"api\"".into(), "\"upstream\":\"api\"".into()] {
            assert!(line.contains(&field), "no {field} in {line}");
        }
        assert!(line.contains("\"generation\":1}"), "{line}");
    }
    for status in ["1xx", "2xx"] {
        let labels = format!("service=\"api\",route=\"api\",method=\"GET\",status=\"{status}\"");
        assert_eq!(gateway.metric(&format!("corsgate_requests_total{{{labels}}}")), 1, "{labels}");
    }
}

/// A client may send data before it has the 101, in the same segment as the request or later.
#[test]
fn data_before_the_101_reaches_the_upstream() {
    let upstream = Upstream::start(|_| Reply::echo().after(Duration::from_millis(100)));
    let gateway = Gateway::start(&config(upstream.address(), "", "https://app.test"));
    let fields: String = UPGRADE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET /socket HTTP/1.1\r\n{fields}");
    for (hit, pieces) in [(1, ["\r\nhel", "lo"]), (2, ["\r\n", "hello"])] {
        let mut socket = Connection::open(gateway.address()).unwrap();
        socket.send(format!("{request}{}", pieces[0]).as_bytes()).unwrap();
        upstream.wait_for_hits(hit);
        socket.send(pieces[1].as_bytes()).unwrap();
        assert_eq!(socket.read("GET").unwrap().status, 101, "{pieces:?}");
        assert_eq!(socket.receive(5).unwrap(), b"hello", "{pieces:?}");
        echo(&mut socket, "and more");
    }
}

#[test]
fn a_websocket_over_tls_survives_reloads_of_its_certificate() {
    let authority = Authority::new("authority");
    let (first, upstream_certificate) = (authority.issue(&["api.test"]), authority.issue(&["upstream.test"]));
    let upstream = Upstream::start_tls(upstream_certificate.server(None, &[]), |_| Reply::echo());
    let text = format!(
        "
listeners:
  - address: \"{{listen}}\"
    tls: {{ certificates: [{{ cert: tls/api.crt, key: tls/api.key }}] }}
services:
  - name: api
    upstream:
      nodes: [{{ address: \"{}\" }}]
      tls: {{ sni: upstream.test, ca: tls/ca.pem }}
    cors: {{ allow_origins: https://app.test }}
",
        upstream.address()
    );
    let files = [first.files("tls/api"), vec![("tls/ca.pem".to_owned(), authority.pem())]].concat();
    let gateway = Gateway::start_with_files(&text, &files);
    // Browsers use HTTP/1.1 for a WebSocket, although they support HTTP/2.
    let tls = TlsClient::new(&authority, "api.test").protocols(&["http/1.1"]);
    let mut socket = upgrade(Connection::open_tls(gateway.address(), &tls).unwrap());
    for generation in 2..=6 {
        let renewed = authority.issue(&["api.test"]);
        gateway.replace_all(&renewed.files("tls/api"));
        gateway.reload_with(&text);
        gateway.wait_for_log(&format!("reloaded generation={generation}\n"));
        let new = Connection::open_tls(gateway.address(), &tls).unwrap();
        assert!(new.server_certificate() == renewed.der);
        echo(&mut socket, &format!("after {generation}"));
    }
    echo(&mut socket, &"large ".repeat(50_000));
}

/// HTTP/2 has no Upgrade. A server for both versions accepts WebSockets over HTTP/1.1.
#[test]
fn a_websocket_to_an_http_2_upstream_uses_http_1() {
    let authority = Authority::new("authority");
    let certificate = authority.issue(&["upstream.test"]);
    let plain = Upstream::start(|_| Reply::echo());
    let tls = Upstream::start_tls(certificate.server(None, &["h2", "http/1.1"]), |_| Reply::echo());
    let config = format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - {{ name: plain, hosts: [api.test], upstream: {{ nodes: [{{ address: \"{}\" }}], http2: true }} }}
  - name: tls
    hosts: [tls.test]
    upstream: {{ nodes: [{{ address: \"{}\" }}], http2: true, tls: {{ sni: upstream.test, ca: tls/ca.pem }} }}
",
        plain.address(),
        tls.address()
    );
    let gateway = Gateway::start_with_files(&config, &[("tls/ca.pem".to_owned(), authority.pem())]);
    for host in ["api.test", "tls.test"] {
        let mut socket = Connection::open(gateway.address()).unwrap();
        let fields = UPGRADE.map(|(name, value)| if name == "Host" { (name, host) } else { (name, value) });
        let response = socket.request("GET", "/socket", &fields, b"").unwrap();
        assert_eq!((response.status, response.header("Upgrade")), (101, Some("websocket")), "{host}");
        echo(&mut socket, "hello");
    }
}

/// Pingora 0.9.1 closes the connection after the 101 if it handles the 101 before the end of the request body. With an
/// upstream that answers at once, this closed one WebSocket in thirty.
#[test]
fn an_immediate_101_of_the_upstream_keeps_the_websocket_open() {
    let upstream = Upstream::start(|_| Reply::echo());
    let gateway = Gateway::start(&config(upstream.address(), "", "https://app.test"));
    for i in 0..500 {
        echo(&mut open(&gateway), &format!("hello {i}"));
    }
}

#[test]
fn timeouts_websocket_closes_only_idle_websockets() {
    let upstream = Upstream::start(|_| Reply::echo());
    let gateway = Gateway::start(&config(upstream.address(), "websocket: 1500ms", "https://app.test"));
    let mut talking = open(&gateway);
    let since = Instant::now();
    let mut quiet = open(&gateway);
    let waiting = thread::spawn(move || (quiet.closed(), Instant::now()));
    while !waiting.is_finished() || since.elapsed() < Duration::from_secs(2) {
        echo(&mut talking, "hello");
        thread::sleep(Duration::from_millis(100));
    }
    let (closed, at) = waiting.join().unwrap();
    let lasted = at - since;
    assert!(closed && lasted >= Duration::from_millis(1200) && lasted < Duration::from_secs(7), "{lasted:?}");
    // The connection to the upstream is closed too.
    upstream.wait_for_closed(1);
    echo(&mut talking, "hello");
    assert!(talking.closed());
    upstream.wait_for_closed(2);
}

/// The pause is longer than each of the other timeouts.
#[test]
fn request_timeouts_do_not_end_a_websocket() {
    let upstream = Upstream::start(|_| Reply::echo());
    let timeouts = "read: 1500ms, write: 1500ms, idle: 1500ms, total: 1500ms";
    let gateway = Gateway::start(&config(upstream.address(), timeouts, "https://app.test"));
    let mut socket = open(&gateway);
    echo(&mut socket, "before");
    thread::sleep(Duration::from_secs(2));
    echo(&mut socket, "after");
}

#[test]
fn closing_either_side_of_a_websocket_closes_the_other() {
    let upstream = Upstream::start(|_| Reply::echo());
    let gateway = Gateway::start(&config(upstream.address(), "", "https://app.test"));
    let mut socket = open(&gateway);
    echo(&mut socket, "hello");
    drop(socket);
    upstream.wait_for_closed(1);
    let mut socket = open(&gateway);
    echo(&mut socket, "hello");
    drop(upstream);
    assert!(socket.closed());
}

/// A page of any site can open a WebSocket with the user's cookies. `cross_site: reject` applies the policy to it, but
/// not to other requests with `Upgrade`.
#[test]
fn a_websocket_of_another_site_is_rejected() {
    let upstream = Upstream::start(|request| match request.header("Upgrade") {
        Some(_) => Reply::echo(),
        None => Reply::new(200),
    });
    let text = config(upstream.address(), "", "https://app.test");
    let gateway = Gateway::start(&text.replace("\"https://app.test\"", "\"https://app.test\", cross_site: reject"));
    let (cross_site, same_origin) = (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-origin"));
    let (websocket, odd, h2c) = (("Upgrade", "websocket"), ("Upgrade", "WebSocket"), ("Upgrade", "h2c"));
    let (evil, own) = (("Origin", "https://evil.test"), ("Origin", "https://api.test"));
    for (status, protocol, fields) in [
        (403, websocket, &[evil][..]),
        (403, odd, &[evil, cross_site]),
        (403, websocket, &[evil, cross_site]),
        (403, websocket, &[cross_site]),
        (101, websocket, &[ORIGIN, cross_site]),
        (101, websocket, &[own]),
        (101, websocket, &[own, same_origin]),
        (101, websocket, &[]),
        (200, h2c, &[evil, cross_site]),
    ] {
        let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let all = [&[("Host", "api.test"), ("Connection", "Upgrade"), protocol, key], fields].concat();
        let response = Connection::open(gateway.address()).unwrap().request("GET", "/socket", &all, b"").unwrap();
        assert_eq!(response.status, status, "{protocol:?} {fields:?}: {}", response.text());
    }
    assert_eq!(upstream.hits(), 5);
}

//! Nodes at Unix-domain sockets.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::nginx;
use crate::support::process::{PROCESS_TIMEOUT, poll};
use crate::support::unix_relay::UnixRelay;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

/// Returns a configuration with one node. `more` is added to the upstream.
fn config(node: &str, more: &str) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log }}
upstreams:
  api:
    nodes: [{{ address: '{node}' }}]
{more}
services:
  - {{ name: api, upstream: api, cors: {{ allow_origins: https://app.test }} }}
"
    )
}

fn get(gateway: &Gateway) -> Response {
    let response = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN]);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{response:?}");
    response
}

/// Returns the name of the node at `app.sock` in the directory of the gateway.
fn node(gateway: &Gateway) -> String {
    format!("unix:{}", gateway.dir().join("app.sock").display())
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    assert!(poll(PROCESS_TIMEOUT, || condition().then_some(())).is_some(), "not in time: {what}");
}

#[test]
fn a_socket_beside_the_configuration_file_is_a_node_as_any_other() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/socket" => Reply::echo(),
        _ => Reply::new(200).body(request.body.clone()),
    });
    let gateway = Gateway::start(&config("unix:app.sock", ""));
    let relay = UnixRelay::start(gateway.dir().join("app.sock"), upstream.address());
    let mut connection = Connection::open(gateway.address()).unwrap();
    for method in ["GET", "POST", "PUT"] {
        let body = if method == "GET" { "" } else { "body" };
        let response = connection.request(method, "/", &[HOST, ORIGIN], body.as_bytes()).unwrap();
        assert_eq!((response.status, response.text()), (200, body));
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    }
    assert_eq!(relay.accepted(), 1, "the connection is kept");
    assert_eq!(upstream.received()[0].header("Host"), Some("api.test"));

    // The log, the metrics and the status page name the socket.
    let node = node(&gateway);
    let lines = gateway.wait_for_access_log(3);
    assert!(lines[0].contains(&format!("\"node\":\"{node}\"")), "{}", lines[0]);
    assert_eq!(gateway.metric(&format!("corsgate_upstream_connects_total{{upstream=\"api\",address=\"{node}\"}}")), 1);
    assert_eq!(gateway.metric(&format!("corsgate_upstream_node_healthy{{upstream=\"api\",address=\"{node}\"}}")), 1);
    assert!(fetch(gateway.admin(), "GET", "/", &[("Host", "localhost")]).text().contains(&node));

    let mut socket = Connection::open(gateway.address()).unwrap();
    let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(socket.request("GET", "/socket", &upgrade, b"").unwrap().status, 101);
    for _ in 0..3 {
        socket.send(b"hello").unwrap();
        assert_eq!(socket.receive(5).unwrap(), b"hello");
    }
    assert_eq!(relay.accepted(), 2);
}

#[test]
fn upstream_host_node_sends_localhost() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let host = "cors: { allow_origins: https://app.test }, upstream_host: node }";
    let gateway =
        Gateway::start(&config("unix:app.sock", "").replace("cors: { allow_origins: https://app.test } }", host));
    let _relay = UnixRelay::start(gateway.dir().join("app.sock"), upstream.address());
    assert_eq!(get(&gateway).status, 200);
    assert_eq!(upstream.received()[0].header("Host"), Some("localhost"));
}

#[test]
fn tls_and_http_2_work_over_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let authority = Authority::new("ca");
    let certificate = authority.issue(&["app.internal"]);
    let files = [("ca.crt".to_owned(), authority.pem())];
    let address = format!("unix:{}", path.display());

    let upstream = Upstream::start_tls(certificate.server(None, &[]), |_| Reply::new(200));
    let relay = UnixRelay::start(&path, upstream.address());
    let tls = "    tls: { ca: ca.crt, sni: app.internal }";
    let gateway = Gateway::start_with_files(&config(&address, tls), &files);
    assert_eq!(get(&gateway).status, 200);
    assert_eq!(upstream.received()[0].sni.as_deref(), Some("app.internal"));
    let other = "    tls: { ca: ca.crt, sni: other.internal }";
    let gateway = Gateway::start_with_files(&config(&address, other), &files);
    assert_eq!(get(&gateway).status, 502, "the certificate has another name");
    gateway.wait_for_log("set `tls.sni`");
    drop(relay);

    for (secure, more) in
        [(true, "    http2: true\n    tls: { ca: ca.crt, sni: app.internal }"), (false, "    http2: true")]
    {
        let answer = |_: &_| H2Reply::new(200);
        let upstream = match secure {
            true => H2Upstream::start_tls(certificate.server(None, &["h2"]), answer),
            false => H2Upstream::start(answer),
        };
        let relay = UnixRelay::start(&path, upstream.address());
        let gateway = Gateway::start_with_files(&config(&address, more), &files);
        for _ in 0..3 {
            assert_eq!(get(&gateway).status, 200);
        }
        assert_eq!((upstream.hits(), relay.accepted()), (3, 1));
    }
}

#[test]
fn health_checks_find_a_socket_that_appears_and_disappears() {
    for (check, host) in [("interval: 50ms", None), ("path: /health, interval: 50ms", Some("localhost"))] {
        let upstream = Upstream::start(|_| Reply::new(200));
        let gateway = Gateway::start(&config(
            "unix:app.sock",
            &format!("    health_check: {{ {check}, healthy_after: 1, unhealthy_after: 1 }}"),
        ));
        gateway.wait_for_log(&format!("node unhealthy upstream=api address={}", node(&gateway)));
        assert_eq!(get(&gateway).status, 503);
        let relay = UnixRelay::start(gateway.dir().join("app.sock"), upstream.address());
        gateway.wait_for_log(&format!("node healthy upstream=api address={}", node(&gateway)));
        assert_eq!(get(&gateway).status, 200);
        let checked = upstream.received().into_iter().find(|request| request.target == "/health");
        assert_eq!(checked.as_ref().and_then(|request| request.header("Host")), host);
        drop(relay);
        gateway.wait_for_log_count("node unhealthy", 2);
    }
}

#[test]
fn a_socket_that_cannot_be_used_gives_502_and_the_log_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "").unwrap();
    fs::create_dir(path("folder")).unwrap();
    drop(UnixListener::bind(path("left")).unwrap());
    for (name, why) in [
        ("nothing", "there is no socket at this path"),
        ("file", "nothing listens there"),
        ("folder", "nothing listens there"),
        ("left", "nothing listens there"),
    ] {
        let gateway = Gateway::start(&config(&format!("unix:{}", path(name).display()), ""));
        assert_eq!(get(&gateway).status, 502, "{name}");
        gateway.wait_for_log(why);
        assert!(gateway.stderr().contains(&format!("address=unix:{}", path(name).display())), "{}", gateway.stderr());
    }
}

#[test]
fn a_failed_socket_is_retried_at_another_node_and_ejected() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let nodes = format!("unix:app.sock' }}, {{ address: '{}", upstream.address());
    let gateway = Gateway::start(&config(&nodes, "    ejection: { after: 1, for: 1h }"));
    for _ in 0..4 {
        assert_eq!(get(&gateway).status, 200);
    }
    gateway.wait_for_log(&format!("node ejected upstream=api address={}", node(&gateway)));
    assert_eq!(gateway.stderr().matches("connect failed").count(), 1);
}

#[test]
fn a_reload_keeps_the_state_and_the_connections_of_a_socket() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config("unix:app.sock", ""));
    let relay = UnixRelay::start(gateway.dir().join("app.sock"), upstream.address());
    assert_eq!(get(&gateway).status, 200);
    gateway.reload_with(&format!("{}# the same\n", config("unix:app.sock", "")));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(get(&gateway).status, 200);
    assert_eq!(relay.accepted(), 1);
    let other = UnixRelay::start(gateway.dir().join("other.sock"), upstream.address());
    gateway.reload_with(&config("unix:other.sock", ""));
    wait("the other socket is used", || get(&gateway).status == 200 && other.accepted() == 1);
    assert!(relay.path().ends_with("app.sock"));
}

#[test]
fn nginx_at_a_socket_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let address = ([127, 0, 0, 1], free_port()).into();
    let path = folder.path().join("nginx.sock");
    let server =
        format!("listen {address}; listen unix:{}; location / {{ return 200 \"$server_addr\"; }}", path.display());
    let _nginx = nginx::start(folder.path(), address, &server);
    let gateway = Gateway::start(&config(&format!("unix:{}", path.display()), ""));
    let response = get(&gateway);
    assert_eq!((response.status, response.text()), (200, &*format!("unix:{}", path.display())));
}

#[test]
fn a_socket_that_reads_nothing_gives_504() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let more = "    timeouts: { read: 300ms, write: 300ms }\n    retries: 0";
    let gateway = Gateway::start(&config(&format!("unix:{}", path.display()), more));
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4194304\r\n\r\n").unwrap();
    // The send may fail, because the gateway stops reading and then closes the connection.
    let _ = connection.send(&vec![b'a'; 4 << 20]);
    assert_eq!(connection.read("PUT").unwrap().status, 504);
    drop(listener);
}

/// If the backlog of a Unix-domain socket is full, a connection fails at once, and does not wait as with TCP.
#[test]
#[cfg(target_os = "linux")]
fn a_socket_with_a_full_backlog_fails_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let fill = |path: &Path| {
        let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let connected = client.connect(&socket2::SockAddr::unix(path).unwrap());
        connected.map(|()| client)
    };
    let filled: Vec<_> = std::iter::repeat_with(|| fill(&path)).take_while(Result::is_ok).collect();
    assert!(!filled.is_empty() && filled.len() < 10);
    let gateway = Gateway::start(&config(&format!("unix:{}", path.display()), ""));
    assert_eq!(get(&gateway).status, 502);
    gateway.wait_for_log("the queue of the socket is full");
}

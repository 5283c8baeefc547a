//! `clients` of a listener: the address that is checked behind proxies, with PROXY headers, and on Unix-domain sockets.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, run};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::process::{PROCESS_TIMEOUT, poll};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const GET: &str = "GET / HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\n";

struct Edge {
    gateway: Gateway,
    upstream: Upstream,
    unix: PathBuf,
    _folder: TempDir,
}

/// Returns a configuration with three listeners. `tcp` has keys of the first listener, and `socket` has the path and
/// keys of the Unix listener. The third listener has no such keys.
fn config(tcp: &str, socket: (&Path, &str), more: &str, upstream: SocketAddr) -> String {
    let (path, unix) = socket;
    format!(
        "
listeners:
  - {{ address: \"{{listen}}\"{tcp} }}
  - {{ address: \"unix:{}\"{unix} }}
  - {{ address: \"{{listen2}}\" }}
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log }}
{more}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT] }}
",
        path.display()
    )
}

impl Edge {
    fn start(tcp: &str, unix: &str, more: &str) -> Self {
        let (folder, upstream) = (TempDir::with_prefix("corsgate-").unwrap(), Upstream::start(|_| Reply::new(200)));
        let path = folder.path().join("edge.sock");
        let gateway = Gateway::start(&config(tcp, (&path, unix), more, upstream.address()));
        assert!(poll(PROCESS_TIMEOUT, || UnixStream::connect(&path).ok()).is_some(), "no socket");
        Edge { gateway, upstream, unix: path, _folder: folder }
    }

    fn tcp(&self) -> Connection {
        Connection::open(self.gateway.address()).unwrap()
    }

    fn unix(&self) -> Connection {
        Connection::open_unix(&self.unix).unwrap()
    }
}

/// Sends the bytes `first` and a request with these fields, and returns the status of the response. Checks that the
/// response has the CORS headers of the policy.
#[track_caller]
fn status_of(mut connection: Connection, first: &[u8], fields: &str) -> u16 {
    connection.send(&[first, format!("{GET}{fields}\r\n").as_bytes()].concat()).unwrap();
    let response = connection.read("GET").unwrap();
    assert_readable(&response);
    response.status
}

#[track_caller]
fn assert_readable(response: &Response) {
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1), "{response:?}");
    assert_eq!(response.header("Vary"), Some("Origin"), "{response:?}");
}

#[test]
fn a_denied_client_gets_403_with_cors_headers_on_this_listener_only() {
    let edge = Edge::start(", http2: true, clients: { deny: [127.0.0.0/8] }", "", "");
    let denied = fetch(edge.gateway.address(), "GET", "/", &[HOST, ORIGIN]);
    assert_eq!((denied.status, denied.text()), (403, "This client may not send requests here.\n"));
    assert_readable(&denied);
    let client = H2Client::open_plain(edge.gateway.address()).unwrap();
    let request = |path: &str| H2Request::new("GET", "api.test", path).header("origin", ORIGIN.1);
    let over_http_2 = client.request(&request("/")).unwrap();
    assert_eq!(over_http_2.status, 403);
    assert_readable(&over_http_2);
    let call = H2Request::new("POST", "api.test", "/test.Echo/Say").header("content-type", "application/grpc");
    let call = client.request(&call.header("origin", ORIGIN.1).data("x")).unwrap();
    assert_eq!((call.status, call.header("grpc-status")), (200, Some("7")));
    // The status does not show a denied client which hosts and paths exist.
    for (host, path) in [("other.test", "/"), ("api.test", "/none")] {
        assert_eq!(fetch(edge.gateway.address(), "GET", path, &[("Host", host)]).status, 403, "{host}{path}");
    }
    // The page of a denied client can read the 403, because its preflight is answered.
    let fields = [HOST, ORIGIN, ("Access-Control-Request-Method", "PUT")];
    let preflight = fetch(edge.gateway.address(), "OPTIONS", "/", &fields);
    assert_eq!((preflight.status, preflight.header("Access-Control-Allow-Methods")), (200, Some("GET, PUT")));
    assert_eq!(edge.upstream.hits(), 0);

    assert_eq!(fetch(edge.gateway.address2(), "GET", "/", &[HOST, ORIGIN]).status, 200);
    let log = edge.gateway.wait_for_access_log(7);
    assert_eq!(log.iter().filter(|line| line.contains("\"reason\":\"client_denied\"")).count(), 5, "{log:#?}");
}

#[test]
fn the_client_that_a_trusted_proxy_reports_counts() {
    for (clients, accepted, denied) in [
        ("allow: [192.0.2.0/24]", "192.0.2.7", "198.51.100.7"),
        ("deny: [198.51.100.7]", "192.0.2.7", "198.51.100.7"),
        ("allow: [192.0.2.0/24], deny: [192.0.2.9]", "192.0.2.7", "192.0.2.9"),
        ("allow: ['2001:db8::/32']", "2001:db8::7", "2001:db9::7"),
        ("allow: [192.0.2.0/24]", "::ffff:192.0.2.7", "::ffff:198.51.100.7"),
    ] {
        let clients = format!(", clients: {{ {clients} }}");
        let edge = Edge::start(&clients, &clients, "trusted_proxies: [unix, 127.0.0.1]");
        let report = |chain: &str| format!("X-Forwarded-For: {chain}\r\n");
        for open in [Edge::tcp, Edge::unix] {
            assert_eq!(status_of(open(&edge), b"", &report(accepted)), 200, "{clients} {accepted}");
            assert_eq!(status_of(open(&edge), b"", &report(denied)), 403, "{clients} {denied}");
            // The client itself can send the first entry.
            assert_eq!(status_of(open(&edge), b"", &report(&format!("{accepted}, {denied}"))), 403, "{clients}");
        }
    }
    // A peer that is not trusted cannot report a client.
    let clients = ", clients: { allow: [192.0.2.0/24] }";
    let edge = Edge::start(clients, clients, "trusted_proxies: [10.0.0.0/8]");
    for open in [Edge::tcp, Edge::unix] {
        assert_eq!(status_of(open(&edge), b"", "X-Forwarded-For: 192.0.2.7\r\n"), 403);
    }
    assert_eq!(edge.upstream.hits(), 0);
}

#[test]
fn the_client_of_a_proxy_header_counts() {
    let listener = ", proxy_protocol: true, clients: { allow: [192.0.2.0/24, 127.0.0.1], deny: [192.0.2.9] }";
    let edge = Edge::start(listener, listener, "trusted_proxies: [unix, 127.0.0.1]");
    let header = |client: &str| format!("PROXY TCP4 {client} 10.0.0.1 4711 80\r\n");
    for open in [Edge::tcp, Edge::unix] {
        for (client, status) in [("192.0.2.7", 200), ("192.0.2.9", 403), ("198.51.100.7", 403), ("127.0.0.1", 200)] {
            assert_eq!(status_of(open(&edge), header(client).as_bytes(), ""), status, "{client}");
        }
        // The client in the PROXY header is not a trusted proxy, so its `X-Forwarded-For` is ignored.
        let forged = "X-Forwarded-For: 192.0.2.7\r\n";
        assert_eq!(status_of(open(&edge), header("198.51.100.7").as_bytes(), forged), 403);
        // The sender of these requests is not known. The lists do not use the address of the balancer instead.
        for unknown in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"] {
            assert_eq!(status_of(open(&edge), unknown, forged), 403, "{}", unknown.escape_ascii());
        }
    }
    // A health check of the balancer itself. Its forwarding headers are not trusted.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(status_of(edge.tcp(), local, "X-Forwarded-For: 198.51.100.7\r\n"), 200);
    assert_eq!(status_of(edge.unix(), local, ""), 403, "a Unix-domain socket has no address");
}

#[test]
fn a_client_of_a_unix_socket_is_in_no_list() {
    for (clients, status) in [
        ("deny: [127.0.0.1, '::1', 0.0.0.0/0]", 200),
        ("allow: [127.0.0.1, 0.0.0.0/0, '::/0']", 403),
        ("allow: [10.0.0.0/8], deny: [10.0.0.1]", 403),
    ] {
        for trusted in ["", "trusted_proxies: [127.0.0.1]", "trusted_proxies: [unix]"] {
            let edge = Edge::start("", &format!(", clients: {{ {clients} }}"), trusted);
            assert_eq!(status_of(edge.unix(), b"", ""), status, "{clients} {trusted}");
        }
    }
}

/// `why` explains the decision of the first listener that matches the URL.
#[test]
fn why_says_that_another_listener_refused_the_client() {
    let edge = Edge::start("", ", clients: { allow: [127.0.0.1] }", "debug_header: true");
    let denied = edge.unix().request("GET", "/", &[HOST, ORIGIN], b"").unwrap();
    let id = denied.header("X-Request-Id").unwrap();
    let output = run(&["why", id, "--admin", &format!("http://{}", edge.gateway.admin())]);
    for part in ["client_denied", "refused by `clients` of the listener that received it", "allowed: a page of"] {
        assert!(output.stdout.contains(part), "no {part} in {}", output.stdout);
    }
}

#[test]
fn a_reload_changes_the_clients_of_open_connections() {
    let edge = Edge::start("", "", "");
    let mut kept = [edge.tcp(), edge.unix()];
    let mut statuses =
        || kept.each_mut().map(|connection| connection.request("GET", "/", &[HOST, ORIGIN], b"").unwrap().status);
    assert_eq!(statuses(), [200, 200]);
    let clients = ", clients: { allow: [10.0.0.0/8] }";
    edge.gateway.reload_with(&config(clients, (&edge.unix, clients), "", edge.upstream.address()));
    edge.gateway.wait_for_log("reloaded generation=2");
    assert_eq!(statuses(), [403, 403]);
    edge.gateway.reload_with(&config("", (&edge.unix, ""), "", edge.upstream.address()));
    edge.gateway.wait_for_log("reloaded generation=3");
    assert_eq!(statuses(), [200, 200]);
    assert!(!edge.gateway.stderr().contains("needs a restart"));
}

//! Listeners on Unix-domain sockets: the address of their clients, trust, and the file in every phase of the process.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use tempfile::TempDir;

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, Signal, run};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::nginx;
use crate::support::process::poll;
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n";
const TIMEOUT: Duration = Duration::from_secs(15);

/// A gateway with a listener on a Unix-domain socket, and one on TCP.
struct Edge {
    gateway: Gateway,
    upstream: Upstream,
    path: PathBuf,
    _folder: TempDir,
}

/// Returns a configuration. `listener` has keys of the Unix listener, and `more` has keys at the top level.
fn config(path: &Path, listener: &str, more: &str, upstream: SocketAddr) -> String {
    format!(
        "
listeners:
  - {{ address: \"{{listen}}\" }}
  - {{ address: \"unix:{}\"{listener} }}
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log }}
{more}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }}
    cors: {{ allow_origins: https://app.test }}
",
        path.display()
    )
}

/// Starts an upstream that answers with the client's address and scheme.
fn upstream() -> Upstream {
    Upstream::start(|request| {
        let [client, scheme] = ["X-Forwarded-For", "X-Forwarded-Proto"].map(|name| request.header(name).unwrap());
        Reply::new(200).body(format!("{client} {scheme}"))
    })
}

impl Edge {
    fn start(listener: &str, more: &str) -> Self {
        let (folder, upstream) = (TempDir::with_prefix("corsgate-").unwrap(), upstream());
        let path = folder.path().join("edge.sock");
        let gateway = Gateway::start(&config(&path, listener, more, upstream.address()));
        wait_for(&path);
        Edge { gateway, upstream, path, _folder: folder }
    }

    fn open(&self) -> Connection {
        Connection::open_unix(&self.path).unwrap()
    }

    fn fetch(&self, fields: &[(&str, &str)]) -> Response {
        self.open().request("GET", "/", fields, b"").unwrap()
    }
}

/// Waits until a process listens on the socket.
#[track_caller]
fn wait_for(path: &Path) {
    assert!(poll(TIMEOUT, || UnixStream::connect(path).ok()).is_some(), "nothing listens at {}", path.display());
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

// --- clients

#[test]
fn requests_are_served_as_on_tcp_and_come_from_127_0_0_1() {
    let edge = Edge::start(", http2: true", "limits: { connections_per_client: 1 }");
    let forged = ("X-Forwarded-For", "192.0.2.7");
    let mut kept = edge.open();
    for _ in 0..2 {
        let response = kept.request("GET", "/", &[HOST, ORIGIN, forged], b"").unwrap();
        assert_eq!((response.status, response.text()), (200, "127.0.0.1 http"));
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1));
    }
    // Clients of a socket cannot be told apart, so `connections_per_client` does not count them.
    let others: Vec<_> = (0..30).map(|_| edge.open()).collect();
    for mut other in others {
        assert_eq!(other.request("GET", "/", &[HOST], b"").unwrap().status, 200);
    }
    let http_2 = H2Client::open_unix(&edge.path).unwrap();
    assert_eq!(http_2.request(&H2Request::new("GET", "api.test", "/")).unwrap().text(), "127.0.0.1 http");
    assert_eq!(edge.fetch(&[HOST, ("Origin", "https://other.test")]).header("Access-Control-Allow-Origin"), None);

    let log = edge.gateway.wait_for_access_log(34);
    assert!(log.iter().all(|line| line.contains("\"client\":\"127.0.0.1\"")), "{log:#?}");
    let name = format!("unix:{}", edge.path.display());
    let accepted = edge.gateway.metric(&format!("corsgate_connections_total{{listener=\"{name}\"}}"));
    assert!(accepted >= 33, "{accepted}");
    assert!(fetch(edge.gateway.admin(), "GET", "/", &[("Host", "localhost")]).text().contains(&name));
    assert!(fetch(edge.gateway.admin(), "GET", "/config", &[("Host", "localhost")]).text().contains(&name));
}

#[test]
fn tls_works_on_a_unix_socket() {
    let (folder, upstream, authority) = (TempDir::new().unwrap(), upstream(), Authority::new("authority"));
    let path = folder.path().join("tls.sock");
    let tls = ", tls: { certificates: [{ cert: tls/api.crt, key: tls/api.key }] }";
    let files = authority.issue(&["api.test"]).files("tls/api");
    let _gateway = Gateway::start_with_files(&config(&path, tls, "", upstream.address()), &files);
    wait_for(&path);
    let tls = TlsClient::new(&authority, "api.test");
    let session = ClientConnection::new(tls.config(), tls.name()).unwrap();
    let mut stream = StreamOwned::new(session, UnixStream::connect(&path).unwrap());
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n").unwrap();
    let mut answer = String::new();
    // The read can fail, because the gateway may send no close_notify.
    let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
    assert!(answer.ends_with("127.0.0.1 https"), "{answer}");
}

#[test]
fn only_the_word_unix_trusts_the_peers_of_unix_sockets() {
    let fields = [HOST, ("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")];
    let untrusted = "127.0.0.1 http";
    for (trusted, unix, tcp) in [
        ("[unix]", "192.0.2.7, 127.0.0.1 https", untrusted),
        ("[127.0.0.1]", untrusted, "192.0.2.7, 127.0.0.1 https"),
        ("[unix, 127.0.0.1]", "192.0.2.7, 127.0.0.1 https", "192.0.2.7, 127.0.0.1 https"),
        ("[10.0.0.0/8]", untrusted, untrusted),
    ] {
        let edge = Edge::start("", &format!("trusted_proxies: {trusted}"));
        assert_eq!(edge.fetch(&fields).text(), unix, "{trusted}");
        assert_eq!(fetch(edge.gateway.address(), "GET", "/", &fields).text(), tcp, "{trusted}");
    }
    // The access log has the client that the proxy reports.
    let edge = Edge::start("", "trusted_proxies: unix");
    edge.fetch(&fields);
    assert!(edge.gateway.wait_for_access_log(1)[0].contains("\"client\":\"192.0.2.7\""));
}

#[test]
fn a_proxy_header_names_the_client() {
    let edge = Edge::start(", proxy_protocol: true", "trusted_proxies: [unix]");
    let pair = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
    let binary = |command: u8, family: u8, rest: &[u8]| {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, rest].concat()
    };
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), "2001:db8::7"),
        (binary(1, 0x11, &pair), "192.0.2.7"),
        // The client itself uses a Unix-domain socket, or the balancer sends a health check.
        (binary(1, 0x31, &[0; 216]), "127.0.0.1"),
        (binary(0, 0, b""), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut connection = edge.open();
        let forged = b"GET / HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n";
        connection.send(&[&header[..], forged].concat()).unwrap();
        assert_eq!(connection.read("GET").unwrap().text(), format!("{client} http"), "{}", header.escape_ascii());
    }
    let mut without = edge.open();
    without.send(GET).unwrap();
    assert!(without.closed());
    edge.gateway.wait_for_log("connection closed before a request peer=unix reason=");
}

/// nginx is a common proxy in front of the gateway.
#[test]
fn nginx_in_front_passes_the_client() {
    let edge = Edge::start("", "trusted_proxies: [unix]");
    let folder = TempDir::new().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], crate::support::gateway::free_port()));
    let server = format!(
        "listen {address}; location / {{ proxy_pass http://unix:{}:; proxy_set_header Host $host;
         proxy_set_header X-Forwarded-For 192.0.2.7; proxy_set_header X-Forwarded-Proto https; }}",
        edge.path.display()
    );
    let _nginx = nginx::start(folder.path(), address, &server);
    assert_eq!(fetch(address, "GET", "/", &[HOST]).text(), "192.0.2.7, 127.0.0.1 https");
}

#[test]
fn the_limit_of_all_connections_counts_them() {
    let edge = Edge::start("", "limits: { connections: 1 }");
    // The connection of `wait_for` counts until the gateway has detected its end.
    let accepted = || {
        let mut connection = edge.open();
        (connection.request("GET", "/", &[HOST], b"").unwrap().status == 200).then_some(connection)
    };
    let _first = poll(TIMEOUT, accepted).expect("a connection within the limit");
    let refused = poll(TIMEOUT, || Some(edge.fetch(&[HOST, ORIGIN])).filter(|response| response.status == 503));
    assert_eq!(refused.unwrap().header("Access-Control-Allow-Origin"), Some(ORIGIN.1));
}

// --- the file

#[test]
fn the_file_has_the_mode_of_the_configuration() {
    for (key, mode) in [("", 0o660), (", mode: \"0600\"", 0o600), (", mode: 0666", 0o666)] {
        let edge = Edge::start(key, "");
        // Pingora sets the mode after it has begun to listen.
        let found = || fs::metadata(&edge.path).unwrap().permissions().mode() & 0o777;
        assert!(poll(TIMEOUT, || (found() == mode).then_some(())).is_some(), "{key}: {:o}", found());
    }
}

#[test]
fn the_file_is_removed_at_the_end_and_left_by_a_reload() {
    for signal in [Signal::Term, Signal::Int] {
        let mut edge = Edge::start("", "");
        let before = fs::metadata(&edge.path).unwrap().ino();
        edge.gateway.signal(Signal::Hup);
        edge.gateway.wait_for_log("reloaded generation=2");
        assert_eq!(fs::metadata(&edge.path).unwrap().ino(), before);
        assert_eq!(edge.fetch(&[HOST]).status, 200);
        edge.gateway.signal(signal);
        assert!(edge.gateway.exit().success());
        assert!(!edge.path.exists(), "{signal:?}");
    }
}

#[test]
fn a_relative_path_is_in_the_directory_of_the_configuration() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(Path::new("edge.sock"), "", "", upstream.address()));
    let path = gateway.dir().join("edge.sock");
    wait_for(&path);
    assert_eq!(Connection::open_unix(&path).unwrap().request("GET", "/", &[HOST], b"").unwrap().status, 200);
    assert!(gateway.stderr().contains(&format!(",unix:{} ", path.display())), "{}", gateway.stderr());
}

#[test]
fn requests_go_on_during_the_drain_delay() {
    let mut edge = Edge::start("", "server: { drain_delay: 1h }");
    edge.gateway.signal(Signal::Term);
    edge.gateway.wait_for_log("draining, /readyz fails");
    assert_eq!(edge.fetch(&[HOST]).status, 200);
    edge.gateway.signal(Signal::Term);
    assert!(edge.gateway.exit().success());
    assert!(!edge.path.exists());
}

#[test]
fn the_socket_of_a_killed_process_is_replaced() {
    let (folder, upstream) = (TempDir::new().unwrap(), upstream());
    let path = folder.path().join("edge.sock");
    let text = config(&path, "", "", upstream.address());
    let killed = Gateway::start(&text);
    wait_for(&path);
    drop(killed);
    assert!(is_socket(&path) && UnixStream::connect(&path).is_err());
    let _gateway = Gateway::start(&text);
    wait_for(&path);
    assert_eq!(Connection::open_unix(&path).unwrap().request("GET", "/", &[HOST], b"").unwrap().status, 200);
}

/// Starts `corsgate run` with a listener at this path, which must fail. Returns its log.
fn refused(path: &Path, arguments: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    let free = || format!("127.0.0.1:{}", crate::support::gateway::free_port());
    let text = config(path, "", "", SocketAddr::from(([127, 0, 0, 1], 1)));
    let file = folder.path().join("corsgate.yaml");
    fs::write(&file, text.replace("{listen}", &free()).replace("{admin}", &free())).unwrap();
    let output = run(&[&["run", "--config", file.to_str().unwrap()], arguments].concat());
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{}", output.stderr);
    assert!(!output.stderr.contains("serving listeners="), "{}", output.stderr);
    output.stderr
}

#[test]
fn the_socket_of_a_running_process_is_an_error() {
    let edge = Edge::start("", "");
    let log = refused(&edge.path, &[]);
    let expected = format!("cannot listen on unix:{}: another process listens there; ", edge.path.display());
    assert!(log.contains(&expected), "{log}");
    assert_eq!(edge.fetch(&[HOST]).status, 200);
    // The same with the socket of another program.
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("other.sock");
    let other = UnixListener::bind(&path).unwrap();
    assert!(refused(&path, &[]).contains("another process listens there"));
    other.set_nonblocking(true).unwrap();
    assert!(is_socket(&path));
}

#[test]
fn other_files_are_never_removed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("data");
    fs::write(&file, "precious").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &folder.path().to_owned()] {
        for arguments in [&[][..], &["--upgrade"]] {
            let log = refused(path, arguments);
            assert!(log.contains("the file at this path is not a socket; remove the file"), "{log}");
        }
    }
    assert_eq!(fs::read_to_string(&link).unwrap(), "precious");
    let missing = refused(&folder.path().join("missing/edge.sock"), &[]);
    assert!(missing.contains("create the directory"), "{missing}");
    assert!(!folder.path().join("missing").exists());
}

#[test]
fn a_changed_path_needs_a_restart() {
    let edge = Edge::start("", "");
    let other = edge.path.with_file_name("other.sock");
    edge.gateway.reload_with(&config(&other, "", "", edge.upstream.address()));
    edge.gateway.wait_for_log("change needs a restart key=listeners");
    assert_eq!(edge.fetch(&[HOST]).status, 200);
    assert!(!other.exists());
    // A changed mode also needs a restart.
    let edge = Edge::start("", "");
    edge.gateway.reload_with(&config(&edge.path, ", mode: \"0600\"", "", edge.upstream.address()));
    edge.gateway.wait_for_log("change needs a restart key=listeners");
    assert_eq!(fs::metadata(&edge.path).unwrap().permissions().mode() & 0o777, 0o660);
    // Changes of other keys of the listener need no restart.
    let edge = Edge::start("", "");
    let fields = [HOST, ("X-Forwarded-For", "192.0.2.7")];
    assert_eq!(edge.fetch(&fields).text(), "127.0.0.1 http");
    edge.gateway.reload_with(&config(&edge.path, ", http2: true", "trusted_proxies: [unix]", edge.upstream.address()));
    edge.gateway.wait_for_log("reloaded generation=2");
    assert!(!edge.gateway.stderr().contains("needs a restart"));
    assert_eq!(edge.fetch(&fields).text(), "192.0.2.7, 127.0.0.1 http");
    assert!(H2Client::open_unix(&edge.path).is_ok());
}

#[test]
fn an_upgrade_takes_over_the_socket_and_fails_no_request() {
    let mut edge = Edge::start("", "server: { grace_period: 10s }");
    let inode = fs::metadata(&edge.path).unwrap().ino();
    let mut successor = edge.gateway.successor();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let path = &edge.path;
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let response =
                        Connection::open_unix(path).and_then(|mut new| new.request("GET", "/", &[HOST], b""));
                    match response {
                        Ok(response) if response.status == 200 => answered.fetch_add(1, Ordering::Relaxed),
                        failed => {
                            stop.store(true, Ordering::Relaxed);
                            panic!("{failed:?}");
                        }
                    };
                }
            });
        }
        let more = |n| {
            let before = answered.load(Ordering::Relaxed);
            let enough =
                || (stop.load(Ordering::Relaxed) || answered.load(Ordering::Relaxed) > before + n).then_some(());
            assert!(poll(TIMEOUT, enough).is_some(), "no more answers");
        };
        more(20);
        edge.gateway.signal(Signal::Quit);
        successor.wait_for_log("serving listeners=");
        assert!(edge.gateway.exit().success());
        more(50);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::metadata(&edge.path).unwrap().ino(), inode, "the same socket");
    assert_eq!(fs::metadata(&edge.path).unwrap().permissions().mode() & 0o777, 0o660);
    successor.signal(Signal::Term);
    assert!(successor.exit().success());
    assert!(!edge.path.exists());
}

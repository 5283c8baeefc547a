//! The PROXY header at the start of connections to nodes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, copy};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, fetch, read_fields, read_framed_body};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::nginx;
use crate::support::process::{PROCESS_TIMEOUT, Process, poll};
use crate::support::tls_client::TlsClient;
use crate::support::unix_relay::UnixRelay;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");

fn config(node: &str, more: &str) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
trusted_proxies: [127.0.0.9]
upstreams:
  api:
    nodes: [{{ address: '{node}' }}]
{more}
services:
  - {{ name: api, upstream: api, cors: {{ allow_origins: https://app.test }} }}
"
    )
}

fn free() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// A TCP server that removes the PROXY header of each connection, and passes the rest to another server.
struct HeaderRelay {
    address: SocketAddr,
    /// The headers of the connections so far.
    headers: Arc<Mutex<Vec<String>>>,
}

impl HeaderRelay {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, headers) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let seen = headers.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), seen) = (client, seen.clone()) else { return };
                thread::spawn(move || {
                    let Some(header) = read_header(&client) else { return };
                    seen.lock().unwrap().push(header);
                    let Ok(server) = TcpStream::connect(server) else { return };
                    [&client, &server].iter().for_each(|stream| stream.set_nodelay(true).unwrap());
                    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                    let _ = copy(&mut &server, &mut &client);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        HeaderRelay { address, headers }
    }

    fn headers(&self) -> Vec<String> {
        self.headers.lock().unwrap().clone()
    }
}

/// Reads the header of a connection, and returns it as a line of text. Returns None if the connection ends before the
/// header is complete.
fn read_header(mut stream: &TcpStream) -> Option<String> {
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes[..6]).ok()?;
    if bytes[..6] == *b"PROXY " {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            line.extend(byte);
        }
        return Some(format!("v1 {}", String::from_utf8(line).unwrap().trim_end()));
    }
    stream.read_exact(&mut bytes[6..]).ok()?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([bytes[14], bytes[15]]))];
    stream.read_exact(&mut rest).ok()?;
    let header = [&bytes[..], &rest].concat();
    let header = ppp::v2::Header::try_from(&*header).expect("a header of version 2");
    Some(match (header.command, header.addresses) {
        (ppp::v2::Command::Local, _) => "v2 LOCAL".to_owned(),
        (_, ppp::v2::Addresses::IPv4(ip)) => v2_line(ppp::v1::Addresses::Tcp4(ip)),
        (_, ppp::v2::Addresses::IPv6(ip)) => v2_line(ppp::v1::Addresses::Tcp6(ip)),
        other => panic!("{other:?}"),
    })
}

/// Returns the addresses of a binary header as text.
fn v2_line(addresses: ppp::v1::Addresses) -> String {
    addresses.to_string().replace("PROXY", "v2").trim_end().to_owned()
}

/// Opens a connection from this local address.
fn open_from(source: Ipv4Addr, gateway: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&gateway.into()).unwrap();
    socket.into()
}

/// Sends a GET request on this connection, and returns the body of the response.
fn get(mut stream: &TcpStream, fields: &str) -> String {
    use std::io::{BufReader, Write};
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let status = crate::support::client::read_line(&mut reader).unwrap();
    assert!(status.contains(" 200 "), "{status}");
    let fields = read_fields(&mut reader).unwrap();
    let (body, _) = read_framed_body(&mut reader, &fields).unwrap().expect("a body with a length");
    String::from_utf8(body).unwrap()
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    assert!(poll(PROCESS_TIMEOUT, || condition().then_some(())).is_some(), "not in time: {what}");
}

/// Returns the expected body of nginx and HAProxy: the address and port of the client, and the address and port of the
/// gateway.
fn expected(client: &TcpStream, gateway: &Gateway) -> String {
    let client = client.local_addr().unwrap();
    format!("{} {} {} {}", client.ip(), client.port(), gateway.address().ip(), gateway.address().port())
}

/// Starts HAProxy as a node that requires the header.
fn haproxy(folder: &std::path::Path, address: SocketAddr) -> Process {
    let config = format!(
        "defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 20s
frontend node
  bind {address} accept-proxy
  http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"
"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-q").arg("-db").arg("-f").arg(&file);
    Process::spawn_server(command.stdout(Stdio::null()).stderr(Stdio::null()), address)
}

fn nginx_server(address: SocketAddr, more: &str) -> String {
    format!(
        "listen {address} proxy_protocol{more};
location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\"; }}"
    )
}

#[test]
fn nginx_and_haproxy_see_the_client_of_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let (nginx_at, haproxy_at) = (free(), free());
    let _nginx = nginx::start(folder.path(), nginx_at, &nginx_server(nginx_at, ""));
    let _haproxy = haproxy(folder.path(), haproxy_at);
    for (node, version) in [(nginx_at, "v1"), (nginx_at, "v2"), (haproxy_at, "v1"), (haproxy_at, "v2")] {
        let gateway = Gateway::start(&config(&node.to_string(), &format!("    proxy_protocol: {version}")));
        // Many clients send requests at the same time, on keepalive connections. Each client must get its own address.
        thread::scope(|scope| {
            for client in 1..=8 {
                let gateway = &gateway;
                scope.spawn(move || {
                    for _ in 0..3 {
                        let stream = open_from(Ipv4Addr::new(127, 0, 1, client), gateway.address());
                        for _ in 0..5 {
                            assert_eq!(get(&stream, ""), expected(&stream, gateway), "{version} to {node}");
                        }
                    }
                });
            }
        });
        // Forwarding fields that the client sends are ignored.
        let stream = open_from(Ipv4Addr::LOCALHOST, gateway.address());
        let forged = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\n";
        assert_eq!(get(&stream, forged), expected(&stream, &gateway));
        // Forwarding fields of a trusted proxy are used. The port of the proxy's client is not known: nginx shows it as
        // an empty text.
        let proxy = open_from(Ipv4Addr::new(127, 0, 0, 9), gateway.address());
        for (client, mapped) in [("192.0.2.7", ""), ("2001:db8::7", "::ffff:"), ("192.0.2.8", "")] {
            let seen = get(&proxy, &format!("X-Forwarded-For: {client}\r\n"));
            let destination = format!(" {mapped}{} {}", gateway.address().ip(), gateway.address().port());
            assert!(seen.starts_with(&format!("{client} ")) && seen.ends_with(&destination), "{seen}");
        }
    }
}

#[test]
fn nginx_with_tls_gets_the_header_before_the_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    for (name, text) in authority.issue(&["node.test"]).files("node") {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let address = free();
    let at = folder.path().display();
    let tls = format!(" ssl; ssl_certificate {at}/node.crt; ssl_certificate_key {at}/node.key");
    let _nginx = nginx::start(folder.path(), address, &nginx_server(address, &tls));
    for version in ["v1", "v2"] {
        let more = format!("    proxy_protocol: {version}\n    tls: {{ ca: ca.crt, sni: node.test }}");
        let gateway =
            Gateway::start_with_files(&config(&address.to_string(), &more), &[("ca.crt".to_owned(), authority.pem())]);
        let stream = open_from(Ipv4Addr::LOCALHOST, gateway.address());
        assert_eq!(get(&stream, ""), expected(&stream, &gateway));
    }
}

#[test]
fn a_connection_is_kept_for_the_requests_of_one_client_connection() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let relay = HeaderRelay::start(upstream.address());
    let gateway = Gateway::start(&config(&relay.address.to_string(), "    proxy_protocol: v2"));
    let clients: Vec<_> = (0..3).map(|_| open_from(Ipv4Addr::LOCALHOST, gateway.address())).collect();
    for _ in 0..4 {
        clients.iter().for_each(|client| drop(get(client, "")));
    }
    let headers = relay.headers();
    assert_eq!(headers.len(), 3, "{headers:?}");
    let ports: BTreeSet<String> =
        clients.iter().map(|client| format!(" {} ", client.local_addr().unwrap().port())).collect();
    assert!(ports.iter().all(|port| headers.iter().any(|header| header.contains(port))), "{ports:?} {headers:?}");
    // All requests of one client connection use one connection to the node.
    let connections: Vec<u64> = upstream.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections.len(), 12);
    assert!((0..3).all(|client| connections.iter().skip(client).step_by(3).collect::<BTreeSet<_>>().len() == 1));
}

#[test]
fn upgrades_http_2_and_sockets_begin_with_the_header_too() {
    let authority = Authority::new("ca");
    let certificate = authority.issue(&["node.test", "api.test"]);
    let mut files = certificate.files("tls/node");
    files.push(("ca.crt".to_owned(), authority.pem()));

    // A WebSocket to a node at a Unix-domain socket.
    let upstream = Upstream::start(|_| Reply::echo());
    let relay = HeaderRelay::start(upstream.address());
    let gateway = Gateway::start(&config("unix:app.sock", "    proxy_protocol: v1"));
    let _socket = UnixRelay::start(gateway.dir().join("app.sock"), relay.address);
    let mut client = Connection::open(gateway.address()).unwrap();
    let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(client.request("GET", "/", &upgrade, b"").unwrap().status, 101);
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
    let headers = relay.headers();
    assert!(headers.len() == 1 && headers[0].starts_with("v1 TCP4 127.0.0.1 127.0.0.1 "), "{headers:?}");

    // HTTP/2 to the node, with and without TLS: all streams of one client use one connection.
    for (secure, more) in [(true, "    tls: { ca: ca.crt, sni: node.test }"), (false, "")] {
        let answer = |_: &_| H2Reply::new(200);
        let node = match secure {
            true => H2Upstream::start_tls(certificate.server(None, &["h2"]), answer),
            false => H2Upstream::start(answer),
        };
        let relay = HeaderRelay::start(node.address());
        let more = format!("    http2: true\n    proxy_protocol: v2\n{more}");
        let listeners = "listeners: [{ address: \"{listen}\" }, { address: \"{listen2}\", \
                         tls: { certificates: [{ cert: tls/node.crt, key: tls/node.key }] } }]";
        let text =
            config(&relay.address.to_string(), &more).replace("listeners: [{ address: \"{listen}\" }]", listeners);
        let gateway = Gateway::start_with_files(&text, &files);
        let tls = TlsClient::new(&authority, "api.test").protocols(&["h2"]);
        let clients = [(); 2].map(|()| H2Client::open(gateway.address2(), &tls).unwrap());
        for _ in 0..3 {
            for client in &clients {
                assert_eq!(client.request(&H2Request::new("GET", "api.test", "/")).unwrap().status, 200);
            }
        }
        let headers = relay.headers();
        assert_eq!(headers.iter().collect::<BTreeSet<_>>().len(), 2, "{headers:?}");
        assert_eq!(node.hits(), 6);
    }
}

#[test]
fn health_checks_send_a_header_without_a_client() {
    let upstream = Upstream::start(|_| Reply::new(200));
    for (version, header) in [("v1", "v1 UNKNOWN"), ("v2", "v2 LOCAL")] {
        for check in ["interval: 50ms", "path: /health, interval: 50ms"] {
            let relay = HeaderRelay::start(upstream.address());
            let more = format!("    proxy_protocol: {version}\n    health_check: {{ {check} }}");
            let gateway = Gateway::start(&config(&relay.address.to_string(), &more));
            wait("two checks", || relay.headers().len() >= 2);
            assert!(relay.headers().iter().all(|sent| sent == header), "{:?}", relay.headers());
            assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
            assert!(!gateway.stderr().contains("unhealthy"));
        }
    }
    assert!(upstream.received().iter().any(|request| request.target == "/health"));
}

#[test]
fn a_retry_sends_the_header_again() {
    let upstream = Upstream::start(|request| match request.connection {
        1 => Reply::reset(),
        _ => Reply::new(200),
    });
    let relays = [HeaderRelay::start(upstream.address()), HeaderRelay::start(upstream.address())];
    let nodes = format!("{}' }}, {{ address: '{}", relays[0].address, relays[1].address);
    let gateway = Gateway::start(&config(&nodes, "    proxy_protocol: v1"));
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
    let headers = relays.each_ref().map(HeaderRelay::headers);
    assert_eq!((headers[0].len(), headers[1].len()), (1, 1));
    assert_eq!(headers[0], headers[1]);
}

/// A node without the PROXY protocol reads the header as an invalid request, so the client gets an error.
#[test]
fn a_node_without_the_protocol_refuses_the_header() {
    let folder = tempfile::tempdir().unwrap();
    let address = free();
    let _nginx = nginx::start(folder.path(), address, &format!("listen {address}; location / {{ return 200; }}"));
    for version in ["v1", "v2"] {
        let gateway = Gateway::start(&config(&address.to_string(), &format!("    proxy_protocol: {version}")));
        let response = fetch(gateway.address(), "GET", "/", &[HOST, ("Origin", "https://app.test")]);
        assert!([400, 502].contains(&response.status), "{version}: {response:?}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    }
}

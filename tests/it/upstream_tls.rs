//! TLS to upstreams: verification, client certificates, HTTP/2, and errors with CORS headers.

use std::net::SocketAddr;

use crate::support::certificates::{Authority, Certificate, Files, Valid};
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, Signal, check, free_port, run};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

/// One service with this node and these settings of its upstream.
fn config(node: &str, settings: &str) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
upstreams:
  secure:
    nodes: [{{ address: \"{node}\" }}]
    {settings}
services:
  - name: api
    upstream: secure
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT] }}
"
    )
}

fn start(node: SocketAddr, settings: &str, files: &[Files]) -> Gateway {
    Gateway::start_with_files(&config(&node.to_string(), settings), &files.concat())
}

fn ca(authority: &Authority) -> Files {
    vec![("tls/ca.pem".into(), authority.pem())]
}

fn get(gateway: &Gateway) -> Response {
    fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN])
}

#[track_caller]
fn assert_status(gateway: &Gateway, status: u16) {
    let response = get(gateway);
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    assert_eq!(response.header("Vary"), Some("Origin"));
}

const VERIFIED: &str = "tls: { sni: upstream.test, ca: tls/ca.pem }";

/// An HTTP/1.1 upstream with this certificate.
fn showing(certificate: &Certificate) -> Upstream {
    Upstream::start_tls(certificate.server(None, &[]), |_| Reply::new(200))
}

#[test]
fn an_upstream_is_verified_by_its_ca_and_its_name() {
    let authority = Authority::new("authority");
    let upstream = showing(&authority.issue(&["upstream.test"]));
    let gateway = start(upstream.address(), VERIFIED, &[ca(&authority)]);
    assert_status(&gateway, 200);
    let received = upstream.received().pop().unwrap();
    assert_eq!(received.sni.as_deref(), Some("upstream.test"));
    // The SNI is the upstream's name, the Host is the client's.
    assert_eq!((received.header("Host"), received.header("X-Forwarded-Proto")), (Some("api.test"), Some("http")));
    assert_eq!(received.client_certificate, None);
    // The connection is reused.
    (0..9).for_each(|_| assert_status(&gateway, 200));
    let connections = upstream.received().iter().map(|request| request.connection).max();
    assert!(connections < Some(6), "{connections:?} connections for 10 requests");
}

#[test]
fn the_certificate_must_match_the_name_of_the_node() {
    let authority = Authority::new("authority");
    let upstream = showing(&authority.issue(&["localhost"]));
    let node = format!("localhost:{}", upstream.address().port());
    let gateway = Gateway::start_with_files(&config(&node, "tls: { ca: tls/ca.pem }"), &ca(&authority));
    assert_status(&gateway, 200);
    assert_eq!(upstream.received()[0].sni.as_deref(), Some("localhost"));
}

#[test]
fn an_unverified_upstream_gets_no_request_and_the_client_502_with_cors_headers() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    for (what, certificate, settings) in [
        ("another name", authority.issue(&["other.test"]), VERIFIED),
        ("a wildcard above it", authority.issue(&["*.upstream.test"]), VERIFIED),
        ("its address alone", authority.issue(&["127.0.0.1"]), VERIFIED),
        ("another authority", stranger.issue(&["upstream.test"]), VERIFIED),
        ("an old certificate", authority.issue_valid(&["upstream.test"], Valid::Past), VERIFIED),
        ("an early certificate", authority.issue_valid(&["upstream.test"], Valid::Future), VERIFIED),
        // The system does not trust the CA of the test.
        ("the system's authorities", authority.issue(&["upstream.test"]), "tls: { sni: upstream.test }"),
    ] {
        let upstream = showing(&certificate);
        let gateway = start(upstream.address(), settings, &[ca(&authority)]);
        let response = get(&gateway);
        assert_eq!((response.status, upstream.hits()), (502, 0), "{what}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{what}");
        upstream.wait_for_failed_handshakes(1);
    }
}

/// A server of HTTP/1 that gets bytes of another protocol.
fn answers_400_to_anything() -> SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            // Closing with unread bytes would reset the connection.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    address
}

/// Each connection error has a remedy in the log lines of the attempt and of the request.
#[test]
fn the_log_says_what_to_change_when_a_node_cannot_be_reached() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let own = authority.issue(&["upstream.test"]);
    let unverified = "tls: { sni: upstream.test, verify: false }";
    let plain = answers_400_to_anything();
    let refused = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let demanding = Upstream::start_tls(own.server(Some(&stranger), &[]), |_| Reply::new(200));
    let (other, foreign, old) = (
        showing(&authority.issue(&["other.test"])),
        showing(&stranger.issue(&["upstream.test"])),
        showing(&authority.issue_valid(&["upstream.test"], Valid::Past)),
    );
    let (early, good) = (showing(&authority.issue_valid(&["upstream.test"], Valid::Future)), showing(&own));
    let self_signed = showing(&authority.own());
    let http_2 = H2Upstream::start(|_| H2Reply::new(200));
    for (what, node, settings, words) in [
        ("another name", other.address(), VERIFIED, "set `tls.sni`"),
        ("another authority", foreign.address(), VERIFIED, "set `tls.ca`"),
        ("an old certificate", old.address(), VERIFIED, "has expired"),
        ("an early certificate", early.address(), VERIFIED, "not valid yet"),
        ("a self-signed CA certificate", self_signed.address(), VERIFIED, "basicConstraints=CA:FALSE"),
        ("no client certificate", demanding.address(), VERIFIED, "set `tls.cert` and `tls.key`"),
        ("plain HTTP to TLS", good.address(), "retries: 0", "add `tls`"),
        ("TLS to plain HTTP", plain, unverified, "remove `tls`"),
        (
            "HTTP/2 to HTTP/1 over TLS",
            good.address(),
            "http2: true\n    tls: { sni: upstream.test, ca: tls/ca.pem }",
            "HTTP/2",
        ),
        ("HTTP/2 to HTTP/1", plain, "http2: true", "remove `http2: true`"),
        ("HTTP/1 to HTTP/2", http_2.address(), "retries: 0", "`http2: true`"),
        ("no listener", refused, "retries: 0", "correct its address"),
    ] {
        let gateway = start(node, settings, &[ca(&authority)]);
        assert_eq!(get(&gateway).status, 502, "{what}");
        gateway.wait_for_log("request failed status=502");
        let log = gateway.stderr();
        let failed = log.lines().find(|line| line.contains("request failed status=502")).unwrap();
        assert!(failed.contains(words), "{what}: {log}");
    }
}

/// nginx, Go and Apache answer plain HTTP on a TLS port with a 400 and an explanation. The client gets this response.
#[test]
fn a_400_for_plain_http_on_a_tls_port_is_named_in_the_log() {
    let texts = [
        ("nginx", "<center>The plain HTTP request was sent to HTTPS port</center>"),
        ("go", "Client sent an HTTP request to an HTTPS server.\n"),
        ("apache", "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"),
        ("usual", "The plain request is bad."),
    ];
    for (server, text) in texts {
        let upstream = Upstream::start(move |_| Reply::new(400).body(text));
        let gateway = start(upstream.address(), "retries: 0", &[]);
        assert_eq!((get(&gateway).status, get(&gateway).text()), (400, text));
        let named = gateway.stderr().contains("node expects TLS upstream=secure");
        assert_eq!(named, server != "usual", "{server}: {}", gateway.stderr());
    }
}

#[test]
fn a_plain_upstream_in_place_of_tls_gives_502() {
    let authority = Authority::new("authority");
    // A recording upstream fails the test for bytes that are not HTTP.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let node = listener.local_addr().unwrap();
    let gateway = start(node, VERIFIED, &[ca(&authority)]);
    let answer = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 16];
        let _ = stream.read(&mut bytes);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    assert_status(&gateway, 502);
    // Ends the accept if no connection came.
    drop(std::net::TcpStream::connect(node));
    answer.join().unwrap();
}

#[test]
fn verify_false_skips_verification_and_check_warns() {
    let upstream = showing(&Authority::new("stranger").issue_valid(&["other.test"], Valid::Past));
    let settings = "tls: { sni: upstream.test, verify: false }";
    let gateway = start(upstream.address(), settings, &[]);
    assert_status(&gateway, 200);
    assert_eq!(upstream.received()[0].sni.as_deref(), Some("upstream.test"));

    let path = gateway.config_path();
    let path = path.to_str().unwrap();
    let checked = run(&["check", "--config", path]);
    let text = config("node", settings);
    let line = 1 + text.lines().position(|line| line.contains("verify: false")).unwrap();
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    let place = format!("corsgate.yaml:{line}:");
    let warned = checked.stdout.lines().any(|line| line.contains("warning") && line.contains(&place));
    assert!(warned, "no warning at {place} in {}", checked.stdout);
    assert_eq!(run(&["check", "--config", path, "--deny-warnings"]).code, 1);
}

#[test]
fn an_ip_address_node_needs_sni_for_verification() {
    for (node, settings, code) in [
        ("127.0.0.1:8443", "tls: {}", 1),
        ("[::1]:8443", "tls: {}", 1),
        ("127.0.0.1:8443", "tls: { sni: upstream.test }", 0),
        ("upstream.invalid:8443", "tls: {}", 0),
    ] {
        let text = config(node, settings);
        let checked = check(&text, &[]);
        assert_eq!(checked.code, code, "{node}, {settings}: {}", checked.stdout);
        let line = 1 + text.lines().position(|line| line.contains("tls:")).unwrap();
        let named = checked.stdout.contains(&format!("corsgate.yaml:{line}:")) && checked.stdout.contains("sni");
        assert_eq!(named, code == 1, "{node}, {settings}: {}", checked.stdout);
    }
}

// --- client certificates

const SHOWN: &str = "tls: { sni: upstream.test, ca: tls/ca.pem, cert: tls/client.crt, key: tls/client.key }";

#[test]
fn ssl_cert_file_replaces_the_root_certificates_of_the_machine() {
    let authority = Authority::new("authority");
    let node = showing(&authority.issue(&["upstream.test"]));
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), authority.pem()).unwrap();
    let config = config(&node.address().to_string(), "tls: { sni: upstream.test }");
    let mut gateway = Gateway::spawn_with_roots(&config, &[], roots.path().to_str().unwrap());
    gateway.wait_until_it_accepts();
    assert_status(&gateway, 200);
}

#[test]
fn a_machine_without_root_certificates_is_reported_at_start_and_reload() {
    let authority = Authority::new("authority");
    let node = showing(&authority.issue(&["upstream.test"]));
    let verified_by_roots = config(&node.address().to_string(), "tls: { sni: upstream.test }");
    let mut gateway = Gateway::spawn_with_roots(&verified_by_roots, &[], "/dev/null");
    gateway.wait_until_it_accepts();
    assert_status(&gateway, 502);
    let warning = "upstreams.secure.tls: this machine has no root certificates";
    gateway.wait_for_log_count(warning, 1);
    gateway.signal(Signal::Hup);
    gateway.wait_for_log_count(warning, 2);
    // No root is needed: a node without TLS, a node that is not verified.
    for settings in ["", "tls: { sni: upstream.test, verify: false }"] {
        gateway.reload_with(&config(&node.address().to_string(), settings));
    }
    assert_eq!(gateway.stderr().matches(warning).count(), 2, "{}", gateway.stderr());
}

/// Pingora panics if it cannot load the root certificates, with any configuration.
#[test]
fn root_certificates_that_cannot_be_loaded_end_the_start_with_a_message() {
    let mut gateway = Gateway::spawn_with_roots(&config("127.0.0.1:1", ""), &[], "/missing/roots.pem");
    assert_eq!(gateway.exit().code(), Some(1));
    let said = gateway.stderr();
    assert!(said.contains("cannot load the root certificates of this machine: could not load certs"), "{said}");
    assert!(said.contains("/missing/roots.pem") && said.contains("correct SSL_CERT_FILE"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_upstream_gets_the_client_certificate() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let (own, foreign) = (clients.issue(&["edge.test"]), authority.issue(&["edge.test"]));
    let demanding = authority.issue(&["upstream.test"]).server(Some(&clients), &[]);
    let upstream = Upstream::start_tls(demanding, |_| Reply::new(200));
    let gateway = start(upstream.address(), SHOWN, &[ca(&authority), own.files("tls/client")]);
    assert_status(&gateway, 200);
    assert_eq!(upstream.received()[0].client_certificate.as_deref(), Some(&own.der[..]));
    // No certificate, or one of another CA, is refused.
    upstream.clear();
    for settings in [VERIFIED, SHOWN] {
        let gateway = start(upstream.address(), settings, &[ca(&authority), foreign.files("tls/client")]);
        assert_status(&gateway, 502);
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn unusable_upstream_files_are_refused_at_their_position() {
    let authority = Authority::new("authority");
    let (own, other) = (authority.issue(&["edge.test"]), authority.issue(&["edge.test"]));
    let early = authority.issue_valid(&["edge.test"], Valid::Future);
    // Each key on its own line.
    let settings = "tls:
      sni: upstream.test
      ca: tls/ca.pem
      cert: tls/client.crt
      key: tls/client.key";
    let text = config("127.0.0.1:8443", settings);
    let all = || [ca(&authority), own.files("tls/client")].concat();
    assert_eq!(check(&text, &all()).code, 0);
    let no_pem = || Some("no PEM".to_owned());
    for (what, file, contents, places) in [
        ("no authority", "tls/ca.pem", None, &["ca.pem"][..]),
        ("an authority that is no PEM", "tls/ca.pem", no_pem(), &["ca.pem"]),
        ("no certificate", "tls/client.crt", None, &["client.crt"]),
        ("a certificate that is no PEM", "tls/client.crt", no_pem(), &["client.crt"]),
        ("an early certificate", "tls/client.crt", Some(early.cert), &["client.crt"]),
        ("no key", "tls/client.key", None, &["client.key"]),
        ("a key that is no PEM", "tls/client.key", no_pem(), &["client.key"]),
        ("the key of another one", "tls/client.key", Some(other.key), &["client.crt", "client.key"]),
    ] {
        let rest = all().into_iter().filter(|(name, _)| name != file);
        let files: Files = rest.chain(contents.map(|text| (file.to_owned(), text))).collect();
        let checked = check(&text, &files);
        assert_eq!(checked.code, 1, "{what}: {}", checked.stdout);
        let named = places.iter().any(|place| {
            let line = 1 + text.lines().position(|line| line.contains(place)).unwrap();
            checked.stdout.contains(&format!("corsgate.yaml:{line}:"))
        });
        assert!(named, "{what}: {}", checked.stdout);
    }
    // A certificate without its key is refused, and a key without its certificate.
    for half in ["cert: tls/client.crt", "key: tls/client.key"] {
        let text = config("127.0.0.1:8443", &format!("tls: {{ sni: upstream.test, ca: tls/ca.pem, {half} }}"));
        assert_eq!(check(&text, &all()).code, 1, "{half}");
    }
}

// --- reloads and kept connections

#[test]
fn a_reload_applies_a_new_upstream_ca_to_kept_connections() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let upstream = showing(&right.issue(&["upstream.test"]));
    let gateway = start(upstream.address(), VERIFIED, &[ca(&wrong)]);
    assert_status(&gateway, 502);
    for (generation, (authority, status)) in (2..).zip([(&right, 200), (&wrong, 502), (&right, 200)]) {
        gateway.replace_all(&ca(authority));
        gateway.signal(Signal::Hup);
        gateway.wait_for_log(&format!("reloaded generation={generation}"));
        // Including kept connections that were made when the CA was trusted.
        assert_status(&gateway, status);
        assert_status(&gateway, status);
    }
}

#[test]
fn a_reload_with_an_unusable_upstream_file_changes_nothing() {
    let authority = Authority::new("authority");
    let upstream = showing(&authority.issue(&["upstream.test"]));
    let gateway = start(upstream.address(), VERIFIED, &[ca(&authority)]);
    gateway.replace("tls/ca.pem", "no PEM");
    gateway.signal(Signal::Hup);
    gateway.wait_for_log("reload refused, keeping the running configuration:");
    assert_status(&gateway, 200);
}

/// Two upstreams with the same node and different trust share no connection. Otherwise the verified upstream could be
/// served over an unverified connection.
#[test]
fn upstreams_with_different_cas_share_no_connection() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let (own, server) = (authority.issue(&["edge.test"]), stranger.issue(&["upstream.test"]));
    let upstream = showing(&server);
    let node = upstream.address();
    let gateway = Gateway::start_with_files(
        &format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
upstreams:
  careless: {{ nodes: [{{ address: \"{node}\" }}], tls: {{ sni: upstream.test, verify: false }} }}
  careful: {{ nodes: [{{ address: \"{node}\" }}], tls: {{ sni: upstream.test, ca: tls/ca.pem }} }}
  knowing: {{ nodes: [{{ address: \"{node}\" }}], tls: {{ sni: upstream.test, ca: tls/stranger.pem }} }}
  otherwise: {{ nodes: [{{ address: \"{node}\" }}], tls: {{ sni: other.test, ca: tls/stranger.pem }} }}
services:
  - {{ name: careless, hosts: [careless.test], upstream: careless }}
  - {{ name: careful, hosts: [careful.test], upstream: careful }}
  - {{ name: knowing, hosts: [knowing.test], upstream: knowing }}
  - {{ name: otherwise, hosts: [otherwise.test], upstream: otherwise }}
"
        ),
        &[ca(&authority), vec![("tls/stranger.pem".into(), stranger.pem())], own.files("tls/client")].concat(),
    );
    for _ in 0..3 {
        for (host, status) in
            [("careless.test", 200), ("careful.test", 502), ("knowing.test", 200), ("otherwise.test", 502)]
        {
            assert_eq!(fetch(gateway.address(), "GET", "/", &[("Host", host)]).status, status, "{host}");
        }
    }
}

// --- HTTP/2

#[test]
fn http_2_to_an_upstream_is_agreed_with_alpn() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let (server, own) = (authority.issue(&["upstream.test"]), clients.issue(&["edge.test"]));
    let upstream = H2Upstream::start_tls(server.server(Some(&clients), &["h2"]), |request| {
        H2Reply::new(200).body(request.path.as_str()).header("x-twice", "1").header("x-twice", "2")
    });
    let settings = format!("{SHOWN}\n    http2: true");
    let gateway = start(upstream.address(), &settings, &[ca(&authority), own.files("tls/client")]);
    let response = fetch(gateway.address(), "GET", "/a?b", &[HOST, ORIGIN, ("Cookie", "a=1; b=2")]);
    assert_eq!((response.status, response.text(), response.all("x-twice")), (200, "/a?b", vec!["1", "2"]));
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    let received = upstream.received().pop().unwrap();
    assert_eq!((received.sni.as_deref(), received.client_certificate), (Some("upstream.test"), Some(own.der)));
    assert_eq!((received.scheme.as_deref(), received.authority.as_deref()), (Some("https"), Some("api.test")));
    assert_eq!(client_cookies(&received.headers), "a=1; b=2");
    // Many requests on one connection.
    (0..9).for_each(|_| assert_eq!(get(&gateway).status, 200));
    let connections = upstream.received().iter().map(|request| request.connection).max();
    assert!(connections < Some(6), "{connections:?} connections for 10 requests");
}

/// The cookies; HTTP/2 may split them into several fields.
fn client_cookies(headers: &[(String, String)]) -> String {
    crate::support::client::all(headers, "cookie").join("; ")
}

#[test]
fn an_upstream_without_the_configured_http_2_gives_502() {
    let authority = Authority::new("authority");
    let server = authority.issue(&["upstream.test"]);
    let settings = format!("{VERIFIED}\n    http2: true");
    for protocols in [&["http/1.1"][..], &[]] {
        let upstream = Upstream::start_tls(server.server(None, protocols), |_| Reply::new(200));
        let gateway = start(upstream.address(), &settings, &[ca(&authority)]);
        assert_status(&gateway, 502);
        assert_eq!(upstream.hits(), 0, "{protocols:?}");
    }
}

#[test]
fn http_2_to_an_upstream_is_off_by_default() {
    let authority = Authority::new("authority");
    let server = authority.issue(&["upstream.test"]);
    let upstream = Upstream::start_tls(server.server(None, &["h2", "http/1.1"]), |_| Reply::new(200));
    let gateway = start(upstream.address(), VERIFIED, &[ca(&authority)]);
    assert_status(&gateway, 200);
    assert_eq!(upstream.hits(), 1);
}

#[test]
fn an_http_2_upstream_is_verified_like_any_other() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    for certificate in [authority.issue(&["other.test"]), stranger.issue(&["upstream.test"])] {
        let upstream = H2Upstream::start_tls(certificate.server(None, &["h2"]), |_| H2Reply::new(200));
        let gateway = start(upstream.address(), &format!("{VERIFIED}\n    http2: true"), &[ca(&authority)]);
        assert_status(&gateway, 502);
        assert_eq!(upstream.hits(), 0);
    }
}

/// An upgrade has its own connection, with TLS as any other.
#[test]
fn a_websocket_reaches_an_upstream_over_tls() {
    let authority = Authority::new("authority");
    let certificate = authority.issue(&["upstream.test"]);
    let upstream = Upstream::start_tls(certificate.server(None, &[]), |_| Reply::echo());
    let gateway = start(upstream.address(), VERIFIED, &[ca(&authority)]);
    for _ in 0..20 {
        let mut socket = Connection::open(gateway.address()).unwrap();
        let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
        assert_eq!(socket.request("GET", "/", &upgrade, b"").unwrap().status, 101);
        for text in ["one", "two"] {
            socket.send(text.as_bytes()).unwrap();
            assert_eq!(socket.receive(3).unwrap(), text.as_bytes());
        }
    }
    // The connection of a WebSocket is verified too.
    let stranger = Authority::new("stranger");
    let gateway = start(upstream.address(), VERIFIED, &[ca(&stranger)]);
    let mut socket = Connection::open(gateway.address()).unwrap();
    let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(socket.request("GET", "/", &upgrade, b"").unwrap().status, 502);
}

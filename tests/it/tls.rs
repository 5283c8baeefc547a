//! TLS with clients: certificates and their renewal, client certificates, redirects, and misdirected requests. Also
//! errors for operators: an unusable certificate is refused at its position before it becomes active.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};

use crate::support::certificates::{Authority, Certificate, Files, Valid};
use crate::support::client::{Connection, Response, fetch, fetch_tls, own};
use crate::support::gateway::{Gateway, Signal, check, run};
use crate::support::h2_client::{self, H2Client, H2Request};
use crate::support::tls_client::{TlsClient, TlsStream};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const PREFLIGHT: (&str, &str) = ("Access-Control-Request-Method", "PUT");
const REFUSED: &str = "reload refused, keeping the running configuration:";

/// A TLS listener with these lines, in front of one upstream.
fn config(tls: &str, upstream: &Upstream) -> String {
    format!(
        "
listeners:
  - address: \"{{listen}}\"
    tls:
{tls}
limits: {{ header_timeout: 1s }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT] }}
",
        upstream.address()
    )
}

/// A listener with one certificate, and these lines.
fn one_certificate(more: &str) -> String {
    format!("      certificates: [{{ cert: tls/api.crt, key: tls/api.key }}]\n{more}")
}

/// An upstream, a CA, and a certificate of that CA for `api.test`.
fn parts() -> (Upstream, Authority, Certificate) {
    let authority = Authority::new("authority");
    let certificate = authority.issue(&["api.test"]);
    (Upstream::start(|_| Reply::new(200).body("from the upstream")), authority, certificate)
}

fn start(tls: &str, upstream: &Upstream, files: &[Files]) -> Gateway {
    Gateway::start_with_files(&config(tls, upstream), &files.concat())
}

/// The certificate that a client gets.
#[track_caller]
fn shown(gateway: &Gateway, tls: &TlsClient) -> Vec<u8> {
    Connection::open_tls(gateway.address(), tls).expect("a handshake").server_certificate().to_vec()
}

/// Whether a client is refused, in the handshake or, with TLS 1.3, right after it.
fn is_refused(gateway: &Gateway, tls: &TlsClient) -> bool {
    let connection = Connection::open_tls(gateway.address(), tls);
    connection.and_then(|mut connection| connection.request("GET", "/", &[HOST], b"")).is_err()
}

#[track_caller]
fn assert_readable(response: &Response) {
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    assert_eq!(response.header("Vary"), Some("Origin"));
}

// --- choice of the certificate

/// Three certificates. Their order alone would give another choice than the kind of match.
const THREE: &str = "
      certificates:
        - { cert: tls/default.crt, key: tls/default.key }
        - { cert: tls/wildcard.crt, key: tls/wildcard.key }
        - { cert: tls/exact.crt, key: tls/exact.key }";

#[test]
fn a_client_gets_the_certificate_for_its_sni() {
    let (upstream, authority, _) = parts();
    let default = authority.issue(&["default.test"]);
    let wildcard = authority.issue(&["*.wild.test"]);
    let exact = authority.issue(&["api.test", "exact.wild.test"]);
    let files = [default.files("tls/default"), wildcard.files("tls/wildcard"), exact.files("tls/exact")];
    let gateway = start(THREE, &upstream, &files);
    for (name, certificate, certified) in [
        ("api.test", &exact, "api.test"),
        ("API.test", &exact, "api.test"),
        ("exact.wild.test", &exact, "api.test"),
        ("a.wild.test", &wildcard, "a.wild.test"),
        // A wildcard covers one label.
        ("a.b.wild.test", &default, "default.test"),
        ("wild.test", &default, "default.test"),
        ("default.test", &default, "default.test"),
        ("unknown.test", &default, "default.test"),
    ] {
        for version in [&TLS12, &TLS13] {
            let tls = TlsClient::new(&authority, name).certified_for(certified).version(version);
            assert!(shown(&gateway, &tls) == certificate.der, "{name} with {version:?}");
            assert_eq!(fetch_tls(gateway.address(), &tls, "GET", "/", &[("Host", name)]).status, 200, "{name}");
        }
        let h2 = H2Client::open(gateway.address(), &TlsClient::new(&authority, name).certified_for(certified));
        assert!(h2.unwrap().server_certificate() == certificate.der, "{name} with HTTP/2");
    }
    let silent = TlsClient::new(&authority, "default.test").without_sni();
    assert!(shown(&gateway, &silent) == default.der);
}

#[test]
fn the_whole_certificate_chain_is_sent() {
    let (upstream, root, _) = parts();
    let intermediate = root.intermediate("intermediate");
    let leaf = intermediate.issue(&["api.test"]);
    let mut chain = leaf.clone();
    chain.cert += &intermediate.pem();
    let gateway = start(&one_certificate(""), &upstream, &[chain.files("tls/api")]);
    // A client that trusts only the root needs the intermediate certificate.
    assert_eq!(shown(&gateway, &TlsClient::new(&root, "api.test")), leaf.der);
}

#[test]
fn x_forwarded_proto_is_https_for_tls_clients() {
    let (upstream, authority, certificate) = parts();
    let gateway = start(&one_certificate(""), &upstream, &[certificate.files("tls/api")]);
    let tls = TlsClient::new(&authority, "api.test");
    let claim = ("X-Forwarded-Proto", "http");
    assert_eq!(fetch_tls(gateway.address(), &tls, "GET", "/", &[HOST, claim]).status, 200);
    let request = H2Request::new("GET", "api.test", "/").header(claim.0, claim.1);
    assert_eq!(h2_client::fetch(gateway.address(), &tls, &request).status, 200);
    for request in upstream.received() {
        assert_eq!(request.header("X-Forwarded-Proto"), Some("https"));
        assert_eq!((request.header("Host"), request.header("X-Forwarded-Host")), (Some("api.test"), Some("api.test")));
    }
}

// --- renewal of certificates

#[test]
fn a_reload_applies_a_renewed_certificate_and_loses_no_connection() {
    let (upstream, authority, first) = parts();
    let gateway = start(&one_certificate(""), &upstream, &[first.files("tls/api")]);
    let tls = TlsClient::new(&authority, "api.test");
    let mut kept = Connection::open_tls(gateway.address(), &tls).unwrap();
    let kept_h2 = H2Client::open(gateway.address(), &tls).unwrap();
    let mut still_serves = || {
        assert_eq!(kept.request("GET", "/", &[HOST], b"").unwrap().status, 200);
        assert_eq!(kept_h2.request(&H2Request::new("GET", "api.test", "/")).unwrap().status, 200);
    };
    still_serves();

    // First the certificate alone, for the same key; then both.
    let second = authority.renew(&first);
    gateway.replace("tls/api.crt", &second.cert);
    // A changed file alone has no effect.
    assert!(shown(&gateway, &tls) == first.der);
    gateway.signal(Signal::Hup);
    gateway.wait_for_log("reloaded generation=2");
    assert!(shown(&gateway, &tls) == second.der);
    still_serves();

    let third = authority.issue(&["api.test"]);
    gateway.replace_all(&third.files("tls/api"));
    gateway.signal(Signal::Hup);
    gateway.wait_for_log("reloaded generation=3");
    assert!(shown(&gateway, &tls) == third.der);
    assert!(H2Client::open(gateway.address(), &tls).unwrap().server_certificate() == third.der);
    still_serves();
}

#[test]
fn a_reload_adds_and_removes_certificates() {
    let (upstream, authority, certificate) = parts();
    let added = authority.issue(&["added.test"]);
    let files = [certificate.files("tls/api"), added.files("tls/added")];
    let gateway = start(&one_certificate(""), &upstream, &files);
    let tls = TlsClient::new(&authority, "added.test");
    assert!(tls.connect(gateway.address()).is_err());
    let both = "      certificates:
        - { cert: tls/api.crt, key: tls/api.key }
        - { cert: tls/added.crt, key: tls/added.key }";
    gateway.reload_with(&config(both, &upstream));
    gateway.wait_for_log("reloaded generation=2");
    assert!(shown(&gateway, &tls) == added.der);
    gateway.reload_with(&config(&one_certificate(""), &upstream));
    gateway.wait_for_log("reloaded generation=3");
    assert!(tls.connect(gateway.address()).is_err());
    assert!(!gateway.stderr().contains("needs a restart"), "{}", gateway.stderr());
}

/// Two certificates, each key on its own line.
const TWO: &str = "      certificates:
        - cert: tls/default.crt
          key: tls/default.key
        - cert: tls/api.crt
          key: tls/api.key";

/// An unusable pair of files.
struct Bad {
    what: &'static str,
    /// The contents of `tls/api.crt` and `tls/api.key`; None: the file does not exist.
    files: [Option<String>; 2],
    /// The values at which the problem may be reported.
    at: &'static [&'static str],
    /// A part of the message, in any case of letters.
    says: &'static str,
}

fn bad_pairs(authority: &Authority) -> Vec<Bad> {
    const CERT: &[&str] = &["tls/api.crt"];
    const KEY: &[&str] = &["tls/api.key"];
    let Certificate { cert, key, .. } = authority.issue(&["api.test"]);
    let expired = authority.issue_valid(&["api.test"], Valid::Past);
    let early = authority.issue_valid(&["api.test"], Valid::Future);
    let (cert, key) = (|| Some(cert.clone()), || Some(key.clone()));
    let text = || Some("neither this nor that\n".to_owned());
    let bad = |what, cert, key, at, says| Bad { what, files: [cert, key], at, says };
    vec![
        bad("expired", Some(expired.cert), Some(expired.key), CERT, "expired"),
        bad("not yet valid", Some(early.cert), Some(early.key), CERT, "not valid before"),
        bad(
            "a key of another one",
            cert(),
            Some(authority.issue(&["api.test"]).key),
            &["tls/api.crt", "tls/api.key"],
            "key",
        ),
        bad("no certificate file", None, key(), CERT, "tls/api.crt"),
        bad("no key file", cert(), None, KEY, "tls/api.key"),
        bad("a certificate that is no PEM", text(), key(), CERT, "tls/api.crt"),
        bad("a key that is no PEM", cert(), text(), KEY, "tls/api.key"),
        bad("an empty certificate", Some(String::new()), key(), CERT, "tls/api.crt"),
        bad("a key in place of the certificate", key(), key(), CERT, "tls/api.crt"),
        bad("a certificate in place of the key", cert(), cert(), KEY, "tls/api.key"),
    ]
}

impl Bad {
    fn present(&self) -> Files {
        let names = ["tls/api.crt", "tls/api.key"].map(str::to_owned);
        names.into_iter().zip(self.files.clone()).filter_map(|(name, text)| Some((name, text?))).collect()
    }

    /// Whether a text has the position and the message of the problem.
    #[track_caller]
    fn assert_explained(&self, config: &str, text: &str) {
        let line_of = |value: &&&str| 1 + config.lines().position(|line| line.contains(**value)).expect("a line");
        let places: Vec<_> = self.at.iter().map(|value| format!("corsgate.yaml:{}:", line_of(&value))).collect();
        let explained = text
            .lines()
            .any(|line| places.iter().any(|place| line.contains(place)) && line.to_lowercase().contains(self.says));
        assert!(explained, "{}: no line with {places:?} and {:?} in\n{text}", self.what, self.says);
    }
}

#[test]
fn a_reload_with_an_invalid_certificate_changes_nothing_and_names_it() {
    let (upstream, authority, good) = parts();
    let default = authority.issue(&["default.test"]);
    let files = [default.files("tls/default"), good.files("tls/api")];
    let gateway = start(TWO, &upstream, &files);
    let config = config(TWO, &upstream);
    let tls = TlsClient::new(&authority, "api.test");
    let mut kept = Connection::open_tls(gateway.address(), &tls).unwrap();
    for (n, bad) in bad_pairs(&authority).iter().enumerate() {
        for name in ["tls/api.crt", "tls/api.key"] {
            std::fs::remove_file(gateway.dir().join(name)).unwrap();
        }
        gateway.replace_all(&bad.present());
        let before = gateway.stderr().len();
        gateway.signal(Signal::Hup);
        gateway.wait_for_log_count(REFUSED, n + 1);
        bad.assert_explained(&config, &gateway.stderr()[before..]);
        assert!(shown(&gateway, &tls) == good.der, "{}", bad.what);
        assert_eq!(kept.request("GET", "/", &[HOST], b"").unwrap().status, 200, "{}", bad.what);
        gateway.replace_all(&good.files("tls/api"));
    }
    gateway.signal(Signal::Hup);
    gateway.wait_for_log("reloaded generation=2");
}

#[test]
fn check_and_the_start_refuse_an_invalid_certificate_at_its_position() {
    let (upstream, authority, good) = parts();
    let default = authority.issue(&["default.test"]);
    let config = config(TWO, &upstream);
    let checked = check(&config, &[default.files("tls/default"), good.files("tls/api")].concat());
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    for bad in bad_pairs(&authority) {
        let files = [default.files("tls/default"), bad.present()].concat();
        let checked = check(&config, &files);
        assert_eq!(checked.code, 1, "{}: {}", bad.what, checked.stdout);
        bad.assert_explained(&config, &checked.stdout);

        let mut gateway = Gateway::spawn_with_files(&config, &files);
        assert_eq!(gateway.exit().code(), Some(1), "{}", bad.what);
        bad.assert_explained(&config, &gateway.stderr());
    }
}

#[test]
fn an_unreadable_client_ca_is_refused_at_its_position() {
    let (upstream, _, good) = parts();
    let config = config(&one_certificate("      client_ca: tls/clients.pem"), &upstream);
    let line = 1 + config.lines().position(|line| line.contains("client_ca")).unwrap();
    for contents in [None, Some("no authority"), Some("")] {
        let clients = contents.map(|text| ("tls/clients.pem".to_owned(), text.to_owned()));
        let files: Files = good.files("tls/api").into_iter().chain(clients).collect();
        let checked = check(&config, &files);
        let place = format!("corsgate.yaml:{line}:");
        assert_eq!(checked.code, 1, "{contents:?}: {}", checked.stdout);
        let named = checked.stdout.lines().any(|line| line.contains(&place) && line.contains("tls/clients.pem"));
        assert!(named, "{contents:?}: {}", checked.stdout);
    }
}

/// A path is relative to its configuration file, not to the working directory.
#[test]
fn the_paths_of_certificates_are_relative_to_the_configuration() {
    let (upstream, authority, certificate) = parts();
    let gateway = start(&one_certificate(""), &upstream, &[certificate.files("tls/api")]);
    let path = gateway.config_path();
    let checked = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    let absolute = path.parent().unwrap().join("tls/api");
    let tls = one_certificate("").replace("tls/api", absolute.to_str().unwrap());
    gateway.reload_with(&config(&tls, &upstream));
    gateway.wait_for_log("reloaded generation=2");
    assert!(shown(&gateway, &TlsClient::new(&authority, "api.test")) == certificate.der);
}

// --- versions and protocols

#[test]
fn min_version_refuses_older_clients() {
    let (upstream, authority, certificate) = parts();
    let gateway = start(&one_certificate("      min_version: \"1.3\""), &upstream, &[certificate.files("tls/api")]);
    let [old, new] = [&TLS12, &TLS13].map(|version| TlsClient::new(&authority, "api.test").version(version));
    assert!(is_refused(&gateway, &old));
    assert!(!is_refused(&gateway, &new));
    for more in ["", "      min_version: \"1.2\""] {
        let gateway = start(&one_certificate(more), &upstream, &[certificate.files("tls/api")]);
        assert!(!is_refused(&gateway, &old) && !is_refused(&gateway, &new), "{more}");
    }
}

/// Sends a request, and reads TLS records until the response ends with `end`. Returns the number of records.
#[track_caller]
fn records(stream: &mut TlsStream, end: &[u8]) -> usize {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    read_records(stream, end)
}

#[track_caller]
fn read_records(stream: &mut TlsStream, end: &[u8]) -> usize {
    let (mut records, mut response) = (0, Vec::new());
    while !response.ends_with(end) {
        let mut record = vec![0; 5];
        stream.sock.read_exact(&mut record).unwrap();
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        stream.sock.read_exact(&mut record[5..]).unwrap();
        records += 1;
        let mut bytes = &*record;
        while !bytes.is_empty() {
            stream.conn.read_tls(&mut bytes).unwrap();
            stream.conn.process_new_packets().unwrap();
        }
        // Ends with WouldBlock, after all bytes that were decrypted.
        let _ = stream.conn.reader().read_to_end(&mut response);
    }
    records
}

#[test]
fn a_small_response_is_one_tls_record() {
    let (_, authority, certificate) = parts();
    for (length, expected) in [(1, 1..=1), (1_000, 1..=1), (2_000, 1..=1), (10_000, 1..=1), (300_000, 19..=40)] {
        let body = [vec![b'x'; length], b"the end".to_vec()].concat();
        let end = body.clone();
        let upstream = Upstream::start(move |_| Reply::new(200).body(body.clone()));
        let gateway = start(&one_certificate(""), &upstream, &[certificate.files("tls/api")]);
        for version in [&TLS12, &TLS13] {
            let mut stream =
                TlsClient::new(&authority, "api.test").version(version).connect(gateway.address()).unwrap();
            // The session tickets come before the first response.
            records(&mut stream, &end);
            for _ in 0..3 {
                let records = records(&mut stream, &end);
                assert!(expected.contains(&records), "{length} bytes with {version:?}: {records} records");
            }
        }
    }
}

#[test]
fn the_first_bytes_of_a_slow_response_over_tls_do_not_wait_for_the_last() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go_on, gone_on) = mpsc::channel::<()>();
    let upstream = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab").unwrap();
        gone_on.recv_timeout(Duration::from_secs(10)).expect("the client has seen the beginning");
        stream.write_all(b"cdef").unwrap();
    });
    let authority = Authority::new("authority");
    let files = authority.issue(&["api.test"]).files("tls/api");
    let config = format!(
        "
listeners:
  - {{ address: \"{{listen}}\", tls: {{ certificates: [{{ cert: tls/api.crt, key: tls/api.key }}] }} }}
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{address}\" }}] }} }}]
"
    );
    let gateway = Gateway::start_with_files(&config, &files);
    let mut stream = TlsClient::new(&authority, "api.test").connect(gateway.address()).unwrap();
    records(&mut stream, b"\r\n\r\nab");
    go_on.send(()).unwrap();
    read_records(&mut stream, b"cdef");
    upstream.join().unwrap();
}

#[test]
fn alpn_selects_the_protocol() {
    let (upstream, authority, certificate) = parts();
    let protocol = |gateway: &Gateway, offered: &[&str]| {
        let tls = TlsClient::new(&authority, "api.test").protocols(offered);
        let connection = Connection::open_tls(gateway.address(), &tls);
        connection.map(|connection| connection.protocol().map(str::to_owned)).map_err(|error| error.to_string())
    };
    let both = start(&one_certificate(""), &upstream, &[certificate.files("tls/api")]);
    let http_1 = start(&one_certificate("      http2: false"), &upstream, &[certificate.files("tls/api")]);
    for gateway in [&both, &http_1] {
        assert_eq!(protocol(gateway, &["http/1.1"]), Ok(Some("http/1.1".to_owned())));
        assert_eq!(protocol(gateway, &[]), Ok(None));
        assert_eq!(
            fetch_tls(gateway.address(), &TlsClient::new(&authority, "api.test"), "GET", "/", &[HOST]).status,
            200
        );
    }
    assert_eq!(protocol(&both, &["h2", "http/1.1"]), Ok(Some("h2".to_owned())));
    assert_eq!(protocol(&both, &["http/1.1", "h2"]), Ok(Some("h2".to_owned())));
    assert_eq!(protocol(&http_1, &["h2", "http/1.1"]), Ok(Some("http/1.1".to_owned())));
    // Without a common protocol there is no connection (RFC 7301 section 3.2).
    assert!(protocol(&http_1, &["h2"]).is_err());
    assert!(H2Client::open(http_1.address(), &TlsClient::new(&authority, "api.test")).is_err());
}

#[test]
fn a_reload_applies_to_new_handshakes() {
    let (upstream, authority, certificate) = parts();
    let gateway = start(&one_certificate(""), &upstream, &[certificate.files("tls/api")]);
    let tls = TlsClient::new(&authority, "api.test");
    let old = tls.clone().version(&TLS12);
    let kept = H2Client::open(gateway.address(), &tls).unwrap();
    assert!(!is_refused(&gateway, &old));

    let strict = one_certificate("      min_version: \"1.3\"\n      http2: false");
    gateway.reload_with(&config(&strict, &upstream));
    gateway.wait_for_log("reloaded generation=2");
    assert!(is_refused(&gateway, &old));
    assert!(H2Client::open(gateway.address(), &tls).is_err());
    assert_eq!(fetch_tls(gateway.address(), &tls, "GET", "/", &[HOST]).status, 200);
    // Existing connections are not affected.
    assert_eq!(kept.request(&H2Request::new("GET", "api.test", "/")).unwrap().status, 200);
    assert!(!gateway.stderr().contains("needs a restart"), "{}", gateway.stderr());
}

#[test]
fn switching_tls_of_a_listener_needs_a_restart() {
    let (upstream, authority, certificate) = parts();
    let with = config(&one_certificate(""), &upstream);
    let without = with.replace("    tls:\n", "").replace(&format!("{}\n", one_certificate("")), "");
    assert!(!without.contains("tls"), "{without}");
    let gateway = Gateway::start_with_files(&with, &certificate.files("tls/api"));
    gateway.reload_with(&without.replace("https://app.test", "https://changed.test"));
    gateway.wait_for_log("reloaded generation=2");
    let tls = TlsClient::new(&authority, "api.test");
    let changed = ("Origin", "https://changed.test");
    // The listener is unchanged; other changes are applied.
    let response = fetch_tls(gateway.address(), &tls, "GET", "/", &[HOST, changed]);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://changed.test"));
    assert!(shown(&gateway, &tls) == certificate.der);
    let log = gateway.stderr();
    assert!(log.contains("change needs a restart key=listeners"), "{log}");
}

// --- client certificates

#[test]
fn client_certificates_are_required_or_optional_as_configured() {
    let (upstream, authority, certificate) = parts();
    let (clients, strangers) = (Authority::new("clients"), Authority::new("strangers"));
    let files = [certificate.files("tls/api"), vec![("tls/clients.pem".into(), clients.pem())]];
    let nobody = TlsClient::new(&authority, "api.test");
    let known = nobody.clone().certificate(&clients.issue(&["client.test"]));
    let stranger = nobody.clone().certificate(&strangers.issue(&["client.test"]));
    let expired = nobody.clone().certificate(&clients.issue_valid(&["client.test"], Valid::Past));
    for (more, without_one) in [("", false), ("required", false), ("optional", true)] {
        let more = if more.is_empty() { String::new() } else { format!("\n      client_certificate: {more}") };
        let tls = one_certificate(&format!("      client_ca: tls/clients.pem{more}"));
        let gateway = start(&tls, &upstream, &files);
        for version in [&TLS12, &TLS13] {
            let refused = |tls: &TlsClient| is_refused(&gateway, &tls.clone().version(version));
            assert!(!refused(&known), "{more}, {version:?}");
            assert!(refused(&stranger) && refused(&expired), "{more}, {version:?}");
            assert_eq!(refused(&nobody), !without_one, "{more}, {version:?}");
        }
        let request = H2Request::new("GET", "api.test", "/");
        let by_h2 = |tls| H2Client::open(gateway.address(), tls).and_then(|client| client.request(&request)).is_ok();
        assert_eq!([&known, &stranger, &nobody].map(by_h2), [true, false, without_one], "{more}, HTTP/2");
    }
    // The upstream has received only the requests of accepted clients.
    assert_eq!(upstream.hits(), 3 * 3 + 3);
}

/// The certificate is forwarded as RFC 9440 defines. The same field is removed if the client sent it itself.
#[test]
fn the_client_certificate_is_forwarded_to_the_upstream() {
    let (upstream, authority, certificate) = parts();
    let clients = Authority::new("clients");
    let files = [certificate.files("tls/api"), vec![("tls/clients.pem".into(), clients.pem())]];
    let tls = one_certificate("      client_ca: tls/clients.pem\n      client_certificate: optional");
    let gateway = start(&tls, &upstream, &files);
    let (nobody, own) = (TlsClient::new(&authority, "api.test"), clients.issue(&["client.test"]));
    // WSGI and others read `Client_Cert` as the same field.
    let forged = ["Client-Cert", "Client_Cert", "client_cert", "Client-Cert_Chain"].map(|name| (name, ":AAAA:"));
    let fields: Vec<_> = [HOST].into_iter().chain(forged).collect();
    for client in [nobody.clone(), nobody.certificate(&own)] {
        assert_eq!(fetch_tls(gateway.address(), &client, "GET", "/", &fields).status, 200);
        let request = H2Request::new("GET", "api.test", "/");
        let request = forged.iter().fold(request, |request, (name, value)| request.header(&name.to_lowercase(), value));
        assert_eq!(H2Client::open(gateway.address(), &client).unwrap().request(&request).unwrap().status, 200);
    }
    // The Base64 text of a PEM file is that of the DER.
    let pem: String = own.cert.lines().filter(|line| !line.starts_with("-----")).collect();
    let told = format!(":{pem}:");
    for (request, expected) in upstream.received().iter().zip([None, None, Some(&*told), Some(&*told)]) {
        let names = request.headers.iter().map(|(name, _)| name.to_lowercase().replace('_', "-"));
        assert_eq!(names.filter(|name| name.starts_with("client-cert")).count(), usize::from(expected.is_some()));
        assert_eq!(request.header("Client-Cert"), expected);
    }
    assert_eq!(upstream.hits(), 4);
}

/// Neither a new handshake nor a resumed session is accepted.
#[test]
fn a_reload_that_removes_a_client_ca_refuses_its_clients() {
    let (upstream, authority, certificate) = parts();
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = [certificate.files("tls/api"), vec![("tls/clients.pem".into(), before.pem())]];
    let gateway = start(&one_certificate("      client_ca: tls/clients.pem"), &upstream, &files);
    let clients = |authority_of_clients: &Authority| {
        [&TLS12, &TLS13].map(|version| {
            let tls = TlsClient::new(&authority, "api.test").version(version);
            tls.certificate(&authority_of_clients.issue(&["client.test"]))
        })
    };
    let (old, new) = (clients(&before), clients(&after));
    assert!(old.iter().all(|tls| !is_refused(&gateway, tls)) && new.iter().all(|tls| is_refused(&gateway, tls)));
    gateway.replace("tls/clients.pem", &after.pem());
    gateway.signal(Signal::Hup);
    gateway.wait_for_log("reloaded generation=2");
    assert!(old.iter().all(|tls| is_refused(&gateway, tls)) && new.iter().all(|tls| !is_refused(&gateway, tls)));
}

// --- plain listeners that redirect to TLS

/// A plain listener that redirects, a TLS listener, and a plain listener without redirects, in front of one upstream.
fn redirecting(to: &str, upstream: &Upstream) -> String {
    format!(
        "
listeners:
  - {{ address: \"{{listen}}\", redirect_to_https: {to} }}
  - address: \"{{listen2}}\"
    tls: {{ certificates: [{{ cert: tls/api.crt, key: tls/api.key }}] }}
  - {{ address: \"{{listen3}}\" }}
upstreams: {{ origin: {{ nodes: [{{ address: \"{}\" }}] }} }}
services:
  - name: api
    hosts: [api.test, \"[::1]\"]
    upstream: origin
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT], expose_headers: X-Trace }}
  - name: strict
    hosts: [strict.test]
    upstream: origin
    cors: {{ allow_origins: https://app.test, disallowed_origins: reject, preflight: {{ match: standard }} }}
",
        upstream.address()
    )
}

#[test]
fn redirects_to_https_have_cors_headers() {
    let (upstream, _, certificate) = parts();
    for (to, port) in [("true", ""), ("443", ""), ("8443", ":8443")] {
        let gateway = Gateway::start_with_files(&redirecting(to, &upstream), &certificate.files("tls/api"));
        for (method, host, target, authority, path) in [
            ("GET", "api.test", "/", "api.test", "/"),
            ("GET", "api.test", "/a%20b/?x=/&y", "api.test", "/a%20b/?x=/&y"),
            ("HEAD", "api.test", "/x", "api.test", "/x"),
            ("POST", "api.test", "/x", "api.test", "/x"),
            ("DELETE", "api.test", "/x", "api.test", "/x"),
            // The port of the plain listener is not that of TLS.
            ("GET", "api.test:8080", "/x", "api.test", "/x"),
            ("GET", "[::1]:8080", "/x", "[::1]", "/x"),
            // The location stays on this host, for every target.
            ("GET", "api.test", "//evil.test/x", "api.test", "//evil.test/x"),
            ("GET", "api.test", "http://api.test/x?y", "api.test", "/x?y"),
        ] {
            let response = fetch(gateway.address(), method, target, &[("Host", host), ORIGIN]);
            let location = format!("https://{authority}{port}{path}");
            assert_eq!((response.status, response.header("Location")), (308, Some(&location[..])), "{method} {target}");
            assert_readable(&response);
            assert_eq!(response.header("Access-Control-Expose-Headers"), Some("X-Trace"), "{method} {target}");
        }
        // Without an Origin, and with an origin that is not allowed.
        for origin in [None, Some(("Origin", "https://evil.test"))] {
            let fields: Vec<_> = [HOST].into_iter().chain(origin).collect();
            let response = fetch(gateway.address(), "GET", "/", &fields);
            assert_eq!((response.status, response.header("Vary")), (308, Some("Origin")));
            assert_eq!(response.header("Access-Control-Allow-Origin"), None);
        }
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_preflight_is_answered_and_never_redirected() {
    let (upstream, _, certificate) = parts();
    let gateway = Gateway::start_with_files(&redirecting("true", &upstream), &certificate.files("tls/api"));
    for host in ["api.test", "strict.test"] {
        let response = fetch(gateway.address(), "OPTIONS", "/", &[("Host", host), ORIGIN, PREFLIGHT]);
        assert_eq!((response.status, response.header("Location")), (200, None), "{host}");
        assert_readable(&response);
        assert!(response.header("Access-Control-Allow-Methods").is_some(), "{host}");
        // A refused request is not redirected: the redirect would lead to the same refusal.
        let evil = ("Origin", "https://evil.test");
        let response = fetch(gateway.address(), "OPTIONS", "/", &[("Host", host), evil, PREFLIGHT]);
        assert_eq!((response.status, response.header("Location")), (200, None), "{host}");
    }
    // The walkthrough's policy answers an OPTIONS with an Origin alone.
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/", &[HOST, ORIGIN]).status, 200);
    // An OPTIONS request that would be forwarded is redirected.
    let strict = ("Host", "strict.test");
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/", &[strict, ORIGIN]).status, 308);
    assert_eq!(upstream.hits(), 0);
}

/// A certificate authority reads its challenge over http, before there is a certificate.
#[test]
fn acme_challenges_are_not_redirected() {
    let (upstream, _, certificate) = parts();
    let gateway = Gateway::start_with_files(&redirecting("true", &upstream), &certificate.files("tls/api"));
    for (host, target, status) in [
        ("api.test", "/.well-known/acme-challenge/token", 200),
        ("api.test", "/.well-known/acme-challenge/token?x", 200),
        ("api.test", "/.well-known/acme-challenge/", 200),
        ("api.test", "http://api.test/.well-known/acme-challenge/token", 200),
        // Only with a route.
        ("unknown.test", "/.well-known/acme-challenge/token", 404),
        ("api.test", "/.well-known/acme-challenge", 308),
        ("api.test", "/.well-known/acme-challenges/token", 308),
        ("api.test", "/.well-known/ACME-challenge/token", 308),
        ("api.test", "/%2ewell-known/acme-challenge/token", 308),
        ("api.test", "//.well-known/acme-challenge/token", 308),
        ("api.test", "/x?/.well-known/acme-challenge/token", 308),
        ("api.test", "/.well-known/acme-challenge/../../x", 400),
        ("api.test", "/.well-known/acme-challenge/..%2fx", 400),
    ] {
        let response = fetch(gateway.address(), "GET", target, &[("Host", host), ORIGIN]);
        assert_eq!(response.status, status, "{host}{target}");
    }
}

#[test]
fn a_refusal_comes_before_a_redirect() {
    let (upstream, _, certificate) = parts();
    let gateway = Gateway::start_with_files(&redirecting("true", &upstream), &certificate.files("tls/api"));
    let status = |target: &str, fields: &[(&str, &str)]| fetch(gateway.address(), "GET", target, fields).status;
    assert_eq!(status("/", &[("Host", "unknown.test")]), 404);
    assert_eq!(status("/a/../b", &[HOST]), 400);
    assert_eq!(status("/", &[("Host", "strict.test"), ("Origin", "https://evil.test")]), 403);
}

#[test]
fn a_reload_switches_redirects_on_and_off() {
    let (upstream, authority, certificate) = parts();
    let gateway = Gateway::start_with_files(&redirecting("true", &upstream), &certificate.files("tls/api"));
    let tls = TlsClient::new(&authority, "api.test");
    for (generation, (to, status)) in (2..).zip([("8443", 308), ("false", 200), ("true", 308)]) {
        gateway.reload_with(&redirecting(to, &upstream));
        gateway.wait_for_log(&format!("reloaded generation={generation}"));
        assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, status, "{to}");
        // The other listeners never redirect.
        assert_eq!(fetch_tls(gateway.address2(), &tls, "GET", "/", &[HOST]).status, 200, "{to}");
        assert_eq!(fetch(gateway.address3(), "GET", "/", &[HOST]).status, 200, "{to}");
    }
    assert!(!gateway.stderr().contains("needs a restart"), "{}", gateway.stderr());
}

// --- misdirected requests

/// Two hosts with different policies, one certificate for one name and one for several names.
fn two_hosts(upstream: SocketAddr) -> String {
    format!(
        "
listeners:
  - address: \"{{listen}}\"
    tls:
      certificates:
        - {{ cert: tls/one.crt, key: tls/one.key }}
        - {{ cert: tls/several.crt, key: tls/several.key }}
upstreams: {{ origin: {{ nodes: [{{ address: \"{upstream}\" }}] }} }}
cors: {{ allow_origins: https://top.test }}
services:
  - {{ name: one, hosts: [one.test], upstream: origin, cors: {{ allow_origins: https://app.test }} }}
  - {{ name: b, hosts: [b.test], upstream: origin, cors: {{ allow_origins: https://b-app.test, allow_methods: PUT }} }}
  - {{ name: rest, upstream: origin, cors: {{ allow_origins: https://rest.test }} }}
"
    )
}

/// The statuses that a client with the SNI `name` gets for each authority, over HTTP/1.1 and HTTP/2, on one connection
/// each.
fn assert_statuses(gateway: &Gateway, tls: &TlsClient, expected: &[(&str, u16)]) {
    let mut http_1 = Connection::open_tls(gateway.address(), tls).unwrap();
    let http_2 = H2Client::open(gateway.address(), tls).unwrap();
    for (authority, status) in expected {
        let response = http_1.request("GET", "/", &[("Host", authority)], b"").unwrap();
        assert_eq!(response.status, *status, "{authority} by HTTP/1.1");
        let response = http_2.request(&H2Request::new("GET", authority, "/")).unwrap();
        assert_eq!(response.status, *status, "{authority} by HTTP/2");
    }
}

#[test]
fn a_request_for_a_host_outside_of_the_certificate_gets_421() {
    let (upstream, authority, _) = parts();
    let one = authority.issue(&["one.test"]);
    let several = authority.issue(&["a.test", "b.test", "*.wild.test"]);
    let files = [one.files("tls/one"), several.files("tls/several")].concat();
    let gateway = Gateway::start_with_files(&two_hosts(upstream.address()), &files);
    let tls = |name| TlsClient::new(&authority, name);
    let expected = [("one.test", 200), ("ONE.test.:443", 200), ("b.test", 421), ("a.one.test", 421), ("one.test", 200)];
    assert_statuses(&gateway, &tls("one.test"), &expected);
    // Browsers reuse a connection for all names in its certificate (RFC 9113 section 9.1.1).
    let expected = [("b.test", 200), ("a.test", 200), ("x.wild.test", 200), ("x.y.wild.test", 421), ("one.test", 421)];
    assert_statuses(&gateway, &tls("a.test"), &expected);
    // The SNI itself, though the certificate is for another name; and the names in the certificate.
    let unknown = tls("unknown.test").certified_for("one.test");
    assert_statuses(&gateway, &unknown, &[("unknown.test", 200), ("one.test", 200), ("b.test", 421)]);
    // A client without SNI may ask for any host.
    assert_statuses(&gateway, &tls("one.test").without_sni(), &[("one.test", 200), ("b.test", 200)]);
}

#[test]
fn a_421_has_the_policy_of_the_requested_host() {
    let (upstream, authority, _) = parts();
    let one = authority.issue(&["one.test"]);
    let files = [one.files("tls/one"), authority.issue(&["a.test"]).files("tls/several")].concat();
    let gateway = Gateway::start_with_files(&two_hosts(upstream.address()), &files);
    let tls = TlsClient::new(&authority, "one.test");
    let fields = [("Origin", "https://b-app.test")];
    let http_1 = fetch_tls(gateway.address(), &tls, "GET", "/", &[&[("Host", "b.test")], &fields[..]].concat());
    let mut request = H2Request::new("GET", "b.test", "/");
    request.headers = own(&fields);
    let http_2 = h2_client::fetch(gateway.address(), &tls, &request);
    for response in [http_1, http_2] {
        assert_eq!(response.status, 421);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://b-app.test"));
        assert_eq!(response.header("Vary"), Some("Origin"));
    }
    assert_eq!(upstream.hits(), 0);
}

// --- incomplete and wrong handshakes

#[test]
fn an_incomplete_handshake_is_closed_after_header_timeout() {
    use std::io::Write as _;
    let (upstream, authority, certificate) = parts();
    let gateway = start(&one_certificate(""), &upstream, &[certificate.files("tls/api")]);
    // No bytes, and the beginning of a ClientHello.
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let opened = Instant::now();
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(sent).unwrap();
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        assert!(opened.elapsed() >= Duration::from_millis(800), "closed after {:?}", opened.elapsed());
    }
    // A handshake without a request.
    let mut silent = Connection::open_tls(gateway.address(), &TlsClient::new(&authority, "api.test")).unwrap();
    match silent.read("GET") {
        Ok(response) => assert_eq!(response.status, 408),
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{error}"),
    }
    assert_eq!(fetch_tls(gateway.address(), &TlsClient::new(&authority, "api.test"), "GET", "/", &[HOST]).status, 200);
}

#[test]
fn plain_http_to_a_tls_listener_is_refused() {
    let (upstream, authority, certificate) = parts();
    let gateway = start(&one_certificate(""), &upstream, &[certificate.files("tls/api")]);
    let plain = Connection::open(gateway.address()).and_then(|mut plain| plain.request("GET", "/", &[HOST], b""));
    // No response, or 400 as nginx sends it.
    assert!(plain.is_err() || plain.is_ok_and(|response| response.status == 400));
    assert_eq!(upstream.hits(), 0);
    assert_eq!(fetch_tls(gateway.address(), &TlsClient::new(&authority, "api.test"), "GET", "/", &[HOST]).status, 200);
}

//! Forwarding: the parts of a request that the upstream gets, the parts of a response that the client gets, and the
//! fields that the gateway adds.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::upstream::{Received, Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

/// A gateway with one service; `service` is the rest of its configuration.
fn gateway(service: &str) -> Gateway {
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
services:
  - name: api
{service}
"
    ))
}

/// A gateway with a policy in front of one upstream.
fn in_front_of(upstream: &Upstream) -> Gateway {
    gateway(&format!(
        "
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT] }}
    routes:
      - {{ name: v1, paths: [/v1/*], strip_prefix: /v1 }}
      - {{ name: v2, paths: [/v2/*, /v2x/*, /w], strip_prefix: /v2 }}
      - {{ name: rest, paths: [/*] }}
",
        upstream.address()
    ))
}

/// The request that the upstream receives for a GET with these fields.
#[track_caller]
fn received(fields: &[(&str, &str)]) -> Received {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = in_front_of(&upstream);
    let fields: Vec<_> = [HOST].into_iter().chain(fields.iter().copied()).collect();
    assert_eq!(fetch(gateway.address(), "GET", "/", &fields).status, 200);
    upstream.received().pop().expect("a request")
}

/// The response that the client receives for this response of the upstream.
fn returned(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Response {
    let upstream = Upstream::start(move |_| reply());
    let gateway = in_front_of(&upstream);
    fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN])
}

/// The bytes of a response.
fn raw_response(gateway: &Gateway) -> String {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut raw = String::new();
    stream.read_to_string(&mut raw).unwrap();
    raw
}

// --- paths

#[test]
fn strip_prefix_cuts_only_at_a_segment() {
    let upstream = Upstream::start(|request| Reply::new(200).body(request.target.as_str()));
    let gateway = in_front_of(&upstream);
    for (target, expected) in [
        ("/v1/json", "/json"),
        ("/v1/json?a=/v1/b", "/json?a=/v1/b"),
        ("/v1", "/"),
        ("/v1?x=1", "/?x=1"),
        ("/v1/", "/"),
        ("/v1/v1/x", "/v1/x"),
        ("/v1//evil.test/x", "/evil.test/x"),
        ("/v1x/json", "/v1x/json"),
        ("/v2/json", "/json"),
        ("/v2x/json", "/v2x/json"),
        ("/v2x", "/v2x"),
        ("/w", "/w"),
        ("/v1.5", "/v1.5"),
        ("/V1/json", "/V1/json"),
        ("/v%31/json", "/v%31/json"),
        ("/x/v1/json", "/x/v1/json"),
        ("http://api.test/v1/json?a", "/json?a"),
    ] {
        assert_eq!(fetch(gateway.address(), "GET", target, &[HOST]).text(), expected, "{target}");
    }
}

#[test]
fn path_and_query_are_forwarded_byte_for_byte() {
    let upstream = Upstream::start(|request| Reply::new(200).body(request.target.as_str()));
    let gateway = in_front_of(&upstream);
    for target in ["/%41%c3%a9/;p=1,2", "/x?a=%2F&b=%zz&&c=[]|{}^`&d=?/../..\\", "/x?", "/x?%00", "/a%20b+c", "/é?é"]
    {
        assert_eq!(fetch(gateway.address(), "GET", target, &[HOST]).text(), target);
        let prefixed = format!("/v1{target}");
        assert_eq!(fetch(gateway.address(), "GET", &prefixed, &[HOST]).text(), target);
    }
}

// --- request headers

#[test]
fn header_names_are_lower_case_upstream_and_downstream() {
    let request =
        received(&[("X-Custom-NAME", "1"), ("x-custom-name", "2"), ("ACCEPT", "*/*"), ("Content-type", "a/b")]);
    let mut fields: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    fields.retain(|field| !field.starts_with("x-request-id: ") && !field.starts_with("x-forwarded-host: "));
    assert_eq!(
        fields,
        [
            "Host: api.test",
            "x-custom-name: 1",
            "x-custom-name: 2",
            "accept: */*",
            "Content-Type: a/b",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
        ]
    );
    let response = returned(|| Reply::new(200).header("x-lower", "1").header("X-UPPER", "2"));
    let names: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["x-lower", "x-upper", "access-control-allow-origin", "Content-Length", "Date", "Connection"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

#[test]
fn forwarded_fields_of_a_client_are_replaced() {
    let request = received(&[
        ("X-Forwarded-For", "1.1.1.1"),
        ("X-Forwarded-For", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=1.1.1.1"),
    ]);
    assert_eq!(request.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(request.header("X-Forwarded-Proto"), Some("http"));
    assert_eq!(request.header("X-Forwarded-Host"), Some("api.test"));
    assert_eq!((request.header("X-Forwarded-Port"), request.header("Forwarded")), (None, None));
}

/// A gateway that redirects to https and refuses other origins, behind `trusted_proxies`.
fn behind_a_proxy(upstream: &Upstream, trusted: &str, redirect: &str) -> Gateway {
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\", redirect_to_https: {redirect} }}]
trusted_proxies: [{trusted}]
access_log: {{ to: access.log }}
services:
  - name: api
    hosts: [api.test]
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.test, disallowed_origins: reject }}
",
        upstream.address()
    ))
}

#[test]
fn the_redirect_to_https_uses_the_scheme_and_host_of_a_trusted_proxy() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let (trusted, stranger) = ("127.0.0.1", "192.0.2.1");
    for (redirect, peer, fields, location) in [
        ("true", trusted, &[][..], Some("https://api.test/x?y")),
        ("true", trusted, &[("X-Forwarded-Proto", "https")], None),
        ("true", trusted, &[("X-Forwarded-Proto", "HTTPS")], None),
        ("true", trusted, &[("X-Forwarded-Proto", "wss")], None),
        ("true", trusted, &[("X-Forwarded-Proto", "https,http")], None),
        ("true", trusted, &[("X-Forwarded-Proto", "https, https")], None),
        ("true", trusted, &[("Forwarded", "for=192.0.2.7;proto=https")], None),
        ("true", trusted, &[("X-Forwarded-Proto", "ws")], Some("https://api.test/x?y")),
        ("true", trusted, &[("X-Forwarded-Proto", "http, https")], Some("https://api.test/x?y")),
        ("true", trusted, &[("X-Forwarded-Proto", "gopher")], Some("https://api.test/x?y")),
        ("true", trusted, &[("Forwarded", "proto=https;proto=http")], Some("https://api.test/x?y")),
        // The URL of the redirect has the configured port, because the port of the plain listener may be another one.
        ("8443", trusted, &[("X-Forwarded-Host", "www.test:8080")], Some("https://www.test:8443/x?y")),
        (
            "true",
            trusted,
            &[("X-Forwarded-Host", "www.test"), ("X-Forwarded-Port", "8080")],
            Some("https://www.test/x?y"),
        ),
        ("true", trusted, &[("Forwarded", "host=\"[::1]:8080\"")], Some("https://[::1]/x?y")),
        ("true", trusted, &[("X-Forwarded-Host", "www.test/@")], Some("https://api.test/x?y")),
        ("true", stranger, &[("X-Forwarded-Proto", "https")], Some("https://api.test/x?y")),
        ("true", stranger, &[("X-Forwarded-Host", "www.test")], Some("https://api.test/x?y")),
        ("true", stranger, &[("Forwarded", "proto=https;host=www.test")], Some("https://api.test/x?y")),
    ] {
        let gateway = behind_a_proxy(&upstream, peer, redirect);
        let fields: Vec<_> = [HOST].into_iter().chain(fields.iter().copied()).collect();
        let response = fetch(gateway.address(), "GET", "/x?y", &fields);
        assert_eq!(response.header("Location"), location, "{peer} {fields:?}");
        assert_eq!(response.status, if location.is_some() { 308 } else { 200 }, "{peer} {fields:?}");
    }
}

/// The proxy ends TLS, and may use another name for the gateway.
#[test]
fn the_sites_own_form_is_not_refused_behind_a_trusted_proxy() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateways = ["127.0.0.1", "192.0.2.1"].map(|trusted| behind_a_proxy(&upstream, trusted, "false"));
    for (origin, fields, expected) in [
        ("http://api.test", &[][..], [200, 200]),
        ("https://api.test", &[], [403, 403]),
        ("https://api.test", &[("X-Forwarded-Proto", "https")], [200, 403]),
        ("https://api.test", &[("X-Forwarded-Proto", "https,http")], [200, 403]),
        ("https://api.test:8443", &[("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "8443")], [200, 403]),
        ("https://www.test", &[("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "www.test")], [200, 403]),
        ("https://www.test:8443", &[("X-Forwarded-Proto", "wss"), ("X-Forwarded-Host", "www.test:8443")], [200, 403]),
        ("https://www.test", &[("Forwarded", "proto=https;host=www.test")], [200, 403]),
        ("https://www.test:8443", &[("Forwarded", "for=\"[::1]:1\"; proto=https; host=\"www.test:8443\"")], [200, 403]),
        // The origin of another site is refused with any fields.
        ("https://evil.test", &[("Forwarded", "proto=https;host=www.test")], [403, 403]),
        (
            "https://evil.test",
            &[("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "www.test, evil.test")],
            [403, 403],
        ),
        ("https://www.test", &[("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "www.test")], [403, 403]),
        (
            "https://www.test",
            &[("X-Forwarded-Host", "api.test"), ("Forwarded", "proto=https;host=www.test")],
            [403, 403],
        ),
        ("http://api.test", &[("X-Forwarded-Host", "www.test")], [403, 200]),
    ] {
        let fields: Vec<_> = [HOST, ("Origin", origin)].into_iter().chain(fields.iter().copied()).collect();
        let statuses = gateways.each_ref().map(|gateway| fetch(gateway.address(), "POST", "/", &fields).status);
        assert_eq!(statuses, expected, "trusted, untrusted: {fields:?}");
    }
}

#[test]
fn the_route_is_that_of_host_and_not_of_a_forwarded_host() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = behind_a_proxy(&upstream, "127.0.0.1", "false");
    for (host, forwarded, status) in [("api.test", "other.test", 200), ("other.test", "api.test", 404)] {
        let fields = [("Host", host), ("X-Forwarded-Host", forwarded), ("X-Forwarded-Proto", "https")];
        assert_eq!(fetch(gateway.address(), "GET", "/", &fields).status, status, "{host} {forwarded}");
        gateway.wait_for_access_log_line(&format!("\"host\":\"{host}\",\"forwarded_host\":\"{forwarded}\""));
    }
    // A host equal to the forwarded one is not repeated.
    fetch(gateway.address(), "GET", "/same", &[HOST, ("X-Forwarded-Host", "api.test:80")]);
    gateway.wait_for_access_log_line("\"host\":\"api.test\",\"forwarded_host\":null,\"path\":\"/same\"");
}

#[test]
fn the_upstream_learns_the_url_from_a_proxy_that_sends_only_forwarded() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = behind_a_proxy(&upstream, "127.0.0.1", "false");
    let forwarded = ("Forwarded", "proto=https;host=\"www.test:8443\"");
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST, forwarded]).status, 200);
    let request = upstream.received().pop().unwrap();
    assert_eq!((request.header("Host"), request.header("Forwarded")), (Some("api.test"), Some(forwarded.1)));
    assert_eq!(request.header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(request.header("X-Forwarded-Host"), Some("www.test:8443"));
}

/// HTTP/1.0 needs no `Host`. A forwarded port alone makes no host.
#[test]
fn a_proxy_may_send_http_1_0_without_a_host() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
trusted_proxies: [127.0.0.1]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
        upstream.address()
    ));
    let own = gateway.address().to_string();
    for (field, host) in [("X-Forwarded-Port: 8443", &*own), ("Forwarded: host=www.test", "www.test")] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(format!("GET / HTTP/1.0\r\n{field}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.read("GET").unwrap().status, 200, "{field}");
        let request = upstream.received().pop().unwrap();
        assert_eq!((request.header("Host"), request.header("X-Forwarded-Host")), (Some(&*own), Some(host)), "{field}");
    }
}

#[test]
fn an_invalid_field_of_a_trusted_proxy_is_logged_once() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = behind_a_proxy(&upstream, "127.0.0.1", "false");
    for _ in 0..3 {
        assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST, ("X-Forwarded-Proto", "se\"cret")]).status, 200);
    }
    let line = "forwarding header ignored peer=127.0.0.1 reason=\"X-Forwarded-Proto is not http, https, ws or wss\"";
    gateway.wait_for_log(line);
    assert_eq!(gateway.stderr().matches("forwarding header ignored").count(), 1);
    assert!(!gateway.stderr().contains("cret"), "the log has data of a client");
}

/// Frameworks trust these fields, and many servers read a name with `_` as the same name with `-`.
#[test]
fn fields_that_a_service_may_believe_come_from_trusted_proxies_only() {
    let names = [
        "Forwarded",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Ssl",
        "X-Forwarded-Server",
        "X-Forwarded-Scheme",
        "X-Forwarded-User",
        "X-Original-URL",
        "X-Original-Host",
        "X-Rewrite-URL",
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "Client-IP",
        "Client-Cert",
        "Client-Cert-Chain",
    ];
    let lookalikes = ["X_Forwarded_For", "x_forwarded-host", "X-Forwarded_Prefix", "Client_Cert", "X.Forwarded.Proto"];
    let underscores = ["X_Id", "_", "trace_id"];
    let ordinary = ["X-Id", "X.Id", "X-HTTP-Method-Override", "X-Forwarder", "Traceparent"];
    for (trusted, option, kept) in [
        ("192.0.2.1", "", &[&ordinary[..]][..]),
        ("192.0.2.1", "underscores_in_headers: drop", &[&ordinary]),
        ("192.0.2.1", "underscores_in_headers: keep", &[&ordinary, &underscores]),
        ("127.0.0.1", "", &[&ordinary, &names]),
        ("127.0.0.1", "underscores_in_headers: keep", &[&ordinary, &names, &underscores]),
    ] {
        let upstream = Upstream::start(|_| Reply::new(200));
        let gateway = Gateway::start(&format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
trusted_proxies: [{trusted}]
{option}
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
            upstream.address()
        ));
        let all = [&names[..], &lookalikes, &underscores, &ordinary].concat();
        // Each field is sent twice, so that a remaining value is detected.
        let fields: Vec<_> = all.iter().chain(&all).map(|name| (*name, "forged")).collect();
        fetch(gateway.address(), "GET", "/", &[&[HOST], &fields[..]].concat());
        let received = upstream.received().pop().unwrap();
        let mut found: Vec<_> = received.headers.iter().filter(|(_, value)| value == "forged").map(|f| &*f.0).collect();
        found.sort_unstable();
        let mut expected: Vec<_> = kept.concat().iter().chain(&kept.concat()).map(|name| name.to_lowercase()).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{trusted} {option}");
        for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"] {
            assert_eq!(received.all(name).len(), 1, "{name}");
        }
        let dropped = 2 * (lookalikes.len() + if option.ends_with("keep") { 0 } else { underscores.len() }) as u64;
        let series = format!("corsgate_dropped_header_fields_total{{listener=\"{}\"}}", gateway.address());
        assert_eq!(gateway.metric(&series), dropped, "{trusted} {option}");
    }
}

#[test]
fn a_request_keeps_a_usable_id_and_otherwise_gets_one() {
    let is_ours = |id: Option<&str>| id.is_some_and(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    for kept in ["abc-1", "a.b:c_d", &"a".repeat(128)] {
        assert_eq!(received(&[("X-Request-Id", kept)]).header("X-Request-Id"), Some(kept));
    }
    for replaced in ["", "a b", "a\"b", "é", &"a".repeat(129)] {
        assert!(is_ours(received(&[("X-Request-Id", replaced)]).header("X-Request-Id")), "{replaced:?}");
    }
    assert!(is_ours(received(&[("X-Request-Id", "abc"), ("x-request-id", "def")]).header("X-Request-Id")));

    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = in_front_of(&upstream);
    fetch(gateway.address(), "GET", "/", &[HOST]);
    fetch(gateway.address(), "GET", "/", &[HOST]);
    let [first, second] = &upstream.received()[..] else { panic!("two requests") };
    assert!(is_ours(first.header("X-Request-Id")) && is_ours(second.header("X-Request-Id")));
    assert_ne!(first.header("X-Request-Id"), second.header("X-Request-Id"));
}

#[test]
fn hop_by_hop_fields_of_a_request_are_removed() {
    let request = received(&[
        ("Connection", "keep-alive, X-Foo"),
        ("X-Foo", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAA"),
        ("X-Bar", "2"),
    ]);
    for name in ["X-Foo", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "Upgrade"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("X-Bar"), Some("2"));
}

/// `Connection` must not remove fields of the gateway. Otherwise the log of the upstream has no request id.
#[test]
fn a_client_cannot_remove_the_fields_of_the_gateway() {
    let request = received(&[("Connection", "X-Request-Id, X-Forwarded-Port"), ("X-Request-Id", "abc")]);
    assert_eq!(request.header("X-Request-Id"), Some("abc"));
    let request = received(&[("Connection", "X-Request-Id")]);
    assert!(request.header("X-Request-Id").is_some());
    // Pingora refuses these.
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = in_front_of(&upstream);
    for name in ["Host", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "\"X-Forwarded-For\""] {
        let response = fetch(gateway.address(), "GET", "/", &[HOST, ("Connection", name)]);
        assert_eq!((response.status, upstream.received().len()), (400, 0), "{name}");
    }
}

#[test]
fn other_request_fields_are_forwarded_unchanged() {
    let fields = [
        ("Origin", "https://app.test"),
        ("Cookie", "a=1; b=\"2\""),
        ("Cookie", "c=3"),
        ("X-CaSe", "A, b ,c"),
        ("X-Twice", "1"),
        ("x-twice", "2"),
        ("Authorization", "Bearer abc=="),
        ("Access-Control-Request-Method", "PUT"),
        ("Accept-Encoding", "gzip, br"),
        ("Range", "bytes=0-1"),
        ("If-None-Match", "\"1\""),
        ("X-Empty", ""),
    ];
    let request = received(&fields);
    assert_eq!(request.header("Host"), Some("api.test"));
    for (name, value) in fields {
        assert!(
            request.headers.contains(&(name.to_ascii_lowercase(), value.to_owned())),
            "{name}: {value} of {:?}",
            request.headers
        );
    }
    assert_eq!((request.all("Cookie"), request.all("X-Twice")), (vec!["a=1; b=\"2\"", "c=3"], vec!["1", "2"]));
    let added: Vec<_> = request.headers.iter().map(|(name, _)| name.as_str()).skip(fields.len() + 1).collect();
    assert_eq!(added, ["x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]);
}

#[test]
fn the_origin_is_forwarded_under_every_policy() {
    for origin in ["https://app.test", "https://evil.test", "null", "not an origin", "HTTPS://APP.TEST"] {
        assert_eq!(received(&[("Origin", origin)]).header("Origin"), Some(origin));
    }
}

#[test]
fn connection_cannot_remove_origin_or_fields_of_the_gateway() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = in_front_of(&upstream);
    let preflight = [HOST, ORIGIN, ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-a")];
    let plain = fetch(gateway.address(), "OPTIONS", "/", &preflight);
    let named = "origin, access-control-request-method, access-control-request-headers";
    let tricked: Vec<_> = preflight.into_iter().chain([("Connection", named)]).collect();
    let tricked = fetch(gateway.address(), "OPTIONS", "/", &tricked);
    let answer = |response: &Response| {
        let fields = response.headers.iter().filter(|(name, _)| name != "Date");
        (response.status, fields.cloned().collect::<Vec<_>>())
    };
    assert_eq!(answer(&tricked), answer(&plain));
    assert_eq!(upstream.hits(), 0);

    for named in ["origin, x-request-id", "x-request-id, vary, access-control-allow-origin"] {
        let response = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN, ("Connection", named)]);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{named}");
        assert_eq!(response.header("Vary"), Some("Origin"), "{named}");
        let request = upstream.received().pop().unwrap();
        assert!(request.header("X-Request-Id").is_some(), "{named}");
        assert_eq!(request.header("X-Forwarded-For"), Some("127.0.0.1"), "{named}");
    }

    upstream.clear();
    for named in
        ["x-forwarded-for", "origin, x-forwarded-for, access-control-request-method", "x-forwarded-host", "host"]
    {
        let response = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN, ("Connection", named)]);
        assert_eq!((response.status, upstream.hits()), (400, 0), "{named}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{named}");
    }
}

/// The upstream's answer to TRACE would contain the request with its cookies.
#[test]
fn trace_needs_a_route_that_lists_it_and_max_forwards_is_counted_down() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway(&format!(
        "
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.test, preflight: {{ match: standard }} }}
    routes:
      - {{ name: get, paths: [/get], methods: [GET, OPTIONS] }}
      - {{ name: trace, paths: [/trace, /both], methods: [TRACE] }}
      - {{ name: both, paths: [/both] }}
      - {{ name: any, paths: [/*] }}
",
        upstream.address()
    ));
    let usual = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    let all = "TRACE, GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    // The last entry is the `Max-Forwards` that the upstream receives; `Err` has the `Allow` of the gateway's answer.
    for (method, path, value, status, expected) in [
        ("TRACE", "/", None, 405, Err(usual)),
        ("TRACE", "/", Some("5"), 405, Err(usual)),
        ("TRACE", "/get", None, 405, Err("GET, HEAD, OPTIONS")),
        ("TRACE", "/trace", None, 200, Ok(None)),
        ("TRACE", "/both", None, 200, Ok(None)),
        ("TRACE", "/trace", Some("1"), 200, Ok(Some("0"))),
        ("TRACE", "/trace", Some("0"), 405, Err("TRACE")),
        ("TRACE", "/trace", Some("0, 1"), 200, Ok(None)),
        ("OPTIONS", "/", None, 200, Ok(None)),
        ("OPTIONS", "/", Some("10"), 200, Ok(Some("9"))),
        ("OPTIONS", "/", Some("99999999999999999999"), 200, Ok(Some("4294967294"))),
        ("OPTIONS", "/", Some("0"), 204, Err(usual)),
        ("OPTIONS", "/both", Some("0"), 204, Err(all)),
        ("OPTIONS", "/get", Some("0"), 204, Err("GET, HEAD, OPTIONS")),
        ("OPTIONS", "*", Some("0"), 204, Err(usual)),
        ("OPTIONS", "/", Some("-1"), 200, Ok(None)),
        ("OPTIONS", "/", Some("x"), 200, Ok(None)),
        ("OPTIONS", "/", Some(""), 200, Ok(None)),
        ("GET", "/", Some("0"), 200, Ok(Some("0"))),
        ("POST", "/", Some("x"), 200, Ok(Some("x"))),
    ] {
        upstream.clear();
        let fields: Vec<_> = [HOST, ORIGIN].into_iter().chain(value.map(|value| ("Max-Forwards", value))).collect();
        let response = fetch(gateway.address(), method, path, &fields);
        let received = upstream.received().pop();
        let found = match &received {
            Some(request) => Ok(request.header("Max-Forwards")),
            None => Err(response.header("Allow").unwrap_or("no Allow")),
        };
        assert_eq!((response.status, found), (status, expected), "{method} {path} {value:?}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1), "{method} {path} {value:?}");
    }
    // A preflight has its own answer.
    let preflight = [HOST, ORIGIN, ("Access-Control-Request-Method", "PUT"), ("Max-Forwards", "0")];
    let response = fetch(gateway.address(), "OPTIONS", "/", &preflight);
    assert_eq!((response.status, response.header("Allow")), (200, None));
    assert_eq!(response.header("Access-Control-Allow-Methods"), Some("*"));
}

// --- responses

#[test]
fn hop_by_hop_fields_of_a_response_are_removed() {
    let response = returned(|| {
        Reply::new(200)
            .header("Connection", "X-Hop")
            .header("connection", "close, x-other")
            .header("X-Hop", "1")
            .header("X-Other", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("Proxy-Connection", "keep-alive")
            .header("Upgrade", "h2c")
            .header("Trailer", "X-T")
            .header("X-Kept", "2")
            .body("body")
    });
    for name in ["X-Hop", "X-Other", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Upgrade", "Trailer"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert_eq!((response.header("X-Kept"), response.text()), (Some("2"), "body"));
    assert_eq!(response.header("Connection"), Some("keep-alive"));
}

#[test]
fn connection_of_an_upstream_cannot_remove_cors_headers() {
    let response = returned(|| {
        Reply::new(200)
            .header("Connection", "access-control-allow-origin, vary, content-length")
            .header("Vary", "Accept")
            .body("body")
    });
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    assert!(response.header("Vary").is_some_and(|vary| vary.contains("Origin")));
    assert_eq!(response.text(), "body");
}

#[test]
fn other_response_fields_are_forwarded_unchanged() {
    let fields = [
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2; HttpOnly"),
        ("Server", "upstream/1"),
        ("X-CaSe", "A, b"),
        ("ETag", "W/\"1\""),
        ("Content-Type", "text/html"),
        ("Location", "http://127.0.0.1:1/x"),
        ("Cache-Control", "max-age=1"),
    ];
    let response = returned(move || fields.iter().fold(Reply::new(302), |reply, (n, v)| reply.header(n, v)));
    assert_eq!(response.status, 302);
    assert_eq!(response.all("Set-Cookie"), ["a=1; Path=/", "b=2; HttpOnly"]);
    for (name, value) in fields {
        let unchanged = |(n, v): &(String, String)| n.eq_ignore_ascii_case(name) && v == value;
        assert!(response.headers.iter().any(unchanged), "{name} of {:?}", response.headers);
    }
}

// --- bodies

/// A body in which every part shows its position.
fn large() -> Vec<u8> {
    (0u32..).flat_map(u32::to_be_bytes).take(1 << 20).collect()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    // The size is not a multiple of any buffer size.
    body.chunks(5003).map(chunk).chain([b"0\r\n\r\n".to_vec()]).collect::<Vec<_>>().concat()
}

#[test]
fn a_large_body_passes_whole_in_both_directions() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/chunked" => Reply::new(200).header(CHUNKED.0, CHUNKED.1).body(chunked(&request.body)),
        _ => Reply::new(200).body(request.body.clone()),
    });
    let gateway = in_front_of(&upstream);
    let mut connection = Connection::open(gateway.address()).unwrap();
    for target in ["/sized", "/chunked"] {
        let response = connection.request("POST", target, &[HOST], &large()).unwrap();
        assert!(response.body == large(), "{target}: {} bytes", response.body.len());
        let response = connection.request("POST", target, &[HOST, CHUNKED], &chunked(&large())).unwrap();
        assert!(response.body == large(), "{target}, chunked: {} bytes", response.body.len());
    }
    let framings = upstream.received().into_iter().map(|request| {
        (request.header("Content-Length").map(str::to_owned), request.header("Transfer-Encoding").map(str::to_owned))
    });
    let (sized, chunked) = ((Some("1048576".to_owned()), None), (None, Some("chunked".to_owned())));
    assert!(framings.eq([sized.clone(), chunked.clone(), sized, chunked]));
}

#[test]
fn a_100_continue_of_the_upstream_reaches_the_client() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = Vec::new();
        let mut read_until = |end: &[u8], stream: &mut std::net::TcpStream| {
            while !bytes.ends_with(end) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                bytes.push(byte[0]);
            }
        };
        read_until(b"\r\n\r\n", &mut stream);
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        read_until(b"body", &mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
    });
    let gateway = gateway(&format!("    upstream: {{ nodes: [{{ address: \"{address}\" }}] }}"));
    let mut connection = Connection::open(gateway.address()).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    connection.send(head.as_bytes()).unwrap();
    assert_eq!(connection.read_any("POST").unwrap().status, 100);
    connection.send(b"body").unwrap();
    assert_eq!(connection.read_any("POST").unwrap().text(), "done");
    upstream.join().unwrap();
}

#[test]
fn a_websocket_passes_bytes_both_ways() {
    let upstream = Upstream::start(|_| Reply::echo());
    let gateway = in_front_of(&upstream);
    let mut connection = Connection::open(gateway.address()).unwrap();
    let upgrade = [HOST, ORIGIN, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "abc")];
    let response = connection.request("GET", "/socket", &upgrade, b"").unwrap();
    assert_eq!(response.status, 101);
    assert!(response.header("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
    assert!(response.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(response.header("Sec-WebSocket-Accept"), Some("key"));
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    for message in [&b"\x81\x05hello"[..], b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", &large()] {
        connection.send(message).unwrap();
        assert!(connection.receive(message.len()).unwrap() == message);
    }
    let request = &upstream.received()[0];
    assert_eq!((request.header("Upgrade"), request.header("Sec-WebSocket-Key")), (Some("websocket"), Some("abc")));
    drop(connection);
    upstream.wait_for_closed(1);
    assert_eq!(upstream.hits(), 1);
}

// --- connections

#[test]
fn a_connection_to_the_upstream_is_reused() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = in_front_of(&upstream);
    for _ in 0..30 {
        // A new client connection each time.
        fetch(gateway.address(), "GET", "/", &[HOST]);
    }
    // A request may come before the previous upstream connection is free again.
    let connections = upstream.received().iter().map(|request| request.connection).max();
    assert!(connections < Some(15), "{connections:?} connections for 30 requests");
}

#[test]
fn a_kept_connection_that_the_upstream_closed_fails_no_request() {
    let upstream = Upstream::start(|_| Reply::new(200).header("Connection", "close"));
    let gateway = in_front_of(&upstream);
    for n in 1..=10 {
        assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
        assert_eq!(upstream.received().last().unwrap().connection, n);
    }
}

#[test]
fn an_idle_upstream_connection_is_closed_after_timeouts_idle() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway(&format!(
        "    upstream: {{ nodes: [{{ address: \"{}\" }}], timeouts: {{ idle: 300ms }} }}",
        upstream.address()
    ));
    let begin = Instant::now();
    fetch(gateway.address(), "GET", "/", &[HOST]);
    upstream.wait_for_closed(1);
    assert!(begin.elapsed() >= Duration::from_millis(250), "closed after {:?}", begin.elapsed());
    fetch(gateway.address(), "GET", "/", &[HOST]);
    assert_eq!(upstream.received()[1].connection, 2);
}

#[test]
fn round_robin_follows_the_weights() {
    let upstreams: Vec<_> = (0..3).map(|n| Upstream::start(move |_| Reply::new(200).body(n.to_string()))).collect();
    let nodes: Vec<_> = (upstreams.iter().zip([5, 1, 2]))
        .map(|(upstream, weight)| format!("{{ address: \"{}\", weight: {weight} }}", upstream.address()))
        .collect();
    let gateway = gateway(&format!("    upstream: {{ nodes: [{}] }}", nodes.join(", ")));
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..24 {
        *counts.entry(fetch(gateway.address(), "GET", "/", &[HOST]).text().to_owned()).or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [15, 3, 6]);
}

/// The statuses of 20 requests to two nodes. Nothing listens at the first, which has this weight.
fn statuses_with_a_dead_node(weight: u32, retries: &str) -> BTreeMap<u16, usize> {
    let upstream = Upstream::start(|request| Reply::new(200).body(request.body.clone()));
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let gateway = gateway(&format!(
        "    upstream: {{ nodes: [{{ address: \"{dead}\", weight: {weight} }}, {{ address: \"{}\" }}]{retries} }}",
        upstream.address()
    ));
    let mut statuses = BTreeMap::new();
    for _ in 0..20 {
        let mut connection = Connection::open(gateway.address()).unwrap();
        let response = connection.request("POST", "/", &[HOST], b"body").unwrap();
        assert!(response.status != 200 || response.text() == "body");
        *statuses.entry(response.status).or_default() += 1;
    }
    statuses
}

#[test]
fn a_dead_node_of_two_fails_no_request_with_a_retry() {
    assert_eq!(statuses_with_a_dead_node(1, ""), BTreeMap::from([(200, 20)]));
    // A retry must not use the dead node again, even if that node is the next in turn.
    assert_eq!(statuses_with_a_dead_node(9, ", retries: 1"), BTreeMap::from([(200, 20)]));
}

#[test]
fn a_dead_node_of_two_fails_half_of_the_requests_without_a_retry() {
    assert_eq!(statuses_with_a_dead_node(1, ", retries: 0, ejection: false"), BTreeMap::from([(200, 10), (502, 10)]));
}

/// An HTTP/1.0 upstream ends its body with the connection or with a Content-Length. The gateway answers as HTTP/1.1,
/// with a delimited body.
#[test]
fn a_response_of_an_http_1_0_upstream_is_sent_as_http_1_1() {
    for (header, body) in [("Content-Length: 5\r\n", "hello"), ("", "until the end")] {
        let upstream = Upstream::start(move |_| Reply::raw(format!("HTTP/1.0 200 OK\r\n{header}\r\n{body}")));
        let gateway = in_front_of(&upstream);
        let raw = raw_response(&gateway);
        assert!(raw.starts_with("HTTP/1.1 200 OK\r\n"), "{raw}");
        assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).text(), body);
    }
}

#[test]
fn the_reason_phrase_of_a_response_is_forwarded() {
    for status in ["200 OK", "200 Just Fine", "404 ", "599 Whatever"] {
        let upstream = Upstream::start(move |_| Reply::raw(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")));
        let gateway = in_front_of(&upstream);
        let raw = raw_response(&gateway);
        assert!(raw.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{raw}");
    }
}

/// The body is sent again if the node closes the connection. It counts only once, so 40 KiB do not exceed a limit of 64
/// KiB.
#[test]
fn a_retried_body_counts_once_against_the_limit() {
    let puts = Arc::new(AtomicUsize::new(0));
    let node = || {
        let puts = puts.clone();
        Upstream::start(move |request| match puts.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::reset(),
            _ => Reply::new(200).body(request.body.len().to_string()),
        })
    };
    let nodes = [node(), node()];
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
limits: {{ body: 64KiB }}
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}, {{ address: \"{}\" }}] }} }}]
",
        nodes[0].address(),
        nodes[1].address()
    ));
    let mut connection = Connection::open(gateway.address()).unwrap();
    let response = connection.request("PUT", "/", &[HOST], &vec![b'a'; 40 << 10]).unwrap();
    assert_eq!((response.status, response.text()), (200, "40960"));
    assert_eq!(puts.load(Ordering::Relaxed), 2, "the body was sent once only, and this shows nothing");
}

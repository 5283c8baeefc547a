//! `forward_auth`: the requests that the service is asked about, the header fields that the service gets, and the
//! effect of its answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_client::{H2Client, H2Request, fetch as fetch_h2};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::process::poll;
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Received, Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const HOSTILE: (&str, &str) = ("Origin", "https://evil.test");
/// Maximum time until a request ends after its client has closed the connection.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

/// Starts a gateway with an upstream `auth` and a service that asks this upstream. `auth` has the keys of the upstream.
/// `keys` has the keys of `forward_auth` besides `upstream`.
fn gateway(auth: &str, keys: &str, api: SocketAddr) -> Gateway {
    Gateway::start(&config(auth, keys, api))
}

fn config(auth: &str, keys: &str, api: SocketAddr) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log }}
upstreams:
  auth: {{ {auth} }}
  api: {{ nodes: [{{ address: \"{api}\" }}] }}
services:
  - name: api
    upstream: api
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT], allow_headers: [X-A], allow_credentials: true }}
    forward_auth: {{ upstream: auth, {keys} }}
    routes:
      - {{ name: all, paths: [/*] }}
      - {{ name: open, paths: [/open/*], forward_auth: false }}
      - {{ name: inline, paths: [/inline], forward_auth: {{ upstream: {{ {auth} }}, path: /inline }} }}
"
    )
}

fn nodes(addresses: &[SocketAddr]) -> String {
    let nodes: Vec<_> = addresses.iter().map(|at| format!("{{ address: \"{at}\" }}")).collect();
    format!("nodes: [{}]", nodes.join(", "))
}

/// Starts an upstream that answers 200 with the body of the request.
fn api() -> Upstream {
    Upstream::start(|request| Reply::new(200).body(request.body.clone()))
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Checks that the response has each CORS field of the policy once, and no other CORS fields.
#[track_caller]
fn assert_cors(response: &Response, allowed: bool) {
    let cors = |name: &str| name.to_ascii_lowercase().starts_with("access-control-");
    let mut found: Vec<_> = response.headers.iter().filter(|(name, _)| cors(name)).cloned().collect();
    found.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
    found.sort();
    let expected: &[(&str, &str)] = match allowed {
        true => &[("access-control-allow-credentials", "true"), ("access-control-allow-origin", "https://app.test")],
        false => &[],
    };
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(found, expected, "{response:?}");
    assert!(response.header("Vary").is_some_and(|vary| vary.contains("Origin")), "{response:?}");
}

/// Waits until the metric has counted `n` refused requests with this code.
#[track_caller]
fn wait_for_refusals(gateway: &Gateway, code: &str, n: usize) {
    let name = format!("corsgate_refused_requests_total{{service=\"api\",route=\"all\",code=\"{code}\"}}");
    let count = || gateway.metrics().lines().find_map(|line| line.strip_prefix(&*name)?.trim().parse::<usize>().ok());
    assert_eq!(poll(ENDED_WITHIN, || count().filter(|count| *count >= n)), Some(n), "{:?}", count());
}

// --- header fields for the service and for the upstream

#[test]
fn the_service_is_told_about_the_request_and_the_upstream_gets_its_fields() {
    let auth = Upstream::start(|_| {
        Reply::new(202)
            .header("X-User", "alice")
            .header("X-Groups", "a")
            .header("X-Groups", "b")
            .header("X-Secret", "s")
            .header("Access-Control-Allow-Origin", "*")
            .header("Set-Cookie", "session=2; HttpOnly")
            .body("a body that nobody reads")
    });
    let api = Upstream::start(|request| Reply::new(200).header("Set-Cookie", "own=1").body(request.body.clone()));
    let keys = "path: '/verify?level=2', request_headers: [Authorization, Cookie, X-Tenant], \
                response_headers: [X-User, X-Groups, X-Role]";
    let gateway = gateway(&nodes(&[auth.address()]), keys, api.address());
    let fields = [
        HOST,
        ORIGIN,
        ("Authorization", "Bearer t"),
        ("Cookie", "session=1"),
        ("X-Tenant", "acme"),
        ("X-Other", "1"),
        ("X-Forwarded-Uri", "/public"),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Real-IP", "10.0.0.1"),
        ("Transfer-Encoding", "chunked"),
    ];
    let mut client = Connection::open(gateway.address()).unwrap();
    let response = client.request("PUT", "/a%20b?c=d", &fields, b"5\r\nhello\r\n0\r\n\r\n").unwrap();
    assert_eq!((response.status, response.text()), (200, "hello"));
    assert_cors(&response, true);
    assert_eq!(response.all("Set-Cookie"), ["own=1", "session=2; HttpOnly"]);
    assert_eq!(response.header("X-User"), None);

    let [asked] = <[Received; 1]>::try_from(auth.received()).unwrap();
    assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.body.len()), ("GET", "/verify?level=2", 0));
    let address = auth.address().to_string();
    for (name, value) in [
        ("Host", Some(&*address)),
        ("Authorization", Some("Bearer t")),
        ("Cookie", Some("session=1")),
        ("X-Tenant", Some("acme")),
        ("X-Forwarded-Method", Some("PUT")),
        ("X-Forwarded-Proto", Some("http")),
        ("X-Forwarded-Host", Some("api.test")),
        ("X-Forwarded-Uri", Some("/a%20b?c=d")),
        ("X-Forwarded-For", Some("127.0.0.1")),
        ("X-Real-IP", Some("127.0.0.1")),
        ("X-Other", None),
        ("Origin", None),
        ("Content-Length", None),
        ("Transfer-Encoding", None),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    let [received] = <[Received; 1]>::try_from(api.received()).unwrap();
    assert_eq!((received.header("X-User"), received.all("X-Groups")), (Some("alice"), vec!["a", "b"]));
    assert_eq!((received.header("X-Secret"), received.header("Cookie")), (None, Some("session=1")));
    assert_eq!(asked.header("X-Request-Id"), received.header("X-Request-Id"));
    assert!(asked.header("X-Request-Id").is_some());
}

/// Checks that only the paths of the upstream's cookies are restored, because the upstream gets paths without the
/// stripped prefix. The paths of the service's cookies do not change.
#[test]
fn restored_prefixes_leave_the_cookies_of_the_service_alone() {
    let auth = Upstream::start(|_| Reply::new(200).header("Set-Cookie", "session=2; Path=/"));
    let api = Upstream::start(|_| Reply::new(200).header("Set-Cookie", "own=1; Path=/"));
    let routes = "routes:\n      - { name: v1, paths: [/v1/*], path: { strip_prefix: /v1, restore_prefix: true } }";
    let config = config(&nodes(&[auth.address()]), "path: /check", api.address()).replace("routes:", routes);
    let gateway = Gateway::start(&config);
    let response = fetch(gateway.address(), "GET", "/v1/x", &[("Host", "api.test")]);
    assert_eq!(response.all("Set-Cookie"), ["own=1; Path=/v1", "session=2; Path=/"]);
}

/// All clients share the connections to the service, so the PROXY header names no client.
#[test]
fn the_service_gets_the_proxy_header_of_its_upstream() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let service = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = vec![0; 200];
        let length = stream.read(&mut received).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8_lossy(&received[..length]).into_owned()
    });
    let api = api();
    let auth = format!("{}, proxy_protocol: v1", nodes(&[address]));
    let gateway = gateway(&auth, "path: /check", api.address());
    assert_eq!(fetch(gateway.address(), "GET", "/x", &[("Host", "api.test")]).status, 200);
    let received = service.join().unwrap();
    assert!(received.starts_with("PROXY UNKNOWN\r\n"), "{received}");
}

/// The URL and the address of the client come from the fields of a trusted proxy. Fields of other peers are ignored.
#[test]
fn the_service_is_told_the_url_that_a_trusted_proxy_reports() {
    let (auth, api) = (Upstream::start(|_| Reply::new(200)), api());
    let config = config(&nodes(&[auth.address()]), "path: /verify", api.address());
    for (trusted, proto, host, chain, client) in [
        (true, "https", "www.test", "192.0.2.7, 127.0.0.1", "192.0.2.7"),
        (false, "http", "api.test", "127.0.0.1", "127.0.0.1"),
    ] {
        let trust = if trusted { "trusted_proxies: [127.0.0.1]\n" } else { "" };
        let gateway = Gateway::start(&format!("{trust}{config}"));
        let forwarded = [
            HOST,
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "www.test"),
            ("X-Forwarded-For", "192.0.2.7"),
            ("X-Forwarded-Method", "DELETE"),
            ("X-Forwarded-Uri", "/public"),
            ("X-Real-IP", "203.0.113.9"),
        ];
        assert_eq!(fetch(gateway.address(), "GET", "/x", &forwarded).status, 200);
        let asked = auth.received().pop().unwrap();
        for (name, value) in [
            ("X-Forwarded-Proto", proto),
            ("X-Forwarded-Host", host),
            ("X-Forwarded-For", chain),
            ("X-Real-IP", client),
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Uri", "/x"),
        ] {
            assert_eq!(asked.header(name), Some(value), "{name}, trusted: {trusted}");
        }
    }
}

/// The requests to the service count for `max_connections` of its upstream, and wait in its queue.
#[test]
fn requests_wait_for_a_free_place_at_the_service() {
    let auth = Upstream::start(|_| Reply::new(200).after(Duration::from_millis(200)));
    let api = api();
    let limit = |timeout| format!("{}, max_connections: 1, queue: {{ timeout: {timeout} }}", nodes(&[auth.address()]));
    let statuses = |gateway: &Gateway| {
        let address = gateway.address();
        let requests = [(); 3].map(|()| std::thread::spawn(move || fetch(address, "GET", "/", &[HOST]).status));
        let mut statuses = requests.map(|request| request.join().unwrap());
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(statuses(&gateway(&limit("10s"), "path: /verify", api.address())), [200; 3]);
    assert_eq!(statuses(&gateway(&limit("10ms"), "path: /verify", api.address())), [200, 503, 503]);
}

#[test]
fn a_client_cannot_forge_the_fields_of_the_service() {
    let auth = Upstream::start(|request| match request.header("Authorization") {
        Some("alice") => Reply::new(200).header("X-User", "alice"),
        // Nobody is signed in, so the service sets no field.
        _ => Reply::new(200),
    });
    let api = api();
    for underscores in ["drop", "keep"] {
        let keys = "path: /verify, response_headers: [X-User]";
        let config = config(&nodes(&[auth.address()]), keys, api.address());
        let gateway = Gateway::start(&format!("underscores_in_headers: {underscores}\n{config}"));
        let forged = [("X-User", "root"), ("x-uSER", "root"), ("X_User", "root"), ("X.User", "root"), ("X-User", "")];
        for (who, user) in [("alice", vec!["alice"]), ("nobody", vec![])] {
            let own = [HOST, ("Authorization", who)];
            let fields: Vec<_> = own.iter().chain(&forged).copied().collect();
            assert_eq!(fetch(gateway.address(), "GET", "/", &fields).status, 200);
            // A client may list the field in `Connection`, so that a proxy removes the field as hop-by-hop.
            let hop = [HOST, ("Authorization", who), ("Connection", "close, X-User"), ("X-User", "root")];
            assert_eq!(fetch(gateway.address(), "GET", "/", &hop).status, 200);
            for request in api.received() {
                let user_fields = ["X-User", "X_User", "X.User"].map(|name| request.all(name)).concat();
                assert_eq!(user_fields, user, "{who}, {underscores}: {:?}", request.headers);
            }
            assert_eq!(api.hits(), 2);
            api.clear();
        }
    }
}

// --- requests that the service is asked about

#[test]
fn the_service_never_sees_a_preflight() {
    // The service refuses every request, like a service without support for CORS.
    let auth = Upstream::start(|_| Reply::new(401));
    let api = api();
    let gateway = gateway(&nodes(&[auth.address()]), "path: /verify", api.address());
    let preflight = |origin, method, headers| {
        let fields = [
            HOST,
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", headers),
        ];
        fetch(gateway.address(), "OPTIONS", "/orders", &fields)
    };
    for (origin, method, headers, allowed) in [
        ("https://app.test", "PUT", "x-a", true),
        // The lists in these responses show the browser that the method or the field is not allowed.
        ("https://app.test", "DELETE", "x-a", true),
        ("https://app.test", "PUT", "x-b", true),
        ("https://evil.test", "PUT", "x-a", false),
        ("null", "GET", "authorization", false),
        ("not an origin", "GET", "x-a", false),
    ] {
        let response = preflight(origin, method, headers);
        assert_eq!(response.status, 200, "{origin} {method} {headers}");
        let allows = response.header("Access-Control-Allow-Origin").is_some();
        assert_eq!(allows, allowed, "{origin} {method} {headers}: {response:?}");
    }
    // The gateway answers every OPTIONS request with an `Origin`.
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/", &[HOST, ORIGIN]).status, 200);
    assert_eq!((auth.hits(), api.hits()), (0, 0), "{:?}", auth.received());
    // An OPTIONS request without an `Origin` is not a preflight.
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/", &[HOST]).status, 401);
    assert_eq!((auth.hits(), api.hits()), (1, 0));
    assert_eq!(auth.received()[0].header("X-Forwarded-Method"), Some("OPTIONS"));
}

#[test]
fn a_route_can_have_another_service_or_none() {
    let auth = Upstream::start(|_| Reply::new(401));
    let api = api();
    let keys = "path: /verify, response_headers: [X-User]";
    let gateway = gateway(&nodes(&[auth.address()]), keys, api.address());
    assert_eq!(fetch(gateway.address(), "GET", "/open/x", &[HOST]).status, 200);
    assert_eq!(auth.hits(), 0);
    let forged = [HOST, ("X-User", "root"), ("X-Other", "1")];
    assert_eq!(fetch(gateway.address(), "GET", "/open/x", &forged).status, 200);
    let fields = &api.received()[1].headers;
    assert!(fields.iter().any(|(name, _)| name == "x-other") && fields.iter().all(|(name, _)| name != "x-user"));
    assert_eq!(fetch(gateway.address(), "GET", "/inline", &[HOST]).status, 401);
    assert_eq!(auth.received()[0].target, "/inline");
    // The service is not asked about requests that the gateway itself refuses.
    assert_eq!(fetch(gateway.address(), "GET", "/a/../b", &[HOST]).status, 400);
    assert_eq!((auth.hits(), api.hits()), (1, 2));
}

/// A client gets an answer of `respond` or `redirect` only if the service allows the request.
#[test]
fn the_service_decides_about_answers_of_the_gateway_too() {
    let auth = Upstream::start(|request| match request.header("Cookie") {
        Some(_) => Reply::new(200).header("Set-Cookie", "session=2").header("X-User", "alice"),
        None => Reply::new(401),
    });
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
upstreams: {{ auth: {{ {} }} }}
services:
  - name: api
    cors: {{ allow_origins: https://app.test }}
    forward_auth: {{ upstream: auth, path: /verify }}
    routes:
      - {{ paths: [/a], respond: {{ body: secret }} }}
      - {{ paths: [/b], redirect: {{ to: /secret }} }}
",
        nodes(&[auth.address()])
    ));
    for (path, status) in [("/a", 200), ("/b", 307)] {
        let refused = fetch(gateway.address(), "GET", path, &[HOST, ORIGIN]);
        assert_eq!((refused.status, refused.header("Location"), refused.text()), (401, None, ""));
        let allowed = fetch(gateway.address(), "GET", path, &[HOST, ORIGIN, ("Cookie", "session=1")]);
        assert_eq!((allowed.status, allowed.header("Set-Cookie")), (status, Some("session=2")));
        assert_eq!(allowed.header("Access-Control-Allow-Origin"), Some("https://app.test"));
        assert_eq!(allowed.header("X-User"), None);
    }
}

#[test]
fn a_websocket_needs_the_consent_of_the_service() {
    let auth = Upstream::start(|request| {
        // The request to the service is not an upgrade.
        assert_eq!((request.header("Upgrade"), request.header("Connection")), (None, None));
        Reply::new(if request.header("Cookie").is_some() { 200 } else { 403 }).header("X-User", "alice")
    });
    let api = Upstream::start(|_| Reply::echo());
    let keys = "path: /verify, response_headers: [X-User]";
    let gateway = gateway(&nodes(&[auth.address()]), keys, api.address());
    let upgrade = [HOST, ORIGIN, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "a2V5")];
    let response = fetch(gateway.address(), "GET", "/socket", &upgrade);
    assert_eq!(response.status, 403);
    assert_cors(&response, true);
    assert_eq!(api.hits(), 0);
    let mut socket = Connection::open(gateway.address()).unwrap();
    let fields: Vec<_> = upgrade.iter().copied().chain([("Cookie", "session=1")]).collect();
    assert_eq!(socket.request("GET", "/socket", &fields, b"").unwrap().status, 101);
    socket.send(b"hello").unwrap();
    assert_eq!(socket.receive(5).unwrap(), b"hello");
    assert_eq!(api.received()[0].header("X-User"), Some("alice"));
}

// --- refusals

#[test]
fn a_page_can_read_the_refusal_of_the_service() {
    let auth = Upstream::start(|request| {
        let uri = request.header("X-Forwarded-Uri").unwrap();
        let status = uri.trim_matches('/').split('?').next().unwrap().parse().unwrap();
        Reply::new(status)
            .header("WWW-Authenticate", "Bearer realm=\"api\"")
            .header("Location", "https://login.test/?rd=x")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .header("Content-Type", "application/json")
            .header("Retry-After", "7")
            // The client must not get any of these fields.
            .header("Access-Control-Allow-Origin", "*")
            .header("Access-Control-Allow-Credentials", "false")
            .header("Access-Control-Expose-Headers", "X-Secret")
            .header("Timing-Allow-Origin", "*")
            .header("Keep-Alive", "timeout=5")
            .header("Connection", "X-Hop")
            .header("X-Hop", "1")
            .body("{\"error\":\"login\"}")
    });
    let api = api();
    let gateway = gateway(&nodes(&[auth.address()]), "path: /verify", api.address());
    for status in ["401", "403", "302", "307", "400", "404", "418", "429"] {
        for (origin, allowed) in [(ORIGIN, true), (HOSTILE, false)] {
            for (method, body) in [("GET", ""), ("HEAD", ""), ("PUT", "a body")] {
                let what = format!("{method} {status}");
                let mut client = Connection::open(gateway.address()).unwrap();
                let response = client.request(method, &format!("/{status}"), &[HOST, origin], body.as_bytes());
                let response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(response.status.to_string(), status, "{what}");
                assert_cors(&response, allowed);
                assert_eq!(response.header("WWW-Authenticate"), Some("Bearer realm=\"api\""), "{what}");
                assert_eq!(response.header("Location"), Some("https://login.test/?rd=x"), "{what}");
                assert_eq!(response.all("Set-Cookie"), ["a=1", "b=2"], "{what}");
                assert_eq!(response.header("Content-Type"), Some("application/json"), "{what}");
                assert_eq!(response.header("Retry-After"), Some("7"), "{what}");
                assert_eq!(response.header("Cache-Control"), Some("no-store"), "{what}");
                assert_eq!(response.header("Content-Length"), Some("17"), "{what}");
                for name in ["Timing-Allow-Origin", "Keep-Alive", "X-Hop", "Transfer-Encoding"] {
                    assert_eq!(response.header(name), None, "{what}: {name}");
                }
                let text = if method == "HEAD" { "" } else { "{\"error\":\"login\"}" };
                assert_eq!(response.text(), text, "{what}");
            }
        }
    }
    assert_eq!(api.hits(), 0);
    wait_for_refusals(&gateway, "auth_refused", auth.hits());
    // All requests to the service use one connection.
    assert!(auth.received().iter().all(|request| request.connection == 1));
}

type Answer = Box<dyn Fn(&Received) -> Reply + Send + Sync>;

#[test]
fn the_gateway_answers_if_the_service_does_not() {
    let bodies = [256 << 10, (256 << 10) + 1];
    let [at_limit, over_limit] = bodies.map(|size| move |status: u16| Reply::new(status).body(vec![b'a'; size]));
    let answer = |answer: fn(&Received) -> Reply| Box::new(answer) as Answer;
    let cases: Vec<(&str, u16, Answer)> = vec![
        ("500", 503, answer(|_| Reply::new(500).header("Access-Control-Allow-Origin", "*"))),
        ("502", 503, answer(|_| Reply::new(502))),
        ("503", 503, answer(|_| Reply::new(503).header("Retry-After", "1"))),
        ("304", 503, answer(|_| Reply::new(304))),
        ("407", 503, answer(|_| Reply::new(407))),
        ("101", 503, answer(|_| Reply::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"))),
        ("no response in time", 503, answer(|_| Reply::hang())),
        ("connection closed", 503, answer(|_| Reply::reset())),
        ("connection reset", 503, answer(|_| Reply::abort())),
        ("not HTTP", 503, answer(|_| Reply::raw("220 mail.test ESMTP\r\n\r\n"))),
        ("half a header", 503, answer(|_| Reply::raw("HTTP/1.1 200 OK\r\nX-Half: "))),
        (
            "two lengths",
            503,
            answer(|_| Reply::raw("HTTP/1.1 401 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
        ),
        ("half a body", 503, answer(|_| Reply::raw("HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nhalf"))),
        ("the longest body", 401, Box::new(move |_| at_limit(401))),
        ("a longer body", 503, Box::new(move |_| over_limit(401))),
        // The header of the response allows the request, whatever the body is.
        ("200 with a long body", 200, Box::new(move |_| over_limit(200))),
        ("200 with half a body", 200, answer(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"))),
        (
            "200 after 100",
            200,
            answer(|_| Reply::raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
        ),
        (
            "chunked",
            403,
            answer(|_| Reply::raw("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")),
        ),
        ("until the end", 403, answer(|_| Reply::raw("HTTP/1.1 403 No\r\n\r\nabc"))),
    ];
    for (what, status, answer) in cases {
        let (auth, api) = (Upstream::start(answer), api());
        let keys = "path: /verify, timeout: 400ms";
        let gateway = gateway(&format!("{}, ejection: false", nodes(&[auth.address()])), keys, api.address());
        for (origin, allowed) in [(ORIGIN, true), (HOSTILE, false)] {
            let response = fetch(gateway.address(), "GET", "/", &[HOST, origin]);
            assert_eq!(response.status, status, "{what}");
            assert_cors(&response, allowed);
            if status == 503 {
                assert_eq!(response.text(), "The authentication service gave no answer.\n", "{what}");
                assert_eq!(response.header("Cache-Control"), Some("no-store"), "{what}");
            }
        }
        assert_eq!(api.hits(), if status == 200 { 2 } else { 0 }, "{what}");
        if status == 503 {
            wait_for_refusals(&gateway, "auth_unavailable", 2);
            gateway.wait_for_log_count("authentication service gave no answer route=api/all upstream=auth error=", 2);
        }
    }
}

#[test]
fn without_a_node_that_answers_requests_are_refused() {
    let api = api();
    for auth in [nodes(&[nowhere()]), nodes(&[nowhere(), nowhere()])] {
        let gateway = gateway(&auth, "path: /verify", api.address());
        for _ in 0..3 {
            let response = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN]);
            assert_eq!(response.status, 503);
            assert_cors(&response, true);
        }
        assert_eq!(fetch(gateway.address(), "GET", "/open/x", &[HOST]).status, 200);
    }
    assert_eq!(api.hits(), 2, "only the open route reaches the upstream");
}

#[test]
fn a_grpc_call_gets_the_failure_of_the_service_as_its_status() {
    let api = api();
    let gateway = gateway(&nodes(&[nowhere()]), "path: /verify", api.address());
    let response = fetch(gateway.address(), "POST", "/x", &[HOST, ("Content-Type", "application/grpc")]);
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("14")));
}

// --- attempts and connections

#[test]
fn another_node_answers_for_a_dead_one() {
    type Bad = fn(&Received) -> Reply;
    let bad: [(&str, Bad); 3] = [
        ("closed", |_| Reply::reset()),
        ("half a header", |_| Reply::raw("HTTP/1.1 200 OK\r\nX-Half: ")),
        ("silent", |_| Reply::hang()),
    ];
    for (what, answer) in bad {
        let (bad, good, api) = (Upstream::start(answer), Upstream::start(|_| Reply::new(200)), api());
        let auth = format!(
            "{}, timeouts: {{ read: 200ms }}, ejection: false",
            nodes(&[bad.address(), good.address(), nowhere()])
        );
        let gateway = gateway(&format!("{auth}, retries: 2"), "path: /verify", api.address());
        for _ in 0..6 {
            assert_eq!(fetch(gateway.address(), "POST", "/", &[HOST]).status, 200, "{what}");
        }
        assert_eq!((good.hits(), api.hits()), (6, 6), "{what}");
        assert!(bad.hits() >= 2, "{what}");
    }
}

#[test]
fn a_node_that_fails_several_times_is_ejected() {
    let (bad, good, api) = (Upstream::start(|_| Reply::reset()), Upstream::start(|_| Reply::new(200)), api());
    let auth = format!("{}, ejection: {{ after: 2, for: 1h }}", nodes(&[bad.address(), good.address()]));
    let gateway = gateway(&auth, "path: /verify", api.address());
    for _ in 0..10 {
        assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
    }
    assert_eq!(bad.hits(), 2);
    gateway.wait_for_log(&format!("node ejected upstream=auth address={}", bad.address()));
}

#[test]
fn a_kept_connection_that_the_service_has_closed_is_no_failure() {
    let auth = Upstream::start(|request| match request.connection {
        // The service closes the first connection when the gateway uses it again.
        1 if request.header("X-Forwarded-Uri") == Some("/second") => Reply::reset(),
        _ => Reply::new(204),
    });
    let api = api();
    let gateway = gateway(&format!("{}, retries: 0", nodes(&[auth.address()])), "path: /verify", api.address());
    for path in ["/first", "/second", "/third"] {
        assert_eq!(fetch(gateway.address(), "GET", path, &[HOST]).status, 200, "{path}");
    }
    let connections: Vec<_> = auth.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections[..3], [1, 1, 2]);
}

#[test]
fn connections_to_the_service_are_kept() {
    for status in [200, 202, 204] {
        let auth = Upstream::start(move |_| match status {
            204 => Reply::new(204),
            status => Reply::new(status).body("ok"),
        });
        let api = api();
        let gateway = gateway(&nodes(&[auth.address()]), "path: /verify", api.address());
        let mut client = Connection::open(gateway.address()).unwrap();
        for _ in 0..20 {
            assert_eq!(client.request("GET", "/", &[HOST], b"").unwrap().status, 200);
        }
        let connections: Vec<_> = auth.received().iter().map(|request| request.connection).collect();
        assert_eq!(connections, [1; 20], "{status}");
    }
}

#[test]
fn the_service_may_speak_http2_over_tls() {
    let authority = Authority::new("ca");
    let certificate = authority.issue(&["auth.test"]);
    let auth =
        H2Upstream::start_tls(certificate.server(None, &["h2"]), |request| match request.header("authorization") {
            Some("alice") => H2Reply::new(200).header("x-user", "alice"),
            _ => H2Reply::new(401).header("www-authenticate", "Bearer").body("login"),
        });
    let api = api();
    let files = [("ca.pem".to_owned(), authority.pem())];
    let auth_keys = format!("{}, http2: true, tls: {{ sni: auth.test, ca: ca.pem }}", nodes(&[auth.address()]));
    let keys = "path: /verify, response_headers: [X-User]";
    let gateway = Gateway::start_with_files(&config(&auth_keys, keys, api.address()), &files);
    for _ in 0..3 {
        let refused = fetch(gateway.address(), "GET", "/x", &[HOST, ORIGIN]);
        assert_eq!((refused.status, refused.text()), (401, "login"));
        assert_cors(&refused, true);
        assert_eq!(fetch(gateway.address(), "GET", "/x", &[HOST, ("Authorization", "alice")]).status, 200);
    }
    assert_eq!(api.received()[0].header("X-User"), Some("alice"));
    let asked = &auth.received()[0];
    assert_eq!((asked.authority.as_deref(), asked.path.as_str()), (Some("auth.test"), "/verify"));
    assert!(auth.received().iter().all(|request| request.connection == 1));
}

#[test]
fn an_http2_client_is_checked_too() {
    let authority = Authority::new("ca");
    let certificate = authority.issue(&["api.test"]);
    let auth = Upstream::start(|request| match request.header("Cookie") {
        Some("a=1; session=1") => Reply::new(200).header("X-User", "alice"),
        other => Reply::new(401).body(format!("{other:?}")),
    });
    let api = api();
    let config = config(&nodes(&[auth.address()]), "path: /verify, response_headers: [X-User]", api.address());
    let config = config.replace(
        "{ address: \"{listen}\" }",
        "{ address: \"{listen}\", tls: { certificates: [{ cert: api.crt, key: api.key }] } }",
    );
    let gateway = Gateway::start_with_files(&config, &certificate.files("api"));
    let tls = TlsClient::new(&authority, "api.test").protocols(&["h2"]);
    let request = |method: &str| H2Request::new(method, "api.test", "/x").header("origin", "https://app.test");
    let refused = fetch_h2(gateway.address(), &tls, &request("POST").data("a body"));
    assert_eq!((refused.status, refused.text()), (401, "None"));
    assert_cors(&refused, true);
    let allowed = request("POST").header("cookie", "a=1").header("cookie", "session=1").data("a body");
    let response = fetch_h2(gateway.address(), &tls, &allowed.header("x-user", "root"));
    assert_eq!((response.status, response.text()), (200, "a body"));
    assert_eq!(api.received()[0].all("X-User"), ["alice"]);
    let asked = &auth.received()[0];
    assert_eq!(asked.header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(asked.header("X-Forwarded-Host"), Some("api.test"));
}

#[test]
fn a_client_that_leaves_ends_the_request_to_the_service() {
    let authority = Authority::new("ca");
    let certificate = authority.issue(&["api.test"]);
    let auth = Upstream::start(|_| Reply::hang());
    let api = api();
    let config = config(&nodes(&[auth.address()]), "path: /verify, timeout: 10m", api.address()).replace(
        "{ address: \"{listen}\" }",
        "{ address: \"{listen}\" }, { address: \"{listen2}\", tls: { certificates: [{ cert: api.crt, key: api.key }] } }",
    );
    let gateway = Gateway::start_with_files(&config, &certificate.files("api"));
    let mut client = Connection::open(gateway.address()).unwrap();
    client.send(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    auth.wait_for_hits(1);
    let running = || {
        gateway.metric(&format!("corsgate_upstream_node_active{{upstream=\"auth\",address=\"{}\"}}", auth.address()))
    };
    assert_eq!(running(), 1);
    drop(client);
    assert!(poll(ENDED_WITHIN, || (running() == 0).then_some(())).is_some());

    let tls = TlsClient::new(&authority, "api.test").protocols(&["h2"]);
    let client = H2Client::open(gateway.address2(), &tls).unwrap();
    let pending = client.begin(&H2Request::new("GET", "api.test", "/")).unwrap();
    auth.wait_for_hits(2);
    assert_eq!(running(), 1);
    drop(pending);
    assert!(poll(ENDED_WITHIN, || (running() == 0).then_some(())).is_some());
    let lines = gateway.wait_for_access_log(2);
    assert!(lines.iter().all(|line| line.contains("\"status\":null") || line.contains("\"status\":0")), "{lines:#?}");
    assert_eq!(api.hits(), 0);
}

/// The client may send the next request on the same connection at once. This request is not lost while the service
/// decides.
#[test]
fn a_pipelined_request_waits_for_the_decision() {
    let auth = Upstream::start(|request| match request.header("X-Forwarded-Uri") {
        Some("/no") => Reply::new(403).after(Duration::from_millis(100)),
        _ => Reply::new(200).after(Duration::from_millis(100)),
    });
    let api = Upstream::start(|request| Reply::new(200).body(request.target.clone()));
    let gateway = gateway(&nodes(&[auth.address()]), "path: /verify", api.address());
    let mut client = Connection::open(gateway.address()).unwrap();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n");
    client.send([request("/1"), request("/no"), request("/2")].concat().as_bytes()).unwrap();
    let mut read = || client.read("GET").map(|response| (response.status, response.text().to_owned())).unwrap();
    assert_eq!(read(), (200, "/1".into()));
    assert_eq!(read().0, 403);
    assert_eq!(read(), (200, "/2".into()));
}

/// The client may wait for 100 (Continue) before it sends a body. It gets the refusal instead.
#[test]
fn a_refused_client_does_not_send_its_body() {
    let auth = Upstream::start(|_| Reply::new(401));
    let api = api();
    let gateway = gateway(&nodes(&[auth.address()]), "path: /verify", api.address());
    let mut client = Connection::open(gateway.address()).unwrap();
    let header = "PUT / HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    client.send(header.as_bytes()).unwrap();
    assert_eq!(client.read_any("PUT").unwrap().status, 401);
}

#[test]
fn the_time_of_the_service_counts_as_time_of_the_request() {
    let auth = Upstream::start(|_| Reply::new(200).after(Duration::from_millis(300)));
    let api = api();
    let gateway = gateway(&nodes(&[auth.address()]), "path: /verify", api.address());
    let started = Instant::now();
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

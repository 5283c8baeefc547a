//! Decisions of one configuration, without a process: limits, framing, hosts, guards, redirects and methods.
//!
//! The tables in `tests/cases` have the CORS header fields. Here each row has the action, the route, and whether a page
//! of `https://app.example` may read the response.

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Version};

use super::{Action, Capacity, ConnectionFacts, Framing, Refusal, Request, ServerName, Verdict};
use crate::behavior::clients::ClientAddress;
use crate::domain::{OwnOrigin, Scheme};
use crate::snapshot::{CompileEnv, Snapshot, load};
use crate::tls::{Certificate, Pem};

/// `other.example` has a policy that does not allow the page. Any other host gets the default policy, which allows it.
const CONFIG: &str = r#"
listeners:
  - { address: "127.0.0.1:9080", clients: { allow: [192.0.2.0/24, 10.0.0.0/8] } }
limits: { uri: 1KiB, headers: 2KiB, header_count: 8, body: 1KiB }
upstreams: { app: { nodes: [{ address: "127.0.0.1:8000" }] } }
cors: { allow_origins: "https://app.example" }
services:
  - name: shop
    hosts: [shop.example]
    upstream: app
    routes:
      - { name: items, paths: ["/items/*"], methods: [GET, POST, TRACE] }
      - { name: admin, paths: ["/admin/*"], clients: { allow: [10.0.0.0/8] } }
      - { name: open, paths: ["/open/*"] }
      - { name: raw, paths: [/raw], methods: [GET], cors: false }
      - { name: raw-write, paths: [/raw], methods: [PUT], cors: false }
      - { name: only, paths: [/only], cors: false }
      - { name: answer, paths: [/answer], respond: { status: 200 } }
      - { name: old, paths: ["/old/*"], path: { replace: { pattern: '^/old/x(.*)$', with: /$1 } } }
      - { name: signed-in, paths: ["/me/*"], forward_auth: { upstream: app, path: /verify } }
      - { name: signed-in-answer, paths: [/me], respond: { status: 200 }, forward_auth: { upstream: app, path: /verify } }
      - { name: files, paths: ["/.well-known/*"] }
      - { name: listed, paths: [/listed], methods: [GET, OPTIONS] }
  - name: split
    hosts: [split.example]
    upstream: app
    cors: { allow_origins: "https://other.example" }
    routes:
      - { name: read, paths: [/x], methods: [GET] }
      - { name: write, paths: [/x], methods: [PUT], cors: { allow_origins: "https://app.example" } }
  - name: other
    hosts: [other.example]
    upstream: app
    cors: { allow_origins: "https://other.example" }
    routes:
      - { name: allowed, paths: [/allowed], cors: { allow_origins: "https://app.example" } }
"#;

/// One request. A row changes what it needs.
#[derive(Clone)]
struct Asked {
    method: Method,
    path: String,
    query_length: usize,
    host: Option<&'static str>,
    version: Version,
    scheme: Scheme,
    headers: HeaderMap,
    framing: Framing,
    capacity: Capacity,
    client: ClientAddress,
    /// Whether the listener's `clients` apply.
    listener_clients: bool,
    server_name: Option<&'static str>,
    redirect: Option<u16>,
}

/// `METHOD host/path`, from a page of `https://app.example`, over plain HTTP/1.1.
fn ask(request: &'static str) -> Asked {
    let (method, target) = request.split_once(' ').unwrap();
    let (host, path) = target.find(['/', '*']).map_or((target, ""), |at| target.split_at(at));
    Asked {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        path: path.to_owned(),
        query_length: 0,
        host: Some(host).filter(|host| !host.is_empty()),
        version: Version::HTTP_11,
        scheme: Scheme::Http,
        headers: HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://app.example"))]),
        framing: Framing::Clear,
        capacity: Capacity::Available,
        client: ClientAddress::Accepted,
        listener_clients: false,
        server_name: None,
        redirect: None,
    }
}

impl Asked {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// A client with this address, on a listener with `clients`.
    fn from(mut self, address: &str) -> Self {
        self.client = ClientAddress::Known(address.parse().unwrap());
        self.listener_clients = true;
        self
    }

    /// With `Content-Length`.
    fn body(self, length: &str) -> Self {
        self.header("content-length", length)
    }

    /// `OPTIONS` as a browser asks for this method.
    fn preflight(self, method: &str) -> Self {
        self.header("access-control-request-method", method)
    }
}

struct Gateway {
    snapshot: Snapshot,
    /// For `shop.example` and `*.cover.example`.
    certificate: Certificate,
}

impl Gateway {
    fn new() -> Self {
        let snapshot = load(CONFIG, CompileEnv::NONE).snapshot.expect("a valid configuration");
        let names = ["shop.example", "*.cover.example"].map(String::from);
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let (chain, key) = (cert.pem(), signing_key.serialize_pem());
        let pem = |text| Pem { path: "test.pem", text };
        let certificate = Certificate::parse(pem(chain.as_bytes()), pem(key.as_bytes()), 1_800_000_000).unwrap();
        Gateway { snapshot, certificate }
    }

    fn decide(&self, asked: &Asked) -> Verdict<'_> {
        let clients = self.snapshot.listeners()[0].clients.as_ref().filter(|_| asked.listener_clients);
        let server_name = asked.server_name.map(|name| ServerName { name, certificate: &self.certificate });
        self.snapshot.decide(&Request {
            method: &asked.method,
            path: asked.path.as_bytes(),
            target_length: asked.path.len() + asked.query_length,
            version: asked.version,
            own_origin: OwnOrigin::of(asked.scheme, asked.host.unwrap_or_default()),
            authority: asked.host,
            headers: &asked.headers,
            framing: asked.framing,
            connection: ConnectionFacts {
                server_name,
                redirect: asked.redirect,
                capacity: asked.capacity,
                clients,
                client: asked.client,
            },
        })
    }

    /// The decision as text: action, route, and `readable` if the page may read the response.
    fn says(&self, asked: &Asked) -> String {
        let verdict = self.decide(asked);
        let action = match verdict.action {
            Action::Forward(_) => "forward".to_owned(),
            Action::AnswerPreflight(status) => format!("preflight {}", status.as_u16()),
            Action::AnswerOptions(allow) => format!("options {}", allow.to_str().unwrap()),
            Action::RedirectToHttps(port) => format!("redirect {port}"),
            Action::Answer(answer) => format!("answer {}", answer.status.as_u16()),
            Action::Refuse(refusal) => format!("{} {}", refusal.status().as_u16(), refusal.code()),
        };
        match verdict.action {
            Action::Refuse(refusal) => {
                assert_eq!(verdict.outcome.code(), refusal.code());
                assert_eq!(refusal.explanation().matches('\n').count(), 1, "one line");
            }
            _ => assert!(verdict.outcome.reason().is_some(), "{:?}", verdict.outcome),
        }
        let route = verdict.route.map_or("no route", |found| &found.route.name);
        let mut headers = HeaderMap::new();
        verdict.edits.apply(&mut headers);
        let readable = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map_or("unreadable", |_| "readable");
        format!("{action} | {route} | {readable}")
    }
}

fn check(rows: impl IntoIterator<Item = (&'static str, Asked, &'static str)>) {
    let gateway = Gateway::new();
    let wrong: String = rows
        .into_iter()
        .map(|(name, asked, expected)| (name, gateway.says(&asked), expected))
        .filter(|(_, decision, expected)| decision != expected)
        .map(|(name, decision, expected)| format!("{name}\n  expected {expected}\n  got      {decision}\n"))
        .collect();
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn limits_are_the_largest_accepted_values() {
    let long = |asked: Asked, length: usize| asked.with(|asked| asked.query_length = length - asked.path.len());
    // `origin` and its value have 25 bytes.
    let bytes = |length: usize| ask("GET shop.example/items/1").header("x-a", &"a".repeat(length - 25 - "x-a".len()));
    let fields = |count| (1..count).fold(ask("GET shop.example/items/1"), |asked, _| asked.header("x-a", "1"));
    let framing = |framing| ask("GET shop.example/items/1").with(|asked| asked.framing = framing);
    let capacity = |capacity| ask("GET shop.example/items/1").with(|asked| asked.capacity = capacity);
    check([
        ("a target at the limit", long(ask("GET shop.example/items/1"), 1024), "forward | shop/items | readable"),
        ("a longer target", long(ask("GET shop.example/items/1"), 1025), "414 uri_too_long | shop/items | readable"),
        ("a target beyond the parser", framing(Framing::TargetTooLong), "414 uri_too_long | shop/items | readable"),
        ("a header at the limit", bytes(2048), "forward | shop/items | readable"),
        ("a larger header", bytes(2049), "431 headers_too_large | shop/items | readable"),
        ("as many fields as allowed", fields(8), "forward | shop/items | readable"),
        ("a field more", fields(9), "431 headers_too_large | shop/items | readable"),
        ("fields beyond the parser", framing(Framing::TooManyFields), "431 headers_too_large | shop/items | readable"),
        ("a body at the limit", ask("POST shop.example/items/1").body("1024"), "forward | shop/items | readable"),
        ("a longer body", ask("POST shop.example/items/1").body("1025"), "413 body_too_large | shop/items | readable"),
        ("too many connections", capacity(Capacity::ConnectionLimit), "503 connection_limit | shop/items | readable"),
        (
            "too many connections of a client",
            capacity(Capacity::ClientLimit),
            "429 client_connection_limit | shop/items | readable",
        ),
        // A request over a limit is refused for that reason, whether it has a route or not.
        (
            "over a limit, unknown path",
            long(ask("GET other.example/y"), 1025),
            "414 uri_too_long | no route | unreadable",
        ),
        ("over a limit, unknown host", long(ask("GET none.example/y"), 1025), "414 uri_too_long | no route | readable"),
        (
            "over a limit, no method",
            long(ask("PUT shop.example/items/1"), 1025),
            "414 uri_too_long | no route | readable",
        ),
        (
            "a preflight over a limit",
            long(ask("OPTIONS shop.example/items/1").preflight("GET"), 1025),
            "414 uri_too_long | shop/items | readable",
        ),
    ]);
}

#[test]
fn bytes_that_servers_read_differently_are_refused_with_the_policy_of_the_host() {
    let framing = |request, framing| ask(request).with(|asked| asked.framing = framing);
    check([
        (
            "two lengths",
            framing("GET shop.example/items/1", Framing::Ambiguous),
            "400 ambiguous_length | no route | readable",
        ),
        (
            "two lengths, other host",
            framing("GET other.example/allowed", Framing::Ambiguous),
            "400 ambiguous_length | no route | unreadable",
        ),
        ("a space", framing("GET shop.example/items/1", Framing::RawTarget), "400 bad_target | no route | readable"),
        ("no path", ask("GET shop.example"), "400 bad_target | no route | readable"),
        ("an asterisk", ask("GET shop.example*"), "400 bad_target | no route | readable"),
        ("an asterisk of OPTIONS", ask("OPTIONS shop.example*"), "404 unknown_path | no route | readable"),
        ("more than an asterisk", ask("OPTIONS shop.example*/"), "400 bad_target | no route | readable"),
        ("dot segments", ask("GET shop.example/items/../admin"), "400 ambiguous_path | no route | readable"),
        ("dot segments, other host", ask("GET other.example/../allowed"), "400 ambiguous_path | no route | unreadable"),
        // The rewritten path decides too.
        ("a rewritten path", ask("GET shop.example/old/xa"), "forward | shop/old | readable"),
        (
            "dot segments of a rewritten path",
            ask("GET shop.example/old/x../a"),
            "400 ambiguous_path | shop/old | readable",
        ),
    ]);
}

#[test]
fn a_request_needs_one_valid_host() {
    let without = |version| ask("GET /items/1").with(|asked| asked.version = version);
    let names = |name, request| ask(request).with(|asked| asked.server_name = Some(name));
    check([
        ("HTTP/1.0 without a host", without(Version::HTTP_10), "404 unknown_host | no route | readable"),
        ("HTTP/0.9 without a host", without(Version::HTTP_09), "404 unknown_host | no route | readable"),
        ("HTTP/1.1 without a host", without(Version::HTTP_11), "400 bad_host | no route | readable"),
        ("HTTP/2 without a host", without(Version::HTTP_2), "400 bad_host | no route | readable"),
        (
            "HTTP/1.0 with a wrong host",
            ask("GET a_b@c/items/1").with(|asked| asked.version = Version::HTTP_10),
            "400 bad_host | no route | readable",
        ),
        ("an unknown host", ask("GET none.example/items/1"), "404 unknown_host | no route | readable"),
        ("an unknown path", ask("GET shop.example/none"), "404 unknown_path | no route | readable"),
        ("an unknown path, other host", ask("GET other.example/none"), "404 unknown_path | no route | unreadable"),
        (
            "the server name itself",
            names("shop.example", "GET shop.example/items/1"),
            "forward | shop/items | readable",
        ),
        (
            "a name of the certificate",
            names("a.cover.example", "GET shop.example/items/1"),
            "forward | shop/items | readable",
        ),
        (
            "the server name, not in the certificate",
            names("other.example", "GET other.example/allowed"),
            "forward | other/allowed | readable",
        ),
        ("another host", names("shop.example", "GET other.example/allowed"), "421 misdirected | no route | unreadable"),
    ]);
}

#[test]
fn a_method_without_a_route_gets_405_with_the_policy_of_all_routes_of_the_path() {
    check([
        ("a policy of its own", ask("PUT shop.example/items/1"), "405 no_route_for_method | no route | readable"),
        ("no policy at all", ask("POST shop.example/raw"), "405 no_route_for_method | no route | unreadable"),
        // Routes with different policies: the host's policy applies.
        ("two policies", ask("POST split.example/x"), "405 no_route_for_method | no route | unreadable"),
        (
            "OPTIONS without Origin",
            ask("OPTIONS split.example/x").preflight("GET").with(|asked| drop(asked.headers.remove(ORIGIN))),
            "405 no_route_for_method | no route | unreadable",
        ),
        (
            "a preflight for it",
            ask("OPTIONS shop.example/items/1").preflight("PUT"),
            "405 no_route_for_method | no route | readable",
        ),
    ]);
}

#[test]
fn denied_clients_are_refused_and_their_preflights_are_answered() {
    check([
        ("an accepted client", ask("GET shop.example/items/1").from("192.0.2.7"), "forward | shop/items | readable"),
        (
            "a denied client of the listener",
            ask("GET shop.example/items/1").from("198.51.100.1"),
            "403 client_denied | shop/items | readable",
        ),
        (
            "a denied client of the route",
            ask("GET shop.example/admin/a").from("192.0.2.7"),
            "403 client_denied | shop/admin | readable",
        ),
        (
            "an accepted client of the route",
            ask("GET shop.example/admin/a").from("10.0.0.1"),
            "forward | shop/admin | readable",
        ),
        (
            "a denied client, no CORS",
            ask("GET shop.example/raw").from("198.51.100.1"),
            "403 client_denied | shop/raw | unreadable",
        ),
        (
            "the preflight of a denied client",
            ask("OPTIONS shop.example/admin/a").preflight("GET").from("198.51.100.1"),
            "preflight 200 | shop/admin | readable",
        ),
        // A denied client does not learn which hosts, paths and methods exist.
        ("unknown path", ask("GET shop.example/none").from("198.51.100.1"), "403 client_denied | no route | readable"),
        ("unknown host", ask("GET none.example/").from("198.51.100.1"), "403 client_denied | no route | readable"),
        ("no method", ask("PUT shop.example/items/1").from("198.51.100.1"), "403 client_denied | no route | readable"),
        (
            "a limit comes first",
            ask("POST shop.example/none").from("198.51.100.1").body("1025"),
            "413 body_too_large | no route | readable",
        ),
    ]);
}

#[test]
fn no_other_spelling_of_a_path_leads_around_a_guard() {
    check([
        ("slashes", ask("GET shop.example/open//admin/a"), "forward | shop/open | readable"),
        ("letters", ask("GET shop.example/open/%61"), "forward | shop/open | readable"),
        ("letters of the guarded path", ask("GET shop.example/%61dmin/a"), "404 unknown_path | no route | readable"),
        ("letters after it", ask("GET shop.example/admin/%61").from("10.0.0.1"), "forward | shop/admin | readable"),
    ]);
    // With a route for everything else, these requests have a route, which has no guard.
    let text =
        CONFIG.replace("      - { name: files,", "      - { name: rest, paths: [\"/*\"] }\n      - { name: files,");
    let snapshot = load(&text, CompileEnv::NONE).snapshot.unwrap();
    let gateway = Gateway { snapshot, ..Gateway::new() };
    for (request, expected) in [
        ("GET shop.example/%61dmin/a", "400 ambiguous_path | shop/rest | readable"),
        ("GET shop.example//admin/a", "400 ambiguous_path | shop/rest | readable"),
        ("GET shop.example/%6fther", "forward | shop/rest | readable"),
        ("GET shop.example/%6fpen/a", "forward | shop/rest | readable"),
        ("GET shop.example//other", "forward | shop/rest | readable"),
    ] {
        assert_eq!(gateway.says(&ask(request)), expected, "{request}");
    }
    // Without a guard, no spelling is refused.
    let open = text.replace(", clients: { allow: [10.0.0.0/8] } }\n      - { name: open", " }\n      - { name: open");
    let gateway = Gateway { snapshot: load(&open, CompileEnv::NONE).snapshot.unwrap(), ..gateway };
    assert_eq!(gateway.says(&ask("GET shop.example/%61dmin/a")), "forward | shop/rest | readable");
}

#[test]
fn plain_http_is_redirected_but_for_preflights_and_certificate_authorities() {
    let http = |request| ask(request).with(|asked| asked.redirect = Some(8443));
    let challenge = "GET shop.example/.well-known/acme-challenge/x";
    check([
        ("a request", http("GET shop.example/items/1"), "redirect 8443 | shop/items | readable"),
        ("no redirect", ask("GET shop.example/items/1"), "forward | shop/items | readable"),
        (
            "https at a trusted proxy",
            http("GET shop.example/items/1").with(|asked| asked.scheme = Scheme::Https),
            "forward | shop/items | readable",
        ),
        ("a challenge", http(challenge), "forward | shop/files | readable"),
        ("another file", http("GET shop.example/.well-known/acme"), "redirect 8443 | shop/files | readable"),
        ("a preflight", http("OPTIONS shop.example/items/1").preflight("GET"), "preflight 200 | shop/items | readable"),
        (
            "a preflight, no CORS",
            http("OPTIONS shop.example/only").preflight("GET"),
            "forward | shop/only | unreadable",
        ),
        ("OPTIONS, no CORS", http("OPTIONS shop.example/only"), "redirect 8443 | shop/only | unreadable"),
        ("an answer of a route", http("GET shop.example/answer"), "redirect 8443 | shop/answer | readable"),
    ]);
}

/// Some clients send the fields of a preflight without a value.
#[test]
fn empty_fields_do_not_select_the_route_of_a_preflight() {
    let without_origin = |request| ask(request).with(|asked| asked.headers.clear()).header("origin", "");
    check([
        ("a preflight", ask("OPTIONS shop.example/items/1").preflight("GET"), "preflight 200 | shop/items | readable"),
        (
            "an empty origin",
            without_origin("OPTIONS shop.example/items/1").preflight("GET"),
            "405 no_route_for_method | no route | unreadable",
        ),
        (
            "an empty origin, and a route for OPTIONS",
            without_origin("OPTIONS shop.example/listed").preflight("GET"),
            "forward | shop/listed | unreadable",
        ),
        (
            "an empty method, which the policy answers as any OPTIONS with an origin",
            ask("OPTIONS shop.example/items/1").preflight(""),
            "preflight 200 | shop/items | readable",
        ),
        (
            "an empty method, and a route for OPTIONS",
            ask("OPTIONS shop.example/listed").preflight(""),
            "preflight 200 | shop/listed | readable",
        ),
        (
            "an empty origin over http",
            without_origin("OPTIONS shop.example/listed").preflight("GET").with(|asked| asked.redirect = Some(8443)),
            "redirect 8443 | shop/listed | unreadable",
        ),
    ]);
}

#[test]
fn the_last_recipient_of_trace_and_options_is_the_gateway() {
    let last = |request| ask(request).header("max-forwards", "0");
    check([
        ("TRACE", ask("TRACE shop.example/items/1"), "forward | shop/items | readable"),
        ("the last TRACE", last("TRACE shop.example/items/1"), "405 no_route_for_method | shop/items | readable"),
        (
            "TRACE with one more",
            ask("TRACE shop.example/items/1").header("max-forwards", "1"),
            "forward | shop/items | readable",
        ),
        (
            "TRACE that no route lists",
            ask("TRACE shop.example/open/a"),
            "405 no_route_for_method | no route | readable",
        ),
        (
            "the last OPTIONS",
            last("OPTIONS shop.example/only"),
            "options GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS | shop/only | unreadable",
        ),
        ("the last preflight", last("OPTIONS shop.example/open/a"), "preflight 200 | shop/open | readable"),
        ("the last GET", last("GET shop.example/open/a"), "forward | shop/open | readable"),
        ("an answer", ask("GET shop.example/answer"), "answer 200 | shop/answer | readable"),
    ]);
}

#[test]
fn a_verdict_says_what_the_log_and_the_running_gateway_need() {
    let gateway = Gateway::new();
    let disallowed =
        |asked: Asked| asked.with(|asked| drop(asked.headers.insert(ORIGIN, HeaderValue::from_static("null"))));
    #[rustfmt::skip]
    let rows = [
        // name, request, kind, is refused, asks the service of forward_auth
        ("an allowed origin", ask("GET shop.example/items/1"), "actual", false, false),
        ("a disallowed origin", disallowed(ask("GET shop.example/items/1")), "actual", true, false),
        ("no policy", ask("GET shop.example/raw"), "actual", false, false),
        ("no route", ask("GET shop.example/none"), "actual", true, false),
        ("a preflight", ask("OPTIONS shop.example/items/1").preflight("GET"), "preflight", false, false),
        ("a refused preflight", disallowed(ask("OPTIONS shop.example/items/1").preflight("GET")), "preflight", true, false),
        ("a guarded route", ask("GET shop.example/me/1"), "actual", false, true),
        ("a guarded answer", ask("GET shop.example/me"), "actual", false, true),
        ("a preflight of a guarded route", ask("OPTIONS shop.example/me/1").preflight("GET"), "preflight", false, false),
        ("a refused request of a guarded route", ask("POST shop.example/me/1").body("1025"), "actual", true, false),
    ];
    for (name, asked, kind, is_refused, asks) in rows {
        let verdict = gateway.decide(&asked);
        assert_eq!(
            (verdict.kind().code(), verdict.is_refused(), verdict.asks_a_service()),
            (kind, is_refused, asks),
            "{name}"
        );
    }
}

#[test]
fn a_request_that_is_refused_later_keeps_its_cors_fields() {
    let text = format!("debug_header: true\n{CONFIG}").replace(
        "      - { name: open, paths: [\"/open/*\"] }",
        "      - { name: open, paths: [\"/open/*\"], cors: { allow_origins: \"https://app.example\", report_only: { allow_origins: \"https://new.example\" } } }",
    );
    let gateway = Gateway { snapshot: load(&text, CompileEnv::NONE).snapshot.unwrap(), ..Gateway::new() };
    let mut verdict = gateway.decide(&ask("GET shop.example/open/a"));
    let fields = |verdict: &Verdict<'_>| {
        let mut headers = HeaderMap::new();
        verdict.edits.apply(&mut headers);
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        [ACCESS_CONTROL_ALLOW_ORIGIN.as_str(), "x-corsgate-reason"].map(text)
    };
    let page = Some("https://app.example".to_owned());
    assert_eq!(fields(&verdict), [page.clone(), Some("allowed_exact".into())]);
    assert!(verdict.report_only.is_some());
    verdict.refuse(Refusal::RateLimited);
    assert_eq!(fields(&verdict), [page, Some("rate_limited".into())]);
    assert_eq!((verdict.outcome.code(), verdict.report_only.is_some()), ("rate_limited", false));
    assert!(matches!(verdict.action, Action::Refuse(Refusal::RateLimited)));
}

#[test]
fn a_route_is_equal_to_itself_only() {
    let gateway = Gateway::new();
    let route = |request| gateway.decide(&ask(request)).route.unwrap();
    assert_eq!(route("GET shop.example/items/1"), route("POST shop.example/items/2"));
    assert_ne!(route("GET shop.example/items/1"), route("GET shop.example/open/1"));
}

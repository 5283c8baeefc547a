//! Routing, CORS, the choice of a node and the access log do not allocate per request.
//!
//! This is a separate test binary, because counting allocations replaces the global allocator. Counts are per thread,
//! so the tests can run in parallel.
//!
//! Requests are built as in Pingora: every header value is a slice of one buffer, so that a clone only counts a
//! reference. Each measurement follows an identical run that is not counted, because the first request of a process
//! initialises lazy values (`Vary`, the scratch space of the regex engine, the reference counts of a policy's finished
//! values). A measurement covers the decision and its edits; the map of the response has free capacity.

use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use corsgate::cors::{Edits, Reason, ReportOnly};
use corsgate::decide::{self, Action, ConnectionFacts, Framing, Refusal, RefusalCode, Request, RequestKind};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::live::Live;
use corsgate::record::request_id::RequestIds;
use corsgate::record::{self, AccessLogger, MethodClass, Recorder, RequestRecord, UpstreamAttempt};
use corsgate::snapshot::{Address, CompileEnv, Loaded, Snapshot, load};
use corsgate::source::ConfigSource;
use corsgate::upstream::{RunningUpstream, key};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

#[test]
fn a_forwarded_request_allocates_nothing() {
    for (path, origin, allowed) in [
        ("/listed", Some("https://app.example"), true),
        ("/listed", Some("https://n99999.example"), true),
        ("/listed", Some("https://deep.a.b.c.partner.example:8443"), true),
        ("/listed", Some("https://evilpartner.example"), false),
        ("/listed", Some("null"), false),
        ("/listed", Some("http://api.example"), false),
        ("/listed", Some("https://app.example, https://app.example"), false),
        ("/listed", None, false),
        ("/listed/users/7/mail", Some("https://app.example"), true),
        ("/any", Some("https://whoever.example"), true),
        ("/any", None, true),
        ("/by-name", Some("https://whoever.example"), true),
        ("/regex", Some("https://pr-17.preview.example"), true),
        ("/regex", Some("https://pr-x.preview.example"), false),
        ("/placeholder", Some("https://pr-17.preview.example"), true),
        ("/placeholder", Some("https://a.b.feature-7--team.preview.example:8443"), true),
        ("/placeholder", Some("https://pr-x.preview.example"), false),
        ("/none", Some("https://app.example"), false),
    ] {
        let fields: Vec<(&str, &str)> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        nothing_allocated(&SNAPSHOT, &Asked::new(Method::GET, "api.example", path, &fields), |outcome| {
            assert!(matches!(outcome.action, Action::Forward(_)), "{path} {origin:?}: {:?}", outcome.action);
            assert_eq!(outcome.response.contains_key("access-control-allow-origin"), allowed, "{path} {origin:?}");
        });
    }
}

#[test]
fn a_preflight_allocates_nothing() {
    let long = vec!["x-one"; 129].join(",");
    for (path, origin, method, names, allowed) in [
        ("/listed", "https://app.example", "PUT", "content-type,x-one", true),
        ("/listed", "https://app.example", "PATCH", "content-type", false),
        ("/listed", "https://app.example", "PUT", "content-type,x-evil", false),
        ("/listed", "https://app.example", "PUT", &long, false),
        ("/listed", "https://evil.test", "PUT", "content-type", false),
        ("/any", "https://app.example", "DELETE", "x-anything", true),
        ("/by-name", "https://app.example", "DELETE", "x-anything,authorization", true),
        ("/by-name", "https://app.example", "DEL ETE", "x anything", false),
        ("/regex", "https://pr-17.preview.example", "GET", "", true),
        ("/placeholder", "https://pr-17.preview.example", "GET", "", true),
    ] {
        let fields =
            [("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", names)];
        nothing_allocated(&SNAPSHOT, &Asked::new(Method::OPTIONS, "api.example", path, &fields), |outcome| {
            let expected = if allowed { 200 } else { 403 };
            assert!(
                matches!(outcome.action, Action::AnswerPreflight(status) if status == expected),
                "{path} {method} {names}"
            );
        });
    }
}

#[test]
fn routing_allocates_nothing() {
    let deep = format!("{}api.example", "a.".repeat(100));
    for (host, path, refused) in [
        ("API.example:8080", "/listed", None),
        ("v2.api.example.", "/anywhere/at/all", None),
        (&deep, "/", None),
        ("api.example", "/listed/users/7/mail", None),
        ("api.example", "/unknown", Some(404)),
        ("unknown.example", "/listed", Some(404)),
        ("api.example", "/a/%2e%2e/b", Some(400)),
        ("api.example", "/reads", Some(405)),
        ("", "/listed", Some(400)),
    ] {
        let method = if path == "/reads" { Method::DELETE } else { Method::GET };
        let asked = Asked::new(method, host, path, &[("origin", "https://app.example")]);
        nothing_allocated(&SNAPSHOT, &asked, |outcome| match (outcome.action, refused) {
            (Action::Forward(_), None) => {}
            (Action::Refuse(refusal), Some(status)) => assert_eq!(refusal.status(), status),
            (action, _) => panic!("{host}{path}: {action:?}"),
        });
    }
    let asked = Asked::new(Method::GET, "api.example", "/reject", &[("origin", "https://evil.test")]);
    nothing_allocated(&SNAPSHOT, &asked, |outcome| {
        assert!(matches!(outcome.action, Action::Refuse(Refusal::OriginRejected(_))));
    });
    let fields = [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")];
    let asked = Asked::new(Method::POST, "api.example", "/reject", &fields[1..]);
    nothing_allocated(&SNAPSHOT, &asked, |outcome| {
        assert!(matches!(outcome.action, Action::Refuse(Refusal::OriginRejected(Reason::CrossSite))));
    });
    for (method, path) in [(Method::GET, "/reported"), (Method::OPTIONS, "/reported")] {
        nothing_allocated(&SNAPSHOT, &Asked::new(method, "api.example", path, &fields), |outcome| {
            assert_eq!(outcome.report_only.map(|report| report.reason), Some(Reason::AllowedAny));
        });
    }
}

#[test]
fn usual_upstream_headers_allocate_nothing() {
    let asked = Asked::new(Method::GET, "api.example", "/listed", &[("origin", "https://app.example")]);
    let refused = Asked::new(Method::GET, "api.example", "/listed", &[("origin", "https://evil.test")]);
    for (upstream, vary) in [
        (&[][..], "Origin"),
        (&[("vary", "Accept-Encoding")][..], "Accept-Encoding, Origin"),
        (&[("vary", "accept-encoding"), ("access-control-allow-origin", "*")][..], "Accept-Encoding, Origin"),
    ] {
        for asked in [&asked, &refused] {
            let outcome = outcome_of(&SNAPSHOT, asked, upstream);
            assert_eq!(outcome.allocated.count_total, 0, "{upstream:?}");
            assert_eq!(outcome.response["vary"], vary);
        }
    }
}

#[test]
fn timing_and_private_network_edits_allocate_nothing() {
    let get = Asked::new(Method::GET, "api.example", "/timing", &[("origin", "https://app.example")]);
    let preflight = Asked::new(
        Method::OPTIONS,
        "api.example",
        "/timing",
        &[("origin", "https://app.example"), ("access-control-request-private-network", "true")],
    );
    for (asked, name) in [(get, "timing-allow-origin"), (preflight, "access-control-allow-private-network")] {
        let outcome = outcome_of(&SNAPSHOT, &asked, &[]);
        assert!(outcome.response.contains_key(name));
        assert_eq!(outcome.allocated.count_total, 0, "{name}");
    }
}

#[test]
fn a_hostile_preflight_allocates_a_bounded_amount() {
    // The echo of several fields is the only value that is built from a request.
    let names = vec!["x".repeat(60); 60].join(",");
    let short = vec!["x-one"; 60].join(",");
    for fields in
        [&[&*names, &*short][..], &[&*short, &*short], &[",,,,,"; 90], &["x-one"; 200], &[&"x".repeat(60_000)]]
    {
        let mut all = vec![("origin", "https://app.example"), ("access-control-request-method", "PUT")];
        all.extend(fields.iter().map(|names| ("access-control-request-headers", *names)));
        let asked = Asked::new(Method::OPTIONS, "api.example", "/by-name", &all);
        outcome_of(&SNAPSHOT, &asked, &[]);
        let allocated = outcome_of(&SNAPSHOT, &asked, &[]).allocated;
        assert!(allocated.bytes_max <= 32 * 1024, "{} fields: {allocated:?}", fields.len());
    }
}

#[test]
fn choosing_a_node_allocates_nothing() {
    for balance in
        ["round_robin", "random", "least_connections", "hash, hash_on: path", "hash, hash_on: 'header:X-Tenant'"]
    {
        let nodes: String = (1..=9).map(|i| format!("{{ address: '10.0.0.{i}:80', weight: {i} }},")).collect();
        let text = format!(
            "
listeners: [{{ address: '127.0.0.1:9080' }}]
services: [{{ name: api, upstream: {{ nodes: [{nodes}], balance: {balance} }} }}]
"
        );
        let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
        let snapshot = snapshot.unwrap_or_else(|| panic!("{problems}"));
        let upstream = RunningUpstream::new(snapshot.upstreams()[0].clone());
        let request = || {
            let picked = upstream.pick(Some(key(b"/a/path")), &[]).expect("there are nodes");
            upstream.succeeded(&picked);
        };
        // The first load of a published value initialises the thread.
        request();
        assert_eq!(measure(request).count_total, 0, "{balance}");
    }
}

/// Every request is recorded at its end. The first request of a route creates its counters.
#[test]
fn counting_a_request_allocates_nothing() {
    let text = "
listeners: [{ address: '127.0.0.1:9080' }]
services:
  - name: api
    upstream: { nodes: [{ address: '127.0.0.1:8000' }] }
    routes: [{ name: all, paths: [/*] }]
";
    let (live, _) = Live::start(ConfigSource::BuiltIn(text.to_owned())).expect("a configuration");
    let (recorder, generation) = (Recorder::new(true, Arc::<AccessLogger>::default()), live.current());
    let id = RequestIds::new().of(&HeaderMap::new());
    let record = RequestRecord {
        generation: generation.number,
        route: Some("api/all"),
        kind: RequestKind::Actual,
        outcome: decide::RequestOutcome::Cors(Reason::NoPolicy),
        refused: false,
        report_only: None,
        client: IpAddr::from([127, 0, 0, 1]),
        scheme: Scheme::Http,
        method: MethodClass::Get,
        request: None,
        status: Some(StatusCode::OK),
        body_bytes: 100,
        duration: Duration::from_millis(20),
        upstream: Some(UpstreamAttempt {
            name: "api",
            address: None,
            duration: Some(Duration::from_millis(19)),
            attempts: 1,
        }),
        failure: None,
        failure_detail: None,
        id: &id,
    };
    let without_route = RequestRecord {
        route: None,
        outcome: decide::RequestOutcome::Refused(RefusalCode::UnknownHost),
        upstream: None,
        ..record
    };
    for (record, route) in [(record, Some(0)), (without_route, None)] {
        let slot = generation.route_metrics().slot(route);
        recorder.record(slot, &record);
        let allocated = measure(|| (0..100).for_each(|_| recorder.record(slot, &record)));
        assert_eq!(allocated.count_total, 0, "{}", record.outcome.code());
    }
    let route_metrics = generation.route_metrics().all();
    let counted: Vec<u64> = route_metrics.iter().map(|(_, _, tally)| tally.duration().count).collect();
    assert_eq!(counted, [101, 101]);
}

/// Buffers are reused. A request allocates a new one only if more lines than ever before wait to be written.
#[test]
fn an_access_log_line_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (format, refused) in [("json", false), ("json", true), ("text", false), ("text", true)] {
        let path = folder.path().join(format!("{format}-{refused}.log"));
        let text = format!(
            "
listeners: [{{ address: '127.0.0.1:9080' }}]
access_log: {{ to: '{}', format: {format} }}
services: [{{ name: api, upstream: {{ nodes: [{{ address: '127.0.0.1:8000' }}] }} }}]
",
            path.display()
        );
        let (live, _) = Live::start(ConfigSource::BuiltIn(text)).unwrap();
        let generation = live.current();
        let asked = Asked::new(
            Method::GET,
            "api.example",
            "/a/\"path\"\u{1b}\u{e9}",
            &[("origin", "https://app.example"), ("user-agent", "Mozilla/5.0 \"\u{e9}\"")],
        );
        let id = RequestIds::new().of(&asked.headers);
        let node = Address::Ip(([127, 0, 0, 1], 8000).into());
        let record = RequestRecord {
            generation: generation.number,
            route: Some("api/all"),
            kind: RequestKind::Actual,
            outcome: decide::RequestOutcome::Cors(Reason::OriginNotAllowed),
            refused,
            report_only: None,
            client: [203, 0, 113, 7].into(),
            scheme: Scheme::Http,
            method: MethodClass::Get,
            request: Some(record::RequestLine {
                method: &asked.method,
                authority: asked.authority.as_bytes(),
                forwarded: Some(OwnOrigin::of(Scheme::Http, "app.example:8080")),
                path: asked.path.as_bytes(),
                version: Version::HTTP_11,
                headers: &asked.headers,
            }),
            status: Some(StatusCode::OK),
            body_bytes: 1234,
            duration: Duration::from_micros(12_034),
            upstream: Some(UpstreamAttempt {
                name: "api",
                address: Some(&node),
                duration: Some(Duration::from_micros(999)),
                attempts: 1,
            }),
            failure: Some("ConnectionClosed"),
            failure_detail: Some("ConnectionClosed: the node closed the connection before its response; see its log"),
            id: &id,
        };
        let write = || live.access_log().write(&record);
        let written = |lines: usize| {
            let end = Instant::now() + Duration::from_secs(10);
            while fs::read_to_string(&path).unwrap().lines().count() < lines {
                assert!(Instant::now() < end, "{lines} lines are not written");
                thread::sleep(Duration::from_millis(1));
            }
        };
        write();
        written(1);
        for lines in 2..20 {
            assert_eq!(measure(write).count_total, 0, "{format}");
            written(lines);
        }
    }
}

/// Shared by all tests, because reading 100,000 origins is slow without optimisation.
static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let many: String = (0..100_000).map(|i| format!("https://n{i}.example,")).collect();
    let text = format!(
        r#"
listeners: [{{ address: "127.0.0.1:9080" }}]
upstreams: {{ api: {{ nodes: [{{ address: "127.0.0.1:8000" }}] }} }}
cors_policies:
  listed:
    allow_origins: "{many} https://app.example, https://*.partner.example:8443, http://localhost:*"
    allow_methods: [GET, PUT, DELETE]
    allow_headers: [Content-Type, X-One]
    expose_headers: X-Total
    max_age: 600
    allow_credentials: true
    dangerously_allow: [insecure_origins]
    preflight: {{ refused_status: 403 }}
services:
  - name: api
    hosts: api.example
    upstream: api
    cors: listed
    routes:
      - paths: [/listed, "/listed/users/{{id}}/mail"]
      - {{ paths: [/reads], methods: [GET] }}
      - {{ paths: [/any], cors: {{ allow_origins: "*" }} }}
      - paths: [/by-name]
        cors:
          allow_origins: "*"
          allow_credentials: true
          dangerously_allow: [any_origin_with_credentials]
          preflight: {{ refused_status: 403 }}
      - {{ paths: [/regex], cors: {{ allow_origins_by_regex: 'https://pr-[0-9]+\.preview\.example' }} }}
      - paths: [/placeholder]
        cors:
          allow_origins: ["https://pr-{{digits}}.preview.example", "https://*.{{label}}--team.preview.example:*"]
      - {{ paths: [/reject], cors: {{ allow_origins: https://app.example, disallowed_origins: reject, cross_site: reject }} }}
      - {{ paths: [/reported], cors: {{ allow_origins: https://app.example, report_only: {{ allow_origins: "*" }} }} }}
      - paths: [/timing]
        cors:
          allow_origins: https://app.example
          timing_allow_origins: https://app.example
          allow_private_network: true
      - {{ paths: [/none], cors: false }}
  - {{ name: others, hosts: "*.api.example", upstream: api, cors: listed }}
"#
    );
    let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
    snapshot.unwrap_or_else(|| panic!("{problems}"))
});

/// A request whose fields are slices of one buffer.
struct Asked {
    method: Method,
    path: String,
    authority: String,
    headers: HeaderMap,
}

impl Asked {
    fn new(method: Method, authority: &str, path: &str, fields: &[(&'static str, &str)]) -> Self {
        let buffer = Bytes::from(fields.iter().map(|(_, value)| *value).collect::<String>() + "\r\n");
        let (mut headers, mut at) = (HeaderMap::new(), 0);
        for (name, value) in fields {
            let slice = buffer.slice(at..at + value.len());
            headers.append(*name, HeaderValue::from_maybe_shared(slice).unwrap());
            at += value.len();
        }
        Asked { method, path: path.to_owned(), authority: authority.to_owned(), headers }
    }
}

struct Decided<'s> {
    action: Action<'s>,
    report_only: Option<ReportOnly>,
    allocated: AllocationInfo,
}

struct RequestOutcome<'s> {
    action: Action<'s>,
    report_only: Option<ReportOnly>,
    allocated: AllocationInfo,
    response: HeaderMap,
}

/// Decides a request and applies its edits, counting allocations.
fn judged<'s>(snapshot: &'s Snapshot, asked: &Asked, apply: impl FnOnce(&Edits)) -> Decided<'s> {
    let request = Request {
        method: &asked.method,
        path: asked.path.as_bytes(),
        target_length: asked.path.len(),
        version: Version::HTTP_11,
        own_origin: OwnOrigin::of(Scheme::Http, &asked.authority),
        authority: Some(&asked.authority),
        headers: &asked.headers,
        framing: Framing::Clear,
        connection: ConnectionFacts::default(),
    };
    let mut verdict = None;
    let allocated = measure(|| {
        let judged = snapshot.decide(&request);
        apply(&judged.edits);
        verdict = Some(judged);
    });
    let verdict = verdict.expect("it was judged");
    Decided { action: verdict.action, report_only: verdict.report_only, allocated }
}

fn outcome_of<'s>(
    snapshot: &'s Snapshot,
    asked: &Asked,
    upstream: &[(&'static str, &'static str)],
) -> RequestOutcome<'s> {
    let once = || {
        let mut response = room();
        for (name, value) in upstream {
            response.append(*name, HeaderValue::from_static(value));
        }
        let judged = judged(snapshot, asked, |edits| edits.apply(&mut response));
        let Decided { action, report_only, allocated } = judged;
        RequestOutcome { action, report_only, allocated, response }
    };
    once();
    once()
}

fn nothing_allocated(snapshot: &Snapshot, asked: &Asked, expect: impl Fn(&RequestOutcome<'_>)) {
    let outcome = outcome_of(snapshot, asked, &[]);
    expect(&outcome);
    assert_eq!(outcome.allocated.count_total, 0, "{} {}: {:?}", asked.method, asked.path, asked.headers);
}

/// The capacity of a usual response.
fn room() -> HeaderMap {
    HeaderMap::with_capacity(24)
}

//! The cost of one request: the decision, and its edits of the upstream's response.
//!
//! Filters: `ordinary`, `preflight`, `hostile`, `many` (origins), `wildcard`, `placeholder`. `baseline` is the common part: a response
//! with three fields of an upstream. At the end the two ratios of the budget are printed; they are measured on the
//! policy alone.

mod budget;

use std::hint::black_box;

use bytes::Bytes;
use corsgate::cors::{CorsRequest, OriginSets, Policy, Reason, Settings};
use corsgate::decide::{ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::problem::{At, Problems};
use corsgate::snapshot::{CompileEnv, Loaded, Snapshot, load};
use criterion::Criterion;
use http::{HeaderMap, HeaderValue, Method, Version};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let snapshot = snapshot();
    let mut bench = |asked: &Asked| {
        let mut response = HeaderMap::with_capacity(24);
        criterion.bench_function(&format!("engine/{}", asked.name), |bencher| {
            bencher.iter(|| asked.judge(black_box(&snapshot), &mut response));
        });
    };
    all().iter().for_each(&mut bench);
    criterion.bench_function("engine/baseline", |bencher| {
        let mut response = HeaderMap::with_capacity(24);
        bencher.iter(|| from_upstream(black_box(&mut response)));
    });
    criterion.final_summary();
    if budget::is_asked_for() {
        budgets();
    }
}

const GET: Method = Method::GET;
const OPTIONS: Method = Method::OPTIONS;
const APP: &str = "https://app.example";

fn all() -> Vec<Asked> {
    let (under, over) = (hostile(128, 60), hostile(129, 60));
    let (listed, unlisted) =
        (vec!["x-request-source"; 128].join(","), format!("{}x-request-sourcf", "x-request-source,".repeat(127)));
    let commas = ",".repeat(127);
    let new = Asked::new;
    let ask =
        |names| [("origin", APP), ("access-control-request-method", "PUT"), ("access-control-request-headers", names)];
    vec![
        new("ordinary/no_cors", GET, "/none", &[("origin", APP)], Reason::NoPolicy),
        new("ordinary/no_origin", GET, "/listed", &[], Reason::NoOrigin),
        new("ordinary/any", GET, "/any", &[("origin", APP)], Reason::AllowedAny),
        new("ordinary/allowed", GET, "/listed", &[("origin", APP)], Reason::AllowedExact),
        new("ordinary/refused", GET, "/listed", &[("origin", "https://evil.test")], Reason::OriginNotAllowed),
        new("ordinary/near_miss", GET, "/listed", &[("origin", "https://app.examplf")], Reason::OriginNotAllowed),
        new("preflight/allowed", OPTIONS, "/listed", &ask("content-type,x-request-source"), Reason::AllowedExact),
        new("preflight/no_names", OPTIONS, "/listed", &ask(""), Reason::AllowedExact),
        new("preflight/header_refused", OPTIONS, "/listed", &ask("content-type,x-evil"), Reason::HeaderNotAllowed),
        new("preflight/any", OPTIONS, "/any", &ask("content-type,x-request-source"), Reason::AllowedAny),
        new(
            "preflight/origin_refused",
            OPTIONS,
            "/listed",
            &[("origin", "https://evil.test")],
            Reason::OriginNotAllowed,
        ),
        new("hostile/listed_128_times", OPTIONS, "/listed", &ask(&listed), Reason::AllowedExact),
        new("hostile/listed_last_misses", OPTIONS, "/listed", &ask(&unlisted), Reason::HeaderNotAllowed),
        new("hostile/listed_127_commas", OPTIONS, "/listed", &ask(&commas), Reason::AllowedExact),
        new("hostile/any_under_the_limits", OPTIONS, "/any", &ask(&under), Reason::AllowedAny),
        new("hostile/any_over_the_limits", OPTIONS, "/any", &ask(&over), Reason::HeaderListTooLong),
        new("hostile/any_60_kib", OPTIONS, "/any", &ask(&"x".repeat(60 << 10)), Reason::HeaderListTooLong),
        new("many/10_allowed", GET, "/ten", &[("origin", "https://n7.example")], Reason::AllowedExact),
        new("many/10_refused", GET, "/ten", &[("origin", "https://n7.examplf")], Reason::OriginNotAllowed),
        new("many/100000_allowed", GET, "/many", &[("origin", "https://n77777.example")], Reason::AllowedExact),
        new("many/100000_refused", GET, "/many", &[("origin", "https://n77777.examplf")], Reason::OriginNotAllowed),
        new("wildcard/allowed", GET, "/wild", &[("origin", "https://a.partner.example")], Reason::AllowedPattern),
        new("wildcard/near_miss", GET, "/wild", &[("origin", "https://evilpartner.example")], Reason::OriginNotAllowed),
        new("wildcard/deepest", GET, "/wild", &[("origin", &deepest("x.test"))], Reason::OriginNotAllowed),
        new(
            "placeholder/allowed",
            GET,
            "/placeholder",
            &[("origin", "https://pr-7.preview.example")],
            Reason::AllowedPattern,
        ),
        new(
            "placeholder/near_miss",
            GET,
            "/placeholder",
            &[("origin", "https://pr-x.preview.example")],
            Reason::OriginNotAllowed,
        ),
        new("placeholder/exact", GET, "/placeholder", &[("origin", APP)], Reason::AllowedExact),
        new(
            "hostile/placeholder_longest",
            GET,
            "/placeholder",
            &[("origin", &format!("https://{}{}.preview.example", "a.".repeat(80), "-".repeat(63)))],
            Reason::OriginNotAllowed,
        ),
        new("wildcard/regex", GET, "/regex", &[("origin", "https://pr-7.preview.example")], Reason::AllowedRegex),
    ]
}

/// This number of names of about this length. With the commas they stay below 8 KiB.
fn hostile(names: usize, length: usize) -> String {
    vec!["x".repeat(length); names].join(",")
}

/// The largest possible number of labels.
fn deepest(tail: &str) -> String {
    format!("https://{}{tail}", "a.".repeat(120))
}

fn snapshot() -> Snapshot {
    let origins = |count| (0..count).map(|i| format!("https://n{i}.example")).collect::<Vec<_>>().join(",");
    let (ten, many) = (origins(10), origins(100_000));
    let text = format!(
        r#"
listeners: [{{ address: "127.0.0.1:9080" }}]
upstreams: {{ api: {{ nodes: [{{ address: "127.0.0.1:8000" }}] }} }}
services:
  - name: api
    hosts: api.example
    upstream: api
    routes:
      - {{ paths: [/none] }}
      - {{ paths: [/any], cors: {{ allow_origins: "*" }} }}
      - {{ paths: [/listed], cors: {LISTED} }}
      - {{ paths: [/ten], cors: {{ allow_origins: "{ten}" }} }}
      - {{ paths: [/many], cors: {{ allow_origins: "{many}" }} }}
      - paths: [/wild]
        cors: {{ allow_origins: ["https://*.partner.example", "https://*.a.b.example:*", "http://localhost:*"] }}
      - paths: [/placeholder]
        cors: {{ allow_origins: [{APP}, "https://pr-{{digits}}.preview.example", "https://{{label}}-{{label}}-{{digits}}.preview.example"] }}
      - {{ paths: [/regex], cors: {{ allow_origins_by_regex: 'https://pr-[0-9]+\.preview\.example' }} }}
"#
    );
    let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
    snapshot.unwrap_or_else(|| panic!("{problems}"))
}

const LISTED: &str =
    "{ allow_origins: ['https://app.example', 'https://admin.example'], allow_methods: [GET, PUT, DELETE],
  allow_headers: [Authorization, Content-Type, If-Match, X-Request-Source, X-Trace], expose_headers: [ETag, X-Total],
  max_age: 600, allow_credentials: true }";

/// A request and the expected decision.
struct Asked {
    name: &'static str,
    method: Method,
    path: &'static str,
    headers: HeaderMap,
    reason: Reason,
}

impl Asked {
    fn new(
        name: &'static str,
        method: Method,
        path: &'static str,
        fields: &[(&'static str, &str)],
        reason: Reason,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("api.example"));
        headers.insert("user-agent", HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64) bench"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        for (name, value) in fields {
            // A slice of the read buffer, as in the proxy: a clone counts a reference.
            let value = Bytes::from(format!("{value}\r\n")).slice(..value.len());
            headers.insert(*name, HeaderValue::from_maybe_shared(value).expect("a value"));
        }
        Asked { name, method, path, headers, reason }
    }

    fn judge(&self, snapshot: &Snapshot, response: &mut HeaderMap) {
        let request = Request {
            method: &self.method,
            path: self.path.as_bytes(),
            target_length: self.path.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(Scheme::Http, "api.example"),
            authority: Some("api.example"),
            headers: black_box(&self.headers),
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        };
        let verdict = snapshot.decide(&request);
        from_upstream(response);
        verdict.edits.apply(response);
        assert_eq!(verdict.outcome.reason(), Some(self.reason));
    }
}

fn from_upstream(response: &mut HeaderMap) {
    response.clear();
    response.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("17"));
    response.insert(http::header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

// --- the budget

fn budgets() {
    let policy = |origins: usize| {
        let list = (0..origins).map(|i| format!("https://n{i}.example"));
        compiled(&Settings { allow_origins: Some(list.collect()), ..Settings::default() })
    };
    let (ten, many) = (policy(10), policy(100_000));
    let decide = |policy: &Policy, asked: &Asked| {
        let request = CorsRequest {
            method: &asked.method,
            headers: black_box(&asked.headers),
            own_origin: OwnOrigin::of(Scheme::Http, "api.example"),
        };
        assert_eq!(policy.decide(&request).reason, asked.reason);
    };
    let origin = |text: &str, reason| Asked::new("", GET, "/", &[("origin", text)], reason);
    let (short, long) =
        (origin("https://n7.example", Reason::AllowedExact), origin("https://n77777.example", Reason::AllowedExact));
    budget::compare("the same origin of 10 and of 100,000", 1.1, || decide(&ten, &short), || decide(&many, &long));
    let evil = origin("https://evil.test", Reason::OriginNotAllowed);
    budget::compare("a refusal by 10 and by 100,000 origins", 1.1, || decide(&ten, &evil), || decide(&many, &evil));
    // A different origin each time: the difference is the memory of 100,000 origins, not the work.
    let spread = |count: usize| -> Vec<Asked> {
        let scattered = (0..4096_usize).map(|i| i * 7919 % count);
        scattered.map(|i| origin(&format!("https://n{i}.example"), Reason::AllowedExact)).collect()
    };
    let (few, many_more) = (spread(10), spread(100_000));
    let (mut next_few, mut next_all) = (few.iter().cycle(), many_more.iter().cycle());
    budget::compare(
        "any origin of 10 and of 100,000 (caches included)",
        1.1,
        || next_few.next().into_iter().for_each(|asked| decide(&ten, asked)),
        || next_all.next().into_iter().for_each(|asked| decide(&many, asked)),
    );

    let snapshot = snapshot();
    let (mut response, mut other) = (HeaderMap::with_capacity(24), HeaderMap::with_capacity(24));
    let all = all();
    let named = |name| all.iter().find(|asked| asked.name == name).expect("a bench of this name");
    for (usual, hostile) in all.iter().filter(|asked| asked.name.starts_with("hostile")).map(|hostile| {
        let usual = match hostile.path {
            "/any" => "preflight/any",
            "/placeholder" => "placeholder/allowed",
            _ => "preflight/allowed",
        };
        (named(usual), hostile)
    }) {
        let what = format!("{} and {}", usual.name, hostile.name);
        budget::compare(&what, 5.0, || usual.judge(&snapshot, &mut response), || hostile.judge(&snapshot, &mut other));
    }
}

fn compiled(settings: &Settings) -> Policy {
    let mut problems = Problems::default();
    let policy = Policy::compile(settings, &OriginSets::default(), &At::root(), &mut problems);
    policy.unwrap_or_else(|| panic!("{problems}"))
}

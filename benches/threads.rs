//! The work of the engine and of the hooks for one request, on 1, 2, 4 and 8 threads at once.
//!
//! `request` takes the current configuration, decides, applies the edits, makes a request id, picks a node, and counts
//! the request. `one_counter` adds to one atomic value as often as a request had done before each thread counted for
//! itself: it shows what the machine loses to a line that all cores write.
//!
//! The time is that of one request on one thread. On a machine with as many cores as threads it is the same in each row;
//! with fewer cores it grows by the number of threads that share a core.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corsgate::decide::{ConnectionFacts, Framing, Request, RequestKind};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::live::Live;
use corsgate::record::request_id::RequestIds;
use corsgate::record::{MethodClass, Recorder, RequestRecord, UpstreamAttempt};
use corsgate::source::ConfigSource;
use corsgate::upstream::RunningUpstream;
use criterion::{Criterion, Throughput};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

const CONFIG: &str = "
listeners: [{ address: '127.0.0.1:9080' }]
services:
  - name: api
    hosts: [api.example]
    upstream: { nodes: [{ address: '127.0.0.1:8000' }, { address: '127.0.0.1:8001' }] }
    cors:
      allow_origins: [https://app.example]
      allow_methods: [GET, PUT]
      allow_headers: [content-type]
      expose_headers: [x-total]
      max_age: 600
    routes: [{ name: v1, paths: [/v1/*] }]
";

/// Atomic operations on shared lines per request, before.
const OPERATIONS: u64 = 14;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let gateway = Gateway::new();
    let counter = AtomicU64::new(0);
    for threads in [1, 2, 4, 8] {
        let mut group = criterion.benchmark_group("threads");
        group.throughput(Throughput::Elements(threads));
        let get = Asked::new(Method::GET, &[]);
        let preflight = Asked::new(
            Method::OPTIONS,
            &[(header::ACCESS_CONTROL_REQUEST_METHOD, "PUT"), (header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type")],
        );
        for (name, asked) in [("request", &get), ("preflight", &preflight)] {
            group.bench_function(format!("{name}/{threads}"), |bencher| {
                bencher
                    .iter_custom(|requests| on_threads(threads, || (0..requests).for_each(|_| gateway.serve(asked))));
            });
        }
        group.bench_function(format!("one_counter/{threads}"), |bencher| {
            let add =
                || _ = (0..OPERATIONS).map(|_| counter.fetch_add(1, Ordering::Relaxed)).fold(0, u64::wrapping_add);
            bencher.iter_custom(|requests| on_threads(threads, || (0..requests).for_each(|_| add())));
        });
        group.finish();
    }
    criterion.final_summary();
}

/// Time until all threads have done the work.
fn on_threads(threads: u64, work: impl Fn() + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(&work))));
    start.elapsed()
}

struct Gateway {
    live: Live,
    recorder: Recorder,
    ids: RequestIds,
    upstream: RunningUpstream,
}

struct Asked {
    method: Method,
    headers: HeaderMap,
}

impl Asked {
    fn new(method: Method, fields: &[(header::HeaderName, &'static str)]) -> Self {
        let origin = (header::ORIGIN, "https://app.example");
        let fields = fields.iter().chain([&origin]);
        let headers = fields.map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Asked { method, headers }
    }
}

impl Gateway {
    fn new() -> Self {
        let (live, _) = Live::start(ConfigSource::BuiltIn(CONFIG.to_owned())).expect("a configuration");
        let upstream = RunningUpstream::new(live.current().snapshot.upstreams()[0].clone());
        let recorder = Recorder::new(true, Arc::default());
        Gateway { live, recorder, ids: RequestIds::new(), upstream }
    }

    fn serve(&self, asked: &Asked) {
        let generation = self.live.for_request();
        let request = Request {
            method: &asked.method,
            path: b"/v1/users",
            target_length: 9,
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(Scheme::Http, "api.example"),
            authority: Some("api.example"),
            headers: black_box(&asked.headers),
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        };
        let verdict = generation.snapshot.decide(&request);
        let id = self.ids.of(&asked.headers);
        let picked = (asked.method == Method::GET).then(|| self.upstream.pick(None, &[]).expect("a node"));
        let mut response = HeaderMap::with_capacity(24);
        verdict.edits.apply(&mut response);
        black_box(&response);
        self.recorder.record(
            generation.route_metrics().slot(Some(0)),
            &RequestRecord {
                generation: generation.number,
                route: None,
                kind: RequestKind::Actual,
                outcome: verdict.outcome,
                refused: false,
                report_only: None,
                client: IpAddr::from([127, 0, 0, 1]),
                scheme: Scheme::Http,
                method: MethodClass::Get,
                request: None,
                status: Some(StatusCode::OK),
                body_bytes: 100,
                duration: Duration::from_micros(300),
                upstream: picked.as_ref().map(|_| UpstreamAttempt {
                    name: "api",
                    address: None,
                    duration: Some(Duration::from_micros(200)),
                    attempts: 1,
                }),
                failure: None,
                failure_detail: None,
                id: &id,
            },
        );
    }
}

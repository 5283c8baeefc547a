//! From text to snapshot: the cost of a start, a reload and `check`.
//!
//! Filters: `yaml`, `json`, `compile` (from a parsed document); and `100`, `100000`, the number of routes.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use corsgate::config::Document;
use corsgate::problem::Problems;
use corsgate::snapshot::{CompileEnv, Loaded, Snapshot, load};
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for routes in [100, 100_000] {
        let mut group = criterion.benchmark_group("compile");
        if routes > 1000 {
            group.sample_size(10).measurement_time(Duration::from_secs(10));
        }
        let (yaml, json) = (yaml(routes), json(routes));
        for (form, text) in [("yaml", &yaml), ("json", &json)] {
            group.bench_function(format!("{form}/{routes}"), |bencher| {
                bencher.iter_with_large_drop(|| read(black_box(text), routes));
            });
        }
        let document = Document::parse(&yaml, &mut Problems::default()).expect("the text is a document");
        group.bench_function(format!("compile/{routes}"), |bencher| {
            bencher.iter_with_large_drop(|| compile(black_box(&document), routes));
        });
        group.finish();
    }
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--bench") {
        budgets();
    }
}

fn read(text: &str, routes: usize) -> Snapshot {
    let Loaded { snapshot, problems } = load(text, CompileEnv::NONE);
    let snapshot = snapshot.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(snapshot.routes().len(), routes);
    snapshot
}

fn compile(document: &Document, routes: usize) -> Snapshot {
    let mut problems = Problems::default();
    let snapshot = Snapshot::compile(document, CompileEnv::NONE, &mut problems).unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(snapshot.routes().len(), routes);
    snapshot
}

/// Services of ten routes, each with its own host; one route in ten has its own policy.
fn yaml(routes: usize) -> String {
    let mut text = String::from(
        "listeners:
  - address: 127.0.0.1:9080
upstreams:
  api:
    nodes:
      - address: 127.0.0.1:8000
cors_policies:
  partners:
    allow_origins: [https://partner.example, \"https://*.partner.example\"]
    allow_methods: [GET, PUT]
    allow_headers: [Authorization, Content-Type]
    max_age: 600
services:
",
    );
    for service in 0..routes / 10 {
        let _ = write!(
            text,
            "  - name: service-{service}
    hosts: [n{service}.example]
    upstream: api
    cors: partners
    routes:
      - name: own
        paths: [/own/*]
        cors:
          allow_origins: [https://app{service}.example, https://admin{service}.example]
          allow_methods: [GET]
          allow_headers: [Content-Type]
          max_age: 600
"
        );
        for route in 1..10 {
            let _ = write!(text, "      - name: route-{route}\n        paths: [\"/v{route}/items/{{id}}\"]\n");
        }
    }
    text
}

/// One service with this number of hosts.
fn hosts(hosts: usize) -> String {
    let hosts: String = (0..hosts).fold(String::new(), |mut text, i| {
        let _ = writeln!(text, "      - n{i}.example");
        text
    });
    format!(
        "listeners: [{{ address: 127.0.0.1:9080 }}]
services:
  - name: all
    upstream: {{ nodes: [{{ address: 127.0.0.1:8000 }}] }}
    cors: {{ allow_origins: https://app.example, allow_methods: [GET], allow_headers: [X-A], max_age: 600 }}
    hosts:
{hosts}"
    )
}

/// The same as compact JSON.
fn json(routes: usize) -> String {
    let value: serde_json::Value = serde_yaml::from_str(&yaml(routes)).expect("YAML");
    value.to_string()
}

// --- the budget

fn budgets() {
    const MANY: usize = 100_000;
    for (what, text, routes) in [
        ("routes from YAML", yaml(MANY), MANY),
        ("routes from JSON", json(MANY), MANY),
        ("hosts of one service", hosts(MANY), 1),
    ] {
        let least = (0..5).map(|_| {
            let start = Instant::now();
            let snapshot = read(&text, routes);
            let elapsed = start.elapsed();
            drop(snapshot);
            elapsed
        });
        let least = least.min().expect("five rounds").as_secs_f64() * 1e3;
        let verdict = if least <= 500.0 { "within" } else { "OVER" };
        let kib = text.len() >> 10;
        println!("budget: 100,000 {what} ({kib} KiB): {least:.0} ms, {verdict} the 500 of the budget");
    }
}

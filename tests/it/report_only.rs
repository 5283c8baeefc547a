//! `report_only`: a policy that is compared with the policy in force. It changes no response, and every output reports
//! its decisions.

use std::time::Duration;

use corsgate::cors::{OriginSets, Policy, Settings};
use corsgate::decide::{ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::notation::Use;
use corsgate::problem::{At, Problems};
use corsgate::snapshot::{CompileEnv, Snapshot, load};
use http::{HeaderMap, Method, Version};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::oracles::{Asked, any_request, any_settings, outcome};
use crate::support::client::fetch;
use crate::support::gateway::{Gateway, run};
use crate::support::process::poll;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ADMIN: (&str, &str) = ("Host", "127.0.0.1:9180");
const APP: (&str, &str) = ("Origin", "https://app.test");
const OLD: (&str, &str) = ("Origin", "https://old.test");
const NEW: (&str, &str) = ("Origin", "https://new.test");
const FOREIGN: (&str, &str) = ("Origin", "https://evil.test");
const CROSS_SITE: (&str, &str) = ("Sec-Fetch-Site", "cross-site");
const PUT: (&str, &str) = ("Access-Control-Request-Method", "PUT");
const DELETE: (&str, &str) = ("Access-Control-Request-Method", "DELETE");
const X_NEW: (&str, &str) = ("Access-Control-Request-Headers", "x-new");

fn config(upstream: &Upstream) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log, refusals_only: true }}
cors_policies:
  tighter:
    allow_origins: [https://app.test, https://new.test]
    allow_methods: [PUT]
    allow_headers: [X-New]
    max_age: 60
    cross_site: reject
services:
  - name: api
    hosts: [api.test]
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors:
      allow_origins: [https://app.test, https://old.test]
      allow_methods: [PUT, DELETE]
      allow_headers: [X-A]
      max_age: 60
      report_only: tighter
    routes:
      - {{ name: all, paths: [/*] }}
      - {{ name: raw, paths: [/raw], cors: false }}
      - {{ name: plain, paths: [/plain], cors: {{ allow_origins: https://app.test, max_age: 60 }} }}
      - name: denied
        paths: [/denied]
        clients: {{ deny: [127.0.0.1] }}
",
        upstream.address()
    )
}

/// Method, path, fields, status, and the reported change and reason.
type Row =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], u16, Option<(&'static str, &'static str)>);

const REFUSE: &str = "would_refuse";
const ALLOW: &str = "would_allow";

const ROWS: [Row; 15] = [
    ("GET", "/", &[APP], 200, None),
    ("GET", "/", &[], 200, None),
    ("GET", "/", &[FOREIGN], 200, None),
    ("GET", "/", &[OLD], 200, Some((REFUSE, "origin_not_allowed"))),
    ("GET", "/", &[NEW], 200, Some((ALLOW, "allowed_exact"))),
    ("OPTIONS", "/", &[APP, PUT], 200, None),
    ("OPTIONS", "/", &[APP, DELETE], 200, Some((REFUSE, "method_not_allowed"))),
    ("OPTIONS", "/", &[APP, PUT, X_NEW], 200, Some((ALLOW, "allowed_exact"))),
    ("OPTIONS", "/", &[OLD, PUT], 200, Some((REFUSE, "origin_not_allowed"))),
    // The form of another site reaches the upstream now, but its page cannot read the response.
    ("POST", "/", &[FOREIGN, CROSS_SITE], 200, Some((REFUSE, "cross_site"))),
    ("POST", "/", &[CROSS_SITE], 200, Some((REFUSE, "cross_site"))),
    ("POST", "/", &[APP, CROSS_SITE], 200, None),
    ("GET", "/raw", &[OLD], 200, None),
    ("GET", "/plain", &[OLD], 200, None),
    // The reason of this refusal is not CORS.
    ("GET", "/denied", &[OLD], 403, None),
];

#[test]
fn every_output_reports_what_the_policy_would_do() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(&upstream));
    for (n, (method, path, fields, status, _)) in ROWS.iter().enumerate() {
        let id = format!("row-{n}");
        let fields = [&[HOST, ("X-Request-Id", id.as_str())], *fields].concat();
        assert_eq!(fetch(gateway.address(), method, path, &fields).status, *status, "{method} {path} {fields:?}");
    }
    let id_of = |n: usize| format!("row-{n}");
    let reported: Vec<_> = ROWS.iter().enumerate().filter_map(|(n, row)| Some((n, row.4?))).collect();

    // Metrics.
    let count = |change: &str, reason: &str| reported.iter().filter(|(_, report)| *report == (change, reason)).count();
    for (_, (change, reason)) in &reported {
        let name = format!(
            "corsgate_report_only_total{{service=\"api\",route=\"all\",change=\"{change}\",reason=\"{reason}\"}}"
        );
        let line = format!("{name} {}", count(change, reason));
        let found =
            poll(Duration::from_secs(10), || gateway.metrics().lines().any(|found| found == line).then_some(()));
        assert!(found.is_some(), "no {line} in\n{}", gateway.metrics());
    }
    let families = gateway.metrics();
    let of_others = families.lines().filter(|line| line.starts_with("corsgate_report_only_total{"));
    assert_eq!(of_others.clone().count(), 4, "{:#?}", of_others.collect::<Vec<_>>());

    // The access log has refused requests and requests that would be refused. A request of a foreign page is both.
    let lines: Vec<Value> =
        gateway.wait_for_access_log(10).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (n, report) in ROWS.iter().map(|row| row.4).enumerate() {
        let line = lines.iter().find(|line| line["request_id"] == id_of(n));
        let expected = report.map(|(change, reason)| format!("{change}:{reason}"));
        match (line, expected) {
            (Some(line), expected) => assert_eq!(line["report_only"], json!(expected), "{line:#}"),
            (None, expected) => assert!(expected.is_none_or(|text| text.starts_with(ALLOW)), "row {n} has no line"),
        }
    }

    // Refusals, and `why`.
    let admin =
        |path: &str| -> Value { serde_json::from_str(fetch(gateway.admin(), "GET", path, &[ADMIN]).text()).unwrap() };
    let refusals = admin("/refusals");
    let refusals = refusals.as_array().unwrap();
    for (n, row) in ROWS.iter().enumerate() {
        let entry = refusals.iter().find(|entry| entry["request_id"] == id_of(n));
        let is_report = entry.is_some_and(|entry| entry["report_only"] == true);
        // The page of the other site cannot read the response now either.
        let expected = row.4.is_some_and(|(change, _)| change == REFUSE) && !row.2.contains(&FOREIGN);
        assert_eq!(is_report, expected, "row {n}: {entry:#?}");
        if let (true, Some(entry), Some((_, reason))) = (is_report, entry, row.4) {
            assert_eq!((&entry["reason"], &entry["route"]), (&reason.into(), &"api/all".into()));
        }
    }
    let output = run(&["why", &id_of(3), "--admin", &format!("http://{}", gateway.admin())]);
    for said in [
        "not refused, but the report-only policy would refuse it: origin_not_allowed",
        "allowed: a page of https://old.test",
        "The `report_only` policy would refuse this request (origin_not_allowed).",
    ] {
        assert!(output.stdout.contains(said), "no {said:?} in\n{}{}", output.stdout, output.stderr);
    }

    // The status page and `/routes`.
    let routes = admin("/routes");
    let of = |name: &str| {
        routes.as_array().unwrap().iter().find(|route| route["name"] == name).unwrap()["report_only"].clone()
    };
    let total = |change: &str| reported.iter().filter(|(_, report)| report.0 == change).count();
    assert_eq!(of("api/all"), json!({ "would_refuse": total(REFUSE), "would_allow": total(ALLOW) }));
    assert_eq!((of("api/raw"), of("api/plain")), (Value::Null, Value::Null));
    let page = fetch(gateway.admin(), "GET", "/", &[ADMIN]).text().to_owned();
    for shown in [format!("would_refuse {}", total(REFUSE)), "would be refused: ".to_owned()] {
        assert!(page.contains(&shown), "no {shown:?} in\n{page}");
    }
}

/// A flood of requests that a report-only policy would refuse must not replace refused requests in the list, and the
/// reverse.
#[test]
fn reports_and_refusals_do_not_push_each_other_out() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(&upstream));
    let send = |origin: (&'static str, &'static str), id: &str| {
        fetch(gateway.address(), "GET", "/", &[HOST, origin, ("X-Request-Id", id)]);
    };
    send(FOREIGN, "real");
    send(OLD, "report");
    (0..600).for_each(|_| send(OLD, "flood"));
    let has = |id: &str, at_least: usize| {
        let listed = || {
            let text = fetch(gateway.admin(), "GET", "/refusals", &[ADMIN]).text().to_owned();
            (text.matches(&format!("\"{id}\"")).count() >= at_least).then_some(())
        };
        poll(Duration::from_secs(10), listed).is_some()
    };
    assert!(has("flood", 100) && has("real", 1));
    assert!(!fetch(gateway.admin(), "GET", "/refusals", &[ADMIN]).text().contains("\"report\""), "the list is bounded");
    send(OLD, "report");
    (0..600).for_each(|_| send(FOREIGN, "hostile"));
    assert!(has("hostile", 300) && has("report", 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The routes `/shared` have one policy. Only one of the routes compares it with another policy.
    #[test]
    fn no_response_depends_on_report_only(
        in_force in any_settings(), reported in any_settings(), asked in any_request(),
    ) {
        let with = Settings { report_only: Some(Use::Inline(Box::new(reported.clone()))), ..in_force.clone() };
        let (plain, reporting) = (snapshot(&in_force, &in_force), snapshot(&with, &in_force));
        for path in ["/own", "/shared"] {
            for method in [&asked.method, &Method::POST] {
                let (old, new) = (decided(&plain, &asked, method, path), decided(&reporting, &asked, method, path));
                prop_assert_eq!(&old.0, &new.0);
                prop_assert!(old.1.is_none());
            }
        }
        // The report must be the difference between two policies that are decided separately.
        let found = decided(&reporting, &asked, &asked.method, "/own");
        let decide = |settings: &Settings| {
            let policy = Policy::compile(settings, &OriginSets::default(), &At::root(), &mut Problems::default());
            outcome(&policy.expect("valid settings").decide(&asked.as_request()))
        };
        let rank = |action: &str, is_refusal: bool| match (action, is_refusal) {
            ("Reject", _) => 2,
            (_, true) => 1,
            (_, false) => 0,
        };
        let of = |settings: &Settings| {
            let (action, reason, _) = decide(settings);
            let code = reason.code();
            let is_refusal = !(code.starts_with("allowed") || ["no_origin", "same_origin"].contains(&code));
            (rank(&format!("{action:?}"), is_refusal), code)
        };
        let (old, (new, reason)) = (of(&in_force).0, of(&reported));
        let expected = match new.cmp(&old) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some((REFUSE, reason)),
            std::cmp::Ordering::Less => Some((ALLOW, reason)),
        };
        prop_assert_eq!(found.1, expected);
    }
}

/// `/own` has the first policy for every method. `/shared` has it for GET and PUT, and the second policy for other
/// methods.
fn snapshot(first: &Settings, second: &Settings) -> Snapshot {
    let config = json!({
        "listeners": [{ "address": "127.0.0.1:9080" }],
        "services": [{
            "name": "api",
            "upstream": { "nodes": [{ "address": "127.0.0.1:8000" }] },
            "routes": [
                { "name": "own", "paths": ["/own"], "cors": written(first) },
                { "name": "one", "paths": ["/shared"], "methods": ["GET", "PUT"], "cors": written(first) },
                { "name": "two", "paths": ["/shared"], "cors": written(second) },
            ],
        }],
    });
    let loaded = load(&config.to_string(), CompileEnv::NONE);
    loaded.snapshot.unwrap_or_else(|| panic!("{}\n{config:#}", loaded.problems))
}

fn written(settings: &Settings) -> Value {
    let mut value = serde_json::to_value(settings).unwrap();
    remove_nulls(&mut value);
    value
}

fn remove_nulls(value: &mut Value) {
    if let Value::Object(entries) = value {
        entries.retain(|_, value| !value.is_null());
        entries.values_mut().for_each(remove_nulls);
    }
}

/// Returns all parts of a decision that a client can observe, and the report.
fn decided(
    snapshot: &Snapshot,
    asked: &Asked,
    method: &Method,
    path: &str,
) -> (String, Option<(&'static str, &'static str)>) {
    let request = Request {
        method,
        path: path.as_bytes(),
        target_length: path.len(),
        version: Version::HTTP_11,
        own_origin: OwnOrigin::of(Scheme::Https, "api.example"),
        authority: Some("api.example"),
        headers: &asked.headers,
        framing: Framing::Clear,
        connection: ConnectionFacts::default(),
    };
    let verdict = snapshot.decide(&request);
    let mut response = HeaderMap::new();
    verdict.edits.apply(&mut response);
    let mut fields: Vec<String> = response.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    fields.sort();
    let action = match verdict.action {
        corsgate::decide::Action::Forward(_) => "forward".to_owned(),
        other => format!("{other:?}"),
    };
    let report = verdict.report_only.map(|report| (report.change.code(), report.reason.code()));
    (format!("{action} {:?} {fields:?}", verdict.outcome), report)
}

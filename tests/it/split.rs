//! Routes that share their requests between upstreams by weight.

use std::collections::BTreeMap;

use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, run};
use crate::support::process::{PROCESS_TIMEOUT, poll};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

/// Two upstreams that answer with their name.
struct Scene {
    stable: Upstream,
    canary: Upstream,
}

impl Scene {
    fn start() -> Self {
        let answer = |name: &'static str| {
            Upstream::start(move |request| match request.target.as_str() {
                "/socket" => Reply::echo(),
                "/broken" => Reply::reset(),
                _ => Reply::new(200).body(name),
            })
        };
        Scene { stable: answer("stable"), canary: answer("canary") }
    }

    /// Returns a configuration with these weights. `more` is added to `split`.
    fn config(&self, stable: u32, canary: u32, more: &str) -> String {
        format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log }}
trusted_proxies: [127.0.0.1]
upstreams:
  stable: {{ nodes: [{{ address: '{}' }}], retries: 3, ejection: false }}
  canary: {{ nodes: [{{ address: '{}' }}], retries: 3, ejection: false }}
services:
  - name: api
    cors: {{ allow_origins: https://app.test, allow_methods: PUT }}
    routes:
      - name: split
        paths: [/*]
        split:
          upstreams: [{{ upstream: stable, weight: {stable} }}, {{ upstream: canary, weight: {canary} }}]
{more}
      - {{ name: plain, paths: [/plain], upstream: stable }}
",
            self.stable.address(),
            self.canary.address()
        )
    }
}

fn get(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Response {
    let fields: Vec<_> = [HOST, ORIGIN].into_iter().chain(fields.iter().copied()).collect();
    let response = fetch(gateway.address(), "GET", target, &fields);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{response:?}");
    response
}

fn name(gateway: &Gateway, fields: &[(&str, &str)]) -> String {
    get(gateway, "/", fields).text().to_owned()
}

#[test]
fn requests_are_shared_by_weight_and_the_log_and_the_metrics_name_the_upstream() {
    let scene = Scene::start();
    let gateway = Gateway::start(&scene.config(3, 1, ""));
    let mut counts = BTreeMap::<String, u64>::new();
    let mut connection = Connection::open(gateway.address()).unwrap();
    for _ in 0..400 {
        let response = connection.request("GET", "/", &[HOST], b"").unwrap();
        *counts.entry(response.text().to_owned()).or_default() += 1;
    }
    // The tolerance is more than five standard deviations.
    assert!(counts["canary"].abs_diff(100) < 45, "{counts:?}");
    assert_eq!(get(&gateway, "/plain", &[]).text(), "stable");
    // A preflight needs no upstream.
    let asks = [HOST, ORIGIN, ("Access-Control-Request-Method", "PUT")];
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/", &asks).status, 200);

    let lines = gateway.wait_for_access_log(402);
    for (name, count) in &counts {
        let named = lines.iter().filter(|line| line.contains(&format!("\"upstream\":\"{name}\"")));
        let plain = u64::from(name == "stable");
        assert_eq!(named.count() as u64, count + plain, "{name}");
        let series = format!("corsgate_split_responses_total{{upstream=\"{name}\",status=\"2xx\"}}");
        assert_eq!(gateway.metric(&series), *count, "requests of the other route do not count");
    }
    let page = fetch(gateway.admin(), "GET", "/", &[("Host", "localhost")]);
    assert!(page.text().contains("split stable 3, canary 1"), "{}", page.text());
}

#[test]
fn sticky_requests_keep_their_upstream_when_weights_change() {
    let scene = Scene::start();
    for (sticky, field) in
        [("header:X-User", "X-User"), ("cookie:session", "Cookie"), ("client_address", "X-Forwarded-For")]
    {
        let config = |stable, canary| scene.config(stable, canary, &format!("          sticky: {sticky}"));
        let gateway = Gateway::start(&config(90, 10));
        let value = |user: u32| match field {
            "X-User" => format!("user-{user}"),
            "Cookie" => format!("a=b; session={user}; c=d"),
            _ => format!("192.0.2.{user}"),
        };
        let canaries = |gateway: &Gateway| -> Vec<u32> {
            (0..60).filter(|user| name(gateway, &[(field, &value(*user))]) == "canary").collect()
        };
        let few = canaries(&gateway);
        assert!(few.len() < 20, "{sticky}: {few:?}");
        assert_eq!(canaries(&gateway), few, "{sticky}");
        gateway.reload_with(&config(50, 50));
        gateway.wait_for_log("reloaded generation=2");
        let half = canaries(&gateway);
        assert!(few.iter().all(|user| half.contains(user)) && (15..46).contains(&half.len()), "{few:?} {half:?}");
        gateway.reload_with(&config(0, 100));
        gateway.wait_for_log("reloaded generation=3");
        assert_eq!(canaries(&gateway).len(), 60);
        // With the first weights again, the same users as at first get the canary.
        gateway.reload_with(&config(90, 10));
        gateway.wait_for_log("reloaded generation=4");
        assert_eq!(canaries(&gateway), few, "{sticky}");
    }
}

#[test]
fn without_the_sticky_field_a_request_is_drawn_by_chance() {
    let scene = Scene::start();
    let gateway = Gateway::start(&scene.config(1, 1, "          sticky: cookie:session"));
    for fields in [&[][..], &[("Cookie", "session2=7")]] {
        let canaries = (0..60).filter(|_| name(&gateway, fields) == "canary").count();
        assert!((5..56).contains(&canaries), "{canaries}");
    }
}

#[test]
fn a_retry_stays_in_the_upstream_of_the_request() {
    let scene = Scene::start();
    let gateway = Gateway::start(&scene.config(0, 1, ""));
    assert_eq!(get(&gateway, "/broken", &[]).status, 502);
    assert_eq!((scene.stable.hits(), scene.canary.hits()), (0, 1), "no retry in the other upstream");
    gateway.wait_for_access_log_line("\"upstream\":\"canary\"");
    let series = "corsgate_split_responses_total{upstream=\"canary\",status=\"5xx\"}";
    assert!(poll(PROCESS_TIMEOUT, || (gateway.metric(series) == 1).then_some(())).is_some());
}

#[test]
fn a_websocket_and_a_long_response_keep_their_upstream_over_a_reload() {
    let scene = Scene::start();
    let gateway = Gateway::start(&scene.config(0, 1, ""));
    let mut socket = Connection::open(gateway.address()).unwrap();
    let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(socket.request("GET", "/socket", &upgrade, b"").unwrap().status, 101);
    gateway.reload_with(&scene.config(1, 0, ""));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(name(&gateway, &[]), "stable");
    socket.send(b"hello").unwrap();
    assert_eq!(socket.receive(5).unwrap(), b"hello");
    drop(socket);
    gateway.wait_for_access_log_line("\"status\":101");
    let lines = gateway.access_log();
    let line = lines.iter().find(|line| line.contains("\"status\":101")).unwrap();
    assert!(line.contains("\"upstream\":\"canary\"") && line.contains("\"route\":\"api/split\""), "{line}");
}

#[test]
fn the_effective_view_shows_the_shares() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corsgate.yaml");
    let text =
        Scene::start().config(95, 5, "          sticky: cookie:session").replace("\"{listen}\"", "127.0.0.1:9080");
    std::fs::write(&path, text.replace("\"{admin}\"", "127.0.0.1:9180")).unwrap();
    let path = path.to_str().unwrap();
    let shown = run(&["check", "--effective", "--config", path]);
    assert!(shown.stdout.contains("  split     stable 95, canary 5, sticky by cookie:session\n"), "{}", shown.stdout);
    let json = run(&["check", "--effective", "--format", "json", "--config", path]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let split = json.as_array().and_then(|routes| routes.iter().find(|route| route["name"] == "api/split")).unwrap();
    assert_eq!(split["upstream"], serde_json::Value::Null);
    assert_eq!(split["split"]["upstreams"][1], serde_json::json!({ "upstream": "canary", "weight": 5 }));
    assert_eq!(split["split"]["sticky"], "cookie:session");
}

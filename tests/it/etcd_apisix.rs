//! The keys of APISIX in etcd as the source, with a real etcd and real processes.

use std::fs;

use crate::support::client::fetch;
use crate::support::etcd::{CHANGE_TIMEOUT, Etcd};
use crate::support::gateway::{Gateway, run};
use crate::support::process::poll;
use crate::support::upstream::{Reply, Upstream};

const LISTENERS: &str = "listeners: [{ address: '{listen}' }]\nadmin: { address: '{admin}' }\n";

fn file(etcd: &Etcd, more: &str) -> String {
    format!("{LISTENERS}source: {{ etcd: {{ endpoints: '{}', format: apisix{more} }} }}\n", etcd.endpoints())
}

fn key(name: &str) -> String {
    format!("/apisix/{name}")
}

/// Writes the keys that APISIX writes when it starts.
fn init(etcd: &Etcd) {
    for kind in ["routes", "services", "upstreams", "plugin_metadata", "global_rules", "ssls", "consumers"] {
        etcd.put(&key(&format!("{kind}/")), "init_dir");
    }
    etcd.put(&key("data_plane/server_info/1"), r#"{"hostname":"apisix-1"}"#);
}

fn upstream(of: &Upstream) -> String {
    format!(r#"{{"id":"u","type":"roundrobin","nodes":{{"{}":1}}}}"#, of.address())
}

const ROUTE: &str = r#"{"id":"1","uri":"/items/*","host":"api.test","upstream_id":"u","create_time":1700000000,"status":1,"plugins":{"cors":{"allow_origins":"https://a.test","allow_methods":"GET,PUT","max_age":60}}}"#;

/// Whether the origin may read the response.
fn is_allowed(gateway: &Gateway, origin: &str) -> bool {
    let response = fetch(gateway.address(), "GET", "/items/1", &[("Host", "api.test"), ("Origin", origin)]);
    response.header("Access-Control-Allow-Origin") == Some(origin)
}

fn wait_for_origin(gateway: &Gateway, origin: &str) {
    let found = poll(CHANGE_TIMEOUT, || is_allowed(gateway, origin).then_some(()));
    assert!(found.is_some(), "{origin} is not allowed: {}", gateway.stderr());
}

fn status(gateway: &Gateway, path: &str) -> u16 {
    fetch(gateway.address(), "GET", path, &[("Host", "api.test")]).status
}

fn wait_for_status(gateway: &Gateway, path: &str, expected: u16) {
    let found = poll(CHANGE_TIMEOUT, || (status(gateway, path) == expected).then_some(()));
    assert!(found.is_some(), "{path}: {} instead of {expected}: {}", status(gateway, path), gateway.stderr());
}

#[test]
fn the_keys_of_an_apisix_fleet_drive_corsgate() {
    let (etcd, app) = (Etcd::start(), Upstream::start(|_| Reply::new(200)));
    init(&etcd);
    etcd.put(&key("upstreams/u"), &upstream(&app));
    etcd.put(&key("routes/1"), ROUTE);
    let gateway = Gateway::start(&file(&etcd, ""));
    assert!(is_allowed(&gateway, "https://a.test"));
    assert!(!is_allowed(&gateway, "https://b.test"));
    let preflight = [("Host", "api.test"), ("Origin", "https://a.test"), ("Access-Control-Request-Method", "PUT")];
    let answer = fetch(gateway.address(), "OPTIONS", "/items/1", &preflight);
    assert_eq!((answer.status, answer.header("Access-Control-Max-Age")), (200, Some("60")), "{answer:?}");
    // A change of the policy, as the Admin API of APISIX writes it.
    etcd.put(&key("routes/1"), &ROUTE.replace("https://a.test", "https://b.test"));
    wait_for_origin(&gateway, "https://b.test");
    assert!(!is_allowed(&gateway, "https://a.test"));
    // A policy of all routes, and a service.
    etcd.put(
        &key("services/s"),
        r#"{"hosts":["api.test"],"upstream_id":"u","plugins":{"cors":{"allow_origins":"https://c.test"}}}"#,
    );
    etcd.put(&key("routes/2"), r#"{"uri":"/other","service_id":"s"}"#);
    wait_for_status(&gateway, "/other", 200);
    let other = fetch(gateway.address(), "GET", "/other", &[("Host", "api.test"), ("Origin", "https://c.test")]);
    assert_eq!(other.header("Access-Control-Allow-Origin"), Some("https://c.test"));
    // The service with the policy is deleted. Its route must not be served without the policy.
    etcd.delete(&key("services/s"));
    wait_for_status(&gateway, "/other", 404);
    etcd.delete(&key("routes/1"));
    // Without a route the last configuration stays.
    gateway.wait_for_log("no route can be translated");
    assert!(is_allowed(&gateway, "https://b.test"));
    // Nothing was written below the prefix.
    let names = etcd.ctl(&["get", "--prefix", "--keys-only", "/apisix/"]);
    assert!(!names.contains("instances"), "{names}");
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_good_version() {
    let (etcd, app) = (Etcd::start(), Upstream::start(|_| Reply::new(200)));
    etcd.put(&key("upstreams/u"), &upstream(&app));
    etcd.put(&key("routes/1"), ROUTE);
    etcd.put(&key("routes/2"), r#"{"uri":"/two","host":"api.test","upstream_id":"u"}"#);
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache.json");
    let text = file(&etcd, &format!(", cache: '{}'", cache.display()));
    let gateway = Gateway::start(&text);
    let large = format!(r#"{{"uri":"/items/*","desc":"{}"}}"#, "a".repeat(1_100_000));
    for value in ["{", "[]", "null", "init", &*format!("{}1", "[".repeat(100_000)), &large] {
        etcd.put(&key("routes/1"), value);
        etcd.put(&key("routes/2"), &format!(r#"{{"uri":"/two-{}","host":"api.test","upstream_id":"u"}}"#, value.len()));
        wait_for_status(&gateway, &format!("/two-{}", value.len()), 200);
        assert!(is_allowed(&gateway, "https://a.test"), "{}", &value[..value.len().min(20)]);
        let ready = fetch(gateway.admin(), "GET", "/readyz", &[("Host", "localhost")]);
        assert!(ready.text().contains("routes/1 at revision"), "{}", ready.text());
    }
    let check = run(&["check", "--config", &format!("{}?format=apisix", etcd.url("/apisix"))]);
    assert_eq!(check.code, 1, "{check:?}");
    assert!(check.stdout.contains("error: routes/1: the value has 11000"), "{check:?}");
    // A new process takes the last good version from the cache.
    let cached = poll(CHANGE_TIMEOUT, || fs::read_to_string(&cache).ok().filter(|text| text.contains("/two-11000")));
    assert!(cached.is_some_and(|text| text.contains("https://a.test")));
    drop(gateway);
    let again = Gateway::start(&text);
    assert!(is_allowed(&again, "https://a.test"));
    // Also without etcd.
    drop((again, etcd));
    let without = Gateway::start(&text);
    assert!(is_allowed(&without, "https://a.test"));
}

#[test]
fn what_is_not_translated_is_listed_by_key_and_not_served_without_its_guard() {
    let (etcd, app) = (Etcd::start(), Upstream::start(|_| Reply::new(200)));
    init(&etcd);
    etcd.put(&key("upstreams/u"), &upstream(&app));
    etcd.put(&key("routes/1"), ROUTE);
    etcd.put(
        &key("routes/login"),
        r#"{"uri":"/private","host":"api.test","upstream_id":"u","plugins":{"key-auth":{}}}"#,
    );
    etcd.put(&key("routes/wide"), r#"{"uri":"/*","host":"api.test","upstream_id":"u","plugins":{"prometheus":{}}}"#);
    etcd.put(&key("ssls/1"), "{}");
    let gateway = Gateway::start(&file(&etcd, ""));
    assert_eq!(status(&gateway, "/public"), 200);
    assert_eq!(status(&gateway, "/private"), 503);
    let url = format!("{}?format=apisix", etcd.url("/apisix"));
    let check = run(&["check", "--config", &url]);
    for part in [
        "warning: ssls/1: dropped: not read: corsgate takes certificates",
        "warning: routes/login: dropped: the plugin `key-auth` may refuse or change requests",
        "warning: routes/wide: dropped: plugin `prometheus`",
    ] {
        assert!(check.stdout.contains(part), "no {part:?} in {}", check.stdout);
        assert!(gateway.stderr().contains(part), "no {part:?} in {}", gateway.stderr());
    }
    assert_eq!(check.code, 0, "{check:?}");
    // The keys are only read.
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.yaml");
    fs::write(&new, "services: [{ name: a, hosts: [a.test], respond: { status: 200 } }]\n").unwrap();
    let apply = run(&["apply", "--config", &url, "--yes", "-f", &new.to_string_lossy()]);
    assert!(apply.code > 0 && apply.stderr.contains("the keys belong to APISIX"), "{apply:?}");
    let fleet = run(&["fleet", "--config", &url]);
    assert!(fleet.code > 0 && fleet.stderr.contains("write no records"), "{fleet:?}");
    // And exported as one file of corsgate, which is valid.
    let export = run(&["export", "--config", &url]);
    let exported = folder.path().join("corsgate.yaml");
    fs::write(&exported, &export.stdout).unwrap();
    let check = run(&["check", "--config", &exported.to_string_lossy()]);
    assert_eq!((export.code, check.code), (0, 0), "{export:?} {check:?}");
    assert!(export.stdout.contains("https://a.test"), "{}", export.stdout);
}

/// A rule for all routes may be a login.
#[test]
fn without_a_global_rule_that_can_be_read_no_route_is_served() {
    let (etcd, app) = (Etcd::start(), Upstream::start(|_| Reply::new(200)));
    etcd.put(&key("upstreams/u"), &upstream(&app));
    etcd.put(&key("routes/1"), ROUTE);
    etcd.put(&key("global_rules/1"), "{");
    let gateway = Gateway::start(&file(&etcd, ""));
    gateway.wait_for_log("global_rules/1 cannot be read, and may protect all routes");
    assert_eq!(status(&gateway, "/items/1"), 503);
    let rule = r#"{"plugins":{"cors":{"allow_origins":"https://b.test"},"prometheus":{}}}"#;
    etcd.put(&key("global_rules/1"), rule);
    wait_for_origin(&gateway, "https://a.test");
    // Now it has a good version, which stays.
    etcd.put(&key("global_rules/1"), "{");
    gateway.wait_for_log("etcd key refused, revision ");
    assert!(is_allowed(&gateway, "https://a.test"));
}

/// Time of one change with 2,000 routes. Prints figures.
#[test]
#[ignore = "prints figures"]
fn figures_of_2_000_routes() {
    let (etcd, app) = (Etcd::start(), Upstream::start(|_| Reply::new(200)));
    etcd.put(&key("upstreams/u"), &upstream(&app));
    let route = |i: usize, origin: &str| {
        ROUTE
            .replace("/items/*", &format!("/r{i}/*"))
            .replace("\"1\"", &format!("\"r{i}\""))
            .replace("https://a.test", origin)
    };
    let all: Vec<_> = (0..2000).map(|i| (key(&format!("routes/r{i}")), route(i, "https://a.test"))).collect();
    etcd.put_all(&all);
    etcd.put(&key("routes/1"), ROUTE);
    let start = std::time::Instant::now();
    let gateway = Gateway::start(&file(&etcd, ""));
    println!("time to the first configuration: {:?}", start.elapsed());
    for i in 0..5 {
        let start = std::time::Instant::now();
        let origin = format!("https://change{i}.test");
        etcd.put(&key("routes/1"), &ROUTE.replace("https://a.test", &origin));
        wait_for_origin(&gateway, &origin);
        println!("change: {:?}", start.elapsed());
    }
}

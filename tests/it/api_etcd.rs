//! The write API of processes whose configuration is in etcd, with a real etcd.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, Request, Tokens, code, json_of};
use crate::support::certificates::Authority;
use crate::support::client::fetch;
use crate::support::etcd::{CHANGE_TIMEOUT, Etcd, EtcdTls};
use crate::support::gateway::Gateway;
use crate::support::process::poll;
use crate::ui::Ui;

const PREFIX: &str = "/edge";
const YAML: (&str, &str) = ("Content-Type", "application/yaml");
const PATCH: (&str, &str) = ("Content-Type", "application/merge-patch+json");
/// A value with comments, which must stay.
const POLICY: &str = "# Of the shop.\nallow_origins: https://a.example\nmax_age: 60   # a minute\n";

fn key(name: &str) -> String {
    format!("{PREFIX}/{name}")
}

/// Processes that share these tokens and have their services in this etcd.
fn start(etcd: &Etcd, tokens: &Tokens, more: &str) -> Gateway {
    let config = format!(
        "listeners: [{{ address: '{{listen}}' }}]\nadmin: {{ address: '{{admin}}', write: admin.tokens }}\n\
         source: {{ etcd: {{ endpoints: '{}', prefix: {PREFIX}{more} }} }}\n",
        etcd.endpoints()
    );
    Gateway::start_with_files(&config, &tokens.files())
}

/// A cluster with a policy and a service, and processes that use it.
fn started<const N: usize>() -> (Etcd, [Api; N]) {
    let etcd = Etcd::start();
    etcd.put(&key("cors_policies/app"), POLICY);
    etcd.put(&key("services/api"), "{ hosts: [api.test], respond: { status: 200, body: '1' }, cors: app }");
    let tokens = Tokens::new();
    let processes = [(); N].map(|()| Api { gateway: start(&etcd, &tokens, ""), tokens: tokens.clone() });
    (etcd, processes)
}

fn value(etcd: &Etcd, name: &str) -> String {
    etcd.ctl(&["get", "--print-value-only", &key(name)])
}

/// The `Access-Control-Max-Age` for pages of https://a.example.
fn max_age(gateway: &Gateway) -> Option<String> {
    let fields = [("Host", "api.test"), ("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")];
    fetch(gateway.address(), "OPTIONS", "/", &fields).header("Access-Control-Max-Age").map(str::to_owned)
}

#[test]
fn a_change_is_active_in_the_process_that_is_asked_and_then_in_all() {
    let (etcd, apis) = started::<3>();
    let mut times = Vec::new();
    for i in 0..20_usize {
        let age = (100 + i).to_string();
        let begin = Instant::now();
        let response = apis[i % 3].ask(("PATCH", "/cors_policies/app", &[PATCH], &format!("{{\"max_age\": {age}}}")));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(max_age(&apis[i % 3].gateway), Some(age.clone()), "active when the response arrives");
        for api in &apis {
            let found = poll(CHANGE_TIMEOUT, || (max_age(&api.gateway) == Some(age.clone())).then_some(()));
            assert!(found.is_some(), "{:?}", max_age(&api.gateway));
        }
        times.push(begin.elapsed());
    }
    times.sort();
    println!("a change by the API in three processes: median {:?}, worst {:?}", times[10], times[19]);
    assert_eq!(value(&etcd, "cors_policies/app"), POLICY.replace("60   #", "119   #") + "\n", "comments stay");
}

#[test]
fn a_change_by_the_page_is_active_in_all_processes() {
    let (etcd, apis) = started::<3>();
    let pages: Vec<Ui<'_>> = apis.iter().map(|api| Ui::logged_in(&api.gateway, &api.tokens.write)).collect();
    let mut times = Vec::new();
    for i in 0..20_usize {
        let age = (200 + i).to_string();
        let fields = [("allow_origins", "https://a.example"), ("max_age", age.as_str()), ("save", "1")];
        let begin = Instant::now();
        let saved = pages[i % 3].submit("/ui/cors_policies/app", &fields);
        assert!(saved.text().contains("It is active") || saved.status == 303, "{} {}", saved.status, saved.text());
        for api in &apis {
            let found = poll(CHANGE_TIMEOUT, || (max_age(&api.gateway) == Some(age.clone())).then_some(()));
            assert!(found.is_some(), "{:?}", max_age(&api.gateway));
        }
        times.push(begin.elapsed());
    }
    times.sort();
    println!("a change by the page in three processes: median {:?}, worst {:?}", times[10], times[19]);
    assert_eq!(value(&etcd, "cors_policies/app"), POLICY.replace("60   #", "219   #") + "\n", "comments stay");
}

#[test]
fn objects_of_each_kind_are_created_changed_and_deleted() {
    let (etcd, [api]) = started();
    #[rustfmt::skip]
    let rows: [(Request<'_>, u16, &str, &str); 12] = [
        (("PUT", "/origin_sets/partners", &[YAML], "[https://b.example]"), 201, "origin_sets/partners", "- https://b.example\n\n"),
        (("PUT", "/upstreams/node", &[YAML], "nodes: [{ address: '127.0.0.1:9' }]"), 201, "upstreams/node", "nodes:\n- address: 127.0.0.1:9\n\n"),
        (("PUT", "/services/web", &[YAML], "{ hosts: [web.test], upstream: node }"), 201, "services/web", "hosts:\n- web.test\nupstream: node\n\n"),
        // Comments stay.
        (("PUT", "/cors_policies/app", &[YAML], "{ allow_origins: [https://a.example], allow_origin_sets: [partners] }"), 200, "cors_policies/app",
            "# Of the shop.\nallow_origins: [https://a.example]\nallow_origin_sets:\n  - partners\n\n"),
        (("PUT", "/services/web/routes/old", &[YAML], "{ paths: [/old/*], cors: false }"), 201, "services/web",
            "hosts:\n- web.test\nupstream: node\nroutes:\n  - { name: old, paths: [\"/old/*\"], cors: false }\n\n"),
        // Refused: the values stay.
        (("DELETE", "/upstreams/node", &[], ""), 409, "upstreams/node", "nodes:\n- address: 127.0.0.1:9\n\n"),
        (("PUT", "/origin_sets/partners", &[YAML], "[https://b.example/]"), 422, "origin_sets/partners", "- https://b.example\n\n"),
        (("PUT", "/services/v", &[YAML], "{ upstream: node, upstream_host: '${HOST}' }"), 422, "services/v", ""),
        (("PUT", "/services/a%2Fb", &[YAML], "{ upstream: node }"), 422, "services/a/b", ""),
        (("DELETE", "/services/none", &[], ""), 404, "services/none", ""),
        (("DELETE", "/services/web", &[], ""), 200, "services/web", ""),
        (("DELETE", "/upstreams/node", &[], ""), 200, "upstreams/node", ""),
    ];
    for (request, status, name, expected) in rows {
        let response = api.ask(request);
        assert_eq!(response.status, status, "{request:?}: {}", response.text());
        assert_eq!(value(&etcd, name), expected, "{request:?}");
        if status < 400 && request.0 == "PUT" {
            let again = api.ask(("GET", request.1, &[], ""));
            assert_eq!(again.header("ETag"), response.header("ETag"), "{request:?}");
        }
    }
    // A dry run writes nothing.
    let before = etcd.revision_of(&key("cors_policies/app"));
    let response = api.ask(("PATCH", "/cors_policies/app?dry_run=true", &[PATCH], "{\"max_age\": 5}"));
    assert_eq!((response.status, json_of(&response)["applied"].clone()), (200, json!(false)));
    assert_eq!(etcd.revision_of(&key("cors_policies/app")), before);
}

#[test]
fn of_concurrent_writers_in_three_processes_none_is_lost() {
    let (_etcd, apis) = started::<3>();
    let one = |api: &Api, name: &str| loop {
        let read = api.ask(("GET", "/cors_policies/app", &[], ""));
        let etag = read.header("ETag").expect("an ETag").to_owned();
        let mut exposed: Vec<Value> = json_of(&read)["expose_headers"].as_array().cloned().unwrap_or_default();
        exposed.push(json!(name));
        let patch = json!({ "expose_headers": exposed }).to_string();
        let response = api.ask(("PATCH", "/cors_policies/app", &[PATCH, ("If-Match", &etag)], &patch));
        match response.status {
            200 => break,
            409 | 412 => {}
            _ => panic!("{}", response.text()),
        }
    };
    thread::scope(|scope| {
        for (i, api) in apis.iter().enumerate() {
            scope.spawn(move || (0..6).for_each(|n| one(api, &format!("X-{i}-{n}"))));
        }
    });
    // The last change may be of another process.
    let names = || -> BTreeSet<String> {
        let exposed = apis[0].get("/cors_policies/app")["expose_headers"].clone();
        exposed.as_array().unwrap().iter().map(|name| name.as_str().unwrap().into()).collect()
    };
    let found = poll(CHANGE_TIMEOUT, || (names().len() == 18).then_some(()));
    assert!(found.is_some(), "{:?}", names());
}

#[test]
fn a_refused_value_is_replaced() {
    let (etcd, [api]) = started();
    etcd.put(&key("cors_policies/app"), "allow_origins: https://a.example/");
    let refused = || api.gateway.metric("corsgate_etcd_refused_keys") == 1;
    poll(CHANGE_TIMEOUT, || refused().then_some(())).expect("the value is refused");
    assert_eq!(api.get("/cors_policies/app")["max_age"], 60, "the value in use");
    let response = api.ask(("PATCH", "/cors_policies/app", &[PATCH], "{\"max_age\": 7}"));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(api.gateway.metric("corsgate_etcd_refused_keys"), 0);
    assert_eq!(max_age(&api.gateway).as_deref(), Some("7"));
}

#[test]
fn without_etcd_nothing_is_written_and_the_response_says_so() {
    let (mut etcd, [api]) = started();
    etcd.kill();
    let begin = Instant::now();
    let response = api.ask(("PATCH", "/cors_policies/app", &[PATCH], "{\"max_age\": 7}"));
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(["source_away", "not_confirmed"].contains(&&*code(&response)), "{}", response.text());
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(api.get("/cors_policies/app")["max_age"], 60);
    etcd.restart();
    let changed = poll(Duration::from_secs(30), || {
        let response = api.ask(("PATCH", "/cors_policies/app", &[PATCH], "{\"max_age\": 8}"));
        (response.status == 200).then_some(())
    });
    assert!(changed.is_some(), "writes work again");
    assert_eq!(max_age(&api.gateway).as_deref(), Some("8"));
}

#[test]
fn a_user_that_may_not_write_gets_an_error_that_says_so() {
    let authority = Authority::new("etcd");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("ca.crt"), authority.pem()).unwrap();
    for (name, text) in authority.issue(&["127.0.0.1", "localhost"]).files("member") {
        fs::write(path(&name), text).unwrap();
    }
    let tls = EtcdTls { ca: path("ca.crt"), certificate: path("member.crt"), key: path("member.key") };
    let mut etcd = Etcd::start_with_tls(&tls);
    etcd.put(&key("services/api"), "{ respond: { status: 200 } }");
    etcd.ctl(&["user", "add", "root:root-password"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["role", "add", "reader"]);
    etcd.ctl(&["role", "grant-permission", "reader", "--prefix=true", "read", &key("")]);
    etcd.ctl(&["user", "add", "reader:secret"]);
    etcd.ctl(&["user", "grant-role", "reader", "reader"]);
    etcd.ctl(&["auth", "enable"]);
    etcd.log_in("root", "root-password");
    fs::write(path("password"), "secret").unwrap();
    let folder = folder.path().display();
    let more = format!(
        ", user: reader, password_file: {folder}/password, tls: {{ ca: {folder}/ca.crt, certificate: {folder}/member.crt, key: {folder}/member.key }}"
    );
    let tokens = Tokens::new();
    let api = Api { gateway: start(&etcd, &tokens, &more), tokens };
    let response = api.ask(("PUT", "/services/web", &[YAML], "{ hosts: [web.test], respond: { status: 200 } }"));
    assert_eq!((response.status, code(&response).as_str()), (409, "source_read_only"), "{}", response.text());
    assert!(response.text().contains("its user may not write these keys"), "{}", response.text());
}

//! Tests of `corsgate learn`, which prints the smallest policies that cover the requests of pages.
//!
//! The requests are repeated until the command ends, so the tests do not depend on the start of the observation.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, Output, run, run_in};
use crate::support::upstream::{Reply, Upstream};

const APP: &str = "https://app.example";
const SHOP: &str = "https://shop.example";
const RARE: &str = "https://rare.example";
const EVIL: &str = "https://evil.example";

/// A request of a page: host, method, path, header fields.
type Asked<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Requests that a learned policy must allow.
const COVERED: [Asked<'static>; 8] = [
    ("public.test", "GET", "/a", &[("Origin", APP)]),
    ("public.test", "POST", "/b", &[("Origin", SHOP), ("Sec-Fetch-Mode", "cors")]),
    ("public.test", "PUT", "/a", &[("Origin", APP), ("Cookie", "a=b")]),
    (
        "public.test",
        "OPTIONS",
        "/a",
        &[
            ("Origin", APP),
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "authorization,content-type,x-a#b"),
        ],
    ),
    ("public.test", "OPTIONS", "/a", &[("Origin", SHOP), ("Access-Control-Request-Method", "QUERY")]),
    ("public.test", "GET", "/a", &[("Origin", "http://localhost:3000")]),
    ("members.test", "GET", "/a", &[("Origin", APP), ("Cookie", "session=1")]),
    (
        "members.test",
        "OPTIONS",
        "/a",
        &[("Origin", APP), ("Access-Control-Request-Method", "PATCH"), ("Access-Control-Request-Headers", "X-Csrf")],
    ),
];

/// Requests that need no entry in a policy.
const NOT_COVERED: [Asked<'static>; 11] = [
    ("public.test", "GET", "/a", &[("Origin", "null")]),
    ("public.test", "GET", "/a", &[("Origin", "https://*.example")]),
    ("public.test", "GET", "/a", &[("Origin", "HTTPS://UPPER.example")]),
    ("public.test", "GET", "/a", &[("Origin", "https://a.example, https://b.example")]),
    ("public.test", "GET", "/a", &[("Origin", "http://public.test")]),
    ("public.test", "POST", "/a", &[("Origin", "https://pay.example"), ("Sec-Fetch-Mode", "navigate")]),
    ("public.test", "GET", "/a", &[]),
    ("public.test", "OPTIONS", "/a", &[("Origin", APP), ("Access-Control-Request-Method", "*")]),
    (
        "public.test",
        "OPTIONS",
        "/a",
        &[("Origin", APP), ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "*, cookie")],
    ),
    ("members.test", "GET", "/a", &[("Origin", EVIL)]),
    ("raw.test", "GET", "/a", &[("Origin", EVIL)]),
];

const POLICIES: &str = "cors_policies:
  pages:
    allow_origins: '*'
    allow_headers: ['*', Authorization]
    expose_headers: [X-Total]
    max_age: 600
    preflight: { status: 204 }
  members:
    allow_origins: [https://app.example, https://old.example]
    allow_origins_by_regex: 'https://[a-z]+\\.app\\.example'
    allow_methods: [PATCH, DELETE]
    allow_headers: [X-Csrf, X-Other]
    allow_credentials: true
    max_age: 600
";

fn config(upstream: &Upstream, policies: &str) -> String {
    format!(
        "listeners: [{{ address: '{{listen}}' }}]
admin: {{ address: '{{admin}}' }}
access_log: {{ to: access.log, format: json }}
upstreams: {{ origin: {{ nodes: [{{ address: '{}' }}] }} }}
services:
  - {{ name: public, hosts: [public.test], upstream: origin, cors: pages }}
  - name: members
    hosts: [members.test]
    upstream: origin
    cors: members
    routes: [{{ name: all, paths: [/*] }}]
  - {{ name: raw, hosts: [raw.test], upstream: origin, cors: false }}
{policies}",
        upstream.address()
    )
}

fn start() -> (Upstream, Gateway) {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(&upstream, POLICIES));
    (upstream, gateway)
}

fn send(address: SocketAddr, (host, method, path, fields): Asked<'_>) -> Response {
    fetch(address, method, path, &[&[("Host", host)], fields].concat())
}

/// Runs `learn`, and repeats the requests until it ends.
fn learn_from(gateway: &Gateway, requests: &[Asked<'_>], options: &[&str]) -> Output {
    let admin = format!("http://{}", gateway.admin());
    thread::scope(|scope| {
        let learn = scope.spawn(|| run(&[&["learn", "--admin", &admin, "--for", "4s"], options].concat()));
        while !learn.is_finished() {
            requests.iter().for_each(|asked| _ = send(gateway.address(), *asked));
        }
        learn.join().unwrap()
    })
}

fn all() -> Vec<Asked<'static>> {
    COVERED.into_iter().chain(NOT_COVERED).collect()
}

fn policy<'v>(learned: &'v Value, name: &str) -> &'v Value {
    let policies = learned["policies"].as_array().unwrap();
    policies.iter().find(|policy| policy["name"] == name).unwrap_or_else(|| panic!("{learned:#}"))
}

#[test]
fn the_learned_policies_allow_what_was_seen_and_nothing_else() {
    let (upstream, gateway) = start();
    let learned = learn_from(&gateway, &all(), &[]);
    assert_eq!((learned.code, learned.stderr.as_str()), (0, ""), "{}", learned.stdout);
    let pasted = config(&upstream, &learned.stdout);
    gateway.reload_with(&pasted);
    gateway.wait_for_log("reloaded generation=2");
    let checked = run_in(gateway.dir(), &["check", "--deny-warnings", "--config", "corsgate.yaml"]);
    assert_eq!(checked.code, 0, "{}\n{pasted}", checked.stdout);
    for asked in COVERED {
        let response = send(gateway.address(), asked);
        let (_, method, _, fields) = asked;
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some(fields[0].1), "{asked:?}\n{}", learned.stdout);
        let listed = |name: &str| response.header(name).unwrap_or_default().to_lowercase();
        if method == "OPTIONS" {
            assert!(listed("Access-Control-Allow-Methods").contains(&fields[1].1.to_lowercase()), "{asked:?}");
            for name in fields.get(2).iter().flat_map(|(_, names)| names.split(',')) {
                assert!(listed("Access-Control-Allow-Headers").contains(&name.to_lowercase()), "{asked:?}");
            }
        }
    }
    for (host, origin, allowed) in [
        ("public.test", APP, true),
        ("public.test", "https://pay.example", false),
        ("public.test", "https://x.example", false),
        ("public.test", "null", false),
        ("members.test", SHOP, false),
        ("members.test", "https://old.example", false),
        ("members.test", "https://x.app.example", false),
    ] {
        let response = send(gateway.address(), (host, "GET", "/a", &[("Origin", origin)]));
        assert_eq!(response.header("Access-Control-Allow-Origin").is_some(), allowed, "{host} {origin}");
    }
    let members = send(gateway.address(), COVERED[7]);
    assert_eq!(members.header("Access-Control-Allow-Credentials"), Some("true"));
    assert_eq!(members.header("Access-Control-Allow-Methods"), Some("PATCH"));
    let public = send(gateway.address(), COVERED[3]);
    assert_eq!((public.status, public.header("Access-Control-Max-Age")), (204, Some("600")), "taken over");
    assert_eq!(public.header("Access-Control-Expose-Headers"), Some("X-Total"), "taken over");
    assert_eq!(public.header("Access-Control-Allow-Credentials"), None);
    assert_eq!(public.header("Access-Control-Allow-Methods"), Some("PUT, QUERY"));
}

#[test]
fn what_is_left_out_is_listed_with_the_reason() {
    let (_upstream, gateway) = start();
    let learned = learn_from(&gateway, &all(), &["--format", "json"]);
    let learned: Value = serde_json::from_str(&learned.stdout).unwrap();
    let pages = policy(&learned, "pages");
    let left_out: Vec<Value> = pages["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left_out| json!([left_out["kind"], left_out["value"], left_out["why"], left_out["needs"]]))
        .collect();
    for expected in [
        json!(["origin", "null", "needs_danger", "null_origin"]),
        json!(["origin", "https://*.example", "not_from_browsers", null]),
        json!(["origin", "HTTPS://UPPER.example", "not_from_browsers", null]),
        json!(["origin", "https://pay.example", "needs_no_permission", null]),
        json!(["method", "*", "not_from_browsers", null]),
        json!(["header", "*", "not_from_browsers", null]),
        json!(["header", "cookie", "not_from_browsers", null]),
    ] {
        assert!(left_out.contains(&expected), "{expected}: {left_out:#?}");
    }
    assert_eq!(left_out.len(), 7, "{left_out:#?}");
    let count = |value: &Value| value.as_u64().unwrap();
    assert!(count(&learned["same_origin"]) > 0 && count(&learned["invalid_origins"]) > 0);
    let members = policy(&learned, "members");
    assert_eq!(members["refused"][0]["origin"], EVIL);
    assert!(count(&members["refused"][0]["reasons"]["origin_not_allowed"]) > 0);
    let unused: Vec<&str> =
        members["unused"].as_array().unwrap().iter().map(|unused| unused["entry"].as_str().unwrap()).collect();
    assert_eq!(unused, ["https://old.example", "DELETE", "X-Other"]);
    assert_eq!(members["routes"], json!(["members/all"]));
    assert!(!learned.to_string().contains("raw"), "a route without a policy is not observed");
}

#[test]
fn rare_values_are_left_out() {
    let (_upstream, gateway) = start();
    let rare = ("public.test", "DELETE", "/a", &[("Origin", RARE)][..]);
    let requests = [[COVERED[2]; 12].as_slice(), &[COVERED[1], rare]].concat();
    requests.iter().for_each(|asked| _ = send(gateway.address(), *asked));
    gateway.wait_for_access_log(requests.len());
    for (min_count, kept, left_out) in [("1", 3, 0), ("2", 1, 2), ("12", 1, 2), ("13", 0, 3)] {
        let arguments = ["learn", "--config", "corsgate.yaml", "--access-log", "access.log", "--min-count", min_count];
        let learned = run_in(gateway.dir(), &arguments);
        let count = |text: &str| learned.stdout.matches(text).count();
        assert_eq!((count("      - http"), count("#   origin http")), (kept, left_out), "{}", learned.stdout);
        assert_eq!(count("- DELETE"), usize::from(min_count == "1"), "a method of {RARE}: {}", learned.stdout);
        assert_eq!(learned.code, i32::from(kept == 0));
    }
}

#[test]
fn only_the_named_routes_are_observed() {
    let (_upstream, gateway) = start();
    let learned = learn_from(&gateway, &all(), &["--format", "json", "--route", "members/all"]);
    let learned: Value = serde_json::from_str(&learned.stdout).unwrap();
    let names: Vec<&Value> = learned["policies"].as_array().unwrap().iter().map(|policy| &policy["name"]).collect();
    assert_eq!(names, ["members"]);
}

#[test]
fn the_access_log_gives_origins_and_methods() {
    let (_upstream, gateway) = start();
    all().into_iter().for_each(|asked| _ = send(gateway.address(), asked));
    let lines = gateway.wait_for_access_log(all().len());
    let mut log = lines.join("\n");
    log.push_str("\nnot JSON\n{\"reason\":\"allowed_any\"}\n");
    log.push_str(&"x".repeat(200_000));
    log.push_str("\n\u{1b}[2J\n");
    log.push_str(&lines[0].replace("\"public\"", "\"gone\""));
    fs::write(gateway.dir().join("copy.log"), &log).unwrap();
    let arguments = ["learn", "--config", "corsgate.yaml", "--format", "json", "--access-log"];
    let learned = run_in(gateway.dir(), &[&arguments[..], &["copy.log"]].concat());
    assert_eq!((learned.code, learned.stderr.as_str()), (0, ""));
    let value: Value = serde_json::from_str(&learned.stdout).unwrap();
    assert_eq!(value["log"]["unknown_routes"], 1);
    assert!(value["log"]["malformed"].as_u64().unwrap() >= 4, "{:#}", value["log"]);
    let origins = |name: &str| -> Vec<String> {
        let origins = policy(&value, name)["origins"].as_array().unwrap();
        origins.iter().map(|seen| seen["origin"].as_str().unwrap().to_owned()).collect()
    };
    // The log does not show that a form sent the request from pay.example.
    let public = [APP, SHOP, "http://localhost:3000", "https://pay.example"];
    assert_eq!(origins("pages"), public);
    assert_eq!(origins("members"), [APP]);
    let settings = &policy(&value, "pages")["policy"];
    assert_eq!(settings["allow_methods"], json!(["PUT"]), "preflights are logged without their method");
    assert_eq!(settings["allow_headers"], json!(["*", "Authorization"]), "unchanged");
    assert_eq!(policy(&value, "members")["policy"]["allow_credentials"], true, "unchanged");
    // The same log from stdin.
    let mut process = Command::new(env!("CARGO_BIN_EXE_corsgate"));
    let file = fs::File::open(gateway.dir().join("copy.log")).unwrap();
    let stdin = process.args(arguments).arg("-").current_dir(gateway.dir()).stdin(Stdio::from(file)).output().unwrap();
    let stdin: Value = serde_json::from_slice(&stdin.stdout).unwrap();
    assert_eq!((&stdin["policies"], &stdin["from"]), (&value["policies"], &json!("stdin")));
    let text = run_in(gateway.dir(), &["learn", "--config", "corsgate.yaml", "--access-log", "copy.log"]);
    assert!(text.stdout.contains("# The access log has no requested headers"), "{}", text.stdout);
}

#[test]
fn a_reload_ends_the_counting() {
    let (upstream, gateway) = start();
    let admin = format!("http://{}", gateway.admin());
    let learned = thread::scope(|scope| {
        let learn = scope.spawn(|| run(&["learn", "--admin", &admin, "--for", "4s", "--format", "json"]));
        let begin = Instant::now();
        let mut reloads = 0;
        while !learn.is_finished() {
            _ = send(gateway.address(), COVERED[0]);
            if begin.elapsed() > Duration::from_secs(2) && reloads == 0 {
                gateway.reload_with(&config(&upstream, POLICIES));
                reloads += 1;
            }
        }
        learn.join().unwrap()
    });
    let learned: Value = serde_json::from_str(&learned.stdout).unwrap();
    assert!(learned["other_generation"].as_u64().unwrap() > 0, "{learned:#}");
}

#[test]
fn an_observation_ends_when_its_client_leaves() {
    const HOST: &[(&str, &str)] = &[("Host", "localhost")];
    const WINDOW: &str = "GET /observe?for=1h HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (_upstream, gateway) = start();
    let mut observe = || fetch(gateway.admin(), "GET", "/observe?for=1s", HOST);
    let until = |status: u16, what: &mut dyn FnMut() -> Response| {
        let begin = Instant::now();
        loop {
            let response = what();
            if response.status == status {
                return response;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{status}: {}", response.text());
        }
    };
    let begin = || {
        let mut connection = Connection::open(gateway.admin()).unwrap();
        connection.send(WINDOW.as_bytes()).unwrap();
        // These requests give the gateway time to read the request, even on a busy machine.
        (0..20).for_each(|_| assert_eq!(fetch(gateway.admin(), "GET", "/livez", HOST).status, 200));
        connection
    };
    let mut connection = begin();
    let busy = until(409, &mut || {
        let response = observe();
        if response.status == 200 {
            // This observation was first, so the other request was refused. It is sent again.
            connection = begin();
        }
        response
    });
    assert!(busy.text().contains("Another observation is running"), "{}", busy.text());
    let refused = run(&["learn", "--admin", &gateway.admin().to_string()]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("Another observation is running"), "{}", refused.stderr);
    assert_eq!(fetch(gateway.admin(), "GET", "/readyz", HOST).status, 200, "other pages are served meanwhile");
    drop(connection);
    until(200, &mut observe);
    for (method, query, host, status) in [
        ("HEAD", "", "localhost", 405),
        ("GET", "?for=1s", "evil.test", 403),
        ("GET", "?for=25h", "localhost", 400),
        ("GET", "?route=nothing", "localhost", 400),
        ("GET", "?route=raw", "localhost", 400),
    ] {
        let response = fetch(gateway.admin(), method, &format!("/observe{query}"), &[("Host", host)]);
        assert_eq!(response.status, status, "{method} {query} {host}");
    }
}

#[test]
fn each_failure_has_its_exit_code_and_its_reason() {
    let (upstream, gateway) = start();
    let old = Upstream::start(|_| Reply::new(404).header("Server", "corsgate-admin").body("/metrics\n"));
    let [admin, other, old] = [gateway.admin(), upstream.address(), old.address()].map(|address| address.to_string());
    for (arguments, code, reason) in [
        (&["--admin", &*admin, "--for", "1s"][..], 1, ""),
        (&["--admin", &admin, "--route", "nothing"], 2, "No route nothing with a policy"),
        (&["--admin", &other, "--for", "1s"], 2, "is not an admin listener"),
        (&["--admin", &old, "--for", "1s"], 2, "is too old for `learn`"),
        (&["--admin", "https://127.0.0.1:1"], 2, "the admin listener uses plain http"),
        (&["--admin", "http://127.0.0.1:1"], 2, "cannot ask http://127.0.0.1:1"),
        (&["--admin", &admin, "--for", "25h"], 2, "write a duration from 1s to 24h"),
        (&["--admin", &admin, "--for", "60"], 2, "write a duration from 1s to 24h"),
        (&["--admin", &admin, "--access-log", "x"], 2, "cannot be used with"),
        (&["--admin", &admin, "--config", "corsgate.yaml"], 2, "`--config` is for `--access-log`"),
        (&["--access-log", "nothing.log", "--config", "corsgate.yaml"], 2, "cannot read nothing.log"),
        (&["--access-log", "corsgate.yaml", "--config", "nothing.yaml"], 2, "cannot read nothing.yaml"),
        (&["--access-log", "corsgate.yaml", "--config", "corsgate.yaml", "--route", "x"], 2, "has no route x"),
        (&["--access-log", "corsgate.yaml", "--config", "corsgate.yaml"], 1, ""),
    ] {
        let output = run_in(gateway.dir(), &[&["learn"], arguments].concat());
        assert_eq!(output.code, code, "{arguments:?}\n{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains(reason), "{arguments:?}\n{}", output.stderr);
        assert_eq!(output.stdout.contains("No policy: no allowed request needs one."), code == 1);
    }
}

//! The admin listener: its pages, its limits, and the requests that it refuses.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{Response, fetch};
use crate::support::gateway::{Gateway, run};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ALLOWED: (&str, &str) = ("Origin", "https://app.test");
const ADMIN: (&str, &str) = ("Host", "127.0.0.1:9180");
const PAGES: [&str; 5] = ["/", "/metrics", "/config", "/routes", "/refusals"];

/// Method, path, header fields, and the expected reason.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

fn config(upstream: &Upstream) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
upstreams: {{ origin: {{ nodes: [{{ address: \"{}\" }}] }} }}
services:
  - name: api
    hosts: [api.test]
    upstream: origin
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT], allow_headers: [X-A], max_age: 60 }}
    routes:
      - {{ name: orders, paths: [/orders/*] }}
      - {{ name: raw, paths: [/raw], cors: false }}
",
        upstream.address()
    )
}

fn start() -> (Upstream, Gateway) {
    let upstream = Upstream::start(|_| Reply::new(200).header("X-Corsgate-Reason", "mine"));
    let gateway = Gateway::start(&config(&upstream));
    (upstream, gateway)
}

fn ask(gateway: &Gateway, path: &str) -> Response {
    fetch(gateway.admin(), "GET", path, &[ADMIN])
}

fn json(gateway: &Gateway, path: &str) -> Value {
    let response = ask(gateway, path);
    assert_eq!((response.status, response.header("Content-Type")), (200, Some("application/json")), "{path}");
    serde_json::from_str(response.text()).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Waits until `count` refused requests are kept, and returns them.
#[track_caller]
fn refusals(gateway: &Gateway, count: usize) -> Vec<Value> {
    refusals_when(gateway, |all| all.len() == count)
}

/// Waits until the refused requests meet the condition, and returns them. A request is recorded after it has ended, so
/// the client may be faster.
#[track_caller]
fn refusals_when(gateway: &Gateway, come: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // A refused request that ends during a read of the list is only counted. This pause lets it end first.
        std::thread::sleep(Duration::from_millis(20));
        let all = json(gateway, "/refusals").as_array().cloned().unwrap();
        if come(&all) {
            return all;
        }
        assert!(Instant::now() < deadline, "{}: {all:#?}", all.len());
    }
}

/// A preflight for DELETE from an origin that is not allowed.
fn refused_preflight(gateway: &Gateway, origin: &str) -> Response {
    let fields = [HOST, ("Origin", origin), ("Access-Control-Request-Method", "DELETE")];
    fetch(gateway.address(), "OPTIONS", "/orders/7", &fields)
}

#[test]
fn foreign_hosts_and_cross_site_requests_get_403() {
    let (_upstream, gateway) = start();
    let refused: [&[(&str, &str)]; 5] = [
        &[("Host", "evil.test")],
        &[("Host", "127.0.0.1.evil.test:9180")],
        &[ADMIN, ("Sec-Fetch-Site", "cross-site")],
        &[ADMIN, ("Origin", "https://evil.test")],
        &[ADMIN, ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "navigate")],
    ];
    for path in PAGES.into_iter().chain(["/refusals/x", "/nothing"]) {
        for fields in refused {
            let response = fetch(gateway.admin(), "GET", path, fields);
            assert_eq!(response.status, 403, "{path} {fields:?}");
            assert!(!response.text().contains("api"), "{path} {fields:?}: {}", response.text());
        }
    }
    for path in PAGES {
        assert_eq!(ask(&gateway, path).status, 200, "{path}");
        assert_eq!(fetch(gateway.admin(), "POST", path, &[ADMIN]).status, 405, "{path}");
    }
    // Health checks may send any Host.
    for path in ["/livez", "/readyz"] {
        assert_eq!(fetch(gateway.admin(), "GET", path, &[("Host", "evil.test")]).text(), "ok\n");
    }
    assert!(ask(&gateway, "/nothing").text().contains("/metrics"));
}

#[test]
fn a_reload_adds_an_admin_host() {
    let (upstream, gateway) = start();
    let named = |gateway: &Gateway| fetch(gateway.admin(), "GET", "/routes", &[("Host", "corsgate.internal:9180")]);
    assert!(named(&gateway).text().contains("admin: { hosts: [NAME] }"));
    let admin = "admin: { hosts: [corsgate.internal], address:";
    gateway.reload_with(&config(&upstream).replace("admin: { address:", admin));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(named(&gateway).status, 200);
    assert!(!gateway.stderr().contains("needs a restart"), "{}", gateway.stderr());
}

#[test]
fn the_json_pages_show_the_configuration_in_force() {
    let (_upstream, gateway) = start();
    let path = gateway.config_path();
    let path = path.to_str().unwrap();
    let checked = run(&["check", "--effective", "--format", "json", "--config", path]);
    assert_eq!(json(&gateway, "/routes"), serde_json::from_str::<Value>(&checked.stdout).unwrap());
    let config = json(&gateway, "/config");
    let text = std::fs::read(path).unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, &text);
    let hash = hash.as_ref().iter().fold(String::new(), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    assert_eq!((&config["file"], &config["sha256"], &config["generation"]), (&path.into(), &hash.into(), &1.into()));
    assert_eq!(config["routes"], json(&gateway, "/routes"));
    // Keys that are not in the file have their defaults.
    assert_eq!(config["config"]["limits"]["uri"], "8KiB");
    assert_eq!(config["config"]["upstreams"]["origin"]["timeouts"]["connect"], "2s");
    let read = config["read"].as_str().unwrap();
    assert!(read.len() == 20 && read.ends_with('Z'), "{read}");
    // A refused file does not become active.
    gateway.reload_with("listeners: [{ address: \"{listen}\" }]\nnonsense: true\n");
    gateway.wait_for_log("reload refused");
    assert_eq!(json(&gateway, "/config"), config);
}

#[test]
fn the_paths_of_private_keys_are_redacted() {
    let certificate = crate::support::certificates::Authority::new("authority").issue(&["api.test"]);
    let listener =
        "listeners: [{ address: \"{listen}\", tls: { certificates: [{ cert: secret.crt, key: secret.key }] } }]";
    let upstream = Upstream::start(|_| Reply::new(200));
    let config = config(&upstream).replace("listeners: [{ address: \"{listen}\" }]", listener);
    let gateway = Gateway::start_with_files(&config, &certificate.files("secret"));
    let config = json(&gateway, "/config");
    let pair = &config["config"]["listeners"][0]["tls"]["certificates"][0];
    assert_eq!((&pair["cert"], &pair["key"]), (&"secret.crt".into(), &"[redacted]".into()));
    for path in PAGES {
        let page = ask(&gateway, path);
        assert!(!page.text().contains("secret.key") && !page.text().contains("PRIVATE KEY"), "{path}");
    }
    assert!(ask(&gateway, "/").text().contains("api.test"), "the names of certificates are shown");
}

#[test]
fn refused_requests_are_kept_with_their_ids() {
    let (_upstream, gateway) = start();
    let mine = ("X-Request-Id", "mine-1");
    let fields = [
        HOST,
        mine,
        ("Origin", "https://admin.test"),
        ("Access-Control-Request-Method", "DELETE"),
        ("Access-Control-Request-Headers", "x-a,x-b"),
    ];
    // Wait for each request: on separate connections, an earlier request may end later.
    fetch(gateway.address(), "OPTIONS", "/orders/7?token=secret", &fields);
    refusals(&gateway, 1);
    fetch(gateway.address(), "GET", "/orders/7", &[HOST, ("Origin", "null"), ("Cookie", "session=secret")]);
    refusals(&gateway, 2);
    fetch(gateway.address(), "GET", "/elsewhere", &[HOST, ALLOWED]);
    // These requests are not refused, so they are not in the list.
    fetch(gateway.address(), "GET", "/orders/7", &[HOST, ALLOWED]);
    fetch(gateway.address(), "GET", "/orders/7", &[HOST]);
    fetch(gateway.address(), "GET", "/raw", &[HOST, ("Origin", "https://admin.test")]);
    let refusals = refusals(&gateway, 3);
    let facts = |n: usize| {
        let refusal = &refusals[n];
        ["method", "path", "origin", "cors", "reason", "route"]
            .map(|key| refusal[key].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(facts(0), ["GET", "/elsewhere", "https://app.test", "actual", "unknown_path", "-"]);
    assert_eq!(facts(1), ["GET", "/orders/7", "null", "actual", "origin_null", "api/orders"]);
    let preflight = ["OPTIONS", "/orders/7", "https://admin.test", "preflight", "origin_not_allowed", "api/orders"];
    assert_eq!(facts(2), preflight);
    assert_eq!(refusals[1]["credentials"], true);
    assert_eq!(refusals[2]["request_id"], "mine-1");
    assert_eq!(
        (&refusals[2]["requested_method"], &refusals[2]["requested_headers"]),
        (&"DELETE".into(), &"x-a,x-b".into())
    );
    assert!(!ask(&gateway, "/refusals").text().contains("secret"), "{refusals:#?}");
}

#[test]
fn refused_requests_are_bounded_and_scanners_do_not_displace_those_of_pages() {
    let (_upstream, gateway) = start();
    refused_preflight(&gateway, "https://admin.test");
    let mut scanner = crate::support::client::Connection::open(gateway.address()).unwrap();
    for i in 0..700 {
        let target = format!("/wp-{i}");
        scanner.request("GET", &target, &[HOST], b"").unwrap();
    }
    // 128 requests without an Origin, and one with an Origin.
    let remembered = refusals_when(&gateway, |all| all[0]["path"] == "/wp-699");
    assert_eq!(remembered.len(), 129);
    assert_eq!(remembered[128]["origin"], "https://admin.test");
    for i in 0..700 {
        let origin = format!("https://o{i}.test");
        scanner.request("GET", "/orders/1", &[HOST, ("Origin", &origin)], b"").unwrap();
    }
    let remembered = refusals_when(&gateway, |all| all[0]["origin"] == "https://o699.test");
    assert_eq!(remembered.len(), 512);
    assert!(!remembered.iter().any(|refusal| refusal["origin"] == "https://admin.test"));
}

#[test]
fn the_status_page_is_complete_and_loads_no_other_resource() {
    let (upstream, gateway) = start();
    let page = ask(&gateway, "/");
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("No refused requests."));
    for _ in 0..3 {
        refused_preflight(&gateway, "https://admin.test");
    }
    refusals(&gateway, 3);
    gateway.reload_with("listeners: [{ address: \"{listen}\" }]\nnonsense: true\n");
    gateway.wait_for_log("reload refused");
    let page = ask(&gateway, "/");
    let text = page.text();
    let shown = [
        "ready".to_owned(),
        "last reload refused".to_owned(),
        "origin_not_allowed".to_owned(),
        "3 requests".to_owned(),
        "unknown key `nonsense`".to_owned(),
        upstream.address().to_string(),
        gateway.address().to_string(),
        gateway.admin().to_string(),
        "api/orders".to_owned(),
        "cors: false".to_owned(),
        format!(
            "corsgate explain --config {} --origin=https://admin.test --method=DELETE http://api.test/orders/7",
            gateway.config_path().display()
        ),
    ];
    for words in shown {
        assert!(text.contains(&words), "{words}\n{text}");
    }
    for foreign in ["<script", "src=", "<link", "@import", "url("] {
        assert!(!text.contains(foreign), "{foreign}");
    }
    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert_eq!(page.header("X-Frame-Options"), Some("DENY"));
    assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
}

#[test]
fn the_status_page_shows_what_a_route_does_besides_cors() {
    let (upstream, gateway) = start();
    let routes = "
      - { name: admin, paths: [/admin/*], clients: { allow: [10.0.0.0/8] }, response_headers: { remove: [Server] } }
      - { name: gone, paths: [/v0/*], respond: { status: 410 } }
      - { name: raw,";
    gateway.reload_with(&config(&upstream).replace("\n      - { name: raw,", routes));
    gateway.wait_for_log("reloaded generation=2");
    let page = ask(&gateway, "/");
    let cell = |shown: &str| format!("data-label=\"upstream\">{shown}</td>");
    for shown in ["origin", "origin <span class=\"none\">clients, response_headers</span>", "respond 410"] {
        assert!(page.text().contains(&cell(shown)), "{shown}\n{}", page.text());
    }
    assert_eq!(fetch(gateway.address(), "GET", "/admin/x", &[HOST, ALLOWED]).status, 403);
    assert_eq!(refusals(&gateway, 1)[0]["reason"], "client_denied");
}

#[test]
fn the_status_page_shows_the_state_of_the_process_and_not_the_file() {
    let (upstream, gateway) = start();
    let moved = config(&upstream)
        .replace("{ address: \"{listen}\" }", "{ address: \"{listen2}\" }")
        .replace("nodes: [{", "nodes: [{ address: \"127.0.0.1:1\" }, {");
    gateway.reload_with(&moved);
    gateway.wait_for_log("reloaded generation=2");
    // At least one of the requests is sent to the node without a listener, and retried on the other node.
    let failed = || ask(&gateway, "/").text().contains("<td class=\"number bad\" data-label=\"failed attempts\">");
    for _ in 0..20 {
        assert_eq!(fetch(gateway.address(), "GET", "/orders/1", &[HOST, ALLOWED]).status, 200);
    }
    assert!(failed());
    let page = ask(&gateway, "/");
    assert!(page.text().contains("ConnectRefused: nothing listens there; start the node"), "{}", page.text());
    assert!(page.text().contains("restart required: listeners"), "{}", page.text());
    let listeners = page.text().split("<h2>Listeners</h2>").nth(1).unwrap().split("</section>").next().unwrap();
    assert!(listeners.contains(&gateway.address().to_string()), "{listeners}");
    assert!(!listeners.contains(&gateway.address2().to_string()), "{listeners}");
    assert!(listeners.contains("removed from the file"), "{listeners}");
    let shown = json(&gateway, "/config");
    assert_eq!(shown["needs_restart"], serde_json::json!(["listeners"]));
    assert_eq!(shown["listening"], serde_json::json!([gateway.address().to_string()]));
    assert!(ask(&gateway, "/metrics").text().contains("\ncorsgate_config_restart_required 1\n"));
    gateway.reload_with(&config(&upstream));
    gateway.wait_for_log("reloaded generation=3");
    assert!(!ask(&gateway, "/").text().contains("restart"));
    assert!(ask(&gateway, "/metrics").text().contains("\ncorsgate_config_restart_required 0\n"));
}

#[test]
fn the_status_page_escapes_client_input_for_html_and_for_the_shell() {
    let (_upstream, gateway) = start();
    for hostile in ["https://<script>alert(1)</script>", "https://x'$(reboot)`id`", "https://\"onload=x"] {
        let fields = [HOST, ("Origin", hostile), ("X-Request-Id", "<b>")];
        fetch(gateway.address(), "GET", "/orders/'img'", &fields);
    }
    refusals(&gateway, 3);
    let page = ask(&gateway, "/");
    for markup in ["<script", "<img", "<b>", "\"onload"] {
        assert!(!page.text().contains(markup), "{markup}\n{}", page.text());
    }
    // In single quotes a shell interprets nothing. The single quote itself is written outside of them.
    assert!(page.text().contains(r"--origin='https://x'\''$(reboot)`id`'"), "{}", page.text());
}

#[test]
fn the_debug_header_is_on_every_response() {
    let upstream = Upstream::start(|_| Reply::new(200).header("X-Corsgate-Reason", "mine"));
    let debugging = config(&upstream) + "debug_header: true\n";
    let gateway = Gateway::start(&debugging);
    let preflight = ("Access-Control-Request-Method", "DELETE");
    let cases: [Case; 6] = [
        ("GET", "/orders/1", &[HOST, ALLOWED], "allowed_exact"),
        ("GET", "/orders/1", &[HOST], "no_origin"),
        ("OPTIONS", "/orders/1", &[HOST, ALLOWED, preflight], "method_not_allowed"),
        ("OPTIONS", "/orders/1", &[HOST, ("Origin", "https://evil.test"), preflight], "origin_not_allowed"),
        ("GET", "/elsewhere", &[HOST, ALLOWED], "unknown_path"),
        ("GET", "/raw", &[HOST, ALLOWED], "no_policy"),
    ];
    for (method, path, fields, reason) in cases {
        let response = fetch(gateway.address(), method, path, fields);
        assert_eq!(response.all("X-Corsgate-Reason"), [reason], "{method} {path} {fields:?}");
        assert_eq!(response.all("X-Request-Id").len(), 1, "{method} {path} {fields:?}");
    }
    // The id in the response is the id of the refused request.
    let response = refused_preflight(&gateway, "https://evil.test");
    let id = response.header("X-Request-Id").unwrap();
    assert!(refusals(&gateway, 4).iter().any(|refusal| refusal["request_id"] == id));
    // Without `debug_header` the gateway adds neither field, and fields of the upstream pass.
    gateway.reload_with(&config(&upstream));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(refused_preflight(&gateway, "https://evil.test").header("X-Corsgate-Reason"), None);
    let response = fetch(gateway.address(), "GET", "/orders/1", &[HOST, ALLOWED]);
    assert_eq!((response.header("X-Corsgate-Reason"), response.header("X-Request-Id")), (Some("mine"), None));
}

#[test]
fn why_shows_the_reason_and_the_edit_for_a_refused_request() {
    let (upstream, gateway) = start();
    let admin = format!("http://{}", gateway.admin());
    let why = |id: &str, more: &[&str]| run(&[&["why", id, "--admin", &admin], more].concat());
    let fields = [
        HOST,
        ALLOWED,
        ("X-Request-Id", "job:7.a_b"),
        ("Access-Control-Request-Method", "DELETE"),
        ("Access-Control-Request-Headers", "x-a"),
    ];
    fetch(gateway.address(), "OPTIONS", "/orders/7", &fields);
    refusals(&gateway, 1);
    let output = why("job:7.a_b", &[]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    for words in [
        "request job:7.a_b, ",
        "method_not_allowed",
        "OPTIONS http://api.test/orders/7 from 127.0.0.1: status 200, route api/orders",
        "configuration generation 1, which is active",
        "  +    |     cors: { allow_origins: https://app.test, allow_methods: [GET, PUT, DELETE], allow_headers: [X-A], max_age: 60 }",
    ] {
        assert!(output.stdout.contains(words), "{words}\n{}", output.stdout);
    }
    let program: Value = serde_json::from_str(&why("job:7.a_b", &["--format", "json"]).stdout).unwrap();
    assert_eq!(program["request"]["reason"], "method_not_allowed");
    assert_eq!(program["explanation"]["reason"], "method_not_allowed");
    // After a reload, the explanation is about the active configuration, and the text contains its number.
    gateway.reload_with(&config(&upstream).replace("[GET, PUT]", "[GET, PUT, DELETE]"));
    gateway.wait_for_log("reloaded generation=2");
    let output = why("job:7.a_b", &[]);
    assert!(
        output.stdout.contains("generation 1; the explanation is for generation 2, which is active now"),
        "{}",
        output.stdout
    );
    let program: Value = serde_json::from_str(&why("job:7.a_b", &["--format", "json"]).stdout).unwrap();
    assert_eq!((&program["explanation"]["verdict"], &program["generation_in_force"]), (&"allowed".into(), &2.into()));
}

/// A client can send the id of another client's request.
#[test]
fn why_says_that_other_requests_have_the_same_id() {
    let (_upstream, gateway) = start();
    for (n, origin) in ["https://one.test", "https://two.test", "https://three.test"].into_iter().enumerate() {
        let fields = [HOST, ("Origin", origin), ("X-Request-Id", "shared"), ("Access-Control-Request-Method", "GET")];
        fetch(gateway.address(), "OPTIONS", "/orders/7", &fields);
        refusals(&gateway, n + 1);
        let text = ask(&gateway, "/refusals/shared").text().to_owned();
        let others = json(&gateway, "/refusals/shared?format=json")["others_with_this_id"].clone();
        assert!(text.contains(origin) && others == n, "{text}");
        let line = format!("refused requests with the same id, which a client chose: {n} more; this is the newest");
        assert_eq!(text.contains(&line), n > 0, "{text}");
    }
}

#[test]
fn why_explains_every_kind_of_refusal() {
    let (_upstream, gateway) = start();
    let admin = format!("http://{}", gateway.admin());
    let preflight = ("Access-Control-Request-Method", "PUT");
    let long = "x".repeat(4000);
    let requests: [Case; 9] = [
        ("GET", "/orders/1", &[HOST, ("Origin", "null")], "origin_null"),
        ("GET", "/orders/1", &[HOST, ALLOWED, ALLOWED], "origin_invalid"),
        ("GET", "/orders/1", &[HOST, ("Origin", "https://\u{202e}x"), ("Cookie", "a=b")], "origin_invalid"),
        ("GET", "/orders/1", &[HOST, ("Origin", "https://a.test, https://b.test")], "origin_invalid"),
        ("GET", "/elsewhere", &[HOST, ALLOWED], "unknown_path"),
        ("GET", "/orders/1", &[("Host", "nowhere.test"), ALLOWED], "unknown_host"),
        ("GET", "/orders/%2e%2e/x", &[HOST, ALLOWED], "ambiguous_path"),
        (
            "OPTIONS",
            "/orders/1",
            &[HOST, ALLOWED, preflight, ("Access-Control-Request-Headers", &long)],
            "header_not_allowed",
        ),
        ("OPTIONS", "/orders/1", &[HOST, ("Origin", "https://evil.test"), preflight], "origin_not_allowed"),
    ];
    for (n, (method, path, fields, reason)) in requests.iter().enumerate() {
        let id = format!("request-{n}");
        let fields = [fields, &[("X-Request-Id", id.as_str())][..]].concat();
        fetch(gateway.address(), method, path, &fields);
        refusals(&gateway, n + 1);
        let output = run(&["why", &id, "--admin", &admin]);
        assert_eq!(output.code, 0, "{reason}: {}", output.stderr);
        assert!(output.stdout.contains(reason), "{reason}: {}", output.stdout);
        let unseen = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!output.stdout.contains(unseen), "{:?}", output.stdout);
        assert!(!ask(&gateway, "/").text().contains(unseen));
    }
}

/// These refusals do not need an entry in allow_origins: a form of another site, and a request of the site itself if
/// another component ends TLS.
#[test]
fn why_offers_no_edit_that_opens_the_api_to_a_form() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let rejecting = config(&upstream).replace("max_age: 60 }", "max_age: 60, disallowed_origins: reject }");
    let gateway = Gateway::start(&rejecting);
    let admin = format!("http://{}", gateway.admin());
    let navigate = ("Sec-Fetch-Mode", "navigate");
    let requests: [Case; 4] = [
        ("POST", "/orders/1", &[HOST, ("Origin", "https://idp.test"), navigate], "The request is a navigation"),
        ("POST", "/orders/2", &[HOST, ("Origin", "null"), navigate], "The request is a navigation"),
        ("POST", "/orders/3", &[HOST, ("Origin", "https://api.test")], "TLS ends in front of corsgate"),
        ("POST", "/orders/4", &[HOST, ("Origin", "https://api.test"), navigate], "TLS ends in front of corsgate"),
    ];
    for (n, (method, path, fields, cause)) in requests.iter().enumerate() {
        let id = format!("form-{n}");
        let fields = [fields, &[("X-Request-Id", id.as_str())][..]].concat();
        assert_eq!(fetch(gateway.address(), method, path, &fields).status, 403);
        refusals(&gateway, n + 1);
        let output = run(&["why", &id, "--admin", &admin]);
        assert!(output.stdout.contains(cause), "{path}: {}{}", output.stdout, output.stderr);
        for unwanted in ["fix:", "mixed content"] {
            assert!(!output.stdout.contains(unwanted), "{path}: {}", output.stdout);
        }
    }
    let page = ask(&gateway, "/").text().to_owned();
    for command in [
        "--method=POST --as=navigation http://api.test/orders/1",
        "--origin=https://api.test --method=POST --as=navigation https://api.test/orders/4",
    ] {
        assert!(page.contains(command), "{command}\n{page}");
    }
}

#[test]
fn why_prints_a_remedy_when_the_admin_listener_does_not_answer() {
    let (_upstream, gateway) = start();
    let admin = format!("http://{}", gateway.admin());
    let output = run(&["why", "nobody", "--admin", &admin]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert!(output.stderr.contains("No refused request with this id is stored"), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 2, "{}", output.stderr);
    // The scheme of the admin URL is optional.
    assert_eq!(run(&["why", "nobody", "--admin", &gateway.admin().to_string()]).stderr, output.stderr);
    let nobody = format!("http://127.0.0.1:{}", crate::support::gateway::free_port());
    let public = format!("http://{}", gateway.address());
    let address = "give the address that the running corsgate has as `admin.address`";
    for (url, remedy) in [
        (nobody.as_str(), address),
        ("127.0.0.1:1", address),
        ("ftp://127.0.0.1", "the admin listener uses plain http; write `http://`"),
        ("https://127.0.0.1:9180", "the admin listener uses plain http; write `http://`"),
        ("no sense", address),
        (&public, address),
    ] {
        let output = run(&["why", "nobody", "--admin", url]);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{url}");
        assert!(output.stderr.contains(remedy), "{url}: {}", output.stderr);
    }
    // The hint does not suggest the default address again. Another process of this machine may use it.
    let output = run(&["why", "nobody"]);
    assert!(!output.stderr.contains("--admin http://127.0.0.1:9180"), "{}", output.stderr);
    let failed = output.stderr.contains("cannot ask") || output.stderr.contains("is not an admin listener");
    assert_eq!(output.stderr.contains("give it with `--admin http://HOST:PORT`"), failed, "{}", output.stderr);
}

#[test]
fn why_does_not_follow_redirects() {
    let elsewhere = Upstream::start(|_| Reply::new(200).header("Server", "corsgate-admin"));
    let target = format!("http://{}/", elsewhere.address());
    let evil = Upstream::start(move |_| Reply::new(302).header("Location", &target).header("Server", "corsgate-admin"));
    let output = run(&["why", "x", "--admin", &format!("http://{}", evil.address())]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{}", output.stderr);
    assert_eq!((evil.hits(), elsewhere.hits()), (1, 0));
}

/// Idle connections to the admin listener must not use up the file descriptors of the gateway.
#[test]
fn the_admin_listener_limits_its_connections_and_the_time_for_a_header() {
    /// As in `src/admin/limits.rs`.
    const LIMIT: usize = 64;
    const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

    let (_upstream, gateway) = start();
    let begin = Instant::now();
    let connections: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(gateway.admin()).unwrap()).collect();
    for mut stream in &connections {
        // The listener may have closed the connection already.
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: loc");
        stream.set_nonblocking(true).unwrap();
    }
    let closed = || connections.iter().filter(|stream| is_closed(stream)).count();
    let wait_for = |count: usize, limit: Duration| {
        while closed() < count {
            assert!(begin.elapsed() < limit, "{} of 100 connections are closed after {limit:?}", closed());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Over the limit: closed before the header timeout could close anything.
    wait_for(connections.len() - LIMIT, HEADER_TIMEOUT.mul_f32(0.8));
    assert_eq!(closed(), connections.len() - LIMIT);
    assert_eq!(fetch(gateway.address(), "GET", "/orders/1", &[HOST]).status, 200);
    // Within the limit: closed after the header timeout.
    wait_for(connections.len() - LIMIT + 1, 5 * HEADER_TIMEOUT);
    assert!(begin.elapsed() >= HEADER_TIMEOUT, "closed after {:?}", begin.elapsed());
    wait_for(connections.len(), 5 * HEADER_TIMEOUT);
    assert_eq!(ask(&gateway, "/livez").status, 200);
}

/// Returns whether the server has closed this non-blocking connection. Panics if the server has sent data.
fn is_closed(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => panic!("an answer to an incomplete request"),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn large_pages_are_built_one_at_a_time_and_block_no_health_check() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let routes = (0..2_000).fold(String::new(), |mut routes, i| {
        let _ = writeln!(routes, "      - {{ name: r{i}, paths: [/r{i}] }}");
        routes
    });
    let gateway = Gateway::start(&(config(&upstream) + &routes));
    let mut scrapes = 0;
    let pages: Vec<_> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| ["/config", "/"].map(|path| ask(&gateway, path)));
        let asked: Vec<_> = (0..8).map(|_| ask()).collect();
        while !asked.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert_eq!(fetch(gateway.admin(), "GET", "/livez", &[ADMIN]).status, 200);
            // A request for metrics does not wait for a page.
            assert_eq!(fetch(gateway.admin(), "GET", "/metrics", &[ADMIN]).status, 200);
            scrapes += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        asked.into_iter().flat_map(|asked| asked.join().unwrap()).collect()
    });
    assert!(scrapes > 0);
    // The waiting time has a bound. A page that waits longer gets a 503.
    assert!(pages.iter().all(|page| page.status == 200 || page.status == 503));
    assert!(pages.iter().any(|page| page.status == 200));
    assert!(ask(&gateway, "/").text().contains("and 1802 more; "));
}

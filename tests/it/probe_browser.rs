//! `corsgate probe` and a real Chromium make the same requests to corsgate, nginx, Envoy and Express. The results must
//! be the same.
//!
//! `make test-tools` installs the servers. Without them the test fails.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::chromium::Chromium;
use crate::support::gateway::{Gateway, free_port, run};
use crate::support::nginx;
use crate::support::process::{Process, tools};
use crate::support::upstream::{Reply, Upstream};

/// Timeout of a page. It includes the start of the browser.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Paths with one origin and credentials, with every origin, and without CORS.
const PATHS: [&str; 3] = ["/list", "/any", "/none"];

/// Requests of a page: the arguments of `fetch` without the URL, and the arguments of `probe`.
#[rustfmt::skip]
const REQUESTS: [(&str, &str); 8] = [
    ("{}",                                                                                      ""),
    ("{ credentials: 'include' }",                                                              "--credentials"),
    ("{ headers: { 'X-A': '1' } }",                                                             "--header X-A:1"),
    ("{ method: 'POST', body: 'a' }",                                                           "--method POST"),
    ("{ method: 'put', headers: { 'Content-Type': 'application/json' }, body: '{}' }",          "--method put --header Content-Type:application/json"),
    ("{ method: 'DELETE' }",                                                                    "--method DELETE"),
    ("{ method: 'PUT', credentials: 'include' }",                                               "--method PUT --credentials"),
    ("{ method: 'patch', headers: { 'Range': 'bytes=-5' } }",                                   "--method patch --header Range:bytes=-5"),
];

#[test]
fn the_verdict_is_that_of_chromium_at_corsgate_nginx_envoy_and_express() {
    let (send, outcomes) = mpsc::channel::<(String, String)>();
    let script = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let pages = Upstream::start({
        let script = script.clone();
        move |request| match request.target.split_once('?') {
            Some(("/done", outcome)) => {
                let host = request.header("Host").expect("a browser sends Host").to_owned();
                send.send((host, outcome.to_owned())).expect("the test waits");
                Reply::new(204)
            }
            _ if request.target == "/" => {
                Reply::new(200).header("Content-Type", "text/html").body(script.get().cloned().unwrap_or_default())
            }
            _ => Reply::new(404),
        }
    });
    // Chromium resolves all names below `localhost` to 127.0.0.1.
    let hosts = ["app", "other"].map(|name| format!("{name}.localhost:{}", pages.address().port()));
    let allowed = format!("http://{}", hosts[0]);
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(|_| Reply::new(200).header("X-Total", "7"));
    let gateway = corsgate(&allowed, &upstream);
    let (nginx, _nginx) = nginx(folder.path(), &allowed);
    let (envoy, _envoy) = envoy(folder.path(), &allowed, &upstream);
    let (express, _express) = express(folder.path(), &allowed);
    let servers = [("corsgate", gateway.address()), ("nginx", nginx), ("envoy", envoy), ("express", express)];

    // One URL for each request, because browsers cache preflights.
    let mut rows: Vec<(String, String, &str, &str)> = Vec::new();
    for (name, address) in servers {
        for path in PATHS {
            for (init, arguments) in REQUESTS {
                let row = format!("{name} {path} {arguments}");
                rows.push((row, format!("http://{address}{path}?n={}", rows.len()), init, arguments));
            }
        }
    }
    let mut requests = String::new();
    for (_, url, init, _) in &rows {
        let _ = writeln!(requests, "['{url}', {init}],");
    }
    script
        .set(format!(
            "<!doctype html><script>
             (async () => {{
               const outcome = [];
               for (const [url, init] of [{requests}]) {{
                 try {{
                   const response = await fetch(url, init);
                   outcome.push(response.headers.has('X-Total') ? 'total' : 'allowed');
                 }} catch {{ outcome.push('refused'); }}
               }}
               await fetch('/done?' + outcome.join());
             }})();
             </script>"
        ))
        .expect("set once");
    let mut disagreements = Vec::new();
    let (mut compared, mut kinds) = (0, std::collections::BTreeMap::<String, usize>::new());
    for host in &hosts {
        let browser = Chromium::open(&format!("http://{host}/"));
        let outcome = outcomes.recv_timeout(PAGE_TIMEOUT);
        let (page, outcome) =
            outcome.unwrap_or_else(|error| panic!("the page does not end: {error}\n{}", browser.log()));
        assert_eq!(page, *host);
        let seen: Vec<&str> = outcome.split(',').collect();
        assert_eq!(seen.len(), rows.len());
        for ((row, url, _, arguments), seen) in rows.iter().zip(seen) {
            let found = probed(&format!("http://{host}"), arguments, url);
            compared += 1;
            *kinds.entry(seen.to_owned()).or_default() += 1;
            if found != seen {
                disagreements.push(format!("{row} from {host}: Chromium {seen}, probe {found}"));
            }
        }
    }
    assert!(disagreements.is_empty(), "{compared} compared\n{}", disagreements.join("\n"));
    assert_eq!(compared, 192);
    // Each kind of outcome occurs often, so a constant result would fail.
    assert!(
        ["total", "allowed", "refused"].iter().all(|kind| kinds.get(*kind).is_some_and(|count| *count >= 10)),
        "{kinds:?}"
    );
}

/// Returns the outcome of `probe`. It is `total` if the page can read `X-Total`.
fn probed(origin: &str, arguments: &str, url: &str) -> String {
    let mut all = vec!["probe", "--origin", origin, "--send", "--format", "json"];
    all.extend(arguments.split(' ').filter(|argument| !argument.is_empty()));
    all.push(url);
    let output = run(&all);
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    let readable = report["readable"].as_array().unwrap();
    match report["verdict"].as_str().unwrap() {
        "allowed" if readable.iter().any(|name| name == "x-total" || name == "*") => "total".to_owned(),
        verdict => verdict.to_owned(),
    }
}

fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn corsgate(allowed: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    routes:
      - {{ name: list, paths: [/list], cors: {{ allow_origins: \"{allowed}\", allow_credentials: true, allow_methods: [PUT], allow_headers: [Content-Type], expose_headers: [X-Total] }} }}
      - {{ name: any, paths: [/any], cors: {{ allow_origins: \"*\", allow_methods: \"*\", allow_headers: \"*\" }} }}
      - {{ name: none, paths: [/none] }}
",
        upstream.address()
    ))
}

fn nginx(folder: &Path, allowed: &str) -> (SocketAddr, Process) {
    let address = free_address();
    let server = format!(
        "listen {address};
  add_header X-Total 7 always;
  location /list {{
    add_header X-Total 7 always;
    add_header Access-Control-Allow-Origin {allowed} always;
    add_header Access-Control-Allow-Credentials true always;
    add_header Access-Control-Allow-Methods PUT always;
    add_header Access-Control-Allow-Headers Content-Type always;
    add_header Access-Control-Expose-Headers X-Total always;
    if ($request_method = OPTIONS) {{ return 405; }}
    return 200;
  }}
  location /any {{
    add_header X-Total 7 always;
    add_header Access-Control-Allow-Origin * always;
    add_header Access-Control-Allow-Methods * always;
    add_header Access-Control-Allow-Headers * always;
    add_header Access-Control-Expose-Headers * always;
    return 204;
  }}
  location /none {{ return 200; }}"
    );
    let process = nginx::start(folder, address, &server);
    (address, process)
}

fn envoy(folder: &Path, allowed: &str, upstream: &Upstream) -> (SocketAddr, Process) {
    let address = free_address();
    let (port, node) = (address.port(), upstream.address().port());
    let cors = "\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";
    let text = format!(
        "
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          http_filters:
          - name: envoy.filters.http.cors
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors }}
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: /list }}
                route: {{ cluster: node }}
                typed_per_filter_config:
                  envoy.filters.http.cors: {{ {cors}, allow_origin_string_match: [{{ exact: \"{allowed}\" }}], allow_methods: \"PUT, patch\", allow_headers: content-type, allow_credentials: true }}
              - match: {{ prefix: /any }}
                route: {{ cluster: node }}
                typed_per_filter_config:
                  envoy.filters.http.cors: {{ {cors}, allow_origin_string_match: [{{ prefix: \"http\" }}], allow_methods: \"*\", allow_headers: \"*\", expose_headers: \"X-Total\" }}
              - match: {{ prefix: / }}
                route: {{ cluster: node }}
  clusters:
  - name: node
    load_assignment:
      cluster_name: node
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {node} }} }} }} }}] }}]
"
    );
    let file = folder.join("envoy.yaml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(tools().join("bin/envoy"));
    command.arg("-c").arg(&file).args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]);
    let process = Process::spawn_server(command.stdout(Stdio::null()).stderr(Stdio::null()), address);
    (address, process)
}

fn express(folder: &Path, allowed: &str) -> (SocketAddr, Process) {
    let address = free_address();
    let port = address.port();
    let modules = tools().join("express/node_modules");
    let modules = modules.display();
    let text = format!(
        "const express = require('{modules}/express'), cors = require('{modules}/cors');
const app = express();
app.use((request, response, next) => {{ response.set('X-Total', '7'); next(); }});
app.use('/list', cors({{ origin: ['{allowed}'], credentials: true, methods: ['PUT'], allowedHeaders: ['Content-Type'], exposedHeaders: ['X-Total'] }}));
app.use('/any', cors());
app.use((request, response) => {{ response.send('ok'); }});
app.listen({port}, '127.0.0.1');
"
    );
    let file = folder.join("express.js");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("node");
    let process = Process::spawn_server(command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()), address);
    (address, process)
}

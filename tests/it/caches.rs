//! Real shared caches in front of corsgate: nginx with `proxy_cache`, and Varnish. A page must never get a response
//! that was stored for another origin.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use fastrand::Rng;

use crate::support::client::fetch;
use crate::support::gateway::{Gateway, free_port};
use crate::support::nginx;
use crate::support::process::Process;
use crate::support::upstream::{Received, Reply, Upstream};

/// Two allowed origins, one origin that is not allowed, and None for a request without Origin.
const ORIGINS: [Option<&str>; 4] =
    [Some("https://a.example"), Some("https://b.example"), Some("https://evil.example"), None];
/// Paths with several policies, and of a route without a policy. The cache stores each path separately.
const PATHS: [&str; 8] = ["/list/1", "/list/2", "/list/3", "/any/1", "/any/2", "/none/1", "/reject/1", "/reject/2"];
/// The response header fields that a browser checks.
const FIELDS: [&str; 4] = [
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
    "Cross-Origin-Resource-Policy",
];
const REQUESTS: usize = 600;

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    routes:
      - name: list
        paths: [/list/*]
        cors: {{ allow_origins: [https://a.example, \"https://*.b.example\", https://b.example], allow_credentials: true, expose_headers: [X-Total] }}
      - {{ name: any, paths: [/any/*], cors: {{ allow_origins: \"*\" }} }}
      - {{ name: none, paths: [/none/*] }}
      - {{ name: reject, paths: [/reject/*], cors: {{ allow_origins: https://a.example, disallowed_origins: reject }} }}
",
        upstream.address()
    ))
}

/// Returns a response that every cache may store.
fn respond(request: &Received) -> Reply {
    let status = if request.header("If-None-Match").is_some() { 304 } else { 200 };
    let body = if status == 200 && request.method != "HEAD" { request.target.clone() } else { String::new() };
    Reply::new(status).header("Cache-Control", "public, max-age=600").header("ETag", "\"1\"").body(body)
}

/// Returns a response that names the Origin of the request and has no `Vary`. The tests must detect this fault.
fn respond_without_vary(request: &Received) -> Reply {
    let reply = respond(request);
    match request.header("Origin") {
        Some(origin) => reply.header("Access-Control-Allow-Origin", origin),
        None => reply,
    }
}

fn start_nginx(folder: &Path, gateway: SocketAddr) -> (SocketAddr, Process) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let server = format!(
        "listen {address};
  location / {{
    proxy_pass http://{gateway};
    proxy_http_version 1.1;
    proxy_cache cache;
    proxy_cache_revalidate on;
    proxy_set_header Host $host;
  }}"
    );
    (address, nginx::start(folder, address, &server))
}

fn start_varnish(folder: &Path, gateway: SocketAddr) -> (SocketAddr, Process) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new("varnishd");
    // `-F` runs no daemon. `-j none` runs all processes as the same user, even as root.
    command.args(["-F", "-j", "none", "-s", "malloc,16m", "-T", "none", "-n"]).arg(folder.join("varnish"));
    command.args(["-a", &address.to_string(), "-b", &gateway.to_string()]);
    (address, Process::spawn_server(command.stdout(Stdio::null()).stderr(Stdio::null()), address))
}

/// Sends random requests through a cache, and the same requests to the server behind it. Returns the differences.
fn differences(cache: SocketAddr, server: SocketAddr, seed: u64) -> Vec<String> {
    let random = &mut Rng::with_seed(seed);
    let mut found = Vec::new();
    for n in 0..REQUESTS {
        let (path, origin) = (random.choice(PATHS).unwrap(), random.choice(ORIGINS).unwrap());
        let method = if random.u8(..) < 50 { "HEAD" } else { "GET" };
        let mut fields = vec![("Host", "api.example")];
        fields.extend(origin.map(|origin| ("Origin", origin)));
        if random.u8(..) < 50 {
            fields.push(("If-None-Match", "\"1\""));
        }
        let [through, direct] = [cache, server].map(|address| fetch(address, method, path, &fields));
        let of = |response: &crate::support::client::Response| -> Vec<Option<String>> {
            FIELDS.iter().map(|name| response.header(name).map(str::to_owned)).collect()
        };
        // A cache may omit the fields of a 304 that it has stored. A browser then uses the fields of its own copy.
        let is_short = through.status == 304 && of(&through).iter().all(Option::is_none);
        if (through.status, of(&through)) != (direct.status, of(&direct)) && !is_short {
            found.push(format!(
                "{n}: {method} {path} {origin:?}: {} {:?} instead of {} {:?}",
                through.status,
                of(&through),
                direct.status,
                of(&direct)
            ));
        }
    }
    found
}

type Start = fn(&Path, SocketAddr) -> (SocketAddr, Process);
const CACHES: [(&str, Start); 2] = [("nginx", start_nginx), ("Varnish", start_varnish)];

#[test]
fn no_page_gets_the_stored_response_of_another_origin() {
    for (name, start) in CACHES {
        for seed in [1, 2] {
            let upstream = Upstream::start(respond);
            let gateway = gateway(&upstream);
            let folder = tempfile::tempdir().unwrap();
            let (cache, _process) = start(folder.path(), gateway.address());
            let found = differences(cache, gateway.address(), seed);
            assert!(found.is_empty(), "{name}, seed {seed}: {} differences\n{}", found.len(), found.join("\n"));
            // Most responses came from the cache: besides the direct requests, the upstream got only a few.
            let through_cache = upstream.hits().saturating_sub(REQUESTS);
            assert!(through_cache < REQUESTS / 4, "{name}: {through_cache} of {REQUESTS} reached the upstream");
        }
    }
}

/// Checks that the test detects a missing `Vary`.
#[test]
fn a_server_without_vary_mixes_up_origins_in_a_cache() {
    for (name, start) in CACHES {
        let server = Upstream::start(respond_without_vary);
        let folder = tempfile::tempdir().unwrap();
        let (cache, _process) = start(folder.path(), server.address());
        let found = differences(cache, server.address(), 1);
        assert!(found.len() > REQUESTS / 4, "{name}: only {}", found.len());
    }
}

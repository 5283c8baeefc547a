//! Pages in a real Chromium: requests that a policy must allow arrive, and requests that it must refuse do not.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::apache::Apache;
use crate::support::chromium::Chromium;
use crate::support::gateway::{Gateway, free_port};
use crate::support::process::poll;
use crate::support::upstream::{Reply, Upstream};

/// Timeout of a page, the start of the browser included.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs requests from a page one after the other. `requests` are the arguments of `fetch` without the gateway's
/// address, such as `'/x', { method: 'POST' }`. Returns the status of each, or `blocked`.
#[track_caller]
fn run_page(start_gateway: impl FnOnce(&str) -> Gateway, requests: &[&str]) -> (Vec<String>, Gateway) {
    run_page_at(Gateway::address, start_gateway, requests)
}

/// As [`run_page`], with requests to another address of the gateway.
#[track_caller]
fn run_page_at(
    address: impl FnOnce(&Gateway) -> SocketAddr,
    start_gateway: impl FnOnce(&str) -> Gateway,
    requests: &[&str],
) -> (Vec<String>, Gateway) {
    let (send, outcome) = mpsc::channel();
    let script = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let page = Upstream::start({
        let script = script.clone();
        move |request| match request.target.split_once('?') {
            Some(("/done", outcome)) => {
                send.send(outcome.split(',').map(str::to_owned).collect()).expect("the test waits");
                Reply::new(204)
            }
            _ if request.target == "/" => {
                Reply::new(200).header("Content-Type", "text/html").body(script.get().cloned().unwrap_or_default())
            }
            _ => Reply::new(404),
        }
    });
    let gateway = start_gateway(&format!("http://{}", page.address()));
    let (base, requests) = (address(&gateway), requests.iter().map(|arguments| format!("() => send({arguments})")));
    script
        .set(format!(
            "<!doctype html><script>
             const send = (path, init) => fetch('http://{base}' + path, init);
             (async () => {{
               const outcome = [];
               for (const request of [{}]) {{
                 try {{ outcome.push((await request()).status); }} catch {{ outcome.push('blocked'); }}
               }}
               await fetch('/done?' + outcome.join());
             }})();
             </script>",
            requests.collect::<Vec<_>>().join(",\n")
        ))
        .expect("set once");
    let browser = Chromium::open(&format!("http://{}/", page.address()));
    let outcome = outcome.recv_timeout(PAGE_TIMEOUT);
    (outcome.unwrap_or_else(|error| panic!("the page does not end: {error}\n{}", browser.log())), gateway)
}

/// A browser caches the response to a preflight for an origin and a URL, not for a method. The response for the GET must
/// not let a POST pass whose policy allows another origin. The same browser does send the POST if its own policy allows
/// the origin; a GET without own headers needs no preflight, so it arrives, and the page cannot read the response.
#[test]
fn chromium_sends_no_method_of_another_policy_after_a_preflight_of_the_same_path() {
    const POST: &str = "'/x', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }";
    const OTHER: &str = "http://admin.test";
    for (reads_from_page, requests, arrived, outcome) in [
        (
            true,
            &["'/x', { headers: { 'X-A': '1' } }", POST, "'/x', { method: 'DELETE' }"][..],
            &["GET"][..],
            &["200", "blocked", "blocked"][..],
        ),
        (false, &[POST, "'/x'"], &["POST", "GET"], &["200", "blocked"]),
    ] {
        let api = Upstream::start(|_| Reply::new(200));
        let start = |page: &str| {
            let (read, write) = if reads_from_page { (page, OTHER) } else { (OTHER, page) };
            Gateway::start(&format!(
                "
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    routes:
      - {{ name: read, paths: [/x], methods: [GET], cors: {{ allow_origins: \"{read}\", max_age: 600 }} }}
      - {{ name: write, paths: [/x], methods: [POST, DELETE], cors: {{ allow_origins: \"{write}\", max_age: 600 }} }}
",
                api.address()
            ))
        };
        let (found, _gateway) = run_page(start, requests);
        let methods: Vec<_> = api.received().iter().map(|request| request.method.clone()).collect();
        assert_eq!(
            (methods, found),
            (arrived.iter().map(|&m| m.into()).collect(), outcome.iter().map(|&o| o.into()).collect())
        );
    }
}

/// The page even knows a valid token. Requests with the token need a preflight, which the admin listener does not answer;
/// requests without a preflight have no token.
#[test]
fn a_page_in_chromium_cannot_use_the_write_api() {
    let tokens = crate::api::Tokens::new();
    let authorization =
        format!("headers: {{ Authorization: 'Bearer {}', 'Content-Type': 'application/json' }}", tokens.write);
    let body = "body: '[\"https://evil.test\"]'";
    let requests = [
        format!("'/api/v1/origin_sets/evil', {{ method: 'PUT', {authorization}, {body} }}"),
        format!("'/api/v1/origin_sets/partners', {{ method: 'DELETE', {authorization} }}"),
        format!("'/api/v1/origin_sets/partners', {{ {authorization} }}"),
        format!(
            "'/apisix/admin/routes/1', {{ method: 'PUT', headers: {{ 'X-API-KEY': '{}' }}, body: '{{}}' }}",
            tokens.write
        ),
        "'/api/v1/origin_sets'".to_owned(),
        format!(
            "'/api/v1/origin_sets/evil', {{ method: 'POST', mode: 'no-cors', headers: {{ 'Content-Type': 'text/plain' }}, {body} }}"
        ),
    ];
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    let start = |_: &str| Gateway::start_with_files(crate::api::CONFIG, &tokens.files());
    let (found, gateway) = run_page_at(Gateway::admin, start, &requests);
    assert_eq!(found, ["blocked"; 6]);
    let text = std::fs::read_to_string(gateway.config_path()).unwrap();
    assert_eq!(text, gateway.filled_in(crate::api::CONFIG));
    assert!(!gateway.stderr().contains("result=applied"), "{}", gateway.stderr());
}

/// A page of one origin, an API of another, and a service that signs users in. The page may read the 401 of the service,
/// so it sends its user to the login; after that its requests arrive with the name of the user. The service is asked
/// about each request and about no preflight. A page of a third origin on the same site has the cookie too, and sends
/// nothing that needs a preflight.
#[test]
fn chromium_signs_a_user_in_at_a_service_that_sees_no_preflight() {
    let api = Upstream::start(|request| Reply::new(200).body(request.header("X-User").unwrap_or("nobody")));
    let (send, outcome) = mpsc::channel();
    let script = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let pages = Upstream::start({
        let script = script.clone();
        move |request| match request.target.split_once('?') {
            Some(("/done", outcome)) => {
                send.send(outcome.to_owned()).expect("the test waits");
                Reply::new(204)
            }
            _ if request.target.starts_with("/page") => {
                Reply::new(200).header("Content-Type", "text/html").body(script.get().cloned().unwrap_or_default())
            }
            _ => Reply::new(404),
        }
    });
    // Chromium finds every name below `localhost` at 127.0.0.1. The names are of one site, as the cookie needs it.
    let page = |name: &str| format!("http://{name}.site.localhost:{}", pages.address().port());
    let folder = tempfile::tempdir().unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let auth = Apache::start(folder.path(), address, "site.localhost", &format!("{}/page?signed-in", page("app")));
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
access_log: {{ to: access.log }}
upstreams:
  auth: {{ nodes: [{{ address: \"{address}\" }}] }}
services:
  - name: login
    hosts: [auth.site.localhost]
    upstream: auth
  - name: api
    hosts: [api.site.localhost]
    upstream: {{ nodes: [{{ address: \"{api}\" }}] }}
    cors: {{ allow_origins: \"{app}\", allow_credentials: true }}
    forward_auth: {{ upstream: auth, path: /verify, response_headers: [X-User] }}
",
        api = api.address(),
        app = page("app"),
    ));
    let port = gateway.address().port();
    script
        .set(format!(
            "<!doctype html><script>
             const found = new URLSearchParams(location.search).get('found') || '';
             const send = async (path, init) => {{
               try {{
                 const response = await fetch('http://api.site.localhost:{port}' + path, {{ credentials: 'include', ...init }});
                 return response.status + (response.ok ? await response.text() : '');
               }} catch {{ return 'blocked'; }}
             }};
             const json = {{ method: 'PUT', headers: {{ 'Content-Type': 'application/json' }}, body: '{{}}' }};
             (async () => {{
               if (location.hostname.startsWith('other')) {{
                 const outcome = [found, await send('/orders', json), await send('/orders')];
                 await fetch('/done?' + outcome.join());
               }} else if (location.search.includes('signed-in')) {{
                 json.headers['X-User'] = 'root';
                 const outcome = ['401', await send('/orders/1', json), await send('/orders/2')];
                 location = '{other}/page?found=' + outcome.join();
               }} else if (await send('/orders', json) == '401') {{
                 location = 'http://auth.site.localhost:{port}/';
               }} else {{
                 await fetch('/done?not-401');
               }}
             }})();
             </script>",
            other = page("other"),
        ))
        .expect("set once");
    let browser = Chromium::open(&format!("{}/page", page("app")));
    let outcome = outcome.recv_timeout(PAGE_TIMEOUT);
    let outcome = outcome
        .unwrap_or_else(|error| panic!("the pages do not end: {error}\n{}\n{:#?}", browser.log(), auth.requests()));
    assert_eq!(outcome, "401,200alice,200alice,blocked,blocked");
    let api_host = format!("api.site.localhost:{port}");
    let asked = [
        format!("GET /verify PUT {api_host} /orders 401 -"),
        format!("GET /verify PUT {api_host} /orders/1 200 alice"),
        format!("GET /verify GET {api_host} /orders/2 200 alice"),
        // Needs no preflight, so it arrives. The page cannot read the response.
        format!("GET /verify GET {api_host} /orders 200 alice"),
    ];
    let verified = || auth.requests().into_iter().filter(|line| line.contains("/verify")).collect::<Vec<_>>();
    assert!(poll(PAGE_TIMEOUT, || (verified().len() >= asked.len()).then_some(())).is_some(), "{:#?}", verified());
    assert_eq!(verified(), asked);
    let arrived: Vec<_> =
        api.received().iter().map(|request| (request.method.clone(), request.target.clone())).collect();
    assert_eq!(
        arrived,
        [("PUT", "/orders/1"), ("GET", "/orders/2"), ("GET", "/orders")].map(|(m, t)| (m.into(), t.into()))
    );
    assert!(api.received().iter().all(|request| request.all("X-User") == ["alice"]));
    // The browser did send preflights.
    let preflights = gateway.access_log().iter().filter(|line| line.contains("\"cors\":\"preflight\"")).count();
    assert!(preflights >= 3, "{:#?}", gateway.access_log());
}

/// What a browser sends for forms, fetches and WebSockets of a foreign page and of the site's own page, and what of it
/// reaches the upstream with `cross_site: reject`.
#[test]
fn chromium_posts_only_from_the_sites_own_page() {
    let (send, ended) = mpsc::channel();
    let requests = |from: &str, base: &str, then: &str| {
        format!(
            "<!doctype html><body><script>
             const form = action => new Promise(done => {{
               const frame = document.createElement('iframe');
               frame.name = 'answer';
               document.body.append(frame);
               const form = document.createElement('form');
               Object.assign(form, {{ method: 'post', action, target: 'answer' }});
               document.body.append(form);
               frame.onload = done;
               form.submit();
             }});
             const socket = url => new Promise(done => {{
               const socket = new WebSocket(url);
               socket.onopen = socket.onerror = done;
             }});
             (async () => {{
               await form('http://{base}/orders?{from}-form');
               await fetch('http://{base}/orders?{from}-fetch', {{ method: 'POST', mode: 'no-cors' }}).catch(() => 0);
               await socket('ws://{base}/feed?{from}-socket');
               {then};
             }})();
             </script>"
        )
    };
    let html = |text: &str| Reply::new(200).header("Content-Type", "text/html").body(text.to_owned());
    let own = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let api = Upstream::start({
        let own = own.clone();
        move |request| match request.target.as_str() {
            "/own" => html(own.get().map_or("", String::as_str)),
            "/done" => {
                send.send(()).expect("the test waits");
                Reply::new(204)
            }
            _ => Reply::new(200),
        }
    });
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
access_log: {{ to: access.log }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: \"https://app.test\", cross_site: reject }}
",
        api.address()
    ));
    let base = gateway.address().to_string();
    own.set(requests("own", &base, "fetch('/done')")).expect("set once");
    let foreign = requests("foreign", &base, &format!("location = 'http://{base}/own'"));
    let page = Upstream::start(move |_| html(&foreign));
    let browser = Chromium::open(&format!("http://{}/", page.address()));
    ended.recv_timeout(PAGE_TIMEOUT).unwrap_or_else(|error| panic!("the pages do not end: {error}\n{}", browser.log()));
    let arrived: Vec<String> = api.received().iter().map(|request| request.target.clone()).collect();
    let changes: Vec<&String> = arrived.iter().filter(|target| target.contains('?')).collect();
    assert_eq!(changes, ["/orders?own-form", "/orders?own-fetch", "/feed?own-socket"]);
    let rejected = || gateway.access_log().iter().filter(|line| line.contains("\"reason\":\"cross_site\"")).count();
    assert!(poll(PAGE_TIMEOUT, || (rejected() == 3).then_some(())).is_some(), "{:#?}", gateway.access_log());
}

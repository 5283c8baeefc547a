//! Pages in a real Chromium: requests that a policy must allow arrive, and requests that it must refuse do not.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::chromium::Chromium;
use crate::support::gateway::Gateway;
use crate::support::upstream::{Reply, Upstream};

/// Timeout of a page, the start of the browser included.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs requests from a page one after the other. `requests` are the arguments of `fetch` without the gateway's
/// address, such as `'/x', { method: 'POST' }`. Returns the status of each, or `blocked`.
#[track_caller]
fn run_page(start_gateway: impl FnOnce(&str) -> Gateway, requests: &[&str]) -> (Vec<String>, Gateway) {
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
    let (base, requests) = (gateway.address(), requests.iter().map(|arguments| format!("() => send({arguments})")));
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

/// A browser caches the answer to a preflight for an origin and a URL, not for a method. The answer for the GET must not
/// let a POST pass whose policy allows another origin.
#[test]
fn chromium_sends_no_method_of_another_policy_after_a_preflight_of_the_same_path() {
    let api = Upstream::start(|_| Reply::new(200));
    let config = |origin: &str| {
        format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    routes:
      - {{ name: read, paths: [/x], methods: [GET], cors: {{ allow_origins: \"{origin}\", max_age: 600 }} }}
      - {{ name: write, paths: [/x], methods: [POST, DELETE], cors: {{ allow_origins: \"http://admin.test\", max_age: 600 }} }}
",
            api.address()
        )
    };
    let (outcome, _gateway) = run_page(
        |origin| Gateway::start(&config(origin)),
        &[
            "'/x', { headers: { 'X-A': '1' } }",
            "'/x', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }",
            "'/x', { method: 'DELETE' }",
        ],
    );
    let arrived: Vec<_> = api.received().iter().map(|request| request.method.clone()).collect();
    assert_eq!((arrived, outcome), (vec!["GET".to_owned()], ["200", "blocked", "blocked"].map(str::to_owned).to_vec()));
}

/// The same browser does send the request if the policy of its method allows the origin.
#[test]
fn chromium_sends_a_post_whose_own_policy_allows_the_origin() {
    let api = Upstream::start(|_| Reply::new(200));
    let config = |origin: &str| {
        format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    routes:
      - {{ name: read, paths: [/x], methods: [GET], cors: {{ allow_origins: \"http://admin.test\", max_age: 600 }} }}
      - {{ name: write, paths: [/x], methods: [POST], cors: {{ allow_origins: \"{origin}\", max_age: 600 }} }}
",
            api.address()
        )
    };
    let (outcome, _gateway) = run_page(
        |origin| Gateway::start(&config(origin)),
        &["'/x', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }", "'/x'"],
    );
    let arrived: Vec<_> = api.received().iter().map(|request| request.method.clone()).collect();
    // A GET without own headers needs no preflight: it arrives, and the page cannot read the response.
    assert_eq!(
        (arrived, outcome),
        (["POST", "GET"].map(str::to_owned).to_vec(), ["200", "blocked"].map(str::to_owned).to_vec())
    );
}

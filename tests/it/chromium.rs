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

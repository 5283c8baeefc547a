//! Rate limits of the real process: responses within and above a limit, keys, preflights, and reloads.
//!
//! Budgets are refilled slowly, so the tests do not depend on time, except the tests that wait for the refill.

use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::client::{Response, fetch};
use crate::support::gateway::{Gateway, run};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const EVIL: (&str, &str) = ("Origin", "https://evil.test");
const PREFLIGHT: (&str, &str) = ("Access-Control-Request-Method", "PUT");

type Fields<'a> = &'a [(&'a str, &'a str)];

fn upstream() -> Upstream {
    Upstream::start(|request| Reply::new(200).body(request.target.as_str()))
}

/// Returns a configuration with these keys of the service, and these routes.
fn config(service: &str, routes: &str, upstream: &Upstream) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log }}
trusted_proxies: 127.0.0.1
services:
  - name: api
    hosts: [api.test]
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [PUT], expose_headers: [Retry-After, RateLimit] }}
    {service}
    routes:
{routes}
",
        upstream.address()
    )
}

/// Returns a configuration with one route for every path, and this limit.
fn limited(limit: &str, upstream: &Upstream) -> String {
    config(&format!("rate_limit: {limit}"), "      - { paths: [/*] }", upstream)
}

fn get(gateway: &Gateway, path: &str, fields: Fields<'_>) -> Response {
    fetch(gateway.address(), "GET", path, &[&[HOST], fields].concat())
}

fn statuses(gateway: &Gateway, path: &str, fields: Fields<'_>, count: usize) -> Vec<u16> {
    (0..count).map(|_| get(gateway, path, fields).status).collect()
}

/// Returns the name of the budget and the number of requests that are left in it. Checks that the budget gets the next
/// request in `most` seconds, or up to a minute earlier, because the test takes time.
#[track_caller]
fn left(response: &Response, most: u64) -> Option<(&str, u64)> {
    let (name, parameters) = response.header("RateLimit")?.split_once(";r=").unwrap();
    let (left, seconds) = parameters.split_once(";t=").unwrap();
    assert!((most.saturating_sub(60)..=most).contains(&seconds.parse().unwrap()), "{response:?}");
    Some((name, left.parse().unwrap()))
}

/// Checks that the response is a 429 whose `Retry-After` is `most` seconds, or up to a minute less, as in [`left`].
#[track_caller]
fn assert_retry_after(response: &Response, most: u64) {
    let seconds = response.header("Retry-After").unwrap().parse().unwrap();
    assert!(response.status == 429 && (most.saturating_sub(60)..=most).contains(&seconds), "{response:?}");
}

#[track_caller]
fn assert_readable(response: &Response, origin: Option<&str>) {
    assert_eq!(response.header("Access-Control-Allow-Origin"), origin, "{response:?}");
    assert_eq!(response.header("Vary"), Some("Origin"), "{response:?}");
    let exposed = origin.map(|_| "Retry-After, RateLimit");
    assert_eq!(response.header("Access-Control-Expose-Headers"), exposed, "{response:?}");
}

#[test]
fn responses_say_what_is_left_and_a_page_can_read_the_429() {
    let upstream = upstream();
    let gateway = Gateway::start(&limited("{ rate: 2/h }", &upstream));
    for (origin, allowed) in [(ORIGIN, Some(ORIGIN.1)), (EVIL, None)] {
        let client = ("X-Forwarded-For", if allowed.is_some() { "192.0.2.1" } else { "192.0.2.2" });
        let responses: Vec<_> = (0..3).map(|_| get(&gateway, "/", &[origin, client])).collect();
        let remaining: Vec<_> = responses.iter().map(|response| response.header("RateLimit")).collect();
        assert_eq!(
            remaining,
            [1, 0, 0].map(|r| Some(format!("\"api\";r={r};t=1800"))).each_ref().map(Option::as_deref)
        );
        for (response, (status, retry)) in responses.iter().zip([(200, None), (200, None), (429, Some("1800"))]) {
            assert_eq!((response.status, response.header("Retry-After")), (status, retry), "{response:?}");
            assert_eq!(response.header("RateLimit-Policy"), Some("\"api\";q=2;w=3600"));
            assert_readable(response, allowed);
        }
        assert_eq!([0, 1].map(|n: usize| responses[n].header("Retry-After")), [None, None]);
        assert_retry_after(&responses[2], 1800);
        assert_eq!(responses[2].text(), "Too many requests: Retry-After has the seconds to wait.\n");
        assert_eq!(responses[2].header("Cache-Control"), Some("no-store"));
    }
    assert_eq!(upstream.hits(), 4, "a refused request does not reach the upstream");
}

#[test]
fn a_refused_request_is_counted_logged_and_explained() {
    let upstream = upstream();
    let gateway = Gateway::start(&limited("{ rate: 1/h }", &upstream));
    let id = ("X-Request-Id", "refused-one");
    assert_eq!(get(&gateway, "/", &[ORIGIN]).status, 200);
    assert_eq!(get(&gateway, "/", &[ORIGIN, id]).status, 429);
    let log = gateway.wait_for_access_log(2);
    let line = log.iter().find(|line| line.contains("refused-one")).unwrap();
    assert!(line.contains("\"rate_limited\"") && line.contains("\"status\":429"), "{line}");
    let metric = "corsgate_refused_requests_total{service=\"api\",route=\"/*\",code=\"rate_limited\"}";
    assert_eq!(gateway.metric(metric), 1, "{}", gateway.metrics());
    let why = run(&["why", "refused-one", "--admin", &format!("http://{}", gateway.admin())]);
    assert_eq!(why.code, 0, "{}", why.stderr);
    for part in ["rate_limited", "status 429", "rate limit of `api` accepts 1/h for each client"] {
        assert!(why.stdout.contains(part), "{part}: {}", why.stdout);
    }
    let file = gateway.config_path();
    let url = format!("http://api.test:{}/", gateway.address().port());
    let explained = run(&["explain", "--config", file.to_str().unwrap(), "--origin", ORIGIN.1, &url]);
    assert!(explained.stdout.contains("rate limit of `api` accepts 1/h for each client"), "{explained:?}");
}

#[test]
fn a_request_is_accepted_when_retry_after_says_so() {
    let upstream = upstream();
    let gateway = Gateway::start(&limited("{ rate: 60/m, burst: 1 }", &upstream));
    let begin = Instant::now();
    assert_eq!(get(&gateway, "/", &[]).status, 200);
    let refused = get(&gateway, "/", &[]);
    assert_eq!((refused.status, refused.header("Retry-After")), (429, Some("1")));
    let mut tries = 0;
    while get(&gateway, "/", &[]).status == 429 {
        tries += 1;
        assert!(begin.elapsed() < Duration::from_secs(20), "{tries} tries");
    }
    // The first request used the budget after `begin`, so the refill cannot be earlier.
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(upstream.hits(), 2, "refused requests take nothing from the budget");
}

#[test]
fn preflights_never_use_the_budget_of_requests() {
    let upstream = upstream();
    let gateway = Gateway::start(&limited("{ rate: 3/h }", &upstream));
    let preflight = || fetch(gateway.address(), "OPTIONS", "/", &[HOST, ORIGIN, PREFLIGHT]);
    for _ in 0..50 {
        let response = preflight();
        assert_eq!((response.status, response.header("RateLimit")), (200, None));
    }
    assert_eq!(statuses(&gateway, "/", &[ORIGIN], 4), [200, 200, 200, 429]);
    assert_eq!(preflight().status, 200, "a client at its limit still gets answers to preflights");
    // An OPTIONS request that goes to the upstream uses the budget of requests.
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/", &[HOST]).status, 429);
}

#[test]
fn preflights_may_have_a_limit_of_their_own() {
    let upstream = upstream();
    let gateway =
        Gateway::start(&limited("{ rate: 1/h, key: \"header:x-key\", preflights: { rate: 2/h } }", &upstream));
    let preflight =
        |fields: Fields<'_>| fetch(gateway.address(), "OPTIONS", "/", &[&[HOST, ORIGIN, PREFLIGHT], fields].concat());
    let responses: Vec<_> = (0..3).map(|n| preflight(&[("x-key", ["a", "b", "c"][n])])).collect();
    assert_eq!([200, 200, 429], [0, 1, 2].map(|n: usize| responses[n].status), "the key of preflights is the client");
    let refused = &responses[2];
    assert_retry_after(refused, 1800);
    assert_eq!(left(refused, 1800), Some(("\"api (preflights)\"", 0)));
    assert_eq!(refused.header("Access-Control-Allow-Origin"), Some(ORIGIN.1), "{refused:?}");
    assert_eq!(preflight(&[("X-Forwarded-For", "192.0.2.9")]).status, 200);
    assert_eq!(statuses(&gateway, "/", &[("x-key", "a")], 2), [200, 429], "requests have another budget");
}

#[test]
fn a_key_has_a_budget_of_its_own() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], u16);
    // The key, the fields of a request, and its status. Each limit is one request, and the requests are sent in this
    // order.
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("client_ip", &[("X-Forwarded-For", "192.0.2.1")],                            200),
        ("client_ip", &[("X-Forwarded-For", "192.0.2.1")],                            429),
        ("client_ip", &[("X-Forwarded-For", "192.0.2.2")],                            200),
        ("client_ip", &[("X-Forwarded-For", "::ffff:192.0.2.2")],                     429),
        ("client_ip", &[("X-Forwarded-For", "2001:db8:0:1::1")],                      200),
        ("client_ip", &[("X-Forwarded-For", "2001:db8:0:1:ffff:ffff:ffff:ffff")],     429),
        ("client_ip", &[("X-Forwarded-For", "2001:db8:0:2::1")],                      200),
        ("header:X-Key", &[("X-Key", "one")],                                         200),
        ("header:X-Key", &[("x-key", "one"), ("X-Forwarded-For", "192.0.2.3")],       429),
        ("header:X-Key", &[("X-Key", "two")],                                         200),
        // Without exactly one value, the client is the key.
        ("header:X-Key", &[("X-Forwarded-For", "192.0.2.4")],                         200),
        ("header:X-Key", &[("X-Key", ""), ("X-Forwarded-For", "192.0.2.4")],          429),
        ("header:X-Key", &[("X-Key", "three"), ("X-Key", "four"), ("X-Forwarded-For", "192.0.2.4")], 429),
        ("header:X-Key", &[("X-Key", "three")],                                       200),
        ("header:X-Key", &[("X-Key", "192.0.2.4")],                                   200),
        ("cookie:id", &[("Cookie", "id=1; theme=dark")],                              200),
        ("cookie:id", &[("Cookie", "theme=light; id=1")],                             429),
        ("cookie:id", &[("Cookie", "id=2")],                                          200),
        ("cookie:id", &[("Cookie", "ID=1"), ("X-Forwarded-For", "192.0.2.5")],        200),
        ("cookie:id", &[("Cookie", "id=3; id=4"), ("X-Forwarded-For", "192.0.2.5")],  429),
        ("route", &[("X-Forwarded-For", "192.0.2.6")],                                200),
        ("route", &[("X-Forwarded-For", "192.0.2.7")],                                429),
    ];
    let upstream = upstream();
    let keys = ["client_ip", "header:X-Key", "cookie:id", "route"];
    let route = |n: usize| format!("      - {{ paths: [/{n}], rate_limit: {{ rate: 1/h, key: \"{}\" }} }}\n", keys[n]);
    let gateway = Gateway::start(&config("", &[0, 1, 2, 3].map(route).concat(), &upstream));
    for (row, (key, fields, status)) in cases.iter().enumerate() {
        let path = format!("/{}", keys.iter().position(|known| known == key).unwrap());
        assert_eq!(get(&gateway, &path, fields).status, *status, "row {row}: {key} {fields:?}");
    }
}

#[test]
fn routes_share_the_limit_of_their_service_and_may_have_their_own_or_none() {
    let upstream = upstream();
    let routes = "      - { name: a, paths: [/a] }
      - { name: b, paths: [/b] }
      - { name: own, paths: [/own], rate_limit: { rate: 1/h } }
      - { name: free, paths: [/free], rate_limit: false }
      - { name: fixed, paths: [/fixed], respond: { status: 204 } }
";
    let gateway = Gateway::start(&config("rate_limit: { rate: 3/h }", routes, &upstream));
    let get = |path| get(&gateway, path, &[]);
    assert_eq!(left(&get("/a"), 1200), Some(("\"api\"", 2)));
    let own = get("/own");
    assert_eq!((own.status, left(&own, 3600)), (200, Some(("\"api/own\"", 0))));
    assert_eq!(get("/own").status, 429);
    assert_eq!(left(&get("/b"), 1200), Some(("\"api\"", 1)));
    let fixed = get("/fixed");
    assert_eq!((fixed.status, left(&fixed, 1200)), (204, Some(("\"api\"", 0))));
    assert_eq!([get("/a").status, get("/fixed").status], [429, 429]);
    let free = get("/free");
    assert_eq!((free.status, free.header("RateLimit"), free.header("RateLimit-Policy")), (200, None, None));
    assert_eq!(get("/none").status, 404, "requests without a route have no limit");
}

/// A request that the gateway refuses for another reason does not use the budget. A request that fails at the upstream
/// uses the budget.
#[test]
fn only_requests_that_reach_the_end_of_their_route_count() {
    let upstream = upstream();
    let routes = "      - { paths: [/denied], clients: { deny: 192.0.2.0/24 } }
      - { paths: [/down], upstream: { nodes: [{ address: \"127.0.0.1:1\" }] } }
      - { paths: [/*] }
";
    let gateway = Gateway::start(&config("rate_limit: { rate: 2/h }", routes, &upstream));
    let client = ("X-Forwarded-For", "192.0.2.1");
    assert_eq!(statuses(&gateway, "/denied", &[client], 3), [403, 403, 403]);
    let down = get(&gateway, "/down", &[client, ORIGIN]);
    assert_eq!((down.status, left(&down, 1800)), (502, Some(("\"api\"", 1))), "{down:?}");
    assert_readable(&down, Some(ORIGIN.1));
    assert_eq!(statuses(&gateway, "/", &[client], 2), [200, 429]);
}

#[test]
fn the_fields_of_the_upstream_stay_and_response_headers_can_remove_all() {
    let upstream = Upstream::start(|_| {
        Reply::new(200).header("RateLimit", "\"db\";r=7").header("RateLimit-Policy", "\"db\";q=9;w=1")
    });
    let routes = "      - { paths: [/] }
      - { paths: [/quiet], response_headers: { remove: [RateLimit, RateLimit-Policy] } }
";
    let gateway = Gateway::start(&config("rate_limit: { rate: 9/h }", routes, &upstream));
    let response = get(&gateway, "/", &[]);
    let fields = response.all("RateLimit");
    assert!(fields.len() == 2 && fields[0] == "\"db\";r=7" && fields[1].starts_with("\"api\";r=8;t="), "{fields:?}");
    assert_eq!(response.all("RateLimit-Policy"), ["\"db\";q=9;w=1", "\"api\";q=9;w=3600"]);
    let quiet = get(&gateway, "/quiet", &[]);
    assert_eq!((quiet.header("RateLimit"), quiet.header("RateLimit-Policy")), (None, None));
}

#[test]
fn a_reload_keeps_the_budgets_of_limits_that_have_not_changed() {
    let upstream = upstream();
    let file = |service: &str, own: &str, more: &str| {
        let routes =
            format!("      - {{ paths: [/*] }}\n      - {{ name: own, paths: [/own], rate_limit: {own} }}\n{more}");
        config(&format!("rate_limit: {service}"), &routes, &upstream)
    };
    let gateway = Gateway::start(&file("{ rate: 2/h }", "{ rate: 1/h }", ""));
    assert_eq!(statuses(&gateway, "/", &[], 3), [200, 200, 429]);
    assert_eq!(statuses(&gateway, "/own", &[], 2), [200, 429]);
    let mut generation = 1;
    let mut reload = |text: &str| {
        generation += 1;
        gateway.reload_with(text);
        gateway.wait_for_log(&format!("reloaded generation={generation}"));
    };
    // The same limits, written in another way, and a new route.
    reload(&file("{ rate: 2/h, burst: 2, key: client_ip }", "{ rate: 1/h }", "      - { paths: [/new] }\n"));
    assert_eq!([get(&gateway, "/", &[]).status, get(&gateway, "/own", &[]).status], [429, 429]);
    assert_eq!(get(&gateway, "/new", &[]).status, 429, "a new route of the service shares its budget");
    // Only the limit of the route changes, so only its budget is full again.
    reload(&file("{ rate: 2/h }", "{ rate: 1/h, burst: 2 }", ""));
    assert_eq!(get(&gateway, "/", &[]).status, 429);
    assert_eq!(statuses(&gateway, "/own", &[], 3), [200, 200, 429]);
    // A refused file changes nothing.
    gateway.reload_with(&file("{ rate: 0/h }", "{ rate: 1/h }", ""));
    gateway.wait_for_log("reload refused");
    assert_eq!(get(&gateway, "/", &[]).status, 429);
    reload(&file("{ rate: 3/h }", "{ rate: 1/h, burst: 2 }", ""));
    assert_eq!(statuses(&gateway, "/", &[], 4), [200, 200, 200, 429]);
    assert_eq!(get(&gateway, "/own", &[]).status, 429);
}

#[test]
fn the_streams_of_an_http_2_connection_share_the_budget_of_their_client() {
    let upstream = upstream();
    let authority = Authority::new("authority");
    let config = limited("{ rate: 5/h }", &upstream).replace(
        "{ address: \"{listen}\" }",
        "{ address: \"{listen}\", tls: { certificates: [{ cert: tls/edge.crt, key: tls/edge.key }] } }",
    );
    let gateway = Gateway::start_with_files(&config, &authority.issue(&["api.test"]).files("tls/edge"));
    let client = H2Client::open(gateway.address(), &TlsClient::new(&authority, "api.test")).unwrap();
    let request = H2Request::new("GET", "api.test", "/").header("origin", ORIGIN.1);
    let pending: Vec<_> = (0..8).map(|_| client.begin(&request).unwrap()).collect();
    let responses: Vec<_> = pending.into_iter().map(|pending| pending.finish().unwrap()).collect();
    let (allowed, refused): (Vec<_>, Vec<_>) = responses.iter().partition(|response| response.status == 200);
    assert_eq!((allowed.len(), refused.len()), (5, 3));
    for response in &responses {
        assert_readable(response, Some(ORIGIN.1));
        assert_eq!(response.header("ratelimit-policy"), Some("\"api\";q=5;w=3600"));
    }
    let mut budgets: Vec<_> = allowed.iter().map(|response| left(response, 720).unwrap()).collect();
    budgets.sort_unstable();
    assert_eq!(budgets, [0, 1, 2, 3, 4].map(|requests| ("\"api\"", requests)));
    refused.iter().for_each(|response| assert_retry_after(response, 720));
}

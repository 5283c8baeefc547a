//! Load balancing: the four methods, health checks, ejection, and the state that survives a reload and a new DNS
//! lookup.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::upstream::{Received, Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

/// A configuration with one upstream of these nodes; `more` is added to the upstream.
fn config(nodes: &[(SocketAddr, u32)], more: &str) -> String {
    let nodes: Vec<_> = nodes.iter().map(|(at, weight)| format!("{{ address: \"{at}\", weight: {weight} }}")).collect();
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
trusted_proxies: [127.0.0.1]
upstreams:
  api:
    nodes: [{}]
{more}
services:
  - {{ name: api, upstream: api, cors: {{ allow_origins: https://app.test }} }}
",
        nodes.join(", ")
    )
}

/// Nodes that answer with their index.
fn nodes<const N: usize>() -> [Upstream; N] {
    std::array::from_fn(|n| Upstream::start(move |_| Reply::new(200).body(n.to_string())))
}

fn equal(nodes: &[Upstream]) -> Vec<(SocketAddr, u32)> {
    nodes.iter().map(|node| (node.address(), 1)).collect()
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// The index of the node that answers a GET with these fields.
#[track_caller]
fn node_of(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> usize {
    let fields: Vec<_> = [HOST].into_iter().chain(fields.iter().copied()).collect();
    let response = fetch(gateway.address(), "GET", target, &fields);
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().parse().unwrap()
}

fn counts(gateway: &Gateway, requests: usize) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(node_of(gateway, "/", &[])).or_default() += 1;
    }
    counts
}

// --- methods of load balancing

#[test]
fn random_gives_each_node_about_its_weight() {
    let nodes = nodes::<3>();
    let weighted: Vec<_> = nodes.iter().zip([1, 2, 3]).map(|(node, weight)| (node.address(), weight)).collect();
    let gateway = Gateway::start(&config(&weighted, "    balance: random"));
    let counts = counts(&gateway, 600);
    for (node, share) in [(0, 100_usize), (1, 200), (2, 300)] {
        // More than five standard deviations.
        assert!(counts[&node].abs_diff(share) < 65, "{counts:?}");
    }
}

/// Waits until the condition holds.
#[track_caller]
fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An active request counts until its complete end, which comes shortly after the client has the response. So each busy
/// node has two requests in this test.
#[test]
fn least_connections_picks_the_node_with_the_fewest_requests() {
    let gates: [Arc<AtomicBool>; 3] = std::array::from_fn(|_| Arc::default());
    let nodes: [Upstream; 3] = std::array::from_fn(|n| {
        let gate = gates[n].clone();
        Upstream::start(move |request| {
            if request.target == "/lasts" {
                wait("the gate opens", || gate.load(Ordering::Relaxed));
            }
            Reply::new(200).body(n.to_string())
        })
    });
    let gateway = Gateway::start(&config(&equal(&nodes), "    balance: least_connections"));
    let mut lasting = Vec::new();
    for i in 0..6 {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(b"GET /lasts HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
        wait("the request arrives", || nodes.iter().map(Upstream::hits).sum::<usize>() > i);
        lasting.push(connection);
    }
    assert_eq!(nodes.each_ref().map(Upstream::hits), [2, 2, 2]);
    gates[1].store(true, Ordering::Relaxed);
    wait("node 1 is idle", || (0..5).all(|_| node_of(&gateway, "/", &[]) == 1));
    assert_eq!(counts(&gateway, 20), BTreeMap::from([(1, 20)]));
    // After all requests have ended, all nodes are used.
    gates.iter().for_each(|gate| gate.store(true, Ordering::Relaxed));
    assert!(lasting.iter_mut().all(|connection| connection.read("GET").unwrap().status == 200));
    assert_eq!(counts(&gateway, 30).len(), 3);
}

#[test]
fn an_open_websocket_counts_as_a_request() {
    let nodes: [Upstream; 2] = std::array::from_fn(|n| {
        Upstream::start(move |request| match request.target.as_str() {
            "/socket" => Reply::echo(),
            _ => Reply::new(200).body(n.to_string()),
        })
    });
    let gateway = Gateway::start(&config(&equal(&nodes), "    balance: least_connections"));
    let mut sockets = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        let before = nodes[0].hits();
        let mut socket = Connection::open(gateway.address()).unwrap();
        let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
        assert_eq!(socket.request("GET", "/socket", &upgrade, b"").unwrap().status, 101);
        sockets[usize::from(nodes[0].hits() == before)].push(socket);
    }
    assert_eq!(sockets.each_ref().map(Vec::len), [2, 2]);
    sockets[0].clear();
    wait("node 0 is idle", || (0..5).all(|_| node_of(&gateway, "/", &[]) == 0));
    assert_eq!(counts(&gateway, 20), BTreeMap::from([(0, 20)]));
    sockets[1].clear();
    wait("node 1 is idle too", || counts(&gateway, 4).len() == 2);
}

#[test]
fn a_hash_sends_the_same_value_to_the_same_node() {
    let nodes = nodes::<4>();
    for (hash_on, at) in [
        (
            "header:X-Tenant",
            (|i| ("/".into(), vec![("X-Tenant", i)])) as fn(String) -> (String, Vec<(&'static str, String)>),
        ),
        ("cookie:tenant", |i| ("/".into(), vec![("Cookie", format!("xtenant=7; tenant={i}; other=1"))])),
        ("path", |i| (format!("/{i}?{i}"), vec![("X-Tenant", i)])),
        ("client_address", |i| ("/".into(), vec![("X-Forwarded-For", format!("10.0.{i}.7"))])),
    ] {
        let more = format!("    balance: hash\n    hash_on: {hash_on}");
        let gateway = Gateway::start(&config(&equal(&nodes), &more));
        let of = |i: usize, noise: &str| {
            let (target, fields) = at(i.to_string());
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let fields: Vec<_> = fields.into_iter().chain([("X-Noise", noise)]).collect();
            node_of(&gateway, &target, &fields)
        };
        let first: Vec<usize> = (0..40).map(|i| of(i, "a")).collect();
        assert_eq!(first, (0..40).map(|i| of(i, "b")).collect::<Vec<_>>(), "{hash_on}");
        assert!((0..4).all(|node| first.contains(&node)), "{hash_on}: {first:?}");
        // Another process chooses the same node.
        let other = Gateway::start(&config(&equal(&nodes), &more));
        let (target, fields) = at("7".into());
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(node_of(&other, &target, &fields), first[7], "{hash_on}");
    }
}

#[test]
fn a_hash_without_its_value_is_round_robin() {
    let nodes = nodes::<2>();
    let gateway = Gateway::start(&config(&equal(&nodes), "    balance: hash\n    hash_on: cookie:tenant"));
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(0, 5), (1, 5)]));
}

#[test]
fn only_the_keys_of_a_removed_node_move() {
    let nodes = nodes::<3>();
    let more = "    balance: hash\n    hash_on: header:X-Tenant";
    let gateway = Gateway::start(&config(&equal(&nodes), more));
    let all = |gateway: &Gateway| -> Vec<usize> {
        (0..60).map(|i| node_of(gateway, "/", &[("X-Tenant", &i.to_string())])).collect()
    };
    let before = all(&gateway);
    gateway.reload_with(&config(&equal(&nodes[..2]), more));
    gateway.wait_for_log("reloaded generation=2");
    let after = all(&gateway);
    for (was, is) in before.iter().zip(&after) {
        assert!(*was == 2 && *is < 2 || was == is, "{before:?} {after:?}");
    }
    assert!(before.contains(&2));
}

// --- health checks

/// A node whose health checks the test can fail and count.
struct Checked {
    upstream: Upstream,
    well: Arc<AtomicBool>,
}

fn checked(n: usize) -> Checked {
    let well = Arc::new(AtomicBool::new(true));
    let upstream = Upstream::start({
        let well = well.clone();
        move |request| match request.target.as_str() {
            "/health?deep" if !well.load(Ordering::Relaxed) => Reply::new(500),
            _ => Reply::new(200).body(n.to_string()),
        }
    });
    Checked { upstream, well }
}

const CHECK: &str = "
    health_check: { path: /health?deep, host: checks.test, interval: 100ms, timeout: 2s, status: 200-299,
                    healthy_after: 2, unhealthy_after: 2 }";

impl Checked {
    fn checks(&self) -> Vec<Received> {
        self.upstream.received().into_iter().filter(|request| request.target == "/health?deep").collect()
    }
}

#[test]
fn a_health_check_takes_a_node_out_and_back_in() {
    let nodes = [checked(0), checked(1)];
    let addresses = nodes.each_ref().map(|node| (node.upstream.address(), 1));
    let gateway = Gateway::start(&config(&addresses, CHECK));
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(0, 5), (1, 5)]));

    nodes[0].well.store(false, Ordering::Relaxed);
    let address = addresses[0].0;
    gateway.wait_for_log(&format!("node unhealthy upstream=api address={address} error=\"status 500\""));
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(1, 10)]));

    nodes[0].well.store(true, Ordering::Relaxed);
    gateway.wait_for_log(&format!("node healthy upstream=api address={address}"));
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(0, 5), (1, 5)]));
    assert!(!gateway.stderr().contains(&format!("address={}", addresses[1].0)), "the other one was well all the time");

    let checks = nodes[0].checks();
    assert!(checks.iter().all(|check| check.method == "GET" && check.header("Host") == Some("checks.test")));
    assert!(checks.iter().all(|check| check.header("User-Agent") == Some("corsgate-health-check")));
}

#[test]
fn a_health_check_sends_the_address_of_the_node_as_host_by_default() {
    let node = Upstream::start(|_| Reply::new(204));
    let check = "    health_check: { path: /health, interval: 100ms }";
    let _gateway = Gateway::start(&config(&[(node.address(), 1)], check));
    node.wait_for_hits(1);
    assert_eq!(node.received()[0].header("Host"), Some(node.address().to_string().as_str()));
}

#[test]
fn with_all_nodes_down_requests_get_503_with_cors_headers() {
    let nodes = [checked(0), checked(1)];
    let addresses = nodes.each_ref().map(|node| (node.upstream.address(), 1));
    let gateway = Gateway::start(&format!("admin: {{ address: \"{{admin}}\" }}\n{}", config(&addresses, CHECK)));
    let healthy = |n: usize| {
        let metrics = fetch(gateway.admin(), "GET", "/metrics", &[("Host", "localhost")]);
        let line = format!("corsgate_upstream_node_healthy{{upstream=\"api\",address=\"{}\"}} ", addresses[n].0);
        metrics.text().lines().find_map(|found| found.strip_prefix(&line).map(str::to_owned)).expect("a line")
    };
    assert_eq!([healthy(0), healthy(1)], ["1", "1"]);
    nodes.iter().for_each(|node| node.well.store(false, Ordering::Relaxed));
    gateway.wait_for_log_count("node unhealthy upstream=api", 2);
    assert_eq!([healthy(0), healthy(1)], ["0", "0"]);
    let response = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN]);
    assert_eq!((response.status, response.text()), (503, "No node of the upstream is available.\n"));
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    nodes[1].well.store(true, Ordering::Relaxed);
    gateway.wait_for_log("node healthy upstream=api");
    assert_eq!(counts(&gateway, 4), BTreeMap::from([(1, 4)]));
}

/// A node that accepts connections and never answers: a check with a path fails, and a check that only connects
/// succeeds.
#[test]
fn a_health_check_fails_after_its_timeout() {
    let silent = Upstream::start(|_| Reply::hang());
    let well = Upstream::start(|_| Reply::new(200));
    let addresses = [(silent.address(), 1), (well.address(), 1)];
    let check = "    health_check: { path: /, interval: 100ms, timeout: 200ms, unhealthy_after: 1 }";
    let gateway = Gateway::start(&config(&addresses, check));
    gateway.wait_for_log(&format!(
        "node unhealthy upstream=api address={} error=\"no response within 200ms\"",
        silent.address()
    ));

    let connects = "    health_check: { interval: 100ms, timeout: 200ms, unhealthy_after: 1, healthy_after: 1 }";
    let (gone, later) = (nowhere(), nowhere());
    let gateway = Gateway::start(&config(&[(silent.address(), 1), (gone, 1), (later, 1)], connects));
    gateway.wait_for_log(&format!("node unhealthy upstream=api address={gone} error="));
    gateway.wait_for_log(&format!("node unhealthy upstream=api address={later} error="));
    let _later = Upstream::start_at(later, |_| Reply::new(200));
    gateway.wait_for_log(&format!("node healthy upstream=api address={later}"));
    assert!(!gateway.stderr().contains(&format!("address={}", silent.address())), "it takes connections");
}

/// Every node is checked within a second after the start. Without a limit, the checks of thousands of nodes would use
/// thousands of sockets.
#[test]
fn at_most_256_health_checks_run_at_a_time() {
    const NODES: u8 = 150;
    /// Duration of each check. All of the first checks run during this time.
    const TIME: Duration = Duration::from_millis(1500);
    let (first, early) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_port()));
    let upstream = Upstream::start_at(any, {
        let early = early.clone();
        move |_| {
            if first.get_or_init(Instant::now).elapsed() < TIME {
                early.fetch_add(1, Ordering::Relaxed);
            }
            Reply::new(200).after(TIME)
        }
    });
    let node = |net: u8, host: u8| (SocketAddr::from(([127, 0, net, host], any.port())), 1);
    let nodes: Vec<_> = (1..=NODES).flat_map(|host| [node(1, host), node(2, host)]).collect();
    let _gateway = Gateway::start(&config(&nodes, "    health_check: { path: /, interval: 1h, timeout: 10s }"));
    upstream.wait_for_hits(nodes.len());
    let early = early.load(Ordering::Relaxed);
    assert!(early > 0 && early <= 256, "{early} of {} checks at a time", nodes.len());
}

/// Checks over TLS verify the certificate, checks of an HTTP/2 upstream use HTTP/2 with and without TLS, and the log
/// names the error.
#[test]
fn health_checks_use_the_tls_and_http_version_of_the_upstream() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let issue = |authority: &Authority| authority.issue(&["upstream.test"]);
    let files = [("tls/ca.pem".to_owned(), authority.pem())];
    let tls = "tls: { sni: upstream.test, ca: tls/ca.pem }";
    let check = "health_check: { path: /health, interval: 100ms, unhealthy_after: 1, healthy_after: 1 }";
    let start = |nodes: &[(SocketAddr, u32)], more: &str| {
        Gateway::start_with_files(&config(nodes, &format!("    {check}\n    {more}")), &files)
    };

    let good = Upstream::start_tls(issue(&authority).server(None, &[]), |_| Reply::new(200));
    let bad = Upstream::start_tls(issue(&stranger).server(None, &[]), |_| Reply::new(200));
    let gateway = start(&[(good.address(), 1), (bad.address(), 1)], tls);
    gateway.wait_for_log(&format!("node unhealthy upstream=api address={} error=\"", bad.address()));
    assert!(gateway.stderr().contains("UnknownIssuer"), "{}", gateway.stderr());
    good.wait_for_hits(3);
    let asked = good.received().remove(0);
    assert_eq!((asked.header("Host"), asked.sni.as_deref()), (Some("upstream.test"), Some("upstream.test")));
    assert!(!gateway.stderr().contains(&format!("address={}", good.address())), "{}", gateway.stderr());

    let good = H2Upstream::start_tls(issue(&authority).server(None, &["h2"]), |_| H2Reply::new(204));
    let bad = Upstream::start_tls(issue(&authority).server(None, &[]), |_| Reply::new(200));
    let gateway = start(&[(good.address(), 1), (bad.address(), 1)], &format!("http2: true\n    {tls}"));
    gateway.wait_for_log(&format!("node unhealthy upstream=api address={} error=\"", bad.address()));
    good.wait_for_hits(3);
    let asked = good.received().remove(0);
    assert_eq!((asked.authority.as_deref(), asked.scheme.as_deref()), (Some("upstream.test"), Some("https")));
    assert!(good.received()[2].connection > asked.connection, "a check has a connection of its own");
    assert!(!gateway.stderr().contains(&format!("address={}", good.address())), "{}", gateway.stderr());

    let good = H2Upstream::start(|_| H2Reply::new(200).body("fine"));
    let gateway = start(&[(good.address(), 1)], "http2: true");
    good.wait_for_hits(3);
    let asked = good.received().remove(0);
    assert_eq!(asked.authority, Some(good.address().to_string()));
    assert_eq!((asked.scheme.as_deref(), asked.path.as_str()), (Some("http"), "/health"));
    assert!(!gateway.stderr().contains("node unhealthy"), "{}", gateway.stderr());
}

#[test]
fn health_checks_follow_reloads() {
    let nodes = [checked(0), checked(1), checked(2)];
    let addresses = nodes.each_ref().map(|node| (node.upstream.address(), 1));
    let gateway = Gateway::start(&config(&addresses[..2], CHECK));
    nodes[0].well.store(false, Ordering::Relaxed);
    gateway.wait_for_log("node unhealthy upstream=api");

    // The upstream does not change, so the state stays. No new check has failed yet.
    gateway.reload_with(&format!("{}\n# the same upstream\nlimits: {{ uri: 4KiB }}\n", config(&addresses[..2], CHECK)));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(counts(&gateway, 6), BTreeMap::from([(1, 6)]));

    // The upstream changes, so the new nodes have a new state.
    gateway.reload_with(&config(&addresses[1..], CHECK));
    gateway.wait_for_log("reloaded generation=3");
    nodes[2].upstream.wait_for_hits(1);
    let before = nodes[0].checks().len();
    nodes[1].well.store(false, Ordering::Relaxed);
    gateway.wait_for_log(&format!("node unhealthy upstream=api address={}", addresses[1].0));
    assert!(nodes[0].checks().len() <= before + 1, "nobody asks the one that is gone");

    // Without health checks, all nodes are used.
    gateway.reload_with(&config(&addresses[1..], ""));
    gateway.wait_for_log("reloaded generation=4");
    assert_eq!(counts(&gateway, 6), BTreeMap::from([(1, 3), (2, 3)]));
}

// --- ejection

/// Two nodes. Nothing listens at one of them until the test starts it.
fn with_a_dead_node(more: &str) -> (Gateway, Upstream, SocketAddr) {
    let (alive, dead) = (Upstream::start(|_| Reply::new(200).body("1")), nowhere());
    let gateway = Gateway::start(&config(&[(dead, 1), (alive.address(), 1)], more));
    (gateway, alive, dead)
}

/// Sends requests until the log has this line.
#[track_caller]
fn request_until(gateway: &Gateway, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gateway.stderr().contains(line) {
        assert!(Instant::now() < deadline, "{line:?} is not in the log");
        assert_eq!(fetch(gateway.address(), "POST", "/", &[HOST]).status, 200);
    }
}

#[test]
fn a_failing_node_is_ejected_for_a_time() {
    let (gateway, _alive, dead) = with_a_dead_node("    ejection: { after: 3, for: 500ms }");
    request_until(&gateway, &format!("node ejected upstream=api address={dead} for=0.5s"));
    assert_eq!(gateway.stderr().matches("connect failed").count(), 3);
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(1, 10)]));

    // One failure after the ejection is enough to eject the node again.
    gateway.wait_for_log(&format!("node readmitted upstream=api address={dead}"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while gateway.stderr().matches("node ejected").count() < 2 {
        assert!(Instant::now() < deadline, "it is not ejected again");
        assert_eq!(fetch(gateway.address(), "POST", "/", &[HOST]).status, 200);
    }
    assert_eq!(gateway.stderr().matches("connect failed").count(), 4);

    // A node that answers again is used again.
    let _dead = Upstream::start_at(dead, |_| Reply::new(200).body("0"));
    gateway.wait_for_log_count("node readmitted", 2);
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(0, 5), (1, 5)]));
}

#[test]
fn without_ejection_a_failing_node_keeps_getting_requests() {
    let (gateway, _alive, _) = with_a_dead_node("    ejection: false");
    assert_eq!(counts(&gateway, 20), BTreeMap::from([(1, 20)]));
    assert_eq!(gateway.stderr().matches("connect failed").count(), 10);
}

#[test]
fn the_last_node_is_never_ejected() {
    let (one, other) = (nowhere(), nowhere());
    let gateway =
        Gateway::start(&config(&[(one, 1), (other, 1)], "    ejection: { after: 1, for: 1h }\n    retries: 0"));
    for _ in 0..10 {
        let response = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN]);
        assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (502, Some("https://app.test")));
    }
    assert_eq!(gateway.stderr().matches("node ejected").count(), 1);
    let last = if gateway.stderr().contains(&format!("node ejected upstream=api address={one}")) { other } else { one };
    let _last = Upstream::start_at(last, |_| Reply::new(200).body("1"));
    assert_eq!(counts(&gateway, 4), BTreeMap::from([(1, 4)]));
}

#[test]
fn a_reload_keeps_the_ejections_of_an_unchanged_upstream() {
    let ejection = "    ejection: { after: 2, for: 1h }";
    let (gateway, alive, dead) = with_a_dead_node(ejection);
    request_until(&gateway, "node ejected");
    let nodes = [(dead, 1), (alive.address(), 1)];
    gateway.reload_with(&format!("{}\nlimits: {{ uri: 4KiB }}\n", config(&nodes, ejection)));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(1, 10)]));
    assert_eq!(gateway.stderr().matches("connect failed").count(), 2, "it is still ejected");

    gateway.reload_with(&config(&nodes, "    ejection: { after: 3, for: 1h }"));
    gateway.wait_for_log("reloaded generation=3");
    request_until(&gateway, "node ejected upstream=api");
    counts(&gateway, 10);
    assert_eq!(gateway.stderr().matches("connect failed").count(), 5, "a changed one begins anew");
}

/// A smoke test; the unit tests of `upstream` have the cases.
#[test]
fn a_dns_lookup_keeps_the_ejections_of_known_addresses() {
    let alive = Upstream::start(|_| Reply::new(200).body("1"));
    let begin = Instant::now();
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
upstreams:
  api:
    nodes: [{{ address: \"localhost:{}\" }}, {{ address: \"{}\" }}]
    ejection: {{ after: 2, for: 1h }}
    retries: 2
services:
  - {{ name: api, upstream: api }}
",
        free_port(),
        alive.address()
    ));
    // `localhost` may be 127.0.0.1 and ::1, which are ejected one after the other.
    let failures = || gateway.stderr().matches("connect failed").count();
    let mut before = usize::MAX;
    let deadline = Instant::now() + Duration::from_secs(10);
    while before != failures() || before == 0 {
        assert!(Instant::now() < deadline, "{before} failures");
        before = failures();
        assert_eq!(counts(&gateway, 10), BTreeMap::from([(1, 10)]));
    }
    // The process looks up names every 5 s. No output shows the lookup, so the test waits.
    thread::sleep(Duration::from_secs(6).saturating_sub(begin.elapsed()));
    assert_eq!(counts(&gateway, 10), BTreeMap::from([(1, 10)]));
    assert_eq!(failures(), before);
}

#[test]
fn slow_start_limits_the_share_of_a_returning_node() {
    let (gateway, alive, dead) = with_a_dead_node("    ejection: { after: 1, for: 200ms }\n    slow_start: 1h");
    request_until(&gateway, "node ejected");
    let hits = Arc::new(AtomicUsize::new(0));
    let _dead = Upstream::start_at(dead, {
        let hits = hits.clone();
        move |_| {
            hits.fetch_add(1, Ordering::Relaxed);
            Reply::new(200).body("0")
        }
    });
    gateway.wait_for_log("node readmitted");
    // Slow start begins with a tenth of the weight. The other node has its whole weight.
    assert_eq!(counts(&gateway, 110), BTreeMap::from([(0, 10), (1, 100)]));
    assert!(alive.hits() > 100);
}

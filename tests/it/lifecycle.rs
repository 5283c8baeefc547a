//! Signals, reloads, and how the process starts and ends.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use corsgate::live::Live;
use corsgate::source::ConfigSource;

use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, Signal, free_port, run, run_in};
use crate::support::process::poll;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const UPGRADE: [(&str, &str); 3] = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];

/// Two policies that differ in every header.
const A: &str = "{ allow_origins: https://app.test, allow_methods: [GET, PUT], allow_headers: [X-A], \
                 expose_headers: [X-A], max_age: 11, allow_credentials: true }";
const B: &str = "{ allow_origins: [https://app.test, https://b.test], allow_methods: [GET, DELETE], \
                 allow_headers: [X-B], expose_headers: [X-B], max_age: 22, timing_allow_origins: https://b.test }";

fn config(upstream: SocketAddr, policy: &str) -> String {
    with_grace("10s", upstream, policy)
}

fn with_grace(grace_period: &str, upstream: SocketAddr, policy: &str) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
server: {{ grace_period: {grace_period} }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }}
    cors: {policy}
"
    )
}

fn get(gateway: &Gateway) -> Response {
    fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN])
}

/// Returns the policy of a response to a GET. All headers must belong to this policy.
#[track_caller]
fn policy_of(response: &Response) -> char {
    let mut fields: Vec<_> = (response.headers.iter())
        .filter(|(name, _)| name.starts_with("access-control-") || name == "vary" || name == "timing-allow-origin")
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    fields.sort();
    match fields.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://app.test",
            "access-control-expose-headers: X-A",
            "vary: Origin",
        ]
        | [
            "access-control-allow-credentials: true",
            "access-control-allow-headers: X-A" | "access-control-allow-headers: x-a",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: https://app.test",
            "access-control-expose-headers: X-A",
            "access-control-max-age: 11",
            "vary: Origin",
        ] => 'A',
        ["access-control-allow-origin: https://app.test", "access-control-expose-headers: X-B", "vary: Origin"]
        | [
            "access-control-allow-headers: X-B" | "access-control-allow-headers: x-b",
            "access-control-allow-methods: GET, DELETE",
            "access-control-allow-origin: https://app.test",
            "access-control-expose-headers: X-B",
            "access-control-max-age: 22",
            "vary: Origin",
        ] => 'B',
        _ => panic!("neither A nor B as a whole: {fields:#?}"),
    }
}

/// An upstream that answers `/slow` only after the test releases it.
fn slow_upstream() -> (Upstream, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let upstream = Upstream::start(move |request| {
        if request.target == "/slow" {
            // An error means that the test has ended.
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(15));
        }
        Reply::new(200).body(request.target.as_str())
    });
    (upstream, release)
}

/// A request for `/slow` that the upstream has received.
fn begin_slow(gateway: &Gateway, upstream: &Upstream) -> Connection {
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(b"GET /slow HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\n\r\n").unwrap();
    upstream.wait_for_hits(1);
    connection
}

// --- reload

#[test]
fn sighup_applies_the_new_policy() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    let mut kept = Connection::open(gateway.address()).unwrap();
    assert_eq!(policy_of(&kept.request("GET", "/", &[HOST, ORIGIN], b"").unwrap()), 'A');
    gateway.reload_with(&config(upstream.address(), B));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(policy_of(&get(&gateway)), 'B');
    // A connection stays open across reloads; it has no generation.
    assert_eq!(policy_of(&kept.request("GET", "/", &[HOST, ORIGIN], b"").unwrap()), 'B');
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request_and_mix_no_policies() {
    let upstream = Upstream::start(|_| Reply::new(200).header("Access-Control-Allow-Origin", "*"));
    let gateway = Gateway::start(&config(upstream.address(), A));
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        // The clients must end even if the scope panics.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = Stop(&stop);
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (stop, address) = (&stop, gateway.address());
                scope.spawn(move || {
                    let mut connection = Connection::open(address).unwrap();
                    let mut seen = String::new();
                    while !stop.load(Ordering::Relaxed) {
                        let preflight = [HOST, ORIGIN, ("Access-Control-Request-Method", "GET")];
                        let response = match seen.len() % 2 {
                            0 => connection.request("GET", "/", &[HOST, ORIGIN], b"").unwrap(),
                            _ => connection.request("OPTIONS", "/", &preflight, b"").unwrap(),
                        };
                        assert_eq!(response.status, 200);
                        seen.push(policy_of(&response));
                        if client == 0 {
                            connection = Connection::open(address).unwrap();
                        }
                    }
                    seen
                })
            })
            .collect();
        let mut refused = 0;
        for n in 1..=100 {
            gateway.reload_with(&config(upstream.address(), if n % 2 == 0 { A } else { B }));
            gateway.wait_for_log(&format!("reloaded generation={}\n", n + 1));
            if n % 10 == 0 {
                gateway.reload_with("services: [{ name: broken, cors: nobody }]\nlisten: {listen}\n");
                refused += 1;
                gateway.wait_for_log_count("reload refused", refused);
            }
        }
        drop(stopping);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<String>()
    });
    let changes = seen.as_bytes().windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(seen.len() > 300 && changes > 30, "{} responses, {changes} changes", seen.len());
    assert_eq!(gateway.metric("corsgate_config_reloads_total{result=\"applied\"}"), 100);
    assert_eq!(gateway.metric("corsgate_config_reloads_total{result=\"refused\"}"), 10);
    assert_eq!(gateway.metric("corsgate_config_generation"), 101);
    assert_eq!(policy_of(&get(&gateway)), 'A');
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported_as_by_check() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    let broken = config(upstream.address(), "{ allow_origins: [\"*\", https://App.test/], allow_methods: [GE T] }");
    gateway.reload_with(&format!("{broken}unknown: 1\n"));
    gateway.wait_for_log("reload refused, keeping the running configuration:");
    assert_eq!(gateway.metric("corsgate_config_last_reload_refused"), 1);
    assert_eq!(gateway.metric("corsgate_config_generation"), 1);
    assert_eq!(policy_of(&get(&gateway)), 'A');

    let path = gateway.config_path();
    let check = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(check.code, 1);
    let log = gateway.stderr();
    let faults = check.stdout.lines().filter(|line| line.contains("corsgate.yaml:")).collect::<Vec<_>>();
    assert!(faults.len() >= 4, "{}", check.stdout);
    for fault in faults.iter().filter(|fault| !fault.contains("hint")) {
        assert!(log.contains(fault), "{fault}\nis not in\n{log}");
    }

    gateway.reload_with(&config(upstream.address(), B));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(gateway.metric("corsgate_config_last_reload_refused"), 0);
    assert_eq!(policy_of(&get(&gateway)), 'B');
}

#[test]
fn a_missing_file_changes_nothing() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    fs::remove_file(gateway.config_path()).unwrap();
    gateway.signal(Signal::Hup);
    gateway.wait_for_log(&format!("cannot read {}", gateway.config_path().display()));
    assert_eq!(policy_of(&get(&gateway)), 'A');
    assert_eq!(gateway.metric("corsgate_config_last_reload_refused"), 1);
}

/// In an earlier version, each renamed upstream kept its idle connections until their timeout.
#[test]
fn reloads_that_rename_an_upstream_do_not_add_connections() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let text = |n: usize| config(upstream.address(), A).replace("name: api", &format!("name: api{n}"));
    let gateway = Gateway::start(&text(1));
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    get(&gateway);
    let before = descriptors();
    for n in 2..=51 {
        gateway.reload_with(&text(n));
        gateway.wait_for_log(&format!("reloaded generation={n}\n"));
        assert_eq!(get(&gateway).status, 200);
    }
    let connections = upstream.received().iter().map(|request| request.connection).max();
    // A request may begin before the last connection is idle again.
    assert!(connections < Some(10), "{connections:?} connections");
    assert!(descriptors() < before + 10, "{before} descriptors became {}", descriptors());
}

/// Freeing 100,000 routes takes as long as many requests. The last request of a configuration must not free it.
#[test]
fn a_reload_frees_the_replaced_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corsgate.yaml");
    let text = config(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), A);
    fs::write(&path, text.replace("{listen}", "127.0.0.1:2").replace("{admin}", "127.0.0.1:3")).unwrap();
    let (live, _) = Live::start(ConfigSource::File(path.clone())).unwrap();
    let request = live.current();
    let first = Arc::downgrade(&request);
    live.reload().unwrap();
    live.reload().unwrap();
    assert!(live.free_retired(), "a request still uses the first one");
    drop(request);
    assert!(first.upgrade().is_some(), "the request did not free it");
    assert!(!live.free_retired());
    assert!(first.upgrade().is_none());
    assert_eq!(live.current().number, 3);
}

/// Reading from a pipe would block this reload and all later reloads.
#[test]
fn a_pipe_as_configuration_file_is_refused_and_blocks_no_reload() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    fs::remove_file(gateway.config_path()).unwrap();
    assert!(Command::new("mkfifo").arg(gateway.config_path()).status().unwrap().success());
    gateway.signal(Signal::Hup);
    gateway.wait_for_log("it is not a regular file");
    gateway.reload_with(&config(upstream.address(), B));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(policy_of(&get(&gateway)), 'B');
}

#[test]
fn sighup_during_the_start_is_neither_lost_nor_fatal() {
    let upstream = Upstream::start(|_| Reply::new(200));
    for _ in 0..3 {
        let mut gateway = Gateway::spawn(&config(upstream.address(), A));
        // `signal` returns when a handler exists, which is long before the process can handle the signal.
        gateway.signal(Signal::Hup);
        gateway.reload_with(&config(upstream.address(), B));
        gateway.wait_until_it_accepts();
        gateway.wait_for_log("reloaded generation=2");
        assert_eq!(policy_of(&get(&gateway)), 'B');
    }
}

#[test]
fn a_request_keeps_its_configuration_across_a_reload() {
    let (upstream, release) = slow_upstream();
    let other = Upstream::start(|_| Reply::new(200).body("other"));
    let gateway = Gateway::start(&config(upstream.address(), A));
    let mut slow = begin_slow(&gateway, &upstream);
    gateway.reload_with(&config(other.address(), B));
    gateway.wait_for_log("reloaded generation=2");
    let now = get(&gateway);
    assert_eq!((policy_of(&now), now.text()), ('B', "other"));
    release.send(()).unwrap();
    let response = slow.read("GET").unwrap();
    assert_eq!((policy_of(&response), response.text()), ('A', "/slow"));
}

/// What the gateway does with a response is also of the configuration that decided the request, not only its policy. Here
/// the routes change their places, so a mixture of both configurations would show.
#[test]
fn the_edits_of_a_response_are_of_the_configuration_of_its_request() {
    let (upstream, release) = slow_upstream();
    let with_routes = |routes: &str| {
        format!(
            "listeners: [{{ address: '{{listen}}' }}]\nservices:\n  - name: api\n    upstream: {{ nodes: [{{ address: '{}' }}] }}\n    routes: [{routes}]\n",
            upstream.address()
        )
    };
    let set = |value: &str| format!("response_headers: {{ set: {{ X-Route: {value} }} }}");
    let old = format!("{{ paths: [/slow], {} }}, {{ paths: [/*], {} }}", set("slow-old"), set("all-old"));
    let new = format!("{{ paths: [/other], {} }}, {{ paths: [/*], {} }}", set("other-new"), set("all-new"));
    let gateway = Gateway::start(&with_routes(&old));
    let mut slow = begin_slow(&gateway, &upstream);
    gateway.reload_with(&with_routes(&new));
    gateway.wait_for_log("reloaded generation=2");
    let now = fetch(gateway.address(), "GET", "/other", &[("Host", "api.test")]);
    assert_eq!(now.header("X-Route"), Some("other-new"));
    release.send(()).unwrap();
    assert_eq!(slow.read("GET").unwrap().header("X-Route"), Some("slow-old"));
}

/// As above, under load: each reload moves the routes, and each response tells which route and configuration made it.
#[test]
fn no_response_mixes_the_routes_of_two_configurations() {
    let upstream = Upstream::start(|_| Reply::new(200).after(Duration::from_millis(20)));
    let with_routes = |n: usize| {
        let mut routes: Vec<String> =
            (0..5).map(|i| format!("{{ paths: [/r{i}], response_headers: {{ set: {{ X-Route: r{i} }} }} }}")).collect();
        routes.rotate_left(n % 5);
        format!(
            "listeners: [{{ address: '{{listen}}' }}]\nservices:\n  - name: api\n    upstream: {{ nodes: [{{ address: '{}' }}] }}\n    routes: [{}]\n",
            upstream.address(),
            routes.join(", ")
        )
    };
    let gateway = Gateway::start(&with_routes(0));
    let stop = AtomicBool::new(false);
    let requests: [AtomicU64; 5] = Default::default();
    thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for (i, count) in requests.iter().enumerate() {
            let (gateway, stop) = (&gateway, &stop);
            scope.spawn(move || {
                let _stop = StopAtEnd(stop);
                while !stop.load(Ordering::Relaxed) {
                    let response = fetch(gateway.address(), "GET", &format!("/r{i}"), &[("Host", "api.test")]);
                    assert_eq!((response.status, response.header("X-Route")), (200, Some(&*format!("r{i}"))));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=20 {
            gateway.reload_with(&with_routes(n));
            gateway.wait_for_log(&format!("reloaded generation={}\n", n + 1));
            // Each client has a response after this reload.
            for count in &requests {
                let before = count.load(Ordering::Relaxed);
                let found = poll(Duration::from_secs(20), || {
                    (stop.load(Ordering::Relaxed) || count.load(Ordering::Relaxed) > before).then_some(())
                });
                assert!(found.is_some(), "a client has no response after reload {n}");
            }
        }
    });
}

/// Stops the other threads when it is dropped, also after a panic.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_error_of_a_request_has_the_policy_of_its_own_configuration() {
    let hanging = Upstream::start(|_| Reply::hang());
    let gateway = Gateway::start(&config(hanging.address(), A));
    let mut slow = begin_slow(&gateway, &hanging);
    gateway.reload_with(&config(hanging.address(), B));
    gateway.wait_for_log("reloaded generation=2");
    drop(hanging);
    let response = slow.read("GET").unwrap();
    assert_eq!((response.status, policy_of(&response)), (502, 'A'));
}

#[test]
fn a_changed_listener_needs_a_restart_and_other_changes_apply() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    let elsewhere = format!("127.0.0.1:{}", free_port());
    let changed = with_grace("9s", upstream.address(), B).replace("{listen}", &elsewhere);
    gateway.reload_with(&changed);
    gateway.wait_for_log("reloaded generation=2");
    let log = gateway.stderr();
    assert!(log.contains("change needs a restart key=listeners"), "{log}");
    assert!(log.contains("change needs a restart key=server"), "{log}");
    assert!(!log.contains("`admin` has changed"), "{log}");
    assert_eq!(policy_of(&get(&gateway)), 'B');
    let error = TcpStream::connect(&elsewhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// The new address includes the address of the open socket. The process must still accept connections on this socket.
#[test]
fn a_listener_that_changes_to_all_addresses_keeps_serving() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    for (generation, host, policy) in [(2, "0.0.0.0", B), (3, "[::]", A)] {
        let everywhere = format!("{host}:{}", gateway.address().port());
        gateway.reload_with(&config(upstream.address(), policy).replace("{listen}", &everywhere));
        gateway.wait_for_log(&format!("reloaded generation={generation}\n"));
        assert!(gateway.stderr().contains("change needs a restart key=listeners"), "{host}");
        assert_eq!(policy_of(&get(&gateway)), if generation == 2 { 'B' } else { 'A' }, "{host}");
    }
}

#[test]
fn a_websocket_survives_reloads() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/socket" => Reply::echo(),
        _ => Reply::new(200),
    });
    let gateway = Gateway::start(&config(upstream.address(), A));
    let mut socket = Connection::open(gateway.address()).unwrap();
    assert_eq!(socket.request("GET", "/socket", &UPGRADE, b"").unwrap().status, 101);
    for generation in 2..=4 {
        gateway.reload_with(&config(upstream.address(), if generation % 2 == 0 { B } else { A }));
        gateway.wait_for_log(&format!("reloaded generation={generation}\n"));
        socket.send(b"are you there").unwrap();
        assert_eq!(socket.receive(13).unwrap(), b"are you there");
    }
    // The request also ends normally if its upstream is no longer in the configuration.
    let other = Upstream::start(|_| Reply::new(200));
    gateway.reload_with(&config(other.address(), "false"));
    gateway.wait_for_log("reloaded generation=5");
    socket.send(b"still").unwrap();
    assert_eq!(socket.receive(5).unwrap(), b"still");
}

// --- shutdown

#[test]
fn sigterm_ends_an_idle_process_at_once() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let mut gateway = Gateway::start(&config(upstream.address(), A));
    let mut idle = Connection::open(gateway.address()).unwrap();
    idle.request("GET", "/", &[HOST], b"").unwrap();
    let asked = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?} of a grace period of 10 s", asked.elapsed());
    assert!(idle.closed());
    assert!(gateway.stderr().contains("stopped"), "{}", gateway.stderr());
}

#[test]
fn sigterm_waits_exactly_until_running_requests_end() {
    let (upstream, release) = slow_upstream();
    let mut gateway = Gateway::start(&config(upstream.address(), A));
    let mut slow = begin_slow(&gateway, &upstream);
    gateway.signal(Signal::Term);
    gateway.wait_for_log("shutdown started requests=1");
    let refused = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        TcpStream::connect(gateway.address()).is_err()
    });
    assert!(refused, "it still accepts connections");
    release.send(()).unwrap();
    let released = Instant::now();
    let response = slow.read("GET").unwrap();
    assert_eq!((response.status, response.text(), policy_of(&response)), (200, "/slow", 'A'));
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(released.elapsed() < Duration::from_secs(4), "{:?} of a grace period of 10 s", released.elapsed());
    assert!(slow.closed());
}

#[test]
fn sigterm_ends_the_process_after_the_grace_period() {
    let upstream = Upstream::start(|_| Reply::hang());
    let mut gateway = Gateway::start(&with_grace("1s", upstream.address(), A));
    let mut slow = begin_slow(&gateway, &upstream);
    let asked = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
    let waited = asked.elapsed();
    assert!(waited > Duration::from_millis(900) && waited < Duration::from_secs(6), "{waited:?}");
    assert!(slow.closed());
}

#[test]
fn sigint_ends_the_process_at_once() {
    let upstream = Upstream::start(|_| Reply::hang());
    let mut gateway = Gateway::start(&config(upstream.address(), A));
    let mut slow = begin_slow(&gateway, &upstream);
    let asked = Instant::now();
    gateway.signal(Signal::Int);
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(slow.closed());
}

#[test]
fn sigint_ends_a_drain_at_once() {
    let upstream = Upstream::start(|_| Reply::hang());
    let mut gateway = Gateway::start(&config(upstream.address(), A));
    let mut slow = begin_slow(&gateway, &upstream);
    gateway.signal(Signal::Term);
    gateway.wait_for_log("shutdown started requests=1");
    let asked = Instant::now();
    gateway.signal(Signal::Int);
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(gateway.stderr().contains("shutdown aborted by SIGINT requests=1"), "{}", gateway.stderr());
    assert!(slow.closed());
}

// --- start

/// Writes a configuration to a directory of its own and runs it.
fn run_with(config: &str) -> crate::support::gateway::Output {
    let dir = tempfile::TempDir::with_prefix("corsgate-").unwrap();
    let path = dir.path().join("edge.yaml");
    fs::write(&path, config).unwrap();
    run(&["run", "--config", path.to_str().unwrap()])
}

#[test]
fn an_address_in_use_ends_the_start_and_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let free = || format!("127.0.0.1:{}", free_port());
    let config = config(address, A);
    for (listen, admin) in [(address.to_string(), free()), (free(), address.to_string())] {
        let started = Instant::now();
        let output = run_with(&config.replace("{listen}", &listen).replace("{admin}", &admin));
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains(&format!("cannot listen on {address}: ")), "{}", output.stderr);
        assert!(!output.stderr.contains("serving listeners="), "{}", output.stderr);
        assert_eq!(output.stdout, "");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[test]
fn an_invalid_configuration_ends_the_start_with_all_its_problems() {
    let output = run_with("listeners: [{ address: nowhere }]\nservices: [{ name: a, cors: nobody }]\n");
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    for part in ["edge.yaml:1:", "nowhere", "edge.yaml:2:", "nobody"] {
        assert!(output.stderr.contains(part), "{part} in {}", output.stderr);
    }
}

#[test]
fn an_unreadable_configuration_ends_the_start() {
    let dir = tempfile::TempDir::with_prefix("corsgate-").unwrap();
    let missing = dir.path().join("missing.yaml");
    // A directory can be opened, but not read.
    for path in [missing.as_path(), dir.path()] {
        let output = run(&["run", "--config", path.to_str().unwrap()]);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""));
        assert!(output.stderr.contains(&format!("cannot read {}", path.display())), "{}", output.stderr);
    }
}

/// Pingora would panic in a task and continue without the listener. In this test, the process has too few descriptors
/// for all listeners. An address that is already in use is detected earlier.
#[test]
fn a_listener_that_cannot_be_opened_ends_the_process() {
    let dir = tempfile::TempDir::with_prefix("corsgate-").unwrap();
    let path = dir.path().join("corsgate.yaml");
    let listeners: String = (0..64).map(|_| format!("  - {{ address: \"127.0.0.1:{}\" }}\n", free_port())).collect();
    let services = "services: [{ name: api, upstream: { nodes: [{ address: 127.0.0.1:2 }] } }]";
    fs::write(&path, format!("listeners:\n{listeners}{services}\n")).unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec timeout 20 \"$0\" run --config \"$1\"", env!("CARGO_BIN_EXE_corsgate")])
        .arg(&path)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("listener failed, exiting"), "{log}");
}

/// `check`, `run` and `explain` search the same places.
#[test]
fn without_config_the_file_is_corsgate_yaml_here_or_in_etc() {
    let explain = &["explain", "--origin", "https://app.test", "https://api.test/"][..];
    let dir = tempfile::TempDir::with_prefix("corsgate-").unwrap();
    let system = Path::new("/etc/corsgate/corsgate.yaml").exists();
    for args in [&["check"][..], &["check", "--format", "json"], &["run"], explain] {
        if system {
            break;
        }
        let output = run_in(dir.path(), args);
        assert_eq!(output.code, 1, "{args:?}");
        for part in
            ["corsgate.yaml: no such file, and no /etc/corsgate/corsgate.yaml", "name the file with `--config FILE`"]
        {
            assert!(output.stderr.contains(part), "{args:?}: {}", output.stderr);
        }
    }
    let text = "listeners: [{ address: 127.0.0.1:1 }]\nservices: [{ name: api, upstream: { nodes: [{ address: 127.0.0.1:2 }] }, cors: { allow_origins: https://app.test, max_age: 600, allow_headers: [X-A] } }]\n";
    fs::write(dir.path().join("corsgate.yaml"), text).unwrap();
    assert_eq!(run_in(dir.path(), &["check"]).stdout, "corsgate.yaml: valid\n");
    assert_eq!(run_in(dir.path(), explain).code, 0);
    fs::write(dir.path().join("corsgate.yaml"), "services: []\n").unwrap();
    let output = run_in(dir.path(), &["run"]);
    assert!(output.code == 1 && output.stderr.contains("corsgate.yaml:1"), "{}", output.stderr);
}

/// A running process cannot change its command line, so the message must not mention it.
#[test]
fn a_reload_of_a_missing_file_does_not_speak_of_the_command_line() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    fs::remove_file(gateway.config_path()).unwrap();
    gateway.signal(Signal::Hup);
    let missing = format!("cannot read {}: No such file or directory (os error 2)\n", gateway.config_path().display());
    gateway.wait_for_log(&missing);
    assert!(!gateway.stderr().contains("--config"), "{}", gateway.stderr());
}

#[test]
fn an_invalid_command_line_exits_with_2() {
    for args in [
        &[][..],
        &["serve"],
        &["run", "--nonsense"],
        &["run", "--config"],
        &["check", "--format", "xml"],
        &["demo", "x"],
    ] {
        let output = run(args);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?}");
        assert!(output.stderr.contains("--help"), "{args:?}: {}", output.stderr);
    }
}

#[test]
fn a_file_without_its_option_gets_a_hint() {
    let file = "conf/corsgate.yaml";
    for (args, hint) in [
        (&["check", file][..], true),
        (&["run", "--watch", file], true),
        (&["explain", "--origin", "https://app.example", "https://api.example/", file], true),
        // These have no such option, or there is no such file.
        (&["schema", file], false),
        (&["demo", file], false),
        (&["check", "missing.yaml"], false),
    ] {
        let output = run(args);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?}");
        assert_eq!(
            output.stderr.contains("tip: write '--config conf/corsgate.yaml'"),
            hint,
            "{args:?}: {}",
            output.stderr
        );
    }
}

/// The file was replaced by a huge file, which is not read, because it would need the memory of the requests.
#[test]
fn a_configuration_over_the_size_limit_is_not_read() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    let before = gateway.memory();
    // The file is sparse.
    std::fs::File::create(gateway.config_path()).and_then(|file| file.set_len(65 << 20)).unwrap();
    gateway.signal(Signal::Hup);
    gateway.wait_for_log("it has 65 MiB; the maximum for a file of a configuration is 64 MiB");
    assert!(gateway.memory() < before + 64 * 1024, "{} KiB, before {before}", gateway.memory());
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
}

// --- admin

#[test]
fn the_admin_listener_reports_liveness_readiness_and_reloads() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), A));
    let admin = |method, target| fetch(gateway.admin(), method, target, &[("Host", "localhost")]);
    for path in ["/livez", "/readyz"] {
        let response = admin("GET", path);
        assert_eq!((response.status, response.text()), (200, "ok\n"), "{path}");
    }
    assert_eq!(admin("HEAD", "/livez").status, 200);
    assert_eq!(admin("POST", "/livez").status, 405);
    assert_eq!(admin("GET", "/nothing").status, 404);
    let counters = || {
        ["corsgate_config_reloads_total{result=\"applied\"}", "corsgate_config_reloads_total{result=\"refused\"}"]
            .map(|name| gateway.metric(name))
    };
    assert_eq!(counters(), [0, 0]);
    gateway.reload_with(&config(upstream.address(), B));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!(counters(), [1, 0]);
    gateway.reload_with("not: a configuration\nlisten: {listen}\n");
    gateway.wait_for_log("reload refused");
    assert_eq!(counters(), [1, 1]);
    let type_ = admin("GET", "/metrics").header("Content-Type").map(str::to_owned);
    assert!(type_.is_some_and(|value| value.starts_with("text/plain")));
    // The public listener has no admin paths.
    assert_eq!(fetch(gateway.address(), "GET", "/metrics", &[HOST]).text(), "");
    assert_eq!(upstream.received()[0].target, "/metrics");
}

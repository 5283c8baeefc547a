//! Upgrades of the binary without a failed request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::{Connection, fetch};
use crate::support::gateway::{Gateway, Signal};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

fn config(upstream: &Upstream, server: &str) -> String {
    let upstream = upstream.address();
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
server: {{ {server} }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }}
    cors: {{ allow_origins: https://app.test }}
"
    )
}

/// Clients that send requests without pause until they are stopped: one on a new connection for each request, the
/// others on kept connections. A failed request fails the test.
fn load(address: std::net::SocketAddr, stop: &AtomicBool, answered: &AtomicUsize, keep: bool) {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let mut connection = kept.take().unwrap_or_else(|| Connection::open(address).unwrap());
        let response = connection.request("GET", "/", &[HOST, ORIGIN], b"").expect("no request fails");
        assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (200, Some("https://app.test")));
        answered.fetch_add(1, Ordering::Relaxed);
        if keep && response.header("Connection") != Some("close") {
            kept = Some(connection);
        }
    }
}

#[test]
fn two_upgrades_in_a_row_under_load_fail_no_request() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let mut first = Gateway::start(&config(&upstream, "grace_period: 10s"));
    // The processes outlive the clients.
    let mut second = first.successor();
    let mut third = None;
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stopping = Stop(&stop);
        let address = first.address();
        for keep in [false, true, true] {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || load(address, stop, answered, keep));
        }
        let serves = |gateway: &Gateway| {
            let before = answered.load(Ordering::Relaxed);
            gateway.wait_for_log("serving listeners=");
            while answered.load(Ordering::Relaxed) < before + 50 {
                thread::sleep(Duration::from_millis(1));
            }
        };
        first.signal(Signal::Quit);
        serves(&second);
        assert_eq!(first.exit().code(), Some(0));
        let third = third.insert(second.successor());
        second.signal(Signal::Quit);
        serves(third);
        assert_eq!(second.exit().code(), Some(0));
        serves(third);
    });
    let answered = answered.load(Ordering::Relaxed);
    println!("{answered} requests, none failed");
    assert!(answered > 500, "only {answered} requests");
}

#[test]
fn sigquit_without_a_successor_changes_nothing() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(&upstream, ""));
    gateway.signal(Signal::Quit);
    gateway.wait_for_log("SIGQUIT ignored, no process is waiting");
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
    assert_eq!(fetch(gateway.admin(), "GET", "/readyz", &[("Host", "admin")]).status, 200);
}

#[test]
fn a_successor_without_a_predecessor_ends_and_says_what_it_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(|_| Reply::new(200));
    let text = config(&upstream, "").replace("{listen}", "127.0.0.1:1").replace("{admin}", "127.0.0.1:2");
    std::fs::write(folder.path().join("corsgate.yaml"), text).unwrap();
    let output = crate::support::gateway::run_in(folder.path(), &["run", "--upgrade", "--config", "corsgate.yaml"]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    let line = output.stderr.lines().find(|line| line.contains("no process has handed over its listening sockets"));
    let line = line.unwrap_or_else(|| panic!("{}", output.stderr));
    for part in ["ERROR", "send SIGQUIT to the running process within 6s", "start without --upgrade", ".sock\""] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

#[test]
fn a_successor_with_an_invalid_configuration_takes_no_socket() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(&upstream, ""));
    gateway.write("listeners: [{ address: \"{listen}\" }]\nservices: []\n");
    let path = gateway.config_path();
    let output = crate::support::gateway::run(&["run", "--upgrade", "--config", path.to_str().unwrap()]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
}

#[test]
fn readiness_fails_before_the_listeners_close() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let mut gateway = Gateway::start(&config(&upstream, "drain_delay: 1500ms"));
    let ready = || fetch(gateway.admin(), "GET", "/readyz", &[("Host", "admin")]);
    assert_eq!(ready().status, 200);
    gateway.signal(Signal::Term);
    gateway.wait_for_log("draining, /readyz fails");
    let red = ready();
    assert_eq!((red.status, red.text()), (503, "draining\n"));
    assert_eq!(fetch(gateway.admin(), "GET", "/livez", &[("Host", "admin")]).status, 200);
    // During the delay, requests are still served.
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn a_second_sigterm_skips_the_drain_delay() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let mut gateway = Gateway::start(&config(&upstream, "drain_delay: 1h"));
    gateway.signal(Signal::Term);
    gateway.wait_for_log("draining, /readyz fails");
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
}

//! `corsgate run --watch`: every change of the configuration, or of a file that it names, causes one reload without a
//! signal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::client::{Connection, fetch};
use crate::support::gateway::{Gateway, run};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const APPLIED: &str = "reloaded generation=";
const REFUSED: &str = "reload refused, keeping the running configuration:";

/// A configuration that is recognised by its allowed origin.
fn config(upstream: &Upstream, name: &str) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: \"https://{name}.test\", max_age: 60 }}
",
        upstream.address()
    )
}

/// Whether the configuration of this name is in force.
fn is_in_force(gateway: &Gateway, name: &str) -> bool {
    let origin = format!("https://{name}.test");
    let response = fetch(gateway.address(), "GET", "/", &[HOST, ("Origin", &origin)]);
    response.header("Access-Control-Allow-Origin") == Some(&*origin)
}

/// Waits until this generation is in force, and asserts that each change made one generation.
#[track_caller]
fn wait_for_generation(gateway: &Gateway, generation: usize) {
    gateway.wait_for_log(&format!("{APPLIED}{generation}\n"));
    assert_eq!(gateway.stderr().matches(APPLIED).count(), generation - 1, "{}", gateway.stderr());
}

/// Waits until another process of the same kind has detected two changes. By then, this process has also checked its
/// files more than once.
fn let_looks_pass(upstream: &Upstream) {
    let other = Gateway::start_watching(&config(upstream, "a"), &[]);
    for (generation, name) in [(2, "b"), (3, "c")] {
        other.write(&config(upstream, name));
        wait_for_generation(&other, generation);
    }
}

#[test]
fn a_rewritten_or_replaced_file_is_reloaded() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start_watching(&config(&upstream, "a"), &[]);
    assert!(is_in_force(&gateway, "a"));

    // As by `cp`, and by an editor without backups.
    fs::write(gateway.config_path(), gateway.filled_in(&config(&upstream, "b"))).unwrap();
    wait_for_generation(&gateway, 2);
    assert!(is_in_force(&gateway, "b"));
    assert!(gateway.stderr().contains(&format!("reloading changed=\"{}\"\n", gateway.config_path().display())));

    // Another file of the same length, moved to this place.
    gateway.write(&config(&upstream, "c"));
    wait_for_generation(&gateway, 3);
    assert!(is_in_force(&gateway, "c"));

    // Removed, and then written again.
    let away = gateway.dir().join("backup");
    fs::rename(gateway.config_path(), &away).unwrap();
    fs::write(gateway.config_path(), gateway.filled_in(&config(&upstream, "d"))).unwrap();
    wait_for_generation(&gateway, 4);
    assert!(is_in_force(&gateway, "d"));
    assert!(!gateway.stderr().contains(REFUSED));
}

#[test]
fn without_watch_a_changed_file_is_not_reloaded() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let still = Gateway::start(&config(&upstream, "a"));
    still.write(&config(&upstream, "b"));
    let_looks_pass(&upstream);
    assert!(is_in_force(&still, "a") && !still.stderr().contains(APPLIED));
}

#[test]
fn an_invalid_file_is_refused_once_and_the_next_valid_one_applies() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start_watching(&config(&upstream, "a"), &[]);
    gateway.write(&config(&upstream, "b/oops"));
    gateway.wait_for_log(REFUSED);
    assert!(gateway.stderr().contains("but an origin has none"));
    assert!(is_in_force(&gateway, "a"));
    let_looks_pass(&upstream);
    assert_eq!(gateway.stderr().matches(REFUSED).count(), 1);
    gateway.write(&config(&upstream, "b"));
    wait_for_generation(&gateway, 2);
    assert!(is_in_force(&gateway, "b"));
}

/// The volume of a ConfigMap as the kubelet writes it: the files are in their own directory, `..data` is a link to it,
/// and the visible files are links through `..data`. An update exchanges only that link.
#[test]
fn a_config_map_update_is_reloaded() {
    fn exchange(dir: &Path, version: &str, text: &str) {
        let files = dir.join(version);
        fs::create_dir(&files).unwrap();
        fs::write(files.join("corsgate.yaml"), text).unwrap();
        let data = dir.join("..data_tmp");
        symlink(version, &data).unwrap();
        let before = fs::read_link(dir.join("..data")).ok();
        fs::rename(data, dir.join("..data")).unwrap();
        if let Some(before) = before {
            fs::remove_dir_all(dir.join(before)).unwrap();
        }
    }
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start_watching(&config(&upstream, "a"), &[]);
    let dir = gateway.dir();
    exchange(dir, "..2026_11_23", &gateway.filled_in(&config(&upstream, "b")));
    symlink("..data/corsgate.yaml", dir.join("visible")).unwrap();
    fs::rename(dir.join("visible"), gateway.config_path()).unwrap();
    wait_for_generation(&gateway, 2);
    assert!(is_in_force(&gateway, "b"));

    exchange(dir, "..2026_11_24", &gateway.filled_in(&config(&upstream, "c")));
    wait_for_generation(&gateway, 3);
    assert!(is_in_force(&gateway, "c"));
    assert!(!gateway.stderr().contains(REFUSED));
}

#[test]
fn a_renewed_certificate_alone_is_reloaded() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let authority = Authority::new("authority");
    let first = authority.issue(&["api.test"]);
    let tls = format!(
        "
listeners: [{{ address: \"{{listen}}\", tls: {{ certificates: [{{ cert: tls/api.crt, key: tls/api.key }}] }} }}]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
        upstream.address()
    );
    let gateway = Gateway::start_watching(&tls, &first.files("tls/api"));
    let client = TlsClient::new(&authority, "api.test");
    let mut kept = Connection::open_tls(gateway.address(), &client).unwrap();
    let shown = || Connection::open_tls(gateway.address(), &client).unwrap().server_certificate().to_vec();
    assert!(shown() == first.der);

    let second = authority.renew(&first);
    gateway.replace("tls/api.crt", &second.cert);
    wait_for_generation(&gateway, 2);
    assert!(shown() == second.der);
    assert_eq!(kept.request("GET", "/", &[HOST], b"").unwrap().status, 200);

    // A certificate without its new key is refused until the key is there.
    let third = authority.issue(&["api.test"]);
    gateway.replace("tls/api.crt", &third.cert);
    gateway.wait_for_log(REFUSED);
    assert!(shown() == second.der);
    gateway.replace("tls/api.key", &third.key);
    wait_for_generation(&gateway, 3);
    assert!(shown() == third.der);
    let changed = format!("reloading changed=\"{}\"\n", gateway.dir().join("tls/api.key").display());
    assert!(gateway.stderr().contains(&changed), "{}", gateway.stderr());
    assert_eq!(gateway.stderr().matches(REFUSED).count(), 1);
}

#[test]
fn a_file_that_sighup_has_loaded_is_not_reloaded_again() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start_watching(&config(&upstream, "a"), &[]);
    gateway.reload_with(&config(&upstream, "b"));
    wait_for_generation(&gateway, 2);
    assert!(is_in_force(&gateway, "b"));
    let_looks_pass(&upstream);
    gateway.write(&config(&upstream, "c"));
    wait_for_generation(&gateway, 3);
    assert!(is_in_force(&gateway, "c"));
    let_looks_pass(&upstream);
    assert_eq!(gateway.stderr().matches(APPLIED).count(), 2);
    assert_eq!(gateway.stderr().matches("reloading changed=").count(), 1);
}

#[test]
fn a_missing_file_is_reported_once_and_reloaded_when_it_returns() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start_watching(&config(&upstream, "a"), &[]);
    fs::remove_file(gateway.config_path()).unwrap();
    gateway.wait_for_log(REFUSED);
    assert!(gateway.stderr().contains("cannot read"), "{}", gateway.stderr());
    assert!(is_in_force(&gateway, "a"));
    gateway.write(&config(&upstream, "b"));
    wait_for_generation(&gateway, 2);
    assert!(is_in_force(&gateway, "b"));
    assert_eq!(gateway.stderr().matches(REFUSED).count(), 1);
}

#[test]
fn a_watched_reload_keeps_requests_and_connections() {
    let upstream = Upstream::start(|request| match &*request.target {
        "/slow" => Reply::new(200).body("late").after(Duration::from_secs(2)),
        _ => Reply::new(200),
    });
    let gateway = Gateway::start_watching(&config(&upstream, "a"), &[]);
    let mut kept = Connection::open(gateway.address()).unwrap();
    assert_eq!(kept.request("GET", "/", &[HOST], b"").unwrap().status, 200);
    let mut slow = Connection::open(gateway.address()).unwrap();
    slow.send(b"GET /slow HTTP/1.1\r\nHost: api.test\r\nOrigin: https://a.test\r\n\r\n").unwrap();
    upstream.wait_for_hits(2);
    gateway.write(&config(&upstream, "b"));
    wait_for_generation(&gateway, 2);
    assert_eq!(kept.request("GET", "/", &[HOST], b"").unwrap().status, 200);
    // The request keeps its policy.
    let response = slow.read("GET").unwrap();
    assert_eq!((response.text(), response.header("Access-Control-Allow-Origin")), ("late", Some("https://a.test")));
    assert_eq!(slow.request("GET", "/", &[HOST], b"").unwrap().status, 200);
}

#[test]
fn the_demo_refuses_watch() {
    assert_eq!(run(&["demo", "--watch"]).code, 2);
}

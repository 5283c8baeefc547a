//! etcd as the source of a configuration, with a real etcd and real processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::client::fetch;
use crate::support::etcd::{CHANGE_TIMEOUT, Etcd, EtcdTls};
use crate::support::gateway::{Gateway, Signal, free_port, run};
use crate::support::process::poll;

const PREFIX: &str = "/edge";

/// A configuration file whose services are in etcd.
fn file(etcd: &Etcd, more: &str) -> String {
    let endpoints = etcd.endpoints();
    format!(
        "
listeners: [{{ address: '{{listen}}' }}]
admin: {{ address: '{{admin}}' }}
source: {{ etcd: {{ endpoints: '{endpoints}', prefix: {PREFIX}{more} }} }}
"
    )
}

fn key(name: &str) -> String {
    format!("{PREFIX}/{name}")
}

/// A service whose responses have this body.
fn service(host: &str, body: &str) -> String {
    format!(r#"{{"hosts": ["{host}"], "respond": {{"status": 200, "body": "{body}"}}}}"#)
}

fn body(gateway: &Gateway, host: &str) -> String {
    fetch(gateway.address(), "GET", "/", &[("Host", host)]).text().to_owned()
}

#[track_caller]
fn wait_for_body(gateway: &Gateway, host: &str, expected: &str) {
    let found = poll(CHANGE_TIMEOUT, || (body(gateway, host) == expected).then_some(()));
    assert!(found.is_some(), "{host}: {:?} instead of {expected:?}", body(gateway, host));
}

fn ready(gateway: &Gateway) -> String {
    let response = fetch(gateway.admin(), "GET", "/readyz", &[("Host", "localhost")]);
    assert_eq!(response.status, 200);
    response.text().to_owned()
}

#[track_caller]
fn wait_for_ready(gateway: &Gateway, needle: &str) {
    let found = poll(CHANGE_TIMEOUT, || ready(gateway).contains(needle).then_some(()));
    assert!(found.is_some(), "no {needle:?} in {:?}", ready(gateway));
}

#[test]
fn a_change_reaches_three_processes() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "0"));
    let gateways = [(); 3].map(|()| Gateway::start(&file(&etcd, "")));
    let mut times = Vec::new();
    for i in 1..=20 {
        let start = Instant::now();
        etcd.put(&key("services/api"), &service("api.test", &i.to_string()));
        gateways.iter().for_each(|gateway| wait_for_body(gateway, "api.test", &i.to_string()));
        times.push(start.elapsed());
    }
    times.sort();
    println!("a change in three processes, etcdctl included: median {:?}, worst {:?}", times[10], times[19]);
    etcd.put(&key("services/web"), &service("web.test", "web"));
    etcd.delete(&key("services/api"));
    for gateway in &gateways {
        wait_for_body(gateway, "web.test", "web");
        let gone = poll(CHANGE_TIMEOUT, || {
            (fetch(gateway.address(), "GET", "/", &[("Host", "api.test")]).status == 404).then_some(())
        });
        assert!(gone.is_some(), "a deleted service is gone");
    }
    let fleet = run(&["fleet", "--config", &etcd.url(PREFIX), "--wait", "20", "--instances", "3"]);
    assert_eq!(fleet.code, 0, "{}{}", fleet.stdout, fleet.stderr);
    assert_eq!(fleet.stdout.matches(" current ").count(), 3, "{}", fleet.stdout);
    let fewer = run(&["fleet", "--config", &etcd.url(PREFIX), "--instances", "4"]);
    assert_eq!(fewer.code, 1, "{}", fewer.stdout);
    assert!(fewer.stdout.contains("1 missing"), "{}", fewer.stdout);
}

/// Changes one after the other, as fast as etcd takes them, while clients send requests. `ETCD_CHANGES=1000` makes more.
#[test]
fn many_changes_under_load_fail_no_request() {
    let changes = std::env::var("ETCD_CHANGES").ok().and_then(|text| text.parse().ok()).unwrap_or(150_usize);
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "0"));
    etcd.put(&key("services/still"), &service("still.test", "still"));
    let gateways = [(); 3].map(|()| Gateway::start(&file(&etcd, "")));
    let (stop, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    thread::scope(|scope| {
        let clients: Vec<_> = gateways
            .iter()
            .zip(&counts)
            .map(|(gateway, count)| {
                let stop = &stop;
                scope.spawn(move || {
                    // The time at which each change was first in force. A later change of a burst replaces earlier ones.
                    let (mut requests, mut active) = (0, vec![Instant::now()]);
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(body(gateway, "still.test"), "still");
                        let response = fetch(gateway.address(), "GET", "/", &[("Host", "api.test")]);
                        assert_eq!(response.status, 200, "{}", response.text());
                        let newest: usize = response.text().parse().unwrap();
                        assert!(newest + 1 >= active.len(), "an older change is in force again");
                        active.resize(newest + 1, Instant::now());
                        requests += 2;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    (requests, active)
                })
            })
            .collect();
        let begin = Instant::now();
        let mut written = Vec::new();
        for i in 1..=changes {
            written.push(Instant::now());
            etcd.put(&key("services/api"), &service("api.test", &i.to_string()));
        }
        let elapsed = begin.elapsed();
        gateways.iter().for_each(|gateway| wait_for_body(gateway, "api.test", &changes.to_string()));
        // Wait until each client has a response with the last change.
        let before: Vec<usize> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let found = poll(CHANGE_TIMEOUT, || {
            let later = counts.iter().zip(&before).all(|(count, before)| count.load(Ordering::Relaxed) > before + 1);
            later.then_some(())
        });
        assert!(found.is_some() || clients.iter().any(thread::ScopedJoinHandle::is_finished), "a client hangs");
        stop.store(true, Ordering::Relaxed);
        let seen: Vec<(usize, Vec<Instant>)> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        let requests: usize = seen.iter().map(|(requests, _)| requests).sum();
        let in_force_in_all = |i: usize| seen.iter().filter_map(|(_, active)| active.get(i)).max().copied();
        let mut times: Vec<Duration> =
            (1..=changes).filter_map(|i| Some(in_force_in_all(i)?.saturating_duration_since(written[i - 1]))).collect();
        times.sort();
        println!(
            "{changes} changes in {elapsed:?}, in force in three processes: median {:?}, worst {:?}; {requests} requests, none failed",
            times[times.len() / 2],
            times[times.len() - 1]
        );
        assert_eq!(times.len(), changes, "each change, or a later one, was in force");
    });
    gateways.iter().for_each(|gateway| assert_eq!(gateway.metric("corsgate_etcd_missed_changes_total"), 0));
}

/// A new version of a policy or an origin set breaks a service that has not changed: the old version stays, and the key is
/// named.
#[test]
fn a_shared_object_that_breaks_a_service_keeps_its_old_version() {
    let etcd = Etcd::start();
    etcd.put(&key("origin_sets/apps"), "[https://a.example]");
    etcd.put(&key("cors_policies/app"), "{ allow_origin_sets: [apps], allow_credentials: true, max_age: 1 }");
    etcd.put(&key("services/api"), "{ hosts: [api.test], respond: { status: 200 }, cors: app }");
    let gateway = Gateway::start(&file(&etcd, ""));
    let allowed = |origin: &str| {
        let fields = [("Host", "api.test"), ("Origin", origin)];
        fetch(gateway.address(), "GET", "/", &fields).header("Access-Control-Allow-Origin").map(str::to_owned)
    };
    let allowed_now = || allowed("https://a.example").is_some();
    for (name, broken, good) in [
        // With credentials, `http:` origins are refused.
        ("origin_sets/apps", "[https://a.example, 'http://b.example']", "[https://a.example, https://b.example]"),
        (
            "cors_policies/app",
            "{ allow_origins: '*', allow_credentials: true }",
            "{ allow_origins: https://a.example }",
        ),
        ("cors_policies/app", "{ allow_origin_sets: [none] }", "{ allow_origin_sets: [apps] }"),
    ] {
        etcd.put(&key(name), broken);
        let found = poll(CHANGE_TIMEOUT, || (gateway.metric("corsgate_etcd_refused_keys") == 1).then_some(()));
        assert!(
            found.is_some() && ready(&gateway).contains(&format!("etcd: {name} at revision")),
            "{}",
            ready(&gateway)
        );
        assert!(allowed_now() && allowed("http://b.example").is_none(), "{name}: the old version is in force");
        etcd.put(&key(name), good);
        let found = poll(CHANGE_TIMEOUT, || (gateway.metric("corsgate_etcd_refused_keys") == 0).then_some(()));
        assert!(found.is_some() && allowed_now(), "{}", ready(&gateway));
    }
}

/// Whoever can write to etcd decides where requests go, but not to the sockets of this machine.
#[test]
fn values_name_no_socket_outside_of_the_directory_of_the_file() {
    let etcd = Etcd::start();
    etcd.put(&key("services/good"), &service("good.test", "good"));
    let gateway = Gateway::start(&file(&etcd, ""));
    let before = gateway.metric("corsgate_config_generation");
    for (i, address) in ["unix:/run/docker.sock", "unix:../x.sock", "unix:a/../../x.sock"].iter().enumerate() {
        etcd.put(
            &key(&format!("services/s{i}")),
            &format!("{{ hosts: [s{i}.test], upstream: {{ nodes: [{{ address: '{address}' }}] }} }}"),
        );
        wait_for_ready(&gateway, &format!("etcd: services/s{i} at revision"));
        assert_eq!(fetch(gateway.address(), "GET", "/", &[("Host", &format!("s{i}.test"))]).status, 404, "{address}");
    }
    // A tag does not hide it.
    etcd.put(&key("upstreams/tagged"), "nodes: [ !local { address: 'unix:/run/docker.sock' } ]");
    wait_for_ready(&gateway, "etcd: upstreams/tagged at revision");
    etcd.put(&key("upstreams/own"), "nodes: [{ address: 'unix:run/app.sock' }]");
    etcd.put(&key("services/own"), "{ hosts: [own.test], upstream: own }");
    let status = || fetch(gateway.address(), "GET", "/", &[("Host", "own.test")]).status;
    let found = poll(CHANGE_TIMEOUT, || (status() == 502).then_some(()));
    assert!(found.is_some(), "a socket below the directory is accepted: {}", status());
    assert!(gateway.metric("corsgate_config_generation") > before);
}

#[test]
fn a_burst_is_one_new_configuration() {
    let etcd = Etcd::start();
    etcd.put(&key("services/last"), &service("last.test", "0"));
    let gateway = Gateway::start(&file(&etcd, ""));
    let before = gateway.metric("corsgate_config_generation");
    let values: Vec<_> =
        (0..100).map(|i| (key(&format!("services/s{i}")), service(&format!("s{i}.test"), "x"))).collect();
    etcd.put_all(&values);
    wait_for_body(&gateway, "s99.test", "x");
    assert_eq!(gateway.metric("corsgate_config_generation"), before + 1);
}

#[test]
fn a_process_survives_a_restart_of_etcd() {
    let mut etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    let gateway = Gateway::start(&file(&etcd, ""));
    for round in 2..4 {
        etcd.kill();
        wait_for_ready(&gateway, "etcd: not connected for ");
        assert_eq!(gateway.metric("corsgate_etcd_connected"), 0);
        assert_eq!(body(&gateway, "api.test"), (round - 1).to_string());
        etcd.restart();
        etcd.put(&key("services/api"), &service("api.test", &round.to_string()));
        wait_for_body(&gateway, "api.test", &round.to_string());
        let connected = poll(CHANGE_TIMEOUT, || (ready(&gateway) == "ok\n").then_some(()));
        assert!(connected.is_some(), "{}", ready(&gateway));
    }
    assert_eq!(gateway.metric("corsgate_etcd_missed_changes_total"), 0);
}

/// The process cannot read for a while. More changes than fit in buffers come, and are compacted.
#[test]
fn a_process_survives_a_compaction_of_changes_that_it_has_not_read() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "0"));
    let gateway = Gateway::start(&file(&etcd, ""));
    let signal = |name: &str| {
        let command = format!("kill -s {name} {}", gateway.pid());
        assert!(std::process::Command::new("sh").arg("-c").arg(command).status().unwrap().success());
    };
    signal("STOP");
    let large = "x".repeat(200_000);
    for i in 1..=100 {
        etcd.put(&key("services/api"), &service("api.test", &format!("{i}{large}")));
    }
    etcd.put(&key("services/api"), &service("api.test", "last"));
    etcd.put(&key("services/web"), &service("web.test", "web"));
    etcd.delete(&key("services/web"));
    etcd.ctl(&["compact", &etcd.revision().to_string()]);
    signal("CONT");
    wait_for_body(&gateway, "api.test", "last");
    assert_eq!(fetch(gateway.address(), "GET", "/", &[("Host", "web.test")]).status, 404);
    etcd.put(&key("services/api"), &service("api.test", "after"));
    wait_for_body(&gateway, "api.test", "after");
}

/// Connections stay open and nobody answers, as when a network is cut.
#[test]
fn a_process_survives_an_etcd_that_does_not_answer() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    let gateway = Gateway::start(&file(&etcd, ""));
    etcd.freeze();
    wait_for_ready(&gateway, "etcd: not connected for ");
    assert_eq!(body(&gateway, "api.test"), "1");
    etcd.thaw();
    etcd.wait_until_healthy();
    etcd.put(&key("services/api"), &service("api.test", "2"));
    wait_for_body(&gateway, "api.test", "2");
}

#[test]
fn three_members_lose_their_leader() {
    let mut etcd = Etcd::cluster(3, None);
    etcd.put(&key("services/api"), &service("api.test", "1"));
    let gateways = [(); 3].map(|()| Gateway::start(&file(&etcd, "")));
    etcd.kill_leader();
    etcd.put(&key("services/api"), &service("api.test", "2"));
    gateways.iter().for_each(|gateway| wait_for_body(gateway, "api.test", "2"));
    etcd.restart();
    etcd.put(&key("services/api"), &service("api.test", "3"));
    gateways.iter().for_each(|gateway| wait_for_body(gateway, "api.test", "3"));
}

#[test]
fn a_start_without_etcd_uses_the_cache() {
    let mut etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "cached"));
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache.json");
    let config = file(&etcd, &format!(", cache: '{}'", cache.display()));
    let first = Gateway::start(&config);
    assert!(poll(CHANGE_TIMEOUT, || cache.exists().then_some(())).is_some());
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o600);
    drop(first);
    etcd.kill();
    let gateway = Gateway::start(&config);
    assert_eq!(body(&gateway, "api.test"), "cached");
    gateway.wait_for_log("etcd cannot be reached, using the cache revision=");
    assert!(ready(&gateway).contains("etcd: running from the cache, which is "), "{}", ready(&gateway));
    assert!(gateway.metric("corsgate_etcd_cache_written_timestamp_seconds") > 1_700_000_000);
    etcd.restart();
    let connected = poll(CHANGE_TIMEOUT, || (ready(&gateway) == "ok\n").then_some(()));
    assert!(connected.is_some(), "{}", ready(&gateway));
    etcd.put(&key("services/api"), &service("api.test", "new"));
    wait_for_body(&gateway, "api.test", "new");
    // A cache of another prefix, or a broken one, is not used.
    drop(gateway);
    etcd.kill();
    for broken in ["", "{}", "[1", r#"{"prefix":"/other","saved_unix":1,"revision":1,"keys":{}}"#] {
        fs::write(&cache, broken).unwrap();
        let gateway = Gateway::spawn(&config);
        gateway.wait_for_log("cannot use the cache of etcd file=");
        gateway.wait_for_log("etcd cannot be reached and there is no cache, waiting, not ready error=");
    }
}

#[test]
fn a_start_without_etcd_and_cache_lives_and_is_not_ready() {
    let mut etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    etcd.kill();
    let mut gateway = Gateway::spawn(&file(&etcd, ""));
    gateway.wait_for_log("etcd cannot be reached and there is no cache, waiting, not ready error=");
    gateway.wait_until_it_accepts();
    // It lives, says why it is not ready, and answers 503. So nothing restarts it, and no load balancer uses it.
    let asked = |path: &str| {
        let response = fetch(gateway.admin(), "GET", path, &[("Host", "localhost")]);
        (response.status, response.text().to_owned())
    };
    assert_eq!(asked("/livez").0, 200);
    let (status, why) = asked("/readyz");
    assert!(
        status == 503 && why.starts_with("waiting for a first configuration from etcd\netcd: not connected"),
        "{why}"
    );
    let response = fetch(gateway.address(), "GET", "/", &[("Host", "api.test")]);
    assert_eq!((response.status, response.text()), (503, "This gateway waits for its configuration.\n"));
    etcd.restart();
    wait_for_body(&gateway, "api.test", "1");
    assert!(ready(&gateway).starts_with("ok\n"));
}

/// A prefix without anything that can be served.
#[test]
fn a_start_waits_for_a_first_service() {
    let etcd = Etcd::start();
    let mut gateway = Gateway::spawn(&file(&etcd, ""));
    gateway.wait_for_log("no service can be used; add a key services/NAME");
    gateway.wait_until_it_accepts();
    assert_eq!(fetch(gateway.admin(), "GET", "/readyz", &[("Host", "localhost")]).status, 503);
    etcd.put(&key("services/api"), &service("api.test", "1"));
    wait_for_body(&gateway, "api.test", "1");
    // Nor does a process that runs throw everything away.
    etcd.ctl(&["del", "--prefix", PREFIX]);
    wait_for_ready(&gateway, "etcd: the newest keys are refused as a whole: no service can be used");
    assert_eq!(body(&gateway, "api.test"), "1");
    let fleet = run(&["fleet", "--config", &etcd.url(PREFIX)]);
    assert_eq!(fleet.code, 1, "{}", fleet.stdout);
}

#[test]
fn a_bad_service_keeps_its_last_version_and_all_others_change() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "good"));
    etcd.put(&key("services/web"), &service("web.test", "1"));
    let gateway = Gateway::start(&file(&etcd, ""));
    etcd.put(&key("services/api"), "hosts: [api.test]\nrespond: { status: 200, body: bad }\ncolour: red\n");
    let revision = etcd.revision_of(&key("services/api"));
    etcd.put(
        &key("services/new"),
        "hosts: [new.test]\nrespond: { status: 200 }\ncors: { allow_origins: '*', max_age: 1h }\n",
    );
    etcd.put(&key("services/web"), &service("web.test", "2"));
    wait_for_body(&gateway, "web.test", "2");
    assert_eq!(body(&gateway, "api.test"), "good");
    assert_eq!(fetch(gateway.address(), "GET", "/", &[("Host", "new.test")]).status, 404);
    // All say which key it is.
    let fault = "error: services/api:3:1 colour: unknown key `colour`; write one of ";
    let notice = format!("etcd: services/api at revision {revision} is refused, revision ");
    wait_for_ready(&gateway, &notice);
    assert!(ready(&gateway).contains(fault), "{}", ready(&gateway));
    gateway.wait_for_log(fault);
    let page = fetch(gateway.admin(), "GET", "/", &[("Host", "localhost")]).text().to_owned();
    assert!(page.contains("services/api:3:1 colour: unknown key"), "{page}");
    assert_eq!(gateway.metric("corsgate_etcd_refused_keys"), 2);
    assert_eq!(gateway.metric("corsgate_etcd_refused_key_revision{key=\"services/api\"}"), revision.cast_unsigned());
    assert_eq!(
        gateway.metric("corsgate_etcd_refused_key_revision{key=\"services/new\"}"),
        etcd.revision_of(&key("services/new")).cast_unsigned()
    );
    let check = run(&["check", "--config", &etcd.url(PREFIX)]);
    assert_eq!(check.code, 1);
    assert!(check.stdout.contains(fault), "{}", check.stdout);
    assert!(check.stdout.contains(&format!("services/api: 1 error, at revision {revision}")), "{}", check.stdout);
    let check = run(&["check", "--format", "json", "--config", &gateway.config_path().to_string_lossy()]);
    let problems: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    let problem = problems.as_array().unwrap().iter().find(|problem| problem["code"] == "unknown-key").unwrap();
    assert_eq!((&problem["file"], &problem["line"]), (&"services/api".into(), &3.into()), "{problem}");
    let fleet = run(&["fleet", "--wait", "20", "--config", &etcd.url(PREFIX)]);
    assert_eq!(fleet.code, 1, "a key is refused");
    assert!(
        fleet.stdout.contains(&format!(" refuses services/api at revision {revision}: {fault}")),
        "{}",
        fleet.stdout
    );
    // Mended.
    etcd.put(&key("services/api"), &service("api.test", "mended"));
    etcd.delete(&key("services/new"));
    wait_for_body(&gateway, "api.test", "mended");
    let well = poll(CHANGE_TIMEOUT, || (ready(&gateway) == "ok\n").then_some(()));
    assert!(well.is_some(), "{}", ready(&gateway));
    assert_eq!(run(&["fleet", "--wait", "20", "--config", &etcd.url(PREFIX)]).code, 0);
}

#[test]
fn a_policy_that_is_missing_never_means_no_cors() {
    let etcd = Etcd::start();
    let with_policy = |name: &str, body: &str| {
        format!("hosts: [api.test]\nrespond: {{ status: 200, body: '{body}' }}\ncors: {name}\n")
    };
    let acao = |gateway: &Gateway| {
        let fields = [("Host", "api.test"), ("Origin", "https://a.test")];
        let response = fetch(gateway.address(), "GET", "/", &fields);
        response.header("access-control-allow-origin").map(str::to_owned)
    };
    etcd.put(&key("services/web"), &service("web.test", "1"));
    etcd.put(&key("services/api"), &with_policy("closed", "1"));
    let gateway = Gateway::start(&file(&etcd, ""));
    // Without its policy the service is not there.
    assert_eq!(fetch(gateway.address(), "GET", "/", &[("Host", "api.test")]).status, 404);
    etcd.put(&key("cors_policies/closed"), "{ allow_origins: 'https://a.test', max_age: 60 }");
    wait_for_body(&gateway, "api.test", "1");
    assert_eq!(acao(&gateway).as_deref(), Some("https://a.test"));
    // A policy with an error keeps its last version.
    etcd.put(&key("cors_policies/closed"), "{ allow_origins: [] }");
    wait_for_ready(&gateway, "etcd: cors_policies/closed at revision ");
    assert_eq!(acao(&gateway).as_deref(), Some("https://a.test"));
    // A deleted policy stays as long as it is needed.
    etcd.delete(&key("cors_policies/closed"));
    wait_for_ready(&gateway, "cors_policies/closed: is deleted, but a service that is in use needs it");
    assert_eq!(acao(&gateway).as_deref(), Some("https://a.test"));
    // Another service that names it is refused, and so is a new version of the service.
    etcd.put(&key("services/other"), &with_policy("closed", "x").replace("api.test", "other.test"));
    etcd.put(&key("services/api"), &with_policy("closed", "2"));
    wait_for_ready(&gateway, "services/other:3:7 cors: there is no policy named `closed`");
    wait_for_ready(&gateway, "services/api:3:7 cors: there is no policy named `closed`");
    assert_eq!((body(&gateway, "api.test").as_str(), acao(&gateway).as_deref()), ("1", Some("https://a.test")));
    etcd.put(&key("services/api"), &service("api.test", "3"));
    wait_for_body(&gateway, "api.test", "3");
    assert_eq!(acao(&gateway), None);
    let gone = poll(CHANGE_TIMEOUT, || (!ready(&gateway).contains("is deleted, but")).then_some(()));
    assert!(gone.is_some(), "{}", ready(&gateway));
}

/// Both processes that run and processes that start choose the service that was there first.
#[test]
fn of_two_services_with_the_same_route_the_older_one_stays() {
    let etcd = Etcd::start();
    etcd.put(&key("services/zoo"), &service("api.test", "older"));
    let first = Gateway::start(&file(&etcd, ""));
    etcd.put(&key("services/ant"), &service("api.test", "newer"));
    let second = Gateway::start(&file(&etcd, ""));
    for gateway in [&first, &second] {
        wait_for_ready(gateway, "etcd: services/ant at revision ");
        assert!(ready(gateway).contains("services/zoo"), "{}", ready(gateway));
        assert_eq!(body(gateway, "api.test"), "older");
    }
}

#[test]
fn settings_are_the_rest_of_the_file() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    etcd.put(&key("settings"), "limits: { uri: 1KiB }\ndebug_header: true\n");
    let gateway = Gateway::start(&file(&etcd, ""));
    let long = format!("/{}", "a".repeat(2000));
    assert_eq!(fetch(gateway.address(), "GET", &long, &[("Host", "api.test")]).status, 414);
    for (value, notice) in [
        (
            "listeners: [{ address: '127.0.0.1:1' }]",
            "`listeners` cannot be set here; remove it: the file of this process sets it",
        ),
        ("services: []", "`services` cannot be set here; write each entry as a key of its own"),
        ("expect: [{ page: https://a.test, url: https://b.test/, result: allowed }]", "`expect` cannot be set here"),
        ("environment: true", "`environment` cannot be set here"),
        ("source: { etcd: { endpoints: 'a:1' } }", "`source` cannot be set here"),
        ("limits: { uri: 1 }\nlimits: { uri: 2 }", "settings:2:1 limits: "),
        ("access_log: { to: /etc/cron.d/corsgate }", "a value of etcd names only files below the directory"),
        ("access_log: { to: ../access.log }", "a value of etcd names only files below the directory"),
    ] {
        etcd.put(&key("settings"), value);
        let found = poll(CHANGE_TIMEOUT, || (gateway.stderr().contains(notice)).then_some(()));
        assert!(found.is_some(), "{value}: no {notice:?} in {}", gateway.stderr());
        assert_eq!(fetch(gateway.address(), "GET", &long, &[("Host", "api.test")]).status, 414, "{value}");
    }
}

/// A valid value that names a file which this process cannot open.
#[test]
fn settings_that_cannot_be_used_hold_up_no_other_key() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    etcd.put(&key("settings"), "limits: { uri: 1KiB }\n");
    let gateway = Gateway::start(&file(&etcd, ""));
    let long = format!("/{}", "a".repeat(2000));
    let own = gateway.config_path().file_name().unwrap().to_string_lossy().into_owned();
    let values = [
        ("access_log: { to: missing/access.log }", "missing/access.log"),
        (&*format!("access_log: {{ to: ./{own} }}"), "is a file of the configuration"),
        ("access_log: { to: ../access.log }", "names only files below the directory"),
    ];
    for (i, (value, why)) in values.iter().enumerate() {
        etcd.put(&key("settings"), value);
        gateway.wait_for_log(why);
        wait_for_ready(&gateway, "etcd: settings at revision ");
        etcd.put(&key("services/api"), &service("api.test", &format!("later {i}")));
        wait_for_body(&gateway, "api.test", &format!("later {i}"));
        assert!(gateway.metrics().contains("\ncorsgate_etcd_refused_keys 1\n"), "{value}");
        // The settings of before stay in use.
        assert_eq!(fetch(gateway.address(), "GET", &long, &[("Host", "api.test")]).status, 414, "{value}");
        // A new process starts without it.
        let other = Gateway::start(&file(&etcd, ""));
        wait_for_ready(&other, "etcd: settings at revision ");
        assert_eq!(body(&other, "api.test"), format!("later {i}"));
    }
    // The directory is missing at first. SIGHUP tries the value again after it was created.
    let folder = gateway.config_path().parent().unwrap().join("missing");
    etcd.put(&key("settings"), "access_log: { to: missing/access.log }\n");
    etcd.put(&key("services/api"), &service("api.test", "before"));
    wait_for_body(&gateway, "api.test", "before");
    fs::create_dir(&folder).unwrap();
    gateway.signal(Signal::Hup);
    let found = poll(CHANGE_TIMEOUT, || (ready(&gateway) == "ok\n").then_some(()));
    assert!(found.is_some(), "{}", ready(&gateway));
    assert_eq!(body(&gateway, "api.test"), "before");
    let logged =
        poll(CHANGE_TIMEOUT, || fs::read_to_string(folder.join("access.log")).ok().filter(|log| !log.is_empty()));
    assert!(logged.is_some());
}

/// An error in the bootstrap file itself still ends the start.
#[test]
fn an_access_log_of_the_file_that_cannot_be_opened_ends_the_start() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    let text = format!("{}access_log: {{ to: missing/access.log }}\n", file(&etcd, ""));
    let mut gateway = Gateway::spawn(&text);
    assert_eq!(gateway.exit().code(), Some(1));
    assert!(gateway.stderr().contains("missing/access.log"), "{}", gateway.stderr());
}

#[test]
fn hostile_values_change_nothing() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    let gateway = Gateway::start(&file(&etcd, ""));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\nhosts: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    let deep = "[".repeat(100_000);
    let deep_json = format!("{}1", r#"{"a":"#.repeat(50_000));
    let huge = format!("hosts: ['{}']", "a".repeat(1_100_000));
    let many = format!("hosts: [{}]\nrespond: {{ status: 200 }}", "'*',".repeat(20_000));
    for (name, value) in [
        ("bomb", bomb),
        ("deep", &deep),
        ("deep-json", &deep_json),
        ("huge", &huge),
        ("many", &many),
        ("empty", ""),
        ("null", "null"),
        ("list", "[1, 2]"),
        ("documents", "hosts: [a.test]\n---\nhosts: [b.test]\n"),
        ("name", "name: other\nrespond: { status: 200 }\nhosts: [name.test]"),
        ("variable", "respond: { status: 200, body: '${HOME}' }\nhosts: [variable.test]"),
        ("file", "hosts: [file.test]\nupstream: { nodes: [{ address: 'a.test:1' }], tls: { ca: /etc/passwd } }"),
        ("climb", "hosts: [climb.test]\nupstream: { nodes: [{ address: 'a.test:1' }], tls: { ca: ../../etc/passwd } }"),
        ("a/b", "respond: { status: 200 }"),
        ("a\u{1b}[31mb", "respond: { status: 200 }"),
        ("..", "respond: { status: 200 }\nhosts: [dots.test]\ncolour: red"),
    ] {
        etcd.put(&key(&format!("services/{name}")), value);
    }
    etcd.ctl_with_input(&["put", &key("services/binary")], "placeholder");
    put_binary(&etcd, &key("services/binary"), b"hosts: [\xff\xfe]");
    etcd.put(&key("unknown/thing"), "1");
    etcd.put(&key("instances/fake"), "not json");
    etcd.put(&key("instances/liar\u{1b}[2J"), r#"{"version":"\u001b[31m","refused":[{"key":"\u001b[2J"}]}"#);
    etcd.put(&key("services/web"), &service("web.test", "2"));
    wait_for_body(&gateway, "web.test", "2");
    assert_eq!(body(&gateway, "api.test"), "1");
    assert_eq!(gateway.metric("corsgate_etcd_refused_keys"), 18);
    let log = gateway.stderr();
    for needle in [
        &format!("services/huge: the value has {} bytes; the maximum is 1048576", huge.len()),
        "services/binary: the value is not UTF-8 text: byte 9 cannot be read",
        "services/name: the value has the name `other`, and the key `name`; remove `name` from the value",
        "services/variable: line 1: respond.body: `${HOME}` is a variable; values of etcd read no environment",
        "cannot read `/etc/passwd`: a value of etcd names only files below the directory of the configuration file",
        "services/a/b: has a name that cannot be used",
        "unknown/thing: is no key of a configuration",
    ] {
        assert!(log.contains(needle), "no {needle:?} in {log}");
    }
    assert!(!log.contains('\u{1b}') && !ready(&gateway).contains('\u{1b}'), "a terminal gets no control characters");
    let check = run(&["check", "--config", &etcd.url(PREFIX)]);
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert!(!check.stdout.contains('\u{1b}'));
    let fleet = run(&["fleet", "--config", &etcd.url(PREFIX)]);
    assert!(!fleet.stdout.contains('\u{1b}'), "{}", fleet.stdout);
}

/// `etcdctl` reads a value of any bytes from stdin.
fn put_binary(etcd: &Etcd, key: &str, value: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("value");
    fs::write(&path, value).unwrap();
    let command = format!("ETCDCTL_API=3 etcdctl --endpoints={} put '{key}' < '{}'", etcd.endpoints(), path.display());
    assert!(std::process::Command::new("sh").arg("-c").arg(command).status().unwrap().success());
}

#[test]
fn etcd_with_tls_and_users() {
    let authority = Authority::new("etcd");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let certificate = authority.issue(&["127.0.0.1", "localhost"]);
    fs::write(path("ca.crt"), authority.pem()).unwrap();
    for (name, text) in certificate.files("member") {
        fs::write(path(&name), text).unwrap();
    }
    let tls = EtcdTls { ca: path("ca.crt"), certificate: path("member.crt"), key: path("member.key") };
    let mut etcd = Etcd::start_with_tls(&tls);
    etcd.put(&key("services/api"), &service("api.test", "1"));
    etcd.ctl(&["user", "add", "root:root-password"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["role", "add", "edge"]);
    etcd.ctl(&["role", "grant-permission", "edge", "--prefix=true", "readwrite", &key("")]);
    etcd.ctl(&["role", "add", "reader"]);
    etcd.ctl(&["role", "grant-permission", "reader", "--prefix=true", "read", &key("")]);
    for name in ["edge", "reader"] {
        etcd.ctl(&["user", "add", &format!("{name}:secret of {name}")]);
        etcd.ctl(&["user", "grant-role", name, name]);
    }
    etcd.ctl(&["auth", "enable"]);
    etcd.log_in("root", "root-password");
    let options = |user: &str, password: &str| {
        let password_file = path(&format!("{user}.password"));
        fs::write(&password_file, password).unwrap();
        format!(
            ", tls: {{ ca: '{0}/ca.crt', certificate: '{0}/member.crt', key: '{0}/member.key' }}, user: {user}, password_file: '{1}'",
            folder.path().display(),
            password_file.display()
        )
    };
    let gateway = Gateway::start(&file(&etcd, &options("edge", "secret of edge\n")));
    assert_eq!(body(&gateway, "api.test"), "1");
    // Who may only read serves, but cannot say so.
    let reader = Gateway::start(&file(&etcd, &options("reader", "secret of reader")));
    reader.wait_for_log("cannot write the record of this instance to etcd error=");
    etcd.put(&key("services/api"), &service("api.test", "2"));
    for gateway in [&gateway, &reader] {
        wait_for_body(gateway, "api.test", "2");
    }
    let fleet = run(&["fleet", "--wait", "20", "--config", &gateway.config_path().to_string_lossy()]);
    assert_eq!((fleet.code, fleet.stdout.matches(" current ").count()), (0, 1), "{fleet:?}");
    let url = format!(
        "etcds://{}{PREFIX}?ca={1}/ca.crt&certificate={1}/member.crt&key={1}/member.key&user=edge&password_file={1}/edge.password",
        etcd.endpoints(),
        folder.path().display()
    );
    let check = run(&["check", "--config", &url]);
    assert_eq!(check.code, 0, "{check:?}");
    // What is wrong is named, and the password is not.
    for (url, error) in [
        (url.replace("edge.password", "none"), "cannot read "),
        (url.replace("edge.password", "reader.password"), "authentication failed, invalid user ID or password"),
        (
            url.replace("&user=edge", "")
                .replace(&format!("&password_file={}/edge.password", folder.path().display()), ""),
            "permission denied",
        ),
        (format!("etcds://{}{PREFIX}", etcd.endpoints()), "certificate"),
        (format!("etcd://{}{PREFIX}", etcd.endpoints()), "cannot be used"),
    ] {
        let check = run(&["check", "--config", &url]);
        assert!(check.code == 1 && check.stderr.contains(error), "{error}: {check:?}");
        assert!(!check.stderr.contains("secret of"), "{check:?}");
    }
}

/// docs/fleet.md, from its first command to its last, with other ports.
#[test]
fn the_page_about_fleets_works_as_written() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut script = String::from("set -e\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n");
    let (mut shown, mut blocks) = (Vec::new(), page.split("```").skip(1).step_by(2).peekable());
    while let Some(block) = blocks.next() {
        let Some(commands) = block.strip_prefix("sh\n") else { continue };
        script.push_str(commands);
        script.push_str("echo '--- end of the block'\n");
        shown.push(blocks.next_if(|next| next.starts_with("text\n")).map(|next| next["text\n".len()..].to_owned()));
    }
    assert!(shown.len() > 5, "the commands were not found");
    for port in ["2379", "2380", "9081", "9082", "9083", "9181", "9182", "9183"] {
        script = script.replace(&format!(":{port}"), &format!(":{}", free_port()));
    }
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_corsgate")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = std::process::Command::new("timeout");
    let output =
        command.args(["60", "bash", "-c", &script]).env("PATH", path).current_dir(folder.path()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let printed: Vec<&str> = stdout.split("--- end of the block\n").collect();
    for (shown, printed) in shown.iter().zip(&printed) {
        if let Some(shown) = shown {
            assert_eq!(without_numbers(printed), without_numbers(shown), "{printed}\n{stderr}");
        }
    }
}

/// Without what differs between machines: names of instances, hashes, ports, revisions and the widths of columns.
fn without_numbers(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, with) in [
        (r"(?m)^\S+-\d+ ", "NAME "),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"\b[0-9a-f]{12}\b", "HASH"),
        (r"revision \d+", "revision N"),
        (r"(current|behind) +\d+", "$1 N"),
        (r" +", " "),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text.trim_end().to_owned()
}

/// SIGHUP reads the certificates and the file again.
#[test]
fn sighup_reloads() {
    let etcd = Etcd::start();
    etcd.put(&key("services/api"), &service("api.test", "1"));
    let gateway = Gateway::start(&file(&etcd, ""));
    let before = gateway.metric("corsgate_config_generation");
    gateway.signal(Signal::Hup);
    let reloaded = poll(CHANGE_TIMEOUT, || (gateway.metric("corsgate_config_generation") > before).then_some(()));
    assert!(reloaded.is_some());
    // A file with an error changes nothing.
    gateway.reload_with(&format!("{}\nservices: []\n", file(&etcd, "")));
    gateway.wait_for_log("`source` and `services` cannot be combined");
    assert_eq!(body(&gateway, "api.test"), "1");
}

#[test]
fn a_url_that_cannot_be_used_is_an_error() {
    for (url, error) in [
        ("etcd://", "endpoints[0]: found ``"),
        ("etcd://127.0.0.1:x/edge", "endpoints[0]: found `127.0.0.1:x`; write a host and a port"),
        ("etcd://u:p@127.0.0.1:1/edge", "a URL on the command line must have no password"),
        ("etcd://127.0.0.1:1/edge?color=red", "there is no option `color`"),
    ] {
        for command in ["run", "check", "fleet", "explain"] {
            let more: &[&str] =
                if command == "explain" { &["--origin", "https://a.test", "https://b.test/"] } else { &[] };
            let output = run(&[&[command, "--config", url], more].concat());
            assert!(output.code != 0 && output.stderr.contains(error), "{command} {url}: {output:?}");
            assert!(!output.stderr.contains("u:p"), "{}", output.stderr);
        }
    }
    let output = run(&["check", "--config", "etcd://127.0.0.1:1/edge"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("cannot read etcd://127.0.0.1:1/edge: 127.0.0.1:1 cannot be used: "), "{output:?}");
}

/// A file with a mistake is no file without `source`.
#[test]
fn a_source_with_an_error_is_refused() {
    let listeners = "listeners: [{ address: '{listen}' }]";
    let services = "services: [{ name: api, respond: { status: 200 } }]";
    for (more, error) in [
        ("source: {}", "source.etcd.endpoints: is missing"),
        ("source: { etcd: { endpoints: [] } }", "source.etcd.endpoints: is missing"),
        ("source: { etcd: { endpoints: ['a:b'] } }", "source.etcd.endpoints[0]: found `a:b`; write a host and a port"),
        ("source: { etcd: { endpoints: a, user: u } }", "source.etcd.user: `user` requires `password_file`"),
        ("source: { etcd: { endpoints: a, colour: red } }", "source.etcd.colour: unknown key `colour`"),
        (
            &format!("source: {{ etcd: {{ endpoints: a }} }}\n{services}"),
            "services: `source` and `services` cannot be combined",
        ),
        (
            "source: { etcd: { endpoints: a } }\nexpect_files: a.yaml",
            "expect_files: `source` and `expect_files` cannot",
        ),
    ] {
        let mut gateway = Gateway::spawn(&format!("{listeners}\n{more}\n"));
        assert_eq!(gateway.exit().code(), Some(1), "{more}");
        assert!(gateway.stderr().contains(error), "{more}: {}", gateway.stderr());
        for command in ["check", "fleet"] {
            let output = run(&[command, "--config", &gateway.config_path().to_string_lossy()]);
            let text = format!("{}{}", output.stdout, output.stderr);
            assert!(output.code > 0 && text.contains(error), "{command} {more}: {text}");
        }
    }
}

#[test]
fn other_commands_read_etcd_too() {
    let etcd = Etcd::start();
    etcd.put(&key("settings"), "listeners: [{ address: '127.0.0.1:1' }]");
    etcd.put(
        &key("services/api"),
        "hosts: [api.test]\nrespond: { status: 200 }\ncors: { allow_origins: 'https://a.test', max_age: 60 }",
    );
    let url = etcd.url(PREFIX);
    let explain = run(&["explain", "--config", &url, "--origin", "https://a.test", "http://api.test/"]);
    assert_eq!(explain.code, 0, "{explain:?}");
    let refused = run(&["explain", "--config", &url, "--origin", "https://b.test", "http://api.test/"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    let effective = run(&["check", "--effective", "--config", &url]);
    assert_eq!(effective.code, 0, "{effective:?}");
}

/// Time to the first configuration, CPU time of one change and memory with 10,000 services. Prints figures.
#[test]
#[ignore = "prints figures, takes a minute"]
fn figures_of_10_000_services() {
    let etcd = Etcd::start();
    let value = |i: usize, body: &str| {
        format!(
            r#"{{"hosts":["s{i}.test"],"respond":{{"status":200,"body":"{body}"}},"cors":"p{}","routes":[{{"paths":["/a/*"]}},{{"paths":["/b/{{id}}"],"methods":["GET","POST"]}},{{"paths":["/*"]}}]}}"#,
            i % 10
        )
    };
    let policies: Vec<_> = (0..10)
        .map(|i| {
            (key(&format!("cors_policies/p{i}")), format!(r#"{{"allow_origins":["https://a{i}.test"],"max_age":60}}"#))
        })
        .collect();
    etcd.put_all(&policies);
    let services: Vec<_> = (0..10_000).map(|i| (key(&format!("services/s{i}")), value(i, "0"))).collect();
    etcd.put_all(&services);
    let start = Instant::now();
    let gateway = Gateway::start(&file(&etcd, ""));
    println!("time to the first configuration: {:?}", start.elapsed());
    wait_for_body(&gateway, "s9999.test", "0");
    std::thread::sleep(Duration::from_secs(3));
    println!("resident memory: {} MiB", gateway.memory() >> 10);
    let cpu = || {
        let metrics = gateway.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total ")).unwrap();
        line.parse::<f64>().unwrap()
    };
    let (before, mut times) = (ticks(&gateway), Vec::new());
    for i in 1..=20 {
        let start = Instant::now();
        etcd.put(&key("services/s5000"), &value(5000, &i.to_string()));
        wait_for_body(&gateway, "s5000.test", &i.to_string());
        times.push(start.elapsed());
    }
    let used = ticks(&gateway) - before;
    times.sort();
    println!("CPU time of one change: {} ms", used * 10 / 20);
    println!("until a change is active: median {:?}, worst {:?}", times[10], times[19]);
    println!("resident memory: {} MiB; CPU time in all {:.1} s", gateway.memory() >> 10, cpu());
}

/// CPU time of a process in hundredths of a second.
fn ticks(gateway: &Gateway) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

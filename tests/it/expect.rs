//! Expectations: `check`, the start and a reload refuse a file with a failed expectation, and `corsgate test` runs all
//! of them.
//!
//! The messages are in the corpus: `tests/config/refused/expectation*.txt`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use corsgate::expect::load;
use corsgate::snapshot::CompileEnv;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{Connection, Response};
use crate::support::gateway::{Gateway, Output, run_in};
use crate::support::upstream::{Reply, Upstream};

const CONFIG: &str = "\
listeners: [{ address: 127.0.0.1:9080 }]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
services:
  - name: api
    hosts: [api.example]
    upstream: api
    cors:
      allow_origins: https://app.example
      allow_methods: [PUT]
      allow_headers: [Content-Type]
      max_age: 600
    routes:
      - { name: guarded, paths: [/guarded], cors: { allow_origins: https://app.example, disallowed_origins: reject, max_age: 600 } }
      - { name: all, paths: [/*] }
      - { name: moved, paths: [/moved], redirect: { to: https://other.example/ } }
";

/// A directory with `corsgate.yaml` and other files.
struct Folder(TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("corsgate.yaml", config);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run_in(self.0.path(), arguments)
    }
}

fn with(expectations: &str) -> String {
    format!("{CONFIG}expect:\n{expectations}")
}

const PUT: &str = "  - { page: https://app.example, method: PUT, url: https://api.example/a, result: allowed }\n";
const DELETE: &str = "  - { page: https://app.example, method: DELETE, url: https://api.example/a, result: allowed }\n";

/// Each row has the request of a page, its code, and the only result out of three that holds.
#[test]
fn each_request_has_exactly_one_result() {
    for (request, result, code) in [
        ("page: https://app.example, url: https://api.example/a", "allowed", "allowed_exact"),
        ("page: https://app.example, method: PUT, url: https://api.example/a", "allowed", "allowed_exact"),
        ("page: https://api.example, method: DELETE, url: https://api.example/a", "allowed", "origin_not_allowed"),
        // The upstream gets a GET of any origin.
        ("page: https://evil.example, url: https://api.example/a", "unreadable", "origin_not_allowed"),
        ("page: https://evil.example, method: POST, url: https://api.example/a", "unreadable", "origin_not_allowed"),
        ("page: https://evil.example, url: https://api.example/guarded", "refused", "origin_not_allowed"),
        // The preflight fails.
        ("page: https://evil.example, method: PUT, url: https://api.example/a", "refused", "origin_not_allowed"),
        ("page: https://app.example, method: DELETE, url: https://api.example/a", "refused", "method_not_allowed"),
        ("page: https://app.example, headers: [X-A], url: https://api.example/a", "refused", "header_not_allowed"),
        ("page: https://app.example, url: https://api.example/a, reads: X-B", "unreadable", "not_exposed"),
        (
            "page: https://app.example, url: https://api.example/a, credentials: true",
            "unreadable",
            "credentials_not_allowed",
        ),
        (
            "page: https://app.example, method: PUT, url: https://api.example/a, credentials: true",
            "refused",
            "credentials_not_allowed",
        ),
        ("page: https://app.example, url: https://other.example/", "refused", "unknown_host"),
        ("page: https://evil.example, as: no-cors, url: https://api.example/a", "allowed", "no_origin"),
        ("page: https://evil.example, as: websocket, url: wss://api.example/a", "allowed", "origin_not_allowed"),
        (
            "page: https://evil.example, as: navigation, method: POST, url: https://api.example/guarded",
            "refused",
            "origin_not_allowed",
        ),
    ] {
        for expected in ["allowed", "refused", "unreadable"] {
            let text = with(&format!("  - {{ {request}, result: {expected}, reason: {code} }}\n"));
            let loaded = load("corsgate.yaml", &text, CompileEnv::NONE);
            assert_eq!(loaded.snapshot.is_some(), expected == result, "{request}: {expected}\n{}", loaded.problems);
        }
        let text = with(&format!("  - {{ {request}, result: {result}, reason: origin_null }}\n"));
        let problems = load("corsgate.yaml", &text, CompileEnv::NONE).problems.to_string();
        assert!(problems.contains(&format!("but found `{code}`")), "{request}\n{problems}");
    }
}

/// Another server decides, so no result is correct.
#[test]
fn a_redirect_to_another_server_has_no_result() {
    for expected in ["allowed", "refused", "unreadable"] {
        let text =
            with(&format!("  - {{ page: https://app.example, url: https://api.example/moved, result: {expected} }}\n"));
        let loaded = load("corsgate.yaml", &text, CompileEnv::NONE);
        let problems = loaded.problems.to_string();
        assert!(
            loaded.snapshot.is_none() && problems.contains("a redirect to another server"),
            "{expected}: {problems}"
        );
    }
}

#[test]
fn check_and_run_refuse_a_file_with_a_failed_expectation() {
    let folder = Folder::new(&with(&format!("{PUT}{DELETE}")));
    let output = folder.run(&["check", "--config", "corsgate.yaml"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("error: corsgate.yaml:18:86 expect[1].result: expected `allowed`"), "{output:?}");
    let output = folder.run(&["check", "--config", "corsgate.yaml", "--format", "json"]);
    let problems: Value = serde_json::from_str(&output.stdout).unwrap();
    let failed = problems.as_array().unwrap().iter().find(|problem| problem["code"] == "expectation-failed").unwrap();
    assert_eq!((&failed["line"], &failed["path"]), (&18.into(), &"expect[1].result".into()));
    assert!(failed["remedy"].as_str().unwrap().starts_with("add `DELETE` to allow_methods (line 9), or"), "{failed}");
    let output = folder.run(&["run", "--config", "corsgate.yaml"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("the configuration cannot be used\n") && output.stderr.contains("expect[1].result"));
}

/// A shell can run the printed command, and the command explains the failure.
#[test]
fn the_printed_command_explains_the_failure() {
    let config = with(
        "  - page: https://app.example
    method: HEAD
    url: https://api.example/a?b=1&c=2
    headers: { Accept: \"it's $b\" }
    reads: [X-B]
    client: 192.0.2.7
    upstream: { status: 201, headers: { X-C: \"1 2\" } }
    result: allowed\n",
    );
    let folder = Folder::new(&config);
    let output = folder.run(&["test", "--config", "corsgate.yaml", "--format", "json"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let result = &report["results"][0];
    let command = result["command"].as_str().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_corsgate")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let shell =
        Command::new("sh").args(["-c", command]).current_dir(folder.0.path()).env("PATH", path).output().unwrap();
    let printed = String::from_utf8(shell.stdout).unwrap();
    assert_eq!(shell.status.code(), Some(3), "{command}\n{printed}");
    for line in ["> HEAD /a?b=1&c=2 HTTP/1.1", "> Accept: it's $b", "< HTTP/1.1 201 Created", "< X-C: 1 2"] {
        assert!(printed.contains(line), "{line}\n{printed}");
    }
    assert_eq!(result["explanation"]["cause"]["code"], result["found"]["reason"]);
}

#[test]
fn test_prints_each_expectation_and_explains_the_failed_ones() {
    let folder = Folder::new(&format!("{}expect_files: [team/orders.yaml]\n", with(&format!("{PUT}{DELETE}"))));
    folder.write(
        "team/orders.yaml",
        "expect:\n  - { page: https://evil.example, url: https://api.example/a, result: refused }\n",
    );
    folder.write("more.yaml", &format!("expect:\n{PUT}"));
    let output = folder.run(&["test", "--config", "corsgate.yaml", "--expect", "more.yaml"]);
    let expected = "\
ok    corsgate.yaml:17    allowed     PUT https://api.example/a, from a page of https://app.example
FAIL  corsgate.yaml:18    allowed     DELETE https://api.example/a, from a page of https://app.example
      found    `refused` (method_not_allowed) instead of `allowed`: the policy's allow_methods has
               PUT, but not DELETE (corsgate.yaml:9:7)
      advice   add `DELETE` to allow_methods (line 9), or correct the expectation
      explain  corsgate explain --config corsgate.yaml --origin=https://app.example --method=DELETE https://api.example/a
FAIL  team/orders.yaml:2  refused     GET https://api.example/a, from a page of https://evil.example
      found    `unreadable` (origin_not_allowed) instead of `refused`: the policy does not allow the
               origin https://evil.example (corsgate.yaml:8:7)
      advice   write `result: unreadable`, or let the policy reject the request with
               `disallowed_origins: reject`
      explain  corsgate explain --config corsgate.yaml --origin=https://evil.example https://api.example/a
ok    more.yaml:2         allowed     PUT https://api.example/a, from a page of https://app.example
2 hold, 2 fail
";
    assert_eq!((output.code, &*output.stdout), (1, expected), "{output:?}");
    let output = folder.run(&["test", "--config", "corsgate.yaml", "--format", "json"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((output.code, &report["holding"], &report["failing"]), (1, &1.into(), &2.into()));
    assert_eq!(report["results"][2]["file"], "team/orders.yaml");
    assert_eq!(report["results"][1]["explanation"]["fix"]["hunks"][0]["line"], 9);
}

#[test]
fn test_exits_with_0_1_or_2() {
    let holds = Folder::new(&with(PUT));
    holds.write("failing.yaml", &format!("expect:\n{DELETE}"));
    holds.write("list.yaml", DELETE);
    let none = Folder::new(CONFIG);
    let broken = Folder::new(&format!("{}colour: red\n", with(PUT)));
    let code = |folder: &Folder, more: &[&str]| {
        let output = folder.run(&[&["test", "--config", "corsgate.yaml"], more].concat());
        assert_eq!(output.code == 2, output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
        output.code
    };
    assert_eq!(code(&holds, &[]), 0);
    assert_eq!(code(&holds, &["--expect", "failing.yaml"]), 1);
    assert_eq!(code(&holds, &["--expect", "list.yaml"]), 2);
    assert_eq!(code(&holds, &["--expect", "absent.yaml"]), 2);
    assert_eq!(code(&none, &[]), 2);
    assert_eq!(code(&broken, &[]), 2);
    assert_eq!(holds.run(&["test", "--config", "absent.yaml"]).code, 2);
    assert_eq!(holds.run(&["test", "--no-such-option"]).code, 2);
}

/// The printed entry holds. It fails with another result.
#[test]
fn an_entry_of_as_expectation_holds() {
    for arguments in [
        "--origin https://app.example https://api.example/a",
        "--origin https://app.example --method PUT --header Content-Type:application/json https://api.example/a?b=1",
        "--origin https://app.example --method DELETE https://api.example/a",
        "--origin https://app.example --header X-A --header X-B:1 https://api.example/a",
        "--origin https://app.example --header Accept:a --header Accept:b https://api.example/a",
        "--origin https://evil.example --credentials https://api.example/a",
        "--origin null https://api.example/guarded",
        "--origin https://evil.example --as websocket wss://api.example/a",
        "--origin https://app.example --reads X-B --upstream-status 404 --upstream-header Age:1 --client ::1 https://api.example/a",
        "--origin https://app.example https://other.example/",
    ] {
        let folder = Folder::new(CONFIG);
        let words: Vec<&str> = arguments.split(' ').collect();
        let entry = folder.run(&[&["explain", "--config", "corsgate.yaml", "--as-expectation"], &*words].concat());
        assert_eq!(entry.code, 0, "{arguments}: {entry:?}");
        folder.write("corsgate.yaml", &with(&entry.stdout));
        let output = folder.run(&["test", "--config", "corsgate.yaml"]);
        assert_eq!(
            (output.code, output.stdout.lines().last()),
            (0, Some("1 hold, 0 fail")),
            "{arguments}\n{}\n{output:?}",
            entry.stdout
        );
        let result = entry.stdout.lines().find_map(|line| line.strip_prefix("    result: ")).unwrap();
        let other = if result == "allowed" { "refused" } else { "allowed" };
        folder.write(
            "corsgate.yaml",
            &with(&entry.stdout.replace(&format!("result: {result}"), &format!("result: {other}"))),
        );
        assert_eq!(folder.run(&["check", "--config", "corsgate.yaml"]).code, 1, "{arguments}");
    }
    let folder = Folder::new(CONFIG);
    for (arguments, code) in [
        ("--origin https://app.example https://api.example/a --then https://api.example/b", 2),
        ("--origin https://app.example --origin https://b.example https://api.example/a", 2),
        ("--origin https://app.example --format json https://api.example/a", 2),
        ("--origin https://app.example https://api.example/moved", 4),
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = folder.run(&[&["explain", "--config", "corsgate.yaml", "--as-expectation"], &*words].concat());
        assert_eq!((output.code, &*output.stdout), (code, ""), "{arguments}: {output:?}");
    }
}

/// `explain` must not suggest an edit that breaks an expectation.
#[test]
fn an_edit_of_explain_respects_the_expectations() {
    let ask = [
        "explain",
        "--config",
        "corsgate.yaml",
        "--origin",
        "https://app.example",
        "--method",
        "DELETE",
        "https://api.example/a",
    ];
    let folder = Folder::new(&with(PUT));
    let output = folder.run(&ask);
    assert!(output.stdout.contains("fix: add `DELETE` to allow_methods"), "{output:?}");
    let guard = "  - { page: https://app.example, method: DELETE, url: https://api.example/b, result: refused }\n";
    folder.write("corsgate.yaml", &with(guard));
    let output = folder.run(&ask);
    assert_eq!(output.code, 3);
    assert!(output.stdout.contains("The closest edit: add `DELETE` to allow_methods."), "{output:?}");
    assert!(output.stdout.contains("corsgate.yaml:17:"), "{output:?}");
    // `explain` works on a file with a failed expectation, and suggests an edit.
    folder.write("corsgate.yaml", &with(DELETE));
    let output = folder.run(&ask);
    assert!(output.code == 3 && output.stdout.contains("fix: add `DELETE` to allow_methods"), "{output:?}");
}

#[test]
fn diff_ignores_expectations() {
    let folder = Folder::new(&format!("{}expect_files: [absent.yaml]\n", with(DELETE)));
    folder.write("old.yaml", CONFIG);
    for files in [["old.yaml", "corsgate.yaml"], ["corsgate.yaml", "old.yaml"]] {
        let output = folder.run(&[&["diff"], &files[..]].concat());
        assert_eq!((output.code, &*output.stderr), (0, ""), "{output:?}");
    }
}

/// A thousand failures have a bounded report, computed in bounded time.
#[test]
fn failed_expectations_beyond_a_hundred_are_counted() {
    let text = with(&DELETE.repeat(1000));
    let problems = load("corsgate.yaml", &text, CompileEnv::NONE).problems;
    let failed: Vec<String> = problems
        .iter()
        .filter(|problem| problem.kind.code() == "expectation-failed")
        .map(ToString::to_string)
        .collect();
    assert_eq!(failed.len(), 101);
    assert_eq!(failed[100], "expect: 900 more expectations fail; run `corsgate test` to see all of them");
}

// === reload ===

/// Returns a configuration with these origins. Its expectation needs the origin `https://app.example`.
fn served(upstream: &Upstream, origins: &str) -> String {
    format!(
        "\
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: [{origins}], allow_methods: [PUT], max_age: 60 }}
expect:
  - {{ page: https://app.example, method: PUT, url: https://api.example/, result: allowed }}
expect_files: [expect.yaml]
",
        upstream.address()
    )
}

const FILE: &str =
    "expect:\n  - { page: https://evil.example, method: PUT, url: https://api.example/, result: refused }\n";

fn is_allowed(response: &Response) -> bool {
    response.status == 200 && response.header("Access-Control-Allow-Origin") == Some("https://app.example")
}

#[test]
fn a_reload_refused_by_an_expectation_under_load_fails_no_request() {
    const RELOADS: usize = 40;
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway =
        Gateway::start_with_files(&served(&upstream, "https://app.example"), &[("expect.yaml".into(), FILE.into())]);
    let (stop, served_requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        // The clients must end even if the scope panics.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stopping = Stop(&stop);
        for client in 0..3 {
            let (stop, served_requests, address) = (&stop, &served_requests, gateway.address());
            scope.spawn(move || {
                let fields = [("Host", "api.example"), ("Origin", "https://app.example")];
                let preflight = [fields[0], fields[1], ("Access-Control-Request-Method", "PUT")];
                let mut connection = Connection::open(address).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    for (method, fields) in [("OPTIONS", &preflight[..]), ("PUT", &fields[..])] {
                        let response = connection.request(method, "/", fields, b"").unwrap();
                        assert!(is_allowed(&response), "{response:?}");
                        served_requests.fetch_add(1, Ordering::Relaxed);
                    }
                    if client == 0 {
                        connection = Connection::open(address).unwrap();
                    }
                }
            });
        }
        for n in 1..=RELOADS {
            let before = served_requests.load(Ordering::Relaxed);
            let origins = ["https://other.example", "https://app.example, https://evil.example"][n % 2];
            gateway.reload_with(&served(&upstream, origins));
            gateway.wait_for_log_count("reload refused, keeping the running configuration:", n);
            // The gateway served requests while the file was refused.
            while served_requests.load(Ordering::Relaxed) < before + 6 {
                thread::yield_now();
            }
        }
    });
    assert_eq!(gateway.metric("corsgate_config_reloads_total{result=\"refused\"}"), RELOADS as u64);
    assert_eq!(gateway.metric("corsgate_config_generation"), 1);
    let log = gateway.stderr();
    let own = "corsgate.yaml:8:82 expect[0].result: expected `allowed` for PUT https://api.example/, from a page of https://app.example, but found `refused` (origin_not_allowed)";
    let other = "expect.yaml:2:83 expect[0].result: expected `refused` for PUT https://api.example/, from a page of https://evil.example, but found `allowed` (allowed_exact)";
    assert_eq!((log.matches(own).count(), log.matches(other).count()), (RELOADS / 2, RELOADS / 2), "{log}");
    gateway.reload_with(&served(&upstream, "https://app.example, https://more.example"));
    gateway.wait_for_log("reloaded generation=2");
}

#[test]
fn a_change_of_an_expectation_file_is_a_reload() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let config = served(&upstream, "https://app.example");
    let gateway = Gateway::start_watching(&config, &[("expect.yaml".into(), FILE.into())]);
    gateway.replace("expect.yaml", &FILE.replace("refused", "allowed"));
    gateway.wait_for_log("reload refused, keeping the running configuration:");
    gateway.replace("expect.yaml", FILE);
    gateway.wait_for_log("reloaded generation=2");
}

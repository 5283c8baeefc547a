//! `corsgate test --server`: expectations against a running server.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::certificates::Authority;
use crate::support::gateway::{Gateway, Output, free_port, run_in};
use crate::support::upstream::{Reply, Upstream};

/// A gateway with one host and three kinds of routes.
fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "\
listeners: [{{ address: \"{{listen}}\" }}]
services:
  - name: api
    hosts: [api.example]
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.example, allow_methods: [PUT, DELETE], allow_headers: [X-A], max_age: 600 }}
    routes:
      - {{ name: guarded, paths: [/guarded], cors: {{ allow_origins: https://app.example, disallowed_origins: reject, max_age: 600 }} }}
      - {{ name: moved, paths: [/moved], redirect: {{ to: https://api.example/a }} }}
      - {{ name: away, paths: [/away], redirect: {{ to: https://other.example/ }} }}
      - {{ name: all, paths: [/*] }}
",
        upstream.address()
    ))
}

/// A folder with a file of expectations.
fn folder(expectations: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("team.yaml"), format!("expect:\n{expectations}")).unwrap();
    folder
}

fn test(folder: &TempDir, server: &str, flags: &[&str]) -> Output {
    run_in(folder.path(), &[&["test", "--server", server, "--expect", "team.yaml", "--timeout", "10"], flags].concat())
}

/// Returns the word of each expectation, and the line below it if there is one.
fn words(output: &Output) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in output.stdout.lines() {
        match line.split_once(' ') {
            Some((word @ ("ok" | "FAIL" | "skip"), _)) => found.push((word.to_owned(), String::new())),
            Some(("", rest)) => {
                if let Some((_, below)) = found.last_mut() {
                    *below += rest.trim();
                }
            }
            _ => {}
        }
    }
    found
}

/// Each row has a request, the expected result, and the word that `corsgate test` prints without and with `--send`.
#[test]
fn the_responses_of_a_server_decide_whether_expectations_hold() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway(&upstream);
    let rows = [
        ("page: https://app.example, url: https://api.example/a", "allowed", "ok", "ok"),
        ("page: https://app.example, url: https://api.example/a", "unreadable", "FAIL", "FAIL"),
        ("page: https://app.example, url: https://api.example/a", "refused", "FAIL", "FAIL"),
        ("page: https://app.example, url: https://api.example/moved", "allowed", "ok", "ok"),
        ("page: https://app.example, url: https://api.example/away", "allowed", "FAIL", "FAIL"),
        ("page: https://api.example, url: https://api.example/a", "allowed", "ok", "ok"),
        ("page: https://evil.example, url: https://api.example/a", "unreadable", "ok", "ok"),
        // The status is 200, so the response does not show whether the upstream got the request.
        ("page: https://evil.example, url: https://api.example/a", "refused", "FAIL", "FAIL"),
        ("page: https://evil.example, url: https://api.example/a", "allowed", "FAIL", "FAIL"),
        ("page: https://evil.example, url: https://api.example/guarded", "refused", "ok", "ok"),
        ("page: https://evil.example, url: https://api.example/guarded", "allowed", "FAIL", "FAIL"),
        ("page: https://evil.example, method: PUT, url: https://api.example/a", "refused", "ok", "ok"),
        ("page: https://evil.example, method: PUT, url: https://api.example/a", "unreadable", "FAIL", "FAIL"),
        ("page: https://app.example, method: PATCH, url: https://api.example/a", "refused", "ok", "ok"),
        ("page: https://app.example, headers: [X-B], url: https://api.example/a", "refused", "ok", "ok"),
        ("page: https://app.example, headers: { X-A: b }, url: https://api.example/a", "allowed", "ok", "ok"),
        ("page: https://app.example, reads: X-C, url: https://api.example/a", "unreadable", "ok", "ok"),
        ("page: https://app.example, url: https://api.example/a, credentials: true", "unreadable", "ok", "ok"),
        // Requests that can change data.
        ("page: https://app.example, method: PUT, url: https://api.example/a", "allowed", "skip", "ok"),
        ("page: https://app.example, method: PUT, url: https://api.example/a", "unreadable", "skip", "FAIL"),
        ("page: https://evil.example, method: POST, url: https://api.example/a", "unreadable", "skip", "ok"),
        // Expectations that need a configuration.
        ("page: https://evil.example, as: websocket, url: wss://api.example/a", "refused", "skip", "skip"),
        ("page: https://app.example, client: 192.0.2.7, url: https://api.example/a", "allowed", "skip", "skip"),
        ("page: https://app.example, upstream: { status: 500 }, url: https://api.example/a", "allowed", "skip", "skip"),
    ];
    let entries: String =
        rows.iter().map(|(request, result, ..)| format!("  - {{ {request}, result: {result} }}\n")).collect();
    let folder = folder(&entries);
    let server = format!("http://{}", gateway.address());
    for (flags, column, changes) in [(&[][..], 0, 0), (&["--send"][..], 1, 3)] {
        upstream.clear();
        let output = test(&folder, &server, flags);
        let words = words(&output);
        assert_eq!((output.code, words.len()), (1, rows.len()), "{output:?}");
        for (i, ((request, result, plain, sent), (word, below))) in rows.iter().zip(&words).enumerate() {
            assert_eq!(word, [plain, sent][column], "row {i}: {request}, {result}, {flags:?}: {below}");
            assert_eq!(word == "ok", below.is_empty(), "row {i}: {request}: {below}");
        }
        let unsafe_requests = upstream.received().iter().filter(|received| received.method != "GET").count();
        assert_eq!(unsafe_requests, changes, "{flags:?}");
    }
}

#[test]
fn a_failure_says_the_cause_and_the_command_shows_the_exchange() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway(&upstream);
    let folder = folder(
        "  - { page: https://app.example, method: PATCH, headers: { X-A: it's }, url: https://api.example/a, result: allowed }
  - { page: https://app.example, method: PUT, url: https://api.example/a, result: allowed, reason: allowed_regex }
",
    );
    let server = format!("http://{}", gateway.address());
    let output = test(&folder, &server, &[]);
    let expected = format!(
        "\
FAIL  team.yaml:2  allowed     PATCH https://api.example/a, from a page of https://app.example
      found    `refused` (method_not_allowed) instead of `allowed`: Access-Control-Allow-Methods
               does not allow the method PATCH
      advice   add `PATCH` to `Access-Control-Allow-Methods` of the response to OPTIONS, or correct
               the expectation
      explain  corsgate probe --server={server} --origin=https://app.example --method=PATCH --header='X-A: it'\\''s' https://api.example/a
skip  team.yaml:3  allowed     PUT https://api.example/a, from a page of https://app.example
      reason   PUT is only sent with `--send`: it can change data
0 hold, 1 fail, 1 not tested
"
    );
    assert_eq!((output.code, &*output.stdout, &*output.stderr), (1, &*expected, ""));
    // The printed command shows the failed preflight.
    let command = output.stdout.lines().find_map(|line| line.trim().strip_prefix("explain  ")).unwrap();
    let words = ["probe", &format!("--server={server}"), "--origin=https://app.example", "--method=PATCH"];
    assert!(command.contains(words[1]));
    let probed = run_in(folder.path(), &[&words[..], &["--header=X-A: it's", "https://api.example/a"]].concat());
    assert!(probed.code == 1 && probed.stdout.contains("OPTIONS /a HTTP/1.1"), "{probed:?}");
    // The JSON output has the same results.
    let json: Value = serde_json::from_str(&test(&folder, &server, &["--format", "json"]).stdout).unwrap();
    assert_eq!((&json["holding"], &json["failing"], &json["skipped"]), (&0.into(), &1.into(), &1.into()));
    assert_eq!(json["results"][0]["holds"], false);
    assert_eq!(json["results"][0]["found"]["reason"], "method_not_allowed");
    assert_eq!(json["results"][1]["holds"], Value::Null);
    // The reason is not compared, because a response does not contain it.
    assert_eq!(test(&folder, &server, &["--send"]).stdout.matches("\nok ").count(), 1);
}

/// The server can be any program. This one answers every origin with `*`.
#[test]
fn the_server_can_be_any_program() {
    let server = Upstream::start(|_| Reply::new(200).header("Access-Control-Allow-Origin", "*"));
    let folder = folder("  - { page: https://evil.example, url: https://api.example/a, result: unreadable }\n");
    let output = test(&folder, &format!("http://{}", server.address()), &[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("found    `allowed` (allowed) instead of `unreadable`"), "{output:?}");
    let received = server.received();
    assert_eq!((received.len(), received[0].header("Host")), (1, Some("api.example")));
    assert_eq!(received[0].header("Origin"), Some("https://evil.example"));
}

#[test]
fn a_tls_server_is_asked_for_the_host_of_the_url() {
    let authority = Authority::new("a");
    let server = Upstream::start_tls(authority.issue(&["api.example"]).server(None, &["http/1.1"]), |_| {
        Reply::new(200).header("Access-Control-Allow-Origin", "https://app.example")
    });
    let folder = folder("  - { page: https://app.example, url: https://api.example/a, result: allowed }\n");
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let server = format!("https://{}", server.address());
    let output = test(&folder, &server, &["--ca", "ca.pem"]);
    assert_eq!((output.code, &*output.stderr), (0, ""), "{output:?}");
    let output = test(&folder, &server, &[]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("the TLS handshake failed"), "{output:?}");
}

/// With `--config`, the expectations of the configuration are also sent.
#[test]
fn the_expectations_of_a_configuration_are_sent_to_the_server() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway(&upstream);
    let folder = folder("  - { page: https://app.example, url: https://api.example/a, result: allowed }\n");
    // The file allows another origin than the server does.
    fs::write(
        folder.path().join("corsgate.yaml"),
        "\
listeners: [{ address: 127.0.0.1:9080 }]
services:
  - name: api
    hosts: [api.example]
    upstream: { nodes: [{ address: 127.0.0.1:8000 }] }
    cors: { allow_origins: https://new.example }
expect:
  - { page: https://new.example, url: https://api.example/a, result: allowed }
",
    )
    .unwrap();
    let server = format!("http://{}", gateway.address());
    let output = test(&folder, &server, &["--config", "corsgate.yaml"]);
    assert_eq!(words(&output).iter().map(|(word, _)| &**word).collect::<Vec<_>>(), ["FAIL", "ok"], "{output:?}");
    let output = run_in(folder.path(), &["test", "--server", &server]);
    assert_eq!(words(&output).len(), 1, "{output:?}");
    assert_eq!(run_in(folder.path(), &["test"]).code, 0);
}

#[test]
fn unusable_command_lines_and_servers_exit_with_2() {
    let folder = folder("  - { page: https://app.example, url: https://api.example/a, result: allowed }\n");
    let closed = format!("http://127.0.0.1:{}", free_port());
    for (server, flags, message) in [
        (
            &*closed,
            &[][..],
            "corsgate: no response to GET https://api.example/a, from a page of https://app.example: no connection",
        ),
        ("http://127.0.0.1:1/path", &[], "a server has no path; write it without `/path`"),
        ("127.0.0.1:9080", &[], "write for example"),
        ("ftp://127.0.0.1", &[], "neither http nor https"),
        (&closed, &["--expect", "absent.yaml"], "corsgate: cannot read absent.yaml"),
        (&closed, &["--config", "absent.yaml"], "corsgate: cannot read absent.yaml"),
        (&closed, &["--ca", "absent.pem"], "--ca: cannot use absent.pem"),
        (&closed, &["--resolve", "api.example:443:127.0.0.1"], "cannot be used with"),
    ] {
        let output = test(&folder, server, flags);
        assert_eq!((output.code, &*output.stdout), (2, ""), "{server} {flags:?}: {output:?}");
        assert!(output.stderr.contains(message), "{server} {flags:?}: {output:?}");
    }
    let output = run_in(folder.path(), &["test", "--send", "--expect", "team.yaml"]);
    assert!(output.code == 2 && output.stderr.contains("--server"), "{output:?}");
    fs::write(folder.path().join("team.yaml"), "expect:\n  - { page: https://app.example, result: allowed }\n")
        .unwrap();
    let output = test(&folder, &closed, &[]);
    assert!(output.code == 2 && output.stderr.contains("team.yaml:2:5 expect[0].url"), "{output:?}");
}

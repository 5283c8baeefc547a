//! The access log: one line per request, for every outcome of the request and every state of the log file.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, fetch, fetch_tls};
use crate::support::gateway::{ACCESS_LOG, Gateway, Signal, free_port};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const EVIL: (&str, &str) = ("Origin", "https://evil.test");
const WANTS_PUT: (&str, &str) = ("Access-Control-Request-Method", "PUT");
const TO_FILE: &str = "{ to: access.log }";

/// How long to wait for lines to be written.
const PATIENCE: Duration = Duration::from_secs(10);

fn config(upstream: SocketAddr, access_log: &str) -> String {
    let nobody = free_port();
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
access_log: {access_log}
services:
  - name: api
    hosts: api.test
    upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET], preflight: {{ refused_status: 403 }} }}
    routes:
      - {{ name: all, paths: [/*] }}
      - {{ name: reject, paths: [/reject], cors: {{ allow_origins: https://app.test, disallowed_origins: reject }} }}
      - name: dead
        paths: [/dead]
        upstream: {{ nodes: [{{ address: \"127.0.0.1:{nobody}\" }}, {{ address: \"127.0.0.2:{nobody}\" }}], retries: 1 }}
"
    )
}

/// The complete lines of a file so far; empty if the file does not exist.
fn lines(path: &Path) -> Vec<String> {
    let text = String::from_utf8(fs::read(path).unwrap_or_default()).expect("a log of UTF-8");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

#[track_caller]
fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "no {what} after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Waits for `n` lines and parses the newest.
#[track_caller]
fn newest(gateway: &Gateway, n: usize) -> Value {
    parse(gateway.wait_for_access_log(n).last().expect("a line"))
}

/// Asserts that these fields have these values; other fields may have any value.
#[track_caller]
fn has(line: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} of {line:#}");
    }
}

// --- the fields of a line

#[test]
fn a_line_has_the_request_its_outcome_and_the_reason() {
    let upstream = Upstream::start(|_| Reply::new(201).body("seventeen bytes.."));
    let gateway = Gateway::start(&config(upstream.address(), TO_FILE));
    let response = fetch(
        gateway.address(),
        "GET",
        "/a/b?token=secret",
        &[("Host", "API.test:80"), ORIGIN, ("User-Agent", "curl/8"), ("X-Request-Id", "trace-1")],
    );
    assert_eq!(response.status, 201);
    let mut line = newest(&gateway, 1);
    let time = line["time"].as_str().unwrap().to_owned();
    assert_eq!((time.len(), &time[10..11], &time[23..]), (24, "T", "Z"), "{time}");
    let [whole, upstream_ms] = ["duration_ms", "upstream_ms"].map(|name| line[name].as_f64().unwrap());
    assert!(0.0 < upstream_ms && upstream_ms <= whole && whole < 10_000.0, "{upstream_ms} of {whole} ms");
    for name in ["time", "duration_ms", "upstream_ms"] {
        line.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(
        line,
        json!({
            "client": "127.0.0.1", "scheme": "http", "method": "GET", "host": "API.test:80",
            "forwarded_host": null, "path": "/a/b", "protocol": "HTTP/1.1", "status": 201, "bytes": 17,
            "route": "api/all", "cors": "actual", "origin": "https://app.test", "reason": "allowed_exact",
            "refused": false, "report_only": null, "error": null, "error_detail": null,
            "upstream": "api", "node": upstream.address().to_string(), "tries": 1, "user_agent": "curl/8",
            "request_id": "trace-1", "generation": 1,
        })
    );
    let all = fs::read_to_string(gateway.dir().join(ACCESS_LOG)).unwrap();
    assert!(!all.contains("secret"), "a query may hold secrets: {all}");
}

#[test]
fn every_outcome_is_logged() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), TO_FILE));
    let mut n = 0;
    let mut ask = |method: &str, target: &str, fields: &[(&str, &str)], expected: Value| {
        let response = fetch(gateway.address(), method, target, fields);
        n += 1;
        let line = newest(&gateway, n);
        assert_eq!(line["status"], response.status, "{line:#}");
        has(&line, &expected);
    };
    ask(
        "OPTIONS",
        "/",
        &[HOST, ORIGIN, ("Access-Control-Request-Method", "GET")],
        json!({ "status": 200, "cors": "preflight", "reason": "allowed_exact", "refused": false, "route": "api/all",
                "upstream": null, "node": null, "upstream_ms": null, "tries": null, "bytes": 0 }),
    );
    ask(
        "OPTIONS",
        "/",
        &[HOST, EVIL, WANTS_PUT],
        json!({ "status": 403, "cors": "preflight", "reason": "origin_not_allowed", "refused": true,
                "origin": "https://evil.test" }),
    );
    ask(
        "OPTIONS",
        "/",
        &[HOST, ORIGIN, WANTS_PUT],
        json!({ "status": 403, "cors": "preflight", "reason": "method_not_allowed", "refused": true }),
    );
    ask("GET", "/", &[HOST], json!({ "status": 200, "reason": "no_origin", "origin": null, "user_agent": null }));
    ask(
        "GET",
        "/",
        &[HOST, EVIL],
        json!({ "status": 200, "reason": "origin_not_allowed", "refused": true, "upstream": "api", "tries": 1 }),
    );
    ask(
        "GET",
        "/reject",
        &[HOST, EVIL],
        json!({ "status": 403, "reason": "origin_not_allowed", "refused": true, "route": "api/reject",
                "upstream": null }),
    );
    ask(
        "GET",
        "/",
        &[("Host", "other.test"), ORIGIN],
        json!({ "status": 404, "reason": "unknown_host", "refused": true, "route": null, "host": "other.test" }),
    );
    ask(
        "GET",
        "/dead",
        &[HOST, ORIGIN],
        json!({ "status": 502, "route": "api/dead", "upstream": "api/dead", "tries": 2, "upstream_ms": null,
                "error": "ConnectRefused", "refused": false, "error_detail":
                "ConnectRefused: nothing listens there; start the node, or correct its address (Connection refused (os error 111))" }),
    );
    ask(
        "GET",
        "/",
        &[HOST, ("Origin", "https://a.test"), ("Origin", "https://b.test")],
        json!({ "reason": "origin_invalid", "origin": "https://a.test, https://b.test" }),
    );
}

#[test]
fn tls_http2_websockets_and_aborted_requests_are_logged() {
    let authority = Authority::new("authority");
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/socket" => Reply::echo(),
        "/slow" => Reply::hang(),
        _ => Reply::new(200).body("hello"),
    });
    let text = config(upstream.address(), TO_FILE).replace(
        "listeners: [{ address: \"{listen}\" }]",
        "listeners: [{ address: \"{listen}\" }, { address: \"{listen2}\", tls: { certificates: [{ cert: a.crt, key: a.key }] } }]",
    );
    let gateway = Gateway::start_with_files(&text, &authority.issue(&["api.test"]).files("a"));
    let client = TlsClient::new(&authority, "api.test");
    fetch_tls(gateway.address2(), &client, "GET", "/", &[HOST, ORIGIN]);
    has(&newest(&gateway, 1), &json!({ "scheme": "https", "protocol": "HTTP/1.1", "status": 200, "bytes": 5 }));

    let h2 = H2Client::open(gateway.address2(), &client).unwrap();
    let request = H2Request::new("GET", "api.test", "/x?y").header("origin", "https://app.test");
    assert_eq!(h2.request(&request).unwrap().status, 200);
    has(
        &newest(&gateway, 2),
        &json!({ "scheme": "https", "protocol": "HTTP/2", "host": "api.test", "path": "/x", "status": 200 }),
    );

    let mut socket = Connection::open(gateway.address()).unwrap();
    let upgrade = [HOST, ORIGIN, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "key")];
    assert_eq!(socket.request("GET", "/socket", &upgrade, b"").unwrap().status, 101);
    assert_eq!(gateway.access_log().len(), 2, "it has not ended");
    drop(socket);
    has(&newest(&gateway, 3), &json!({ "path": "/socket", "status": 101, "reason": "allowed_exact" }));

    let mut leaving = Connection::open(gateway.address()).unwrap();
    leaving.send(b"GET /slow HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    wait_for("request", || upstream.received().iter().any(|request| request.target == "/slow").then_some(()));
    drop(leaving);
    let line = newest(&gateway, 4);
    has(&line, &json!({ "path": "/slow", "status": null, "bytes": 0, "tries": 1, "upstream_ms": null }));
    assert!(line["error"].is_string(), "{line:#}");
}

/// When a stream is reset, the data of the client's request is already freed. The line has the other fields.
#[test]
fn a_stream_that_is_reset_by_stream_idle_is_logged() {
    let authority = Authority::new("authority");
    let upstream = Upstream::start(|_| Reply::hang());
    let text = config(upstream.address(), TO_FILE).replace(
        "listeners: [{ address: \"{listen}\" }]",
        "listeners: [{ address: \"{listen}\", tls: { certificates: [{ cert: a.crt, key: a.key }] } }]\nlimits: { stream_idle: 300ms }",
    );
    let gateway = Gateway::start_with_files(&text, &authority.issue(&["api.test"]).files("a"));
    let h2 = H2Client::open(gateway.address(), &TlsClient::new(&authority, "api.test")).unwrap();
    let request = H2Request::new("GET", "api.test", "/x").header("origin", "https://app.test");
    h2.request(&request).expect_err("the stream is reset");
    let line = newest(&gateway, 1);
    has(
        &line,
        &json!({ "status": null, "error": "cut off", "method": null, "host": null, "path": null, "protocol": null,
                 "origin": null, "route": "api/all", "reason": "allowed_exact", "client": "127.0.0.1", "tries": 1 }),
    );
    assert!(line["duration_ms"].as_f64().unwrap() > 200.0, "{line:#}");
}

#[test]
fn the_text_format_has_one_short_line_per_request() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), "{ to: access.log, format: text }"));
    fetch(gateway.address(), "GET", "/a?b", &[HOST, EVIL, ("X-Request-Id", "trace-1")]);
    // A request is recorded after its response. Without this wait, the lines could be in another order.
    gateway.wait_for_access_log(1);
    fetch(gateway.address(), "GET", "/", &[("Host", "other.test")]);
    let found = gateway.wait_for_access_log(2);
    let words: Vec<&str> = found[0].split_whitespace().collect();
    let [_, client, method, status, took, rest @ ..] = &words[..] else { panic!("{}", found[0]) };
    assert_eq!((*client, *method, *status), ("127.0.0.1", "GET", "200"));
    assert!(took.ends_with("ms"), "{took}");
    assert_eq!(rest, ["origin_not_allowed", "api.test/a", "api/all", "trace-1", "origin=https://evil.test"]);
    assert!(found[1].contains(" 404 ") && found[1].contains(" unknown_host         other.test/ - "), "{}", found[1]);
    assert_eq!(found[0].find("api.test/a"), found[1].find("other.test/"), "columns: {found:#?}");
}

/// Log injection, as in flask-cors CVE-2024-1681 and Envoy CVE-2024-45808.
#[test]
fn no_client_input_breaks_a_line_or_the_terminal() {
    let hostile: [&[u8]; 6] = [
        b"https://app.test\",\"refused\":false,\"x\":\"",
        b"https://app.test\\",
        b"\xff\xfe\xc3(\xc2\x9b31m",
        "https://\u{202e}tset.live\u{200b}\u{2028}".as_bytes(),
        b"a\tb  origin=https://app.test 200",
        b"\x1b[2J\x1b]0;owned\x07",
    ];
    for format in ["json", "text"] {
        let upstream = Upstream::start(|_| Reply::new(200));
        let gateway = Gateway::start(&config(upstream.address(), &format!("{{ to: access.log, format: {format} }}")));
        // Bytes that are not HTTP do not get a line in the access log.
        let mut written = 0;
        for bytes in hostile {
            for place in ["origin", "user-agent", "path", "host", "id"] {
                let (mut path, mut host, mut field) = (b"/".to_vec(), b"api.test".to_vec(), Vec::new());
                match place {
                    "path" => path.extend(bytes.iter().filter(|b| !b.is_ascii_whitespace())),
                    "host" => host.extend(bytes),
                    "id" => field.extend([b"x-request-id: ", bytes, b"\r\n"].concat()),
                    name => field.extend([name.as_bytes(), b": ", bytes, b"\r\n"].concat()),
                }
                let request = [b"GET ", &path[..], b" HTTP/1.1\r\nhost: ", &host, b"\r\n", &field, b"\r\n"].concat();
                let mut connection = Connection::open(gateway.address()).unwrap();
                connection.send(&request).unwrap();
                let response = connection.read("GET").unwrap();
                // No request was read, so there is no line.
                written += usize::from(response.text() != "The request is malformed.\n");
            }
        }
        assert!(written >= 15, "{format}: only {written} requests came through");
        for line in gateway.wait_for_access_log(written) {
            assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "{line:?}");
            if format == "json" {
                let line = parse(&line);
                assert_eq!(line.as_object().unwrap().len(), 26, "{line:#}");
                assert_eq!(line["client"], "127.0.0.1");
            } else {
                assert!(line.matches(" origin=").count() <= 1, "{line}");
            }
        }
    }
}

#[test]
fn the_manual_lists_the_fields_in_the_order_of_the_line() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operation.md")).unwrap();
    let section = manual.split("\n## Access log\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with("| field |")).skip(2);
    let rows = table.map_while(|row| row.strip_prefix("| "));
    let names = rows.map(|row| row.split(" | ").next().unwrap().replace('`', ""));
    let documented: Vec<String> =
        names.flat_map(|names| names.split(", ").map(str::to_owned).collect::<Vec<_>>()).collect();

    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), TO_FILE));
    fetch(gateway.address(), "GET", "/", &[HOST]);
    let line = gateway.wait_for_access_log(1).remove(0);
    // The names in the order of the line. A map would sort them.
    let mut written: Vec<(usize, String)> = parse(&line)
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (line.find(&format!("\"{name}\":")).unwrap(), name.clone()))
        .collect();
    written.sort();
    let written: Vec<String> = written.into_iter().map(|(_, name)| name).collect();
    assert_eq!(documented, written);
}

// --- sampling

#[test]
fn a_sample_has_its_share_of_successes_and_all_errors_and_refusals() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let mut gateway = Gateway::start(&config(upstream.address(), "{ to: access.log, sample: 0.1 }"));
    let mut connection = Connection::open(gateway.address()).unwrap();
    for _ in 0..2000 {
        let preflight = [HOST, ORIGIN, ("Access-Control-Request-Method", "GET")];
        assert_eq!(connection.request("OPTIONS", "/", &preflight, b"").unwrap().status, 200);
    }
    for _ in 0..40 {
        assert_eq!(connection.request("OPTIONS", "/", &[HOST, EVIL, WANTS_PUT], b"").unwrap().status, 403);
    }
    for _ in 0..3 {
        assert_eq!(fetch(gateway.address(), "GET", "/dead", &[HOST]).status, 502);
    }
    drop(connection);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
    let found = gateway.access_log();
    let of = |status: u16| found.iter().filter(|line| parse(line)["status"] == status).count();
    assert_eq!((of(403), of(502)), (40, 3));
    // Six standard deviations to either side.
    assert!((120..=280).contains(&of(200)), "{} of 2000", of(200));
}

#[test]
fn refusals_only_logs_only_refusals() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), "{ to: access.log, refusals_only: true }"));
    for (target, fields) in
        [("/", &[HOST, ORIGIN][..]), ("/dead", &[HOST]), ("/", &[HOST, EVIL]), ("/", &[("Host", "x")])]
    {
        fetch(gateway.address(), "GET", target, fields);
    }
    let found = gateway.wait_for_access_log(2);
    // Lines of two connections have no order.
    let mut reasons: Vec<String> = found.iter().map(|line| parse(line)["reason"].to_string()).collect();
    reasons.sort();
    assert_eq!(reasons, [r#""origin_not_allowed""#, r#""unknown_host""#]);
}

// --- targets and rotation

#[test]
fn a_reload_changes_the_target_and_the_format() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), "{}"));
    let get = |path| assert_eq!(fetch(gateway.address(), "GET", path, &[HOST]).status, 200);
    let reload = |access_log, generation| {
        gateway.reload_with(&config(upstream.address(), access_log));
        gateway.wait_for_log(&format!("reloaded generation={generation}\n"));
    };
    let stdout = || gateway.stdout().lines().map(str::to_owned).collect::<Vec<_>>();
    get("/1");
    reload(TO_FILE, 2);
    get("/2");
    reload("{ to: access.log, format: text }", 3);
    get("/3");
    reload("{ to: logs-of-others.log, refusals_only: true }", 4);
    get("/4");
    reload("{ to: /dev/stdout, format: text }", 5);
    get("/5");
    reload("{ to: stdout }", 6);
    get("/6");

    let found = wait_for("three lines on stdout", || Some(stdout()).filter(|lines| lines.len() == 3));
    assert_eq!(parse(&found[0])["path"], "/1");
    assert!(found[1].contains(" api.test/5 "), "{found:#?}");
    has(&parse(&found[2]), &json!({ "path": "/6", "generation": 6 }));
    let found = gateway.wait_for_access_log(2);
    assert_eq!(parse(&found[0])["path"], "/2");
    assert!(found[1].contains(" api.test/3 "), "{found:#?}");
    assert_eq!(fs::read(gateway.dir().join("logs-of-others.log")).unwrap(), b"");
}

/// Rotates as logrotate does, with a rename and SIGHUP. Every request must have one line in one of the files.
#[test]
fn rotation_under_load_neither_loses_nor_repeats_a_line() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let text = config(upstream.address(), TO_FILE);
    let mut gateway = Gateway::start(&text);
    let (stop, ids) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let folder = gateway.dir().to_owned();
    let (path, rotated) = (folder.join(ACCESS_LOG), |n: usize| folder.join(format!("{ACCESS_LOG}.{n}")));
    thread::scope(|scope| {
        for client in 0..3 {
            let (stop, ids, address) = (&stop, &ids, gateway.address());
            scope.spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                let mut sent = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("{client}-{}", sent.len());
                    let preflight = [HOST, ORIGIN, WANTS_PUT, ("X-Request-Id", &id)];
                    connection.request("OPTIONS", "/", &preflight, b"").expect("no request fails");
                    sent.push(id);
                }
                ids.lock().unwrap().extend(sent);
            });
        }
        for n in 0..6 {
            wait_for("lines", || (lines(&path).len() > 50).then_some(()));
            fs::rename(&path, rotated(n)).unwrap();
            // The file is reopened even if the configuration has not changed.
            let broken = n % 2 == 1;
            if broken {
                gateway.reload_with("services: 1\n");
                gateway.wait_for_log_count("reload refused", n / 2 + 1);
            } else {
                gateway.reload_with(&text);
                gateway.wait_for_log_count("reloaded generation=", n / 2 + 1);
            }
        }
        wait_for("lines", || (lines(&path).len() > 50).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
    let files = (0..6).map(rotated).chain([path.clone()]);
    let mut written: Vec<String> = files
        .flat_map(|file| lines(&file))
        .map(|line| parse(&line)["request_id"].as_str().unwrap().to_owned())
        .collect();
    let mut sent = ids.into_inner().unwrap();
    written.sort();
    sent.sort();
    assert!(sent.len() > 350, "only {} requests", sent.len());
    assert!(written == sent, "{} lines of {} requests", written.len(), sent.len());
}

/// There are more lines than a pipe can hold, and the test reads the pipe only after the end of the process.
#[test]
fn queued_lines_are_written_before_the_process_ends() {
    for signal in [Signal::Term, Signal::Int] {
        let upstream = Upstream::start(|_| Reply::new(200));
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut gateway = Gateway::start_with_stdout(&config(upstream.address(), "{}"), writer);
        let mut connection = Connection::open(gateway.address()).unwrap();
        for _ in 0..1000 {
            connection.request("OPTIONS", "/", &[HOST, ORIGIN, WANTS_PUT], b"").unwrap();
        }
        drop(connection);
        gateway.signal(signal);
        match signal {
            Signal::Term => gateway.wait_for_log(" stopped\n"),
            _ => wait_for("end of the listener", || Connection::open(gateway.address()).is_err().then_some(())),
        }
        let mut written = String::new();
        reader.read_to_string(&mut written).unwrap();
        assert_eq!(gateway.exit().code(), Some(0));
        assert_eq!(written.lines().map(parse).filter(|line| line["status"] == 403).count(), 1000, "{signal:?}");
    }
}

#[test]
fn two_processes_write_whole_lines_to_one_file() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let mut first = Gateway::start(&config(upstream.address(), TO_FILE));
    let second = first.successor();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            let (stop, answered, address) = (&stop, &answered, first.address());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let response = fetch(address, "OPTIONS", "/", &[HOST, ORIGIN, WANTS_PUT]);
                    assert_eq!(response.status, 403);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        first.signal(Signal::Quit);
        second.wait_for_log("serving listeners=");
        let before = answered.load(Ordering::Relaxed);
        wait_for("more requests", || (answered.load(Ordering::Relaxed) > before + 100).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(first.exit().code(), Some(0));
    let answered = answered.into_inner();
    assert!(second.wait_for_access_log(answered).iter().all(|line| parse(line)["status"] == 403));
}

// --- targets that fail

#[test]
fn a_log_file_that_cannot_be_opened_ends_the_start_with_a_remedy() {
    for (to, because, write) in [
        ("nowhere/access.log", "No such file or directory", "create the folder "),
        (".", "it is not a regular file", "write the path of a file"),
        ("pipe", "it is not a regular file", "write the path of a file"),
        ("corsgate.yaml/access.log", "Not a directory", "write the path of a file"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let text = config(([127, 0, 0, 1], 1).into(), &format!("{{ to: {to} }}"));
        let text = text.replace("{listen}", &format!("127.0.0.1:{}", free_port()));
        fs::write(folder.path().join("corsgate.yaml"), text).unwrap();
        let path = folder.path().join("corsgate.yaml");
        let output = crate::support::gateway::run(&["run", "--config", path.to_str().unwrap()]);
        assert_eq!(output.code, 1, "{to}: {}", output.stderr);
        let full = folder.path().join(to);
        let begin = format!("corsgate: access_log.to: cannot open {}: {because}", full.display());
        assert!(output.stderr.contains(&begin) && output.stderr.contains(write), "{}", output.stderr);
    }
}

#[test]
fn a_reload_to_a_log_file_that_cannot_be_opened_is_refused() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), TO_FILE));
    let widened = config(upstream.address(), "{ to: nowhere/access.log }")
        .replace("allow_origins: https://app", "allow_origins: https://evil");
    gateway.reload_with(&widened);
    gateway.wait_for_log("reload refused, keeping the running configuration:\naccess_log.to: cannot open ");
    let response = fetch(gateway.address(), "GET", "/", &[HOST, EVIL]);
    assert_eq!(response.header("Access-Control-Allow-Origin"), None);
    assert_eq!(newest(&gateway, 1)["generation"], 1);
}

/// A missing log directory must not prevent a reload.
#[test]
fn a_log_file_that_cannot_be_reopened_stays_open_and_the_reload_succeeds() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let text = config(upstream.address(), "{ to: logs/access.log }");
    let gateway = Gateway::start_with_files(&text, &[("logs/nothing".into(), String::new())]);
    fs::rename(gateway.dir().join("logs"), gateway.dir().join("away")).unwrap();
    gateway.reload_with(&text);
    gateway.wait_for_log("reloaded generation=2");
    gateway.wait_for_log("access log not reopened, still writing to the old file");
    fetch(gateway.address(), "GET", "/", &[HOST]);
    let path = gateway.dir().join("away/access.log");
    let found = wait_for("a line", || lines(&path).pop());
    assert_eq!(parse(&found)["generation"], 2);
}

#[test]
fn the_configuration_file_cannot_be_the_access_log() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(upstream.address(), TO_FILE));
    for (n, itself) in ["corsgate.yaml", "./corsgate.yaml", "../{}/corsgate.yaml"].into_iter().enumerate() {
        let folder = gateway.dir().file_name().unwrap().to_str().unwrap();
        let target = format!("{{ to: \"{}\" }}", itself.replace("{}", folder));
        let written = config(upstream.address(), &target);
        gateway.reload_with(&written);
        gateway.wait_for_log_count("it is a file of the configuration itself", n + 1);
        fetch(gateway.address(), "GET", "/", &[HOST]);
        gateway.wait_for_access_log(n + 1);
        assert!(fs::read_to_string(gateway.config_path()).unwrap().ends_with("retries: 1 }\n"), "{itself}");
    }
}

#[test]
fn a_full_device_loses_lines_but_no_requests() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let admin = "admin: { address: \"{admin}\" }";
    let mut gateway = Gateway::start(&(config(upstream.address(), "{ to: /dev/full }") + admin));
    for _ in 0..50 {
        assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
    }
    gateway.wait_for_log("access log lines dropped lines=");
    wait_for("the count of lines that were lost", || {
        (gateway.metric("corsgate_access_log_dropped_lines_total") == 50).then_some(())
    });
    gateway.reload_with(&config(upstream.address(), TO_FILE));
    gateway.wait_for_log("reloaded generation=2");
    fetch(gateway.address(), "GET", "/", &[HOST]);
    gateway.wait_for_access_log(1);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
    // The log has at most one warning in ten seconds, and one at the end. The sum of their numbers is the number of all
    // dropped lines.
    let log = gateway.stderr();
    let told: Vec<usize> = log
        .split("access log lines dropped lines=")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(told.len() <= 3 && told.iter().sum::<usize>() == 50, "{told:?}\n{log}");
    assert!(log.contains("No space left on device"), "{log}");
}

#[test]
fn a_closed_pipe_fails_no_request() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let (reader, writer) = std::io::pipe().unwrap();
    let mut gateway = Gateway::start_with_stdout(&config(upstream.address(), "{}"), writer);
    drop(reader);
    for _ in 0..5 {
        assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 200);
    }
    gateway.wait_for_log("Broken pipe");
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn a_full_pipe_blocks_neither_requests_nor_the_exit() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let (reader, writer) = std::io::pipe().unwrap();
    let mut gateway = Gateway::start_with_stdout(&config(upstream.address(), "{}"), writer);
    let address = gateway.address();
    // More lines than the queue and the pipe can hold.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                for _ in 0..2500 {
                    let response = connection.request("OPTIONS", "/", &[HOST, ORIGIN, WANTS_PUT], b"").unwrap();
                    assert_eq!(response.status, 403);
                }
            });
        }
    });
    gateway.wait_for_log("reason=\"target too slow\"");
    let begin = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    gateway.wait_for_log("reason=\"process exits\"");
    drop(reader);
}

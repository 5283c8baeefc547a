//! `corsgate probe`: real exchanges with many kinds of servers, and the verdict.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::certificates::{Authority, Valid};
use crate::support::gateway::{Output, free_port, run, run_in};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::upstream::{Received, Reply, Upstream};

const PAGE: &str = "https://app.example";

/// Runs `probe` from a page with the origin [`PAGE`].
fn probe(arguments: &str, url: &str) -> Output {
    let mut all = vec!["probe", "--origin", PAGE];
    all.extend(arguments.split(' ').filter(|argument| !argument.is_empty()));
    all.push(url);
    run(&all)
}

fn probe_json(arguments: &str, url: &str) -> (i32, Value) {
    let output = probe(&format!("{arguments} --format json"), url);
    let value = serde_json::from_str(&output.stdout);
    (output.code, value.unwrap_or_else(|error| panic!("{error}\n{}\n{}", output.stdout, output.stderr)))
}

/// A response with the fields of a text such as `Name: value; Name: value`.
fn reply(status: u16, fields: &str) -> Reply {
    let fields = fields.split("; ").filter_map(|field| field.split_once(": "));
    fields.fold(Reply::new(status), |reply, (name, value)| reply.header(name, value))
}

/// Status and fields, as [`reply`] reads them.
type Answer = (u16, String);

/// Each refusal has its code, its exit code and a remedy. The server gets the same requests as from a browser.
#[test]
fn each_verdict_has_its_code_and_the_server_gets_what_a_browser_sends() {
    const OWN: &str = "Access-Control-Allow-Origin: https://app.example";
    const ANY: &str = "Access-Control-Allow-Origin: *";
    // Arguments; response to OPTIONS; response to the request; exit code, code, and the methods that arrive.
    #[rustfmt::skip]
    let rows: [(&str, Answer, Answer, i32, &str, &str); 22] = [
        ("",                        (500, String::new()),                         (200, OWN.into()),                    0, "allowed", "GET"),
        ("",                        (500, String::new()),                         (404, ANY.into()),                    0, "allowed", "GET"),
        ("",                        (500, String::new()),                         (200, String::new()),                     1, "no_allow_origin", "GET"),
        ("",                        (500, String::new()),                         (200, format!("{OWN}/")),             1, "allow_origin_mismatch", "GET"),
        ("",                        (500, String::new()),                         (200, format!("{OWN}; {OWN}")),       1, "allow_origin_mismatch", "GET"),
        ("--credentials",           (500, String::new()),                         (200, ANY.into()),                    1, "wildcard_with_credentials", "GET"),
        ("--credentials",           (500, String::new()),                         (200, OWN.into()),                    1, "no_allow_credentials", "GET"),
        ("--credentials",           (500, String::new()),                         (200, format!("{OWN}; Access-Control-Allow-Credentials: True")), 1, "no_allow_credentials", "GET"),
        ("--credentials",           (500, String::new()),                         (200, format!("{OWN}; Access-Control-Allow-Credentials: true")), 0, "allowed", "GET"),
        ("--reads X-Total",         (500, String::new()),                         (200, OWN.into()),                    1, "header_not_exposed", "GET"),
        ("--reads X-Total",         (500, String::new()),                         (200, format!("{OWN}; Access-Control-Expose-Headers: x-total")), 0, "allowed", "GET"),
        ("--header X-A",            (204, format!("{OWN}; Access-Control-Allow-Headers: x-a")), (200, OWN.into()),  0, "allowed", "OPTIONS GET"),
        ("--header X-A",            (204, OWN.into()),                        (200, OWN.into()),                    1, "header_not_allowed", "OPTIONS"),
        ("--header X-A",            (405, OWN.into()),                        (200, OWN.into()),                    1, "preflight_status", "OPTIONS"),
        ("--header X-A",            (301, format!("{OWN}; Location: /y")),    (200, OWN.into()),                    1, "preflight_redirect", "OPTIONS"),
        ("--header X-A",            (204, format!("{OWN}; Access-Control-Allow-Headers: x a")), (200, OWN.into()),  1, "malformed_list", "OPTIONS"),
        ("--method PUT",            (204, OWN.into()),                        (200, OWN.into()),                    1, "method_not_allowed", "OPTIONS"),
        // A request that can change data is sent only with `--send`.
        ("--method PUT",            (204, format!("{OWN}; Access-Control-Allow-Methods: PUT")), (200, String::new()),   4, "not_sent", "OPTIONS"),
        ("--method PUT --send",     (204, format!("{OWN}; Access-Control-Allow-Methods: PUT")), (200, String::new()),   1, "no_allow_origin", "OPTIONS PUT"),
        ("--method POST",           (204, String::new()),                         (200, OWN.into()),                    4, "not_sent", ""),
        ("--method POST --send",    (204, String::new()),                         (200, OWN.into()),                    0, "allowed", "POST"),
        ("--preflight-only",        (204, String::new()),                         (200, OWN.into()),                    4, "not_sent", ""),
    ];
    for (arguments, preflight, response, exit, code, arrived) in rows {
        let row = format!("{arguments} {preflight:?} {response:?}");
        let server = Upstream::start(move |request| match request.method.as_str() {
            "OPTIONS" => reply(preflight.0, &preflight.1),
            _ => reply(response.0, &response.1),
        });
        let url = format!("http://{}/x?y=1", server.address());
        let (found, report) = probe_json(arguments, &url);
        assert_eq!((found, report["reason"].as_str()), (exit, Some(code)), "{row}\n{report:#}");
        let methods: Vec<String> = server.received().iter().map(|request| request.method.clone()).collect();
        assert_eq!(methods.join(" "), arrived, "{row}");
        let verdict = ["allowed", "refused", "", "", "undecided"][usize::try_from(exit).unwrap()];
        assert_eq!(report["verdict"], verdict, "{row}");
        assert_eq!(report["remedy"].is_string(), exit == 1, "{row}\n{report:#}");
        for request in server.received() {
            check_fields(&request, arguments);
        }
        let text = probe(arguments, &url);
        assert_eq!(text.code, exit, "{row}");
        let word = if code == "header_not_exposed" { "unreadable" } else { verdict };
        assert!(text.stdout.starts_with(&format!("{word}: a page of {PAGE} ")), "{row}\n{}", text.stdout);
        assert!(text.stdout.lines().next().unwrap().ends_with(&format!("({code})")), "{row}\n{}", text.stdout);
    }
}

/// Checks all fields of a request.
fn check_fields(request: &Received, arguments: &str) {
    let mut names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let mut expected =
        vec!["Accept", "Host", "Origin", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "User-Agent"];
    match request.method.as_str() {
        "OPTIONS" => {
            expected.push("Access-Control-Request-Method");
            expected.extend(arguments.contains("--header").then_some("Access-Control-Request-Headers"));
        }
        "PUT" | "POST" => expected.push("Content-Length"),
        _ => expected.extend(arguments.contains("--header").then_some("X-A")),
    }
    expected.sort_unstable();
    assert_eq!(names, expected, "{} {arguments}", request.method);
    assert_eq!(request.header("Origin"), Some(PAGE));
    assert_eq!(request.header("Sec-Fetch-Site"), Some("cross-site"));
    assert_eq!(request.header("User-Agent"), Some(concat!("corsgate-probe/", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_cookie_is_sent_only_if_it_is_given() {
    let server = Upstream::start(|_| {
        reply(200, "Access-Control-Allow-Origin: https://app.example; Access-Control-Allow-Credentials: true")
    });
    let url = format!("http://{}/", server.address());
    assert_eq!(probe("--credentials", &url).code, 0);
    assert_eq!(probe("--credentials --cookie session=1", &url).code, 0);
    let cookies: Vec<Option<String>> =
        server.received().iter().map(|request| request.header("Cookie").map(str::to_owned)).collect();
    assert_eq!(cookies, [None, Some("session=1".to_owned())]);
}

/// Redirects are followed as in a browser, but only to servers that the command line names.
#[test]
fn redirects_are_followed_to_named_servers_only() {
    const ANY: &str = "Access-Control-Allow-Origin: *";
    let second = Upstream::start(|_| reply(200, ANY));
    let port = second.address().port();
    let first = Upstream::start(move |request| match request.target.as_str() {
        "/own" => reply(302, &format!("{ANY}; Location: /end")),
        "/loop" => reply(302, &format!("{ANY}; Location: /loop")),
        "/plain" => reply(302, &format!("Location: http://127.0.0.1:{port}/")),
        "/away" => reply(302, &format!("{ANY}; Location: http://127.0.0.1:{port}/")),
        "/metadata" => reply(302, &format!("{ANY}; Location: http://169.254.169.254/latest/")),
        "/script" => reply(302, &format!("{ANY}; Location: javascript:alert(1)")),
        "/user" => reply(302, &format!("{ANY}; Location: http://a:b@127.0.0.1:{port}/")),
        _ => reply(200, ANY),
    });
    let follow = format!("--follow 127.0.0.1:{port}");
    for (path, arguments, exit, code, hits, origin) in [
        ("/own", "", 0, "allowed", 0, ""),
        ("/loop", "", 1, "too_many_redirects", 0, ""),
        ("/plain", follow.as_str(), 1, "no_allow_origin", 0, ""),
        ("/away", "", 4, "redirect_away", 0, ""),
        // The redirect leads to another origin, and the first server had another origin than the page.
        ("/away", &follow, 0, "allowed", 1, "null"),
        ("/metadata", &follow, 4, "redirect_away", 0, ""),
        ("/script", &follow, 1, "redirect_to_no_url", 0, ""),
        ("/user", &follow, 1, "redirect_to_user_part", 0, ""),
    ] {
        second.clear();
        let (found, report) = probe_json(arguments, &format!("http://{}{path}", first.address()));
        assert_eq!((found, report["reason"].as_str()), (exit, Some(code)), "{path} {arguments}\n{report:#}");
        assert_eq!(second.hits(), hits, "{path} {arguments}");
        if hits > 0 {
            assert_eq!(second.received()[0].header("Origin"), Some(origin));
        }
    }
    let loops = first.received().iter().filter(|request| request.target == "/loop").count();
    assert_eq!(loops, 21, "one request, and 20 redirects");
}

/// A server that sends these bytes after each request, repeats them, and then leaves the connection open.
struct RawServer(SocketAddr);

impl RawServer {
    fn start(first: &'static [u8], again: &'static [u8], pause: Duration, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { return };
                thread::spawn(move || {
                    let mut request = [0; 4096];
                    let _ = connection.read(&mut request);
                    let _ = connection.write_all(first);
                    if closes {
                        return;
                    }
                    // Writing fails when the probe closes the connection.
                    while !again.is_empty() && connection.write_all(again).is_ok() {
                        thread::sleep(pause);
                    }
                    while connection.read(&mut request).is_ok_and(|read| read > 0) {}
                });
            }
        });
        RawServer(address)
    }
}

/// The arguments of [`RawServer::start`].
type RawAnswer = (&'static [u8], &'static [u8], Duration, bool);

/// The time and the memory for a hostile server have limits, and the error names the problem.
#[test]
fn a_hostile_server_is_bounded_and_named() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n";
    const NO_PAUSE: Duration = Duration::ZERO;
    const DRIP: Duration = Duration::from_millis(50);
    let endless = |kind: &'static [u8]| (OK, kind, NO_PAUSE, false);
    #[rustfmt::skip]
    let rows: [(&str, RawAnswer, i32, &str); 16] = [
        ("endless fields",       endless(b"X-Flood: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"),        2, "bad_response"),
        ("an endless field",     endless(&[b'a'; 8192]),                                                                   2, "bad_response"),
        ("slow drips",           (OK, b"X: y\r\n", DRIP, false),                                                           2, "timeout"),
        ("silence",              (b"", b"", NO_PAUSE, false),                                                              2, "timeout"),
        ("half a line",          (b"HTTP/1.1 200", b"", NO_PAUSE, false),                                                  2, "timeout"),
        ("a flood of 1xx",       (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", NO_PAUSE, false),                2, "bad_response"),
        ("an endless body",      (b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n\r\n", &[b'a'; 8192], NO_PAUSE, false), 0, "allowed"),
        ("a short body",         (b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 99\r\n\r\nab", b"", NO_PAUSE, true), 0, "allowed"),
        ("no length",            (b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: x\r\n\r\n", b"", NO_PAUSE, true), 2, "bad_response"),
        ("two lengths",          (b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"", NO_PAUSE, true), 2, "bad_response"),
        ("garbage",              (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"", NO_PAUSE, true),            2, "bad_response"),
        ("another protocol",     (b"SSH-2.0-OpenSSH_9.6\r\n", b"", NO_PAUSE, true),                                         2, "bad_response"),
        ("an end in the head",   (OK, b"", NO_PAUSE, true),                                                                2, "bad_response"),
        ("nothing",              (b"", b"", NO_PAUSE, true),                                                               2, "bad_response"),
        ("NUL in a value",       (b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\0\r\n\r\n", b"", NO_PAUSE, true),      2, "bad_response"),
        ("an escape in a value", (b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: \x1b[31m*\r\n\r\n", b"", NO_PAUSE, true), 2, "bad_response"),
    ];
    thread::scope(|scope| {
        for (name, (first, again, pause, closes), exit, code) in rows {
            scope.spawn(move || {
                let server = RawServer::start(first, again, pause, closes);
                let begin = Instant::now();
                let (found, report) = probe_json("--timeout 2", &format!("http://{}/", server.0));
                assert_eq!((found, report["reason"].as_str()), (exit, Some(code)), "{name}\n{report:#}");
                assert!(begin.elapsed() < Duration::from_secs(20), "{name}: {:?}", begin.elapsed());
                assert_eq!(report["error"].is_string(), exit == 2, "{name}");
            });
        }
    });
}

/// A server can send characters that control a terminal (C1 in UTF-8, direction marks). The output has them as escapes.
#[test]
fn characters_of_a_server_do_not_control_the_terminal() {
    const BYTES: &[u8] =
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://\u{9b}31m\u{202e}x\r\nServer: \u{9d}0;title\u{7}\r\n\r\n"
            .as_bytes();
    const WITHOUT_BELL: &[u8] =
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://\u{9b}31m\u{202e}x\r\nServer: \u{9d}0;title\r\n\r\n"
            .as_bytes();
    for (bytes, exit) in [(BYTES, 2), (WITHOUT_BELL, 1)] {
        let server = RawServer::start(bytes, b"", Duration::ZERO, true);
        for format in ["text", "json"] {
            let output = probe(&format!("--format {format}"), &format!("http://{}/", server.0));
            assert_eq!(output.code, exit, "{}", output.stdout);
            let controls = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            // JSON has its own escapes, which cover only C0. Programs read it, not terminals.
            let has_controls = output.stdout.contains(controls) || output.stderr.contains(controls);
            assert!(format == "json" || !has_controls, "{:?}", output.stdout);
        }
    }
}

/// HTTP/2 and HTTP/1.1 are selected by ALPN, and certificates are checked.
#[test]
fn tls_is_checked_and_selects_the_protocol() {
    const HOST: &str = "api.example";
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.path().join("other.pem"), other.pem()).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let good = authority.issue(&[HOST]);
    let h2 = H2Upstream::start_tls(good.server(None, &["h2"]), |_| {
        H2Reply::new(200).header("access-control-allow-origin", "*")
    });
    let start = |certificate: &crate::support::certificates::Certificate| {
        Upstream::start_tls(certificate.server(None, &["http/1.1"]), |_| reply(200, "Access-Control-Allow-Origin: *"))
    };
    let h1 = start(&good);
    let wrong = start(&authority.issue(&["other.example"]));
    let past = start(&authority.issue_valid(&[HOST], Valid::Past));
    let plain = RawServer::start(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", Duration::ZERO, true);
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for (address, trust, exit, said) in [
        (h2.address(), "--ca ca.pem", 0, "HTTP/2 200 OK"),
        (h1.address(), "--ca ca.pem", 0, "HTTP/1.1 200 OK"),
        (h1.address(), "--ca other.pem", 2, "(tls_failed)"),
        (h1.address(), "--ca other.pem", 2, "private CA"),
        (h1.address(), "", 2, "private CA"),
        (h1.address(), "--dangerously-accept-any-certificate", 0, "HTTP/1.1 200 OK"),
        (wrong.address(), "--ca ca.pem", 2, "the certificate is for other names"),
        (past.address(), "--ca ca.pem", 2, "renew the certificate"),
        (closed, "--ca ca.pem", 2, "(connect_failed)"),
        (h1.address(), "--ca missing.pem", 2, "--ca: cannot use missing.pem"),
        (h1.address(), "--ca empty.pem", 2, "it must be a PEM file"),
    ] {
        let port = address.port();
        let (resolve, url) = (format!("{HOST}:{port}:127.0.0.1"), format!("https://{HOST}:{port}/"));
        let mut arguments = vec!["probe", "--origin", PAGE, "--resolve", &resolve];
        arguments.extend(trust.split(' ').filter(|word| !word.is_empty()));
        arguments.push(&url);
        let output = run_in(folder.path(), &arguments);
        let printed = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ") + &output.stderr;
        assert_eq!(output.code, exit, "{said}\n{printed}");
        assert!(printed.contains(said), "{said}\n{printed}");
    }
    // The wrong scheme, in both directions.
    let output = probe("--timeout 5", &format!("https://127.0.0.1:{}/", plain.0.port()));
    assert_eq!(output.code, 2);
    let output = probe("--timeout 5", &format!("http://{}/", h1.address()));
    assert_eq!(output.code, 2);
}

#[test]
fn an_invalid_command_line_says_what_to_write() {
    for (arguments, said) in [
        ("--origin https://app.example/ http://127.0.0.1/", "--origin: `https://app.example/` ends with a slash"),
        ("--origin https://app.example ftp://127.0.0.1/", "neither http nor https"),
        ("--origin https://app.example --method TRACE http://127.0.0.1/", "--method: no page can send `TRACE`"),
        ("--origin https://app.example --header Cookie:a http://127.0.0.1/", "use `--credentials` instead"),
        ("--origin https://app.example --follow a/b http://127.0.0.1/", "--follow: `a/b` is not a server"),
        ("--origin https://app.example --resolve a:b http://127.0.0.1/", "HOST:PORT:ADDRESS"),
        ("--origin https://app.example --cookie a http://127.0.0.1/", "--credentials"),
        ("http://127.0.0.1/", "--origin"),
        ("--audit --method PUT http://127.0.0.1/", "--audit"),
    ] {
        let output = run(&[&["probe"], arguments.split(' ').collect::<Vec<_>>().as_slice()].concat());
        assert_eq!(output.code, 2, "{arguments}");
        assert!(output.stderr.contains(said), "{arguments}\n{}", output.stderr);
        assert_eq!(output.stdout, "", "{arguments}");
    }
}

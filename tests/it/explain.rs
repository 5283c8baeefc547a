//! `corsgate explain`: each file has a typical mistake. The output must name it, and the suggested edit must correct
//! it.
//!
//! `tests/explain/*.txt` have a configuration, a line `----`, the command line with assertions about the output,
//! another `----`, and the exact output:
//!
//! ```text
//! explain --origin https://app.example https://api.example/orders
//! reason: origin_not_allowed
//! says: the scheme is another
//! fix: none
//! ```
//!
//! `reason` is the code of the refusal, or of the first error of a refused file. Without `fix: none`, the output must
//! have an edit. The test applies the edit from the JSON, as a program would. After that, the same question is allowed,
//! and `check` finds no error. `tried` names the key of the error that `check` reports for the best rejected edit.
//! After a change of a message, `BLESS=1 cargo test --test it -- explain` rewrites the output. Review the difference as
//! a user.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use corsgate::cors::Reason;
use corsgate::decide::{RefusalCode, RequestKind};
use corsgate::domain::Scheme;
use corsgate::explain::fetch::Credentials;
use corsgate::explain::{
    Cause, Configuration, Initiator, Outcome, Preflight, Question, RecordedRequest, explain, json, text,
};
use corsgate::snapshot::{CompileEnv, Loaded, load};
use corsgate::terminal::{Paint, Width};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::cases;
use crate::support::certificates::Authority;
use crate::support::gateway::{Output, run_in};

const DIVIDER: &str = "----\n";

/// The exit codes of `explain`.
const ALLOWED: i32 = 0;
const UNUSABLE: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;
const UNDECIDED: i32 = 4;

struct Mistake {
    path: PathBuf,
    config: String,
    /// The command line without `corsgate`.
    command: String,
    expectations: Vec<(String, String)>,
    printed: String,
}

#[test]
fn explain_names_every_planted_mistake_and_its_edit_repairs_it() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let (mut failures, mut mended) = (String::new(), 0);
    let mistakes = mistakes();
    for mistake in &mistakes {
        let folder = Folder::with(&mistake.config);
        let asked = folder.ask(&mistake.command);
        let mut wrong = mistake.faults(&folder, &asked, &mut mended);
        if bless {
            mistake.write(&asked.stdout);
        } else if asked.stdout != mistake.printed {
            let _ = writeln!(wrong, "  prints something else:\n{}", asked.stdout);
        }
        if !wrong.is_empty() {
            let _ = writeln!(failures, "{}\n{wrong}", mistake.path.display());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(mistakes.len() >= 40, "only {} mistakes", mistakes.len());
    assert!(mended >= 30, "only {mended} were mended");
}

/// The code of a cause is a code of the gateway, or a code that the manual explains. The files have each of these codes
/// except `upstream`, because no current policy lets an upstream cause a refusal.
#[test]
fn the_codes_of_causes_are_pinned() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explain.md")).unwrap();
    let rows = manual.split("| code | what it is |").nth(1).expect("a table of codes").lines().skip(2);
    let listed: BTreeSet<&str> =
        rows.map_while(|row| row.strip_prefix("| `")).map(|row| row.split('`').next().unwrap()).collect();
    assert_eq!(listed, BTreeSet::from(Cause::CODES));
    let of_the_gateway: BTreeSet<&str> =
        Reason::ALL.into_iter().map(Reason::code).chain(RefusalCode::ALL.map(RefusalCode::code)).collect();
    assert!(of_the_gateway.is_disjoint(&listed));
    let of_causes: BTreeSet<String> = mistakes()
        .iter()
        .filter_map(|mistake| {
            let answer = Folder::with(&mistake.config).ask(&format!("{} --format json", mistake.command)).stdout;
            let answer: Value = serde_json::from_str(&answer).unwrap();
            answer["cause"]["code"].as_str().map(str::to_owned)
        })
        .collect();
    for code in listed.iter().filter(|code| **code != "upstream") {
        assert!(of_causes.contains(*code), "{code} is planted nowhere");
    }
    for code in &of_causes {
        assert!(of_the_gateway.union(&listed).any(|known| known == code), "nothing explains {code}");
    }
}

/// An invalid question is refused with a remedy, and its text is escaped for the terminal.
#[test]
fn an_invalid_question_prints_its_remedy() {
    let url = "https://api.example/orders";
    let origin = "https://app.example";
    let long = format!("https://{}.example", "a".repeat(5000));
    for (arguments, says) in [
        (
            &["--origin", "https://app.example/", url][..],
            "ends with a slash, but an origin never does; write `https://app.example`",
        ),
        (
            &["--origin", "https://app.example/login", url],
            "has a path, but an origin has none; write `https://app.example`",
        ),
        (
            &["--origin", "https://App.Example", url],
            "upper-case letters, but browsers send origins in lower case; write `https://app.example`",
        ),
        (&["--origin", "https://app.example:443", url], "write `https://app.example`"),
        (&["--origin", "app.example", url], "has no scheme, but an origin always has one; write `https://app.example`"),
        (&["--origin", "https://*.app.example", url], "is a pattern; write the origin of one page"),
        (&["--origin", "*", url], "is a pattern"),
        (&["--origin", "", url], "--origin: the entry is empty"),
        (
            &["--origin", "https://app.example, https://b.example", url],
            "is more than one origin; write the origin of one page",
        ),
        (
            &["--origin", "https://app.example\\", url],
            "has the character `\\`, which is not allowed in an origin; write the origin",
        ),
        (&["--origin", &long, url], "longer than 300 bytes"),
        (&["--origin", "https://app\u{1b}[31m.example", url], "has the character `\\u{1b}`"),
        (&["--origin", "https://bücher.example", url], "write the host in punycode"),
        (&["--origin", origin, "/orders"], "`/orders` is not a URL"),
        (&["--origin", origin, "api.example/orders"], "is not a URL"),
        (&["--origin", origin, "ftp://api.example/orders"], "neither http nor https"),
        (&["--origin", origin, "javascript:alert(1)"], "neither http nor https"),
        (&["--origin", origin, "https://"], "is not a URL"),
        (&["--origin", origin, "https://[::1/orders"], "is not a URL"),
        (&["--origin", origin, "https://api.example:99999/"], "is not a URL"),
        (&["--origin", origin, "https://user:secret@api.example/"], "remove the part before the `@`"),
        (&["--origin", origin, "https://api.example/a\nb"], "has the character `\\n`"),
        (&["--origin", origin, "--method", "P T", url], "`P T` is not a method"),
        (&["--origin", origin, "--method", "", url], "is not a method"),
        (&["--origin", origin, "--method", "trace", url], "no page can send `trace`"),
        (&["--origin", origin, "--header", "X Id: 1", url], "is not a header; write `Name: value`"),
        (&["--origin", origin, "--header", "X-Id: a\r\nOrigin: b", url], "is not a header"),
        (&["--origin", origin, "--header", "Cookie: a=1", url], "use `--credentials` instead"),
        (
            &["--origin", origin, "--header", "Origin: https://b.example", url],
            "--header: a page cannot set `Origin`; use `--origin` instead",
        ),
        (&["--origin", origin, "--header", "Sec-Fetch-Mode: cors", url], "browsers ignore it"),
        (
            &["--origin", origin, "--header", "X-HTTP-Method-Override: put, TRACE", url],
            "browsers drop it because of its value; leave it out",
        ),
        (&["--origin", origin, "--header", "x-http-method: connect", url], "browsers drop it"),
        (&["--origin", origin, "--header", "X-Method-Override:Track", url], "browsers drop it"),
        (&["--origin", origin, "--as", "img", url], "possible values: fetch, xhr-upload, no-cors, image"),
        (
            &["--origin", origin, "--as", "image", "--header", "X-Id: 1", url],
            "cannot set headers with `<img crossorigin>`",
        ),
        (&["--origin", origin, "--as", "module", "--method", "POST", url], "write GET"),
        (&["--origin", origin, "--as", "font", "--credentials", url], "--credentials: browsers load the fonts"),
        (&["--origin", origin, "--as", "no-cors", "--method", "PUT", url], "write GET or HEAD or POST"),
        (&["--origin", origin, "--as", "no-cors", "--header", "X-Id: 1", url], "browsers drop `X-Id: 1`"),
        (
            &["--origin", origin, "--as", "no-cors", "--header", "Range: bytes=0-", url],
            "browsers drop `Range: bytes=0-`",
        ),
        (
            &["--origin", origin, "--as", "no-cors", "--header", "Content-Type: application/json", url],
            "only Accept, Accept-Language, Content-Language and Content-Type",
        ),
        (&["--origin", origin, "--as", "no-cors", "--reads", "X-Total", url], "--reads: a page cannot read headers"),
        (
            &["--origin", origin, "--as", "eventsource", "--header", "Last-Event-ID: 7", url],
            "leave `Last-Event-ID: 7` out",
        ),
        (
            &["--origin", origin, "--as", "websocket", "--header", "Authorization: x", url],
            "cannot set headers with `WebSocket`",
        ),
        (&["--origin", origin, "--as", "navigation", "--method", "DELETE", url], "write GET or POST"),
        (
            &["--origin", origin, "wss://api.example/feed"],
            "is the URL of a WebSocket, and fetch() rejects it; use `--as` instead",
        ),
        (&["--origin", origin, "--then", "TRACE https://api.example/", url], "--then: no page can send `TRACE`"),
        (&["--origin", origin, "--then", "POST /orders", url], "--then: `/orders` is not a URL"),
        (&["--origin", origin, "--then", "DELETE", url], "--then: `DELETE` is not a URL"),
        (&["--origin", origin, "--upstream-header", "X-Total", url], "write `Name: value`"),
        (&["--origin", origin, "--upstream-status", "101", url], "101 is not the status of a final response"),
        (&["--origin", origin, "--upstream-status", "99999", url], "99999"),
        (&["--origin", origin, "--reads", "X Total", url], "is not the name of a header"),
        (&[url], "--origin <ORIGIN>"),
        (&["--origin", origin], "<URL>"),
    ] {
        let output = Folder::with("").run(&[&["explain", "--config", "corsgate.yaml"], arguments].concat());
        assert_eq!(output.code, USAGE, "{arguments:?}\n{}", output.stdout);
        assert!(output.stderr.contains(says), "{arguments:?}: {}", output.stderr);
        assert!(output.stdout.is_empty() && !output.stderr.contains('\u{1b}'), "{arguments:?}: {}", output.stderr);
    }
}

const SMALL: &str = "\
listeners: [{ address: 127.0.0.1:9080 }]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
services:
  - name: api
    upstream: api
    cors: { allow_origins: [https://app.example, \"http://[::1]:*\"], allow_headers: [X-Id], max_age: 600 }
";

/// The question is about the URL as a browser parses it, not about the typed text.
#[test]
fn a_question_is_parsed_as_a_browser_parses_it() {
    let folder = Folder::with(SMALL);
    for (arguments, code, phrase) in [
        (
            "--origin https://app.example 'https://API.example:443/a/../b?q#f'",
            ALLOWED,
            "> GET /b?q HTTP/1.1\n   > Host: api.example\n",
        ),
        ("--origin http://[::1]:3000 http://[2001:DB8::0:1]:8080", ALLOWED, "> Host: [2001:db8::1]:8080\n"),
        (
            "--origin https://app.example https://bücher.example/ü",
            ALLOWED,
            "> GET /%C3%BC HTTP/1.1\n   > Host: xn--bcher-kva.example\n",
        ),
        (
            "--origin https://app.example --method put https://api.example",
            ALLOWED,
            "Access-Control-Request-Method: PUT",
        ),
        (
            "--origin https://app.example --header 'content-TYPE: text/plain' https://api.example",
            ALLOWED,
            "not needed: the method is GET, and no header needs a preflight",
        ),
        (
            "--origin https://app.example --header 'content-TYPE: text/plain; \"' https://api.example",
            REFUSED,
            "does not list content-TYPE",
        ),
        ("--origin https://app.example --header Accept https://api.example", REFUSED, "does not list Accept"),
        (
            "--origin https://app.example --header Accept https://api.example",
            REFUSED,
            "the value of Accept is not known and is assumed not to be safelisted",
        ),
        ("--origin https://app.example --method DELETE https://app.example/x", ALLOWED, "so CORS does not apply"),
        (
            "--origin https://app.example --method OPTIONS https://api.example",
            ALLOWED,
            "treats the page's own OPTIONS as a preflight",
        ),
        (
            "--origin https://app.example --upstream-status 302 --upstream-header 'Location: /login' https://api.example",
            ALLOWED,
            "2. request, forwarded to the upstream; its response is assumed\n   > GET /login HTTP/1.1",
        ),
        (
            "--origin https://app.example --upstream-status 500 https://api.example",
            ALLOWED,
            "< HTTP/1.1 500 Internal Server Error",
        ),
        ("--origin https://app.example http://api.example", ALLOWED, "as mixed content"),
        (
            "--origin https://app.example https://api.example/%2e%2e%2fadmin",
            REFUSED,
            "rejects the request with 400, independent of any policy",
        ),
    ] {
        let output = folder.ask(&format!("explain {arguments}"));
        assert_eq!(output.code, code, "{arguments}\n{}{}", output.stdout, output.stderr);
        assert!(says(&output.stdout, phrase), "{arguments}\n{}", output.stdout);
    }
}

/// The output has a bound for a question of any length.
#[test]
fn a_huge_question_is_answered_within_bounds() {
    let folder = Folder::with(SMALL);
    let names: Vec<String> = (0..2000).map(|i| format!("X-Header-{i}")).collect();
    let mut arguments = vec!["explain", "--config", "corsgate.yaml", "--origin", "https://app.example"];
    names.iter().for_each(|name| arguments.extend(["--header", name]));
    let url = format!("https://api.example/{}", "a".repeat(4000));
    arguments.push(&url);
    let output = folder.run(&arguments);
    assert_eq!(output.code, REFUSED);
    assert!(says(&output.stdout, "asks for more than 128 headers"), "{}", output.stdout);
    assert!(output.stdout.contains("header_list_too_long"), "{}", output.stdout);
}

/// For a refused question about a large file, only one edited text is loaded.
#[test]
fn a_large_file_is_loaded_once_more_for_its_edit() {
    let mut config = SMALL.replace("cors: {", "cors: &unused {");
    config += "    routes:\n      - paths: [/*]\n        cors:\n          max_age: 600\n          allow_origins:\n";
    for i in 0..20_000 {
        let _ = writeln!(config, "            - https://shop-{i}.customers.example");
    }
    let loads = std::cell::Cell::new(0);
    let read = |text: &str| {
        loads.set(loads.get() + 1);
        load(text, CompileEnv::NONE)
    };
    let question = Question::new("https://shop-x.visitors.example", "https://api.example/orders").unwrap();
    let snapshot = load(&config, CompileEnv::NONE).snapshot.unwrap();
    let configuration = Configuration::new("corsgate.yaml", &config, &snapshot, &read);
    assert!(explain(&question, &configuration).fix.is_some());
    assert_eq!(loads.get(), 1);
}

/// Arguments and configurations that are not UTF-8 are refused.
#[cfg(unix)]
#[test]
fn arguments_that_are_not_utf_8_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::with(SMALL);
    fs::write(folder.0.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let output = folder.run(&["explain", "--config", "binary.yaml", "--origin", "null", "https://api.example"]);
    assert_eq!(output.code, UNUSABLE, "{}", output.stderr);
    let reason = "it is not UTF-8 text: line 1 has the byte 0xff in column 1; save the file as UTF-8\n";
    assert!(output.stderr.ends_with(reason), "{}", output.stderr);
    let missing = folder.run(&["explain", "--config", "none.yaml", "--origin", "null", "https://api.example"]);
    assert_eq!(
        (missing.code, missing.stderr.contains("cannot read none.yaml")),
        (UNUSABLE, true),
        "{}",
        missing.stderr
    );
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_corsgate"));
    command.args(["explain", "--origin"]).arg(std::ffi::OsStr::from_bytes(b"https://\xff.example"));
    let output = command.arg("https://api.example").output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE));
}

/// A recorded refusal is converted to a question, for browsers and for other clients.
#[test]
fn a_recorded_request_is_explained() {
    let read = |text: &str| load(text, CompileEnv::NONE);
    let snapshot = read(SMALL).snapshot.unwrap();
    let configuration = Configuration::new("corsgate.yaml", SMALL, &snapshot, &read);
    let preflight = RecordedRequest {
        kind: RequestKind::Preflight,
        client: "192.0.2.7".parse().unwrap(),
        scheme: Scheme::Https,
        authority: "api.example",
        path: "/orders",
        method: "OPTIONS",
        origin: Some("https://app.example"),
        requested_method: Some("PUT"),
        requested_headers: Some("x-id,x-trace"),
        credentials: Credentials::Omit,
        fetch_mode: None,
        fetch_site: None,
    };
    let actual = RecordedRequest {
        kind: RequestKind::Actual,
        method: "DELETE",
        requested_method: None,
        requested_headers: None,
        credentials: Credentials::Include,
        ..preflight
    };
    for (recorded, reason, cause, has_fix) in [
        (preflight, "header_not_allowed", "header_not_allowed", true),
        (
            RecordedRequest { origin: Some("https://b.example"), ..preflight },
            "origin_not_allowed",
            "origin_not_allowed",
            true,
        ),
        (
            RecordedRequest { origin: Some("https://a.example, https://b.example"), ..preflight },
            "origin_invalid",
            "origin_invalid",
            false,
        ),
        (RecordedRequest { origin: Some("null"), ..preflight }, "origin_null", "origin_null", true),
        (RecordedRequest { origin: Some("no origin"), ..preflight }, "origin_invalid", "origin_invalid", false),
        (
            RecordedRequest { origin: Some("https://\u{fffd}\u{0}.example"), ..preflight },
            "origin_invalid",
            "origin_invalid",
            false,
        ),
        (RecordedRequest { requested_method: None, ..preflight }, "header_not_allowed", "header_not_allowed", true),
        (RecordedRequest { requested_headers: Some(",,"), ..preflight }, "allowed_exact", "", false),
        (actual, "allowed_exact", "credentials_not_allowed", true),
        (RecordedRequest { credentials: Credentials::Omit, ..actual }, "allowed_exact", "", false),
        (RecordedRequest { origin: None, ..actual }, "no_origin", "", false),
        (RecordedRequest { origin: Some("https://api.example"), ..actual }, "same_origin", "", false),
        // Another component ends TLS, so the site's own request looks like a request from https to plain http.
        (
            RecordedRequest { scheme: Scheme::Http, origin: Some("https://API.example"), ..actual },
            "origin_not_allowed",
            "tls_in_front",
            false,
        ),
        // A forwarded navigation is not subject to CORS, for any Origin.
        (
            RecordedRequest { origin: Some("https://b.example"), fetch_mode: Some("navigate"), ..actual },
            "origin_not_allowed",
            "",
            false,
        ),
        (RecordedRequest { path: "/a/../b", ..actual }, "ambiguous_path", "ambiguous_path", false),
        (RecordedRequest { authority: "api example", ..actual }, "bad_host", "bad_host", false),
        (
            RecordedRequest { authority: "", path: "", method: "", origin: Some(""), ..actual },
            "bad_host",
            "bad_host",
            false,
        ),
    ] {
        let explanation = explain(&Question::recorded(&recorded), &configuration);
        let found = explanation.cause.as_ref().map_or("", Cause::code);
        assert_eq!((explanation.reason, found, explanation.fix.is_some()), (reason, cause, has_fix), "{recorded:?}");
        assert!(!text(&explanation, Paint::Plain, Width::DEFAULT).contains('\0'), "{recorded:?}");
        let json: Value = serde_json::from_str(&json(&explanation)).unwrap();
        assert_eq!(json["reason"], reason);
    }
    // The same in the text format.
    for (recorded, phrase) in [
        (preflight, "this request is the preflight"),
        (
            RecordedRequest { origin: None, path: "/a/../b", ..actual },
            "The request has no Origin, so CORS does not apply to it",
        ),
        (RecordedRequest { origin: None, ..actual }, "not needed: the request has no Origin, so CORS does not apply"),
    ] {
        let explanation = explain(&Question::recorded(&recorded), &configuration);
        let text = text(&explanation, Paint::Plain, Width::DEFAULT);
        assert!(says(&text, phrase), "{phrase}\n{text}");
    }
    // A request that has arrived was not blocked as mixed content.
    let plain = RecordedRequest { scheme: Scheme::Http, origin: Some("https://b.example"), ..actual };
    let explanation = explain(&Question::recorded(&plain), &configuration);
    assert!(!text(&explanation, Paint::Plain, Width::DEFAULT).contains("mixed content"));
    // The request is shown as received, even if a browser would write it differently.
    let odd = RecordedRequest { requested_headers: Some("X-Trace , x-id"), ..preflight };
    let explanation = explain(&Question::recorded(&odd), &configuration);
    assert_eq!(explanation.preflight, Preflight::Recorded);
    assert!(
        explanation.exchanges[0].fields.contains(&("Access-Control-Request-Headers".into(), "X-Trace , x-id".into()))
    );
}

/// A redirect to https is followed. A same-origin request continues unchanged, and a cross-origin request loses its
/// Origin.
#[test]
fn a_redirect_to_https_is_followed() {
    let folder =
        Folder::with(&SMALL.replace("9080 }]", "9080, redirect_to_https: true }]\ntrusted_proxies: [10.0.0.1]"));
    let own = folder.ask("explain --origin http://api.example --method POST http://api.example/orders");
    assert_eq!(own.code, REFUSED, "{}", own.stdout);
    assert!(own.stdout.contains("Location: https://api.example/orders"), "{}", own.stdout);
    assert!(own.stdout.contains("> Origin: http://api.example\n   < HTTP/1.1 200"), "{}", own.stdout);
    let foreign = folder.ask("explain --origin https://app.example --header X-Id http://api.example/orders");
    // The plain listener answers the preflight. The following request is redirected, and continues with the Origin
    // `null`.
    assert!(foreign.stdout.contains("3. preflight"), "{}", foreign.stdout);
    assert!(foreign.stdout.contains("> Origin: null"), "{}", foreign.stdout);
    assert!(says(&foreign.stdout, "(redirected from 'http://api.example/orders')"), "{}", foreign.stdout);
    assert_eq!(foreign.code, REFUSED);
}

/// If no listener has TLS, another component decrypts https. Only a trusted proxy can report this to the gateway.
#[test]
fn tls_in_front_of_corsgate_is_recognised() {
    let reject = SMALL.replace("max_age: 600", "max_age: 600, disallowed_origins: reject");
    let own = "explain --origin https://rej.test --method POST https://rej.test/api";
    let trusting = format!("trusted_proxies: [10.0.0.1]\n{reject}");
    for (config, code, phrase) in [
        (reject.as_str(), REFUSED, "TLS ends in front of corsgate, which sees plain http"),
        (reject.as_str(), REFUSED, "Set `trusted_proxies` to the address"),
        (reject.as_str(), REFUSED, "403 Forbidden"),
        (trusting.as_str(), ALLOWED, "(same_origin)"),
        (SMALL, ALLOWED, "`disallowed_origins: reject` refuses the site's own POST requests."),
    ] {
        let output = Folder::with(config).ask(own);
        assert_eq!(output.code, code, "{config}\n{}", output.stdout);
        assert!(says(&output.stdout, phrase), "{config}\n{}", output.stdout);
    }
    // The site's own GET has no Origin, so it is allowed. The note is the same.
    let get = Folder::with(&reject).ask("explain --origin https://rej.test https://rej.test/api");
    assert_eq!(get.code, ALLOWED, "{}", get.stdout);
    assert!(says(&get.stdout, "TLS ends in front of corsgate"), "{}", get.stdout);
    // A recorded request shows that the trusted proxy does not send the necessary field.
    let read = |text: &str| load(text, CompileEnv::NONE);
    let snapshot = read(&trusting).snapshot.unwrap();
    let configuration = Configuration::new("corsgate.yaml", &trusting, &snapshot, &read);
    let recorded = RecordedRequest {
        kind: RequestKind::Actual,
        client: "192.0.2.7".parse().unwrap(),
        scheme: Scheme::Http,
        authority: "rej.test:443",
        path: "/api",
        method: "POST",
        origin: Some("https://rej.test"),
        requested_method: None,
        requested_headers: None,
        credentials: Credentials::Omit,
        fetch_mode: None,
        fetch_site: None,
    };
    let why = text(&explain(&Question::recorded(&recorded), &configuration), Paint::Plain, Width::DEFAULT);
    assert!(says(&why, "is in `trusted_proxies` and sends `X-Forwarded-Proto: https`"), "{why}");
    let foreign = RecordedRequest { origin: Some("https://rej.test:8443"), ..recorded };
    let why = text(&explain(&Question::recorded(&foreign), &configuration), Paint::Plain, Width::DEFAULT);
    assert!(!says(&why, "TLS ends"), "another port is another origin\n{why}");
    let trusting = Folder::with(&trusting).ask(own);
    assert!(!trusting.stdout.contains("TLS ends"), "{}", trusting.stdout);
}

/// A form of another site, such as the answer of an identity provider, is a navigation. The fix must not be an entry in
/// allow_origins, because that site could then read the API.
#[test]
fn a_recorded_navigation_gets_a_route_of_its_own() {
    let config = SMALL.replace("max_age: 600", "disallowed_origins: reject");
    let read = |text: &str| load(text, CompileEnv::NONE);
    let snapshot = read(&config).snapshot.unwrap();
    let configuration = Configuration::new("corsgate.yaml", &config, &snapshot, &read);
    let form = RecordedRequest {
        kind: RequestKind::Actual,
        client: "192.0.2.7".parse().unwrap(),
        scheme: Scheme::Https,
        authority: "api.example",
        path: "/saml/acs",
        method: "POST",
        origin: Some("https://idp.example"),
        requested_method: None,
        requested_headers: None,
        credentials: Credentials::Include,
        fetch_mode: Some("navigate"),
        fetch_site: None,
    };
    for (recorded, cause, is_navigation) in [
        (form, "origin_not_allowed", true),
        (RecordedRequest { origin: Some("null"), ..form }, "origin_null", true),
        (RecordedRequest { fetch_mode: Some("cors"), ..form }, "origin_not_allowed", false),
        (RecordedRequest { fetch_mode: None, ..form }, "origin_not_allowed", false),
        (RecordedRequest { fetch_mode: Some("websocket"), method: "GET", ..form }, "origin_not_allowed", false),
    ] {
        let explanation = explain(&Question::recorded(&recorded), &configuration);
        assert_eq!(explanation.cause.as_ref().map_or("", Cause::code), cause, "{recorded:?}");
        assert_eq!(explanation.fix.is_none(), is_navigation, "{recorded:?}");
        let text = text(&explanation, Paint::Plain, Width::DEFAULT);
        let advice = "a route of its own with `disallowed_origins: forward` in its policy";
        assert_eq!(says(&text, advice), is_navigation, "{recorded:?}\n{text}");
    }
}

const BY_METHOD: &str = "\
listeners: [{ address: 127.0.0.1:9080 }]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
services:
  - name: api
    upstream: api
    routes:
      - { name: read, paths: [/x], methods: [GET], cors: { allow_origins: https://app.example, max_age: 600 } }
      - { name: write, paths: [/x], methods: [POST, DELETE], cors: { allow_origins: https://admin.example, max_age: 600 } }
      - { name: one, paths: [/one], cors: { allow_origins: https://app.example, allow_methods: [GET, PUT], max_age: 600 } }
      - { name: brief, paths: [/brief], cors: { allow_origins: https://app.example, max_age: 0 } }
";

/// A browser caches the answer to a preflight by its URL, not by the requested method.
#[test]
fn later_requests_use_the_browsers_preflight_cache() {
    let folder = Folder::with(BY_METHOD);
    let json = "--header 'Content-Type: application/json'";
    let get = |path: &str| format!("--origin https://app.example --header X-A https://api.example{path}");
    let cached = "not sent: the browser has cached the answer to the preflight of request 1";
    for (arguments, code, phrases) in [
        // One path has two policies. The answer to the GET is not cached, so the policies do not mix.
        (
            format!("{} --then 'POST https://api.example/x' {json}", get("/x")),
            REFUSED,
            vec![
                "cannot POST https://api.example/x after GET https://api.example/x (origin_not_allowed)",
                "Access-Control-Max-Age: 0",
                "3. preflight of request 2, answered by corsgate",
            ],
        ),
        (format!("{} --then 'DELETE https://api.example/x'", get("/x")), REFUSED, vec!["3. preflight of request 2"]),
        // The whole path has one policy, so its answer covers the methods that it lists.
        (
            format!("{} --then 'PUT https://api.example/one' {json}", get("/one")),
            ALLOWED,
            vec![cached, "3. request 2 (no preflight: cached answer of request 1), forwarded"],
        ),
        (format!("{} --then 'POST https://api.example/one' {json}", get("/one")), ALLOWED, vec![cached]),
        (format!("{} --then 'GET https://api.example/one'", get("/one")), ALLOWED, vec!["no header needs a preflight"]),
        (format!("{} --then 'PATCH https://api.example/one'", get("/one")), REFUSED, vec!["3. preflight of request 2"]),
        // Another URL, an expired answer, or another header needs a new preflight.
        (
            format!("{} --then 'PUT https://api.example/one?b'", get("/one?a")),
            ALLOWED,
            vec!["3. preflight of request 2"],
        ),
        (
            format!("{} --then 'PUT https://api.example/brief'", get("/brief")),
            ALLOWED,
            vec!["3. preflight of request 2", "not at all: the browser sends a preflight before each request"],
        ),
        (
            format!("{} --then 'GET https://api.example/one' -H 'Authorization: x'", get("/one")),
            REFUSED,
            vec!["3. preflight of request 2"],
        ),
        (
            format!("{} --then 'PUT https://api.example/one' --then 'https://api.example/one' -H X-A", get("/one")),
            ALLOWED,
            vec!["4. request 3 (no preflight: cached answer of request 1)"],
        ),
        // The output explains the first request that fails.
        (
            "--origin https://b.example https://api.example/one --then 'PUT https://api.example/one'".into(),
            REFUSED,
            vec!["a page of https://b.example cannot GET https://api.example/one (origin_not_allowed)"],
        ),
    ] {
        let output = folder.ask(&format!("explain {arguments}"));
        assert_eq!(output.code, code, "{arguments}\n{}{}", output.stdout, output.stderr);
        for phrase in phrases {
            assert!(says(&output.stdout, phrase), "{arguments}: {phrase}\n{}", output.stdout);
        }
    }
    let output = folder.ask(&format!("explain {} --then 'PUT https://api.example/one' --format json", get("/one")));
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(answer["after"], serde_json::json!(["GET https://api.example/one"]));
    assert_eq!((&answer["preflight"]["needed"], &answer["preflight"]["cached_from"]), (&false.into(), &1.into()));
    assert_eq!((&answer["exchanges"][2]["of_request"], &answer["exchanges"][2]["cached_from"]), (&2.into(), &1.into()));
}

const REDIRECTING: &str = "\
listeners: [{ address: 127.0.0.1:9080 }]
trusted_proxies: [10.0.0.1]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
cors: { allow_origins: [https://app.example], allow_headers: [\"*\", Authorization], max_age: 600 }
services:
  - { name: api, hosts: [api.example], upstream: api }
  - { name: other, hosts: [\"*.other.example\"], upstream: api }
  - { name: sandbox, hosts: [null.example], upstream: api, cors: { allow_origins: [\"null\"], dangerously_allow: [null_origin] } }
";

/// Redirects of the upstream are followed by the rules of Fetch, if the file has the target.
#[test]
fn redirects_of_the_upstream_are_followed_within_the_file() {
    let folder = Folder::with(REDIRECTING);
    let any = Folder::with(SMALL);
    let from = |status: u16, to: &str| format!("--upstream-status {status} --upstream-header 'Location: {to}'");
    let app = "--origin https://app.example";
    let url = "https://api.example/a";
    for (folder, arguments, code, phrases) in [
        // The redirect stays at the origin, so nothing changes.
        (
            &folder,
            format!("{app} {} --method PUT {url}", from(307, "/b")),
            ALLOWED,
            vec![
                "4. request, forwarded to the upstream; its response is assumed\n   > PUT /b HTTP/1.1\n   > Host: api.example\n   > Origin: https://app.example",
            ],
        ),
        // From one foreign origin to another: the Origin becomes null, and Authorization is removed.
        (
            &folder,
            format!("{app} {} -H 'Authorization: x' {url}", from(308, "https://a.other.example/b")),
            REFUSED,
            vec!["> GET /b HTTP/1.1\n   > Host: a.other.example\n   > Origin: null\n   < HTTP", "(origin_lost)"],
        ),
        (&folder, format!("{app} {} {url}", from(302, "https://null.example/b")), ALLOWED, vec!["> Origin: null"]),
        // From the page's own origin to a foreign origin, and back.
        (
            &folder,
            format!("--origin https://api.example {} {url}", from(302, "https://a.other.example/b")),
            REFUSED,
            vec!["> Host: a.other.example\n   > Origin: https://api.example", "(redirected from"],
        ),
        (
            &folder,
            format!("--origin https://api.example {} https://null.example/a", from(302, "https://api.example/b")),
            REFUSED,
            vec![],
        ),
        // 301, 302 and 303 change the method, and remove the headers of the body.
        (
            &folder,
            format!("{app} --method POST -H 'Content-Type: application/json' -H 'X-A: 1' {} {url}", from(302, "/b")),
            ALLOWED,
            vec!["> GET /b HTTP/1.1\n   > Host: api.example\n   > Origin: https://app.example\n   > X-A: 1\n   <"],
        ),
        (&folder, format!("{app} --method PUT {} {url}", from(302, "/b")), ALLOWED, vec!["> PUT /b"]),
        (&folder, format!("{app} --method PUT {} {url}", from(303, "/b")), ALLOWED, vec!["> GET /b"]),
        (&folder, format!("{app} --method POST {} {url}", from(307, "/b")), ALLOWED, vec!["> POST /b"]),
        // The response is not a redirect.
        (&folder, format!("{app} {} {url}", from(304, "/b")), ALLOWED, vec!["< HTTP/1.1 304"]),
        (&folder, format!("{app} --upstream-status 302 {url}"), ALLOWED, vec!["< HTTP/1.1 302"]),
        // The redirect is not followed.
        (
            &folder,
            format!("{app} {} {url}", from(302, "https://u:p@api.example/b")),
            REFUSED,
            vec!["user part", "(redirect)"],
        ),
        (
            &folder,
            format!("{app} {} {url}", from(302, "ftp://api.example/b")),
            REFUSED,
            vec!["is not to an http or https URL"],
        ),
        (
            &folder,
            format!("--origin https://b.example {} {url}", from(302, "/b")),
            REFUSED,
            vec!["(origin_not_allowed)"],
        ),
        // The redirect leads to a server that the file does not have.
        (
            &any,
            format!("{app} --method POST -H 'X-Id: 1' {} {url}", from(307, "http://10.0.0.5:8000/x/")),
            UNDECIDED,
            vec![
                "undecided: a page of https://app.example can POST https://api.example/a if http://10.0.0.5:8000/x/ allows it",
                "The browser sends it a preflight, and then POST http://10.0.0.5:8000/x/ with `Origin: null`.",
            ],
        ),
        (
            &any,
            format!("{app} {} {url}", from(307, "https://login.example/")),
            UNDECIDED,
            vec!["if https://login.example/ allows it"],
        ),
        (
            &any,
            format!("{app} {} {url}", from(307, "https://api.example:8000/")),
            UNDECIDED,
            vec!["with `Origin: null`"],
        ),
        (
            &folder,
            format!("--origin https://api.example {} {url}", from(307, "https://login.example/")),
            UNDECIDED,
            vec!["with `Origin: https://api.example`"],
        ),
        (
            &any,
            format!("{app} --as navigation {} {url}", from(302, "https://login.example/")),
            UNDECIDED,
            vec!["GET https://login.example/ without an Origin"],
        ),
    ] {
        let output = folder.ask(&format!("explain {arguments}"));
        assert_eq!(output.code, code, "{arguments}\n{}{}", output.stdout, output.stderr);
        for phrase in phrases {
            assert!(says(&output.stdout, phrase), "{arguments}: {phrase}\n{}", output.stdout);
        }
    }
    let output = any.ask(&format!("explain {app} {} {url} --format json", from(307, "http://10.0.0.5:8000/x/")));
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    let next = serde_json::json!({
        "method": "GET", "url": "http://10.0.0.5:8000/x/", "origin": "null", "preflight": false
    });
    assert_eq!((&answer["verdict"], &answer["next"]), (&"undecided".into(), &next));
}

/// The kinds of requests of a page differ in the data that they send and in the checks of the browser.
#[test]
fn every_part_of_a_page_is_simulated() {
    let open = Folder::with(SMALL);
    let reject = Folder::with(&SMALL.replace("max_age: 600", "max_age: 600, disallowed_origins: reject"));
    let redirect = Folder::with(&SMALL.replace("9080 }", "9080, redirect_to_https: true }"));
    let off = Folder::with(&SMALL.replace("cors: {", "cors: false # {"));
    let site = Folder::with(&SMALL.replace("max_age: 600", "max_age: 600, cross_origin_resource_policy: same-site"));
    let own = "Cross-Origin-Resource-Policy: same-origin";
    let api = "https://api.example/a";
    for (folder, origin, arguments, code, phrases) in [
        (
            &open,
            "https://app.example",
            format!("--as xhr-upload --method POST {api}"),
            ALLOWED,
            vec![
                "POST https://api.example/a with upload listeners",
                "needed: the page listens to the progress of the upload",
                "1. preflight, answered by corsgate",
            ],
        ),
        (
            &open,
            "https://app.example",
            format!("--as xhr-upload --method POST {api} --then 'POST {api}'"),
            ALLOWED,
            vec!["3. request 2 (no preflight: cached answer of request 1)"],
        ),
        (
            &open,
            "https://b.example",
            format!("--as xhr-upload {api}"),
            REFUSED,
            vec!["XMLHttpRequest at 'https://api.example/a'"],
        ),
        (
            &open,
            "https://b.example",
            format!("--as no-cors {api}"),
            ALLOWED,
            vec![
                "with `mode: no-cors`",
                "never: `mode: no-cors` allows only requests that need none",
                "nothing, not even the status: the response is opaque",
                "> Host: api.example\n   < HTTP",
            ],
        ),
        (
            &open,
            "https://b.example",
            format!("--as no-cors --method POST -H 'Content-Type: text/plain' {api}"),
            ALLOWED,
            vec!["> Origin: https://b.example\n   > Content-Type: text/plain"],
        ),
        (&reject, "https://b.example", format!("--as no-cors --method POST {api}"), REFUSED, vec!["403 Forbidden"]),
        (&reject, "https://b.example", format!("--as no-cors {api}"), ALLOWED, vec!["opaque"]),
        (
            &open,
            "https://b.example",
            format!("--as no-cors --upstream-header '{own}' {api}"),
            REFUSED,
            vec![
                "net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin",
                "The upstream sets Cross-Origin-Resource-Policy: same-origin",
                "(resource_policy)",
            ],
        ),
        (&open, "https://b.example", format!("--upstream-header '{own}' {api}"), REFUSED, vec!["(origin_not_allowed)"]),
        (&open, "https://b.example", format!("--as navigation --upstream-header '{own}' {api}"), ALLOWED, vec![]),
        (
            &open,
            "https://b.example",
            format!("--as no-cors --upstream-header '{own}' --upstream-header '{own}' {api}"),
            ALLOWED,
            vec![],
        ),
        (
            &site,
            "https://b.example",
            format!("--as no-cors {api}"),
            REFUSED,
            vec![
                "net::ERR_BLOCKED_BY_RESPONSE.NotSameSite",
                "The policy sets Cross-Origin-Resource-Policy: same-site",
                "fix: write `cross_origin_resource_policy: cross-origin`",
            ],
        ),
        (&site, "https://api.example:8443", format!("--as no-cors {api}"), ALLOWED, vec!["opaque"]),
        (&site, "http://api.example", format!("--as no-cors {api}"), REFUSED, vec!["NotSameSite"]),
        (&site, "https://app.example", api.to_owned(), ALLOWED, vec![]),
        (&open, "https://app.example", format!("--as image {api}"), ALLOWED, vec!["with `<img crossorigin>`"]),
        (
            &open,
            "https://b.example",
            format!("--as image {api}"),
            REFUSED,
            vec!["image at 'https://api.example/a' from origin"],
        ),
        (
            &open,
            "https://app.example",
            format!("--as image --credentials {api}"),
            REFUSED,
            vec!["(credentials_not_allowed)"],
        ),
        (&open, "https://b.example", format!("--as module {api}"), REFUSED, vec!["script at"]),
        (&open, "https://b.example", format!("--as font {api}"), REFUSED, vec!["font at"]),
        (
            &open,
            "https://app.example",
            format!("--as eventsource {api}"),
            ALLOWED,
            vec!["> Accept: text/event-stream", "it sends Last-Event-ID without a preflight"],
        ),
        (&open, "https://app.example", format!("--as eventsource --credentials {api}"), REFUSED, vec!["resource at"]),
        (
            &open,
            "https://app.example",
            "--as websocket wss://api.example/feed".into(),
            ALLOWED,
            vec![
                "can GET wss://api.example/feed with `WebSocket`",
                "> Origin: https://app.example\n   > Connection: Upgrade\n   > Upgrade: websocket",
                "< HTTP/1.1 101 Switching Protocols",
                "never: CORS does not apply to WebSockets",
            ],
        ),
        (
            &open,
            "https://b.example",
            "--as websocket wss://api.example/feed".into(),
            ALLOWED,
            vec!["pages of every origin can open this one"],
        ),
        (
            &off,
            "https://b.example",
            "--as websocket wss://api.example/feed".into(),
            ALLOWED,
            vec!["give the route a policy with `disallowed_origins: reject`"],
        ),
        (
            &reject,
            "https://b.example",
            "--as websocket wss://api.example/feed".into(),
            REFUSED,
            vec!["403 Forbidden", "(origin_not_allowed)"],
        ),
        (
            &redirect,
            "http://localhost:3000",
            "--as websocket ws://api.example/feed".into(),
            REFUSED,
            vec!["(not_switched)", "Let the page open the WebSocket with `wss:`."],
        ),
        (
            &open,
            "https://app.example",
            "--as websocket --upstream-status 400 wss://api.example/feed".into(),
            REFUSED,
            vec!["the upstream responds with 400"],
        ),
        (
            &reject,
            "https://b.example",
            format!("--as navigation {api}"),
            ALLOWED,
            vec![
                "GET https://api.example/a by a navigation",
                "never: CORS does not apply to navigations",
                "> Host: api.example\n   > Sec-Fetch-Site: cross-site\n   > Sec-Fetch-Mode: navigate",
            ],
        ),
        (
            &open,
            "https://b.example",
            format!("--as navigation --method POST {api}"),
            ALLOWED,
            vec!["> Origin: https://b.example"],
        ),
        (
            &reject,
            "https://b.example",
            format!("--as navigation --method POST {api}"),
            REFUSED,
            vec!["The request is a navigation from https://b.example"],
        ),
        // The default referrer policy hides the origin of a page on https.
        (
            &open,
            "https://b.example",
            "--as navigation --method POST http://api.example/a".into(),
            ALLOWED,
            vec!["> Origin: null"],
        ),
    ] {
        let arguments = format!("--origin {origin} {arguments}");
        let output = folder.ask(&format!("explain {arguments}"));
        assert_eq!(output.code, code, "{arguments}\n{}{}", output.stdout, output.stderr);
        for phrase in phrases {
            assert!(says(&output.stdout, phrase), "{arguments}: {phrase}\n{}", output.stdout);
        }
    }
}

/// Notes about checks besides CORS, and about data that a page sends without effect.
#[test]
fn notes_name_what_cors_does_not_decide() {
    let folder = Folder::with(&SMALL.replace("allow_headers: [X-Id]", "allow_credentials: true"));
    let (sites, lax) = ("The page and the URL belong to different sites", "`SameSite=None; Secure` or `SameSite=Lax`");
    let (space, vain) = ("to access the `", "a response header, which has no effect in a request");
    for (arguments, phrase, is_said) in [
        ("--origin https://app.example --credentials https://api.example", sites, true),
        ("--origin https://app.example https://api.example", sites, false),
        ("--origin https://app.example --credentials https://api.app.example", sites, false),
        ("--origin https://app.example --credentials http://api.app.example", sites, true),
        ("--origin https://app.example --credentials --as navigation https://api.example", lax, true),
        ("--origin https://app.example --credentials --as navigation --method POST https://api.example", lax, false),
        ("--origin https://app.example http://127.0.0.1:9080", "`loopback` address space", true),
        ("--origin https://app.example http://localhost:9080", "`allow_private_network` does not help", true),
        ("--origin https://app.example http://10.0.0.5:9080", "`local` address space", true),
        ("--origin http://192.168.1.2 http://127.0.0.1:9080", "`loopback` address space", true),
        ("--origin http://192.168.1.2 http://192.168.1.3:9080", space, false),
        ("--origin http://localhost:3000 http://127.0.0.1:9080", space, false),
        ("--origin http://127.0.0.1:3000 https://api.example", space, false),
        ("--origin https://app.example --as navigation http://10.0.0.5:9080", space, false),
        ("--origin https://app.example --as navigation http://api.example", "mixed content", false),
        (
            "--origin https://app.example --as websocket ws://api.example",
            "a request to `ws:` from a page on https",
            true,
        ),
        ("--origin https://app.example -H 'Access-Control-Allow-Origin: *' https://api.example", vain, true),
        ("--origin https://app.example -H 'X-Id: 1' https://api.example", vain, false),
    ] {
        let output = folder.ask(&format!("explain {arguments}"));
        assert_eq!(says(&output.stdout, phrase), is_said, "{arguments}: {phrase}\n{}{}", output.stdout, output.stderr);
    }
}

/// Statements about https and ports depend on the listeners of the file.
#[test]
fn the_default_port_is_that_of_the_listener() {
    let api = Authority::new("Explained").issue(&["api.example"]);
    let tls = "tls: { certificates: [{ cert: api.crt, key: api.key }] }";
    let (plain, moved) = ("{ address: 127.0.0.1:9080 }", "{ address: 127.0.0.1:9080, redirect_to_https: 9443 }");
    let moved_to_443 = "{ address: 127.0.0.1:9080, redirect_to_https: true }";
    let on = |port: u16| format!("{{ address: 127.0.0.1:{port}, {tls} }}");
    let mixed = "as mixed content, before they check CORS;";
    let no_listener = "No listener of this file has port";
    for (listeners, url, phrase) in [
        (plain.to_owned(), "http://api.example:31080", Some(format!("{mixed} no listener of this file has TLS."))),
        (moved.to_owned(), "http://api.example:9080", Some(format!("{mixed} use https://api.example:9443."))),
        (moved_to_443.to_owned(), "http://api.example:9080", Some(format!("{mixed} use https://api.example."))),
        (
            format!("{plain}, {}", on(8443)),
            "http://api.example",
            Some(format!("{mixed} use https://api.example:8443.")),
        ),
        (
            format!("{}, {}", on(8443), on(443)),
            "http://api.example:8080",
            Some(format!("{mixed} use https://api.example.")),
        ),
        (
            plain.to_owned(),
            "https://api.example:8443",
            Some(format!("{no_listener} 8443. Use this port only if a component in front of corsgate has it.")),
        ),
        (plain.to_owned(), "https://api.example:9080", Some("with port 9080 has no TLS.".to_owned())),
        (on(8443), "http://api.example:8443", Some("with port 8443 accepts only TLS.".to_owned())),
        (format!("{plain}, {}", on(8443)), "https://api.example:8443", None),
        (plain.to_owned(), "https://api.example", None),
        // Browsers omit the default port of the scheme.
        (plain.to_owned(), "https://api.example:443", None),
    ] {
        let folder = Folder::with(&SMALL.replace("{ address: 127.0.0.1:9080 }", &listeners));
        for (name, pem) in api.files("api") {
            fs::write(folder.0.path().join(name), pem).unwrap();
        }
        let output = folder.ask(&format!("explain --origin https://app.example {url}"));
        match phrase {
            Some(phrase) => {
                assert!(says(&output.stdout, &phrase), "{listeners} {url}\n{}{}", output.stdout, output.stderr);
            }
            None => assert!(!output.stdout.contains("note"), "{listeners} {url}\n{}{}", output.stdout, output.stderr),
        }
    }
}

/// For random questions and configurations, an allowed request has no edit, and a suggested edit allows the request.
#[test]
fn the_offered_edit_allows_the_request() {
    let (mut runner, offered) = (TestRunner::new(ProptestConfig::with_cases(320)), Cell::new(0));
    let tables = cases::tables();
    let row = (0..tables.len()).prop_flat_map(|table| (Just(table), 0..tables[table].cases.len()));
    let result = runner.run(&(row, asked()), |((table, row), asked)| {
        let table = &tables[table];
        let (text, snapshot) = (table.text(), table.snapshot());
        let read = |text: &str| load(text, CompileEnv::NONE);
        let Some(question) = asked.question(&table.cases[row]) else { return Ok(()) };
        let explanation = explain(&question, &Configuration::new("table.yaml", &text, &snapshot, &read));
        if explanation.outcome != Outcome::Refused {
            prop_assert_eq!(explanation.fix, None);
        } else if explanation.fix.is_some() {
            offered.set(offered.get() + 1);
            let json: Value = serde_json::from_str(&json(&explanation)).unwrap();
            let edited = apply(&text, &json["fix"]["hunks"]);
            let Loaded { snapshot, problems } = read(&edited);
            prop_assert!(snapshot.is_some(), "{problems}\n{edited}");
            let snapshot = snapshot.unwrap();
            let again = explain(&question, &Configuration::new("table.yaml", &edited, &snapshot, &read));
            prop_assert_ne!(again.outcome, Outcome::Refused, "{:?}\n{}", asked, edited);
        }
        Ok(())
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    assert!(offered.get() > 80, "only {} edits were offered", offered.get());
}

/// A random request of a page, except its URL.
#[derive(Debug, Clone)]
struct Asked {
    origin: Option<&'static str>,
    method: &'static str,
    headers: Vec<&'static str>,
    credentials: bool,
    reads: Vec<&'static str>,
    initiator: Initiator,
    /// Method and header of a later request to the same URL.
    later: Option<(&'static str, &'static str)>,
    /// Status and `Location` of the upstream's response.
    redirect: Option<(u16, &'static str)>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let origins = prop::option::of(prop::sample::select(vec![
        "https://app.example",
        "http://app.example",
        "https://new.app.example:8443",
        "http://localhost:3000",
        "tauri://app",
        "null",
        "https://other.test",
    ]));
    let methods = prop::sample::select(vec!["GET", "POST", "put", "PATCH", "patch", "DELETE", "OPTIONS", "PURGE"]);
    let names = ["Content-Type: application/json", "Authorization", "X-Trace", "Accept: */*", "Range: bytes=1-"];
    let headers = prop::sample::subsequence(names.to_vec(), 0..=3);
    let reads = prop::sample::subsequence(vec!["X-Total", "Content-Type"], 0..=2);
    let initiators = prop::sample::select([[Initiator::Fetch; 9], Initiator::ALL].concat());
    let later = (prop::sample::select(vec!["GET", "POST", "PUT", "DELETE"]), prop::sample::select(names.to_vec()));
    let to =
        prop::sample::select(vec!["/", "https://api.example/", "https://user@api.example/", "http://10.0.0.5:1/", "%"]);
    let redirect = (prop::sample::select(vec![301, 303, 307]), to);
    let later_and_redirect = (prop::option::of(later), prop::option::weighted(0.2, redirect));
    let all = (origins, methods, headers, any::<bool>(), reads, initiators, later_and_redirect);
    all.prop_map(|(origin, method, headers, credentials, reads, initiator, (later, redirect))| Asked {
        origin,
        method,
        headers,
        credentials,
        reads,
        initiator,
        later,
        redirect,
    })
}

impl Asked {
    /// Returns the question of a row. This request may replace its URL and its origin.
    fn question(&self, row: &cases::Row) -> Option<Question> {
        let (_, path, fields) = row.request();
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
        let origin = self.origin.or(text("origin")).unwrap_or("https://app.example");
        let url = format!("http://{}{path}", text("host")?);
        let mut question = Question::of(self.initiator, origin, &url).ok()?;
        if let Some((status, location)) = self.redirect {
            question = question.upstream_status(status).ok()?.upstream_header(&format!("Location: {location}")).ok()?;
        }
        question = question.method(self.method).ok()?;
        for header in &self.headers {
            question = question.header(header).ok()?;
        }
        for name in &self.reads {
            question = question.reads(name).ok()?;
        }
        if let Some((method, header)) = self.later {
            question = question.then(&url).ok()?.method(method).ok()?.header(header).ok()?;
        }
        question.credentials(if self.credentials { Credentials::Include } else { Credentials::Omit }).ok()
    }
}

/// Returns whether a text contains a phrase. Line breaks do not matter.
fn says(text: &str, phrase: &str) -> bool {
    let flowing = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.contains(phrase) || flowing(text).contains(&flowing(phrase))
}

impl Mistake {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let parts: Vec<&str> = text.splitn(3, DIVIDER).collect();
        let [config, question, ref printed @ ..] = parts[..] else { panic!("{}: no question", path.display()) };
        let (command, rest) = question.split_once('\n').unwrap();
        let expectation = |line: &str| {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{}: {line}", path.display()));
            assert!(["reason", "says", "fix", "tried", "verdict"].contains(&key), "{}: {line}", path.display());
            (key.to_owned(), value.to_owned())
        };
        Mistake {
            path: path.to_owned(),
            config: config.to_owned(),
            command: command.to_owned(),
            expectations: rest.lines().map(expectation).collect(),
            printed: printed.concat(),
        }
    }

    fn write(&self, printed: &str) {
        let mut text = format!("{}{DIVIDER}{}\n", self.config, self.command);
        for (key, value) in &self.expectations {
            let _ = writeln!(text, "{key}: {value}");
        }
        fs::write(&self.path, text + DIVIDER + printed).unwrap();
    }

    fn expected(&self, key: &str) -> impl Iterator<Item = &str> {
        self.expectations.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn faults(&self, folder: &Folder, asked: &Output, mended: &mut usize) -> String {
        let mut wrong = String::new();
        let mut hold = |condition: bool, what: &str| {
            if !condition {
                let _ = writeln!(wrong, "  {what}");
            }
        };
        let answer: Value =
            serde_json::from_str(&folder.ask(&format!("{} --format json", self.command)).stdout).unwrap();
        let verdict = answer["verdict"].as_str().unwrap();
        let code = match verdict {
            "refused" => REFUSED,
            "unusable" => UNUSABLE,
            "undecided" => UNDECIDED,
            _ => ALLOWED,
        };
        // Most files have a mistake. The other files name their verdict.
        let meant = self.expected("verdict").next();
        let is_meant = meant.map_or(["refused", "unusable"].contains(&verdict), |meant| meant == verdict);
        hold(asked.code == code && is_meant, &format!("exit code {} for {verdict}", asked.code));
        hold(asked.stderr.is_empty(), &asked.stderr);
        let reason = match verdict {
            "unusable" => answer["problems"].as_array().unwrap().iter().find(|problem| problem["severity"] == "error"),
            _ => None,
        };
        let reason = reason.map_or(&answer["reason"], |problem| &problem["code"]);
        hold(self.expected("reason").eq(reason.as_str()), &format!("the reason is {reason}"));
        // The first line is the verdict.
        let first = asked.stdout.lines().next().unwrap_or_default();
        let words = ["refused: ", "unreadable: ", "error: "];
        let starts = |word: &str| first.starts_with(word);
        hold(meant.map_or(words.iter().any(|word| starts(word)), |meant| starts(&format!("{meant}: "))), first);
        if let Some(code) = answer["cause"]["code"].as_str() {
            hold(first.ends_with(&format!(" ({code})")), first);
        }
        for phrase in self.expected("says") {
            hold(says(&asked.stdout, phrase), &format!("does not say: {phrase}"));
        }
        hold(self.expected("says").next().is_some(), "nothing that it must say");
        let fix = &answer["fix"];
        let none = (fix.is_null() && meant.is_none()).then_some("none");
        hold(self.expected("fix").eq(none), &format!("the fix is {fix}"));
        let objections = answer["tried"]["problems"].as_array().into_iter().flatten();
        let tried: Vec<&str> = objections.map(|problem| problem["at"]["path"].as_str().unwrap()).collect();
        hold(self.expected("tried").eq(tried.iter().copied()), &format!("tried, but for {tried:?}"));
        if !fix.is_null() {
            *mended += 1;
            let after = Folder::with(&apply(&self.config, &fix["hunks"]));
            let again = after.ask(&self.command);
            hold(again.code == ALLOWED, &format!("still refused after the edit:\n{}", again.stdout));
            hold(again.stdout.starts_with("allowed: "), &again.stdout);
            let checked = after.run(&["check", "--config", "corsgate.yaml"]);
            hold(checked.code == 0, &checked.stdout);
        }
        wrong
    }
}

/// Applies hunks to a text, as a program does. A line ends with a line feed.
pub fn apply(text: &str, hunks: &Value) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    // The last hunk is applied first, so the line numbers of the others stay valid.
    for hunk in hunks.as_array().unwrap().iter().rev() {
        let from = usize::try_from(hunk["line"].as_u64().unwrap()).unwrap() - 1;
        let removed = texts(&hunk["removed"]);
        assert_eq!(lines[from..from + removed.len()], removed);
        lines.splice(from..from + removed.len(), texts(&hunk["added"]));
    }
    lines.join("\n")
}

/// A directory with a configuration.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("corsgate.yaml"), config).unwrap();
        Folder(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run_in(self.0.path(), arguments)
    }

    /// Runs a typed command.
    fn ask(&self, command: &str) -> Output {
        let words = crate::docs::shell_words(command);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(words.remove(0), "explain");
        self.run(&[&["explain", "--config", "corsgate.yaml"], words.as_slice()].concat())
    }
}

fn mistakes() -> Vec<Mistake> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Mistake::read(path)).collect()
}

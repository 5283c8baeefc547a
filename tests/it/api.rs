//! The write API of the admin listener: requests and responses, who may use it, hostile input, and the file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::docs;
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, check, run, run_in};

/// Its comments must stay.
pub const CONFIG: &str = "\
# The shop.
listeners: [{ address: \"{listen}\" }]
admin:
  address: \"{admin}\"
  write: admin.tokens

cors_policies:
  # Anybody may read.
  public:
    allow_origins: \"*\"   # really anybody
    allow_methods: [GET]
    max_age: 60

origin_sets:
  partners: [https://a.example]

upstreams:
  api: { nodes: [{ address: \"127.0.0.1:9\" }] }

services:
  - name: shop   # all hosts
    upstream: api
    cors: public
    routes:
      # Orders.
      - { name: orders, paths: [/orders/*] }
      - { paths: [/health], cors: false }
# The end.
";

/// Tokens with the roles `write` and `read`, and the file with their lines.
#[derive(Clone)]
pub struct Tokens {
    pub write: String,
    read: String,
    file: String,
}

impl Tokens {
    pub fn new() -> Self {
        let token = |name: &str, role: &str| {
            let output = run(&["token", "--name", name, "--role", role, "--format", "json"]);
            let made: Value = serde_json::from_str(&output.stdout).unwrap();
            (made["token"].as_str().unwrap().to_owned(), made["line"].as_str().unwrap().to_owned())
        };
        let ((write, write_line), (read, read_line)) = (token("ci", "write"), token("dashboard", "read"));
        Tokens { write, read, file: format!("{write_line}\n{read_line}\n") }
    }

    pub fn read(&self) -> &str {
        &self.read
    }

    pub fn files(&self) -> Vec<(String, String)> {
        vec![("admin.tokens".to_owned(), self.file.clone())]
    }
}

/// A gateway with the write API, and its tokens.
pub struct Api {
    pub gateway: Gateway,
    pub tokens: Tokens,
}

/// A request: method, path behind `/api/v1`, header fields, and body.
pub type Request<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

impl Api {
    fn start() -> Self {
        Self::start_with(CONFIG)
    }

    fn start_with(config: &str) -> Self {
        let tokens = Tokens::new();
        let gateway = Gateway::start_with_files(config, &tokens.files());
        Api { gateway, tokens }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.gateway.admin()).unwrap()
    }

    /// Sends a request with a token, as JSON unless a field says something else.
    pub fn ask_as(&self, token: &str, (method, path, fields, body): Request<'_>) -> Response {
        let authorization = format!("Bearer {token}");
        let mut all = vec![("Host", "localhost"), ("Authorization", authorization.as_str())];
        if !body.is_empty() && !fields.iter().any(|(name, _)| *name == "Content-Type") {
            all.push(("Content-Type", "application/json"));
        }
        all.extend(fields);
        self.connect().request(method, &format!("/api/v1{path}"), &all, body.as_bytes()).unwrap()
    }

    pub fn ask(&self, request: Request<'_>) -> Response {
        self.ask_as(&self.tokens.write, request)
    }

    pub fn get(&self, path: &str) -> Value {
        let response = self.ask(("GET", path, &[], ""));
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        json_of(&response)
    }

    fn file(&self) -> String {
        fs::read_to_string(self.gateway.config_path()).unwrap()
    }

    fn generation(&self) -> u64 {
        self.get("/services")["generation"].as_u64().unwrap()
    }
}

pub fn json_of(response: &Response) -> Value {
    serde_json::from_str(response.text()).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}

pub fn code(response: &Response) -> String {
    json_of(response)["error"]["code"].as_str().unwrap_or("-").to_owned()
}

#[test]
fn objects_are_read_as_the_file_has_them() {
    let api = Api::start();
    assert_eq!(
        api.get("/cors_policies/public"),
        json!({"allow_origins": "*", "allow_methods": ["GET"], "max_age": 60})
    );
    assert_eq!(api.get("/origin_sets/partners"), json!(["https://a.example"]));
    assert_eq!(api.get("/services/shop/routes/orders"), json!({"name": "orders", "paths": ["/orders/*"]}));
    // A route without a name has its first path as name.
    assert_eq!(api.get("/services/shop/routes/%2Fhealth"), json!({"paths": ["/health"], "cors": false}));
    let names = |path: &str| {
        let list = api.get(path);
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/services/shop/routes"), ["orders", "/health"]);
    assert_eq!(names("/services"), ["shop"]);
    assert_eq!(names("/upstreams"), ["api"]);
    let response = api.ask(("GET", "/cors_policies/public", &[], ""));
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let list = api.get("/cors_policies");
    assert_eq!(response.header("ETag"), list["items"][0]["etag"].as_str());
    // A token that may only read can read.
    assert_eq!(api.ask_as(&api.tokens.read, ("GET", "/upstreams/api", &[], "")).status, 200);
}

#[test]
fn a_change_is_in_force_and_in_the_file_and_comments_stay() {
    let api = Api::start();
    let before = api.file();
    let patch = [("Content-Type", "application/merge-patch+json")];
    let response = api.ask(("PATCH", "/cors_policies/public", &patch, "{\"max_age\": 7200}"));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(api.file(), before.replace("max_age: 60", "max_age: 7200"));
    let result = json_of(&response);
    assert_eq!((&result["applied"], &result["generation"]), (&json!(true), &json!(2)));
    assert_eq!(result["object"]["max_age"], 7200);
    assert_eq!(result["changes"]["counts"]["changed"], 1);
    assert_eq!(result["changes"]["groups"][0]["changes"][0]["what"], "max_age");
    // The next preflight has the new value.
    let preflight = [("Host", "x"), ("Origin", "https://b.example"), ("Access-Control-Request-Method", "GET")];
    let response = fetch(api.gateway.address(), "OPTIONS", "/orders/1", &preflight);
    assert_eq!(response.header("Access-Control-Max-Age"), Some("7200"));
    // As YAML, with a comment of its own, which is not kept.
    let yaml = [("Content-Type", "application/yaml")];
    let response =
        api.ask(("PUT", "/cors_policies/apps", &yaml, "# apps\nallow_origins: [https://app.example]\nmax_age: 5\n"));
    assert_eq!(response.status, 201, "{}", response.text());
    let text =
        before.replace("max_age: 60", "max_age: 7200\n  apps: { allow_origins: [https://app.example], max_age: 5 }");
    assert_eq!(api.file(), text);
    assert_eq!(api.ask(("DELETE", "/cors_policies/apps", &[], "")).status, 200);
    assert_eq!(api.file(), before.replace("max_age: 60", "max_age: 7200"));
    // The same state again changes nothing.
    let response = api.ask(("PATCH", "/cors_policies/public", &patch, "{\"max_age\": 7200}"));
    assert_eq!((response.status, json_of(&response)["generation"].as_u64()), (200, Some(4)));
    // SIGHUP finds the same configuration.
    api.gateway.signal(crate::support::gateway::Signal::Hup);
    api.gateway.wait_for_log("reloaded generation=5");
    assert_eq!(api.get("/cors_policies/public")["max_age"], 7200);
}

#[test]
fn a_dry_run_changes_nothing() {
    let api = Api::start();
    let before = api.file();
    let response = api.ask(("PUT", "/origin_sets/new?dry_run=true", &[], "[\"https://x.example\"]"));
    let result = json_of(&response);
    assert_eq!((response.status, &result["applied"], &result["generation"]), (200, &json!(false), &json!(1)));
    assert_ne!(result["sha256"]["from"], result["sha256"]["to"]);
    assert_eq!((api.file(), api.generation()), (before, 1));
    let response = api.ask(("PUT", "/origin_sets/new?dry_run=true", &[], "[\"https://x.example/\"]"));
    assert_eq!((response.status, code(&response).as_str()), (422, "invalid"));
}

/// Request, status, code, and a part of the body.
const REFUSED: &[(Request<'_>, u16, &str, &str)] = &[
    (("GET", "/cors_policies/none", &[], ""), 404, "not_found", "there is no cors_policies/none"),
    (("DELETE", "/services/shop/routes/none", &[], ""), 404, "not_found", ""),
    (("PATCH", "/origin_sets/none", &[], "[]"), 404, "not_found", ""),
    (("PUT", "/services/none/routes/a", &[], "{\"paths\":[\"/a\"]}"), 404, "not_found", ""),
    (("GET", "/services/none/routes", &[], ""), 404, "not_found", ""),
    (("GET", "/listeners", &[], ""), 404, "not_found", "SECTION is services"),
    (("PUT", "/services", &[], "[]"), 405, "method_not_allowed", "GET, HEAD"),
    (("POST", "/services/shop", &[], "{}"), 405, "method_not_allowed", "PATCH"),
    (("OPTIONS", "/services/shop", &[], ""), 405, "method_not_allowed", ""),
    (("GET", "/services?dryrun=true", &[], ""), 400, "bad_query", ""),
    (("GET", "/services?token=x", &[], ""), 400, "token_in_url", "revoke"),
    (("PUT", "/services/shop", &[("If-Match", "x")], "{}"), 400, "bad_precondition", ""),
    (
        ("PUT", "/services/shop", &[("Content-Type", "text/plain")], "{}"),
        415,
        "unsupported_media_type",
        "application/json",
    ),
    (("PUT", "/cors_policies/public", &[("If-Match", "\"0\"")], "{}"), 412, "precondition_failed", ""),
    (("PUT", "/cors_policies/public", &[("If-None-Match", "*")], "{}"), 412, "precondition_failed", ""),
    (("DELETE", "/cors_policies/public", &[("If-Match", "\"0\"")], ""), 412, "precondition_failed", ""),
    (("PATCH", "/cors_policies/none", &[("If-Match", "*")], "{}"), 412, "precondition_failed", ""),
    (("DELETE", "/cors_policies/public", &[], ""), 409, "in_use", "services[0].cors"),
    (("DELETE", "/upstreams/api", &[], ""), 409, "in_use", "services[0].upstream"),
    (("DELETE", "/services/shop", &[], ""), 422, "invalid", "empty-list"),
    (("PUT", "/services/shop", &[], "{\"name\":\"other\"}"), 422, "name_differs", "other"),
    (("PUT", "/cors_policies/public", &[], "{\"allow_origins\":\"*\",\"colour\":1}"), 422, "invalid", "unknown-key"),
    (
        ("PUT", "/cors_policies/public", &[], "{\"allow_origins\":[\"https://a.example/\"]}"),
        422,
        "invalid",
        "allow_origins[0]",
    ),
    (("PUT", "/cors_policies/public", &[], "{\"max_age\":\"x\"}"), 422, "invalid", "wrong-value"),
    (("PUT", "/cors_policies/a%2Fb", &[], "{\"allow_origins\":\"*\"}"), 422, "invalid", "bad-name"),
    (("PUT", "/cors_policies/a%3A%20b", &[], "{\"allow_origins\":\"*\"}"), 422, "invalid", "bad-name"),
    (("PUT", "/cors_policies/public", &[], "5"), 422, "invalid", "wrong-value"),
    (("PUT", "/services/shop", &[], "[]"), 422, "invalid", "wrong-value"),
    (("PUT", "/origin_sets/partners", &[], "{}"), 422, "invalid", "wrong-value"),
    (("PUT", "/cors_policies/public", &[], "{\"a\":"), 400, "bad_syntax", "syntax"),
    (
        ("PUT", "/cors_policies/public", &[], "{\"allow_origins\":\"*\",\"allow_origins\":\"*\"}"),
        400,
        "bad_syntax",
        "key-twice",
    ),
    (("PUT", "/cors_policies/public", &[], "a: &a [1]\nb: *a\n"), 400, "bad_syntax", "aliases"),
    (("PUT", "/cors_policies/public", &[], "!!binary aaaa"), 400, "bad_syntax", "tags"),
    (("PUT", "/cors_policies/public", &[], "a: 1\n---\nb: 2\n"), 400, "bad_syntax", ""),
    (
        (
            "PUT",
            "/upstreams/api",
            &[],
            "{\"nodes\":[{\"address\":\"127.0.0.1:9\"}],\"tls\":{\"cert\":\"a\",\"key\":\"[redacted]\"}}",
        ),
        422,
        "invalid",
        "tls.key",
    ),
];

#[test]
fn what_is_refused_has_a_code_and_changes_nothing() {
    let api = Api::start();
    let before = api.file();
    for (request, status, expected, part) in REFUSED {
        let response = api.ask(*request);
        assert_eq!(
            (response.status, code(&response).as_str()),
            (*status, *expected),
            "{request:?}: {}",
            response.text()
        );
        assert!(response.text().contains(part), "{request:?}: {}", response.text());
    }
    assert_eq!((api.file(), api.generation()), (before, 1));
}

#[test]
fn hostile_bodies_take_little_and_change_nothing() {
    let api = Api::start();
    let before = api.file();
    let bomb = {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (of, name) in "abcdefghi".chars().zip("bcdefghij".chars()) {
            let aliases = vec![format!("*{of}"); 9].join(",");
            text.extend([&format!("{name}: &{name} ["), &*aliases, "]\n"]);
        }
        text
    };
    let many = format!("{{{}\"a\":1}}", (0..80_000).map(|n| format!("\"k{n}\":1,")).collect::<String>());
    for (body, status) in [
        ("[".repeat(900_000), 400),
        ("{\"a\":".repeat(150_000), 400),
        ("- ".repeat(500_000), 400),
        (format!("{}{}", "[".repeat(30), "]".repeat(30)), 422),
        (format!("{{\"allow_origins\":{}{}}}", "[".repeat(30), "]".repeat(30)), 422),
        (format!("{}{}", "[".repeat(127), "]".repeat(127)), 400),
        (format!("{}{}", "[".repeat(500), "]".repeat(500)), 400),
        (bomb, 400),
        (many, 422),
        ("\u{0}".to_owned(), 400),
        ("x".repeat((1 << 20) + 1), 413),
        ("\"\u{202e}\u{2028}\u{85}\"".to_owned(), 422),
        ("{\"allow_origins\": \"*\", \"allow_origins_by_regex\": [\"(((((a{9}){9}){9}){9}){9}){9}\"]}".to_owned(), 422),
    ] {
        let begin = Instant::now();
        let yaml = [("Content-Type", "application/yaml")];
        let response = api.ask(("PUT", "/cors_policies/public", &yaml, &body));
        let start: String = body.chars().take(40).collect();
        assert_eq!(response.status, status, "{start}: {}", response.text());
        assert!(response.text().len() < 1 << 20, "{start}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{start}: {:?}", begin.elapsed());
    }
    let bytes = [("Content-Length", "104857600")];
    let authorization = format!("Bearer {}", api.tokens.write);
    let fields =
        [("Host", "localhost"), ("Authorization", &authorization), ("Content-Type", "application/json"), bytes[0]];
    let head = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
    // The client sends only the header, so the response comes before the body.
    let mut connection = api.connect();
    connection.send(format!("PUT /api/v1/origin_sets/a HTTP/1.1\r\n{head}\r\n").as_bytes()).unwrap();
    assert_eq!(connection.read("PUT").unwrap().status, 413);
    // Without a length.
    let mut connection = api.connect();
    let head = head.replace("Content-Length: 104857600", "Transfer-Encoding: chunked");
    connection.send(format!("PUT /api/v1/origin_sets/a HTTP/1.1\r\n{head}\r\n").as_bytes()).unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    while connection.send(chunk.as_bytes()).is_ok() && !connection.is_readable() {}
    assert_eq!(connection.read("PUT").unwrap().status, 413);
    assert_eq!((api.file(), api.generation()), (before, 1));
    assert!(api.gateway.memory() < 400 << 10, "{} KiB", api.gateway.memory());
}

#[test]
fn a_slow_body_ends_with_408_and_blocks_nobody() {
    let api = Api::start();
    let mut slow = api.connect();
    let head = format!(
        "PUT /api/v1/origin_sets/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n[",
        api.tokens.write
    );
    slow.send(head.as_bytes()).unwrap();
    assert_eq!(api.ask(("PUT", "/origin_sets/b", &[], "[\"https://b.example\"]")).status, 201);
    let response = slow.read("PUT").unwrap();
    assert_eq!((response.status, code(&response).as_str()), (408, "body_timeout"));
}

#[test]
fn only_tokens_are_accepted_and_failures_are_limited() {
    let api = Api::start();
    let put = |token: &str| api.ask_as(token, ("PUT", "/origin_sets/a", &[], "[\"https://a.example\"]"));
    let response = put(&api.tokens.read);
    assert_eq!((response.status, code(&response).as_str()), (403, "read_only_token"));
    let hash = api.tokens.file.split("sha256:").nth(1).unwrap().lines().next().unwrap().to_owned();
    let mut changed = api.tokens.write.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'E' } else { 'A' });
    for wrong in ["", "ci", &hash, &format!("sha256:{hash}"), &changed, &format!("{0}{0}", api.tokens.write)] {
        let response = put(wrong);
        assert_eq!((response.status, code(&response).as_str()), (401, "unauthorized"), "{wrong}");
        assert_eq!(response.header("WWW-Authenticate"), Some("Bearer realm=\"corsgate\""));
    }
    let several = [("Authorization", "Bearer x")];
    assert_eq!(api.ask(("GET", "/services", &several, "")).status, 401);
    let basic = fetch(
        api.gateway.admin(),
        "GET",
        "/api/v1/services",
        &[("Host", "localhost"), ("Authorization", "Basic eDp5")],
    );
    assert_eq!(basic.status, 401);
    let bare = || fetch(api.gateway.admin(), "GET", "/api/v1/services", &[("Host", "localhost")]);
    let limited = (0..30).map(|_| bare()).find(|response| response.status == 429).expect("a limit");
    assert_eq!(code(&limited), "too_many_failures");
    assert!(limited.header("Retry-After").unwrap().parse::<u64>().unwrap() <= 7);
    // Another program of the same machine cannot lock an operator out.
    assert_eq!(put(&api.tokens.write).status, 201);
    // No token is in the log.
    let log = api.gateway.stderr();
    for secret in [&api.tokens.write, &api.tokens.read, &hash, &changed] {
        assert!(!log.contains(secret.as_str()), "{log}");
    }
}

#[test]
fn each_change_and_each_failure_has_a_line_in_the_log() {
    let api = Api::start();
    let hash = |text: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let from = hash(&api.file());
    api.ask(("PUT", "/origin_sets/a", &[], "[\"https://a.example\"]"));
    let to = hash(&api.file());
    api.gateway.wait_for_log(&format!(
        "api put \"origin_sets/a\" token=ci client=127.0.0.1 result=applied from={from} to={to} generation=2"
    ));
    api.ask(("DELETE", "/origin_sets/a?dry_run=true", &[], ""));
    api.gateway.wait_for_log(&format!(
        "api delete \"origin_sets/a\" token=ci client=127.0.0.1 dry_run=true result=accepted from={to} to={from} generation=2"
    ));
    api.ask(("PATCH", "/origin_sets/a%0a%22", &[], "[]"));
    api.ask(("PUT", "/origin_sets/a", &[], "[1"));
    api.gateway.wait_for_log("api put \"origin_sets/a\" token=ci client=127.0.0.1 result=refused code=bad_syntax");
    api.ask_as(&api.tokens.read, ("DELETE", "/origin_sets/a", &[], ""));
    api.gateway.wait_for_log(
        "api delete \"origin_sets/a\" token=dashboard client=127.0.0.1 result=refused code=read_only_token",
    );
    api.ask_as("x", ("DELETE", "/origin_sets/a", &[], ""));
    api.gateway.wait_for_log("api delete \"origin_sets/a\" client=127.0.0.1 result=refused code=unauthorized");
}

#[test]
fn a_file_that_somebody_has_edited_is_not_overwritten() {
    let api = Api::start();
    let edited = api.file().replace("max_age: 60", "max_age: 61");
    fs::write(api.gateway.config_path(), &edited).unwrap();
    let put = || api.ask(("PUT", "/origin_sets/a", &[], "[\"https://a.example\"]"));
    let response = put();
    assert_eq!((response.status, code(&response).as_str()), (409, "source_changed"));
    assert!(response.text().contains("kill -HUP"));
    assert_eq!(api.file(), edited);
    api.gateway.signal(crate::support::gateway::Signal::Hup);
    api.gateway.wait_for_log("reloaded generation=2");
    assert_eq!(put().status, 201);
    assert_eq!(
        api.file(),
        edited.replace("partners: [https://a.example]\n", "partners: [https://a.example]\n  a: [https://a.example]\n")
    );
}

#[test]
fn a_file_that_cannot_be_written_gives_an_error_that_says_so() {
    let api = Api::start();
    let path = api.gateway.config_path();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let put = |query: &str| api.ask(("PUT", &format!("/origin_sets/a{query}"), &[], "[\"https://a.example\"]"));
    mode(0o444);
    for query in ["", "?dry_run=true"] {
        let response = put(query);
        assert_eq!((response.status, code(&response).as_str()), (409, "source_read_only"), "{query}");
        assert!(response.text().contains("corsgate.yaml cannot be written"), "{}", response.text());
    }
    mode(0o640);
    assert_eq!(put("").status, 201);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "the mode is kept");
}

/// Also the expectations must hold, and files that the text names must be readable.
#[test]
fn a_change_that_the_whole_file_does_not_accept_is_refused() {
    let expect =
        "expect:\n  - { page: https://b.example, url: http://shop.example/orders/1, result: allowed }\nservices:";
    let api = Api::start_with(&CONFIG.replace("services:", expect));
    let before = api.file();
    let response = api.ask(("PATCH", "/cors_policies/public", &[], "{\"allow_origins\":[\"https://a.example\"]}"));
    assert_eq!((response.status, code(&response).as_str()), (422, "invalid"), "{}", response.text());
    let problem = &json_of(&response)["error"]["problems"][0];
    assert_eq!((&problem["in"], &problem["path"]), (&json!("configuration"), &json!("expect[0].result")));
    let tls = "{\"nodes\":[{\"address\":\"a.example:443\"}],\"tls\":{\"ca\":\"none.pem\"}}";
    let response = api.ask(("PUT", "/upstreams/b", &[], tls));
    assert_eq!((response.status, json_of(&response)["error"]["problems"][0]["path"].as_str()), (422, Some("tls.ca")));
    assert_eq!((api.file(), api.generation()), (before, 1));
}

#[test]
fn concurrent_writers_lose_no_change() {
    let api = Api::start();
    thread::scope(|scope| {
        for writer in 0..4 {
            let api = &api;
            scope.spawn(move || {
                for n in 0..5 {
                    let (path, body) =
                        (format!("/origin_sets/w{writer}-{n}"), format!("[\"https://w{writer}-{n}.example\"]"));
                    let response = api.ask(("PUT", &path, &[("If-None-Match", "*")], &body));
                    assert_eq!(response.status, 201, "{path}: {}", response.text());
                }
            });
        }
    });
    assert_eq!(api.get("/origin_sets")["items"].as_array().unwrap().len(), 21);
    assert_eq!(api.generation(), 21);
    // Of several writers with the same version, one wins.
    let etag = api.ask(("GET", "/origin_sets/partners", &[], "")).header("ETag").unwrap().to_owned();
    let statuses = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|n| {
                let (api, etag) = (&api, &etag);
                scope.spawn(move || {
                    let body = format!("[\"https://n{n}.example\"]");
                    api.ask(("PUT", "/origin_sets/partners", &[("If-Match", etag)], &body)).status
                })
            })
            .collect();
        let mut statuses: Vec<u16> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        statuses.sort_unstable();
        statuses
    });
    assert_eq!(statuses, [200, 412, 412, 412]);
}

/// A reader never sees a part of the file, also while the process is killed.
#[test]
fn the_file_is_never_half_written() {
    let mut api = Api::start();
    let path = api.gateway.config_path();
    let names: Vec<String> = (0..300).map(|n| format!("\"https://n{n}.example\"")).collect();
    let body = format!("[{}]", names.join(","));
    let pid = api.gateway.pid();
    let written = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (api, written) = (&api, &written);
        let writer = scope.spawn(move || {
            let authorization = format!("Bearer {}", api.tokens.write);
            let json = ("Content-Type", "application/json");
            let fields = [("Host", "localhost"), ("Authorization", authorization.as_str()), json];
            // Two objects are created, then deleted, until the process is killed.
            for n in 0.. {
                let path = format!("/api/v1/origin_sets/big{}", n % 2);
                let (method, sent) = if n % 4 < 2 { ("PUT", body.as_bytes()) } else { ("DELETE", &b""[..]) };
                let response = Connection::open(api.gateway.admin())
                    .and_then(|mut connection| connection.request(method, &path, &fields, sent));
                match response {
                    Ok(response) => assert!([200, 201].contains(&response.status), "{}", response.text()),
                    Err(_) => return,
                }
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let whole = |text: &str| text.starts_with("# The shop.") && text.ends_with("# The end.\n");
        let deadline = Instant::now() + Duration::from_secs(60);
        while written.load(Ordering::Relaxed) < 20 {
            let text = fs::read_to_string(&path).unwrap();
            assert!(whole(&text), "{}", &text[..text.len().min(200)]);
            assert!(Instant::now() < deadline && !writer.is_finished(), "the writer does not write");
            thread::sleep(Duration::from_micros(200));
        }
        let status = std::process::Command::new("sh").arg("-c").arg(format!("kill -s KILL {pid}")).status().unwrap();
        assert!(status.success());
        writer.join().unwrap();
        assert!(whole(&fs::read_to_string(&path).unwrap()));
    });
    assert!(!api.gateway.exit().success());
    let output = run_in(api.gateway.dir(), &["check", "--config", "corsgate.yaml"]);
    assert_eq!(output.code, 0, "{}", output.stdout);
}

#[test]
fn foreign_pages_and_hosts_are_refused_before_the_token_is_read() {
    let api = Api::start();
    let authorization = format!("Bearer {}", api.tokens.write);
    let foreign: [&[(&str, &str)]; 5] = [
        &[("Host", "evil.test")],
        &[("Host", "localhost"), ("Origin", "https://evil.test")],
        &[("Host", "localhost"), ("Origin", "null")],
        &[("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")],
        &[("Host", "localhost"), ("Sec-Fetch-Site", "same-site")],
    ];
    for fields in foreign {
        let mut fields = fields.to_vec();
        fields.extend([("Authorization", authorization.as_str()), ("Content-Type", "application/json")]);
        let response =
            api.connect().request("PUT", "/api/v1/origin_sets/a", &fields, b"[\"https://a.example\"]").unwrap();
        assert_eq!((response.status, code(&response).as_str()), (403, "foreign_page"), "{fields:?}");
        assert!(response.all("Access-Control-Allow-Origin").is_empty());
    }
    assert_eq!(api.generation(), 1);
}

#[test]
fn without_the_key_there_is_no_api_and_a_reload_adds_it_with_new_tokens() {
    let tokens = Tokens::new();
    let gateway = Gateway::start_with_files(&CONFIG.replace("  write: admin.tokens\n", ""), &tokens.files());
    let api = Api { gateway, tokens };
    let response = api.ask(("GET", "/services", &[], ""));
    assert_eq!((response.status, code(&response).as_str()), (404, "not_enabled"));
    api.gateway.reload_with(CONFIG);
    api.gateway.wait_for_log("reloaded generation=2");
    assert_eq!(api.ask(("GET", "/services", &[], "")).status, 200);
    // A revoked token.
    let only_read = api.tokens.file.lines().nth(1).unwrap().to_owned() + "\n";
    api.gateway.replace("admin.tokens", &only_read);
    api.gateway.signal(crate::support::gateway::Signal::Hup);
    api.gateway.wait_for_log("reloaded generation=3");
    assert_eq!(api.ask(("GET", "/services", &[], "")).status, 401);
    assert_eq!(api.ask_as(&api.tokens.read, ("GET", "/services", &[], "")).status, 200);
}

/// Check refuses a listener that other machines can reach; a reload cannot get around it, because the address needs a
/// restart.
#[test]
fn the_api_is_on_loopback_unless_the_danger_is_accepted() {
    let tokens = Tokens::new();
    let local = CONFIG.replace("{admin}", "127.0.0.1:9180");
    let everywhere = local.replace("127.0.0.1:9180", "0.0.0.0:9180");
    let output = check(&everywhere, &tokens.files());
    assert!(output.code == 1 && output.stdout.contains("dangerously_allow_remote_write: true"), "{}", output.stdout);
    let accepted = everywhere.replace("  write:", "  dangerously_allow_remote_write: true\n  write:");
    assert_eq!(check(&accepted, &tokens.files()).code, 0);
    for address in ["127.0.0.1:9180", "[::1]:9180"] {
        assert_eq!(check(&local.replace("127.0.0.1:9180", address), &tokens.files()).code, 0, "{address}");
    }
    // The process starts on every address, without the API. The reload adds the API and names a loopback address.
    let port = crate::support::gateway::free_port();
    let open = CONFIG.replace("{admin}", &format!("0.0.0.0:{port}")).replace("  write: admin.tokens\n", "");
    let gateway = Gateway::start_with_files(&open, &tokens.files());
    gateway.reload_with(&CONFIG.replace("{admin}", &format!("127.0.0.1:{port}")));
    gateway.wait_for_log("reloaded generation=2");
    let authorization = format!("Bearer {}", tokens.write);
    let fields = [("Host", "localhost"), ("Authorization", authorization.as_str())];
    let response = fetch(([127, 0, 0, 1], port).into(), "GET", "/api/v1/services", &fields);
    assert_eq!((response.status, code(&response).as_str()), (403, "remote_write"));
}

#[test]
fn the_command_makes_a_token_and_adds_its_line_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let token = |arguments: &[&str]| run_in(folder.path(), &[&["token"], arguments].concat());
    let first = token(&["--name", "ci", "--role", "write", "--file", "t"]);
    assert!(first.code == 0 && first.stdout.starts_with("corsgate_") && first.stdout.lines().count() == 1, "{first:?}");
    let second = token(&["--name", "ops", "--role", "read", "--file", "t"]);
    assert_ne!(first.stdout, second.stdout);
    let file = fs::read_to_string(folder.path().join("t")).unwrap();
    assert!(
        file.starts_with("ci write sha256:") && file.lines().nth(1).unwrap().starts_with("ops read sha256:"),
        "{file}"
    );
    assert!(!file.contains(first.stdout.trim()));
    let again = token(&["--name", "ci", "--role", "read", "--file", "t"]);
    assert!(again.code == 1 && again.stderr.contains("another line has the same name"), "{again:?}");
    assert_eq!(fs::read_to_string(folder.path().join("t")).unwrap(), file);
    assert_eq!(token(&["--name", "a b", "--role", "read"]).code, 1);
    assert_eq!(token(&["--name", "a", "--role", "admin"]).code, 2);
    let shown = token(&["--name", "a", "--role", "read"]);
    assert!(
        shown.stdout.starts_with("token  corsgate_") && shown.stdout.contains("\nline   a read sha256:"),
        "{shown:?}"
    );
}

#[test]
fn the_description_is_valid_openapi_and_has_every_code() {
    use roas::v3_1::spec::Spec;
    use roas::validation::{Options, Validate};

    let api = Api::start();
    // Without a token: it is the same for everybody.
    let response = fetch(api.gateway.admin(), "GET", "/api/v1/openapi.json", &[("Host", "localhost")]);
    assert_eq!(response.status, 200);
    let description = json_of(&response);
    let spec: Spec = serde_json::from_value(description.clone()).unwrap();
    let valid = spec.validate(Options::IgnoreUnusedSchemas.into(), None);
    assert!(valid.is_ok(), "{:#?}", valid.err());
    // The schemas accept what the API accepts.
    let schema = |name: &str| {
        let mut schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        schema["components"] = description["components"].clone();
        jsonschema::validator_for(&schema).unwrap()
    };
    assert!(schema("Settings").is_valid(&api.get("/cors_policies/public")));
    assert!(!schema("Settings").is_valid(&json!({"colour": 1})));
    assert!(schema("Service").is_valid(&api.get("/services/shop")));
    assert!(schema("NamedOrigins").is_valid(&api.get("/origin_sets/partners")));
    assert!(schema("Upstream").is_valid(&api.get("/upstreams/api")));
    assert!(schema("List").is_valid(&api.get("/services")));
    let result = json_of(&api.ask(("PUT", "/origin_sets/a", &[], "[\"https://a.example\"]")));
    assert!(schema("Result").is_valid(&result), "{result:#}");
    for (request, _, code, _) in REFUSED {
        let error = json_of(&api.ask(*request));
        assert!(schema("Error").is_valid(&error), "{error:#}");
        assert!(description.to_string().contains(code), "{code}");
    }
    // Every path of the description exists.
    for path in description["paths"].as_object().unwrap().keys() {
        let path = path.replace("{name}", "x").replace("{service}", "shop").replace("{route}", "orders");
        let response = api.ask(("GET", path.strip_prefix("/api/v1").unwrap(), &[], ""));
        assert!(!response.text().contains("no such path"), "{path}");
    }
}

/// Runs the commands of docs/api.md one after the other. `BLESS=1` writes the responses and the table of errors.
#[test]
fn the_page_about_the_api_shows_what_the_commands_print() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let document = fs::read_to_string(&page).unwrap();
    let blocks = docs::blocks(&page);
    let token = tempfile::tempdir().unwrap();
    let made = |command: &str| {
        let words = docs::shell_words(command);
        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let output = run_in(token.path(), &words);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
        output.stdout.trim().to_owned()
    };
    let command = blocks.iter().find(|block| block.text.starts_with("corsgate token")).unwrap();
    let secret = made(&command.text);
    let tokens = fs::read_to_string(token.path().join("admin.tokens")).unwrap();
    let config = blocks[0].text.replace("0.0.0.0:9080", "\"{listen}\"").replace("127.0.0.1:9180", "\"{admin}\"");
    let gateway = Gateway::start_with_files(&config, &[("admin.tokens".to_owned(), tokens)]);
    let mut written = document.clone();
    let mut ran = 0;
    for (i, block) in blocks.iter().enumerate().filter(|(_, block)| block.text.starts_with("curl ")) {
        let command =
            block.text.replace("\"Authorization: Bearer $TOKEN\"", &format!("'Authorization: Bearer {secret}'"));
        let words = docs::shell_words(command.trim());
        let [_, _, method, url, fields @ ..] = &words[..] else { panic!("{command}") };
        let mut all = vec![("Host", "127.0.0.1:9180")];
        let mut body = "";
        for pair in fields.chunks(2) {
            match &*pair[0] {
                "-H" => all.push(pair[1].split_once(": ").unwrap()),
                "-d" => body = &pair[1],
                other => panic!("{other}"),
            }
        }
        let path = url.strip_prefix("http://127.0.0.1:9180").unwrap();
        let response = Connection::open(gateway.admin()).unwrap().request(method, path, &all, body.as_bytes()).unwrap();
        // Hashes depend on the ports of the test.
        let printed = without_hashes(response.text());
        let shown = format!("```json\n{}```\n", blocks[i + 1].text);
        written = written.replacen(&shown, &format!("```json\n{printed}```\n"), 1);
        ran += 1;
    }
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    let part = blocks.iter().find(|block| block.language == "yaml-part").unwrap();
    assert!(text.contains(&part.text), "{text}");
    // The table of errors.
    let description = json_of(&fetch(gateway.admin(), "GET", "/api/v1/openapi.json", &[("Host", "localhost")]));
    let codes = &description["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"];
    let rows: String = (codes["description"].as_str().unwrap().lines())
        .map(|line| {
            let (code, rest) = line.trim_start_matches("- ").split_once(" (").unwrap();
            let (status, meaning) = rest.split_once("): ").unwrap();
            format!("| {status} | {code} | {meaning} |\n")
        })
        .collect();
    let (front, rest) = written.split_once("| status | code | meaning |\n|---|---|---|\n").unwrap();
    let (_, back) = rest.split_once("## Security").unwrap();
    let written = format!("{front}| status | code | meaning |\n|---|---|---|\n{rows}\n## Security{back}");
    assert!(ran >= 2, "{ran}");
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::write(&page, written).unwrap();
    } else {
        assert_eq!(written, document);
    }
}

/// Replaces the hashes of a response by `…`.
fn without_hashes(text: &str) -> String {
    let hash = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    text.split('"').map(|word| if hash(word) { "…" } else { word }).collect::<Vec<_>>().join("\"")
}

/// Sends a request as a script for APISIX does.
fn ask_apisix(api: &Api, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let fields = [("Host", "localhost"), ("X-API-KEY", api.tokens.write.as_str())];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = api.connect().request(method, &format!("/apisix/admin/{path}"), &fields, body.as_bytes()).unwrap();
    (response.status, json_of(&response))
}

/// The steps of APISIX's documentation: an upstream, a service with the plugin `cors`, and routes of the service.
#[test]
fn services_with_routes_can_be_written_in_the_shape_of_apisix() {
    let api = Api::start();
    let ask = |method: &str, path: &str, body: &Value| ask_apisix(&api, method, path, body);
    let before = api.file();
    let origin_of = |path: &str, origin: &str| {
        let fields = [("Host", "shop.example"), ("Origin", origin)];
        let response = fetch(api.gateway.address(), "GET", path, &fields);
        (response.status, response.header("Access-Control-Allow-Origin").map(str::to_owned))
    };
    let allowed = |status: u16, origin: &str| (status, Some(origin.to_owned()));
    let upstream = json!({ "type": "roundrobin", "nodes": { "127.0.0.1:9": 1 } });
    assert_eq!(ask("PUT", "upstreams/1", &upstream).0, 201);
    let cors = |origin: &str| json!({ "cors": { "allow_origins": origin, "max_age": 5 } });
    let service = |origin: &str| json!({ "name": "shop", "hosts": ["shop.example"], "upstream_id": "1", "plugins": cors(origin) });
    let (status, made) = ask("PUT", "services/1", &service("https://a.example"));
    assert_eq!((status, &made["key"]), (201, &json!("/apisix/services/1")), "{made:#}");
    // Without a route it serves nothing, and its policy is that of its 404.
    assert_eq!(origin_of("/orders/1", "https://a.example").0, 404);
    let (status, route) = ask("PUT", "routes/1", &json!({ "uri": "/orders/*", "service_id": 1 }));
    assert_eq!((status, &route["value"]["service_id"]), (201, &json!("1")), "{route:#}");
    let own = json!({ "uri": "/open", "service_id": "1", "plugins": cors("https://b.example") });
    assert_eq!(ask("PUT", "routes/open", &own).0, 201);
    // There is no upstream behind it, and the response has the policy.
    assert_eq!(origin_of("/orders/1", "https://a.example"), allowed(502, "https://a.example"));
    assert_eq!(origin_of("/open", "https://b.example"), allowed(502, "https://b.example"));
    assert_eq!(origin_of("/open", "https://a.example"), (502, None));
    // Changes of the service keep its routes; what was read can be sent back.
    assert_eq!(ask("PUT", "services/1", &service("https://c.example")).0, 200);
    assert_eq!(origin_of("/orders/1", "https://c.example"), allowed(502, "https://c.example"));
    for path in ["services/1", "routes/1", "routes/open", "upstreams/1"] {
        let read = ask("GET", path, &Value::Null);
        assert_eq!(read.0, 200, "{path}");
        assert_eq!(ask("PUT", path, &read.1["value"]), read, "{path}");
    }
    let keys = |kind: &str| {
        let (_, list) = ask("GET", kind, &Value::Null);
        let keys = list["list"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys("services"), ["/apisix/services/1"]);
    assert_eq!(keys("routes"), ["/apisix/routes/1", "/apisix/routes/open"]);
    for (method, path, body, status, part) in [
        ("PUT", "routes/2", json!({ "uri": "/a", "service_id": "9" }), 400, "there is no service 9"),
        ("PUT", "routes/2", json!({ "uri": "/a", "service_id": "shop" }), 400, "use /api/v1/services/shop"),
        (
            "PUT",
            "routes/2",
            json!({ "uri": "/a", "service_id": "1", "host": "b.example" }),
            400,
            "hosts are those of the service",
        ),
        ("PUT", "routes/1", json!({ "uri": "/a", "upstream_id": "1" }), 400, "delete it first"),
        ("PUT", "routes/apisix-service", json!({ "uri": "/a", "service_id": "1" }), 400, "use another id"),
        ("PUT", "services/2", json!({ "hosts": ["b.example"] }), 400, "missing field `upstream`"),
        ("PUT", "services/2", json!({ "upstream_id": "1", "enable_websocket": true }), 400, "`enable_websocket`"),
        ("PUT", "services/2", json!({ "upstream_id": "1", "plugins": { "key-auth": {} } }), 400, "`plugins.key-auth`"),
        ("PUT", "services/2", json!({ "upstream_id": "9" }), 400, "upstream"),
        ("DELETE", "services/1", Value::Null, 409, "delete the route first"),
        ("DELETE", "services/9", Value::Null, 404, ""),
        ("DELETE", "upstreams/1", Value::Null, 409, ""),
    ] {
        let (found, error) = ask(method, path, &body);
        let message = error["error_msg"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(part), "{method} {path}: {found} {error}");
    }
    for path in ["routes/1", "routes/open", "services/1", "upstreams/1"] {
        assert_eq!(ask("DELETE", path, &Value::Null).0, 200, "{path}");
    }
    assert_eq!(api.file(), before);
}

#[test]
fn routes_and_upstreams_can_be_written_in_the_shape_of_apisix() {
    let api = Api::start();
    let ask = |method: &str, path: &str, body: &Value| ask_apisix(&api, method, path, body);
    let before = api.file();
    let upstream = json!({ "type": "roundrobin", "nodes": { "127.0.0.1:9": 1 } });
    let (status, made) = ask("PUT", "upstreams/u1", &upstream);
    assert_eq!(
        (status, &made["key"], &made["value"]["nodes"]),
        (201, &json!("/apisix/upstreams/u1"), &upstream["nodes"])
    );
    let route = |origin: &str| {
        json!({
            "uri": "/shop/*", "host": "shop.example", "upstream_id": "u1",
            "plugins": { "cors": { "allow_origins": origin, "allow_methods": "GET", "max_age": 5 } },
        })
    };
    let (status, made) = ask("PUT", "routes/1", &route("https://a.example,https://b.example"));
    assert_eq!((status, &made["key"]), (201, &json!("/apisix/routes/1")), "{made:#}");
    let preflight =
        [("Host", "shop.example"), ("Origin", "https://b.example"), ("Access-Control-Request-Method", "GET")];
    let allowed = || {
        let response = fetch(api.gateway.address(), "OPTIONS", "/shop/1", &preflight);
        response.header("Access-Control-Allow-Origin").map(str::to_owned)
    };
    assert_eq!(allowed().as_deref(), Some("https://b.example"));
    assert_eq!(ask("GET", "routes/1", &Value::Null), (200, made.clone()));
    assert_eq!(ask("PUT", "routes/1", &made["value"]), (200, made.clone()), "what was read can be sent back");
    assert_eq!(ask("PUT", "routes/1", &route("https://a.example,https://c.example")).0, 200);
    assert_eq!(allowed(), None);
    let (_, list) = ask("GET", "routes", &Value::Null);
    assert_eq!((&list["total"], &list["list"][0]["key"]), (&json!(1), &json!("/apisix/routes/1")));
    // What cannot be translated, or was not made here, is refused.
    let with_auth = json!({ "uri": "/a", "upstream": upstream, "plugins": { "key-auth": {} } });
    for (method, path, body, part) in [
        ("PUT", "routes/2", &with_auth, "`plugins.key-auth`"),
        ("PUT", "routes/2", &json!({ "uri": "/a" }), "`upstream`"),
        ("PUT", "routes/2", &json!({ "uri": "/a", "upstream_id": "none" }), "upstream"),
        ("PUT", "routes/shop", &route("https://a.example"), "use /api/v1/services/shop"),
        ("GET", "routes/shop", &Value::Null, "use /api/v1/services/shop"),
        ("DELETE", "routes/shop", &Value::Null, "use /api/v1/services/shop"),
        ("PUT", "services/1", &json!({ "upstream_id": "u1" }), "services/1 is a route"),
        ("PUT", "services/shop", &json!({ "upstream_id": "u1" }), "use /api/v1/services/shop"),
        ("PUT", "consumers/1", &json!({}), "only routes, services and upstreams"),
        ("PUT", "routes/a%2Fb", &json!({}), "wrong id"),
    ] {
        let (status, error) = ask(method, path, body);
        assert!(
            status == 400 && error["error_msg"].as_str().unwrap().contains(part),
            "{method} {path}: {status} {error}"
        );
    }
    assert_eq!(ask("GET", "routes/9", &Value::Null).0, 404);
    assert_eq!(ask("DELETE", "upstreams/u1", &Value::Null).0, 409, "the route uses it");
    assert_eq!(ask("DELETE", "routes/1", &Value::Null), (200, json!({ "key": "/apisix/routes/1", "deleted": "1" })));
    assert_eq!(ask("DELETE", "upstreams/u1", &Value::Null).0, 200);
    assert_eq!(api.file(), before);
    assert_eq!(ask("GET", "routes?api_key=x", &Value::Null).0, 400, "no token in a URL");
    let wrong = [("Host", "localhost"), ("X-API-KEY", "edd1c9f034335f136f87ad84b625c8f1")];
    assert_eq!(fetch(api.gateway.admin(), "GET", "/apisix/admin/routes", &wrong).status, 401);
}

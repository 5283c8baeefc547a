//! Tests of `corsgate diff`, which compares two configurations by the responses that requests get.
//!
//! Each file `tests/diff/*.txt` has the old configuration, a line `----`, the new configuration, another line `----`,
//! and the exact output. After a change of a message, `BLESS=1 cargo test --test it -- diff` rewrites the outputs.
//! Review the new outputs as a user.
//!
//! [`no_widening_is_unreported`] generates pairs of configurations, and looks for requests that only the new
//! configuration allows. It has its own copy of the browser's rules. Each found request must be in the report.
//! [`a_search_finds_seeded_faults`] checks that the search can find an error in the comparison: the test hides a part
//! of the new configuration from the comparison, and the search must find a request that is not in the report.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use corsgate::cors::{OriginPattern, witness};
use corsgate::decide::{Action, ConnectionFacts, Framing, Request, RouteRef};
use corsgate::diff::{Difference, Side};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::explain::{Exchange, Head};
use corsgate::snapshot::{CompileEnv, Snapshot, load};
use corsgate::terminal::{Paint, Width};
use fastrand::Rng;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use serde_json::Value;

use crate::support::gateway::{Gateway, run_in};

const DIVIDER: &str = "----\n";

fn snapshot(text: &str) -> Snapshot {
    let loaded = load(text, CompileEnv::NONE);
    loaded.snapshot.unwrap_or_else(|| panic!("{}\n{text}", loaded.problems))
}

fn difference(old: &Snapshot, new: &Snapshot) -> Difference {
    Difference::of(Side { name: "old.yaml", snapshot: old }, Side { name: "new.yaml", snapshot: new })
}

// === the table ===

#[test]
fn diff_prints_what_changes_for_requests() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut failures = String::new();
    let files = files();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let parts: Vec<&str> = text.splitn(3, DIVIDER).collect();
        let [old, new, ref shown @ ..] = parts[..] else { panic!("{}: no second configuration", file.display()) };
        let (before, after) = (snapshot(old), snapshot(new));
        let difference = difference(&before, &after);
        let printed = difference.text(Paint::Plain, Width::DEFAULT);
        check_witnesses(&difference, file);
        if bless {
            fs::write(file, [old, new, &printed].join(DIVIDER)).unwrap();
        } else if printed != shown.concat() {
            let _ = writeln!(failures, "{} prints something else:\n{printed}", file.display());
        }
        // Compares in the other direction too. There, newly allowed requests are newly refused.
        let back = self::difference(&after, &before);
        assert_eq!(back.is_empty(), difference.is_empty(), "{}", file.display());
        check_witnesses(&back, file);
        for one in [&before, &after] {
            assert!(self::difference(one, one).is_empty(), "{}: a configuration differs from itself", file.display());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(files.len() >= 15, "only {} pairs", files.len());
}

/// Checks that each newly allowed or newly refused item has a witness that shows the effect.
fn check_witnesses(difference: &Difference, file: &Path) {
    let json: Value = serde_json::from_str(&difference.json()).unwrap();
    for change in json["groups"].as_array().unwrap().iter().flat_map(|group| group["changes"].as_array().unwrap()) {
        for item in change["items"].as_array().unwrap() {
            let (old, new) = (&item["witness"]["old"]["allowed"], &item["witness"]["new"]["allowed"]);
            let shows = match change["effect"].as_str().unwrap() {
                "newly_allowed" => old == false && new == true,
                "newly_refused" => old == true && new == false,
                _ => true,
            };
            assert!(shows, "{}: {change:#}", file.display());
        }
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diff");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

// === the command line ===

const SMALL: &str = "\
listeners: [{ address: '{listen}' }]
admin: { address: '{admin}' }
services:
  - name: api
    hosts: [api.example]
    upstream: { nodes: [{ address: 127.0.0.1:8000 }] }
    cors: { allow_origins: [https://app.example], allow_methods: [PUT], max_age: 600 }
";

#[test]
fn the_exit_code_says_whether_something_differs() {
    let folder = tempfile::tempdir().unwrap();
    let small = SMALL.replace("{listen}", "127.0.0.1:9080").replace("{admin}", "127.0.0.1:9180");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("same.yaml", &format!("# another text\n{small}"));
    write("old.yaml", &small);
    write("wider.yaml", &small.replace("[PUT]", "[PUT, DELETE]"));
    write("narrower.yaml", &small.replace("[PUT]", "[]"));
    write("broken.yaml", &small.replace("https://app.example", "app.example"));
    let run = |arguments: &[&str]| run_in(folder.path(), &[&["diff"], arguments].concat());
    for (arguments, code, says) in [
        (&["old.yaml", "same.yaml"][..], 0, "no request gets another response"),
        (&["old.yaml", "wider.yaml"], 1, "newly allowed   method           DELETE"),
        (&["old.yaml", "narrower.yaml"], 1, "newly refused   method           PUT"),
        (&["--fail-on", "wider", "old.yaml", "wider.yaml"], 1, "newly allowed"),
        (&["--fail-on", "wider", "old.yaml", "narrower.yaml"], 0, "newly refused"),
        (&["--format", "json", "old.yaml", "wider.yaml"], 1, "\"wider\": true"),
    ] {
        let output = run(arguments);
        assert_eq!(output.code, code, "{arguments:?}\n{}{}", output.stdout, output.stderr);
        assert!(output.stdout.contains(says), "{arguments:?}\n{}", output.stdout);
    }
    for (arguments, says) in [
        (&["old.yaml", "broken.yaml"][..], "broken.yaml:7:"),
        (&["old.yaml", "missing.yaml"], "cannot read missing.yaml"),
        (&["old.yaml"], "name two files, or one file and `--admin URL`"),
        (&["--admin", "http://127.0.0.1:1", "old.yaml"], "cannot ask http://127.0.0.1:1"),
        (&["--admin", "http://127.0.0.1:1", "old.yaml", "same.yaml"], "name one file"),
    ] {
        let output = run(arguments);
        assert_eq!(output.code, 2, "{arguments:?}\n{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains(says), "{arguments:?}\n{}", output.stderr);
        assert!(output.stdout.is_empty(), "{arguments:?}\n{}", output.stdout);
    }
}

#[test]
fn a_running_process_is_compared_with_a_file() {
    let gateway = Gateway::start(SMALL);
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("same.yaml"), &text).unwrap();
    fs::write(folder.path().join("new.yaml"), text.replace("https://app.example", "https://new.example")).unwrap();
    let admin = format!("http://{}", gateway.admin());
    let run = |file: &str| run_in(folder.path(), &["diff", "--admin", &admin, file]);
    let same = run("same.yaml");
    assert_eq!((same.code, same.stderr.as_str()), (0, ""), "{}", same.stdout);
    let new = run("new.yaml");
    assert_eq!(new.code, 1, "{}{}", new.stdout, new.stderr);
    assert!(new.stdout.contains("newly allowed   origin           https://new.example"), "{}", new.stdout);
    assert!(
        new.stdout.ends_with(&format!("{admin} -> new.yaml: 1 newly allowed, 1 newly refused\n")),
        "{}",
        new.stdout
    );
}

/// Compares configurations of 10,000 routes. Half of the routes have their own policy.
#[test]
fn large_configurations_are_compared_in_seconds() {
    let text = |added: &str| {
        let mut text = "\
listeners: [{ address: 127.0.0.1:9080 }]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
cors_policies: { shared: { allow_origins: ['https://*.app.example'], max_age: 600 } }
services:
"
        .to_owned();
        for service in 0..100 {
            let _ =
                writeln!(text, "  - name: s{service}\n    hosts: [s{service}.example]\n    upstream: api\n    routes:");
            for route in 0..100 {
                let cors = match route % 2 {
                    0 => "shared".to_owned(),
                    _ => format!("{{ allow_origins: ['https://*.t{service}-{route}.example'{added}], max_age: 600 }}"),
                };
                let _ = writeln!(text, "      - {{ paths: ['/r{route}/{{id}}/*'], cors: {cors} }}");
            }
        }
        text
    };
    let (old, new) = (snapshot(&text("")), snapshot(&text(", 'https://added.example'")));
    let start = Instant::now();
    let difference = difference(&old, &new);
    let took = start.elapsed();
    assert!(difference.is_wider());
    let printed = difference.text(Paint::Plain, Width::DEFAULT);
    assert!(printed.contains("https://added.example"), "{printed}");
    assert_eq!(printed.matches("newly allowed").count(), 2, "one line for all places, and the summary\n{printed}");
    println!("10,000 routes against 10,000 routes: {took:?}");
    assert!(took.as_secs() < 60, "{took:?}");
}

// === the search for a widening that is not reported ===

#[test]
fn no_widening_is_unreported() {
    let mut found = Search::default();
    for seed in 0.. {
        found.pair(seed, |new, _| new.clone());
        if found.pairs == 1_000 {
            break;
        }
    }
    let Search { pairs, wider, unknown, widenings, unreported } = &found;
    println!("{pairs} pairs, {wider} wider, {unknown} unknown, {widenings} widenings, {} unreported", unreported.len());
    assert!(unreported.is_empty(), "{}", unreported.join("\n\n"));
    assert!(*widenings > 3_000 && *wider > 500, "{found:?}");
    // A report with too many unknown differences is useless, even if it is complete.
    assert!(unknown * 50 < *pairs, "{found:?}");
}

/// Each fault hides a part of the new configuration from the comparison. The effect is the same as an error in the
/// comparison.
#[test]
fn a_search_finds_seeded_faults() {
    type Hide = fn(&Config, &Config) -> Config;
    let faults: [(&str, Hide); 4] = [
        ("ignores regular expressions", |new, _| {
            new.with_policies(|policy, _| policy.origins.retain(|origin| !origin.contains('\\')))
        }),
        ("ignores credentials", |new, old| {
            new.with_policies(|policy, i| policy.credentials = old.policies.get(i).is_some_and(|old| old.credentials))
        }),
        ("ignores request headers", |new, old| {
            new.with_policies(|policy, i| {
                policy.headers = old.policies.get(i).map_or("[]".into(), |old| old.headers.clone());
            })
        }),
        ("compares only the first service", |new, old| {
            let services = new.services.iter().take(1).chain(old.services.iter().skip(1)).cloned().collect();
            Config { services, ..new.clone() }
        }),
    ];
    for (fault, hide) in faults {
        let mut found = Search::default();
        for seed in 0..1_000 {
            found.pair(seed, hide);
            if !found.unreported.is_empty() {
                break;
            }
        }
        println!("{fault}: found in pair {}", found.pairs);
        assert!(!found.unreported.is_empty(), "the search does not notice a comparison that {fault}");
    }
}

#[derive(Debug, Default)]
struct Search {
    /// Number of pairs with two valid configurations.
    pairs: usize,
    /// Number of pairs with a difference that is reported as wider.
    wider: usize,
    /// Number of pairs with a difference that is unknown.
    unknown: usize,
    /// Number of requests that only the new configuration allows.
    widenings: usize,
    /// Descriptions of the newly allowed requests that are not in the report.
    unreported: Vec<String>,
}

impl Search {
    /// Generates a pair of configurations, and looks for newly allowed requests that are not reported. `hide` changes
    /// the new configuration for the comparison only.
    fn pair(&mut self, seed: u64, hide: impl Fn(&Config, &Config) -> Config) {
        let mut random = Rng::with_seed(seed);
        let old = Config::random(&mut random);
        let new = old.mutated(&mut random);
        let read = |config: &Config| load(&config.text(), CompileEnv::NONE).snapshot;
        let (Some(before), Some(after), Some(seen)) = (read(&old), read(&new), read(&hide(&new, &old))) else { return };
        self.pairs += 1;
        let difference = difference(&before, &seen);
        let report: Value = serde_json::from_str(&difference.json()).unwrap();
        self.wider += usize::from(difference.is_wider());
        self.unknown += usize::from(difference.json().contains("\"unknown\""));
        let report = Report::new(&report, &before, &after);
        let pages = Page::some(&old, &new, &mut random);
        for page in pages {
            let [was, is] = [&before, &after].map(|snapshot| page.result(snapshot));
            let wider = is.reads && !was.reads || is.arrives && !was.arrives;
            self.widenings += usize::from(wider);
            if wider && !report.has(&page, is.reads && !was.reads) {
                self.unreported.push(format!(
                    "seed {seed}: {page:?}\n{}\n{}\n{}",
                    old.text(),
                    new.text(),
                    difference.text(Paint::Plain, Width::DEFAULT)
                ));
                return;
            }
        }
    }
}

/// The parts of a configuration. A test can change each part.
#[derive(Debug, Clone)]
struct Config {
    policies: Vec<PolicyText>,
    default: usize,
    services: Vec<ServiceText>,
}

#[derive(Debug, Clone)]
struct PolicyText {
    origins: Vec<String>,
    methods: String,
    headers: String,
    expose: Option<&'static str>,
    credentials: bool,
    replace: bool,
    reject: bool,
    cross_site: &'static str,
    max_age: u32,
    refused_status: u16,
}

#[derive(Debug, Clone)]
struct ServiceText {
    hosts: Vec<&'static str>,
    /// Number of the policy, or [`OFF`]. None if the service has no `cors` key.
    cors: Option<usize>,
    routes: Vec<RouteText>,
}

#[derive(Debug, Clone)]
struct RouteText {
    path: &'static str,
    methods: Vec<&'static str>,
    cors: Option<usize>,
}

const POLICIES: usize = 3;
/// Policy number that stands for `cors: false`.
const OFF: usize = POLICIES;

const ORIGINS: [&str; 24] = [
    "https://app.example",
    "https://b.example",
    "https://x.app.example",
    "http://localhost:3000",
    "https://app.example:8443",
    "tauri://app",
    "https://*.app.example",
    "https://*.example",
    "https://*.x.app.example",
    "https://*.app.example:*",
    "http://localhost:*",
    "https://*",
    "https://pr-{digits}.app.example",
    "https://pr-{hex}.app.example",
    "https://{label}.app.example",
    "https://{label}-{digits}.app.example",
    "https://*.{label}.app.example",
    "https://{label}.app.example:*",
    "null",
    r"https://[a-z]+\.app\.example",
    r"https://(app|b)\.example",
    r"https://pr-[0-9]+\.app\.example",
    r"http://localhost(:[0-9]{1,4})?",
    r"https://[a-z.]*\.app\.example(:\d+)?",
];
const HOSTS: [&str; 5] = ["api.example", "www.example", "*.example", "*.api.example", "other.test"];
const PATHS: [&str; 9] = ["/*", "/a", "/a/*", "/a/{id}", "/a/b", "/{x}/b", "/{x}/b/*", "/a/b/c", "/c/"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PURGE"];

impl Config {
    fn random(random: &mut Rng) -> Self {
        let services = (0..random.usize(1..4)).map(|_| ServiceText::random(random)).collect();
        let policies = (0..POLICIES).map(|_| PolicyText::random(random)).collect();
        Config { policies, default: random.usize(0..=OFF), services }
    }

    /// Returns a copy with one to three changes.
    fn mutated(&self, random: &mut Rng) -> Self {
        let mut new = self.clone();
        for _ in 0..random.usize(1..4) {
            let service = random.usize(0..new.services.len());
            match random.usize(0..12) {
                0..6 => {
                    let policy = random.usize(0..POLICIES);
                    new.policies[policy].mutate(random);
                }
                6 => new.default = random.usize(0..=OFF),
                7 => new.services[service].cors = choice(random),
                8 => new.services[service].hosts = hosts(random),
                9 => new.services.push(ServiceText::random(random)),
                10 => new.services[service].routes.push(RouteText::random(random)),
                _ => {
                    let routes = &mut new.services[service].routes;
                    let route = random.usize(0..routes.len());
                    routes[route] = RouteText::random(random);
                }
            }
        }
        new
    }

    fn with_policies(&self, change: impl Fn(&mut PolicyText, usize)) -> Self {
        let mut new = self.clone();
        new.policies.iter_mut().enumerate().for_each(|(i, policy)| change(policy, i));
        new
    }

    fn text(&self) -> String {
        let mut text = "\
listeners: [{ address: 127.0.0.1:9080 }]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
cors_policies:
"
        .to_owned();
        let cors = |number: usize| if number == OFF { "false".to_owned() } else { format!("p{number}") };
        for (i, policy) in self.policies.iter().enumerate() {
            let _ = writeln!(text, "  p{i}: {}", policy.text());
        }
        let _ = writeln!(text, "cors: {}\nservices:", cors(self.default));
        for (i, service) in self.services.iter().enumerate() {
            let _ = writeln!(text, "  - name: s{i}\n    upstream: api");
            if !service.hosts.is_empty() {
                let _ = writeln!(text, "    hosts: ['{}']", service.hosts.join("', '"));
            }
            if let Some(number) = service.cors {
                let _ = writeln!(text, "    cors: {}", cors(number));
            }
            let _ = writeln!(text, "    routes:");
            for (j, route) in service.routes.iter().enumerate() {
                let methods = match route.methods.is_empty() {
                    true => String::new(),
                    false => format!(", methods: [{}]", route.methods.join(", ")),
                };
                let own = route.cors.map(|number| format!(", cors: {}", cors(number))).unwrap_or_default();
                let _ = writeln!(text, "      - {{ name: r{j}, paths: ['{}']{methods}{own} }}", route.path);
            }
        }
        text
    }
}

fn choice(random: &mut Rng) -> Option<usize> {
    random.bool().then(|| random.usize(0..=OFF))
}

fn some<T: Copy>(all: &[T], most: usize, random: &mut Rng) -> Vec<T> {
    let count = random.usize(0..=most);
    random.choose_multiple(all.iter().copied(), count)
}

fn hosts(random: &mut Rng) -> Vec<&'static str> {
    some(&HOSTS, 2, random)
}

impl ServiceText {
    fn random(random: &mut Rng) -> Self {
        let routes = (0..random.usize(1..4)).map(|_| RouteText::random(random)).collect();
        ServiceText { hosts: hosts(random), cors: choice(random), routes }
    }
}

impl RouteText {
    fn random(random: &mut Rng) -> Self {
        let methods = if random.u8(0..3) == 0 { some(&METHODS, 2, random) } else { Vec::new() };
        RouteText { path: PATHS[random.usize(0..PATHS.len())], methods, cors: choice(random) }
    }
}

impl PolicyText {
    fn random(random: &mut Rng) -> Self {
        let mut policy = PolicyText {
            origins: Vec::new(),
            methods: String::new(),
            headers: String::new(),
            expose: None,
            credentials: false,
            replace: false,
            reject: false,
            cross_site: "forward",
            max_age: 600,
            refused_status: 200,
        };
        (0..10).for_each(|part| policy.change(part, random));
        policy
    }

    fn mutate(&mut self, random: &mut Rng) {
        // Origins change most often, because they are the most important part.
        match random.usize(0..3) {
            0 => {
                let new = ORIGINS[random.usize(0..ORIGINS.len())].to_owned();
                match self.origins.iter().position(|origin| *origin == new) {
                    Some(known) if self.origins.len() > 1 => drop(self.origins.remove(known)),
                    Some(_) => {}
                    None => self.origins.push(new),
                }
            }
            _ => self.change(random.usize(0..10), random),
        }
    }

    fn change(&mut self, part: usize, random: &mut Rng) {
        let list = |names: Vec<&str>| format!("[{}]", names.join(", "));
        match part {
            0 => {
                self.origins = match random.u8(0..12) {
                    0 => vec!["*".to_owned()],
                    _ => some(&ORIGINS, 3, random).into_iter().map(str::to_owned).collect(),
                };
                if self.origins.is_empty() {
                    self.origins.push("https://app.example".to_owned());
                }
            }
            1 => {
                self.methods = match random.u8(0..4) {
                    0 => "'*'".to_owned(),
                    _ => list(some(&["PUT", "DELETE", "PURGE"], 2, random)),
                }
            }
            2 => {
                self.headers = match random.u8(0..5) {
                    0 => "'*'".to_owned(),
                    1 => "['*', Authorization]".to_owned(),
                    _ => list(some(&["Content-Type", "X-A", "Authorization"], 2, random)),
                }
            }
            3 => self.expose = random.choose_multiple([None, Some("[X-Total]"), Some("[X-Total, X-B]")], 1)[0],
            4 => self.credentials = random.bool(),
            5 => self.replace = random.bool(),
            6 => self.reject = random.bool(),
            7 => self.max_age = random.u32(0..3) * 100,
            8 => self.cross_site = if random.bool() { "reject" } else { "forward" },
            _ => self.refused_status = random.choose_multiple([200, 204, 403], 1)[0],
        }
    }

    fn text(&self) -> String {
        let (regexes, origins): (Vec<&String>, Vec<&String>) = self.origins.iter().partition(|o| o.contains('\\'));
        let quoted = |list: &[&String]| list.iter().map(|entry| format!("'{entry}'")).collect::<Vec<_>>().join(", ");
        let mut keys = Vec::new();
        if !origins.is_empty() || regexes.is_empty() {
            // A policy without entries gets an origin that no page has.
            let list = if origins.is_empty() { "https://nobody.test".to_owned() } else { quoted(&origins) };
            keys.push(format!("allow_origins: [{list}]"));
        }
        if !regexes.is_empty() {
            keys.push(format!("allow_origins_by_regex: [{}]", quoted(&regexes)));
        }
        keys.push(format!("allow_methods: {}, allow_headers: {}", self.methods, self.headers));
        keys.extend(self.expose.map(|names| format!("expose_headers: {names}")));
        keys.push(format!("allow_credentials: {}, max_age: {}", self.credentials, self.max_age));
        keys.push(format!("upstream_headers: {}", if self.replace { "replace" } else { "override" }));
        keys.push(format!("disallowed_origins: {}", if self.reject { "reject" } else { "forward" }));
        keys.push(format!("cross_site: {}", self.cross_site));
        keys.push(format!("preflight: {{ refused_status: {} }}", self.refused_status));
        let dangers = "null_origin, any_origin_with_credentials, insecure_origins, public_suffix_subdomains";
        keys.push(format!("dangerously_allow: [{dangers}]"));
        format!("{{ {} }}", keys.join(", "))
    }
}

/// A request of a page.
#[derive(Debug, Clone)]
struct Page {
    host: String,
    path: String,
    method: &'static str,
    origin: String,
    headers: Vec<&'static str>,
    credentials: bool,
    reads: Option<&'static str>,
    /// Whether the upstream's own CORS headers allow everything.
    permissive: bool,
}

#[derive(Debug, Clone, Copy)]
struct PageResult {
    /// Whether the page can read the response, and also the header field in [`Page::reads`].
    reads: bool,
    /// Whether the page can send the request without a preflight, and the gateway does not reject it.
    arrives: bool,
}

impl Page {
    /// Returns random requests. They are similar to requests that the configurations allow.
    fn some(old: &Config, new: &Config, random: &mut Rng) -> Vec<Page> {
        let entries: BTreeSet<&String> =
            old.policies.iter().chain(&new.policies).flat_map(|policy| &policy.origins).collect();
        let mut origins: Vec<String> = [
            "https://foreign.test",
            "https://pr-7.app.example",
            "https://yz.app.example",
            "null",
            "http://app.example",
        ]
        .map(str::to_owned)
        .to_vec();
        for entry in entries {
            if let Ok(OriginPattern::Tuple(pattern)) = OriginPattern::parse(entry) {
                let matching = witness::matching(&pattern);
                (0..4).for_each(|_| origins.extend(matching.iter().cloned()));
                origins.extend(witness::neighbours(&pattern));
            }
        }
        // Hosts and paths of the routes. Some requests below get other hosts and paths.
        let mut urls: Vec<(String, String)> = Vec::new();
        for service in old.services.iter().chain(&new.services) {
            let hosts = if service.hosts.is_empty() { &["unknown.test"] } else { service.hosts.as_slice() };
            for (host, route) in hosts.iter().flat_map(|host| service.routes.iter().map(move |route| (host, route))) {
                let path = route.path.replace("/*", "/z").replace("{x}", "a").replace("{id}", "z");
                urls.push((host.replace("*.", "x."), path));
            }
        }
        let segments = ["a", "b", "c", "z", ""];
        let hosts = ["api.example", "www.example", "x.example", "x.api.example", "other.test", "unknown.test"];
        (0..150)
            .map(|_| {
                let (mut host, mut path) = urls[random.usize(0..urls.len())].clone();
                if random.u8(0..4) == 0 {
                    path = (0..random.usize(1..4)).map(|_| format!("/{}", segments[random.usize(0..5)])).collect();
                }
                if random.u8(0..4) == 0 {
                    hosts[random.usize(0..hosts.len())].clone_into(&mut host);
                }
                Page {
                    host,
                    path,
                    method: METHODS[random.usize(0..METHODS.len())],
                    origin: origins[random.usize(0..origins.len())].clone(),
                    headers: some(&["content-type", "x-a", "authorization", "x-new"], random.usize(0..2), random),
                    credentials: random.bool(),
                    reads: random.choose_multiple([None, None, None, Some("x-total"), Some("x-b"), Some("x-new")], 1)
                        [0],
                    permissive: random.u8(0..4) == 0,
                }
            })
            .collect()
    }

    /// Applies the rules of a browser to the request.
    fn result(&self, snapshot: &Snapshot) -> PageResult {
        let field = |response: &Head, name: &str| {
            response.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let passes = |response: &Head| match field(response, "access-control-allow-origin").as_deref() {
            Some("*") => !self.credentials,
            Some(origin) if origin == self.origin => {
                !self.credentials || field(response, "access-control-allow-credentials").as_deref() == Some("true")
            }
            _ => false,
        };
        let lists = |response: &Head, name: &str, entry: &str| {
            let list = field(response, name).unwrap_or_default().to_ascii_lowercase();
            let star = !self.credentials && entry != "authorization";
            list.split(',').map(str::trim).any(|known| known == entry.to_ascii_lowercase() || known == "*" && star)
        };
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let (_, response, arrives) = self.send(snapshot, &method, &[]);
        // The page can read the 403 of a policy that allows every origin, but this is not a response of the route.
        let is_rejected = !arrives && response.status == StatusCode::FORBIDDEN;
        let is_safe = ["GET", "POST"].contains(&self.method);
        // A request with a preflight does not count as arrived.
        let arrives = arrives && is_safe && self.headers.is_empty();
        let preflight = is_safe && self.headers.is_empty() || {
            let names = self.headers.join(",");
            let mut fields = vec![("access-control-request-method", self.method)];
            if !names.is_empty() {
                fields.push(("access-control-request-headers", &names));
            }
            let (_, answer, _) = self.send(snapshot, &Method::OPTIONS, &fields);
            passes(&answer)
                && answer.status.is_success()
                && (is_safe || lists(&answer, "access-control-allow-methods", self.method))
                && self.headers.iter().all(|name| lists(&answer, "access-control-allow-headers", name))
        };
        let readable = self.reads.is_none_or(|name| lists(&response, "access-control-expose-headers", name));
        PageResult { reads: preflight && passes(&response) && readable && !is_rejected, arrives }
    }

    fn send<'s>(
        &self,
        snapshot: &'s Snapshot,
        method: &Method,
        fields: &[(&'static str, &str)],
    ) -> (Option<RouteRef<'s>>, Head, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("origin", self.origin.as_str())].iter().chain(fields).filter(|(_, value)| !value.is_empty())
        {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            method,
            path: self.path.as_bytes(),
            target_length: self.path.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(Scheme::Https, &self.host),
            authority: Some(&self.host),
            headers: &headers,
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        };
        let exchange = Exchange::of(snapshot, &request, &self.path, || {
            let mut head = Head::new(StatusCode::OK);
            if self.permissive {
                for (name, value) in [
                    ("access-control-allow-origin", self.origin.as_str()),
                    ("access-control-allow-credentials", "true"),
                    ("access-control-allow-methods", self.method),
                    ("access-control-allow-headers", &self.headers.join(", ")),
                    ("access-control-expose-headers", self.reads.unwrap_or("x-other")),
                ] {
                    head.append(name, HeaderValue::from_str(value).unwrap());
                }
            }
            head
        });
        let route = match exchange.verdict.action {
            Action::Forward(route) => Some(route),
            _ => None,
        };
        let arrives = !matches!(exchange.verdict.action, Action::Refuse(_));
        (route, exchange.response, arrives)
    }

    /// Returns the route of the request. The request is sent without an Origin, so no policy can refuse it.
    fn route<'s>(&self, snapshot: &'s Snapshot) -> Option<RouteRef<'s>> {
        let plain = Page { origin: String::new(), ..self.clone() };
        plain.send(snapshot, &Method::from_bytes(self.method.as_bytes()).unwrap(), &[]).0
    }
}

/// A report that is searched for newly allowed requests.
struct Report<'a> {
    groups: &'a [Value],
    before: &'a Snapshot,
    after: &'a Snapshot,
}

impl<'a> Report<'a> {
    fn new(report: &'a Value, before: &'a Snapshot, after: &'a Snapshot) -> Self {
        Report { groups: report["groups"].as_array().unwrap(), before, after }
    }

    /// Whether the report says, for the route of this request, why it is newly allowed.
    fn has(&self, page: &Page, reads: bool) -> bool {
        self.groups.iter().any(|group| {
            let mut places = group["places"].as_array().unwrap().iter();
            let mut changes = group["changes"].as_array().unwrap().iter();
            places.any(|place| self.is_at(page, place) && changes.any(|change| explains(change, place, page, reads)))
        })
    }

    /// Whether a request has the same routes as the example of a place.
    fn is_at(&self, page: &Page, place: &Value) -> bool {
        let methods = place["methods"].as_array().unwrap();
        let has_method = place["other_methods"] == true || methods.iter().any(|method| method == page.method);
        let text = |name: &str| place["example"][name].as_str().unwrap().to_owned();
        let example = Page { host: text("host"), path: text("path"), ..page.clone() };
        let same = |snapshot: &Snapshot| example.route(snapshot) == page.route(snapshot);
        has_method && same(self.before) && same(self.after)
    }
}

/// Whether a change explains why the request is newly allowed.
fn explains(change: &Value, place: &Value, page: &Page, reads: bool) -> bool {
    let effect = change["effect"].as_str().unwrap();
    let what = change["what"].as_str().unwrap();
    match effect {
        "newly_allowed" | "unknown" => {}
        // Requests reach a new route without a policy, even if its upstream does not allow them.
        "up_to_upstream" if page.permissive || what == "route" => {}
        _ => return false,
    }
    let is_named = place["methods"].as_array().unwrap().iter().any(|method| method == page.method);
    let mut items = change["items"].as_array().unwrap().iter().map(|item| item["text"].as_str().unwrap());
    match what {
        "route" | "paths" | "policy" => true,
        "origin" => items.any(|entry| covers(entry, &page.origin)),
        "refused_origins" | "cross_site" => !reads,
        "credentials" => page.credentials,
        "method" => items.any(|method| method == page.method || method == "any other method" && !is_named),
        "request_header" => items.any(|name| page.headers.contains(&name) || name == "any other header"),
        "exposed_header" => page.reads.is_some_and(|reads| {
            items.any(|name| name == reads || name == "any other header" || effect == "up_to_upstream")
        }),
        _ => false,
    }
}

/// Whether an origin entry of a policy matches an origin.
fn covers(entry: &str, origin: &str) -> bool {
    match OriginPattern::parse(entry) {
        _ if entry == origin => true,
        Ok(OriginPattern::Any) => true,
        Ok(OriginPattern::Tuple(pattern)) => pattern.matches(origin),
        Ok(OriginPattern::Null) => false,
        Err(_) => regex::Regex::new(&format!("^(?:{entry})$")).unwrap().is_match(origin),
    }
}

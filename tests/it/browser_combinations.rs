//! Random policies and random requests in a real Chromium and a real Firefox. The browser's verdict must be the same as
//! the prediction of `explain` and the intention of the policy. The browser must send the preflights that `explain`
//! predicts, and Chromium's console must name the same fault. Half of the policies have HTTP/2 with TLS.
//!
//! There are four known differences to the standard and to `explain`:
//!
//! - In both browsers, `*` in `Access-Control-Allow-Headers` covers `Authorization`.
//! - Chromium caches no answer to a preflight of an opaque origin.
//! - Firefox caches `*` as a name, so it covers no other method or header. It uses a cached answer for HEAD only if the
//!   answer lists HEAD.
//! - Firefox removes `Authorization` after a redirect to another origin, but still sends a preflight for it.
//!
//! The policies and requests are the same in each run. `COMBINATIONS_SEED=7 cargo test --test it -- combinations`
//! generates other ones.

mod policy;
mod request;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use corsgate::explain::{Configuration, Explanation, Initiator, Outcome, Question, explain};
use corsgate::snapshot::{CompileEnv, Loaded, load};
use fastrand::Rng;

use self::policy::{Policy, configuration};
use self::request::{Page, PageRequest, Responder};
use self::upstream::respond;
use crate::support::certificates::Authority;
use crate::support::chromium::Chromium;
use crate::support::firefox::Firefox;
use crate::support::gateway::{Gateway, Signal};
use crate::support::process::poll;
use crate::support::upstream::{Reply, Upstream};

/// Timeout of all pages. It includes the start of the browser.
const PAGE_TIMEOUT: Duration = Duration::from_secs(180);
/// Maximum time between the end of the pages and the last message of the console.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(10);

const PAGES: [Page; 4] = [Page::Host("app"), Page::Host("b.app"), Page::Host("other"), Page::Sandboxed];
const POLICIES: usize = 30;
/// Number of requests of each page for each policy.
const REQUESTS: usize = 22;

/// A listener for configurations that do not run.
const LISTENER: &str = "{ address: 127.0.0.1:9080 }";

/// The functions of the pages.
const SCRIPT: &str = include_str!("browser_combinations/page.js");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Browser {
    Chromium,
    Firefox,
}

enum RunningBrowser {
    Chromium(Chromium),
    Firefox(Firefox),
}

/// A request of a page to the service of a policy.
#[derive(Debug)]
struct Row {
    policy: usize,
    request: PageRequest,
    url: String,
}

/// The result of a request, in a browser or as `explain` predicts it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    /// A letter of `page.js`.
    letter: char,
    preflights: usize,
}

#[test]
fn chromium_explain_and_the_policy_agree_on_thousands_of_combinations() {
    agree(Browser::Chromium);
}

#[test]
fn firefox_explain_and_the_policy_agree_on_thousands_of_combinations() {
    agree(Browser::Firefox);
}

/// Compares the verdicts of a browser with the predictions and the intentions.
fn agree(browser: Browser) {
    let seed = std::env::var("COMBINATIONS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let random = &mut Rng::with_seed(seed);
    let pages = Pages::start();
    let policies: Vec<Policy> = (0..POLICIES).map(|_| Policy::random(random, pages.port())).collect();
    let upstream = Upstream::start(respond);
    let authority = Authority::new("authority");
    let mut gateway = start_gateway(&policies, &upstream, &authority);
    let rows = PAGES.map(|page| rows(random, page, &gateway));

    let (letters, running) = pages.run(&rows, |url| browser.open(url, &authority));
    let predictions: Vec<Vec<(Verdict, Option<String>)>> =
        rows.iter().map(|rows| rows.iter().map(|row| row.prediction(&policies, pages.port())).collect()).collect();
    if browser == Browser::Chromium {
        let rows = rows.iter().flatten().zip(letters.iter().flat_map(|letters| letters.chars()));
        let refused = rows.zip(predictions.iter().flatten()).filter(|((row, letter), _)| {
            *letter == 'r' && !policies[row.policy].has_star_without_authorization(&row.request)
        });
        let messages = refused.filter_map(|((row, _), (_, console))| Some((&*row.url, console.as_deref()?)));
        check_console(&running, &messages.collect::<Vec<_>>());
    }
    // At the end of the process, the access log is complete.
    drop(running);
    gateway.signal(Signal::Term);
    gateway.exit();
    let log: Vec<serde_json::Value> =
        gateway.access_log().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let preflights = preflights_by_row(&log);
    let arrived: Vec<String> = upstream.received().into_iter().map(|received| received.target).collect();

    let mut comparison = Comparison::new(browser, pages.port());
    for ((rows, letters), predictions) in rows.iter().zip(&letters).zip(&predictions) {
        assert_eq!(letters.len(), rows.len(), "{letters}");
        for ((row, letter), (predicted, _)) in rows.iter().zip(letters.chars()).zip(predictions) {
            // A page cannot detect whether the gateway rejected such a request.
            let is_rejected = row.request.initiator == Initiator::NoCors
                && !arrived.iter().any(|target| row.url.ends_with(target.as_str()));
            let letter = if is_rejected { 'r' } else { letter };
            let seen = Verdict { letter, preflights: preflights.get(row.name()).copied().unwrap_or_default() };
            comparison.add(&policies, row, &seen, predicted);
        }
    }
    comparison.check(seed);
    let over_http_2 = log.iter().filter(|line| line["protocol"] == "HTTP/2").count();
    assert!(over_http_2 > 1000, "{over_http_2} requests over HTTP/2");
}

/// Starts a gateway with a listener with TLS and one without.
fn start_gateway(policies: &[Policy], upstream: &Upstream, authority: &Authority) -> Gateway {
    let listeners = "{ address: '{listen}' }, \
        { address: '{listen2}', tls: { certificates: [{ cert: tls/edge.crt, key: tls/edge.key }] } }";
    let texts: Vec<&str> = policies.iter().map(|policy| &*policy.text).collect();
    let names = (0..POLICIES).map(|policy| format!("p{policy}.localhost")).chain(["moved.localhost".to_owned()]);
    let names: Vec<String> = names.collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Gateway::start_with_files(
        &configuration(&texts, listeners, &upstream.address().to_string()),
        &authority.issue(&names).files("tls/edge"),
    )
}

/// Returns random requests from a page to the service of each policy.
fn rows(random: &mut Rng, page: Page, gateway: &Gateway) -> Vec<Row> {
    let index = PAGES.iter().position(|other| *other == page).unwrap();
    let numbers = (0..POLICIES).flat_map(|policy| (0..REQUESTS).map(move |n| (policy, n)));
    let row = |(policy, n)| {
        let request = PageRequest::random(random, page);
        let base = match policy % 2 == 1 {
            true => format!("https://p{policy}.localhost:{}", gateway.address2().port()),
            false => format!("http://p{policy}.localhost:{}", gateway.address().port()),
        };
        let url = request.url(&base, &format!("{policy}-{index}-{n}"));
        Row { policy, request, url }
    };
    numbers.map(row).collect()
}

// === impl Browser, RunningBrowser ===

impl Browser {
    fn open(self, url: &str, authority: &Authority) -> RunningBrowser {
        match self {
            Browser::Chromium => RunningBrowser::Chromium(Chromium::open(url)),
            Browser::Firefox => RunningBrowser::Firefox(Firefox::open(url, authority)),
        }
    }

    /// Returns true if the browser may send one more preflight than the standard needs, as a known difference.
    fn may_repeat_preflight(self, policy: &Policy, request: &PageRequest) -> bool {
        match self {
            Browser::Chromium => request.page == Page::Sandboxed,
            Browser::Firefox if request.responder == Responder::RedirectAway => request.has_authorization(),
            Browser::Firefox => request.method == "HEAD" || policy.has_star(),
        }
    }
}

impl RunningBrowser {
    fn log(&self) -> String {
        match self {
            RunningBrowser::Chromium(browser) => browser.log(),
            RunningBrowser::Firefox(browser) => browser.log(),
        }
    }
}

// === pages

/// A server of the pages, which send their results to it.
struct Pages {
    server: Upstream,
    texts: Arc<OnceLock<BTreeMap<String, String>>>,
    results: mpsc::Receiver<(String, String)>,
}

impl Pages {
    fn start() -> Self {
        let (send, results) = mpsc::channel();
        let send = Mutex::new(send);
        let texts = Arc::new(OnceLock::<BTreeMap<String, String>>::new());
        let server = Upstream::start({
            let texts = texts.clone();
            move |request| {
                let text = |name: &str| texts.get().and_then(|texts| texts.get(name)).cloned().unwrap_or_default();
                match request.target.split_once('?') {
                    Some(("/done", name)) => {
                        let result = String::from_utf8_lossy(&request.body).into_owned();
                        send.lock().unwrap().send((name.to_owned(), result)).expect("the test waits");
                        Reply::new(204)
                    }
                    Some(("/page", name)) => Reply::new(200).header("Content-Type", "text/html").body(text(name)),
                    _ => Reply::new(404),
                }
            }
        });
        Pages { server, texts, results }
    }

    fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// Opens a browser, which sends the requests of each page. Returns the letters of each page.
    fn run(
        &self,
        rows: &[Vec<Row>; PAGES.len()],
        open: impl FnOnce(&str) -> RunningBrowser,
    ) -> ([String; PAGES.len()], RunningBrowser) {
        let port = self.port();
        let mut texts = BTreeMap::new();
        let mut frames = String::new();
        // All pages are frames of the first page. The sandboxed frame has the host of the first page.
        for (i, (rows, page)) in rows.iter().zip(PAGES).enumerate() {
            let requests: Vec<String> =
                rows.iter().map(|row| format!("() => {}", row.request.script(&row.url))).collect();
            let done = format!(
                "fetch('http://app.localhost:{port}/done?{i}', {{ method: 'POST', mode: 'no-cors', body: result }})"
            );
            let text = format!(
                "<!doctype html><script>{SCRIPT}\nrun([\n{}\n]).then(result => {done});</script>",
                requests.join(",\n")
            );
            texts.insert(i.to_string(), text);
            let (host, sandbox) = match page {
                Page::Host(host) => (host, ""),
                Page::Sandboxed => ("app", " sandbox=\"allow-scripts\""),
            };
            let _ = write!(frames, "<iframe src=\"http://{host}.localhost:{port}/page?{i}\"{sandbox}></iframe>");
        }
        texts.insert("all".to_owned(), format!("<!doctype html>{frames}"));
        self.texts.set(texts).expect("set once");

        let running = open(&format!("http://app.localhost:{port}/page?all"));
        let mut letters = [const { String::new() }; PAGES.len()];
        for _ in PAGES {
            let result = self.results.recv_timeout(PAGE_TIMEOUT);
            let (page, result) =
                result.unwrap_or_else(|error| panic!("the pages do not end: {error}\n{}", running.log()));
            letters[page.parse::<usize>().unwrap()] = result;
        }
        (letters, running)
    }
}

// === predictions

impl Row {
    /// Returns the last segment of the path, also of the path after a redirect.
    fn name(&self) -> &str {
        last_segment(&self.url)
    }

    /// Returns the prediction of `explain`, and its message of the browser's console.
    fn prediction(&self, policies: &[Policy], port: u16) -> (Verdict, Option<String>) {
        self.prediction_for(&self.request, policies, port)
    }

    /// Returns the prediction for another request to the URL of this row.
    fn prediction_for(&self, request: &PageRequest, policies: &[Policy], port: u16) -> (Verdict, Option<String>) {
        // The service has no named policy, so the name of the service identifies the policy.
        let text = configuration(&[&policies[self.policy].text], LISTENER, "127.0.0.1:8000")
            .replace("p0", &format!("p{}", self.policy));
        let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
        let snapshot = snapshot.unwrap_or_else(|| panic!("{problems}"));
        let load = |text: &str| load(text, CompileEnv::NONE);
        let configuration = Configuration::new("corsgate.yaml", &text, &snapshot, &load);
        let question = request.question(&self.url, port);
        let Explanation { outcome, exchanges, console, .. } = explain(&question, &configuration);
        let exposes_total = |question: Question| {
            let question = question.upstream_header("X-Total: 7").unwrap().reads("X-Total").unwrap();
            explain(&question, &configuration).outcome == Outcome::Allowed
        };
        let has_total = request.initiator == Initiator::Fetch && request.responder.has_total();
        let letter = match outcome == Outcome::Allowed {
            false => 'r',
            true if has_total && exposes_total(question) => 't',
            true => 'a',
        };
        let preflights = exchanges.iter().filter(|exchange| exchange.request.starts_with("OPTIONS ")).count();
        (Verdict { letter, preflights }, console)
    }
}

/// Counts the preflights of the access log by the names of their rows.
fn preflights_by_row(log: &[serde_json::Value]) -> BTreeMap<&str, usize> {
    let mut numbers = BTreeMap::new();
    for line in log.iter().filter(|line| line["method"] == "OPTIONS") {
        *numbers.entry(last_segment(line["path"].as_str().unwrap())).or_default() += 1;
    }
    numbers
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

// === comparison

/// The result of all rows.
struct Comparison {
    browser: Browser,
    /// Port of the pages.
    port: u16,
    disagreements: Vec<String>,
    /// Number of rows for each kind of request and each letter.
    counts: BTreeMap<(&'static str, char), usize>,
    /// Rows that the browser allows because `*` covers `Authorization`.
    by_authorization: usize,
    preflights: usize,
    /// Rows in which a cached answer saved a preflight.
    saved: usize,
    /// Rows with a preflight that the standard does not need.
    repeated: usize,
}

impl Comparison {
    fn new(browser: Browser, port: u16) -> Self {
        let (disagreements, counts) = (Vec::new(), BTreeMap::new());
        Comparison { browser, port, disagreements, counts, by_authorization: 0, preflights: 0, saved: 0, repeated: 0 }
    }

    fn add(&mut self, policies: &[Policy], row: &Row, seen: &Verdict, predicted: &Verdict) {
        let Row { request, url, .. } = row;
        let policy = &policies[row.policy];
        for kind in [Some(request.initiator.code()), request.responder.folder()].into_iter().flatten() {
            *self.counts.entry((kind, seen.letter)).or_default() += 1;
        }
        let intended = match request.initiator {
            Initiator::Fetch => policy.intended_letter(request),
            _ => predicted.letter,
        };
        if predicted.letter == 'r' && policy.has_star_without_authorization(request) {
            let (in_browsers, _) = row.prediction_for(&request.without_authorization(), policies, self.port);
            self.by_authorization += usize::from(in_browsers.letter != 'r');
            if (intended, in_browsers.letter) == ('r', seen.letter) {
                return;
            }
        }
        // Number of preflights if nothing is cached. After a redirect to another origin, the request has a second one.
        let uncached = || {
            let alone = |request: &PageRequest| {
                let alone = PageRequest { earlier: None, ..request.clone() };
                row.prediction_for(&alone, policies, self.port).0.preflights
            };
            match request.responder {
                Responder::RedirectAway => 2,
                _ => request.earlier.as_deref().map_or(0, alone) + alone(request),
            }
        };
        let is_repeated = seen.preflights > predicted.preflights
            && self.browser.may_repeat_preflight(policy, request)
            && seen.preflights == uncached();
        let agrees_on_preflights = seen.preflights == predicted.preflights || is_repeated;
        let is_saved = request.earlier.is_some() && seen.letter != 'r' && seen.preflights < uncached();
        if seen.letter != predicted.letter || seen.letter != intended || !agrees_on_preflights {
            self.disagreements.push(format!(
                "{url} {request:?}\n  {}\n  the browser {seen:?}, explain {predicted:?}, intended {intended}",
                policy.text
            ));
        }
        self.preflights += seen.preflights;
        self.saved += usize::from(is_saved);
        self.repeated += usize::from(is_repeated);
    }

    /// # Panics
    ///
    /// If there are disagreements, or too few rows of a kind.
    fn check(&self, seed: u64) {
        let Comparison { counts, by_authorization, preflights, saved, repeated, .. } = self;
        let shown = self.disagreements.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.disagreements.is_empty(), "{} (seed {seed})\n{shown}\n{counts:?}", self.disagreements.len());
        println!("{counts:?}, {by_authorization} differ by Authorization");
        println!("{preflights} preflights, {saved} saved by a cached answer, {repeated} more than the standard needs");
        assert!(*by_authorization < 30 && *preflights > 500 && *saved > 10 && *repeated < 40);
        // Each kind of request is often allowed and often refused. So a constant answer would fail.
        for (kind, least) in [
            ("fetch", 20),
            ("xhr-upload", 20),
            ("image", 20),
            ("module", 20),
            ("font", 20),
            ("eventsource", 20),
            ("failing", 10),
            ("dead", 10),
            ("redirect", 10),
            ("away", 10),
        ] {
            let allowed = ['a', 't'].iter().filter_map(|seen| counts.get(&(kind, *seen))).sum::<usize>();
            let refused = counts.get(&(kind, 'r')).copied().unwrap_or_default();
            assert!(allowed >= least && refused >= least, "{kind}: {counts:?}");
        }
    }
}

// === console

/// Compares the messages of Chromium's console with those of `explain`, each with its URL.
fn check_console(running: &RunningBrowser, messages: &[(&str, &str)]) {
    let expected = messages.iter().filter(|(_, message)| message.contains("CORS policy: "));
    let expected: Vec<(&str, &str)> = expected.copied().collect();
    assert!(expected.len() > 1500, "only {} messages", expected.len());
    let find = |log: &str, url: &str| {
        let of_request = |line: &&str| line.contains(&format!("'{url}'")) && line.contains("CORS policy: ");
        log.lines().find(of_request).map(str::to_owned)
    };
    let complete = || {
        let log = running.log();
        expected.iter().map(|(url, message)| Some((find(&log, url)?, *message))).collect::<Option<Vec<_>>>()
    };
    let found = poll(CONSOLE_TIMEOUT, complete);
    for (message, expected) in found.expect("the console has a message for each refused request") {
        assert!(!fault(&message).is_empty(), "{message}");
        assert_eq!(fault(&message), fault(expected), "{message}\n{expected}");
    }
}

/// Extracts the fault from a message of the console: the failed preflight, and the header or the method.
fn fault(message: &str) -> Vec<String> {
    let message = message.to_ascii_lowercase();
    let message = message.split_once("cors policy: ").map_or("", |(_, fault)| fault);
    let parts = [
        "preflight",
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "wildcard",
        "multiple values",
    ];
    let mut found: Vec<String> =
        parts.iter().filter(|part| message.contains(*part)).map(|part| (*part).into()).collect();
    // The method or the header that is not allowed.
    if let Some((name, _)) = message.split_once(" is not allowed by ") {
        found.push(name.to_owned());
    }
    found
}

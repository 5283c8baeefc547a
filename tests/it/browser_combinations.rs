//! Random policies and random requests in a real Chromium and a real Firefox. The browser's verdict must be the same as
//! the prediction of `explain` and the intention of the policy, and the browser must send the preflights that `explain`
//! predicts. Chromium uses HTTP/2 with TLS for half of the policies.
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

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use base64::Engine as _;
use corsgate::explain::fetch::Credentials;
use corsgate::explain::{Configuration, Explanation, Initiator, Outcome, Question, explain};
use corsgate::snapshot::{CompileEnv, Loaded, load};
use fastrand::Rng;

use crate::support::certificates::Authority;
use crate::support::chromium::Chromium;
use crate::support::firefox::Firefox;
use crate::support::gateway::Gateway;
use crate::support::upstream::{Received, Reply, Upstream};

/// Timeout of all pages. It includes the start of the browser.
const PAGE_TIMEOUT: Duration = Duration::from_secs(180);

/// Names of the pages' hosts, below `localhost`. Chromium resolves them to 127.0.0.1.
const HOSTS: [&str; 3] = ["app", "b.app", "other"];
const POLICIES: usize = 30;
/// Number of requests of each origin for each policy.
const REQUESTS: usize = 22;

/// A listener for configurations that do not run.
const LISTENER: &str = "{ address: 127.0.0.1:9080 }";

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "patch", "put", "QUERY"];
/// Request headers. One is safelisted, and the others need permission.
const HEADERS: [(&str, &str); 6] = [
    ("Accept-Language", "en"),
    ("Content-Type", "text/plain"),
    ("Content-Type", "application/json"),
    ("X-A", "1"),
    ("X-B", "1"),
    ("Authorization", "Bearer 1"),
];

// === policies

/// A random policy. `text` is the value of `cors`, and the other fields describe the intention.
#[derive(Debug)]
struct Policy {
    text: String,
    origins: Vec<Origin>,
    methods: Names,
    headers: Names,
    credentials: bool,
    exposes_total: bool,
    rejects_cross_site: bool,
}

/// An entry of `allow_origins`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    App,
    BelowApp,
    LabelOfOther,
    Null,
    Any,
}

#[derive(Debug)]
enum Names {
    Any,
    Listed(Vec<&'static str>),
}

impl Policy {
    /// Returns a random policy without problems.
    fn random(random: &mut Rng, port: u16) -> Self {
        loop {
            let policy = Self::guess(random, port);
            let text = configuration(&[&policy.text], LISTENER, "127.0.0.1:8000");
            if load(&text, CompileEnv::NONE).snapshot.is_some() {
                return policy;
            }
        }
    }

    fn guess(random: &mut Rng, port: u16) -> Self {
        let mut some = |all: &[Origin]| -> Vec<Origin> { all.iter().copied().filter(|_| random.bool()).collect() };
        let mut origins = some(&[Origin::App, Origin::BelowApp, Origin::LabelOfOther, Origin::Null]);
        if origins.is_empty() || random.u8(..) < 40 {
            origins = vec![Origin::Any];
        }
        let written: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.text(port))).collect();
        let methods = Names::random(random, &["PUT", "DELETE", "PATCH", "patch", "QUERY"]);
        let headers = Names::random(random, &["Content-Type", "X-A", "Authorization"]);
        let (credentials, exposes_total) = (random.bool(), random.bool());
        let rejects_cross_site = random.u8(..) < 60;
        let mut text = format!(
            "{{ allow_origins: [{}], allow_methods: {}, allow_headers: {}",
            written.join(", "),
            methods.text(),
            headers.text()
        );
        for (key, is_set) in [
            ("allow_credentials: true", credentials),
            ("expose_headers: [X-Total]", exposes_total),
            ("dangerously_allow: [null_origin]", origins.contains(&Origin::Null)),
            ("disallowed_origins: reject", random.u8(..) < 60),
            ("cross_site: reject", rejects_cross_site),
            ("cross_origin_resource_policy: same-origin", random.u8(..) < 30),
            ("max_age: 0", random.u8(..) < 60),
        ] {
            if is_set {
                let _ = write!(text, ", {key}");
            }
        }
        Policy { text: text + " }", origins, methods, headers, credentials, exposes_total, rejects_cross_site }
    }

    /// Returns true if the request has `Authorization`, and the policy allows all other headers.
    fn has_star_without_authorization(&self, request: &PageRequest) -> bool {
        let has_star = self.headers.are_any() && !self.credentials;
        has_star && request.headers.iter().any(|(name, _)| *name == "Authorization")
    }

    /// Returns whether the policy allows a request of `fetch()`, by the fields of the policy alone.
    fn intends(&self, request: &PageRequest) -> bool {
        let origin = self.origins.iter().any(|entry| entry.allows(&request.page));
        let credentials = self.credentials || !request.credentials;
        let method = request.method.to_ascii_uppercase();
        // Browsers convert these four methods to upper case.
        let method =
            if ["GET", "HEAD", "POST", "PUT", "DELETE"].contains(&&*method) { &*method } else { request.method };
        let may_use = ["GET", "HEAD", "POST"].contains(&method) || self.methods.have(method, false);
        let headers = request.headers.iter().all(|(name, value)| {
            let is_safelisted = *name == "Accept-Language" || *value == "text/plain";
            // With credentials, the gateway names the requested headers instead of `*`.
            is_safelisted || self.headers.have(name, *name == "Authorization" && !self.credentials)
        });
        // With `cross_site: reject`, `*` allows only reads.
        let is_read = ["GET", "HEAD"].contains(&method) || !self.rejects_cross_site || self.origins != [Origin::Any];
        origin && credentials && may_use && headers && is_read
    }
}

impl Origin {
    fn text(self, port: u16) -> String {
        match self {
            Origin::App => format!("http://app.localhost:{port}"),
            Origin::BelowApp => format!("http://*.app.localhost:{port}"),
            Origin::LabelOfOther => format!("http://o{{label}}.localhost:{port}"),
            Origin::Null => "null".to_owned(),
            Origin::Any => "*".to_owned(),
        }
    }

    fn allows(self, page: &Page) -> bool {
        matches!(
            (self, page),
            (Origin::Any, _)
                | (Origin::App, Page::Host("app"))
                | (Origin::BelowApp, Page::Host("b.app"))
                | (Origin::LabelOfOther, Page::Host("other"))
                | (Origin::Null, Page::Sandboxed)
        )
    }
}

impl Names {
    fn random(random: &mut Rng, all: &[&'static str]) -> Self {
        match random.u8(..) < 70 {
            true => Names::Any,
            false => Names::Listed(all.iter().copied().filter(|_| random.bool()).collect()),
        }
    }

    fn are_any(&self) -> bool {
        matches!(self, Names::Any)
    }

    fn text(&self) -> String {
        match self {
            Names::Any => "\"*\"".to_owned(),
            Names::Listed(names) => format!("[{}]", names.join(", ")),
        }
    }

    /// Returns whether the list has a name. With `needs_entry`, `*` does not cover the name.
    fn have(&self, name: &str, needs_entry: bool) -> bool {
        match self {
            Names::Any => !needs_entry,
            Names::Listed(names) => names.contains(&name),
        }
    }
}

/// Returns a configuration with one service for each policy: `p0.localhost`, `p1.localhost`, … Nothing listens at the node
/// of the paths below `/dead/`.
fn configuration(policies: &[&str], listeners: &str, upstream: &str) -> String {
    let mut text = format!(
        "
listeners: [{listeners}]
access_log: {{ to: access.log }}
upstreams:
  api: {{ nodes: [{{ address: \"{upstream}\" }}] }}
  dead: {{ nodes: [{{ address: 127.0.0.1:1 }}] }}
services:
"
    );
    text.push_str(
        "  - name: moved
    hosts: [moved.localhost]
    upstream: api
    cors: { allow_origins: '*', allow_methods: '*', allow_headers: '*' }\n",
    );
    for (i, policy) in policies.iter().enumerate() {
        let _ = writeln!(
            text,
            "  - name: p{i}
    hosts: [p{i}.localhost]
    upstream: api
    cors: {policy}
    routes: [{{ name: dead, paths: [/dead/*], upstream: dead }}, {{ name: rest, paths: [/*] }}]"
        );
    }
    text
}

// === requests

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    /// A page of this host below `localhost`.
    Host(&'static str),
    /// A sandboxed frame, whose origin is `null`.
    Sandboxed,
}

/// The server that responds to a request, and its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Responder {
    /// The upstream, with a status that initiators expect.
    Upstream,
    /// The upstream, with 500.
    Failing,
    /// The gateway, because the node is dead.
    Gateway,
    /// The upstream, with a redirect to another path.
    Redirect,
    /// The upstream, with a redirect to another host, whose policy allows every origin without credentials.
    RedirectAway,
}

impl Responder {
    /// Returns the first folder of the paths. None if it depends on the request.
    fn folder(self) -> Option<&'static str> {
        match self {
            Responder::Upstream => None,
            Responder::Failing => Some("failing"),
            Responder::Gateway => Some("dead"),
            Responder::Redirect => Some("redirect"),
            Responder::RedirectAway => Some("away"),
        }
    }

    /// Returns whether the page gets the field `X-Total` if the policy exposes it.
    fn has_total(self) -> bool {
        matches!(self, Responder::Upstream | Responder::Failing)
    }
}

#[derive(Debug, Clone)]
struct PageRequest {
    page: Page,
    initiator: Initiator,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    credentials: bool,
    responder: Responder,
    /// A request to the same URL before this one, with the same credentials.
    earlier: Option<Box<PageRequest>>,
}

impl PageRequest {
    fn random(random: &mut Rng, page: Page) -> Self {
        let of_elements = [
            Initiator::Image,
            Initiator::Module,
            Initiator::Font,
            Initiator::EventSource,
            Initiator::WebSocket,
            Initiator::NoCors,
        ];
        let initiator = match random.u8(..) {
            0..120 => Initiator::Fetch,
            120..160 => Initiator::XhrUpload,
            _ => random.choice(of_elements).unwrap(),
        };
        let (mut method, mut headers) = ("GET", Vec::new());
        match initiator {
            Initiator::Fetch => {
                method = random.choice(METHODS).unwrap();
                headers = Self::headers(random);
            }
            // Chromium sends no upload events for a request without a body.
            Initiator::XhrUpload => method = random.choice(["POST", "PUT", "DELETE"]).unwrap(),
            Initiator::NoCors => method = random.choice(["GET", "POST"]).unwrap(),
            _ => {}
        }
        let has_credentials = !matches!(initiator, Initiator::WebSocket | Initiator::NoCors | Initiator::Font);
        let credentials = has_credentials && random.bool();
        let responder = match initiator {
            Initiator::Fetch | Initiator::XhrUpload if random.u8(..) < 80 => {
                let other = [Responder::Failing, Responder::Gateway, Responder::Redirect, Responder::RedirectAway];
                random.choice(other).unwrap()
            }
            _ => Responder::Upstream,
        };
        let request = PageRequest { page, initiator, method, headers, credentials, responder, earlier: None };
        let is_redirected = matches!(responder, Responder::Redirect | Responder::RedirectAway);
        let has_earlier = initiator == Initiator::Fetch && !is_redirected && random.u8(..) < 120;
        let earlier = has_earlier.then(|| {
            let mut earlier = request.clone();
            if random.u8(..) < 100 {
                earlier.method = random.choice(METHODS).unwrap();
            }
            if random.u8(..) < 100 {
                earlier.headers = Self::headers(random);
            }
            // See the known difference.
            earlier.headers.retain(|(name, _)| *name != "Authorization");
            Box::new(earlier)
        });
        PageRequest { earlier, ..request }
    }

    fn headers(random: &mut Rng) -> Vec<(&'static str, &'static str)> {
        let number = random.usize(0..3);
        let mut headers = random.choose_multiple(HEADERS, number);
        if headers.iter().filter(|(name, _)| *name == "Content-Type").count() > 1 {
            headers.pop();
        }
        headers
    }

    /// Returns the URL of the request. Browsers cache the answers to preflights by URL, so each has its own.
    fn url(&self, base: &str, row: &str) -> String {
        let folder = self.responder.folder().unwrap_or(self.initiator.code());
        let base = match self.initiator {
            Initiator::WebSocket => base.replacen("http", "ws", 1),
            _ => base.to_owned(),
        };
        format!("{base}/{folder}/{row}")
    }

    /// Returns the first request to the URL.
    fn first(&self) -> &Self {
        self.earlier.as_deref().unwrap_or(self)
    }

    fn origin(&self, port: u16) -> String {
        match self.page {
            Page::Host(host) => format!("http://{host}.localhost:{port}"),
            Page::Sandboxed => "null".to_owned(),
        }
    }

    /// Returns the JavaScript expression that makes the request. Its promise is fulfilled if the page gets the
    /// response.
    fn script(&self, url: &str) -> String {
        let request = self.script_of_one(url);
        match &self.earlier {
            Some(earlier) => {
                format!("{}.then(result => result == 'r' ? 'r' : {request})", earlier.script_of_one(url))
            }
            None => request,
        }
    }

    fn script_of_one(&self, url: &str) -> String {
        let fields: Vec<String> = self.headers.iter().map(|(name, value)| format!("'{name}': '{value}'")).collect();
        let (method, include) = (self.method, self.credentials);
        let mode = if include { "include" } else { "omit" };
        match self.initiator {
            Initiator::Fetch => {
                format!(
                    "send('{url}', {{ method: '{method}', credentials: '{mode}', headers: {{ {} }} }})",
                    fields.join(", ")
                )
            }
            Initiator::NoCors => format!("send('{url}', {{ method: '{method}', mode: 'no-cors' }})"),
            Initiator::XhrUpload => format!("upload('{url}', '{method}', {include})"),
            Initiator::Image => format!("load('img', '{url}', {include})"),
            Initiator::Module => format!("load('script', '{url}', {include})"),
            Initiator::Font => format!("font('{url}')"),
            Initiator::EventSource => format!("events('{url}', {include})"),
            Initiator::WebSocket => format!("socket('{url}')"),
            Initiator::Navigation => unreachable!("not generated"),
        }
    }

    fn question(&self, url: &str, port: u16) -> Question {
        let mut question = Question::of(self.initiator, &self.origin(port), url).unwrap();
        for request in [self.earlier.as_deref(), Some(self)].into_iter().flatten() {
            if !std::ptr::eq(request, self.first()) {
                question = question.then(url).unwrap();
            }
            if request.method != "GET" {
                question = question.method(request.method).unwrap();
            }
            for (name, value) in &request.headers {
                question = question.header(&format!("{name}: {value}")).unwrap();
            }
        }
        if let Responder::Redirect | Responder::RedirectAway = self.responder {
            let location = redirected(url, self.responder);
            question = question.upstream_status(307).unwrap();
            question = question.upstream_header(&format!("Location: {location}")).unwrap();
        }
        match self.credentials {
            true => question.credentials(Credentials::Include).unwrap(),
            false => question,
        }
    }
}

/// The functions of the pages. The result is `t` if the page can read the response with its `X-Total`, `a` for another
/// response, and `r` for an error or for a 403 of the gateway.
const SCRIPT: &str = "
const send = async (url, init) => {
  const response = await fetch(url, init);
  return response.status == 403 ? 'r' : response.headers.has('X-Total') ? 't' : 'a';
};
const upload = (url, method, include) => new Promise((done, fail) => {
  const request = new XMLHttpRequest();
  request.upload.onprogress = () => 0;
  request.open(method, url);
  request.withCredentials = include;
  request.onload = () => done(request.status == 403 ? 'r' : 'a');
  request.onerror = fail;
  request.send('body');
});
const load = (tag, url, include) => new Promise((done, fail) => {
  const element = document.createElement(tag);
  if (tag == 'script') element.type = 'module';
  element.crossOrigin = include ? 'use-credentials' : 'anonymous';
  element.onload = () => done('a');
  element.onerror = fail;
  element.src = url;
  document.head.append(element);
});
const font = async url => (await new FontFace('font', `url(${url})`).load(), 'a');
const events = (url, include) => new Promise((done, fail) => {
  const source = new EventSource(url, { withCredentials: include });
  source.onopen = () => { source.close(); done('a'); };
  source.onerror = error => { source.close(); fail(error); };
});
const socket = url => new Promise((done, fail) => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.close(); done('a'); };
  socket.onerror = fail;
});
const run = async requests => {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < requests.length) {
      const i = next++;
      const late = new Promise(done => setTimeout(done, 20000, 'x'));
      results[i] = await Promise.race([requests[i]().catch(() => 'r'), late]);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return results.join('');
};
";

/// Returns the URL to which the upstream redirects.
fn redirected(url: &str, responder: Responder) -> String {
    let (base, row) = url.rsplit_once('/').unwrap();
    let (scheme, rest) = base.split_once("://").unwrap();
    let (host, _) = rest.split_once('/').unwrap();
    let host = match responder {
        Responder::RedirectAway => format!("moved.{}", host.split_once('.').unwrap().1),
        _ => host.to_owned(),
    };
    format!("{scheme}://{host}/moved/{row}")
}

/// An image of one pixel, and a font with an empty character.
const PIXEL: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
const FONT: &str = "\
    d09GRgABAAAAAAHwAAoAAAAAAiQAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAABPUy8yAAABWAAAACMAAABgQVg/5WNtYXAAAAGAAAAAKQAAADQACwC0\
    Z2x5ZgAAAbAAAAABAAAAAQAAAABoZWFkAAAA9AAAADYAAAA2LXapuGhoZWEAAAEsAAAAGAAAACQAQQBCaG10eAAAAXwAAAAEAAAABABAAABsb2Nh\
    AAABrAAAAAQAAAAEAAAAAG1heHAAAAFEAAAAEwAAACAAAgACbmFtZQAAAbQAAAAtAAAAPACrbwhwb3N0AAAB5AAAAAwAAAAgAAMAAAABAAAAAQAA\
    xYHqWl8PPPUAAwBAAAAAAOcwNkAAAAAA5zA2QAAAAAAAAAAAAAAAAwACAAAAAAAAeJxjYGRgYHBgYICTDAyMDKiAEQAOWQCEeJxjYGRgYABhCGBi\
    QAMAAHwABQB4nGNgZnBgnMDAysDCQBgwInPsgQBIJQIhLqDAwAAAip8CvQAAQAAAeJxjYGBgYmBgYAZiESDJCKZZGBSANAsQgviJ//9DyP/zwXwG\
    AFUwBrwAAAAAAAAAAAAAAHicY2BgYGEwY2BkAAFGMA1hM4F5zAyMLJxAmgkIIWwQiyWtiCGNoQgAF5ECIgAAAHicY2BmwAsAAH0ABA==";

/// Returns the response of the upstream. Its type depends on the request.
fn respond(request: &Received) -> Reply {
    let decoded = |text: &str| base64::prelude::BASE64_STANDARD.decode(text).unwrap();
    if let Some(key) = request.header("Sec-WebSocket-Key") {
        let accept = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, accept.as_bytes());
        let accept = base64::prelude::BASE64_STANDARD.encode(accept);
        // Firefox opens no WebSocket whose connection ends at once.
        return Reply::switch(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
    }
    let folder = request.target.split('/').nth(1);
    let (kind, body) = match folder {
        Some("image") => ("image/gif", decoded(PIXEL)),
        Some("font") => ("font/woff", decoded(FONT)),
        Some("module") => ("text/javascript", b"0".to_vec()),
        Some("eventsource") => ("text/event-stream", b"data: 1\n\n".to_vec()),
        _ => ("text/plain", b"text".to_vec()),
    };
    if let Some(responder) =
        [Responder::Redirect, Responder::RedirectAway].into_iter().find(|responder| responder.folder() == folder)
    {
        let (scheme, host) = (request.header("X-Forwarded-Proto").unwrap(), request.header("Host").unwrap());
        let url = format!("{scheme}://{host}{}", request.target);
        return Reply::new(307).header("Location", &redirected(&url, responder));
    }
    if folder == Some("moved") {
        return Reply::new(200);
    }
    let status = if folder == Some("failing") { 500 } else { 200 };
    Reply::new(status).header("Content-Type", kind).header("X-Total", "7").body(body)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Browser {
    Chromium,
    Firefox,
}

enum RunningBrowser {
    Chromium(Chromium),
    Firefox(Firefox),
}

impl Browser {
    fn open(self, url: &str) -> RunningBrowser {
        match self {
            Browser::Chromium => RunningBrowser::Chromium(Chromium::open(url)),
            Browser::Firefox => RunningBrowser::Firefox(Firefox::open(url)),
        }
    }

    /// Returns true if the browser may send a preflight that the standard does not need.
    fn may_repeat_preflight(self, policy: &Policy, request: &PageRequest) -> bool {
        match self {
            Browser::Chromium => request.page == Page::Sandboxed,
            Browser::Firefox if request.responder == Responder::RedirectAway => {
                request.headers.iter().any(|(name, _)| *name == "Authorization")
            }
            Browser::Firefox => {
                request.method == "HEAD" || [&policy.methods, &policy.headers].iter().any(|names| names.are_any())
            }
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

#[test]
fn chromium_explain_and_the_policy_agree_on_thousands_of_combinations() {
    agree(Browser::Chromium);
}

#[test]
fn firefox_explain_and_the_policy_agree_on_thousands_of_combinations() {
    agree(Browser::Firefox);
}

/// Compares the verdict of this browser with the prediction and the intention.
fn agree(browser: Browser) {
    let seed = std::env::var("COMBINATIONS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let random = &mut Rng::with_seed(seed);
    let (send, results) = mpsc::channel::<(String, String)>();
    let send = Mutex::new(send);
    let scripts = Arc::new(OnceLock::<BTreeMap<String, String>>::new());
    let pages = Upstream::start({
        let scripts = scripts.clone();
        move |request| {
            let page = |name: &str| scripts.get().and_then(|scripts| scripts.get(name)).cloned().unwrap_or_default();
            match request.target.split_once('?') {
                Some(("/done", name)) => {
                    let result = String::from_utf8_lossy(&request.body).into_owned();
                    send.lock().unwrap().send((name.to_owned(), result)).expect("the test waits");
                    Reply::new(204)
                }
                Some(("/page", name)) => Reply::new(200).header("Content-Type", "text/html").body(page(name)),
                _ => Reply::new(404),
            }
        }
    });
    let port = pages.address().port();
    let policies: Vec<Policy> = (0..POLICIES).map(|_| Policy::random(random, port)).collect();
    let upstream = Upstream::start(respond);
    let texts: Vec<&str> = policies.iter().map(|policy| &*policy.text).collect();
    let listeners = "{ address: '{listen}' }, \
        { address: '{listen2}', tls: { certificates: [{ cert: tls/edge.crt, key: tls/edge.key }] } }";
    let names = (0..POLICIES).map(|policy| format!("p{policy}.localhost")).chain(["moved.localhost".to_owned()]);
    let names: Vec<String> = names.collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let gateway = Gateway::start_with_files(
        &configuration(&texts, listeners, &upstream.address().to_string()),
        &Authority::new("authority").issue(&names).files("tls/edge"),
    );
    // Firefox accepts no certificate of the tests.
    let base = |policy: usize| match browser == Browser::Chromium && policy % 2 == 1 {
        true => format!("https://p{policy}.localhost:{}", gateway.address2().port()),
        false => format!("http://p{policy}.localhost:{}", gateway.address().port()),
    };

    // The requests of each page, each with its policy and URL.
    let of_pages = HOSTS.map(Page::Host).into_iter().chain([Page::Sandboxed]).enumerate().map(|(i, page)| {
        let mut rows = Vec::new();
        for policy in 0..POLICIES {
            for n in 0..REQUESTS {
                let request = PageRequest::random(random, page);
                let url = request.url(&base(policy), &format!("{policy}-{i}-{n}"));
                rows.push((policy, request, url));
            }
        }
        rows
    });
    let of_pages: Vec<Vec<(usize, PageRequest, String)>> = of_pages.collect();
    // All pages are frames of the first page. The last frame is sandboxed, and sends its result to the first page.
    let mut pages_by_name = BTreeMap::new();
    for (i, rows) in of_pages.iter().enumerate() {
        let requests: Vec<String> =
            rows.iter().map(|(_, request, url)| format!("() => {}", request.script(url))).collect();
        let done = format!(
            "fetch('http://app.localhost:{port}/done?{i}', {{ method: 'POST', mode: 'no-cors', body: result }})"
        );
        let script = format!(
            "<!doctype html><script>{SCRIPT}\nrun([\n{}\n]).then(result => {done});</script>",
            requests.join(",\n")
        );
        pages_by_name.insert(i.to_string(), script);
    }
    let frames = (0..of_pages.len()).map(|i| {
        let host = HOSTS.get(i).unwrap_or(&HOSTS[0]);
        let sandbox = if i < HOSTS.len() { "" } else { " sandbox=\"allow-scripts\"" };
        format!("<iframe src=\"http://{host}.localhost:{port}/page?{i}\"{sandbox}></iframe>")
    });
    pages_by_name.insert("all".to_owned(), format!("<!doctype html>{}", frames.collect::<String>()));
    scripts.set(pages_by_name).expect("set once");

    let running = browser.open(&format!("http://app.localhost:{port}/page?all"));
    let (mut disagreements, mut known, mut consoles) = (Vec::new(), 0, Vec::new());
    let (mut preflights, mut saved, mut repeated) = (0, 0, 0);
    let mut counts: BTreeMap<(&str, char), usize> = BTreeMap::new();
    for _ in 0..of_pages.len() {
        let result = results.recv_timeout(PAGE_TIMEOUT);
        let (page, seen) = result.unwrap_or_else(|error| panic!("the pages do not end: {error}\n{}", running.log()));
        let rows = &of_pages[page.parse::<usize>().unwrap()];
        assert_eq!(seen.len(), rows.len(), "page {page}: {seen}");
        let arrived = upstream.received().into_iter().map(|received| received.target);
        let arrived: Vec<String> = arrived.filter(|target| target.starts_with("/no-cors")).collect();
        let sent = preflights_by_row(&gateway);
        for ((policy, request, url), seen) in rows.iter().zip(seen.chars()) {
            let policy = &policies[*policy];
            // The page cannot detect whether the gateway rejected such a request.
            let seen = match request.initiator {
                Initiator::NoCors if !arrived.iter().any(|target| url.ends_with(target)) => 'r',
                _ => seen,
            };
            *counts.entry((request.initiator.code(), seen)).or_default() += 1;
            if let Some(folder) = request.responder.folder() {
                *counts.entry((folder, seen)).or_default() += 1;
            }
            let prediction = predicted(policy, request, url, port);
            let (predicted, planned_preflights) = (prediction.verdict, prediction.preflights);
            let is_intended = policy.intends(request)
                && policy.intends(request.first())
                && (request.responder != Responder::RedirectAway || !request.credentials);
            let intended = match request.initiator {
                Initiator::Fetch if !is_intended => 'r',
                Initiator::Fetch if policy.exposes_total && request.responder.has_total() => 't',
                Initiator::Fetch => 'a',
                _ => predicted,
            };
            if predicted == 'r' && policy.has_star_without_authorization(request) {
                let headers = request.headers.iter().copied().filter(|(name, _)| *name != "Authorization").collect();
                let without = PageRequest { headers, ..request.clone() };
                let in_browsers = self::predicted(policy, &without, url, port).verdict;
                known += usize::from(in_browsers != 'r');
                if (intended, in_browsers) == ('r', seen) {
                    continue;
                }
            }
            let sent = sent.get(url.rsplit('/').next().unwrap()).copied().unwrap_or_default();
            preflights += sent;
            // The preflights without a cache. A request after a redirect to another origin has a preflight of its own.
            let most = || {
                let of = |request: &PageRequest| {
                    self::predicted(policy, &PageRequest { earlier: None, ..request.clone() }, url, port).preflights
                };
                match request.responder {
                    Responder::RedirectAway => 2,
                    _ => request.earlier.as_deref().map_or(0, of) + of(request),
                }
            };
            let is_repeated =
                sent > planned_preflights && browser.may_repeat_preflight(policy, request) && sent == most();
            repeated += usize::from(is_repeated);
            if request.earlier.is_some() && seen != 'r' && sent == planned_preflights && sent < most() {
                saved += 1;
            }
            consoles.extend(prediction.console.filter(|_| seen == 'r').map(|console| (url.clone(), console)));
            if seen != predicted || seen != intended || (sent != planned_preflights && !is_repeated) {
                disagreements.push(format!(
                    "{url} {request:?}\n  {}\n  the browser {seen} with {sent} preflights, explain {predicted} with \
                     {planned_preflights}, intended {intended}",
                    policy.text
                ));
            }
        }
    }
    if browser == Browser::Chromium {
        check_console(&running.log(), &consoles);
    }
    let compared: usize = of_pages.iter().map(Vec::len).sum();
    let shown = disagreements.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(disagreements.is_empty(), "{} of {compared} (seed {seed})\n{shown}\n{counts:?}", disagreements.len());
    assert!(compared > 2500, "only {compared}");
    assert!(known < 30, "{known} differences by Authorization");
    println!("{compared} combinations, {known} of them differ by Authorization: {counts:?}");
    if browser == Browser::Chromium {
        let over_http_2 = gateway.access_log().iter().filter(|line| line.contains(r#""protocol":"HTTP/2""#)).count();
        assert!(over_http_2 > 1000, "{over_http_2} requests over HTTP/2");
    }
    println!("{preflights} preflights, {saved} saved by a cached answer, {repeated} more than the standard needs");
    assert!(preflights > 500 && saved > 10 && repeated < 40);
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

/// Returns the number of preflights that have arrived for each row, the last part of a path.
fn preflights_by_row(gateway: &Gateway) -> BTreeMap<String, usize> {
    let mut numbers = BTreeMap::new();
    for line in gateway.access_log() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["method"] == "OPTIONS" {
            let row = line["path"].as_str().unwrap().rsplit('/').next().unwrap();
            *numbers.entry(row.to_owned()).or_default() += 1;
        }
    }
    numbers
}

/// The prediction of `explain`.
#[derive(Debug)]
struct Prediction {
    /// A letter of the pages.
    verdict: char,
    preflights: usize,
    console: Option<String>,
}

fn predicted(policy: &Policy, request: &PageRequest, url: &str, port: u16) -> Prediction {
    // The service has no named policy, so the name of the service identifies the policy.
    let name = url.split_once("://").unwrap().1.split('.').next().unwrap();
    let text = configuration(&[&policy.text], LISTENER, "127.0.0.1:8000").replace("p0", name);
    let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
    let snapshot = snapshot.unwrap_or_else(|| panic!("{problems}"));
    let load = |text: &str| load(text, CompileEnv::NONE);
    let configuration = Configuration::new("corsgate.yaml", &text, &snapshot, &load);
    let question = request.question(url, port);
    let Explanation { outcome, exchanges, console, .. } = explain(&question, &configuration);
    let exposes_total = |question: Question| {
        let question = question.upstream_header("X-Total: 7").unwrap().reads("X-Total").unwrap();
        explain(&question, &configuration).outcome == Outcome::Allowed
    };
    let verdict = match outcome == Outcome::Allowed {
        false => 'r',
        true if request.initiator == Initiator::Fetch && request.responder.has_total() && exposes_total(question) => {
            't'
        }
        true => 'a',
    };
    let preflights = exchanges.iter().filter(|exchange| exchange.request.starts_with("OPTIONS ")).count();
    Prediction { verdict, preflights, console }
}

/// Compares the messages of Chromium's console with those of `explain`, each with its URL.
fn check_console(log: &str, expected: &[(String, String)]) {
    let mut compared = 0;
    for (url, expected) in expected.iter().filter(|(_, expected)| expected.contains("CORS policy: ")) {
        let of_request = |line: &&str| line.contains(&format!("'{url}'")) && line.contains("CORS policy: ");
        let message = log.lines().find(of_request).unwrap_or_else(|| panic!("no message for {expected}"));
        assert_eq!(fault(message), fault(expected), "{message}\n{expected}");
        assert!(!fault(message).is_empty(), "{message}");
        compared += 1;
    }
    assert!(compared > 1500, "only {compared} messages");
}

/// Returns the parts of a message of a console that tell the fault: the request that fails, and the header.
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

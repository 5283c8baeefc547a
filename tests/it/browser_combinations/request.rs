//! Random requests of pages: the JavaScript that makes them, and the question to `explain`.

use corsgate::explain::fetch::Credentials;
use corsgate::explain::{Initiator, Question};
use fastrand::Rng;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// A page of this host below `localhost`.
    Host(&'static str),
    /// A sandboxed frame, whose origin is `null`.
    Sandboxed,
}

/// The sender of the response, and its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Responder {
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
    pub(super) fn folder(self) -> Option<&'static str> {
        match self {
            Responder::Upstream => None,
            Responder::Failing => Some("failing"),
            Responder::Gateway => Some("dead"),
            Responder::Redirect => Some("redirect"),
            Responder::RedirectAway => Some("away"),
        }
    }

    fn redirects(self) -> bool {
        matches!(self, Responder::Redirect | Responder::RedirectAway)
    }

    /// Returns whether the page gets the field `X-Total` if the policy exposes it.
    pub(super) fn has_total(self) -> bool {
        matches!(self, Responder::Upstream | Responder::Failing)
    }
}

#[derive(Debug, Clone)]
pub(super) struct PageRequest {
    pub(super) page: Page,
    pub(super) initiator: Initiator,
    pub(super) method: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) credentials: bool,
    pub(super) responder: Responder,
    /// An earlier request to the same URL, with the same credentials mode.
    pub(super) earlier: Option<Box<PageRequest>>,
}

impl PageRequest {
    pub(super) fn random(random: &mut Rng, page: Page) -> Self {
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
        let has_earlier = initiator == Initiator::Fetch && !responder.redirects() && random.u8(..) < 120;
        let earlier = has_earlier.then(|| {
            let mut earlier = request.clone();
            if random.u8(..) < 100 {
                earlier.method = random.choice(METHODS).unwrap();
            }
            if random.u8(..) < 100 {
                earlier.headers = Self::headers(random);
            }
            // `*` covers `Authorization` in browsers only.
            Box::new(earlier.without_authorization())
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

    /// Returns the URL of the request. `row` is unique, because browsers cache the answers to preflights by URL.
    pub(super) fn url(&self, base: &str, row: &str) -> String {
        let folder = self.responder.folder().unwrap_or(self.initiator.code());
        let base = match self.initiator {
            Initiator::WebSocket => base.replacen("http", "ws", 1),
            _ => base.to_owned(),
        };
        format!("{base}/{folder}/{row}")
    }

    /// Returns the earlier request, or this one if there is none.
    pub(super) fn first(&self) -> &Self {
        self.earlier.as_deref().unwrap_or(self)
    }

    pub(super) fn has_authorization(&self) -> bool {
        self.headers.iter().any(|(name, _)| *name == "Authorization")
    }

    pub(super) fn without_authorization(&self) -> Self {
        let mut without = self.clone();
        without.headers.retain(|(name, _)| *name != "Authorization");
        without
    }

    fn origin(&self, port: u16) -> String {
        match self.page {
            Page::Host(host) => format!("http://{host}.localhost:{port}"),
            Page::Sandboxed => "null".to_owned(),
        }
    }

    /// Returns the JavaScript expression that makes the request. Its promise is fulfilled if the page gets the
    /// response.
    pub(super) fn script(&self, url: &str) -> String {
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

    pub(super) fn question(&self, url: &str, port: u16) -> Question {
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
        if self.responder.redirects() {
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

/// Returns the URL to which the upstream redirects.
pub(super) fn redirected(url: &str, responder: Responder) -> String {
    let (base, row) = url.rsplit_once('/').unwrap();
    let (scheme, rest) = base.split_once("://").unwrap();
    let (host, _) = rest.split_once('/').unwrap();
    let host = match responder {
        Responder::RedirectAway => format!("moved.{}", host.split_once('.').unwrap().1),
        _ => host.to_owned(),
    };
    format!("{scheme}://{host}/moved/{row}")
}

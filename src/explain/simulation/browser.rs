//! The simulated browser. It sends the requests of a page to a [`PageServer`], follows redirects, and checks the
//! responses (Fetch, "HTTP fetch" and "HTTP-redirect fetch").

use std::ops::ControlFlow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    Browsed, Interrupted, NextRequest, PageResult, PageRun, PageServer, PageStep, Reply, ResponseKind, SentRequest,
};
use crate::cors::ResourcePolicy;
use crate::domain::{Scheme, is_loopback_host, split_port};
use crate::explain::Preflight;
use crate::explain::exchange::Head;
use crate::explain::fetch::{self, Credentials, Fetch, NetworkError, PreflightCache, PreflightReason, Stage};
use crate::explain::question::{Initiator, Mode, PageRequest, PageUrl, Question, QuestionSource};
use crate::explain::site::{is_same_site, is_schemelessly_same_site};

/// Maximum number of redirects (Fetch, "HTTP-redirect fetch", step 6).
const MAX_REDIRECTS: usize = 20;

/// Placeholder for an unknown header value. No header is safelisted with it.
const NOT_SAFELISTED: &str = "\"";

/// The names of "request-body-header name" in Fetch, which a redirect to GET removes.
const BODY_HEADERS: [&str; 4] = ["content-encoding", "content-language", "content-location", "content-type"];

/// The state of a browser that sends the requests of a question.
pub(super) struct Browser<'q, S: PageServer> {
    question: &'q Question,
    server: &'q mut S,
    cache: PreflightCache,
    run: PageRun<S::Reply>,
}

/// The end of one request of the page.
enum Stop<E> {
    /// The request ends with this result for the page.
    Result(PageResult),
    /// The server sends no response.
    NoResponse(E),
}

/// The state of one request of the page. `Break` ends it.
type Flow<S, T = ()> = ControlFlow<Stop<<S as PageServer>::Error>, T>;

/// The current request in a chain of redirects.
struct Hop {
    url: PageUrl,
    /// The method in the page's code. A redirect may change it.
    method: String,
    headers: Vec<(String, String)>,
    /// One entry for each `Origin` field.
    origins: Vec<Box<str>>,
    redirects: usize,
    /// True if an ordinary response was a redirect: a response of the gateway's upstream, or of any other server.
    has_followed: bool,
}

impl Hop {
    fn origin(&self) -> String {
        self.origins.join(", ")
    }

    /// Returns true if the response needs the CORS check (Fetch, "main fetch"). After a redirect from a foreign origin,
    /// the origin is `null`, so the check remains necessary.
    fn is_cors(&self, mode: Mode) -> bool {
        mode == Mode::Cors && !self.origins.is_empty() && self.origin() != self.url.origin()
    }
}

impl<'q, S: PageServer> Browser<'q, S> {
    /// Sends the requests of the question, until the first request that fails.
    pub(super) fn run(question: &'q Question, server: &'q mut S) -> Browsed<S> {
        let mut browser = Browser {
            question,
            server,
            cache: PreflightCache::default(),
            run: PageRun {
                request: 0,
                credentials: question.credentials,
                steps: Vec::new(),
                result: PageResult::Response,
                preflight: Preflight::SameOrigin,
                preflight_max_age: None,
                readable: Vec::new(),
            },
        };
        for (index, request) in question.requests.iter().enumerate() {
            browser.run.request = index;
            match browser.fetch(request) {
                Stop::Result(result) => browser.run.result = result,
                Stop::NoResponse(error) => return Err(Interrupted { run: Box::new(browser.run), error }),
            }
            if !matches!(browser.run.result, PageResult::Response) {
                break;
            }
        }
        Ok(browser.run)
    }

    fn fetch(&mut self, request: &PageRequest) -> Stop<S::Error> {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| NOT_SAFELISTED.to_owned());
        let mut hop = Hop {
            url: request.url.clone(),
            method: request.method.clone(),
            headers: request.headers.iter().map(|header| (header.name.clone(), value(&header.value))).collect(),
            origins: self.question.origins.clone(),
            redirects: 0,
            has_followed: false,
        };
        self.run.preflight_max_age = None;
        loop {
            if let ControlFlow::Break(stop) = self.hop(&mut hop) {
                return stop;
            }
        }
    }

    /// Sends one request and its preflight. Continues with the next request after a redirect.
    fn hop(&mut self, hop: &mut Hop) -> Flow<S> {
        let question = self.question;
        let mode = question.initiator.mode();
        let origin = hop.origin();
        let is_cors = hop.is_cors(mode);
        let headers = hop.headers.clone();
        let method = hop.method.clone();
        let fetch = Fetch { origin: &origin, method: &method, headers: &headers, credentials: question.credentials };
        let preflight = self.preflight(hop, &fetch);
        let cached_from = match preflight {
            Preflight::Cached { request, .. } => Some(request),
            _ => None,
        };
        let has_preflight = matches!(preflight, Preflight::Recorded | Preflight::Needed(_));
        if hop.redirects == 0 {
            self.run.preflight = preflight;
        }
        if has_preflight {
            self.send_preflight(hop, &fetch)?;
        }
        let (kind, response) = self.send(hop, &fetch, cached_from)?;
        let status = response.status;
        let headers = &response.headers;
        if is_cors && let Err(error) = fetch.check(headers) {
            return stop(PageResult::Blocked(error));
        }
        if kind == ResponseKind::Rejection {
            return stop(PageResult::Rejected);
        }
        if mode == Mode::NoCors
            && let Some(policy) = fetch::resource_policy(headers)
            && !can_load(policy, &origin, &hop.url)
        {
            return stop(PageResult::Blocked(NetworkError::ResourcePolicy(policy)));
        }
        if mode == Mode::WebSocket {
            return stop(match status {
                StatusCode::SWITCHING_PROTOCOLS => PageResult::Response,
                other => PageResult::Blocked(NetworkError::NotSwitched(other.as_u16())),
            });
        }
        // The statuses of "redirect status" in Fetch.
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        match headers.get(header::LOCATION).filter(|_| is_redirect) {
            Some(location) => {
                let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
                self.redirect(hop, kind, status, &location)
            }
            None => stop(self.read(mode, is_cors, &fetch, headers)),
        }
    }

    fn preflight(&self, hop: &Hop, fetch: &Fetch<'_>) -> Preflight {
        let question = self.question;
        let mode = question.initiator.mode();
        let recorded = matches!(question.source, QuestionSource::Preflight(_));
        if recorded && hop.redirects == 0 && !hop.origins.is_empty() {
            return Preflight::Recorded;
        }
        if mode != Mode::Cors {
            return Preflight::Never(question.initiator);
        }
        if !hop.is_cors(mode) {
            return Preflight::SameOrigin;
        }
        let use_preflight = question.initiator == Initiator::XhrUpload;
        let is_unknown = |name: &str| {
            let mut headers = question.requests[self.run.request].headers.iter();
            headers.any(|header| header.name == name && header.value.is_none())
        };
        let reasons = fetch.preflight_reasons().into_iter().map(|reason| match reason {
            PreflightReason::Value { name, .. } if is_unknown(&name) => PreflightReason::UnknownValue(name),
            other => other,
        });
        let reasons: Vec<_> =
            use_preflight.then_some(PreflightReason::UploadListeners).into_iter().chain(reasons).collect();
        if reasons.is_empty() {
            return Preflight::Safelisted;
        }
        match self.cache.covers(fetch, &hop.url.to_string(), use_preflight) {
            Some(request) => Preflight::Cached { request, reasons },
            None => Preflight::Needed(reasons),
        }
    }

    fn send_preflight(&mut self, hop: &Hop, fetch: &Fetch<'_>) -> Flow<S> {
        let requested = match &self.question.source {
            QuestionSource::Preflight(fields) if hop.redirects == 0 => fields.clone(),
            _ => fetch.preflight_headers().into_iter().filter(|(name, _)| *name != "Origin").collect(),
        };
        let mut fields = host_and_origin(hop, &hop.origins);
        fields.extend(requested.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let step = self.step(hop, Stage::Preflight, Method::OPTIONS, fields, None)?;
        let response = step.exchange.head();
        let checked = fetch.check_preflight(response.status, &response.headers);
        self.run.steps.push(step);
        let is_cors = hop.is_cors(Mode::Cors);
        match checked {
            Ok(mut answer) if is_cors => {
                self.run.preflight_max_age = Some(answer.max_age);
                // CORS-preflight fetch, step 7.4.
                if self.question.initiator == Initiator::XhrUpload && answer.methods.is_empty() {
                    answer.methods.push(fetch.normalised_method());
                }
                self.cache.store(fetch, &hop.url.to_string(), &answer, self.run.request + 1);
            }
            Ok(_) => {}
            // Browsers send no preflight to the page's own origin. Another client sent this one, and does not check the
            // answer.
            Err(_) if !is_cors => {}
            Err(error) => return stop(PageResult::Blocked(error)),
        }
        ControlFlow::Continue(())
    }

    /// Sends the request after its preflight.
    fn send(&mut self, hop: &Hop, fetch: &Fetch<'_>, cached_from: Option<usize>) -> Flow<S, (ResponseKind, Head)> {
        let question = self.question;
        let method = Method::from_bytes(fetch.normalised_method().as_bytes()).unwrap_or_default();
        let mut fields = host_and_origin(hop, &self.sent_origins(hop, &method));
        fields.extend(self.fields_of_initiator(hop));
        let sent = hop.headers.iter().map(|(name, value)| match value.as_str() {
            NOT_SAFELISTED => (name.clone(), "...".to_owned()),
            _ => (name.clone(), value.clone()),
        });
        fields.extend(sent);
        if let (Credentials::Include, Some(cookie)) = (question.credentials, &question.cookie) {
            fields.push(("Cookie".into(), cookie.clone()));
        }
        let step = self.step(hop, Stage::Request, method, fields, cached_from)?;
        let result = (step.exchange.kind(), step.exchange.head().clone());
        self.run.steps.push(step);
        ControlFlow::Continue(result)
    }

    /// Returns the values of the `Origin` fields (Fetch, "append a request Origin header").
    fn sent_origins(&self, hop: &Hop, method: &Method) -> Vec<Box<str>> {
        let mode = self.question.initiator.mode();
        let is_recorded = !matches!(self.question.source, QuestionSource::Page) && hop.redirects == 0;
        if is_recorded || hop.is_cors(mode) || mode == Mode::WebSocket {
            return hop.origins.clone();
        }
        if matches!(*method, Method::GET | Method::HEAD) {
            return Vec::new();
        }
        // The default referrer policy, strict-origin-when-cross-origin, hides the origin of a page on https from an
        // http URL.
        let hidden = mode != Mode::Cors && hop.url.scheme == Scheme::Http;
        let sent = |origin: &str| if hidden && origin.starts_with("https://") { "null" } else { origin }.into();
        hop.origins.iter().map(|origin| sent(origin)).collect()
    }

    /// Returns the fields that only some parts of a page send, and that change the result.
    fn fields_of_initiator(&self, hop: &Hop) -> Vec<(String, String)> {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let initiator = self.question.initiator;
        let mut fields = match initiator {
            Initiator::EventSource => vec![field("Accept", "text/event-stream")],
            Initiator::WebSocket => vec![field("Connection", "Upgrade"), field("Upgrade", "websocket")],
            _ => Vec::new(),
        };
        // Fetch Metadata, section 4: browsers send these fields only to potentially trustworthy URLs.
        let is_trustworthy = hop.url.scheme == Scheme::Https || is_loopback_host(split_port(&hop.url.authority).0);
        let is_simulated = matches!(self.question.source, QuestionSource::Page) || hop.redirects > 0;
        let is_navigation = initiator == Initiator::Navigation;
        if let Some(site) = self.question.fetch_site.as_deref().filter(|_| hop.redirects == 0) {
            fields.push(field("Sec-Fetch-Site", site));
        } else if is_trustworthy && (is_navigation || (is_simulated && self.server.reads_fetch_site())) {
            fields.push(field("Sec-Fetch-Site", fetch_site(hop)));
        }
        if is_trustworthy && is_navigation {
            fields.push(field("Sec-Fetch-Mode", "navigate"));
        }
        fields
    }

    /// Follows a redirect (Fetch, "HTTP-redirect fetch").
    fn redirect(&mut self, hop: &mut Hop, kind: ResponseKind, status: StatusCode, location: &str) -> Flow<S> {
        let mode = self.question.initiator.mode();
        let page = self.question.origin();
        let blocked = |error| stop(PageResult::Blocked(error));
        let Some((next, has_user_part)) = hop.url.join(location) else {
            return blocked(NetworkError::RedirectToNoUrl(location.to_owned()));
        };
        let is_to_itself = kind == ResponseKind::RedirectToItself;
        // A redirect of the gateway to the same URL would never end.
        if hop.redirects == MAX_REDIRECTS || (is_to_itself && next == hop.url) {
            return blocked(NetworkError::TooManyRedirects);
        }
        // Steps 8 and 9 of the standard.
        if mode == Mode::Cors && has_user_part && (hop.is_cors(mode) || page != next.origin()) {
            return blocked(NetworkError::RedirectToUserPart);
        }
        // Step 11 of the standard.
        let method = self.run.last().method.clone();
        if (matches!(status.as_u16(), 301 | 302) && method == Method::POST)
            || (status == StatusCode::SEE_OTHER && !matches!(method, Method::GET | Method::HEAD))
        {
            hop.method = "GET".into();
            hop.headers.retain(|(name, _)| !BODY_HEADERS.contains(&name.to_ascii_lowercase().as_str()));
        }
        // Step 12 and "redirect-taint": a redirect to another origin removes Authorization. If the redirecting URL was
        // cross-origin too, the origin of the request becomes `null`.
        if next.origin() != hop.url.origin() {
            hop.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
            if page != hop.url.origin() && !hop.origins.is_empty() {
                hop.origins = vec!["null".into()];
            }
        }
        let is_served = is_to_itself || self.server.serves(&hop.url, &next);
        hop.url = next;
        hop.redirects += 1;
        hop.has_followed |= !is_to_itself;
        if is_served {
            return ControlFlow::Continue(());
        }
        let origin = hop.origin();
        let fetch = Fetch {
            origin: &origin,
            method: &hop.method,
            headers: &hop.headers,
            credentials: self.question.credentials,
        };
        let method = fetch.normalised_method();
        let sent = self.sent_origins(hop, &Method::from_bytes(method.as_bytes()).unwrap_or_default());
        stop(PageResult::RedirectAway(NextRequest {
            origin: (!sent.is_empty()).then(|| sent.join(", ")),
            has_preflight: matches!(self.preflight(hop, &fetch), Preflight::Needed(_)),
            url: hop.url.to_string(),
            method,
        }))
    }

    /// Returns the result of reading the response, and stores the readable headers.
    fn read(&mut self, mode: Mode, is_cors: bool, fetch: &Fetch<'_>, response: &HeaderMap) -> PageResult {
        if mode != Mode::Cors {
            return PageResult::Response;
        }
        let can_read = |name: &str| !is_cors || fetch.can_read(response, name);
        let unreadable: Vec<String> = self.question.reads.iter().filter(|name| !can_read(name)).cloned().collect();
        let mut readable: Vec<String> =
            response.keys().map(HeaderName::to_string).filter(|name| can_read(name)).collect();
        for name in fetch.exposed(response).into_iter().filter(|_| is_cors) {
            if !readable.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                readable.push(name);
            }
        }
        self.run.readable = readable;
        match unreadable.is_empty() {
            true => PageResult::Response,
            false => PageResult::Unreadable(unreadable),
        }
    }

    fn step(
        &mut self,
        hop: &Hop,
        stage: Stage,
        method: Method,
        fields: Vec<(String, String)>,
        cached_from: Option<usize>,
    ) -> Flow<S, PageStep<S::Reply>> {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                // A recorded value can be an invalid field value. It is also not a valid origin, method or list of
                // names, so `,` replaces it.
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(","));
                headers.append(name, value);
            }
        }
        let request = SentRequest {
            stage,
            url: &hop.url,
            method: &method,
            fields: &fields,
            headers: &headers,
            site: fetch_site(hop),
            redirects: hop.redirects,
            has_followed: hop.has_followed,
        };
        match self.server.exchange(&request) {
            Err(error) => ControlFlow::Break(Stop::NoResponse(error)),
            Ok(exchange) => ControlFlow::Continue(PageStep {
                request: self.run.request,
                stage,
                cached_from,
                url: hop.url.clone(),
                method,
                page_method: hop.method.clone(),
                origin: hop.origin(),
                fields,
                headers,
                exchange,
            }),
        }
    }
}

/// Returns true if a page can load a response without CORS (Fetch, "cross-origin resource policy internal check").
fn can_load(policy: ResourcePolicy, origin: &str, url: &PageUrl) -> bool {
    match policy {
        _ if origin == url.origin() => true,
        ResourcePolicy::SameOrigin => false,
        ResourcePolicy::SameSite => {
            is_schemelessly_same_site(origin, url) && (origin.starts_with("https://") || url.scheme == Scheme::Http)
        }
        ResourcePolicy::CrossOrigin => true,
    }
}

/// Returns `Sec-Fetch-Site` (Fetch Metadata section 2.3). After a redirect from another origin, the origin of the hop
/// is `null`.
fn fetch_site(hop: &Hop) -> &'static str {
    let origin = hop.origin();
    match origin == hop.url.origin() {
        true => "same-origin",
        false if is_same_site(&origin, &hop.url) => "same-site",
        false => "cross-site",
    }
}

fn stop<E, T>(result: PageResult) -> ControlFlow<Stop<E>, T> {
    ControlFlow::Break(Stop::Result(result))
}

fn host_and_origin(hop: &Hop, origins: &[Box<str>]) -> Vec<(String, String)> {
    let mut fields = vec![("Host".to_owned(), hop.url.authority.clone())];
    fields.extend(origins.iter().map(|origin| ("Origin".to_owned(), origin.to_string())));
    fields
}

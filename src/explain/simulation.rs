//! The conversation: what the browser sends, what the gateway answers, and what the browser makes of that, step by step
//! (Fetch, "HTTP fetch" and "HTTP-redirect fetch"). Where it stops, it stops.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::exchange::Exchange;
use super::question::{Given, Question, Target};
use crate::cors::{Headers as _, Scheme};
use crate::decide::{Action, ConnectionFacts, Framing, Request};
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Stage, Unsafe};
use crate::snapshot::Snapshot;

/// A conversation from its first request to its end.
#[derive(Debug)]
pub(super) struct Simulation<'s> {
    /// As the page writes it.
    pub(super) method: String,
    pub(super) credentials: Credentials,
    pub(super) steps: Vec<Step<'s>>,
    pub(super) end: End,
    /// Why the browser asks first.
    pub(super) preflight: Why,
    /// Seconds for which it remembers the answer.
    pub(super) remembered: Option<u64>,
    pub(super) readable: Vec<String>,
}

/// One request with its response.
#[derive(Debug)]
pub(super) struct Step<'s> {
    pub(super) stage: Stage,
    pub(super) url: Target,
    pub(super) method: Method,
    /// The Origin that the browser takes for the page's; `null` after some redirects.
    pub(super) origin: String,
    /// The request's fields as they are sent.
    pub(super) fields: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) exchange: Exchange<'s>,
}

/// How it ends: for the last step.
#[derive(Debug)]
pub(super) enum End {
    /// The page gets the response.
    Response,
    /// The page gets a response that the gateway made, because it refuses the request.
    Refused,
    /// The page gets a network error.
    Blocked(NetworkError),
    /// The page gets the response, but cannot read these of its fields.
    Unreadable(Vec<String>),
}

/// Whether the browser asks first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// It is the page's own origin, or no page at all: nothing of CORS happens.
    SameOrigin,
    /// Everything is safelisted.
    Safelisted,
    /// Because of these.
    Unsafe(Vec<Unsafe>),
    /// A preflight is what came.
    Recorded,
}

/// More than that no browser follows (Fetch, "HTTP-redirect fetch", step 7: 20); ours are one.
const MOST_REDIRECTS: usize = 4;

/// Stands for a value that is not known: no header is safelisted with it.
const NOT_SAFELISTED: &str = "\"";

impl<'s> Simulation<'s> {
    pub(super) fn of(question: &Question, snapshot: &'s Snapshot) -> Self {
        let page = question.origin();
        let mut url = question.url.clone();
        let mut headers: Vec<(String, String)> = question.page_headers();
        let mut origins = question.origins.clone();
        let mut play = Simulation {
            method: question.method.clone(),
            credentials: question.credentials,
            steps: Vec::new(),
            end: End::Response,
            preflight: Why::SameOrigin,
            remembered: None,
            readable: Vec::new(),
        };
        for hop in 0..=MOST_REDIRECTS {
            let origin = origins.join(", ");
            let is_cors = !origins.is_empty() && origin != url.origin();
            let fetch = Fetch {
                origin: &origin,
                method: &question.method,
                headers: &headers,
                credentials: question.credentials,
            };
            let recorded = match &question.given {
                Given::Preflight(fields) if hop == 0 && !origins.is_empty() => Some(fields),
                Given::Page | Given::Request | Given::Preflight(_) => None,
            };
            let why = match recorded {
                Some(_) => Why::Recorded,
                None if !is_cors => Why::SameOrigin,
                None if fetch.needs_preflight() => Why::Unsafe(question.without_unknown_values(fetch.why_preflight())),
                None => Why::Safelisted,
            };
            let asks_first = matches!(why, Why::Recorded | Why::Unsafe(_));
            if hop == 0 {
                play.preflight = why;
            }
            if asks_first {
                let mut fields = vec![("Host".to_owned(), url.authority.clone())];
                fields.extend(origins.iter().map(|origin| ("Origin".to_owned(), origin.to_string())));
                let asked = match recorded {
                    Some(fields) => fields.clone(),
                    None => fetch.preflight_headers().into_iter().filter(|(name, _)| *name != "Origin").collect(),
                };
                fields.extend(asked.into_iter().map(|(name, value)| (name.to_owned(), value)));
                let step = Step::of(question, snapshot, Stage::Preflight, &url, Method::OPTIONS, &origin, fields);
                let checked = fetch.check_preflight(step.exchange.response.status, step.exchange.response.map());
                play.steps.push(step);
                match checked {
                    Ok(preflighted) if is_cors => play.remembered = Some(preflighted.max_age),
                    Ok(_) => {}
                    // A preflight from the origin itself came from no browser, and none judges its answer.
                    Err(_) if !is_cors => {}
                    Err(error) => return Simulation { end: End::Blocked(error), ..play },
                }
            }
            let method = Method::from_bytes(fetch.normalised_method().as_bytes()).unwrap_or_default();
            let mut fields = vec![("Host".to_owned(), url.authority.clone())];
            // Fetch, "append a request Origin header": a page's own GET and HEAD go without.
            if is_cors || !matches!(method, Method::GET | Method::HEAD) {
                fields.extend(origins.iter().map(|origin| ("Origin".to_owned(), origin.to_string())));
            }
            let sent = headers.iter().map(|(name, value)| match value.as_str() {
                NOT_SAFELISTED => (name.clone(), "...".to_owned()),
                _ => (name.clone(), value.clone()),
            });
            fields.extend(sent);
            if question.credentials == Credentials::Include {
                fields.push(("Cookie".into(), "...".into()));
            }
            let step = Step::of(question, snapshot, Stage::Response, &url, method, &origin, fields);
            let action = step.exchange.verdict.action;
            let response = step.exchange.response.map().clone();
            play.steps.push(step);
            if is_cors && let Err(error) = fetch.check(&response) {
                return Simulation { end: End::Blocked(error), ..play };
            }
            let next = match action {
                Action::Redirect(_) => response.get(http::header::LOCATION).and_then(|to| url.join(to.to_str().ok()?)),
                Action::Refuse(_) => return Simulation { end: End::Refused, ..play },
                Action::Forward(_) | Action::AnswerPreflight(_) => None,
            };
            let Some(next) = next.filter(|_| hop < MOST_REDIRECTS) else {
                let can_read = |name: &str| !is_cors || fetch.can_read(&response, name);
                let unread: Vec<String> = question.reads.iter().filter(|name| !can_read(name)).cloned().collect();
                play.readable = response.keys().map(HeaderName::to_string).filter(|name| can_read(name)).collect();
                for name in fetch.exposed(&response).into_iter().filter(|_| is_cors) {
                    if !play.readable.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                        play.readable.push(name);
                    }
                }
                if !unread.is_empty() {
                    play.end = End::Unreadable(unread);
                }
                return play;
            };
            // HTTP-redirect fetch, steps 12 and 13: from one stranger on to another, a page has no name any more, and
            // what it knows of the first is not told to the second.
            if next.origin() != url.origin() {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                if page != url.origin() && !origins.is_empty() {
                    origins = vec!["null".into()];
                }
            }
            url = next;
        }
        play
    }

    /// The step at which it ended.
    pub(super) fn last(&self) -> &Step<'s> {
        self.steps.last().expect("every conversation has at least its request")
    }
}

impl Question {
    fn page_headers(&self) -> Vec<(String, String)> {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| NOT_SAFELISTED.to_owned());
        self.headers.iter().map(|header| (header.name.clone(), value(&header.value))).collect()
    }
}

impl<'s> Step<'s> {
    fn of(
        question: &Question,
        snapshot: &'s Snapshot,
        stage: Stage,
        url: &Target,
        method: Method,
        origin: &str,
        fields: Vec<(String, String)>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                // What cannot have come as it is recorded was nothing of use: no origin, no method, no name.
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(","));
                headers.append(name, value);
            }
        }
        let request = Request {
            method: &method,
            path: url.path().as_bytes(),
            target_length: url.path_and_query.len(),
            version: Version::HTTP_11,
            scheme: url.scheme,
            authority: Some(&url.authority),
            headers: &headers,
            framing: Framing::Clear,
            connection: ConnectionFacts { redirect: redirect(snapshot, url), ..ConnectionFacts::default() },
        };
        let exchange = Exchange::of(snapshot, &request, &url.path_and_query, || question.upstream.clone());
        Step { stage, url: url.clone(), method, origin: origin.to_owned(), fields, headers, exchange }
    }
}

/// Where a plain listener sends what comes to it: the one of the URL's port, else the first, because ports are often
/// mapped on the way.
pub(super) fn redirect(snapshot: &Snapshot, url: &Target) -> Option<u16> {
    let plain = || snapshot.listeners().iter().filter(|listener| listener.tls.is_none());
    let listener = plain().find(|listener| listener.address.port() == url.port()).or_else(|| plain().next());
    listener.filter(|_| url.scheme == Scheme::Http)?.redirect
}

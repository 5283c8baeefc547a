//! A simulation of a page's request: the requests of the browser, the gateway's responses, and the browser's checks
//! (Fetch, "HTTP fetch" and "HTTP-redirect fetch"). It ends at the step where a browser would stop.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

use super::Preflight;
use super::exchange::Exchange;
use super::listener::Reached;
use super::question::{Question, QuestionSource, Target};
use crate::cors::Headers as _;
use crate::decide::{Action, ConnectionFacts, Framing, Request};
use crate::domain::{OwnOrigin, Scheme};
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Stage};
use crate::snapshot::Snapshot;

/// All steps of a page's request, and the result.
#[derive(Debug)]
pub(super) struct Simulation<'s> {
    /// As the page writes it.
    pub(super) method: String,
    pub(super) credentials: Credentials,
    pub(super) steps: Vec<Step<'s>>,
    pub(super) result: PageResult,
    pub(super) preflight: Preflight,
    /// Seconds for which the browser caches the preflight; None without a preflight that passed.
    pub(super) preflight_max_age: Option<u64>,
    /// Response headers that the page can read.
    pub(super) readable: Vec<String>,
}

/// One request with its response.
#[derive(Debug)]
pub(super) struct Step<'s> {
    pub(super) stage: Stage,
    pub(super) url: Target,
    /// The scheme with which the gateway decides; not that of the URL if TLS ends in front of corsgate.
    pub(super) scheme: Scheme,
    pub(super) method: Method,
    /// The origin of the request; after some redirects `null` instead of the page's origin.
    pub(super) origin: String,
    /// The fields of the request, in the order and spelling of the wire.
    pub(super) fields: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) exchange: Exchange<'s>,
}

/// What the page gets from the last step.
#[derive(Debug)]
pub(super) enum PageResult {
    /// The response, with all headers that the page reads.
    Response,
    /// A response of the gateway, which rejected the request.
    Rejected,
    /// A network error: the browser blocks the response.
    Blocked(NetworkError),
    /// The response, but not these of its headers.
    Unreadable(Vec<String>),
}

/// Limit of redirects. Browsers follow 20 (Fetch, "HTTP-redirect fetch", step 7); corsgate makes only one, to https.
const MAX_REDIRECTS: usize = 4;

/// Placeholder for a header value that is not known: no header is safelisted with it.
const NOT_SAFELISTED: &str = "\"";

impl<'s> Simulation<'s> {
    pub(super) fn of(question: &Question, snapshot: &'s Snapshot) -> Self {
        let page = question.origin();
        let mut url = question.url.clone();
        let mut headers: Vec<(String, String)> = question.page_headers();
        let mut origins = question.origins.clone();
        let mut simulation = Simulation {
            method: question.method.clone(),
            credentials: question.credentials,
            steps: Vec::new(),
            result: PageResult::Response,
            preflight: Preflight::SameOrigin,
            preflight_max_age: None,
            readable: Vec::new(),
        };
        for hop in 0..=MAX_REDIRECTS {
            let origin = origins.join(", ");
            let is_cors = !origins.is_empty() && origin != url.origin();
            let fetch = Fetch {
                origin: &origin,
                method: &question.method,
                headers: &headers,
                credentials: question.credentials,
            };
            let recorded = match &question.source {
                QuestionSource::Preflight(fields) if hop == 0 && !origins.is_empty() => Some(fields),
                QuestionSource::Page | QuestionSource::Request | QuestionSource::Preflight(_) => None,
            };
            let preflight = match recorded {
                Some(_) => Preflight::Recorded,
                None if !is_cors => Preflight::SameOrigin,
                None if fetch.needs_preflight() => {
                    Preflight::Needed(question.without_placeholders(fetch.preflight_reasons()))
                }
                None => Preflight::Safelisted,
            };
            let has_preflight = matches!(preflight, Preflight::Recorded | Preflight::Needed(_));
            if hop == 0 {
                simulation.preflight = preflight;
            }
            if has_preflight {
                let mut fields = vec![("Host".to_owned(), url.authority.clone())];
                fields.extend(origins.iter().map(|origin| ("Origin".to_owned(), origin.to_string())));
                let requested = match recorded {
                    Some(fields) => fields.clone(),
                    None => fetch.preflight_headers().into_iter().filter(|(name, _)| *name != "Origin").collect(),
                };
                fields.extend(requested.into_iter().map(|(name, value)| (name.to_owned(), value)));
                let step = Step::of(question, snapshot, Stage::Preflight, &url, Method::OPTIONS, &origin, fields);
                let checked = fetch.check_preflight(step.exchange.response.status, step.exchange.response.map());
                simulation.steps.push(step);
                match checked {
                    Ok(entry) if is_cors => simulation.preflight_max_age = Some(entry.max_age),
                    Ok(_) => {}
                    // Browsers send no preflight to the page's own origin: another client sent it, and does not check.
                    Err(_) if !is_cors => {}
                    Err(error) => return Simulation { result: PageResult::Blocked(error), ..simulation },
                }
            }
            let method = Method::from_bytes(fetch.normalised_method().as_bytes()).unwrap_or_default();
            let mut fields = vec![("Host".to_owned(), url.authority.clone())];
            // Fetch, "append a request Origin header": a same-origin GET or HEAD has none.
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
            let step = Step::of(question, snapshot, Stage::Request, &url, method, &origin, fields);
            let action = step.exchange.verdict.action;
            let response = step.exchange.response.map().clone();
            simulation.steps.push(step);
            if is_cors && let Err(error) = fetch.check(&response) {
                return Simulation { result: PageResult::Blocked(error), ..simulation };
            }
            let next = match action {
                Action::Redirect(_) => response.get(header::LOCATION).and_then(|to| url.join(to.to_str().ok()?)),
                Action::Refuse(_) => return Simulation { result: PageResult::Rejected, ..simulation },
                Action::Forward(_) | Action::AnswerPreflight(_) => None,
            };
            // A redirect to the URL itself never ends: browsers give up after 20.
            if next.as_ref() == Some(&url) {
                return Simulation { result: PageResult::Blocked(NetworkError::TooManyRedirects), ..simulation };
            }
            let Some(next) = next.filter(|_| hop < MAX_REDIRECTS) else {
                let can_read = |name: &str| !is_cors || fetch.can_read(&response, name);
                let unreadable: Vec<String> = question.reads.iter().filter(|name| !can_read(name)).cloned().collect();
                simulation.readable =
                    response.keys().map(HeaderName::to_string).filter(|name| can_read(name)).collect();
                for name in fetch.exposed(&response).into_iter().filter(|_| is_cors) {
                    if !simulation.readable.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                        simulation.readable.push(name);
                    }
                }
                if !unreadable.is_empty() {
                    simulation.result = PageResult::Unreadable(unreadable);
                }
                return simulation;
            };
            // HTTP-redirect fetch, steps 12 and 13: a redirect to another origin removes Authorization; if the
            // redirecting URL was cross-origin too, the request's origin becomes opaque.
            if next.origin() != url.origin() {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                if page != url.origin() && !origins.is_empty() {
                    origins = vec!["null".into()];
                }
            }
            url = next;
        }
        simulation
    }

    /// The method and the credentials of the page, with the origin of a step: what the texts about the step need.
    pub(super) fn fetch_at<'p>(&'p self, step: &'p Step<'_>) -> Fetch<'p> {
        Fetch { origin: &step.origin, method: &self.method, headers: &[], credentials: self.credentials }
    }

    /// The step where the browser stops.
    pub(super) fn last(&self) -> &Step<'s> {
        self.steps.last().expect("every simulation has at least one step")
    }
}

impl Question {
    /// The headers that the page sets, with [`NOT_SAFELISTED`] for values that are not known.
    fn page_headers(&self) -> Vec<(String, String)> {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| NOT_SAFELISTED.to_owned());
        self.headers.iter().map(|header| (header.name.clone(), value(&header.value))).collect()
    }
}

impl<'s> Step<'s> {
    /// The gateway's own origin, as it sees it.
    pub(super) fn own_origin(&self) -> OwnOrigin<'_> {
        OwnOrigin::of(self.scheme, &self.url.authority)
    }

    /// The method that selects the route: for a preflight the requested method.
    pub(super) fn routed_method(&self) -> String {
        let requested = || self.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok();
        match self.stage {
            Stage::Preflight => requested().unwrap_or("OPTIONS").to_owned(),
            Stage::Request => self.method.to_string(),
        }
    }

    /// The names in `Access-Control-Request-Headers`.
    pub(super) fn requested_headers(&self) -> Vec<String> {
        let fields = self.headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let text: Vec<String> = fields.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let names = text.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }

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
                // A recorded value that is not a valid field value was no valid origin, method or list of names either:
                // `,` stands for it.
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(","));
                headers.append(name, value);
            }
        }
        let reached = Reached::of(snapshot, url);
        let scheme = match question.source {
            QuestionSource::Page => reached.scheme(snapshot, url),
            // As the gateway saw it.
            QuestionSource::Request | QuestionSource::Preflight(_) => url.scheme,
        };
        let request = Request {
            method: &method,
            path: url.path().as_bytes(),
            target_length: url.path_and_query.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(scheme, &url.authority),
            authority: Some(&url.authority),
            headers: &headers,
            framing: Framing::Clear,
            connection: ConnectionFacts { redirect: reached.redirect(), ..ConnectionFacts::default() },
        };
        let exchange = Exchange::of(snapshot, &request, &url.path_and_query, || question.upstream.clone());
        Step { stage, url: url.clone(), scheme, method, origin: origin.to_owned(), fields, headers, exchange }
    }
}

//! A page's requests: the steps of the [`browser`], the responses of a [`PageServer`], and the result for the page. The
//! browser stops where a real one would stop.
//!
//! The server is the gateway with a configuration ([`Simulation`]), or any server on the network.

mod browser;
mod gateway;

use http::{HeaderMap, Method, header};

use self::browser::Browser;
pub(super) use self::gateway::{Simulation, Step};
use super::exchange::Head;
use super::question::{PageUrl, Question};
use super::{Outcome, Preflight};
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Stage};

/// A server that gets the requests of the browser.
pub(crate) trait PageServer {
    /// The result of one request.
    type Reply: Reply;
    /// Why there is no response.
    type Error;

    /// Sends a request.
    fn exchange(&mut self, request: &SentRequest<'_>) -> Result<Self::Reply, Self::Error>;

    /// Whether the target of a redirect can be sent to this server, too.
    fn serves(&self, from: &PageUrl, to: &PageUrl) -> bool;

    /// Whether [`SentRequest::fields`] has `Sec-Fetch-Site` in requests that are no navigations.
    fn reads_fetch_site(&self) -> bool;
}

/// The result of one request.
pub(crate) trait Reply {
    /// The head of the response.
    fn head(&self) -> &Head;

    /// The kind of the response.
    fn kind(&self) -> ResponseKind;
}

/// The kind of a response, as far as the browser's next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseKind {
    /// The browser follows it if it is a redirect.
    Ordinary,
    /// The gateway redirects to its own https listener.
    RedirectToItself,
    /// The gateway rejects the request.
    Rejection,
}

/// A request that the browser sends.
#[derive(Debug)]
pub(crate) struct SentRequest<'a> {
    pub(crate) stage: Stage,
    pub(crate) url: &'a PageUrl,
    pub(crate) method: &'a Method,
    /// The fields of the request, in the order and spelling of the wire.
    pub(crate) fields: &'a [(String, String)],
    pub(crate) headers: &'a HeaderMap,
    /// The value of `Sec-Fetch-Site`.
    pub(crate) site: &'static str,
    /// Number of redirects before this request.
    pub(crate) redirects: usize,
    /// One of these redirects was an ordinary response.
    pub(crate) has_followed: bool,
}

/// All steps of a page's requests, and the result of the last one.
#[derive(Debug)]
pub(crate) struct PageRun<R> {
    /// Index of the last request in [`Question::requests`]: the last of the question, or the first that fails.
    pub(crate) request: usize,
    pub(crate) credentials: Credentials,
    /// The steps of all requests.
    pub(crate) steps: Vec<PageStep<R>>,
    pub(crate) result: PageResult,
    /// Of the last request.
    pub(crate) preflight: Preflight,
    /// Seconds for which the browser caches the last preflight; None without a preflight that passed.
    pub(crate) preflight_max_age: Option<u64>,
    /// Response headers that the page can read.
    pub(crate) readable: Vec<String>,
}

/// The server gave no response. There is no result.
#[derive(Debug)]
pub(crate) struct Interrupted<R, E> {
    /// The steps before.
    pub(crate) run: Box<PageRun<R>>,
    pub(crate) error: E,
}

/// The requests of a page to a server.
pub(crate) type Browsed<S> =
    Result<PageRun<<S as PageServer>::Reply>, Interrupted<<S as PageServer>::Reply, <S as PageServer>::Error>>;

/// One request with its response.
#[derive(Debug)]
pub(crate) struct PageStep<R> {
    /// Index of the request of the page.
    pub(crate) request: usize,
    pub(crate) stage: Stage,
    /// For a request without a preflight: the number of the request, from 1, whose cached answer replaces it.
    pub(crate) cached_from: Option<usize>,
    pub(crate) url: PageUrl,
    pub(crate) method: Method,
    /// The method of the page's request, not normalised.
    page_method: String,
    /// The origin of the request; after some redirects `null` instead of the page's origin.
    pub(crate) origin: String,
    /// The fields of the request, in the order and spelling of the wire.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) exchange: R,
}

/// What the page gets from the last step.
#[derive(Debug)]
pub(crate) enum PageResult {
    /// The response, with all headers that the page reads.
    Response,
    /// A response of the gateway, which rejected the request.
    Rejected,
    /// A network error: the browser blocks the response.
    Blocked(NetworkError),
    /// The response, but not these of its headers.
    Unreadable(Vec<String>),
    /// A redirect to a URL that this file does not serve.
    RedirectAway(NextRequest),
}

/// The browser's request to the target of a redirect. The file does not serve that URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextRequest {
    pub(crate) method: String,
    pub(crate) url: String,
    /// None if the request has no Origin.
    pub(crate) origin: Option<String>,
    pub(crate) has_preflight: bool,
}

/// Makes the requests of a question, up to the first that fails.
pub(crate) fn browse<S: PageServer>(question: &Question, server: &mut S) -> Browsed<S> {
    Browser::run(question, server)
}

impl<R> PageRun<R> {
    pub(super) fn outcome(&self) -> Outcome {
        match self.result {
            PageResult::Response => Outcome::Allowed,
            PageResult::RedirectAway(_) => Outcome::Undecided,
            PageResult::Rejected | PageResult::Blocked(_) | PageResult::Unreadable(_) => Outcome::Refused,
        }
    }

    /// Whether the page does not get what it needs.
    pub(super) fn is_refused(&self) -> bool {
        self.outcome() == Outcome::Refused
    }

    /// The method and the credentials of the page, with the origin of a step: what the texts about the step need.
    pub(super) fn fetch_at<'p>(&'p self, step: &'p PageStep<R>) -> Fetch<'p> {
        Fetch { origin: &step.origin, method: &step.page_method, headers: &[], credentials: self.credentials }
    }

    /// The steps of the last request.
    pub(super) fn last_steps(&self) -> impl Iterator<Item = &PageStep<R>> {
        self.steps.iter().filter(|step| step.request == self.request)
    }

    /// The step where the browser stops.
    pub(crate) fn last(&self) -> &PageStep<R> {
        self.steps.last().expect("a run that is not interrupted has at least one step")
    }

    /// The message of the browser's console; None if the browser blocks nothing.
    pub(crate) fn console(&self, question: &Question) -> Option<String> {
        let PageResult::Blocked(error) = &self.result else { return None };
        let (last, initiator) = (self.last(), question.initiator);
        let asked = &question.requests[self.request].url;
        let (url, asked) = (last.url.as_written(initiator), asked.as_written(initiator));
        let url = match url == asked {
            true => format!("'{url}'"),
            false => format!("'{url}' (redirected from '{asked}')"),
        };
        let page = question.origin();
        let fetch = Fetch { origin: &page, ..self.fetch_at(last) };
        Some(fetch.console(initiator.in_console(), &url, last.stage, error))
    }
}

impl<R> PageStep<R> {
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
}

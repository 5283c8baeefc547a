//! Simulates a page's requests: the steps of the [`browser`], the responses of a [`PageServer`], and the result for the
//! page. The simulation stops where a real browser would stop.
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

/// A server that receives the requests of the browser.
pub(crate) trait PageServer {
    /// The response, with the data of the server about it.
    type Reply: Reply;
    /// The reason why there is no response.
    type Error;

    /// Sends a request, and returns the response.
    fn exchange(&mut self, request: &SentRequest<'_>) -> Result<Self::Reply, Self::Error>;

    /// Returns true if this server also serves `to`, the target of a redirect from `from`.
    fn serves(&self, from: &PageUrl, to: &PageUrl) -> bool;

    /// Returns true if [`SentRequest::fields`] should have `Sec-Fetch-Site`. Navigations always have this field.
    fn reads_fetch_site(&self) -> bool;
}

/// The response of a server to one request.
pub(crate) trait Reply {
    /// Returns the head of the response.
    fn head(&self) -> &Head;

    /// Returns the kind of the response.
    fn kind(&self) -> ResponseKind;
}

/// The kind of a response. The browser's next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseKind {
    /// Any other response. The browser follows it if it is a redirect.
    Ordinary,
    /// A redirect of the gateway to its own https listener.
    RedirectToItself,
    /// The gateway's rejection of the request.
    Rejection,
}

/// A request that the browser sends.
#[derive(Debug)]
pub(crate) struct SentRequest<'a> {
    pub(crate) stage: Stage,
    pub(crate) url: &'a PageUrl,
    pub(crate) method: &'a Method,
    /// The header fields of the request, in the order and spelling on the wire.
    pub(crate) fields: &'a [(String, String)],
    pub(crate) headers: &'a HeaderMap,
    /// The value of `Sec-Fetch-Site`.
    pub(crate) site: &'static str,
    /// Number of redirects before this request.
    pub(crate) redirects: usize,
    /// True if one of these redirects was an ordinary response.
    pub(crate) has_followed: bool,
}

/// All steps of a page's requests, and the result of the last one.
#[derive(Debug)]
pub(crate) struct PageRun<R> {
    /// Index of the last request in [`Question::requests`]: the first request that fails, or else the last one.
    pub(crate) request: usize,
    pub(crate) credentials: Credentials,
    /// The steps of all requests.
    pub(crate) steps: Vec<PageStep<R>>,
    pub(crate) result: PageResult,
    /// The preflight of the last request.
    pub(crate) preflight: Preflight,
    /// Time in seconds for which the browser caches the last preflight. None if it did not pass.
    pub(crate) preflight_max_age: Option<u64>,
    /// Response headers that the page can read.
    pub(crate) readable: Vec<String>,
}

/// A run that ended because the server gave no response. It has no result.
#[derive(Debug)]
pub(crate) struct Interrupted<R, E> {
    /// The run until the failure.
    pub(crate) run: Box<PageRun<R>>,
    pub(crate) error: E,
}

/// The result of a run: the steps and the result for the page, or the failure.
pub(crate) type Browsed<S> =
    Result<PageRun<<S as PageServer>::Reply>, Interrupted<<S as PageServer>::Reply, <S as PageServer>::Error>>;

/// One request with its response.
#[derive(Debug)]
pub(crate) struct PageStep<R> {
    /// Index of the request of the page.
    pub(crate) request: usize,
    pub(crate) stage: Stage,
    /// Number of the request whose cached answer replaces the preflight, from 1. None without a cached answer.
    pub(crate) cached_from: Option<usize>,
    pub(crate) url: PageUrl,
    pub(crate) method: Method,
    /// The method in the page's code, before normalisation.
    page_method: String,
    /// The origin of the request. After some redirects, it is `null` instead of the page's origin.
    pub(crate) origin: String,
    /// The header fields of the request, in the order and spelling on the wire.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) exchange: R,
}

/// The result of the last step for the page.
#[derive(Debug)]
pub(crate) enum PageResult {
    /// The page gets the response, with all headers that it wants to read.
    Response,
    /// The gateway rejected the request. The page gets this response.
    Rejected,
    /// The page gets a network error, because the browser blocks the response.
    Blocked(NetworkError),
    /// The page gets the response, but cannot read these headers.
    Unreadable(Vec<String>),
    /// The response redirects to a URL that this server does not serve.
    RedirectAway(NextRequest),
}

/// The browser's request to the target of a redirect that the server does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextRequest {
    pub(crate) method: String,
    pub(crate) url: String,
    /// None if the request has no Origin.
    pub(crate) origin: Option<String>,
    pub(crate) has_preflight: bool,
}

/// Simulates the requests of a question, until the first request that fails.
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

    /// Returns true if the request is refused, see [`Outcome::Refused`].
    pub(super) fn is_refused(&self) -> bool {
        self.outcome() == Outcome::Refused
    }

    /// Returns the method and the credentials of the page, with the origin of a step. The texts about the step need
    /// them.
    pub(super) fn fetch_at<'p>(&'p self, step: &'p PageStep<R>) -> Fetch<'p> {
        Fetch { origin: &step.origin, method: &step.page_method, headers: &[], credentials: self.credentials }
    }

    /// Returns the steps of the last request.
    pub(super) fn last_steps(&self) -> impl Iterator<Item = &PageStep<R>> {
        self.steps.iter().filter(|step| step.request == self.request)
    }

    /// Returns the step at which the browser stops.
    pub(crate) fn last(&self) -> &PageStep<R> {
        self.steps.last().expect("a run that is not interrupted has at least one step")
    }

    /// Returns the message in the browser's console. Returns None if the browser blocks nothing.
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
    /// Returns the method that selects the route. For a preflight, this is the requested method.
    pub(super) fn routed_method(&self) -> String {
        let requested = || self.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok();
        match self.stage {
            Stage::Preflight => requested().unwrap_or("OPTIONS").to_owned(),
            Stage::Request => self.method.to_string(),
        }
    }

    /// Returns the names in `Access-Control-Request-Headers`.
    pub(super) fn requested_headers(&self) -> Vec<String> {
        let fields = self.headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let text: Vec<String> = fields.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let names = text.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }
}

//! A simulation of a page's requests: the steps of the [`browser`] with the gateway's responses, and what the page gets.
//! The simulation stops where a browser would stop.

mod browser;

use http::{HeaderMap, Method, header};

use self::browser::Browser;
use super::exchange::Exchange;
use super::question::{Question, Target};
use super::{Outcome, Preflight};
use crate::domain::{OwnOrigin, Scheme};
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Stage};
use crate::snapshot::Snapshot;

/// All steps of a page's requests, and the result of the last one.
#[derive(Debug)]
pub(super) struct Simulation<'s> {
    /// Index of the last request in [`Question::requests`]: the last of the question, or the first that fails.
    pub(super) request: usize,
    pub(super) credentials: Credentials,
    /// The steps of all requests.
    pub(super) steps: Vec<Step<'s>>,
    pub(super) result: PageResult,
    /// Of the last request.
    pub(super) preflight: Preflight,
    /// Seconds for which the browser caches the last preflight; None without a preflight that passed.
    pub(super) preflight_max_age: Option<u64>,
    /// Response headers that the page can read.
    pub(super) readable: Vec<String>,
}

/// One request with its response.
#[derive(Debug)]
pub(super) struct Step<'s> {
    /// Index of the request of the page.
    pub(super) request: usize,
    pub(super) stage: Stage,
    /// For a request without a preflight: the number of the request, from 1, whose cached answer replaces it.
    pub(super) cached_from: Option<usize>,
    pub(super) url: Target,
    /// The scheme with which the gateway decides; not that of the URL if TLS ends in front of corsgate.
    pub(super) scheme: Scheme,
    pub(super) method: Method,
    /// The method of the page's request, not normalised.
    page_method: String,
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

impl<'s> Simulation<'s> {
    pub(super) fn of(question: &Question, snapshot: &'s Snapshot) -> Self {
        Browser::run(question, snapshot)
    }

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
    pub(super) fn fetch_at<'p>(&'p self, step: &'p Step<'_>) -> Fetch<'p> {
        Fetch { origin: &step.origin, method: &step.page_method, headers: &[], credentials: self.credentials }
    }

    /// The steps of the last request.
    pub(super) fn last_steps(&self) -> impl Iterator<Item = &Step<'s>> {
        self.steps.iter().filter(|step| step.request == self.request)
    }

    /// The step where the browser stops.
    pub(super) fn last(&self) -> &Step<'s> {
        self.steps.last().expect("every simulation has at least one step")
    }
}

impl Step<'_> {
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
}

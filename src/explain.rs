//! Explains why a browser allows or blocks a page's request, and finds the smallest edit of the file that allows it.
//!
//! A [`Question`] is a request of a page, or a request that the gateway received. [`explain`] answers it for a
//! [`Configuration`]. The answer is an [`Explanation`]: the route and the policy, the requests and responses on the
//! wire, the result of the browser's checks, and the edit. [`text`] and [`json`] print it.
//!
//! The responses come from the code that serves requests, through [`Exchange`]. [`fetch`] checks them as the Fetch
//! standard defines. This module reads no files and needs no running process.
//!
//! ```
//! use corsgate::explain::{Configuration, Outcome, Question, explain, json};
//! use corsgate::snapshot::{CompileEnv, load};
//!
//! let text = "\
//! listeners: [{ address: 127.0.0.1:9080 }]
//! upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
//! services:
//!   - name: api
//!     upstream: api
//!     cors: { allow_origins: https://app.example, allow_methods: [PUT] }
//! ";
//! let load_text = |text: &str| load(text, CompileEnv::NONE);
//! let snapshot = load_text(text).snapshot.unwrap();
//! let configuration = Configuration::new("corsgate.yaml", text, &snapshot, &load_text);
//!
//! let question = Question::new("https://app.example", "https://api.example/orders").unwrap().method("DELETE").unwrap();
//! let explanation = explain(&question, &configuration);
//! assert_eq!(explanation.outcome, Outcome::Refused);
//! assert_eq!(explanation.reason, "method_not_allowed");
//! assert!(json(&explanation).contains("allow_methods: [PUT, DELETE]"));
//! ```

mod cause;
pub(crate) mod effective;
mod exchange;
pub mod fetch;
mod fix;
mod listener;
mod notes;
mod prediction;
mod question;
mod render;
mod simulation;
mod site;

pub use self::cause::Cause;
pub use self::exchange::{Exchange, Head};
pub(crate) use self::fix::{EditError, Fix, RejectedFix};
pub(crate) use self::prediction::Prediction;
pub(crate) use self::question::PageUrl;
pub use self::question::{Initiator, InvalidQuestion, Question, QuestionPart, RecordedRequest};
pub(crate) use self::render::{GREEN, PagePrinter, PageSummary, RED, YELLOW, lossy, preflight_json};
pub use self::render::{json, text};
pub(crate) use self::render::{policy_of, repair_json, repair_text, value as json_value};
pub(crate) use self::simulation::{
    Interrupted, NextRequest, PageResult, PageRun, PageServer, PageStep, Reply, ResponseKind, SentRequest, browse,
};
pub(crate) use crate::config::Hunk;

use std::borrow::Cow;

use self::cause::Diagnosis;
use self::fetch::{Credentials, Fetch, PreflightReason, Stage};
use self::fix::FixResult;
use self::simulation::{Simulation, Step};
use crate::config::{Document, Source};
use crate::decide::{Action, RequestKind};
use crate::problem::{KeyPath, Problems};
use crate::snapshot::{Level, Loaded, Route, Snapshot};

/// A configuration file: its text, its snapshot, and a function that loads an edited text.
#[derive(Clone, Copy)]
pub struct Configuration<'a> {
    name: &'a str,
    text: &'a str,
    snapshot: &'a Snapshot,
    /// The document of the text. None if the caller does not have it; the text is then parsed again when needed.
    document: Option<&'a Document>,
    load: Load<'a>,
}

/// Loads an edited text with the same files and environment variables. It must have no side effects.
pub(crate) type Load<'a> = &'a dyn Fn(&str) -> Loaded;

/// The answer to a [`Question`].
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The name of the configuration file.
    pub(crate) file: String,
    /// The page's origin. It is empty if the request has none.
    pub(crate) origin: String,
    /// The method after normalisation (Fetch: `get` becomes `GET`).
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) credentials: Credentials,
    pub(crate) initiator: Initiator,
    /// The earlier requests of the page, such as `GET https://api.example/orders`. They are allowed.
    pub(crate) earlier: Vec<String>,
    /// Result for the page: allowed, refused or undecided.
    pub outcome: Outcome,
    /// The gateway's reason code for the last exchange, as in logs and metrics. [`Cause::code`] can be more exact.
    pub reason: &'static str,
    /// The message in the browser's console. None if the browser prints none.
    pub console: Option<String>,
    /// The cause of the refusal. None if the request is not refused.
    pub cause: Option<Cause>,
    /// The place of the cause in the file. None if the file cannot fix the cause.
    pub(crate) cause_place: Option<FilePosition>,
    /// The route of the last request.
    pub(crate) route: Option<MatchedRoute>,
    /// Whether the browser sends a preflight, with the reasons.
    pub preflight: Preflight,
    /// The request after a redirect to a server that is not in this file. Its result decides. None without such a
    /// redirect.
    pub(crate) next: Option<NextRequest>,
    /// All requests and responses in the order on the wire.
    pub exchanges: Vec<WireExchange>,
    /// Response headers that the page can read: the headers of the response, and the exposed names. `*` stands for all.
    pub(crate) readable: Vec<String>,
    /// Response headers that the page wants to read, but that are not exposed to it.
    pub(crate) unreadable: Vec<String>,
    /// Time in seconds for which the browser caches the preflight. None if no preflight passed.
    pub(crate) preflight_max_age: Option<u64>,
    /// Further facts, as whole sentences for the user.
    pub(crate) notes: Vec<String>,
    /// The smallest edit that allows the request. None if no edit was found.
    pub fix: Option<Fix>,
    /// The best edit that makes the file invalid. None if there is a fix, or no such edit.
    pub(crate) rejected_fix: Option<RejectedFix>,
}

/// Result of a request for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The page gets the response and the headers that it wants to read.
    Allowed,
    /// The gateway rejects the request, or the browser blocks the response or a header.
    Refused,
    /// The upstream redirects to a server that is not in this file. The result depends on that server.
    Undecided,
}

/// A place in the file, with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePosition {
    pub(crate) key: KeyPath,
    /// Line number, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
}

/// The route of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MatchedRoute {
    /// `service/route`, as in logs.
    pub(crate) name: String,
    pub(crate) place: FilePosition,
    pub(crate) policy: MatchedPolicy,
}

/// The policy that applies to a route, and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MatchedPolicy {
    /// There is no `cors` at any level.
    Absent,
    /// The key is `cors: false`.
    Off(Level, FilePosition),
    /// A policy without a name.
    Inline(Level, FilePosition),
    /// A policy with a name in `cors_policies`.
    Named {
        name: String,
        /// The level of the `cors` that refers to the policy.
        level: Level,
        /// The place of that `cors`.
        used: FilePosition,
        /// The place of the policy in `cors_policies`.
        written: FilePosition,
    },
}

/// Whether the browser sends a preflight, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preflight {
    /// No preflight: the page and the URL have the same origin, or the request has no Origin. CORS does not apply.
    SameOrigin,
    /// No preflight: the method and all headers are safelisted.
    Safelisted,
    /// The browser sends a preflight, for these reasons.
    Needed(Vec<PreflightReason>),
    /// No preflight: the request needs one, but a cached answer allows the request.
    Cached {
        /// Number of the request whose preflight was answered, from 1.
        request: usize,
        /// The reasons for which the request needs a preflight.
        reasons: Vec<PreflightReason>,
    },
    /// No preflight: CORS does not apply to requests of this kind.
    Never(Initiator),
    /// The question comes from a recorded preflight.
    Recorded,
}

/// A request with its response, as on the wire.
#[derive(Debug, Clone)]
pub struct WireExchange {
    /// Number of the page's request, from 1.
    pub(crate) of_request: usize,
    /// Number of the request whose cached answer replaces the preflight. None without a cached answer.
    pub(crate) cached_from: Option<usize>,
    /// The role of the request for the browser: preflight or request.
    pub(crate) stage: Stage,
    /// The role of the request for the gateway.
    pub(crate) kind: RequestKind,
    pub(crate) answered_by: AnsweredBy,
    /// The reason code of the gateway.
    pub(crate) reason: &'static str,
    /// Method and target, such as `PUT /orders?page=2`.
    pub request: String,
    /// The header fields of the request.
    pub fields: Vec<(String, String)>,
    /// The head of the response.
    pub response: Head,
}

/// The sender of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    Gateway,
    /// The upstream. The response is an assumption, except for the edits of the gateway.
    Upstream,
}

/// The simulation of a question, with the document of the text. A text can be large, so it is parsed only once.
struct Analysis<'a> {
    source: Source<'a>,
    document: Cow<'a, Document>,
    simulation: Simulation<'a>,
    diagnosis: Diagnosis,
}

/// Explains what happens to a request with a configuration, and searches for a fix if the request is refused.
pub fn explain(question: &Question, configuration: &Configuration<'_>) -> Explanation {
    let analysis = Analysis::of(question, configuration);
    let mut explanation = describe(question, configuration, &analysis);
    if explanation.outcome == Outcome::Refused {
        match fix::find(question, configuration, &analysis) {
            FixResult::Fix(fix) => explanation.fix = Some(fix),
            FixResult::Rejected(fix) => explanation.rejected_fix = Some(fix),
            FixResult::NotFound => {}
        }
    }
    explanation
}

/// Returns the edit that makes an invalid text valid. The edit also allows the request, if such an edit is found.
/// Returns None if one of the errors in `problems` can be fixed in more than one way.
pub(crate) fn repair(question: &Question, name: &str, text: &str, problems: &Problems, load: Load<'_>) -> Option<Fix> {
    fix::repair(question, name, text, problems, load)
}

impl<'a> Analysis<'a> {
    fn of(question: &Question, configuration: &Configuration<'a>) -> Self {
        let Configuration { name, text, snapshot, document, load: _ } = *configuration;
        let simulation = Simulation::of(question, snapshot);
        // The snapshot comes from this text, so the text can be parsed. The document is needed only for a cause.
        let parse = || Document::parse(snapshot.filled(text), &mut Problems::default());
        let document = match document {
            Some(document) => Cow::Borrowed(document),
            None => Cow::Owned(simulation.is_refused().then(parse).flatten().unwrap_or_default()),
        };
        let diagnosis = Diagnosis::of(question, &simulation, snapshot, &document);
        Analysis { source: Source::new(name, text), document, simulation, diagnosis }
    }
}

/// Returns the explanation without a fix.
fn describe(question: &Question, configuration: &Configuration<'_>, analysis: &Analysis<'_>) -> Explanation {
    let Analysis { source, simulation, diagnosis, .. } = analysis;
    let last = simulation.last();
    let (asked, initiator) = (&question.requests[simulation.request], question.initiator);
    let place = |key: &KeyPath| FilePosition::of(source, key);
    let normalised = |method: &str| {
        Fetch { origin: "", method, headers: &[], credentials: question.credentials }.normalised_method()
    };
    let earlier = &question.requests[..simulation.request];
    Explanation {
        file: configuration.name.to_owned(),
        origin: question.origin(),
        method: normalised(&asked.method),
        url: asked.url.as_written(initiator),
        credentials: question.credentials,
        initiator,
        earlier: earlier.iter().map(|request| format!("{} {}", normalised(&request.method), request.url)).collect(),
        outcome: simulation.outcome(),
        reason: last.exchange.verdict.outcome.code(),
        console: simulation.console(question),
        cause_place: diagnosis.at.as_ref().map(place),
        route: last.exchange.verdict.route.map(|found| MatchedRoute::of(found.route, source)),
        preflight: simulation.preflight.clone(),
        next: match &simulation.result {
            PageResult::RedirectAway(next) => Some(next.clone()),
            _ => None,
        },
        exchanges: simulation.steps.iter().map(WireExchange::of).collect(),
        readable: simulation.readable.clone(),
        unreadable: match &simulation.result {
            PageResult::Unreadable(names) => names.clone(),
            _ => Vec::new(),
        },
        preflight_max_age: simulation.preflight_max_age,
        notes: notes::notes(question, simulation, configuration.snapshot, diagnosis.cause.as_ref()),
        cause: diagnosis.cause.clone(),
        fix: None,
        rejected_fix: None,
    }
}

// === impl Explanation, Configuration, FilePosition, MatchedRoute, WireExchange ===

impl Explanation {
    /// Returns the code of the cause, which can be more exact than the gateway's code. Without a cause, returns the
    /// gateway's code.
    pub(crate) fn code(&self) -> &'static str {
        self.cause.as_ref().map_or(self.reason, Cause::code)
    }
}

impl<'a> Configuration<'a> {
    /// Creates a configuration. `name` is the name of the file. `snapshot` must come from exactly this `text`. `load`
    /// loads an edited text.
    pub fn new(name: &'a str, text: &'a str, snapshot: &'a Snapshot, load: Load<'a>) -> Self {
        Configuration { name, text, snapshot, document: None, load }
    }

    pub(crate) fn name(&self) -> &'a str {
        self.name
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    pub(crate) fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Adds the document of the text, if the caller has it.
    pub(crate) fn with_document(self, document: Option<&'a Document>) -> Self {
        Configuration { document, ..self }
    }
}

impl FilePosition {
    fn of(source: &Source<'_>, key: &KeyPath) -> Self {
        let place = source.place_of_key(key);
        FilePosition { key: key.clone(), line: place.line, column: place.column }
    }
}

impl MatchedRoute {
    fn of(route: &Route, source: &Source<'_>) -> Self {
        let place = |key: &KeyPath| FilePosition::of(source, key);
        let policy = match (&route.cors, route.cors_at(), route.policy_at()) {
            (Some(cors), Some(used), Some(written)) => match &cors.name {
                Some(name) => MatchedPolicy::Named {
                    name: name.to_string(),
                    level: cors.level,
                    used: place(&used),
                    written: place(&written),
                },
                None => MatchedPolicy::Inline(cors.level, place(&used)),
            },
            (Some(cors), Some(used), None) => MatchedPolicy::Off(cors.level, place(&used)),
            _ => MatchedPolicy::Absent,
        };
        MatchedRoute { name: route.name.to_string(), place: place(&route.at()), policy }
    }
}

impl WireExchange {
    fn of(step: &Step<'_>) -> Self {
        let verdict = &step.exchange.verdict;
        WireExchange {
            of_request: step.request + 1,
            cached_from: step.cached_from,
            stage: step.stage,
            kind: verdict.kind(),
            answered_by: match verdict.action {
                Action::Forward(_) => AnsweredBy::Upstream,
                Action::AnswerPreflight(_)
                | Action::AnswerOptions(_)
                | Action::RedirectToHttps(_)
                | Action::Answer(_)
                | Action::Refuse(_) => AnsweredBy::Gateway,
            },
            reason: verdict.outcome.code(),
            request: format!("{} {}", step.method, step.url.path_and_query),
            fields: step.fields.clone(),
            response: step.exchange.response.clone(),
        }
    }
}

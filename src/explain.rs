//! Why a page's request gets what it gets, and the smallest edit of the file that lets it pass.
//!
//! A [`Question`] is a page's `fetch()`, or a request that really came. [`explain`] asks a [`Configuration`] what
//! happens: which route and which policy it meets, what goes over the wire, what the browser makes of it, and what to
//! change. The answer, an [`Explanation`], is plain data; [`text`] and [`json`] write it out.
//!
//! Everything comes from the parts that serve requests: [`Exchange`] makes responses as the running gateway does, and
//! [`crate::explain::fetch`] judges them by the Fetch standard. Nothing here reads a file or knows a running process.
//!
//! ```
//! use corsgate::explain::{Configuration, Outcome, Question, explain};
//! use corsgate::snapshot::{CompileEnv, Loaded, Snapshot, load};
//!
//! let text = "\
//! listeners: [{ address: 127.0.0.1:9080 }]
//! upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
//! services:
//!   - name: api
//!     upstream: api
//!     cors: { allow_origins: https://app.example, allow_methods: [PUT] }
//! ";
//! let read = |text: &str| load(text, CompileEnv::NONE);
//! let snapshot = read(text).snapshot.unwrap();
//! let configuration = Configuration::new("corsgate.yaml", text, &snapshot, &read);
//!
//! let question = Question::new("https://app.example", "https://api.example/orders").unwrap().method("DELETE").unwrap();
//! let explanation = explain(&question, &configuration);
//! assert_eq!(explanation.outcome, Outcome::Refused);
//! assert_eq!(explanation.reason, "method_not_allowed");
//! assert_eq!(
//!     explanation.fix.unwrap().hunks[0].added,
//!     ["    cors: { allow_origins: https://app.example, allow_methods: [PUT, DELETE] }"]
//! );
//! ```

mod cause;
pub(crate) mod effective;
mod exchange;
pub mod fetch;
mod fix;
mod question;
mod render;
mod simulation;

pub use self::cause::Cause;
pub use self::exchange::{Exchange, Head};
pub(crate) use self::fix::{Fix, Objection, RejectedFix};
pub use self::question::{InvalidQuestion, Question, Recorded};
pub(crate) use self::render::repaired_json;
pub(crate) use self::render::repaired_text;
pub use self::render::{json, text};
pub(crate) use crate::config::Hunk;

use self::cause::Diagnosis;
use self::fix::FixResult;
use self::question::Given;
use self::simulation::{End, Simulation, Step, Why};
use crate::config::{Document, Source};
use crate::cors::{Headers as _, Scheme};
use crate::decide::{Action, RequestKind};
use crate::domain::split_port;
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Preflighted, Stage, Unsafe};
use crate::problem::{KeyPath, Problems};
use crate::snapshot::{Level, Loaded, Route, Snapshot};

/// A configuration, and how an edited text of it would be read.
#[derive(Clone, Copy)]
pub struct Configuration<'a> {
    name: &'a str,
    text: &'a str,
    snapshot: &'a Snapshot,
    read: Read<'a>,
}

/// Reads a text with the env of the configuration, as `check` does.
pub(crate) type Read<'a> = &'a dyn Fn(&str) -> Loaded;

/// Why a request gets what it gets.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What the configuration is called.
    pub(crate) file: String,
    /// The page, or what stands for it.
    pub(crate) origin: String,
    /// The method as it is sent.
    pub(crate) method: String,
    /// Where it goes.
    pub(crate) url: String,
    /// Whether cookies go along.
    pub(crate) credentials: Credentials,
    /// Whether the page gets what it wants.
    pub outcome: Outcome,
    /// The gateway's code for the step at which it ended, as logs and metrics have it. The cause has one of its own.
    pub reason: &'static str,
    /// What the browser's console says; None when it says nothing.
    pub(crate) console: Option<String>,
    /// What is behind it; None when it passes.
    pub cause: Option<Cause>,
    /// Where that stands in the file, as far as one place can be named.
    pub(crate) culprit: Option<Place>,
    /// The route that takes the request.
    pub(crate) route: Option<RouteFound>,
    /// Whether the browser asks first.
    pub preflight: Preflight,
    /// What goes over the wire, in order.
    pub exchanges: Vec<Shown>,
    /// Response headers that the page can read: those that are known to be there, and those that are exposed; `*` for all.
    pub(crate) readable: Vec<String>,
    /// Response headers that the page wants to read and cannot.
    pub(crate) unreadable: Vec<String>,
    /// Seconds for which the browser remembers the preflight; None without one that passed.
    pub(crate) remembered: Option<u64>,
    /// What is worth knowing beside that.
    pub(crate) notes: Vec<String>,
    /// The smallest edit that lets it pass, if there is one.
    pub fix: Option<Fix>,
    /// What came closest, if there is none: an edit with which the file would be refused.
    pub(crate) tried: Option<RejectedFix>,
}

/// Whether a page gets what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Allowed,
    /// It does not.
    Refused,
}

/// A place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The path of the key.
    pub(crate) key: KeyPath,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
}

/// The route that takes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteFound {
    /// `service/route`, as logs have it.
    pub(crate) name: String,
    /// Where it stands.
    pub(crate) place: Place,
    /// The policy that counts for it.
    pub(crate) policy: PolicyFound,
}

/// The policy that counts for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PolicyFound {
    /// There is no `cors` at any level.
    Absent,
    /// `cors: false`
    Off(Level, Place),
    /// Written where it is used.
    Inline(Level, Place),
    /// Used by its name.
    Named {
        /// Its name.
        name: String,
        /// At which level it is used.
        level: Level,
        /// Where it is used.
        used: Place,
        /// Where it is written.
        written: Place,
    },
}

/// Whether the browser asks first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preflight {
    /// No: the page and the URL are of one origin, or there is no page. CORS has no part in it.
    SameOrigin,
    /// No: everything is safelisted.
    Safelisted,
    /// Yes, because of these.
    Needed(Vec<Unsafe>),
    /// It has: a preflight is what came.
    Recorded,
}

/// A request with its response, to be shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What it is to the browser.
    pub(crate) stage: Stage,
    /// What it is to the gateway.
    pub(crate) kind: RequestKind,
    /// Who answers.
    pub(crate) answered_by: AnsweredBy,
    /// The reason code.
    pub(crate) reason: &'static str,
    /// `PUT /orders?page=2`
    pub request: String,
    /// The request's fields.
    pub fields: Vec<(String, String)>,
    /// The response.
    pub response: Head,
}

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    /// The gateway.
    Gateway,
    /// The upstream; its response is an assumption, but for the edits.
    Upstream,
}

/// Asks a configuration what happens to a request.
pub fn explain(question: &Question, configuration: &Configuration<'_>) -> Explanation {
    let mut explanation = diagnose(question, configuration);
    if explanation.outcome == Outcome::Refused {
        match fix::find(question, configuration) {
            FixResult::Fix(fix) => explanation.fix = Some(fix),
            FixResult::Refused(tried) => explanation.tried = Some(tried),
            FixResult::Nothing => {}
        }
    }
    explanation
}

/// For a text that is refused, with its problems: the edits after which it is a configuration that lets the request
/// pass, or at least a configuration. None when one of the problems leaves a choice.
pub(crate) fn repair(question: &Question, name: &str, text: &str, problems: &Problems, read: Read<'_>) -> Option<Fix> {
    fix::repair(question, name, text, problems, read)
}

/// All but the fix.
fn diagnose(question: &Question, configuration: &Configuration<'_>) -> Explanation {
    let play = Simulation::of(question, configuration.snapshot);
    let source = Source::new(configuration.name, configuration.text);
    // The snapshot came from this text, so that it can be read.
    let document = Document::parse(configuration.text, &mut Problems::default()).unwrap_or_default();
    let last = play.last();
    let diagnosis = Diagnosis::of(question, &play, configuration.snapshot, &document);
    let console = match &play.end {
        End::Blocked(error) => {
            let url = match last.url == question.url {
                true => format!("'{}'", last.url),
                false => format!("'{}' (redirected from '{}')", last.url, question.url),
            };
            let page = question.origin();
            let fetch = Fetch { origin: &page, ..play.fetch_at(last) };
            Some(fetch.console(&url, last.stage, error))
        }
        End::Response | End::Refused | End::Unreadable(_) => None,
    };
    let place = |key: &KeyPath| Place::of(&source, key);
    Explanation {
        file: configuration.name.to_owned(),
        origin: question.origin(),
        method: play.fetch_at(last).normalised_method(),
        url: question.url.to_string(),
        credentials: question.credentials,
        outcome: if matches!(play.end, End::Response) { Outcome::Allowed } else { Outcome::Refused },
        reason: last.exchange.verdict.outcome.code(),
        console,
        culprit: diagnosis.at.as_ref().map(place),
        route: last.exchange.verdict.route.map(|found| RouteFound::of(found.route, &source)),
        preflight: match &play.preflight {
            Why::SameOrigin => Preflight::SameOrigin,
            Why::Safelisted => Preflight::Safelisted,
            Why::Unsafe(why) => Preflight::Needed(why.clone()),
            Why::Recorded => Preflight::Recorded,
        },
        exchanges: play.steps.iter().map(Shown::of).collect(),
        readable: play.readable.clone(),
        unreadable: match &play.end {
            End::Unreadable(names) => names.clone(),
            End::Response | End::Refused | End::Blocked(_) => Vec::new(),
        },
        remembered: play.remembered,
        notes: notes(question, &play, configuration.snapshot, diagnosis.cause.as_ref()),
        cause: diagnosis.cause,
        fix: None,
        tried: None,
    }
}

fn notes(question: &Question, play: &Simulation<'_>, snapshot: &Snapshot, cause: Option<&Cause>) -> Vec<String> {
    let mut notes = Vec::new();
    let last = play.last();
    if question.origins.len() > 1 {
        notes
            .push("No browser sends several Origins; a client that does is no page, or something adds one.".to_owned());
    }
    let says_it = matches!(
        cause,
        Some(Cause::MethodNotAllowed { meant: Some(_), .. } | Cause::NoRouteForMethod { meant: Some(_), .. })
    );
    if let Some(meant) = cause::meant(&question.method, std::iter::empty()).filter(|_| !says_it) {
        notes.push(format!("{}.", cause::case_matters(&question.method, &meant)));
    }
    if question.origins.is_empty() {
        notes.push(
            "The request has no Origin, so that CORS has no part in it: if it was refused, CORS was not why."
                .to_owned(),
        );
    }
    if is_mixed_content(question) {
        let instead = match https_port(snapshot, question) {
            Some(443) => format!("ask for https://{}", split_port(&question.url.authority).0),
            Some(port) => format!("ask for https://{}:{port}", split_port(&question.url.authority).0),
            None => "no listener of this file speaks TLS".to_owned(),
        };
        notes.push(format!(
            "Browsers block a request to `http:` from a page on https as mixed content, before CORS is looked at; \
             {instead}."
        ));
    }
    notes.extend(note_on_port(snapshot, question));
    if let (End::Blocked(_), Action::Forward(_), Stage::Response) =
        (&play.end, last.exchange.verdict.action, last.stage)
    {
        notes.push(
            "The upstream gets this request all the same: the browser keeps the response from the page, not the request \
             from you."
                .to_owned(),
        );
    }
    if let (Some(Cause::HeadersNotAllowed { star: true, .. }), End::Blocked(NetworkError::Header(_))) =
        (cause, &play.end)
        && question.credentials == Credentials::Omit
        && last.exchange.response.map().get(http::header::ACCESS_CONTROL_ALLOW_HEADERS).is_some_and(|list| list == "*")
    {
        notes.push(
            "Chromium still lets `*` cover Authorization, against the Fetch standard. Do not rely on that: list it."
                .to_owned(),
        );
    }
    let is_answered_options =
        last.stage == Stage::Response && matches!(last.exchange.verdict.action, Action::AnswerPreflight(_));
    if is_answered_options {
        notes.push(
            "The gateway takes the page's own OPTIONS for a preflight and answers it; with `preflight: { match: standard }` \
             the upstream would get it."
                .to_owned(),
        );
    }
    if let Some(seconds) = play.remembered.filter(|seconds| *seconds > Preflighted::CHROMIUM) {
        notes.push(format!("Chromium remembers a preflight for {} s, not for {seconds}.", Preflighted::CHROMIUM));
    }
    if let (Action::Forward(_), true) = (last.exchange.verdict.action, last.exchange.response.status.is_redirection())
        && last.stage == Stage::Response
        && matches!(play.end, End::Response)
    {
        notes.push(
            "The browser follows the upstream's redirect; ask again with the URL where it leads. From one foreign origin on \
             to another, the Origin becomes null."
                .to_owned(),
        );
    }
    notes
}

/// Mixed Content, "should fetching request be blocked": what is on this machine is trusted.
fn is_mixed_content(question: &Question) -> bool {
    let host = split_port(&question.url.authority).0;
    let loopback = host == "localhost"
        || host.ends_with(".localhost")
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    question.url.scheme == Scheme::Http && question.origin().starts_with("https://") && !loopback
}

/// The port on which the file says that https is, if it does: where the listener of a plain URL redirects, or that of a
/// TLS listener.
fn https_port(snapshot: &Snapshot, question: &Question) -> Option<u16> {
    let speak_tls = snapshot.listeners().iter().filter(|listener| listener.tls.is_some());
    let mut ports = speak_tls.map(|listener| listener.address.port());
    simulation::redirect(snapshot, &question.url)
        .or_else(|| ports.clone().find(|port| *port == 443))
        .or_else(|| ports.next())
}

/// A port that somebody wrote is that of a listener, or somebody maps ports; only who asks knows. What came has come
/// somehow, and the default port of a scheme nobody writes.
fn note_on_port(snapshot: &Snapshot, question: &Question) -> Option<String> {
    if !matches!(question.given, Given::Page) {
        return None;
    }
    let port = split_port(&question.url.authority).1?.parse::<u16>().ok()?;
    let here = || snapshot.listeners().iter().filter(|listener| listener.address.port() == port);
    let is_tls = question.url.scheme == Scheme::Https;
    if here().any(|listener| listener.tls.is_some() == is_tls) {
        return None;
    }
    Some(match (here().next(), question.url.scheme) {
        (None, _) => {
            format!("No listener of this file has port {port}; this is right only behind something that has.")
        }
        (Some(_), Scheme::Https) => format!(
            "The listener of this file with port {port} speaks no TLS; this is right only behind something that does."
        ),
        (Some(_), Scheme::Http) => format!(
            "The listener of this file with port {port} speaks only TLS; this is right only behind something that \
             takes plain HTTP."
        ),
    })
}

// === impl Configuration, Place, RouteFound, Shown ===

impl<'a> Configuration<'a> {
    /// A configuration: what its file is called, its text, the snapshot that came from exactly this text, and how an
    /// edited text would be read.
    pub fn new(name: &'a str, text: &'a str, snapshot: &'a Snapshot, read: Read<'a>) -> Self {
        Configuration { name, text, snapshot, read }
    }
}

impl Place {
    fn of(source: &Source<'_>, key: &KeyPath) -> Self {
        let place = source.place_of_key(key);
        Place { key: key.clone(), line: place.line, column: place.column }
    }
}

impl RouteFound {
    fn of(route: &Route, source: &Source<'_>) -> Self {
        let place = |key: &KeyPath| Place::of(source, key);
        let policy = match (&route.cors, route.cors_at(), route.policy_at()) {
            (Some(cors), Some(used), Some(written)) => match &cors.name {
                Some(name) => PolicyFound::Named {
                    name: name.to_string(),
                    level: cors.level,
                    used: place(&used),
                    written: place(&written),
                },
                None => PolicyFound::Inline(cors.level, place(&used)),
            },
            (Some(cors), Some(used), None) => PolicyFound::Off(cors.level, place(&used)),
            _ => PolicyFound::Absent,
        };
        RouteFound { name: route.name.to_string(), place: place(&route.at()), policy }
    }
}

impl Shown {
    fn of(step: &Step<'_>) -> Self {
        let verdict = &step.exchange.verdict;
        Shown {
            stage: step.stage,
            kind: verdict.kind(),
            answered_by: match verdict.action {
                Action::Forward(_) => AnsweredBy::Upstream,
                Action::AnswerPreflight(_) | Action::Redirect(_) | Action::Refuse(_) => AnsweredBy::Gateway,
            },
            reason: verdict.outcome.code(),
            request: format!("{} {}", step.method, step.url.path_and_query),
            fields: step.fields.clone(),
            response: step.exchange.response.clone(),
        }
    }
}

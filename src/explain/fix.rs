//! The smallest edit of the file that lets a request pass.
//!
//! An edit is not derived, it is tried: for the cause that was found there are a few candidates, each is written into
//! the text, the text is read again, and the question is asked again. What stops it then is another cause, or nothing.
//! So an edit that is offered works, whatever else the file says.

use std::fmt;

use super::cause::{Cause, Diagnosis, Scope, asked_names, meant, routed_method, routes_for, routes_of_host};
use super::question::Question;
use super::simulation::{End, Simulation, Step, Why};
use super::{Configuration, Hunk, Place};
use crate::config::{Document, NewValue, Source, hunks};
use crate::cors::{CorsRequest, Headers as _, Patterns, Policy, PolicyAction, Settings};
use crate::explain::fetch::{Credentials, Fetch, Stage};
use crate::notation::List;
use crate::problem::{KeyPath, PathStep as KeyStep, Problem, ProblemKind, Problems, Replacement, Severity};
use crate::route::PathPattern;
use crate::snapshot::{Level, Loaded, Route, RoutePlace, Snapshot};

/// An edit of the file after which the request passes. It was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The file.
    pub(crate) file: String,
    /// What it does, one order for each step: ``add `DELETE` to allow_methods``.
    pub(crate) steps: Vec<String>,
    /// The lines that change.
    pub(crate) hunks: Vec<Hunk>,
    /// What it opens beyond what was asked for, and what it closes.
    pub(crate) widens: Vec<Widening>,
}

/// An edit that takes the cause away, but with which the file would be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RejectedFix {
    /// What it does, one order for each step.
    pub(crate) steps: Vec<String>,
    /// Why the file would be refused: as `check` says it, at the places of the file as it is.
    pub(crate) objections: Vec<Objection>,
}

/// An error of an edited file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Objection {
    /// Where, in the file as it is.
    pub(crate) at: Place,
    /// What is wrong, and what to write.
    pub(crate) kind: ProblemKind,
}

/// What came of looking for an edit.
pub(super) enum FixResult {
    /// One that works.
    Fix(Fix),
    /// One that `check` does not let through.
    Refused(RejectedFix),
    /// None.
    Nothing,
}

/// What an edit opens beyond what was asked for, or closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Widening {
    /// The same request to other routes, by name, because they share what is edited.
    Routes(Vec<String>),
    /// The page's origin gets everything that the policy allows, not only what was asked for.
    WholePolicy {
        /// The origin.
        origin: String,
        /// What else the policy allows, in words.
        allows: String,
    },
    /// All origins that the policy allows may then do this.
    AllOrigins(Vec<String>),
    /// Every site, because each can send the origin null.
    EverySite,
    /// Something else, as a sentence.
    Requests(String),
    /// Narrower: other origins are refused from then on.
    OthersRefused,
}

/// As many causes can stand behind each other.
const MOST_STEPS: usize = 8;
/// As often the text is read again: a large file takes its time.
const MOST_READINGS: usize = 32;
/// The most routes or services that are tried for one cause.
const MOST_PLACES: usize = 4;

/// A way to take a cause away.
struct Candidate {
    step: String,
    edits: Vec<Edit>,
    widens: Vec<Widening>,
}

enum Edit {
    Entry(KeyPath, String),
    Key(KeyPath, &'static str, NewValue),
    Remove(KeyPath),
}

/// The edit after which the request passes, found step by step.
pub(super) fn find(question: &Question, configuration: &Configuration<'_>) -> FixResult {
    let mut attempt = Attempt::of(configuration.text);
    let passing = match attempt.proceed(question, configuration) {
        Ok(passing) => passing,
        Err(Stuck::Refused(problems)) => {
            let source = Source::new(configuration.name, configuration.text);
            let objection =
                |problem: &Problem| Objection { at: Place::of(&source, &problem.at), kind: problem.kind.clone() };
            let objections = problems.iter().map(objection).collect();
            return FixResult::Refused(RejectedFix { steps: attempt.steps, objections });
        }
        Err(Stuck::Nowhere) => return FixResult::Nothing,
    };
    let others = also_opened(question, configuration.snapshot, &passing);
    if !others.is_empty() {
        attempt.widens.insert(0, Widening::Routes(others));
    }
    FixResult::Fix(attempt.fix(configuration.name, configuration.text))
}

/// The edit after which a text that was refused is a configuration, and the request passes too, if that is possible.
pub(super) fn repair(
    question: &Question,
    name: &str,
    text: &str,
    problems: &Problems,
    read: super::Read<'_>,
) -> Option<Fix> {
    let mut attempt = Attempt::of(text);
    let mut problems = problems.clone();
    let mut usable = None;
    for _ in 0..MOST_STEPS {
        attempt.repair(question, &problems)?;
        let Loaded { snapshot, problems: left } = read(&attempt.text);
        if snapshot.is_some() || left == problems {
            usable = snapshot;
            break;
        }
        problems = left;
    }
    let usable = usable?;
    let mended = attempt.text.clone();
    let configuration = Configuration::new(name, &mended, &usable, read);
    if !matches!(Simulation::of(question, &usable).end, End::Response) {
        // What only mends the file is worth having too.
        let mut further = Attempt { text: mended.clone(), ..attempt.clone() };
        if further.proceed(question, &configuration).is_ok() {
            attempt = further;
        }
    }
    Some(attempt.fix(name, text))
}

/// Why an attempt does not come to its end.
enum Stuck {
    /// The last of its steps makes these errors.
    Refused(Vec<Problem>),
    /// There is no further step.
    Nowhere,
}

/// A text on its way.
#[derive(Clone)]
struct Attempt {
    text: String,
    steps: Vec<String>,
    widens: Vec<Widening>,
}

impl Attempt {
    fn of(text: &str) -> Self {
        Attempt { text: text.to_owned(), steps: Vec::new(), widens: Vec::new() }
    }

    fn fix(self, name: &str, original: &str) -> Fix {
        let hunks = hunks(original, &self.text);
        Fix { file: name.to_owned(), steps: self.steps, hunks, widens: self.widens }
    }

    /// Takes one cause away after the other, until the request passes: the snapshot with which it does.
    fn proceed(&mut self, question: &Question, configuration: &Configuration<'_>) -> Result<Snapshot, Stuck> {
        let mut newest: Option<Snapshot> = None;
        let (mut causes, mut readings) = (Vec::new(), 0);
        for _ in 0..MOST_STEPS {
            let snapshot = newest.as_ref().unwrap_or(configuration.snapshot);
            let document = Document::parse(&self.text, &mut Problems::default()).ok_or(Stuck::Nowhere)?;
            let play = Simulation::of(question, snapshot);
            let cause = Diagnosis::of(question, &play, snapshot, &document).cause.ok_or(Stuck::Nowhere)?;
            let candidates = FixContext { question, play: &play, snapshot, document: &document }.candidates(&cause);
            // Where a request goes is one decision, what it gets there another: the likeliest place first.
            let is_about_routing = matches!(cause, Cause::UnknownHost { .. } | Cause::UnknownPath { .. });
            causes.push(cause);
            let mut best: Option<(Candidate, String, Snapshot, bool)> = None;
            let mut refused: Option<(String, Vec<Problem>)> = None;
            for candidate in candidates {
                let Some(edited) = candidate.apply(&self.text) else { continue };
                readings += 1;
                if readings > MOST_READINGS {
                    return Err(Stuck::Nowhere);
                }
                let Loaded { snapshot, problems } = (configuration.read)(&edited);
                let Some(snapshot) = snapshot else {
                    // The one with the fewest errors comes closest. None of them is mended here: what an edit of a file that
                    // was fine can make an error of is who is allowed, and that is not for an edit to change.
                    let errors: Vec<Problem> = errors(&problems).cloned().collect();
                    if refused.as_ref().is_none_or(|(_, fewest)| errors.len() < fewest.len()) {
                        refused = Some((candidate.step, errors));
                    }
                    continue;
                };
                let passes = matches!(Simulation::of(question, &snapshot).end, End::Response);
                let is_progress = passes || is_new_cause(question, &edited, &snapshot, &causes);
                if passes || (is_progress && best.is_none()) {
                    best = Some((candidate, edited, snapshot, passes));
                }
                if passes || (is_progress && is_about_routing) {
                    break;
                }
            }
            let Some((candidate, edited, snapshot, passes)) = best else {
                let Some((step, problems)) = refused else { return Err(Stuck::Nowhere) };
                self.steps.push(step);
                return Err(Stuck::Refused(problems));
            };
            self.steps.push(candidate.step);
            candidate.widens.into_iter().for_each(|widening| widening.add_to(&mut self.widens));
            self.text = edited;
            if passes {
                return Ok(snapshot);
            }
            newest = Some(snapshot);
        }
        Err(Stuck::Nowhere)
    }

    /// Writes what the problems say is to be written; None when one of the errors leaves a choice.
    fn repair(&mut self, question: &Question, problems: &Problems) -> Option<()> {
        let mut edits: Vec<(KeyPath, Replacement)> = Vec::new();
        for problem in errors(problems) {
            let replacement = match &problem.kind {
                // Which origins to list nobody knows, but that this one is meant.
                ProblemKind::AnyOriginWithCredentials => {
                    Widening::OthersRefused.add_to(&mut self.widens);
                    Replacement::Text(question.origin())
                }
                kind => kind.replacement()?,
            };
            let step = match &replacement {
                Replacement::Text(text) => format!("write `{text}`"),
                Replacement::Literal(word) => format!("write `{word}`"),
                Replacement::Key(name) => format!("write `{name}`"),
                Replacement::Nothing => "remove what does not belong".to_owned(),
            };
            self.steps.push(format!("{step} at {}", problem.at));
            edits.push((problem.at.clone(), replacement));
        }
        // From the end of the file to its beginning, so that what is removed moves nothing that is still to be found; and
        // the names of keys at last, because the paths of others go through them.
        edits.sort_by(|(a, _), (b, _)| b.cmp(a));
        edits.sort_by_key(|(_, replacement)| matches!(replacement, Replacement::Key(_)));
        for (at, replacement) in &edits {
            self.text = Source::new("", &self.text).with_replacement(at, replacement)?;
        }
        (!edits.is_empty()).then_some(())
    }
}

fn errors(problems: &Problems) -> impl Iterator<Item = &Problem> {
    problems.iter().filter(|problem| problem.kind.severity() == Severity::Error)
}

fn is_new_cause(question: &Question, text: &str, snapshot: &Snapshot, causes: &[Cause]) -> bool {
    let Some(document) = Document::parse(text, &mut Problems::default()) else { return false };
    let next = Diagnosis::of(question, &Simulation::of(question, snapshot), snapshot, &document).cause;
    next.is_some_and(|next| !causes.contains(&next))
}

/// The names of the routes, but for that of the request, whose policy lets the request pass after an edit and did not
/// before.
fn also_opened(question: &Question, before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let play = Simulation::of(question, after);
    if play.preflight == Why::SameOrigin || before.routes().len() != after.routes().len() {
        return Vec::new();
    }
    let own = play.last().exchange.verdict.route.map(|found| found.index as usize);
    let passes = |route: &Route| route.policy.as_ref().is_some_and(|policy| passes(question, &play, policy));
    let both = before.routes().iter().zip(after.routes()).enumerate();
    both.filter(|(i, (before, after))| Some(*i) != own && passes(after) && !passes(before))
        .map(|(_, (_, after))| after.name.to_string())
        .collect()
}

/// Whether all steps of a conversation would pass if this were the policy of its route.
fn passes(question: &Question, play: &Simulation<'_>, policy: &Policy) -> bool {
    play.steps.iter().all(|step| {
        let headers: Vec<(String, String)> = match step.stage {
            // The names that it asks for, with a value that is not safelisted.
            Stage::Preflight => asked_names(step).into_iter().map(|name| (name, "\"".to_owned())).collect(),
            Stage::Response => Vec::new(),
        };
        let fetch = Fetch {
            origin: &step.origin,
            method: &question.method,
            headers: &headers,
            credentials: question.credentials,
        };
        let decision = policy.decide(&CorsRequest {
            method: &step.method,
            headers: &step.headers,
            scheme: step.url.scheme,
            authority: &step.url.authority,
        });
        let mut response = super::Head::new(http::StatusCode::OK);
        if let PolicyAction::AnswerPreflight(status) = decision.action {
            response.status = status;
        }
        decision.edits.apply(&mut response);
        match step.stage {
            Stage::Preflight => fetch.check_preflight(response.status, response.map()).is_ok(),
            Stage::Response => {
                let can_read = |name: &String| fetch.can_read(response.map(), name);
                fetch.check(response.map()).is_ok() && question.reads.iter().all(can_read)
            }
        }
    })
}

impl Candidate {
    fn new(step: String, edits: Vec<Edit>) -> Self {
        Candidate { step, edits, widens: Vec::new() }
    }

    fn widens(mut self, widening: Option<Widening>) -> Self {
        self.widens.extend(widening);
        self
    }

    /// The edited text; None when the file is written in a way that is not understood.
    fn apply(&self, text: &str) -> Option<String> {
        self.edits.iter().try_fold(text.to_owned(), |text, edit| {
            let source = Source::new("", &text);
            match edit {
                Edit::Entry(at, entry) => source.with_entry(at, entry),
                Edit::Key(at, key, value) => source.with_key(at, key, value),
                Edit::Remove(at) => source.without(at),
            }
        })
    }
}

/// What there is to know when a cause is to be taken away.
struct FixContext<'a> {
    question: &'a Question,
    play: &'a Simulation<'a>,
    snapshot: &'a Snapshot,
    document: &'a Document,
}

impl FixContext<'_> {
    /// Ways to take a cause away, those that open least first.
    fn candidates(&self, cause: &Cause) -> Vec<Candidate> {
        match cause {
            Cause::UnknownHost { host, .. } => self.more_hosts(host),
            Cause::UnknownPath { path, .. } => self.more_paths(path),
            // The page writes it in another case than it means.
            Cause::NoRouteForMethod { meant: Some(_), .. } | Cause::MethodNotAllowed { meant: Some(_), .. } => {
                Vec::new()
            }
            Cause::NoRouteForMethod { method, allow, meant: None } => self.more_route_methods(method, allow),
            Cause::NoPolicy(_) => self.new_policy().into_iter().collect(),
            Cause::PolicyOff { level, shadows, .. } => {
                let uncovered = shadows.filter(|_| *level == Level::Route).and_then(|above| self.uncover(above));
                uncovered.into_iter().chain(self.new_policy()).collect()
            }
            Cause::OriginNotAllowed { origin, shadowed, level, .. } => {
                let uncovered = shadowed.filter(|_| *level == Level::Route).and_then(|above| self.uncover(above));
                self.more_origins(origin).into_iter().chain(uncovered).collect()
            }
            Cause::OriginNull => self.null_origin(),
            Cause::MethodNotAllowed { method, meant: None, .. } => self.more_methods(method).into_iter().collect(),
            Cause::HeadersNotAllowed { names, star } => self.more_headers(names, *star).into_iter().collect(),
            Cause::CredentialsNotAllowed { .. } => self.credentials(),
            Cause::NotExposed(names) => self.more_exposed(names).into_iter().collect(),
            Cause::Upstream(_) => {
                let step = "write `upstream_headers: replace`".to_owned();
                let value = NewValue::Literal("replace");
                let edit = self.scope().and_then(|scope| scope.route.policy_at());
                edit.map(|at| Candidate::new(step, vec![Edit::Key(at, "upstream_headers", value)]))
                    .into_iter()
                    .collect()
            }
            // Not for the file to repair.
            Cause::RefusedByGateway { .. }
            | Cause::OriginLost { .. }
            | Cause::OriginInvalid(_)
            | Cause::HeaderListTooLong => Vec::new(),
        }
    }

    fn last(&self) -> &Step<'_> {
        self.play.last()
    }

    fn scope(&self) -> Option<Scope<'_>> {
        let route = self.last().exchange.verdict.route?.route;
        Some(Scope { document: self.document, route })
    }

    // --- routing

    fn more_hosts(&self, host: &str) -> Vec<Candidate> {
        let services = self.document.services.iter().flatten().enumerate();
        let mut known: Vec<(usize, usize, &str)> = services
            .filter_map(|(i, service)| {
                let hosts = service.hosts.as_ref()?.entries().iter();
                let distance = hosts.map(|known| strsim::damerau_levenshtein(known, host)).min()?;
                Some((distance, i, service.name.as_deref().unwrap_or("the service")))
            })
            .collect();
        known.sort_unstable();
        let candidate = |(_, i, name): (usize, usize, &str)| {
            let service = RoutePlace { service: u32::try_from(i).unwrap_or(u32::MAX), route: None };
            let at = below(&service.at(Level::Service), "hosts");
            let widening = Widening::Requests(format!("Every request for {host} then goes to `{name}`."));
            Candidate::new(format!("add `{host}` to the hosts of `{name}`"), vec![Edit::Entry(at, host.to_owned())])
                .widens(Some(widening))
        };
        known.into_iter().take(MOST_PLACES).map(candidate).collect()
    }

    fn more_paths(&self, asked: &str) -> Vec<Candidate> {
        if asked.contains(['*', '{', '}']) || PathPattern::parse(asked).is_err() {
            return Vec::new();
        }
        let host = crate::domain::split_port(&self.last().url.authority).0.to_ascii_lowercase();
        let common = |path: &str| asked.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
        let mut routes: Vec<_> = routes_of_host(self.document, &host)
            .into_iter()
            .map(|(place, paths)| (std::cmp::Reverse(paths.iter().map(|path| common(path)).max().unwrap_or(0)), place))
            .collect();
        routes.sort_by_key(|(alike, _)| *alike);
        let candidate = |(_, place): (_, RoutePlace)| {
            let at = below(&place.at(Level::Route), "paths");
            let widening = Widening::Requests(format!("Every request for {asked} then takes this route."));
            let step = format!("add `{asked}` to {at}");
            Candidate::new(step, vec![Edit::Entry(at, asked.to_owned())]).widens(Some(widening))
        };
        routes.into_iter().take(MOST_PLACES).map(candidate).collect()
    }

    fn more_route_methods(&self, method: &str, allow: &str) -> Vec<Candidate> {
        let candidate = |place: crate::snapshot::RoutePlace| {
            let at = below(&place.at(Level::Route), "methods");
            let widening = Widening::Requests(format!("The upstream then gets {method} requests, from anybody."));
            let step = format!("add `{method}` to {at}");
            Candidate::new(step, vec![Edit::Entry(at, method.to_owned())]).widens(Some(widening))
        };
        routes_for(self.last(), allow, self.snapshot).into_iter().take(MOST_PLACES).map(candidate).collect()
    }

    // --- policies

    /// A policy for this route alone, that allows what is asked for and nothing else.
    fn new_policy(&self) -> Option<Candidate> {
        let question = self.question;
        let text = |text: &str| NewValue::Text(text.to_owned());
        let mut keys = vec![("allow_origins", text(&self.last().origin))];
        let method = routed_method(self.last());
        keys.push(("allow_methods", text(&meant(&method, std::iter::empty()).unwrap_or(method))));
        let asked = asked_names(self.play.steps.first()?);
        if !asked.is_empty() {
            let names = asked.iter().map(|name| question.spelled(name)).collect();
            keys.push(("allow_headers", NewValue::List(names)));
        }
        if !question.reads.is_empty() {
            keys.push(("expose_headers", NewValue::List(question.reads.clone())));
        }
        if question.credentials == Credentials::Include {
            keys.push(("allow_credentials", NewValue::Literal("true")));
        }
        if self.last().origin == "null" {
            keys.push(("dangerously_allow", NewValue::List(vec!["null_origin".into()])));
        }
        let route = self.scope()?.route;
        let what = if route.place.route.is_some() { "route" } else { "service" };
        let edit = Edit::Key(route.at(), "cors", NewValue::Mapping(keys));
        let widening = "The gateway then answers its preflights and replaces the upstream's CORS headers.";
        let candidate = Candidate::new(format!("give the {what} `{}` a policy", route.name), vec![edit]);
        let every_site = (self.last().origin == "null").then_some(Widening::EverySite);
        Some(candidate.widens(Some(Widening::Requests(widening.to_owned()))).widens(every_site))
    }

    /// Takes away what stands in front of a farther policy.
    fn uncover(&self, above: Level) -> Option<Candidate> {
        let route = self.scope()?.route;
        let step = format!("remove `cors` of the route, so that the policy {} counts", super::cause::at(above));
        let widening = format!("All that the policy {} allows is then allowed here.", super::cause::at(above));
        Some(Candidate::new(step, vec![Edit::Remove(route.cors_at()?)]).widens(Some(Widening::Requests(widening))))
    }

    fn more_origins(&self, origin: &str) -> Vec<Candidate> {
        let Some((settings, at)) = self.scope().and_then(|scope| scope.settings()) else { return Vec::new() };
        let edit = match settings.allow_origins {
            Some(_) => Edit::Entry(below(&at, "allow_origins"), origin.to_owned()),
            None => Edit::Key(at, "allow_origins", NewValue::Text(origin.to_owned())),
        };
        let candidate = Candidate::new(format!("add `{origin}` to allow_origins"), vec![edit]);
        vec![candidate.widens(Some(whole_policy(origin, settings)))]
    }

    fn null_origin(&self) -> Vec<Candidate> {
        let Some((settings, at)) = self.scope().and_then(|scope| scope.settings()) else { return Vec::new() };
        let danger = || match settings.dangerously_allow {
            Some(_) => Edit::Entry(below(&at, "dangerously_allow"), "null_origin".into()),
            None => Edit::Key(at.clone(), "dangerously_allow", NewValue::List(vec!["null_origin".into()])),
        };
        let origin = match settings.allow_origins {
            Some(_) => Edit::Entry(below(&at, "allow_origins"), "null".into()),
            None => Edit::Key(at.clone(), "allow_origins", NewValue::Text("null".into())),
        };
        let widening = || Some(Widening::EverySite);
        let step = "accept the origin null, with `dangerously_allow: [null_origin]`";
        vec![
            Candidate::new(step.to_owned(), vec![danger()]).widens(widening()),
            Candidate::new(step.to_owned(), vec![origin, danger()]).widens(widening()),
        ]
    }

    fn more_methods(&self, method: &str) -> Option<Candidate> {
        let at = self.scope()?.key("allow_methods")?;
        let widening = self.all_origins(format!("send {method}"));
        let edit = Edit::Entry(at, method.to_owned());
        Some(Candidate::new(format!("add `{method}` to allow_methods"), vec![edit]).widens(widening))
    }

    fn more_headers(&self, names: &[String], star: bool) -> Option<Candidate> {
        if names.is_empty() {
            return None;
        }
        let (settings, at) = self.scope()?.settings()?;
        let key = below(&at, "allow_headers");
        let edits = match settings.allow_headers {
            Some(_) => names.iter().map(|name| Edit::Entry(key.clone(), name.clone())).collect(),
            None => {
                let all = star.then(|| "*".to_owned()).into_iter().chain(names.iter().cloned()).collect();
                vec![Edit::Key(at, "allow_headers", NewValue::List(all))]
            }
        };
        let listed = names.join("`, `");
        let widening = self.all_origins(format!("send {}", names.join(", ")));
        Some(Candidate::new(format!("add `{listed}` to allow_headers"), edits).widens(widening))
    }

    fn more_exposed(&self, names: &[String]) -> Option<Candidate> {
        let (settings, at) = self.scope()?.settings()?;
        let key = below(&at, "expose_headers");
        let edits = match settings.expose_headers {
            Some(_) => names.iter().map(|name| Edit::Entry(key.clone(), name.clone())).collect(),
            None => vec![Edit::Key(at, "expose_headers", NewValue::List(names.to_vec()))],
        };
        let widening = self.all_origins(format!("read {}", names.join(", ")));
        Some(Candidate::new(format!("add `{}` to expose_headers", names.join("`, `")), edits).widens(widening))
    }

    /// `*` is for requests without credentials, for origins and for exposed headers: then they have to be listed.
    fn credentials(&self) -> Vec<Candidate> {
        let Some((settings, at)) = self.scope().and_then(|scope| scope.settings()) else { return Vec::new() };
        let on = || Edit::Key(at.clone(), "allow_credentials", NewValue::Literal("true"));
        let any = |list: &Option<List>| list.iter().flat_map(List::entries).any(|entry| entry == "*");
        let (any_origin, any_exposed) = (any(&settings.allow_origins), any(&settings.expose_headers));
        let mut edits = vec![on()];
        let mut step = "write `allow_credentials: true`".to_owned();
        if any_exposed {
            let exposed = match self.question.reads.is_empty() {
                true => Edit::Remove(below(&at, "expose_headers")),
                false => Edit::Key(at.clone(), "expose_headers", NewValue::List(self.question.reads.clone())),
            };
            edits.push(exposed);
            step += ", and list the exposed headers";
        }
        if any_origin {
            let origin = &self.last().origin;
            edits.insert(0, Edit::Key(at.clone(), "allow_origins", NewValue::Text(origin.clone())));
            let step = format!("{step}, with `{origin}` instead of `*` in allow_origins");
            return vec![Candidate::new(step, edits).widens(Some(Widening::OthersRefused))];
        }
        let widening = self.all_origins("send cookies and read what comes back".to_owned());
        vec![Candidate::new(step, edits).widens(widening)]
    }

    /// None when the policy allows this one origin only.
    fn all_origins(&self, may: String) -> Option<Widening> {
        let (settings, _) = self.scope()?.settings()?;
        let listed = settings.allow_origins.iter().flat_map(List::entries);
        let one = listed.clone().count() == 1 && listed.clone().all(|entry| !entry.contains('*'));
        let none_else = settings.allow_origin_sets.is_none()
            && settings.allow_origins_by_regex.as_ref().map(Patterns::sources).is_none();
        (!(one && none_else)).then_some(Widening::AllOrigins(vec![may]))
    }
}

/// What an origin gets that is allowed, beyond what was asked for.
fn whole_policy(origin: &str, settings: &Settings) -> Widening {
    let words = |list: &Option<List>, any: &str| match list.as_ref().map(List::entries) {
        None => any.to_owned(),
        Some(entries) if entries.iter().any(|entry| entry == "*") => any.to_owned(),
        Some(entries) => entries.join(", "),
    };
    let mut allows = vec![
        format!("methods: {}", words(&settings.allow_methods, "any")),
        format!("headers: {}", words(&settings.allow_headers, "any")),
    ];
    if settings.allow_credentials {
        allows.push("credentials".to_owned());
    }
    Widening::WholePolicy { origin: origin.to_owned(), allows: allows.join("; ") }
}

fn below(at: &KeyPath, key: &str) -> KeyPath {
    let mut at = at.clone();
    at.0.push(KeyStep::Key(key.to_owned()));
    at
}

// === impl Widening ===

/// A reader wants an idea of how many, not a thousand names.
const MOST_NAMES: usize = 6;

impl Widening {
    /// Adds this to others; what is alike becomes one.
    fn add_to(self, all: &mut Vec<Widening>) {
        if let Widening::AllOrigins(more) = &self {
            for widening in all.iter_mut() {
                if let Widening::AllOrigins(what) = widening {
                    what.extend(more.iter().cloned());
                    return;
                }
            }
        }
        if !all.contains(&self) {
            all.push(self);
        }
    }
}

impl fmt::Display for Widening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Widening::Routes(names) => {
                let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(String::as_str).collect();
                let more = match names.len().saturating_sub(MOST_NAMES) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                write!(f, "The policy is shared: the same then passes on {}{more}.", shown.join(", "))
            }
            Widening::WholePolicy { origin, allows } => {
                write!(f, "Pages of {origin} then get all that the policy allows ({allows}).")
            }
            Widening::AllOrigins(what) => {
                write!(f, "Every origin that the policy allows may then: {}.", what.join("; "))
            }
            Widening::EverySite => f.write_str(
                "Every site can send the origin null, from a sandboxed frame: this opens it to all of them.",
            ),
            Widening::Requests(sentence) => f.write_str(sentence),
            Widening::OthersRefused => {
                f.write_str("Pages of other origins are refused from then on: list those that are yours too.")
            }
        }
    }
}

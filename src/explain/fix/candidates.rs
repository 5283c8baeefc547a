//! The candidates for each cause: a few edits that can remove it. The narrowest edit is first.

use std::cmp::Reverse;

use super::widening::{Widening, whole_policy};
use crate::config::{Document, NewValue, Source};
use crate::cors::Patterns;
use crate::cors::fetch_names::is_response_header;
use crate::domain::split_port;
use crate::explain::cause::{
    Cause, RouteConfig, known_in_other_case, least_distance, of_level, routes_of_host, routes_of_path,
};
use crate::explain::fetch::Credentials;
use crate::explain::question::Question;
use crate::explain::simulation::{Simulation, Step};
use crate::notation::List;
use crate::problem::{KeyPath, PathStep};
use crate::route::PathPattern;
use crate::snapshot::{Level, RoutePlace, Snapshot};

/// Maximum number of routes or services that are tried for one cause.
const MAX_PLACES: usize = 4;
/// Maximum number of hosts with a computed exact distance.
const MAX_COMPARED: usize = 64;

/// An edit that can remove a cause.
pub(super) struct Candidate {
    /// The step for the user, such as ``add `DELETE` to allow_methods``.
    pub(super) step: String,
    edits: Vec<Edit>,
    pub(super) widens: Vec<Widening>,
}

enum Edit {
    /// Adds an entry to the list at a place.
    Entry(KeyPath, String),
    /// Sets a key of the mapping at a place.
    Key(KeyPath, &'static str, NewValue),
    /// Removes the key or the entry at a place.
    Remove(KeyPath),
}

impl Candidate {
    fn new(step: String, edits: Vec<Edit>) -> Self {
        Candidate { step, edits, widens: Vec::new() }
    }

    fn widens(mut self, widening: Option<Widening>) -> Self {
        self.widens.extend(widening);
        self
    }

    /// Returns the edited text. Returns None if the notation of the file does not permit the edit.
    pub(super) fn apply(&self, source: &Source<'_>) -> Option<String> {
        let (first, others) = self.edits.split_first()?;
        others.iter().try_fold(first.apply(source)?, |text, edit| edit.apply(&Source::new("", &text)))
    }
}

impl Edit {
    fn apply(&self, source: &Source<'_>) -> Option<String> {
        match self {
            Edit::Entry(at, entry) => source.with_entry(at, entry),
            Edit::Key(at, key, value) => source.with_key(at, key, value),
            Edit::Remove(at) => source.without(at),
        }
    }
}

/// The input for the candidates.
pub(super) struct FixContext<'a> {
    pub(super) question: &'a Question,
    pub(super) simulation: &'a Simulation<'a>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) document: &'a Document,
}

impl FixContext<'_> {
    /// Returns the candidates for a cause. The narrowest edit is first.
    pub(super) fn candidates(&self, cause: &Cause) -> Vec<Candidate> {
        match cause {
            Cause::UnknownHost { host, .. } => self.add_host(host),
            Cause::UnknownPath { path, .. } => self.add_path(path),
            // The page has the method in the wrong case, so the page must change, not the file.
            Cause::NoRouteForMethod { other_case: Some(_), .. }
            | Cause::MethodNotAllowed { other_case: Some(_), .. } => Vec::new(),
            Cause::NoRouteForMethod { method, allow, other_case: None } => self.add_route_method(method, allow),
            Cause::NoPolicy(_) => self.new_policy().into_iter().collect(),
            Cause::PolicyOff { level, shadowed, .. } => {
                let remove = shadowed.filter(|_| *level == Level::Route).and_then(|outer| self.remove_cors(outer));
                remove.into_iter().chain(self.new_policy()).collect()
            }
            Cause::OriginNotAllowed { origin, shadowed, level, .. } => {
                let remove = shadowed.filter(|_| *level == Level::Route).and_then(|outer| self.remove_cors(outer));
                self.add_origin(origin).into_iter().chain(remove).collect()
            }
            Cause::OriginNull => self.allow_null(),
            Cause::MethodNotAllowed { method, other_case: None, .. } => self.add_method(method).into_iter().collect(),
            Cause::HeadersNotAllowed { names, star } => self.add_headers(names, *star).into_iter().collect(),
            Cause::CredentialsNotAllowed { .. } => self.allow_credentials(),
            Cause::NotExposed(names) => self.expose_headers(names).into_iter().collect(),
            Cause::Upstream(_) => {
                let step = "write `upstream_headers: replace`".to_owned();
                let value = NewValue::Literal("replace");
                let policy_at = self.config().and_then(|config| config.route.policy_at());
                policy_at
                    .map(|at| Candidate::new(step, vec![Edit::Key(at, "upstream_headers", value)]))
                    .into_iter()
                    .collect()
            }
            Cause::ResourcePolicy { .. } => self.resource_policy(),
            // No edit of the file can remove these causes.
            Cause::RefusedByGateway { .. }
            | Cause::OriginLost { .. }
            | Cause::OriginInvalid(_)
            | Cause::TlsInFront { .. }
            | Cause::Navigation { .. }
            | Cause::CrossSite
            | Cause::ResponseHeaders(_)
            | Cause::Redirect(_)
            | Cause::NotSwitched { .. }
            | Cause::HeaderListTooLong => Vec::new(),
        }
    }

    fn last(&self) -> &Step<'_> {
        self.simulation.last()
    }

    fn config(&self) -> Option<RouteConfig<'_>> {
        let route = self.last().exchange.verdict.route?.route;
        Some(RouteConfig { document: self.document, route })
    }

    // --- routing

    fn add_host(&self, host: &str) -> Vec<Candidate> {
        let services = self.document.services.iter().flatten().enumerate();
        // The exact distance is computed only for the hosts that can be nearest.
        let mut nearest: Vec<(usize, usize, &str, &str)> = services
            .filter_map(|(i, service)| {
                let hosts = service.hosts.as_ref()?.entries().iter();
                let (least, other) = hosts.map(|other| (least_distance(other, host), other.as_str())).min()?;
                Some((least, i, other, service.name.as_deref().unwrap_or("the service")))
            })
            .collect();
        nearest.sort_unstable();
        nearest.truncate(MAX_COMPARED);
        let distance = |(_, i, other, name)| (strsim::damerau_levenshtein(other, host), i, name);
        let mut by_distance: Vec<(usize, usize, &str)> = nearest.into_iter().map(distance).collect();
        by_distance.sort_unstable();
        let candidate = |(_, i, name): (usize, usize, &str)| {
            let service = RoutePlace { service: u32::try_from(i).unwrap_or(u32::MAX), route: None };
            let at = below(&service.at(Level::Service), "hosts");
            let widening = Widening::Sentence(format!("All requests for {host} then go to `{name}`."));
            Candidate::new(format!("add `{host}` to the hosts of `{name}`"), vec![Edit::Entry(at, host.to_owned())])
                .widens(Some(widening))
        };
        by_distance.into_iter().take(MAX_PLACES).map(candidate).collect()
    }

    fn add_path(&self, path: &str) -> Vec<Candidate> {
        if path.contains(['*', '{', '}']) || PathPattern::parse(path).is_err() {
            return Vec::new();
        }
        let host = split_port(&self.last().url.authority).0.to_ascii_lowercase();
        let common_prefix = |other: &str| path.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let mut routes: Vec<_> = routes_of_host(self.document, &host)
            .into_iter()
            .map(|(place, paths)| (Reverse(paths.iter().map(|other| common_prefix(other)).max().unwrap_or(0)), place))
            .collect();
        routes.sort_by_key(|(common, _)| *common);
        let candidate = |(_, place): (_, RoutePlace)| {
            let at = below(&place.at(Level::Route), "paths");
            let widening = Widening::Sentence(format!("All requests for {path} then use this route."));
            let step = format!("add `{path}` to {at}");
            Candidate::new(step, vec![Edit::Entry(at, path.to_owned())]).widens(Some(widening))
        };
        routes.into_iter().take(MAX_PLACES).map(candidate).collect()
    }

    fn add_route_method(&self, method: &str, allow: &str) -> Vec<Candidate> {
        let candidate = |place: RoutePlace| {
            let at = below(&place.at(Level::Route), "methods");
            let widening = Widening::Sentence(format!("The upstream then gets {method} requests from all clients."));
            let step = format!("add `{method}` to {at}");
            Candidate::new(step, vec![Edit::Entry(at, method.to_owned())]).widens(Some(widening))
        };
        routes_of_path(self.last(), allow, self.snapshot).into_iter().take(MAX_PLACES).map(candidate).collect()
    }

    // --- policies

    /// Returns a policy for this route only. It allows only the request of the question.
    fn new_policy(&self) -> Option<Candidate> {
        let question = self.question;
        let text = |text: &str| NewValue::Text(text.to_owned());
        let mut keys = vec![("allow_origins", text(&self.last().origin))];
        let method = self.last().routed_method();
        keys.push(("allow_methods", text(&known_in_other_case(&method, std::iter::empty()).unwrap_or(method))));
        let mut requested = self.simulation.last_steps().next()?.requested_headers();
        // Pages do not need to send these headers.
        requested.retain(|name| !is_response_header(name));
        if !requested.is_empty() {
            let names = requested.iter().map(|name| question.page_spelling(name)).collect();
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
        let route = self.config()?.route;
        let kind = if route.place.route.is_some() { "route" } else { "service" };
        let edit = Edit::Key(route.at(), "cors", NewValue::Mapping(keys));
        let widening = format!(
            "The gateway then answers the preflights of this {kind} and replaces the CORS headers of the upstream."
        );
        let candidate = Candidate::new(format!("give the {kind} `{}` a policy", route.name), vec![edit]);
        let every_site = (self.last().origin == "null").then_some(Widening::EverySite);
        Some(candidate.widens(Some(Widening::Sentence(widening))).widens(every_site))
    }

    /// Removes the `cors` of the route, so that the policy of an outer level applies.
    fn remove_cors(&self, outer: Level) -> Option<Candidate> {
        let route = self.config()?.route;
        let outer = of_level(outer);
        let step = format!("remove `cors` of the route, so that the policy {outer} applies");
        let widening = format!("The route then allows everything that the policy {outer} allows.");
        Some(Candidate::new(step, vec![Edit::Remove(route.cors_at()?)]).widens(Some(Widening::Sentence(widening))))
    }

    fn add_origin(&self, origin: &str) -> Vec<Candidate> {
        let Some((settings, at)) = self.config().and_then(|config| config.settings()) else { return Vec::new() };
        let edit = match settings.allow_origins {
            Some(_) => Edit::Entry(below(&at, "allow_origins"), origin.to_owned()),
            None => Edit::Key(at, "allow_origins", NewValue::Text(origin.to_owned())),
        };
        let candidate = Candidate::new(format!("add `{origin}` to allow_origins"), vec![edit]);
        vec![candidate.widens(Some(whole_policy(origin, settings)))]
    }

    fn allow_null(&self) -> Vec<Candidate> {
        let Some((settings, at)) = self.config().and_then(|config| config.settings()) else { return Vec::new() };
        let danger = || match settings.dangerously_allow {
            Some(_) => Edit::Entry(below(&at, "dangerously_allow"), "null_origin".into()),
            None => Edit::Key(at.clone(), "dangerously_allow", NewValue::List(vec!["null_origin".into()])),
        };
        let origin = match settings.allow_origins {
            Some(_) => Edit::Entry(below(&at, "allow_origins"), "null".into()),
            None => Edit::Key(at.clone(), "allow_origins", NewValue::Text("null".into())),
        };
        let widening = || Some(Widening::EverySite);
        let step = "allow the origin null, with `dangerously_allow: [null_origin]`";
        vec![
            Candidate::new(step.to_owned(), vec![danger()]).widens(widening()),
            Candidate::new(step.to_owned(), vec![origin, danger()]).widens(widening()),
        ]
    }

    fn add_method(&self, method: &str) -> Option<Candidate> {
        let at = self.config()?.policy_key("allow_methods")?;
        let widening = self.all_origins(format!("send {method}"));
        let edit = Edit::Entry(at, method.to_owned());
        Some(Candidate::new(format!("add `{method}` to allow_methods"), vec![edit]).widens(widening))
    }

    fn add_headers(&self, names: &[String], star: bool) -> Option<Candidate> {
        if names.is_empty() {
            return None;
        }
        let (settings, at) = self.config()?.settings()?;
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

    fn expose_headers(&self, names: &[String]) -> Option<Candidate> {
        let (settings, at) = self.config()?.settings()?;
        let key = below(&at, "expose_headers");
        let edits = match settings.expose_headers {
            Some(_) => names.iter().map(|name| Edit::Entry(key.clone(), name.clone())).collect(),
            None => vec![Edit::Key(at, "expose_headers", NewValue::List(names.to_vec()))],
        };
        let widening = self.all_origins(format!("read {}", names.join(", ")));
        Some(Candidate::new(format!("add `{}` to expose_headers", names.join("`, `")), edits).widens(widening))
    }

    /// Allows credentials. Browsers do not accept `*` with credentials, so origins and exposed headers are then listed.
    fn allow_credentials(&self) -> Vec<Candidate> {
        let Some((settings, at)) = self.config().and_then(|config| config.settings()) else { return Vec::new() };
        let has_star = |list: &Option<List>| list.iter().flat_map(List::entries).any(|entry| entry == "*");
        let mut edits = vec![Edit::Key(at.clone(), "allow_credentials", NewValue::Literal("true"))];
        let mut steps = vec!["write `allow_credentials: true`".to_owned()];
        if has_star(&settings.expose_headers) {
            if self.question.reads.is_empty() {
                edits.push(Edit::Remove(below(&at, "expose_headers")));
                steps.push("remove expose_headers".to_owned());
            } else {
                let names = NewValue::List(self.question.reads.clone());
                edits.push(Edit::Key(at.clone(), "expose_headers", names));
                let names = self.question.reads.join("`, `");
                steps.push(format!("write `{names}` instead of `*` in expose_headers"));
            }
        }
        if has_star(&settings.allow_origins) {
            let origin = &self.last().origin;
            edits.insert(0, Edit::Key(at.clone(), "allow_origins", NewValue::Text(origin.clone())));
            steps.push(format!("write `{origin}` instead of `*` in allow_origins"));
            return vec![Candidate::new(steps.join("; "), edits).widens(Some(Widening::OthersRefused))];
        }
        let widening = self.all_origins("send credentials and read the responses".to_owned());
        vec![Candidate::new(steps.join("; "), edits).widens(widening)]
    }

    /// Two candidates for `cross_origin_resource_policy`: `same-site`, then `cross-origin`.
    fn resource_policy(&self) -> Vec<Candidate> {
        let Some((_, at)) = self.config().and_then(|config| config.settings()) else { return Vec::new() };
        let candidate = |(value, pages): (&'static str, &str)| {
            let key = "cross_origin_resource_policy";
            let edit = Edit::Key(at.clone(), key, NewValue::Literal(value));
            let widening = Widening::Sentence(format!("{pages} can then load the responses without CORS."));
            Candidate::new(format!("write `{key}: {value}`"), vec![edit]).widens(Some(widening))
        };
        [("same-site", "All pages of the same site"), ("cross-origin", "Pages of every site")].map(candidate).into()
    }

    /// Returns the widening for all origins of the policy. Returns None if the policy allows only one origin.
    fn all_origins(&self, action: String) -> Option<Widening> {
        let (settings, _) = self.config()?.settings()?;
        let listed = settings.allow_origins.iter().flat_map(List::entries);
        let is_one = listed.clone().count() == 1 && listed.clone().all(|entry| !entry.contains(['*', '{']));
        let has_no_others = settings.allow_origin_sets.is_none()
            && settings.allow_origins_by_regex.as_ref().map(Patterns::sources).is_none();
        (!(is_one && has_no_others)).then_some(Widening::AllOrigins(vec![action]))
    }
}

fn below(at: &KeyPath, key: &str) -> KeyPath {
    let mut at = at.clone();
    at.0.push(PathStep::Key(key.to_owned()));
    at
}

//! Finds the cause of a refusal, and its place in the file.

use super::near_miss::{NearMiss, least_distance};
use super::{Cause, InvalidOrigin, RouteConfig, TlsEffect};
use crate::config::Document;
use crate::cors::{self, MAX_ORIGIN, OriginPattern};
use crate::decide::{Action, ConnectionFacts, Framing, Refusal, Request};
use crate::domain::{OwnOrigin, Scheme, split_port};
use crate::explain::fetch::{Credentials, NetworkError};
use crate::explain::question::{Initiator, Question, QuestionSource};
use crate::explain::simulation::{PageResult, Simulation, Step};
use crate::notation::List;
use crate::problem::{KeyPath, PathStep, nearest};
use crate::snapshot::{Level, RoutePlace, Snapshot};

/// The cause of a refusal, and the key that can fix it. The cause is None if the request is not refused.
#[derive(Debug)]
pub(in crate::explain) struct Diagnosis {
    pub(in crate::explain) cause: Option<Cause>,
    pub(in crate::explain) at: Option<KeyPath>,
}

impl Diagnosis {
    pub(in crate::explain) fn of(
        question: &Question,
        simulation: &Simulation<'_>,
        snapshot: &Snapshot,
        document: &Document,
    ) -> Self {
        let last = simulation.last();
        let verdict = &last.exchange.verdict;
        let none = Diagnosis { cause: None, at: None };
        let config = verdict.route.map(|found| RouteConfig { document, route: found.route });
        let error = match &simulation.result {
            PageResult::Response | PageResult::RedirectAway(_) => return none,
            PageResult::Unreadable(names) => {
                let at = config.and_then(|config| config.policy_key("expose_headers"));
                return Diagnosis { cause: Some(Cause::NotExposed(names.clone())), at };
            }
            PageResult::Rejected => None,
            PageResult::Blocked(error) => Some(error),
        };
        if let Action::Refuse(refusal) = verdict.action
            && !matches!(refusal, Refusal::OriginRejected(_))
        {
            return Self::of_refusal(refusal, last, snapshot, document);
        }
        let trusted = !snapshot.trusted_proxies().is_empty();
        let tls_in_front = |effect| {
            let at = trusted.then(|| KeyPath(vec![PathStep::Key("trusted_proxies".into())]));
            Diagnosis { cause: Some(Cause::TlsInFront { effect, trusted }), at }
        };
        if let (Action::RedirectToHttps(_), Some(NetworkError::TooManyRedirects)) = (verdict.action, error) {
            return tls_in_front(TlsEffect::RedirectLoop);
        }
        match error {
            Some(NetworkError::RedirectToUserPart | NetworkError::RedirectToNoUrl(_)) => {
                return Diagnosis { cause: error.cloned().map(Cause::Redirect), at: None };
            }
            Some(NetworkError::NotSwitched(status)) => {
                let by_gateway = matches!(verdict.action, Action::RedirectToHttps(_));
                return Diagnosis { cause: Some(Cause::NotSwitched { status: *status, by_gateway }), at: None };
            }
            Some(NetworkError::ResourcePolicy(policy)) => {
                let settings = config.and_then(|config| config.settings());
                let by_policy = settings.is_some_and(|(settings, _)| settings.cross_origin_resource_policy.is_some());
                let at = config.filter(|_| by_policy);
                let at = at.and_then(|config| config.policy_key("cross_origin_resource_policy"));
                return Diagnosis { cause: Some(Cause::ResourcePolicy { policy: *policy, by_policy }), at };
            }
            _ => {}
        }
        let Some(config) = config else { return none };
        let Some(reason) = verdict.outcome.reason() else { return none };
        // The browser checks credentials before methods and headers. The gateway cannot check them, because a preflight
        // has no credentials.
        if reason != cors::Reason::NoPolicy {
            let any_origin = match error {
                Some(NetworkError::WildcardWithCredentials) => Some(true),
                Some(NetworkError::NoAllowCredentials) => Some(false),
                _ => None,
            };
            if let Some(any_origin) = any_origin {
                let cause = Some(Cause::CredentialsNotAllowed { any_origin });
                return Diagnosis { cause, at: config.policy_key("allow_credentials") };
            }
        }
        let is_rejected = matches!(verdict.action, Action::Refuse(Refusal::OriginRejected(_)));
        let (cause, at) = match reason {
            _ if is_rejected && question.initiator == Initiator::Navigation && !is_own_behind_tls(question, last) => {
                let key = if reason == cors::Reason::CrossSite { "cross_site" } else { "disallowed_origins" };
                (Cause::Navigation { origin: last.origin.clone(), key, code: reason.code() }, config.policy_key(key))
            }
            cors::Reason::CrossSite
                if config.route.policy.as_ref().is_some_and(|policy| policy.allows_any_origin()) =>
            {
                (Cause::CrossSite, config.policy_key("cross_site"))
            }
            cors::Reason::NoPolicy => {
                let error = error.cloned().unwrap_or(NetworkError::NoAllowOrigin);
                match &config.route.cors {
                    None => (Cause::NoPolicy(error), Some(config.route.at())),
                    Some(place) => {
                        let shadowed = config.outer_policies(place.level).next().map(|(level, _)| level);
                        (Cause::PolicyOff { level: place.level, shadowed, error }, config.route.cors_at())
                    }
                }
            }
            cors::Reason::OriginNull if simulation.last_steps().any(|step| step.origin != "null") => {
                (Cause::OriginLost { to: last.url.to_string() }, None)
            }
            cors::Reason::OriginNull => (Cause::OriginNull, config.origins_at()),
            cors::Reason::CrossSite if last.origin == "null" => (Cause::OriginNull, config.origins_at()),
            cors::Reason::OriginInvalid => (Cause::OriginInvalid(invalid_origin(question)), None),
            cors::Reason::OriginNotAllowed if is_own_behind_tls(question, last) => {
                return tls_in_front(TlsEffect::ForeignOrigin(last.origin.clone()));
            }
            cors::Reason::OriginNotAllowed
            | cors::Reason::CrossSite
            | cors::Reason::SameOrigin
            | cors::Reason::NoOrigin => {
                let near_miss = NearMiss::find(&config, &last.origin);
                let at = near_miss.as_ref().map(|(_, at)| at.clone()).or_else(|| config.origins_at());
                let has_credentials = question.credentials == Credentials::Include
                    || config.settings().is_some_and(|(settings, _)| settings.allow_credentials);
                let is_insecure = match OriginPattern::parse(&last.origin) {
                    Ok(OriginPattern::Tuple(origin)) => origin.is_insecure(),
                    _ => false,
                };
                let cause = Cause::OriginNotAllowed {
                    origin: last.origin.clone(),
                    insecure: has_credentials && is_insecure,
                    near_miss: near_miss.map(|(near_miss, _)| near_miss),
                    shadowed: config.shadowed_policy(last),
                    level: config.route.cors.as_ref().map_or(Level::Top, |place| place.level),
                };
                (cause, at)
            }
            cors::Reason::MethodNotAllowed => {
                let method = simulation.fetch_at(last).normalised_method();
                let settings = config.settings().map(|(settings, _)| settings);
                let listed = settings.and_then(|settings| settings.allow_methods.as_ref()).map(List::entries);
                let listed = listed.unwrap_or_default().to_vec();
                let other_case = known_in_other_case(&method, listed.iter().map(String::as_str));
                (Cause::MethodNotAllowed { method, listed, other_case }, config.policy_key("allow_methods"))
            }
            cors::Reason::HeaderNotAllowed => {
                let (names, star) = config.missing_headers(&last.requested_headers());
                let names: Vec<String> = names.iter().map(|name| question.page_spelling(name)).collect();
                let of_responses: Vec<String> =
                    names.iter().filter(|name| cors::fetch_names::is_response_header(name)).cloned().collect();
                match of_responses.is_empty() {
                    true => (Cause::HeadersNotAllowed { names, star }, config.policy_key("allow_headers")),
                    false => (Cause::ResponseHeaders(of_responses), None),
                }
            }
            cors::Reason::HeaderListTooLong => (Cause::HeaderListTooLong, None),
            cors::Reason::AllowedAny
            | cors::Reason::AllowedExact
            | cors::Reason::AllowedPattern
            | cors::Reason::AllowedRegex => match error {
                Some(error) => (Cause::Upstream(error.clone()), None),
                None => return none,
            },
        };
        Diagnosis { cause: Some(cause), at }
    }

    fn of_refusal(refusal: Refusal<'_>, last: &Step<'_>, snapshot: &Snapshot, document: &Document) -> Self {
        let host = split_port(&last.url.authority).0.to_ascii_lowercase();
        let services = KeyPath(vec![PathStep::Key("services".into())]);
        let (cause, at) = match refusal {
            Refusal::UnknownHost => {
                let hosts = document.services.iter().flatten().filter_map(|service| service.hosts.as_ref());
                let similar = nearest_address(&host, hosts.flat_map(List::entries));
                (Cause::UnknownHost { host, similar }, Some(services))
            }
            Refusal::UnknownPath => {
                let path = last.url.path().to_owned();
                let candidates = routes_of_host(document, &host);
                let paths = candidates.iter().flat_map(|(_, paths)| paths.iter());
                let similar = nearest_address(&path, paths).or_else(|| {
                    let first = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
                    let all = candidates.iter().flat_map(|(_, paths)| paths.iter());
                    all.into_iter().find(|known| !first(known).is_empty() && first(known) == first(&path)).cloned()
                });
                let at = candidates.first().map(|(place, _)| place.at(Level::Service));
                (Cause::UnknownPath { path, similar }, at.or(Some(services)))
            }
            Refusal::MethodNotAllowed(allow) => {
                let allow = allow.to_str().unwrap_or_default().to_owned();
                let method = last.routed_method();
                let at = routes_of_path(last, &allow, snapshot).first().map(|place| {
                    let mut at = place.at(Level::Route);
                    at.0.push(PathStep::Key("methods".into()));
                    at
                });
                let other_case = known_in_other_case(&method, allow.split(',').map(str::trim));
                (Cause::NoRouteForMethod { method, allow, other_case }, at)
            }
            refusal => {
                let at = match refusal {
                    Refusal::ClientDenied => Some(clients_key(last, document)),
                    _ => None,
                };
                let status = refusal.status().as_u16();
                let (code, explanation) = (refusal.code(), refusal.explanation().trim_end());
                (Cause::RefusedByGateway { code, status, explanation }, at)
            }
        };
        Diagnosis { cause: Some(cause), at }
    }
}

/// Returns true if the Origin of a request equals the origin of its URL, except that the gateway receives plain http. A
/// page on https cannot send requests to plain http. So for a recorded request, another component has terminated TLS.
pub(in crate::explain) fn is_own_behind_tls(question: &Question, step: &Step<'_>) -> bool {
    let over_tls = step.url.scheme == Scheme::Https || !matches!(question.source, QuestionSource::Page);
    let is_own = OwnOrigin::of(Scheme::Https, &step.url.authority).is(&step.origin);
    step.exchange.scheme == Scheme::Http && over_tls && is_own
}

/// Returns the place of the `clients` that refuses the request: the key of the route or service, or else of a listener.
fn clients_key(step: &Step<'_>, document: &Document) -> KeyPath {
    let place = step.exchange.verdict.route.map(|found| found.route.place);
    let service = place.and_then(|place| document.services.as_ref()?.get(place.service as usize));
    let route = place.and_then(|place| service?.routes.as_ref()?.get(place.route? as usize));
    let level = match (route.map(|route| &route.clients), service.map(|service| &service.clients)) {
        (Some(Some(_)), _) => Some(Level::Route),
        (_, Some(Some(_))) => Some(Level::Service),
        _ => None,
    };
    match place.zip(level) {
        Some((place, level)) => {
            let mut at = place.at(level);
            at.0.push(PathStep::Key("clients".into()));
            at
        }
        None => KeyPath(vec![PathStep::Key("listeners".into())]),
    }
}

// --- methods

/// Returns the known method that differs from `method` only in case. PATCH is always known, because it is the only
/// common method that browsers do not change to upper case (Fetch, "normalize a method").
pub(in crate::explain) fn known_in_other_case<'w>(
    method: &str,
    known: impl Iterator<Item = &'w str>,
) -> Option<String> {
    let same = std::iter::once("PATCH").chain(known).find(|word| word.eq_ignore_ascii_case(method))?;
    (same != method).then(|| same.to_owned())
}

// --- routes

/// Returns the routes that accept the path of a step with one of the methods in `allow`. It decides one request for
/// each method.
pub(in crate::explain) fn routes_of_path(step: &Step<'_>, allow: &str, snapshot: &Snapshot) -> Vec<RoutePlace> {
    let mut places = Vec::new();
    for method in allow.split(',').filter_map(|method| http::Method::from_bytes(method.trim().as_bytes()).ok()) {
        let request = Request {
            method: &method,
            path: step.url.path().as_bytes(),
            target_length: step.url.path_and_query.len(),
            version: http::Version::HTTP_11,
            own_origin: step.url.own_origin(),
            authority: Some(&step.url.authority),
            headers: &http::HeaderMap::new(),
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        };
        if let Some(found) = snapshot.decide(&request).route
            && !places.contains(&found.route.place)
        {
            places.push(found.route.place);
        }
    }
    places
}

/// Returns the routes of all services that a host can belong to, with their paths. It ignores the precedence of hosts,
/// because each fix is tried before it is offered.
pub(in crate::explain) fn routes_of_host(document: &Document, host: &str) -> Vec<(RoutePlace, Vec<String>)> {
    let covers = |pattern: &String| match pattern.strip_prefix("*.") {
        Some(base) => host.strip_suffix(base).is_some_and(|front| front.ends_with('.')),
        None => pattern.eq_ignore_ascii_case(host),
    };
    let mut found = Vec::new();
    for (i, service) in document.services.iter().flatten().enumerate() {
        if !service.hosts.as_ref().is_none_or(|hosts| hosts.entries().iter().any(covers)) {
            continue;
        }
        for (j, route) in service.routes.iter().flatten().enumerate() {
            let place = RoutePlace { service: number(i), route: Some(number(j)) };
            found.push((place, route.paths.as_ref().map(|paths| paths.entries().to_vec()).unwrap_or_default()));
        }
    }
    found
}

fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn invalid_origin(question: &Question) -> InvalidOrigin {
    match &*question.origins {
        [origin] if origin.contains(',') => InvalidOrigin::Several,
        [origin] if origin.len() > MAX_ORIGIN => InvalidOrigin::TooLong,
        [_] => InvalidOrigin::Characters,
        _ => InvalidOrigin::Several,
    }
}

/// Returns the most similar known host or path. It allows fewer edits than for keys, because hosts of one domain and
/// paths of one service share most of their letters.
fn nearest_address<'w>(address: &str, known: impl Iterator<Item = &'w String>) -> Option<String> {
    let most = |length: usize| 2.max(length / 6);
    let lower = address.to_lowercase();
    let known = known.filter(|other| least_distance(&lower, &other.to_lowercase()) <= most(other.len()));
    nearest(address, known, most).map(str::to_owned)
}

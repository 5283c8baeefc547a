//! What is behind a refusal, in the words of whoever wrote the file: the cause, where it stands, and what to do.

use std::fmt::Write as _;

use super::question::Question;
use super::simulation::{End, Simulation, Step};
use crate::config::Document;
use crate::cors::{
    self, CorsRequest, MAX_NAMES, MAX_NAMES_BYTES, MAX_ORIGIN, OriginPattern, OriginSets, Origins, Patterns, Policy,
    Settings,
};
use crate::decide::{Action, Refusal};
use crate::domain::split_port;
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Stage};
use crate::notation::List;
use crate::problem::{At, KeyPath, PathStep as KeyStep, Problems};
use crate::snapshot::{Level, Route, RoutePlace, Snapshot};

/// What is behind a refusal, one variant each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No service has the host.
    UnknownHost {
        /// The host that was asked for.
        host: String,
        /// One that a service has and that looks like it.
        near: Option<String>,
    },
    /// The services of the host have no such path.
    UnknownPath {
        /// The path that was asked for.
        path: String,
        /// A path that they have and that looks like it.
        near: Option<String>,
    },
    /// The path has no route for the method.
    NoRouteForMethod {
        /// The method that was asked for.
        method: String,
        /// Those that it has routes for.
        allow: String,
        /// The same word in another case, which it has or which is usual: then the page is the place to repair it.
        meant: Option<String>,
    },
    /// The gateway refuses the request whatever its policy says.
    RefusedByGateway {
        /// The code of the refusal.
        code: &'static str,
        /// Its answer.
        status: u16,
        /// Its words.
        explanation: &'static str,
    },
    /// There is no policy at any level, and the upstream's own headers do not allow it.
    NoPolicy(NetworkError),
    /// `cors: false`, and the upstream's own headers do not allow it.
    PolicyOff {
        /// Where the `false` stands.
        level: Level,
        /// Where a policy stands that it switches off.
        shadows: Option<Level>,
        /// What the browser makes of the upstream's headers.
        error: NetworkError,
    },
    /// The policy does not allow the origin.
    OriginNotAllowed {
        /// The page's.
        origin: String,
        /// It is plain `http:`, which cannot go with credentials, and those are sent or allowed.
        insecure: bool,
        /// What it has that looks like it.
        near: Option<Near>,
        /// A farther level whose policy would allow it, and does not count.
        shadowed: Option<Level>,
        /// Where the policy stands.
        level: Level,
    },
    /// The page has the opaque origin.
    OriginNull,
    /// The page has lost its origin on the way, by a redirect from one foreign origin to another.
    OriginLost {
        /// Where the redirect leads.
        to: String,
    },
    /// What came as the Origin is none.
    OriginInvalid(InvalidOrigin),
    /// `allow_methods` lacks the method.
    MethodNotAllowed {
        /// As it is sent.
        method: String,
        /// Those that it has.
        listed: Vec<String>,
        /// The same word in another case, which it has or which is usual: then the page is the place to repair it.
        meant: Option<String>,
    },
    /// `allow_headers` lacks these.
    HeadersNotAllowed {
        /// Their names, as the page writes them.
        names: Vec<String>,
        /// It has a `*`, which does not cover `Authorization`.
        star: bool,
    },
    /// The preflight asks for more headers than are looked at.
    HeaderListTooLong,
    /// The request has credentials, and the policy does not allow them.
    CredentialsNotAllowed {
        /// It allows any origin, which cannot go with credentials.
        any_origin: bool,
    },
    /// The policy allows it, but the response that the browser gets does not; the upstream's part in it.
    Upstream(NetworkError),
    /// `expose_headers` lacks these.
    NotExposed(Vec<String>),
}

/// What a policy has that looks like the page's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// As it is written.
    pub(crate) listed: String,
    /// What is different.
    pub(crate) likeness: Likeness,
}

/// In what an entry differs from an origin that looks like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// `http` and `https`, or the like.
    Scheme,
    /// Its port.
    Port,
    /// Its scheme and its port.
    SchemeAndPort,
    /// `www.` in front.
    Www,
    /// It stands for subdomains, and the page is on the bare domain.
    BareDomain,
    /// The page is on a subdomain of it.
    Subdomain,
    /// A few letters.
    Spelling,
    /// It is a regular expression that matches a part of the origin, and only the whole counts.
    RegexPart,
}

/// Why an Origin is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidOrigin {
    /// There are several fields, or a list in one.
    Several,
    /// It is longer than any.
    TooLong,
    /// It has characters that none has.
    Characters,
}

/// A cause, and where it stands.
pub(super) struct Diagnosis {
    pub(super) cause: Option<Cause>,
    pub(super) at: Option<KeyPath>,
}

/// The parts of a file that bear on a route.
#[derive(Clone, Copy)]
pub(super) struct Scope<'d> {
    pub(super) document: &'d Document,
    pub(super) route: &'d Route,
}

impl Diagnosis {
    pub(super) fn of(question: &Question, play: &Simulation<'_>, snapshot: &Snapshot, document: &Document) -> Self {
        let last = play.last();
        let verdict = &last.exchange.verdict;
        let none = Diagnosis { cause: None, at: None };
        let scope = verdict.route.map(|found| Scope { document, route: found.route });
        let error = match &play.end {
            End::Response => return none,
            End::Unreadable(names) => {
                let at = scope.and_then(|scope| scope.key("expose_headers"));
                return Diagnosis { cause: Some(Cause::NotExposed(names.clone())), at };
            }
            End::Refused => None,
            End::Blocked(error) => Some(error),
        };
        if let Action::Refuse(refusal) = verdict.action
            && !matches!(refusal, Refusal::OriginRejected(_))
        {
            return Self::of_refusal(refusal, last, snapshot, document);
        }
        let Some(scope) = scope else { return none };
        let Some(reason) = verdict.outcome.reason() else { return none };
        // The browser looks at credentials first, and the gateway does not know of them.
        if reason != cors::Reason::NoPolicy {
            let any_origin = match error {
                Some(NetworkError::WildcardWithCredentials) => Some(true),
                Some(NetworkError::NoAllowCredentials) => Some(false),
                _ => None,
            };
            if let Some(any_origin) = any_origin {
                let cause = Some(Cause::CredentialsNotAllowed { any_origin });
                return Diagnosis { cause, at: scope.key("allow_credentials") };
            }
        }
        let (cause, at) = match reason {
            cors::Reason::NoPolicy => {
                let error = error.cloned().unwrap_or(NetworkError::NoAllowOrigin);
                match &scope.route.cors {
                    None => (Cause::NoPolicy(error), Some(scope.route.at())),
                    Some(place) => {
                        let shadows = scope.farther(place.level).next().map(|(level, _)| level);
                        (Cause::PolicyOff { level: place.level, shadows, error }, scope.route.cors_at())
                    }
                }
            }
            cors::Reason::OriginNull if play.steps.iter().any(|step| step.origin != "null") => {
                (Cause::OriginLost { to: last.url.to_string() }, None)
            }
            cors::Reason::OriginNull => (Cause::OriginNull, scope.origins_at()),
            cors::Reason::OriginInvalid => (Cause::OriginInvalid(invalid(question)), None),
            cors::Reason::OriginNotAllowed | cors::Reason::SameOrigin | cors::Reason::NoOrigin => {
                let near = scope.near(&last.origin);
                let at = near.as_ref().map(|(_, at)| at.clone()).or_else(|| scope.origins_at());
                let is_credentialed = question.credentials == Credentials::Include
                    || scope.settings().is_some_and(|(settings, _)| settings.allow_credentials);
                let is_insecure = match OriginPattern::parse(&last.origin) {
                    Ok(OriginPattern::Tuple(origin)) => origin.is_insecure(),
                    _ => false,
                };
                let cause = Cause::OriginNotAllowed {
                    origin: last.origin.clone(),
                    insecure: is_credentialed && is_insecure,
                    near: near.map(|(near, _)| near),
                    shadowed: scope.shadowed(last),
                    level: scope.route.cors.as_ref().map_or(Level::Top, |place| place.level),
                };
                (cause, at)
            }
            cors::Reason::MethodNotAllowed => {
                let method = play.fetch_at(last).normalised_method();
                let settings = scope.settings().map(|(settings, _)| settings);
                let listed = settings.and_then(|settings| settings.allow_methods.as_ref()).map(List::entries);
                let listed = listed.unwrap_or_default().to_vec();
                let meant = meant(&method, listed.iter().map(String::as_str));
                (Cause::MethodNotAllowed { method, listed, meant }, scope.key("allow_methods"))
            }
            cors::Reason::HeaderNotAllowed => {
                let (names, star) = scope.missing_headers(&asked_names(last));
                let names = names.iter().map(|name| question.spelled(name)).collect();
                (Cause::HeadersNotAllowed { names, star }, scope.key("allow_headers"))
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
        let services = KeyPath(vec![KeyStep::Key("services".into())]);
        let (cause, at) = match refusal {
            Refusal::UnknownHost => {
                let hosts = document.services.iter().flatten().filter_map(|service| service.hosts.as_ref());
                let near = nearest(&host, hosts.flat_map(List::entries));
                (Cause::UnknownHost { host, near }, Some(services))
            }
            Refusal::UnknownPath => {
                let path = last.url.path().to_owned();
                let candidates = routes_of_host(document, &host);
                let paths = candidates.iter().flat_map(|(_, paths)| paths.iter());
                let near = nearest(&path, paths).or_else(|| {
                    let first = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
                    let all = candidates.iter().flat_map(|(_, paths)| paths.iter());
                    all.into_iter().find(|known| !first(known).is_empty() && first(known) == first(&path)).cloned()
                });
                let at = candidates.first().map(|(place, _)| place.at(Level::Service));
                (Cause::UnknownPath { path, near }, at.or(Some(services)))
            }
            Refusal::MethodNotAllowed(allow) => {
                let allow = allow.to_str().unwrap_or_default().to_owned();
                let method = routed_method(last);
                let at = routes_for(last, &allow, snapshot).first().map(|place| {
                    let mut at = place.at(Level::Route);
                    at.0.push(KeyStep::Key("methods".into()));
                    at
                });
                let meant = meant(&method, allow.split(',').map(str::trim));
                (Cause::NoRouteForMethod { method, allow, meant }, at)
            }
            refusal => {
                let status = refusal.status().as_u16();
                let (code, explanation) = (refusal.code(), refusal.explanation().trim_end());
                (Cause::RefusedByGateway { code, status, explanation }, None)
            }
        };
        Diagnosis { cause: Some(cause), at }
    }
}

/// The method that a request is routed by: a preflight's is the one that it asks for.
pub(super) fn routed_method(step: &Step<'_>) -> String {
    let asked = || step.headers.get(http::header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok();
    match step.stage {
        Stage::Preflight => asked().unwrap_or("OPTIONS").to_owned(),
        Stage::Response => step.method.to_string(),
    }
}

/// The method that was meant, if another case of it is known. PATCH is: of the usual ones it is the one that browsers send
/// as the page writes it (Fetch, "normalise a method").
pub(super) fn meant<'w>(method: &str, known: impl Iterator<Item = &'w str>) -> Option<String> {
    let alike = std::iter::once("PATCH").chain(known).find(|word| word.eq_ignore_ascii_case(method))?;
    (alike != method).then(|| alike.to_owned())
}

/// What to do about a method in another case than was meant, without a full stop.
pub(super) fn case_matters(method: &str, meant: &str) -> String {
    format!("Methods are case-sensitive: let the page write '{meant}' instead of '{method}'")
}

/// The routes that take other methods of the path of a step, by asking for each.
pub(super) fn routes_for(step: &Step<'_>, allow: &str, snapshot: &Snapshot) -> Vec<RoutePlace> {
    let mut places = Vec::new();
    for method in allow.split(',').filter_map(|method| http::Method::from_bytes(method.trim().as_bytes()).ok()) {
        let request = crate::decide::Request {
            method: &method,
            path: step.url.path().as_bytes(),
            target_length: step.url.path_and_query.len(),
            version: http::Version::HTTP_11,
            scheme: step.url.scheme,
            authority: Some(&step.url.authority),
            headers: &http::HeaderMap::new(),
            framing: crate::decide::Framing::Clear,
            connection: crate::decide::ConnectionFacts::default(),
        };
        if let Some(found) = snapshot.decide(&request).route
            && !places.contains(&found.route.place)
        {
            places.push(found.route.place);
        }
    }
    places
}

/// The routes of the services that a host belongs to, with their paths. Without an exact idea of precedence: whatever
/// comes of it is tried.
pub(super) fn routes_of_host(document: &Document, host: &str) -> Vec<(RoutePlace, Vec<String>)> {
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

/// The names that a preflight asks for.
pub(super) fn asked_names(step: &Step<'_>) -> Vec<String> {
    let fields = step.headers.get_all(http::header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let text: Vec<String> = fields.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    let names = text.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn invalid(question: &Question) -> InvalidOrigin {
    match &*question.origins {
        [origin] if origin.contains(',') => InvalidOrigin::Several,
        [origin] if origin.len() > MAX_ORIGIN => InvalidOrigin::TooLong,
        [_] => InvalidOrigin::Characters,
        _ => InvalidOrigin::Several,
    }
}

/// The known word that is closest, if it is close.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w String>) -> Option<String> {
    // What is compared has a bound, because the work grows by the square.
    let fits = |candidate: &&String| candidate.len() <= MAX_ORIGIN && word.len() <= MAX_ORIGIN;
    known
        .filter(fits)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 6))
        .min()
        .map(|(_, candidate)| candidate.clone())
}

// === impl Scope ===

impl<'d> Scope<'d> {
    /// The settings of the route's policy, and where they stand.
    pub(super) fn settings(&self) -> Option<(&'d Settings, KeyPath)> {
        let at = self.route.policy_at()?;
        let place = self.route.cors.as_ref()?;
        Some((self.document.settings(self.route.place.cors(self.document, place.level)?)?, at))
    }

    /// The `cors` of the levels beyond one, from near to far, as far as they are policies.
    fn farther(&self, level: Level) -> impl Iterator<Item = (Level, &'d Settings)> {
        let levels = [Level::Service, Level::Top].into_iter().filter(move |other| *other < level);
        let (document, place) = (self.document, self.route.place);
        levels.filter_map(move |level| Some((level, document.settings(place.cors(document, level)?)?)))
    }

    /// Where a key of the policy stands, or would.
    pub(super) fn key(&self, key: &str) -> Option<KeyPath> {
        let mut at = self.route.policy_at()?;
        at.0.push(KeyStep::Key(key.into()));
        Some(at)
    }

    /// The first key that says which origins are allowed.
    fn origins_at(&self) -> Option<KeyPath> {
        let (settings, _) = self.settings()?;
        let key = match settings {
            Settings { allow_origins: Some(_), .. } => "allow_origins",
            Settings { allow_origin_sets: Some(_), .. } => "allow_origin_sets",
            _ => "allow_origins_by_regex",
        };
        self.key(key)
    }

    /// The origins that the policy lists, by name of a set too, with their places.
    fn listed(&self) -> Vec<(String, KeyPath)> {
        let Some((settings, at)) = self.settings() else { return Vec::new() };
        let below = |at: &KeyPath, key: &str| KeyPath(at.0.iter().cloned().chain([KeyStep::Key(key.into())]).collect());
        let entries = |list: &List, at: &KeyPath| -> Vec<(String, KeyPath)> {
            let index = |i| KeyPath(at.0.iter().cloned().chain([KeyStep::Index(i)]).collect());
            list.entries().iter().enumerate().map(|(i, entry)| (entry.clone(), index(i))).collect()
        };
        let mut all = match &settings.allow_origins {
            Some(list) => entries(list, &below(&at, "allow_origins")),
            None => Vec::new(),
        };
        let root = KeyPath(vec![KeyStep::Key("origin_sets".into())]);
        for name in settings.allow_origin_sets.iter().flat_map(List::entries) {
            if let Some((_, list)) = self.document.origin_sets.0.iter().find(|(known, _)| known == name) {
                all.extend(entries(list, &below(&root, name)));
            }
        }
        all
    }

    /// What the policy has that looks like an origin, and where.
    fn near(&self, origin: &str) -> Option<(Near, KeyPath)> {
        let listed = self.listed();
        let alike = listed.iter().filter_map(|(entry, at)| Some((likeness(entry, origin)?, entry, at)));
        // In the order of the variants: what explains most stands first.
        let best = alike.min_by_key(|(likeness, entry, _)| {
            (*likeness as u8, strsim::damerau_levenshtein(&origin[..origin.len().min(MAX_ORIGIN)], entry))
        });
        if let Some((likeness, entry, at)) = best {
            return Some((Near { listed: entry.clone(), likeness }, at.clone()));
        }
        let (settings, _) = self.settings()?;
        let sources = settings.allow_origins_by_regex.as_ref().map(Patterns::sources).unwrap_or_default();
        let part = |source: &&String| regex::Regex::new(source).is_ok_and(|regex| regex.is_match(origin));
        let source = sources.iter().find(part)?;
        let at = self.key("allow_origins_by_regex")?;
        Some((Near { listed: source.clone(), likeness: Likeness::RegexPart }, at))
    }

    /// The farther level whose policy would allow what this one refuses.
    fn shadowed(&self, step: &Step<'_>) -> Option<Level> {
        let level = self.route.cors.as_ref()?.level;
        let facts = CorsRequest {
            method: &step.method,
            headers: &step.headers,
            scheme: step.url.scheme,
            authority: &step.url.authority,
        };
        let sets = origin_sets(self.document);
        let allows = |settings: &Settings| {
            let policy = Policy::compile(settings, &sets, &At::root(), &mut Problems::default());
            policy.is_some_and(|policy| policy.decide(&facts).edits.value(cors::Field::AllowOrigin).is_some())
        };
        self.farther(level).find(|(_, settings)| allows(settings)).map(|(level, _)| level)
    }

    /// Which of the names the policy lacks, and whether it has a `*`.
    pub(super) fn missing_headers(&self, names: &[String]) -> (Vec<String>, bool) {
        let list = self.settings().and_then(|(settings, _)| settings.allow_headers.as_ref()).map(List::entries);
        let star = list.is_none_or(|list| list.iter().any(|entry| entry == "*"));
        let listed = |name: &str| list.unwrap_or_default().iter().any(|entry| entry.eq_ignore_ascii_case(name));
        let lacks = |name: &&String| !listed(name) && (!star || name.eq_ignore_ascii_case("authorization"));
        (names.iter().filter(lacks).cloned().collect(), star)
    }
}

fn origin_sets(document: &Document) -> OriginSets {
    let compile = |list| Origins::compile(list, &At::root(), &mut Problems::default()).map(std::sync::Arc::new);
    document.origin_sets.0.iter().map(|(name, list)| (name.clone(), compile(list))).collect()
}

fn likeness(listed: &str, origin: &str) -> Option<Likeness> {
    let parts = |text: &'_ str| -> Option<(String, String, Option<String>)> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority);
        Some((scheme.to_owned(), host.to_owned(), port.map(str::to_owned)))
    };
    let ((scheme, host, port), (other_scheme, other_host, other_port)) = (parts(listed)?, parts(origin)?);
    let without_www = |host: &str| host.strip_prefix("www.").unwrap_or(host).to_owned();
    let same_port = port == other_port || port.as_deref() == Some("*");
    let covers = |host: &str| match host.strip_prefix("*.") {
        Some(base) => other_host.strip_suffix(base).is_some_and(|front| front.ends_with('.')),
        None => host == other_host,
    };
    if covers(&host) {
        return match (scheme == other_scheme, same_port) {
            (false, true) => Some(Likeness::Scheme),
            (true, false) => Some(Likeness::Port),
            (false, false) => Some(Likeness::SchemeAndPort),
            (true, true) => None,
        };
    }
    if scheme == other_scheme && same_port {
        if without_www(&host) == without_www(&other_host) {
            return Some(Likeness::Www);
        }
        if host.strip_prefix("*.") == Some(&other_host) {
            return Some(Likeness::BareDomain);
        }
        if other_host.strip_suffix(host.trim_start_matches("*.")).is_some_and(|front| front.ends_with('.')) {
            return Some(Likeness::Subdomain);
        }
    }
    if listed.len() > MAX_ORIGIN || origin.len() > MAX_ORIGIN {
        return None;
    }
    (strsim::damerau_levenshtein(listed, origin) <= 2).then_some(Likeness::Spelling)
}

// === impl Simulation ===

impl Simulation<'_> {
    /// The fetch, as far as the words about a step need it.
    pub(super) fn fetch_at<'p>(&'p self, step: &'p Step<'_>) -> Fetch<'p> {
        Fetch { origin: &step.origin, method: &self.method, headers: &[], credentials: self.credentials }
    }
}

// === impl Cause ===

impl Cause {
    /// What is wrong, without a full stop.
    pub(crate) fn fault(&self) -> String {
        match self {
            Cause::UnknownHost { host, .. } => format!("no service has the host {host}, so no policy is asked"),
            Cause::UnknownPath { path, .. } => format!("no route of this host has the path {path}"),
            Cause::NoRouteForMethod { method, allow, .. } => {
                format!("the routes of this path take {allow}, but not {method}")
            }
            Cause::RefusedByGateway { status, explanation, .. } => {
                format!("the gateway answers {status} whatever the policy says: {}", explanation.trim_end_matches('.'))
            }
            Cause::NoPolicy(error) => {
                format!("there is no `cors` for this route at any level, so that {}", untouched(error))
            }
            Cause::PolicyOff { level, shadows, error } => {
                let mut fault =
                    format!("`cors: false` {} leaves everything untouched, so that {}", at(*level), untouched(error));
                if let Some(shadowed) = shadows {
                    let _ = write!(fault, "; it switches off the policy {}", at(*shadowed));
                }
                fault
            }
            Cause::OriginNotAllowed { origin, near, shadowed, level, insecure: _ } => {
                let mut fault = match near {
                    Some(near) => near.fault(origin),
                    None => format!("the policy does not allow the origin {origin}"),
                };
                if let Some(shadowed) = shadowed {
                    let _ =
                        write!(fault, "; the policy {} would, but the one {} counts, whole", at(*shadowed), at(*level));
                }
                fault
            }
            Cause::OriginNull => {
                "the page has the origin null: a file, a sandboxed frame, or a redirect between foreign origins".into()
            }
            Cause::OriginLost { to } => {
                format!("the redirect to {to} leads from one foreign origin to another, and makes the Origin null")
            }
            Cause::OriginInvalid(InvalidOrigin::Several) => {
                "there is more than one origin in the request, and none of them is believed".into()
            }
            Cause::OriginInvalid(InvalidOrigin::TooLong) => {
                format!("the Origin is longer than {MAX_ORIGIN} bytes, as no browser sends it")
            }
            Cause::OriginInvalid(InvalidOrigin::Characters) => {
                "the Origin has characters that no browser sends in one".into()
            }
            Cause::MethodNotAllowed { method, listed, .. } => {
                format!("allow_methods of the policy has {}, but not {method}", few(listed))
            }
            Cause::HeadersNotAllowed { names, star: true } => {
                format!("`*` in allow_headers, which is also its default, does not cover {}", names.join(", "))
            }
            Cause::HeadersNotAllowed { names, star: false } => {
                format!("allow_headers of the policy does not list {}", names.join(", "))
            }
            Cause::HeaderListTooLong => format!(
                "the preflight asks for more than {MAX_NAMES} headers, or {MAX_NAMES_BYTES} bytes of them, and is not looked at"
            ),
            Cause::CredentialsNotAllowed { any_origin: true } => {
                "the request has credentials, and the policy allows any origin with `*`, which is for requests without"
                    .into()
            }
            Cause::CredentialsNotAllowed { any_origin: false } => {
                "the request has credentials, and the policy does not say allow_credentials: true".into()
            }
            Cause::Upstream(error) => format!("the policy allows it, but {error}"),
            Cause::NotExposed(names) => {
                format!("the page gets the response, but cannot read {}: nothing exposes it", names.join(", "))
            }
        }
    }

    /// What to do, where the file is not the place to do it or not the first one; whole sentences.
    pub(crate) fn advice(&self) -> Option<String> {
        Some(match self {
            Cause::UnknownHost { near: Some(near), .. } => {
                format!("Did the page mean {near}? Then its URL is wrong. Else a service needs the host.")
            }
            Cause::UnknownHost { near: None, .. } => "Is the URL right? If it is, a service needs the host.".into(),
            Cause::UnknownPath { near: Some(near), .. } => {
                format!("Did the page mean {near}? Then its URL is wrong. Else a route needs the path.")
            }
            Cause::UnknownPath { near: None, .. } => "Is the URL right? If it is, a route needs the path.".into(),
            Cause::PolicyOff { error: NetworkError::AllowOriginMismatch(value), .. }
            | Cause::NoPolicy(NetworkError::AllowOriginMismatch(value))
                if value.contains(',') =>
            {
                "Something behind the gateway sets the header twice: leave one of the two out, or give the route a \
                 policy, which replaces both."
                    .into()
            }
            Cause::PolicyOff { .. } | Cause::NoPolicy(_) => {
                "Let the upstream answer CORS itself, or give the route a policy.".into()
            }
            Cause::OriginNull => {
                "Better than allowing null, which every site can send: serve the page from an origin of \
                                  its own, or give its frame `allow-same-origin`."
                    .into()
            }
            Cause::OriginLost { to } => format!("Let the page ask for {to} directly."),
            Cause::OriginInvalid(_) => {
                "Look for what adds or changes the header: a proxy in between, an extension, or a client that is no \
                 browser."
                    .into()
            }
            Cause::MethodNotAllowed { method, meant: Some(meant), listed } => {
                let advice = case_matters(method, meant);
                match listed.contains(meant) {
                    true => format!("{advice}."),
                    false => format!("{advice}, and add `{meant}` to allow_methods."),
                }
            }
            Cause::NoRouteForMethod { method, meant: Some(meant), allow } => {
                let advice = case_matters(method, meant);
                match allow.split(',').any(|word| word.trim() == meant) {
                    true => format!("{advice}."),
                    false => format!("{advice}, and add `{meant}` to the methods of a route."),
                }
            }
            Cause::HeaderListTooLong => "No page needs so many: let it send less.".into(),
            Cause::CredentialsNotAllowed { .. } => {
                "If the page needs no cookies, let it leave out `credentials: 'include'`.".into()
            }
            Cause::Upstream(_) => {
                "Look at what the upstream sends; `upstream_headers: replace` removes all of it.".into()
            }
            Cause::OriginNotAllowed { insecure: true, near, origin, .. } => {
                let elsewhere = near.as_ref().and_then(|near| near.elsewhere(origin));
                let instead = match elsewhere.filter(|elsewhere| elsewhere.starts_with("https:")) {
                    Some(elsewhere) => format!("open the page at {elsewhere}, which the policy has"),
                    None => "serve the page on https".to_owned(),
                };
                format!(
                    "A page that came over http could have been changed on the way, and no policy gives it credentials: \
                     {instead}."
                )
            }
            Cause::OriginNotAllowed { near: Some(Near { likeness: Likeness::RegexPart, .. }), .. } => {
                "A regular expression must match the whole Origin, from its scheme to its end.".into()
            }
            Cause::OriginNotAllowed { near: Some(near), origin, .. } => {
                let elsewhere = near.elsewhere(origin)?;
                format!("Opening the page at {elsewhere}, which the policy has, is the other way.")
            }
            Cause::NoRouteForMethod { meant: None, .. }
            | Cause::RefusedByGateway { .. }
            | Cause::OriginNotAllowed { near: None, .. }
            | Cause::MethodNotAllowed { meant: None, .. }
            | Cause::HeadersNotAllowed { .. }
            | Cause::NotExposed(_) => return None,
        })
    }

    /// The codes that no log and no metric has: of causes that the gateway does not know of, or takes for another.
    pub const CODES: [&'static str; 5] =
        ["credentials_not_allowed", "not_exposed", "origin_lost", "policy_off", "upstream"];

    /// A stable name, for machines: where the gateway has a code for it, that one.
    pub fn code(&self) -> &'static str {
        match self {
            Cause::UnknownHost { .. } => "unknown_host",
            Cause::UnknownPath { .. } => "unknown_path",
            Cause::NoRouteForMethod { .. } => "no_route_for_method",
            Cause::RefusedByGateway { code, .. } => code,
            Cause::NoPolicy(_) => "no_policy",
            Cause::PolicyOff { .. } => "policy_off",
            Cause::OriginNotAllowed { .. } => "origin_not_allowed",
            Cause::OriginNull => "origin_null",
            Cause::OriginLost { .. } => "origin_lost",
            Cause::OriginInvalid(_) => "origin_invalid",
            Cause::MethodNotAllowed { .. } => "method_not_allowed",
            Cause::HeadersNotAllowed { .. } => "header_not_allowed",
            Cause::HeaderListTooLong => "header_list_too_long",
            Cause::CredentialsNotAllowed { .. } => "credentials_not_allowed",
            Cause::Upstream(_) => "upstream",
            Cause::NotExposed(_) => "not_exposed",
        }
    }
}

impl Near {
    /// Where the page is allowed, as the entry has it, if only scheme and port differ. PickError is sent from https to http.
    fn elsewhere(&self, origin: &str) -> Option<String> {
        match self.likeness {
            Likeness::Scheme | Likeness::Port | Likeness::SchemeAndPort => {}
            Likeness::Www | Likeness::BareDomain | Likeness::Subdomain | Likeness::Spelling | Likeness::RegexPart => {
                return None;
            }
        }
        let (scheme, listed) = self.listed.split_once("://")?;
        let (own_scheme, authority) = origin.split_once("://")?;
        if (own_scheme, scheme) == ("https", "http") {
            return None;
        }
        let (host, own) = split_port(authority);
        let port = match split_port(listed).1 {
            Some("*") => own,
            port => port,
        };
        Some(format!("{scheme}://{host}{}", port.map(|port| format!(":{port}")).unwrap_or_default()))
    }

    fn fault(&self, origin: &str) -> String {
        let Near { listed, likeness } = self;
        let difference = match likeness {
            Likeness::Scheme => "the scheme is another",
            Likeness::Port => "the port is another",
            Likeness::SchemeAndPort => "scheme and port are others",
            Likeness::Www => "one is with www., the other without",
            Likeness::BareDomain => "that stands for subdomains, not for the domain itself",
            Likeness::Subdomain => "that does not stand for its subdomains",
            Likeness::Spelling => "the spelling differs",
            Likeness::RegexPart => "that matches only a part of it, and only the whole counts",
        };
        format!("the policy has {listed}, and the page is on {origin}: {difference}")
    }
}

/// The first of some words: a reader wants an idea of them.
fn few(words: &[String]) -> String {
    let shown: Vec<&str> = words.iter().take(8).map(String::as_str).collect();
    let more = if words.len() > shown.len() { ", and more" } else { "" };
    shown.join(", ") + more
}

/// Where a `cors` stands.
pub(super) fn at(level: Level) -> &'static str {
    match level {
        Level::Top => "at the top of the file",
        Level::Service => "of the service",
        Level::Route => "of the route",
    }
}

/// What the browser makes of headers that nobody has touched.
fn untouched(error: &NetworkError) -> String {
    match error {
        NetworkError::NoAllowOrigin => {
            "only the upstream could allow it, and it sets no Access-Control-Allow-Origin".into()
        }
        NetworkError::AllowOriginMismatch(value) if value.contains(',') => {
            format!("the upstream's Access-Control-Allow-Origin counts, and it is there twice: {value}")
        }
        other => format!("the upstream's own headers count, and {other}"),
    }
}

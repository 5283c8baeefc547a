//! The common model of an import, independent of the source format: services, routes, upstreams and policies. Each part
//! has its place in the source and the findings about it.
//!
//! A finding is created where the import makes a decision. The writer turns each finding into a comment, and the report
//! turns it into a line. So the comments and the report always agree.

use super::finding::{Finding, Kind, Outcome, Place};
use super::witness::{Answer, Witness};
use crate::cors::{
    Danger, OriginPattern, OriginSets, Patterns, Policy as Compiled, PreflightMatch, PreflightSettings, Settings,
    equivalent_pattern, only_in, witness,
};
use crate::notation::List;
use crate::problem::{At, KeyPath, PathStep, Problem, ProblemKind, Problems, Severity};

/// Everything that one import read.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The policy for every service that has no policy of its own.
    pub(super) cors: Option<Policy>,
    /// The largest request body in bytes. `finish` sets it from the limits of the routes.
    pub(super) body_limit: Option<u64>,
    pub(super) services: Vec<Service>,
    /// Findings about no particular service.
    pub(super) findings: Vec<Finding>,
    /// True if the result is served before anybody reads the report. Then a route is closed if it has a plugin that may
    /// refuse requests and is not imported.
    pub(super) is_live: bool,
}

/// Hosts with an upstream, a policy and routes.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) at: Place,
    /// An empty list means every host.
    pub(super) hosts: Vec<String>,
    pub(super) upstream: Option<Upstream>,
    pub(super) cors: Cors,
    pub(super) host_of_node: bool,
    /// The listeners that have the service, in words of the source. `None` means the usual ones.
    pub(super) listener: Option<String>,
    /// A service without routes is left out.
    pub(super) routes: Vec<Route>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) name: String,
    pub(super) at: Place,
    pub(super) paths: Vec<String>,
    /// An empty list means every method.
    pub(super) methods: Vec<String>,
    /// A route with a condition is left out, because corsgate would use it for every request to its paths.
    pub(super) condition: Option<Condition>,
    /// `None` means the upstream of the service.
    pub(super) upstream: Option<Upstream>,
    pub(super) cors: Cors,
    pub(super) behaviors: Behaviors,
    /// The largest request body in bytes. `None` means no limit.
    pub(super) body_limit: Option<u64>,
    /// Such a route needs no upstream.
    pub(super) answer: Option<EdgeAnswer>,
    /// Whether the route is not imported. It refuses its requests if another route would take them, else it is left
    /// out.
    pub(super) is_closed: bool,
    pub(super) findings: Vec<Finding>,
}

/// A condition of a route besides host, path and method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// Such as `headers`.
    pub(super) what: String,
    /// Header fields of a request that meets the condition, if these are enough.
    pub(super) fields: Vec<(String, String)>,
}

/// An answer of the gateway instead of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EdgeAnswer {
    /// A response with this status.
    Respond(u16),
    Redirect {
        to: String,
        status: u16,
    },
}

/// Behaviors of a route besides routing and CORS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Behaviors {
    pub(super) strip_prefix: Option<String>,
    /// A regular expression for the path, and the replacement.
    pub(super) replace: Option<(String, String)>,
    pub(super) add_prefix: Option<String>,
    /// Client addresses and networks that may send requests. An empty list allows every client.
    pub(super) allow: Vec<String>,
    /// Client addresses and networks that may not send requests.
    pub(super) deny: Vec<String>,
    /// The value of `upstream_host`.
    pub(super) host: Option<String>,
    pub(super) request_headers: Edits,
    pub(super) response_headers: Edits,
}

/// Edits of header fields, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Edits {
    pub(super) remove: Vec<String>,
    pub(super) set: Vec<(String, String)>,
    pub(super) add: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) name: String,
    /// Each node is an address with a weight, in the scale of the source.
    pub(super) nodes: Vec<(String, u64)>,
    /// `Some` means TLS to the nodes. The inner text is the TLS server name, for nodes that are IP addresses.
    pub(super) tls: Option<Option<String>>,
    pub(super) timeouts: Timeouts,
}

/// The timeouts of an upstream, in milliseconds. `None` means the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub(super) connect: Option<u64>,
    pub(super) read: Option<u64>,
    pub(super) write: Option<u64>,
    pub(super) total: Option<u64>,
}

/// The `cors` key of a service or route.
#[derive(Debug, Default)]
pub(super) enum Cors {
    /// The policy of the level above applies.
    #[default]
    Inherited,
    Off,
    Policy(Box<Policy>),
}

/// A CORS policy with the keys of corsgate.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// The name in the report, in the terms of the source, such as `Ingress shop`.
    pub(super) name: String,
    pub(super) at: Place,
    pub(super) origins: Vec<String>,
    pub(super) expressions: Vec<String>,
    pub(super) timing_origins: Vec<String>,
    pub(super) timing_expressions: Vec<String>,
    /// `*` means any method.
    pub(super) methods: Vec<String>,
    pub(super) headers: Vec<String>,
    pub(super) expose: Vec<String>,
    pub(super) max_age: i64,
    pub(super) credentials: bool,
    pub(super) preflight: PreflightMatch,
    pub(super) status: u16,
    pub(super) private_network: bool,
    pub(super) dangers: Vec<Danger>,
    pub(super) findings: Vec<(Key, Finding)>,
}

/// A key of a policy. The variants have the order of the written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Policy,
    Origins,
    Methods,
    Headers,
    Expose,
    Credentials,
    MaxAge,
    Preflight,
}

impl Finding {
    pub(super) fn new(at: Place, kind: Kind) -> Self {
        Finding { at, kind, witness: None }
    }

    pub(super) fn with(self, witness: Witness) -> Self {
        Finding { witness: Some(witness), ..self }
    }
}

impl Key {
    pub(super) const SETTINGS: [Key; 6] =
        [Key::Origins, Key::Methods, Key::Headers, Key::Expose, Key::Credentials, Key::MaxAge];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Key::Policy => "cors",
            Key::Origins => "allow_origins",
            Key::Methods => "allow_methods",
            Key::Headers => "allow_headers",
            Key::Expose => "expose_headers",
            Key::Credentials => "allow_credentials",
            Key::MaxAge => "max_age",
            Key::Preflight => "preflight",
        }
    }
}

/// The node address that is written if the source has none.
pub(super) const PLACEHOLDER: &str = "placeholder.invalid:80";
/// An expression that matches no origin.
pub(super) const NO_ORIGIN: &str = "-";
/// An origin that no policy names.
pub(super) const FOREIGN: &str = "https://evil.test";

// === impl Service ===

impl Service {
    /// Returns a service for a policy that the source does not attach to a route.
    pub(super) fn placeholder(name: &str, at: Place, cors: Cors, upstream: Option<Upstream>) -> Self {
        let nodes = vec![(PLACEHOLDER.to_owned(), 1)];
        let upstream = upstream.unwrap_or_else(|| Upstream {
            name: name.to_owned(),
            nodes,
            tls: None,
            timeouts: Timeouts::default(),
        });
        let route = Route { name: name.to_owned(), at, paths: vec!["/*".to_owned()], ..Route::default() };
        Service {
            name: name.to_owned(),
            at,
            hosts: Vec::new(),
            upstream: Some(upstream),
            cors,
            host_of_node: false,
            listener: None,
            routes: vec![route],
            findings: vec![Finding::new(at, Kind::WithoutRoutes)],
        }
    }
}

// === impl Condition ===

impl Condition {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Condition { what: what.into(), fields: Vec::new() }
    }

    /// A condition on header fields. `fields` are those that must have a certain value.
    pub(super) fn headers(fields: Vec<(String, String)>) -> Self {
        Condition { fields, ..Condition::new("headers") }
    }
}

// === impl Policy ===

impl Policy {
    /// Returns a policy that allows nothing yet.
    pub(super) fn new(name: String, at: Place) -> Self {
        Policy {
            name,
            at,
            origins: Vec::new(),
            expressions: Vec::new(),
            timing_origins: Vec::new(),
            timing_expressions: Vec::new(),
            methods: Vec::new(),
            headers: Vec::new(),
            expose: Vec::new(),
            max_age: Settings::DEFAULT_MAX_AGE,
            credentials: false,
            preflight: PreflightMatch::Origin,
            status: 200,
            private_network: false,
            dangers: Vec::new(),
            findings: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, key: Key, finding: Finding) {
        self.findings.push((key, finding));
    }

    /// Allows every header, for engines that send back the names that the preflight asks for. In corsgate, `*` covers
    /// Authorization only with credentials. Without credentials, Authorization is listed too.
    pub(super) fn allow_every_header(&mut self, at: Place) {
        self.headers = vec!["*".to_owned()];
        if !self.credentials {
            self.headers.push("Authorization".to_owned());
        }
        self.note(Key::Headers, Finding::new(at, Kind::EchoesRequestedHeaders));
    }

    pub(super) fn is_any_origin(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    /// Returns an origin that the policy allows, for witnesses.
    pub(super) fn sample_origin(&self) -> String {
        let by_expression = || self.expressions.iter().find_map(|expression| only_in(expression, NO_ORIGIN));
        let by_pattern = |text: &String| match OriginPattern::parse(text) {
            Ok(OriginPattern::Tuple(pattern)) => witness::matching(&pattern).into_iter().next(),
            _ => None,
        };
        let sample = self.origins.first().and_then(by_pattern).or_else(by_expression);
        sample.unwrap_or_else(|| "https://app.example".to_owned())
    }

    /// Sets `max_age` in seconds, up to the limit of browsers.
    pub(super) fn set_max_age(&mut self, seconds: i64, at: Place) {
        self.max_age = seconds.clamp(-1, MAX_AGE);
        if seconds > MAX_AGE {
            let witness = Witness::preflight("POST", &self.sample_origin(), Answer::MaxAge(seconds));
            self.note(Key::MaxAge, Finding::new(at, Kind::MaxAgeCapped { seconds }).with(witness));
        }
    }

    pub(super) fn settings(&self) -> Settings {
        let list = |entries: &[String]| entries.iter().cloned().collect::<List>();
        let some = |entries: &[String]| (!entries.is_empty()).then(|| list(entries));
        let patterns = |entries: &[String]| (!entries.is_empty()).then(|| Patterns::Many(entries.to_vec()));
        Settings {
            allow_origins: some(&self.origins),
            allow_origins_by_regex: patterns(&self.expressions),
            timing_allow_origins: some(&self.timing_origins),
            timing_allow_origins_by_regex: patterns(&self.timing_expressions),
            allow_methods: Some(list(&self.methods)),
            allow_headers: Some(list(&self.headers)),
            expose_headers: some(&self.expose),
            max_age: Some(self.max_age),
            allow_credentials: self.credentials,
            allow_private_network: self.private_network,
            preflight: PreflightSettings {
                matches: self.preflight,
                status: self.status,
                refused_status: self.status,
                cache_control: None,
            },
            dangerously_allow: (!self.dangers.is_empty()).then(|| self.dangers.clone()),
            ..Settings::default()
        }
    }

    /// Changes the policy until corsgate accepts it. Leaves out each entry that corsgate refuses, and names each danger
    /// that the policy needs. Each change is a finding. Returns false if no origin is left.
    pub(super) fn complete(&mut self) -> bool {
        for list in [&mut self.origins, &mut self.methods, &mut self.headers, &mut self.expose, &mut self.expressions] {
            let mut seen = std::collections::HashSet::new();
            list.retain(|entry| seen.insert(entry.clone()));
        }
        if self.is_any_origin() {
            self.origins = vec!["*".to_owned()];
            self.expressions.clear();
        }
        self.write_expressions_as_patterns();
        self.leave_out_what_no_browser_sends();
        // Each correction can reveal another problem.
        for _ in 0..MOST_ROUNDS {
            if self.origins.is_empty() && self.expressions.is_empty() {
                return false;
            }
            let mut problems = Problems::default();
            let _ = Compiled::compile(&self.settings(), &OriginSets::default(), &At::root(), &mut problems);
            let of = |severity| problems.iter().filter(move |problem| problem.kind.severity() == severity);
            if problems.any_errors() {
                self.mend(&of(Severity::Error).collect::<Vec<_>>());
                continue;
            }
            for problem in of(Severity::Warning) {
                let kind = Kind::CheckSays { text: problem.kind.fault().into() };
                self.note(key_of(&problem.at), Finding::new(self.at, kind));
            }
            return true;
        }
        false
    }

    /// Replaces each expression by the pattern that allows the same origins, if there is one. A name below a public
    /// suffix stays an expression, because the rules for such patterns are stricter.
    fn write_expressions_as_patterns(&mut self) {
        let at = self.at;
        let lists =
            [(&mut self.expressions, &mut self.origins), (&mut self.timing_expressions, &mut self.timing_origins)];
        let mut findings = Vec::new();
        for (expressions, origins) in lists {
            expressions.retain(|expression| {
                let pattern = equivalent_pattern(expression).filter(|pattern| pattern.public_suffix().is_none());
                let Some(pattern) = pattern.map(|pattern| pattern.to_string()) else { return true };
                let kind = Kind::ExpressionIsPattern { expression: expression.clone(), pattern: pattern.clone() };
                findings.push(Finding::new(at, kind));
                origins.push(pattern);
                false
            });
        }
        findings.into_iter().for_each(|finding| self.note(Key::Origins, finding));
    }

    /// Leaves out methods and headers that no browser asks for. `check` warns about them. Without them, every page
    /// still gets the same answer.
    fn leave_out_what_no_browser_sends(&mut self) {
        let mut problems = Problems::default();
        let _ = Compiled::compile(&self.settings(), &OriginSets::default(), &At::root(), &mut problems);
        let (mut methods, mut headers) = (Vec::new(), Vec::new());
        for problem in &problems {
            match &problem.kind {
                ProblemKind::MethodNeverSent { method } => methods.push(method.clone()),
                ProblemKind::HeaderNeverSent { name } => headers.push(name.clone()),
                _ => {}
            }
        }
        let at = self.at;
        for (key, names) in [(Key::Methods, methods), (Key::Headers, headers)] {
            let list = if key == Key::Methods { &mut self.methods } else { &mut self.headers };
            let is_named = |entry: &String| names.iter().any(|name| name.eq_ignore_ascii_case(entry));
            let left_out: Vec<String> = list.iter().filter(|entry| is_named(entry)).cloned().collect();
            list.retain(|entry| !is_named(entry));
            if !left_out.is_empty() {
                self.note(key, Finding::new(at, Kind::NeverSent { names: left_out }));
            }
        }
    }

    /// Names the dangers, and removes the entries that corsgate refuses.
    fn mend(&mut self, errors: &[&Problem]) {
        let at = self.at;
        let mut removals: Vec<(&KeyPath, String)> = Vec::new();
        for problem in errors {
            let why = problem.kind.fault().into_owned();
            match danger_of(&problem.kind) {
                Some(danger) if self.dangers.contains(&danger) => {}
                Some(danger @ Danger::AnyOriginWithCredentials) => {
                    self.dangers.push(danger);
                    let witness = Witness::request("GET", FOREIGN, Answer::WithCredentials);
                    self.note(Key::Credentials, Finding::new(at, Kind::ReflectsAnyOrigin).with(witness));
                }
                Some(danger) => {
                    self.dangers.push(danger);
                    self.note(Key::Credentials, Finding::new(at, Kind::Danger { word: danger.word(), why }));
                }
                None if matches!(problem.kind, ProblemKind::AnyExposedWithCredentials) => {
                    self.expose.retain(|name| name != "*");
                    self.note(Key::Expose, Finding::new(at, Kind::ExposeWithCredentials));
                }
                None => removals.push((&problem.at, why)),
            }
        }
        // Removes from the end, so that the other indexes stay valid.
        removals.sort_by(|(one, _), (other, _)| other.cmp(one));
        removals.dedup_by(|(one, _), (other, _)| one == other);
        for (path, why) in removals {
            let list = self.list_at(path);
            let entry = match path.0.get(1) {
                Some(PathStep::Index(index)) if *index < list.len() => list.remove(*index),
                // The problem is about the whole list, so the whole list is removed.
                _ => std::mem::take(list).join(", "),
            };
            self.note(key_of(path), Finding::new(at, Kind::EntryNotImported { entry, why }));
        }
    }

    fn list_at(&mut self, path: &KeyPath) -> &mut Vec<String> {
        match path.0.first() {
            Some(PathStep::Key(key)) => match &**key {
                "allow_origins_by_regex" => &mut self.expressions,
                "timing_allow_origins" => &mut self.timing_origins,
                "timing_allow_origins_by_regex" => &mut self.timing_expressions,
                "allow_methods" => &mut self.methods,
                "allow_headers" => &mut self.headers,
                "expose_headers" => &mut self.expose,
                _ => &mut self.origins,
            },
            _ => &mut self.origins,
        }
    }
}

/// Returns the danger that a policy must name before corsgate accepts it.
fn danger_of(kind: &ProblemKind) -> Option<Danger> {
    match kind {
        ProblemKind::AnyOriginWithCredentials | ProblemKind::AnyOriginRegexWithCredentials { .. } => {
            Some(Danger::AnyOriginWithCredentials)
        }
        ProblemKind::NullOrigin => Some(Danger::NullOrigin),
        ProblemKind::InsecureOriginWithCredentials { .. } | ProblemKind::InsecureRegexWithCredentials { .. } => {
            Some(Danger::InsecureOrigins)
        }
        ProblemKind::PublicSuffixWithCredentials { .. } | ProblemKind::PublicSuffixRegexWithCredentials { .. } => {
            Some(Danger::PublicSuffixSubdomains)
        }
        _ => None,
    }
}

fn key_of(path: &KeyPath) -> Key {
    match path.0.first() {
        Some(PathStep::Key(key)) => match &**key {
            "allow_methods" => Key::Methods,
            "allow_headers" => Key::Headers,
            "expose_headers" => Key::Expose,
            "max_age" => Key::MaxAge,
            _ => Key::Origins,
        },
        _ => Key::Policy,
    }
}

/// Limit of rounds in `Policy::complete`. Each round finds all current problems, so a few rounds are enough.
const MOST_ROUNDS: usize = 32;
/// The longest time in seconds for which a browser caches a preflight.
const MAX_AGE: i64 = 86_400;

// === impl Cors ===

impl Cors {
    /// Returns a copy for another service of the same source.
    pub(super) fn again(&self) -> Self {
        match self {
            Cors::Inherited => Cors::Inherited,
            Cors::Off => Cors::Off,
            Cors::Policy(policy) => Cors::Policy(policy.clone()),
        }
    }

    /// Returns the policy if corsgate accepts at least a part of it. Otherwise returns no CORS and the reason.
    pub(super) fn of(mut policy: Policy) -> (Self, Vec<Finding>) {
        if policy.complete() {
            return (Cors::Policy(Box::new(policy)), Vec::new());
        }
        // The policy is left out, so findings about its changed answers are no longer true.
        let findings = policy.findings.into_iter().map(|(_, finding)| finding);
        let mut findings: Vec<Finding> =
            findings.filter(|finding| finding.kind.outcome() == Outcome::Dropped).collect();
        findings.push(Finding::new(policy.at, Kind::PolicyWithoutOrigins));
        (Cors::Off, findings)
    }
}

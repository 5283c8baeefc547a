//! Compares two policies, and finds the permissions that only one of them gives.
//!
//! A policy allows a finite set of methods and header names, or all names with a few exceptions. So the names that a
//! policy lists are compared one by one, and one more name stands for all names that neither policy lists. Sets of
//! origins can be infinite, so they are compared entry by entry. The other policy either covers an entry, or refuses an
//! origin that the entry allows. This origin is a witness. The comparison first tries sample origins, because they are
//! easy to read. If no sample is a witness, a search over automata ([`super::language`]) finds a witness or proves that
//! none exists. If the search reaches its bounds, the result is [`Witness::Unknown`], and the entry does not count as
//! covered.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use http::StatusCode;

use super::edits::Removal;
use super::fetch_names::is_forbidden_request_header;
use super::language::{self, DEFAULT_PORTS, Found, Language, PLAIN_ORIGINS, SENT_ORIGINS};
use super::names::{AllowedMethods, RequestHeaders};
use super::origin::{OriginPattern, OriginSet, TuplePattern};
use super::regexes::{OriginRegexes, anchored};
use super::witness::{self, Expression};
use super::{Allowed, CrossSite, DisallowedOrigins, Policy, PreflightMatch, ResourcePolicy, cross_site};

/// An entry of a policy that allows an origin which another policy refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OriginEntry {
    pub(crate) kind: OriginEntryKind,
    /// The text of the entry in the configuration.
    pub(crate) text: String,
    pub(crate) witness: Witness,
}

/// The form of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginEntryKind {
    /// `*`
    Any,
    /// An origin or a pattern.
    Listed,
    Regex,
}

/// The result of a search for an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Witness {
    Origin(String),
    /// The search reached its bounds.
    Unknown,
}

/// The side that grants a permission, from the strictest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GrantedBy {
    Nobody,
    /// The upstream decides. The policy passes the upstream's header on to the page.
    Upstream,
    Policy,
}

/// Response headers that pages may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed<'p> {
    /// Names of the headers. `*` stands for all headers.
    pub(crate) names: Vec<&'p str>,
    /// Whether the policy passes the upstream's own list on to the page.
    pub(crate) by_upstream: bool,
}

/// Maximum number of origins without a wildcard that one search excludes.
const MOST_EXACT: usize = 500;

/// Origins that most policies refuse.
const FOREIGN: [&str; 4] =
    ["https://foreign.example", "https://foreign.test", "http://foreign.test", "https://foreign.test:8443"];

// === impl Policy ===

impl Policy {
    /// Returns the entries of this policy that allow an origin which the other policy refuses. A policy of None refuses
    /// every origin.
    pub(crate) fn origins_beyond(&self, other: Option<&Policy>) -> Vec<OriginEntry> {
        beyond(&self.origins, other.map(|other| &other.origins))
    }

    /// Like [`Self::origins_beyond`], for the origins that get `Timing-Allow-Origin`.
    pub(crate) fn timing_beyond(&self, other: Option<&Policy>) -> Vec<OriginEntry> {
        let Some(timing) = &self.timing else { return Vec::new() };
        beyond(timing, other.and_then(|other| other.timing.as_ref()))
    }

    /// Whether the policy passes the upstream's `Timing-Allow-Origin` on to the page.
    pub(crate) fn passes_timing(&self) -> bool {
        self.timing.is_none()
    }

    /// Returns an origin that both policies allow. None if no such origin exists.
    pub(crate) fn origin_of_both(&self, other: &Policy) -> Option<Witness> {
        let (ours, theirs) = (&self.origins, &other.origins);
        let both = |origin: &String| ours.find(origin).is_some() && theirs.find(origin).is_some();
        let samples = ours.samples().chain(theirs.samples());
        if let Some(origin) = best(samples.filter(both)) {
            return Some(Witness::Origin(origin));
        }
        let null = || Some("null".to_owned()).filter(both).map(Witness::Origin);
        // All listed origins without a wildcard were samples, so only wildcards and regular expressions remain.
        let union = |allowed: &Allowed| union(&allowed.wide_expressions());
        match (union(ours), union(theirs)) {
            (Union::Empty, _) | (_, Union::Empty) => null(),
            (Union::Of(ours), Union::Of(theirs)) => match found(&[&ours, &theirs], &[]) {
                Some(witness) => Some(witness),
                None => null(),
            },
            _ => null().or(Some(Witness::Unknown)),
        }
    }

    /// Returns an origin that this policy refuses. If there is another policy, it refuses the origin too. None if no
    /// such origin exists.
    pub(crate) fn origin_of_none(&self, other: Option<&Policy>) -> Option<Witness> {
        let all = || std::iter::once(self).chain(other);
        let refused = |origin: &str| all().all(|policy| policy.origins.find(origin).is_none());
        if let Some(origin) = FOREIGN.into_iter().find(|origin| refused(origin)) {
            return Some(Witness::Origin(origin.to_owned()));
        }
        if all().any(Policy::allows_any_origin) {
            return None;
        }
        let expressions: Vec<String> = all().flat_map(|policy| policy.origins.wide_expressions()).collect();
        let witness = match union(&expressions) {
            Union::Empty => found(&[], &[]),
            Union::Of(allowed) => found(&[], &[&allowed]),
            Union::TooLarge => Some(Witness::Unknown),
        };
        witness.map(|witness| match witness {
            Witness::Origin(origin) if refused(&origin) => Witness::Origin(origin),
            _ => Witness::Unknown,
        })
    }

    pub(crate) fn allows_any_origin(&self) -> bool {
        matches!(self.origins, Allowed::Any | Allowed::AnyByName { .. })
    }

    /// Returns the origin entries in the form of the configuration, sorted.
    pub(crate) fn origin_texts(&self) -> Vec<String> {
        let word = match &self.origins {
            Allowed::Any | Allowed::AnyByName { .. } => Some("*"),
            Allowed::Listed { null: true, .. } => Some("null"),
            Allowed::Listed { .. } => None,
        };
        let exact = word.into_iter().chain(self.origins.exact()).chain(self.origins.regexes()).map(str::to_owned);
        let mut texts: Vec<String> = exact.chain(self.origins.patterns().map(|pattern| pattern.to_string())).collect();
        texts.sort();
        texts
    }

    /// Returns an example of an allowed origin. None if the policy allows no origin that a browser sends.
    pub(crate) fn some_origin(&self) -> Option<String> {
        self.origin_of_both(self).and_then(|witness| match witness {
            Witness::Origin(origin) => Some(origin),
            Witness::Unknown => None,
        })
    }

    /// Whether pages of allowed origins can use the method: a preflight that requests it is allowed, and
    /// `cross_site: reject` does not reject it for all of them.
    pub(crate) fn allows_method(&self, method: &str) -> bool {
        self.methods.allow(method.as_bytes()) && !(self.trusts_no_origin() && cross_site::is_unsafe(method))
    }

    /// Returns the methods that the policy names.
    pub(crate) fn named_methods(&self) -> impl Iterator<Item = &str> {
        let names = match &self.methods {
            AllowedMethods::Any { .. } => None,
            AllowedMethods::Listed { names, .. } => Some(names),
        };
        names.into_iter().flatten().map(|name| &**name)
    }

    /// Whether a preflight that requests the header is allowed.
    pub(crate) fn allows_header(&self, name: &str) -> bool {
        self.headers.allow_name(name.as_bytes(), self.credentials)
    }

    /// Returns the request headers that the policy names, in lower case. Adds `authorization`, because `*` does not
    /// include it. Omits headers that no page can set.
    pub(crate) fn named_headers(&self) -> impl Iterator<Item = String> {
        let names = match &self.headers {
            RequestHeaders::Any { .. } => None,
            RequestHeaders::Listed { names, .. } => Some(names.iter()),
        };
        let names = names.into_iter().flatten().map(str::to_ascii_lowercase).chain(["authorization".to_owned()]);
        names.filter(|name| !is_forbidden_request_header(name))
    }

    /// Returns the side that decides whether pages may read responses with credentials.
    pub(crate) fn credentials(&self) -> GrantedBy {
        match self.origins {
            _ if self.credentials => GrantedBy::Policy,
            // Browsers refuse credentials if `Access-Control-Allow-Origin` is `*`.
            Allowed::Any => GrantedBy::Nobody,
            _ if self.passes_upstream_headers() => GrantedBy::Upstream,
            _ => GrantedBy::Nobody,
        }
    }

    /// Returns the response headers that pages of allowed origins may read.
    pub(crate) fn exposed(&self) -> Exposed<'_> {
        let value = self.expose.as_ref().and_then(|value| value.to_str().ok());
        let names = value.into_iter().flat_map(|value| value.split(',')).map(str::trim).collect();
        Exposed { names, by_upstream: value.is_none() && self.passes_upstream_headers() }
    }

    /// Returns the number of seconds for which browsers may cache the answer to a preflight.
    pub(crate) fn max_age(&self) -> &str {
        self.max_age.to_str().unwrap_or_default()
    }

    /// Returns the statuses of the answers to allowed and to refused preflights.
    pub(crate) fn preflight_statuses(&self) -> (StatusCode, StatusCode) {
        (self.status, self.refused_status)
    }

    /// Returns the `Cache-Control` of answers to preflights of allowed origins.
    pub(crate) fn cache_control(&self) -> Option<&str> {
        self.cache_control.as_ref().and_then(|value| value.to_str().ok())
    }

    pub(crate) fn preflight_match(&self) -> PreflightMatch {
        self.preflight_match
    }

    /// Whether requests of origins that are not allowed get 403.
    pub(crate) fn rejects(&self) -> bool {
        self.disallowed == DisallowedOrigins::Reject && !self.allows_any_origin()
    }

    /// Returns the `Cross-Origin-Resource-Policy` that the policy sets. None if the upstream's header stays.
    pub(crate) fn resource_policy(&self) -> Option<ResourcePolicy> {
        self.cross_origin_resource
    }

    /// Whether `cross_site: reject` rejects requests.
    pub(crate) fn rejects_cross_site(&self) -> bool {
        self.cross_site == CrossSite::Reject && !matches!(self.origins, Allowed::AnyByName { .. })
    }

    /// Returns an origin whose pages cannot change state because of `cross_site: reject`. If the other policy has no
    /// `cross_site: reject`, it does not reject requests of this origin. None if no such origin exists, or if the
    /// comparison of origins already reports the change.
    pub(crate) fn origin_of_cross_site(&self, other: Option<&Policy>) -> Option<Witness> {
        match (self.trusts_no_origin(), other) {
            (true, Some(other)) if other.rejects() => other.some_origin().map(Witness::Origin),
            (true, _) => Some(Witness::Origin(FOREIGN[0].to_owned())),
            (false, Some(other)) if other.rejects() => None,
            (false, other) => self.origin_of_none(other),
        }
    }

    /// Whether `cross_site: reject` rejects requests of every other origin.
    fn trusts_no_origin(&self) -> bool {
        self.rejects_cross_site() && matches!(self.origins, Allowed::Any)
    }

    pub(crate) fn allows_private_network(&self) -> bool {
        self.private_network
    }

    fn passes_upstream_headers(&self) -> bool {
        match self.removal_allowed {
            Removal::AllAccessControl(_) => false,
            Removal::Nothing | Removal::Listed(_) => true,
        }
    }
}

// === origins ===

impl Allowed {
    fn sets(&self) -> impl Iterator<Item = &OriginSet> {
        let (own, shared) = match self {
            Allowed::Listed { own, shared, .. } => (Some(own), shared.as_slice()),
            Allowed::Any | Allowed::AnyByName { .. } => (None, &[][..]),
        };
        own.into_iter().chain(shared.iter().map(|origins| &origins.set))
    }

    fn exact(&self) -> impl Iterator<Item = &str> {
        self.sets().flat_map(OriginSet::exact)
    }

    fn patterns(&self) -> impl Iterator<Item = TuplePattern> {
        self.sets().flat_map(OriginSet::patterns)
    }

    fn regexes(&self) -> impl Iterator<Item = &str> {
        let regexes = match self {
            Allowed::Listed { regexes, .. } => regexes.as_ref(),
            Allowed::Any | Allowed::AnyByName { .. } => None,
        };
        regexes.into_iter().flat_map(OriginRegexes::sources)
    }

    /// Returns regular expressions for the entries that can match more than one origin.
    fn wide_expressions(&self) -> Vec<String> {
        let any = match self {
            Allowed::Any | Allowed::AnyByName { .. } => Some(".*".to_owned()),
            Allowed::Listed { .. } => None,
        };
        let patterns = self.patterns().map(|pattern| pattern.expression());
        any.into_iter().chain(patterns).chain(self.regexes().filter_map(anchored)).collect()
    }

    /// Returns sample origins of the entries. Samples of regular expressions are guesses, so the policy may refuse some
    /// of them.
    fn samples(&self) -> impl Iterator<Item = String> {
        let any = match self {
            Allowed::Any | Allowed::AnyByName { .. } => Some("https://app.example".to_owned()),
            Allowed::Listed { .. } => None,
        };
        let exact = self.exact().map(str::to_owned);
        let patterns = self.patterns().flat_map(|pattern| witness::matching(&pattern));
        any.into_iter().chain(exact).chain(patterns).chain(self.regexes().flat_map(samples))
    }
}

/// Returns the entries of `new` that allow an origin which `old` refuses.
fn beyond(new: &Allowed, old: Option<&Allowed>) -> Vec<OriginEntry> {
    let refused = |origin: &str| old.is_none_or(|old| old.find(origin).is_none());
    let entry = |kind, text: &str, witness| OriginEntry { kind, text: text.to_owned(), witness };
    let mut entries = Vec::new();
    let other = Other { allowed: old, patterns: OnceCell::new(), regexes: OnceCell::new() };
    match new {
        Allowed::Any | Allowed::AnyByName { .. } => {
            if !matches!(old, Some(Allowed::Any | Allowed::AnyByName { .. })) {
                let any = ".*".to_owned();
                let candidates = FOREIGN.iter().map(|origin| (*origin).to_owned());
                let witness = other.refuses(&any, candidates, &|_| true);
                entries.extend(witness.map(|witness| entry(OriginEntryKind::Any, "*", witness)));
            }
        }
        Allowed::Listed { .. } => {
            // An exact entry is its own witness, even if no browser sends this origin.
            let exact: BTreeSet<&str> = new.exact().filter(|origin| refused(origin)).collect();
            let listed = |origin: &str| entry(OriginEntryKind::Listed, origin, Witness::Origin(origin.to_owned()));
            entries.extend(exact.into_iter().map(listed));
            let mut patterns: Vec<(String, TuplePattern)> =
                new.patterns().map(|pattern| (pattern.to_string(), pattern)).collect();
            patterns.sort_by(|a, b| a.0.cmp(&b.0));
            patterns.dedup_by(|a, b| a.0 == b.0);
            for (text, pattern) in patterns.iter().filter(|(_, pattern)| !other.covers(pattern)) {
                let candidates = witness::matching(pattern).into_iter();
                let witness = other.refuses(&pattern.expression(), candidates, &|origin| pattern.matches(origin));
                entries.extend(witness.map(|witness| entry(OriginEntryKind::Listed, text, witness)));
            }
            for source in new.regexes().filter(|source| !other.has_regex(source)) {
                let Some(expression) = anchored(source) else { continue };
                let regex = regex::bytes::RegexBuilder::new(&expression).unicode(false).build();
                let matches = |origin: &str| regex.as_ref().is_ok_and(|regex| regex.is_match(origin.as_bytes()));
                let candidates = samples(source).into_iter().filter(|origin| matches(origin));
                let witness = other.refuses(&expression, candidates, &matches);
                entries.extend(witness.map(|witness| entry(OriginEntryKind::Regex, source, witness)));
            }
        }
    }
    let is_null_new = new.find("null").is_some() && refused("null");
    // Without credentials, `*` includes `null`.
    if is_null_new && !entries.iter().any(|entry| entry.kind == OriginEntryKind::Any) {
        entries.push(entry(OriginEntryKind::Listed, "null", Witness::Origin("null".to_owned())));
    }
    entries
}

/// The policy with which entries are compared.
struct Other<'p> {
    /// The allowed origins of the policy. None if it refuses every origin.
    allowed: Option<&'p Allowed>,
    patterns: OnceCell<Vec<TuplePattern>>,
    regexes: OnceCell<BTreeSet<&'p str>>,
}

impl Other<'_> {
    fn patterns(&self) -> &[TuplePattern] {
        self.patterns.get_or_init(|| self.allowed.iter().flat_map(|allowed| allowed.patterns()).collect())
    }

    /// Whether one pattern of the policy covers the given pattern.
    fn covers(&self, pattern: &TuplePattern) -> bool {
        self.patterns().iter().any(|own| own.covers(pattern))
            || matches!(self.allowed, Some(Allowed::Any | Allowed::AnyByName { .. }))
    }

    fn has_regex(&self, source: &str) -> bool {
        matches!(self.allowed, Some(Allowed::Any | Allowed::AnyByName { .. }))
            || self
                .regexes
                .get_or_init(|| self.allowed.iter().flat_map(|allowed| allowed.regexes()).collect())
                .contains(source)
    }

    /// Returns an origin that the expression matches and that the policy refuses. None if no such origin exists.
    /// `matches` tests an origin with the expression. It is used for the origins that the policy lists without a
    /// wildcard.
    fn refuses(
        &self,
        expression: &str,
        candidates: impl Iterator<Item = String>,
        matches: &dyn Fn(&str) -> bool,
    ) -> Option<Witness> {
        let refused = |origin: &String| self.allowed.is_none_or(|allowed| allowed.find(origin).is_none());
        if let Some(origin) = best(candidates.filter(|origin| is_origin(origin) && refused(origin))) {
            return Some(Witness::Origin(origin));
        }
        let Some(item) = Language::of(&format!("^(?:{expression})$")) else { return Some(Witness::Unknown) };
        let Some(allowed) = self.allowed else { return found(&[&item], &[]) };
        let mut expressions = allowed.wide_expressions();
        let exact = allowed.exact().filter(|origin| matches(origin));
        expressions.extend(exact.take(MOST_EXACT + 1).map(regex_syntax::escape));
        // There are too many listed origins to exclude each of them.
        if expressions.len() > allowed.wide_expressions().len() + MOST_EXACT {
            return Some(Witness::Unknown);
        }
        let witness = match union(&expressions) {
            Union::Empty => found(&[&item], &[]),
            Union::Of(others) => found(&[&item], &[&others]),
            Union::TooLarge => Some(Witness::Unknown),
        };
        // The policy must really refuse the origin that the automata found. Otherwise the result is unknown.
        witness.map(|witness| match witness {
            Witness::Origin(origin) if refused(&origin) => Witness::Origin(origin),
            _ => Witness::Unknown,
        })
    }
}

/// A union of expressions.
enum Union {
    Empty,
    Of(Box<Language>),
    TooLarge,
}

fn union(expressions: &[String]) -> Union {
    match expressions {
        [] => Union::Empty,
        _ => match Language::of(&format!("^(?:(?:{}))$", expressions.join(")|(?:"))) {
            Some(language) => Union::Of(Box::new(language)),
            None => Union::TooLarge,
        },
    }
}

/// Returns an origin that a browser can send, from all languages of `within` (at most two) and from no language of
/// `without` (at most one). If possible, the origin has `https`, a name with a dot, and no port. None if no such origin
/// exists.
fn found(within: &[&Language], without: &[&Language]) -> Option<Witness> {
    let plain: &Language = &PLAIN_ORIGINS;
    let sent: &Language = &SENT_ORIGINS;
    let default_ports: &Language = &DEFAULT_PORTS;
    if let Found::Origin(origin) = language::shortest(&[within, &[plain]].concat(), without) {
        return Some(Witness::Origin(origin));
    }
    match language::shortest(&[within, &[sent]].concat(), &[without, &[default_ports]].concat()) {
        Found::Origin(origin) => Some(Witness::Origin(origin)),
        Found::Nothing => None,
        Found::Unknown => Some(Witness::Unknown),
    }
}

/// Returns origins that the expression is likely to match.
fn samples(source: &str) -> Vec<String> {
    let Some(expression) = Expression::parse(source) else { return Vec::new() };
    let sample = expression.sample();
    expression.alternatives().into_iter().chain([sample]).filter(|origin| is_origin(origin)).collect()
}

fn is_origin(text: &str) -> bool {
    matches!(OriginPattern::parse(text), Ok(OriginPattern::Tuple(pattern)) if pattern.is_exact())
}

/// Returns the origin that is easiest to read: `https`, no port, short.
fn best(origins: impl Iterator<Item = String>) -> Option<String> {
    let is_plain = |origin: &str| origin.strip_prefix("https://").is_some_and(|rest| !rest.contains(':'));
    origins.min_by_key(|origin| (!is_plain(origin), origin.len(), origin.clone()))
}

#[cfg(test)]
mod tests {
    use super::super::{OriginSets, Settings};
    use super::*;
    use crate::problem::{At, Problems};

    fn policy(yaml: &str) -> Policy {
        let settings: Settings = serde_yaml::from_str(&format!("{{ {yaml} }}")).unwrap();
        let mut problems = Problems::default();
        let policy = Policy::compile(&settings, &OriginSets::default(), &At::root(), &mut problems);
        policy.unwrap_or_else(|| panic!("{yaml}: {problems}"))
    }

    /// Returns the entries of `new` that allow an origin which `old` refuses, each with its witness.
    fn beyond(old: &str, new: &str) -> Vec<String> {
        let entries = policy(new).origins_beyond(Some(&policy(old)));
        let shown = |entry: OriginEntry| match entry.witness {
            Witness::Origin(origin) => format!("{} {origin}", entry.text),
            Witness::Unknown => format!("{} ?", entry.text),
        };
        entries.into_iter().map(shown).collect()
    }

    #[test]
    fn an_entry_that_is_not_covered_has_a_witness() {
        let a = "allow_origins: https://a.example";
        #[rustfmt::skip]
        let cases: [(&str, &str, &[&str]); 30] = [
            (a, a, &[]),
            (a, "allow_origins: [https://a.example, https://b.example]", &["https://b.example https://b.example"]),
            ("allow_origins: ['https://*.example']", a, &[]),
            (a, "allow_origins: ['https://*.example']", &["https://*.example https://a.b.example"]),
            ("allow_origins: ['https://*.a.example', https://a.example]", "allow_origins: ['https://*.a.example:*']",
                &["https://*.a.example:* https://a.a.example:8443"]),
            ("allow_origins: ['http://localhost:*']", "allow_origins_by_regex: 'http://localhost(:\\d{1,4})?'", &[]),
            ("allow_origins_by_regex: 'http://localhost(:\\d{1,4})?'", "allow_origins: ['http://localhost:*']",
                &["http://localhost:* http://localhost:10000"]),
            ("allow_origins_by_regex: 'http://localhost(:\\d{1,5})?'", "allow_origins: ['http://localhost:*']", &[]),
            ("allow_origins: [https://a.example, https://b.example]", "allow_origins_by_regex: 'https://(a|b)\\.example'", &[]),
            ("allow_origins: [https://a.example, https://b.example]", "allow_origins_by_regex: 'https://[abc]\\.example'",
                &["https://[abc]\\.example https://c.example"]),
            ("allow_origins_by_regex: 'https://([a-z0-9-]+\\.)+app\\.example'", "allow_origins: ['https://*.app.example']",
                &["https://*.app.example https://_.app.example"]),
            ("allow_origins_by_regex: 'https://([a-z0-9_-]+\\.)+app\\.example'", "allow_origins: ['https://*.app.example']", &[]),
            ("allow_origins: ['https://*.app.example']", "allow_origins_by_regex: 'https://[a-z]+\\.app\\.example'", &[]),
            ("allow_origins: ['https://*.app.example']", "allow_origins_by_regex: 'https://[a-z.]+app\\.example'",
                &["https://[a-z.]+app\\.example https://aapp.example"]),
            ("allow_origins: ['https://*.a.example']", "allow_origins: ['https://{label}.a.example', 'https://*.{hex}.a.example']", &[]),
            ("allow_origins: ['https://{label}.a.example']", "allow_origins: ['https://*.a.example']",
                &["https://*.a.example https://a.b.a.example"]),
            ("allow_origins: ['https://pr-{hex}.a.example', 'https://pr-{digits}.a.example:*']", "allow_origins: ['https://pr-{digits}.a.example', 'https://pr-7.a.example']", &[]),
            ("allow_origins: ['https://pr-{digits}.a.example']", "allow_origins: ['https://pr-{hex}.a.example', 'https://pr-7.a.example']",
                &["https://pr-{hex}.a.example https://pr-a.a.example"]),
            ("allow_origins: ['https://pr-{digits}.a.example']", "allow_origins_by_regex: 'https://pr-[0-9]+\\.a\\.example'", &[]),
            ("allow_origins_by_regex: 'https://pr-[0-9]+\\.a\\.example'", "allow_origins: ['https://pr-{digits}.a.example']", &[]),
            ("allow_origins: ['https://{label}-{digits}.a.example']", "allow_origins: ['https://{hex}-{hex}-{digits}.a.example']", &[]),
            ("allow_origins: ['https://{hex}-{hex}-{digits}.a.example']", "allow_origins: ['https://{label}-{digits}.a.example']",
                &["https://{label}-{digits}.a.example https://a-1.a.example"]),
            ("allow_origins: ['https://*', 'https://*:*']", "allow_origins: ['https://*.a.example:8443', 'https://[::1]']", &[]),
            ("allow_origins: ['https://*']", "allow_origins: '*'", &["* http://foreign.test"]),
            ("allow_origins: '*'", "allow_origins: ['https://*', 'null'], dangerously_allow: [null_origin]", &[]),
            (a, "allow_origins: [https://a.example, 'null'], dangerously_allow: [null_origin]", &["null null"]),
            ("allow_origins: '*', allow_credentials: true, dangerously_allow: [any_origin_with_credentials]",
                "allow_origins: '*'", &["null null"]),
            ("allow_origins_by_regex: '.*'", "allow_origins: '*'", &["null null"]),
            ("allow_origins_by_regex: 'https://.*a.{12}'", "allow_origins_by_regex: 'https://.*b.{12}'",
                &["https://.*b.{12} https://abaaaaaaaaaaaa"]),
            ("allow_origins_by_regex: 'https://.*a.{18}'", "allow_origins: ['https://*.a.example']",
                &["https://*.a.example https://a.a.example"]),
        ];
        for (old, new, expected) in cases {
            assert_eq!(beyond(old, new), expected, "{old} -> {new}");
        }
    }

    #[test]
    fn a_search_beyond_the_bounds_is_unknown() {
        let old = "allow_origins_by_regex: 'https://.*a.{18}|https://a.a.example|https://a.b.a.example'";
        assert_eq!(beyond(old, "allow_origins: ['https://*.a.example']"), ["https://*.a.example ?"]);
    }

    #[test]
    fn an_origin_of_both_is_found() {
        let both = |one: &str, other: &str| policy(one).origin_of_both(&policy(other));
        let origin = |text: &str| Some(Witness::Origin(text.to_owned()));
        let a = "allow_origins: https://a.example";
        assert_eq!(both(a, "allow_origins: '*'"), origin("https://a.example"));
        assert_eq!(both("allow_origins: '*'", "allow_origins: '*'"), origin("https://app.example"));
        assert_eq!(both(a, "allow_origins: https://b.example"), None);
        let (front, back) =
            ("allow_origins_by_regex: 'https://ab[a-z.]*'", "allow_origins_by_regex: 'https://[a-z.]*yz'");
        assert_eq!(both(front, back), origin("https://ab.yz"));
        assert_eq!(both(front, "allow_origins: ['https://*:8443']"), None);
    }

    #[test]
    fn an_origin_of_no_policy_is_found() {
        let none = |one: &str, other: Option<&str>| policy(one).origin_of_none(other.map(policy).as_ref());
        let origin = |text: &str| Some(Witness::Origin(text.to_owned()));
        assert_eq!(none("allow_origins: https://a.example", None), origin("https://foreign.example"));
        assert_eq!(none("allow_origins: '*'", None), None);
        assert_eq!(none("allow_origins: https://a.example", Some("allow_origins: '*'")), None);
        let foreign = FOREIGN.join(", ");
        let listed = |more: &str| format!("allow_origins: [{foreign}{more}]");
        assert_eq!(none(&listed(""), None), origin("https://a.aa"));
        assert_eq!(none("allow_origins: ['https://*', 'https://*:*']", Some(&listed(""))), origin("a://a"));
        assert_eq!(none("allow_origins_by_regex: '.*'", None), None);
        // The search does not exclude listed origins. It finds one of them, so the result is unknown.
        assert_eq!(none(&listed(", https://a.aa"), None), Some(Witness::Unknown));
    }

    #[test]
    fn the_compared_settings_are_those_of_the_policy() {
        let a = "allow_origins: https://a.example";
        let with = |more: &str| policy(&format!("{a}, {more}"));
        assert_eq!(policy(a).cache_control(), None);
        assert_eq!(
            with("preflight: { cache_control: 'public, max-age=60' }").cache_control(),
            Some("public, max-age=60")
        );
        assert!(!policy(a).allows_private_network());
        assert!(with("allow_private_network: true").allows_private_network());
        assert!(policy(a).passes_timing());
        assert!(!with("timing_allow_origins: [https://a.example]").passes_timing());
        assert!(policy("allow_origins: '*'").allows_any_origin());
        assert!(!policy(a).allows_any_origin());
    }

    #[test]
    fn cross_site_reject_stops_an_origin_that_the_other_policy_lets_through() {
        let origin = |text: &str| Some(Witness::Origin(text.to_owned()));
        let cross_site = |new: &str, old: Option<&str>| policy(new).origin_of_cross_site(old.map(policy).as_ref());
        let (any, a) =
            ("allow_origins: '*', cross_site: reject", "allow_origins: https://a.example, cross_site: reject");
        let rejecting = "allow_origins: https://b.example, disallowed_origins: reject";
        assert_eq!(cross_site(any, None), origin("https://foreign.example"));
        assert_eq!(cross_site(any, Some("allow_origins: https://b.example")), origin("https://foreign.example"));
        // The second policy allows only b.example, and rejects other origins.
        assert_eq!(cross_site(any, Some(rejecting)), origin("https://b.example"));
        assert_eq!(cross_site(a, Some(rejecting)), None);
        assert!(cross_site(a, Some("allow_origins: https://b.example")).is_some());
    }
}

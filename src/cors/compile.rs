//! Compiles [`Settings`] to a [`Policy`]. This module has all checks of a policy. All problems are reported at once.

use std::cell::RefCell;

use http::{HeaderValue, StatusCode};

use super::edits::{Field, Fields, Removal, Vary};
use super::names::{self, AllowedMethods, RequestHeaders};
use super::origin::{OriginPattern, TuplePattern};
use super::regexes::{self, Checked, OriginRegexes};
use super::{
    Allowed, CrossSite, Danger, DisallowedOrigins, OriginSets, Origins, Patterns, Policy, Settings, UpstreamHeaders,
};
use crate::notation::List;
use crate::per_thread::FinishedValue;
use crate::problem::{At, Known, ProblemKind, Problems, Severity};

impl Policy {
    /// Compiles a policy, without its `report_only`; `at` is the place of the settings in the file. Adds all problems to
    /// `problems`. None if one of them is an error, or if an origin set that the policy uses has errors.
    pub fn compile(settings: &Settings, sets: &OriginSets, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let mut found = Problems::default();
        let policy = Self::compile_into(settings, sets, at, &mut found);
        let usable = !found.any_errors();
        problems.extend(found);
        policy.filter(|_| usable)
    }

    fn compile_into(settings: &Settings, sets: &OriginSets, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let credentials = settings.allow_credentials;
        let allowed = settings.dangerously_allow.as_deref().unwrap_or_default();
        let dangers = Dangers { at, allowed, needed: RefCell::default() };
        if settings.dangerously_allow.as_ref().is_some_and(Vec::is_empty) {
            problems.add(&at.key("dangerously_allow"), ProblemKind::EmptyList { required: false });
        }

        let keys = OriginKeys {
            list: ("allow_origins", settings.allow_origins.as_ref()),
            regexes: ("allow_origins_by_regex", settings.allow_origins_by_regex.as_ref()),
            sets: settings.allow_origin_sets.as_ref(),
        };
        if keys.are_absent() {
            problems.add(at, ProblemKind::NoOrigins);
        }
        let origins = keys.compile(sets, credentials, &dangers, problems);
        let keys = OriginKeys {
            list: ("timing_allow_origins", settings.timing_allow_origins.as_ref()),
            regexes: ("timing_allow_origins_by_regex", settings.timing_allow_origins_by_regex.as_ref()),
            sets: None,
        };
        // Timing information is not sent with credentials, so `*` is safe here.
        let timing = match keys.are_absent() {
            true => None,
            false => Some(keys.compile(sets, false, &dangers, problems)?),
        };

        let methods = AllowedMethods::compile(settings.allow_methods.as_ref(), &at.key("allow_methods"), problems);
        let headers = RequestHeaders::compile(
            settings.allow_headers.as_ref(),
            settings.allow_header_sets.as_ref(),
            credentials,
            at,
            problems,
        );
        let expose = names::expose(
            settings.expose_headers.as_ref(),
            settings.expose_header_sets.as_ref(),
            credentials,
            at,
            problems,
        );
        let given_headers = settings.allow_headers.as_ref().or(settings.allow_header_sets.as_ref());
        let left_out: &[&str] = match (&settings.allow_methods, given_headers) {
            (None, None) => &["allow_methods", "allow_headers"],
            (None, Some(_)) => &["allow_methods"],
            (Some(_), None) => &["allow_headers"],
            (Some(_), Some(_)) => &[],
        };
        if let (true, Some(first)) = (credentials, left_out.first()) {
            problems.add(&at.key(first), ProblemKind::OpenByOmission { keys: left_out });
        }
        if settings.disallowed_origins == DisallowedOrigins::Reject
            && matches!(origins, Some(Allowed::Any | Allowed::AnyByName { .. }))
        {
            problems.add(&at.key("disallowed_origins"), ProblemKind::RejectsNothing);
        }
        if settings.cross_site == CrossSite::Reject && matches!(origins, Some(Allowed::AnyByName { .. })) {
            problems.add(&at.key("cross_site"), ProblemKind::RejectsNothing);
        }
        let max_age = max_age(settings.max_age, &at.key("max_age"), problems);
        if settings.allow_private_network {
            problems.add(&at.key("allow_private_network"), ProblemKind::PrivateNetworkGone);
        }
        let preflight = &settings.preflight;
        let at_preflight = at.key("preflight");
        let status = match preflight.status {
            200 => Some(StatusCode::OK),
            204 => Some(StatusCode::NO_CONTENT),
            value => {
                problems.add(&at_preflight.key("status"), ProblemKind::BadPreflightStatus { value });
                None
            }
        };
        let refused_status = match preflight.refused_status {
            200 => Some(StatusCode::OK),
            204 => Some(StatusCode::NO_CONTENT),
            403 => Some(StatusCode::FORBIDDEN),
            value => {
                problems.add(&at_preflight.key("refused_status"), ProblemKind::BadRefusedStatus { value });
                None
            }
        };
        let at_cache_control = at_preflight.key("cache_control");
        let cache_control = preflight.cache_control.as_deref();
        let cache_control =
            cache_control.and_then(|text| cache_control_value(text, settings.max_age, &at_cache_control, problems));
        // Hints about unnecessary or missing keys would be guesses while the policy has errors.
        if problems.any_errors() {
            problems.retain(|problem| problem.kind.severity() != Severity::Hint);
        } else if origins.is_some() {
            dangers.hint_unused(problems);
        }

        let (origins, status, refused_status) = (origins?, status?, refused_status?);
        let echoes_method = credentials && matches!(methods, AllowedMethods::Any { .. });
        let echoes_headers = credentials && matches!(headers, RequestHeaders::Any { .. });
        let statuses_differ = status != refused_status;
        // For shared caches, `Vary` has Origin and the requested method, because they select the preflights and their
        // routes.
        let is_cached = cache_control.is_some();
        let on_origin = Vary::default().with_if(origins.depends_on_origin(), Vary::ORIGIN);
        let mut policy = Policy {
            vary: on_origin.with_if(timing.as_ref().is_some_and(Allowed::depends_on_origin), Vary::ORIGIN),
            preflight_vary: on_origin
                .with_if(is_cached, Vary::ORIGIN)
                .with_if(echoes_method || statuses_differ || is_cached, Vary::REQUEST_METHOD)
                .with_if(echoes_headers || statuses_differ, Vary::REQUEST_HEADERS)
                .with_if(settings.allow_private_network, Vary::REQUEST_PRIVATE_NETWORK),
            removal_allowed: Removal::Nothing,
            origins,
            timing,
            credentials,
            methods,
            headers,
            expose,
            max_age,
            cross_origin_resource: settings.cross_origin_resource_policy,
            private_network: settings.allow_private_network,
            preflight_match: preflight.matches,
            status,
            refused_status,
            cache_control,
            disallowed: settings.disallowed_origins,
            cross_site: settings.cross_site,
        };
        policy.removal_allowed = match settings.upstream_headers {
            UpstreamHeaders::Replace => Removal::AllAccessControl(policy.timing_field()),
            UpstreamHeaders::Override => {
                // The upstream may set Allow-Credentials and Expose-Headers unless the policy does.
                const OVERRIDDEN: Fields = Fields::of(&[
                    Field::AllowOrigin,
                    Field::AllowMethods,
                    Field::AllowHeaders,
                    Field::MaxAge,
                    Field::AllowPrivateNetwork,
                ]);
                Removal::Listed(match policy.timing {
                    Some(_) => OVERRIDDEN.with(Field::TimingAllowOrigin),
                    None => OVERRIDDEN,
                })
            }
        };
        Some(policy)
    }
}

impl Origins {
    /// Compiles a named set. `*` and `null` are refused: whether they are safe depends on the policy that uses the set.
    pub(crate) fn compile(list: &List, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let (mut patterns, mut restricted) = (Vec::with_capacity(list.entries().len()), Vec::new());
        let mut has_errors = list.entries().is_empty();
        if has_errors {
            problems.add(at, ProblemKind::EmptyList { required: false });
        }
        for (i, entry) in list.entries().iter().enumerate() {
            let fault = match OriginPattern::parse(entry) {
                Ok(OriginPattern::Tuple(pattern)) => {
                    if pattern.is_odd_scheme() || pattern.public_suffix().is_some() {
                        restricted.push((entry.clone(), pattern.clone()));
                    }
                    patterns.push(pattern);
                    continue;
                }
                Ok(OriginPattern::Any) => ProblemKind::AnyInSet,
                Ok(OriginPattern::Null) => ProblemKind::NullInSet,
                Err(fault) => fault,
            };
            has_errors = true;
            problems.add(&at.index(i), fault);
        }
        (!has_errors).then(|| Origins { set: patterns.iter().collect(), restricted })
    }
}

/// The keys that together define the allowed origins, for CORS or for `Timing-Allow-Origin`.
struct OriginKeys<'a> {
    list: (&'static str, Option<&'a List>),
    regexes: (&'static str, Option<&'a Patterns>),
    sets: Option<&'a List>,
}

impl OriginKeys<'_> {
    fn are_absent(&self) -> bool {
        self.list.1.is_none() && self.regexes.1.is_none() && self.sets.is_none()
    }

    fn compile(
        &self,
        sets: &OriginSets,
        credentials: bool,
        dangers: &Dangers<'_>,
        problems: &mut Problems,
    ) -> Option<Allowed> {
        let (mut any, mut null, mut own) = (false, false, Vec::new());
        let at_list = dangers.at.key(self.list.0);
        for (i, entry) in names::entries(self.list.1, &at_list, problems) {
            let at = at_list.index(i);
            match OriginPattern::parse(entry) {
                Err(fault) => problems.add(&at, fault),
                Ok(OriginPattern::Any) => any = true,
                Ok(OriginPattern::Null) => {
                    null = true;
                    if !dangers.allow(Danger::NullOrigin) {
                        problems.add(&at, ProblemKind::NullOrigin);
                    }
                }
                Ok(OriginPattern::Tuple(pattern)) => {
                    dangers.check(entry, &pattern, credentials, &at, problems);
                    own.push(pattern);
                }
            }
        }
        let sources = self.regexes.1.map(Patterns::sources).unwrap_or_default();
        let at_regexes = dangers.at.key(self.regexes.0);
        if self.regexes.1.is_some() && sources.is_empty() {
            problems.add(&at_regexes, ProblemKind::EmptyList { required: false });
        }
        for (i, source) in sources.iter().enumerate() {
            let (at_one, in_list) = (at_regexes, at_regexes.index(i));
            let at = if let Some(Patterns::One(_)) = self.regexes.1 { &at_one } else { &in_list };
            match regexes::check(source) {
                Err(fault) => problems.add(at, fault),
                Ok(regex) => dangers.check_regex(&regex, credentials, at, problems),
            }
        }
        let (mut shared, mut has_errors) = (Vec::new(), false);
        let at_sets = dangers.at.key("allow_origin_sets");
        for (i, name) in names::entries(self.sets, &at_sets, problems) {
            let at = at_sets.index(i);
            match sets.get(name) {
                None => {
                    let mut known: Vec<String> = sets.keys().cloned().collect();
                    known.sort();
                    let known = Known::instead_of(name, known);
                    problems.add(&at, ProblemKind::UnknownName { what: "origin set", name: name.into(), known });
                }
                // The errors of the set are reported at the set.
                Some(None) => has_errors = true,
                Some(Some(origins)) => {
                    for (text, pattern) in &origins.restricted {
                        dangers.check(text, pattern, credentials, &at, problems);
                    }
                    shared.push(origins.clone());
                }
            }
        }
        if has_errors {
            return None;
        }
        if any {
            let beside_star =
                self.list.1.into_iter().flat_map(List::entries).any(|entry| entry != "*" && !entry.is_empty());
            if beside_star || !sources.is_empty() || !shared.is_empty() {
                problems.add(&at_list, ProblemKind::AnyWithOthers);
            }
            return Some(match credentials {
                false => Allowed::Any,
                true => {
                    if !dangers.allow(Danger::AnyOriginWithCredentials) {
                        problems.add(&at_list, ProblemKind::AnyOriginWithCredentials);
                    }
                    Allowed::AnyByName { null: dangers.allow(Danger::NullOrigin) }
                }
            });
        }
        let regexes = match sources.is_empty() {
            true => None,
            false => OriginRegexes::compile(sources.iter().map(String::as_str)),
        };
        Some(Allowed::Listed { own: own.iter().collect(), shared, regexes, null })
    }
}

/// The entries of `dangerously_allow`, and the checks that need them.
struct Dangers<'a> {
    /// The place of the policy.
    at: &'a At<'a>,
    allowed: &'a [Danger],
    /// The dangers that at least one setting needs. `check` gives a hint about the other accepted dangers.
    needed: RefCell<Vec<Danger>>,
}

impl Dangers<'_> {
    fn allow(&self, danger: Danger) -> bool {
        self.needed.borrow_mut().push(danger);
        self.allowed.contains(&danger)
    }

    fn hint_unused(&self, problems: &mut Problems) {
        let at = self.at.key("dangerously_allow");
        for (i, danger) in self.allowed.iter().enumerate().filter(|(_, danger)| !self.needed.borrow().contains(danger))
        {
            problems.add(&at.index(i), ProblemKind::UnusedDanger { word: danger.word() });
        }
    }

    fn check(&self, text: &str, pattern: &TuplePattern, credentials: bool, at: &At<'_>, problems: &mut Problems) {
        let own = || text.to_owned();
        if let Some(suffix) = pattern.public_suffix().map(str::to_owned) {
            // Without credentials, `scheme://*` means any origin of the scheme. The pattern itself shows that, so there
            // is no warning.
            if credentials && !self.allow(Danger::PublicSuffixSubdomains) {
                problems.add(at, ProblemKind::PublicSuffixWithCredentials { pattern: own(), suffix });
            } else if !credentials && suffix != "*" {
                problems.add(at, ProblemKind::PublicSuffix { pattern: own(), suffix });
            }
        }
        if credentials && pattern.is_insecure() {
            if !self.allow(Danger::InsecureOrigins) {
                problems.add(at, ProblemKind::InsecureOriginWithCredentials { pattern: own() });
            }
        } else if credentials && pattern.is_odd_scheme() {
            problems.add(at, ProblemKind::OddSchemeWithCredentials { pattern: own() });
        }
    }

    /// Checks a regular expression as [`Self::check`] does, with an origin that the expression allows.
    fn check_regex(&self, regex: &Checked<'_>, credentials: bool, at: &At<'_>, problems: &mut Problems) {
        if let Some(warning) = regex.never_matches() {
            return problems.add(at, warning);
        }
        let (https, http) = (regex.any_host("https"), regex.any_host("http"));
        if !credentials {
            let any = https.or(http).map(|witness| ProblemKind::RegexMatchesAll { witness });
            let foreign =
                || regex.foreign_site().map(|(witness, suffix)| ProblemKind::PublicSuffixRegex { witness, suffix });
            // One warning is enough: the most serious one.
            let warning = any.or_else(|| match regex.lint() {
                Some(open @ ProblemKind::RegexOpenPrefix { .. }) => Some(open),
                lint => foreign().or(lint),
            });
            return warning.into_iter().for_each(|warning| problems.add(at, warning));
        }
        if let (Some(witness), Some(_)) = (&https, &http) {
            if !self.allow(Danger::AnyOriginWithCredentials) {
                problems.add(at, ProblemKind::AnyOriginRegexWithCredentials { witness: witness.clone() });
            }
            return;
        }
        let any_host = https.or(http).map(|witness| (witness, "*".to_owned()));
        let matches_any_host = any_host.is_some();
        if let Some((witness, suffix)) = any_host.or_else(|| regex.foreign_site())
            && !self.allow(Danger::PublicSuffixSubdomains)
        {
            problems.add(at, ProblemKind::PublicSuffixRegexWithCredentials { witness, suffix });
        }
        if let Some(witness) = regex.insecure_origin()
            && !self.allow(Danger::InsecureOrigins)
        {
            problems.add(at, ProblemKind::InsecureRegexWithCredentials { witness });
        }
        if matches_any_host {
            return;
        }
        match regex.lint() {
            Some(warning) => problems.add(at, warning),
            None => {
                if let Some(pattern) = regex.odd_origin() {
                    problems.add(at, ProblemKind::OddSchemeWithCredentials { pattern });
                }
            }
        }
    }
}

/// Returns the value of `cache_control`. Warns if a cache may keep an answer for longer than a browser.
fn cache_control_value(
    text: &str,
    max_age: Option<i64>,
    at: &At<'_>,
    problems: &mut Problems,
) -> Option<FinishedValue> {
    let value = HeaderValue::from_str(text).ok().filter(|_| !text.is_empty() && text.trim() == text);
    let Some(value) = value else {
        problems.add(at, ProblemKind::BadHeaderValue { text: text.to_owned() });
        return None;
    };
    let max_age = max_age.unwrap_or(Settings::DEFAULT_MAX_AGE).max(0);
    // RFC 9111 section 5.2: names are compared without case, and a number may be quoted.
    for directive in text.split(',').map(str::trim) {
        let Some((name, seconds)) = directive.split_once('=') else { continue };
        let is_age = ["max-age", "s-maxage"].iter().any(|known| name.eq_ignore_ascii_case(known));
        let seconds = seconds.trim_matches('"').parse::<i64>().ok().filter(|_| is_age);
        if seconds.is_some_and(|seconds| seconds > max_age) {
            problems.add(at, ProblemKind::CachedLongerThanMaxAge { directive: directive.to_owned(), max_age });
        }
    }
    Some(FinishedValue::new(value))
}

fn max_age(seconds: Option<i64>, at: &At<'_>, problems: &mut Problems) -> FinishedValue {
    if seconds.is_none() {
        problems.add(at, ProblemKind::MaxAgeLeftOut);
    }
    let seconds = seconds.unwrap_or(Settings::DEFAULT_MAX_AGE);
    if !(-1..=86_400).contains(&seconds) {
        problems.add(at, ProblemKind::BadMaxAge { value: seconds.to_string() });
    }
    FinishedValue::new(HeaderValue::from(seconds.max(0)))
}

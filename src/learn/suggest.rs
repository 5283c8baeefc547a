//! Computes the smallest policy that covers an observation.
//!
//! Origins, methods and header names come from clients. A learned policy contains a value only if the value has no
//! wildcard, and if a policy with this value alone compiles. That policy may have the dangers that the policy in force
//! accepts, and no others.

use std::collections::BTreeMap;

use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};

use super::{Observation, PolicyInForce, RefusedOrigin, SeenOrigin};
use crate::cors::fetch_names::{is_forbidden_method, is_forbidden_request_header, is_safelisted_method};
use crate::cors::{CorsRequest, Danger, DisallowedOrigins, OriginPattern, OriginSets, Policy, PolicyAction, Settings};
use crate::domain::{OwnOrigin, Scheme};
use crate::notation::List;
use crate::problem::{At, Problems};

/// The policies that cover an observation.
#[derive(Debug)]
pub(crate) struct Lesson<'o> {
    pub(super) observation: &'o Observation,
    /// One policy for each policy in force, in the order of the file.
    pub(super) policies: Vec<LearnedPolicy<'o>>,
}

/// The policy that covers the allowed requests of one policy in force.
#[derive(Debug)]
pub(super) struct LearnedPolicy<'o> {
    pub(super) in_force: &'o PolicyInForce,
    /// None if no origin remains.
    pub(super) settings: Option<Settings>,
    pub(super) origins: Vec<&'o SeenOrigin>,
    pub(super) methods: Vec<(&'o str, u64)>,
    pub(super) headers: Vec<(&'o str, u64)>,
    pub(super) cookies: u64,
    pub(super) authorization: u64,
    pub(super) left_out: Vec<LeftOut<'o>>,
    /// Entries of the policy in force that no request used. Each has the name of its key.
    pub(super) unused: Vec<(&'static str, &'o str)>,
    pub(super) refused: Vec<&'o RefusedOrigin>,
    /// Upper bound of the error of each count of a method or header name.
    pub(super) names_missed: u64,
}

/// A value that pages used, but that is left out of the printed policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut<'o> {
    pub(super) what: What,
    pub(super) value: &'o str,
    pub(super) count: u64,
    pub(super) why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Origin,
    Method,
    Header,
}

/// The reason why a value is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The count is below `--min-count`.
    Rare,
    /// Browsers send all its requests without permission, for example navigations.
    NoPermissionNeeded,
    /// The value needs an entry of `dangerously_allow` that the policy in force does not have.
    Needs(Danger),
    /// Browsers do not send the value, or no policy can contain it.
    NotFromBrowsers,
}

const DANGERS: [Danger; 4] =
    [Danger::NullOrigin, Danger::InsecureOrigins, Danger::AnyOriginWithCredentials, Danger::PublicSuffixSubdomains];
/// Origin of the policies that [`is_allowed_alone`] compiles.
const ANY_PAGE: &str = "https://page.example";

impl<'o> Lesson<'o> {
    /// Computes the policies. Values with a count below `min_count` are left out.
    pub(crate) fn of(observation: &'o Observation, min_count: u64) -> Self {
        let policies = (0_u32..).zip(&observation.policies);
        let learned = policies.map(|(position, in_force)| {
            let seen = observation.observed.seen.iter().filter(move |seen| seen.policy == position);
            let refused = observation.observed.refused.iter().filter(|refused| refused.policy == position);
            LearnedPolicy::of(in_force, seen, refused.collect(), min_count, observation.log.is_some())
        });
        Lesson { policies: learned.collect(), observation }
    }

    /// Returns true if there is no policy to print.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.iter().all(|policy| policy.settings.is_none())
    }
}

impl<'o> LearnedPolicy<'o> {
    fn of(
        in_force: &'o PolicyInForce,
        seen: impl Iterator<Item = &'o SeenOrigin>,
        refused: Vec<&'o RefusedOrigin>,
        min_count: u64,
        from_log: bool,
    ) -> Self {
        let before = &in_force.settings;
        let (mut origins, mut left_out) = (Vec::new(), Vec::new());
        for seen in seen {
            match why_not_now(seen, before, min_count) {
                None => origins.push(seen),
                Some(why) => left_out.push(LeftOut::origin(seen, why)),
            }
        }
        let sum = |origins: &[&SeenOrigin], count: fn(&SeenOrigin) -> u64| origins.iter().map(|seen| count(seen)).sum();
        // The access log does not have credentials.
        let credentials =
            before.allow_credentials && (from_log || sum(&origins, |seen| seen.cookies + seen.authorization) > 0_u64);
        origins.retain(|seen| match why_not(&seen.origin, credentials, before) {
            None => true,
            Some(why) => {
                left_out.push(LeftOut::origin(seen, why));
                false
            }
        });
        let mut keep = |what: What, counts: BTreeMap<&'o str, u64>| {
            let mut kept: Vec<(&str, u64)> = Vec::new();
            for (value, count) in counts {
                let why = match what {
                    _ if what == What::Method && is_safelisted_method(value.as_bytes()) => continue,
                    _ if !is_allowed_alone(what, value) => Some(Why::NotFromBrowsers),
                    _ => (count < min_count).then_some(Why::Rare),
                };
                match why {
                    None => kept.push((value, count)),
                    Some(why) => left_out.push(LeftOut { what, value, count, why }),
                }
            }
            kept.sort_by_key(|(value, count)| (std::cmp::Reverse(*count), *value));
            kept
        };
        let methods = keep(What::Method, total(origins.iter().map(|seen| &seen.methods.counts)));
        let headers = keep(What::Header, total(origins.iter().map(|seen| &seen.headers.counts)));
        let list = |entries: Vec<String>| Some(entries.into_iter().collect::<List>());
        let names = |names: &[(&str, u64)]| list(names.iter().map(|(name, _)| (*name).to_owned()).collect());
        let settings = Settings {
            allow_origins: list(origins.iter().map(|seen| seen.origin.clone()).collect()),
            allow_origins_by_regex: None,
            allow_origin_sets: None,
            allow_methods: names(&methods),
            // The access log does not have the requested headers.
            allow_headers: if from_log { before.allow_headers.clone() } else { names(&headers) },
            allow_credentials: credentials,
            ..before.clone()
        };
        let mut learned = LearnedPolicy {
            in_force,
            settings: (!origins.is_empty()).then(|| with_needed_dangers(settings)),
            cookies: sum(&origins, |seen| seen.cookies),
            authorization: sum(&origins, |seen| seen.authorization),
            names_missed: sum(&origins, |seen| seen.methods.missed + seen.headers.missed),
            origins,
            methods,
            headers,
            left_out,
            unused: Vec::new(),
            refused,
        };
        learned.unused = learned.unused_entries(from_log);
        learned
    }

    /// Returns the entries of the policy in force that no kept value uses.
    fn unused_entries(&self, from_log: bool) -> Vec<(&'static str, &'o str)> {
        let before = &self.in_force.settings;
        let entries = |list: &'o Option<List>| list.iter().flat_map(List::entries).map(String::as_str);
        let used_origin = |entry: &str| match OriginPattern::parse(entry) {
            Ok(OriginPattern::Tuple(pattern)) => self.origins.iter().any(|seen| pattern.matches(&seen.origin)),
            Ok(OriginPattern::Null) => self.origins.iter().any(|seen| seen.origin == "null"),
            // The learned policy replaces `*`.
            Ok(OriginPattern::Any) | Err(_) => true,
        };
        let used = |names: &[(&str, u64)], entry: &str| {
            entry == "*" || names.iter().any(|(name, _)| name.eq_ignore_ascii_case(entry))
        };
        let mut unused: Vec<(&'static str, &'o str)> = Vec::new();
        // With very many entries, the comparison with each origin would take too long.
        if before.allow_origins.as_ref().is_none_or(|list| list.entries().len() <= MOST_COMPARED) {
            let origins = entries(&before.allow_origins).filter(|entry| !used_origin(entry));
            unused.extend(origins.map(|entry| ("allow_origins", entry)));
        }
        let upper = |entry: &str| is_safelisted_method(entry.to_ascii_uppercase().as_bytes());
        let methods = entries(&before.allow_methods).filter(|entry| !upper(entry) && !used(&self.methods, entry));
        unused.extend(methods.map(|entry| ("allow_methods", entry)));
        if !from_log {
            let headers = entries(&before.allow_headers).filter(|entry| !used(&self.headers, entry));
            unused.extend(headers.map(|entry| ("allow_headers", entry)));
        }
        unused
    }
}

const MOST_COMPARED: usize = 1000;

impl<'o> LeftOut<'o> {
    fn origin(seen: &'o SeenOrigin, why: Why) -> Self {
        LeftOut { what: What::Origin, value: &seen.origin, count: seen.total(), why }
    }
}

/// Returns why an origin is left out because of its requests.
fn why_not_now(seen: &SeenOrigin, before: &Settings, min_count: u64) -> Option<Why> {
    // With `reject`, the upstream gets no request without permission, so every request needs permission.
    let is_ungoverned = before.disallowed_origins == DisallowedOrigins::Forward
        && seen.preflights == 0
        && seen.requests == seen.without_permission;
    if is_ungoverned {
        return Some(Why::NoPermissionNeeded);
    }
    (seen.total() < min_count).then_some(Why::Rare)
}

/// Returns why no policy can contain an origin.
fn why_not(origin: &str, credentials: bool, before: &Settings) -> Option<Why> {
    if origin.contains('*') {
        return Some(Why::NotFromBrowsers);
    }
    let in_force = before.dangerously_allow.as_deref().unwrap_or_default();
    let works_with = |dangers: Vec<Danger>| {
        let settings = Settings {
            allow_credentials: credentials,
            dangerously_allow: (!dangers.is_empty()).then_some(dangers),
            ..only(origin)
        };
        compile(&settings).is_some()
    };
    if works_with(in_force.to_vec()) {
        return None;
    }
    let needed = DANGERS.into_iter().find(|danger| works_with([in_force, &[*danger]].concat()));
    Some(needed.map_or(Why::NotFromBrowsers, Why::Needs))
}

/// Checks whether browsers can send this method or header name, and whether a policy that lists only this value allows
/// it.
fn is_allowed_alone(what: What, value: &str) -> bool {
    let list = Some(List::from_iter([value.to_owned()]));
    let mut headers = HeaderMap::new();
    let (mut settings, mut method) = (only(ANY_PAGE), "GET");
    match what {
        What::Method => (settings.allow_methods, method) = (list, value),
        What::Header => settings.allow_headers = list,
        What::Origin => return false,
    }
    let is_forbidden = match what {
        What::Method => is_forbidden_method(value),
        What::Header | What::Origin => is_forbidden_request_header(value),
    };
    let (Some(policy), Ok(method)) = (compile(&settings), HeaderValue::from_str(method)) else { return false };
    headers.insert(ORIGIN, HeaderValue::from_static(ANY_PAGE));
    headers.insert(ACCESS_CONTROL_REQUEST_METHOD, method);
    if let (What::Header, Ok(name)) = (what, HeaderValue::from_str(value)) {
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, name);
    }
    let own_origin = OwnOrigin::of(Scheme::Https, "api.example");
    let decision = policy.decide(&CorsRequest { method: &Method::OPTIONS, headers: &headers, own_origin });
    let is_answered = matches!(decision.action, PolicyAction::AnswerPreflight(_));
    value != "*" && !is_forbidden && is_answered && !decision.reason.is_refusal()
}

/// Returns a policy that allows one origin, and nothing else that needs permission.
fn only(origin: &str) -> Settings {
    Settings {
        allow_origins: Some(List::from_iter([origin.to_owned()])),
        allow_methods: Some(List::default()),
        allow_headers: Some(List::default()),
        ..Settings::default()
    }
}

/// Removes the entries of `dangerously_allow` that the policy does not need.
fn with_needed_dangers(mut settings: Settings) -> Settings {
    for danger in settings.dangerously_allow.clone().unwrap_or_default() {
        let rest: Vec<Danger> =
            settings.dangerously_allow.iter().flatten().copied().filter(|other| *other != danger).collect();
        let narrower = Settings { dangerously_allow: (!rest.is_empty()).then_some(rest), ..settings.clone() };
        if compile(&narrower).is_some() {
            settings = narrower;
        }
    }
    settings
}

fn compile(settings: &Settings) -> Option<Policy> {
    Policy::compile(settings, &OriginSets::new(), &At::root(), &mut Problems::default())
}

fn total<'o>(all: impl Iterator<Item = &'o BTreeMap<String, u64>>) -> BTreeMap<&'o str, u64> {
    let mut total = BTreeMap::new();
    for (name, count) in all.flatten() {
        *total.entry(name.as_str()).or_default() += count;
    }
    total
}

//! Converts origins of other engines to corsgate patterns and regular expressions.

use super::finding::{Finding, Kind, Place};
use super::model::{FOREIGN, Key, NO_ORIGIN, Policy};
use super::witness::{Answer, Witness};
use crate::cors::{OriginPattern, only_in};

/// Adds an origin or a pattern that has the same meaning in corsgate.
pub(super) fn exact(policy: &mut Policy, origin: &str) {
    policy.origins.push(origin.to_owned());
}

/// Adds a pattern in which `*` stands for exactly one label. `*` in corsgate stands for one or more labels, so a
/// placeholder replaces it.
pub(super) fn one_label(policy: &mut Policy, pattern: &str, at: Place) {
    let own = pattern.to_ascii_lowercase();
    policy.origins.push(own.replacen('*', "{label}", 1));
    let deeper = own.replacen("*.", "a.b.", 1);
    let kind = Kind::OneLabel { pattern: pattern.to_owned() };
    let witness = Witness::request("GET", &deeper, Answer::Unreadable);
    policy.note(Key::Origins, Finding::new(at, kind).with(witness));
}

/// Returns the engine's answer to a page with an allowed origin.
pub(super) fn allowed(policy: &Policy) -> Answer {
    if policy.credentials { Answer::WithCredentials } else { Answer::Readable }
}

/// Adds a regular expression. `theirs` has the anchors and wildcards that show how the engine matches it. corsgate
/// matches `own` against the whole origin. If the engine allows more origins, a finding shows one of them.
///
/// An expression for a part of the origin, such as `\.shop\.example$`, matches no whole origin. Such an expression
/// keeps the engine's meaning.
pub(super) fn expression(policy: &mut Policy, own: &str, theirs: &str, source: &str, at: Place) {
    let is_part = only_in(own, NO_ORIGIN).is_none() && only_in(theirs, NO_ORIGIN).is_some();
    let own = if is_part { theirs } else { own };
    policy.expressions.push(own.to_owned());
    if let Some(origin) = only_in(theirs, own) {
        let kind = Kind::ExpressionNotAnchored { expression: source.to_owned() };
        let finding = Finding::new(at, kind).with(Witness::request("GET", &origin, allowed(policy)));
        policy.note(Key::Origins, finding);
    }
}

/// Adds the findings about requests from origins that are not listed. In all engines that use this function, such a
/// request still reaches the service.
pub(super) fn leaves_refused_to_the_service(policy: &mut Policy, forwards_preflights: bool) {
    if policy.is_any_origin() {
        return;
    }
    let at = policy.at;
    if forwards_preflights {
        let witness = Witness::preflight("PUT", FOREIGN, Answer::ServiceDecides);
        policy.note(Key::Policy, Finding::new(at, Kind::RefusedPreflightForwarded).with(witness));
    }
    let witness = Witness::request("GET", FOREIGN, Answer::ServiceDecides);
    policy.note(Key::Policy, Finding::new(at, Kind::ServiceHeadersRemain).with(witness));
}

/// Methods by which Envoy and Istio compare an origin with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matcher {
    Exact,
    Prefix,
    Suffix,
    Contains,
    /// A regular expression for the whole origin.
    Expression,
}

/// Adds an entry that the engine compares with this matcher. Envoy also compares the entry with the text `*`. If that
/// matches, Envoy allows every origin.
pub(super) fn matched(policy: &mut Policy, matcher: Matcher, text: &str, at: Place) {
    let escaped = regex_syntax::escape(text);
    let expression = match matcher {
        Matcher::Exact => escaped,
        Matcher::Prefix => format!("{escaped}.*"),
        Matcher::Suffix => format!(".*{escaped}"),
        Matcher::Contains => format!(".*{escaped}.*"),
        Matcher::Expression => text.to_owned(),
    };
    if regex::Regex::new(&format!("^(?:{expression})$")).is_ok_and(|regex| regex.is_match("*")) {
        if text != "*" || matcher != Matcher::Exact {
            policy.note(Key::Origins, Finding::new(at, Kind::MatchesStar { entry: text.to_owned() }));
        }
        return policy.origins.push("*".to_owned());
    }
    let by_expression = |policy: &mut Policy| {
        let kind = Kind::EntryByExpression { entry: text.to_owned(), expression: expression.clone() };
        policy.note(Key::Origins, Finding::new(at, kind));
        policy.expressions.push(expression.clone());
    };
    match matcher {
        Matcher::Exact if text.contains('*') => {
            let why = "it is compared letter by letter, and no browser sends `*`";
            policy.note(Key::Origins, Finding::new(at, Kind::EntryIgnored { entry: text.to_owned(), why }));
        }
        Matcher::Exact => exact(policy, text),
        Matcher::Expression => policy.expressions.push(expression),
        Matcher::Contains => by_expression(policy),
        Matcher::Prefix => match whole_origin(text) {
            Some(is_loopback) => {
                let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let longer = if has_port { format!("{text}0") } else { format!("{text}.evil.test") };
                // Pages on the local machine can use any port.
                exact(policy, &if is_loopback && !has_port { format!("{text}:*") } else { text.to_owned() });
                let finding = Finding::new(at, Kind::OriginPrefix { prefix: text.to_owned() });
                let witness = Witness::request("GET", &longer, allowed(policy));
                policy.note(Key::Origins, finding.with(witness));
            }
            None => by_expression(policy),
        },
        Matcher::Suffix => {
            let host = text.strip_prefix('.').unwrap_or(text);
            let patterns = [format!("https://*.{host}"), format!("http://*.{host}")];
            let is_host = host.contains('.') && patterns.iter().all(|pattern| OriginPattern::parse(pattern).is_ok());
            if !is_host {
                return by_expression(policy);
            }
            policy.origins.extend(patterns);
            if !text.starts_with('.') {
                policy.origins.extend([format!("https://{host}"), format!("http://{host}")]);
                let witness = Witness::request("GET", &format!("https://evil{host}"), allowed(policy));
                let finding = Finding::new(at, Kind::OriginSuffix { suffix: text.to_owned() });
                policy.note(Key::Origins, finding.with(witness));
            }
        }
    }
}

/// Returns `None` if a text is not an origin with a complete host. Otherwise returns whether the host is the local
/// machine.
fn whole_origin(text: &str) -> Option<bool> {
    let Ok(OriginPattern::Tuple(_)) = OriginPattern::parse(text) else { return None };
    let host = text.split_once("://")?.1;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_loopback = name == "localhost" || name.starts_with("127.");
    (is_loopback || name.contains('.')).then_some(is_loopback)
}

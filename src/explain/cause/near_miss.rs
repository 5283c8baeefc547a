//! The entry of a policy that is most similar to a refused origin, and the difference between them.

use super::RouteConfig;
use crate::cors::{MAX_ORIGIN, OriginPattern, Patterns, TuplePattern};
use crate::domain::split_port;
use crate::problem::{KeyPath, PathStep};

/// An entry of a policy that is similar to the page's origin, but does not match it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// The entry, as in the file.
    listed: String,
    difference: Difference,
}

/// The difference between an entry and the origin. The most likely mistakes come first, and are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    Scheme,
    Port,
    SchemeAndPort,
    /// A placeholder of the entry does not match its part of the host.
    Placeholder,
    /// The entry has a different number.
    Number,
    /// Only one of them starts with `www.`.
    Www,
    /// The entry is a wildcard for subdomains, and the page is on the domain itself.
    BareDomain,
    /// The page is on a subdomain of the entry.
    Subdomain,
    /// At most two letters differ.
    Spelling,
    /// The entry is a regular expression that matches only a part of the origin.
    RegexPart,
}

impl NearMiss {
    /// Finds the most similar entry of the route's policy, and its place. A policy can have very many entries. So
    /// nothing is copied, and the exact distance is computed only for entries that can be near.
    pub(super) fn find(config: &RouteConfig<'_>, origin: &str) -> Option<(Self, KeyPath)> {
        let lists = config.listed_origins();
        let all = lists
            .iter()
            .flat_map(|(entries, at)| entries.iter().enumerate().map(move |(index, entry)| (entry, index, at)));
        let page = Parts::of(origin);
        let similar = all.filter_map(|(entry, index, at)| Some((difference(entry, page.as_ref()?)?, entry, index, at)));
        let best = similar.min_by_key(|(difference, entry, ..)| {
            (*difference as u8, strsim::damerau_levenshtein(&origin[..origin.len().min(MAX_ORIGIN)], entry))
        });
        if let Some((difference, entry, index, at)) = best {
            let mut at = at.clone();
            at.0.push(PathStep::Index(index));
            return Some((NearMiss { listed: entry.clone(), difference }, at));
        }
        let (settings, _) = config.settings()?;
        let sources = settings.allow_origins_by_regex.as_ref().map(Patterns::sources).unwrap_or_default();
        let matches_part = |source: &&String| regex::Regex::new(source).is_ok_and(|regex| regex.is_match(origin));
        let source = sources.iter().find(matches_part)?;
        let at = config.policy_key("allow_origins_by_regex")?;
        Some((NearMiss { listed: source.clone(), difference: Difference::RegexPart }, at))
    }

    /// Returns an origin that the policy allows, if only scheme and port differ. For a page on https, it is never an
    /// http origin.
    pub(super) fn allowed_origin(&self, origin: &str) -> Option<String> {
        match self.difference {
            Difference::Scheme | Difference::Port | Difference::SchemeAndPort => {}
            Difference::Placeholder
            | Difference::Number
            | Difference::Www
            | Difference::BareDomain
            | Difference::Subdomain
            | Difference::Spelling
            | Difference::RegexPart => return None,
        }
        let (scheme, listed) = self.listed.split_once("://")?;
        let (own_scheme, authority) = origin.split_once("://")?;
        if (own_scheme, scheme) == ("https", "http") {
            return None;
        }
        let (host, own_port) = split_port(authority);
        let port = match split_port(listed).1 {
            Some("*") => own_port,
            port => port,
        };
        Some(format!("{scheme}://{host}{}", port.map(|port| format!(":{port}")).unwrap_or_default()))
    }

    /// Returns the pattern that matches both the entry and the origin, if they differ only in a number.
    pub(super) fn pattern(&self, origin: &str) -> Option<TuplePattern> {
        numbered(&self.listed, origin)
    }

    pub(super) fn is_regex(&self) -> bool {
        self.difference == Difference::RegexPart
    }

    /// Returns the fault, as a phrase without a full stop.
    pub(super) fn fault(&self, origin: &str) -> String {
        let NearMiss { listed, difference } = self;
        let difference = match difference {
            Difference::Scheme => "the scheme differs",
            Difference::Port => "the port differs",
            Difference::SchemeAndPort => "scheme and port differ",
            Difference::Placeholder => {
                let mismatch = Parts::of(origin).and_then(|page| template(listed)?.unmatched_placeholder(page.host));
                let mismatch = mismatch.map(|(placeholder, text)| match text {
                    "" => format!("the placeholder {placeholder} needs at least one character"),
                    text => format!("the placeholder {placeholder} does not match '{text}'"),
                });
                &mismatch.unwrap_or_default()
            }
            Difference::Number => "the number differs",
            Difference::Www => "the `www.` prefix differs",
            Difference::BareDomain => "the wildcard covers subdomains, but not the domain itself",
            Difference::Subdomain => "the entry does not cover subdomains",
            Difference::Spelling => "the spelling differs",
            Difference::RegexPart => {
                return format!(
                    "the policy's regular expression {listed} matches only a part of the page's origin {origin}"
                );
            }
        };
        format!("the policy allows {listed}, but the page's origin is {origin}: {difference}")
    }
}

/// The parts of an origin or of a pattern.
struct Parts<'a> {
    text: &'a str,
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority);
        Some(Parts { text, scheme, host, port })
    }
}

fn difference(listed: &str, page: &Parts<'_>) -> Option<Difference> {
    let listed = Parts::of(listed)?;
    let same_port = listed.port == page.port || listed.port == Some("*");
    let is_below = |base: &str| page.host.strip_suffix(base).is_some_and(|front| front.ends_with('.'));
    let template = template(listed.text);
    let covers = match (&template, listed.host.strip_prefix("*.")) {
        (Some(template), _) => template.matches_host(page.host),
        (None, Some(base)) => is_below(base),
        (None, None) => listed.host == page.host,
    };
    if covers {
        return match (listed.scheme == page.scheme, same_port) {
            (false, true) => Some(Difference::Scheme),
            (true, false) => Some(Difference::Port),
            (false, false) => Some(Difference::SchemeAndPort),
            (true, true) => None,
        };
    }
    if listed.scheme == page.scheme && same_port {
        if template.is_some_and(|template| template.unmatched_placeholder(page.host).is_some()) {
            return Some(Difference::Placeholder);
        }
        if numbered(listed.text, page.text).is_some() {
            return Some(Difference::Number);
        }
        if without_www(listed.host) == without_www(page.host) {
            return Some(Difference::Www);
        }
        if listed.host.strip_prefix("*.") == Some(page.host) {
            return Some(Difference::BareDomain);
        }
        if is_below(listed.host.trim_start_matches("*.")) {
            return Some(Difference::Subdomain);
        }
    }
    if listed.text.len() > MAX_ORIGIN || page.text.len() > MAX_ORIGIN {
        return None;
    }
    let is_near = least_distance(listed.text, page.text) <= 2;
    (is_near && strsim::damerau_levenshtein(listed.text, page.text) <= 2).then_some(Difference::Spelling)
}

/// Returns the entry as a pattern, if it has a placeholder.
fn template(listed: &str) -> Option<TuplePattern> {
    if !listed.contains('{') {
        return None;
    }
    match OriginPattern::parse(listed) {
        Ok(OriginPattern::Tuple(pattern)) => Some(pattern),
        _ => None,
    }
}

/// Returns the pattern with `{digits}` in place of the number in which an entry and an origin differ. Returns None if
/// another part differs, or if anybody can register such a name.
fn numbered(listed: &str, origin: &str) -> Option<TuplePattern> {
    let common = listed.bytes().zip(origin.bytes()).take_while(|(a, b)| a == b).count();
    let before = listed.get(..common)?.trim_end_matches(|c: char| c.is_ascii_digit());
    let after = listed.get(common..)?.trim_start_matches(|c: char| c.is_ascii_digit());
    if before.len() + after.len() == listed.len() || !origin.ends_with(after) {
        return None;
    }
    match OriginPattern::parse(&format!("{before}{{digits}}{after}")) {
        Ok(OriginPattern::Tuple(pattern)) if pattern.matches(origin) && pattern.public_suffix().is_none() => {
            Some(pattern)
        }
        _ => None,
    }
}

fn without_www(host: &str) -> &str {
    host.strip_prefix("www.").unwrap_or(host)
}

/// Returns a lower bound of the edit distance, which is much faster to compute. It counts the characters that only one
/// of the texts has. One edit changes at most one of them on each side. Several bytes share a counter, which can only
/// lower the bound.
pub(in crate::explain) fn least_distance(a: &str, b: &str) -> usize {
    let difference = a.len().abs_diff(b.len());
    // Longer texts could overflow the counters.
    if difference > 2 || a.len() > MAX_ORIGIN {
        return difference;
    }
    let mut counts = [0i16; 64];
    for byte in a.bytes() {
        counts[usize::from(byte & 63)] += 1;
    }
    for byte in b.bytes() {
        counts[usize::from(byte & 63)] -= 1;
    }
    let (mut only_a, mut only_b) = (0, 0);
    for count in counts {
        only_a += count.max(0).unsigned_abs();
        only_b += count.min(0).unsigned_abs();
    }
    usize::from(only_a.max(only_b))
}

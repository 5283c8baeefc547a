//! The entry of a policy that is most similar to an origin which the policy does not allow, and the difference.

use super::RouteConfig;
use crate::cors::{MAX_ORIGIN, Patterns};
use crate::domain::split_port;
use crate::problem::KeyPath;

/// An entry of a policy that is similar to the page's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// As the file has it.
    listed: String,
    difference: Difference,
}

/// How an entry differs from the origin. The order is the order of preference: the most likely mistake first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    Scheme,
    Port,
    SchemeAndPort,
    /// Only one of them starts with `www.`.
    Www,
    /// The entry is a wildcard for subdomains, and the page is on the domain itself.
    BareDomain,
    /// The page is on a subdomain of the entry.
    Subdomain,
    /// At most two letters.
    Spelling,
    /// The entry is a regular expression that matches only a part of the origin.
    RegexPart,
}

impl NearMiss {
    /// The most similar entry of the route's policy, and its place.
    pub(super) fn find(config: &RouteConfig<'_>, origin: &str) -> Option<(Self, KeyPath)> {
        let listed = config.listed_origins();
        let similar = listed.iter().filter_map(|(entry, at)| Some((difference(entry, origin)?, entry, at)));
        let best = similar.min_by_key(|(difference, entry, _)| {
            (*difference as u8, strsim::damerau_levenshtein(&origin[..origin.len().min(MAX_ORIGIN)], entry))
        });
        if let Some((difference, entry, at)) = best {
            return Some((NearMiss { listed: entry.clone(), difference }, at.clone()));
        }
        let (settings, _) = config.settings()?;
        let sources = settings.allow_origins_by_regex.as_ref().map(Patterns::sources).unwrap_or_default();
        let matches_part = |source: &&String| regex::Regex::new(source).is_ok_and(|regex| regex.is_match(origin));
        let source = sources.iter().find(matches_part)?;
        let at = config.policy_key("allow_origins_by_regex")?;
        Some((NearMiss { listed: source.clone(), difference: Difference::RegexPart }, at))
    }

    /// The origin at which the policy allows the page, if only scheme and port differ. Never http for a page on https.
    pub(super) fn allowed_origin(&self, origin: &str) -> Option<String> {
        match self.difference {
            Difference::Scheme | Difference::Port | Difference::SchemeAndPort => {}
            Difference::Www
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

    pub(super) fn is_regex(&self) -> bool {
        self.difference == Difference::RegexPart
    }

    /// What is wrong, as a phrase without a full stop.
    pub(super) fn fault(&self, origin: &str) -> String {
        let NearMiss { listed, difference } = self;
        let difference = match difference {
            Difference::Scheme => "the scheme differs",
            Difference::Port => "the port differs",
            Difference::SchemeAndPort => "scheme and port differ",
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

fn difference(listed: &str, origin: &str) -> Option<Difference> {
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
            (false, true) => Some(Difference::Scheme),
            (true, false) => Some(Difference::Port),
            (false, false) => Some(Difference::SchemeAndPort),
            (true, true) => None,
        };
    }
    if scheme == other_scheme && same_port {
        if without_www(&host) == without_www(&other_host) {
            return Some(Difference::Www);
        }
        if host.strip_prefix("*.") == Some(&other_host) {
            return Some(Difference::BareDomain);
        }
        if other_host.strip_suffix(host.trim_start_matches("*.")).is_some_and(|front| front.ends_with('.')) {
            return Some(Difference::Subdomain);
        }
    }
    if listed.len() > MAX_ORIGIN || origin.len() > MAX_ORIGIN {
        return None;
    }
    (strsim::damerau_levenshtein(listed, origin) <= 2).then_some(Difference::Spelling)
}

//! Sites, which determine the cookies of a request, and address spaces, which determine Local Network Access.

use std::net::IpAddr;

use super::question::PageUrl;
use crate::domain::{is_loopback_host, split_port};

/// The IP address space of a host (Local Network Access). Host names are not resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AddressSpace {
    Loopback,
    Local,
    Public,
}

impl AddressSpace {
    /// Returns the address space of a host with or without a port. A name is public, unless it is `localhost` or ends
    /// with `.local`.
    pub(super) fn of(authority: &str) -> Self {
        let host = split_port(authority).0;
        if is_loopback_host(host) {
            return AddressSpace::Loopback;
        }
        let is_local =
            match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| ip.to_canonical()) {
                Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local(),
                Ok(IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
                Err(_) => host.rsplit('.').next() == Some("local"),
            };
        if is_local { AddressSpace::Local } else { AddressSpace::Public }
    }

    /// Returns the name of the address space in the messages of browsers.
    pub(super) fn word(self) -> &'static str {
        match self {
            AddressSpace::Loopback => "loopback",
            AddressSpace::Local => "local",
            AddressSpace::Public => "public",
        }
    }
}

/// Returns true for "same site" in HTML: the schemes are equal, and the hosts are equal or have the same registrable
/// domain.
pub(super) fn is_same_site(origin: &str, url: &PageUrl) -> bool {
    origin.split_once("://").is_some_and(|(scheme, _)| scheme == url.scheme.as_str())
        && is_schemelessly_same_site(origin, url)
}

/// Returns true for "schemelessly same site" in HTML: as [`is_same_site`], but with any schemes.
pub(super) fn is_schemelessly_same_site(origin: &str, url: &PageUrl) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let (host, other) = (split_port(authority).0, split_port(&url.authority).0);
    host.eq_ignore_ascii_case(other)
        || registrable_domain(host).is_some_and(|domain| registrable_domain(other) == Some(domain))
}

/// Returns the registrable domain. Returns None for an IP address, and for a public suffix.
fn registrable_domain(host: &str) -> Option<&str> {
    if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
        return None;
    }
    psl::domain_str(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Question;

    #[test]
    fn sites_have_a_scheme_and_a_registrable_domain() {
        for (origin, url, same) in [
            ("https://app.example.com", "https://api.example.com/", true),
            ("https://app.example.com", "https://example.com:8443/", true),
            ("http://app.example.com", "https://api.example.com/", false),
            ("https://a.github.io", "https://b.github.io/", false),
            ("https://a.co.uk", "https://b.co.uk/", false),
            ("http://localhost:3000", "http://localhost:9080/", true),
            ("http://127.0.0.1:3000", "http://127.0.0.1:9080/", true),
            ("http://10.0.0.1", "http://10.1.0.1/", false),
            ("http://[::1]:3000", "http://[::1]/", true),
            ("null", "https://api.example.com/", false),
        ] {
            let question = Question::new(origin, url).unwrap();
            assert_eq!(is_same_site(origin, &question.requests[0].url), same, "{origin} {url}");
        }
    }

    #[test]
    fn address_spaces_are_those_of_browsers() {
        for (authority, space) in [
            ("localhost:3000", AddressSpace::Loopback),
            ("app.localhost", AddressSpace::Loopback),
            ("127.9.9.9", AddressSpace::Loopback),
            ("[::1]:80", AddressSpace::Loopback),
            ("10.0.0.5:8000", AddressSpace::Local),
            ("172.16.0.1", AddressSpace::Local),
            ("172.32.0.1", AddressSpace::Public),
            ("192.168.1.1", AddressSpace::Local),
            ("169.254.1.1", AddressSpace::Local),
            ("[fd00::1]", AddressSpace::Local),
            ("[fe80::1]", AddressSpace::Local),
            ("[2001:db8::1]", AddressSpace::Public),
            ("printer.local", AddressSpace::Local),
            ("app.example", AddressSpace::Public),
        ] {
            assert_eq!(AddressSpace::of(authority), space, "{authority}");
        }
    }
}

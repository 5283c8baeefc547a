//! The origin of a request's own URL, as the client used it: scheme, host and port.

use std::fmt;

use super::split_port;

/// Scheme of a request's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http`: the connection has no TLS.
    Http,
    /// `https`: the connection has TLS.
    Https,
}

/// The origin of a request's own URL, as the client used it: at the gateway, or at a trusted proxy in front of it. It
/// is used for the same-origin check, for the redirect to https, and in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnOrigin<'a> {
    /// Scheme of the URL.
    pub scheme: Scheme,
    /// The host in the client's spelling, IPv6 in brackets. Empty for a request without a host.
    pub host: &'a str,
    /// None: the default port of the scheme.
    pub port: Option<u16>,
}

impl Scheme {
    /// Returns `http` or `https`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Returns the port of a URL that has no explicit port.
    pub(crate) const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// Parses a scheme in any case. WebSockets are http for a proxy, so `ws` is `http` and `wss` is `https`.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        const WORDS: [(&str, Scheme); 4] =
            [("http", Scheme::Http), ("https", Scheme::Https), ("ws", Scheme::Http), ("wss", Scheme::Https)];
        WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, scheme)| *scheme)
    }
}

impl<'a> OwnOrigin<'a> {
    /// Returns the origin of a scheme and an authority in the form of `Host`. The authority is not validated. An
    /// invalid authority gives an origin that no page has.
    pub fn of(scheme: Scheme, authority: &'a str) -> Self {
        let (host, port) = match split_port(authority) {
            (host, None | Some("")) => (host, None),
            (host, Some(digits)) => match parse_port(digits) {
                Some(port) => (host, Some(port)),
                None => (authority, None),
            },
        };
        OwnOrigin { scheme, host, port: port.filter(|port| *port != scheme.default_port()) }
    }

    /// Whether an `Origin` equals this origin. Browsers omit the default port.
    pub(crate) fn is(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let (host, port) = split_port(authority);
        let same_port = match port {
            None => self.port.is_none(),
            Some(digits) => parse_port(digits).is_some_and(|port| Some(port) == self.port),
        };
        scheme == self.scheme.as_str() && !self.host.is_empty() && host.eq_ignore_ascii_case(self.host) && same_port
    }

    /// Whether an `Origin` has this host and port. Schemes are not compared, so the default ports of http and https
    /// count as the same.
    pub(crate) fn has_authority_of(&self, origin: &str) -> bool {
        let same = |scheme: Scheme| {
            // `Host` may name the default port of the origin's scheme.
            OwnOrigin { scheme, port: self.port.filter(|port| *port != scheme.default_port()), ..*self }.is(origin)
        };
        same(Scheme::Http) || same(Scheme::Https)
    }

    /// Returns the authority in the form of `Host`: the host, and the port unless it is the default port.
    pub(crate) fn authority(self) -> impl fmt::Display {
        Authority(self)
    }
}

struct Authority<'a>(OwnOrigin<'a>);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port {
            None => f.write_str(self.0.host),
            Some(port) => write!(f, "{}:{port}", self.0.host),
        }
    }
}

/// Parses a port from 0 to 65535, without a sign. Leading zeros are allowed, because `Host` allows them.
pub(crate) fn parse_port(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_the_authority_of_a_request_whatever_its_scheme() {
        #[rustfmt::skip]
        let rows = [
            (Scheme::Http,  "app.test",      "https://app.test",      true),
            (Scheme::Http,  "app.test",      "http://app.test",       true),
            (Scheme::Https, "APP.test",      "http://app.test",       true),
            (Scheme::Http,  "app.test:443",  "https://app.test",      true),
            (Scheme::Http,  "app.test:8443", "https://app.test:8443", true),
            (Scheme::Http,  "app.test:8443", "https://app.test",      false),
            (Scheme::Http,  "app.test",      "https://app.test:8443", false),
            (Scheme::Http,  "app.test",      "https://app.test.evil.test", false),
            (Scheme::Http,  "app.test",      "https://evilapp.test",  false),
            (Scheme::Http,  "app.test",      "app://app.test",        false),
            (Scheme::Http,  "app.test",      "null",                  false),
            (Scheme::Http,  "",              "http://",               false),
        ];
        for (scheme, authority, origin, expected) in rows {
            let found = OwnOrigin::of(scheme, authority).has_authority_of(origin);
            assert_eq!(found, expected, "{scheme:?} {authority} {origin}");
        }
    }

    #[test]
    fn an_origin_is_a_requests_own_only_if_scheme_host_and_port_are_the_same() {
        #[rustfmt::skip]
        let rows = [
            (Scheme::Https, "app.test",      "https://app.test",      true),
            (Scheme::Https, "APP.test:443",  "https://app.test",      true),
            (Scheme::Https, "app.test:",     "https://app.test",      true),
            (Scheme::Http,  "app.test:80",   "http://app.test",       true),
            (Scheme::Https, "app.test:8443", "https://app.test:8443", true),
            (Scheme::Https, "[::1]:8443",    "https://[::1]:8443",    true),
            (Scheme::Https, "[::1]",         "https://[::1]",         true),
            (Scheme::Https, "app.test",      "http://app.test",       false),
            (Scheme::Https, "app.test",      "https://app.test:443",  false), // no browser sends it
            (Scheme::Https, "app.test",      "https://app.test:",     false),
            (Scheme::Https, "app.test:8443", "https://app.test:+8443", false),
            (Scheme::Https, "app.test:80",   "https://app.test",      false),
            (Scheme::Https, "app.test:8443", "https://app.test",      false),
            (Scheme::Https, "app.test",      "https://app.test.evil.test", false),
            (Scheme::Https, "app.test:x",    "https://app.test",      false),
            (Scheme::Https, "app.test:x",    "https://app.test:x",    false),
            (Scheme::Https, "",              "https://",              false),
            (Scheme::Https, "app.test",      "app.test",              false),
            (Scheme::Https, "app.test",      "null",                  false),
        ];
        for (scheme, authority, origin, expected) in rows {
            assert_eq!(OwnOrigin::of(scheme, authority).is(origin), expected, "{scheme:?} {authority} {origin}");
        }
    }
}

//! Patterns of hosts and paths in the form of the configuration. Every value is valid.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::domain::{HostName, NameFault, check_name, split_port};
use crate::problem::ProblemKind;

/// An entry of `hosts`: `api.example` or `*.example`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Matches a host name, or an IP address. An IPv6 address is in brackets.
    Exact(Box<str>),
    /// Matches names with one or more labels before this text. The file has `*.` before it.
    Subdomains(Box<str>),
}

/// An entry of `paths`: `/users`, `/users/{id}` or `/users/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// The text in the configuration.
    text: Box<str>,
    tail: Tail,
}

/// Maximum number of segments of a pattern. The lookup of a path recurses once for each segment of a pattern, so this
/// bounds the stack of a request.
pub(super) const MOST_SEGMENTS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// The pattern matches the complete path.
    End,
    /// The pattern ends with `/*`, and matches any rest.
    Wildcard,
}

/// A segment of a path pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Literal(&'a [u8]),
    /// `{name}`: any non-empty segment.
    Parameter,
}

/// Returns true if servers could interpret a request path differently. In this case, the upstream could serve another
/// resource than the one whose policy is chosen here. Dot segments (also encoded, or with parameters), encoded slashes,
/// backslashes and NULs are ambiguous.
pub fn is_ambiguous(path: &[u8]) -> bool {
    path.split(|b| *b == b'/')
        .any(|segment| segment.iter().any(|b| matches!(b, b'\\' | 0 | b'%' | b'.')) && is_ambiguous_segment(segment))
}

fn is_ambiguous_segment(segment: &[u8]) -> bool {
    let encoded = |code: &[u8; 3]| segment.windows(3).any(|window| window.eq_ignore_ascii_case(code));
    segment.contains(&b'\\')
        || segment.contains(&0)
        || encoded(b"%2f")
        || encoded(b"%5c")
        || encoded(b"%00")
        || is_dot_segment(segment)
}

/// Returns the path after two changes that some servers make: they merge slashes, and decode characters that need no
/// encoding. Returns None if nothing changes.
pub(crate) fn plain_path(path: &[u8]) -> Option<Vec<u8>> {
    // Most paths are plain, and are not copied.
    if !path.contains(&b'%') && !path.windows(2).any(|pair| pair == b"//") {
        return None;
    }
    let mut plain: Vec<u8> = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match decoded(*high, *low) {
                Some(byte) if byte.is_ascii_graphic() && !b"%/?#\\".contains(&byte) => (byte, after),
                _ => (*first, &rest[1..]),
            },
            _ => (*first, after),
        };
        if byte != b'/' || plain.last() != Some(&b'/') {
            plain.push(byte);
        }
        rest = after;
    }
    (plain != path).then_some(plain)
}

fn decoded(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Returns true for `.` and `..`. Dots may be encoded as `%2e`, and `;parameters` may follow. Some servers remove
/// parameters before they resolve dot segments, and some decode the semicolon before that.
fn is_dot_segment(segment: &[u8]) -> bool {
    let (mut rest, mut dots) = (segment, 0);
    loop {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            [] | [b';', ..] | [b'%', b'3', b'b' | b'B', ..] => return dots == 1 || dots == 2,
            _ => return false,
        };
        dots += 1;
    }
}

// === impl HostPattern ===

impl HostPattern {
    /// Parses an entry of `hosts` in the configuration.
    ///
    /// Returns an error with the kind of problem, and the corrected host if there is one.
    pub fn parse(text: &str) -> Result<Self, ProblemKind> {
        let bad = |why, write: Option<String>| ProblemKind::BadHost { text: text.to_owned(), why, write };
        if text.is_empty() {
            return Err(ProblemKind::EmptyEntry);
        }
        if text == "*" {
            return Err(ProblemKind::BadHost {
                text: text.into(),
                why: "a service without `hosts` matches any host",
                write: None,
            });
        }
        // Returns the host of a URL if it is valid.
        let bare = |text: &str| {
            let host = split_port(text.split('/').next().unwrap_or_default()).0;
            Self::parse(host).is_ok().then(|| host.to_owned())
        };
        if let Some((_, rest)) = text.split_once("://") {
            return Err(bad("a host has no scheme", bare(rest)));
        }
        if text.contains('/') {
            return Err(bad("a host has no path", bare(text)));
        }
        let lower = text.to_ascii_lowercase();
        let (host, port) = split_port(&lower);
        if port.is_some() && lower.parse::<Ipv6Addr>().is_err() {
            return Err(bad("hosts are matched without a port", Some(host.into())));
        }
        if let Ok(address) = lower.parse::<Ipv6Addr>() {
            return Err(bad("an IPv6 address must be in brackets", Some(format!("[{address}]"))));
        }
        if let Some(v6) = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')) {
            return match v6.parse::<Ipv6Addr>() {
                Ok(address) if address.to_string() == v6 => Ok(Self::Exact(host.into())),
                Ok(address) => Err(bad("clients send this address in another form", Some(format!("[{address}]")))),
                Err(_) => Err(bad("it is not an IPv6 address in brackets", None)),
            };
        }
        let (wild, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, &*lower),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        match check_name(name) {
            Err(NameFault::Character('*')) => {
                return Err(bad("`*` can only replace complete labels at the front, as in `*.example`", None));
            }
            Err(NameFault::Character(c)) if !c.is_ascii() => {
                return Err(bad("it is not ASCII, but clients send punycode (`xn--…`)", None));
            }
            Err(NameFault::Character(_)) => return Err(bad("it has a character that is not allowed in a host", None)),
            Err(NameFault::Labels(why)) => return Err(bad(why, None)),
            Ok(()) if wild && name.parse::<Ipv4Addr>().is_ok() => {
                return Err(bad("an IP address has no subdomains", None));
            }
            Ok(()) => {}
        }
        Ok(if wild { Self::Subdomains(name.into()) } else { Self::Exact(name.into()) })
    }

    /// Returns true if the pattern matches a host.
    pub(crate) fn covers(&self, host: &HostName) -> bool {
        let host = host.as_str();
        match self {
            Self::Exact(name) => host == &**name,
            // At least one label must precede the base.
            Self::Subdomains(base) => {
                host.strip_suffix(&**base).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Subdomains(base) => write!(f, "*.{base}"),
        }
    }
}

// === impl PathPattern ===

impl PathPattern {
    /// Parses an entry of `paths` in the configuration.
    ///
    /// Returns an error with the kind of problem, and the corrected path if there is one.
    pub fn parse(text: &str) -> Result<Self, ProblemKind> {
        let bad = |why, write: Option<String>| ProblemKind::BadPath { text: text.to_owned(), why, write };
        if text.is_empty() {
            return Err(ProblemKind::EmptyEntry);
        }
        if text == "*" {
            return Err(bad("it must begin with a slash", Some("/*".into())));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let path = rest.find('/').map_or("/*", |slash| &rest[slash..]);
            return Err(ProblemKind::PathWithScheme { text: text.into(), path: path.into() });
        }
        // nginx and Kong mark regular expressions with these characters. No part of an expression is suggested as a
        // path.
        if text.starts_with(['~', '^']) || text.contains("(?") {
            return Err(bad("it is a regular expression", None));
        }
        if !text.starts_with('/') {
            let written = format!("/{}", text.trim_start_matches(['*', '/']));
            return Err(bad("it must begin with a slash", Self::parse(&written).is_ok().then_some(written)));
        }
        if let Some(cut) = text.find(['?', '#']) {
            return Err(bad("routes are matched without a query and a fragment", Some(text[..cut].into())));
        }
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            let encoded = text.bytes().map(|b| match b.is_ascii_graphic() {
                true => char::from(b).to_string(),
                false => format!("%{b:02X}"),
            });
            return Err(bad("clients percent-encode some of these characters", Some(encoded.collect())));
        }
        if is_ambiguous(text.as_bytes()) {
            return Err(bad(
                "requests with dot segments, encoded slashes, backslashes or NULs are answered with 400",
                None,
            ));
        }
        let (front, tail) = match text.strip_suffix("/*") {
            Some(front) => (front, Tail::Wildcard),
            None => (text, Tail::End),
        };
        if front.contains('*') {
            // `/users*` means `/users/*`. The suggestion must not be wider, for example `/*`.
            let below = text.trim_end_matches(['*', '/']);
            let write = (text.ends_with('*') && !below.contains('*')).then(|| format!("{below}/*"));
            return Err(bad("`*` can only be the complete last segment", write));
        }
        for segment in front.split('/') {
            let inner = segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
            match inner {
                Some("") => return Err(bad("a parameter needs a name", Some(text.replace("{}", "{id}")))),
                Some(name) if !name.contains(['{', '}']) => {}
                None if !segment.contains(['{', '}']) => {}
                _ => return Err(bad("a parameter must be a complete segment", None)),
            }
        }
        if front.bytes().filter(|b| *b == b'/').count() > MOST_SEGMENTS {
            let text = format!("{}…", &text[..40]);
            return Err(ProblemKind::BadPath { text, why: "it has more than 256 segments", write: None });
        }
        Ok(PathPattern { text: text.into(), tail })
    }

    /// Returns the pattern `/*`, which matches every path.
    pub(crate) fn any() -> Self {
        PathPattern { text: "/*".into(), tail: Tail::Wildcard }
    }

    /// Returns true if all matching paths begin with a literal prefix that ends at a segment boundary.
    pub(crate) fn begins_with(&self, prefix: &str) -> bool {
        let front = self.front();
        front.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let front = self.front();
        // `/*` has no segment before the wildcard. Any other pattern has one segment after each slash.
        let segments = front.strip_prefix('/').map(|rest| rest.split('/'));
        segments.into_iter().flatten().map(|segment| match segment.starts_with('{') {
            true => Segment::Parameter,
            false => Segment::Literal(segment.as_bytes()),
        })
    }

    fn front(&self) -> &str {
        match self.tail {
            Tail::Wildcard => self.text.strip_suffix("/*").unwrap_or(&self.text),
            Tail::End => &self.text,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_has_no_empty_segments_and_no_needless_encoding() {
        #[rustfmt::skip]
        let cases: [(&str, Option<&str>); 14] = [
            ("/admin",          None),
            ("/admin/",         None),
            ("/",               None),
            ("//admin",         Some("/admin")),
            ("///a//b///",      Some("/a/b/")),
            ("/%61dmin",        Some("/admin")),
            ("/%61%64min/%7e",  Some("/admin/~")),
            ("/a%20b",          None),
            ("/a%2",            None),
            ("/a%",             None),
            ("/a%zz",           None),
            ("/a%25%61",        Some("/a%25a")),
            ("/a%3Fb%23",       None),
            ("/a%40b",          Some("/a@b")),
        ];
        for (path, plain) in cases {
            let found = plain_path(path.as_bytes());
            assert_eq!(found.as_deref(), plain.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn a_pattern_has_a_maximum_number_of_segments() {
        for tail in ["", "/*"] {
            let of_segments = |segments: usize| PathPattern::parse(&("/a".repeat(segments) + tail));
            assert!(of_segments(MOST_SEGMENTS).is_ok());
            let Err(ProblemKind::BadPath { text, why, .. }) = of_segments(MOST_SEGMENTS + 1) else { panic!("{tail}") };
            assert_eq!((text.chars().count(), why), (41, "it has more than 256 segments"));
        }
    }

    #[test]
    fn a_host_pattern_covers_its_name_or_the_names_below_it() {
        for (pattern, host, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("*.a.example", "b.a.example", true),
            ("*.a.example", "c.b.a.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", "xa.example", false),
            ("*.a.example", "xxa.example", false),
            ("*.a.example", "b.c.example", false),
        ] {
            let host = HostName::parse(host).unwrap();
            assert_eq!(HostPattern::parse(pattern).unwrap().covers(&host), expected, "{pattern} {}", host.as_str());
        }
    }

    #[test]
    fn a_suggested_path_is_not_wider_than_the_text() {
        for (text, write) in [
            ("/users*", Some("/users/*")),
            ("/users/**", Some("/users/*")),
            ("/a*/b*", None),
            ("/a*b", None),
            ("/{a{b}}", None),
            ("/{a}b", None),
        ] {
            let Err(ProblemKind::BadPath { write: found, .. }) = PathPattern::parse(text) else { panic!("{text}") };
            assert_eq!(found.as_deref(), write, "{text}");
        }
    }
}

//! Hosts and paths as a configuration writes them, valid by construction.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::domain::{HostName, NameFault, check_name, split_port};
use crate::problem::ProblemKind;

/// `api.example` or `*.example`, lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// A name or an address, IPv6 in brackets.
    Exact(Box<str>),
    /// The text behind `*.`: one or more labels stand in front of it.
    Below(Box<str>),
}

/// `/users`, `/users/{id}` or `/users/*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    /// As written.
    text: Box<str>,
    tail: Tail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Tail {
    /// The path ends where the pattern does.
    End,
    /// `/*`
    Anything,
}

/// One step of a path, between slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Literal(&'a [u8]),
    /// Any segment that is not empty.
    Parameter,
}

/// Whether different servers could understand a request path differently: then the policy that is chosen here need not
/// be the one of what the upstream serves. Dot segments (encoded, or with a parameter, too), encoded slashes,
/// backslashes and NULs.
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
        || is_dots(segment)
}

/// `.` or `..`, each dot maybe written `%2e`, maybe followed by `;parameters`, which some servers cut off first; and
/// some of those have decoded the semicolon before.
fn is_dots(segment: &[u8]) -> bool {
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
    /// Reads one entry of `hosts`.
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
        // What is left of a URL, if that is a host.
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
            Err(NameFault::Shape(why)) => return Err(bad(why, None)),
            Ok(()) if wild && name.parse::<Ipv4Addr>().is_ok() => {
                return Err(bad("an IP address has no subdomains", None));
            }
            Ok(()) => {}
        }
        Ok(if wild { Self::Below(name.into()) } else { Self::Exact(name.into()) })
    }

    /// Whether a host is it, or below it.
    pub(crate) fn covers(&self, host: &HostName) -> bool {
        let host = host.as_str();
        match self {
            Self::Exact(name) => host == &**name,
            // At least one label stands in front.
            Self::Below(base) => {
                host.strip_suffix(&**base).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(base) => write!(f, "*.{base}"),
        }
    }
}

// === impl PathPattern ===

impl PathPattern {
    /// Reads one entry of `paths`.
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
            return Err(bad("it must not have a scheme or a host, which belong to `hosts`", Some(path.into())));
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
            Some(front) => (front, Tail::Anything),
            None => (text, Tail::End),
        };
        if front.contains('*') {
            // `/users*` was meant as `/users/*`, never as the wider `/*`.
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
        Ok(PathPattern { text: text.into(), tail })
    }

    /// `/*`: every path.
    pub(crate) fn any() -> Self {
        PathPattern { text: "/*".into(), tail: Tail::Anything }
    }

    /// Whether all paths of this pattern begin with a literal prefix that ends at a segment.
    pub(crate) fn begins_with(&self, prefix: &str) -> bool {
        let front = self.front();
        front.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let front = self.front();
        // `/*` alone has no segment in front; everything else has one behind each slash.
        let segments = front.strip_prefix('/').map(|rest| rest.split('/'));
        segments.into_iter().flatten().map(|segment| match segment.starts_with('{') {
            true => Segment::Parameter,
            false => Segment::Literal(segment.as_bytes()),
        })
    }

    fn front(&self) -> &str {
        match self.tail {
            Tail::Anything => self.text.strip_suffix("/*").unwrap_or(&self.text),
            Tail::End => &self.text,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

//! Origins: the patterns of a policy, parsed strictly, and the set that a request's Origin is looked up in.
//!
//! Two parsers on purpose. [`OriginPattern::parse`] runs at load, is total, and refuses with a reason whatever a
//! browser would never send: a pattern that can match nothing is a mistake that somebody would search for days.
//! The one for requests ([`Parts::split`]) only splits, because whatever it lets through must still equal a pattern
//! byte for byte. Whatever the strict one accepts as an exact origin, the cheap one accepts (a property test).
//!
//! An origin is `scheme://host` or `scheme://host:port`, serialised as in the HTML standard, "ASCII serialisation of
//! an origin": lower case, punycode, no default port.

use std::net::{Ipv4Addr, Ipv6Addr};

use hashbrown::{HashMap, HashSet};

use crate::domain::{Depths, NameFault, are_labels, check_name, is_name_byte, split_port};
use crate::problem::ProblemKind;

/// The longest Origin that is looked at. A DNS name has at most 253 bytes; the rest is room for scheme and port.
/// The bound is what keeps a hostile Origin as cheap as a real one.
pub(crate) const MAX_ORIGIN: usize = 300;

/// One entry of `allow_origins`, valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`
    Any,
    /// `null`, the opaque origin
    Null,
    /// Everything else.
    Tuple(TuplePattern),
}

/// `scheme://host:port`, where host and port may be wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuplePattern {
    scheme: Box<str>,
    host: HostPattern,
    port: PortPattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    /// `*`
    Any,
    /// The text behind `*.`: one or more labels stand in front of it.
    Below(Box<str>),
    /// A name or an address, IPv6 in brackets.
    Exact(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortPattern {
    Any,
    /// None is the scheme's default port, which an Origin leaves out.
    Exact(Option<u16>),
}

/// Many patterns, looked up at a cost that does not depend on how many there are.
#[derive(Debug, Default)]
pub struct OriginSet {
    /// `https://app.example:8443`
    exact: HashSet<Box<str>>,
    /// `http://localhost` of `http://localhost:*`
    any_port: HashSet<Box<str>>,
    /// What stands behind the wildcard label, from its dot to the end, port included; with the schemes it holds for:
    /// `.partner.example:8443` of `https://*.partner.example:8443`
    below: HashMap<Box<str>, Schemes>,
    /// As `below`, for any port: `.partner.example` of `https://*.partner.example:*`
    below_any_port: HashMap<Box<str>, Schemes>,
    /// The numbers of labels that the hosts of `below` and `below_any_port` have: only those tails are looked up.
    depths: Depths,
    /// `https://*`, `https://*:8443`, `https://*:*`; as many as there are schemes, hence a list.
    any_host: Vec<(Box<str>, PortPattern)>,
}

type Schemes = Vec<Box<str>>;

/// Which form allowed an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginMatch {
    /// It is listed itself.
    Exact,
    /// A pattern with a wildcard covers it.
    Pattern,
}

/// An origin, split. The parts are slices of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    /// `scheme://host`
    without_port: &'a str,
    /// An address in brackets, or labels of which none is empty: what stands in front of a dot are whole labels.
    host: &'a str,
    /// `host:port` as written
    authority: &'a str,
    port: Option<u16>,
}

// === impl OriginPattern ===

impl OriginPattern {
    /// Reads one entry of a configuration. The error says what a browser would have sent instead.
    pub fn parse(text: &str) -> Result<Self, ProblemKind> {
        let own = || text.to_owned();
        match text {
            "" => return Err(ProblemKind::EmptyEntry),
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            "**" => return Err(ProblemKind::OriginReflectsAll),
            _ => {}
        }
        if text.len() > MAX_ORIGIN {
            return Err(ProblemKind::OriginTooLong { limit: MAX_ORIGIN });
        }
        if text.matches("://").count() > 1 || (text.contains(',') && text.contains("://")) {
            return Err(ProblemKind::OriginSeveral { text: own() });
        }
        if let Some(character) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(ProblemKind::OriginBadCharacter { text: own(), character });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match text.contains(['*', ':', '/']) && !looks_like_host(text) {
                true => ProblemKind::OriginBadScheme { text: own(), write: with_scheme(text) },
                false => ProblemKind::OriginWithoutScheme { text: own(), write: as_sent("https", text) },
            });
        };
        if scheme.contains('*') {
            return Err(ProblemKind::OriginMisplacedWildcard { text: own() });
        }
        if !is_scheme(&scheme.to_ascii_lowercase()) {
            return Err(ProblemKind::OriginBadScheme { text: own(), write: with_scheme(rest) });
        }
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let after = &rest[authority.len()..];
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        if authority.is_empty() {
            return Err(ProblemKind::OriginEmptyHost { text: own() });
        }
        let origin = || as_sent(scheme, authority);
        match after.as_bytes() {
            [] => {}
            b"/" => return Err(ProblemKind::OriginTrailingSlash { text: own(), origin: origin() }),
            [b'/', ..] if !after.contains(['?', '#']) => {
                return Err(ProblemKind::OriginPath { text: own(), origin: origin() });
            }
            [b'\\', ..] => return Err(ProblemKind::OriginBadCharacter { text: own(), character: '\\' }),
            _ => return Err(ProblemKind::OriginQuery { text: own(), origin: origin() }),
        }
        if user.is_some() {
            return Err(ProblemKind::OriginUserinfo { text: own(), origin: origin() });
        }
        if !text.is_ascii() {
            return Err(ProblemKind::OriginNonAscii { text: own() });
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ProblemKind::OriginUpperCase { text: own(), origin: origin() });
        }
        if let Ok(address) = authority.parse::<Ipv6Addr>() {
            let canonical = format!("{scheme}://[{}]", url_ipv6(address));
            return Err(ProblemKind::OriginNotCanonical { text: own(), canonical });
        }
        let (host, port) = split_port(authority);
        let port = match port {
            None => PortPattern::Exact(None),
            Some("*") => PortPattern::Any,
            Some(digits) => match parse_port(digits) {
                None => return Err(ProblemKind::OriginBadPort { text: own(), port: digits.to_owned() }),
                Some(port) if default_port(scheme) == Some(port) => {
                    return Err(ProblemKind::OriginDefaultPort { text: own(), write: format!("{scheme}://{host}") });
                }
                Some(port) => PortPattern::Exact(Some(port)),
            },
        };
        let host = HostPattern::parse(host, text)?;
        Ok(Self::Tuple(TuplePattern { scheme: scheme.into(), host, port }))
    }
}

impl HostPattern {
    fn parse(host: &str, text: &str) -> Result<Self, ProblemKind> {
        let own = || text.to_owned();
        match host {
            "" => return Err(ProblemKind::OriginEmptyHost { text: own() }),
            "*" => return Ok(Self::Any),
            _ => {}
        }
        let (wild, name) = match host.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        if name.contains('*') {
            return Err(ProblemKind::OriginMisplacedWildcard { text: own() });
        }
        let canonical = match name.strip_prefix('[') {
            Some(v6) => {
                let address = v6.strip_suffix(']').and_then(|v6| v6.parse::<Ipv6Addr>().ok());
                let address = address
                    .ok_or(ProblemKind::OriginBadHost { text: own(), why: "it is not an IPv6 address in brackets" })?;
                Some(format!("[{}]", url_ipv6(address)))
            }
            None => {
                check_name(name).map_err(|fault| match fault {
                    NameFault::Character(character) => ProblemKind::OriginBadCharacter { text: own(), character },
                    NameFault::Shape(why) => ProblemKind::OriginBadHost { text: own(), why },
                })?;
                let last = name.rsplit('.').next().unwrap_or_default();
                // The URL standard takes a host whose last label is a number for an IPv4 address.
                match is_number(last) {
                    true => {
                        let address = name.parse::<Ipv4Addr>();
                        let why = "it ends with a number, but is not an IPv4 address";
                        Some(address.map_err(|_| ProblemKind::OriginBadHost { text: own(), why })?.to_string())
                    }
                    false => None,
                }
            }
        };
        match canonical {
            Some(_) if wild => Err(ProblemKind::OriginBadHost { text: own(), why: "an IP address has no subdomains" }),
            Some(canonical) if canonical != name => {
                Err(ProblemKind::OriginNotCanonical { text: own(), canonical: text.replacen(name, &canonical, 1) })
            }
            _ if wild => Ok(Self::Below(name.into())),
            _ => Ok(Self::Exact(name.into())),
        }
    }
}

impl TuplePattern {
    /// `http` to anywhere but this machine: its responses can be read and changed on the way.
    pub(crate) fn is_insecure(&self) -> bool {
        &*self.scheme == "http" && !self.is_loopback()
    }

    /// Neither https nor http on loopback: an application's own scheme, or plain http to elsewhere.
    pub(crate) fn is_odd_scheme(&self) -> bool {
        &*self.scheme != "https" && !(&*self.scheme == "http" && self.is_loopback())
    }

    /// The public suffix that this pattern's wildcard stands directly under, as `github.io` for
    /// `https://*.github.io`; or everything, for `https://*`.
    pub(crate) fn public_suffix(&self) -> Option<&str> {
        match &self.host {
            HostPattern::Any => Some("*"),
            HostPattern::Exact(_) => None,
            HostPattern::Below(base) => {
                // Only suffixes that are really on the list: by the list's default rule every unknown single label
                // is one, and `https://*.internal` is somebody's own network.
                let suffix = psl::suffix(base.as_bytes())?;
                (suffix.is_known() && suffix.as_bytes() == base.as_bytes()).then_some(&**base)
            }
        }
    }

    fn is_loopback(&self) -> bool {
        match &self.host {
            HostPattern::Any => false,
            HostPattern::Below(name) => is_loopback_name(name),
            HostPattern::Exact(host) => {
                is_loopback_name(host)
                    || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
                    || &**host == "[::1]"
            }
        }
    }

    /// The obvious way to match, pattern by pattern. [`OriginSet`] must always agree with it; see the property test.
    pub fn matches(&self, origin: &str) -> bool {
        let Some(parts) = Parts::split(origin) else { return false };
        let port = match self.port {
            PortPattern::Any => true,
            PortPattern::Exact(port) => parts.port == port,
        };
        let host = match &self.host {
            HostPattern::Any => true,
            HostPattern::Exact(host) => parts.host == &**host,
            HostPattern::Below(base) => {
                parts.host.strip_suffix(&**base).and_then(|front| front.strip_suffix('.')).is_some()
            }
        };
        parts.scheme == &*self.scheme && port && host
    }
}

// === impl OriginSet ===

impl<'a> FromIterator<&'a TuplePattern> for OriginSet {
    fn from_iter<I: IntoIterator<Item = &'a TuplePattern>>(patterns: I) -> Self {
        let mut set = OriginSet::default();
        for pattern in patterns {
            let scheme = &pattern.scheme;
            let port = match pattern.port {
                PortPattern::Exact(Some(port)) => format!(":{port}"),
                PortPattern::Exact(None) | PortPattern::Any => String::new(),
            };
            match (&pattern.host, pattern.port) {
                (HostPattern::Any, port) => set.any_host.push((scheme.clone(), port)),
                (HostPattern::Exact(host), PortPattern::Any) => {
                    set.any_port.insert(format!("{scheme}://{host}").into());
                }
                (HostPattern::Exact(host), PortPattern::Exact(_)) => {
                    set.exact.insert(format!("{scheme}://{host}{port}").into());
                }
                (HostPattern::Below(base), rule) => {
                    set.depths.add(base);
                    let map = match rule {
                        PortPattern::Any => &mut set.below_any_port,
                        PortPattern::Exact(_) => &mut set.below,
                    };
                    let schemes = map.entry(format!(".{base}{port}").into()).or_default();
                    if !schemes.contains(scheme) {
                        schemes.push(scheme.clone());
                    }
                }
            }
        }
        set
    }
}

impl OriginSet {
    /// Whether an Origin is in the set, and how it got there.
    pub fn find(&self, origin: &str) -> Option<OriginMatch> {
        if self.exact.contains(origin) {
            return Some(OriginMatch::Exact);
        }
        if self.only_exact() {
            return None;
        }
        let parts = Parts::split(origin)?;
        let found = self.any_port.contains(parts.without_port)
            || self.find_below(&parts)
            || self.any_host.iter().any(|(scheme, port)| {
                **scheme == *parts.scheme
                    && match port {
                        PortPattern::Any => true,
                        PortPattern::Exact(port) => parts.port == *port,
                    }
            });
        found.then_some(OriginMatch::Pattern)
    }

    fn only_exact(&self) -> bool {
        self.any_port.is_empty() && self.depths.is_empty() && self.any_host.is_empty()
    }

    /// Looks up the tails of the host whose number of labels some pattern has.
    fn find_below(&self, parts: &Parts<'_>) -> bool {
        let has = |map: &HashMap<Box<str>, Schemes>, tail: &str| {
            map.get(tail).is_some_and(|schemes| schemes.iter().any(|s| **s == *parts.scheme))
        };
        self.depths
            .tails(parts.host)
            .any(|dot| has(&self.below, &parts.authority[dot..]) || has(&self.below_any_port, &parts.host[dot..]))
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// Splits a request's Origin; None when it has not the form of one. Not a validation: see the module's notes.
    fn split(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        if !is_scheme(scheme) {
            return None;
        }
        let (host, port) = split_port(authority);
        let port = match port {
            None => None,
            Some(digits) => Some(parse_port(digits).filter(|port| default_port(scheme) != Some(*port))?),
        };
        let valid = match host.as_bytes() {
            [b'[', inner @ .., b']'] => {
                !inner.is_empty() && inner.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b':'))
            }
            name => name.iter().all(|b| is_name_byte(*b)) && are_labels(host),
        };
        let without_port = &origin[..scheme.len() + "://".len() + host.len()];
        valid.then_some(Parts { scheme, without_port, host, authority, port })
    }
}

// --- grammar shared by both parsers

/// RFC 3986 section 3.1, lower case.
fn is_scheme(scheme: &str) -> bool {
    scheme.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && scheme.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
}

/// 1 to 65535 without leading zeros or signs.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}

/// The URL standard's special schemes.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// The URL standard's "ends in a number": decimal, or hexadecimal behind `0x`.
fn is_number(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
        || label.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The URL standard's IPv6 serialiser: as RFC 5952, but never with a dotted IPv4 tail.
fn url_ipv6(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(_) => {
            let s = address.segments();
            format!("::ffff:{:x}:{:x}", s[6], s[7])
        }
        None => address.to_string(),
    }
}

/// What a browser would send for a scheme and an authority in any spelling: lower case, no default port.
fn as_sent(scheme: &str, authority: &str) -> String {
    let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
    let (host, port) = split_port(&authority);
    match port.and_then(parse_port) {
        Some(port) if default_port(&scheme) == Some(port) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{authority}"),
    }
}

/// The origin that a text without a proper scheme was probably meant to be: `https:/app.example/login`.
fn with_scheme(text: &str) -> Option<String> {
    let host = |text: &str| {
        let authority = text.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
        looks_like_host(authority).then(|| authority.to_owned())
    };
    let (scheme, rest) = text.split_once([':', '/']).filter(|(s, _)| ["http", "https"].contains(s)).unzip();
    let authority = host(rest.unwrap_or(text))?;
    Some(as_sent(scheme.unwrap_or("https"), &authority))
}

fn looks_like_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    check_name(host.strip_prefix("*.").unwrap_or(host)).is_ok()
        && port.is_none_or(|p| p == "*" || parse_port(p).is_some())
}

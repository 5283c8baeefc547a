//! Origins: the patterns of a policy, and the set in which a request's Origin is looked up.
//!
//! There are two parsers. [`OriginPattern::parse`] runs when a configuration is loaded. It is strict. It reports an
//! error for every text that a browser would never send, because users hardly notice a pattern that matches nothing.
//! [`Parts::split`] runs for each request. It only splits the Origin into parts. It need not validate the parts,
//! because they are compared with a pattern byte for byte. A property test checks that [`Parts::split`] accepts every
//! exact origin that the strict parser accepts.
//!
//! An origin is `scheme://host` or `scheme://host:port`, serialized as in the HTML standard, "ASCII serialization of an
//! origin": lower case, punycode, no default port.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use hashbrown::{HashMap, HashSet};

use super::host_template::{HostTemplate, Placeholder};
use super::language;
use super::names::is_word_for_any;
use crate::domain::{LabelCounts, NameFault, are_labels, check_name, is_loopback_host, is_name_byte, split_port};
use crate::problem::ProblemKind;

/// Maximum length of an Origin that is looked up, in bytes: 253 for a DNS name, the rest for scheme and port. With this
/// limit, a hostile Origin costs no more than a real Origin.
pub(crate) const MAX_ORIGIN: usize = 300;

/// One entry of `allow_origins`. Every value is valid.
#[derive(Debug, Clone)]
pub enum OriginPattern {
    /// `*`: any origin.
    Any,
    /// `null`: the serialization of an opaque origin.
    Null,
    /// An origin with scheme and host.
    Tuple(TuplePattern),
}

/// `scheme://host:port`; host and port may be wildcards, and the host may have placeholders.
#[derive(Debug, Clone)]
pub struct TuplePattern {
    pub(super) scheme: Box<str>,
    pub(super) host: OriginHost,
    pub(super) port: PortPattern,
}

#[derive(Debug, Clone)]
pub(super) enum OriginHost {
    /// `*`
    Any,
    /// `*.` and this name. One or more labels come before the name.
    Subdomains(Box<str>),
    /// A host name or an IP address, IPv6 in brackets.
    Exact(Box<str>),
    /// A host name with placeholders, perhaps with a leading `*.`.
    Template(Box<HostTemplate>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortPattern {
    Any,
    /// This port. None means the default port of the scheme, which browsers omit in an Origin.
    Exact(Option<u16>),
}

/// A set of patterns. The cost of a lookup does not depend on the number of patterns, except for patterns with
/// placeholders: those with the same fixed end are tried one by one.
#[derive(Debug, Default)]
pub struct OriginSet {
    /// Origins without a wildcard, such as `https://app.example:8443`.
    exact: HashSet<Box<str>>,
    /// Origins with any port, without the port: `http://localhost` for `http://localhost:*`.
    any_port: HashSet<Box<str>>,
    /// Patterns for subdomains. The key is the pattern's text after `*`, with the port: `.partner.example:8443` for
    /// `https://*.partner.example:8443`. The value has the schemes.
    below: HashMap<Box<str>, Schemes>,
    /// Like `below`, for any port: `.partner.example` for `https://*.partner.example:*`
    below_any_port: HashMap<Box<str>, Schemes>,
    /// Label counts of the hosts in `below` and `below_any_port`. A lookup tries only the tails with these label
    /// counts.
    label_counts: LabelCounts,
    /// Patterns for any host: `https://*`, `https://*:8443`, `https://*:*`. They are in a list, because there are few
    /// of them.
    any_host: Vec<(Box<str>, PortPattern)>,
    /// Patterns with placeholders. None if there are none.
    templates: Option<Box<Templates>>,
}

/// Patterns with placeholders.
#[derive(Debug, Default)]
struct Templates {
    /// The key is the end of the host after the last label with a placeholder: `.app.example` for
    /// `https://pr-{digits}.app.example`.
    by_tail: HashMap<Box<str>, Vec<TuplePattern>>,
    /// Label counts of the keys.
    label_counts: LabelCounts,
}

type Schemes = Vec<Box<str>>;

/// The kind of entry that matches an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginMatch {
    /// An entry without a wildcard.
    Exact,
    /// A pattern with a wildcard or a placeholder.
    Pattern,
}

/// An origin, split into slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    /// `scheme://host`
    without_port: &'a str,
    /// An address in brackets, or non-empty labels separated by dots. So a suffix that starts with a dot consists of
    /// complete labels. A dot at the end is part of the host.
    host: &'a str,
    /// `host:port`
    authority: &'a str,
    port: Option<u16>,
}

// === impl OriginPattern ===

impl OriginPattern {
    /// Parses one entry of a configuration.
    ///
    /// Errors: the kind of problem, if possible with the origin that a browser would send instead.
    pub fn parse(text: &str) -> Result<Self, ProblemKind> {
        let own = || text.to_owned();
        match text {
            "" => return Err(ProblemKind::EmptyEntry),
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            "**" => return Err(ProblemKind::OriginReflectsAll),
            _ if is_word_for_any(text) => return Err(ProblemKind::WordForAny { text: own() }),
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
            let write = as_sent(likely_scheme(text), text);
            let is_host = looks_like_host(text) || !text.contains(['*', ':', '/']);
            // If a host is not ASCII, the text with the scheme is not valid either, but its error has its own advice.
            return Err(match is_host && (!text.is_ascii() || Self::parse(&write).is_ok()) {
                true => ProblemKind::OriginWithoutScheme { text: own(), write },
                false => ProblemKind::OriginBadScheme { text: own(), write: with_scheme(text) },
            });
        };
        if scheme.contains('*') {
            return Err(ProblemKind::OriginMisplacedWildcard { text: own(), write: meant_by_wildcard(text) });
        }
        if scheme.contains(['{', '}']) {
            let remedy = "write the scheme without a placeholder, such as `https://`";
            let why = "a placeholder can only be in the host";
            return Err(ProblemKind::OriginBadPlaceholder { text: own(), why, remedy });
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
        match &*scheme.to_ascii_lowercase() {
            // URL standard, "origin": these schemes have an opaque origin.
            "file" | "data" | "about" | "javascript" => return Err(ProblemKind::OriginOpaque { text: own() }),
            web_socket @ ("ws" | "wss") if !authority.is_empty() => {
                let write = as_sent(if web_socket == "ws" { "http" } else { "https" }, authority);
                return Err(ProblemKind::OriginOfWebSocket { text: own(), write });
            }
            _ => {}
        }
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
        let host = OriginHost::parse(host, text)?;
        Ok(Self::Tuple(TuplePattern { scheme: scheme.into(), host, port }))
    }
}

impl OriginHost {
    pub(super) fn parse(host: &str, text: &str) -> Result<Self, ProblemKind> {
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
            return Err(ProblemKind::OriginMisplacedWildcard { text: own(), write: meant_by_wildcard(text) });
        }
        if name.contains(['{', '}']) && !name.starts_with('[') {
            return Ok(Self::Template(Box::new(HostTemplate::parse(name, wild, text)?)));
        }
        let canonical = match name.strip_prefix('[') {
            Some(v6) => {
                let address = v6.strip_suffix(']').and_then(|v6| v6.parse::<Ipv6Addr>().ok());
                let address = address
                    .ok_or(ProblemKind::OriginBadHost { text: own(), why: "it is not an IPv6 address in brackets" })?;
                Some(format!("[{}]", url_ipv6(address)))
            }
            None => {
                // Browsers keep a dot at the end of a host. With the dot, the origin is a different origin.
                let relative = name.strip_suffix('.').unwrap_or(name);
                check_name(relative).map_err(|fault| match fault {
                    NameFault::Character(character) => ProblemKind::OriginBadCharacter { text: own(), character },
                    NameFault::Labels(why) => ProblemKind::OriginBadHost { text: own(), why },
                })?;
                let last = relative.rsplit('.').next().unwrap_or_default();
                // The URL standard parses a host whose last label is a number as an IPv4 address.
                match is_number(last) {
                    true => {
                        let address = relative.parse::<Ipv4Addr>();
                        let why = "it ends with a number, but is not an IPv4 address";
                        Some(address.map_err(|_| ProblemKind::OriginBadHost { text: own(), why })?.to_string())
                    }
                    false if name.split('.').any(|label| label.starts_with("xn--")) => {
                        let why = "a label begins with `xn--`, but is not valid punycode";
                        let decoded = url::Host::parse(name);
                        Some(decoded.map_err(|_| ProblemKind::OriginBadHost { text: own(), why })?.to_string())
                    }
                    false => None,
                }
            }
        };
        match canonical {
            Some(canonical) if wild && (canonical.starts_with('[') || canonical.parse::<Ipv4Addr>().is_ok()) => {
                Err(ProblemKind::OriginBadHost { text: own(), why: "an IP address has no subdomains" })
            }
            Some(canonical) if canonical != name => {
                Err(ProblemKind::OriginNotCanonical { text: own(), canonical: text.replacen(name, &canonical, 1) })
            }
            _ if wild => Ok(Self::Subdomains(name.into())),
            _ => Ok(Self::Exact(name.into())),
        }
    }
}

impl TuplePattern {
    /// Whether the scheme is `http` and the host is not loopback. An attacker on the network can read and change pages
    /// of such an origin.
    pub(crate) fn is_insecure(&self) -> bool {
        &*self.scheme == "http" && !self.is_loopback()
    }

    /// Whether the origin is neither `https` nor `http` on loopback. Then the scheme is an application's own scheme, or
    /// the origin is plain `http`.
    pub(crate) fn is_odd_scheme(&self) -> bool {
        &*self.scheme != "https" && !(&*self.scheme == "http" && self.is_loopback())
    }

    /// Returns the public suffix directly after the wildcard: `github.io` for `https://*.github.io`, `*` for
    /// `https://*`. A placeholder directly before the suffix counts, such as `https://{label}.github.io`.
    pub(crate) fn public_suffix(&self) -> Option<&str> {
        match &self.host {
            OriginHost::Any => Some("*"),
            OriginHost::Exact(_) => None,
            OriginHost::Template(template) => template.public_suffix(),
            OriginHost::Subdomains(base) => {
                // Only suffixes in the public suffix list count. The default rule of the list makes every unknown
                // single label a suffix, but `https://*.internal` is a private network.
                let base = base.strip_suffix('.').unwrap_or(base);
                let suffix = psl::suffix(base.as_bytes())?;
                (suffix.is_known() && suffix.as_bytes() == base.as_bytes()).then_some(base)
            }
        }
    }

    fn is_loopback(&self) -> bool {
        match &self.host {
            OriginHost::Any => false,
            OriginHost::Subdomains(host) | OriginHost::Exact(host) => is_loopback_host(host),
            OriginHost::Template(template) => is_loopback_host(template.text()),
        }
    }

    /// Whether the pattern has neither a wildcard nor a placeholder.
    pub(super) fn is_exact(&self) -> bool {
        matches!((&self.host, self.port), (OriginHost::Exact(_), PortPattern::Exact(_)))
    }

    /// Returns the pattern as a regular expression for the origins that a browser can send.
    pub(super) fn expression(&self) -> String {
        language::of_pattern(&self.scheme, &self.host, self.port)
    }

    /// Whether this pattern alone matches every origin that the other pattern matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let is_below = |base: &str, name: &str| name.strip_suffix(base).is_some_and(|front| front.ends_with('.'));
        let host = match (&self.host, &other.host) {
            (OriginHost::Any, _) => true,
            (OriginHost::Subdomains(base), OriginHost::Subdomains(other)) => base == other || is_below(base, other),
            (OriginHost::Subdomains(base), OriginHost::Exact(name)) => is_below(base, name),
            (OriginHost::Subdomains(base), OriginHost::Template(other)) => is_below(base, other.text()),
            (OriginHost::Exact(name), OriginHost::Exact(other)) => name == other,
            (OriginHost::Template(template), OriginHost::Exact(name)) => template.matches(name),
            (OriginHost::Template(template), OriginHost::Template(other)) => template.covers(other),
            (OriginHost::Subdomains(_), OriginHost::Any) | (OriginHost::Exact(_) | OriginHost::Template(_), _) => false,
        };
        host && self.scheme == other.scheme && (self.port == PortPattern::Any || self.port == other.port)
    }

    /// Matches an origin without an index. [`OriginSet`] must always give the same result. A property test compares the
    /// results.
    pub fn matches(&self, origin: &str) -> bool {
        Parts::split(origin).is_some_and(|parts| self.matches_parts(&parts))
    }

    fn matches_parts(&self, parts: &Parts<'_>) -> bool {
        let port = match self.port {
            PortPattern::Any => true,
            PortPattern::Exact(port) => parts.port == port,
        };
        parts.scheme == &*self.scheme && port && self.matches_host(parts.host)
    }

    /// Returns the first placeholder that does not match its part of a host, with that part. None if the pattern has no
    /// placeholder, or if the host differs in another part too.
    pub(crate) fn unmatched_placeholder<'h>(&self, host: &'h str) -> Option<(Placeholder, &'h str)> {
        match &self.host {
            OriginHost::Template(template) => template.mismatch(host),
            OriginHost::Any | OriginHost::Subdomains(_) | OriginHost::Exact(_) => None,
        }
    }

    /// Whether the pattern matches the host, with another scheme or port.
    pub(crate) fn matches_host(&self, host: &str) -> bool {
        match &self.host {
            OriginHost::Any => true,
            OriginHost::Exact(own) => **own == *host,
            OriginHost::Subdomains(base) => {
                host.strip_suffix(&**base).and_then(|front| front.strip_suffix('.')).is_some()
            }
            OriginHost::Template(template) => template.matches(host),
        }
    }
}

impl fmt::Display for TuplePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.host {
            OriginHost::Any => f.write_str("*")?,
            OriginHost::Subdomains(base) => write!(f, "*.{base}")?,
            OriginHost::Exact(host) => f.write_str(host)?,
            OriginHost::Template(template) => write!(f, "{template}")?,
        }
        match self.port {
            PortPattern::Any => f.write_str(":*"),
            PortPattern::Exact(None) => Ok(()),
            PortPattern::Exact(Some(port)) => write!(f, ":{port}"),
        }
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
                (OriginHost::Any, port) => set.any_host.push((scheme.clone(), port)),
                (OriginHost::Exact(host), PortPattern::Any) => {
                    set.any_port.insert(format!("{scheme}://{host}").into());
                }
                (OriginHost::Exact(host), PortPattern::Exact(_)) => {
                    set.exact.insert(format!("{scheme}://{host}{port}").into());
                }
                (OriginHost::Subdomains(base), rule) => {
                    set.label_counts.add(base);
                    let map = match rule {
                        PortPattern::Any => &mut set.below_any_port,
                        PortPattern::Exact(_) => &mut set.below,
                    };
                    let schemes = map.entry(format!(".{base}{port}").into()).or_default();
                    if !schemes.contains(scheme) {
                        schemes.push(scheme.clone());
                    }
                }
                (OriginHost::Template(template), _) => {
                    let templates = set.templates.get_or_insert_default();
                    templates.label_counts.add(template.tail().trim_start_matches('.'));
                    templates.by_tail.entry(template.tail().into()).or_default().push(pattern.clone());
                }
            }
        }
        set
    }
}

impl OriginSet {
    /// Looks up an Origin. None if no pattern matches.
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
            })
            || self.templates.as_ref().is_some_and(|templates| templates.match_any(&parts));
        found.then_some(OriginMatch::Pattern)
    }

    /// Returns the listed origins without a wildcard.
    pub(super) fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(|origin| &**origin)
    }

    /// Returns the patterns with a wildcard or a placeholder.
    pub(super) fn patterns(&self) -> impl Iterator<Item = TuplePattern> {
        let any_port = self.any_port.iter().filter_map(|origin| {
            let (scheme, host) = origin.split_once("://")?;
            Some(TuplePattern { scheme: scheme.into(), host: OriginHost::Exact(host.into()), port: PortPattern::Any })
        });
        let below = |tail: &str, scheme: &str, port: PortPattern| {
            let host = OriginHost::Subdomains(tail.strip_prefix('.').unwrap_or(tail).into());
            TuplePattern { scheme: scheme.into(), host, port }
        };
        let below_port = self.below.iter().flat_map(move |(tail, schemes)| {
            let (tail, port) = split_port(tail);
            let port = PortPattern::Exact(port.and_then(parse_port));
            schemes.iter().map(move |scheme| below(tail, scheme, port))
        });
        let below_any_port = (self.below_any_port.iter())
            .flat_map(move |(tail, schemes)| schemes.iter().map(move |scheme| below(tail, scheme, PortPattern::Any)));
        let any_host = self.any_host.iter();
        let any_host =
            any_host.map(|(scheme, port)| TuplePattern { scheme: scheme.clone(), host: OriginHost::Any, port: *port });
        let templates = self.templates.iter().flat_map(|templates| templates.by_tail.values().flatten().cloned());
        any_port.chain(below_port).chain(below_any_port).chain(any_host).chain(templates)
    }

    fn only_exact(&self) -> bool {
        self.any_port.is_empty() && self.label_counts.is_empty() && self.any_host.is_empty() && self.templates.is_none()
    }

    /// Looks up the tails of the host. Only tails with the label count of a pattern are tried.
    fn find_below(&self, parts: &Parts<'_>) -> bool {
        let has = |map: &HashMap<Box<str>, Schemes>, tail: &str| {
            map.get(tail).is_some_and(|schemes| schemes.iter().any(|s| **s == *parts.scheme))
        };
        self.label_counts
            .tails(parts.host)
            .any(|dot| has(&self.below, &parts.authority[dot..]) || has(&self.below_any_port, &parts.host[dot..]))
    }
}

// === impl Templates ===

impl Templates {
    /// Whether a pattern matches. Only the patterns whose fixed end is an end of the host are tried.
    fn match_any(&self, parts: &Parts<'_>) -> bool {
        let with_tail = |dot: usize| self.by_tail.get(&parts.host[dot..]).into_iter().flatten();
        self.label_counts.tails(parts.host).flat_map(with_tail).any(|pattern| pattern.matches_parts(parts))
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// Splits the Origin of a request. Returns None if the text does not have the form of an origin. The parts are not
    /// validated further, see the module docs.
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
            name => name.iter().all(|b| is_name_byte(*b)) && are_labels(host.strip_suffix('.').unwrap_or(host)),
        };
        let without_port = &origin[..scheme.len() + "://".len() + host.len()];
        valid.then_some(Parts { scheme, without_port, host, authority, port })
    }
}

// --- grammar shared by both parsers

/// Whether a text is a scheme in lower case (RFC 3986 section 3.1).
fn is_scheme(scheme: &str) -> bool {
    scheme.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && scheme.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
}

/// Parses a port from 1 to 65535, without leading zeros or a sign.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}

/// Returns the default port of a special scheme of the URL standard. None for other schemes.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

/// The "ends in a number checker" of the URL standard: whether a label is a decimal number, or a hexadecimal number
/// after `0x`.
fn is_number(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
        || label.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The IPv6 serializer of the URL standard. It is that of RFC 5952, but never writes an IPv4 tail in dotted form.
fn url_ipv6(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(_) => {
            let s = address.segments();
            format!("::ffff:{:x}:{:x}", s[6], s[7])
        }
        None => address.to_string(),
    }
}

/// Returns the origin that a browser would send for a scheme and an authority: lower case, no default port.
fn as_sent(scheme: &str, authority: &str) -> String {
    let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
    let (host, port) = split_port(&authority);
    match port.and_then(parse_port) {
        Some(port) if default_port(&scheme) == Some(port) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{authority}"),
    }
}

/// Guesses the intended origin of a text without a valid scheme, such as `https:/app.example/login`.
fn with_scheme(text: &str) -> Option<String> {
    let host = |text: &str| {
        let authority = text.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
        looks_like_host(authority).then(|| authority.to_owned())
    };
    let (scheme, rest) = text.split_once([':', '/']).filter(|(s, _)| ["http", "https"].contains(s)).unzip();
    let authority = host(rest.unwrap_or(text))?;
    Some(as_sent(scheme.unwrap_or(likely_scheme(&authority)), &authority))
}

/// Guesses the scheme for an authority. Developers rarely use TLS on loopback.
fn likely_scheme(authority: &str) -> &'static str {
    let host = split_port(authority).0.split('/').next().unwrap_or_default();
    if is_loopback_host(&host.to_ascii_lowercase()) { "http" } else { "https" }
}

/// Guesses the intended pattern of a text with a misplaced `*`.
fn meant_by_wildcard(text: &str) -> Option<String> {
    let (scheme, authority) = text.split_once("://")?;
    let scheme = match scheme {
        "*" | "http*" => "https",
        "http" | "https" => scheme,
        _ => return None,
    };
    let (host, port) = split_port(authority);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    // `**.example`, `*.*.example` and `*example` mean all subdomains.
    let base = host.trim_start_matches(['*', '.']);
    if !base.contains('*') {
        let stars = if host == base { "" } else { "*." };
        let write = format!("{scheme}://{stars}{base}{port}");
        let is_whole_label = host == base || host[..host.len() - base.len()].ends_with('.');
        if OriginPattern::parse(&write).is_ok() && (is_whole_label || !base.starts_with('-')) {
            return Some(write);
        }
    }
    // A `*` in one of the last two labels would match unrelated sites.
    let labels: Vec<&str> = host.split('.').collect();
    let is_safe = labels.len() > 2 && labels[labels.len() - 2..].iter().all(|label| !label.contains('*'));
    let write = format!("{scheme}://{}{port}", host.replace('*', "{label}"));
    (is_safe && OriginPattern::parse(&write).is_ok()).then_some(write)
}

fn looks_like_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    check_name(host.strip_prefix("*.").unwrap_or(host)).is_ok()
        && port.is_none_or(|p| p == "*" || parse_port(p).is_some())
}

#[cfg(test)]
mod tests {
    use super::super::witness;
    use super::*;

    fn tuple(text: &str) -> TuplePattern {
        match OriginPattern::parse(text) {
            Ok(OriginPattern::Tuple(pattern)) => pattern,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Patterns, each with the other patterns of the table that it covers.
    #[test]
    fn a_pattern_covers_the_patterns_that_match_less() {
        let below = [
            "https://*.b.a.example",
            "https://c.b.a.example",
            "https://pr-7.a.example",
            "https://pr-{digits}.a.example",
            "https://{label}.a.example",
            "https://*.{label}.a.example",
        ];
        let default_port = [&["https://a.example", "https://xa.example", "https://*.a.example"][..], &below].concat();
        let https = [&default_port[..], &["https://*", "https://a.example:*", "https://a.example:8443"]].concat();
        let table: [(&str, &[&str]); 14] = [
            ("https://a.example", &[]),
            ("http://a.example", &[]),
            ("https://a.example:8443", &[]),
            ("https://a.example:*", &["https://a.example", "https://a.example:8443"]),
            ("https://xa.example", &[]),
            ("https://*.a.example", &below),
            ("https://*.b.a.example", &["https://c.b.a.example"]),
            ("https://c.b.a.example", &[]),
            ("https://pr-7.a.example", &[]),
            ("https://pr-{digits}.a.example", &["https://pr-7.a.example"]),
            ("https://{label}.a.example", &["https://pr-7.a.example"]),
            ("https://*.{label}.a.example", &["https://c.b.a.example"]),
            ("https://*", &default_port),
            ("https://*:*", &https),
        ];
        for (text, covered) in &table {
            let pattern = tuple(text);
            for (other_text, _) in &table {
                let other = tuple(other_text);
                let expected = text == other_text || covered.contains(other_text);
                assert_eq!(pattern.covers(&other), expected, "{text} and {other_text}");
                if expected {
                    witness::matching(&other)
                        .iter()
                        .for_each(|origin| assert!(pattern.matches(origin), "{text} {origin}"));
                }
            }
            assert_eq!(pattern.is_exact(), !text.contains(['*', '{']), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_origin_has_its_own_problem() {
        let several = |text: &str| ProblemKind::OriginSeveral { text: text.to_owned() };
        let parse = |text: &str| OriginPattern::parse(text).unwrap_err();
        for text in [
            "https://a.example,https://b.example",
            "https://a.example,b.example",
            "https://a.examplehttps://b.example",
            "a.example,https://b.example",
        ] {
            assert_eq!(parse(text), several(text), "{text}");
        }
        assert_ne!(parse("a.example,b.example"), several("a.example,b.example"));
        let long = |length: usize| format!("https://{}", "a".repeat(length - "https://".len()));
        assert_eq!(parse(&long(MAX_ORIGIN + 1)), ProblemKind::OriginTooLong { limit: MAX_ORIGIN });
        assert_ne!(parse(&long(MAX_ORIGIN)), ProblemKind::OriginTooLong { limit: MAX_ORIGIN });
        for (text, write) in [
            ("ws://a.example", "http://a.example"),
            ("wss://a.example:443/x", "https://a.example"),
            ("WSS://A.example:8443", "https://a.example:8443"),
        ] {
            let kind = ProblemKind::OriginOfWebSocket { text: text.to_owned(), write: write.to_owned() };
            assert_eq!(parse(text), kind);
        }
        for (text, character) in
            [(" https://a.example", ' '), ("https://a.example\u{7f}", '\u{7f}'), ("ht tp://a", ' ')]
        {
            assert_eq!(parse(text), ProblemKind::OriginBadCharacter { text: text.to_owned(), character });
        }
        assert_eq!(parse("ws://"), ProblemKind::OriginEmptyHost { text: "ws://".to_owned() });
    }

    #[test]
    fn a_misplaced_wildcard_has_a_suggestion_if_its_meaning_is_clear() {
        for (text, write) in [
            ("https://**.a.example", Some("https://*.a.example")),
            ("https://*.*.a.example:8443", Some("https://*.a.example:8443")),
            ("https://*a.example", Some("https://*.a.example")),
            ("*://a.example", Some("https://a.example")),
            ("http*://*.a.example", Some("https://*.a.example")),
            ("https://*-dev.a.example", Some("https://{label}-dev.a.example")),
            ("https://pr-*.a.example", Some("https://pr-{label}.a.example")),
            ("https://*-a.example", None),
            ("https://a.*", None),
            ("https://a.*.example", None),
            ("https://b.a*.example", None),
            ("ftp*://a.example", None),
        ] {
            assert_eq!(meant_by_wildcard(text).as_deref(), write, "{text}");
        }
    }

    #[test]
    fn the_special_schemes_have_default_ports() {
        for (scheme, port) in [
            ("http", Some(80)),
            ("https", Some(443)),
            ("ws", Some(80)),
            ("wss", Some(443)),
            ("ftp", Some(21)),
            ("x", None),
        ] {
            assert_eq!(default_port(scheme), port, "{scheme}");
        }
        for (text, expected) in [
            ("a.example", true),
            ("*.a.example:*", true),
            ("a.example:8443", true),
            ("a.example:x", false),
            ("a.example:0", false),
            ("a/b", false),
        ] {
            assert_eq!(looks_like_host(text), expected, "{text}");
        }
    }
}

//! Host names of origins and routes: syntax, normalization, and fast lookup among many wildcards such as `*.example`.
//! [`own_origin`] is the origin of a request's own URL. [`Networks`] are sets of IP networks.

mod client_key;
mod networks;
mod own_origin;

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) use self::client_key::ClientKey;
pub use self::networks::Networks;
pub(crate) use self::own_origin::parse_port;
pub use self::own_origin::{OwnOrigin, Scheme};

/// The reason why a text is not a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameFault {
    /// A character that host names do not have, such as an upper-case letter: names are compared in lower case.
    Character(char),
    /// The labels are not valid, for this reason.
    Labels(&'static str),
}

/// The host of a request: lower case, without port and trailing dot. Stored inline, so that a request allocates
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct HostName {
    bytes: [u8; HostName::MAX_LENGTH],
    length: usize,
}

/// A set of label counts, 1 to 127, of the bases of wildcards: `*.partner.example` adds 2.
///
/// A host with n labels has n tails, and a hostile host up to 127. Only tails whose label count is in the set are
/// looked up.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LabelCounts(u128);

/// Checks that a text is a host name as browsers send it: lower case, labels of 1 to 63 bytes, at most 253 bytes.
///
/// `_` is not allowed in DNS host names, but URLs accept it and such names exist.
pub(crate) fn check_name(name: &str) -> Result<(), NameFault> {
    if let Some(character) = name.chars().find(|c| !c.is_ascii() || !is_name_byte(*c as u8)) {
        return Err(NameFault::Character(character));
    }
    if name.ends_with('.') {
        return Err(NameFault::Labels("it ends with a dot"));
    }
    if name.split('.').any(str::is_empty) {
        return Err(NameFault::Labels("a label is empty"));
    }
    if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
        return Err(NameFault::Labels("it is longer than DNS allows"));
    }
    Ok(())
}

/// Each byte of a host name in lower case, and 0 for the bytes that do not occur in one.
static NAME_BYTES: [u8; 256] = {
    let (mut table, mut b) = ([0; 256], 0_u8);
    // No name has a byte above 127.
    while b < 128 {
        let lower = b.to_ascii_lowercase();
        if is_name_byte(lower) {
            table[b as usize] = lower;
        }
        b += 1;
    }
    table
};

/// Whether a byte occurs in host names, dots included.
pub(crate) const fn is_name_byte(b: u8) -> bool {
    matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

/// Whether a host is this machine: `localhost`, a name below it, or a loopback address, IPv6 in brackets. Browsers treat
/// such hosts as trustworthy without TLS (Secure Contexts, "potentially trustworthy origin").
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

// === impl HostName ===

impl HostName {
    /// Maximum length of a DNS name with a trailing dot, in bytes.
    const MAX_LENGTH: usize = 254;

    /// Parses the authority of a request: a name or an IP address, IPv6 in brackets, with or without a port, which may
    /// be empty (RFC 3986 section 3.2.2). None if it is invalid; then the request must be refused.
    pub fn parse(authority: &str) -> Option<Self> {
        let mut host = HostName { bytes: [0; Self::MAX_LENGTH], length: 0 };
        let mut rest = authority.as_bytes();
        if let [b'[', ..] = rest {
            let end = rest.iter().position(|b| *b == b']')? + 1;
            authority[1..end - 1].parse::<Ipv6Addr>().ok()?;
            for b in &rest[..end] {
                host.push(b.to_ascii_lowercase())?;
            }
            rest = &rest[end..];
        } else {
            let colon = rest.iter().position(|b| *b == b':').unwrap_or(rest.len());
            let (name, port) = rest.split_at(colon);
            let stored = host.bytes.get_mut(..colon)?;
            for (stored, b) in stored.iter_mut().zip(name) {
                *stored = NAME_BYTES[usize::from(*b)];
            }
            if stored.contains(&0) {
                return None;
            }
            (host.length, rest) = (colon, port);
            if let [.., b'.'] = host.bytes[..host.length] {
                host.length -= 1;
            }
        }
        let port_is_valid = match rest {
            [] => true,
            [b':'] => true,
            [b':', digits @ ..] => std::str::from_utf8(digits).ok().and_then(parse_port).is_some(),
            _ => false,
        };
        (host.length > 0 && port_is_valid).then_some(host)
    }

    /// Returns the host as text.
    pub fn as_str(&self) -> &str {
        // `parse` stores only ASCII.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    fn push(&mut self, b: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = b;
        self.length += 1;
        Some(())
    }
}

/// Splits off a port at the colon after the host. Colons in the brackets of an IPv6 address do not count.
pub(crate) fn split_port(authority: &str) -> (&str, Option<&str>) {
    // A loop over bytes is faster than a search for characters in a text of this length.
    let bytes = authority.as_bytes();
    let after_brackets = bytes.iter().rposition(|b| *b == b']').map_or(0, |i| i + 1);
    match bytes[after_brackets..].iter().position(|b| *b == b':') {
        Some(colon) => (&authority[..after_brackets + colon], Some(&authority[after_brackets + colon + 1..])),
        None => (authority, None),
    }
}

/// Whether a text is non-empty labels separated by dots.
pub(crate) fn are_labels(text: &str) -> bool {
    text.split('.').all(|label| !label.is_empty())
}

impl LabelCounts {
    /// Adds the base of a wildcard.
    pub(crate) fn add(&mut self, base: &str) {
        let labels = base.bytes().filter(|b| *b == b'.').count() + 1;
        self.0 |= 1 << labels.min(127);
    }

    /// Returns the tails of a host that have as many labels as a base, the shortest first. A tail is given by the index
    /// of the dot before it.
    pub(crate) fn tails(self, host: &str) -> impl Iterator<Item = usize> {
        let most = 127 - self.0.leading_zeros().min(127) as usize;
        let dots = host.bytes().enumerate().rev().filter(|(_, b)| *b == b'.').map(|(i, _)| i);
        dots.take(most).enumerate().filter(move |(i, _)| self.0 & (1 << (i + 1)) != 0).map(|(_, dot)| dot)
    }

    /// Whether there is no wildcard.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

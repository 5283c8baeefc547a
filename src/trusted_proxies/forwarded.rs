//! The URL that the client used, from the header fields of a trusted proxy: `X-Forwarded-Proto`, `-Host` and `-Port`, or
//! `Forwarded` (RFC 7239).
//!
//! Several proxies in a row make lists. The first value is that of the proxy next to the client, so it counts. A value
//! that is not valid counts as absent.

use std::fmt;

use http::{HeaderMap, HeaderName, header};

use crate::domain::{HostName, OwnOrigin, Scheme, parse_port, split_port};

/// The header with the scheme of the client's request.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The header with the host, and perhaps the port, of the client's request.
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// A field of a trusted proxy that counts as absent because its first value is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IgnoredField {
    /// `X-Forwarded-Proto`
    Proto,
    /// `X-Forwarded-Host`
    Host,
    /// `X-Forwarded-Port`
    Port,
    /// `Forwarded`
    Forwarded,
}

/// Scheme and host of the first element of `Forwarded`.
#[derive(Debug, Default)]
struct Element<'a> {
    scheme: Option<Scheme>,
    host: Option<&'a str>,
}

/// The origin of the URL that the client used. `scheme` and `authority` are those of the request that the trusted proxy
/// sent; they count for what its fields do not say. Also the first field that is not valid, for the log.
///
/// `Forwarded` is read only if no `X-Forwarded-*` field says anything, because most proxies set those, and some of them
/// pass on the `Forwarded` of the client.
pub(crate) fn own_origin<'a>(
    scheme: Scheme,
    authority: &'a str,
    headers: &'a HeaderMap,
) -> (OwnOrigin<'a>, Option<IgnoredField>) {
    let mut ignored = None;
    let mut valid = |is_valid: bool, field| {
        if !is_valid {
            ignored.get_or_insert(field);
        }
    };
    let (mut proto, mut host, mut port) = (None, None, None);
    if let Some(value) = first(headers, &X_FORWARDED_PROTO) {
        proto = value.and_then(Scheme::parse);
        valid(proto.is_some(), IgnoredField::Proto);
    }
    if let Some(value) = first(headers, &X_FORWARDED_HOST) {
        host = value.filter(|host| HostName::parse(host).is_some());
        valid(host.is_some(), IgnoredField::Host);
    }
    if let Some(value) = first(headers, &X_FORWARDED_PORT) {
        port = value.and_then(parse_port).filter(|port| *port != 0);
        valid(port.is_some(), IgnoredField::Port);
    }
    if (proto, host, port) == (None, None, None)
        && let Some(field) = headers.get(header::FORWARDED)
    {
        let element = Element::first(field.as_bytes());
        valid(element.is_some(), IgnoredField::Forwarded);
        let element = element.unwrap_or_default();
        (proto, host) = (element.scheme, element.host);
    }
    let scheme = proto.unwrap_or(scheme);
    let authority = host.unwrap_or(authority);
    let mut own = OwnOrigin::of(scheme, authority);
    // Browsers write the port into `Host`, so a port there is the client's. Without one, `X-Forwarded-Port` counts: some
    // proxies remove the port from the host. Others send the port of their own plain listener together with `https`.
    // That port cannot be the client's.
    let other = match scheme {
        Scheme::Http => Scheme::Https,
        Scheme::Https => Scheme::Http,
    };
    if split_port(authority).1.is_none_or(str::is_empty) {
        own.port = port.filter(|port| ![scheme.default_port(), other.default_port()].contains(port));
    }
    (own, ignored)
}

/// The first value of a list that is not empty. None if there is none, `Some(None)` if it is not UTF-8.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a str>> {
    let values = headers.get(name)?.as_bytes().split(|b| *b == b',');
    let value = values.map(<[u8]>::trim_ascii).find(|value| !value.is_empty())?;
    Some(std::str::from_utf8(value).ok())
}

// === impl Element ===

impl<'a> Element<'a> {
    /// Parses the first element of a `Forwarded` field that is not empty. None if it is malformed. Parameters other than
    /// `proto` and `host` are not read.
    ///
    /// Two deviations from RFC 7239 that proxies make are accepted: spaces beside `;`, and a host with a port without
    /// quotes.
    fn first(field: &'a [u8]) -> Option<Self> {
        let mut element = Element::default();
        let mut rest = std::str::from_utf8(field).ok()?.trim_matches([' ', '\t', ',']);
        loop {
            rest = rest.trim_start_matches([' ', '\t', ';']);
            if rest.is_empty() || rest.starts_with(',') {
                return Some(element);
            }
            let (name, value);
            (name, rest) = rest.split_once('=')?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
                return None;
            }
            (value, rest) = match rest.strip_prefix('"') {
                // No scheme and no host needs an escape, so a backslash is not resolved.
                Some(quoted) => {
                    let mut escaped = false;
                    let end = quoted.bytes().position(|b| {
                        let is_end = b == b'"' && !escaped;
                        escaped = b == b'\\' && !escaped;
                        is_end
                    })?;
                    (&quoted[..end], &quoted[end + 1..])
                }
                None => rest.split_at(rest.find([';', ',', ' ', '\t', '"']).unwrap_or(rest.len())),
            };
            rest = rest.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with([';', ',']) {
                return None;
            }
            if name.eq_ignore_ascii_case("proto") {
                if element.scheme.is_some() {
                    return None;
                }
                element.scheme = Some(Scheme::parse(value)?);
            } else if name.eq_ignore_ascii_case("host") {
                if element.host.is_some() || HostName::parse(value).is_none() {
                    return None;
                }
                element.host = Some(value);
            }
        }
    }
}

// === impl IgnoredField ===

impl IgnoredField {
    /// Every field.
    pub(crate) const ALL: [Self; 4] = [Self::Proto, Self::Host, Self::Port, Self::Forwarded];

    /// Position in [`Self::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for IgnoredField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IgnoredField::Proto => "X-Forwarded-Proto is not http, https, ws or wss",
            IgnoredField::Host => "X-Forwarded-Host is not a host with or without a port",
            IgnoredField::Port => "X-Forwarded-Port is not a port",
            IgnoredField::Forwarded => "Forwarded is malformed, or its proto or host is not valid",
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The URL's origin for a request of a proxy over http with `Host: in.test`.
    fn found(fields: &[(&str, &str)]) -> (String, Option<IgnoredField>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (own, ignored) = own_origin(Scheme::Http, "in.test", &headers);
        (format!("{}://{}", own.scheme.as_str(), own.authority()), ignored)
    }

    #[test]
    fn x_forwarded_proto_is_a_scheme() {
        for (value, expected, ignored) in [
            ("https", "https://in.test", None),
            ("HTTPS", "https://in.test", None),
            ("http", "http://in.test", None),
            ("wss", "https://in.test", None),
            ("ws", "http://in.test", None),
            ("https,http", "https://in.test", None),
            ("https, https", "https://in.test", None),
            (" http , https", "http://in.test", None),
            (",https", "https://in.test", None),
            ("", "http://in.test", None),
            (" , ", "http://in.test", None),
            ("https://", "http://in.test", Some(IgnoredField::Proto)),
            ("\"https\"", "http://in.test", Some(IgnoredField::Proto)),
            ("https http", "http://in.test", Some(IgnoredField::Proto)),
            ("httpss", "http://in.test", Some(IgnoredField::Proto)),
            ("é, https", "http://in.test", Some(IgnoredField::Proto)),
        ] {
            assert_eq!(found(&[("x-forwarded-proto", value)]), (expected.to_owned(), ignored), "{value:?}");
        }
        assert_eq!(found(&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")]).0, "https://in.test");
    }

    #[test]
    fn x_forwarded_host_and_port_replace_those_of_host() {
        for (host, port, expected, ignored) in [
            ("app.test", "", "https://app.test", None),
            ("App.Test:8443", "", "https://App.Test:8443", None),
            ("app.test:443", "", "https://app.test", None),
            ("app.test, in.test", "", "https://app.test", None),
            ("[2001:db8::1]:8443", "", "https://[2001:db8::1]:8443", None),
            ("app.test", "8443", "https://app.test:8443", None),
            ("app.test", "8443, 9080", "https://app.test:8443", None),
            ("app.test", "443", "https://app.test", None),
            ("", "8443", "https://in.test:8443", None),
            // A port beside the host is what the browser wrote.
            ("app.test:8443", "9443", "https://app.test:8443", None),
            ("app.test:443", "9443", "https://app.test", None),
            // The port of a plain listener behind the proxy that ends TLS.
            ("app.test", "80", "https://app.test", None),
            ("app.test", "0", "https://app.test", Some(IgnoredField::Port)),
            ("app.test", "65536", "https://app.test", Some(IgnoredField::Port)),
            ("app.test", "+443", "https://app.test", Some(IgnoredField::Port)),
            ("app.test", "8443/x", "https://app.test", Some(IgnoredField::Port)),
            ("app test", "", "https://in.test", Some(IgnoredField::Host)),
            ("user@app.test", "", "https://in.test", Some(IgnoredField::Host)),
            ("https://app.test", "", "https://in.test", Some(IgnoredField::Host)),
            ("app.test/x", "", "https://in.test", Some(IgnoredField::Host)),
            ("app.test:x", "", "https://in.test", Some(IgnoredField::Host)),
            ("[::1", "", "https://in.test", Some(IgnoredField::Host)),
            ("é", "", "https://in.test", Some(IgnoredField::Host)),
        ] {
            let fields = [("x-forwarded-proto", "https"), ("x-forwarded-host", host), ("x-forwarded-port", port)];
            assert_eq!(found(&fields), (expected.to_owned(), ignored), "{host:?} {port:?}");
        }
    }

    #[test]
    fn forwarded_has_scheme_and_host_in_its_first_element() {
        for (value, expected) in [
            ("proto=https;host=app.test", Some("https://app.test")),
            ("Proto=HTTPS; Host=\"app.test\"", Some("https://app.test")),
            ("for=192.0.2.60;proto=wss;by=203.0.113.43;host=app.test", Some("https://app.test")),
            ("for=\"[2001:db8::1]:4711\";proto=https;host=\"[2001:db8::2]:8443\"", Some("https://[2001:db8::2]:8443")),
            ("proto=https;host=app.test:8443", Some("https://app.test:8443")),
            ("proto=https;host=app.test, proto=http;host=in.test", Some("https://app.test")),
            ("proto=https;host=app.test,broken", Some("https://app.test")),
            (", ,proto=https", Some("https://in.test")),
            ("host=app.test", Some("http://app.test")),
            ("for=\"a,b;proto=https\"", Some("http://in.test")),
            ("for=\"a\\\"b\";proto=https", Some("https://in.test")),
            ("for=x, proto=https", Some("http://in.test")),
            ("proto=https;", Some("https://in.test")),
            ("ext=", Some("http://in.test")),
            ("", Some("http://in.test")),
            (",", Some("http://in.test")),
            ("proto=https;proto=http", None),
            ("host=a.test;host=b.test", None),
            ("proto=ftp;host=app.test", None),
            ("proto=;host=app.test", None),
            ("proto=https;host=\"app.test", None),
            ("proto=https;host=\"app\\.test\"", None),
            ("proto=https;host=app.test/x", None),
            ("proto=https;host=user@app.test", None),
            ("proto=https;host=[::1", None),
            ("proto = https", None),
            ("proto=https host=app.test", None),
            ("proto=\"https\"x;host=app.test", None),
            ("https", None),
            ("=https", None),
            ("pr oto=https", None),
            ("proto=https;é", None),
        ] {
            let ignored = expected.is_none().then_some(IgnoredField::Forwarded);
            let expected = expected.unwrap_or("http://in.test").to_owned();
            assert_eq!(found(&[("forwarded", value)]), (expected, ignored), "{value:?}");
        }
    }

    #[test]
    fn x_forwarded_fields_take_precedence_over_forwarded() {
        let forwarded = ("forwarded", "proto=https;host=other.test");
        for (name, value, expected) in [
            ("x-forwarded-proto", "http", "http://in.test"),
            ("x-forwarded-host", "app.test", "http://app.test"),
            ("x-forwarded-port", "8080", "http://in.test:8080"),
            // Not valid, so it counts as absent.
            ("x-forwarded-proto", "gopher", "https://other.test"),
            ("x-forwarded-for", "192.0.2.1", "https://other.test"),
        ] {
            assert_eq!(found(&[(name, value), forwarded]).0, expected, "{name}: {value}");
        }
    }
}

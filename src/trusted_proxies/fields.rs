//! The names of request header fields that a service may trust, although any client can send them.
//!
//! Two kinds of names are dangerous. A forwarding field says who the client is, or which URL it used; only a trusted
//! proxy may send one. A name with `_` becomes the same variable as the name with `-` in CGI, FastCGI, WSGI, Rack and PHP
//! (`HTTP_X_FORWARDED_FOR`), so the service cannot tell which of the two it got.

/// Fields that only a trusted proxy may send, beside all that begin with `x-forwarded-`. Each is believed by a framework,
/// a library or a common proxy.
const FORWARDING_FIELDS: [&str; 28] = [
    "forwarded",
    "client-cert",
    "client-cert-chain",
    // The client's address, as Rails, PHP applications and libraries such as request-ip and django-ipware read it.
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-ip",
    "fastly-client-ip",
    "forwarded-for",
    "forwarded-for-ip",
    "true-client-ip",
    "x-appengine-user-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-original-for",
    "x-original-forwarded-for",
    "x-real-ip",
    // The URL: Symfony, Zend, IIS and ASP.NET replace that of the request line.
    "front-end-https",
    "x-host",
    "x-original-host",
    "x-original-proto",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];

/// `X-Forwarded-Prefix`, `-Ssl`, `-Server`, `-User` and so on: there is no complete list.
const FORWARDING_PREFIX: &[u8] = b"x-forwarded-";

/// The kind of a request header field, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldKind {
    /// Any client may send the field.
    Ordinary,
    /// Only a trusted proxy may send the field.
    Forwarding,
    /// Becomes the variable of a forwarding field, such as `x_forwarded_for`. No proxy sends it.
    ForwardingLookalike,
    /// Has an underscore.
    Underscore,
}

impl FieldKind {
    /// The kind of a name in lower case.
    pub(crate) fn of(name: &str) -> Self {
        let name = name.as_bytes();
        if is_forwarding(name) {
            return match name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
                true => FieldKind::Forwarding,
                false => FieldKind::ForwardingLookalike,
            };
        }
        match name.contains(&b'_') {
            true => FieldKind::Underscore,
            false => FieldKind::Ordinary,
        }
    }
}

/// Whether a name is a forwarding field, or becomes the variable of one. Servers replace `-` by `_`; some replace every
/// character that is no letter or digit.
fn is_forwarding(name: &[u8]) -> bool {
    // Most names begin with another letter.
    if !matches!(name.first(), Some(b'c' | b'f' | b't' | b'x')) {
        return false;
    }
    let same = |known: &[u8], name: &[u8]| {
        known.len() == name.len()
            && known.iter().zip(name).all(|(known, b)| known == b || (*known == b'-' && !b.is_ascii_alphanumeric()))
    };
    name.get(..FORWARDING_PREFIX.len()).is_some_and(|start| same(FORWARDING_PREFIX, start))
        || FORWARDING_FIELDS.iter().any(|known| same(known.as_bytes(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_field() {
        let manual = include_str!("../../docs/internet.md").to_lowercase();
        for name in FORWARDING_FIELDS {
            assert!(manual.contains(&format!("`{name}`")), "docs/internet.md does not name {name}");
        }
    }

    #[test]
    fn names_that_a_service_may_believe_are_found() {
        for (names, kind) in [
            (&FORWARDING_FIELDS[..], FieldKind::Forwarding),
            (
                &[
                    "x-forwarded-for",
                    "x-forwarded-proto",
                    "x-forwarded-prefix",
                    "x-forwarded-ssl",
                    "x-forwarded-server",
                    "x-forwarded-scheme",
                    "x-forwarded-user",
                    "x-forwarded-",
                ],
                FieldKind::Forwarding,
            ),
            (
                &[
                    "x_forwarded_for",
                    "x-forwarded_for",
                    "x_forwarded-proto",
                    "x.forwarded.host",
                    "client_cert",
                    "client~cert",
                    "x_real-ip",
                ],
                FieldKind::ForwardingLookalike,
            ),
            (&["x_id", "_", "a_b-c", "x_forwarde", "clientcert_", "x_forwardedfor"], FieldKind::Underscore),
            (
                &[
                    "accept",
                    "cookie",
                    "content-type",
                    "forwards",
                    "x-forwarder",
                    "x-forwardedfor",
                    "xforwarded-for",
                    "x-real-ipv6",
                    "client-certificate",
                    "x.id",
                    "x-http-method-override",
                    "traceparent",
                    "te",
                ],
                FieldKind::Ordinary,
            ),
        ] {
            for name in names {
                assert_eq!(FieldKind::of(name), kind, "{name}");
            }
        }
    }
}
